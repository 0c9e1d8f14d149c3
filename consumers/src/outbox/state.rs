//! The outbox: what is pending, batches that are sealed, and what became of them. Statements and what they answer; nothing
//! is sent here.
//!
//! ```text
//! email   pending -> sealed -> sent | refused | suppressed | uncertain
//!            ^---------'  it goes into another batch
//! batch   sealed -> sending -> sent | refused | uncertain | dissolved
//!            ^---------'  the provider has taken nothing of it, or will know it again by its key
//! ```
//!
//! Each arrow is one transaction. A process that dies between two leaves a batch that is `sealed`, which another sends; or
//! `sending`, until its lease ends. Then a provider that knows keys is sent the same bytes under the same key; of another,
//! nobody can say whether it had them.

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_core::outbound::MessageResult;
use hookmill_core::params;
use hookmill_core::store::{self, Param, Rows, Statement, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use serde::Deserialize;

/// How long a batch may take to be sent before whoever sends it is taken to be gone.
pub const LEASE: Duration = Duration::from_secs(120);
/// How long another stands in for a provider that is away.
pub const AWAY: Duration = Duration::from_secs(5 * 60);

/// What waits to be sent.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct PendingMessage {
    /// Which.
    pub id: String,
    /// JSON: what it says, and to whom.
    pub content: String,
    /// Since when it may be sent.
    pub due_at: Timestamp,
    /// With how many, itself included, it may be in a batch, if its last one was refused as a whole.
    pub together: Option<usize>,
}

/// What is not sent, or may have been.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnsentMessage {
    /// Which.
    pub id: String,
    /// Its event: source and id.
    pub event: (String, String),
    /// The rule that wanted it sent.
    pub rule: String,
    /// `refused`, `suppressed` or `uncertain`.
    pub state: String,
    /// Why.
    pub error: String,
}

/// A batch that is to be sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewBatch {
    /// The idempotency key.
    pub id: String,
    /// What it goes out through.
    pub channel: &'static str,
    /// Who is to send it.
    pub provider: &'static str,
    /// The ids of what is in it, in the order of the body.
    pub members: Vec<String>,
    /// The request's body.
    pub body: String,
}

/// A sealed batch that is to be sent now, by whoever took it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct LeasedBatch {
    /// The idempotency key.
    pub id: String,
    /// The ids of what is in it, in the order of the body.
    #[serde(deserialize_with = "store::json")]
    pub members: Vec<String>,
    /// The request's body.
    pub body: String,
    /// How often it was taken, this time included.
    pub attempts: u32,
    /// Whether it may have reached the provider before.
    #[serde(deserialize_with = "store::flag")]
    pub arrived: bool,
    /// Requests in a row that the provider did not take because it was away, before this one.
    pub failures: u32,
}

/// How a provider is doing.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct ProviderHealth {
    /// Its name.
    pub provider: String,
    /// Until when nothing is sealed for it, if there is another.
    pub away_until: Timestamp,
}

/// Whom a batch is sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendingProvider<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// Whether the provider recognizes a batch that it has had, so that sending it again does no harm.
    pub recognizes: bool,
}

/// How a batch ends without having been taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchEnd {
    /// The provider will not have it.
    Refused,
    /// Nobody knows whether it has it.
    Uncertain,
}

impl BatchEnd {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Uncertain => "uncertain",
        }
    }
}

/// `?1` now, `?2` the latest time at which something can have been written. What is meant to wait waits for as long as before.
const WRITTEN_AHEAD: &str = "\
-- what was written by a clock that was ahead
UPDATE outbox SET due_at = due_at - created_at + ?1, created_at = ?1
WHERE state = 'pending' AND created_at > ?2";

/// `?1` now, `?2` the latest time for which something can be put back.
const PUT_BACK_AHEAD: &str = "\
-- what was put back by a clock that was ahead
UPDATE outbox SET due_at = ?1 WHERE state = 'pending' AND attempts > 0 AND due_at > ?2";

/// `?1` now, `?2` the latest time at which a batch can be tried again, `?3` the latest end of a lease, `?4` channel. The age of a
/// key is known from now on.
const BATCHES_AHEAD: &str = "\
-- batches that a clock that was ahead has set
UPDATE outbox_batches SET due_at = ?1, sealed_at = min(sealed_at, ?1)
WHERE state IN ('sealed', 'sending') AND channel = ?4 AND due_at > ?2
    AND (state = 'sealed' OR due_at > ?3)";

