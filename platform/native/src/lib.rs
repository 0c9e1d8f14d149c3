//! Hookmill's ports on one machine. The adapters convert and execute, and decide nothing.
//!
//! | Port | Here |
//! | --- | --- |
//! | store | [`Sqlite`]: `data.db` |
//! | queue | [`SqliteQueue`]: `queue.db`, a separate file, so that ingress does not wait for the consumers' transactions |
//! | objects | [`Files`]: the folder `bodies` |
//! | rate limits | [`RateLimits`], in memory |
//! | HTTP | [`http`], and [`HttpClient`] for providers' APIs |
//! | metrics | [`Metrics`] |
//!
//! All data is in one folder, [`DataFolder`], which one process locks at a time. Commands read it with a [`Reader`].

mod checkpoint;
pub mod decode;
mod durable;
mod fetch;
mod files;
mod folder;
pub mod http;
mod metrics;
pub mod private;
mod queue;
mod rate_limits;
mod reader;
mod smtp;
mod sqlite;

pub use fetch::HttpClient;
pub use files::{Bodies, Files};
pub use folder::{DataFolder, FolderError, Opened};
pub use metrics::{Metrics, StatusMetrics};
pub use queue::{QueueName, QueueSender, Received, SqliteQueue, queue_backlogs};
pub use rate_limits::RateLimits;
pub use reader::Reader;
pub use sqlite::{Sqlite, plan_once, rows, transaction};

use hookmill_core::time::Timestamp;

/// The time, from the system's clock.
pub fn now() -> Timestamp {
    timestamp(std::time::SystemTime::now())
}

fn timestamp(time: std::time::SystemTime) -> Timestamp {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
