//! What is old is removed, a little at a time, and nothing else.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use hookmill_core::config::Retention;
use hookmill_core::objects::{ObjectError, Objects};
use hookmill_core::store::{Rows, Statement, Store as _};
use hookmill_core::time::Timestamp;
use hookmill_dlq::{Swept, sweep};
use hookmill_native::{DataFolder, Sqlite};

const DAY: u64 = 86_400;

/// Which bodies were removed.
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
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn sql(store: &Sqlite, sql: &str) -> Rows {
    let statement = Statement { sql: sql.into(), params: Vec::new() };
    block(store.execute(vec![statement])).unwrap().remove(0)
}

/// A store in which each kind has one row of each of these days.
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
    let now = Timestamp::from_seconds(i64::try_from(400 * DAY).unwrap());
    block(sweep(store, objects, retention, now)).unwrap()
}

#[test]
fn what_is_old_is_removed_and_what_waits_for_somebody_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (_data, store) = filled(&folder, &[1, 399]);
    let objects = Removed::default();
    let found = swept(&store, &objects, &Retention::default());
    // Nothing is said of events, dead letters or the audit, so these stay; nor of messages, which are not kept then.
    insta::assert_debug_snapshot!(found, @r#"
    Swept {
        removed: {
            "activity": 1,
            "letters that were applied or discarded": 2,
            "messages": 2,
            "outbox": 1,
            "outbox batches": 1,
            "replays": 2,
        },
        unseen: 0,
        more: false,
    }
    "#);
    assert_eq!(*objects.0.lock().unwrap(), ["s/1", "s/399", "s/1", "s/1"]);
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
        done: None,
        dead_letters: Some(days(90)),
        audit: Some(days(365)),
    };
    let found = swept(&store, &objects, &retention);
    assert_eq!(found.removed, BTreeMap::from([("audit", 1), ("dead letters", 1), ("events", 1)]));
    assert_eq!(found.unseen, 1);
}

#[test]
fn messages_stay_as_long_as_it_is_said_and_the_last_number_for_ever() {
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
fn much_is_removed_in_steps() {
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
