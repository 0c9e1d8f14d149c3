//! Sends events that have taken effect through the whole path again, after a rule has changed: under a new generation, so that
//! the ledger takes each of them once more.
//!
//! Without more, only rules are carried out that do no harm a second time: those that keep rows by version. A row that a later
//! event has written stays as it is. Counters, and whatever is sent, have to be named, and then nothing else is carried out.
//!
//! An event can be reprocessed as long as its message is kept: `messages` of `[retention]` says how long.

use hookmill_core::hash::sha256_hex;
use hookmill_core::json::to_json;
use hookmill_core::message::reprocessed;
use hookmill_core::params;
use hookmill_core::store::{Param, Statement, Store, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::replay::{
    FilterError, LeasedReplay, Portion, check_blank, check_pattern, check_said, glob,
};

/// The most events that are looked at in one step, whether or not they match.
pub const LOOK: u32 = 2_000;
/// The longest list of rules, as JSON, in bytes: it travels in every message, and has to fit beside the longest body.
pub const RULES_BYTES: usize = 600;

/// Which events, and what is done with them. What is not said does not matter.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventFilter {
    /// Of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of this type; `*` stands for anything: `customer.*`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// With this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// That took effect first at this time or later, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_from: Option<Timestamp>,
    /// That took effect first before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_before: Option<Timestamp>,
    /// Every event: has to be said, if nothing of the above is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// The rules that are carried out; none: those that do no harm.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
}

impl EventFilter {
    /// Checks that it says which.
    ///
    /// # Errors
    ///
    /// If it says nothing, or everything and something, or names more rules than a message can carry, or has a pattern that is
    /// too long.
    pub fn check(&self) -> Result<(), FilterError> {
        check_pattern(self.kind.as_deref())?;
        check_blank(&[
            ("source", self.source.as_deref()),
            ("type", self.kind.as_deref()),
            ("event_id", self.event_id.as_deref()),
        ])?;
        for rule in &self.rules {
            check_blank(&[("rules", Some(rule))])?;
        }
        if to_json(&self.rules).len() > RULES_BYTES {
            return Err(FilterError::Rules);
        }
        let none = Self { rules: self.rules.clone(), ..Self::default() };
        check_said(Self { all: false, ..self.clone() } != none, self.all)
    }

    /// The parameters of [`WHERE`], from the first.
    pub fn params(&self) -> Vec<Param> {
        params![
            self.source.as_ref(),
            self.kind.as_deref().map(glob),
            self.event_id.as_ref(),
            self.applied_from,
            self.applied_before,
        ]
    }
}

/// What a filter selects, as SQL about `events`; `?1` to `?5` are [`EventFilter::params`]. Each event counts once, as it came.
pub const WHERE: &str =
    "events.generation = 0 AND (?1 IS NULL OR events.source = ?1) AND (?2 IS NULL OR iif(instr(?2, '*'), type GLOB ?2, type = ?2))
    AND (?3 IS NULL OR events.id = ?3) AND (?4 IS NULL OR events.applied_at >= ?4)
    AND (?5 IS NULL OR events.applied_at < ?5)";

/// `?6` id, `?7` the filter, `?8` who, `?9` now.
const PLAN: &str = "\
-- plan a reprocessing
INSERT INTO replays (id, filter, state, total, planned_by, planned_at, generation)
SELECT ?6, ?7, 'planned', count(*), ?8, ?9, (SELECT coalesce(max(generation), 0) + 1 FROM replays)
FROM events JOIN event_messages USING (applied_at, source, id)
WHERE applied_at <= ?9 AND {where}
ON CONFLICT DO NOTHING";

/// Some of the messages behind the last, in the order in which their events took effect; `NULL` where one does not match.
/// `?6` to `?8` the last, `?9` when it was planned, `?10` how many are looked at, `?11` how many may match.
const NEXT: &str = "\
-- events to reprocess
SELECT applied_at, source, id, iif(matches, (
    SELECT message FROM event_messages AS kept
    WHERE kept.applied_at = looked.applied_at AND kept.source = looked.source AND kept.id = looked.id
), NULL) AS message
FROM (
    SELECT next.applied_at, next.source, next.id, events.id IS NOT NULL AS matches,
        sum(events.id IS NOT NULL) OVER (ORDER BY next.applied_at, next.source, next.id) AS place
    FROM (
        SELECT applied_at, source, id FROM event_messages
        WHERE (applied_at, source, id) > (?6, ?7, ?8) AND applied_at <= ?9
        ORDER BY applied_at, source, id LIMIT ?10
    ) AS next
    LEFT JOIN events ON events.source = next.source AND events.id = next.id AND {where}
) AS looked
WHERE place <= ?11
ORDER BY applied_at, source, id";

/// The id of a reprocessing: the same for who plans the same at the same time.
pub fn reprocess_id(filter: &EventFilter, actor: &str, now: Timestamp) -> String {
    let plan = to_json(&("reprocess", filter, actor, now));
    sha256_hex(&[plan.as_bytes()])[..16].to_owned()
}

/// Plans a reprocessing of what has taken effect by now, matches, and is kept.
pub fn plan_reprocess(id: &str, filter: &EventFilter, actor: &str, now: Timestamp) -> Statement {
    let mut params = filter.params();
    params.extend(params![id, Param::json(filter), actor, now]);
    Statement::new(PLAN.replace("{where}", WHERE), params)
}

/// Where a reprocessing has come to: a key in `event_messages`.
type Reached = (i64, String, String);

/// The next messages, at most so many; `None` if there are none behind the last.
pub(crate) async fn portion<S: Store>(
    store: &S,
    replay: &LeasedReplay,
    most: u32,
) -> Result<Option<Portion>, StoreError> {
    let unreadable = |error: serde_json::Error| StoreError::Refused(error.to_string());
    let filter: EventFilter = serde_json::from_str(&replay.filter).map_err(unreadable)?;
    let (at, source, id): Reached = match &replay.reached {
        None => (i64::MIN, String::new(), String::new()),
        Some(reached) => serde_json::from_str(reached).map_err(unreadable)?,
    };
    let mut params = filter.params();
    params.extend(params![at, source, id, replay.planned_at, LOOK, most]);
    let next = Statement::new(NEXT.replace("{where}", WHERE), params);
    let rows = store.query(vec![next]).await?;
    let mut portion = Portion::default();
    let mut last: Option<Reached> = None;
    for Kept { applied_at, source, id, message } in read(answer(&rows, 0))? {
        last = Some((applied_at, source, id));
        // It has taken effect, so it is a message.
        let message =
            message.and_then(|text| reprocessed(&text, replay.generation, &filter.rules).ok());
        portion.messages.extend(message);
    }
    portion.reached = last.as_ref().map(to_json);
    Ok(last.map(|_| portion))
}

/// What [`NEXT`] is answered with.
#[derive(Deserialize)]
struct Kept {
    applied_at: i64,
    source: String,
    id: String,
    message: Option<String>,
}
