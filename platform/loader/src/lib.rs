//! Turns files into a checked configuration.

#[cfg(feature = "bake")]
pub mod bake;
