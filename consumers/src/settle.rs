//! From what came of each delivery to what the queue is told.

use std::fmt;

use hookmill_core::config::Retry;
use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::message::Envelope;
use hookmill_core::words::LetterReason;

use crate::retry::delay;

/// What came of a delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Its event took effect with this delivery.
    Applied,
    /// No rule names its event; the ledger has it.
    Recorded,
    /// Its event had taken effect before: nothing changed.
    Duplicate,
    /// No rule names its event, and the source's are ignored.
    Ignored,
    /// Something was away. Nothing was written.
    Unavailable(String),
    /// It will never take effect.
    Condemned {
        /// Why.
        reason: LetterReason,
        /// What went wrong, in words; never a part of a body.
        error: String,
    },
}

impl Fate {
    pub(crate) fn unreadable(error: String) -> Self {
        Self::Condemned { reason: LetterReason::Unreadable, error }
    }

    /// The word for it in logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Recorded => "recorded",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Unavailable(_) => "unavailable",
            Self::Condemned { .. } => "condemned",
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
    /// What is known of its event; `None` if its message cannot be read.
    pub envelope: Option<Envelope>,
    /// What came of it.
    pub fate: Fate,
    /// What the queue is told.
    pub verdict: Verdict,
}

/// Decides about one delivery. Total: every fate has a verdict.
///
/// A delivery that something kept from being applied is tried again until `retry.max_attempts`, then buried. If it cannot
/// be buried either, [`process_batch()`](crate::process_batch()) has it tried again all the same, so that it is never lost.
pub(crate) fn settle(
    delivery: &Delivery,
    envelope: Option<Envelope>,
    fate: Fate,
    retry: &Retry,
) -> Settled {
    let (fate, verdict) = match fate {
        Fate::Unavailable(error) if delivery.attempts >= retry.max_attempts => {
            let error = format!("gave up after {} attempts: {error}", delivery.attempts);
            (Fate::Condemned { reason: LetterReason::Exhausted, error }, Verdict::Bury)
        }
        Fate::Unavailable(_) => (fate, Verdict::Retry { delay: delay(retry, delivery.attempts) }),
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
        let delivery = Delivery { attempts, text: String::new() };
        settle(&delivery, None, fate, &retry)
    }

    #[test]
    fn what_was_away_is_tried_again_and_then_buried() {
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
    fn what_is_done_is_acknowledged_and_what_never_will_be_is_buried() {
        for fate in [Fate::Applied, Fate::Recorded, Fate::Duplicate, Fate::Ignored] {
            assert_eq!(settled(1, fate).verdict, Verdict::Ack);
        }
        assert_eq!(settled(1, Fate::unreadable(String::new())).verdict, Verdict::Bury);
    }
}
