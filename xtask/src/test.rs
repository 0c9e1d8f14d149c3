//! `cargo xtask test`: everything that CI checks, the steps that fail soonest first.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::build::{BAKED, EXAMPLE_HANDLER, Worker, build_with};
use crate::shell::{at_once, cargo, root, run as shell, run_for_output as shell_output, target};
use crate::tools::{Tools, tool, wasm_target};

#[derive(clap::Args)]
pub struct Arguments {
    /// Only these steps. Default: all.
    steps: Vec<Step>,
}

/// A part of the tests that can run separately.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Step {
    /// rustfmt, typos, unused dependencies, the workflows, clippy for this machine, for Workers and for each feature alone,
    /// and the documentation, warnings denied
    Lint,
    /// Licenses, sources and advisories of the dependencies
    Deny,
    /// The tests beside the code
    Unit,
    /// The contract against the native binary, its command line, the cost of statements, simulated histories, kill -9 under
    /// load, and a small run of the benchmark
    Native,
    /// The contract against the three Workers in workerd, and a small run of the benchmark
    Workers,
    /// Every parser of headers and bodies against inputs from libFuzzer, for a limited time
    Fuzz,
    /// The providers' own libraries sign, and the running binary verifies
    Sdk,
    /// The dashboard in Chromium, over the running binary; leaves screenshots in target/screenshots
    Browser,
    /// The migrations on D1, and each Worker in its deployed form, with its size
    Deploy,
}

impl Step {
    /// Whether it leaves a core idle for most of its time, so that it runs beside others like it.
    const fn is_slow_alone(self) -> bool {
        matches!(self, Self::Fuzz | Self::Sdk | Self::Browser | Self::Deploy)
    }
}

/// Packages that are for Workers only.
const WORKERS: [&str; 4] = [
    "hookmill-cloudflare",
    "hookmill-ingress-worker",
    "hookmill-consumers-worker",
    "hookmill-dlq-worker",
];

/// The target of Workers.
const WASM: &str = "wasm32-unknown-unknown";

/// The targets in tests/fuzz.
const FUZZ_TARGETS: [&str; 5] = ["configuration", "json", "message", "request", "signed"];

/// The maximum size of the ingress Worker, gzipped, in KiB.
const INGRESS_KIB: f64 = 140.0;

/// Runs the steps. Stops at the first that fails.
///
/// # Errors
///
/// If something fails, or cannot be installed.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let steps = if arguments.steps.is_empty() { Step::value_variants() } else { &arguments.steps };
    let (last, first): (Vec<Step>, Vec<Step>) = match steps {
        [_] => (Vec::new(), steps.to_vec()),
        _ => steps.iter().partition(|step| step.is_slow_alone()),
    };
    let (mut times, mut unchecked) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        // Downloads need no core.
        if steps.contains(&Step::Browser) {
            scope.spawn(prepare);
        }
        let install = || {
            if steps.contains(&Step::Workers) {
                scope.spawn(Tools::install);
            }
        };
        let mut building = None;
        for step in first {
            let start = Instant::now();
            // Tests wait for servers, and linking a Worker takes one core. So both together are faster.
            let has_tests = matches!(step, Step::Unit | Step::Native);
            if has_tests && steps.contains(&Step::Workers) && building.is_none() {
                building = Some(scope.spawn(workers_for_tests));
            }
            match step {
                Step::Lint => lint(install)?,
                Step::Deny => unchecked.extend(deny()?),
                Step::Unit => unit()?,
                Step::Native => native()?,
                Step::Workers => {
                    let built = building.take().map(thread::ScopedJoinHandle::join);
                    let built = built.unwrap_or_else(|| Ok(workers_for_tests()));
                    let tools = built.unwrap_or_else(|_| bail!("a thread panicked"))?;
                    unchecked.extend(workers(&tools)?);
                }
                Step::Fuzz => fuzz()?,
                Step::Sdk => unchecked.extend(sdk(&Tools::without_builder()?)?),
                Step::Browser => browser(&Tools::without_builder()?)?,
                Step::Deploy => deploy(&Tools::install()?)?,
            }
            times.push((step, start.elapsed()));
        }
        anyhow::Ok(())
    })?;
    // Each prints its time, and what it did not check.
    at_once(&last, |step| {
        let name = step.to_possible_value().context("every step has a name")?;
        let mut alone = Command::new(std::env::current_exe()?);
        shell_output(alone.args(["test", name.get_name()])).map(drop)
    })?;
    eprintln!();
    for (step, time) in times {
        eprintln!("{:>8} s  {step:?}", time.as_secs());
    }
    for unchecked in unchecked {
        eprintln!("\n{unchecked}");
    }
    Ok(())
}

/// Installs what later steps need. Each of them checks that itself, and says why something could not be installed.
fn prepare() {
    let _ = Tools::without_builder();
    let _ = Tools::python();
    let _ = Tools::chromium();
}

