//! Rejected requests are listed, and a flood causes neither writes nor verifications in proportion.

use std::io::Write as _;
use std::time::Duration;

use hookmill_core::rejection::Reason;
use hookmill_core::time::Timestamp;
use hookmill_core::words::Word as _;
use hookmill_tests::event::{Event, clerk, now, signed, stripe};
use hookmill_tests::http::{exchange, exchange_parts, request};
use hookmill_tests::{CLERK_SECRET, Fault, STRIPE_SECRET, eventually};
use serde_json::{Value, json};

use super::super::platform::Pipeline;
use super::{accepted, counted, value};

/// Waits until this number of rejections is recorded.
fn refused(pipeline: &Pipeline, count: i64) {
    eventually("the rejections are recorded", || {
        let sum = value(pipeline, "SELECT coalesce(sum(count), 0) FROM rejection_counts");
        (sum == count).then_some(())
    });
}

#[test]
fn a_rejection_is_recorded_without_the_content() {
    let pipeline = Pipeline::start();
    let event = counted("evt_1", "a", 1);
    let began = now();
    let headers = event.headers_signed_with("whsec_another", now());
    assert_eq!(pipeline.send(&headers, "stripe", &event.body).status, 401);
    assert_eq!(pipeline.send(&[], "nobody", &event.body).status, 404);
    refused(&pipeline, 2);

    assert_eq!(
        pipeline.sql("SELECT source, reason, count FROM rejection_counts ORDER BY source"),
        [
            [json!(""), json!("unknown_source"), json!(1)],
            [json!("stripe"), json!("no_matching_signature"), json!(1)]
        ]
    );
    let rows = pipeline.sql(
        "SELECT source, reason, content_length, body_bytes, at, detail, remote FROM rejections ORDER BY source",
    );
    let length = event.body.len();
    assert_eq!(rows[0][..4], [json!(""), json!("unknown_source"), json!(length), Value::Null]);
    assert_eq!(
        rows[1][..4],
        [json!("stripe"), json!("no_matching_signature"), json!(length), json!(length)]
    );
    for row in &rows {
        let at = row[4].as_i64().unwrap();
        assert!((began.millis()..=now().millis()).contains(&at), "{at}");
        assert!(row[5].as_str().unwrap().len() > 10);
        // A hash, not the address: equal for both requests, which came from this machine.
        let remote = row[6].as_str().unwrap();
        assert!(remote.len() == 16 && remote.bytes().all(|b| b.is_ascii_hexdigit()), "{remote}");
        assert_eq!(row[6], rows[0][6]);
    }
}

#[test]
fn every_reason_is_reached_and_counted() {
    let pipeline = Pipeline::start();
    let event = counted("evt_1", "a", 1);
    let at = |secret, seconds: i64| {
        let at = Timestamp::from_seconds(now().seconds() + seconds);
        event.headers_signed_with(secret, at)
    };
    let malformed = Event { body: b"[]".to_vec(), ..event.clone() };
    let user = clerk("user.created", "msg_1", 1, json!({ "id": "user_1" }));
    let ahead = Timestamp::from_seconds(now().seconds() + 400);
    let body = &event.body;
    pipeline.send(&[], "stripe", body);
    pipeline.send(&[("Stripe-Signature".into(), "nonsense".into())], "stripe", body);
    pipeline.send(&at(STRIPE_SECRET, -400), "stripe", body);
    pipeline.send(&user.headers_signed_with(CLERK_SECRET, ahead), "clerk", &user.body);
    pipeline.send(&at("whsec_another", 0), "stripe", body);
    pipeline.send(&malformed.headers(), "stripe", &malformed.body);
    pipeline.send(&at(STRIPE_SECRET, 0), "stripe", &vec![b' '; 2 * 1024 * 1024]);
    pipeline.send(&[], "nobody", body);
    let coded = |coding: &str| vec![("Content-Encoding".to_owned(), coding.to_owned())];
    pipeline.send(&coded("zstd"), "stripe", body);
    let sent = signed("bare", "", "", None, b"{}");
    pipeline.send(&[coded("gzip"), sent.headers].concat(), "bare", b"{}");
    let challenge = "/webhooks/meta?hub.mode=subscribe&hub.challenge=1";
    exchange(pipeline.address(), &request("GET", challenge, &[], b"")).unwrap();
    exchange(pipeline.address(), &request("POST", "/", &[], body)).unwrap();
    exchange(pipeline.address(), &request("PUT", "/webhooks/stripe", &[], b"")).unwrap();
    for _ in 0..20 {
        pipeline.send(&[], "limited", body);
    }
    // A body that stops, and one whose client disconnects.
    let whole = request("POST", "/webhooks/stripe", &event.headers(), body);
    let most = &whole[..whole.len() - 1];
    exchange_parts(pipeline.address(), &[most], Duration::ZERO).unwrap();
    let mut stream = std::net::TcpStream::connect(pipeline.address()).unwrap();
    stream.write_all(most).unwrap();
    drop(stream);

    let mut wanted: Vec<_> = Reason::words().collect();
    wanted.sort_unstable();
    eventually("every reason is recorded", || {
        let rows = pipeline.sql("SELECT DISTINCT reason FROM rejection_counts ORDER BY reason");
        (rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>() == wanted).then_some(())
    });
}

