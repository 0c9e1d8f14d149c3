//! The compiled statements of rules. Each takes its rows as `?1`, in the format of [`row`](super::row); those of lists may
//! take the elements, or only their keys, as `?2`.
//!
//! A statement that concerns only the rows of deletions, or only those of parts of lists, gets only these
//! ([`Takes`]).
//!
//! None of them queries the ledger. The transaction begins with the ledger's own statement, which fails if an event is in
//! the ledger.

use super::row::{
    EVENT_ID, EXTENT, GENERATION, GUARDED, LIST_EVENT_ID, PLAIN, PRECEDENCE, SOURCE, VERSION,
};
use super::{
    DELETION, Elements, Extent, FETCHED, FINAL, GUARD_COLUMNS, Rest, Sql, Suppression, Takes,
};
use hookmill_core::schema::ROW_GUARDS;

/// The rows of the parameter, one `_row` each, and the `_place` of each, which is that of its list in `?2`. Names of ours begin
/// with `_`, since the table of a rule may have any column, such as `value`. Materialized, since SQLite otherwise builds an
/// element again for every column that is taken from it.
const ROWS: &str =
    "WITH _rows AS MATERIALIZED (SELECT key AS _place, value AS _row FROM jsonb_each(?1))";

/// A table that rules write, with its columns by purpose.
pub(super) struct Target<'r> {
    /// The rule's name.
    pub(super) rule: &'r str,
    /// The table's name.
    pub(super) table: &'r str,
    /// The columns of the key, in the order of the parameter.
    pub(super) key: Vec<&'r str>,
    /// The columns that are written or added to, after the key.
    pub(super) set: Vec<&'r str>,
    /// Columns that other rules of the table set, and this one does not.
    pub(super) unset: Vec<&'r str>,
    /// The parents of its rows.
    pub(super) parents: Vec<Parent<'r>>,
    /// Whether the rule has events of several sources. Two of them may have the same id.
    pub(super) has_several_sources: bool,
}

/// Whether an absent row is a difference.
#[derive(Clone, Copy)]
pub(super) enum Missing {
    /// It always is: rules keep a row for every object.
    Always,
    /// It is not if the object is deleted: rules remove such rows.
    UnlessDeleted,
    /// It never is: only the application creates rows.
    Never,
}

/// A table whose rows are the parents of other rows.
#[derive(Clone, Copy)]
pub(super) struct Parent<'r> {
    /// The children's column.
    pub(super) column: &'r str,
    /// The parents' table.
    pub(super) table: &'r str,
    /// Its key.
    pub(super) key: &'r str,
}

impl Parent<'_> {
    /// Whether the parent with this key is deleted, itself or through a parent of its own.
    fn is_gone(&self, key: &str) -> String {
        format!(
            "EXISTS (SELECT 1 FROM {table} AS _parent WHERE _parent.{name} = {key} AND _parent.\"_deleted\" = 1)",
            table = quoted(self.table),
            name = quoted(self.key),
        )
    }
}

