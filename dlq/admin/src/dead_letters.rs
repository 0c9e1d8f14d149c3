//! Dead letters: lists, groups, details; replay and discard of one.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use hookmill_core::limits::COUNTED;
use hookmill_core::params;
use hookmill_core::store::Param;
use hookmill_core::time::Timestamp;
use hookmill_core::words::{self, AuditAction, LetterReason, LetterState};
use hookmill_dlq::kinds::{LETTER_KIND, kinds, of_kind};
use hookmill_dlq::replay::{
    LetterFilter, WHERE, check_pattern, discard as discard_letter, plan_replay, replay_id,
    run_replay,
};
use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{IntoParams, ToSchema};

use crate::actor::Actor;
use crate::audit::{Because, audit, viewed};
use crate::body_view::BodyView;
use crate::events::letters_of_kinds;
use crate::page::{Page, Paging};
use crate::platform::{Admin, given};
use crate::problem::{Body, Path, Problem, Query};
use crate::replays::Replay;

const RESOLVE: &str = "\
-- find a letter
SELECT json_array(id, state) FROM dead_letters WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT 2";

/// An event that could not be applied. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct DeadLetter {
    id: String,
    /// The source in hookmill.toml. Absent, like the event's other fields, if the message is unreadable.
    source: Option<String>,
    /// The provider's id.
    event_id: Option<String>,
    generation: Option<u32>,
    r#type: Option<String>,
    #[schema(value_type = Option<i64>)]
    received_at: Option<Timestamp>,
    reason: LetterReason,
    /// The error message.
    error: String,
    /// Identifies the kind of error.
    fingerprint: String,
    /// The number of delivery attempts.
    attempts: u32,
    #[schema(value_type = i64)]
    first_failed_at: Timestamp,
    #[schema(value_type = i64)]
    last_failed_at: Timestamp,
    state: LetterState,
    /// The last replay that selected it.
    replay: Option<String>,
    /// The number of replays.
    replays: u32,
}

/// A filter of dead letters.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Search {
    /// The source.
    source: Option<String>,
    /// The event type. `*` matches any text: `customer.*`.
    r#type: Option<String>,
    /// The reason.
    #[serde(default, deserialize_with = "words::unless_blank")]
    #[param(schema_with = words::looked_for::<LetterReason>)]
    reason: Option<LetterReason>,
    /// The fingerprint of the error.
    fingerprint: Option<String>,
    /// The provider's event id.
    event_id: Option<String>,
    /// The state. Default: `dead`.
    #[serde(default, deserialize_with = "words::unless_blank")]
    #[param(schema_with = letter_states)]
    state: Option<words::WordFilter<LetterState>>,
}

fn letter_states() -> RefOr<Schema> {
    words::searched(LetterState::Dead)
}

/// The letters with the provider's event id `?5`.
const LETTERS_OF_EVENT: &str = "(
    SELECT * FROM dead_letters INDEXED BY dead_letters_event WHERE event_id = ?5
) AS dead_letters";

/// The condition of a search about `kind`, a kind of letters.
const KINDS: &str = "(?9 IS NULL OR kind ->> 0 = ?9) AND (?1 IS NULL OR kind ->> 1 = ?1)
    AND (?2 IS NULL OR iif(instr(?2, '*'), kind ->> 2 GLOB ?2, kind ->> 2 = ?2))
    AND (?3 IS NULL OR kind ->> 3 = ?3) AND (?4 IS NULL OR kind ->> 4 = ?4)";

