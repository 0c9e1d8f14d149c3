//! The operator gets an alert about dead letters by email and by a signed webhook, once, and again when it is over.

use hookmill_tests::api::Api;
use hookmill_tests::eventually;
use serde_json::json;

use super::sent;
use crate::platform::Pipeline;

#[test]
fn an_alert_reaches_its_recipient() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    pipeline.sql(
        "INSERT INTO dead_letters (id, reason, error, fingerprint, attempts, first_failed_at, last_failed_at, message)
         VALUES ('a', 'refused', 'x', 'f', 1, unixepoch() * 1000 - 7200000, unixepoch() * 1000, 'no message')",
    );
    let alerts = || {
        let requests = api.requests().into_iter();
        requests.filter(|request| request.path == "/alerts").collect::<Vec<_>>()
    };
    let pipeline = pipeline.after_a_minute();
    let raised = eventually("the webhook arrives", || alerts().pop());
    assert_eq!(raised.body["type"], "alert.raised");
    assert_eq!(raised.body["data"]["alert"], "oldest_dead_letter");
    // It is signed by Standard Webhooks, so a source with that scheme accepts it.
    let headers: Vec<_> = raised.headers.clone().into_iter().collect();
    let taken = pipeline.send(&headers, "clerk", raised.body.to_string().as_bytes());
    assert_eq!(taken.status, 200, "{}", taken.body);
    sent(&pipeline);
    assert_eq!(api.accepted(), ["ops@acme.test"]);

    // The metrics show the status.
    eventually("it is measured", || {
        let dead = pipeline.gauge("dead_letters", &[("reason", "refused")])?;
        let oldest = pipeline.gauge("oldest_dead_letter_seconds", &[])?;
        ((0.5..1.5).contains(&dead) && (7200.0..7500.0).contains(&oldest)).then_some(())
    });
    assert_eq!(pipeline.gauge("lag_seconds", &[]).map(|lag| lag < 600.0), Some(true));
    assert!(pipeline.gauge("database_bytes", &[]) > Some(100_000.0));

    // No alert is sent twice.
    let pipeline = pipeline.after_a_minute();
    pipeline.sql("UPDATE dead_letters SET state = 'discarded'");
    let pipeline = pipeline.after_a_minute();
    eventually("it is over", || {
        let kinds: Vec<_> = alerts().iter().map(|alert| alert.body["type"].clone()).collect();
        (kinds == [json!("alert.raised"), json!("alert.ended")]).then_some(())
    });
    sent(&pipeline);
    assert_eq!(api.accepted().len(), 2);
}
