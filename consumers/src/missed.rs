//! Finds events that the provider has made and that never arrived: a sweep reads the provider's log of events, and puts those
//! on the queue that neither the ledger nor a dead letter has. They are ordinary events from there, but nothing signs them.
//!
//! A sweep begins an hour before the end of the last one, since a log may show an event late, and ends some minutes before now,
//! since the event may be on its way. The ledger makes it free to find an event twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hookmill_config::Consumers;
use hookmill_core::fetch::Fetch;
use hookmill_core::message::{BodyForm, Envelope, FromApi, VERSION, Verified};
use hookmill_core::objects::{Objects, message};
use hookmill_core::outbound::{ApiRequest, ApiResponse, Authorization, Method};
use hookmill_core::params;
use hookmill_core::queue::Queue;
use hookmill_core::store::{Param, Rows, Statement, Store, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use hookmill_rules::api::{self, Logged, log, logged};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::refetch::Apis;
use crate::retry::delay;

/// How far a sweep goes back before the end of the last one.
const OVERLAP: Duration = Duration::from_secs(3600);
/// The time for which an event may be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(300);
/// Nothing is sent for an event that is older.
const LATE: Duration = DAY;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The time for which a process may run a step. After that, the process counts as ended.
const LEASE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// `?1` JSON: by source, the time between two sweeps in milliseconds; `?2` now, `?3` where the first sweep begins.
const BEGIN: &str = "\
-- sources that are swept
INSERT INTO sweeps (source, swept_to, due_at) SELECT key, ?3, ?2 FROM jsonb_each(?1) WHERE true
ON CONFLICT (source) DO NOTHING";

/// `?1` now, `?2` the latest possible due time.
const AHEAD: &str = "\
-- sweeps with times of a clock that was ahead
UPDATE sweeps SET due_at = ?1, swept_to = min(swept_to, ?1) WHERE due_at > ?2";

/// `?1` now, `?2` the end of the lease, `?3` JSON: by source, the provider.
const TAKE: &str = "\
-- lease a sweep
UPDATE sweeps SET due_at = ?2
WHERE source = (
    SELECT source FROM sweeps JOIN jsonb_each(?3) ON source = key WHERE due_at <= ?1 AND NOT EXISTS (
        SELECT 1 FROM outbox_senders WHERE provider = value AND free_at > ?1
    )
    ORDER BY due_at LIMIT 1
)
RETURNING source, swept_to, until, page, failures";

/// In the transaction of [`TAKE`]. `?1` the end of the lease, `?2` JSON: by source, the provider and the earliest time of the
/// next request.
const SPACE: &str = "\
-- keep the rate limit of an API
INSERT INTO outbox_senders (provider, free_at)
SELECT value ->> 0, value ->> 1 FROM sweeps JOIN jsonb_each(?2) ON source = key WHERE due_at = ?1
ON CONFLICT (provider) DO UPDATE SET free_at = excluded.free_at WHERE free_at < excluded.free_at";

/// `?1` JSON: by source, the provider.
const NEXT: &str = "\
-- when the next sweep is due
SELECT min(max(due_at, coalesce((SELECT free_at FROM outbox_senders WHERE provider = value), 0))) AS due_at
FROM sweeps JOIN jsonb_each(?1) ON source = key";

/// `?1` source, `?2` JSON: ids.
const UNKNOWN: &str = "\
-- events that are unknown
SELECT value AS id FROM jsonb_each(?2)
WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.source = ?1 AND events.id = value AND generation = 0)
    AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE event_id = value AND dead_letters.source = ?1)
    AND NOT EXISTS (SELECT 1 FROM retries WHERE retries.source = ?1 AND retries.id = value)";

/// `?2` found events, `?3` the end of the sweep's time, `?4` the next page, `?5` when it is due.
const STEPPED: &str = "\
-- a page of a sweep
UPDATE sweeps SET found = found + ?2, found_last = iif(until IS NULL, 0, found_last) + ?2, until = ?3, page = ?4,
    due_at = ?5, failures = 0, error = NULL
WHERE source = ?1";

/// `?2` found events, `?3` the end of the sweep's time, `?4` when the next one is due, `?5` now.
const SWEPT: &str = "\
-- a sweep is complete
UPDATE sweeps SET found = found + ?2, found_last = iif(until IS NULL, 0, found_last) + ?2, swept_to = ?3, until = NULL,
    page = NULL, due_at = ?4, failures = 0, error = NULL, swept_at = ?5
WHERE source = ?1";

/// `?2` the error, `?3` when the request is due again, `?4` the page.
const FAILED: &str = "\
-- a sweep cannot go on
UPDATE sweeps SET failures = failures + 1, error = ?2, due_at = ?3, page = ?4 WHERE source = ?1";

