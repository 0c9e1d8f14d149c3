//! `process_batch` on a real SQLite: any history of events, in any order and batches, with any duplicates and failures of
//! the store, ends in the tables that the greatest event of each entity determines.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookmill_config::Retention;
use hookmill_consumers::{Fate, process_batch};
use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::message::{ClaimCheck, decode, encode_claim_check, reprocessed};
use hookmill_core::objects::{ObjectError, Objects, StoredObject};
use hookmill_core::panics::Panicked;
use hookmill_core::store::{Param, Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_dlq::{drain, sweep};
use hookmill_native::Sqlite;
use hookmill_rules::Reads;
use proptest::prelude::*;
use support::{Fixture, NoObjects, RECEIVED_AT, event};

const CONFIG: &str = r#"
[sources.s]
scheme = "stripe"
secrets = ["env:A"]

[database]
migrations = "app"

[retry]
jitter = 0.0

[[rules]]
name = "things"
on = ["s:thing.*"]
table = "things"
key = { id = "id" }
version = "version"
tie = { precedence = { column = "status", order = ["new", "open", "done"] } }
set = { status = "status", text = "text" }
delete = "thing.deleted"

[[rules]]
name = "counts"
on = ["s:thing.*"]
table = "counts"
key = { id = "id" }
add = { n = 1 }

[[rules]]
name = "done"
on = ["s:thing.updated"]
when = { status = "done" }
[rules.email]
template = "done"
to = "Ops <ops@example.com>"
cc = "people"
recipients = 2
reply_to = ["nobody", "people"]
delay = "1m"
data = { id = "id", text = "text", nothing = "nothing" }

[[rules]]
name = "conditions"
on = ["s:asked"]
when = { "a.b" = [1, "x", true], c = { not = "no" }, d = { exists = false }, e = { exists = true }, f = { exists = true, not = ["", 1] } }
[rules.email]
template = "done"
to = ["missing", "to"]
data = { id = "id", text = "text", nothing = "nothing" }

[email]
provider = "resend"
from = "a@example.com"

[templates.done]
subject = "{{ id }}"
html = "done.html"
"#;

const TABLES: &str = "
CREATE TABLE things (id TEXT PRIMARY KEY, status TEXT, text TEXT CHECK (text <> 'refused'), _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL, _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE counts (id TEXT PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
";

fn sql(fixture: &Fixture, sql: &str) {
    let statement = Statement::new(sql, Vec::new());
    fixture.runtime.block_on(fixture.store.execute(vec![statement])).unwrap();
}

fn fixture() -> Fixture {
    Fixture::new(CONFIG, TABLES)
}

/// A store with a script: it works, is unavailable before the commit, or is unavailable after it and loses the answer.
struct Flaky<'s> {
    store: &'s Sqlite,
    script: Mutex<Vec<Mood>>,
    calls: Arc<Mutex<usize>>,
}

#[derive(Clone, Copy, Debug)]
enum Mood {
    Works,
    Away,
    NotReady,
    LosesItsAnswer,
}

impl Store for Flaky<'_> {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        *self.calls.lock().unwrap() += 1;
        let away = || StoreError::Unavailable("the connection was lost".into());
        let mood = self.script.lock().unwrap().pop().unwrap_or(Mood::Works);
        match mood {
            Mood::Works => self.store.execute(statements).await,
            Mood::Away => Err(away()),
            Mood::NotReady => Err(StoreError::NotReady("no such table: things".into())),
            Mood::LosesItsAnswer => {
                let _ = self.store.execute(statements).await;
                Err(away())
            }
        }
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Thing {
    entity: u8,
    version: i64,
    status: &'static str,
    deleted: bool,
    refused: bool,
}

fn delivery(number: usize, thing: &Thing, attempts: u32) -> Delivery {
    let kind = if thing.deleted { "thing.deleted" } else { "thing.updated" };
    let text = if thing.refused { "refused".to_owned() } else { format!("text {number}") };
    let body = format!(
        "{{\"id\":\"thing_{}\",\"version\":{},\"status\":\"{}\",\"text\":\"{text}\"}}",
        thing.entity, thing.version, thing.status
    );
    event(&format!("evt_{number:03}"), kind, &body, attempts)
}

fn any_thing() -> impl Strategy<Value = Thing> {
    let status = prop_oneof![Just("new"), Just("open"), Just("done"), Just("unheard of")];
    let deleted = prop::bool::weighted(0.15);
    let refused = prop::bool::weighted(0.05);
    (0_u8..3, 0_i64..4, status, deleted, refused).prop_map(
        |(entity, version, status, deleted, refused)| Thing {
            entity,
            version,
            status,
            deleted,
            refused,
        },
    )
}

fn any_mood() -> impl Strategy<Value = Mood> {
    prop_oneof![4 => Just(Mood::Works), 1 => Just(Mood::Away), 1 => Just(Mood::LosesItsAnswer)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_order_any_batches_any_duplicates_and_any_failures_end_in_the_same_tables(
        things in prop::collection::vec(any_thing(), 1..25),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        sizes in prop::collection::vec(1_usize..8, 1..40),
        script in prop::collection::vec(any_mood(), 0..40),
    ) {
        let fixture = fixture();
        let store = Flaky { store: &fixture.store, script: Mutex::new(script), calls: Arc::default() };

        // Every event, some of them repeated, in an order that proptest shrinks; retries go to the end.
        let mut waiting: Vec<(usize, u32)> = (0..things.len()).map(|number| (number, 1)).collect();
        waiting.extend(order.iter().map(|index| (index.index(things.len()), 1)));
        for (i, index) in order.iter().enumerate() {
            let length = waiting.len();
            waiting.swap(i % length, index.index(length));
        }
        let mut sizes = sizes.into_iter().cycle();
        while !waiting.is_empty() {
            let size = sizes.next().unwrap_or(1).min(waiting.len());
            let batch: Vec<_> = waiting.drain(..size).collect();
            let deliveries: Vec<_> =
                batch.iter().map(|(number, attempts)| delivery(*number, &things[*number], *attempts)).collect();
            let settled = fixture.process(&store, &deliveries);
            prop_assert_eq!(settled.len(), deliveries.len());
            for ((number, attempts), (_, verdict)) in batch.into_iter().zip(settled) {
                if let Verdict::Retry { .. } = verdict {
                    // Retries do not count here: another test covers exhaustion.
                    waiting.push((number, attempts.min(2)));
                }
            }
        }

        let sound: Vec<_> = things.iter().enumerate().filter(|(_, thing)| !thing.refused).collect();
        let mut greatest: BTreeMap<u8, (i64, i64, String)> = BTreeMap::new();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (number, thing) in &sound {
            let rank = match (thing.deleted, thing.status) {
                (true, _) => 1 << 52,
                (_, "new") => 1,
                (_, "open") => 2,
                (_, "done") => 3,
                _ => 0,
            };
            let event = (thing.version, rank, format!("evt_{number:03}"));
            let row = greatest.entry(thing.entity).or_insert_with(|| event.clone());
            *row = row.clone().max(event);
            *counts.entry(format!("thing_{}", thing.entity)).or_default() += 1;
        }
        let expected: Vec<_> = greatest
            .iter()
            .map(|(entity, (version, rank, id))| {
                let number: usize = id[4..].parse().unwrap();
                let thing = &things[number];
                vec![
                    format!("thing_{entity}"),
                    thing.status.to_owned(),
                    format!("text {number}"),
                    version.to_string(),
                    rank.to_string(),
                    id.clone(),
                    u8::from(thing.deleted).to_string(),
                ]
            })
            .collect();
        let cast = "SELECT id, status, text, cast(_version AS TEXT), cast(_precedence AS TEXT), _event_id, cast(_deleted AS TEXT) FROM things ORDER BY id";
        prop_assert_eq!(fixture.rows(cast), expected);
        let counted: BTreeMap<_, _> = fixture
            .rows("SELECT id, cast(n AS TEXT) FROM counts")
            .into_iter()
            .map(|row| (row[0].clone(), row[1].parse::<u64>().unwrap()))
            .collect();
        prop_assert_eq!(counted, counts);
        let buried: BTreeSet<_> = fixture.rows("SELECT event_id FROM dead_letters").into_iter().flatten().collect();
        let refused: BTreeSet<_> =
            (0..things.len()).filter(|number| things[*number].refused).map(|number| format!("evt_{number:03}")).collect();
        prop_assert_eq!(buried, refused);
        let done = |thing: &Thing| !thing.deleted && thing.status == "done";
        let emails: Vec<_> =
            sound.iter().filter(|(_, thing)| done(thing)).map(|(number, _)| format!("evt_{number:03}")).collect();
        let written: Vec<_> = fixture.rows("SELECT event_id FROM outbox ORDER BY event_id").into_iter().flatten().collect();
        prop_assert_eq!(written, emails);
    }
}

fn thing(entity: u8, refused: bool) -> Thing {
    Thing { entity, version: 1, status: "new", deleted: false, refused }
}

#[test]
fn a_batch_is_one_round_trip() {
    let fixture = fixture();
    let store = Flaky { store: &fixture.store, script: Mutex::default(), calls: Arc::default() };
    let batch: Vec<_> = (0..100).map(|number| delivery(number, &thing(1, false), 1)).collect();
    assert!(
        fixture
            .process(&store, &batch)
            .iter()
            .all(|settled| *settled == (Fate::Applied, Verdict::Ack))
    );
    assert_eq!(*store.calls.lock().unwrap(), 1);
    assert!(
        fixture
            .process(&store, &batch)
            .iter()
            .all(|settled| *settled == (Fate::Duplicate, Verdict::Ack))
    );
    // The ledger rejects them, and a query returns which ones.
    assert_eq!(*store.calls.lock().unwrap(), 3);
}

#[test]
fn an_event_that_waits_for_the_database_takes_effect_when_it_gets_it() {
    let mut fixture = fixture();
    fixture.config.keep_messages = true;
    let locking = fixture.connect();
    locking.execute_batch("BEGIN IMMEDIATE").unwrap();
    let batch = [delivery(1, &thing(1, false), 1)];
    let released = std::thread::scope(|scope| {
        let processing = scope.spawn(|| fixture.process(&fixture.store, &batch));
        let released = hookmill_native::now().millis();
        locking.execute_batch("ROLLBACK").unwrap();
        assert_eq!(processing.join().unwrap(), [(Fate::Applied, Verdict::Ack)]);
        released
    });
    let times = fixture.rows(
        "SELECT CAST(events.applied_at AS TEXT), CAST(event_messages.applied_at AS TEXT), CAST(event_kinds.applied_at AS TEXT)
         FROM events, event_messages, event_kinds",
    );
    let applied: i64 = times[0][0].parse().unwrap();
    assert!(applied >= released, "{applied} {released}");
    assert_eq!(times, [[&times[0][0][..]; 3]]);
    let row = &fixture
        .rows("SELECT CAST(lag AS TEXT), CAST(received_at AS TEXT) FROM activity, events")[0];
    let [lag, received] = [0, 1].map(|column| row[column].parse::<i64>().unwrap());
    assert!(lag >= released - received, "{lag}");
}

#[test]
fn a_counter_at_its_limit_refuses_its_events_alone() {
    let fixture = fixture();
    sql(&fixture, "INSERT INTO counts (id, n) VALUES ('full', 9223372036854775807)");
    let count = |id: &str, event_id: &str| {
        let body = format!(r#"{{"id":"{id}","version":1,"status":"new","text":"t"}}"#);
        event(event_id, "thing.created", &body, 1)
    };
    let batch = [count("a", "e1"), count("full", "e2"), count("b", "e3")];
    let settled = fixture.process(&fixture.store, &batch);
    assert_eq!(settled.iter().filter(|(fate, _)| *fate == Fate::Applied).count(), 2);
    let letters = fixture.rows("SELECT event_id, reason, error FROM dead_letters");
    assert_eq!((letters.len(), &letters[0][0][..], &letters[0][1][..]), (1, "e2", "refused"));
    assert!(
        letters[0][2].contains("counts.n") && letters[0][2].contains("a counter would exceed"),
        "{letters:?}"
    );
    let counts = fixture.rows("SELECT id, CAST(n AS TEXT) FROM counts ORDER BY id");
    assert_eq!(counts, [["a", "1"], ["b", "1"], ["full", "9223372036854775807"]]);
}

#[test]
fn an_event_that_panics_is_a_dead_letter_and_its_neighbors_are_applied() {
    let mut fixture = fixture();
    // Compiled rules that contradict each other: a defect.
    fixture.config.program.reads = Reads::default();
    let batch = [
        event("other_1", "other", "{}", 1),
        delivery(1, &thing(1, false), 1),
        event("other_2", "other", "{}", 1),
    ];
    let settled = fixture.process(&fixture.store, &batch);
    let recorded = (Fate::Recorded, Verdict::Ack);
    assert_eq!([&settled[0], &settled[2]], [&recorded, &recorded]);
    assert_eq!(settled[1].1, Verdict::Bury);
    let letters = fixture.rows("SELECT reason, error FROM dead_letters");
    assert_eq!(letters, [["permanent", &Panicked.to_string()]]);
}

#[test]
fn one_bad_event_among_a_hundred_is_found_in_few_round_trips() {
    let fixture = fixture();
    let store = Flaky { store: &fixture.store, script: Mutex::default(), calls: Arc::default() };
    let batch: Vec<_> =
        (0..100).map(|number| delivery(number, &thing(1, number == 61), 1)).collect();
    let settled = fixture.process(&store, &batch);
    assert_eq!(settled.iter().filter(|(fate, _)| *fate == Fate::Applied).count(), 99);
    assert_eq!(settled[61].1, Verdict::Bury);
    // The first transaction is rejected, and the ledger does not have the events. Then ten tenths, and ten single events
    // follow; the rule is found, and the letter is written.
    assert_eq!(*store.calls.lock().unwrap(), 24);
}

/// Counts its calls, and those that begin while no other one runs: the times that a batch waits.
struct Counting<'s> {
    store: &'s Sqlite,
    /// Calls, those that run, and waits.
    counts: Mutex<(usize, usize, usize)>,
}

impl Counting<'_> {
    async fn counted<T>(&self, call: impl Future<Output = T>) -> T {
        {
            let (calls, running, waits) = &mut *self.counts.lock().unwrap();
            *calls += 1;
            *waits += usize::from(*running == 0);
            *running += 1;
        }
        // Calls of one moment begin before the first of them ends.
        tokio::task::yield_now().await;
        let answer = call.await;
        self.counts.lock().unwrap().1 -= 1;
        answer
    }
}

impl Store for Counting<'_> {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        self.counted(self.store.execute(statements)).await
    }

    async fn query(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        self.counted(self.store.query(statements)).await
    }
}

