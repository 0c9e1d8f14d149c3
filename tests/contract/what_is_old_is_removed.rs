//! What is done with is removed by age; what waits for somebody is not, however old.

use hookmill_tests::eventually;

use crate::platform::Pipeline;

#[test]
fn what_is_old_is_removed_and_what_waits_for_somebody_is_not() {
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
        ("waits", "in_doubt", "NULL"),
    ] {
        pipeline.sql(&format!(
            "INSERT INTO outbox (id, source, event_id, generation, rule, channel, content, state, due_at, created_at, settled_at)
             VALUES ('{id}', 's', '{id}', 0, 'r', 'email', '{{}}', '{state}', 0, 0, {settled_at})"
        ));
    }
    let pipeline = pipeline.after_a_minute();
    let letters = "SELECT id FROM dead_letters ORDER BY id";
    let left = eventually("the old are removed", || {
        let left = pipeline.sql(letters);
        (left.len() == 4).then_some(left)
    });
    assert_eq!(left, [["new_applied"], ["new_dead"], ["new_discarded"], ["old_dead"]]);
    assert_eq!(
        pipeline.sql("SELECT id FROM outbox WHERE source = 's' ORDER BY id"),
        [["new"], ["waits"]]
    );
}
