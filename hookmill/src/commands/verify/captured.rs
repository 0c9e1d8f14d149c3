//! A captured request: read from a file or from its parts, and judged by the code of ingress.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use axum::http::Uri;
use hookmill_config::{Ingress, Source};
use hookmill_core::message::Envelope;
use hookmill_core::queue::{Backlog, Queue, QueueError};
use hookmill_core::rejection::Rejection;
use hookmill_core::request::{Coding, Headers, Request};
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::time::Timestamp;
use hookmill_core::words::Word as _;
use hookmill_ingress::{
    Body, BodyError, DecodeError, Gate, Incoming, Platform, RequestOutcome, serve,
};
use hookmill_native::decode::decode;
use hookmill_native::http::BODY_BYTES;

use crate::trial::NoObjects;

/// The maximum number of headers of a request, as in the HTTP server.
const HEADERS: usize = 100;

/// A captured request.
#[derive(Clone, Debug)]
pub(super) struct Captured {
    pub(super) method: String,
    pub(super) query: Option<String>,
    pub(super) headers: CapturedHeaders,
    pub(super) body: Vec<u8>,
}

/// Headers as they were sent.
#[derive(Clone, Debug)]
pub(super) struct CapturedHeaders(pub(super) Vec<(String, Vec<u8>)>);

impl Headers for CapturedHeaders {
    fn all(&self, name: &str) -> Vec<Cow<'_, [u8]>> {
        let named = self.0.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| Cow::Borrowed(&value[..])).collect()
    }
}

/// The result of a captured request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Judgment {
    /// Ingress would queue these events.
    Events(Vec<Envelope>),
    /// Ingress would answer a handshake.
    Handshake,
    /// Ingress would answer a test of the URL.
    Probe,
    /// Ingress would reject it.
    Rejected(Rejection),
    /// The source cannot verify requests.
    NotReady(String),
}

impl Captured {
    /// Reads a request as it was sent. Captures differ in their line endings and may have any version of HTTP.
    pub(super) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let (line, rest) = split(bytes, b"\n").context("the request has no headers")?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let (Some(method), Some(target), version, None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            bail!(NOT_A_REQUEST_LINE);
        };
        if !matches!(version, Some(b"HTTP/1.0" | b"HTTP/1.1" | b"HTTP/2" | b"HTTP/3") | None) {
            bail!(NOT_A_REQUEST_LINE);
        }
        let head = [method, b" ", target, b" HTTP/1.1\r\n", rest].concat();
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        // The messages of this library never quote the request.
        let parsed = request.parse(&head).map_err(|error| anyhow!("not valid HTTP: {error}"))?;
        let httparse::Status::Complete(length) = parsed else {
            bail!("an empty line between the headers and the body is missing");
        };
        let target: Uri = request.path.unwrap_or_default().parse().context("not a valid URL")?;
        let headers = request.headers.iter();
        let headers = headers.map(|header| (header.name.to_owned(), header.value.to_vec()));
        let headers = CapturedHeaders(headers.collect());
        let body = &head[length..];
        let chunked = headers.all("transfer-encoding");
        let chunked = chunked.iter().any(|value| value.eq_ignore_ascii_case(b"chunked"));
        let body = match dechunked(body) {
            Some(whole) if chunked => whole,
            _ => body.to_vec(),
        };
        Ok(Self {
            method: request.method.unwrap_or_default().to_owned(),
            query: target.query().map(ToOwned::to_owned),
            headers,
            body,
        })
    }

    /// Reads a request from a file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path);
        Self::parse(&bytes.with_context(|| format!("cannot read {}", path.display()))?)
    }

    pub(super) fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            query: self.query.as_deref(),
            headers: &self.headers,
            body: &self.body,
        }
    }

    /// The request with its body decoded, if it has a coding and is that.
    pub(super) async fn decoded(&self, limit: usize) -> Option<Self> {
        let coding = self.request().head().coding(Coding::ALL).ok()??;
        let body = decode(coding, self.body.clone(), limit).await.ok()?;
        Some(Self { body, ..self.clone() })
    }

    /// Gives the request to ingress, which keeps nothing of it.
    pub(super) async fn judge(
        &self,
        ingress: &Ingress,
        source: &Source,
        lookup: impl Fn(&SecretName) -> Option<Secret>,
        now: Timestamp,
    ) -> Judgment {
        let config = Ingress { sources: vec![source.clone()], limits: ingress.limits.clone() };
        let gate = Gate::new(config, [0; 16], BODY_BYTES, lookup);
        let incoming = Incoming {
            method: &self.method,
            path: &format!("/webhooks/{}", source.name),
            query: self.query.as_deref(),
            headers: &self.headers,
            remote: None,
            // A capture may have the body of a length that was compressed, or was cut.
            content_length: None,
            body: Whole(Some(self.body.clone())),
        };
        match serve(&KeepsNothing, &gate, incoming, now).await.1 {
            RequestOutcome::Accepted { events } => Judgment::Events(events),
            RequestOutcome::Handshake { .. } => Judgment::Handshake,
            RequestOutcome::Probe => Judgment::Probe,
            RequestOutcome::Rejected { rejection, .. } => Judgment::Rejected(rejection),
            RequestOutcome::Unavailable { error, .. } => Judgment::NotReady(error),
        }
    }
}

