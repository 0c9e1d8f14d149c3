//! Realistic, full-size events, for `hookmill send` and as what `check` knows of providers: one object for each resource and
//! the changes for each type of event, or whole bodies.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

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

/// Bodies with fixed times: provider, name and text. The name is the type of the event, or the type and what is special about
/// the body: `invoice.paid.2024-06-20`.
const FIXTURES: &[(&str, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/fixtures.rs"));

/// The types of events that providers document, by provider. They are those of the providers' own packages:
/// `Event` and `V2.Core.Event` of stripe 23.1.0, `WebhookEvent` of resend 6.38.0, the webhooks of @clerk/backend 3.25.0,
/// `EventName` of @paddle/paddle-node-sdk 3.8.0, `emitterEventNames` of @octokit/webhooks 14.2.0, and the statuses of messages
/// and calls of twilio 6.3.1. Those of Shopify are <https://shopify.dev/docs/api/webhooks>, of its versions since 2024-07, and
/// those of SendGrid <https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event>. Stripe sends
/// `invoiceitem.updated` to endpoints of versions before 2024-04-10.
const DOCUMENTED: &str = include_str!("../samples/types.json");

/// The types of events that a provider documents. `None`: they are not all known here.
pub fn documented_types(provider: &str) -> Option<Vec<String>> {
    let mut types: BTreeMap<String, Vec<String>> =
        serde_json::from_str(DOCUMENTED).expect("the types are JSON, which a test reads");
    types.remove(provider)
}

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
    let mut types = own_types(scheme);
    for (name, kind, _) in fixtures(scheme) {
        if name == kind && !types.iter().any(|known| known == kind) {
            types.push(kind.to_owned());
        }
    }
    types
}

/// The types with a sample that is made for each event.
fn own_types(scheme: &str) -> Vec<String> {
    match samples(scheme) {
        Some(samples) => samples.events.iter().map(|(kind, _, _)| (*kind).to_owned()).collect(),
        None => others(scheme).into_iter().flatten().map(|(kind, _)| kind).collect(),
    }
}

/// Every sample, those with something special included: the type of its event, and its body.
pub fn bodies(scheme: &str, id: &str, now: Timestamp) -> Vec<(String, Value)> {
    let own = own_types(scheme).into_iter().filter_map(|kind| {
        let body = event(scheme, &kind, id, now)?;
        Some((kind, body))
    });
    let fixtures = fixtures(scheme).map(|(_, kind, text)| {
        let mut body = parsed(text);
        stamp(&mut body, id, now);
        (kind.to_owned(), body)
    });
    own.chain(fixtures).collect()
}

/// The types of the events in [`FIXTURES`].
static FIXTURE_TYPES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let kind = |(provider, name, text): &(&str, &str, &str)| {
        kind_of(provider, &parsed(text)).unwrap_or_else(|| (*name).to_owned())
    };
    FIXTURES.iter().map(kind).collect()
});

/// The whole bodies of a provider: their names, the types of their events, and their texts.
pub fn fixtures(scheme: &str) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let provider = samples(scheme).map_or(scheme, |samples| samples.schemes[0]);
    let all = FIXTURES.iter().zip(FIXTURE_TYPES.iter());
    all.filter(move |((of, ..), _)| *of == provider)
        .map(|((_, name, text), kind)| (*name, kind.as_str(), *text))
}

/// A whole body. A form is a text.
pub fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.trim_end().into())
}

/// The type of an event, as its body says it.
fn kind_of(provider: &str, body: &Value) -> Option<String> {
    if let Value::String(form) = body {
        let mut fields = form.split('&').filter_map(|pair| pair.split_once('='));
        return fields.find_map(|(name, status)| match name {
            "SmsStatus" => Some(format!("message.{status}")),
            "CallStatus" => Some(format!("call.{status}")),
            _ => None,
        });
    }
    let kind = match provider {
        "paddle" => &body["event_type"],
        "sendgrid" => &body[0]["event"],
        _ => &body["type"],
    };
    kind.as_str().map(ToOwned::to_owned)
}

