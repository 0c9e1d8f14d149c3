//! What the commands need besides Rust and Node, in versions that fit the lock files: installed once, under `target/`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::shell::{cargo, output, root, run};

/// Cloudflare's tools need this version of Node or a newer one.
const NODE: u32 = 22;
/// The version of cargo-deny; where none is given here, a tool's version follows from Cargo.lock.
const CARGO_DENY: &str = "0.20.2";

/// The version of cargo-fuzz.
const CARGO_FUZZ: &str = "0.13.2";

/// What Chromium is called, and what is made of it.
const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The tools, installed.
pub struct Tools {
    /// Where cargo installed its own.
    bin: PathBuf,
    /// A node that is new enough.
    node: PathBuf,
}

impl Tools {
    /// Installs what is missing.
    ///
    /// # Errors
    ///
    /// If something cannot be installed.
    pub fn install() -> anyhow::Result<Self> {
        wasm_target()?;
        let lock =
            fs::read_to_string(root().join("Cargo.lock")).context("there is no Cargo.lock")?;
        let version = |package| {
            locked(&lock, package).with_context(|| format!("{package} is not in Cargo.lock"))
        };
        let folder = root().join("target/tools");
        cargo_install(&folder, "wasm-bindgen-cli", "wasm-bindgen", &version("wasm-bindgen")?)?;
        cargo_install(&folder, "worker-build", "worker-build", &version("worker")?)?;
        let node = node(&folder)?;
        npm_packages()?;
        Ok(Self { bin: folder.join("bin"), node })
    }

    /// cargo-deny, installed; it takes minutes to build, and only the tests need it.
    ///
    /// # Errors
    ///
    /// If it cannot be installed.
    pub fn cargo_deny(&self) -> anyhow::Result<Command> {
        cargo_install(&root().join("target/tools"), "cargo-deny", "cargo-deny", CARGO_DENY)?;
        let mut command = self.command(&self.bin.join("cargo-deny"));
        command.arg("deny");
        Ok(command)
    }

    /// cargo-fuzz, installed; only the tests need it.
    ///
    /// # Errors
    ///
    /// If it cannot be installed.
    pub fn cargo_fuzz(&self) -> anyhow::Result<Command> {
        cargo_install(&root().join("target/tools"), "cargo-fuzz", "cargo-fuzz", CARGO_FUZZ)?;
        Ok(self.command(&self.bin.join("cargo-fuzz")))
    }

    /// worker-build, which takes the tools given to it and so downloads none.
    pub fn worker_build(&self) -> Command {
        let mut command = self.command(&self.bin.join("worker-build"));
        command
            .env("WASM_BINDGEN_BIN", self.bin.join("wasm-bindgen"))
            .env("ESBUILD_BIN", modules().join(".bin/esbuild"))
            .env("WASM_OPT_BIN", modules().join(".bin/wasm-opt"));
        command
    }

    /// A Python with the packages that tests/sdk/python names; `None` if the machine has none that can have them.
    ///
    /// # Errors
    ///
    /// If the packages cannot be installed.
    pub fn python() -> anyhow::Result<Option<PathBuf>> {
        let folder = root().join("target/tools/python");
        let python = folder.join("bin/python");
        let requirements = root().join("tests/sdk/python/requirements.txt");
        let wanted = fs::read(&requirements)?;
        let stamp = folder.join(".hookmill-requirements");
        if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(Some(python));
        }
        // Some systems have a Python that can make no environments.
        if output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).is_none() {
            return Ok(None);
        }
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ]);
        run(pip.arg(&requirements))?;
        fs::write(stamp, wanted)?;
        Ok(Some(python))
    }

    /// Chromium, or what is made of it: the one that `HOOKMILL_CHROMIUM` names, or one that is installed. On Debian, root has it
    /// installed.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn chromium() -> anyhow::Result<PathBuf> {
        if let Some(path) = std::env::var_os("HOOKMILL_CHROMIUM").map(PathBuf::from) {
            if output(Command::new(&path).arg("--version")).is_none() {
                bail!("HOOKMILL_CHROMIUM is {}, which does not run", path.display());
            }
            return Ok(path);
        }
        let installed = || {
            let path = std::env::var_os("PATH")?;
            let folders: Vec<_> = std::env::split_paths(&path).collect();
            let places = CHROMIUM
                .iter()
                .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
            // On some systems such a program only says how to install it.
            let runs = |place: &PathBuf| {
                place.is_file() && output(Command::new(place).arg("--version")).is_some()
            };
            places.into_iter().find(runs)
        };
        if let Some(path) = installed() {
            return Ok(path);
        }
        let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let debian = system.lines().any(|line| line == "ID=debian");
        let root = output(Command::new("id").arg("-u")).is_some_and(|id| id == "0");
        if debian && root {
            run(Command::new("apt-get").args(["update", "--quiet"]))?;
            let install = ["install", "--quiet", "--yes", "--no-install-recommends", "chromium"];
            run(Command::new("apt-get").args(install).env("DEBIAN_FRONTEND", "noninteractive"))?;
        }
        installed().context(
            "the dashboard is tested in Chromium, and there is none; install Chromium or Chrome (Debian: `apt-get install \
            chromium`), so that `chromium`, `chromium-browser` or `google-chrome` is on the PATH, or say where it is in \
            HOOKMILL_CHROMIUM",
        )
    }

    /// Binaryen's optimiser.
    pub fn wasm_opt(&self) -> Command {
        self.command(&modules().join(".bin/wasm-opt"))
    }

    /// wrangler.
    pub fn wrangler(&self) -> Command {
        let mut command = self.command(&self.node);
        command
            .arg(modules().join("wrangler/bin/wrangler.js"))
            .env("WRANGLER_SEND_METRICS", "false")
            .env("WRANGLER_HIDE_BANNER", "true");
        command
    }

    /// node.
    pub fn node(&self) -> Command {
        self.command(&self.node)
    }

    /// A program with our node first on its PATH: scripts of npm packages look for it there.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let mut path = OsString::from(self.node.parent().unwrap_or(Path::new("")));
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        command.current_dir(root()).env("PATH", path);
        command
    }
}

