//! The cost of every statement, by SQLite's own counters: equal in large and small tables, and proportional to a list. No
//! clock is read, so a slow machine changes nothing.
//!
//! The statements are those of the pipeline: every stage runs here on a store that counts.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookmill_admin::auth::GuardMemory;
use hookmill_admin::{BASE, Platform, QueueBacklog, local};
use hookmill_config::{Admin, Config, Consumers, Retention};
use hookmill_consumers::alert::{Alarm, look};
use hookmill_consumers::counters::Counters;
use hookmill_consumers::outbox::{OutboxChannel, resume, rounds, stranded};
use hookmill_consumers::{import, process_batch, refetch};
use hookmill_core::delivery::Delivery;
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::message::{
    BodyForm, ClaimCheck, Envelope, VERSION, Verified, decode, encode, encode_claim_check,
};
use hookmill_core::objects::{ObjectError, Objects, StoredObject};
use hookmill_core::outbound::{ApiRequest, ApiResponse};
use hookmill_core::queue::{Backlog, Queue, QueueError};
use hookmill_core::rejection::Reason;
use hookmill_core::report::{Report, Tally};
use hookmill_core::request::Request;
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::store::{Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_core::words::JobKind;
use hookmill_dlq::import::{ImportFilter, plan_job};
use hookmill_dlq::reconcile::ReconcileFilter;
use hookmill_dlq::replay::{LetterFilter, plan_replay, replay_id, run_replay, step};
use hookmill_dlq::unsent::remove_unsent;
use hookmill_dlq::{drain, record_rejections, status, sweep};
use hookmill_native::{plan_once, rows};
use hookmill_providers::{Admitted, Verifier, development, sign};
use hookmill_tests::{PRESETS, fixtures};

use rusqlite::{Connection, StatementStatus};
use serde_json::{Value, json};

/// The time of every run.
const NOW: i64 = 1_798_761_600_000;

/// The cost of one statement.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Cost {
    sql: Arc<str>,
    /// Rows of tables that it scanned without an index.
    scanned: i32,
    /// Instructions of SQLite's virtual machine.
    steps: i32,
}

/// A store on SQLite that records the cost of each statement.
struct Counted {
    database: Mutex<Connection>,
    costs: Mutex<Vec<Cost>>,
}

impl Counted {
    fn new(database: Connection) -> Self {
        Self { database: Mutex::new(database), costs: Mutex::default() }
    }

    fn run(&self, statements: &[Statement]) -> rusqlite::Result<Vec<Rows>> {
        let mut database = self.database.lock().unwrap();
        let transaction = database.transaction()?;
        let mut answers = Vec::new();
        for statement in statements {
            let mut prepared = transaction.prepare(&statement.sql)?;
            answers.push(rows(&mut prepared, &statement.params)?);
            self.costs.lock().unwrap().push(Cost {
                sql: statement.sql.clone(),
                scanned: prepared.get_status(StatementStatus::FullscanStep),
                steps: prepared.get_status(StatementStatus::VmStep),
            });
            let again = prepared.get_status(StatementStatus::RePrepare);
            assert_eq!(
                again, 0,
                "SQLite compiles this again for its parameters: {}",
                statement.sql
            );
        }
        transaction.commit()?;
        Ok(answers)
    }

    /// The costs since the last call.
    fn costs(&self) -> Vec<Cost> {
        std::mem::take(&mut self.costs.lock().unwrap())
    }
}

impl Store for Counted {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        self.run(&statements).map_err(|error| StoreError::Refused(error.to_string()))
    }
}

/// The admin API on a store that counts.
struct Lent(Arc<Counted>, GuardMemory);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Platform for Lent {
    fn execute(&self, statements: Vec<Statement>) -> Boxed<'_, Result<Vec<Rows>, StoreError>> {
        Box::pin(Store::execute(&*self.0, statements))
    }

    fn query(&self, statements: Vec<Statement>) -> Boxed<'_, Result<Vec<Rows>, StoreError>> {
        Box::pin(Store::query(&*self.0, statements))
    }

    fn object<'a>(&'a self, _: &'a str) -> Boxed<'a, Result<Option<Vec<u8>>, String>> {
        Box::pin(async { Ok(None) })
    }

    fn wake(&self) -> Boxed<'_, ()> {
        Box::pin(async {})
    }

    fn backlogs(&self) -> Boxed<'_, Vec<QueueBacklog>> {
        Box::pin(async { Vec::new() })
    }

    fn fetch<'a>(&'a self, _: &'a str) -> Boxed<'a, Result<String, String>> {
        Box::pin(async { Err("there is no network".to_owned()) })
    }

    fn config(&self) -> Option<&Admin> {
        None
    }

    fn memory(&self) -> &GuardMemory {
        &self.1
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(NOW)
    }
}

/// No event of these tests has a large body.
struct NoObjects;

impl Objects for NoObjects {
    async fn put(&self, _: &str, _: &[u8]) -> Result<(), ObjectError> {
        Err(ObjectError("none".into()))
    }

    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        Err(ObjectError("none".into()))
    }

    async fn delete(&self, _: &str) -> Result<(), ObjectError> {
        Err(ObjectError("none".into()))
    }

    async fn list(&self, _: &str) -> Result<Vec<StoredObject>, ObjectError> {
        let stored_at = Timestamp::from_millis(0);
        Ok(vec![StoredObject { key: "s/1".to_owned(), stored_at }])
    }
}

/// Accepts every message.
struct AcceptingQueue;

impl Queue for AcceptingQueue {
    async fn send(&self, _: Vec<String>) -> Result<(), QueueError> {
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        Ok(Backlog::default())
    }
}

