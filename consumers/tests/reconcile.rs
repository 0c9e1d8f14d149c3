//! A reconciliation finds what differs between the tables and a provider's API, and nothing else, and repairs it through the
//! rules. On a real SQLite, with an API that changes while it is read.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

#[path = "support/provider.rs"]
mod provider;
mod support;

use std::time::Duration;

use hookmill_core::delivery::Delivery;
use hookmill_dlq::reconcile::ReconcileFilter;
use proptest::prelude::*;
use provider::*;
use serde_json::{Value, json};
use support::event;

fn of(source: &str) -> ReconcileFilter {
    ReconcileFilter { source: source.to_owned(), ..ReconcileFilter::default() }
}

/// A world whose tables have what the provider has.
fn mirrored() -> World {
    mirrored_with("")
}

fn mirrored_with(rules: &str) -> World {
    let world = World::with(rules);
    let customers = (0..150).map(|n| customer(&format!("cus_{n}"), &format!("number {n}")));
    world.lists("v1/customers", customers.collect());
    let subscriptions =
        [subscription("sub_1", "active", &[1, 2]), subscription("sub_2", "canceled", &[3])];
    world.lists("v1/subscriptions", subscriptions.into());
    world.start("import", "s", &[]);
    assert_eq!(world.steps(), [""; 0]);
    world.apply();
    world.provider.later(60_000);
    world
}

impl World {
    fn report(&self, id: &str) -> Value {
        let sql = format!("SELECT report FROM replays WHERE id = '{id}' AND state = 'done'");
        serde_json::from_str(&self.fixture.rows(&sql)[0][0]).unwrap()
    }

    /// Runs a reconciliation to its end. Returns what it found, by table.
    fn compared(&self, id: &str, filter: &ReconcileFilter) -> Value {
        self.reconcile(id, filter);
        let problems = self.steps();
        assert_eq!(problems, [""; 0], "{}", self.error(id));
        assert_eq!(self.count("listed_rows"), "0");
        self.report(id)["tables"].clone()
    }

    fn sql(&self, sql: &str) {
        self.change(hookmill_core::store::Statement::new(sql, Vec::new()));
    }
}

fn updated(id: &str, kind: &str, at: i64, object: &Value) -> Delivery {
    let body =
        json!({ "id": id, "object": "event", "created": at / 1000, "data": { "object": object } });
    event(id, kind, &body.to_string(), 1)
}

#[test]
fn what_an_import_has_loaded_is_equal() {
    let world = mirrored();
    assert_eq!(world.compared("r", &of("s")), json!({}));
    let report = world.report("r");
    assert_eq!(report["objects"]["customers"], 150);
    assert_eq!(report["objects"]["subscriptions"], 2);
    assert_eq!(report["complete"], true);
    let unlisted = report["unlisted"].as_array().unwrap();
    assert!(unlisted.contains(&"payment_methods".into()), "{unlisted:?}");
    assert!(!unlisted.contains(&"customers".into()));
    assert_eq!(
        world.provider.requests.lock().unwrap().iter().filter(|r| r.url.contains("cus_")).count(),
        2,
        "two pages each"
    );
}