/// `?1` now, `?2` the latest time at which a provider can be free, `?3` the latest until which it can be away, `?4` JSON: which.
const SENDERS_AHEAD: &str = "\
-- providers that a clock that was ahead has set
UPDATE outbox_senders SET free_at = iif(free_at > ?2, ?1, free_at),
    away_until = iif(away_until > ?3, ?1, away_until)
WHERE provider IN (SELECT value FROM jsonb_each(?4)) AND (free_at > ?2 OR away_until > ?3)";

// Every statement about open batches says `state IN ('sealed', 'sending')` first: that is the condition of their index, and
// SQLite uses the index only where it finds the same words.

/// Requeues batches sealed for a provider that is no longer configured, if no request was made. `?2` JSON: their
/// names. In this order in one transaction.
const ADOPT: [&str; 2] = [
    "\
-- requeue batches sealed for a provider that is no longer configured, if no request was made
UPDATE outbox SET state = 'pending', batch = NULL
WHERE state = 'sealed' AND id IN (
    SELECT member.value FROM outbox_batches, jsonb_each(members) AS member
    WHERE state IN ('sealed', 'sending') AND state = 'sealed' AND channel = ?1 AND arrived = 0
        AND provider NOT IN (SELECT value FROM jsonb_each(?2))
)",
    "\
-- and dissolve these batches
UPDATE outbox_batches SET state = 'dissolved', body = '', settled_at = due_at
WHERE state IN ('sealed', 'sending') AND state = 'sealed' AND channel = ?1 AND arrived = 0
    AND provider NOT IN (SELECT value FROM jsonb_each(?2))",
];

const PENDING: &str = "\
-- what is due
SELECT id, content, due_at, together FROM outbox
WHERE channel = ?1 AND state = 'pending' AND due_at <= ?2
ORDER BY due_at LIMIT ?3";

const SENDERS: &str = "\
-- how providers are doing
SELECT provider, away_until FROM outbox_senders";

const SUPPRESSED: &str = "\
-- who is not to be written to
SELECT address, reason FROM suppressions WHERE address IN (SELECT value FROM jsonb_each(?1))";

/// Sealed only if every one of its members is pending still: of two that would seal the same email, one does.
const SEAL: &str = "\
-- seal batches
INSERT INTO outbox_batches (id, provider, members, body, due_at, sealed_at, channel)
SELECT value ->> 0, value ->> 1, value -> 2, value ->> 3, value ->> 4, value ->> 4, value ->> 5
FROM jsonb_each(?1) AS batch
WHERE json_array_length(batch.value -> 2) = (
    SELECT count(*) FROM jsonb_each(batch.value -> 2) AS member JOIN outbox ON outbox.id = member.value
    WHERE state = 'pending'
)
ON CONFLICT DO NOTHING
RETURNING id";

const SEALED: &str = "\
-- their members
UPDATE outbox SET state = 'sealed', batch = member.batch
FROM (
    SELECT batch.value ->> 0 AS batch, member.value AS id
    FROM jsonb_each(?1) AS batch, jsonb_each(batch.value -> 2) AS member
    WHERE EXISTS (SELECT 1 FROM outbox_batches WHERE outbox_batches.id = batch.value ->> 0)
) AS member
WHERE state = 'pending' AND outbox.id = member.id";

/// `?1` provider, `?2` whether it knows keys, `?3` now, `?4` the end of the lease, `?5` since when a batch must have been
/// sealed for its key to count, `?6` channel. What another took and did not bring to an end may have arrived.
const TAKE: &str = "\
-- take a batch
UPDATE outbox_batches
SET state = 'sending', attempts = attempts + 1, arrived = max(arrived, state = 'sending'), due_at = ?4
WHERE id = (
    SELECT id FROM outbox_batches
    WHERE state IN ('sealed', 'sending') AND channel = ?6 AND provider = ?1 AND due_at <= ?3
        AND (state = 'sealed' OR ?2)
        AND (attempts = 0 OR sealed_at > ?5)
        AND NOT EXISTS (SELECT 1 FROM outbox_senders WHERE outbox_senders.provider = ?1 AND free_at > ?3)
    ORDER BY due_at LIMIT 1
)
RETURNING id, members, body, attempts, arrived,
    coalesce((SELECT failures FROM outbox_senders WHERE outbox_senders.provider = ?1), 0) AS failures";

