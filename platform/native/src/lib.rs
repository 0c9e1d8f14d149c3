//! Hookmill's ports on one machine. Adapters: they convert and carry out, and decide nothing.
//!
//! | Port | Here |
//! | --- | --- |
//! | store | [`Sqlite`]: `data.db` |
//! | queue | [`SqliteQueue`]: `queue.db`, a file of its own, so that taking in does not wait for applying |
//! | objects | [`Files`]: the folder `bodies` |
//! | rate limits | [`RateLimits`], in memory |
//! | HTTP | [`http`], and [`HttpClient`] for providers' APIs |
//! | metrics | [`Metrics`] |
//!
//! All of it lies in one folder, [`DataFolder`], which one process has at a time. Commands look at it with a [`Reader`].

mod checkpoint;
mod durable;
mod fetch;
mod files;
mod folder;
pub mod http;
mod metrics;
mod queue;
mod rate_limits;
mod reader;
mod smtp;
mod sqlite;

pub use fetch::HttpClient;
pub use files::{Bodies, Files};
pub use folder::{DataFolder, FolderError, Opened};
pub use metrics::{Metrics, StatusMetrics};
pub use queue::{Leased, QueueName, QueueSender, SqliteQueue};
pub use rate_limits::RateLimits;
pub use reader::Reader;
pub use sqlite::{Sqlite, rows, transaction};

use hookmill_core::time::Timestamp;

/// The time, from the system's clock.
pub fn now() -> Timestamp {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
