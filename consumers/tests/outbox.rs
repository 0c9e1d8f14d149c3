//! Sending on a real SQLite, to providers that lose responses, are busy or unavailable, from processes that end after any
//! statement: Resend accepts each email once, the other providers at most once, and uncertain deliveries are recorded.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use hookmill_config::{Consumers, Emails, Limits, OnUncertain, Quota, Retry, Sending};
use hookmill_consumers::outbox::{
    ChannelError, OutboxChannel, Round, Sent, rounds, state, stranded,
};
use hookmill_core::email::{Email, TemplateText};
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::outbound::{ApiRequest, ApiResponse, Provider, Purpose, SendResult};
use hookmill_core::panics::Panicked;
use hookmill_core::params;
use hookmill_core::secret::{ExposeSecret as _, Secret, SecretName};
use hookmill_core::store::{Param, Row, Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_native::{DataFolder, Sqlite};
use hookmill_providers::api::{Api, Sealed};
use hookmill_providers::email::smtp::{Reply, Step};
use hookmill_providers::email::{EmailApi, Resend, email_api};
use hookmill_rules::Program;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The provider's behavior for the next request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Accepts,
    /// Busy for this number of seconds.
    Busy {
        after: u64,
    },
    /// Responds with 500, after accepting the batch or not.
    Broken {
        accepts: bool,
    },
    /// Sends no response, after accepting the batch or not.
    Silent {
        accepts: bool,
    },
    /// Responds with 503, without accepting the batch.
    NotBegun,
    NoConnection,
    /// Accepts all emails except the one with this index, whose recipient is inactive, as Postmark calls it.
    Inactive {
        place: usize,
    },
    /// Accepts the batch, while another process locks the database for this number of writes.
    AcceptsWhileLocked {
        tries: usize,
    },
}

/// Whether the process ends before or after a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Death {
    Before,
    After,
}

struct World {
    store: Sqlite,
    config: Consumers,
    moods: Mutex<Vec<Mood>>,
    /// The number of transactions until the process ends, and when.
    death: Mutex<Option<(usize, Death)>>,
    /// Whether the process has ended: the next round is another process.
    dead: Mutex<bool>,
    /// The number of transactions that fail because another process locks the database.
    locked: Mutex<usize>,
    /// The number of transactions until another process runs a whole round.
    intrusion: Mutex<Option<usize>>,
    /// The time, in milliseconds.
    now: Mutex<i64>,
    /// The requests to Resend, by key.
    keys: Mutex<BTreeMap<String, String>>,
    /// The recipients of accepted emails.
    accepted: Mutex<Vec<String>>,
    requests: Mutex<usize>,
    /// The provider that is unreachable.
    away: Mutex<Option<&'static str>>,
    /// Recipients whose emails are refused, with the whole batch.
    refused: Mutex<Vec<&'static str>>,
    _folder: tempfile::TempDir,
    _data: DataFolder,
}

impl World {
    fn new(provider: Provider, emails: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::lock(folder.path()).unwrap();
        let store = data.store(&hookmill_migrations::own()).unwrap().store;
        let text = TemplateText {
            subject: "Welcome, {{ name }}".into(),
            html: "<p>{{ name }}</p>".into(),
            text: None,
        };
        let config = Consumers {
            program: Program::default(),
            apis: BTreeMap::new(),
            api_versions: BTreeMap::new(),
            sweeps: BTreeMap::new(),
            reconciliations: BTreeMap::new(),
            limits: Limits::default(),
            keep_messages: false,
            alerts: None,
            retry: Retry {
                max_attempts: 3,
                initial: Duration::from_secs(1),
                multiplier: 1.0,
                max: Duration::from_secs(1),
                jitter: 0.0,
            },
            emails: Some(Emails {
                sending: sending(provider),
                from: "Acme <hello@example.com>".parse().unwrap(),
                reply_to: None,
                per_hour: 1000,
            }),
            sms: None,
            tracking: Vec::new(),
            templates: BTreeMap::from([("welcome".to_owned(), text)]),
        };
        let world = Self {
            store,
            config,
            moods: Mutex::default(),
            death: Mutex::default(),
            dead: Mutex::default(),
            locked: Mutex::default(),
            intrusion: Mutex::default(),
            now: Mutex::default(),
            keys: Mutex::default(),
            accepted: Mutex::default(),
            requests: Mutex::default(),
            away: Mutex::default(),
            refused: Mutex::default(),
            _folder: folder,
            _data: data,
        };
        let rows: Vec<_> = (0..emails)
            .map(|n| {
                let to = format!("{n}@example.com");
                let content = json!({ "template": "welcome", "to": [to], "data": { "name": n } });
                json!([format!("evt_{n}"), content])
            })
            .collect();
        let sql = "INSERT INTO outbox (id, source, event_id, generation, rule, channel, recipient, content, due_at, created_at) \
            SELECT 'id_' || (value ->> 0), 's', value ->> 0, 0, 'welcome', 'email', value ->> '$[1].to[0]', value -> 1, 0, 0 FROM json_each(?1)";
        world.sql(sql, params![json!(rows).to_string()]);
        world
    }

    fn sql(&self, sql: &str, params: Vec<Param>) -> Vec<Vec<Option<String>>> {
        let statement = Statement::new(sql, params);
        let rows = block(self.store.execute(vec![statement])).unwrap().remove(0);
        rows.iter().map(Row::texts).collect()
    }

    fn states(&self) -> BTreeMap<String, u64> {
        let rows = self.sql("SELECT state, count(*) FROM outbox GROUP BY state", vec![]);
        let pair = |row: &Vec<Option<String>>| {
            (row[0].clone().unwrap(), row[1].as_ref().unwrap().parse().unwrap())
        };
        rows.iter().map(pair).collect()
    }

    fn emails(&mut self) -> &mut Sending {
        &mut self.config.emails.as_mut().unwrap().sending
    }

    /// Runs one round at this time in milliseconds; an error if the process ended.
    fn round(&self, now: i64) -> Result<Round, StoreError> {
        *self.now.lock().unwrap() = now;
        *self.dead.lock().unwrap() = false;
        let key = |_: &SecretName| Some(Secret::from("the-key"));
        let channel = OutboxChannel::all(&self.config, key).unwrap().remove(0);
        let channels = [channel];
        let rounds = block(rounds(self, self, &channels, || Timestamp::from_millis(now)))?;
        Ok(rounds.into_iter().next().unwrap())
    }

    /// Runs rounds, each when the previous one is due, until no work is left.
    fn until_done(&self, mut now: i64) -> i64 {
        for _ in 0..1000 {
            match self.round(now).unwrap().next {
                Some(next) => now = next.millis(),
                None => return now,
            }
        }
        panic!("it does not end")
    }
}

