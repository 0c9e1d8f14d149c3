//! The whole pipeline in one process: HTTP, two queues, and their consumers. `dev` and `serve` run it.

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::Router;
use hookmill_admin::auth::GuardMemory;
use hookmill_config::{Batch, Consumers, Retention, Source};
use hookmill_consumers::alert::Alarm;
use hookmill_consumers::import;
use hookmill_consumers::outbox::{ChannelError, OutboxChannel, resume, stranded};
use hookmill_consumers::refetch::{self, Apis};
use hookmill_consumers::{BatchResult, Fate, counts, longest_delay, process_batch, retry_delay};
use hookmill_core::limits::BATCH_MESSAGES;
use hookmill_core::request::Coding;
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::store::Store as _;
use hookmill_ingress::{DecodeError, Gate, Platform, REPORT_WINDOW, RequestOutcome};
use hookmill_loader::Loaded;
use hookmill_native::decode::decode;
use hookmill_native::http::{self, Limits, Service};
use hookmill_native::{
    DataFolder, Files, HttpClient, Metrics, Opened, QueueName, QueueSender, RateLimits, Sqlite,
    SqliteQueue, now,
};
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::run::admin;
use crate::run::counts::Counts;
#[cfg(unix)]
use crate::run::descriptors;
use crate::run::display::DisplayApi;
use crate::run::jobs::Runner;
use crate::run::log;
use crate::run::out::{Out, display_only};
use crate::run::secrets::{from_environment, wrapped};
use crate::run::tasks::{TaskHealth, Tasks, log_panics};
use hookmill_consumers::jobs::{AskApis, SendAlerts, SendOutbox};
use hookmill_dlq::jobs::{RemoveUnsent, RunReplays, SweepOld};
use hookmill_dlq::{drain, drained};

/// The number of concurrent batches: while one waits for the disk, the next is planned.
const CONSUMERS: usize = 2;
/// The delay of a consumer after its queue failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The maximum time that a replayed batch waits for new events.
const GIVE_WAY: Duration = Duration::from_secs(2);
/// The time between two checks for new events.
const GLANCE: Duration = Duration::from_millis(20);

/// Options of the pipeline.
#[derive(clap::Args)]
pub struct RunOptions {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    pub config: PathBuf,
    /// The address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8787", value_parser = parse_listen)]
    pub listen: SocketAddr,
    /// The address and port for the admin API and the dashboard. Default: that of `--listen`. /healthz and /readyz are on
    /// both.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen)]
    pub admin: Option<SocketAddr>,
    /// The address or network of a proxy, such as 203.0.113.7 or 203.0.113.0/24; may be repeated. One address may have 64
    /// connections, except a proxy. Addresses of this machine and of private networks count as proxies.
    #[arg(long = "proxy", value_name = "NETWORK", value_parser = parse_network)]
    pub proxies: Vec<IpNet>,
    /// The address and port for Prometheus metrics at /metrics. Default: none. Do not expose it to the internet.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen)]
    pub metrics: Option<SocketAddr>,
    /// The folder for all data. One process uses it at a time.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    pub data: PathBuf,
    /// The level of the log on stderr. Accepted and applied events are lines of `debug`, the default of `dev`.
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log: Option<String>,
    /// Log one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

fn parse_listen(text: &str) -> anyhow::Result<SocketAddr> {
    let addresses = text.to_socket_addrs().ok();
    addresses
        .and_then(|mut addresses| addresses.next())
        .context("expected an address and a port, such as 127.0.0.1:8787")
}

fn parse_network(text: &str) -> anyhow::Result<IpNet> {
    let network = text.parse().or_else(|_| text.parse().map(|address: IpAddr| address.into()));
    network.ok().context("expected an address or a network, such as 203.0.113.0/24")
}

/// Starts the log. It contains only Hookmill's own lines, since those of libraries may quote unverified text.
pub fn start_log(options: &RunOptions, default: &str) {
    let filter = tracing_subscriber::EnvFilter::new(format!(
        "off,hookmill={}",
        options.log.as_deref().unwrap_or(default)
    ));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Otherwise a closed stderr is an error, which would be printed to stderr and panic.
        .log_internal_errors(false)
        .with_target(false);
    if options.json {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).init();
    }
    log_panics();
}

