//! Imports the objects of providers' APIs: a step requests a page of a list, and puts its objects on the queue. They take the
//! whole path from there, as events do, but only rules that keep rows run for them.
//!
//! An object's version says how new it is. Where the object does not say so itself, it is a time at which the provider's list
//! was certainly as new: the provider's clock, less the time of the request, less a unit of that clock. So an event that
//! happened since, or during the request, is newer. Among the events of one version, the object is the newest.

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_config::{Api, Consumers};
use hookmill_core::api_version;
use hookmill_core::fetch::Fetch;
use hookmill_core::json::to_json;
use hookmill_core::message::{BodyForm, Envelope, VERSION, Verified};
use hookmill_core::objects::{Objects, message};
use hookmill_core::outbound::{ApiRequest, ApiResponse, Authorization, Method, Provider};
use hookmill_core::queue::Queue;
use hookmill_core::secret::Secret;
use hookmill_core::store::{Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_dlq::import::{
    ImportFilter, LeasedImport, Providers, done, resume_imports, stepped, stopped, taken,
};
use hookmill_dlq::replay::next;
use hookmill_rules::api::{self, List, Listed, id, lists, lists_of, snapshot, with_object};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::refetch::{self, ACCOUNT, Apis, Fetched};
use crate::retry::delay;

/// The unit of the clocks that versions come from.
const UNIT: Duration = Duration::from_secs(1);
/// No request takes longer: both platforms end it after half of this time.
const LONGEST: Duration = Duration::from_secs(60);
/// The delay after the queue or the object store did not accept objects.
const PAUSE: Duration = Duration::from_secs(5);

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

/// What an import has come to: a page that was not requested yet, or not successfully.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Reached {
    /// The name of the list.
    list: String,
    /// The path of the page; blank if every list was read.
    page: String,
    /// The number of requests for it that failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    failures: u32,
    /// The number of objects of the list that were sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    sent: u32,
    /// How often the list was begun again.
    #[serde(default, skip_serializing_if = "is_zero")]
    restarts: u32,
}

impl Reached {
    /// The first page of a list.
    fn start(list: &List) -> Self {
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

/// Fetches the objects that are due ([`refetch::round`]). Then it requests one page of one import that is due, and puts its
/// objects on the queue. Both are leased in one transaction, so that having nothing to do takes one.
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
) -> Result<(Fetched, Imported), StoreError> {
    let providers = providers(config);
    let take = providers.take(now(), config.retry.longest());
    let (fetched, rows) = refetch::round_with(store, fetch, config, apis, &now, take).await?;
    let mut imported = Imported::default();
    let Some(import) = taken(&rows)? else {
        imported.next = next(rows.last())?;
        return Ok((fetched, imported));
    };
    let progress = match plan(config, apis, &import) {
        Ok(None) => done(&import.id, now()),
        Err(problem) => stop(&import, problem, None, &mut imported),
        Ok(Some(planned)) => {
            let answer = request(fetch, &planned, &now).await;
            carry_on((queue, objects), config, (&import, planned), answer, &mut imported, &now)
                .await
        }
    };
    let rows = store.execute(vec![progress, providers.next()]).await?;
    imported.next = next(rows.last())?;
    Ok((fetched, imported))
}

/// The configured APIs, for the statements.
fn providers(config: &Consumers) -> Providers {
    let of = config.apis.iter().map(|(source, api)| (source.clone(), api.provider.as_str()));
    let spacing = config.apis.values().map(|api| (api.provider.as_str(), UNIT / api.rate.max(1)));
    Providers { of: of.collect(), spacing: spacing.collect() }
}

/// The next request of an import.
struct Planned<'a> {
    source: String,
    account: Option<String>,
    api: &'a Api,
    key: &'a Secret,
    api_version: Option<&'a str>,
    /// The lists from the current one on.
    lists: Vec<List>,
    reached: Reached,
}

