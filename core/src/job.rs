//! Background jobs. A job does a step of its work when its runner calls it, and reports the result. Each platform has one runner,
//! which decides when the next step comes, and writes the log and the metrics.

use std::future::Future;
use std::time::Duration;

use crate::log::{Entry, Fields};
use crate::store::StoreError;
use crate::time::Timestamp;

/// Work in the background.
pub trait Job: Send + Sync {
    /// Its name in the log.
    const NAME: &'static str;
    /// The longest time between two steps.
    const INTERVAL: Duration;

    /// Does some of the work that is due.
    ///
    /// # Errors
    ///
    /// If the store fails. The step is repeated later, so repeating it must be harmless.
    fn step(&self, now: fn() -> Timestamp)
    -> impl Future<Output = Result<Step, StoreError>> + Send;
}

/// The result of a step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// When more work is due; none if no work is known.
    pub next: Option<Timestamp>,
    /// Lines for the log.
    pub log: Vec<Entry>,
    /// Counts for the metric of messages in the outbox.
    pub outbox: Vec<OutboxCount>,
    /// Whether it has written to the outbox, so that sending is due.
    pub writes_outbox: bool,
}

/// The log line about a job whose step failed, or that cannot run.
pub fn failed(job: &str, error: impl ToString) -> Entry {
    let (job, error) = (Some(job.to_owned()), Some(error.to_string()));
    Entry::error("a background job failed, will retry", Fields { job, error, ..Fields::default() })
}

/// The number of messages of a channel that reached a state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxCount {
    /// The channel.
    pub channel: &'static str,
    /// The state, as in the outbox.
    pub state: String,
    /// The number.
    pub count: usize,
}
