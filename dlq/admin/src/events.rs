//! Events and their history.

use axum::Json;
use axum::extract::{Extension, State};
use hookmill_core::params;
use hookmill_core::store::{Statement, read_json};
use hookmill_core::time::Timestamp;
use hookmill_core::words::{self, EventState, Word as _};
use hookmill_dlq::kinds::{EVENT_KIND, LETTER_KIND, kinds, of_kind};
use hookmill_dlq::replay::{check_pattern, glob};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::actor::Actor;
use crate::audit::viewed;
use crate::body_view::BodyView;
use crate::page::{Page, Paging};
use crate::platform::{Admin, given, problem};
use crate::problem::{Path, Problem, Query};

const MESSAGE: &str = "\
-- the message of an event
SELECT json_quote(message) FROM events JOIN event_messages USING (applied_at, source, id)
WHERE source = ?1 AND id = ?2 AND generation = 0
UNION ALL
SELECT json_quote(message) FROM dead_letters WHERE source = ?1 AND event_id = ?2 LIMIT 1";

/// An event that was applied, is being retried, or is a dead letter. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Event {
    /// The source in hookmill.toml.
    source: String,
    /// The provider's event id.
    id: String,
    /// 0 for the original event, 1 or more for a reprocessing or an imported object.
    generation: u32,
    r#type: String,
    state: EventState,
    /// When Hookmill received it. Absent for an unreadable dead letter.
    #[schema(value_type = Option<i64>)]
    received_at: Option<Timestamp>,
    /// When it was applied, or last failed.
    #[schema(value_type = i64)]
    settled_at: Timestamp,
    /// The number of delivery attempts.
    attempts: u32,
    /// The position of the secret that verified it in the source's list, from 0; -1 for what Hookmill has fetched from the
    /// provider's API. Only of applied events.
    secret: Option<i64>,
    /// The error of a dead letter, or of the last failed attempt.
    error: Option<String>,
    /// When the next attempt of a retrying event is due.
    #[schema(value_type = Option<i64>)]
    next_attempt_at: Option<Timestamp>,
}

/// A filter of events.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Search {
    /// The source.
    source: Option<String>,
    /// The event type. `*` matches any text: `customer.*`.
    r#type: Option<String>,
    /// The provider's event id.
    id: Option<String>,
    /// The state.
    #[serde(default, deserialize_with = "words::unless_blank")]
    #[param(schema_with = words::looked_for::<EventState>)]
    state: Option<EventState>,
    /// Applied, or last failed, at or after this time, in milliseconds since the Unix epoch. Sorts earliest first.
    since: Option<i64>,
}

impl Search {
    /// The query for a page after `?5` and `?6`, or for the first page. It reads one page of the ledger, one of the retries,
    /// and one of the dead letters for each state, so that an index limits each part; a table without the searched state is
    /// skipped.
    fn sql(&self, first: bool) -> String {
        let order = Order { first, earliest: self.since.is_some() };
        let searched = |state: &EventState| self.state.is_none_or(|only| only == *state);
        let states = || EventState::ALL.iter().copied().filter(searched);
        let ledger = states().any(EventState::is_in_ledger).then(|| {
            let rows = "NULL AS error, secret, NULL AS next_attempt_at";
            self.part(order, &LEDGER, rows, "(?4 IS NULL OR outcome = ?4)", None)
        });
        let retrying = states().find(|state| *state == EventState::Retrying);
        let retrying = retrying.map(|_| Self::retrying(order));
        let letters = states().filter(|state| state.is_dead_letter()).map(|state| {
            let is = format!("state = '{state}' AND source IS NOT NULL");
            let rows = "error, NULL AS secret, NULL AS next_attempt_at";
            self.part(order, &LETTERS, rows, &is, Some(state))
        });
        let union = |parts: Vec<String>| parts.join(" UNION ALL ");
        // D1 allows at most five terms in a UNION.
        let live: Vec<_> = ledger.into_iter().chain(retrying).collect();
        let live = (!live.is_empty()).then(|| format!("SELECT * FROM ({})", union(live)));
        format!(
            "-- search events
            SELECT json_object('source', source, 'id', id, 'generation', generation, 'type', type, 'state', state,
                'received_at', received_at, 'settled_at', settled_at, 'attempts', attempts, 'secret', secret, 'error', error,
                'next_attempt_at', next_attempt_at)
            FROM ({}) {}",
            union(live.into_iter().chain(letters).collect()),
            order.page("settled_at", "id")
        )
    }

