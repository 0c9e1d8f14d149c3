//! What the APIs that batches are sent to have in common.

use std::fmt::Debug;
use std::time::Duration;

use hookmill_core::config;
use hookmill_core::outbound::{ApiRequest, ApiResponse, SendResult};
use hookmill_core::secret::Secret;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// An API that takes sealed batches: how it is asked, and what its answers mean. Pure; somebody else sends the requests.
pub trait Api: Debug + Send + Sync {
    /// The provider's name in the database, and in hookmill.toml if it stands there.
    fn name(&self) -> &'static str;

    /// For how long the provider recognizes a batch that it has had: by the idempotency key that goes with it, or by the ids in
    /// it. Within this time, sending the batch again does no harm. `None`: it recognizes nothing, so a batch whose answer was
    /// lost may have been sent.
    fn recognizes_for(&self) -> Option<Duration>;

    /// The most members of a batch.
    fn max_batch(&self) -> usize;

    /// The request that sends a batch.
    fn request(&self, batch: &Sealed<'_>) -> ApiRequest;

    /// What the provider has done with a batch of so many members.
    fn answer(&self, members: usize, response: &ApiResponse) -> SendResult;

    /// To how many recipients each of so many members of a batch goes, as the provider counts them.
    fn recipients(&self, members: usize, _body: &str) -> Vec<usize> {
        vec![1; members]
    }
}

/// A static API is one like any other.
impl<A: Api + ?Sized> Api for &'static A {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn recognizes_for(&self) -> Option<Duration> {
        (**self).recognizes_for()
    }

    fn max_batch(&self) -> usize {
        (**self).max_batch()
    }

    fn request(&self, batch: &Sealed<'_>) -> ApiRequest {
        (**self).request(batch)
    }

    fn answer(&self, members: usize, response: &ApiResponse) -> SendResult {
        (**self).answer(members, response)
    }

    fn recipients(&self, members: usize, body: &str) -> Vec<usize> {
        (**self).recipients(members, body)
    }
}

/// A sealed batch, and what is needed to send it.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    /// The channel that it goes out through.
    pub channel: &'static str,
    /// What tells it from every other batch: 64 hexadecimal digits. The idempotency key, where the provider supports one.
    pub id: &'a str,
    /// The body, as it was sealed.
    pub body: &'a str,
    /// What hookmill.toml says of the API.
    pub settings: &'a config::Api,
    /// What opens the API.
    pub key: &'a Secret,
}

impl Sealed<'_> {
    /// A URL of the API.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.url.trim_end_matches('/'))
    }
}

/// The name that providers are told an email's id by, as a tag or an argument, so that they say it in their reports.
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
pub(crate) fn not_taken(response: &ApiResponse, error: String) -> SendResult {
    match response.status {
        429 => {
            let after = response.retry_after.as_ref().and_then(|text| text.trim().parse().ok());
            SendResult::Busy { after: after.map(Duration::from_secs), error }
        }
        // It has not begun: <https://www.rfc-editor.org/rfc/rfc9110#section-15.6.4>.
        408 | 503 => SendResult::Unavailable(error),
        500.. => SendResult::Uncertain(error),
        400 | 413 | 422 => SendResult::Malformed(error),
        _ => SendResult::Refused(error),
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

#[cfg(test)]
pub(crate) mod tests {
    use hookmill_core::outbound::{Provider, Transport};
    use hookmill_core::secret::SecretName;

    use super::*;

    /// The request that an API makes of a body, with the provider's own settings.
    pub(crate) fn request(api: &dyn Api, provider: Provider, body: &str) -> ApiRequest {
        let facts = provider.facts();
        let settings = config::Api {
            provider,
            key: SecretName("KEY".into()),
            url: match facts.transport {
                Transport::Https { url } => format!("{url}/"),
                Transport::Smtp => "smtps://mail.example.com:465".to_owned(),
            },
            rate: facts.rate,
            user: None,
        };
        let key = Secret::from("phc_\"key");
        let sealed =
            Sealed { channel: "email", id: "batch-1", body, settings: &settings, key: &key };
        api.request(&sealed)
    }
}
