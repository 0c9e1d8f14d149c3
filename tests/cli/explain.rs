//! `hookmill explain`.

use serde_json::{Value, json};

use crate::{Dev, hookmill, printed, shown, succeeds, with_files};

/// Rules for each kind of result of `explain`.
const EXPLAINED: &str = r#"
[sources.shop]
scheme = "svix"
secrets = ["env:A"]

[sources.other]
scheme = "github"
secrets = ["env:B"]

[database]
migrations = "app"

[retention]
messages = "30d"

[[rules]]
name = "things"
on = ["shop:thing.*"]
table = "things"
key = { id = "id" }
version = "at"
set = { name = "name" }
delete = "thing.deleted"
tombstone = false

[[rules]]
name = "dear-things"
on = ["shop:thing.*"]
when = { price = "dear" }
table = "counts"
key = { id = "id" }
add = { n = 1 }

[[rules]]
name = "parts"
on = ["shop:thing.*"]
each = "parts"
table = "counts"
key = { id = "@.id" }
add = { n = 1 }

[[rules]]
name = "orders"
on = ["shop:orders.*"]
table = "counts"
key = { id = "id" }
add = { n = 1 }

[[rules]]
name = "elsewhere"
on = ["other:*"]
table = "counts"
key = { id = "id" }
add = { n = 1 }
"#;

/// A folder with [`EXPLAINED`], its tables, and bodies.
fn explained() -> tempfile::TempDir {
    let sql = "CREATE TABLE things (id TEXT PRIMARY KEY, name TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
        _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE counts (id TEXT PRIMARY KEY, n INTEGER) STRICT, WITHOUT ROWID;";
    let older = r#"{ "type": "thing.updated", "id": "thing_1", "at": 1, "name": "old" }"#;
    let newer =
        r#"{ "type": "thing.updated", "id": "thing_1", "at": 3, "name": "new", "parts": [] }"#;
    let files = [
        ("older.json", older),
        ("newer.json", newer),
        ("deleted.json", &newer.replace("updated", "deleted")),
        ("unknown.json", &newer.replace("thing.updated", "unknown")),
        ("odd.json", &newer.replace('3', "\"today\"")),
        ("no.json", "no"),
    ];
    with_files(EXPLAINED, sql, &files)
}

