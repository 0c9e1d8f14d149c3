//! An email is not lost and not sent twice, whatever happens to its event, to the provider's answers, or to the store.

use std::collections::BTreeSet;

use hookmill_tests::api::{Api, Mood, Recorded};
use hookmill_tests::event::{Event, now, signed, stripe};
use hookmill_tests::{Fault, RESEND_KEY, SENDGRID_KEY, eventually};
use serde_json::{Value, json};

use super::{accepted, sent};
use crate::platform::Pipeline;

fn mailed(id: &str) -> Event {
    let object = json!({ "to": format!("{id}@example.com"), "name": format!("<{id}>") });
    stripe("test.mailed", id, 1, object)
}

/// Every email: (event id, state, the provider's id, error), in order of ids.
fn outbox(pipeline: &Pipeline) -> Vec<Vec<Value>> {
    pipeline.sql("SELECT event_id, state, provider_id, error FROM outbox ORDER BY event_id")
}

/// A request without its key, which differs between batches.
fn shown(mut request: Recorded) -> Recorded {
    if let Some(key) = request.headers.get_mut("idempotency-key") {
        assert!(key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
        "[key]".clone_into(key);
    }
    request
}

#[test]
fn a_repeated_event_sends_nothing_again() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    let event = mailed("evt_1");
    accepted(&pipeline, &event);
    accepted(&pipeline, &event);
    sent(&pipeline);
    let pipeline = pipeline.enqueued(&[event.message(), event.message()]);
    pipeline.delivered_to_two_consumers(&event);
    accepted(&pipeline, &mailed("evt_2"));
    sent(&pipeline);
    let twice = json!([
        ["evt_1", "sent", "id-of-evt_1@example.com", null],
        ["evt_2", "sent", "id-of-evt_2@example.com", null],
    ]);
    assert_eq!(json!(outbox(&pipeline)), twice);
    assert_eq!(api.accepted(), ["evt_1@example.com", "evt_2@example.com"]);
    let first = shown(api.requests().remove(0));
    insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_debug_snapshot!("a_request_to_resend", first);
    });
}

#[test]
fn a_clock_that_was_ahead_delays_no_email() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    let tomorrow = now().millis() + 86_400_000;
    // The rows of a process whose clock is a day ahead.
    pipeline.sql(&format!(
        "INSERT INTO outbox_senders (provider, free_at, away_until) VALUES ('resend', {tomorrow}, {tomorrow})"
    ));
    accepted(&pipeline, &mailed("evt_1"));
    sent(&pipeline);
    assert_eq!(api.accepted(), ["evt_1@example.com"]);
}

#[test]
fn a_lost_response_is_retried_with_the_same_bytes() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    api.moods([Mood::Silent, Mood::Broken { accepts: true }, Mood::Busy]);
    accepted(&pipeline, &mailed("evt_1"));
    sent(&pipeline);
    assert_eq!(
        json!(outbox(&pipeline)),
        json!([["evt_1", "sent", "id-of-evt_1@example.com", null]])
    );
    assert_eq!(api.accepted(), ["evt_1@example.com"]);
    let requests = api.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|request| *request == requests[0]), "{requests:#?}");
}

#[test]
fn one_rejected_email_spoils_no_other() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    api.moods([Mood::RefusesTheFirst]);
    let events: Vec<_> = (0..3).map(|n| mailed(&format!("evt_{n}"))).collect();
    let messages: Vec<_> = events.iter().map(Event::message).collect();
    let pipeline = pipeline.enqueued(&messages);
    sent(&pipeline);
    let states: Vec<_> = outbox(&pipeline).into_iter().map(|mut row| row.remove(1)).collect();
    let refused: Vec<_> = states.iter().filter(|state| **state == "refused").collect();
    assert_eq!((refused.len(), states.len()), (1, 3));
    let words = pipeline.sql("SELECT error FROM outbox WHERE state = 'refused'");
    assert_eq!(words, [[json!("Invalid `to` field.")]]);
    assert_eq!(api.accepted().len(), 2);
    assert_eq!(api.requests().len(), 1);
}

#[test]
fn a_rejected_batch_is_split_until_the_rejected_email_is_alone() {
    let api = Api::start();
    api.lasting("resend", Mood::RefusesAllWith("evt_3@example.com"));
    let events: Vec<_> = (0..8).map(|n| mailed(&format!("evt_{n}")).message()).collect();
    let pipeline = Pipeline::with_api(&api).enqueued(&events);
    sent(&pipeline);
    let words = pipeline.sql("SELECT event_id, error FROM outbox WHERE state = 'refused'");
    let expected = ["evt_3", "Resend answered 422: validation_error: Invalid `to` field."];
    assert_eq!(words, [expected.map(Value::from)]);
    let accepted: BTreeSet<_> = api.accepted().into_iter().collect();
    assert_eq!((accepted.len(), api.accepted().len()), (7, 7));
}

