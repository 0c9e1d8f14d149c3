//! Fetches objects from providers' APIs when two events have the same version and the rule has no other way to order them.
//!
//! The transaction that applies such an event records that its object must be fetched, so a crash after it loses nothing.
//! The event's rule applies the fetched object under the same guard: it outranks every event of that version and earlier
//! fetches, but no newer version and no deletion.

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_config::{Api, Consumers};
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::message::{BodyForm, Envelope, FromApi, VERSION, Verified};
use hookmill_core::outbound::{ApiRequest, ApiResponse, Authorization, Method, Provider};
use hookmill_core::panics::caught;
use hookmill_core::params;
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::store::{Param, Rows, Statement, Store, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use hookmill_rules::Rule;
use hookmill_rules::api::{id, in_url, object, with_object};
use hookmill_rules::row::Row;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::outbox::{ChannelError, state, usable};
use crate::plan::rows_of;
use crate::retry::delay;

/// The time for which a process may fetch an object. After that, the process counts as ended.
const LEASE: Duration = Duration::from_secs(120);
/// The maximum number of objects that one round fetches for a source.
const OBJECTS: usize = 5;

/// The APIs and their keys, by source.
#[derive(Clone, Debug, Default)]
pub struct Apis(BTreeMap<String, (Api, Secret)>);

impl Apis {
    /// The APIs of a configuration.
    ///
    /// # Errors
    ///
    /// Every key that is not set or not valid.
    pub fn new(
        config: &Consumers,
        lookup: impl Fn(&SecretName) -> Option<Secret>,
    ) -> Result<Self, Vec<ChannelError>> {
        let mut errors = Vec::new();
        let mut apis = BTreeMap::new();
        for (source, api) in &config.apis {
            match usable(api, &lookup) {
                Ok(key) => drop(apis.insert(source.clone(), (api.clone(), key))),
                Err(problem) => errors.push(problem),
            }
        }
        if errors.is_empty() { Ok(Self(apis)) } else { Err(errors) }
    }

    /// The API of a source, and its key.
    pub(crate) fn get(&self, source: &str) -> Option<(&Api, &Secret)> {
        self.0.get(source).map(|(api, key)| (api, key))
    }

    /// Whether no API is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Asks when the next object is due.
    fn next(&self) -> Statement {
        let pairs = self.0.iter().map(|(source, (api, _))| (source, api.provider.as_str()));
        Statement::new(NEXT, params![Param::json(&pairs.collect::<Vec<_>>())])
    }
}

/// Fetches again what other processes were fetching; for a caller that knows that these processes have ended. A retry that
/// is due soon comes earlier, which does no harm.
///
/// # Errors
///
/// If the store fails. Then the objects are fetched when their leases end.
pub async fn resume<S: Store>(store: &S, apis: &Apis, now: Timestamp) -> Result<(), StoreError> {
    let free = |source| Statement::new(FREE, params![now, now + LEASE, source]);
    store.execute(apis.0.keys().map(free).collect()).await.map(drop)
}

/// The result of a round.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fetched {
    /// The number of objects that were applied.
    pub applied: usize,
    /// Sentences about failures.
    pub problems: Vec<String>,
    /// When more work is due; none if no work is known.
    pub next: Option<Timestamp>,
}

/// An object to fetch: the answer to [`TAKE`].
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
struct Wanted {
    rule: String,
    path: String,
    source: String,
    event_id: String,
    #[serde(rename = "type")]
    kind: String,
    /// JSON: the event's body without the object.
    rest: String,
    attempts: u32,
}

/// `?1` now, `?2` the latest possible due time, `?3` source.
const AHEAD: &str = "\
-- objects with times of a clock that was ahead
UPDATE refetches SET due_at = ?1 WHERE source = ?3 AND due_at > ?2";

/// `?1` now, `?2` the end of the lease, `?3` source, `?4` provider.
const TAKE: &str = "\
-- lease an object
UPDATE refetches SET due_at = ?2, attempts = attempts + 1
WHERE (rule, path) = (
    SELECT rule, path FROM refetches WHERE source = ?3 AND due_at <= ?1
        AND NOT EXISTS (SELECT 1 FROM outbox_senders WHERE provider = ?4 AND free_at > ?1)
    ORDER BY due_at LIMIT 1
)
RETURNING rule, path, source, event_id, type, rest, attempts";

