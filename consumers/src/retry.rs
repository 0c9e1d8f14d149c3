//! The retry schedule, computed by the `backoff` crate. That crate is no longer maintained, so only this module uses it.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use hookmill_config::Retry;
use hookmill_core::limits::DELAY_SECONDS;

/// The delay after the given attempt, counted from 1: exponential up to the maximum, with random jitter, so that deliveries
/// that failed together are not retried together.
///
/// The crate draws the random number itself; with a jitter of 0 the delay is exact.
pub fn delay(retry: &Retry, attempts: u32) -> Duration {
    let mut backoff: ExponentialBackoff = ExponentialBackoffBuilder::new()
        .with_initial_interval(retry.initial)
        .with_multiplier(retry.multiplier)
        .with_max_interval(retry.max)
        .with_randomization_factor(retry.jitter)
        .with_max_elapsed_time(None)
        .build();
    let mut delay = retry.max;
    for _ in 0..attempts.clamp(1, 100) {
        // `backoff` returns `None` after its maximum elapsed time. Hookmill sets no such time.
        delay = backoff.next_backoff().unwrap_or(retry.max);
    }
    delay.min(Duration::from_secs(DELAY_SECONDS))
}

/// The attempts after which the delays of [`away_delay`] grow.
const AWAY_SOON: u32 = 24;
/// The delay after that. A hundred deliveries last thirteen days, and the queues of Cloudflare keep a message for fourteen.
const AWAY_LATER: Duration = Duration::from_secs(4 * 3600);

/// The delay while the store is away: nothing can be applied, and no dead letter can be written.
pub(crate) fn away_delay(retry: &Retry, attempts: u32) -> Duration {
    if attempts <= AWAY_SOON {
        return delay(retry, attempts);
    }
    let later = retry.max.max(AWAY_LATER);
    delay(&Retry { initial: later, max: later, ..retry.clone() }, 1)
}

/// The maximum delay of a delivery's verdict.
pub fn longest_delay(retry: &Retry) -> Duration {
    Retry { max: retry.max.max(AWAY_LATER), ..retry.clone() }.longest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn retry(jitter: f64) -> Retry {
        Retry {
            max_attempts: 8,
            initial: Duration::from_secs(10),
            multiplier: 2.0,
            max: Duration::from_secs(3600),
            jitter,
        }
    }

    #[test]
    fn the_delay_doubles_up_to_the_maximum() {
        let seconds: Vec<_> =
            (1..=12).map(|attempts| delay(&retry(0.0), attempts).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]);
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_share(attempts in 1_u32..200) {
            let exact = delay(&retry(0.0), attempts).as_secs_f64();
            let varied = delay(&retry(0.5), attempts).as_secs_f64();
            prop_assert!((exact * 0.5..=exact * 1.5 + 1.0).contains(&varied), "{} around {}", varied, exact);
        }
    }
}
