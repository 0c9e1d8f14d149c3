//! Imports of objects from providers' APIs, and reconciliations with them: plan. They run and change like replays.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use hookmill_core::params;
use hookmill_core::words::{AuditAction, DriftKind, DriftState, JobKind};
use hookmill_dlq::import::{ImportFilter, job_id, plan_job};
use hookmill_dlq::reconcile::ReconcileFilter;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::audit::audit;
use crate::page::{Page, Paging};
use crate::platform::Admin;
use crate::problem::{Body, Path, Problem, Query};
use crate::replays::{Replay, find};
use crate::stats::Configuration;

/// The objects to import.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Import {
    /// The source. It needs an API in hookmill.toml.
    source: String,
    /// The names of lists. Default: all lists whose objects some rule keeps.
    #[serde(default)]
    only: Vec<String>,
    /// The connected account of Stripe that has the objects. Default: that of the key.
    account: Option<String>,
}

/// A planned import.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ImportPlan {
    /// The import to run.
    #[serde(flatten)]
    replay: Replay,
    /// The names of the lists that it will read. Empty if the API runs on a data folder without a configuration.
    lists: Vec<String>,
}

/// Plan an import of the objects that a provider's API has. You run, pause and cancel it like a replay.
#[utoipa::path(
    post, path = "/imports", tag = "replays", request_body = Import,
    responses((status = 201, body = ImportPlan), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn plan(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Body(Import { source, only, account }): Body<Import>,
) -> Result<(StatusCode, Json<ImportPlan>), Problem> {
    let filter = ImportFilter { source, only, account };
    filter.check()?;
    let lists = match lists(&admin, &filter.source)? {
        Some(lists) => filter.select(lists).map_err(Problem::invalid)?,
        None => Vec::new(),
    };
    let replay = planned(&admin, &actor, JobKind::Import, &filter).await?;
    Ok((StatusCode::CREATED, Json(ImportPlan { replay, lists })))
}

/// The objects to compare with the tables.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reconcile {
    /// The source. It needs an API in hookmill.toml.
    source: String,
    /// The table. Default: every table with objects of a list.
    table: Option<String>,
    /// The connected account of Stripe that has the objects. Default: that of the key.
    account: Option<String>,
    /// Compare only this number of objects from the start of each list. Default: all objects.
    #[schema(minimum = 1)]
    sample: Option<u32>,
    /// Whether to send the objects that differ through the rules.
    #[serde(default)]
    repair: bool,
}

/// Plan a reconciliation: it compares the objects that a provider's API has with the tables. You run, pause and cancel it like
/// a replay. At the end, its `report` says what differs.
#[utoipa::path(
    post, path = "/reconciliations", tag = "replays", request_body = Reconcile,
    responses((status = 201, body = Replay), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn reconcile(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Body(Reconcile { source, table, account, sample, repair }): Body<Reconcile>,
) -> Result<(StatusCode, Json<Replay>), Problem> {
    let filter = ReconcileFilter { source, table, account, sample, repair };
    filter.check()?;
    lists(&admin, &filter.source)?;
    let replay = planned(&admin, &actor, JobKind::Reconcile, &filter).await?;
    Ok((StatusCode::CREATED, Json(replay)))
}

async fn planned(
    admin: &Admin,
    actor: &Actor,
    kind: JobKind,
    filter: &(impl Serialize + Sync),
) -> Result<Replay, Problem> {
    let now = admin.now();
    let id = job_id(kind, filter, &actor.name, now);
    let action = match kind {
        JobKind::Reconcile => AuditAction::ReconcilePlan,
        _ => AuditAction::ImportPlan,
    };
    let statements = vec![
        plan_job(&id, kind, filter, &actor.name, now),
        audit(actor, action, &id, "", &json!({ "filter": filter }), now),
    ];
    admin.execute(statements).await?;
    find(admin, &id).await
}

/// A difference between a table and a provider's API.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Difference {
    /// The table.
    table: String,
    /// The key of the row.
    key: Vec<String>,
    kind: DriftKind,
    /// The id of the object.
    object: String,
    /// The columns that differ.
    columns: Vec<String>,
    state: DriftState,
}

/// `?1` the id, `?2` and `?3` the table and the key after which the page begins.
const DRIFTS: &str = "\
-- differences of a reconciliation
SELECT json_object('table', table_name, 'key', json(key), 'kind', drifts.kind, 'object', object, 'columns', json(columns),
    'state', drifts.state)
FROM drifts WHERE generation = (SELECT generation FROM replays WHERE id = ?1)
    AND (?2 IS NULL OR (table_name, key) > (?2, ?3)) ORDER BY table_name, key LIMIT ?4";

/// List the differences that a reconciliation found, by table and key.
#[utoipa::path(
    get, path = "/replays/{id}/drifts", tag = "replays",
    params(("id" = String, Path, description = "The id"), Paging),
    responses((status = 200, body = Page<Difference>), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn drifts(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Difference>>, Problem> {
    find(&admin, &id).await?;
    let (_, after) = paging.after()?;
    // The table and the key, which is an array.
    let after = after.as_deref().and_then(|after| after.split_once(' '));
    let (table, key) = after.unzip();
    let found = admin.ask(DRIFTS, params![id, table, key, paging.limit()?]).await?;
    let position = |drift: &Difference| {
        let key = serde_json::to_string(&drift.key).unwrap_or_default();
        (0, format!("{} {key}", drift.table))
    };
    Ok(Json(paging.page(found, position)?))
}

/// The lists of a source whose objects some rule keeps; none if the API runs on a data folder without a configuration.
fn lists(admin: &Admin, source: &str) -> Result<Option<Vec<String>>, Problem> {
    let Some(config) = admin.0.config() else { return Ok(None) };
    let Configuration { mut imports, .. } = serde_json::from_str(&config.overview)
        .map_err(|error| Problem::broken(&error.to_string()))?;
    let lists = imports.remove(source).ok_or_else(|| {
        let with: Vec<_> = imports.into_keys().collect();
        let with = if with.is_empty() { "no source has one".to_owned() } else { with.join(", ") };
        Problem::invalid(format!(
            "the source `{source}` has no API: add [sources.{source}.api] to hookmill.toml (with an API: {with})"
        ))
    })?;
    Ok(Some(lists))
}
