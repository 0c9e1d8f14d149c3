//! Features of rules that no other promise needs.

use hookmill_tests::api::{Api, Mood};
use hookmill_tests::event::{Event, signed, stripe};
use hookmill_tests::{eventually, fixtures};
use serde_json::{Value, json};

use super::super::platform::Pipeline;
use super::accepted;

/// Sends every fixture in reverse alphabetical order, which is not the order of events.
fn send_fixtures(pipeline: &Pipeline, provider: &'static str) {
    for (name, body) in fixtures(provider).into_iter().rev() {
        let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
        let id = parsed["id"].as_str().unwrap_or(&name).to_owned();
        if matches!(provider, "stripe" | "clerk") {
            accepted(pipeline, &Event { source: provider, id, body });
            continue;
        }
        let signed = signed(provider, "", &id, None, &body);
        let response = pipeline.send(&signed.headers, provider, &signed.body);
        assert_eq!(response.status, 200, "{name}: {}", response.body);
    }
}

fn row(value: Value) -> Vec<Value> {
    value.as_array().expect("a row is an array").clone()
}

#[test]
fn the_presets_mirror_their_providers_in_any_order() {
    let pipeline = Pipeline::start();
    for provider in ["stripe", "clerk", "paddle", "twilio"] {
        send_fixtures(&pipeline, provider);
    }
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT count(*) FROM dead_letters"), [[0]]);

    // An ended subscription has no items; the others have theirs, each with its period.
    assert_eq!(
        pipeline.sql(
            "SELECT status, _deleted FROM subscriptions WHERE id = 'sub_1owZzDHmFx4aBq2Nqex4qyMO'"
        ),
        [row(json!(["canceled", 1]))]
    );
    assert_eq!(
        pipeline.sql("SELECT count(*) FROM subscription_items WHERE subscription_id = 'sub_1owZzDHmFx4aBq2Nqex4qyMO'"),
        [[0]]
    );
    assert_eq!(
        pipeline.sql("SELECT count(*) FROM subscription_items AS item JOIN subscriptions AS whole ON whole.id = subscription_id WHERE item.current_period_end = whole.current_period_end"),
        [[2]]
    );
    // Invoices that were paid later are paid, lost ones are lost, failed ones have failed.
    assert_eq!(
        pipeline.sql(
            "SELECT payment_status FROM checkout_sessions WHERE client_reference_id = 'ord_1042'"
        ),
        [["paid"]]
    );
    assert_eq!(
        pipeline.sql("SELECT status FROM disputes WHERE id = 'du_1P4QgDHmFx4aBq2NHxjd80SW'"),
        [["lost"]]
    );
    assert_eq!(
        pipeline.sql("SELECT status FROM refunds ORDER BY status"),
        [["failed"], ["succeeded"], ["succeeded"]]
    );
    assert_eq!(
        pipeline.sql(
            "SELECT amount_refunded, refunded FROM charges WHERE id = 'ch_3F8LQTHmFx4aBq2NlrMtSnk8'"
        ),
        [[12000, 0]]
    );
    assert_eq!(
        pipeline.sql("SELECT status, amount_received FROM payment_intents WHERE id = 'pi_32JhfIHmFx4aBq2Nb8suEPiw'"),
        [row(json!(["succeeded", 12900]))]
    );
    // A list is that of the newest event, in the shape of each version of the API.
    assert_eq!(
        pipeline.sql("SELECT lookup_key FROM live_entitlements ORDER BY lookup_key"),
        [["audit-log"], ["priority-support"]]
    );
    assert_eq!(
        pipeline.sql("SELECT amount, price_id, subscription_item_id FROM live_invoice_lines WHERE invoice_id = 'in_1NwdEKHmFx4aBq2NWqHuN3W4'"),
        [row(json!([9800, "price_1LfofVHmFx4aBq2NQH9uwPuH", "si_ann5ZRmkp7vMTC"]))]
    );
    assert_eq!(
        pipeline.sql("SELECT amount, price_id, subscription_item_id FROM live_invoice_lines WHERE invoice_id = 'in_1h9QsHHmFx4aBq2NUjG2Utzw' ORDER BY amount"),
        [
            row(json!([24500, "price_1LfofVHmFx4aBq2NQH9uwPuH", "si_EUDNeLXCAdy8PU"])),
            row(json!([60000, "price_1tau1lHmFx4aBq2NsGtKDdYj", "si_fEH2tmgibQ1hIw"])),
        ]
    );
    // The lines of a deleted draft are gone.
    assert_eq!(
        pipeline.sql(
            "SELECT count(*) FROM invoice_lines WHERE invoice_id = 'in_1PKPSQHmFx4aBq2NgesH9OoO'"
        ),
        [[0]]
    );
    // A test event of a connected account, at a destination in live mode.
    assert_eq!(
        pipeline.sql("SELECT account FROM live_customers WHERE livemode = 0"),
        [["acct_1lfKsDHmFx4aBq2N"]]
    );

    assert_eq!(
        pipeline.sql("SELECT slug, _deleted FROM organizations ORDER BY _deleted"),
        [row(json!(["acme-lda", 0])), row(json!([null, 1]))]
    );
    assert_eq!(
        pipeline.sql("SELECT role, _deleted FROM organization_memberships ORDER BY _deleted"),
        [row(json!(["org:bookkeeper", 0])), row(json!(["org:bookkeeper", 1]))]
    );

    assert_eq!(
        pipeline.sql("SELECT status, quantity FROM paddle_subscriptions WHERE id = 'sub_01ke6sjx5resnzh18hrq2n5a3a'"),
        [row(json!(["canceled", 5]))]
    );
    assert_eq!(
        pipeline.sql("SELECT status, total, tax FROM paddle_transactions WHERE id = 'txn_01keegs25rxv8ysj97xcfzkbgb'"),
        [row(json!(["completed", 3321, 621]))]
    );
    assert_eq!(
        pipeline.sql(
            "SELECT status FROM twilio_messages WHERE sid = 'SM89e6406fbdf6d91c02b731df83002c5a'"
        ),
        [["delivered"]]
    );
    assert_eq!(
        pipeline
            .sql("SELECT num_media, opt_out_type FROM twilio_inbound_messages ORDER BY num_media"),
        [row(json!([0, "STOP"])), row(json!([1, null]))]
    );
}

