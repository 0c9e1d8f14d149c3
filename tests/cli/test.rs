//! `hookmill test`, and what `[[tests]]` can say.

use crate::{shown, with_example};

/// Writes a configuration with these tests, and the events that they use.
fn with_tests(tests: &str) -> tempfile::TempDir {
    let example = with_example();
    let file = |name: &str| example.path().join(name);
    let rules = r#"
[database]
migrations = "app"

[[rules]]
name = "plans"
on = "stripe:customer.subscription.*"
table = "accounts"
key = { customer = "data.object.customer" }
update = true
version = { unix_seconds = "created" }
set = { plan = "data.object.plan" }

[[rules]]
name = "spent"
on = "stripe:invoice.paid"
table = "spent"
key = { customer = "data.object.customer" }
add = { total = { integer = "data.object.total" } }
"#;
    let config = std::fs::read_to_string(file("hookmill.toml")).unwrap();
    std::fs::write(file("hookmill.toml"), format!("{config}{rules}{tests}")).unwrap();
    std::fs::create_dir(file("app")).unwrap();
    let sql = "CREATE TABLE accounts (id INTEGER PRIMARY KEY, customer TEXT UNIQUE, plan TEXT, vip INTEGER NOT NULL DEFAULT 0, _version INTEGER, _precedence INTEGER, _event_id TEXT, _deleted INTEGER) STRICT;\n\
               CREATE TABLE spent (customer TEXT PRIMARY KEY, total INTEGER) STRICT;";
    std::fs::write(file("app/1000_own.sql"), sql).unwrap();
    for (name, kind, object) in [
        (
            "subscribed",
            "customer.subscription.updated",
            r#""id": "sub_1", "customer": "cus_1", "plan": "team""#,
        ),
        ("paid", "invoice.paid", r#""id": "in_1", "customer": "cus_1", "total": 4900"#),
        ("drawn", "quote.drawn", r#""id": "qt_1", "customer": "cus_1""#),
        ("half", "invoice.paid", r#""id": "in_2", "customer": "cus_1", "total": 0.5"#),
    ] {
        let body = format!(
            r#"{{ "id": "evt_{name}", "type": "{kind}", "created": 1767225600, "data": {{ "object": {{ {object} }} }} }}"#
        );
        std::fs::write(file(&format!("{name}.json")), body).unwrap();
    }
    let signed_up = r#"{ "type": "user.created", "data": { "id": "user_1", "updated_at": 1767225600000, "primary_email_address_id": "idn_1", "email_addresses": [{ "id": "idn_1", "email_address": "ada@example.com" }] } }"#;
    std::fs::write(file("signed-up.json"), signed_up).unwrap();
    example
}

const TESTS: &str = r#"
[[tests]]
name = "an existing account gets its plan"
before = [
    { table = "accounts", row = { id = 1, customer = "cus_1", vip = true } },
    { table = "customers", row = { id = "cus_1" } },
]
given = { source = "stripe", file = "subscribed.json", headers = { X-Request-Id = "1" } }
expect = [
    { table = "accounts", row = { id = 1, plan = "team", vip = true } },
    { table = "customers", row = { _version = 0, email = { exists = false } } },
    { emails = 0 },
    { texts = 0 },
    { tracked = 0 },
]

[[tests]]
name = "without an account, nothing changes"
given = { source = "stripe", file = "subscribed.json" }
expect = { table = "accounts", rows = 0 }

[[tests]]
given = { source = "stripe", file = "half.json" }
expect = [{ outcome = "dead_letter" }, { error = "whole number" }]

[[tests]]
name = "one email"
given = { source = "clerk", file = "signed-up.json" }
expect = [{ emails = 1 }, { email = { to = "ada@example.com" } }]
"#;

#[test]
fn tests_are_listed_and_selected() {
    let folder = with_tests(TESTS);
    insta::assert_snapshot!(shown(folder.path(), &["test"]), @"
    exit code 0
    --- stdout
    passed: an existing account gets its plan
    passed: without an account, nothing changes
    passed: tests[2]
    passed: one email
    --- stderr
    hookmill.toml: 4 tests passed
    ");
    insta::assert_snapshot!(shown(folder.path(), &["test", "--only", "account"]), @"
    exit code 0
    --- stdout
    passed: an existing account gets its plan
    passed: without an account, nothing changes
    --- stderr
    hookmill.toml: 2 tests passed
    ");
    insta::assert_snapshot!(shown(folder.path(), &["test", "--only", "Without", "--only", "one email"]), @"
    exit code 0
    --- stdout
    passed: without an account, nothing changes
    passed: one email
    --- stderr
    hookmill.toml: 2 tests passed
    ");
    insta::assert_snapshot!(shown(folder.path(), &["test", "--only", "email", "--only", "acount"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: no test has "acount" in its name; tests:
      an existing account gets its plan
      without an account, nothing changes
      tests[2]
      one email
    "#);
}

/// Applications read views and generated columns, so tests can too.
#[test]
fn a_test_can_expect_what_a_database_computes() {
    let folder = with_tests(
        r#"
[[tests]]
name = "a plan"
before = { table = "accounts", row = { id = 1, customer = "cus_1" } }
given = { source = "stripe", file = "subscribed.json" }
expect = [{ table = "live_accounts", row = { customer = "cus_1", plan = "team" } }, { table = "live_accounts", rows = 1 }, { table = "accounts", row = { label = "TEAM" } }]

[[tests]]
name = "no such column"
given = { source = "stripe", file = "subscribed.json" }
expect = { table = "live_accounts", row = { vip = true } }
"#,
    );
    let migration = folder.path().join("app/1001_views.sql");
    let view = "ALTER TABLE accounts ADD COLUMN label TEXT GENERATED ALWAYS AS (upper(plan));
         CREATE VIEW live_accounts AS SELECT customer, plan FROM accounts WHERE _deleted IS NOT 1;";
    std::fs::write(&migration, view).unwrap();
    insta::assert_snapshot!(shown(folder.path(), &["test"]), @r#"
    exit code 1
    --- stdout
    passed: a plan
    failed: no such column
    --- stderr
    error: hookmill.toml:146:10: test "no such column".expect: `live_accounts` has no column `vip`
      hint: possible here: `customer`, `plan`
    error: 1 of 2 tests failed
    "#);
    // SQLite creates a view without reading it.
    std::fs::write(&migration, view.replace("customer, plan", "customer, plans")).unwrap();
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:119:14: database.migrations: the view `live_accounts` cannot be read: no such column: plans
    1 error in the configuration
    ");
}

#[test]
fn a_failing_test_says_what_happened() {
    let failing = r#"
[[tests]]
name = "a dead letter explains what is missing"
given = [{ source = "stripe", file = "half.json" }, { source = "stripe", file = "paid.json" }]
expect = [{ table = "spent", row = { customer = "cus_1", total = 5000 } }, "nothing", { error = "day" }, { emails = 2 }]

[[tests]]
name = "another error"
given = { source = "stripe", file = "half.json" }
expect = [{ error = "day" }, { outcome = "applied" }]

[[tests]]
name = "emails"
given = { source = "clerk", file = "signed-up.json" }
expect = [{ emails = 0 }, { texts = 1 }, { tracked = 1 }]

[[tests]]
name = "a dead letter that nothing else shows"
given = [{ source = "stripe", file = "half.json" }, { source = "stripe", file = "paid.json" }]
expect = { table = "spent", rows = 1 }

[[tests]]
name = "no rule"
given = { source = "stripe", file = "drawn.json" }
expect = { table = "spent", rows = 1 }
"#;
    insta::assert_snapshot!(shown(with_tests(failing).path(), &["test"]), @r#"
    exit code 1
    --- stdout
    failed: a dead letter explains what is missing
    failed: another error
    failed: emails
    failed: a dead letter that nothing else shows
    failed: no rule
    --- stderr
    error: hookmill.toml:140:11: test "a dead letter explains what is missing".expect[0]: `spent` is not as expected (-: expected, +: found)
        customer = "cus_1"
      - total = 5000
      + total = 4900
        an event is a dead letter: unreadable: rule `spent`: the value at `data.object.total` is not a valid whole number
    error: hookmill.toml:140:76: test "a dead letter explains what is missing".expect[1]: an event is a dead letter: unreadable: rule `spent`: the value at `data.object.total` is not a valid whole number
    error: hookmill.toml:140:87: test "a dead letter explains what is missing".expect[2]: the error is not "day"
        an event is a dead letter: unreadable: rule `spent`: the value at `data.object.total` is not a valid whole number
    error: hookmill.toml:140:106: test "a dead letter explains what is missing".expect[3]: 0 emails sent, not 2
        an event is a dead letter: unreadable: rule `spent`: the value at `data.object.total` is not a valid whole number
    error: hookmill.toml:145:11: test "another error".expect[0]: the error is not "day"
        an event is a dead letter: unreadable: rule `spent`: the value at `data.object.total` is not a valid whole number
    error: hookmill.toml:145:30: test "another error".expect[1]: the event is a dead letter: unreadable: rule `spent`: the value at `data.object.total` is not a valid whole number
    error: hookmill.toml:150:11: test "emails".expect[0]: 1 email sent, not 0
        data = {}
        rule = "welcome"
        template = "welcome"
        to = ["ada@example.com"]
    error: hookmill.toml:150:27: test "emails".expect[1]: 0 sms sent, not 1
    error: hookmill.toml:150:42: test "emails".expect[2]: 0 tracking events sent, not 1
    error: hookmill.toml:155:10: test "a dead letter that nothing else shows".expect: an event is a dead letter: unreadable: rule `spent`: the value at `data.object.total` is not a valid whole number
      hint: if it should be one, add a part of its error to `expect`: { error = "…" }
    error: hookmill.toml:160:10: test "no rule".expect: `spent` has 0 rows, not 1
        no rule matches an event: its type is `stripe:quote.drawn`
    error: 5 of 5 tests failed
    "#);
}

#[test]
fn an_invalid_test_is_an_error() {
    let invalid = r#"
[[tests]]
name = "no such table"
before = { table = "acounts", row = { id = 1 } }
given = { source = "stripe", file = "paid.json" }
expect = "nothing"

[[tests]]
name = "no such column"
before = { table = "accounts", row = { id = 1, custmer = "cus_1" } }
given = { source = "stripe", file = "paid.json" }
expect = "nothing"

[[tests]]
name = "not unique"
before = [{ table = "accounts", row = { id = 1, customer = "a" } }, { table = "accounts", row = { id = 1, customer = "b" } }]
given = { source = "stripe", file = "paid.json" }
expect = "nothing"
"#;
    insta::assert_snapshot!(shown(with_tests(invalid).path(), &["test"]), @r#"
    exit code 1
    --- stdout
    failed: no such table
    failed: no such column
    failed: not unique
    --- stderr
    error: hookmill.toml:139:20: test "no such table".before.table: there is no table `acounts`
      hint: did you mean `accounts`?
    error: hookmill.toml:145:38: test "no such column".before.row: table `accounts` has no column `custmer`
      hint: did you mean `customer`?
    error: hookmill.toml:151:97: test "not unique".before[1].row: the store refused: UNIQUE constraint failed: accounts.id
    error: 3 of 3 tests failed
    "#);
    let unknown = r#"
[[tests]]
name = "unknown keys"
before = { tabel = "accounts", row = {} }
given = { source = "stripe", file = "paid.json", header = {} }
expect = [{ email = { tempalte = "a" } }, { sms = { rows = 0 } }, { track = { data = {}, user = "a" } }, { emials = 0 }, { emails = 0, texts = 0 }]
"#;
    insta::assert_snapshot!(shown(with_tests(unknown).path(), &["test"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:139:12: test "unknown keys".before: unknown key `tabel`
      hint: did you mean `table`?
    error: hookmill.toml:140:50: test "unknown keys".given: unknown key `header`
      hint: did you mean `headers`?
    error: hookmill.toml:141:23: test "unknown keys".expect[0].email.tempalte: unknown key `tempalte`
      hint: did you mean `template`?
    error: hookmill.toml:141:53: test "unknown keys".expect[1].sms.rows: unknown key `rows`
      hint: possible here: `rule`, `to`, `body`, `data`
    error: hookmill.toml:141:90: test "unknown keys".expect[2].track.user: unknown key `user`
      hint: possible here: `rule`, `event`, `to`, `data`
    error: hookmill.toml:141:108: test "unknown keys".expect[3]: unknown key `emials`
      hint: did you mean `emails`?
    error: hookmill.toml:141:122: test "unknown keys".expect[4]: `emails`, `texts` exclude each other
      hint: expected "nothing", or a table with one of `table`, `email`, `emails`, `sms`, `texts`, `track`, `tracked`, `outcome` and `error`
    7 errors in the configuration
    "#);
}
