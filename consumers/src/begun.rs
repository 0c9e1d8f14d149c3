//! Notes of deliveries whose handling has begun. A note that is still there when its event is delivered again says that the
//! process which wrote it ended before a verdict.

use std::collections::BTreeMap;
use std::sync::Arc;

use hookmill_core::store::{Rows, Statement};
use hookmill_core::time::Timestamp;

use crate::plan::EventKey;

const BEGIN: &str = "\
-- deliveries begin
INSERT INTO begun_deliveries (source, id, generation, times, begun_at)
SELECT value ->> 0, value ->> 1, value ->> 2, 1, value ->> 3 FROM jsonb_each(?1)
WHERE true
ON CONFLICT (source, id, generation) DO UPDATE SET times = times + 1, begun_at = excluded.begun_at";

const ASK: &str = "\
-- which deliveries have begun before
SELECT begun.source, begun.id, begun.generation, begun.times FROM jsonb_each(?1)
JOIN begun_deliveries AS begun
    ON begun.source = value ->> 0 AND begun.id = value ->> 1 AND begun.generation = value ->> 2";

const END: &str = "\
-- deliveries end
DELETE FROM begun_deliveries WHERE (source, id, generation) IN (
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(?1)
)";

/// Notes that the handling of these events begins.
pub(crate) fn begin(events: &[EventKey], now: Timestamp) -> Vec<Statement> {
    let rows = events.iter().map(|event| (&event.source, &event.id, event.generation, now));
    for_rows(BEGIN, rows.map(|row| serde_json::to_string(&row)))
}

/// Asks how often the handling of each of these events has begun.
pub(crate) fn ask(events: &[EventKey]) -> Vec<Statement> {
    for_rows(ASK, keys(events))
}

/// What [`ask()`] was answered with.
pub(crate) fn read(rows: &[Rows]) -> BTreeMap<EventKey, u32> {
    let read = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(source), Some(id), Some(generation), Some(times)] => {
            let (source, id, generation) = (source.clone(), id.clone(), generation.parse().ok()?);
            Some((EventKey { source, id, generation }, times.parse().ok()?))
        }
        _ => None,
    };
    rows.iter().flatten().filter_map(read).collect()
}

/// Takes the notes of these events away.
pub(crate) fn end<'e>(events: impl IntoIterator<Item = &'e EventKey>) -> Vec<Statement> {
    for_rows(END, keys(events))
}

fn keys<'e>(
    events: impl IntoIterator<Item = &'e EventKey>,
) -> impl Iterator<Item = serde_json::Result<String>> {
    let key =
        |event: &EventKey| serde_json::to_string(&(&event.source, &event.id, event.generation));
    events.into_iter().map(key)
}

fn for_rows(sql: &str, rows: impl Iterator<Item = serde_json::Result<String>>) -> Vec<Statement> {
    let rows: Vec<_> = rows.map(|row| row.expect("texts and numbers serialise")).collect();
    Statement::for_rows(&Arc::from(sql), rows.iter().map(String::as_str))
}