fn sending(provider: Provider) -> Sending {
    Sending {
        apis: vec![api(provider)],
        failover_after: 3,
        wait: Duration::ZERO,
        on_uncertain: OnUncertain::Hold,
        quota: None,
    }
}

/// Whether the provider recognizes a batch that it has received.
fn recognizes(provider: Provider) -> bool {
    email_api(provider).unwrap().recognizes_for().is_some()
}

fn api(provider: Provider) -> hookmill_config::Api {
    let (key, url) = (SecretName("KEY".into()), format!("https://{}", provider.as_str()));
    hookmill_config::Api { provider, key, url, rate: 10, user: Some("somebody".into()) }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Counts down; whether it has reached zero.
fn due(left: &Mutex<Option<usize>>) -> bool {
    let mut left = left.lock().unwrap();
    match &mut *left {
        Some(0) => {
            *left = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

/// The store of a process that may end.
impl Store for World {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let death = {
            let mut death = self.death.lock().unwrap();
            match &mut *death {
                Some((0, when)) => {
                    let when = *when;
                    *death = None;
                    Some(when)
                }
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        let dead = StoreError::Unavailable("the process has died".into());
        if due(&self.intrusion) {
            let now = *self.now.lock().unwrap();
            // Its clock differs, so its batches have other keys.
            let other = || self.round(now + 1).map(drop);
            // Errors of the other process do not matter here.
            let _ = std::thread::scope(|scope| scope.spawn(other).join()).unwrap();
        }
        if *self.dead.lock().unwrap() {
            return Err(dead);
        }
        let locked = std::mem::replace(&mut *self.locked.lock().unwrap(), 0);
        if locked > 0 {
            *self.locked.lock().unwrap() = locked - 1;
            return Err(StoreError::Unavailable("database is locked".into()));
        }
        *self.dead.lock().unwrap() = death.is_some();
        if death == Some(Death::Before) {
            return Err(dead);
        }
        let rows = self.store.execute(statements).await?;
        if death == Some(Death::After) { Err(dead) } else { Ok(rows) }
    }
}

/// The differences between the providers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fake(Provider);

impl Fake {
    /// The provider with this URL, see [`api()`].
    fn of(url: &str) -> Self {
        let named = |provider: &&Provider| {
            format!("{url}/").starts_with(&format!("https://{}/", provider.as_str()))
        };
        Self(*Provider::ALL.iter().find(named).unwrap())
    }

    /// The first recipient of each email.
    fn addresses(self, request: &ApiRequest) -> Vec<String> {
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let alone = json!([body]);
        let (emails, to) = match self.0 {
            Provider::Resend => (&body, "/to/0"),
            Provider::SendGrid => (&body["personalizations"], "/to/0/email"),
            Provider::Postmark => (&body, "/To"),
            Provider::Smtp => (&alone, "/to/0"),
            other => panic!("{other:?} takes no emails"),
        };
        let address = |email: &Value| {
            let to = email.pointer(to).unwrap().as_str().unwrap();
            to.split(',').next().unwrap().to_owned()
        };
        emails.as_array().unwrap().iter().map(address).collect()
    }

    /// The key by which it recognizes the request.
    fn key(self, request: &ApiRequest) -> Option<String> {
        let mut headers = request.headers.iter();
        let key = headers.find(|(name, _)| *name == "idempotency-key").map(|(_, key)| key.clone());
        assert_eq!(key.is_some(), recognizes(self.0), "{self:?}");
        key
    }

    /// Its response when it accepts this number of emails.
    fn accepts(self, emails: usize) -> (u16, Value) {
        let each = |json: fn(usize) -> Value| (0..emails).map(json).collect::<Value>();
        match self.0 {
            Provider::Resend => (200, json!({ "data": each(|n| json!({ "id": n.to_string() })) })),
            Provider::SendGrid => (202, Value::Null),
            Provider::Postmark => {
                let email = |n: usize| json!({ "ErrorCode": 0, "Message": "OK", "MessageID": n.to_string() });
                (200, each(email))
            }
            Provider::Smtp => (250, Value::Null),
            other => panic!("{other:?} takes no emails"),
        }
    }

    /// Its equivalent of an HTTP status. `None`: it has no equivalent, and the connection breaks.
    fn says(self, status: u16, body: String) -> Option<(u16, String)> {
        let (code, step) = match (self.0, status) {
            (Provider::Smtp, 250) => (250, Step::Message),
            (Provider::Smtp, 422) => (550, Step::Recipient),
            (Provider::Smtp, 429) => (454, Step::Message),
            (Provider::Smtp, 503) => (421, Step::Login),
            (Provider::Smtp, _) => return None,
            _ => return Some((status, body)),
        };
        let reply = Reply { step, text: "Ok 0100018c".into(), left_out: Vec::new() };
        Some((code, serde_json::to_string(&reply).unwrap()))
    }
}

/// The providers that accept several emails in a request.
fn in_batches() -> Vec<Provider> {
    let several = |provider: &Provider| email_api(*provider).unwrap().max_batch() > 1;
    providers().into_iter().filter(several).collect()
}

/// Every provider of emails.
fn providers() -> Vec<Provider> {
    Provider::of(Purpose::Email).into_iter().map(|(_, provider)| provider).collect()
}

impl Fetch for World {
    async fn ask(&self, request: ApiRequest, key: &Secret) -> Result<ApiResponse, FetchError> {
        assert_eq!(key.expose_secret(), "the-key");
        *self.requests.lock().unwrap() += 1;
        let mood = self.moods.lock().unwrap().pop().unwrap_or(Mood::Accepts);
        let fake = Fake::of(&request.url);
        let away = self.away.lock().unwrap().is_some_and(|away| request.url.contains(away));
        let mood = if away { Mood::NoConnection } else { mood };
        let to = fake.addresses(&request);
        let accept = || {
            if let Some(key) = fake.key(&request)
                && let Some(known) = self.keys.lock().unwrap().insert(key, request.body.clone())
            {
                assert_eq!(known, request.body, "the same key has the same bytes");
                return;
            }
            self.accepted.lock().unwrap().extend(to.iter().cloned());
        };
        let response = |status: u16, body: String| {
            let Some((status, body)) = fake.says(status, body) else {
                return Err(FetchError::NoAnswer("the connection broke".into()));
            };
            Ok(ApiResponse {
                status,
                retry_after: None,
                message_id: Some("id".into()),
                date: None,
                body,
            })
        };
        if let Mood::AcceptsWhileLocked { tries } = mood {
            *self.locked.lock().unwrap() = tries;
        }
        // The response to a known key is repeated.
        let known =
            fake.key(&request).is_some_and(|key| self.keys.lock().unwrap().contains_key(&key));
        if !known && to.iter().any(|to| self.refused.lock().unwrap().contains(&to.as_str())) {
            return response(422, r#"{"name":"validation_error","message":"no"}"#.to_owned());
        }
        match mood {
            Mood::Accepts | Mood::AcceptsWhileLocked { .. } => {
                accept();
                let (status, body) = fake.accepts(to.len());
                response(status, body.to_string())
            }
            Mood::Inactive { place } => {
                let mut taken = to.clone();
                taken.remove(place);
                self.accepted.lock().unwrap().extend(taken);
                let (status, mut body) = fake.accepts(to.len());
                body[place] = json!({ "ErrorCode": 406, "Message": "an inactive recipient" });
                response(status, body.to_string())
            }
            Mood::Busy { after } => response(429, "{}".into()).map(|mut response| {
                response.retry_after = Some(after.to_string());
                response
            }),
            Mood::Broken { accepts } => {
                if accepts {
                    accept();
                }
                response(500, "{}".into())
            }
            Mood::Silent { accepts } => {
                if accepts {
                    accept();
                }
                Err(FetchError::NoAnswer("timed out".into()))
            }
            Mood::NotBegun => response(503, "{}".into()),
            Mood::NoConnection => Err(FetchError::NotSent("refused".into())),
        }
    }
}

#[test]
fn many_emails_are_sent_in_few_requests_within_the_rate() {
    let expected = [(Provider::Resend, 100), (Provider::SendGrid, 10), (Provider::Postmark, 20)];
    assert_eq!(expected.map(|(provider, _)| provider).to_vec(), in_batches());
    for (provider, requests) in expected {
        let world = World::new(provider, 10_000);
        let end = world.until_done(1_000);
        assert_eq!(world.states(), BTreeMap::from([("sent".into(), 10_000)]));
        assert_eq!(*world.requests.lock().unwrap(), requests);
        assert_eq!(world.accepted.lock().unwrap().len(), 10_000);
        // Ten in a second.
        assert!(end - 1_000 >= (i64::try_from(requests).unwrap() - 1) * 100, "{end}");
        let usage = world.sql(
            "SELECT provider, period, sent, requests FROM outbox_usage WHERE period = '1970-01-01'",
            vec![],
        );
        let expected = [provider.as_str(), "1970-01-01", "10000", &requests.to_string()];
        assert_eq!(usage, [expected.map(|text| Some(text.to_owned()))]);
    }
}

#[test]
fn a_batch_waits_to_be_full() {
    let mut world = World::new(Provider::Resend, 99);
    world.emails().wait = Duration::from_secs(5);
    let waiting = world.round(1_000).unwrap();
    assert_eq!(waiting, Round { sent: Sent::default(), next: Some(Timestamp::from_millis(5_000)) });
    world.sql(
        "INSERT INTO outbox (id, source, event_id, generation, rule, channel, content, due_at, created_at) \
         SELECT 'last', source, 'last', generation, rule, channel, content, due_at, created_at FROM outbox LIMIT 1",
        vec![],
    );
    assert_eq!(world.round(1_001).unwrap().sent.accepted, 100);
    let world = World::new(Provider::Resend, 1);
    assert_eq!(world.round(5_000).unwrap().sent.accepted, 1);
}

/// Resend with defects: it panics for some emails.
#[derive(Debug)]
struct Defective;

fn defective(text: &str) {
    assert!(!text.contains("3@example.com"), "a panic about 3@example.com");
}

impl Api for Defective {
    fn name(&self) -> &'static str {
        Resend.name()
    }

    fn recognizes_for(&self) -> Option<Duration> {
        Resend.recognizes_for()
    }

    fn max_batch(&self) -> usize {
        3
    }

    fn request(&self, batch: &Sealed<'_>) -> ApiRequest {
        assert!(!batch.body.contains("6@example.com"), "a panic about 6@example.com");
        Resend.request(batch)
    }

    fn answer(&self, members: usize, response: &ApiResponse) -> SendResult {
        assert_ne!(members, 2, "a panic about a batch");
        Resend.answer(members, response)
    }
}

impl EmailApi for Defective {
    fn body(&self, emails: &[&Email]) -> Option<String> {
        for email in emails {
            defective(&email.to[0].address);
        }
        Resend.body(emails)
    }

    fn reported_id(&self) -> Option<&'static str> {
        None
    }
}

#[test]
fn an_email_that_panics_ends_alone() {
    let world = World::new(Provider::Resend, 11);
    let key = |_: &SecretName| Some(Secret::from("the-key"));
    let channel = OutboxChannel::all(&world.config, key).unwrap().remove(0).through(&Defective);
    let channels = [channel];
    let mut now = 1_000;
    let mut unsent = Vec::new();
    for _ in 0..20 {
        let rounds = rounds(&world, &world, &channels, || Timestamp::from_millis(now));
        unsent.extend(block(rounds).unwrap().into_iter().flat_map(|round| round.sent.unsent));
        now += 1_000;
    }
    // 3 cannot be composed. The batch of 5, 6 and 7 cannot be requested. The answer about 8 and 9 cannot be read, so the
    // batch is sent again under its key.
    let states = world.sql("SELECT event_id, state FROM outbox ORDER BY event_id", vec![]);
    let of = |wanted: &str| -> Vec<String> {
        let found = states.iter().filter(|row| row[1].as_deref() == Some(wanted));
        found.map(|row| row[0].clone().unwrap()).collect()
    };
    assert_eq!(of("refused"), ["evt_3", "evt_5", "evt_6", "evt_7"]);
    assert_eq!(of("sent"), ["evt_0", "evt_1", "evt_10", "evt_2", "evt_4"]);
    assert_eq!(of("sealed"), ["evt_8", "evt_9"]);
    assert_eq!(unsent.len(), 4);
    // The panic's own message quotes an address.
    assert!(unsent.iter().all(|unsent| unsent.error == Panicked.to_string()), "{unsent:?}");
}

#[test]
fn an_email_that_cannot_be_composed_is_refused_alone() {
    let world = World::new(Provider::Resend, 4);
    for (event, content) in [
        ("evt_0", json!({ "template": "welcome", "to": ["a@example.com"], "data": {} })),
        ("evt_1", json!({ "template": "welcome", "to": ["nobody"], "data": { "name": "x" } })),
        ("evt_2", json!({ "template": "welcome", "to": [], "data": { "name": "x" } })),
    ] {
        let sql = "UPDATE outbox SET content = ?2 WHERE event_id = ?1";
        world.sql(sql, params![event, content.to_string()]);
    }
    let sent = world.round(1_000).unwrap().sent;
    assert_eq!(sent.states(), BTreeMap::from([("refused", 3), ("sent", 1)]));
    let rows = world.sql("SELECT state, error FROM outbox ORDER BY event_id", Vec::new());
    insta::assert_debug_snapshot!(rows);
}

#[test]
fn a_suppressed_recipient_gets_no_email() {
    let world = World::new(Provider::Resend, 3);
    let suppress = "INSERT INTO suppressions (address, reason, source, event_id, version, created_at) \
        VALUES ('0@example.com', 'bounced', 's', 'e', 0, 0), ('c@example.com', 'complained', 's', 'e', 0, 0)";
    world.sql(suppress, vec![]);
    let content = json!({ "template": "welcome", "to": ["1@example.com", "0@EXAMPLE.com"], "cc": ["C@example.com"], "data": { "name": "x" } });
    let sql = "UPDATE outbox SET content = ?1 WHERE event_id = 'evt_1'";
    world.sql(sql, params![content.to_string()]);
    let sent = world.round(1_000).unwrap().sent;
    assert_eq!(sent.states(), BTreeMap::from([("sent", 2), ("suppressed", 1)]));
    let rows = world.sql("SELECT state, error FROM outbox WHERE event_id = 'evt_0'", vec![]);
    let expected = ["suppressed", "the recipient is suppressed: 0@example.com: bounced"];
    assert_eq!(rows, [expected.map(|text| Some(text.to_owned()))]);
    let left_out =
        world.sql("SELECT skipped_recipients FROM outbox WHERE event_id = 'evt_1'", vec![]);
    assert_eq!(
        left_out[0][0].as_deref(),
        Some("0@EXAMPLE.com: bounced, C@example.com: complained")
    );
    let body = &world.sql("SELECT body FROM outbox_batches", vec![])[0][0];
    let body: Value = serde_json::from_str(body.as_ref().unwrap()).unwrap();
    assert_eq!((&body[0]["to"], &body[0]["cc"]), (&json!(["1@example.com"]), &Value::Null));
}

#[test]
fn a_recipient_who_has_left_a_group_gets_the_emails_outside_it() {
    let world = World::new(Provider::SendGrid, 4);
    let suppress = "INSERT INTO group_suppressions (address, group_id, reason, source, event_id, version, created_at) \
        SELECT value || '@example.com', '4711', 'unsubscribed', 's', 'e', 0, 0 FROM json_each('[0, 1, 2]')";
    world.sql(suppress, vec![]);
    for (event, group) in [("evt_1", "4711"), ("evt_2", "4712"), ("evt_3", "4711")] {
        let sql =
            "UPDATE outbox SET content = json_set(content, '$.group', ?1) WHERE event_id = ?2";
        world.sql(sql, params![group, event]);
    }
    world.until_done(1_000);
    let rows = world.sql("SELECT event_id, state, error FROM outbox ORDER BY event_id", vec![]);
    let why = "the recipient is suppressed: 1@example.com: unsubscribed (group 4711)";
    let sent = |event: &str| [Some(event.to_owned()), Some("sent".to_owned()), None];
    let suppressed = ["evt_1", "suppressed", why].map(|text| Some(text.to_owned()));
    assert_eq!(rows, [sent("evt_0"), suppressed, sent("evt_2"), sent("evt_3")]);
    // Each group is a request of its own.
    let asked = world.sql(
        "SELECT body ->> '$.asm.group_id', json_array_length(body, '$.personalizations') FROM outbox_batches ORDER BY 1",
        vec![],
    );
    let one = |group: Option<&str>| [group.map(ToOwned::to_owned), Some("1".to_owned())];
    assert_eq!(asked, [one(None), one(Some("4711")), one(Some("4712"))]);
}

#[test]
fn an_inactive_recipient_of_postmark_is_suppressed() {
    let world = World::new(Provider::Postmark, 3);
    world.moods.lock().unwrap().push(Mood::Inactive { place: 1 });
    world.until_done(1_000);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 2), ("suppressed".into(), 1)]));
    let suppressed = world.sql("SELECT address, source, reason FROM suppressions", vec![]);
    let address = world.sql("SELECT content FROM outbox WHERE state = 'suppressed'", vec![]);
    let content: Value = serde_json::from_str(address[0][0].as_ref().unwrap()).unwrap();
    let address = content["to"][0].as_str().unwrap();
    let expected = [address, "postmark", "Postmark error 406: an inactive recipient"];
    assert_eq!(suppressed, [expected.map(|text| Some(text.to_owned()))]);
    world.sql("UPDATE outbox SET state = 'pending', batch = NULL", vec![]);
    world.until_done(10_000);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 2), ("suppressed".into(), 1)]));
    let twice = world.accepted.lock().unwrap().iter().filter(|to| *to == address).count();
    assert_eq!(twice, 0);
}

