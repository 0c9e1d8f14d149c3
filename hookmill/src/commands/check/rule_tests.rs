//! Runs `[[tests]]`: events are signed, verified and applied to an in-memory database.

use std::collections::BTreeSet;
use std::path::Path;

use hookmill_config::{Before, ConfigError, Expectation, Given, Located, RuleTest};
use hookmill_consumers::Fate;
use hookmill_core::delivery::Delivery;
use hookmill_core::message::decode;
use hookmill_core::schema::Table;
use hookmill_core::store::StoreError;
use hookmill_loader::Loaded;
use hookmill_native::now;
use hookmill_rules::GUARD_COLUMNS;
use hookmill_rules::compile::no_table;
use serde_json::Value;

use crate::samples;
use crate::trial::{Row, Trial, Unsigned, admit, contradiction, literal, quoted, with_headers};

/// The maximum number of rows in a message if none matches.
const SHOWN: usize = 3;

/// Runs every test; returns the differences.
///
/// # Errors
///
/// If a database cannot be created.
pub fn run(path: &Path, loaded: &Loaded) -> anyhow::Result<Vec<ConfigError>> {
    let mut faults = Vec::new();
    for test in &loaded.config.tests {
        faults.extend(run_one(path, loaded, test)?);
    }
    Ok(faults)
}

/// Runs a test; returns the differences.
///
/// # Errors
///
/// If a database cannot be created.
pub fn run_one(path: &Path, loaded: &Loaded, test: &RuleTest) -> anyhow::Result<Vec<ConfigError>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let consumers = loaded.consumers();
    let trial = Trial::new(loaded, &consumers, |_| Ok(()))?;
    Ok(runtime.block_on(trial.run(path, test)))
}

