//! A message as a queue hands it to a consumer, and what the consumer tells the queue.

use std::time::Duration;

/// One handing-over of one message. A message is delivered at least once, in any order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// How often the message has been delivered, this time included; from 1.
    pub attempts: u32,
    /// The message's text, see [`crate::message`].
    pub text: String,
}

/// The text of a message that wakes somebody up, and says nothing else: what there is to do is in the database.
pub const WAKE: &str = "wake";

/// Whether a batch does nothing but wake somebody up. What is in a queue says what it is for, so it may have any name.
pub fn wakes(batch: &[Delivery]) -> bool {
    batch.iter().all(|delivery| delivery.text == WAKE)
}

/// What the queue is told about a delivery. There is exactly one for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Done: applied, or applied before.
    Ack,
    /// Not now: deliver it again after the delay.
    Retry {
        /// At most [`crate::limits::DELAY_SECONDS`].
        delay: Duration,
    },
    /// Given up: it is a row in `dead_letters`, and done as far as the queue is concerned.
    Bury,
}
