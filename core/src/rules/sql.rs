//! The statements of rules, made once. Each has one parameter: a JSON array with an array for each row.
//!
//! None of them asks the ledger. The transaction begins with the ledger's own statement, which fails if an event is in it.

use super::{DELETION, FETCHED, GUARD_COLUMNS};
use crate::schema::ROW_GUARDS;

/// The rows of the parameter, `value` each. Materialised, since `json_each` renders an element anew for every column that
/// is taken from it.
const ROWS: &str = "WITH rows AS MATERIALIZED (SELECT value FROM json_each(?1))";

/// Where the first column stands in the array of a row with a version, behind what orders it.
const FIRST: usize = 6;

/// What orders a row of the parameter.
const ORDER: &str = "(value ->> 3, value ->> 4, value ->> 1)";

/// A table that rules write, and its columns by what they are for.
pub(super) struct Target<'r> {
    /// The rule's name.
    pub(super) rule: &'r str,
    /// The table's.
    pub(super) table: &'r str,
    /// Columns that say which row, in the order of the parameter.
    pub(super) key: Vec<&'r str>,
    /// Columns that are written, or added to, behind those.
    pub(super) set: Vec<&'r str>,
    /// Columns that other rules of the table set, and this one does not.
    pub(super) unset: Vec<&'r str>,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn list(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().collect::<Vec<_>>().join(", ")
}

fn quoted_list(names: &[&str]) -> String {
    list(names.iter().map(|name| quoted(name)))
}

/// `count` members of the row, from the `first`.
fn members(first: usize, count: usize) -> impl Iterator<Item = String> {
    (first..first + count).map(|i| format!("value ->> {i}"))
}

/// A key as it is kept in `row_guards`: the texts of its values.
fn key_text(values: impl Iterator<Item = String>) -> String {
    format!("json_array({})", list(values.map(|value| format!("CAST({value} AS TEXT)"))))
}

/// A rule's name as a one-line SQL comment.
fn comment(name: &str) -> String {
    name.replace(|c: char| c.is_control(), " ")
}

/// What every statement begins with.
fn head(rule: &str) -> String {
    format!("-- rule {}\n{ROWS}", comment(rule))
}

