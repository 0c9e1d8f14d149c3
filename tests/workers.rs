//! The contract, against the three Workers in workerd.

use std::time::Duration;

use hookmill_tests::api::Api;
use hookmill_tests::event::{now, stripe};
use hookmill_tests::http::{exchange_parts, request};
use hookmill_tests::workers as platform;
use hookmill_tests::{Fault, Operator, eventually};
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
    let memory = pipeline.wasm_memory_after(&messages, 1);
    assert_eq!(pipeline.sql("SELECT count(*) FROM customers"), [[100]]);
    assert!(memory < 40_000_000, "{memory} bytes");
    // Two invocations may share an isolate.
    pipeline.sql("DELETE FROM customers");
    pipeline.sql("DELETE FROM row_guards");
    pipeline.sql("DELETE FROM events");
    pipeline.wasm_memory_after(&messages, 2);
    assert_eq!(pipeline.sql("SELECT count(*) FROM customers"), [[100]]);
}

#[test]
fn ingress_holds_bodies_of_a_limited_size_in_total() {
    let pipeline = platform::Pipeline::start();
    // None of them is signed, and all arrive at the same time, without their last byte.
    let value = format!("t={},v1={}", now().seconds(), "00".repeat(32));
    let headers = [("Stripe-Signature".to_owned(), value)];
    let whole = request("POST", "/webhooks/stripe", &headers, &vec![b' '; 1_000_000]);
    let (first, last) = whole.split_at(whole.len() - 1);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let post = || {
            let parts = exchange_parts(pipeline.address(), &[first, last], Duration::from_secs(1));
            parts.map_or(0, |response| response.status)
        };
        let posts: Vec<_> = (0..100).map(|_| scope.spawn(post)).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    assert!(statuses.contains(&503), "{statuses:?}");
    assert!(statuses.iter().all(|status| [401, 408, 503].contains(status)), "{statuses:?}");
    let event = stripe("customer.created", "evt_1", 1_767_225_600, json!({ "id": "cus_1" }));
    assert_eq!(pipeline.post(&event).status, 200);
}

#[test]
fn the_largest_answers_of_the_admin_api_fit_into_the_memory_of_an_isolate() {
    let pipeline = platform::Pipeline::start();
    let object = json!({ "id": "cus_1", "metadata": { "text": "x".repeat(1_040_000) } });
    let event = stripe("customer.created", "evt_1", 1_767_225_600, object);
    assert_eq!(pipeline.post(&event).status, 200);
    pipeline.settle();
    pipeline.sql(
        "INSERT INTO dead_letters (id, source, event_id, generation, type, reason, error, fingerprint, attempts, first_failed_at, last_failed_at, message)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
         SELECT i, 'stripe', 'evt_' || i, 0, 'type', 'refused', hex(randomblob(500)), i, 1, i, i, hex(randomblob(60000)) FROM n",
    );
    let operator = Operator::new(pipeline.admin(), "ines", "read", |sql| {
        pipeline.sql(sql);
    });
    std::thread::scope(|scope| {
        for (path, bytes) in [
            ("/events/stripe/evt_1/body", 1_000_000),
            ("/dead-letters?limit=500", 500_000),
            ("/dead-letters/groups", 200_000),
            ("/events?limit=500", 50_000),
        ] {
            for _ in 0..4 {
                let operator = &operator;
                scope.spawn(move || {
                    let answer = operator.get(path);
                    assert_eq!(answer.status, 200, "{path}");
                    assert!(answer.body.len() > bytes, "{path}: {} bytes", answer.body.len());
                });
            }
        }
    });
}