impl Trial<'_> {
    async fn run(&self, path: &Path, test: &RuleTest) -> Vec<ConfigError> {
        for before in &test.before {
            if let Err(fault) = self.insert(before).await {
                return vec![fault];
            }
        }
        let (mut last, mut dead, mut unmatched) = (Vec::new(), Vec::new(), Vec::new());
        for (number, given) in test.given.iter().enumerate() {
            let batch = match deliveries(path, self.loaded, number, given) {
                Ok(batch) => batch,
                Err(fault) => return vec![fault],
            };
            last = self.apply(&batch).await;
            dead.extend(last.iter().filter_map(death));
            unmatched.extend(batch.iter().zip(&last).filter_map(no_match));
        }
        let mut faults = Vec::new();
        for expected in &test.expect {
            let found = match &expected.value {
                Expectation::Nothing => self.nothing(&dead).await,
                Expectation::Row { table, row } => self.row(expected, table, row).await,
                Expectation::Rows { table, count } => self.rows(expected, table, *count).await,
                Expectation::Sent { what, content } => self.sent(what, content).await,
                Expectation::Count { what, count } => self.count(what, *count).await,
                Expectation::Outcome { outcome } => became(outcome, &last),
                Expectation::Error { error } => failed(error, &dead, &last),
            };
            faults.extend(found.err().map(|wrong| match wrong {
                Wrong::Found(problem) => {
                    // An event that took no effect explains what is missing.
                    let dead = dead.iter().filter(|dead| !problem.contains(*dead));
                    let dead = dead.map(|dead| format!("\n    an event is a dead letter: {dead}"));
                    let unmatched = unmatched.iter().map(|kind| {
                        format!("\n    no rule matches an event: its type is `{kind}`")
                    });
                    let lines: String = dead.chain(unmatched).collect();
                    expected.error(format!("{}{lines}", problem.trim_end()))
                }
                Wrong::Meant(fault) => fault,
            }));
        }
        let is_expected = |expected: &Located<Expectation>| match &expected.value {
            Expectation::Error { .. } | Expectation::Nothing => true,
            Expectation::Outcome { outcome } => *outcome == "dead_letter",
            _ => false,
        };
        if let ([first, ..], Some(dead)) = (test.expect.as_slice(), dead.first())
            && faults.is_empty()
            && !test.expect.iter().any(is_expected)
        {
            let problem = first.error(format!("an event is a dead letter: {dead}"));
            faults.push(problem.hint(
                "if it should be one, add a part of its error to `expect`: { error = \"…\" }",
            ));
        }
        faults
    }

    /// Inserts a row that exists before the events arrive.
    async fn insert(&self, before: &Before) -> Result<(), ConfigError> {
        let Before { table, row } = before;
        let Some(found) = self.schema.tables.get(&table.value) else {
            return Err(no_table(table, &self.schema));
        };
        let names = || found.columns.iter().map(|column| column.name.as_str());
        if let Some(name) = row.value.keys().find(|name| names().all(|column| column != **name)) {
            let fault = row.error(format!("table `{}` has no column `{name}`", table.value));
            return Err(fault.suggest(name, names()));
        }
        let mut values: Vec<_> =
            row.value.iter().map(|(name, value)| (name.as_str(), in_sql(value))).collect();
        // Every event is newer.
        for (name, oldest) in GUARD_COLUMNS.into_iter().zip(["0", "0", "''", "0"]) {
            let needed = found.column(name).is_some_and(|column| column.not_null);
            if needed && !row.value.contains_key(name) {
                values.push((name, oldest.to_owned()));
            }
        }
        let columns: Vec<_> = values.iter().map(|(name, _)| quoted(name)).collect();
        let values: Vec<_> = values.into_iter().map(|(_, value)| value).collect();
        let (columns, values) = (columns.join(", "), values.join(", "));
        let sql = format!("INSERT INTO {} ({columns}) VALUES ({values})", quoted(&table.value));
        self.ask(&sql).await.map(drop).map_err(|error| row.error(error.to_string()))
    }

    async fn nothing(&self, dead: &[String]) -> Result<(), Wrong> {
        if let Some(dead) = dead.first() {
            return Err(Wrong::Found(format!("an event is a dead letter: {dead}")));
        }
        let tables = self.loaded.program.rules.iter().filter_map(|rule| rule.effect.table());
        let tables: BTreeSet<_> = tables.collect();
        let written = tables.into_iter().map(|table| (table, self.select(table)));
        let sent = "SELECT json_object('rule', rule, 'channel', channel, 'content', json(content)) FROM outbox";
        for (table, sql) in written.chain([("outbox", sent.to_owned())]) {
            let rows = self.ask(&sql).await?;
            if !rows.is_empty() {
                return Err(Wrong::Found(format!("found in `{table}`\n{}", first(&rows))));
            }
        }
        Ok(())
    }

    fn known(&self, expected: &Located<Expectation>, table: &str) -> Result<&Table, Wrong> {
        if let Some(found) = self.schema.relation(table) {
            return Ok(found);
        }
        let fault = expected.error(format!("there is no table or view `{table}`"));
        Err(Wrong::Meant(fault.suggest(table, self.schema.relations())))
    }

    async fn row(
        &self,
        expected: &Located<Expectation>,
        table: &str,
        row: &Row,
    ) -> Result<(), Wrong> {
        let known = self.known(expected, table)?;
        if let Some(name) = row.keys().find(|name| known.names().all(|known| known != **name)) {
            let fault = expected.error(format!("`{table}` has no column `{name}`"));
            return Err(Wrong::Meant(fault.suggest(name, known.names())));
        }
        let rows = self.ask(&self.select(table)).await?;
        if rows.iter().any(|found| agrees(row, found)) {
            return Ok(());
        }
        // If the test gives the key, the row with that key is compared.
        let keys: Vec<_> =
            known.columns.iter().filter(|column| column.key).map(|column| &column.name).collect();
        let keyed = !keys.is_empty() && keys.iter().all(|key| row.contains_key(*key));
        let meant = |found: &&Row| {
            keyed
                && keys.iter().all(|key| same(&row[*key], found.get(*key).unwrap_or(&Value::Null)))
        };
        Err(Wrong::Found(match rows.iter().find(meant) {
            Some(found) => format!(
                "`{table}` is not as expected (-: expected, +: found)\n{}",
                difference(row, found)
            ),
            None if rows.is_empty() => format!("`{table}` has no rows"),
            None => {
                // A column that the test names is shown even if it has no value.
                let with_null = |mut found: Row| {
                    for name in row.keys() {
                        found.entry(name.clone()).or_insert(Value::Null);
                    }
                    found
                };
                let rows: Vec<_> = rows.into_iter().take(SHOWN).map(with_null).collect();
                let shown =
                    rows.iter().map(|found| shown_with(found, |name| row.contains_key(name)));
                let shown = shown.collect::<Vec<_>>().join("\n");
                format!("`{table}` has no such row; it has\n{shown}")
            }
        }))
    }

    async fn rows(
        &self,
        expected: &Located<Expectation>,
        table: &str,
        count: u32,
    ) -> Result<(), Wrong> {
        self.known(expected, table)?;
        let rows = self.ask(&self.select(table)).await?;
        if rows.len() == count as usize {
            return Ok(());
        }
        Err(Wrong::Found(format!(
            "`{table}` has {} row{}, not {count}\n{}",
            rows.len(),
            if rows.len() == 1 { "" } else { "s" },
            first(&rows)
        )))
    }

    async fn sent(&self, what: &str, content: &Row) -> Result<(), Wrong> {
        let found = self.messages(what).await?;
        if found.iter().any(|found| agrees(content, found)) {
            return Ok(());
        }
        Err(Wrong::Found(match found.as_slice() {
            [] => format!("no {what} is sent"),
            [one] => format!(
                "the {what} is not as expected (-: expected, +: found)\n{}",
                difference(content, one)
            ),
            several => {
                format!("no {what} is as expected; found\n{}", first(several))
            }
        }))
    }

    async fn count(&self, what: &str, count: u32) -> Result<(), Wrong> {
        let found = self.messages(what).await?;
        if found.len() == count as usize {
            return Ok(());
        }
        let name = if what == "track" { "tracking event" } else { what };
        let plural = if found.len() == 1 || what == "sms" { "" } else { "s" };
        let sent = found.len();
        let problem = format!("{sent} {name}{plural} sent, not {count}\n{}", first(&found));
        Err(Wrong::Found(problem.trim_end().to_owned()))
    }

    /// The messages that rules send: `email`, `sms` or `track`.
    async fn messages(&self, what: &str) -> Result<Vec<Row>, StoreError> {
        let of = match what {
            "track" => "channel NOT IN ('email', 'sms')".to_owned(),
            channel => format!("channel = '{channel}'"),
        };
        self.ask(&format!("SELECT json_set(content, '$.rule', rule) FROM outbox WHERE {of}")).await
    }
}

