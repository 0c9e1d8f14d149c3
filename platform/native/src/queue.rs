//! Queues on SQLite with the features of Cloudflare Queues: batches, delays, attempts, leases that expire, a dead-letter
//! queue, at-least-once delivery.
//!
//! One thread owns the database. It takes all waiting operations, executes them in one transaction, and answers when that
//! is on disk. Requests that arrive together share one commit, so durability costs one fsync for all of them. Settling a
//! batch and leasing the next one share a commit in the same way.
//!
//! A queue is two tables. `messages` is written once and read once; a message without a row in `deliveries` has never been
//! delivered. `deliveries` contains the few messages that are leased or wait for a retry, with a due date; a lease is a due
//! date in the future. A consumer that crashes leaves nothing to clean up: the message is due again when the lease ends. A
//! verdict counts only during its lease, which the number of attempts identifies. A consumer that panics drops its batch,
//! whose messages are then due again after a delay.
//!
//! A panic of the thread ends the operation that caused it, and the thread goes on: see [`SqliteQueue::panicked`].
//!
//! A damaged message does not affect others. Texts are read as bytes. Content that is not text, is missing, or is on a page
//! that SQLite cannot read is delivered as [`Unreadable`], to become a dead letter. Messages on a damaged page of
//! `messages` itself cannot be told apart: they are skipped and stay in the file. SQLite needs the other pages, those of
//! `deliveries` and inner ones; if these are damaged, receiving fails as a whole.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::limits::{BATCH_MESSAGES, NATIVE_BATCH_BYTES, PLATFORM_DELIVERIES};
use hookmill_core::message::{Unreadable, text_of};
use hookmill_core::panics::{Panicked, caught};
use hookmill_core::queue::{Backlog, Queue, QueueError};
use hookmill_core::time::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension as _, Transaction, TransactionBehavior, params,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::error;

use crate::checkpoint::{Checkpoints, spawn};
use crate::folder::FolderError;
use crate::now;
use crate::sqlite;

/// The names of queues.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum QueueName {
    /// Verified events.
    Events,
    /// Messages that were delivered [`PLATFORM_DELIVERIES`] times without a verdict.
    DeadLetters,
    /// Events of replays, which wait for new ones.
    Replays,
}

impl QueueName {
    /// Every queue.
    pub const ALL: [Self; 3] = [Self::Events, Self::DeadLetters, Self::Replays];

    /// The prefix of its tables, and its name in metrics and in the API.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::DeadLetters => "dead_letters",
            Self::Replays => "replays",
        }
    }

    /// SQL about its tables: `{q}` becomes the prefix.
    fn sql(self, sql: &str) -> String {
        sql.replace("{q}", self.prefix())
    }
}

/// The statements about one queue.
struct Sql {
    send: String,
    put_right: String,
    count: String,
    next_due: String,
    lease_again: String,
    text: String,
    new: String,
    lease_new: String,
    end: String,
    remove: String,
    oldest: String,
    keep: String,
    delay: String,
}

impl Sql {
    fn new(queue: QueueName) -> Self {
        Self {
            send: queue.sql("INSERT INTO {q}_messages (seq, sent_at, text) VALUES (?1, ?2, ?3)"),
            put_right: queue.sql(&format!(
                "UPDATE {{q}}_deliveries SET due_at = ?1
                 WHERE due_at > ?2 AND due_at < {NEVER} AND (leased = 0 OR due_at > ?3)"
            )),
            count: queue.sql(
                "SELECT count(*) FROM (
                    SELECT 1 FROM {q}_deliveries WHERE due_at <= ?1
                    UNION ALL
                    SELECT 1 FROM {q}_messages WHERE seq >= ?2
                        AND NOT EXISTS (SELECT 1 FROM {q}_deliveries WHERE {q}_deliveries.seq = {q}_messages.seq)
                    LIMIT ?3
                )",
            ),
            next_due: queue.sql("SELECT min(due_at) FROM {q}_deliveries"),
            lease_again: queue.sql(
                "UPDATE {q}_deliveries SET due_at = ?2, attempts = attempts + 1, leased = 1
                 WHERE seq IN (SELECT seq FROM {q}_deliveries WHERE due_at <= ?1 ORDER BY due_at LIMIT ?3)
                 RETURNING seq, attempts",
            ),
            text: queue.sql("SELECT text FROM {q}_messages WHERE seq = ?1"),
            new: queue.sql(
                "SELECT seq FROM {q}_messages WHERE seq >= ?1
                    AND NOT EXISTS (SELECT 1 FROM {q}_deliveries WHERE {q}_deliveries.seq = {q}_messages.seq)
                 ORDER BY seq LIMIT ?2",
            ),
            lease_new: queue
                .sql("INSERT INTO {q}_deliveries (seq, attempts, due_at, leased) VALUES (?1, 1, ?2, 1)"),
            end: queue.sql("DELETE FROM {q}_deliveries WHERE seq = ?1 AND attempts = ?2"),
            remove: queue.sql("DELETE FROM {q}_messages WHERE seq = ?1"),
            oldest: queue.sql("SELECT sent_at FROM {q}_messages ORDER BY seq LIMIT 1"),
            keep: queue.sql(&format!(
                "UPDATE {{q}}_deliveries SET due_at = {NEVER}, leased = 0 WHERE seq = ?1 AND attempts = ?2"
            )),
            delay: queue.sql(
                "UPDATE {q}_deliveries SET due_at = ?3, leased = 0 WHERE seq = ?1 AND attempts = ?2",
            ),
        }
    }
}

/// The backlog of each queue, read from its database.
///
/// # Errors
///
/// If the database cannot be read.
pub fn queue_backlogs(database: &Connection) -> rusqlite::Result<Vec<(QueueName, Backlog)>> {
    let backlog = |queue: QueueName| {
        let sql = queue.sql("SELECT count(*), (SELECT sent_at FROM {q}_messages ORDER BY seq LIMIT 1) FROM {q}_messages");
        database.query_row(&sql, [], |row| {
            let oldest: Option<i64> = row.get(1)?;
            let backlog =
                Backlog { messages: count(row)?, oldest: oldest.map(Timestamp::from_millis) };
            Ok((queue, backlog))
        })
    };
    QueueName::ALL.into_iter().map(backlog).collect()
}

/// A count in the first column.
fn count(row: &rusqlite::Row<'_>) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(0)?).unwrap_or_default())
}

/// A delivery, and the identity of its lease.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Leased {
    delivery: Delivery,
    seq: i64,
}

/// A batch that a consumer has received. When it is dropped, because its consumer panicked, its messages without a verdict
/// are due again after a delay.
pub struct Received {
    queue: SqliteQueue,
    name: QueueName,
    leased: Vec<Leased>,
}

impl Received {
    /// Whether the batch has no messages: the process is stopping.
    pub fn is_empty(&self) -> bool {
        self.leased.is_empty()
    }

