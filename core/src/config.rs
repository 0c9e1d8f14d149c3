//! hookmill.toml. [`parse()`] reads it (feature `config`); what a Worker carries of it is these types, checked and baked in.

#[cfg(feature = "config")]
mod parse;
#[cfg(feature = "config")]
mod toml_reader;

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(feature = "config")]
pub use parse::{Config, PrecedenceText, RuleText, ValueText, parse};
#[cfg(feature = "config")]
pub use toml_reader::{ConfigError, Located, Place};

use crate::rules::Program;
use crate::secret::SecretName;

/// How a source's requests are signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// `Stripe-Signature`: <https://docs.stripe.com/webhooks#verify-manually>.
    Stripe,
    /// Standard Webhooks, as Svix, Clerk and Resend use it:
    /// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
    StandardWebhooks,
}

impl Scheme {
    /// Every scheme, with its name in hookmill.toml.
    pub const ALL: [(&'static str, Self); 2] =
        [("stripe", Self::Stripe), ("standard-webhooks", Self::StandardWebhooks)];

    /// Its name in hookmill.toml.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::StandardWebhooks => "standard-webhooks",
        }
    }
}

/// A place webhooks come from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Source {
    /// Its name: the last part of its path, `/webhooks/{name}`.
    pub name: String,
    /// How its requests are signed.
    pub scheme: Scheme,
    /// The secrets, any of which may have signed; at least one of them has to be set.
    pub secrets: Vec<SecretName>,
    /// How old a signature may be.
    pub tolerance: Duration,
    /// How far in the future a signature may be; `None` if that is not looked at.
    pub future_tolerance: Option<Duration>,
}

/// What ingress carries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ingress {
    /// The sources, by name.
    pub sources: Vec<Source>,
    /// The longest body taken, in bytes.
    pub body_limit: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
}

/// When a delivery is tried again, and when it is given up.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Retry {
    /// Deliveries of a message before it is buried, the first included.
    pub max_attempts: u32,
    /// The delay before the second delivery.
    pub initial: Duration,
    /// What the delay grows by each time.
    pub multiplier: f64,
    /// The longest delay.
    pub max: Duration,
    /// The share of the delay by which it is varied at random, so that what failed together does not return together.
    pub jitter: f64,
}

/// How deliveries are gathered into a batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// The most deliveries in one batch.
    pub size: usize,
    /// How long a batch waits to be full.
    pub wait: Duration,
}

/// What the consumers carry.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Consumers {
    /// The compiled rules.
    pub program: Program,
    /// When to try again, and when to give up.
    pub retry: Retry,
}