/// After [`Target::upsert`] of a table: deletes the rows below the deleted ones, and restores those whose parent has another
/// parent now. So the order of a child's and a parent's events does not matter. `line`: the tables down to the one that is
/// changed, each with its link to the one above; `parents`: all parents of that table. A row of the first table may itself be
/// deleted because of a parent (`has_parents`), whatever its event says.
pub(super) fn orphans(
    rule: &str,
    line: &[(&str, Parent<'_>)],
    parents: &[Parent<'_>],
    has_parents: bool,
) -> Option<Sql> {
    let ((child, parent), between) = line.split_last()?;
    let mut keys = format!("SELECT {} FROM _rows", member(GUARDED));
    for ((table, above), (_, below)) in between.iter().zip(&line[1..]) {
        keys = format!(
            "SELECT {key} FROM {table} WHERE {column} IN ({keys})",
            key = quoted(below.key),
            table = quoted(table),
            column = quoted(above.column),
        );
    }
    let (target, column) = (quoted(child), quoted(parent.column));
    let gone = parents.iter().map(|parent| {
        parent.is_gone(&format!("{target}.{column}", column = quoted(parent.column)))
    });
    let gone: Vec<_> = gone.collect();
    let text = format!(
        "{head}\n\
         UPDATE {target} SET \"_deleted\" = NOT \"_deleted\"\n\
         WHERE {column} IN ({keys})\n\
         AND \"_deleted\" <> (\"_precedence\" = {DELETION} OR {gone})",
        head = head(rule),
        gone = gone.join(" OR "),
    );
    Some(Sql { takes: if has_parents { Takes::All } else { Takes::Deletions }, ..text.into() })
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

/// A member of the row.
fn member(index: usize) -> String {
    format!("_row ->> {index}")
}

/// `count` members of the row, from `first`.
fn members(first: usize, count: usize) -> impl Iterator<Item = String> {
    (first..first + count).map(member)
}

/// The members that order a row of the parameter.
fn order() -> String {
    format!("({})", list([VERSION, PRECEDENCE, EVENT_ID].map(member)))
}

/// A key as `row_guards` stores it: the texts of its values.
fn key_text(values: impl Iterator<Item = String>) -> String {
    format!("json_array({})", list(values.map(|value| format!("CAST({value} AS TEXT)"))))
}

/// An expression with the columns whose values differ: a JSON array of `[name, value in the table, value of the rule]`, as texts.
/// `pairs`: by column, both values.
fn differences<'n>(pairs: impl Iterator<Item = (&'n str, (String, String))>) -> String {
    // A column of the application's may have another collating sequence.
    let difference = |(name, (held, value)): (&str, (String, String))| {
        let name = literal(name);
        format!(
            "iif({held} COLLATE BINARY IS NOT {value} COLLATE BINARY,              ',' || json_array({name}, CAST({held} AS TEXT), CAST({value} AS TEXT)), '')"
        )
    };
    let all: Vec<_> = pairs.map(difference).collect();
    format!("'[' || substr({}, 2) || ']'", concatenated(&all))
}

/// The concatenation of these expressions, as a balanced tree: D1 limits the depth of an expression.
fn concatenated(texts: &[String]) -> String {
    match texts {
        [] => "''".to_owned(),
        [one] => one.clone(),
        several => {
            let (left, right) = several.split_at(several.len() / 2);
            format!("({} || {})", concatenated(left), concatenated(right))
        }
    }
}

/// A rule's name as a one-line SQL comment.
fn comment(name: &str) -> String {
    name.replace(|c: char| c.is_control(), " ")
}

/// The beginning of every statement.
fn head(rule: &str) -> String {
    format!("-- rule {}\n{ROWS}", comment(rule))
}

/// Of several events about an object that must be fetched, the newest counts.
const FETCH_NEWEST: &str = "ON CONFLICT (rule, path) DO UPDATE SET source = excluded.source, event_id = excluded.event_id,\n\
    type = excluded.type, version = excluded.version, rest = excluded.rest, due_at = 0, attempts = 0\n\
    WHERE version <= excluded.version\n\
    RETURNING due_at";

impl Target<'_> {
    fn order_of_target(&self) -> String {
        let table = quoted(self.table);
        format!("({table}.\"_version\", {table}.\"_precedence\", {table}.\"_event_id\")")
    }

    /// Writes the row of the newest event, where "newest" is by (version, precedence, event id).
    ///
    /// `>=`, since one event may write one row twice: the ledger, not this comparison, rejects redeliveries.
    pub(super) fn upsert(&self, removed: bool) -> String {
        let columns = [self.key.as_slice(), &self.set].concat();
        let values = members(GUARDED, columns.len());
        let place = |name| columns.iter().position(|column| *column == name);
        let gone = self
            .parents
            .iter()
            .filter_map(|parent| Some(parent.is_gone(&member(GUARDED + place(parent.column)?))));
        let deleted: Vec<_> = [member(EXTENT)].into_iter().chain(gone).collect();
        let deleted = match deleted.as_slice() {
            [own] => own.clone(),
            several => format!("max({})", several.join(", ")),
        };
        let guard = [VERSION, PRECEDENCE, EVENT_ID].map(member).into_iter().chain([deleted]);
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
                "\nAND NOT EXISTS (SELECT 1 FROM {ROW_GUARDS} AS _gone WHERE _gone.table_name = {table} AND _gone.key = {key}\n\
                 AND (_gone.version, _gone.precedence, _gone.event_id) > {order})",
                order = order(),
                table = literal(self.table),
                key = key_text(members(GUARDED, self.key.len())),
            )
        } else {
            String::new()
        };
        format!(
            "{head}\n\
             INSERT INTO {target} ({columns}, {guard_columns})\n\
             SELECT {values} FROM _rows\n\
             WHERE true{gone}\n\
             ON CONFLICT ({key}) DO UPDATE SET {updates}\n\
             WHERE (excluded.\"_version\", excluded.\"_precedence\", excluded.\"_event_id\")\n\
             >= {order}",
            head = head(self.rule),
            target = quoted(self.table),
            columns = quoted_list(&columns),
            guard_columns = quoted_list(&GUARD_COLUMNS),
            values = list(values.chain(guard)),
            key = quoted_list(&self.key),
            order = self.order_of_target(),
        )
    }

    /// Removes the tombstones of [`Target::upsert`]. `row_guards` stores that they were removed, so that an older event
    /// that arrives later does not restore the row.
    pub(super) fn remove(&self) -> [Sql; 2] {
        let (head, target, key) = (head(self.rule), quoted(self.table), quoted_list(&self.key));
        let dead = format!(
            "\"_deleted\" = 1 AND ({key}) IN (SELECT {values} FROM _rows)",
            values = list(members(GUARDED, self.key.len())),
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
            .map(|text| Sql { takes: Takes::Deletions, ..text.into() })
    }

    /// Before [`Target::upsert`]: finds rows with the same version and nothing else to order them, whose objects must be
    /// fetched.
    pub(super) fn ties(&self) -> Sql {
        let key = self.key.iter().zip(members(GUARDED, self.key.len()));
        let key = key.map(|(name, value)| format!("_held.{} = {value}", quoted(name)));
        let key = key.collect::<Vec<_>>().join(" AND ");
        let held = format!("{} AS _held ON {key}", quoted(self.table));
        let order = ["\"_version\"", "\"_precedence\"", "\"_event_id\""];
        self.tied(&held, order, self.key.len(), GUARDED + self.key.len() + self.set.len())
    }

    /// The same before [`Target::replace`].
    pub(super) fn ties_of_list(&self, owner: usize) -> Sql {
        let order = ["version", "precedence", "event_id"];
        self.tied(&self.held_list(owner), order, owner, GUARDED + owner)
    }

    /// What orders an existing list.
    fn held_list(&self, owner: usize) -> String {
        format!(
            "{ROW_GUARDS} AS _held ON _held.table_name = {} AND _held.key = {}",
            literal(self.table),
            key_text(members(GUARDED, owner))
        )
    }

    /// `held` are the existing rows with the columns that order them; the first `key` columns are their key, and the member
    /// `path` of the parameter's rows is the path of the object. A deletion is in no tie.
    fn tied(&self, held: &str, order: [&str; 3], key: usize, path: usize) -> Sql {
        let [version, precedence, event_id] = order.map(|name| format!("_held.{name}"));
        let [new_version, new_precedence, new_event] = [VERSION, PRECEDENCE, EVENT_ID].map(member);
        let text = format!(
            "{head},\n\
             _fresh AS (SELECT _row, min({new_event}) OVER _alike <> max({new_event}) OVER _alike AS _ties FROM _rows\n\
             WINDOW _alike AS (PARTITION BY {key}, {new_version}, {new_precedence}))\n\
             {insert}\n\
             FROM _fresh LEFT JOIN {held}\n\
             WHERE {object} IS NOT NULL AND (\n\
             (_ties AND ({version} IS NULL OR {version} < {new_version}))\n\
             OR ({version} = {new_version} AND {precedence} < {DELETION} AND (\n\
             (_ties AND {precedence} <= {new_precedence})\n\
             OR ({event_id} <> {new_event} AND ({precedence} = {new_precedence} OR {precedence} > {FETCHED})))))\n\
             {FETCH_NEWEST}",
            head = head(self.rule),
            key = list(members(GUARDED, key)),
            insert = self.fetch(path),
            object = member(path),
        );
        Sql { takes: Takes::Whole, ..text.into() }
    }

    /// Before [`Target::replace`]: records that the objects of incomplete lists must be fetched, with the whole list. Nothing
    /// is fetched for a list that a newer event has written.
    pub(super) fn incomplete(&self, owner: usize) -> Sql {
        let [new_version, new_precedence, new_event] = [VERSION, PRECEDENCE, EVENT_ID].map(member);
        let text = format!(
            "{head}\n\
             {insert}\n\
             FROM _rows LEFT JOIN {held}\n\
             WHERE {object} IS NOT NULL AND (_held.version IS NULL OR _held.version < {new_version}\n\
             OR (_held.version = {new_version} AND _held.precedence < {DELETION} AND (_held.precedence < {new_precedence}\n\
             OR (_held.precedence > {FETCHED} AND _held.event_id <> {new_event}))))\n\
             {FETCH_NEWEST}",
            head = head(self.rule),
            insert = self.fetch(GUARDED + owner),
            held = self.held_list(owner),
            object = member(GUARDED + owner),
        );
        Sql { takes: Takes::Parts, ..text.into() }
    }

    /// Records that objects must be fetched. The member `path` of the parameter's rows is the path of the object.
    fn fetch(&self, path: usize) -> String {
        format!(
            "INSERT INTO refetches (rule, path, source, event_id, type, version, rest, due_at, attempts)\n\
             SELECT {rule}, {object}, {source}, {event}, {kind}, {version}, _row -> {rest}, 0, 0",
            rule = literal(self.rule),
            object = member(path),
            source = member(SOURCE),
            event = member(EVENT_ID),
            kind = member(path + 1),
            version = member(VERSION),
            rest = path + 2,
        )
    }

    /// Updates only existing rows, which the application creates.
    ///
    /// The rows are told apart by their stored keys: `"A"` and `"a"`, or 7 and `"7"`, may be one of them.
    pub(super) fn update(&self) -> String {
        let target = quoted(self.table);
        let first = GUARDED + self.key.len();
        let sets = self.set.iter().zip(members(first, self.set.len()));
        let guard = GUARD_COLUMNS.iter().zip([VERSION, PRECEDENCE, EVENT_ID, EXTENT].map(member));
        let updates = sets.chain(guard).map(|(name, value)| format!("{} = {value}", quoted(name)));
        let unset = self.unset.iter().map(|name| format!("{} = NULL", quoted(name)));
        let stored = || self.key.iter().map(|name| format!("_held.{}", quoted(name)));
        let all = |conditions: Vec<String>| conditions.join(" AND ");
        let matches = stored().zip(members(GUARDED, self.key.len()));
        let same = self.key.iter().enumerate();
        let same = same.map(|(i, name)| format!("{target}.{} = _newest._key{i}", quoted(name)));
        let keys = stored().enumerate().map(|(i, stored)| format!("{stored} AS _key{i}"));
        format!(
            "{head},\n\
             _newest AS (SELECT _row, {keys}, row_number() OVER (PARTITION BY {partition} ORDER BY {newest}) AS _place\n\
             FROM _rows CROSS JOIN {target} AS _held ON {matches})\n\
             UPDATE {target} SET {updates} FROM _newest\n\
             WHERE _place = 1 AND {same}\n\
             AND ({target}.\"_version\" IS NULL OR {order} >= {order_of_target})",
            head = head(self.rule),
            keys = list(keys),
            partition = list(stored()),
            newest = list([VERSION, PRECEDENCE, EVENT_ID].map(|index| member(index) + " DESC")),
            matches = all(matches.map(|(stored, value)| format!("{stored} = {value}")).collect()),
            updates = list(updates.chain(unset)),
            same = all(same.collect()),
            order = order(),
            order_of_target = self.order_of_target(),
        )
    }

    /// Additions commute, so a counter needs no version.
    pub(super) fn count(&self) -> String {
        let target = quoted(self.table);
        let columns = [self.key.as_slice(), &self.set].concat();
        let add =
            members(PLAIN + self.key.len(), self.set.len()).map(|v| format!("coalesce({v}, 0)"));
        let updates = self.set.iter().map(|name| quoted(name));
        let updates =
            updates.map(|name| format!("{name} = coalesce({target}.{name}, 0) + excluded.{name}"));
        format!(
            "{head}\n\
             INSERT INTO {target} ({columns})\n\
             SELECT {values} FROM _rows\n\
             WHERE true\n\
             ON CONFLICT ({key}) DO UPDATE SET {updates}",
            head = head(self.rule),
            columns = quoted_list(&columns),
            values = list(members(PLAIN, self.key.len()).chain(add)),
            key = quoted_list(&self.key),
            updates = list(updates),
        )
    }

    /// Writes the rows of the newest event about a list: first the guard of the owner, then removes rows that are no longer
    /// in the list, then writes the others. The first `owner` columns of the key identify the owner. `row_guards` stores
    /// the order, since an empty list has no row.
    ///
    /// `partial`: lists may be incomplete. Then each row has the order of the event that wrote it. Of the complete lists,
    /// the newest counts; an incomplete one counts if it is newer than that, and only for the rows that it has.
    pub(super) fn replace(&self, owner: usize, partial: bool) -> Vec<Sql> {
        let (target, table) = (quoted(self.table), literal(self.table));
        let owner_key = key_text(members(GUARDED, owner));
        let [version, precedence, event_id] = [VERSION, PRECEDENCE, EVENT_ID].map(member);
        let guard = format!(
            "{head}\n\
             INSERT INTO {ROW_GUARDS} (table_name, key, version, precedence, event_id)\n\
             SELECT {table}, {owner_key}, {version}, {precedence}, {event_id} FROM _rows\n\
             WHERE true\n\
             {newest}",
            head = head(self.rule),
            newest = newest_guard(),
        );
        let held = format!(
            "{ROW_GUARDS} AS _held\nON _held.table_name = {table} AND _held.key = {owner_key}"
        );
        let won = self.items(owner, &format!(
            "JOIN {held}\n\
             AND _held.version = {version} AND _held.precedence = {precedence} AND _held.event_id = {event_id}"
        ), true);
        let owner_columns = || self.key[..owner].iter().map(|name| quoted(name));
        // A row that a newer, incomplete list has written stays.
        let older = if partial {
            format!(
                "\nAND coalesce({order} < (SELECT version, precedence, event_id FROM {ROW_GUARDS} AS _held\n\
                 WHERE _held.table_name = {table} AND _held.key = {whose}), true)",
                order = self.order_of_target(),
                whose = key_text(owner_columns().map(|name| format!("{target}.{name}"))),
            )
        } else {
            String::new()
        };
        // One text for the whole key, since `NOT IN` compares a row value with every row of its list.
        let remove = format!(
            "{won}\n\
             DELETE FROM {target}\n\
             WHERE ({owner_columns}) IN (SELECT {whose} FROM _lists)\n\
             AND {stored} NOT IN (SELECT {kept} FROM _items){older}",
            owner_columns = list(owner_columns()),
            whose = owners(owner),
            stored = key_text(self.key.iter().map(|name| quoted(name))),
            kept = key_text(owner_names(owner).chain(members(0, self.key.len() - owner))),
        );
        let order = if partial { &ORDER_COLUMNS[..] } else { &[] };
        let updates = list(
            self.set.iter().chain(order).map(|name| format!("{0} = excluded.{0}", quoted(name))),
        );
        // A column of the application's may have another collating sequence.
        let of_row = |row: &str| {
            list(self.set.iter().map(|name| format!("{row}.{} COLLATE BINARY", quoted(name))))
        };
        let differs = format!("({}) IS NOT ({})", of_row(&target), of_row("excluded"));
        let newer = format!(
            "coalesce((excluded.\"_version\", excluded.\"_precedence\", excluded.\"_event_id\") >= {}, true)",
            self.order_of_target()
        );
        // A row with the values of the list needs no write: older events no longer count.
        let update = match (self.set.is_empty(), partial) {
            (true, _) => "NOTHING".to_owned(),
            (false, false) => format!("UPDATE SET {updates}\nWHERE {differs}"),
            (false, true) => format!("UPDATE SET {updates}\nWHERE {differs} AND {newer}"),
        };
        // A deletion has no elements to write.
        let mut statements = vec![
            Sql { takes: Takes::Complete, ..guard.into() },
            Sql { elements: Elements::Keys, takes: Takes::Complete, ..remove.into() },
            Sql { takes: Takes::Whole, ..self.write(owner, &won, partial, &update) },
        ];
        if partial {
            let part = self.items(
                owner,
                &format!(
                    "LEFT JOIN {held}\n\
                 WHERE coalesce({order} > (_held.version, _held.precedence, _held.event_id), true)",
                    order = self::order(),
                ),
                false,
            );
            // The order is always written: a complete list in between must not remove the row.
            let update = format!("UPDATE SET {updates}\nWHERE {newer}");
            statements
                .push(Sql { takes: Takes::Parts, ..self.write(owner, &part, partial, &update) });
        }
        statements
    }

    /// Compares the rows that [`Target::upsert`], [`Target::update`] or [`Target::remove`] would write with the table:
    /// [`Proof::compare`](super::Proof::compare).
    pub(super) fn compare(&self, missing: Missing) -> Sql {
        let keys = || self.key.iter().zip(members(GUARDED, self.key.len()));
        let joined: Vec<_> =
            keys().map(|(name, value)| format!("_held.{} = {value}", quoted(name))).collect();
        let columns = [self.key.as_slice(), &self.set].concat();
        let place = |name| columns.iter().position(|column| *column == name);
        let gone = self
            .parents
            .iter()
            .filter_map(|parent| Some(parent.is_gone(&member(GUARDED + place(parent.column)?))));
        let is_deleted = [format!("{} = {}", member(EXTENT), Extent::Deleted as u8)];
        let is_deleted = is_deleted.into_iter().chain(gone).collect::<Vec<_>>().join(" OR ");
        let values = members(GUARDED + self.key.len(), self.set.len());
        let set = self.set.iter().map(|name| format!("_held.{}", quoted(name))).zip(values);
        let unset =
            self.unset.iter().map(|name| (format!("_held.{}", quoted(name)), "NULL".to_owned()));
        let names = self.set.iter().chain(&self.unset).copied().chain(["_deleted"]);
        let deleted = ("_held.\"_deleted\"".to_owned(), format!("({is_deleted})"));
        let differences = differences(names.zip(set.chain(unset).chain([deleted])));
        let order = order();
        let missing = match missing {
            Missing::Always => "true",
            Missing::UnlessDeleted => "NOT _is_deleted",
            Missing::Never => "false",
        };
        let text = format!(
            "{head},\n\
             _pairs AS (SELECT {object} AS object, {key} AS \"key\", _held.{first} IS NULL AS _is_absent, {is_deleted} AS _is_deleted,\n\
             (_held.\"_version\", _held.\"_precedence\", _held.\"_event_id\") > {order} AS _is_newer,\n\
             coalesce(_held.\"_version\" >= {FINAL}, false) AS _is_final, _held.\"_deleted\" AS _was_deleted, {differences} AS _columns,\n\
             (SELECT _gone.version FROM {ROW_GUARDS} AS _gone WHERE _gone.table_name = {table} AND _gone.key = {key}\n\
             AND (_gone.version, _gone.precedence, _gone.event_id) > {order}) AS _gone\n\
             FROM _rows LEFT JOIN {target} AS _held ON {joined}),\n\
             _judged AS (SELECT *, CASE\n\
             WHEN _is_absent THEN iif({missing}, iif(_gone < {FINAL}, 'newer', 'missing'), NULL)\n\
             WHEN _is_newer AND _is_final THEN iif(_was_deleted AND NOT _is_deleted, 'deleted', NULL)\n\
             WHEN _is_newer THEN 'newer'\n\
             WHEN _columns <> '[]' THEN 'different' END AS verdict FROM _pairs)\n\
             SELECT object, \"key\", verdict, iif(verdict = 'different', _columns, '[]') AS columns\n\
             FROM _judged WHERE verdict IS NOT NULL",
            head = head(self.rule),
            object = member(EVENT_ID),
            key = key_text(members(GUARDED, self.key.len())),
            first = quoted(self.key[0]),
            table = literal(self.table),
            target = quoted(self.table),
            joined = joined.join(" AND "),
        );
        text.into()
    }

    /// The same for [`Target::replace`].
    pub(super) fn compare_list(&self, owner: usize, partial: bool) -> Sql {
        let (target, table) = (quoted(self.table), literal(self.table));
        let owner_columns =
            || self.key[..owner].iter().map(|name| format!("_held.{}", quoted(name)));
        let of_owner = |list: &str| {
            let pairs = owner_columns().zip(owner_names(owner));
            let pairs: Vec<_> =
                pairs.map(|(column, name)| format!("{column} = {list}.{name}")).collect();
            pairs.join(" AND ")
        };
        let own = self.key.len() - owner;
        let of_element: Vec<_> = self.key[owner..]
            .iter()
            .zip(0..own)
            .map(|(name, i)| format!("AND _held.{} = _items.{}", quoted(name), member(i)))
            .collect();
        let values = (own..own + self.set.len()).map(|i| format!("_items.{}", member(i)));
        let columns = self.set.iter().map(|name| format!("_held.{}", quoted(name))).zip(values);
        // A row that a newer, incomplete list has written stays.
        let older = if partial {
            "AND coalesce((_held.\"_version\", _held.\"_precedence\", _held.\"_event_id\") <= (_of_version, _of_precedence, _object), true)"
        } else {
            ""
        };
        let names = |row: &str, first: usize| {
            list((0..owner).map(|i| format!("{row} ->> {} AS _owner{i}", first + i)))
        };
        let text = format!(
            "{head},\n\
             _lists AS MATERIALIZED (SELECT _place, {object} AS _object, {version} AS _of_version, {precedence} AS _of_precedence,\n\
             {extent} AS _extent, {of_row}, {owner_key} AS _key, (SELECT _newer.version < {FINAL} FROM {ROW_GUARDS} AS _newer\n\
             WHERE _newer.table_name = {table} AND _newer.key = {owner_key}\n\
             AND (_newer.version, _newer.precedence, _newer.event_id) > {order}) AS _newer FROM _rows),\n\
             _items AS MATERIALIZED (SELECT _lists.*, _element.value AS _row FROM jsonb_each(?2) AS _list\n\
             CROSS JOIN jsonb_each(_list.value) AS _element JOIN _lists ON _place = _list.key\n\
             WHERE _element.key > {owner} AND _newer IS NULL),\n\
             _found AS (SELECT _object, {item_key} AS _key, iif(_held.{first} IS NULL, 'missing', 'different') AS _verdict,\n\
             {differences} AS _columns FROM _items LEFT JOIN {target} AS _held ON {of_items} {of_element}\n\
             WHERE true {older}\n\
             UNION ALL\n\
             SELECT _object, {stored}, 'extra', '[]' FROM _lists JOIN {target} AS _held ON {of_lists}\n\
             WHERE _newer IS NULL AND _extent <> {part} {older}\n\
             AND {stored} NOT IN (SELECT {item_key} FROM _items)\n\
             UNION ALL\n\
             SELECT _object, _key, 'newer', '[]' FROM _lists WHERE _newer)\n\
             SELECT _object AS object, _key AS \"key\", _verdict AS verdict, iif(_verdict = 'different', _columns, '[]') AS columns\n\
             FROM _found WHERE _verdict <> 'different' OR _columns <> '[]'",
            head = head(self.rule),
            object = member(EVENT_ID),
            version = member(VERSION),
            precedence = member(PRECEDENCE),
            extent = member(EXTENT),
            of_row = names("_row", GUARDED),
            owner_key = key_text(members(GUARDED, owner)),
            order = order(),
            item_key = key_text(
                owner_names(owner).chain(members(0, own)).map(|name| format!("_items.{name}"))
            ),
            first = quoted(self.key[0]),
            differences = differences(self.set.iter().copied().zip(columns)),
            of_items = of_owner("_items"),
            of_element = of_element.join(" "),
            stored = key_text(self.key.iter().map(|name| format!("_held.{}", quoted(name)))),
            of_lists = of_owner("_lists"),
            part = Extent::Part as u8,
        );
        Sql { elements: Elements::Whole, ..text.into() }
    }

    /// Adds the rows to `listed_rows`.
    pub(super) fn listed(&self) -> Sql {
        format!(
            "{head}\n\
             INSERT INTO listed_rows (generation, table_name, key)\n\
             SELECT {generation}, {table}, {key} FROM _rows\n\
             WHERE true\n\
             ON CONFLICT DO NOTHING",
            head = head(self.rule),
            generation = member(GENERATION),
            table = literal(self.table),
            key = key_text(members(GUARDED, self.key.len())),
        )
        .into()
    }

    /// Finds the rows that are not in `listed_rows`: see [`Rest`].
    pub(super) fn rest(&self, account: Option<&str>) -> Rest {
        let (target, id) = (quoted(self.table), quoted(self.key[0]));
        let of_account =
            account.map(|column| format!("AND {} IS ?3", quoted(column))).unwrap_or_default();
        let text = format!(
            "-- rule {rule}: rows that no list has\n\
             WITH _some AS MATERIALIZED (SELECT {id} AS _id, \"_deleted\" = 0 {of_account} AS _counts FROM {target}\n\
             WHERE {id} >= coalesce(?2, (SELECT min({id}) FROM {target})) ORDER BY {id} LIMIT ?4)\n\
             SELECT max(_id) AS last, count(*) AS read, json_group_array(_id) FILTER (WHERE _counts AND NOT EXISTS (\n\
             SELECT 1 FROM listed_rows WHERE generation = ?1 AND table_name = {table} AND key = {key}\n\
             )) AS rest FROM _some",
            rule = comment(self.rule),
            table = literal(self.table),
            key = key_text(["_id".to_owned()].into_iter()),
        );
        Rest { text: text.into(), tells_accounts: account.is_some() }
    }

    /// Begins a statement about the elements of some lists: `lists`, and their `items`. `rows` selects the rows of the
    /// parameter.
    ///
    /// `one`: an owner has one of these lists, and of two that are equal in everything that orders them, one counts.
    fn items(&self, owner: usize, rows: &str, one: bool) -> String {
        // The place is that of the row with the greatest source.
        let (of_one, rows) = if one && self.has_several_sources {
            (format!(", max({})", member(SOURCE)), format!("{rows}\nGROUP BY {}", owners(owner)))
        } else {
            (String::new(), rows.to_owned())
        };
        let named = |row: &str, first: usize| {
            list((0..owner).map(|i| format!("{row} ->> {} AS _owner{i}", first + i)))
        };
        format!(
            "{head},\n\
             _lists AS MATERIALIZED (SELECT _place, {of_row}{of_one} FROM _rows {rows}),\n\
             _items AS MATERIALIZED (SELECT _list.value ->> {LIST_EVENT_ID} AS _event, {of_list}, _element.value AS _row\n\
             FROM jsonb_each(?2) AS _list CROSS JOIN jsonb_each(_list.value) AS _element\n\
             WHERE _list.key IN (SELECT _place FROM _lists) AND _element.key > {owner})",
            head = head(self.rule),
            of_row = named("_row", GUARDED),
            of_list = named("_list.value", LIST_EVENT_ID + 1),
        )
    }

    /// Writes the items of lists; `update` is for rows that exist.
    fn write(&self, owner: usize, items: &str, partial: bool, update: &str) -> Sql {
        let columns = [self.key.as_slice(), &self.set].concat();
        // The order of an element is behind its columns.
        let end = columns.len() - owner;
        let order = if partial { &ORDER_COLUMNS[..] } else { &[] };
        let own = [member(end), member(end + 1), "_event".to_owned()];
        let own = own.into_iter().take(order.len());
        let text = format!(
            "{items}\n\
             INSERT INTO {target} ({names})\n\
             SELECT {values} FROM _items\n\
             WHERE true\n\
             ON CONFLICT ({key}) DO {update}",
            target = quoted(self.table),
            names = quoted_list(&[&columns, order].concat()),
            values = list(owner_names(owner).chain(members(0, end)).chain(own)),
            key = quoted_list(&self.key),
        );
        Sql { elements: Elements::Whole, ..text.into() }
    }
}

