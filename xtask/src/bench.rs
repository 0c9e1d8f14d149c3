//! `cargo xtask bench`: where Hookmill stands, as ratios to something measured in the same run.

use anyhow::{Context as _, bail};

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
    shell(tools.node().arg("tests/bench/workers.mjs"))?;
    verification()?;
    planning()
}

/// The cost of a verification to that of its HMAC, from what criterion wrote.
fn verification() -> anyhow::Result<()> {
    let mut bench = cargo();
    bench.args([
        "bench",
        "--package",
        "hookmill-providers",
        "--features",
        "sign",
        "--bench",
        "verify",
    ]);
    shell(&mut bench)?;
    let hmac = median("hmac")?;
    println!(
        "verification of a Stripe event of 4 KB, to the bare HMAC: {:.2}; the aim is 1.3; and with finding its id and type in the body: {:.2}",
        median("signature")? / hmac,
        median("verify")? / hmac
    );
    Ok(())
}

/// The cost of planning events to that of parsing their bodies, in time and in allocations.
fn planning() -> anyhow::Result<()> {
    let mut bench = cargo();
    bench.args(["bench", "--package", "hookmill-consumers"]);
    shell(bench.args(["--bench", "allocations", "--bench", "plan"]))?;
    println!(
        "planning a batch of 100 full-size Stripe events, to parsing their bodies into serde_json::Value: {:.2}; the aim is less than 1",
        median("plan")? / median("value")?
    );
    Ok(())
}

/// What criterion found out about a benchmark, in nanoseconds.
fn median(name: &str) -> anyhow::Result<f64> {
    let path = target().join("criterion").join(name).join("new/estimates.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("criterion did not write {}", path.display()))?;
    let estimates: serde_json::Value = serde_json::from_str(&text)?;
    estimates["median"]["point_estimate"].as_f64().context("criterion wrote no median")
}
