//! The read access of commands to a data folder, beside the process that has locked it. Nothing in the folder is created,
//! changed or removed.
//!
//! That takes more than a read-only connection. Beside a database in WAL mode SQLite creates the files `-wal` and `-shm`,
//! even for a reader. So there are two ways to read, and the write-ahead log decides:
//!
//! - The log has content: the database is opened with `readonly_shm`, whether or not a process writes to it. SQLite
//!   coordinates readers and writers; if the last process was killed, it reads the log into memory.
//! - The log is empty or missing: all of the data is in one file, which does not change until the log has content. It is
//!   opened as `immutable`, without locks. If the file has changed afterwards, a process has started meanwhile, and the
//!   query is repeated.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hookmill_core::store::{Rows, Statement, Store, StoreError};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::durable::absent_as_none;
use crate::files::Bodies;
use crate::folder::{BODIES, DATA, FolderError, QUEUE};
use crate::sqlite::{blocking, carry_out, store_error};

/// The maximum number of repetitions because the file has changed meanwhile. One is enough, unless processes start and end
/// all the time.
const LOOKS: usize = 10;

/// The time that one attempt allows a process to remove the log after the log's index.
const PAUSE: Duration = Duration::from_millis(10);

/// Characters of a path that a URI escapes: <https://www.sqlite.org/uri.html>.
const IN_URI: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');

/// The data of a folder, read-only.
#[derive(Clone, Debug)]
pub struct Reader(PathBuf);

impl Reader {
    /// Checks that there is data, and that it can be read.
    pub(crate) fn open(folder: &Path) -> Result<Self, FolderError> {
        let (data, queue) = (folder.join(DATA), folder.join(QUEUE));
        match there(folder, &data) {
            Err(FolderError::Empty(_)) if queue.exists() => {
                return Err(FolderError::Lost { missing: data, there: queue });
            }
            found => found?,
        }
        for path in
            [DATA, QUEUE].map(|name| folder.join(name)).into_iter().filter(|path| path.exists())
        {
            look(&path, |database| {
                database.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
            })
            .map_err(|error| match File::open(&path) {
                Err(denied) if denied.kind() == ErrorKind::PermissionDenied => {
                    FolderError::Denied(path)
                }
                _ => error,
            })?;
        }
        Ok(Self(folder.to_owned()))
    }

    /// Queries the application's database. If the database changes at a bad moment, `ask` is called again, and its first
    /// result dropped.
    ///
    /// # Errors
    ///
    /// If the database cannot be read.
    pub fn data<T>(
        &self,
        ask: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, FolderError> {
        look(&self.0.join(DATA), ask)
    }

    /// Queries the database of the queues in the same way.
    ///
    /// # Errors
    ///
    /// If the folder has no data yet, or the database cannot be read.
    pub fn queue<T>(
        &self,
        ask: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, FolderError> {
        let path = self.0.join(QUEUE);
        there(&self.0, &path)?;
        look(&path, ask)
    }

    /// The bodies of large events.
    pub fn bodies(&self) -> Bodies {
        Bodies::new(self.0.join(BODIES))
    }
}

impl Store for Reader {
    /// Statements that would write are rejected.
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let reader = self.clone();
        blocking(move || {
            let ask = |database: &mut Connection| {
                carry_out(database, TransactionBehavior::Deferred, &statements)
            };
            reader.data(ask).map_err(|error| match error {
                FolderError::Database { source, .. } => store_error(&source),
                error => StoreError::Unavailable(error.to_string()),
            })
        })
        .await
    }
}

/// Whether a database is in a folder. It is not opened: SQLite's locks belong to the process, so closing it would release
/// those of another connection.
pub(crate) fn there(folder: &Path, path: &Path) -> Result<(), FolderError> {
    fs::metadata(path).map(drop).map_err(|source| match source.kind() {
        ErrorKind::NotFound => FolderError::Empty(folder.to_owned()),
        ErrorKind::PermissionDenied => FolderError::Denied(path.to_owned()),
        _ => FolderError::Io { path: path.to_owned(), source },
    })
}

/// The time of the last change of a database and its size, if its log has no content.
fn at_rest(path: &Path) -> std::io::Result<Option<(SystemTime, u64)>> {
    let log = absent_as_none(fs::metadata(beside(path, "-wal")))?;
    let database = fs::metadata(path)?;
    let empty = log.is_none_or(|log| log.len() == 0);
    Ok(empty.then_some((database.modified()?, database.len())))
}

/// A file that SQLite keeps beside a database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn look<T>(
    path: &Path,
    mut ask: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
) -> Result<T, FolderError> {
    let io = |source| FolderError::Io { path: path.to_owned(), source };
    let mut left = LOOKS;
    loop {
        left -= 1;
        let before = at_rest(path).map_err(io)?;
        let answer = connect(path, before.is_some()).and_then(|mut database| ask(&mut database));
        let after = at_rest(path).map_err(io)?;
        // A process that closes the database removes the index of the log before the log, so it may be about to do that.
        let unclosed = before.is_none() && answer.is_err() && !beside(path, "-shm").exists();
        let counts = match before {
            None => answer.is_ok() || (after.is_none() && !unclosed),
            before => before == after,
        };
        if counts || left == 0 {
            return answer.map_err(|source| {
                if unclosed {
                    FolderError::Unclosed(path.to_owned())
                } else {
                    FolderError::Database { path: path.to_owned(), source }
                }
            });
        }
        if unclosed {
            std::thread::sleep(PAUSE);
        }
    }
}

