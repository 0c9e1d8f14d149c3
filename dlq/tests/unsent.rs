//! The search for bodies that belong to no message, over a real SQLite.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use hookmill_core::objects::{ObjectError, Objects, StoredObject};
use hookmill_core::queue::{Backlog, Queue, QueueError};
use hookmill_core::store::{Statement, Store as _};
use hookmill_core::time::Timestamp;
use hookmill_dlq::unsent::{Searched, remove_unsent};
use hookmill_native::{DataFolder, Sqlite};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A time long after the epoch.
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// Objects with their times. A list has at most two.
#[derive(Default)]
struct Stored {
    objects: Mutex<BTreeMap<String, Timestamp>>,
    away: bool,
}

impl Objects for Stored {
    async fn put(&self, _: &str, _: &[u8]) -> Result<(), ObjectError> {
        Ok(())
    }

    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        Ok(None)
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.objects.lock().unwrap().remove(key);
        Ok(())
    }

    async fn list(&self, after: &str) -> Result<Vec<StoredObject>, ObjectError> {
        if self.away {
            return Err(ObjectError("away".into()));
        }
        let objects = self.objects.lock().unwrap();
        let later = objects.iter().filter(|(key, _)| key.as_str() > after).take(2);
        Ok(later.map(|(key, at)| StoredObject { key: key.clone(), stored_at: *at }).collect())
    }
}

/// A queue whose oldest message was sent at this time; or it fails.
struct Oldest(Result<Option<Timestamp>, ()>);

impl Queue for Oldest {
    async fn send(&self, _: Vec<String>) -> Result<(), QueueError> {
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        let oldest = self.0.map_err(|()| QueueError("away".into()))?;
        Ok(Backlog { messages: 1, oldest })
    }
}

struct World {
    store: Sqlite,
    stored: Stored,
    runtime: tokio::runtime::Runtime,
    _data: DataFolder,
    _folder: tempfile::TempDir,
}

impl World {
    /// Objects with these ages in days; each key is the source `s` and the name.
    fn new(objects: &[(&str, u32)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::lock(folder.path()).unwrap();
        let store = data.store(&hookmill_migrations::own()).unwrap().store;
        let objects = objects.iter().map(|(name, days)| (format!("s/{name}"), NOW - DAY * *days));
        let stored = Stored { objects: Mutex::new(objects.collect()), away: false };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { store, stored, runtime, _data: data, _folder: folder }
    }

    fn sql(&self, sql: &str) {
        self.runtime.block_on(self.store.execute(vec![Statement::new(sql, Vec::new())])).unwrap();
    }

    fn step(&self, queue: &Oldest, now: Timestamp) -> Searched {
        self.runtime.block_on(remove_unsent(&self.store, &self.stored, queue, now)).unwrap()
    }

    /// The number of removed bodies in a whole search.
    fn search(&self, queue: &Oldest, now: Timestamp) -> usize {
        let mut removed = 0;
        loop {
            let step = self.step(queue, now);
            removed += step.removed;
            if step.next.is_none() {
                return removed;
            }
        }
    }

    fn left(&self) -> Vec<String> {
        self.stored.objects.lock().unwrap().keys().cloned().collect()
    }
}

#[test]
fn old_bodies_without_a_message_are_removed() {
    let objects =
        [("a", 31), ("kept", 31), ("letter", 31), ("noted", 31), ("young", 29), ("z", 400)];
    let world = World::new(&objects);
    let message = |key| format!(r#"{{"body":{{"object":{{"key":"s/{key}"}}}}}}"#);
    world.sql(&format!("INSERT INTO event_messages VALUES (1, 's', 'e', '{}')", message("kept")));
    world.sql(&format!(
        "INSERT INTO dead_letters (id, reason, error, fingerprint, attempts, first_failed_at, last_failed_at, message)
         VALUES ('l', 'refused', 'x', 'f', 1, 1, 1, '{}')",
        message("letter")
    ));
    world.sql("INSERT INTO stale_bodies VALUES ('s/noted', 1)");
    let empty = Oldest(Ok(None));
    assert_eq!(world.search(&empty, NOW), 2);
    assert_eq!(world.left(), ["s/kept", "s/letter", "s/noted", "s/young"]);
    // The next search is due a day later, also after the clock was ahead.
    assert_eq!(world.step(&empty, NOW), Searched::default());
    assert_eq!(world.search(&empty, NOW + DAY * 2), 1);
    assert_eq!(world.left(), ["s/kept", "s/letter", "s/noted"]);
    world.stored.objects.lock().unwrap().insert("s/a".to_owned(), NOW - DAY * 400);
    assert_eq!(world.search(&empty, NOW - DAY * 300), 1);
}

#[test]
fn a_body_that_a_message_on_the_queue_may_need_stays() {
    let world = World::new(&[("a", 40), ("b", 50)]);
    // The server was down for long, and the message of one body waits.
    let sent = NOW - DAY * 40 + Duration::from_secs(2);
    assert_eq!(world.search(&Oldest(Ok(Some(sent))), NOW), 1);
    assert_eq!(world.left(), ["s/a"]);
}

#[test]
fn a_search_waits_for_the_queue_and_the_object_store() {
    let mut world = World::new(&[("a", 40)]);
    let later = Searched { removed: 0, next: Some(NOW + Duration::from_secs(10)) };
    assert_eq!(world.step(&Oldest(Err(())), NOW), later);
    world.stored.away = true;
    assert_eq!(world.step(&Oldest(Ok(None)), NOW), later);
    world.stored.away = false;
    assert_eq!(world.search(&Oldest(Ok(None)), NOW), 1);
}
