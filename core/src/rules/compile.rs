//! From rules as written to a [`Program`]: names checked against the schema, paths gathered, SQL made once.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Column, Condition, Effect, GUARD_COLUMNS, Guard, Precedence, Program, Reads, Rule, Send, Value,
};
use crate::config::{
    ConditionText, Config, ConfigError, EffectText, Located, NamedValues, PrecedenceText, SendText,
    TableText, ValueText,
};
use crate::schema::{OWN_TABLES, Schema, Table};

/// Compiles every rule of a configuration.
///
/// # Errors
///
/// Every fault of every rule: a table or column that the schema does not have, a key that is not the table's, a table that
/// rules could not write in any order.
pub fn compile(config: &Config, schema: &Schema) -> Result<Program, Vec<ConfigError>> {
    let mut program = Program { unknown: config.unknown.clone(), ..Program::default() };
    let mut errors = Vec::new();
    let tables = || {
        config.rules.iter().filter_map(|rule| match &rule.effect {
            EffectText::Table(table) => Some((&rule.name, table)),
            _ => None,
        })
    };
    let managed = managed_columns(tables().map(|(_, table)| table));
    for rule in &config.rules {
        let compiled = match &rule.effect {
            EffectText::Table(table) => {
                let name = table.table.value.as_str();
                let others = managed.get(name).into_iter().flatten().copied();
                let unset: Vec<_> =
                    others.filter(|name| !names(&table.set).any(|set| set == *name)).collect();
                compile_table(&rule.name, table, &unset, schema, &mut program.reads)
            }
            EffectText::Send(send) => compile_send(send, config, &mut program.reads)
                .map(|effect| (outbox_sql(&rule.name), effect)),
            EffectText::Outcome { of, by_provider_id, outcome } => {
                let of = value(&of.value, &mut program.reads);
                let column = if *by_provider_id { "provider_id" } else { "id" };
                Ok((outcome_sql(&rule.name, column), Effect::Outcome { of, outcome: *outcome }))
            }
            EffectText::Suppress { address, reason } => {
                let address = value(&address.value, &mut program.reads);
                Ok((suppress_sql(&rule.name), Effect::Suppress { address, reason: reason.clone() }))
            }
        };
        let condition = |when: &ConditionText| Condition {
            read: program.reads.add(&when.path),
            any_of: when.any_of.clone(),
            not: when.not,
        };
        let when = rule.when.iter().map(condition).collect();
        match compiled {
            Ok((sql, effect)) => program.rules.push(Rule {
                name: rule.name.value.clone(),
                on: rule.on.clone(),
                sql: sql.into(),
                when,
                effect,
            }),
            Err(faults) => errors.extend(faults),
        }
    }
    let known = tables().filter(|(_, table)| schema.tables.contains_key(&table.table.value));
    errors.extend(disagreements(known));
    errors.sort();
    if errors.is_empty() { Ok(program) } else { Err(errors) }
}

/// By table: every column that some rule sets.
fn managed_columns<'r>(
    rules: impl Iterator<Item = &'r TableText>,
) -> BTreeMap<&'r str, BTreeSet<&'r str>> {
    let mut managed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for rule in rules {
        managed.entry(&rule.table.value).or_default().extend(names(&rule.set));
    }
    managed
}

fn value(text: &ValueText, reads: &mut Reads) -> Value {
    match text {
        ValueText::Constant(json) => Value::Constant(json.clone()),
        ValueText::Paths(paths) => {
            Value::Paths(paths.iter().map(|path| (reads.add(path), path.to_string())).collect())
        }
    }
}

