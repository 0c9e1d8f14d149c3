//! The receiving side of Cloudflare Queues: deliveries of a batch, and their verdicts.
//!
//! If a queue handler throws, the queue delivers the whole batch again, including the neighbors of the bad message. So
//! messages are read and settled one by one. `worker` does not expose the number of attempts, so it is read from the
//! message itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookmill_core::delivery::{Delivery, Verdict};
use hookmill_core::message::{Unreadable, text_of};
use worker::js_sys::{
    Array, ArrayBuffer, Function, JSON, JsString, Map, Object, Reflect, Set, Uint8Array,
};
use worker::wasm_bindgen::closure::Closure;
use worker::wasm_bindgen::{JsCast as _, JsValue};
use worker::{MessageBatch, MessageExt as _, QueueRetryOptionsBuilder, RawMessage, worker_sys};

/// A batch from the platform.
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
    /// If it is not a batch, which the platform never passes.
    pub fn new(event: &worker_sys::MessageBatch) -> Result<Self, JsValue> {
        let raw = event.messages()?;
        let batch: MessageBatch<()> = event.clone().into();
        let messages: Vec<_> = batch.raw_iter().collect();
        let attempts = JsValue::from("attempts");
        let deliveries = messages
            .iter()
            .zip(raw.iter())
            .map(|(message, raw)| {
                let attempts = Reflect::get(&raw, &attempts)?.as_f64().unwrap_or(1.0);
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

    /// Acknowledges every message.
    pub fn acknowledge(&self) {
        self.all.ack_all();
    }

    /// Gives the queue the verdict on one delivery. It is final even if the invocation fails later. Source:
    /// <https://developers.cloudflare.com/queues/configuration/batching-retries/#explicit-acknowledgement-and-retries>.
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

/// The text of a message. Hookmill sends text. Any other content becomes a dead letter that preserves it.
fn text(body: &JsValue) -> String {
    if let Some(string) = body.dyn_ref::<JsString>() {
        let text = String::from(string);
        // Half of a surrogate pair became U+FFFD. Only such a text is looked through, with a call for each of its characters.
        if !text.contains(char::REPLACEMENT_CHARACTER) || string.is_valid_utf16() {
            return text;
        }
    }
    match bytes(body) {
        Some(bytes) => text_of(bytes),
        None => Unreadable::NotText.text(&json(body)),
    }
}

/// The bytes of a buffer, or of a view of one.
fn bytes(value: &JsValue) -> Option<Vec<u8>> {
    if let Some(buffer) = value.dyn_ref::<ArrayBuffer>() {
        return Some(Uint8Array::new(buffer).to_vec());
    }
    // Every view has these three members.
    let view: &Uint8Array = ArrayBuffer::is_view(value).then(|| value.unchecked_ref())?;
    let (buffer, offset, length) = (view.buffer(), view.byte_offset(), view.byte_length());
    Some(Uint8Array::new_with_byte_offset_and_length(&buffer, offset, length).to_vec())
}

/// A value as JSON. Parts without a form in JSON become objects with one member, which names their type.
fn json(value: &JsValue) -> String {
    let replace = Closure::<dyn Fn(JsValue, JsValue) -> JsValue>::new(|_, part: JsValue| {
        let (name, is) = if let Some(bytes) = bytes(&part) {
            ("base64", JsValue::from(STANDARD.encode(bytes)))
        } else if part.is_bigint() {
            ("bigint", written(&part))
        } else if part.has_type::<Map>() {
            ("map", Array::from(&part).into())
        } else if part.has_type::<Set>() {
            ("set", Array::from(&part).into())
        } else {
            return part;
        };
        let object = Object::new();
        // Setting a member of a new object does not fail.
        let _ = Reflect::set(&object, &name.into(), &is);
        object.into()
    });
    let replace: &Function = replace.as_ref().unchecked_ref();
    let text = JSON::stringify_with_replacer(value, replace).ok().and_then(|text| text.as_string());
    // `undefined` and cyclic values have no JSON.
    text.or_else(|| JSON::stringify(&written(value)).ok()?.as_string()).unwrap_or_default()
}

/// A value as JavaScript prints it.
fn written(value: &JsValue) -> JsValue {
    Object::from(value.clone()).to_string().into()
}
