//! The contract, against the three Workers in workerd.

use hookmill_tests::event::stripe;
use hookmill_tests::eventually;
use hookmill_tests::workers as platform;
use serde_json::json;

mod contract;

// Natively, the memory of the machine is the limit.
#[test]
fn a_hundred_large_events_take_a_part_of_the_memory_of_an_isolate() {
    let pipeline = platform::Pipeline::start();
    // The maximum size of a message; the preset keeps all of it.
    let event = |n: usize| {
        let metadata: serde_json::Map<_, _> =
            (0..1_500).map(|key| (format!("key_{key}"), json!("v".repeat(64)))).collect();
        let object =
            json!({ "id": format!("cus_{n}"), "object": "customer", "metadata": metadata });
        stripe("customer.created", &format!("evt_{n}"), 1_767_225_600, object).message()
    };
    let messages: Vec<_> = (0..100).map(event).collect();
    assert!(messages[0].len() > 110_000, "{}", messages[0].len());
    let memory = pipeline.wasm_memory_after(&messages);
    assert_eq!(pipeline.sql("SELECT count(*) FROM customers"), [[100]]);
    assert!(memory < 40_000_000, "{memory} bytes");
}

// A native queue contains texts only.
#[test]
fn a_message_that_is_neither_text_nor_bytes_is_buried_as_json() {
    let pipeline = platform::Pipeline::start();
    pipeline.enqueue_value(&json!({ "n": [1, "two"] }));
    eventually("it is buried", || pipeline.sql("SELECT 1 FROM dead_letters").first().map(drop));
    let letter = pipeline.sql("SELECT reason, message FROM dead_letters").remove(0);
    let message = "{\"unreadable\":\"not_text\",\"rest\":\"json\"}\n{\"n\":[1,\"two\"]}";
    assert_eq!(letter, [json!("unreadable"), json!(message)]);
    pipeline.settle();
}
