//! The sending side of a queue. The receiving side is not a port: batches arrive differently on each platform, and what
//! they share is data ([`crate::delivery`]).

use std::future::Future;

use thiserror::Error;

/// The queue did not do what it was asked to: it did not take all messages, hand any over, or carry out a verdict.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the queue failed: {0}")]
pub struct QueueError(pub String);

/// Takes messages.
pub trait Queue: Send + Sync {
    /// Returns once every message is durable.
    ///
    /// On an error some may have been taken: the sender answers 503, the provider sends again, and the ledger tells.
    fn send(&self, messages: Vec<String>) -> impl Future<Output = Result<(), QueueError>> + Send;
}