    /// A page of the events that wait for an attempt, which are few. Another delivery may have applied one meanwhile.
    fn retrying(order: Order) -> String {
        format!(
            "SELECT * FROM (SELECT source, id, generation, type, 'retrying' AS state, received_at, updated_at AS settled_at,
                attempts, failures ->> '$[#-1].error' AS error, NULL AS secret, due_at AS next_attempt_at
            FROM retries AS waiting WHERE due_at IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM events WHERE (events.source, events.id, events.generation)
                    = (waiting.source, waiting.id, waiting.generation)
            )
            AND (?1 IS NULL OR source = ?1) AND (?2 IS NULL OR iif(instr(?2, '*'), type GLOB ?2, type = ?2))
            AND (?3 IS NULL OR id = ?3) {} {})",
            order.after("updated_at", "id"),
            order.page("updated_at", "id")
        )
    }

    /// A page of one table.
    fn part(
        &self,
        order: Order,
        table: &Table,
        rows: &str,
        is: &str,
        letter: Option<EventState>,
    ) -> String {
        let Table { name, id, at, state } = table;
        let (source, event) = (given(self.source.as_ref()), given(self.id.as_ref()));
        let by_kind = source.is_some() || given(self.r#type.as_ref()).is_some();
        let (with, from) = match (event, letter) {
            (Some(_), Some(_)) => {
                (String::new(), format!("{name} INDEXED BY dead_letters_event WHERE {id} = ?3 AND"))
            }
            (Some(_), None) if source.is_some() => {
                (String::new(), "events WHERE source = ?1 AND id = ?3 AND".to_owned())
            }
            (Some(_), None) => (
                format!("WITH RECURSIVE {}", kinds("events", &["source"])),
                "kinds CROSS JOIN events ON source = kind ->> 0 AND id = ?3 WHERE".to_owned(),
            ),
            (None, None) => (order.listed(), format!("listed CROSS JOIN events ON {LISTED} WHERE")),
            (None, Some(state)) if by_kind => {
                let is = format!(
                    "kind ->> 0 = '{state}' AND (?1 IS NULL OR kind ->> 1 = ?1)
                    AND (?2 IS NULL OR iif(instr(?2, '*'), kind ->> 2 GLOB ?2, kind ->> 2 = ?2))"
                );
                let page = format!("{} {}", order.after(at, id), order.page(at, id));
                let found = letters_of_kinds(&is, &page);
                (
                    String::new(),
                    format!("({found}) AS found CROSS JOIN {name} ON {name}.id = letter WHERE"),
                )
            }
            (None, _) => (String::new(), format!("{name} WHERE")),
        };
        format!(
            "SELECT * FROM ({with} SELECT {name}.source AS source, {name}.{id} AS id, {name}.generation AS generation, type,
                {state} AS state, received_at, {at} AS settled_at, attempts, {rows} FROM {from} {is}
            AND (?1 IS NULL OR {name}.source = ?1) AND (?2 IS NULL OR iif(instr(?2, '*'), type GLOB ?2, type = ?2))
            AND (?3 IS NULL OR {name}.{id} = ?3) {} {})",
            order.after(at, &format!("{name}.{id}")),
            order.page(at, &format!("{name}.{id}"))
        )
    }
}

/// A table with events: its name, and its columns for the event's id, the time and the state.
struct Table {
    name: &'static str,
    id: &'static str,
    at: &'static str,
    state: &'static str,
}

