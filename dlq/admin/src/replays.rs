//! Replays: planned, looked at, and let run.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use hookmill_core::params;
use hookmill_core::store::Statement;
use hookmill_core::time::Timestamp;
use hookmill_core::words::{LetterReason, ReplayState};
use hookmill_dlq::replay::{
    Filter, MOST_PER_SECOND, Turn, WHERE, plan_replay, replay_id, run_replay, turn_replay,
};
use hookmill_dlq::reprocess::{self, plan_reprocess, reprocess_id};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::audit::{Because, audit, reason};
use crate::page::{Page, Paging};
use crate::platform::Admin;
use crate::problem::{Body, Path, Problem, Query};
use crate::stats::Configuration;

/// Dead letters that are sent through the whole path again, or events that took effect (a reprocessing). Times are milliseconds
/// since the Unix epoch.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Replay {
    id: String,
    /// 0 for dead letters; of a reprocessing its number.
    generation: u32,
    /// Which of them, as it was planned.
    filter: Value,
    state: ReplayState,
    /// How many in a second.
    rate: u32,
    /// Why.
    reason: String,
    /// How many there were when it was planned.
    total: u64,
    /// How many have been sent.
    sent: u64,
    /// Of those sent, how many have taken effect.
    applied: u64,
    /// Of those sent, how many failed (again).
    failed: u64,
    planned_by: String,
    #[schema(value_type = i64)]
    planned_at: Timestamp,
    run_by: Option<String>,
    #[schema(value_type = Option<i64>)]
    started_at: Option<Timestamp>,
    #[schema(value_type = Option<i64>)]
    ended_at: Option<Timestamp>,
    /// What kept it from going on the last time.
    error: Option<String>,
}

const OBJECT: &str = "json_object('id', id, 'generation', generation, 'filter', json(filter), 'state', state, 'rate', rate, 'reason', reason,
    'total', total, 'sent', sent, 'planned_by', planned_by, 'planned_at', planned_at, 'run_by', run_by,
    'started_at', started_at, 'ended_at', ended_at, 'error', error,
    'applied', iif(generation > 0, applied, (
        SELECT count(*) FROM dead_letters WHERE replay = replays.id AND state = 'applied')),
    'failed', iif(generation > 0,
        (SELECT count(*) FROM dead_letters
            WHERE dead_letters.generation > 0 AND dead_letters.generation = replays.generation AND dead_letters.state = 'dead'),
        (SELECT count(*) FROM dead_letters WHERE replay = replays.id AND state = 'dead' AND dead_letters.replays > 0)))";

/// List replays, the latest first.
#[utoipa::path(
    get, path = "/replays", tag = "replays", params(Paging),
    responses((status = 200, body = Page<Replay>), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn list(
    State(admin): State<Admin>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Replay>>, Problem> {
    let (at, id) = paging.after()?;
    let sql = format!(
        "-- replays\nSELECT {OBJECT} FROM replays WHERE ?1 IS NULL OR planned_at < ?1
        OR (planned_at = ?1 AND id < ?2) ORDER BY planned_at DESC, id DESC LIMIT ?3"
    );
    let replays = admin.ask::<Replay>(&sql, params![at, id, paging.limit()?]).await?;
    Ok(Json(paging.page(replays, |replay| (replay.planned_at.millis(), replay.id.clone()))?))
}

/// Which letters. Something has to be said; every one is `"all": true`.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Selection {
    /// Of this source.
    source: Option<String>,
    /// Of events of this type; `*` stands for anything: `customer.*`.
    r#type: Option<String>,
    /// Given up for this reason.
    reason: Option<LetterReason>,
    /// With this kind of error.
    fingerprint: Option<String>,
    /// Of this event, by the provider's id.
    event_id: Option<String>,
    /// That failed last at this time or later, in milliseconds since the Unix epoch.
    failed_from: Option<i64>,
    /// That failed last before this time.
    failed_before: Option<i64>,
    /// Every letter.
    all: bool,
}

impl From<Selection> for Filter {
    fn from(selection: Selection) -> Self {
        Self {
            source: selection.source,
            kind: selection.r#type,
            reason: selection.reason,
            fingerprint: selection.fingerprint,
            event_id: selection.event_id,
            id: None,
            failed_from: selection.failed_from.map(Timestamp::from_millis),
            failed_before: selection.failed_before.map(Timestamp::from_millis),
            all: selection.all,
        }
    }
}

/// What a replay would send.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Plan {
    /// The replay, which waits to be run.
    #[serde(flatten)]
    replay: Replay,
    #[schema(value_type = Option<i64>)]
    first_failed_at: Option<Timestamp>,
    #[schema(value_type = Option<i64>)]
    last_failed_at: Option<Timestamp>,
    /// Some of them.
    sample: Vec<Sample>,
}

/// One of the letters of a plan.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Sample {
    id: String,
    source: Option<String>,
    event_id: Option<String>,
    r#type: Option<String>,
    error: String,
}

