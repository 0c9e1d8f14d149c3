//! Realistic, full-size events for `hookmill send`: one object for each resource, and what each type of event changes
//! about it.

use hookmill_core::time::Timestamp;
use serde_json::{Map, Value, json};

/// The events of a preset.
struct Samples {
    preset: &'static str,
    objects: &'static str,
    /// Type of event, its object, and what differs in it.
    events: &'static [(&'static str, &'static str, Change)],
}

/// Changes an object to what it is at the time of an event; `now` is in Unix seconds.
type Change = fn(object: &mut Value, now: i64);

const SAMPLES: [Samples; 2] = [
    Samples {
        preset: "stripe",
        objects: include_str!("../samples/stripe.json"),
        events: &[
            ("customer.created", "customer", |_, _| {}),
            ("customer.updated", "customer", |o, _| o["phone"] = json!("+351 21 000 0001")),
            ("customer.deleted", "customer", |_, _| {}),
            ("customer.subscription.created", "subscription", |o, now| {
                o["status"] = json!("trialing");
                o["trial_start"] = json!(now);
                o["trial_end"] = json!(now + 14 * 86_400);
            }),
            ("customer.subscription.updated", "subscription", |_, _| {}),
            ("customer.subscription.paused", "subscription", |o, _| o["status"] = json!("paused")),
            ("customer.subscription.resumed", "subscription", |_, _| {}),
            ("customer.subscription.deleted", "subscription", |o, now| {
                o["status"] = json!("canceled");
                o["canceled_at"] = json!(now);
                o["ended_at"] = json!(now);
                o["cancellation_details"]["reason"] = json!("cancellation_requested");
            }),
            ("invoice.created", "invoice", |o, _| {
                o["status"] = json!("draft");
                o["number"] = Value::Null;
                o["status_transitions"]["finalized_at"] = Value::Null;
            }),
            ("invoice.finalized", "invoice", |_, _| {}),
            ("invoice.paid", "invoice", |o, now| {
                o["status"] = json!("paid");
                o["amount_paid"] = o["amount_due"].clone();
                o["amount_remaining"] = json!(0);
                o["attempted"] = json!(true);
                o["attempt_count"] = json!(1);
                o["next_payment_attempt"] = Value::Null;
                o["status_transitions"]["paid_at"] = json!(now);
            }),
            ("invoice.payment_failed", "invoice", |o, now| {
                o["attempted"] = json!(true);
                o["attempt_count"] = json!(1);
                o["next_payment_attempt"] = json!(now + 3 * 86_400);
            }),
            ("invoice.voided", "invoice", |o, now| {
                o["status"] = json!("void");
                o["status_transitions"]["voided_at"] = json!(now);
            }),
            ("invoice.deleted", "invoice", |o, _| o["status"] = json!("draft")),
        ],
    },
    Samples {
        preset: "clerk",
        objects: include_str!("../samples/clerk.json"),
        events: &[
            ("user.created", "user", |_, _| {}),
            ("user.updated", "user", |o, _| o["public_metadata"]["role"] = json!("admin")),
            ("user.deleted", "user", |o, _| {
                *o = json!({ "deleted": true, "id": o["id"], "object": "user" });
            }),
        ],
    },
];

/// The types of events there are samples of.
pub fn types(preset: &str) -> impl Iterator<Item = &'static str> {
    let samples = SAMPLES.iter().find(|samples| samples.preset == preset);
    samples.into_iter().flat_map(|samples| samples.events.iter().map(|(kind, _, _)| *kind))
}

/// The type to suggest first.
pub fn first_update(preset: &str) -> Option<&'static str> {
    let suggested = ["customer.subscription.updated", "user.created"];
    types(preset).find(|kind| suggested.contains(kind))
}

/// An event as the provider would send it, or `None` if there is no sample of this type.
pub fn event(preset: &str, kind: &str, id: &str, now: Timestamp) -> Option<Value> {
    let samples = SAMPLES.iter().find(|samples| samples.preset == preset)?;
    let (_, object, change) = samples.events.iter().find(|(name, _, _)| *name == kind)?;
    let mut objects: Map<String, Value> =
        serde_json::from_str(samples.objects).expect("the samples are JSON, which a test reads");
    let mut object = objects.remove(*object)?;
    change(&mut object, now.seconds());
    Some(match preset {
        "stripe" => stripe(kind, id, object, now),
        _ => clerk(kind, object, now),
    })
}

/// <https://docs.stripe.com/api/events/object>
fn stripe(kind: &str, id: &str, object: Value, now: Timestamp) -> Value {
    let mut data = json!({ "object": object });
    if kind.ends_with(".updated") {
        data["previous_attributes"] = json!({ "metadata": { "tenant": null } });
    }
    json!({
        "id": id,
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": now.seconds(),
        "data": data,
        "livemode": false,
        "pending_webhooks": 1,
        "request": { "id": "req_HMsample0001", "idempotency_key": "0b7d8a52-hookmill-sample" },
        "type": kind,
    })
}

/// <https://clerk.com/docs/webhooks/overview#payload-structure>
fn clerk(kind: &str, mut object: Value, now: Timestamp) -> Value {
    if object.get("updated_at").is_some() {
        object["updated_at"] = json!(now);
    }
    json!({
        "data": object,
        "event_attributes": { "http_request": { "client_ip": "192.0.2.1", "user_agent": "Mozilla/5.0 (sample)" } },
        "instance_id": "ins_HMsample0001",
        "object": "event",
        "timestamp": now,
        "type": kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_of_its_type_and_full_size() {
        let now = Timestamp::from_seconds(1_767_225_600);
        for samples in &SAMPLES {
            for (kind, _, _) in samples.events {
                let event = event(samples.preset, kind, "evt_1", now).unwrap();
                assert_eq!(event["type"], *kind);
                let size = event.to_string().len();
                assert!(size > 1000 || kind.ends_with("user.deleted"), "{kind} has {size} bytes");
            }
        }
        assert!(event("stripe", "nothing", "evt_1", now).is_none());
    }
}
