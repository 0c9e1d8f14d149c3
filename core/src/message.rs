//! A verified event on the queue: an envelope, and the body as the provider sent it.
//!
//! The text form is one line of JSON (the envelope), a line feed, and the untouched body:
//!
//! ```text
//! {"v":1,"source":"stripe","id":"evt_1","type":"invoice.paid","received_at":1767225600000,…,"body":"text"}
//! {"id":"evt_1","object":"event",…}
//! ```
//!
//! As an escaped JSON string, the body would be a fifth longer, nearer to the queue's limit, and every consumer would have
//! to unescape it. Producers and consumers are deployed separately, so within a version fields are only added.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::time::Timestamp;

/// The version of the text form that this code writes.
pub const VERSION: u32 = 1;

/// What is known of an event besides its body.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Version of the text form, [`VERSION`].
    pub v: u32,
    /// Name of the source, as in hookmill.toml.
    pub source: String,
    /// The provider's id of the event; the same on every redelivery.
    pub id: String,
    /// The provider's type of the event, such as `customer.subscription.updated`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When ingress received it.
    pub received_at: Timestamp,
    /// How it was verified; without meaning for what comes from an API. A replay does not check timestamps again; this is the evidence.
    pub verified: Verified,
    /// 0 for the original event; the number of the reprocessing or import otherwise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u32,
    /// For a reprocessing: the names of the rules to run; if empty, the repeatable rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// The headers that the source keeps, by their names in lower case. The signature does not cover them, unless the provider
    /// signs them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The API version that the provider states, if the source says where: see [`mod@crate::api_version`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// What Hookmill has fetched from the provider's API; none for an event that the provider sent. Nothing signs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_api: Option<FromApi>,
    /// The location of the body.
    pub body: BodyForm,
}

fn is_zero(generation: &u32) -> bool {
    *generation == 0
}

/// What a message from a provider's API is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromApi {
    /// An object, as it was when Hookmill requested it. Its rows outrank those of every event of the same version.
    Object {
        /// The time of the request.
        at: Timestamp,
    },
    /// An event that the provider had not delivered.
    Event {
        /// Whether it is too old to send anything for it.
        late: bool,
    },
}

/// The evidence of a verification.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// The index of the secret that matched, in the order of hookmill.toml; never the secret.
    pub secret: usize,
    /// The signed time, if the scheme signs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<Timestamp>,
}

/// The location and form of a message's body.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyForm {
    /// The rest of the text is the body.
    Text,
    /// The rest of the text is the body in base64: it is not UTF-8.
    Base64,
    /// The body is in the object store: a claim check.
    Object(ClaimCheck),
}

/// Refers to a body that was too large for the queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClaimCheck {
    /// Key in the object store.
    pub key: String,
    /// Length of the body in bytes.
    pub bytes: usize,
}

/// A message with its body, or with the claim check for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// The envelope.
    pub envelope: Envelope,
    /// The body; empty when the envelope holds a claim check.
    pub body: Cow<'a, [u8]>,
}

/// Why content on a queue is not the text of a message.
///
/// A consumer gets a text in its place, so that it becomes a dead letter like any other unreadable message, and the dead
/// letter preserves the content: one line of JSON, a line feed, and the rest. The line is
/// `{"unreadable":"not_utf8","rest":"base64"}`: the name of the variant, and the form of the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, Error)]
#[serde(rename_all = "snake_case")]
pub enum Unreadable {
    /// Bytes that are not UTF-8. The rest is `base64`.
    #[error(
        "the message is not UTF-8: it was damaged, or Hookmill did not write it; the dead letter keeps its bytes in base64"
    )]
    NotUtf8,
    /// A value that is neither text nor bytes. The rest is `json`.
    #[error("the message is not text: Hookmill did not write it; the dead letter keeps it as JSON")]
    NotText,
    /// There is no text. The rest is the `place` where it should be.
    #[error(
        "the text of the message is missing from the queue's database; resend the latest events at the provider"
    )]
    Missing,
    /// The database cannot read the text. The rest is the `place` of the text.
    #[error(
        "the text of the message is in a damaged part of the queue's database; stop Hookmill, and recover it with \
         `sqlite3 queue.db .recover`"
    )]
    Damaged,
}

impl Unreadable {
    /// The line.
    fn line(self) -> String {
        let name = serde_json::to_string(&self).expect("a variant's name serializes");
        let rest = match self {
            Self::NotUtf8 => "base64",
            Self::NotText => "json",
            Self::Missing | Self::Damaged => "place",
        };
        format!("{{\"unreadable\":{name},\"rest\":\"{rest}\"}}")
    }

