//! After a rule has changed, applied events can be processed again: each once, counters and sending rules only on request,
//! and never over a later event's row.

use hookmill_tests::event::stripe;
use hookmill_tests::{Operator, eventually};
use serde_json::{Value, json};

use super::{a_day_later, accepted, counted, guarded, tally, value};
use crate::platform::Pipeline;

/// The rows that older rules would have left.
const OUTDATED: &str = "UPDATE guarded SET number = 0, text = 'outdated'";

fn operator(pipeline: &Pipeline) -> Operator {
    Operator::new(pipeline.admin(), "ines", "operate", |sql| {
        pipeline.sql(sql);
    })
}

/// Reprocesses, waits for the end, and returns the replay.
fn reprocess(operator: &Operator, filter: &Value) -> Value {
    let plan = operator.post("/reprocess", filter);
    assert_eq!(plan.status, 201, "{}", plan.body);
    let id = plan.json()["id"].as_str().unwrap_or_default().to_owned();
    let body = json!({ "rate": 1000, "reason": "a rule has changed" });
    let ran = operator.post(&format!("/replays/{id}/run"), &body);
    assert_eq!(ran.status, 202, "{}", ran.body);
    eventually("it has ended", || {
        let replay = operator.get(&format!("/replays/{id}")).json();
        let came_to = replay["applied"].as_u64()? + replay["failed"].as_u64()?;
        (replay["state"] == "done" && replay["sent"] == came_to).then_some(replay)
    })
}

fn guarded_rows(pipeline: &Pipeline) -> Vec<Vec<Value>> {
    pipeline.sql("SELECT id, number, text, _event_id FROM guarded ORDER BY id")
}

#[test]
fn rows_are_written_again_and_nothing_is_counted_or_sent_twice() {
    let pipeline = Pipeline::start();
    let large = json!({ "id": "large", "number": 7, "text": "x".repeat(200_000) });
    accepted(&pipeline, &stripe("test.guarded", "evt_large", 1, large));
    accepted(&pipeline, &guarded("evt_1", "row", 1, &json!(5)));
    accepted(&pipeline, &counted("evt_2", "a", 3));
    let mailed = json!({ "to": "a@example.com", "name": "A" });
    accepted(&pipeline, &stripe("test.mailed", "evt_3", 1, mailed));
    // No rule matches it yet.
    accepted(&pipeline, &stripe("test.unheard.of", "evt_4", 1, json!({})));
    pipeline.settle();
    let before = guarded_rows(&pipeline);
    pipeline.sql(OUTDATED);
    pipeline.sql("DELETE FROM activity");

    let operator = operator(&pipeline);
    let replay = reprocess(&operator, &json!({ "all": true }));
    assert_eq!((&replay["total"], &replay["sent"]), (&5.into(), &5.into()));
    assert_eq!((&replay["applied"], &replay["generation"]), (&5.into(), &1.into()));
    assert_eq!(guarded_rows(&pipeline), before);
    assert_eq!(tally(&pipeline, "a"), [[1, 3]]);
    assert_eq!(value(&pipeline, "SELECT count(*) FROM outbox"), 1);
    // They arrived long ago, which does not count as lag.
    assert_eq!(value(&pipeline, "SELECT max(lag) FROM activity"), 0);

    // Only the named rule runs.
    pipeline.sql(OUTDATED);
    let named = json!({ "source": "stripe", "rules": ["tallies", "mail"] });
    let planned = operator.post("/reprocess", &named).json();
    assert_eq!(planned["repeats"], json!(["tallies", "mail"]));
    assert_eq!(reprocess(&operator, &named)["generation"], 3);
    assert_eq!(tally(&pipeline, "a"), [[2, 6]]);
    assert_eq!(value(&pipeline, "SELECT count(*) FROM outbox"), 2);
    assert_eq!(value(&pipeline, "SELECT count(*) FROM guarded WHERE text = 'outdated'"), 2);

    let timeline = operator.get("/events/stripe/evt_1").json();
    let applied = timeline["steps"].as_array().unwrap().iter();
    let applied = applied
        .filter(|step| step["what"] == "applied")
        .map(|step| (step["detail"]["generation"].clone(), step["detail"]["rows"].clone()));
    let rows = json!([["guarded", { "id": "row" }]]);
    assert_eq!(
        applied.collect::<Vec<_>>(),
        [(json!(0), rows.clone()), (json!(1), rows), (json!(3), Value::Null)]
    );
    let received = timeline["steps"].as_array().unwrap().iter();
    assert_eq!(received.filter(|step| step["what"] == "received").count(), 1);

    // Its body is removed with its message.
    assert_eq!(pipeline.objects().len(), 1);
    pipeline.sql("UPDATE event_messages SET applied_at = 0 WHERE id = 'evt_large'");
    let pipeline = pipeline.after_a_minute();
    let kept = "SELECT count(*) FROM event_messages";
    eventually("the message is removed", || (value(&pipeline, kept) == 4).then_some(()));
    let pipeline = a_day_later(pipeline);
    eventually("the body is removed", || pipeline.objects().is_empty().then_some(()));
}

