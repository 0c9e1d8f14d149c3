//! Sends dead letters through the whole path again: many at a time, no faster than is said, and so that whoever dies between
//! two steps leaves a state from which another goes on.
//!
//! ```text
//! replay  planned -> running <-> paused -> cancelled | done
//! letter  dead -> replaying -> replayed -> applied
//!           ^---------'---------'  it was not sent after all; it has failed again
//! ```
//!
//! A letter is `applied` from any of these states, in the transaction of its event, also if the provider sent the event again.
//!
//! A reprocessing is a replay of events that have taken effect ([`reprocess`]): it runs, pauses and ends in the same way.
//!
//! A letter belongs to one replay at a time, so that two replays over the same letters do not send them twice. One that is
//! sent twice all the same, since somebody died before it was written down, finds its event in the ledger.

use std::time::Duration;

use hookmill_core::hash::sha256_hex;
use hookmill_core::json::to_json;
use hookmill_core::limits::PATTERN_BYTES;
use hookmill_core::params;
use hookmill_core::queue::Queue;
use hookmill_core::store::{Param, Rows, Statement, Store, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use hookmill_core::words::LetterReason;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::reprocess::{self, RULES_BYTES};

/// The most letters in one step.
pub const STEP: u32 = 100;
/// The most letters in a second.
pub const MOST_PER_SECOND: u32 = 10_000;
/// How long a step may take before whoever does it is taken to be gone.
const LEASE: Duration = Duration::from_secs(60);
/// How long to wait after the queue did not take the letters.
const PAUSE: Duration = Duration::from_secs(5);

/// Which letters. What is not said does not matter.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterFilter {
    /// Of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of events of this type; `*` stands for anything: `customer.*`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Given up for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<LetterReason>,
    /// With this kind of error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Of this event, by the provider's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// This letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// That failed last at this time or later, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_from: Option<Timestamp>,
    /// That failed last before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_before: Option<Timestamp>,
    /// Every letter: has to be said, if nothing else is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// A filter does not say which letters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FilterError {
    /// It says nothing.
    #[error("no filter given; pass `--all` (`\"all\": true`) to select everything")]
    Empty,
    /// Something is said, and is blank: a variable that is not set, most likely.
    #[error("the filter `{0}` is blank; set it or remove it")]
    Blank(&'static str),
    /// It says both.
    #[error("`all` excludes other filters; use one or the other")]
    Both,
    /// It has a pattern that D1 does not take.
    #[error(
        "`type` has a `*` and more than {PATTERN_BYTES} bytes; shorten it, or use the full type without `*`"
    )]
    Pattern,
    /// It names more rules than a message can carry.
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

