//! The store on SQLite.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hookmill_core::panics::Panicked;
use hookmill_core::store::{Param, Row, Rows, Statement, Store, StoreError};
use rusqlite::types::{Null, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::checkpoint::Checkpoints;
use crate::private::create_if_absent;

/// The time that a connection waits for another process's lock.
const BUSY: Duration = Duration::from_secs(5);

/// The maximum number of concurrent readers. Each holds a connection.
const READERS: usize = 4;

/// The application's database: one connection writes, and others read beside it.
#[derive(Clone)]
pub struct Sqlite(Arc<Connections>);

struct Connections {
    // Dropped before the writer, whose connection is the last one and removes the log.
    readers: Mutex<Vec<Connection>>,
    /// The path for readers; a database in memory has only its writer's connection.
    path: Option<PathBuf>,
    reading: Arc<Semaphore>,
    writer: Mutex<Writer>,
}

struct Writer {
    // Dropped before the database, for the same reason.
    checkpoints: Option<Checkpoints>,
    database: Connection,
}

/// Opens a database for durable writing: a commit is on disk when it returns. A new one is private, and gets this page size.
pub(crate) fn open(path: &Path, page_bytes: u32) -> rusqlite::Result<Connection> {
    // If this fails, SQLite says why.
    let _ = create_if_absent(path);
    let database = Connection::open(path)?;
    database.pragma_update(None, "page_size", page_bytes)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.pragma_update(None, "foreign_keys", true)?;
    database.busy_timeout(BUSY)?;
    Ok(database)
}

impl Sqlite {
    /// A store on an open and migrated database.
    pub fn new(database: Connection) -> Self {
        Self::of(database, None)
    }

    /// The same, with checkpoints that do not block its transactions.
    pub(crate) fn with_checkpoints(database: Connection, checkpoints: Checkpoints) -> Self {
        Self::of(database, Some(checkpoints))
    }

    fn of(database: Connection, checkpoints: Option<Checkpoints>) -> Self {
        // Only a connection that has read opens the log, and removes it when it is the last to close. A reader cannot.
        let _ = database.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
        Self(Arc::new(Connections {
            readers: Mutex::default(),
            path: database.path().filter(|path| !path.is_empty()).map(PathBuf::from),
            reading: Arc::new(Semaphore::new(READERS)),
            writer: Mutex::new(Writer { checkpoints, database }),
        }))
    }

    /// Whether the database accepts a writer.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.execute(vec![Statement::new("SELECT 1 FROM events LIMIT 1", Vec::new())])
            .await
            .map(drop)
    }
}

impl Store for Sqlite {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let connections = self.0.clone();
        blocking(move || connections.write(&statements)).await
    }

    async fn query(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let connections = self.0.clone();
        let Some(path) = connections.path.clone() else { return self.execute(statements).await };
        // The semaphore is never closed. The permit is released when the work ends, even if the caller no longer waits.
        let turn = self.0.reading.clone().acquire_owned().await;
        blocking(move || {
            let rows = connections.read(&path, &statements);
            drop(turn);
            rows
        })
        .await
    }
}

impl Connections {
    fn write(&self, statements: &[Statement]) -> Result<Vec<Rows>, StoreError> {
        let Writer { checkpoints, database } = &mut *locked(&self.writer);
        let rows = transaction(database, TransactionBehavior::Immediate, statements)?;
        if let Some(checkpoints) = checkpoints {
            checkpoints.keep_short(database);
        }
        Ok(rows)
    }

    fn read(&self, path: &Path, statements: &[Statement]) -> Result<Vec<Rows>, StoreError> {
        let idle = locked(&self.readers).pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => open_reader(path).map_err(|error| store_error(&error))?,
        };
        let rows = transaction(&mut reader, TransactionBehavior::Deferred, statements);
        locked(&self.readers).push(reader);
        rows
    }
}

/// Locks. A poisoned lock means a panic between two transactions, and the connection has rolled back.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that reads beside the writer of the same process.
fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reader = Connection::open_with_flags(path, flags)?;
    reader.busy_timeout(BUSY)?;
    Ok(reader)
}

/// Runs blocking work on another thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|_| Err(StoreError::Unavailable(Panicked.to_string())))
}

/// Executes statements in one transaction.
///
/// # Errors
///
/// The database's error; then nothing is written.
pub fn transaction(
    database: &mut Connection,
    behavior: TransactionBehavior,
    statements: &[Statement],
) -> Result<Vec<Rows>, StoreError> {
    carry_out(database, behavior, statements).map_err(|error| store_error(&error))
}

pub(crate) fn carry_out(
    database: &mut Connection,
    behavior: TransactionBehavior,
    statements: &[Statement],
) -> rusqlite::Result<Vec<Rows>> {
    let transaction = database.transaction_with_behavior(behavior)?;
    let mut results = Vec::with_capacity(statements.len());
    for statement in statements {
        let mut prepared = transaction.prepare_cached(&statement.sql)?;
        results.push(rows(&mut prepared, &statement.params)?);
    }
    transaction.commit()?;
    Ok(results)
}

