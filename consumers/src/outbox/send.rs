//! Sends the messages of the outbox. The decisions are pure; this module executes them step by step. A crash between any
//! two steps leaves a state that the next run can resume.

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_config::{self, Consumers, OnUncertain, Retry, Sending};
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::hash::sha256_hex;
use hookmill_core::outbound::{Provider, SendResult, Transport};
use hookmill_core::panics::caught;
use hookmill_core::secret::{ExposeSecret as _, Secret, SecretName};
use hookmill_core::store::{Rows, Statement, Store, StoreError, answer, read};
use hookmill_core::template::{TemplateError, Templates};
use hookmill_core::time::Timestamp;
use hookmill_core::words::Channel;
use hookmill_providers::api::{Api, Sealed};
use hookmill_providers::email::{EmailApi, email_api};
use hookmill_providers::sms::Twilio;
use hookmill_providers::track::track_api;
use serde_json::json;
use thiserror::Error;

use super::compose::{Composer, EmailComposer};
use super::draft::Draft;
use super::state::{
    self, AWAY, BatchEnd, LeasedBatch, NewBatch, OpenCount, PendingMessage, ProviderHealth,
    QuotaUsage, SendingProvider, UnsentMessage,
};
use crate::retry::delay;

/// The maximum time for which a batch is retried.
const TRIED: Duration = Duration::from_secs(23 * 3600);
/// Retries stop this long before the provider ceases to recognize the batch.
const SPARE: Duration = Duration::from_secs(3600);
/// The number of attempts to record an answer. Natively, an attempt waits five seconds for a lock on the database.
const WRITES: u32 = 6;
/// The minimum time between two rounds, so that rounds that cannot do anything do not spin.
const PAUSE: Duration = Duration::from_millis(20);

/// A channel with its settings, its APIs and their keys.
#[derive(Debug)]
pub struct OutboxChannel {
    composer: Composer,
    settings: Sending,
    /// The first sends; the others are fallbacks.
    routes: Vec<Route>,
    retry: Retry,
}

/// An API that batches are sent through.
#[derive(Debug)]
struct Route {
    api: Box<dyn Api>,
    settings: hookmill_config::Api,
    key: Secret,
}

impl Route {
    /// The route through the API of a provider, if the provider has one for the channel.
    fn new(
        channel: &'static str,
        api: Option<impl Api + 'static>,
        settings: &hookmill_config::Api,
        lookup: impl Fn(&SecretName) -> Option<Secret>,
    ) -> Result<Self, ChannelError> {
        let api = api.ok_or(ChannelError::Purpose(settings.provider, channel))?;
        let key = usable(settings, lookup)?;
        Ok(Self { api: Box::new(api), settings: settings.clone(), key })
    }

    fn name(&self) -> &'static str {
        self.api.name()
    }

    fn recognizes(&self) -> bool {
        self.api.recognizes_for().is_some()
    }

    /// The parameters for statements of the outbox.
    fn provider(&self) -> SendingProvider<'static> {
        SendingProvider { provider: self.name(), recognizes: self.recognizes() }
    }

    /// The time for which a batch is retried.
    fn tried(&self) -> Duration {
        let recognizes = self.api.recognizes_for();
        recognizes.map_or(TRIED, |time| time.saturating_sub(SPARE).min(TRIED))
    }
}

