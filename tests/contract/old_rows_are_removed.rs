//! Old rows are removed, except those that wait for an operator.

use hookmill_tests::event::stripe;
use hookmill_tests::{Operator, eventually};
use serde_json::json;

use super::{accepted, counted, dead_letters, tally, value};
use crate::platform::Pipeline;

#[test]
fn old_rows_are_removed_unless_an_operator_has_to_act() {
    let pipeline = Pipeline::start();
    for state in ["dead", "applied", "discarded"] {
        for (age, at) in [("old", "0"), ("new", "unixepoch() * 1000")] {
            pipeline.sql(&format!(
                "INSERT INTO dead_letters (id, reason, error, fingerprint, attempts, first_failed_at, last_failed_at, state, state_at, message)
                 VALUES ('{age}_{state}', 'refused', 'x', 'f', 1, {at}, {at}, '{state}', {at}, 'no message')"
            ));
        }
    }
    for (id, state, settled_at) in [
        ("sent", "sent", "0"),
        ("new", "sent", "unixepoch() * 1000"),
        ("waits", "uncertain", "NULL"),
    ] {
        pipeline.sql(&format!(
            "INSERT INTO outbox (id, source, event_id, generation, rule, channel, content, state, due_at, created_at, settled_at)
             VALUES ('{id}', 's', '{id}', 0, 'r', 'email', '{{}}', '{state}', 0, 0, {settled_at})"
        ));
    }
    let pipeline = pipeline.after_a_minute();
    // The sweep may have run between these inserts, so one kind may disappear before the other.
    let left = |sql: &str, count: usize| {
        eventually("old rows are removed", || {
            let left = pipeline.sql(sql);
            (left.len() == count).then_some(left)
        })
    };
    let letters = left("SELECT id FROM dead_letters ORDER BY id", 4);
    assert_eq!(letters, [["new_applied"], ["new_dead"], ["new_discarded"], ["old_dead"]]);
    let emails = left("SELECT id FROM outbox WHERE source = 's' ORDER BY id", 2);
    assert_eq!(emails, [["new"], ["waits"]]);
}

#[test]
fn a_dead_letter_takes_effect_once_although_the_ledger_forgets() {
    let pipeline = Pipeline::start();
    pipeline.sql(
        "CREATE TRIGGER broken BEFORE INSERT ON tallies BEGIN SELECT RAISE(ABORT, 'out of order'); END",
    );
    let event = counted("evt_1", "a", 1);
    accepted(&pipeline, &event);
    eventually("it is a dead letter", || (dead_letters(&pipeline).len() == 1).then_some(()));
    pipeline.sql("DROP TRIGGER broken");
    // The provider sends it again.
    accepted(&pipeline, &event);
    eventually("it is applied", || (tally(&pipeline, "a") == [[1, 1]]).then_some(()));
    // If the platform gives up an event that has taken effect, that creates no letter either.
    let pipeline = pipeline.given_up_by_the_platform(&event);
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT state, reason FROM dead_letters"), [["applied", "refused"]]);

    // A letter that was written by hand, whose event is in the ledger.
    accepted(&pipeline, &stripe("test.unheard.of", "evt_2", 1, json!({})));
    pipeline.settle();
    pipeline.sql(
        "INSERT INTO dead_letters (id, source, event_id, generation, reason, error, fingerprint, attempts, first_failed_at, last_failed_at, message)
         VALUES ('own', 'stripe', 'evt_2', 0, 'refused', 'x', 'f', 1, 0, 0, 'm')",
    );
    // Decades ago, each at a time of its own.
    pipeline.sql("UPDATE event_kinds SET applied_at = applied_at - 1700000000000");
    let pipeline = pipeline.after_a_minute();
    let ledger = "SELECT id FROM events";
    eventually("the ledger forgets one", || (pipeline.sql(ledger) == [["evt_2"]]).then_some(()));

    pipeline.sql("DELETE FROM dead_letters WHERE id = 'own'");
    let operator = Operator::new(pipeline.admin(), "ines", "operate", |sql| {
        pipeline.sql(sql);
    });
    assert_eq!(operator.post("/replays", &json!({ "all": true })).json()["total"], 0);
    assert_eq!(value(&pipeline, "SELECT events FROM tallies"), 1);
}
