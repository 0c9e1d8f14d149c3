//! The admin API on Cloudflare, and the background jobs of this Worker.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hookmill_admin::auth::GuardMemory;
use hookmill_admin::{Platform, QueueBacklog, nothing_here, router};
use hookmill_cloudflare::{CloudflareQueue, D1, HttpClient, Metrics, R2, jobs, log, now};
use hookmill_config::Admin as Config;
use hookmill_core::job::failed;
use hookmill_core::objects::Objects as _;
use hookmill_core::queue::{Backlog, Queue as _};
use hookmill_core::request::Remote;
use hookmill_core::store::{Rows, Statement, Store as _, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_dlq::jobs::{RemoveUnsent, RunReplays, SweepOld};
use hookmill_dlq::{PipelineStatus, read_status, status};
use tower_service::Service as _;
use worker::send::SendFuture;
use worker::{
    Context, Env, HttpRequest, Result, ScheduleContext, ScheduledEvent, console_error, event,
};

/// The number of steps in one invocation. A step makes about five requests, and an invocation may make 50 (on the free
/// plan): <https://developers.cloudflare.com/workers/platform/limits/#subrequests>.
const STEPS: usize = 8;

/// The number of steps of the sweep each minute: 4,000 rows of each kind. Events at that rate would fill D1's 10 GB in a day.
const SWEEP_STEPS: usize = 8;

/// The checked configuration. `cargo xtask build` writes the file.
const BAKED: &[u8] = include_bytes!(env!("HOOKMILL_BAKED"));

fn config() -> Config {
    postcard::from_bytes(BAKED).expect("xtask wrote it from the same type")
}

type Pending<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The guard's memory. It lives as long as the isolate, and a router only as long as its request.
static MEMORY: GuardMemory = GuardMemory::new();

/// The platform of the admin API.
struct Cloudflare {
    store: D1,
    objects: R2,
    config: Config,
    env: Env,
}

impl Platform for Cloudflare {
    fn execute(
        &self,
        statements: Vec<Statement>,
    ) -> Pending<'_, std::result::Result<Vec<Rows>, StoreError>> {
        Box::pin(self.store.execute(statements))
    }

    fn query(
        &self,
        statements: Vec<Statement>,
    ) -> Pending<'_, std::result::Result<Vec<Rows>, StoreError>> {
        Box::pin(self.store.query(statements))
    }

    fn object<'a>(
        &'a self,
        key: &'a str,
    ) -> Pending<'a, std::result::Result<Option<Vec<u8>>, String>> {
        Box::pin(async { self.objects.get(key).await.map_err(|error| error.to_string()) })
    }

    fn wake(&self) -> Pending<'_, ()> {
        Box::pin(SendFuture::new(async {
            jobs::wake(&self.env, "JOBS", Duration::ZERO).await;
            jobs::wake(&self.env, "OUTBOX", Duration::ZERO).await;
        }))
    }

    fn backlogs(&self) -> Pending<'_, Vec<QueueBacklog>> {
        Box::pin(backlogs(&self.env))
    }

    fn fetch<'a>(&'a self, url: &'a str) -> Pending<'a, std::result::Result<String, String>> {
        Box::pin(HttpClient.get(url))
    }

    fn size(&self) -> Pending<'_, Option<u64>> {
        Box::pin(self.store.size())
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn memory(&self) -> &GuardMemory {
        &MEMORY
    }

    fn now(&self) -> Timestamp {
        now()
    }
}

/// The messages on the queues of events and of replays. The platform's dead-letter queue has no producer.
async fn backlogs(env: &Env) -> Vec<QueueBacklog> {
    let mut backlogs = Vec::new();
    for (name, binding) in [("events", "EVENTS"), ("replays", "REPLAYS")] {
        // A deployment without the binding does not know the length.
        let Ok(queue) = CloudflareQueue::new(env, binding) else { continue };
        match queue.backlog().await {
            Ok(Backlog { messages, oldest }) => {
                backlogs.push(QueueBacklog { queue: name, messages, oldest });
            }
            Err(error) => console_error!("cannot read the length of a queue: {error}"),
        }
    }
    backlogs
}

