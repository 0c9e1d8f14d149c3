//! Each delivery by itself: readable, or poison. The batch is never collected into one result, so that a message which
//! cannot be read spoils no other.

use hookmill_core::delivery::Delivery;
use hookmill_core::message::{Message, decode};

use crate::settle::Fate;

/// Reads the deliveries of a batch. Index by index: a message, or what becomes of the delivery instead.
pub(crate) fn decode_batch(batch: &[Delivery]) -> Vec<Result<Message<'_>, Fate>> {
    batch
        .iter()
        .map(|delivery| decode(&delivery.text).map_err(|error| Fate::unreadable(error.to_string())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unreadable_message_leaves_the_others_readable() {
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