#[test]
fn the_newest_event_determines_a_list_even_if_it_is_empty() {
    let pipeline = Pipeline::start();
    let subscription = |n: i64, items: &[(&str, i64)]| {
        let item = |(id, quantity): &(&str, i64)| json!({ "id": id, "quantity": quantity });
        let items = json!({ "data": items.iter().map(item).collect::<Vec<_>>() });
        let object = json!({ "id": "sub_1", "status": "active", "items": items });
        stripe("customer.subscription.updated", &format!("evt_{n}"), n, object)
    };
    let rows = "SELECT id, quantity FROM subscription_items ORDER BY id";
    accepted(&pipeline, &subscription(2, &[("si_1", 1), ("si_2", 2)]));
    pipeline.settle();
    assert_eq!(pipeline.sql(rows), [row(json!(["si_1", 1])), row(json!(["si_2", 2]))]);
    accepted(&pipeline, &subscription(4, &[]));
    pipeline.settle();
    assert!(pipeline.sql(rows).is_empty());
    // Older, so too late.
    accepted(&pipeline, &subscription(3, &[("si_1", 3)]));
    accepted(&pipeline, &subscription(1, &[("si_3", 1)]));
    pipeline.settle();
    assert!(pipeline.sql(rows).is_empty());
    accepted(&pipeline, &subscription(5, &[("si_2", 5)]));
    pipeline.settle();
    assert_eq!(pipeline.sql(rows), [row(json!(["si_2", 5]))]);
}

fn thing(kind: &str, n: i64, id: &str, plan: Option<&str>) -> Event {
    let object = json!({ "id": id, "price": format!("{n}.50"), "plan": plan });
    stripe(&format!("test.thing.{kind}"), &format!("evt_{n}_{id}"), n, object)
}