/// Nothing that is said is blank: it would select everything, and nobody has said so.
///
/// # Errors
///
/// The first that is.
pub fn check_blank(said: &[(&'static str, Option<&str>)]) -> Result<(), FilterError> {
    match said.iter().find(|(_, text)| text.is_some_and(|text| text.trim().is_empty())) {
        Some((name, _)) => Err(FilterError::Blank(name)),
        None => Ok(()),
    }
}

/// A pattern as `GLOB` reads it: nothing but `*` is special to us.
pub fn glob(kind: &str) -> String {
    if kind.contains('*') { kind.replace('[', "[[]").replace('?', "[?]") } else { kind.to_owned() }
}

/// Either something is said, or everything.
pub(crate) const fn check_said(something: bool, all: bool) -> Result<(), FilterError> {
    match (something, all) {
        (false, false) => Err(FilterError::Empty),
        (true, true) => Err(FilterError::Both),
        _ => Ok(()),
    }
}

impl LetterFilter {
    /// Checks that it says which.
    ///
    /// # Errors
    ///
    /// If it says nothing, or everything and something, or has a pattern that is too long.
    pub fn check(&self) -> Result<(), FilterError> {
        check_pattern(self.kind.as_deref())?;
        check_blank(&[
            ("source", self.source.as_deref()),
            ("type", self.kind.as_deref()),
            ("reason", self.reason.map(LetterReason::as_str)),
            ("fingerprint", self.fingerprint.as_deref()),
            ("event_id", self.event_id.as_deref()),
        ])?;
        check_said(Self { all: false, ..self.clone() } != Self::default(), self.all)
    }

    /// The parameters of [`WHERE`], from the first.
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

/// What a filter selects, as SQL about `dead_letters`; `?1` to `?8` are [`LetterFilter::params`].
pub const WHERE: &str = "(?1 IS NULL OR source = ?1) AND (?2 IS NULL OR iif(instr(?2, '*'), type GLOB ?2, type = ?2)) \
    AND (?3 IS NULL OR reason = ?3) AND (?4 IS NULL OR fingerprint = ?4) AND (?5 IS NULL OR event_id = ?5) \
    AND (?6 IS NULL OR id = ?6) AND (?7 IS NULL OR last_failed_at >= ?7) AND (?8 IS NULL OR last_failed_at < ?8)";

/// `?9` id, `?10` the filter, `?11` who, `?12` now.
const PLAN: &str = "\
-- plan a replay
INSERT INTO replays (id, filter, state, total, planned_by, planned_at)
SELECT ?9, ?10, 'planned', count(*), ?11, ?12
FROM dead_letters WHERE state = 'dead' AND last_failed_at <= ?12 AND {where}
ON CONFLICT DO NOTHING";

const RUN: &str = "\
-- let a replay run
UPDATE replays SET state = 'running', rate = ?2, reason = ?3, run_by = ?4, started_at = ?5,
    due_at = ?5
WHERE id = ?1 AND state = 'planned'
RETURNING id";

/// `?2` the state it is to be in, `?3` JSON: those it may be in, `?4` now.
const TURN: &str = "\
-- pause, resume or cancel a replay
UPDATE replays SET state = ?2, ended_at = iif(?2 = 'cancelled', ?4, NULL)
WHERE id = ?1 AND state IN (SELECT value FROM jsonb_each(?3))
RETURNING id";

/// `?1` now, `?2` the latest end of a lease.
const AHEAD: &str = "\
-- replays that a clock that was ahead has set
UPDATE replays SET due_at = ?1 WHERE state = 'running' AND due_at > ?2";

/// A replay only has letters that failed before it was planned. `?1` now, `?2` the latest time at which one can have failed.
const FAILED_AHEAD: &str = "\
-- letters that failed by a clock that was ahead
UPDATE dead_letters SET last_failed_at = ?1, first_failed_at = min(first_failed_at, ?1)
WHERE state = 'dead' AND last_failed_at > ?2";

const TAKE: &str = "\
-- take a replay
UPDATE replays SET due_at = ?2
WHERE id = (SELECT id FROM replays WHERE state = 'running' AND due_at <= ?1 ORDER BY due_at LIMIT 1)
RETURNING id, filter, rate, planned_at, generation, reached";

/// `?9` the replay, `?10` when it was planned, `?11` the most that is in hand at a time, `?12` now. What somebody left who is
/// gone is in hand already.
const CLAIM: &str = "\
-- claim letters
UPDATE dead_letters SET state = 'replaying', replay = ?9, state_at = ?12
WHERE id IN (
    SELECT id FROM dead_letters
    WHERE state = 'dead' AND last_failed_at <= ?10 AND {where}
    ORDER BY last_failed_at
    LIMIT max(0, ?11 - (SELECT count(*) FROM dead_letters WHERE state = 'replaying' AND replay = ?9))
)";

const CLAIMED: &str = "\
-- letters in hand
SELECT id, message FROM dead_letters WHERE state = 'replaying' AND replay = ?1 LIMIT ?2";

const SENT: &str = "\
-- letters that are back on the queue
UPDATE dead_letters SET state = 'replayed', replays = replays + 1, state_at = ?3
WHERE state = 'replaying' AND replay = ?1 AND id IN (SELECT value FROM jsonb_each(?2))";

/// `?2` how many were sent, `?3` when it goes on, `?4` what went wrong, `?5` how far it has come, if that has changed.
const STEPPED: &str = "\
-- what came of a step
UPDATE replays SET sent = sent + ?2, due_at = ?3, error = ?4,
    reached = coalesce(?5, reached)
WHERE id = ?1";

const DONE: &str = "\
-- a replay is at its end
UPDATE replays SET state = 'done', ended_at = ?2, error = NULL WHERE id = ?1 AND state = 'running'";

/// `?1` now, `?2` the latest end of a lease. Letters of a replay that was canceled during a step, or after the process of that step had died.
const GIVE_BACK: &str = "\
-- letters that were not sent after all
UPDATE dead_letters SET state = 'dead'
WHERE state = 'replaying' AND replay IN (
    SELECT id FROM replays WHERE state = 'cancelled' AND (due_at <= ?1 OR due_at > ?2)
)";

const NEXT: &str = "\
-- when a replay goes on
SELECT min(due_at) AS due_at FROM replays WHERE state = 'running'";

const DISCARD: &str = "\
-- discard a letter
UPDATE dead_letters SET state = 'discarded', state_at = ?2 WHERE id = ?1 AND state = 'dead' RETURNING id";

/// The id of a replay: the same for who plans the same at the same time.
pub fn replay_id(filter: &LetterFilter, actor: &str, now: Timestamp) -> String {
    let plan = to_json(&(filter, actor, now));
    sha256_hex(&[plan.as_bytes()])[..16].to_owned()
}

/// Plans a replay of what is dead now and matches.
pub fn plan_replay(id: &str, filter: &LetterFilter, actor: &str, now: Timestamp) -> Statement {
    let mut params = filter.params();
    params.extend(params![id, Param::json(filter), actor, now]);
    Statement::new(PLAN.replace("{where}", WHERE), params)
}

/// Lets a planned replay run. Answers with its id, if it was planned and had not run.
pub fn run_replay(id: &str, rate: u32, reason: &str, actor: &str, now: Timestamp) -> Statement {
    Statement::new(RUN, params![id, rate.clamp(1, MOST_PER_SECOND), reason, actor, now])
}

/// What a replay can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// To send no more, for now.
    Pause,
    /// To go on.
    Resume,
    /// To send no more.
    Cancel,
}

impl Turn {
    /// What it is in after that, and in what it may be before.
    const fn states(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Pause => ("paused", &["running"]),
            Self::Resume => ("running", &["paused"]),
            Self::Cancel => ("cancelled", &["planned", "running", "paused"]),
        }
    }
}

/// Pauses, resumes or cancels a replay. Answers with its id, if it was in a state for that.
pub fn turn_replay(id: &str, turn: Turn, now: Timestamp) -> Statement {
    let (to, from) = turn.states();
    Statement::new(TURN, params![id, to, Param::json(from), now])
}

/// Discards a letter: it stays, and is not counted as dead any more. Answers with its id, if it was dead.
pub fn discard(id: &str, now: Timestamp) -> Statement {
    Statement::new(DISCARD, params![id, now])
}

/// What a step came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stepped {
    /// The replay, and how many of its letters were sent; none if nothing was due.
    pub sent: Option<(String, usize)>,
    /// What kept it from sending.
    pub error: Option<String>,
    /// When there is something to do; none if no replay is running.
    pub next: Option<Timestamp>,
}

