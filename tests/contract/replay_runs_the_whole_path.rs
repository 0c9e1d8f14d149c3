//! A replay enqueues letters, which go through the whole path: events that were applied meanwhile change nothing, failed
//! ones are dead again, and live traffic is not delayed.

use hookmill_tests::event::Event;
use hookmill_tests::{Operator, eventually};
use serde_json::{Value, json};

use super::{accepted, counted, tally, value};
use crate::platform::Pipeline;

/// Makes the database reject every row of `tallies` until it is dropped.
const BROKEN: &str =
    "CREATE TRIGGER broken BEFORE INSERT ON tallies BEGIN SELECT RAISE(ABORT, 'out of order'); END";
const MENDED: &str = "DROP TRIGGER broken";

/// A pipeline with this number of dead letters, each of which would count one, after the cause was fixed.
fn with_letters(letters: u32) -> (Pipeline, Vec<Event>) {
    let pipeline = Pipeline::start();
    pipeline.sql(BROKEN);
    let events: Vec<_> = (0..letters).map(|n| counted(&format!("evt_{n}"), "a", 1)).collect();
    // They arrived long ago.
    let long_ago = |event: &Event| event.message().replace("\"received_at\":1", "\"received_at\":");
    let pipeline = pipeline.enqueued(&events.iter().map(long_ago).collect::<Vec<_>>());
    let count = "SELECT count(*) FROM dead_letters WHERE state = 'dead'";
    eventually("all are dead", || (value(&pipeline, count) == letters).then_some(()));
    pipeline.sql(MENDED);
    (pipeline, events)
}

fn operator(pipeline: &Pipeline) -> Operator {
    Operator::new(pipeline.admin(), "ines", "operate", |sql| {
        pipeline.sql(sql);
    })
}

/// Plans and runs a replay; returns its id.
fn run(operator: &Operator, filter: &Value, rate: u32) -> String {
    let plan = operator.post("/replays", filter);
    assert_eq!(plan.status, 201, "{}", plan.body);
    let id = plan.json()["id"].as_str().unwrap_or_default().to_owned();
    let body = json!({ "rate": rate, "reason": "the trigger is gone" });
    let ran = operator.post(&format!("/replays/{id}/run"), &body);
    assert_eq!(ran.status, 202, "{}", ran.body);
    id
}

fn replay(operator: &Operator, id: &str) -> Value {
    operator.get(&format!("/replays/{id}")).json()
}

#[test]
fn a_replayed_event_takes_effect_once() {
    let (pipeline, events) = with_letters(120);
    // The provider sends some of them again meanwhile.
    for event in &events[..5] {
        accepted(&pipeline, event);
    }
    eventually("these are applied", || (tally(&pipeline, "a") == [[5, 5]]).then_some(()));
    let letters = "SELECT state, count(*) FROM dead_letters GROUP BY state ORDER BY state";
    let settled = [[json!("applied"), json!(5)], [json!("dead"), json!(115)]];
    assert_eq!(pipeline.sql(letters), settled, "these are no dead letters any more");
    let operator = operator(&pipeline);
    let id = run(&operator, &json!({ "source": "stripe" }), 1000);
    eventually("all are applied", || (tally(&pipeline, "a") == [[120, 120]]).then_some(()));
    let done = eventually("the replay says so", || {
        let replay = replay(&operator, &id);
        (replay["state"] == "done" && replay["applied"] == 115).then_some(replay)
    });
    assert_eq!(
        (&done["total"], &done["sent"], &done["failed"]),
        (&115.into(), &115.into(), &0.into())
    );
    assert_eq!((&done["planned_by"], &done["run_by"]), (&"ines".into(), &"ines".into()));
    assert_eq!(done["reason"], "the trigger is gone");
    // They waited for years, which does not count as lag.
    let lag = "SELECT count(*) FROM activity WHERE lag > 3600000";
    assert_eq!(value(&pipeline, lag), 0);
    // A second replay of the same letters finds none.
    assert_eq!(operator.post("/replays", &json!({ "all": true })).json()["total"], 0);
    assert_eq!(tally(&pipeline, "a"), [[120, 120]]);
    let acts = operator.get("/audit").json()["items"].clone();
    let acts: Vec<_> = acts.as_array().unwrap().iter().map(|act| act["action"].clone()).collect();
    assert_eq!(acts, ["replay.plan", "replay.run", "replay.plan"]);
}

