//! What could not be applied, kept where it can be seen, understood and replayed.
//!
//! [`bury()`] is pure: dead letters in, statements out. The consumers write them before they acknowledge a delivery;
//! [`drain()`] writes those that the platform gave up on without our verdict.

mod bury;
mod drain;

pub use bury::{Letter, Reason, bury};
pub use drain::drain;
