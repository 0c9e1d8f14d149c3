//! The statements of the outbox and their answers: pending messages, sealed batches, and results. Nothing is sent here.
//!
//! ```text
//! message pending -> sealed -> sent | refused | suppressed | uncertain
//!            ^---------'  it moves to another batch
//! batch   sealed -> sending -> sent | refused | uncertain | dissolved
//!            ^---------'  the provider has accepted nothing, or recognizes the batch by its key
//! ```
//!
//! Each arrow is one transaction. A crash between two leaves a batch that is `sealed`, which any process sends, or
//! `sending` until its lease ends. Then a provider with idempotency keys gets the same bytes under the same key. With
//! another provider, the delivery is uncertain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hookmill_core::outbound::MessageResult;
use hookmill_core::params;
use hookmill_core::store::{self, Param, Rows, Statement, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use serde::Deserialize;

/// The time for which a process may send a batch. After that, the process counts as ended.
pub const LEASE: Duration = Duration::from_secs(120);
/// The time for which a fallback replaces an unavailable provider.
pub const AWAY: Duration = Duration::from_secs(5 * 60);

/// A pending message.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct PendingMessage {
    /// Its id.
    pub id: String,
    /// JSON: its content and recipients.
    pub content: String,
    /// The earliest time to send it.
    pub due_at: Timestamp,
    /// The maximum size of its next batch, itself included, if the provider refused its last batch as a whole.
    pub together: Option<usize>,
}

/// A message that was not sent or whose delivery is uncertain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnsentMessage {
    /// Its id.
    pub id: String,
    /// Its event: source and id.
    pub event: (String, String),
    /// The rule that wrote it.
    pub rule: String,
    /// `refused`, `suppressed` or `uncertain`.
    pub state: String,
    /// The reason.
    pub error: String,
}

/// A batch to seal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewBatch {
    /// The idempotency key.
    pub id: String,
    /// The channel.
    pub channel: &'static str,
    /// The provider.
    pub provider: &'static str,
    /// The ids of its messages, in the order of the body.
    pub members: Vec<String>,
    /// The request's body.
    pub body: String,
}

/// A sealed batch that this process has leased.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct LeasedBatch {
    /// The idempotency key.
    pub id: String,
    /// The ids of its messages, in the order of the body.
    #[serde(deserialize_with = "store::json")]
    pub members: Vec<String>,
    /// The request's body.
    pub body: String,
    /// The number of attempts, including this one.
    pub attempts: u32,
    /// Whether it may have reached the provider before.
    #[serde(deserialize_with = "store::flag")]
    pub arrived: bool,
    /// The number of consecutive requests before this one that failed because the provider was unavailable.
    pub failures: u32,
}

/// The health of a provider.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct ProviderHealth {
    /// The provider's name.
    pub provider: String,
    /// Until this time, new batches go to another provider, if there is one.
    pub away_until: Timestamp,
}

/// The provider of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendingProvider<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// Whether the provider recognizes a batch that it has received, so that sending it again is harmless.
    pub recognizes: bool,
}

/// The end of a batch that was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchEnd {
    /// The provider refused it.
    Refused,
    /// The provider may have accepted it.
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

/// `?1` now, `?2` the latest possible time of writing. A delay keeps its length.
const WRITTEN_AHEAD: &str = "\
-- messages written by a clock that was ahead
UPDATE outbox SET due_at = due_at - created_at + ?1, created_at = ?1
WHERE state = 'pending' AND created_at > ?2";

/// `?1` now, `?2` the latest possible due time of a message that was put back.
const PUT_BACK_AHEAD: &str = "\
-- messages put back by a clock that was ahead
UPDATE outbox SET due_at = ?1 WHERE state = 'pending' AND attempts > 0 AND due_at > ?2";

/// `?1` now, `?2` the latest possible due time of a retry, `?3` the latest possible end of a lease, `?4` channel. The age
/// of a key counts from now.
const BATCHES_AHEAD: &str = "\
-- batches with times of a clock that was ahead
UPDATE outbox_batches SET due_at = ?1, sealed_at = min(sealed_at, ?1)
WHERE state IN ('sealed', 'sending') AND channel = ?4 AND due_at > ?2
    AND (state = 'sealed' OR due_at > ?3)";