/// `?1` now, `?2` the end of a lease that begins now, `?3` source.
const FREE: &str = "\
-- objects that a process was fetching
UPDATE refetches SET due_at = ?1 WHERE source = ?3 AND due_at > ?1 AND due_at <= ?2 AND attempts > 0";

/// In the transaction of [`TAKE`]. `?1` provider, `?2` the end of the lease, `?3` the earliest time of the next request,
/// `?4` source.
const SPACE: &str = "\
-- keep the rate limit
INSERT INTO outbox_senders (provider, free_at)
SELECT ?1, ?3
WHERE EXISTS (SELECT 1 FROM refetches WHERE source = ?4 AND due_at = ?2)
ON CONFLICT (provider) DO UPDATE SET free_at = excluded.free_at WHERE free_at < excluded.free_at";

/// Unless another event has requested the object meanwhile.
const DONE: &str = "\
-- the object was fetched
DELETE FROM refetches WHERE rule = ?1 AND path = ?2 AND event_id = ?3";

const LATER: &str = "\
-- retry later
UPDATE refetches SET due_at = ?4 WHERE rule = ?1 AND path = ?2 AND event_id = ?3";

const NEXT: &str = "\
-- when the next object is due
SELECT min(max(
    (SELECT min(due_at) FROM refetches WHERE source = api.value ->> 0),
    coalesce((SELECT free_at FROM outbox_senders WHERE provider = api.value ->> 1), 0)
)) AS at FROM jsonb_each(?1) AS api";

/// The answer to [`NEXT`].
#[derive(Deserialize)]
struct Next {
    at: Option<Timestamp>,
}

/// Fetches the objects that are due, within the rate limits of the APIs, and applies them.
///
/// # Errors
///
/// If the store fails. An object that was being fetched is fetched again when its lease ends.
pub async fn round<S: Store, F: Fetch>(
    store: &S,
    fetch: &F,
    config: &Consumers,
    apis: &Apis,
    now: impl Fn() -> Timestamp,
) -> Result<Fetched, StoreError> {
    let round = round_with(store, fetch, config, apis, now, Vec::new()).await;
    round.map(|(fetched, _)| fetched)
}

/// The same. The first transaction, which leases objects, ends with `more` statements; also returns their rows.
pub(crate) async fn round_with<S: Store, F: Fetch>(
    store: &S,
    fetch: &F,
    config: &Consumers,
    apis: &Apis,
    now: impl Fn() -> Timestamp,
    mut more: Vec<Statement>,
) -> Result<(Fetched, Vec<Rows>), StoreError> {
    let mut fetched = Fetched::default();
    let mut rows_of_more = Vec::new();
    let longest = config.retry.longest();
    let mut next = None;
    for turn in 0..OBJECTS {
        let start = now();
        let (taken, due, rows) =
            take(store, apis, start, longest, std::mem::take(&mut more)).await?;
        if turn == 0 {
            rows_of_more = rows;
        }
        next = due;
        if taken.is_empty() {
            break;
        }
        for wanted in taken {
            let Some((api, key)) = apis.0.get(&wanted.source) else { continue };
            let request = request(api, &wanted);
            let account = request.headers.iter().find(|(name, _)| *name == ACCOUNT);
            let account = account.map(|(_, account)| account.clone());
            let hidden = request.hidden_key(key);
            let answer = match fetch.ask(request.clone(), key).await {
                Ok(response) if response.status == 200 => {
                    whole(fetch, (config, &wanted), (api, key, &request), response).await
                }
                answer => answer,
            };
            let answer = answer.map_err(|error| hidden.in_text(&error.to_string()));
            let asked = Asked { api, account };
            let mut statements = judge(config, &asked, &wanted, answer, start, &mut fetched);
            statements.push(apis.next());
            next = read_next(&store.execute(statements).await?)?;
        }
    }
    // The pause keeps objects that cannot be fetched now from spinning.
    fetched.next = next.map(|at| at.max(now() + Duration::from_millis(20)));
    Ok((fetched, rows_of_more))
}