/// In the transaction of [`TAKE`]. `?1` provider, `?2` the end of the lease, `?3` when the next request may go out, `?4` channel.
const SPACE: &str = "\
-- keep to the rate
INSERT INTO outbox_senders (provider, free_at)
SELECT ?1, ?3
WHERE EXISTS (
    SELECT 1 FROM outbox_batches
    WHERE state IN ('sealed', 'sending') AND state = 'sending' AND channel = ?4 AND due_at = ?2 AND provider = ?1
)
ON CONFLICT (provider) DO UPDATE SET free_at = excluded.free_at WHERE free_at < excluded.free_at";

/// Those that are due and that [`TAKE`] leaves.
const DOUBTFUL: &str = "\
-- batches that are not sent again as they are
SELECT id, members, '' AS body, attempts, arrived OR state = 'sending' AS arrived, 0 AS failures FROM outbox_batches
WHERE state IN ('sealed', 'sending') AND channel = ?5 AND provider = ?1 AND due_at <= ?3 AND (
    (state = 'sending' AND (NOT ?2 OR sealed_at <= ?4))
    OR (state = 'sealed' AND attempts > 0 AND sealed_at <= ?4)
)
LIMIT 10";

const SETTLE_UNSEALED: &str = "\
-- what cannot be sent
UPDATE outbox SET state = value ->> 1, error = value ->> 2, settled_at = value ->> 3
FROM jsonb_each(?1)
WHERE outbox.id = value ->> 0 AND state = 'pending'
RETURNING id, source, event_id, rule, state, error";

const LEAVE_OUT: &str = "\
-- who is left out
UPDATE outbox SET skipped_recipients = coalesce(skipped_recipients || ', ', '') || (value ->> 1) FROM jsonb_each(?1)
WHERE outbox.id = value ->> 0 AND instr(coalesce(skipped_recipients, ''), value ->> 1) = 0";

const SETTLE_MEMBERS: &str = "\
-- what became of it
UPDATE outbox SET state = value ->> 2, provider_id = value ->> 3, error = value ->> 4, settled_at = value ->> 5
FROM jsonb_each(?1)
WHERE outbox.id = value ->> 0 AND batch = value ->> 1 AND state = 'sealed'
RETURNING id, source, event_id, rule, state, error";

const SETTLE_BATCH: &str = "\
-- what became of the batch
UPDATE outbox_batches SET state = ?2, error = ?3, settled_at = ?4,
    body = iif(?2 = 'dissolved', '', body)
WHERE id = ?1 AND state IN ('sealed', 'sending')";

/// `?2` now, `?3` what was the matter, `?4` how often that may happen; `?5` how long it waits the first time, which doubles
/// each time up to `?6`.
const PUT_BACK: &str = "\
-- back, to be sent in another batch
UPDATE outbox SET state = 'pending', batch = NULL, attempts = attempts + 1, error = ?3,
    due_at = ?2 + min(?5 << min(attempts, 20), ?6)
WHERE id IN (SELECT value FROM outbox_batches, jsonb_each(outbox_batches.members) WHERE outbox_batches.id = ?1)
    AND batch = ?1 AND state = 'sealed' AND attempts + 1 < ?4";

/// `?2` what was the matter, `?3` with how many each may be in a batch from now on, if that is said.
const DISSOLVE: &str = "\
-- back, since the provider has not had it
UPDATE outbox SET state = 'pending', batch = NULL, error = ?2, together = coalesce(?3, together)
WHERE id IN (SELECT value FROM outbox_batches, jsonb_each(outbox_batches.members) WHERE outbox_batches.id = ?1)
    AND batch = ?1 AND state = 'sealed'";

