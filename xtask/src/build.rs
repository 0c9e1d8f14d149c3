//! Builds Workers.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

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
    run(&mut command)
}