/// Gives a whole body a new id, and moves its times: the event's own becomes `now`, and the others keep their distance to it.
fn stamp(body: &mut Value, id: &str, now: Timestamp) {
    let millis = |value: &Value| match value {
        Value::Number(_) if value.as_i64().is_some_and(|at| SECONDS.contains(&at)) => {
            value.as_i64().map(|at| at * 1000)
        }
        Value::Number(_) => value.as_i64(),
        value => value.as_str().and_then(Timestamp::parse_rfc3339).map(Timestamp::millis),
    };
    if let Value::String(form) = body {
        let sids = ["MessageSid", "SmsSid", "SmsMessageSid"];
        let pairs = form.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if sids.contains(&name) => format!("{name}=SM{id}"),
            Some(("CallSid", _)) => format!("CallSid=CA{id}"),
            _ => pair.to_owned(),
        });
        *form = pairs.collect::<Vec<_>>().join("&");
        return;
    }
    let event = if body.is_array() { &mut body[0] } else { &mut *body };
    let own = ["occurred_at", "timestamp", "created", "updated_at", "created_at"];
    let at = own.iter().find_map(|name| event.get(*name).and_then(millis));
    // GitHub's events have no time of their own; the object that changed has the last one.
    let within = event.as_object().into_iter().flat_map(Map::values);
    let at = at.or_else(|| within.filter_map(|of| of.get("updated_at").and_then(millis)).max());
    for name in ["id", "event_id", "sg_event_id"] {
        // A number is the id of the object.
        if let Some(found @ Value::String(_)) = event.get_mut(name) {
            *found = id.into();
        }
    }
    if let Some(at) = at {
        move_times(body, now.millis() - at);
    }
}

/// The numbers that are times in seconds: 2014 to 2039. No amount of a sample is so large.
const SECONDS: RangeInclusive<i64> = 1_400_000_000..=2_200_000_000;

fn move_times(value: &mut Value, by: i64) {
    match value {
        Value::Object(members) => members.values_mut().for_each(|value| move_times(value, by)),
        Value::Array(elements) => elements.iter_mut().for_each(|value| move_times(value, by)),
        Value::Number(_) => match value.as_i64() {
            Some(at) if SECONDS.contains(&at) => *value = json!(at + by / 1000),
            Some(at) if SECONDS.contains(&(at / 1000)) => *value = json!(at + by),
            _ => {}
        },
        Value::String(text) if text.starts_with("20") => {
            if let Some(at) = Timestamp::parse_rfc3339(text) {
                *text = Timestamp::from_millis(at.millis() + by).to_string();
            }
        }
        _ => {}
    }
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
    let sample = samples(scheme).and_then(|samples| {
        Some((samples, samples.events.iter().find(|(name, ..)| *name == kind)?))
    });
    let Some((samples, (_, object, change))) = sample else {
        if let Some(mut body) = others(scheme).and_then(|mut bodies| bodies.remove(kind)) {
            fill(&mut body, id, now);
            return Some(body);
        }
        let (.., text) = fixtures(scheme).find(|(name, ..)| *name == kind)?;
        let mut body = parsed(text);
        stamp(&mut body, id, now);
        return Some(body);
    };
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
    fn a_whole_body_gets_a_new_id_and_the_present_time() {
        let now = Timestamp::from_seconds(1_800_000_000);
        let sample = |scheme: &str, kind: &str| event(scheme, kind, "evt_1", now).unwrap();
        let refund = sample("stripe", "refund.created");
        assert_eq!((&refund["id"], &refund["created"]), (&json!("evt_1"), &json!(1_800_000_000)));
        // The charge was refunded after 187,444 seconds.
        let charge = sample("stripe", "charge.refunded");
        assert_eq!(charge["data"]["object"]["created"], 1_800_000_000 - 187_444);
        assert_eq!(charge["data"]["object"]["amount"], 84_500);
        let organization = sample("clerk", "organization.created");
        assert_eq!(organization["timestamp"], 1_800_000_000_000_i64);
        assert_eq!(organization["data"]["created_at"], 1_800_000_000_000_i64 - 11);
        let adjustment = sample("paddle", "adjustment.created");
        assert_eq!(adjustment["event_id"], "evt_1");
        assert_eq!(adjustment["occurred_at"], "2027-01-15T08:00:00.000Z");
        assert_eq!(sample("resend", "email.failed")["created_at"], "2027-01-15T08:00:00.000Z");
        let opened = &sample("sendgrid", "open")[0];
        assert_eq!(
            (&opened["sg_event_id"], &opened["timestamp"]),
            (&json!("evt_1"), &json!(1_800_000_000))
        );
        let read = sample("twilio", "message.read");
        let read = read.as_str().unwrap();
        assert!(read.contains("MessageSid=SMevt_1&") && read.contains("SmsStatus=read"), "{read}");
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
