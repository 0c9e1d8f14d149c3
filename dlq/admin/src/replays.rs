//! Replays and reprocessings: plan, run and change.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use hookmill_core::params;
use hookmill_core::store::Statement;
use hookmill_core::time::Timestamp;
use hookmill_core::words::{AuditAction, JobKind, LetterReason, ReplayState};
use hookmill_dlq::replay::{
    LetterFilter, MOST_PER_SECOND, Turn, WHERE, plan_replay, replay_id, run_replay, turn_replay,
};
use hookmill_dlq::reprocess::{self, EventFilter, plan_reprocess, reprocess_id};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::audit::{Because, audit, reason};
use crate::page::{Page, Paging};
use crate::platform::Admin;
use crate::problem::{Body, Path, Problem, Query};
use crate::stats::Configuration;

const KEPT: &str = "-- whether messages are kept\nSELECT json_quote(count(*)) FROM (SELECT 1 FROM event_messages LIMIT 1)";

/// A replay of dead letters, a reprocessing of applied events, an import of objects, or a reconciliation with them. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Replay {
    id: String,
    kind: JobKind,
    /// 0 for a replay of dead letters; otherwise the number of the job.
    generation: u32,
    /// The filter.
    filter: Value,
    state: ReplayState,
    /// Messages per second.
    rate: u32,
    /// The reason.
    reason: String,
    /// The number of selected messages when it was planned; null for an import or a reconciliation, since providers do not tell.
    total: Option<u64>,
    /// The number of messages sent.
    sent: u64,
    /// The number of sent messages whose events were applied. It grows until the queue has delivered the last message.
    applied: u64,
    /// The number of sent messages whose events failed. What another replay does later changes neither.
    failed: u64,
    planned_by: String,
    #[schema(value_type = i64)]
    planned_at: Timestamp,
    run_by: Option<String>,
    #[schema(value_type = Option<i64>)]
    started_at: Option<Timestamp>,
    #[schema(value_type = Option<i64>)]
    ended_at: Option<Timestamp>,
    /// The last error that stopped it.
    error: Option<String>,
    /// The report of a reconciliation, after its end. `objects`: the number of objects by list. `tables`: by table, the number of
    /// rows that are `missing`, `extra`, `different`, `deleted`, `repaired` or `unclear`, and in `columns` the number of
    /// differences by column. `unlisted`: the tables of the source whose objects no list contains. `complete`: false if too many
    /// differences stopped the reconciliation. `withheld`: true if a repair deleted no rows, because more rows lack an object than
    /// the provider lists.
    report: Option<Value>,
}

const OBJECT: &str = "json_object('id', id, 'kind', kind, 'generation', generation, 'filter', json(filter), 'state', state, 'rate', rate, 'reason', reason,
    'total', total, 'sent', sent, 'planned_by', planned_by, 'planned_at', planned_at, 'run_by', run_by,
    'started_at', started_at, 'ended_at', ended_at, 'error', error, 'failed', failed, 'report', json(report),
    'applied', applied + (SELECT count(*) FROM dead_letters WHERE applied_by = replays.id))";

/// List replays, reprocessings, imports and reconciliations, latest first.
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

/// A filter of dead letters. At least one field is required; `"all": true` selects every letter.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Selection {
    /// The source.
    source: Option<String>,
    /// The event type. `*` matches any text: `customer.*`.
    r#type: Option<String>,
    /// The reason.
    reason: Option<LetterReason>,
    /// The fingerprint of the error.
    fingerprint: Option<String>,
    /// The provider's event id.
    event_id: Option<String>,
    /// Last failed at or after this time, in milliseconds since the Unix epoch.
    failed_from: Option<i64>,
    /// Last failed before this time, in milliseconds since the Unix epoch.
    failed_before: Option<i64>,
    /// Selects every letter.
    all: bool,
}

impl From<Selection> for LetterFilter {
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

/// A planned replay.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Plan {
    /// The replay to run.
    #[serde(flatten)]
    replay: Replay,
    #[schema(value_type = Option<i64>)]
    first_failed_at: Option<Timestamp>,
    #[schema(value_type = Option<i64>)]
    last_failed_at: Option<Timestamp>,
    /// A sample of the selected letters.
    sample: Vec<Sample>,
}

/// A dead letter that the plan selects.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Sample {
    id: String,
    source: Option<String>,
    event_id: Option<String>,
    r#type: Option<String>,
    error: String,
}

/// Plan a replay. Nothing is sent until you run it.
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
    let (filter, now) = (LetterFilter::from(selection), admin.now());
    filter.check()?;
    let id = replay_id(&filter, &actor.name, now);
    let detail = json!({ "filter": filter });
    let statements = vec![
        plan_replay(&id, &filter, &actor.name, now),
        audit(&actor, AuditAction::ReplayPlan, &id, "", &detail, now),
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

/// A filter of applied events, and the rules to run. At least one filter is required; `"all": true` selects every event.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Reprocess {
    /// The source.
    source: Option<String>,
    /// The event type. `*` matches any text: `customer.*`.
    r#type: Option<String>,
    /// The provider's event id.
    event_id: Option<String>,
    /// First applied at or after this time, in milliseconds since the Unix epoch.
    applied_from: Option<i64>,
    /// First applied before this time, in milliseconds since the Unix epoch.
    applied_before: Option<i64>,
    /// Selects every event whose message is kept.
    all: bool,
    /// The names of the rules to run, and no others. Default: the rules that write rows by `version`, which are safe to run
    /// again. Counters and rules that send run only if named, and then count or send again.
    rules: Vec<String>,
}

