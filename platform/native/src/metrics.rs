//! Metrics, as Prometheus reads them.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

type Labels<const N: usize> = [(&'static str, String); N];

/// The counters of one process. Labels are bounded: configured sources, and words and numbers of ours.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    deliveries: Family<Labels<3>, Counter>,
    rejections: Family<Labels<2>, Counter>,
    outgoing: Family<Labels<2>, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let (deliveries, rejections, outgoing) =
            (Family::default(), Family::default(), Family::default());
        let mut registry = Registry::with_prefix("hookmill");
        registry.register(
            "deliveries",
            "Deliveries of events by what came of them and by which of the source's secrets had signed, from 0",
            deliveries.clone(),
        );
        registry.register("rejections", "Requests that were refused", rejections.clone());
        registry.register(
            "outgoing",
            "What was to be sent, by what became of it",
            outgoing.clone(),
        );
        Self { registry: Arc::new(Mutex::new(registry)), deliveries, rejections, outgoing }
    }
}

impl Metrics {
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

    /// Serves them at `/metrics`, until the task is ended.
    ///
    /// # Errors
    ///
    /// If the listener fails.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let text = move || {
            let mut text = String::new();
            let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
            // Writing to a text does not fail.
            let _ = encode(&mut text, &registry);
            std::future::ready(([(CONTENT_TYPE, OPEN_METRICS)], text))
        };
        axum::serve(listener, Router::new().route("/metrics", get(text))).await
    }
}
