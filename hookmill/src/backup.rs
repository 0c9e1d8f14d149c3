//! `hookmill backup` and `hookmill restore`: the whole data folder, while it is in use.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hookmill_native::DataFolder;
use rusqlite::{Connection, OpenFlags};

/// Copy the data folder into a new folder; what runs on it goes on
#[derive(clap::Args)]
pub struct Backup {
    /// The folder that is made.
    to: PathBuf,
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
}

/// Make a data folder from a backup
#[derive(clap::Args)]
pub struct Restore {
    /// The backup.
    from: PathBuf,
    /// The data folder, which must not be there yet.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
}

const QUEUE: &str = "queue.db";
const DATA: &str = "data.db";
const BODIES: &str = "bodies";
/// What else a folder is known by; whichever of these are there.
const OTHERS: [&str; 2] = ["salt", "kept-by"];

/// The order matters. An event goes from the queue into the data, and its body is removed after that:
///
/// - the queue comes before the data, so that an event in between is in both, and the ledger tells, rather than in neither;
/// - bodies come before the data and after: what is removed meanwhile was copied before, and what was buried meanwhile is
///   copied after.
pub fn backup(arguments: &Backup) -> anyhow::Result<()> {
    let (from, to) = (&arguments.data, &arguments.to);
    drop(DataFolder::read(from)?);
    if std::path::absolute(to)?.starts_with(std::path::absolute(from)?) {
        bail!("{} is inside of {}; name a folder elsewhere", to.display(), from.display());
    }
    make(to)?;
    snapshot(from, to, QUEUE)?;
    copy_bodies(from, to)?;
    snapshot(from, to, DATA)?;
    copy_bodies(from, to)?;
    for name in OTHERS {
        copy_if_there(&from.join(name), &to.join(name))?;
    }
    eprintln!("{} holds what {} held", to.display(), from.display());
    Ok(())
}

pub fn restore(arguments: &Restore) -> anyhow::Result<()> {
    let (from, to) = (&arguments.from, &arguments.data);
    for name in [QUEUE, DATA] {
        whole(&from.join(name))?;
    }
    make(to)?;
    for name in [QUEUE, DATA].iter().chain(&OTHERS) {
        copy_if_there(&from.join(name), &to.join(name))?;
    }
    copy_bodies(from, to)?;
    eprintln!("{} is as the backup was; `hookmill serve` goes on from there", to.display());
    Ok(())
}

/// Makes a folder for its owner alone. It must not be there: nothing is written over.
fn make(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        bail!("{} is there already; name a folder that is not", folder.display());
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .recursive(true)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))
}

/// A copy of a database as it was at one moment. Writers go on meanwhile.
fn snapshot(from: &Path, to: &Path, name: &str) -> anyhow::Result<()> {
    let database = Connection::open_with_flags(from.join(name), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let copy = to.join(name);
    let copied = database.execute("VACUUM INTO ?1", [copy.to_string_lossy()]);
    copied.with_context(|| format!("cannot copy {name}"))?;
    whole(&copy)
}

/// Whether a database is what SQLite wrote.
fn whole(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let database = database.with_context(|| format!("cannot open {shown}"))?;
    let found: String = database
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .with_context(|| format!("{shown} is no database"))?;
    if found != "ok" {
        bail!("{shown} is damaged: {found}");
    }
    Ok(())
}

/// Copies bodies that are not there yet. One that is removed meanwhile is not needed any more.
fn copy_bodies(from: &Path, to: &Path) -> anyhow::Result<()> {
    let Ok(sources) = fs::read_dir(from.join(BODIES)) else { return Ok(()) };
    for source in sources {
        let source = source?;
        let Ok(files) = fs::read_dir(source.path()) else { continue };
        let folder = to.join(BODIES).join(source.file_name());
        fs::create_dir_all(&folder)?;
        for file in files {
            let file = file?;
            copy_if_there(&file.path(), &folder.join(file.file_name()))?;
        }
    }
    Ok(())
}

fn copy_if_there(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        return Ok(());
    }
    match fs::copy(from, to) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot copy {}", from.display())),
    }
}
