//! An import loads what a provider's API lists, page by page, and changes no row that an event has made newer. On a real
//! SQLite, with an API that changes while it is read.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

#[path = "support/provider.rs"]
mod provider;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use hookmill_consumers::Fate;
use hookmill_consumers::import::resume;
use hookmill_core::delivery::Delivery;
use hookmill_core::outbound::ApiRequest;
use hookmill_core::time::Timestamp;
use hookmill_core::words::JobKind;
use hookmill_dlq::import::ImportFilter;
use hookmill_dlq::replay::{Turn, turn_replay};
use proptest::prelude::*;
use provider::*;
use serde_json::{Value, json};
use support::{Fixture, event};

#[test]
fn every_page_of_every_list_is_loaded_and_only_rows_are_written() {
    let world = World::new();
    let customers = (0..250).map(|n| customer(&format!("cus_{n}"), &format!("number {n}")));
    world.lists("v1/customers", customers.collect());
    world.lists("v1/subscriptions", vec![subscription("sub_1", "active", &[1, 2])]);
    world.start("i", "s", &[]);
    assert_eq!(world.steps(), [""; 0]);
    world.apply();
    assert_eq!(world.job(), ["done", "251", "251", "0", "NULL"]);
    let names = "SELECT name FROM customers WHERE id IN ('cus_0', 'cus_99', 'cus_100', 'cus_249') ORDER BY id";
    assert_eq!(
        world.fixture.rows(names),
        [["number 0"], ["number 100"], ["number 249"], ["number 99"]]
    );
    assert_eq!(world.count("customers"), "250");
    assert_eq!(world.count("subscription_items"), "2");
    assert_eq!(world.count("counts"), "0");
    let paths = world.provider.paths();
    let of = |list: &str| {
        let of = paths.iter().filter(|path| path.starts_with(&format!("/v1/{list}?")));
        of.map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!(
        of("customers"),
        [
            "/v1/customers?limit=100",
            "/v1/customers?limit=100&starting_after=cus_99",
            "/v1/customers?limit=100&starting_after=cus_199",
        ]
    );
    assert_eq!(of("subscriptions"), ["/v1/subscriptions?limit=100&status=all"]);
    assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len(), "each once");
    let headers = world.provider.requests.lock().unwrap()[0].headers.clone();
    assert_eq!(headers, [("stripe-version", "2026-10-28.endive".to_owned())]);
    // Another import loads the same again.
    world.start("again", "s", &["customers"]);
    assert_eq!(world.steps(), [""; 0]);
    world.apply();
    assert_eq!(world.count("customers"), "250");
    assert_eq!(world.count("events"), "501");
}

#[test]
fn clerk_and_paddle_have_pages_of_their_own() {
    let world = World::new();
    let user = |n: i64| json!({ "id": format!("user_{n}"), "object": "user", "updated_at": 1_700_000_000_000_i64 + n, "created_at": 1, "email_addresses": [] });
    world.lists("v1/users", (0..250).map(user).collect());
    let organization = json!({ "id": "org_1", "object": "organization", "name": "one", "updated_at": 1, "created_at": 1 });
    world.lists("v1/organizations", vec![organization]);
    world.start("c", "c", &["users", "organizations"]);
    let product = |n: i64| json!({ "id": format!("pro_{n}"), "name": "a product", "status": "active", "tax_category": "standard", "type": "standard", "created_at": "2026-01-01T00:00:00Z", "updated_at": format!("2026-01-01T00:00:0{n}Z") });
    world.lists("products", (0..7).map(product).collect());
    world.start("p", "p", &["products"]);
    assert_eq!(world.steps(), [""; 0]);
    world.apply();
    assert_eq!((world.count("users"), world.count("organizations")), ("250".into(), "1".into()));
    let versions = world
        .fixture
        .rows("SELECT CAST(min(_version) AS TEXT), CAST(max(_version) AS TEXT) FROM users");
    assert_eq!(
        versions,
        [["1700000000000000", "1700000000249000"]],
        "the objects say how new they are"
    );
    let products = "SELECT id, CAST(_version AS TEXT) FROM paddle_products ORDER BY id LIMIT 2";
    assert_eq!(
        world.fixture.rows(products),
        [["pro_0", "1767225600000000"], ["pro_1", "1767225601000000"]]
    );
    assert_eq!(world.count("paddle_products"), "7");
    let paddle: Vec<_> =
        world.provider.paths().into_iter().filter(|path| path.starts_with("/products")).collect();
    assert_eq!(
        paddle,
        [
            "/products?per_page=200&status=active,archived",
            "/products?after=pro_2",
            "/products?after=pro_5",
        ],
        "the key goes to the configured host"
    );
}

