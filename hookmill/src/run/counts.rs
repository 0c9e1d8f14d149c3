//! Keeps the counts of what events have and lack.

use std::sync::Arc;

use hookmill_config::Consumers;
use hookmill_consumers::BatchResult;
use hookmill_consumers::counters::{Counters, VersionCount, WINDOW};
use hookmill_native::{Metrics, Sqlite, now};
use tokio::sync::{Notify, watch};
use tracing::error;

use crate::run::log;
use crate::run::tasks::Tasks;

/// The counts of this process, and where they go.
#[derive(Clone)]
pub struct Counts {
    counters: Arc<Counters>,
    /// Notified when there are counts.
    added: Arc<Notify>,
    store: Sqlite,
    config: Consumers,
    metrics: Metrics,
}

impl Counts {
    /// Starts the task that writes them.
    pub fn start(
        tasks: &mut Tasks,
        (store, config, metrics): (&Sqlite, &Consumers, &Metrics),
        stopped: &watch::Receiver<bool>,
    ) -> Self {
        let (store, config, metrics) = (store.clone(), config.clone(), metrics.clone());
        let counts =
            Self { counters: Arc::default(), added: Arc::default(), store, config, metrics };
        let (kept, stopped) = (counts.clone(), stopped.clone());
        tasks.start("counts", move || kept.clone().keep(stopped.clone()));
        counts
    }

    /// Adds those of a batch.
    pub fn add(&self, batch: &BatchResult) {
        self.counters.add(&self.config, batch).iter().for_each(log::write);
        self.added.notify_one();
    }

    /// Writes them after the first batch, and then once a minute, until the process stops.
    async fn keep(self, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = self.added.notified() => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            self.write().await;
            tokio::select! {
                () = tokio::time::sleep(WINDOW) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    /// Writes them now.
    pub async fn write(&self) {
        let counts = match self.counters.write(&self.store, &self.config, now()).await {
            Ok(counts) => counts,
            Err(error) => {
                error!(%error, "cannot write the counts of rows and API versions; will retry in a minute");
                return self.added.notify_one();
            }
        };
        for (rule, value, rows) in counts.rows.by_name(&self.config.program) {
            match value {
                None => self.metrics.count_rows(rule, rows),
                Some(value) => self.metrics.count_absent(rule, value, rows),
            }
        }
        for VersionCount { source, version, expected, events } in counts.versions(&self.config) {
            self.metrics.count_versions(source, version, expected, events);
        }
    }
}