/// `install`: starts what has time until a later step.
fn lint(install: impl FnOnce()) -> anyhow::Result<()> {
    wasm_target()?;
    shell(cargo().args(["fmt", "--all", "--check"]))?;
    shell(&mut tool("typos")?)?;
    shell(tool("cargo-shear")?.arg("--deny-warnings"))?;
    // Offline: zizmor's questions to GitHub are not about a commit.
    shell(tool("zizmor")?.args([
        "--offline",
        "--no-progress",
        "--persona",
        "pedantic",
        ".github",
    ]))?;
    let mut clippy = cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--all-features"]);
    let mut doc = cargo();
    // Examples enable the features of dev-dependencies. clippy has them too, so both share the compiled dependencies.
    doc.args(["doc", "--workspace", "--all-features", "--lib", "--bins", "--examples"])
        .args(["--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings");
    let mut clippy_wasm = cargo();
    // The file need not be a baked configuration.
    clippy_wasm.args(["clippy", "--target", WASM]).env(BAKED, root().join("hookmill.toml"));
    for package in WORKERS {
        clippy.args(["--exclude", package]);
        doc.args(["--exclude", package]);
        clippy_wasm.args(["--package", package]);
    }
    shell(clippy.args(["--", "-D", "warnings"]))?;
    shell(clippy_wasm.args(["--", "-D", "warnings"]))?;
    // What follows compiles one package at a time.
    install();
    features()?;
    shell(&mut doc)
}

/// Runs clippy on packages without features, with each one, and with all.
fn features() -> anyhow::Result<()> {
    let hack = |packages: &[&str]| -> anyhow::Result<()> {
        let mut hack = tool("cargo-hack")?;
        hack.args(["clippy", "--each-feature"]).env(BAKED, root().join("hookmill.toml"));
        shell(hack.args(packages).args(["--", "-D", "warnings"]))
    };
    let core = ["core", "keys", "rules", "config", "providers"];
    let packages = core.map(|name| ["--package".to_owned(), format!("hookmill-{name}")]);
    hack(&packages.as_flattened().iter().map(String::as_str).collect::<Vec<_>>())?;
    hack(&["--package", "hookmill-ingress-worker", "--target", WASM])
}

/// Returns what was not checked, if anything.
fn deny() -> anyhow::Result<Option<&'static str>> {
    shell(tool("cargo-deny")?.args(["check", "bans", "licenses", "sources"]))?;
    // The advisories are in a repository on GitHub, which not every machine can reach.
    if shell(tool("cargo-deny")?.args(["fetch", "db"])).is_err() {
        return Ok(Some(
            "NOT CHECKED: advisories. The RustSec database could not be fetched (github.com/RustSec/advisory-db).",
        ));
    }
    shell(tool("cargo-deny")?.args(["check", "--disable-fetch", "advisories"]))?;
    Ok(None)
}

/// All packages except those for Workers only, with all their features. Every step that runs tests selects the same ones:
/// cargo chooses features by the selection, and would compile the dependencies once for each.
fn all(command: &mut Command) -> &mut Command {
    command.args(["--workspace", "--all-features"]);
    for package in WORKERS {
        command.args(["--exclude", package]);
    }
    command
}

fn unit() -> anyhow::Result<()> {
    let mut test = tool("cargo-nextest")?;
    shell(all(test.arg("run")).args(["--filterset", "not package(hookmill-tests)"]))?;
    // nextest does not run documentation tests.
    shell(all(cargo().args(["test", "--doc"])))
}

/// The binary as users build it, with the example of a handler.
fn binary() -> anyhow::Result<PathBuf> {
    shell(cargo().args(["build", "--package", "hookmill", "--features", EXAMPLE_HANDLER]))?;
    Ok(target().join(format!("debug/hookmill{EXE_SUFFIX}")))
}

/// These tests of hookmill-tests.
fn contract(names: &[&str]) -> anyhow::Result<Command> {
    let mut test = tool("cargo-nextest")?;
    all(test.arg("run"));
    for name in names {
        test.args(["--test", name]);
    }
    Ok(test)
}

fn native() -> anyhow::Result<()> {
    let mut test =
        contract(&["native", "cli", "folder", "presets", "growth", "sim", "crash", "bench"])?;
    // Each test has its own process, and would run cargo to build the binary.
    shell(test.env("HOOKMILL_TEST_BINARY", binary()?))
}

/// Runs the histories of the first `seeds` seeds.
///
/// # Errors
///
/// If one fails.
pub fn sim(seeds: u64) -> anyhow::Result<()> {
    let mut test = cargo();
    test.args([
        "test",
        "--profile",
        "sim",
        "--package",
        "hookmill-tests",
        "--test",
        "sim",
        "every_history",
    ]);
    shell(test.env("HOOKMILL_SIM_SEEDS", format!("0..{seeds}")))
}

/// Printed if something was not checked because Python is missing.
const NO_PYTHON: &str = "NOT CHECKED: the providers' libraries for Python, and the admin API against its document. There is no python3 that can make environments (`python3 -m venv`).";

