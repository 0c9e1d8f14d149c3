//! Queues on SQLite, with what Cloudflare Queues offers and no more: batches, delays, attempts, leases that expire, a
//! dead-letter queue, at least once.
//!
//! One thread has the database. It takes every operation that is waiting, carries them out in one transaction, and answers
//! when that is on the disk: requests that arrive together share one commit, so durability costs one fsync for all of
//! them. Settling a batch and leasing the next one share one in the same way.
//!
//! A queue is two tables. `messages` is written once and read once; a message without a row in `deliveries` has never been
//! delivered. `deliveries` holds the few that are in hand or to be retried, with a due date: a lease is a due date in the
//! future. A consumer that dies leaves nothing to clean up: the message is due again when the lease ends. A verdict counts
//! only while its lease does, which the attempts tell.

use std::ffi::c_int;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::limits::PLATFORM_DELIVERIES;
use hookmill_core::queue::{Queue, QueueError};
use rusqlite::hooks::Wal;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::now;
use crate::sqlite;

/// The queues there are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum QueueName {
    /// Verified events.
    Events,
    /// What was delivered [`PLATFORM_DELIVERIES`] times without a verdict.
    DeadLetters,
    /// Events that are replayed: they wait for those that come in.
    Replays,
}

impl QueueName {
    const ALL: [Self; 3] = [Self::Events, Self::DeadLetters, Self::Replays];

    /// What its tables begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::DeadLetters => "dead_letters",
            Self::Replays => "replays",
        }
    }

    /// SQL about its tables: `{q}` stands for the prefix.
    fn sql(self, sql: &str) -> String {
        sql.replace("{q}", self.prefix())
    }
}

/// The statements about one queue.
struct Sql {
    send: String,
    count: String,
    next_due: String,
    lease_again: String,
    text: String,
    new: String,
    lease_new: String,
    end: String,
    remove: String,
    delay: String,
}

impl Sql {
    fn new(queue: QueueName) -> Self {
        Self {
            send: queue.sql("INSERT INTO {q}_messages (seq, sent_at, text) VALUES (?1, ?2, ?3)"),
            count: queue.sql(
                "SELECT count(*) FROM (
                    SELECT 1 FROM {q}_deliveries WHERE due_at <= ?1
                    UNION ALL
                    SELECT 1 FROM {q}_messages WHERE seq > ?2
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
                "SELECT seq, text FROM {q}_messages WHERE seq > ?1
                    AND NOT EXISTS (SELECT 1 FROM {q}_deliveries WHERE {q}_deliveries.seq = {q}_messages.seq)
                 ORDER BY seq LIMIT ?2",
            ),
            lease_new: queue
                .sql("INSERT INTO {q}_deliveries (seq, attempts, due_at, leased) VALUES (?1, 1, ?2, 1)"),
            end: queue.sql("DELETE FROM {q}_deliveries WHERE seq = ?1 AND attempts = ?2"),
            remove: queue.sql("DELETE FROM {q}_messages WHERE seq = ?1"),
            delay: queue.sql(
                "UPDATE {q}_deliveries SET due_at = ?3, leased = 0 WHERE seq = ?1 AND attempts = ?2",
            ),
        }
    }
}

/// A delivery, and what identifies its lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leased {
    /// For the consumer.
    pub delivery: Delivery,
    seq: i64,
}

/// The queues of one data folder.
#[derive(Clone)]
pub struct SqliteQueue {
    operations: mpsc::Sender<Operation>,
    /// One for each queue: something may have come.
    arrivals: Arc<[Notify; 3]>,
}

/// The pages of the database. Ten events fit into one, so a group's commit writes few of them.
const PAGE_BYTES: u32 = 32 * 1024;
/// Operations waiting for the thread; beyond these, senders wait.
const WAITING: usize = 4096;
/// The most operations in one transaction.
const GROUP: usize = 1024;
/// How long a consumer has for a batch. Longer than any batch takes: should it expire all the same, the ledger holds.
const LEASE: Duration = Duration::from_secs(120);

/// What the thread is asked to do, and who waits for it.
struct Operation {
    task: Task,
    answer: oneshot::Sender<Result<Outcome, QueueError>>,
}

enum Task {
    Send { queue: QueueName, messages: Vec<String> },
    Lease { queue: QueueName, most: usize },
    Settle { queue: QueueName, verdicts: Vec<(i64, u32, Verdict)> },
    Count { queue: QueueName, most: usize },
    Check,
}