/// A value of a test, as SQLite stores it.
fn in_sql(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(truth) => i64::from(*truth).to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => literal(text),
        json => literal(&json.to_string()),
    }
}

/// The messages of a request of a test, as its provider would send it. `number`: its place in the test.
///
/// # Errors
///
/// If its file cannot be read, or ingress rejects it.
pub(super) fn deliveries(
    config: &Path,
    loaded: &Loaded,
    number: usize,
    given: &Given,
) -> Result<Vec<Delivery>, ConfigError> {
    let file = config.with_file_name("").join(&given.file.value);
    let body = std::fs::read(&file)
        .map_err(|error| given.file.error(format!("cannot read {}: {error}", file.display())))?;
    let mut sources = loaded.config.ingress.sources.iter();
    let source = sources.find(|source| source.name == given.source.value);
    let source = source.ok_or_else(|| given.source.error("this source does not exist"))?;
    let id = given.id.clone().unwrap_or_else(|| format!("test_{number}"));
    let kind = given.event.as_deref().unwrap_or_default();
    let own = given.headers.iter().flatten().map(|(name, value)| (&name.value, value));
    let own: Vec<_> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    let headers = with_headers(samples::unsigned_headers(&source.scheme_name, now()), &own);
    let request = Unsigned { body: &body, id: &id, kind, headers: &headers };
    let deliveries = admit(source, request).map_err(|problem| given.file.error(problem))?;
    let first = deliveries.first().and_then(|delivery| decode(&delivery.text).ok());
    let own = (given.id.as_deref(), given.event.as_deref());
    let wrong =
        first.and_then(|first| contradiction(own, (&first.envelope.id, &first.envelope.kind)));
    match wrong {
        Some(problem) => Err(given
            .file
            .error(problem)
            .hint("remove `id` and `event`: they are for providers that send them in headers")),
        None => Ok(deliveries),
    }
}

/// The type of an event that no rule matches.
fn no_match((delivery, fate): (&Delivery, &Fate)) -> Option<String> {
    let is_unmatched = matches!(fate, Fate::Recorded | Fate::Ignored);
    let message = is_unmatched.then(|| decode(&delivery.text))?.ok()?;
    Some(format!("{}:{}", message.envelope.source, message.envelope.kind))
}

/// What makes an event a dead letter, if it is one.
pub(super) fn death(fate: &Fate) -> Option<String> {
    match fate {
        Fate::Condemned { reason, error } => Some(format!("{reason}: {error}")),
        _ => None,
    }
}

/// The first rows.
fn first(rows: &[Row]) -> String {
    rows.iter().take(SHOWN).map(shown).collect::<Vec<_>>().join("\n")
}

