//! Notes about redelivered events: processing began. A note that is still there when the event is delivered again means
//! that the process that wrote it ended without a verdict.

use std::collections::BTreeMap;

use hookmill_core::store::{Rows, Statement, StoreError};
use hookmill_core::time::Timestamp;
use serde::Deserialize;

use crate::plan::EventKey;

const BEGIN: &str = "\
-- processing begins
INSERT INTO begun_deliveries (source, id, generation, times, begun_at)
SELECT value ->> 0, value ->> 1, value ->> 2, 1, value ->> 3 FROM jsonb_each(?1)
WHERE true
ON CONFLICT (source, id, generation) DO UPDATE SET times = times + 1, begun_at = excluded.begun_at";

const ASK: &str = "\
-- how often processing began before
SELECT begun.source, begun.id, begun.generation, begun.times FROM jsonb_each(?1)
JOIN begun_deliveries AS begun
    ON begun.source = value ->> 0 AND begun.id = value ->> 1 AND begun.generation = value ->> 2";

const END: &str = "\
-- processing ended
DELETE FROM begun_deliveries WHERE (source, id, generation) IN (
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(?1)
)";

/// Notes that processing of these events begins.
pub(crate) fn begin(events: &[EventKey], now: Timestamp) -> Vec<Statement> {
    let rows = events.iter().map(|event| (&event.source, &event.id, event.generation, now));
    Statement::for_each(BEGIN, rows)
}

/// Asks how often processing of each of these events has begun.
pub(crate) fn ask(events: &[EventKey]) -> Vec<Statement> {
    Statement::for_each(ASK, keys(events))
}

/// Reads the answer to [`ask()`].
pub(crate) fn read(rows: &[Rows]) -> Result<BTreeMap<EventKey, u32>, StoreError> {
    #[derive(Deserialize)]
    struct Begun {
        #[serde(flatten)]
        event: EventKey,
        times: u32,
    }
    let begun = rows.iter().flatten().map(|row| row.read::<Begun>().map(|it| (it.event, it.times)));
    begun.collect()
}

/// Removes the notes about these events.
pub(crate) fn end<'e>(events: impl IntoIterator<Item = &'e EventKey>) -> Vec<Statement> {
    Statement::for_each(END, keys(events))
}

fn keys<'e>(
    events: impl IntoIterator<Item = &'e EventKey>,
) -> impl Iterator<Item = (&'e str, &'e str, u32)> {
    events.into_iter().map(EventKey::row)
}