/// Why a channel cannot send.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ChannelError {
    /// A key is not set.
    #[error("{} is not set; it must contain the key for {}", .0.0, .1.as_str())]
    Key(SecretName, Provider),
    /// The provider has no API for the channel.
    #[error("{} has no API for the channel {}", .0.as_str(), .1)]
    Purpose(Provider, &'static str),
    /// The value is not a valid key.
    #[error("{} contains a space, a quote or another character that is invalid in a key", .0.0)]
    OddKey(SecretName),
    /// A secret of `[alerts]` is not set or not valid.
    #[error("{} {}; `[alerts]` names it", .0.0, .1)]
    Alert(SecretName, &'static str),
    /// A template has an error.
    #[error("{0}")]
    Template(TemplateError),
}

/// The key of an API, if it is valid.
pub(crate) fn usable(
    api: &hookmill_config::Api,
    lookup: impl Fn(&SecretName) -> Option<Secret>,
) -> Result<Secret, ChannelError> {
    if api.provider.is_native_only() && api.user.is_none() {
        // Without a user there is no password.
        return Ok(Secret::from(""));
    }
    let key = lookup(&api.key).filter(|key| !key.expose_secret().trim().is_empty());
    let key = key.ok_or_else(|| ChannelError::Key(api.key.clone(), api.provider))?;
    let odd = |c: char| match api.provider.facts().transport {
        Transport::Https { .. } => !c.is_ascii_graphic() || c == '"' || c == '\'',
        // A password may contain any printable character.
        Transport::Smtp => c.is_control(),
    };
    if key.expose_secret().trim().contains(odd) {
        return Err(ChannelError::OddKey(api.key.clone()));
    }
    Ok(key)
}

/// The result of sending.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// The number of messages that a provider has accepted.
    pub accepted: usize,
    /// Messages that were not sent or whose delivery is uncertain, with the reasons.
    pub unsent: Vec<UnsentMessage>,
    /// Sentences about batches that will be retried, and quotas that are almost used up.
    pub problems: Vec<String>,
}

impl Sent {
    /// The number of messages by state.
    pub fn states(&self) -> BTreeMap<&str, usize> {
        let mut states = BTreeMap::new();
        if self.accepted > 0 {
            states.insert("sent", self.accepted);
        }
        for unsent in &self.unsent {
            *states.entry(unsent.state.as_str()).or_default() += 1;
        }
        states
    }

    /// Adds the answers of statements that settle messages.
    fn settled(&mut self, rows: &[Rows]) -> Result<(), StoreError> {
        let (accepted, unsent) = state::read_settled(rows)?;
        self.accepted += accepted;
        self.unsent.extend(unsent);
        Ok(())
    }
}

/// The result of a round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Round {
    /// What the round has sent.
    pub sent: Sent,
    /// When more work is due; none if the outbox is empty.
    pub next: Option<Timestamp>,
}

impl OutboxChannel {
    /// The channels of a configuration.
    ///
    /// # Errors
    ///
    /// Lists missing and invalid keys, or errors in templates. A checked configuration has no errors in templates.
    pub fn all(
        config: &Consumers,
        lookup: impl Fn(&SecretName) -> Option<Secret>,
    ) -> Result<Vec<Self>, Vec<ChannelError>> {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        let mut found =
            |route: Result<Route, ChannelError>| route.map_err(|problem| errors.push(problem)).ok();
        let mut add = |composer, settings: &Sending, routes| {
            let (settings, retry) = (settings.clone(), config.retry.clone());
            all.push(Self { composer, settings, routes, retry });
        };
        if let Some(settings) = &config.emails {
            let templates = Templates::new(&config.templates).map_err(|errors| {
                errors.into_iter().map(ChannelError::Template).collect::<Vec<_>>()
            })?;
            let (mut apis, mut routes) = (Vec::new(), Vec::new());
            for named in &settings.sending.apis {
                let api = email_api(named.provider);
                routes.extend(found(Route::new(Channel::Email.as_str(), api, named, &lookup)));
                apis.extend(api);
            }
            let composer = EmailComposer { settings: settings.clone(), templates, apis };
            add(Composer::Email(Box::new(composer)), &settings.sending, routes);
        }
        if let Some(sms) = &config.sms {
            let route = |named: &hookmill_config::Api| {
                let twilio = Twilio { account: sms.account.clone() };
                let api = Some(twilio).filter(|api| api.name() == named.provider.as_str());
                found(Route::new(Channel::Sms.as_str(), api, named, &lookup))
            };
            let routes = sms.sending.apis.iter().filter_map(route).collect();
            add(Composer::Sms(Box::new(sms.clone())), &sms.sending, routes);
        }
        for (provider, sending) in &config.tracking {
            let api = track_api(*provider);
            let route = |named| found(Route::new("tracking", api, named, &lookup));
            let routes = sending.apis.iter().filter_map(route).collect();
            // A provider without a tracking API is among the errors.
            if let Some(api) = api {
                add(Composer::Track(api), sending, routes);
            }
        }
        if errors.is_empty() { Ok(all) } else { Err(errors) }
    }