#[test]
fn the_results_of_rules_are_explained() {
    let folder = explained();
    let explain = |file: &str| shown(folder.path(), &["explain", "shop", "evt_2", "--file", file]);
    insta::assert_snapshot!(explain("newer.json"), @r#"
    exit code 0
    --- stdout
    shop: thing.updated evt_2

    rule things runs:
        -- rule things
        WITH _rows AS MATERIALIZED (SELECT key AS _place, value AS _row FROM jsonb_each(?1))
        INSERT INTO "things" ("id", "name", "_version", "_precedence", "_event_id", "_deleted")
        SELECT _row ->> 6, _row ->> 7, _row ->> 3, _row ->> 4, _row ->> 1, _row ->> 5 FROM _rows
        WHERE true
        AND NOT EXISTS (SELECT 1 FROM row_guards AS _gone WHERE _gone.table_name = 'things' AND _gone.key = json_array(CAST(_row ->> 6 AS TEXT))
        AND (_gone.version, _gone.precedence, _gone.event_id) > (_row ->> 3, _row ->> 4, _row ->> 1))
        ON CONFLICT ("id") DO UPDATE SET "name" = excluded."name", "_version" = excluded."_version", "_precedence" = excluded."_precedence", "_event_id" = excluded."_event_id", "_deleted" = excluded."_deleted"
        WHERE (excluded."_version", excluded."_precedence", excluded."_event_id")
        >= ("things"."_version", "things"."_precedence", "things"."_event_id")

        ?1 = [["shop","evt_2",0,3,0,0,"thing_1","new"]]

    rule dear-things does not run: `when` does not match: the value at `price` is nothing
    rule parts does not run: the list is missing, or no element matches the conditions
    rule orders does not run: `on` matches only shop:orders.*
    rules of other sources: 1

    things: a new row
      + _deleted = 0
      + _event_id = "evt_2"
      + _precedence = 0
      + _version = 3
      + id = "thing_1"
      + name = "new"

    The event is applied.
    --- stderr
    there is no data folder here; the tables are treated as empty
    "#);

    insta::assert_snapshot!(shown(folder.path(), &["explain", "shop", "evt_9"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: no Hookmill data in .hookmill; `hookmill dev` or `hookmill serve` creates it; --data chooses another folder
    ");
    insta::assert_snapshot!(shown(folder.path(), &["explain", "shap", "evt_9"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: no source `shap` in hookmill.toml
    ");
    insta::assert_snapshot!(explain("no.json"), @"
    exit code 1
    --- stdout
    --- stderr
    error: no.json is not an event of `shop`: ingress rejects it: malformed_event: the body is not valid JSON (line 1, column 2)
    ");
}

#[test]
fn the_changes_to_rows_are_explained_and_nothing_is_written() {
    let folder = explained();
    let dev = Dev::start(folder.path());
    let send = ["send", "shop", "thing.updated", "--id", "evt_1", "--body", "older.json"];
    succeeds(folder.path(), &send);
    drop(dev);
    let counts = || {
        let data = folder.path().join(".hookmill/data.db");
        let database = rusqlite::Connection::open(data).unwrap();
        let count = |table: &str| {
            let sql = format!("SELECT count(*), coalesce(max(_version), 0) FROM {table}");
            let sql = if table == "things" { sql } else { sql.replace("max(_version)", "0") };
            database.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        ["events", "things", "counts", "row_guards", "dead_letters"].map(count)
    };
    let written: [(i64, i64); 5] = counts();
    assert_eq!(written, [(1, 0), (1, 1), (0, 0), (0, 0), (0, 0)]);
    let changes = |arguments: &[&str]| {
        let all = [&["explain", "shop", "--json"], arguments].concat();
        let output = succeeds(folder.path(), &all);
        let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
        let event = &explained[0];
        json!([event["outcome"], event["error"], event["rows"]])
    };
    let row = |version: i64, event: &str, name: &str| json!({ "id": "thing_1", "name": name, "_version": version, "_precedence": 0, "_event_id": event, "_deleted": 0 });
    // A stored event, as if it arrived for the first time.
    let old = row(1, "evt_1", "old");
    assert_eq!(
        changes(&["evt_1"]),
        json!(["applied", null, [{ "table": "things", "before": old, "after": old }]])
    );
    let of_file = |file: &str| changes(&["evt_2", "--file", file]);
    assert_eq!(
        of_file("newer.json"),
        json!(["applied", null, [{ "table": "things", "before": old, "after": row(3, "evt_2", "new") }]])
    );
    assert_eq!(
        of_file("deleted.json"),
        json!(["applied", null, [{ "table": "things", "before": old, "after": null }]])
    );
    assert_eq!(of_file("unknown.json"), json!(["recorded", null, []]));
    assert_eq!(
        of_file("odd.json"),
        json!([
            "dead_letter",
            "unreadable: rule `things`: the value at `at` is not a valid whole number",
            []
        ])
    );
    assert_eq!(counts(), written);
}

/// An event that changes nothing looks like a lost one.
#[test]
fn a_row_that_a_newer_event_has_written_is_explained() {
    let folder = explained();
    let dev = Dev::start(folder.path());
    let why = |file: &str, sent: &[(&str, &str)]| {
        for (id, body) in sent {
            let send = ["send", "shop", "thing.updated", "--id", id, "--body", body];
            succeeds(folder.path(), &send);
        }
        let arguments = ["explain", "shop", "evt_0", "--file", file];
        let text = shown(folder.path(), &arguments);
        let mut lines = text.lines().filter(|line| line.contains("leaves a row as it is"));
        (lines.next().unwrap_or_default().trim().to_owned(), text)
    };
    let (newer, text) = why("older.json", &[("evt_2", "newer.json")]);
    assert_eq!(
        newer,
        "It leaves a row as it is. `things` (id = \"thing_1\"): event evt_2 is newer: its version is 3, and that of this event is 1"
    );
    assert!(text.contains("things: an unchanged row"), "{text}");
    assert_eq!(
        why("newer.json", &[]).0,
        "It leaves a row as it is. `things` (id = \"thing_1\"): event evt_2 has the same version, and its id is the greater one"
    );
    let shown_already = shown(folder.path(), &["explain", "shop", "evt_2", "--file", "newer.json"]);
    assert!(
        shown_already.contains("(id = \"thing_1\"): it shows this event already"),
        "{shown_already}"
    );
    assert_eq!(why("deleted.json", &[]).0, "");
    // The removed row has left its guard.
    assert_eq!(
        why("newer.json", &[("evt_3", "deleted.json")]).0,
        "It leaves a row as it is. `things` (id = \"thing_1\"): event evt_3 has the same version and deletes"
    );
    drop(dev);
}

/// A deleted parent deletes its children, and those that come later.
#[test]
fn the_children_of_a_deleted_parent_are_explained() {
    let rules = r#"
[sources.shop]
scheme = "svix"
secrets = ["env:A"]

[database]
migrations = "app"

[[rules]]
name = "teams"
on = ["shop:team.*"]
table = "teams"
key = { id = "team" }
version = "at"
delete = "team.deleted"
final = true

[[rules]]
name = "members"
on = ["shop:member.*"]
table = "members"
key = { id = "id" }
version = "at"
set = { team = "team" }
parents = { team = "teams" }
"#;
    let guard = "_version INTEGER NOT NULL, _precedence INTEGER NOT NULL, _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL";
    let sql = format!(
        "CREATE TABLE teams (id TEXT PRIMARY KEY, {guard}) STRICT;
         CREATE TABLE members (id TEXT PRIMARY KEY, team TEXT, {guard}) STRICT;
         CREATE INDEX members_of_team ON members (team);"
    );
    let files = [
        ("ada.json", r#"{ "type": "member.joined", "id": "ada", "team": "t1", "at": 1 }"#),
        ("bob.json", r#"{ "type": "member.joined", "id": "bob", "team": "t1", "at": 9 }"#),
        ("gone.json", r#"{ "type": "team.deleted", "team": "t1", "at": 5 }"#),
    ];
    let folder = with_files(rules, &sql, &files);
    let dev = Dev::start(folder.path());
    let send = |id: &str, kind: &str, file: &str| {
        succeeds(folder.path(), &["send", "shop", kind, "--id", id, "--body", file]);
    };
    let deleted = |file: &str, id: &str| {
        let arguments = ["explain", "shop", id, "--file", file, "--json"];
        let explained = &printed(folder.path(), &arguments)[0];
        let rows = explained["rows"].as_array().unwrap().iter();
        let row = rows.filter(|row| row["table"] == "members").map(|row| {
            let deleted = |when: &str| row[when]["_deleted"].clone();
            (deleted("before"), deleted("after"))
        });
        row.collect::<Vec<_>>()
    };
    let null = Value::Null;
    send("evt_1", "member.joined", "ada.json");
    assert_eq!(deleted("gone.json", "evt_2"), [(0.into(), 1.into())]);
    send("evt_2", "team.deleted", "gone.json");
    assert_eq!(deleted("bob.json", "evt_3"), [(null, 1.into())]);
    assert_eq!(deleted("ada.json", "evt_1"), [(1.into(), 1.into())]);
    drop(dev);
}

/// A version in a header, which the body does not have.
#[test]
fn a_header_is_sent_and_explained() {
    let config = r#"
[sources.shop]
scheme = "svix"
secrets = ["env:A"]
keep_headers = ["X-Sent-At"]

[database]
migrations = "app"

[[rules]]
name = "things"
on = ["shop:thing"]
table = "things"
key = { id = "id" }
version = { rfc3339 = "header:X-Sent-At" }
set = { sent = "header:X-Sent-At" }
"#;
    let sql = "CREATE TABLE things (id TEXT PRIMARY KEY, sent TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
        _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;";
    let thing = ("thing.json", r#"{ "type": "thing", "id": "thing_1" }"#);
    let folder = with_files(config, sql, &[thing]);
    let dev = Dev::start(folder.path());
    let header = ["--header", "X-Sent-At: 2026-01-31T10:00:00Z"];
    let send = ["send", "shop", "thing", "--id", "evt_1", "--body", "thing.json"];
    succeeds(folder.path(), &[&send[..], &header].concat());
    let without = hookmill(folder.path(), &["send", "shop", "thing", "--body", "thing.json"]);
    assert_eq!(without.status.code(), Some(1), "an event without its version is a dead letter");
    drop(dev);
    let explain = ["explain", "shop", "evt_2", "--file", "thing.json", "--json"];
    let explained = printed(folder.path(), &[&explain[..], &header].concat());
    let sent = |row: &str| explained[0]["rows"][0][row]["sent"].clone();
    assert_eq!([sent("before"), sent("after")], ["2026-01-31T10:00:00Z"; 2]);
}

/// JSON has neither an infinity nor bytes, and databases have both.
#[test]
fn rows_with_values_that_json_lacks_are_explained_and_tested() {
    let config = r#"
[sources.shop]
scheme = "svix"
secrets = ["env:A"]

[database]
migrations = "app"

[[rules]]
name = "totals"
on = ["shop:sold"]
table = "totals"
key = { id = "id" }
add = { n = "n" }

[[tests]]
given = [
    { source = "shop", file = "sold.json", id = "1" },
    { source = "shop", file = "sold.json", id = "2" },
]
expect = [{ table = "totals", row = { id = "a", total = "Inf" } }]
"#;
    let sql = "CREATE TABLE totals (id TEXT PRIMARY KEY, n INTEGER, total REAL DEFAULT 9e999, raw BLOB DEFAULT x'00ff') STRICT, WITHOUT ROWID;";
    let files = [
        ("sold.json", r#"{ "type": "sold", "id": "a", "n": 1 }"#),
        ("nul.json", r#"{ "type": "sold", "id": "a\u0000b", "n": 1 }"#),
        ("beyond.json", r#"{ "type": "sold", "id": "a", "n": 1e999 }"#),
    ];
    let folder = with_files(config, sql, &files);
    let checked = shown(folder.path(), &["check"]);
    assert!(checked.starts_with("exit code 0"), "{checked}");
    let dev = Dev::start(folder.path());
    for id in ["1", "2"] {
        let send = ["send", "shop", "sold", "--id", id, "--body", "sold.json"];
        succeeds(folder.path(), &send);
    }
    drop(dev);
    let explain = |file: &str| {
        let output = succeeds(folder.path(), &["explain", "shop", "3", "--json", "--file", file]);
        let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
        json!([explained[0]["error"], explained[0]["rows"]])
    };
    let row = |n: u32| json!({ "id": "a", "n": n, "total": "Inf", "raw": "00FF" });
    assert_eq!(
        explain("sold.json"),
        json!([null, [{ "table": "totals", "before": row(2), "after": row(3) }]])
    );
    for (file, problem) in [
        ("nul.json", "`id` is not a valid key: it contains a NUL character"),
        ("beyond.json", "`n` is not a valid number of at most 64 bits"),
    ] {
        let error = format!("unreadable: rule `totals`: the value at {problem}");
        assert_eq!(explain(file), json!([error, []]));
    }
}