/// `unset` are the columns that other rules of the table set, and this one does not.
fn compile_table(
    name: &Located<String>,
    rule: &TableText,
    unset: &[&str],
    schema: &Schema,
    reads: &mut Reads,
) -> Result<(String, Effect), Vec<ConfigError>> {
    let mut errors = Vec::new();
    let table_name = &rule.table.value;
    if OWN_TABLES.contains(&table_name.as_str()) {
        let error = rule.table.error(format!("`{table_name}` is Hookmill's own table"));
        return Err(vec![error.hint("rules write the tables of your application")]);
    }
    let Some(table) = schema.tables.get(table_name) else {
        let error = rule.table.error(format!("there is no table `{table_name}`"));
        let tables =
            schema.tables.keys().map(String::as_str).filter(|name| !OWN_TABLES.contains(name));
        return Err(vec![error.suggest(table_name, tables)]);
    };

    check_columns(rule, unset, table, &mut errors);
    check_kind(name, rule, table, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }

    let mut column = |(name, text): &(Located<String>, Located<ValueText>), required| Column {
        name: name.value.clone(),
        value: value(&text.value, reads),
        required,
    };
    let mut columns: Vec<_> = rule.key.iter().map(|key| column(key, true)).collect();
    columns.extend(rule.set.iter().chain(&rule.add).map(|value| column(value, false)));

    let guard = rule.version.as_ref().map(|version| Guard {
        version: reads.add(&version.value),
        path: version.value.to_string(),
        delete: rule.delete.iter().map(|glob| glob.value.clone()).collect(),
        precedence: match rule.precedence.as_ref().map(|precedence| &precedence.value) {
            None => Precedence::None,
            Some(PrecedenceText::Type(order)) => Precedence::Type { order: order.clone() },
            Some(PrecedenceText::Column { column, order }) => Precedence::Value {
                column: columns.iter().position(|c| c.name == *column).unwrap_or_default(),
                order: order.clone(),
            },
        },
    });
    let sql = if guard.is_some() { upsert_sql(name, rule, unset) } else { counter_sql(name, rule) };
    Ok((sql, Effect::Row { table: table_name.clone(), guard, columns }))
}

/// What is sent through is configured, and an email's template is there; what templates need is checked where their texts are
/// read.
fn compile_send(
    send: &SendText,
    config: &Config,
    reads: &mut Reads,
) -> Result<Effect, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let named = |data: &NamedValues, reads: &mut Reads| -> Vec<_> {
        data.iter().map(|(n, text)| (n.value.clone(), value(&text.value, reads))).collect()
    };
    let (send, data, delay) = match send {
        SendText::Email(email) => {
            let template = &email.template;
            if config.emails.is_none() {
                let problem = template.error("nothing says how emails are sent");
                errors.push(problem.hint("add [email] with `provider` and `from`"));
            }
            if !config.templates.contains_key(&template.value) {
                let problem = template.error(format!("there is no template `{}`", template.value));
                let names = config.templates.keys().map(String::as_str);
                errors.push(problem.suggest(&template.value, names));
            }
            let send = Send::Email {
                template: template.value.clone(),
                to: value(&email.to.value, reads),
                cc: email.cc.as_ref().map(|cc| value(&cc.value, reads)),
                reply_to: email.reply_to.as_ref().map(|text| value(&text.value, reads)),
            };
            (send, named(&email.data.value, reads), email.delay)
        }
        SendText::Sms(sms) => {
            if config.sms.is_none() {
                let problem = sms.to.error("nothing says how SMS are sent");
                errors.push(problem.hint("add [sms] with `account` and `from`"));
            }
            let to = value(&sms.to.value, reads);
            let send = Send::Sms { to, body: sms.body.value.clone() };
            (send, named(&sms.data.value, reads), sms.delay)
        }
        SendText::Track(track) => {
            let provider = track.provider.value;
            if !config.tracking.iter().any(|(known, _)| *known == provider) {
                let name = provider.as_str();
                let problem = track.provider.error(format!("nothing says how {name} is told"));
                errors.push(problem.hint(format!("add [tracking.{name}]")));
            }
            let (event, user) = (track.event.clone(), value(&track.user.value, reads));
            let send = Send::Track { provider, event, user };
            (send, named(&track.properties, reads), track.delay)
        }
    };
    if errors.is_empty() { Ok(Effect::Send { send, data, delay }) } else { Err(errors) }
}