impl Target<'_> {
    fn order_of_target(&self) -> String {
        let table = quoted(self.table);
        format!("({table}.\"_version\", {table}.\"_precedence\", {table}.\"_event_id\")")
    }

    /// The newest event's row, where "newest" is by (version, precedence, event id).
    ///
    /// `>=`, since one event may write one row twice: the ledger, not this comparison, keeps redeliveries out.
    pub(super) fn upsert(&self, removed: bool) -> String {
        let columns = [self.key.as_slice(), &self.set].concat();
        let values = members(FIRST, columns.len());
        let guard = ["value ->> 3", "value ->> 4", "value ->> 1", "value ->> 5"];
        let updates = list(
            self.set
                .iter()
                .copied()
                .chain(GUARD_COLUMNS)
                .map(quoted)
                .map(|name| format!("{name} = excluded.{name}"))
                .chain(self.unset.iter().map(|name| format!("{} = NULL", quoted(name)))),
        );
        let gone = if removed {
            format!(
                "\nAND NOT EXISTS (SELECT 1 FROM {ROW_GUARDS} AS gone WHERE gone.table_name = {table} AND gone.key = {key}\n\
                 AND (gone.version, gone.precedence, gone.event_id) > {ORDER})",
                table = literal(self.table),
                key = key_text(members(FIRST, self.key.len())),
            )
        } else {
            String::new()
        };
        format!(
            "{head}\n\
             INSERT INTO {target} ({columns}, {guard_columns})\n\
             SELECT {values} FROM rows\n\
             WHERE true{gone}\n\
             ON CONFLICT ({key}) DO UPDATE SET {updates}\n\
             WHERE (excluded.\"_version\", excluded.\"_precedence\", excluded.\"_event_id\")\n\
             >= {order}",
            head = head(self.rule),
            target = quoted(self.table),
            columns = quoted_list(&columns),
            guard_columns = quoted_list(&GUARD_COLUMNS),
            values = list(values.chain(guard.map(ToOwned::to_owned))),
            key = quoted_list(&self.key),
            order = self.order_of_target(),
        )
    }

    /// What [`Target::upsert`] left as a tombstone is removed, and that it was is kept beside the table, so that an older event
    /// that comes later does not bring it back.
    pub(super) fn remove(&self) -> [String; 2] {
        let (head, target, key) = (head(self.rule), quoted(self.table), quoted_list(&self.key));
        let dead = format!(
            "\"_deleted\" = 1 AND ({key}) IN (SELECT {values} FROM rows WHERE value ->> 5 = 1)",
            values = list(members(FIRST, self.key.len())),
        );
        let keep = format!(
            "{head}\n\
             INSERT INTO {ROW_GUARDS} (table_name, key, version, precedence, event_id)\n\
             SELECT {table}, {key}, \"_version\", \"_precedence\", \"_event_id\" FROM {target}\n\
             WHERE {dead}\n\
             {newest}",
            table = literal(self.table),
            key = key_text(self.key.iter().map(|name| quoted(name))),
            newest = newest_guard(),
        );
        [keep, format!("{head}\nDELETE FROM {target} WHERE {dead}")]
    }

    /// Before [`Target::upsert`]: what has the same version and nothing that decides, so that the object is to be asked for.
    pub(super) fn ties(&self) -> String {
        let key = self.key.iter().zip(members(FIRST, self.key.len()));
        let key = key.map(|(name, value)| format!("held.{} = {value}", quoted(name)));
        let key = key.collect::<Vec<_>>().join(" AND ");
        let held = format!("{} AS held ON {key}", quoted(self.table));
        let order = ["\"_version\"", "\"_precedence\"", "\"_event_id\""];
        self.tied(&held, order, self.key.len(), FIRST + self.key.len() + self.set.len())
    }

    /// Before [`Target::replace`], likewise.
    pub(super) fn ties_of_list(&self, owner: usize) -> String {
        let held = format!(
            "{ROW_GUARDS} AS held ON held.table_name = {} AND held.key = {}",
            literal(self.table),
            key_text(members(FIRST, owner))
        );
        self.tied(&held, ["version", "precedence", "event_id"], owner, FIRST + owner + 1)
    }

    /// `held` is what there is, with the columns that order it; the first `key` columns say which it is, and the path of the
    /// object is the member `path` of the parameter's rows. A deletion is tied with nothing.
    fn tied(&self, held: &str, order: [&str; 3], key: usize, path: usize) -> String {
        let [version, precedence, event_id] = order.map(|name| format!("held.{name}"));
        format!(
            "{head},\n\
             fresh AS (SELECT value, count(*) OVER (PARTITION BY {key}, value ->> 3, value ->> 4) AS alike\n\
             FROM rows WHERE value ->> 5 = 0)\n\
             INSERT INTO refetches (rule, path, source, event_id, type, rest, due_at, attempts)\n\
             SELECT {rule}, value ->> {path}, value ->> 0, value ->> 1, value ->> {kind}, value -> {rest}, 0, 0\n\
             FROM fresh LEFT JOIN {held}\n\
             WHERE value ->> {path} IS NOT NULL AND (\n\
             (alike > 1 AND ({version} IS NULL OR {version} < value ->> 3))\n\
             OR ({version} = value ->> 3 AND {precedence} < {DELETION} AND (\n\
             (alike > 1 AND {precedence} <= value ->> 4)\n\
             OR ({event_id} <> value ->> 1 AND ({precedence} = value ->> 4 OR {precedence} > {FETCHED})))))\n\
             ON CONFLICT (rule, path) DO UPDATE SET source = excluded.source, event_id = excluded.event_id,\n\
             type = excluded.type, rest = excluded.rest, due_at = 0, attempts = 0\n\
             RETURNING due_at",
            head = head(self.rule),
            key = list(members(FIRST, key)),
            rule = literal(self.rule),
            kind = path + 1,
            rest = path + 2,
        )
    }

    /// Only rows that are there, which somebody else has made.
    pub(super) fn update(&self) -> String {
        let target = quoted(self.table);
        let first = FIRST + self.key.len();
        let sets = self.set.iter().zip(members(first, self.set.len()));
        let guard = GUARD_COLUMNS.iter().zip([3, 4, 1, 5].map(|i| format!("value ->> {i}")));
        let updates = sets.chain(guard).map(|(name, value)| format!("{} = {value}", quoted(name)));
        let unset = self.unset.iter().map(|name| format!("{} = NULL", quoted(name)));
        let key = self.key.iter().zip(members(FIRST, self.key.len()));
        let key = key.map(|(name, value)| format!("{target}.{} = {value}", quoted(name)));
        format!(
            "{head},\n\
             newest AS (SELECT value, row_number() OVER (PARTITION BY {partition} ORDER BY {order} DESC) AS place\n\
             FROM rows)\n\
             UPDATE {target} SET {updates} FROM newest\n\
             WHERE place = 1 AND {key}\n\
             AND ({target}.\"_version\" IS NULL OR {ORDER} >= {order_of_target})",
            head = head(self.rule),
            partition = list(members(FIRST, self.key.len())),
            order = "value ->> 3 DESC, value ->> 4 DESC, value ->> 1",
            updates = list(updates.chain(unset)),
            key = key.collect::<Vec<_>>().join(" AND "),
            order_of_target = self.order_of_target(),
        )
    }

    /// Additions commute, so a counter needs no version.
    pub(super) fn count(&self) -> String {
        let target = quoted(self.table);
        let columns = [self.key.as_slice(), &self.set].concat();
        let add = members(3 + self.key.len(), self.set.len()).map(|v| format!("coalesce({v}, 0)"));
        let updates = self.set.iter().map(|name| quoted(name));
        let updates =
            updates.map(|name| format!("{name} = coalesce({target}.{name}, 0) + excluded.{name}"));
        format!(
            "{head}\n\
             INSERT INTO {target} ({columns})\n\
             SELECT {values} FROM rows\n\
             WHERE true\n\
             ON CONFLICT ({key}) DO UPDATE SET {updates}",
            head = head(self.rule),
            columns = quoted_list(&columns),
            values = list(members(3, self.key.len()).chain(add)),
            key = quoted_list(&self.key),
            updates = list(updates),
        )
    }

    /// The rows of the newest event about a list: first whose list it is, then what is no longer in it goes, and the rest is
    /// written. The first `owner` columns of the key say whose the list is; what orders it stands beside the table, since an
    /// empty list has no row to keep that in.
    pub(super) fn replace(&self, owner: usize) -> [String; 3] {
        let (target, table) = (quoted(self.table), literal(self.table));
        let (whose, of_element) = self.key.split_at(owner);
        let owner_key = key_text(members(FIRST, owner));
        let guard = format!(
            "{head}\n\
             INSERT INTO {ROW_GUARDS} (table_name, key, version, precedence, event_id)\n\
             SELECT {table}, {owner_key}, value ->> 3, value ->> 4, value ->> 1 FROM rows\n\
             WHERE true\n\
             {newest}",
            head = head(self.rule),
            newest = newest_guard(),
        );
        // The columns of the owner are taken out of each list once: a list is as long as its event.
        let owners = (0..owner).map(|i| format!("owner{i}")).collect::<Vec<_>>().join(", ");
        let won = format!(
            "{head},\n\
             won AS MATERIALIZED (SELECT {values}, value -> {elements} AS list FROM rows JOIN {ROW_GUARDS} AS held\n\
             ON held.table_name = {table} AND held.key = {owner_key}\n\
             AND held.version = value ->> 3 AND held.precedence = value ->> 4 AND held.event_id = value ->> 1),\n\
             items AS MATERIALIZED (SELECT {owners}, item.value AS item FROM won, json_each(list) AS item)",
            head = head(self.rule),
            values =
                list(members(FIRST, owner).enumerate().map(|(i, v)| format!("{v} AS owner{i}"))),
            elements = FIRST + owner,
        );
        let of_owner = (0..owner).map(|i| format!("owner{i}"));
        let of_item = |count: usize| (0..count).map(|i| format!("item ->> {i}"));
        // One text for the whole key, since `NOT IN` compares a row value with every row of its list.
        let remove = format!(
            "{won}\n\
             DELETE FROM {target}\n\
             WHERE ({whose_list}) IN (SELECT {owners} FROM won)\n\
             AND {stored} NOT IN (SELECT {kept} FROM items)",
            whose_list = quoted_list(whose),
            stored = key_text(self.key.iter().map(|name| quoted(name))),
            kept = key_text(of_owner.clone().chain(of_item(of_element.len()))),
        );
        let values = of_owner.chain(of_item(of_element.len() + self.set.len()));
        let updates = if self.set.is_empty() {
            "NOTHING".to_owned()
        } else {
            let updates = self.set.iter().map(|name| format!("{0} = excluded.{0}", quoted(name)));
            let (now, new) = (
                list(self.set.iter().map(|name| format!("{target}.{}", quoted(name)))),
                list(self.set.iter().map(|name| format!("excluded.{}", quoted(name)))),
            );
            format!("UPDATE SET {}\nWHERE ({now}) IS NOT ({new})", list(updates))
        };
        let write = format!(
            "{won}\n\
             INSERT INTO {target} ({columns})\n\
             SELECT {values} FROM items\n\
             WHERE true\n\
             ON CONFLICT ({key}) DO {updates}",
            columns = quoted_list(&[self.key.as_slice(), &self.set].concat()),
            values = list(values),
            key = quoted_list(&self.key),
        );
        [guard, remove, write]
    }
}

