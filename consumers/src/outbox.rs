//! The outbox: emails that are pending, batches that are sealed, and what became of them. Statements and what they answer;
//! nothing is sent here.
//!
//! ```text
//! email   pending -> sealed -> sent | refused | in_doubt
//! batch   sealed -> sending -> sent | refused | in_doubt
//!            ^---------'  the provider has taken nothing of it
//! ```
//!
//! Each arrow is one transaction. A process that dies between two leaves a batch that is `sealed`, which another sends; or
//! `sending`, until its lease ends. Then a provider with idempotency keys is sent the same bytes under the same key; of
//! another, nobody can say whether it had them.

use std::sync::Arc;
use std::time::Duration;

use hookmill_core::email::Delivered;
use hookmill_core::store::{Rows, Statement};
use hookmill_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How long a batch may take to be sent before whoever sends it is taken to be gone.
pub const LEASE: Duration = Duration::from_secs(120);

/// What identifies an email: source, event id, generation, rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct EmailKey(pub String, pub String, pub u32, pub String);

/// An email that waits to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// Which.
    pub key: EmailKey,
    /// Its template.
    pub template: String,
    /// JSON: to whom.
    pub recipients: String,
    /// JSON: what the template is filled in with.
    pub data: String,
    /// Since when it may be sent.
    pub due_at: Timestamp,
}

/// A batch that is to be sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealing {
    /// The idempotency key.
    pub id: String,
    /// Who is to send it.
    pub provider: String,
    /// Its emails, in the order of the body.
    pub emails: Vec<EmailKey>,
    /// The request's body.
    pub body: String,
}

/// A sealed batch that is to be sent now, by whoever took it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The idempotency key.
    pub id: String,
    /// Who sends it.
    pub provider: String,
    /// Its emails, in the order of the body.
    pub emails: Vec<EmailKey>,
    /// The request's body.
    pub body: String,
    /// How often it was taken, this time included.
    pub attempts: u32,
}

const PENDING: &str = "\
-- emails that are due
SELECT source, event_id, generation, rule, template, recipients, data, due_at FROM outbox
WHERE state = 'pending' AND due_at <= CAST(?1 AS INTEGER)
ORDER BY due_at LIMIT CAST(?2 AS INTEGER)";

/// Sealed only if every one of its emails is pending still: of two that would seal the same email, one does.
const SEAL: &str = "\
-- seal batches
INSERT INTO batches (id, provider, emails, body, due_at, sealed_at)
SELECT value ->> 0, value ->> 1, value -> 2, value ->> 3, value ->> 4, value ->> 4
FROM json_each(?1) AS batch
WHERE json_array_length(batch.value -> 2) = (
    SELECT count(*) FROM json_each(batch.value -> 2) AS email
    JOIN outbox ON source = email.value ->> 0 AND event_id = email.value ->> 1 AND generation = email.value ->> 2
        AND rule = email.value ->> 3
    WHERE state = 'pending'
)
ON CONFLICT DO NOTHING
RETURNING id";

const SEALED: &str = "\
-- their emails
UPDATE outbox SET state = 'sealed', batch = email.batch
FROM (
    SELECT batch.value ->> 0 AS batch, email.value AS key
    FROM json_each(?1) AS batch, json_each(batch.value -> 2) AS email
    WHERE EXISTS (SELECT 1 FROM batches WHERE batches.id = batch.value ->> 0)
) AS email
WHERE state = 'pending' AND source = key ->> 0 AND event_id = key ->> 1 AND generation = key ->> 2 AND rule = key ->> 3";

/// `?1` now, `?2` the end of the lease, `?3` how many; `?4` providers whose batches may be sent twice under one key, `?5` and
/// since when these must have been sealed for that.
const TAKE: &str = "\
-- take batches
UPDATE batches SET state = 'sending', attempts = attempts + 1, due_at = CAST(?2 AS INTEGER)
WHERE id IN (
    SELECT id FROM batches
    WHERE due_at <= CAST(?1 AS INTEGER) AND CASE
        WHEN provider NOT IN (SELECT value FROM json_each(?4)) THEN state = 'sealed'
        ELSE state IN ('sealed', 'sending') AND (attempts = 0 OR sealed_at > CAST(?5 AS INTEGER))
    END
    ORDER BY due_at LIMIT CAST(?3 AS INTEGER)
)
RETURNING id, provider, emails, body, attempts";

/// Those that [`TAKE`] leaves, although they are due.
const DOUBTFUL: &str = "\
-- batches in doubt
SELECT id, provider, emails, body, attempts FROM batches
WHERE due_at <= CAST(?1 AS INTEGER) AND CASE
    WHEN provider NOT IN (SELECT value FROM json_each(?2)) THEN state = 'sending'
    ELSE state IN ('sealed', 'sending') AND attempts > 0 AND sealed_at <= CAST(?3 AS INTEGER)
END
LIMIT 10";

const REFUSE: &str = "\
-- emails that cannot be sent
UPDATE outbox SET state = 'refused', error = value ->> 4, settled_at = value ->> 5
FROM json_each(?1)
WHERE source = value ->> 0 AND event_id = value ->> 1 AND generation = value ->> 2 AND rule = value ->> 3
    AND state = 'pending'";

const STATES: &str = "\
-- emails by state
SELECT state, count(*) FROM outbox GROUP BY state";

const MARK_EMAILS: &str = "\
-- what became of emails
UPDATE outbox SET state = value ->> 5, provider_id = value ->> 6, error = value ->> 7, settled_at = value ->> 8
FROM json_each(?1)
WHERE batch = value ->> 4 AND source = value ->> 0 AND event_id = value ->> 1 AND generation = value ->> 2
    AND rule = value ->> 3 AND state = 'sealed'";