/// The next request; none if every list was read.
fn plan<'a>(
    config: &'a Consumers,
    apis: &'a Apis,
    import: &LeasedImport,
) -> Result<Option<Planned<'a>>, String> {
    let filter: ImportFilter =
        serde_json::from_str(&import.filter).map_err(|error| error.to_string())?;
    let ImportFilter { source, only, account } = filter;
    let (api, key) = apis.get(&source).ok_or_else(|| {
        format!("the source `{source}` has no API; add [sources.{source}.api] with its `key`")
    })?;
    let known: Vec<_> = lists_of(&config.program, &source, api.provider).collect();
    if let Some(name) = only.iter().find(|name| known.iter().all(|list| list.name != **name)) {
        let names: Vec<_> = known.iter().map(|list| list.name.as_str()).collect();
        return Err(format!(
            "no rule keeps objects of a list `{name}`; the lists are {}",
            names.join(", ")
        ));
    }
    let reached: Option<Reached> =
        import.reached.as_deref().and_then(|reached| serde_json::from_str(reached).ok());
    if reached.as_ref().is_some_and(Reached::is_end) {
        return Ok(None);
    }
    // The configuration may have changed since, but not the order of an API's lists.
    let place = |name: &str| lists(api.provider).position(|list| list.name == name);
    let from = reached.as_ref().map_or(Some(0), |reached| place(&reached.list));
    let lists: Vec<_> = known
        .into_iter()
        .filter(|list| only.is_empty() || only.contains(&list.name))
        .filter(|list| place(&list.name) >= from)
        .collect();
    let Some(first) = lists.first() else { return Ok(None) };
    let reached = reached.filter(|reached| reached.list == first.name);
    let reached = reached.unwrap_or_else(|| Reached::start(first));
    let versions = config.api_versions.get(&source).into_iter().flatten();
    let api_version = versions.map(String::as_str).find(|version| *version != api_version::OTHER);
    if account.is_some() && api.provider != Provider::Stripe {
        return Err(format!("{} has no connected accounts", api.provider.as_str()));
    }
    Ok(Some(Planned { source, account, api, key, api_version, lists, reached }))
}

/// The answer to a request, and a time at which the provider's list was certainly as new.
struct Answer {
    response: Result<ApiResponse, String>,
    started: Timestamp,
    version: Timestamp,
}

async fn request<F: Fetch>(
    fetch: &F,
    planned: &Planned<'_>,
    now: &impl Fn() -> Timestamp,
) -> Answer {
    let Planned { account, api, key, api_version, reached, .. } = planned;
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
    let date = date.and_then(Timestamp::parse_http_date).unwrap_or(ended);
    Answer { response, started, version: date - elapsed(started, ended) - UNIT }
}

/// The time that a request can have taken at most. The clock may have been corrected meanwhile.
fn elapsed(started: Timestamp, ended: Timestamp) -> Duration {
    if ended < started { LONGEST } else { (ended - started).min(LONGEST) }
}

