//! Imports the objects of providers' APIs: a step requests a page of a list, and puts its objects on the queue. They take the
//! whole path from there, as events do, but only rules that keep rows run for them.
//!
//! An object's version says how new it is. Where the object does not say so itself, it is a time at which the provider's list
//! was certainly as new: the provider's clock, less the time of the request, less a unit of that clock. So an event that
//! happened since, or during the request, is newer. Among the events of one version, the object is the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hookmill_config::{Api, Consumers};
use hookmill_core::api_version;
use hookmill_core::fetch::Fetch;
use hookmill_core::hash::sha256_hex;
use hookmill_core::json::to_json;
use hookmill_core::message::{BodyForm, Envelope, FromApi, VERSION, Verified};
use hookmill_core::objects::{Objects, message};
use hookmill_core::outbound::{ApiRequest, ApiResponse, Authorization, Method, Provider};
use hookmill_core::queue::Queue;
use hookmill_core::secret::Secret;
use hookmill_core::store::{Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_core::words::JobKind;
use hookmill_dlq::import::{
    ImportFilter, LeasedImport, Providers, done, resume_imports, stepped, stopped, taken,
};
use hookmill_dlq::reconcile::schedule;
use hookmill_dlq::replay::next;
use hookmill_rules::api::{self, List, Listed, id, lists, lists_of, snapshot, with_object};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::missed::{self, Swept};
use crate::reconcile;
use crate::refetch::{self, ACCOUNT, Apis, Fetched};
use crate::retry::delay;

/// The unit of the clocks that versions come from.
pub(crate) const UNIT: Duration = Duration::from_secs(1);
/// No request takes longer: both platforms end it after half of this time.
const LONGEST: Duration = Duration::from_secs(60);
/// How far the provider's clock may be ahead.
const AHEAD: Duration = Duration::from_secs(300);
/// The delay after the queue or the object store did not accept objects.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);

/// How often a list is begun again before an operator has to look at it.
const RESTARTS: u32 = 3;

/// The result of a step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Imported {
    /// The import and the number of objects that it put on the queue; none if no import was due.
    pub sent: Option<(String, usize)>,
    /// A sentence about what failed.
    pub problem: Option<String>,
    /// When more work is due; none if no import is running.
    pub next: Option<Timestamp>,
}

/// The position of a walk: the next page to request.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// The name of the list.
    pub(crate) list: String,
    /// The path of the page; blank if every list was read.
    pub(crate) page: String,
    /// The number of requests for it that failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) failures: u32,
    /// The number of objects of the list that were sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) sent: u32,
    /// How often the list was begun again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) restarts: u32,
    /// The ids of the page before. Objects that were added or removed meanwhile may move others to the next page.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ids: Vec<String>,
}

impl Reached {
    /// The first page of a list.
    pub(crate) fn start(list: &List) -> Self {
        Self { list: list.name.clone(), page: list.path.clone(), ..Self::default() }
    }

