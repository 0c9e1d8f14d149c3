//! The contract, against the three Workers in workerd.

use hookmill_tests::eventually;
use hookmill_tests::workers as platform;
use serde_json::json;

mod contract;

// A native queue holds texts.
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
