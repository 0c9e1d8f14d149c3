//! Requests to providers' APIs: over HTTPS, or to an SMTP server, depending on the URL.

use std::time::Duration;

use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::outbound::{ApiRequest, ApiResponse, Method, USER_AGENT};
use hookmill_core::secret::Secret;
use reqwest::{Client, redirect};

use crate::smtp;

/// The maximum time of a request, including its response. Far below the lease of a batch.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum time before the request is sent.
const CONNECTING: Duration = Duration::from_secs(5);
/// The maximum size of a response that is read, in bytes.
const ANSWER_BYTES: usize = 1024 * 1024;
/// The same for a page of a list, which is of no use without its end.
const PAGE_BYTES: usize = 32 * 1024 * 1024;

/// An HTTP client. It respects `HTTPS_PROXY` and similar variables.
#[derive(Clone, Debug)]
pub struct HttpClient(Client);

impl HttpClient {
    /// Creates a client.
    ///
    /// # Errors
    ///
    /// If the system's certificates cannot be read.
    pub fn new() -> Result<Self, reqwest::Error> {
        // If another caller was first, it installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Following a redirect would send the request twice.
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .timeout(TIMEOUT)
            .connect_timeout(CONNECTING)
            .redirect(redirect::Policy::none());
        client.build().map(Self)
    }
}

impl HttpClient {
    /// The content at a URL, at most a MiB of it.
    ///
    /// # Errors
    ///
    /// The error; any status except 200 is one.
    pub async fn get(&self, url: &str) -> Result<String, FetchError> {
        let response = self.0.get(url).send().await.map_err(failed)?;
        let status = response.status();
        if status.as_u16() != 200 {
            return Err(FetchError::NoAnswer(format!("the response was {status}")));
        }
        Ok(read(response).await)
    }
}

/// The whole body.
async fn read_whole(mut response: reqwest::Response) -> Result<String, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > PAGE_BYTES {
            let error = format!("the response is larger than {} MiB", PAGE_BYTES >> 20);
            return Err(FetchError::NoAnswer(error));
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The part of the body that arrived before the connection broke: after a request that changes something, the status decides.
async fn read(mut response: reqwest::Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES {
            break;
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

impl Fetch for HttpClient {
    async fn ask(&self, request: ApiRequest, key: &Secret) -> Result<ApiResponse, FetchError> {
        if request.url.starts_with("smtp") {
            return smtp::send(&request, key).await;
        }
        let authorization = request.authorize(key);
        let post = match request.method {
            Method::Get => self.0.get(&request.url),
            Method::Post => self.0.post(&request.url).body(request.body),
        };
        let headers = authorization.into_iter().chain(request.headers);
        let post = headers.fold(post, |post, (name, value)| post.header(name, value));
        let response = post.send().await.map_err(failed)?;
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let (retry_after, message_id) = (header("retry-after"), header("x-message-id"));
        let date = header("date");
        let status = response.status().as_u16();
        let body = match request.method {
            Method::Get => read_whole(response).await?,
            Method::Post => read(response).await,
        };
        Ok(ApiResponse { status, retry_after, message_id, date, body })
    }
}

/// An error with its causes.
fn failed(error: reqwest::Error) -> FetchError {
    let unsent = error.is_connect() || error.is_builder();
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    if unsent { FetchError::NotSent(text) } else { FetchError::NoAnswer(text) }
}