/// The result of a step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// The source and the number of events that were never delivered; none if no sweep was due, or nothing was found.
    pub found: Option<(String, usize)>,
    /// A sentence about what failed.
    pub problem: Option<String>,
    /// When more work is due; none if nothing is swept.
    pub next: Option<Timestamp>,
}

/// A leased sweep: the answer to [`TAKE`].
#[derive(Debug, Deserialize)]
pub(crate) struct Sweep {
    source: String,
    swept_to: Timestamp,
    until: Option<Timestamp>,
    page: Option<String>,
    failures: u32,
}

/// The statements that lease a sweep that is due; none if nothing is swept. [`taken`] reads their rows.
pub(crate) fn take(config: &Consumers, now: Timestamp) -> Vec<Statement> {
    if config.sweeps.is_empty() {
        return Vec::new();
    }
    let lease = now + LEASE;
    let longest = config.sweeps.values().max().copied().unwrap_or_default();
    let horizon = now.horizon(longest.max(LEASE).max(config.retry.longest()));
    let free_at: BTreeMap<_, _> = swept(config)
        .map(|(source, api)| {
            let free_at = now + SECOND / api.rate.max(1);
            (source, (api.provider.as_str(), free_at))
        })
        .collect();
    let sources =
        Param::json(&config.sweeps.keys().map(|source| (source, 0)).collect::<BTreeMap<_, _>>());
    vec![
        Statement::new(BEGIN, params![sources, now, now - ON_ITS_WAY]),
        Statement::new(AHEAD, params![now, horizon]),
        Statement::new(TAKE, params![now, lease, providers(config)]),
        Statement::new(SPACE, params![lease, Param::json(&free_at)]),
        next(config),
    ]
}

/// The sources that are swept, and their APIs.
fn swept(config: &Consumers) -> impl Iterator<Item = (&String, &hookmill_config::Api)> {
    config.sweeps.keys().filter_map(|source| Some((source, config.apis.get(source)?)))
}

fn providers(config: &Consumers) -> Param {
    let providers = swept(config).map(|(source, api)| (source, api.provider.as_str()));
    Param::json(&providers.collect::<BTreeMap<_, _>>())
}

fn next(config: &Consumers) -> Statement {
    Statement::new(NEXT, params![providers(config)])
}

/// The sweep that was leased, and when the next one is due.
pub(crate) fn taken(rows: &[Rows]) -> Result<(Option<Sweep>, Option<Timestamp>), StoreError> {
    const TAKEN: usize = 2;
    if rows.is_empty() {
        return Ok((None, None));
    }
    Ok((read(answer(rows, TAKEN))?.pop(), hookmill_dlq::replay::next(rows.last())?))
}

/// Requests a page of a log, and puts the events on the queue that never arrived. A crash between any two steps leaves a state that
/// the next step can resume: the page is requested again, and the ledger rejects the events that were sent.
///
/// # Errors
///
/// If the store fails.
pub(crate) async fn step<S: Store, F: Fetch, Q: Queue, O: Objects>(
    (store, fetch): (&S, &F),
    to: (&Q, &O),
    (config, apis): (&Consumers, &Apis),
    sweep: Sweep,
    now: &impl Fn() -> Timestamp,
) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    let source = sweep.source.clone();
    let api = apis.get(&source).and_then(|(api, key)| Some((api, key, log(api.provider)?)));
    let Some((api, key, log)) = api else { return Ok(swept) };
    let start = now();
    // What the log no longer has cannot be found.
    let from = if sweep.swept_to > start {
        // A clock that was ahead has set it.
        start - DAY
    } else {
        (sweep.swept_to - OVERLAP).max(start - log.window)
    };
    let until = sweep.until.unwrap_or(start - ON_ITS_WAY);
    let first = log.path(from, until);
    let page = sweep.page.clone().unwrap_or_else(|| first.clone());
    let request = ApiRequest {
        method: Method::Get,
        url: format!("{}{page}", api.url),
        headers: Vec::new(),
        authorization: Authorization::Bearer,
        body: String::new(),
    };
    let hidden = request.hidden_key(key);
    let answer = fetch.ask(request, key).await.map_err(|error| hidden.in_text(&error.to_string()));
    let span = Span { first: &first, page: &page, from, until };
    let interval = config.sweeps.get(&source).copied().unwrap_or_default();
    let result = match answer {
        Ok(ApiResponse { status: 200, body, .. }) => {
            found((store, config), to, (&source, api), &span, &body, start).await?
        }
        // The event after which the page begins has left the log.
        Ok(ApiResponse { status: 400 | 404, .. }) if sweep.page.is_some() => {
            Err(("the log has changed".to_owned(), None))
        }
        Ok(ApiResponse { status: status @ (401 | 403), .. }) => Err((
            format!("response {status}; check that the key {} can read events", api.key.0),
            None,
        )),
        Ok(ApiResponse { status, retry_after, .. }) => {
            let after = retry_after.and_then(|seconds| seconds.trim().parse().ok());
            Err((format!("response {status}"), after.map(Duration::from_secs)))
        }
        Err(error) => Err((error, None)),
    };
    let statement = match result {
        Ok((count, next)) => {
            swept.found = (count > 0).then(|| (source.clone(), count));
            match next {
                Some(next) => Statement::new(STEPPED, params![&source, count, until, next, now()]),
                None => {
                    Statement::new(SWEPT, params![&source, count, until, start + interval, now()])
                }
            }
        }
        Err((error, after)) => {
            let wait =
                after.unwrap_or_else(|| delay(&config.retry, sweep.failures.saturating_add(1)));
            let due_at = now() + wait.min(config.retry.max).max(SECOND);
            let error = format!("cannot read the events of {}: {error}", api.provider.as_str());
            swept.problem = Some(format!("sweep of {source}: {error}; next request at {due_at}"));
            let page = sweep.page.filter(|_| !error.ends_with("has changed"));
            Statement::new(FAILED, params![&source, error, due_at, page])
        }
    };
    let rows = store.execute(vec![statement, next(config)]).await?;
    swept.next = hookmill_dlq::replay::next(rows.last())?;
    Ok(swept)
}

