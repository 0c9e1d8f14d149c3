//! Verification and signing of webhooks, and the protocols of APIs for emails, SMS and tracking. Pure: it takes a request,
//! keys and `now`, and returns the evidence and the events.
//!
//! Most schemes are parameters of one engine, `template`; each other scheme has a file with a link to the provider's page.
//! This module has the common parts: the keys of a source ([`Verifier`]), freshness, and the identity of an event.

pub mod api;
mod challenge;
pub mod email;
mod form;
mod identity;
mod key;
mod paddle_classic;
#[cfg(feature = "sign")]
mod sign;
pub mod sms;
mod standard_webhooks;
mod template;
pub mod track;
mod twilio;

use std::borrow::Cow;
use std::collections::BTreeMap;

use hookmill_config::scheme::{Answer, Scheme, Tolerance};
use hookmill_config::{SecretRef, Source};
use hookmill_core::limits;
use hookmill_core::message::Verified;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::{Head, Request};
use hookmill_core::secret::{ExposeSecret, Secret, SecretName};
use hookmill_core::time::Timestamp;
use hookmill_rules::{Slot, Values};
use thiserror::Error;

use crate::key::Key;
#[cfg(feature = "sign")]
pub use crate::sign::{Development, Signed, UnsignedEvent, development, development_token, sign};

/// A source with its keys, ready to verify.
#[derive(Debug)]
pub struct Verifier {
    source: Source,
    /// Each key with the index of its secret in hookmill.toml.
    keys: Vec<(usize, Key)>,
    /// The first secret that is too short, if there is one.
    short: Option<KeyError>,
    /// The token of a challenge.
    challenge_token: Option<Secret>,
}

/// The content of a verified request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admitted<'r> {
    /// Events; none if the provider sent an empty list.
    Events(Verified, Vec<Event<'r>>),
    /// A handshake: no event, but a response that the provider needs.
    Handshake(Answer),
}

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event<'r> {
    /// Its id; the same on every redelivery.
    pub id: String,
    /// The provider's type.
    pub kind: String,
    /// The API version that it states: see [`hookmill_core::api_version`].
    pub api_version: Option<String>,
    /// Its body: the request's, its part of that, or a form as JSON.
    pub body: Cow<'r, [u8]>,
}

/// Why a source cannot verify requests. Names secrets, and never contains them.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum KeyError {
    /// None of the secrets is set.
    #[error("source `{source_name}`: none of its secrets is set ({names})")]
    NoneSet {
        /// The source.
        source_name: String,
        /// The names of the secrets.
        names: String,
    },
    /// The token of the challenge is not set.
    #[error("source `{source_name}`: `challenge_token` is not set ({name})")]
    NoToken {
        /// The source.
        source_name: String,
        /// The name of the secret.
        name: String,
    },
    /// A secret is set and not valid.
    #[error("source `{source_name}`: {name} {problem}")]
    Unusable {
        /// The source.
        source_name: String,
        /// The secret.
        name: String,
        /// The problem.
        problem: &'static str,
    },
    /// A secret is set, and so short that it can be guessed.
    #[error(
        "source `{source_name}`: {name} has {bytes} bytes; a secret needs at least {SECRET_BYTES}, or it can be guessed"
    )]
    Short {
        /// The source.
        source_name: String,
        /// The secret.
        name: String,
        /// The length of its key.
        bytes: usize,
    },
}

/// The minimum length of a secret key or token: 128 bits.
pub const SECRET_BYTES: usize = 16;

