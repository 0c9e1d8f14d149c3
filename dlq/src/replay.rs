//! Sends dead letters through the whole path again, many at a time and within a rate. A crash between any two steps leaves
//! a state that the next run can resume.
//!
//! ```text
//! replay  planned -> running <-> paused -> cancelled | done
//! letter  dead -> replaying -> replayed -> applied
//!           ^---------'---------'  it was not sent after all; it has failed again
//! ```
//!
//! A letter becomes `applied` from any of these states, in the transaction of its event, also if the provider sent the
//! event again.
//!
//! A reprocessing is a replay of events that have taken effect ([`reprocess`]): it runs, pauses and ends in the same way.
//!
//! A letter belongs to one replay at a time, so that two replays over the same letters do not send them twice. If a crash
//! causes a letter to be sent twice, the ledger rejects the second message.

use std::time::Duration;

use hookmill_core::hash::sha256_hex;
use hookmill_core::json::to_json;
use hookmill_core::limits::PATTERN_BYTES;
use hookmill_core::params;
use hookmill_core::queue::Queue;
use hookmill_core::store::{Param, Rows, Statement, Store, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use hookmill_core::words::{JobKind, LetterReason};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::reprocess::{self, RULES_BYTES};

/// The maximum number of letters in one step.
pub const STEP: u32 = 100;
/// The maximum number of letters in a second.
pub const MOST_PER_SECOND: u32 = 10_000;
/// The time for which a process may run a step. After that, the process counts as ended.
pub(crate) const LEASE: Duration = Duration::from_secs(60);
/// The delay after the queue did not accept the letters.
const PAUSE: Duration = Duration::from_secs(5);

/// Selects letters. A filter that is not set matches every letter.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterFilter {
    /// The source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The event type; `*` matches any text: `customer.*`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<LetterReason>,
    /// The kind of error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The provider's event id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// The id of the letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The letter failed last at this time or later, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_from: Option<Timestamp>,
    /// The letter failed last before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_before: Option<Timestamp>,
    /// Selects every letter; required if no other filter is set.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// A filter is not valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FilterError {
    /// No filter is set.
    #[error("no filter given; pass `--all` (`\"all\": true`) to select everything")]
    Empty,
    /// A filter is blank, most likely from a variable that is not set.
    #[error("the filter `{0}` is blank; set it or remove it")]
    Blank(&'static str),
    /// `all` is set with another filter.
    #[error("`all` excludes other filters; use one or the other")]
    Both,
    /// The pattern is too long for D1.
    #[error(
        "`type` has a `*` and more than {PATTERN_BYTES} bytes; shorten it, or use the full type without `*`"
    )]
    Pattern,
    /// The names of the rules are too long for a message.
    #[error(
        "the names of the rules have more than {RULES_BYTES} bytes in total; reprocess fewer rules at a time"
    )]
    Rules,
}

/// Checks a pattern of types.
///
/// # Errors
///
/// If it is too long.
pub fn check_pattern(kind: Option<&str>) -> Result<(), FilterError> {
    match kind {
        Some(kind) if kind.contains('*') && glob(kind).len() > PATTERN_BYTES => {
            Err(FilterError::Pattern)
        }
        _ => Ok(()),
    }
}

