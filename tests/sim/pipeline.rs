//! The pipeline on one machine: the tasks of the binary and of the Workers, on the ports of the simulated world.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hookmill_config::{Consumers, Source};
use hookmill_consumers::alert::Alarm;
use hookmill_consumers::counters::Counters;
use hookmill_consumers::import;
use hookmill_consumers::jobs::{AskApis, SendAlerts, SendOutbox};
use hookmill_consumers::outbox::{OutboxChannel, resume};
use hookmill_consumers::refetch::{self, Apis};
use hookmill_consumers::{log, process_batch};
use hookmill_core::job::{Job, failed};
use hookmill_core::request::Coding;
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::store::Store as _;
use hookmill_dlq::jobs::{RemoveUnsent, RunReplays, SweepOld};
use hookmill_dlq::{drain, drained, record_rejections};
use hookmill_ingress::{BodyError, DecodeError, Gate, Incoming, Platform, RequestOutcome, serve};
use hookmill_loader::Loaded;
use hookmill_native::QueueName;
use hookmill_providers::development;

use crate::world::{Machine, Sender, Wait, now};

/// A task of a machine.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The keys of the providers: their names in URLs, the names of the keys, and the keys.
const KEYS: [(&str, &str, &str); 6] = [
    ("resend", "SIM_RESEND_KEY", "key-of-resend-1234567890"),
    ("sendgrid", "SIM_SENDGRID_KEY", "key-of-sendgrid-1234567890"),
    ("twilio", "SIM_TWILIO_KEY", "key-of-twilio-1234567890"),
    ("mixpanel", "SIM_MIXPANEL_KEY", "key-of-mixpanel-1234567890"),
    ("posthog", "SIM_POSTHOG_KEY", "key-of-posthog-1234567890"),
    ("stripe", "SIM_STRIPE_KEY", "key-of-stripe-1234567890"),
];
/// The secret that signs alerts.
const ALERT_SECRET: &str = "whsec_c2ltdWxhdGVkLWFsZXJ0LXNlY3JldA==";

/// The key of a provider.
pub fn key_of(provider: &str) -> Option<&'static str> {
    KEYS.iter().find(|(name, ..)| *name == provider).map(|(.., key)| *key)
}

/// A secret of the environment.
fn secret(name: &SecretName) -> Option<Secret> {
    if name.0 == "SIM_ALERT_SECRET" {
        return Some(ALERT_SECRET.into());
    }
    let key = KEYS.iter().find(|(_, named, _)| *named == name.0);
    key.map(|(.., key)| Secret::from(*key))
}

/// The configuration, loaded once for all histories.
pub struct Setup {
    pub loaded: Loaded,
    config: Arc<Consumers>,
}

impl Setup {
    pub fn new() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sim/hookmill.toml");
        let loaded = hookmill_loader::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        let config = Arc::new(loaded.consumers());
        Self { loaded, config }
    }

    pub fn source(&self, name: &str) -> &Source {
        let mut sources = self.loaded.config.ingress.sources.iter();
        sources.find(|source| source.name == name).expect("the source is configured")
    }

    /// The secret that signs the events of a source, and verifies them.
    pub fn signing_secret(&self, name: &str) -> Secret {
        let source = self.source(name);
        development(source, &source.secrets[0].name).signing
    }

    pub fn gate(&self) -> Gate {
        let ingress = self.loaded.config.ingress.clone();
        let sources = &self.loaded.config.ingress.sources;
        let lookup = |name: &SecretName| {
            let source = sources.iter().find(|source| source.secrets[0].name == *name)?;
            Some(development(source, name).verifying)
        };
        Gate::on_loopback(ingress, [7; 16], 1 << 26, lookup).0
    }

    /// What must not be in the log: keys, secrets, addresses, and what events say.
    pub fn secrets(&self) -> Vec<String> {
        let keys = KEYS.map(|(.., key)| key.to_owned());
        let of_sources = self.loaded.config.ingress.sources.iter().map(|source| {
            use hookmill_core::secret::ExposeSecret as _;
            self.signing_secret(&source.name).expose_secret().to_owned()
        });
        let others = [ALERT_SECRET, "@private.test", "private-note", "+15550199"];
        keys.into_iter().chain(of_sources).chain(others.map(ToOwned::to_owned)).collect()
    }
}

