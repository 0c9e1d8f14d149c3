//! Why a request was rejected: a stable reason for programs, and a sentence for people.

use crate::words;

words! {
    /// The reason of a rejection. The text form is stable: responses, metrics and documents contain it.
    pub enum Reason {
        /// A header that the scheme requires is missing.
        MissingHeader = "missing_header",
        /// A header is invalid: repeated, not text, or malformed.
        MalformedHeader = "malformed_header",
        /// The signed time is older than the source's tolerance. If it is in a header, the signature has not been checked.
        TimestampTooOld = "timestamp_too_old",
        /// The signed time is further in the future than the source's tolerance. If it is in a header, the signature has not
        /// been checked.
        TimestampInFuture = "timestamp_in_future",
        /// No signature matches this body and one of the source's secrets.
        NoMatchingSignature = "no_matching_signature",
        /// The body exceeds the source's limit.
        BodyTooLarge = "body_too_large",
        /// The body did not arrive in time.
        BodyTimeout = "body_timeout",
        /// The body ended before it was complete.
        BodyIncomplete = "body_incomplete",
        /// The body has a `Content-Encoding` that the source does not accept.
        UnsupportedEncoding = "unsupported_encoding",
        /// The body is not what its `Content-Encoding` says.
        MalformedBody = "malformed_body",
        /// A request that checks the URL has a wrong token, or a value that cannot be its response.
        InvalidChallenge = "invalid_challenge",
        /// No source of this name is configured.
        UnknownSource = "unknown_source",
        /// Nothing is served at this path.
        NotFound = "not_found",
        /// The path exists, for another method.
        MethodNotAllowed = "method_not_allowed",
        /// The source has reached its `rate_limit`.
        RateLimited = "rate_limited",
        /// The signature is valid, and the body is not an event of this provider.
        MalformedEvent = "malformed_event",
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
