//! The folder that everything lies in, and that one process has at a time.

use std::fs::{self, File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hookmill_core::schema::Schema;
use hookmill_migrations::{Migration, MigrationError, apply, schema};
use rusqlite::{Connection, OpenFlags};
use thiserror::Error;

use crate::files::Files;
use crate::queue::{QueueName, SqliteQueue};
use crate::sqlite::{self, Sqlite};

/// The pages of the application's database, as SQLite has them by default.
const PAGE_BYTES: u32 = 4096;

/// A data folder, locked for as long as this value lives.
pub struct DataFolder {
    path: PathBuf,
    /// Holds the lock, which the system takes back when the process ends, however it ends.
    _lock: File,
}

/// A store that has been opened.
pub struct Opened {
    /// The store.
    pub store: Sqlite,
    /// The names of the migrations that were applied just now.
    pub applied: Vec<String>,
    /// What its tables are.
    pub schema: Schema,
}

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Another process has it.
    #[error(
        "{0} is in use by another hookmill; stop that one, or choose another folder with --data"
    )]
    InUse(PathBuf),
    /// There is no data in it.
    #[error(
        "there is no Hookmill data in {0}; `hookmill dev` or `hookmill serve` makes it, --data names it"
    )]
    Empty(PathBuf),
    /// It is for another command.
    #[error(
        "{path} is what `hookmill {by}` keeps: `dev` shows what `serve` sends, and each would take what waits for the other; --data names another folder"
    )]
    Kept {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        by: String,
    },
    /// It cannot be read or written.
    #[error("cannot use the folder {path}")]
    Io {
        /// The folder, or a file in it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One of its databases cannot be used.
    #[error("cannot use the database {path}")]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Its data cannot be brought up to date.
    #[error(transparent)]
    Migration(#[from] MigrationError),
}

/// Makes a folder for its owner alone: what is in it are customers' data.
fn create(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

impl DataFolder {
    /// Makes the folder if need be, and locks it.
    ///
    /// # Errors
    ///
    /// [`FolderError::InUse`] if another process has it.
    pub fn lock(path: &Path) -> Result<Self, FolderError> {
        let io = |source| FolderError::Io { path: path.to_owned(), source };
        create(path).map_err(io)?;
        let lock = File::create(path.join("lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// Opens the store after applying the migrations that it lacks.
    ///
    /// # Errors
    ///
    /// If the database cannot be opened, or a migration fails.
    pub fn store(&self, migrations: &[Migration]) -> Result<Opened, FolderError> {
        let path = self.path.join("data.db");
        let failed = |source| FolderError::Database { path: path.clone(), source };
        let mut database = sqlite::open(&path, PAGE_BYTES).map_err(failed)?;
        let applied = apply(&mut database, migrations)?;
        let schema = schema(&database).map_err(failed)?;
        Ok(Opened { store: Sqlite::new(database), applied, schema })
    }

    /// Makes it the folder of a command, unless it is that of another.
    ///
    /// # Errors
    ///
    /// [`FolderError::Kept`] if it is, or if the folder cannot be written.
    pub fn keep_for(&self, command: &str) -> Result<(), FolderError> {
        let path = self.path.join("kept-by");
        match fs::read_to_string(&path) {
            Ok(by) if by == command => Ok(()),
            Ok(by) => Err(FolderError::Kept { path: self.path.clone(), by }),
            Err(_) => fs::write(&path, command).map_err(|source| FolderError::Io { path, source }),
        }
    }

    /// Random bytes that stay the same as long as the folder does, for the hashes of addresses.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn salt(&self) -> Result<[u8; 16], FolderError> {
        let path = self.path.join("salt");
        let io = |source| FolderError::Io { path: path.clone(), source };
        if let Ok(Ok(salt)) = fs::read(&path).map(TryInto::try_into) {
            return Ok(salt);
        }
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| io(std::io::Error::other(error)))?;
        fs::write(&path, salt).map_err(io)?;
        Ok(salt)
    }

    /// Opens the queues. `longest_retry` says for how long a verdict may delay a message.
    ///
    /// # Errors
    ///
    /// If the database cannot be opened.
    pub fn queue(
        &self,
        longest_retry: impl Fn(QueueName) -> Duration,
    ) -> Result<SqliteQueue, FolderError> {
        let path = self.path.join("queue.db");
        SqliteQueue::open(&path, longest_retry)
            .map_err(|source| FolderError::Database { path, source })
    }

    /// Says in the folder where its process listens, for [`DataFolder::listening`].
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn announce(&self, address: SocketAddr) -> Result<(), FolderError> {
        let path = self.path.join("listening");
        fs::write(&path, address.to_string()).map_err(|source| FolderError::Io { path, source })
    }

    /// Where the process that has a folder listens; `None` if none has it.
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
        let path = self.path.join("bodies");
        Files::open(path.clone()).map_err(|source| FolderError::Io { path, source })
    }

    /// Opens the data of a folder for reading, whoever has it: the application's database, with the queues attached as
    /// `queue`.
    ///
    /// # Errors
    ///
    /// [`FolderError::Empty`] if there is no data.
    pub fn read(path: &Path) -> Result<Connection, FolderError> {
        let (data, queue) = (path.join("data.db"), path.join("queue.db"));
        if !data.exists() || !queue.exists() {
            return Err(FolderError::Empty(path.to_owned()));
        }
        let failed = |source| FolderError::Database { path: data.clone(), source };
        let database = Self::open(&data, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        database.execute("ATTACH ?1 AS queue", [queue.to_string_lossy()]).map_err(failed)?;
        Ok(database)
    }

    /// Opens the application's database for a change by hand, beside whoever has the folder.
    ///
    /// # Errors
    ///
    /// If nothing has run in it yet, or the database cannot be opened.
    pub fn write(path: &Path) -> Result<Connection, FolderError> {
        let data = path.join("data.db");
        if !data.exists() {
            return Err(FolderError::Empty(path.to_owned()));
        }
        Self::open(&data, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    fn open(path: &Path, flags: OpenFlags) -> Result<Connection, FolderError> {
        let flags = flags | OpenFlags::SQLITE_OPEN_URI;
        let failed = |source| FolderError::Database { path: path.to_owned(), source };
        let database = Connection::open_with_flags(path, flags).map_err(failed)?;
        database.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
        Ok(database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_salt_stays_as_long_as_the_folder() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let salt =
            |folder: &tempfile::TempDir| DataFolder::lock(folder.path()).unwrap().salt().unwrap();
        assert_eq!(salt(&one), salt(&one));
        assert_ne!(salt(&one), salt(&other));
    }
}
