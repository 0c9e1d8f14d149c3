//! Serves one request, on every platform.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use hookmill_config::Source;
use hookmill_config::scheme::Answer;
use hookmill_core::message::Envelope;
use hookmill_core::objects::{Objects, message};
use hookmill_core::queue::Queue;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::{Coding, Head, Headers};
use hookmill_core::time::Timestamp;
use serde::Serialize;

use crate::admit::{Admission, Gate, admit};
use crate::memory::Reserved;
use crate::rejections::{Recorded, Seen};

/// The interface of ingress to its platform.
pub trait Platform: Sync {
    /// The queue of events.
    type Queue: Queue;
    /// The store of bodies that are too large for the queue.
    type Objects: Objects;

    /// The queue of events.
    fn queue(&self) -> &Self::Queue;
    /// The object store.
    fn objects(&self) -> &Self::Objects;
    /// Counts a request of a source with a `rate_limit`. If it exceeds the limit, returns how long to wait.
    ///
    /// If a limiter fails, the request passes: verifying a flood costs time, but a rejected event is lost.
    fn limited(&self, source: &Source) -> impl Future<Output = Option<Duration>> + Send;
    /// Decodes a body to at most `limit` bytes. The source accepts the coding.
    fn decode(
        &self,
        coding: Coding,
        body: Vec<u8>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<u8>, DecodeError>> + Send;
    /// Problems of the platform, for `/readyz`; empty if there are none.
    fn problems(&self) -> impl Future<Output = Vec<String>> + Send;
}

/// A request's body as it arrives.
pub trait Body: Send {
    /// Some bytes of it.
    type Chunk: AsRef<[u8]> + Send;

    /// The next part, or `None` at the end.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Self::Chunk>, BodyError>> + Send;
}

/// Why a body is incomplete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyError {
    /// It took longer than `ingress.body_timeout`.
    TimedOut,
    /// The connection ended before the body.
    Incomplete,
}

/// Why a body cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// It is not of this coding, or incomplete.
    Malformed,
    /// It is longer than the limit.
    TooLong,
}

/// A request before its body is read.
pub struct Incoming<'a, B> {
    /// The method, upper case.
    pub method: &'a str,
    /// The path, without a query.
    pub path: &'a str,
    /// The query, without the question mark, if there is one.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a dyn Headers,
    /// The client's address, if the platform knows it.
    pub remote: Option<String>,
    /// The `Content-Length`, if there is one.
    pub content_length: Option<u64>,
    /// The body.
    pub body: B,
}

/// A response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body.
    pub body: String,
}

/// The result of a request, for logs and metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestOutcome {
    /// A health check.
    Probe,
    /// The provider requested a response, and sent no event.
    Handshake {
        /// The source.
        source: String,
    },
    /// Every event of the request is on the queue.
    Accepted {
        /// The events.
        events: Vec<Envelope>,
    },
    /// Rejected: nothing of it was stored.
    Rejected {
        /// The source, if the request named one.
        source: Option<String>,
        /// The reason.
        rejection: Rejection,
        /// How the rejection was recorded.
        recorded: Recorded,
    },
    /// Not accepted for a reason on this side: the provider sends it again.
    Unavailable {
        /// The source.
        source: String,
        /// The error; for the log, not for the client.
        error: String,
    },
}

/// The `Retry-After` of a 503, for providers that respect it.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A decoded body is at most this many times as long as it was, plus [`EXPANSION_BYTES`], which short bodies may need. JSON
/// becomes 5 to 20 times as long.
const EXPANSION: usize = 100;
/// See [`EXPANSION`].
const EXPANSION_BYTES: usize = 64 * 1024;

/// Serves one request: `POST /webhooks/{source}`, `GET /healthz`, `GET /readyz`.
pub async fn serve<P: Platform, B: Body>(
    platform: &P,
    gate: &Gate,
    mut incoming: Incoming<'_, B>,
    now: Timestamp,
) -> (Reply, RequestOutcome) {
    let mut seen = Seen {
        remote: incoming.remote.take(),
        content_length: incoming.content_length,
        body_bytes: None,
    };
    let (reply, mut outcome) = answer(platform, gate, incoming, now, &mut seen.body_bytes).await;
    if let RequestOutcome::Rejected { source, rejection, recorded } = &mut outcome {
        *recorded = gate.rejections().record(source.as_deref(), rejection, &seen, now);
    }
    (reply, outcome)
}

