//! Why a request was rejected: a stable reason for programs, and a sentence for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The reason of a rejection. The text form is stable: responses, metrics and documents contain it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A header that the scheme requires is missing.
    MissingHeader,
    /// A header is invalid: repeated, not text, or malformed.
    MalformedHeader,
    /// The signature is valid, and older than the source's tolerance.
    TimestampTooOld,
    /// The signature is valid, and further in the future than the source's tolerance.
    TimestampInFuture,
    /// No signature matches this body and one of the source's secrets.
    NoMatchingSignature,
    /// The body exceeds the source's limit.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body ended before it was complete.
    BodyIncomplete,
    /// No source of this name is configured.
    UnknownSource,
    /// Nothing is served at this path.
    NotFound,
    /// The path exists, for another method.
    MethodNotAllowed,
    /// The source has reached its `rate_limit`.
    RateLimited,
    /// The signature is valid, and the body is not an event of this provider.
    MalformedEvent,
}

impl Reason {
    /// Every reason, for documents and tests.
    pub const ALL: [Self; 13] = [
        Self::MissingHeader,
        Self::MalformedHeader,
        Self::TimestampTooOld,
        Self::TimestampInFuture,
        Self::NoMatchingSignature,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::BodyIncomplete,
        Self::UnknownSource,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RateLimited,
        Self::MalformedEvent,
    ];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingHeader => "missing_header",
            Self::MalformedHeader => "malformed_header",
            Self::TimestampTooOld => "timestamp_too_old",
            Self::TimestampInFuture => "timestamp_in_future",
            Self::NoMatchingSignature => "no_matching_signature",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyIncomplete => "body_incomplete",
            Self::UnknownSource => "unknown_source",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RateLimited => "rate_limited",
            Self::MalformedEvent => "malformed_event",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rejection. `detail` never contains a secret, a signature or a part of a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// The stable reason.
    pub reason: Reason,
    /// One sentence for the person who set up the webhook.
    pub detail: String,
}

impl Rejection {
    /// A rejection with this reason and detail.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}