/// `?1` now, `?2` the latest possible time of `free_at`, `?3` of `away_until`, `?4` JSON: the providers.
const SENDERS_AHEAD: &str = "\
-- providers with times of a clock that was ahead
UPDATE outbox_senders SET free_at = iif(free_at > ?2, ?1, free_at),
    away_until = iif(away_until > ?3, ?1, away_until)
WHERE provider IN (SELECT value FROM jsonb_each(?4)) AND (free_at > ?2 OR away_until > ?3)";

// Every statement about open batches begins with `state IN ('sealed', 'sending')`: SQLite uses their partial index only if
// a statement repeats its condition.

/// Requeues batches sealed for a provider that is no longer configured, if no request was made. `?2` JSON: the configured
/// providers. Both statements run in this order in one transaction.
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
-- dissolve these batches
UPDATE outbox_batches SET state = 'dissolved', body = '', settled_at = due_at
WHERE state IN ('sealed', 'sending') AND state = 'sealed' AND channel = ?1 AND arrived = 0
    AND provider NOT IN (SELECT value FROM jsonb_each(?2))",
];

const PENDING: &str = "\
-- messages that are due
SELECT id, content, due_at, together FROM outbox
WHERE channel = ?1 AND state = 'pending' AND due_at <= ?2
ORDER BY due_at LIMIT ?3";

const SENDERS: &str = "\
-- health of the providers
SELECT provider, away_until FROM outbox_senders";

/// `?1` JSON: the addresses, each with a group or `null`.
const SUPPRESSED: &str = "\
-- suppressed addresses
SELECT address, NULL AS group_id, group_concat(reason, ', ') AS reason FROM suppressions
WHERE address IN (SELECT value ->> 0 FROM jsonb_each(?1)) GROUP BY address
UNION ALL
SELECT address, group_id, group_concat(reason, ', ') FROM group_suppressions
WHERE (address, group_id) IN (SELECT value ->> 0, value ->> 1 FROM jsonb_each(?1)) GROUP BY address, group_id";

/// Seals a batch only if all of its members are still pending: of two processes that seal the same message, one succeeds.
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
-- seal their members
UPDATE outbox SET state = 'sealed', batch = member.batch
FROM (
    SELECT batch.value ->> 0 AS batch, member.value AS id
    FROM jsonb_each(?1) AS batch, jsonb_each(batch.value -> 2) AS member
    WHERE EXISTS (SELECT 1 FROM outbox_batches WHERE outbox_batches.id = batch.value ->> 0)
) AS member
WHERE state = 'pending' AND outbox.id = member.id";

/// `?1` provider, `?2` whether it has idempotency keys, `?3` now, `?4` the end of the lease, `?5` the earliest time of
/// sealing at which the key is still valid, `?6` channel. A batch whose last lease ended without a result may have arrived.
const TAKE: &str = "\
-- lease a batch
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

/// In the transaction of [`TAKE`]. `?1` provider, `?2` the end of the lease, `?3` the earliest time of the next request,
/// `?4` channel.
const SPACE: &str = "\
-- keep the rate limit
INSERT INTO outbox_senders (provider, free_at)
SELECT ?1, ?3
WHERE EXISTS (
    SELECT 1 FROM outbox_batches
    WHERE state IN ('sealed', 'sending') AND state = 'sending' AND channel = ?4 AND due_at = ?2 AND provider = ?1
)
ON CONFLICT (provider) DO UPDATE SET free_at = excluded.free_at WHERE free_at < excluded.free_at";

/// Batches that are due and that [`TAKE`] skips.
const DOUBTFUL: &str = "\
-- batches that cannot be sent again
SELECT id, members, '' AS body, attempts, arrived OR state = 'sending' AS arrived, 0 AS failures FROM outbox_batches
WHERE state IN ('sealed', 'sending') AND channel = ?5 AND provider = ?1 AND due_at <= ?3 AND (
    (state = 'sending' AND (NOT ?2 OR sealed_at <= ?4))
    OR (state = 'sealed' AND attempts > 0 AND sealed_at <= ?4)
)
LIMIT 10";

const SETTLE_UNSEALED: &str = "\
-- settle messages that cannot be sent
UPDATE outbox SET state = value ->> 1, error = value ->> 2, settled_at = value ->> 3
FROM jsonb_each(?1)
WHERE outbox.id = value ->> 0 AND state = 'pending'
RETURNING id, source, event_id, rule, state, error";