const MARK_BATCH: &str = "\
-- what became of a batch
UPDATE batches SET state = value ->> 1, error = value ->> 2, settled_at = value ->> 3
FROM json_each(?1)
WHERE batches.id = value ->> 0 AND state IN ('sealed', 'sending')";

const RELEASE: &str = "\
-- send a batch later
UPDATE batches SET state = 'sealed', due_at = value ->> 1, error = value ->> 2
FROM json_each(?1)
WHERE batches.id = value ->> 0 AND state = 'sending'";

/// Asks for the emails that may be sent, the oldest first.
pub fn pending(now: Timestamp, most: usize) -> Statement {
    statement(PENDING, vec![now.millis().to_string(), most.to_string()])
}

/// The emails that [`pending()`] answered with.
pub fn read_pending(rows: &Rows) -> Vec<Pending> {
    let read = |row: &Vec<Option<String>>| {
        let mut row = row.iter().cloned();
        let mut next = || row.next().flatten();
        let key = EmailKey(next()?, next()?, next()?.parse().ok()?, next()?);
        let (template, recipients, data) = (next()?, next()?, next()?);
        let due_at = Timestamp::from_millis(next()?.parse().ok()?);
        Some(Pending { key, template, recipients, data, due_at })
    };
    rows.iter().filter_map(read).collect()
}

/// Seals batches, to be carried out in one transaction. The first statement answers with the ids of those that were.
pub fn seal(batches: &[Sealing], now: Timestamp) -> Vec<Statement> {
    let rows = batches
        .iter()
        .map(|batch| json(&(&batch.id, &batch.provider, &batch.emails, &batch.body, now)));
    let rows: Vec<_> = rows.collect();
    [SEAL, SEALED].iter().flat_map(|sql| for_rows(sql, &rows)).collect()
}

/// Takes batches that are due, for [`LEASE`]. `repeatable` are providers that know idempotency keys, and `since` when a key
/// must have been made to count still.
pub fn take(now: Timestamp, most: usize, repeatable: &[&str], since: Timestamp) -> Statement {
    let lease = i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
    let lease = now.millis().saturating_add(lease);
    let params = vec![
        now.millis().to_string(),
        lease.to_string(),
        most.to_string(),
        json(&repeatable),
        since.millis().to_string(),
    ];
    statement(TAKE, params)
}

/// Asks for batches of which nobody knows whether they were sent: their lease has ended and the provider knows no keys, or the
/// key counts no longer. They are read as those of [`take()`].
pub fn doubtful(now: Timestamp, repeatable: &[&str], since: Timestamp) -> Statement {
    let params = vec![now.millis().to_string(), json(&repeatable), since.millis().to_string()];
    statement(DOUBTFUL, params)
}

/// Gives up emails that no batch can have, each with the reason.
pub fn refuse(emails: &[(&EmailKey, String)], now: Timestamp) -> Vec<Statement> {
    let rows = emails.iter().map(|(EmailKey(source, id, generation, rule), error)| {
        json(&(source, id, generation, rule, error, now))
    });
    for_rows(REFUSE, &rows.collect::<Vec<_>>())
}

/// Counts emails by state.
pub fn states() -> Statement {
    statement(STATES, Vec::new())
}

/// The batches that [`take()`] answered with.
pub fn read_taken(rows: &Rows) -> Vec<Taken> {
    let read = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(id), Some(provider), Some(emails), Some(body), Some(attempts)] => Some(Taken {
            id: id.clone(),
            provider: provider.clone(),
            emails: serde_json::from_str(emails).ok()?,
            body: body.clone(),
            attempts: attempts.parse().ok()?,
        }),
        _ => None,
    };
    rows.iter().filter_map(read).collect()
}

/// Writes down what the provider has said of each email of a batch that it has taken.
pub fn delivered(batch: &Taken, said: &[Delivered], now: Timestamp) -> Vec<Statement> {
    let emails =
        batch.emails.iter().zip(said).map(|(EmailKey(source, id, generation, rule), said)| {
            let (state, provider_id, error) = match said {
                Delivered::Accepted(provider_id) => ("sent", provider_id.as_deref(), None),
                Delivered::Refused(error) => ("refused", None, Some(error)),
            };
            json(&(source, id, generation, rule, &batch.id, state, provider_id, error, now))
        });
    let emails: Vec<_> = emails.collect();
    let mut statements = for_rows(MARK_EMAILS, &emails);
    statements.extend(for_rows(MARK_BATCH, &[json(&(&batch.id, "sent", None::<&str>, now))]));
    statements
}

/// Gives a batch up: none of it was sent, or of all of it nobody knows (`doubt`).
pub fn given_up(batch: &Taken, error: &str, doubt: bool, now: Timestamp) -> Vec<Statement> {
    let state = if doubt { "in_doubt" } else { "refused" };
    let emails = batch.emails.iter().map(|EmailKey(source, id, generation, rule)| {
        json(&(source, id, generation, rule, &batch.id, state, None::<&str>, error, now))
    });
    let emails: Vec<_> = emails.collect();
    let mut statements = for_rows(MARK_EMAILS, &emails);
    statements.extend(for_rows(MARK_BATCH, &[json(&(&batch.id, state, error, now))]));
    statements
}

/// Leaves a batch for later: the provider has taken nothing of it, or will know it again by its key.
pub fn release(batch: &Taken, due_at: Timestamp, error: &str) -> Vec<Statement> {
    for_rows(RELEASE, &[json(&(&batch.id, due_at, error))])
}

fn statement(sql: &str, params: Vec<String>) -> Statement {
    Statement { sql: Arc::from(sql), params }
}

fn for_rows(sql: &str, rows: &[String]) -> Vec<Statement> {
    Statement::for_rows(&Arc::from(sql), rows.iter().map(String::as_str))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers serialise")
}
