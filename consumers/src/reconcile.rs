//! Compares the tables with the objects of providers' APIs. The rules make the rows of an object, as in an import, and a query
//! compares these rows with the table. A row is right if an import would not change it.
//!
//! A reconciliation has four phases ([`Phase`]), and each step belongs to one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use hookmill_config::Consumers;
use hookmill_core::fetch::Fetch;
use hookmill_core::json::to_json;
use hookmill_core::objects::{Objects, message};
use hookmill_core::outbound::Provider;
use hookmill_core::panics::caught;
use hookmill_core::params;
use hookmill_core::queue::Queue;
use hookmill_core::store::{
    Param, Rows, Statement, Store, StoreError, answer, json as json_column, read,
};
use hookmill_core::time::Timestamp;
use hookmill_core::words::{DriftKind, DriftState};
use hookmill_dlq::import::{LeasedImport, done, stepped};
use hookmill_dlq::reconcile::{
    Count, Drift, Next, ReconcileFilter, by_id, clear, count, found, next, none, report, settle,
};
use hookmill_rules::api::{self, List, id, lists_of};
use hookmill_rules::row::Row;
use hookmill_rules::{Program, Proof, Rest, Rule};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::import::{
    Answer, Imported, Judged, PAUSE, Reached, UNIT, Walk, judge, messages, request, stop,
};
use crate::plan::rows_of;
use crate::refetch::{Apis, Object, read_object};

/// The delay before a difference is confirmed. An event may be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(10);
/// The maximum number of differences before they are confirmed.
const DIFFERENCES: u32 = 10_000;
/// The number of rows of a table that one query reads, and the number of queries in a step.
const ROWS: u32 = 500;
const QUERIES: usize = 10;
/// What an operator can do if the API refuses a request.
const INSTEAD: &str = "compare another table (`--table`)";

/// The position of a reconciliation, and its counts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Progress {
    phase: Phase,
    /// The next page of the lists; blank at the start.
    #[serde(default)]
    at: Reached,
    /// The number of objects, by list.
    #[serde(default)]
    objects: BTreeMap<String, u64>,
    /// The number of differences since the last confirmation.
    #[serde(default)]
    found: u32,
    /// The number of failed requests for the current confirmation.
    #[serde(default)]
    failures: u32,
    /// In [`Phase::Rest`]: the current table, and the id of the last row that the phase read.
    #[serde(default)]
    table: Option<(String, Value)>,
    /// Whether too many differences stopped the comparison.
    #[serde(default)]
    is_partial: bool,
    /// The number of rows whose objects no list contains.
    #[serde(default)]
    extra: u64,
}

impl Progress {
    /// Whether a repair may delete rows. If most rows lack an object, the key probably belongs to another account or mode.
    fn may_delete(&self) -> bool {
        self.extra <= self.objects.values().sum()
    }

