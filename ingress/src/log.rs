//! The log of requests.

use hookmill_core::log::{Entry, Fields};

use crate::http::RequestOutcome;

/// The log line about a request that was not accepted. Most rejections are only counted, so that a flood does not fill the
/// log.
pub fn entry(outcome: &RequestOutcome) -> Option<Entry> {
    match outcome {
        RequestOutcome::Probe
        | RequestOutcome::Handshake { .. }
        | RequestOutcome::Accepted { .. } => None,
        RequestOutcome::Rejected { recorded, .. } if !recorded.sampled => None,
        RequestOutcome::Rejected { source, rejection, .. } => {
            let fields = Fields {
                source: Some(source.as_deref().unwrap_or("-").to_owned()),
                reason: Some(rejection.reason.to_string()),
                detail: Some(rejection.detail.clone()),
                ..Fields::default()
            };
            Some(Entry::warn("rejected", fields))
        }
        RequestOutcome::Unavailable { source, error } => {
            let (source, error) = (Some(source.clone()), Some(error.clone()));
            Some(Entry::error(
                "request not accepted",
                Fields { source, error, ..Fields::default() },
            ))
        }
    }
}
