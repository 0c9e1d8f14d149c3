//! Builds Workers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use hookmill_config::{Config, parse};
use hookmill_loader::wrangler::{self, Findings};

use crate::shell::{root, run};
use crate::tools::Tools;

/// The three Workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Worker {
    /// Receives webhooks.
    Ingress,
    /// Applies events.
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

/// Builds a Worker into `out`, by default into `target/workers`.
///
/// # Errors
///
/// If it cannot be built, for instance because of an invalid configuration.
pub fn build(
    tools: &Tools,
    worker: Worker,
    out: Option<&Path>,
    config: Option<&Path>,
) -> anyhow::Result<()> {
    build_with(tools, worker, out, config, &[], run)
}

/// The same, with more features of its package, and with the programs run by `run`.
///
/// # Errors
///
/// As [`build`].
pub fn build_with(
    tools: &Tools,
    worker: Worker,
    out: Option<&Path>,
    config: Option<&Path>,
    more: &[&'static str],
    run: impl Fn(&mut Command) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let out = out.map_or_else(|| root().join("target/workers").join(worker.name()), Path::to_owned);
    let mut command = tools.worker_build();
    command.current_dir(worker.folder()).args(["--profile", "worker", "--out-dir"]).arg(&out);
    if let Some(config) = config {
        command.env("HOOKMILL_CONFIG", config);
    }
    if worker == Worker::Ingress {
        // A client that disconnects does not cancel accepted requests.
        command.env("RUN_TO_COMPLETION", "1");
    }
    let parsed = parsed(config)?;
    if config.is_none() {
        check(&parsed)?;
    }
    let mut features = more.to_vec();
    features.extend(match worker {
        Worker::Ingress => parsed.features_of_ingress(),
        Worker::Consumers => parsed.features_of_consumers(),
        Worker::Dlq => BTreeSet::new(),
    });
    if !features.is_empty() {
        command.args([".", "--", "--features", &features.join(",")]);
    }
    run(&mut command)?;
    // worker-build keeps the names of functions, which are an eighth of the file. A panic gives its location without them. A
    // second optimization makes the file a hundredth smaller.
    let wasm = out.join("index_bg.wasm");
    let mut strip = tools.wasm_opt();
    strip
        .args(["--all-features", "-Os", "--strip-debug", "--strip-producers"])
        .arg(&wasm)
        .arg("-o")
        .arg(&wasm);
    run(&mut strip)
}

/// The configuration that the Worker carries.
fn parsed(config: Option<&Path>) -> anyhow::Result<Config> {
    let path = match (config, std::env::var_os("HOOKMILL_CONFIG")) {
        (Some(path), _) => path.to_owned(),
        (None, Some(path)) => std::path::absolute(path)?,
        (None, None) => root().join("hookmill.toml"),
    };
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let file = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
    parse(&file, &text).map_err(|errors| {
        for error in errors {
            eprintln!("{error}");
        }
        anyhow!("the configuration has errors")
    })
}

/// A Worker is not built if it would not fit the others.
fn check(config: &Config) -> anyhow::Result<()> {
    let read = |path: &Path| std::fs::read_to_string(root().join(path));
    let Findings { faults, unchecked } = wrangler::check(config, Path::new(""), read);
    for file in unchecked {
        eprintln!("note: {file} is not checked; Hookmill reads only wrangler.toml");
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    if !faults.is_empty() {
        bail!("the Workers' wrangler.toml do not agree");
    }
    Ok(())
}
