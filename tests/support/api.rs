//! Resend, SendGrid, Twilio, Mixpanel, PostHog and Stripe for the pipelines under test: HTTP on loopback, which records
//! requests, and loses responses, refuses or is busy on request of a test.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

/// The behavior for the next request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// Accepts everything.
    Accepts,
    /// Refuses the first email.
    RefusesTheFirst,
    /// Refuses everything if this address is a recipient.
    RefusesAllWith(&'static str),
    /// Too many requests; accepts nothing.
    Busy,
    /// Responds with 500, after accepting the request or not.
    Broken {
        /// Whether it has accepted the request.
        accepts: bool,
    },
    /// Sends no response, after accepting everything.
    Silent,
    /// Responds that the key is wrong.
    Forbidden,
    /// The recipient has unsubscribed at Twilio.
    OptedOut,
}

/// A recorded request.
#[derive(Clone, PartialEq, Debug)]
pub struct Recorded {
    /// Its path.
    pub path: String,
    /// Its headers, names in lower case, without those of the connection.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Value,
}

#[derive(Default)]
struct State {
    moods: VecDeque<Mood>,
    /// By provider: the behavior for every request.
    lasting: BTreeMap<String, Mood>,
    requests: Vec<Recorded>,
    /// By idempotency key: the body, and the response.
    keys: BTreeMap<String, (Value, Value)>,
    accepted: Vec<String>,
    /// The objects of Stripe by the path of their list, the newest first.
    lists: BTreeMap<String, Vec<Value>>,
}

/// The APIs of a test.
pub struct Api {
    server: Option<MockServer>,
    runtime: Runtime,
    state: Arc<Mutex<State>>,
}

impl Api {
    /// Starts them.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads can be started");
        let state: Arc<Mutex<State>> = Arc::default();
        let (silent, lost, answered) = (state.clone(), state.clone(), state.clone());
        let server = runtime.block_on(async {
            let server = MockServer::start().await;
            let is_silent = move |request: &Request| lock(&silent).mood(request) == Mood::Silent;
            let lose = move |request: &Request| {
                lock(&lost).answer(request);
                std::io::Error::other("the connection is lost")
            };
            Mock::given(is_silent).respond_with_err(lose).with_priority(1).mount(&server).await;
            let answer = move |request: &Request| {
                let (status, body) = lock(&answered).answer(request);
                ResponseTemplate::new(status)
                    .set_body_json(body)
                    .insert_header("x-message-id", "message-id")
                    .insert_header("retry-after", "1")
            };
            Mock::given(any()).respond_with(answer).mount(&server).await;
            server
        });
        Self { server: Some(server), runtime, state }
    }

    /// Their address.
    pub fn address(&self) -> SocketAddr {
        *self.server.as_ref().expect("it runs until it is dropped").address()
    }

    /// The behavior for the next requests; afterwards everything is accepted.
    pub fn moods(&self, moods: impl IntoIterator<Item = Mood>) {
        lock(&self.state).moods.extend(moods);
    }

    /// The behavior for every request to a provider, until changed.
    pub fn lasting(&self, provider: &str, mood: Mood) {
        lock(&self.state).lasting.insert(provider.to_owned(), mood);
    }

    /// What a list of Stripe has from now on, such as `/v1/customers`; the newest object first.
    pub fn lists(&self, path: &str, objects: Vec<Value>) {
        lock(&self.state).lists.insert(path.to_owned(), objects);
    }

    /// The recorded requests.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.state).requests.clone()
    }

    /// The recipients of accepted emails, in order.
    pub fn accepted(&self) -> Vec<String> {
        lock(&self.state).accepted.clone()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let server = self.server.take();
        self.runtime.block_on(async { drop(server) });
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn mood(&self, request: &Request) -> Mood {
        let provider = request.url.path().split('/').nth(1).unwrap_or_default();
        let next = self.moods.front().or_else(|| self.lasting.get(provider));
        next.copied().unwrap_or(Mood::Accepts)
    }

    fn answer(&mut self, request: &Request) -> (u16, Value) {
        // The sweeps of a source: no other test asks for them.
        if let Some(path) = request.url.path().strip_prefix("/log") {
            return self.page(path, request);
        }
        let mood = self.mood(request);
        self.moods.pop_front();
        let recorded = Recorded {
            path: request.url.path().to_owned(),
            headers: headers(request),
            body: request
                .body_json()
                .unwrap_or_else(|_| String::from_utf8_lossy(&request.body).into()),
        };
        let key = recorded.headers.get("idempotency-key").cloned();
        let authorization = recorded.headers.get("authorization").cloned().unwrap_or_default();
        let (path, body) = (recorded.path.clone(), recorded.body.clone());
        self.requests.push(recorded);
        let (resend, emails) = match path.as_str() {
            "/access/cdn-cgi/access/certs" => return (200, crate::access::keys()),
            "/alerts" => return (204, Value::Null),
            path if path.starts_with("/stripe/v1/") => {
                return self.stripe(mood, &path["/stripe".len()..], &authorization, request);
            }
            "/resend/emails/batch" => (true, &body),
            "/sendgrid/v3/mail/send" => (false, &body["personalizations"]),
            "/twilio/2010-04-01/Accounts/AC11111111111111111111111111111111/Messages.json"
            | "/mixpanel/import" => (false, &body),
            "/posthog/batch/" => (false, &body["batch"]),
            _ => return (404, json!({ "message": format!("there is nothing at {path}") })),
        };
        let addresses: Vec<_> = match emails {
            Value::Array(emails) => emails.iter().map(address).collect(),
            emails => vec![address(emails)],
        };
        let refused = usize::from(mood == Mood::RefusesTheFirst);
        match mood {
            Mood::Busy => {
                return (429, json!({ "name": "rate_limit_exceeded", "message": "slowly" }));
            }
            Mood::OptedOut => {
                return (400, json!({ "code": 21610, "message": "STOP", "status": 400 }));
            }
            Mood::Forbidden => {
                // Some providers quote the key.
                let message = format!("no such key: {authorization}");
                return (403, json!({ "name": "invalid_api_key", "message": message }));
            }
            Mood::Broken { accepts: false } => return (500, Value::Null),
            Mood::RefusesAllWith(address) if addresses.iter().any(|to| to == address) => {
                return (
                    422,
                    json!({ "name": "validation_error", "message": "Invalid `to` field." }),
                );
            }
            Mood::Accepts
            | Mood::RefusesTheFirst
            | Mood::RefusesAllWith(_)
            | Mood::Silent
            | Mood::Broken { .. } => {}
        }
        let broken = matches!(mood, Mood::Broken { .. });
        if let Some((known, answer)) = key.as_ref().and_then(|key| self.keys.get(key)) {
            return if broken {
                (500, Value::Null)
            } else if *known == body {
                (200, answer.clone())
            } else {
                (409, json!({ "name": "invalid_idempotent_request", "message": "another body" }))
            };
        }
        // All except the first, if that is refused.
        self.accepted.extend(addresses.iter().skip(refused).cloned());
        let mut answer = Value::Null;
        if resend {
            let ids =
                addresses.iter().skip(refused).map(|to| json!({ "id": format!("id-of-{to}") }));
            answer = json!({ "data": ids.collect::<Vec<_>>() });
            if refused > 0 {
                answer["errors"] = json!([{ "index": 0, "message": "Invalid `to` field." }]);
            }
            self.keys.extend(key.map(|key| (key, (body, answer.clone()))));
        }
        match path.split('/').nth(1) {
            _ if broken => (500, Value::Null),
            Some("sendgrid") => (202, answer),
            Some("twilio") => (201, json!({ "sid": format!("SM{}", self.accepted.len()) })),
            Some("mixpanel") if refused > 0 => {
                let failed = json!([{ "index": 0, "field": "time", "message": "too old" }]);
                let imported = addresses.len() - refused;
                (400, json!({ "num_records_imported": imported, "failed_records": failed }))
            }
            _ => (200, answer),
        }
    }
}

