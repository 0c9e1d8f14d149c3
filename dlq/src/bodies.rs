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

use std::time::Duration;

use hookmill_core::params;
use hookmill_core::store::{self, Param, Statement};
use hookmill_core::time::Timestamp;
use serde::Deserialize;

/// How long a body stays after a row that referred to it is gone: longer than a message is on a queue, unless a consumer was
/// down all the time.
pub(crate) const GRACE: Duration = Duration::from_secs(24 * 3600);

/// `{rows}` is a query whose column `body_key` says which bodies, `{due_at}` the parameter behind its own.
const STALE: &str = "\
-- bodies that lose a row
INSERT INTO stale_bodies (key, due_at)
SELECT body_key, {due_at} FROM ({rows}) WHERE body_key IS NOT NULL
ON CONFLICT (key) DO UPDATE SET due_at = excluded.due_at";

/// `?1` now, `?2` at most so many. Whether a row refers to it: `1` or `0`.
const DUE: &str = "\
-- stale bodies
SELECT key, EXISTS (SELECT 1 FROM dead_letters WHERE body_key = key) OR EXISTS (SELECT 1 FROM event_messages WHERE body_key = key) AS referred
FROM stale_bodies WHERE due_at <= ?1 ORDER BY due_at LIMIT ?2";

/// `?1` JSON: keys, `?2` now. One that was noted again since then stays.
const LOOKED_AT: &str = "\
-- stale bodies that were looked at
DELETE FROM stale_bodies WHERE key IN (SELECT value FROM jsonb_each(?1)) AND due_at <= ?2";

const UNREFERENCED: &str = "\
-- bodies that nothing refers to
SELECT body.value AS key FROM jsonb_each(?1) AS body
WHERE NOT EXISTS (SELECT 1 FROM dead_letters WHERE body_key = body.value)
    AND NOT EXISTS (SELECT 1 FROM event_messages WHERE body_key = body.value)
    AND NOT EXISTS (SELECT 1 FROM stale_bodies WHERE stale_bodies.key = body.value)";

/// Notes the bodies of rows that are removed, or get another message, in the same transaction. `rows` is a query for their
/// `body_key`, with its parameters.
pub(crate) fn stale(rows: &str, mut params: Vec<Param>, now: Timestamp) -> Statement {
    params.push((now + GRACE).into());
    let due_at = format!("?{}", params.len());
    Statement::new(STALE.replace("{due_at}", &due_at).replace("{rows}", rows), params)
}

/// A body that has lost a row: what [`due`] is answered with.
#[derive(Deserialize)]
pub(crate) struct Stale {
    pub(crate) key: String,
    /// Whether a row refers to it.
    #[serde(deserialize_with = "store::flag")]
    pub(crate) referred: bool,
}

/// Asks for stale bodies that are due.
pub(crate) fn due(most: usize, now: Timestamp) -> Statement {
    Statement::new(DUE, params![now, most])
}

/// Forgets stale bodies that were due and have been looked at.
pub(crate) fn looked_at(keys: &[String], now: Timestamp) -> Statement {
    Statement::new(LOOKED_AT, params![Param::json(keys), now])
}

/// A body that nothing refers to: what [`unreferenced`] is answered with.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Unreferenced {
    /// Its key in the object store.
    pub key: String,
}

/// Asks which of these bodies nothing in the database refers to: the keys of those can be deleted, once their events are
/// acknowledged.
///
/// By then the events are in the ledger, or no rule reads them. So another delivery of them needs no body, and gets no letter
/// that refers to it. A reprocessing is known to the ledger under another generation; but its message comes from a row of
/// `event_messages`, which is there, or has left a note that it is gone.
pub fn unreferenced(keys: &[String]) -> Vec<Statement> {
    Statement::for_each(UNREFERENCED, keys)
}
