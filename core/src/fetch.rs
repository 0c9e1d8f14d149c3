//! The HTTP port: a request to a provider's API.

use std::future::Future;

use thiserror::Error;

use crate::outbound::{ApiRequest, ApiResponse};
use crate::secret::Secret;

/// A request failed without a response.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum FetchError {
    /// The request was not sent: there was no connection.
    #[error("no connection: {0}")]
    NotSent(String),
    /// The request may have arrived.
    #[error("no response: {0}")]
    NoAnswer(String),
}

/// Sends requests to an API.
pub trait Fetch: Send + Sync {
    /// Sends a request with the key. Returns the response, whatever its status, in a bounded time.
    fn ask(
        &self,
        request: ApiRequest,
        key: &Secret,
    ) -> impl Future<Output = Result<ApiResponse, FetchError>> + Send;
}