#[test]
fn an_expired_key_is_not_used_again() {
    let world = World::new(Provider::Resend, 1);
    world.moods.lock().unwrap().push(Mood::Silent { accepts: true });
    assert_eq!(world.round(1_000).unwrap().sent.problems.len(), 1);
    // A day later, Resend would accept the batch as a new one.
    world.until_done(1_000 + 24 * 3_600_000);
    assert_eq!(world.states(), BTreeMap::from([("uncertain".into(), 1)]));
    assert_eq!(world.accepted.lock().unwrap().len(), 1);
}

const HOUR: i64 = 3_600_000;

#[test]
fn a_clock_that_was_ahead_delays_no_email() {
    let moods = [
        Mood::Accepts,
        Mood::Busy { after: 1 },
        Mood::Broken { accepts: false },
        Mood::Silent { accepts: true },
        Mood::NoConnection,
    ];
    let dies = [None, Some((3, Death::Before)), Some((3, Death::After))];
    for (mood, death) in moods.into_iter().flat_map(|mood| dies.map(|death| (mood, death))) {
        for ahead in [HOUR, 24 * HOUR, 400 * 24 * HOUR] {
            let world = World::new(Provider::Resend, 3);
            *world.moods.lock().unwrap() = vec![mood];
            *world.death.lock().unwrap() = death;
            let _ = world.round(ahead);
            // The clock is right again, and new emails are sent at once.
            world.sql(
                "INSERT INTO outbox (id, source, event_id, generation, rule, channel, content, due_at, created_at)
                 SELECT 'new', source, 'new', 0, rule, channel, content, 10, 10 FROM outbox LIMIT 1",
                vec![],
            );
            let end = world.until_done(10);
            assert_eq!(world.states(), BTreeMap::from([("sent".into(), 4)]), "{mood:?} {death:?}");
            assert!(end < 10_000, "{mood:?} {death:?} {ahead}: {end}");
        }
    }
}