const SUPPRESS: &str = "\
-- recipients who want none
INSERT INTO suppressions (address, reason, source, event_id, created_at)
SELECT recipient, value ->> 2, value ->> 1, outbox.id, value ->> 3
FROM jsonb_each(?1) JOIN outbox ON outbox.id = value ->> 0
WHERE recipient IS NOT NULL
ON CONFLICT DO NOTHING";

const RECENT: &str = "\
-- what has gone to somebody
SELECT count(*) AS count FROM outbox
WHERE recipient = ?2 AND due_at > ?3 AND due_at <= ?4 AND channel = ?1 AND state IN ('sealed', 'sent', 'uncertain')";

const RELEASE: &str = "\
-- send a batch later
UPDATE outbox_batches SET state = 'sealed', arrived = max(arrived, ?4), due_at = ?2, error = ?3,
    sealed_at = min(sealed_at, ?2)
WHERE id = ?1 AND state = 'sending'";

const USE: &str = "\
-- count towards quotas
INSERT INTO outbox_usage (provider, period, sent, requests)
VALUES (?1, ?2, ?4, 1), (?1, ?3, ?4, 1)
ON CONFLICT (provider, period) DO UPDATE SET sent = sent + excluded.sent, requests = requests + 1";

const NOTE: &str = "\
-- how the provider is doing
INSERT INTO outbox_senders (provider, free_at, failures, away_until)
VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (provider) DO UPDATE SET free_at = max(free_at, excluded.free_at), away_until = excluded.away_until,
    failures = CASE WHEN excluded.failures = 0 THEN 0 ELSE failures + 1 END";

/// `?1` the channel, `?2` JSON: the providers there are keys for.
const NEXT: &str = "\
-- when there is something to do
SELECT (SELECT min(due_at) FROM outbox WHERE channel = ?1 AND state = 'pending') AS pending, (
    SELECT min(max(outbox_batches.due_at, CASE WHEN state = 'sealed' THEN coalesce(free_at, 0) ELSE 0 END))
    FROM outbox_batches LEFT JOIN outbox_senders USING (provider)
    WHERE channel = ?1 AND state IN ('sealed', 'sending') AND provider IN (SELECT value FROM jsonb_each(?2))
) AS sealed";

/// `?1` provider, `?2` the day and `?3` the most in it, `?4` the month and `?5` the most in it.
const USED: &str = "\
-- quotas that are nearly used up, and nobody has been told
SELECT period, sent FROM outbox_usage
WHERE provider = ?1 AND warned_at IS NULL
    AND ((period = ?2 AND sent >= ?3) OR (period = ?4 AND sent >= ?5))";

const WARNED: &str = "\
-- somebody has been told
UPDATE outbox_usage SET warned_at = ?3 WHERE provider = ?1 AND period = ?2";

const WRITE: &str = "\
-- an email of Hookmill's own
INSERT INTO outbox (id, source, event_id, generation, rule, channel, content, due_at, created_at)
VALUES (?1, 'hookmill', ?2, 0, ?3, 'email', ?4, ?5, ?5)
ON CONFLICT DO NOTHING";

const FREE: &str = "\
-- nobody else is sending
UPDATE outbox_batches SET due_at = ?1
WHERE state IN ('sealed', 'sending') AND state = 'sending' AND due_at > ?1";

const OPEN: &str = "\
-- what waits, and for whom
SELECT channel, NULL AS provider, count(*) AS count, 0 AS uncertain FROM outbox WHERE state = 'pending' GROUP BY channel
UNION ALL
SELECT channel, provider, count(*), sum(arrived = 1 OR state = 'sending') FROM outbox_batches WHERE state IN ('sealed', 'sending') GROUP BY channel, provider";

/// Makes due what waits for a time that only a wrong clock can have set, see [`Timestamp::horizon`]. `longest_retry`: for how
/// long something may wait to be tried again.
pub fn put_right(channel: &str, now: Timestamp, longest_retry: Duration) -> Vec<Statement> {
    let (written, again) = (now.horizon(Duration::ZERO), now.horizon(longest_retry));
    vec![
        Statement::new(WRITTEN_AHEAD, params![now, written]),
        Statement::new(PUT_BACK_AHEAD, params![now, again]),
        Statement::new(BATCHES_AHEAD, params![now, again, now.horizon(LEASE), channel]),
    ]
}

