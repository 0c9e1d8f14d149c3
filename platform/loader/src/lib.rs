//! Turns files into a checked configuration. One [`load()`] serves `hookmill check`, the start of the binary and the build of
//! a Worker.

mod load;
mod templates;
pub mod wrangler;

pub use load::{Faults, LoadError, Loaded, load};
