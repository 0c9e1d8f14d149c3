//! Features of schemes besides signatures: many events in a request, handshakes, forms, responses of their own, unsigned
//! ids. Tests beside the code cover the verification of each scheme.

use hookmill_tests::event::{mailgun, now, signed};
use hookmill_tests::http::{exchange, request};
use serde_json::json;

use super::super::platform::Pipeline;
use super::value;

#[test]
fn every_event_of_a_request_takes_effect_once() {
    let pipeline = Pipeline::start();
    let event = |id: &str, kind: &str| json!({ "email": "a@example.com", "timestamp": 1, "event": kind, "sg_event_id": id });
    let mut events: Vec<_> = (0..150).map(|n| event(&format!("id_{n:03}"), "delivered")).collect();
    // An event without an id is an event too.
    events.push(json!({ "email": "b@example.com", "event": "open" }));
    let body = json!(events).to_string() + "\r\n";
    for _ in 0..2 {
        let sent = signed("sendgrid", "delivered", "", None, body.as_bytes());
        let response = pipeline.send(&sent.headers, "sendgrid", &sent.body);
        assert_eq!((response.status, response.body.as_str()), (200, "{\"accepted\":151}"));
    }
    pipeline.settle();
    let kinds = pipeline.sql("SELECT type, count(*) FROM events GROUP BY type ORDER BY type");
    assert_eq!(kinds, [[json!("delivered"), json!(150)], [json!("open"), json!(1)]]);

    let sent = signed("sendgrid", "delivered", "", None, b"[]");
    let response = pipeline.send(&sent.headers, "sendgrid", &sent.body);
    assert_eq!((response.status, response.body.as_str()), (200, "{\"accepted\":0}"));
    let sent = signed("sendgrid", "delivered", "", None, b"[{]");
    let response = pipeline.send(&sent.headers, "sendgrid", &sent.body);
    assert_eq!((response.status, response.reason().as_str()), (400, "malformed_event"));
}

#[test]
fn a_handshake_gets_its_response_and_is_not_an_event() {
    let pipeline = Pipeline::start();
    let body = br#"{"type":"url_verification","token":"x","challenge":"3eZbrw1aB"}"#;
    let sent = signed("slack", "", "", None, body);
    let response = pipeline.send(&sent.headers, "slack", &sent.body);
    assert_eq!((response.status, response.body.as_str()), (200, "3eZbrw1aB"));
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    // A client that cannot sign gets no response to a challenge.
    let response = pipeline.send(&[], "slack", body);
    assert_eq!((response.status, response.reason().as_str()), (401, "missing_header"));
    pipeline.settle();
    assert_eq!(value(&pipeline, "SELECT count(*) FROM events"), 0);
}

#[test]
fn forms_queries_and_responses_of_twilio_work() {
    let pipeline = Pipeline::start();
    let form = b"MessageSid=SM1&MessageStatus=delivered&To=%2B15550001111&Body=gr%C3%BC%C3%9Fe+dich&Empty=";
    let sent = signed("twilio", "", "", None, form);
    let response = pipeline.send(&sent.headers, "twilio", &sent.body);
    assert_eq!((response.status, response.body.as_str()), (200, "<Response></Response>"));
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/xml")));

    // With a query, which is signed as sent.
    let query = "tenant=7&name=%C3%BC+%2f";
    let sent = signed("twilio", "", "", Some(query), b"MessageSid=SM2&Body=hi");
    let path = format!("/webhooks/twilio?{query}");
    let bytes = request("POST", &path, &sent.headers, &sent.body);
    assert_eq!(exchange(pipeline.address(), &bytes).unwrap().status, 200);
    let bytes = request("POST", "/webhooks/twilio?tenant=8", &sent.headers, &sent.body);
    assert_eq!(exchange(pipeline.address(), &bytes).unwrap().reason(), "no_matching_signature");

    // A GET has its fields in the query.
    let query = "MessageSid=SM3&MessageStatus=sent";
    let sent = signed("twilio", "", "", Some(query), b"");
    let signature: Vec<_> =
        sent.headers.into_iter().filter(|(name, _)| name == "X-Twilio-Signature").collect();
    let bytes = request("GET", &format!("/webhooks/twilio?{query}"), &signature, b"");
    assert_eq!(exchange(pipeline.address(), &bytes).unwrap().status, 200);
    pipeline.settle();
    assert_eq!(
        pipeline.sql("SELECT id, type FROM events ORDER BY id"),
        [
            [json!("SM1.delivered"), json!("message.delivered")],
            [json!("SM2"), json!("message.received")],
            [json!("SM3.sent"), json!("message.sent")],
        ]
    );
}

#[test]
fn another_body_cannot_take_an_unsigned_id() {
    let pipeline = Pipeline::start();
    let bodies = [br#"{"action":"opened","n":1}"#, br#"{"action":"opened","n":2}"#];
    for body in [bodies[0], bodies[1], bodies[0]] {
        let sent = signed("github", "issues.opened", "delivery-1", None, body);
        assert_eq!(pipeline.send(&sent.headers, "github", &sent.body).status, 200);
    }
    pipeline.settle();
    let events = pipeline.sql("SELECT type FROM events WHERE id LIKE 'delivery-1.%'");
    assert_eq!(events, [["issues.opened"], ["issues.opened"]]);
}

#[test]
fn a_signature_that_does_not_cover_the_body_is_one_event() {
    let pipeline = Pipeline::start();
    let genuine = mailgun(now(), "6e0b", "ev_1", "delivered");
    let forged = |id: &str, kind: &str, recipient: &str| {
        let mut forged = genuine.clone();
        forged["event-data"] = json!({ "id": id, "event": kind, "recipient": recipient });
        forged
    };
    let accepted = |body: &serde_json::Value| {
        let response = pipeline.send(&[], "mailgun", body.to_string().as_bytes());
        assert_eq!(response.status, 200, "{}", response.body);
    };
    accepted(&genuine);
    pipeline.settle();
    // A redelivery, and forgeries from a captured request.
    accepted(&genuine);
    accepted(&forged("ev_2", "delivered", "ada@example.com"));
    accepted(&forged("ev_1", "unsubscribed", "ada@example.com"));
    accepted(&forged("ev_3", "complained", "bob@example.com"));
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT source, type FROM events"), [["mailgun", "delivered"]]);
    // Another token is another event.
    accepted(&mailgun(now(), "6e0c", "ev_2", "opened"));
    pipeline.settle();
    assert_eq!(value(&pipeline, "SELECT count(*) FROM events"), 2);
}
