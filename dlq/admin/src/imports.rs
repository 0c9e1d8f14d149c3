//! Imports of objects from providers' APIs: plan. They run and change like replays.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use hookmill_core::words::AuditAction;
use hookmill_dlq::import::{ImportFilter, import_id, plan_import};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::audit::audit;
use crate::platform::Admin;
use crate::problem::{Body, Problem};
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
    let (filter, now) = (ImportFilter { source, only, account }, admin.now());
    filter.check()?;
    let lists = lists(&admin, &filter)?;
    let id = import_id(&filter, &actor.name, now);
    let detail = json!({ "filter": filter });
    let statements = vec![
        plan_import(&id, &filter, &actor.name, now),
        audit(&actor, AuditAction::ImportPlan, &id, "", &detail, now),
    ];
    admin.execute(statements).await?;
    let replay = find(&admin, &id).await?;
    Ok((StatusCode::CREATED, Json(ImportPlan { replay, lists })))
}

/// The lists that an import reads.
fn lists(admin: &Admin, filter: &ImportFilter) -> Result<Vec<String>, Problem> {
    let Some(config) = admin.0.config() else { return Ok(Vec::new()) };
    let Configuration { mut imports, .. } = serde_json::from_str(&config.overview)
        .map_err(|error| Problem::broken(&error.to_string()))?;
    let source = &filter.source;
    let Some(lists) = imports.remove(source) else {
        let with: Vec<_> = imports.into_keys().collect();
        let with = if with.is_empty() { "no source has one".to_owned() } else { with.join(", ") };
        return Err(Problem::invalid(format!(
            "the source `{source}` has no API: add [sources.{source}.api] to hookmill.toml (with an API: {with})"
        )));
    };
    filter.select(lists).map_err(Problem::invalid)
}
