//! The pipeline's status, for metrics and alerts.

use hookmill_core::limits::COUNTED;
use hookmill_core::params;
use hookmill_core::queue::Backlog;
use hookmill_core::store::{Row, Statement, StoreError, read_json};
use hookmill_core::time::Timestamp;
use serde::Deserialize;

/// The pipeline's status, from the tables.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub struct PipelineStatus {
    /// The longest time from ingress to the tables in the last five minutes, in seconds. An event that is being retried, and
    /// the oldest message of a [backlog](Self::with_backlog), count with the time that they have waited so far.
    pub lag: f64,
    /// Events that are being retried; counted up to [`COUNTED`].
    pub retrying: i64,
    /// The time since the oldest of them was received, in seconds; zero without such events.
    pub oldest_retrying: f64,
    /// The last error of an event that is being retried: of the one that failed last.
    pub retrying_error: Option<String>,
    /// Dead letters that wait for an operator, by reason; at most [`COUNTED`] in total.
    pub dead_letters: Vec<(String, i64)>,
    /// The time since the first failure of the oldest dead letter, in seconds; zero without dead letters.
    pub oldest_dead_letter: f64,
    /// Pending messages, by channel; counted up to [`COUNTED`].
    pub outbox: Vec<(String, i64)>,
    /// The progress of sweeps.
    pub sweeps: Vec<SweepStatus>,
    /// Reconciliations that found differences and are the last of their scope, and scheduled ones that are paused.
    pub drifts: Vec<DriftStatus>,
    /// The letters of running and paused replays: `total`, and `sent`.
    pub replays: Vec<(String, i64)>,
    /// The size of the database in bytes, if the store [knows it](hookmill_core::store::Store::size).
    #[serde(skip)]
    pub database: Option<u64>,
}

/// The progress of a source's sweeps.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct SweepStatus {
    /// The source.
    pub source: String,
    /// Hookmill has read the provider's log up to this time.
    pub swept_to: Timestamp,
    /// Why the sweep cannot go on, if it cannot.
    pub error: Option<String>,
}

/// A reconciliation that an operator has to look at.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct DriftStatus {
    /// The source.
    pub source: String,
    /// Its id.
    pub id: String,
    /// The number of rows that differ and were not repaired.
    pub rows: u64,
    /// Why it is paused, if it is.
    pub error: Option<String>,
}

impl PipelineStatus {
    /// The status, with the oldest message of a queue counted as lag.
    #[must_use]
    pub fn with_backlog(mut self, backlog: &Backlog, now: Timestamp) -> Self {
        let waited = backlog.oldest.map(|oldest| (now - oldest).as_secs_f64());
        self.lag = self.lag.max(waited.unwrap_or_default());
        self
    }

    /// The number of dead letters that wait for an operator.
    pub fn dead(&self) -> i64 {
        self.dead_letters.iter().map(|(_, count)| count).sum()
    }
}

/// `?1` now, `?2` [`COUNTED`]. Each part reads an index, or a few rows.
const STATUS: &str = "\
-- pipeline status
WITH waiting AS MATERIALIZED (SELECT received_at FROM retries WHERE due_at IS NOT NULL LIMIT ?2)
SELECT json_object(
    'lag', max(
        (SELECT coalesce(max(lag), 0) / 1000.0 FROM activity WHERE minute > ?1 / 60000 - 5),
        (SELECT coalesce((?1 - min(received_at)) / 1000.0, 0) FROM waiting)
    ),
    'retrying', (SELECT count(*) FROM waiting),
    'oldest_retrying', (SELECT coalesce((?1 - min(received_at)) / 1000.0, 0) FROM waiting),
    'retrying_error', (
        SELECT failures ->> '$[#-1].error' FROM retries WHERE due_at IS NOT NULL ORDER BY updated_at DESC LIMIT 1
    ),
    'oldest_dead_letter', (SELECT coalesce((?1 - min(first_failed_at)) / 1000.0, 0)
        FROM dead_letters INDEXED BY dead_letters_oldest WHERE state = 'dead'),
    'dead_letters', json((SELECT json_group_array(json_array(reason, n)) FROM (
        SELECT reason, count(*) AS n FROM (
            SELECT reason FROM dead_letters WHERE state = 'dead' LIMIT ?2
        ) GROUP BY reason))),
    'outbox', json((SELECT json_group_array(json_array(channel, n)) FROM (
        SELECT channel, sum(n) AS n FROM (
            SELECT channel, count(*) AS n FROM (
                SELECT channel FROM outbox WHERE state = 'pending' LIMIT ?2
            ) GROUP BY channel
            UNION ALL
            SELECT channel, json_array_length(members) FROM (
                SELECT channel, members FROM outbox_batches WHERE state IN ('sealed', 'sending') LIMIT ?2
            )
        ) GROUP BY channel))),
    'sweeps', json((SELECT json_group_array(json_object('source', source, 'swept_to', swept_to, 'error', error)) FROM sweeps)),
    'drifts', json((SELECT json_group_array(json_object('source', source, 'id', id, 'rows', rows, 'error', error)) FROM (
        SELECT filter ->> 'source' AS source, id, NULL AS error, max(ended_at), (
            SELECT coalesce(sum(coalesce(value ->> 'missing', 0) + coalesce(value ->> 'extra', 0)
                + coalesce(value ->> 'different', 0) + coalesce(value ->> 'deleted', 0) - coalesce(value ->> 'repaired', 0)), 0)
            FROM json_each(report, '$.tables')
        ) AS rows FROM replays INDEXED BY replays_reconciled WHERE state = 'done' AND kind = 'reconcile'
        GROUP BY 1, filter ->> 'table', filter ->> 'account', filter ->> 'sample'
        UNION ALL
        SELECT filter ->> 'source', id, error, 0, 0 FROM replays INDEXED BY replays_open
        WHERE state IN ('running', 'paused') AND state = 'paused' AND kind = 'reconcile' AND planned_by = 'hookmill' AND error IS NOT NULL
    ) WHERE rows > 0 OR error IS NOT NULL)),
    'replays', json((SELECT json_array(json_array('total', coalesce(sum(total), 0)), json_array('sent', coalesce(sum(sent), 0)))
        FROM replays WHERE state IN ('running', 'paused'))))";

/// Asks for the pipeline's status.
pub fn status(now: Timestamp) -> Statement {
    Statement::new(STATUS, params![now, COUNTED])
}

/// Reads the answer to [`status()`].
///
/// # Errors
///
/// If the database contains values that no version of Hookmill writes.
pub fn read_status(rows: &[Row]) -> Result<Option<PipelineStatus>, StoreError> {
    Ok(read_json(rows)?.pop())
}