/// The tasks of a machine. `alone`: no other machine runs, so what the last process was doing is resumed at once.
pub fn tasks(setup: &Setup, machine: &Machine, gate: &Arc<Gate>, alone: bool) -> Vec<Task> {
    let config = setup.config.clone();
    let counters = Arc::new(Counters::default());
    let mut tasks: Vec<Task> = Vec::new();
    let lookup = secret;
    let mut add = |task: Task| tasks.push(task);
    if alone {
        let apis = Apis::new(&config, lookup).expect("the keys are set");
        add(Box::pin(resumed(machine.clone(), apis)));
    }
    for _ in 0..2 {
        let consumer = Consumer::new(machine, &config, &counters, alone);
        add(Box::pin(consumer.consume(QueueName::Events)));
    }
    let consumer = Consumer::new(machine, &config, &counters, alone);
    add(Box::pin(consumer.consume(QueueName::Replays)));
    add(Box::pin(bury(machine.clone())));
    for channel in OutboxChannel::all(&config, lookup).expect("the keys are set") {
        let job =
            SendOutbox { store: machine.clone(), fetch: machine.clone(), channels: vec![channel] };
        add(run(machine, job));
    }
    let apis = Apis::new(&config, lookup).expect("the keys are set");
    let ask = AskApis {
        store: machine.clone(),
        fetch: machine.clone(),
        config: Config(config.clone()),
        apis,
        queue: machine.sender(QueueName::Replays),
        objects: machine.clone(),
    };
    add(run(machine, ask));
    let alarm = Alarm::new(&config, lookup).expect("the keys are set");
    if let Some(alarm) = alarm {
        let queue = Some(machine.sender(QueueName::Events));
        let (store, fetch) = (machine.clone(), machine.clone());
        add(run(machine, SendAlerts { store, queue, fetch, alarm }));
    }
    let queue = machine.sender(QueueName::Replays);
    add(run(machine, RunReplays { store: machine.clone(), queue }));
    let retention = setup.loaded.config.retention;
    let (store, objects) = (machine.clone(), machine.clone());
    add(run(machine, SweepOld { store, objects, retention }));
    let (store, objects) = (machine.clone(), machine.clone());
    let queue = machine.sender(QueueName::Events);
    add(run(machine, RemoveUnsent { store, objects, queue }));
    add(Box::pin(keep_rejections(machine.clone(), gate.clone())));
    add(Box::pin(keep_counts(machine.clone(), counters, config)));
    tasks
}

/// A shared configuration.
struct Config(Arc<Consumers>);

impl std::borrow::Borrow<Consumers> for Config {
    fn borrow(&self) -> &Consumers {
        &self.0
    }
}

async fn resumed(machine: Machine, apis: Apis) {
    // If it fails, the leases end.
    let _ = resume(&machine, now()).await;
    let _ = refetch::resume(&machine, &apis, now()).await;
    let _ = import::resume(&machine, now()).await;
}

/// The runner of a background job.
fn run<J: Job + 'static>(machine: &Machine, job: J) -> Task {
    let machine = machine.clone();
    Box::pin(async move {
        loop {
            let next = match job.step(now).await {
                Ok(step) => {
                    step.log.iter().for_each(|entry| machine.world().log(entry));
                    step.next
                }
                Err(error) => {
                    machine.world().log(&failed(J::NAME, &error));
                    Some(now() + Duration::from_secs(1))
                }
            };
            let due = next.map(|next| u64::try_from(next.millis() - now().millis()).unwrap_or(0));
            // Without known work, the time between two steps is longer than that of a platform, which is work for nothing.
            let idle = J::INTERVAL * if machine.world().is_troubled { 3 } else { 30 };
            machine
                .sleep(due.map_or(idle, |due| Duration::from_millis(due.max(1)).min(J::INTERVAL)))
                .await;
        }
    })
}

struct Consumer {
    machine: Machine,
    config: Arc<Consumers>,
    counters: Arc<Counters>,
    /// Whether all verdicts of a batch come at its end, as in the native binary.
    at_once: bool,
}

