//! The world outside the stages: the clock, the store, the queue, the object store, and what they do wrong.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::limits::MESSAGE_BYTES;
use hookmill_core::log::Entry;
use hookmill_core::message::{BodyForm, Envelope, decode};
use hookmill_core::objects::{ObjectError, Objects, StoredObject};
use hookmill_core::outbound::{ApiRequest, ApiResponse};
use hookmill_core::queue::{Backlog, Queue, QueueError};
use hookmill_core::secret::{ExposeSecret as _, Secret};
use hookmill_core::store::{Param, Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_native::{QueueName, transaction};
use rusqlite::{Connection, TransactionBehavior};

use crate::choice::Choices;
use crate::outside::Outside;

/// The beginning of every history, in milliseconds since the Unix epoch.
pub const START: i64 = 1_798_761_600_000;

thread_local! {
    /// What the machines' clocks show, in milliseconds since the Unix epoch.
    static CLOCK: Cell<i64> = const { Cell::new(START) };
}

/// The time that the machines' clocks show.
pub fn now() -> Timestamp {
    Timestamp::from_millis(CLOCK.get())
}

/// What a task waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Nothing: it can go on.
    Ready,
    /// This time, in true milliseconds.
    Until(i64),
    /// A message on this queue.
    Messages(QueueName),
}

/// What goes wrong with a call of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// It has no effect.
    Before,
    /// It has its effect, and the caller gets an error.
    After,
}

/// A message on a queue.
#[derive(Clone)]
pub struct Queued {
    id: u64,
    text: String,
    attempts: u32,
    sent_at: i64,
    due_at: i64,
    /// The machine that processes it, and until when.
    lease: Option<(usize, i64)>,
}

/// The time for which a queue waits for a verdict.
const LEASE: i64 = 300_000;
/// The number of deliveries after which a queue gives up a message: that of `wrangler.toml`, or a low one.
const DELIVERIES: [u32; 2] = [100, 2];

/// Everything that the stages share, and what they cannot see.
pub struct World {
    pub choices: Choices,
    /// The true time.
    time: i64,
    /// By how much the machines' clocks are ahead.
    skew: i64,
    pub database: Connection,
    pub queues: BTreeMap<&'static str, Vec<Queued>>,
    pub objects: BTreeMap<String, (Vec<u8>, i64)>,
    pub outside: Outside,
    /// Whether anything can go wrong.
    pub is_troubled: bool,
    /// What the task that runs will wait for.
    pub wait: Option<Wait>,
    /// What must not be in any log line.
    pub secrets: Vec<String>,
    /// The ids of the events that took effect, each with the number of the look that found it first.
    pub applied: BTreeMap<String, usize>,
    /// The objects of the API that an import has applied.
    pub imported: BTreeSet<String>,
    looks: usize,
    /// The objects that Hookmill gave up fetching.
    pub unfetched: BTreeSet<String>,
    /// Whether anything durable has changed since the last look.
    has_changed: bool,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// The trace of the history, if its report needs one.
    pub trace: Option<Vec<String>>,
    messages: u64,
    deliveries: u32,
    /// The number of statements with random bytes.
    blobs: usize,
}

impl World {
    pub fn new(mut choices: Choices, database: Connection, secrets: Vec<String>) -> Self {
        CLOCK.set(START);
        let deliveries = DELIVERIES[usize::from(choices.once_in(4))];
        let queues = QueueName::ALL.map(|name| (name.prefix(), Vec::new())).into();
        Self {
            choices,
            time: START,
            skew: 0,
            database,
            queues,
            objects: BTreeMap::new(),
            outside: Outside::default(),
            is_troubled: true,
            wait: None,
            secrets,
            applied: BTreeMap::new(),
            imported: BTreeSet::new(),
            looks: 0,
            unfetched: BTreeSet::new(),
            has_changed: false,
            violations: Vec::new(),
            trace: None,
            messages: 0,
            deliveries,
            blobs: 0,
        }
    }

    pub const fn time(&self) -> i64 {
        self.time
    }

    pub fn pass(&mut self, millis: i64) {
        self.set_clock(self.time + millis, self.skew);
    }

    /// Sets the machines' clocks ahead by this much, or puts them right.
    pub fn jump(&mut self, skew: i64) {
        self.note(|| format!("the clocks are {} s ahead", skew / 1000));
        self.set_clock(self.time, skew);
    }