#[test]
fn an_event_that_happened_during_or_after_the_request_is_newer() {
    let world = World::new();
    let updated = |id: &str, created: i64, name: &str| {
        let body = json!({ "id": id, "object": "event", "created": created, "data": { "object": customer("cus_1", name) } });
        event(id, "customer.updated", &body.to_string(), 1)
    };
    let name = || world.fixture.rows("SELECT name FROM customers");
    let now = BEGIN / 1000;
    // An older event gives way to the import, whenever it comes.
    world.applied(&[updated("evt_1", now - 100, "older")]);
    world.lists("v1/customers", vec![customer("cus_1", "as listed")]);
    // The list is as it was when the request arrived, five seconds before the date of the answer.
    world.provider.moods.lock().unwrap().push(Mood::Takes(5_000));
    world.start("i", "s", &["customers"]);
    world.steps();
    world.apply();
    assert_eq!(name(), [["as listed"]]);
    world.applied(&[updated("evt_2", now - 50, "older too")]);
    assert_eq!(name(), [["as listed"]]);
    // A change in the second of the request, or while it was under way.
    world.applied(&[updated("evt_3", now, "changed meanwhile")]);
    assert_eq!(name(), [["changed meanwhile"]]);
    world.start("again", "s", &["customers"]);
    world.provider.later(10_000);
    world.steps();
    world.apply();
    assert_eq!(name(), [["as listed"]]);
}

#[test]
fn a_deleted_object_stays_deleted() {
    let world = World::new();
    world.lists("v1/customers", vec![customer("cus_1", "listed, then deleted")]);
    world.start("i", "s", &["customers"]);
    world.steps();
    let body = json!({ "id": "evt_1", "object": "event", "created": BEGIN / 1000 - 1000, "data": { "object": customer("cus_1", "gone") } });
    world.applied(&[event("evt_1", "customer.deleted", &body.to_string(), 1)]);
    world.apply();
    assert_eq!(world.count("live_customers"), "0");
}

#[test]
fn a_request_that_fails_is_repeated_and_the_operator_sees_why() {
    let world = World::new();
    world.lists("v1/customers", vec![customer("cus_1", "one")]);
    world.provider.moods.lock().unwrap().extend([
        Mood::Is("{\"object\":\"list\",\"data\":[".into()),
        Mood::IsAway,
        Mood::Waits(7),
        Mood::Waits(0),
        Mood::Says(500),
    ]);
    world.start("i", "s", &["customers"]);
    let before = world.provider.now();
    let problem = world.step().problem.unwrap();
    let expected =
        "import i: cannot read the list customers of stripe: response 500; next request at ";
    assert!(problem.starts_with(expected), "{problem}");
    assert_eq!(world.job()[4], "cannot read /v1/customers?limit=100 of stripe: response 500");
    let problems = world.steps();
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(problems.iter().all(|problem| !problem.contains("the_key")), "{problems:?}");
    assert!(world.provider.now() - before >= Duration::from_secs(8), "also after `Retry-After: 0`");
    world.apply();
    assert_eq!(world.job(), ["done", "1", "1", "0", "NULL"]);
    // Without the right to read a list, no repetition helps.
    world.provider.moods.lock().unwrap().push(Mood::Says(403));
    world.start("j", "s", &["customers"]);
    let problems = world.steps();
    assert_eq!(problems, ["the import j is paused; `hookmill replays show j` says why"]);
    insta::assert_snapshot!(world.error("j"), @"stripe answered 403 to /v1/customers?limit=100 (not today); check that the key STRIPE_API_KEY can read it, then resume; or cancel, and plan an import of other lists (`--only`)");
    let state = "SELECT state FROM replays WHERE id = 'j'";
    assert_eq!(world.fixture.rows(state), [["paused"]]);
    // After the operator has given the key that right, it goes on where it was.
    assert_eq!(world.change(turn_replay("j", Turn::Resume, world.provider.now())), 1);
    let before = world.provider.now();
    assert_eq!(world.steps(), [""; 0]);
    assert!(world.provider.now() - before < Duration::from_secs(5), "at once");
    assert_eq!(world.fixture.rows(state), [["done"]]);
}