/// Does one step of one replay that is due: claims some letters, sends them, writes that down.
///
/// # Errors
///
/// If the store does not do its part. Whoever is next goes on when the lease has ended.
pub async fn step<S: Store, Q: Queue>(
    store: &S,
    queue: &Q,
    now: impl Fn() -> Timestamp,
) -> Result<Stepped, StoreError> {
    let start = now();
    let leased = start.horizon(LEASE);
    let take = vec![
        Statement::new(FAILED_AHEAD, params![start, start.horizon(Duration::ZERO)]),
        Statement::new(AHEAD, params![start, leased]),
        Statement::new(GIVE_BACK, params![start, leased]),
        Statement::new(TAKE, params![start, start + LEASE]),
        Statement::new(NEXT, Vec::new()),
    ];
    let rows = store.execute(take).await?;
    let Some(replay) = read::<LeasedReplay>(answer(&rows, 3))?.pop() else {
        return Ok(Stepped { next: next(rows.last())?, ..Stepped::default() });
    };
    let rate = replay.rate.max(1);
    let most = rate.min(STEP);
    let portion = match replay.generation {
        0 => letters(store, &replay, most, start).await?,
        _ => reprocess::portion(store, &replay, most).await?,
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

/// What a step sends.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Portion {
    pub(crate) messages: Vec<String>,
    /// The letters that these are, if they are letters.
    letters: Vec<String>,
    /// How far it has come with them, of a reprocessing.
    pub(crate) reached: Option<String>,
}

/// Claims some letters; `None` if there are none.
async fn letters<S: Store>(
    store: &S,
    replay: &LeasedReplay,
    most: u32,
    now: Timestamp,
) -> Result<Option<Portion>, StoreError> {
    let filter: LetterFilter = serde_json::from_str(&replay.filter)
        .map_err(|error| StoreError::Refused(error.to_string()))?;
    let mut params = filter.params();
    params.extend(params![&replay.id, replay.planned_at, most, now]);
    let claim = vec![
        Statement::new(CLAIM.replace("{where}", WHERE), params),
        Statement::new(CLAIMED, params![&replay.id, most]),
    ];
    let found: Vec<Letter> = read(answer(&store.execute(claim).await?, 1))?;
    let (letters, messages): (Vec<_>, Vec<_>) =
        found.into_iter().map(|letter| (letter.id, letter.message)).unzip();
    Ok((!letters.is_empty()).then_some(Portion { messages, letters, reached: None }))
}

/// A replay in hand: what [`TAKE`] is answered with.
#[derive(Deserialize)]
pub(crate) struct LeasedReplay {
    id: String,
    pub(crate) filter: String,
    rate: u32,
    pub(crate) planned_at: Timestamp,
    pub(crate) generation: u32,
    pub(crate) reached: Option<String>,
}

/// What [`CLAIMED`] is answered with.
#[derive(Deserialize)]
struct Letter {
    id: String,
    message: String,
}

fn next(rows: Option<&Rows>) -> Result<Option<Timestamp>, StoreError> {
    #[derive(Deserialize)]
    struct Next {
        due_at: Option<Timestamp>,
    }
    Ok(read::<Next>(rows.map_or(&[], Vec::as_slice))?.pop().and_then(|next| next.due_at))
}
