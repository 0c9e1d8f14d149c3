//! Bodies in the object store and the rows that refer to them.
//!
//! The message of an event and its dead letters of every generation refer to the same object: the column `body_key` of
//! `event_messages` and `dead_letters` holds the key. An object is deleted after the last of these rows is removed.
//!
//! Messages on a queue refer to bodies too, but no table shows them. So there are two ways to delete a body, and each is
//! safe in any order with a process that writes a row or sends a message at the same time:
//!
//! - **A row is removed** ([`stale`]). Its transaction notes the key in `stale_bodies`. After [`GRACE`],
//!   [`sweep()`](crate::sweep()) asks whether a row refers to the body, and deletes the object if none does. That finds
//!   letters and kept messages that were written meanwhile; their own removal notes the key again. A replay or a
//!   reprocessing has this time to become a row or to take effect. A crash before the deletion leaves the note.
//! - **An event is acknowledged** ([`unreferenced`]). The object is deleted at once, if no row and no note has its key.
//!
//! A provider that sends an event again stores its body first, so a deleted body returns. But a delivery that stored its
//! body before the deletion and is on the queue after it has none. If the ledger has the event, the delivery is a
//! duplicate. If not, it becomes a dead letter that says so. That requires an event whose letter was removed before the
//! event took effect, and that the provider sends again near the end of the day.
//!
//! Ingress stores a body before it sends the message. If the queue refuses the message and the provider does not send the
//! event again, nothing refers to the body. [`remove_unsent`](crate::unsent::remove_unsent) searches for such bodies.

use std::time::Duration;

use hookmill_core::params;
use hookmill_core::store::{self, Param, Statement};
use hookmill_core::time::Timestamp;
use serde::Deserialize;

/// The time for which a body stays after its last row was removed. It is longer than a message stays on a queue, unless
/// consumers are down the whole time.
pub(crate) const GRACE: Duration = Duration::from_secs(24 * 3600);

/// `{rows}` is a query with the column `body_key`, `{due_at}` the parameter after the query's own.
const STALE: &str = "\
-- note bodies of removed rows
INSERT INTO stale_bodies (key, due_at)
SELECT body_key, {due_at} FROM ({rows}) WHERE body_key IS NOT NULL
ON CONFLICT (key) DO UPDATE SET due_at = excluded.due_at";

/// `?1` now, `?2` the maximum number of rows. `referred` is `1` if a row refers to the body.
const DUE: &str = "\
-- stale bodies
SELECT key, EXISTS (SELECT 1 FROM dead_letters WHERE body_key = key) OR EXISTS (SELECT 1 FROM event_messages WHERE body_key = key) AS referred
FROM stale_bodies WHERE due_at <= ?1 ORDER BY due_at LIMIT ?2";

/// `?1` JSON: keys, `?2` now. A key that was noted again meanwhile stays.
const LOOKED_AT: &str = "\
-- forget stale bodies
DELETE FROM stale_bodies WHERE key IN (SELECT value FROM jsonb_each(?1)) AND due_at <= ?2";

const UNREFERENCED: &str = "\
-- bodies without rows
SELECT body.value AS key FROM jsonb_each(?1) AS body
WHERE NOT EXISTS (SELECT 1 FROM dead_letters WHERE body_key = body.value)
    AND NOT EXISTS (SELECT 1 FROM event_messages WHERE body_key = body.value)
    AND NOT EXISTS (SELECT 1 FROM stale_bodies WHERE stale_bodies.key = body.value)";

/// Notes the bodies of rows that are removed or get another message, in the same transaction. `rows` is a query for their
/// `body_key`, with its parameters.
pub(crate) fn stale(rows: &str, mut params: Vec<Param>, now: Timestamp) -> Statement {
    params.push((now + GRACE).into());
    let due_at = format!("?{}", params.len());
    Statement::new(STALE.replace("{due_at}", &due_at).replace("{rows}", rows), params)
}

/// A body that has lost a row: the answer to [`due`].
#[derive(Deserialize)]
pub(crate) struct Stale {
    pub(crate) key: String,
    /// Whether a row refers to it.
    #[serde(deserialize_with = "store::flag")]
    pub(crate) referred: bool,
}

/// Asks for stale bodies that are due.
pub(crate) fn due(limit: usize, now: Timestamp) -> Statement {
    Statement::new(DUE, params![now, limit])
}

/// Forgets stale bodies that were due and have been handled.
pub(crate) fn looked_at(keys: &[String], now: Timestamp) -> Statement {
    Statement::new(LOOKED_AT, params![Param::json(keys), now])
}

/// A body without a row: the answer to [`unreferenced`].
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Unreferenced {
    /// Its key in the object store.
    pub key: String,
}

/// Asks which of these bodies no row refers to. Their objects can be deleted once their events are acknowledged.
///
/// By then the events are in the ledger, or no rule matches them. So another delivery of them needs no body, and gets no
/// letter that refers to it. A reprocessing has another generation in the ledger, but its message comes from a row of
/// `event_messages`, which exists or has left a note.
pub fn unreferenced(keys: &[String]) -> Vec<Statement> {
    Statement::for_each(UNREFERENCED, keys)
}