#[test]
fn an_answer_that_stays_no_list_pauses_the_import() {
    for (body, expected) in [
        ("<html>", "the response is not a list (line 1, column 1)"),
        (r#"{"data":{},"has_more":false}"#, "the response is not a list (line 1, column 8)"),
        (
            r#"{"data":[],"has_more":true}"#,
            "the response says that there is more, and has no objects",
        ),
        (
            r#"{"data":[{"object":"customer"}],"has_more":true}"#,
            "the last object of the page has no `id`",
        ),
    ] {
        let world = World::new();
        let moods = vec![Mood::Is(body.to_owned()); 8];
        world.provider.moods.lock().unwrap().extend(moods);
        world.start("i", "s", &["customers"]);
        world.steps();
        assert_eq!(
            world.error("i"),
            format!("cannot read /v1/customers?limit=100 of stripe: {expected}")
        );
        assert_eq!(world.job()[0], "paused");
        assert_eq!(world.provider.paths().len(), 8, "as often as `[retry]` says");
    }
}

#[test]
fn a_page_that_repeats_itself_ends() {
    let world = World::new();
    let page = json!({ "data": [customer("cus_1", "one")], "has_more": true }).to_string();
    world.provider.moods.lock().unwrap().extend(vec![Mood::Is(page); 20]);
    world.start("i", "s", &["customers"]);
    world.steps();
    world.apply();
    let error = "cannot read /v1/customers?limit=100&starting_after=cus_1 of stripe: the page has the same objects as the one before";
    assert_eq!(world.job(), ["paused", "1", "1", "0", error]);
    // Some of the objects may have moved to the next page.
    let world = World::new();
    let page = |ids: &[&str], more: bool| {
        let objects: Vec<_> = ids.iter().map(|id| customer(id, "x")).collect();
        Mood::Is(json!({ "data": objects, "has_more": more }).to_string())
    };
    let pages = [page(&["cus_2", "cus_3"], false), page(&["cus_1", "cus_2", "cus_2"], true)];
    world.provider.moods.lock().unwrap().extend(pages);
    world.start("i", "s", &["customers"]);
    assert_eq!(world.steps(), [""; 0]);
    world.apply();
    assert_eq!(world.job(), ["done", "3", "3", "0", "NULL"]);
}

#[test]
fn one_strange_object_spoils_no_other() {
    let world = World::new();
    let product = |id: Value| json!({ "id": id, "object": "product", "name": "x", "active": true });
    let ids = ["gold plan/monthly", "plan+1", "50%", "é", "last.one"];
    let mut products: Vec<_> = ids.iter().map(|id| product((*id).into())).collect();
    products.extend([product(Value::Null), json!("no object")]);
    products.extend((0..100).map(|n| product(format!("prod_{n}").into())));
    // Where the second page begins.
    products.swap(99, 4);
    world.lists("v1/products", products);
    world.start("i", "s", &["products"]);
    assert_eq!(world.steps(), [""; 0]);
    let after = "/v1/products?limit=100&starting_after=last.one";
    assert_eq!(world.provider.paths(), ["/v1/products?limit=100", after]);
    let texts = std::mem::take(&mut *world.queue.texts.lock().unwrap());
    let batch: Vec<_> = texts.into_iter().map(|text| Delivery { attempts: 1, text }).collect();
    let fates = world.fixture.process(&world.fixture.store, &batch);
    let dead = fates.iter().filter(|(fate, _)| matches!(fate, Fate::Condemned { .. })).count();
    assert_eq!((fates.len(), dead, world.count("products")), (107, 2, "105".to_owned()));
    assert_eq!(world.count("products WHERE id = 'gold plan/monthly'"), "1");
}

#[test]
fn a_provider_whose_clock_is_far_ahead_hides_no_event() {
    let world = World::new();
    world.lists("v1/customers", vec![customer("cus_1", "as listed")]);
    world.provider.ahead.store(3_600, Ordering::Relaxed);
    world.start("i", "s", &["customers"]);
    world.steps();
    world.apply();
    let body = json!({ "id": "evt_1", "object": "event", "created": BEGIN / 1000 + 60, "data": { "object": customer("cus_1", "newer") } });
    world.applied(&[event("evt_1", "customer.updated", &body.to_string(), 1)]);
    assert_eq!(world.fixture.rows("SELECT name FROM customers"), [["newer"]]);
}

#[test]
fn an_import_that_cannot_be_is_paused_with_a_sentence() {
    let world = World::new();
    for (id, source, only) in
        [("a", "alone", &[][..]), ("b", "s", &["customer"]), ("c", "gone", &[])]
    {
        world.start(id, source, only);
    }
    world.steps();
    let errors: Vec<_> = world.fixture.rows("SELECT error FROM replays ORDER BY id").concat();
    insta::assert_snapshot!(errors.join("\n"), @"
    the source `alone` has no API; add [sources.alone.api] with its `key`
    no rule keeps objects of a list `customer`; the lists are charges, disputes, checkout_sessions, credit_notes, customers, subscriptions, invoices, invoice_payments, payment_intents, payouts, prices, products, radar_early_fraud_warnings, refunds, subscription_schedules
    the source `gone` has no API; add [sources.gone.api] with its `key`
    ");
    assert_eq!(world.provider.paths(), [""; 0]);
}

#[test]
fn the_objects_of_a_connected_account_are_requested_from_it() {
    let world = World::new();
    let mut incomplete = subscription("sub_1", "active", &[1]);
    incomplete["items"]["has_more"] = true.into();
    world.lists("v1/subscriptions", vec![incomplete]);
    for (id, source) in [("i", "s"), ("j", "c")] {
        let account = Some("acct_1".to_owned());
        let filter = ImportFilter { source: source.to_owned(), account, ..ImportFilter::default() };
        world.run(id, JobKind::Import, &filter);
    }
    let problems = world.steps();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(world.error("j"), "clerk has no connected accounts");
    world.apply();
    assert_eq!(world.count("subscriptions"), "1");
    // The rest of the list is requested from the same account.
    world.provider.later(1_000);
    world.step();
    let requests = world.provider.requests.lock().unwrap();
    let account =
        |request: &ApiRequest| request.headers.contains(&("stripe-account", "acct_1".to_owned()));
    assert!(requests.iter().all(account), "{requests:?}");
    assert!(requests.last().unwrap().url.ends_with("/v1/subscriptions/sub_1"), "{requests:?}");
}

#[test]
fn a_queue_that_is_full_is_tried_again_and_a_crash_sends_no_object_twice() {
    let world = World::new();
    world.lists("v1/customers", (0..120).map(|n| customer(&format!("cus_{n}"), "x")).collect());
    world.start("i", "s", &["customers"]);
    *world.queue.refuses.lock().unwrap() = true;
    assert!(world.step().problem.unwrap().contains("full; next try at "));
    world.provider.later(10_000);
    assert_eq!(world.step().sent, Some(("i".into(), 100)));
    // The process ends after it has sent a page, and before it has said so.
    let reached = world.fixture.rows("SELECT reached FROM replays")[0][0].clone();
    world.provider.later(10_000);
    world.step();
    world
        .fixture
        .connect()
        .execute(
            "UPDATE replays SET reached = ?1, sent = 100, due_at = ?2",
            (reached, world.provider.now().millis() + 60_000),
        )
        .unwrap();
    world.provider.later(1_000);
    assert_eq!(world.step().sent, None, "another process has it");
    let Fixture { runtime, store, .. } = &world.fixture;
    runtime.block_on(resume(store, world.provider.now())).unwrap();
    assert_eq!(world.step().sent, Some(("i".into(), 20)));
    world.steps();
    world.apply();
    assert_eq!(world.job(), ["done", "120", "120", "0", "NULL"]);
}

#[test]
fn a_list_begins_again_when_the_place_to_go_on_from_was_deleted() {
    let world = World::new();
    let mut customers: Vec<_> = (0..150).map(|n| customer(&format!("cus_{n}"), "x")).collect();
    world.lists("v1/customers", customers.clone());
    world.start("i", "s", &["customers"]);
    world.step();
    customers.remove(99);
    world.lists("v1/customers", customers);
    world.provider.later(1_000);
    assert_eq!(world.steps(), [""; 0]);
    world.apply();
    // The object that was deleted had been sent; its deletion comes as an event.
    assert_eq!(world.job(), ["done", "149", "150", "0", "NULL"]);
    assert_eq!(world.count("customers"), "150");
}

#[test]
fn requests_keep_the_rate_of_the_api() {
    let world = World::new();
    world.lists("v1/customers", (0..350).map(|n| customer(&format!("cus_{n}"), "x")).collect());
    world.start("i", "s", &["customers"]);
    let mut times = Vec::new();
    for _ in 0..40 {
        if world.step().sent.is_some() {
            times.push(world.provider.now());
        }
        world.provider.later(10);
    }
    // 10 requests in a second, and 1,000 objects in a second.
    assert!(times.len() > 2);
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(100)),
        "{times:?}"
    );
}

