//! The store on SQLite.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hookmill_core::panics::{Panicked, caught};
use hookmill_core::store::{Param, Row, Rows, Statement, Store, StoreError, read_json};
use rusqlite::config::DbConfig;
use rusqlite::types::{Null, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::checkpoint::Checkpoints;
use crate::now;
use crate::private::create_if_absent;

/// The time that a connection waits for another process's lock.
const BUSY: Duration = Duration::from_secs(5);
/// The same for a transaction after one that found the database unavailable. Transactions come one after the other, so with
/// the longer time the last of ten would wait for a minute.
const BUSY_AGAIN: Duration = Duration::from_millis(250);

/// The maximum number of concurrent readers of the pipeline, and of questions. Each holds a connection.
const READERS: usize = 4;

/// The maximum time of a question.
const QUESTION: Duration = Duration::from_secs(5);
/// The number of instructions of SQLite's virtual machine between two looks at the clock; they take less than a millisecond.
const LOOK: i32 = 10_000;

/// The time that a probe of the writer has before its caller gets the known answer.
const PROBE: Duration = Duration::from_secs(1);
/// The time after which a transaction counts as stuck: longer than [`BUSY`], and than any batch takes.
const STUCK: Duration = Duration::from_secs(30);

/// The application's database: one connection writes, and others read beside it.
#[derive(Clone)]
pub struct Sqlite {
    connections: Arc<Connections>,
    lane: Lane,
}

/// Who reads. Neither waits for the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Pipeline,
    /// Queries of people, with a time limit.
    Questions,
}

struct Connections {
    // Dropped before the writer, whose connection is the last one and removes the log.
    readers: Mutex<Vec<Connection>>,
    /// The path for readers; a database in memory has only its writer's connection.
    path: Option<PathBuf>,
    /// In the order of [`Lane`].
    reading: [Arc<Semaphore>; 2],
    writer: Mutex<Writer>,
    health: Health,
}

/// What is known about the writer, without waiting for it.
#[derive(Default)]
struct Health {
    /// The error of the last transaction, if the database was unavailable. Only a write clears it: a full disk can be read.
    failure: Mutex<Option<StoreError>>,
    /// When the running transaction began to wait for the database.
    since: Mutex<Option<Instant>>,
    /// Whether a probe is running.
    probing: AtomicBool,
}

impl Health {
    fn known(&self) -> Result<(), StoreError> {
        if locked(&self.since).is_some_and(|since| since.elapsed() > STUCK) {
            return Err(StoreError::Unavailable("a transaction does not end".into()));
        }
        locked(&self.failure).clone().map_or(Ok(()), Err)
    }
}

struct Writer {
    // Dropped before the database, for the same reason.
    checkpoints: Option<Checkpoints>,
    database: Connection,
}

/// The number of compiled statements that a connection keeps: more than all presets have, a few kilobytes each. SQLite would
/// compile the statements of a larger transaction again whenever it runs.
const STATEMENTS: usize = 1024;

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
    database.set_prepared_statement_cache_capacity(STATEMENTS);
    plan_once(&database)?;
    Ok(database)
}

/// Makes SQLite plan each statement once. Otherwise it compiles some statements again for every value of a parameter, such as a
/// limit. <https://www.sqlite.org/c3ref/c_dbconfig_defensive.html#sqlitedbconfigenableqpsg>
///
/// # Errors
///
/// If SQLite fails.
pub fn plan_once(database: &Connection) -> rusqlite::Result<()> {
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
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
        let connections = Connections {
            readers: Mutex::default(),
            path: database.path().filter(|path| !path.is_empty()).map(PathBuf::from),
            reading: [(); 2].map(|()| Arc::new(Semaphore::new(READERS))),
            writer: Mutex::new(Writer { checkpoints, database }),
            health: Health::default(),
        };
        Self { connections: Arc::new(connections), lane: Lane::Pipeline }
    }

    /// The same store for queries of people: they have connections of their own and a time limit, so that they hold up
    /// nothing else. A query that exceeds the limit is [`StoreError::TooSlow`].
    #[must_use]
    pub fn for_questions(&self) -> Self {
        Self { connections: self.connections.clone(), lane: Lane::Questions }
    }

    /// Whether the database accepts a writer. It writes only if the last transaction failed, so frequent checks cause no
    /// load. A check takes a second at most: while the database is locked, or another check waits for it, the answer is
    /// what the last transaction showed.
    ///
    /// # Errors
    ///
    /// The database's error.
    pub async fn check(&self) -> Result<(), StoreError> {
        let connections = self.connections.clone();
        if !connections.health.probing.swap(true, Ordering::Relaxed) {
            let probe = tokio::task::spawn_blocking(move || {
                let _ = caught(|| connections.probe());
                connections.health.probing.store(false, Ordering::Relaxed);
            });
            // The probe goes on without its caller.
            let _ = tokio::time::timeout(PROBE, probe).await;
        }
        self.connections.health.known()
    }
}

