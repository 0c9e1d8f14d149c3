//! The runner of background jobs in a Worker: a few steps in one invocation. A message or the cron trigger wakes the Worker
//! for the rest.

use std::time::Duration;

use hookmill_core::delivery::WAKE;
use hookmill_core::job::{Job, failed};
use hookmill_core::log::{Entry, Fields};
use hookmill_core::time::Timestamp;
use worker::{Delay, Env};

use crate::{CloudflareQueue, Metrics, log, now};

/// The maximum time that an invocation waits for the next step.
const WAIT: Duration = Duration::from_secs(5);
/// Work that is due later than this is left to the cron trigger, which fires every minute.
const SOON: Duration = Duration::from_secs(60);

/// Runs steps of these jobs until no work is due soon, at most `steps` in total. Then it asks the queue of this binding to
/// wake the Worker; without a queue, the rest is left to the cron trigger.
pub async fn run<J: Job>(env: &Env, jobs: &[J], steps: usize, queue: Option<&str>) {
    let mut metrics = Metrics::new(env, "METRICS");
    let mut done = 0;
    loop {
        let mut next: Option<Timestamp> = None;
        for job in jobs {
            done += 1;
            match job.step(now).await {
                Ok(step) => {
                    step.log.iter().for_each(log);
                    for counted in &step.outbox {
                        let count = u32::try_from(counted.count).unwrap_or(u32::MAX);
                        metrics.count("outgoing", [counted.channel, &counted.state], count);
                    }
                    next = next.into_iter().chain(step.next).min();
                }
                // The cron trigger tries again.
                Err(error) => return log(&failed(J::NAME, error)),
            }
        }
        let Some(next) = next else { return };
        let wait = next - now();
        // Another pass is a step of each job.
        if done + jobs.len() > steps || wait > WAIT {
            if let Some(queue) = queue {
                wake(env, queue, wait).await;
            }
            return;
        }
        Delay::from(wait).await;
    }
}

/// Asks a queue to wake a Worker after this time, unless the cron trigger fires before.
pub async fn wake(env: &Env, queue: &str, delay: Duration) {
    if delay > SOON {
        return;
    }
    let sent = match CloudflareQueue::new(env, queue) {
        Ok(queue) => queue.send_later(WAKE, delay).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        let error = Some(format!("{queue}: {error}"));
        let fields = Fields { error, ..Fields::default() };
        log(&Entry::warn("cannot wake the Worker before the cron trigger does", fields));
    }
}