/// An error of a test.
enum Wrong {
    /// The actual result.
    Found(String),
    /// The test itself is invalid.
    Meant(ConfigError),
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        Self::Found(error.to_string())
    }
}

fn became(outcome: &str, last: &[Fate]) -> Result<(), Wrong> {
    match last.iter().find(|fate| fate.as_str() != outcome) {
        None => Ok(()),
        Some(fate) => {
            let dead = death(fate).map(|dead| format!("the event is a dead letter: {dead}"));
            Err(Wrong::Found(dead.unwrap_or_else(|| format!("the event is {fate}, not {outcome}"))))
        }
    }
}

fn failed(expected: &str, dead: &[String], last: &[Fate]) -> Result<(), Wrong> {
    match (dead.iter().any(|error| error.contains(expected)), dead.is_empty(), last.first()) {
        (true, ..) => Ok(()),
        (false, true, Some(fate)) => {
            Err(Wrong::Found(format!("the event is {fate}, not a dead letter")))
        }
        (false, ..) => Err(Wrong::Found(format!("the error is not {expected:?}"))),
    }
}

/// Whether the row contains every expected value.
fn agrees(expected: &Row, found: &Row) -> bool {
    expected.iter().all(|(name, value)| same(value, found.get(name).unwrap_or(&Value::Null)))
}

/// Whether a value is as expected: SQLite has 1 for true, and texts for JSON. An object may have more members than
/// expected. `{ exists = false }` means no value.
fn same(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Object(expected), found)
            if expected.len() == 1 && expected.contains_key("exists") =>
        {
            expected["exists"] == Value::Bool(!found.is_null())
        }
        (Value::Object(expected), Value::Object(found)) => agrees(expected, found),
        (Value::Object(_) | Value::Array(_), Value::String(text)) => {
            serde_json::from_str(text).is_ok_and(|found: Value| same(expected, &found))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len() && expected.iter().zip(found).all(|(e, f)| same(e, f))
        }
        // A single recipient equals a list of one.
        (expected, Value::Array(found)) => matches!(found.as_slice(), [one] if same(expected, one)),
        (Value::Bool(truth), Value::Number(number)) => number.as_i64() == Some(i64::from(*truth)),
        (Value::Number(expected), Value::Number(found)) => {
            let whole = expected.as_i64().zip(found.as_i64());
            whole.map_or_else(|| expected.as_f64() == found.as_f64(), |(one, other)| one == other)
        }
        (expected, found) => expected == found,
    }
}

fn shown(row: &Row) -> String {
    shown_with(row, |_| false)
}

/// A row without the columns that have no value, except these.
fn shown_with(row: &Row, is_shown: impl Fn(&str) -> bool) -> String {
    let values = row.iter().filter(|(name, value)| !value.is_null() || is_shown(name));
    values.map(|(name, value)| format!("    {name} = {value}")).collect::<Vec<_>>().join("\n")
}

/// The expected and actual values that differ.
fn difference(expected: &Row, found: &Row) -> String {
    let mut lines = Vec::new();
    for (name, value) in expected {
        let found = found.get(name).unwrap_or(&Value::Null);
        if same(value, found) {
            lines.push(format!("    {name} = {value}"));
        } else {
            // As SQLite stores it.
            let value = match value {
                Value::Bool(value) => Value::from(i32::from(*value)),
                value => value.clone(),
            };
            lines.push(format!("  - {name} = {value}"));
            lines.push(format!("  + {name} = {found}"));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_compared_as_sqlite_stores_them() {
        for (expected, found, is_same) in [
            (json!(1), json!(1.0), true),
            (json!(820_982_911_946_154_508_i64), json!(820_982_911_946_154_509_i64), false),
            (json!(true), json!(1), true),
            (json!(true), json!(0), false),
            (json!("a"), json!("a"), true),
            (json!("a"), json!(["a"]), true),
            (json!("a"), json!(["a", "b"]), false),
            (json!({ "a": 1 }), json!("{\"a\":1,\"b\":2}"), true),
            (json!({ "a": 1 }), json!("{\"b\":2}"), false),
            (json!([1]), json!("[1]"), true),
            (json!({ "exists": false }), Value::Null, true),
            (json!({ "exists": false }), json!(0), false),
            (json!({ "exists": true }), json!(0), true),
            (json!("x"), Value::Null, false),
        ] {
            assert_eq!(same(&expected, &found), is_same, "{expected} {found}");
        }
    }
}
