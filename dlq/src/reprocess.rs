//! Sends events that have taken effect through the whole path again, after a rule has changed: under a new generation, so that
//! the ledger takes each of them once more.
//!
//! Without more, only rules are carried out that do no harm a second time: those that keep rows by version. A row that a later
//! event has written stays as it is. Counters, and whatever is sent, have to be named, and then nothing else is carried out.
//!
//! An event can be reprocessed as long as its message is kept: `messages` of `[retention]` says how long.

use hookmill_core::hash::sha256_hex;
use hookmill_core::message::reprocessed;
use hookmill_core::store::{Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::replay::{
    FilterError, Portion, Taken, check_blank, check_pattern, check_said, glob, json, statement,
    text, time,
};

/// The most events that are looked at in one step, whether or not they match.
pub const LOOK: u32 = 2_000;
/// The longest list of rules, as JSON, in bytes: it travels in every message, and has to fit beside the longest body.
pub const RULES_BYTES: usize = 600;

/// Which events, and what is done with them. What is not said does not matter.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
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

impl Filter {
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
        if json(&self.rules).len() > RULES_BYTES {
            return Err(FilterError::Rules);
        }
        let none = Self { rules: self.rules.clone(), ..Self::default() };
        check_said(Self { all: false, ..self.clone() } != none, self.all)
    }

    /// The parameters of [`WHERE`], from the first.
    pub fn params(&self) -> Vec<String> {
        vec![
            text(self.source.as_ref()),
            glob(self.kind.as_ref()),
            text(self.event_id.as_ref()),
            time(self.applied_from),
            time(self.applied_before),
        ]
    }
}

/// What a filter selects, as SQL about `events`; `?1` to `?5` are [`Filter::params`]. Each event counts once, as it came.
pub const WHERE: &str =
    "events.generation = 0 AND (?1 = '' OR events.source = ?1) AND (?2 = '' OR iif(instr(?2, '*'), type GLOB ?2, type = ?2))
    AND (?3 = '' OR events.id = ?3) AND (?4 = '' OR events.applied_at >= CAST(?4 AS INTEGER))
    AND (?5 = '' OR events.applied_at < CAST(?5 AS INTEGER))";

/// `?6` id, `?7` the filter, `?8` who, `?9` now.
const PLAN: &str = "\
-- plan a reprocessing
INSERT INTO replays (id, filter, state, total, planned_by, planned_at, generation)
SELECT ?6, ?7, 'planned', count(*), ?8, CAST(?9 AS INTEGER), (SELECT coalesce(max(generation), 0) + 1 FROM replays)
FROM events JOIN event_messages USING (applied_at, source, id)
WHERE applied_at <= CAST(?9 AS INTEGER) AND {where}
ON CONFLICT DO NOTHING";

/// Some of the messages behind the last, in the order in which their events took effect; `NULL` where one does not match.
/// `?6` to `?8` the last, `?9` when it was planned, `?10` how many are looked at, `?11` how many may match.
const NEXT: &str = "\
-- events to reprocess
SELECT applied_at, source, id, iif(matches, (
    SELECT message FROM event_messages AS kept
    WHERE kept.applied_at = looked.applied_at AND kept.source = looked.source AND kept.id = looked.id
), NULL)
FROM (
    SELECT next.applied_at, next.source, next.id, events.id IS NOT NULL AS matches,
        sum(events.id IS NOT NULL) OVER (ORDER BY next.applied_at, next.source, next.id) AS place
    FROM (
        SELECT applied_at, source, id FROM event_messages
        WHERE (applied_at, source, id) > (CAST(?6 AS INTEGER), ?7, ?8) AND applied_at <= CAST(?9 AS INTEGER)
        ORDER BY applied_at, source, id LIMIT CAST(?10 AS INTEGER)
    ) AS next
    LEFT JOIN events ON events.source = next.source AND events.id = next.id AND {where}
) AS looked
WHERE place <= CAST(?11 AS INTEGER)
ORDER BY applied_at, source, id";

/// The id of a reprocessing: the same for who plans the same at the same time.
pub fn reprocess_id(filter: &Filter, actor: &str, now: Timestamp) -> String {
    let plan = json(&("reprocess", filter, actor, now));
    sha256_hex(&[plan.as_bytes()])[..16].to_owned()
}

/// Plans a reprocessing of what has taken effect by now, matches, and is kept.
pub fn plan_reprocess(id: &str, filter: &Filter, actor: &str, now: Timestamp) -> Statement {
    let mut params = filter.params();
    params.extend([id.to_owned(), json(filter), actor.to_owned(), now.millis().to_string()]);
    statement(&PLAN.replace("{where}", WHERE), params)
}

/// Where a reprocessing has come to: a key in `event_messages`.
type Reached = (i64, String, String);

/// The next messages, at most so many; `None` if there are none behind the last.
pub(crate) async fn portion<S: Store>(
    store: &S,
    taken: &Taken,
    most: u32,
) -> Result<Option<Portion>, StoreError> {
    let unreadable = |error: serde_json::Error| StoreError::Refused(error.to_string());
    let filter: Filter = serde_json::from_str(&taken.filter).map_err(unreadable)?;
    let (at, source, id): Reached = match taken.reached.as_str() {
        "" => (i64::MIN, String::new(), String::new()),
        reached => serde_json::from_str(reached).map_err(unreadable)?,
    };
    let mut params = filter.params();
    params.extend([at.to_string(), source, id, taken.planned_at.millis().to_string()]);
    params.extend([LOOK.to_string(), most.to_string()]);
    let rows = store.execute(vec![statement(&NEXT.replace("{where}", WHERE), params)]).await?;
    let mut portion = Portion::default();
    let mut last: Option<Reached> = None;
    for (reached, message) in rows.first().into_iter().flatten().filter_map(kept) {
        last = Some(reached);
        // It has taken effect, so it is a message.
        let message =
            message.and_then(|text| reprocessed(&text, taken.generation, &filter.rules).ok());
        portion.messages.extend(message);
    }
    portion.reached = last.as_ref().map(json).unwrap_or_default();
    Ok(last.map(|_| portion))
}

fn kept(row: &Vec<Option<String>>) -> Option<(Reached, Option<String>)> {
    match row.as_slice() {
        [Some(at), Some(source), Some(id), message] => {
            Some(((at.parse().ok()?, source.clone(), id.clone()), message.clone()))
        }
        _ => None,
    }
}
