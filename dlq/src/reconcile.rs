//! The state of reconciliations: the differences between the tables and a provider's API. The consumers' stage finds them.
//!
//! A reconciliation is a job like an import ([`crate::import`]). It reports a difference only if a later request confirms it,
//! because an event may have been on its way.
//!
//! ```text
//! difference  found -> confirmed | repaired | unclear
//!               '---> removed: the row matches
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_core::params;
use hookmill_core::store::{Param, Statement, json};
use hookmill_core::time::Timestamp;
use hookmill_core::words::{DriftKind, DriftState, JobKind};
use serde::{Deserialize, Serialize};

use crate::import::job_id;
use crate::replay::{FilterError, check_blank};

/// The maximum number of rows of `listed_rows` that one statement removes.
const CLEARED: u32 = 5_000;

/// Selects what is compared.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconcileFilter {
    /// The source.
    pub source: String,
    /// The table; if none, every table whose rows come from the objects of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The connected account of Stripe that has the objects; if none, that of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The number of objects of each list, the first ones; if none, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
    /// Whether the objects that differ are sent through the rules.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
}

impl ReconcileFilter {
    /// Checks the filter.
    ///
    /// # Errors
    ///
    /// If a name is blank.
    pub fn check(&self) -> Result<(), FilterError> {
        check_blank(&[
            ("source", Some(&self.source)),
            ("table", self.table.as_deref()),
            ("account", self.account.as_deref()),
        ])
    }
}

/// A difference.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Drift {
    /// The table.
    #[serde(rename = "table_name")]
    pub table: String,
    /// JSON: the key of the row, an array of texts.
    pub key: String,
    /// What differs.
    pub kind: DriftKind,
    /// The id of the object.
    pub object: String,
    /// The names of the columns that differ.
    #[serde(deserialize_with = "json")]
    pub columns: Vec<String>,
}

impl Drift {
    fn row(&self) -> (&str, &str, &str, &str, &[String]) {
        (&self.table, &self.key, self.kind.as_str(), &self.object, &self.columns)
    }
}

/// `?1` JSON: rows; `?2` the generation, `?3` the list, `?4` the page, `?5` the state.
const FOUND: &str = "\
-- differences
INSERT INTO drifts (generation, table_name, key, kind, object, list, page, columns, state)
SELECT ?2, value ->> 0, value ->> 1, value ->> 2, value ->> 3, ?3, ?4, value ->> 4, ?5 FROM jsonb_each(?1)
WHERE true
ON CONFLICT (generation, table_name, key) DO UPDATE SET kind = excluded.kind, object = excluded.object, list = excluded.list,
    page = excluded.page, columns = excluded.columns, state = excluded.state";

/// `?1` the generation.
const NEXT: &str = "\
-- the next differences to confirm
SELECT list, page, object FROM drifts WHERE generation = ?1 AND state = 'found' ORDER BY page DESC, object LIMIT 1";

/// `?1` the generation, `?2` the page, `?3` the object; `NULL` for all of the page.
const OF: &str = "\
-- differences to confirm
SELECT table_name, key, kind, object, columns FROM drifts
WHERE generation = ?1 AND state = 'found' AND page IS ?2 AND (?3 IS NULL OR object = ?3)";

/// `?1` JSON: rows as in [`FOUND`]; `?2` the generation, `?3` the new state.
const SETTLE: &str = "\
-- confirmed differences
UPDATE drifts SET state = ?3, kind = value ->> 2, columns = value ->> 4 FROM jsonb_each(?1)
WHERE generation = ?2 AND table_name = value ->> 0 AND drifts.key = value ->> 1";

/// `?1` JSON: rows as in [`FOUND`]; `?2` the generation.
const NONE: &str = "\
-- rows that match
DELETE FROM drifts WHERE generation = ?2
    AND (table_name, key) IN (SELECT value ->> 0, value ->> 1 FROM jsonb_each(?1))";

/// `?1` JSON: rows as in [`FOUND`]; `?2` the generation.
const BY_ID: &str = "\
-- differences whose objects have left their page
UPDATE drifts SET page = NULL FROM jsonb_each(?1)
WHERE generation = ?2 AND table_name = value ->> 0 AND drifts.key = value ->> 1";

const CLEAR: &str = "\
-- rows that were listed
DELETE FROM listed_rows WHERE generation = ?1
    AND (table_name, key) IN (SELECT table_name, key FROM listed_rows WHERE generation = ?1 LIMIT ?2) RETURNING NULL";

/// `?1` the generation.
const REPORT: &str = "\
-- what a reconciliation has found
SELECT table_name, kind, state, columns, count(*) AS n FROM drifts WHERE generation = ?1 GROUP BY 1, 2, 3, 4";

const REPORTED: &str = "\
-- the report of a reconciliation
UPDATE replays SET report = ?2 WHERE id = ?1";

