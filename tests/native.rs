//! The contract, against the native binary.

use std::collections::BTreeSet;

use hookmill_tests::api::Api;
use hookmill_tests::event::{now, stripe};
use hookmill_tests::http::{Connection, exchange, request};
use hookmill_tests::native as platform;
#[cfg(target_os = "linux")]
use hookmill_tests::stranger::Stranger;
use hookmill_tests::{Operator, eventually};
use serde_json::json;

mod contract;

// On Cloudflare, the platform handles connections.
#[test]
fn a_response_that_did_not_need_the_body_is_read_and_keeps_the_connection() {
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
    // The body is too large, and the client gets the response.
    let mut connection = Connection::open(pipeline.address()).unwrap();
    let status = connection.post("/webhooks/stripe", &[], &vec![b' '; 3 * 1024 * 1024]);
    assert_eq!(status.ok(), Some(413));
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT events, amount FROM tallies"), [[1, 1]]);
}

#[test]
fn a_request_without_a_signature_is_rejected_before_its_body() {
    let pipeline = platform::Pipeline::start();
    let rejected = |path, headers: &[(String, String)]| {
        let whole = request("POST", path, headers, &[b' '; 1000]);
        exchange(pipeline.address(), &whole[..whole.len() - 1000]).unwrap()
    };
    let response = rejected("/webhooks/stripe", &[]);
    assert_eq!((response.status, response.reason().as_str()), (401, "missing_header"));
    let old = now().seconds() - 301;
    let header = ("Stripe-Signature".to_owned(), format!("t={old},v1=00"));
    let response = rejected("/webhooks/stripe", &[header]);
    assert_eq!((response.status, response.reason().as_str()), (401, "timestamp_too_old"));
    // Mailgun's signature is in the body.
    let response = rejected("/webhooks/mailgun", &[]);
    assert_eq!((response.status, response.reason().as_str()), (408, "body_timeout"));
}

#[test]
fn a_client_gets_the_response_to_headers_that_are_too_large() {
    let pipeline = platform::Pipeline::start();
    let headers = [("X-Absurd".to_owned(), "x".repeat(400_000))];
    let whole = request("POST", "/webhooks/stripe", &headers, b"{}");
    for _ in 0..10 {
        assert_eq!(exchange(pipeline.address(), &whole).unwrap().status, 431);
    }
}

#[test]
fn the_admin_api_can_have_an_address_of_its_own() {
    let pipeline = platform::Pipeline::with_arguments(&["--admin", "127.0.0.1:0"]);
    let admin = pipeline.logged_address("accepting webhooks", "admin");
    assert_ne!(admin, pipeline.address());
    let get = |address, path| exchange(address, &request("GET", path, &[], b"")).unwrap().status;
    for (path, on_admin, on_webhooks) in [
        ("/healthz", 200, 200),
        ("/readyz", 200, 200),
        ("/admin", 200, 404),
        ("/admin/api/v1/openapi.json", 200, 404),
        ("/admin/api/v1/stats", 401, 404),
        ("/webhooks/stripe", 404, 405),
        ("/", 404, 404),
    ] {
        assert_eq!(
            (get(admin, path), get(pipeline.address(), path)),
            (on_admin, on_webhooks),
            "{path}"
        );
    }
    let event = stripe("test.counted", "evt_1", 1, json!({ "id": "a", "amount": 1 }));
    assert_eq!(pipeline.post(&event).status, 200);
    let misdirected = request("POST", "/webhooks/stripe", &event.headers(), &event.body);
    assert_eq!(exchange(admin, &misdirected).unwrap().status, 404);
}

// Elsewhere, a program cannot connect from any address of 127.0.0.0/8. All but 127.0.0.1 count as strangers'.
#[cfg(target_os = "linux")]
#[test]
fn a_sender_is_served_while_strangers_hold_all_connections() {
    // These permit 144 connections.
    let pipeline = platform::Pipeline::with_descriptors(400);
    eventually("the log tells", || {
        pipeline.logs().contains("the limit of open files").then_some(())
    });
    let event = |n: usize| {
        let object = json!({ "id": "a", "amount": 1, "text": "x".repeat(n % 2 * 200_000) });
        stripe("test.counted", &format!("evt_{n}"), 1, object)
    };
    let mut held = Vec::new();
    let mut sent = 0;
    for n in 0..600 {
        // Half of them from one address, the others from many.
        let from = if n % 2 == 0 { 2 } else { 3 + n / 2 % 40 };
        held.push(Stranger::connected(pipeline.address(), u8::try_from(from).unwrap(), n));
        if n % 50 == 49 {
            let response = pipeline.post(&event(sent));
            assert_eq!(response.status, 200, "after {n}: {}", response.body);
            sent += 1;
        }
    }
    let ready = exchange(pipeline.address(), &request("GET", "/readyz", &[], b"")).unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT events FROM tallies"), [[sent]]);
    drop(held);
}

// Far more than a test in workerd has time for.
#[test]
fn ten_thousand_emails_are_sent_in_a_hundred_requests() {
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
    // A batch that has waited long enough is sent before it is full.
    assert!((EMAILS / 100..=EMAILS / 80).contains(&requests), "{requests}");
}