    /// The text in place of the message. `rest` is the remaining content.
    pub fn text(self, rest: &str) -> String {
        self.line() + "\n" + rest
    }
}

/// The text of a message that a queue stores as bytes, or [`Unreadable::NotUtf8`].
pub fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| Unreadable::NotUtf8.text(&STANDARD.encode(error.as_bytes())))
}

/// Why a text is not a message. Never contains a part of the text.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum DecodeError {
    /// The text has no envelope line from Hookmill.
    #[error("the message has no Hookmill envelope (line {line}, column {column})")]
    Envelope {
        /// Line in the envelope, from 1.
        line: usize,
        /// Column in the envelope, from 1.
        column: usize,
    },
    /// The text replaces content that is not text.
    #[error("{0}")]
    Unreadable(Unreadable),
    /// A newer version of Hookmill wrote it.
    #[error("the message has version {0}; this consumer reads version {VERSION}")]
    Version(u32),
    /// The envelope says that the body is base64, and it is not.
    #[error("the message's body is not base64")]
    Base64,
}

/// Writes a message's text: the envelope, then the body. Sets the body's form in the envelope.
pub fn encode(envelope: &mut Envelope, body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) => {
            envelope.body = BodyForm::Text;
            join(envelope, text)
        }
        Err(_) => {
            envelope.body = BodyForm::Base64;
            join(envelope, &STANDARD.encode(body))
        }
    }
}

/// Writes the text of a message whose body is in the object store.
pub fn encode_claim_check(envelope: &mut Envelope, claim_check: ClaimCheck) -> String {
    envelope.body = BodyForm::Object(claim_check);
    join(envelope, "")
}

fn join(envelope: &Envelope, body: &str) -> String {
    let mut text = serde_json::to_string(envelope)
        .expect("an envelope has string keys and no foreign Serialize, so it always serialises");
    text.reserve_exact(body.len() + 1);
    text.push('\n');
    text.push_str(body);
    text
}

/// The text of the same event for a reprocessing, with the same body.
///
/// # Errors
///
/// [`DecodeError`] if the text is not a message.
pub fn reprocessed(text: &str, generation: u32, rules: &[String]) -> Result<String, DecodeError> {
    let (envelope, body) = open(text)?;
    Ok(join(&Envelope { generation, rules: rules.to_vec(), ..envelope }, body))
}

/// Reads a message's text.
///
/// # Errors
///
/// [`DecodeError`] if this code did not write it.
pub fn decode(text: &str) -> Result<Message<'_>, DecodeError> {
    let (envelope, rest) = open(text)?;
    let body = match envelope.body {
        BodyForm::Text => Cow::Borrowed(rest.as_bytes()),
        BodyForm::Base64 => Cow::Owned(STANDARD.decode(rest).map_err(|_| DecodeError::Base64)?),
        BodyForm::Object(_) => Cow::Borrowed(&[][..]),
    };
    Ok(Message { envelope, body })
}