const LEDGER: Table = Table { name: "events", id: "id", at: "applied_at", state: "outcome" };
const LETTERS: Table =
    Table { name: "dead_letters", id: "event_id", at: "last_failed_at", state: "state" };

/// The row of the ledger that a row of `listed` names.
const LISTED: &str =
    "(events.source, events.id, events.generation) = (listed.source, listed.id, listed.generation)";

/// The order of a search, and its position.
#[derive(Clone, Copy)]
struct Order {
    /// Whether it is the first page.
    first: bool,
    earliest: bool,
}

impl Order {
    const fn words(self) -> (&'static str, &'static str) {
        if self.earliest { (">", "ASC") } else { ("<", "DESC") }
    }

    /// What orders events of one time; `id` may name a table.
    fn key(id: &str) -> String {
        let table = id.rsplit_once('.').map(|(table, _)| format!("{table}.")).unwrap_or_default();
        format!("{table}source || ' ' || {id} || ' ' || {table}generation")
    }

    fn page(self, at: &str, id: &str) -> String {
        let (_, order) = self.words();
        format!("ORDER BY {at} {order}, {} {order} LIMIT ?7", Self::key(id))
    }

    /// The condition that a row is on this page or a later one.
    fn after(self, at: &str, id: &str) -> String {
        let (behind, _) = self.words();
        if self.first {
            return String::new();
        }
        format!("AND {at} {behind}= ?5 AND ({at} <> ?5 OR {} {behind} ?6)", Self::key(id))
    }

    /// Common table expressions: `listed` has the keys of the events of the searched kinds, latest first, that took effect at
    /// times with enough events for a page. Events at `?5` may be on the previous page, so they do not count.
    fn listed(self) -> String {
        let (behind, order) = self.words();
        let (after, events) = if self.first {
            (String::new(), "events")
        } else {
            (format!("AND applied_at {behind}= ?5"), "iif(at = ?5, 0, events)")
        };
        format!(
            "WITH RECURSIVE {},
            times(kind, at, events) AS MATERIALIZED (
                SELECT kind, time.value ->> 0, time.value ->> 1 FROM kinds, json_each((
                    SELECT json_group_array(json_array(applied_at, events)) FROM (
                        SELECT applied_at, events FROM event_kinds WHERE {} {after}
                        ORDER BY applied_at {order} LIMIT ?7 + 1
                    )
                )) AS time
                WHERE kind IS NOT NULL AND (?1 IS NULL OR kind ->> 0 = ?1)
                    AND (?2 IS NULL OR iif(instr(?2, '*'), kind ->> 1 GLOB ?2, kind ->> 1 = ?2))
                    AND (?4 IS NULL OR kind ->> 2 = ?4)
            ),
            listed(source, id, generation) AS (
                SELECT event_kinds.source, one.value ->> 0, one.value ->> 1 FROM (
                    SELECT kind, at, sum({events}) OVER (ORDER BY at {order} GROUPS UNBOUNDED PRECEDING EXCLUDE GROUP) AS before
                    FROM times
                ) CROSS JOIN event_kinds ON {} AND applied_at = at CROSS JOIN json_each(ids) AS one
                WHERE coalesce(before, 0) < ?7
            )",
            kinds("event_kinds", &EVENT_KIND),
            of_kind(&EVENT_KIND),
            of_kind(&EVENT_KIND)
        )
    }
}

/// A query for the ids of dead letters of the kinds that meet a condition about `kind`, a page of each kind. `page` has the
/// other conditions, the order and the limit.
pub(crate) fn letters_of_kinds(is: &str, page: &str) -> String {
    format!(
        "WITH RECURSIVE {} SELECT one.value AS letter FROM kinds, json_each((
            SELECT json_group_array(id) FROM (SELECT id FROM dead_letters WHERE {} {page})
        )) AS one WHERE kind IS NOT NULL AND {is}",
        kinds("dead_letters", &LETTER_KIND),
        of_kind(&LETTER_KIND)
    )
}

