//! Handles the platform's own dead-letter queue.
//!
//! A message gets here if no consumer reached a verdict in a hundred deliveries. This does one insert and nothing else,
//! since the platform deletes a message that fails here.

use std::time::Duration;

use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::log::{Entry, Fields};
use hookmill_core::message::decode;
use hookmill_core::store::{Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_core::words::LetterReason;

use crate::bury::{Letter, bury};

/// The maximum delay while the store is unavailable. A hundred deliveries last thirteen days, and the queues of Cloudflare
/// keep a message for fourteen.
pub const DRAIN_RETRY: Duration = Duration::from_secs(14 * 15 * 60);

/// The delay after this attempt: longer each time, up to the maximum.
fn delay(attempts: u32) -> Duration {
    Duration::from_secs(15 * 60).saturating_mul(attempts.max(1)).min(DRAIN_RETRY)
}

/// The log line about a batch: the number of verdicts, and the error if there was one.
pub fn drained(verdicts: usize, error: Option<&StoreError>) -> Entry {
    let fields = Fields {
        count: Some(verdicts.to_string()),
        error: error.map(ToString::to_string),
        ..Fields::default()
    };
    if error.is_some() {
        Entry::error("cannot write dead letters from the queue, will retry", fields)
    } else {
        Entry::warn("wrote dead letters from the queue", fields)
    }
}

/// Buries messages that the platform gave up. Returns a verdict for each delivery, in order, and the error if there was
/// one.
///
/// If the store rejects the transaction, each letter is written separately.
pub async fn drain<S: Store>(
    store: &S,
    batch: &[Delivery],
    now: Timestamp,
) -> (Vec<Verdict>, Option<StoreError>) {
    let messages: Vec<_> = batch.iter().map(|delivery| decode(&delivery.text)).collect();
    let letters: Vec<_> = batch
        .iter()
        .zip(&messages)
        .map(|(delivery, message)| Letter {
            delivery,
            envelope: message.as_ref().ok().map(|message| &message.envelope),
            reason: LetterReason::Dropped,
            error: "the platform gave up the message before a consumer had a verdict".to_owned(),
        })
        .collect();
    let retry = |delivery: &Delivery| Verdict::Retry { delay: delay(delivery.attempts) };
    match store.execute(bury(&letters, now)).await {
        Ok(_) => (vec![Verdict::Bury; batch.len()], None),
        Err(error @ StoreError::Unavailable(_)) => (batch.iter().map(retry).collect(), Some(error)),
        Err(_) => {
            let mut verdicts = Vec::with_capacity(batch.len());
            let mut last = None;
            for (letter, delivery) in letters.iter().zip(batch) {
                let buried = store.execute(bury(std::slice::from_ref(letter), now)).await;
                verdicts.push(if buried.is_ok() { Verdict::Bury } else { retry(delivery) });
                last = buried.err().or(last);
            }
            (verdicts, last)
        }
    }
}
