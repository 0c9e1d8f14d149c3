//! The HTTP port: a request to a provider's API.

use std::future::Future;

use thiserror::Error;

use crate::outbound::{ApiRequest, ApiResponse};
use crate::secret::Secret;

/// A request failed without a response.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum FetchError {
    /// The request has not gone out: there was no connection.
    #[error("no connection: {0}")]
    NotSent(String),
    /// The request may have arrived.
    #[error("no response: {0}")]
    NoAnswer(String),
}

/// Asks an API.
pub trait Fetch: Send + Sync {
    /// The answer, whatever its status. The key goes with it as the request says. Ends in a bounded time.
    fn ask(
        &self,
        request: ApiRequest,
        key: &Secret,
    ) -> impl Future<Output = Result<ApiResponse, FetchError>> + Send;
}
