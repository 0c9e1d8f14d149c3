//! Takes webhooks in: request to message.
//!
//! [`admit()`] is pure: it verifies the raw bytes and names the event. [`serve`] is the shell around it, the same on every
//! platform: it reads the body up to a limit, sends what was admitted to the queue, and answers 2xx only once the queue
//! has every message. It writes nothing else: whether an event has been seen before is for the transaction that applies
//! it to decide. What it refuses is counted in memory ([`Rejections`]).

mod admit;
mod http;
pub mod log;
mod rejections;

pub use admit::{Admission, Gate, admit};
pub use http::{Body, BodyError, Incoming, Platform, Reply, RequestOutcome, serve};
pub use rejections::{REPORT_WINDOW, Recorded, Rejections};