/// Builds the Workers with the configuration of the contract.
fn workers_for_tests() -> anyhow::Result<Tools> {
    let tools = Tools::install()?;
    // cargo compiles one at a time, while wasm-opt uses the other core for another.
    at_once(&Worker::ALL, |&worker| {
        let out = root().join("target/workers-test").join(worker.name());
        let config = root().join("tests/hookmill.toml");
        let run = |step: &mut Command| shell_output(step).map(drop);
        build_with(&tools, worker, Some(&out), Some(&config), &[EXAMPLE_HANDLER], run)
    })?;
    Ok(tools)
}

/// Returns what was not checked, if anything.
fn workers(tools: &Tools) -> anyhow::Result<Option<&'static str>> {
    let node = tools.node();
    let mut contract = contract(&["workers"])?;
    contract.env("HOOKMILL_TEST_NODE", node.get_program());
    shell(contract.envs(node.get_envs().filter_map(|(name, value)| Some((name, value?)))))?;
    let mut test = tools.node();
    test.args(["--test", "--test-reporter=spec", "tests/workers/*.test.mjs"]);
    let python = Tools::python()?;
    if let Some(python) = &python {
        test.env("HOOKMILL_TEST_PYTHON", python);
    }
    shell(&mut test)?;
    Ok(python.is_none().then_some(NO_PYTHON))
}

/// The time for each fuzz target, in seconds.
const FUZZ_SECONDS: u32 = 20;

/// Starts from the committed corpus. New inputs stay under `target`, and so does a failing one.
fn fuzz() -> anyhow::Result<()> {
    let folder = root().join("tests/fuzz");
    let found = root().join("target/fuzz");
    // Sanitizers find memory errors, and there is no unsafe code here; without one, a stable compiler is sufficient.
    let cargo_fuzz = |subcommand: &str| -> anyhow::Result<Command> {
        let mut command = tool("cargo-fuzz")?;
        command.arg(subcommand).arg("--fuzz-dir").arg(&folder);
        command.arg("--target-dir").arg(found.join("build")).args(["--sanitizer", "none"]);
        // Linking each target with LTO, and optimizing more, would take longer than it saves.
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        Ok(command)
    };
    shell(&mut cargo_fuzz("build")?)?;
    let one = |target: &str| -> anyhow::Result<()> {
        let corpus = found.join("corpus").join(target);
        fs::create_dir_all(&corpus)?;
        let mut run = cargo_fuzz("run")?;
        run.arg(target).arg(&corpus).arg(folder.join("corpus").join(target));
        run.args([
            "--",
            "-timeout=10",
            "-max_len=8192",
            "-verbosity=0",
            "-print_funcs=0",
            "-print_final_stats=1",
            // A fixed seed makes runs repeatable; longer searches can use another.
            "-seed=1",
        ]);
        run.arg(format!("-artifact_prefix={}/", found.display()));
        shell_output(run.arg(format!("-max_total_time={FUZZ_SECONDS}"))).map(drop)
    };
    // A target uses one core.
    at_once(&FUZZ_TARGETS, |target| one(target))
}

/// Returns what was not checked, if anything.
fn sdk(tools: &Tools) -> anyhow::Result<Option<&'static str>> {
    let binary = binary()?;
    let mut test = tools.node();
    test.args(["--test", "--test-reporter=spec", "tests/sdk/*.test.mjs"]);
    test.env("HOOKMILL_TEST_BINARY", binary);
    let python = Tools::python()?;
    if let Some(python) = &python {
        test.env("HOOKMILL_TEST_PYTHON", python);
    }
    shell(&mut test)?;
    Ok(python.is_none().then_some(NO_PYTHON))
}

fn browser(tools: &Tools) -> anyhow::Result<()> {
    let chromium = Tools::chromium()?;
    let binary = binary()?;
    let mut test = tools.node();
    // SQLite is experimental in Node 22.
    test.args(["--experimental-sqlite", "--disable-warning=ExperimentalWarning"])
        .args(["--test", "--test-reporter=spec", "tests/browser/*.test.mjs"])
        .env("HOOKMILL_TEST_BINARY", binary)
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
    let sizes = Mutex::new(Vec::new());
    at_once(&Worker::ALL, |&worker| {
        let mut wrangler = tools.wrangler();
        wrangler.args(["deploy", "--dry-run", "--outdir"]).arg(data.join(worker.name()));
        let shown =
            shell_output(wrangler.arg("--config").arg(worker.folder().join("wrangler.toml")))?;
        // Total Upload: 285.90 KiB / gzip: 110.42 KiB
        let size = shown.lines().find_map(|line| {
            line.split_once("gzip: ")?.1.strip_suffix(" KiB")?.parse::<f64>().ok()
        });
        let size = size.context("wrangler does not say how large the Worker is")?;
        if worker == Worker::Ingress && size > INGRESS_KIB {
            bail!(
                "the ingress Worker has {size} KiB gzipped, and at most {INGRESS_KIB} are allowed: its size is its cold start"
            );
        }
        sizes
            .lock()
            .expect("no thread panics")
            .push(format!("{:>10} Worker: {size:.0} KiB gzipped", worker.name()));
        Ok(())
    })?;
    let sizes = sizes.into_inner().unwrap_or_default();
    eprintln!("\n{}", sizes.join("\n"));
    Ok(())
}
