//! Requests with the verdict a verifier has to reach, and what must hold for every request.

#![allow(clippy::unwrap_used)] // Outside #[test] functions, clippy does not know that this is a test.

use std::time::Duration;

use hookmill_core::config::{Scheme, Source};
use hookmill_core::rejection::Reason;
use hookmill_core::request::Request;
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::time::Timestamp;
use hookmill_providers::{Verifier, sign};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    name: String,
    scheme: Scheme,
    secrets: Vec<String>,
    now: i64,
    headers: Vec<(String, String)>,
    body: Body,
    verdict: String,
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

fn source(scheme: Scheme, secrets: usize) -> Source {
    Source {
        name: "source".into(),
        scheme,
        secrets: (0..secrets).map(|i| SecretName(i.to_string())).collect(),
        tolerance: Duration::from_secs(300),
        future_tolerance: (scheme == Scheme::StandardWebhooks).then_some(Duration::from_secs(300)),
    }
}

/// `valid`, the reason of the rejection, or `unusable_secret`.
fn verdict(
    scheme: Scheme,
    secrets: &[&str],
    headers: &[(String, String)],
    body: &[u8],
    now: i64,
) -> &'static str {
    let lookup = |name: &SecretName| Some(Secret::from(secrets[name.0.parse::<usize>().unwrap()]));
    let Ok(verifier) = Verifier::new(&source(scheme, secrets.len()), lookup) else {
        return "unusable_secret";
    };
    let request = Request { headers: &headers.to_vec(), body };
    match verifier.verify(&request, Timestamp::from_seconds(now)) {
        Ok(_) => "valid",
        Err(rejection) => rejection.reason.as_str(),
    }
}

#[test]
fn every_vector_gets_its_verdict() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("vectors.json")).unwrap();
    for vector in vectors {
        let secrets: Vec<_> = vector.secrets.iter().map(String::as_str).collect();
        let found =
            verdict(vector.scheme, &secrets, &vector.headers, &vector.body.bytes(), vector.now);
        // The vectors are about signatures: some of their bodies are no events of their provider.
        let found = if found == "malformed_event" { "valid" } else { found };
        assert_eq!(found, vector.verdict, "{}", vector.name);
    }
}

const STRIPE: &str = "whsec_jdiGJDXlueNk5BxJwCzh7UPWYQaqoEvS";
const STANDARD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NOW: i64 = 1_767_225_600;
const BODY: &[u8] = br#"{"id":"evt_1","type":"invoice.paid"}"#;

fn secret(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Stripe => STRIPE,
        Scheme::StandardWebhooks => STANDARD,
    }
}

fn signed(scheme: Scheme, id: &str, body: &[u8]) -> Vec<(String, String)> {
    sign(scheme, &secret(scheme).into(), id, Timestamp::from_seconds(NOW), body)
        .unwrap()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn stripe(header: &str) -> &'static str {
    verdict(Scheme::Stripe, &[STRIPE], &[("Stripe-Signature".into(), header.into())], BODY, NOW)
}

#[test]
fn a_stripe_header_that_is_not_of_the_grammar_is_refused_with_the_reason() {
    let good = signed(Scheme::Stripe, "", BODY)[0].1.clone();
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
        (format!("t=0{NOW},v1={signature}"), "no_matching_signature"),
    ] {
        assert_eq!(stripe(&header), reason, "{header}");
    }
}