    /// The deliveries, in order.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.leased.iter().map(|leased| leased.delivery.clone()).collect()
    }

    /// Applies verdicts, in the order of the deliveries. Those whose lease has ended change nothing.
    ///
    /// # Errors
    ///
    /// If the database cannot be written for half a minute; the messages are delivered again when their leases end.
    pub async fn settle(self, verdicts: Vec<Verdict>) -> Result<(), QueueError> {
        self.settle_before(verdicts).await.await
    }

    /// Like [`Received::settle`], in two steps: operations that follow the first step come after these verdicts, and the
    /// second step waits for the result.
    pub async fn settle_before(
        mut self,
        verdicts: Vec<Verdict>,
    ) -> impl Future<Output = Result<(), QueueError>> + Send + use<> {
        let settled = self.leased.drain(..verdicts.len().min(self.leased.len()));
        let verdicts = settled.zip(verdicts).collect();
        self.queue.settle_before(self.name, verdicts).await
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let retry = |leased: Leased| {
            let delay = (self.queue.retry_delay)(leased.delivery.attempts);
            (leased, Verdict::Retry { delay })
        };
        let verdicts: Vec<_> = std::mem::take(&mut self.leased).into_iter().map(retry).collect();
        if !verdicts.is_empty()
            && let Ok(runtime) = Handle::try_current()
        {
            let (queue, name) = (self.queue.clone(), self.name);
            runtime.spawn(async move {
                if let Err(error) = queue.settle_before(name, verdicts).await.await {
                    error!(%error, "cannot retry a batch; it will be delivered again when its lease ends");
                }
            });
        }
    }
}

/// The queues of one data folder.
#[derive(Clone)]
pub struct SqliteQueue {
    operations: mpsc::Sender<Operation>,
    /// For each queue: a message may have arrived.
    arrivals: Arc<[Notify; 3]>,
    trouble: Arc<Trouble>,
    /// The delay of a message without a verdict, after this number of attempts.
    retry_delay: Arc<dyn Fn(u32) -> Duration + Send + Sync>,
}

/// Problems of the thread.
#[derive(Default)]
struct Trouble {
    /// Notified when the thread has panicked.
    panicked: Notify,
    /// For each queue, whether the last attempt to receive failed.
    failing: [AtomicBool; 3],
    /// Whether the database has a damaged part.
    damaged: AtomicBool,
}

/// The page size. Ten events fit into a page, so a group's commit writes few pages.
const PAGE_BYTES: u32 = 32 * 1024;
/// The maximum number of operations that wait for the thread; beyond it, senders wait.
const WAITING: usize = 4096;
/// The maximum number of operations in one transaction.
const GROUP: usize = 1024;
/// The time that a consumer has for a batch, longer than any batch takes. If it expires nevertheless, the ledger rejects
/// the duplicates.
const LEASE: Duration = Duration::from_secs(120);
/// The time for which verdicts are tried again while the database cannot be written, for example because a backup locks it.
/// Shorter than a lease, and than the time that a service manager allows for a stop.
const SETTLING: Duration = Duration::from_secs(30);
/// The pause before verdicts are tried again.
const SETTLE_AGAIN: Duration = Duration::from_millis(200);
/// The maximum time between two attempts to receive, since the clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(60);
/// The due date of a settled message that a damaged database cannot remove.
const NEVER: i64 = i64::MAX;
/// The maximum number of messages that are skipped to get past a damaged part. A page has no more than some hundreds.
const SKIPPED: i64 = 10_000;

/// A task of the thread, and the channel for its result.
struct Operation {
    task: Task,
    answer: oneshot::Sender<Result<TaskResult, QueueError>>,
}

enum Task {
    Send {
        queue: QueueName,
        messages: Vec<String>,
    },
    Lease {
        queue: QueueName,
        limit: usize,
    },
    Settle {
        queue: QueueName,
        verdicts: Arc<[(i64, u32, Verdict)]>,
    },
    Count {
        queue: QueueName,
        limit: usize,
    },
    Backlog {
        queue: QueueName,
    },
    Check,
    #[cfg(test)]
    Panic,
}

impl Task {
    const fn sends(&self) -> bool {
        matches!(self, Self::Send { .. })
    }
}

/// The result of a task.
#[derive(Default)]
struct TaskResult {
    /// For a lease: the deliveries.
    leased: Vec<Leased>,
    /// For a lease without deliveries: the time until a message is due.
    next_due_in: Option<Duration>,
    /// For a count: the number.
    count: usize,
    /// For a backlog.
    backlog: Backlog,
    /// The queue in which a message may be due earlier than its receiver expects.
    arrived: Option<QueueName>,
}