    const fn is_end(&self) -> bool {
        self.page.is_empty()
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Continues the imports of processes that have ended; for a caller that knows that they have.
///
/// # Errors
///
/// If the store fails. Then the imports continue when their leases end.
pub async fn resume<S: Store>(store: &S, now: Timestamp) -> Result<(), StoreError> {
    store.execute(vec![resume_imports(now)]).await.map(drop)
}

/// Fetches the objects that are due ([`refetch::round`]). Then it requests one page of one sweep ([`crate::missed`]) and one
/// page of one import that are due, and puts what it finds on the queue. All are leased in one transaction, so that having
/// nothing to do takes one.
///
/// A crash between any two steps leaves a state that the next round can resume: the page is requested again, and the ledger
/// rejects the objects that were sent.
///
/// # Errors
///
/// If the store fails.
pub async fn round<S: Store, F: Fetch, Q: Queue, O: Objects>(
    store: &S,
    fetch: &F,
    (queue, objects): (&Q, &O),
    (config, apis): (&Consumers, &Apis),
    now: impl Fn() -> Timestamp,
) -> Result<(Fetched, Imported, Swept), StoreError> {
    let providers = providers(config);
    let start = now();
    let mut take: Vec<_> = schedule(&config.reconciliations, start).into_iter().collect();
    let scheduled = take.len();
    // A sweep has few requests, and comes before an import.
    take.extend(missed::take(config, start));
    let of_sweeps = take.len();
    take.extend(providers.take(start, config.retry.longest()));
    let (fetched, rows) = refetch::round_with(store, fetch, config, apis, &now, take).await?;
    let (of_sweeps, rows) = rows.split_at(of_sweeps.min(rows.len()));
    let of_sweeps = of_sweeps.get(scheduled..).unwrap_or_default();
    let swept = match missed::taken(of_sweeps)? {
        (Some(sweep), _) => {
            missed::step((store, fetch), (queue, objects), (config, apis), sweep, &now).await?
        }
        (None, next) => Swept { next, ..Swept::default() },
    };
    let mut imported = Imported::default();
    let Some(import) = taken(rows)? else {
        imported.next = next(rows.last())?;
        return Ok((fetched, imported, swept));
    };
    let mut progress = if import.kind == JobKind::Reconcile {
        reconcile::step(
            (store, fetch),
            (queue, objects),
            (config, apis),
            &import,
            &mut imported,
            &now,
        )
        .await?
    } else {
        let progress = match plan(config, apis, &import) {
            Ok(None) => done(&import.id, now()),
            Err(problem) => stop(&import, &problem, None, &mut imported),
            Ok(Some(walk)) => {
                let answer = request(fetch, &walk, &now).await;
                carry_on((queue, objects), config, (&import, walk), answer, &mut imported, &now)
                    .await
            }
        };
        vec![progress]
    };
    progress.push(providers.next());
    let rows = store.execute(progress).await?;
    imported.next = next(rows.last())?;
    Ok((fetched, imported, swept))
}

/// The configured APIs, for the statements.
fn providers(config: &Consumers) -> Providers {
    let of = config.apis.iter().map(|(source, api)| (source.clone(), api.provider.as_str()));
    let spacing = config.apis.values().map(|api| (api.provider.as_str(), UNIT / api.rate.max(1)));
    Providers { of: of.collect(), spacing: spacing.collect() }
}

/// The walk of an import; none if every list was read.
fn plan<'a>(
    config: &'a Consumers,
    apis: &'a Apis,
    import: &LeasedImport,
) -> Result<Option<Walk<'a>>, String> {
    let filter: ImportFilter =
        serde_json::from_str(&import.filter).map_err(|error| error.to_string())?;
    let reached = import.reached.as_deref().and_then(|reached| serde_json::from_str(reached).ok());
    let of = (filter.source.as_str(), filter.account.clone());
    Walk::plan(config, apis, of, |lists| filter.select(lists), reached)
}

/// A walk through the lists of an API: the next request.
pub(crate) struct Walk<'a> {
    pub(crate) source: String,
    account: Option<String>,
    pub(crate) api: &'a Api,
    key: &'a Secret,
    api_version: Option<&'a str>,
    /// The lists from the current one on.
    pub(crate) lists: Vec<List>,
    pub(crate) reached: Reached,
}

impl<'a> Walk<'a> {
    /// The walk from here on; none if every list was read. `select` chooses from the names of the lists whose objects some rule
    /// keeps.
    pub(crate) fn plan(
        config: &'a Consumers,
        apis: &'a Apis,
        (source, account): (&str, Option<String>),
        select: impl FnOnce(Vec<String>) -> Result<Vec<String>, String>,
        reached: Option<Reached>,
    ) -> Result<Option<Self>, String> {
        let (api, key) = apis.get(source).ok_or_else(|| {
            format!("the source `{source}` has no API; add [sources.{source}.api] with its `key`")
        })?;
        let known: Vec<_> = lists_of(&config.program, source, api.provider).collect();
        let selected = select(known.iter().map(|list| list.name.clone()).collect())?;
        if reached.as_ref().is_some_and(Reached::is_end) {
            return Ok(None);
        }
        // The configuration may have changed since, but not the order of an API's lists.
        let place = |name: &str| lists(api.provider).position(|list| list.name == name);
        let from = reached.as_ref().map_or(Some(0), |reached| place(&reached.list));
        let lists: Vec<_> = known
            .into_iter()
            .filter(|list| selected.contains(&list.name))
            .filter(|list| place(&list.name) >= from)
            .collect();
        let Some(first) = lists.first() else { return Ok(None) };
        let reached = reached.filter(|reached| reached.list == first.name);
        let reached = reached.unwrap_or_else(|| Reached::start(first));
        let versions = config.api_versions.get(source).into_iter().flatten();
        let api_version =
            versions.map(String::as_str).find(|version| *version != api_version::OTHER);
        if account.is_some() && api.provider != Provider::Stripe {
            return Err(format!("{} has no connected accounts", api.provider.as_str()));
        }
        let source = source.to_owned();
        Ok(Some(Self { source, account, api, key, api_version, lists, reached }))
    }

