//! The sweep removes old rows in steps, and nothing else. A body is deleted when no row refers to it any more.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hookmill_config::Retention;
use hookmill_core::delivery::Delivery;
use hookmill_core::message::{
    BodyForm, ClaimCheck, Envelope, VERSION, Verified, decode, encode_claim_check, reprocessed,
};
use hookmill_core::objects::{ObjectError, Objects, StoredObject};
use hookmill_core::store::{Row, Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_core::words::LetterReason;
use hookmill_dlq::{Letter, Swept, bury, sweep, unreferenced};
use hookmill_native::{DataFolder, Sqlite};
use proptest::prelude::*;

const DAY: u64 = 86_400;
const HOUR: i64 = 3_600_000;

/// The bodies that were removed.
#[derive(Default)]
struct Removed(Mutex<Vec<String>>);

impl Objects for Removed {
    async fn put(&self, _: &str, _: &[u8]) -> Result<(), ObjectError> {
        Ok(())
    }

    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        Ok(None)
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.0.lock().unwrap().push(key.to_owned());
        Ok(())
    }

    async fn list(&self, _: &str) -> Result<Vec<StoredObject>, ObjectError> {
        Ok(Vec::new())
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn sql(store: &Sqlite, sql: &str) -> Vec<Vec<Option<String>>> {
    let statement = Statement::new(sql, Vec::new());
    let rows = block(store.execute(vec![statement])).unwrap().remove(0);
    rows.iter().map(Row::texts).collect()
}

/// A store in which each kind has one row for each of these days.
fn filled(folder: &tempfile::TempDir, days: &[u64]) -> (DataFolder, Sqlite) {
    let data = DataFolder::lock(folder.path()).unwrap();
    let store = data.store(&hookmill_migrations::own()).unwrap().store;
    for day in days {
        let at = day * DAY * 1000;
        let message = format!(
            r#"{{"v":1,"source":"s","id":"e{day}","type":"t","received_at":1,"verified":{{"secret":0}},"body":{{"object":{{"key":"s/{day}","bytes":9}}}}}}"#
        );
        for insert in [
            format!(
                "INSERT INTO events (source, id, type, outcome, received_at, applied_at, attempts, secret) VALUES ('s', 'e{day}', 't', 'applied', 0, {at}, 1, 0)"
            ),
            format!("INSERT INTO event_messages VALUES ({at}, 's', 'e{day}', '{message}')"),
            format!(
                "INSERT INTO replays (id, filter, state, total, planned_by, planned_at, generation) VALUES ('n{day}', '{{}}', 'done', 0, 'a', {at}, {day})"
            ),
            format!("INSERT INTO activity VALUES ({at} / 60000, 's', 'applied', 1, 0)"),
            format!("INSERT INTO rule_counts VALUES ({day}, 'r', 1, '{{}}')"),
            format!("INSERT INTO api_version_counts VALUES ({day}, 's', 'v', 1, 1, 0, 0)"),
            format!(
                "INSERT INTO event_kinds VALUES ('s', 't', 'applied', {at}, 1, '[[\"e{day}\",0]]')"
            ),
            format!(
                "INSERT INTO audit (at, actor, action, target, reason, detail) VALUES ({at}, 'a', 'b', 'c', 'd', '{{}}')"
            ),
            format!(
                "INSERT INTO replays (id, filter, state, total, planned_by, planned_at) VALUES ('r{day}', '{{}}', 'done', 0, 'a', {at})"
            ),
            format!(
                "INSERT INTO replays (id, filter, state, total, planned_by, planned_at) VALUES ('p{day}', '{{}}', 'paused', 0, 'a', {at})"
            ),
            format!(
                "INSERT INTO outbox_batches (id, channel, provider, members, body, state, due_at, sealed_at, settled_at) VALUES ('b{day}', 'email', 'resend', '[]', '', 'sent', 0, 0, {at})"
            ),
            format!(
                "INSERT INTO outbox (id, source, event_id, generation, rule, channel, content, state, due_at, created_at, settled_at) VALUES ('o{day}', 's', 'e', 0, 'r', 'email', '{{}}', 'sent', 0, 0, {at})"
            ),
            format!(
                "INSERT INTO outbox (id, source, event_id, generation, rule, channel, content, state, due_at, created_at) VALUES ('w{day}', 's', 'e', 0, 'r', 'email', '{{}}', 'pending', {at}, {at})"
            ),
        ] {
            sql(&store, &insert);
        }
        for state in ["dead", "replayed", "applied", "discarded"] {
            sql(
                &store,
                &format!(
                    "INSERT INTO dead_letters (id, reason, error, fingerprint, attempts, first_failed_at, last_failed_at, state, state_at, message) VALUES ('{state}{day}', 'refused', 'x', 'f', 1, {at}, {at}, '{state}', {at}, '{message}')"
                ),
            );
        }
    }
    (data, store)
}

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * DAY)
}

