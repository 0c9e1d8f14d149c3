//! The outbox: messages that rules have written, and alerts. [`state`] has the statements, and `send` executes them.

mod compose;
mod draft;
mod send;
pub mod state;

pub(crate) use send::usable;
pub use send::{ChannelError, OutboxChannel, Round, Sent, resume, rounds, stranded};