impl State {
    /// A customer, or a page of a list.
    fn stripe(&self, mood: Mood, path: &str, key: &str, request: &Request) -> (u16, Value) {
        match (mood, path.strip_prefix("/v1/customers/")) {
            (Mood::Busy, _) => (429, json!({ "error": { "type": "rate_limit" } })),
            (Mood::Broken { .. }, _) => (500, Value::Null),
            // Some providers quote the key.
            (Mood::Forbidden, _) => {
                (401, json!({ "error": { "message": format!("no such key: {key}") } }))
            }
            (_, Some(id)) if self.lists.contains_key("/v1/customers") => {
                match self.lists["/v1/customers"].iter().find(|object| object["id"] == id) {
                    Some(object) => (200, object.clone()),
                    None => (404, json!({ "error": { "code": "resource_missing" } })),
                }
            }
            (_, Some(id)) => {
                (200, json!({ "id": id, "object": "customer", "name": "as it is now" }))
            }
            (_, None) => self.page(path, request),
        }
    }

    /// A page of a list: <https://docs.stripe.com/api/pagination>.
    fn page(&self, path: &str, request: &Request) -> (u16, Value) {
        let query: BTreeMap<_, _> = request.url.query_pairs().collect();
        let empty = Vec::new();
        let all = self.lists.get(path).unwrap_or(&empty);
        let from = match query.get("starting_after") {
            None => Some(0),
            Some(id) => all.iter().position(|object| object["id"] == **id).map(|at| at + 1),
        };
        let Some(from) = from else {
            return (404, json!({ "error": { "code": "resource_missing" } }));
        };
        let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(10).min(100);
        let page: Vec<_> = all.iter().skip(from).take(limit).collect();
        let has_more = from + page.len() < all.len();
        (200, json!({ "object": "list", "data": page, "has_more": has_more }))
    }
}

/// The recipient or user of an item.
fn address(item: &Value) -> String {
    let places = ["/to/0", "/to/0/email", "/properties/distinct_id", "/distinct_id", ""];
    let found = places.iter().find_map(|place| item.pointer(place)?.as_str());
    found.unwrap_or_default().to_owned()
}

fn headers(request: &Request) -> BTreeMap<String, String> {
    const OF_THE_CONNECTION: [&str; 9] = [
        "cf-worker",
        "host",
        "content-length",
        "connection",
        "accept",
        "accept-encoding",
        "accept-language",
        "sec-fetch-mode",
        "transfer-encoding",
    ];
    let all = request.headers.iter();
    all.filter(|(name, _)| !OF_THE_CONNECTION.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect()
}