/// Plan a replay: nothing is sent until it is run.
#[utoipa::path(
    post, path = "/replays", tag = "replays", request_body = Selection,
    responses((status = 201, body = Plan), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn plan(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Body(selection): Body<Selection>,
) -> Result<(StatusCode, Json<Plan>), Problem> {
    #[derive(Deserialize)]
    struct Span {
        first: Option<Timestamp>,
        last: Option<Timestamp>,
    }
    let (filter, now) = (Filter::from(selection), admin.now());
    filter.check()?;
    let id = replay_id(&filter, &actor.name, now);
    let detail = json!({ "filter": filter });
    let statements = vec![
        plan_replay(&id, &filter, &actor.name, now),
        audit(&actor, "replay.plan", &id, "", &detail, now),
    ];
    admin.execute(statements).await?;
    let replay = find(&admin, &id).await?;
    let sql = format!(
        "-- what a plan spans
        SELECT json_object('first', min(first_failed_at), 'last', max(last_failed_at))
        FROM dead_letters WHERE state = 'dead' AND {WHERE}"
    );
    let span = admin.ask::<Span>(&sql, filter.params()).await?.pop();
    let Span { first, last } = span.unwrap_or(Span { first: None, last: None });
    let sql = format!(
        "-- some of a plan
        SELECT json_object('id', id, 'source', source, 'event_id', event_id, 'type', type, 'error', error)
        FROM dead_letters WHERE state = 'dead' AND {WHERE} ORDER BY last_failed_at LIMIT 10"
    );
    let sample = admin.ask::<Sample>(&sql, filter.params()).await?;
    let plan = Plan { replay, first_failed_at: first, last_failed_at: last, sample };
    Ok((StatusCode::CREATED, Json(plan)))
}

/// Which events that took effect, and which rules. Something has to be said of the events; every one is `"all": true`.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Reprocess {
    /// Of this source.
    source: Option<String>,
    /// Of this type; `*` stands for anything: `customer.*`.
    r#type: Option<String>,
    /// With this id.
    event_id: Option<String>,
    /// That took effect first at this time or later, in milliseconds since the Unix epoch.
    applied_from: Option<i64>,
    /// That took effect first before this time.
    applied_before: Option<i64>,
    /// Every event whose message is kept.
    all: bool,
    /// The rules that are carried out, by name. Without any: those that keep rows by version, which does no harm. Counters count
    /// again, and emails are sent again, only if they are named, and then nothing else is carried out.
    rules: Vec<String>,
}

impl From<Reprocess> for reprocess::Filter {
    fn from(asked: Reprocess) -> Self {
        Self {
            source: asked.source,
            kind: asked.r#type,
            event_id: asked.event_id,
            applied_from: asked.applied_from.map(Timestamp::from_millis),
            applied_before: asked.applied_before.map(Timestamp::from_millis),
            all: asked.all,
            rules: asked.rules,
        }
    }
}

/// How many events of a source have a type.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct TypeCount {
    source: String,
    r#type: String,
    count: u64,
}

/// What a reprocessing would send.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ReprocessPlan {
    /// The replay, which waits to be run.
    #[serde(flatten)]
    replay: Replay,
    #[schema(value_type = Option<i64>)]
    first_applied_at: Option<Timestamp>,
    #[schema(value_type = Option<i64>)]
    last_applied_at: Option<Timestamp>,
    /// How many there are of each type, the most first; at most twenty types.
    types: Vec<TypeCount>,
    /// Of the rules that are carried out, those that count again or send again what these events have counted or sent already;
    /// not known where only the data is at hand.
    repeats: Vec<String>,
}