/// Every column exists, the key is the table's key, and no column that must have a value is left out.
fn check_columns(rule: &TableText, unset: &[&str], table: &Table, errors: &mut Vec<ConfigError>) {
    let written: Vec<_> =
        rule.key.iter().chain(&rule.set).chain(&rule.add).map(|(name, _)| name).collect();
    for name in &written {
        if GUARD_COLUMNS.contains(&name.value.as_str()) {
            let error = name.error(format!("`{}` is kept by Hookmill", name.value));
            errors.push(error.hint("it follows from `version`, `tie` and `delete`"));
        } else if table.column(&name.value).is_none() {
            let error =
                name.error(format!("table `{}` has no column `{}`", rule.table.value, name.value));
            let columns = table.columns.iter().map(|column| column.name.as_str());
            errors.push(
                error.suggest(&name.value, columns.filter(|name| !GUARD_COLUMNS.contains(name))),
            );
        }
    }
    let key = table.columns.iter().filter(|column| column.key).map(|column| column.name.as_str());
    let mut key: Vec<_> = key.collect();
    key.sort_unstable();
    let mut named: Vec<_> = rule.key.iter().map(|(name, _)| name.value.as_str()).collect();
    named.sort_unstable();
    if key != named {
        let error = rule.table.error(format!(
            "the primary key of `{}` is ({}), and `key` names ({})",
            rule.table.value,
            key.join(", "),
            named.join(", ")
        ));
        errors.push(
            error.hint(
                "`key` has to name the whole primary key: it says which row an event is about",
            ),
        );
    }
    for column in table.columns.iter().filter(|column| column.not_null && !column.key) {
        let name = column.name.as_str();
        if column.default && !unset.contains(&name) {
            continue;
        }
        if !GUARD_COLUMNS.contains(&name) && !written.iter().any(|written| written.value == name) {
            let error = rule
                .table
                .error(format!("column `{name}` is NOT NULL, and the rule gives it no value"));
            errors.push(error.hint(format!("add `{name}` to `set`, or let the column be NULL")));
        }
    }
}

/// A rule either keeps the newest state of a row (`version`, `set`) or counts (`add`), and its table is made for that.
fn check_kind(
    rule_name: &Located<String>,
    rule: &TableText,
    table: &Table,
    errors: &mut Vec<ConfigError>,
) {
    let missing: Vec<_> =
        GUARD_COLUMNS.into_iter().filter(|name| table.column(name).is_none()).collect();
    if rule.version.is_some() {
        if let Some((name, _)) = rule.add.first() {
            let error = name.error("a rule with a `version` cannot `add`");
            errors.push(
                error.hint("count in a table of its own, by a rule without `version` and `set`"),
            );
        }
        if !missing.is_empty() {
            let error = rule.table.error(format!(
                "table `{}` lacks {}",
                rule.table.value,
                missing.join(", ")
            ));
            errors.push(error.hint(
                "a table with a version needs: _version INTEGER NOT NULL, _precedence INTEGER NOT NULL, \
                 _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL",
            ));
        }
        if let Some(precedence) = &rule.precedence
            && let PrecedenceText::Column { column, .. } = &precedence.value
            && !rule.set.iter().any(|(name, _)| name.value == *column)
        {
            let error = precedence.error(format!("`{column}` is not set by this rule"));
            errors
                .push(error.suggest(column, rule.set.iter().map(|(name, _)| name.value.as_str())));
        }
        return;
    }
    if rule.add.is_empty() {
        let error = rule_name.error("the rule has neither `version` nor `add`");
        errors.push(error.hint(
            "say which of two events is newer (version = \"created\"), or what to count (add = { total = 1 })",
        ));
    } else if let Some((name, _)) = rule.set.first() {
        let error = name.error("a rule that `set`s needs a `version`");
        errors.push(error.hint("without one, the order of arrival would decide what the row says"));
    }
    if !rule.delete.is_empty() || rule.precedence.is_some() {
        errors.push(rule_name.error("`delete` and `tie` need a `version`"));
    }
    if missing.len() < GUARD_COLUMNS.len() {
        let error = rule.table.error(format!("table `{}` is kept by version", rule.table.value));
        errors.push(error.hint("count in a table of its own"));
    }
}

