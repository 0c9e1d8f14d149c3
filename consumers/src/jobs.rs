//! The background jobs of this stage: sending, requests to APIs, and alerts.

use std::borrow::Borrow;
use std::time::Duration;

use hookmill_config::Consumers;
use hookmill_core::fetch::Fetch;
use hookmill_core::job::{Job, OutboxCount, Step, failed};
use hookmill_core::log::{Entry, Fields};
use hookmill_core::objects::Objects;
use hookmill_core::queue::{Backlog, Queue};
use hookmill_core::store::{Store, StoreError};
use hookmill_core::time::Timestamp;

use crate::alert::{Alarm, Looked, look, tell_outage};
use crate::import;
use crate::outbox::state::UnsentMessage;
use crate::outbox::{OutboxChannel, Round, Sent, rounds};
use crate::refetch::{Apis, Fetched};

/// The maximum number of log lines about messages that one round has not sent.
const LINES: usize = 20;

/// Sends the pending messages of channels.
#[derive(Debug)]
pub struct SendOutbox<S, F> {
    /// The store.
    pub store: S,
    /// The client for the provider.
    pub fetch: F,
    /// The channels.
    pub channels: Vec<OutboxChannel>,
}

impl<S: Store, F: Fetch> Job for SendOutbox<S, F> {
    const NAME: &'static str = "send";
    // Another process may write to the outbox too.
    const INTERVAL: Duration = Duration::from_secs(10);

    async fn step(&self, now: fn() -> Timestamp) -> Result<Step, StoreError> {
        let rounds = rounds(&self.store, &self.fetch, &self.channels, now).await?;
        let mut step = Step::default();
        for (channel, Round { sent, next }) in self.channels.iter().zip(rounds) {
            let Step { log, outbox, .. } = sent_step(channel.name(), &sent);
            step.log.extend(log);
            step.outbox.extend(outbox);
            step.next = step.next.into_iter().chain(next).min();
        }
        Ok(step)
    }
}

fn sent_step(channel: &'static str, sent: &Sent) -> Step {
    let fields = || Fields { channel: Some(channel.to_owned()), ..Fields::default() };
    let mut step = Step::default();
    for (state, count) in sent.states() {
        step.outbox.push(OutboxCount { channel, state: state.to_owned(), count });
        let (state, count) = (Some(state.to_owned()), Some(count.to_string()));
        step.log.push(Entry::debug("outbox", Fields { state, count, ..fields() }));
    }
    for unsent in sent.unsent.iter().take(LINES) {
        // The error may contain the recipient's address. The outbox has it.
        let UnsentMessage { id, event: (source, event), rule, state, error: _ } = unsent.clone();
        let message = if state == "uncertain" { "delivery uncertain" } else { "not sent" };
        let fields = Fields {
            id: Some(id),
            rule: Some(rule),
            source: Some(source),
            event: Some(event),
            state: Some(state),
            ..fields()
        };
        step.log.push(Entry::warn(message, fields));
    }
    if let Some(more) = sent.unsent.len().checked_sub(LINES).filter(|more| *more > 0) {
        let fields = Fields { count: Some(more.to_string()), ..fields() };
        step.log.push(Entry::warn(
            "more messages were not sent; `hookmill email list` lists them",
            fields,
        ));
    }
    let problems = sent.problems.iter().map(|problem| Entry::warn(problem.clone(), fields()));
    step.log.extend(problems);
    step
}

/// Sends requests to providers' APIs: fetches objects that events leave open, looks for events that were never delivered,
/// puts the objects of imports on the queue, and compares objects with the tables.
#[derive(Debug)]
pub struct AskApis<S, F, C, Q, O> {
    /// The store.
    pub store: S,
    /// The client for the APIs.
    pub fetch: F,
    /// The configuration, with the rules.
    pub config: C,
    /// The APIs.
    pub apis: Apis,
    /// The queue of replays, so that live events come before imported objects.
    pub queue: Q,
    /// The bodies.
    pub objects: O,
}

impl<S, F, C, Q, O> Job for AskApis<S, F, C, Q, O>
where
    S: Store,
    F: Fetch,
    C: Borrow<Consumers> + Send + Sync,
    Q: Queue,
    O: Objects,
{
    const NAME: &'static str = "APIs";
    // An operator who runs an import on the data folder cannot wake this process.
    const INTERVAL: Duration = Duration::from_secs(2);

    async fn step(&self, now: fn() -> Timestamp) -> Result<Step, StoreError> {
        let Self { store, fetch, config, apis, queue, objects } = self;
        let round = import::round(store, fetch, (queue, objects), (config.borrow(), apis), now);
        let (Fetched { applied, problems, next }, imported, swept) = round.await?;
        let mut step = Step {
            next: next.into_iter().chain(imported.next).chain(swept.next).min(),
            ..Step::default()
        };
        if applied > 0 {
            let fields = Fields { count: Some(applied.to_string()), ..Fields::default() };
            step.log.push(Entry::debug("fetched and applied objects", fields));
        }
        if let Some((id, count)) = imported.sent {
            let (id, count) = (Some(id), Some(count.to_string()));
            step.log.push(Entry::debug("imported", Fields { id, count, ..Fields::default() }));
        }
        if let Some((source, count)) = swept.found {
            let (source, count) = (Some(source), Some(count.to_string()));
            let fields = Fields { source, count, ..Fields::default() };
            step.log.push(Entry::warn("found events that were never delivered", fields));
        }
        let problems = problems.into_iter().chain(imported.problem).chain(swept.problem);
        step.log.extend(problems.map(|text| Entry::warn(text, Fields::default())));
        Ok(step)
    }
}

/// Sends alerts.
#[derive(Debug)]
pub struct SendAlerts<S, F, Q> {
    /// The store.
    pub store: S,
    /// The queue of events, if its length is known.
    pub queue: Option<Q>,
    /// The client for the webhook.
    pub fetch: F,
    /// The settings.
    pub alarm: Alarm,
}

impl<S: Store, F: Fetch, Q: Queue> Job for SendAlerts<S, F, Q> {
    const NAME: &'static str = "alerts";
    const INTERVAL: Duration = Duration::from_secs(60);

    async fn step(&self, now: fn() -> Timestamp) -> Result<Step, StoreError> {
        let backlog = match &self.queue {
            Some(queue) => queue.backlog().await.unwrap_or_default(),
            None => Backlog::default(),
        };
        let looked = match look(&self.store, &self.fetch, &self.alarm, &backlog, now()).await {
            Err(error @ StoreError::Unavailable(_)) => {
                let told = tell_outage(&self.fetch, &self.alarm, &error, now()).await;
                let line = |told: Result<String, String>| match told {
                    Ok(text) => format!("alert: {text}"),
                    Err(problem) => problem,
                };
                let told = told.map(|told| Entry::warn(line(told), Fields::default()));
                let log = told.into_iter().chain([failed(Self::NAME, &error)]).collect();
                return Ok(Step { log, ..Step::default() });
            }
            looked => looked?,
        };
        let Looked { notified, problems } = looked;
        let writes_outbox = !notified.is_empty();
        let notified = notified.into_iter().map(|text| format!("alert: {text}"));
        let problems = problems.into_iter().map(|text| format!("{text}; will retry in a minute"));
        let log = notified.chain(problems).map(|text| Entry::warn(text, Fields::default()));
        Ok(Step { log: log.collect(), writes_outbox, ..Step::default() })
    }
}