/// A step of a history.
#[derive(Clone, Debug)]
enum Act {
    /// An object changes, and its event is on its way.
    Change(usize),
    Delete(usize),
    Start,
    Step,
    /// A step whose request takes this many milliseconds. An object changes meanwhile.
    SlowStep(usize, i64),
    /// A process ends in the middle of a step: the page was sent, and the database does not say so.
    Crash,
    /// Some of what is on its way arrives.
    Deliver(usize),
    Wait(i64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..2_usize).prop_map(Act::Change),
        1 => (0..2_usize).prop_map(Act::Delete),
        2 => Just(Act::Start),
        4 => Just(Act::Step),
        2 => (0..2_usize, 1..4_000_i64).prop_map(|(which, millis)| Act::SlowStep(which, millis)),
        1 => Just(Act::Crash),
        3 => (0..100_usize).prop_map(Act::Deliver),
        2 => (1..1_500_i64).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..40)
}

/// The subscriptions of a provider, and what of their history is on its way.
struct History {
    world: World,
    /// By number: when it last changed, in seconds, and what it is.
    state: BTreeMap<usize, (i64, Value)>,
    gone: BTreeSet<usize>,
    on_the_way: Vec<Delivery>,
    events: i64,
    imports: usize,
}

impl History {
    fn new() -> Self {
        let (state, gone, on_the_way) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        Self { world: World::new(), state, gone, on_the_way, events: 0, imports: 0 }
    }

