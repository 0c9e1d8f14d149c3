//! Vectors of requests with their verdicts, and properties of every request.

#![allow(clippy::unwrap_used)] // Outside #[test] functions, clippy does not know that this is a test.

use hookmill_config::scheme::Scheme;
use hookmill_config::{Source, parse};
use hookmill_core::rejection::Reason;
use hookmill_core::request::{Head, Request};
use hookmill_core::secret::{ExposeSecret as _, Secret, SecretName};
use hookmill_core::time::Timestamp;
use hookmill_providers::{Admitted, Signed, UnsignedEvent, Verifier, development, sign};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    name: String,
    scheme: String,
    secrets: Vec<String>,
    now: i64,
    #[serde(default = "post")]
    method: String,
    public_url: Option<String>,
    query: Option<String>,
    tolerance: Option<String>,
    #[serde(default)]
    asymmetric: bool,
    headers: Vec<(String, String)>,
    body: Body,
    verdict: String,
}

fn post() -> String {
    "POST".to_owned()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    Text { text: String },
    Hex { hex: String },
    Repeated { head: String, repeated: String, times: usize, tail: String },
}

impl Body {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text { text } => text.clone().into_bytes(),
            Self::Hex { hex } => (0..hex.len())
                .step_by(2)
                .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
                .collect(),
            Self::Repeated { head, repeated, times, tail } => {
                format!("{head}{}{tail}", repeated.repeat(*times)).into_bytes()
            }
        }
    }
}

/// A source of hookmill.toml with this number of secrets.
fn source(scheme: &str, secrets: usize, more: &str) -> Source {
    let names: Vec<_> = (0..secrets).map(|i| format!("\"env:S{i}\"")).collect();
    let text = format!(
        "[sources.source]\nscheme = \"{scheme}\"\nsecrets = [{}]\n{more}",
        names.join(", ")
    );
    let config = parse("hookmill.toml", &text);
    config.unwrap_or_else(|errors| panic!("{text}\n{}", errors[0])).ingress.sources.remove(0)
}

/// `valid`, the reason of the rejection, or `unusable_secret`.
fn judge(
    source: &Source,
    secrets: &[&str],
    request: &Request<'_>,
    now: i64,
) -> (&'static str, String) {
    let lookup =
        |name: &SecretName| Some(Secret::from(secrets[name.0[1..].parse::<usize>().unwrap()]));
    let verifier = match Verifier::new(source, lookup) {
        Ok(verifier) => verifier,
        Err(error) => return ("unusable_secret", error.to_string()),
    };
    let now = Timestamp::from_seconds(now);
    let head = verifier.check_head(request.head(), now);
    let whole = verifier.verify(request, now);
    match (head, whole) {
        (Ok(()), Ok(_)) => ("valid", String::new()),
        (Err(head), Ok(_)) => panic!("the headers alone are rejected: {head:?}"),
        (Ok(()), Err(rejection)) => {
            // Without its body, a request is rejected as soon as possible.
            let missing = rejection.reason == Reason::MissingHeader;
            assert!(!missing || source.scheme == Scheme::PaddleClassic, "{rejection:?}");
            (rejection.reason.as_str(), rejection.detail)
        }
        (Err(head), Err(rejection)) => {
            let time = [Reason::TimestampTooOld, Reason::TimestampInFuture].contains(&head.reason);
            assert!(head == rejection || time, "{head:?}, {rejection:?}");
            (rejection.reason.as_str(), rejection.detail)
        }
    }
}

