//! A message over the queue's limit travels by claim check, with the same result.

use hookmill_tests::event::{Event, clerk, stripe};
use hookmill_tests::{Fault, Operator, eventually};
use serde_json::json;

use super::super::platform::Pipeline;
use super::{a_day_later, accepted, dead_letters, value};

/// An event whose body has exactly this many bytes.
fn of_size(id: &str, bytes: usize) -> Event {
    let with_text = |text: String| {
        stripe("test.guarded", id, 1, json!({ "id": id, "number": 1, "text": text }))
    };
    let empty = with_text(String::new()).body.len();
    // Some characters take two bytes, so that characters and bytes differ.
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
    // Bodies in the object store are kept as long as their messages.
    assert_eq!(pipeline.objects().len(), sizes.len());
    pipeline.sql("UPDATE event_messages SET applied_at = 0");
    let pipeline = pipeline.after_a_minute();
    eventually("no message is kept", || {
        (value(&pipeline, "SELECT count(*) FROM event_messages") == 0).then_some(())
    });
    assert_eq!(pipeline.objects().len(), sizes.len(), "the queue may need them yet");
    let pipeline = a_day_later(pipeline);
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

/// Makes the database reject every row of `guarded` until it is dropped.
const BROKEN: &str =
    "CREATE TRIGGER broken BEFORE INSERT ON guarded BEGIN SELECT RAISE(ABORT, 'out of order'); END";
const MENDED: &str = "DROP TRIGGER broken";

/// Plans a replay or a reprocessing of everything, runs it, and waits until the letter has a state.
fn run(pipeline: &Pipeline, actor: &str, path: &str, letter: &str) {
    let operator = Operator::new(pipeline.admin(), actor, "operate", |sql| {
        pipeline.sql(sql);
    });
    let plan = operator.post(path, &json!({ "all": true }));
    assert_eq!(plan.json()["total"], 1, "{}", plan.body);
    let run = format!("/replays/{}/run", plan.json()["id"].as_str().unwrap_or_default());
    let ran = operator.post(&run, &json!({ "rate": 100, "reason": "the trigger is gone" }));
    assert_eq!(ran.status, 202, "{}", ran.body);
    eventually("the letter has its state", || {
        (pipeline.sql("SELECT state FROM dead_letters") == [[letter]]).then_some(())
    });
}

/// A minute later a table is empty; a day later the sweep has checked the body and kept it.
fn emptied(pipeline: Pipeline, table: &str) -> Pipeline {
    let pipeline = pipeline.after_a_minute();
    let rows = format!("SELECT count(*) FROM {table}");
    eventually("what is old is removed", || (value(&pipeline, &rows) == 0).then_some(()));
    let pipeline = a_day_later(pipeline);
    let stale = "SELECT count(*) FROM stale_bodies";
    eventually("the body was checked", || (value(&pipeline, stale) == 0).then_some(()));
    assert_eq!(pipeline.objects().len(), 1);
    pipeline
}

#[test]
fn a_large_body_is_deleted_after_the_last_row_that_refers_to_it() {
    let pipeline = Pipeline::start();
    pipeline.sql(BROKEN);
    accepted(&pipeline, &of_size("evt_1", 300_000));
    eventually("it is a dead letter", || (dead_letters(&pipeline).len() == 1).then_some(()));
    pipeline.sql(MENDED);
    run(&pipeline, "ines", "/replays", "applied");

    // Its message outlives its letter, and can be reprocessed.
    pipeline.sql("UPDATE dead_letters SET state_at = 0");
    let pipeline = emptied(pipeline, "dead_letters");
    pipeline.sql(BROKEN);
    run(&pipeline, "bob", "/reprocess", "dead");

    // Its letter outlives its message, and can be replayed.
    pipeline.sql("UPDATE event_messages SET applied_at = 0");
    let pipeline = emptied(pipeline, "event_messages");
    pipeline.sql(MENDED);
    pipeline.sql("DELETE FROM guarded");
    run(&pipeline, "eve", "/replays", "applied");
    assert_eq!(value(&pipeline, "SELECT length(text) > 200000 FROM guarded"), 1);

    pipeline.sql("UPDATE dead_letters SET state_at = 0");
    let pipeline = pipeline.after_a_minute();
    eventually("the letter is removed", || dead_letters(&pipeline).is_empty().then_some(()));
    let pipeline = a_day_later(pipeline);
    eventually("nothing is left over", || pipeline.objects().is_empty().then_some(()));
}

#[test]
fn a_body_whose_message_the_queue_refused_is_removed() {
    let pipeline = Pipeline::start();
    let queue_away = pipeline.broken(Fault::Queue);
    assert_eq!(pipeline.post(&of_size("evt_1", 300_000)).status, 503);
    drop(queue_away);
    assert_eq!(pipeline.objects().len(), 1);
    // The provider may send the event again.
    accepted(&pipeline, &of_size("evt_2", 300_000));
    pipeline.settle();
    pipeline.sql("DELETE FROM body_search");
    let pipeline = pipeline.after_a_minute();
    let searched = "SELECT reached FROM body_search WHERE due_at > unixepoch() * 1000";
    eventually("the search is over", || (pipeline.sql(searched) == [[""]]).then_some(()));
    assert_eq!(pipeline.objects().len(), 2);
    // Weeks later it has not. The other body belongs to a kept message.
    pipeline.sql("DELETE FROM body_search");
    let pipeline = pipeline.with_old_objects().after_a_minute();
    eventually("the body is removed", || (pipeline.objects().len() == 1).then_some(()));
    let operator = Operator::new(pipeline.admin(), "ines", "read", |sql| {
        pipeline.sql(sql);
    });
    let kept = operator.get("/events/stripe/evt_2/body");
    assert!(kept.body.contains("xxxxx"), "{}", kept.body);
}

#[test]
fn a_body_over_the_limit_is_rejected_while_it_arrives() {
    let pipeline = Pipeline::start();
    let event = of_size("evt_1", 1024 * 1024 + 1);
    let refused = pipeline.post(&event);
    assert_eq!((refused.status, refused.reason().as_str()), (413, "body_too_large"));
    pipeline.settle();
    assert_eq!(value(&pipeline, "SELECT count(*) FROM events"), 0);
}

#[test]
fn an_unneeded_body_is_not_read() {
    let pipeline = Pipeline::start();
    let event = of_size("evt_1", 300_000);
    // An ignored event needs no body.
    let pipeline = pipeline.enqueued(&[event.to("quiet").claim_check()]);
    pipeline.settle();
    assert!(dead_letters(&pipeline).is_empty());

    // The body of an event that has not taken effect must not be missing.
    let pipeline = pipeline.enqueued(&[of_size("evt_2", 300_000).claim_check()]);
    pipeline.settle();
    assert_eq!(dead_letters(&pipeline), [[json!("evt_2"), json!("unreadable"), json!(1)]]);
}

#[test]
fn two_events_with_the_same_large_body_both_take_effect() {
    let pipeline = Pipeline::start();
    // Clerk's id is a header, so the bodies may be equal.
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