const LEAVE_OUT: &str = "\
-- record skipped recipients
UPDATE outbox SET skipped_recipients = coalesce(skipped_recipients || ', ', '') || (value ->> 1) FROM jsonb_each(?1)
WHERE outbox.id = value ->> 0 AND instr(coalesce(skipped_recipients, ''), value ->> 1) = 0";

const SETTLE_MEMBERS: &str = "\
-- settle messages
UPDATE outbox SET state = value ->> 2, provider_id = value ->> 3, error = value ->> 4, settled_at = value ->> 5
FROM jsonb_each(?1)
WHERE outbox.id = value ->> 0 AND batch = value ->> 1 AND state = 'sealed'
RETURNING id, source, event_id, rule, state, error";

const SETTLE_BATCH: &str = "\
-- settle the batch
UPDATE outbox_batches SET state = ?2, error = ?3, settled_at = ?4,
    body = iif(?2 = 'dissolved', '', body)
WHERE id = ?1 AND state IN ('sealed', 'sending')";

/// `?2` now, `?3` the error, `?4` the maximum number of attempts, `?5` the first delay, which doubles with each attempt up
/// to `?6`.
const PUT_BACK: &str = "\
-- put back, into another batch
UPDATE outbox SET state = 'pending', batch = NULL, attempts = attempts + 1, error = ?3,
    due_at = ?2 + min(?5 << min(attempts, 20), ?6)
WHERE id IN (SELECT value FROM outbox_batches, jsonb_each(outbox_batches.members) WHERE outbox_batches.id = ?1)
    AND batch = ?1 AND state = 'sealed' AND attempts + 1 < ?4";

/// `?2` the error, `?3` the maximum size of the messages' next batches, if not `NULL`.
const DISSOLVE: &str = "\
-- put back: the provider has not received it
UPDATE outbox SET state = 'pending', batch = NULL, error = ?2, together = coalesce(?3, together)
WHERE id IN (SELECT value FROM outbox_batches, jsonb_each(outbox_batches.members) WHERE outbox_batches.id = ?1)
    AND batch = ?1 AND state = 'sealed'";

const SUPPRESS: &str = "\
-- suppress unsubscribed recipients
INSERT INTO suppressions (address, reason, source, event_id, version, created_at)
SELECT recipient, value ->> 2, value ->> 1, outbox.id, value ->> 3, value ->> 4
FROM jsonb_each(?1) JOIN outbox ON outbox.id = value ->> 0
WHERE recipient IS NOT NULL
ON CONFLICT DO NOTHING";

const RECENT: &str = "\
-- messages sent to a recipient
SELECT recipient, count(*) AS count FROM outbox
WHERE recipient IN (SELECT value FROM jsonb_each(?2)) AND due_at > ?3 AND due_at <= ?4 AND channel = ?1
    AND state IN ('sealed', 'sent', 'uncertain')
GROUP BY recipient";

const RELEASE: &str = "\
-- release a batch until later
UPDATE outbox_batches SET state = 'sealed', arrived = max(arrived, ?4), due_at = ?2, error = ?3,
    sealed_at = min(sealed_at, ?2)
WHERE id = ?1 AND state = 'sending'";

const USE: &str = "\
-- count towards quotas
INSERT INTO outbox_usage (provider, period, sent, requests)
VALUES (?1, ?2, ?4, 1), (?1, ?3, ?4, 1)
ON CONFLICT (provider, period) DO UPDATE SET sent = sent + excluded.sent, requests = requests + 1";

const NOTE: &str = "\
-- record the health of the provider
INSERT INTO outbox_senders (provider, free_at, failures, away_until)
VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (provider) DO UPDATE SET free_at = max(free_at, excluded.free_at), away_until = excluded.away_until,
    failures = CASE WHEN excluded.failures = 0 THEN 0 ELSE failures + 1 END";

/// `?1` the channel, `?2` JSON: the configured providers. A batch whose lease has ended waits for its provider too.
const NEXT: &str = "\
-- when work is due
SELECT (SELECT min(due_at) FROM outbox WHERE channel = ?1 AND state = 'pending') AS pending, (
    SELECT min(max(outbox_batches.due_at, coalesce(free_at, 0)))
    FROM outbox_batches LEFT JOIN outbox_senders USING (provider)
    WHERE channel = ?1 AND state IN ('sealed', 'sending') AND provider IN (SELECT value FROM jsonb_each(?2))
) AS sealed";