async fn answer<P: Platform, B: Body>(
    platform: &P,
    gate: &Gate,
    incoming: Incoming<'_, B>,
    now: Timestamp,
    body_bytes: &mut Option<u64>,
) -> (Reply, RequestOutcome) {
    let probe = matches!(incoming.path, "/healthz" | "/readyz");
    if probe {
        if !matches!(incoming.method, "GET" | "HEAD") {
            return method_not_allowed(None, "GET, HEAD");
        }
        let problems = match incoming.path {
            "/healthz" => Vec::new(),
            _ => [gate.problems(now), platform.problems().await].concat(),
        };
        return (health(&problems), RequestOutcome::Probe);
    }
    let Some(name) = incoming.path.strip_prefix("/webhooks/") else {
        let detail = "webhooks go to /webhooks/{source}; health checks are at /healthz and /readyz";
        return rejected(None, Rejection::new(Reason::NotFound, detail));
    };
    let Some((verifier, reserved)) = gate.source(name, now) else {
        return rejected(
            None,
            Rejection::new(Reason::UnknownSource, "no source of this name is configured"),
        );
    };
    let verifier = match verifier {
        Ok(verifier) => verifier,
        Err(error) => return unavailable(name, "source_not_ready", error),
    };
    let source = verifier.source();
    if incoming.method == "HEAD" {
        // Some providers check the URL before they send (Intercom does).
        let reply = Reply { status: 200, headers: Vec::new(), body: String::new() };
        return (reply, RequestOutcome::Probe);
    }
    let Incoming { method, query, headers, content_length, body, .. } = incoming;
    let head = Head { method, query, headers };
    // A request with a body may be an event.
    let is_bare = method != "POST" || content_length == Some(0);
    let challenge = is_bare.then(|| verifier.challenge(head)).flatten();
    if challenge.is_none() && !source.takes(method) {
        let allow = if source.takes("GET") { "GET, POST" } else { "POST" };
        return method_not_allowed(Some(name), allow);
    }
    if source.rate_limit.is_some()
        && let Some(wait) = platform.limited(source).await
    {
        return rate_limited(name, wait);
    }

    match challenge {
        Some(Ok(answer)) => {
            let mut reply = reply(&answer);
            // The text is the client's: no browser may take it for a page.
            reply.headers.push(("x-content-type-options", "nosniff".into()));
            return (reply, RequestOutcome::Handshake { source: name.to_owned() });
        }
        Some(Err(rejection)) => return rejected(Some(name), rejection),
        None => {}
    }
    let limit = gate.config().limits.body_limit;
    if content_length.is_some_and(|length| length > limit as u64) {
        return rejected(Some(name), too_large(limit));
    }
    let coding = match head.coding(&source.compression) {
        Ok(coding) => coding,
        Err(rejection) => return unsupported_encoding(source, rejection),
    };
    // Before the body is read, so that an unsigned request costs no memory.
    if let Err(rejection) = verifier.check_head(head, now) {
        return rejected(Some(name), rejection);
    }
    let body = match read(body, content_length, limit, reserved).await {
        Ok(body) => {
            *body_bytes = u64::try_from(body.bytes.len()).ok();
            decoded(platform, body, coding, limit).await
        }
        Err(error) => Err(error),
    };
    let body = match body {
        Ok(body) => body,
        Err(ReadError::Rejected(rejection)) => return rejected(Some(name), rejection),
        Err(ReadError::Overloaded) => {
            return unavailable(
                name,
                "overloaded",
                "too many large bodies are arriving at once".into(),
            );
        }
    };
    let request = head.with_body(&body.bytes);
    let admitted = match admit(verifier, &request, now) {
        Ok(Admission::Events(events)) => events,
        Ok(Admission::Handshake(answer)) => {
            return (reply(&answer), RequestOutcome::Handshake { source: name.to_owned() });
        }
        Err(rejection) => return rejected(Some(name), rejection),
    };

    enqueued(platform, source, admitted).await
}

/// Puts events on the queue, and answers once they are durable.
async fn enqueued<P: Platform>(
    platform: &P,
    source: &Source,
    admitted: Vec<(Envelope, Cow<'_, [u8]>)>,
) -> (Reply, RequestOutcome) {
    let name = source.name.as_str();
    let mut messages = Vec::with_capacity(admitted.len());
    let mut events = Vec::with_capacity(admitted.len());
    for (mut event, body) in admitted {
        match message(platform.objects(), &mut event, &body).await {
            Ok(text) => messages.push(text),
            Err(error) => {
                return unavailable(name, "object_store_unavailable", error.to_string());
            }
        }
        events.push(event);
    }
    if !messages.is_empty()
        && let Err(error) = platform.queue().send(messages).await
    {
        return unavailable(name, "queue_unavailable", error.to_string());
    }
    let reply = match &source.answer {
        Some(answer) => reply(answer),
        None => Reply {
            status: 200,
            headers: vec![("content-type", "application/json".into())],
            body: format!("{{\"accepted\":{}}}", events.len()),
        },
    };
    (reply, RequestOutcome::Accepted { events })
}

fn reply(answer: &Answer) -> Reply {
    let headers = match answer.status {
        204 => Vec::new(),
        _ => vec![("content-type", answer.content_type.clone().into())],
    };
    Reply { status: answer.status, headers, body: answer.body.clone() }
}

enum ReadError {
    Rejected(Rejection),
    Overloaded,
}

/// A complete body, and its memory.
struct Read<'m> {
    bytes: Vec<u8>,
    reserved: Reserved<'m>,
}