/// A row is a function of the greatest event for its key. That needs every rule of a table to set the same columns;
/// otherwise what an older event alone could set would depend on whether it arrived first.
fn disagreements<'r>(
    rules: impl Iterator<Item = (&'r Located<String>, &'r TableText)>,
) -> Vec<ConfigError> {
    let mut first: BTreeMap<&str, (&Located<String>, &TableText)> = BTreeMap::new();
    let mut errors = Vec::new();
    let columns = |rule: &TableText| -> Vec<String> {
        let mut names: Vec<_> = rule.set.iter().map(|(name, _)| name.value.clone()).collect();
        names.sort_unstable();
        names
    };
    let only_deletes = |rule: &TableText| rule.delete.iter().any(|glob| glob.value == "*");
    for (name, rule) in rules.filter(|(_, rule)| rule.version.is_some() && !only_deletes(rule)) {
        let (other_name, other) = *first.entry(&rule.table.value).or_insert((name, rule));
        let (mine, theirs) = (columns(rule), columns(other));
        if mine != theirs {
            let differing: Vec<_> = mine
                .iter()
                .filter(|name| !theirs.contains(name))
                .chain(theirs.iter().filter(|name| !mine.contains(name)))
                .map(|name| format!("`{name}`"))
                .collect();
            let error = rule.table.error(format!(
                "rules `{}` and `{}` both write `{}`, and only one of them sets {}",
                other_name.value,
                name.value,
                rule.table.value,
                differing.join(", ")
            ));
            errors.push(error.hint(
                "the newest event decides about the whole row, so all rules of a table set the same columns; \
                 put the others into a table of their own",
            ));
        }
    }
    errors
}

/// The rows of the parameter, `value` each. Materialised, since `json_each` renders an element anew for every column that
/// is taken from it.
const ROWS: &str = "WITH rows AS MATERIALIZED (SELECT value FROM json_each(?1))";

/// True for a row whose event is not in the ledger: what makes any statement take effect once.
const NOT_SEEN: &str = "NOT EXISTS (SELECT 1 FROM events AS seen WHERE seen.source = value ->> 0 \
                        AND seen.id = value ->> 1 AND seen.generation = value ->> 2)";

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quoted_list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

fn names(values: &[(Located<String>, Located<ValueText>)]) -> impl Iterator<Item = &str> {
    values.iter().map(|(name, _)| name.value.as_str())
}

/// The newest event's row, where "newest" is by (version, precedence, event id).
///
/// `>=`, since one event may write one row twice: the ledger, not this comparison, keeps redeliveries out.
fn upsert_sql(name: &Located<String>, rule: &TableText, unset: &[&str]) -> String {
    let target = quoted(&rule.table.value);
    let columns: Vec<_> = names(&rule.key).chain(names(&rule.set)).collect();
    let values: Vec<_> = (0..columns.len()).map(|i| format!("value ->> {}", i + 6)).collect();
    let updates: Vec<_> = names(&rule.set)
        .chain(GUARD_COLUMNS)
        .map(|name| format!("{0} = excluded.{0}", quoted(name)))
        .chain(unset.iter().map(|name| format!("{} = NULL", quoted(name))))
        .collect();
    format!(
        "-- rule {name}\n{ROWS}\n\
         INSERT INTO {target} ({columns}, \"_version\", \"_precedence\", \"_event_id\", \"_deleted\")\n\
         SELECT {values}, value ->> 3, value ->> 4, value ->> 1, value ->> 5 FROM rows\n\
         WHERE {NOT_SEEN}\n\
         ON CONFLICT ({key}) DO UPDATE SET {updates}\n\
         WHERE (excluded.\"_version\", excluded.\"_precedence\", excluded.\"_event_id\")\n\
         >= ({target}.\"_version\", {target}.\"_precedence\", {target}.\"_event_id\")",
        name = comment(&name.value),
        columns = quoted_list(columns),
        values = values.join(", "),
        key = quoted_list(names(&rule.key)),
        updates = updates.join(", "),
    )
}