#[test]
fn a_key_expires_though_its_batch_was_sealed_by_a_clock_that_was_ahead() {
    let world = World::new(Provider::Resend, 1);
    world.moods.lock().unwrap().push(Mood::Silent { accepts: true });
    assert_eq!(world.round(24 * HOUR).unwrap().sent.problems.len(), 1);
    *world.away.lock().unwrap() = Some("resend");
    let mut now = 1_000;
    while now < 25 * HOUR {
        world.round(now).unwrap();
        now += HOUR;
    }
    *world.away.lock().unwrap() = None;
    world.until_done(now);
    assert_eq!(world.states(), BTreeMap::from([("uncertain".into(), 1)]));
}

#[test]
fn a_delay_keeps_its_length_though_a_clock_was_ahead() {
    let world = World::new(Provider::Resend, 4);
    let day = 24 * HOUR;
    // Due at once, due in three days, due in three days by the right clock, and put back.
    for (event, created_at, due_at, attempts) in [
        ("evt_0", 365 * day, 365 * day, 0),
        ("evt_1", 365 * day, 368 * day, 0),
        ("evt_2", 0, 3 * day, 0),
        ("evt_3", 0, 365 * day, 1),
    ] {
        world.sql(
            &format!("UPDATE outbox SET created_at = {created_at}, due_at = {due_at}, attempts = {attempts} WHERE event_id = ?1"),
            vec![event.into()],
        );
    }
    let first = world.round(1_000).unwrap();
    assert_eq!(first.sent.accepted, 2);
    assert_eq!(first.next, Some(Timestamp::from_millis(3 * day)));
    let second = world.round(3 * day).unwrap();
    assert_eq!(
        (second.sent.accepted, second.next),
        (1, Some(Timestamp::from_millis(3 * day + 1_000)))
    );
    assert_eq!(world.round(3 * day + 1_000).unwrap().sent.accepted, 1);
}