/// `?1` JSON: for each source an array of id, source, filter and interval in milliseconds; `?2` now; `?3` the horizon: a job planned
/// later comes from a clock that was ahead.
const SCHEDULE: &str = "\
-- reconciliations that are due
INSERT INTO replays (
    id, kind, filter, state, rate, reason, planned_by, planned_at, run_by, started_at, due_at, generation
)
SELECT value ->> 0, 'reconcile', value -> 2, 'running', 1000, 'scheduled', 'hookmill', ?2, 'hookmill', ?2, ?2,
    (SELECT coalesce(max(generation), 0) FROM replays WHERE generation > 0) + row_number() OVER ()
FROM jsonb_each(?1) WHERE NOT EXISTS (
    SELECT 1 FROM replays WHERE state IN ('running', 'paused') AND kind = 'reconcile' AND planned_by = 'hookmill'
        AND filter ->> 'source' = value ->> 1
) AND NOT EXISTS (
    SELECT 1 FROM replays WHERE planned_at > ?2 - (value ->> 3) AND planned_at <= ?3 AND kind = 'reconcile'
        AND planned_by = 'hookmill' AND filter ->> 'source' = value ->> 1
)
ON CONFLICT DO NOTHING";

/// The number of objects of each list that a scheduled reconciliation compares.
const SAMPLE: u32 = 1_000;

/// The statement that starts the scheduled reconciliations that are due. `every`: by source, the time between two reconciliations.
/// `None` if it is empty.
pub fn schedule(every: &BTreeMap<String, Duration>, now: Timestamp) -> Option<Statement> {
    let row = |(source, every): (&String, &Duration)| {
        let (source, sample) = (source.clone(), Some(SAMPLE));
        let filter = ReconcileFilter { source, sample, ..ReconcileFilter::default() };
        let id = job_id(JobKind::Reconcile, &filter, "hookmill", now);
        (id, filter.source.clone(), filter, u64::try_from(every.as_millis()).unwrap_or(u64::MAX))
    };
    let rows: Vec<_> = every.iter().map(row).collect();
    let params = params![Param::json(&rows), now, now.horizon(Duration::ZERO)];
    (!rows.is_empty()).then(|| Statement::new(SCHEDULE, params))
}

/// Records new differences. `page`: `None` to request the objects by id.
pub fn found(
    generation: u32,
    (list, page): (&str, Option<&str>),
    drifts: &[Drift],
    state: DriftState,
) -> Vec<Statement> {
    let rest = params![generation, list, page, state.as_str()];
    with(FOUND, drifts, rest)
}

/// Asks which page or object to request next: [`Next`].
pub fn next(generation: u32) -> Statement {
    Statement::new(NEXT, params![generation])
}

/// What to request next.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Next {
    /// The name of the list.
    pub list: String,
    /// The page; none if the object is requested by its id.
    pub page: Option<String>,
    /// The object.
    pub object: String,
}

impl Next {
    /// Asks for its differences: [`Drift`].
    pub fn drifts(&self, generation: u32) -> Statement {
        let object = self.page.is_none().then_some(&self.object);
        Statement::new(OF, params![generation, self.page.as_ref(), object])
    }
}

/// Records the state of differences.
pub fn settle(generation: u32, drifts: &[Drift], state: DriftState) -> Vec<Statement> {
    with(SETTLE, drifts, params![generation, state.as_str()])
}

/// Removes differences of rows that match.
pub fn none(generation: u32, drifts: &[Drift]) -> Vec<Statement> {
    with(NONE, drifts, params![generation])
}

/// Makes the next steps request the objects of these differences by id.
pub fn by_id(generation: u32, drifts: &[Drift]) -> Vec<Statement> {
    with(BY_ID, drifts, params![generation])
}

fn with(sql: &str, drifts: &[Drift], rest: Vec<Param>) -> Vec<Statement> {
    let mut statements = Statement::for_each(sql, drifts.iter().map(Drift::row));
    for statement in &mut statements {
        statement.params.extend(rest.iter().cloned());
    }
    statements
}

/// Removes some of the rows that were listed. Returns a row for each.
pub fn clear(generation: u32) -> Statement {
    Statement::new(CLEAR, params![generation, CLEARED])
}

/// Counts the differences: [`Count`].
pub fn count(generation: u32) -> Statement {
    Statement::new(REPORT, params![generation])
}

/// A number of differences.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Count {
    /// The table.
    #[serde(rename = "table_name")]
    pub table: String,
    /// Their kind.
    pub kind: DriftKind,
    /// Their state.
    pub state: DriftState,
    /// The columns that differ.
    #[serde(deserialize_with = "json")]
    pub columns: Vec<String>,
    /// Their number.
    pub n: u64,
}

/// Records the report: JSON.
pub fn report(id: &str, report: &str) -> Statement {
    Statement::new(REPORTED, params![id, report])
}
