//! For any request of a stranger: nothing panics, nothing is written, and the response is a 4xx with a reason.

use std::time::Duration;

use hookmill_core::time::Timestamp;
use hookmill_tests::event::{Event, mailgun, now, signed_at, stripe};
use hookmill_tests::http::{exchange, exchange_parts, request};
use hookmill_tests::{STRIPE_SECRET, STRIPE_SECRET_NEXT, eventually};
use serde_json::json;

use super::super::platform::Pipeline;
use super::{accepted, counted, value};

/// Nothing was written, and the next event is accepted.
fn unharmed(pipeline: &Pipeline) {
    pipeline.settle();
    assert_eq!(value(pipeline, "SELECT count(*) FROM events"), 0);
    assert_eq!(value(pipeline, "SELECT count(*) FROM dead_letters"), 0);
    accepted(pipeline, &counted("evt_last", "a", 1));
    pipeline.settle();
    assert_eq!(value(pipeline, "SELECT count(*) FROM events"), 1);
}

#[test]
fn a_request_to_a_wrong_path_is_rejected_with_the_reason() {
    let pipeline = Pipeline::start();
    for (method, path, status, reason) in [
        ("GET", "/", 404, "not_found"),
        ("POST", "/webhooks", 404, "not_found"),
        ("POST", "/webhooks/", 404, "unknown_source"),
        ("POST", "/webhooks/nobody", 404, "unknown_source"),
        ("GET", "/webhooks/nobody", 404, "unknown_source"),
        ("POST", "/webhooks/stripe/", 404, "unknown_source"),
        ("POST", "/webhooks/%73tripe", 404, "unknown_source"),
        ("POST", "/webhooks/Stripe", 404, "unknown_source"),
        ("POST", "/webhooks/..%2Fstripe", 404, "unknown_source"),
        ("GET", "/webhooks/stripe", 405, "method_not_allowed"),
        ("PUT", "/webhooks/stripe", 405, "method_not_allowed"),
        ("DELETE", "/webhooks/stripe", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("POST", "/webhooks/stripe", 401, "missing_header"),
        ("POST", "/webhooks/stripe?x=1", 401, "missing_header"),
        ("POST", "/webhooks/clerk", 401, "missing_header"),
    ] {
        let response = exchange(pipeline.address(), &request(method, path, &[], b"")).unwrap();
        assert_eq!(
            (response.status, response.reason().as_str()),
            (status, reason),
            "{method} {path}"
        );
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        assert_eq!(response.header("allow").is_some(), status == 405, "{method} {path}");
        let problem = response.json();
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(problem[member].is_string(), "{method} {path}: {member}");
        }
    }
    unharmed(&pipeline);
}

#[test]
fn health_endpoints_report_the_state() {
    let pipeline = Pipeline::start();
    for path in ["/healthz", "/readyz"] {
        let response = exchange(pipeline.address(), &request("GET", path, &[], b"")).unwrap();
        assert_eq!(
            (response.status, response.body.as_str()),
            (200, "{\"status\":\"ok\"}"),
            "{path}"
        );
        assert_eq!(
            exchange(pipeline.address(), &request("HEAD", path, &[], b"")).unwrap().status,
            200
        );
    }
}

#[test]
fn an_invalid_signature_is_rejected_with_the_reason() {
    let pipeline = Pipeline::start();
    let event = counted("evt_1", "a", 1);
    let header = |value: String| vec![("Stripe-Signature".to_owned(), value)];
    let good = event.headers().remove(0).1;
    let old = Timestamp::from_seconds(now().seconds() - 301);
    let other = counted("evt_1", "a", 2);
    for (headers, body, status, reason) in [
        (header(String::new()), &event.body, 401, "missing_header"),
        (header(format!("t={}", now().seconds())), &event.body, 401, "no_matching_signature"),
        (header(good.replace("t=", "t=0")), &event.body, 400, "malformed_header"),
        (header("nonsense".into()), &event.body, 400, "malformed_header"),
        (header(format!("{good}x")), &event.body, 401, "no_matching_signature"),
        (header(good.clone()), &other.body, 401, "no_matching_signature"),
        (
            event.headers_signed_with("whsec_another", now()),
            &event.body,
            401,
            "no_matching_signature",
        ),
        (event.headers_signed_with(STRIPE_SECRET, old), &event.body, 401, "timestamp_too_old"),
        // A forged value beside a valid one, as two headers.
        (
            [header("t=1,v1=00".into()), header(good.clone())].concat(),
            &event.body,
            400,
            "malformed_header",
        ),
        ([header(good.clone()), header(good)].concat(), &event.body, 400, "malformed_header"),
    ] {
        let response = pipeline.send(&headers, "stripe", body);
        assert_eq!((response.status, response.reason().as_str()), (status, reason), "{headers:?}");
    }
    let ahead = Timestamp::from_seconds(now().seconds() + 400);
    let response =
        pipeline.send(&event.headers_signed_with(STRIPE_SECRET, ahead), "stripe", &event.body);
    assert_eq!((response.status, response.reason().as_str()), (401, "timestamp_in_future"));
    let user = hookmill_tests::event::clerk("user.created", "msg_1", 1, json!({ "id": "user_1" }));
    let response = pipeline.send(
        &user.headers_signed_with(hookmill_tests::CLERK_SECRET, ahead),
        "clerk",
        &user.body,
    );
    assert_eq!((response.status, response.reason().as_str()), (401, "timestamp_in_future"));
    unharmed(&pipeline);
}

