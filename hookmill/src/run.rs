//! The pipeline in one process: `dev` and `serve` start it, `pipeline` runs all stages, and the other modules support it.

pub mod admin;
pub mod counts;
#[cfg(unix)]
pub mod descriptors;
pub mod dev;
pub mod display;
pub mod jobs;
pub mod log;
pub mod out;
pub mod pipeline;
pub mod secrets;
pub mod serve;
pub mod tasks;