/// Search events, latest first; with `since`, earliest first.
///
/// Events that no consumer has seen yet are not listed.
#[utoipa::path(
    get, path = "/events", tag = "events", params(Search, Paging),
    responses((status = 200, body = Page<Event>), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn list(
    State(admin): State<Admin>,
    Query(search): Query<Search>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Event>>, Problem> {
    check_pattern(search.r#type.as_deref())?;
    let (at, id) = paging.after()?;
    let at = at.or(search.since);
    let params = params![
        given(search.source.as_ref()),
        given(search.r#type.as_ref()).map(glob),
        given(search.id.as_ref()),
        search.state.map(EventState::as_str),
        at,
        // Every key sorts after the blank one.
        id.unwrap_or_default(),
        paging.limit()?,
    ];
    let sql = search.sql(at.is_none());
    let events = admin.ask::<Event>(&sql, params).await?;
    let key = |event: &Event| {
        let key = format!("{} {} {}", event.source, event.id, event.generation);
        (event.settled_at.millis(), key)
    };
    Ok(Json(paging.page(events, key)?))
}

/// A step in the history of an event.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Step {
    /// Milliseconds since the Unix epoch.
    #[schema(value_type = i64)]
    at: Timestamp,
    /// `received`, `attempt failed`, `applied`, `recorded`, `failed`, `failed again`, `replayed` (when its last replay began), `outbox`, `sent`, `outcome`, or an operator's change: `letter.discard`.
    what: String,
    /// Details of the step.
    detail: Value,
}

/// The history of an event.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Timeline {
    source: String,
    id: String,
    /// The steps, earliest first.
    steps: Vec<Step>,
    /// When the next attempt is due, if the event is being retried.
    #[schema(value_type = Option<i64>)]
    next_attempt_at: Option<Timestamp>,
}

/// Queries for steps: the time, the order among steps of the same time, the name, and details. D1 allows at most five terms
/// in a UNION.
const TIMELINE: [&str; 12] = [
    "SELECT received_at AS at, 0 AS place, 'received' AS what,
        json_object('type', type, 'secret', secret, 'generation', generation) AS detail
    FROM events WHERE source = ?1 AND id = ?2 AND generation = 0",
    "SELECT applied_at AS at, 3 AS place, outcome AS what,
        json_object('attempts', attempts, 'generation', generation, 'rows', json(rows)) AS detail
    FROM events WHERE source = ?1 AND id = ?2",
    "SELECT received_at AS at, 0 AS place, 'received' AS what, json_object('type', type, 'generation', generation) AS detail
    FROM dead_letters WHERE source = ?1 AND event_id = ?2 AND state <> 'applied' AND received_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM events WHERE source = ?1 AND id = ?2)",
    "SELECT received_at AS at, 0 AS place, 'received' AS what, json_object('type', type, 'generation', generation) AS detail
    FROM retries WHERE source = ?1 AND id = ?2
        AND NOT EXISTS (SELECT 1 FROM events WHERE source = ?1 AND id = ?2)
        AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE source = ?1 AND event_id = ?2 AND received_at IS NOT NULL)",
    "SELECT value ->> 'at' AS at, 1 AS place, 'attempt failed' AS what,
        json_object('error', value ->> 'error', 'generation', generation) AS detail
    FROM retries, json_each(failures) WHERE retries.source = ?1 AND retries.id = ?2",
    "SELECT first_failed_at AS at, 1 AS place, 'failed' AS what, json_object('letter', id, 'reason', reason, 'error', error,
        'attempts', attempts, 'generation', generation) AS detail
    FROM dead_letters WHERE source = ?1 AND event_id = ?2",
    "SELECT last_failed_at AS at, 2 AS place, 'failed again' AS what, json_object('letter', id) AS detail
    FROM dead_letters WHERE source = ?1 AND event_id = ?2 AND last_failed_at > first_failed_at",
    "SELECT coalesce((SELECT started_at FROM replays WHERE replays.id = replay), state_at) AS at, 2 AS place,
        'replayed' AS what, json_object('letter', id, 'replay', replay, 'replays', replays) AS detail
    FROM dead_letters WHERE source = ?1 AND event_id = ?2 AND replays > 0",
    "SELECT at, 2 AS place, action AS what,
        json_object('actor', actor, 'target', target, 'reason', audit.reason) AS detail
    FROM audit JOIN dead_letters ON dead_letters.id = target WHERE source = ?1 AND event_id = ?2 AND action <> 'body.view'",
    "SELECT created_at AS at, 4 AS place, 'outbox' AS what,
        json_object('id', id, 'rule', rule, 'channel', channel, 'to', recipient) AS detail
    FROM outbox WHERE source = ?1 AND event_id = ?2",
    "SELECT settled_at AS at, 5 AS place, state AS what,
        json_object('id', id, 'provider_id', provider_id, 'error', error, 'skipped_recipients', skipped_recipients) AS detail
    FROM outbox WHERE source = ?1 AND event_id = ?2 AND settled_at IS NOT NULL",
    "SELECT outcome_at AS at, 6 AS place, 'outcome' AS what, json_object('id', id, 'outcome', outcome) AS detail
    FROM outbox WHERE source = ?1 AND event_id = ?2 AND outcome_at IS NOT NULL",
];