/// Leases an object of each source, in one transaction. Also returns when the next one is due, and the rows of `more`
/// statements at its end.
async fn take<S: Store>(
    store: &S,
    apis: &Apis,
    now: Timestamp,
    longest_retry: Duration,
    more: Vec<Statement>,
) -> Result<(Vec<Wanted>, Option<Timestamp>, Vec<Rows>), StoreError> {
    // For each source; the third returns the object.
    const STATEMENTS: usize = 4;
    const TAKEN: usize = 2;
    let lease = now + LEASE;
    let horizon = now.horizon(LEASE.max(longest_retry));
    let mut statements = Vec::new();
    for (source, (api, _)) in &apis.0 {
        let provider = api.provider.as_str();
        let free_at = now + Duration::from_secs(1) / api.rate.max(1);
        let of_source: [Statement; STATEMENTS] = [
            state::put_senders_right(&[provider], now, longest_retry),
            Statement::new(AHEAD, params![now, horizon, source]),
            Statement::new(TAKE, params![now, lease, source, provider]),
            Statement::new(SPACE, params![provider, lease, free_at, source]),
        ];
        statements.extend(of_source);
    }
    statements.push(apis.next());
    let own = statements.len();
    statements.extend(more);
    let mut rows = store.execute(statements).await?;
    let rows_of_more = rows.split_off(own.min(rows.len()));
    let mut taken = Vec::new();
    for of_source in rows.chunks_exact(STATEMENTS) {
        taken.extend(read::<Wanted>(answer(of_source, TAKEN))?);
    }
    Ok((taken, read_next(&rows)?, rows_of_more))
}

/// Reads the last answer: that to [`Apis::next`].
fn read_next(rows: &[Rows]) -> Result<Option<Timestamp>, StoreError> {
    let next = read::<Next>(rows.last().map_or(&[], Vec::as_slice))?.pop();
    Ok(next.and_then(|next| next.at))
}

/// Requests the object as the event's endpoint gets it: in the API version that the endpoint was created with, and from the
/// connected account that the event is about. <https://docs.stripe.com/api/versioning>,
/// <https://docs.stripe.com/connect/authentication>
fn request(api: &Api, wanted: &Wanted) -> ApiRequest {
    let rest: Map<String, Value> = serde_json::from_str(&wanted.rest).unwrap_or_default();
    let members = [("api_version", "stripe-version"), ("account", ACCOUNT)];
    let headers = members.into_iter().filter(|_| api.provider == Provider::Stripe);
    let headers = headers
        .filter_map(|(member, header)| Some((header, rest.get(member)?.as_str()?.to_owned())));
    ApiRequest {
        method: Method::Get,
        url: format!("{}{}", api.url, wanted.path),
        headers: headers.collect(),
        authorization: Authorization::Bearer,
        body: String::new(),
    }
}

/// The maximum number of pages of a list in one attempt. A Worker may make 50 requests in an invocation, on the free plan.
const PAGES: usize = 30;

/// The response with the rule's list whole: that of Stripe has the path of its pages,
/// <https://docs.stripe.com/api/pagination>.
async fn whole<F: Fetch>(
    fetch: &F,
    (config, wanted): (&Consumers, &Wanted),
    (api, key, request): (&Api, &Secret, &ApiRequest),
    response: ApiResponse,
) -> Result<ApiResponse, FetchError> {
    let rule = config.program.rules.iter().find(|rule| rule.name == wanted.rule);
    let steps = rule.and_then(|rule| list_in_object(api.provider, rule)).unwrap_or_default();
    let list = List::read(&response.body, &steps).filter(|list| list.url.starts_with('/'));
    let Some(mut list) = list else { return Ok(response) };
    let path = std::mem::take(&mut list.url);
    let mut pages = 0;
    while list.has_more {
        pages += 1;
        if pages > PAGES {
            let error = format!("the list {path} has more than {PAGES} pages");
            return Err(FetchError::NoAnswer(error));
        }
        let after = list.data.last().and_then(|element| id(element));
        let after = after.map(|id| format!("&starting_after={}", in_url(&id))).unwrap_or_default();
        let separator = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}{path}{separator}limit=100{after}", api.url);
        let answer = fetch.ask(ApiRequest { url, ..request.clone() }, key).await?;
        match (answer.status, List::read(&answer.body, &[])) {
            (200, Some(page)) if !page.data.is_empty() => list.extend(page),
            (200 | 404 | 410, _) => {
                return Err(FetchError::NoAnswer(format!("the list {path} has changed")));
            }
            _ => return Ok(answer),
        }
    }
    let body = list.put_into(&response.body, &steps).unwrap_or_default();
    Ok(ApiResponse { body, ..response })
}

