//! Standard Webhooks, as Svix signs and so Clerk and Resend:
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>,
//! <https://docs.svix.com/receiving/verifying-payloads/how-manual>.
//!
//! Headers `svix-id`, `svix-timestamp` (Unix seconds), `svix-signature`, or the same with `webhook-`. Signed is
//! `<id>.<timestamp>.<body>` with HMAC-SHA256; the key is the base64 behind `whsec_`. The signature header is a list
//! separated by spaces of `v1,<base64>`; a sender that rotates its secret puts in one for each.
//!
//! The id is part of what is signed and stays the same over retries: it is the event's identity.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookmill_core::limits;
use hookmill_core::message::Verified;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::Request;
use hookmill_core::time::Timestamp;
use serde::Deserialize;

use crate::hmac::HmacKey;
use crate::{Event, matching_key, top, unix_seconds};

/// The two families of headers. One request uses one of them; Svix's own libraries prefer theirs.
const FAMILIES: [[&str; 3]; 2] = [
    ["svix-id", "svix-timestamp", "svix-signature"],
    ["webhook-id", "webhook-timestamp", "webhook-signature"],
];

pub(crate) fn key(secret: &str) -> Result<HmacKey, &'static str> {
    // Supabase writes the version of the scheme before the secret.
    let secret = secret.strip_prefix("v1,").unwrap_or(secret);
    let base64 = secret.strip_prefix("whsec_").unwrap_or(secret);
    match STANDARD.decode(base64) {
        Ok(key) if !key.is_empty() => Ok(HmacKey::new(&key)),
        Ok(_) => Err("is set, and has no key behind `whsec_`"),
        Err(_) => Err("is not a secret of this scheme: `whsec_` and base64"),
    }
}

/// The text of a secret with this key.
pub(crate) fn secret_text(key: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(key))
}

/// Returns the evidence and the event's id.
pub(crate) fn verify(
    request: &Request<'_>,
    keys: &[(usize, HmacKey)],
) -> Result<(Verified, String), Rejection> {
    let branded = !request.headers.all(FAMILIES[0][0]).is_empty();
    let [id_header, timestamp_header, signature_header] = FAMILIES[usize::from(!branded)];
    let id = request.required_header(id_header)?;
    let timestamp = request.required_header(timestamp_header)?;
    let list = request.required_header(signature_header)?;

    let malformed = |header: &str, detail: &str| {
        Rejection::new(Reason::MalformedHeader, format!("{header} {detail}"))
    };
    let signed_at = unix_seconds(&timestamp)
        .ok_or_else(|| malformed(timestamp_header, "is not Unix seconds"))?;
    if list.split(' ').count() > limits::SIGNATURES {
        return Err(malformed(signature_header, "has more signatures than are tried"));
    }
    let signatures: Vec<[u8; 32]> = list
        .split(' ')
        .filter_map(|entry| entry.strip_prefix("v1,"))
        .filter_map(|base64| STANDARD.decode(base64).ok()?.try_into().ok())
        .collect();
    if signatures.is_empty() {
        let detail = format!("{signature_header} has no v1 signature");
        return Err(Rejection::new(Reason::NoMatchingSignature, detail));
    }
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", request.body];
    let secret = matching_key(keys, &signed, &signatures)?;
    Ok((Verified { secret, signed_at: Some(signed_at) }, id))
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    kind: String,
}

pub(crate) fn identify(id: String, body: &[u8]) -> Result<Event, Rejection> {
    let Body { kind } = top(body)?;
    Ok(Event { id, kind })
}

pub(crate) fn sign(
    key: &HmacKey,
    id: &str,
    at: Timestamp,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let timestamp = at.seconds().to_string();
    let tag = key.tag(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
    let [id_header, timestamp_header, signature_header] = FAMILIES[0];
    vec![
        (id_header, id.to_owned()),
        (timestamp_header, timestamp),
        (signature_header, format!("v1,{}", STANDARD.encode(tag))),
    ]
}