/// What a task came to.
#[derive(Default)]
struct Outcome {
    /// Of a lease: the deliveries.
    leased: Vec<Leased>,
    /// Of a lease that got none: when a message is due.
    next_due_in: Option<Duration>,
    /// Of a count.
    count: usize,
    /// The queue in which a message may be due earlier than whoever waits for it thinks.
    arrived: Option<QueueName>,
}

impl SqliteQueue {
    /// Opens or makes the database, and starts its thread.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
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
            // The folder is locked, so whoever had a lease is gone.
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
            queues.push(State { sql: Sql::new(queue), last, delivered: 0 });
        }
        let (operations, waiting) = mpsc::channel(WAITING);
        let arrivals = Arc::new([Notify::new(), Notify::new(), Notify::new()]);
        let log = Log::start(path, &mut database)?;
        let thread = Thread { database, queues, arrivals: arrivals.clone(), log, failed: false };
        spawn("queue", move || thread.run(waiting))?;
        Ok(Self { operations, arrivals })
    }

    /// The sending side of a queue.
    pub fn sender(&self, queue: QueueName) -> QueueSender {
        QueueSender { queue: self.clone(), name: queue }
    }

    /// Waits for messages and leases them: at least one and at most `most`, gathered for at most `wait`. None once `stopped`
    /// says so; what has been leased is always returned.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn receive(
        &self,
        queue: QueueName,
        most: usize,
        wait: Duration,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<Vec<Leased>, QueueError> {
        while !*stopped.borrow() {
            // Registered before looking, so that what comes in between is not missed.
            let arrival = self.arrivals[queue as usize].notified();
            let mut found = Outcome::default();
            if !wait.is_zero() {
                found = self.ask(Task::Count { queue, most }).await?;
                if found.count > 0 {
                    tokio::select! {
                        gathered = self.gather(queue, most, wait) => gathered?,
                        _ = stopped.wait_for(|stopped| *stopped) => {}
                    }
                }
            }
            if wait.is_zero() || found.count > 0 {
                found = self.ask(Task::Lease { queue, most }).await?;
                if !found.leased.is_empty() {
                    return Ok(found.leased);
                }
            }
            let due = tokio::time::timeout(found.next_due_in.unwrap_or(Duration::MAX), arrival);
            tokio::select! {
                _ = due => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        }
        Ok(Vec::new())
    }

    /// Returns when `most` messages are waiting, or after `wait`.
    async fn gather(
        &self,
        queue: QueueName,
        most: usize,
        wait: Duration,
    ) -> Result<(), QueueError> {
        let full = async {
            loop {
                let arrival = self.arrivals[queue as usize].notified();
                if self.ask(Task::Count { queue, most }).await?.count >= most {
                    return Ok(());
                }
                arrival.await;
            }
        };
        tokio::time::timeout(wait, full).await.unwrap_or(Ok(()))
    }

    /// Carries out verdicts. Those whose lease has ended change nothing.
    ///
    /// # Errors
    ///
    /// If the database does not answer; the messages come again when their leases end.
    pub async fn settle(
        &self,
        queue: QueueName,
        verdicts: Vec<(Leased, Verdict)>,
    ) -> Result<(), QueueError> {
        let verdicts = verdicts
            .into_iter()
            .map(|(leased, verdict)| (leased.seq, leased.delivery.attempts, verdict))
            .collect();
        self.ask(Task::Settle { queue, verdicts }).await.map(drop)
    }

    /// How many messages are waiting; at most `most` are counted.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn waiting(&self, queue: QueueName, most: usize) -> Result<usize, QueueError> {
        self.ask(Task::Count { queue, most }).await.map(|outcome| outcome.count)
    }

    /// Whether the database answers, and writes. It is only made to write if it has just failed to: whoever asks all the
    /// time causes no load.
    ///
    /// # Errors
    ///
    /// What it says instead.
    pub async fn check(&self) -> Result<(), QueueError> {
        self.ask(Task::Check).await.map(drop)
    }

    async fn ask(&self, task: Task) -> Result<Outcome, QueueError> {
        let (answer, answered) = oneshot::channel();
        let gone = || QueueError("the queue's thread has ended".into());
        self.operations.send(Operation { task, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
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
}

/// What the thread knows of a queue, besides what is in its tables.
struct State {
    sql: Sql,
    /// The last number given to a message. No number is given twice in the life of a process, so that a late verdict
    /// cannot hit another message.
    last: i64,
    /// Every message up to here has been delivered, so that what is new need not be searched for.
    delivered: i64,
}

/// The thread that has the database.
struct Thread {
    database: Connection,
    /// In the order of [`QueueName::ALL`].
    queues: Vec<State>,
    arrivals: Arc<[Notify; 3]>,
    log: Log,
    /// Whether the last transaction that was to write failed.
    failed: bool,
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> rusqlite::Result<()> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
    spawned.map(drop).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

impl Thread {
    /// Runs until every handle is gone.
    fn run(mut self, mut waiting: mpsc::Receiver<Operation>) {
        let mut group = Vec::with_capacity(GROUP);
        while let Some(operation) = waiting.blocking_recv() {
            group.push(operation);
            while group.len() < GROUP {
                let Ok(operation) = waiting.try_recv() else { break };
                group.push(operation);
            }
            self.carry_out(&mut group);
            self.log.keep_short(&self.database);
        }
    }

    /// Carries out a group in one transaction, then answers each: all of it is on the disk, or none.
    fn carry_out(&mut self, group: &mut Vec<Operation>) {
        let before: Vec<_> =
            self.queues.iter().map(|queue| (queue.last, queue.delivered)).collect();
        let result = (|| {
            let transaction =
                self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut outcomes = Vec::with_capacity(group.len());
            let before = transaction.total_changes();
            for operation in &*group {
                if self.failed && matches!(operation.task, Task::Check) {
                    transaction.execute("DELETE FROM probe", [])?;
                    transaction.execute("INSERT INTO probe (at) VALUES (?1)", [now().millis()])?;
                }
                outcomes.push(carry_out(&transaction, &mut self.queues, &operation.task)?);
            }
            let wrote = transaction.total_changes() > before;
            transaction.commit()?;
            self.failed &= !wrote;
            Ok(outcomes)
        })();
        // Whoever asked may be gone: an event whose sender went away is on the queue all the same.
        match result {
            Ok(outcomes) => {
                for arrived in outcomes.iter().filter_map(|outcome| outcome.arrived) {
                    self.arrivals[arrived as usize].notify_waiters();
                }
                for (operation, outcome) in group.drain(..).zip(outcomes) {
                    let _ = operation.answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                self.failed = true;
                for (queue, (last, delivered)) in self.queues.iter_mut().zip(before) {
                    (queue.last, queue.delivered) = (last, delivered);
                }
                let error = QueueError(sqlite::text(&error));
                for operation in group.drain(..) {
                    let _ = operation.answer.send(Err(error.clone()));
                }
            }
        }
    }
}

fn carry_out(
    transaction: &Transaction<'_>,
    queues: &mut [State],
    task: &Task,
) -> rusqlite::Result<Outcome> {
    let now = now().millis();
    match task {
        Task::Send { queue: name, messages } => {
            let queue = &mut queues[*name as usize];
            let mut send = transaction.prepare_cached(&queue.sql.send)?;
            for message in messages {
                queue.last += 1;
                send.execute(params![queue.last, now, message])?;
            }
            Ok(Outcome { arrived: Some(*name), ..Outcome::default() })
        }
        Task::Check => Ok(Outcome::default()),
        Task::Lease { queue, most } => lease(transaction, queues, *queue, *most, now),
        Task::Settle { queue: name, verdicts } => {
            let queue = &queues[*name as usize];
            let mut end = transaction.prepare_cached(&queue.sql.end)?;
            let mut remove = transaction.prepare_cached(&queue.sql.remove)?;
            let mut delay = transaction.prepare_cached(&queue.sql.delay)?;
            let mut arrived = None;
            for (seq, attempts, verdict) in verdicts {
                match verdict {
                    Verdict::Ack | Verdict::Bury => {
                        if end.execute(params![seq, attempts])? > 0 {
                            remove.execute([seq])?;
                        }
                    }
                    Verdict::Retry { delay: after } => {
                        delay.execute(params![seq, attempts, now + millis(*after)])?;
                        arrived = Some(*name);
                    }
                }
            }
            Ok(Outcome { arrived, ..Outcome::default() })
        }
        Task::Count { queue, most } => {
            let queue = &queues[*queue as usize];
            let mut count = transaction.prepare_cached(&queue.sql.count)?;
            let values = params![now, queue.delivered, limit(*most)];
            let count = count.query_row(values, |row| row.get::<_, u32>(0))?;
            let next_due_in = if count == 0 { next_due_in(transaction, queue, now)? } else { None };
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            Ok(Outcome { next_due_in, count, ..Outcome::default() })
        }
    }
}

/// How long until a delivery of the queue is due, if there is any.
fn next_due_in(
    transaction: &Transaction<'_>,
    queue: &State,
    now: i64,
) -> rusqlite::Result<Option<Duration>> {
    let next: Option<i64> =
        transaction.prepare_cached(&queue.sql.next_due)?.query_row([], |row| row.get(0))?;
    // At least a millisecond, so that a clock that was set back makes no busy loop.
    Ok(next.map(|due_at| {
        Duration::from_millis(u64::try_from(due_at - now).unwrap_or_default().max(1))
    }))
}

/// What is due again comes first, then what is new.
fn lease(
    transaction: &Transaction<'_>,
    queues: &mut [State],
    name: QueueName,
    most: usize,
    now: i64,
) -> rusqlite::Result<Outcome> {
    let queue = &mut queues[name as usize];
    let lease_ends = now + millis(LEASE);
    let mut outcome = Outcome::default();
    let mut given_up = Vec::new();
    let mut again = transaction.prepare_cached(&queue.sql.lease_again)?;
    let again: Vec<(i64, u32)> = again
        .query_map(params![now, lease_ends, limit(most)], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut text = transaction.prepare_cached(&queue.sql.text)?;
    for (seq, attempts) in again {
        if name != QueueName::DeadLetters && attempts > PLATFORM_DELIVERIES {
            given_up.push(seq);
        } else {
            let text = text.query_row([seq], |row| row.get(0))?;
            outcome.leased.push(Leased { delivery: Delivery { attempts, text }, seq });
        }
    }

    let mut new = transaction.prepare_cached(&queue.sql.new)?;
    let mut lease_new = transaction.prepare_cached(&queue.sql.lease_new)?;
    let left = limit(most.saturating_sub(outcome.leased.len()));
    let new: Vec<(i64, String)> = new
        .query_map(params![queue.delivered, left], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (seq, text) in new {
        lease_new.execute(params![seq, lease_ends])?;
        queue.delivered = seq;
        outcome.leased.push(Leased { delivery: Delivery { attempts: 1, text }, seq });
    }
    if outcome.leased.is_empty() {
        outcome.next_due_in = next_due_in(transaction, queue, now)?;
    }
    if !given_up.is_empty() {
        outcome.arrived = Some(QueueName::DeadLetters);
        give_up(transaction, queues, name, &given_up, now)?;
    }
    Ok(outcome)
}

/// Moves events to the dead letters: they have been delivered too often without a verdict.
fn give_up(
    transaction: &Transaction<'_>,
    queues: &mut [State],
    from: QueueName,
    events: &[i64],
    now: i64,
) -> rusqlite::Result<()> {
    let dead_letters = &mut queues[QueueName::DeadLetters as usize];
    let bury = from.sql(
        "INSERT INTO dead_letters_messages (seq, sent_at, text) SELECT ?1, ?2, text FROM {q}_messages WHERE seq = ?3",
    );
    for seq in events {
        dead_letters.last += 1;
        transaction.execute(&bury, params![dead_letters.last, now, seq])?;
        transaction.execute(&from.sql("DELETE FROM {q}_deliveries WHERE seq = ?1"), [seq])?;
        transaction.execute(&from.sql("DELETE FROM {q}_messages WHERE seq = ?1"), [seq])?;
    }
    Ok(())
}

/// Keeps SQLite's write-ahead log short.
///
/// Copying the log into the database file would hold up every sender for as long as it takes. So a thread of its own
/// copies what there is, and the queue's thread only the rest that has come meanwhile; then the log begins anew.
struct Log {
    /// How long it is, in pages.
    pages: Arc<AtomicUsize>,
    /// Set while the other thread copies; what it says when it has.
    copying: bool,
    ask: std::sync::mpsc::Sender<()>,
    done: std::sync::mpsc::Receiver<()>,
}

/// How long the log may get before it is copied, in pages: 16 MiB.
const LOG_PAGES: usize = 16 * 1024 * 1024 / PAGE_BYTES as usize;
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

impl Log {
    /// Starts the other thread, and takes the place of SQLite's own checkpoints on the writer's connection.
    fn start(path: &Path, writer: &mut Connection) -> rusqlite::Result<Self> {
        let database = sqlite::open(path, PAGE_BYTES)?;
        let pages = Arc::new(AtomicUsize::new(0));
        let counted = pages.clone();
        writer.wal_hook(Some(move |_: &mut Wal, pages: c_int| {
            counted.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let (ask, asked) = std::sync::mpsc::channel();
        let (say, done) = std::sync::mpsc::channel();
        spawn("checkpoint", move || {
            while asked.recv().is_ok() {
                // What it could not copy stays in the log, and is durable there.
                let _ = database.query_row(CHECKPOINT, [], |_| Ok(()));
                let _ = say.send(());
            }
        })?;
        Ok(Self { pages, copying: false, ask, done })
    }

    fn keep_short(&mut self, database: &Connection) {
        if self.copying {
            if self.done.try_recv().is_ok() {
                let _ = database.query_row(CHECKPOINT, [], |_| Ok(()));
                self.copying = false;
            }
        } else if self.pages.load(Ordering::Relaxed) > LOG_PAGES {
            self.copying = self.ask.send(()).is_ok();
        }
    }
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        queue: SqliteQueue,
        folder: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        Fixture { queue: SqliteQueue::open(&folder.path().join("queue.db")).unwrap(), folder }
    }

    impl Fixture {
        async fn send(&self, texts: &[&str]) {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            self.queue.sender(QueueName::Events).send(texts).await.unwrap();
        }

        async fn receive(&self, most: usize) -> Vec<Leased> {
            self.gathered(QueueName::Events, most, Duration::ZERO).await
        }

        async fn gathered(&self, queue: QueueName, most: usize, wait: Duration) -> Vec<Leased> {
            let (_stop, mut stopped) = watch::channel(false);
            self.queue.receive(queue, most, wait, &mut stopped).await.unwrap()
        }

        /// Changes the database as time would.
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
    async fn each_message_of_a_batch_is_settled_by_itself() {
        let fixture = fixture();
        fixture.send(&["a", "b", "c"]).await;
        let verdicts = [Verdict::Ack, Verdict::Retry { delay: Duration::ZERO }, Verdict::Bury];
        let leased = fixture.receive(3).await;
        fixture
            .queue
            .settle(QueueName::Events, leased.into_iter().zip(verdicts).collect())
            .await
            .unwrap();
        assert_eq!(texts(&fixture.receive(3).await), [("b", 2)]);
    }

    #[tokio::test]
    async fn a_retry_waits_for_its_delay() {
        let fixture = fixture();
        fixture.send(&["a", "b"]).await;
        let mut leased = fixture.receive(1).await;
        let retry = Verdict::Retry { delay: Duration::from_millis(30) };
        fixture.queue.settle(QueueName::Events, vec![(leased.remove(0), retry)]).await.unwrap();
        assert_eq!(
            texts(&fixture.receive(2).await),
            [("b", 1)],
            "what is not due is not delivered"
        );
        assert_eq!(texts(&fixture.receive(2).await), [("a", 2)], "and comes by itself when it is");
    }

    #[tokio::test]
    async fn whoever_waits_is_told_of_a_retry() {
        let fixture = fixture();
        fixture.send(&["a"]).await;
        let mut leased = fixture.receive(1).await;
        // Waits for the end of the lease, minutes away, until the verdict makes the message due before that.
        let waiting = fixture.receive(1);
        let settle = async {
            tokio::task::yield_now().await;
            let retry = Verdict::Retry { delay: Duration::from_millis(5) };
            fixture.queue.settle(QueueName::Events, vec![(leased.remove(0), retry)]).await
        };
        let (again, settled) = tokio::join!(waiting, settle);
        settled.unwrap();
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
        fixture.queue.settle(QueueName::Events, vec![(late, Verdict::Ack)]).await.unwrap();
        fixture.sql("UPDATE events_deliveries SET due_at = 0");
        assert_eq!(texts(&fixture.receive(1).await), [("a", 3)], "still there");
    }

    #[tokio::test]
    async fn what_was_leased_when_the_process_died_is_due_at_once() {
        let Fixture { queue, folder } = fixture();
        let queue = Fixture { queue, folder };
        queue.send(&["a"]).await;
        assert_eq!(queue.receive(1).await.len(), 1);
        let restarted = SqliteQueue::open(&queue.folder.path().join("queue.db")).unwrap();
        let restarted = Fixture { queue: restarted, folder: queue.folder };
        assert_eq!(texts(&restarted.receive(1).await), [("a", 2)]);
    }

    #[tokio::test]
    async fn what_is_delivered_too_often_goes_to_the_dead_letters() {
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
    async fn whoever_waits_is_told_to_stop() {
        let fixture = fixture();
        let (stop, mut stopped) = watch::channel(false);
        let receive = fixture.queue.receive(QueueName::Events, 1, Duration::ZERO, &mut stopped);
        let (received, ()) = tokio::join!(receive, async {
            tokio::task::yield_now().await;
            stop.send_replace(true);
        });
        assert_eq!(received.unwrap(), []);
    }

    #[tokio::test]
    async fn a_queue_that_does_not_write_says_so_until_it_does() {
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
    async fn senders_that_come_together_share_a_commit_and_a_failing_commit_fails_them_all() {
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
}