#[test]
fn headers_alone_are_rejected_before_the_body() {
    let old = NOW - 301;
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let judged = |source: &Source, headers: &[(String, String)]| {
        let verifier = Verifier::new(source, |_| Some(Secret::from(secret("stripe")))).unwrap();
        let headers = headers.to_vec();
        let head = Head { method: "POST", query: None, headers: &headers };
        let result = verifier.check_head(head, Timestamp::from_seconds(NOW));
        result.map_or_else(|rejection| rejection.reason.as_str(), |()| "read the body")
    };
    let stripe = source("stripe", 1, "");
    let sent = |values: &[&str]| {
        let headers: Vec<_> = values.iter().map(|v| header("Stripe-Signature", v)).collect();
        judged(&stripe, &headers)
    };
    let current = format!("t={NOW},v1=00");
    assert_eq!(sent(&[&current]), "read the body");
    assert_eq!(sent(&[]), "missing_header");
    assert_eq!(sent(&[&current, &current]), "malformed_header");
    assert_eq!(sent(&[&format!("t={NOW},v2=00")]), "no_matching_signature");
    assert_eq!(sent(&[&format!("t={old},v1=00")]), "timestamp_too_old");
    assert_eq!(sent(&[&format!("t={},v1=00", NOW + 301)]), "timestamp_in_future");

    // A token proves nothing about the body, so it is compared before.
    let more = "signature = { header = \"X-Token\" }\nevent = { id = \"hash:body\", type = \"kind\", default = \"d\" }\n";
    let token = source("token", 1, more);
    assert_eq!(judged(&token, &[header("X-Token", secret("stripe"))]), "read the body");
    assert_eq!(judged(&token, &[header("X-Token", "guess")]), "no_matching_signature");

    // These have the signature in the body.
    for scheme in ["mailgun", "paddle-classic"] {
        let source = source(scheme, 1, "");
        let secret = development(&source, &source.secrets[0].name).verifying;
        let verifier = Verifier::new(&source, |_| Some(secret.clone())).unwrap();
        let none = Vec::new();
        let head = Head { method: "POST", query: None, headers: &none };
        assert_eq!(verifier.check_head(head, Timestamp::from_seconds(NOW)), Ok(()), "{scheme}");
    }
}

fn verdict(
    scheme: &str,
    secrets: &[&str],
    headers: &[(String, String)],
    body: &[u8],
    now: i64,
) -> &'static str {
    let headers = headers.to_vec();
    let request = Request { method: "POST", query: None, headers: &headers, body };
    judge(&source(scheme, secrets.len(), ""), secrets, &request, now).0
}

#[test]
fn every_vector_gets_its_verdict() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("vectors.json")).unwrap();
    for vector in vectors {
        let secrets: Vec<_> = vector.secrets.iter().map(String::as_str).collect();
        let mut more = String::new();
        for (key, value) in [("public_url", &vector.public_url), ("tolerance", &vector.tolerance)] {
            if let Some(value) = value {
                more += &format!("{key} = \"{value}\"\n");
            }
        }
        if vector.asymmetric {
            more += "asymmetric = true\n";
        }
        let request = Request {
            method: &vector.method,
            query: vector.query.as_deref(),
            headers: &vector.headers,
            body: &vector.body.bytes(),
        };
        let source = source(&vector.scheme, secrets.len(), &more);
        let (found, detail) = judge(&source, &secrets, &request, vector.now);
        // The vectors are about signatures: some of their bodies are not events of the provider.
        let no_event = found == "malformed_event" && vector.verdict == "valid";
        let found = if no_event { "valid" } else { found };
        assert_eq!(found, vector.verdict, "{} {}: {detail}", vector.scheme, vector.name);
    }
}

const STRIPE: &str = "whsec_jdiGJDXlueNk5BxJwCzh7UPWYQaqoEvS";
const STANDARD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NOW: i64 = 1_767_225_600;
const BODY: &[u8] = br#"{"id":"evt_1","type":"invoice.paid"}"#;

fn secret(scheme: &str) -> &'static str {
    if scheme == "stripe" { STRIPE } else { STANDARD }
}

fn outgoing<'a>(id: &'a str, body: &'a [u8]) -> UnsignedEvent<'a> {
    UnsignedEvent { id, kind: "kind", at: Timestamp::from_seconds(NOW), query: None, body }
}

fn signed(scheme: &str, id: &str, body: &[u8]) -> Vec<(String, String)> {
    sign(&source(scheme, 1, ""), &secret(scheme).into(), outgoing(id, body)).unwrap().headers
}

fn stripe(header: &str) -> &'static str {
    verdict("stripe", &[STRIPE], &[("Stripe-Signature".into(), header.into())], BODY, NOW)
}

#[test]
fn a_malformed_stripe_header_is_rejected_with_the_reason() {
    let good = signed("stripe", "", BODY)[0].1.clone();
    let signature = good.split_once("v1=").unwrap().1.to_owned();
    assert_eq!(stripe(&good), "valid");
    assert_eq!(stripe(&format!("t={NOW},v1=,v1=zz,v1={signature}")), "valid");
    for (header, reason) in [
        (String::new(), "missing_header"),
        ("nonsense".into(), "malformed_header"),
        (format!("v1={signature}"), "malformed_header"),
        (format!("t={NOW},t={NOW},v1={signature}"), "malformed_header"),
        (format!("t=0{NOW}x,v1={signature}"), "malformed_header"),
        (format!("t=+{NOW},v1={signature}"), "malformed_header"),
        (format!("t=99999999999999,v1={signature}"), "malformed_header"),
        (format!("t={NOW}{}", ",v1=00".repeat(9)), "malformed_header"),
        (format!("t={NOW},v1={signature}, v1={signature}"), "malformed_header"),
        (format!("t={NOW},v1="), "no_matching_signature"),
        (format!("t={NOW},v1={}", signature.to_uppercase()), "no_matching_signature"),
        (format!("t={NOW},v1={signature}00"), "no_matching_signature"),
        (format!("t=0{NOW},v1={signature}"), "malformed_header"),
        (format!("t={},v1={signature}", NOW - 1), "no_matching_signature"),
    ] {
        assert_eq!(stripe(&header), reason, "{header}");
    }
}