#[test]
fn differences_are_reported_by_table_and_column_and_a_repair_removes_them() {
    let world = mirrored();
    world.sql("UPDATE customers SET email = 'wrong@example.com', balance = 7 WHERE id IN ('cus_3', 'cus_140')");
    world.sql("UPDATE customers SET email = 'a' WHERE id = 'cus_4'");
    world.sql("DELETE FROM customers WHERE id = 'cus_5'");
    world.sql("UPDATE subscription_items SET quantity = 9 WHERE id = 'sub_1_0'");
    world.sql("DELETE FROM subscription_items WHERE id = 'sub_1_1'");
    world.sql("INSERT INTO subscription_items (subscription_id, id, _version, _precedence, _event_id) VALUES ('sub_1', 'more', 1, 0, 'evt')");
    world.sql("UPDATE subscriptions SET _deleted = 1 WHERE id = 'sub_1'");
    world.sql("UPDATE subscriptions SET _deleted = 0 WHERE id = 'sub_2'");
    // The provider has deleted it, and the event was lost.
    world.change_list("v1/customers", |all| all.retain(|one| one["id"] != "cus_9"));
    let expected = json!({
        "customers": {
            "missing": 1, "different": 3, "extra": 1, "columns": { "email": 3, "balance": 2 },
        },
        "subscriptions": { "different": 2, "columns": { "_deleted": 2 } },
        "subscription_items": { "missing": 1, "different": 1, "extra": 1, "columns": { "quantity": 1 } },
    });
    assert_eq!(world.compared("r", &of("s")), expected);
    assert_eq!(world.count("events"), "152", "nothing was sent");
    // One table alone.
    let customers = ReconcileFilter { table: Some("customers".to_owned()), ..of("s") };
    let expected = json!({ "customers": expected["customers"] });
    assert_eq!(world.compared("one", &customers), expected);

    let repair = ReconcileFilter { repair: true, ..of("s") };
    let tables = world.compared("repair", &repair);
    assert_eq!(tables["customers"]["repaired"], 5, "{tables}");
    assert_eq!(tables["subscription_items"]["repaired"], 3, "{tables}");
    world.apply();
    world.provider.later(60_000);
    assert_eq!(world.compared("again", &of("s")), json!({}));
    let deleted = world.fixture.rows("SELECT id FROM customers WHERE _deleted = 1");
    assert_eq!(deleted, [["cus_9"]]);
    let kept = world.fixture.rows("SELECT state FROM drifts WHERE generation = 1");
    assert_eq!(kept, [[""; 0]; 0]);
}

#[test]
fn what_changes_during_the_run_is_no_difference() {
    let world = mirrored();
    // An event is on its way.
    let late = customer("cus_3", "late");
    let newer = customer("cus_4", "newer");
    let place = |id: &str, object: &Value| {
        world.change_list("v1/customers", |all| {
            let at = all.iter().position(|one| one["id"] == id).unwrap();
            all[at] = object.clone();
        });
    };
    place("cus_3", &late);
    world.reconcile("r", &of("s"));
    for _ in 0..20 {
        assert_eq!(world.step().problem, None);
        world.provider.later(1_000);
    }
    assert_eq!(world.count("drifts"), "1", "it waits to be confirmed");
    // It arrives, and another customer changes after its page was read.
    world.applied(&[updated("evt_1", "customer.updated", world.provider.now().millis(), &late)]);
    place("cus_4", &newer);
    world.applied(&[updated("evt_2", "customer.updated", world.provider.now().millis(), &newer)]);
    // One is created at the front of the list, which moves the last one of each page to the next.
    world.change_list("v1/customers", |all| all.insert(0, customer("cus_new", "new")));
    world.applied(&[updated(
        "evt_3",
        "customer.created",
        world.provider.now().millis(),
        &customer("cus_new", "new"),
    )]);
    assert_eq!(world.steps(), [""; 0]);
    assert_eq!(world.report("r")["tables"], json!({}));
}

#[test]
fn a_newer_row_is_compared_with_a_newer_object() {
    let world = mirrored();
    let now = world.provider.now().millis();
    // The event is newer than the object that the list shows.
    world.applied(&[updated(
        "evt_1",
        "customer.updated",
        now + 3_000,
        &customer("cus_3", "ahead"),
    )]);
    let wrong = json!({ "customers": { "different": 1, "columns": { "name": 1 } } });
    assert_eq!(world.compared("r", &of("s")), wrong);
    // The time of an event that is far ahead cannot be reached.
    world.applied(&[updated(
        "evt_2",
        "customer.updated",
        now + 3_000_000,
        &customer("cus_3", "far"),
    )]);
    assert_eq!(world.compared("far", &of("s")), json!({ "customers": { "unclear": 1 } }));
}