impl Search {
    /// The parameters of [`WHERE`], and the state.
    fn params(&self) -> Result<Vec<Param>, Problem> {
        check_pattern(self.r#type.as_deref())?;
        let filter = LetterFilter {
            source: given(self.source.as_ref()).map(ToOwned::to_owned),
            kind: given(self.r#type.as_ref()).map(ToOwned::to_owned),
            reason: self.reason,
            fingerprint: given(self.fingerprint.as_ref()).map(ToOwned::to_owned),
            event_id: given(self.event_id.as_ref()).map(ToOwned::to_owned),
            ..LetterFilter::default()
        };
        let mut params = filter.params();
        params.push(match self.state() {
            words::WordFilter::Any => Param::Null,
            words::WordFilter::Only(state) => state.as_str().into(),
        });
        Ok(params)
    }

    /// The state as SQL: one index serves one state, another all of them.
    fn condition(&self) -> &'static str {
        match self.state() {
            words::WordFilter::Any => "?9 IS NULL",
            words::WordFilter::Only(_) => "state = ?9",
        }
    }

    /// The tables of a search: an index finds the letters, whatever the filter.
    fn from(&self, page: &str) -> String {
        let Self { source, r#type, fingerprint, event_id, .. } = self;
        if given(event_id.as_ref()).is_some() {
            return LETTERS_OF_EVENT.to_owned();
        }
        let texts = [source, r#type, fingerprint].into_iter();
        let is_filtered = texts.flatten().any(|text| !text.is_empty()) || self.reason.is_some();
        if !is_filtered {
            return "dead_letters".to_owned();
        }
        let found = letters_of_kinds(KINDS, page);
        format!("({found}) AS found CROSS JOIN dead_letters ON dead_letters.id = letter")
    }

    fn state(&self) -> words::WordFilter<LetterState> {
        self.state.unwrap_or(words::WordFilter::Only(LetterState::Dead))
    }
}

const OBJECT: &str = "json_object('id', id, 'source', source, 'event_id', event_id, 'generation', generation, 'type', type,
    'received_at', received_at, 'reason', reason, 'error', error, 'fingerprint', fingerprint, 'attempts', attempts,
    'first_failed_at', first_failed_at, 'last_failed_at', last_failed_at, 'state', state, 'replay', replay,
    'replays', replays)";

/// List dead letters, latest first.
#[utoipa::path(
    get, path = "/dead-letters", tag = "dead letters", params(Search, Paging),
    responses((status = 200, body = Page<DeadLetter>), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn list(
    State(admin): State<Admin>,
    Query(search): Query<Search>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<DeadLetter>>, Problem> {
    let (at, id) = paging.after()?;
    let (mut params, state) = (search.params()?, search.condition());
    params.extend(params![at, id, paging.limit()?]);
    let page = "AND (?10 IS NULL OR last_failed_at < ?10 OR (last_failed_at = ?10 AND dead_letters.id < ?11))
        ORDER BY last_failed_at DESC, dead_letters.id DESC LIMIT ?12";
    let from = search.from(page);
    let sql =
        format!("-- dead letters\nSELECT {OBJECT} FROM {from} WHERE {WHERE} AND {state} {page}");
    let letters = admin.ask::<DeadLetter>(&sql, params).await?;
    Ok(Json(paging.page(letters, |letter| (letter.last_failed_at.millis(), letter.id.clone()))?))
}

/// Dead letters with the same kind of error.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Group {
    fingerprint: String,
    reason: LetterReason,
    /// The latest error message.
    error: String,
    /// The number of dead letters, counted up to 10,000 for each source and type.
    count: u64,
    /// The sources.
    sources: Vec<String>,
    /// The event types, at most ten.
    types: Vec<String>,
    #[schema(value_type = i64)]
    first_failed_at: Timestamp,
    #[schema(value_type = i64)]
    last_failed_at: Timestamp,
}

/// Group dead letters by kind of error, most frequent first.
#[utoipa::path(
    get, path = "/dead-letters/groups", tag = "dead letters", params(Search),
    responses((status = 200, body = Vec<Group>), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn groups(
    State(admin): State<Admin>,
    Query(search): Query<Search>,
) -> Result<Json<Vec<Group>>, Problem> {
    let mut params = search.params()?;
    let (with, found) = if given(search.event_id.as_ref()).is_some() {
        let state = search.condition();
        let found = format!(
            "SELECT fingerprint, reason, source, type, error, 1 AS n, first_failed_at AS first, last_failed_at AS last
            FROM {LETTERS_OF_EVENT} WHERE {WHERE} AND {state}"
        );
        (String::new(), found)
    } else {
        params.push(COUNTED.into());
        // A part of a kind is counted, in the index. Its first and its last letter are found there.
        let of_kind = of_kind(&LETTER_KIND);
        let found = format!(
            "SELECT kind ->> 4 AS fingerprint, kind ->> 3 AS reason, nullif(kind ->> 1, '') AS source, nullif(kind ->> 2, '') AS type,
                latest.error, counted.value ->> 0 AS n, counted.value ->> 1 AS first, latest.last_failed_at AS last
            FROM kinds, json_each((SELECT json_array(json_array(count(*), min(first_failed_at))) FROM (
                SELECT first_failed_at FROM dead_letters INDEXED BY dead_letters_kind WHERE {of_kind} LIMIT ?10
            ))) AS counted
            JOIN dead_letters AS latest ON latest.id = (
                SELECT id FROM dead_letters WHERE {of_kind} ORDER BY last_failed_at DESC, id DESC LIMIT 1
            )
            WHERE kind IS NOT NULL AND {KINDS}"
        );
        (format!("WITH RECURSIVE {}", kinds("dead_letters", &LETTER_KIND)), found)
    };
    let sql = format!(
        "-- dead letters by what went wrong
        {with}
        SELECT json_object('fingerprint', fingerprint, 'reason', reason, 'error', error, 'count', count,
            'sources', json(sources), 'types', json(types), 'first_failed_at', first, 'last_failed_at', last)
        FROM (
            SELECT fingerprint, reason, sum(n) AS count, min(first) AS first, max(last) AS last,
                substr(max(format('%020d', last) || error), 21) AS error,
                json_group_array(DISTINCT source) FILTER (WHERE source IS NOT NULL) AS sources,
                json_group_array(DISTINCT type) FILTER (WHERE type IS NOT NULL) AS types
            FROM ({found}) GROUP BY fingerprint
        )
        ORDER BY count DESC, fingerprint LIMIT 200"
    );
    let mut groups = admin.ask::<Group>(&sql, params).await?;
    for group in &mut groups {
        group.types.truncate(10);
    }
    Ok(Json(groups))
}

/// A dead letter with its body.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Whole {
    #[serde(flatten)]
    letter: DeadLetter,
    #[serde(flatten)]
    body: BodyView,
}

/// Get a dead letter with its body.
#[utoipa::path(
    get, path = "/dead-letters/{id}", tag = "dead letters", params(("id" = String, Path, description = "The id, or its first digits, at least six")),
    responses((status = 200, body = Whole), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn show(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<Json<Whole>, Problem> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(flatten)]
        letter: DeadLetter,
        message: String,
    }
    let sql = format!(
        "-- a dead letter\nSELECT json_patch({OBJECT}, json_object('message', message)) FROM dead_letters WHERE id = ?1"
    );
    let (id, _) = resolved(&admin, &id).await?;
    let found = admin.ask::<Found>(&sql, params![&id]).await?.pop();
    let Found { letter, message } = found.ok_or_else(gone)?;
    viewed(&admin, &actor, &id).await?;
    Ok(Json(Whole { letter, body: BodyView::of(&admin, &message).await? }))
}

fn gone() -> Problem {
    Problem::not_found("no dead letter has this id")
}

/// Replay one dead letter.
#[utoipa::path(
    post, path = "/dead-letters/{id}/replay", tag = "dead letters", request_body = Because,
    params(("id" = String, Path, description = "The id, or its first digits, at least six")),
    responses(
        (status = 202, body = Replay, description = "The running replay"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn replay(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
    Body(because): Body<Because>,
) -> Result<(StatusCode, Json<Replay>), Problem> {
    let (now, reason) = (admin.now(), because.reason()?);
    let id = ready(&admin, &id).await?;
    let filter = LetterFilter { id: Some(id.clone()), ..LetterFilter::default() };
    let replay = replay_id(&filter, &actor.name, now);
    let statements = vec![
        plan_replay(&replay, &filter, &actor.name, now),
        run_replay(&replay, 1, &reason, &actor.name, now),
        audit(
            &actor,
            AuditAction::LetterReplay,
            &id,
            &reason,
            &serde_json::json!({ "replay": replay }),
            now,
        ),
    ];
    admin.execute(statements).await?;
    admin.0.wake().await;
    Ok((StatusCode::ACCEPTED, Json(crate::replays::find(&admin, &replay).await?)))
}

/// Discard a dead letter: it stays in the table and can no longer be replayed.
#[utoipa::path(
    post, path = "/dead-letters/{id}/discard", tag = "dead letters", request_body = Because,
    params(("id" = String, Path, description = "The id, or its first digits, at least six")),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn discard(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
    Body(because): Body<Because>,
) -> Result<StatusCode, Problem> {
    let (now, reason) = (admin.now(), because.reason()?);
    let id = ready(&admin, &id).await?;
    let statements = vec![
        discard_letter(&id, now),
        audit(&actor, AuditAction::LetterDiscard, &id, &reason, &serde_json::json!({}), now),
    ];
    let rows = admin.execute(statements).await?;
    match rows.iter().flatten().next() {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Problem::conflict("the dead letter is no longer `dead`")),
    }
}

/// The letter with this id or prefix, and its state.
async fn resolved(admin: &Admin, id: &str) -> Result<(String, String), Problem> {
    // Ids are hexadecimal digits, so `g` sorts after all that begin with the prefix.
    let mut found = admin.ask::<(String, String)>(RESOLVE, params![id]).await?;
    match (found.len(), id.len() >= 6) {
        (1, true) => found.pop().ok_or_else(gone),
        (2, true) => Err(Problem::invalid(
            "several dead letters have ids with these first digits; give more digits",
        )),
        (_, false) => Err(Problem::invalid("give at least six digits of the id")),
        _ => Err(gone()),
    }
}

/// The id of the letter, if it is dead.
async fn ready(admin: &Admin, id: &str) -> Result<String, Problem> {
    match resolved(admin, id).await? {
        (id, state) if state == "dead" => Ok(id),
        (_, state) => Err(Problem::conflict(format!("the dead letter is `{state}`, not `dead`"))),
    }
}
