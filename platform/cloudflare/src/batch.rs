//! The receiving side of Cloudflare Queues: deliveries out of a batch, verdicts back into it.
//!
//! A queue handler that throws has its whole batch delivered again, and with it every neighbour of the offender. So
//! messages are read and settled one by one. `worker` does not show how often a message was delivered, so that is read
//! from the message itself.

use hookmill_core::delivery::{Delivery, Verdict};
use worker::js_sys::{JSON, Reflect};
use worker::wasm_bindgen::JsValue;
use worker::{MessageBatch, MessageExt as _, QueueRetryOptionsBuilder, RawMessage, worker_sys};

/// A batch as the platform hands it over.
pub struct Batch {
    all: MessageBatch<()>,
    messages: Vec<RawMessage>,
    deliveries: Vec<Delivery>,
}

impl Batch {
    /// Reads the batch.
    ///
    /// # Errors
    ///
    /// If it is not a batch, which the platform never hands over.
    pub fn new(event: &worker_sys::MessageBatch) -> Result<Self, JsValue> {
        let raw = event.messages()?;
        let batch: MessageBatch<()> = event.clone().into();
        let messages: Vec<_> = batch.raw_iter().collect();
        let deliveries = messages
            .iter()
            .zip(raw.iter())
            .map(|(message, raw)| {
                let attempts = Reflect::get(&raw, &"attempts".into())?.as_f64().unwrap_or(1.0);
                Ok(Delivery {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "a small count"
                    )]
                    attempts: attempts as u32,
                    text: text(&message.body()),
                })
            })
            .collect::<Result<_, JsValue>>()?;
        Ok(Self { all: batch, messages, deliveries })
    }

    /// Its deliveries.
    pub fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// Tells the queue that every message is done.
    pub fn acknowledge(&self) {
        self.all.ack_all();
    }

    /// Tells the queue the verdict on one delivery. It stands even if the invocation fails later.
    /// Source: <https://developers.cloudflare.com/queues/configuration/batching-retries/#explicit-acknowledgement-and-retries>.
    pub fn settle(&self, index: usize, verdict: Verdict) {
        let Some(message) = self.messages.get(index) else { return };
        match verdict {
            Verdict::Ack | Verdict::Bury => message.ack(),
            Verdict::Retry { delay } => {
                // The platform counts whole seconds: rounded up, a retry is never early.
                let seconds = delay.as_millis().div_ceil(1000);
                let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
                message.retry_with_options(
                    &QueueRetryOptionsBuilder::new().with_delay_seconds(seconds).build(),
                );
            }
        }
    }
}

/// Our messages are text. Whatever else somebody put on the queue is kept as JSON, to be buried as it is.
fn text(body: &JsValue) -> String {
    body.as_string()
        .or_else(|| JSON::stringify(body).ok().map(String::from))
        .unwrap_or_else(|| "a message that is not text".to_owned())
}