/// A provider that recognizes a batch would repeat its first answer. So it has never accepted one that it calls invalid.
#[test]
fn an_invalid_email_leaves_no_neighbor_uncertain_though_a_response_was_lost() {
    for lost in [Mood::Broken { accepts: false }, Mood::Silent { accepts: false }] {
        let world = World::new(Provider::Resend, 10);
        world.moods.lock().unwrap().push(lost);
        world.round(1_000).unwrap();
        *world.refused.lock().unwrap() = vec!["3@example.com"];
        world.until_done(2_000);
        let expected = BTreeMap::from([("refused".into(), 1), ("sent".into(), 9)]);
        assert_eq!(world.states(), expected, "{lost:?}");
        assert_eq!(world.accepted.lock().unwrap().len(), 9);
    }
    // The others may have accepted it.
    let world = World::new(Provider::SendGrid, 10);
    world.moods.lock().unwrap().push(Mood::Broken { accepts: false });
    world.until_done(1_000);
    assert_eq!(world.states(), BTreeMap::from([("uncertain".into(), 10)]));
}

#[test]
fn an_email_without_a_connection_for_a_day_is_sent_afterwards() {
    for provider in providers() {
        let world = World::new(provider, 1);
        world.moods.lock().unwrap().push(Mood::NoConnection);
        world.round(1_000).unwrap();
        world.until_done(30 * HOUR);
        assert_eq!(world.states(), BTreeMap::from([("sent".into(), 1)]), "{provider:?}");
        assert_eq!(world.accepted.lock().unwrap().len(), 1);
        // It is given up with its batches.
        let world = World::new(provider, 1);
        *world.away.lock().unwrap() = Some(provider.as_str());
        let mut states = Vec::new();
        for day in 0..5 {
            world.round(1_000 + day * 24 * HOUR).unwrap();
            states.extend(world.states().into_keys());
        }
        assert_eq!(states, ["sealed", "sealed", "sealed", "refused", "refused"], "{provider:?}");
        let error = world.sql("SELECT error FROM outbox", vec![]);
        let expected = "no connection in 1 attempts within 23 hours";
        assert_eq!(error, [[Some(expected.to_owned())]]);
    }
}

#[test]
fn an_address_gets_a_limited_number_of_emails_in_an_hour() {
    let mut world = World::new(Provider::Resend, 6);
    world.config.emails.as_mut().unwrap().per_hour = 3;
    let content =
        json!({ "template": "welcome", "to": ["A <A@example.com>"], "data": { "name": 1 } });
    let one = "UPDATE outbox SET recipient = 'a@example.com', content = ?1 WHERE id <> 'id_evt_5'";
    world.sql(one, params![content.to_string()]);
    // In one batch, and in another later.
    world.until_done(1_000);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 4), ("suppressed".into(), 2)]));
    let error = world.sql("SELECT DISTINCT error FROM outbox WHERE state = 'suppressed'", vec![]);
    let expected = "3 messages were sent to this recipient within an hour, and `per_hour` allows 3";
    assert_eq!(error, [[Some(expected.to_owned())]]);
    let again = "UPDATE outbox SET state = 'pending', due_at = ?1 WHERE state = 'suppressed'";
    world.sql(again, params![2 * HOUR]);
    world.until_done(2 * HOUR);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 6)]));
    // Hookmill's own emails are few and not limited.
    let literal = json!({ "to": ["a@example.com"], "literal": ["s", "t"] }).to_string();
    let own =
        "UPDATE outbox SET state = 'pending', due_at = ?1, content = ?2 WHERE id = 'id_evt_0'";
    world.config.emails.as_mut().unwrap().per_hour = 1;
    world.sql(own, params![2 * HOUR, literal]);
    world.until_done(2 * HOUR + 1_000);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 6)]));
}

#[test]
fn a_clock_that_was_ahead_keeps_no_provider_unavailable() {
    let mut world = World::new(Provider::Resend, 2);
    world.emails().apis.push(api(Provider::SendGrid));
    world.sql(
        "INSERT INTO outbox_senders (provider, free_at, failures, away_until) VALUES ('resend', ?1, 3, ?1)",
        params![(24 * HOUR).to_string()],
    );
    world.until_done(1_000);
    let provider = world.sql("SELECT DISTINCT provider FROM outbox_batches", vec![]);
    assert_eq!(provider, [[Some("resend".to_owned())]]);
}

