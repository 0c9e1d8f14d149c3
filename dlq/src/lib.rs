//! What could not be applied, kept where it can be seen, understood and replayed.
//!
//! [`bury()`] is pure: dead letters in, statements out. The consumers write them before they acknowledge a delivery;
//! [`drain()`] writes those that the platform gave up on without our verdict.
//!
//! [`replay`] sends letters through the whole path again, and [`reprocess`] events that have taken effect.
//!
//! [`recover()`] sends again what a database that has gone back in time takes to be sent.
//!
//! [`sweep()`] removes what is old, and bodies that no row refers to any more. [`status()`] asks how things stand.
//!
//! What never became an event is kept as well, counted and sampled: [`record_rejections()`] makes statements of a report.

mod bodies;
mod bury;
mod drain;
pub mod jobs;
mod recover;
mod rejections;
pub mod replay;
pub mod reprocess;
mod status;
mod sweep;

pub use bodies::{Unreferenced, unreferenced};
pub use bury::{Letter, bury};
pub use drain::{DRAIN_RETRY, drain, drained};
pub use recover::recover;
pub use rejections::{SAMPLES_KEPT, record_rejections};
pub use status::{PipelineStatus, read_status, status};
pub use sweep::{Swept, sweep};
