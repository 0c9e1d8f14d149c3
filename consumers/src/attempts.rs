//! Retries of events in the store: the failed attempts of an event, when the next one is due, and a note that processing has
//! begun. A note that is still there when the event is delivered again means that the process that wrote it ended without a
//! verdict.
//!
//! A failure that the store cannot record uses up no attempt: the store itself is away.

use std::collections::BTreeMap;

use hookmill_core::message::Envelope;
use hookmill_core::store::{Rows, Statement, StoreError};
use hookmill_core::time::Timestamp;
use serde::Deserialize;

use crate::plan::EventKey;

/// The number of failures that a row keeps: the first one, and the last ones.
const KEPT: usize = 20;

/// The failures of a row with one more, a JSON object.
fn append(failure: &str) -> String {
    format!(
        "json_insert(iif(json_array_length(failures) < {KEPT}, failures, json_remove(failures, '$[1]')), '$[#]', {failure})"
    )
}

const ASK: &str = "\
-- earlier attempts
SELECT retries.source, retries.id, retries.generation, attempts, begun FROM jsonb_each(?1)
JOIN retries
    ON retries.source = value ->> 0 AND retries.id = value ->> 1 AND retries.generation = value ->> 2";

const END: &str = "\
-- processing ended
UPDATE retries SET begun = 0, due_at = NULL WHERE (source, id, generation) IN (
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(?1)
)";

/// The earlier attempts of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Earlier {
    /// The number of recorded failures.
    pub(crate) attempts: u32,
    /// How often processing has begun without a verdict.
    pub(crate) begun: u32,
}

/// A failed attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) error: String,
    /// When the next attempt is due.
    pub(crate) due_at: Timestamp,
}

/// Notes that processing of these events begins.
pub(crate) fn begin<'e>(
    events: impl IntoIterator<Item = &'e Envelope>,
    now: Timestamp,
) -> Vec<Statement> {
    let ended = append(
        "json_object('at', retries.updated_at, 'error', 'the consumer ended without a verdict')",
    );
    let sql = format!(
        "-- processing begins
INSERT INTO retries (source, id, generation, type, received_at, attempts, failures, due_at, begun, updated_at)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, 0, '[]', value ->> 5, 1, value ->> 5 FROM jsonb_each(?1)
WHERE true
ON CONFLICT (source, id, generation) DO UPDATE SET failures = iif(begun = 0, failures, {ended}), due_at = excluded.due_at,
    begun = begun + 1, updated_at = excluded.updated_at"
    );
    let rows = events.into_iter().map(|event| {
        (&event.source, &event.id, event.generation, &event.kind, event.received_at, now)
    });
    Statement::for_each(&sql, rows)
}

/// Records the failed attempt of each of these events.
pub(crate) fn fail<'e>(
    failed: impl IntoIterator<Item = (&'e Envelope, &'e Failure)>,
    now: Timestamp,
) -> Vec<Statement> {
    let sql = format!(
        "-- failed attempts
INSERT INTO retries (source, id, generation, type, received_at, attempts, failures, due_at, begun, updated_at)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, 1,
    json_array(json_object('at', value ->> 5, 'error', value ->> 6)), value ->> 7, 0, value ->> 5 FROM jsonb_each(?1)
WHERE true
ON CONFLICT (source, id, generation) DO UPDATE SET attempts = attempts + 1, failures = {}, due_at = excluded.due_at, begun = 0,
    updated_at = excluded.updated_at",
        append("excluded.failures -> 0")
    );
    let rows = failed.into_iter().map(|(event, failure)| {
        let Failure { error, due_at } = failure;
        let Envelope { source, id, generation, kind, received_at, .. } = event;
        (source, id, generation, kind, received_at, now, error, due_at)
    });
    Statement::for_each(&sql, rows)
}

/// Asks for the earlier attempts of these events.
pub(crate) fn ask<'e>(events: impl IntoIterator<Item = &'e EventKey>) -> Vec<Statement> {
    Statement::for_each(ASK, events.into_iter().map(EventKey::row))
}

/// Reads the answer to [`ask()`].
pub(crate) fn read(rows: &[Rows]) -> Result<BTreeMap<EventKey, Earlier>, StoreError> {
    #[derive(Deserialize)]
    struct Retry {
        #[serde(flatten)]
        event: EventKey,
        #[serde(flatten)]
        earlier: Earlier,
    }
    let read = |row: &hookmill_core::store::Row| {
        row.read::<Retry>().map(|retry| (retry.event, retry.earlier))
    };
    rows.iter().flatten().map(read).collect()
}

/// Records that these events no longer wait.
pub(crate) fn end<'e>(events: impl IntoIterator<Item = &'e EventKey>) -> Vec<Statement> {
    Statement::for_each(END, events.into_iter().map(EventKey::row))
}
