//! Counts of what events have and lack: the rows of rules, the values whose paths lead nowhere, and the API versions of
//! sources.
//!
//! A process counts in memory and writes at its first batch and then once a minute, so that D1 bills few rows. A process that
//! is killed loses its last minute: the numbers are for monitoring, not for accounting. The write is a transaction of its
//! own, so it makes no event fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hookmill_config::Consumers;
use hookmill_core::api_version::OTHER;
use hookmill_core::log::{Entry, Fields};
use hookmill_core::params;
use hookmill_core::store::{Param, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_rules::Program;
use serde_json::{Map, Value};

use crate::process_batch::BatchResult;
use crate::settle::{Fate, Settled};

/// The time between two writes.
pub const WINDOW: Duration = Duration::from_secs(60);
/// The number of API versions of a source that a process tells apart. The others count as [`OTHER`].
const VERSIONS: usize = 20;
/// The number of API versions of a source that the database tells apart in a day.
const VERSIONS_A_DAY: usize = 100;

/// `?1` the counts, `?2` the day.
const COUNT_ROWS: &str = "\
-- count rows
INSERT INTO rule_counts (day, rule, rows, absent)
SELECT ?2, value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1) WHERE true
ON CONFLICT (day, rule) DO UPDATE SET rows = rows + excluded.rows, absent = (
    SELECT json_group_object(key, rows) FROM (
        SELECT key, sum(value) AS rows FROM (
            SELECT key, value FROM json_each(rule_counts.absent)
            UNION ALL
            SELECT key, value FROM json_each(excluded.absent)
        ) GROUP BY key
    )
)";

/// `?1` the counts, `?2` the day, `?3` the maximum number of versions in a day, `?4` the name for all others.
const COUNT_VERSIONS: &str = "\
-- count API versions
INSERT INTO api_version_counts (day, source, version, expected, events, first_at, last_at)
SELECT ?2, value ->> 0, iif(
    EXISTS (SELECT 1 FROM api_version_counts WHERE day = ?2 AND source = value ->> 0 AND version = value ->> 1)
    OR (SELECT count(*) FROM (
        SELECT 1 FROM api_version_counts WHERE day = ?2 AND source = value ->> 0 LIMIT ?3
    )) < ?3, value ->> 1, ?4
), value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?1) WHERE true
ON CONFLICT (day, source, version) DO UPDATE SET expected = excluded.expected, events = events + excluded.events,
    first_at = min(first_at, excluded.first_at), last_at = max(last_at, excluded.last_at)";

/// Rows by rule, and by value of the rule those that lack it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RowCounts(
    /// By the rule's index, and that of [`Rule::value_name`](hookmill_rules::Rule::value_name); all rows without the latter.
    BTreeMap<(usize, Option<usize>), u64>,
);

impl RowCounts {
    /// Counts a row of a rule that lacks these values.
    pub(crate) fn add_row(&mut self, rule: usize, absent: impl IntoIterator<Item = usize>) {
        *self.0.entry((rule, None)).or_default() += 1;
        for value in absent {
            self.add_absent(rule, value);
        }
    }

    /// Counts that a value is absent.
    pub(crate) fn add_absent(&mut self, rule: usize, value: usize) {
        *self.0.entry((rule, Some(value))).or_default() += 1;
    }

    /// Adds other counts.
    pub(crate) fn add(&mut self, other: &Self) {
        for (what, rows) in &other.0 {
            *self.0.entry(*what).or_default() += rows;
        }
    }

    /// Its counts by the names of rules, and of values that rows lack; all rows of a rule without the latter.
    pub fn by_name<'p>(
        &self,
        program: &'p Program,
    ) -> impl Iterator<Item = (&'p str, Option<&'p str>, u64)> {
        self.0.iter().map(|((rule, value), rows)| {
            let rule = &program.rules[*rule];
            (rule.name.as_str(), value.map(|value| rule.value_name(value)), *rows)
        })
    }
}

/// Events with an API version.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Events {
    count: u64,
    /// When the first and the last of them were received.
    first_at: Timestamp,
    last_at: Timestamp,
}

/// The counts of some batches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// The rows of rules.
    pub rows: RowCounts,
    /// By source and version.
    versions: BTreeMap<(String, String), Events>,
}

/// The number of events with an API version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionCount<'c> {
    /// The source.
    pub source: &'c str,
    /// The version.
    pub version: &'c str,
    /// Whether the source's `api_version` lists it, or there is no list.
    pub expected: bool,
    /// The number.
    pub events: u64,
}

impl Counts {
    fn is_empty(&self) -> bool {
        self.rows.0.is_empty() && self.versions.is_empty()
    }

    fn add_version(&mut self, source: &str, version: &str, events: &Events) {
        let known = self.versions.entry((source.to_owned(), version.to_owned()));
        let known = known.or_insert(Events { count: 0, ..events.clone() });
        known.count += events.count;
        known.first_at = known.first_at.min(events.first_at);
        known.last_at = known.last_at.max(events.last_at);
    }

    fn add(&mut self, other: &Self) {
        self.rows.add(&other.rows);
        for ((source, version), events) in &other.versions {
            self.add_version(source, version, events);
        }
    }

