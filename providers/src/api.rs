//! The common interface of APIs that accept batches.

use std::fmt::Debug;
use std::time::Duration;

use hookmill_core::outbound::{ApiRequest, ApiResponse, SendResult};
use hookmill_core::secret::Secret;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// An API that accepts sealed batches: its requests, and the meaning of its responses. Pure; the caller sends the requests.
pub trait Api: Debug + Send + Sync {
    /// The provider's name in the database and in hookmill.toml.
    fn name(&self) -> &'static str;

    /// For how long the provider recognizes a batch that it has received, by its idempotency key or by the ids in it.
    /// Within this time, sending the batch again is harmless. `None`: after a lost response, delivery is uncertain.
    fn recognizes_for(&self) -> Option<Duration>;

    /// The maximum size of a batch.
    fn max_batch(&self) -> usize;

    /// The request that sends a batch.
    fn request(&self, batch: &Sealed<'_>) -> ApiRequest;

    /// The result of sending a batch of this size.
    fn answer(&self, members: usize, response: &ApiResponse) -> SendResult;

    /// The number of recipients of each of the batch's messages, as the provider counts them.
    fn recipients(&self, members: usize, _body: &str) -> Vec<usize> {
        vec![1; members]
    }
}

/// A reference to a static API is an API.
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

/// A sealed batch, and the settings to send it.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    /// Its channel.
    pub channel: &'static str,
    /// Its id: 64 hexadecimal digits. The idempotency key, if the provider supports one.
    pub id: &'a str,
    /// The sealed body.
    pub body: &'a str,
    /// The API's settings in hookmill.toml.
    pub settings: &'a hookmill_config::Api,
    /// The API's key.
    pub key: &'a Secret,
}

impl Sealed<'_> {
    /// A URL of the API.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.url.trim_end_matches('/'))
    }
}

/// The name of the tag or argument with an email's id, which providers return in their reports.
pub(crate) const EMAIL_ID: &str = "hookmill";

/// The maximum length of a stored message from a provider, in characters.
const WORDS: usize = 500;

/// A message from a provider, shortened and without recipients: providers quote addresses and numbers, and errors appear in
/// logs.
pub(crate) fn kept(words: &str) -> String {
    shortened(&without_recipients(words))
}

/// A message that is kept beside the recipients, such as a list of them.
pub(crate) fn shortened(words: &str) -> String {
    words.chars().take(WORDS).collect()
}

/// A text in which `[recipient]` replaces email addresses and phone numbers.
fn without_recipients(words: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "<>()[]{},;:\"'`|=&".contains(c);
    let mut text = String::with_capacity(words.len());
    for part in words.split_inclusive(ends) {
        let word = part.trim_end_matches(ends);
        let is_number = || {
            let word = word.trim_end_matches(['.', '!', '?']);
            let digits = word.strip_prefix('+').or(word.strip_prefix("%2B"));
            let least = if digits.is_some() { 7 } else { 10 };
            let digits = digits.unwrap_or(word);
            digits.len() >= least && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        if word.contains('@') || word.contains("%40") || is_number() {
            text.push_str("[recipient]");
            text.push_str(&part[word.len()..]);
        } else {
            text.push_str(part);
        }
    }
    text
}

/// An email's recipients, for counting.
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

/// The result of an unsuccessful response whose status is sufficient: <https://www.rfc-editor.org/rfc/rfc9110#section-15>.
pub(crate) fn not_taken(response: &ApiResponse, error: String) -> SendResult {
    match response.status {
        429 => {
            let after = response.retry_after.as_ref().and_then(|text| text.trim().parse().ok());
            SendResult::Busy { after: after.map(Duration::from_secs), error }
        }
        // The provider did not process the request: <https://www.rfc-editor.org/rfc/rfc9110#section-15.6.4>.
        408 | 503 => SendResult::Unavailable(error),
        500.. => SendResult::Uncertain(error),
        400 | 413 | 422 => SendResult::Malformed(error),
        _ => SendResult::Refused(error),
    }
}

/// The first line of a response that is neither JSON nor HTML.
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

    #[test]
    fn recipients_are_not_kept() {
        for (words, expected) in [
            ("Invalid `to` field: bad@x.test.", "Invalid `to` field: [recipient]"),
            ("550 <Ines@Example.test>: unknown", "550 <[recipient]>: unknown"),
            ("{\"email\":\"a@b.test\",\"n\":1}", "{\"email\":\"[recipient]\",\"n\":1}"),
            (
                "21211: The 'To' number +15550100002 is not valid",
                "21211: The 'To' number [recipient] is not valid",
            ),
            ("To=%2B15550100002&Cc=a%40b.test", "To=[recipient]&Cc=[recipient]"),
            ("number 15550100002.", "number [recipient]"),
            ("code 20003, 3 of 100 in 3600 s", "code 20003, 3 of 100 in 3600 s"),
            ("ver\u{e4}ndert \u{2014} ok", "ver\u{e4}ndert \u{2014} ok"),
        ] {
            assert_eq!(kept(words), expected);
        }
    }

    /// A request with this body to an API, with the provider's own settings.
    pub(crate) fn request(api: &dyn Api, provider: Provider, body: &str) -> ApiRequest {
        let facts = provider.facts();
        let settings = hookmill_config::Api {
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
