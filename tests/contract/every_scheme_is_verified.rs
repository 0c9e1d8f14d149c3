//! Features of schemes besides signatures: many events in a request, handshakes, forms, responses of their own, unsigned
//! ids. Tests beside the code cover the verification of each scheme.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hookmill_tests::event::{Event, mailgun, now, signed};
use hookmill_tests::http::{exchange, request};
use serde_json::json;

use super::super::platform::Pipeline;
use super::{accepted, counted, value};

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
fn a_query_of_twilio_may_be_spelled_in_another_way_than_it_was_signed() {
    let pipeline = Pipeline::start();
    let mut sid = 0;
    let mut status = |sent: &str, spelling: &str| {
        sid += 1;
        let body = format!("MessageSid=SM{sid}&MessageStatus=sent");
        let signed = signed("twilio", "", "", Some(spelling), body.as_bytes());
        let path = format!("/webhooks/twilio?{sent}");
        let bytes = request("POST", &path, &signed.headers, &signed.body);
        exchange(pipeline.address(), &bytes).unwrap().status
    };
    for (first, second) in [
        ("name=O'Brien", "name=O%27Brien"),
        ("to=a@b.test:1", "to=a%40b.test%3A1"),
        ("name=a+b", "name=a%20b"),
        ("path=%2f", "path=%2F"),
    ] {
        for (sent, spelling) in [(first, first), (second, second), (first, second), (second, first)]
        {
            // Twilio's libraries write escapes in upper case.
            if spelling != "path=%2f" || sent == spelling {
                assert_eq!(status(sent, spelling), 200, "{sent} {spelling}");
            }
        }
    }
    for (sent, spelling) in
        [("name=Smith", "name=O'Brien"), ("a=1&b=2", "a=1%26b=2"), ("a=b+c", "a=b%2Bc")]
    {
        assert_eq!(status(sent, spelling), 401, "{sent} {spelling}");
    }
}

#[test]
fn names_of_a_header_are_alternatives() {
    let pipeline = Pipeline::start();
    let body = br#"{"shop_id":954889}"#;
    let signature = signed("shopify", "", "", None, body).headers;
    let signature = signature.into_iter().find(|(name, _)| name == "X-Shopify-Hmac-Sha256");
    let signature = signature.unwrap().1;
    let send = |headers: &[(&str, &str)]| {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let response = pipeline.send(&headers, "shopify", body);
        if response.status == 200 { "accepted".to_owned() } else { response.reason() }
    };
    let order = [
        ("X-Shopify-Topic", "orders/create"),
        ("X-Shopify-Event-Id", "event-1"),
        ("X-Shopify-Webhook-Id", "webhook-1"),
        ("X-Shopify-Hmac-Sha256", &signature),
    ];
    // A compliance webhook has no id of an event.
    let redact = [
        ("X-Shopify-Topic", "customers/redact"),
        ("X-Shopify-Webhook-Id", "webhook-2"),
        ("X-Shopify-Hmac-Sha256", &signature),
    ];
    let renamed = [
        ("shopify-topic", "Product"),
        ("shopify-action", "update"),
        ("shopify-webhook-id", "webhook-3"),
        ("shopify-hmac-sha256", &signature),
    ];
    for headers in [&order[..], &redact, &redact, &renamed, &renamed] {
        assert_eq!(send(headers), "accepted", "{headers:?}");
    }
    assert_eq!(send(&redact[..2]), "missing_header");
    assert_eq!(send(&[redact[0], redact[2]]), "malformed_event");
    // A forged value beside a valid one.
    let forged = ("Shopify-Hmac-Sha256", "AAAA");
    assert_eq!(send(&[&redact[..], &[forged]].concat()), "malformed_header");
    assert_eq!(send(&[&redact[..2], &[forged]].concat()), "no_matching_signature");
    pipeline.settle();
    assert_eq!(
        pipeline.sql("SELECT type, substr(id, 1, 9) FROM events ORDER BY type"),
        [
            ["Product.update", "webhook-3"],
            ["customers/redact", "webhook-2"],
            ["orders/create", "event-1.o"]
        ]
    );
}

#[test]
fn a_challenge_gets_its_response_and_is_not_an_event() {
    let pipeline = Pipeline::start();
    let ask = |method: &str, path: &str| {
        exchange(pipeline.address(), &request(method, path, &[], b"")).unwrap()
    };
    let meta = "/webhooks/meta?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=";
    let graph = "/webhooks/graph?validationToken=Validation%3a+a%2fb";
    let token = "meta-canary-6a1d";
    for (method, path, expected) in
        [("GET", &*format!("{meta}{token}"), "1158201444"), ("POST", graph, "Validation: a/b")]
    {
        let response = ask(method, path);
        assert_eq!((response.status, response.body.as_str()), (200, expected));
        assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    }
    let long = "a".repeat(1025);
    for (method, path, status, reason) in [
        ("GET", &*format!("{meta}another"), 403, "invalid_challenge"),
        ("GET", meta, 403, "invalid_challenge"),
        ("POST", "/webhooks/graph?validationToken=%00", 403, "invalid_challenge"),
        ("POST", &format!("/webhooks/graph?validationToken={long}"), 403, "invalid_challenge"),
        ("GET", "/webhooks/meta", 405, "method_not_allowed"),
        ("GET", &meta.replace("subscribe", "other"), 405, "method_not_allowed"),
        ("GET", graph, 405, "method_not_allowed"),
        ("POST", &format!("{meta}{token}"), 401, "missing_header"),
    ] {
        let response = ask(method, path);
        assert_eq!((response.status, response.reason().as_str()), (status, reason), "{path}");
    }
    // An event to the same URL is an event.
    let state = &hookmill_tests::secrets()["TEST_GRAPH_SECRET"];
    let notice = json!({ "value": [{ "changeType": "created", "clientState": state }] });
    let bytes = request("POST", graph, &[], notice.to_string().as_bytes());
    let response = exchange(pipeline.address(), &bytes).unwrap();
    assert_eq!((response.status, response.json()), (200, json!({ "accepted": 1 })));
    // Zoom's is signed, and so is the response.
    let body =
        br#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#;
    let sent = signed("zoom", "", "", None, body);
    let response = pipeline.send(&sent.headers, "zoom", &sent.body);
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let answer = response.json();
    assert_eq!(answer["plainToken"], "qgg8vlvZRS6UYooatFL8Aw");
    // HMAC-SHA256 with `for-development-only-test_zoom_secret`.
    assert_eq!(answer["encryptedToken"], ZOOM_TOKEN);
    assert_eq!(pipeline.send(&[], "zoom", body).reason(), "missing_header");
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT source, type FROM events"), [["graph", "created"]]);
}

