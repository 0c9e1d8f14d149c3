//! The events of a history, and the tables that follow from them: an oracle that knows no SQL.

use std::collections::{BTreeMap, BTreeSet};

use hookmill_core::limits::MESSAGE_BYTES;
use serde_json::{Value, json};

use crate::choice::Choices;
use crate::world::START;

/// An event that a provider has.
#[derive(Clone, Debug)]
pub struct Event {
    pub source: &'static str,
    pub id: String,
    pub kind: &'static str,
    /// In seconds since the Unix epoch. Often the same for several.
    pub created: i64,
    pub object: Value,
    /// Whether its body is too large for a queue.
    is_large: bool,
}

/// What events are about, and how often.
const KINDS: [(usize, &str, &str); 12] = [
    (5, "shop", "thing.created"),
    (8, "shop", "thing.updated"),
    (1, "shop", "thing.deleted"),
    (4, "shop", "count.made"),
    (8, "shop", "gated.changed"),
    (1, "shop", "broken.made"),
    (6, "shop", "mail.requested"),
    (2, "shop", "address.bounced"),
    (1, "shop", "address.returned"),
    (3, "shop", "text.requested"),
    (2, "shop", "track.requested"),
    (9, "billing", "customer.updated"),
];

/// What a provider reports about an email that it has delivered, the greatest last, and the outcome in the outbox.
pub const REPORTS: [(&str, &str); 3] =
    [("mail.delivered", "delivered"), ("mail.opened", "opened"), ("mail.complained", "complained")];

impl Event {
    /// A report about an email.
    pub fn report(choices: &mut Choices, number: usize, email: &str) -> Self {
        let (kind, _) = REPORTS[choices.below(REPORTS.len())];
        let (id, created) = (format!("report_{number}"), START / 1000);
        let object = json!({ "id": email });
        Self { source: "shop", id, kind, created, object, is_large: false }
    }

    pub fn any(choices: &mut Choices, number: usize) -> Self {
        let all = KINDS.iter().map(|(times, ..)| times).sum();
        let mut at = choices.below(all);
        let found = KINDS.iter().find(|(times, ..)| {
            let is_it = at < *times;
            at = at.saturating_sub(*times);
            is_it
        });
        let (_, source, kind) = *found.expect("the number is below the sum");
        // Earlier than the longest request before the first import.
        let created = START / 1000 - 100 + i64::try_from(choices.below(3)).unwrap_or_default();
        let id = choices.below(3);
        let note = format!("private-note {number}");
        let object = match kind {
            "count.made" => json!({ "id": format!("c{id}"), "amount": number }),
            "mail.requested" => {
                let to = if choices.once_in(8) { "refused" } else { "u" };
                json!({ "id": "m", "to": format!("{to}{id}@private.test"), "note": note })
            }
            "address.bounced" | "address.returned" => {
                json!({ "id": "a", "email": format!("u{id}@private.test") })
            }
            "text.requested" => json!({ "id": "m", "to": format!("+1555019900{}", number % 10) }),
            "customer.updated" => json!({ "id": format!("cus_{}", id % 2), "name": note }),
            _ => {
                let parts = choices.below(8);
                let parts = (0..3).filter(|part| parts & (1 << part) != 0);
                let parts: Vec<_> =
                    parts.map(|part| json!({ "id": format!("p{part}"), "note": note })).collect();
                json!({ "id": format!("t{id}"), "note": note, "parts": parts })
            }
        };
        // The ids do not follow the order of the events.
        let id = format!("evt_{:02}_{number}", number * 37 % 100);
        Self { source, id, kind, created, object, is_large: choices.once_in(15) }
    }

    pub fn body(&self) -> Vec<u8> {
        let Self { id, kind, created, object, .. } = self;
        let padding = if self.is_large { "x".repeat(MESSAGE_BYTES) } else { String::new() };
        let data = json!({ "object": object });
        let body =
            json!({ "id": id, "type": kind, "created": created, "data": data, "padding": padding });
        body.to_string().into_bytes()
    }

    /// What orders the events about one object.
    fn order(&self) -> (bool, i64, &str) {
        (self.kind == "thing.deleted", self.created, &self.id)
    }

