//! Ingress: accepts webhooks and enqueues their events.
//!
//! [`admit()`] is pure: it verifies the raw bytes and identifies the events. [`serve`] runs it on every platform: it checks
//! the headers, reads the body up to a limit, sends the events to the queue, and answers 2xx only once the queue has every message. It writes
//! nothing else: the transaction that applies an event decides whether it is new. [`Rejections`] counts rejected requests
//! in memory.

mod admit;
mod http;
pub mod log;
mod memory;
mod rejections;

pub use admit::{Admission, Gate, admit};
pub use http::{
    Body, BodyError, DecodeError, Incoming, Platform, Reply, RequestOutcome, serve, timed_out,
};
pub use rejections::{REPORT_WINDOW, Recorded, Rejections};
