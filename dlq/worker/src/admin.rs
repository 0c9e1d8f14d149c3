//! The admin API on Cloudflare, and who replays.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hookmill_admin::{Platform, Remote, nothing_here, router};
use hookmill_cloudflare::{CloudflareQueue, D1, HttpClient, Metrics, R2, now};
use hookmill_core::config::Admin as Config;
use hookmill_core::delivery::WAKE;
use hookmill_core::objects::Objects as _;
use hookmill_core::store::{Rows, Statement, Store as _, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_dlq::replay::{Stepped, step};
use hookmill_dlq::{Standing, Swept, read_standing, standing, sweep};
use tower_service::Service as _;
use worker::send::SendFuture;
use worker::{
    Context, Delay, Env, HttpRequest, Result, ScheduleContext, ScheduledEvent, console_error,
    console_log, console_warn, event,
};

/// Steps in one invocation. Each makes some five requests, and an invocation may make 50 (on the free plan):
/// <https://developers.cloudflare.com/workers/platform/limits/#subrequests>.
const STEPS: usize = 8;
/// The longest that an invocation waits for the next step.
const WAIT: Duration = Duration::from_secs(5);
/// What is due later than this is left to the cron trigger, which comes every minute.
const SOON: Duration = Duration::from_secs(60);

/// Checked and written by the build script.
const CONFIG: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/config"));

fn config() -> Config {
    postcard::from_bytes(CONFIG).expect("the build script wrote it from the same type")
}

type Pending<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the admin API is lent.
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
            wake(&self.env, "JOBS", Duration::ZERO).await;
            wake(&self.env, "OUTBOX", Duration::ZERO).await;
        }))
    }

    /// A Worker cannot ask its queues.
    fn waiting(&self) -> Pending<'_, Option<u64>> {
        Box::pin(std::future::ready(None))
    }

    fn fetch<'a>(&'a self, url: &'a str) -> Pending<'a, std::result::Result<String, String>> {
        Box::pin(HttpClient.get(url))
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn now(&self) -> Timestamp {
        now()
    }
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
    // Set by Cloudflare, whatever the client sends.
    let remote = request.headers().get("cf-connecting-ip").and_then(|value| value.to_str().ok());
    let remote = Remote(remote.unwrap_or_default().to_owned());
    request.extensions_mut().insert(remote);
    let mut router = router(Arc::new(platform)).fallback(nothing_here);
    let answered = router.call(request).await;
    Ok(answered.unwrap_or_else(|never| match never {}))
}

/// Has a queue wake somebody up.
async fn wake(env: &Env, queue: &str, delay: Duration) {
    let sent = match CloudflareQueue::new(env, queue) {
        Ok(queue) => queue.send_later(WAKE, delay).await,
        Err(error) => Err(error),
    };
    // The cron trigger comes in any case.
    if let Err(error) = sent {
        console_warn!("{queue} waits for the cron trigger: {error}");
    }
}

/// Goes on with replays, a few steps; and has itself woken up for the rest.
pub(crate) async fn replay(env: &Env) {
    let (store, queue) = match (D1::new(env, "DB"), CloudflareQueue::new(env, "REPLAYS")) {
        (Ok(store), Ok(queue)) => (store, queue),
        (Err(error), _) | (_, Err(error)) => return console_error!("nothing is replayed: {error}"),
    };
    for steps in 1.. {
        let next = match step(&store, &queue, now).await {
            Ok(Stepped { sent, error, next }) => {
                if let Some((replay, letters)) = sent {
                    console_log!("replayed replay={replay} letters={letters}");
                }
                if let Some(error) = error {
                    console_warn!("a replay waits: {error}");
                }
                next
            }
            // The cron trigger tries again.
            Err(error) => return console_error!("cannot look for replays: {error}"),
        };
        let Some(next) = next else { return };
        let wait = next - now();
        if steps >= STEPS || wait > WAIT {
            if wait <= SOON {
                wake(env, "JOBS", wait).await;
            }
            return;
        }
        Delay::from(wait).await;
    }
}

/// Goes on with what nobody was woken up for, and removes what is old: a step each minute.
#[event(scheduled)]
async fn scheduled(_event: ScheduledEvent, env: Env, _context: ScheduleContext) {
    replay(&env).await;
    clean(&env).await;
    tell_standing(&env).await;
}

/// Writes down how things stand.
async fn tell_standing(env: &Env) {
    let rows = match D1::new(env, "DB") {
        Ok(store) => store.execute(vec![standing(now())]).await,
        Err(error) => return console_error!("nobody knows how things stand: {error}"),
    };
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return console_error!("nobody knows how things stand: {error}"),
    };
    let Some(Standing { lag, dead_letters, oldest_dead_letter, outbox, replays }) =
        rows.first().and_then(|rows| read_standing(rows).ok()?)
    else {
        return;
    };
    let mut metrics = Metrics::new(env, "METRICS");
    metrics.set("lag_seconds", [], lag);
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
    let (store, objects) = match (D1::new(env, "DB"), R2::new(env, "BODIES")) {
        (Ok(store), Ok(objects)) => (store, objects),
        (Err(error), _) | (_, Err(error)) => return console_error!("nothing is removed: {error}"),
    };
    match sweep(&store, &objects, &config().retention, now()).await {
        Ok(Swept { removed, unseen, .. }) => {
            for (kind, count) in removed {
                console_log!("old: removed kind={kind:?} count={count}");
            }
            if unseen > 0 {
                console_warn!(
                    "dead letters were removed for their age, and nobody had looked at them count={unseen}"
                );
            }
        }
        Err(error) => console_error!("cannot remove what is old: {error}"),
    }
}