#[test]
fn a_hundred_bad_events_are_found_in_few_waits() {
    let fixture = fixture();
    let store = Counting { store: &fixture.store, counts: Mutex::default() };
    let batch: Vec<_> = (0..100).map(|number| delivery(number, &thing(1, true), 1)).collect();
    let settled = fixture.process(&store, &batch);
    assert!(settled.iter().all(|(_, verdict)| *verdict == Verdict::Bury));
    let errors = fixture.rows("SELECT DISTINCT error FROM dead_letters");
    assert_eq!(
        errors,
        [["rule `things`: the store refused: CHECK constraint failed: text <> 'refused'"]]
    );
    let (calls, _, waits) = *store.counts.lock().unwrap();
    // Each needs a transaction of its own. One question finds the rules of all of them, and one transaction writes the
    // letters.
    assert_eq!(calls, 1 + 1 + 10 + 100 + 1 + 1);
    assert_eq!(waits, 1 + 1 + 19 + 1 + 1);
}

#[test]
fn an_unavailable_store_is_called_twice_for_a_batch() {
    let fixture = fixture();
    let store = Flaky {
        store: &fixture.store,
        script: Mutex::new(vec![Mood::Away; 9]),
        calls: Arc::default(),
    };
    let batch: Vec<_> = (0..100).map(|number| delivery(number, &thing(1, false), 1)).collect();
    let settled = fixture.process(&store, &batch);
    assert!(settled.iter().all(|(_, verdict)| matches!(verdict, Verdict::Retry { .. })));
    // The second call tries to record the failed attempts.
    assert_eq!(*store.calls.lock().unwrap(), 2);
}