impl SqliteQueue {
    /// Opens or creates the database, and starts its thread. The thread ends, and closes the database, once every handle is
    /// dropped.
    pub(crate) fn open(
        path: &Path,
        longest_retry: impl Fn(QueueName) -> Duration,
        retry_delay: impl Fn(u32) -> Duration + Send + Sync + 'static,
    ) -> rusqlite::Result<(Self, JoinHandle<()>)> {
        let mut database = sqlite::open(path, PAGE_BYTES)?;
        database.execute_batch("CREATE TABLE IF NOT EXISTS probe (at INTEGER NOT NULL) STRICT")?;
        for queue in QueueName::ALL {
            database.execute_batch(&queue.sql(
                "CREATE TABLE IF NOT EXISTS {q}_messages (
                    seq INTEGER PRIMARY KEY,
                    -- Milliseconds since the Unix epoch.
                    sent_at INTEGER NOT NULL,
                    text TEXT NOT NULL
                ) STRICT;
                CREATE TABLE IF NOT EXISTS {q}_deliveries (
                    seq INTEGER PRIMARY KEY,
                    attempts INTEGER NOT NULL,
                    -- Milliseconds since the Unix epoch: when it is to be delivered again.
                    due_at INTEGER NOT NULL,
                    -- Whether due_at is the end of a lease.
                    leased INTEGER NOT NULL
                ) STRICT;
                CREATE INDEX IF NOT EXISTS {q}_deliveries_due ON {q}_deliveries (due_at);",
            ))?;
            // The folder is locked, so the holders of leases have ended.
            let free =
                queue.sql("UPDATE {q}_deliveries SET due_at = ?1, leased = 0 WHERE leased = 1");
            database.execute(&free, [now().millis()])?;
        }
        let mut queues = Vec::new();
        for queue in QueueName::ALL {
            let last = database.query_row(
                &queue.sql("SELECT coalesce(max(seq), 0) FROM {q}_messages"),
                [],
                |row| row.get(0),
            )?;
            let (statements, longest_retry) = (Sql::new(queue), longest_retry(queue));
            let sql = queue.sql("SELECT count(*) FROM {q}_messages");
            queues.push(State {
                sql: statements,
                longest_retry,
                counters: Counters {
                    last,
                    // A damaged database is opened nevertheless.
                    messages: database.query_row(&sql, [], count).unwrap_or_default(),
                    delivered: 0,
                },
                unbroken: None,
                unreadable: BTreeSet::new(),
                stuck: BTreeSet::new(),
            });
        }
        let (operations, waiting) = mpsc::channel(WAITING);
        let arrivals = Arc::new([Notify::new(), Notify::new(), Notify::new()]);
        let trouble = Arc::<Trouble>::default();
        let checkpoints = Checkpoints::start(path, PAGE_BYTES, &mut database)?;
        let thread = Thread {
            database,
            queues,
            arrivals: arrivals.clone(),
            trouble: trouble.clone(),
            checkpoints,
            failed: false,
        };
        let thread = spawn("queue", move || thread.run(waiting))?;
        let retry_delay = Arc::new(retry_delay);
        Ok((Self { operations, arrivals, trouble, retry_delay }, thread))
    }

    /// The sending side of a queue.
    pub fn sender(&self, queue: QueueName) -> QueueSender {
        QueueSender { queue: self.clone(), name: queue }
    }

    /// Waits for messages and leases them: at least one and at most `limit`, gathered for at most `wait`. None once
    /// `stopped` is true; leased messages are always returned.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn receive(
        &self,
        queue: QueueName,
        limit: usize,
        wait: Duration,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<Received, QueueError> {
        let received = |leased| Received { queue: self.clone(), name: queue, leased };
        while !*stopped.borrow() {
            // Registered before the query, so that no arrival in between is missed.
            let arrival = self.arrivals[queue as usize].notified();
            let found = self.look(queue, limit, wait, stopped).await;
            self.trouble.failing[queue as usize].store(found.is_err(), Ordering::Relaxed);
            let found = found?;
            if !found.leased.is_empty() {
                return Ok(received(found.leased));
            }
            let due =
                tokio::time::timeout(found.next_due_in.map_or(LOOK, |due| due.min(LOOK)), arrival);
            tokio::select! {
                _ = due => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        }
        Ok(received(Vec::new()))
    }

    /// Leases messages once `limit` are waiting, or after `wait`.
    async fn look(
        &self,
        queue: QueueName,
        limit: usize,
        wait: Duration,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<TaskResult, QueueError> {
        if !wait.is_zero() {
            match self.ask(Task::Count { queue, limit }).await {
                Ok(found) if found.count == 0 => return Ok(found),
                Ok(_) => tokio::select! {
                    () = self.gather(queue, limit, wait) => {}
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                },
                // Leasing gets past a damaged part; counting does not.
                Err(_) => {}
            }
        }
        self.ask(Task::Lease { queue, limit }).await
    }

    /// Returns when `limit` messages are waiting, or after `wait`.
    async fn gather(&self, queue: QueueName, limit: usize, wait: Duration) {
        let full = async {
            loop {
                let arrival = self.arrivals[queue as usize].notified();
                let found = self.ask(Task::Count { queue, limit }).await;
                if found.is_ok_and(|found| found.count >= limit) {
                    return;
                }
                arrival.await;
            }
        };
        // After the wait, a batch that is not full is leased too.
        let _ = tokio::time::timeout(wait, full).await;
    }

    /// Gives verdicts to the thread; the returned future waits for the result. See [`Received::settle_before`].
    async fn settle_before(
        &self,
        queue: QueueName,
        verdicts: Vec<(Leased, Verdict)>,
    ) -> impl Future<Output = Result<(), QueueError>> + Send + use<> {
        let verdicts: Arc<[_]> = verdicts
            .into_iter()
            .map(|(leased, verdict)| (leased.seq, leased.delivery.attempts, verdict))
            .collect();
        let task = move || Task::Settle { queue, verdicts: verdicts.clone() };
        let first = self.start(task()).await;
        let again = self.clone();
        async move {
            let since = Instant::now();
            let mut answer = first.await;
            while answer.is_err() && since.elapsed() < SETTLING && !again.operations.is_closed() {
                tokio::time::sleep(SETTLE_AGAIN).await;
                answer = again.ask(task()).await;
            }
            answer.map(drop)
        }
    }

    /// The number of due messages, counted up to `limit`.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn waiting(&self, queue: QueueName, limit: usize) -> Result<usize, QueueError> {
        self.ask(Task::Count { queue, limit }).await.map(|result| result.count)
    }

    /// Whether the database answers and can write. It writes only if its last write failed, so frequent checks cause no
    /// load.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub async fn check(&self) -> Result<(), QueueError> {
        self.ask(Task::Check).await.map(drop)
    }

    /// A sentence about a problem that prevents receiving; none if there is none. Sending still works.
    pub fn problem(&self) -> Option<&'static str> {
        let Trouble { failing, damaged, .. } = &*self.trouble;
        if failing.iter().any(|failing| failing.load(Ordering::Relaxed)) {
            Some("messages cannot be received from the queue; the log says why")
        } else if damaged.load(Ordering::Relaxed) {
            Some(
                "a part of queue.db is damaged; the log and the dead letters say which messages are not delivered",
            )
        } else {
            None
        }
    }

    /// Logs damage that was found by reading the database, and lets [`SqliteQueue::problem`] say so.
    pub(crate) fn report_damage(&self, damage: &FolderError) {
        self.trouble.damaged.store(true, Ordering::Relaxed);
        error!(error = %damage, "messages may be lost; those that can be read are delivered");
    }

    /// Returns when the queue's thread has panicked. It goes on, and the callers of its operations got an error.
    pub async fn panicked(&self) {
        tokio::select! {
            () = self.trouble.panicked.notified() => {}
            // Not expected: every panic is caught.
            () = self.operations.closed() => {}
        }
    }

    async fn ask(&self, task: Task) -> Result<TaskResult, QueueError> {
        self.start(task).await.await
    }

    /// Gives a task to the thread, which executes its tasks in order. The returned future waits for the result.
    async fn start(
        &self,
        task: Task,
    ) -> impl Future<Output = Result<TaskResult, QueueError>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let sent = self.operations.send(Operation { task, answer }).await;
        async move {
            sent.map_err(|_| QueueError("the queue's thread has ended".into()))?;
            answered.await.map_err(|_| QueueError(Panicked.to_string()))?
        }
    }
}

/// The sending side of one queue.
#[derive(Clone)]
pub struct QueueSender {
    queue: SqliteQueue,
    name: QueueName,
}

impl Queue for QueueSender {
    async fn send(&self, messages: Vec<String>) -> Result<(), QueueError> {
        self.queue.ask(Task::Send { queue: self.name, messages }).await.map(drop)
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        let task = Task::Backlog { queue: self.name };
        self.queue.ask(task).await.map(|result| result.backlog)
    }
}

/// The thread's knowledge about a queue, besides its tables.
struct State {
    sql: Sql,
    /// The maximum delay of a verdict.
    longest_retry: Duration,
    counters: Counters,
    /// The number of new messages before a damaged part, if one is known.
    unbroken: Option<usize>,
    /// Messages whose texts are damaged.
    unreadable: BTreeSet<i64>,
    /// Messages that cannot be removed.
    stuck: BTreeSet<i64>,
}

/// The part of that knowledge that a transaction changes.
#[derive(Clone, Copy)]
struct Counters {
    /// The last number of a message. No number is assigned twice in the life of a process, so that a late verdict cannot
    /// affect another message.
    last: i64,
    /// The number of messages in its table.
    messages: u64,
    /// Every message up to this one has been delivered, so that new ones are found without a search.
    delivered: i64,
}

/// The thread that owns the database.
struct Thread {
    // Dropped before the database, so that the writer's connection is the last one and removes the log.
    checkpoints: Checkpoints,
    database: Connection,
    /// In the order of [`QueueName::ALL`].
    queues: Vec<State>,
    arrivals: Arc<[Notify; 3]>,
    trouble: Arc<Trouble>,
    /// Whether the last writing transaction failed.
    failed: bool,
}

impl Thread {
    /// Runs until every handle is dropped.
    fn run(mut self, mut waiting: mpsc::Receiver<Operation>) {
        let mut group = Vec::with_capacity(GROUP);
        while let Some(operation) = waiting.blocking_recv() {
            group.push(operation);
            while group.len() < GROUP {
                let Ok(operation) = waiting.try_recv() else { break };
                group.push(operation);
            }
            while !group.is_empty() {
                if caught(|| self.carry_out(&mut group)).is_err() {
                    self.trouble.panicked.notify_one();
                    // The callers of the others get an error: no sender fails because receiving does.
                    let all = group.len();
                    group.retain(|operation| operation.task.sends());
                    if group.len() == all {
                        group.clear();
                    }
                }
            }
        }
    }