/// `?1` provider, `?2` the day and `?3` its threshold, `?4` the month and `?5` its threshold.
const USED: &str = "\
-- quotas that are almost used up, without a warning
SELECT period, sent FROM outbox_usage
WHERE provider = ?1 AND warned_at IS NULL
    AND ((period = ?2 AND sent >= ?3) OR (period = ?4 AND sent >= ?5))";

const WARNED: &str = "\
-- record the warning
UPDATE outbox_usage SET warned_at = ?3 WHERE provider = ?1 AND period = ?2";

const WRITE: &str = "\
-- write an email from Hookmill
INSERT INTO outbox (id, source, event_id, generation, rule, channel, content, due_at, created_at)
VALUES (?1, 'hookmill', ?2, 0, ?3, 'email', ?4, ?5, ?5)
ON CONFLICT DO NOTHING";

const FREE: &str = "\
-- end all leases
UPDATE outbox_batches SET due_at = ?1
WHERE state IN ('sealed', 'sending') AND state = 'sending' AND due_at > ?1";

const OPEN: &str = "\
-- pending messages and open batches
SELECT channel, NULL AS provider, count(*) AS count, 0 AS uncertain FROM outbox WHERE state = 'pending' GROUP BY channel
UNION ALL
SELECT channel, provider, count(*), sum(arrived = 1 OR state = 'sending') FROM outbox_batches WHERE state IN ('sealed', 'sending') GROUP BY channel, provider";

/// Corrects times that only a clock that was ahead can have set, see [`Timestamp::horizon`]. `longest_retry`: the maximum
/// delay of a retry.
pub fn put_right(channel: &str, now: Timestamp, longest_retry: Duration) -> Vec<Statement> {
    let (written, again) = (now.horizon(Duration::ZERO), now.horizon(longest_retry));
    vec![
        Statement::new(WRITTEN_AHEAD, params![now, written]),
        Statement::new(PUT_BACK_AHEAD, params![now, again]),
        Statement::new(BATCHES_AHEAD, params![now, again, now.horizon(LEASE), channel]),
    ]
}

/// Like [`put_right()`], for the times of providers.
pub fn put_senders_right(providers: &[&str], now: Timestamp, longest_retry: Duration) -> Statement {
    let (again, away) = (now.horizon(longest_retry), now.horizon(AWAY));
    Statement::new(SENDERS_AHEAD, params![now, again, away, Param::json(providers)])
}

/// Asks for messages that are due for these providers, the oldest first, and for the providers' health.
pub fn pending(channel: &str, providers: &[&str], now: Timestamp, limit: usize) -> Vec<Statement> {
    let adopt = ADOPT.map(|sql| Statement::new(sql, params![channel, Param::json(providers)]));
    let pending = Statement::new(PENDING, params![channel, now, limit]);
    adopt.into_iter().chain([pending, Statement::new(SENDERS, Vec::new())]).collect()
}

/// The number of statements of [`pending()`].
pub const PENDING_STATEMENTS: usize = ADOPT.len() + 2;

/// Reads the answer to [`pending()`].
///
/// # Errors
///
/// If a value has the wrong type.
pub fn read_pending(
    rows: &[Rows],
) -> Result<(Vec<PendingMessage>, Vec<ProviderHealth>), StoreError> {
    Ok((read(answer(rows, ADOPT.len()))?, read(answer(rows, ADOPT.len() + 1))?))
}

/// Asks which of these addresses, in lower case, are suppressed, and why: for all emails, or for those of the group.
pub fn suppressed(addresses: &BTreeSet<(String, Option<String>)>) -> Statement {
    Statement::new(SUPPRESSED, params![Param::json(addresses)])
}

/// Reads the answer to [`suppressed()`]: the reasons, by address and group.
///
/// # Errors
///
/// If a value has the wrong type.
pub fn read_suppressed(
    rows: &[Rows],
) -> Result<BTreeMap<(String, Option<String>), String>, StoreError> {
    #[derive(Deserialize)]
    struct Suppressed {
        address: String,
        group_id: Option<String>,
        reason: String,
    }
    let suppressed = read::<Suppressed>(answer(rows, 0))?;
    Ok(suppressed.into_iter().map(|one| ((one.address, one.group_id), one.reason)).collect())
}

/// Asks for the number of messages that were sent to these addresses, as in the column `recipient`, within this time.
pub fn recent(
    channel: &str,
    recipients: &BTreeSet<String>,
    now: Timestamp,
    within: Duration,
) -> Statement {
    let until = now.horizon(Duration::ZERO);
    Statement::new(RECENT, params![channel, Param::json(recipients), now - within, until])
}