impl Verifier {
    /// Loads the keys of a source. `lookup` finds a secret by name.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if no secret is set, or one could never verify; above all a blank one, with which anyone could sign.
    pub fn new(
        source: &Source,
        lookup: impl Fn(&SecretName) -> Option<Secret>,
    ) -> Result<Self, KeyError> {
        let (mut made, mut short) = (Vec::new(), None);
        for (index, SecretRef { name, .. }) in source.secrets.iter().enumerate() {
            let Some(secret) = lookup(name) else { continue };
            let keys = keys(&source.scheme, &secret).map_err(|problem| KeyError::Unusable {
                source_name: source.name.clone(),
                name: name.0.clone(),
                problem,
            })?;
            made.extend(keys.into_iter().map(|key| (index, key)));
            if let Some(bytes) = secret_bytes(&source.scheme, &secret).filter(|n| *n < SECRET_BYTES)
            {
                let (source_name, name) = (source.name.clone(), name.0.clone());
                short.get_or_insert(KeyError::Short { source_name, name, bytes });
            }
        }
        if made.is_empty() {
            let names: Vec<_> =
                source.secrets.iter().map(|secret| secret.name.0.as_str()).collect();
            return Err(KeyError::NoneSet {
                source_name: source.name.clone(),
                names: names.join(", "),
            });
        }
        let token = source.challenge_token.as_ref().map(|name| {
            let set = lookup(name).filter(|token| !token.expose_secret().trim().is_empty());
            set.ok_or_else(|| KeyError::NoToken {
                source_name: source.name.clone(),
                name: name.0.clone(),
            })
        });
        Ok(Self { source: source.clone(), keys: made, short, challenge_token: token.transpose()? })
    }

    /// The verifier, for requests from anyone.
    ///
    /// # Errors
    ///
    /// [`KeyError::Short`].
    pub fn not_guessable(self) -> Result<Self, KeyError> {
        match self.short {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// Why a secret can be guessed, if one can.
    pub const fn guessable(&self) -> Option<&KeyError> {
        self.short.as_ref()
    }

    /// The source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The headers that the events of a request keep for rules, by their names in lower case.
    pub fn kept_headers(&self, request: &Request<'_>) -> BTreeMap<String, String> {
        if !cfg!(feature = "headers") {
            return BTreeMap::new();
        }
        let head = request.head();
        let kept = self.source.keep_headers.iter().filter_map(|name| {
            let mut value = head.joined_header(name)?;
            if value.len() > MAX_KEPT_HEADER {
                value.truncate(value.floor_char_boundary(MAX_KEPT_HEADER));
                value.push(char::REPLACEMENT_CHARACTER);
            }
            Some((name.clone(), value))
        });
        kept.collect()
    }

    /// Whether every secret has expired, so that no request can be verified.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.keys.iter().all(|(index, _)| self.source.secrets[*index].expired(now))
    }

    /// The response to an unsigned request by which the provider checks the URL; `None` if this is another request.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidChallenge`].
    pub fn challenge(&self, head: Head<'_>) -> Option<Result<Answer, Rejection>> {
        if !cfg!(feature = "challenges") {
            return None;
        }
        let token = self.challenge_token.as_ref().map(|token| token.expose_secret().trim());
        challenge::answer(self.source.challenge.as_ref()?, token, head)
    }

    /// Checks what can be checked without the body: the headers that the scheme needs, the signed time if it is in a
    /// header, and a token. A server calls it before it reads the body, so that an unsigned request costs no memory.
    ///
    /// It rejects no request that [`Verifier::verify`] accepts, and the reason is the same, except for a request with
    /// several problems: here, the signed time is checked before the signature.
    ///
    /// # Errors
    ///
    /// As [`Verifier::verify`].
    pub fn check_head(&self, head: Head<'_>, now: Timestamp) -> Result<(), Rejection> {
        let signed_at = match &self.source.scheme {
            Scheme::Template(template) => {
                let public_url = self.source.public_url.as_deref();
                template::check_head(template, public_url, head, &self.keys(now))?
            }
            Scheme::StandardWebhooks { families, .. } => {
                Some(standard_webhooks::check_head(families, head)?)
            }
            Scheme::Twilio => return twilio::check_head(head),
            Scheme::PaddleClassic => None,
        };
        self.check_freshness(signed_at, now)
    }

    /// Checks the signature alone, not its age or the body's content.
    ///
    /// # Errors
    ///
    /// As [`Verifier::verify`].
    pub fn verify_signature(
        &self,
        request: &Request<'_>,
        now: Timestamp,
    ) -> Result<Verified, Rejection> {
        let keys = self.keys(now);
        let public_url = self.source.public_url.as_deref();
        match &self.source.scheme {
            Scheme::Template(template) => {
                template::verify(template, public_url, request, &keys).map(|proof| proof.verified)
            }
            Scheme::StandardWebhooks { families, .. } => {
                standard_webhooks::verify(families, request, &keys).map(|(verified, _)| verified)
            }
            Scheme::Twilio => {
                let url = public_url.unwrap_or_default();
                twilio::verify(url, request, &keys).map(|(verified, _)| verified)
            }
            Scheme::PaddleClassic => {
                paddle_classic::verify(request, &keys).map(|(verified, _)| verified)
            }
        }
    }

    /// The keys that have not expired. A replaced secret expires on the configured day.
    fn keys(&self, now: Timestamp) -> Cow<'_, [(usize, Key)]> {
        let source = &self.source;
        if source.secrets.iter().any(|secret| secret.expired(now)) {
            let valid = |(index, _): &&(usize, Key)| !source.secrets[*index].expired(now);
            self.keys.iter().filter(valid).cloned().collect()
        } else {
            Cow::Borrowed(&self.keys)
        }
    }