/// The part of a log that a sweep reads.
struct Span<'a> {
    first: &'a str,
    page: &'a str,
    from: Timestamp,
    until: Timestamp,
}

/// Why a page could not be used, and how long the provider wants to wait.
type Failure = (String, Option<Duration>);

/// Puts the unknown events of a page on the queue. Returns their number, and the next page.
async fn found<S: Store, Q: Queue, O: Objects>(
    (store, config): (&S, &Consumers),
    (queue, objects): (&Q, &O),
    (source, api): (&str, &hookmill_config::Api),
    span: &Span<'_>,
    body: &str,
    now: Timestamp,
) -> Result<Result<(usize, Option<String>), Failure>, StoreError> {
    let read_page = || -> Result<_, String> {
        let page = api::page(api.provider, span.first, span.page, body)?;
        let events = page.objects.into_iter();
        let events = events.map(|event| Ok((logged(api.provider, event)?, event)));
        Ok((events.collect::<Result<Vec<_>, String>>()?, page.next))
    };
    let (events, next) = match read_page() {
        Ok(page) => page,
        Err(error) => return Ok(Err((error, None))),
    };
    // The log would never end.
    if next.as_deref() == Some(span.page) {
        return Ok(Err(("the page has the same events as the one before".to_owned(), None)));
    }
    // The newest come first, so the rest is older.
    let is_over = events.last().is_none_or(|(event, _)| event.at < span.from);
    let is_wanted = |(event, _): &(Logged, &RawValue)| {
        let is_named = config.program.matching(source, &event.event_type).next().is_some();
        (span.from..span.until).contains(&event.at) && is_named
    };
    let wanted: Vec<_> = events.into_iter().filter(is_wanted).collect();
    let ids: Vec<_> = wanted.iter().map(|(event, _)| event.id.as_str()).collect();
    let unknown: BTreeSet<String> = if ids.is_empty() {
        BTreeSet::new()
    } else {
        let rows =
            store.query(vec![Statement::new(UNKNOWN, params![source, Param::json(&ids)])]).await?;
        let unknown: Vec<Unknown> = read(answer(&rows, 0))?;
        unknown.into_iter().map(|row| row.id).collect()
    };
    let mut messages = Vec::new();
    for (event, body) in wanted.into_iter().filter(|(event, _)| unknown.contains(&event.id)) {
        let mut envelope = Envelope {
            v: VERSION,
            source: source.to_owned(),
            id: event.id,
            kind: event.event_type,
            received_at: now,
            verified: Verified { secret: 0, signed_at: None },
            generation: 0,
            rules: Vec::new(),
            headers: BTreeMap::new(),
            api_version: None,
            from_api: Some(FromApi::Event { late: event.at < now - LATE }),
            body: BodyForm::Text,
        };
        match message(objects, &mut envelope, body.get().as_bytes()).await {
            Ok(text) => messages.push(text),
            Err(error) => return Ok(Err((error.to_string(), None))),
        }
    }
    let count = messages.len();
    if count > 0
        && let Err(error) = queue.send(messages).await
    {
        return Ok(Err((error.to_string(), None)));
    }
    Ok(Ok((count, next.filter(|_| !is_over))))
}

/// The answer to [`UNKNOWN`].
#[derive(Deserialize)]
struct Unknown {
    id: String,
}
