//! Removes old rows as `[retention]` says, in small steps that do not block other transactions for long.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use hookmill_config::Retention;
use hookmill_core::objects::Objects;
use hookmill_core::params;
use hookmill_core::store::{Rows, Statement, Store, StoreError, read};
use hookmill_core::time::Timestamp;

use crate::bodies::{self, Stale};
use crate::kinds::{EVENT_KIND, kinds, of_kind};

/// The maximum number of rows of a kind in one step.
const STEP: usize = 500;
/// The name of bodies among the removed kinds.
const BODIES: &str = "large bodies";

/// A kind of rows to remove.
struct Kind {
    name: &'static str,
    table: &'static str,
    /// The columns of its key.
    key: &'static str,
    /// The rest of the query: rows older than `?1`, the oldest first.
    old: &'static str,
    /// Whether its rows contain messages, which may refer to bodies.
    messages: bool,
}

/// Failed attempts, which belong to the history of events.
const RETRIES: Kind = Kind {
    name: "failed attempts",
    table: "retries",
    key: "source, id, generation",
    old: "WHERE updated_at < ?1 ORDER BY updated_at",
    messages: false,
};

/// Whether an event that a row of `event_kinds` lists can be removed from the ledger. The ledger keeps an event while its letter
/// can be replayed: without the row, the replay would count twice. An event settles its letter, so such rows are rare.
const IS_REMOVABLE: &str = "\
EXISTS (
        SELECT 1 FROM events WHERE events.source = event_kinds.source AND events.id = one.value ->> 0
            AND events.generation = one.value ->> 1
    ) AND NOT EXISTS (
        SELECT 1 FROM dead_letters WHERE dead_letters.source = event_kinds.source AND event_id = one.value ->> 0
            AND generation = one.value ->> 1 AND state IN ('dead', 'replaying', 'replayed')
    )";

/// A common table expression with the oldest rows of `event_kinds` of each kind that meet a condition, at most as many as a step
/// removes. Rows that do not meet it do not hide those behind them.
fn oldest_kinds(is: &str) -> String {
    format!(
        "WITH RECURSIVE {},
    oldest(kind, at) AS (
        SELECT kind, time.value FROM kinds, json_each((
            SELECT json_group_array(applied_at) FROM (
                SELECT applied_at FROM event_kinds WHERE {} AND applied_at < ?1 AND {is} ORDER BY applied_at LIMIT ?2
            )
        )) AS time WHERE kind IS NOT NULL
    )",
        kinds("event_kinds", &EVENT_KIND),
        of_kind(&EVENT_KIND)
    )
}

static OLD_EVENTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WHERE (source, id, generation) IN (
    {}
    SELECT event_kinds.source, one.value ->> 0, one.value ->> 1
    FROM oldest CROSS JOIN event_kinds ON {} AND applied_at = at CROSS JOIN json_each(ids) AS one
    WHERE {IS_REMOVABLE} LIMIT ?2
)",
        oldest_kinds(&format!("EXISTS (SELECT 1 FROM json_each(ids) AS one WHERE {IS_REMOVABLE})")),
        of_kind(&EVENT_KIND)
    )
});

fn events() -> Kind {
    Kind {
        name: "events",
        table: "events",
        key: "source, id, generation",
        old: &OLD_EVENTS,
        messages: false,
    }
}

/// It looks at the oldest of each kind: those behind them still have events.
static OLD_EVENT_KINDS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WHERE (source, type, outcome, applied_at) IN (
    {}
    SELECT kind ->> 0, kind ->> 1, kind ->> 2, at FROM oldest
) AND NOT EXISTS (
    SELECT 1 FROM json_each(ids) AS one CROSS JOIN events
        ON events.source = event_kinds.source AND events.id = one.value ->> 0 AND events.generation = one.value ->> 1
)",
        oldest_kinds("true")
    )
});

/// After the events of these kinds.
fn event_kinds() -> Kind {
    Kind {
        name: "kinds of events",
        table: "event_kinds",
        key: "source, type, outcome, applied_at",
        old: &OLD_EVENT_KINDS,
        messages: false,
    }
}

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
    name: "settled dead letters",
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

