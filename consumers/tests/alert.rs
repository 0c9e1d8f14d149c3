//! Alerts on a real SQLite, with a webhook that is unavailable and a process that ends: each alert is sent once, repeated
//! while its condition persists, and sent when it has ended.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Mutex;

use hookmill_config::Consumers;
use hookmill_consumers::alert::{Alarm, Looked, look, tell_outage};
use hookmill_consumers::outbox::ChannelError;
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::outbound::{ApiRequest, ApiResponse};
use hookmill_core::queue::Backlog;
use hookmill_core::request::Request;
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::store::{Row, Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_loader::Loaded;
use hookmill_native::{DataFolder, Sqlite};
use hookmill_providers::{Admitted, Verifier};
use serde_json::{Value, json};

/// Its source verifies the alerts.
const CONFIG: &str = r#"
[sources.alerts]
scheme = "standard-webhooks"
secrets = ["env:ALERTS_SECRET"]

[sources.billing]
scheme = "stripe"
secrets = ["env:STRIPE_WEBHOOK_SECRET"]
api = { key = "env:STRIPE_API_KEY" }
sweep = "2h"

[email]
provider = "resend"
from = "Hookmill <hookmill@example.com>"

[alerts]
email = "Ops <ops@example.com>"
webhook = { url = "env:ALERTS_URL", secret = "env:ALERTS_SECRET" }
oldest_dead_letter = "1h"
dead_letters = 3
lag = "30s"
repeat = "12h"
"#;

const HOUR: i64 = 3_600_000;
/// The time at which a test begins; other times are relative to it.
const START: i64 = 1_767_225_600_000;

struct World {
    store: Sqlite,
    loaded: Loaded,
    alarm: Alarm,
    /// The status of the webhook's response; 0 for no response.
    status: Mutex<u16>,
    requests: Mutex<Vec<ApiRequest>>,
    /// The size of the database.
    size: Mutex<Option<u64>>,
    /// The number of transactions after which the process ends.
    death: Mutex<Option<usize>>,
    /// The number of transactions before which another process sends alerts too.
    intrusion: Mutex<Option<usize>>,
    _folder: tempfile::TempDir,
    _data: DataFolder,
}

fn secret(name: &SecretName) -> Option<Secret> {
    match name.0.as_str() {
        "ALERTS_URL" => Some("https://alerts.example.com/hook?token=secret\n".into()),
        "ALERTS_SECRET" => Some("whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0".into()),
        _ => None,
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn load(text: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hookmill.toml");
    std::fs::write(&path, text).unwrap();
    hookmill_loader::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"))
}

impl World {
    fn new() -> Self {
        let loaded = load(CONFIG);
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::lock(folder.path()).unwrap();
        let store = data.store(&loaded.migrations).unwrap().store;
        Self {
            store,
            alarm: Alarm::new(&loaded.consumers(), secret).unwrap().unwrap(),
            loaded,
            status: Mutex::new(204),
            requests: Mutex::default(),
            death: Mutex::default(),
            size: Mutex::default(),
            intrusion: Mutex::default(),
            _folder: folder,
            _data: data,
        }
    }

    fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let statement = Statement::new(sql, Vec::new());
        let rows = block(self.store.execute(vec![statement])).unwrap().remove(0);
        rows.iter().map(Row::texts).collect()
    }

    fn letter(&self, id: &str, failed_at: i64) {
        let failed_at = START + failed_at;
        self.sql(&format!(
            "INSERT INTO dead_letters (id, reason, error, fingerprint, attempts, first_failed_at, last_failed_at, message)
            VALUES ('{id}', 'refused', 'x', 'f', 1, {failed_at}, {failed_at}, 'm')"
        ));
    }

    fn look(&self, now: i64) -> Result<Looked, StoreError> {
        block(look(
            self,
            self,
            &self.alarm,
            &Backlog::default(),
            Timestamp::from_millis(START + now),
        ))
    }

    /// The notifications at this time.
    fn notified(&self, now: i64) -> Vec<String> {
        self.look(now).unwrap().notified
    }

    /// The webhooks that were sent: id, type and data, verified as a receiver verifies them.
    fn webhooks(&self) -> Vec<(String, Value, Value)> {
        let verifier = Verifier::new(&self.loaded.config.ingress.sources[0], secret).unwrap();
        let requests = self.requests.lock().unwrap();
        let read = |request: &ApiRequest| {
            assert_eq!(request.url, "https://alerts.example.com/hook?token=secret");
            let headers = request.headers.iter();
            let headers: Vec<_> =
                headers.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            let at = &headers.iter().find(|(name, _)| name == "webhook-timestamp").unwrap().1;
            let now = Timestamp::from_seconds(at.parse().unwrap());
            let webhook = Request {
                method: "POST",
                query: None,
                headers: &headers,
                body: request.body.as_bytes(),
            };
            let Admitted::Events(_, events) = verifier.verify(&webhook, now).unwrap() else {
                panic!("no event")
            };
            let body: Value = serde_json::from_str(&request.body).unwrap();
            (events[0].id.clone(), body["type"].clone(), body["data"]["alert"].clone())
        };
        requests.iter().map(read).collect()
    }

    fn emails(&self) -> Vec<String> {
        let rows = self.sql("SELECT content ->> '$.literal[0]' FROM outbox ORDER BY created_at");
        rows.into_iter().flatten().flatten().collect()
    }
}

impl Store for World {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let intrudes = {
            let mut intrusion = self.intrusion.lock().unwrap();
            let left = intrusion.take();
            *intrusion = left.and_then(|left: usize| left.checked_sub(1));
            left == Some(0)
        };
        if intrudes {
            look(
                &self.store,
                self,
                &self.alarm,
                &Backlog::default(),
                Timestamp::from_millis(START + HOUR),
            )
            .await?;
        }
        let rows = self.store.execute(statements).await?;
        let mut death = self.death.lock().unwrap();
        match death.take() {
            Some(0) => Err(StoreError::Unavailable("the process has died".into())),
            left => {
                *death = left.map(|left| left - 1);
                Ok(rows)
            }
        }
    }

    async fn size(&self) -> Option<u64> {
        *self.size.lock().unwrap()
    }
}

impl Fetch for World {
    async fn ask(&self, request: ApiRequest, _: &Secret) -> Result<ApiResponse, FetchError> {
        self.requests.lock().unwrap().push(request);
        match *self.status.lock().unwrap() {
            0 => Err(FetchError::NoAnswer("it has hung up".into())),
            status => Ok(ApiResponse {
                status,
                retry_after: None,
                message_id: None,
                date: None,
                body: String::new(),
            }),
        }
    }
}

#[test]
fn an_alert_is_raised_repeated_and_ended() {
    let world = World::new();
    assert_eq!(world.notified(0), Vec::<String>::new());
    world.letter("a", 0);
    assert_eq!(world.notified(HOUR - 1), Vec::<String>::new());
    assert_eq!(
        world.notified(HOUR),
        [
            "A dead letter has waited for 1h; there are 1 refused. `hookmill dead-letters groups` lists the errors."
        ]
    );
    // Nothing until the alert is due to be repeated.
    assert_eq!(world.notified(2 * HOUR), Vec::<String>::new());
    assert_eq!(world.notified(13 * HOUR - 1), Vec::<String>::new());
    assert_eq!(world.notified(13 * HOUR).len(), 1);
    world.sql("UPDATE dead_letters SET state = 'discarded'");
    assert_eq!(world.notified(14 * HOUR), ["Over: no dead letter has waited for 1h."]);
    assert_eq!(world.notified(15 * HOUR), Vec::<String>::new());
    assert_eq!(world.sql("SELECT * FROM alerts"), Vec::<Vec<_>>::new());
    let webhooks = world.webhooks();
    let kinds: Vec<_> =
        webhooks.iter().map(|(_, kind, about)| (kind.clone(), about.clone())).collect();
    let expected = ["alert.raised", "alert.repeated", "alert.ended"];
    assert_eq!(kinds, expected.map(|kind| (json!(kind), json!("oldest_dead_letter"))));
    assert_eq!(webhooks.iter().map(|(id, ..)| id).collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(
        world.emails(),
        [
            "Hookmill: oldest dead letter",
            "Hookmill, still: oldest dead letter",
            "Hookmill, over: oldest dead letter"
        ]
    );
    // Dead again, so the alert is raised again.
    world.sql("UPDATE dead_letters SET state = 'dead'");
    assert_eq!(world.notified(16 * HOUR).len(), 1);
    assert_eq!(world.webhooks()[3].1, "alert.raised");
}

#[test]
fn an_alert_from_a_clock_that_was_ahead_is_repeated() {
    let world = World::new();
    world.letter("a", 0);
    assert_eq!(world.notified(1000 * HOUR).len(), 1);
    assert_eq!(world.notified(HOUR).len(), 1);
    assert_eq!(world.notified(2 * HOUR), Vec::<String>::new());
}

#[test]
fn a_large_database_raises_an_alert() {
    let world = World::new();
    let sized = |size: u64, minute: i64| {
        *world.size.lock().unwrap() = Some(size);
        world.notified(minute * 60_000)
    };
    assert_eq!(sized(7_999_999_999, 1), Vec::<String>::new());
    let [raised] = &sized(8_260_000_000, 2)[..] else { panic!("no alert") };
    assert!(raised.starts_with("The database has 8.2 GB. "), "{raised}");
    assert_eq!(sized(8_260_000_000, 3), Vec::<String>::new());
    assert_eq!(sized(7_000_000_000, 4), ["Over: the database has less than 8.0 GB."]);
}

#[test]
fn a_sweep_that_is_late_raises_an_alert() {
    let world = World::new();
    world.sql(&format!(
        "INSERT INTO sweeps (source, swept_to, due_at, error) VALUES ('billing', {START}, 0, 'response 403'), ('former', 0, 0, NULL)"
    ));
    assert_eq!(world.notified(3 * HOUR), Vec::<String>::new());
    let [raised] = &world.notified(3 * HOUR + 60_000)[..] else { panic!("no alert") };
    assert_eq!(
        raised,
        "Hookmill has not read the events of billing since 2026-01-01T00:00:00.000Z: response 403. \
         The provider removes the first of them at 2026-01-31T00:00:00.000Z. Events that were not delivered may be missing."
    );
    world.sql(&format!("UPDATE sweeps SET swept_to = {START} + 2 * {HOUR}"));
    assert_eq!(world.notified(4 * HOUR), ["Over: the sweeps are up to date again."]);
}

#[test]
fn differences_raise_an_alert_until_a_reconciliation_finds_none() {
    let world = World::new();
    let mut jobs = 0;
    let mut reconciled = |state: &str, found: Value, filter: &Value, error: Option<&str>| {
        jobs += 1;
        let report = json!({ "tables": found });
        let error = error.map_or_else(|| "NULL".to_owned(), |error| format!("'{error}'"));
        world.sql(&format!(
            "INSERT INTO replays (id, kind, filter, state, planned_by, planned_at, ended_at, report, error, generation)
            VALUES ('r{jobs}', 'reconcile', '{filter}', '{state}', 'hookmill', 0, {jobs}, '{report}', {error}, {jobs})"
        ));
    };
    let sampled = json!({ "source": "billing", "sample": 1000 });
    let (equal, differ) = (
        json!({}),
        json!({ "a": { "missing": 2, "repaired": 1 }, "b": { "different": 3, "unclear": 9 } }),
    );
    reconciled("done", equal.clone(), &sampled, None);
    assert_eq!(world.notified(1), Vec::<String>::new());
    reconciled("done", differ, &sampled, None);
    assert_eq!(
        world.notified(2),
        [
            "4 rows differ from the API of billing: `hookmill replays show r2` says which tables, and `hookmill reconcile billing --repair` repairs them."
        ]
    );
    // It is about one table, so it says nothing about the others.
    reconciled("done", equal.clone(), &json!({ "source": "billing", "table": "a" }), None);
    assert_eq!(world.notified(3), Vec::<String>::new());
    let repaired = json!({ "a": { "missing": 2, "repaired": 2 } });
    reconciled(
        "done",
        repaired,
        &json!({ "source": "billing", "sample": 1000, "repair": true }),
        None,
    );
    let over = "Over: the last reconciliations found no differences.";
    assert_eq!(world.notified(4), [over]);
    reconciled("paused", equal, &sampled, Some("stripe answered 403"));
    assert_eq!(
        world.notified(5),
        ["The reconciliation r5 of billing is paused: stripe answered 403."]
    );
}

#[test]
fn two_hookmills_use_different_ids() {
    let ids = [World::new(), World::new()].map(|world| {
        world.letter("a", 0);
        world.notified(HOUR);
        let email = world.sql("SELECT id FROM outbox").remove(0).remove(0);
        (world.webhooks().remove(0).0, email)
    });
    assert_ne!(ids[0].0, ids[1].0);
    assert_ne!(ids[0].1, ids[1].1);
}

#[test]
fn a_concurrent_process_sends_no_second_alert() {
    let world = World::new();
    world.letter("a", 0);
    // Another process sends the alert between this one's read and write.
    *world.intrusion.lock().unwrap() = Some(1);
    world.look(HOUR).unwrap();
    assert_eq!(world.emails().len(), 1);
    assert_eq!(world.webhooks().iter().map(|(id, ..)| id).collect::<BTreeSet<_>>().len(), 1);
}

#[test]
fn many_dead_letters_and_a_long_lag_raise_alerts() {
    let world = World::new();
    for id in ["a", "b"] {
        world.letter(id, HOUR);
    }
    world.sql(&format!(
        "INSERT INTO activity VALUES (({START} + {HOUR}) / 60000, 's', 'applied', 1, 29999)"
    ));
    assert_eq!(world.notified(HOUR), Vec::<String>::new());
    world.letter("c", HOUR);
    world.sql("UPDATE activity SET lag = 30000");
    assert_eq!(
        world.notified(HOUR),
        [
            "3 dead letters are waiting: 3 refused. `hookmill dead-letters groups` lists the errors.",
            "An event has taken 30s from ingress to its tables, or has waited for so long."
        ]
    );
    world.sql("DELETE FROM dead_letters WHERE id = 'c'");
    assert_eq!(
        world.notified(HOUR + 10 * 60_000),
        [
            "Over: 2 dead letters are waiting, fewer than 3.",
            "Over: events take less than 30s again."
        ]
    );
}

#[test]
fn a_webhook_is_sent_under_the_same_id_until_it_is_accepted() {
    let world = World::new();
    world.letter("a", 0);
    for status in [0, 500, 404] {
        *world.status.lock().unwrap() = status;
        let looked = world.look(HOUR + i64::from(status)).unwrap();
        assert_eq!(looked.problems.len(), 1, "{looked:?}");
        assert!(!looked.problems[0].contains("token"), "{looked:?}");
    }
    // The condition ends before the webhook was accepted.
    world.sql("DELETE FROM dead_letters");
    world.notified(2 * HOUR);
    *world.status.lock().unwrap() = 200;
    world.notified(2 * HOUR + 60_000);
    world.notified(2 * HOUR + 120_000);
    let webhooks = world.webhooks();
    let ids: Vec<_> = webhooks.iter().map(|(id, ..)| id.as_str()).collect();
    let kinds: Vec<_> = webhooks.iter().map(|(_, kind, _)| kind.as_str().unwrap()).collect();
    let (raised, ended) = ("alert.raised", "alert.ended");
    assert_eq!(kinds, [raised, raised, raised, ended, ended]);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 2);
    assert_eq!(world.sql("SELECT * FROM alerts"), Vec::<Vec<_>>::new());
    // The email did not wait for the webhook.
    assert_eq!(world.emails().len(), 2);
}

#[test]
fn an_alert_survives_a_crash() {
    for transactions in 0..3 {
        let world = World::new();
        world.letter("a", 0);
        *world.death.lock().unwrap() = Some(transactions);
        let _ = world.look(HOUR);
        world.look(HOUR + 60_000).unwrap();
        let webhooks = world.webhooks();
        assert!(!webhooks.is_empty(), "{transactions}");
        assert_eq!(webhooks.iter().map(|(id, ..)| id).collect::<BTreeSet<_>>().len(), 1);
        assert_eq!(world.emails(), ["Hookmill: oldest dead letter"], "{transactions}");
        assert_eq!(world.sql("SELECT pending FROM alerts"), [[None]]);
    }
}

#[test]
fn an_outage_of_the_store_is_told_without_it() {
    let world = World::new();
    // The start of an hour.
    let hour = START / 60_000;
    let tell = |minute: i64| {
        let error = StoreError::from_d1("D1_ERROR: Exceeded maximum DB size".into());
        let now = Timestamp::from_seconds((hour + minute) * 60 + 7);
        block(tell_outage(&world, &world.alarm, &error, now))
    };
    let told = tell(30).unwrap().unwrap();
    assert!(told.contains("the D1 database is full; shorten `[retention]`"), "{told}");
    // Another process tells the same, and nothing is told for a quarter of an hour.
    tell(30).unwrap().unwrap();
    assert!((31..45).all(|minute| tell(minute).is_none()));
    *world.status.lock().unwrap() = 500;
    let problem = tell(45).unwrap().unwrap_err();
    assert_eq!(problem, "the alert webhook responded with 500");
    let webhooks = world.webhooks();
    let ids: Vec<_> = webhooks.iter().map(|(id, ..)| id.as_str()).collect();
    let expected = [30, 30, 45].map(|minute| format!("outage-{}", hour + minute));
    assert_eq!(ids, expected);
    assert!(webhooks.iter().all(|(_, _, alert)| alert == "outage"));
}

#[test]
fn a_queue_that_moves_nothing_is_lag() {
    let world = World::new();
    let backlog = Backlog { messages: 3, oldest: Some(Timestamp::from_millis(START)) };
    let at = |now: i64| {
        let now = Timestamp::from_millis(START + now);
        block(look(&world.store, &world, &world.alarm, &backlog, now)).unwrap().notified
    };
    assert_eq!(at(29_999), Vec::<String>::new());
    assert_eq!(
        at(30_000),
        ["An event has taken 30s from ingress to its tables, or has waited for so long."]
    );
}

#[test]
fn a_secret_that_alerts_name_must_be_set() {
    let config: Consumers = load(CONFIG).consumers();
    let messages = |lookup: fn(&SecretName) -> Option<Secret>| -> Vec<String> {
        let errors = Alarm::new(&config, lookup).unwrap_err();
        errors.iter().map(ChannelError::to_string).collect()
    };
    let unset = [
        "ALERTS_URL is not set; `[alerts]` names it",
        "ALERTS_SECRET is not set; `[alerts]` names it",
    ];
    assert_eq!(messages(|_| None), unset);
    assert_eq!(messages(|_| Some(" \n".into())), unset);
    assert_eq!(
        messages(|_| Some("plain".into())),
        [
            "ALERTS_URL does not begin with https://; `[alerts]` names it",
            "ALERTS_SECRET is not `whsec_` and base64; `[alerts]` names it"
        ]
    );
    let without_alerts = load(CONFIG.split("[alerts]").next().unwrap()).consumers();
    assert!(Alarm::new(&without_alerts, |_| None).unwrap().is_none());
}
