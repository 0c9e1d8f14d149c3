//! Turns the fate of each delivery into a verdict for the queue.

use std::fmt;

use hookmill_config::Retry;
use hookmill_core::delivery::Verdict;
use hookmill_core::message::Envelope;
use hookmill_core::panics::Panicked;
use hookmill_core::words::LetterReason;

use crate::retry::delay;

/// The result of a delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Its event took effect with this delivery.
    Applied,
    /// No rule matches its event; the ledger has it.
    Recorded,
    /// Its event is already in the ledger. Nothing changed.
    Duplicate,
    /// No rule matches its event, and the source ignores such events.
    Ignored,
    /// A dependency was unavailable. Nothing was written.
    Unavailable(String),
    /// It will never take effect.
    Condemned {
        /// The reason.
        reason: LetterReason,
        /// The error; never contains a part of a body.
        error: String,
    },
}

impl Fate {
    pub(crate) fn unreadable(error: String) -> Self {
        Self::Condemned { reason: LetterReason::Unreadable, error }
    }

    /// The event panics: it does so again with every delivery.
    pub(crate) fn panicked(panicked: Panicked) -> Self {
        Self::Condemned { reason: LetterReason::Permanent, error: panicked.to_string() }
    }

    /// The name in logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Recorded => "recorded",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Unavailable(_) => "unavailable",
            Self::Condemned { .. } => "dead_letter",
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A delivery's fate and its verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settled {
    /// The envelope of its event; `None` if its message is unreadable.
    pub envelope: Option<Envelope>,
    /// Its fate.
    pub fate: Fate,
    /// The verdict for the queue.
    pub verdict: Verdict,
}

/// Settles one delivery. Every fate has a verdict.
///
/// A delivery that could not be applied is retried until `retry.max_attempts`, then buried; `failed_before` is the number of
/// its earlier attempts. If it cannot be buried either, [`process_batch()`](crate::process_batch()) retries it nevertheless,
/// so that it is never lost.
pub(crate) fn settle(
    envelope: Option<Envelope>,
    fate: Fate,
    retry: &Retry,
    failed_before: u32,
) -> Settled {
    let attempts = failed_before.saturating_add(1);
    let (fate, verdict) = match fate {
        Fate::Unavailable(error) if attempts >= retry.max_attempts => {
            let error = format!("gave up after {attempts} attempts: {error}");
            (Fate::Condemned { reason: LetterReason::Exhausted, error }, Verdict::Bury)
        }
        Fate::Unavailable(_) => (fate, Verdict::Retry { delay: delay(retry, attempts) }),
        Fate::Condemned { .. } => (fate, Verdict::Bury),
        Fate::Applied | Fate::Recorded | Fate::Duplicate | Fate::Ignored => (fate, Verdict::Ack),
    };
    Settled { envelope, fate, verdict }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settled(attempts: u32, fate: Fate) -> Settled {
        let retry = Retry {
            max_attempts: 3,
            initial: Duration::from_secs(10),
            multiplier: 2.0,
            max: Duration::from_secs(60),
            jitter: 0.0,
        };
        settle(None, fate, &retry, attempts - 1)
    }

    #[test]
    fn an_unavailable_delivery_is_retried_and_then_buried() {
        let away = || Fate::Unavailable("the store is unavailable: locked".into());
        let verdict = |attempts| settled(attempts, away()).verdict;
        assert_eq!(verdict(1), Verdict::Retry { delay: Duration::from_secs(10) });
        assert_eq!(verdict(2), Verdict::Retry { delay: Duration::from_secs(20) });
        insta::assert_debug_snapshot!(settled(3, away()), @r#"
        Settled {
            envelope: None,
            fate: Condemned {
                reason: Exhausted,
                error: "gave up after 3 attempts: the store is unavailable: locked",
            },
            verdict: Bury,
        }
        "#);
    }

    #[test]
    fn applied_deliveries_are_acknowledged_and_condemned_ones_buried() {
        for fate in [Fate::Applied, Fate::Recorded, Fate::Duplicate, Fate::Ignored] {
            assert_eq!(settled(1, fate).verdict, Verdict::Ack);
        }
        assert_eq!(settled(1, Fate::unreadable(String::new())).verdict, Verdict::Bury);
    }
}