#[test]
fn a_rejected_email_is_recorded_with_the_providers_message() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    api.moods([Mood::Forbidden]);
    accepted(&pipeline, &mailed("evt_1"));
    sent(&pipeline);
    let refused =
        ["evt_1", "refused", "", "Resend answered 403: invalid_api_key: no such key: Bearer [key]"];
    let found =
        pipeline.sql("SELECT event_id, state, coalesce(provider_id, ''), error FROM outbox");
    assert_eq!(found, [refused.map(Value::from)]);
    assert_eq!(api.accepted(), Vec::<String>::new());
}

#[test]
fn many_emails_go_out_in_few_requests() {
    let api = Api::start();
    let events: Vec<_> = (0..250).map(|n| mailed(&format!("evt_{n}")).message()).collect();
    let pipeline = Pipeline::with_api(&api).enqueued(&events);
    sent(&pipeline);
    let addresses: BTreeSet<_> = api.accepted().into_iter().collect();
    assert_eq!((addresses.len(), api.accepted().len()), (250, 250));
    assert!(api.requests().len() <= 10, "{}", api.requests().len());
    assert_eq!(pipeline.sql("SELECT sent FROM outbox_usage WHERE length(period) = 7"), [[250]]);
}

#[test]
fn an_email_waits_for_an_unavailable_store() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    accepted(&pipeline, &mailed("evt_1"));
    pipeline.settle();
    let away = pipeline.broken(Fault::Store);
    // By now the batch would have been sent.
    std::thread::sleep(std::time::Duration::from_secs(2));
    drop(away);
    sent(&pipeline);
    assert_eq!(api.accepted(), ["evt_1@example.com"]);
}

#[test]
fn the_fallback_takes_over_and_its_lost_responses_are_uncertain() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    api.lasting("resend", Mood::Silent);
    accepted(&pipeline, &mailed("evt_1"));
    pipeline.settle();
    eventually("Resend counts as unavailable", || {
        let away = pipeline
            .sql("SELECT 1 FROM outbox_senders WHERE provider = 'resend' AND away_until > 0");
        away.first().map(drop)
    });
    accepted(&pipeline, &mailed("evt_2"));
    let state = |id: &str, state: &str| {
        eventually(state, || {
            let sql = format!("SELECT 1 FROM outbox WHERE event_id = '{id}' AND state = '{state}'");
            pipeline.sql(&sql).first().map(drop)
        });
    };
    state("evt_2", "sent");
    api.lasting("sendgrid", Mood::Silent);
    accepted(&pipeline, &mailed("evt_3"));
    state("evt_3", "uncertain");
    // Only Resend can tell whether it has the batch.
    assert_eq!(pipeline.sql("SELECT state FROM outbox WHERE event_id = 'evt_1'"), [["sealed"]]);
    api.lasting("resend", Mood::Accepts);
    state("evt_1", "sent");
    let each: Vec<_> = (1..=3).map(|n| format!("evt_{n}@example.com")).collect();
    assert_eq!(api.accepted(), each);
    let by_sendgrid = api.requests().into_iter().find(|request| request.path.contains("sendgrid"));
    insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_debug_snapshot!("a_request_to_sendgrid", by_sendgrid.unwrap());
    });
}

#[test]
fn a_suppressed_address_gets_no_email() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    pipeline.sql(
        "INSERT INTO suppressions VALUES ('evt_1@example.com', 'bounced', 'resend', 'evt_0', 0, 0)",
    );
    accepted(&pipeline, &mailed("evt_1"));
    accepted(&pipeline, &mailed("evt_2"));
    sent(&pipeline);
    assert_eq!(
        pipeline.sql("SELECT state, error FROM outbox WHERE event_id = 'evt_1'"),
        [["suppressed", "the recipient is suppressed: evt_1@example.com: bounced"]]
    );
    assert_eq!(api.accepted(), ["evt_2@example.com"]);
}

/// Sends a report of Resend about an email.
fn report(pipeline: &Pipeline, number: u8, kind: &str, email: &str, more: &Value) {
    let mut data = json!({ "email_id": "id", "to": ["Evt <EVT_1@example.com>"], "tags": { "hookmill": email } });
    data["bounce"] = more.clone();
    let body = json!({ "type": kind, "created_at": "2026-11-21T00:00:00Z", "data": data });
    let signed =
        signed("resend", kind, &format!("msg_{number}"), None, body.to_string().as_bytes());
    assert_eq!(pipeline.send(&signed.headers, "resend", &signed.body).status, 200);
}