#[test]
fn an_old_signature_does_not_become_new_by_moving_bytes() {
    let pipeline = Pipeline::start();
    let old = Timestamp::from_seconds(now().seconds() - 13 * 3600);
    // Its token begins with digits, which could belong to a later time.
    let token = "6021cf71a8e35b04";
    let genuine = mailgun(old, token, "ev_1", "delivered");
    let refused = |headers: &Vec<_>, source: &str, body: &[u8], status, reason| {
        let response = pipeline.send(headers, source, body);
        let shown = String::from_utf8_lossy(body);
        assert_eq!((response.status, response.reason().as_str()), (status, reason), "{shown}");
    };
    let none = Vec::new();
    refused(&none, "mailgun", genuine.to_string().as_bytes(), 401, "timestamp_too_old");
    for digits in 1..=4 {
        let mut moved = genuine.clone();
        moved["signature"]["timestamp"] = format!("{}{}", old.seconds(), &token[..digits]).into();
        moved["signature"]["token"] = token[digits..].into();
        refused(&none, "mailgun", moved.to_string().as_bytes(), 400, "malformed_event");
    }

    let body = br#"{"type":"a"}"#;
    let genuine = signed_at(old, "bare", "", "", None, body).headers;
    refused(&genuine, "bare", body, 401, "timestamp_too_old");
    // The other way: digits that are cut from the time precede the body, which need not be JSON.
    for digits in 1..=9 {
        let mut cut = genuine.clone();
        let time = cut.iter_mut().find(|(name, _)| name == "X-Timestamp").unwrap();
        let behind = time.1.split_off(digits);
        refused(&cut, "bare", &[behind.as_bytes(), body].concat(), 400, "malformed_header");
    }
    unharmed(&pipeline);
}

#[test]
fn a_signature_by_any_secret_is_valid() {
    let pipeline = Pipeline::start();
    for (n, secret) in [STRIPE_SECRET, STRIPE_SECRET_NEXT].into_iter().enumerate() {
        let event = counted(&format!("evt_{n}"), "a", 1);
        let response =
            pipeline.send(&event.headers_signed_with(secret, now()), "stripe", &event.body);
        assert_eq!(response.status, 200, "{}", response.body);
    }
    pipeline.settle();
    // The row contains the index of the secret.
    assert_eq!(
        pipeline.sql("SELECT id, secret FROM events ORDER BY id"),
        [[json!("evt_0"), json!(0)], [json!("evt_1"), json!(1)],]
    );
    // The metric does too, which shows when the old secret is no longer used.
    let applied = |secret| {
        let labels = [("source", "stripe"), ("secret", secret), ("fate", "applied")];
        pipeline.metric("deliveries", &labels)
    };
    eventually("both are counted", || (applied("0") == 1 && applied("1") == 1).then_some(()));
    assert_eq!(applied("2"), 0);
    eventually("both were received", || {
        (pipeline.metric("received", &[("source", "stripe")]) == 2).then_some(())
    });
}