    /// For development: sends without delay, through this API in place of the configured ones.
    #[must_use]
    pub fn through(mut self, api: &'static dyn EmailApi) -> Self {
        self.routes.truncate(1);
        for route in &mut self.routes {
            route.api = Box::new(api);
            route.settings.rate = u32::MAX;
        }
        if let Composer::Email(composer) = &mut self.composer {
            composer.apis = vec![api];
        }
        self
    }

    /// The channel's name: `email`, `sms`, or the analytics provider.
    pub fn name(&self) -> &'static str {
        self.composer.channel()
    }

    /// The names of its providers.
    fn providers(&self) -> impl Iterator<Item = &'static str> {
        self.routes.iter().map(Route::name)
    }

    /// The route for new batches and its index: the first whose provider is available, else the one that is available
    /// first.
    fn chosen(&self, health: &[ProviderHealth], now: Timestamp) -> Option<(usize, &Route)> {
        let away = |(_, route): &(usize, &Route)| away_until(health, route.name()).max(now);
        self.routes.iter().enumerate().min_by_key(away)
    }
}

/// Resumes batches that other processes were sending; for a caller that knows that these processes have ended.
///
/// # Errors
///
/// If the store fails. Then the batches are resumed when their leases end.
pub async fn resume<S: Store>(store: &S, now: Timestamp) -> Result<(), StoreError> {
    store.execute(vec![state::free(now)]).await.map(drop)
}

/// Sentences about pending messages that none of these channels sends. A batch for one provider does not move to another,
/// since the first may have received it.
///
/// # Errors
///
/// If the store fails.
pub async fn stranded<S: Store>(
    store: &S,
    channels: &[OutboxChannel],
) -> Result<Vec<String>, StoreError> {
    let rows = store.query(vec![state::open()]).await?;
    let stranded = |OpenCount { channel: name, provider, count, uncertain }| {
        let channel = channels.iter().find(|channel| channel.name() == name);
        let names = |provider: &str| {
            channel.is_some_and(|channel| channel.providers().any(|name| name == provider))
        };
        match provider {
            None if channel.is_some() => None,
            None => Some(format!(
                "{count} {name} messages are pending, but `[{}]` is not configured",
                if matches!(name.as_str(), "email" | "sms") {
                    name.clone()
                } else {
                    format!("tracking.{name}")
                }
            )),
            Some(provider) if names(&provider) => None,
            // The round moves the others to a current provider.
            Some(_) if channel.is_some() && uncertain == 0 => None,
            Some(provider) => {
                let count = if channel.is_some() { uncertain } else { count };
                Some(format!(
                    "{name} batches waiting for {provider}: {count}; hookmill.toml no longer names it: add it, for instance as `fallback`"
                ))
            }
        }
    };
    let open = read(answer(&rows, 0))?;
    Ok(open.into_iter().filter_map(stranded).collect())
}

/// Seals the messages of these channels that are due, and sends a batch through each provider. Returns a round for each channel.
///
/// The steps. Each step can be repeated, and two processes can run it at the same time:
///
/// 1. One transaction looks at all channels, and corrects times from a clock that was ahead. A channel without work ends here.
/// 2. Batches that cannot be sent any more are settled.
/// 3. Messages that are due are sealed into batches. If two processes seal the same message, the transaction lets one
///    succeed.
/// 4. A batch is leased for [`state::LEASE`] and sent, and the provider's answer is recorded.
///
/// # Errors
///
/// If the store fails. A batch that was being sent is resumed when its lease ends.
pub async fn rounds<S: Store, F: Fetch>(
    store: &S,
    fetch: &F,
    channels: &[OutboxChannel],
    now: impl Fn() -> Timestamp,
) -> Result<Vec<Round>, StoreError> {
    let start = now();
    let looks: Vec<_> = channels.iter().map(|channel| channel.look(start)).collect();
    let lengths: Vec<_> = looks.iter().map(Vec::len).collect();
    let mut rows = store.execute(looks.into_iter().flatten().collect()).await?;
    let mut rounds = Vec::with_capacity(channels.len());
    for (channel, length) in channels.iter().zip(lengths) {
        let others = rows.split_off(length.min(rows.len()));
        let found = channel.found(&rows)?;
        rounds.push(round(store, fetch, channel, found, &now).await?);
        rows = others;
    }
    Ok(rounds)
}