/// Additions commute, so a counter needs no version; the ledger sees to it that each is made once.
fn counter_sql(name: &Located<String>, rule: &TableText) -> String {
    let target = quoted(&rule.table.value);
    let key_values: Vec<_> = (0..rule.key.len()).map(|i| format!("value ->> {}", i + 3)).collect();
    let add_values: Vec<_> = (0..rule.add.len())
        .map(|i| format!("coalesce(value ->> {}, 0)", i + 3 + rule.key.len()))
        .collect();
    let updates: Vec<_> = names(&rule.add)
        .map(|name| format!("{0} = coalesce({target}.{0}, 0) + excluded.{0}", quoted(name)))
        .collect();
    format!(
        "-- rule {name}\n{ROWS}\n\
         INSERT INTO {target} ({columns})\n\
         SELECT {values} FROM rows\n\
         WHERE {NOT_SEEN}\n\
         ON CONFLICT ({key}) DO UPDATE SET {updates}",
        name = comment(&name.value),
        columns = quoted_list(names(&rule.key).chain(names(&rule.add))),
        values = [key_values, add_values].concat().join(", "),
        key = quoted_list(names(&rule.key)),
        updates = updates.join(", "),
    )
}

/// It is written once for its event, whatever else keeps the event from being applied twice.
fn outbox_sql(name: &Located<String>) -> String {
    let values: Vec<_> = (0..6).map(|i| format!("value ->> {i}")).collect();
    format!(
        "-- rule {name}\n{ROWS}\n\
         INSERT INTO outbox (source, event_id, generation, rule, id, channel, recipient, content, due_at, created_at)\n\
         SELECT {values}, value ->> 6, value -> 7, value ->> 8, value ->> 9 FROM rows\n\
         WHERE {NOT_SEEN}\n\
         ON CONFLICT DO NOTHING\n\
         RETURNING due_at",
        name = comment(&name.value),
        values = values.join(", "),
    )
}

/// The greatest outcome stays, in whatever order they come. What is in doubt, or was to be sent again for that, has been sent
/// after all: the provider speaks of it.
fn outcome_sql(name: &Located<String>, column: &str) -> String {
    format!(
        "-- rule {name}\n{ROWS}\n\
         UPDATE outbox SET outcome = row ->> 4, outcome_rank = row ->> 5, outcome_at = row ->> 6,\n\
         state = iif({doubt}, 'sent', state), error = iif({doubt}, NULL, error)\n\
         FROM (SELECT value AS row, max(value ->> 5) AS rank FROM rows WHERE {NOT_SEEN} GROUP BY value ->> 3)\n\
         WHERE {column} = row ->> 3 AND outcome_rank < rank",
        doubt = "state = 'in_doubt' OR (state = 'pending' AND attempts > 0)",
        name = comment(&name.value),
    )
}

fn suppress_sql(name: &Located<String>) -> String {
    format!(
        "-- rule {name}\n{ROWS}\n\
         INSERT INTO suppressions (address, reason, source, event_id, created_at)\n\
         SELECT value ->> 3, value ->> 4, value ->> 0, value ->> 1, value ->> 5 FROM rows\n\
         WHERE {NOT_SEEN}\n\
         ON CONFLICT DO NOTHING",
        name = comment(&name.value),
    )
}

/// A rule's name as a one-line SQL comment.
fn comment(name: &str) -> String {
    name.replace(|c: char| c.is_control(), " ")
}
