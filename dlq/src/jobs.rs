//! The background jobs of this stage: replays, the retention sweep, and the search for bodies without messages.

use std::time::Duration;

use hookmill_config::Retention;
use hookmill_core::job::{Job, Step};
use hookmill_core::log::{Entry, Fields};
use hookmill_core::objects::Objects;
use hookmill_core::queue::Queue;
use hookmill_core::store::{Store, StoreError};
use hookmill_core::time::Timestamp;

use crate::replay::{Stepped, step};
use crate::sweep::{Swept, sweep};
use crate::unsent::{Searched, remove_unsent};

/// The delay before a sweep continues, so that other transactions come between.
const NEXT_SWEEP: Duration = Duration::from_millis(100);

/// Sends the letters and events of replays.
#[derive(Debug)]
pub struct RunReplays<S, Q> {
    /// The store.
    pub store: S,
    /// The queue of replays.
    pub queue: Q,
}

impl<S: Store, Q: Queue> Job for RunReplays<S, Q> {
    const NAME: &'static str = "replay";
    const INTERVAL: Duration = Duration::from_secs(2);

    async fn step(&self, now: fn() -> Timestamp) -> Result<Step, StoreError> {
        let Stepped { sent, error, next } = step(&self.store, &self.queue, now).await?;
        let sent = sent.map(|(id, count)| {
            let (id, count) = (Some(id), Some(count.to_string()));
            Entry::debug("replayed", Fields { id, count, ..Fields::default() })
        });
        let failed = error.map(|error| {
            let fields = Fields { error: Some(error), ..Fields::default() };
            Entry::warn("the queue did not accept a replay, will retry", fields)
        });
        Ok(Step { next, log: sent.into_iter().chain(failed).collect(), ..Step::default() })
    }
}

/// Removes old rows and their bodies.
#[derive(Debug)]
pub struct SweepOld<S, O> {
    /// The store.
    pub store: S,
    /// The bodies.
    pub objects: O,
    /// The retention periods.
    pub retention: Retention,
}

impl<S: Store, O: Objects> Job for SweepOld<S, O> {
    const NAME: &'static str = "sweep";
    const INTERVAL: Duration = Duration::from_secs(60);

    async fn step(&self, now: fn() -> Timestamp) -> Result<Step, StoreError> {
        let swept = sweep(&self.store, &self.objects, &self.retention, now()).await?;
        let Swept { removed, unseen, more } = swept;
        let removed = removed.into_iter().map(|(kind, count)| {
            let (kind, count) = (Some(kind.to_owned()), Some(count.to_string()));
            Entry::debug("removed old rows", Fields { kind, count, ..Fields::default() })
        });
        let mut log: Vec<_> = removed.collect();
        if unseen > 0 {
            let fields = Fields { count: Some(unseen.to_string()), ..Fields::default() };
            let message = "removed old dead letters that were neither replayed nor discarded";
            log.push(Entry::warn(message, fields));
        }
        Ok(Step { next: more.then(|| now() + NEXT_SWEEP), log, ..Step::default() })
    }
}

/// Removes bodies whose messages no queue has accepted.
#[derive(Debug)]
pub struct RemoveUnsent<S, O, Q> {
    /// The store.
    pub store: S,
    /// The bodies.
    pub objects: O,
    /// The queue of events.
    pub queue: Q,
}

impl<S: Store, O: Objects, Q: Queue> Job for RemoveUnsent<S, O, Q> {
    const NAME: &'static str = "unsent bodies";
    const INTERVAL: Duration = Duration::from_secs(60);

    async fn step(&self, now: fn() -> Timestamp) -> Result<Step, StoreError> {
        let Self { store, objects, queue } = self;
        let Searched { removed, next } = remove_unsent(store, objects, queue, now()).await?;
        let log = (removed > 0).then(|| {
            let fields = Fields { count: Some(removed.to_string()), ..Fields::default() };
            Entry::warn(
                "removed bodies that belong to no message; the queue did not accept them, and the provider did not send them again",
                fields,
            )
        });
        Ok(Step { next, log: log.into_iter().collect(), ..Step::default() })
    }
}
