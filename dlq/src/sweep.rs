//! Removes what is old, as hookmill.toml says: a little at a time, so that nobody waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hookmill_core::config::Retention;
use hookmill_core::message::{BodyForm, decode};
use hookmill_core::objects::Objects;
use hookmill_core::store::{Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;

/// The most rows of a kind in one step.
const STEP: usize = 500;
/// How long activity is kept: it is for charts.
const ACTIVITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// A kind of what is removed, and the statement that removes those before `?1`, at most `?2`. It answers with a row for each;
/// of a letter whose body is in the object store, with its message.
struct Kind {
    name: &'static str,
    sql: &'static str,
}

const EVENTS: Kind = Kind {
    name: "events",
    sql: "-- sweep events
DELETE FROM events WHERE (source, id, generation) IN (
    SELECT source, id, generation FROM events WHERE applied_at < CAST(?1 AS INTEGER) ORDER BY applied_at LIMIT CAST(?2 AS INTEGER)
) RETURNING NULL",
};

const OUTBOX: Kind = Kind {
    name: "outbox",
    sql: "-- sweep the outbox
DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox WHERE settled_at < CAST(?1 AS INTEGER) ORDER BY settled_at LIMIT CAST(?2 AS INTEGER)
) RETURNING NULL",
};

const BATCHES: Kind = Kind {
    name: "outbox batches",
    sql: "-- sweep batches
DELETE FROM outbox_batches WHERE id IN (
    SELECT id FROM outbox_batches WHERE settled_at < CAST(?1 AS INTEGER) ORDER BY settled_at LIMIT CAST(?2 AS INTEGER)
) RETURNING NULL",
};

/// The claim check stands in the first line of a message, and there is no other.
const SETTLED_LETTERS: Kind = Kind {
    name: "letters that were applied or discarded",
    sql: "-- sweep letters that were applied or discarded
DELETE FROM dead_letters WHERE id IN (
    SELECT id FROM dead_letters INDEXED BY dead_letters_settled
    WHERE state IN ('applied', 'discarded') AND state_at < CAST(?1 AS INTEGER)
    ORDER BY state_at LIMIT CAST(?2 AS INTEGER)
) RETURNING iif(substr(message, 1, 2000) LIKE '%\"body\":{\"object\"%', message, NULL)",
};

const DEAD_LETTERS: Kind = Kind {
    name: "dead letters",
    sql: "-- sweep dead letters
DELETE FROM dead_letters WHERE id IN (
    SELECT id FROM dead_letters WHERE state = 'dead' AND last_failed_at < CAST(?1 AS INTEGER)
    ORDER BY last_failed_at LIMIT CAST(?2 AS INTEGER)
) RETURNING iif(substr(message, 1, 2000) LIKE '%\"body\":{\"object\"%', message, NULL)",
};

const MESSAGES: Kind = Kind {
    name: "messages",
    sql: "-- sweep messages
DELETE FROM event_messages WHERE (applied_at, source, id) IN (
    SELECT applied_at, source, id FROM event_messages WHERE applied_at < CAST(?1 AS INTEGER)
    ORDER BY applied_at, source, id LIMIT CAST(?2 AS INTEGER)
) RETURNING iif(substr(message, 1, 2000) LIKE '%\"body\":{\"object\"%', message, NULL)",
};

/// The last reprocessing stays: its number is not to be given again.
const REPLAYS: Kind = Kind {
    name: "replays",
    sql: "-- sweep replays
DELETE FROM replays WHERE id IN (
    SELECT id FROM replays WHERE planned_at < CAST(?1 AS INTEGER) AND state IN ('planned', 'cancelled', 'done')
        AND (generation = 0 OR generation < (SELECT max(generation) FROM replays))
    ORDER BY planned_at LIMIT CAST(?2 AS INTEGER)
) RETURNING NULL",
};

const MINUTES: Kind = Kind {
    name: "activity",
    sql: "-- sweep activity
DELETE FROM activity WHERE (minute, source, outcome) IN (
    SELECT minute, source, outcome FROM activity WHERE minute < CAST(?1 AS INTEGER) / 60000 ORDER BY minute LIMIT CAST(?2 AS INTEGER)
) RETURNING NULL",
};

const AUDIT: Kind = Kind {
    name: "audit",
    sql: "-- sweep the audit
DELETE FROM audit WHERE id IN (
    SELECT id FROM (SELECT id, at FROM audit ORDER BY id LIMIT CAST(?2 AS INTEGER)) WHERE at < CAST(?1 AS INTEGER)
) RETURNING NULL",
};

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
    let Retention { events, messages, done, dead_letters, audit } = *retention;
    let kinds = [
        (&EVENTS, events),
        // What was kept while hookmill.toml said so goes when it no longer does.
        (&MESSAGES, Some(messages.unwrap_or_default())),
        (&OUTBOX, done),
        (&BATCHES, done),
        (&SETTLED_LETTERS, done),
        (&DEAD_LETTERS, dead_letters),
        (&REPLAYS, done),
        (&MINUTES, Some(ACTIVITY)),
        (&AUDIT, audit),
    ];
    let kinds: Vec<_> = kinds.into_iter().filter_map(|(kind, age)| Some((kind, age?))).collect();
    let statements = kinds.iter().map(|(kind, age)| Statement {
        sql: Arc::from(kind.sql),
        params: vec![(now - *age).millis().to_string(), STEP.to_string()],
    });
    let rows = store.execute(statements.collect()).await?;
    let mut swept = Swept::default();
    for ((kind, _), rows) in kinds.iter().zip(&rows) {
        if rows.is_empty() {
            continue;
        }
        swept.removed.insert(kind.name, rows.len());
        swept.more |= rows.len() == STEP;
        if kind.name == DEAD_LETTERS.name {
            swept.unseen += rows.len();
        }
        remove_bodies(objects, rows).await;
    }
    Ok(swept)
}

/// A body that cannot be removed is left over, and does no harm.
async fn remove_bodies<O: Objects>(objects: &O, rows: &Rows) {
    for message in rows.iter().filter_map(|row| row.first()?.as_ref()) {
        if let Ok(message) = decode(message)
            && let BodyForm::Object(check) = &message.envelope.body
        {
            let _ = objects.delete(&check.key).await;
        }
    }
}
