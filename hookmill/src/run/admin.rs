//! The admin API's platform on this machine.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hookmill_admin::Platform;
use hookmill_admin::auth::GuardMemory;
use hookmill_config::Admin as Config;
use hookmill_core::store::{Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_native::{Bodies, HttpClient, QueueName, Sqlite, SqliteQueue, StatusMetrics, now};
use tokio::sync::Notify;

/// The limit for counting waiting messages.
const COUNTED: usize = 1_000_000;

/// The admin API's platform.
pub struct AdminPlatform<S> {
    pub store: S,
    pub bodies: Bodies,
    /// `None` for commands on the data folder, which redact nothing.
    pub config: Option<Config>,
    /// The parts that run in this process. Those in another process check for work every few seconds.
    pub running: Option<Running>,
    /// Of the guard, which commands on the data folder do not pass.
    pub memory: GuardMemory,
}

/// The parts of the pipeline that the API uses.
pub struct Running {
    pub queue: SqliteQueue,
    pub client: HttpClient,
    /// Notified when there is something to replay or to send again.
    pub replay_requested: Arc<Notify>,
    /// Wakes the jobs that send.
    pub written: Arc<Notify>,
}

impl<S: Store + 'static> Platform for AdminPlatform<S> {
    fn execute(&self, statements: Vec<Statement>) -> BoxFuture<'_, Result<Vec<Rows>, StoreError>> {
        Box::pin(self.store.execute(statements))
    }

    fn query(&self, statements: Vec<Statement>) -> BoxFuture<'_, Result<Vec<Rows>, StoreError>> {
        Box::pin(self.store.query(statements))
    }

    fn object<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, String>> {
        Box::pin(async { self.bodies.get(key).await.map_err(|error| error.to_string()) })
    }

    fn wake(&self) -> BoxFuture<'_, ()> {
        if let Some(running) = &self.running {
            running.replay_requested.notify_one();
            running.written.notify_waiters();
        }
        Box::pin(std::future::ready(()))
    }

    fn waiting(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async {
            let queue = &self.running.as_ref()?.queue;
            let waiting = queue.waiting(QueueName::Events, COUNTED).await;
            waiting.ok().map(|count| count as u64)
        })
    }

    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async {
            let Some(running) = &self.running else {
                return Err("no pipeline runs here".to_owned());
            };
            running.client.get(url).await.map_err(|error| error.to_string())
        })
    }

    fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    fn memory(&self) -> &GuardMemory {
        &self.memory
    }

    fn now(&self) -> Timestamp {
        now()
    }
}

/// The pipeline's status, for metrics; `None` if the database fails.
pub async fn status(store: Sqlite, queue: SqliteQueue) -> Option<StatusMetrics> {
    let mut waiting = Vec::new();
    for (name, lane) in [("events", QueueName::Events), ("replays", QueueName::Replays)] {
        let count = queue.waiting(lane, COUNTED).await.ok()?;
        waiting.push((name.to_owned(), i64::try_from(count).unwrap_or(i64::MAX)));
    }
    let rows = store.query(vec![hookmill_dlq::status(now())]).await.ok()?;
    let found = hookmill_dlq::read_status(rows.first()?).ok()??;
    let hookmill_dlq::PipelineStatus { lag, dead_letters, oldest_dead_letter, outbox, replays } =
        found;
    Some(StatusMetrics { waiting, lag, dead_letters, oldest_dead_letter, outbox, replays })
}
