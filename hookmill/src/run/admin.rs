//! The admin API's platform on this machine.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hookmill_admin::auth::GuardMemory;
use hookmill_admin::{Platform, QueueBacklog};
use hookmill_config::Admin as Config;
use hookmill_core::queue::{Backlog, Queue as _, QueueError};
use hookmill_core::store::{Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_dlq::PipelineStatus;
use hookmill_native::{
    Bodies, HttpClient, QueueName, Reader, Sqlite, SqliteQueue, StatusMetrics, now, queue_backlogs,
};
use tokio::sync::Notify;

/// The admin API's platform.
pub struct AdminPlatform<S> {
    pub store: S,
    pub bodies: Bodies,
    /// `None` for commands on the data folder, which redact nothing.
    pub config: Option<Config>,
    /// The queues.
    pub queues: Queues,
    /// The parts that run in this process. Those in another process check for work every few seconds.
    pub running: Option<Running>,
    /// Of the guard, which commands on the data folder do not pass.
    pub memory: GuardMemory,
}

/// The queues: those of this process, or those of a data folder.
pub enum Queues {
    Running(SqliteQueue),
    Folder(Reader),
}

/// The parts of the pipeline that the API uses.
pub struct Running {
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

    fn backlogs(&self) -> BoxFuture<'_, Vec<QueueBacklog>> {
        Box::pin(async {
            match &self.queues {
                Queues::Running(queue) => backlogs(queue).await.unwrap_or_default(),
                Queues::Folder(reader) => {
                    let named = |(name, Backlog { messages, oldest }): (QueueName, Backlog)| {
                        QueueBacklog { queue: name.prefix(), messages, oldest }
                    };
                    let found = reader.queue(|database| queue_backlogs(database));
                    found.unwrap_or_default().into_iter().map(named).collect()
                }
            }
        })
    }

    fn size(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(self.store.size())
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

/// The messages on each queue.
async fn backlogs(queue: &SqliteQueue) -> Result<Vec<QueueBacklog>, QueueError> {
    let mut backlogs = Vec::new();
    for name in QueueName::ALL {
        let Backlog { messages, oldest } = queue.sender(name).backlog().await?;
        backlogs.push(QueueBacklog { queue: name.prefix(), messages, oldest });
    }
    Ok(backlogs)
}

/// The pipeline's status, for metrics; `None` if the database fails.
pub async fn status(store: Sqlite, queue: SqliteQueue) -> Option<StatusMetrics> {
    let now = now();
    let rows = store.query(vec![hookmill_dlq::status(now)]).await.ok()?;
    let mut found = hookmill_dlq::read_status(rows.first()?).ok()??;
    let mut queues = Vec::new();
    for QueueBacklog { queue, messages, oldest } in backlogs(&queue).await.ok()? {
        if queue == QueueName::Events.prefix() {
            found = found.with_backlog(&Backlog { messages, oldest }, now);
        }
        let waited = oldest.map(|oldest| (now - oldest).as_secs_f64()).unwrap_or_default();
        queues.push((queue.to_owned(), i64::try_from(messages).unwrap_or(i64::MAX), waited));
    }
    let PipelineStatus {
        lag,
        retrying,
        oldest_retrying,
        retrying_error: _,
        dead_letters,
        oldest_dead_letter,
        outbox,
        replays,
        sweeps: _,
        drifts: _,
        database: _,
    } = found;
    Some(StatusMetrics {
        queues,
        lag,
        retrying,
        oldest_retrying,
        dead_letters,
        oldest_dead_letter,
        outbox,
        replays,
        database: i64::try_from(store.size().await?).unwrap_or(i64::MAX),
    })
}