const NOT_A_REQUEST_LINE: &str =
    "the first line is not a request line, such as POST /webhooks/stripe HTTP/1.1";

/// A body that has arrived.
struct Whole(Option<Vec<u8>>);

impl Body for Whole {
    type Chunk = Vec<u8>;

    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        Ok(self.0.take())
    }
}

/// A platform for requests that have no effect.
pub(super) struct KeepsNothing;

impl Queue for KeepsNothing {
    async fn send(&self, _: Vec<String>) -> Result<(), QueueError> {
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        Ok(Backlog::default())
    }
}

impl Platform for KeepsNothing {
    type Queue = Self;
    type Objects = NoObjects;

    fn queue(&self) -> &Self {
        self
    }

    fn objects(&self) -> &NoObjects {
        &NoObjects
    }

    async fn limited(&self, _: &Source) -> Option<Duration> {
        None
    }

    async fn decode(
        &self,
        coding: Coding,
        body: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, DecodeError> {
        decode(coding, body, limit).await
    }

    async fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A body without its chunked encoding: <https://www.rfc-editor.org/rfc/rfc9112#section-7.1>. `None` if it is not chunked:
/// most tools save it decoded.
fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let (line, below) = split(rest, b"\r\n")?;
        let size = std::str::from_utf8(line).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(below.get(..size)?);
        rest = below.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fn split<'b>(bytes: &'b [u8], at: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let start = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..start], &bytes[start + at.len()..]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write as _;
    use std::sync::{Arc, Mutex};

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use hookmill_core::rejection::Reason;
    use hookmill_core::secret::ExposeSecret as _;
    use hookmill_native::http::{Limits, Service, serve, webhooks};
    use hookmill_native::now;
    use hookmill_providers::{UnsignedEvent, development, sign};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::samples;