    /// The current list.
    pub(crate) fn list(&self) -> Option<&List> {
        self.lists.first()
    }

    /// The position after a page.
    pub(crate) fn after(&self, page: &api::Page<'_>) -> Reached {
        let count = u32::try_from(page.objects.len()).unwrap_or(u32::MAX);
        let next = match &page.next {
            Some(next) => Some(Reached {
                page: next.clone(),
                failures: 0,
                sent: self.reached.sent.saturating_add(count),
                ids: page.objects.iter().filter_map(|object| id(object)).collect(),
                ..self.reached.clone()
            }),
            None => self.lists.get(1).map(Reached::start),
        };
        next.unwrap_or_default()
    }
}

/// The answer to a request, and a time at which the provider's list was certainly as new.
pub(crate) struct Answer {
    response: Result<ApiResponse, String>,
    pub(crate) started: Timestamp,
    version: Timestamp,
}

impl Answer {
    /// Whether the provider's API sent the response, not a proxy: an error of the API is JSON with `error` or `errors`. Sources:
    /// <https://docs.stripe.com/api/errors>, <https://clerk.com/docs/errors/overview>, <https://developer.paddle.com/errors/overview>.
    pub(crate) fn is_from_provider(&self) -> bool {
        self.response.as_ref().is_ok_and(|response| {
            let body = serde_json::from_str(&response.body).unwrap_or(serde_json::Value::Null);
            response.status == 200 || body.get("error").or(body.get("errors")).is_some()
        })
    }
}

pub(crate) async fn request<F: Fetch>(
    fetch: &F,
    walk: &Walk<'_>,
    now: &impl Fn() -> Timestamp,
) -> Answer {
    let Walk { account, api, key, api_version, reached, .. } = walk;
    // https://docs.stripe.com/api/versioning
    let version = api_version.filter(|_| api.provider == Provider::Stripe);
    let version = version.map(|version| ("stripe-version", version.to_owned()));
    let account = account.as_ref().map(|account| (ACCOUNT, account.clone()));
    let request = ApiRequest {
        method: Method::Get,
        url: format!("{}{}", api.url, reached.page),
        headers: version.into_iter().chain(account).collect(),
        authorization: Authorization::Bearer,
        body: String::new(),
    };
    let (hidden, started) = (request.hidden_key(key), now());
    let response = fetch.ask(request, key).await;
    let ended = now();
    let response = response.map_err(|error| hidden.in_text(&error.to_string()));
    // An API may repeat the key in an error.
    let response = response.map(|response| match response.status {
        200 => response,
        _ => ApiResponse { body: hidden.in_text(&response.body), ..response },
    });
    let date = response.as_ref().ok().and_then(|response| response.date.as_deref());
    // A clock that is far ahead of ours is wrong, and would hide events.
    let date = date.and_then(Timestamp::parse_http_date).filter(|date| *date <= ended + AHEAD);
    let date = date.unwrap_or(ended);
    Answer { response, started, version: date - elapsed(started, ended) - UNIT }
}

/// The time that a request can have taken at most. The clock may have been corrected meanwhile.
fn elapsed(started: Timestamp, ended: Timestamp) -> Duration {
    if ended < started { LONGEST } else { (ended - started).min(LONGEST) }
}

/// What a walk does after a response.
pub(crate) enum Judged<T> {
    /// It uses the requested page or object.
    Is(T),
    /// It starts the list again.
    Restarts(Reached),
    /// It repeats the request later. `problem` is for the log and names no object.
    Later { reached: Reached, due_at: Timestamp, error: String, problem: String },
    /// It pauses until an operator resumes it.
    Stops { reached: Reached, error: String },
}

