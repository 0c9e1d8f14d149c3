//! The data folder, which one process locks at a time.

use std::fs::{self, File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hookmill_core::schema::Schema;
use hookmill_migrations::{Migration, MigrationError, apply, schema};
use rusqlite::{Connection, OpenFlags};
use thiserror::Error;
use tracing::warn;

use crate::checkpoint::Checkpoints;
use crate::durable::{absent_as_none, write_durably};
use crate::files::Files;
use crate::private::{close, create_file, create_folder};
use crate::queue::{QueueName, SqliteQueue};
use crate::reader::{Reader, there};
use crate::sqlite::{self, Sqlite};

/// The application's database, the queues, and the bodies of large events.
pub(crate) const DATA: &str = "data.db";
pub(crate) const QUEUE: &str = "queue.db";
pub(crate) const BODIES: &str = "bodies";

/// The page size of the application's database, SQLite's default.
const PAGE_BYTES: u32 = 4096;

/// The maximum memory that SQLite uses for pages of the application's database. A batch reads a page of every index for
/// each of its events; with SQLite's default of 2 MB, a transaction reads and writes the same pages several times.
const CACHE_KIB: i64 = 64 * 1024;

/// The number of attempts to lock, and the time between two: [`DataFolder::listening`] holds the lock for a moment.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(25);

/// The commands that own a folder.
const KEEPERS: [&str; 2] = ["serve", "dev"];

/// A data folder, locked while this value lives. The value must outlive the queues that it opened: its drop waits until
/// their thread has closed the database, so that the process does not end, and the lock is not released, before that.
pub struct DataFolder {
    path: PathBuf,
    /// The databases that their last process did not close.
    unclosed: Vec<PathBuf>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Whether the threads end without a result.
    stopped: Arc<AtomicBool>,
    /// Holds the lock, which the system releases when the process ends, even after a kill.
    _lock: File,
}

/// A store that was opened.
pub struct Opened {
    /// The store.
    pub store: Sqlite,
    /// The names of the migrations that were applied.
    pub applied: Vec<String>,
    /// Its tables.
    pub schema: Schema,
}

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Another process has locked it.
    #[error(
        "{0} is in use by another hookmill; stop that one, or choose another folder with --data"
    )]
    InUse(PathBuf),
    /// It has no data.
    #[error(
        "no Hookmill data in {0}; `hookmill dev` or `hookmill serve` creates it; --data chooses another folder"
    )]
    Empty(PathBuf),
    /// Another user owns it.
    #[error("this user may not read {0}; run the command as the user of the Hookmill process")]
    Denied(PathBuf),
    /// The process that had locked it was killed, and an index that SQLite kept beside the database is lost.
    #[error(
        "{0} was not closed and needs recovery, which only the process that locks the folder does; \
         run `hookmill serve` or `hookmill migrate` as its owner"
    )]
    Unclosed(PathBuf),
    /// It belongs to another command.
    #[error(
        "{path} belongs to `hookmill {by}`: `dev` displays messages that `serve` sends, and each would take the other's; choose another folder with --data"
    )]
    Kept {
        /// The folder.
        path: PathBuf,
        /// The command.
        by: String,
    },
    /// One of its databases is missing.
    #[error(
        "{missing} is missing, but {there} has data: put the missing file back, or restore a backup into another folder \
         with `hookmill restore`; to go on without what was in it, run with a new folder"
    )]
    Lost {
        /// The database.
        missing: PathBuf,
        /// The other database.
        there: PathBuf,
    },
    /// Other users can read it, and this user cannot change that.
    #[error(
        "other users can read {path}, and this user cannot close it; run `chmod go= {path}` as its owner, \
         or run Hookmill as its owner"
    )]
    Open {
        /// The folder, or a file in it.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It cannot be read or written.
    #[error("cannot use the folder {path}")]
    Io {
        /// The folder, or a file in it.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// One of its databases cannot be used.
    #[error("cannot use the database {path}")]
    Database {
        /// The database.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// SQLite found damage in one of its databases.
    #[error(
        "the database {path} is damaged ({found}); keep a copy of the folder, and restore a backup with `hookmill restore`; \
         `hookmill verify-data` lists all damage"
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        found: String,
    },
    /// Its migrations failed.
    #[error(transparent)]
    Migration(#[from] MigrationError),
}

impl DataFolder {
    /// Creates the folder if it does not exist, locks it, and closes it to other users: it contains customers' data.
    ///
    /// # Errors
    ///
    /// [`FolderError::InUse`] if another process has locked it, [`FolderError::Open`] if it cannot be closed.
    pub fn lock(path: &Path) -> Result<Self, FolderError> {
        let io = |source| FolderError::Io { path: path.to_owned(), source };
        create_folder(path).map_err(io)?;
        let lock = create_file(&path.join("lock")).map_err(io)?;
        for _ in 0..TRIES {
            match lock.try_lock() {
                Ok(()) => {
                    let was_open =
                        close(path).map_err(|(path, source)| FolderError::Open { path, source })?;
                    if was_open {
                        warn!(folder = %path.display(), "other users could read the data folder; its permissions are 0700 now");
                    }
                    // A process that closes a database removes its log.
                    let is_unclosed = |name: &&str| {
                        let log = fs::metadata(path.join(format!("{name}-wal")));
                        log.is_ok_and(|log| log.len() > 0)
                    };
                    let unclosed = [QUEUE, DATA].into_iter().filter(is_unclosed);
                    return Ok(Self {
                        path: path.to_owned(),
                        unclosed: unclosed.map(|name| path.join(name)).collect(),
                        threads: Mutex::default(),
                        stopped: Arc::default(),
                        _lock: lock,
                    });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_TRIES),
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
        }
        Err(FolderError::InUse(path.to_owned()))
    }

    /// Opens the store after applying missing migrations.
    ///
    /// # Errors
    ///
    /// If the database cannot be opened, or a migration fails. [`FolderError::Lost`] if one of the databases was removed: a new
    /// one would hide that acknowledged events are gone.
    pub fn store(&self, migrations: &[Migration]) -> Result<Opened, FolderError> {
        let (path, queue) = (self.path.join(DATA), self.path.join(QUEUE));
        let queue_is_there = queue.exists();
        if queue_is_there && !path.exists() {
            return Err(FolderError::Lost { missing: path, there: queue });
        }
        let failed = |source| FolderError::Database { path: path.clone(), source };
        let mut database = sqlite::open(&path, PAGE_BYTES).map_err(failed)?;
        database.pragma_update(None, "cache_size", -CACHE_KIB).map_err(failed)?;
        let applied = apply(&mut database, migrations)?;
        // `migrate` creates this database alone.
        if !queue_is_there && has_events(&database).map_err(failed)? {
            return Err(FolderError::Lost { missing: queue, there: path });
        }
        let schema = schema(&database).map_err(failed)?;
        let checkpoints = Checkpoints::start(&path, PAGE_BYTES, &mut database).map_err(failed)?;
        Ok(Opened { store: Sqlite::with_checkpoints(database, checkpoints), applied, schema })
    }

    /// Looks for damage in the databases that their last process did not close: a power failure damages them if the disk lied about
    /// what it had written. The search has a thread of its own, since it reads them whole. Calls `found` if the data are
    /// damaged; a damaged queue still delivers what can be read, and says that it is damaged.
    pub fn look_for_damage(
        &self,
        queue: SqliteQueue,
        found: impl FnOnce(FolderError) + Send + 'static,
    ) {
        let (unclosed, stopped) = (self.unclosed.clone(), self.stopped.clone());
        let look = move |path: &Path| match sqlite::damage(path, stopped.clone()) {
            Ok(what) => what.map(|found| FolderError::Damaged { path: path.to_owned(), found }),
            Err(source) => Some(FolderError::Database { path: path.to_owned(), source }),
        };
        let thread = std::thread::spawn(move || {
            for path in unclosed {
                match look(&path) {
                    None => {}
                    Some(error) if path.ends_with(QUEUE) => queue.report_damage(&error),
                    Some(error) => return found(error),
                }
            }
        });
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// Assigns the folder to a command, unless it belongs to another.
    ///
    /// # Errors
    ///
    /// [`FolderError::Kept`] if it does, or an error if the folder cannot be written.
    pub fn keep_for(&self, command: &str) -> Result<(), FolderError> {
        const NAME: &str = "kept-by";
        let found = self.small(NAME)?.unwrap_or_default();
        let by = String::from_utf8_lossy(&found);
        let by = by.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        if by == command {
            return Ok(());
        }
        // A partial name after a power failure or on a full disk does not count.
        if KEEPERS.iter().any(|keeper| *keeper != by && keeper.starts_with(by)) {
            return self.put_small(NAME, command.as_bytes());
        }
        Err(FolderError::Kept { path: self.path.clone(), by: by.to_owned() })
    }

    /// Random bytes that are fixed for the folder, for the hashes of addresses.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn salt(&self) -> Result<[u8; 16], FolderError> {
        const NAME: &str = "salt";
        if let Some(Ok(salt)) = self.small(NAME)?.map(TryInto::try_into) {
            return Ok(salt);
        }
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| FolderError::Io {
            path: self.path.join(NAME),
            source: std::io::Error::other(error),
        })?;
        self.put_small(NAME, &salt)?;
        Ok(salt)
    }

    /// A small file about the folder, if it exists.
    fn small(&self, name: &str) -> Result<Option<Vec<u8>>, FolderError> {
        let path = self.path.join(name);
        absent_as_none(fs::read(&path)).map_err(|source| FolderError::Io { path, source })
    }

    /// Writes such a file, complete or not at all.
    fn put_small(&self, name: &str, content: &[u8]) -> Result<(), FolderError> {
        let path = self.path.join(name);
        let incoming = self.path.join(format!("{name}.incoming"));
        write_durably(&path, &incoming, content).map_err(|source| FolderError::Io { path, source })
    }

    /// Opens the queues. `longest_retry` is the maximum delay of a verdict, and `retry_delay` the delay of a message that
    /// got none, after this number of attempts.
    ///
    /// # Errors
    ///
    /// If the database cannot be opened.
    pub fn queue(
        &self,
        longest_retry: impl Fn(QueueName) -> Duration,
        retry_delay: impl Fn(u32) -> Duration + Send + Sync + 'static,
    ) -> Result<SqliteQueue, FolderError> {
        let path = self.path.join(QUEUE);
        let (queue, thread) = SqliteQueue::open(&path, longest_retry, retry_delay)
            .map_err(|source| FolderError::Database { path, source })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(queue)
    }

    /// Writes the address at which its process listens into the folder, for [`DataFolder::listening`].
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn announce(&self, address: SocketAddr) -> Result<(), FolderError> {
        self.put_small("listening", address.to_string().as_bytes())
    }

    /// The address at which the folder's process listens; `None` if no process has locked it.
    pub fn listening(path: &Path) -> Option<SocketAddr> {
        let lock = File::open(path.join("lock")).ok()?;
        match lock.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                fs::read_to_string(path.join("listening")).ok()?.trim().parse().ok()
            }
            _ => None,
        }
    }

    /// The object store.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn objects(&self) -> Result<Files, FolderError> {
        let path = self.path.join(BODIES);
        Files::open(path.clone()).map_err(|source| FolderError::Io { path, source })
    }

    /// Opens the data of a folder for reading, whether or not a process has locked it. Nothing in the folder changes.
    ///
    /// # Errors
    ///
    /// [`FolderError::Empty`] if there is no data, or an error if this user may not read it.
    pub fn read(path: &Path) -> Result<Reader, FolderError> {
        Reader::open(path)
    }

    /// Opens the application's database for a manual change, beside the process that has locked the folder.
    ///
    /// # Errors
    ///
    /// If the folder has no data yet, or the database cannot be opened.
    pub fn write(path: &Path) -> Result<Connection, FolderError> {
        let (folder, path) = (path, path.join(DATA));
        there(folder, &path)?;
        let open = || {
            let database = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            database.busy_timeout(Duration::from_secs(5))?;
            Ok(database)
        };
        open().map_err(|source| FolderError::Database { path: path.clone(), source })
    }
}