impl From<Reprocess> for EventFilter {
    fn from(request: Reprocess) -> Self {
        Self {
            source: request.source,
            kind: request.r#type,
            event_id: request.event_id,
            applied_from: request.applied_from.map(Timestamp::from_millis),
            applied_before: request.applied_before.map(Timestamp::from_millis),
            all: request.all,
            rules: request.rules,
        }
    }
}

/// The number of events of a source and type.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct TypeCount {
    source: String,
    r#type: String,
    count: u64,
}

/// A planned reprocessing.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ReprocessPlan {
    /// The replay to run.
    #[serde(flatten)]
    replay: Replay,
    #[schema(value_type = Option<i64>)]
    first_applied_at: Option<Timestamp>,
    #[schema(value_type = Option<i64>)]
    last_applied_at: Option<Timestamp>,
    /// The number of events by type, most frequent first, at most twenty types.
    types: Vec<TypeCount>,
    /// The named rules that will count or send again for these events. Empty if the API runs on a data folder without a
    /// configuration.
    repeats: Vec<String>,
}

/// Plan a reprocessing of applied events, e.g. after changing a rule. You run, pause and cancel it like a replay.
#[utoipa::path(
    post, path = "/reprocess", tag = "replays", request_body = Reprocess,
    responses((status = 201, body = ReprocessPlan), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn reprocess(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<Reprocess>,
) -> Result<(StatusCode, Json<ReprocessPlan>), Problem> {
    #[derive(Deserialize)]
    struct Span {
        first: Option<Timestamp>,
        last: Option<Timestamp>,
    }
    let (filter, now) = (EventFilter::from(request), admin.now());
    filter.check()?;
    let repeats = repeated(&admin, &filter)?;
    if admin.ask::<u8>(KEPT, Vec::new()).await? == [0] {
        return Err(Problem::conflict(
            "no messages of applied events are kept; set `messages` in `[retention]` of hookmill.toml to keep them",
        ));
    }
    let id = reprocess_id(&filter, &actor.name, now);
    let statements = vec![
        plan_reprocess(&id, &filter, &actor.name, now),
        audit(&actor, AuditAction::ReprocessPlan, &id, "", &json!({ "filter": filter }), now),
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

/// The named rules that are not repeatable; every name must exist.
fn repeated(admin: &Admin, filter: &EventFilter) -> Result<Vec<String>, Problem> {
    let Some(config) = admin.0.config() else { return Ok(Vec::new()) };
    let Configuration { rules, .. } = serde_json::from_str(&config.overview)
        .map_err(|error| Problem::broken(&error.to_string()))?;
    let mut repeats = Vec::new();
    for name in &filter.rules {
        match rules.iter().find(|rule| rule.name == *name) {
            None => return Err(Problem::invalid(format!("no rule has the name `{name}`"))),
            Some(rule) if !rule.effect.is_repeatable() => repeats.push(name.clone()),
            Some(_) => {}
        }
    }
    Ok(repeats)
}

/// Get a replay and its progress.
#[utoipa::path(
    get, path = "/replays/{id}", tag = "replays", params(("id" = String, Path, description = "The id")),
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
    found.ok_or_else(|| Problem::not_found("no replay has this id"))
}

/// How to run a replay.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// Messages per second, at most 10,000.
    #[schema(minimum = 1, maximum = 10_000)]
    rate: u32,
    /// The reason, for the audit.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Run a planned replay.
#[utoipa::path(
    post, path = "/replays/{id}/run", tag = "replays", request_body = Run,
    params(("id" = String, Path, description = "The id")),
    responses((status = 202, body = Replay), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn run(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
    Body(Run { rate, reason: why }): Body<Run>,
) -> Result<(StatusCode, Json<Replay>), Problem> {
    if !(1..=MOST_PER_SECOND).contains(&rate) {
        let detail = format!("rate is {rate}; use 1 to {MOST_PER_SECOND} per second");
        return Err(Problem::invalid(detail));
    }
    let (now, why) = (admin.now(), reason(why)?);
    let change = run_replay(&id, rate, &why, &actor.name, now);
    let record = audit(&actor, AuditAction::ReplayRun, &id, &why, &json!({ "rate": rate }), now);
    changed(&admin, &id, change, record).await
}

/// A command for a replay.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReplayCommand {
    /// Stop sending until it resumes.
    Pause,
    /// Continue sending.
    Resume,
    /// Stop sending. Unsent letters stay dead.
    Cancel,
}

/// Pause, resume or cancel a replay.
#[utoipa::path(
    post, path = "/replays/{id}/{command}", tag = "replays", request_body = Because,
    params(
        ("id" = String, Path, description = "The id"),
        ("command" = ReplayCommand, Path, description = "The command"),
    ),
    responses((status = 202, body = Replay), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn tell(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path((id, command)): Path<(String, ReplayCommand)>,
    Body(because): Body<Because>,
) -> Result<(StatusCode, Json<Replay>), Problem> {
    let (now, reason) = (admin.now(), because.reason()?);
    let (turn, action) = match command {
        ReplayCommand::Pause => (Turn::Pause, AuditAction::ReplayPause),
        ReplayCommand::Resume => (Turn::Resume, AuditAction::ReplayResume),
        ReplayCommand::Cancel => (Turn::Cancel, AuditAction::ReplayCancel),
    };
    let record = audit(&actor, action, &id, &reason, &json!({}), now);
    changed(&admin, &id, turn_replay(&id, turn, now), record).await
}

/// Carries out a change and records it, if the replay's state allows the change.
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
