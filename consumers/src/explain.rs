//! Explains the result of each rule for an event. Nothing is written.

use hookmill_config::Consumers;
use hookmill_core::message::Envelope;
use hookmill_core::time::Timestamp;
use hookmill_rules::row::Row;
use hookmill_rules::{Body, Effect, Rule, Scope};
use serde_json::Value;

use crate::plan::{self, facts};
use crate::settle::Fate;

/// A rule and its result for an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained<'c> {
    /// The rule.
    pub rule: &'c Rule,
    /// The result.
    pub result: RuleResult,
}

/// The result of a rule for an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuleResult {
    /// The rule's `on` does not match the event.
    NotNamed,
    /// `when` does not hold. For each alternative: the paths of the first value that does not fit, and the value as JSON, `null` if
    /// it is missing.
    Unfulfilled(Vec<(String, String)>),
    /// The rule runs and produces nothing, for this reason.
    Nothing(&'static str),
    /// The rule produces rows.
    Rows {
        /// The rows, which are parameters of the rule's statements.
        rows: Vec<Row>,
        /// The rows of tables that the statements write.
        about: Vec<About>,
    },
    /// The event becomes a dead letter with this error.
    Failed(String),
}

/// The rows of a table with these values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    /// The table.
    pub table: String,
    /// The columns of the key, and their values.
    pub columns: Vec<(String, Value)>,
    /// All columns that the event sets in a single row, and their values.
    pub values: Vec<(String, Value)>,
    /// The version and the precedence of the event, if the table compares events.
    pub order: Option<(i64, i64)>,
    /// Whether the version is a time, in microseconds.
    pub is_time: bool,
    /// Whether these are the rows of a list. The columns are those of its owner.
    pub is_list: bool,
}

/// The result of every rule, in the order of hookmill.toml.
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
    let unreadable = |error: hookmill_rules::NotJson| Fate::unreadable(error.to_string());
    let mut builder = plan::RowBuilder::of(envelope, config.limits, now);
    let body = Body::new(body).map_err(unreadable)?;
    if let Some(handler) = &rule.handler {
        builder.handle((0, rule), handler, &body)?;
    } else {
        let values = config.program.reads.read(&body).map_err(unreadable)?;
        let scope = Scope { body: &values, element: None, event: facts(envelope) };
        if !rule.when.holds(scope) {
            let unfulfilled = rule.when.0.iter().filter_map(|alternative| {
                let mut conditions = alternative.iter().filter(|when| !when.is_of_element());
                let condition = conditions.find(|condition| !condition.holds(scope))?;
                let paths: Vec<_> = condition.paths.iter().map(|path| path.text.as_str()).collect();
                Some((paths.join(" | "), condition.found(scope).into_owned()))
            });
            return Ok(RuleResult::Unfulfilled(unfulfilled.collect()));
        }
        builder.carry_out((0, rule), (&values, &body))?;
    }
    let rows: Vec<_> = builder.rows.into_iter().map(|(_, row)| row).collect();
    if !rows.is_empty() {
        let about = rows.iter().filter_map(|row| about(rule, row)).collect();
        return Ok(RuleResult::Rows { rows, about });
    }
    Ok(RuleResult::Nothing(match (&rule.handler, &rule.each) {
        (Some(_), _) => "its handler returns no value that meets the conditions",
        (None, Some(_)) => "the list is missing, or no element matches the conditions",
        (None, None) => "the event has no value at its paths",
    }))
}

/// The rows of a table that this row of a statement's parameter writes.
fn about(rule: &Rule, row: &Row) -> Option<About> {
    let columns = row.columns(&rule.effect)?;
    let named = |names: Vec<&str>, values: &[Value]| {
        let named = names.into_iter().zip(values);
        named.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    };
    let values = match &rule.effect {
        Effect::Row { columns: names, .. } => {
            named(names.iter().map(|column| column.name.as_str()).collect(), &columns)
        }
        _ => Vec::new(),
    };
    let keyed = |table: &str, first: usize, keys: Vec<&str>| {
        let columns = named(keys, columns.get(first..)?);
        let guard = rule.effect.guard();
        let is_time = guard.is_some_and(|guard| guard.version.is_time());
        let is_list = matches!(rule.effect, Effect::Rows { .. });
        let (table, order) = (table.to_owned(), row.order());
        Some(About { table, columns, values, order, is_time, is_list })
    };
    match &rule.effect {
        Effect::Row { table, columns, .. } | Effect::Rows { table, owner: columns, .. } => {
            let keys = columns.iter().filter(|column| column.required);
            keyed(table, 0, keys.map(|column| column.name.as_str()).collect())
        }
        // The first value is the rule's name.
        Effect::Send { .. } => keyed("outbox", 1, vec!["id"]),
        Effect::Outcome { by_provider_id, .. } => {
            keyed("outbox", 0, vec![if *by_provider_id { "provider_id" } else { "id" }])
        }
        Effect::Suppress(whom) | Effect::Lift(whom) => keyed(whom.table(), 0, whom.key().to_vec()),
    }
}
