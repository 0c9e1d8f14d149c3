//! What people do while the pipeline runs: replays, reprocessings, a gate that opens and closes, backups.

use std::collections::{BTreeMap, BTreeSet};

use hookmill_core::store::{Statement, StoreError};
use hookmill_core::words::JobKind;
use hookmill_dlq::import::{ImportFilter, job_id, plan_job};
use hookmill_dlq::reconcile::ReconcileFilter;
use hookmill_dlq::recover;
use hookmill_dlq::replay::{
    LetterFilter, Turn, discard, plan_replay, replay_id, run_replay, turn_replay,
};
use hookmill_dlq::reprocess::{EventFilter, plan_reprocess, reprocess_id};
use hookmill_native::plan_once;
use rusqlite::{Connection, MAIN_DB};

use crate::world::{Queued, World, now};

/// A copy of everything durable, made in steps.
#[derive(Default)]
pub struct Backup {
    data: Vec<u8>,
    queues: BTreeMap<&'static str, Vec<Queued>>,
    objects: BTreeMap<String, (Vec<u8>, i64)>,
    /// The events that had been acknowledged when it began.
    pub acknowledged: BTreeSet<String>,
    steps: usize,
}

impl Backup {
    /// A backup that begins now.
    pub fn of(acknowledged: BTreeSet<String>) -> Self {
        Self { acknowledged, ..Self::default() }
    }

    pub const fn is_complete(&self) -> bool {
        self.steps == 4
    }
}

impl World {
    /// Does something, as an operator would.
    pub fn operate(&mut self) {
        match self.choices.below(10) {
            0..2 => self.turn_gate(None),
            2..4 => self.replay_all(),
            4 if self.choices.once_in(2) => self.reprocess_all(),
            4 => self.import_all(),
            5..7 => self.turn(),
            7 => self.discard_one(),
            8 if self.choices.once_in(2) => self.move_table(None),
            9 if self.choices.once_in(4) => self.reconcile_all(),
            _ => self.turn_gate(Some(false)),
        }
    }

    /// Renames a table of the application for a while, as a migration may. Its events are retried until they are exhausted.
    pub fn move_table(&mut self, away: Option<bool>) {
        let is_away = self.is_table_away();
        let away = away.unwrap_or(!is_away);
        if away != is_away {
            self.note(|| format!("the table is {}", if away { "away" } else { "back" }));
            let (from, to) = if away { ("gated", "elsewhere") } else { ("elsewhere", "gated") };
            let sql = format!("ALTER TABLE {from} RENAME TO {to}");
            self.database.execute_batch(&sql).expect("the table exists");
        }
    }

    pub fn is_table_away(&self) -> bool {
        let sql = "SELECT name FROM sqlite_schema WHERE name = 'elsewhere'";
        !self.rows(sql).is_empty()
    }

    /// Opens or closes the gate of the application.
    pub fn turn_gate(&mut self, to: Option<bool>) {
        let closed = to.unwrap_or_else(|| self.choices.once_in(2));
        self.note(|| format!("the gate is {}", if closed { "closed" } else { "open" }));
        let sql = format!("UPDATE gate SET closed = {}", i64::from(closed));
        self.database.execute_batch(&sql).expect("the table exists");
    }

    /// Replays all dead letters.
    pub fn replay_all(&mut self) {
        let filter = LetterFilter { all: true, ..LetterFilter::default() };
        let id = replay_id(&filter, "operator", now());
        self.note(|| format!("replay {id} of all dead letters"));
        self.change(vec![plan_replay(&id, &filter, "operator", now())]);
        self.change(vec![run_replay(&id, 10, "", "operator", now())]);
    }

    fn reprocess_all(&mut self) {
        let filter = EventFilter { all: true, ..EventFilter::default() };
        let id = reprocess_id(&filter, "operator", now());
        self.note(|| format!("reprocessing {id} of all events"));
        self.change(vec![plan_reprocess(&id, &filter, "operator", now())]);
        self.change(vec![run_replay(&id, 10, "", "operator", now())]);
    }