#[test]
fn a_malformed_standard_webhooks_header_is_rejected_with_the_reason() {
    let good = signed("standard-webhooks", "msg_1", BODY);
    let with = |index: usize, value: &str| {
        let mut headers = good.clone();
        headers[index].1 = value.to_owned();
        verdict("standard-webhooks", &[STANDARD], &headers, BODY, NOW)
    };
    let signature = &good[2].1;
    assert_eq!(with(2, signature), "valid");
    assert_eq!(with(2, &format!("v1,AAAA v2,x {signature}")), "valid");
    for (index, value, reason) in [
        (0, String::new(), "missing_header"),
        (1, String::new(), "missing_header"),
        (2, String::new(), "missing_header"),
        (1, format!("{NOW}abc"), "malformed_header"),
        (2, format!("{signature} ").repeat(9), "malformed_header"),
        (0, "msg_1, msg_1".into(), "malformed_header"),
        (2, "v2,AAAA".into(), "no_matching_signature"),
        (2, signature.replace("v1,", ""), "no_matching_signature"),
        (2, signature.trim_end_matches('=').to_owned(), "no_matching_signature"),
        (1, (NOW - 1).to_string(), "no_matching_signature"),
    ] {
        assert_eq!(with(index, &value), reason, "{value}");
    }
    let repeated: Vec<_> = good.iter().chain(&good[2..]).cloned().collect();
    assert_eq!(verdict("standard-webhooks", &[STANDARD], &repeated, BODY, NOW), "malformed_header");
}

#[test]
fn a_body_that_is_not_an_event_is_rejected_after_its_signature() {
    for scheme in ["stripe", "standard-webhooks"] {
        for body in [
            &b""[..],
            b"{",
            b"[]",
            b"{}",
            b"null",
            b"{\"id\":\"evt_1\",\"type\":true}",
            b"{\"id\":\"evt_1\",\"type\":\"\"}",
            b"{\"id\":\"evt_1\",\"type\":\"a\\nb\"}",
            b"{\"id\":\"evt_1\",\"type\":\"\xff\"}",
            b"{\"id\":\"evt_1\",\"type\":\"a\"} x",
        ] {
            let found =
                verdict(scheme, &[secret(scheme)], &signed(scheme, "msg_1", body), body, NOW);
            assert_eq!(found, "malformed_event", "{}", String::from_utf8_lossy(body));
        }
    }
    let long = format!("{{\"id\":\"{}\",\"type\":\"a\"}}", "e".repeat(257));
    let found =
        verdict("stripe", &[STRIPE], &signed("stripe", "", long.as_bytes()), long.as_bytes(), NOW);
    assert_eq!(found, "malformed_event");
}

#[test]
fn a_secret_that_could_never_verify_is_rejected_before_any_request() {
    for secret in ["", " ", "whsec_", "v1,whsec_", "whsec_!"] {
        assert_eq!(
            verdict("standard-webhooks", &[secret], &[], b"", NOW),
            "unusable_secret",
            "{secret:?}"
        );
    }
    assert_eq!(verdict("stripe", &[" "], &[], b"", NOW), "unusable_secret");
    let none_set = Verifier::new(&source("stripe", 2, ""), |_| None).unwrap_err();
    insta::assert_snapshot!(none_set, @"source `source`: none of its secrets is set (S0, S1)");
}

