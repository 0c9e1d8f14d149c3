//! Stripe: <https://docs.stripe.com/webhooks#verify-manually>.
//!
//! `Stripe-Signature: t=<unix seconds>,v1=<hex>[,v1=<hex>…][,v0=<hex>]`. Signed is the timestamp as it stands in the
//! header, a full stop, and the body, with HMAC-SHA256; the key is the whole text of the endpoint's secret, `whsec_`
//! included. Two `v1` come while a secret is being rolled. `v0` is for test events and proves nothing.
//!
//! Thin events (API v2) are signed the same way and have `id` and `type` in the same places.

use hookmill_core::limits;
use hookmill_core::message::Verified;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::Request;
use hookmill_core::time::Timestamp;
use serde::Deserialize;

use crate::hmac::HmacKey;
use crate::{Event, matching_key, top, unix_seconds};

const HEADER: &str = "Stripe-Signature";

pub(crate) fn key(secret: &str) -> HmacKey {
    HmacKey::new(secret.as_bytes())
}

pub(crate) fn verify(
    request: &Request<'_>,
    keys: &[(usize, HmacKey)],
) -> Result<Verified, Rejection> {
    let header = request.required_header(HEADER)?;
    let (timestamp, signatures) = parse(&header)?;
    let secret = matching_key(keys, &[timestamp.as_bytes(), b".", request.body], &signatures)?;
    let signed_at = unix_seconds(timestamp);
    Ok(Verified { secret, signed_at })
}

/// The timestamp's text and the `v1` signatures of the header.
fn parse(header: &str) -> Result<(&str, Vec<[u8; 32]>), Rejection> {
    let malformed =
        |detail: &str| Rejection::new(Reason::MalformedHeader, format!("{HEADER} {detail}"));
    let mut timestamp = None;
    let mut signatures = Vec::new();
    let mut listed = 0;
    for part in header.split(',') {
        match part.split_once('=') {
            Some(("t", text)) if timestamp.is_none() => timestamp = Some(text),
            Some(("t", _)) => return Err(malformed("has two timestamps")),
            Some(("v1", signature)) => {
                listed += 1;
                let mut bytes = [0; 32];
                // Lower case only: a signature has one spelling.
                if base16ct::lower::decode(signature, &mut bytes)
                    .is_ok_and(|decoded| decoded.len() == 32)
                {
                    signatures.push(bytes);
                }
            }
            _ => {}
        }
    }
    let timestamp = timestamp.ok_or_else(|| malformed("has no timestamp (t=)"))?;
    unix_seconds(timestamp).ok_or_else(|| malformed("has a timestamp that is not Unix seconds"))?;
    if listed > limits::SIGNATURES {
        return Err(malformed("has more signatures than are tried"));
    }
    if signatures.is_empty() {
        let detail = format!("{HEADER} has no v1 signature");
        return Err(Rejection::new(Reason::NoMatchingSignature, detail));
    }
    Ok((timestamp, signatures))
}

#[derive(Deserialize)]
struct Body {
    id: String,
    #[serde(rename = "type")]
    kind: String,
}

pub(crate) fn identify(body: &[u8]) -> Result<Event, Rejection> {
    let Body { id, kind } = top(body)?;
    Ok(Event { id, kind })
}

pub(crate) fn sign(key: &HmacKey, at: Timestamp, body: &[u8]) -> Vec<(&'static str, String)> {
    let timestamp = at.seconds().to_string();
    let tag = key.tag(&[timestamp.as_bytes(), b".", body]);
    vec![(HEADER, format!("t={timestamp},v1={}", base16ct::lower::encode_string(&tag)))]
}