    fn start(&mut self) {
        self.imports += 1;
        self.world.start(&format!("i{}", self.imports), "s", &["subscriptions"]);
    }

    /// An object changes at this time. What orders several changes of a second is not the import's business, so an object has
    /// one.
    fn change(&mut self, which: usize, delete: bool, at: Timestamp, arrives: bool) {
        let second = at.seconds();
        let is_known = |(changed, _): &(i64, Value)| *changed >= second;
        if self.gone.contains(&which) || self.state.get(&which).is_some_and(is_known) {
            return;
        }
        self.events += 1;
        let n = self.events;
        // The items of a canceled subscription are removed with it.
        let items = if delete { 0 } else { n % 3 };
        let quantities: Vec<_> = (0..items).map(|item| n * 10 + item).collect();
        let (status, kind) = if delete { ("canceled", "deleted") } else { ("active", "updated") };
        let object = subscription(&format!("sub_{which}"), status, &quantities);
        if delete {
            self.gone.insert(which);
        }
        let body = json!({ "id": format!("evt_{n}"), "object": "event", "created": second, "data": { "object": object } });
        self.state.insert(which, (second, object));
        let listed = self.state.values().map(|(_, object)| object.clone());
        self.world.lists("v1/subscriptions", listed.collect());
        // Without the event, only an import can tell.
        if arrives {
            let kind = format!("customer.subscription.{kind}");
            self.on_the_way.push(event(&format!("evt_{n}"), &kind, &body.to_string(), 1));
        }
    }

    fn carry_out(&mut self, act: &Act, arrives: bool) {
        let now = self.world.provider.now();
        match act {
            Act::Change(which) => self.change(*which, false, now, arrives),
            Act::Delete(which) => self.change(*which, true, now, arrives),
            Act::Start => self.start(),
            Act::Step => drop(self.world.step()),
            Act::SlowStep(which, millis) => {
                self.world.provider.moods.lock().unwrap().push(Mood::Takes(*millis));
                self.world.step();
                // No request was due.
                self.world.provider.moods.lock().unwrap().clear();
                let meanwhile = now + (self.world.provider.now() - now) / 2;
                self.change(*which, false, meanwhile, arrives);
            }
            Act::Crash => {
                let jobs =
                    "SELECT id, coalesce(reached, ''), CAST(sent AS TEXT), state FROM replays";
                let before = self.world.fixture.rows(jobs);
                self.world.step();
                for job in before {
                    let [id, reached, sent, state] = job.try_into().unwrap();
                    let back = "UPDATE replays SET reached = nullif(?2, ''), sent = ?3, state = ?4, due_at = 0 WHERE id = ?1";
                    let values = (id, reached, sent.parse::<i64>().unwrap(), state);
                    self.world.fixture.connect().execute(back, values).unwrap();
                }
            }
            Act::Deliver(which) => {
                let sent = std::mem::take(&mut *self.world.queue.texts.lock().unwrap());
                let sent = sent.into_iter().map(|text| Delivery { attempts: 1, text });
                self.on_the_way.extend(sent);
                if let Some(which) = which.checked_rem(self.on_the_way.len()) {
                    let delivery = self.on_the_way[which].clone();
                    // Some arrive twice.
                    if which % 3 > 0 {
                        self.on_the_way.swap_remove(which);
                    }
                    self.world.applied(&[delivery]);
                }
            }
            Act::Wait(millis) => self.world.provider.later(*millis),
        }
    }

