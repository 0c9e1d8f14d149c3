//! Removes bodies that belong to no message. Ingress stores a large body before it sends its message; if the queue refuses the
//! message and the provider does not send the event again, no row and no message refers to the body.
//!
//! No table knows these bodies, so the search lists the whole object store, part by part, once a day. It removes a body only
//! if no row and no note has its key, and it is older than any message on a queue can be.

use std::time::Duration;

use hookmill_core::objects::{Objects, StoredObject};
use hookmill_core::params;
use hookmill_core::queue::{Backlog, Queue};
use hookmill_core::store::{Statement, Store, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use serde::Deserialize;

use crate::bodies::{Unreferenced, unreferenced};

/// Cloudflare keeps a message for at most fourteen days on a queue, and then for as long on its dead-letter queue.
///
/// Source: <https://developers.cloudflare.com/queues/platform/limits/>.
const AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// More than the time between the storage of a body and the acceptance of its message.
const MARGIN: Duration = Duration::from_secs(3600);
/// The time between two steps, so that other transactions come between.
const NEXT: Duration = Duration::from_millis(100);
/// The same after the queue or the object store has failed.
const RETRY: Duration = Duration::from_secs(10);
/// The time between two searches.
const PAUSE: Duration = Duration::from_secs(24 * 3600);

const REACHED: &str = "\
-- search for bodies
SELECT reached, due_at FROM body_search WHERE one = 1";

/// `?1` the last key, `?2` when to go on.
const STEPPED: &str = "\
-- searched for bodies
INSERT INTO body_search (one, reached, due_at) VALUES (1, ?1, ?2)
ON CONFLICT (one) DO UPDATE SET reached = excluded.reached, due_at = excluded.due_at";

/// The progress of the search: the answer to [`REACHED`].
#[derive(Deserialize)]
struct Reached {
    reached: String,
    due_at: Timestamp,
}

/// The result of a step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Searched {
    /// The number of removed bodies.
    pub removed: usize,
    /// When the next step is due, if the search is not at its end.
    pub next: Option<Timestamp>,
}

/// Does a step of the search, if one is due. If the queue or the object store fails, a later step tries again.
///
/// # Errors
///
/// If the store fails.
pub async fn remove_unsent<S: Store, O: Objects, Q: Queue>(
    store: &S,
    objects: &O,
    queue: &Q,
    now: Timestamp,
) -> Result<Searched, StoreError> {
    let rows = store.query(vec![Statement::new(REACHED, Vec::new())]).await?;
    let after = match read::<Reached>(answer(&rows, 0))?.pop() {
        // A later time comes from a clock that was ahead.
        Some(Reached { due_at, .. }) if due_at > now && due_at <= now.horizon(PAUSE) => {
            return Ok(Searched::default());
        }
        Some(Reached { reached, .. }) => reached,
        None => String::new(),
    };
    let (Ok(Backlog { oldest, .. }), Ok(listed)) =
        (queue.backlog().await, objects.list(&after).await)
    else {
        return Ok(Searched { removed: 0, next: Some(now + RETRY) });
    };
    // On this machine, a message may wait for longer than on Cloudflare.
    let oldest = oldest.map(|oldest| oldest - MARGIN);
    let before = oldest.into_iter().chain([now - AGE]).min().unwrap_or(now - AGE);
    let is_old = |object: &&StoredObject| object.stored_at < before;
    let old: Vec<_> = listed.iter().filter(is_old).map(|object| object.key.clone()).collect();
    let next = (!listed.is_empty()).then(|| now + NEXT);
    let mut searched = Searched { removed: 0, next };
    if !old.is_empty() {
        let rows = store.query(unreferenced(&old)).await?;
        for row in rows.iter().flatten() {
            let Unreferenced { key } = row.read()?;
            searched.removed += usize::from(objects.delete(&key).await.is_ok());
        }
    }
    let (reached, due_at) = match listed.last() {
        Some(last) => (last.key.as_str(), now),
        None => ("", now + PAUSE),
    };
    store.execute(vec![Statement::new(STEPPED, params![reached, due_at])]).await?;
    Ok(searched)
}
