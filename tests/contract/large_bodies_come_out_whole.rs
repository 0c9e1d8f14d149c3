//! A message over the queue's limit travels by claim check, and nobody can tell.

use hookmill_tests::event::{Event, clerk, stripe};
use hookmill_tests::{Fault, eventually};
use serde_json::json;

use super::super::platform::Pipeline;
use super::{accepted, dead_letters, value};

/// An event whose body has exactly this many bytes.
fn of_size(id: &str, bytes: usize) -> Event {
    let with_text = |text: String| {
        stripe("test.guarded", id, 1, json!({ "id": id, "number": 1, "text": text }))
    };
    let empty = with_text(String::new()).body.len();
    // Some of it takes two bytes, so that characters and bytes are not the same.
    let event = with_text(format!("ü{}", "x".repeat(bytes - empty - 2)));
    assert_eq!(event.body.len(), bytes);
    event
}

#[test]
fn large_bodies_come_out_whole() {
    let pipeline = Pipeline::start();
    let sizes = [127_000, 127 * 1024, 128_000, 128 * 1024, 129 * 1024, 1024 * 1024];
    let events: Vec<_> = sizes.iter().map(|size| of_size(&format!("evt_{size}"), *size)).collect();
    for event in &events {
        accepted(&pipeline, event);
    }
    pipeline.settle();
    assert!(
        dead_letters(&pipeline).is_empty(),
        "{:?}",
        pipeline.sql("SELECT error FROM dead_letters")
    );
    for event in &events {
        let text = value(&pipeline, &format!("SELECT text FROM guarded WHERE id = '{}'", event.id));
        let body: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!(text, body["data"]["object"]["text"], "{}", event.id);
    }
    // Those that go by claim check are kept as long as their messages.
    assert_eq!(pipeline.objects().len(), sizes.len());
    pipeline.sql("UPDATE event_messages SET applied_at = 0");
    let pipeline = pipeline.after_a_minute();
    eventually("nothing is left over", || pipeline.objects().is_empty().then_some(()));

    // Again: the object is gone, and the ledger knows why.
    let pipeline = pipeline.enqueued(&[events[5].claim_check()]);
    pipeline.settle();
    assert!(dead_letters(&pipeline).is_empty());
}

#[test]
fn a_large_body_of_a_dead_letter_is_kept() {
    let pipeline = Pipeline::start();
    accepted(&pipeline, &of_size("evt_1", 300_000).to("strict"));
    pipeline.settle();
    assert_eq!(dead_letters(&pipeline), [[json!("evt_1"), json!("permanent"), json!(1)]]);
    assert_eq!(pipeline.objects().len(), 1);
}

#[test]
fn a_body_over_the_limit_is_refused_while_it_arrives() {
    let pipeline = Pipeline::start();
    let event = of_size("evt_1", 1024 * 1024 + 1);
    let refused = pipeline.post(&event);
    assert_eq!((refused.status, refused.reason().as_str()), (413, "body_too_large"));
    pipeline.settle();
    assert_eq!(value(&pipeline, "SELECT count(*) FROM events"), 0);
}

#[test]
fn a_body_that_nobody_needs_is_not_asked_for() {
    let pipeline = Pipeline::start();
    let event = of_size("evt_1", 300_000);
    // One that leaves no trace has no need of its body.
    let pipeline = pipeline.enqueued(&[event.to("quiet").claim_check()]);
    pipeline.settle();
    assert!(dead_letters(&pipeline).is_empty());

    // Of an event that has not taken effect, the body must not be missing.
    let pipeline = pipeline.enqueued(&[of_size("evt_2", 300_000).claim_check()]);
    pipeline.settle();
    assert_eq!(dead_letters(&pipeline), [[json!("evt_2"), json!("unreadable"), json!(1)]]);
}

#[test]
fn two_events_with_the_same_large_body_both_take_effect() {
    let pipeline = Pipeline::start();
    // Clerk's id is a header, so nothing in the body need differ.
    let data = json!({ "id": "user_1", "updated_at": 1, "first_name": "x".repeat(200_000) });
    let store_away = pipeline.broken(Fault::Store);
    for id in ["msg_1", "msg_2"] {
        accepted(&pipeline, &clerk("user.updated", id, 1, data.clone()));
    }
    assert_eq!(pipeline.objects().len(), 2, "one is removed before the other is read");
    drop(store_away);
    eventually("both have taken effect", || {
        (pipeline.sql("SELECT id FROM events ORDER BY id") == [["msg_1"], ["msg_2"]]).then_some(())
    });
    pipeline.settle();
    assert!(dead_letters(&pipeline).is_empty());
}
