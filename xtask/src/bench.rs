//! `cargo xtask bench`: Hookmill's speed, as ratios to references measured in the same run.

use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::build::{Worker, build};
use crate::shell::{cargo, root, run as shell, target};
use crate::tools::Tools;

#[derive(clap::Args)]
pub struct Arguments {
    /// Only these parts. Default: all.
    parts: Vec<Part>,
}

/// A part of the benchmark that can run separately.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Part {
    /// The binary: ingress, from the first request to the last row, growth, and drain
    Native,
    /// The Workers in workerd: processor time, and rows of D1
    Workers,
    /// A verification, to the HMAC in it
    Verification,
    /// Planning events, to parsing them
    Planning,
}

/// Measures. A small form of the first two parts is among the tests.
///
/// # Errors
///
/// If something cannot be installed, built or measured.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if std::env::consts::OS != "linux" {
        bail!("memory and processor time are read from /proc: run this on Linux");
    }
    let parts = if arguments.parts.is_empty() { Part::value_variants() } else { &arguments.parts };
    let mut times = Vec::new();
    for part in parts {
        let start = Instant::now();
        match part {
            Part::Native => native()?,
            Part::Workers => workers()?,
            Part::Verification => verification()?,
            Part::Planning => planning()?,
        }
        times.push((part, start.elapsed()));
    }
    eprintln!();
    for (part, time) in times {
        eprintln!("{:>8} s  {part:?}", time.as_secs());
    }
    Ok(())
}

/// The binary, with the configurations in tests/bench.
fn native() -> anyhow::Result<()> {
    // Built together they would share features, and the binary would differ from the released one.
    shell(cargo().args(["build", "--release", "--package", "hookmill"]))?;
    let mut bench = cargo();
    bench.args(["run", "--release", "--package", "hookmill-tests", "--features", "bench"]);
    bench.args(["--bin", "hookmill-bench", "--", "native"]);
    shell(bench.arg(target().join("release/hookmill")))
}

/// The Workers, built with the configuration in tests/bench.
fn workers() -> anyhow::Result<()> {
    let tools = Tools::install()?;
    for worker in [Worker::Ingress, Worker::Consumers, Worker::Dlq] {
        let out = root().join("target/workers-bench").join(worker.name());
        build(&tools, worker, Some(&out), Some(&root().join("tests/bench/preset.toml")))?;
    }
    shell(tools.node().arg("tests/bench/workers.mjs"))
}

/// The cost of a verification relative to its HMAC, from criterion's results.
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

/// The cost of planning events relative to parsing their bodies, in time and in allocations.
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

/// Criterion's median for a benchmark, in nanoseconds.
fn median(name: &str) -> anyhow::Result<f64> {
    let path = target().join("criterion").join(name).join("new/estimates.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("criterion did not write {}", path.display()))?;
    let estimates: serde_json::Value = serde_json::from_str(&text)?;
    estimates["median"]["point_estimate"].as_f64().context("criterion wrote no median")
}