/// Reads a body of at most `limit` bytes, and stops as soon as it is longer.
///
/// The allocation grows with the bytes that have arrived, and each step is reserved before. A `Content-Length` limits the
/// last step, and reserves nothing by itself: it costs the client nothing to name a large one.
async fn read<B: Body>(
    mut body: B,
    content_length: Option<u64>,
    limit: usize,
    reserved: Reserved<'_>,
) -> Result<Read<'_>, ReadError> {
    let reject = |reason, detail: &str| Err(ReadError::Rejected(Rejection::new(reason, detail)));
    let expected = content_length.and_then(|length| usize::try_from(length).ok()).unwrap_or(limit);
    let mut read = Read { bytes: Vec::new(), reserved };
    loop {
        let chunk = match body.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(read),
            Err(BodyError::TimedOut) => {
                return reject(Reason::BodyTimeout, "the body did not arrive in time");
            }
            Err(BodyError::Incomplete) => {
                return reject(Reason::BodyIncomplete, "the body ended before it was complete");
            }
        };
        let Read { bytes, reserved } = &mut read;
        let (chunk, capacity) = (chunk.as_ref(), bytes.capacity());
        let length = bytes.len() + chunk.len();
        if length > limit {
            return Err(ReadError::Rejected(too_large(limit)));
        }
        if length > capacity {
            let larger = (2 * capacity).min(expected).max(length);
            if !reserved.grow(larger - capacity) {
                return Err(ReadError::Overloaded);
            }
            bytes.reserve_exact(larger - bytes.len());
        }
        bytes.extend_from_slice(chunk);
    }
}

/// The body without its coding. Its memory is reserved before, for the longest body that it may become.
async fn decoded<'m, P: Platform>(
    platform: &P,
    body: Read<'m>,
    coding: Option<Coding>,
    limit: usize,
) -> Result<Read<'m>, ReadError> {
    let Some(coding) = coding else { return Ok(body) };
    let Read { bytes, mut reserved } = body;
    let expanded = EXPANSION.saturating_mul(bytes.len()).saturating_add(EXPANSION_BYTES);
    let most = limit.min(expanded);
    if !reserved.grow(most) {
        return Err(ReadError::Overloaded);
    }
    let decoded = platform.decode(coding, bytes, most).await;
    decoded.map(|bytes| Read { bytes, reserved }).map_err(|error| {
        ReadError::Rejected(match error {
            DecodeError::Malformed => Rejection::new(
                Reason::MalformedBody,
                format!("the body is not valid {coding}, as its Content-Encoding says"),
            ),
            DecodeError::TooLong if most == limit => too_large(limit),
            DecodeError::TooLong => Rejection::new(
                Reason::BodyTooLarge,
                format!("the body expands to more than {EXPANSION} times its length"),
            ),
        })
    })
}

fn too_large(limit: usize) -> Rejection {
    Rejection::new(Reason::BodyTooLarge, format!("the body exceeds the limit of {limit} bytes"))
}

fn rejected(source: Option<&str>, rejection: Rejection) -> (Reply, RequestOutcome) {
    let status = match rejection.reason {
        Reason::MissingHeader
        | Reason::TimestampTooOld
        | Reason::TimestampInFuture
        | Reason::NoMatchingSignature => 401,
        Reason::MalformedHeader
        | Reason::MalformedEvent
        | Reason::MalformedBody
        | Reason::BodyIncomplete => 400,
        Reason::InvalidChallenge => 403,
        Reason::UnsupportedEncoding => 415,
        Reason::BodyTooLarge => 413,
        Reason::BodyTimeout => 408,
        Reason::UnknownSource | Reason::NotFound => 404,
        Reason::MethodNotAllowed => 405,
        Reason::RateLimited => 429,
    };
    let reply = problem(status, rejection.reason.as_str(), &rejection.detail);
    let source = source.map(ToOwned::to_owned);
    (reply, RequestOutcome::Rejected { source, rejection, recorded: Recorded::default() })
}

fn rate_limited(source: &str, wait: Duration) -> (Reply, RequestOutcome) {
    let detail = "the source has reached its rate limit; retry later";
    let (mut reply, outcome) = rejected(Some(source), Rejection::new(Reason::RateLimited, detail));
    reply.headers.push(retry_after(wait));
    (reply, outcome)
}

/// Whole seconds, rounded up, so that a client that waits is not early.
fn retry_after(wait: Duration) -> (&'static str, Cow<'static, str>) {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    ("retry-after", seconds.max(1).to_string().into())
}

