//! The store port: SQL in transactions. Every statement belongs to the stage that uses it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;
use serde::{Deserialize as _, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::json::to_json;
use crate::limits::SQL_VALUE_BYTES;
use crate::time::Timestamp;

/// A value that is bound to a parameter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Param {
    /// No value.
    Null,
    /// An integer. D1 binds JavaScript numbers as `REAL`, so its adapter casts them.
    Integer(i64),
    /// A text. Whole batches travel as one JSON array.
    Text(String),
    /// The time at which the statement runs, in milliseconds since the Unix epoch. A transaction may have waited for the
    /// database since it was planned. Statements of one transaction may see different times.
    Now,
}

impl Param {
    /// A value as a JSON text.
    ///
    /// # Panics
    ///
    /// If the value is not serializable, such as a map whose keys are not texts.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Self {
        Self::Text(to_json(value))
    }
}

impl From<i64> for Param {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl From<u32> for Param {
    fn from(integer: u32) -> Self {
        Self::Integer(integer.into())
    }
}

/// At most [`i64::MAX`].
impl From<u64> for Param {
    fn from(integer: u64) -> Self {
        Self::Integer(i64::try_from(integer).unwrap_or(i64::MAX))
    }
}

/// At most [`i64::MAX`].
impl From<usize> for Param {
    fn from(integer: usize) -> Self {
        Self::Integer(i64::try_from(integer).unwrap_or(i64::MAX))
    }
}

/// 0 or 1, as SQLite has it.
impl From<bool> for Param {
    fn from(is: bool) -> Self {
        Self::Integer(is.into())
    }
}

/// In milliseconds.
impl From<Timestamp> for Param {
    fn from(at: Timestamp) -> Self {
        Self::Integer(at.millis())
    }
}

/// In milliseconds; at most [`i64::MAX`].
impl From<Duration> for Param {
    fn from(duration: Duration) -> Self {
        Self::Integer(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Param {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Param {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Param {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Param>> From<Option<T>> for Param {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The parameters of a statement, `?1` first: values that convert to [`Param`].
#[macro_export]
macro_rules! params {
    ($($param:expr),* $(,)?) => {
        vec![$($crate::store::Param::from($param)),*]
    };
}

/// A statement with its parameters, `?1` first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// SQL text. It is never built from a payload.
    pub sql: Arc<str>,
    /// Bound values.
    pub params: Vec<Param>,
}

impl Statement {
    /// A statement with [`params!`](crate::params).
    pub fn new(sql: impl Into<Arc<str>>, params: Vec<Param>) -> Self {
        Self { sql: sql.into(), params }
    }

    /// The statement for some rows, each a tuple: `?1` is an array of arrays. Rows that are too long for one bound value
    /// become several statements.
    ///
    /// # Panics
    ///
    /// If a row is not serializable.
    pub fn for_each<T: Serialize>(sql: &str, rows: impl IntoIterator<Item = T>) -> Vec<Self> {
        let rows: Vec<_> = rows.into_iter().map(|row| to_json(&row)).collect();
        Self::for_rows(&sql.into(), rows.iter().map(String::as_str))
    }

    /// The statement for some rows, each the text of a JSON array: `?1` is an array of them. Rows that are too long for one bound
    /// value become several statements.
    pub fn for_rows<'r>(sql: &Arc<str>, rows: impl IntoIterator<Item = &'r str>) -> Vec<Self> {
        Self::for_arrays(sql, rows.into_iter().map(|row| [row]).collect())
    }

    /// The same for rows with lists: `?2` is an array of their lists, in the same order. A row and its list stay in one
    /// statement.
    pub fn for_lists<'r>(
        sql: &Arc<str>,
        rows: impl IntoIterator<Item = (&'r str, &'r str)>,
    ) -> Vec<Self> {
        Self::for_arrays(sql, rows.into_iter().map(|(row, list)| [row, list]).collect())
    }

    fn for_arrays<const PARAMS: usize>(sql: &Arc<str>, rows: Vec<[&str; PARAMS]>) -> Vec<Self> {
        let mut statements: Vec<[String; PARAMS]> = Vec::new();
        let mut left: [usize; PARAMS] =
            std::array::from_fn(|param| rows.iter().map(|row| row[param].len() + 1).sum());
        for row in rows {
            let fits = |params: &[String; PARAMS]| {
                let mut params = params.iter().zip(row);
                params.all(|(param, text)| param.len() + text.len() + 2 <= SQL_VALUE_BYTES)
            };
            if !statements.last().is_some_and(fits) {
                statements.push(std::array::from_fn(|param| {
                    let room = (left[param] + 1).min(SQL_VALUE_BYTES);
                    let mut text = String::with_capacity(room.max(row[param].len() + 2));
                    text.push('[');
                    text
                }));
            }
            let params = statements.last_mut().into_iter().flatten();
            for ((param, text), left) in params.zip(row).zip(&mut left) {
                if param.len() > 1 {
                    param.push(',');
                }
                param.push_str(text);
                *left -= text.len() + 1;
            }
        }
        let end = |mut param: String| {
            param.push(']');
            Param::Text(param)
        };
        let statements = statements.into_iter();
        statements.map(|params| Self::new(sql.clone(), params.map(end).into())).collect()
    }
}

/// The rows that a statement returned (`SELECT`, `RETURNING`).
pub type Rows = Vec<Row>;

/// A row that a statement returned: a value for each column, in order.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    /// A row of values: null, a number or a text for each column.
    pub fn new(columns: Arc<[String]>, values: Vec<Value>) -> Self {
        Self { columns, values }
    }

    /// The row as a type with a field for each column, by name.
    ///
    /// # Errors
    ///
    /// If a value has the wrong type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        let columns = self.columns.iter().map(String::as_str).zip(self.values.iter().cloned());
        T::deserialize(MapDeserializer::new(columns))
            .map_err(|error: serde_json::Error| StoreError::Refused(error.to_string()))
    }

    /// The values in the order of the columns, as SQLite would cast them to text.
    pub fn texts(&self) -> Vec<Option<String>> {
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        self.values.iter().map(text).collect()
    }
}

/// Reads every row of a statement's answer, see [`Row::read`].
///
/// # Errors
///
/// If a value has the wrong type.
pub fn read<T: DeserializeOwned>(rows: &[Row]) -> Result<Vec<T>, StoreError> {
    rows.iter().map(Row::read).collect()
}

/// The rows of the statement with this index in a transaction; empty if it does not exist.
pub fn answer(rows: &[Rows], index: usize) -> &[Row] {
    rows.get(index).map_or(&[], Vec::as_slice)
}

/// Reads the rows of a statement with one column of JSON texts.
///
/// # Errors
///
/// If a text does not have the type.
pub fn read_json<T: DeserializeOwned>(rows: &[Row]) -> Result<Vec<T>, StoreError> {
    let read = |row: &Row| {
        let text = row.values.first().and_then(Value::as_str).unwrap_or("null");
        serde_json::from_str(text).map_err(|error| StoreError::Refused(error.to_string()))
    };
    rows.iter().map(read).collect()
}

/// Reads a column that holds 0 or 1, for `#[serde(deserialize_with)]`.
///
/// # Errors
///
/// If it is not an integer.
pub fn flag<'de, D: Deserializer<'de>>(column: D) -> Result<bool, D::Error> {
    i64::deserialize(column).map(|is| is != 0)
}

/// Reads a column with a JSON text, for `#[serde(deserialize_with)]`.
///
/// # Errors
///
/// If it is not JSON of the type.
pub fn json<'de, T: DeserializeOwned, D: Deserializer<'de>>(column: D) -> Result<T, D::Error> {
    let text = String::deserialize(column)?;
    serde_json::from_str(&text).map_err(serde::de::Error::custom)
}

/// Why a transaction failed. Nothing of it was written.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StoreError {
    /// The store is unavailable; a retry may succeed.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A table or column is missing, which a migration will create. Other statements are not affected.
    #[error("the store is not ready: {0}")]
    NotReady(String),
    /// A query of a person took too long, and was ended. Only a store with such a limit says so.
    #[error("the query took too long")]
    TooSlow,
    /// The store rejects the statement, and will reject it again: a constraint, a value of the wrong type.
    #[error("the store refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// The store is unavailable. If it is full or a quota is used up, the error says what to do.
    ///
    /// Source: <https://developers.cloudflare.com/d1/platform/limits/>.
    pub fn unavailable(mut text: String) -> Self {
        const REMEDIES: [(&str, &str); 4] = [
            (
                "maximum DB size",
                "the D1 database is full; shorten `[retention]` in hookmill.toml, above all `messages`, and deploy the \
                 dead-letter Worker, which removes old rows",
            ),
            (
                "daily",
                "the account's daily limit of D1 is used up; it is reset at midnight UTC, and the paid plan has none",
            ),
            (
                "free tier",
                "the free plan's limit of D1 is used up; it is reset at midnight UTC, and the paid plan has none",
            ),
            (
                "disk is full",
                "free space on the disk of the data folder; `[retention]` in hookmill.toml says how long rows are kept",
            ),
        ];
        if let Some((_, remedy)) = REMEDIES.iter().find(|(mark, _)| text.contains(mark)) {
            text = format!("{text}: {remedy}");
        }
        Self::Unavailable(text)
    }

    /// Classifies `SQLITE_ERROR` by its message: SQLite has one code for a wrong statement and for a missing table or
    /// column.
    ///
    /// Source: <https://www.sqlite.org/rescode.html>.
    pub fn from_sqlite_error(message: String) -> Self {
        const MISSING: [&str; 3] = ["no such table", "no such column", "has no column named"];
        if MISSING.iter().any(|mark| message.contains(mark)) {
            Self::NotReady(message)
        } else {
            Self::Refused(message)
        }
    }

    /// The missing table, if it is a table that is missing, or one of its columns.
    pub fn missing_table(&self) -> Option<&str> {
        let Self::NotReady(text) = self else { return None };
        let rest = match (text.split_once("no such table: "), text.split_once("table ")) {
            (Some((_, rest)), _) => rest,
            (None, Some((_, rest))) if rest.contains(" has no column named ") => rest,
            _ => return None,
        };
        let name = rest.split([' ', ':']).next()?;
        Some(name.strip_prefix("main.").unwrap_or(name))
    }

    /// The part of a refusal that stands in the definition of a table or trigger: the condition or name of a failed `CHECK`,
    /// or the message of a trigger. D1 puts the error's kind before it and its code behind it.
    pub fn constraint(&self) -> Option<&str> {
        let Self::Refused(text) = self else { return None };
        let text = text.strip_prefix("D1_ERROR: ").unwrap_or(text);
        let text = text.rsplit_once(": SQLITE_").map_or(text, |(text, _)| text);
        Some(text.strip_prefix("CHECK constraint failed: ").unwrap_or(text))
            .filter(|text| !text.is_empty())
    }

    /// Classifies an error of D1, which has its code only in the text.
    ///
    /// Source: <https://developers.cloudflare.com/d1/observability/debug-d1/>.
    pub fn from_d1(text: String) -> Self {
        const REFUSED: [&str; 7] = [
            "SQLITE_CONSTRAINT",
            "SQLITE_ERROR",
            "SQLITE_MISMATCH",
            "SQLITE_TOOBIG",
            "SQLITE_RANGE",
            "D1_TYPE_ERROR",
            "constraint failed",
        ];
        let is_refused = REFUSED.iter().any(|mark| text.contains(mark));
        match Self::from_sqlite_error(text) {
            Self::Refused(text) if !is_refused => Self::unavailable(text),
            error => error,
        }
    }
}

/// Runs SQL.
pub trait Store: Send + Sync {
    /// Executes every statement in order in one transaction, or none of them. Returns each statement's rows.
    fn execute(
        &self,
        statements: Vec<Statement>,
    ) -> impl Future<Output = Result<Vec<Rows>, StoreError>> + Send;

