//! Realistic, full-size events for `hookmill send`: one object for each resource, and the changes for each type of event.

use hookmill_core::time::Timestamp;
use serde_json::{Map, Value, json};

/// The events of a provider, by its schemes.
struct Samples {
    schemes: &'static [&'static str],
    objects: &'static str,
    /// Type of event, its object, and the change.
    events: &'static [(&'static str, &'static str, Change)],
}

/// Changes an object for an event; `now` is in Unix seconds.
type Change = fn(object: &mut Value, now: i64);

const SAMPLES: [Samples; 2] = [
    Samples {
        schemes: &["stripe"],
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
            ("invoice_payment.paid", "invoice_payment", |_, _| {}),
            ("product.created", "product", |_, _| {}),
            ("product.updated", "product", |o, now| o["updated"] = json!(now)),
            ("product.deleted", "product", |o, _| o["active"] = json!(false)),
            ("price.created", "price", |_, _| {}),
            ("price.updated", "price", |o, _| o["lookup_key"] = json!("team-monthly-2")),
            ("price.deleted", "price", |o, _| o["active"] = json!(false)),
            ("payment_method.attached", "payment_method", |_, _| {}),
            ("payment_method.updated", "payment_method", |o, _| {
                o["billing_details"]["email"] = json!("billing@acme.example");
            }),
            ("payment_method.automatically_updated", "payment_method", |o, _| {
                o["card"]["exp_year"] = json!(2034);
            }),
            ("payment_method.detached", "payment_method", |o, _| o["customer"] = Value::Null),
            ("subscription_schedule.created", "subscription_schedule", |_, _| {}),
            ("subscription_schedule.updated", "subscription_schedule", |_, _| {}),
            ("subscription_schedule.expiring", "subscription_schedule", |_, _| {}),
            ("subscription_schedule.completed", "subscription_schedule", |o, now| {
                o["status"] = json!("completed");
                o["completed_at"] = json!(now);
                o["current_phase"] = Value::Null;
            }),
            ("subscription_schedule.released", "subscription_schedule", |o, now| {
                o["status"] = json!("released");
                o["released_at"] = json!(now);
                o["released_subscription"] = o["subscription"].take();
                o["current_phase"] = Value::Null;
            }),
            ("subscription_schedule.canceled", "subscription_schedule", |o, now| {
                o["status"] = json!("canceled");
                o["canceled_at"] = json!(now);
                o["current_phase"] = Value::Null;
            }),
            ("subscription_schedule.aborted", "subscription_schedule", |o, now| {
                o["status"] = json!("canceled");
                o["canceled_at"] = json!(now);
                o["current_phase"] = Value::Null;
            }),
            ("credit_note.created", "credit_note", |_, _| {}),
            ("credit_note.updated", "credit_note", |o, _| {
                o["memo"] = json!("Two seats were not used");
            }),
            ("credit_note.voided", "credit_note", |o, now| {
                o["status"] = json!("void");
                o["voided_at"] = json!(now);
            }),
            ("payout.created", "payout", |_, _| {}),
            ("payout.updated", "payout", |o, _| o["trace_id"]["status"] = json!("supported")),
            ("payout.paid", "payout", |o, _| o["status"] = json!("paid")),
            ("payout.failed", "payout", |o, _| {
                o["status"] = json!("failed");
                o["failure_code"] = json!("account_closed");
                o["failure_message"] = json!("The bank account has been closed.");
            }),
            ("payout.canceled", "payout", |o, _| o["status"] = json!("canceled")),
            ("payout.reconciliation_completed", "payout", |o, _| {
                o["status"] = json!("paid");
                o["reconciliation_status"] = json!("completed");
            }),
            ("radar.early_fraud_warning.created", "early_fraud_warning", |_, _| {}),
            ("radar.early_fraud_warning.updated", "early_fraud_warning", |o, _| {
                o["actionable"] = json!(false);
            }),
        ],
    },
    Samples {
        schemes: &["clerk", "standard-webhooks", "svix"],
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

/// Events of other providers: a JSON object with a body for each type, a form as a text. In it, `@id`, `@seconds`,
/// `@millis` and `@time` are replaced by the event's id and the time.
const OTHERS: [(&str, &str); 21] = [
    ("auth0", include_str!("../samples/auth0.json")),
    ("discord", include_str!("../samples/discord.json")),
    ("github", include_str!("../samples/github.json")),
    ("hubspot", include_str!("../samples/hubspot.json")),
    ("intercom", include_str!("../samples/intercom.json")),
    ("lemon-squeezy", include_str!("../samples/lemon-squeezy.json")),
    ("linear", include_str!("../samples/linear.json")),
    ("mailgun", include_str!("../samples/mailgun.json")),
    ("meta", include_str!("../samples/meta.json")),
    ("paddle", include_str!("../samples/paddle.json")),
    ("paddle-classic", include_str!("../samples/paddle-classic.json")),
    ("resend", include_str!("../samples/resend.json")),
    ("sendgrid", include_str!("../samples/sendgrid.json")),
    ("shopify", include_str!("../samples/shopify.json")),
    ("slack", include_str!("../samples/slack.json")),
    ("square", include_str!("../samples/square.json")),
    ("supabase", include_str!("../samples/supabase.json")),
    ("twilio", include_str!("../samples/twilio.json")),
    ("typeform", include_str!("../samples/typeform.json")),
    ("zendesk", include_str!("../samples/zendesk.json")),
    ("zoom", include_str!("../samples/zoom.json")),
];

/// The headers of a genuine webhook that are neither signed nor the identity of the event, which libraries and receivers expect.
pub fn unsigned_headers(scheme: &str, now: Timestamp) -> Vec<(String, String)> {
    let id = || uuid::Uuid::new_v4().to_string();
    let headers = match scheme {
        // https://shopify.dev/docs/apps/build/webhooks/subscribe/https#headers
        "shopify" => vec![
            ("X-Shopify-Shop-Domain", "hookmill-sample.myshopify.com".to_owned()),
            ("X-Shopify-API-Version", "2026-10".to_owned()),
            ("X-Shopify-Webhook-Id", id()),
            ("X-Shopify-Triggered-At", now.to_string()),
        ],
        _ => Vec::new(),
    };
    headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The types of events that have samples.
pub fn types(scheme: &str) -> Vec<String> {
    if let Some(samples) = samples(scheme) {
        return samples.events.iter().map(|(kind, _, _)| (*kind).to_owned()).collect();
    }
    others(scheme)
        .map(|bodies| bodies.into_iter().map(|(kind, _)| kind).collect())
        .unwrap_or_default()
}

fn samples(scheme: &str) -> Option<&'static Samples> {
    SAMPLES.iter().find(|samples| samples.schemes.contains(&scheme))
}

fn others(scheme: &str) -> Option<Map<String, Value>> {
    let (_, text) = OTHERS.iter().find(|(name, _)| *name == scheme)?;
    Some(serde_json::from_str(text).expect("the samples are JSON, which a test reads"))
}

/// The type to suggest first.
pub fn suggested(scheme: &str) -> Option<String> {
    let types = types(scheme);
    let first = ["customer.subscription.updated", "user.created"];
    types.iter().find(|kind| first.contains(&kind.as_str())).or(types.first()).cloned()
}

/// An event's body as the provider would send it, or `None` if there is no sample of this type. A form is a text.
pub fn event(scheme: &str, kind: &str, id: &str, now: Timestamp) -> Option<Value> {
    let Some(samples) = samples(scheme) else {
        let mut body = others(scheme)?.remove(kind)?;
        fill(&mut body, id, now);
        return Some(body);
    };
    let (_, object, change) = samples.events.iter().find(|(name, _, _)| *name == kind)?;
    let mut objects: Map<String, Value> =
        serde_json::from_str(samples.objects).expect("the samples are JSON, which a test reads");
    let mut object = objects.remove(*object)?;
    change(&mut object, now.seconds());
    Some(match scheme {
        "stripe" => stripe(kind, id, object, now),
        _ => clerk(kind, object, now),
    })
}

/// Replaces the id and the time. A text that is only a time becomes a number.
fn fill(value: &mut Value, id: &str, now: Timestamp) {
    match value {
        Value::Object(members) => members.values_mut().for_each(|value| fill(value, id, now)),
        Value::Array(elements) => elements.iter_mut().for_each(|value| fill(value, id, now)),
        Value::String(text) if text == "@seconds" => *value = json!(now.seconds()),
        Value::String(text) if text == "@millis" => *value = json!(now.millis()),
        Value::String(text) => {
            *text = text
                .replace("@id", id)
                .replace("@seconds", &now.seconds().to_string())
                .replace("@millis", &now.millis().to_string())
                .replace("@time", &now.to_string());
        }
        _ => {}
    }
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
    fn every_sample_has_its_type_and_full_size() {
        let now = Timestamp::from_seconds(1_767_225_600);
        for samples in &SAMPLES {
            for (kind, _, _) in samples.events {
                let event = event(samples.schemes[0], kind, "evt_1", now).unwrap();
                assert_eq!(event["type"], *kind);
                let size = event.to_string().len();
                let is_small = ["user.deleted", "invoice_payment.", "radar."];
                let is_small = is_small.iter().any(|small| kind.contains(small));
                assert!(size > 700 || is_small, "{kind} has {size} bytes");
            }
        }
        assert!(event("stripe", "nothing", "evt_1", now).is_none());
    }

    #[test]
    fn every_scheme_has_samples() {
        let now = Timestamp::from_seconds(1_767_225_600);
        for (scheme, _) in OTHERS {
            assert!(!types(scheme).is_empty(), "{scheme}");
            for kind in types(scheme) {
                let event = event(scheme, &kind, "evt_1", now).unwrap().to_string();
                let left =
                    ["@id", "@seconds", "@millis", "@time"].iter().find(|t| event.contains(*t));
                assert!(left.is_none(), "{scheme} {kind}: {left:?}");
            }
        }
    }
}
