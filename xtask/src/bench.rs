//! `cargo xtask bench`: where Hookmill stands, as ratios to something measured in the same run.

use anyhow::bail;

use crate::build::{Worker, build};
use crate::shell::{cargo, root, run as shell, target};
use crate::tools::Tools;

/// Measures both platforms.
///
/// # Errors
///
/// If something cannot be installed, built or measured.
pub fn run() -> anyhow::Result<()> {
    if std::env::consts::OS != "linux" {
        bail!("memory and processor time are read from /proc: run this on Linux");
    }
    let tools = Tools::install()?;
    shell(cargo().args(["build", "--release", "--package", "hookmill"]))?;
    let mut build_bench = cargo();
    build_bench.args(["build", "--release", "--package", "hookmill-tests", "--features", "bench"]);
    shell(&mut build_bench)?;
    for worker in [Worker::Ingress, Worker::Consumers] {
        build(&tools, worker, None, None)?;
    }
    let release = target().join("release");
    let mut native = std::process::Command::new(release.join("hookmill-bench"));
    native.current_dir(root()).arg("native").arg(release.join("hookmill")).arg("hookmill.toml");
    shell(&mut native)?;
    shell(tools.node().arg("tests/bench/workers.mjs"))
}
