//! The background jobs of this Worker.

use hookmill_cloudflare::{CloudflareQueue, D1, HttpClient, R2, jobs, log, now, secret};
use hookmill_config::Consumers;
use hookmill_consumers::alert::Alarm;
use hookmill_consumers::jobs::{AskApis, SendAlerts, SendOutbox};
use hookmill_consumers::outbox::OutboxChannel;
use hookmill_consumers::refetch::Apis;
use hookmill_core::job::failed;
use hookmill_core::time::Timestamp;
use worker::Env;

/// The number of steps in one invocation. A step makes about eight requests to D1 and to a provider, and an invocation may
/// make 50 (on the free plan): <https://developers.cloudflare.com/workers/platform/limits/#subrequests>.
const STEPS: usize = 5;
/// The same for requests to APIs: a round may fetch five objects, and one page of an import, which takes several requests to
/// the queue.
const ROUNDS: usize = 2;
/// The binding of the queue that wakes this Worker.
const QUEUE: &str = "OUTBOX";

/// Wakes this Worker at this time.
pub(crate) async fn wake(env: &Env, at: Timestamp) {
    jobs::wake(env, QUEUE, at - now()).await;
}

/// Sends requests to providers' APIs.
pub(crate) async fn ask_apis(env: &Env, config: &Consumers) {
    const JOB: &str = "APIs";
    let Some(apis) = able(JOB, Apis::new(config, |name| secret(env, name))) else { return };
    let Some(store) = able(JOB, store(env)).filter(|_| !apis.is_empty()) else { return };
    let queue = CloudflareQueue::new(env, "REPLAYS").map_err(|error| vec![error]);
    let Some(queue) = able(JOB, queue) else { return };
    let objects = R2::new(env, "BODIES").map_err(|error| vec![error]);
    let Some(objects) = able(JOB, objects) else { return };
    let job = AskApis { store, fetch: HttpClient, config, apis, queue, objects };
    jobs::run(env, &[job], ROUNDS, Some(QUEUE)).await;
}

/// Sends the messages of the outbox.
pub(crate) async fn send(env: &Env, config: &Consumers) {
    let channels = OutboxChannel::all(config, |name| secret(env, name));
    let Some(channels) = able("send", channels).filter(|channels| !channels.is_empty()) else {
        return;
    };
    let Some(store) = able("send", store(env)) else { return };
    // A step of all channels has the requests of each.
    let steps = (STEPS / channels.len()).max(1);
    jobs::run(env, &[SendOutbox { store, fetch: HttpClient, channels }], steps, Some(QUEUE)).await;
}

/// Sends alerts.
pub(crate) async fn watch_over(env: &Env, config: &Consumers) {
    let Some(Some(alarm)) = able("alerts", Alarm::new(config, |name| secret(env, name))) else {
        return;
    };
    let Some(store) = able("alerts", store(env)) else { return };
    let queue = CloudflareQueue::new(env, "EVENTS").ok();
    jobs::run(env, &[SendAlerts { store, queue, fetch: HttpClient, alarm }], 1, None).await;
}

fn store(env: &Env) -> Result<D1, Vec<worker::Error>> {
    D1::new(env, "DB").map_err(|error| vec![error])
}

/// The parts of a job, if none is missing; errors are logged.
fn able<T, E: ToString>(job: &str, needed: Result<T, Vec<E>>) -> Option<T> {
    needed
        .map_err(|errors| errors.iter().for_each(|error| log(&failed(job, error.to_string()))))
        .ok()
}
