//! Rate limits in memory.

use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hookmill_config::{RateLimit, Source};

/// A limiter for each source with a `rate_limit`.
///
/// After a quiet time, a source may send all its requests at once; then each becomes possible again in turn.
pub struct RateLimits(Vec<(String, DefaultDirectRateLimiter)>);

impl RateLimits {
    /// The limits of these sources.
    pub fn new(sources: &[Source]) -> Self {
        let limits = sources.iter().filter_map(|source| {
            let RateLimit { requests, per } = source.rate_limit?;
            let quota = Quota::with_period(per / requests)?.allow_burst(requests.try_into().ok()?);
            Some((source.name.clone(), RateLimiter::direct(quota)))
        });
        Self(limits.collect())
    }

    /// Counts a request. If it exceeds the limit, returns how long until the next one is possible.
    pub fn limited(&self, source: &Source) -> Option<Duration> {
        let (_, limiter) = self.0.iter().find(|(name, _)| *name == source.name)?;
        let denied = limiter.check().err()?;
        Some(denied.wait_time_from(DefaultClock::default().now()))
    }
}