#[test]
fn later_reports_of_the_provider_are_recorded_in_any_order() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    accepted(&pipeline, &mailed("evt_1"));
    accepted(&pipeline, &mailed("evt_2"));
    sent(&pipeline);
    let id = |event: &str| {
        let sql = format!("SELECT id FROM outbox WHERE event_id = '{event}'");
        pipeline.sql(&sql)[0][0].as_str().unwrap().to_owned()
    };
    let (first, second) = (id("evt_1"), id("evt_2"));
    let outcomes = || pipeline.sql("SELECT outcome FROM outbox ORDER BY event_id");
    let suppressed = || pipeline.sql("SELECT address, reason FROM suppressions");

    let transient = json!({ "type": "Transient" });
    report(&pipeline, 1, "email.bounced", &first, &transient);
    report(&pipeline, 2, "email.delivered", &first, &Value::Null);
    report(&pipeline, 3, "email.clicked", &second, &Value::Null);
    report(&pipeline, 4, "email.opened", &second, &Value::Null);
    report(&pipeline, 5, "email.opened", "nobody-knows-this", &Value::Null);
    pipeline.settle();
    assert_eq!(outcomes(), [["bounced"], ["clicked"]]);
    assert_eq!(suppressed(), Vec::<Vec<Value>>::new());

    report(&pipeline, 6, "email.bounced", &first, &json!({ "type": "Permanent" }));
    report(&pipeline, 7, "email.complained", &first, &Value::Null);
    pipeline.settle();
    assert_eq!(outcomes(), [["complained"], ["clicked"]]);
    assert_eq!(
        suppressed(),
        [["evt_1@example.com", "bounced"], ["evt_1@example.com", "complained"]]
    );
    let again = json!({ "to": "evt_1@example.com", "name": "again" });
    accepted(&pipeline, &stripe("test.mailed", "evt_3", 1, again));
    sent(&pipeline);
    let state = pipeline.sql("SELECT state FROM outbox WHERE event_id = 'evt_3'");
    assert_eq!(state, [["suppressed"]]);
    assert_eq!(api.accepted().len(), 2);
}

#[test]
fn neither_keys_nor_contents_of_emails_are_logged() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    let moods = [Mood::Silent, Mood::Busy, Mood::Broken { accepts: false }, Mood::RefusesTheFirst];
    api.moods(moods);
    accepted(&pipeline, &mailed("evt_canary"));
    sent(&pipeline);
    api.moods([Mood::Forbidden]);
    accepted(&pipeline, &mailed("evt_canary_2"));
    sent(&pipeline);
    assert_eq!(outbox(&pipeline).len(), 2);
    let mut seen = vec![pipeline.logs()];
    for table in ["outbox", "outbox_batches", "outbox_senders", "outbox_usage"] {
        let rows = pipeline.sql(&format!("SELECT * FROM {table}"));
        seen.extend(rows.into_iter().map(|row| json!(row).to_string()));
    }
    for key in [RESEND_KEY, SENDGRID_KEY] {
        assert!(seen.iter().all(|text| !text.contains(key)), "{key}");
    }
    for said in ["evt_canary@example.com", "<p>Hello"] {
        assert!(!seen[0].contains(said), "{said} is in the log");
    }
}

#[test]
fn a_report_settles_an_uncertain_email() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    accepted(&pipeline, &mailed("evt_1"));
    sent(&pipeline);
    pipeline.sql("UPDATE outbox SET state = 'uncertain'");
    let id = pipeline.sql("SELECT id FROM outbox")[0][0].clone();
    let event = |event: &str, number: u8, more: &Value| {
        let mut event = json!({ "sg_event_id": format!("sg_{number}"), "event": event, "email": "EVT_1@example.com" });
        event["timestamp"] = 1_790_000_000.into();
        event["hookmill"] = more.clone();
        event
    };
    let body = json!([
        event("delivered", 1, &id),
        event("processed", 2, &id),
        event("unsubscribe", 3, &Value::Null)
    ]);
    let signed = signed("sendgrid", "delivered", "sg", None, body.to_string().as_bytes());
    assert_eq!(pipeline.send(&signed.headers, "sendgrid", &signed.body).status, 200);
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT state, outcome FROM outbox"), [["sent", "delivered"]]);
    let suppressed = pipeline.sql("SELECT address, reason FROM suppressions");
    assert_eq!(suppressed, [["evt_1@example.com", "unsubscribed"]]);
}