    /// Executes a group in one transaction, then answers each operation: all of it is on disk, or none.
    ///
    /// After SQLite meets a damaged part, the transaction can write nothing more. So the group is executed again, with the
    /// knowledge about the damage, or without the operation that cannot get past it. No sender fails because receiving
    /// does.
    fn carry_out(&mut self, group: &mut Vec<Operation>) {
        while !group.is_empty() {
            // The caller may be gone: an event whose sender disconnected is on the queue nevertheless.
            match self.attempt(group) {
                Ok(results) => {
                    for arrived in results.iter().filter_map(|result| result.arrived) {
                        self.arrivals[arrived as usize].notify_waiters();
                    }
                    for (operation, result) in group.drain(..).zip(results) {
                        let _ = operation.answer.send(Ok(result));
                    }
                }
                Err((_, Failure { damage: Some(damage), .. })) if self.learn(damage) => {}
                // Few operations do not send, so this is rare.
                Err((Some(index), Failure { error, .. }))
                    if damaged(&error) || !group[index].task.sends() =>
                {
                    self.failed = true;
                    let error = QueueError(sqlite::message(&error));
                    let _ = group.remove(index).answer.send(Err(error));
                }
                Err((_, Failure { error, .. })) => {
                    self.failed = true;
                    let error = QueueError(sqlite::message(&error));
                    for operation in group.drain(..) {
                        let _ = operation.answer.send(Err(error.clone()));
                    }
                }
            }
        }
        self.checkpoints.keep_short(&self.database);
    }

    /// Executes a group in one transaction. On an error, nothing has changed, and the index of the failed operation is
    /// returned.
    fn attempt(
        &mut self,
        group: &[Operation],
    ) -> Result<Vec<TaskResult>, (Option<usize>, Failure)> {
        // They count after the commit, so an error or a panic changes none of them.
        let mut counters: Vec<_> = self.queues.iter().map(|queue| queue.counters).collect();
        let mut at = None;
        let result = (|| {
            let transaction =
                self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut results = Vec::with_capacity(group.len());
            let before = transaction.total_changes();
            for (index, Operation { task, .. }) in group.iter().enumerate() {
                at = Some(index);
                if self.failed && matches!(task, Task::Check) {
                    transaction.execute("DELETE FROM probe", [])?;
                    transaction.execute("INSERT INTO probe (at) VALUES (?1)", [now().millis()])?;
                }
                let (queues, counters) = (&mut self.queues[..], &mut counters[..]);
                let mut work = Work { transaction: &transaction, queues, counters };
                results.push(work.carry_out(task)?);
            }
            at = None;
            let wrote = transaction.total_changes() > before;
            transaction.commit()?;
            self.failed &= !wrote;
            Ok(results)
        })();
        if result.is_ok() {
            for (queue, counters) in self.queues.iter_mut().zip(counters) {
                queue.counters = counters;
            }
        }
        result.map_err(|failure| (at, failure))
    }

    /// Records where the database is damaged. Returns whether that is new, so that another attempt is useful.
    fn learn(&mut self, damage: Damage) -> bool {
        self.trouble.damaged.store(true, Ordering::Relaxed);
        match damage {
            Damage::Text(queue, seq) => self.queues[queue as usize].unreadable.insert(seq),
            Damage::Removal(queue, seq) => self.queues[queue as usize].stuck.insert(seq),
            Damage::New(queue, 0) => self.skip(queue),
            Damage::New(queue, listed) => {
                self.queues[queue as usize].unbroken.replace(listed) != Some(listed)
            }
        }
    }

    /// Skips a damaged part at the beginning of the new messages. Whether there are messages behind it.
    fn skip(&mut self, name: QueueName) -> bool {
        let queue = &mut self.queues[name as usize];
        let first = queue.counters.delivered + 1;
        let last = queue.counters.last.min(first.saturating_add(SKIPPED));
        let readable = |from: &i64| {
            let new = self.database.prepare_cached(&queue.sql.new);
            new.and_then(|mut new| new.exists(params![from, 1])).is_ok()
        };
        let Some(next) = (first + 1..=last).find(readable) else { return false };
        (queue.counters.delivered, queue.unbroken) = (next - 1, None);
        error!(
            queue = name.prefix(),
            from = first,
            to = next - 1,
            "a part of queue.db is damaged, and messages in it are not delivered; stop Hookmill, and look for them with \
             `sqlite3 queue.db .recover`"
        );
        true
    }
}

/// The error of an operation.
struct Failure {
    error: rusqlite::Error,
    damage: Option<Damage>,
}

/// The place of damage that an operation found.
#[derive(Clone, Copy)]
enum Damage {
    /// The text of a message.
    Text(QueueName, i64),
    /// A message to remove.
    Removal(QueueName, i64),
    /// After this number of new messages.
    New(QueueName, usize),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self { error, damage: None }
    }
}

impl Failure {
    fn at(damage: Damage) -> impl FnOnce(rusqlite::Error) -> Self {
        move |error| Self { damage: damaged(&error).then_some(damage), error }
    }
}

/// Whether the error says that a part of the database is damaged.
fn damaged(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// A transaction with the state that operations need.
struct Work<'a> {
    transaction: &'a Transaction<'a>,
    /// In the order of [`QueueName::ALL`].
    queues: &'a mut [State],
    /// The same. Those of [`State`] are the ones before the transaction.
    counters: &'a mut [Counters],
}

