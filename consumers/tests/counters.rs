//! What events have and lack is counted, once, whatever happens to their batches.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use hookmill_consumers::counters::{Counters, WINDOW};
use hookmill_consumers::{BatchResult, Fate, process_batch};
use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::message::{decode, encode};
use hookmill_core::store::{Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use serde_json::json;
use support::{Fixture, NoObjects, RECEIVED_AT, event};

const RULES: &str = r#"
[sources.s]
scheme = "stripe"
secrets = ["env:A"]
api_version = ["2024-06-20", "2025-03-31.basil"]

[sources.any]
scheme = "stripe"
secrets = ["env:A"]

[database]
migrations = "app"

[email]
provider = "resend"
from = "a@example.com"

[templates.done]
subject = "Done"
html = "done.html"

[[rules]]
name = "things"
on = ["s:thing.*"]
table = "things"
key = { id = "data.id" }
version = "at"
delete = "thing.deleted"

[rules.set]
# Alternatives: absent only if both are.
status = ["data.status", "data.state"]
# Null, and a member of null.
text = "data.note.text"
# An element that the list does not have.
first = "data.list[0].name"
chosen = "data.list[id = data.choice].name"
by = { event = "id" }
fixed = { value = "x" }
cents = { decimal = "data.total", currency = "data.currency" }
sent = "header:X-Sent"

[[rules]]
name = "items"
on = ["s:thing.*"]
each = "data.items"
table = "items"
key = { thing = "data.id", id = "@.id" }
version = "at"
set = { name = "@.name", status = "data.status" }

[[rules]]
name = "counts"
on = ["s:thing.*"]
each = "data.items"
table = "tallies"
key = { id = "@.id" }
add = { n = "@.n" }

[[rules]]
name = "mail"
on = ["s:thing.created"]
email = { template = "done", to = "data.to", data = { text = "data.text", nothing = "data.nothing" } }

[[rules]]
name = "unwanted"
on = ["s:thing.created"]
suppress = { address = "data.to", reason = "complained" }
"#;

const TABLES: &str = "
CREATE TABLE things (id TEXT PRIMARY KEY, status TEXT, text TEXT, first TEXT, chosen TEXT, \"by\" TEXT, fixed TEXT,
    cents INTEGER, sent TEXT, _version INTEGER, _precedence INTEGER, _event_id TEXT, _deleted INTEGER) STRICT;
CREATE TABLE items (thing TEXT, id INTEGER, name TEXT, status TEXT, PRIMARY KEY (thing, id)) STRICT;
CREATE TABLE tallies (id INTEGER PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0) STRICT;
";

fn fixture() -> Fixture {
    let rules = RULES.replace(
        "secrets = [\"env:A\"]\napi",
        "secrets = [\"env:A\"]\nkeep_headers = [\"X-Sent\"]\napi",
    );
    Fixture::new(&rules, TABLES)
}

fn thing(id: &str, kind: &str, data: &serde_json::Value) -> Delivery {
    event(id, kind, &json!({ "at": 1, "data": data }).to_string(), 1)
}

/// The same event of a source, with an API version.
fn versioned(delivery: &Delivery, source: &str, version: &str) -> Delivery {
    let mut message = decode(&delivery.text).unwrap();
    source.clone_into(&mut message.envelope.source);
    message.envelope.api_version = Some(version.to_owned());
    Delivery { text: encode(&mut message.envelope, &message.body), ..delivery.clone() }
}

const NOW: Timestamp = Timestamp::from_millis(0);

impl Fixture {
    fn result(&self, store: &impl Store, batch: &[Delivery]) -> BatchResult {
        let process = process_batch(store, &NoObjects, &self.config, batch, NOW, |_, _| {});
        self.runtime.block_on(process)
    }

    /// Counts a batch and writes.
    fn counted(&self, counters: &Counters, batch: &[Delivery]) {
        counters.add(&self.config, &self.result(&self.store, batch));
        self.runtime.block_on(counters.write(&self.store, &self.config, NOW)).unwrap();
    }

    fn rules(&self) -> Vec<Vec<String>> {
        self.rows("SELECT rule, CAST(rows AS TEXT), absent FROM rule_counts ORDER BY rule")
    }
}

#[test]
fn rows_are_counted_by_rule_and_absent_values_by_column() {
    let fixture = fixture();
    let counters = Counters::new();
    let whole = json!({
        "id": "a", "state": "new", "note": null, "list": [], "choice": "x", "total": null, "to": "a@example.com",
        "text": "t", "nothing": null, "items": [{ "id": 1, "n": 1 }, { "id": 2, "n": 1, "name": null }],
    });
    fixture.counted(&counters, &[thing("1", "thing.created", &whole)]);
    assert_eq!(
        fixture.rules(),
        [
            ["counts", "2", "{}"],
            ["items", "2", r#"{"name":1,"status":2}"#],
            ["mail", "1", "{}"],
            // The fixture's events have no headers.
            ["things", "1", r#"{"sent":1}"#],
            ["unwanted", "1", "{}"],
        ]
    );
    // The next counts add up. A deletion has no columns.
    let bare = json!({ "id": "b", "list": [{ "id": "x" }], "choice": "x", "note": {} });
    let deleted = json!({ "id": "a" });
    fixture.counted(
        &counters,
        &[thing("2", "thing.created", &bare), thing("3", "thing.deleted", &deleted)],
    );
    assert_eq!(
        fixture.rules(),
        [
            ["counts", "2", r#"{"each":2}"#],
            ["items", "2", r#"{"each":2,"name":1,"status":2}"#],
            ["mail", "2", r#"{"nothing":1,"text":1}"#],
            ["things", "2", r#"{"cents":1,"chosen":1,"first":1,"sent":2,"status":1,"text":1}"#],
            ["unwanted", "1", "{}"],
        ]
    );
}

#[test]
fn only_an_event_that_took_effect_counts_and_only_once() {
    let fixture = fixture();
    let counters = Counters::new();
    let version = |delivery: Delivery| versioned(&delivery, "s", "2024-06-20");
    let good = version(thing("good", "thing.updated", &json!({ "id": "a", "items": [] })));
    // Its rows are planned, and the database rejects them.
    let bad = version(thing(
        "bad",
        "thing.updated",
        &json!({ "id": "b", "total": 1, "currency": "EUR", "items": [{ "id": "text" }] }),
    ));
    let batch = [good.clone(), bad, good.clone()];
    fixture.counted(&counters, &batch);
    fixture.counted(&counters, std::slice::from_ref(&good));
    assert_eq!(fixture.process(&fixture.store, &[good]), [(Fate::Duplicate, Verdict::Ack)]);
    let things = fixture.rows("SELECT CAST(rows AS TEXT) FROM rule_counts WHERE rule = 'things'");
    assert_eq!(things, [["1"]]);
    // A version counts with the event, even if that became a dead letter.
    assert_eq!(fixture.rows("SELECT CAST(events AS TEXT) FROM api_version_counts"), [["2"]]);
    assert_eq!(fixture.rows("SELECT event_id FROM dead_letters"), [["bad"]]);
}

#[test]
fn an_unexpected_version_is_logged_once() {
    let fixture = fixture();
    let counters = Counters::new();
    let lines = |batch: &[Delivery]| {
        let lines = counters.add(&fixture.config, &fixture.result(&fixture.store, batch));
        lines
            .into_iter()
            .map(|line| (line.fields.source.unwrap(), line.fields.version.unwrap()))
            .collect::<Vec<_>>()
    };
    let of = |id: &str, source, version| {
        versioned(&thing(id, "other", &json!({ "id": id })), source, version)
    };
    let first = [
        of("1", "s", "2024-06-20"),
        of("2", "s", "2020-08-27"),
        of("3", "any", "2020-08-27"),
        of("4", "s", "2020-08-27"),
    ];
    assert_eq!(lines(&first), [("s".to_owned(), "2020-08-27".to_owned())]);
    assert_eq!(lines(&[of("5", "s", "2020-08-27"), of("6", "s", "2025-03-31.basil")]), []);
    fixture.runtime.block_on(counters.write(&fixture.store, &fixture.config, NOW)).unwrap();
    let at = RECEIVED_AT.millis().to_string();
    let versions = fixture.rows(
        "SELECT source, version, CAST(expected AS TEXT), CAST(events AS TEXT), CAST(first_at AS TEXT), CAST(last_at AS TEXT)
         FROM api_version_counts ORDER BY source, version",
    );
    assert_eq!(
        versions,
        [
            ["any", "2020-08-27", "1", "1", &at, &at],
            ["s", "2020-08-27", "0", "3", &at, &at],
            ["s", "2024-06-20", "1", "1", &at, &at],
            ["s", "2025-03-31.basil", "1", "1", &at, &at],
        ]
    );
}

#[test]
fn versions_are_bounded_in_a_process_and_in_a_day() {
    let fixture = fixture();
    for process in 0..7 {
        let counters = Counters::new();
        let of = |n: usize| {
            let id = format!("{process}-{n}");
            versioned(&thing(&id, "other", &json!({})), "s", &id)
        };
        fixture.counted(&counters, &(0..30).map(of).collect::<Vec<_>>());
    }
    let [counted] = &fixture.rows(
        "SELECT CAST(count(*) AS TEXT), CAST(sum(events) AS TEXT), max(iif(version = 'other', CAST(events AS TEXT), '')) FROM api_version_counts",
    )[..] else {
        panic!("one row")
    };
    // Five processes, with 20 versions each, fill the hundred of a day; `other` is among them.
    let (rows, events): (u32, u32) = (counted[0].parse().unwrap(), counted[1].parse().unwrap());
    assert!((100..=121).contains(&rows), "{rows}");
    assert_eq!(events, 210, "none is lost");
    assert_eq!(counted[2].parse(), Ok(events - (rows - 1)));
}

/// A store whose transactions fail for a while.
struct Failing<'f>(&'f Fixture, AtomicBool);

impl Store for Failing<'_> {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(StoreError::Refused("no such table: rule_counts".into()));
        }
        self.0.store.execute(statements).await
    }
}

#[test]
fn counts_that_cannot_be_written_stay_and_are_tried_again_after_a_minute() {
    let fixture = fixture();
    let counters = Counters::new();
    let later = NOW + WINDOW;
    assert!(!counters.due(NOW), "nothing is counted");
    let event = |id| thing(id, "thing.updated", &json!({ "id": "a", "status": "x" }));
    counters.add(&fixture.config, &fixture.result(&fixture.store, &[event("1")]));
    assert!(counters.due(NOW), "the first batch");
    let store = Failing(&fixture, AtomicBool::new(true));
    let write = |now| fixture.runtime.block_on(counters.write(&store, &fixture.config, now));
    assert!(write(NOW).is_err());
    assert!(!counters.due(NOW) && counters.due(later));
    counters.add(&fixture.config, &fixture.result(&fixture.store, &[event("2")]));
    store.1.store(false, Ordering::Relaxed);
    write(later).unwrap();
    let things = fixture.rows("SELECT CAST(rows AS TEXT) FROM rule_counts WHERE rule = 'things'");
    assert_eq!(things, [["2"]]);
    assert!(!counters.due(later + WINDOW), "all is written");
    // The clock was ahead, and is corrected.
    counters.add(&fixture.config, &fixture.result(&fixture.store, &[event("3")]));
    assert!(counters.due(NOW));
}
