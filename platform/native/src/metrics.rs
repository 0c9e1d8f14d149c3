//! Metrics for Prometheus.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

type Labels<const N: usize> = [(&'static str, String); N];

/// The counters of one process. Labels are bounded: configured names, Hookmill's own words and numbers, and a few API versions
/// of each source.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    received: Family<Labels<1>, Counter>,
    deliveries: Family<Labels<3>, Counter>,
    rejections: Family<Labels<2>, Counter>,
    outgoing: Family<Labels<2>, Counter>,
    rows: Family<Labels<1>, Counter>,
    absent_values: Family<Labels<2>, Counter>,
    api_versions: Family<Labels<3>, Counter>,
    task_restarts: Family<Labels<1>, Counter>,
    queue_messages: Family<Labels<1>, Gauge>,
    queue_oldest: Family<Labels<1>, Gauge<f64, AtomicU64>>,
    lag: Gauge<f64, AtomicU64>,
    retrying: Gauge,
    oldest_retrying: Gauge<f64, AtomicU64>,
    dead_letters: Family<Labels<1>, Gauge>,
    oldest_dead_letter: Gauge<f64, AtomicU64>,
    outbox: Family<Labels<1>, Gauge>,
    replays: Family<Labels<1>, Gauge>,
    database: Gauge,
}

/// The user's text as the value of a label: `prometheus-client` does not escape it.
/// <https://prometheus.io/docs/instrumenting/exposition_formats/#comments-help-text-and-type-information>
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The pipeline's status and the queues, as gauges.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StatusMetrics {
    /// Messages on each queue, and the time in seconds since the oldest was sent.
    pub queues: Vec<(String, i64, f64)>,
    /// The longest time from ingress to the tables in the last five minutes, or that an event has waited so far, in seconds.
    pub lag: f64,
    /// Events that are being retried.
    pub retrying: i64,
    /// The time since the oldest of them was received, in seconds; zero without such events.
    pub oldest_retrying: f64,
    /// Dead letters by reason.
    pub dead_letters: Vec<(String, i64)>,
    /// The time since the first failure of the oldest dead letter, in seconds; zero without dead letters.
    pub oldest_dead_letter: f64,
    /// Pending messages, by channel.
    pub outbox: Vec<(String, i64)>,
    /// Letters of running and paused replays: `total` and `sent`.
    pub replays: Vec<(String, i64)>,
    /// The size of the database in bytes.
    pub database: i64,
}

impl Default for Metrics {
    fn default() -> Self {
        let (deliveries, rejections, outgoing) =
            (Family::default(), Family::default(), Family::default());
        let received = Family::default();
        let mut registry = Registry::with_prefix("hookmill");
        registry.register("received", "Events that were accepted and enqueued", received.clone());
        registry.register(
            "deliveries",
            "Deliveries of events by result and by the index of the secret that signed, from 0",
            deliveries.clone(),
        );
        registry.register("rejections", "Rejected requests", rejections.clone());
        registry.register("outgoing", "Messages of the outbox by result", outgoing.clone());
        let (rows, absent_values) = (Family::default(), Family::default());
        let api_versions = Family::default();
        registry.register("rows", "Rows that rules wrote, without deletions", rows.clone());
        registry.register(
            "absent_values",
            "Rows for which all paths of a column led nowhere",
            absent_values.clone(),
        );
        registry.register(
            "api_versions",
            "Events by the version of the provider's API, and whether the source expects it",
            api_versions.clone(),
        );
        let task_restarts = Family::default();
        registry.register(
            "task_restarts",
            "Background tasks that ended and were started again",
            task_restarts.clone(),
        );
        let (queue_messages, queue_oldest) = (Family::default(), Family::default());
        let (retrying, oldest_retrying) = (Gauge::default(), Gauge::default());
        let dead_letters = Family::default();
        let (outbox, replays) = (Family::default(), Family::default());
        let database = Gauge::default();
        let (lag, oldest_dead_letter) = (Gauge::default(), Gauge::default());
        registry.register(
            "queue_messages",
            "Messages on the queue, those that wait for a retry included",
            queue_messages.clone(),
        );
        registry.register(
            "queue_oldest_seconds",
            "The time since the oldest message on the queue was sent",
            queue_oldest.clone(),
        );
        registry.register(
            "lag_seconds",
            "The longest time from ingress to the tables in the last five minutes, or that an event has waited so far",
            lag.clone(),
        );
        registry.register(
            "retrying_events",
            "Events that failed and wait for the next attempt",
            retrying.clone(),
        );
        registry.register(
            "oldest_retrying_seconds",
            "The time since the oldest retrying event was received",
            oldest_retrying.clone(),
        );
        registry.register(
            "dead_letters",
            "Dead letters that wait for an operator",
            dead_letters.clone(),
        );
        registry.register(
            "oldest_dead_letter_seconds",
            "The time since the first failure of the oldest dead letter",
            oldest_dead_letter.clone(),
        );
        registry.register("database_bytes", "The size of the database", database.clone());
        registry.register("outbox_waiting", "Messages that wait to be sent", outbox.clone());
        registry.register(
            "replay_letters",
            "Letters of running and paused replays",
            replays.clone(),
        );
        Self {
            registry: Arc::new(Mutex::new(registry)),
            received,
            deliveries,
            rejections,
            outgoing,
            rows,
            absent_values,
            api_versions,
            task_restarts,
            queue_messages,
            queue_oldest,
            lag,
            retrying,
            oldest_retrying,
            dead_letters,
            oldest_dead_letter,
            outbox,
            replays,
            database,
        }
    }
}