fn swept(store: &Sqlite, objects: &Removed, retention: &Retention) -> Swept {
    swept_on(400, store, objects, retention)
}

fn swept_on(day: u64, store: &Sqlite, objects: &Removed, retention: &Retention) -> Swept {
    let now = Timestamp::from_seconds(i64::try_from(day * DAY).unwrap());
    block(sweep(store, objects, retention, now)).unwrap()
}

#[test]
fn old_rows_are_removed_unless_an_operator_has_to_act() {
    let folder = tempfile::tempdir().unwrap();
    let (_data, store) = filled(&folder, &[1, 399]);
    let objects = Removed::default();
    let found = swept(&store, &objects, &Retention::default());
    // Events, dead letters and the audit have no retention here, so they stay. Messages are not kept without a retention.
    insta::assert_debug_snapshot!(found, @r#"
    Swept {
        removed: {
            "activity": 1,
            "counts of API versions": 1,
            "counts of rows": 1,
            "messages": 2,
            "outbox": 1,
            "outbox batches": 1,
            "replays": 2,
            "settled dead letters": 2,
        },
        unseen: 0,
        more: false,
    }
    "#);
    let removed = || std::mem::take(&mut *objects.0.lock().unwrap());
    assert!(removed().is_empty(), "a message on the queue may need them yet");
    let left =
        sql(&store, "SELECT state, count(*) FROM dead_letters GROUP BY state ORDER BY state");
    let expected = [["applied", "1"], ["dead", "2"], ["discarded", "1"], ["replayed", "2"]];
    assert_eq!(left, expected.map(|row| row.map(|text| Some(text.to_owned()))));
    let left = sql(
        &store,
        "SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM replays), (SELECT count(*) FROM events), (SELECT count(*) FROM audit)",
    );
    assert_eq!(left, [["3", "4", "2", "2"].map(|text| Some(text.to_owned()))]);
    assert_eq!(swept(&store, &objects, &Retention::default()), Swept::default());

    let retention = Retention {
        events: Some(days(35)),
        messages: Some(days(35)),
        settled: days(3650),
        dead_letters: Some(days(90)),
        activity: Duration::from_secs(DAY / 2),
        audit: Some(days(365)),
    };
    let found = swept(&store, &objects, &retention);
    assert_eq!(
        found.removed,
        BTreeMap::from([
            ("activity", 1),
            ("audit", 1),
            ("dead letters", 1),
            ("events", 1),
            ("kinds of events", 1),
        ])
    );
    assert_eq!(found.unseen, 1);
    assert!(removed().is_empty());

    // A day later: bodies of replayed and of new events stay.
    swept_on(401, &store, &objects, &retention);
    assert!(removed().is_empty());
    sql(&store, "UPDATE dead_letters SET state = 'discarded'");
    let retention = Retention { settled: days(300), ..retention };
    swept_on(402, &store, &objects, &retention);
    let found = swept_on(403, &store, &objects, &retention);
    assert_eq!((found.removed.get("large bodies"), removed()), (Some(&1), vec!["s/1".to_owned()]));
    assert_eq!(swept_on(404, &store, &objects, &retention), Swept::default());
}

#[test]
fn the_ledger_keeps_an_event_while_its_letter_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let (_data, store) = filled(&folder, &[]);
    // More rows than one step removes, older than the others. A letter of another generation of the last event waits.
    sql(
        &store,
        "INSERT INTO events (source, id, type, outcome, received_at, applied_at, attempts, secret)
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 610)
         SELECT 's', n, 't', 'applied', 0, n, 1, 0 FROM n",
    );
    sql(
        &store,
        "INSERT INTO event_kinds SELECT source, type, outcome, applied_at, 1, json_array(json_array(id, 0)) FROM events",
    );
    sql(
        &store,
        "INSERT INTO dead_letters (id, source, event_id, generation, reason, error, fingerprint, attempts, first_failed_at, last_failed_at, state, message)
         SELECT id, source, id, iif(id = '610', 1, 0), 'refused', 'x', 'f', 1, 0, 0,
            CASE id % 3 WHEN 0 THEN 'dead' WHEN 1 THEN 'replaying' ELSE 'replayed' END, 'm'
         FROM events WHERE CAST(id AS INTEGER) <= 600 OR id = '610'",
    );
    let retention = Retention { events: Some(days(35)), ..Retention::default() };
    let objects = Removed::default();
    assert_eq!(swept(&store, &objects, &retention).removed, BTreeMap::from([("events", 10)]));
    assert_eq!(swept(&store, &objects, &retention), Swept::default());
    sql(
        &store,
        "UPDATE dead_letters SET state = iif(rowid % 2, 'applied', 'discarded'), state_at = 1e15",
    );
    let found = swept(&store, &objects, &retention);
    let removed = |events, kinds| BTreeMap::from([("events", events), ("kinds of events", kinds)]);
    assert_eq!((found.removed, found.more), (removed(500, 500), true));
    assert_eq!(swept(&store, &objects, &retention).removed, removed(100, 110));
}

