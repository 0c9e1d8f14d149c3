//! Bodies in the object store and the rows that refer to them.
//!
//! The message of an event and its dead letters of every generation refer to the same object: the column `body_key` of
//! `event_messages` and `dead_letters` holds the key. An object is deleted when the last of these rows is gone.
//!
//! Messages on a queue refer to bodies too, and SQL does not see them. So there are two ways to delete a body, and each is safe
//! in any order with a process that writes a row or sends a message at the same time:
//!
//! - **A row is removed** ([`stale`]). Its transaction notes the key in `stale_bodies`. After [`GRACE`],
//!   [`sweep()`](crate::sweep()) asks whether a row refers to the body, and deletes the object if none does. A letter that is
//!   written, or a message that is kept, while the row is removed is found then; its own removal notes the key again. A replay
//!   or a reprocessing that is on its way has this time to become a row or to take effect. A process that dies before it
//!   deletes the object leaves the note.
//! - **An event is acknowledged** ([`unreferenced`]). The object is deleted at once, if no row and no note has its key.
//!
//! A provider that sends an event again puts its body first, so a body that was deleted is there again. But a delivery that put
//! its body before the deletion and is on the queue after it finds none. If the ledger has the event, it is a duplicate. If not,
//! it becomes a dead letter that says so: that takes an event whose letter was removed before it took effect, and that is sent
//! again when the day is about to end.

use std::sync::Arc;
use std::time::Duration;

use hookmill_core::store::Statement;
use hookmill_core::time::Timestamp;

use crate::replay::{json, statement};

/// How long a body stays after a row that referred to it is gone: longer than a message is on a queue, unless a consumer was
/// down all the time.
pub(crate) const GRACE: Duration = Duration::from_secs(24 * 3600);

/// `{rows}` is a query whose column `body_key` says which bodies, `{due_at}` the parameter behind its own.
const STALE: &str = "\
-- bodies that lose a row
INSERT INTO stale_bodies (key, due_at)
SELECT body_key, CAST({due_at} AS INTEGER) FROM ({rows}) WHERE body_key IS NOT NULL
ON CONFLICT (key) DO UPDATE SET due_at = excluded.due_at";

/// `?1` now, `?2` at most so many. Whether a row refers to it: `1` or `0`.
const DUE: &str = "\
-- stale bodies
SELECT key, EXISTS (SELECT 1 FROM dead_letters WHERE body_key = key) OR EXISTS (SELECT 1 FROM event_messages WHERE body_key = key)
FROM stale_bodies WHERE due_at <= CAST(?1 AS INTEGER) ORDER BY due_at LIMIT CAST(?2 AS INTEGER)";

/// `?1` JSON: keys, `?2` now. One that was noted again since then stays.
const LOOKED_AT: &str = "\
-- stale bodies that were looked at
DELETE FROM stale_bodies WHERE key IN (SELECT value FROM jsonb_each(?1)) AND due_at <= CAST(?2 AS INTEGER)";

const UNREFERENCED: &str = "\
-- bodies that nothing refers to
SELECT body.value FROM jsonb_each(?1) AS body
WHERE NOT EXISTS (SELECT 1 FROM dead_letters WHERE body_key = body.value)
    AND NOT EXISTS (SELECT 1 FROM event_messages WHERE body_key = body.value)
    AND NOT EXISTS (SELECT 1 FROM stale_bodies WHERE stale_bodies.key = body.value)";

/// Notes the bodies of rows that are removed, or get another message, in the same transaction. `rows` is a query for their
/// `body_key`, with its parameters.
pub(crate) fn stale(rows: &str, mut params: Vec<String>, now: Timestamp) -> Statement {
    params.push((now + GRACE).millis().to_string());
    let due_at = format!("?{}", params.len());
    statement(&STALE.replace("{due_at}", &due_at).replace("{rows}", rows), params)
}

/// Asks for stale bodies that are due: the key, and `1` if a row refers to it.
pub(crate) fn due(most: usize, now: Timestamp) -> Statement {
    statement(DUE, vec![now.millis().to_string(), most.to_string()])
}

/// Forgets stale bodies that were due and have been looked at.
pub(crate) fn looked_at(keys: &[&str], now: Timestamp) -> Statement {
    statement(LOOKED_AT, vec![json(&keys), now.millis().to_string()])
}

/// Asks which of these bodies nothing in the database refers to: the keys of those can be deleted, once their events are
/// acknowledged.
///
/// By then the events are in the ledger, or no rule reads them. So another delivery of them needs no body, and gets no letter
/// that refers to it. A reprocessing is known to the ledger under another generation; but its message comes from a row of
/// `event_messages`, which is there, or has left a note that it is gone.
pub fn unreferenced(keys: &[String]) -> Vec<Statement> {
    let keys: Vec<_> = keys.iter().map(json).collect();
    Statement::for_rows(&Arc::from(UNREFERENCED), keys.iter().map(String::as_str))
}