impl Store for Sqlite {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let connections = self.connections.clone();
        blocking(move || connections.write(&statements)).await
    }

    async fn query(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let (connections, lane) = (self.connections.clone(), self.lane);
        let Some(path) = connections.path.clone() else { return self.execute(statements).await };
        // The semaphore is never closed. The permit is released when the work ends, even if the caller no longer waits.
        let turn = self.connections.reading[lane as usize].clone().acquire_owned().await;
        blocking(move || {
            let rows = connections.read(&path, lane, &statements);
            drop(turn);
            rows
        })
        .await
    }

    async fn size(&self) -> Option<u64> {
        const SIZE: &str =
            "SELECT json_quote(page_count * page_size) FROM pragma_page_count, pragma_page_size";
        let rows = self.query(vec![Statement::new(SIZE, Vec::new())]).await.ok()?;
        read_json(rows.first()?).ok()?.pop()
    }
}

impl Connections {
    fn write(&self, statements: &[Statement]) -> Result<Vec<Rows>, StoreError> {
        self.writing(|database| {
            let before = database.total_changes();
            let rows = transaction(database, TransactionBehavior::Immediate, statements)?;
            Ok((rows, database.total_changes() > before))
        })
    }

    /// Finds out whether the database accepts a writer; after a failure, by writing.
    fn probe(&self) {
        // The outcome is recorded.
        let _ = self.writing(|database| {
            let writes = locked(&self.health.failure).is_some();
            let mut probe = || {
                let transaction =
                    database.transaction_with_behavior(TransactionBehavior::Immediate)?;
                if writes {
                    // The only write that changes no table. Hookmill does not use the number.
                    transaction.pragma_update(None, "user_version", 0)?;
                }
                transaction.commit()
            };
            probe().map_err(|error| store_error(&error))?;
            Ok(((), writes))
        });
    }

    /// Runs a transaction, which also returns whether it has written, and records whether the database was available.
    fn writing<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<(T, bool), StoreError>,
    ) -> Result<T, StoreError> {
        let Writer { checkpoints, database } = &mut *locked(&self.writer);
        let is_away = locked(&self.health.failure).is_some();
        // Setting the time does not fail.
        let _ = database.busy_timeout(if is_away { BUSY_AGAIN } else { BUSY });
        *locked(&self.health.since) = Some(Instant::now());
        let result = work(database);
        match &result {
            Ok((_, true)) => *locked(&self.health.failure) = None,
            Err(error @ StoreError::Unavailable(_)) => {
                *locked(&self.health.failure) = Some(error.clone());
            }
            _ => {}
        }
        // Last: a probe between the two would find neither.
        *locked(&self.health.since) = None;
        if let Some(checkpoints) = checkpoints {
            checkpoints.keep_short(database);
        }
        result.map(|(result, _)| result)
    }

    fn read(
        &self,
        path: &Path,
        lane: Lane,
        statements: &[Statement],
    ) -> Result<Vec<Rows>, StoreError> {
        let idle = locked(&self.readers).pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => open_reader(path).map_err(|error| store_error(&error))?,
        };
        let end = (lane == Lane::Questions).then(|| Instant::now() + QUESTION);
        let rows = limited(&mut reader, end, |reader| {
            transaction(reader, TransactionBehavior::Deferred, statements)
        });
        locked(&self.readers).push(reader);
        rows
    }
}

/// Runs queries, and interrupts them at this time.
fn limited<T>(
    reader: &mut Connection,
    end: Option<Instant>,
    ask: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let Some(end) = end else { return ask(reader) };
    let failed = |error| store_error(&error);
    reader.progress_handler(LOOK, Some(move || Instant::now() >= end)).map_err(failed)?;
    let rows = ask(reader);
    reader.progress_handler(0, None::<fn() -> bool>).map_err(failed)?;
    rows
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
    plan_once(&reader)?;
    Ok(reader)
}

