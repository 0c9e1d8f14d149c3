//! A sweep finds events that the provider has in its log, and that never arrived. On a real SQLite, with a log that goes on while
//! it is read.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

#[path = "support/provider.rs"]
mod provider;
mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use hookmill_consumers::Fate;
use hookmill_consumers::import::round;
use hookmill_consumers::missed::Swept;
use hookmill_consumers::refetch::Apis;
use hookmill_core::delivery::Delivery;
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::outbound::{ApiRequest, ApiResponse};
use hookmill_core::secret::Secret;
use hookmill_core::time::Timestamp;
use provider::Sent;
use serde_json::{Value, json};
use support::{Fixture, NoObjects, RECEIVED_AT, event};

const RULES: &str = r#"
[sources.s]
scheme = "stripe"
secrets = ["env:A"]
preset = "stripe"
api = { key = "env:STRIPE_API_KEY", rate = 100 }
sweep = "1h"

[[rules]]
name = "counter"
on = ["s:customer.created"]
table = "counts"
key = { day = "data.object.object" }
add = { amount = 1 }

[[rules]]
name = "welcome"
on = ["s:customer.created"]
email = { template = "done", to = "data.object.email", data = { text = "data.object.id", nothing = "data.object.id" } }

[email]
provider = "resend"
from = "a@example.com"

[email.resend]
key = "env:RESEND"

[templates.done]
subject = "done"
html = "done.html"

[retry]
jitter = 0.0

[database]
migrations = "app"
"#;

const TABLES: &str =
    "CREATE TABLE counts (day TEXT NOT NULL PRIMARY KEY, amount INTEGER NOT NULL) STRICT;";
const BEGIN: i64 = RECEIVED_AT.millis();
const DAY: i64 = 24 * 3_600;

/// The log of a provider.
#[derive(Default)]
struct Log {
    /// The newest first.
    events: Mutex<Vec<Value>>,
    /// Statuses of the next answers.
    says: Mutex<Vec<u16>>,
    requests: Mutex<Vec<String>>,
    clock: AtomicI64,
    /// Whether every page is the first one.
    repeats: AtomicBool,
}

impl Log {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.load(Ordering::Relaxed))
    }

    fn later(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }

    /// An event about a customer happens now.
    fn happens(&self, id: &str, kind: &str) -> Value {
        let object =
            json!({ "id": format!("cus_{id}"), "object": "customer", "email": "a@example.com" });
        let event = json!({ "id": id, "object": "event", "type": kind, "created": self.now().seconds(), "data": { "object": object } });
        self.events.lock().unwrap().insert(0, event.clone());
        event
    }
}

impl Fetch for Log {
    async fn ask(&self, request: ApiRequest, _: &Secret) -> Result<ApiResponse, FetchError> {
        let path = request.url.strip_prefix("https://api.stripe.com").unwrap().to_owned();
        let query = path.split_once('?').unwrap().1.to_owned();
        let given = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let repeats = self.repeats.load(Ordering::Relaxed);
        let given = |name: &str| given(name).filter(|_| !repeats || name != "starting_after");
        let number = |name: &str| given(name).unwrap().parse::<i64>().unwrap();
        let (from, until) = (number("created%5Bgte%5D"), number("created%5Blt%5D"));
        let events = self.events.lock().unwrap();
        let events = events
            .iter()
            .filter(|event| (from..until).contains(&event["created"].as_i64().unwrap()));
        let mut left = events
            .skip_while(|event| given("starting_after").is_some_and(|after| event["id"] != *after));
        if given("starting_after").is_some() {
            left.next();
        }
        // Two in a page.
        let page: Vec<_> = left.by_ref().take(2).collect();
        let body = json!({ "object": "list", "data": page, "has_more": left.next().is_some() });
        self.requests.lock().unwrap().push(path);
        let status = self.says.lock().unwrap().pop().unwrap_or(200);
        let body = body.to_string();
        Ok(ApiResponse { status, retry_after: None, message_id: None, date: None, body })
    }
}

struct World {
    fixture: Fixture,
    log: Log,
    queue: Sent,
    apis: Apis,
}

impl World {
    fn new() -> Self {
        let fixture = Fixture::new(RULES, TABLES);
        let apis = Apis::new(&fixture.config, |_| Some(Secret::from("the_key"))).unwrap();
        let log = Log::default();
        log.clock.store(BEGIN, Ordering::Relaxed);
        Self { fixture, log, queue: Sent::default(), apis }
    }

    fn step(&self) -> Swept {
        let Fixture { runtime, store, config, .. } = &self.fixture;
        let now = || self.log.now();
        let round = round(store, &self.log, (&self.queue, &NoObjects), (config, &self.apis), now);
        runtime.block_on(round).unwrap().2
    }

    /// Runs steps until this many seconds have passed. Returns the problems.
    fn pass(&self, seconds: i64) -> Vec<String> {
        let end = self.log.now() + Duration::from_secs(seconds.unsigned_abs());
        let mut problems = Vec::new();
        loop {
            let swept = self.step();
            problems.extend(swept.problem);
            let next = swept.next.unwrap().max(self.log.now() + Duration::from_millis(10));
            self.log.clock.store(next.min(end).millis(), Ordering::Relaxed);
            if next >= end {
                return problems;
            }
        }
    }

    /// Applies what is on the queue. Returns how many events it was.
    fn apply(&self) -> usize {
        let texts = std::mem::take(&mut *self.queue.texts.lock().unwrap());
        let batch: Vec<_> = texts.into_iter().map(|text| Delivery { attempts: 1, text }).collect();
        for (fate, _) in self.fixture.process(&self.fixture.store, &batch) {
            assert!(matches!(fate, Fate::Applied | Fate::Duplicate), "{fate:?}");
        }
        batch.len()
    }

