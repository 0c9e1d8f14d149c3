//! The state of imports: which objects of a provider's API were put on the queue. The consumers' stage fetches them. It leases
//! reconciliations ([`crate::reconcile`]) in the same way, so that both together keep the rate of an API.
//!
//! An import is a job like a replay ([`crate::replay`]): it is planned, runs, pauses and ends in the same way. Its objects
//! have a generation of their own in the ledger, so that an object that is sent twice after a crash takes effect once.

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_core::hash::sha256_hex;
use hookmill_core::json::to_json;
use hookmill_core::params;
use hookmill_core::store::{Param, Rows, Statement, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use hookmill_core::words::JobKind;
use serde::{Deserialize, Serialize};

use crate::replay::{DONE, FilterError, LEASE, STEPPED, check_blank};

/// Selects the objects of an API.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportFilter {
    /// The source.
    pub source: String,
    /// The names of lists; if empty, all lists whose objects some rule keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// The connected account of Stripe that has the objects; if none, that of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

impl ImportFilter {
    /// Checks the filter.
    ///
    /// # Errors
    ///
    /// If a name is blank.
    pub fn check(&self) -> Result<(), FilterError> {
        check_blank(&[("source", Some(&self.source)), ("account", self.account.as_deref())])?;
        self.only.iter().try_for_each(|name| check_blank(&[("only", Some(name))]))
    }
}

impl ImportFilter {
    /// The lists to read, of those whose objects some rule keeps.
    ///
    /// # Errors
    ///
    /// A sentence, if there are none, or one of the filter's is not among them.
    pub fn select(&self, mut lists: Vec<String>) -> Result<Vec<String>, String> {
        let Self { source, only, .. } = self;
        if lists.is_empty() {
            return Err(format!(
                "no rule keeps objects of the API of `{source}`: an import shows rules each object as an event of the type `….updated`"
            ));
        }
        if let Some(name) = only.iter().find(|name| !lists.contains(name)) {
            let lists = lists.join(", ");
            return Err(format!("no rule keeps objects of a list `{name}`; the lists are {lists}"));
        }
        lists.retain(|name| only.is_empty() || only.contains(name));
        Ok(lists)
    }
}

/// `?1` id, `?2` the filter, `?3` the actor, `?4` now, `?5` the kind.
const PLAN: &str = "\
-- plan an import or reconciliation
INSERT INTO replays (id, kind, filter, state, planned_by, planned_at, generation)
SELECT ?1, ?5, ?2, 'planned', ?3, ?4, (SELECT coalesce(max(generation), 0) + 1 FROM replays WHERE generation > 0)
WHERE true
ON CONFLICT DO NOTHING";

/// `?1` now, `?2` the latest possible end of a lease.
const AHEAD: &str = "\
-- imports with times of a clock that was ahead
UPDATE replays SET due_at = ?1 WHERE state = 'running' AND kind IN ('import', 'reconcile') AND due_at > ?2";

/// `?1` now, `?2` the end of the lease, `?3` JSON: by source, the provider.
const TAKE: &str = "\
-- lease an import
UPDATE replays SET due_at = ?2
WHERE id = (
    SELECT id FROM replays WHERE state = 'running' AND kind IN ('import', 'reconcile') AND due_at <= ?1 AND NOT EXISTS (
        SELECT 1 FROM outbox_senders WHERE provider = ?3 ->> (filter ->> 'source') AND free_at > ?1
    )
    ORDER BY due_at LIMIT 1
)
RETURNING id, kind, filter, rate, generation, reached";

/// In the transaction of [`TAKE`]. `?1` the end of the lease, `?2` as `?3` there, `?3` JSON: by provider, the earliest time
/// of the next request.
const SPACE: &str = "\
-- keep the rate limit of an API
INSERT INTO outbox_senders (provider, free_at)
SELECT key, value FROM jsonb_each(?3) WHERE key IN (
    SELECT ?2 ->> (filter ->> 'source') FROM replays WHERE state = 'running' AND kind IN ('import', 'reconcile') AND due_at = ?1
)
ON CONFLICT (provider) DO UPDATE SET free_at = excluded.free_at WHERE free_at < excluded.free_at";

/// `?1` JSON: by source, the provider.
const NEXT: &str = "\
-- when the next import is due
SELECT min(max(due_at, coalesce((
    SELECT free_at FROM outbox_senders WHERE provider = ?1 ->> (filter ->> 'source')
), 0))) AS due_at FROM replays WHERE state = 'running' AND kind IN ('import', 'reconcile')";

const STOPPED: &str = "\
-- an import that only an operator can continue
UPDATE replays SET state = 'paused', due_at = 0, error = ?2, reached = coalesce(?3, reached)
WHERE id = ?1 AND state = 'running'";

/// For a caller that knows that the processes that ran imports have ended. `?1` now, `?2` the end of a lease that begins now.
const FREE: &str = "\
-- imports that a process was running
UPDATE replays SET due_at = ?1 WHERE state = 'running' AND kind IN ('import', 'reconcile') AND due_at > ?1 AND due_at <= ?2";

/// The id of an import or reconciliation: the same if the same actor plans the same at the same time.
pub fn job_id(kind: JobKind, filter: &impl Serialize, actor: &str, now: Timestamp) -> String {
    let plan = to_json(&(kind.as_str(), filter, actor, now));
    sha256_hex(&[plan.as_bytes()])[..16].to_owned()
}

/// Plans an import or reconciliation.
pub fn plan_job(
    id: &str,
    kind: JobKind,
    filter: &impl Serialize,
    actor: &str,
    now: Timestamp,
) -> Statement {
    Statement::new(PLAN, params![id, Param::json(filter), actor, now, kind.as_str()])
}

/// Continues the imports of processes that have ended.
pub fn resume_imports(now: Timestamp) -> Statement {
    Statement::new(FREE, params![now, now + LEASE])
}

/// A leased import or reconciliation.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct LeasedImport {
    /// Its id.
    pub id: String,
    /// Which of the two it is.
    pub kind: JobKind,
    /// JSON: [`ImportFilter`], or [`ReconcileFilter`](crate::reconcile::ReconcileFilter).
    pub filter: String,
    /// Objects per second.
    pub rate: u32,
    /// Its number in the ledger.
    pub generation: u32,
    /// What it has come to; none at the start.
    pub reached: Option<String>,
}