/// The first damage that SQLite finds in a database; it reads the whole file. `stopped` ends the search without a result.
pub(crate) fn damage(path: &Path, stopped: Arc<AtomicBool>) -> rusqlite::Result<Option<String>> {
    let mut reader = open_reader(path)?;
    reader.progress_handler(LOOK, Some(move || stopped.load(Ordering::Relaxed)))?;
    match reader.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(found) if found == "ok" => Ok(None),
        Ok(found) => Ok(Some(found)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
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
            // The transaction has its lock.
            Param::Now => prepared.raw_bind_parameter(index + 1, now().millis())?,
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
        Some(ErrorCode::OperationInterrupted) => StoreError::TooSlow,
        Some(
            ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::ParameterOutOfRange,
        ) => StoreError::Refused(message(error)),
        _ => StoreError::unavailable(message(error)),
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
    use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

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

    /// Without the lock, another process that closes the database would remove its log, with what is in it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_second_connection_leaves_the_lock_of_the_first() {
        use std::os::unix::fs::MetadataExt as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.db");
        let mut database = open(&path, 4096).unwrap();
        database.execute_batch("CREATE TABLE t (n INTEGER) STRICT").unwrap();
        let _checkpoints = Checkpoints::start(&path, 4096, &mut database).unwrap();
        let (process, file) = (std::process::id(), std::fs::metadata(&path).unwrap().ino());
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let of_file = [format!(" {process} "), format!(":{file} ")];
        let held = |line: &str| of_file.iter().all(|part| line.contains(part));
        assert!(locks.lines().any(held), "{locks}");
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

    fn run(sql: &str) -> Vec<Statement> {
        vec![Statement::new(sql, Vec::new())]
    }

    #[tokio::test]
    async fn a_store_that_cannot_write_says_so_until_it_can() {
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch("CREATE TABLE t (n INTEGER) STRICT").unwrap();
        let store = Sqlite::new(database);
        let full = |is: bool| {
            let deny = |context: AuthContext<'_>| match context.action {
                AuthAction::Insert { .. } | AuthAction::Pragma { .. } => Authorization::Deny,
                _ => Authorization::Allow,
            };
            let mut writer = locked(&store.connections.writer);
            writer.database.authorizer(is.then_some(deny)).unwrap();
        };
        store.check().await.unwrap();
        full(true);
        store.check().await.unwrap();
        store.execute(run("INSERT INTO t VALUES (1)")).await.unwrap_err();
        store.check().await.unwrap_err();
        // Reading works.
        store.execute(run("SELECT n FROM t")).await.unwrap();
        store.check().await.unwrap_err();
        full(false);
        store.check().await.unwrap();
        // A write clears it as well; a rejected statement is no failure of the database.
        full(true);
        store.execute(run("INSERT INTO t VALUES (1)")).await.unwrap_err();
        full(false);
        store.execute(run("INSERT INTO t VALUES (1)")).await.unwrap();
        store.execute(run("INSERT INTO t VALUES ('x')")).await.unwrap_err();
        store.connections.health.known().unwrap();
    }

    #[tokio::test]
    async fn probes_of_a_locked_database_answer_from_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.db");
        let store = Sqlite::new(open(&path, 4096).unwrap());
        let other = open(&path, 4096).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let health = &store.connections.health;
        let waiting = || locked(&health.since).is_some();
        // The first one waits for the database, and the others do not: they would not end before the lock does.
        let first = tokio::spawn({
            let store = store.clone();
            async move { store.check().await }
        });
        while !waiting() {
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            store.check().await.unwrap();
        }
        assert!(waiting(), "the probe still waits");
        first.await.unwrap().unwrap();
        // It fails when it has waited long enough. From then on, the answer is known.
        while waiting() {
            tokio::task::yield_now().await;
        }
        store.check().await.unwrap_err();
        other.execute_batch("ROLLBACK").unwrap();
        while health.probing.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        store.check().await.unwrap();
    }

    #[tokio::test]
    async fn a_question_has_a_time_limit_and_leaves_its_connection_usable() {
        let mut reader = Connection::open_in_memory().unwrap();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let ask = |sql: &'static str| {
            move |reader: &mut Connection| {
                transaction(reader, TransactionBehavior::Deferred, &run(sql))
            }
        };
        let over = Some(Instant::now());
        assert_eq!(limited(&mut reader, over, ask(endless)), Err(StoreError::TooSlow));
        limited(&mut reader, None, ask("SELECT 1")).unwrap();
    }

    #[tokio::test]
    async fn questions_and_the_pipeline_do_not_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let database = open(&folder.path().join("data.db"), 4096).unwrap();
        database.execute_batch("CREATE TABLE t (n INTEGER) STRICT").unwrap();
        let store = Sqlite::new(database);
        let all = u32::try_from(READERS).unwrap();
        let questions = store.connections.reading[Lane::Questions as usize].clone();
        let _busy = questions.acquire_many_owned(all).await.unwrap();
        store.query(run("SELECT n FROM t")).await.unwrap();
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
