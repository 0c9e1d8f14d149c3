//! Every write is guarded by the event's version; any permutation with any duplicates ends in the same tables.

use hookmill_tests::event::{Event, clerk, stripe};
use serde_json::{Value, json};

use super::super::platform::Pipeline;

/// Every order of four steps.
fn permutations() -> Vec<[usize; 4]> {
    let mut all = Vec::new();
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            for c in (0..4).filter(|c| ![a, b].contains(c)) {
                all.push([a, b, c, 6 - a - b - c]);
            }
        }
    }
    assert_eq!(all.len(), 24);
    all
}

/// Sends four events about an entity in each order, with a separate entity for each order, and each event again directly
/// after the next one; then compares the rows.
fn same_rows_in_every_order(
    table: &str,
    columns: &str,
    expected: &Value,
    events: impl Fn(&str) -> [Event; 4],
) {
    let pipeline = Pipeline::start();
    let orders = permutations();
    let entity = |number: usize| format!("entity_{number:02}");
    for step in 0..=4_usize {
        for (number, order) in orders.iter().enumerate() {
            let events = events(&entity(number));
            // A duplicate of the previous step, and this step's event; between steps, all orders have settled.
            for event in [step.checked_sub(1).map(|s| order[s]), order.get(step).copied()]
                .into_iter()
                .flatten()
            {
                let response = pipeline.post(&events[event]);
                assert_eq!(response.status, 200, "{}", response.body);
            }
        }
        pipeline.settle();
    }
    let rows = pipeline.sql(&format!("SELECT id, {columns} FROM {table} ORDER BY id"));
    assert_eq!(rows.len(), orders.len());
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row[0], entity(number));
        assert_eq!(Value::from(row[1..].to_vec()), *expected, "order {:?}", orders[number]);
    }
}

#[test]
fn order_of_arrival_does_not_matter() {
    // Two events share the second of their creation: the status decides, by its order in the preset.
    same_rows_in_every_order(
        "subscriptions",
        "status, quantity, _deleted",
        &json!(["past_due", 4, 0]),
        |entity| {
            let subscription = |n: i64, created: i64, status: &str| {
                let kind = if n == 1 {
                    "customer.subscription.created"
                } else {
                    "customer.subscription.updated"
                };
                let item = json!({ "quantity": n, "price": { "id": "price_1" } });
                stripe(
                    kind,
                    &format!("evt_{n}_{entity}"),
                    created,
                    json!({ "id": entity, "status": status, "items": { "data": [item] } }),
                )
            };
            [
                subscription(1, 100, "incomplete"),
                subscription(2, 100, "active"),
                subscription(3, 200, "active"),
                subscription(4, 200, "past_due"),
            ]
        },
    );
}

#[test]
fn order_of_arrival_does_not_matter_if_only_the_id_decides() {
    same_rows_in_every_order("guarded", "number, text", &json!([4, "evt_4"]), |entity| {
        [1, 2, 3, 4].map(|n| {
            let object = json!({ "id": entity, "number": n, "text": format!("evt_{n}") });
            stripe("test.guarded", &format!("evt_{n}_{entity}"), 100, object)
        })
    });
}

#[test]
fn order_of_arrival_does_not_matter_to_a_deletion() {
    // The deletion happened in the same second as an update, and wins. It also removes the customer's data.
    same_rows_in_every_order("customers", "email, _deleted", &json!([null, 1]), |entity| {
        let customer = |kind: &str, n: i64, created: i64| {
            let object = json!({ "id": entity, "email": format!("{n}@example.com") });
            stripe(kind, &format!("evt_{n}_{entity}"), created, object)
        };
        [
            customer("customer.created", 1, 100),
            customer("customer.updated", 2, 100),
            customer("customer.updated", 9, 200),
            customer("customer.deleted", 3, 200),
        ]
    });
}

