//! The sending side of a queue. The receiving side is not a port: batches arrive differently on each platform, and what
//! they share is data ([`crate::delivery`]).

use std::future::Future;

use thiserror::Error;

/// The queue failed: it did not accept all messages, deliver any, or apply a verdict.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the queue failed: {0}")]
pub struct QueueError(pub String);

/// Accepts messages.
pub trait Queue: Send + Sync {
    /// Returns once every message is durable.
    ///
    /// After an error, some messages may have been accepted. The sender answers 503, the provider sends again, and the
    /// ledger rejects the duplicates.
    fn send(&self, messages: Vec<String>) -> impl Future<Output = Result<(), QueueError>> + Send;
}
