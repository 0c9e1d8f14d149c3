//! Suppressions and lifts in any order and batches and with any duplicates: an address is suppressed if no lift is newer
//! than its newest suppression.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use hookmill_consumers::Fate;
use hookmill_core::delivery::{Delivery, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Fixture, event};

const RULES: &str = r#"
[sources.s]
scheme = "stripe"
secrets = ["env:A"]

[database]
migrations = "app"

[retry]
jitter = 0.0

[[rules]]
name = "bounced"
on = "s:bounced"
suppress = { address = "to", reason = "bounced", version = { unix_seconds = "at" } }

[[rules]]
name = "complained"
on = "s:complained"
suppress = { address = "to", reason = "complained", version = { unix_seconds = "at" } }

[[rules]]
name = "mended"
on = "s:mended"
lift = { address = "to", reason = "bounced", version = { unix_seconds = "at" } }

[[rules]]
name = "removed"
on = "s:removed"
lift = { address = "to", reason = ["bounced", "complained"], version = { unix_seconds = "at" } }

[[rules]]
name = "left"
on = "s:left"
suppress = { address = "to", reason = "unsubscribed", group = "group", version = { unix_seconds = "at" } }

[[rules]]
name = "joined"
on = "s:joined"
lift = { address = "to", reason = "unsubscribed", group = "group", version = { unix_seconds = "at" } }
"#;

/// An event.
#[derive(Clone, Debug)]
struct Sent {
    kind: &'static str,
    addresses: [bool; 3],
    group: u8,
    at: i64,
}

impl Sent {
    fn addresses(&self) -> impl Iterator<Item = String> {
        let named = |n: &usize| format!("a{n}@example.com");
        (0..3)
            .filter(|n| self.addresses[*n])
            .collect::<Vec<_>>()
            .into_iter()
            .map(move |n| named(&n))
    }

    fn body(&self) -> Value {
        // An address in another spelling is the same.
        let to: Vec<_> =
            self.addresses().map(|address| format!("A <{}>", address.to_uppercase())).collect();
        json!({ "to": to, "group": self.group, "at": self.at })
    }

    /// The reasons, whether it lifts, and whether it is about a group.
    fn about(&self) -> (&'static [&'static str], bool, bool) {
        match self.kind {
            "bounced" => (&["bounced"], false, false),
            "complained" => (&["complained"], false, false),
            "mended" => (&["bounced"], true, false),
            "removed" => (&["bounced", "complained"], true, false),
            "left" => (&["unsubscribed"], false, true),
            _ => (&["unsubscribed"], true, true),
        }
    }
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let kinds = ["bounced", "complained", "mended", "removed", "left", "joined"];
    let kind = prop::sample::select(kinds.to_vec());
    (kind, any::<[bool; 3]>(), 0_u8..2, 1_i64..6).prop_map(|(kind, addresses, group, at)| Sent {
        kind,
        addresses,
        group,
        at,
    })
}

/// The rows of both tables: address, group, reason, event, and version in microseconds.
type Suppressed = BTreeSet<[String; 5]>;

fn oracle(sent: &[(String, Sent)]) -> Suppressed {
    let mut newest = BTreeMap::<_, (i64, &str)>::new();
    let mut lifted = BTreeMap::<_, i64>::new();
    for (id, sent) in sent {
        let (reasons, lifts, in_group) = sent.about();
        let group = if in_group { sent.group.to_string() } else { "NULL".to_owned() };
        for address in sent.addresses() {
            for reason in reasons {
                let key = (address.clone(), group.clone(), *reason);
                if lifts {
                    let lifted = lifted.entry(key).or_default();
                    *lifted = sent.at.max(*lifted);
                } else {
                    let newest = newest.entry(key).or_default();
                    *newest = (sent.at, id.as_str()).max(*newest);
                }
            }
        }
    }
    newest.retain(|key, (at, _)| lifted.get(key).is_none_or(|lifted| *at >= *lifted));
    let row = |((address, group, reason), (at, id)): ((String, String, &str), (i64, &str))| {
        [address, group, reason.to_owned(), id.to_owned(), format!("{at}000000")]
    };
    newest.into_iter().map(row).collect()
}

fn suppressed(fixture: &Fixture) -> Suppressed {
    let rows = fixture.rows(
        "SELECT address, NULL, reason, event_id, CAST(version AS TEXT) FROM suppressions UNION ALL
         SELECT address, group_id, reason, event_id, CAST(version AS TEXT) FROM group_suppressions",
    );
    rows.into_iter().map(|row| row.try_into().unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_suppressions_and_lifts_ends_in_the_same_tables(
        sent in prop::collection::vec(any_sent(), 1..30),
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..30),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        sizes in prop::collection::vec(1_usize..8, 1..20),
    ) {
        // The ids do not follow the order of the list.
        let sent: Vec<_> = sent.into_iter().enumerate().map(|(n, sent)| (format!("evt_{:02}_{n}", n * 37 % 40), sent)).collect();
        let mut order: Vec<usize> = (0..sent.len()).collect();
        order.extend(again.iter().map(|index| index.index(sent.len())));
        for (one, other) in swaps {
            let length = order.len();
            order.swap(one.index(length), other.index(length));
        }
        let delivery = |number: usize| -> Delivery {
            let (id, sent) = &sent[number];
            event(id, sent.kind, &sent.body().to_string(), 1)
        };
        let fixture = Fixture::new(RULES, "");
        let mut sizes = sizes.into_iter().cycle();
        while !order.is_empty() {
            let size = sizes.next().unwrap_or(1).min(order.len());
            let batch: Vec<_> = order.drain(..size).map(delivery).collect();
            for (fate, verdict) in fixture.process(&fixture.store, &batch) {
                prop_assert!(matches!(fate, Fate::Applied | Fate::Duplicate), "{:?}", fate);
                prop_assert_eq!(verdict, Verdict::Ack);
            }
        }
        prop_assert_eq!(suppressed(&fixture), oracle(&sent));
    }
}

#[test]
fn an_event_without_a_group_or_a_time_becomes_a_dead_letter() {
    let fixture = Fixture::new(RULES, "");
    let events = [
        ("left", r#"{"to":"a@example.com","at":1}"#, "the group is missing"),
        ("left", r#"{"to":"a@example.com","at":1,"group":null}"#, "the group is missing"),
        ("joined", r#"{"to":"a@example.com","group":1}"#, "the version is missing"),
        ("bounced", r#"{"to":"a@example.com"}"#, "the version is missing"),
    ];
    for (number, (kind, body, problem)) in events.into_iter().enumerate() {
        let fates =
            fixture.process(&fixture.store, &[event(&format!("evt_{number}"), kind, body, 1)]);
        let Fate::Condemned { error, .. } = &fates[0].0 else { panic!("{fates:?}") };
        assert!(error.contains(problem), "{error}");
    }
    assert_eq!(suppressed(&fixture), BTreeSet::new());
}
