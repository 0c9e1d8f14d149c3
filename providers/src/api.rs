//! What the APIs that are sent to have in common.

use std::time::Duration;

use hookmill_core::email::Email;
use hookmill_core::outbound::{Answer, ApiResponse};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What providers are told an email's id by: a tag of Resend's, a custom argument of SendGrid's.
pub(crate) const EMAIL_ID: &str = "hookmill";

/// The longest that a provider's words are kept, in characters.
const WORDS: usize = 500;

/// A provider's words, as far as they are kept.
pub(crate) fn kept(words: &str) -> String {
    words.chars().take(WORDS).collect()
}

/// Whom an email goes to, as far as they are counted.
#[derive(Deserialize)]
pub(crate) struct Recipients {
    to: Vec<IgnoredAny>,
    #[serde(default)]
    cc: Vec<IgnoredAny>,
}

impl Recipients {
    pub(crate) fn count(&self) -> usize {
        self.to.len() + self.cc.len()
    }
}

/// What an answer comes to that is no success, where the status alone tells: <https://www.rfc-editor.org/rfc/rfc9110#section-15>.
pub(crate) fn not_taken(response: &ApiResponse, error: String) -> Answer {
    match response.status {
        429 => {
            let after = response.retry_after.as_ref().and_then(|text| text.trim().parse().ok());
            Answer::Busy { after: after.map(Duration::from_secs), error }
        }
        // It has not begun: <https://www.rfc-editor.org/rfc/rfc9110#section-15.6.4>.
        408 | 503 => Answer::Away(error),
        500.. => Answer::Unavailable(error),
        400 | 413 | 422 => Answer::Malformed(error),
        _ => Answer::Refused(error),
    }
}

/// What a provider has said, if it is neither JSON nor a page: its first line.
pub(crate) fn first_line(body: &str) -> String {
    let line = body.trim().lines().next().unwrap_or_default();
    if line.is_empty() || line.starts_with(['<', '{', '[']) {
        return String::new();
    }
    format!(": {}", line.chars().take(200).collect::<String>())
}

/// About how many bytes an email adds to a request.
pub(crate) fn length(email: &Email) -> usize {
    let recipients: usize = email.to.iter().chain(&email.cc).map(|to| to.address.len() + 100).sum();
    email.subject.len() + email.html.len() + email.text.len() + recipients + 500
}
