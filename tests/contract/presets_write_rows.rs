//! The presets turn each provider's events into rows, deletions into tombstones.

use hookmill_tests::event::{clerk, stripe};
use serde_json::json;

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