/// What is due in a channel.
struct Found {
    /// For each route, batches that cannot be sent any more.
    doubtful: Vec<Vec<LeasedBatch>>,
    due: Due,
    next: Option<Timestamp>,
}

/// Messages that are due, and the health of the providers.
type Due = (Vec<PendingMessage>, Vec<ProviderHealth>);

impl OutboxChannel {
    /// Asks what is due.
    fn look(&self, now: Timestamp) -> Vec<Statement> {
        let longest = self.retry.longest();
        let providers: Vec<_> = self.providers().collect();
        let mut statements = state::put_right(self.name(), now, longest);
        statements.push(state::put_senders_right(&providers, now, longest));
        let doubtful = |route: &Route| {
            state::doubtful(self.name(), route.provider(), now, now - route.tried())
        };
        statements.extend(self.routes.iter().map(doubtful));
        statements.extend(self.pending(now));
        statements.push(state::next(self.name(), &providers));
        statements
    }

    /// Asks for the messages that are due.
    fn pending(&self, now: Timestamp) -> Vec<Statement> {
        let limit = self.routes.iter().map(|route| route.api.max_batch()).max();
        let providers: Vec<_> = self.providers().collect();
        state::pending(self.name(), &providers, now, limit.unwrap_or_default())
    }

    /// Reads the answer to [`OutboxChannel::look`].
    fn found(&self, rows: &[Rows]) -> Result<Found, StoreError> {
        let (rest, next) = rows.split_at(rows.len().saturating_sub(1));
        let (rest, due) = rest.split_at(rest.len().saturating_sub(state::PENDING_STATEMENTS));
        let (_, doubtful) = rest.split_at(rest.len().saturating_sub(self.routes.len()));
        let doubtful = doubtful.iter().map(|rows| read(rows)).collect::<Result<_, _>>()?;
        Ok(Found { doubtful, due: state::read_pending(due)?, next: self.next(next)? })
    }

    /// Reads when work is due: the answer to [`state::next`].
    fn next(&self, rows: &[Rows]) -> Result<Option<Timestamp>, StoreError> {
        let (pending, batch) = state::read_next(rows)?;
        Ok(pending.map(|due_at| due_at + self.settings.wait).into_iter().chain(batch).min())
    }
}

async fn round<S: Store, F: Fetch>(
    store: &S,
    fetch: &F,
    channel: &OutboxChannel,
    found: Found,
    now: &impl Fn() -> Timestamp,
) -> Result<Round, StoreError> {
    let Found { doubtful, due, next } = found;
    let mut sent = Sent::default();
    let is_doubtful = doubtful.iter().any(|batches| !batches.is_empty());
    // Messages that wait for a full batch are due: the batch may be full.
    if !is_doubtful && due.0.is_empty() && next.is_none_or(|next| next > now()) {
        return Ok(Round { sent, next });
    }
    for (route, batches) in channel.routes.iter().zip(doubtful) {
        settle_doubtful(store, channel, route, batches, now(), &mut sent).await?;
    }
    // Settling may have put messages back.
    let mut due = (!is_doubtful).then_some(due);
    loop {
        let now = now();
        let due = match due.take() {
            Some(due) => due,
            None => state::read_pending(&store.execute(channel.pending(now)).await?)?,
        };
        if !seal(store, channel, due, now, &mut sent).await? {
            break;
        }
    }
    for (index, route) in channel.routes.iter().enumerate() {
        let before = sent.accepted;
        send(store, fetch, channel, route, now, &mut sent).await?;
        // The quota belongs to the first provider; the others are fallbacks.
        if sent.accepted > before && index == 0 {
            warn(store, channel, route.name(), now(), &mut sent).await?;
        }
    }
    let providers: Vec<_> = channel.providers().collect();
    let next = channel.next(&store.query(vec![state::next(channel.name(), &providers)]).await?)?;
    Ok(Round { sent, next: next.map(|next| next.max(now() + PAUSE)) })
}

