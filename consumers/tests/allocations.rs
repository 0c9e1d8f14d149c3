//! Allocations while planning: few, and none for values that no rule reads.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

#[path = "support/stripe.rs"]
mod stripe;

use allocation_counter::{AllocationInfo, measure};
use hookmill_config::Consumers;
use hookmill_core::time::Timestamp;
use serde_json::{Value, json};

fn planning(config: &Consumers, bodies: &[String]) -> AllocationInfo {
    let batch: Vec<_> = bodies.iter().map(|body| stripe::delivery(body)).collect();
    let now = Timestamp::from_millis(1_767_225_601_000);
    assert!(!hookmill_consumers::plan(config, &batch, now).is_empty());
    measure(|| drop(hookmill_consumers::plan(config, &batch, now)))
}

/// The body of an event about an object.
fn event(kind: &str, object: &Value) -> String {
    let data = json!({ "object": object });
    json!({ "id": "evt_1", "type": kind, "created": 1_767_225_600, "data": data }).to_string()
}

/// The plan needs 29, with the items of subscriptions and the lines of invoices. `serde_json::Value` needs 222 for these bodies.
#[test]
fn an_event_is_planned_with_few_allocations() {
    let allocations = planning(&stripe::config(""), &stripe::bodies(100)).count_total;
    assert!(allocations <= 100 * 32, "{allocations} for 100 events");
}

#[test]
fn values_that_no_rule_reads_are_not_allocated() {
    let config = stripe::config("");
    for body in stripe::bodies(100) {
        // Members beside the object, in it, and in the elements of its lists.
        let with = |count: usize| {
            let unread = json!({ "text \\ \"": ["many \\ \"words\"".repeat(10), 1.5, null] });
            let unread = Value::Array(vec![unread; count]);
            let mut event: Value = serde_json::from_str(&body).unwrap();
            event["unread"] = unread.clone();
            let object = &mut event["data"]["object"];
            object["unread"] = unread.clone();
            for list in ["items", "lines", "refunds"] {
                let elements = object.pointer_mut(&format!("/{list}/data"));
                for element in elements.and_then(Value::as_array_mut).into_iter().flatten() {
                    element["unread"] = unread.clone();
                }
            }
            event.to_string()
        };
        let (short, long) = (with(10), with(100));
        assert!(long.len() > 5 * short.len());
        assert_eq!(planning(&config, &[short]), planning(&config, &[long]), "{body}");
    }
}

/// A body's values are in one allocation, so a second read would add one.
#[test]
fn a_body_is_read_once_for_all_rules() {
    let bodies = stripe::bodies(1);
    let rule = |number: usize| {
        format!(
            "[[rules]]\nname = 'never-{number}'\non = 'stripe:*'\nwhen = {{ livemode = {number} }}\n\
             suppress = {{ address = 'data.object.email', reason = 'never' }}\n"
        )
    };
    let with = |rules: usize| {
        planning(&stripe::config(&(2..2 + rules).map(rule).collect::<String>()), &bodies)
    };
    assert_eq!(with(10).count_total, with(0).count_total);
}

/// A body below a megabyte that would become 15 GB of rows: each of 30,000 elements repeats a value of 500 KB.
#[test]
fn planning_never_uses_more_memory_than_one_event_may_write() {
    let list = r#"
[[rules]]
name = "stripe-subscription-items"
on = ["stripe:customer.subscription.*"]
each = "data.object.items.data"
more = "data.object.items.has_more"
table = "subscription_items"
key = { subscription_id = "data.object.id", id = "@.id" }
version = "created"
set = { metadata = "data.object.metadata" }
"#;
    let counter = r#"
[[rules]]
name = "counter"
on = ["stripe:customer.subscription.*"]
each = "data.object.items.data"
table = "paddle_subscription_items"
key = { subscription_id = "data.object.metadata", price_id = "@.id" }
add = { quantity = 1 }
"#;
    let items = (0..30_000).map(|i| json!({ "id": i })).collect::<Vec<_>>();
    let body = event(
        "customer.subscription.updated",
        &json!({ "id": "sub_1", "metadata": "m".repeat(500_000), "items": { "data": items } }),
    );
    let batch = [stripe::delivery(&body)];
    let now = Timestamp::from_millis(1_767_225_601_000);
    for rule in [list, counter] {
        let config = stripe::config(rule);
        let held = measure(|| assert!(hookmill_consumers::plan(&config, &batch, now).is_empty()));
        let limit = u64::try_from(config.limits.bytes_per_event).unwrap() + 4_000_000;
        assert!(held.bytes_max < limit, "{} bytes at once", held.bytes_max);
    }
}

/// A path that searches a list of the body goes through it once for the event, not once for each row.
#[test]
fn a_path_into_the_body_is_followed_once_for_all_rows_of_a_list() {
    let rule = r#"
[[rules]]
name = "stripe-subscription-items"
on = ["stripe:customer.subscription.*"]
each = "data.object.items.data"
more = "data.object.items.has_more"
table = "subscription_items"
key = { subscription_id = "data.object.id", id = "@.id" }
version = "created"
set = { metadata = "data.object.names[id = data.object.wanted].name" }
"#;
    let (items, names) = (200, 2_000);
    let body = event(
        "customer.subscription.updated",
        &json!({
            "id": "sub_1",
            "wanted": names - 1,
            "items": { "data": (0..items).map(|i| json!({ "id": i })).collect::<Vec<_>>() },
            "names": (0..names).map(|i| json!({ "id": i, "name": "n" })).collect::<Vec<_>>(),
        }),
    );
    let allocations = planning(&stripe::config(rule), &[body]).count_total;
    assert!(allocations < 10 * (items + names), "{allocations}");
}

/// These addresses would take a gigabyte if they were counted only after reading.
#[test]
fn a_list_of_addresses_is_counted_while_it_is_read() {
    let rule = r#"
[[rules]]
name = "unwanted"
on = ["stripe:customer.updated"]
suppress = { address = "data.object.addresses", reason = "complained" }
[limits]
bytes_per_event = "1MiB"
"#;
    let config = stripe::config(rule);
    let body =
        event("customer.updated", &json!({ "id": "cus_1", "addresses": vec!["a"; 1_000_000] }));
    let batch = [stripe::delivery(&body)];
    let now = Timestamp::from_millis(1_767_225_601_000);
    let held = measure(|| assert!(hookmill_consumers::plan(&config, &batch, now).is_empty()));
    assert!(held.bytes_max < 4_000_000, "{} bytes at once", held.bytes_max);
}