    /// The status and the reason of the HTTP server's response; `None` for the reason if it is not a rejection.
    async fn answered(address: std::net::SocketAddr, raw: &[u8]) -> (u16, Option<String>) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(raw).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let text = String::from_utf8(answer).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
        let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        (status, problem["reason"].as_str().map(ToOwned::to_owned))
    }

    /// The request as bytes, with the length of its body.
    fn raw(line: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
        let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let head = format!(
            "{line}\r\nHost: hooks.test\r\nConnection: close\r\nContent-Length: {}\r\n{}\r\n",
            body.len(),
            headers.collect::<String>()
        );
        [head.as_bytes(), body].concat()
    }

    /// Numbers that are the same in every run: <https://en.wikipedia.org/wiki/Xorshift>.
    struct Random(u64);

    impl Random {
        /// A number below the limit.
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % u64::try_from(limit.max(1)).unwrap()).unwrap()
        }
    }

    /// The ids and types of events, and the secrets that signed them.
    fn named(events: &[Envelope]) -> Vec<(String, String, usize)> {
        let named =
            |event: &Envelope| (event.id.clone(), event.kind.clone(), event.verified.secret);
        events.iter().map(named).collect()
    }

    /// Every scheme, many bodies, and changes of every part of a request: `verify` says what the HTTP server does.
    #[tokio::test]
    #[expect(clippy::too_many_lines, reason = "a change for every part of a request")]
    async fn verify_and_ingress_agree_on_every_request() {
        let config = include_str!("../../../../tests/fuzz/sources.toml");
        let ingress = hookmill_config::parse("sources.toml", config).unwrap().ingress;
        let limits = hookmill_config::BodyLimits { body_limit: 20_000, ..ingress.limits.clone() };
        let ingress = Ingress { limits, ..ingress };
        let secret = SecretName("SECRET".into());
        // All sources name this secret, and each has keys of its own kind.
        let keys = |source: &Source| development(source, &secret);
        // The events of the last request that the HTTP server accepted.
        let queued = Arc::new(Mutex::new(Vec::new()));
        let mut servers = BTreeMap::new();
        for source in &ingress.sources {
            let config = Ingress { sources: vec![source.clone()], limits: ingress.limits.clone() };
            let gate = Gate::new(config, [0; 16], BODY_BYTES, |_| Some(keys(source).verifying));
            let queued = queued.clone();
            let observe = move |outcome: &RequestOutcome| {
                if let RequestOutcome::Accepted { events } = outcome {
                    *queued.lock().unwrap() = named(events);
                }
            };
            let service = Service {
                platform: KeepsNothing,
                gate: Arc::new(gate),
                observe: Box::new(observe),
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            servers.insert(source.name.clone(), listener.local_addr().unwrap());
            let limits = Limits { connections: 16, proxies: Vec::new() };
            let router = webhooks(Arc::new(service));
            let body_timeout = ingress.limits.body_timeout;
            tokio::spawn(serve(listener, router, limits, body_timeout, std::future::pending()));
        }
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let (mut requests, mut seen) = (0, BTreeMap::<String, usize>::new());
        for source in &ingress.sources {
            // A signature with RSA takes long in a debug build.
            let rounds = if source.scheme_name == "paddle-classic" { 24 } else { 120 };
            for round in 0..rounds {
                let kinds = samples::types(&source.scheme_name);
                let kind =
                    kinds.get(round % kinds.len().max(1)).map_or("thing.changed", |kind| kind);
                let sample = samples::event(&source.scheme_name, kind, "evt_1", now());
                let sample = sample.map(|body| match body {
                    serde_json::Value::String(form) => form,
                    body => body.to_string(),
                });
                let other = r#"{"id":"evt_1","type":"thing.changed","signature":{}}"#;
                let body = sample.unwrap_or_else(|| other.to_owned());
                let query = (round % 5 == 4).then_some("a=1&b=%27");
                let event =
                    UnsignedEvent { id: "evt_1", kind, at: now(), query, body: body.as_bytes() };
                let Ok(signed) = sign(source, &keys(source).signing, event) else { continue };
                let (mut headers, mut body) = (signed.headers, signed.body);
                let mut line = match query {
                    Some(query) => format!("POST /webhooks/{}?{query} HTTP/1.1", source.name),
                    None => format!("POST /webhooks/{} HTTP/1.1", source.name),
                };
                // The first rounds are valid.
                match if round < 10 { 0 } else { round % 15 } {
                    1 if !body.is_empty() => {
                        let index = random.below(body.len());
                        body[index] ^= 1 << (random.below(8));
                    }
                    2 => body.truncate(random.below(body.len())),
                    3 => body.extend(std::iter::repeat_n(b' ', random.below(3) * 15_000 + 1)),
                    4 | 5 if !headers.is_empty() => {
                        let index = random.below(headers.len());
                        let value = &mut headers[index].1;
                        let mut bytes = value.clone().into_bytes();
                        let index = random.below(bytes.len());
                        if let Some(byte) = bytes.get_mut(index) {
                            *byte = b' ' + u8::try_from(random.below(95)).unwrap();
                        }
                        *value = String::from_utf8(bytes).unwrap();
                    }
                    6 if !headers.is_empty() => {
                        headers.remove(random.below(headers.len()));
                    }
                    7 if !headers.is_empty() => {
                        headers.push(headers[random.below(headers.len())].clone());
                    }
                    8 => {
                        let methods = ["GET", "HEAD", "PUT", "post"];
                        line = line.replacen("POST", methods[random.below(4)], 1);
                    }
                    9 => line = line.replacen(" HTTP", "?x='%#frag HTTP", 1),
                    10 => headers.push(("X-More".into(), "\u{e9}\u{202e}".into())),
                    12 => {
                        let codings = ["gzip", "br", "zstd", "identity"];
                        let coding = codings[random.below(4)].to_owned();
                        headers.push(("Content-Encoding".into(), coding));
                    }
                    13 => {
                        headers.push(("Content-Encoding".into(), "gzip".into()));
                        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                        encoder.write_all(&body).unwrap();
                        body = encoder.finish().unwrap();
                    }
                    14 => {
                        let secret = keys(source).verifying;
                        let token = ["x", secret.expose_secret()][random.below(2)];
                        let method = ["GET", "POST"][random.below(2)];
                        line = format!(
                            "{method} /webhooks/{}?hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}&token={token} HTTP/1.1",
                            source.name
                        );
                    }
                    11 => body.insert(random.below(body.len()), b"\xff\0\"{"[random.below(4)]),
                    _ => {}
                }
                let bytes = raw(&line, &headers, &body);
                queued.lock().unwrap().clear();
                let (status, reason) = answered(servers[&source.name], &bytes).await;
                let judged = match Captured::parse(&bytes) {
                    Ok(captured) => {
                        captured
                            .judge(&ingress, source, |_| Some(keys(source).verifying), now())
                            .await
                    }
                    // What is no HTTP has no reason.
                    Err(_) => Judgment::Rejected(Rejection::new(Reason::NotFound, "")),
                };
                let expected = match &judged {
                    Judgment::Events(_) | Judgment::Handshake | Judgment::Probe => None,
                    Judgment::Rejected(rejection) if rejection.reason == Reason::NotFound => None,
                    Judgment::Rejected(rejection) => Some(rejection.reason.as_str().to_owned()),
                    Judgment::NotReady(error) => panic!("{}: {error}", source.name),
                };
                let text = String::from_utf8_lossy(&bytes);
                assert_eq!(reason, expected, "{}: {judged:?}\n{text}", source.name);
                let events = match &judged {
                    Judgment::Events(events) => named(events),
                    _ => Vec::new(),
                };
                assert_eq!(*queued.lock().unwrap(), events, "{text}");
                let accepted = !matches!(judged, Judgment::Rejected(_));
                assert_eq!((200..300).contains(&status), accepted, "{judged:?}\n{text}");
                requests += 1;
                *seen.entry(expected.unwrap_or_else(|| status.to_string())).or_default() += 1;
            }
        }
        assert!(requests > 2000, "{requests}");
        for result in [
            "200",
            "no_matching_signature",
            "malformed_header",
            "missing_header",
            "malformed_event",
            "malformed_body",
            "unsupported_encoding",
            "invalid_challenge",
            "body_too_large",
            "method_not_allowed",
        ] {
            assert!(seen.contains_key(result), "{result}: {seen:?}");
        }
    }
}