#[test]
fn a_standard_webhooks_header_that_is_not_of_the_grammar_is_refused_with_the_reason() {
    let good = signed(Scheme::StandardWebhooks, "msg_1", BODY);
    let with = |index: usize, value: &str| {
        let mut headers = good.clone();
        headers[index].1 = value.to_owned();
        verdict(Scheme::StandardWebhooks, &[STANDARD], &headers, BODY, NOW)
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
    assert_eq!(
        verdict(Scheme::StandardWebhooks, &[STANDARD], &repeated, BODY, NOW),
        "malformed_header"
    );
}

#[test]
fn a_body_that_is_no_event_is_refused_after_its_signature() {
    for scheme in [Scheme::Stripe, Scheme::StandardWebhooks] {
        for body in [
            &b""[..],
            b"{",
            b"[]",
            b"{}",
            b"null",
            b"{\"id\":\"evt_1\",\"type\":1}",
            b"{\"id\":\"evt_1\",\"type\":\"\"}",
            b"{\"id\":\"evt_1\",\"type\":\"a\\nb\"}",
            b"{\"id\":\"evt_1\",\"type\":\"\xff\"}",
            b"{\"id\":\"evt_1\",\"type\":\"a\"} x",
            b"{\"id\":\"evt_1\",\"type\":\"a\",\"type\":\"b\"}",
        ] {
            let found =
                verdict(scheme, &[secret(scheme)], &signed(scheme, "msg_1", body), body, NOW);
            assert_eq!(found, "malformed_event", "{}", String::from_utf8_lossy(body));
        }
    }
    let long = format!("{{\"id\":\"{}\",\"type\":\"a\"}}", "e".repeat(257));
    let found = verdict(
        Scheme::Stripe,
        &[STRIPE],
        &signed(Scheme::Stripe, "", long.as_bytes()),
        long.as_bytes(),
        NOW,
    );
    assert_eq!(found, "malformed_event");
}

#[test]
fn a_secret_that_could_never_verify_is_refused_before_any_request() {
    for secret in ["", " ", "whsec_", "v1,whsec_", "whsec_!"] {
        assert_eq!(
            verdict(Scheme::StandardWebhooks, &[secret], &[], b"", NOW),
            "unusable_secret",
            "{secret:?}"
        );
    }
    assert_eq!(verdict(Scheme::Stripe, &[" "], &[], b"", NOW), "unusable_secret");
    let none_set = Verifier::new(&source(Scheme::Stripe, 2), |_| None).unwrap_err();
    insta::assert_snapshot!(none_set, @"source `source`: none of its secrets is set (0, 1)");
}

#[test]
fn the_matching_secret_is_named_by_its_place() {
    let headers = signed(Scheme::Stripe, "", BODY);
    let lookup = |name: &SecretName| (name.0 == "2").then(|| Secret::from(STRIPE));
    let verifier = Verifier::new(&source(Scheme::Stripe, 3), lookup).unwrap();
    let request = Request { headers: &headers, body: BODY };
    let (verified, event) = verifier.verify(&request, Timestamp::from_seconds(NOW)).unwrap();
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
    assert_eq!(at(Scheme::Stripe, NOW + 300), "valid");
    assert_eq!(at(Scheme::Stripe, NOW + 301), Reason::TimestampTooOld.as_str());
    assert_eq!(at(Scheme::Stripe, NOW - 100_000), "valid");
    assert_eq!(at(Scheme::StandardWebhooks, NOW - 300), "valid");
    assert_eq!(at(Scheme::StandardWebhooks, NOW - 301), Reason::TimestampInFuture.as_str());
}

fn any_scheme() -> impl Strategy<Value = Scheme> {
    prop_oneof![Just(Scheme::Stripe), Just(Scheme::StandardWebhooks)]
}

proptest! {
    #[test]
    fn a_changed_bit_of_the_body_is_noticed(scheme in any_scheme(), extra: String, bit: prop::sample::Index) {
        let text = serde_json::to_string(&extra).unwrap();
        let body = format!("{{\"id\":\"evt_1\",\"type\":\"a\",\"x\":{text}}}").into_bytes();
        let headers = signed(scheme, "msg_1", &body);
        prop_assert_eq!(verdict(scheme, &[secret(scheme)], &headers, &body, NOW), "valid");
        let mut changed = body.clone();
        let bit = bit.index(body.len() * 8);
        changed[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(verdict(scheme, &[secret(scheme)], &headers, &changed, NOW), "no_matching_signature");
    }

    #[test]
    fn no_header_makes_a_verifier_panic(scheme in any_scheme(), values in prop::collection::vec("[ -~]{0,40}|[tv01=,. ]{0,40}", 3)) {
        let names = match scheme {
            Scheme::Stripe => vec!["Stripe-Signature"],
            Scheme::StandardWebhooks => vec!["webhook-id", "webhook-timestamp", "webhook-signature"],
        };
        let headers: Vec<_> = names.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value)).collect();
        prop_assert_ne!(verdict(scheme, &[secret(scheme)], &headers, BODY, NOW), "valid");
    }
}