    pub fn text(&self, member: &str) -> String {
        self.object[member].as_str().unwrap_or_default().to_owned()
    }
}

/// Rows by table: texts, the key first.
pub type Tables = BTreeMap<&'static str, Vec<Vec<String>>>;

/// The queries for the tables that the oracle knows.
pub const TABLES: [(&str, &str); 6] = [
    ("asked", "SELECT id, name FROM asked ORDER BY id"),
    ("counts", "SELECT id, CAST(events AS TEXT), CAST(amount AS TEXT) FROM counts ORDER BY id"),
    ("gated", "SELECT id, note, _event_id FROM gated ORDER BY id"),
    ("parts", "SELECT thing, id, note FROM parts ORDER BY thing, id"),
    ("suppressions", "SELECT address FROM suppressions ORDER BY address"),
    ("things", "SELECT id, note, _event_id, CAST(_deleted AS TEXT) FROM things ORDER BY id"),
];

/// The greatest events of some types, by object.
fn greatest<'e>(events: &[&'e Event], kind: &str) -> BTreeMap<String, &'e Event> {
    let mut greatest = BTreeMap::<String, &Event>::new();
    for event in events.iter().filter(|event| event.kind.starts_with(kind)) {
        let held = greatest.entry(event.text("id")).or_insert(event);
        if event.order() > held.order() {
            *held = event;
        }
    }
    greatest
}

/// The tables after these events have taken effect. `current`: the objects of the provider's API, which are newer than every
/// event. `imported`: the ids of those that an import has applied.
pub fn oracle(
    events: &[&Event],
    current: &BTreeMap<String, Value>,
    imported: &BTreeSet<String>,
) -> Tables {
    let mut tables: Tables = TABLES.map(|(name, _)| (name, Vec::new())).into();
    let mut put = |table: &str, row: Vec<String>| {
        tables.get_mut(table).expect("it is in the list").push(row);
    };
    for (id, event) in greatest(events, "thing.") {
        let is_deleted = event.kind == "thing.deleted";
        if !is_deleted {
            for part in event.object["parts"].as_array().into_iter().flatten() {
                let text = |member: &str| part[member].as_str().unwrap_or_default().to_owned();
                put("parts", vec![id.clone(), text("id"), text("note")]);
            }
        }
        let deleted = if is_deleted { "1" } else { "0" };
        put("things", vec![id, event.text("note"), event.id.clone(), deleted.to_owned()]);
    }
    for (id, event) in greatest(events, "gated.") {
        put("gated", vec![id, event.text("note"), event.id.clone()]);
    }
    for id in imported {
        put("asked", vec![id.clone(), current[id]["name"].as_str().unwrap_or_default().to_owned()]);
    }
    for (id, event) in greatest(events, "customer.") {
        if imported.contains(&id) {
            continue;
        }
        let newest = events.iter().filter(|other| {
            other.kind == event.kind && other.text("id") == id && other.created == event.created
        });
        // Two events of one version: the provider was asked.
        let name = if newest.count() > 1 {
            current[&id]["name"].as_str().unwrap_or_default().to_owned()
        } else {
            event.text("name")
        };
        put("asked", vec![id, name]);
    }
    let mut bounced = BTreeMap::<String, [i64; 2]>::new();
    for event in events.iter().filter(|event| event.kind.starts_with("address.")) {
        let times = bounced.entry(event.text("email")).or_default();
        let newest = &mut times[usize::from(event.kind == "address.returned")];
        *newest = event.created.max(*newest);
    }
    // Of one time, the bounce counts.
    for (address, _) in bounced.into_iter().filter(|(_, [bounced, returned])| bounced >= returned) {
        put("suppressions", vec![address]);
    }
    let mut counts = BTreeMap::<String, (i64, i64)>::new();
    for event in events.iter().filter(|event| event.kind == "count.made") {
        let (count, amount) = counts.entry(event.text("id")).or_default();
        *count += 1;
        *amount += event.object["amount"].as_i64().unwrap_or_default();
    }
    for (id, (count, amount)) in counts {
        put("counts", vec![id, count.to_string(), amount.to_string()]);
    }
    tables
}
