//! The ledger's row and the rules' rows are committed in one transaction, and the ledger's primary key decides.

use hookmill_tests::Fault;
use hookmill_tests::event::{Event, signed, stripe};
use serde_json::json;

use super::super::platform::Pipeline;
use super::{accepted, counted, dead_letters, tally, value};

#[test]
fn an_event_takes_effect_once() {
    let pipeline = Pipeline::start();
    let event = counted("evt_1", "a", 5);
    accepted(&pipeline, &event);
    pipeline.settle();
    let ledger = pipeline.sql("SELECT * FROM events");
    for _ in 0..3 {
        accepted(&pipeline, &event);
        pipeline.settle();
    }
    assert_eq!(tally(&pipeline, "a"), [[1, 5]]);
    assert_eq!(pipeline.sql("SELECT * FROM events"), ledger, "a redelivery writes nothing");
    assert!(pipeline.logs().contains("duplicate: nothing changed"), "and the log says so");
}

#[test]
fn an_event_takes_effect_once_delivered_together() {
    let event = counted("evt_1", "a", 5);
    let other = counted("evt_2", "a", 7);
    let messages = [&event, &event, &other, &event].map(Event::message);
    let pipeline = Pipeline::start().enqueued(&messages);
    pipeline.settle();
    assert_eq!(tally(&pipeline, "a"), [[2, 12]]);
    assert_eq!(value(&pipeline, "SELECT count(*) FROM events"), 2);
}

#[test]
fn an_event_takes_effect_once_with_two_consumers_at_once() {
    let pipeline = Pipeline::start();
    for n in 0..3 {
        pipeline.delivered_to_two_consumers(&counted(&format!("evt_{n}"), "a", 5));
    }
    pipeline.settle();
    assert_eq!(tally(&pipeline, "a"), [[3, 15]]);
}

#[test]
fn an_event_takes_effect_once_after_the_store_was_unavailable() {
    let pipeline = Pipeline::start();
    let store_away = pipeline.broken(Fault::Store);
    for n in 0..5 {
        accepted(&pipeline, &counted(&format!("evt_{n}"), "a", 1));
    }
    drop(store_away);
    hookmill_tests::eventually("all are applied", || {
        (tally(&pipeline, "a") == [[5, 5]]).then_some(())
    });
    pipeline.settle();
    assert_eq!(tally(&pipeline, "a"), [[5, 5]]);
    assert!(dead_letters(&pipeline).is_empty());
}

#[test]
fn every_rule_of_an_event_takes_effect_or_none_does() {
    let pipeline = Pipeline::start();
    let twice = |id: &str, number: i64| {
        stripe("test.twice", id, 1, json!({ "id": id, "number": number, "text": "x", "amount": 3 }))
    };
    accepted(&pipeline, &twice("evt_good", 1));
    // Its row is rejected, so it is not counted either.
    accepted(&pipeline, &twice("evt_bad", -1));
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT id, number FROM guarded"), [[json!("evt_good"), json!(1)]]);
    assert_eq!(
        pipeline.sql("SELECT id, events, amount FROM tallies"),
        [[json!("evt_good"), json!(1), json!(3)]]
    );
    assert_eq!(dead_letters(&pipeline), [[json!("evt_bad"), json!("refused"), json!(1)]]);
}

/// The parts of an id are joined with periods, which its parts may contain.
#[test]
fn ids_of_several_parts_are_told_apart() {
    let pipeline = Pipeline::start();
    let parts = [["a.b", "c"], ["a", "b.c"], ["a%2Eb", "c"], ["a", "b%2Ec"], ["a.b", "c"]];
    for [account, number] in parts {
        let body = json!({ "account": account, "number": number, "type": "made" }).to_string();
        let signed = signed("joined", "made", "", None, body.as_bytes());
        let response = pipeline.send(&signed.headers, "joined", &signed.body);
        assert_eq!(response.status, 200, "{}", response.body);
    }
    pipeline.settle();
    assert_eq!(
        pipeline.sql("SELECT account, number, events FROM joined ORDER BY account, number"),
        [["a", "b%2Ec"], ["a", "b.c"], ["a%2Eb", "c"], ["a.b", "c"]].map(|[account, number]| [
            json!(account),
            json!(number),
            json!(1)
        ])
    );
}