/// The steps from an object to the list of a rule that may be incomplete.
fn list_in_object(provider: Provider, rule: &Rule) -> Option<Vec<&str>> {
    let each = rule.each.as_ref().filter(|each| each.more.is_some())?;
    let path = each.list.text.strip_prefix(object(provider))?.strip_prefix('.')?;
    Some(path.strip_suffix(".data")?.split('.').collect())
}

/// A list of Stripe. Its elements are texts, so that no number is rounded.
#[derive(Deserialize)]
struct List {
    data: Vec<Box<RawValue>>,
    has_more: bool,
    #[serde(default)]
    url: String,
}

impl List {
    /// The list that these steps lead to; none if there is no incomplete one.
    fn read(body: &str, steps: &[&str]) -> Option<Self> {
        let mut text = body;
        for step in steps {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
            text = members.get(*step)?.get();
        }
        let list: Self = serde_json::from_str(text).ok()?;
        (steps.is_empty() || list.has_more).then_some(list)
    }

    fn extend(&mut self, page: Self) {
        self.has_more = page.has_more;
        self.data.extend(page.data);
    }

    /// The body with this list, which is whole.
    fn put_into(&self, body: &str, steps: &[&str]) -> serde_json::Result<String> {
        let Some((step, others)) = steps.split_first() else {
            let elements: Vec<_> = self.data.iter().map(|element| element.get()).collect();
            return Ok(format!("{{\"data\":[{}],\"has_more\":false}}", elements.join(",")));
        };
        let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(body)?;
        let below = members.get(*step).map_or("{}", |member| member.get());
        let below = self.put_into(below, others)?;
        members.insert((*step).to_owned(), RawValue::from_string(below)?);
        serde_json::to_string(&members)
    }
}

/// The header that names the account.
pub(crate) const ACCOUNT: &str = "stripe-account";

/// Where an object was requested.
struct Asked<'a> {
    api: &'a Api,
    /// The connected account; the key's own without one.
    account: Option<String>,
}

impl Asked<'_> {
    /// The sentence about an object that the API does not have. The provider sends the deletion as an event, unless the key
    /// belongs to another account or mode.
    fn gone(&self, rule: &str, path: &str) -> String {
        let provider = self.api.provider.as_str();
        let of = self.account.as_ref().map(|account| format!(" for the account {account}"));
        format!(
            "{provider} has no {path}{}; rule `{rule}` falls back to event-id order until a deletion arrives. If the object \
             exists, check that the key {} belongs to this account and mode",
            of.unwrap_or_default(),
            self.api.key.0,
        )
    }
}