#[test]
fn while_the_store_is_away_an_event_uses_up_no_attempts() {
    let fixture = fixture();
    let away = || Flaky {
        store: &fixture.store,
        script: Mutex::new(vec![Mood::Away; 9]),
        calls: Arc::default(),
    };
    let event = |attempts| [delivery(1, &thing(1, false), attempts)];
    let mut waited = Duration::ZERO;
    for attempts in 1..=100 {
        let settled = fixture.process(&away(), &event(attempts));
        let [(Fate::Unavailable(_), Verdict::Retry { delay })] = settled[..] else {
            panic!("{settled:?}")
        };
        waited += delay;
    }
    // Cloudflare keeps a message for fourteen days.
    let days = waited.as_secs_f64() / 86_400.0;
    assert!((12.0..14.0).contains(&days), "{days}");
    // A missing table is the first failure that uses up an attempt.
    sql(&fixture, "ALTER TABLE things RENAME TO gone");
    let settled = fixture.process(&fixture.store, &event(101));
    assert!(matches!(settled[..], [(Fate::Unavailable(_), Verdict::Retry { .. })]), "{settled:?}");
    sql(&fixture, "ALTER TABLE gone RENAME TO things");
    assert_eq!(fixture.process(&fixture.store, &event(102)), [(Fate::Applied, Verdict::Ack)]);
}

#[test]
fn events_that_need_a_missing_table_are_left_out_at_once() {
    let fixture = fixture();
    let store = Flaky { store: &fixture.store, script: Mutex::default(), calls: Arc::default() };
    sql(&fixture, "ALTER TABLE things RENAME TO gone");
    let mut batch: Vec<_> = (0..99).map(|number| delivery(number, &thing(1, false), 1)).collect();
    batch.insert(50, event("evt_other", "other.unheard_of", "{}", 1));
    let settled = fixture.process(&store, &batch);
    assert_eq!(settled[50], (Fate::Recorded, Verdict::Ack));
    let waits = settled.iter().filter(|(fate, _)| matches!(fate, Fate::Unavailable(_))).count();
    assert_eq!(waits, 99);
    // The first transaction fails, the second applies the other event, the third records the failed attempts.
    assert_eq!(*store.calls.lock().unwrap(), 3);
}

/// The row of an event in `retries`: whether it waits, its attempts, its notes, and the errors.
fn attempts(fixture: &Fixture, event: &str) -> Vec<Vec<String>> {
    fixture.rows(&format!(
        "SELECT CAST(due_at IS NOT NULL AS TEXT), CAST(attempts AS TEXT), CAST(begun AS TEXT), (
            SELECT group_concat(value ->> 'error', '; ') FROM json_each(failures)
        ) FROM retries WHERE id = '{event}'"
    ))
}

