//! The store port: SQL in one transaction. Every statement lives in the stage that owns it.

use std::future::Future;
use std::sync::Arc;

use thiserror::Error;

/// A statement with its parameters, `?1` first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// SQL text. It is never built from a payload.
    pub sql: Arc<str>,
    /// Bound values; text only, since whole batches travel as one JSON array.
    pub params: Vec<String>,
}

impl Statement {
    /// A statement with one parameter.
    pub fn new(sql: impl Into<Arc<str>>, param: String) -> Self {
        Self {
            sql: sql.into(),
            params: vec![param],
        }
    }
}

/// The rows that a statement returned (`SELECT`, `RETURNING`): the text of each column, in order.
pub type Rows = Vec<Vec<Option<String>>>;

/// Why a transaction did not happen. Nothing of it was written.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StoreError {
    /// The store cannot do it now: try again later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store will not do it, however often it is asked: a constraint, a value of the wrong type.
    #[error("the store refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Classifies what SQLite says, directly or through D1.
    ///
    /// A missing table or column is a migration that has not been applied yet: it heals, so it is `Unavailable`.
    /// Sources: <https://www.sqlite.org/rescode.html>, <https://developers.cloudflare.com/d1/observability/debug-d1/>.
    pub fn from_text(text: &str) -> Self {
        const REFUSED: [&str; 7] = [
            "SQLITE_CONSTRAINT",
            "SQLITE_ERROR",
            "SQLITE_MISMATCH",
            "SQLITE_TOOBIG",
            "SQLITE_RANGE",
            "D1_TYPE_ERROR",
            "constraint failed",
        ];
        const HEALS: [&str; 3] = ["no such table", "no such column", "has no column named"];
        let refused = REFUSED.iter().any(|mark| text.contains(mark))
            && !HEALS.iter().any(|mark| text.contains(mark));
        let text = text.to_owned();
        if refused {
            Self::Refused(text)
        } else {
            Self::Unavailable(text)
        }
    }
}

/// Runs SQL.
pub trait Store: Send + Sync {
    /// Runs every statement in order in one transaction, or none of them. Answers with each statement's rows.
    fn execute(
        &self,
        statements: &[Statement],
    ) -> impl Future<Output = Result<Vec<Rows>, StoreError>> + Send;
}
