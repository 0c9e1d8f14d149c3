//! The contract, against the native binary.

use std::collections::BTreeSet;

use hookmill_tests::api::Api;
use hookmill_tests::event::stripe;
use hookmill_tests::eventually;
use hookmill_tests::http::Connection;
use hookmill_tests::native as platform;
use serde_json::json;

mod contract;

// On Cloudflare, connections are the platform's.
#[test]
fn an_answer_that_did_not_need_the_body_is_read_and_keeps_the_connection() {
    let pipeline = platform::Pipeline::start();
    let mut connection = Connection::open(pipeline.address()).unwrap();
    let event = stripe("test.counted", "evt_1", 1, json!({ "id": "a", "amount": 1 }));
    let bulk = vec![b' '; 900 * 1024];
    for round in 0..20 {
        let (path, status) = match round % 2 {
            0 => ("/webhooks/nobody", 404),
            _ => ("/webhooks/stripe", 401),
        };
        let found = connection.post(path, &[], &bulk);
        assert_eq!(found.ok(), Some(status), "{path}, round {round}");
    }
    let status = connection.post("/webhooks/stripe", &event.headers(), &event.body);
    assert_eq!(status.ok(), Some(200));
    // Too long, and still told so.
    let mut connection = Connection::open(pipeline.address()).unwrap();
    let status = connection.post("/webhooks/stripe", &[], &vec![b' '; 3 * 1024 * 1024]);
    assert_eq!(status.ok(), Some(413));
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT events, amount FROM tallies"), [[1, 1]]);
}

// Far more than a test in workerd has time for.
#[test]
fn ten_thousand_emails_go_out_in_a_hundred_requests() {
    const EMAILS: usize = 10_000;
    let api = Api::start();
    let event = |n: usize| {
        let object = json!({ "to": format!("{n}@example.com"), "name": n });
        stripe("test.mailed", &format!("evt_{n}"), 1, object).message()
    };
    let messages: Vec<_> = (0..EMAILS).map(event).collect();
    let pipeline = platform::Pipeline::with_api(&api).enqueued(&messages);
    eventually("everything has been sent", || {
        let sent = pipeline.sql("SELECT count(*) FROM outbox WHERE state = 'sent'");
        (sent == [[EMAILS]]).then_some(())
    });
    let (accepted, requests) = (api.accepted(), api.requests().len());
    assert_eq!(accepted.iter().collect::<BTreeSet<_>>().len(), EMAILS);
    assert_eq!(accepted.len(), EMAILS);
    // A batch that has waited for long enough goes out before it is full.
    assert!((EMAILS / 100..=EMAILS / 80).contains(&requests), "{requests}");
}
