//! How things stand: for metrics, and for whoever raises an alert.

use hookmill_core::limits::COUNTED;
use hookmill_core::params;
use hookmill_core::store::{Row, Statement, StoreError, read_json};
use hookmill_core::time::Timestamp;
use serde::Deserialize;

/// How things stand, as the tables say.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub struct PipelineStatus {
    /// The longest that an event took from ingress to its tables in the last five minutes, in seconds.
    pub lag: f64,
    /// Dead letters that wait for an operator, by reason; at most [`COUNTED`] in all.
    pub dead_letters: Vec<(String, i64)>,
    /// How long ago the oldest of these failed first, in seconds; zero if there is none.
    pub oldest_dead_letter: f64,
    /// What waits to be sent, by channel; counted up to [`COUNTED`].
    pub outbox: Vec<(String, i64)>,
    /// Of replays that are running or paused, how much they send: `total`, and `sent`.
    pub replays: Vec<(String, i64)>,
}

impl PipelineStatus {
    /// How many dead letters wait for somebody.
    pub fn dead(&self) -> i64 {
        self.dead_letters.iter().map(|(_, count)| count).sum()
    }
}

/// `?1` now, `?2` [`COUNTED`]. Each part reads an index, or a few rows.
const STATUS: &str = "\
-- how things stand
SELECT json_object(
    'lag', (SELECT coalesce(max(lag), 0) / 1000.0 FROM activity WHERE minute > ?1 / 60000 - 5),
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
    'replays', json((SELECT json_array(json_array('total', coalesce(sum(total), 0)), json_array('sent', coalesce(sum(sent), 0)))
        FROM replays WHERE state IN ('running', 'paused'))))";

/// Asks how things stand.
pub fn status(now: Timestamp) -> Statement {
    Statement::new(STATUS, params![now, COUNTED])
}

/// What [`status()`] was answered with.
///
/// # Errors
///
/// If the database holds what no version of ours writes.
pub fn read_status(rows: &[Row]) -> Result<Option<PipelineStatus>, StoreError> {
    Ok(read_json(rows)?.pop())
}