/// A sender that knows the header sends the body again: <https://www.rfc-editor.org/rfc/rfc9110#section-15.5.16>.
fn unsupported_encoding(source: &Source, rejection: Rejection) -> (Reply, RequestOutcome) {
    let (mut reply, outcome) = rejected(Some(&source.name), rejection);
    let accepted: Vec<_> = source.compression.iter().map(|coding| coding.as_str()).collect();
    let accepted = if accepted.is_empty() { "identity".to_owned() } else { accepted.join(", ") };
    reply.headers.push(("accept-encoding", accepted.into()));
    (reply, outcome)
}

fn method_not_allowed(source: Option<&str>, allow: &'static str) -> (Reply, RequestOutcome) {
    let detail = format!("this path accepts only {allow}");
    let (mut reply, outcome) = rejected(source, Rejection::new(Reason::MethodNotAllowed, detail));
    reply.headers.push(("allow", allow.into()));
    (reply, outcome)
}

/// 503 and never 4xx: after a 4xx, providers do not retry.
fn unavailable(source: &str, reason: &'static str, error: String) -> (Reply, RequestOutcome) {
    let mut reply = problem(503, reason, "the event was not accepted; retry later");
    reply.headers.push(retry_after(RETRY_AFTER));
    (reply, RequestOutcome::Unavailable { source: source.to_owned(), error })
}

/// The response to a request that took too long; it may have been accepted.
pub fn timed_out() -> Reply {
    let mut reply = problem(503, "timed_out", "the request took too long; retry later");
    reply.headers.push(retry_after(RETRY_AFTER));
    reply
}

/// Problem details: <https://www.rfc-editor.org/rfc/rfc9457>, with `reason` as an extension member.
fn problem(status: u16, reason: &str, detail: &str) -> Reply {
    #[derive(Serialize)]
    struct Problem<'a> {
        r#type: &'static str,
        title: &'static str,
        status: u16,
        reason: &'a str,
        detail: &'a str,
    }
    let title = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        _ => "Service Unavailable",
    };
    let problem = Problem { r#type: "about:blank", title, status, reason, detail };
    Reply {
        status,
        headers: vec![("content-type", "application/problem+json".into())],
        body: serde_json::to_string(&problem).expect("a struct of texts and a number serialises"),
    }
}

fn health(problems: &[String]) -> Reply {
    #[derive(Serialize)]
    struct Health<'a> {
        status: &'static str,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        problems: &'a [String],
    }
    let (status, word) = if problems.is_empty() { (200, "ok") } else { (503, "unavailable") };
    Reply {
        status,
        headers: vec![("content-type", "application/json".into())],
        body: serde_json::to_string(&Health { status: word, problems }).expect("texts serialise"),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::memory::Memory;

    /// A body of this many parts of one size, which have all arrived.
    struct Parts(usize, usize);

    impl Body for Parts {
        type Chunk = Vec<u8>;

        async fn chunk(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
            let left = self.0.checked_sub(1);
            Ok(left.map(|left| {
                self.0 = left;
                vec![b'x'; self.1]
            }))
        }
    }

    /// The length and the capacity of a body, or the status of the rejection.
    fn read_parts(parts: Parts, length: Option<u64>, memory: &Memory) -> Result<[usize; 2], u16> {
        let read = pin!(read(parts, length, 10_000, memory.reserve(0)));
        let Poll::Ready(read) = read.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("all parts are there");
        };
        match read {
            Ok(Read { bytes, .. }) => Ok([bytes.len(), bytes.capacity()]),
            Err(ReadError::Rejected(rejection)) => Err(rejected(None, rejection).0.status),
            Err(ReadError::Overloaded) => Err(503),
        }
    }

    #[test]
    fn a_body_reserves_its_capacity() {
        let memory = Memory::new(10_000, 1);
        assert_eq!(read_parts(Parts(0, 0), None, &memory), Ok([0, 0]));
        // It doubles, and does not exceed a stated length or the limit.
        assert_eq!(read_parts(Parts(5, 1000), None, &memory), Ok([5000, 8000]));
        assert_eq!(read_parts(Parts(5, 1000), Some(5000), &memory), Ok([5000, 5000]));
        assert_eq!(read_parts(Parts(10, 1000), None, &memory), Ok([10_000, 10_000]));
        assert_eq!(read_parts(Parts(11, 1000), None, &memory), Err(413));
        // The memory is free again after each, and not exceeded by the capacity.
        let memory = Memory::new(7999, 1);
        assert_eq!(read_parts(Parts(5, 1000), None, &memory), Err(503));
        assert_eq!(read_parts(Parts(4, 1000), None, &memory), Ok([4000, 4000]));
        assert_eq!(read_parts(Parts(5, 1000), Some(5000), &memory), Ok([5000, 5000]));
    }
}