#[test]
fn rows_of_the_application_are_only_changed() {
    let pipeline = Pipeline::start();
    for (n, id, plan) in [
        (3, "thing_1", Some("pro")),
        (2, "thing_1", Some("free")),
        (4, "thing_1", None),
        (1, "thing_2", Some("team")),
        (1, "thing_3", Some("nobody's")),
    ] {
        accepted(&pipeline, &thing("updated", n, id, plan));
    }
    pipeline.settle();
    assert_eq!(
        pipeline.sql("SELECT name, plan, _version FROM accounts ORDER BY name"),
        [row(json!(["ada", "team", 1])), row(json!(["ines", "pro", 3]))]
    );
    // In one batch, about the row that the table finds for both keys.
    let batch = [("Thing_1", 6, "new"), ("thing_1", 5, "old")];
    let batch = batch.map(|(id, n, plan)| thing("updated", n, id, Some(plan)).message());
    let pipeline = pipeline.enqueued(&batch);
    pipeline.settle();
    assert_eq!(
        pipeline.sql("SELECT plan, _version FROM accounts WHERE name = 'ines'"),
        [row(json!(["new", 6]))]
    );
}

#[test]
fn an_older_event_does_not_restore_a_removed_row() {
    let pipeline = Pipeline::start();
    let rows = "SELECT kind, id, cents, at FROM removable";
    accepted(&pipeline, &thing("updated", 1, "thing_1", None));
    pipeline.settle();
    assert_eq!(pipeline.sql(rows), [row(json!(["thing", "thing_1", 150, 1000]))]);
    accepted(&pipeline, &thing("deleted", 3, "thing_1", None));
    pipeline.settle();
    assert!(pipeline.sql(rows).is_empty());
    accepted(&pipeline, &thing("updated", 2, "thing_1", None));
    // A deletion that arrives first.
    accepted(&pipeline, &thing("deleted", 3, "thing_2", None));
    accepted(&pipeline, &thing("updated", 2, "thing_2", None));
    pipeline.settle();
    assert!(pipeline.sql(rows).is_empty());
    accepted(&pipeline, &thing("updated", 4, "thing_1", None));
    pipeline.settle();
    assert_eq!(pipeline.sql(rows), [row(json!(["thing", "thing_1", 450, 4000]))]);
}

/// Sends events of [`spelled`](../hookmill.toml): each with a body and the header that the source keeps.
fn send_spelled(pipeline: &Pipeline, events: &[(&str, Option<&str>)]) {
    for (body, sent_at) in events {
        let mut headers = signed("bare", "", "", None, body.as_bytes()).headers;
        headers.extend(sent_at.map(|at| ("x-sent-at".to_owned(), at.to_owned())));
        let response = pipeline.send(&headers, "bare", body.as_bytes());
        assert_eq!(response.status, 200, "{body}: {}", response.body);
    }
    pipeline.settle();
}

