//! A dead letter is a row with body, attempts, reason and error, before the message is acknowledged.

use hookmill_tests::event::stripe;
use hookmill_tests::{Fault, eventually};
use serde_json::json;

use super::super::platform::Pipeline;
use super::{accepted, counted, dead_letters, guarded, tally, value};

/// Renames a table that a rule writes: the event cannot be applied, but a dead letter can be written.
const AWAY: &str = "ALTER TABLE fleeting RENAME TO elsewhere";
const BACK: &str = "ALTER TABLE elsewhere RENAME TO fleeting";

#[test]
fn exhausted_is_buried_not_lost() {
    let pipeline = Pipeline::start();
    pipeline.sql(AWAY);
    let event = stripe("test.fleeting", "evt_1", 1, json!({ "id": "a" }));
    accepted(&pipeline, &event);
    eventually("the event is buried", || (!dead_letters(&pipeline).is_empty()).then_some(()));
    pipeline.settle();

    assert_eq!(dead_letters(&pipeline), [[json!("evt_1"), json!("exhausted"), json!(3)]]);
    let letter = pipeline
        .sql("SELECT source, type, error, message, fingerprint FROM dead_letters")
        .remove(0);
    assert_eq!((&letter[0], &letter[1]), (&json!("stripe"), &json!("test.fleeting")));
    let error = letter[2].as_str().unwrap_or_default();
    assert!(
        error.starts_with("gave up after 3 attempts") && error.contains("no such table: fleeting"),
        "{error}"
    );
    let message = letter[3].as_str().unwrap_or_default();
    assert!(message.ends_with(std::str::from_utf8(&event.body).unwrap()), "the whole message");
    assert_eq!(letter[4].as_str().map(str::len), Some(16));
    assert_eq!(value(&pipeline, "SELECT count(*) FROM events"), 0);
}

#[test]
fn an_event_that_succeeds_in_time_is_not_buried() {
    let pipeline = Pipeline::start();
    pipeline.sql(AWAY);
    accepted(&pipeline, &stripe("test.fleeting", "evt_1", 1, json!({ "id": "a" })));
    eventually("it was tried once", || {
        pipeline.logs().contains("delivery failed, will retry").then_some(())
    });
    pipeline.sql(BACK);
    eventually("it is applied", || pipeline.sql("SELECT id FROM fleeting").first().map(drop));
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT id, attempts FROM events").len(), 1);
    assert!(dead_letters(&pipeline).is_empty());
}

#[test]
fn an_event_stays_on_the_queue_if_no_dead_letter_can_be_written() {
    let pipeline = Pipeline::start();
    let store_away = pipeline.broken(Fault::Store);
    // It can neither be applied nor be written as a dead letter, which the table rejects.
    accepted(&pipeline, &guarded("evt_1", "a", 1, &json!(-1)));
    accepted(&pipeline, &counted("evt_2", "a", 1));
    eventually("it was tried", || {
        pipeline.logs().contains("delivery failed, will retry").then_some(())
    });
    drop(store_away);
    eventually("the store has both", || {
        (dead_letters(&pipeline).len() == 1 && tally(&pipeline, "a") == [[1, 1]]).then_some(())
    });
    pipeline.settle();
}

#[test]
fn a_message_that_the_platform_drops_is_buried() {
    let event = counted("evt_1", "a", 1);
    let pipeline = Pipeline::start().given_up_by_the_platform(&event);
    eventually("the letter exists", || (!dead_letters(&pipeline).is_empty()).then_some(()));
    pipeline.settle();
    let letter = pipeline.sql("SELECT event_id, reason, message FROM dead_letters").remove(0);
    assert_eq!((&letter[0], &letter[1]), (&json!("evt_1"), &json!("dropped")));
    assert!(
        letter[2]
            .as_str()
            .is_some_and(|message| message.ends_with(std::str::from_utf8(&event.body).unwrap()))
    );
    assert!(tally(&pipeline, "a").is_empty());
}

#[test]
fn an_unmatched_event_is_recorded_ignored_or_buried_as_its_source_says() {
    let pipeline = Pipeline::start();
    for (source, id) in
        [("stripe", "evt_recorded"), ("quiet", "evt_ignored"), ("strict", "evt_buried")]
    {
        accepted(&pipeline, &stripe("test.unheard_of", id, 1, json!({})).to(source));
    }
    pipeline.settle();
    let events = pipeline.sql("SELECT id, outcome FROM events");
    assert_eq!(events, [[json!("evt_recorded"), json!("recorded")]]);
    assert_eq!(dead_letters(&pipeline), [[json!("evt_buried"), json!("permanent"), json!(1)]]);
}
