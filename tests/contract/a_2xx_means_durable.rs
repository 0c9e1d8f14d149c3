//! 2xx only after the queue confirmed every message of the request; queue trouble is 503 with Retry-After, never 4xx.

use hookmill_tests::Fault;

use super::super::platform::Pipeline;
use super::{accepted, counted, tally};

#[test]
fn a_2xx_means_durable() {
    let pipeline = Pipeline::start();
    let event = counted("evt_1", "a", 5);
    let queue_refuses = pipeline.broken(Fault::Queue);
    let refused = pipeline.post(&event);
    drop(queue_refuses);
    assert_eq!((refused.status, refused.reason().as_str()), (503, "queue_unavailable"));
    assert_eq!(refused.header("retry-after"), Some("10"));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));

    // The provider sends it again, as 503 asks it to.
    accepted(&pipeline, &event);
    pipeline.settle();
    assert_eq!(tally(&pipeline, "a"), [[1, 5]]);
}