/// Puts the objects of a page on the queue. Returns the statement that records it.
async fn carry_on<Q: Queue, O: Objects>(
    (queue, objects): (&Q, &O),
    config: &Consumers,
    (import, planned): (&LeasedImport, Planned<'_>),
    Answer { response, started, version }: Answer,
    imported: &mut Imported,
    now: &impl Fn() -> Timestamp,
) -> Statement {
    let Planned { source, account, api, lists, reached, .. } = planned;
    let provider = api.provider.as_str();
    let Some(list) = lists.first() else { return done(&import.id, now()) };
    let (error, after) = match response {
        Ok(ApiResponse { status: 200, body, .. }) => {
            match api::page(api.provider, &list.path, &reached.page, &body) {
                Ok(page) => {
                    let listed = Listed { version, account: account.as_deref() };
                    let found = Found { import, source: &source, api, list, started, listed };
                    let messages = match found.messages(objects, &page.objects).await {
                        Ok(messages) => messages,
                        Err(error) => {
                            return later(import, &reached, now() + PAUSE, error, imported);
                        }
                    };
                    let count = messages.len();
                    let sent = if count == 0 { Ok(()) } else { queue.send(messages).await };
                    if let Err(error) = sent {
                        return later(import, &reached, now() + PAUSE, error.to_string(), imported);
                    }
                    imported.sent = Some((import.id.clone(), count));
                    let number = u32::try_from(count).unwrap_or(u32::MAX);
                    let sent = reached.sent.saturating_add(number);
                    let next = match page.next {
                        Some(page) => Some(Reached { page, failures: 0, sent, ..reached }),
                        None => lists.get(1).map(Reached::start),
                    };
                    let took = UNIT * number / import.rate.max(1);
                    let reached = to_json(&next.unwrap_or_default());
                    return stepped(&import.id, i64::from(number), &reached, started + took, None);
                }
                Err(error) => (error, None),
            }
        }
        // The object after which the page begins was deleted meanwhile.
        Ok(ApiResponse { status: 400 | 404, .. })
            if reached.page != list.path && reached.restarts < RESTARTS =>
        {
            let restarts = reached.restarts + 1;
            let again = Reached { restarts, ..Reached::start(list) };
            return stepped(&import.id, -i64::from(reached.sent), &to_json(&again), started, None);
        }
        Ok(ApiResponse { status, body, .. })
            if (400..500).contains(&status) && ![408, 409, 425, 429].contains(&status) =>
        {
            let problem = format!(
                "{provider} answered {status} to {}{}; check that the key {} can read it, then resume; or cancel, and plan \
                 an import without it (`--only`)",
                reached.page,
                reason(&body),
                api.key.0,
            );
            return stop(import, problem, Some(&to_json(&reached)), imported);
        }
        Ok(ApiResponse { status, retry_after, .. }) => {
            let after = retry_after.and_then(|seconds| seconds.trim().parse().ok());
            (format!("response {status}"), after.map(Duration::from_secs))
        }
        Err(error) => (error, None),
    };
    let failures = reached.failures.saturating_add(1);
    let reached = Reached { failures, ..reached };
    let wait = after.unwrap_or_else(|| delay(&config.retry, failures)).min(config.retry.max);
    let error = format!("cannot read {} of {provider}: {error}", reached.page);
    later(import, &reached, now() + wait, error, imported)
}

/// The request is repeated later.
fn later(
    import: &LeasedImport,
    reached: &Reached,
    due_at: Timestamp,
    error: String,
    imported: &mut Imported,
) -> Statement {
    let statement = stepped(&import.id, 0, &to_json(reached), due_at, Some(&error));
    imported.problem = Some(format!("{error}; next request at {due_at}"));
    statement
}

/// The import pauses until an operator resumes it.
fn stop(
    import: &LeasedImport,
    problem: String,
    reached: Option<&str>,
    imported: &mut Imported,
) -> Statement {
    let statement = stopped(&import.id, &problem, reached);
    imported.problem = Some(format!("the import {} is paused: {problem}", import.id));
    statement
}

/// The beginning of an error of an API: `{"error": {"message": …}}` of Stripe, `{"errors": [{"message": …}]}` of Clerk,
/// `{"error": {"detail": …}}` of Paddle.
fn reason(body: &str) -> String {
    const LONGEST: usize = 200;
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let paths = ["/error/message", "/errors/0/message", "/error/detail"];
    let found = paths.iter().find_map(|path| value.pointer(path)?.as_str());
    let text: String = found.unwrap_or_default().chars().take(LONGEST).collect();
    if text.is_empty() { text } else { format!(" ({text})") }
}

/// The objects of a page.
struct Found<'a> {
    import: &'a LeasedImport,
    source: &'a str,
    api: &'a Api,
    list: &'a List,
    started: Timestamp,
    listed: Listed<'a>,
}

impl Found<'_> {
    /// The messages of the objects. Long bodies are stored before.
    async fn messages<O: Objects>(
        &self,
        store: &O,
        objects: &[&RawValue],
    ) -> Result<Vec<String>, String> {
        let Self { import, source, api, list, started, listed } = *self;
        let mut messages = Vec::with_capacity(objects.len());
        for object in objects {
            let rest = snapshot(api.provider, &list.event_type, listed, object);
            let body =
                with_object(api.provider, &rest, object).map_err(|error| error.to_string())?;
            let mut envelope = Envelope {
                v: VERSION,
                source: source.to_owned(),
                id: id(object)?,
                kind: list.event_type.clone(),
                received_at: started,
                verified: Verified { secret: 0, signed_at: None },
                generation: import.generation,
                rules: Vec::new(),
                headers: BTreeMap::new(),
                api_version: None,
                snapshot_at: Some(started),
                body: BodyForm::Text,
            };
            let text = message(store, &mut envelope, body.as_bytes()).await;
            messages.push(text.map_err(|error| error.to_string())?);
        }
        Ok(messages)
    }
}