#[test]
fn a_signed_body_that_is_not_an_event_is_rejected_with_the_reason() {
    let pipeline = Pipeline::start();
    let deep =
        format!("{{\"id\":\"evt_1\",\"type\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for body in [
        &b""[..],
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{\"id\":\"evt_1\"}",
        b"{\"id\":[1],\"type\":\"a\"}",
        b"{\"id\":\"\",\"type\":\"a\"}",
        b"{\"id\":\"evt_1\",\"type\":\"a\"}garbage",
        b"{\"id\":\"evt_1\\u0000\",\"type\":\"a\"}",
        deep.as_bytes(),
    ] {
        let event = Event { source: "stripe", id: "evt_1".into(), body: body.to_vec() };
        let response = pipeline.post(&event);
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]);
        assert_eq!(
            (response.status, response.reason().as_str()),
            (400, "malformed_event"),
            "{shown}"
        );
    }
    unharmed(&pipeline);
}

#[test]
fn deep_nesting_in_an_event_does_no_harm() {
    let pipeline = Pipeline::start();
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let body = format!(
        "{{\"id\":\"evt_1\",\"type\":\"test.counted\",\"x\":{deep},\"data\":{{\"object\":{{\"id\":\"a\",\"amount\":2,\"y\":{deep}}}}}}}"
    );
    accepted(&pipeline, &Event { source: "stripe", id: "evt_1".into(), body: body.into_bytes() });
    pipeline.settle();
    assert_eq!(super::tally(&pipeline, "a"), [[1, 2]]);
}

#[test]
fn absurd_headers_are_rejected() {
    let pipeline = Pipeline::start();
    let body = b"{}";
    let many: Vec<_> = (0..5_000).map(|n| (format!("X-Absurd-{n}"), "x".repeat(100))).collect();
    let long = vec![("Stripe-Signature".to_owned(), "t=1,v1=".to_owned() + &"0".repeat(500_000))];
    let listed = vec![("Stripe-Signature".to_owned(), "t=1".to_owned() + &",v1=00".repeat(1000))];
    let binary = vec![("Stripe-Signature".to_owned(), "t=1,v1=\u{80}\u{ff}".to_owned())];
    for headers in [many, long, listed, binary] {
        // A server may close the connection to an invalid request, but must not accept it.
        let status = pipeline.send(&headers, "stripe", body).status;
        assert!(status == 0 || (400..500).contains(&status), "{status}");
    }
    unharmed(&pipeline);
}

#[test]
fn a_body_without_a_length_is_read_up_to_the_limit() {
    let pipeline = Pipeline::start();
    let event = stripe("test.counted", "evt_1", 1, json!({ "id": "a", "amount": 1 }));
    let head = |event: &Event| {
        let mut head = "POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n".to_owned();
        for (name, value) in event.headers() {
            head += &format!("{name}: {value}\r\n");
        }
        (head + "\r\n").into_bytes()
    };
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    let (first, second) = event.body.split_at(20);
    let parts = [head(&event), chunk(first), chunk(second), b"0\r\n\r\n".to_vec()];
    let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
    let response = exchange_parts(pipeline.address(), &parts, Duration::from_millis(5)).unwrap();
    assert_eq!(response.status, 200, "{}", response.body);

    let endless = chunk(&vec![b' '; 256 * 1024]);
    let head = head(&event);
    let mut parts = vec![head.as_slice()];
    parts.extend(std::iter::repeat_n(endless.as_slice(), 40));
    let response = exchange_parts(pipeline.address(), &parts, Duration::ZERO).unwrap();
    // The server stops reading; whether its response passes a connection that the client is still writing to depends on
    // TCP.
    assert!(matches!(response.status, 413 | 0), "{}", response.status);
    pipeline.settle();
    assert_eq!(super::tally(&pipeline, "a"), [[1, 1]]);
}

#[test]
fn a_body_that_does_not_arrive_times_out() {
    let pipeline = Pipeline::start();
    let event = counted("evt_1", "a", 1);
    let whole = request("POST", "/webhooks/stripe", &event.headers(), &event.body);
    // All but the last byte, then nothing.
    let response =
        exchange_parts(pipeline.address(), &[&whole[..whole.len() - 1]], Duration::ZERO).unwrap();
    assert_eq!((response.status, response.reason().as_str()), (408, "body_timeout"));
    unharmed(&pipeline);
}

#[test]
fn a_body_that_ends_early_is_rejected() {
    let pipeline = Pipeline::start();
    let event = counted("evt_1", "a", 1);
    let whole = request("POST", "/webhooks/stripe", &event.headers(), &event.body);
    for end in [10, 60, whole.len() - 1] {
        let stream = std::net::TcpStream::connect(pipeline.address()).unwrap();
        let mut half = &stream;
        std::io::Write::write_all(&mut half, &whole[..end]).unwrap();
        drop(stream);
    }
    unharmed(&pipeline);
}