/// Plan a reprocessing of events that took effect, after a rule has changed. It is run, paused and cancelled as a replay is.
#[utoipa::path(
    post, path = "/reprocess", tag = "replays", request_body = Reprocess,
    responses((status = 201, body = ReprocessPlan), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn reprocess(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Body(asked): Body<Reprocess>,
) -> Result<(StatusCode, Json<ReprocessPlan>), Problem> {
    #[derive(Deserialize)]
    struct Span {
        first: Option<Timestamp>,
        last: Option<Timestamp>,
    }
    const KEPT: &str = "-- whether messages are kept\nSELECT json_quote(count(*)) FROM (SELECT 1 FROM event_messages LIMIT 1)";
    let (filter, now) = (reprocess::Filter::from(asked), admin.now());
    filter.check()?;
    let repeats = repeated(&admin, &filter)?;
    if admin.ask::<u8>(KEPT, Vec::new()).await? == [0] {
        return Err(Problem::conflict(
            "no messages of events that took effect are kept; `messages` of [retention] in hookmill.toml says for how long",
        ));
    }
    let id = reprocess_id(&filter, &actor.name, now);
    let statements = vec![
        plan_reprocess(&id, &filter, &actor.name, now),
        audit(&actor, "reprocess.plan", &id, "", &json!({ "filter": filter }), now),
    ];
    admin.execute(statements).await?;
    let replay = find(&admin, &id).await?;
    let planned = format!(
        "FROM events JOIN event_messages USING (applied_at, source, id) WHERE {}",
        reprocess::WHERE
    );
    let sql = format!(
        "-- what a plan spans\nSELECT json_object('first', min(applied_at), 'last', max(applied_at)) {planned}"
    );
    let span = admin.ask::<Span>(&sql, filter.params()).await?.pop();
    let Span { first, last } = span.unwrap_or(Span { first: None, last: None });
    let sql = format!(
        "-- what a plan is about\nSELECT json_object('source', source, 'type', type, 'count', count(*)) {planned}
        GROUP BY source, type ORDER BY count(*) DESC, type LIMIT 20"
    );
    let types = admin.ask::<TypeCount>(&sql, filter.params()).await?;
    let plan =
        ReprocessPlan { replay, first_applied_at: first, last_applied_at: last, types, repeats };
    Ok((StatusCode::CREATED, Json(plan)))
}

/// Of the rules that are named, those that do harm a second time; each has to be there.
fn repeated(admin: &Admin, filter: &reprocess::Filter) -> Result<Vec<String>, Problem> {
    let Some(config) = admin.0.config() else { return Ok(Vec::new()) };
    let Configuration { rules, .. } = serde_json::from_str(&config.overview)
        .map_err(|error| Problem::broken(&error.to_string()))?;
    let mut repeats = Vec::new();
    for name in &filter.rules {
        match rules.iter().find(|rule| rule.name == *name) {
            None => return Err(Problem::invalid(format!("there is no rule `{name}`"))),
            Some(rule) if !rule.effect.is_repeatable() => repeats.push(name.clone()),
            Some(_) => {}
        }
    }
    Ok(repeats)
}

/// A replay and how far it is.
#[utoipa::path(
    get, path = "/replays/{id}", tag = "replays", params(("id" = String, Path, description = "Its id")),
    responses((status = 200, body = Replay), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn show(
    State(admin): State<Admin>,
    Path(id): Path<String>,
) -> Result<Json<Replay>, Problem> {
    find(&admin, &id).await.map(Json)
}

pub(crate) async fn find(admin: &Admin, id: &str) -> Result<Replay, Problem> {
    let sql = format!("-- a replay\nSELECT {OBJECT} FROM replays WHERE id = ?1");
    let found = admin.ask::<Replay>(&sql, params![id]).await?.pop();
    found.ok_or_else(|| Problem::not_found("there is no replay with this id"))
}

/// How a replay is to run.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// How many in a second, at most 10,000.
    #[schema(minimum = 1, maximum = 10_000)]
    rate: u32,
    /// Why, for the record.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Run a replay that was planned.
#[utoipa::path(
    post, path = "/replays/{id}/run", tag = "replays", request_body = Run,
    params(("id" = String, Path, description = "Its id")),
    responses((status = 202, body = Replay), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn run(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
    Body(Run { rate, reason: why }): Body<Run>,
) -> Result<(StatusCode, Json<Replay>), Problem> {
    if !(1..=MOST_PER_SECOND).contains(&rate) {
        let detail = format!("rate is {rate}; it may be 1 to {MOST_PER_SECOND} in a second");
        return Err(Problem::invalid(detail));
    }
    let (now, why) = (admin.now(), reason(why)?);
    let change = run_replay(&id, rate, &why, &actor.name, now);
    let record = audit(&actor, "replay.run", &id, &why, &json!({ "rate": rate }), now);
    changed(&admin, &id, change, record).await
}

/// What a replay can be told.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Told {
    /// To send no more, for now.
    Pause,
    /// To go on.
    Resume,
    /// To send no more: what has not been sent stays dead.
    Cancel,
}

/// Pause a replay, resume one that is paused, or cancel one.
#[utoipa::path(
    post, path = "/replays/{id}/{told}", tag = "replays", request_body = Because,
    params(
        ("id" = String, Path, description = "Its id"),
        ("told" = Told, Path, description = "What it is told"),
    ),
    responses((status = 202, body = Replay), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn tell(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path((id, told)): Path<(String, Told)>,
    Body(because): Body<Because>,
) -> Result<(StatusCode, Json<Replay>), Problem> {
    let (now, reason) = (admin.now(), because.reason()?);
    let (turn, action) = match told {
        Told::Pause => (Turn::Pause, "replay.pause"),
        Told::Resume => (Turn::Resume, "replay.resume"),
        Told::Cancel => (Turn::Cancel, "replay.cancel"),
    };
    let record = audit(&actor, action, &id, &reason, &json!({}), now);
    changed(&admin, &id, turn_replay(&id, turn, now), record).await
}

/// Carries out a change, if the replay is in a state for that, and writes it down; the record stands only if it was.
async fn changed(
    admin: &Admin,
    id: &str,
    change: Statement,
    record: Statement,
) -> Result<(StatusCode, Json<Replay>), Problem> {
    let before = find(admin, id).await?;
    let rows = admin.execute(vec![change, record]).await?;
    if rows.iter().flatten().next().is_none() {
        return Err(Problem::conflict(format!("the replay is `{}`", before.state)));
    }
    admin.0.wake().await;
    Ok((StatusCode::ACCEPTED, Json(find(admin, id).await?)))
}
