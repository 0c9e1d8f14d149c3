//! The store port: SQL in one transaction. Every statement lives in the stage that owns it.

use std::future::Future;
use std::sync::Arc;

use thiserror::Error;

use crate::limits::SQL_VALUE_BYTES;

/// A statement with its parameters, `?1` first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// SQL text. It is never built from a payload.
    pub sql: Arc<str>,
    /// Bound values; text only, since whole batches travel as one JSON array.
    pub params: Vec<String>,
}

impl Statement {
    /// The statement for some rows, each the text of a JSON array: `?1` is an array of them. Rows that are too long for one bound
    /// value become several statements.
    pub fn for_rows<'r>(sql: &Arc<str>, rows: impl IntoIterator<Item = &'r str>) -> Vec<Self> {
        Self::for_arrays(sql, rows.into_iter().map(|row| [row]).collect())
    }

    /// Likewise for rows with lists: `?2` is an array of the elements of all lists. Those of one row are given as texts with
    /// commas between them; a row and its elements stay in one statement.
    pub fn for_lists<'r>(
        sql: &Arc<str>,
        rows: impl IntoIterator<Item = (&'r str, &'r str)>,
    ) -> Vec<Self> {
        Self::for_arrays(sql, rows.into_iter().map(|(row, elements)| [row, elements]).collect())
    }

    fn for_arrays<const PARAMS: usize>(sql: &Arc<str>, rows: Vec<[&str; PARAMS]>) -> Vec<Self> {
        let mut statements: Vec<Self> = Vec::new();
        let mut left: [usize; PARAMS] =
            std::array::from_fn(|param| rows.iter().map(|row| row[param].len() + 1).sum());
        for row in rows {
            let fits = |statement: &Self| {
                let mut params = statement.params.iter().zip(row);
                params.all(|(param, text)| param.len() + text.len() + 2 <= SQL_VALUE_BYTES)
            };
            if !statements.last().is_some_and(fits) {
                let room = left.map(|bytes| (bytes + 1).min(SQL_VALUE_BYTES));
                let params = room.iter().zip(row).map(|(room, text)| {
                    let mut param = String::with_capacity(*room.max(&(text.len() + 2)));
                    param.push('[');
                    param
                });
                statements.push(Self { sql: sql.clone(), params: params.collect() });
            }
            let params = statements.last_mut().into_iter().flat_map(|it| &mut it.params);
            for ((param, text), left) in params.zip(row).zip(&mut left) {
                if param.len() > 1 && !text.is_empty() {
                    param.push(',');
                }
                param.push_str(text);
                *left -= text.len() + 1;
            }
        }
        for param in statements.iter_mut().flat_map(|statement| &mut statement.params) {
            param.push(']');
        }
        statements
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
    /// The store cannot do it yet: a table or column is missing, which a migration will bring. Other statements are not
    /// concerned.
    #[error("the store is not ready: {0}")]
    NotReady(String),
    /// The store will not do it, however often it is asked: a constraint, a value of the wrong type.
    #[error("the store refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Classifies what SQLite says, directly or through D1.
    ///
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
        const MISSING: [&str; 3] = ["no such table", "no such column", "has no column named"];
        let is_one_of = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        let make = match () {
            () if is_one_of(&MISSING) => Self::NotReady,
            () if is_one_of(&REFUSED) => Self::Refused,
            () => Self::Unavailable,
        };
        make(text.to_owned())
    }
}

/// Runs SQL.
pub trait Store: Send + Sync {
    /// Runs every statement in order in one transaction, or none of them. Answers with each statement's rows.
    fn execute(
        &self,
        statements: Vec<Statement>,
    ) -> impl Future<Output = Result<Vec<Rows>, StoreError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_arrays_that_fit_a_bound_value() {
        let sql: Arc<str> = "SQL".into();
        let params = |rows: &[&str]| -> Vec<String> {
            Statement::for_rows(&sql, rows.iter().copied())
                .into_iter()
                .flat_map(|s| s.params)
                .collect()
        };
        assert_eq!(params(&[]), Vec::<String>::new());
        assert_eq!(params(&["[1]", "[2]"]), ["[[1],[2]]"]);
        let long = format!("[\"{}\"]", "x".repeat(SQL_VALUE_BYTES / 2));
        assert_eq!(params(&[&long, &long, "[3]"]), [format!("[{long}]"), format!("[{long},[3]]")]);
    }

    #[test]
    fn a_row_and_the_elements_of_its_list_stay_in_one_statement() {
        let sql: Arc<str> = "SQL".into();
        let params = |rows: &[(&str, &str)]| -> Vec<Vec<String>> {
            Statement::for_lists(&sql, rows.iter().copied()).into_iter().map(|s| s.params).collect()
        };
        let lists = [("[1]", ""), ("[2]", "[2,1],[2,2]"), ("[3]", ""), ("[4]", "[4,1]")];
        assert_eq!(params(&lists), [["[[1],[2],[3],[4]]", "[[2,1],[2,2],[4,1]]"]]);
        assert_eq!(params(&[("[1]", "")]), [["[[1]]", "[]"]]);
        let long = format!("[\"{}\"]", "x".repeat(SQL_VALUE_BYTES / 2));
        assert_eq!(
            params(&[("[1]", &long), ("[2]", ""), ("[3]", &long)]),
            [
                ["[[1],[2]]".to_owned(), format!("[{long}]")],
                ["[[3]]".to_owned(), format!("[{long}]")]
            ]
        );
    }

    #[test]
    fn what_sqlite_says_decides_whether_to_try_again() {
        for text in [
            "D1_ERROR: UNIQUE constraint failed: u.id: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_PRIMARYKEY)",
            "D1_ERROR: cannot store TEXT value in INTEGER column t.n: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_DATATYPE)",
            "D1_TYPE_ERROR: Type 'bigint' not supported",
            "D1_ERROR: malformed JSON: SQLITE_ERROR",
        ] {
            assert!(matches!(StoreError::from_text(text), StoreError::Refused(_)), "{text}");
        }
        for text in [
            "D1_ERROR: Network connection lost.",
            "D1_ERROR: D1 DB is overloaded. Requests queued for too long.",
            "database is locked",
        ] {
            assert!(matches!(StoreError::from_text(text), StoreError::Unavailable(_)), "{text}");
        }
        for text in [
            "D1_ERROR: no such table: subscriptions: SQLITE_ERROR",
            "D1_ERROR: table t has no column named x: SQLITE_ERROR",
        ] {
            assert!(matches!(StoreError::from_text(text), StoreError::NotReady(_)), "{text}");
        }
    }
}
