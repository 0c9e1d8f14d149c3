//! Objects are fetched only if events have the same version and nothing else orders them; the API's answer is applied under
//! the same guard. On a real SQLite, with an API that has the current objects.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use hookmill_consumers::Fate;
use hookmill_consumers::refetch::{Apis, Fetched, resume, round};
use hookmill_core::delivery::Delivery;
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::message::reprocessed;
use hookmill_core::outbound::{ApiRequest, ApiResponse, Method};
use hookmill_core::secret::Secret;
use hookmill_core::time::Timestamp;
use hookmill_rules::Reads;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Fixture, event};

const RULES: &str = r#"
[sources.s]
scheme = "stripe"
secrets = ["env:A"]
preset = "stripe"
api = { key = "env:STRIPE_API_KEY", rate = 10 }

[retry]
jitter = 0.0
max_attempts = 3

[database]
migrations = "app"
"#;

/// The API's answers, and the requests to it.
#[derive(Default)]
struct Api {
    /// By path.
    objects: Mutex<BTreeMap<String, Value>>,
    moods: Mutex<Vec<Mood>>,
    requests: Mutex<Vec<ApiRequest>>,
    clock: Mutex<i64>,
}

#[derive(Clone, Copy, Debug)]
enum Mood {
    Answers,
    Says(u16),
    IsAway,
    Raves,
    /// Another body.
    Is(&'static str),
}

impl Fetch for Api {
    async fn ask(&self, request: ApiRequest, key: &Secret) -> Result<ApiResponse, FetchError> {
        let authorization = ("authorization", "Bearer sk_test".to_owned());
        assert_eq!(request.authorize(key), Some(authorization));
        let path = request.url.strip_prefix("https://api.stripe.com").unwrap().to_owned();
        self.requests.lock().unwrap().push(request);
        let mood = self.moods.lock().unwrap().pop().unwrap_or(Mood::Answers);
        let (status, body) = match mood {
            Mood::Answers => match self.objects.lock().unwrap().get(&path) {
                Some(object) => (200, object.to_string()),
                None => (404, json!({ "error": {} }).to_string()),
            },
            Mood::Says(status) => (status, String::new()),
            Mood::IsAway => return Err(FetchError::NoAnswer("sk_test is away".into())),
            Mood::Raves => (200, "{\"id\":".to_owned()),
            Mood::Is(body) => (200, body.to_owned()),
        };
        Ok(ApiResponse { status, retry_after: None, message_id: None, date: None, body })
    }
}

/// An API that never responds.
struct Hangs;

impl Fetch for Hangs {
    async fn ask(&self, _: ApiRequest, _: &Secret) -> Result<ApiResponse, FetchError> {
        std::future::pending().await
    }
}

struct World {
    fixture: Fixture,
    api: Api,
    apis: Apis,
}

impl World {
    fn new() -> Self {
        let fixture = Fixture::new(RULES, "");
        let apis = Apis::new(&fixture.config, |_| Some(Secret::from("sk_test\n"))).unwrap();
        let api = Api::default();
        *api.clock.lock().unwrap() = 1_800_000_000_000;
        Self { fixture, api, apis }
    }

    fn applied(&self, batch: &[Delivery]) {
        for (fate, _) in self.fixture.process(&self.fixture.store, batch) {
            assert!(matches!(fate, Fate::Applied | Fate::Duplicate), "{fate:?}");
        }
    }

    /// Advances the time.
    fn later(&self, by: Duration) {
        *self.api.clock.lock().unwrap() += i64::try_from(by.as_millis()).unwrap();
    }

    fn round(&self) -> Fetched {
        let now = || Timestamp::from_millis(*self.api.clock.lock().unwrap());
        let fixture = &self.fixture;
        let round = round(&fixture.store, &self.api, &fixture.config, &self.apis, now);
        fixture.runtime.block_on(round).unwrap()
    }

    /// Runs rounds until no work is left. Returns their problems.
    fn rounds(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for _ in 0..100 {
            let fetched = self.round();
            problems.extend(fetched.problems);
            let Some(next) = fetched.next else { return problems };
            let now = Timestamp::from_millis(*self.api.clock.lock().unwrap());
            self.later((next - now).max(Duration::from_millis(1)));
        }
        panic!("there is no end to it: {problems:?}");
    }

    fn is(&self, object: &Value) {
        let path = format!("/v1/subscriptions/{}", object["id"].as_str().unwrap());
        self.api.objects.lock().unwrap().insert(path, object.clone());
    }

