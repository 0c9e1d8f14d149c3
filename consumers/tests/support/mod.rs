//! A real SQLite with a test's own rules and tables, and events for them.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use hookmill_config::Consumers;
use hookmill_consumers::{BatchResult, Fate, process_batch};
use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::message::{BodyForm, Envelope, VERSION, Verified, encode};
use hookmill_core::objects::{ObjectError, Objects, StoredObject};
use hookmill_core::store::Store;
use hookmill_core::time::Timestamp;
use hookmill_native::{DataFolder, Sqlite};

pub struct Fixture {
    pub config: Consumers,
    pub store: Sqlite,
    folder: tempfile::TempDir,
    pub runtime: tokio::runtime::Runtime,
    _data: DataFolder,
}

impl Fixture {
    /// `tables` is the migration with the tables of the rules; the template `done.html` exists.
    pub fn new(rules: &str, tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("hookmill.toml");
        fs::write(&config, rules).unwrap();
        fs::write(folder.path().join("done.html"), "{{ text }}{{ nothing }}").unwrap();
        fs::create_dir(folder.path().join("app")).unwrap();
        fs::write(folder.path().join("app/1000_things.sql"), tables).unwrap();
        let loaded = hookmill_loader::load(&config, &[]).unwrap_or_else(|error| panic!("{error}"));
        let data = DataFolder::lock(&folder.path().join("data")).unwrap();
        let store = data.store(&loaded.migrations).unwrap().store;
        Self {
            config: loaded.consumers(),
            store,
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            folder,
            _data: data,
        }
    }

    /// Another connection to the database.
    pub fn connect(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("data/data.db")).unwrap()
    }

    /// The rows of a query, `NULL` for nothing.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let database = self.connect();
        let mut statement = database.prepare(sql).unwrap();
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            (0..columns)
                .map(|i| Ok(row.get::<_, Option<String>>(i)?.unwrap_or_else(|| "NULL".into())))
                .collect()
        };
        statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// The result of each delivery of a batch.
    pub fn process(&self, store: &impl Store, batch: &[Delivery]) -> Vec<(Fate, Verdict)> {
        let BatchResult { settled, .. } = self.runtime.block_on(process_batch(
            store,
            &NoObjects,
            &self.config,
            batch,
            Timestamp::from_millis(0),
            |_, _| {},
        ));
        settled.into_iter().map(|settled| (settled.fate, settled.verdict)).collect()
    }
}

/// When the events of [`event`] were received. Versions that are times are not much later.
pub const RECEIVED_AT: Timestamp = Timestamp::from_seconds(1_767_225_600);

/// No event of these tests has a large body.
pub struct NoObjects;

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
        Ok(Vec::new())
    }
}

/// A message of the source `s`, for the given attempt.
pub fn event(id: &str, kind: &str, body: &str, attempts: u32) -> Delivery {
    let mut envelope = Envelope {
        v: VERSION,
        source: "s".into(),
        id: id.into(),
        kind: kind.into(),
        received_at: RECEIVED_AT,
        verified: Verified { secret: 0, signed_at: None },
        generation: 0,
        rules: Vec::new(),
        headers: BTreeMap::new(),
        api_version: None,
        from_api: None,
        body: BodyForm::Text,
    };
    Delivery { attempts, text: encode(&mut envelope, body.as_bytes()) }
}