impl Consumer {
    fn new(
        machine: &Machine,
        config: &Arc<Consumers>,
        counters: &Arc<Counters>,
        at_once: bool,
    ) -> Self {
        let (machine, config) = (machine.clone(), config.clone());
        Self { machine, config, counters: counters.clone(), at_once }
    }

    async fn consume(self, queue: QueueName) {
        let Self { machine, config, counters, at_once } = self;
        loop {
            let batch = machine.receive(queue, 10).await;
            if batch.is_empty() {
                machine.wait(Wait::Messages(queue)).await;
                continue;
            }
            let (ids, deliveries): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let settle = |index: usize, verdict| machine.settle(queue, ids[index], verdict);
            let result =
                process_batch(&machine, &machine, &config, &deliveries, now(), |index, settled| {
                    if !at_once {
                        settle(index, settled.verdict);
                    }
                })
                .await;
            let lines = counters.add(&config, &result);
            for entry in &lines {
                machine.world().log(entry);
            }
            for (index, settled) in result.settled.iter().enumerate() {
                machine.world().log(&log::entry(deliveries[index].attempts, settled));
                if at_once {
                    settle(index, settled.verdict);
                }
            }
        }
    }
}

async fn bury(machine: Machine) {
    loop {
        let batch = machine.receive(QueueName::DeadLetters, 10).await;
        if batch.is_empty() {
            machine.wait(Wait::Messages(QueueName::DeadLetters)).await;
            continue;
        }
        let (ids, deliveries): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let (verdicts, error) = drain(&machine, &deliveries, now()).await;
        machine.world().log(&drained(verdicts.len(), error.as_ref()));
        for (id, verdict) in ids.into_iter().zip(verdicts) {
            machine.settle(QueueName::DeadLetters, id, verdict);
        }
    }
}

async fn keep_rejections(machine: Machine, gate: Arc<Gate>) {
    loop {
        machine.sleep(Duration::from_secs(5)).await;
        let reports = gate.rejections().take(now());
        if reports.is_empty() {
            machine.sleep(Duration::from_secs(600)).await;
        } else {
            let _ = machine.execute(record_rejections(&reports, now())).await;
        }
    }
}

async fn keep_counts(machine: Machine, counters: Arc<Counters>, config: Arc<Consumers>) {
    loop {
        machine.sleep(Duration::from_secs(60)).await;
        // The counts that could not be written are written later.
        let _ = counters.write(&machine, &config, now()).await;
        machine.sleep(Duration::from_secs(600)).await;
    }
}

/// The interface of ingress to the simulated world.
struct Ingress {
    machine: Machine,
    queue: Sender,
}

impl Platform for Ingress {
    type Queue = Sender;
    type Objects = Machine;

    fn queue(&self) -> &Sender {
        &self.queue
    }

    fn objects(&self) -> &Machine {
        &self.machine
    }

    async fn limited(&self, _: &Source) -> Option<Duration> {
        None
    }

    async fn decode(&self, _: Coding, _: Vec<u8>, _: usize) -> Result<Vec<u8>, DecodeError> {
        Err(DecodeError::Malformed)
    }

    async fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A body that arrives at once.
struct Whole(Option<Vec<u8>>);

impl hookmill_ingress::Body for Whole {
    type Chunk = Vec<u8>;

    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        Ok(self.0.take())
    }
}

/// A request that a provider sends.
pub struct Webhook {
    pub source: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Serves a request; returns the status, and the ids of the events that it has accepted.
pub async fn received(machine: Machine, gate: Arc<Gate>, webhook: Webhook) -> (u16, Vec<String>) {
    let platform = Ingress { queue: machine.sender(QueueName::Events), machine };
    let path = format!("/webhooks/{}", webhook.source);
    let incoming = Incoming {
        method: "POST",
        path: &path,
        query: None,
        headers: &webhook.headers,
        remote: None,
        content_length: u64::try_from(webhook.body.len()).ok(),
        body: Whole(Some(webhook.body)),
    };
    let (reply, outcome) = serve(&platform, &gate, incoming, now()).await;
    if let Some(entry) = hookmill_ingress::log::entry(&outcome) {
        platform.machine.world().log(&entry);
    }
    let events = match outcome {
        RequestOutcome::Accepted { events } => events.into_iter().map(|event| event.id).collect(),
        _ => Vec::new(),
    };
    (reply.status, events)
}