impl Metrics {
    /// `hookmill_received_total{source}`.
    pub fn count_received(&self, source: &str, count: u64) {
        self.received.get_or_create(&[("source", source.to_owned())]).inc_by(count);
    }

    /// `hookmill_deliveries_total{source, secret, fate}`.
    pub fn count_deliveries(&self, source: &str, secret: Option<usize>, fate: &str, count: u32) {
        let secret = secret.map(|secret| secret.to_string()).unwrap_or_default();
        let labels = [("source", source.to_owned()), ("secret", secret), ("fate", fate.to_owned())];
        self.deliveries.get_or_create(&labels).inc_by(count.into());
    }

    /// `hookmill_rejections_total{source, reason}`.
    pub fn count_rejections(&self, source: &str, reason: &str, count: u64) {
        let labels = [("source", source.to_owned()), ("reason", reason.to_owned())];
        self.rejections.get_or_create(&labels).inc_by(count);
    }

    /// `hookmill_outgoing_total{channel, state}`.
    pub fn count_outgoing(&self, channel: &str, state: &str, count: u64) {
        let labels = [("channel", channel.to_owned()), ("state", state.to_owned())];
        self.outgoing.get_or_create(&labels).inc_by(count);
    }

    /// `hookmill_rows_total{rule}`.
    pub fn count_rows(&self, rule: &str, count: u64) {
        self.rows.get_or_create(&[("rule", escaped(rule))]).inc_by(count);
    }

    /// `hookmill_absent_values_total{rule, column}`.
    pub fn count_absent(&self, rule: &str, column: &str, count: u64) {
        let labels = [("rule", escaped(rule)), ("column", escaped(column))];
        self.absent_values.get_or_create(&labels).inc_by(count);
    }

    /// `hookmill_api_versions_total{source, version, expected}`.
    pub fn count_versions(&self, source: &str, version: &str, expected: bool, count: u64) {
        let labels = [
            ("source", source.to_owned()),
            ("version", version.to_owned()),
            ("expected", expected.to_string()),
        ];
        self.api_versions.get_or_create(&labels).inc_by(count);
    }

    /// `hookmill_task_restarts_total{task}`.
    pub fn count_task_restart(&self, task: &str) {
        self.task_restarts.get_or_create(&[("task", task.to_owned())]).inc();
    }

    /// All metrics, in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a text does not fail.
        let _ = encode(&mut text, &registry);
        text
    }

    /// `hookmill_queue_messages{queue}`, `hookmill_queue_oldest_seconds{queue}`, `hookmill_lag_seconds`,
    /// `hookmill_retrying_events`, `hookmill_oldest_retrying_seconds`, `hookmill_dead_letters{reason}`,
    /// `hookmill_oldest_dead_letter_seconds`, `hookmill_outbox_waiting{channel}`, `hookmill_replay_letters{state}`,
    /// `hookmill_database_bytes`.
    fn set(&self, status: StatusMetrics) {
        let set = |family: &Family<Labels<1>, Gauge>, label, counts: Vec<(String, i64)>| {
            // Labels without a value disappear.
            family.clear();
            for (of, count) in counts {
                family.get_or_create(&[(label, of)]).set(count);
            }
        };
        for (queue, messages, oldest) in status.queues {
            let label = [("queue", queue)];
            self.queue_messages.get_or_create(&label).set(messages);
            self.queue_oldest.get_or_create(&label).set(oldest);
        }
        self.retrying.set(status.retrying);
        self.oldest_retrying.set(status.oldest_retrying);
        set(&self.dead_letters, "reason", status.dead_letters);
        set(&self.outbox, "channel", status.outbox);
        set(&self.replays, "state", status.replays);
        self.lag.set(status.lag);
        self.oldest_dead_letter.set(status.oldest_dead_letter);
        self.database.set(status.database);
    }

    /// Serves the metrics at `/metrics`, until the task is aborted. Each request calls `status`; if that returns none, the
    /// last values stay.
    ///
    /// # Errors
    ///
    /// If the listener fails.
    pub async fn serve<F: Future<Output = Option<StatusMetrics>> + Send + 'static>(
        self,
        listener: TcpListener,
        status: impl Fn() -> F + Clone + Send + Sync + 'static,
    ) -> std::io::Result<()> {
        const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let text = move || {
            let (metrics, status) = (self.clone(), status());
            async move {
                if let Some(status) = status.await {
                    metrics.set(status);
                }
                ([(CONTENT_TYPE, OPEN_METRICS)], metrics.text())
            }
        };
        axum::serve(listener, Router::new().route("/metrics", get(text))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let metrics = Metrics::default();
        metrics.count_absent("a \"b\"\n\\", "c\"", 1);
        let mut text = String::new();
        encode(&mut text, &metrics.registry.lock().unwrap()).unwrap();
        let line = r#"hookmill_absent_values_total{rule="a \"b\"\n\\",column="c\""} 1"#;
        assert!(text.lines().any(|found| found == line), "{text}");
    }
}
