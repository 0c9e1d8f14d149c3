//! Applies events to SQL tables: a batch of deliveries in, one verdict for each out. And sends what rules have put into the
//! outbox: [`outgoing`]. And tells somebody if something is the matter: [`alert`]. And says what rules make of an event:
//! [`explain`]. And asks providers' APIs for objects where events do not say which is the newer one: [`refetch`].
//!
//! ```text
//! decode (pure)  each delivery separately: a message, or unreadable
//! plan   (pure)  rules to rows, rows to statements; duplicates within the batch folded
//! Store::execute one transaction: the ledger, which fails if an event is in it; then rules' statements
//! settle (pure)  what came of each to Ack, Retry or Bury
//! ```
//!
//! [`process_batch()`] connects them, the same on every platform. It cannot fail: whatever happens, every delivery gets exactly one
//! verdict, and no fault of one delivery reaches another. Correctness does not depend on the queue delivering once, in
//! order, or to one consumer at a time: the ledger's primary key decides, inside the transaction.

pub mod alert;
mod begun;
mod count;
mod decode;
pub mod explain;
pub mod jobs;
pub mod log;
pub mod outbox;
mod plan;
mod process_batch;
pub mod refetch;
mod retry;
mod settle;

pub use count::{Count, counts};
pub use plan::plan;
pub use process_batch::{BatchResult, process_batch};
pub use settle::{Fate, Settled};
