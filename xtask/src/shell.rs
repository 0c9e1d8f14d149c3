//! Runs programs, and prints their command lines.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread::{self, available_parallelism};

use anyhow::{Context as _, bail};

/// The root of the workspace.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// The target folder of cargo, which CARGO_TARGET_DIR may set.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The `cargo` that runs this program.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a program to its end, with its output visible.
///
/// # Errors
///
/// If it cannot be started, or fails.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Replaces this process with a program that runs until it is stopped, so that signals reach that program.
///
/// # Errors
///
/// If it cannot be started; or if it fails, on systems where a process cannot be replaced.
pub fn become_program(command: &mut Command) -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        eprintln!("$ {}", shown(command));
        let error = command.exec();
        Err(error).with_context(|| format!("cannot run {}", shown(command)))
    }
    #[cfg(not(unix))]
    run(command)
}

/// Runs a program to its end, beside others, and returns its stdout. Its output is printed in one piece.
///
/// # Errors
///
/// If it cannot be started, or fails.
pub fn run_for_output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    let [text, errors] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    eprint!("$ {}\n{errors}{text}", shown(command));
    if !output.status.success() {
        bail!("{} failed ({})", shown(command), output.status);
    }
    Ok(text)
}

/// Does the same to each of these, as many at once as there are cores. After a failure, it begins no other.
///
/// # Errors
///
/// If one of them fails.
pub fn at_once<T: Sync>(
    items: &[T],
    one: impl Fn(&T) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let thread = || {
        while !failed.load(Relaxed) {
            let Some(item) = items.get(next.fetch_add(1, Relaxed)) else { break };
            one(item).inspect_err(|_| failed.store(true, Relaxed))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(thread)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })
}

/// The output of a program, if it can be run and succeeds.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}