    fn request_count(&self) -> usize {
        self.api.requests.lock().unwrap().len()
    }

    fn quantity(&self) -> Vec<Vec<String>> {
        self.fixture
            .rows("SELECT CAST(quantity AS TEXT), CAST(_deleted AS TEXT) FROM subscriptions")
    }

    fn items(&self) -> Vec<Vec<String>> {
        self.fixture.rows("SELECT id, CAST(quantity AS TEXT) FROM subscription_items ORDER BY id")
    }
}

/// A subscription with these items.
fn subscription(quantities: &[i64]) -> Value {
    let item = |(place, quantity): (usize, &i64)| json!({ "id": format!("si_{place}"), "quantity": quantity, "price": { "id": "price_1" } });
    let items: Vec<_> = quantities.iter().enumerate().map(item).collect();
    json!({ "id": "sub_1", "object": "subscription", "status": "active", "items": { "data": items } })
}

fn updated(id: &str, created: i64, object: &Value) -> Delivery {
    happened("updated", id, created, object)
}

fn happened(what: &str, id: &str, created: i64, object: &Value) -> Delivery {
    let body = json!({
        "id": id, "object": "event", "api_version": "2026-10-28.endive", "created": created,
        "data": { "object": object, "previous_attributes": {} }, "livemode": true,
    });
    event(id, &format!("customer.subscription.{what}"), &body.to_string(), 1)
}

#[test]
fn an_object_in_hand_is_fetched_again_after_a_restart() {
    let world = World::new();
    world.is(&subscription(&[9]));
    world.applied(&[updated("evt_1", 100, &subscription(&[1]))]);
    world.applied(&[updated("evt_0", 100, &subscription(&[2]))]);
    // The process ends while it asks.
    let now = Timestamp::from_millis(*world.api.clock.lock().unwrap());
    let fixture = &world.fixture;
    let hanging = round(&fixture.store, &Hangs, &fixture.config, &world.apis, || now);
    fixture.runtime.block_on(async {
        let leased = async {
            while fixture.rows("SELECT rule FROM refetches WHERE attempts > 0").is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = hanging => panic!("it hangs"),
            () = leased => {}
        }
        world.later(Duration::from_secs(1));
        resume(&fixture.store, &world.apis, now + Duration::from_secs(1)).await.unwrap();
    });
    assert!(world.round().applied > 0);
    assert_eq!(world.quantity(), [["9", "0"]]);
}

#[test]
fn an_object_that_panics_is_given_up_and_the_others_are_applied() {
    let mut world = World::new();
    world.is(&subscription(&[9]));
    world.applied(&[updated("evt_1", 100, &subscription(&[1]))]);
    world.applied(&[updated("evt_0", 100, &subscription(&[2]))]);
    // Compiled rules that contradict each other: a defect.
    world.fixture.config.program.reads = Reads::default();
    let problems = world.rounds();
    assert_eq!(problems.len(), 2, "for the subscription and for its items: {problems:?}");
    assert!(problems[0].contains("panicked"), "{problems:?}");
    assert!(world.fixture.rows("SELECT rule FROM refetches").is_empty());
}

/// A subscription that shows these items, of more.
fn incomplete(quantities: &[i64]) -> Value {
    let mut subscription = subscription(quantities);
    subscription["items"]["has_more"] = true.into();
    subscription["items"]["url"] = "/v1/subscription_items?subscription=sub_1".into();
    subscription
}

/// A page of the items of the subscription, from `from` on.
fn page_of_items(from: usize, quantities: &[i64], has_more: bool) -> Value {
    let item = |(place, quantity): (usize, &i64)| json!({ "id": format!("si_{}", from + place), "quantity": quantity, "price": { "id": "price_1" } });
    let items: Vec<_> = quantities.iter().enumerate().map(item).collect();
    json!({ "object": "list", "data": items, "has_more": has_more })
}

#[test]
fn an_incomplete_list_is_fetched_whole() {
    let world = World::new();
    let page = |after: &str| {
        format!("/v1/subscription_items?subscription=sub_1&limit=100&starting_after={after}")
    };
    let pages = [
        (page("si_1"), page_of_items(2, &[7], true)),
        (page("si_2"), page_of_items(3, &[6], false)),
    ];
    world.api.objects.lock().unwrap().extend(pages);
    world.is(&incomplete(&[9, 8]));
    // The event adds what it shows. Nothing is known of the others, such as one that was removed since.
    world.applied(&[updated("evt_1", 100, &subscription(&[1, 1, 1, 1, 1]))]);
    world.applied(&[updated("evt_2", 200, &incomplete(&[2, 2]))]);
    let shown = [["si_0", "2"], ["si_1", "2"], ["si_2", "1"], ["si_3", "1"], ["si_4", "1"]];
    assert_eq!(world.items(), shown);
    // Of two events, the newest counts, whatever comes first.
    world.applied(&[updated("evt_0", 150, &incomplete(&[3, 3]))]);
    // A page is busy at first.
    world.api.moods.lock().unwrap().extend([Mood::Says(429), Mood::Answers]);
    let problems = world.rounds();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("response 429; next request at"), "{problems:?}");
    assert_eq!(world.items(), [["si_0", "9"], ["si_1", "8"], ["si_2", "7"], ["si_3", "6"]]);
    assert_eq!(world.fixture.rows("SELECT CAST(version AS TEXT) FROM row_guards"), [["200000000"]]);
    let requests = world.request_count();
    // Neither older nor newer knowledge is asked for again.
    world.applied(&[updated("evt_3", 199, &incomplete(&[4, 4]))]);
    world.applied(&[updated("evt_4", 300, &subscription(&[5]))]);
    world.applied(&[updated("evt_5", 299, &incomplete(&[4, 4]))]);
    assert!(world.rounds().is_empty());
    assert_eq!(
        (world.request_count(), world.items()),
        (requests, vec![vec!["si_0".into(), "5".into()]])
    );
}