#[test]
fn a_value_counts_and_not_its_spelling() {
    let pipeline = Pipeline::start();
    send_spelled(
        &pipeline,
        &[
            (
                r#"{"type":"spelled","id":"a","kind":"order","number":1.0e3,"total":"12.5","currency":"usd","large":98765432109876543210,"paid":1769900400,"at":"2026-01-05 10:00:00"}"#,
                None,
            ),
            // Half of an emoji, a number in quotes, and a currency without decimal places.
            (
                r#"{"type":"spelled","id":"b\ud83d","what":"refund","kind":"order","number":"8.13548e+8","total":1250,"currency":"JPY","large":"x","at":"Mon, 05 Jan 2026 10:00:00 +0000"}"#,
                Some("ignored, since the body has a time"),
            ),
            // Neither alternative of `when`.
            (r#"{"type":"spelled","id":"c","kind":"order","number":1001}"#, None),
            // The header has the version. The older event arrives last.
            (
                r#"{"type":"spelled","id":"d","kind":"refund","number":2}"#,
                Some("2026-01-05 10:00:02 -0500"),
            ),
            (
                r#"{"type":"spelled","id":"d","kind":"refund","number":1}"#,
                Some("2026-01-05 15:00:01 +0000"),
            ),
            // The clock skips this hour: it counts as 03:30.
            (r#"{"type":"spelled","id":"e","kind":"refund","at":"2026-03-08 02:30:00"}"#, None),
        ],
    );
    assert_eq!(pipeline.sql("SELECT error FROM dead_letters"), Vec::<Vec<Value>>::new());
    assert_eq!(
        pipeline
            .sql("SELECT id, number, cents, large, day, sent, _version FROM spelled ORDER BY id"),
        [
            row(json!([
                "a",
                1000,
                1250,
                "98765432109876543210",
                "2026-02-01",
                null,
                1_767_625_200_000_000_i64
            ])),
            row(json!([
                "b\u{fffd}",
                813_548_000,
                1250,
                "x",
                null,
                "ignored, since the body has a time",
                1_767_607_200_000_000_i64
            ])),
            row(json!([
                "d",
                2,
                null,
                null,
                null,
                "2026-01-05 10:00:02 -0500",
                1_767_625_202_000_000_i64
            ])),
            row(json!(["e", null, null, null, null, null, 1_772_955_000_000_000_i64])),
        ]
    );
    assert_eq!(
        pipeline
            .sql("SELECT whole ->> 'number', whole ->> 'large' FROM spelled WHERE id = 'a'")
            .len(),
        1
    );
}

/// A deletion that arrives first has another spelling of the key than the older event after it.
#[test]
fn the_spellings_of_a_number_are_one_key() {
    let pipeline = Pipeline::start();
    send_spelled(
        &pipeline,
        &[
            (r#"{"type":"keyed","number":"007","code":1.0,"at":3,"gone":true}"#, None),
            (r#"{"type":"keyed","number":7,"code":1,"at":2}"#, None),
            (r#"{"type":"keyed","number":8e0,"code":"1","at":2,"large":9007199254740993.0}"#, None),
            (r#"{"type":"keyed","number":"8","code":1e0,"at":1}"#, None),
        ],
    );
    // JavaScript, through which D1 answers, would round the large number.
    let rows = "SELECT number, code, ratio, CAST(large AS TEXT) FROM keyed ORDER BY number";
    assert_eq!(pipeline.sql(rows), [row(json!([8, "1", null, "9007199254740993"]))]);
    send_spelled(
        &pipeline,
        &[(
            r#"{"type":"keyed","number":7.0,"code":"1","at":4,"ratio":0.12345678901234567891}"#,
            None,
        )],
    );
    assert_eq!(
        pipeline.sql(rows),
        [
            row(json!([7, "1", "0.12345678901234567891", null])),
            row(json!([8, "1", null, "9007199254740993"])),
        ]
    );
    // The owner of a list, and a number in a column of texts.
    send_spelled(
        &pipeline,
        &[
            (r#"{"type":"keyed_list","owner":"007","at":2,"gone":true}"#, None),
            (r#"{"type":"keyed_list","owner":7,"at":1,"items":[{"id":1}]}"#, None),
            (
                r#"{"type":"keyed_list","owner":"8","at":1,"items":[{"id":1e0,"ratio":1e2},{"id":"2","ratio":100},{"id":3,"ratio":599820.90399161}]}"#,
                None,
            ),
        ],
    );
    assert_eq!(
        pipeline.sql("SELECT owner, id, ratio FROM keyed_items ORDER BY id"),
        [
            row(json!([8, 1, "100"])),
            row(json!([8, 2, "100"])),
            row(json!([8, 3, "599820.90399161"])),
        ]
    );
    assert_eq!(pipeline.sql("SELECT error FROM dead_letters"), Vec::<Vec<Value>>::new());
}

#[test]
fn a_value_that_cannot_be_exact_is_a_dead_letter_with_the_reason() {
    let pipeline = Pipeline::start();
    send_spelled(
        &pipeline,
        &[
            (
                r#"{"type":"spelled","id":"e","kind":"refund","number":0.5,"at":"2026-01-05 10:00:00"}"#,
                None,
            ),
            (
                r#"{"type":"spelled","id":"f","kind":"refund","total":1,"at":"2026-01-05 10:00:00"}"#,
                None,
            ),
            (r#"{"type":"spelled","id":"g","kind":"refund","at":"05.01.2026"}"#, None),
            (r#"{"type":"spelled","id":"h","kind":"refund"}"#, None),
        ],
    );
    assert!(pipeline.sql("SELECT id FROM spelled").is_empty());
    assert_eq!(
        pipeline.sql("SELECT error FROM dead_letters ORDER BY error"),
        [
            ["rule `spelled`: the value at `at` is not a valid time in its `format`"],
            ["rule `spelled`: the value at `number` is not a valid whole number"],
            [
                "rule `spelled`: the value at `total` is not a valid amount, since its currency is missing"
            ],
            ["rule `spelled`: the version is missing: no value at `at` or `header:x-sent-at`"],
        ]
    );
}

#[test]
fn an_empty_field_of_a_form_is_no_value() {
    let pipeline = Pipeline::start();
    let body = b"SmsSid=SM1&SmsStatus=delivered&MessageStatus=delivered&To=%2B15550100001&From=%2B15550100002&MessageSid=SM1&AccountSid=AC1&ApiVersion=2010-04-01&ErrorCode=&ErrorMessage=";
    let signed = signed("twilio", "", "SM1", None, body);
    assert_eq!(pipeline.send(&signed.headers, "twilio", &signed.body).status, 200);
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT error FROM dead_letters"), Vec::<Vec<Value>>::new());
    assert_eq!(
        pipeline.sql("SELECT status, error_code FROM twilio_messages WHERE sid = 'SM1'"),
        [row(json!(["delivered", null]))]
    );
}

#[test]
fn a_handler_computes_values_that_rules_cannot() {
    let pipeline = Pipeline::start();
    let invoice = |n: i64, amount: i64| {
        // Two months from the first of January 2026.
        let period = json!({ "start": 1_767_225_600, "end": 1_772_323_200 });
        let lines = json!({ "data": [{ "amount": amount, "period": period }] });
        let object = json!({ "id": format!("in_{n}"), "currency": "eur", "lines": lines });
        stripe("test.invoiced", &format!("evt_{n}"), n, object)
    };
    for (n, amount) in [(1, 201), (2, 1000), (1, 201)] {
        accepted(&pipeline, &invoice(n, amount));
    }
    // An event that the handler cannot read is a dead letter with the reason.
    accepted(&pipeline, &stripe("test.invoiced", "evt_3", 3, json!({ "id": "in_3" })));
    pipeline.settle();
    assert_eq!(
        pipeline.sql("SELECT month, currency, amount FROM revenue ORDER BY month"),
        [row(json!(["2026-01", "eur", 601])), row(json!(["2026-02", "eur", 600]))]
    );
    assert_eq!(
        pipeline.sql("SELECT event_id, error FROM dead_letters"),
        [row(json!([
            "evt_3",
            "rule `revenue`: handler `stripe-revenue`: not an invoice (line 1)"
        ]))]
    );
}

#[test]
fn an_object_is_fetched_if_nothing_else_decides() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    let customer = |n: i64, created: i64, name: &str| {
        let object = json!({ "id": "cus_1", "name": name });
        stripe("customer.updated", &format!("evt_{n}"), created, object).to("billing")
    };
    accepted(&pipeline, &customer(1, 100, "older"));
    accepted(&pipeline, &customer(3, 200, "this"));
    pipeline.settle();
    let rows = "SELECT name, livemode, _version FROM asked";
    assert_eq!(pipeline.sql(rows), [row(json!(["this", 0, 200]))]);
    // The API is busy at first.
    api.moods([Mood::Busy]);
    accepted(&pipeline, &customer(2, 200, "or that"));
    let asked = eventually("the object has been fetched", || {
        let rows = pipeline.sql(rows);
        (rows[0][0] == "as it is now").then_some(rows)
    });
    // Values outside the object come from the event.
    assert_eq!(asked, [row(json!(["as it is now", 0, 200]))]);
    assert!(pipeline.sql("SELECT path FROM refetches").is_empty());
    let paths: Vec<_> = api.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/stripe/v1/customers/cus_1"; 2]);
    // A newer event is newer than the answer.
    accepted(&pipeline, &customer(4, 201, "newer"));
    pipeline.settle();
    assert_eq!(pipeline.sql(rows), [row(json!(["newer", 0, 201]))]);
}
