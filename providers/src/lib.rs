//! Who signs webhooks how. Pure: a request, keys and `now` in; the evidence and the event's identity out.
//!
//! Each scheme is one file that names the provider's page and says how the signature is made. What they share is here:
//! the key of a source ([`Verifier`]), freshness, and what an event has to be called.

mod hmac;
mod standard_webhooks;
mod stripe;

use hookmill_core::config::{Scheme, Source};
use hookmill_core::limits;
use hookmill_core::message::Verified;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::Request;
use hookmill_core::secret::{ExposeSecret, Secret, SecretName};
use hookmill_core::time::Timestamp;
use serde::Deserialize;
use thiserror::Error;

use crate::hmac::HmacKey;

/// A source with its keys, ready to verify.
#[derive(Debug)]
pub struct Verifier {
    source: Source,
    /// Each key with the index of its secret in hookmill.toml.
    keys: Vec<(usize, HmacKey)>,
}

/// What a verified request is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The provider's id; from signed material, the same on every redelivery.
    pub id: String,
    /// The provider's type.
    pub kind: String,
}

/// Why a source cannot verify anything. Names secrets, never shows them.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum KeyError {
    /// None of the secrets is set.
    #[error("source `{source_name}`: none of its secrets is set ({names})")]
    NoneSet {
        /// The source.
        source_name: String,
        /// The secrets that were looked for.
        names: String,
    },
    /// A secret is set and cannot be used.
    #[error("source `{source_name}`: {name} {problem}")]
    Unusable {
        /// The source.
        source_name: String,
        /// The secret.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Verifier {
    /// Makes the keys of a source. `lookup` finds a secret by name.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if no secret is set, or one is set to something that could never verify: a blank one above all, with
    /// which anybody could sign.
    pub fn new(
        source: &Source,
        lookup: impl Fn(&SecretName) -> Option<Secret>,
    ) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (index, name) in source.secrets.iter().enumerate() {
            let Some(secret) = lookup(name) else { continue };
            let key = key(source.scheme, &secret).map_err(|problem| KeyError::Unusable {
                source_name: source.name.clone(),
                name: name.0.clone(),
                problem,
            })?;
            keys.push((index, key));
        }
        if keys.is_empty() {
            let names: Vec<_> = source.secrets.iter().map(|name| name.0.as_str()).collect();
            return Err(KeyError::NoneSet {
                source_name: source.name.clone(),
                names: names.join(", "),
            });
        }
        Ok(Self { source: source.clone(), keys })
    }

    /// The source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Verifies a request: the signature over the raw bytes first, then its age, then what it is about.
    ///
    /// # Errors
    ///
    /// [`Rejection`] with the reason; its detail never holds a secret, a signature or a part of the body.
    pub fn verify(
        &self,
        request: &Request<'_>,
        now: Timestamp,
    ) -> Result<(Verified, Event), Rejection> {
        let (verified, event) = match self.source.scheme {
            Scheme::Stripe => {
                let verified = stripe::verify(request, &self.keys)?;
                self.check_freshness(&verified, now)?;
                (verified, stripe::identify(request.body)?)
            }
            Scheme::StandardWebhooks => {
                let (verified, id) = standard_webhooks::verify(request, &self.keys)?;
                self.check_freshness(&verified, now)?;
                (verified, standard_webhooks::identify(id, request.body)?)
            }
        };
        check_name("id", &event.id)?;
        check_name("type", &event.kind)?;
        Ok((verified, event))
    }

    /// Compares whole seconds, as the providers' libraries do; both limits are inclusive.
    fn check_freshness(&self, verified: &Verified, now: Timestamp) -> Result<(), Rejection> {
        let Some(signed_at) = verified.signed_at else {
            return Ok(());
        };
        let age = now.seconds().saturating_sub(signed_at.seconds());
        let seconds =
            |tolerance: std::time::Duration| i64::try_from(tolerance.as_secs()).unwrap_or(i64::MAX);
        let too_old = seconds(self.source.tolerance);
        if age > too_old {
            let detail =
                format!("the signature is {age} s old, and this source accepts {too_old} s");
            return Err(Rejection::new(Reason::TimestampTooOld, detail));
        }
        let ahead = age.saturating_neg();
        match self.source.future_tolerance.map(seconds) {
            Some(too_new) if ahead > too_new => {
                let detail = format!(
                    "the signature is {ahead} s in the future, and this source accepts {too_new} s"
                );
                Err(Rejection::new(Reason::TimestampInFuture, detail))
            }
            _ => Ok(()),
        }
    }
}

