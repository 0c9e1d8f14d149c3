//! The object store: bodies too long for the queue.

use std::future::Future;

use thiserror::Error;

/// The object store cannot do it now.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the object store is unavailable: {0}")]
pub struct ObjectError(pub String);

/// Keeps bodies by key. Keys are made by [`claim_check_key`] and safe as file names.
pub trait Objects: Send + Sync {
    /// Returns once the object is durable. Writing the same key again is harmless: its content is the same.
    fn put(&self, key: &str, body: &[u8]) -> impl Future<Output = Result<(), ObjectError>> + Send;

    /// The object, or `None` if there is none.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, ObjectError>> + Send;

    /// Returns once the object is gone; it need not have been there.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), ObjectError>> + Send;
}

/// The key of a body: `{source}/{hex SHA-256}`. A provider that sends again writes the same object again.
pub fn claim_check_key(source: &str, body: &[u8]) -> String {
    format!("{source}/{}", crate::hash::sha256_hex(body))
}