/// Settles batches whose sender has ended and whose delivery is uncertain, and batches that were retried for too long.
async fn settle_doubtful<S: Store>(
    store: &S,
    channel: &OutboxChannel,
    route: &Route,
    batches: Vec<LeasedBatch>,
    now: Timestamp,
    sent: &mut Sent,
) -> Result<(), StoreError> {
    let tried = route.tried();
    for batch in batches {
        let hours = tried.as_secs() / 3600;
        let statements = if !batch.arrived {
            // The provider has received nothing under this key, so another key is as good.
            let error =
                format!("no connection in {} attempts within {hours} hours", batch.attempts);
            let at_once = (Duration::ZERO, Duration::ZERO);
            let again = state::put_back(&batch, now, at_once, &error, channel.retry.max_attempts);
            let ended = state::end(&batch, BatchEnd::Refused, &error, now);
            [again].into_iter().chain(ended).collect()
        } else if route.recognizes() {
            let error = format!(
                "none of {} attempts in {hours} hours got a response, and the idempotency key has expired",
                batch.attempts
            );
            uncertain(channel, &batch, &error, now, sent)
        } else {
            let error = "the sender stopped before it recorded the response";
            uncertain(channel, &batch, error, now, sent)
        };
        sent.settled(&store.execute(statements).await?)?;
    }
    Ok(())
}

/// Seals messages that are due into batches: as many as one request may have. Returns whether there may be more.
async fn seal<S: Store>(
    store: &S,
    channel: &OutboxChannel,
    (mut pending, health): Due,
    now: Timestamp,
    sent: &mut Sent,
) -> Result<bool, StoreError> {
    let Some((index, route)) = channel.chosen(&health, now) else { return Ok(false) };
    let provider = route.name();
    let (count, full) = first_batch(&pending, route.api.max_batch());
    pending.truncate(count);
    let waits = |oldest: &PendingMessage| !full && oldest.due_at + channel.settings.wait > now;
    if pending.first().is_none_or(waits) {
        return Ok(false);
    }
    let composed = channel.composer.compose(store, index, &pending, now).await?;
    let refused = composed.refused.iter().map(|(id, why)| (id.as_str(), "refused", why.clone()));
    let suppressed =
        composed.suppressed.iter().map(|(id, why)| (id.as_str(), "suppressed", why.clone()));
    let unsent: Vec<_> = refused.chain(suppressed).collect();
    let sealing = composed.drafts.into_iter().map(|Draft { members, body }| {
        // These messages are in no other batch at this time, so the key is unique.
        let key = format!("{provider}\0{}\0{}", now.millis(), members.join("\0"));
        NewBatch {
            id: sha256_hex(&[key.as_bytes()]),
            channel: channel.name(),
            provider,
            members,
            body,
        }
    });
    let mut statements = state::seal(&sealing.collect::<Vec<_>>(), now);
    let sealing = statements.len();
    statements.extend(state::leave_out(&composed.left_out));
    statements.extend(state::refuse(&unsent, now));
    if statements.is_empty() {
        return Ok(false);
    }
    let rows = store.execute(statements).await?;
    let (seals, settled) = rows.split_at_checked(sealing).unwrap_or_default();
    let sealed = seals.iter().flatten().count();
    sent.settled(settled)?;
    // If another process seals at the same time, it does the rest.
    Ok(full && (sealed > 0 || !unsent.is_empty()))
}

/// The number of messages in the next batch, and whether the batch is full.
fn first_batch(pending: &[PendingMessage], limit: usize) -> (usize, bool) {
    let mut limit = limit;
    for (count, pending) in pending.iter().enumerate() {
        limit = pending.together.map_or(limit, |together| limit.min(together.max(1)));
        if count >= limit {
            return (count, true);
        }
    }
    (pending.len(), pending.len() == limit)
}

/// The end of a provider's unavailability; in the distant past if it is available.
fn away_until(health: &[ProviderHealth], provider: &str) -> Timestamp {
    let found = health.iter().find(|health| health.provider == provider);
    found.map_or(Timestamp::from_millis(0), |health| health.away_until)
}