/// Shopify signs the query of an OAuth redirect with the same secret, and a merchant sees it.
#[test]
fn only_a_json_object_is_an_event_of_a_provider_that_sends_nothing_else() {
    let at = |scheme: &str, body: &str| {
        let source = source(scheme, 1, "");
        let keys = development(&source, &SecretName("S0".into()));
        let signed = sign(&source, &keys.signing, outgoing("evt_1", body.as_bytes())).unwrap();
        let request =
            Request { method: "POST", query: None, headers: &signed.headers, body: &signed.body };
        let verifying = keys.verifying.expose_secret().to_owned();
        judge(&source, &[&verifying], &request, NOW)
    };
    for scheme in ["shopify", "github", "discord", "supabase"] {
        for body in ["code=x&shop=a.myshopify.com", "", "[{}]", "1", "{} {}", "{\"a\":}"] {
            let (verdict, detail) = at(scheme, body);
            assert_eq!(verdict, "malformed_event", "{scheme} {body}");
            assert!(detail.contains("not a JSON object") || detail.contains("not valid JSON"));
        }
        assert_eq!(at(scheme, " {\"event\":1}").0, "valid", "{scheme}");
    }
    // An administrator at Zendesk defines the body.
    assert_eq!(at("zendesk", "code=x").0, "valid");
}

/// As in Linear's SDK: <https://github.com/linear/linear/blob/master/packages/sdk/src/webhooks/client.ts>.
#[test]
fn the_time_of_linear_is_a_number() {
    for (time, expected) in [
        ("1767225600000", "valid"),
        ("\"1767225600000\"", "malformed_event"),
        ("1767225600", "malformed_event"),
        ("1.7672256e12", "malformed_event"),
    ] {
        let body = format!("{{\"type\":\"Issue\",\"webhookTimestamp\":{time}}}");
        // Signed as the file says, without the sender's own time.
        let more = "signature = { header = \"Linear-Signature\", encoding = \"hex\" }\npayload = \"{body}\"\nevent = { id = \"header:Linear-Delivery\", type = \"type\" }\n";
        let plain = source("hmac", 1, more);
        let secret = Secret::from("a-secret-of-linear");
        let signed = sign(&plain, &secret, outgoing("evt_1", body.as_bytes())).unwrap();
        let found = verdict("linear", &["a-secret-of-linear"], &signed.headers, &signed.body, NOW);
        assert_eq!(found, expected, "{time}");
    }
}

#[test]
fn the_matching_secret_is_identified_by_its_index() {
    let headers = signed("stripe", "", BODY);
    let lookup = |name: &SecretName| (name.0 == "S2").then(|| Secret::from(STRIPE));
    let verifier = Verifier::new(&source("stripe", 3, ""), lookup).unwrap();
    let request = Request { method: "POST", query: None, headers: &headers, body: BODY };
    let admitted = verifier.verify(&request, Timestamp::from_seconds(NOW)).unwrap();
    let Admitted::Events(verified, events) = admitted else { panic!("it is an event") };
    let event = &events[0];
    assert_eq!(
        (verified.secret, event.id.as_str(), event.kind.as_str()),
        (2, "evt_1", "invoice.paid")
    );
    assert!(!format!("{verifier:?}").contains(STRIPE));
}

#[test]
fn tolerances_are_inclusive_and_separate() {
    let at =
        |scheme, now| verdict(scheme, &[secret(scheme)], &signed(scheme, "msg_1", BODY), BODY, now);
    assert_eq!(at("stripe", NOW + 300), "valid");
    assert_eq!(at("stripe", NOW + 301), Reason::TimestampTooOld.as_str());
    for scheme in ["stripe", "standard-webhooks"] {
        assert_eq!(at(scheme, NOW - 300), "valid");
        assert_eq!(at(scheme, NOW - 301), Reason::TimestampInFuture.as_str());
    }
}

/// The events of a request to a source.
fn named(source: &Source, signed: &Signed, secret: &Secret) -> Vec<(String, String)> {
    let request =
        Request { method: "POST", query: None, headers: &signed.headers, body: &signed.body };
    let verifier = Verifier::new(source, |_| Some(secret.clone())).unwrap();
    match verifier.verify(&request, Timestamp::from_seconds(NOW)).unwrap() {
        Admitted::Events(_, events) => {
            events.into_iter().map(|event| (event.id, event.kind)).collect()
        }
        Admitted::Handshake(_) => Vec::new(),
    }
}

