//! No secret, signature or body appears in logs, errors or responses: the test sends canaries and searches for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookmill_tests::event::{clerk, now, stripe};
use hookmill_tests::{
    CLERK_SECRET, Fault, Operator, STRIPE_SECRET, STRIPE_SECRET_NEXT, eventually, secrets,
};
use serde_json::json;

use super::super::platform::Pipeline;
use super::{accepted, dead_letters};

/// A part of every body.
const BODY_CANARY: &str = "canaryInTheBody51f0";

/// The responses of the admin API without bodies, and the operator.
fn looked_at(pipeline: &Pipeline) -> (Operator, Vec<String>) {
    let reader = Operator::new(pipeline.admin(), "reader", "read", |sql| {
        pipeline.sql(sql);
    });
    let paths = [
        "/events",
        "/events/stripe/evt_1",
        "/events/stripe/evt_2",
        "/dead-letters",
        "/dead-letters/groups",
        "/rejections",
        "/counts",
        "/stats",
        "/configuration",
        "/token",
    ];
    let answers = paths.map(|path| {
        let answer = reader.get(path);
        assert_eq!(answer.status, 200, "{path}");
        answer.body
    });
    assert_eq!(Operator::stranger(pipeline.admin()).get("/stats").status, 401);
    (reader, answers.into())
}

#[test]
fn a_secret_never_leaves() {
    let pipeline = Pipeline::start();
    let mut seen = Vec::new();
    let mut signatures = Vec::new();
    let object = |id: &str, number: serde_json::Value| json!({ "id": id, "number": number, "text": BODY_CANARY });

    // Everything that can happen to an event: applied, sent twice, rejected by the store, unreadable, unmatched.
    let events = [
        stripe("test.guarded", "evt_1", 1, object("a", json!(1))),
        stripe("test.guarded", "evt_1", 1, object("a", json!(1))),
        stripe("test.guarded", "evt_2", 1, object("b", json!(-1))),
        stripe("test.guarded", "evt_3", 1, object("b", json!(BODY_CANARY))),
        stripe("test.guarded", "evt_4", 1, json!({ "id": null, "text": BODY_CANARY })),
        stripe("test.fleeting", "evt_5", 1, json!({ "id": "x", "text": BODY_CANARY })),
        stripe("test.unheard_of", "evt_6", 1, json!({ "text": BODY_CANARY })).to("strict"),
        clerk("user.created", "msg_1", 1, json!({ "id": "user_1", "first_name": BODY_CANARY })),
    ];
    pipeline.sql("ALTER TABLE fleeting RENAME TO elsewhere");
    for event in &events {
        let headers = event.headers();
        signatures.extend(headers.iter().map(|(_, value)| value.clone()));
        let response = pipeline.send(&headers, event.source, &event.body);
        assert_eq!(response.status, 200);
        seen.push(response.body);
    }
    // A version that is not a number, and every kind of rejection.
    let mut odd = events[0].clone();
    odd.body = format!("{{\"id\":\"evt_7\",\"type\":\"test.guarded\",\"created\":\"{BODY_CANARY}\",\"data\":{{\"object\":{{\"id\":\"c\"}}}}}}").into_bytes();
    accepted(&pipeline, &odd);
    let event = &events[0];
    let malformed = hookmill_tests::event::Event { body: BODY_CANARY.into(), ..event.clone() };
    for (headers, body) in [
        (event.headers_signed_with("whsec_another", now()), &event.body),
        (
            event.headers_signed_with(
                STRIPE_SECRET,
                hookmill_core::time::Timestamp::from_seconds(1),
            ),
            &event.body,
        ),
        (event.headers(), &malformed.body),
        (malformed.headers(), &malformed.body),
        (vec![("Stripe-Signature".into(), format!("t=1,{BODY_CANARY}"))], &event.body),
    ] {
        signatures.extend(headers.iter().map(|(_, value)| value.clone()));
        let response = pipeline.send(&headers, "stripe", body);
        assert!((400..500).contains(&response.status), "{}", response.body);
        seen.push(response.body);
    }
    let queue_refuses = pipeline.broken(Fault::Queue);
    seen.push(pipeline.post(event).body);
    drop(queue_refuses);
    eventually("all dead letters are written", || {
        (dead_letters(&pipeline).len() == 6).then_some(())
    });
    pipeline.settle();

    eventually("the rejections are recorded", || {
        let kinds = pipeline.sql("SELECT reason FROM rejections WHERE source = 'stripe'").len();
        (kinds >= 4).then_some(())
    });

    let (reader, answers) = looked_at(&pipeline);
    seen.extend(answers);
    seen.push(pipeline.logs());
    for sql in ["SELECT error, fingerprint FROM dead_letters", "SELECT * FROM rejections"] {
        for row in pipeline.sql(sql) {
            seen.extend(row.iter().map(ToString::to_string));
        }
    }
    let mut canaries = vec![BODY_CANARY.to_owned(), reader.token().to_owned()];
    canaries.extend(secrets().into_values().filter(|secret| secret.len() > 10));
    for secret in [STRIPE_SECRET, STRIPE_SECRET_NEXT, CLERK_SECRET] {
        canaries.push(secret.trim_start_matches("whsec_").to_owned());
        canaries.extend(
            STANDARD
                .decode(secret.trim_start_matches("whsec_"))
                .ok()
                .and_then(|key| String::from_utf8(key).ok()),
        );
    }
    // The signature in a header is the longest part.
    let longest = |value: &String| {
        value.split([',', ' ', '=']).max_by_key(|part| part.len()).map(ToOwned::to_owned)
    };
    canaries.extend(signatures.iter().filter_map(longest).filter(|part| part.len() > 20));
    assert!(canaries.len() > 15);
    for canary in canaries {
        for text in &seen {
            if let Some(at) = text.find(&canary) {
                let around = &text[text[..at].rfind('\n').unwrap_or(0)..];
                panic!("{canary} has left: {}", around.chars().take(500).collect::<String>());
            }
        }
    }
}