#[test]
fn corrected_times_are_found_by_an_index() {
    let world = World::new(Provider::Resend, 0);
    let now = Timestamp::from_millis(0);
    let mut statements = state::put_right("email", now, Duration::from_secs(60));
    statements.push(state::put_senders_right(&["resend"], now, Duration::from_secs(60)));
    for Statement { sql, params } in statements {
        let plan = world.sql(&format!("EXPLAIN QUERY PLAN {sql}"), params);
        let steps: Vec<_> = plan.iter().filter_map(|row| row[3].as_deref()).collect();
        assert!(steps.iter().any(|step| step.starts_with("SEARCH outbox")), "{steps:?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN outbox")), "{steps:?}");
    }
}

#[test]
fn an_answer_is_recorded_though_the_database_is_locked() {
    let world = World::new(Provider::SendGrid, 3);
    world.moods.lock().unwrap().push(Mood::AcceptsWhileLocked { tries: 5 });
    world.until_done(1_000);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 3)]));
    assert_eq!(*world.requests.lock().unwrap(), 1);
}

#[test]
fn an_invalid_key_is_an_error_and_a_trailing_newline_is_not_part_of_it() {
    let world = World::new(Provider::Resend, 0);
    let with = |key: &'static str| {
        OutboxChannel::all(&world.config, |_: &SecretName| Some(Secret::from(key))).err()
    };
    assert_eq!(with("re_key\n"), None);
    let name = || SecretName("KEY".into());
    assert_eq!(with(" \n"), Some(vec![ChannelError::Key(name(), Provider::Resend)]));
    for key in ["\"re_key\"", "re key", "re_kéy", "re\nkey"] {
        assert_eq!(with(key), Some(vec![ChannelError::OddKey(name())]), "{key}");
    }
}

#[test]
fn a_provider_without_an_email_api_is_an_error() {
    let mut world = World::new(Provider::Resend, 0);
    world.emails().apis.push(api(Provider::Twilio));
    let key = |_: &SecretName| Some(Secret::from("the-key"));
    let errors = OutboxChannel::all(&world.config, key).err();
    assert_eq!(errors, Some(vec![ChannelError::Purpose(Provider::Twilio, "email")]));
}

#[test]
fn messages_without_a_configured_sender_are_reported() {
    let mut world = World::new(Provider::Resend, 2);
    let key = |_: &SecretName| Some(Secret::from("the-key"));
    let reported = |world: &World, config: &Consumers| {
        block(stranded(&world.store, &OutboxChannel::all(config, key).unwrap())).unwrap()
    };
    let nothing = Consumers { emails: None, ..world.config.clone() };
    assert_eq!(reported(&world, &world.config), Vec::<String>::new());
    assert_eq!(reported(&world, &nothing).len(), 1);
    world.moods.lock().unwrap().push(Mood::Silent { accepts: true });
    world.round(1_000).unwrap();
    assert_eq!(reported(&world, &world.config), Vec::<String>::new());
    world.emails().apis = vec![api(Provider::SendGrid)];
    insta::assert_debug_snapshot!([reported(&world, &world.config), reported(&world, &nothing)]);
}

#[test]
fn an_uncertain_email_is_settled_in_any_number() {
    // More than one round settles.
    let left = |provider: Provider, state: &str| {
        let world = World::new(provider, 0);
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25)
            INSERT INTO outbox_batches (id, channel, provider, members, body, state, attempts, arrived, due_at, sealed_at)
            SELECT 'batch ' || i, 'email', ?1, '[]', '[]', ?2, 1, 1, 0, 0 FROM n";
        world.sql(sql, vec![provider.as_str().into(), state.into()]);
        world
    };
    // The process that sent to SendGrid has ended, and Resend has forgotten the keys of batches that were sealed two days
    // ago.
    let cases = [
        (left(Provider::SendGrid, "sending"), 1_000_000),
        (left(Provider::Resend, "sealed"), 48 * 3_600_000),
        (left(Provider::Resend, "sending"), 48 * 3_600_000),
    ];
    for (world, now) in cases {
        world.until_done(now);
        assert_eq!(*world.requests.lock().unwrap(), 0);
        let states = world.sql("SELECT DISTINCT state FROM outbox_batches", vec![]);
        assert_eq!(states, [[Some("uncertain".into())]]);
    }
}

#[test]
fn a_fallback_replaces_an_unavailable_provider() {
    let mut world = World::new(Provider::Resend, 250);
    world.emails().apis.push(api(Provider::SendGrid));
    *world.away.lock().unwrap() = Some("resend");
    let end = world.until_done(1_000);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 250)]));
    let accepted: BTreeSet<_> = world.accepted.lock().unwrap().iter().cloned().collect();
    assert_eq!(accepted.len(), 250);
    let by = "SELECT provider, sent FROM outbox_usage WHERE period = '1970-01'";
    assert_eq!(world.sql(by, vec![]), [[Some("sendgrid".into()), Some("250".into())]]);
    // Later the provider gets requests again.
    *world.away.lock().unwrap() = None;
    world.sql("UPDATE outbox SET state = 'pending', batch = NULL", vec![]);
    world.until_done(end + 3_600_000);
    let by = "SELECT sent FROM outbox_usage WHERE provider = 'resend' AND period = '1970-01'";
    assert_eq!(world.sql(by, vec![]), [[Some("250".into())]]);
}

#[test]
fn a_batch_that_is_refused_as_a_whole_is_split_until_the_bad_emails_are_alone() {
    for provider in in_batches() {
        let world = World::new(provider, 100);
        *world.refused.lock().unwrap() = vec!["3@example.com", "77@example.com"];
        let first = world.round(1_000).unwrap().sent;
        assert_eq!(first.unsent, []);
        assert!(
            first.problems[0].ends_with("; a batch of 100 is split to find the invalid message"),
            "{first:?}"
        );
        world.until_done(1_000);
        assert_eq!(world.states(), BTreeMap::from([("refused".into(), 2), ("sent".into(), 98)]));
        let refused = "SELECT event_id, error LIKE '% answered 422%' FROM outbox WHERE state = 'refused' ORDER BY id";
        let refused = world.sql(refused, vec![]);
        let expected = [["evt_3", "1"], ["evt_77", "1"]];
        assert_eq!(refused, expected.map(|row| row.map(|text| Some(text.to_owned()))));
        assert_eq!(world.accepted.lock().unwrap().len(), 98);
        let requests = *world.requests.lock().unwrap();
        assert!(requests <= 2 * 2 * 7 + 1, "{requests}");
    }
}

