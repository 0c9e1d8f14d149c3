//! Sends what is in the outbox.

use std::time::Duration;

use hookmill_cloudflare::{CloudflareQueue, D1, HttpClient, Metrics, now, secret};
use hookmill_consumers::alert::{Alarm, Looked, look};
use hookmill_consumers::outbox::Unsent;
use hookmill_consumers::outgoing::{Outgoing, Round, Sent, round};
use hookmill_consumers::refetch::{self, Apis, Asked};
use hookmill_core::config::Consumers;
use hookmill_core::delivery::WAKE;
use hookmill_core::time::Timestamp;
use worker::{Delay, Env, console_error, console_log, console_warn};

/// Rounds in one invocation. Each makes some eight requests, to D1 and to a provider, and an invocation may make 50 (on the
/// free plan): <https://developers.cloudflare.com/workers/platform/limits/#subrequests>.
const ROUNDS: usize = 5;
/// The longest that an invocation waits for the next round.
const WAIT: Duration = Duration::from_secs(5);
/// What is due later than this is left to the cron trigger, which comes every minute.
const SOON: Duration = Duration::from_secs(60);

/// The most lines in the log about what one round has not sent.
const LINES: usize = 20;

/// Has the queue wake somebody up at this time.
pub(crate) async fn wake(env: &Env, at: Timestamp) {
    let delay = at - now();
    if delay > SOON {
        return;
    }
    let sent = match CloudflareQueue::new(env, "OUTBOX") {
        Ok(queue) => queue.send_later(WAKE, delay).await,
        Err(error) => Err(error),
    };
    // The cron trigger comes in any case.
    if let Err(error) = sent {
        console_warn!("the outbox waits for the cron trigger: {error}");
    }
}

/// Asks for objects that are to be asked for; and has itself woken up for those that have to wait.
pub(crate) async fn refetch(env: &Env, config: &Consumers) {
    let apis = match Apis::new(config, |name| secret(env, name)) {
        Ok(apis) if apis.is_empty() => return,
        Ok(apis) => apis,
        Err(errors) => {
            return errors.iter().for_each(|error| console_error!("nothing is asked for: {error}"));
        }
    };
    let store = match D1::new(env, "DB") {
        Ok(store) => store,
        Err(error) => return console_error!("nothing is asked for: {error}"),
    };
    for rounds in 1.. {
        match refetch::round(&store, &HttpClient, config, &apis, now).await {
            Ok(Asked { applied, problems, next }) => {
                if applied > 0 {
                    console_log!("objects were asked for and applied: {applied}");
                }
                for problem in problems {
                    console_warn!("{problem}");
                }
                let Some(next) = next else { return };
                let wait = next - now();
                if rounds == ROUNDS || wait > WAIT {
                    return wake(env, next).await;
                }
                Delay::from(wait).await;
            }
            // The cron trigger tries again.
            Err(error) => {
                return console_error!("cannot look which objects are to be asked for: {error}");
            }
        }
    }
}

/// Does what there is to do, a few rounds; and has itself woken up for the rest.
pub(crate) async fn send(env: &Env, config: &Consumers) {
    let channels = match Outgoing::all(config, |name| secret(env, name)) {
        Ok(channels) if channels.is_empty() => return,
        Ok(channels) => channels,
        Err(errors) => {
            return errors.iter().for_each(|error| console_error!("nothing is sent: {error}"));
        }
    };
    let store = match D1::new(env, "DB") {
        Ok(store) => store,
        Err(error) => return console_error!("nothing is sent: {error}"),
    };
    let mut metrics = Metrics::new(env, "METRICS");
    let mut rounds = 0;
    loop {
        let mut first: Option<Timestamp> = None;
        for channel in &channels {
            rounds += 1;
            match round(&store, &HttpClient, channel, now).await {
                Ok(Round { sent, next }) => {
                    report(channel.channel(), &sent, &mut metrics);
                    first = first.into_iter().chain(next).min();
                }
                // The cron trigger tries again.
                Err(error) => return console_error!("cannot look into the outbox: {error}"),
            }
        }
        let Some(next) = first else { return };
        let wait = next - now();
        // Another pass is a round for each channel.
        if rounds + channels.len() > ROUNDS || wait > WAIT {
            return wake(env, next).await;
        }
        Delay::from(wait).await;
    }
}

/// Tells whoever wants to know if something is the matter.
pub(crate) async fn watch_over(env: &Env, config: &Consumers) {
    let alarm = match Alarm::new(config, |name| secret(env, name)) {
        Ok(Some(alarm)) => alarm,
        Ok(None) => return,
        Err(errors) => {
            return errors.iter().for_each(|error| console_error!("nobody is told: {error}"));
        }
    };
    let looked = match D1::new(env, "DB") {
        Ok(store) => look(&store, &HttpClient, &alarm, now()).await,
        Err(error) => return console_error!("nobody is told: {error}"),
    };
    match looked {
        Ok(Looked { told, problems }) => {
            for text in told {
                console_warn!("alert: {text}");
            }
            for problem in problems {
                console_warn!("{problem}; it is sent again in a minute");
            }
        }
        Err(error) => console_error!("cannot look whether something is the matter: {error}"),
    }
}

fn report(channel: &str, sent: &Sent, metrics: &mut Metrics) {
    for (state, count) in sent.states() {
        metrics.count("outgoing", [channel, state], u32::try_from(count).unwrap_or(u32::MAX));
        console_log!("outbox channel={channel} state={state} count={count}");
    }
    for unsent in sent.unsent.iter().take(LINES) {
        let Unsent { id, event: (source, event), rule, state, error } = unsent;
        let what =
            if state == "uncertain" { "nobody knows whether it was sent" } else { "not sent" };
        console_warn!(
            "{what} channel={channel} id={id} rule={rule:?} event={source}:{event:?} state={state} error={error:?}"
        );
    }
    for problem in &sent.problems {
        console_warn!("{problem} channel={channel}");
    }
}
