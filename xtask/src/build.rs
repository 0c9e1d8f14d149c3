//! Builds Workers.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueEnum;
use hookmill_core::config::parse;

use crate::shell::{root, run};
use crate::tools::Tools;

/// The three Workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Worker {
    /// Webhooks in.
    Ingress,
    /// Events applied.
    Consumers,
    /// Dead letters.
    Dlq,
}

impl Worker {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ingress, Self::Consumers, Self::Dlq];

    /// The name of its stage.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Consumers => "consumers",
            Self::Dlq => "dlq",
        }
    }

    /// The folder of its package and its wrangler.toml.
    pub fn folder(self) -> PathBuf {
        root().join(self.name()).join("worker")
    }
}

/// Builds a Worker into `out`, or else into `target/workers`.
///
/// # Errors
///
/// If it cannot be built, above all because of a bad configuration.
pub fn build(
    tools: &Tools,
    worker: Worker,
    out: Option<&Path>,
    config: Option<&Path>,
) -> anyhow::Result<()> {
    let out = out.map_or_else(|| root().join("target/workers").join(worker.name()), Path::to_owned);
    let mut command = tools.worker_build();
    command.current_dir(worker.folder()).args(["--profile", "worker", "--out-dir"]).arg(out);
    if let Some(config) = config {
        command.env("HOOKMILL_CONFIG", config);
    }
    if worker == Worker::Ingress {
        // A client that goes away does not cancel what has been admitted.
        command.env("RUN_TO_COMPLETION", "1");
    }
    if worker == Worker::Ingress {
        let features = features(config)?;
        if !features.is_empty() {
            command.args([".", "--", "--features", &features.join(",")]);
        }
    }
    run(&mut command)
}

/// The algorithms that the configuration needs and not every build has. Its faults are told by the build, which reads it again.
fn features(config: Option<&Path>) -> anyhow::Result<Vec<&'static str>> {
    let path = match (config, std::env::var_os("HOOKMILL_CONFIG")) {
        (Some(path), _) => path.to_owned(),
        (None, Some(path)) => PathBuf::from(path),
        (None, None) => root().join("hookmill.toml"),
    };
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let (config, _) = parse(&path.display().to_string(), &text);
    let sources = config.ingress.sources.iter();
    let mut features: Vec<_> = sources.filter_map(|source| source.scheme.feature()).collect();
    features.sort_unstable();
    features.dedup();
    Ok(features)
}