/// Checks that no filter is blank: a blank filter would select everything by mistake.
///
/// # Errors
///
/// The first blank filter.
pub fn check_blank(filters: &[(&'static str, Option<&str>)]) -> Result<(), FilterError> {
    match filters.iter().find(|(_, text)| text.is_some_and(|text| text.trim().is_empty())) {
        Some((name, _)) => Err(FilterError::Blank(name)),
        None => Ok(()),
    }
}

/// The pattern for SQL's `GLOB`; only `*` is special.
pub fn glob(kind: &str) -> String {
    if kind.contains('*') { kind.replace('[', "[[]").replace('?', "[?]") } else { kind.to_owned() }
}

/// Checks that either some filter or `all` is set.
pub(crate) const fn check_selection(is_set: bool, all: bool) -> Result<(), FilterError> {
    match (is_set, all) {
        (false, false) => Err(FilterError::Empty),
        (true, true) => Err(FilterError::Both),
        _ => Ok(()),
    }
}

impl LetterFilter {
    /// Checks the filter.
    ///
    /// # Errors
    ///
    /// If no filter is set, or `all` and another one, or a filter is blank, or the pattern is too long.
    pub fn check(&self) -> Result<(), FilterError> {
        check_pattern(self.kind.as_deref())?;
        check_blank(&[
            ("source", self.source.as_deref()),
            ("type", self.kind.as_deref()),
            ("reason", self.reason.map(LetterReason::as_str)),
            ("fingerprint", self.fingerprint.as_deref()),
            ("event_id", self.event_id.as_deref()),
        ])?;
        check_selection(Self { all: false, ..self.clone() } != Self::default(), self.all)
    }

    /// The parameters of [`WHERE`], in order.
    pub fn params(&self) -> Vec<Param> {
        params![
            self.source.as_ref(),
            self.kind.as_deref().map(glob),
            self.reason.map(LetterReason::as_str),
            self.fingerprint.as_ref(),
            self.event_id.as_ref(),
            self.id.as_ref(),
            self.failed_from,
            self.failed_before,
        ]
    }
}

/// The condition of a filter as SQL about `dead_letters`; `?1` to `?8` are [`LetterFilter::params`].
pub const WHERE: &str = "(?1 IS NULL OR source = ?1) AND (?2 IS NULL OR iif(instr(?2, '*'), type GLOB ?2, type = ?2)) \
    AND (?3 IS NULL OR reason = ?3) AND (?4 IS NULL OR fingerprint = ?4) AND (?5 IS NULL OR event_id = ?5) \
    AND (?6 IS NULL OR id = ?6) AND (?7 IS NULL OR last_failed_at >= ?7) AND (?8 IS NULL OR last_failed_at < ?8)";

/// `?9` id, `?10` the filter, `?11` the actor, `?12` now.
const PLAN: &str = "\
-- plan a replay
INSERT INTO replays (id, filter, state, total, planned_by, planned_at)
SELECT ?9, ?10, 'planned', count(*), ?11, ?12
FROM dead_letters WHERE state = 'dead' AND last_failed_at <= ?12 AND {where}
ON CONFLICT DO NOTHING";

const RUN: &str = "\
-- run a replay
UPDATE replays SET state = 'running', rate = ?2, reason = ?3, run_by = ?4, started_at = ?5,
    due_at = ?5
WHERE id = ?1 AND state = 'planned'
RETURNING id";

/// `?2` the new state, `?3` JSON: the allowed states, `?4` now.
const TURN: &str = "\
-- pause, resume or cancel a replay
UPDATE replays SET state = ?2, ended_at = iif(?2 = 'cancelled', ?4, NULL)
WHERE id = ?1 AND state IN (SELECT value FROM jsonb_each(?3))
RETURNING id";

/// `?1` now, `?2` the latest possible end of a lease, `?3` the latest possible time of a plan. With a later one, a letter that
/// fails again would count as older than the plan, and two replays would send it in turn.
const AHEAD: &str = "\
-- replays with times of a clock that was ahead
UPDATE replays SET due_at = iif(due_at > ?2, ?1, due_at), planned_at = iif(planned_at > ?3, ?1, planned_at)
WHERE state = 'running' AND kind NOT IN ('import', 'reconcile') AND (due_at > ?2 OR planned_at > ?3)";

/// A replay has only letters that failed before it was planned. `?1` now, `?2` the latest possible time of a failure.
const FAILED_AHEAD: &str = "\
-- letters with times of a clock that was ahead
UPDATE dead_letters SET last_failed_at = ?1, first_failed_at = min(first_failed_at, ?1)
WHERE state = 'dead' AND last_failed_at > ?2";

const TAKE: &str = "\
-- lease a replay
UPDATE replays SET due_at = ?2
WHERE id = (
    SELECT id FROM replays WHERE state = 'running' AND kind NOT IN ('import', 'reconcile') AND due_at <= ?1 ORDER BY due_at LIMIT 1
)
RETURNING id, kind, filter, rate, planned_at, generation, reached";

/// `?9` the replay, `?10` when it was planned, `?11` the maximum number of claimed letters, `?12` now. Letters that an
/// ended process left are claimed already. A replay sends a letter once, also if it fails again in the millisecond of the
/// plan.
const CLAIM: &str = "\
-- claim letters
UPDATE dead_letters SET state = 'replaying', replay = ?9, state_at = ?12
WHERE id IN (
    SELECT id FROM dead_letters
    WHERE state = 'dead' AND last_failed_at <= ?10 AND replay IS NOT ?9 AND {where}
    ORDER BY last_failed_at
    LIMIT max(0, ?11 - (SELECT count(*) FROM dead_letters WHERE state = 'replaying' AND replay = ?9))
)";

const CLAIMED: &str = "\
-- claimed letters
SELECT id, message FROM dead_letters WHERE state = 'replaying' AND replay = ?1 LIMIT ?2";

const SENT: &str = "\
-- letters that were sent
UPDATE dead_letters SET state = 'replayed', replays = replays + 1, state_at = ?3
WHERE state = 'replaying' AND replay = ?1 AND id IN (SELECT value FROM jsonb_each(?2))";

/// `?2` the number of sent letters, `?3` when the replay continues, `?4` the error, `?5` the new position, if it changed.
pub(crate) const STEPPED: &str = "\
-- record a step
UPDATE replays SET sent = sent + ?2, due_at = ?3, error = ?4,
    reached = coalesce(?5, reached)
WHERE id = ?1";

pub(crate) const DONE: &str = "\
-- end a replay
UPDATE replays SET state = 'done', ended_at = ?2, error = NULL WHERE id = ?1 AND state = 'running'";

/// `?1` now, `?2` the latest possible end of a lease. Returns the letters of a replay that was canceled during a step, or
/// after the process of that step ended; or that one process ended while another, whose lease had run out, claimed a letter.
const GIVE_BACK: &str = "\
-- letters that were not sent
UPDATE dead_letters SET state = 'dead'
WHERE state = 'replaying' AND EXISTS (
    SELECT 1 FROM replays WHERE replays.id = dead_letters.replay AND replays.state IN ('cancelled', 'done')
        AND (due_at <= ?1 OR due_at > ?2)
)";

const NEXT: &str = "\
-- when the next replay is due
SELECT min(due_at) AS due_at FROM replays WHERE state = 'running' AND kind NOT IN ('import', 'reconcile')";

const DISCARD: &str = "\
-- discard a letter
UPDATE dead_letters SET state = 'discarded', state_at = ?2 WHERE id = ?1 AND state = 'dead' RETURNING id";

/// The id of a replay: the same if the same actor plans the same at the same time.
pub fn replay_id(filter: &LetterFilter, actor: &str, now: Timestamp) -> String {
    let plan = to_json(&(filter, actor, now));
    sha256_hex(&[plan.as_bytes()])[..16].to_owned()
}

/// Plans a replay of the letters that match and are dead now.
pub fn plan_replay(id: &str, filter: &LetterFilter, actor: &str, now: Timestamp) -> Statement {
    let mut params = filter.params();
    params.extend(params![id, Param::json(filter), actor, now]);
    Statement::new(PLAN.replace("{where}", WHERE), params)
}

/// Runs a planned replay. Returns its id if it was planned.
pub fn run_replay(id: &str, rate: u32, reason: &str, actor: &str, now: Timestamp) -> Statement {
    Statement::new(RUN, params![id, rate.clamp(1, MOST_PER_SECOND), reason, actor, now])
}

/// A change of a replay's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Stops sending until resumed.
    Pause,
    /// Continues sending.
    Resume,
    /// Stops sending for good.
    Cancel,
}

impl Turn {
    /// The new state, and the states in which the change is allowed.
    const fn states(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Pause => ("paused", &["running"]),
            Self::Resume => ("running", &["paused"]),
            Self::Cancel => ("cancelled", &["planned", "running", "paused"]),
        }
    }
}