#[test]
fn order_of_arrival_does_not_matter_to_a_user() {
    same_rows_in_every_order(
        "users",
        "email, first_name, _deleted",
        &json!(["b@x", "Four", 0]),
        |entity| {
            let user = |kind: &str, n: i64, updated_at: i64, name: &str| {
                let addresses = json!([
                    { "id": "idn_a", "email_address": "a@x" },
                    { "id": "idn_b", "email_address": "b@x" },
                ]);
                let data = json!({
                    "id": entity,
                    "email_addresses": addresses,
                    "primary_email_address_id": "idn_b",
                    "first_name": name,
                    "updated_at": updated_at,
                });
                clerk(kind, &format!("msg_{n}_{entity}"), updated_at, data)
            };
            [
                // The creation has the greater id, and still comes before an update of the same millisecond.
                user("user.created", 9, 100, "One"),
                user("user.updated", 2, 100, "Two"),
                user("user.updated", 3, 150, "Three"),
                user("user.updated", 4, 200, "Four"),
            ]
        },
    );
}

/// A subscription with one item.
fn subscription(
    kind: &str,
    n: i64,
    (entity, created): (&str, i64),
    (status, quantity): (&str, i64),
) -> Event {
    let item = json!({ "id": "si_1", "quantity": quantity, "price": { "id": "price_1" } });
    let object = json!({ "id": entity, "status": status, "items": { "data": [item] } });
    stripe(&format!("customer.subscription.{kind}"), &format!("evt_{n}_{entity}"), created, object)
}

#[test]
fn order_of_arrival_does_not_matter_to_a_creation_and_a_change_in_one_second() {
    // The creation has the greater id. The row and its items show the same event.
    let items =
        "(SELECT quantity FROM subscription_items WHERE subscription_id = subscriptions.id)";
    same_rows_in_every_order(
        "subscriptions",
        &format!("status, quantity, {items}"),
        &json!(["active", 3, 3]),
        |entity| {
            let at = (entity, 100);
            [
                subscription("created", 9, at, ("active", 1)),
                subscription("updated", 1, at, ("incomplete", 5)),
                subscription("updated", 2, at, ("active", 2)),
                subscription("updated", 3, at, ("active", 3)),
            ]
        },
    );
}

#[test]
fn order_of_arrival_does_not_matter_to_a_subscription_that_changes_after_its_end() {
    let items =
        "(SELECT count(*) FROM subscription_items WHERE subscription_id = subscriptions.id)";
    same_rows_in_every_order(
        "subscriptions",
        &format!("status, quantity, _deleted, {items}"),
        &json!(["canceled", 4, 1, 0]),
        |entity| {
            [
                subscription("created", 1, (entity, 100), ("active", 1)),
                subscription("updated", 2, (entity, 400), ("active", 2)),
                subscription("deleted", 3, (entity, 200), ("canceled", 3)),
                // Its reason, or its metadata.
                subscription("updated", 4, (entity, 300), ("canceled", 4)),
            ]
        },
    );
}

#[test]
fn order_of_arrival_does_not_matter_to_the_attempt_to_collect_an_invoice() {
    // The finalization has the greater id, and the same status and second.
    same_rows_in_every_order("invoices", "status, attempt_count", &json!(["open", 1]), |entity| {
        let invoice = |kind: &str, n: i64, status: &str, attempts: i64| {
            let object = json!({ "id": entity, "status": status, "attempt_count": attempts });
            stripe(&format!("invoice.{kind}"), &format!("evt_{n}_{entity}"), 100, object)
        };
        [
            invoice("created", 9, "draft", 0),
            invoice("finalized", 8, "open", 0),
            invoice("updated", 7, "open", 0),
            invoice("payment_failed", 1, "open", 1),
        ]
    });
}