    /// Verifies a request: first the signature over the raw bytes, then its age, then the events.
    ///
    /// # Errors
    ///
    /// [`Rejection`] with the reason; its detail never contains a secret, a signature or a part of the body.
    pub fn verify<'r>(
        &self,
        request: &Request<'r>,
        now: Timestamp,
    ) -> Result<Admitted<'r>, Rejection> {
        let source = &self.source;
        let keys = self.keys(now);
        let public_url = source.public_url.as_deref();
        let (verified, events) = match &source.scheme {
            Scheme::Template(template) => {
                let proof = template::verify(template, public_url, request, &keys)?;
                self.check_freshness(proof.verified.signed_at, now)?;
                let hmac = |text: &str| {
                    let (_, key) =
                        keys.iter().find(|(index, _)| *index == proof.verified.secret)?;
                    let tag = key.tag(&[text.as_bytes()])?;
                    Some(template::encode(template.signature.encoding, &tag))
                };
                if let Some(answer) = identity::handshake(&source.events, request, hmac) {
                    return Ok(Admitted::Handshake(answer));
                }
                let signed: Vec<&[u8]> = proof.signed.iter().map(|part| &**part).collect();
                (proof.verified, identity::events(&source.events, request, None, &signed)?)
            }
            Scheme::StandardWebhooks { families, .. } => {
                let (verified, id) = standard_webhooks::verify(families, request, &keys)?;
                self.check_freshness(verified.signed_at, now)?;
                (verified, identity::events(&source.events, request, Some(id), &[])?)
            }
            Scheme::Twilio => {
                let url = public_url.unwrap_or_default();
                match twilio::verify(url, request, &keys)? {
                    (verified, twilio::Content::Form(fields)) => {
                        (verified, vec![twilio::identify(&fields)])
                    }
                    (verified, twilio::Content::Json) => {
                        (verified, identity::events(&source.events, request, None, &[])?)
                    }
                }
            }
            Scheme::PaddleClassic => {
                let (verified, event) = paddle_classic::verify(request, &keys)?;
                (verified, vec![event])
            }
        };
        for event in &events {
            check_name("id", &event.id)?;
            check_name("type", &event.kind)?;
        }
        Ok(Admitted::Events(verified, events))
    }

    /// Compares whole seconds, as the providers' libraries do; both limits are inclusive.
    fn check_freshness(
        &self,
        signed_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let (Some(signed_at), Some(tolerance)) = (signed_at, self.source.tolerance) else {
            return Ok(());
        };
        let age = now.seconds().saturating_sub(signed_at.seconds());
        let ahead = age.saturating_neg();
        let seconds =
            |limit: std::time::Duration| i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        let Tolerance { past, future } = tolerance;
        let (too_old, too_new) = (seconds(past), seconds(future));
        if age > too_old {
            let detail =
                format!("the signature is {age} s old; this source accepts at most {too_old} s");
            return Err(rejected(Reason::TimestampTooOld, detail));
        }
        if ahead > too_new {
            let detail = format!(
                "the signature is {ahead} s in the future; this source accepts at most {too_new} s"
            );
            return Err(rejected(Reason::TimestampInFuture, detail));
        }
        Ok(())
    }
}

