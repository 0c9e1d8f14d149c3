//! Requests to providers' APIs.

use std::time::Duration;

use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::outbound::{ApiRequest, ApiResponse, Method as ApiMethod, USER_AGENT};
use hookmill_core::secret::Secret;
use worker::web_sys::AbortSignal;
use worker::{Headers, Method, Request, RequestInit, RequestRedirect, Result};

use crate::text;

/// The maximum time of a request, including its response. Far below the lease of a batch.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The platform's `fetch`.
pub struct HttpClient;

impl HttpClient {
    /// The content at a URL.
    ///
    /// # Errors
    ///
    /// The error; any status except 200 is one.
    #[worker::send]
    pub async fn get(&self, url: &str) -> std::result::Result<String, String> {
        let get = async {
            let init = RequestInit { redirect: RequestRedirect::Manual, ..RequestInit::default() };
            let request = Request::new_with_init(url, &init)?;
            let mut response = worker::Fetch::Request(request).send().await?;
            match response.status_code() {
                200 => response.text().await,
                status => Err(worker::Error::RustError(format!("the response was {status}"))),
            }
        };
        get.await.map_err(|error: worker::Error| text(&error))
    }

    async fn request(&self, request: ApiRequest, key: &Secret) -> Result<ApiResponse> {
        let headers = Headers::new();
        headers.set("user-agent", USER_AGENT)?;
        let authorization = request.authorize(key);
        for (name, value) in authorization.iter().chain(&request.headers) {
            headers.set(name, value)?;
        }
        let reads = request.method == ApiMethod::Get;
        let (method, body) = match request.method {
            ApiMethod::Get => (Method::Get, None),
            ApiMethod::Post => (Method::Post, Some(request.body.into())),
        };
        let init = RequestInit {
            method,
            headers,
            body,
            // Following a redirect would send the request twice.
            redirect: RequestRedirect::Manual,
            ..RequestInit::default()
        };
        let request = Request::new_with_init(&request.url, &init)?;
        #[expect(clippy::cast_possible_truncation, reason = "half a minute")]
        let signal = AbortSignal::timeout_with_u32(TIMEOUT.as_millis() as u32).into();
        let mut response = worker::Fetch::Request(request).send_with_signal(&signal).await?;
        let status = response.status_code();
        let retry_after = response.headers().get("retry-after")?;
        let message_id = response.headers().get("x-message-id")?;
        let date = response.headers().get("date")?;
        // After a request that changes something, the status decides, whatever arrived. A part of an object is of no use.
        let body = match response.text().await {
            Err(error) if reads => return Err(error),
            body => body.unwrap_or_default(),
        };
        Ok(ApiResponse { status, retry_after, message_id, date, body })
    }
}

impl Fetch for HttpClient {
    /// The platform does not tell whether a failed request was sent.
    #[worker::send]
    async fn ask(
        &self,
        request: ApiRequest,
        key: &Secret,
    ) -> std::result::Result<ApiResponse, FetchError> {
        self.request(request, key).await.map_err(|error| FetchError::NoAnswer(text(&error)))
    }
}