fn connect(path: &Path, at_rest: bool) -> rusqlite::Result<Connection> {
    let shown = percent_encode(path.as_os_str().as_encoded_bytes(), IN_URI);
    let way = if at_rest { "immutable=1" } else { "readonly_shm=1" };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let database = Connection::open_with_flags(format!("file:{shown}?mode=ro&{way}"), flags)?;
    database.busy_timeout(Duration::from_secs(5))?;
    Ok(database)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::folder::DataFolder;

    /// The files of a folder: sizes and times of the last change.
    fn files(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
        let files = fs::read_dir(folder).unwrap().map(|entry| {
            let entry = entry.unwrap();
            let file = entry.metadata().unwrap();
            (entry.path(), (file.len(), file.modified().unwrap()))
        });
        files.collect()
    }

    fn write(database: &Connection, number: u32) {
        database.execute("INSERT INTO t VALUES (?1)", [number]).unwrap();
    }

    fn sum(database: &mut Connection) -> rusqlite::Result<u32> {
        database.query_row("SELECT coalesce(sum(n), 0) FROM t", [], |row| row.get(0))
    }

    #[test]
    fn a_database_is_read_without_a_change() {
        // Characters that a URI must escape.
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("50% a?b#c é");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("x.db");
        let writer = crate::sqlite::open(&path, 4096).unwrap();
        writer.execute_batch("CREATE TABLE t (n INTEGER NOT NULL) STRICT").unwrap();
        write(&writer, 1);
        // Another process has it open.
        let before = files(&folder);
        assert_eq!(look(&path, sum).unwrap(), 1);
        assert_eq!(before.keys().collect::<Vec<_>>(), files(&folder).keys().collect::<Vec<_>>());
        let refused = look(&path, |database| database.execute("DELETE FROM t", []));
        assert!(matches!(refused, Err(FolderError::Database { .. })), "{refused:?}");
        // It was killed: the log and its index remain.
        let killed = parent.path().join("killed");
        fs::create_dir(&killed).unwrap();
        for name in ["x.db", "x.db-wal", "x.db-shm"] {
            fs::copy(folder.join(name), killed.join(name)).unwrap();
        }
        let before = files(&killed);
        assert_eq!(look(&killed.join("x.db"), sum).unwrap(), 1);
        assert_eq!(before, files(&killed));
        // The index was lost.
        fs::remove_file(killed.join("x.db-shm")).unwrap();
        let unclosed = look(&killed.join("x.db"), sum);
        assert!(matches!(unclosed, Err(FolderError::Unclosed(_))), "{unclosed:?}");
        // It was closed.
        drop(writer);
        let before = files(&folder);
        assert_eq!(before.len(), 1, "{before:?}");
        assert_eq!(look(&path, sum).unwrap(), 1);
        assert_eq!(before, files(&folder));
    }

    #[test]
    fn a_query_is_repeated_if_a_process_writes_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let open = || crate::sqlite::open(&path, 4096).unwrap();
        let writer = open();
        writer.execute_batch("CREATE TABLE t (n INTEGER NOT NULL) STRICT").unwrap();
        drop(writer);
        let mut looks = 0;
        let found = look(&path, |database| {
            looks += 1;
            let found = sum(database);
            match looks {
                // Opens, writes, and stays; then closes, and leaves all data in one file.
                1 => {
                    let writer = open();
                    write(&writer, 1);
                    std::mem::forget(writer);
                }
                2 => drop(open()),
                _ => {}
            }
            found
        });
        assert_eq!((found.unwrap(), looks), (1, 2));
    }

    #[tokio::test]
    async fn a_reader_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::lock(folder.path()).unwrap();
        data.store(&hookmill_migrations::own()).unwrap();
        data.queue(|_| Duration::from_secs(1), |_| Duration::ZERO).unwrap();
        let reader = DataFolder::read(folder.path()).unwrap();
        let run = |sql: &str| reader.execute(vec![Statement::new(sql, Vec::new())]);
        assert_eq!(
            run("SELECT count(*) FROM events").await.unwrap()[0][0].texts(),
            [Some("0".to_owned())]
        );
        run("DELETE FROM events").await.unwrap_err();
    }
}