#[test]
fn a_list_that_stays_incomplete_removes_nothing() {
    let world = World::new();
    world.applied(&[updated("evt_1", 100, &subscription(&[1, 1, 1]))]);
    // The place to go on from is gone.
    world.is(&incomplete(&[9, 8]));
    world.applied(&[updated("evt_2", 200, &incomplete(&[2, 2]))]);
    let problems = world.rounds();
    assert!(
        problems[0].contains("the list /v1/subscription_items?subscription=sub_1 has changed"),
        "{problems:?}"
    );
    assert!(problems.last().unwrap().contains("gave up"), "{problems:?}");
    assert_eq!(world.items(), [["si_0", "2"], ["si_1", "2"], ["si_2", "1"]]);
    assert!(world.fixture.rows("SELECT rule FROM refetches").is_empty());
}

#[test]
fn no_number_of_a_fetched_object_is_rounded() {
    let world = World::new();
    world.applied(&[updated("evt_1", 100, &subscription(&[1]))]);
    world.applied(&[updated("evt_0", 100, &subscription(&[2]))]);
    let is = r#"{"id":"sub_1","object":"subscription","status":"active","items":{"data":[]},
        "metadata":{"large":123456789012345678901234567890,"price":1.10}}"#;
    world.api.moods.lock().unwrap().extend([Mood::Is(is), Mood::Is(is)]);
    assert!(world.rounds().is_empty());
    let metadata = world.fixture.rows("SELECT metadata FROM subscriptions");
    assert_eq!(metadata, [[r#"{"large":123456789012345678901234567890,"price":1.10}"#]]);
}

#[test]
fn only_a_tie_is_fetched_and_the_answer_stays() {
    let world = World::new();
    world.is(&subscription(&[9, 8]));
    world.applied(&[updated("evt_1", 100, &subscription(&[1]))]);
    world.applied(&[updated("evt_2", 200, &subscription(&[2]))]);
    // An older version, so there is no tie.
    world.applied(&[updated("evt_0", 100, &subscription(&[0]))]);
    assert!(world.rounds().is_empty());
    assert_eq!(world.request_count(), 0);
    assert_eq!(world.quantity(), [["2", "0"]]);
    // In the same second: only the id would decide.
    world.applied(&[updated("evt_1b", 200, &subscription(&[3]))]);
    assert_eq!(world.quantity(), [["2", "0"]]);
    assert!(world.rounds().is_empty());
    // Once for the subscription, and once for its items.
    assert_eq!(world.request_count(), 2);
    insta::assert_debug_snapshot!(world.api.requests.lock().unwrap()[0], @r#"
    ApiRequest {
        method: Get,
        url: "https://api.stripe.com/v1/subscriptions/sub_1",
        headers: [
            (
                "stripe-version",
                "2026-10-28.endive",
            ),
        ],
        authorization: Bearer,
        body: "",
    }
    "#);
    assert_eq!(world.quantity(), [["9", "0"]]);
    assert_eq!(world.items(), [["si_0", "9"], ["si_1", "8"]]);
    assert!(world.fixture.rows("SELECT rule FROM refetches").is_empty());
    // A duplicate is no tie; another event of that second may be newer than the answer.
    world.applied(&[updated("evt_1b", 200, &subscription(&[3]))]);
    assert!(world.rounds().is_empty());
    assert_eq!(world.request_count(), 2);
    world.is(&subscription(&[7]));
    world.applied(&[updated("evt_9", 200, &subscription(&[4]))]);
    world.later(Duration::from_secs(1));
    assert!(world.rounds().is_empty());
    assert_eq!(world.request_count(), 4);
    assert_eq!(world.quantity(), [["7", "0"]]);
    assert_eq!(world.items(), [["si_0", "7"]]);
    // An event of a later second is newer than the answer; a deletion is, even of the same second.
    world.applied(&[updated("evt_3", 300, &subscription(&[5]))]);
    assert_eq!(world.quantity(), [["5", "0"]]);
    world.applied(&[updated("evt_4", 300, &subscription(&[6]))]);
    world.applied(&[happened("deleted", "evt_5", 300, &subscription(&[6]))]);
    world.rounds();
    assert_eq!(world.quantity(), [["6", "1"]]);
    assert!(world.items().is_empty());
    // A deletion is in no tie.
    let before = world.request_count();
    world.applied(&[updated("evt_6", 300, &subscription(&[7]))]);
    assert!(world.rounds().is_empty());
    assert_eq!(world.request_count(), before);
    assert_eq!(world.quantity(), [["6", "1"]]);
}

#[test]
fn a_fetched_object_stays_when_its_event_is_reprocessed() {
    let world = World::new();
    world.is(&subscription(&[9]));
    let tie = [
        updated("evt_1", 100, &subscription(&[1, 1])),
        updated("evt_2", 100, &subscription(&[2, 2])),
    ];
    world.applied(&tie);
    world.rounds();
    // The answer counts as the last of these events.
    let again = reprocessed(&tie[1].text, 1, &[]).unwrap();
    world.applied(&[Delivery { attempts: 1, text: again }]);
    assert_eq!(world.quantity(), [["9", "0"]]);
    assert_eq!(world.items(), [["si_0", "9"]]);
}

/// The simulation found that both in one batch were taken for two events.
#[test]
fn an_event_and_its_reprocessing_are_no_tie() {
    let world = World::new();
    let event = updated("evt_1", 100, &subscription(&[1]));
    let again = reprocessed(&event.text, 1, &[]).unwrap();
    world.applied(&[event, Delivery { attempts: 1, text: again }]);
    assert_eq!(world.fixture.rows("SELECT path FROM refetches"), Vec::<Vec<String>>::new());
}

#[test]
fn an_answer_with_another_object_is_not_applied() {
    let world = World::new();
    let mut other = subscription(&[9]);
    other["id"] = "sub_2".into();
    world.api.objects.lock().unwrap().insert("/v1/subscriptions/sub_1".to_owned(), other);
    let tie =
        [updated("evt_1", 100, &subscription(&[1])), updated("evt_2", 100, &subscription(&[2]))];
    world.applied(&tie);
    assert!(
        world
            .rounds()
            .iter()
            .any(|problem| problem.contains("the response is not the requested object"))
    );
    assert_eq!(
        world.fixture.rows("SELECT id, CAST(quantity AS TEXT) FROM subscriptions"),
        [["sub_1", "2"]]
    );
}

#[test]
fn two_events_in_one_batch_are_a_tie() {
    let world = World::new();
    world.is(&subscription(&[9]));
    world.applied(&[
        updated("evt_1", 100, &subscription(&[1])),
        updated("evt_2", 100, &subscription(&[2])),
        // No tie: the status comes later in the life of a subscription.
        event(
            "evt_3",
            "customer.subscription.updated",
            &json!({ "created": 100, "data": { "object": { "id": "sub_2", "status": "active" } } }).to_string(),
            1,
        ),
        event(
            "evt_4",
            "customer.subscription.updated",
            &json!({ "created": 100, "data": { "object": { "id": "sub_2", "status": "past_due" } } }).to_string(),
            1,
        ),
    ]);
    let wanted =
        world.fixture.rows("SELECT rule, path, event_id FROM refetches ORDER BY rule, path");
    insta::assert_debug_snapshot!(wanted.concat(), @r#"
    [
        "stripe-subscription-items",
        "/v1/subscriptions/sub_1",
        "evt_2",
        "stripe-subscriptions",
        "/v1/subscriptions/sub_1",
        "evt_2",
    ]
    "#);
    world.rounds();
    assert_eq!(
        world.fixture.rows("SELECT id, CAST(quantity AS TEXT) FROM subscriptions"),
        [["sub_1", "9"], ["sub_2", "NULL"],]
    );
}

#[test]
fn an_api_that_fails_is_retried_and_finally_given_up() {
    let world = World::new();
    world.is(&subscription(&[9]));
    let tie =
        [updated("evt_1", 100, &subscription(&[1])), updated("evt_2", 100, &subscription(&[2]))];
    world.applied(&tie);
    // Moods are popped from the end; the two rules take turns.
    *world.api.moods.lock().unwrap() = vec![
        Mood::Answers,
        Mood::Raves,
        Mood::Says(401),
        Mood::IsAway,
        Mood::Says(500),
        Mood::Says(429),
    ];
    insta::assert_snapshot!(world.rounds().join("\n"), @"
    cannot fetch /v1/subscriptions/sub_1 from stripe: response 429; next request at 2027-01-15T08:00:10.000Z
    cannot fetch /v1/subscriptions/sub_1 from stripe: response 500; next request at 2027-01-15T08:00:10.100Z
    cannot fetch /v1/subscriptions/sub_1 from stripe: no response: [key] is away; next request at 2027-01-15T08:00:30.000Z
    cannot fetch /v1/subscriptions/sub_1 from stripe: response 401; check that the key STRIPE_API_KEY can read this; next request at 2027-01-15T08:00:30.100Z
    gave up fetching /v1/subscriptions/sub_1 from stripe after 3 attempts (the response is not the requested object); rule `stripe-subscription-items` falls back to event-id order
    ");
    // Whatever the API does, the state is the same for any order.
    assert_eq!(world.items().len(), 1);
    assert!(world.fixture.rows("SELECT rule FROM refetches").is_empty());
}

#[test]
fn a_clock_that_was_ahead_delays_no_request() {
    for mood in [Mood::Answers, Mood::IsAway, Mood::Says(429)] {
        let world = World::new();
        world.is(&subscription(&[9]));
        let tie = [
            updated("evt_1", 100, &subscription(&[1])),
            updated("evt_2", 100, &subscription(&[2])),
        ];
        world.applied(&tie);
        let right = *world.api.clock.lock().unwrap();
        world.api.moods.lock().unwrap().push(mood);
        world.later(Duration::from_secs(86_400));
        world.round();
        *world.api.clock.lock().unwrap() = right;
        world.rounds();
        assert_eq!(world.quantity(), [["9", "0"]]);
        let took = *world.api.clock.lock().unwrap() - right;
        assert!(took < 60_000, "{mood:?}: {took}");
    }
}

#[test]
fn a_missing_object_is_left_to_its_deletion_event() {
    let world = World::new();
    let tie = |n: i64| {
        [
            updated(&format!("evt_{n}a"), n, &subscription(&[1])),
            updated(&format!("evt_{n}b"), n, &subscription(&[2])),
        ]
    };
    // 404, and Stripe's answer for a deleted customer.
    world.applied(&tie(100));
    insta::assert_snapshot!(world.rounds().join("\n"), @"
    stripe has no /v1/subscriptions/sub_1; rule `stripe-subscription-items` falls back to event-id order until a deletion arrives. If the object exists, check that the key STRIPE_API_KEY belongs to this account and mode
    stripe has no /v1/subscriptions/sub_1; rule `stripe-subscriptions` falls back to event-id order until a deletion arrives. If the object exists, check that the key STRIPE_API_KEY belongs to this account and mode
    ");
    world.is(&json!({ "id": "sub_1", "deleted": true }));
    world.applied(&tie(200));
    assert!(world.rounds().is_empty());
    assert_eq!(world.request_count(), 4);
    assert_eq!(world.quantity(), [["2", "0"]]);
}

#[test]
fn a_tie_of_a_connected_account_is_fetched_from_that_account() {
    let world = World::new();
    let tied = |id: &str, account: &Value| {
        let body = json!({
            "id": id, "api_version": "2026-10-28.endive", "created": 100, "account": account,
            "data": { "object": { "id": "cus_1", "email": id } },
        });
        event(id, "customer.updated", &body.to_string(), 1)
    };
    let object = json!({ "id": "cus_1", "email": "current" });
    world.api.objects.lock().unwrap().insert("/v1/customers/cus_1".to_owned(), object);
    let account = json!("acct_1");
    world.applied(&[tied("evt_1", &account), tied("evt_2", &account)]);
    assert!(world.rounds().is_empty());
    assert_eq!(world.fixture.rows("SELECT email FROM customers"), [["current"]]);
    // Without an account, the object belongs to the key's own.
    world.later(Duration::from_secs(1));
    world.applied(&[tied("evt_3", &Value::Null)]);
    assert!(world.rounds().is_empty());
    let requests = world.api.requests.lock().unwrap();
    let asked = requests.iter().map(|request| {
        request
            .headers
            .iter()
            .find(|(name, _)| *name == "stripe-account")
            .map(|(_, account)| account.as_str())
    });
    assert_eq!(asked.collect::<Vec<_>>(), [Some("acct_1"), None]);
    drop(requests);
    // The account does not have it.
    world.api.objects.lock().unwrap().clear();
    world.applied(&[tied("evt_4", &account)]);
    insta::assert_snapshot!(world.rounds().join("\n"), @"stripe has no /v1/customers/cus_1 for the account acct_1; rule `stripe-customers` falls back to event-id order until a deletion arrives. If the object exists, check that the key STRIPE_API_KEY belongs to this account and mode");
}

#[test]
fn requests_keep_the_rate_limit() {
    let world = World::new();
    world.is(&subscription(&[9]));
    for second in [100, 200] {
        let tie = ["a", "b"]
            .map(|id| updated(&format!("evt_{second}{id}"), second, &subscription(&[second])));
        world.applied(&tie);
        let mut times = Vec::new();
        for _ in 0..30 {
            let before = world.request_count();
            world.round();
            if world.request_count() > before {
                assert_eq!(world.request_count(), before + 1);
                times.push(*world.api.clock.lock().unwrap());
            }
            world.later(Duration::from_millis(10));
        }
        assert_eq!(times.len(), 2);
        assert!(times[1] - times[0] >= 100, "{times:?}");
    }
}

fn any_mood() -> impl Strategy<Value = Mood> {
    prop_oneof![6 => Just(Mood::Answers), 1 => Just(Mood::IsAway), 1 => Just(Mood::Says(503))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Histories whose events of one second are not ordered.
    #[test]
    fn the_last_state_of_an_object_stays_in_any_order(
        seconds in prop::collection::vec(any::<bool>(), 1..10),
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20),
        pauses in prop::collection::vec(any::<bool>(), 1..10),
        moods in prop::collection::vec(any_mood(), 0..2),
    ) {
        let world = World::new();
        let mut second = 100;
        let events: Vec<_> = seconds
            .iter()
            .enumerate()
            .map(|(number, later)| {
                second += i64::from(*later);
                // Ids contradict the order of the history.
                let id = format!("evt_{:02}", 99 - number);
                let items: Vec<_> = (0..=number % 3).map(|_| i64::try_from(number).unwrap()).collect();
                (second, updated(&id, second, &subscription(&items)), subscription(&items))
            })
            .collect();
        // The API has the last state from the beginning.
        let (_, _, truth) = events.last().unwrap();
        world.is(truth);
        *world.api.moods.lock().unwrap() = moods;
        let mut order: Vec<usize> = (0..events.len()).collect();
        for (one, other) in swaps {
            let length = order.len();
            order.swap(one.index(length), other.index(length));
        }
        let mut pauses = pauses.into_iter().cycle();
        let mut batch = Vec::new();
        for number in order {
            batch.push(events[number].1.clone());
            if pauses.next() == Some(true) {
                world.applied(&std::mem::take(&mut batch));
                world.later(Duration::from_secs(1));
                world.rounds();
            }
        }
        world.applied(&batch);
        world.later(Duration::from_secs(1));
        world.rounds();
        for request in world.api.requests.lock().unwrap().iter() {
            prop_assert_eq!(request.method, Method::Get);
        }
        let expected = truth["items"]["data"].as_array().unwrap();
        let expected: Vec<_> = expected
            .iter()
            .map(|item| vec![item["id"].as_str().unwrap().to_owned(), item["quantity"].to_string()])
            .collect();
        prop_assert_eq!(world.items(), expected);
        let quantity = truth["items"]["data"][0]["quantity"].to_string();
        prop_assert_eq!(world.quantity(), vec![vec![quantity, "0".to_owned()]]);
    }
}
