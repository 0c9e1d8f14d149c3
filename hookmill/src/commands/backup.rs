//! `hookmill backup` and `hookmill restore`: the whole data folder, even while a process uses it.

use crate::list::{note, print_line};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hookmill_dlq::recover;
use hookmill_native::private::{create_file, create_folder};
use hookmill_native::{DataFolder, FolderError, Reader, now};
use rusqlite::{Connection, OpenFlags};

/// Copy the data folder into a new folder; Hookmill may be running
#[derive(clap::Args)]
pub struct Backup {
    /// The folder to create.
    to: PathBuf,
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
}

/// Create a data folder from a backup
#[derive(clap::Args)]
pub struct Restore {
    /// The backup.
    #[arg(required_unless_present = "sql")]
    from: Option<PathBuf>,
    /// The data folder, which must not exist yet.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
    /// Instead of restoring, print the SQL that continues replays, reprocessings and imports: for D1 after Time Travel, with `wrangler d1 execute`.
    #[arg(long, conflicts_with_all = ["from", "data"])]
    sql: bool,
}

const QUEUE: &str = "queue.db";
const DATA: &str = "data.db";
const BODIES: &str = "bodies";
/// Optional files that identify a folder.
const OTHERS: [&str; 2] = ["salt", "kept-by"];

pub fn backup(arguments: &Backup) -> anyhow::Result<()> {
    let (from, to) = (&arguments.data, &arguments.to);
    let reader = DataFolder::read(from)?;
    if std::path::absolute(to)?.starts_with(std::path::absolute(from)?) {
        bail!("{} is inside {}; use another folder", to.display(), from.display());
    }
    whole_or_not(to, |incoming| copy(&reader, from, incoming))?;
    note!("copied {1} to {0}", to.display(), from.display());
    Ok(())
}

pub fn restore(arguments: &Restore) -> anyhow::Result<()> {
    let Restore { from, data: to, .. } = arguments;
    let Some(from) = from else {
        for statement in recover(now()) {
            print_line!("{};", statement.sql);
        }
        return Ok(());
    };
    without_links(from)?;
    let reader = DataFolder::read(from).map_err(|error| match error {
        FolderError::Empty(folder) => anyhow::anyhow!(
            "{} contains no backup; `hookmill backup` creates one",
            folder.display()
        ),
        error => error.into(),
    })?;
    let mut sent_again = SentAgain::default();
    whole_or_not(to, |incoming| {
        for (name, found) in
            [(QUEUE, reader.queue(quick_check)?), (DATA, reader.data(quick_check)?)]
        {
            undamaged(&from.join(name), &found)?;
        }
        copy(&reader, from, incoming)?;
        sent_again = SentAgain::new(incoming)?;
        Ok(())
    })?;
    let SentAgain { letters, reprocessings, imports } = sent_again;
    if letters > 0 {
        note!(
            "{letters} dead letters had been replayed, but the backup does not show that they were applied: they are sent again, unless \
             their replay was cancelled"
        );
    }
    if reprocessings > 0 {
        note!(
            "{reprocessings} reprocessings continue after the events that the backup shows as applied"
        );
    }
    if imports > 0 {
        note!("{imports} imports start again; no object is applied twice");
    }
    note!("restored the backup to {}; `hookmill serve` continues from there", to.display());
    Ok(())
}

/// Messages that replays, reprocessings and imports sent between the copy of the queue and that of the data, which only the data
/// show.
#[derive(Default)]
struct SentAgain {
    letters: usize,
    reprocessings: usize,
    imports: usize,
}

impl SentAgain {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let mut database = DataFolder::write(folder)?;
        let transaction = database.transaction()?;
        let mut counts = Vec::new();
        for statement in recover(now()) {
            let ids = transaction
                .prepare(&statement.sql)?
                .query_map([], |_| Ok(()))?
                .collect::<Result<Vec<_>, _>>()?;
            counts.push(ids.len());
        }
        transaction.commit()?;
        let [_, letters, reprocessings, imports] = counts[..] else { return Ok(Self::default()) };
        Ok(Self { letters, reprocessings, imports })
    }
}