#[test]
fn a_signature_that_leaves_the_body_open_is_one_event() {
    let source = source("mailgun", 1, "");
    let secret = Secret::from("key");
    let sent = |token: &str, id: &str, event: &str| {
        let body = serde_json::json!({
            "signature": { "token": token }, "event-data": { "id": id, "event": event },
        });
        sign(&source, &secret, outgoing("x", body.to_string().as_bytes())).unwrap()
    };
    let genuine = sent("6e0b", "ev1", "delivered");
    let [(id, kind)] = named(&source, &genuine, &secret).try_into().unwrap();
    assert_eq!((id.len(), kind.as_str()), (64, "delivered"));
    // The rest of the body does not matter.
    for body in [
        String::from_utf8(genuine.body.clone()).unwrap().replace("ev1", "ev2"),
        String::from_utf8(genuine.body.clone()).unwrap().replace("delivered", "unsubscribed"),
        // The same time, spelled as a number.
        String::from_utf8(genuine.body.clone()).unwrap().replace("\"1767225600\"", "1767225600"),
    ] {
        let forged = Signed { headers: Vec::new(), body: body.into_bytes() };
        assert_ne!(forged, genuine);
        assert_eq!(named(&source, &forged, &secret)[0].0, id);
    }
    // Another signature is another event.
    assert_ne!(named(&source, &sent("6e0c", "ev1", "delivered"), &secret)[0].0, id);
}

#[test]
fn each_member_of_a_list_without_a_key_is_a_signature() {
    let more = "signature = { header = [\"Acme\", \"X-Acme\"], list = \",\", prefix = \"v1=\", encoding = \"hex\" }\npayload = \"{body}\"\nevent = { id = \"hash:body\", type = \"type\" }\n";
    let source = source("hmac", 1, more);
    let key = "a-secret-of-acme";
    let good = sign(&source, &key.into(), outgoing("", BODY)).unwrap().headers.remove(0);
    assert_eq!(good.0, "Acme");
    let good = good.1;
    let sent = |headers: &[(&str, &str)]| {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = Request { method: "POST", query: None, headers: &headers, body: BODY };
        judge(&source, &[key], &request, NOW).0
    };
    let other = format!("v1=00, {good}");
    let blanks = format!(" {good} ,v2=00");
    for headers in [
        &[("Acme", &*good)][..],
        &[("X-Acme", &*good)],
        &[("Acme", &*other)],
        &[("Acme", &*blanks)],
        // A Worker gets these as one.
        &[("Acme", "v1=00"), ("Acme", &*good)],
        &[("Acme", "v1=00"), ("X-Acme", &*good)],
    ] {
        assert_eq!(sent(headers), "valid", "{headers:?}");
    }
    let many = format!("{}{good}", "v1=00,".repeat(8));
    for (header, reason) in [
        ("", "missing_header"),
        (" , ", "no_matching_signature"),
        ("v1=00,v1=zz", "no_matching_signature"),
        (good.trim_start_matches("v1="), "no_matching_signature"),
        (&many, "malformed_header"),
    ] {
        assert_eq!(sent(&[("Acme", header)]), reason, "{header}");
    }
}

#[test]
fn a_header_of_stated_length_has_that_length() {
    let more = "signature = { header = \"X-S\", encoding = \"hex\" }\ntimestamp = { header = \"X-T\" }\npayload = \"{header:X-Id:4}{timestamp}{body}\"\nevent = { id = \"header:X-Id\", type = \"type\", default = \"none\" }\n";
    let source = source("hmac", 1, more);
    let sent = |id: &str, timestamp: &str, body: &str| {
        let mut signed = sign(&source, &"secret".into(), outgoing("id_1", b"{}")).unwrap();
        for (name, value) in [("X-Id", id), ("X-T", timestamp)] {
            let header = signed.headers.iter_mut().find(|(header, _)| header == name).unwrap();
            value.clone_into(&mut header.1);
        }
        let request = Request {
            method: "POST",
            query: None,
            headers: &signed.headers,
            body: body.as_bytes(),
        };
        judge(&source, &["secret"], &request, NOW).0
    };
    assert_eq!(sent("id_1", &NOW.to_string(), "{}"), "valid");
    // The same bytes, divided in another way.
    assert_eq!(sent("id_", "1176722560", "0{}"), "malformed_header");
    assert_eq!(sent("id_11", "767225600{", "}"), "malformed_header");
}

