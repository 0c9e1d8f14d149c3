//! Runs `[[tests]]`: events are signed, verified and applied to an in-memory database.

use std::collections::BTreeSet;
use std::path::Path;

use hookmill_config::{ConfigError, Expectation, Given, Located, RuleTest};
use hookmill_consumers::Fate;
use hookmill_core::delivery::Delivery;
use hookmill_core::store::StoreError;
use hookmill_loader::Loaded;
use serde_json::Value;

use crate::trial::{Row, Trial, admit};

/// The maximum number of rows in a message if none matches.
const SHOWN: usize = 3;

/// Runs every test; returns the differences.
///
/// # Errors
///
/// If a database cannot be created.
pub fn run(path: &Path, loaded: &Loaded) -> anyhow::Result<Vec<ConfigError>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let consumers = loaded.consumers();
    let mut faults = Vec::new();
    for test in &loaded.config.tests {
        let trial = Trial::new(loaded, &consumers, |_| Ok(()))?;
        faults.extend(runtime.block_on(trial.run(path, test)));
    }
    Ok(faults)
}

impl Trial<'_> {
    async fn run(&self, path: &Path, test: &RuleTest) -> Vec<ConfigError> {
        let named = |error: ConfigError| match &test.name {
            Some(name) => {
                let problem = format!("{}: {}", name.value, error.problem);
                ConfigError { problem, ..error }
            }
            None => error,
        };
        let mut last = Vec::new();
        for (number, given) in test.given.iter().enumerate() {
            match self.given(path, number, given) {
                Ok(batch) => last = self.apply(&batch).await,
                Err(fault) => return vec![named(fault)],
            }
        }
        let mut faults = Vec::new();
        for expected in &test.expect {
            let found = match &expected.value {
                Expectation::Nothing => self.nothing(&last).await,
                Expectation::Row { table, row } => self.row(expected, table, row).await,
                Expectation::Rows { table, count } => self.rows(expected, table, *count).await,
                Expectation::Sent { what, content } => self.sent(what, content).await,
                Expectation::Outcome { outcome } => became(outcome, &last),
            };
            faults.extend(found.err().map(|wrong| match wrong {
                Wrong::Found(problem) => named(expected.error(problem)),
                Wrong::Meant(fault) => named(fault),
            }));
        }
        faults
    }

    /// The messages of a request as its provider would send it.
    fn given(
        &self,
        path: &Path,
        number: usize,
        given: &Given,
    ) -> Result<Vec<Delivery>, ConfigError> {
        let file = path.with_file_name("").join(&given.file.value);
        let body = std::fs::read(&file).map_err(|error| {
            given.file.error(format!("cannot read {}: {error}", file.display()))
        })?;
        let mut sources = self.loaded.config.ingress.sources.iter();
        let source = sources.find(|source| source.name == given.source.value);
        let source = source.ok_or_else(|| given.source.error("this source does not exist"))?;
        let id = given.id.clone().unwrap_or_else(|| format!("test_{number}"));
        let kind = given.event.as_deref().unwrap_or_default();
        admit(source, &body, &id, kind).map_err(|problem| given.file.error(problem))
    }

    async fn nothing(&self, last: &[Fate]) -> Result<(), Wrong> {
        for fate in last {
            if let Fate::Condemned { reason, error } = fate {
                return Err(Wrong::Found(format!("the event is a dead letter: {reason}: {error}")));
            }
        }
        let tables = self.loaded.program.rules.iter().filter_map(|rule| rule.effect.table());
        let tables: BTreeSet<_> = tables.collect();
        let written = tables.into_iter().map(|table| (table, self.select(table)));
        let sent = "SELECT json_object('rule', rule, 'channel', channel, 'content', json(content)) FROM outbox";
        for (table, sql) in written.chain([("outbox", sent.to_owned())]) {
            let rows = self.ask(&sql).await?;
            if !rows.is_empty() {
                let found = rows.into_iter().take(SHOWN).map(|row| shown(&row)).collect::<Vec<_>>();
                let found = found.join("\n");
                return Err(Wrong::Found(format!("found in `{table}`\n{found}")));
            }
        }
        Ok(())
    }

    fn known(&self, expected: &Located<Expectation>, table: &str) -> Result<(), Wrong> {
        if self.schema.tables.contains_key(table) {
            return Ok(());
        }
        let fault = expected.error(format!("there is no table `{table}`"));
        Err(Wrong::Meant(fault.suggest(table, self.schema.tables.keys().map(String::as_str))))
    }

    async fn row(
        &self,
        expected: &Located<Expectation>,
        table: &str,
        row: &Row,
    ) -> Result<(), Wrong> {
        self.known(expected, table)?;
        let columns = &self.schema.tables[table].columns;
        if let Some(name) =
            row.keys().find(|name| columns.iter().all(|column| column.name != **name))
        {
            let fault = expected.error(format!("table `{table}` has no column `{name}`"));
            let names = columns.iter().map(|column| column.name.as_str());
            return Err(Wrong::Meant(fault.suggest(name, names)));
        }
        let rows = self.ask(&self.select(table)).await?;
        if rows.iter().any(|found| agrees(row, found)) {
            return Ok(());
        }
        // If the test gives the key, the row with that key is compared.
        let keys: Vec<_> =
            columns.iter().filter(|column| column.key).map(|column| &column.name).collect();
        let keyed = !keys.is_empty() && keys.iter().all(|key| row.contains_key(*key));
        let meant = |found: &&Row| {
            keyed
                && keys.iter().all(|key| same(&row[*key], found.get(*key).unwrap_or(&Value::Null)))
        };
        Err(Wrong::Found(match rows.iter().find(meant) {
            Some(found) => format!("`{table}` is not as expected\n{}", difference(row, found)),
            None if rows.is_empty() => format!("`{table}` has no rows"),
            None => {
                let found = rows.iter().take(SHOWN).map(shown).collect::<Vec<_>>().join("\n");
                format!("`{table}` has no such row; it has\n{found}")
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
        let found = rows.iter().take(SHOWN).map(shown).collect::<Vec<_>>().join(
            "
",
        );
        Err(Wrong::Found(format!(
            "`{table}` has {} row{}, not {count}\n{found}",
            rows.len(),
            if rows.len() == 1 { "" } else { "s" }
        )))
    }

    async fn sent(&self, what: &str, content: &Row) -> Result<(), Wrong> {
        let of = match what {
            "track" => "channel NOT IN ('email', 'sms')".to_owned(),
            channel => format!("channel = '{channel}'"),
        };
        let sql = format!("SELECT json_set(content, '$.rule', rule) FROM outbox WHERE {of}");
        let found = self.ask(&sql).await?;
        if found.iter().any(|found| agrees(content, found)) {
            return Ok(());
        }
        Err(Wrong::Found(match found.as_slice() {
            [] => format!("no {what} is sent"),
            [one] => format!("the {what} is not as expected\n{}", difference(content, one)),
            several => {
                let found = several.iter().take(SHOWN).map(shown).collect::<Vec<_>>().join("\n");
                format!("no {what} is as expected; found\n{found}")
            }
        }))
    }
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
        Some(Fate::Condemned { reason, error }) => {
            Err(Wrong::Found(format!("the event is a dead letter: {reason}: {error}")))
        }
        Some(fate) => Err(Wrong::Found(format!("the event is {fate}, not {outcome}"))),
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
        (Value::Number(expected), Value::Number(found)) => expected.as_f64() == found.as_f64(),
        (expected, found) => expected == found,
    }
}

fn shown(row: &Row) -> String {
    let values = row.iter().filter(|(_, value)| !value.is_null());
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
