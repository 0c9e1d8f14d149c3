//! Sends events that have taken effect through the whole path again, after a rule has changed: under a new generation, so
//! that the ledger accepts each of them once more.
//!
//! By default, only repeatable rules run: those that write rows by version. A row that a later event has written does not
//! change. Counters and sending rules run only if the operator names them, and then no other rule runs.
//!
//! An event can be reprocessed while its message is kept: `messages` in `[retention]` sets the period.

use hookmill_core::hash::sha256_hex;
use hookmill_core::json::to_json;
use hookmill_core::message::reprocessed;
use hookmill_core::params;
use hookmill_core::store::{Param, Statement, Store, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::replay::{
    FilterError, LeasedReplay, Portion, check_blank, check_pattern, check_selection, glob,
};

/// The maximum number of events that one step reads, whether or not they match.
pub const LOOK: u32 = 2_000;
/// The maximum size of the list of rules as JSON, in bytes: it is part of every message, and has to fit beside the longest
/// body.
pub const RULES_BYTES: usize = 600;

/// Selects events and the rules to run. A filter that is not set matches every event.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventFilter {
    /// The source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The type; `*` matches any text: `customer.*`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The provider's event id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// The event took effect at this time or later, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_from: Option<Timestamp>,
    /// The event took effect before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_before: Option<Timestamp>,
    /// Selects every event; required if no other filter is set.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// The rules to run; if empty, the repeatable rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
}

impl EventFilter {
    /// Checks the filter.
    ///
    /// # Errors
    ///
    /// If no filter is set, or `all` and another one, or a filter is blank, or the names of the rules or the pattern are
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
        check_selection(Self { all: false, ..self.clone() } != none, self.all)
    }

    /// The parameters of [`WHERE`], in order.
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

/// The condition of a filter as SQL about `events`; `?1` to `?5` are [`EventFilter::params`]. Each event counts once, in
/// its first generation.
pub const WHERE: &str =
    "events.generation = 0 AND (?1 IS NULL OR events.source = ?1) AND (?2 IS NULL OR iif(instr(?2, '*'), type GLOB ?2, type = ?2))
    AND (?3 IS NULL OR events.id = ?3) AND (?4 IS NULL OR events.applied_at >= ?4)
    AND (?5 IS NULL OR events.applied_at < ?5)";

/// `?6` id, `?7` the filter, `?8` the actor, `?9` now.
const PLAN: &str = "\
-- plan a reprocessing
INSERT INTO replays (id, kind, filter, state, total, planned_by, planned_at, generation)
SELECT ?6, 'reprocess', ?7, 'planned', count(*), ?8, ?9, (SELECT coalesce(max(generation), 0) + 1 FROM replays WHERE generation > 0)
FROM events JOIN event_messages USING (applied_at, source, id)
WHERE applied_at <= ?9 AND {where}
ON CONFLICT DO NOTHING";

/// The next messages, in the order in which their events took effect; `NULL` for events that do not match. `?6` to `?8` the
/// last position, `?9` when the reprocessing was planned, `?10` the maximum number of events to read, `?11` the maximum
/// number of matches.
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

/// The id of a reprocessing: the same if the same actor plans the same at the same time.
pub fn reprocess_id(filter: &EventFilter, actor: &str, now: Timestamp) -> String {
    let plan = to_json(&("reprocess", filter, actor, now));
    sha256_hex(&[plan.as_bytes()])[..16].to_owned()
}

/// Plans a reprocessing of the events that match, have taken effect by now, and have a stored message.
pub fn plan_reprocess(id: &str, filter: &EventFilter, actor: &str, now: Timestamp) -> Statement {
    let mut params = filter.params();
    params.extend(params![id, Param::json(filter), actor, now]);
    Statement::new(PLAN.replace("{where}", WHERE), params)
}

/// The position of a reprocessing: a key in `event_messages`.
type Reached = (i64, String, String);

/// The next messages; `None` at the end.
pub(crate) async fn portion<S: Store>(
    store: &S,
    replay: &LeasedReplay,
    limit: u32,
) -> Result<Option<Portion>, StoreError> {
    let unreadable = |error: serde_json::Error| StoreError::Refused(error.to_string());
    let filter: EventFilter = serde_json::from_str(&replay.filter).map_err(unreadable)?;
    let (at, source, id): Reached = match &replay.reached {
        None => (i64::MIN, String::new(), String::new()),
        Some(reached) => serde_json::from_str(reached).map_err(unreadable)?,
    };
    let mut params = filter.params();
    params.extend(params![at, source, id, replay.planned_at, LOOK, limit]);
    let next = Statement::new(NEXT.replace("{where}", WHERE), params);
    let rows = store.query(vec![next]).await?;
    let mut portion = Portion::default();
    let mut last: Option<Reached> = None;
    for Kept { applied_at, source, id, message } in read(answer(&rows, 0))? {
        last = Some((applied_at, source, id));
        // The event has taken effect, so its message is readable.
        let message =
            message.and_then(|text| reprocessed(&text, replay.generation, &filter.rules).ok());
        portion.messages.extend(message);
    }
    portion.reached = last.as_ref().map(to_json);
    Ok(last.map(|_| portion))
}

/// A stored message: the answer to [`NEXT`].
#[derive(Deserialize)]
struct Kept {
    applied_at: i64,
    source: String,
    id: String,
    message: Option<String>,
}