    fn set_clock(&mut self, time: i64, skew: i64) {
        (self.time, self.skew) = (time, skew);
        CLOCK.set(time + skew);
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10} ms  {}", self.time - START, what()));
        }
    }

    pub fn violated(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// A line of the log. Whatever happens, it contains nothing secret.
    pub fn log(&mut self, entry: &Entry) {
        let fields = entry.fields.present().map(|(name, value)| format!(" {name}={value}"));
        let line = format!("{}{}", entry.message, fields.collect::<String>());
        if let Some(secret) = self.secrets.iter().find(|secret| line.contains(*secret)) {
            let problem = format!("the log contains {secret:?}: {line}");
            self.violated(problem);
        }
        self.note(|| format!("log: {line}"));
    }

    /// Queues are asked seldom, so they fail more often.
    fn fault(&mut self, what: &str) -> Fault {
        let times = if what.contains("queue") { 6 } else { 25 };
        if !self.is_troubled || !self.choices.once_in(times) {
            return Fault::None;
        }
        let fault = if self.choices.once_in(2) { Fault::After } else { Fault::Before };
        self.note(|| format!("{what} fails, {fault:?}"));
        fault
    }

    /// Runs a transaction as the native store does, but at the time of this world, and with random bytes that repeat.
    pub fn run(&mut self, mut statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        for statement in statements.iter_mut().filter(|it| it.sql.contains("randomblob")) {
            self.blobs += 1;
            let (names, values) = ("randomblob(", format!("abs({} * ", self.blobs));
            statement.sql = statement.sql.replace(names, &values).into();
        }
        for param in statements.iter_mut().flat_map(|statement| &mut statement.params) {
            if *param == Param::Now {
                *param = Param::Integer(CLOCK.get());
            }
        }
        let changes = self.database.total_changes();
        let rows = transaction(&mut self.database, TransactionBehavior::Immediate, &statements)?;
        self.has_changed |= self.database.total_changes() != changes;
        self.look_at_fetch(&statements);
        Ok(rows)
    }

    /// Records the end of a fetch. Without rows, Hookmill gave up, and the order of ids decides.
    fn look_at_fetch(&mut self, statements: &[Statement]) {
        // The last one asks when the next object is due.
        let [rows @ .., done, _] = statements else { return };
        if let [_, Param::Text(path), ..] = done.params.as_slice()
            && done.sql.starts_with("-- the object was fetched")
            && let Some((_, object)) = path.rsplit_once('/')
        {
            match rows {
                [] => drop(self.unfetched.insert(object.to_owned())),
                _ => drop(self.unfetched.remove(object)),
            }
        }
    }

    /// Records the events that have taken effect. Returns `None` if nothing durable has changed since the last look, and
    /// otherwise whether there are new ones.
    pub fn look(&mut self) -> Option<bool> {
        if !std::mem::take(&mut self.has_changed) {
            return None;
        }
        self.looks += 1;
        let before = self.applied.len() + self.imported.len();
        for mut row in self.rows("SELECT id FROM events WHERE generation > 0 AND id LIKE 'cus%'") {
            self.imported.insert(row.remove(0));
        }
        for mut row in self.rows("SELECT id FROM events WHERE generation = 0") {
            self.applied.entry(row.remove(0)).or_insert(self.looks);
        }
        Some(self.applied.len() + self.imported.len() > before)
    }

    /// Whether a message on a queue is about this event.
    pub fn is_queued(&self, id: &str) -> bool {
        let id = format!("\"{id}\"");
        self.queues.values().flatten().any(|queued| queued.text.contains(&id))
    }

    /// Whether a row still needs this body, or a message about an event that has not taken effect.
    fn is_needed(&self, key: &str) -> bool {
        let kept = "SELECT body_key FROM event_messages WHERE body_key IS NOT NULL
             UNION SELECT body_key FROM dead_letters WHERE body_key IS NOT NULL";
        let is_first = |id: &str| {
            let seen = self.rows("SELECT id FROM events WHERE generation = 0");
            !seen.iter().any(|row| row[0] == id)
        };
        let waits = |queued: &Queued| match decode(&queued.text).ok().map(|sent| sent.envelope) {
            Some(Envelope { id, generation: 0, body: BodyForm::Object(check), .. }) => {
                check.key == key && is_first(&id)
            }
            _ => false,
        };
        self.rows(kept).iter().any(|row| row[0] == key) || self.queues.values().flatten().any(waits)
    }

    /// The texts of a query.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let mut query = self.database.prepare_cached(sql).expect(sql);
        let columns = query.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let text = |column| Ok(row.get::<_, Option<String>>(column)?.unwrap_or_default());
            (0..columns).map(text).collect()
        };
        let rows = query.query_map([], row).expect(sql);
        rows.collect::<Result<_, _>>().expect(sql)
    }

    fn queue(&mut self, name: QueueName) -> &mut Vec<Queued> {
        self.queues.get_mut(name.prefix()).expect("every queue exists")
    }

    fn put(&mut self, name: QueueName, text: String) {
        if text.len() > MESSAGE_BYTES {
            self.violated(format!("a message of {} bytes, which no queue takes", text.len()));
        }
        self.messages += 1;
        let (id, time) = (self.messages, self.time);
        let late = if self.is_troubled && self.choices.once_in(10) {
            1000 * i64::try_from(self.choices.below(120)).unwrap_or_default()
        } else {
            0
        };
        let queued =
            Queued { id, text, attempts: 0, sent_at: time, due_at: time + late, lease: None };
        self.queue(name).push(queued);
    }

    /// When the next message of a queue is due; none if it is empty.
    pub fn next_message(&self, name: QueueName) -> Option<i64> {
        let due = |queued: &Queued| queued.due_at.max(queued.lease.map_or(0, |(_, end)| end));
        self.queues[name.prefix()].iter().map(due).min()
    }

    /// The messages of an ended machine are free.
    pub fn free(&mut self, machine: usize) {
        for queued in self.queues.values_mut().flatten() {
            queued.lease = queued.lease.filter(|(holder, _)| *holder != machine);
        }
    }

    /// Leases messages that are due, in any order, and not always all.
    fn lease(&mut self, machine: usize, name: QueueName, most: usize) -> Vec<(u64, Delivery)> {
        let time = self.time;
        let mut batch = Vec::new();
        let mut given_up = Vec::new();
        let mut queue = std::mem::take(self.queue(name));
        queue.retain_mut(|queued| {
            let is_free = queued.lease.is_none_or(|(_, end)| end <= time);
            let is_taken = is_free && queued.due_at <= time && batch.len() < most;
            if !is_taken || (self.is_troubled && self.choices.once_in(4)) {
                return true;
            }
            if queued.attempts >= self.deliveries {
                given_up.push(queued.text.clone());
                return false;
            }
            queued.attempts += 1;
            queued.lease = Some((machine, time + LEASE));
            let delivery = Delivery { attempts: queued.attempts, text: queued.text.clone() };
            batch.push((queued.id, delivery));
            true
        });
        *self.queue(name) = queue;
        for text in given_up {
            self.put(QueueName::DeadLetters, text);
        }
        let end = batch.len();
        for place in 1..end {
            let other = if self.is_troubled { self.choices.below(place + 1) } else { place };
            batch.swap(place, other);
        }
        batch
    }

    fn settle(&mut self, name: QueueName, id: u64, verdict: Verdict) {
        let time = self.time;
        // A queue delivers at least once.
        let is_repeated = self.is_troubled && self.choices.once_in(8);
        let queue = self.queue(name);
        let Some(place) = queue.iter().position(|queued| queued.id == id) else { return };
        match verdict {
            Verdict::Retry { delay } => {
                let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
                queue[place].due_at = time + delay;
                queue[place].lease = None;
            }
            Verdict::Ack | Verdict::Bury if is_repeated => queue[place].lease = None,
            Verdict::Ack | Verdict::Bury => {
                queue.remove(place);
                self.has_changed = true;
            }
        }
    }
}

