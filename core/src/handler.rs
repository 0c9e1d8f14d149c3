//! Code, where rules end: a [`Handler`] says what an event comes to, and a rule of hookmill.toml what becomes of that.

use serde_json::Value;
use thiserror::Error;

use crate::rules::EventFacts;

/// A verified event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'e> {
    /// What is known of it besides its body.
    pub facts: EventFacts<'e>,
    /// Its body, as the provider sent it.
    pub body: &'e [u8],
}

/// What rules cannot say of an event. A rule names it (`handler = "…"`), and its paths are then those of the values that the
/// handler returns. So whatever a rule does, a handler can do, checked against the schema and applied once and in any order.
///
/// It is pure: it has no clock, asks nobody and keeps nothing. The same event may be handled several times, in any order among
/// others and by several processes, and has to come to the same each time.
pub trait Handler: Sync {
    /// What the event comes to: the rule is carried out for each value, as if that were the body. None of them: it does nothing.
    ///
    /// # Errors
    ///
    /// [`Unhandled`] makes the event a dead letter, which can be replayed when the code has been mended.
    fn handle(&self, event: &Event<'_>) -> Result<Vec<Value>, Unhandled>;
}

/// Why an event cannot be handled: a sentence that tells nothing of the body, since it is kept and shown.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{0}")]
pub struct Unhandled(pub String);