/// As [`put_right()`], for when providers may be asked again.
pub fn put_senders_right(providers: &[&str], now: Timestamp, longest_retry: Duration) -> Statement {
    let (again, away) = (now.horizon(longest_retry), now.horizon(AWAY));
    Statement::new(SENDERS_AHEAD, params![now, again, away, Param::json(providers)])
}

/// Asks for what may be sent through these providers, the oldest first; and how providers are doing.
pub fn pending(channel: &str, providers: &[&str], now: Timestamp, most: usize) -> Vec<Statement> {
    let adopt = ADOPT.map(|sql| Statement::new(sql, params![channel, Param::json(providers)]));
    let pending = Statement::new(PENDING, params![channel, now, most]);
    adopt.into_iter().chain([pending, Statement::new(SENDERS, Vec::new())]).collect()
}

/// What [`pending()`] was answered with.
///
/// # Errors
///
/// If a value is not of its type.
pub fn read_pending(
    rows: &[Rows],
) -> Result<(Vec<PendingMessage>, Vec<ProviderHealth>), StoreError> {
    Ok((read(answer(rows, ADOPT.len()))?, read(answer(rows, ADOPT.len() + 1))?))
}

/// Asks which of these addresses, in lower case, are not to be written to, and why: pairs.
pub fn suppressed(addresses: &[String]) -> Statement {
    Statement::new(SUPPRESSED, params![Param::json(addresses)])
}

/// What [`suppressed()`] was answered with.
///
/// # Errors
///
/// If a value is not of its type.
pub fn read_suppressed(rows: &[Rows]) -> Result<BTreeMap<String, String>, StoreError> {
    #[derive(Deserialize)]
    struct Suppressed {
        address: String,
        reason: String,
    }
    let suppressed = read::<Suppressed>(answer(rows, 0))?;
    Ok(suppressed.into_iter().map(|one| (one.address, one.reason)).collect())
}

/// Asks how much has gone to an address, as the column `recipient` has it, in this time until now.
pub fn recent(channel: &str, recipient: &str, now: Timestamp, within: Duration) -> Statement {
    let until = now.horizon(Duration::ZERO);
    Statement::new(RECENT, params![channel, recipient, now - within, until])
}

/// What [`recent()`] was answered with.
///
/// # Errors
///
/// If a value is not of its type.
pub fn read_recent(rows: &[Rows]) -> Result<u32, StoreError> {
    #[derive(Deserialize)]
    struct Recent {
        count: u32,
    }
    Ok(read::<Recent>(answer(rows, 0))?.first().map_or(0, |recent| recent.count))
}

/// Seals batches, to be carried out in one transaction. The first statement answers with the ids of those that were.
pub fn seal(batches: &[NewBatch], now: Timestamp) -> Vec<Statement> {
    let rows = batches
        .iter()
        .map(|batch| (&batch.id, batch.provider, &batch.members, &batch.body, now, batch.channel));
    [SEAL, SEALED].iter().flat_map(|sql| Statement::for_each(sql, rows.clone())).collect()
}

/// Takes a batch that is due, for [`LEASE`], unless the provider is not to be asked yet; and asks how providers are doing. The
/// next request to this one goes out `interval` later. `since`: when a batch must have been sealed to be sent again.
pub fn take(
    channel: &str,
    sender: SendingProvider<'_>,
    now: Timestamp,
    interval: Duration,
    since: Timestamp,
) -> Vec<Statement> {
    let SendingProvider { provider, recognizes } = sender;
    let lease = now + LEASE;
    vec![
        Statement::new(TAKE, params![provider, recognizes, now, lease, since, channel]),
        Statement::new(SPACE, params![provider, lease, now + interval, channel]),
        Statement::new(SENDERS, Vec::new()),
    ]
}

/// The batch that [`take()`] was answered with, if there was one; and how providers are doing.
///
/// # Errors
///
/// If a value is not of its type.
pub fn read_taken(rows: &[Rows]) -> Result<(Option<LeasedBatch>, Vec<ProviderHealth>), StoreError> {
    Ok((read(answer(rows, 0))?.pop(), read(answer(rows, 2))?))
}