#[test]
fn a_flood_is_a_count_and_a_few_requests() {
    let pipeline = Pipeline::start();
    let event = counted("evt_1", "a", 1);
    for _ in 0..500 {
        assert_eq!(pipeline.send(&[], "stripe", &event.body).status, 401);
    }
    refused(&pipeline, 500);
    let labels = [("source", "stripe"), ("reason", "missing_header")];
    eventually("the metric says so", || {
        (pipeline.metric("rejections", &labels) == 500).then_some(())
    });
    let rows = value(&pipeline, "SELECT count(*) FROM rejections").as_i64().unwrap();
    assert!((1..=20).contains(&rows), "{rows}");
    let lines = pipeline.logs().lines().filter(|line| line.contains("missing_header")).count();
    assert!((1..50).contains(&lines), "{lines}");
}

#[test]
fn the_last_samples_of_each_kind_are_kept() {
    let pipeline = Pipeline::start();
    assert_eq!(pipeline.send(&[], "clerk", b"{}").status, 401);
    refused(&pipeline, 1);
    // As many as a long flood would leave without the limit.
    pipeline.sql(
        "INSERT INTO rejections (source, reason, at, remote, detail)
         SELECT 'stripe', 'missing_header', value, '', 'before' FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23]')",
    );
    assert_eq!(pipeline.send(&[], "stripe", b"{}").status, 401);
    refused(&pipeline, 2);
    assert_eq!(
        pipeline.sql("SELECT source, count(*) FROM rejections GROUP BY source ORDER BY source"),
        [[json!("clerk"), json!(1)], [json!("stripe"), json!(20)]]
    );
    let oldest = "SELECT min(at) FROM rejections WHERE source = 'stripe'";
    assert_eq!(value(&pipeline, oldest), 5);
}

#[test]
fn a_source_accepts_as_many_requests_as_its_rate_limit() {
    let pipeline = Pipeline::start();
    let event = |n: usize| {
        stripe("test.counted", &format!("evt_{n}"), 1, json!({ "id": "a", "amount": 1 }))
            .to("limited")
    };
    let mut taken = 0;
    let limited = (0..100).find_map(|n| {
        let response = pipeline.post(&event(n));
        if response.status == 200 {
            taken += 1;
            return None;
        }
        Some(response)
    });
    let limited = limited.expect("a hundred requests in ten seconds are more than three");
    assert!(taken >= 3, "{taken}");
    assert_eq!((limited.status, limited.reason().as_str()), (429, Reason::RateLimited.as_str()));
    let wait: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");

    // The limit comes before verification: unsigned requests are rejected for the same reason.
    assert_eq!(pipeline.send(&[], "limited", b"{}").reason(), Reason::RateLimited.as_str());
    // A provider's check of the URL does not count, and other sources are not affected.
    let asked = exchange(pipeline.address(), &request("HEAD", "/webhooks/limited", &[], b""));
    assert_eq!(asked.unwrap().status, 200);
    accepted(&pipeline, &counted("evt_other", "b", 1));
    pipeline.settle();
    assert_eq!(
        value(&pipeline, "SELECT count(*) FROM events WHERE source = 'limited'"),
        json!(taken)
    );
}

#[test]
fn unwritable_rejections_delay_nothing() {
    let pipeline = Pipeline::start();
    let store_away = pipeline.broken(Fault::Store);
    for _ in 0..3 {
        assert_eq!(pipeline.send(&[], "stripe", b"{}").status, 401);
    }
    eventually("recording them failed", || {
        pipeline.logs().contains("cannot record rejections").then_some(())
    });
    accepted(&pipeline, &counted("evt_1", "a", 1));
    drop(store_away);
    eventually("the event has taken effect", || {
        (super::tally(&pipeline, "a") == [[1, 1]]).then_some(())
    });
}
