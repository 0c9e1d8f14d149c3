//! `cargo xtask test`: everything that CI checks, in the order in which it fails soonest.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::build::{Worker, build};
use crate::shell::{cargo, root, run as shell, run_for_output as shell_output, target};
use crate::tools::Tools;

#[derive(clap::Args)]
pub struct Arguments {
    /// Only these; without any, all.
    steps: Vec<Step>,
}

/// A part of the tests that can be run by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Step {
    /// rustfmt, clippy for this machine and for Workers, and the documentation, warnings denied
    Lint,
    /// Licences, sources and advisories of what we depend on
    Deny,
    /// The tests beside the code
    Unit,
    /// The contract against the native binary, its command line, what statements cost, kill -9 under load, and the benchmark
    /// in a small form
    Native,
    /// The contract against the three Workers in workerd, and the benchmark in a small form
    Workers,
    /// Every parser of headers and bodies against inputs made up by libFuzzer, for a bounded time
    Fuzz,
    /// The providers' own libraries sign, and the running binary verifies
    Sdk,
    /// The dashboard in Chromium, over the running binary; leaves screenshots in target/screenshots
    Browser,
    /// The migrations on D1, and each Worker as it would be deployed, with its size
    Deploy,
}

/// Packages that are for Workers only.
const WORKERS: [&str; 4] = [
    "hookmill-cloudflare",
    "hookmill-ingress-worker",
    "hookmill-consumers-worker",
    "hookmill-dlq-worker",
];

/// The targets in tests/fuzz.
const FUZZ_TARGETS: [&str; 5] = ["configuration", "json", "message", "request", "signed"];

/// The most that the ingress Worker may have, gzipped.
const INGRESS_KIB: f64 = 146.0;

/// Runs the steps. Stops at the first that fails.
///
/// # Errors
///
/// If something fails, or cannot be installed.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tools = Tools::install()?;
    let steps = if arguments.steps.is_empty() { Step::value_variants() } else { &arguments.steps };
    let (mut times, mut unchecked) = (Vec::new(), Vec::new());
    for step in steps {
        let start = Instant::now();
        match step {
            Step::Lint => lint()?,
            Step::Deny => unchecked.extend(deny(&tools)?),
            Step::Unit => unit()?,
            Step::Native => native()?,
            Step::Workers => unchecked.extend(workers(&tools)?),
            Step::Fuzz => fuzz(&tools)?,
            Step::Sdk => unchecked.extend(sdk(&tools)?),
            Step::Browser => browser(&tools)?,
            Step::Deploy => deploy(&tools)?,
        }
        times.push((step, start.elapsed()));
    }
    eprintln!();
    for (step, time) in times {
        eprintln!("{:>8} s  {step:?}", time.as_secs());
    }
    for unchecked in unchecked {
        eprintln!("\n{unchecked}");
    }
    Ok(())
}

fn lint() -> anyhow::Result<()> {
    shell(cargo().args(["fmt", "--all", "--check"]))?;
    let mut clippy = cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--all-features"]);
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings");
    let mut clippy_wasm = cargo();
    clippy_wasm.args(["clippy", "--target", "wasm32-unknown-unknown"]);
    for package in WORKERS {
        clippy.args(["--exclude", package]);
        doc.args(["--exclude", package]);
        clippy_wasm.args(["--package", package]);
    }
    shell(clippy.args(["--", "-D", "warnings"]))?;
    shell(clippy_wasm.args(["--", "-D", "warnings"]))?;
    shell(&mut doc)
}

/// Returns what could not be checked, if anything.
fn deny(tools: &Tools) -> anyhow::Result<Option<&'static str>> {
    shell(tools.cargo_deny()?.args(["check", "bans", "licenses", "sources"]))?;
    // The advisories are not in the registry but in a repository on GitHub, which not every machine reaches.
    if shell(tools.cargo_deny()?.args(["fetch", "db"])).is_err() {
        return Ok(Some(
            "NOT CHECKED: advisories. The RustSec database could not be fetched (github.com/RustSec/advisory-db).",
        ));
    }
    shell(tools.cargo_deny()?.args(["check", "--disable-fetch", "advisories"]))?;
    Ok(None)
}

fn unit() -> anyhow::Result<()> {
    let mut test = cargo();
    test.args(["test", "--workspace", "--all-features", "--exclude", "hookmill-tests"]);
    for package in WORKERS {
        test.args(["--exclude", package]);
    }
    shell(&mut test)
}

fn contract() -> Command {
    let mut test = cargo();
    test.args(["test", "--package", "hookmill-tests"]);
    test
}

fn native() -> anyhow::Result<()> {
    let mut test = contract();
    test.args(["--features", "bench"]);
    for name in ["native", "cli", "folder", "presets", "growth", "crash", "bench"] {
        test.args(["--test", name]);
    }
    shell(&mut test)
}

/// Said where something could not be checked, since there is no Python.
const NO_PYTHON: &str = "NOT CHECKED: the providers' libraries for Python, and the admin API against its document. There is no python3 that can make environments (`python3 -m venv`).";

