//! Paddle Classic: <https://developer.paddle.com/classic/reference/verifying-webhooks>.
//!
//! A form whose field `p_signature` is the base64 of an RSASSA-PKCS1-v1_5 signature with SHA-1 over all other fields, sorted
//! by name and written as PHP's `serialize` writes an array of strings. Lengths count bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookmill_core::message::Verified;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::Request;

use crate::form;
use crate::key::{Key, matching};
use crate::{Event, rejected};

const SIGNATURE: &str = "p_signature";

pub(crate) fn verify<'r>(
    request: &Request<'_>,
    keys: &[(usize, Key)],
) -> Result<(Verified, Event<'r>), Rejection> {
    if !cfg!(feature = "rsa") {
        // See `twilio::verify`.
        return Err(rejected(
            Reason::NoMatchingSignature,
            "this build does not support Paddle Classic",
        ));
    }
    let mut fields = form::fields(request.body)?;
    let mut signatures = fields.extract_if(.., |(name, _)| name == SIGNATURE);
    let signature = signatures.next();
    if signatures.next().is_some() {
        let detail = format!("the field {SIGNATURE} was sent more than once");
        return Err(rejected(Reason::MalformedEvent, detail));
    }
    drop(signatures);
    let Some((_, signature)) = signature else {
        return Err(rejected(Reason::MissingHeader, format!("the field {SIGNATURE} is missing")));
    };
    let signature: Vec<_> = STANDARD.decode(signature).into_iter().collect();
    let secret = matching(keys, &[&serialized(&fields)], &signature)?;
    let field = |wanted: &str| {
        let found = fields.iter().rev().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            rejected(Reason::MalformedEvent, format!("the field {wanted} is missing"))
        })
    };
    let (id, kind) = (field("alert_id")?, field("alert_name")?);
    Ok((
        Verified { secret, signed_at: None },
        Event { id, kind, api_version: None, body: form::to_json(&fields).into() },
    ))
}

/// The signed text of a form.
#[cfg(feature = "sign")]
pub(crate) fn signed(body: &[u8]) -> Result<Vec<u8>, Rejection> {
    form::fields(body).map(|fields| serialized(&fields))
}

/// PHP's `serialize` of the fields; of a repeated one, the last counts.
fn serialized(fields: &[(String, String)]) -> Vec<u8> {
    let fields = form::by_name(fields);
    let mut text = format!("a:{}:{{", fields.len());
    for (name, value) in fields {
        for part in [name, value] {
            text.push_str(&format!("s:{}:\"{part}\";", part.len()));
        }
    }
    text.push('}');
    text.into_bytes()
}
