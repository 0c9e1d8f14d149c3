//! Sending on a real SQLite, to providers that lose answers, are busy or away, by processes that die after any statement:
//! Resend accepts each email once, and SendGrid none twice; what nobody knows is on record.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use hookmill_consumers::mail::{Api, Mail, Provider, Sent, doubt, seal, send, states};
use hookmill_consumers::{TemplateText, Templates};
use hookmill_core::config::Retry;
use hookmill_core::email::{ApiRequest, ApiResponse};
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::secret::{ExposeSecret as _, Secret};
use hookmill_core::store::{Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_native::{DataFolder, Sqlite};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What the provider does with the next request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Accepts,
    Busy,
    /// Says 500, and has accepted it or not.
    Broken {
        accepts: bool,
    },
    /// No answer arrives, and it has accepted it or not.
    Silent {
        accepts: bool,
    },
    NoConnection,
}

/// What the process does before its next transaction, or after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Death {
    Before,
    After,
}

struct World {
    store: Sqlite,
    mail: Mail,
    moods: Mutex<Vec<Mood>>,
    /// In how many transactions the process dies, and when.
    death: Mutex<Option<(usize, Death)>>,
    /// By key, what Resend has been sent.
    keys: Mutex<BTreeMap<String, String>>,
    /// The addresses of the emails that have been accepted.
    accepted: Mutex<Vec<String>>,
    requests: Mutex<usize>,
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
        let mail = Mail {
            provider,
            apis: vec![Api { provider, url: "https://mock".into(), key: Secret::from("the-key") }],
            from: "Acme <hello@example.com>".parse().unwrap(),
            reply_to: None,
            retry: Retry {
                max_attempts: 1000,
                initial: Duration::from_secs(1),
                multiplier: 1.0,
                max: Duration::from_secs(1),
                jitter: 0.0,
            },
            templates: Templates::new(&BTreeMap::from([("welcome".to_owned(), text)])).unwrap(),
        };
        let world = Self {
            store,
            mail,
            moods: Mutex::default(),
            death: Mutex::default(),
            keys: Mutex::default(),
            accepted: Mutex::default(),
            requests: Mutex::default(),
            _folder: folder,
            _data: data,
        };
        let rows: Vec<_> = (0..emails)
            .map(|n| {
                let recipients = json!({ "to": [format!("{n}@example.com")] }).to_string();
                json!([format!("evt_{n}"), recipients, json!({ "name": n }).to_string()])
            })
            .collect();
        let sql = "INSERT INTO outbox (source, event_id, generation, rule, template, recipients, data, due_at, created_at) \
            SELECT 's', value ->> 0, 0, 'welcome', 'welcome', value ->> 1, value ->> 2, 0, 0 FROM json_each(?1)";
        world.sql(sql, vec![json!(rows).to_string()]);
        world
    }

    fn sql(&self, sql: &str, params: Vec<String>) -> Rows {
        block(self.store.execute(vec![Statement { sql: sql.into(), params }])).unwrap().remove(0)
    }

    fn states(&self) -> BTreeMap<String, u64> {
        block(states(&self.store)).unwrap()
    }

    /// One round of whoever sends, at this time in milliseconds; an error if it died.
    fn round(&self, now: i64) -> Result<Option<Sent>, StoreError> {
        let now = Timestamp::from_millis(now);
        block(async {
            doubt(self, now).await?;
            seal(self, &self.mail, now).await?;
            send(self, self, &self.mail, now).await
        })
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The store of a process that may die.
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
        if death == Some(Death::Before) {
            return Err(dead);
        }
        let rows = self.store.execute(statements).await?;
        if death == Some(Death::After) { Err(dead) } else { Ok(rows) }
    }
}

