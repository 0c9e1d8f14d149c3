//! Rules on a real SQLite: for any history of events, delivered in any order and batches, with any duplicates, the tables
//! are those of an oracle that applies the history once, in order.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

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

# A deleted row stays, and says that it is deleted.
[[rules]]
name = "marked"
on = ["s:thing.*"]
table = "marked"
key = { id = "data.id" }
version = "at"
tie = { precedence = { column = "status", order = ["new", "open", "done"] } }
set = { status = "data.status", text = "data.text" }
delete = "thing.deleted"

# A deleted row is gone. Its key has two columns.
[[rules]]
name = "removed"
on = ["s:thing.created", "s:thing.updated"]
table = "removed"
key = { kind = { value = "thing" }, number = "data.number" }
version = { unix_seconds = "at" }
tie = { precedence = { column = "status", order = ["new", "open", "done"] } }
set = { status = "data.status", at = { unix_seconds = "at" }, by = { event = "id" } }

[[rules]]
name = "removes"
on = ["s:thing.deleted"]
table = "removed"
key = { kind = { value = "thing" }, number = "data.number" }
version = { unix_seconds = "at" }
delete = "*"
tombstone = false

# The rows of a list. Their events compare as in `marked`.
[[rules]]
name = "items"
on = ["s:thing.*"]
each = "data.items"
when = { "@.kept" = true }
table = "items"
key = { thing = "data.id", id = "@.id" }
version = "at"
set = { amount = { decimal = "@.amount", scale = 2 }, text = "data.text" }
delete = "thing.deleted"

# Rows of the application, found by a column other than their key.
[[rules]]
name = "accounts"
on = ["s:thing.*"]
table = "accounts"
key = { thing = "data.id" }
update = true
version = "at"
set = { status = "data.status" }
delete = "thing.deleted"

# Only what fulfils a condition.
[[rules]]
name = "finished"
on = ["s:thing.created", "s:thing.updated"]
when = { "data.status" = "done" }
table = "finished"
key = { id = "data.id" }
version = "at"
set = { text = "data.text" }

[[rules]]
name = "counts"
on = ["s:thing.*"]
table = "counts"
key = { id = "data.id", type = { event = "type" } }
add = { n = 1, total = { decimal = "data.total", scale = 2 } }

# Each element of a list counts.
[[rules]]
name = "sold"
on = ["s:thing.*"]
each = "data.items"
table = "sold"
key = { id = "@.id" }
add = { n = 1 }
"#;

