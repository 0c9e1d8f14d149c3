//! A provider whose API lists objects, as Stripe, Clerk and Paddle do, and a world with jobs that read it.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, reason = "clippy does not know that this is a test")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use hookmill_consumers::Fate;
use hookmill_consumers::import::{Imported, round};
use hookmill_consumers::refetch::Apis;
use hookmill_core::delivery::Delivery;
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::outbound::{ApiRequest, ApiResponse};
use hookmill_core::queue::{Backlog, Queue, QueueError};
use hookmill_core::secret::Secret;
use hookmill_core::store::{Statement, Store};
use hookmill_core::time::Timestamp;
use hookmill_core::words::JobKind;
use hookmill_dlq::import::{ImportFilter, plan_job};
use hookmill_dlq::reconcile::ReconcileFilter;
use hookmill_dlq::replay::run_replay;
use serde::Serialize;
use serde_json::{Value, json};

use crate::support::{Fixture, NoObjects, RECEIVED_AT};

pub const RULES: &str = r#"
[sources.s]
scheme = "stripe"
secrets = ["env:A"]
preset = "stripe"
api = { key = "env:STRIPE_API_KEY", rate = 10 }
api_version = ["2026-10-28.endive"]

[sources.c]
scheme = "clerk"
secrets = ["env:A"]
preset = "clerk"
api = { key = "env:CLERK_API_KEY" }

[sources.p]
scheme = "paddle"
secrets = ["env:A"]
preset = "paddle"
api = { key = "env:PADDLE_API_KEY" }

[sources.alone]
scheme = "stripe"
secrets = ["env:A"]

# Neither counts nor sends for an imported object.
[[rules]]
name = "counter"
on = ["s:customer.*"]
table = "counts"
key = { day = "data.object.object" }
add = { amount = 1 }

[retry]
jitter = 0.0

[database]
migrations = "app"
"#;