impl Fetch for World {
    async fn post(&self, request: ApiRequest, bearer: &Secret) -> Result<ApiResponse, FetchError> {
        assert_eq!(bearer.expose_secret(), "the-key");
        *self.requests.lock().unwrap() += 1;
        let mood = self.moods.lock().unwrap().pop().unwrap_or(Mood::Accepts);
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let resend = self.mail.provider == Provider::Resend;
        let emails = if resend { &body } else { &body["personalizations"] };
        let emails = emails.as_array().unwrap();
        let accept = || {
            if resend {
                let key =
                    request.headers.iter().find(|(name, _)| *name == "idempotency-key").unwrap();
                if let Some(known) =
                    self.keys.lock().unwrap().insert(key.1.clone(), request.body.clone())
                {
                    assert_eq!(known, request.body, "the same key has the same bytes");
                    return;
                }
            }
            let to = emails.iter().map(|email| match &email["to"][0] {
                Value::String(to) => to.clone(),
                to => to["email"].as_str().unwrap().to_owned(),
            });
            self.accepted.lock().unwrap().extend(to);
        };
        let response = |status: u16, body: String| {
            Ok(ApiResponse { status, retry_after: None, message_id: Some("id".into()), body })
        };
        match mood {
            Mood::Accepts => {
                accept();
                let ids: Vec<_> =
                    (0..emails.len()).map(|n| json!({ "id": n.to_string() })).collect();
                response(if resend { 200 } else { 202 }, json!({ "data": ids }).to_string())
            }
            Mood::Busy => response(429, "{}".into()),
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
            Mood::NoConnection => Err(FetchError::NotSent("refused".into())),
        }
    }
}

#[test]
fn many_emails_go_out_in_few_requests() {
    for (provider, requests) in [(Provider::Resend, 3), (Provider::SendGrid, 1)] {
        let world = World::new(provider, 250);
        let mut now = 1_000;
        while world.round(now).unwrap().is_some() {
            now += 1;
        }
        assert_eq!(world.states(), BTreeMap::from([("sent".into(), 250)]));
        assert_eq!(*world.requests.lock().unwrap(), requests);
        assert_eq!(world.accepted.lock().unwrap().len(), 250);
    }
}

#[test]
fn what_cannot_be_composed_is_refused_alone() {
    let world = World::new(Provider::Resend, 3);
    world.sql("UPDATE outbox SET data = '{}' WHERE event_id = 'evt_0'", Vec::new());
    world.sql(
        "UPDATE outbox SET recipients = '{\"to\":[\"nobody\"]}' WHERE event_id = 'evt_1'",
        Vec::new(),
    );
    assert_eq!(world.round(1_000).unwrap().unwrap().accepted, 1);
    let rows = world.sql("SELECT state, error FROM outbox ORDER BY event_id", Vec::new());
    insta::assert_debug_snapshot!(rows);
}

#[test]
fn a_key_that_counts_no_longer_is_not_used_again() {
    let world = World::new(Provider::Resend, 1);
    world.moods.lock().unwrap().push(Mood::Silent { accepts: true });
    assert_eq!(world.round(1_000).unwrap().unwrap().later.len(), 1);
    // A day later, Resend would take the batch for another.
    assert_eq!(world.round(1_000 + 24 * 3_600_000), Ok(None));
    assert_eq!(world.states(), BTreeMap::from([("in_doubt".into(), 1)]));
    assert_eq!(world.accepted.lock().unwrap().len(), 1);
}

fn mood() -> impl Strategy<Value = Mood> {
    prop::sample::select(vec![
        Mood::Accepts,
        Mood::Busy,
        Mood::Broken { accepts: true },
        Mood::Broken { accepts: false },
        Mood::Silent { accepts: true },
        Mood::Silent { accepts: false },
        Mood::NoConnection,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_email_is_not_lost_and_not_sent_twice(
        resend in any::<bool>(),
        patient in any::<bool>(),
        moods in prop::collection::vec(mood(), 0..12),
        deaths in prop::collection::vec((0_usize..6, any::<bool>()), 0..8),
    ) {
        const EMAILS: usize = 7;
        let provider = if resend { Provider::Resend } else { Provider::SendGrid };
        let mut world = World::new(provider, EMAILS);
        if !patient {
            world.mail.retry.max_attempts = 2;
        }
        *world.moods.lock().unwrap() = moods;
        let mut now = 1_000_000;
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
        prop_assert_eq!(count("sent") + count("in_doubt"), EMAILS as u64, "{:?}", states);
        if resend && patient {
            prop_assert_eq!(count("sent"), EMAILS as u64);
            prop_assert_eq!(once.len(), EMAILS);
        }
        // What is said to be sent was accepted.
        let sent = world.sql("SELECT recipients FROM outbox WHERE state = 'sent'", Vec::new());
        for row in sent {
            let recipients: Value = serde_json::from_str(row[0].as_ref().unwrap()).unwrap();
            prop_assert!(once.contains(&recipients["to"][0].as_str().unwrap().to_owned()));
        }
    }
}