    /// The same for statements that only read. They see one state of the database. If the store supports it, they neither
    /// wait for a writer nor delay one.
    fn query(
        &self,
        statements: Vec<Statement>,
    ) -> impl Future<Output = Result<Vec<Rows>, StoreError>> + Send {
        self.execute(statements)
    }

    /// The size of the database in bytes, if it is known. A store may know it only after a transaction.
    fn size(&self) -> impl Future<Output = Option<u64>> + Send {
        std::future::ready(None)
    }
}

impl<S: Store> Store for &S {
    fn execute(
        &self,
        statements: Vec<Statement>,
    ) -> impl Future<Output = Result<Vec<Rows>, StoreError>> + Send {
        S::execute(self, statements)
    }

    fn query(
        &self,
        statements: Vec<Statement>,
    ) -> impl Future<Output = Result<Vec<Rows>, StoreError>> + Send {
        S::query(self, statements)
    }

    fn size(&self) -> impl Future<Output = Option<u64>> + Send {
        S::size(self)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn texts(statement: Statement) -> Vec<String> {
        let text = |param| match param {
            Param::Text(text) => text,
            other => panic!("{other:?}"),
        };
        statement.params.into_iter().map(text).collect()
    }

    #[test]
    fn a_row_is_read_by_the_names_of_its_columns() {
        #[derive(Deserialize, PartialEq, Debug)]
        struct Batch {
            members: u32,
            id: Option<String>,
            #[serde(deserialize_with = "flag")]
            arrived: bool,
            #[serde(deserialize_with = "json")]
            content: Vec<u8>,
        }
        let columns: Arc<[String]> =
            ["arrived", "id", "members", "content"].map(ToOwned::to_owned).into();
        let row = |values: [Value; 4]| Row::new(columns.clone(), values.into());
        let read = row([1.into(), Value::Null, 7.into(), "[1,2]".into()]).read();
        let batch = Batch { members: 7, id: None, arrived: true, content: vec![1, 2] };
        assert_eq!(read, Ok(batch));
        let wrong = row([1.into(), "b".into(), "seven".into(), "[]".into()]).read::<Batch>();
        assert!(matches!(wrong, Err(StoreError::Refused(_))), "{wrong:?}");
    }

    #[test]
    fn rows_become_arrays_that_fit_a_bound_value() {
        let sql: Arc<str> = "SQL".into();
        let params = |rows: &[&str]| -> Vec<String> {
            Statement::for_rows(&sql, rows.iter().copied()).into_iter().flat_map(texts).collect()
        };
        assert_eq!(params(&[]), Vec::<String>::new());
        assert_eq!(params(&["[1]", "[2]"]), ["[[1],[2]]"]);
        let long = format!("[\"{}\"]", "x".repeat(SQL_VALUE_BYTES / 2));
        assert_eq!(params(&[&long, &long, "[3]"]), [format!("[{long}]"), format!("[{long},[3]]")]);
    }

    #[test]
    fn a_row_and_its_list_stay_in_one_statement() {
        let sql: Arc<str> = "SQL".into();
        let params = |rows: &[(&str, &str)]| -> Vec<Vec<String>> {
            Statement::for_lists(&sql, rows.iter().copied()).into_iter().map(texts).collect()
        };
        let lists = [("[1]", "[]"), ("[2]", "[[2,1],[2,2]]")];
        assert_eq!(params(&lists), [["[[1],[2]]", "[[],[[2,1],[2,2]]]"]]);
        let long = format!("[\"{}\"]", "x".repeat(SQL_VALUE_BYTES / 2));
        assert_eq!(
            params(&[("[1]", &long), ("[2]", "[]"), ("[3]", &long)]),
            [
                ["[[1],[2]]".to_owned(), format!("[{long},[]]")],
                ["[[3]]".to_owned(), format!("[{long}]")]
            ]
        );
    }

    #[test]
    fn an_error_names_the_missing_table() {
        for (text, table) in [
            ("no such table: main.things", Some("things")),
            ("D1_ERROR: no such table: things: SQLITE_ERROR", Some("things")),
            ("D1_ERROR: table things has no column named n: SQLITE_ERROR", Some("things")),
            ("no such column: n", None),
        ] {
            assert_eq!(StoreError::from_d1(text.into()).missing_table(), table, "{text}");
        }
    }

    #[test]
    fn the_error_of_a_full_store_says_what_to_do() {
        let errors = [
            "D1_ERROR: Exceeded maximum DB size",
            "D1_ERROR: Your account has exceeded D1's maximum account storage limit or daily row write limit",
            "D1_ERROR: D1 DB is overloaded. Requests queued for too long.",
        ];
        let errors = errors.map(|text| StoreError::from_d1(text.into()).to_string());
        insta::assert_debug_snapshot!(errors, @r#"
        [
            "the store is unavailable: D1_ERROR: Exceeded maximum DB size: the D1 database is full; shorten `[retention]` in hookmill.toml, above all `messages`, and deploy the dead-letter Worker, which removes old rows",
            "the store is unavailable: D1_ERROR: Your account has exceeded D1's maximum account storage limit or daily row write limit: the account's daily limit of D1 is used up; it is reset at midnight UTC, and the paid plan has none",
            "the store is unavailable: D1_ERROR: D1 DB is overloaded. Requests queued for too long.",
        ]
        "#);
    }

    #[test]
    fn the_error_of_sqlite_decides_whether_to_retry() {
        for text in [
            "D1_ERROR: UNIQUE constraint failed: u.id: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_PRIMARYKEY)",
            "D1_ERROR: cannot store TEXT value in INTEGER column t.n: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_DATATYPE)",
            "D1_TYPE_ERROR: Type 'bigint' not supported",
            "D1_ERROR: malformed JSON: SQLITE_ERROR",
        ] {
            assert!(matches!(StoreError::from_d1(text.into()), StoreError::Refused(_)), "{text}");
        }
        for text in [
            "D1_ERROR: Network connection lost.",
            "D1_ERROR: D1 DB is overloaded. Requests queued for too long.",
        ] {
            assert!(
                matches!(StoreError::from_d1(text.into()), StoreError::Unavailable(_)),
                "{text}"
            );
        }
        for text in [
            "D1_ERROR: no such table: subscriptions: SQLITE_ERROR",
            "D1_ERROR: table t has no column named x: SQLITE_ERROR",
            "no such table: subscriptions",
        ] {
            assert!(matches!(StoreError::from_d1(text.into()), StoreError::NotReady(_)), "{text}");
        }
    }
}
