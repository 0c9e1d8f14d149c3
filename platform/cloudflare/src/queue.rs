//! The sending side of Cloudflare Queues.

use std::time::Duration;

use hookmill_core::limits::{BATCH_MESSAGES, SEND_BATCH_BYTES};
use hookmill_core::queue::{Backlog, Queue, QueueError};
use hookmill_core::time::Timestamp;
use worker::js_sys::futures::JsFuture;
use worker::js_sys::{Date, Function, Promise, Reflect};
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::{BatchMessageBuilder, Env, QueueContentType, RawMessageBuilder, Result, SendMessage};

use crate::text;

/// A queue.
pub struct CloudflareQueue(worker::Queue);

impl CloudflareQueue {
    /// The queue of this producer binding.
    ///
    /// # Errors
    ///
    /// If the Worker has no such binding.
    pub fn new(env: &Env, binding: &str) -> Result<Self> {
        env.queue(binding).map(Self)
    }

    /// Sends one message that is not delivered before this time.
    ///
    /// # Errors
    ///
    /// If the platform does not accept it.
    pub async fn send_later(&self, text: &str, delay: Duration) -> Result<()> {
        // The platform counts whole seconds: rounded up, it is never early.
        let seconds = u32::try_from(delay.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        let message = RawMessageBuilder::new(JsValue::from_str(text)).delay_seconds(seconds);
        self.0.send_raw(message.build_with_content_type(QueueContentType::Text)).await
    }
}

/// As text: the typed send of `worker` turns maps into `{}` and returns Ok.
fn message(text: &str) -> SendMessage<JsValue> {
    RawMessageBuilder::new(JsValue::from_str(text)).build_with_content_type(QueueContentType::Text)
}

impl Queue for CloudflareQueue {
    #[worker::send]
    async fn send(&self, messages: Vec<String>) -> std::result::Result<(), QueueError> {
        let failed = |error: worker::Error| QueueError(text(&error));
        let mut rest = messages.as_slice();
        while let [first, others @ ..] = rest {
            let mut bytes = first.len();
            let fitting = others.iter().take(BATCH_MESSAGES - 1).take_while(|message| {
                bytes += message.len();
                bytes <= SEND_BATCH_BYTES
            });
            let (batch, later) = rest.split_at(1 + fitting.count());
            match batch {
                [one] => self.0.send_raw(message(one)).await.map_err(failed)?,
                batch => {
                    let batch = batch.iter().map(|text| message(text));
                    let batch = BatchMessageBuilder::new().messages(batch).build();
                    self.0.send_raw_batch(batch).await.map_err(failed)?;
                }
            }
            rest = later;
        }
        Ok(())
    }

    /// The crate `worker` does not offer `metrics()`. Source:
    /// <https://developers.cloudflare.com/changelog/queues/2026-04-28-improved-queues-metrics/>.
    #[worker::send]
    async fn backlog(&self) -> std::result::Result<Backlog, QueueError> {
        let failed = |error: JsValue| QueueError(format!("{error:?}"));
        let queue = self.0.as_ref();
        let metrics: Function = Reflect::get(queue, &"metrics".into())
            .and_then(JsCast::dyn_into)
            .map_err(|_| QueueError("it has no metrics".to_owned()))?;
        let answer: Promise = metrics.call0(queue).and_then(JsCast::dyn_into).map_err(failed)?;
        let answer = JsFuture::from(answer).await.map_err(failed)?;
        let member = |name: &str| Reflect::get(&answer, &name.into()).map_err(failed);
        let messages = member("backlogCount")?.as_f64().unwrap_or_default();
        let oldest = member("oldestMessageTimestamp")?.dyn_into::<Date>().ok();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count, and a date"
        )]
        Ok(Backlog {
            messages: messages as u64,
            oldest: oldest.map(|at| Timestamp::from_millis(at.get_time() as i64)),
        })
    }
}