    /// What the tables should have: id, status, and the sum of the items' quantities.
    fn expected(&self) -> Vec<Vec<String>> {
        let row = |(_, object): &(i64, Value)| {
            let text = |name: &str| object[name].as_str().unwrap().to_owned();
            let items = object["items"]["data"].as_array().unwrap();
            let sum: i64 = items.iter().map(|item| item["quantity"].as_i64().unwrap()).sum();
            vec![text("id"), text("status"), sum.to_string()]
        };
        self.state.values().map(row).collect()
    }

    fn found(&self) -> Vec<Vec<String>> {
        self.world.fixture.rows(
            "SELECT id, status, CAST(coalesce((
                SELECT sum(quantity) FROM subscription_items WHERE subscription_id = subscriptions.id
             ), 0) AS TEXT) FROM subscriptions ORDER BY id",
        )
    }
}

/// Rules for tables of three levels.
const LEVELS: &str = r#"
[[rules]]
name = "owners"
on = ["s:customer.updated"]
table = "owners"
key = { id = "data.object.id" }
version = "created"
delete = { "data.object.gone" = true }
final = true
set = { note = "data.object.name" }

[[rules]]
name = "contracts"
on = ["s:subscription_schedule.updated"]
table = "contracts"
key = { id = "data.object.id" }
version = "created"
delete = { "data.object.gone" = true }
final = true
parents = { owner = "owners" }
set = { owner = "data.object.customer" }

[[rules]]
name = "papers"
on = ["s:product.updated"]
table = "papers"
key = { id = "data.object.id" }
version = "created"
delete = { "data.object.gone" = true }
final = true
parents = { contract = "contracts" }
set = { contract = "data.object.contract" }
"#;

/// A snapshot may be a deletion. An event about a row above it does not restore the row.
#[test]
fn a_row_whose_snapshot_is_a_deletion_stays_deleted() {
    let world = World::with(LEVELS);
    world.lists("v1/customers", vec![json!({ "id": "a", "gone": false })]);
    world.lists(
        "v1/subscription_schedules",
        vec![json!({ "id": "b", "customer": "a", "gone": false })],
    );
    world.lists(
        "v1/products",
        vec![
            json!({ "id": "c", "contract": "b", "gone": true }),
            json!({ "id": "d", "contract": "b", "gone": false }),
        ],
    );
    world.start("i", "s", &["customers", "subscription_schedules", "products"]);
    assert_eq!(world.steps(), [""; 0]);
    world.apply();
    let deleted = "SELECT id FROM papers WHERE _deleted = 1 ORDER BY id";
    assert_eq!(world.fixture.rows(deleted), [["c"]]);
    let at = world.provider.now().seconds() + 10;
    let object = json!({ "id": "b", "customer": "a", "gone": false });
    let body =
        json!({ "id": "evt_1", "object": "event", "created": at, "data": { "object": object } });
    world.applied(&[event("evt_1", "subscription_schedule.updated", &body.to_string(), 1)]);
    assert_eq!(world.fixture.rows(deleted), [["c"]]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was imported when, and in whatever order everything arrives: in the end, the tables are the provider's state.
    #[test]
    fn an_import_never_hides_an_event(acts in acts(), lost in prop::collection::vec(any::<bool>(), 40), all_arrive in any::<bool>()) {
        let mut history = History::new();
        for (act, lost) in acts.iter().zip(lost) {
            history.carry_out(act, all_arrive || !lost);
        }
        if !all_arrive {
            history.world.provider.later(3_000);
            history.start();
        }
        history.world.steps();
        history.world.apply();
        history.world.applied(&history.on_the_way);
        prop_assert_eq!(history.found(), history.expected());
    }
}
