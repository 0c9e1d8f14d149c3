//! Builds Workers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use hookmill_config::Config;
use hookmill_loader::wrangler::{self, Findings};
use hookmill_loader::{Loaded, load};

use crate::shell::{root, run};
use crate::tools::Tools;

/// The variable with the path of the file that [`bake`] writes, for the compiler.
pub const BAKED: &str = "HOOKMILL_BAKED";

/// A feature for tests only: the example of a handler, which tests/hookmill.toml and the documents name.
pub const EXAMPLE_HANDLER: &str = "example-handler";

/// The length of the salt in the file of the ingress Worker, in bytes.
const SALT: usize = 16;

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
    let loaded = loaded(config, more)?;
    if config.is_none() {
        check(&loaded.config)?;
    }
    let baked = out.with_extension("baked");
    bake(&loaded, worker, &baked)?;
    let mut command = tools.worker_build();
    command.current_dir(worker.folder()).args(["--profile", "worker", "--out-dir"]).arg(&out);
    command.env(BAKED, baked);
    if worker == Worker::Ingress {
        // A client that disconnects does not cancel accepted requests.
        command.env("RUN_TO_COMPLETION", "1");
    }
    let mut features = BTreeSet::new();
    match worker {
        Worker::Ingress => features.extend(loaded.config.features_of_ingress()),
        Worker::Consumers => {
            features.extend(more);
            features.extend(loaded.config.features_of_consumers());
        }
        Worker::Dlq => {}
    }
    if !features.is_empty() {
        let features: Vec<_> = features.into_iter().collect();
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

/// The configuration of the Workers: this one, or the one that `HOOKMILL_CONFIG` names, or hookmill.toml.
fn loaded(config: Option<&Path>, features: &[&str]) -> anyhow::Result<Loaded> {
    let path = match (config, std::env::var_os("HOOKMILL_CONFIG")) {
        (Some(path), _) => path.to_owned(),
        (None, Some(path)) => std::path::absolute(path)?,
        (None, None) => root().join("hookmill.toml"),
    };
    let mut handlers = hookmill_handlers::names();
    if features.contains(&EXAMPLE_HANDLER) {
        handlers.push(hookmill_handlers::EXAMPLE);
    }
    Ok(load(&path, &handlers)?)
}

/// Writes the part of the configuration that a Worker contains, in the type that it reads, so that it parses no TOML and
/// compiles no rules. The format is postcard, which takes less code to read than JSON: an ingress Worker's size determines its
/// cold start.
fn bake(loaded: &Loaded, worker: Worker, path: &Path) -> anyhow::Result<()> {
    let mut baked = match worker {
        Worker::Ingress => postcard::to_stdvec(&loaded.config.ingress)?,
        Worker::Consumers => {
            if let Some(fault) = wrangler::check_provider(&loaded.config) {
                bail!("{fault}");
            }
            postcard::to_stdvec(&loaded.consumers())?
        }
        Worker::Dlq => postcard::to_stdvec(&loaded.admin())?,
    };
    let before = std::fs::read(path).unwrap_or_default();
    let salt = if worker == Worker::Ingress { SALT } else { 0 };
    // The salt changes only with the configuration. Otherwise every build would link the Worker again.
    if before.len() == baked.len() + salt && before.starts_with(&baked) {
        return Ok(());
    }
    let end = baked.len();
    baked.resize(end + salt, 0);
    getrandom::fill(&mut baked[end..])?;
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
    std::fs::write(path, baked).with_context(|| format!("cannot write {}", path.display()))
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