/// Loads and checks a configuration.
pub fn load(config: &Path) -> anyhow::Result<Loaded> {
    hookmill_loader::load(config, &hookmill_handlers::names()).map_err(|error| match error {
        hookmill_loader::LoadError::Read { .. } if !config.exists() => {
            anyhow::Error::new(error).context("no configuration found; write one with `hookmill init`, or pass its path with --config")
        }
        error => error.into(),
    })
}

/// Opens the migrated store, and checks that the rules match its tables.
pub fn open_store(folder: &DataFolder, loaded: &Loaded) -> anyhow::Result<Opened> {
    let opened = folder.store(&loaded.migrations)?;
    loaded.check_against(&opened.schema).context(
        "the database is not what the migrations make; was one changed after it had been applied? \
         Leave it as it was, and add another",
    )?;
    Ok(opened)
}

struct IngressPlatform {
    queue: SqliteQueue,
    sender: QueueSender,
    store: Sqlite,
    objects: Files,
    rate_limits: RateLimits,
    tasks: TaskHealth,
}

impl Platform for IngressPlatform {
    type Queue = QueueSender;
    type Objects = Files;

    fn queue(&self) -> &QueueSender {
        &self.sender
    }

    fn objects(&self) -> &Files {
        &self.objects
    }

    async fn limited(&self, source: &Source) -> Option<Duration> {
        self.rate_limits.limited(source)
    }

