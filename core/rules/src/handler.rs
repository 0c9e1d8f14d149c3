//! The interface for code beyond rules: a [`Handler`] turns an event into values, and a rule of hookmill.toml applies them.

use serde_json::Value;
use thiserror::Error;

use crate::EventFacts;

/// A verified event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'e> {
    /// What is known of it besides its body: source, id, type and time.
    pub facts: EventFacts<'e>,
    /// Its body, as the provider sent it.
    pub body: &'e [u8],
}

/// Code for events that rules cannot describe. A rule names it (`handler = "…"`), and then the rule's paths refer to the
/// values that the handler returns. So a handler can do everything that a rule can, checked against the schema, applied
/// once and in any order.
///
/// It is pure: no clock, no requests, no state. The same event may be handled several times, in any order and by several
/// processes, and must produce the same values each time.
pub trait Handler: Sync {
    /// The values of the event. The rule is applied to each as if it were the body; without values, the rule does nothing.
    ///
    /// # Errors
    ///
    /// [`Unhandled`] makes the event a dead letter, which can be replayed after the code is fixed.
    fn handle(&self, event: &Event<'_>) -> Result<Vec<Value>, Unhandled>;

    /// The members of its values, so that `hookmill check` can warn about paths that begin with another. Empty: unknown.
    fn fields(&self) -> &'static [&'static str] {
        &[]
    }
}

/// Why an event cannot be handled: a sentence without parts of the body, since it is stored and displayed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{0}")]
pub struct Unhandled(pub String);