    /// The delay before differences are confirmed.
    const fn wait(&self) -> Duration {
        if self.found > 0 { ON_ITS_WAY } else { Duration::ZERO }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// Reads the lists and compares their objects.
    #[default]
    Lists,
    /// Searches the tables for rows whose objects no list contains.
    Rest,
    /// Confirms the differences: requests their pages again, or their objects by id. Repairs the confirmed ones.
    Again,
    /// Removes the rows of `listed_rows`, and writes the report.
    Clear,
}

/// The response to a request that confirms differences.
enum Confirmed<'b> {
    Page(api::Page<'b>),
    Object(&'b RawValue),
    /// The API does not have the page or object.
    Gone,
    /// The response is not the requested object.
    Unreadable,
}

/// A step of a reconciliation.
struct Run<'a, S, F, Q, O> {
    store: &'a S,
    fetch: &'a F,
    to: (&'a Q, &'a O),
    config: &'a Consumers,
    apis: &'a Apis,
    job: &'a LeasedImport,
    filter: ReconcileFilter,
    imported: &'a mut Imported,
}

/// Runs a step. Returns the statements that record it.
///
/// # Errors
///
/// If the store fails.
pub(crate) async fn step<S: Store, F: Fetch, Q: Queue, O: Objects>(
    (store, fetch): (&S, &F),
    to: (&Q, &O),
    (config, apis): (&Consumers, &Apis),
    job: &LeasedImport,
    imported: &mut Imported,
    now: &impl Fn() -> Timestamp,
) -> Result<Vec<Statement>, StoreError> {
    let filter = match serde_json::from_str::<ReconcileFilter>(&job.filter) {
        Ok(filter) => filter,
        Err(error) => return Ok(vec![stop(job, &error.to_string(), None, imported)]),
    };
    let reached = job.reached.as_deref();
    let progress: Progress =
        reached.and_then(|reached| serde_json::from_str(reached).ok()).unwrap_or_default();
    let mut run = Run { store, fetch, to, config, apis, job, filter, imported };
    let stepped = match progress.phase {
        Phase::Lists => run.lists(progress, now).await,
        Phase::Rest => run.rest(progress, now).await,
        Phase::Again => run.again(progress, now).await,
        Phase::Clear => run.clear(progress, now).await,
    };
    match stepped {
        // The same step would fail again.
        Err(StoreError::Refused(error)) => {
            let error = format!("cannot compare the rows: {error}");
            Ok(vec![stop(job, &error, None, run.imported)])
        }
        stepped => stepped,
    }
}

impl<'a, S: Store, F: Fetch, Q: Queue, O: Objects> Run<'a, S, F, Q, O> {
    /// The walk through the lists, from a page on; none if every list was read.
    fn walk(&self, reached: Option<Reached>) -> Result<Option<Walk<'a>>, String> {
        let (config, apis) = (self.config, self.apis);
        let ReconcileFilter { source, table, account, .. } = &self.filter;
        let select = |names: Vec<String>| {
            let lists = compared_lists(config, source, table.as_deref());
            let lists: BTreeSet<_> = lists.into_iter().map(|list| list.name).collect();
            if lists.is_empty() {
                let all = compared_lists(config, source, None);
                let tables: BTreeSet<_> = all
                    .iter()
                    .flat_map(|list| compared(&config.program, source, list, None))
                    .filter_map(|(_, rule, _)| rule.effect.table())
                    .collect();
                let tables = tables.into_iter().collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "no list of the API of `{source}` has the objects of {}; the tables with lists are {tables}",
                    table.as_ref().map_or("any table".to_owned(), |table| format!("`{table}`")),
                ));
            }
            Ok(names.into_iter().filter(|name| lists.contains(name)).collect())
        };
        Walk::plan(config, apis, (source, account.clone()), select, reached)
    }

    fn record(&self, progress: &Progress, sent: usize, due_at: Timestamp) -> Statement {
        let sent = i64::try_from(sent).unwrap_or(i64::MAX);
        stepped(&self.job.id, sent, &to_json(progress), due_at, None)
    }

    /// The statement for a request that failed. `keep` stores the page to request next.
    fn failed<T>(
        &mut self,
        mut progress: Progress,
        judged: Judged<T>,
        started: Timestamp,
        keep: impl Fn(&mut Progress, Reached),
    ) -> Vec<Statement> {
        let id = &self.job.id;
        match judged {
            Judged::Is(_) => Vec::new(),
            Judged::Restarts(at) => {
                keep(&mut progress, at);
                vec![self.record(&progress, 0, started)]
            }
            Judged::Later { reached, due_at, error, problem } => {
                keep(&mut progress, reached);
                self.imported.problem = Some(format!("reconciliation {id}: {problem}"));
                vec![stepped(id, 0, &to_json(&progress), due_at, Some(&error))]
            }
            Judged::Stops { reached, error } => {
                keep(&mut progress, reached);
                vec![stop(self.job, &error, Some(&to_json(&progress)), self.imported)]
            }
        }
    }

    /// Compares a page of a list.
    async fn lists(
        &mut self,
        mut progress: Progress,
        now: &impl Fn() -> Timestamp,
    ) -> Result<Vec<Statement>, StoreError> {
        let reached = Some(progress.at.clone()).filter(|at| *at != Reached::default());
        let walk = match self.walk(reached) {
            Ok(Some(walk)) => walk,
            Ok(None) => {
                let is_sample = self.filter.sample.is_some();
                progress.phase = if is_sample { Phase::Again } else { Phase::Rest };
                let wait = if is_sample { progress.wait() } else { Duration::ZERO };
                return Ok(vec![self.record(&progress, 0, now() + wait)]);
            }
            Err(problem) => return Ok(vec![stop(self.job, &problem, None, self.imported)]),
        };
        let answer = request(self.fetch, &walk, now).await;
        let page = match judge(
            self.config,
            &walk,
            &answer,
            (|body| walk.page(body), None),
            INSTEAD,
            now,
        ) {
            Judged::Is(page) => page,
            judged => {
                return Ok(self.failed(progress, judged, answer.started, |progress, at| {
                    progress.at = at;
                }));
            }
        };
        let is_whole = self.filter.sample.is_none();
        let drifts = self.compare(&walk, &page.objects, &answer, is_whole).await?;
        let Reached { list, page: path, sent, .. } = &walk.reached;
        let number = u32::try_from(page.objects.len()).unwrap_or(u32::MAX);
        *progress.objects.entry(list.clone()).or_default() += u64::from(number);
        let mut statements = self.found((list, Some(path)), &drifts, &mut progress);
        let mut at = walk.after(&page);
        if at.list == *list
            && self.filter.sample.is_some_and(|most| sent.saturating_add(number) >= most)
        {
            at = walk.lists.get(1).map(Reached::start).unwrap_or_default();
        }
        if at == Reached::default() {
            // The end of the last list, and not the start of the first one.
            at.list.clone_from(list);
        }
        progress.at = at;
        let mut due_at = answer.started + UNIT * number / self.job.rate.max(1);
        if progress.found >= DIFFERENCES {
            (progress.phase, progress.is_partial) = (Phase::Again, true);
            due_at = now() + progress.wait();
        }
        statements.push(self.record(&progress, 0, due_at));
        Ok(statements)
    }

    /// Records differences. Those of objects that the rules cannot read are unclear.
    fn found(
        &self,
        at: (&str, Option<&str>),
        drifts: &[Drift],
        progress: &mut Progress,
    ) -> Vec<Statement> {
        let is_readable = |drift: &&Drift| drift.kind != DriftKind::Unreadable;
        let (readable, unreadable): (Vec<_>, Vec<_>) = drifts.iter().partition(is_readable);
        let (readable, unreadable) = (owned(readable), owned(unreadable));
        let count = u32::try_from(drifts.len()).unwrap_or(u32::MAX);
        progress.found = progress.found.saturating_add(count);
        let generation = self.job.generation;
        let mut statements = found(generation, at, &readable, DriftState::Found);
        statements.extend(found(generation, at, &unreadable, DriftState::Unclear));
        statements
    }

    /// Searches the tables for rows that no list has.
    async fn rest(
        &mut self,
        mut progress: Progress,
        now: &impl Fn() -> Timestamp,
    ) -> Result<Vec<Statement>, StoreError> {
        let config = self.config;
        let ReconcileFilter { source, table, account, .. } = self.filter.clone();
        let Some(api) = config.apis.get(&source) else {
            let problem = format!("the source `{source}` has no API");
            return Ok(vec![stop(self.job, &problem, None, self.imported)]);
        };
        let lists = compared_lists(config, &source, table.as_deref());
        let mut searched = BTreeMap::new();
        for list in &lists {
            for (_, rule, proof) in compared(&config.program, &source, list, table.as_deref()) {
                if let (Some(table), Some(rest)) = (rule.effect.table(), &proof.rest) {
                    searched.entry(table).or_insert((list, rest));
                }
            }
        }
        let mut statements = Vec::new();
        for _ in 0..QUERIES {
            let (from, after) = progress.table.take().unwrap_or_default();
            let Some((table, (list, rest))) = searched.range(from.as_str()..).next() else {
                progress.phase = Phase::Again;
                break;
            };
            if progress.found >= DIFFERENCES {
                progress.table = Some((from, after));
                (progress.phase, progress.is_partial) = (Phase::Again, true);
                break;
            }
            let of = (self.job.generation, account.as_deref());
            let part = part(self.store, rest, of, &after).await?;
            let (known, unknown): (Vec<_>, Vec<_>) =
                part.rest.iter().map(|id| extra(table, id)).partition(|drift| {
                    api::path(api.provider, &list.event_type, &drift.object).is_some()
                });
            let count = u32::try_from(known.len() + unknown.len()).unwrap_or(u32::MAX);
            progress.found = progress.found.saturating_add(count);
            progress.extra = progress.extra.saturating_add(u64::from(count));
            let (generation, at) = (self.job.generation, (list.name.as_str(), None));
            statements.extend(found(generation, at, &known, DriftState::Found));
            // The API has no request for a single object of this kind.
            statements.extend(found(generation, at, &unknown, DriftState::Unclear));
            let is_end = part.read < ROWS || part.last == after;
            progress.table = if is_end {
                let following = (Bound::Excluded(*table), Bound::Unbounded);
                let next = searched.range::<str, _>(following).next();
                next.map(|(table, _)| ((*table).to_owned(), Value::Null))
            } else {
                Some(((*table).to_owned(), part.last))
            };
            if progress.table.is_none() {
                progress.phase = Phase::Again;
                break;
            }
        }
        let is_over = progress.phase == Phase::Again;
        let wait = if is_over { progress.wait() } else { Duration::ZERO };
        statements.push(self.record(&progress, 0, now() + wait));
        Ok(statements)
    }

    /// Confirms the differences of a page or an object.
    async fn again(
        &mut self,
        mut progress: Progress,
        now: &impl Fn() -> Timestamp,
    ) -> Result<Vec<Statement>, StoreError> {
        let generation = self.job.generation;
        let rows = self.store.execute(vec![next(generation)]).await?;
        let Some(next) = read::<Next>(answer_of(&rows))?.pop() else {
            // After a repair, the comparison continues where it stopped.
            let goes_on = progress.is_partial && self.filter.repair;
            progress.phase = if goes_on { Phase::Lists } else { Phase::Clear };
            progress.is_partial &= !goes_on;
            progress.found = 0;
            return Ok(vec![self.record(&progress, 0, now())]);
        };
        let rows = self.store.execute(vec![next.drifts(generation)]).await?;
        let wanted: Vec<Drift> = read(answer_of(&rows))?;
        let lists = lists_of(&self.config.program, &self.filter.source, self.provider());
        let list = lists.into_iter().find(|list| list.name == next.list);
        let page = match (&next.page, &list) {
            (Some(page), _) => Some(page.clone()),
            (None, Some(list)) => api::path(self.provider(), &list.event_type, &next.object),
            (None, None) => None,
        };
        let (Some(list), Some(page)) = (list, page) else {
            let mut statements = settle(generation, &wanted, DriftState::Unclear);
            statements.push(self.record(&progress, 0, now()));
            return Ok(statements);
        };
        let reached = Reached { page, failures: progress.failures, ..Reached::start(&list) };
        let walk = match self.walk(Some(reached)) {
            Ok(Some(walk)) => walk,
            Ok(None) => return Ok(vec![self.record(&progress, 0, now())]),
            Err(problem) => return Ok(vec![stop(self.job, &problem, None, self.imported)]),
        };
        let answer = request(self.fetch, &walk, now).await;
        let is_page = next.page.is_some();
        let provider = self.provider();
        let read = |body| {
            if is_page {
                return walk.page(body).map(Confirmed::Page);
            }
            match read_object(provider, &walk.reached.page, body) {
                Object::Is(object) => Ok(Confirmed::Object(object)),
                Object::IsGone => Ok(Confirmed::Gone),
                Object::Unreadable => Ok(Confirmed::Unreadable),
            }
        };
        let judged =
            judge(self.config, &walk, &answer, (read, Some(Confirmed::Gone)), INSTEAD, now);
        let objects = match judged {
            Judged::Is(Confirmed::Page(page)) => Some(page.objects),
            Judged::Is(Confirmed::Object(object)) => Some(vec![object]),
            // The page no longer exists. The next steps request its objects by id.
            Judged::Is(Confirmed::Gone) if is_page => Some(Vec::new()),
            Judged::Is(Confirmed::Gone) if answer.is_from_provider() => None,
            // An unexpected response about one object does not stop the reconciliation.
            Judged::Is(Confirmed::Unreadable | Confirmed::Gone) => {
                let mut statements = settle(generation, &wanted, DriftState::Unclear);
                statements.push(self.record(&progress, 0, answer.started));
                return Ok(statements);
            }
            judged => {
                return Ok(self.failed(progress, judged, answer.started, |progress, at| {
                    progress.failures = at.failures;
                }));
            }
        };
        progress.failures = 0;
        let settled = match objects {
            None => self.gone(&walk, wanted),
            Some(objects) => self.present(&walk, &answer, (wanted, is_page), objects).await?,
        };
        self.settled(progress, (&walk, &answer), settled, now).await
    }

    /// Decides about the differences of objects that the provider has.
    async fn present<'b>(
        &self,
        walk: &Walk<'_>,
        answer: &Answer,
        (wanted, is_page): (Vec<Drift>, bool),
        objects: Vec<&'b RawValue>,
    ) -> Result<Settled<'b>, StoreError> {
        let ids: BTreeSet<_> = wanted.iter().map(|drift| drift.object.clone()).collect();
        let mut there: BTreeMap<_, _> = objects
            .into_iter()
            .filter_map(|object| Some((id(object)?, object)))
            .filter(|(id, _)| ids.contains(id))
            .collect();
        let objects: Vec<_> = there.values().copied().collect();
        let drifts = self.compare(walk, &objects, answer, false).await?;
        let mut still: BTreeMap<_, _> = drifts
            .into_iter()
            .map(|drift| ((drift.table.clone(), drift.key.clone()), drift))
            .collect();
        let mut settled = Settled::default();
        for drift in wanted {
            if !there.contains_key(&drift.object) {
                settled.by_id.push(drift);
                continue;
            }
            match still.remove(&(drift.table.clone(), drift.key.clone())) {
                None => settled.none.push(drift),
                Some(newer) if newer.kind == DriftKind::Newer && is_page => {
                    settled.by_id.push(newer);
                }
                Some(unclear)
                    if matches!(unclear.kind, DriftKind::Newer | DriftKind::Unreadable) =>
                {
                    settled.unclear.push(unclear);
                }
                Some(confirmed) => settled.confirmed.push(confirmed),
            }
        }
        let repairable = settled.confirmed.iter().filter(|drift| drift.kind != DriftKind::Deleted);
        let repairable: BTreeSet<_> = repairable.map(|drift| drift.object.as_str()).collect();
        there.retain(|id, _| repairable.contains(id.as_str()));
        settled.objects = there.into_values().collect();
        Ok(settled)
    }

    /// Decides about the differences of an object that the provider does not have.
    fn gone<'b>(&self, walk: &Walk<'_>, wanted: Vec<Drift>) -> Settled<'b> {
        let mut settled = Settled::default();
        let Some(list) = walk.list() else { return settled };
        let rests: BTreeMap<_, _> = compared(&self.config.program, &walk.source, list, None)
            .filter_map(|(_, rule, proof)| Some((rule.effect.table()?, proof.rest.as_ref()?)))
            .collect();
        // Stripe gives the same response for an object of another account. Only a table with the account of each row shows that
        // an extra row belongs to the compared account.
        let is_ours = |drift: &Drift| match drift.kind {
            DriftKind::Missing | DriftKind::Unreadable => false,
            DriftKind::Extra => {
                rests.get(drift.table.as_str()).is_none_or(|rest| rest.tells_accounts)
            }
            DriftKind::Different | DriftKind::Deleted | DriftKind::Newer => true,
        };
        let is_certain = self.provider() != Provider::Stripe || wanted.iter().any(is_ours);
        for drift in wanted {
            match drift.kind {
                DriftKind::Missing | DriftKind::Unreadable | DriftKind::Deleted => {
                    settled.none.push(drift);
                }
                _ if !is_certain => settled.unclear.push(drift),
                _ => settled.deleted.push(Drift {
                    kind: DriftKind::Extra,
                    columns: Vec::new(),
                    ..drift
                }),
            }
        }
        settled
    }

    /// Records the decisions, and sends the repairs.
    async fn settled(
        &mut self,
        progress: Progress,
        (walk, answer): (&Walk<'_>, &Answer),
        settled: Settled<'_>,
        now: &impl Fn() -> Timestamp,
    ) -> Result<Vec<Statement>, StoreError> {
        let generation = self.job.generation;
        let Settled { none: nothing, by_id: later, unclear, confirmed, deleted, objects } = settled;
        let (mut sent, mut repaired, mut confirmed) = (Vec::new(), Vec::new(), confirmed);
        if self.filter.repair {
            let (queue, bodies) = self.to;
            let found = messages(bodies, (self.job, walk), (&objects, answer)).await;
            let gone = self.deletions(walk, answer, (&deleted, progress.may_delete())).await;
            let send = async {
                sent = found?;
                let (deletions, deleted) = gone?;
                sent.extend(deletions);
                if !sent.is_empty() {
                    queue.send(sent.clone()).await.map_err(|error| error.to_string())?;
                }
                Ok::<_, String>(deleted)
            };
            match send.await {
                Ok((certain, others)) => {
                    let is_final = |drift: &Drift| drift.kind == DriftKind::Deleted;
                    (confirmed, repaired) = confirmed.into_iter().partition(is_final);
                    repaired.extend(certain);
                    confirmed.extend(others);
                }
                Err(error) => {
                    let due_at = now() + PAUSE;
                    let id = &self.job.id;
                    self.imported.problem =
                        Some(format!("reconciliation {id}: {error}; next try at {due_at}"));
                    return Ok(vec![stepped(id, 0, &to_json(&progress), due_at, Some(&error))]);
                }
            }
        } else {
            confirmed.extend(deleted);
        }
        if !sent.is_empty() {
            self.imported.sent = Some((self.job.id.clone(), sent.len()));
        }
        let mut statements = none(generation, &nothing);
        statements.extend(by_id(generation, &later));
        statements.extend(settle(generation, &unclear, DriftState::Unclear));
        statements.extend(settle(generation, &confirmed, DriftState::Confirmed));
        statements.extend(settle(generation, &repaired, DriftState::Repaired));
        let took = UNIT * u32::try_from(sent.len()).unwrap_or(u32::MAX) / self.job.rate.max(1);
        statements.push(self.record(&progress, sent.len(), answer.started + took));
        Ok(statements)
    }

    /// The messages that delete the rows of deleted objects. Also returns the differences that these messages repair, and the other
    /// ones.
    async fn deletions(
        &self,
        walk: &Walk<'_>,
        answer: &Answer,
        (deleted, may_delete): (&[Drift], bool),
    ) -> Result<(Vec<String>, (Vec<Drift>, Vec<Drift>)), String> {
        let kind = walk.list().map(List::deletion).filter(|_| may_delete);
        let Some(kind) = kind else { return Ok((Vec::new(), (Vec::new(), deleted.to_vec()))) };
        let rules = self.config.program.matching(&walk.source, &kind);
        let tables: BTreeSet<_> = rules.filter_map(|(_, rule)| rule.effect.table()).collect();
        let is_repaired = |drift: &&Drift| tables.contains(drift.table.as_str());
        let (repaired, others): (Vec<_>, Vec<_>) = deleted.iter().partition(is_repaired);
        let ids: BTreeSet<_> = repaired.iter().map(|drift| drift.object.as_str()).collect();
        let mut texts = Vec::new();
        for id in ids {
            let object = to_json(&json!({ "id": id, "deleted": true }));
            let object = RawValue::from_string(object).map_err(|error| error.to_string())?;
            let event = walk.event(self.job.generation, &kind, &object, answer)?;
            let (mut envelope, body) = event;
            let text = message(self.to.1, &mut envelope, body.as_bytes()).await;
            texts.push(text.map_err(|error| error.to_string())?);
        }
        Ok((texts, (owned(repaired), owned(others))))
    }

    /// Removes some of the listed rows; if none is left, writes the report and ends the job.
    async fn clear(
        &mut self,
        progress: Progress,
        now: &impl Fn() -> Timestamp,
    ) -> Result<Vec<Statement>, StoreError> {
        let Self { job, filter, config, .. } = self;
        let rows = self.store.execute(vec![clear(job.generation), count(job.generation)]).await?;
        if !answer_of(&rows).is_empty() {
            return Ok(vec![self.record(&progress, 0, now())]);
        }
        let counts: Vec<Count> = read(answer(&rows, 1))?;
        let lists = compared_lists(config, &filter.source, None);
        let mut compared_tables: BTreeSet<&str> = BTreeSet::new();
        for list in &lists {
            let rules = compared(&config.program, &filter.source, list, None);
            compared_tables.extend(rules.filter_map(|(_, rule, _)| rule.effect.table()));
        }
        let of_source = config.program.rules.iter().filter(|rule| {
            rule.effect.word().is_repeatable()
                && rule.on.iter().any(|on| on.source == filter.source)
        });
        let unlisted: BTreeSet<_> = of_source
            .filter(|_| filter.table.is_none())
            .filter_map(|rule| rule.effect.table())
            .filter(|table| !compared_tables.contains(table))
            .collect();
        let text = json!({
            "objects": progress.objects,
            "tables": by_table(&counts),
            "unlisted": unlisted,
            "complete": !progress.is_partial,
            "withheld": filter.repair && !progress.may_delete(),
        });
        Ok(vec![report(&job.id, &text.to_string()), done(&job.id, now())])
    }

    fn provider(&self) -> Provider {
        self.config.apis.get(&self.filter.source).map_or(Provider::Stripe, |api| api.provider)
    }

    /// Compares the rows of objects with the tables. `notes`: whether to add the rows to `listed_rows`.
    async fn compare(
        &self,
        walk: &Walk<'_>,
        objects: &[&RawValue],
        answer: &Answer,
        notes: bool,
    ) -> Result<Vec<Drift>, StoreError> {
        let config = self.config;
        let Some(list) = walk.list() else { return Ok(Vec::new()) };
        let of_list = compared(&config.program, &walk.source, list, self.filter.table.as_deref());
        let rules: Vec<_> = of_list.collect();
        let mut drifts = Vec::new();
        let mut rows = BTreeMap::<usize, Vec<Row>>::new();
        for object in objects {
            let event = walk.event(self.job.generation, &list.event_type, object, answer);
            let planned = event.and_then(|(envelope, body)| {
                let rules = rules.iter().map(|(number, rule, _)| (*number, *rule));
                let planned = caught(|| rows_of(config, rules, &envelope, &body));
                planned.unwrap_or_else(|panicked| Err(panicked.to_string()))
            });
            match planned {
                Ok(planned) => {
                    for (rule, row) in planned {
                        rows.entry(rule).or_default().push(row);
                    }
                }
                Err(_) => drifts.extend(rules.first().and_then(|(_, rule, _)| {
                    let id = id(object).unwrap_or_default();
                    let table = rule.effect.table()?;
                    Some(Drift { kind: DriftKind::Unreadable, ..extra(table, &id.into()) })
                })),
            }
        }
        let (mut statements, mut tables) = (Vec::new(), Vec::new());
        for (number, rule, proof) in &rules {
            let Some((rows, table)) = rows.get(number).zip(rule.effect.table()) else { continue };
            statements.extend(Row::statements(&proof.compare, rows));
            tables.resize(statements.len(), Some(table));
            if let Some(listed) = proof.listed.as_ref().filter(|_| notes) {
                statements.extend(Row::statements(listed, rows));
                tables.resize(statements.len(), None);
            }
        }
        if statements.is_empty() {
            return Ok(drifts);
        }
        let rows = self.store.execute(statements).await?;
        for (rows, table) in rows.iter().zip(tables) {
            let Some(table) = table else { continue };
            drifts.extend(read::<Difference>(rows)?.into_iter().filter_map(|one| one.drift(table)));
        }
        Ok(drifts)
    }
}