    /// Imports all objects of the API.
    pub fn import_all(&mut self) {
        let filter = ImportFilter { source: "billing".to_owned(), ..ImportFilter::default() };
        let id = job_id(JobKind::Import, &filter, "operator", now());
        self.note(|| format!("import {id} of all objects"));
        self.change(vec![plan_job(&id, JobKind::Import, &filter, "operator", now())]);
        self.change(vec![run_replay(&id, 10, "", "operator", now())]);
    }

    /// Compares all objects of the API with the tables, and may repair what differs.
    pub fn reconcile_all(&mut self) {
        let repair = self.choices.once_in(2);
        let source = "billing".to_owned();
        let filter = ReconcileFilter { source, repair, ..ReconcileFilter::default() };
        let id = job_id(JobKind::Reconcile, &filter, "operator", now());
        self.note(|| format!("reconciliation {id}, repairs: {repair}"));
        self.change(vec![plan_job(&id, JobKind::Reconcile, &filter, "operator", now())]);
        self.change(vec![run_replay(&id, 10, "", "operator", now())]);
    }

    /// Pauses, resumes or cancels a replay.
    fn turn(&mut self) {
        let replays = self.rows("SELECT id FROM replays ORDER BY id");
        if replays.is_empty() {
            return;
        }
        let id = replays[self.choices.below(replays.len())][0].clone();
        let turn = [Turn::Pause, Turn::Resume, Turn::Cancel][self.choices.below(3)];
        self.note(|| format!("{turn:?} replay {id}"));
        self.change(vec![turn_replay(&id, turn, now())]);
    }

    /// Resumes every paused replay.
    pub fn resume_all(&mut self) {
        for id in self.rows("SELECT id FROM replays WHERE state = 'paused' ORDER BY id") {
            self.change(vec![turn_replay(&id[0], Turn::Resume, now())]);
        }
    }

    fn discard_one(&mut self) {
        let letters = self.rows("SELECT id FROM dead_letters WHERE state = 'dead' ORDER BY id");
        if !letters.is_empty() {
            let id = letters[self.choices.below(letters.len())][0].clone();
            self.note(|| format!("discard letter {id}"));
            self.change(vec![discard(&id, now())]);
        }
    }

    /// A change by the admin API. The operator repeats it if it fails, so it does not.
    fn change(&mut self, statements: Vec<Statement>) {
        let changed: Result<_, StoreError> = self.run(statements);
        if let Err(error) = changed {
            self.violated(format!("the admin API cannot do its work: {error}"));
        }
    }

    /// Makes the next step of a backup, in the order of `hookmill backup`. Work goes on between two steps.
    pub fn back_up(&mut self, backup: &mut Backup) {
        self.note(|| format!("step {} of a backup", backup.steps));
        match backup.steps {
            0 => backup.queues = self.queues.clone(),
            2 => backup.data = self.database.serialize(MAIN_DB).expect("there is memory").to_vec(),
            _ => backup.objects.extend(self.objects.clone()),
        }
        backup.steps += 1;
    }

    /// Restores a backup. All machines have ended.
    pub fn restore(&mut self, backup: &Backup) {
        self.note(|| "restore".to_owned());
        self.database = opened(&backup.data);
        self.queues = backup.queues.clone();
        self.objects = backup.objects.clone();
        self.outside.forgotten = self.outside.delivered.keys().cloned().collect();
        self.applied.clear();
        self.imported.clear();
        self.change(recover(now()));
    }
}

/// A database in memory with this content.
pub fn opened(content: &[u8]) -> Connection {
    let mut database = Connection::open_in_memory().expect("there is memory");
    database
        .deserialize_read_exact(MAIN_DB, content, content.len(), false)
        .expect("it is a database");
    database.set_prepared_statement_cache_capacity(1024);
    plan_once(&database).expect("it is an option");
    database.pragma_update(None, "foreign_keys", true).expect("it is a pragma");
    database
}
