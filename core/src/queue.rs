//! The sending side of a queue, and its length. The receiving side is not a port: batches arrive differently on each platform, and what
//! they share is data ([`crate::delivery`]).

use std::future::Future;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::time::Timestamp;

/// The queue failed: it did not accept all messages, deliver any, or apply a verdict.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the queue failed: {0}")]
pub struct QueueError(pub String);

/// The messages that are on a queue: those without a verdict, and those that wait for a retry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Backlog {
    /// Their number.
    pub messages: u64,
    /// When the oldest was sent.
    pub oldest: Option<Timestamp>,
}

/// Accepts messages.
pub trait Queue: Send + Sync {
    /// Returns once every message is durable.
    ///
    /// After an error, some messages may have been accepted. The sender answers 503, the provider sends again, and the
    /// ledger rejects the duplicates.
    fn send(&self, messages: Vec<String>) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// The messages that are on the queue now.
    fn backlog(&self) -> impl Future<Output = Result<Backlog, QueueError>> + Send;
}
