//! Emails on a real SQLite: whenever a process dies, and whoever takes over, each email is accepted once by a provider that
//! knows idempotency keys, and never twice by one that does not.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use hookmill_consumers::outbox::{
    EmailKey, Sealing, Taken, delivered, given_up, pending, read_pending, read_taken, release,
    seal, take,
};
use hookmill_core::email::Delivered;
use hookmill_core::store::{Rows, Statement, Store as _};
use hookmill_core::time::Timestamp;
use hookmill_native::{DataFolder, Sqlite};
use proptest::prelude::*;

struct Fixture {
    store: Sqlite,
    runtime: tokio::runtime::Runtime,
    /// Every statement is carried out at this time, in milliseconds.
    now: i64,
    _folder: tempfile::TempDir,
    _data: DataFolder,
}

impl Fixture {
    /// With so many emails that are pending.
    fn new(emails: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::lock(folder.path()).unwrap();
        let store = data.store(&hookmill_migrations::own()).unwrap().store;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let fixture = Self { store, runtime, now: 1_000_000, _folder: folder, _data: data };
        let sql = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < CAST(?1 AS INTEGER) - 1) \
            INSERT INTO outbox (source, event_id, generation, rule, template, recipients, data, due_at, created_at) \
            SELECT 's', 'evt_' || i, 0, 'welcome', 't', '{}', '{}', i, 0 FROM n";
        fixture.run(vec![Statement { sql: sql.into(), params: vec![emails.to_string()] }]);
        fixture
    }

    fn run(&self, statements: Vec<Statement>) -> Vec<Rows> {
        self.runtime.block_on(self.store.execute(statements)).unwrap()
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    /// Seals what is pending, up to so many emails; whether there was any.
    fn seal(&self, id: &str, most: usize, provider: &str) -> bool {
        let emails = read_pending(&self.run(vec![pending(self.at(), most)])[0]);
        let keys: Vec<_> = emails.into_iter().map(|email| email.key).collect();
        !keys.is_empty() && self.seal_these(id, provider, keys)
    }

    fn seal_these(&self, id: &str, provider: &str, emails: Vec<EmailKey>) -> bool {
        let body = serde_json::to_string(&emails).unwrap();
        let batch = Sealing { id: id.into(), provider: provider.into(), emails, body };
        self.run(seal(&[batch], self.at()))[0] == [[Some(id.to_owned())]]
    }

    fn take(&self) -> Option<Taken> {
        let statement = take(self.at(), 1, &["resend"], Timestamp::from_millis(0));
        read_taken(&self.run(vec![statement])[0]).pop()
    }

    /// How many emails are in each state.
    fn states(&self) -> BTreeMap<String, i64> {
        let sql = "SELECT state, count(*) FROM outbox GROUP BY state";
        let rows = self.run(vec![Statement { sql: sql.into(), params: Vec::new() }]);
        let row = |row: &Vec<Option<String>>| {
            (row[0].clone().unwrap(), row[1].as_ref().unwrap().parse().unwrap())
        };
        rows[0].iter().map(row).collect()
    }
}

fn accepted(emails: usize) -> Vec<Delivered> {
    vec![Delivered::Accepted(Some("id".into())); emails]
}

#[test]
fn an_email_is_sealed_once() {
    let fixture = Fixture::new(3);
    let emails = read_pending(&fixture.run(vec![pending(fixture.at(), 10)])[0]);
    let keys: Vec<_> = emails.into_iter().map(|email| email.key).collect();
    // Two have read the same emails, and a third some of them.
    assert!(fixture.seal_these("one", "resend", keys[..2].to_vec()));
    assert!(!fixture.seal_these("two", "resend", keys[..2].to_vec()));
    assert!(!fixture.seal_these("three", "resend", keys[1..].to_vec()));
    assert_eq!(fixture.states(), BTreeMap::from([("pending".into(), 1), ("sealed".into(), 2)]));
    let taken = fixture.take().unwrap();
    assert_eq!((taken.id.as_str(), &taken.emails[..], taken.attempts), ("one", &keys[..2], 1));
    assert_eq!(fixture.take(), None);
}