/// The keys of a secret in a scheme, or the problem with the secret.
fn keys(scheme: &Scheme, secret: &Secret) -> Result<Vec<Key>, &'static str> {
    let secret = secret.expose_secret().trim();
    if secret.is_empty() {
        return Err("is set but blank");
    }
    Ok(match scheme {
        Scheme::Template(template) => vec![Key::new(template.algorithm, template.key, secret)?],
        Scheme::StandardWebhooks { asymmetric, .. } => {
            vec![standard_webhooks::key(*asymmetric, secret)?]
        }
        Scheme::Twilio => twilio::keys(secret)?.into(),
        Scheme::PaddleClassic => vec![Key::rsa_sha1(secret)?],
    })
}

/// The length of a secret key or token; `None` for a public key.
fn secret_bytes(scheme: &Scheme, secret: &Secret) -> Option<usize> {
    let secret = secret.expose_secret().trim();
    match scheme {
        Scheme::Template(template) => {
            template.algorithm.is_secret().then(|| key::length(template.key, secret))
        }
        Scheme::StandardWebhooks { .. } => standard_webhooks::key_bytes(secret),
        Scheme::Twilio => Some(secret.len()),
        Scheme::PaddleClassic => None,
    }
}

fn rejected(reason: Reason, detail: impl Into<String>) -> Rejection {
    Rejection::new(reason, detail)
}

/// A body without the byte order mark that some senders put before JSON, and sign:
/// <https://www.rfc-editor.org/rfc/rfc8259#section-8.1>.
fn unmarked(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// The URL that the provider called: the configured one, with the query of the request.
fn url(public_url: Option<&str>, query: Option<&str>) -> String {
    let public_url = public_url.unwrap_or_default();
    match query {
        Some(query) => format!("{public_url}?{query}"),
        None => public_url.to_owned(),
    }
}

/// A URL with some characters unescaped. Source: <https://developers.hubspot.com/docs/api/webhooks/validating-requests>,
/// version 3.
fn plain(url: &str) -> String {
    const PLAIN: &[u8] = b":/?@!$'()*,;";
    let mut plain = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let escaped = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped.filter(|byte| PLAIN.contains(byte)) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            None => {
                plain.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    plain + rest
}

/// The maximum length in bytes of a header that is kept: a message has little room. The rest of a longer one becomes U+FFFD.
const MAX_KEPT_HEADER: usize = 1024;

/// The text of a string, or a number as written.
fn member_text(slot: Slot, values: &Values<'_>) -> Option<String> {
    let json = slot.value(values)?;
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok(),
        b'-' | b'0'..=b'9' => Some(json.to_owned()),
        _ => None,
    }
}

/// A name becomes a key in SQL, a field in a log and a part of a URL.
fn check_name(what: &str, name: &str) -> Result<(), Rejection> {
    let problem = if name.is_empty() {
        "is blank".to_owned()
    } else if name.len() > limits::NAME_BYTES {
        format!("has {} bytes; the maximum is {}", name.len(), limits::NAME_BYTES)
    } else if name.chars().any(char::is_control) {
        "has control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(rejected(Reason::MalformedEvent, format!("the event's {what} {problem}")))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn some_characters_of_a_url_are_unescaped() {
        for (url, expected) in [
            (
                "https://a.test/b?c=%3A%2f%3F%40%21%24%27%28%29%2A%2C%3B",
                "https://a.test/b?c=:/?@!$'()*,;",
            ),
            ("?a=%20b%26%25%3Dc+d", "?a=%20b%26%25%3Dc+d"),
            ("?a=%253A", "?a=%253A"),
            ("?%&%3&%+3A&%é%", "?%&%3&%+3A&%é%"),
        ] {
            assert_eq!(plain(url), expected);
        }
    }
}
