//! Outgoing requests to providers' APIs, in batches, and their results.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::secret::{ExposeSecret as _, Secret};

/// The facts about a provider's API that hookmill.toml needs. Its file in `hookmill_providers` has all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Its name in hookmill.toml and in the database.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// The use of the API.
    pub purpose: Purpose,
    /// The protocol.
    pub transport: Transport,
    /// The default maximum number of requests in a second.
    pub rate: u32,
}

/// The protocol of a provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// HTTPS.
    Https {
        /// The default base URL.
        url: &'static str,
    },
    /// SMTP, which only the native binary speaks: <https://www.rfc-editor.org/rfc/rfc5321>. hookmill.toml names the server.
    Smtp,
}

/// The use of an API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Sending emails.
    Email,
    /// Sending SMS.
    Sms,
    /// Recording user events.
    Tracking,
    /// Fetching current objects.
    Objects,
}

/// Declares the providers: one entry each, and no other list.
macro_rules! providers {
    ($($(#[$doc:meta])* $variant:ident = $facts:expr;)*) => {
        /// A provider whose API Hookmill uses.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Provider {
            $($(#[$doc])* $variant,)*
        }

        impl Provider {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The facts that hookmill.toml needs.
            pub const fn facts(self) -> Facts {
                match self {
                    $(Self::$variant => $facts,)*
                }
            }
        }
    };
}

providers! {
    /// <https://resend.com>. Rate: <https://resend.com/docs/api-reference/introduction#rate-limit>.
    Resend = Facts {
        name: "resend",
        title: "Resend",
        purpose: Purpose::Email,
        transport: Transport::Https { url: "https://api.resend.com" },
        rate: 2,
    };
    /// <https://sendgrid.com>. Its limit is far above a pipeline's rate.
    SendGrid = Facts {
        name: "sendgrid",
        title: "SendGrid",
        purpose: Purpose::Email,
        transport: Transport::Https { url: "https://api.sendgrid.com" },
        rate: 100,
    };
    /// <https://postmarkapp.com>. It publishes no limit and answers 429 above it; a request may have 500 emails.
    Postmark = Facts {
        name: "postmark",
        title: "Postmark",
        purpose: Purpose::Email,
        transport: Transport::Https { url: "https://api.postmarkapp.com" },
        rate: 10,
    };
    /// Any SMTP server, such as Amazon SES. The rate is that of a new SES account outside its sandbox:
    /// <https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas.html>.
    Smtp = Facts {
        name: "smtp",
        title: "SMTP",
        purpose: Purpose::Email,
        transport: Transport::Smtp,
        rate: 10,
    };
    /// <https://www.twilio.com/docs/messaging>. Twilio queues messages above a number's rate.
    Twilio = Facts {
        name: "twilio",
        title: "Twilio",
        purpose: Purpose::Sms,
        transport: Transport::Https { url: "https://api.twilio.com" },
        rate: 10,
    };
    /// <https://mixpanel.com>. Its limit is far above a pipeline's rate.
    Mixpanel = Facts {
        name: "mixpanel",
        title: "Mixpanel",
        purpose: Purpose::Tracking,
        transport: Transport::Https { url: "https://api.mixpanel.com" },
        rate: 100,
    };
    /// <https://posthog.com>. Its limit is far above a pipeline's rate.
    PostHog = Facts {
        name: "posthog",
        title: "PostHog",
        purpose: Purpose::Tracking,
        transport: Transport::Https { url: "https://us.i.posthog.com" },
        rate: 100,
    };
    /// <https://docs.stripe.com/api>. Rate: 25 in a sandbox, <https://docs.stripe.com/rate-limits>.
    Stripe = Facts {
        name: "stripe",
        title: "Stripe",
        purpose: Purpose::Objects,
        transport: Transport::Https { url: "https://api.stripe.com" },
        rate: 20,
    };
    /// <https://clerk.com/docs/reference/backend-api>. Rate: 100 in ten seconds for a development instance,
    /// <https://clerk.com/docs/guides/how-clerk-works/system-limits>.
    Clerk = Facts {
        name: "clerk",
        title: "Clerk",
        purpose: Purpose::Objects,
        transport: Transport::Https { url: "https://api.clerk.com" },
        rate: 10,
    };
    /// <https://developer.paddle.com/api-reference>. Rate: 240 in a minute,
    /// <https://developer.paddle.com/api-reference/about/rate-limiting>.
    Paddle = Facts {
        name: "paddle",
        title: "Paddle",
        purpose: Purpose::Objects,
        transport: Transport::Https { url: "https://api.paddle.com" },
        rate: 4,
    };
}

impl Provider {
    /// Whether only the native binary can reach it.
    pub fn is_native_only(self) -> bool {
        self.facts().transport == Transport::Smtp
    }

    /// Its name in hookmill.toml and in the database.
    pub const fn as_str(self) -> &'static str {
        self.facts().name
    }

    /// The providers for this use, with their names.
    pub fn of(purpose: Purpose) -> Vec<(&'static str, Self)> {
        let providers = Self::ALL.iter().filter(|provider| provider.facts().purpose == purpose);
        providers.map(|provider| (provider.as_str(), *provider)).collect()
    }
}

/// The outcome of a message, as a provider reports it later. A greater outcome replaces a lesser one, so the order of the
/// reports does not matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Not delivered yet.
    Delayed,
    /// Delivered.
    Delivered,
    /// Opened by the recipient.
    Opened,
    /// The recipient followed a link.
    Clicked,
    /// The provider gave up.
    Failed,
    /// The recipient's server rejected it.
    Bounced,
    /// The recipient unsubscribed.
    Unsubscribed,
    /// The recipient reported it as spam.
    Complained,
}

impl Outcome {
    /// All of them, with their names in hookmill.toml and in the database.
    pub const ALL: [(&'static str, Self); 8] = [
        ("delayed", Self::Delayed),
        ("delivered", Self::Delivered),
        ("opened", Self::Opened),
        ("clicked", Self::Clicked),
        ("failed", Self::Failed),
        ("bounced", Self::Bounced),
        ("unsubscribed", Self::Unsubscribed),
        ("complained", Self::Complained),
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, outcome)| *outcome == self).map_or("", |(name, _)| name)
    }

    /// The greater rank replaces the lesser; from 1.
    pub const fn rank(self) -> u8 {
        self as u8 + 1
    }
}