/// Sends one batch through an API, if one is due and the rate allows it, and records the answer.
async fn send<S: Store, F: Fetch>(
    store: &S,
    fetch: &F,
    channel: &OutboxChannel,
    route: &Route,
    now: impl Fn() -> Timestamp,
    sent: &mut Sent,
) -> Result<(), StoreError> {
    let Route { api, settings, key } = route;
    let start = now();
    let interval = Duration::from_secs(1) / settings.rate.max(1);
    let since = start - route.tried();
    let rows = store
        .execute(state::take(channel.name(), route.provider(), start, interval, since))
        .await?;
    let (Some(batch), health) = state::read_taken(&rows)? else { return Ok(()) };
    let sealed =
        Sealed { channel: channel.name(), id: &batch.id, body: &batch.body, settings, key };
    // Some APIs quote an invalid key in their answer.
    let answer = match caught(|| {
        let request = api.request(&sealed);
        (request.hidden_key(key), request)
    }) {
        Err(panicked) => SendResult::Refused(panicked.to_string()),
        Ok((hidden, request)) => match fetch.ask(request, key).await {
            Ok(mut response) => {
                response.body = hidden.in_text(&response.body);
                caught(|| api.answer(batch.members.len(), &response))
                    .unwrap_or_else(|panicked| SendResult::Uncertain(panicked.to_string()))
            }
            Err(error @ FetchError::NotSent(_)) => {
                SendResult::Unavailable(hidden.in_text(&error.to_string()))
            }
            Err(error @ FetchError::NoAnswer(_)) => {
                SendResult::Uncertain(hidden.in_text(&error.to_string()))
            }
        },
    };
    let reply = Reply { route, batch: &batch, health: &health, now: now() };
    let statements = judge(channel, &reply, answer, sent);
    // An answer that is not recorded is as good as lost.
    let mut written = store.execute(statements.clone()).await;
    for _ in 1..WRITES {
        if !matches!(written, Err(StoreError::Unavailable(_))) {
            break;
        }
        written = store.execute(statements.clone()).await;
    }
    sent.settled(&written?)
}

/// The context of an answer.
struct Reply<'a> {
    route: &'a Route,
    batch: &'a LeasedBatch,
    /// The providers' health before the request.
    health: &'a [ProviderHealth],
    now: Timestamp,
}

/// The statements that record an answer.
fn judge(
    channel: &OutboxChannel,
    reply: &Reply<'_>,
    answer: SendResult,
    sent: &mut Sent,
) -> Vec<Statement> {
    let Reply { route, batch, now, .. } = *reply;
    let (members, name) = (batch.members.len(), route.name());
    // Any other answer shows that the provider is available.
    let away = matches!(answer, SendResult::Unavailable(_) | SendResult::Uncertain(_));
    if !away && away_until(reply.health, name) > now {
        sent.problems.push(format!("{name} responds again"));
    }
    let answers = state::note(name, now, false, None);
    let invalid = matches!(answer, SendResult::Malformed(_));
    match answer {
        SendResult::Accepted(delivered) => {
            let recipients = route.api.recipients(members, &batch.body);
            state::delivered(name, batch, &delivered, &recipients, now)
        }
        // The provider has accepted nothing, so a delay costs only time. It asks for no requests at all.
        SendResult::Busy { after, error } => {
            let schedule = delay(&channel.retry, batch.attempts);
            let due_at = now + after.unwrap_or(schedule).min(channel.retry.max);
            sent.problems.push(format!("{error}; next request at {due_at}"));
            vec![
                state::release(batch, due_at, &error, false),
                state::note(name, due_at, false, None),
            ]
        }
        // The provider accepts other batches, so these do not wait.
        SendResult::Deferred(error) => {
            let due_at = now + delay(&channel.retry, batch.attempts);
            sent.problems.push(format!("{error}; next request at {due_at}"));
            vec![state::release(batch, due_at, &error, false), answers]
        }
        SendResult::Unavailable(error) => is_away(channel, reply, &error, false, sent),
        SendResult::Uncertain(error) => is_away(channel, reply, &error, true, sent),
        // The delivery was uncertain before. A provider that recognizes batches would repeat its first answer, so it has never
        // accepted one that it calls invalid.
        SendResult::Malformed(error) | SendResult::Refused(error)
            if batch.arrived && !(invalid && route.recognizes()) =>
        {
            let mut statements = uncertain(channel, batch, &error, now, sent);
            statements.push(answers);
            statements
        }
        SendResult::Malformed(error) if members > 1 => {
            sent.problems.push(format!(
                "{error}; a batch of {members} is split to find the invalid message"
            ));
            let mut statements = state::dissolve(batch, Some(members / 2), &error, now);
            statements.push(answers);
            statements
        }
        SendResult::Malformed(error) | SendResult::Refused(error) => {
            let mut statements = state::end(batch, BatchEnd::Refused, &error, now);
            statements.push(answers);
            statements
        }
    }
}

