//! A message that a queue delivers to a consumer, and the consumer's verdict.

use std::time::Duration;

/// One delivery of a message. A message is delivered at least once, in any order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The number of deliveries of the message, including this one.
    pub attempts: u32,
    /// The message's text, see [`crate::message`].
    pub text: String,
}

/// The text of a message that wakes a Worker. It carries no data; the work is in the database.
pub const WAKE: &str = "wake";

/// Whether a batch only wakes the Worker. The content of a queue tells its purpose, so a queue may have any name.
pub fn wakes(batch: &[Delivery]) -> bool {
    batch.iter().all(|delivery| delivery.text == WAKE)
}

/// The verdict about a delivery. There is exactly one for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Done: applied now or before.
    Ack,
    /// Deliver the message again after the delay.
    Retry {
        /// At most [`crate::limits::DELAY_SECONDS`].
        delay: Duration,
    },
    /// Given up: the message is a row in `dead_letters`, and the queue is done with it.
    Bury,
}