/// Decides what a walk does after a response. `read` parses the body. `gone` is the result for a 404; without it, the walk starts
/// the list again. `instead` is a hint for the operator if the API refuses the request.
pub(crate) fn judge<'b, T>(
    config: &Consumers,
    walk: &Walk<'_>,
    answer: &'b Answer,
    (read, gone): (impl FnOnce(&'b str) -> Result<T, String>, Option<T>),
    instead: &str,
    now: &impl Fn() -> Timestamp,
) -> Judged<T> {
    let Walk { api, reached, .. } = walk;
    let (provider, page) = (api.provider.as_str(), &reached.page);
    let is_first = walk.list().is_some_and(|list| list.path == *page);
    let (error, after, is_lasting) = match &answer.response {
        Ok(ApiResponse { status: 200, body, .. }) => match read(body) {
            Ok(found) => return Judged::Is(found),
            Err(error) => (error, None, true),
        },
        // The object after which the page begins was deleted meanwhile.
        Ok(ApiResponse { status: 400 | 404 | 410, .. }) if gone.is_some() => {
            return gone.map_or_else(|| Judged::Restarts(Reached::default()), Judged::Is);
        }
        Ok(ApiResponse { status: 400 | 404, .. }) if !is_first && reached.restarts < RESTARTS => {
            let again = walk
                .list()
                .map(|list| Reached { restarts: reached.restarts + 1, ..Reached::start(list) });
            return Judged::Restarts(again.unwrap_or_default());
        }
        Ok(ApiResponse { status, retry_after, .. }) if is_passing(*status) => {
            let after = retry_after.as_ref().and_then(|seconds| seconds.trim().parse().ok());
            (format!("response {status}"), after.map(Duration::from_secs), false)
        }
        Ok(ApiResponse { status: status @ 400..500, body, .. }) => {
            let hint = match status {
                401 | 403 => format!("check that the key {} can read it, then resume", api.key.0),
                _ => "resume if that has changed".to_owned(),
            };
            let error = format!(
                "{provider} answered {status} to {page}{}; {hint}; or cancel, and {instead}",
                reason(body)
            );
            return Judged::Stops { reached: reached.clone(), error };
        }
        Ok(ApiResponse { status, .. }) => (format!("response {status}"), None, true),
        Err(error) => (error.clone(), None, false),
    };
    let failures = reached.failures.saturating_add(1);
    let reached = Reached { failures, ..reached.clone() };
    let problem = format!("cannot read the list {} of {provider}: {error}", reached.list);
    let error = format!("cannot read {page} of {provider}: {error}");
    if is_lasting && failures >= config.retry.max_attempts {
        return Judged::Stops { reached: Reached { failures: 0, ..reached }, error };
    }
    let wait = after.unwrap_or_else(|| delay(&config.retry, failures)).min(config.retry.max);
    let due_at = now() + wait.max(UNIT);
    Judged::Later {
        reached,
        due_at,
        error,
        problem: format!("{problem}; next request at {due_at}"),
    }
}

/// Records an answer: the objects of its page were put on the queue, or why not.
async fn carry_on<Q: Queue, O: Objects>(
    to: (&Q, &O),
    config: &Consumers,
    (import, walk): (&LeasedImport, Walk<'_>),
    answer: Answer,
    imported: &mut Imported,
    now: &impl Fn() -> Timestamp,
) -> Statement {
    let id = &import.id;
    let instead = "plan an import of other lists (`--only`)";
    match judge(config, &walk, &answer, (|body| walk.page(body), None), instead, now) {
        Judged::Is(page) => send(to, (import, &walk), (page, &answer), imported, now).await,
        Judged::Restarts(again) => {
            stepped(id, -i64::from(walk.reached.sent), &to_json(&again), answer.started, None)
        }
        Judged::Later { reached, due_at, error, problem } => {
            imported.problem = Some(format!("import {id}: {problem}"));
            stepped(id, 0, &to_json(&reached), due_at, Some(&error))
        }
        Judged::Stops { reached, error } => {
            stop(import, &error, Some(&to_json(&reached)), imported)
        }
    }
}

/// Whether the same request may succeed later: <https://www.rfc-editor.org/rfc/rfc9110#section-15>.
const fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429 | 500..)
}

impl Walk<'_> {
    /// Reads a page. An error if it repeats the page before: the list would never end.
    pub(crate) fn page<'a>(&self, body: &'a str) -> Result<api::Page<'a>, String> {
        let first = self.lists.first().map_or("", |list| list.path.as_str());
        let mut page = api::page(self.api.provider, first, &self.reached.page, body)?;
        let (all, mut seen) = (page.objects.len(), BTreeSet::new());
        page.objects.retain(|object| {
            let id = id(object);
            // One without an id becomes a dead letter.
            id.is_none_or(|id| !self.reached.ids.contains(&id) && seen.insert(id))
        });
        if all > 0 && page.objects.is_empty() {
            return Err("the page has the same objects as the one before".to_owned());
        }
        Ok(page)
    }
}

