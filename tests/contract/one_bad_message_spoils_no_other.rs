//! Messages are decoded, planned and failed separately; a rejected batch is split until each bad event is alone.

use hookmill_core::message::text_of;
use hookmill_tests::event::stripe;
use hookmill_tests::{DEADLY, Fault, eventually};
use serde_json::{Value, json};

use super::super::platform::Pipeline;
use super::{accepted, counted, dead_letters, guarded, value};

#[test]
fn one_bad_message_spoils_no_other() {
    let mut messages: Vec<_> = (0..96)
        .map(|n| guarded(&format!("evt_{n:03}"), &format!("row_{n:03}"), 1, &json!(n)).message())
        .collect();
    // A row that the table rejects, one that it cannot store, a body without the values that the rule needs, and two
    // foreign messages.
    messages.insert(17, guarded("evt_refused", "row_refused", 1, &json!(-1)).message());
    messages.insert(50, guarded("evt_mistyped", "row_mistyped", 1, &json!("many")).message());
    messages.insert(51, stripe("test.guarded", "evt_keyless", 1, json!({ "number": 1 })).message());
    messages.insert(99, "not an envelope of ours".to_owned());
    assert_eq!(messages.len(), 100);
    let pipeline = Pipeline::start().enqueued(&messages);
    pipeline.settle();

    assert_eq!(value(&pipeline, "SELECT count(*) FROM guarded"), 96);
    assert_eq!(value(&pipeline, "SELECT count(*) FROM events"), 96);
    let letters = pipeline
        .sql("SELECT event_id, reason, attempts FROM dead_letters ORDER BY reason, event_id");
    assert_eq!(
        letters,
        [
            [json!("evt_mistyped"), json!("refused"), json!(1)],
            [json!("evt_refused"), json!("refused"), json!(1)],
            [Value::Null, json!("unreadable"), json!(1)],
            [json!("evt_keyless"), json!("unreadable"), json!(1)],
        ]
    );
    let errors = pipeline.sql("SELECT error FROM dead_letters WHERE event_id = 'evt_keyless'");
    assert_eq!(
        errors,
        [["rule `guarded`: `id` of the key is missing: no value at `data.object.id`"]]
    );
}

#[test]
fn one_bad_message_spoils_no_other_even_if_all_are_bad() {
    let messages: Vec<_> = (0..100)
        .map(|n| guarded(&format!("evt_{n}"), &format!("row_{n}"), 1, &json!(-1)).message())
        .collect();
    let pipeline = Pipeline::start().enqueued(&messages);
    pipeline.settle();
    assert_eq!(value(&pipeline, "SELECT count(*) FROM dead_letters WHERE reason = 'refused'"), 100);
    assert_eq!(value(&pipeline, "SELECT count(*) FROM guarded"), 0);
    assert_eq!(value(&pipeline, "SELECT count(*) FROM events"), 0);
}

#[test]
fn an_event_that_ends_its_consumer_is_given_up_and_its_neighbors_are_applied() {
    let messages: Vec<_> = (0..100)
        .map(|n| {
            let id = if n == 41 { format!("evt_{DEADLY}") } else { format!("evt_{n:03}") };
            guarded(&id, &format!("row_{n:03}"), 1, &json!(n)).message()
        })
        .collect();
    let pipeline = Pipeline::start().survived(&messages);
    assert_eq!(value(&pipeline, "SELECT count(*) FROM guarded"), 99);
    assert_eq!(value(&pipeline, "SELECT count(*) FROM events"), 99);
    let letters = pipeline.sql("SELECT event_id, reason FROM dead_letters");
    assert_eq!(letters, [[json!(format!("evt_{DEADLY}")), json!("dropped")]]);
    let error = value(&pipeline, "SELECT error FROM dead_letters");
    assert_eq!(
        error,
        "given up: handling of this event began 3 times and left no verdict; each time, either it ended the consumer \
         (too much memory or time), or the store failed"
    );
    assert_eq!(
        value(&pipeline, "SELECT count(*) FROM retries WHERE begun > 0 OR due_at IS NOT NULL"),
        0
    );
}