/// Asks for batches that are due and not sent again as they are: whoever sent them is gone and the provider knows no keys, or
/// they were sealed before `since`. To be read as [`LeasedBatch`], without their bodies.
pub fn doubtful(
    channel: &str,
    sender: SendingProvider<'_>,
    now: Timestamp,
    since: Timestamp,
) -> Statement {
    let SendingProvider { provider, recognizes } = sender;
    Statement::new(DOUBTFUL, params![provider, recognizes, now, since, channel])
}

/// Gives up what no batch can have: id, state (`refused` or `suppressed`), and why.
pub fn refuse(members: &[(&str, &str, String)], now: Timestamp) -> Vec<Statement> {
    let rows = members.iter().map(|(id, state, error)| (id, state, error, now));
    Statement::for_each(SETTLE_UNSEALED, rows)
}

/// Writes down which recipients are left out of what is sent: id, and who and why.
pub fn leave_out(members: &[(String, String)]) -> Vec<Statement> {
    Statement::for_each(LEAVE_OUT, members)
}

/// Writes down what the provider has said of each member of a batch that it has taken; `recipients`: to how many each goes.
pub fn delivered(
    provider: &str,
    batch: &LeasedBatch,
    said: &[MessageResult],
    recipients: &[usize],
    now: Timestamp,
) -> Vec<Statement> {
    let members = batch.members.iter().zip(said).map(|(id, said)| {
        let (state, provider_id, error) = match said {
            MessageResult::Accepted(id) | MessageResult::Partly { id, .. } => {
                ("sent", id.as_deref(), None)
            }
            MessageResult::Refused(error) => ("refused", None, Some(error)),
            MessageResult::Unwanted(error) => ("suppressed", None, Some(error)),
        };
        (id, &batch.id, state, provider_id, error, now)
    });
    let mut statements = Statement::for_each(SETTLE_MEMBERS, members);
    statements.push(settle_batch(batch, "sent", None, now));
    let accepted = said.iter().zip(recipients);
    let accepted = accepted.filter(|(said, _)| {
        matches!(said, MessageResult::Accepted(_) | MessageResult::Partly { .. })
    });
    let sent: usize = accepted.map(|(_, recipients)| recipients).sum();
    let unwanted = batch.members.iter().zip(said).filter_map(|(id, said)| match said {
        MessageResult::Unwanted(error) => Some((id, provider, error, now)),
        MessageResult::Accepted(_) | MessageResult::Partly { .. } | MessageResult::Refused(_) => {
            None
        }
    });
    statements.extend(Statement::for_each(SUPPRESS, unwanted));
    let left_out = batch.members.iter().zip(said).filter_map(|(id, said)| match said {
        MessageResult::Partly { left_out, .. } => Some((id.clone(), left_out.clone())),
        MessageResult::Accepted(_) | MessageResult::Refused(_) | MessageResult::Unwanted(_) => None,
    });
    statements.extend(leave_out(&left_out.collect::<Vec<_>>()));
    statements.push(Statement::new(USE, params![provider, now.day(), now.month(), sent]));
    statements.push(note(provider, now, false, None));
    statements
}

/// Ends a batch that was not taken, and what is still in it.
pub fn end(batch: &LeasedBatch, end: BatchEnd, error: &str, now: Timestamp) -> Vec<Statement> {
    let members =
        batch.members.iter().map(|id| (id, &batch.id, end.as_str(), None::<&str>, error, now));
    let mut statements = Statement::for_each(SETTLE_MEMBERS, members);
    statements.push(settle_batch(batch, end.as_str(), Some(error), now));
    statements
}

/// Puts back what is in a batch, to be sent in another; not what has been in `most` batches. It waits for the first of these
/// times, and longer each time, up to the other. The batch has still to be brought to its end.
pub fn put_back(
    batch: &LeasedBatch,
    now: Timestamp,
    (initial, max): (Duration, Duration),
    error: &str,
    most: u32,
) -> Statement {
    Statement::new(PUT_BACK, params![&batch.id, now, error, most, initial, max])
}

/// Puts back what is in a batch that the provider has not had, to be sent in others now; `together`: of at most so many.
pub fn dissolve(
    batch: &LeasedBatch,
    together: Option<usize>,
    error: &str,
    now: Timestamp,
) -> Vec<Statement> {
    let dissolve = Statement::new(DISSOLVE, params![&batch.id, error, together]);
    vec![dissolve, settle_batch(batch, "dissolved", Some(error), now)]
}