/// A request to a provider's API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiRequest {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: String,
    /// The headers, without the one with the key.
    pub headers: Vec<(&'static str, String)>,
    /// Where the key goes.
    pub authorization: Authorization,
    /// The body.
    pub body: String,
}

/// The method of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Reads, without a body.
    Get,
    /// Changes something.
    Post,
}

/// The user agent of requests: Resend answers 403 without one. Source:
/// <https://resend.com/docs/api-reference/introduction>.
pub const USER_AGENT: &str = concat!("hookmill/", env!("CARGO_PKG_VERSION"));

/// Where the key of a request goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authorization {
    /// As a bearer token: <https://www.rfc-editor.org/rfc/rfc6750#section-2.1>.
    Bearer,
    /// As the password of this user: <https://www.rfc-editor.org/rfc/rfc7617>.
    Password(String),
    /// As a user name without a password.
    User,
    /// As the value of this header.
    Header(&'static str),
    /// The body contains it.
    None,
}

impl ApiRequest {
    /// The header with the key, if it goes into a header.
    pub fn authorize(&self, key: &Secret) -> Option<(&'static str, String)> {
        // A trailing newline comes from a file or a shell, and is never part of a key.
        let key = key.expose_secret().trim();
        let basic = |pair: String| format!("Basic {}", STANDARD.encode(pair));
        let value = match &self.authorization {
            Authorization::Bearer => format!("Bearer {key}"),
            Authorization::Password(user) => basic(format!("{user}:{key}")),
            Authorization::User => basic(format!("{key}:")),
            Authorization::Header(name) => return Some((*name, key.to_owned())),
            Authorization::None => return None,
        };
        Some(("authorization", value))
    }
}

impl ApiRequest {
    /// Hides the key in texts from the API.
    pub fn hidden_key(&self, key: &Secret) -> HiddenKey {
        let key = key.expose_secret().trim();
        if key.is_empty() {
            return HiddenKey(Vec::new());
        }
        let percent = |text: &str, digit: fn(u8) -> String| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let byte = |byte: u8| if plain(byte) { char::from(byte).into() } else { digit(byte) };
            text.bytes().map(byte).collect::<String>()
        };
        // Without padding, which some encoders leave out, and others escape.
        let base64 = |text: String| STANDARD.encode(text).trim_end_matches('=').to_owned();
        let sent = match &self.authorization {
            Authorization::Password(user) => Some(base64(format!("{user}:{key}"))),
            Authorization::User => Some(base64(format!("{key}:"))),
            Authorization::Bearer | Authorization::Header(_) | Authorization::None => None,
        };
        let mut spellings = Vec::new();
        for text in sent.into_iter().chain([key.to_owned(), base64(key.to_owned())]) {
            spellings.push(text.replace('+', "-").replace('/', "_"));
            spellings.push(percent(&text, |byte| format!("%{byte:02X}")));
            spellings.push(percent(&text, |byte| format!("%{byte:02x}")));
            spellings
                .push(serde_json::Value::from(text.as_str()).to_string().trim_matches('"').into());
            spellings.push(format!("{text}="));
            spellings.push(format!("{text}=="));
            spellings.push(text);
        }
        spellings.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
        spellings.dedup();
        HiddenKey(spellings)
    }
}