/// Pauses, resumes or cancels a replay. Returns its id, if its state allowed the change.
pub fn turn_replay(id: &str, turn: Turn, now: Timestamp) -> Statement {
    let (to, from) = turn.states();
    Statement::new(TURN, params![id, to, Param::json(from), now])
}

/// Discards a letter: it stays in the table, but no longer counts as dead. Returns its id, if it was dead.
pub fn discard(id: &str, now: Timestamp) -> Statement {
    Statement::new(DISCARD, params![id, now])
}

/// The result of a step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stepped {
    /// The replay and the number of messages that it sent; none if no replay was due.
    pub sent: Option<(String, usize)>,
    /// The error that prevented sending.
    pub error: Option<String>,
    /// When more work is due; none if no replay is running.
    pub next: Option<Timestamp>,
}

/// Runs one step of one due replay: claims letters, sends them, and records that.
///
/// # Errors
///
/// If the store fails. The next step resumes when the lease has ended.
pub async fn step<S: Store, Q: Queue>(
    store: &S,
    queue: &Q,
    now: impl Fn() -> Timestamp,
) -> Result<Stepped, StoreError> {
    let start = now();
    let (leased, latest) = (start.horizon(LEASE), start.horizon(Duration::ZERO));
    let take = vec![
        Statement::new(FAILED_AHEAD, params![start, latest]),
        Statement::new(AHEAD, params![start, leased, latest]),
        Statement::new(GIVE_BACK, params![start, leased]),
        Statement::new(TAKE, params![start, start + LEASE]),
        Statement::new(NEXT, Vec::new()),
    ];
    let rows = store.execute(take).await?;
    let Some(replay) = read::<LeasedReplay>(answer(&rows, 3))?.pop() else {
        return Ok(Stepped { next: next(rows.last())?, ..Stepped::default() });
    };
    let rate = replay.rate.max(1);
    let limit = rate.min(STEP);
    let portion = if replay.kind == JobKind::Reprocess {
        reprocess::portion(store, &replay, limit).await?
    } else {
        letters(store, &replay, limit, start).await?
    };
    let id = replay.id;
    let mut stepped = Stepped::default();
    let mut statements = match portion {
        None => vec![Statement::new(DONE, params![id, now()])],
        Some(Portion { messages, letters, reached }) => {
            let count = messages.len();
            match if messages.is_empty() { Ok(()) } else { queue.send(messages).await } {
                Ok(()) => {
                    let took = Duration::from_secs(1) * u32::try_from(count).unwrap_or(STEP) / rate;
                    stepped.sent = (count > 0).then(|| (id.clone(), count));
                    let sent = Statement::new(SENT, params![&id, Param::json(&letters), now()]);
                    let sent = (!letters.is_empty()).then_some(sent);
                    let step = params![id, count, start + took, None::<&str>, reached];
                    sent.into_iter().chain([Statement::new(STEPPED, step)]).collect()
                }
                Err(error) => {
                    let error = error.to_string();
                    let step = params![id, 0_u32, now() + PAUSE, &error, None::<&str>];
                    stepped.error = Some(error);
                    vec![Statement::new(STEPPED, step)]
                }
            }
        }
    };
    statements.push(Statement::new(NEXT, Vec::new()));
    let rows = store.execute(statements).await?;
    stepped.next = next(rows.last())?;
    Ok(stepped)
}