impl Work<'_> {
    fn carry_out(&mut self, task: &Task) -> Result<TaskResult, Failure> {
        let (transaction, now) = (self.transaction, now());
        match task {
            Task::Send { queue: name, messages } => {
                let (queue, counters) = self.queue(*name);
                let mut send = transaction.prepare_cached(&queue.sql.send)?;
                for message in messages {
                    counters.last += 1;
                    counters.messages += 1;
                    send.execute(params![counters.last, now.millis(), message])?;
                }
                Ok(TaskResult { arrived: Some(*name), ..TaskResult::default() })
            }
            Task::Check => Ok(TaskResult::default()),
            Task::Lease { queue, limit } => self.lease(*queue, *limit, now),
            Task::Settle { queue: name, verdicts } => {
                let delay = self.queues[*name as usize].sql.delay.clone();
                let mut delay = self.transaction.prepare_cached(&delay)?;
                let mut arrived = None;
                for (seq, attempts, verdict) in verdicts.iter() {
                    match verdict {
                        Verdict::Ack | Verdict::Bury => self.remove(*name, *seq, *attempts)?,
                        Verdict::Retry { delay: after } => {
                            delay.execute(params![seq, attempts, (now + *after).millis()])?;
                            arrived = Some(*name);
                        }
                    }
                }
                Ok(TaskResult { arrived, ..TaskResult::default() })
            }
            Task::Backlog { queue: name } => {
                let (queue, counters) = self.queue(*name);
                let mut oldest = transaction.prepare_cached(&queue.sql.oldest)?;
                let oldest = oldest.query_row([], |row| row.get(0)).optional()?;
                let oldest = oldest.map(Timestamp::from_millis);
                let backlog = Backlog { messages: counters.messages, oldest };
                Ok(TaskResult { backlog, ..TaskResult::default() })
            }
            Task::Count { queue: name, limit } => {
                self.put_right(*name, now)?;
                let (queue, counters) = self.queue(*name);
                let mut count = transaction.prepare_cached(&queue.sql.count)?;
                let values = params![now.millis(), counters.delivered + 1, sql_limit(*limit)];
                let count = count.query_row(values, |row| row.get::<_, u32>(0))?;
                let next_due_in = if count == 0 { self.next_due_in(*name, now)? } else { None };
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                Ok(TaskResult { next_due_in, count, ..TaskResult::default() })
            }
            #[cfg(test)]
            Task::Panic => panic!("a defect"),
        }
    }

    fn queue(&mut self, name: QueueName) -> (&mut State, &mut Counters) {
        (&mut self.queues[name as usize], &mut self.counters[name as usize])
    }

    /// Makes messages due whose times only a clock that was ahead can have set.
    fn put_right(&self, name: QueueName, now: Timestamp) -> rusqlite::Result<()> {
        let State { sql, longest_retry, .. } = &self.queues[name as usize];
        let (retries, leases) = (now.horizon(*longest_retry), now.horizon(LEASE));
        let values = params![now.millis(), retries.millis(), leases.millis()];
        self.transaction.prepare_cached(&sql.put_right)?.execute(values).map(drop)
    }

    /// The time until a delivery of the queue is due, if there is one.
    fn next_due_in(&self, name: QueueName, now: Timestamp) -> rusqlite::Result<Option<Duration>> {
        let next_due = &self.queues[name as usize].sql.next_due;
        let next: Option<i64> =
            self.transaction.prepare_cached(next_due)?.query_row([], |row| row.get(0))?;
        // At least a millisecond, so that a clock that was set back causes no busy loop.
        let after = |due_at| Timestamp::from_millis(due_at) - now;
        Ok(next.map(|due_at| after(due_at).max(Duration::from_millis(1))))
    }

    /// Redelivered messages come first, and no more of them than on Cloudflare, since one of them may have ended a process.
    /// Then come new ones, up to a size in bytes.
    fn lease(
        &mut self,
        name: QueueName,
        limit: usize,
        now: Timestamp,
    ) -> Result<TaskResult, Failure> {
        self.put_right(name, now)?;
        let transaction = self.transaction;
        let lease_ends = (now + LEASE).millis();
        let mut result = TaskResult::default();
        let sql = &self.queues[name as usize].sql;
        let again: Vec<(i64, u32)> = transaction
            .prepare_cached(&sql.lease_again)?
            .query_map(
                params![now.millis(), lease_ends, sql_limit(limit.min(BATCH_MESSAGES))],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?
            .collect::<Result<_, _>>()?;
        for (seq, attempts) in again {
            let text = self.text(name, seq)?;
            if name != QueueName::DeadLetters && attempts > PLATFORM_DELIVERIES {
                result.arrived = Some(QueueName::DeadLetters);
                self.give_up(name, seq, attempts, &text, now)?;
            } else {
                result.leased.push(Leased { delivery: Delivery { attempts, text }, seq });
            }
        }
        let mut bytes = 0;
        for seq in self.unseen(name, limit.saturating_sub(result.leased.len()))? {
            if bytes >= NATIVE_BATCH_BYTES {
                break;
            }
            let text = self.text(name, seq)?;
            bytes += text.len();
            let (queue, counters) = self.queue(name);
            transaction.prepare_cached(&queue.sql.lease_new)?.execute([seq, lease_ends])?;
            counters.delivered = seq;
            result.leased.push(Leased { delivery: Delivery { attempts: 1, text }, seq });
        }
        if result.leased.is_empty() {
            result.next_due_in = self.next_due_in(name, now)?;
        }
        Ok(result)
    }

    /// Messages that have never been delivered, up to a damaged part.
    fn unseen(&mut self, name: QueueName, limit: usize) -> Result<Vec<i64>, Failure> {
        let transaction = self.transaction;
        let (queue, counters) = self.queue(name);
        let limit = queue.unbroken.map_or(limit, |unbroken| limit.min(unbroken));
        let mut new = transaction.prepare_cached(&queue.sql.new)?;
        let mut rows = new.query(params![counters.delivered + 1, sql_limit(limit)])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(Failure::at(Damage::New(name, found.len())))? {
            found.push(row.get(0)?);
        }
        queue.unbroken = None;
        Ok(found)
    }

    /// The text of a message, or its replacement.
    fn text(&self, name: QueueName, seq: i64) -> Result<String, Failure> {
        let queue = &self.queues[name as usize];
        let place = || format!("{}_messages {seq}", name.prefix());
        if queue.unreadable.contains(&seq) {
            return Ok(Unreadable::Damaged.text(&place()));
        }
        let text = self.transaction.prepare_cached(&queue.sql.text)?.query_row([seq], |row| {
            Ok(match row.get_ref(0)? {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => text_of(bytes.to_vec()),
                // The table accepts only texts.
                ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => {
                    Unreadable::Damaged.text(&place())
                }
            })
        });
        let text = text.optional().map_err(Failure::at(Damage::Text(name, seq)))?;
        Ok(text.unwrap_or_else(|| Unreadable::Missing.text(&place())))
    }

    /// Moves an event to the dead letters after too many deliveries without a verdict.
    fn give_up(
        &mut self,
        from: QueueName,
        seq: i64,
        attempts: u32,
        text: &str,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let transaction = self.transaction;
        let (dead_letters, counters) = self.queue(QueueName::DeadLetters);
        counters.last += 1;
        counters.messages += 1;
        let values = params![counters.last, now.millis(), text];
        transaction.prepare_cached(&dead_letters.sql.send)?.execute(values)?;
        self.remove(from, seq, attempts)
    }

    /// Removes a settled message, if its lease has not ended. If a damaged database cannot remove it, it stays, and is not
    /// delivered again.
    fn remove(&mut self, name: QueueName, seq: i64, attempts: u32) -> Result<(), Failure> {
        let transaction = self.transaction;
        let (State { sql, stuck, .. }, counters) = self.queue(name);
        let prepare = |sql| transaction.prepare_cached(sql);
        if stuck.contains(&seq) {
            prepare(&sql.keep)?.execute(params![seq, attempts])?;
        } else if prepare(&sql.end)?.execute(params![seq, attempts])? > 0 {
            let removed = prepare(&sql.remove)?.execute([seq]);
            let removed = removed.map_err(Failure::at(Damage::Removal(name, seq)))?;
            counters.messages = counters.messages.saturating_sub(removed as u64);
        }
        Ok(())
    }
}

fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use hookmill_core::message::{DecodeError, decode};

    use super::*;

    struct Fixture {
        queue: SqliteQueue,
        folder: tempfile::TempDir,
    }

    /// The maximum delay of a retry in these tests.
    const RETRY: Duration = Duration::from_secs(60);

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        Fixture { queue: open(&folder), folder }
    }

    fn open(folder: &tempfile::TempDir) -> SqliteQueue {
        let delay = |attempts: u32| Duration::from_millis(attempts.into());
        SqliteQueue::open(&folder.path().join("queue.db"), |_| RETRY, delay).unwrap().0
    }

    impl Fixture {
        async fn send(&self, texts: &[&str]) {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            self.queue.sender(QueueName::Events).send(texts).await.unwrap();
        }

        async fn receive(&self, limit: usize) -> Vec<Leased> {
            self.gathered(QueueName::Events, limit, Duration::ZERO).await
        }

        async fn gathered(&self, queue: QueueName, limit: usize, wait: Duration) -> Vec<Leased> {
            // Their consumer has crashed unless the test settles them.
            std::mem::take(&mut self.batch(queue, limit, wait).await.leased)
        }

        async fn batch(&self, queue: QueueName, limit: usize, wait: Duration) -> Received {
            let (_stop, mut stopped) = watch::channel(false);
            self.queue.receive(queue, limit, wait, &mut stopped).await.unwrap()
        }

        async fn settle(&self, verdicts: Vec<(Leased, Verdict)>) {
            self.queue.settle_before(QueueName::Events, verdicts).await.await.unwrap();
        }

        /// Changes the database, to simulate the passing of time.
        fn sql(&self, sql: &str) {
            let database = Connection::open(self.folder.path().join("queue.db")).unwrap();
            database.busy_timeout(Duration::from_secs(5)).unwrap();
            database.execute_batch(sql).unwrap();
        }
    }

    fn texts(leased: &[Leased]) -> Vec<(&str, u32)> {
        leased
            .iter()
            .map(|leased| (leased.delivery.text.as_str(), leased.delivery.attempts))
            .collect()
    }

    #[tokio::test]
    async fn a_batch_is_bounded_and_in_order_of_arrival() {
        let fixture = fixture();
        fixture.send(&["a", "b", "c"]).await;
        assert_eq!(texts(&fixture.receive(2).await), [("a", 1), ("b", 1)]);
        assert_eq!(texts(&fixture.receive(2).await), [("c", 1)]);
    }

    #[tokio::test]
    async fn each_message_of_a_batch_is_settled_separately() {
        let fixture = fixture();
        fixture.send(&["a", "b", "c"]).await;
        let verdicts = [Verdict::Ack, Verdict::Retry { delay: Duration::ZERO }, Verdict::Bury];
        let leased = fixture.receive(3).await;
        fixture.settle(leased.into_iter().zip(verdicts).collect()).await;
        assert_eq!(texts(&fixture.receive(3).await), [("b", 2)]);
    }

    #[tokio::test]
    async fn the_backlog_has_every_message_without_a_final_verdict() {
        let fixture = fixture();
        let backlog = async |queue| fixture.queue.sender(queue).backlog().await.unwrap();
        assert_eq!(backlog(QueueName::Events).await, Backlog::default());
        fixture.send(&["a", "b", "c"]).await;
        let mut leased = fixture.receive(2).await;
        let retry = Verdict::Retry { delay: Duration::from_secs(30) };
        let verdicts = vec![(leased.remove(0), retry), (leased.remove(0), Verdict::Ack)];
        fixture.settle(verdicts).await;
        let Backlog { messages, oldest } = backlog(QueueName::Events).await;
        assert_eq!((messages, oldest.is_some()), (2, true), "one waits, and one is new");
        // After a restart, and for a command that reads the folder.
        let read = Connection::open(fixture.folder.path().join("queue.db")).unwrap();
        let of_events = queue_backlogs(&read).unwrap()[0].1;
        assert_eq!(of_events, Backlog { messages, oldest });
        let Fixture { queue, folder } = fixture;
        drop(queue);
        let restarted = open(&folder).sender(QueueName::Events);
        assert_eq!(restarted.backlog().await.unwrap().messages, 2);
    }

    #[tokio::test]
    async fn a_retry_waits_for_its_delay() {
        let fixture = fixture();
        fixture.send(&["a", "b"]).await;
        let mut leased = fixture.receive(1).await;
        let retry = Verdict::Retry { delay: Duration::from_millis(30) };
        fixture.settle(vec![(leased.remove(0), retry)]).await;
        assert_eq!(
            texts(&fixture.receive(2).await),
            [("b", 1)],
            "what is not due is not delivered"
        );
        assert_eq!(texts(&fixture.receive(2).await), [("a", 2)], "and comes by itself when it is");
    }

    #[tokio::test]
    async fn a_receiver_wakes_up_for_a_retry() {
        let fixture = fixture();
        fixture.send(&["a"]).await;
        let mut leased = fixture.receive(1).await;
        // Waits for the end of the lease, minutes away, until the verdict makes the message due earlier.
        let waiting = fixture.receive(1);
        let settle = async {
            tokio::task::yield_now().await;
            let retry = Verdict::Retry { delay: Duration::from_millis(5) };
            fixture.settle(vec![(leased.remove(0), retry)]).await;
        };
        let (again, ()) = tokio::join!(waiting, settle);
        assert_eq!(texts(&again), [("a", 2)]);
    }

    #[tokio::test]
    async fn a_lease_that_ended_delivers_again_and_a_late_verdict_changes_nothing() {
        let fixture = fixture();
        fixture.send(&["a"]).await;
        let late = fixture.receive(1).await.remove(0);
        fixture.sql("UPDATE events_deliveries SET due_at = 0");
        let again = fixture.receive(1).await.remove(0);
        assert_eq!(again.delivery.attempts, 2);
        fixture.settle(vec![(late, Verdict::Ack)]).await;
        fixture.sql("UPDATE events_deliveries SET due_at = 0");
        assert_eq!(texts(&fixture.receive(1).await), [("a", 3)], "still there");
    }

    #[tokio::test]
    async fn messages_without_a_verdict_are_due_again_when_their_consumer_panics() {
        let fixture = fixture();
        fixture.send(&["a", "b"]).await;
        let batch = fixture.batch(QueueName::Events, 2, Duration::ZERO).await;
        assert_eq!(batch.deliveries().len(), 2);
        let consumer = tokio::spawn(async move {
            let _batch = batch;
            panic!("a defect");
        });
        consumer.await.unwrap_err();
        // Much less than a lease.
        let again = tokio::time::timeout(LEASE / 2, async {
            let mut again = Vec::new();
            while again.len() < 2 {
                again.extend(fixture.receive(2).await);
            }
            again
        });
        assert_eq!(texts(&again.await.unwrap()), [("a", 2), ("b", 2)]);
    }

    #[tokio::test]
    async fn verdicts_for_a_part_of_a_batch_leave_the_others_due_again() {
        let fixture = fixture();
        fixture.send(&["a", "b"]).await;
        let batch = fixture.batch(QueueName::Events, 2, Duration::ZERO).await;
        batch.settle(vec![Verdict::Ack]).await.unwrap();
        let again = tokio::time::timeout(LEASE / 2, fixture.receive(2));
        assert_eq!(texts(&again.await.unwrap()), [("b", 2)]);
        assert_eq!(fixture.queue.sender(QueueName::Events).backlog().await.unwrap().messages, 1);
    }

    #[tokio::test]
    async fn a_panic_ends_its_operation_and_no_other() {
        let fixture = fixture();
        fixture.send(&["a"]).await;
        let sender = fixture.queue.sender(QueueName::Events);
        // Keeps the thread at the first operation, so that the others share a transaction.
        let lock = Connection::open(fixture.folder.path().join("queue.db")).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (_, sent, leased, panicked, ()) = tokio::join!(
            fixture.queue.check(),
            sender.send(vec!["b".to_owned()]),
            fixture.queue.ask(Task::Lease { queue: QueueName::Events, limit: 1 }),
            fixture.queue.ask(Task::Panic),
            async { lock.execute_batch("ROLLBACK").unwrap() },
        );
        fixture.queue.panicked().await;
        let defect = QueueError(Panicked.to_string());
        assert_eq!((sent, panicked.err()), (Ok(()), Some(defect)));
        // It was in the same transaction, unless the thread was slow.
        drop(leased);
        // Neither the counters nor the tables show the transaction that was rolled back.
        assert_eq!(sender.backlog().await.unwrap().messages, 2);
        fixture.sql("UPDATE events_deliveries SET due_at = 0");
        let texts: BTreeSet<_> =
            fixture.receive(3).await.into_iter().map(|leased| leased.delivery.text).collect();
        assert_eq!(texts, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    }

    #[tokio::test]
    async fn earlier_verdicts_are_applied_before_the_next_lease() {
        let fixture = fixture();
        fixture.send(&["a", "b"]).await;
        let late = fixture.receive(1).await.remove(0);
        // The batch took longer than its lease.
        fixture.sql("UPDATE events_deliveries SET due_at = 0");
        let verdicts = vec![(late, Verdict::Ack)];
        let settled = fixture.queue.settle_before(QueueName::Events, verdicts).await;
        assert_eq!(texts(&fixture.receive(2).await), [("b", 1)]);
        settled.await.unwrap();
    }

    #[tokio::test]
    async fn verdicts_outlast_a_lock_on_the_database() {
        let fixture = fixture();
        fixture.send(&["a", "b"]).await;
        let verdicts = fixture.receive(1).await.into_iter().map(|leased| (leased, Verdict::Ack));
        let locking = Connection::open(fixture.folder.path().join("queue.db")).unwrap();
        locking.execute_batch("BEGIN IMMEDIATE").unwrap();
        let settled = fixture.queue.settle_before(QueueName::Events, verdicts.collect()).await;
        // The thread executes its operations in order, so the first attempt to settle has failed before this one fails.
        fixture.queue.check().await.unwrap_err();
        locking.execute_batch("ROLLBACK").unwrap();
        settled.await.unwrap();
        fixture.sql("UPDATE events_deliveries SET due_at = 0");
        assert_eq!(texts(&fixture.receive(2).await), [("b", 1)], "and nothing is delivered again");
    }

    #[tokio::test]
    async fn a_lease_ends_with_its_process() {
        let Fixture { queue, folder } = fixture();
        let queue = Fixture { queue, folder };
        queue.send(&["a"]).await;
        assert_eq!(queue.receive(1).await.len(), 1);
        let restarted = Fixture { queue: open(&queue.folder), folder: queue.folder };
        assert_eq!(texts(&restarted.receive(1).await), [("a", 2)]);
    }

    #[tokio::test]
    async fn a_message_that_is_delivered_too_often_goes_to_the_dead_letters() {
        let fixture = fixture();
        fixture.send(&["a", "b"]).await;
        assert_eq!(fixture.receive(1).await.len(), 1);
        fixture.sql(&format!(
            "UPDATE events_deliveries SET due_at = 0, attempts = {PLATFORM_DELIVERIES}"
        ));
        let dead = fixture.gathered(QueueName::DeadLetters, 10, Duration::ZERO);
        let (live, dead) = tokio::join!(fixture.receive(10), dead);
        assert_eq!(texts(&live), [("b", 1)]);
        assert_eq!(texts(&dead), [("a", 1)]);
    }

    #[tokio::test]
    async fn a_batch_waits_to_be_full() {
        let fixture = fixture();
        let receive = fixture.gathered(QueueName::Events, 3, Duration::from_secs(60));
        let send = async {
            for text in ["a", "b", "c"] {
                fixture.send(&[text]).await;
            }
        };
        let (received, ()) = tokio::join!(receive, send);
        assert_eq!(received.len(), 3, "full before the wait is over");
        fixture.send(&["d"]).await;
        let rest = fixture.gathered(QueueName::Events, 3, Duration::from_millis(20)).await;
        assert_eq!(texts(&rest), [("d", 1)], "not full, and the wait is over");
    }

    #[tokio::test]
    async fn a_receiver_stops_on_request() {
        let fixture = fixture();
        let (stop, mut stopped) = watch::channel(false);
        let receive = fixture.queue.receive(QueueName::Events, 1, Duration::ZERO, &mut stopped);
        let (received, ()) = tokio::join!(receive, async {
            tokio::task::yield_now().await;
            stop.send_replace(true);
        });
        assert!(received.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_queue_that_cannot_write_says_so_until_it_can() {
        let fixture = fixture();
        fixture.queue.check().await.unwrap();
        for table in ["events_messages", "probe"] {
            fixture.sql(&format!(
                "CREATE TRIGGER full_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END"
            ));
        }
        fixture.queue.check().await.unwrap();
        let sender = fixture.queue.sender(QueueName::Events);
        assert!(sender.send(vec!["a".to_owned()]).await.is_err());
        assert!(fixture.queue.check().await.is_err());
        assert!(fixture.queue.check().await.is_err(), "still");
        fixture.sql("DROP TRIGGER full_events_messages; DROP TRIGGER full_probe");
        fixture.queue.check().await.unwrap();
    }

    #[tokio::test]
    async fn concurrent_senders_share_a_commit_and_a_failed_commit_fails_them_all() {
        let fixture = fixture();
        let lock = Connection::open(fixture.folder.path().join("queue.db")).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        let sender = fixture.queue.sender(QueueName::Events);
        let messages = || vec!["a".to_owned()];
        let (first, second) = tokio::join!(sender.send(messages()), sender.send(messages()));
        assert!(first.is_err() && second.is_err(), "neither is said to be durable");
        lock.execute_batch("ROLLBACK").unwrap();
        sender.send(messages()).await.unwrap();
        assert_eq!(texts(&fixture.receive(9).await), [("a", 1)]);
    }

    /// The rest of an unreadable message's text.
    fn rest(leased: &Leased) -> &str {
        leased.delivery.text.split_once('\n').unwrap().1
    }

    fn why(leased: &Leased) -> Option<Unreadable> {
        match decode(&leased.delivery.text) {
            Err(DecodeError::Unreadable(why)) => Some(why),
            _ => None,
        }
    }

    #[tokio::test]
    async fn content_that_is_not_text_is_delivered_as_unreadable_and_its_neighbors_unchanged() {
        let fixture = fixture();
        fixture.send(&["a", "b", "c"]).await;
        fixture.sql("UPDATE events_messages SET text = CAST(x'7bff7d' AS TEXT) WHERE text = 'b'");
        let leased = fixture.receive(3).await;
        assert_eq!(leased[1].delivery.text, text_of(b"{\xff}".to_vec()));
        assert_eq!(why(&leased[1]), Some(Unreadable::NotUtf8));
        assert_eq!((texts(&leased)[0], texts(&leased)[2]), (("a", 1), ("c", 1)));
        // After its verdict, it is not delivered again.
        let verdicts = leased.into_iter().map(|leased| (leased, Verdict::Bury)).collect();
        fixture.settle(verdicts).await;
        fixture.send(&["d"]).await;
        assert_eq!(texts(&fixture.receive(3).await), [("d", 1)]);
    }

    #[tokio::test]
    async fn a_batch_is_bounded_by_its_bytes_and_by_its_redeliveries() {
        let fixture = fixture();
        let texts: Vec<_> = (0..300).map(|n| format!("{n} {}", "x".repeat(50_000))).collect();
        fixture.queue.sender(QueueName::Events).send(texts).await.unwrap();
        let leased = fixture.receive(1000).await;
        let bytes = leased.iter().map(|leased| leased.delivery.text.len()).sum::<usize>();
        assert!((NATIVE_BATCH_BYTES..NATIVE_BATCH_BYTES + 60_000).contains(&bytes), "{bytes}");
        // The others follow, in order.
        let mut found = leased.len();
        while found < 300 {
            let leased = fixture.receive(1000).await;
            assert!(leased[0].delivery.text.starts_with(&format!("{found} ")));
            found += leased.len();
        }
        fixture.sql("UPDATE events_deliveries SET due_at = 0");
        assert_eq!(fixture.receive(1000).await.len(), BATCH_MESSAGES);
    }

    #[tokio::test]
    async fn a_delivery_without_its_message_is_unreadable_and_ends() {
        let fixture = fixture();
        fixture.send(&["a", "b"]).await;
        assert_eq!(fixture.receive(2).await.len(), 2);
        fixture.sql(
            "DELETE FROM events_messages WHERE text = 'a'; UPDATE events_deliveries SET due_at = 0",
        );
        let leased = fixture.receive(2).await;
        assert_eq!(
            (why(&leased[0]), rest(&leased[0])),
            (Some(Unreadable::Missing), "events_messages 1")
        );
        assert_eq!(texts(&leased)[1], ("b", 2));
        let verdicts = leased.into_iter().map(|leased| (leased, Verdict::Bury)).collect();
        fixture.settle(verdicts).await;
        fixture.send(&["c"]).await;
        assert_eq!(texts(&fixture.receive(3).await), [("c", 1)]);
    }

    #[tokio::test]
    async fn an_unreadable_message_that_is_given_up_keeps_its_bytes() {
        let fixture = fixture();
        fixture.send(&["a", "b"]).await;
        assert_eq!(fixture.receive(1).await.len(), 1);
        fixture.sql(&format!(
            "UPDATE events_messages SET text = CAST(x'ff' AS TEXT) WHERE text = 'a';
            UPDATE events_deliveries SET due_at = 0, attempts = {PLATFORM_DELIVERIES}"
        ));
        assert_eq!(texts(&fixture.receive(10).await), [("b", 1)]);
        let dead = fixture.gathered(QueueName::DeadLetters, 10, Duration::ZERO).await;
        assert_eq!(dead[0].delivery.text, text_of(vec![0xff]));
    }

    /// Overwrites the database page that contains this text, as a bad disk would.
    fn damage(folder: &tempfile::TempDir, text: &str) {
        let path = folder.path().join("queue.db");
        let database = Connection::open(&path).unwrap();
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(database);
        let mut bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
        let page = PAGE_BYTES as usize;
        let start = found.unwrap() / page * page;
        bytes[start..start + page].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
    }

    /// Messages that share a page by tens.
    fn long_messages(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("message {n:03} {}", "x".repeat(3000))).collect()
    }

    fn numbers(leased: &[Leased]) -> Vec<usize> {
        leased.iter().map(|leased| leased.delivery.text[8..11].parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn messages_around_a_damaged_page_are_delivered_and_sending_goes_on() {
        let Fixture { queue, folder } = fixture();
        queue.sender(QueueName::Events).send(long_messages(100)).await.unwrap();
        drop(queue);
        damage(&folder, "message 050 ");
        let fixture = Fixture { queue: open(&folder), folder };
        let (mut delivered, mut batches) = (Vec::new(), 0);
        while delivered.last() != Some(&99) {
            // The second is gathered, which counts first.
            let wait = if batches == 1 { Duration::from_millis(1) } else { Duration::ZERO };
            let leased = fixture.gathered(QueueName::Events, 30, wait).await;
            delivered.extend(numbers(&leased));
            let verdicts = leased.into_iter().map(|leased| (leased, Verdict::Ack)).collect();
            fixture.settle(verdicts).await;
            batches += 1;
        }
        let skipped: Vec<_> = (0..100).filter(|n| !delivered.contains(n)).collect();
        assert!(skipped.contains(&50) && skipped.len() < 15, "{skipped:?}");
        assert!(skipped.windows(2).all(|two| two[0] + 1 == two[1]), "one page: {skipped:?}");
        assert!(fixture.queue.problem().unwrap().contains("damaged"));
        fixture.send(&["message 100 "]).await;
        assert_eq!(numbers(&fixture.receive(9).await), [100]);
    }

    #[tokio::test]
    async fn a_message_with_a_damaged_end_is_unreadable_and_is_delivered_once() {
        let Fixture { queue, folder } = fixture();
        // Too long for a page, so other pages contain the end.
        let long = format!("{}needle{}", "x".repeat(40_000), "y".repeat(60_000));
        let texts = vec!["a".to_owned(), long, "c".to_owned()];
        queue.sender(QueueName::Events).send(texts).await.unwrap();
        drop(queue);
        damage(&folder, "needle");
        let fixture = Fixture { queue: open(&folder), folder };
        let leased = fixture.receive(3).await;
        assert_eq!(why(&leased[1]), Some(Unreadable::Damaged));
        assert_eq!(
            (leased[0].delivery.text.as_str(), leased[2].delivery.text.as_str()),
            ("a", "c")
        );
        let verdicts = leased.into_iter().map(|leased| (leased, Verdict::Bury)).collect();
        fixture.settle(verdicts).await;
        fixture.sql("UPDATE events_deliveries SET due_at = 0 WHERE leased = 1");
        fixture.send(&["d"]).await;
        let leased = fixture.receive(3).await;
        assert_eq!(self::texts(&leased), [("d", 1)]);
    }

    #[tokio::test]
    async fn a_queue_that_cannot_be_received_from_says_so_until_it_can() {
        let fixture = fixture();
        fixture.send(&["a"]).await;
        assert_eq!(fixture.queue.problem(), None);
        fixture.sql(
            "CREATE TRIGGER broken BEFORE INSERT ON events_deliveries BEGIN SELECT RAISE(ABORT, 'broken'); END",
        );
        let (_stop, mut stopped) = watch::channel(false);
        for wait in [Duration::ZERO, Duration::from_millis(1)] {
            let received = fixture.queue.receive(QueueName::Events, 1, wait, &mut stopped).await;
            assert!(received.is_err());
            assert!(fixture.queue.problem().unwrap().contains("cannot be received"));
        }
        fixture.send(&["b"]).await;
        fixture.sql("DROP TRIGGER broken");
        assert_eq!(texts(&fixture.receive(2).await), [("a", 1), ("b", 1)]);
        assert_eq!(fixture.queue.problem(), None);
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_delays_neither_retries_nor_leases() {
        let fixture = fixture();
        fixture.send(&["retried", "leased", "late", "in hand"]).await;
        let now = now();
        assert_eq!(fixture.receive(4).await.len(), 4);
        let day = Duration::from_secs(86_400);
        let due = |seq: i64, leased: i64, at: Timestamp| {
            format!(
                "UPDATE events_deliveries SET due_at = {}, leased = {leased} WHERE seq = {seq};",
                at.millis()
            )
        };
        // Due dates that were set a day ahead, and one at the limit.
        fixture.sql(
            &[
                due(1, 0, now + day + Duration::from_secs(1)),
                due(2, 1, now + day + LEASE),
                due(3, 0, now + RETRY),
                due(4, 1, now + LEASE),
            ]
            .concat(),
        );
        assert_eq!(texts(&fixture.receive(9).await), [("retried", 2), ("leased", 2)]);
        // Receiving more than one message counts them first.
        fixture.sql(&due(1, 0, now + day));
        let gathered = fixture.gathered(QueueName::Events, 9, Duration::from_millis(1)).await;
        assert_eq!(texts(&gathered), [("retried", 3)]);
    }
}
