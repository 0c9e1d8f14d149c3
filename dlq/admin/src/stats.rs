//! Statistics, rejections and the audit.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use hookmill_core::limits::COUNTED;
use hookmill_core::params;
use hookmill_core::rejection::Reason;
use hookmill_core::time::Timestamp;
use hookmill_core::words::{self, AuditAction, LetterReason, OutboxState, RuleEffect};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::page::{Page, Paging};
use crate::platform::{Admin, given};
use crate::problem::{Problem, Query};

const AUDIT: &str = "\
-- audit
SELECT json_object('id', id, 'at', at, 'actor', actor, 'action', action, 'target', target, 'reason', reason,
    'detail', json(detail))
FROM audit WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2";

const REJECTIONS: &str = "\
-- rejections
SELECT json_object('source', source, 'reason', reason, 'at', at, 'remote', remote, 'detail', coalesce(detail, ''),
    'content_length', content_length, 'body_bytes', body_bytes)
FROM rejections
WHERE (?1 IS NULL OR source = iif(?1 = '-', '', ?1)) AND (?2 IS NULL OR reason = ?2) AND (?3 IS NULL OR at < ?3
    OR (at = ?3 AND source || ' ' || reason || ' ' || remote < ?4))
ORDER BY at DESC, source || ' ' || reason || ' ' || remote DESC LIMIT ?5";

const PROVIDER_USAGE: &str = "\
-- usage of providers
SELECT json_object('provider', provider, 'period', period, 'sent', sent, 'requests', requests) FROM outbox_usage
ORDER BY length(period), period DESC, provider LIMIT ?1";

/// The maximum window: a day.
const MINUTES: i64 = 24 * 60;

/// The current state. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    /// The time of these numbers.
    #[schema(value_type = i64)]
    at: Timestamp,
    /// Applied events per minute, earliest first. Minutes without events are omitted.
    activity: Vec<Activity>,
    /// The messages on each queue.
    queues: Vec<QueueBacklog>,
    retrying: RetryingEvents,
    dead_letters: DeadLetters,
    /// The highest count of retrying events, of dead letters and of the outbox: this value means this many or more.
    #[schema(example = 10_000)]
    counted_to: u32,
    /// Replays that are running or paused.
    replays: u64,
    /// The outbox by channel and state, without sent messages, which are in `usage`.
    outbox: Vec<OutboxCount>,
    /// Rejected requests in this window, by source and reason.
    rejections: Vec<RejectionCount>,
    /// Messages sent through providers today and this month (UTC).
    usage: Vec<Usage>,
    /// The sweeps of providers' logs of events, by source.
    sweeps: Vec<SweepState>,
    /// The size of the database in bytes, if it is known.
    database_bytes: Option<u64>,
}

/// What is known of a provider's log of events.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SweepState {
    source: String,
    /// Of the events before this time, every one is applied, waits, or was found.
    #[schema(value_type = i64)]
    swept_to: Timestamp,
    /// When the last complete sweep ended.
    #[schema(value_type = Option<i64>)]
    swept_at: Option<Timestamp>,
    /// The number of events that were never delivered and were found, ever.
    found: u64,
    /// The same of the last sweep.
    found_last: u64,
    /// Why the sweep cannot go on, if it cannot.
    error: Option<String>,
}

/// The messages on a queue: those without a verdict, and those that wait for a retry.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct QueueBacklog {
    /// `events`, `replays`, or `dead_letters` (messages that the platform gave up).
    pub queue: &'static str,
    /// Their number.
    pub messages: u64,
    /// When the oldest was sent.
    #[schema(value_type = Option<i64>)]
    pub oldest: Option<Timestamp>,
}

/// Events whose last attempt failed, and that wait for the next.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct RetryingEvents {
    events: u64,
    /// When the oldest was received.
    #[schema(value_type = Option<i64>)]
    oldest: Option<Timestamp>,
    /// The earliest time of a next attempt.
    #[schema(value_type = Option<i64>)]
    next_attempt_at: Option<Timestamp>,
    /// The error of the event that failed last.
    error: Option<String>,
}

/// Events applied in one minute.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Activity {
    /// The start of the minute.
    #[schema(value_type = i64)]
    at: Timestamp,
    source: String,
    /// `applied`, or `recorded` (no rule names it).
    outcome: String,
    events: u64,
    /// The longest time from receipt to result, in milliseconds.
    lag: i64,
}

/// Counts of dead letters.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct DeadLetters {
    dead: u64,
    /// Letters that a replay has selected or queued.
    replaying: u64,
    /// When the oldest dead letter first failed.
    #[schema(value_type = Option<i64>)]
    oldest: Option<Timestamp>,
    /// Dead letters by reason.
    reasons: Vec<ReasonCount>,
}

/// The number of dead letters with a reason.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ReasonCount {
    reason: LetterReason,
    count: u64,
}

/// The number of messages of a channel in a state.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct OutboxCount {
    channel: String,
    state: OutboxState,
    count: u64,
}