/// Reads the answer to [`recent()`] as the second statement, by address.
///
/// # Errors
///
/// If a value has the wrong type.
pub fn read_recent(rows: &[Rows]) -> Result<BTreeMap<String, u32>, StoreError> {
    #[derive(Deserialize)]
    struct Recent {
        recipient: String,
        count: u32,
    }
    let recent = read::<Recent>(answer(rows, 1))?.into_iter();
    Ok(recent.map(|Recent { recipient, count }| (recipient, count)).collect())
}

/// Seals batches, in one transaction. The first statement returns the ids of the sealed batches.
pub fn seal(batches: &[NewBatch], now: Timestamp) -> Vec<Statement> {
    let rows = batches
        .iter()
        .map(|batch| (&batch.id, batch.provider, &batch.members, &batch.body, now, batch.channel));
    [SEAL, SEALED].iter().flat_map(|sql| Statement::for_each(sql, rows.clone())).collect()
}

/// Leases a due batch for [`LEASE`], if the provider's rate allows a request, and asks for the providers' health. The next
/// request to this provider is allowed `interval` later. `since`: the earliest time of sealing at which a batch may be sent
/// again.
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

/// Reads the answer to [`take()`]: the batch, if one is due, and the providers' health.
///
/// # Errors
///
/// If a value has the wrong type.
pub fn read_taken(rows: &[Rows]) -> Result<(Option<LeasedBatch>, Vec<ProviderHealth>), StoreError> {
    Ok((read(answer(rows, 0))?.pop(), read(answer(rows, 2))?))
}

/// Asks for due batches that cannot be sent again: their sender has ended and the provider has no idempotency keys, or they
/// were sealed before `since`. Read the rows as [`LeasedBatch`]; their bodies are blank.
pub fn doubtful(
    channel: &str,
    sender: SendingProvider<'_>,
    now: Timestamp,
    since: Timestamp,
) -> Statement {
    let SendingProvider { provider, recognizes } = sender;
    Statement::new(DOUBTFUL, params![provider, recognizes, now, since, channel])
}

/// Settles messages that cannot go into a batch: id, state (`refused` or `suppressed`), and reason.
pub fn refuse(members: &[(&str, &str, String)], now: Timestamp) -> Vec<Statement> {
    let rows = members.iter().map(|(id, state, error)| (id, state, error, now));
    Statement::for_each(SETTLE_UNSEALED, rows)
}

/// Records the recipients that sent messages skip: id, and the recipients with reasons.
pub fn leave_out(members: &[(String, String)]) -> Vec<Statement> {
    Statement::for_each(LEAVE_OUT, members)
}