/// The envelope, and the text after it.
fn open(text: &str) -> Result<(Envelope, &str), DecodeError> {
    #[derive(Deserialize)]
    struct Other {
        v: Option<u32>,
        unreadable: Option<Unreadable>,
    }
    let (head, rest) = text.split_once('\n').unwrap_or((text, ""));
    let malformed =
        |e: serde_json::Error| DecodeError::Envelope { line: e.line(), column: e.column() };
    let envelope: Envelope = match serde_json::from_str(head) {
        Ok(envelope) => envelope,
        // A later version may not have today's fields, so its number is read separately.
        Err(error) => match serde_json::from_str(head) {
            Ok(Other { unreadable: Some(why), .. }) => return Err(DecodeError::Unreadable(why)),
            Ok(Other { v: Some(v), .. }) if v != VERSION => return Err(DecodeError::Version(v)),
            _ => return Err(malformed(error)),
        },
    };
    if envelope.v != VERSION {
        return Err(DecodeError::Version(envelope.v));
    }
    Ok((envelope, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            v: VERSION,
            source: "stripe".into(),
            id: "evt_1".into(),
            kind: "invoice.paid".into(),
            received_at: Timestamp::from_seconds(1_767_225_600),
            verified: Verified {
                secret: 0,
                signed_at: Some(Timestamp::from_seconds(1_767_225_590)),
            },
            generation: 0,
            rules: Vec::new(),
            headers: BTreeMap::new(),
            api_version: None,
            from_api: None,
            body: BodyForm::Text,
        }
    }

    #[test]
    fn the_text_form_is_one_line_and_the_body() {
        insta::assert_snapshot!(encode(&mut envelope(), b"{\"id\":\n\"evt_1\"}"), @r#"
        {"v":1,"source":"stripe","id":"evt_1","type":"invoice.paid","received_at":1767225600000,"verified":{"secret":0,"signed_at":1767225590000},"body":"text"}
        {"id":
        "evt_1"}
        "#);
    }

    #[test]
    fn a_reprocessing_keeps_the_body() {
        let text = encode(&mut envelope(), b"{\"id\":\n\"evt_1\"}");
        insta::assert_snapshot!(reprocessed(&text, 7, &["welcome".into()]).unwrap(), @r#"
        {"v":1,"source":"stripe","id":"evt_1","type":"invoice.paid","received_at":1767225600000,"verified":{"secret":0,"signed_at":1767225590000},"generation":7,"rules":["welcome"],"body":"text"}
        {"id":
        "evt_1"}
        "#);
        let again =
            reprocessed(&reprocessed(&text, 7, &["welcome".into()]).unwrap(), 8, &[]).unwrap();
        assert_eq!(decode(&again).unwrap().envelope, Envelope { generation: 8, ..envelope() });
        assert!(reprocessed("poison", 7, &[]).is_err());
    }

    #[test]
    fn a_claim_check_survives_encoding() {
        let check = ClaimCheck { key: "stripe/ab".into(), bytes: 130_000 };
        let text = encode_claim_check(&mut envelope(), check.clone());
        assert_eq!(decode(&text).unwrap().envelope.body, BodyForm::Object(check));
    }

    #[test]
    fn a_foreign_text_is_rejected_without_quoting_it() {
        insta::assert_snapshot!(decode("{\"secret\":\"hunter2\"}").unwrap_err(), @"the message has no Hookmill envelope (line 1, column 20)");
        insta::assert_snapshot!(decode("").unwrap_err(), @"the message has no Hookmill envelope (line 1, column 0)");
        insta::assert_snapshot!(decode("{\"v\":2,\"src\":1}\n{}").unwrap_err(), @"the message has version 2; this consumer reads version 1");
        let base64 = join(&Envelope { body: BodyForm::Base64, ..envelope() }, "*");
        insta::assert_snapshot!(decode(&base64).unwrap_err(), @"the message's body is not base64");
    }

    #[test]
    fn unreadable_content_is_preserved_with_its_reason() {
        let text = text_of(vec![b'{', 0xff]);
        insta::assert_snapshot!(text, @r#"
        {"unreadable":"not_utf8","rest":"base64"}
        e/8=
        "#);
        insta::assert_snapshot!(decode(&text).unwrap_err(), @"the message is not UTF-8: it was damaged, or Hookmill did not write it; the dead letter keeps its bytes in base64");
        for why in [Unreadable::NotText, Unreadable::Missing, Unreadable::Damaged] {
            let text = why.text("events 7");
            assert_eq!(decode(&text), Err(DecodeError::Unreadable(why)));
            assert_eq!(text.split_once('\n').map(|(_, rest)| rest), Some("events 7"));
        }
        let unheard_of = decode("{\"unreadable\":\"hunter2\"}").unwrap_err();
        assert!(matches!(unheard_of, DecodeError::Envelope { .. }), "{unheard_of}");
    }

    proptest! {
        #[test]
        fn bytes_that_are_not_text_can_be_recovered(bytes: Vec<u8>) {
            let text = text_of(bytes.clone());
            match String::from_utf8(bytes) {
                Ok(same) => prop_assert_eq!(text, same),
                Err(error) => {
                    let (_, rest) = text.split_once('\n').unwrap();
                    prop_assert_eq!(STANDARD.decode(rest).unwrap(), error.into_bytes());
                    prop_assert_eq!(decode(&text), Err(DecodeError::Unreadable(Unreadable::NotUtf8)));
                }
            }
        }

        #[test]
        fn every_body_survives_byte_for_byte(body: Vec<u8>, id: String, generation: u32) {
            let sent = Envelope { id, generation, ..envelope() };
            let text = encode(&mut sent.clone(), &body);
            let message = decode(&text).unwrap();
            prop_assert_eq!(&message.body[..], &body[..]);
            prop_assert_eq!(message.envelope.id, sent.id);
            prop_assert_eq!(message.envelope.generation, generation);
        }
    }
}
