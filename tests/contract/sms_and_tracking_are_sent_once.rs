//! SMS and tracking events use the same outbox as emails: each is sent once, and SMS within limits.

use hookmill_tests::api::{Api, Mood, Recorded};
use hookmill_tests::event::{Event, signed, stripe};
use hookmill_tests::eventually;
use serde_json::{Value, json};

use super::{accepted, sent};
use crate::platform::Pipeline;

fn texted(id: &str, to: &str) -> Event {
    stripe("test.texted", id, 1, json!({ "to": to, "name": id }))
}

fn tracked(id: &str) -> Event {
    stripe("test.tracked", id, 1, json!({ "user": format!("user-of-{id}"), "plan": "pro" }))
}

fn states(pipeline: &Pipeline) -> Vec<Vec<Value>> {
    pipeline.sql("SELECT event_id, state FROM outbox ORDER BY event_id, channel")
}

/// A request without its time.
fn shown(mut request: Recorded) -> Recorded {
    let places = ["/0/properties/time", "/batch/0/timestamp"];
    for place in places {
        if let Some(time) = request.body.pointer_mut(place) {
            *time = json!("[time]");
        }
    }
    request
}

#[test]
fn an_sms_is_sent_once_and_its_outcome_is_recorded() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    api.moods([Mood::Busy]);
    let event = texted("evt_1", "+15550100002");
    accepted(&pipeline, &event);
    accepted(&pipeline, &event);
    sent(&pipeline);
    let row = pipeline.sql("SELECT state, provider_id, outcome FROM outbox");
    assert_eq!(json!(row), json!([["sent", "SM1", null]]));
    assert_eq!(api.accepted().len(), 1);
    insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_debug_snapshot!("a_request_to_twilio", shown(api.requests().remove(0)));
    });
    for status in ["delivered", "sent"] {
        let body = format!("MessageSid=SM1&MessageStatus={status}&To=%2B15550100002");
        let signed = signed("twilio", "", "", None, body.as_bytes());
        assert_eq!(pipeline.send(&signed.headers, "twilio", &signed.body).status, 200);
    }
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT outcome FROM outbox"), [["delivered"]]);
}

#[test]
fn an_sms_that_may_have_been_sent_is_uncertain() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    api.moods([Mood::Silent]);
    accepted(&pipeline, &texted("evt_1", "+15550100002"));
    sent(&pipeline);
    assert_eq!(states(&pipeline), [["evt_1", "uncertain"]]);
    assert_eq!(api.requests().len(), 1);
}

#[test]
fn a_number_gets_few_sms_per_hour_and_none_after_stop() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    for number in 1..=3 {
        // The same number in several spellings.
        let to = ["+15550100002", "+1 (555) 010-0002", "+1 555 010 0002"][number - 1];
        accepted(&pipeline, &texted(&format!("evt_{number}"), to));
        sent(&pipeline);
    }
    api.moods([Mood::OptedOut]);
    for number in 4..=5 {
        accepted(&pipeline, &texted(&format!("evt_{number}"), "+15550100003"));
        sent(&pipeline);
    }
    let found = pipeline.sql("SELECT state, coalesce(error, '') FROM outbox ORDER BY event_id");
    let words = "Twilio answered 400: 21610: STOP";
    let expected = [
        ["sent", ""],
        ["sent", ""],
        [
            "suppressed",
            "2 messages were sent to this recipient within an hour, and `per_hour` allows 2",
        ],
        ["suppressed", words],
        ["suppressed", "the recipient is suppressed: Twilio answered 400: 21610: STOP"],
    ];
    assert_eq!(found, expected.map(|row| row.map(Value::from)));
    let suppressed = pipeline.sql("SELECT address, reason, source FROM suppressions");
    assert_eq!(suppressed, [["+15550100003", words, "twilio"]]);
    assert_eq!(api.requests().len(), 3);
}

#[test]
fn a_tracking_event_is_sent_once_and_a_rejection_is_recorded() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    // PostHog's response is lost, and Mixpanel rejects the first event.
    api.lasting("posthog", Mood::Silent);
    api.lasting("mixpanel", Mood::RefusesTheFirst);
    let events: Vec<_> =
        (1..=2).map(|number| tracked(&format!("evt_{number}")).message()).collect();
    let pipeline = pipeline.enqueued(&events);
    eventually("PostHog has the events", || {
        api.requests().iter().any(|request| request.path.contains("posthog")).then_some(())
    });
    api.lasting("posthog", Mood::Accepts);
    sent(&pipeline);
    let found = pipeline.sql("SELECT channel, state, error FROM outbox ORDER BY channel, state");
    let expected = json!([
        ["mixpanel", "refused", "time: too old"],
        ["mixpanel", "sent", null],
        ["posthog", "sent", null],
        ["posthog", "sent", null],
    ]);
    assert_eq!(json!(found), expected);
    // The same bytes: both providers recognize an event.
    let of = |provider: &str| {
        let all = api.requests().into_iter().filter(|request| request.path.contains(provider));
        all.collect::<Vec<_>>()
    };
    let (mixpanel, posthog) = (of("mixpanel"), of("posthog"));
    assert_eq!(mixpanel.len(), 1);
    assert!(posthog.len() >= 2 && posthog.iter().all(|request| *request == posthog[0]));
    for (name, request) in
        [("a_request_to_mixpanel", &mixpanel), ("a_request_to_posthog", &posthog)]
    {
        let mut request = shown(request[0].clone());
        // The order of the two is not fixed.
        let events =
            if name.contains("mixpanel") { &mut request.body } else { &mut request.body["batch"] };
        events.as_array_mut().unwrap().truncate(1);
        let text =
            serde_json::to_string_pretty(&json!([request.path, request.headers, request.body]));
        let keys = ["$insert_id", "uuid", "distinct_id"];
        let text = text
            .unwrap()
            .lines()
            .filter(|line| !keys.iter().any(|key| line.contains(key)))
            .collect::<Vec<_>>()
            .join("\n");
        insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, text);
        });
    }
}
