//! Queues on SQLite, with what Cloudflare Queues offers and no more: batches, delays, attempts, leases that expire, a
//! dead-letter queue, at least once.
//!
//! One thread has the database. It takes every operation that is waiting, carries them out in one transaction, and answers
//! when that is on the disk: requests that arrive together share one commit, so durability costs one fsync for all of
//! them. Settling a batch and leasing the next one share one in the same way.
//!
//! A lease is a due date in the future. A consumer that dies leaves nothing to clean up: the message is due again when the
//! lease ends. A verdict counts only while its lease does, which the attempts tell.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::limits::PLATFORM_DELIVERIES;
use hookmill_core::queue::{Queue, QueueError};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::now;
use crate::sqlite;

/// The queues there are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum QueueName {
    /// Verified events.
    Events,
    /// What was delivered [`PLATFORM_DELIVERIES`] times without a verdict.
    DeadLetters,
}

impl QueueName {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::DeadLetters => "dead-letters",
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
    arrivals: Arc<[Notify; 2]>,
}

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
        let database = sqlite::open(path)?;
        database.execute_batch(
            "CREATE TABLE IF NOT EXISTS messages (
                -- AUTOINCREMENT: a number that was used is not used again, so a late verdict cannot hit another message.
                seq INTEGER PRIMARY KEY AUTOINCREMENT,
                queue TEXT NOT NULL,
                -- Milliseconds since the Unix epoch: when it may be delivered, or delivered again.
                due_at INTEGER NOT NULL,
                attempts INTEGER NOT NULL DEFAULT 0,
                -- Whether due_at is the end of a lease.
                leased INTEGER NOT NULL DEFAULT 0,
                sent_at INTEGER NOT NULL,
                text TEXT NOT NULL
            ) STRICT;
            CREATE INDEX IF NOT EXISTS messages_due ON messages (queue, due_at);",
        )?;
        // The folder is locked, so whoever had a lease is gone.
        for queue in [QueueName::Events, QueueName::DeadLetters] {
            database.execute(
                "UPDATE messages SET due_at = ?2, leased = 0 WHERE queue = ?1 AND due_at > ?2 AND leased = 1",
                params![queue.as_str(), now().millis()],
            )?;
        }
        let (operations, waiting) = mpsc::channel(WAITING);
        let arrivals = Arc::new([Notify::new(), Notify::new()]);
        let thread = Thread { database, arrivals: arrivals.clone() };
        std::thread::Builder::new()
            .name("queue".into())
            .spawn(move || thread.run(waiting))
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(Self { operations, arrivals })
    }

    /// The sending side of a queue.
    pub fn sender(&self, queue: QueueName) -> QueueSender {
        QueueSender { queue: self.clone(), name: queue }
    }

    /// Waits for messages and leases them: at least one and at most `most`, gathered for at most `wait`.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn receive(
        &self,
        queue: QueueName,
        most: usize,
        wait: Duration,
    ) -> Result<Vec<Leased>, QueueError> {
        loop {
            // Registered before looking, so that what comes in between is not missed.
            let arrival = self.arrivals[queue as usize].notified();
            let mut found = Outcome::default();
            if !wait.is_zero() {
                found = self.ask(Task::Count { queue, most }).await?;
                if found.count > 0 {
                    self.gather(queue, most, wait).await?;
                }
            }
            if wait.is_zero() || found.count > 0 {
                found = self.ask(Task::Lease { queue, most }).await?;
                if !found.leased.is_empty() {
                    return Ok(found.leased);
                }
            }
            let _ = tokio::time::timeout(found.next_due_in.unwrap_or(Duration::MAX), arrival).await;
        }
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

    /// Whether the database answers.
    ///
    /// # Errors
    ///
    /// What it says instead.
    pub async fn check(&self) -> Result<(), QueueError> {
        self.ask(Task::Count { queue: QueueName::Events, most: 1 }).await.map(drop)
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
    async fn send(&self, messages: &[String]) -> Result<(), QueueError> {
        self.queue.ask(Task::Send { queue: self.name, messages: messages.to_vec() }).await.map(drop)
    }
}

/// The thread that has the database.
struct Thread {
    database: Connection,
    arrivals: Arc<[Notify; 2]>,
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
        }
    }

    /// Carries out a group in one transaction, then answers each: all of it is on the disk, or none.
    fn carry_out(&mut self, group: &mut Vec<Operation>) {
        let result = (|| {
            let transaction =
                self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let tasks = group.iter().map(|operation| carry_out(&transaction, &operation.task));
            let outcomes = tasks.collect::<rusqlite::Result<Vec<_>>>()?;
            transaction.commit()?;
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
                let error = QueueError(sqlite::text(&error));
                for operation in group.drain(..) {
                    let _ = operation.answer.send(Err(error.clone()));
                }
            }
        }
    }
}