#[test]
fn an_event_that_would_write_too_much_is_a_dead_letter_and_its_neighbors_are_applied() {
    // 20,000 rows.
    let items: Vec<_> = (0..20_000).map(|n| json!({ "id": n })).collect();
    let many = stripe("test.listed", "evt_many", 1, json!({ "id": "a", "items": items }));
    // Some kilobytes, repeated for each of 9,000 rows: 36 MB.
    let items: Vec<_> = (0..9_000).map(|n| json!({ "id": n })).collect();
    let object = json!({ "id": "b", "note": "n".repeat(4_000), "items": items });
    let long = stripe("test.listed", "evt_long", 1, object);
    let pipeline = Pipeline::start();
    for (number, event) in [many, long].iter().enumerate() {
        accepted(
            &pipeline,
            &guarded(&format!("evt_{number}"), &format!("row_{number}"), 1, &json!(1)),
        );
        accepted(&pipeline, event);
    }
    accepted(&pipeline, &guarded("evt_2", "row_2", 1, &json!(1)));
    pipeline.settle();
    assert_eq!(value(&pipeline, "SELECT count(*) FROM guarded"), 3);
    assert_eq!(value(&pipeline, "SELECT count(*) FROM listed"), 0);
    let letters = pipeline
        .sql("SELECT event_id, reason, attempts, error FROM dead_letters ORDER BY event_id");
    assert_eq!(letters.len(), 2, "{letters:?}");
    for (letter, (id, what)) in letters.iter().zip([("evt_long", "bytes"), ("evt_many", "rows")]) {
        assert_eq!(letter[..3], [json!(id), json!("permanent"), json!(1)]);
        let error = letter[3].as_str().unwrap();
        assert!(error.contains(what) && error.contains("rule `listed`"), "{error}");
    }
}

#[test]
fn a_message_that_is_not_utf8_is_buried_with_its_bytes_and_spoils_no_other() {
    let good = |n: usize| counted(&format!("evt_{n}"), "a", 1).message().into_bytes();
    let mut bad = good(1);
    let middle = bad.len() / 2;
    bad[middle] = 0xff;
    let pipeline = Pipeline::start().enqueued(&[good(0), bad.clone(), good(2)]);
    pipeline.settle();
    assert_eq!(value(&pipeline, "SELECT events FROM tallies WHERE id = 'a'"), 2);
    let letters = pipeline.sql("SELECT reason, attempts, error, message FROM dead_letters");
    let error = "the message is not UTF-8: it was damaged, or Hookmill did not write it; the dead letter keeps its bytes in base64";
    assert_eq!(letters, [[json!("unreadable"), json!(1), json!(error), json!(text_of(bad))]]);
}

#[test]
fn a_missing_table_holds_up_only_the_events_that_need_it() {
    let pipeline = Pipeline::start();
    pipeline.sql("ALTER TABLE fleeting RENAME TO elsewhere");
    // While the store is unavailable the queue fills, so that the events are delivered together.
    let store_away = pipeline.broken(Fault::Store);
    for n in 0..20 {
        accepted(&pipeline, &counted(&format!("evt_{n}"), "a", 1));
    }
    accepted(&pipeline, &stripe("test.fleeting", "evt_fleeting", 1, json!({ "id": "a" })));
    drop(store_away);
    eventually("it is buried", || (!dead_letters(&pipeline).is_empty()).then_some(()));
    pipeline.settle();
    assert_eq!(value(&pipeline, "SELECT events FROM tallies WHERE id = 'a'"), 20);
    assert_eq!(dead_letters(&pipeline), [[json!("evt_fleeting"), json!("exhausted"), json!(3)]]);
}
