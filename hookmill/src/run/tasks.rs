//! Supervises the background tasks: a task that ends is reported and started again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookmill_native::Metrics;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::error;

/// The delay before a task is started again: the first, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// The time that a task runs before it counts as healthy again.
const STEADY: Duration = Duration::from_secs(10);

/// The background tasks of a process.
pub struct Tasks {
    running: JoinSet<()>,
    health: TaskHealth,
    metrics: Metrics,
    stopped: watch::Receiver<bool>,
}

/// Tells which tasks have ended lately.
#[derive(Clone, Default)]
pub struct TaskHealth {
    /// By name: until when the task counts as failing.
    failing: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl TaskHealth {
    /// A sentence for each task that has ended and has not run steadily since.
    pub fn problems(&self) -> Vec<String> {
        let now = Instant::now();
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.retain(|_, until| *until > now);
        let sentence =
            |name: &String| format!("the background task `{name}` has ended; the log says why");
        failing.keys().map(sentence).collect()
    }

    fn failed(&self, name: &str, until: Instant) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.insert(name.to_owned(), until);
    }
}

impl Tasks {
    pub fn new(metrics: Metrics, stopped: watch::Receiver<bool>) -> Self {
        Self { running: JoinSet::new(), health: TaskHealth::default(), metrics, stopped }
    }

    pub fn health(&self) -> TaskHealth {
        self.health.clone()
    }

    /// Runs a task until the process stops. `task` starts it, and starts it again after it has ended.
    pub fn start<F>(&mut self, name: impl Into<String>, task: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (name, health) = (name.into(), self.health.clone());
        let (metrics, mut stopped) = (self.metrics.clone(), self.stopped.clone());
        self.running.spawn(async move {
            let mut delay = FIRST;
            loop {
                let started = Instant::now();
                let ended = tokio::spawn(task()).await;
                if *stopped.borrow() {
                    return;
                }
                if started.elapsed() >= LONGEST {
                    delay = FIRST;
                }
                let how = if ended.is_err() { "panicked" } else { "ended" };
                error!(task = name, delay = ?delay, "a background task {how}; it is started again after the delay");
                metrics.count_task_restart(&name);
                health.failed(&name, Instant::now() + delay + STEADY);
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    _ = stopped.wait_for(|stopped| *stopped) => return,
                }
                delay = (delay * 2).min(LONGEST);
            }
        });
    }

    /// Waits until all tasks have ended; the process is stopping.
    pub async fn ended(mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Logs panics without their messages, which may quote data. A literal cannot.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload().downcast_ref::<&'static str>().copied();
        let place = panic.location().map(ToString::to_string);
        error!(place, message, "panicked");
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// Time passes only while nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_or_ends_is_reported_and_started_again() {
        let (stop, stopped) = watch::channel(false);
        let metrics = Metrics::default();
        let mut tasks = Tasks::new(metrics.clone(), stopped.clone());
        let health = tasks.health();
        let (runs, steady) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, running) = (runs.clone(), steady.clone());
        tasks.start("flaky", move || {
            let (run, running) = (counted.fetch_add(1, Ordering::Relaxed), running.clone());
            let mut stopped = stopped.clone();
            async move {
                match run {
                    0 => panic!("a defect"),
                    1 => {}
                    _ => {
                        running.notify_one();
                        let _ = stopped.wait_for(|stopped| *stopped).await;
                    }
                }
            }
        });
        tasks.start("steady", {
            let stopped = tasks.stopped.clone();
            move || {
                let mut stopped = stopped.clone();
                async move {
                    let _ = stopped.wait_for(|stopped| *stopped).await;
                }
            }
        });
        assert_eq!(health.problems(), Vec::<String>::new());
        steady.notified().await;
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        let problem = "the background task `flaky` has ended; the log says why";
        assert_eq!(health.problems(), [problem]);
        assert!(metrics.text().contains("hookmill_task_restarts_total{task=\"flaky\"} 2\n"));
        tokio::time::sleep(STEADY).await;
        assert_eq!(health.problems(), Vec::<String>::new());
        stop.send_replace(true);
        tasks.ended().await;
        assert_eq!(runs.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_for_its_restart_ends_with_the_process() {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Tasks::new(Metrics::default(), stopped);
        let health = tasks.health();
        tasks.start("broken", || async {});
        while health.problems().is_empty() {
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
        tasks.ended().await;
    }
}
