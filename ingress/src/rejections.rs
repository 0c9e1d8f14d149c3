//! Counts rejections in memory until they are reported.
//!
//! A flood must not cause writes or memory in proportion. So there is one count for each configured source and reason with
//! a few samples, and one report for a whole window.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hookmill_core::hash::sha256_hex;
use hookmill_core::rejection::Rejection;
use hookmill_core::report::{Report, Sample, Tally};
use hookmill_core::time::Timestamp;

/// The window of a report.
pub const REPORT_WINDOW: Duration = Duration::from_secs(5);
/// The number of samples for each source and reason in a window.
const SAMPLES: usize = 2;
/// The maximum number of tallies in one report, so that it stays far below the maximum size of a message.
const TALLIES: usize = 100;

/// Facts about a rejected request.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Seen {
    /// The client's address.
    pub(crate) remote: Option<String>,
    /// The `Content-Length`.
    pub(crate) content_length: Option<u64>,
    /// The number of bytes read from the body.
    pub(crate) body_bytes: Option<u64>,
}

/// How a rejection was recorded.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Recorded {
    /// It is the first since the last report: the next report is due after [`REPORT_WINDOW`].
    pub first: bool,
    /// It is a sample, and gets a line in the log.
    pub sampled: bool,
}

/// The rejections since the last report.
#[derive(Debug)]
pub struct Rejections {
    /// Without a salt, an address could be found by hashing all addresses.
    salt: [u8; 16],
    /// At most one for each configured source and reason.
    tallies: Mutex<Vec<Tally>>,
}

impl Rejections {
    /// No rejections. `salt` is random, and unknown to readers of the reports.
    pub const fn new(salt: [u8; 16]) -> Self {
        Self { salt, tallies: Mutex::new(Vec::new()) }
    }

    /// Counts a rejection. `source` must be a configured one.
    pub(crate) fn record(
        &self,
        source: Option<&str>,
        rejection: &Rejection,
        seen: &Seen,
        now: Timestamp,
    ) -> Recorded {
        let reason = rejection.reason;
        let mut tallies = self.lock();
        let first = tallies.is_empty();
        let known =
            tallies.iter().position(|t| t.reason == reason && t.source.as_deref() == source);
        let place = known.unwrap_or_else(|| {
            let source = source.map(ToOwned::to_owned);
            tallies.push(Tally { source, reason, count: 0, samples: Vec::new() });
            tallies.len() - 1
        });
        let tally = &mut tallies[place];
        tally.count += 1;
        let sampled = tally.samples.len() < SAMPLES;
        if sampled {
            let remote = seen.remote.as_ref();
            tally.samples.push(Sample {
                at: now,
                detail: rejection.detail.clone(),
                remote: remote
                    .map(|remote| sha256_hex(&[&self.salt, remote.as_bytes()])[..16].to_owned()),
                content_length: seen.content_length,
                body_bytes: seen.body_bytes,
            });
        }
        Recorded { first, sampled }
    }

    /// Returns the reports and starts over. There is more than one report only with very many sources.
    pub fn take(&self, now: Timestamp) -> Vec<Report> {
        let mut tallies = std::mem::take(&mut *self.lock());
        let mut reports = Vec::new();
        while !tallies.is_empty() {
            let later = tallies.split_off(tallies.len().min(TALLIES));
            reports.push(Report::new(now, std::mem::replace(&mut tallies, later)));
        }
        reports
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use hookmill_core::rejection::Reason;

    use super::*;

    fn seen(remote: &str) -> Seen {
        Seen { remote: Some(remote.to_owned()), content_length: Some(5), body_bytes: None }
    }

    #[test]
    fn a_flood_is_one_count_and_a_few_samples() {
        let rejections = Rejections::new([7; 16]);
        let unsigned = Rejection::new(Reason::MissingHeader, "Stripe-Signature is missing");
        let unknown = Rejection::new(Reason::UnknownSource, "no source of this name is configured");
        for n in 0..100_000_i64 {
            let at = Timestamp::from_millis(n);
            let recorded = rejections.record(Some("stripe"), &unsigned, &seen(&n.to_string()), at);
            assert_eq!(recorded, Recorded { first: n == 0, sampled: n < 2 });
            rejections.record(None, &unknown, &seen("::1"), at);
        }
        let reports = rejections.take(Timestamp::from_millis(100_000));
        assert_eq!(reports.len(), 1);
        insta::assert_json_snapshot!(reports[0]);
        assert!(reports[0].encode().len() < 2000);
        assert_eq!(Report::decode(&reports[0].encode()).as_ref(), Some(&reports[0]));
        assert_eq!(rejections.take(Timestamp::from_millis(100_001)), []);
    }

    #[test]
    fn equal_addresses_have_equal_hashes_and_are_not_stored() {
        let remote = |salt, remote: &str| {
            let rejections = Rejections::new(salt);
            let rejection = Rejection::new(Reason::NotFound, "");
            rejections.record(None, &rejection, &seen(remote), Timestamp::from_millis(0));
            let mut reports = rejections.take(Timestamp::from_millis(0));
            reports.remove(0).rejections.remove(0).samples.remove(0).remote
        };
        assert_eq!(remote([1; 16], "192.0.2.1"), remote([1; 16], "192.0.2.1"));
        assert_ne!(remote([1; 16], "192.0.2.1"), remote([1; 16], "192.0.2.2"));
        assert_ne!(remote([1; 16], "192.0.2.1"), remote([2; 16], "192.0.2.1"));
    }

    #[test]
    fn very_many_sources_produce_several_short_reports() {
        let rejections = Rejections::new([7; 16]);
        for n in 0..250 {
            let rejection = Rejection::new(Reason::MissingHeader, "x".repeat(200));
            let source = format!("{n}{}", "s".repeat(60));
            rejections.record(Some(&source), &rejection, &seen("::1"), Timestamp::from_millis(0));
        }
        let reports = rejections.take(Timestamp::from_millis(0));
        assert_eq!(reports.len(), 3);
        assert!(reports.iter().all(|r| r.encode().len() < hookmill_core::limits::MESSAGE_BYTES));
    }
}
