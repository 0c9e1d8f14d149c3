//! `[[tests]]`: events as they come, and what is to become of them. `hookmill check` runs them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::toml_reader::{Item, Located, Section};

/// A test of the rules, as written.
#[derive(Clone, PartialEq, Debug)]
pub struct TestText {
    /// `name`; its place in the list, if it has none.
    pub name: Located<String>,
    /// `given`: events, in the order in which they come.
    pub given: Vec<Given>,
    /// `expect`: all of these.
    pub expect: Vec<Located<Expectation>>,
}

/// A request that comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// `source`.
    pub source: Located<String>,
    /// `file`: its body, relative to hookmill.toml.
    pub file: Located<String>,
    /// `event`: its type, where the body does not say it.
    pub kind: Option<String>,
    /// `id`, where the body does not say it.
    pub id: Option<String>,
}

/// What is to be so when all events have come.
#[derive(Clone, PartialEq, Debug)]
pub enum Expectation {
    /// `"nothing"`: no rule has written or sent anything.
    Nothing,
    /// A table has a row with these values.
    Row {
        /// `table`.
        table: String,
        /// `row`: columns and their values; `{ exists = false }` for `NULL`.
        row: Map<String, Value>,
    },
    /// A table has so many rows.
    Rows {
        /// `table`.
        table: String,
        /// `rows`.
        count: u64,
    },
    /// Something is sent with these members.
    Sent {
        /// `email`, `sms` or `track`.
        what: &'static str,
        /// What is said of it.
        content: Map<String, Value>,
    },
    /// This becomes of the last event.
    Outcome {
        /// `applied`, `recorded`, `ignored` or `dead_letter`.
        outcome: &'static str,
    },
}

/// Reads `[[tests]]`.
pub(super) fn tests(root: &Section<'_>, sources: &BTreeSet<String>) -> Vec<TestText> {
    let Some(item) = root.get("tests") else { return Vec::new() };
    let entries = item.list("a list of tests: [[tests]]", false);
    entries.iter().filter_map(|entry| test(entry, sources)).collect()
}

fn test(item: &Item<'_>, sources: &BTreeSet<String>) -> Option<TestText> {
    let section = item.section("a table: [[tests]]")?;
    let name = section.get("name").and_then(|item| item.string("a name"));
    let name = name.unwrap_or_else(|| section.here.clone().map(|()| section.here.key.clone()));
    let hint = "add the events: given = { source = \"stripe\", file = \"tests/paid.json\" }";
    let given = section.require("given", hint).map(|item| item.list("a table, or a list", true));
    let given = given.unwrap_or_default();
    let given = given.iter().filter_map(|item| read_given(item, sources)).collect();
    let hint =
        "add the expected results: expect = { table = \"invoices\", row = { id = \"in_1\" } }";
    let expect = section.require("expect", hint).map(|item| item.list("a table, or a list", true));
    let expect = expect.unwrap_or_default();
    let expect = expect.iter().filter_map(expectation).collect();
    section.finish();
    Some(TestText { name, given, expect })
}

fn read_given(item: &Item<'_>, sources: &BTreeSet<String>) -> Option<Given> {
    let section = item.section("a table: { source = \"stripe\", file = \"tests/paid.json\" }")?;
    let source = section.require("source", "add the event's source: source = \"stripe\"");
    let source = source.and_then(|item| item.string("the name of a source"));
    if let Some(source) = &source
        && !sources.contains(&source.value)
    {
        let problem = source.error(format!("no source has the name `{}`", source.value));
        section.report(problem.suggest(&source.value, sources.iter().map(String::as_str)));
    }
    let file = section.require("file", "add the file with its body: file = \"tests/paid.json\"");
    let file = file.and_then(|item| item.string("a file"));
    let text = |key| Some(section.get(key)?.string("a text")?.value);
    let (kind, id) = (text("event"), text("id"));
    section.finish();
    Some(Given { source: source?, file: file?, kind, id })
}

/// A table of whatever there may be.
fn members(item: &Item<'_>, expected: &str) -> Option<Map<String, Value>> {
    item.section(expected)?;
    match item.value() {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// What can become of an event.
pub(super) const OUTCOMES: [(&str, &str); 4] = [
    ("applied", "applied"),
    ("recorded", "recorded"),
    ("ignored", "ignored"),
    ("dead_letter", "dead_letter"),
];

fn expectation(item: &Item<'_>) -> Option<Located<Expectation>> {
    const EXPECTED: &str =
        "\"nothing\", or a table with `table`, `email`, `sms`, `track` or `outcome`";
    if item.is_string() {
        let text = item.string(EXPECTED)?;
        if text.value != "nothing" {
            let problem = text.error(format!("found {:?}", text.value));
            item.report(problem.hint(format!("expected {EXPECTED}")));
            return None;
        }
        return Some(text.map(|_| Expectation::Nothing));
    }
    let section = item.section(EXPECTED)?;
    let read = || {
        if let Some(table) = section.get("table") {
            let table = table.string("the name of a table")?.value;
            if let Some(rows) = section.get("rows") {
                let expected = "a number of rows";
                let count = rows.integer(expected)?;
                let Ok(count) = u64::try_from(count.value) else {
                    let problem = count.error(format!("found {}", count.value));
                    rows.report(problem.hint(format!("expected {expected}")));
                    return None;
                };
                return Some(Expectation::Rows { table, count });
            }
            let hint =
                "add the expected row, row = { id = \"in_1\" }, or the number of rows, rows = 0";
            let expected = "columns and their values: row = { id = \"in_1\" }";
            let row = members(&section.require("row", hint)?, expected)?;
            return Some(Expectation::Row { table, row });
        }
        for what in ["email", "sms", "track"] {
            if let Some(content) = section.get(what) {
                let content = members(&content, "a table of expected values")?;
                return Some(Expectation::Sent { what, content });
            }
        }
        let outcome = section.require("outcome", EXPECTED)?.choice(&OUTCOMES)?;
        Some(Expectation::Outcome { outcome: outcome.value })
    };
    let found = read();
    let here = section.here.clone();
    section.finish();
    found.map(|found| here.map(|()| found))
}