#[test]
fn each_email_of_a_batch_has_its_own_end() {
    let fixture = Fixture::new(2);
    assert!(fixture.seal("one", 10, "resend"));
    let taken = fixture.take().unwrap();
    let said =
        [Delivered::Accepted(Some("id-1".into())), Delivered::Refused("no such address".into())];
    fixture.run(delivered(&taken, &said, fixture.at()));
    let sql = "SELECT event_id, state, provider_id, error, batch FROM outbox ORDER BY event_id";
    let rows = fixture.run(vec![Statement { sql: sql.into(), params: Vec::new() }]).remove(0);
    let rows: Vec<Vec<_>> =
        rows.iter().map(|row| row.iter().map(|v| v.as_deref().unwrap_or("-")).collect()).collect();
    assert_eq!(
        rows,
        [
            ["evt_0", "sent", "id-1", "-", "one"],
            ["evt_1", "refused", "-", "no such address", "one"]
        ]
    );
    // What is over stays so.
    fixture.run(given_up(&taken, "late", true, fixture.at()));
    fixture.run(release(&taken, fixture.at(), "late"));
    assert_eq!(fixture.states(), BTreeMap::from([("refused".into(), 1), ("sent".into(), 1)]));
    assert_eq!(fixture.take(), None);
}

/// A provider: what it has accepted, by key if it knows keys.
#[derive(Default)]
struct Provider {
    keys: BTreeMap<String, String>,
    accepted: Vec<EmailKey>,
}

impl Provider {
    fn send(&mut self, batch: &Taken, keys: bool) {
        if keys && let Some(body) = self.keys.insert(batch.id.clone(), batch.body.clone()) {
            assert_eq!(body, batch.body, "the same key has the same bytes");
            return;
        }
        let emails: Vec<EmailKey> = serde_json::from_str(&batch.body).unwrap();
        self.accepted.extend(emails);
    }
}

/// Where a process dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Death {
    Never,
    AfterSeal,
    AfterTake,
    AfterSend,
    /// The provider says that it is busy, and has taken nothing.
    Busy,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whoever_dies_when_an_email_is_sent_once_or_in_doubt(
        lives in prop::collection::vec(
            (1_usize..5, prop::sample::select(vec![Death::Never, Death::AfterSeal, Death::AfterTake, Death::AfterSend, Death::Busy])),
            0..12,
        ),
        keys in any::<bool>(),
    ) {
        const EMAILS: usize = 12;
        let mut fixture = Fixture::new(EMAILS);
        let name = if keys { "resend" } else { "sendgrid" };
        let mut provider = Provider::default();
        // In the end somebody lives, as often as there is anything to do.
        let lives = lives.into_iter().chain(std::iter::repeat_n((5, Death::Never), 40));
        for (number, (most, death)) in lives.enumerate() {
            fixture.seal(&format!("batch-{number}"), most, name);
            if death == Death::AfterSeal {
                continue;
            }
            let Some(batch) = fixture.take() else {
                // Whoever had it is gone once its lease has ended.
                fixture.now += 200_000;
                continue;
            };
            match death {
                Death::AfterTake => {}
                Death::Busy => {
                    fixture.run(release(&batch, fixture.at(), "busy"));
                }
                Death::AfterSend => provider.send(&batch, keys),
                _ => {
                    provider.send(&batch, keys);
                    fixture.run(delivered(&batch, &accepted(batch.emails.len()), fixture.at()));
                }
            }
        }
        let states = fixture.states();
        let sent = states.get("sent").copied().unwrap_or(0);
        let once: BTreeSet<_> = provider.accepted.iter().collect();
        prop_assert_eq!(once.len(), provider.accepted.len(), "nothing is accepted twice");
        if keys {
            prop_assert_eq!(once.len(), EMAILS);
            prop_assert_eq!(sent, i64::try_from(EMAILS).unwrap());
        } else {
            // Those of which nobody knows are sealed in a batch that is not sent again.
            let open = states.get("sealed").copied().unwrap_or(0);
            prop_assert_eq!(sent + open, i64::try_from(EMAILS).unwrap());
        }
    }
}
