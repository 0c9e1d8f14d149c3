//! Errors, as problem details: <https://www.rfc-editor.org/rfc/rfc9457>.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hookmill_dlq::replay::FilterError;
use serde::Serialize;
use utoipa::ToSchema;

/// An error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// The status code.
    status: u16,
    /// A short summary, the same for all problems of this kind.
    title: &'static str,
    /// The cause, and the fix.
    detail: String,
    /// Seconds until the client may retry.
    #[serde(skip)]
    retry_after: Option<u64>,
}

/// An invalid filter.
impl From<FilterError> for Problem {
    fn from(error: FilterError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl Problem {
    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status: status.as_u16(), title, detail: detail.into(), retry_after: None }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid request", detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", detail)
    }

    pub(crate) fn method_not_allowed() -> Self {
        let detail =
            "this path does not support the method; the header `Allow` lists the supported ones";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail)
    }

    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict: wrong state", detail)
    }

    pub(crate) fn unauthorized() -> Self {
        let detail = "send `Authorization: Bearer …`; `hookmill token create` creates a token";
        Self::new(StatusCode::UNAUTHORIZED, "Missing or invalid token", detail)
    }

    pub(crate) fn forbidden() -> Self {
        let detail = "this token can only read; use one with the role `operate`";
        Self::new(StatusCode::FORBIDDEN, "Forbidden", detail)
    }

    pub(crate) fn too_many(seconds: u64) -> Self {
        let title = "Too many failed attempts";
        let detail = format!("try again in {seconds} seconds");
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, title, detail);
        Self { retry_after: Some(seconds), ..problem }
    }

    pub(crate) fn unavailable(detail: &str) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "Temporarily unavailable", detail);
        Self { retry_after: Some(5), ..problem }
    }

    pub(crate) fn too_slow() -> Self {
        let detail = "the query took too long; ask for less: a smaller `limit`, one `source`, a `type` without `*`, one `state`";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Query too slow", detail)
    }

    pub(crate) fn broken(detail: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_string(&self).unwrap_or_default();
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::not_found(rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let detail = rejection.body_text();
        Self { status: rejection.status().as_u16(), ..Self::invalid(detail) }
    }
}

/// The query, or the problem with it.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(crate) struct Query<T>(pub(crate) T);

/// The parts of the path, or the problem with them.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(crate) struct Path<T>(pub(crate) T);

/// A JSON body, or the problem with it.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(crate) struct Body<T>(pub(crate) T);