/// Decisions about differences.
#[derive(Default)]
struct Settled<'b> {
    /// The rows match now.
    none: Vec<Drift>,
    /// The next steps request their objects by id.
    by_id: Vec<Drift>,
    unclear: Vec<Drift>,
    confirmed: Vec<Drift>,
    /// The provider does not have their objects.
    deleted: Vec<Drift>,
    /// The objects that a repair sends.
    objects: Vec<&'b RawValue>,
}

/// The rules whose rows can be compared with the objects of a list.
fn compared<'p>(
    program: &'p Program,
    source: &'p str,
    list: &'p List,
    table: Option<&'p str>,
) -> impl Iterator<Item = (usize, &'p Rule, &'p Proof)> {
    program
        .matching(source, &list.event_type)
        .filter_map(|(number, rule)| Some((number, rule, rule.proof.as_ref()?)))
        .filter(move |(_, rule, _)| table.is_none() || rule.effect.table() == table)
}

/// The lists with objects to compare.
fn compared_lists(config: &Consumers, source: &str, table: Option<&str>) -> Vec<List> {
    let Some(api) = config.apis.get(source) else { return Vec::new() };
    let lists = lists_of(&config.program, source, api.provider);
    lists.filter(|list| compared(&config.program, source, list, table).next().is_some()).collect()
}