#[test]
fn rows_of_a_later_event_stay() {
    let pipeline = Pipeline::start();
    accepted(&pipeline, &guarded("evt_1", "row", 1, &json!(1)));
    accepted(&pipeline, &guarded("evt_2", "row", 2, &json!(2)));
    pipeline.settle();
    let before = guarded_rows(&pipeline);
    let operator = operator(&pipeline);
    let replay = reprocess(&operator, &json!({ "event_id": "evt_1" }));
    assert_eq!(replay["applied"], 1);
    assert_eq!(guarded_rows(&pipeline), before);
    // In any order: an empty table is filled as before.
    pipeline.sql("DELETE FROM guarded");
    assert_eq!(reprocess(&operator, &json!({ "type": "test.*" }))["applied"], 2);
    assert_eq!(guarded_rows(&pipeline), before);
}

#[test]
fn a_failed_reprocessing_is_a_dead_letter_and_can_be_replayed() {
    let pipeline = Pipeline::start();
    accepted(&pipeline, &counted("evt_1", "a", 1));
    pipeline.settle();
    pipeline.sql(
        "CREATE TRIGGER broken BEFORE INSERT ON tallies BEGIN SELECT RAISE(ABORT, 'out of order'); END",
    );
    let operator = operator(&pipeline);
    let replay = reprocess(&operator, &json!({ "all": true, "rules": ["tallies"] }));
    assert_eq!((&replay["applied"], &replay["failed"]), (&0.into(), &1.into()));
    pipeline.sql("DROP TRIGGER broken");
    let letter = operator.get("/dead-letters").json()["items"][0].clone();
    assert_eq!((&letter["event_id"], &letter["generation"]), (&"evt_1".into(), &1.into()));
    let id = letter["id"].as_str().unwrap();
    let because = json!({ "reason": "the trigger is gone" });
    assert_eq!(operator.post(&format!("/dead-letters/{id}/replay"), &because).status, 202);
    eventually("it counts again", || (tally(&pipeline, "a") == [[2, 2]]).then_some(()));
    // The outcome of the reprocessing stays; that of the replay is its own.
    let replays = operator.get("/replays").json()["items"].clone();
    let outcome = |replay: &Value| (replay["applied"].clone(), replay["failed"].clone());
    let outcomes: Vec<_> = replays.as_array().unwrap().iter().map(outcome).collect();
    assert_eq!(outcomes, [(1.into(), 0.into()), (0.into(), 1.into())]);
}

#[test]
fn events_without_a_kept_message_are_reported() {
    let pipeline = Pipeline::start();
    let operator = operator(&pipeline);
    let nothing = operator.post("/reprocess", &json!({ "all": true }));
    assert_eq!(nothing.status, 409, "{}", nothing.body);
    assert!(nothing.body.contains("[retention]"), "{}", nothing.body);
    for unclear in [
        json!({}),
        json!({ "all": true, "source": "stripe" }),
        json!({ "kind": "x" }),
        // Most likely a variable that is not set.
        json!({ "source": "" }),
        json!({ "all": true, "rules": [" "] }),
        json!({ "all": true, "rules": ["nobody-knows-it"] }),
    ] {
        let unclear = operator.post("/reprocess", &unclear);
        assert_eq!(unclear.status, 422, "{}", unclear.body);
    }
}
