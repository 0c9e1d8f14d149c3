//! The admin API for commands: that of a remote Hookmill, or of a data folder on this machine, whether or not a process has
//! locked it.

use std::fmt::{self, Display};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use hookmill_admin::auth::GuardMemory;
use hookmill_admin::{BASE, local};
use hookmill_core::store::Store;
use hookmill_native::{DataFolder, Reader, Sqlite};
use http_body_util::BodyExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tower_service::Service as _;

use crate::run::admin::{AdminPlatform, Queues};

/// The maximum time for a response of the API.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The Hookmill that a command talks to.
#[derive(clap::Args)]
pub struct Target {
    /// The URL of a remote Hookmill, such as `https://hookmill-dlq.example.workers.dev`; also read from HOOKMILL_URL. The token
    /// is read from HOOKMILL_TOKEN. Without a URL, the command uses the data folder.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
}

impl Target {
    /// The data folder, unless the target is remote.
    pub fn folder(&self) -> Option<&Path> {
        self.url().is_none().then_some(self.data.as_path())
    }

    fn url(&self) -> Option<String> {
        self.url.clone().or_else(|| named("HOOKMILL_URL"))
    }
}

/// An environment variable that is set and not blank.
fn named(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The name of the operator in the audit.
pub fn user() -> String {
    named("USER").unwrap_or_else(|| "local".to_owned())
}

/// A text as a part of a URL.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The size and format of a list.
#[derive(clap::Args)]
pub struct Listing {
    /// The number of rows, latest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub limit: u32,
    /// Print a JSON array; times are milliseconds since the Unix epoch.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

/// A read-only client of the admin API; for a data folder, it uses a [`Reader`].
pub struct Client {
    runtime: tokio::runtime::Runtime,
    to: To,
}

/// The API is unreachable or temporarily unavailable.
#[derive(Debug)]
pub struct Away(String);

impl Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Away {}

enum To {
    /// A remote Hookmill, with a token.
    Remote { client: reqwest::Client, url: String, token: String },
    /// The data folder; read access to it is sufficient.
    Local(Router),
}

/// A client that can also make changes.
pub struct Operator(Client);

impl Deref for Operator {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

impl Operator {
    /// Connects to the API.
    ///
    /// # Errors
    ///
    /// If there is no token, or no data in the folder.
    pub fn new(target: &Target) -> anyhow::Result<Self> {
        let to = match target.url() {
            Some(url) => To::remote(&url)?,
            None => {
                let reader = DataFolder::read(&target.data)?;
                To::local(Sqlite::new(DataFolder::write(&target.data)?), &reader)
            }
        };
        Client::to(to).map(Self)
    }

    /// Posts a change.
    ///
    /// # Errors
    ///
    /// The API's error.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.runtime.block_on(self.ask(Method::POST, path, Some(body)))
    }

    /// Deletes something.
    ///
    /// # Errors
    ///
    /// The API's error.
    pub fn delete(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.runtime.block_on(self.ask(Method::DELETE, path, Some(body)))
    }
}

impl To {
    fn remote(url: &str) -> anyhow::Result<Self> {
        let token = named("HOOKMILL_TOKEN").with_context(|| {
            format!("HOOKMILL_TOKEN is not set; `hookmill token create` creates a token for {url}")
        })?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        Ok(Self::Remote { client, url: url.trim_end_matches('/').to_owned(), token })
    }

    fn local(store: impl Store + 'static, reader: &Reader) -> Self {
        let platform = AdminPlatform {
            store,
            bodies: reader.bodies(),
            config: None,
            queues: Queues::Folder(reader.clone()),
            running: None,
            memory: GuardMemory::new(),
        };
        Self::Local(local(Arc::new(platform), &user()))
    }
}

impl Client {
    /// Connects to the API.
    ///
    /// # Errors
    ///
    /// If there is no token, or no data in the folder.
    pub fn new(target: &Target) -> anyhow::Result<Self> {
        match target.url() {
            Some(url) => Self::to(To::remote(&url)?),
            None => Self::local(&DataFolder::read(&target.data)?),
        }
    }

    /// The API of a data folder.
    ///
    /// # Errors
    ///
    /// If the runtime cannot be created.
    pub fn local(reader: &Reader) -> anyhow::Result<Self> {
        Self::to(To::local(reader.clone(), reader))
    }

    fn to(to: To) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, to })
    }

    /// Reads a path.
    ///
    /// # Errors
    ///
    /// The API's error.
    pub fn get(&self, path: &str, query: &[(&str, Option<String>)]) -> anyhow::Result<Value> {
        self.runtime.block_on(self.look(path, query))
    }

    /// Like [`Client::get`], for asynchronous callers.
    ///
    /// # Errors
    ///
    /// The API's error; [`Away`] if a retry may succeed.
    pub async fn look(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
    ) -> anyhow::Result<Value> {
        let query = query.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let query = query.map(|(name, value)| format!("{name}={}", encoded(value)));
        let query = query.collect::<Vec<_>>().join("&");
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        self.ask(Method::GET, &path, None).await
    }

    /// Runs work to its end or until Ctrl-C.
    ///
    /// # Errors
    ///
    /// Those of the work.
    pub fn until_interrupted(
        &self,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            tokio::select! {
                ended = work => ended,
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let text = body.map(Value::to_string).unwrap_or_default();
        let (status, answer) = self.answer(method, path, text).await?;
        let value: Value = serde_json::from_str(&answer).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let message = match (value["title"].as_str(), value["detail"].as_str()) {
            (Some(title), Some(detail)) => format!("{title}: {detail}"),
            _ => format!("the API responded with {status}, but not like Hookmill"),
        };
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Away(message).into());
        }
        bail!(message)
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> anyhow::Result<(StatusCode, String)> {
        match &self.to {
            To::Remote { client, url, token } => {
                let request =
                    client.request(method, format!("{url}{BASE}{path}")).bearer_auth(token);
                let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
                let away = || Away(format!("{url} does not respond"));
                let answer = request.send().await.with_context(away)?;
                Ok((answer.status(), answer.text().await.with_context(away)?))
            }
            To::Local(router) => {
                let request = Request::builder().method(method).uri(format!("{BASE}{path}"));
                let request = request.header(header::CONTENT_TYPE, "application/json");
                let answer = router.clone().call(request.body(Body::from(body))?).await;
                let answer = answer.unwrap_or_else(|never| match never {});
                let status = answer.status();
                let body = answer.into_body().collect().await?.to_bytes();
                Ok((status, String::from_utf8_lossy(&body).into_owned()))
            }
        }
    }
}