/// A dead letter of an event, as SQL values.
fn letter(n: usize) -> String {
    let message =
        stripe("test.counted", &format!("evt_{n}"), 1, json!({ "id": "a", "amount": 1 })).message();
    let message = message.replace('\'', "''");
    format!(
        "('letter_{n}', 'stripe', 'evt_{n}', 0, 'test.counted', 0, 'exhausted', 'away', 'f', 3, 0, 0, '{message}')"
    )
}

// Far more than a test in workerd has time for.
#[test]
fn ten_thousand_dead_letters_are_replayed_and_each_takes_effect_once_though_the_process_is_killed()
{
    const LETTERS: usize = 10_000;
    let mut pipeline = platform::Pipeline::start();
    for first in (0..LETTERS).step_by(500) {
        let letters: Vec<_> = (first..first + 500).map(letter).collect();
        pipeline.sql(&format!(
            "INSERT INTO dead_letters (id, source, event_id, generation, type, received_at, reason, error, fingerprint,
                attempts, first_failed_at, last_failed_at, message) VALUES {}",
            letters.join(",")
        ));
    }
    let operator = |pipeline: &platform::Pipeline, name: &str| {
        Operator::new(pipeline.admin(), name, "operate", |sql| drop(pipeline.sql(sql)))
    };
    let before = operator(&pipeline, "before");
    let plan = before.post("/replays", &json!({ "type": "test.*" })).json();
    assert_eq!(plan["total"], LETTERS);
    let replay = format!("/replays/{}", plan["id"].as_str().unwrap());
    let run =
        before.post(&format!("{replay}/run"), &json!({ "rate": 500, "reason": "it is back" }));
    assert_eq!(run.status, 202, "{}", run.body);
    let sent =
        |operator: &Operator| operator.get(&replay).json()["sent"].as_u64().unwrap_or_default();
    for part in [1, 2] {
        let user = operator(&pipeline, &format!("user-{part}"));
        eventually("its letters are being sent", || (sent(&user) > part * 2_000).then_some(()));
        pipeline.kill_and_restart(|_| ());
    }
    // Live traffic comes first.
    let live = stripe("test.counted", "evt_live", 1, json!({ "id": "b", "amount": 1 }));
    assert_eq!(pipeline.post(&live).status, 200);
    eventually("it is applied", || {
        pipeline.sql("SELECT 1 FROM tallies WHERE id = 'b'").first().map(drop)
    });
    let after = operator(&pipeline, "after");
    assert!(sent(&after) < LETTERS as u64, "and not only when all has been replayed");
    for part in 1..=5 {
        eventually("another part has taken effect", || {
            let applied = after.get(&replay).json()["applied"].as_u64().unwrap_or_default();
            (applied >= part * LETTERS as u64 / 5).then_some(())
        });
    }
    eventually("it is done", || (after.get(&replay).json()["state"] == "done").then_some(()));
    assert_eq!(
        pipeline.sql("SELECT events, amount FROM tallies WHERE id = 'a'"),
        [[LETTERS, LETTERS]]
    );
    assert_eq!(after.get("/stats").json()["dead_letters"]["dead"], 0);
}

// On Cloudflare, the platform handles queue and clock.
#[test]
fn a_retry_from_a_clock_that_was_ahead_is_due_now() {
    let event = stripe("test.counted", "evt_1", 1, json!({ "id": "a", "amount": 1 }));
    let mut pipeline = platform::Pipeline::start();
    pipeline.kill_and_restart(|queue| {
        platform::put(queue, event.message().as_bytes(), 1);
        let tomorrow = now().millis() + 86_400_000;
        queue.execute("UPDATE events_deliveries SET due_at = ?1", [tomorrow]).unwrap();
    });
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT events, amount FROM tallies"), [[1, 1]]);
}

// On Cloudflare, the platform handles receiving.
#[test]
fn readyz_reports_that_messages_are_accepted_and_cannot_be_received() {
    let pipeline = platform::Pipeline::start();
    let ready =
        || exchange(pipeline.address(), &request("GET", "/readyz", &[], b"")).expect("it listens");
    assert_eq!(ready().status, 200);
    let queue = pipeline.database("queue.db");
    queue
        .execute_batch(
            "CREATE TRIGGER broken BEFORE INSERT ON events_deliveries BEGIN SELECT RAISE(ABORT, 'broken'); END",
        )
        .unwrap();
    let event = stripe("test.counted", "evt_1", 1, json!({ "id": "a", "amount": 1 }));
    assert_eq!(pipeline.post(&event).status, 200);
    let problem = eventually("readyz reports it", || {
        let response = ready();
        (response.status == 503).then_some(response.body)
    });
    assert!(problem.contains("messages cannot be received from the queue"), "{problem}");
    assert!(pipeline.logs().contains("the queue failed: broken"), "{}", pipeline.logs());
    queue.execute_batch("DROP TRIGGER broken").unwrap();
    pipeline.settle();
    assert_eq!(ready().status, 200);
    assert_eq!(pipeline.sql("SELECT events, amount FROM tallies"), [[1, 1]]);
}