/// The number of rejected requests of a source, by reason.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RejectionCount {
    /// Blank if the request named no configured source.
    source: String,
    #[schema(schema_with = words::recorded::<Reason>)]
    reason: String,
    count: u64,
}

/// The number of messages sent through a provider.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Usage {
    provider: String,
    /// A day (`2026-01-01`) or a month (`2026-01`).
    period: String,
    /// Emails (one per recipient), SMS, or tracking events.
    sent: u64,
    requests: u64,
}

/// A time window.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Window {
    /// The window in minutes, at most 1440. Default: 60.
    #[param(minimum = 1, maximum = 1440)]
    minutes: Option<i64>,
}

const ACTIVITY: &str = "\
-- events by minute
SELECT json_object('at', minute * 60000, 'source', source, 'outcome', outcome, 'events', events, 'lag', lag)
FROM activity WHERE minute > ?1 ORDER BY minute, source, outcome";

/// `?1` [`COUNTED`].
const RETRYING: &str = "\
-- retrying events
WITH waiting AS MATERIALIZED (
    SELECT received_at, due_at, updated_at, failures FROM retries WHERE due_at IS NOT NULL ORDER BY updated_at DESC LIMIT ?1
)
SELECT json_object('events', count(*), 'oldest', min(received_at), 'next_attempt_at', min(due_at),
    'error', (SELECT failures ->> '$[#-1].error' FROM waiting ORDER BY updated_at DESC LIMIT 1))
FROM waiting";

/// `?1` [`COUNTED`].
const DEAD: &str = "\
-- dead letters by reason
WITH dead AS MATERIALIZED (SELECT reason FROM dead_letters WHERE state = 'dead' LIMIT ?1)
SELECT json_object(
    'dead', (SELECT count(*) FROM dead),
    'replaying', (SELECT count(*) FROM (
        SELECT 1 FROM dead_letters WHERE state IN ('replaying', 'replayed') LIMIT ?1
    )),
    'oldest', (SELECT min(first_failed_at) FROM dead_letters INDEXED BY dead_letters_oldest WHERE state = 'dead'),
    'reasons', json((SELECT json_group_array(json_object('reason', reason, 'count', n)) FROM (
        SELECT reason, count(*) AS n FROM dead GROUP BY reason ORDER BY reason
    ))))";

const SWEEPS: &str = "\
-- sweeps
SELECT json_object('source', source, 'swept_to', swept_to, 'swept_at', swept_at, 'found', found, 'found_last', found_last,
    'error', error) FROM sweeps ORDER BY source";

const REPLAYS: &str = "\
-- active replays
SELECT json_quote(count(*)) FROM replays WHERE state IN ('running', 'paused')";

/// `?1` [`COUNTED`]. An index serves each state.
const OUTBOX: &str = "\
-- outbox by channel and state
SELECT json_object('channel', channel, 'state', state, 'count', sum(n)) FROM (
    SELECT channel, 'pending' AS state, 1 AS n FROM (
        SELECT channel FROM outbox WHERE state = 'pending' LIMIT ?1
    )
    UNION ALL
    SELECT channel, 'sealed', json_array_length(members) FROM (
        SELECT channel, members FROM outbox_batches WHERE state IN ('sealed', 'sending') LIMIT ?1
    )
    UNION ALL
    SELECT channel, state, 1 FROM (
        SELECT channel, state FROM outbox WHERE state IN ('refused', 'suppressed', 'uncertain') LIMIT ?1
    )
) GROUP BY channel, state ORDER BY channel, state";

const REJECTED: &str = "\
-- rejections
WITH recent AS MATERIALIZED (SELECT source, reason, count FROM rejection_counts WHERE hour > ?1)
SELECT json_object('source', source, 'reason', reason, 'count', sum(count)) FROM recent
GROUP BY source, reason ORDER BY source, reason";

const USAGE: &str = "\
-- usage of providers
SELECT json_object('provider', provider, 'period', period, 'sent', sent, 'requests', requests) FROM outbox_usage
WHERE period IN (?1, ?2) ORDER BY provider, period";