/// Answers a request to the admin API.
///
/// # Errors
///
/// If a binding is missing.
#[event(fetch)]
async fn fetch(
    mut request: HttpRequest,
    env: Env,
    _context: Context,
) -> Result<axum::http::Response<Body>> {
    let (store, objects) = (D1::new(&env, "DB")?, R2::new(&env, "BODIES")?);
    let platform = Cloudflare { store, objects, config: config(), env };
    // Cloudflare sets this header and overwrites the client's.
    let remote = request.headers().get("cf-connecting-ip").and_then(|value| value.to_str().ok());
    let remote = Remote(remote.unwrap_or_default().to_owned());
    request.extensions_mut().insert(remote);
    let mut router = router(Arc::new(platform)).fallback(nothing_here);
    let answered = router.call(request).await;
    Ok(answered.unwrap_or_else(|never| match never {}))
}

/// Runs replays.
pub(crate) async fn replay(env: &Env) {
    match (D1::new(env, "DB"), CloudflareQueue::new(env, "REPLAYS")) {
        (Ok(store), Ok(queue)) => {
            jobs::run(env, &[RunReplays { store, queue }], STEPS, Some("JOBS")).await;
        }
        (Err(error), _) | (_, Err(error)) => log(&failed("replay", error)),
    }
}

/// Each minute, does work that no message woke this Worker for, and sweeps.
#[event(scheduled)]
async fn scheduled(_event: ScheduledEvent, env: Env, _context: ScheduleContext) {
    replay(&env).await;
    clean(&env).await;
    record_status(&env).await;
}

/// Records the pipeline's status as metrics.
async fn record_status(env: &Env) {
    let store = match D1::new(env, "DB") {
        Ok(store) => store,
        Err(error) => return console_error!("cannot read the pipeline status: {error}"),
    };
    let rows = match store.execute(vec![status(now())]).await {
        Ok(rows) => rows,
        Err(error) => return console_error!("cannot read the pipeline status: {error}"),
    };
    let Some(mut status) = rows.first().and_then(|rows| read_status(rows).ok()?) else { return };
    let mut metrics = Metrics::new(env, "METRICS");
    let now = now();
    for QueueBacklog { queue, messages, oldest } in backlogs(env).await {
        if queue == "events" {
            status = status.with_backlog(&Backlog { messages, oldest }, now);
        }
        let waited = oldest.map(|oldest| (now - oldest).as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "messages of a queue")]
        metrics.set("queue_messages", [queue], messages as f64);
        metrics.set("queue_oldest_seconds", [queue], waited.unwrap_or_default());
    }
    let PipelineStatus {
        lag,
        retrying,
        oldest_retrying,
        dead_letters,
        oldest_dead_letter,
        outbox,
        replays,
        ..
    } = status;
    metrics.set("lag_seconds", [], lag);
    #[expect(clippy::cast_precision_loss, reason = "a size of gigabytes")]
    metrics.set("database_bytes", [], store.size().await.unwrap_or_default() as f64);
    #[expect(clippy::cast_precision_loss, reason = "rows of a database")]
    metrics.set("retrying_events", [], retrying as f64);
    metrics.set("oldest_retrying_seconds", [], oldest_retrying);
    metrics.set("oldest_dead_letter_seconds", [], oldest_dead_letter);
    let families =
        [("dead_letters", dead_letters), ("outbox_waiting", outbox), ("replay_letters", replays)];
    for (metric, counts) in families {
        for (of, count) in counts {
            #[expect(clippy::cast_precision_loss, reason = "rows of a database")]
            metrics.set(metric, [of.as_str()], count as f64);
        }
    }
}

async fn clean(env: &Env) {
    let retention = config().retention;
    match (D1::new(env, "DB"), R2::new(env, "BODIES")) {
        (Ok(store), Ok(objects)) => {
            jobs::run(env, &[SweepOld { store, objects, retention }], SWEEP_STEPS, None).await;
        }
        (Err(error), _) | (_, Err(error)) => log(&failed("sweep", error)),
    }
    let queue = CloudflareQueue::new(env, "EVENTS");
    match (D1::new(env, "DB"), R2::new(env, "BODIES"), queue) {
        (Ok(store), Ok(objects), Ok(queue)) => {
            jobs::run(env, &[RemoveUnsent { store, objects, queue }], SWEEP_STEPS, None).await;
        }
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            log(&failed("unsent bodies", error));
        }
    }
}