    async fn decode(
        &self,
        coding: Coding,
        body: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>, DecodeError> {
        decode(coding, body, limit).await
    }

    async fn problems(&self) -> Vec<String> {
        let (queue, store) = tokio::join!(self.queue.check(), self.store.check());
        let queue = match queue {
            Ok(()) => self.queue.problem().map(ToOwned::to_owned),
            Err(_) => Some("the queue does not respond".to_owned()),
        };
        let store = store.err().map(|_| "the store does not respond".to_owned());
        queue.into_iter().chain(store).chain(self.tasks.problems()).collect()
    }
}

/// The destination of messages in the outbox.
#[derive(Clone, Copy)]
pub enum Outbox {
    /// Sent to providers.
    Sent,
    /// Displayed, with the HTML parts of emails in the data folder.
    Displayed,
}

/// Runs the pipeline until a stop signal (SIGINT, SIGTERM); then finishes work in progress.
///
/// Calls `ready` with the addresses of webhooks and of the admin API once it accepts requests.
pub fn run(
    options: &RunOptions,
    loaded: Loaded,
    lookup: impl Fn(&SecretName) -> Option<Secret>,
    outbox: Outbox,
    ready: impl FnOnce(SocketAddr, SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for what in wrapped(&loaded.config.ingress.sources) {
        warn!("{what}");
    }
    let connections = connections();
    let folder = DataFolder::lock(&options.data)?;
    folder.keep_for(match outbox {
        Outbox::Sent => "serve",
        Outbox::Displayed => "dev",
    })?;
    let clients = if options.listen.ip().is_loopback() { Clients::Local } else { Clients::Any };
    let Equipment { gate, config, channels, alarm, apis, .. } =
        equipped(&loaded, folder.salt()?, clients, lookup, outbox)?;
    let gate = Arc::new(gate);
    let Opened { store, applied, .. } = open_store(&folder, &loaded)?;
    for name in applied {
        info!(migration = name, "applied a migration");
    }
    let queue = open_queue(&folder, &config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (damaged, damage) = oneshot::channel();
        folder.look_for_damage(queue.clone(), move |error| drop(damaged.send(error)));
        let stop_signal = stop_signal()?;
        let mut found = None;
        let stop_signal = async {
            tokio::select! {
                () = stop_signal => {}
                Ok(error) = damage => found = Some(error),
            }
        };
        let (listener, address) = listen(options.listen)?;
        let admin_listener = options.admin.map(listen).transpose()?;
        folder.announce(address)?;
        let metrics = Metrics::default();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Tasks::new(metrics.clone(), stopped.clone());
        if let Some(address) = options.metrics {
            serve_metrics(&mut tasks, address, &metrics, (&store, &queue), &stopped)?;
        }
        let objects = folder.objects()?;
        let written = Arc::new(Notify::new());
        resume_work(&store, &channels, &apis).await;
        let client = HttpClient::new().context("cannot create an HTTPS client")?;
        let out = match outbox {
            Outbox::Sent => Out::Network(client.clone()),
            Outbox::Displayed => Out::Display { folder: options.data.join("emails") },
        };
        let runner =
            Runner { metrics: metrics.clone(), outbox: written.clone(), stopped: stopped.clone() };
        let events = queue.sender(QueueName::Events);
        let imports = (queue.sender(QueueName::Replays), objects.clone());
        let sending =
            Sending { channels, alarm, apis, out, client: client.clone(), events, imports };
        sending.start(&mut tasks, &runner, &store, &config);
        let counts = Counts::start(&mut tasks, (&store, &config, &metrics), &stopped);
        let consumer = Consumer {
            queue: queue.clone(),
            store: store.clone(),
            objects: objects.clone(),
            metrics: metrics.clone(),
            written: written.clone(),
            counts: counts.clone(),
            config,
            batch: loaded.config.queue.batch(),
        };
        consumer.start_all(&mut tasks, &stopped);
        let replay_requested = Arc::new(Notify::new());
        let replays = RunReplays { store: store.clone(), queue: queue.sender(QueueName::Replays) };
        runner.start(&mut tasks, "replays".to_owned(), replays, replay_requested.clone());
        start_sweeps(&mut tasks, &runner, (&store, &objects, &queue), loaded.config.retention);
        let running = admin::Running { client, replay_requested, written };
        let admin = admin_api((&store, &objects, &queue), &loaded, running);
        watch_queue(&mut tasks, queue.clone(), stopped.clone());
        tasks.start("dead letters", {
            let (queue, store, stopped) = (queue.clone(), store.clone(), stopped.clone());
            move || consume_dead_letters(queue.clone(), store.clone(), stopped.clone())
        });
        let counted = metrics.clone();
        tasks.start("rejections", {
            let (gate, store) = (gate.clone(), store.clone());
            move || keep_rejections(gate.clone(), store.clone(), metrics.clone(), stopped.clone())
        });

        let platform = IngressPlatform {
            sender: queue.sender(QueueName::Events),
            queue,
            store,
            objects,
            rate_limits: RateLimits::new(&loaded.config.ingress.sources),
            tasks: tasks.health(),
        };
        let service = Service { platform, gate, observe: observe(counted) };
        let limits = Limits { connections, proxies: options.proxies.clone() };
        let (admin_listener, admin_address) = admin_listener.unzip();
        ready(address, admin_address.unwrap_or(address))?;
        serve(listener, admin_listener, service, admin, limits, stop_signal).await;
        stop.send_replace(true);
        tasks.ended().await;
        counts.write().await;
        found.map_or(Ok(()), |error| Err(error.into()))
    })
}

/// The admin API of a running pipeline.
fn admin_api(
    (store, objects, queue): (&Sqlite, &Files, &SqliteQueue),
    loaded: &Loaded,
    running: admin::Running,
) -> Router {
    hookmill_admin::router(Arc::new(admin::AdminPlatform {
        store: store.for_questions(),
        bodies: objects.bodies(),
        config: Some(loaded.admin()),
        queues: admin::Queues::Running(queue.clone()),
        running: Some(running),
        memory: GuardMemory::new(),
    }))
}

/// Starts the jobs that remove what is no longer needed.
fn start_sweeps(
    tasks: &mut Tasks,
    runner: &Runner,
    (store, objects, queue): (&Sqlite, &Files, &SqliteQueue),
    retention: Retention,
) {
    let sweep = SweepOld { store: store.clone(), objects: objects.clone(), retention };
    runner.start(tasks, "sweep".to_owned(), sweep, Arc::default());
    let unsent = RemoveUnsent {
        store: store.clone(),
        objects: objects.clone(),
        queue: queue.sender(QueueName::Events),
    };
    runner.start(tasks, "unsent bodies".to_owned(), unsent, Arc::default());
}

/// The maximum number of connections.
fn connections() -> usize {
    #[cfg(unix)]
    return descriptors::connections();
    #[cfg(not(unix))]
    return http::CONNECTIONS;
}

/// Resumes what the last process was doing. The folder is locked, so that process has ended.
async fn resume_work(store: &Sqlite, channels: &[OutboxChannel], apis: &Apis) {
    if let Err(error) = resume(store, now()).await {
        error!(%error, "cannot resume batches that were being sent; they resume when their leases end");
    }
    if let Err(error) = refetch::resume(store, apis, now()).await {
        error!(%error, "cannot free objects that were being fetched; they are fetched when their leases end");
    }
    if let Err(error) = import::resume(store, now()).await {
        error!(%error, "cannot continue imports now; they continue when their leases end");
    }
    for what in stranded(store, channels).await.unwrap_or_default() {
        warn!("{what}");
    }
}

/// Serves webhooks, and the admin API on its own listener or on the same one, until the stop signal.
async fn serve(
    listener: TcpListener,
    admin_listener: Option<TcpListener>,
    service: Service<IngressPlatform>,
    admin: Router,
    limits: Limits,
    stop_signal: impl Future<Output = ()>,
) {
    let body_timeout = service.gate.config().limits.body_timeout;
    let service = Arc::new(service);
    let webhooks = http::webhooks(service.clone());
    let (stop, stopping) = watch::channel(false);
    let serve = |listener, router, limits| {
        let mut stopping = stopping.clone();
        let stop = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
        http::serve(listener, router, limits, body_timeout, stop)
    };
    let stopped = async {
        stop_signal.await;
        info!("stopping; finishing work in progress");
        stop.send_replace(true);
    };
    let Some(admin_listener) = admin_listener else {
        tokio::join!(stopped, serve(listener, admin.merge(webhooks), limits));
        return;
    };
    let admin = admin.merge(http::health(service)).fallback(hookmill_admin::nothing_here);
    // Both servers share the descriptors.
    let few = Limits { connections: (limits.connections / 8).max(1), ..limits.clone() };
    let many = Limits { connections: limits.connections - few.connections, ..limits };
    tokio::join!(stopped, serve(listener, webhooks, many), serve(admin_listener, admin, few));
}

/// The parts of the jobs that send requests to providers.
struct Sending {
    channels: Vec<OutboxChannel>,
    alarm: Option<Alarm>,
    apis: Apis,
    out: Out,
    client: HttpClient,
    /// The queue of events.
    events: QueueSender,
    /// Where imports put objects.
    imports: (QueueSender, Files),
}

impl Sending {
    fn start(self, tasks: &mut Tasks, runner: &Runner, store: &Sqlite, config: &Consumers) {
        let Self { channels, alarm, apis, out, client, events, imports } = self;
        for channel in channels {
            let name = format!("sender of {}", channel.name());
            let send =
                SendOutbox { store: store.clone(), fetch: out.clone(), channels: vec![channel] };
            runner.start(tasks, name, send, runner.outbox.clone());
        }
        if let Some(alarm) = alarm {
            let queue = Some(events);
            let alerts = SendAlerts { store: store.clone(), queue, fetch: out, alarm };
            runner.start(tasks, "alerts".to_owned(), alerts, Arc::default());
        }
        // Also without an API, so that it pauses an import whose source has none any more.
        let (queue, objects) = imports;
        let (store, config) = (store.clone(), config.clone());
        let ask = AskApis { store, fetch: client, config, apis, queue, objects };
        runner.start(tasks, "APIs".to_owned(), ask, runner.outbox.clone());
    }
}

fn open_queue(folder: &DataFolder, config: &Consumers) -> anyhow::Result<SqliteQueue> {
    let retry = config.retry.clone();
    let retry_delay = move |attempts| retry_delay(&retry, attempts);
    Ok(folder.queue(|queue| longest_retry(queue, config), retry_delay)?)
}

/// The maximum delay of a verdict of this queue's consumers.
fn longest_retry(queue: QueueName, config: &Consumers) -> Duration {
    match queue {
        QueueName::Events | QueueName::Replays => longest_delay(&config.retry),
        QueueName::DeadLetters => hookmill_dlq::DRAIN_RETRY,
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = http::listen(address).with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn serve_metrics(
    tasks: &mut Tasks,
    address: SocketAddr,
    metrics: &Metrics,
    (store, queue): (&Sqlite, &SqliteQueue),
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (listener, address) = listen(address)?;
    info!(%address, "serving metrics");
    let listener = listener.into_std()?;
    let (metrics, stopped) = (metrics.clone(), stopped.clone());
    let (store, queue) = (store.clone(), queue.clone());
    let status = move || admin::status(store.clone(), queue.clone());
    tasks.start("metrics", move || {
        let listener = listener.try_clone().and_then(TcpListener::from_std);
        let (metrics, status, mut stopped) = (metrics.clone(), status.clone(), stopped.clone());
        async move {
            let served = async { metrics.serve(listener?, status).await };
            tokio::select! {
                served = served => if let Err(error) = served {
                    error!(%error, "cannot serve metrics");
                },
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        }
    });
    Ok(())
}

/// Who can send requests. On loopback, a secret that can be guessed is a warning, since it may be one for tests.
#[derive(Clone, Copy)]
enum Clients {
    Any,
    Local,
}

/// The parts that need secrets.
struct Equipment {
    gate: Gate,
    /// What is wrong with secrets that can be guessed, if only this machine can send.
    weak: Vec<String>,
    config: Consumers,
    channels: Vec<OutboxChannel>,
    alarm: Option<Alarm>,
    apis: Apis,
}

/// Creates the parts of a configuration that need secrets; also returns all problems with the secrets.
fn equip(
    loaded: &Loaded,
    salt: [u8; 16],
    clients: Clients,
    lookup: impl Fn(&SecretName) -> Option<Secret>,
    outbox: Outbox,
) -> (Equipment, Vec<String>) {
    let ingress = loaded.config.ingress.clone();
    let (gate, weak) = match clients {
        Clients::Any => (Gate::new(ingress, salt, http::BODY_BYTES, lookup), Vec::new()),
        Clients::Local => Gate::on_loopback(ingress, salt, http::BODY_BYTES, lookup),
    };
    let mut problems = gate.problems(now());
    let (config, channels, alarm) = channels(loaded.consumers(), outbox);
    let channels = or_problems(channels, &mut problems);
    let alarm = or_problems(alarm, &mut problems);
    let apis = or_problems(Apis::new(&config, from_environment), &mut problems);
    (Equipment { gate, weak, config, channels, alarm, apis }, problems)
}

/// The same, or an error with all problems. What is only a risk is logged.
fn equipped(
    loaded: &Loaded,
    salt: [u8; 16],
    clients: Clients,
    lookup: impl Fn(&SecretName) -> Option<Secret>,
    outbox: Outbox,
) -> anyhow::Result<Equipment> {
    let (equipment, problems) = equip(loaded, salt, clients, lookup, outbox);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    for problem in &equipment.weak {
        warn!("{problem}");
    }
    Ok(equipment)
}

/// Why `serve` would not start with the secrets of this environment.
pub fn lacking(loaded: &Loaded) -> Vec<String> {
    equip(loaded, [0; 16], Clients::Any, from_environment, Outbox::Sent).1
}

type Able<T> = Result<T, Vec<ChannelError>>;

/// The channels of the outbox and the alerts, or what is missing for them.
fn channels(
    config: Consumers,
    outbox: Outbox,
) -> (Consumers, Able<Vec<OutboxChannel>>, Able<Option<Alarm>>) {
    let (config, key): (_, fn(&SecretName) -> Option<Secret>) = match outbox {
        Outbox::Sent => (config, from_environment),
        Outbox::Displayed => (display_only(config), |_| Some(Secret::from("whsec_bm9uZQ=="))),
    };
    let mut channels = OutboxChannel::all(&config, key);
    if let (Outbox::Displayed, Ok(channels)) = (outbox, &mut channels) {
        *channels = std::mem::take(channels).into_iter().map(|c| c.through(&DisplayApi)).collect();
    }
    let alarm = Alarm::new(&config, key);
    (config, channels, alarm)
}

/// The value, or its default after recording the problems.
fn or_problems<T: Default>(able: Able<T>, problems: &mut Vec<String>) -> T {
    able.unwrap_or_else(|errors| {
        problems.extend(errors.iter().map(ToString::to_string));
        T::default()
    })
}

/// Handles stop signals from now on; the future is ready when one arrives.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    #[cfg(unix)]
    let terminated = async move { terminate.recv().await };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    Ok(async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated => {}
        }
    })
}

#[derive(Clone)]
struct Consumer {
    queue: SqliteQueue,
    store: Sqlite,
    objects: Files,
    metrics: Metrics,
    /// Notified when there are new messages in the outbox.
    written: Arc<Notify>,
    counts: Counts,
    config: Consumers,
    batch: Batch,
}

impl Consumer {
    fn start_all(&self, tasks: &mut Tasks, stopped: &watch::Receiver<bool>) {
        for number in 1..=CONSUMERS {
            self.start(tasks, format!("consumer {number}"), QueueName::Events, stopped);
        }
        self.start(tasks, "consumer of replays".to_owned(), QueueName::Replays, stopped);
    }