#[test]
fn the_order_of_members_is_no_difference() {
    let world = World::new();
    let with = |metadata: &str| {
        let mut object = customer("cus_1", "a");
        object["metadata"] = serde_json::from_str(metadata).unwrap();
        object
    };
    world.lists("v1/customers", vec![with(r#"{"a":"1","b":{"c":[1,2]}}"#)]);
    world.start("import", "s", &["customers"]);
    world.steps();
    world.apply();
    world.provider.later(60_000);
    world.sql(r#"UPDATE customers SET metadata = '{"b":{"c":[1,2]},"a":"1"}'"#);
    assert_eq!(world.compared("r", &of("s")), json!({}));
    world.sql(r#"UPDATE customers SET metadata = '{"b":{"c":[2,1]},"a":"1"}'"#);
    let expected = json!({ "customers": { "different": 1, "columns": { "metadata": 1 } } });
    assert_eq!(world.compared("s", &of("s")), expected);
}

#[test]
fn rows_of_other_accounts_and_deleted_rows_are_not_extra() {
    let world = mirrored();
    world.sql("UPDATE customers SET account = 'acct_1' WHERE id = 'cus_3'");
    let different = json!({ "customers": { "different": 1, "columns": { "account": 1 } } });
    assert_eq!(world.compared("r", &of("s")), different);
    world.change_list("v1/customers", |all| all.retain(|one| one["id"] != "cus_3"));
    assert_eq!(world.compared("other", &of("s")), json!({}), "another account has it");
    let filter = ReconcileFilter {
        account: Some("acct_1".to_owned()),
        table: Some("customers".to_owned()),
        ..of("s")
    };
    world.lists("v1/customers", vec![]);
    let extra = json!({ "customers": { "extra": 1, "columns": {} } });
    assert_eq!(world.compared("own", &filter), extra);
    world.sql("UPDATE customers SET _deleted = 1 WHERE id = 'cus_3'");
    assert_eq!(world.compared("deleted", &filter), json!({}));
}

#[test]
fn an_object_of_another_account_is_not_deleted() {
    let world = mirrored_with(NAMES);
    // The key's account has the customers, and only the table of the preset says so.
    let filter = ReconcileFilter { account: Some("acct_1".to_owned()), repair: true, ..of("s") };
    world.lists("v1/customers", vec![]);
    world.lists("v1/subscriptions", vec![]);
    let tables = world.compared("r", &filter);
    assert_eq!(tables, json!({ "names": { "unclear": 150 } }));
    world.apply();
    assert_eq!(world.count("customers WHERE _deleted = 1"), "0");
}

#[test]
fn a_deletion_that_is_final_is_not_repaired() {
    let world = mirrored_with(NAMES);
    let gone = customer("cus_3", "");
    world.applied(&[updated("evt_1", "customer.deleted", world.provider.now().millis(), &gone)]);
    let filter = ReconcileFilter { repair: true, ..of("s") };
    let deleted = json!({ "deleted": 1, "columns": {} });
    let found = json!({ "customers": deleted, "names": deleted });
    assert_eq!(world.compared("r", &filter), found);
    world.sql("DELETE FROM customers WHERE id = 'cus_3'");
    world.sql("DELETE FROM names WHERE id = 'cus_3'");
    let tables = world.compared("again", &filter);
    assert_eq!(tables["customers"], json!({ "missing": 1, "repaired": 1, "columns": {} }));
    world.apply();
    world.provider.later(60_000);
    assert_eq!(world.compared("equal", &of("s")), json!({}));
}

#[test]
fn a_key_for_another_account_deletes_nothing() {
    let world = mirrored();
    let keep = |left: usize| {
        world.change_list("v1/customers", |all| all.truncate(left));
        world.change_list("v1/subscriptions", Vec::clear);
    };
    keep(70);
    let filter = ReconcileFilter { repair: true, ..of("s") };
    let tables = world.compared("r", &filter);
    assert_eq!(tables["customers"], json!({ "extra": 80, "columns": {} }));
    assert_eq!(world.report("r")["withheld"], true);
    assert_eq!(world.queue.texts.lock().unwrap().len(), 0);
    // What a proxy says is no answer of the provider.
    world.lists(
        "v1/customers",
        (0..149).map(|n| customer(&format!("cus_{n}"), &format!("number {n}"))).collect(),
    );
    world.lists(
        "v1/subscriptions",
        vec![subscription("sub_1", "active", &[1, 2]), subscription("sub_2", "canceled", &[3])],
    );
    world.reconcile("proxy", &filter);
    for _ in 0..40 {
        if world.fixture.rows("SELECT reached ->> 'phase' FROM replays WHERE id = 'proxy'")
            == [["again"]]
        {
            world.provider.moods.lock().unwrap().push(Mood::Proxy);
        }
        world.step();
        world.provider.later(11_000);
    }
    assert_eq!(world.report("proxy")["tables"]["customers"], json!({ "unclear": 1 }));
    world.provider.moods.lock().unwrap().clear();
    let tables = world.compared("right", &filter);
    assert_eq!(tables["customers"], json!({ "extra": 1, "repaired": 1, "columns": {} }));
    assert_eq!(world.queue.texts.lock().unwrap().len(), 1);
}

#[test]
fn an_object_that_the_api_has_alone_cannot_be_told_for_sure() {
    let world = World::new();
    let membership = json!({
        "id": "orgmem_1", "object": "organization_membership", "role": "admin", "updated_at": 1, "created_at": 1,
        "organization": { "id": "org_1" }, "public_user_data": { "user_id": "user_1" },
    });
    world.lists("v1/organization_memberships", vec![membership]);
    world.start("i", "c", &["organization_memberships"]);
    world.steps();
    world.apply();
    assert_eq!(world.compared("r", &of("c")), json!({}));
    world.lists("v1/organization_memberships", vec![]);
    let unclear = json!({ "organization_memberships": { "unclear": 1 } });
    assert_eq!(world.compared("s", &of("c")), unclear);
}

#[test]
fn a_sample_reads_the_first_objects() {
    let world = mirrored();
    world.sql("UPDATE customers SET email = 'a' WHERE id IN ('cus_3', 'cus_140')");
    world.provider.requests.lock().unwrap().clear();
    let sample = ReconcileFilter { sample: Some(50), ..of("s") };
    let expected = json!({ "customers": { "different": 1, "columns": { "email": 1 } } });
    assert_eq!(world.compared("r", &sample), expected);
    assert!(world.provider.paths().iter().all(|path| !path.contains("starting_after")));
}

#[test]
fn a_failing_api_delays_it_and_a_refusing_one_pauses_it() {
    let world = mirrored();
    world.sql("UPDATE customers SET email = 'a' WHERE id = 'cus_3'");
    world.reconcile("r", &of("s"));
    world.provider.moods.lock().unwrap().extend([Mood::Says(500), Mood::IsAway, Mood::Waits(7)]);
    let problems = world.steps();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(world.report("r")["tables"]["customers"]["different"], 1);
    world.reconcile("p", &of("s"));
    world.provider.moods.lock().unwrap().push(Mood::Says(403));
    assert_eq!(world.steps().len(), 1);
    let error = world.error("p");
    assert!(error.contains("answered 403") && error.contains("--table"), "{error}");
    world.reconcile("t", &ReconcileFilter { table: Some("nothing".to_owned()), ..of("s") });
    assert_eq!(world.steps().len(), 1);
    let error = world.error("t");
    assert!(
        error.contains("of `nothing`; the tables with lists are ") && error.contains("customers"),
        "{error}"
    );
}

#[test]
fn a_scheduled_reconciliation_runs_each_day() {
    let mut world = mirrored();
    world.fixture.config.reconciliations.insert("s".to_owned(), Duration::from_hours(24));
    world.sql("UPDATE customers SET email = 'a' WHERE id = 'cus_3'");
    let jobs = "SELECT state, CAST(filter ->> 'sample' AS TEXT), planned_by FROM replays WHERE kind = 'reconcile' ORDER BY planned_at";
    assert_eq!(world.steps(), [""; 0]);
    let done = ["done", "1000", "hookmill"];
    assert_eq!(world.fixture.rows(jobs), [done]);
    assert_eq!(world.count("drifts"), "1");
    assert_eq!(world.steps(), [""; 0]);
    assert_eq!(world.fixture.rows(jobs), [done], "once a day");
    // One that is paused is not followed by another.
    world.provider.later(86_400_000);
    world.provider.moods.lock().unwrap().push(Mood::Says(403));
    assert_eq!(world.steps().len(), 1);
    world.provider.later(86_400_000);
    assert_eq!(world.steps(), [""; 0]);
    assert_eq!(world.fixture.rows(jobs), [done, ["paused", "1000", "hookmill"]]);
    // A clock that was ahead has planned one.
    world.sql("UPDATE replays SET state = 'cancelled', planned_at = planned_at + 864000000 WHERE kind = 'reconcile'");
    assert_eq!(world.steps(), [""; 0]);
    assert_eq!(world.fixture.rows(jobs).len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is wrong in the tables, a repair makes it right, and processes may end after any step.
    #[test]
    fn a_repair_makes_the_tables_equal(
        names in prop::collection::vec(0..4_u8, 12),
        gone in prop::collection::vec(any::<bool>(), 12),
        wrong in prop::collection::vec((0..12_usize, 0..5_u8), 0..12),
        crashes in prop::collection::vec(any::<bool>(), 8),
    ) {
        let world = World::new();
        let object = |n: usize| {
            let mut object = subscription(&format!("sub_{n}"), "active", &[1, 2][..n % 3]);
            object["currency"] = names[n].to_string().into();
            object
        };
        world.lists("v1/subscriptions", (0..12).map(object).collect());
        world.start("import", "s", &["subscriptions"]);
        world.steps();
        world.apply();
        world.provider.later(60_000);
        for (n, how) in wrong {
            let id = format!("sub_{n}");
            world.sql(&match how {
                0 => format!("UPDATE subscriptions SET currency = 'x' WHERE id = '{id}'"),
                1 => format!("DELETE FROM subscriptions WHERE id = '{id}'"),
                2 => format!("UPDATE subscription_items SET quantity = 7 WHERE subscription_id = '{id}'"),
                3 => format!("DELETE FROM subscription_items WHERE subscription_id = '{id}'"),
                _ => format!("UPDATE subscriptions SET _deleted = 1 WHERE id = '{id}'"),
            });
        }
        world.change_list("v1/subscriptions", |all| all.retain(|one| {
            let n = one["id"].as_str().unwrap()[4..].parse::<usize>().unwrap();
            !(gone[n] && n < 6)
        }));
        world.reconcile("r", &ReconcileFilter { repair: true, ..of("s") });
        for crash in crashes {
            let before = world.fixture.rows("SELECT reached, CAST(sent AS TEXT) FROM replays WHERE id = 'r'");
            world.step();
            if crash {
                // The step is not recorded.
                let [reached, sent] = &before[0][..] else { unreachable!() };
                let reached = if reached == "NULL" { "NULL".to_owned() } else { format!("'{reached}'") };
                world.sql(&format!("UPDATE replays SET reached = {reached}, sent = {sent}, due_at = 0 WHERE id = 'r' AND state = 'running'"));
            }
            world.provider.later(11_000);
        }
        prop_assert_eq!(world.steps(), [""; 0]);
        world.apply();
        world.provider.later(60_000);
        prop_assert_eq!(world.compared("again", &of("s")), json!({}));
        let live = world.fixture.rows("SELECT id FROM subscriptions WHERE _deleted = 0");
        prop_assert_eq!(live.len(), gone.iter().enumerate().filter(|(n, gone)| !(**gone && *n < 6)).count());
    }
}