/// What became of each, as the statements answer that settle it: how many were sent, and which were not.
///
/// # Errors
///
/// If a value is not of its type.
pub fn read_settled(rows: &[Rows]) -> Result<(usize, Vec<UnsentMessage>), StoreError> {
    #[derive(Deserialize)]
    struct Settled {
        id: String,
        source: String,
        event_id: String,
        rule: String,
        state: String,
        error: Option<String>,
    }
    let (mut sent, mut unsent) = (0, Vec::new());
    for rows in rows {
        for Settled { id, source, event_id, rule, state, error } in read(rows)? {
            if state == "sent" {
                sent += 1;
                continue;
            }
            let error = error.unwrap_or_default();
            unsent.push(UnsentMessage { id, event: (source, event_id), rule, state, error });
        }
    }
    Ok((sent, unsent))
}

/// Leaves a batch for later: the provider has taken nothing of it, or will know it again by its key. `arrived`: it may have
/// reached the provider.
pub fn release(batch: &LeasedBatch, due_at: Timestamp, error: &str, arrived: bool) -> Statement {
    Statement::new(RELEASE, params![&batch.id, due_at, error, arrived])
}

/// Writes down how a provider is doing: when it may be asked again, whether it was away, and until when nothing is sealed
/// for it.
pub fn note(
    provider: &str,
    free_at: Timestamp,
    away: bool,
    away_until: Option<Timestamp>,
) -> Statement {
    let away_until = away_until.map_or(0, Timestamp::millis);
    Statement::new(NOTE, params![provider, free_at, away, away_until])
}

/// Asks when there is something to do: since when something is pending, and when a batch of one of these providers may be
/// sent.
pub fn next(channel: &str, providers: &[&str]) -> Statement {
    Statement::new(NEXT, params![channel, Param::json(providers)])
}

/// What [`next()`] was answered with.
///
/// # Errors
///
/// If a value is not of its type.
pub fn read_next(rows: &[Rows]) -> Result<(Option<Timestamp>, Option<Timestamp>), StoreError> {
    #[derive(Deserialize)]
    struct Next {
        pending: Option<Timestamp>,
        sealed: Option<Timestamp>,
    }
    let next = read::<Next>(answer(rows, 0))?.pop();
    Ok(next.map_or((None, None), |next| (next.pending, next.sealed)))
}

/// Asks which periods have more sent in them than these, and have not been warned of.
pub fn used(provider: &str, now: Timestamp, day: u64, month: u64) -> Statement {
    Statement::new(USED, params![provider, now.day(), day, now.month(), month])
}

/// A period, and how much has been sent in it: what [`used()`] is answered with.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct QuotaUsage {
    /// The day or the month.
    pub period: String,
    /// Emails, or what else the channel counts.
    pub sent: u64,
}

/// Notes that somebody has been told of a period.
pub fn warned(provider: &str, period: &str, now: Timestamp) -> Statement {
    Statement::new(WARNED, params![provider, period, now])
}

/// Writes an email of Hookmill's own, once under each id. `about` and `rule` stand where an event's id and its rule do.
pub fn write(id: &str, about: &str, rule: &str, content: &str, now: Timestamp) -> Statement {
    Statement::new(WRITE, params![id, about, rule, content, now])
}

/// Ends every lease, for whoever knows that those who had them are gone.
pub fn free(now: Timestamp) -> Statement {
    Statement::new(FREE, params![now])
}

/// Asks what waits, to be read as [`OpenCount`].
pub fn open() -> Statement {
    Statement::new(OPEN, Vec::new())
}

/// What waits in a channel.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct OpenCount {
    /// Its name.
    pub channel: String,
    /// The provider whose batches they are; none for what is in no batch.
    pub provider: Option<String>,
    /// How many emails, or how many batches.
    pub count: u64,
    /// How many of them may have been sent.
    pub uncertain: u64,
}

fn settle_batch(
    batch: &LeasedBatch,
    state: &str,
    error: Option<&str>,
    now: Timestamp,
) -> Statement {
    Statement::new(SETTLE_BATCH, params![&batch.id, state, error, now])
}
