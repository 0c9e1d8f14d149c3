//! The admin API: events, errors and replays. One router for both platforms, which implement [`Platform`].
//!
//! All paths begin with `/admin/api/v1`. Requests have a token, or a JWT of Cloudflare Access ([`mod@auth`]). Errors are
//! problem details (<https://www.rfc-editor.org/rfc/rfc9457>), lists have a cursor, and the table `audit` records every
//! change.

// The macros of utoipa qualify more than necessary.
#![allow(unused_qualifications)]

mod access;
mod actor;
mod audit;
pub mod auth;
mod body_view;
mod counts;
mod dashboard;
mod dead_letters;
mod events;
mod imports;
mod outbox;
mod page;
mod platform;
mod problem;
mod replays;
mod stats;

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::actor::Actor;
pub use crate::audit::token_changed;
use crate::platform::Admin;
pub use crate::platform::Platform;
use crate::problem::Problem;
pub use crate::stats::QueueBacklog;

/// The base path of the API.
pub const BASE: &str = "/admin/api/v1";

#[derive(OpenApi)]
#[openapi(
    info(title = "Hookmill", description = "Events, dead letters, replays, the outbox, and operation."),
    tags(
        (name = "events", description = "Events and their results"),
        (name = "dead letters", description = "Events that could not be applied"),
        (name = "replays", description = "Replays of dead letters, reprocessings of applied events, imports of objects, and reconciliations"),
        (name = "outbox", description = "Emails, SMS and tracking events"),
        (name = "operation", description = "The current state, and the audit"),
    ),
    // Only a path parameter names it, which utoipa does not follow.
    components(schemas(replays::ReplayCommand)),
)]
struct Api;

fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(events::list))
        .routes(routes!(events::timeline))
        .routes(routes!(events::body))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::groups))
        .routes(routes!(dead_letters::show))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(dead_letters::discard))
        .routes(routes!(replays::list, replays::plan))
        .routes(routes!(replays::reprocess))
        .routes(routes!(imports::plan))
        .routes(routes!(imports::reconcile))
        .routes(routes!(imports::drifts))
        .routes(routes!(replays::show))
        .routes(routes!(replays::run))
        .routes(routes!(replays::tell))
        .routes(routes!(outbox::list))
        .routes(routes!(outbox::retry))
        .routes(routes!(outbox::suppressions))
        .routes(routes!(outbox::unsuppress))
        .routes(routes!(stats::stats))
        .routes(routes!(counts::counts))
        .routes(routes!(stats::usage))
        .routes(routes!(stats::rejections))
        .routes(routes!(stats::audit))
        .routes(routes!(stats::configuration))
        .routes(routes!(auth::token))
}

/// The OpenAPI 3.1 document of the API.
pub fn document() -> Document {
    let mut document = OpenApiRouter::new().nest(BASE, routes()).into_openapi();
    document.info = Api::openapi().info;
    document.tags = Api::openapi().tags;
    env!("CARGO_PKG_VERSION").clone_into(&mut document.info.version);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    let required =
        utoipa::openapi::security::SecurityRequirement::new::<_, [&str; 0], &str>("token", []);
    document.security = Some(vec![required]);
    document
}

/// The router: everything below [`BASE`], the dashboard at `/admin`, and nothing else. The dashboard's files and the
/// document are public: they contain no data.
pub fn router(platform: Arc<dyn Platform>) -> Router {
    let admin = Admin(platform);
    let (api, _) = routes().split_for_parts();
    let guarded = api.fallback(nothing_here).method_not_allowed_fallback(not_so);
    let guarded = guarded.layer(from_fn_with_state(admin.clone(), auth::guard));
    let text: Arc<str> = document().to_json().unwrap_or_default().into();
    let open = axum::routing::get(move || {
        let text = text.to_string();
        async move { ([(axum::http::header::CONTENT_TYPE, "application/json")], text) }
    });
    let nested = Router::new().nest(BASE, guarded).route(&format!("{BASE}/openapi.json"), open);
    let nested = nested.layer(map_response(private));
    nested.merge(dashboard::routes()).with_state(admin)
}

/// No cache keeps an answer, since it may contain data, and no browser takes it for another type.
async fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The router for a caller with direct access to the data: it needs no token. The audit records this name.
pub fn local(platform: Arc<dyn Platform>, name: &str) -> Router {
    let (api, _) = routes().split_for_parts();
    let api = api.fallback(nothing_here).method_not_allowed_fallback(not_so);
    let api = api.layer(Extension(Actor::local(name)));
    Router::new().nest(BASE, api).with_state(Admin(platform))
}

/// The response for a method that a path does not support.
async fn not_so() -> Problem {
    Problem::method_not_allowed()
}

/// The response for an unknown path.
pub async fn nothing_here() -> Response {
    Problem::not_found("this path does not exist").into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn the_committed_document_is_up_to_date() {
        let committed: Value =
            serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
        let served: Value = serde_json::from_str(&super::document().to_json().unwrap()).unwrap();
        assert!(committed == served, "run: cargo xtask schema");
    }

    #[test]
    fn every_reference_in_the_document_resolves() {
        let document: Value = serde_json::from_str(&super::document().to_json().unwrap()).unwrap();
        let mut open = vec![&document];
        let mut names = 0;
        while let Some(value) = open.pop() {
            open.extend(value.as_array().into_iter().flatten());
            open.extend(value.as_object().into_iter().flat_map(|object| object.values()));
            if let Some(name) = value["$ref"].as_str() {
                names += 1;
                assert!(document.pointer(name.trim_start_matches('#')).is_some(), "{name}");
            }
        }
        assert!(names > 50, "{names}");
    }
}