/// A process with its connections to the world. Each call waits before and after its effect, and may be the last.
#[derive(Clone)]
pub struct Machine {
    pub number: usize,
    world: Arc<Mutex<World>>,
}

impl Machine {
    pub const fn new(number: usize, world: Arc<Mutex<World>>) -> Self {
        Self { number, world }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no task panics while it holds the world")
    }

    /// Lets others run, or ends here if the machine does.
    async fn pause(&self) {
        let times = self.world().choices.below(3);
        for _ in 0..times {
            Yield(false).await;
        }
    }

    /// Waits for this time to pass, or for a message.
    pub async fn wait(&self, wait: Wait) {
        let machine = self.clone();
        let mut is_over = false;
        std::future::poll_fn(move |_| {
            if std::mem::replace(&mut is_over, true) {
                return Poll::Ready(());
            }
            machine.world().wait = Some(wait);
            Poll::Pending
        })
        .await;
    }

    pub async fn sleep(&self, time: Duration) {
        let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2);
        let until = self.world().time() + millis;
        self.wait(Wait::Until(until)).await;
    }

    pub fn sender(&self, queue: QueueName) -> Sender {
        Sender { machine: self.clone(), queue }
    }

    /// Receives a batch; empty if nothing is due, or the queue fails.
    pub async fn receive(&self, queue: QueueName, most: usize) -> Vec<(u64, Delivery)> {
        self.pause().await;
        let batch = self.world().lease(self.number, queue, most);
        self.pause().await;
        batch
    }

    /// Settles a message. If the verdict is lost, the queue delivers it again.
    pub fn settle(&self, queue: QueueName, id: u64, verdict: Verdict) {
        let mut world = self.world();
        if world.fault("settling") == Fault::None {
            world.settle(queue, id, verdict);
        }
    }

    async fn call<T, E>(
        &self,
        what: &str,
        effect: impl FnOnce(&mut World) -> Result<T, E>,
        error: impl FnOnce() -> E,
    ) -> Result<T, E> {
        self.pause().await;
        let fault = self.world().fault(what);
        if fault == Fault::Before {
            return Err(error());
        }
        let result = effect(&mut self.world());
        self.pause().await;
        if fault == Fault::After { Err(error()) } else { result }
    }
}