fn carry_out(transaction: &Transaction<'_>, task: &Task) -> rusqlite::Result<Outcome> {
    let now = now().millis();
    match task {
        Task::Send { queue, messages } => {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO messages (queue, due_at, sent_at, text) VALUES (?1, ?2, ?2, ?3)",
            )?;
            for message in messages {
                insert.execute(params![queue.as_str(), now, message])?;
            }
            Ok(Outcome { arrived: Some(*queue), ..Outcome::default() })
        }
        Task::Lease { queue, most } => lease(transaction, *queue, *most, now),
        Task::Settle { queue, verdicts } => {
            let mut remove = transaction
                .prepare_cached("DELETE FROM messages WHERE seq = ?1 AND attempts = ?2")?;
            let mut delay = transaction.prepare_cached(
                "UPDATE messages SET due_at = ?3, leased = 0 WHERE seq = ?1 AND attempts = ?2",
            )?;
            for (seq, attempts, verdict) in verdicts {
                match verdict {
                    Verdict::Ack | Verdict::Bury => remove.execute(params![seq, attempts])?,
                    Verdict::Retry { delay: after } => {
                        delay.execute(params![seq, attempts, now + millis(*after)])?
                    }
                };
            }
            let retried =
                verdicts.iter().any(|(_, _, verdict)| matches!(verdict, Verdict::Retry { .. }));
            Ok(Outcome { arrived: retried.then_some(*queue), ..Outcome::default() })
        }
        Task::Count { queue, most } => {
            let mut count = transaction.prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM messages WHERE queue = ?1 AND due_at <= ?2 LIMIT ?3)",
            )?;
            let count = count.query_row(params![queue.as_str(), now, limit(*most)], |row| {
                row.get::<_, u32>(0)
            })?;
            let next_due_in =
                if count == 0 { next_due_in(transaction, *queue, now)? } else { None };
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            Ok(Outcome { next_due_in, count, ..Outcome::default() })
        }
    }
}

/// How long until a message of the queue is due, if there is any.
fn next_due_in(
    transaction: &Transaction<'_>,
    queue: QueueName,
    now: i64,
) -> rusqlite::Result<Option<Duration>> {
    let next: Option<i64> = transaction
        .prepare_cached("SELECT min(due_at) FROM messages WHERE queue = ?1")?
        .query_row([queue.as_str()], |row| row.get(0))?;
    // At least a millisecond, so that a clock that was set back makes no busy loop.
    Ok(next.map(|due_at| {
        Duration::from_millis(u64::try_from(due_at - now).unwrap_or_default().max(1))
    }))
}