/// `{"type":"br"}`, by Brotli.
const BROTLI: &[u8] = b"\x0b\x06\x80{\"type\":\"br\"}\x03";
/// See `a_challenge_gets_its_response_and_is_not_an_event`.
const ZOOM_TOKEN: &str = "0af9c73bb57a522dce73ad1c87e3d5946551822e27a71570bbae72e80a5a3cca";

#[test]
fn a_compressed_body_is_decoded_before_its_signature_is_checked() {
    let pipeline = Pipeline::start();
    let gzip = |body: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let zlib = |body: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let send = |source: &str, body: &[u8], coding: &str, encoded: &[u8]| {
        let mut headers = signed(source, "push", "evt_1", None, body).headers;
        headers.push(("Content-Encoding".to_owned(), coding.to_owned()));
        pipeline.send(&headers, source, encoded)
    };
    let bodies = ["gzip", "x-gzip", "deflate", "br"].map(|kind| format!("{{\"type\":\"{kind}\"}}"));
    let [a, b, c, d] = bodies.each_ref().map(String::as_bytes);
    for (body, coding, encoded) in [
        (a, "gzip", gzip(a)),
        (b, "x-gzip", gzip(b)),
        (c, "deflate", zlib(c)),
        (d, "BR", BROTLI.to_vec()),
    ] {
        let response = send("bare", body, coding, &encoded);
        assert_eq!(response.status, 200, "{coding}: {}", response.body);
    }
    // As long as it may be.
    let long = format!("{{\"type\":\"long\",\"pad\":\"{}\"}}", "ab c".repeat(50_000));
    assert_eq!(send("bare", long.as_bytes(), "gzip", &gzip(long.as_bytes())).status, 413);
    let varied: Vec<_> =
        (0..50_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_string()).collect();
    let varied = varied.join(" ");
    let long = format!("{{\"type\":\"long\",\"pad\":\"{varied}\"}}");
    let response = send("bare", long.as_bytes(), "gzip", &gzip(long.as_bytes()));
    assert_eq!(response.status, 200, "{}", response.body);

    let bomb = gzip(&vec![b' '; 10_000_000]);
    for (coding, encoded, status, reason) in [
        ("gzip", &gzip(b)[..], 401, "no_matching_signature"),
        ("gzip", a, 400, "malformed_body"),
        ("gzip", &gzip(a)[..20], 400, "malformed_body"),
        ("deflate", &gzip(a), 400, "malformed_body"),
        ("br", &gzip(a), 400, "malformed_body"),
        ("gzip", b"", 400, "malformed_body"),
        ("gzip", &bomb, 413, "body_too_large"),
        ("zstd", a, 415, "unsupported_encoding"),
        ("gzip, gzip", &gzip(&gzip(a)), 415, "unsupported_encoding"),
    ] {
        let response = send("bare", a, coding, encoded);
        assert_eq!((response.status, response.reason().as_str()), (status, reason), "{coding}");
        let accepted = (status == 415).then_some("gzip, deflate, br");
        assert_eq!(response.header("accept-encoding"), accepted);
    }
    // A provider that does not compress.
    let response = send("github", b"{}", "gzip", &gzip(b"{}"));
    assert_eq!((response.status, response.reason().as_str()), (415, "unsupported_encoding"));
    assert_eq!(response.header("accept-encoding"), Some("identity"));
    assert_eq!(send("github", b"{}", "identity", b"{}").status, 200);
    pipeline.settle();
    assert_eq!(
        pipeline.sql("SELECT type FROM events WHERE source = 'bare' ORDER BY type"),
        [["br"], ["deflate"], ["gzip"], ["long"], ["x-gzip"]]
    );
}

#[test]
fn a_byte_order_mark_before_the_json_is_signed_and_left_out() {
    let pipeline = Pipeline::start();
    let marked = |body: &[u8]| [b"\xef\xbb\xbf", body].concat();
    let event = counted("evt_1", "a", 7);
    let event = Event { body: marked(&event.body), ..event };
    accepted(&pipeline, &event);
    let sent = signed("zoom", "", "", None, &marked(br#"{"event":"meeting.ended"}"#));
    assert_eq!(pipeline.send(&sent.headers, "zoom", &sent.body).status, 200);
    pipeline.settle();
    assert_eq!(value(&pipeline, "SELECT amount FROM tallies WHERE id = 'a'"), 7);
    assert_eq!(pipeline.sql("SELECT type FROM events WHERE source = 'zoom'"), [["meeting.ended"]]);
    // The mark is not JSON anywhere else.
    let sent = signed("zoom", "", "", None, &marked(&marked(b"{}")));
    assert_eq!(pipeline.send(&sent.headers, "zoom", &sent.body).reason(), "malformed_event");
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