/// Records the provider's answer for each member of an accepted batch. `recipients`: the number of recipients of each.
pub fn delivered(
    provider: &str,
    batch: &LeasedBatch,
    results: &[MessageResult],
    recipients: &[usize],
    now: Timestamp,
) -> Vec<Statement> {
    let members = batch.members.iter().zip(results).map(|(id, result)| {
        let (state, provider_id, error) = match result {
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
    let accepted = results.iter().zip(recipients);
    let accepted = accepted.filter(|(result, _)| {
        matches!(result, MessageResult::Accepted(_) | MessageResult::Partly { .. })
    });
    let sent: usize = accepted.map(|(_, recipients)| recipients).sum();
    let unwanted = batch.members.iter().zip(results).filter_map(|(id, result)| match result {
        MessageResult::Unwanted(error) => Some((id, provider, error, now.micros(), now)),
        MessageResult::Accepted(_) | MessageResult::Partly { .. } | MessageResult::Refused(_) => {
            None
        }
    });
    statements.extend(Statement::for_each(SUPPRESS, unwanted));
    let left_out = batch.members.iter().zip(results).filter_map(|(id, result)| match result {
        MessageResult::Partly { left_out, .. } => Some((id.clone(), left_out.clone())),
        MessageResult::Accepted(_) | MessageResult::Refused(_) | MessageResult::Unwanted(_) => None,
    });
    statements.extend(leave_out(&left_out.collect::<Vec<_>>()));
    statements.push(Statement::new(USE, params![provider, now.day(), now.month(), sent]));
    statements.push(note(provider, now, false, None));
    statements
}

/// Ends a batch that was not accepted, and settles its members.
pub fn end(batch: &LeasedBatch, end: BatchEnd, error: &str, now: Timestamp) -> Vec<Statement> {
    let members =
        batch.members.iter().map(|id| (id, &batch.id, end.as_str(), None::<&str>, error, now));
    let mut statements = Statement::for_each(SETTLE_MEMBERS, members);
    statements.push(settle_batch(batch, end.as_str(), Some(error), now));
    statements
}

/// Puts the members of a batch back for another batch, except members that were in `limit` batches. The delay begins with
/// the first of these times, and doubles up to the other. The caller still has to end the batch.
pub fn put_back(
    batch: &LeasedBatch,
    now: Timestamp,
    (initial, max): (Duration, Duration),
    error: &str,
    limit: u32,
) -> Statement {
    Statement::new(PUT_BACK, params![&batch.id, now, error, limit, initial, max])
}

/// Dissolves a batch that the provider has not received: its members go into other batches now, of at most `together`
/// messages.
pub fn dissolve(
    batch: &LeasedBatch,
    together: Option<usize>,
    error: &str,
    now: Timestamp,
) -> Vec<Statement> {
    let dissolve = Statement::new(DISSOLVE, params![&batch.id, error, together]);
    vec![dissolve, settle_batch(batch, "dissolved", Some(error), now)]
}

/// Reads the answers of statements that settle messages: the number of sent ones, and the others.
///
/// # Errors
///
/// If a value has the wrong type.
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

/// Releases a batch until later: the provider has accepted nothing, or recognizes the batch by its key. `arrived`: it may
/// have reached the provider.
pub fn release(batch: &LeasedBatch, due_at: Timestamp, error: &str, arrived: bool) -> Statement {
    Statement::new(RELEASE, params![&batch.id, due_at, error, arrived])
}

/// Records the health of a provider: the time of the next request, whether it was unavailable, and until when new batches
/// go to another.
pub fn note(
    provider: &str,
    free_at: Timestamp,
    away: bool,
    away_until: Option<Timestamp>,
) -> Statement {
    let away_until = away_until.map_or(0, Timestamp::millis);
    Statement::new(NOTE, params![provider, free_at, away, away_until])
}

/// Asks when work is due: the first pending message, and the first batch of one of these providers.
pub fn next(channel: &str, providers: &[&str]) -> Statement {
    Statement::new(NEXT, params![channel, Param::json(providers)])
}

/// Reads the answer to [`next()`].
///
/// # Errors
///
/// If a value has the wrong type.
pub fn read_next(rows: &[Rows]) -> Result<(Option<Timestamp>, Option<Timestamp>), StoreError> {
    #[derive(Deserialize)]
    struct Next {
        pending: Option<Timestamp>,
        sealed: Option<Timestamp>,
    }
    let next = read::<Next>(answer(rows, 0))?.pop();
    Ok(next.map_or((None, None), |next| (next.pending, next.sealed)))
}

/// Asks which periods have reached these thresholds and have no warning yet.
pub fn used(provider: &str, now: Timestamp, day: u64, month: u64) -> Statement {
    Statement::new(USED, params![provider, now.day(), day, now.month(), month])
}

/// A period and its number of sent messages: the answer to [`used()`].
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct QuotaUsage {
    /// The day or the month.
    pub period: String,
    /// Emails, or the unit of the channel.
    pub sent: u64,
}

/// Records that a warning about a period was sent.
pub fn warned(provider: &str, period: &str, now: Timestamp) -> Statement {
    Statement::new(WARNED, params![provider, period, now])
}

/// Writes an email from Hookmill itself, once for each id. `about` and `rule` take the places of an event's id and its
/// rule.
pub fn write(id: &str, about: &str, rule: &str, content: &str, now: Timestamp) -> Statement {
    Statement::new(WRITE, params![id, about, rule, content, now])
}

/// Ends every lease, for a caller that knows that their holders have ended.
pub fn free(now: Timestamp) -> Statement {
    Statement::new(FREE, params![now])
}

/// Asks for pending messages and open batches, to read as [`OpenCount`].
pub fn open() -> Statement {
    Statement::new(OPEN, Vec::new())
}

/// A count of messages or batches of a channel.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct OpenCount {
    /// The channel's name.
    pub channel: String,
    /// The provider of the batches; none for messages that are in no batch.
    pub provider: Option<String>,
    /// The number of messages, or of batches.
    pub count: u64,
    /// The number whose delivery is uncertain.
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