/// The next attempt of an event that is being retried.
const NEXT_ATTEMPT: &str = "\
-- next attempt of an event
SELECT json_quote(min(due_at)) FROM retries WHERE source = ?1 AND id = ?2 AND NOT EXISTS (
    SELECT 1 FROM events WHERE (events.source, events.id, events.generation) = (retries.source, retries.id, retries.generation)
) HAVING min(due_at) IS NOT NULL";

/// Get the history of one event.
#[utoipa::path(
    get, path = "/events/{source}/{id}", tag = "events",
    params(("source" = String, Path, description = "The source"), ("id" = String, Path, description = "The provider's event id")),
    responses((status = 200, body = Timeline), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn timeline(
    State(admin): State<Admin>,
    Path((source, id)): Path<(String, String)>,
) -> Result<Json<Timeline>, Problem> {
    let mut queries = vec![Statement::new(NEXT_ATTEMPT, params![&source, &id])];
    queries.extend(TIMELINE.map(|steps| {
        let sql = format!(
            "-- what happened to an event\nSELECT json_array(place, json_object('at', at, 'what', what, 'detail', json(detail))) FROM ({steps})"
        );
        Statement::new(sql, params![&source, &id])
    }));
    let mut answers = admin.query(queries).await?.into_iter();
    let next_attempt_at = read_json(&answers.next().unwrap_or_default()).map_err(problem)?.pop();
    let mut steps: Vec<(u8, Step)> = Vec::new();
    for rows in answers {
        steps.extend(read_json::<(u8, Step)>(&rows).map_err(problem)?);
    }
    steps.sort_by_key(|(place, step)| (step.at, *place));
    let steps: Vec<_> = steps.into_iter().map(|(_, step)| step).collect();
    if steps.is_empty() {
        return Err(Problem::not_found("no history of this event; it may still be on the queue"));
    }
    Ok(Json(Timeline { source, id, steps, next_attempt_at }))
}

/// Get the body of an applied event whose message is kept, or of a dead letter.
#[utoipa::path(
    get, path = "/events/{source}/{id}/body", tag = "events",
    params(("source" = String, Path, description = "The source"), ("id" = String, Path, description = "The provider's event id")),
    responses((status = 200, body = BodyView), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn body(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path((source, id)): Path<(String, String)>,
) -> Result<Json<BodyView>, Problem> {
    let message = admin.ask::<String>(MESSAGE, params![&source, &id]).await?.pop();
    let gone = "the message of this event is not kept; set `messages` in `[retention]` of hookmill.toml to keep messages";
    let message = message.ok_or_else(|| Problem::not_found(gone))?;
    viewed(&admin, &actor, &format!("{source}/{id}")).await?;
    BodyView::of(&admin, &message).await.map(Json)
}