/// A difference: the answer to [`Proof::compare`].
#[derive(Deserialize)]
struct Difference {
    object: String,
    key: String,
    verdict: DriftKind,
    #[serde(deserialize_with = "json_column")]
    columns: Vec<(String, Option<String>, Option<String>)>,
}

impl Difference {
    /// `None` if the values differ only in the order of JSON members.
    fn drift(self, table: &str) -> Option<Drift> {
        let Self { object, key, verdict: kind, columns } = self;
        let differ = columns
            .into_iter()
            .filter(|(_, held, other)| !is_same_json(held.as_deref(), other.as_deref()));
        let columns: Vec<_> = differ.map(|(name, ..)| name).collect();
        let is_none = kind == DriftKind::Different && columns.is_empty();
        (!is_none).then(|| Drift { table: table.to_owned(), key, kind, object, columns })
    }
}

/// Whether two texts are JSON objects or arrays with the same content. Providers order the members in different ways.
fn is_same_json(one: Option<&str>, other: Option<&str>) -> bool {
    let read = |text: Option<&str>| {
        let text = text.filter(|text| text.starts_with(['{', '[']))?;
        serde_json::from_str::<Value>(text).ok()
    };
    read(one).is_some_and(|one| read(other).is_some_and(|other| one == other))
}

