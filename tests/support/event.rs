//! Events, signed as their providers sign.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use hookmill_config::{Config, Source, parse};
use hookmill_core::message::{
    BodyForm, ClaimCheck, Envelope, VERSION, Verified, encode, encode_claim_check,
};
use hookmill_core::objects::claim_check_key;
use hookmill_core::time::Timestamp;
use hookmill_providers::{Signed, UnsignedEvent, development, sign};
use serde_json::{Value, json};

use crate::{CLERK_SECRET, STRIPE_SECRET};

/// The current time.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The sources of the contract's configuration.
pub(crate) fn sources() -> impl Iterator<Item = &'static Source> {
    static CONFIG: LazyLock<Config> = LazyLock::new(|| {
        let path = crate::folder().join("hookmill.toml");
        let text = std::fs::read_to_string(path).expect("the contract has a configuration");
        parse("tests/hookmill.toml", &text).expect("the contract's configuration is valid")
    });
    CONFIG.ingress.sources.iter()
}

fn source(name: &str) -> &'static Source {
    sources().find(|source| source.name == name).expect("the contract has such a source")
}

/// A request to a source with development keys.
pub fn signed(name: &str, kind: &str, id: &str, query: Option<&str>, body: &[u8]) -> Signed {
    signed_at(now(), name, kind, id, query, body)
}

/// The same, signed at this time.
pub fn signed_at(
    at: Timestamp,
    name: &str,
    kind: &str,
    id: &str,
    query: Option<&str>,
    body: &[u8],
) -> Signed {
    let source = source(name);
    let keys = development(source, &source.secrets[0].name);
    let event = UnsignedEvent { id, kind, at, query, body };
    sign(source, &keys.signing, event).expect("development keys are of their scheme")
}

/// An event for a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The source's name.
    pub source: &'static str,
    /// The provider's id.
    pub id: String,
    /// The body.
    pub body: Vec<u8>,
}

/// A Stripe event about an object.
pub fn stripe(kind: &str, id: &str, created: i64, object: Value) -> Event {
    let body = json!({
        "id": id,
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": created,
        "data": { "object": object },
        "livemode": false,
        "pending_webhooks": 1,
        "type": kind,
    });
    Event { source: "stripe", id: id.to_owned(), body: body.to_string().into_bytes() }
}

/// A Clerk event about an object.
pub fn clerk(kind: &str, id: &str, timestamp: i64, data: Value) -> Event {
    let body = json!({ "data": data, "object": "event", "timestamp": timestamp, "type": kind });
    Event { source: "clerk", id: id.to_owned(), body: body.to_string().into_bytes() }
}

/// A Mailgun event. Its signature covers a time and this token only.
pub fn mailgun(at: Timestamp, token: &str, id: &str, kind: &str) -> Value {
    let body = json!({
        "signature": { "token": token },
        "event-data": { "id": id, "event": kind, "recipient": "ada@example.com" },
    });
    let signed = signed_at(at, "mailgun", "", "", None, body.to_string().as_bytes());
    serde_json::from_slice(&signed.body).expect("a signed event is JSON")
}

impl Event {
    /// The same event, for another source.
    #[must_use]
    pub fn to(mut self, source: &'static str) -> Self {
        self.source = source;
        self
    }

    /// The headers of its request.
    pub fn headers(&self) -> Vec<(String, String)> {
        self.headers_signed_with(
            if self.source == "clerk" { CLERK_SECRET } else { STRIPE_SECRET },
            now(),
        )
    }

    /// The headers, signed with this secret at this time.
    pub fn headers_signed_with(&self, secret: &str, at: Timestamp) -> Vec<(String, String)> {
        let event = UnsignedEvent { id: &self.id, kind: "", at, query: None, body: &self.body };
        let signed = sign(source(self.source), &secret.into(), event)
            .expect("the contract's secrets are of their scheme");
        signed.headers
    }

    /// The message that ingress would enqueue.
    pub fn message(&self) -> String {
        encode(&mut self.envelope(), &self.body)
    }

    /// The message that ingress would enqueue if the body were too large for it.
    pub fn claim_check(&self) -> String {
        let check = ClaimCheck {
            key: claim_check_key(self.source, &self.id, &self.body),
            bytes: self.body.len(),
        };
        encode_claim_check(&mut self.envelope(), check)
    }

    fn envelope(&self) -> Envelope {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        Envelope {
            v: VERSION,
            source: self.source.to_owned(),
            id: self.id.clone(),
            kind: body["type"].as_str().unwrap_or("unknown").to_owned(),
            received_at: now(),
            verified: Verified { secret: 0, signed_at: Some(now()) },
            generation: 0,
            rules: Vec::new(),
            headers: BTreeMap::new(),
            api_version: body["api_version"].as_str().map(ToOwned::to_owned),
            from_api: None,
            body: BodyForm::Text,
        }
    }
}