fn newest_guard() -> String {
    format!(
        "ON CONFLICT (table_name, key) DO UPDATE SET\n\
         version = excluded.version, precedence = excluded.precedence, event_id = excluded.event_id\n\
         WHERE (excluded.version, excluded.precedence, excluded.event_id)\n\
         >= ({ROW_GUARDS}.version, {ROW_GUARDS}.precedence, {ROW_GUARDS}.event_id)"
    )
}

/// It is written once for its event, whatever else keeps the event from being applied twice.
pub(super) fn outbox(rule: &str) -> String {
    format!(
        "{head}\n\
         INSERT INTO outbox (source, event_id, generation, rule, id, channel, recipient, content, due_at, created_at)\n\
         SELECT {values}, value ->> 6, value -> 7, value ->> 8, value ->> 9 FROM rows\n\
         WHERE true\n\
         ON CONFLICT DO NOTHING\n\
         RETURNING due_at",
        head = head(rule),
        values = list(members(0, 6)),
    )
}

/// The greatest outcome stays, in whatever order they come. What is in doubt, or was to be sent again for that, has been sent
/// after all: the provider speaks of it. `column` is the outbox's column that the outcome names its email by.
pub(super) fn outcome(rule: &str, column: &str) -> String {
    format!(
        "{head}\n\
         UPDATE outbox SET outcome = row ->> 4, outcome_rank = row ->> 5, outcome_at = row ->> 6,\n\
         state = iif({doubt}, 'sent', state), error = iif({doubt}, NULL, error)\n\
         FROM (SELECT value AS row, max(value ->> 5) AS rank FROM rows GROUP BY value ->> 3)\n\
         WHERE {column} = row ->> 3 AND outcome_rank < rank",
        doubt = "state = 'in_doubt' OR (state = 'pending' AND attempts > 0)",
        head = head(rule),
    )
}

pub(super) fn suppress(rule: &str) -> String {
    format!(
        "{head}\n\
         INSERT INTO suppressions (address, reason, source, event_id, created_at)\n\
         SELECT value ->> 3, value ->> 4, value ->> 0, value ->> 1, value ->> 5 FROM rows\n\
         WHERE true\n\
         ON CONFLICT DO NOTHING",
        head = head(rule),
    )
}
