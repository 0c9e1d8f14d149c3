//! The presets turn each provider's events into rows, deletions into tombstones.

use hookmill_tests::event::{clerk, stripe};
use serde_json::{Value, json};

use super::super::platform::Pipeline;
use super::accepted;

#[test]
fn the_stripe_preset_writes_customers_subscriptions_and_invoices() {
    let pipeline = Pipeline::start();
    let customer = json!({
        "id": "cus_1", "email": "ines@acme.example", "name": "Inês", "delinquent": false, "balance": -50,
        "livemode": false, "metadata": { "tenant": "t1" }, "created": 90, "currency": "eur", "phone": null,
    });
    accepted(&pipeline, &stripe("customer.created", "evt_1", 100, customer));
    let subscription = json!({
        "id": "sub_1", "customer": "cus_1", "status": "active", "currency": "eur", "cancel_at_period_end": true,
        "items": { "data": [{ "price": { "id": "price_1" }, "quantity": 5, "current_period_end": 2000 }] },
        "created": 95,
    });
    accepted(&pipeline, &stripe("customer.subscription.created", "evt_2", 101, subscription));
    // Endpoints on API versions before 2025-03-31 have the period at the top.
    let older = json!({
        "id": "sub_2", "status": "trialing", "current_period_end": 3000,
        "items": { "data": [{ "price": { "id": "price_1" }, "quantity": 1 }] },
    });
    accepted(&pipeline, &stripe("customer.subscription.created", "evt_3", 102, older));
    let invoice = json!({
        "id": "in_1", "customer": "cus_1", "status": "paid", "amount_due": 4900, "amount_paid": 4900,
        "parent": { "subscription_details": { "subscription": "sub_1" } }, "number": "A-1",
    });
    accepted(&pipeline, &stripe("invoice.paid", "evt_4", 103, invoice));
    let ended =
        json!({ "id": "sub_2", "status": "canceled", "ended_at": 2500, "items": { "data": [] } });
    accepted(&pipeline, &stripe("customer.subscription.deleted", "evt_5", 104, ended));
    accepted(
        &pipeline,
        &stripe("invoice.deleted", "evt_6", 105, json!({ "id": "in_2", "status": "draft" })),
    );
    pipeline.settle();

    assert_eq!(
        pipeline.sql("SELECT id, email, name, delinquent, balance, metadata, _version, _deleted FROM customers"),
        [[
            json!("cus_1"),
            json!("ines@acme.example"),
            json!("Inês"),
            json!(0),
            json!(-50),
            json!("{\"tenant\":\"t1\"}"),
            // Microseconds.
            json!(100_000_000),
            json!(0)
        ]]
    );
    assert_eq!(
        pipeline.sql("SELECT id, status, price_id, quantity, current_period_end, cancel_at_period_end, ended_at, _deleted FROM subscriptions ORDER BY id"),
        [
            json!(["sub_1", "active", "price_1", 5, 2_000_000, 1, null, 0]).as_array().unwrap().clone(),
            json!(["sub_2", "canceled", null, null, null, null, 2_500_000, 1]).as_array().unwrap().clone(),
        ]
    );
    assert_eq!(
        pipeline.sql("SELECT id, subscription_id, status, amount_paid, number, _deleted FROM invoices ORDER BY id"),
        [
            json!(["in_1", "sub_1", "paid", 4900, "A-1", 0]).as_array().unwrap().clone(),
            json!(["in_2", null, null, null, null, 1]).as_array().unwrap().clone(),
        ]
    );
}

#[test]
fn the_payments_of_an_invoice_come_in_events_of_their_own() {
    let pipeline = Pipeline::start();
    // Since 2025-03-31 an invoice names no payment.
    let invoice =
        json!({ "id": "in_1", "customer": "cus_1", "status": "paid", "amount_paid": 4900 });
    accepted(&pipeline, &stripe("invoice.paid", "evt_1", 100, invoice));
    let payment = |id: &str, status: &str, paid: &Value| {
        json!({
            "id": id, "invoice": "in_1", "status": status, "amount_requested": 4900, "amount_paid": paid,
            "is_default": true, "payment": { "type": "payment_intent", "payment_intent": format!("pi_{id}") },
        })
    };
    accepted(
        &pipeline,
        &stripe("invoice_payment.paid", "evt_2", 100, payment("inpay_1", "paid", &json!(4900))),
    );
    // An older state of the same second, which arrives later.
    accepted(
        &pipeline,
        &stripe("invoice_payment.paid", "evt_3", 100, payment("inpay_1", "open", &Value::Null)),
    );
    accepted(
        &pipeline,
        &stripe("invoice_payment.paid", "evt_4", 99, payment("inpay_2", "canceled", &Value::Null)),
    );
    pipeline.settle();
    let paid = "SELECT invoice.id, payment.payment_intent_id, payment.status FROM live_invoices AS invoice \
        JOIN live_invoice_payments AS payment ON payment.invoice_id = invoice.id ORDER BY 2";
    assert_eq!(
        pipeline.sql(paid),
        [["in_1", "pi_inpay_1", "paid"], ["in_1", "pi_inpay_2", "canceled"]]
    );
}