    fn arrives(&self, body: &Value) {
        let (id, kind) = (body["id"].as_str().unwrap(), body["type"].as_str().unwrap());
        let batch = [event(id, kind, &body.to_string(), 1)];
        assert_eq!(self.fixture.process(&self.fixture.store, &batch)[0].0, Fate::Applied);
    }

    fn state(&self) -> Vec<String> {
        let sql = "SELECT CAST(found AS TEXT), CAST(found_last AS TEXT), error FROM sweeps";
        self.fixture.rows(sql).pop().unwrap()
    }

    fn ids(&self, sql: &str) -> Vec<String> {
        self.fixture.rows(sql).concat()
    }
}

#[test]
fn events_that_never_arrived_are_found_and_others_are_not() {
    let world = World::new();
    // The first sweep begins now: what was before is for an import.
    world.log.events.lock().unwrap().clear();
    assert_eq!(world.pass(10), [""; 0]);
    let mut delivered = Vec::new();
    for n in 0..7 {
        world.log.later(60);
        let event = world.log.happens(&format!("evt_{n}"), "customer.created");
        if n % 2 == 0 {
            delivered.push(event);
        }
    }
    world.log.happens("evt_unnamed", "balance.available");
    for event in &delivered {
        world.arrives(event);
    }
    // Nothing is looked for before it may have arrived.
    assert_eq!(world.pass(3_500), [""; 0]);
    assert_eq!(world.apply(), 3);
    assert_eq!(
        world.ids("SELECT id FROM events WHERE secret = -1 ORDER BY id"),
        ["evt_1", "evt_3", "evt_5"]
    );
    assert_eq!(world.ids("SELECT CAST(amount AS TEXT) FROM counts"), ["7"]);
    assert_eq!(world.ids("SELECT CAST(count(*) AS TEXT) FROM outbox"), ["7"], "each sends once");
    assert_eq!(world.state()[..2], ["3", "3"]);
    // This one is on its way when the next sweep comes. The sweeps overlap, and find what is new.
    world.log.later(60);
    world.log.happens("evt_late", "customer.created");
    world.pass(120);
    assert_eq!(world.apply(), 0);
    world.pass(3_600);
    assert_eq!(world.apply(), 1);
    world.pass(3_600);
    assert_eq!(world.apply(), 0);
    assert_eq!(world.state(), ["4", "0", "NULL"]);
    assert_eq!(world.ids("SELECT CAST(amount AS TEXT) FROM counts"), ["8"]);
}

#[test]
fn a_week_without_us_is_healed_and_sends_nothing_old() {
    let world = World::new();
    world.pass(10);
    for n in 0..9 {
        world.log.later(DAY - 600);
        world.log.happens(&format!("evt_{n}"), "customer.created");
    }
    world.log.later(700);
    // The log fails, and a process ends between two pages.
    world.log.says.lock().unwrap().extend([500, 429, 200, 403]);
    let problems = world.pass(3_000);
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(
        problems[0].contains("response 403; check that the key STRIPE_API_KEY can read events"),
        "{problems:?}"
    );
    assert_eq!(world.apply(), 9);
    assert_eq!(world.ids("SELECT CAST(amount AS TEXT) FROM counts"), ["9"]);
    assert_eq!(
        world.ids("SELECT event_id FROM outbox"),
        ["evt_8"],
        "the others are older than a day"
    );
    assert_eq!(world.state(), ["9", "9", "NULL"]);
}

#[test]
fn a_dead_letter_and_a_waiting_event_are_known() {
    let world = World::new();
    world.pass(10);
    for id in ["evt_dead", "evt_retried", "evt_new"] {
        world.log.happens(id, "customer.created");
    }
    let database = world.fixture.connect();
    database
        .execute_batch(
            "INSERT INTO dead_letters (id, source, event_id, generation, reason, error, fingerprint, attempts, first_failed_at, last_failed_at, message)
             VALUES ('1', 's', 'evt_dead', 0, 'refused', '', '', 1, 0, 0, '');
             INSERT INTO retries (source, id, generation, type, received_at, attempts, failures, due_at, begun, updated_at)
             VALUES ('s', 'evt_retried', 0, 'customer.created', 0, 1, '[]', 1, 0, 0)",
        )
        .unwrap();
    world.pass(4_000);
    assert_eq!(world.apply(), 1);
    assert_eq!(world.ids("SELECT id FROM events"), ["evt_new"]);
}

#[test]
fn a_page_that_repeats_itself_ends() {
    let world = World::new();
    world.log.repeats.store(true, Ordering::Relaxed);
    for n in 0..5 {
        world.log.later(-400);
        world.log.happens(&format!("evt_{n}"), "customer.created");
    }
    world.log.later(2_000);
    let problems = world.pass(60);
    assert!(problems[0].contains("the page has the same events as the one before"), "{problems:?}");
    assert!(world.log.requests.lock().unwrap().len() < 10, "it waits between two requests");
    // Whatever came before is there.
    assert_eq!(world.apply(), 2);
}

#[test]
fn a_clock_that_was_ahead_hides_no_event() {
    let world = World::new();
    world.log.later(5 * 3_600);
    world.pass(10);
    world.log.later(-5 * 3_600);
    world.log.later(60);
    world.log.happens("evt_1", "customer.created");
    world.pass(7_200);
    assert_eq!(world.apply(), 1);
    world.pass(7_200);
    assert_eq!(world.apply(), 0);
}
