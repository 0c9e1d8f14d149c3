//! The store on SQLite.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookmill_core::store::{Rows, Statement, Store, StoreError};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params_from_iter};

use crate::checkpoint::Checkpoints;

/// The application's database.
#[derive(Clone)]
pub struct Sqlite(Arc<Mutex<Writer>>);

struct Writer {
    // Dropped before the database, so that the writer's connection is the last one and removes the log.
    checkpoints: Option<Checkpoints>,
    database: Connection,
}

/// Opens a database for durable writing: a commit is on the disk when it returns. A new one gets pages of this size.
pub(crate) fn open(path: &Path, page_bytes: u32) -> rusqlite::Result<Connection> {
    let database = Connection::open(path)?;
    database.pragma_update(None, "page_size", page_bytes)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.pragma_update(None, "foreign_keys", true)?;
    database.busy_timeout(Duration::from_secs(5))?;
    Ok(database)
}

impl Sqlite {
    /// A store on a database that is open and migrated.
    pub fn new(database: Connection) -> Self {
        Self(Arc::new(Mutex::new(Writer { checkpoints: None, database })))
    }

    /// Likewise, whose checkpoints do not hold up its transactions.
    pub(crate) fn with_checkpoints(database: Connection, checkpoints: Checkpoints) -> Self {
        Self(Arc::new(Mutex::new(Writer { checkpoints: Some(checkpoints), database })))
    }

    /// Whether the database answers.
    ///
    /// # Errors
    ///
    /// What it says instead.
    pub async fn check(&self) -> Result<(), StoreError> {
        let statement =
            Statement { sql: "SELECT 1 FROM events LIMIT 1".into(), params: Vec::new() };
        self.execute(vec![statement]).await.map(drop)
    }
}

impl Store for Sqlite {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let writer = self.0.clone();
        let run = move || {
            // A poisoned lock is a panic between two transactions; the connection itself rolled back.
            let mut writer = writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Writer { checkpoints, database } = &mut *writer;
            let rows = transaction(database, TransactionBehavior::Immediate, &statements)
                .map_err(|error| StoreError::from_text(&text(&error)))?;
            if let Some(checkpoints) = checkpoints {
                checkpoints.keep_short(database);
            }
            Ok(rows)
        };
        let result = tokio::task::spawn_blocking(run).await;
        result.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }
}

pub(crate) fn transaction(
    database: &mut Connection,
    behavior: TransactionBehavior,
    statements: &[Statement],
) -> rusqlite::Result<Vec<Rows>> {
    let transaction = database.transaction_with_behavior(behavior)?;
    let mut results = Vec::with_capacity(statements.len());
    for statement in statements {
        let mut prepared = transaction.prepare_cached(&statement.sql)?;
        let columns = prepared.column_count();
        let row =
            |row: &rusqlite::Row<'_>| (0..columns).map(|i| Ok(column(row.get_ref(i)?))).collect();
        let rows = prepared
            .query_map(params_from_iter(&statement.params), row)?
            .collect::<Result<_, _>>()?;
        results.push(rows);
    }
    transaction.commit()?;
    Ok(results)
}

fn column(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            Some(String::from_utf8_lossy(text).into_owned())
        }
    }
}

/// What SQLite says, with the name of its code, as D1 writes it.
pub(crate) fn text(error: &rusqlite::Error) -> String {
    // Its own text would quote the whole statement.
    if let rusqlite::Error::SqlInputError { msg, .. } = error {
        return format!("{msg}: SQLITE_ERROR");
    }
    let code = match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => "SQLITE_CONSTRAINT",
        Some(ErrorCode::TypeMismatch) => "SQLITE_MISMATCH",
        Some(ErrorCode::TooBig) => "SQLITE_TOOBIG",
        Some(ErrorCode::ParameterOutOfRange) => "SQLITE_RANGE",
        Some(ErrorCode::Unknown) => "SQLITE_ERROR",
        _ => return error.to_string(),
    };
    format!("{error}: {code}")
}
