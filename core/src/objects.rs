//! The object store: bodies that are too large for the queue.

use std::future::Future;

use thiserror::Error;

use crate::limits::MESSAGE_BYTES;
use crate::message::{ClaimCheck, Envelope, encode, encode_claim_check};
use crate::time::Timestamp;

/// The object store is unavailable.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the object store is unavailable: {0}")]
pub struct ObjectError(pub String);

/// Stores bodies by key. [`claim_check_key`] makes the keys, which are safe as file names.
pub trait Objects: Send + Sync {
    /// Returns once the object is durable. Writing the same key again is harmless, since its content is the same.
    fn put(&self, key: &str, body: &[u8]) -> impl Future<Output = Result<(), ObjectError>> + Send;

    /// The object, or `None` if it does not exist.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, ObjectError>> + Send;

    /// Returns once the object is deleted, or if it did not exist.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), ObjectError>> + Send;

    /// The next objects after a key, in the order of their keys, at most [`LISTED`]; empty at the end.
    fn list(
        &self,
        after: &str,
    ) -> impl Future<Output = Result<Vec<StoredObject>, ObjectError>> + Send;
}

/// The text of a message. A body that is too long for a queue is stored, and the text has the claim check for it. So a
/// message that is sent never refers to a missing body.
///
/// # Errors
///
/// If the body is too long, and the store is unavailable.
pub async fn message<O: Objects>(
    objects: &O,
    envelope: &mut Envelope,
    body: &[u8],
) -> Result<String, ObjectError> {
    let text = encode(envelope, body);
    if text.len() <= MESSAGE_BYTES {
        return Ok(text);
    }
    let key = claim_check_key(&envelope.source, &envelope.id, body);
    objects.put(&key, body).await?;
    Ok(encode_claim_check(envelope, ClaimCheck { key, bytes: body.len() }))
}

/// The maximum number of objects that [`Objects::list`] returns.
pub const LISTED: usize = 500;

/// An object of a list.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StoredObject {
    /// Its key.
    pub key: String,
    /// When it was last written.
    pub stored_at: Timestamp,
}

/// The key of an event's body: `{source}/{hex SHA-256 of the event's id, a NUL, and the body}`.
///
/// A provider that sends an event again writes the same object. Two events never share one: the body of the first is
/// removed after that event has taken effect.
pub fn claim_check_key(source: &str, event_id: &str, body: &[u8]) -> String {
    format!("{source}/{}", crate::hash::sha256_hex(&[event_id.as_bytes(), b"\0", body]))
}