#[test]
fn a_batch_that_was_accepted_is_not_split() {
    let world = World::new(Provider::Resend, 2);
    world.moods.lock().unwrap().push(Mood::Silent { accepts: true });
    world.round(1_000).unwrap();
    *world.refused.lock().unwrap() = vec!["1@example.com"];
    let sent = world.round(10_000).unwrap().sent;
    assert_eq!(sent.states(), BTreeMap::from([("sent", 2)]));
    assert_eq!(world.accepted.lock().unwrap().len(), 2);
}

#[test]
fn an_unavailable_sendgrid_is_retried_before_resend_replaces_it() {
    let mut world = World::new(Provider::SendGrid, 3);
    world.emails().apis.push(api(Provider::Resend));
    *world.moods.lock().unwrap() = vec![Mood::NotBegun; 3];
    assert!(world.round(1_000).unwrap().sent.problems[0].contains("; next attempt at "));
    world.round(3_000).unwrap();
    let third = world.round(6_000).unwrap().sent;
    assert_eq!(
        third.problems,
        [
            "sendgrid was unavailable 3 times in a row; resend replaces it until it responds again, or until 1970-01-01T00:05:06.000Z"
        ]
    );
    world.until_done(6_000);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 3)]));
    let by = "SELECT provider FROM outbox_batches WHERE state = 'sent'";
    assert_eq!(world.sql(by, vec![]), [[Some("resend".into())]]);
}

#[test]
fn if_both_are_unavailable_retries_follow_the_schedule() {
    let mut world = World::new(Provider::Resend, 3);
    world.emails().apis.push(api(Provider::SendGrid));
    *world.away.lock().unwrap() = Some("https://");
    let (mut now, mut problems) = (1_000, Vec::new());
    while now < 600_000 {
        let Round { sent, next } = world.round(now).unwrap();
        problems.extend(sent.problems);
        now = next.unwrap().millis();
    }
    // Retries come every second.
    let requests = *world.requests.lock().unwrap();
    assert!(requests < 620, "{requests}");
    let dissolved = world
        .sql("SELECT count(*), max(body) FROM outbox_batches WHERE state = 'dissolved'", vec![]);
    let few = dissolved[0][0].as_ref().unwrap().parse::<u32>().unwrap() < 10;
    assert!(few && dissolved[0][1].as_deref() == Some(""), "{dissolved:?}");
    let turns = problems.iter().filter(|problem| problem.contains("replaces it until")).count();
    assert!(turns < 10, "{problems:#?}");
    // The provider that is available first sends.
    *world.away.lock().unwrap() = Some("resend");
    world.until_done(now);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 3)]));
    assert_eq!(world.accepted.lock().unwrap().len(), 3);
}

#[test]
fn an_email_that_was_never_sent_moves_to_the_configured_provider() {
    let mut world = World::new(Provider::Resend, 2);
    *world.moods.lock().unwrap() = vec![Mood::NotBegun];
    world.round(1_000).unwrap();
    world.emails().apis = vec![api(Provider::SendGrid)];
    world.until_done(2_000);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 2)]));
    // A batch that may have been sent waits for its provider.
    let mut world = World::new(Provider::Resend, 2);
    *world.moods.lock().unwrap() = vec![Mood::Silent { accepts: true }];
    world.round(1_000).unwrap();
    world.emails().apis = vec![api(Provider::SendGrid)];
    world.round(10_000).unwrap();
    assert_eq!(world.states(), BTreeMap::from([("sealed".into(), 2)]));
    world.emails().apis = vec![api(Provider::SendGrid), api(Provider::Resend)];
    world.until_done(20_000);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 2)]));
    assert_eq!(world.accepted.lock().unwrap().len(), 2);
}

#[test]
fn an_address_gets_an_email_once_and_every_recipient_counts() {
    for provider in providers() {
        let world = World::new(provider, 2);
        let content = json!({ "template": "welcome", "to": ["a@example.com", "A@EXAMPLE.com", "b@example.com"],
            "cc": ["B@example.com", "c@example.com"], "data": { "name": "x" } });
        world.sql(
            "UPDATE outbox SET content = ?1 WHERE event_id = 'evt_1'",
            params![content.to_string()],
        );
        world.until_done(1_000);
        let used = "SELECT sent FROM outbox_usage WHERE period = '1970-01'";
        assert_eq!(world.sql(used, vec![]), [[Some("4".into())]], "{provider:?}");
        let bodies = world.sql("SELECT group_concat(body) FROM outbox_batches", vec![]);
        let body = bodies[0][0].clone().unwrap();
        assert_eq!(body.to_lowercase().matches("b@example.com").count(), 1, "{body}");
    }
}

#[test]
fn a_batch_that_may_have_been_sent_does_not_move_to_another_provider() {
    let mut world = World::new(Provider::Resend, 1);
    world.emails().apis.push(api(Provider::SendGrid));
    world.moods.lock().unwrap().push(Mood::Silent { accepts: true });
    world.round(1_000).unwrap();
    *world.away.lock().unwrap() = Some("resend");
    let mut now = 10_000;
    for _ in 0..20 {
        world.round(now).unwrap();
        now += 60_000;
    }
    assert_eq!(world.states(), BTreeMap::from([("sealed".into(), 1)]));
    *world.away.lock().unwrap() = None;
    world.until_done(now);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 1)]));
    assert_eq!(world.accepted.lock().unwrap().len(), 1);
}

#[test]
fn an_uncertain_email_is_retried_a_limited_number_of_times_if_configured() {
    let mut world = World::new(Provider::SendGrid, 1);
    world.emails().on_uncertain = OnUncertain::Retry;
    *world.moods.lock().unwrap() = vec![Mood::Accepts, Mood::Silent { accepts: true }];
    world.until_done(1_000);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 1)]));
    assert_eq!(world.accepted.lock().unwrap().len(), 2);
    let batches = world.sql("SELECT state FROM outbox_batches ORDER BY sealed_at", vec![]);
    assert_eq!(batches, [["uncertain"], ["sent"]].map(|row| row.map(|s| Some(s.to_owned()))));

    let mut world = World::new(Provider::SendGrid, 1);
    world.emails().on_uncertain = OnUncertain::Retry;
    *world.moods.lock().unwrap() = vec![Mood::Silent { accepts: false }; 9];
    world.until_done(1_000);
    assert_eq!(world.states(), BTreeMap::from([("uncertain".into(), 1)]));
    assert_eq!(*world.requests.lock().unwrap(), 3);
}