const TABLES: &str = "
CREATE TABLE marked (id TEXT PRIMARY KEY, status TEXT, text TEXT, _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL, _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE removed (kind TEXT, number TEXT, status TEXT, at INTEGER, by TEXT, _version INTEGER NOT NULL,
    _precedence INTEGER NOT NULL, _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL, PRIMARY KEY (kind, number))
    STRICT, WITHOUT ROWID;
CREATE TABLE items (thing TEXT, id TEXT, amount INTEGER, text TEXT, PRIMARY KEY (thing, id)) STRICT, WITHOUT ROWID;
CREATE TABLE accounts (name TEXT PRIMARY KEY, thing TEXT UNIQUE, status TEXT, _version INTEGER, _precedence INTEGER,
    _event_id TEXT, _deleted INTEGER) STRICT;
INSERT INTO accounts (name, thing) VALUES ('ada', 'thing_0'), ('grace', 'thing_1');
CREATE TABLE finished (id TEXT PRIMARY KEY, text TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
    _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE counts (id TEXT, type TEXT, n INTEGER, total INTEGER, PRIMARY KEY (id, type)) STRICT, WITHOUT ROWID;
CREATE TABLE sold (id TEXT PRIMARY KEY, n INTEGER) STRICT, WITHOUT ROWID;
";

const STATUSES: [&str; 3] = ["new", "open", "done"];

/// A change of a thing.
#[derive(Clone, Debug)]
struct Step {
    thing: usize,
    /// Whether a second passes before it.
    later: bool,
    /// How many steps its status advances.
    further: usize,
    deletes: bool,
    /// Its list: which of three items are in it, and which of those count.
    items: [(bool, bool); 3],
}

fn any_step() -> impl Strategy<Value = Step> {
    let items = prop::array::uniform3((any::<bool>(), prop::bool::weighted(0.8)));
    (0_usize..3, any::<bool>(), 0_usize..2, prop::bool::weighted(0.2), items).prop_map(
        |(thing, later, further, deletes, items)| Step { thing, later, further, deletes, items },
    )
}

/// The events of a history, as the provider sends them: types and bodies.
fn events(steps: &[Step]) -> Vec<(&'static str, Value)> {
    // For each thing: whether it exists, and its status.
    let mut things: [Option<usize>; 3] = [None; 3];
    let mut was_there = [false; 3];
    let mut second = 1_767_225_600;
    let mut events = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let thing = &mut things[step.thing];
        // A recreated thing is created in another second; in the same second it would count as deleted.
        let anew = thing.is_none() && was_there[step.thing];
        second += i64::from(step.later || anew);
        let (kind, status) = match *thing {
            None => ("thing.created", 0),
            Some(status) if step.deletes => ("thing.deleted", status),
            // If the status stayed new, the ids of two events would decide, and they contradict the history.
            Some(0) if !step.deletes => ("thing.updated", 1 + step.further),
            Some(status) => ("thing.updated", (status + step.further).min(2)),
        };
        *thing = (kind != "thing.deleted").then_some(status);
        was_there[step.thing] = true;
        let items = step.items.iter().enumerate().filter(|(_, (listed, _))| *listed);
        let items: Vec<_> = items
            .map(|(item, (_, kept))| {
                json!({ "id": format!("item_{item}"), "kept": kept, "amount": format!("{number}.5") })
            })
            .collect();
        let mut data = json!({
            "id": format!("thing_{}", step.thing),
            "number": step.thing,
            "status": STATUSES[status],
            "text": format!("text {number}"),
            "total": "0.25",
        });
        // Some events have no list, and do not change it.
        if number % 5 != 4 {
            data["items"] = items.into();
        }
        events.push((kind, json!({ "at": second, "data": data })));
    }
    events
}

/// Ids grow with the history, except those of creations, where ids do not decide.
fn id_of(number: usize, kind: &str) -> String {
    let letter = if kind == "thing.created" { 'z' } else { 'a' };
    format!("evt_{letter}{number:03}")
}

/// Tables by name: rows by key, as texts.
type Tables = BTreeMap<&'static str, BTreeMap<String, Vec<String>>>;

/// The result of a history: each event applied once, in order, without versions.
fn oracle(events: &[(&str, Value)]) -> Tables {
    let mut tables: Tables =
        ["marked", "removed", "items", "accounts", "finished", "counts", "sold"]
            .map(|name| (name, BTreeMap::new()))
            .into();
    for (name, thing) in [("ada", "thing_0"), ("grace", "thing_1")] {
        let row = [thing, "NULL", "NULL"].map(ToOwned::to_owned).to_vec();
        tables.get_mut("accounts").unwrap().insert(name.to_owned(), row);
    }
    for (number, (kind, body)) in events.iter().enumerate() {
        let data = &body["data"];
        let text = |name: &str| data[name].as_str().unwrap().to_owned();
        let (id, status, deleted) = (text("id"), text("status"), *kind == "thing.deleted");
        let flag = u8::from(deleted).to_string();
        let mut put = |table: &'static str, key: String, row: Vec<String>| {
            tables.get_mut(table).unwrap().insert(key, row);
        };
        put("marked", id.clone(), vec![status.clone(), text("text"), flag.clone()]);
        if !deleted && status == "done" {
            put("finished", id.clone(), vec![text("text")]);
        }
        let seconds = body["at"].as_i64().unwrap();
        let row = vec![status.clone(), format!("{}", seconds * 1000), id_of(number, kind)];
        put("removed", data["number"].to_string(), row);
        if deleted {
            tables.get_mut("removed").unwrap().remove(&data["number"].to_string());
        }
        for account in tables.get_mut("accounts").unwrap().values_mut() {
            if account[0] == id {
                *account = vec![id.clone(), status.clone(), flag.clone()];
            }
        }
        let add = |table: &mut BTreeMap<String, Vec<String>>, key: String, more: &[u64]| {
            let row = table.entry(key).or_insert_with(|| vec!["0".to_owned(); more.len()]);
            for (value, more) in row.iter_mut().zip(more) {
                *value = (value.parse::<u64>().unwrap() + more).to_string();
            }
        };
        add(tables.get_mut("counts").unwrap(), format!("{id} {kind}"), &[1, 25]);
        let Some(list) = data["items"].as_array() else {
            if deleted {
                tables.get_mut("items").unwrap().retain(|key, _| !key.starts_with(&id));
            }
            continue;
        };
        for item in list {
            add(tables.get_mut("sold").unwrap(), item["id"].as_str().unwrap().to_owned(), &[1]);
        }
        let items = tables.get_mut("items").unwrap();
        items.retain(|key, _| !key.starts_with(&id));
        for item in list.iter().filter(|item| item["kept"] == true && !deleted) {
            let amount = item["amount"].as_str().unwrap().replace('.', "") + "0";
            let amount = amount.parse::<u64>().unwrap().to_string();
            let key = format!("{id} {}", item["id"].as_str().unwrap());
            items.insert(key, vec![amount, text("text")]);
        }
    }
    tables
}