/// The spellings of a key in which an API may repeat it, the longest first.
#[derive(Clone)]
pub struct HiddenKey(Vec<String>);

impl HiddenKey {
    /// The text with `[key]` in place of the key.
    pub fn in_text(&self, text: &str) -> String {
        let hide = |text: String, spelling: &String| text.replace(spelling, "[key]");
        self.0.iter().fold(text.to_owned(), hide)
    }
}

/// Without the key.
impl fmt::Debug for HiddenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HiddenKey")
    }
}

/// A response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiResponse {
    /// The status code.
    pub status: u16,
    /// `Retry-After`, if there is one.
    pub retry_after: Option<String>,
    /// `X-Message-Id`, if there is one.
    pub message_id: Option<String>,
    /// `Date`, if there is one: the provider's clock.
    pub date: Option<String>,
    /// The body.
    pub body: String,
}

/// The result of sending a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SendResult {
    /// The provider accepted the batch. One result for each email, in order.
    Accepted(Vec<MessageResult>),
    /// The provider accepted nothing: too many requests, or it still processes an earlier one.
    Busy {
        /// The delay that it asks for.
        after: Option<Duration>,
        /// Its error message.
        error: String,
    },
    /// The provider accepted nothing of this batch now, but accepts others.
    Deferred(String),
    /// The provider is unavailable and accepted nothing.
    Unavailable(String),
    /// The provider is unavailable and may have accepted the batch.
    Uncertain(String),
    /// The provider rejects the batch; one of its emails may be the cause.
    Malformed(String),
    /// The provider rejects every batch, for instance because of the key.
    Refused(String),
}

/// The result for one email of an accepted batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MessageResult {
    /// Accepted, with the provider's id if it gave one.
    Accepted(Option<String>),
    /// Accepted, but not for all recipients.
    Partly {
        /// The provider's id, if it gave one.
        id: Option<String>,
        /// The skipped recipients, with reasons.
        left_out: String,
    },
    /// Rejected, with the provider's words.
    Refused(String),
    /// The recipient wants no messages, now or later; with the provider's words.
    Unwanted(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_serialized_by_its_name() {
        for provider in Provider::ALL {
            let json = serde_json::to_string(provider).unwrap();
            assert_eq!(json, format!("{:?}", provider.as_str()));
        }
    }

    #[test]
    fn a_key_is_hidden_in_every_spelling() {
        let request = |authorization| ApiRequest {
            method: Method::Post,
            url: String::new(),
            headers: Vec::new(),
            authorization,
            body: String::new(),
        };
        let key = Secret::from(" k/ey+with=all~>>?\\ \n");
        let pair = |text: &str| STANDARD.encode(text);
        let sid = pair("AC1:k/ey+with=all~>>?\\");
        for (authorization, echoed) in [
            (Authorization::Bearer, "k/ey+with=all~>>?\\".to_owned()),
            (Authorization::Bearer, "k%2Fey%2Bwith%3Dall~%3E%3E%3F%5C".to_owned()),
            (Authorization::Bearer, "k%2fey%2bwith%3dall~%3e%3e%3f%5c".to_owned()),
            (Authorization::Bearer, r"k/ey+with=all~>>?\\".to_owned()),
            (Authorization::Bearer, pair("k/ey+with=all~>>?\\")),
            (Authorization::User, pair("k/ey+with=all~>>?\\:")),
            (Authorization::Password("AC1".into()), sid.clone()),
            (Authorization::Password("AC1".into()), sid.trim_end_matches('=').to_owned()),
            (Authorization::Password("AC1".into()), sid.replace('+', "-").replace('/', "_")),
            (
                Authorization::Password("AC1".into()),
                sid.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D"),
            ),
        ] {
            let hidden = request(authorization).hidden_key(&key);
            let text = hidden.in_text(&format!("Authorization: {echoed} is wrong"));
            let rest = text.replace("%3D", "").replace("%3d", "").replace('=', "");
            assert_eq!(rest, "Authorization: [key] is wrong", "{echoed}");
        }
        assert_eq!(
            request(Authorization::Bearer).hidden_key(&Secret::from(" ")).in_text("a b"),
            "a b"
        );
    }
}