/// The messages of a step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Portion {
    pub(crate) messages: Vec<String>,
    /// The ids of the letters; empty for a reprocessing.
    letters: Vec<String>,
    /// The new position of a reprocessing.
    pub(crate) reached: Option<String>,
}

/// Claims letters; `None` if none is left.
async fn letters<S: Store>(
    store: &S,
    replay: &LeasedReplay,
    limit: u32,
    now: Timestamp,
) -> Result<Option<Portion>, StoreError> {
    let filter: LetterFilter = serde_json::from_str(&replay.filter)
        .map_err(|error| StoreError::Refused(error.to_string()))?;
    let mut params = filter.params();
    params.extend(params![&replay.id, replay.planned_at, limit, now]);
    let claim = vec![
        Statement::new(CLAIM.replace("{where}", WHERE), params),
        Statement::new(CLAIMED, params![&replay.id, limit]),
    ];
    let found: Vec<ClaimedLetter> = read(answer(&store.execute(claim).await?, 1))?;
    let (letters, messages): (Vec<_>, Vec<_>) =
        found.into_iter().map(|letter| (letter.id, letter.message)).unzip();
    Ok((!letters.is_empty()).then_some(Portion { messages, letters, reached: None }))
}

/// A leased replay: the answer to [`TAKE`].
#[derive(Deserialize)]
pub(crate) struct LeasedReplay {
    id: String,
    kind: JobKind,
    pub(crate) filter: String,
    rate: u32,
    pub(crate) planned_at: Timestamp,
    pub(crate) generation: u32,
    pub(crate) reached: Option<String>,
}

/// A claimed letter: the answer to [`CLAIMED`].
#[derive(Deserialize)]
struct ClaimedLetter {
    id: String,
    message: String,
}

/// When the next job is due: the answer to a question for it.
///
/// # Errors
///
/// If the row is another one.
pub fn next(rows: Option<&Rows>) -> Result<Option<Timestamp>, StoreError> {
    #[derive(Deserialize)]
    struct Next {
        due_at: Option<Timestamp>,
    }
    Ok(read::<Next>(rows.map_or(&[], Vec::as_slice))?.pop().and_then(|next| next.due_at))
}