/// Sends a request of SendGrid with these events about `evt_1`.
fn reported(pipeline: &Pipeline, number: u8, events: &[(&str, &str, i64)]) {
    let event = |(place, (kind, address, at)): (usize, &(&str, &str, i64))| {
        let mut event = json!({ "sg_event_id": format!("sg_{number}_{place}"), "email": address, "timestamp": at });
        // A bounce has a type, and an event of a group has its number.
        let (kind, more) = kind.split_once(' ').unwrap_or((kind, ""));
        event["event"] = kind.into();
        match kind {
            "bounce" => event["type"] = more.into(),
            _ if !more.is_empty() => event["asm_group_id"] = json!(more.parse::<u64>().ok()),
            _ => {}
        }
        event
    };
    let body: Value = events.iter().enumerate().map(event).collect();
    let signed = signed("sendgrid", "bounce", "sg", None, body.to_string().as_bytes());
    assert_eq!(pipeline.send(&signed.headers, "sendgrid", &signed.body).status, 200);
    pipeline.settle();
}

#[test]
fn only_a_hard_bounce_suppresses_an_address() {
    let pipeline = Pipeline::with_api(&Api::start());
    let events = [
        ("bounce expired", "full@example.com", 1_790_000_001),
        ("bounce blocked", "listed@example.com", 1_790_000_002),
        ("bounce bounce", "gone@example.com", 1_790_000_003),
        // A type that SendGrid may add later.
        ("bounce delayed", "other@example.com", 1_790_000_004),
    ];
    reported(&pipeline, 1, &events);
    assert_eq!(
        pipeline.sql("SELECT address, reason FROM suppressions"),
        [["gone@example.com", "bounced"]]
    );
}

#[test]
fn a_newsletter_group_is_left_apart_from_other_emails() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    let (one, other) = ("evt_1@example.com", "evt_2@example.com");
    let left = [
        ("group_unsubscribe 4711", one, 1_790_000_010),
        ("group_unsubscribe 4712", one, 1_790_000_010),
        ("unsubscribe", other, 1_790_000_010),
    ];
    reported(&pipeline, 1, &left);
    let groups = || pipeline.sql("SELECT address, group_id, reason FROM group_suppressions");
    let everywhere = pipeline.sql("SELECT address, reason FROM suppressions");
    assert_eq!(everywhere, [[other, "unsubscribed"]]);
    assert_eq!(groups(), [[one, "4711", "unsubscribed"], [one, "4712", "unsubscribed"]]);
    // An email outside the groups arrives; one of the group does not.
    accepted(&pipeline, &mailed("evt_1"));
    accepted(&pipeline, &mailed("evt_2"));
    let news = json!({ "to": one, "name": "news" });
    accepted(&pipeline, &stripe("test.news", "evt_3", 1, news.clone()));
    sent(&pipeline);
    let states = || pipeline.sql("SELECT event_id, state FROM outbox ORDER BY event_id");
    assert_eq!(states(), [["evt_1", "sent"], ["evt_2", "suppressed"], ["evt_3", "suppressed"]]);
    // The recipient subscribes to the group again. The older report arrives once more and late, and changes nothing.
    reported(&pipeline, 2, &[("group_resubscribe 4711", one, 1_790_000_020)]);
    reported(&pipeline, 3, &[("group_unsubscribe 4711", one, 1_790_000_015)]);
    assert_eq!(groups(), [[one, "4712", "unsubscribed"]]);
    accepted(&pipeline, &stripe("test.news", "evt_4", 1, news));
    sent(&pipeline);
    assert_eq!(states()[3], ["evt_4", "sent"]);
    assert_eq!(api.accepted(), [one, one]);
}

#[test]
fn an_address_that_resend_removes_from_its_list_gets_emails_again() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    let listed = |number: u8, kind: &str, at: &str| {
        let body = json!({ "type": kind, "created_at": at, "data": { "email": "evt_1@example.com", "origin": "manual" } });
        let signed =
            signed("resend", kind, &format!("list_{number}"), None, body.to_string().as_bytes());
        assert_eq!(pipeline.send(&signed.headers, "resend", &signed.body).status, 200);
        pipeline.settle();
    };
    let reasons = || pipeline.sql("SELECT reason FROM suppressions ORDER BY 1");
    report(&pipeline, 1, "email.bounced", "id", &json!({ "type": "Permanent" }));
    listed(2, "suppression.added", "2026-11-21T00:00:01Z");
    pipeline.settle();
    assert_eq!(reasons(), [["bounced"], ["suppressed at Resend"]]);
    listed(3, "suppression.removed", "2026-11-21T00:00:02Z");
    // Late: it is older than the removal.
    listed(4, "suppression.added", "2026-11-21T00:00:01.5Z");
    assert_eq!(reasons(), Vec::<Vec<Value>>::new());
    accepted(&pipeline, &mailed("evt_1"));
    sent(&pipeline);
    assert_eq!(api.accepted(), ["evt_1@example.com"]);
    listed(5, "suppression.added", "2026-11-21T00:00:03Z");
    assert_eq!(reasons(), [["suppressed at Resend"]]);
}