/// Puts the objects of a page on the queue.
async fn send<Q: Queue, O: Objects>(
    (queue, objects): (&Q, &O),
    (import, walk): (&LeasedImport, &Walk<'_>),
    (page, answer): (api::Page<'_>, &Answer),
    imported: &mut Imported,
    now: &impl Fn() -> Timestamp,
) -> Statement {
    let reached = &walk.reached;
    let sent = match messages(objects, (import, walk), (&page.objects, answer)).await {
        Ok(messages) if messages.is_empty() => Ok(()),
        Ok(messages) => queue.send(messages).await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        let due_at = now() + PAUSE;
        imported.problem = Some(format!("import {}: {error}; next try at {due_at}", import.id));
        return stepped(&import.id, 0, &to_json(reached), due_at, Some(&error));
    }
    let count = page.objects.len();
    imported.sent = Some((import.id.clone(), count));
    let number = u32::try_from(count).unwrap_or(u32::MAX);
    let took = UNIT * number / import.rate.max(1);
    let next = to_json(&walk.after(&page));
    stepped(&import.id, i64::from(number), &next, answer.started + took, None)
}

/// The import pauses until an operator resumes it. The log has nothing that an API said.
pub(crate) fn stop(
    import: &LeasedImport,
    problem: &str,
    reached: Option<&str>,
    imported: &mut Imported,
) -> Statement {
    let id = &import.id;
    let what = if import.kind == JobKind::Reconcile { "reconciliation" } else { "import" };
    imported.problem =
        Some(format!("the {what} {id} is paused; `hookmill replays show {id}` says why"));
    stopped(id, problem, reached)
}

/// The beginning of an error of an API: `{"error": {"message": …}}` of Stripe, `{"errors": [{"message": …}]}` of Clerk,
/// `{"error": {"detail": …}}` of Paddle.
fn reason(body: &str) -> String {
    const LONGEST: usize = 200;
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let paths = ["/error/message", "/errors/0/message", "/error/detail"];
    let found = paths.iter().find_map(|path| value.pointer(path)?.as_str()).unwrap_or_default();
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = found.chars().map(plain).take(LONGEST).collect();
    if text.is_empty() { text } else { format!(" ({text})") }
}

/// The messages of objects. Long bodies are stored before.
pub(crate) async fn messages<O: Objects>(
    store: &O,
    (import, walk): (&LeasedImport, &Walk<'_>),
    (objects, answer): (&[&RawValue], &Answer),
) -> Result<Vec<String>, String> {
    let mut messages = Vec::with_capacity(objects.len());
    for object in objects {
        let kind = walk.list().map_or("", |list| list.event_type.as_str());
        let (mut envelope, body) = walk.event(import.generation, kind, object, answer)?;
        let text = message(store, &mut envelope, body.as_bytes()).await;
        messages.push(text.map_err(|error| error.to_string())?);
    }
    Ok(messages)
}

impl Walk<'_> {
    /// The event that rules see in place of an object, and its body.
    pub(crate) fn event(
        &self,
        generation: u32,
        kind: &str,
        object: &RawValue,
        answer: &Answer,
    ) -> Result<(Envelope, String), String> {
        let listed = Listed { version: answer.version, account: self.account.as_deref() };
        let rest = snapshot(self.api.provider, kind, listed, object);
        let body = with_object(self.api.provider, &rest, object);
        let body = body.map_err(|error| error.to_string())?;
        let without_id = || format!("object-{}", sha256_hex(&[object.get().as_bytes()]));
        let envelope = Envelope {
            v: VERSION,
            source: self.source.clone(),
            id: id(object).unwrap_or_else(without_id),
            kind: kind.to_owned(),
            received_at: answer.started,
            verified: Verified { secret: 0, signed_at: None },
            generation,
            rules: Vec::new(),
            headers: BTreeMap::new(),
            api_version: None,
            from_api: Some(FromApi::Object { at: answer.started }),
            body: BodyForm::Text,
        };
        Ok((envelope, body))
    }
}