/// The statements that record an answer.
fn judge(
    config: &Consumers,
    asked: &Asked<'_>,
    wanted: &Wanted,
    answer: Result<ApiResponse, String>,
    start: Timestamp,
    fetched: &mut Fetched,
) -> Vec<Statement> {
    let (api, Wanted { rule, path, event_id, attempts, .. }) = (asked.api, wanted);
    let done = Statement::new(DONE, params![rule, path, event_id]);
    let (error, after) = match answer {
        Ok(ApiResponse { status: 200, body, .. }) => match read_object(api.provider, path, &body) {
            Object::Is(object) => match caught(|| applied(config, wanted, object, start))
                .unwrap_or_else(|panicked| Err(panicked.to_string()))
            {
                Ok(mut statements) => {
                    fetched.applied += 1;
                    statements.push(done);
                    return statements;
                }
                Err(error) => {
                    fetched.problems.push(format!("rule `{rule}`: cannot apply {path}: {error}"));
                    return vec![done];
                }
            },
            // The provider sends the deletion as an event.
            Object::IsGone => return vec![done],
            Object::Unreadable => ("the response is not the requested object".to_owned(), None),
        },
        Ok(ApiResponse { status: 404 | 410, .. }) => {
            fetched.problems.push(asked.gone(rule, path));
            return vec![done];
        }
        Ok(ApiResponse { status: status @ (401 | 403), .. }) => {
            (format!("response {status}; check that the key {} can read this", api.key.0), None)
        }
        Ok(ApiResponse { status, retry_after, .. }) => {
            let after = retry_after.and_then(|seconds| seconds.trim().parse().ok());
            (format!("response {status}"), after.map(Duration::from_secs))
        }
        Err(error) => (error, None),
    };
    let provider = api.provider.as_str();
    if *attempts >= config.retry.max_attempts {
        fetched.problems.push(format!(
            "gave up fetching {path} from {provider} after {attempts} attempts ({error}); rule `{rule}` falls back to event-id order"
        ));
        return vec![done];
    }
    let wait = after.unwrap_or_else(|| delay(&config.retry, *attempts)).min(config.retry.max);
    let due_at = start + wait;
    fetched
        .problems
        .push(format!("cannot fetch {path} from {provider}: {error}; next request at {due_at}"));
    vec![Statement::new(LATER, params![rule, path, event_id, due_at])]
}

/// An API's answer about an object.
pub(crate) enum Object<'a> {
    /// The object as its text, so that no number is rounded.
    Is(&'a RawValue),
    IsGone,
    Unreadable,
}

pub(crate) fn read_object<'a>(provider: Provider, path: &str, body: &'a str) -> Object<'a> {
    #[derive(Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Members {
        #[serde(default)]
        id: Value,
        #[serde(default)]
        deleted: Value,
    }
    let object = match provider {
        Provider::Paddle => serde_json::from_str::<Wrapped<'_>>(body).map(|answer| answer.data),
        _ => serde_json::from_str(body),
    };
    let Ok(object) = object else { return Object::Unreadable };
    match serde_json::from_str(object.get()) {
        Ok(Members { deleted: Value::Bool(true), .. }) => Object::IsGone,
        // Otherwise the answer would be stored as the requested object.
        Ok(Members { id: Value::String(id), .. }) if path.rsplit('/').next() == Some(&id) => {
            Object::Is(object)
        }
        _ => Object::Unreadable,
    }
}

/// The statements of the rule for the event with its current object. None if the rule's conditions are no longer met.
fn applied(
    config: &Consumers,
    wanted: &Wanted,
    is: &RawValue,
    start: Timestamp,
) -> Result<Vec<Statement>, String> {
    let rule = config.program.rules.iter().find(|rule| rule.name == wanted.rule);
    let rule = rule.ok_or("the rule no longer exists")?;
    let api = config.apis.get(&wanted.source).ok_or("the source no longer has an API")?;
    let body = with_object(api.provider, &wanted.rest, is).map_err(|error| error.to_string())?;
    let envelope = Envelope {
        v: VERSION,
        source: wanted.source.clone(),
        id: wanted.event_id.clone(),
        kind: wanted.kind.clone(),
        received_at: start,
        verified: Verified { secret: 0, signed_at: None },
        generation: 0,
        rules: Vec::new(),
        headers: BTreeMap::new(),
        api_version: None,
        from_api: Some(FromApi::Object { at: start }),
        body: BodyForm::Text,
    };
    // The rule may have changed and no longer use `refetch`.
    if rule.effect.guard().is_none_or(|guard| guard.refetch.is_none()) {
        return Err("the rule no longer fetches objects".to_owned());
    }
    let rows = rows_of(config, [(0, rule)].into_iter(), &envelope, &body)?;
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    Ok(rule.sql.iter().flat_map(|sql| Row::statements(sql, &rows)).collect())
}