/// A provider with the same response to every request.
struct Says(u16, &'static str);

impl Fetch for Says {
    async fn ask(&self, _: ApiRequest, _: &Secret) -> Result<ApiResponse, FetchError> {
        let (status, body) = (self.0, self.1.to_owned());
        Ok(ApiResponse { status, retry_after: None, message_id: None, date: None, body })
    }
}

/// A database with the tables of a configuration.
fn database(config: &str, tables: &str) -> (Consumers, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hookmill.toml");
    std::fs::write(&path, config).unwrap();
    std::fs::write(folder.path().join("done.html"), "{{ text }}").unwrap();
    std::fs::create_dir(folder.path().join("app")).unwrap();
    std::fs::write(folder.path().join("app/1000_tables.sql"), tables).unwrap();
    let loaded = hookmill_loader::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
    let mut database = Connection::open_in_memory().unwrap();
    hookmill_migrations::apply(&mut database, &loaded.migrations).unwrap();
    plan_once(&database).unwrap();
    (loaded.consumers(), database)
}

/// Values of columns that matter to some statement; `i` is the number of the row. The rows are history: settled, but not
/// old enough to be removed.
const HISTORY: [(&str, &str); 43] = [
    ("events.source", "'source'"),
    ("events.outcome", "'applied'"),
    ("events.generation", "0"),
    ("events.rows", "'[]'"),
    // Few kinds of events and of errors, however many there are.
    ("event_kinds.source", "'source'"),
    ("event_kinds.type", "'type'"),
    ("event_kinds.outcome", "'applied'"),
    ("event_kinds.events", "1"),
    ("event_kinds.ids", "json_array(json_array('id-' || i, 0))"),
    ("dead_letters.source", "'source-' || (i % 3)"),
    ("dead_letters.type", "'type-' || (i % 5)"),
    ("dead_letters.fingerprint", "'fingerprint-' || (i % 5)"),
    ("outbox.rule", "'rule-' || (i % 5)"),
    ("outbox.channel", "'email'"),
    ("outbox.state", "iif(i < 100, 'refused', 'sent')"),
    ("outbox.content", "'{}'"),
    ("outbox_batches.channel", "'email'"),
    ("outbox_batches.provider", "'resend'"),
    ("outbox_batches.members", "json_array('outbox-' || i)"),
    ("outbox_batches.state", "CASE i % 2 WHEN 0 THEN 'dissolved' ELSE 'sent' END"),
    ("dead_letters.state", "CASE i % 2 WHEN 0 THEN 'applied' ELSE 'discarded' END"),
    ("dead_letters.reason", "'exhausted'"),
    ("dead_letters.generation", "0"),
    ("dead_letters.replay", "CASE i % 3 WHEN 0 THEN 'replay-' || (i % 20) END"),
    ("replays.kind", "'replay'"),
    ("replays.state", "'done'"),
    ("replays.filter", "'{}'"),
    ("replays.generation", "0"),
    ("replays.report", "NULL"),
    ("drifts.generation", "0"),
    ("drifts.key", "json_array('key-' || i)"),
    ("drifts.columns", "'[]'"),
    ("drifts.state", "'confirmed'"),
    ("listed_rows.generation", "0"),
    ("admin_tokens.role", "'read'"),
    ("audit.detail", "'{}'"),
    ("alerts.ended", "0"),
    ("alerts.pending", "NULL"),
    ("outbox_senders.free_at", "0"),
    ("refetches.due_at", "1767225600000 + 3600000 + i"),
    ("retries.due_at", "NULL"),
    ("retries.failures", "'[]'"),
    ("rule_counts.absent", "'{}'"),
];

/// Tables with few rows by design, however long Hookmill runs.
const BOUNDED: [&str; 7] = [
    "admin_failures",
    "admin_tokens",
    "alerts",
    "outbox_senders",
    "outbox_usage",
    "rejections",
    "sweeps",
];

/// A database with the tables of the pipeline alone.
fn pipeline() -> Connection {
    let mut database = Connection::open_in_memory().unwrap();
    hookmill_migrations::apply(&mut database, &hookmill_migrations::own()[..1]).unwrap();
    plan_once(&database).unwrap();
    database
}

/// Writes this number of rows into every table that `is_used` names.
fn fill(database: &Connection, rows: u32, known: &[(&str, &str)], is_used: impl Fn(&str) -> bool) {
    database.execute_batch("PRAGMA ignore_check_constraints = on").unwrap();
    let tables = hookmill_migrations::schema(database).unwrap().tables;
    let grows = |name: &str| !BOUNDED.contains(&name) && is_used(name);
    for (name, table) in tables.iter().filter(|(name, _)| grows(name)) {
        let value = |column: &str, kind: &str| {
            let place = format!("{name}.{column}");
            let known = known.iter().find(|(known, _)| *known == place);
            match (known, kind) {
                (Some((_, value)), _) => (*value).to_owned(),
                // A little before now, a row a second.
                (None, "INTEGER") if column.ends_with("_at") || column == "at" => {
                    format!("{NOW} - (1 + i % 86400) * 1000")
                }
                (None, "INTEGER") if column == "minute" => {
                    format!("{NOW} / 60000 - 60 - i % 100000")
                }
                (None, "INTEGER") if column == "hour" => {
                    format!("{NOW} - 3600000 * (3 + i % 2000)")
                }
                // Before the days of a list of counts.
                (None, "INTEGER") if column == "day" => {
                    format!("{NOW} / 86400000 - 40 - i % 2000")
                }
                (None, "TEXT") => format!("'{column}-' || i"),
                (None, _) => "i".to_owned(),
            }
        };
        let columns: Vec<_> =
            table.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let values: Vec<_> =
            table.columns.iter().map(|column| value(&column.name, &column.kind)).collect();
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO \"{name}\" ({}) SELECT {} FROM n WHERE true ON CONFLICT DO NOTHING",
            columns.join(", "),
            values.join(", ")
        );
        database.execute_batch(&sql).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    database.execute_batch("PRAGMA ignore_check_constraints = off").unwrap();
}

fn delivery(source: &str, kind: &str, id: &str, body: &[u8]) -> Delivery {
    let mut envelope = Envelope {
        v: VERSION,
        source: source.into(),
        id: id.into(),
        kind: kind.into(),
        received_at: Timestamp::from_millis(NOW - 1),
        verified: Verified { secret: 0, signed_at: None },
        generation: 0,
        rules: Vec::new(),
        headers: BTreeMap::new(),
        api_version: Some("1".into()),
        from_api: None,
        body: BodyForm::Text,
    };
    Delivery { attempts: 1, text: encode(&mut envelope, body) }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Applies a batch; every event of it takes effect.
fn apply(store: &Counted, config: &Consumers, batch: &[Delivery]) {
    let result = runtime().block_on(process_batch(
        store,
        &NoObjects,
        config,
        batch,
        Timestamp::from_millis(NOW),
        |_, _| {},
    ));
    for settled in result.settled {
        assert_eq!(settled.fate.as_str(), "applied", "{settled:?}");
    }
}

/// The first lines of a statement, which name it.
fn named(sql: &str) -> String {
    sql.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// Runs the same on tables of 1,000 and of 200,000 rows, and compares the cost of every statement.
fn grows_with_nothing(config: &str, tables: &str, run: impl Fn(&Arc<Counted>, &Consumers)) {
    let costs = |rows, is_used: &dyn Fn(&str) -> bool| {
        let (config, database) = database(config, tables);
        fill(&database, rows, &HISTORY, is_used);
        let store = Arc::new(Counted::new(database));
        run(&store, &config);
        store.costs()
    };
    let few = costs(1_000, &|_| true);
    // Filling the others would only take time.
    let many = costs(200_000, &|table| few.iter().any(|cost| cost.sql.contains(table)));
    compare(&few, &many);
}

/// Every statement has the same cost in both runs, with a tolerance of a tenth.
fn compare(few: &[Cost], many: &[Cost]) {
    let mut faults = String::new();
    assert_eq!(few.len(), many.len(), "both runs run the same statements");
    for (few, many) in few.iter().zip(many) {
        assert_eq!(few.sql, many.sql);
        let more = |few: i32, many: i32| i64::from(many) * 10 > i64::from(few) * 11;
        if more(few.scanned, many.scanned) || more(few.steps, many.steps) {
            let _ = writeln!(
                faults,
                "{}: steps {} -> {}, scanned {} -> {}",
                named(&few.sql),
                few.steps,
                many.steps,
                few.scanned,
                many.scanned
            );
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

/// The fixtures of a provider, signed and verified; each event has another id in each round.
fn batch(config: &Config, provider: &str, round: usize) -> Vec<Delivery> {
    let source = config.ingress.sources.iter().find(|source| source.name == provider).unwrap();
    let keys = development(source, &source.secrets[0].name);
    let verifier = Verifier::new(source, |_| Some(keys.verifying.clone())).unwrap();
    let at = Timestamp::from_millis(NOW);
    let mut batch = Vec::new();
    for (name, body) in fixtures(provider) {
        let kind = name.trim_end_matches(".json");
        let id = format!("{name}-{round}");
        let outgoing =
            hookmill_providers::UnsignedEvent { id: &id, kind, at, query: None, body: &body };
        let signed = sign(source, &keys.signing, outgoing).unwrap();
        let headers = &signed.headers;
        let request = Request { method: "POST", query: None, headers, body: &signed.body };
        let Ok(Admitted::Events(_, events)) = verifier.verify(&request, at) else {
            panic!("{name} is not taken for an event");
        };
        for event in events {
            let id = format!("{}-{round}", event.id);
            batch.push(delivery(provider, &event.kind, &id, &event.body));
        }
    }
    batch
}

#[test]
fn presets() {
    // Ties cause refetches, and messages are kept.
    let stripe = "preset = \"stripe\"\n";
    let config =
        PRESETS.replace(stripe, &format!("{stripe}api = {{ key = \"env:STRIPE_API_KEY\" }}\n"));
    let config = format!("{config}[retention]\nmessages = \"30d\"\n");
    let parsed = hookmill_config::parse("hookmill.toml", &config).unwrap();
    grows_with_nothing(&config, "", |store, config| {
        for provider in
            ["stripe", "clerk", "paddle", "twilio", "resend", "sendgrid", "github", "shopify"]
        {
            // New rows, then existing rows.
            for round in 0..2 {
                let batch = batch(&parsed, provider, round);
                let result = runtime().block_on(process_batch(
                    &**store,
                    &NoObjects,
                    config,
                    &batch,
                    Timestamp::from_millis(NOW),
                    |_, _| {},
                ));
                for settled in result.settled {
                    let fate = settled.fate.as_str();
                    assert!(["applied", "recorded"].contains(&fate), "{settled:?}");
                }
            }
        }
    });
}

/// The parts that the rules of these tests need.
const HEAD: &str = "[sources.s]\nscheme = \"stripe\"\nsecrets = [\"env:SECRET\"]\napi = { key = \"env:API_KEY\" }\nsweep = \"1h\"\n\
         [limits]\nrows_per_event = 1000000\nbytes_per_event = \"256MiB\"\n\
         [database]\nmigrations = \"app\"\n\
         [email]\nprovider = \"resend\"\nfrom = \"a@example.com\"\n\
         [templates.done]\nsubject = \"Done\"\nhtml = \"done.html\"\n\
         [sms]\naccount = \"AC00000000000000000000000000000000\"\nfrom = \"+15005550006\"\n\
         [tracking.posthog]\n[tracking.mixpanel]\n";

/// Rules that write none of the user's tables.
const SENDS: &str = r#"
[[rules]]
name = "mail"
on = ["s:customer.*"]
email = { template = "done", to = "data.object.email", data = { text = "data.object.text" } }

[[rules]]
name = "text"
on = ["s:customer.*"]
sms = { to = "data.object.phone", body = "Done" }

[[rules]]
name = "seen"
on = ["s:customer.*"]
track = { provider = "posthog", event = "seen", user = "data.object.email" }

[[rules]]
name = "opened"
on = ["s:customer.*"]
outcome = { email = "data.object.mailed", is = "opened" }

[[rules]]
name = "delivered"
on = ["s:customer.*"]
outcome = { provider_id = "data.object.mailed", is = "delivered" }

[[rules]]
name = "complained"
on = ["s:customer.*"]
suppress = { address = "data.object.unwanted", reason = "complained" }

[[rules]]
name = "left"
on = ["s:customer.*"]
suppress = { address = "data.object.unwanted", reason = "unsubscribed", group = "data.object.id" }

[[rules]]
name = "lifted"
on = ["s:customer.*"]
lift = { address = "data.object.unwanted", reason = "bounced" }

[[rules]]
name = "joined"
on = ["s:customer.*"]
lift = { address = "data.object.unwanted", reason = "bounced", group = "data.object.id" }
"#;

/// A rule of every kind on tables of every shape: keys of one column and of two, of text and of whole numbers, with and without
/// a rowid.
fn rules_of_every_kind() -> (String, String) {
    let mut config = HEAD.to_owned();
    let mut tables = String::new();
    let guard = "_version INTEGER NOT NULL, _precedence INTEGER NOT NULL, _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL";
    for (storage, without) in [("rowid", "STRICT"), ("keyed", "STRICT, WITHOUT ROWID")] {
        for (kind, id) in [("TEXT", "data.object.id"), ("INTEGER", "data.object.number")] {
            for two in [false, true] {
                let shape = format!(
                    "{storage}_{}_{}",
                    kind.to_lowercase(),
                    if two { "two" } else { "one" }
                );
                let keys = if two {
                    format!("part TEXT NOT NULL, id {kind} NOT NULL")
                } else {
                    format!("id {kind} NOT NULL")
                };
                let names = if two { "part, id" } else { "id" };
                let key = if two {
                    format!("part = \"data.object.part\", id = \"{id}\"")
                } else {
                    format!("id = \"{id}\"")
                };
                let _ = write!(
                    tables,
                    "CREATE TABLE kept_{shape} ({keys}, text TEXT, {guard}, PRIMARY KEY ({names})) {without};
                     CREATE TABLE gone_{shape} ({keys}, text TEXT, {guard}, PRIMARY KEY ({names})) {without};
                     CREATE TABLE changed_{shape} (name TEXT PRIMARY KEY NOT NULL, {keys}, text TEXT, _version INTEGER, _precedence INTEGER,
                        _event_id TEXT, _deleted INTEGER, UNIQUE ({names})) {without};
                     CREATE TABLE items_{shape} ({keys}, item {kind} NOT NULL, text TEXT, PRIMARY KEY ({names}, item)) {without};
                     CREATE TABLE pairs_{shape} ({keys}, item {kind} NOT NULL, place TEXT NOT NULL, PRIMARY KEY ({names}, place, item)) {without};
                     CREATE TABLE counts_{shape} ({keys}, n INTEGER, PRIMARY KEY ({names})) {without};
                     CREATE TABLE sold_{shape} (item {kind} NOT NULL PRIMARY KEY, n INTEGER) {without};"
                );
                let element = if kind == "TEXT" { "@.id" } else { "@.number" };
                let _ = write!(
                    config,
                    r#"
[[rules]]
name = "kept-{shape}"
on = ["s:customer.*"]
table = "kept_{shape}"
key = {{ {key} }}
version = "created"
tie = {{ refetch = true }}
set = {{ text = "data.object.text" }}
delete = "*.deleted"

[[rules]]
name = "gone-{shape}"
on = ["s:customer.*"]
table = "gone_{shape}"
key = {{ {key} }}
version = "created"
set = {{ text = "data.object.text" }}
delete = "*.deleted"
tombstone = false

[[rules]]
name = "changed-{shape}"
on = ["s:customer.*"]
table = "changed_{shape}"
key = {{ {key} }}
update = true
version = "created"
set = {{ text = "data.object.text" }}

[[rules]]
name = "items-{shape}"
on = ["s:customer.*"]
each = "data.object.items"
table = "items_{shape}"
key = {{ {key}, item = "{element}" }}
version = "created"
tie = {{ refetch = true }}
set = {{ text = "@.text" }}
delete = "*.deleted"

[[rules]]
name = "pairs-{shape}"
on = ["s:customer.*"]
each = "data.object.items"
table = "pairs_{shape}"
key = {{ {key}, item = "{element}", place = "@.text" }}
version = "created"

[[rules]]
name = "counts-{shape}"
on = ["s:customer.*"]
table = "counts_{shape}"
key = {{ {key} }}
add = {{ n = 1 }}

[[rules]]
name = "sold-{shape}"
on = ["s:customer.*"]
each = "data.object.items"
table = "sold_{shape}"
key = {{ item = "{element}" }}
add = {{ n = 1 }}
"#
                );
            }
        }
    }
    config.push_str(SENDS);
    (config, tables)
}

/// An event about a customer whose list contains these items.
fn customer(event: usize, kind: &str, customer: usize, items: std::ops::Range<usize>) -> Delivery {
    let items = items
        .map(|i| json!({ "id": format!("item-{i}"), "number": i, "text": format!("text {i}") }));
    let body = json!({ "created": 1_767_225_600 + event / 10, "data": { "object": {
        "id": format!("customer_{customer}"), "number": 1_000_000 + customer, "part": "a", "text": format!("text {event}"),
        "email": format!("{customer}@example.com"), "phone": format!("+1500555{customer:04}"),
        "mailed": format!("mailed-{customer}"), "unwanted": format!("unwanted-{customer}@example.com"),
        "items": items.collect::<Vec<_>>(),
    } } });
    delivery("s", kind, &format!("new-{event}"), body.to_string().as_bytes())
}

#[test]
fn rules() {
    let (config, tables) = rules_of_every_kind();
    grows_with_nothing(&config, &tables, |store, config| {
        let steps = ["customer.created", "customer.updated", "customer.deleted"];
        for (step, kind) in steps.into_iter().enumerate() {
            // Lists that lose items at the front, and gain some at the end.
            let event = |i| customer(step * 20 + i, kind, i, step * 2..step * 2 + 5);
            apply(store, config, &(0..20).map(event).collect::<Vec<_>>());
        }
    });
}

/// Runs a reconciliation of a sample that finds differences and repairs them. A whole one also searches the tables, a part of
/// 500 rows at a time.
async fn reconcile(store: &Counted, config: &Consumers) {
    // Their retries have random delays.
    let config = &Consumers { sweeps: BTreeMap::new(), ..config.clone() };
    let apis = refetch::Apis::new(config, |_| Some(Secret::from("key"))).unwrap();
    // Objects to fetch would come first.
    let no_others = "-- prepare the test\nDELETE FROM refetches";
    store.execute(vec![Statement::new(no_others, Vec::new())]).await.unwrap();
    store.costs.lock().unwrap().retain(|cost| !cost.sql.contains("prepare the test"));
    let (source, sample) = ("s".to_owned(), Some(1));
    let filter = ReconcileFilter { source, sample, repair: true, ..ReconcileFilter::default() };
    let begin = Timestamp::from_millis(NOW);
    let plan = plan_job("sample", JobKind::Reconcile, &filter, "ada", begin);
    store.execute(vec![plan]).await.unwrap();
    store.execute(vec![run_replay("sample", 100, "", "ada", begin)]).await.unwrap();
    let page = r#"{"data":[{"id":"one","object":"customer"}],"has_more":false}"#;
    for step in 1..60 {
        let to = (&AcceptingQueue, &NoObjects);
        let now = || Timestamp::from_millis(NOW + step * 20_000);
        import::round(store, &Says(200, page), to, (config, &apis), now).await.unwrap();
    }
    let state = "SELECT state FROM replays WHERE id = 'sample'";
    let rows = store.execute(vec![Statement::new(state, Vec::new())]).await.unwrap();
    assert_eq!(rows[0][0].texts()[0].as_deref(), Some("done"));
}

#[test]
fn stages() {
    let (config, tables) = rules_of_every_kind();
    let config = format!(
        "{config}[alerts]\nemail = \"ops@example.com\"\ndead_letters = 1\n[retention]\nmessages = \"30d\"\n"
    );
    grows_with_nothing(&config, &tables, |store, config| {
        let (runtime, key) = (runtime(), |_: &SecretName| Some(Secret::from("key")));
        let (store, clock) = (&**store, || Timestamp::from_millis(NOW));
        let events: Vec<_> = (0..10).map(|i| customer(i, "customer.created", i, 0..3)).collect();
        apply(store, config, &events);
        // The same versions again: objects to fetch.
        let again: Vec<_> =
            (10..20).map(|i| customer(i - 10, "customer.updated", i - 10, 0..3)).collect();
        let again = again.iter().enumerate().map(|(i, delivery)| Delivery {
            attempts: 1,
            text: delivery.text.replace(&format!("new-{i}\""), &format!("again-{i}\"")),
        });
        apply(store, config, &again.collect::<Vec<_>>());
        runtime.block_on(async {
            resume(store, clock()).await.unwrap();
            let apis = refetch::Apis::new(config, key).unwrap();
            refetch::resume(store, &apis, clock()).await.unwrap();
            let channels = OutboxChannel::all(config, key).unwrap();
            stranded(store, &channels).await.unwrap();
            let filter = ImportFilter { source: "s".into(), ..ImportFilter::default() };
            store
                .execute(vec![plan_job("import", JobKind::Import, &filter, "ada", clock())])
                .await
                .unwrap();
            store.execute(vec![run_replay("import", 100, "", "ada", clock())]).await.unwrap();
            import::resume(store, clock()).await.unwrap();
            for answer in [Says(503, "{}"), Says(200, "{\"data\":[],\"has_more\":false}")] {
                rounds(store, &answer, &channels, clock).await.unwrap();
                let apis = refetch::Apis::new(config, key).unwrap();
                let to = (&AcceptingQueue, &NoObjects);
                import::round(store, &answer, to, (config, &apis), clock).await.unwrap();
            }
            reconcile(store, config).await;
            let alarm = Alarm::new(config, key).unwrap().unwrap();
            look(store, &Says(200, ""), &alarm, &Backlog::default(), clock()).await.unwrap();

            // Redelivered events are processed with a note; half of them again.
            let before = |events: &[Delivery]| {
                events
                    .iter()
                    .map(|event| Delivery { attempts: 2, ..event.clone() })
                    .collect::<Vec<_>>()
            };
            process_batch(store, &NoObjects, config, &before(&events[..5]), clock(), |_, _| {})
                .await;
            // The object store is away, so this one is retried.
            let mut envelope = decode(&events[0].text).unwrap().envelope;
            envelope.id = "large".into();
            let check = ClaimCheck { key: "s/2".into(), bytes: 1 };
            let text = encode_claim_check(&mut envelope, check);
            for attempts in [1, 2] {
                let large = [Delivery { attempts, text: text.clone() }];
                process_batch(store, &NoObjects, config, &large, clock(), |_, _| {}).await;
            }
            let counters = Counters::new();
            for id in ["counted", "counted-again"] {
                let event = Delivery {
                    attempts: 1,
                    text: events[0].text.replace("new-0\"", &format!("{id}\"")),
                };
                let result =
                    process_batch(store, &NoObjects, config, &[event], clock(), |_, _| {}).await;
                counters.add(config, &result);
                counters.write(store, config, clock()).await.unwrap();
            }
            let poison = Delivery { attempts: 1, text: "poison".into() };
            process_batch(store, &NoObjects, config, &[poison], clock(), |_, _| {}).await;
            drain(store, &events, clock()).await;
            let filter = LetterFilter { all: true, ..LetterFilter::default() };
            let id = replay_id(&filter, "ada", clock());
            store.execute(vec![plan_replay(&id, &filter, "ada", clock())]).await.unwrap();
            store.execute(vec![run_replay(&id, 100, "", "ada", clock())]).await.unwrap();
            store.costs.lock().unwrap().retain(|cost| !named(&cost.sql).contains("plan a replay"));
            for _ in 0..3 {
                step(store, &AcceptingQueue, clock).await.unwrap();
            }
            let age = Some(Duration::from_secs(300));
            let retention = Retention {
                events: age,
                messages: age,
                settled: Duration::from_secs(300),
                dead_letters: age,
                audit: age,
                activity: Duration::from_secs(300),
            };
            for now in [clock(), clock() + Duration::from_secs(2 * 24 * 3600)] {
                sweep(store, &NoObjects, &retention, now).await.unwrap();
            }
            remove_unsent(store, &NoObjects, &AcceptingQueue, clock()).await.unwrap();
            let tally =
                Tally { source: None, reason: Reason::NotFound, count: 1, samples: Vec::new() };
            store
                .execute(record_rejections(&[Report::new(clock(), vec![tally])], clock()))
                .await
                .unwrap();
        });
    });
}

#[test]
fn a_sweep_that_finds_nothing() {
    let (config, tables) = rules_of_every_kind();
    grows_with_nothing(&config, &tables, |store, _| {
        let age = Duration::from_secs(3650 * 24 * 3600);
        let retention = Retention {
            events: Some(age),
            messages: Some(age),
            settled: age,
            dead_letters: Some(age),
            audit: Some(age),
            activity: age,
        };
        let swept = sweep(&**store, &NoObjects, &retention, Timestamp::from_millis(NOW));
        assert!(runtime().block_on(swept).unwrap().removed.is_empty());
    });
}

/// Queries the admin API.
fn ask(store: &Arc<Counted>, question: &str) -> Value {
    let request = axum::http::Request::get(format!("{BASE}{question}"));
    let request = request.body(axum::body::Body::empty()).unwrap();
    let mut api = local(Arc::new(Lent(store.clone(), GuardMemory::new())), "ada");
    runtime().block_on(async {
        let answer = tower_service::Service::call(&mut api, request).await.unwrap();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap();
        assert!(status.is_success(), "{question}: {status} {body}");
        body
    })
}

#[test]
fn the_dashboards_queries() {
    let (config, tables) = rules_of_every_kind();
    grows_with_nothing(&config, &tables, |store, _| {
        for question in [
            "/stats",
            "/counts?days=30",
            "/replays",
            "/events",
            "/events?state=retrying",
            "/events/source-1/id-1",
            "/dead-letters",
            "/audit",
        ] {
            ask(store, question);
        }
    });
}

/// Events and letters of few kinds, and of rare ones. Each has its own time.
const SEARCHED: [(&str, &str); 30] = [
    ("events.source", "CASE i WHEN 7 THEN 'rare' ELSE 'source-' || (i % 2) END"),
    ("events.type", "CASE i WHEN 8 THEN 'rare' ELSE 'type-' || (i % 3) END"),
    ("events.outcome", "iif(i = 9, 'recorded', 'applied')"),
    ("events.generation", "0"),
    ("events.applied_at", "1767225600000 - i * 1000"),
    ("event_kinds.source", "CASE i WHEN 7 THEN 'rare' ELSE 'source-' || (i % 2) END"),
    ("event_kinds.type", "CASE i WHEN 8 THEN 'rare' ELSE 'type-' || (i % 3) END"),
    ("event_kinds.outcome", "iif(i = 9, 'recorded', 'applied')"),
    ("event_kinds.applied_at", "1767225600000 - i * 1000"),
    ("event_kinds.events", "1"),
    ("event_kinds.ids", "json_array(json_array('id-' || i, 0))"),
    ("dead_letters.source", "CASE i WHEN 7 THEN 'rare' ELSE 'source-' || (i % 2) END"),
    ("dead_letters.type", "CASE i WHEN 8 THEN 'rare' ELSE 'type-' || (i % 3) END"),
    ("dead_letters.reason", "iif(i = 9, 'dropped', 'exhausted')"),
    ("dead_letters.fingerprint", "CASE i WHEN 10 THEN 'rare' ELSE 'fingerprint-' || (i % 3) END"),
    ("dead_letters.state", "iif(i = 11, 'discarded', 'dead')"),
    ("dead_letters.last_failed_at", "1767225600000 - i * 1000"),
    ("dead_letters.generation", "0"),
    ("dead_letters.replay", "NULL"),
    ("outbox.channel", "'email'"),
    ("outbox.rule", "CASE i WHEN 7 THEN 'rare' ELSE 'rule-' || (i % 3) END"),
    (
        "outbox.state",
        "CASE i WHEN 8 THEN 'refused' WHEN 9 THEN 'pending' WHEN 10 THEN 'sealed' ELSE 'sent' END",
    ),
    ("outbox.created_at", "1767225600000 - i * 1000"),
    ("outbox_batches.state", "iif(i = 10, 'sealed', 'sent')"),
    ("outbox_batches.members", "json_array('id-' || i)"),
    ("retries.due_at", "NULL"),
    ("retries.failures", "'[]'"),
    ("suppressions.created_at", "1767225600000 - i * 1000"),
    ("group_suppressions.created_at", "1767225600000 - i * 1000"),
    ("audit.detail", "'{}'"),
];

/// The filters of lists: frequent ones, rare ones, and ones that match nothing.
const SEARCHES: [&str; 40] = [
    "/events?source=source-1",
    "/events?source=rare",
    "/events?source=none",
    "/events?type=type-1",
    "/events?type=rare",
    "/events?type=none",
    "/events?type=ra*",
    "/events?type=type-*",
    "/events?type=rare&source=source-0",
    "/events?id=id-3",
    "/events?id=none",
    "/events?state=applied",
    "/events?state=recorded",
    "/events?state=dead",
    "/events?state=discarded",
    "/events?state=replayed",
    "/events?state=recorded&type=type-0",
    "/events?type=rare&since=1",
    "/events?source=source-0&since=1",
    "/dead-letters?source=rare",
    "/dead-letters?type=rare",
    "/dead-letters?type=type-*&source=source-1",
    "/dead-letters?reason=dropped",
    "/dead-letters?fingerprint=rare",
    "/dead-letters?event_id=event_id-3",
    "/dead-letters?state=discarded&reason=exhausted",
    "/dead-letters?state=any&fingerprint=none",
    "/outbox?limit=50",
    "/outbox?rule=rare",
    "/outbox?rule=none",
    "/outbox?channel=sms",
    "/outbox?recipient=recipient-3",
    "/outbox?state=sent",
    "/outbox?state=refused",
    "/outbox?state=refused&rule=rule-0",
    "/outbox?state=pending",
    "/outbox?state=sealed",
    "/outbox?state=suppressed",
    "/suppressions?limit=50",
    "/audit?limit=50",
];

#[test]
fn a_search_costs_the_same_in_a_large_table() {
    let [few, many] = [2_000, 200_000].map(|rows| {
        let database = pipeline();
        fill(&database, rows, &SEARCHED, |_| true);
        let store = Arc::new(Counted::new(database));
        SEARCHES.map(|question| {
            ask(&store, question);
            let costs = store.costs();
            (question, costs.iter().map(|cost| cost.steps + cost.scanned).sum::<i32>())
        })
    });
    for ((question, few), (_, many)) in few.into_iter().zip(many) {
        assert!(i64::from(many) * 10 <= i64::from(few) * 11, "{question}: steps {few} -> {many}");
    }
}

/// Pages of a search, compared with all rows that meet its filter, in order.
#[test]
fn a_search_finds_what_a_scan_finds() {
    let database = pipeline();
    // Several events of different kinds at one time, as transactions write them.
    let mut known = SEARCHED;
    for (place, value) in &mut known {
        if place.ends_with("_at") {
            *value = "1767225600000 - i / 7 * 1000";
        }
    }
    fill(&database, 500, &known, |_| true);
    database
        .execute_batch(
            "DELETE FROM event_kinds;
             INSERT INTO event_kinds SELECT source, type, outcome, applied_at, count(*), json_group_array(json_array(id, generation)) FROM events GROUP BY 1, 2, 3, 4",
        )
        .unwrap();
    let store = Arc::new(Counted::new(database));
    let all = |base: &str| pages(&store, &format!("{base}?limit=500"));
    let (events, letters) = (all("/events"), pages(&store, "/dead-letters?state=any&limit=500"));
    let lists = ["/outbox", "/suppressions", "/audit"].map(|base| (base, all(base)));
    // Those in the ledger, dead letters, and those that are being retried.
    assert_eq!((events.len(), letters.len(), lists[0].1.len()), (1500, 500, 500));
    for question in SEARCHES {
        let (base, filter) = question.split_once('?').unwrap();
        let filter: Vec<_> = filter.split('&').map(|pair| pair.split_once('=').unwrap()).collect();
        let meets = |row: &&Value| {
            filter.iter().all(|(name, wanted)| match (*name, wanted.strip_suffix('*')) {
                ("since" | "limit", _) => true,
                ("state", _) if *wanted == "any" => true,
                (name, Some(start)) => row[name].as_str().unwrap().starts_with(start),
                (name, None) => row[name] == **wanted,
            })
        };
        let default = |row: &&Value| {
            base != "/dead-letters" || question.contains("state=") || row["state"] == "dead"
        };
        let rows = match lists.iter().find(|(list, _)| *list == base) {
            Some((_, rows)) => rows,
            None if base == "/events" => &events,
            None => &letters,
        };
        let mut expected: Vec<_> = rows.iter().filter(meets).filter(default).cloned().collect();
        if question.contains("since=") {
            expected.reverse();
        }
        for limit in [17, 500] {
            let question = question.replace("limit=50", "");
            let paged = pages(&store, &format!("{question}&limit={limit}"));
            assert_eq!(paged, expected, "{question}");
        }
    }
}

/// Groups of letters, compared with all letters.
#[test]
fn groups_have_all_letters() {
    let database = pipeline();
    fill(&database, 500, &SEARCHED, |_| true);
    let store = Arc::new(Counted::new(database));
    let letters = pages(&store, "/dead-letters?state=any&limit=500");
    for (filter, meets) in [
        ("?state=any", (|_| true) as fn(&Value) -> bool),
        ("", |letter| letter["state"] == "dead"),
        ("?reason=dropped", |letter| letter["state"] == "dead" && letter["reason"] == "dropped"),
        ("?state=any&source=source-1&type=type-*", |letter| {
            letter["source"] == "source-1" && letter["type"].as_str().unwrap().starts_with("type-")
        }),
        ("?event_id=event_id-3", |letter| letter["event_id"] == "event_id-3"),
        ("?fingerprint=none", |_| false),
    ] {
        let mut groups: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for letter in letters.iter().filter(|letter| meets(letter)) {
            groups.entry(letter["fingerprint"].as_str().unwrap()).or_default().push(letter);
        }
        let expected: Vec<_> = groups
            .iter()
            .map(|(fingerprint, letters)| {
                let all = |name: &str| {
                    letters.iter().map(|letter| letter[name].clone()).collect::<Vec<_>>()
                };
                let times = |name: &str| all(name).iter().map(|at| at.as_i64().unwrap()).collect::<Vec<_>>();
                let texts = |name: &str| {
                    all(name).iter().map(|text| text.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
                };
                // The latest is the first of the list.
                json!({
                    "fingerprint": fingerprint, "reason": letters[0]["reason"], "error": letters[0]["error"],
                    "count": letters.len(), "sources": texts("source"), "types": texts("type"),
                    "first_failed_at": times("first_failed_at").iter().min(),
                    "last_failed_at": times("last_failed_at").iter().max(),
                })
            })
            .collect();
        let mut found = ask(&store, &format!("/dead-letters/groups{filter}"));
        let found = found.as_array_mut().unwrap();
        assert!(found.is_sorted_by(|one, next| one["count"].as_u64() >= next["count"].as_u64()));
        found.sort_by_key(|group| group["fingerprint"].to_string());
        for group in &mut *found {
            for list in ["sources", "types"] {
                group[list].as_array_mut().unwrap().sort_by_key(ToString::to_string);
            }
        }
        assert_eq!(*found, expected, "{filter}");
    }
}

/// All pages of a list.
fn pages(store: &Arc<Counted>, question: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ask(store, &format!("{question}{cursor}"));
        rows.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

/// A count takes time in proportion to its result, so it has a limit.
#[test]
fn a_backlog_is_counted_up_to_a_limit() {
    let backlog = [
        ("dead_letters.state", "CASE i % 2 WHEN 0 THEN 'dead' ELSE 'replayed' END"),
        ("dead_letters.reason", "'exhausted'"),
        ("dead_letters.source", "'source'"),
        ("dead_letters.type", "'type'"),
        ("dead_letters.fingerprint", "'fingerprint'"),
        ("dead_letters.generation", "0"),
        ("outbox.channel", "'email'"),
        ("outbox.state", "CASE i % 2 WHEN 0 THEN 'pending' ELSE 'uncertain' END"),
        ("outbox_batches.channel", "'email'"),
        ("outbox_batches.members", "'[1, 2]'"),
        ("outbox_batches.state", "'sealed'"),
        ("rejection_counts.hour", "0"),
        ("activity.minute", "0"),
        ("retries.failures", "'[]'"),
    ];
    let [few, many] = [25_000, 200_000].map(|rows| {
        let database = pipeline();
        fill(&database, rows, &backlog, |_| true);
        let store = Arc::new(Counted::new(database));
        ask(&store, "/stats");
        ask(&store, "/dead-letters/groups?state=any");
        runtime().block_on(store.execute(vec![status(Timestamp::from_millis(NOW))])).unwrap();
        store.costs()
    });
    compare(&few, &many);
}

#[test]
fn a_list_costs_in_proportion_to_its_length() {
    let (config, tables) = rules_of_every_kind();
    let cost = |length: usize| {
        let (config, database) = database(&config, &tables);
        let store = Counted::new(database);
        apply(&store, &config, &[customer(0, "customer.created", 0, 0..length)]);
        store.costs();
        // Half of it is removed, and as many are added.
        apply(
            &store,
            &config,
            &[customer(10, "customer.updated", 0, length / 2..length + length / 2)],
        );
        store.costs()
    };
    let [base, ten, hundred, thousand] = [10, 100, 1_000, 10_000].map(cost);
    let mut faults = String::new();
    for (i, base) in base.iter().enumerate() {
        for (longer, costs) in [(10, &ten), (100, &hundred), (1_000, &thousand)] {
            let steps = costs
                .iter()
                .filter(|cost| cost.sql == base.sql)
                .map(|cost| i64::from(cost.steps))
                .sum::<i64>();
            if steps > i64::from(base.steps) * longer * 11 / 10 {
                let _ = writeln!(
                    faults,
                    "{i} {}: {} steps at 10, {steps} at {}",
                    named(&base.sql),
                    base.steps,
                    longer * 10
                );
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}