fn modules() -> PathBuf {
    root().join("tests/node_modules")
}

/// The toolchain's standard library for Workers.
fn wasm_target() -> anyhow::Result<()> {
    const TARGET: &str = "wasm32-unknown-unknown";
    let rustc = || {
        let mut command = Command::new("rustc");
        command.current_dir(root()).args(["--print", "target-libdir", "--target", TARGET]);
        command
    };
    if output(&mut rustc()).is_some_and(|folder| Path::new(&folder).exists()) {
        return Ok(());
    }
    run(Command::new("rustup").current_dir(root()).args(["target", "add", TARGET])).context(
        "Workers are built for wasm32-unknown-unknown; without rustup, install that target by hand",
    )
}

/// The version of a package in Cargo.lock.
fn locked(lock: &str, package: &str) -> Option<String> {
    let entry = format!("name = \"{package}\"\nversion = \"");
    let rest = &lock[lock.find(&entry)? + entry.len()..];
    rest.split('"').next().map(ToOwned::to_owned)
}

fn cargo_install(folder: &Path, package: &str, binary: &str, version: &str) -> anyhow::Result<()> {
    let path = folder.join("bin").join(binary);
    let installed = output(Command::new(&path).arg("--version"));
    // worker-build prints the bare number, the others their name before it.
    if installed.is_some_and(|text| text.split_whitespace().any(|word| word == version)) {
        return Ok(());
    }
    let install = |locked: &[&str]| {
        let mut command = cargo();
        command
            .args(["install", package, "--version", version, "--force", "--root"])
            .arg(folder)
            .args(locked);
        // The workspace's target folder has other profiles; sharing it would rebuild both.
        run(command.env("CARGO_TARGET_DIR", folder.join("build")))
    };
    // A mirror of the registry may lack a version that the tool was locked to; newer ones that fit do as well.
    install(&["--locked"]).or_else(|error| {
        eprintln!("{error}; trying without --locked");
        install(&[])
    })
}

/// The machine's node, or one from npm if that is too old.
fn node(folder: &Path) -> anyhow::Result<PathBuf> {
    let major =
        |version: String| version.trim_start_matches('v').split('.').next()?.parse::<u32>().ok();
    let Some(version) = output(Command::new("node").arg("--version")) else {
        bail!("there is no node; install Node.js {NODE} or newer: https://nodejs.org");
    };
    if major(version.clone()).is_some_and(|major| major >= NODE) {
        let path = output(Command::new("node").args(["-p", "process.execPath"]));
        return path.map(PathBuf::from).context("node does not say where it is");
    }
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        system => system,
    };
    let machine = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        machine => machine,
    };
    let package = format!("node-{system}-{machine}");
    let folder = folder.join("node");
    let path = folder.join("node_modules").join(&package).join("bin/node");
    if !path.exists() {
        eprintln!("node {version} is too old for Cloudflare's tools");
        fs::create_dir_all(&folder)?;
        run(Command::new("npm")
            .current_dir(&folder)
            .args([
                "install",
                "--no-save",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
                "--prefix",
                ".",
            ])
            .arg(format!("{package}@{NODE}")))?;
    }
    Ok(path)
}

/// The packages that tests/package-lock.json names.
fn npm_packages() -> anyhow::Result<()> {
    let lock = fs::read(root().join("tests/package-lock.json"))?;
    let stamp = modules().join(".hookmill-lock");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    // Not `npm ci`: workerd is a package for each system, and it wants those of all systems to be in the lock file.
    run(Command::new("npm").current_dir(root().join("tests")).args([
        "install",
        "--no-save",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]))?;
    fs::write(stamp, lock)?;
    Ok(())
}