    fn start(
        &self,
        tasks: &mut Tasks,
        name: String,
        lane: QueueName,
        stopped: &watch::Receiver<bool>,
    ) {
        let (consumer, stopped) = (self.clone(), stopped.clone());
        tasks.start(name, move || consumer.clone().consume(lane, stopped.clone()));
    }

    /// Waits a few seconds while new events arrive: replayed ones are less urgent.
    async fn give_way(&self) {
        let since = Instant::now();
        while since.elapsed() < GIVE_WAY {
            match self.queue.waiting(QueueName::Events, 1).await {
                Ok(0) | Err(_) => return,
                Ok(_) => tokio::time::sleep(GLANCE).await,
            }
        }
    }

    async fn consume(self, lane: QueueName, mut stopped: watch::Receiver<bool>) {
        let Batch { size, wait } = self.batch;
        let mut settling = None;
        loop {
            if lane == QueueName::Replays {
                self.give_way().await;
            }
            let batch = match self.queue.receive(lane, size, wait, &mut stopped).await {
                Ok(batch) if batch.is_empty() => break,
                Ok(batch) => batch,
                Err(error) => {
                    error!(%error, "cannot receive events");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let deliveries = batch.deliveries();
            let result = process_batch(
                &self.store,
                &self.objects,
                &self.config,
                &deliveries,
                now(),
                |_, _| {},
            )
            .await;
            self.counts.add(&result);
            let BatchResult { settled, due_at, .. } = result;
            if due_at.is_some() {
                self.written.notify_waiters();
            }
            for (delivery, settled) in deliveries.iter().zip(&settled) {
                if needs_attention(&settled.fate) || tracing::enabled!(tracing::Level::DEBUG) {
                    log::write(&hookmill_consumers::log::entry(delivery.attempts, settled));
                }
            }
            for count in counts(&settled) {
                self.metrics.count_deliveries(
                    count.source,
                    count.secret,
                    count.fate,
                    count.deliveries,
                );
            }
            let verdicts = settled.into_iter().map(|settled| settled.verdict).collect();
            // The verdicts are sent before the next batch is leased, so that they count even if the lease has ended. Their
            // result is not awaited: settling this batch and leasing the next one share a commit.
            let settled = batch.settle_before(verdicts).await;
            settling = Some(tokio::spawn(async move {
                if let Err(error) = settled.await {
                    error!(%error, "cannot settle a batch; it will be delivered again");
                }
            }));
        }
        if let Some(settling) = settling {
            let _ = settling.await;
        }
    }
}

/// Starts a task that ends when the queue's thread panics, so that the supervisor reports it. The thread itself goes on.
fn watch_queue(tasks: &mut Tasks, queue: SqliteQueue, stopped: watch::Receiver<bool>) {
    tasks.start("queue", move || {
        let (queue, mut stopped) = (queue.clone(), stopped.clone());
        async move {
            tokio::select! {
                () = queue.panicked() => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        }
    });
}

async fn consume_dead_letters(
    queue: SqliteQueue,
    store: Sqlite,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let batch = queue
            .receive(QueueName::DeadLetters, BATCH_MESSAGES, Duration::ZERO, &mut stopped)
            .await;
        let batch = match batch {
            Ok(batch) if batch.is_empty() => return,
            Ok(batch) => batch,
            Err(error) => {
                error!(%error, "cannot receive dead letters from the queue");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (verdicts, failed) = drain(&store, &batch.deliveries(), now()).await;
        log::write(&drained(verdicts.len(), failed.as_ref()));
        if let Err(error) = batch.settle(verdicts).await {
            error!(%error, "cannot settle dead letters; they will be delivered again");
        }
    }
}

/// Records rejections every few seconds.
async fn keep_rejections(
    gate: Arc<Gate>,
    store: Sqlite,
    metrics: Metrics,
    mut stopped: watch::Receiver<bool>,
) {
    let mut last = false;
    while !last {
        tokio::select! {
            () = tokio::time::sleep(REPORT_WINDOW) => {}
            _ = stopped.wait_for(|stopped| *stopped) => last = true,
        }
        let reports = gate.rejections().take(now());
        if reports.is_empty() {
            continue;
        }
        for tally in reports.iter().flat_map(|report| &report.rejections) {
            let source = tally.source.as_deref();
            metrics.count_rejections(
                source.unwrap_or_default(),
                tally.reason.as_str(),
                tally.count,
            );
            let source = source.unwrap_or("-");
            let more = tally.count - tally.samples.len() as u64;
            if more > 0 {
                warn!(source, reason = %tally.reason, more, "rejected");
            }
        }
        if let Err(error) = store.execute(hookmill_dlq::record_rejections(&reports, now())).await {
            error!(%error, "cannot record rejections");
        }
    }
}

/// Counts and logs the results of requests.
fn observe(metrics: Metrics) -> Box<dyn Fn(&RequestOutcome) + Send + Sync> {
    Box::new(move |outcome| {
        if let RequestOutcome::Accepted { events } = outcome
            && let Some(first) = events.first()
        {
            metrics.count_received(&first.source, events.len() as u64);
        }
        log_outcome(outcome);
    })
}

fn log_outcome(outcome: &RequestOutcome) {
    match outcome {
        RequestOutcome::Probe => {}
        RequestOutcome::Handshake { source } => info!(source, "answered a handshake"),
        RequestOutcome::Accepted { events } => {
            for event in events {
                debug!(source = event.source, event = event.id, r#type = event.kind, "accepted");
            }
        }
        RequestOutcome::Rejected { .. } | RequestOutcome::Unavailable { .. } => {
            if let Some(entry) = hookmill_ingress::log::entry(outcome) {
                log::write(&entry);
            }
        }
    }
}

/// Whether it is logged at every level.
const fn needs_attention(fate: &Fate) -> bool {
    matches!(fate, Fate::Unavailable(_) | Fate::Condemned { .. })
}
