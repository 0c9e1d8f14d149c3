//! Decodes each delivery separately, so that an unreadable message does not affect the others.

use hookmill_core::delivery::Delivery;
use hookmill_core::message::{Message, decode};
use hookmill_core::panics::caught;

use crate::settle::Fate;

/// Decodes the deliveries of a batch. For each, in order: its message, or its fate.
pub(crate) fn decode_batch(batch: &[Delivery]) -> Vec<Result<Message<'_>, Fate>> {
    batch
        .iter()
        .map(|delivery| match caught(|| decode(&delivery.text)) {
            Ok(decoded) => decoded.map_err(|error| Fate::unreadable(error.to_string())),
            Err(panicked) => Err(Fate::panicked(panicked)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_message_does_not_affect_the_others() {
        let delivery = |text: &str| Delivery { attempts: 1, text: text.into() };
        let good = r#"{"v":1,"source":"s","id":"e","type":"t","received_at":1,"verified":{"secret":0},"body":"text"}"#;
        let batch = [delivery(good), delivery("poison"), delivery(good)];
        let decoded = decode_batch(&batch);
        assert!(decoded[0].is_ok() && decoded[2].is_ok());
        insta::assert_debug_snapshot!(decoded[1], @r#"
        Err(
            Condemned {
                reason: Unreadable,
                error: "the message has no Hookmill envelope (line 1, column 1)",
            },
        )
        "#);
    }
}
