//! Signature schemes as data: how a source signs requests, and where they contain events.
//!
//! Most providers differ only in parameters: the header, the signed parts, the encodings. Those are a [`Template`]. Named
//! schemes (`scheme = "github"`) are such parameters in files, `core/config/schemes`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use hookmill_rules::{Reads, Slot};

/// How requests are signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// A signature over parts of the request.
    Template(Box<Template>),
    /// Standard Webhooks: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
    StandardWebhooks {
        /// The prefixes of the headers; a request uses the first that it has: `svix`, `webhook`.
        families: Vec<String>,
        /// Whether a secret may be a public key (`whpk_`).
        asymmetric: bool,
    },
    /// Twilio: <https://www.twilio.com/docs/usage/webhooks/webhooks-security>.
    Twilio,
    /// Paddle Classic: <https://developer.paddle.com/classic/reference/verifying-webhooks>.
    PaddleClassic,
}

/// The algorithm and the signed parts, for people: ``HMAC-SHA256 over `{timestamp}.{body}` ``.
impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let template = match self {
            Self::Template(template) => template,
            Self::StandardWebhooks { asymmetric, .. } => {
                f.write_str("HMAC-SHA256")?;
                f.write_str(if *asymmetric { " or Ed25519" } else { "" })?;
                return f.write_str(" over `{id}.{timestamp}.{body}`");
            }
            Self::Twilio => {
                return f.write_str("HMAC-SHA1 over the URL and the sorted fields of the form");
            }
            Self::PaddleClassic => return f.write_str("RSA with SHA-1 over the sorted fields"),
        };
        f.write_str(match template.algorithm {
            Algorithm::HmacSha1 => "HMAC-SHA1",
            Algorithm::HmacSha256 => "HMAC-SHA256",
            Algorithm::HmacSha512 => "HMAC-SHA512",
            Algorithm::Ed25519 => "Ed25519",
            Algorithm::EcdsaP256 => "ECDSA with P-256 and SHA-256",
            Algorithm::Token => return f.write_str("a token, and nothing is signed"),
        })?;
        f.write_str(" over `")?;
        template.payload.iter().try_for_each(|part| part.fmt(f))?;
        f.write_str("`")
    }
}

impl Scheme {
    /// Whether the signature covers the URL.
    pub fn signs_url(&self) -> bool {
        match self {
            Self::Template(template) => {
                template.payload.iter().any(|part| matches!(part, Part::Url | Part::PlainUrl))
            }
            Self::Twilio => true,
            Self::StandardWebhooks { .. } | Self::PaddleClassic => false,
        }
    }

    /// Whether a signature proves only that the request is the provider's, and does not cover the body.
    ///
    /// Such a signature is valid with any body, so it may count for one event only. Tokens are excluded: they sign nothing.
    pub fn leaves_body_open(&self) -> bool {
        match self {
            Self::Template(template) => {
                template.algorithm != Algorithm::Token && !template.payload.contains(&Part::Body)
            }
            Self::StandardWebhooks { .. } | Self::Twilio | Self::PaddleClassic => false,
        }
    }

    /// The feature of `hookmill-providers` and of the ingress Worker that it needs, if it needs one.
    pub fn feature(&self) -> Option<&'static str> {
        match self {
            Self::Template(template) => match template.algorithm {
                Algorithm::Ed25519 => Some("ed25519"),
                Algorithm::EcdsaP256 => Some("ecdsa"),
                Algorithm::HmacSha512 => Some("sha512"),
                Algorithm::HmacSha1 | Algorithm::HmacSha256 | Algorithm::Token => None,
            },
            Self::StandardWebhooks { asymmetric, .. } => asymmetric.then_some("ed25519"),
            Self::PaddleClassic => Some("rsa"),
            Self::Twilio => Some("twilio"),
        }
    }

    /// Whether its secrets are public keys, which cannot sign.
    pub fn has_public_keys(&self) -> bool {
        match self {
            Self::Template(template) => !template.algorithm.is_secret(),
            Self::PaddleClassic => true,
            Self::StandardWebhooks { .. } | Self::Twilio => false,
        }
    }
}

/// A signature over parts of the request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Template {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The form of the key in the secret.
    pub key: KeyForm,
    /// The location of the signature.
    pub signature: SignatureAt,
    /// The location of the signed time, if there is one.
    pub timestamp: Option<TimeAt>,
    /// The signed parts, in order.
    pub payload: Vec<Part>,
    /// The paths of [`Place::Body`] and [`Part::Body`] in the body before verification.
    pub reads: Reads,
}

/// The algorithm of a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// HMAC (RFC 2104) with SHA-1.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-512.
    HmacSha512,
    /// Ed25519 (RFC 8032); the secret is a public key.
    Ed25519,
    /// ECDSA over P-256 with SHA-256, in DER; the secret is a public key.
    EcdsaP256,
    /// None: the request contains the secret itself.
    Token,
}

impl Algorithm {
    /// Whether the sender and Hookmill share a secret, in contrast to a key pair.
    pub const fn is_secret(self) -> bool {
        match self {
            Self::HmacSha1 | Self::HmacSha256 | Self::HmacSha512 | Self::Token => true,
            Self::Ed25519 | Self::EcdsaP256 => false,
        }
    }
}

/// The form of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyForm {
    /// The bytes of the text.
    #[default]
    Text,
    /// Hexadecimal.
    Hex,
    /// Base64.
    Base64,
}

/// The form of a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Lower-case hexadecimal.
    Hex,
    /// Base64 with padding.
    Base64,
    /// Plain text.
    Text,
}