#[test]
fn a_busy_provider_gets_no_request_for_as_long_as_it_asks() {
    let mut world = World::new(Provider::Resend, 150);
    world.config.retry.max = Duration::from_secs(3600);
    world.moods.lock().unwrap().push(Mood::Busy { after: 7 });
    let round = world.round(1_000).unwrap();
    assert_eq!(round.next, Some(Timestamp::from_millis(8_000)));
    assert_eq!(world.round(7_999).unwrap().sent, Sent::default());
    assert_eq!(*world.requests.lock().unwrap(), 1);
    world.until_done(8_000);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 150)]));
    // The wait is bounded, even if the provider asks for more.
    let world = World::new(Provider::Resend, 1);
    world.moods.lock().unwrap().push(Mood::Busy { after: 1_000_000 });
    let round = world.round(1_000).unwrap();
    assert_eq!(round.next, Some(Timestamp::from_millis(2_000)));
}

#[test]
fn a_batch_whose_sender_has_ended_waits_for_its_provider() {
    let world = World::new(Provider::Resend, 1);
    // The lease is written, and the process ends.
    *world.death.lock().unwrap() = Some((3, Death::After));
    world.round(1_000).unwrap_err();
    assert_eq!(world.sql("SELECT state FROM outbox_batches", vec![]), [[Some("sending".into())]]);
    *world.dead.lock().unwrap() = false;
    world.sql("UPDATE outbox_senders SET free_at = 400500", vec![]);
    // Later than the lease, earlier than the provider's next request.
    let round = world.round(400_000).unwrap();
    assert_eq!(round.next, Some(Timestamp::from_millis(400_500)));
    world.until_done(400_500);
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 1)]));
}

#[test]
fn a_quota_that_is_almost_used_up_is_reported_once() {
    let mut world = World::new(Provider::Resend, 250);
    let notify = "ops@example.com".parse().ok();
    world.emails().quota = Some(Quota { day: Some(1000), month: Some(300), warn_at: 0.8, notify });
    let mut warnings = Vec::new();
    let mut now = 1_000;
    loop {
        let round = world.round(now).unwrap();
        warnings.extend(round.sent.problems);
        let Some(next) = round.next else { break };
        now = next.millis();
    }
    // After the third batch, as 240 are 80 % of 300.
    assert_eq!(warnings, ["resend has sent 250 of 300 emails for 1970-01"]);
    assert_eq!(
        world.accepted.lock().unwrap().iter().filter(|to| **to == "ops@example.com").count(),
        1
    );
    assert_eq!(world.states(), BTreeMap::from([("sent".into(), 251)]));
    let body =
        &world.sql("SELECT body FROM outbox_batches ORDER BY sealed_at DESC LIMIT 1", vec![])[0][0];
    let body: Value = serde_json::from_str(body.as_ref().unwrap()).unwrap();
    insta::assert_json_snapshot!(body);
}

#[test]
fn a_process_may_end_before_or_after_any_single_step() {
    for provider in providers() {
        // As many as one request may have.
        let emails = email_api(provider).unwrap().max_batch().min(3);
        let mut died = 0;
        for step in 0..12 {
            for death in [Death::Before, Death::After] {
                let world = World::new(provider, emails);
                *world.death.lock().unwrap() = Some((step, death));
                died += usize::from(world.round(1_000).is_err());
                *world.death.lock().unwrap() = None;
                // Later than any lease.
                world.until_done(1_000_000);
                let accepted = world.accepted.lock().unwrap().len();
                let states = world.states();
                if recognizes(provider) {
                    assert_eq!(
                        (accepted, states["sent"]),
                        (emails, emails as u64),
                        "{step} {death:?}"
                    );
                } else {
                    // The process ended during the request: the delivery is uncertain, and no recipient gets a second
                    // email.
                    let sent = states.get("sent").copied().unwrap_or(0);
                    let uncertain = states.get("uncertain").copied().unwrap_or(0);
                    assert!(
                        accepted <= emails && sent + uncertain == emails as u64,
                        "{step} {death:?} {states:?}"
                    );
                    assert!(sent == 0 || accepted == emails, "{step} {death:?} {states:?}");
                }
            }
        }
        // What is due, suppressions, sealing, leasing, recording, and the next due time. After a full batch, due messages
        // again.
        let full = emails == email_api(provider).unwrap().max_batch();
        assert_eq!(died, 2 * (6 + usize::from(full)), "{provider:?}");
    }
}

fn mood() -> impl Strategy<Value = Mood> {
    prop::sample::select(vec![
        Mood::Accepts,
        Mood::Busy { after: 1 },
        Mood::Broken { accepts: true },
        Mood::Broken { accepts: false },
        Mood::Silent { accepts: true },
        Mood::Silent { accepts: false },
        Mood::NotBegun,
        Mood::NoConnection,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_email_is_not_lost_and_not_sent_twice(
        provider in prop::sample::select(providers()),
        moods in prop::collection::vec(mood(), 0..12),
        deaths in prop::collection::vec((0_usize..6, any::<bool>()), 0..8),
        intrusions in prop::collection::vec(0_usize..8, 0..8),
    ) {
        const EMAILS: usize = 7;
        let world = World::new(provider, EMAILS);
        *world.moods.lock().unwrap() = moods;
        let mut now = 1_000_000;
        for after in intrusions {
            *world.intrusion.lock().unwrap() = Some(after);
            world.round(now).unwrap();
            now += 1_000;
        }
        for (after, before) in deaths {
            let death = if before { Death::Before } else { Death::After };
            *world.death.lock().unwrap() = Some((after, death));
            let _ = world.round(now);
            now += 60_000;
        }
        *world.death.lock().unwrap() = None;
        for _ in 0..60 {
            world.round(now).unwrap();
            now += 60_000;
        }
        let states = world.states();
        let count = |state: &str| states.get(state).copied().unwrap_or(0);
        let accepted = world.accepted.lock().unwrap();
        let once: BTreeSet<_> = accepted.iter().collect();
        prop_assert_eq!(once.len(), accepted.len(), "nothing is accepted twice");
        prop_assert_eq!(count("sent") + count("uncertain"), EMAILS as u64, "{:?}", states);
        if recognizes(provider) {
            prop_assert_eq!(count("sent"), EMAILS as u64);
            prop_assert_eq!(once.len(), EMAILS);
        }
        // Every email in the state `sent` was accepted.
        let sent = world.sql("SELECT content FROM outbox WHERE state = 'sent'", Vec::new());
        for row in sent {
            let content: Value = serde_json::from_str(row[0].as_ref().unwrap()).unwrap();
            prop_assert!(once.contains(&content["to"][0].as_str().unwrap().to_owned()));
        }
    }
}
