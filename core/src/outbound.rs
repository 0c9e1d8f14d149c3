//! What goes out: requests to the APIs of providers, in batches, and what comes back.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::secret::{ExposeSecret as _, Secret};

/// What hookmill.toml has to know of a provider's API. All else that is known of it stands in its file in `hookmill_providers`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Its name in hookmill.toml and in the database.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// What it is asked for.
    pub purpose: Purpose,
    /// How it is reached.
    pub transport: Transport,
    /// The most requests in a second, unless hookmill.toml says otherwise.
    pub rate: u32,
}

/// How a provider is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// By requests over HTTPS.
    Https {
        /// The base URL, unless hookmill.toml names another.
        url: &'static str,
    },
    /// By SMTP, which only the native binary speaks: <https://www.rfc-editor.org/rfc/rfc5321>. hookmill.toml names the server.
    Smtp,
}

/// What an API is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To deliver emails.
    Email,
    /// To deliver SMS.
    Sms,
    /// To record what users did.
    Tracking,
    /// To say what an object is now.
    Objects,
}

/// Declares the providers: an entry for each, and nothing else lists them.
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

            /// What hookmill.toml has to know of it.
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
    /// <https://sendgrid.com>. It accepts far more requests than a pipeline makes.
    SendGrid = Facts {
        name: "sendgrid",
        title: "SendGrid",
        purpose: Purpose::Email,
        transport: Transport::Https { url: "https://api.sendgrid.com" },
        rate: 100,
    };
    /// <https://postmarkapp.com>. It publishes no limit, and answers 429 above it; a request may have 500 emails.
    Postmark = Facts {
        name: "postmark",
        title: "Postmark",
        purpose: Purpose::Email,
        transport: Transport::Https { url: "https://api.postmarkapp.com" },
        rate: 10,
    };
    /// Any server that takes emails, such as Amazon SES. The rate is what SES lets a new account send outside its sandbox:
    /// <https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas.html>.
    Smtp = Facts {
        name: "smtp",
        title: "SMTP",
        purpose: Purpose::Email,
        transport: Transport::Smtp,
        rate: 10,
    };
    /// <https://www.twilio.com/docs/messaging>. Twilio queues what is too much for a number.
    Twilio = Facts {
        name: "twilio",
        title: "Twilio",
        purpose: Purpose::Sms,
        transport: Transport::Https { url: "https://api.twilio.com" },
        rate: 10,
    };
    /// <https://mixpanel.com>. It accepts far more requests than a pipeline makes.
    Mixpanel = Facts {
        name: "mixpanel",
        title: "Mixpanel",
        purpose: Purpose::Tracking,
        transport: Transport::Https { url: "https://api.mixpanel.com" },
        rate: 100,
    };
    /// <https://posthog.com>. It accepts far more requests than a pipeline makes.
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

    /// Those that are asked for this, with their names.
    pub fn of(purpose: Purpose) -> Vec<(&'static str, Self)> {
        let providers = Self::ALL.iter().filter(|provider| provider.facts().purpose == purpose);
        providers.map(|provider| (provider.as_str(), *provider)).collect()
    }
}

/// What became of something that a provider took, as it reports later. In the order in which one takes the place of another,
/// so that the order in which the reports arrive does not matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It could not be delivered yet.
    Delayed,
    /// It has been delivered.
    Delivered,
    /// It has been opened.
    Opened,
    /// A link in it has been followed.
    Clicked,
    /// The provider has given it up.
    Failed,
    /// The recipient's server has refused it.
    Bounced,
    /// The recipient wants no more of these.
    Unsubscribed,
    /// The recipient has called it spam.
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

    /// The greater takes the place of the lesser; from 1.
    pub const fn rank(self) -> u8 {
        self as u8 + 1
    }
}

/// A request to a provider's API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiRequest {
    /// What is done.
    pub method: Method,
    /// Where to.
    pub url: String,
    /// The headers, without the one that authorises.
    pub headers: Vec<(&'static str, String)>,
    /// How the key goes with it.
    pub authorization: Authorization,
    /// The body.
    pub body: String,
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// It looks at something, and has no body.
    Get,
    /// It has something done.
    Post,
}

/// What requests say of who sends them: Resend answers 403 without it.
/// Source: <https://resend.com/docs/api-reference/introduction>.
pub const USER_AGENT: &str = concat!("hookmill/", env!("CARGO_PKG_VERSION"));

/// How a key goes with a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authorization {
    /// As a bearer token: <https://www.rfc-editor.org/rfc/rfc6750#section-2.1>.
    Bearer,
    /// As the password of this user: <https://www.rfc-editor.org/rfc/rfc7617>.
    Password(String),
    /// As the name of a user who has no password.
    User,
    /// As the value of this header.
    Header(&'static str),
    /// It is in the body.
    None,
}

impl ApiRequest {
    /// The header that the key goes in, with its value, if it goes in one.
    pub fn authorize(&self, key: &Secret) -> Option<(&'static str, String)> {
        // A line end at its end comes from a file or a shell, and is never part of a key.
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

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiResponse {
    /// The status code.
    pub status: u16,
    /// `Retry-After`, if there is one.
    pub retry_after: Option<String>,
    /// `X-Message-Id`, if there is one.
    pub message_id: Option<String>,
    /// The body.
    pub body: String,
}

/// What a provider has done with a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SendResult {
    /// It has taken it, and said something of each email, in order.
    Accepted(Vec<MessageResult>),
    /// It has taken nothing, since it was asked too often or is still at it.
    Busy {
        /// When it wants to be asked again.
        after: Option<Duration>,
        /// Its words.
        error: String,
    },
    /// It cannot take this batch now, has taken nothing of it, and takes others.
    Deferred(String),
    /// It cannot do it now, and has taken nothing.
    Unavailable(String),
    /// It cannot do it now, and may have taken the batch all the same.
    Uncertain(String),
    /// It will not take the batch as it is; one email in it may be at fault.
    Malformed(String),
    /// It will take nothing of this kind, whatever is in the batch.
    Refused(String),
}

/// What a provider has done with one email of a batch that it has taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MessageResult {
    /// It will deliver it, and knows it by this id, if it gave one.
    Accepted(Option<String>),
    /// As `Accepted`, but not to all of its recipients.
    Partly {
        /// What the provider knows it by, if it gave an id.
        id: Option<String>,
        /// Who is left out, and why.
        left_out: String,
    },
    /// It will not, in its words.
    Refused(String),
    /// The recipient wants none, in its words: now and from now on.
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
}
