//! Applies events to SQL tables: it takes a batch of deliveries and returns a verdict for each. Also sends the messages of
//! the [`outbox`], sends alerts ([`alert`]), explains the effect of rules on an event ([`explain`]), and fetches objects
//! from providers' APIs when versions are equal ([`refetch`]).
//!
//! ```text
//! decode (pure)  each delivery separately: a message, or unreadable
//! plan   (pure)  rules to rows, rows to statements; duplicates within the batch folded
//! Store::execute one transaction: the ledger, which fails if an event is in it; then rules' statements
//! settle (pure)  the result of each delivery to Ack, Retry or Bury
//! ```
//!
//! [`process_batch()`] connects them, in the same way on every platform. It cannot fail: every delivery gets exactly one
//! verdict, and an error in one delivery does not affect another. Correctness does not require that the queue delivers
//! once, in order, or to one consumer at a time: the ledger's primary key decides, inside the transaction.

pub mod alert;
mod attempts;
mod count;
pub mod counters;
mod decode;
pub mod explain;
pub mod import;
pub mod jobs;
pub mod log;
pub mod missed;
pub mod outbox;
mod plan;
mod process_batch;
mod reconcile;
pub mod refetch;
mod retry;
mod settle;

pub use count::{Count, counts};
pub use plan::plan;
pub use process_batch::{BatchResult, process_batch};
pub use retry::{delay as retry_delay, longest_delay};
pub use settle::{Fate, Settled};
