//! Removes what is old, as hookmill.toml says: a little at a time, so that nobody waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_core::config::Retention;
use hookmill_core::objects::Objects;
use hookmill_core::params;
use hookmill_core::store::{Rows, Statement, Store, StoreError, read};
use hookmill_core::time::Timestamp;

use crate::bodies::{self, Stale};

/// The most rows of a kind in one step.
const STEP: usize = 500;
/// How long activity is kept: it is for charts.
const ACTIVITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// What bodies are called among what was removed.
const BODIES: &str = "large bodies";

/// A kind of what is removed.
struct Kind {
    name: &'static str,
    table: &'static str,
    /// The columns that say which row.
    key: &'static str,
    /// What follows the table: which rows are older than `?1`, the oldest first.
    old: &'static str,
    /// Whether its rows hold messages, which may refer to bodies.
    messages: bool,
}

/// The ledger remembers an event for as long as its letter can be replayed: without it, the replay would count twice. An event
/// settles its letter, so such a row is rare, and the rows behind it are reached all the same.
const EVENTS: Kind = Kind {
    name: "events",
    table: "events",
    key: "source, id, generation",
    old: "WHERE applied_at < ?1 AND NOT EXISTS (
        SELECT 1 FROM dead_letters WHERE dead_letters.source = events.source AND event_id = events.id
            AND dead_letters.generation = events.generation AND state IN ('dead', 'replaying', 'replayed')
    ) ORDER BY applied_at",
    messages: false,
};

const OUTBOX: Kind = Kind {
    name: "outbox",
    table: "outbox",
    key: "id",
    old: "WHERE settled_at < ?1 ORDER BY settled_at",
    messages: false,
};

const BATCHES: Kind = Kind {
    name: "outbox batches",
    table: "outbox_batches",
    key: "id",
    old: "WHERE settled_at < ?1 ORDER BY settled_at",
    messages: false,
};

const SETTLED_LETTERS: Kind = Kind {
    name: "letters that were applied or discarded",
    table: "dead_letters",
    key: "id",
    old: "INDEXED BY dead_letters_settled
    WHERE state IN ('applied', 'discarded') AND state_at < ?1 ORDER BY state_at, rowid",
    messages: true,
};

const DEAD_LETTERS: Kind = Kind {
    name: "dead letters",
    table: "dead_letters",
    key: "id",
    old: "WHERE state = 'dead' AND last_failed_at < ?1 ORDER BY last_failed_at, rowid",
    messages: true,
};

const MESSAGES: Kind = Kind {
    name: "messages",
    table: "event_messages",
    key: "applied_at, source, id",
    old: "WHERE applied_at < ?1 ORDER BY applied_at, source, id",
    messages: true,
};

/// The last reprocessing stays: its number is not to be given again.
const REPLAYS: Kind = Kind {
    name: "replays",
    table: "replays",
    key: "id",
    old: "WHERE planned_at < ?1 AND state IN ('planned', 'cancelled', 'done')
        AND (generation = 0 OR generation < (SELECT max(generation) FROM replays)) ORDER BY planned_at",
    messages: false,
};

const MINUTES: Kind = Kind {
    name: "activity",
    table: "activity",
    key: "minute, source, outcome",
    old: "WHERE minute < ?1 / 60000 ORDER BY minute",
    messages: false,
};

const AUDIT: Kind = Kind {
    name: "audit",
    table: "audit",
    key: "id",
    // The oldest come first: behind as many of them as go at a time, no row is looked at.
    old: "WHERE id <= (SELECT min(id) + ?2 FROM audit) AND at < ?1 ORDER BY id",
    messages: false,
};

impl Kind {
    /// Removes the oldest rows before a time, and notes the bodies that they refer to first. The last of the statements answers
    /// with a row for each that was removed.
    fn statements(&self, before: Timestamp, now: Timestamp) -> Vec<Statement> {
        let Self { name, table, key, old, messages } = self;
        let params = params![before, STEP];
        let stale = messages.then(|| {
            let rows = format!("SELECT body_key FROM {table} {old} LIMIT ?2");
            bodies::stale(&rows, params.clone(), now)
        });
        let sql = format!(
            "-- sweep {name}
DELETE FROM {table} WHERE ({key}) IN (
    SELECT {key} FROM {table} {old} LIMIT ?2
) RETURNING NULL"
        );
        stale.into_iter().chain([Statement::new(sql, params)]).collect()
    }
}

/// What a step has removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// How many, by kind.
    pub removed: BTreeMap<&'static str, usize>,
    /// Dead letters that nobody had replayed or discarded.
    pub unseen: usize,
    /// Whether there may be more.
    pub more: bool,
}

/// Does one step.
///
/// # Errors
///
/// If the store does not do its part; what was removed stays removed.
pub async fn sweep<S: Store, O: Objects>(
    store: &S,
    objects: &O,
    retention: &Retention,
    now: Timestamp,
) -> Result<Swept, StoreError> {
    let Retention { events, messages, settled, dead_letters, audit } = *retention;
    let kinds = [
        (&EVENTS, events),
        // What was kept while hookmill.toml said so goes when it no longer does.
        (&MESSAGES, Some(messages.unwrap_or_default())),
        (&OUTBOX, settled),
        (&BATCHES, settled),
        (&SETTLED_LETTERS, settled),
        (&DEAD_LETTERS, dead_letters),
        (&REPLAYS, settled),
        (&MINUTES, Some(ACTIVITY)),
        (&AUDIT, audit),
    ];
    let mut statements = Vec::new();
    let mut answers = Vec::new();
    for (kind, age) in kinds {
        if let Some(age) = age {
            statements.extend(kind.statements(now - age, now));
            answers.push((kind.name, statements.len() - 1));
        }
    }
    statements.push(bodies::due(STEP, now));
    let mut rows = store.execute(statements).await?;
    let due = rows.pop().unwrap_or_default();
    let mut swept = Swept::default();
    for (name, answer) in answers {
        let count = rows.get(answer).map_or(0, Vec::len);
        if count == 0 {
            continue;
        }
        swept.removed.insert(name, count);
        swept.more |= count == STEP;
        if name == DEAD_LETTERS.name {
            swept.unseen += count;
        }
    }
    remove_bodies(store, objects, &due, now, &mut swept).await?;
    Ok(swept)
}

/// Deletes the bodies that no row refers to. One that the object store does not delete is tried again by the next step.
async fn remove_bodies<S: Store, O: Objects>(
    store: &S,
    objects: &O,
    due: &Rows,
    now: Timestamp,
    swept: &mut Swept,
) -> Result<(), StoreError> {
    let mut looked_at = Vec::new();
    let mut removed = 0;
    for Stale { key, referred } in read(due)? {
        if !referred {
            if objects.delete(&key).await.is_err() {
                continue;
            }
            removed += 1;
        }
        looked_at.push(key);
    }
    if looked_at.is_empty() {
        return Ok(());
    }
    if removed > 0 {
        swept.removed.insert(BODIES, removed);
    }
    swept.more |= looked_at.len() == STEP;
    store.execute(vec![bodies::looked_at(&looked_at, now)]).await.map(drop)
}
