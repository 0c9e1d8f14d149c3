//! What the API needs from its platform, and how handlers ask the database.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hookmill_core::config::Admin as Config;
use hookmill_core::store::{Param, Rows, Statement, StoreError, answer, read_json};
use hookmill_core::time::Timestamp;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// What the platform lends the API.
pub trait Platform: Send + Sync {
    /// As [`hookmill_core::store::Store::execute`].
    fn execute(&self, statements: Vec<Statement>) -> BoxFuture<'_, Result<Vec<Rows>, StoreError>>;

    /// As [`hookmill_core::store::Store::query`].
    fn query(&self, statements: Vec<Statement>) -> BoxFuture<'_, Result<Vec<Rows>, StoreError>>;

    /// A body from the object store; `None` if it is not there.
    fn object<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, String>>;

    /// Wakes the jobs that replay and send.
    fn wake(&self) -> BoxFuture<'_, ()>;

    /// How many messages wait on the queue; `None` if that cannot be told.
    fn waiting(&self) -> BoxFuture<'_, Option<u64>>;

    /// What is at this URL, by GET.
    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<String, String>>;

    /// What hookmill.toml says; `None` where only the data is at hand.
    fn config(&self) -> Option<&Config>;

    /// The time.
    fn now(&self) -> Timestamp;
}

/// What every handler has.
#[derive(Clone)]
pub(crate) struct Admin(pub(crate) Arc<dyn Platform>);

impl Admin {
    pub(crate) fn now(&self) -> Timestamp {
        self.0.now()
    }

    pub(crate) async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, Problem> {
        self.0.execute(statements).await.map_err(problem)
    }

    pub(crate) async fn query(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, Problem> {
        self.0.query(statements).await.map_err(problem)
    }

    /// Asks one question; each row is a JSON object.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: Vec<Param>,
    ) -> Result<Vec<T>, Problem> {
        let rows = self.query(vec![Statement::new(sql, params)]).await?;
        read_json(answer(&rows, 0)).map_err(problem)
    }
}

pub(crate) fn problem(error: StoreError) -> Problem {
    match error {
        StoreError::Unavailable(_) => Problem::unavailable("the database does not respond"),
        // What it says is about our own statements.
        error => Problem::broken(&error.to_string()),
    }
}

/// A filter of a query; a blank one selects everything, as if it were not there.
pub(crate) fn given(filter: Option<&String>) -> Option<&str> {
    filter.map(String::as_str).filter(|text| !text.is_empty())
}