/// The last reprocessing stays, so that its number is not assigned again.
const REPLAYS: Kind = Kind {
    name: "replays",
    table: "replays",
    key: "id",
    old: "WHERE planned_at < ?1 AND state IN ('planned', 'cancelled', 'done')
        AND (generation = 0 OR generation < (SELECT max(generation) FROM replays)) ORDER BY planned_at",
    messages: false,
};

/// The differences of removed reconciliations. The generations of jobs grow with time.
const DRIFTS: Kind = Kind {
    name: "differences",
    table: "drifts",
    key: "generation, table_name, key",
    old: "WHERE generation < (SELECT min(generation) FROM replays WHERE generation > 0)",
    messages: false,
};

/// The listed rows of canceled reconciliations. The others remove theirs at the end.
const LISTED_ROWS: Kind = Kind {
    name: "listed rows",
    table: "listed_rows",
    key: "generation, table_name, key",
    old: "WHERE generation = (
        SELECT generation FROM replays WHERE state = 'cancelled' AND kind = 'reconcile'
            AND EXISTS (SELECT 1 FROM listed_rows WHERE listed_rows.generation = replays.generation) LIMIT 1
    )",
    messages: false,
};

const MINUTES: Kind = Kind {
    name: "activity",
    table: "activity",
    key: "minute, source, outcome",
    old: "WHERE minute < ?1 / 60000 ORDER BY minute",
    messages: false,
};

const RULE_COUNTS: Kind = Kind {
    name: "counts of rows",
    table: "rule_counts",
    key: "day, rule",
    old: "WHERE day < ?1 / 86400000 ORDER BY day",
    messages: false,
};

const API_VERSION_COUNTS: Kind = Kind {
    name: "counts of API versions",
    table: "api_version_counts",
    key: "day, source, version",
    old: "WHERE day < ?1 / 86400000 ORDER BY day",
    messages: false,
};

const AUDIT: Kind = Kind {
    name: "audit",
    table: "audit",
    key: "id",
    // Ids grow with time, so one step reads only the lowest ids.
    old: "WHERE id <= (SELECT min(id) + ?2 FROM audit) AND at < ?1 ORDER BY id",
    messages: false,
};

/// What a replay has achieved stays known without its letters.
const APPLIED_BY: &str = "\
-- outcomes of replays
UPDATE replays SET applied = applied + counted.n FROM (
    SELECT applied_by, count(*) AS n FROM (SELECT applied_by FROM dead_letters {old} LIMIT ?2)
    WHERE applied_by IS NOT NULL GROUP BY 1
) AS counted WHERE replays.id = counted.applied_by";

impl Kind {
    /// Removes the oldest rows before a time, after noting the bodies that they refer to. The last statement returns a row
    /// for each removed row.
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
        let outcomes = (*name == SETTLED_LETTERS.name)
            .then(|| Statement::new(APPLIED_BY.replace("{old}", old), params.clone()));
        stale.into_iter().chain(outcomes).chain([Statement::new(sql, params)]).collect()
    }
}

/// The result of a step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// The number of removed rows, by kind.
    pub removed: BTreeMap<&'static str, usize>,
    /// The number of removed dead letters that were neither replayed nor discarded.
    pub unseen: usize,
    /// Whether more rows may be due.
    pub more: bool,
}

/// Runs one step.
///
/// # Errors
///
/// If the store fails; removed rows stay removed.
pub async fn sweep<S: Store, O: Objects>(
    store: &S,
    objects: &O,
    retention: &Retention,
    now: Timestamp,
) -> Result<Swept, StoreError> {
    let Retention { events, messages, settled, dead_letters, activity, audit } = *retention;
    let kinds = [
        (&self::events(), events),
        (&event_kinds(), events),
        // Without `messages` in hookmill.toml, earlier messages are removed.
        (&MESSAGES, Some(messages.unwrap_or_default())),
        (&RETRIES, Some(settled)),
        (&OUTBOX, Some(settled)),
        (&BATCHES, Some(settled)),
        (&SETTLED_LETTERS, Some(settled)),
        (&DEAD_LETTERS, dead_letters),
        (&REPLAYS, Some(settled)),
        (&DRIFTS, Some(settled)),
        (&LISTED_ROWS, Some(settled)),
        (&MINUTES, Some(activity)),
        (&RULE_COUNTS, Some(activity)),
        (&API_VERSION_COUNTS, Some(activity)),
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

/// Deletes the bodies that no row refers to. If a deletion fails, the next step tries again.
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