/// The providers of sources, and the delay between two requests to each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Providers {
    /// By source.
    pub of: BTreeMap<String, &'static str>,
    /// By provider.
    pub spacing: BTreeMap<&'static str, Duration>,
}

impl Providers {
    /// The statements that lease an import whose source's API takes a request now. [`taken`] reads their rows.
    /// `longest_retry`: the longest delay after a failed request.
    pub fn take(&self, now: Timestamp, longest_retry: Duration) -> Vec<Statement> {
        let of = Param::json(&self.of);
        let free_at: BTreeMap<_, _> =
            self.spacing.iter().map(|(provider, spacing)| (*provider, now + *spacing)).collect();
        let lease = now + LEASE;
        vec![
            Statement::new(AHEAD, params![now, now.horizon(LEASE.max(longest_retry))]),
            Statement::new(TAKE, params![now, lease, of.clone()]),
            Statement::new(SPACE, params![lease, of, Param::json(&free_at)]),
            self.next(),
        ]
    }

    /// Asks when the next import is due. [`crate::replay::next`] reads the row.
    pub fn next(&self) -> Statement {
        Statement::new(NEXT, params![Param::json(&self.of)])
    }
}

/// The import that was leased.
///
/// # Errors
///
/// If the rows are not those of [`Providers::take`].
pub fn taken(rows: &[Rows]) -> Result<Option<LeasedImport>, StoreError> {
    read(answer(rows, 1)).map(|mut taken| taken.pop())
}

/// A step sent this many objects, fewer than none if it begins a list again; or it failed, and is repeated at `due_at`.
pub fn stepped(
    id: &str,
    sent: i64,
    reached: &str,
    due_at: Timestamp,
    error: Option<&str>,
) -> Statement {
    Statement::new(STEPPED, params![id, sent, due_at, error, reached])
}

/// The import cannot continue before an operator has acted.
pub fn stopped(id: &str, error: &str, reached: Option<&str>) -> Statement {
    Statement::new(STOPPED, params![id, error, reached])
}

/// The import has sent everything.
pub fn done(id: &str, now: Timestamp) -> Statement {
    Statement::new(DONE, params![id, now])
}