/// Fills a new folder, for its owner alone. It gets its name when everything is on disk: a partial data folder would pass
/// for a complete one.
fn whole_or_not(
    folder: &Path,
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if folder.exists() {
        bail!("{} already exists; use a new folder", folder.display());
    }
    let made = || format!("cannot create {}", folder.display());
    let absolute = std::path::absolute(folder)?;
    let parent = absolute.parent().with_context(made)?;
    create_folder(parent).with_context(made)?;
    let incoming = tempfile::Builder::new().prefix(".hookmill-").tempdir_in(parent);
    let incoming = incoming.with_context(made)?;
    fill(incoming.path())?;
    sync(incoming.path()).with_context(made)?;
    fs::rename(incoming.path(), folder).with_context(made)?;
    // The folder was renamed, so there is nothing to remove.
    let _ = incoming.keep();
    File::open(parent).and_then(|parent| parent.sync_all()).with_context(made)
}

/// Makes a folder durable, with all its content.
fn sync(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}

/// The order matters. An event goes from the queue into the data, and its body is removed after that:
///
/// - The queue is copied before the data, so that an event that moves meanwhile is in both copies, not in neither. The
///   ledger rejects the duplicate.
/// - Bodies are copied before the data and after: bodies that are removed meanwhile were copied before, and those of events
///   that are buried meanwhile are copied after.
///
/// Replays and reprocessings go the other way: see [`SentAgain`].
fn copy(reader: &Reader, from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = to.join(QUEUE);
    reader.queue(|database| snapshot(database, &copied)).context("cannot copy the queue")?;
    check_copy(&copied)?;
    copy_bodies(from, to)?;
    let copied = to.join(DATA);
    reader.data(|database| snapshot(database, &copied)).context("cannot copy the data")?;
    check_copy(&copied)?;
    copy_bodies(from, to)?;
    for name in OTHERS {
        copy_if_there(&from.join(name), &to.join(name))?;
    }
    Ok(())
}

/// A copy of a database at one moment. Writers continue meanwhile.
fn snapshot(database: &Connection, copy: &Path) -> rusqlite::Result<()> {
    // SQLite writes into an empty file, and not into one of an earlier attempt.
    create_file(copy).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    database.execute("VACUUM INTO ?1", [copy.to_string_lossy()]).map(drop)
}

/// The errors that SQLite finds; `ok` if none.
fn quick_check(database: &mut Connection) -> rusqlite::Result<String> {
    database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
}

fn check_copy(path: &Path) -> anyhow::Result<()> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let found = database.and_then(|mut database| quick_check(&mut database));
    undamaged(path, &found.with_context(|| format!("cannot read {}", path.display()))?)
}

fn undamaged(path: &Path, found: &str) -> anyhow::Result<()> {
    if found != "ok" {
        bail!("{} is damaged: {found}", path.display());
    }
    Ok(())
}

/// Copies new bodies. A body that is removed meanwhile is not needed any more.
fn copy_bodies(from: &Path, to: &Path) -> anyhow::Result<()> {
    let Ok(sources) = fs::read_dir(from.join(BODIES)) else { return Ok(()) };
    for source in sources {
        let source = source?;
        // A file that is being written has a temporary name.
        if source.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        no_link(&source.path())?;
        let Ok(files) = fs::read_dir(source.path()) else { continue };
        let folder = to.join(BODIES).join(source.file_name());
        create_folder(&folder)?;
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
    let cannot = || format!("cannot copy {}", from.display());
    no_link(from)?;
    match File::open(from) {
        Ok(mut source) => {
            if !source.metadata().with_context(cannot)?.is_file() {
                bail!("{} is not a file; remove it", from.display());
            }
            let mut target = create_file(to).with_context(cannot)?;
            io::copy(&mut source, &mut target).map(drop).with_context(cannot)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(cannot),
    }
}

/// A backup may come from elsewhere, and a link in it could lead to any file of this machine.
fn without_links(backup: &Path) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(backup) else { return Ok(()) };
    for entry in entries {
        no_link(&entry?.path())?;
    }
    Ok(())
}

fn no_link(path: &Path) -> anyhow::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        bail!("{} is a link; a backup contains only folders and files", path.display());
    }
    Ok(())
}
