//! Ingress verifies and enqueues, and writes nothing else; deduplication belongs to the transaction that applies.

use hookmill_tests::Fault;

use super::super::platform::Pipeline;
use super::{accepted, counted, tally, value};

#[test]
fn nothing_is_marked_at_ingress() {
    let pipeline = Pipeline::start();
    let event = counted("evt_1", "a", 5);
    // An event that was rejected, or accepted and not applied yet, is in no table, so nothing could block a later one.
    let queue_refuses = pipeline.broken(Fault::Queue);
    assert_eq!(pipeline.post(&event).status, 503);
    drop(queue_refuses);
    assert_eq!(value(&pipeline, "SELECT count(*) FROM events"), 0);

    // So the same event is accepted every time.
    for _ in 0..3 {
        accepted(&pipeline, &event);
    }
    pipeline.settle();
    assert_eq!(tally(&pipeline, "a"), [[1, 5]]);
}