fn lease(
    transaction: &Transaction<'_>,
    queue: QueueName,
    most: usize,
    now: i64,
) -> rusqlite::Result<Outcome> {
    let mut outcome = Outcome::default();
    if queue == QueueName::Events {
        let mut give_up = transaction.prepare_cached(
            "UPDATE messages SET queue = 'dead-letters', attempts = 0, leased = 0
             WHERE queue = 'events' AND due_at <= ?1 AND attempts >= ?2",
        )?;
        if give_up.execute(params![now, PLATFORM_DELIVERIES])? > 0 {
            outcome.arrived = Some(QueueName::DeadLetters);
        }
    }
    let mut update = transaction.prepare_cached(
        "UPDATE messages SET due_at = ?2 + ?4, attempts = attempts + 1, leased = 1
         WHERE seq IN (
            SELECT seq FROM messages WHERE queue = ?1 AND due_at <= ?2 ORDER BY due_at, seq LIMIT ?3
         )
         RETURNING seq, attempts, text",
    )?;
    let row = |row: &rusqlite::Row<'_>| {
        let seq: i64 = row.get(0)?;
        let delivery = Delivery { attempts: row.get(1)?, text: row.get(2)? };
        Ok(Leased { delivery, seq })
    };
    outcome.leased = update
        .query_map(params![queue.as_str(), now, limit(most), millis(LEASE)], row)?
        .collect::<Result<_, _>>()?;
    if outcome.leased.is_empty() {
        outcome.next_due_in = next_due_in(transaction, queue, now)?;
    }
    Ok(outcome)
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
            self.queue.sender(QueueName::Events).send(&texts).await.unwrap();
        }

        async fn receive(&self, most: usize) -> Vec<Leased> {
            self.queue.receive(QueueName::Events, most, Duration::ZERO).await.unwrap()
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
        fixture.sql("UPDATE messages SET due_at = 0");
        let again = fixture.receive(1).await.remove(0);
        assert_eq!(again.delivery.attempts, 2);
        fixture.queue.settle(QueueName::Events, vec![(late, Verdict::Ack)]).await.unwrap();
        fixture.sql("UPDATE messages SET due_at = 0");
        assert_eq!(texts(&fixture.receive(1).await), [("a", 3)], "still there");
    }

    #[tokio::test]
    async fn what_was_leased_when_the_process_died_is_due_at_once() {
        let Fixture { queue, folder } = fixture();
        let queue = Fixture { queue, folder };
        queue.send(&["a"]).await;
        assert_eq!(queue.receive(1).await.len(), 1);
        let restarted = SqliteQueue::open(&queue.folder.path().join("queue.db")).unwrap();
        let again = restarted.receive(QueueName::Events, 1, Duration::ZERO).await.unwrap();
        assert_eq!(texts(&again), [("a", 2)]);
    }

    #[tokio::test]
    async fn what_is_delivered_too_often_goes_to_the_dead_letters() {
        let fixture = fixture();
        fixture.send(&["a", "b"]).await;
        fixture
            .sql(&format!("UPDATE messages SET attempts = {PLATFORM_DELIVERIES} WHERE text = 'a'"));
        let dead = fixture.queue.receive(QueueName::DeadLetters, 10, Duration::ZERO);
        let (live, dead) = tokio::join!(fixture.receive(10), dead);
        assert_eq!(texts(&live), [("b", 1)]);
        assert_eq!(texts(&dead.unwrap()), [("a", 1)]);
    }

    #[tokio::test]
    async fn a_batch_waits_to_be_full() {
        let fixture = fixture();
        let receive = fixture.queue.receive(QueueName::Events, 3, Duration::from_secs(60));
        let send = async {
            for text in ["a", "b", "c"] {
                fixture.send(&[text]).await;
            }
        };
        let (received, ()) = tokio::join!(receive, send);
        assert_eq!(received.unwrap().len(), 3, "full before the wait is over");
        fixture.send(&["d"]).await;
        let rest = fixture.queue.receive(QueueName::Events, 3, Duration::from_millis(20)).await;
        assert_eq!(texts(&rest.unwrap()), [("d", 1)], "not full, and the wait is over");
    }

    #[tokio::test]
    async fn senders_that_come_together_share_a_commit_and_a_failing_commit_fails_them_all() {
        let fixture = fixture();
        let lock = Connection::open(fixture.folder.path().join("queue.db")).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        let sender = fixture.queue.sender(QueueName::Events);
        let messages = ["a".to_owned()];
        let (first, second) = tokio::join!(sender.send(&messages), sender.send(&messages));
        assert!(first.is_err() && second.is_err(), "neither is said to be durable");
        lock.execute_batch("ROLLBACK").unwrap();
        sender.send(&messages).await.unwrap();
        assert_eq!(texts(&fixture.receive(9).await), [("a", 1)]);
    }
}