#[test]
fn messages_stay_for_their_retention_and_the_last_generation_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (_data, store) = filled(&folder, &[1, 2]);
    let objects = Removed::default();
    let retention = Retention { messages: Some(days(399)), ..Retention::default() };
    let found = swept(&store, &objects, &retention);
    assert_eq!((found.removed.get("messages"), found.removed["replays"]), (None, 3));
    assert_eq!(
        sql(&store, "SELECT generation FROM replays WHERE state = 'done'"),
        [[Some("2".to_owned())]]
    );
    let retention = Retention { messages: Some(days(398) + Duration::from_secs(1)), ..retention };
    assert_eq!(swept(&store, &objects, &retention).removed, BTreeMap::from([("messages", 1)]));
}

#[test]
fn many_rows_are_removed_in_steps() {
    let folder = tempfile::tempdir().unwrap();
    let (_data, store) = filled(&folder, &[]);
    sql(
        &store,
        "INSERT INTO audit (at, actor, action, target, reason, detail) WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 700) SELECT n, 'a', 'b', 'c', 'd', '{}' FROM n",
    );
    let retention = Retention { audit: Some(days(1)), ..Retention::default() };
    let objects = Removed::default();
    let first = swept(&store, &objects, &retention);
    assert_eq!((first.removed["audit"], first.more), (500, true));
    let second = swept(&store, &objects, &retention);
    assert_eq!((second.removed["audit"], second.more), (200, false));
}

/// A pipeline with large bodies only: objects in the store, and the rows that refer to them.
struct World {
    store: Sqlite,
    /// Whether the process ends after it has asked what to remove.
    dies: AtomicBool,
    queried: AtomicBool,
    /// Whether the object store rejects deletions.
    away: AtomicBool,
    bodies: Mutex<BTreeSet<String>>,
    /// Messages of reprocessings on the queue, with the time.
    on_queue: Vec<(i64, String)>,
    generation: u32,
    now: i64,
    _folder: tempfile::TempDir,
    _data: DataFolder,
}

impl Store for World {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        if self.queried.swap(true, Ordering::Relaxed) && self.dies.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the process has died".into()));
        }
        self.store.execute(statements).await
    }
}

impl Objects for World {
    async fn put(&self, key: &str, _: &[u8]) -> Result<(), ObjectError> {
        self.bodies.lock().unwrap().insert(key.to_owned());
        Ok(())
    }

    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        Ok(None)
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(ObjectError("away".into()));
        }
        self.bodies.lock().unwrap().remove(key);
        Ok(())
    }

    async fn list(&self, _: &str) -> Result<Vec<StoredObject>, ObjectError> {
        Ok(Vec::new())
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// An event arrives with one of two bodies and takes effect; its message is kept, or not.
    Applied {
        event: u8,
        body: u8,
        kept: bool,
    },
    /// An event arrives and fails.
    Buried {
        event: u8,
        body: u8,
    },
    /// Letters of an event are applied or discarded.
    Settled {
        event: u8,
        state: &'static str,
    },
    /// Every kept message is sent to the queue again.
    Reprocessed,
    /// The first message on the queue fails.
    Failed,
    Waits {
        hours: i64,
    },
    Swept {
        away: bool,
        dies: bool,
    },
}

fn any_act() -> impl Strategy<Value = Act> {
    let states = prop_oneof![Just("applied"), Just("discarded"), Just("replayed"), Just("dead")];
    prop_oneof![
        2 => (0_u8..2, 0_u8..2, any::<bool>())
            .prop_map(|(event, body, kept)| Act::Applied { event, body, kept }),
        2 => (0_u8..2, 0_u8..2).prop_map(|(event, body)| Act::Buried { event, body }),
        2 => (0_u8..2, states).prop_map(|(event, state)| Act::Settled { event, state }),
        1 => Just(Act::Reprocessed),
        1 => Just(Act::Failed),
        3 => (1_i64..40).prop_map(|hours| Act::Waits { hours }),
        3 => (prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(away, dies)| Act::Swept { away, dies }),
    ]
}

