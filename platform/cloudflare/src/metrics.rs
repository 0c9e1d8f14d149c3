//! Metrics for Analytics Engine.

use worker::{AnalyticsEngineDataPointBuilder, AnalyticsEngineDataset, Env, console_error};

/// The maximum number of data points that one invocation may write. Source:
/// <https://developers.cloudflare.com/analytics/analytics-engine/limits/>.
const POINTS: usize = 25;

/// A dataset of Analytics Engine. For a count, `blob1` is the name of the metric, the next blobs are its labels in the
/// order of the native `/metrics`, `double1` is the count, and the index is the source. A gauge has its value in `double1`,
/// and its own name as the index.
pub struct Metrics {
    dataset: Option<AnalyticsEngineDataset>,
    written: usize,
}

impl Metrics {
    /// The dataset of this binding. A Worker without the binding writes no metrics.
    pub fn new(env: &Env, binding: &str) -> Self {
        Self { dataset: env.analytics_engine(binding).ok(), written: 0 }
    }

    /// Writes a count; `labels` begin with the source.
    pub fn count<const N: usize>(&mut self, metric: &str, labels: [&str; N], count: u32) {
        self.write(labels.first().unwrap_or(&""), metric, labels, count.into());
    }

    /// Writes a gauge. The index is the metric's name.
    pub fn set<const N: usize>(&mut self, metric: &str, labels: [&str; N], value: f64) {
        self.write(metric, metric, labels, value);
    }

    fn write<const N: usize>(&mut self, index: &str, metric: &str, labels: [&str; N], value: f64) {
        let Some(dataset) = &self.dataset else { return };
        if self.written == POINTS {
            return;
        }
        self.written += 1;
        let point = AnalyticsEngineDataPointBuilder::new()
            .indexes([index])
            .add_blob(metric)
            .add_double(value);
        let point = labels.into_iter().fold(point, AnalyticsEngineDataPointBuilder::add_blob);
        if let Err(error) = point.write_to(dataset) {
            console_error!("cannot write metrics: {error}");
        }
    }
}
