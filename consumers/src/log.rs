//! The log of deliveries.

use hookmill_core::delivery::Verdict;
use hookmill_core::log::{Entry, Fields};

use crate::settle::{Fate, Settled};

/// The log line about a delivery.
pub fn entry(attempts: u32, settled: &Settled) -> Entry {
    let envelope = settled.envelope.as_ref();
    let fields = Fields {
        source: Some(envelope.map_or("-", |envelope| &envelope.source).to_owned()),
        event: Some(envelope.map_or("-", |envelope| &envelope.id).to_owned()),
        r#type: Some(envelope.map_or("-", |envelope| &envelope.kind).to_owned()),
        ..Fields::default()
    };
    let failed = |error: &str, fields| Fields {
        attempts: Some(attempts.to_string()),
        error: Some(error.to_owned()),
        ..fields
    };
    match (&settled.fate, settled.verdict) {
        (Fate::Applied, _) => Entry::debug("applied", fields),
        (Fate::Recorded, _) => Entry::debug("recorded: no rule matches", fields),
        (Fate::Duplicate, _) => Entry::debug("duplicate: nothing changed", fields),
        (Fate::Ignored, _) => Entry::debug("ignored: no rule matches", fields),
        (Fate::Unavailable(error), Verdict::Retry { delay }) => {
            let delay = Some(format!("{:.1} s", delay.as_secs_f64()));
            let fields = Fields { delay, ..failed(error, fields) };
            Entry::warn("delivery failed, will retry", fields)
        }
        (Fate::Unavailable(error), _) => Entry::warn("delivery failed", failed(error, fields)),
        (Fate::Condemned { reason, error }, _) => {
            let fields = Fields { reason: Some(reason.to_string()), ..failed(error, fields) };
            Entry::error("became a dead letter", fields)
        }
    }
}