#[test]
fn an_event_that_fails_again_is_dead_again() {
    let (pipeline, _) = with_letters(3);
    pipeline.sql(BROKEN);
    let operator = operator(&pipeline);
    let id = run(&operator, &json!({ "all": true }), 100);
    eventually("all have failed again", || {
        let replay = replay(&operator, &id);
        (replay["state"] == "done" && replay["failed"] == 3).then_some(())
    });
    // Its history is in order.
    let steps = operator.get("/events/stripe/evt_1").json()["steps"].clone();
    let steps: Vec<_> = steps.as_array().unwrap().iter().map(|step| step["what"].clone()).collect();
    assert_eq!(steps, ["received", "failed", "replayed", "failed again"]);
    for blank in [json!({ "source": "" }), json!({ "type": " " }), json!({ "event_id": "" })] {
        assert_eq!(operator.post("/replays", &blank).status, 422, "{blank}");
    }
    let letters = operator.get("/dead-letters").json()["items"].clone();
    let replays = letters.as_array().unwrap().iter().map(|letter| letter["replays"].clone());
    assert_eq!(replays.collect::<Vec<_>>(), [1, 1, 1]);
    pipeline.sql(MENDED);
    // One by itself, then the others.
    let one = letters[0]["id"].as_str().unwrap();
    let because = json!({ "reason": "to try one" });
    let replayed = operator.post(&format!("/dead-letters/{one}/replay"), &because);
    assert_eq!(replayed.status, 202, "{}", replayed.body);
    eventually("it is applied", || (tally(&pipeline, "a") == [[1, 1]]).then_some(()));
    run(&operator, &json!({ "reason": "refused" }), 100);
    eventually("all are applied", || (tally(&pipeline, "a") == [[3, 3]]).then_some(()));
    // The record of the first replay stays: what came of its letters later is not its outcome.
    let first = replay(&operator, &id);
    assert_eq!((&first["applied"], &first["failed"]), (&0.into(), &3.into()));
    let second = eventually("the second replay ends", || {
        let second = operator.get("/replays").json()["items"][0].clone();
        (second["state"] == "done").then_some(second)
    });
    assert_eq!((&second["applied"], &second["failed"]), (&2.into(), &0.into()));
    // Nor does retention change them.
    pipeline.sql("UPDATE dead_letters SET state_at = 0");
    let pipeline = pipeline.after_a_minute();
    eventually("the letters are removed", || {
        (value(&pipeline, "SELECT count(*) FROM dead_letters") == 0).then_some(())
    });
    let operator = Operator::new(pipeline.admin(), "bob", "read", |sql| {
        pipeline.sql(sql);
    });
    assert_eq!(replay(&operator, &id), first);
    assert_eq!(operator.get("/replays").json()["items"][0], second);
}

#[test]
fn a_replay_is_paused_resumed_and_cancelled() {
    let (pipeline, _) = with_letters(30);
    let operator = operator(&pipeline);
    // The first step sends one, and the next follows a second later.
    let id = run(&operator, &json!({ "all": true }), 1);
    eventually("it has begun", || {
        (replay(&operator, &id)["sent"].as_u64() > Some(0)).then_some(())
    });
    let because = json!({ "reason": "to look at the first" });
    let turn = |what: &str| operator.post(&format!("/replays/{id}/{what}"), &because);
    assert_eq!(turn("resume").status, 409, "it is not paused");
    let paused = turn("pause");
    assert_eq!((paused.status, &paused.json()["state"]), (202, &"paused".into()));
    // During the pause, live traffic continues.
    accepted(&pipeline, &counted("evt_live", "b", 1));
    eventually("it is applied", || (tally(&pipeline, "b") == [[1, 1]]).then_some(()));
    let sent = replay(&operator, &id)["sent"].clone();
    assert_eq!(turn("resume").status, 202);
    eventually("it continues", || {
        (replay(&operator, &id)["sent"].as_u64() > sent.as_u64()).then_some(())
    });
    let cancelled = turn("cancel");
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (202, &"cancelled".into()));
    assert_eq!(turn("cancel").status, 409);
    let run =
        operator.post(&format!("/replays/{id}/run"), &json!({ "rate": 1, "reason": "again" }));
    assert_eq!(run.status, 409, "{}", run.body);
    eventually("what was sent is applied, and the rest is dead", || {
        let open = "SELECT count(*) FROM dead_letters WHERE state IN ('replaying', 'replayed')";
        let counted = tally(&pipeline, "a").first()?.first()?.as_u64()?;
        let dead = value(&pipeline, "SELECT count(*) FROM dead_letters WHERE state = 'dead'");
        (value(&pipeline, open) == 0 && counted + dead.as_u64()? == 30).then_some(())
    });
}

#[test]
fn a_replay_resumes_after_its_process_has_ended() {
    let (pipeline, _) = with_letters(40);
    let first = operator(&pipeline);
    let id = run(&first, &json!({ "all": true }), 2);
    eventually("it has begun", || (replay(&first, &id)["sent"].as_u64() > Some(0)).then_some(()));
    // The state of a process that ended with claimed letters; natively it is killed.
    pipeline.sql(&format!(
        "UPDATE dead_letters SET state = 'replaying', replay = '{id}'
         WHERE id IN (SELECT id FROM dead_letters WHERE state = 'dead' LIMIT 2)"
    ));
    pipeline.sql(&format!("UPDATE replays SET rate = 1000, due_at = 0 WHERE id = '{id}'"));
    let pipeline = pipeline.after_a_minute();
    eventually("all are applied", || (tally(&pipeline, "a") == [[40, 40]]).then_some(()));
    let second = Operator::new(pipeline.admin(), "bob", "read", |sql| {
        pipeline.sql(sql);
    });
    eventually("the replay says so", || {
        let replay = replay(&second, &id);
        (replay["state"] == "done" && replay["applied"] == 40).then_some(())
    });
}
