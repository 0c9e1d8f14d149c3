//! What each rule makes of an event, and why others make nothing of it: for people, nothing is done.

use hookmill_core::config::Consumers;
use hookmill_core::message::Envelope;
use hookmill_core::rules::row::Row;
use hookmill_core::rules::{Effect, Rule, Scope};
use hookmill_core::time::Timestamp;
use serde_json::Value;

use crate::plan::{self, facts};
use crate::settle::Fate;

/// A rule, and what it makes of the event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained<'c> {
    /// Which.
    pub rule: &'c Rule,
    /// What it makes of it.
    pub result: RuleResult,
}

/// What a rule makes of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuleResult {
    /// Nothing: its `on` names other events.
    NotNamed,
    /// Nothing: this condition does not hold.
    Unfulfilled {
        /// Its path.
        path: String,
        /// What was found there: a JSON text, `null` for nothing.
        found: String,
    },
    /// Nothing: why, in words.
    Nothing(&'static str),
    /// The parameters of its statements, and the table rows that the statements write.
    Rows {
        /// The rows.
        rows: Vec<Row>,
        /// What they are about.
        about: Vec<About>,
    },
    /// The event becomes a dead letter: why.
    Failed(String),
}

/// Some rows of a table: those that have these values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    /// The table.
    pub table: String,
    /// Columns, and their values.
    pub columns: Vec<(String, Value)>,
}

/// What every rule makes of an event, in the order of hookmill.toml.
pub fn explain<'c>(
    config: &'c Consumers,
    envelope: &Envelope,
    body: &[u8],
    now: Timestamp,
) -> Vec<Explained<'c>> {
    let explained = |rule: &'c Rule| {
        let result = rule_result(config, rule, envelope, body, now);
        let result = result.unwrap_or_else(|fate| match fate {
            Fate::Condemned { error, .. } => RuleResult::Failed(error),
            fate => RuleResult::Failed(fate.as_str().to_owned()),
        });
        Explained { rule, result }
    };
    config.program.rules.iter().map(explained).collect()
}

fn rule_result(
    config: &Consumers,
    rule: &Rule,
    envelope: &Envelope,
    body: &[u8],
    now: Timestamp,
) -> Result<RuleResult, Fate> {
    if !rule.on.iter().any(|pattern| pattern.matches(&envelope.source, &envelope.kind)) {
        return Ok(RuleResult::NotNamed);
    }
    let unreadable = |error: hookmill_core::rules::NotJson| Fate::unreadable(error.to_string());
    let mut builder = plan::RowBuilder::of(envelope, config.limits, now);
    if let Some(handler) = &rule.handler {
        builder.handle((0, rule), handler, body)?;
    } else {
        let values = config.program.reads.read(body).map_err(unreadable)?;
        let scope = Scope { body: &values, element: None, event: facts(envelope) };
        for condition in rule.when.iter().filter(|condition| !condition.path.of_element()) {
            if !condition.holds(scope).map_err(unreadable)? {
                let found = condition.path.json(scope).map_err(unreadable)?.unwrap_or("null");
                let path = condition.path.text.clone();
                return Ok(RuleResult::Unfulfilled { path, found: found.to_owned() });
            }
        }
        builder.carry_out((0, rule), (&values, body))?;
    }
    let rows: Vec<_> = builder.rows.into_iter().map(|(_, row)| row).collect();
    if !rows.is_empty() {
        let about = rows.iter().filter_map(|row| about(rule, row)).collect();
        return Ok(RuleResult::Rows { rows, about });
    }
    Ok(RuleResult::Nothing(match (&rule.handler, &rule.each) {
        (Some(_), _) => "its handler returns nothing that fulfils its conditions",
        (None, Some(_)) => "the list is missing, or no element matches the conditions",
        (None, None) => "what it names is not there",
    }))
}

/// The rows that a row of a statement's parameter is about.
fn about(rule: &Rule, row: &Row) -> Option<About> {
    let columns = row.columns(&rule.effect)?;
    let keyed = |table: &str, first: usize, keys: Vec<&str>| {
        let columns = keys.into_iter().zip(columns.get(first..)?);
        let columns = columns.map(|(name, value)| (name.to_owned(), value.clone())).collect();
        Some(About { table: table.to_owned(), columns })
    };
    match &rule.effect {
        Effect::Row { table, columns, .. } | Effect::Rows { table, owner: columns, .. } => {
            let keys = columns.iter().filter(|column| column.required);
            keyed(table, 0, keys.map(|column| column.name.as_str()).collect())
        }
        // Behind its rule.
        Effect::Send { .. } => keyed("outbox", 1, vec!["id"]),
        Effect::Outcome { by_provider_id, .. } => {
            keyed("outbox", 0, vec![if *by_provider_id { "provider_id" } else { "id" }])
        }
        Effect::Suppress { .. } => keyed("suppressions", 0, vec!["address"]),
    }
}