/// The rows that a statement returns with these parameters.
///
/// # Errors
///
/// If SQLite fails.
pub fn rows(prepared: &mut rusqlite::Statement<'_>, params: &[Param]) -> rusqlite::Result<Rows> {
    // SQLite treats a parameter that is not bound as NULL.
    if params.len() != prepared.parameter_count() {
        let (given, needed) = (params.len(), prepared.parameter_count());
        return Err(rusqlite::Error::InvalidParameterCount(given, needed));
    }
    for (index, param) in params.iter().enumerate() {
        match param {
            Param::Null => prepared.raw_bind_parameter(index + 1, Null)?,
            Param::Integer(integer) => prepared.raw_bind_parameter(index + 1, integer)?,
            Param::Text(text) => prepared.raw_bind_parameter(index + 1, text)?,
        }
    }
    let columns: Arc<[String]> = prepared.column_names().map(ToOwned::to_owned).collect();
    let mut returned = prepared.raw_query();
    let mut rows = Vec::new();
    while let Some(row) = returned.next()? {
        let values = (0..columns.len()).map(|index| Ok(value(row.get_ref(index)?)));
        rows.push(Row::new(columns.clone(), values.collect::<rusqlite::Result<_>>()?));
    }
    Ok(rows)
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into(),
    }
}

/// Classifies an error of SQLite by its code: <https://www.sqlite.org/rescode.html>.
pub(crate) fn store_error(error: &rusqlite::Error) -> StoreError {
    let code = match error {
        rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
        error => error.sqlite_error_code(),
    };
    match code {
        Some(ErrorCode::Unknown) => StoreError::from_sqlite_error(message(error)),
        Some(
            ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::ParameterOutOfRange,
        ) => StoreError::Refused(message(error)),
        _ => StoreError::Unavailable(message(error)),
    }
}

/// SQLite's message, without the statement.
pub(crate) fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reading_does_not_wait_for_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.db");
        let database = open(&path, 4096).unwrap();
        database.execute_batch("CREATE TABLE t (n INTEGER) STRICT").unwrap();
        let store = Sqlite::new(database);
        let other = open(&path, 4096).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let write = Statement::new("INSERT INTO t VALUES (?1)", vec![Param::Integer(7)]);
        let writing = tokio::spawn({
            let store = store.clone();
            async move { store.execute(vec![write]).await }
        });
        let count = || vec![Statement::new("SELECT n FROM t", Vec::new())];
        for _ in 0..2 * READERS {
            assert_eq!(store.query(count()).await.unwrap(), [Rows::new()]);
        }
        assert!(!writing.is_finished());
        other.execute_batch("ROLLBACK").unwrap();
        writing.await.unwrap().unwrap();
        assert_eq!(store.query(count()).await.unwrap()[0][0].texts(), [Some("7".to_owned())]);
    }

    #[tokio::test]
    async fn queries_alone_create_no_files_beside_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.db");
        let database = open(&path, 4096).unwrap();
        database.execute_batch("CREATE TABLE t (n INTEGER) STRICT").unwrap();
        drop(database);
        let store = Sqlite::new(open(&path, 4096).unwrap());
        store.query(vec![Statement::new("SELECT n FROM t", Vec::new())]).await.unwrap();
        drop(store);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[tokio::test]
    async fn a_statement_needs_all_of_its_parameters() {
        let store = Sqlite::new(Connection::open_in_memory().unwrap());
        for params in [Vec::new(), vec![Param::Null, Param::Null]] {
            store.execute(vec![Statement::new("SELECT ?1", params)]).await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_reader_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let database = open(&folder.path().join("data.db"), 4096).unwrap();
        database.execute_batch("CREATE TABLE t (n INTEGER) STRICT").unwrap();
        let store = Sqlite::new(database);
        let write = Statement::new("INSERT INTO t VALUES (1)", Vec::new());
        store.query(vec![write]).await.unwrap_err();
    }

    #[tokio::test]
    async fn the_code_of_an_error_decides_whether_to_retry() {
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch("CREATE TABLE t (n INTEGER NOT NULL) STRICT").unwrap();
        let store = Sqlite::new(database);
        let error = async |sql: &str| {
            store.execute(vec![Statement::new(sql, Vec::new())]).await.unwrap_err()
        };
        for sql in ["INSERT INTO t VALUES (NULL)", "INSERT INTO t VALUES ('x')", "SELECT '{' -> 0"]
        {
            let error = error(sql).await;
            assert!(matches!(error, StoreError::Refused(_)), "{sql}: {error}");
        }
        for sql in ["SELECT * FROM u", "SELECT m FROM t", "INSERT INTO t (m) VALUES (1)"] {
            let error = error(sql).await;
            assert!(matches!(error, StoreError::NotReady(_)), "{sql}: {error}");
        }
    }
}