#[test]
fn a_paused_subscription_can_be_told_from_one_that_pays() {
    let pipeline = Pipeline::start();
    let subscription = |id: &str, pause: &Value| json!({ "id": id, "status": "active", "items": { "data": [] }, "pause_collection": pause });
    let pauses = [
        ("sub_1", Value::Null),
        ("sub_2", json!({ "behavior": "void", "resumes_at": 2000 })),
        ("sub_3", json!({ "behavior": "keep_as_draft", "resumes_at": null })),
    ];
    for (id, pause) in &pauses {
        let event = stripe(
            "customer.subscription.updated",
            &format!("evt_{id}"),
            100,
            subscription(id, pause),
        );
        accepted(&pipeline, &event);
    }
    pipeline.settle();
    assert_eq!(
        pipeline.sql(
            "SELECT id, pause_collection ->> 'behavior', paused_until FROM live_subscriptions ORDER BY id"
        ),
        [
            [json!("sub_1"), Value::Null, Value::Null],
            [json!("sub_2"), json!("void"), json!(2_000_000)],
            [json!("sub_3"), json!("keep_as_draft"), Value::Null],
        ]
    );
    // It resumes.
    let resumed = subscription("sub_3", &Value::Null);
    accepted(&pipeline, &stripe("customer.subscription.updated", "evt_4", 101, resumed));
    pipeline.settle();
    let paying = "SELECT id FROM live_subscriptions WHERE pause_collection IS NULL ORDER BY id";
    assert_eq!(pipeline.sql(paying), [["sub_1"], ["sub_3"]]);
}

#[test]
fn the_views_show_what_is_live() {
    let pipeline = Pipeline::start();
    let method = |id: &str, customer: &str| json!({ "id": id, "customer": customer, "type": "card", "card": { "brand": "visa", "last4": "4242" } });
    let events = [
        ("customer.created", json!({ "id": "cus_1" })),
        ("customer.created", json!({ "id": "cus_2" })),
        ("payment_method.attached", method("pm_1", "cus_1")),
        ("payment_method.attached", method("pm_2", "cus_1")),
        ("payment_method.attached", method("pm_3", "cus_2")),
        ("product.created", json!({ "id": "prod_1", "name": "Team", "active": true })),
        ("product.created", json!({ "id": "prod_2", "name": "Old", "active": false })),
        (
            "price.created",
            json!({ "id": "price_1", "product": "prod_1", "unit_amount_decimal": "0.5" }),
        ),
    ];
    for (number, (kind, object)) in events.into_iter().enumerate() {
        accepted(&pipeline, &stripe(kind, &format!("evt_1{number}"), 100, object));
    }
    pipeline.settle();
    let live = || {
        let ids = |view: &str| {
            let rows = pipeline.sql(&format!("SELECT id FROM live_{view} ORDER BY id"));
            rows.into_iter().flatten().collect::<Vec<_>>()
        };
        ["customers", "payment_methods", "products", "prices"].map(ids)
    };
    assert_eq!(
        json!(live()),
        json!([["cus_1", "cus_2"], ["pm_1", "pm_2", "pm_3"], ["prod_1", "prod_2"], ["price_1"]])
    );
    // The customer takes the other payment method along. What ends does not return.
    let ends = [
        ("payment_method.detached", "evt_21", json!({ "id": "pm_1", "customer": null })),
        ("customer.deleted", "evt_22", json!({ "id": "cus_1", "deleted": true })),
        ("product.deleted", "evt_23", json!({ "id": "prod_2", "name": "Old" })),
        ("payment_method.updated", "evt_24", method("pm_1", "cus_2")),
    ];
    for (place, (kind, id, object)) in ends.into_iter().enumerate() {
        let at = 101 + i64::try_from(place).unwrap();
        accepted(&pipeline, &stripe(kind, id, at, object));
    }
    pipeline.settle();
    assert_eq!(json!(live()), json!([["cus_2"], ["pm_3"], ["prod_1"], ["price_1"]]));
    assert_eq!(pipeline.sql("SELECT unit_amount_decimal FROM live_prices"), [["0.5"]]);
    assert_eq!(
        pipeline.sql("SELECT name, _deleted FROM products WHERE id = 'prod_2'"),
        [[json!("Old"), json!(1)]]
    );
}

#[test]
fn the_clerk_preset_writes_users_with_their_primary_address() {
    let pipeline = Pipeline::start();
    let user = |id: &str| {
        json!({
            "id": id, "first_name": "Inês", "last_name": "Almeida", "banned": false, "updated_at": 100,
            "email_addresses": [
                { "id": "idn_1", "email_address": "old@acme.example" },
                { "id": "idn_2", "email_address": "new@acme.example" },
            ],
            "primary_email_address_id": "idn_2",
            "public_metadata": { "role": "owner" },
        })
    };
    accepted(&pipeline, &clerk("user.created", "msg_1", 100, user("user_1")));
    accepted(&pipeline, &clerk("user.created", "msg_2", 100, user("user_2")));
    let gone = json!({ "id": "user_2", "object": "user", "deleted": true });
    accepted(&pipeline, &clerk("user.deleted", "msg_3", 101, gone));
    pipeline.settle();
    assert_eq!(
        pipeline.sql(
            "SELECT id, email, first_name, banned, public_metadata, _deleted FROM users ORDER BY id"
        ),
        [
            json!(["user_1", "new@acme.example", "Inês", 0, "{\"role\":\"owner\"}", 0])
                .as_array()
                .unwrap()
                .clone(),
            json!(["user_2", null, null, null, null, 1]).as_array().unwrap().clone(),
        ]
    );
}