/// Get the current state.
#[utoipa::path(
    get, path = "/stats", tag = "operation", params(Window),
    responses((status = 200, body = Stats), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn stats(
    State(admin): State<Admin>,
    Query(window): Query<Window>,
) -> Result<Json<Stats>, Problem> {
    let minutes = window.minutes.unwrap_or(60);
    if !(1..=MINUTES).contains(&minutes) {
        return Err(Problem::invalid(format!("minutes is {minutes}; use 1 to {MINUTES}")));
    }
    let now = admin.now();
    let minute = now.millis().div_euclid(60_000) - minutes;
    let since = now.millis() - minutes * 60_000 - 3_600_000;
    let none = DeadLetters { dead: 0, replaying: 0, oldest: None, reasons: Vec::new() };
    Ok(Json(Stats {
        at: now,
        activity: admin.ask(ACTIVITY, params![minute]).await?,
        queues: admin.0.backlogs().await,
        retrying: admin.ask(RETRYING, params![COUNTED]).await?.pop().unwrap_or_default(),
        dead_letters: admin.ask(DEAD, params![COUNTED]).await?.pop().unwrap_or(none),
        counted_to: COUNTED,
        replays: admin.ask(REPLAYS, Vec::new()).await?.pop().unwrap_or_default(),
        outbox: admin.ask(OUTBOX, params![COUNTED]).await?,
        rejections: admin.ask(REJECTED, params![since]).await?,
        usage: admin.ask(USAGE, params![now.day(), now.month()]).await?,
        sweeps: admin.ask(SWEEPS, Vec::new()).await?,
        database_bytes: admin.0.size().await,
    }))
}

/// A limit.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Limited {
    /// The number of rows, at most 1000. Default: 40.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// List messages sent through providers, by day and by month (UTC), latest first.
#[utoipa::path(
    get, path = "/usage", tag = "operation", params(Limited),
    responses((status = 200, body = Vec<Usage>), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn usage(
    State(admin): State<Admin>,
    Query(limited): Query<Limited>,
) -> Result<Json<Vec<Usage>>, Problem> {
    let limit = limited.limit.unwrap_or(40);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::invalid(format!("limit is {limit}; use 1 to 1000")));
    }
    Ok(Json(admin.ask(PROVIDER_USAGE, params![limit]).await?))
}

/// A rejected request: one of the last few of its kind.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Rejection {
    /// Blank if the request named no configured source.
    source: String,
    #[schema(schema_with = words::recorded::<Reason>)]
    reason: String,
    #[schema(value_type = i64)]
    at: Timestamp,
    /// A hash of the client's address.
    remote: String,
    /// What Hookmill found.
    detail: String,
    /// The request's `Content-Length`.
    content_length: Option<i64>,
    /// The number of bytes read from the body.
    body_bytes: Option<i64>,
}

/// A filter of rejections.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Refused {
    /// The source; `-` for requests that named no configured source.
    source: Option<String>,
    /// The reason.
    #[serde(default, deserialize_with = "words::unless_blank")]
    #[param(schema_with = words::looked_for::<Reason>)]
    reason: Option<Reason>,
}

/// List the last few rejected requests of each kind, latest first.
#[utoipa::path(
    get, path = "/rejections", tag = "operation", params(Refused, Paging),
    responses((status = 200, body = Page<Rejection>), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn rejections(
    State(admin): State<Admin>,
    Query(refused): Query<Refused>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Rejection>>, Problem> {
    let (at, id) = paging.after()?;
    let (source, reason) = (given(refused.source.as_ref()), refused.reason.map(Reason::as_str));
    let params = params![source, reason, at, id, paging.limit()?];
    let found = admin.ask::<Rejection>(REJECTIONS, params).await?;
    let key = |one: &Rejection| {
        (one.at.millis(), format!("{} {} {}", one.source, one.reason, one.remote))
    };
    Ok(Json(paging.page(found, key)?))
}

/// A change that an operator made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Act {
    id: i64,
    #[schema(value_type = i64)]
    at: Timestamp,
    /// The name of the token.
    actor: String,
    #[schema(schema_with = words::recorded::<AuditAction>)]
    action: String,
    /// The id, or the address, of the changed object.
    target: String,
    reason: String,
    /// Details of the change.
    detail: Value,
}

/// List changes made through this API, latest first.
#[utoipa::path(
    get, path = "/audit", tag = "operation", params(Paging),
    responses((status = 200, body = Page<Act>), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn audit(
    State(admin): State<Admin>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Act>>, Problem> {
    let (id, _) = paging.after()?;
    let found = admin.ask::<Act>(AUDIT, params![id, paging.limit()?]).await?;
    Ok(Json(paging.page(found, |act| (act.id, String::new()))?))
}

/// The loaded configuration.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Configuration {
    /// The version of Hookmill.
    version: String,
    /// The hash of hookmill.toml, in hex.
    sha256: String,
    /// The content of hookmill.toml without comments. It contains the names of secrets, not their values.
    file: Value,
    /// All rules in order, including those of presets.
    pub(crate) rules: Vec<RuleInForce>,
    /// By source with an API: the lists that an import reads, those whose objects some rule keeps.
    pub(crate) imports: BTreeMap<String, Vec<String>>,
}

/// A rule.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RuleInForce {
    pub(crate) name: String,
    /// The events that it matches.
    on: Vec<String>,
    pub(crate) effect: RuleEffect,
    /// The table, template, provider, outcome or reason. Blank for an SMS.
    target: String,
}

/// Get the loaded configuration.
#[utoipa::path(
    get, path = "/configuration", tag = "operation",
    responses((status = 200, body = Configuration), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn configuration(
    State(admin): State<Admin>,
) -> Result<Json<Configuration>, Problem> {
    let nothing = "this API runs on a data folder without a configuration";
    let config = admin.0.config().ok_or_else(|| Problem::not_found(nothing))?;
    let read = serde_json::from_str(&config.overview);
    read.map(Json).map_err(|error| Problem::broken(&error.to_string()))
}