/// The location of a signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignatureAt {
    /// The header or the member of the body.
    pub place: Place,
    /// A prefix before it.
    pub prefix: String,
    /// Its form.
    pub encoding: Encoding,
    /// If the header is a list: the separator of its members. If they are `key=value`: the key of the signatures; otherwise
    /// each member is a signature.
    pub list: Option<(char, Option<String>)>,
}

/// A location in a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A header: the first of these names that a request has.
    Header(Vec<String>),
    /// The member with this key in the list that contains the signature.
    Member(String),
    /// A path in the body, and its text for messages.
    Body(Slot, String),
}

/// The location of a time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimeAt {
    /// The location.
    pub place: Place,
    /// Its form.
    pub unit: TimeUnit,
    /// Whether it must be a JSON number; otherwise it may also be a text.
    pub number: bool,
}

/// The form of a time. In no form can a time begin with another time, so the text after a time in a payload cannot pass for
/// a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Seconds since the Unix epoch, in 10 digits: enough until the year 2286.
    #[default]
    Seconds,
    /// Milliseconds since the Unix epoch, in 13 digits.
    Milliseconds,
    /// RFC 3339, as in ISO 8601. Its offset ends it.
    Rfc3339,
}

/// A signed part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// These bytes.
    Literal(String),
    /// The time, as the request writes it.
    Timestamp,
    /// The method, upper case.
    Method,
    /// `public_url`, and the query of the request.
    Url,
    /// The same, with ``:/?@!$'()*,;`` unescaped.
    PlainUrl,
    /// The body.
    Body,
    /// A header's value, and its length in bytes if that is fixed.
    Header(String, Option<usize>),
    /// A member of the body: the text of a string, or a number as written; and its path for messages.
    Member(Slot, String),
}

impl Part {
    /// Whether its length is fixed.
    const fn has_fixed_length(&self) -> bool {
        match self {
            // Providers only POST to a template's source.
            Self::Literal(_) | Self::Timestamp | Self::Method | Self::Header(_, Some(_)) => true,
            Self::Url | Self::PlainUrl | Self::Body | Self::Header(_, None) | Self::Member(..) => {
                false
            }
        }
    }
}

/// As hookmill.toml writes it.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Timestamp => f.write_str("{timestamp}"),
            Self::Method => f.write_str("{method}"),
            Self::Url => f.write_str("{url}"),
            Self::PlainUrl => f.write_str("{plain_url}"),
            Self::Body => f.write_str("{body}"),
            Self::Header(name, None) => write!(f, "{{header:{name}}}"),
            Self::Header(name, Some(length)) => write!(f, "{{header:{name}:{length}}}"),
            Self::Member(_, path) => write!(f, "{{body:{path}}}"),
        }
    }
}

/// Adjacent parts of variable length without fixed characters between them. A signature over them does not determine where
/// the first ends.
pub fn unseparated(payload: &[Part]) -> impl Iterator<Item = (&Part, &Part)> {
    let mut open: Option<&Part> = None;
    payload.iter().filter_map(move |part| match part {
        Part::Literal(_) => {
            open = None;
            None
        }
        part if part.has_fixed_length() => None,
        part => open.replace(part).map(|first| (first, part)),
    })
}

/// The events of a verified request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Events {
    /// The paths that are read in each event.
    pub reads: Reads,
    /// The parts of an event's id, joined with periods.
    pub id: Vec<NamePart>,
    /// The parts of its type, joined with periods: the first, and the others that exist.
    pub kind: Vec<NamePart>,
    /// The type if no part exists.
    pub default_kind: Option<String>,
    /// The API version, if the provider states it.
    pub api_version: Option<NamePart>,
    /// Whether the body is a list of events, or has one on each line.
    pub many: bool,
    /// Whether the id is combined with a hash of the body: the signature covers the body and not the id. With the hash, an
    /// attacker cannot send the body of one event under the id of another.
    pub hash: bool,
    /// Whether the body must be a JSON object: the provider always sends one, and signs other requests with the same secret.
    pub object: bool,
    /// Requests that are not events and need their own response.
    pub handshakes: Vec<Handshake>,
}

/// A part of an event's id or type.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamePart {
    /// A header.
    Header(String),
    /// A path in the event, and its text for messages.
    Body(Slot, String),
    /// The SHA-256 of the event's body.
    BodyHash,
    /// The SHA-256 of the signed bytes: one signature is one event.
    SignedHash,
    /// The first of these that exists.
    Either(Vec<NamePart>),
}

/// A request that is not an event: a challenge, a ping.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Handshake {
    /// Paths, and the JSON texts that must be there.
    pub when: Vec<(Slot, String)>,
    /// A path at which there must be no value.
    pub unless: Option<Slot>,
    /// The response.
    pub answer: Answer,
    /// The member of the request that replaces `answer.body`, as text.
    pub echo: Option<Slot>,
    /// The members of a JSON object that replaces `answer.body` instead: texts with `{echo}` and `{hmac}`.
    pub json: Vec<(String, String)>,
}

/// An unsigned request by which a provider checks the URL, and that needs a response.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Challenge {
    /// The method: `GET` or `POST`.
    pub method: String,
    /// Parameters of the query, and their values.
    pub when: Vec<(String, String)>,
    /// The parameter that is the response.
    pub echo: String,
    /// The parameter with the token that the provider was given.
    pub token: Option<String>,
    /// The members of a JSON object that is the response instead: texts with `{echo}`.
    pub json: Vec<(String, String)>,
}

/// A response that a source needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The status; 2xx.
    pub status: u16,
    /// The type of the body.
    pub content_type: String,
    /// The body.
    pub body: String,
}

/// The tolerances for a signature's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tolerance {
    /// The maximum age.
    pub past: Duration,
    /// The maximum time ahead, since the sender's clock may be slightly off.
    pub future: Duration,
}
