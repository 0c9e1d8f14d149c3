//! Dead letters: events that could not be applied, stored so that operators can see and replay them.
//!
//! [`bury()`] is pure: dead letters in, statements out. The consumers write them before they acknowledge a delivery;
//! [`drain()`] writes those that the platform gave up without a verdict.
//!
//! [`replay`] sends letters through the whole path again, and [`reprocess`] events that have taken effect.
//!
//! [`recover()`] prepares a restored database: it sends again what the ledger does not prove.
//!
//! [`sweep()`] removes old rows, and bodies that no row refers to; [`unsent`] removes those whose message no queue accepted.
//! [`status()`] asks for the pipeline's status.
//!
//! [`kinds`] finds rows of a rare kind without an index of all rows by kind.
//!
//! Rejected requests are counted and sampled: [`record_rejections()`] returns the statements for a report.

mod bodies;
mod bury;
mod drain;
pub mod import;
pub mod jobs;
pub mod kinds;
pub mod reconcile;
mod recover;
mod rejections;
pub mod replay;
pub mod reprocess;
mod status;
mod sweep;
pub mod unsent;

pub use bodies::{Unreferenced, unreferenced};
pub use bury::{Letter, bury};
pub use drain::{DRAIN_RETRY, drain, drained};
pub use recover::recover;
pub use rejections::{SAMPLES_KEPT, record_rejections};
pub use status::{DriftStatus, PipelineStatus, SweepStatus, read_status, status};
pub use sweep::{Swept, sweep};
