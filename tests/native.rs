//! The contract, against the native binary.

use hookmill_tests::event::stripe;
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
