//! Sends what is in the outbox.

use std::time::Duration;

use hookmill_cloudflare::{CloudflareQueue, D1, HttpClient, Metrics, now, secret};
use hookmill_consumers::mail::{Mail, Round, round};
use hookmill_core::config::Consumers;
use hookmill_core::time::Timestamp;
use worker::{Delay, Env, console_error, console_log, console_warn};

/// Rounds in one invocation. Each makes some eight requests, to D1 and to a provider, and an invocation may make 50 (on the
/// free plan): <https://developers.cloudflare.com/workers/platform/limits/#subrequests>.
const ROUNDS: u32 = 5;
/// The longest that an invocation waits for the next round.
const WAIT: Duration = Duration::from_secs(5);
/// What is due later than this is left to the cron trigger, which comes every minute.
const SOON: Duration = Duration::from_secs(60);

/// Has the queue wake somebody up at this time.
pub(crate) async fn wake(env: &Env, at: Timestamp) {
    let delay = at - now();
    if delay > SOON {
        return;
    }
    let sent = match CloudflareQueue::new(env, "EMAILS") {
        Ok(queue) => queue.send_later("wake", delay).await,
        Err(error) => Err(error),
    };
    // The cron trigger comes in any case.
    if let Err(error) = sent {
        console_warn!("emails wait for the cron trigger: {error}");
    }
}

/// Does what there is to do, a few rounds; and has itself woken up for the rest.
pub(crate) async fn send(env: &Env, config: &Consumers) {
    let mail = match Mail::new(config, |name| secret(env, name)) {
        Ok(Some(mail)) => mail,
        Ok(None) => return,
        Err(error) => return console_error!("emails are not sent: {error}"),
    };
    let store = match D1::new(env, "DB") {
        Ok(store) => store,
        Err(error) => return console_error!("emails are not sent: {error}"),
    };
    let mut metrics = Metrics::new(env, "METRICS");
    for rounds in 1..=ROUNDS {
        let Round { sent, next } = match round(&store, &HttpClient, &mail, now).await {
            Ok(round) => round,
            // The cron trigger tries again.
            Err(error) => return console_error!("cannot look into the outbox: {error}"),
        };
        for (state, emails) in sent.states() {
            let count = u32::try_from(emails).unwrap_or(u32::MAX);
            metrics.count("emails", [state], count);
            match state {
                "sent" => console_log!("emails sent={emails}"),
                state => console_warn!("emails that were not sent {state}={emails}"),
            }
        }
        for problem in &sent.problems {
            console_warn!("a batch of emails: {problem}");
        }
        let Some(next) = next else { return };
        let wait = next - now();
        if rounds == ROUNDS || wait > WAIT {
            return wake(env, next).await;
        }
        Delay::from(wait).await;
    }
}