/// Whether any event has reached the database.
fn has_events(database: &Connection) -> rusqlite::Result<bool> {
    database.query_row(
        "SELECT EXISTS (SELECT 1 FROM events) OR EXISTS (SELECT 1 FROM dead_letters) OR EXISTS (SELECT 1 FROM activity)",
        [],
        |row| row.get(0),
    )
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use hookmill_core::queue::Queue as _;

    use super::*;

    #[test]
    fn the_salt_is_fixed_for_the_folder() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let salt =
            |folder: &tempfile::TempDir| DataFolder::lock(folder.path()).unwrap().salt().unwrap();
        assert_eq!(salt(&one), salt(&one));
        assert_ne!(salt(&one), salt(&other));
    }

    #[test]
    fn a_partial_file_counts_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let data = DataFolder::lock(folder.path()).unwrap();
        for left in ["", " \n", "\0\0\0\0\0", "se", "d"] {
            fs::write(path("kept-by"), left).unwrap();
            data.keep_for("serve").unwrap();
            assert_eq!(fs::read_to_string(path("kept-by")).unwrap(), "serve");
        }
        for left in [&b""[..], b"short", &[0; 17]] {
            fs::write(path("salt"), left).unwrap();
            let salt = data.salt().unwrap();
            assert_eq!(fs::read(path("salt")).unwrap(), salt);
        }
        fs::write(path("listening"), "127.0.0.1:").unwrap();
        assert_eq!(DataFolder::listening(folder.path()), None);
        let address = SocketAddr::from(([127, 0, 0, 1], 8787));
        data.announce(address).unwrap();
        assert_eq!(DataFolder::listening(folder.path()), Some(address));
        // No temporary files are left.
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["kept-by", "listening", "lock", "salt"]);
    }

    #[test]
    fn a_folder_belongs_to_one_command() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::lock(folder.path()).unwrap();
        data.keep_for("dev").unwrap();
        data.keep_for("dev").unwrap();
        assert!(matches!(data.keep_for("serve"), Err(FolderError::Kept { by, .. }) if by == "dev"));
        // Names from an older or a later version.
        for by in ["dev\n", "another"] {
            fs::write(folder.path().join("kept-by"), by).unwrap();
            assert!(matches!(data.keep_for("serve"), Err(FolderError::Kept { .. })), "{by}");
        }
    }

    #[tokio::test]
    async fn the_databases_are_closed_when_the_folder_is_free() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..50 {
            let data = DataFolder::lock(folder.path()).unwrap();
            let store = data.store(&hookmill_migrations::own()).unwrap().store;
            let queue = data.queue(|_| Duration::from_secs(1), |_| Duration::ZERO).unwrap();
            store.check().await.unwrap();
            queue.sender(QueueName::Events).send(vec!["a".into()]).await.unwrap();
            drop((store, queue, data));
            let names =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            assert_eq!(names, ["data.db", "lock", "queue.db"]);
        }
    }

    #[test]
    fn a_missing_database_is_reported_and_not_created_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let own = hookmill_migrations::own();
        let lost = |data: &DataFolder| match data.store(&own) {
            Err(FolderError::Lost { missing, .. }) => missing,
            other => panic!("{:?}", other.err()),
        };
        // `migrate` opens the store alone, and no event has arrived.
        let data = DataFolder::lock(folder.path()).unwrap();
        data.store(&own).unwrap();
        data.store(&own).unwrap();
        drop(data.queue(|_| Duration::from_secs(1), |_| Duration::ZERO).unwrap());
        data.store(&own).unwrap();
        let database = Connection::open(path(DATA)).unwrap();
        database
            .execute_batch("INSERT INTO activity (minute, source, outcome, events, lag) VALUES (1, 's', 'applied', 1, 0)")
            .unwrap();
        drop((database, data));
        let data = DataFolder::lock(folder.path()).unwrap();
        for (name, aside) in [(QUEUE, "queue.aside"), (DATA, "data.aside")] {
            fs::rename(path(name), path(aside)).unwrap();
            assert_eq!(lost(&data), path(name));
            assert!(!path(name).exists());
            let read = DataFolder::read(folder.path());
            assert_eq!(matches!(read, Err(FolderError::Lost { .. })), name == DATA, "{read:?}");
            fs::rename(path(aside), path(name)).unwrap();
        }
        data.store(&own).unwrap();
    }

    #[test]
    fn looking_for_the_address_does_not_keep_a_process_from_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        drop(DataFolder::lock(folder.path()).unwrap());
        let look = File::open(folder.path().join("lock")).unwrap();
        look.try_lock_shared().unwrap();
        std::thread::scope(|scope| {
            let locked = scope.spawn(|| DataFolder::lock(folder.path()).map(drop));
            drop(look);
            locked.join().unwrap().unwrap();
        });
    }
}