    /// Its API versions.
    pub fn versions<'c>(&'c self, config: &'c Consumers) -> impl Iterator<Item = VersionCount<'c>> {
        self.versions.iter().map(|((source, version), Events { count, .. })| VersionCount {
            source,
            version,
            expected: is_expected(config, source, version),
            events: *count,
        })
    }

    /// The statements that add them to those of a day.
    fn statements(&self, config: &Consumers, now: Timestamp) -> Vec<Statement> {
        const DAY_MS: i64 = 86_400_000;
        let day = now.millis().div_euclid(DAY_MS);
        let mut rules: BTreeMap<&str, (u64, Map<String, Value>)> = BTreeMap::new();
        for (rule, value, count) in self.rows.by_name(&config.program) {
            let (rows, absent) = rules.entry(rule).or_default();
            match value {
                None => *rows += count,
                Some(value) => drop(absent.insert(value.to_owned(), count.into())),
            }
        }
        let rules: Vec<_> =
            rules.iter().map(|(rule, (rows, absent))| (rule, rows, absent)).collect();
        let versions = self.versions.iter().map(|((source, version), events)| {
            let expected = u8::from(is_expected(config, source, version));
            (source, version, expected, events.count, events.first_at, events.last_at)
        });
        let versions: Vec<_> = versions.collect();
        let rows = (!rules.is_empty())
            .then(|| Statement::new(COUNT_ROWS, params![Param::json(&rules), day]));
        let versions = (!versions.is_empty()).then(|| {
            let params = params![Param::json(&versions), day, VERSIONS_A_DAY, OTHER];
            Statement::new(COUNT_VERSIONS, params)
        });
        rows.into_iter().chain(versions).collect()
    }
}

fn is_expected(config: &Consumers, source: &str, version: &str) -> bool {
    let expected = config.api_versions.get(source);
    expected.is_none_or(|expected| expected.iter().any(|known| known == version))
}

/// The counts of a process that are not written yet.
#[derive(Debug, Default)]
pub struct Counters(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pending: Counts,
    /// By source: the API versions of its events since the process began.
    versions: BTreeMap<String, BTreeSet<String>>,
    written_at: Option<Timestamp>,
}

impl Counters {
    /// No counts.
    pub const fn new() -> Self {
        let pending = Counts { rows: RowCounts(BTreeMap::new()), versions: BTreeMap::new() };
        Self(Mutex::new(State { pending, versions: BTreeMap::new(), written_at: None }))
    }

    /// Adds the counts of a batch. Returns a line of the log for each unexpected API version that the process has not seen
    /// before.
    pub fn add(&self, config: &Consumers, batch: &BatchResult) -> Vec<Entry> {
        let mut state = self.lock();
        state.pending.rows.add(&batch.rows);
        let counted = batch.settled.iter().filter_map(version);
        counted
            .filter_map(|(source, version, at)| state.count(config, source, version, at))
            .collect()
    }

    /// Whether there are counts to write now.
    pub fn due(&self, now: Timestamp) -> bool {
        let state = self.lock();
        let is_time = state.written_at.is_none_or(|at| now >= at + WINDOW || now < at);
        is_time && !state.pending.is_empty()
    }

    /// Writes the counts, and returns them.
    ///
    /// # Errors
    ///
    /// If the store fails; the counts stay for the next write. After an error of the connection, the store may have them.
    pub async fn write<S: Store>(
        &self,
        store: &S,
        config: &Consumers,
        now: Timestamp,
    ) -> Result<Counts, StoreError> {
        let counts = {
            let mut state = self.lock();
            state.written_at = Some(now);
            std::mem::take(&mut state.pending)
        };
        if !counts.is_empty()
            && let Err(error) = store.execute(counts.statements(config, now)).await
        {
            self.lock().pending.add(&counts);
            return Err(error);
        }
        Ok(counts)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an event. Returns a line of the log if its version is new and unexpected.
    fn count(
        &mut self,
        config: &Consumers,
        source: &str,
        version: &str,
        at: Timestamp,
    ) -> Option<Entry> {
        let known = match self.versions.get_mut(source) {
            Some(known) => known,
            None => self.versions.entry(source.to_owned()).or_default(),
        };
        let version =
            if known.len() < VERSIONS || known.contains(version) { version } else { OTHER };
        let is_new = !known.contains(version) && known.insert(version.to_owned());
        self.pending.add_version(source, version, &Events { count: 1, first_at: at, last_at: at });
        (is_new && !is_expected(config, source, version)).then(|| {
            let (source, version) = (Some(source.to_owned()), Some(version.to_owned()));
            let message =
                "events have an API version that the source's `api_version` does not list";
            Entry::warn(message, Fields { source, version, ..Fields::default() })
        })
    }
}

/// The source and the API version of an event, and when it was received. `None` for a retry, which a later delivery counts,
/// and for duplicates and reprocessed events, which an earlier one counted.
fn version(settled: &Settled) -> Option<(&str, &str, Timestamp)> {
    let envelope = settled.envelope.as_ref().filter(|envelope| envelope.generation == 0)?;
    match settled.fate {
        Fate::Applied | Fate::Recorded | Fate::Ignored | Fate::Condemned { .. } => {
            Some((&envelope.source, envelope.api_version.as_deref()?, envelope.received_at))
        }
        Fate::Duplicate | Fate::Unavailable(_) => None,
    }
}