fn key(scheme: Scheme, secret: &Secret) -> Result<HmacKey, &'static str> {
    let secret = secret.expose_secret().trim();
    if secret.is_empty() {
        return Err("is set, and blank");
    }
    match scheme {
        Scheme::Stripe => Ok(stripe::key(secret)),
        Scheme::StandardWebhooks => standard_webhooks::key(secret),
    }
}

/// Signs a body as the provider would. For `hookmill send` and for tests.
///
/// Returns the headers of the request.
///
/// # Errors
///
/// What is wrong with the secret.
pub fn sign(
    scheme: Scheme,
    secret: &Secret,
    id: &str,
    at: Timestamp,
    body: &[u8],
) -> Result<Vec<(&'static str, String)>, &'static str> {
    let key = key(scheme, secret)?;
    Ok(match scheme {
        Scheme::Stripe => stripe::sign(&key, at, body),
        Scheme::StandardWebhooks => standard_webhooks::sign(&key, id, at, body),
    })
}

/// The secret that `hookmill dev` uses where none is set. It is the same everywhere and thus no secret: it lets the
/// development loop run without any setup, and its text says what it is.
pub fn development_secret(scheme: Scheme, name: &SecretName) -> Secret {
    let label = format!("for-development-only-{}", name.0.to_lowercase());
    match scheme {
        Scheme::Stripe => format!("whsec_{label}").into(),
        Scheme::StandardWebhooks => standard_webhooks::secret_text(label.as_bytes()).into(),
    }
}

/// Reads members at the top of a JSON body, and no more of it than that; the whole is checked to be JSON.
fn top<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Rejection> {
    let malformed = |detail: String| Rejection::new(Reason::MalformedEvent, detail);
    let text = std::str::from_utf8(body).map_err(|_| malformed("the body is not UTF-8".into()))?;
    serde_json::from_str(text).map_err(|error| {
        malformed(if error.is_data() {
            "the body is JSON, and not an event of this provider".into()
        } else {
            format!("the body is not JSON (line {}, column {})", error.line(), error.column())
        })
    })
}

/// A name becomes a key in SQL, a line in a log and a part of a URL.
fn check_name(what: &str, name: &str) -> Result<(), Rejection> {
    let problem = if name.is_empty() {
        "is blank".to_owned()
    } else if name.len() > limits::NAME_BYTES {
        format!("is {} bytes long, and at most {} are taken", name.len(), limits::NAME_BYTES)
    } else if name.chars().any(char::is_control) {
        "has control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(Rejection::new(Reason::MalformedEvent, format!("the event's {what} {problem}")))
}

/// Finds the key that made one of the signatures, in constant time for each pair.
fn matching_key(
    keys: &[(usize, HmacKey)],
    signed: &[&[u8]],
    signatures: &[[u8; 32]],
) -> Result<usize, Rejection> {
    let matching = keys.iter().find(|(_, key)| key.made_any(signed, signatures));
    matching.map(|(index, _)| *index).ok_or_else(|| {
        Rejection::new(
            Reason::NoMatchingSignature,
            "the body was signed with another secret, or changed on its way",
        )
    })
}

/// A timestamp header: digits only, since a lenient parser would accept what was not signed.
fn unix_seconds(text: &str) -> Option<Timestamp> {
    if text.is_empty() || text.len() > 12 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().map(Timestamp::from_seconds)
}