/// The actual tables.
fn tables(fixture: &Fixture) -> Tables {
    let read = |columns: &str, table: &str| {
        let rows = fixture.rows(&format!("SELECT {columns} FROM {table}"));
        rows.into_iter().map(|mut row| (row.remove(0), row)).collect()
    };
    let text = |column: &str| format!("CAST({column} AS TEXT)");
    [
        ("marked", format!("id, status, text, {}", text("_deleted"))),
        ("removed", format!("number, status, {}, by", text("at"))),
        ("items", format!("thing || ' ' || id, {}, text", text("amount"))),
        ("accounts", format!("name, thing, status, {}", text("_deleted"))),
        ("finished", "id, text".to_owned()),
        ("counts", format!("id || ' ' || type, {}, {}", text("n"), text("total"))),
        ("sold", format!("id, {}", text("n"))),
    ]
    .into_iter()
    .map(|(table, columns)| (table, read(&columns, table)))
    .collect()
}

fn delivery(number: usize, (kind, body): &(&str, Value)) -> Delivery {
    event(&id_of(number, kind), kind, &body.to_string(), 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_history_in_any_order_ends_in_the_tables_of_an_oracle(
        steps in prop::collection::vec(any_step(), 1..25),
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        sizes in prop::collection::vec(1_usize..8, 1..20),
    ) {
        let events = events(&steps);
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.extend(again.iter().map(|index| index.index(events.len())));
        for (one, other) in swaps {
            let length = order.len();
            order.swap(one.index(length), other.index(length));
        }
        let fixture = Fixture::new(RULES, TABLES);
        let mut sizes = sizes.into_iter().cycle();
        while !order.is_empty() {
            let size = sizes.next().unwrap_or(1).min(order.len());
            let batch: Vec<_> = order.drain(..size).map(|number| delivery(number, &events[number])).collect();
            for (fate, verdict) in fixture.process(&fixture.store, &batch) {
                prop_assert!(matches!(fate, Fate::Applied | Fate::Duplicate), "{:?}", fate);
                prop_assert_eq!(verdict, Verdict::Ack);
            }
        }
        prop_assert_eq!(tables(&fixture), oracle(&events));
    }
}

/// Two sources may give their events the same id. Each list is that of its own event.
#[test]
fn the_lists_of_two_sources_do_not_mix() {
    for more in ["", "more = 'more'"] {
        let rules = format!(
            "[sources.s]\nscheme = 'stripe'\nsecrets = ['env:A']\n[sources.t]\nscheme = 'stripe'\nsecrets = ['env:A']\n\
             [database]\nmigrations = 'app'\n[[rules]]\nname = 'items'\non = ['s:list', 't:list']\ntable = 'items'\n\
             each = 'items'\n{more}\nkey = {{ owner = 'owner', id = '@.id' }}\nversion = 'at'\n"
        );
        let order = "_version INTEGER, _precedence INTEGER, _event_id TEXT, ";
        let order = if more.is_empty() { "" } else { order };
        let table = format!(
            "CREATE TABLE items (owner TEXT, id TEXT, {order}PRIMARY KEY (owner, id)) STRICT;"
        );
        let list = |source: &str, at: i64, id: &str| {
            let body = json!({ "owner": "o", "at": at, "items": [{ "id": id }] });
            let mut list = event("1", "list", &body.to_string(), 1);
            list.text =
                list.text.replacen("\"source\":\"s\"", &format!("\"source\":\"{source}\""), 1);
            list
        };
        // The newer one, in any order; of two that are equal, one.
        for (at, newest) in [(2, "B"), (1, "B")] {
            let (one, other) = (list("s", 1, "A"), list("t", at, "B"));
            for batch in [[one.clone(), other.clone()], [other, one]] {
                let fixture = Fixture::new(&rules, &table);
                fixture.process(&fixture.store, &batch);
                let rows = fixture.rows("SELECT id FROM items");
                assert_eq!(rows, [[newest]], "{more}, version {at}");
            }
        }
    }
}
