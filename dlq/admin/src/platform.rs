//! The API's interface to its platform, and the queries of handlers.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hookmill_config::Admin as Config;
use hookmill_core::store::{Param, Rows, Statement, StoreError, answer, read_json};
use hookmill_core::time::Timestamp;
use serde::de::DeserializeOwned;

use crate::auth::GuardMemory;
use crate::problem::Problem;
use crate::stats::QueueBacklog;

/// The platform of the API.
pub trait Platform: Send + Sync {
    /// See [`hookmill_core::store::Store::execute`].
    fn execute(&self, statements: Vec<Statement>) -> BoxFuture<'_, Result<Vec<Rows>, StoreError>>;

    /// See [`hookmill_core::store::Store::query`].
    fn query(&self, statements: Vec<Statement>) -> BoxFuture<'_, Result<Vec<Rows>, StoreError>>;

    /// A body from the object store; `None` if it does not exist.
    fn object<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, String>>;

    /// Wakes the jobs that replay and send.
    fn wake(&self) -> BoxFuture<'_, ()>;

    /// The messages on each queue; without queues that it cannot ask.
    fn backlogs(&self) -> BoxFuture<'_, Vec<QueueBacklog>>;

    /// The size of the database in bytes, if it is known.
    fn size(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(std::future::ready(None))
    }

    /// The content at this URL, by GET.
    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<String, String>>;

    /// The configuration; `None` if only the data is available.
    fn config(&self) -> Option<&Config>;

    /// What the guard of the API remembers between requests.
    fn memory(&self) -> &GuardMemory;

    /// The time.
    fn now(&self) -> Timestamp;
}

/// The state of every handler.
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

    /// Executes a query; each row is a JSON object.
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
        StoreError::TooSlow => Problem::too_slow(),
        // The message is about Hookmill's own statements.
        error => Problem::broken(&error.to_string()),
    }
}

/// A filter of a query; a blank one counts as absent.
pub(crate) fn given(filter: Option<&String>) -> Option<&str> {
    filter.map(String::as_str).filter(|text| !text.is_empty())
}