#[test]
fn a_signed_part_does_not_contain_the_separator_after_it() {
    let more = "signature = { header = \"X-S\", encoding = \"hex\" }\npayload = \"{header:X-Id}.{header:X-Topic}.{body}\"\nevent = { id = \"header:X-Id\", type = \"header:X-Topic\" }\n";
    let source = source("hmac", 1, more);
    let sent = |id: &str, topic: &str| {
        let event = UnsignedEvent { kind: "order.paid", ..outgoing("evt_1", b"{}") };
        let mut signed = sign(&source, &"secret".into(), event).unwrap();
        for (name, value) in [("X-Id", id), ("X-Topic", topic)] {
            let header = signed.headers.iter_mut().find(|(header, _)| header == name).unwrap();
            value.clone_into(&mut header.1);
        }
        let request =
            Request { method: "POST", query: None, headers: &signed.headers, body: b"{}" };
        judge(&source, &["secret"], &request, NOW).0
    };
    // The same bytes, divided in two ways: both are ambiguous.
    assert_eq!(sent("evt_1", "order.paid"), "malformed_header");
    assert_eq!(sent("evt_1.order", "paid"), "malformed_header");
    let event = UnsignedEvent { kind: "order", ..outgoing("evt_1", b"{}") };
    let signed = sign(&source, &"secret".into(), event).unwrap();
    let request = Request { method: "POST", query: None, headers: &signed.headers, body: b"{}" };
    assert_eq!(judge(&source, &["secret"], &request, NOW).0, "valid");
}