#[test]
fn order_of_arrival_does_not_matter_to_a_deletion_without_a_version() {
    // Nothing is newer than a deletion that says nothing but the id.
    same_rows_in_every_order("dated", "note, _deleted", &json!([null, 1]), |entity| {
        let dated = |kind: &str, n: i64, object: Value| {
            stripe(&format!("test.dated.{kind}"), &format!("evt_{n}_{entity}"), 100, object)
        };
        let at = |time: &str| json!({ "id": entity, "at": time, "note": "strong" });
        [
            dated("created", 1, at("2025-01-01T00:00:00Z")),
            dated("updated", 2, at("2025-01-01T00:00:01.5+02:00")),
            dated("updated", 3, at("2025-01-02T00:00:00Z")),
            dated("deleted", 0, json!({ "id": entity })),
        ]
    });
}

#[test]
fn order_of_arrival_does_not_matter_to_ties_in_several_steps() {
    // The type decides, then the value, and only then the id.
    same_rows_in_every_order(
        "dated",
        "note, _event_id LIKE 'evt_3%'",
        &json!(["strong", 1]),
        |entity| {
            let dated = |kind: &str, n: i64, note: &str| {
                let object = json!({ "id": entity, "at": "2025-01-01T00:00:00Z", "note": note });
                stripe(&format!("test.dated.{kind}"), &format!("evt_{n}_{entity}"), 100, object)
            };
            [
                dated("created", 9, "strong"),
                dated("updated", 8, "weak"),
                dated("updated", 2, "strong"),
                dated("changed", 3, "strong"),
            ]
        },
    );
}

#[test]
fn order_of_arrival_does_not_matter_to_the_members_of_a_deleted_organization() {
    same_rows_in_every_order(
        "organization_memberships",
        "role, _deleted",
        &json!(["org:admin", 1]),
        |entity| {
            let member = |kind: &str, n: i64, at: i64, role: &str| {
                let data = json!({
                    "id": entity,
                    "organization": { "id": format!("org_{entity}") },
                    "public_user_data": { "user_id": "user_1" },
                    "role": role,
                    "updated_at": at,
                });
                clerk(
                    &format!("organizationMembership.{kind}"),
                    &format!("msg_{n}_{entity}"),
                    at,
                    data,
                )
            };
            let organization = |kind: &str, n: i64, at: i64| {
                let data = json!({ "id": format!("org_{entity}"), "updated_at": at });
                clerk(&format!("organization.{kind}"), &format!("msg_{n}_{entity}"), at, data)
            };
            [
                organization("created", 1, 100),
                member("created", 2, 110, "org:member"),
                organization("deleted", 3, 200),
                // Sent before, or by a clock that is ahead.
                member("updated", 4, 210, "org:admin"),
            ]
        },
    );
}

/// An event about a team, or about a desk or a lamp with what it belongs to.
fn owned(kind: &str, (n, created): (i64, i64), id: &str, owner: &str, entity: &str) -> Event {
    let object = json!({ "id": id, "team": owner, "desk": owner });
    stripe(&format!("test.{kind}"), &format!("evt_{n}_{entity}"), created, object)
}

#[test]
fn order_of_arrival_does_not_matter_to_a_row_whose_parent_has_a_deleted_parent() {
    same_rows_in_every_order("lamps", "_deleted", &json!([1]), |entity| {
        let (team, desk) = (&format!("team_{entity}"), &format!("desk_{entity}"));
        [
            owned("team.deleted", (1, 100), team, "", entity),
            owned("desk.created", (2, 200), desk, team, entity),
            owned("lamp.created", (3, 300), entity, "desk_elsewhere", entity),
            owned("lamp.moved", (4, 400), entity, desk, entity),
        ]
    });
}

#[test]
fn order_of_arrival_does_not_matter_to_a_row_whose_parent_leaves_a_deleted_parent() {
    same_rows_in_every_order("lamps", "_deleted", &json!([0]), |entity| {
        let (team, desk) = (&format!("team_{entity}"), &format!("desk_{entity}"));
        [
            owned("team.deleted", (1, 500), team, "", entity),
            owned("desk.created", (2, 100), desk, team, entity),
            owned("lamp.created", (3, 300), entity, desk, entity),
            owned("desk.moved", (4, 400), desk, "team_that_stays", entity),
        ]
    });
}