/// Lets others run once.
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Store for Machine {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let away = || StoreError::Unavailable("simulated".to_owned());
        self.call("a transaction", |world| world.run(statements), away).await
    }
}

impl Objects for Machine {
    async fn put(&self, key: &str, body: &[u8]) -> Result<(), ObjectError> {
        let put = |world: &mut World| {
            let stored_at = world.time;
            world.objects.insert(key.to_owned(), (body.to_vec(), stored_at));
            Ok(())
        };
        self.call("storing a body", put, object_error).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        let get = |world: &mut World| Ok(world.objects.get(key).map(|(body, _)| body.clone()));
        self.call("reading a body", get, object_error).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let delete = |world: &mut World| {
            if world.is_needed(key) {
                world.violated(format!("the body {key} is removed, and still needed"));
            }
            world.objects.remove(key);
            Ok(())
        };
        self.call("removing a body", delete, object_error).await
    }

    async fn list(&self, after: &str) -> Result<Vec<StoredObject>, ObjectError> {
        let list = |world: &mut World| {
            let objects = world.objects.iter().filter(|(key, _)| key.as_str() > after).take(3);
            let stored = |(key, (_, at)): (&String, &(_, i64))| StoredObject {
                key: key.clone(),
                stored_at: Timestamp::from_millis(*at),
            };
            Ok(objects.map(stored).collect())
        };
        self.call("listing bodies", list, object_error).await
    }
}

fn object_error() -> ObjectError {
    ObjectError("simulated".to_owned())
}

/// A machine that sends to a queue.
pub struct Sender {
    machine: Machine,
    queue: QueueName,
}

impl Queue for Sender {
    async fn send(&self, messages: Vec<String>) -> Result<(), QueueError> {
        let put = |world: &mut World| {
            for text in messages {
                world.put(self.queue, text);
            }
            Ok(())
        };
        let failed = || QueueError("simulated".to_owned());
        self.machine.call("sending to a queue", put, failed).await
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        let backlog = |world: &mut World| {
            let queue = &world.queues[self.queue.prefix()];
            let oldest = queue.iter().map(|queued| queued.sent_at).min();
            Ok(Backlog {
                messages: queue.len() as u64,
                oldest: oldest.map(|at| Timestamp::from_millis(at + world.skew)),
            })
        };
        self.machine.call("a look at a queue", backlog, || QueueError("simulated".to_owned())).await
    }
}

impl Fetch for Machine {
    async fn ask(&self, request: ApiRequest, key: &Secret) -> Result<ApiResponse, FetchError> {
        self.pause().await;
        let answer = self.world().answer(&request, key.expose_secret());
        self.pause().await;
        answer
    }
}
