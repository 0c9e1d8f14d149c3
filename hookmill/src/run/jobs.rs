//! The native runner of background jobs.

use std::sync::Arc;
use std::time::Duration;

use hookmill_core::job::{Job, Step, failed};
use hookmill_native::{Metrics, now};
use tokio::sync::{Notify, watch};

use crate::run::log;
use crate::run::tasks::Tasks;

/// The minimum delay after the store failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs jobs until the process stops.
#[derive(Clone)]
pub struct Runner {
    pub metrics: Metrics,
    /// Wakes the jobs that send.
    pub outbox: Arc<Notify>,
    pub stopped: watch::Receiver<bool>,
}

impl Runner {
    /// Runs a job when work is due, when `wake` is notified, and at least once in its interval.
    pub async fn run<J: Job>(mut self, job: Arc<J>, wake: Arc<Notify>) {
        while !*self.stopped.borrow() {
            // Registered before the step, so that a signal during the step is not missed.
            let woken = wake.notified();
            let wait = match job.step(now).await {
                Ok(step) => self.report(step).map_or(J::INTERVAL, |wait| wait.min(J::INTERVAL)),
                Err(error) => {
                    log::write(&failed(J::NAME, error));
                    PAUSE.max(J::INTERVAL / 4)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = woken => {}
                _ = self.stopped.wait_for(|stopped| *stopped) => {}
            }
        }
    }

    /// Starts a job as a background task with this name.
    pub fn start<J: Job + 'static>(
        &self,
        tasks: &mut Tasks,
        name: String,
        job: J,
        wake: Arc<Notify>,
    ) {
        let (runner, job) = (self.clone(), Arc::new(job));
        tasks.start(name, move || runner.clone().run(job.clone(), wake.clone()));
    }

    /// Logs a step. Returns the delay until the next one, if work is known.
    fn report(&self, Step { next, log, outbox, writes_outbox }: Step) -> Option<Duration> {
        log.iter().for_each(log::write);
        for counted in outbox {
            let count = counted.count as u64;
            self.metrics.count_outgoing(counted.channel, &counted.state, count);
        }
        if writes_outbox {
            self.outbox.notify_waiters();
        }
        next.map(|next| next - now())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hookmill_core::store::StoreError;
    use hookmill_core::time::Timestamp;

    use super::*;

    /// Fails at first, then has no work.
    #[derive(Clone, Default)]
    struct Counting(Arc<AtomicUsize>, Arc<Notify>);

    impl Job for Counting {
        const NAME: &'static str = "counting";
        const INTERVAL: Duration = Duration::from_secs(3600);

        async fn step(&self, _: fn() -> Timestamp) -> Result<Step, StoreError> {
            let steps = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            self.1.notify_one();
            match steps {
                1 => Err(StoreError::Unavailable("away".into())),
                _ => Ok(Step { writes_outbox: true, ..Step::default() }),
            }
        }
    }

    #[tokio::test]
    async fn a_job_continues_after_a_failure_when_woken_and_ends_with_the_process() {
        let (stop, stopped) = watch::channel(false);
        let outbox = Arc::new(Notify::new());
        let runner = Runner { metrics: Metrics::default(), outbox: outbox.clone(), stopped };
        let (job, wake) = (Counting::default(), Arc::new(Notify::new()));
        let written = outbox.notified();
        let running = tokio::spawn(runner.run(Arc::new(job.clone()), wake.clone()));
        job.1.notified().await;
        // Its next step is due in minutes.
        wake.notify_one();
        job.1.notified().await;
        written.await;
        assert_eq!(job.0.load(Ordering::Relaxed), 2);
        stop.send_replace(true);
        running.await.unwrap();
    }
}