#[test]
fn an_event_has_the_api_version_that_its_request_states() {
    let version = |scheme: &str, more: &str, headers: &[(&str, &str)], body: &[u8]| {
        let source = source(scheme, 1, more);
        let keys = development(&source, &source.secrets[0].name);
        let mut signed = sign(&source, &keys.signing, outgoing("evt_1", body)).unwrap();
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        signed.headers.extend(headers);
        let request =
            Request { method: "POST", query: None, headers: &signed.headers, body: &signed.body };
        let verifier = Verifier::new(&source, |_| Some(keys.verifying.clone())).unwrap();
        let Admitted::Events(_, mut events) =
            verifier.verify(&request, Timestamp::from_seconds(NOW)).unwrap()
        else {
            panic!("{scheme}: it is an event")
        };
        events.remove(0).api_version
    };
    let shopify = ["X-Shopify-API-Version", "Shopify-API-Version"];
    let twilio = "public_url = \"https://a.test/b\"\n";
    let own = "signature = { header = \"X-S\", encoding = \"hex\" }\npayload = \"{body}\"\nevent = { id = \"header:X-Id\", type = \"header:X-Kind\", api_version = [\"v\", \"header:X-V\"] }\n";
    let stripe = |value: &str| {
        let body = format!(r#"{{"id":"evt_1","type":"a.b"{value}}}"#);
        version("stripe", "", &[], body.as_bytes())
    };
    assert_eq!(stripe(r#","api_version":"2025-03-31.basil""#).as_deref(), Some("2025-03-31.basil"));
    assert_eq!(stripe(r#","api_version":null"#), None);
    assert_eq!(stripe(""), None);
    assert_eq!(stripe(r#","api_version":{}"#), None);
    assert_eq!(stripe(r#","api_version":"a b""#).as_deref(), Some("other"));
    for name in shopify {
        assert_eq!(version("shopify", "", &[(name, "2024-07")], b"{}").as_deref(), Some("2024-07"));
    }
    // An event is accepted without a version, and with several.
    let twice = [(shopify[0], "2024-07"), (shopify[0], "2024-10")];
    assert_eq!(version("shopify", "", &twice, b"{}"), None);
    let body = br#"{"type":"a","zendesk_event_version":"2022-06-20"}"#;
    assert_eq!(version("zendesk", "", &[], body).as_deref(), Some("2022-06-20"));
    let form = b"MessageSid=SM1&MessageStatus=sent&ApiVersion=2010-04-01";
    assert_eq!(version("twilio", twilio, &[], form).as_deref(), Some("2010-04-01"));
    // Nothing else of this one is in its body, so that need not be JSON.
    assert_eq!(version("hmac", own, &[], br#"{"v":7}"#).as_deref(), Some("7"));
    assert_eq!(version("hmac", own, &[("X-V", "8")], b"text").as_deref(), Some("8"));
    assert_eq!(version("hmac", own, &[], b"text"), None);
}

#[test]
fn a_stored_form_does_not_contain_its_signature() {
    let sent = Sent::new(source("paddle-classic", 1, ""), "");
    let request = Request {
        method: "POST",
        query: None,
        headers: &sent.signed.headers,
        body: &sent.signed.body,
    };
    let verifier = Verifier::new(&sent.source, |_| Some(sent.verifying.clone())).unwrap();
    let admitted = verifier.verify(&request, Timestamp::from_seconds(NOW)).unwrap();
    let Admitted::Events(_, events) = admitted else { panic!("it is an event") };
    let kept = String::from_utf8(events[0].body.to_vec()).unwrap();
    assert!(kept.contains("alert_id") && !kept.contains("signature"), "{kept}");
}

/// Every scheme that a source can name, with its required settings.
fn every_source() -> Vec<Source> {
    let general = [
        ("ed25519", "signature = { header = \"X-S\", encoding = \"base64\" }\nkey = \"base64\"\n"),
        ("ecdsa-p256", "signature = { header = \"X-S\", encoding = \"hex\" }\n"),
        ("hmac", "signature = { header = \"X-S\", encoding = \"hex\" }\nalgorithm = \"sha512\"\n"),
        ("token", "signature = { header = \"X-S\", prefix = \"Bearer \" }\n"),
    ];
    let payload = "payload = \"{header:X-T}.{body}\"\nevent = { id = \"header:X-T\", type = \"kind\", default = \"d\" }\n";
    let event = "event = { id = \"hash:body\", type = \"kind\", default = \"d\" }\n";
    hookmill_config::scheme_names()
        .map(|scheme| {
            let mut more = String::new();
            if ["twilio", "square", "hubspot"].contains(&scheme) {
                more += "public_url = \"https://hooks.example.com/webhooks/source\"\n";
            }
            if let Some((_, lines)) = general.iter().find(|(name, _)| *name == scheme) {
                more += lines;
                more += if scheme == "token" { event } else { payload };
            }
            source(scheme, 1, &more)
        })
        .collect()
}

/// A body that is an event of every scheme.
fn body_for(source: &Source, extra: &str) -> Vec<u8> {
    if ["twilio", "paddle-classic"].contains(&source.scheme_name.as_str()) {
        let extra: Vec<_> = extra.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let extra = extra.concat();
        return format!("alert_id=1&alert_name=a&MessageSid=SM1&Extra={extra}").into_bytes();
    }
    let event = serde_json::json!({
        "id": "evt_1", "event_id": "evt_1", "log_id": "1", "eventId": 1, "sg_event_id": "x", "kind": "k",
        "type": "a", "event_type": "a", "topic": "a", "subscriptionType": "a", "event": "a", "action": "a", "object": "a",
        "meta": { "event_name": "a" }, "data": { "type": "a" }, "event-data": { "id": "1", "event": "a" },
        "extra": extra,
    });
    event.to_string().into_bytes()
}

struct Sent {
    source: Source,
    verifying: Secret,
    signed: Signed,
}

impl Sent {
    fn new(source: Source, extra: &str) -> Self {
        let keys = development(&source, &SecretName("S0".into()));
        let body = body_for(&source, extra);
        let signed = sign(&source, &keys.signing, outgoing("id_1", &body)).unwrap();
        Self { source, verifying: keys.verifying, signed }
    }

    fn verdict(&self, headers: &Vec<(String, String)>, body: &[u8]) -> (&'static str, String) {
        let request = Request { method: "POST", query: None, headers, body };
        judge(&self.source, &[self.verifying.expose_secret()], &request, NOW)
    }
}

#[test]
fn a_signed_request_verifies_in_its_scheme() {
    for source in every_source() {
        let name = source.scheme_name.clone();
        let sent = Sent::new(source, "ü, \u{1f600} & =");
        let found = sent.verdict(&sent.signed.headers, &sent.signed.body);
        assert_eq!(found, ("valid", String::new()), "{name}");
    }
}

#[test]
fn a_repeated_signature_header_is_rejected() {
    for source in every_source() {
        let name = source.scheme_name.clone();
        let sent = Sent::new(source, "");
        for header in &sent.signed.headers {
            if header.0 == "Content-Type" {
                continue;
            }
            let mut headers = sent.signed.headers.clone();
            headers.push(header.clone());
            let (found, _) = sent.verdict(&headers, &sent.signed.body);
            assert_eq!(found, "malformed_header", "{name}: {}", header.0);
        }
    }
}

#[test]
fn a_request_without_a_signature_is_rejected() {
    for source in every_source() {
        let name = source.scheme_name.clone();
        let body = body_for(&source, "");
        let sent = Sent::new(source, "");
        let (found, _) = sent.verdict(&Vec::new(), &body);
        let expected = if name == "mailgun" { "malformed_event" } else { "missing_header" };
        assert_eq!(found, expected, "{name}");
    }
}

/// Schemes whose signature does not cover the body: Auth0 sends none, Mailgun's covers a token.
const OPEN: [&str; 3] = ["auth0", "mailgun", "token"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_bit_of_the_body_is_noticed(extra: String, bit: prop::sample::Index) {
        for source in every_source() {
            if OPEN.contains(&source.scheme_name.as_str()) {
                continue;
            }
            let name = source.scheme_name.clone();
            let sent = Sent::new(source, &extra);
            let mut changed = sent.signed.body.clone();
            let bit = bit.index(changed.len() * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            let (found, _) = sent.verdict(&sent.signed.headers, &changed);
            // An invalid form is rejected before its signature is checked; and one bit changes %2f to %2F, which is the
            // same form.
            let same = ["twilio", "paddle-classic"].contains(&name.as_str());
            prop_assert!(found != "valid" || same, "{name}: bit {bit}");
            if !same {
                prop_assert_eq!(found, "no_matching_signature", "{}: bit {}", name, bit);
            }
        }
    }

    #[test]
    fn a_changed_bit_of_a_header_is_noticed(header: prop::sample::Index, bit: prop::sample::Index) {
        for source in every_source() {
            let name = source.scheme_name.clone();
            let sent = Sent::new(source, "");
            if sent.signed.headers.is_empty() {
                continue;
            }
            let mut headers = sent.signed.headers.clone();
            let index = header.index(headers.len());
            let (header, value) = &mut headers[index];
            // The providers sign neither the event's type nor the content type.
            let unsigned = ["Content-Type", "X-GitHub-Delivery", "X-GitHub-Event", "X-Shopify-Event-Id", "X-Shopify-Topic", "Linear-Delivery", "X-Zendesk-Webhook-Invocation-Id"];
            if unsigned.contains(&header.as_str()) {
                continue;
            }
            let mut bytes = value.clone().into_bytes();
            let bit = bit.index(bytes.len() * 7);
            bytes[bit / 7] ^= 1 << (bit % 7);
            let header = header.clone();
            headers[index].1 = String::from_utf8(bytes).unwrap();
            let (found, _) = sent.verdict(&headers, &sent.signed.body);
            prop_assert_ne!(found, "valid", "{}: {} bit {}", name, header, bit);
        }
    }

    #[test]
    fn no_header_makes_a_verifier_panic(values in prop::collection::vec("[ -~]{0,40}|[tv01=,. ]{0,40}", 4)) {
        for source in every_source() {
            let sent = Sent::new(source, "");
            let mut headers = sent.signed.headers.clone();
            for (header, value) in headers.iter_mut().zip(&values) {
                header.1.clone_from(value);
            }
            // These schemes verify no header.
            if ["mailgun", "paddle-classic"].contains(&sent.source.scheme_name.as_str()) {
                continue;
            }
            prop_assert_ne!(sent.verdict(&headers, &sent.signed.body).0, "valid");
        }
    }
}

#[test]
fn a_signed_body_is_not_replaced() {
    let more = "signature = { body = \"sig\", encoding = \"hex\" }\npayload = \"{body:token}\"\nevent = { id = \"hash:signed\", type = \"type\" }\n";
    let source = source("hmac", 1, more);
    let sent = |body: &[u8]| {
        let signed = sign(&source, &"secret".into(), outgoing("msg_1", body)).unwrap();
        serde_json::from_slice::<serde_json::Value>(&signed.body).unwrap()
    };
    assert_eq!(sent(br#"{"id":"1","type":"a","token":"mine"}"#)["token"], "mine");
    assert_eq!(sent(br#"{"id":"1","type":"a"}"#)["token"].as_str().unwrap().len(), 64);
}

#[test]
fn a_source_expires_with_the_last_of_its_secrets() {
    let text = "[sources.s]\nscheme = \"stripe\"\nsecrets = [{ name = \"env:A\", not_after = 2026-01-01T00:00:00Z }, { name = \"env:B\", not_after = 2026-02-01T00:00:00Z }]\n";
    let source = parse("hookmill.toml", text).unwrap().ingress.sources.remove(0);
    let expired = |set: &[&str], at: &str| {
        let lookup = |name: &SecretName| set.contains(&name.0.as_str()).then(|| Secret::from("x"));
        let verifier = Verifier::new(&source, lookup).unwrap();
        verifier.expired(Timestamp::parse_rfc3339(at).unwrap())
    };
    assert!(!expired(&["A", "B"], "2026-02-01T00:00:00Z"));
    assert!(expired(&["A", "B"], "2026-02-01T00:00:01Z"));
    // A secret that is not set does not count.
    assert!(expired(&["A"], "2026-01-15T00:00:00Z"));
}