#[test]
fn the_failed_attempts_of_an_event_are_recorded() {
    let mut fixture = fixture();
    fixture.config.retry.max_attempts = 3;
    let event = |number, attempts| delivery(number, &thing(1, false), attempts);
    sql(&fixture, "ALTER TABLE things RENAME TO gone");
    let store = Flaky { store: &fixture.store, script: Mutex::default(), calls: Arc::default() };
    fixture.process(&store, &[event(1, 1), event(2, 1), event(2, 1)]);
    let missing = "rule `things`: the store is not ready: no such table: things";
    for event in ["evt_001", "evt_002"] {
        assert_eq!(attempts(&fixture, event), [["1", "1", "0", missing]], "it waits");
    }
    // Another delivery of the event, which the provider sent again, has attempts of its own.
    for attempt in [1, 2] {
        let settled = fixture.process(&fixture.store, &[event(2, attempt)]);
        assert!(matches!(settled[0].1, Verdict::Retry { .. }), "{attempt}");
    }
    assert_eq!(attempts(&fixture, "evt_002")[0][..3], ["1", "3", "0"]);
    fixture.process(&fixture.store, &[event(1, 2)]);
    assert_eq!(attempts(&fixture, "evt_001"), [["1", "2", "0", &format!("{missing}; {missing}")]]);
    // The third attempt is the last one. Its failure is in the dead letter.
    fixture.process(&fixture.store, &[event(1, 3)]);
    assert_eq!(attempts(&fixture, "evt_001")[0][..3], ["0", "2", "0"]);
    assert_eq!(fixture.rows("SELECT reason FROM dead_letters"), [["exhausted"]]);
    sql(&fixture, "ALTER TABLE gone RENAME TO things");
    fixture.process(&fixture.store, &[event(2, 2)]);
    assert_eq!(attempts(&fixture, "evt_002")[0][..3], ["0", "3", "0"], "the history stays");
    // A batch without failures costs nothing more.
    assert!(attempts(&fixture, "evt_003").is_empty());
    *store.calls.lock().unwrap() = 0;
    fixture.process(&store, &[event(3, 1)]);
    assert_eq!(*store.calls.lock().unwrap(), 1);
}