/// The statements that record that a provider is unavailable. `arrived`: it may have accepted the batch.
fn is_away(
    channel: &OutboxChannel,
    reply: &Reply<'_>,
    error: &str,
    arrived: bool,
    sent: &mut Sent,
) -> Vec<Statement> {
    let Reply { route, batch, health, now } = *reply;
    let name = route.name();
    let failures = batch.failures + 1;
    let others = channel.providers().filter(|other| *other != name);
    let away = channel.routes.len() > 1 && failures >= channel.settings.failover_after;
    // An unavailable provider is no fallback.
    let other = others.into_iter().find(|other| away_until(health, other) <= now);
    let other = other.filter(|_| away);
    if away && away_until(health, name) <= now {
        let instead = other.unwrap_or("no provider");
        sent.problems.push(format!(
            "{name} was unavailable {failures} times in a row; {instead} replaces it until it responds again, or until {}",
            now + AWAY
        ));
    }
    let mut statements = vec![state::note(name, now, true, away.then_some(now + AWAY))];
    let may_have_it = arrived || batch.arrived;
    let (members, attempts) = (batch.members.len(), batch.attempts);
    if may_have_it && !route.recognizes() {
        statements.extend(uncertain(channel, batch, error, now, sent));
    } else if other.is_some() && !may_have_it {
        statements.extend(state::dissolve(batch, None, error, now));
    } else {
        let due_at = now + delay(&channel.retry, attempts);
        sent.problems.push(format!(
            "{error}; a batch of {members} was tried {attempts} times; next attempt at {due_at}"
        ));
        statements.push(state::release(batch, due_at, error, arrived));
    }
    statements
}

/// Warns once for each day or month that its quota is almost used up.
async fn warn<S: Store>(
    store: &S,
    channel: &OutboxChannel,
    name: &str,
    now: Timestamp,
    sent: &mut Sent,
) -> Result<(), StoreError> {
    let Some(quota) = &channel.settings.quota else { return Ok(()) };
    let (day, month) = (quota.threshold(quota.day), quota.threshold(quota.month));
    let rows = store.query(vec![state::used(name, now, day, month)]).await?;
    for QuotaUsage { period, sent: emails } in read(answer(&rows, 0))? {
        let daily = period == now.day();
        let limit = if daily { quota.day } else { quota.month }.unwrap_or_default();
        let warning = format!("{name} has sent {emails} of {limit} emails for {period}");
        let mut statements = vec![state::warned(name, &period, now)];
        if let Some(to) = &quota.notify {
            let about = format!("quota-{name}-{period}");
            let id = sha256_hex(&[about.as_bytes()]);
            let subject = format!("Hookmill: the quota of {name} is almost used up");
            let content = json!({ "to": [to.to_string()], "literal": [subject, warning] });
            statements.push(state::write(&id, &about, "quota", &content.to_string(), now));
        }
        store.execute(statements).await?;
        sent.problems.push(warning);
    }
    Ok(())
}

/// Ends a batch whose delivery is uncertain: its emails stay uncertain, or are sent again in another batch.
fn uncertain(
    channel: &OutboxChannel,
    batch: &LeasedBatch,
    error: &str,
    now: Timestamp,
    sent: &mut Sent,
) -> Vec<Statement> {
    let error = format!("delivery is uncertain: {error}");
    let mut statements = Vec::new();
    if channel.settings.on_uncertain == OnUncertain::Retry {
        let Retry { initial, max, max_attempts, .. } = channel.retry;
        statements.push(state::put_back(batch, now, (initial, max), &error, max_attempts));
        sent.problems.push(format!("{error}; on_uncertain = \"retry\" sends it again"));
    }
    statements.extend(state::end(batch, BatchEnd::Uncertain, &error, now));
    statements
}