pub const TABLES: &str =
    "CREATE TABLE counts (day TEXT NOT NULL PRIMARY KEY, amount INTEGER NOT NULL) STRICT;
    CREATE TABLE names (id TEXT NOT NULL PRIMARY KEY, name TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
        _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT;
    CREATE TABLE owners (id TEXT NOT NULL PRIMARY KEY, note TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
        _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT;
    CREATE TABLE contracts (id TEXT NOT NULL PRIMARY KEY, owner TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
        _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT;
    CREATE INDEX contracts_owner ON contracts (owner);
    CREATE TABLE papers (id TEXT NOT NULL PRIMARY KEY, contract TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
        _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT;
    CREATE INDEX papers_contract ON papers (contract);";

/// The time at which a test begins, in milliseconds.
pub const BEGIN: i64 = RECEIVED_AT.millis();

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Mood {
    Says(u16),
    Waits(u64),
    /// A proxy answers in its place.
    Proxy,
    IsAway,
    Is(String),
    /// The answer comes after this time in milliseconds. The state is that of the request.
    Takes(i64),
}

/// A provider's objects, by the path of their list, in the order of its pages.
#[derive(Default)]
pub struct Provider {
    pub lists: Mutex<BTreeMap<&'static str, Vec<Value>>>,
    pub moods: Mutex<Vec<Mood>>,
    pub requests: Mutex<Vec<ApiRequest>>,
    pub clock: AtomicI64,
    /// By how many seconds its own clock is ahead.
    pub ahead: AtomicI64,
}

impl Provider {
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.load(Ordering::Relaxed))
    }

    pub fn later(&self, millis: i64) {
        self.clock.fetch_add(millis, Ordering::Relaxed);
    }

    pub fn paths(&self) -> Vec<String> {
        let paths = |request: &ApiRequest| request.url.split(".com").nth(1).unwrap().to_owned();
        self.requests.lock().unwrap().iter().map(paths).collect()
    }

    /// A page as Stripe, Clerk or Paddle has it, or an object.
    pub fn page(&self, url: &str) -> Option<Value> {
        let (host, rest) = url.strip_prefix("https://")?.split_once('/')?;
        if !rest.contains('?') {
            let (path, wanted) = rest.rsplit_once('/')?;
            let lists = self.lists.lock().unwrap();
            let object = lists.get(path)?.iter().find(|object| object["id"] == wanted)?.clone();
            return Some(if host == "api.paddle.com" { json!({ "data": object }) } else { object });
        }
        let (path, query) = rest.split_once('?')?;
        let query: BTreeMap<_, _> =
            query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let lists = self.lists.lock().unwrap();
        let all = lists.get(path).cloned().unwrap_or_default();
        let number = |name: &str| query.get(name).and_then(|n| n.parse::<usize>().ok());
        let after = |id: &str| all.iter().position(|object| object["id"] == id).map(|at| at + 1);
        Some(match host {
            "api.stripe.com" => {
                // An object that was deleted is no place to go on from.
                let from = query.get("starting_after").map_or(Some(0), |id| after(id))?;
                let page: Vec<_> = all.iter().skip(from).take(number("limit")?).cloned().collect();
                let more = from + page.len() < all.len();
                json!({ "object": "list", "data": page, "has_more": more })
            }
            "api.clerk.com" => {
                let from = number("offset").unwrap_or_default();
                let page: Vec<_> = all.iter().skip(from).take(number("limit")?).cloned().collect();
                if path == "v1/users" {
                    page.into()
                } else {
                    json!({ "data": page, "total_count": all.len() })
                }
            }
            _ => {
                let from = query.get("after").map_or(Some(0), |id| after(id))?;
                let page: Vec<_> = all.iter().skip(from).take(3).cloned().collect();
                let last = page.last().map(|object| object["id"].as_str().unwrap().to_owned());
                let next = format!(
                    "https://internal.paddle.com/{path}?after={}",
                    last.unwrap_or_default()
                );
                let more = from + page.len() < all.len();
                json!({ "data": page, "meta": { "pagination": { "next": next, "has_more": more } } })
            }
        })
    }
}

impl Fetch for Provider {
    async fn ask(&self, request: ApiRequest, key: &Secret) -> Result<ApiResponse, FetchError> {
        let authorization = ("authorization", "Bearer the_key".to_owned());
        assert_eq!(request.authorize(key), Some(authorization));
        let page = self.page(&request.url);
        self.requests.lock().unwrap().push(request);
        let mut response = ApiResponse {
            status: if page.is_some() { 200 } else { 404 },
            retry_after: None,
            message_id: None,
            date: None,
            body: page
                .unwrap_or_else(|| json!({ "error": { "message": "no such object" } }))
                .to_string(),
        };
        let mood = self.moods.lock().unwrap().pop();
        match mood {
            Some(Mood::Says(status)) => {
                response.status = status;
                response.body = json!({ "error": { "message": "not today" } }).to_string();
            }
            Some(Mood::Waits(seconds)) => {
                response.status = 429;
                response.retry_after = Some(seconds.to_string());
            }
            Some(Mood::Proxy) => {
                response.status = 404;
                response.body = "<html>nothing here</html>".into();
            }
            Some(Mood::IsAway) => return Err(FetchError::NoAnswer("the_key is away".into())),
            Some(Mood::Is(body)) => {
                response.status = 200;
                response.body = body;
            }
            Some(Mood::Takes(millis)) => self.later(millis),
            None => {}
        }
        let ahead = self.ahead.load(Ordering::Relaxed);
        let date = Timestamp::from_millis(self.now().millis() + ahead * 1_000);
        let date = date.format("%a, %d %b %Y %H:%M:%S GMT");
        Ok(ApiResponse { date, ..response })
    }
}

/// A queue that keeps what it is sent, or refuses it.
#[derive(Default)]
pub struct Sent {
    pub texts: Mutex<Vec<String>>,
    pub refuses: Mutex<bool>,
}

impl Queue for Sent {
    async fn send(&self, messages: Vec<String>) -> Result<(), QueueError> {
        if std::mem::take(&mut *self.refuses.lock().unwrap()) {
            return Err(QueueError("full".into()));
        }
        self.texts.lock().unwrap().extend(messages);
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        Ok(Backlog::default())
    }
}

pub struct World {
    pub fixture: Fixture,
    pub provider: Provider,
    pub queue: Sent,
    pub apis: Apis,
}

/// Rules for a table of the user's that does not say to which account an object belongs.
pub const NAMES: &str = r#"
[[rules]]
name = "names"
on = ["s:customer.updated"]
table = "names"
key = { id = "data.object.id" }
version = "created"
set = { name = "data.object.name" }

[[rules]]
name = "names-deleted"
on = ["s:customer.deleted"]
table = "names"
key = { id = "data.object.id" }
version = "created"
delete = "*"
final = true
"#;

impl World {
    pub fn new() -> Self {
        Self::with("")
    }

    /// A world with further rules.
    pub fn with(rules: &str) -> Self {
        let fixture = Fixture::new(&format!("{RULES}{rules}"), TABLES);
        let apis = Apis::new(&fixture.config, |_| Some(Secret::from("the_key\n"))).unwrap();
        let provider = Provider::default();
        provider.later(BEGIN);
        Self { fixture, provider, queue: Sent::default(), apis }
    }

    pub fn change(&self, statement: Statement) -> usize {
        let rows = self.fixture.runtime.block_on(self.fixture.store.execute(vec![statement]));
        rows.unwrap()[0].len()
    }

    /// Plans an import and runs it.
    pub fn start(&self, id: &str, source: &str, only: &[&str]) {
        let only = only.iter().map(|name| (*name).to_owned()).collect();
        let filter = ImportFilter { source: source.to_owned(), only, account: None };
        self.run(id, JobKind::Import, &filter);
    }

    /// Plans a reconciliation and runs it.
    pub fn reconcile(&self, id: &str, filter: &ReconcileFilter) {
        self.run(id, JobKind::Reconcile, filter);
    }

    pub fn run(&self, id: &str, kind: JobKind, filter: &impl Serialize) {
        let now = self.provider.now();
        self.change(plan_job(id, kind, filter, "ines", now));
        assert_eq!(self.change(run_replay(id, 1000, "a new mirror", "ines", now)), 1);
    }

    pub fn step(&self) -> Imported {
        let Fixture { runtime, store, config, .. } = &self.fixture;
        let (queue, now) = (&self.queue, || self.provider.now());
        let round = round(store, &self.provider, (queue, &NoObjects), (config, &self.apis), now);
        runtime.block_on(round).unwrap().1
    }

    /// Runs steps until no import runs. Returns their problems.
    pub fn steps(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for _ in 0..200 {
            let imported = self.step();
            problems.extend(imported.problem);
            let Some(next) = imported.next else { return problems };
            self.provider.later(i64::try_from((next - self.provider.now()).as_millis()).unwrap());
        }
        panic!("there is no end to it: {problems:?}");
    }

    /// Applies what is on the queue.
    pub fn apply(&self) {
        let texts = std::mem::take(&mut *self.queue.texts.lock().unwrap());
        self.applied(
            &texts.into_iter().map(|text| Delivery { attempts: 1, text }).collect::<Vec<_>>(),
        );
    }

    pub fn applied(&self, batch: &[Delivery]) {
        for (fate, _) in self.fixture.process(&self.fixture.store, batch) {
            assert!(matches!(fate, Fate::Applied | Fate::Duplicate), "{fate:?}");
        }
    }

    /// State, sent, applied, failed, error.
    pub fn job(&self) -> Vec<String> {
        let sql = "SELECT state, CAST(sent AS TEXT), CAST(applied AS TEXT), CAST(failed AS TEXT), error FROM replays";
        self.fixture.rows(sql).pop().unwrap()
    }

    pub fn error(&self, id: &str) -> String {
        self.fixture.rows(&format!("SELECT error FROM replays WHERE id = '{id}'"))[0][0].clone()
    }

    /// Changes what a list has.
    pub fn change_list(&self, path: &str, change: impl FnOnce(&mut Vec<Value>)) {
        change(self.provider.lists.lock().unwrap().get_mut(path).unwrap());
    }

    pub fn lists(&self, path: &'static str, objects: Vec<Value>) {
        self.provider.lists.lock().unwrap().insert(path, objects);
    }

    pub fn count(&self, table: &str) -> String {
        self.fixture.rows(&format!("SELECT CAST(count(*) AS TEXT) FROM {table}"))[0][0].clone()
    }
}

pub fn customer(id: &str, name: &str) -> Value {
    json!({ "id": id, "object": "customer", "name": name, "livemode": false })
}

pub fn subscription(id: &str, status: &str, quantities: &[i64]) -> Value {
    let item = |(place, quantity): (usize, &i64)| json!({ "id": format!("{id}_{place}"), "quantity": quantity, "price": { "id": "price_1" } });
    let items: Vec<_> = quantities.iter().enumerate().map(item).collect();
    json!({ "id": id, "object": "subscription", "status": status, "customer": "cus_1", "items": { "data": items, "has_more": false } })
}