/// The names of the owner's columns in the lists of [`Target::items`].
fn owners(count: usize) -> String {
    list(owner_names(count))
}

fn owner_names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|i| format!("_owner{i}"))
}

/// The columns with the order of each row, if lists may be incomplete.
pub(super) const ORDER_COLUMNS: [&str; 3] = ["_version", "_precedence", "_event_id"];

impl From<String> for Sql {
    fn from(text: String) -> Self {
        Self { text: text.into(), elements: Elements::Unused, takes: Takes::All }
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

/// Written once for each event, even without the ledger.
pub(super) fn outbox(rule: &str) -> String {
    format!(
        "{head}\n\
         INSERT INTO outbox (source, event_id, generation, rule, id, channel, recipient, content, due_at, created_at)\n\
         SELECT {identity}, {address}, _row -> {content}, {times} FROM _rows\n\
         WHERE true\n\
         ON CONFLICT DO NOTHING\n\
         RETURNING due_at",
        head = head(rule),
        identity = list(members(SOURCE, GENERATION + 1)),
        // The rule, the id, the channel, the recipient; the content; the due time, and the time of writing.
        address = list(members(PLAIN, 4)),
        content = PLAIN + 4,
        times = list(members(PLAIN + 5, 2)),
    )
}

/// The greatest outcome stays, in any order of reports. A report shows that an uncertain message, or one that waits for a
/// retry, was sent. `column` is the outbox's column that identifies the message.
pub(super) fn outcome(rule: &str, column: &str) -> String {
    let (id, outcome, rank, at) = (PLAIN, PLAIN + 1, PLAIN + 2, PLAIN + 3);
    format!(
        "{head}\n\
         UPDATE outbox SET outcome = _row ->> {outcome}, outcome_rank = _row ->> {rank}, outcome_at = _row ->> {at},\n\
         state = iif({uncertain}, 'sent', state), error = iif({uncertain}, NULL, error)\n\
         FROM (SELECT _row, max(_row ->> {rank}) AS rank FROM _rows GROUP BY _row ->> {id})\n\
         WHERE {column} = _row ->> {id} AND outcome_rank < rank",
        uncertain = "state = 'uncertain' OR (state = 'pending' AND attempts > 0)",
        head = head(rule),
    )
}

/// Suppresses the addresses, unless a newer event has lifted the suppression. The row shows the newest event.
pub(super) fn suppress(rule: &str, whom: &Suppression) -> String {
    let (table, keys) = (whom.table(), whom.key());
    let version = PLAIN + keys.len();
    let values =
        members(PLAIN, keys.len()).chain([SOURCE, EVENT_ID, version, version + 1].map(member));
    format!(
        "{head}\n\
         INSERT INTO {table} ({keys}, source, event_id, version, created_at)\n\
         SELECT {values} FROM _rows\n\
         WHERE NOT EXISTS (SELECT 1 FROM {ROW_GUARDS} AS _lifted WHERE _lifted.table_name = {name} AND _lifted.key = {key}\n\
         AND _lifted.version > {version})\n\
         ON CONFLICT ({keys}) DO UPDATE SET\n\
         source = excluded.source, event_id = excluded.event_id, version = excluded.version\n\
         WHERE (excluded.version, excluded.source, excluded.event_id) > ({table}.version, {table}.source, {table}.event_id)",
        head = head(rule),
        values = list(values),
        name = literal(table),
        key = key_text(members(PLAIN, keys.len())),
        version = member(version),
        keys = keys.join(", "),
    )
}

/// Lifts older suppressions of the addresses. `row_guards` stores that they were lifted, so that an older event that arrives
/// later does not suppress the address again.
pub(super) fn lift(rule: &str, whom: &Suppression) -> [String; 2] {
    let (table, keys) = (whom.table(), whom.key());
    let (head, name) = (head(rule), literal(table));
    let keep = format!(
        "{head}\n\
         INSERT INTO {ROW_GUARDS} (table_name, key, version, precedence, event_id)\n\
         SELECT {name}, {key}, {version}, 0, {event_id} FROM _rows\n\
         WHERE true\n\
         {newest}",
        key = key_text(members(PLAIN, keys.len())),
        version = member(PLAIN + keys.len()),
        event_id = member(EVENT_ID),
        newest = newest_guard(),
    );
    let remove = format!(
        "{head}\n\
         DELETE FROM {table} WHERE ({columns}) IN (SELECT {values} FROM _rows)\n\
         AND version < (SELECT _lifted.version FROM {ROW_GUARDS} AS _lifted WHERE _lifted.table_name = {name} AND _lifted.key = {key})",
        columns = keys.join(", "),
        values = list(members(PLAIN, keys.len())),
        key = key_text(keys.iter().map(|column| (*column).to_owned())),
    );
    [keep, remove]
}
