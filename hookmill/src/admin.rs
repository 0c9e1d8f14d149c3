//! What the admin API is lent on this machine, and who replays.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hookmill_admin::Platform;
use hookmill_core::objects::Objects as _;
use hookmill_core::store::{Rows, Statement, Store as _, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_dlq::replay::{Stepped, step};
use hookmill_native::{Files, QueueName, Sqlite, SqliteQueue, now};
use tokio::sync::{Notify, watch};
use tracing::{debug, error, warn};

/// The longest time without a look for replays.
const LOOK: Duration = Duration::from_secs(2);
/// How long to wait after the store did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// The most waiting messages that are counted.
const COUNTED: usize = 1_000_000;

/// What the admin API is lent.
pub struct Native {
    pub store: Sqlite,
    pub objects: Files,
    pub queue: SqliteQueue,
    /// Told when something is to be replayed, or sent once more.
    pub asked: Arc<Notify>,
    /// Whoever sends.
    pub written: Arc<Notify>,
}

impl Platform for Native {
    fn execute(&self, statements: Vec<Statement>) -> BoxFuture<'_, Result<Vec<Rows>, StoreError>> {
        Box::pin(self.store.execute(statements))
    }

    fn object<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, String>> {
        Box::pin(async { self.objects.get(key).await.map_err(|error| error.to_string()) })
    }

    fn wake(&self) -> BoxFuture<'_, ()> {
        self.asked.notify_one();
        self.written.notify_waiters();
        Box::pin(std::future::ready(()))
    }

    fn waiting(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async {
            let waiting = self.queue.waiting(QueueName::Events, COUNTED).await;
            waiting.ok().map(|count| count as u64)
        })
    }

    fn now(&self) -> Timestamp {
        now()
    }
}

/// Replays until `stopped` says so.
pub async fn replay(
    store: Sqlite,
    queue: SqliteQueue,
    asked: Arc<Notify>,
    mut stopped: watch::Receiver<bool>,
) {
    let sender = queue.sender(QueueName::Replays);
    while !*stopped.borrow() {
        let wait = match step(&store, &sender, now).await {
            Ok(Stepped { sent, error, next }) => {
                if let Some((replay, letters)) = sent {
                    debug!(replay, letters, "replayed");
                }
                if let Some(error) = error {
                    warn!(error, "a replay waits");
                }
                next.map_or(LOOK, |next| next - now()).min(LOOK)
            }
            Err(error) => {
                error!(%error, "cannot look for replays");
                PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = asked.notified() => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
}