/// Returns what could not be checked, if anything.
fn workers(tools: &Tools) -> anyhow::Result<Option<&'static str>> {
    for worker in Worker::ALL {
        let out = root().join("target/workers-test").join(worker.name());
        build(tools, worker, Some(&out), Some(&root().join("tests/hookmill.toml")))?;
    }
    let node = tools.node();
    shell(
        contract()
            .args(["--features", "workers", "--test", "workers"])
            .env("HOOKMILL_TEST_NODE", node.get_program()),
    )?;
    let mut test = tools.node();
    test.args(["--test", "--test-reporter=spec", "tests/workers/*.test.mjs"]);
    let python = Tools::python()?;
    if let Some(python) = &python {
        test.env("HOOKMILL_TEST_PYTHON", python);
    }
    shell(&mut test)?;
    Ok(python.is_none().then_some(NO_PYTHON))
}

/// How long each target is fuzzed, in seconds.
const FUZZ_SECONDS: u32 = 20;

/// Goes on from the committed corpus. What is found along the way stays under `target`, and so does an input that fails.
fn fuzz(tools: &Tools) -> anyhow::Result<()> {
    let folder = root().join("tests/fuzz");
    let found = root().join("target/fuzz");
    // Sanitizers are for memory errors, and there is no unsafe code here; without one, a stable compiler will do.
    let options = |command: &mut Command| {
        command.arg("--fuzz-dir").arg(&folder).arg("--target-dir").arg(found.join("build"));
        command.args(["--sanitizer", "none"]);
    };
    let mut build = tools.cargo_fuzz()?;
    options(build.arg("build"));
    shell(&mut build)?;
    for target in FUZZ_TARGETS {
        let corpus = found.join("corpus").join(target);
        fs::create_dir_all(&corpus)?;
        let mut run = tools.cargo_fuzz()?;
        options(run.arg("run"));
        run.arg(target).arg(&corpus).arg(folder.join("corpus").join(target));
        run.args([
            "--",
            "-timeout=10",
            "-max_len=8192",
            "-verbosity=0",
            "-print_funcs=0",
            "-print_final_stats=1",
            // What one run finds, another should: a search from elsewhere is for those who look for longer.
            "-seed=1",
        ]);
        run.arg(format!("-artifact_prefix={}/", found.display()));
        shell(run.arg(format!("-max_total_time={FUZZ_SECONDS}")))?;
    }
    Ok(())
}

/// Returns what could not be checked, if anything.
fn sdk(tools: &Tools) -> anyhow::Result<Option<&'static str>> {
    shell(cargo().args(["build", "--package", "hookmill"]))?;
    let mut test = tools.node();
    test.args(["--test", "--test-reporter=spec", "tests/sdk/*.test.mjs"]);
    test.env("HOOKMILL_TEST_BINARY", target().join("debug/hookmill"));
    let python = Tools::python()?;
    if let Some(python) = &python {
        test.env("HOOKMILL_TEST_PYTHON", python);
    }
    shell(&mut test)?;
    Ok(python.is_none().then_some(NO_PYTHON))
}

fn browser(tools: &Tools) -> anyhow::Result<()> {
    let chromium = Tools::chromium()?;
    shell(cargo().args(["build", "--package", "hookmill"]))?;
    let mut test = tools.node();
    // Node 22 has SQLite, and calls it an experiment.
    test.args(["--experimental-sqlite", "--disable-warning=ExperimentalWarning"])
        .args(["--test", "--test-reporter=spec", "tests/browser/*.test.mjs"])
        .env("HOOKMILL_TEST_BINARY", target().join("debug/hookmill"))
        .env("HOOKMILL_TEST_SCREENSHOTS", target().join("screenshots"))
        .env("HOOKMILL_CHROMIUM", chromium);
    shell(&mut test)
}

fn deploy(tools: &Tools) -> anyhow::Result<()> {
    let data = root().join("target/deploy-test");
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    for worker in [Worker::Consumers, Worker::Dlq] {
        let mut wrangler = tools.wrangler();
        wrangler.args(["d1", "migrations", "apply", "DB", "--local", "--persist-to"]).arg(&data);
        shell(wrangler.arg("--config").arg(worker.folder().join("wrangler.toml")).env("CI", "1"))?;
    }
    let mut sizes = String::new();
    for worker in Worker::ALL {
        let mut wrangler = tools.wrangler();
        wrangler.args(["deploy", "--dry-run", "--outdir"]).arg(data.join(worker.name()));
        let shown =
            shell_output(wrangler.arg("--config").arg(worker.folder().join("wrangler.toml")))?;
        // Total Upload: 285.90 KiB / gzip: 110.42 KiB
        let size = shown.lines().find_map(|line| {
            line.split_once("gzip: ")?.1.strip_suffix(" KiB")?.parse::<f64>().ok()
        });
        let size = size.context("wrangler does not say how large the Worker is")?;
        sizes += &format!("{:>10} Worker: {size:.0} KiB gzipped\n", worker.name());
        if worker == Worker::Ingress && size > INGRESS_KIB {
            bail!(
                "the ingress Worker has {size} KiB gzipped, and at most {INGRESS_KIB} are allowed: its size is its cold start"
            );
        }
    }
    eprint!("\n{sizes}");
    Ok(())
}
