//! Standard Webhooks, which Svix uses and so Clerk and Resend:
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>,
//! <https://docs.svix.com/receiving/verifying-payloads/how-manual>.
//!
//! Headers `webhook-id`, `webhook-timestamp` (Unix seconds), `webhook-signature`, or the same with another prefix, such as
//! `svix-`. The signed text is `<id>.<timestamp>.<body>`. The signature header is a list separated by spaces: `v1,<base64>`
//! is HMAC-SHA256 with the base64 after `whsec_` as its key, `v1a,<base64>` is Ed25519 with the public key after `whpk_`. A
//! sender that rotates its secret adds a signature for each.
//!
//! The signature covers the id, which stays the same in retries: it is the event's id.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookmill_config::scheme::{KeyForm, TimeUnit};
use hookmill_core::limits;
use hookmill_core::message::Verified;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::{Head, Request};
use hookmill_core::time::Timestamp;

use crate::key::{Key, matching};
use crate::rejected;
use crate::template::parse_time;

pub(crate) fn key(asymmetric: bool, secret: &str) -> Result<Key, &'static str> {
    if let Some(base64) = secret.strip_prefix("whpk_") {
        if !asymmetric {
            return Err("is a public key; set `asymmetric = true` in the source");
        }
        return Key::ed25519(KeyForm::Base64, base64);
    }
    if secret.starts_with("whsk_") {
        return Err("is the sender's private key; use the public key, which begins with `whpk_`");
    }
    match symmetric(secret) {
        Ok(key) if !key.is_empty() => Ok(Key::hmac_sha256(&key)),
        Ok(_) => Err("has no key after `whsec_`"),
        Err(_) => Err("is not a secret of this scheme: `whsec_` and base64"),
    }
}

/// The bytes of a secret that is not a key pair's.
fn symmetric(secret: &str) -> Result<Vec<u8>, base64::DecodeError> {
    // Supabase writes the version of the scheme before the secret.
    let secret = secret.strip_prefix("v1,").unwrap_or(secret);
    STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret))
}

/// The length of a secret key; `None` for a public key.
pub(crate) fn key_bytes(secret: &str) -> Option<usize> {
    if secret.starts_with("whpk_") { None } else { symmetric(secret).ok().map(|key| key.len()) }
}

/// The private key in a secret: `whsk_` and the base64 of it and of the public key.
#[cfg(feature = "sign")]
pub(crate) fn private_key(secret: &str) -> Option<Result<ed25519_dalek::SigningKey, &'static str>> {
    let base64 = secret.strip_prefix("whsk_")?;
    let bytes = STANDARD.decode(base64).ok();
    let seed = bytes.and_then(|bytes| bytes.first_chunk::<32>().copied());
    Some(seed.map(|seed| ed25519_dalek::SigningKey::from_bytes(&seed)).ok_or("is not base64"))
}

/// The headers of a request.
struct Parsed {
    id: String,
    /// The time as written.
    timestamp: String,
    signed_at: Timestamp,
    symmetric: Vec<Vec<u8>>,
    asymmetric: Vec<Vec<u8>>,
}

/// Checks the headers alone. Returns the signed time.
pub(crate) fn check_head(families: &[String], head: Head<'_>) -> Result<Timestamp, Rejection> {
    parse(families, head).map(|parsed| parsed.signed_at)
}

/// Returns the evidence and the event's id.
pub(crate) fn verify(
    families: &[String],
    request: &Request<'_>,
    keys: &[(usize, Key)],
) -> Result<(Verified, String), Rejection> {
    let Parsed { id, timestamp, signed_at, symmetric, asymmetric } =
        parse(families, request.head())?;
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", request.body];
    // An HMAC with a public key as its secret must not count as a signature, and the reverse.
    let (secret, public): (Vec<_>, Vec<_>) = keys.iter().partition(|(_, key)| key.is_hmac());
    let secret = matching(secret, &signed, &symmetric)
        .or_else(|_| matching(public, &signed, &asymmetric))?;
    Ok((Verified { secret, signed_at: Some(signed_at) }, id))
}

fn parse(families: &[String], head: Head<'_>) -> Result<Parsed, Rejection> {
    let sent = |family: &&String| !head.headers.all(&format!("{family}-id")).is_empty();
    let family = families.iter().find(sent).or(families.first()).map_or("webhook", String::as_str);
    let [id_header, timestamp_header, signature_header] =
        ["id", "timestamp", "signature"].map(|name| format!("{family}-{name}"));
    let id = head.required_header(&id_header)?;
    let timestamp = head.required_header(&timestamp_header)?;
    let list = head.required_header(&signature_header)?;

    let signed_at = parse_time(&timestamp, TimeUnit::Seconds).ok_or_else(|| {
        rejected(
            Reason::MalformedHeader,
            format!("{timestamp_header} is not Unix seconds, in 10 digits"),
        )
    })?;
    if list.split(' ').count() > limits::SIGNATURES {
        let detail = format!("{signature_header} has too many signatures");
        return Err(rejected(Reason::MalformedHeader, detail));
    }
    let signatures = |version: &str| -> Vec<Vec<u8>> {
        let entries = list.split(' ').filter_map(|entry| entry.strip_prefix(version));
        entries.filter_map(|base64| STANDARD.decode(base64).ok()).collect()
    };
    let (symmetric, asymmetric) = (signatures("v1,"), signatures("v1a,"));
    if symmetric.is_empty() && asymmetric.is_empty() {
        let detail = format!("{signature_header} has no v1 signature");
        return Err(rejected(Reason::NoMatchingSignature, detail));
    }
    let (id, timestamp) = (id.into_owned(), timestamp.into_owned());
    Ok(Parsed { id, timestamp, signed_at, symmetric, asymmetric })
}