/// A part of a table: the answer to [`Rest`].
#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    last: Value,
    read: u32,
    #[serde(deserialize_with = "json_column")]
    rest: Vec<Value>,
}

async fn part<S: Store>(
    store: &S,
    rest: &Rest,
    (generation, account): (u32, Option<&str>),
    after: &Value,
) -> Result<Part, StoreError> {
    let after = match after {
        Value::Null => Param::Null,
        Value::String(text) => Param::from(text),
        number => number.as_i64().map_or_else(|| Param::Text(number.to_string()), Param::Integer),
    };
    let query = Statement::new(rest.text.clone(), params![generation, after, account, ROWS]);
    let rows = store.execute(vec![query]).await?;
    let part = read::<Part>(answer_of(&rows))?.pop();
    part.ok_or_else(|| StoreError::Refused("the query has no answer".to_owned()))
}

/// The difference for a row whose object no list contains.
fn extra(table: &str, id: &Value) -> Drift {
    let object = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    let (table, key) = (table.to_owned(), to_json(&[&object]));
    Drift { table, key, kind: DriftKind::Extra, object, columns: Vec::new() }
}

/// The counts of the report, by table: confirmed and repaired differences by kind and by column, and the totals of repaired and
/// unclear differences.
fn by_table(counts: &[Count]) -> Value {
    let mut tables = BTreeMap::<&str, BTreeMap<&str, Value>>::new();
    let add = |value: &mut Value, n: u64| *value = (value.as_u64().unwrap_or_default() + n).into();
    for Count { table, kind, state, columns, n } in counts {
        let of = tables.entry(table).or_default();
        match state {
            DriftState::Found => {}
            DriftState::Unclear => add(of.entry("unclear").or_default(), *n),
            DriftState::Confirmed | DriftState::Repaired => {
                add(of.entry(kind.as_str()).or_default(), *n);
                if *state == DriftState::Repaired {
                    add(of.entry("repaired").or_default(), *n);
                }
                let named = of.entry("columns").or_insert_with(|| json!({}));
                for column in columns {
                    add(&mut named[column], *n);
                }
            }
        }
    }
    json!(tables)
}

fn owned(drifts: Vec<&Drift>) -> Vec<Drift> {
    drifts.into_iter().cloned().collect()
}

fn answer_of(rows: &[Rows]) -> &[hookmill_core::store::Row] {
    answer(rows, 0)
}
