//! Any events about a few objects, with many equal versions, in any order and batches and with any duplicates: the tables are
//! those of the greatest events. The oracle compares events member by member, as structures, and knows no packed number. Ids
//! and versions are numbers in any spelling.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use hookmill_consumers::Fate;
use hookmill_core::delivery::{Delivery, Verdict};
use proptest::prelude::*;
use support::{Fixture, event};

const RULES: &str = r#"
[sources.s]
scheme = "stripe"
secrets = ["env:A"]

[database]
migrations = "app"

[retry]
jitter = 0.0

# Final: by type, by condition, and without a version.
[[rules]]
name = "kept"
on = "s:thing.*"
table = "kept"
key = { id = "id" }
version = "at"
set = { status = "status", owner = "owner" }
delete = ["thing.deleted", { status = "done" }]
final = true

[[rules.tie.precedence]]
type = ["*.created", "*"]

[[rules.tie.precedence]]
column = "status"
order = ["new", "open"]

[[rules.tie.precedence]]
type = ["thing.paused", "*", "thing.moved"]

# The same object: its tie and its `final` are those of the rule above.
[[rules]]
name = "items"
on = "s:thing.*"
each = "items"
table = "items"
key = { thing = "id", id = "@" }
version = "at"
set = { status = "status" }
delete = ["thing.deleted", { status = "done" }]

# The same list. An event may show only a part of it.
[[rules]]
name = "parts"
on = "s:thing.*"
each = "items"
more = "more"
table = "parts"
key = { thing = "id", id = "@" }
version = "at"
set = { status = "status" }
delete = ["thing.deleted", { status = "done" }]

# Only some of the events.
[[rules]]
name = "picked"
on = "s:thing.*"
when = [{ status = ["new", "done"] }, { "nothing | status" = "open", by = "o1" }]
table = "picked"
key = { id = "id" }
version = "at"
set = { status = "status" }
delete = ["thing.deleted", { status = "done" }]

[[rules]]
name = "removed"
on = "s:thing.*"
table = "removed"
key = { id = "id" }
version = "at"
set = { status = "status" }
delete = ["thing.deleted", { status = "done" }]
tombstone = false

[[rules]]
name = "updated"
on = "s:thing.*"
table = "updated"
key = { thing = "id" }
update = true
version = "at"
set = { status = "status" }
delete = ["thing.deleted", { status = "done" }]

# A newer version revives the row, but not after a deletion without a version.
[[rules]]
name = "revived"
on = "s:other.*"
table = "revived"
key = { id = "id" }
version = "at"
set = { status = "status" }
delete = ["other.deleted", { status = "done" }]

[rules.tie.precedence]
path = "status"
order = ["new", "open"]

# Its parents never return, but it may get another one.
[[rules]]
name = "children"
on = "s:child.*"
table = "children"
key = { id = "id" }
version = "at"
set = { owner = "owner", status = "status" }
delete = "child.deleted"
final = true
parents = { owner = "kept" }

# Deleted with its own parent, and with the parent of that.
[[rules]]
name = "leaves"
on = "s:leaf.*"
table = "leaves"
key = { id = "id" }
version = "at"
set = { owner = "owner", status = "status" }
delete = "leaf.deleted"
parents = { owner = "children" }
"#;