/// The text of a message with its body in the object store, and the key.
fn large(event: u8, body: u8) -> (String, String) {
    let mut envelope = Envelope {
        v: VERSION,
        source: "s".into(),
        id: format!("evt_{event}"),
        kind: "t".into(),
        received_at: Timestamp::from_millis(0),
        verified: Verified { secret: 0, signed_at: None },
        generation: 0,
        rules: Vec::new(),
        headers: BTreeMap::new(),
        api_version: None,
        from_api: None,
        body: BodyForm::Text,
    };
    let key = format!("s/{event}{body}");
    (encode_claim_check(&mut envelope, ClaimCheck { key: key.clone(), bytes: 200_000 }), key)
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (data, store) = filled(&folder, &[]);
        Self {
            store,
            dies: AtomicBool::default(),
            queried: AtomicBool::default(),
            away: AtomicBool::default(),
            bodies: Mutex::default(),
            on_queue: Vec::new(),
            generation: 0,
            now: 1_000 * 24 * HOUR,
            _folder: folder,
            _data: data,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    fn bury(&self, text: &str) {
        let delivery = Delivery { attempts: 1, text: text.to_owned() };
        let message = decode(text).unwrap();
        let letter = Letter {
            delivery: &delivery,
            envelope: Some(&message.envelope),
            reason: LetterReason::Refused,
            error: "x".into(),
        };
        block(self.store.execute(bury(&[letter], self.now()))).unwrap();
    }

    fn fails(&mut self, index: usize) {
        if index < self.on_queue.len() {
            let (_, text) = self.on_queue.remove(index);
            self.bury(&text);
        }
    }

    fn sweeps(&self) {
        let retention = Retention {
            messages: Some(days(2)),
            settled: days(3),
            dead_letters: Some(days(4)),
            ..Retention::default()
        };
        self.queried.store(false, Ordering::Relaxed);
        let _ = block(sweep(self, self, &retention, self.now()));
    }

    fn does(&mut self, act: Act) {
        match act {
            Act::Applied { event, body, kept } => {
                let (text, key) = large(event, body);
                self.bodies.lock().unwrap().insert(key.clone());
                if kept {
                    let insert = format!(
                        "INSERT OR IGNORE INTO event_messages VALUES ({}, 's', 'evt_{event}', '{text}')",
                        self.now
                    );
                    sql(&self.store, &insert);
                }
                let keys = block(self.store.execute(unreferenced(&[key]))).unwrap();
                for key in keys.into_iter().flatten().flat_map(|row| row.texts()).flatten() {
                    self.bodies.lock().unwrap().remove(&key);
                }
            }
            Act::Buried { event, body } => {
                let (text, key) = large(event, body);
                self.bodies.lock().unwrap().insert(key);
                self.bury(&text);
            }
            Act::Settled { event, state } => {
                let settle = format!(
                    "UPDATE dead_letters SET state = '{state}', state_at = {} WHERE source = 's' AND event_id = 'evt_{event}'",
                    self.now
                );
                sql(&self.store, &settle);
            }
            Act::Reprocessed => {
                self.generation += 1;
                for row in sql(&self.store, "SELECT message FROM event_messages") {
                    let again = reprocessed(row[0].as_ref().unwrap(), self.generation, &[]);
                    self.on_queue.push((self.now, again.unwrap()));
                }
            }
            Act::Failed => self.fails(0),
            Act::Waits { hours } => {
                for _ in 0..hours {
                    self.now += HOUR;
                    // No message stays on the queue for a day.
                    while self.on_queue.first().is_some_and(|(at, _)| self.now - at > 23 * HOUR) {
                        self.fails(0);
                    }
                }
            }
            Act::Swept { away, dies } => {
                self.away.store(away, Ordering::Relaxed);
                self.dies.store(dies, Ordering::Relaxed);
                self.sweeps();
                self.away.store(false, Ordering::Relaxed);
                self.dies.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Bodies that are needed and missing.
    fn missing(&self) -> Vec<String> {
        let rows = sql(
            &self.store,
            "SELECT body_key FROM event_messages UNION ALL SELECT body_key FROM dead_letters",
        );
        let bodies = self.bodies.lock().unwrap();
        let keys = rows.into_iter().flatten().flatten();
        keys.filter(|key| !bodies.contains(key)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_body_is_deleted_after_the_last_row_that_refers_to_it(
        acts in prop::collection::vec(any_act(), 1..40),
    ) {
        let mut world = World::new();
        for act in acts {
            world.does(act);
            prop_assert_eq!(world.missing(), Vec::<String>::new(), "after {:?}", act);
        }
        // In the end, nothing is left over.
        world.does(Act::Waits { hours: 24 });
        sql(&world.store, "UPDATE dead_letters SET state = 'applied'");
        for _ in 0..3 {
            world.now += 5 * 24 * HOUR;
            world.sweeps();
        }
        prop_assert_eq!(&*world.bodies.lock().unwrap(), &BTreeSet::new());
    }
}