#[test]
fn an_error_names_the_rule_that_failed() {
    let fixture = fixture();
    let error = |change: &str, undo: &str, refused: bool| {
        sql(&fixture, change);
        let settled = fixture.process(&fixture.store, &[delivery(1, &thing(1, refused), 1)]);
        sql(&fixture, undo);
        match &settled[0].0 {
            Fate::Unavailable(error) | Fate::Condemned { error, .. } => error.clone(),
            fate => panic!("{fate:?}"),
        }
    };
    let rename = |from: &str, to: &str| format!("ALTER TABLE {from} RENAME TO {to}");
    let errors = [
        error(&rename("counts", "gone"), &rename("gone", "counts"), false),
        error("SELECT 1", "SELECT 1", true),
        error(
            "CREATE TRIGGER t BEFORE INSERT ON counts BEGIN SELECT RAISE(ABORT, 'not on Sundays'); END",
            "DROP TRIGGER t",
            false,
        ),
    ];
    insta::assert_debug_snapshot!(errors, @r#"
    [
        "rule `counts`: the store is not ready: no such table: counts",
        "rule `things`: the store refused: CHECK constraint failed: text <> 'refused'",
        "rule `counts`: the store refused: not on Sundays",
    ]
    "#);
}

#[test]
fn an_email_is_in_the_outbox_once_with_what_its_rule_says() {
    let fixture = fixture();
    let done = r#"{"id":"thing_1","version":1,"status":"done","text":"\"<b>","people":["a@example.com",3,"b@example.com"]}"#;
    let batch = [event("evt_1", "thing.updated", done, 1)];
    for fate in [Fate::Applied, Fate::Duplicate] {
        assert_eq!(fixture.process(&fixture.store, &batch), [(fate, Verdict::Ack)]);
    }
    insta::assert_debug_snapshot!(fixture.rows(
        "SELECT id, source, event_id, rule, channel, content, state, CAST(due_at AS TEXT) FROM outbox"
    ));
}

#[test]
fn a_list_in_the_payload_does_not_become_recipients_unless_the_rule_allows_it() {
    let fixture = fixture();
    let people = |count: usize| {
        let people: Vec<_> = (0..count).map(|n| format!("\"{n}@example.com\"")).collect();
        format!(r#"{{"id":"thing_1","version":1,"status":"done","people":[{}]}}"#, people.join(","))
    };
    let batch: Vec<_> = [2, 3, 500]
        .iter()
        .map(|count| event(&format!("evt_{count:03}"), "thing.updated", &people(*count), 1))
        .collect();
    assert!(fixture.process(&fixture.store, &batch).iter().all(|(fate, _)| *fate == Fate::Applied));
    let written = "SELECT CAST(content ->> 'too_many' AS TEXT), \
        CAST(json_array_length(content -> 'cc') AS TEXT) FROM outbox ORDER BY event_id";
    assert_eq!(fixture.rows(written), [["NULL", "2"], ["3", "NULL"], ["500", "NULL"]]);
}

#[test]
fn an_email_is_only_written_if_every_condition_is_met() {
    let fixture = fixture();
    let cases = [
        (r#""a":{"b":1},"e":0,"f":0"#, true),
        (r#""a":{"b":"x"},"c":"yes","e":0,"f":0"#, true),
        (r#""a":{"b":"\u0078"},"d":null,"e":0,"f":0"#, true),
        (r#""a":{"b":true},"e":0,"f":0"#, true),
        (r#""a":{"b":2},"e":0,"f":0"#, false),
        (r#""e":0,"f":0"#, false),
        (r#""a":{"b":1},"c":"no","e":0,"f":0"#, false),
        (r#""a":{"b":1},"d":0,"e":0,"f":0"#, false),
        (r#""a":{"b":1},"e":null,"f":0"#, false),
        (r#""a":{"b":1},"e":0"#, false),
        (r#""a":{"b":1},"e":0,"f":"""#, false),
        (r#""a":{"b":1},"e":0,"f":1.0"#, false),
    ];
    for (number, (members, _)) in cases.iter().enumerate() {
        let body = format!("{{\"to\":\"a@example.com\",{members}}}");
        let batch = [event(&number.to_string(), "asked", &body, 1)];
        // A rule matched the event, whatever the rule produced.
        assert_eq!(fixture.process(&fixture.store, &batch), [(Fate::Applied, Verdict::Ack)]);
    }
    let written: BTreeSet<_> =
        fixture.rows("SELECT event_id FROM outbox").into_iter().flatten().collect();
    for (number, (members, expected)) in cases.iter().enumerate() {
        assert_eq!(written.contains(&number.to_string()), *expected, "{members}");
    }
}

#[test]
fn an_email_that_cannot_be_sent_does_not_keep_its_event_from_taking_effect() {
    let fixture = fixture();
    let long = "x".repeat(600_000);
    let bodies = [
        r#"{"id":"1","version":1,"status":"done"}"#.to_owned(),
        r#"{"id":"2","version":1,"status":"done","people":{"a":1}}"#.to_owned(),
        format!(r#"{{"id":"3","version":1,"status":"done","text":"{long}"}}"#),
    ];
    let batch = bodies.iter().enumerate();
    let batch: Vec<_> =
        batch.map(|(n, body)| event(&format!("evt_{n}"), "thing.updated", body, 1)).collect();
    let settled = fixture.process(&fixture.store, &batch);
    assert!(settled.iter().all(|settled| *settled == (Fate::Applied, Verdict::Ack)));
    insta::assert_debug_snapshot!(fixture.rows("SELECT content FROM outbox ORDER BY event_id"));
}

/// One body in the object store, until it is removed.
struct OneObject(Mutex<Option<Vec<u8>>>);

impl Objects for OneObject {
    async fn put(&self, _: &str, _: &[u8]) -> Result<(), ObjectError> {
        Err(ObjectError("full".into()))
    }

    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn delete(&self, _: &str) -> Result<(), ObjectError> {
        *self.0.lock().unwrap() = None;
        Ok(())
    }

    async fn list(&self, _: &str) -> Result<Vec<StoredObject>, ObjectError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_large_body_is_removed_after_its_event_is_applied_unless_its_message_is_kept() {
    let body = br#"{"id":"thing_1","version":1,"status":"new","text":"large"}"#;
    for kept in [false, true] {
        let mut fixture = fixture();
        fixture.config.keep_messages = kept;
        let mut envelope = decode(&event("evt_1", "thing.updated", "", 1).text).unwrap().envelope;
        let check = ClaimCheck { key: "s/1".into(), bytes: body.len() };
        let text = encode_claim_check(&mut envelope, check);
        let objects = OneObject(Mutex::new(Some(body.to_vec())));
        let settled = |fixture: &Fixture, text: String, now: i64| {
            let (batch, now) = ([Delivery { attempts: 1, text }], Timestamp::from_millis(now));
            let result =
                process_batch(&fixture.store, &objects, &fixture.config, &batch, now, |_, _| {});
            fixture.runtime.block_on(result).settled.remove(0).fate
        };
        assert_eq!(settled(&fixture, text.clone(), 7), Fate::Applied);
        assert_eq!(objects.0.lock().unwrap().is_some(), kept);
        // A redelivery: the ledger has the event.
        assert_eq!(settled(&fixture, text.clone(), 8), Fate::Duplicate);
        let sql = "SELECT source, id, message FROM event_messages JOIN events USING (applied_at, source, id)
            WHERE generation = 0";
        let messages = fixture.rows(sql);
        if kept {
            assert_eq!(messages, [["s".to_owned(), "evt_1".into(), text.clone()]]);
            let again = |generation| reprocessed(&text, generation, &[]).unwrap();
            assert_eq!(settled(&fixture, again(1), 9), Fate::Applied);
            // Stored messages still need their bodies after `messages` was removed.
            fixture.config.keep_messages = false;
            assert_eq!(settled(&fixture, again(2), 9), Fate::Applied);
            assert!(objects.0.lock().unwrap().is_some());
            assert_eq!(fixture.rows(sql).len(), 1);
        } else {
            assert!(messages.is_empty());
        }
        let counts = fixture.rows("SELECT CAST(n AS TEXT) FROM counts");
        assert_eq!(counts, [["1"]], "a reprocessing counts nothing");
    }
}

/// The text of a parameter.
fn text(param: &Param) -> &str {
    match param {
        Param::Text(text) => text,
        Param::Integer(_) | Param::Null | Param::Now => "",
    }
}

/// A store on which the events of some bodies end the process: it never answers, and notifies that it was called.
struct Deadly<'s> {
    store: &'s Sqlite,
    over: tokio::sync::Notify,
}

impl Store for Deadly<'_> {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let is_deadly = |statement: &Statement| {
            let rows = statement.params.iter().any(|param| text(param).contains("deadly"));
            statement.sql.starts_with("-- rule") && rows
        };
        if statements.iter().any(is_deadly) {
            self.over.notify_one();
            std::future::pending::<()>().await;
        }
        self.store.execute(statements).await
    }
}

/// Processes a batch with events that end the process. Returns how often the process ended, and the last verdict of each
/// event. The queue delivers events without a verdict again; if it `forgets`, also those with a verdict from an invocation
/// that ended.
fn survive(fixture: &Fixture, mut batch: Vec<Delivery>, forgets: bool) -> (usize, Vec<Verdict>) {
    let store = Deadly { store: &fixture.store, over: tokio::sync::Notify::new() };
    let mut verdicts = vec![None; batch.len()];
    for deaths in 0.. {
        assert!(deaths < 50, "the process ends again and again: {verdicts:?}");
        let waiting: Vec<_> = (0..batch.len()).filter(|i| verdicts[*i].is_none()).collect();
        let deliveries: Vec<_> = waiting.iter().map(|i| batch[*i].clone()).collect();
        let reported = Mutex::new(Vec::new());
        let result = fixture.runtime.block_on(async {
            let now = Timestamp::from_millis(0);
            let on_settled = |index: usize, settled: &hookmill_consumers::Settled| {
                reported.lock().unwrap().push((index, settled.verdict));
            };
            tokio::select! {
                result = process_batch(&store, &NoObjects, &fixture.config, &deliveries, now, on_settled) => Some(result),
                () = store.over.notified() => None,
            }
        });
        if result.is_some() || !forgets {
            for (index, verdict) in reported.into_inner().unwrap() {
                verdicts[waiting[index]] = Some(verdict);
            }
        }
        for index in waiting {
            batch[index].attempts += 1;
        }
        if result.is_some() {
            return (deaths, verdicts.into_iter().map(Option::unwrap).collect());
        }
    }
    unreachable!()
}

#[test]
fn an_event_that_ends_the_process_is_given_up_and_its_neighbors_are_applied() {
    for forgets in [false, true] {
        for deadly in [vec![0], vec![57], vec![99], vec![3, 4, 60]] {
            let fixture = fixture();
            let body = |i: usize| {
                let text = if deadly.contains(&i) { "deadly" } else { "harmless" };
                format!(
                    "{{\"id\":\"thing_{i:03}\",\"version\":1,\"status\":\"new\",\"text\":\"{text}\"}}"
                )
            };
            let event = |i: usize| event(&format!("evt_{i:03}"), "thing.updated", &body(i), 1);
            let (deaths, verdicts) = survive(&fixture, (0..100).map(event).collect(), forgets);
            for (i, verdict) in verdicts.iter().enumerate() {
                let expected = if deadly.contains(&i) { Verdict::Bury } else { Verdict::Ack };
                assert_eq!(*verdict, expected, "event {i}, deadly {deadly:?}, forgets {forgets}");
            }
            assert!(deaths <= 1 + 3 * deadly.len(), "{deaths} deaths for {deadly:?}");
            let sql = "SELECT event_id, reason FROM dead_letters ORDER BY event_id";
            let letters = deadly.iter().map(|i| [format!("evt_{i:03}"), "dropped".to_owned()]);
            assert_eq!(fixture.rows(sql), letters.map(Vec::from).collect::<Vec<_>>());
            let counts =
                fixture.rows("SELECT CAST(count(*) AS TEXT), CAST(sum(n) AS TEXT) FROM counts");
            let applied = (100 - deadly.len()).to_string();
            assert_eq!(counts, [[applied.clone(), applied]], "each takes effect once");
            assert!(
                fixture
                    .rows("SELECT id FROM retries WHERE begun > 0 OR due_at IS NOT NULL")
                    .is_empty()
            );
        }
    }
}

#[test]
fn a_verdict_removes_the_note_of_its_delivery() {
    let fixture = fixture();
    let good = |attempts| {
        event("evt_1", "thing.updated", r#"{"id":"a","version":1,"status":"new"}"#, attempts)
    };
    let poison = event("evt_2", "thing.updated", r#"{"id":"b"}"#, 2);
    // The note is written, the events are not applied, the note is removed. Moods are popped from the end.
    let script = vec![Mood::Works, Mood::Away, Mood::Works, Mood::Works];
    let store = Flaky { store: &fixture.store, script: Mutex::new(script), calls: Arc::default() };
    for attempts in 2..6 {
        let settled = fixture.process(&store, &[good(attempts), poison.clone()]);
        assert_eq!(settled[0].1 == Verdict::Ack, attempts > 2, "{settled:?}");
        assert_eq!(settled[1].1, Verdict::Bury);
        assert!(fixture.rows("SELECT id FROM retries WHERE begun > 0").is_empty(), "{attempts}");
    }
}

/// A store that records the size of each transaction in bytes.
struct Measured<'s>(&'s Sqlite, Mutex<Vec<usize>>);

impl Store for Measured<'_> {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let params = statements.iter().flat_map(|statement| &statement.params);
        let bytes = params.map(|param| text(param).len()).sum();
        self.1.lock().unwrap().push(bytes);
        self.0.execute(statements).await
    }
}

#[test]
fn a_batch_of_large_events_is_applied_in_parts() {
    let fixture = fixture();
    let event = |i: usize| {
        let text = "x".repeat(120_000);
        let body = format!(
            "{{\"id\":\"thing_{i}\",\"version\":1,\"status\":\"new\",\"text\":\"{text}\"}}"
        );
        event(&format!("evt_{i}"), "thing.updated", &body, 1)
    };
    let store = Measured(&fixture.store, Mutex::default());
    let settled = fixture.process(&store, &(0..100).map(event).collect::<Vec<_>>());
    assert!(settled.iter().all(|(fate, _)| *fate == Fate::Applied));
    let transactions = store.1.into_inner().unwrap();
    assert!(transactions.len() <= 4, "few transactions: {transactions:?}");
    assert!(transactions.iter().all(|bytes| *bytes < 4_300_000), "none is long: {transactions:?}");
}

#[test]
fn a_version_far_ahead_is_a_dead_letter_and_does_not_block_the_row() {
    let config =
        CONFIG.replace("version = \"version\"", "version = { unix_seconds = \"version\" }");
    let fixture = Fixture::new(&config, TABLES);
    let day = 86_400;
    let versions = [day, day + 1, 9_000_000_000 - RECEIVED_AT.seconds(), day - 1];
    let batch: Vec<_> = versions
        .iter()
        .enumerate()
        .map(|(number, later)| {
            let version = RECEIVED_AT.seconds() + later;
            let body = format!("{{\"id\":\"a\",\"version\":{version},\"status\":\"{number}\"}}");
            event(&format!("evt_{number}"), "thing.updated", &body, 1)
        })
        .collect();
    let fates = fixture.process(&fixture.store, &batch).into_iter().map(|(fate, _)| match fate {
        Fate::Condemned { error, .. } => error,
        fate => fate.to_string(),
    });
    let ahead = "rule `things`: the value at `version` is not a valid version: it is a time more than a day after the receipt of the event";
    assert_eq!(fates.collect::<Vec<_>>(), ["applied", ahead, ahead, "applied"]);
    assert_eq!(fixture.rows("SELECT status FROM things"), [["0"]]);
}

#[test]
fn keys_are_exact_and_no_two_become_one() {
    let fixture = fixture();
    let largest = i64::MAX.to_string();
    let long = "\"9223372036854775809\"";
    let ids = [
        &*largest,
        long,
        "\"true\"",
        "1",
        "9223372036854775808",
        "true",
        "1.0",
        "[1]",
        r#""a\u0000b""#,
    ];
    let batch: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(number, id)| {
            let body = format!("{{\"id\":{id},\"version\":1,\"status\":\"new\"}}");
            event(&format!("evt_{number}"), "thing.updated", &body, 1)
        })
        .collect();
    let fates = fixture.process(&fixture.store, &batch).into_iter().map(|(fate, _)| match fate {
        Fate::Condemned { error, .. } => error,
        fate => fate.to_string(),
    });
    insta::assert_debug_snapshot!(fates.collect::<Vec<_>>(), @r#"
    [
        "applied",
        "applied",
        "applied",
        "applied",
        "applied",
        "rule `things`: the value at `id` is not a valid key: a key is text or an integer; convert it with `{ text = … }` or `{ boolean = … }` in the rule",
        "applied",
        "rule `things`: the value at `id` is not a valid key: a key is text or an integer; convert it with `{ text = … }` or `{ boolean = … }` in the rule",
        "rule `things`: the value at `id` is not a valid key: it contains a NUL character",
    ]
    "#);
    assert_eq!(
        fixture.rows("SELECT id FROM things ORDER BY id"),
        [
            ["1"],
            ["9223372036854775807"],
            ["9223372036854775808"],
            ["9223372036854775809"],
            ["true"]
        ]
    );
}

/// A body with a list and a value that every row repeats: `length` rows of `width` bytes.
fn amplified(id: &str, length: usize, width: usize) -> Delivery {
    let items = vec!["{\"id\":1}"; length].join(",");
    let note = "n".repeat(width);
    let body = format!("{{\"id\":\"{id}\",\"version\":1,\"note\":\"{note}\",\"items\":[{items}]}}");
    event(&format!("evt_{id}"), "list.updated", &body, 1)
}

const LISTS: &str = r#"
[sources.s]
scheme = "stripe"
secrets = ["env:A"]

[database]
migrations = "app"

[limits]
rows_per_event = 1000
bytes_per_event = "1MiB"

[[rules]]
name = "items"
on = ["s:list.*"]
each = "items"
table = "items"
key = { list = "id", id = "@.id" }
version = "version"
set = { note = "note" }

[[rules]]
name = "sold"
on = ["s:list.*"]
each = "items"
table = "sold"
key = { note = "note" }
add = { n = 1 }
"#;

#[test]
fn an_event_that_would_write_too_much_is_a_dead_letter_and_its_neighbors_are_applied() {
    let fixture = Fixture::new(
        LISTS,
        "CREATE TABLE items (list TEXT, id INTEGER, note TEXT, PRIMARY KEY (list, id)) STRICT, WITHOUT ROWID;
         CREATE TABLE sold (note TEXT PRIMARY KEY, n INTEGER) STRICT, WITHOUT ROWID;",
    );
    let batch = [
        amplified("small", 400, 10),
        // The maximum: 500 for each rule.
        amplified("most", 500, 10),
        // Bodies below a megabyte that would become gigabytes.
        amplified("rows", 60_000, 10),
        amplified("bytes", 400, 400_000),
        amplified("last", 400, 10),
    ];
    let result = fixture.runtime.block_on(process_batch(
        &fixture.store,
        &NoObjects,
        &fixture.config,
        &batch,
        Timestamp::from_millis(0),
        |_, _| {},
    ));
    let errors = result.settled.iter().map(|settled| match &settled.fate {
        Fate::Condemned { reason, error } => format!("{reason}: {error}"),
        fate => fate.to_string(),
    });
    insta::assert_debug_snapshot!(errors.collect::<Vec<_>>(), @r#"
    [
        "applied",
        "applied",
        "permanent: rule `items`: the event would write more than 1000 rows, the limit for one event; raise `rows_per_event` in `[limits]` of hookmill.toml",
        "permanent: rule `items`: the event would write more than 1048576 bytes, the limit for one event; raise `bytes_per_event` in `[limits]` of hookmill.toml",
        "applied",
    ]
    "#);
}

#[test]
fn a_large_body_that_a_letter_refers_to_stays() {
    let body = br#"{"id":"thing_1","version":1,"status":"new","text":"large"}"#;
    let mut fixture = fixture();
    fixture.config.keep_messages = false;
    fixture.config.retry.max_attempts = 1;
    let mut envelope = decode(&event("evt_1", "thing.updated", "", 1).text).unwrap().envelope;
    let check = ClaimCheck { key: "s/1".into(), bytes: body.len() };
    let text = encode_claim_check(&mut envelope, check);
    let objects = OneObject(Mutex::new(Some(body.to_vec())));
    let settled = |text: String| {
        let batch = [Delivery { attempts: 1, text }];
        let now = Timestamp::from_millis(7);
        let result =
            process_batch(&fixture.store, &objects, &fixture.config, &batch, now, |_, _| {});
        let settled = fixture.runtime.block_on(result).settled.remove(0);
        (settled.fate, settled.verdict)
    };
    sql(&fixture, "ALTER TABLE things RENAME TO gone");
    let again = reprocessed(&text, 1, &[]).unwrap();
    assert_eq!(settled(again.clone()).1, Verdict::Bury);
    sql(&fixture, "ALTER TABLE gone RENAME TO things");
    // The letter of the reprocessing keeps its event's body while the letter exists.
    assert_eq!(settled(text), (Fate::Applied, Verdict::Ack));
    assert!(objects.0.lock().unwrap().is_some());
    assert_eq!(settled(again.clone()), (Fate::Applied, Verdict::Ack));
    assert_eq!(fixture.rows("SELECT state FROM dead_letters"), [["applied"]]);
    assert!(objects.0.lock().unwrap().is_some());
    sql(&fixture, "DELETE FROM dead_letters");
    assert_eq!(settled(again), (Fate::Duplicate, Verdict::Ack));
    assert!(objects.0.lock().unwrap().is_none());
}

#[test]
fn an_applied_event_settles_its_letter_and_no_other() {
    let fixture = fixture();
    let letter = |event: &str, generation: u32, state: &str| {
        sql(&fixture, &format!(
            "INSERT INTO dead_letters (id, source, event_id, generation, reason, error, fingerprint, attempts, first_failed_at,
                last_failed_at, state, state_at, message)
            VALUES ('{event} {generation} {state}', 's', '{event}', {generation}, 'refused', 'x', 'f', 1, 1, 1, '{state}', 1, 'm')"
        ));
    };
    for state in ["dead", "replaying", "replayed", "discarded"] {
        letter("evt_001", 0, state);
    }
    letter("evt_001", 1, "dead");
    letter("evt_002", 0, "dead");
    fixture.process(&fixture.store, &[delivery(1, &thing(1, false), 1)]);
    let letters = "SELECT id, state, CAST(state_at > 1 AS TEXT), CAST(replays AS TEXT) FROM dead_letters ORDER BY id";
    let expected = [
        ["evt_001 0 dead", "applied", "1", "0"],
        ["evt_001 0 discarded", "discarded", "0", "0"],
        ["evt_001 0 replayed", "applied", "1", "0"],
        // The letter was sent, but the replay had not recorded it yet.
        ["evt_001 0 replaying", "applied", "1", "1"],
        ["evt_001 1 dead", "dead", "0", "0"],
        ["evt_002 0 dead", "dead", "0", "0"],
    ];
    assert_eq!(fixture.rows(letters), expected);
    // Events that had taken effect before are settled too: then the message of a replay is a duplicate.
    sql(&fixture, "UPDATE dead_letters SET state = 'replayed' WHERE id = 'evt_001 0 dead'");
    let duplicate = fixture.process(&fixture.store, &[delivery(1, &thing(1, false), 1)]);
    assert_eq!(duplicate, [(Fate::Duplicate, Verdict::Ack)]);
    assert_eq!(fixture.rows(letters), expected);
}

#[test]
fn a_failed_delivery_of_an_applied_event_is_a_duplicate_without_a_letter() {
    let mut fixture = fixture();
    fixture.config.retry.max_attempts = 1;
    let [good, new] = [1, 2].map(|number| delivery(number, &thing(1, false), 1));
    fixture.process(&fixture.store, std::slice::from_ref(&good));
    sql(&fixture, "ALTER TABLE things RENAME TO gone");
    let settled = fixture.process(&fixture.store, &[good.clone(), new]);
    assert_eq!(settled[0], (Fate::Duplicate, Verdict::Ack));
    assert_eq!(settled[1].1, Verdict::Bury);
    // The platform gives one up, which creates no letter either.
    let dropped = [good, delivery(3, &thing(1, false), 100)];
    let drained = drain(&fixture.store, &dropped, Timestamp::from_millis(0));
    assert_eq!(fixture.runtime.block_on(drained).0, [Verdict::Bury; 2]);
    let letters = fixture.rows("SELECT event_id, reason FROM dead_letters ORDER BY event_id");
    assert_eq!(letters, [["evt_002", "exhausted"], ["evt_003", "dropped"]]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A delivery that is applied.
    Applied(usize),
    /// A delivery that is given up because a table is missing.
    Exhausted(usize),
    /// A delivery that the platform gives up.
    Dropped(usize),
    /// Every dead letter is sent to the queue again, and that is recorded or not.
    Replayed { written_down: bool },
    /// The oldest message of a replay is applied.
    Arrives,
    /// The ledger forgets old events.
    Swept,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0_usize..3).prop_map(Step::Applied),
        2 => (0_usize..3).prop_map(Step::Exhausted),
        1 => (0_usize..3).prop_map(Step::Dropped),
        2 => any::<bool>().prop_map(|written_down| Step::Replayed { written_down }),
        3 => Just(Step::Arrives),
        2 => Just(Step::Swept),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The provider may send again for 35 days; after that, only replays do.
    #[test]
    fn an_event_that_fails_and_is_sent_again_and_replayed_counts_once(
        early in prop::collection::vec(any_step(), 1..20),
        late in prop::collection::vec(any_step(), 0..10),
    ) {
        let mut fixture = fixture();
        fixture.config.retry.max_attempts = 1;
        let message = |number: usize, attempts| delivery(number, &thing(1, false), attempts);
        let process = |mood, delivery: Delivery, now| {
            let script = Mutex::new(vec![mood]);
            let store = Flaky { store: &fixture.store, script, calls: Arc::default() };
            let (batch, now) = ([delivery], Timestamp::from_millis(now));
            let result = process_batch(&store, &NoObjects, &fixture.config, &batch, now, |_, _| {});
            fixture.runtime.block_on(result);
        };
        let retention = Retention { events: Some(Duration::from_secs(35 * 86_400)), ..Retention::default() };
        let mut came = BTreeSet::new();
        let mut on_queue: Vec<Delivery> = Vec::new();
        let late = late.into_iter().filter(|step| {
            !matches!(step, Step::Applied(_) | Step::Exhausted(_) | Step::Dropped(_))
        });
        let end = [Step::Replayed { written_down: true }, Step::Arrives, Step::Arrives, Step::Arrives, Step::Swept];
        let steps = early.into_iter().map(|step| (step, 0));
        // The queue of replays is empty long before the ledger forgets.
        let between = [Step::Arrives; 80].map(|step| (step, 1));
        let late = late.chain(end).map(|step| (step, 36 * 86_400_000));
        for (step, now) in steps.chain(between).chain(late) {
            match step {
                Step::Applied(number) => {
                    came.insert(number);
                    process(Mood::Works, message(number, 1), now);
                }
                Step::Exhausted(number) => {
                    came.insert(number);
                    process(Mood::NotReady, message(number, 1), now);
                }
                Step::Dropped(number) => {
                    came.insert(number);
                    let batch = [message(number, 101)];
                    fixture.runtime.block_on(drain(&fixture.store, &batch, Timestamp::from_millis(now)));
                }
                Step::Replayed { written_down } => {
                    let dead = fixture.rows("SELECT message FROM dead_letters WHERE state = 'dead'");
                    sql(&fixture, "UPDATE dead_letters SET state = 'replaying' WHERE state = 'dead'");
                    on_queue.extend(dead.into_iter().flatten().map(|text| Delivery { attempts: 1, text }));
                    if written_down {
                        sql(&fixture, "UPDATE dead_letters SET state = 'replayed' WHERE state = 'replaying'");
                    } else {
                        // The process ended in this step, and the replay was canceled.
                        sql(&fixture, "UPDATE dead_letters SET state = 'dead' WHERE state = 'replaying'");
                    }
                }
                Step::Arrives if on_queue.is_empty() => {}
                Step::Arrives => {
                    process(Mood::Works, on_queue.remove(0), now);
                }
                Step::Swept => {
                    let swept = sweep(&fixture.store, &NoObjects, &retention, Timestamp::from_millis(now));
                    fixture.runtime.block_on(swept).unwrap();
                }
            }
        }
        while let Some(delivery) = on_queue.pop() {
            process(Mood::Works, delivery, 36 * 86_400_000);
        }
        let counts = fixture.rows("SELECT CAST(total(n) AS INTEGER) || '' FROM counts");
        prop_assert_eq!(counts, [[came.len().to_string()]]);
    }
}