const TABLES: &str = "
-- Columns of the application may have any name.
CREATE TABLE kept (id TEXT PRIMARY KEY, value INTEGER, status TEXT, owner TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE items (thing INTEGER, id INTEGER, status TEXT, PRIMARY KEY (thing, id)) STRICT, WITHOUT ROWID;
CREATE TABLE parts (thing TEXT, id TEXT, status TEXT, _version INTEGER, _precedence INTEGER, _event_id TEXT,
    PRIMARY KEY (thing, id)) STRICT, WITHOUT ROWID;
CREATE TABLE picked (id TEXT PRIMARY KEY, status TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE removed (id INTEGER PRIMARY KEY, status TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE updated (name TEXT PRIMARY KEY, value TEXT, place TEXT, thing TEXT UNIQUE, status TEXT, _version INTEGER, _precedence INTEGER,
    _event_id TEXT, _deleted INTEGER) STRICT, WITHOUT ROWID;
INSERT INTO updated (name, thing) VALUES ('ada', '10'), ('grace', '20'), ('ines', '30');
CREATE TABLE revived (id INTEGER PRIMARY KEY, status TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE children (id TEXT PRIMARY KEY, owner TEXT, status TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX children_of_owner ON children (owner);
CREATE TABLE leaves (id TEXT PRIMARY KEY, owner TEXT, status TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX leaves_of_owner ON leaves (owner);
";

/// An event: its family of rules, and what decides between two of them.
#[derive(Clone, Debug)]
struct Sent {
    family: &'static str,
    action: &'static str,
    object: u8,
    owner: u8,
    /// Missing only in deletions.
    version: Option<i64>,
    status: &'static str,
    items: Option<[bool; 3]>,
    /// Whether the list goes on elsewhere.
    more: bool,
    /// The spellings of the object, the owner, the version and the items.
    spellings: [Spelling; 4],
}

/// A spelling of a number in JSON.
#[derive(Clone, Copy, Debug)]
enum Spelling {
    Plain,
    Fraction,
    Exponent,
    Text,
}

impl Spelling {
    /// Ten times a number of one digit.
    fn tens(self, number: impl std::fmt::Display) -> String {
        match self {
            Self::Plain => format!("{number}0"),
            Self::Fraction => format!("{number}0.00"),
            Self::Exponent => format!("{number}e1"),
            Self::Text => format!("\"{number}0\""),
        }
    }
}

/// The key of an object, as a column of texts stores it.
fn key(object: u8) -> String {
    format!("{}0", object + 1)
}

impl Sent {
    fn deletes(&self) -> bool {
        let has_done = ["thing", "other"].contains(&self.family);
        self.action == "deleted" || (has_done && self.status == "done")
    }

    fn body(&self) -> String {
        let [object, owner, version, item] = self.spellings;
        let (id, of) = (object.tens(self.object + 1), owner.tens(self.owner + 1));
        // A version is no text.
        let version = if let Spelling::Text = version { Spelling::Plain } else { version };
        let at = self.version.map(|at| format!(r#","at":{}"#, version.tens(at + 1)));
        let items = self.items.map(|items| {
            let items = (1..).zip(items).filter(|(_, is)| *is);
            let items: Vec<_> = items.map(|(number, _)| item.tens(number)).collect();
            format!(r#","items":[{}]"#, items.join(","))
        });
        let Self { owner, status, more, .. } = self;
        let rest = [at, items].into_iter().flatten().collect::<String>();
        format!(
            r#"{{"id":{id},"owner":{of},"by":"o{owner}","status":"{status}","more":{more}{rest}}}"#
        )
    }
}

/// The order of events about one object, in the words of the rules.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Order {
    is_final: bool,
    version: i64,
    deletes: bool,
    not_created: bool,
    status: usize,
    action: usize,
    id: String,
}

fn order(sent: &Sent, id: &str) -> Order {
    let status =
        ["new", "open"].iter().position(|status| *status == sent.status).map_or(0, |at| at + 1);
    let is_thing = sent.family == "thing";
    let deletes = sent.deletes();
    let is_final = is_thing || sent.family == "child" || sent.version.is_none();
    Order {
        is_final: deletes && is_final,
        version: sent.version.map_or(0, |version| version + 1),
        deletes,
        not_created: is_thing && !deletes && sent.action != "created",
        status: if ["child", "leaf"].contains(&sent.family) || deletes { 0 } else { status },
        action: match sent.action {
            _ if !is_thing || deletes => 0,
            "paused" => 0,
            "moved" => 2,
            _ => 1,
        },
        id: id.to_owned(),
    }
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let family = prop_oneof![
        3 => Just("thing"), 2 => Just("other"), 2 => Just("child"), 2 => Just("leaf")
    ];
    let action = prop_oneof![
        3 => Just("created"), 3 => Just("updated"), 2 => Just("paused"), 2 => Just("moved"), 1 => Just("deleted")
    ];
    let status =
        prop_oneof![4 => Just("new"), 4 => Just("open"), 1 => Just("done"), 2 => Just("odd")];
    let items = prop::option::weighted(0.8, any::<[bool; 3]>());
    let items = (items, prop::bool::weighted(0.4));
    let spelling = prop::sample::select(vec![
        Spelling::Plain,
        Spelling::Fraction,
        Spelling::Exponent,
        Spelling::Text,
    ]);
    let spellings = prop::array::uniform4(spelling);
    let version = (0_i64..3, prop::bool::weighted(0.3));
    (family, action, (0_u8..3, 0_u8..3), version, status, items, spellings).prop_map(
        |(
            family,
            action,
            (object, owner),
            (version, missing),
            status,
            (items, more),
            spellings,
        )| {
            let version = Some(version);
            let sent =
                Sent { family, action, object, owner, version, status, items, more, spellings };
            let version = version.filter(|_| !(missing && sent.deletes()));
            Sent { version, ..sent }
        },
    )
}

/// Tables by name: rows by key, as texts.
type Tables = BTreeMap<&'static str, BTreeMap<String, Vec<String>>>;

/// The greatest event that fulfils a condition, by object.
fn greatest(
    sent: &[(String, Sent)],
    counts: impl Fn(&Sent) -> bool,
) -> BTreeMap<u8, &(String, Sent)> {
    let mut greatest = BTreeMap::<u8, &(String, Sent)>::new();
    for one in sent.iter().filter(|(_, sent)| counts(sent)) {
        let held = greatest.entry(one.1.object).or_insert(one);
        if order(&one.1, &one.0) > order(&held.1, &held.0) {
            *held = one;
        }
    }
    greatest
}

fn oracle(sent: &[(String, Sent)]) -> Tables {
    let names =
        ["kept", "items", "parts", "picked", "removed", "updated", "revived", "children", "leaves"];
    let mut tables: Tables = names.map(|name| (name, BTreeMap::new())).into();
    let mut put = |table: &'static str, key: String, row: &[&str]| {
        let row = row.iter().map(|&text| text.to_owned()).collect();
        tables.get_mut(table).unwrap().insert(key, row);
    };
    let flag = |deleted: bool| if deleted { "1" } else { "0" };
    for (name, thing) in [("ada", "10"), ("grace", "20"), ("ines", "30")] {
        put("updated", name.to_owned(), &[thing, "NULL", "NULL", "NULL"]);
    }
    let mut gone = BTreeSet::new();
    for (object, (id, sent)) in greatest(sent, |sent| sent.family == "thing") {
        let (key, owner) = (key(object), key(sent.owner));
        let deleted = sent.deletes();
        put("kept", key.clone(), &[sent.status, &owner, id, flag(deleted)]);
        let name = ["ada", "grace", "ines"][usize::from(object)];
        put("updated", name.to_owned(), &[&key, sent.status, id, flag(deleted)]);
        if deleted {
            gone.insert(object);
        } else {
            put("removed", key, &[sent.status, id]);
        }
    }
    // An event without a list does not change it.
    for (object, (_, sent)) in
        greatest(sent, |sent| sent.family == "thing" && (sent.items.is_some() || sent.deletes()))
    {
        for item in (0..3).filter(|item| !sent.deletes() && sent.items.unwrap()[*item]) {
            put("items", format!("{} {}0", key(object), item + 1), &[sent.status]);
        }
    }
    // Of the whole lists, the greatest; then the parts that are greater, each for its own rows.
    let of_list = |sent: &Sent| sent.family == "thing" && (sent.items.is_some() || sent.deletes());
    let is_whole = |sent: &Sent| of_list(sent) && (sent.deletes() || !sent.more);
    let whole = greatest(sent, is_whole);
    for object in 0..3 {
        let whole = whole.get(&object).map(|(id, sent)| (order(sent, id), sent));
        let of_object = sent.iter().filter(|(_, sent)| sent.object == object && of_list(sent));
        let parts = of_object.filter(|(_, sent)| !is_whole(sent));
        let parts: BTreeMap<_, _> = parts.map(|(id, sent)| (order(sent, id), sent)).collect();
        let newer =
            parts.into_iter().filter(|(of, _)| whole.as_ref().is_none_or(|(whole, _)| of > whole));
        for (_, sent) in whole.clone().into_iter().chain(newer) {
            for item in (0..3).filter(|item| !sent.deletes() && sent.items.unwrap()[*item]) {
                put("parts", format!("{} {}0", key(object), item + 1), &[sent.status]);
            }
        }
    }
    let is_picked = |sent: &Sent| {
        sent.family == "thing"
            && (["new", "done"].contains(&sent.status)
                || (sent.status == "open" && sent.owner == 1))
    };
    for (object, (id, sent)) in greatest(sent, is_picked) {
        put("picked", key(object), &[sent.status, id, flag(sent.deletes())]);
    }
    for (object, (id, sent)) in greatest(sent, |sent| sent.family == "other") {
        put("revived", key(object), &[sent.status, id, flag(sent.deletes())]);
    }
    for (family, table) in [("child", "children"), ("leaf", "leaves")] {
        let above = std::mem::take(&mut gone);
        for (object, (id, sent)) in greatest(sent, |sent| sent.family == family) {
            let deleted = sent.deletes() || above.contains(&sent.owner);
            put(table, key(object), &[&key(sent.owner), sent.status, id, flag(deleted)]);
            gone.extend(Some(object).filter(|_| deleted));
        }
    }
    tables
}

fn tables(fixture: &Fixture) -> Tables {
    let read = |columns: &str, table: &str| {
        let rows = fixture.rows(&format!("SELECT {columns} FROM {table}"));
        rows.into_iter().map(|mut row| (row.remove(0), row)).collect()
    };
    [
        ("kept", "id, status, owner, _event_id, CAST(_deleted AS TEXT)"),
        ("items", "thing || ' ' || id, status"),
        ("parts", "thing || ' ' || id, status"),
        ("picked", "id, status, _event_id, CAST(_deleted AS TEXT)"),
        ("removed", "CAST(id AS TEXT), status, _event_id"),
        ("updated", "name, thing, status, _event_id, CAST(_deleted AS TEXT)"),
        ("revived", "CAST(id AS TEXT), status, _event_id, CAST(_deleted AS TEXT)"),
        ("children", "id, owner, status, _event_id, CAST(_deleted AS TEXT)"),
        ("leaves", "id, owner, status, _event_id, CAST(_deleted AS TEXT)"),
    ]
    .into_iter()
    .map(|(table, columns)| (table, read(columns, table)))
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_events_in_any_order_end_in_the_tables_of_the_greatest(
        sent in prop::collection::vec(any_sent(), 1..40),
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
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
            event(id, &format!("{}.{}", sent.family, sent.action), &sent.body(), 1)
        };
        let fixture = Fixture::new(RULES, TABLES);
        let mut sizes = sizes.into_iter().cycle();
        while !order.is_empty() {
            let size = sizes.next().unwrap_or(1).min(order.len());
            let batch: Vec<_> = order.drain(..size).map(delivery).collect();
            for (fate, verdict) in fixture.process(&fixture.store, &batch) {
                prop_assert!(matches!(fate, Fate::Applied | Fate::Duplicate), "{:?}", fate);
                prop_assert_eq!(verdict, Verdict::Ack);
            }
        }
        prop_assert_eq!(tables(&fixture), oracle(&sent));
    }
}