// A native clock cannot be set. The alert is repeated every quarter of an hour, whatever came before.
#[test]
fn an_outage_of_d1_is_told_without_it() {
    let api = Api::start();
    let pipeline = platform::Pipeline::with_api(&api);
    pipeline.quarterly();
    let _away = pipeline.broken(Fault::Store);
    let told = eventually("the webhook arrives", || {
        api.requests().into_iter().find(|request| request.path == "/alerts")
    });
    assert_eq!(told.body["data"]["alert"], "outage");
    let message = told.body["data"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("the store is unavailable: "), "{message}");
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

/// The rows that docs/cost.md states. Natively, rows are not billed.
#[test]
fn an_event_costs_the_rows_that_the_documentation_states() {
    let api = Api::start();
    let pipeline = platform::Pipeline::with_api_and_no_cron(&api);
    let customer = |n: usize| {
        let object = json!({ "id": format!("cus_{n}"), "object": "customer" });
        stripe("customer.created", &format!("evt_{n}"), 1_767_225_600, object).message()
    };
    let subscription = |n: usize| {
        let id = format!("sub_{n}");
        let items = json!({ "object": "list", "has_more": false, "data": [{ "id": format!("si_{n}"), "subscription": &id }] });
        let object =
            json!({ "id": id, "object": "subscription", "status": "active", "items": items });
        let kind = "customer.subscription.created";
        stripe(kind, &format!("evt_sub_{n}"), 1_767_225_600, object).message()
    };
    let unmatched =
        |n: usize| stripe("test.unheard.of", &format!("evt_none_{n}"), 1, json!({})).message();
    let mailed = |n: usize| {
        let object = json!({ "to": format!("{n}@example.com"), "name": "n" });
        stripe("test.mailed", &format!("evt_mail_{n}"), 1, object).message()
    };
    // The rows of a full batch, and of one event alone. An isolate writes its counts with its first batch, then once a minute.
    let written = |messages: &[String], trips: u64| {
        pipeline.deliver(messages);
        let cost = pipeline.cost();
        assert!((trips..=trips + 1).contains(&cost.trips), "{cost:?}");
        cost.written
    };
    let hundred = |event: &dyn Fn(usize) -> String| (0..100).map(event).collect::<Vec<_>>();
    let customers = hundred(&customer);
    // Each event has a row in the ledger, its message and its own rows; a batch has its kind and its minute.
    let few = |rows: u64| rows..=rows + 6;
    for (what, rows, batch) in [
        ("customers", 300, &customers),
        ("subscriptions with an item", 500, &hundred(&subscription)),
        ("events that no rule matches", 200, &hundred(&unmatched)),
    ] {
        let found = written(batch, 1);
        assert!(few(rows).contains(&found), "{what}: {found} rows in a full batch");
    }
    assert_eq!(written(&customers, 1), 0, "the same events again");
    assert!(few(3).contains(&written(&[customer(1000)], 1)), "one event alone");

    let found = written(&hundred(&mailed), 1);
    assert!(few(800).contains(&found), "emails: {found} rows in a full batch");
    eventually("the emails are sent", || {
        (pipeline.sql("SELECT count(*) FROM outbox WHERE state = 'sent'") == [[100]]).then_some(())
    });
    let found = pipeline.cost().written;
    assert!((400..=420).contains(&found), "sending the emails: {found} rows");
}

// Natively, a round trip is a transaction on the same machine.
#[test]
fn an_idle_minute_costs_few_round_trips() {
    let api = Api::start();
    let pipeline = platform::Pipeline::with_api_and_no_cron(&api);
    // The first minute has a sweep; the next one is due in five minutes.
    pipeline.consumer_minute();
    pipeline.cost();
    // Alerts, one for all APIs, and one for all channels.
    for _ in 0..2 {
        pipeline.consumer_minute();
        let cost = pipeline.cost();
        assert_eq!((cost.trips, cost.written), (3, 0), "{cost:?}");
    }
    // Replays, retention, bodies without messages, and metrics. At first, the search for bodies writes when it comes next.
    let pipeline = pipeline.after_a_minute();
    let first = pipeline.cost();
    assert_eq!((first.trips, first.written), (5, 1), "{first:?}");
    let pipeline = pipeline.after_a_minute();
    let cost = pipeline.cost();
    assert_eq!((cost.trips, cost.written), (4, 0), "{cost:?}");
}
