//! The configuration of Hookmill. [`parse()`] reads hookmill.toml (feature `toml`). A Worker carries parts of it, checked and baked
//! in: [`Ingress`], [`Consumers`] or [`Admin`].
//!
//! Each key is declared once: in [`settings`], [`channels`], `source`, `rule_tests`, `file`, and, for rules, in
//! [`hookmill_rules::decl`]. The reader,
//! the JSON Schema and the reference in docs/ follow from the declarations.

pub mod channels;
#[cfg(feature = "toml")]
pub mod docs;
#[cfg(feature = "toml")]
mod file;
#[cfg(feature = "toml")]
mod overview;
pub mod redact;
#[cfg(feature = "toml")]
mod rule_tests;
pub mod scheme;
pub mod settings;
#[cfg(feature = "toml")]
mod source;

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_core::email::TemplateText;
use hookmill_core::outbound::Provider;
use hookmill_core::request::Coding;
use hookmill_core::secret::SecretName;
use hookmill_core::time::Timestamp;
use hookmill_rules::Program;
use serde::{Deserialize, Serialize};

#[cfg(feature = "toml")]
pub use channels::keys::TemplateFiles;
pub use channels::{
    AlertUrl, AlertWebhook, Alerts, Api, Emails, OnUncertain, Quota, SMTP_SCHEMES, Sending, Sms,
};
#[cfg(feature = "toml")]
pub use file::{Config, parse, parse_recoverable};
#[cfg(feature = "toml")]
pub use hookmill_keys::{ConfigError, Located, Place, distance, nearest};
#[cfg(feature = "toml")]
pub use overview::overview;
#[cfg(feature = "toml")]
pub use rule_tests::{Before, Expectation, Given, RuleTest};
pub use settings::{Access, Batch, BodyLimits, Limits, RateLimit, Retention, Retry, SecretRef};
#[cfg(feature = "toml")]
pub use source::scheme_names;

use redact::Redaction;
use scheme::{Answer, Challenge, Events, Scheme, Tolerance};

impl SecretRef {
    /// Whether it has expired.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.not_after.is_some_and(|end| now > end)
    }
}

/// A source of webhooks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Source {
    /// Its name: the last part of its path, `/webhooks/{name}`.
    pub name: String,
    /// The value of `scheme`, such as `github`.
    pub scheme_name: String,
    /// How it signs requests.
    pub scheme: Scheme,
    /// The secrets. A signature by any of them is valid; at least one must be set.
    pub secrets: Vec<SecretRef>,
    /// The limits of a signature's time; `None` if the scheme signs no time.
    pub tolerance: Option<Tolerance>,
    /// The URL as registered with the provider, without a query. Some providers sign it.
    pub public_url: Option<String>,
    /// Where requests contain events.
    pub events: Events,
    /// The response, if not the number of events.
    pub answer: Option<Answer>,
    /// The challenge by which the provider checks the URL, if there is one.
    pub challenge: Option<Challenge>,
    /// The secret with the challenge's token.
    pub challenge_token: Option<SecretName>,
    /// The codings of bodies that it accepts. The signature covers the decoded body.
    pub compression: Vec<Coding>,
    /// The headers that its events keep for rules, in lower case.
    pub keep_headers: Vec<String>,
    /// The rate limit, if there is one.
    pub rate_limit: Option<RateLimit>,
}

impl Source {
    /// The Worker's binding for its rate limiter: `RATE_LIMIT_` and its name in capitals, `_` for `-`.
    pub fn rate_limit_binding(&self) -> String {
        format!("RATE_LIMIT_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// The features of the ingress Worker that it needs.
    pub fn features(&self) -> Vec<&'static str> {
        let challenged = self.challenge.is_some()
            || self.events.handshakes.iter().any(|handshake| !handshake.json.is_empty());
        let compressed = !self.compression.is_empty();
        let features = [
            self.scheme.feature(),
            challenged.then_some("challenges"),
            compressed.then_some("compression"),
            (!self.keep_headers.is_empty()).then_some("headers"),
        ];
        features.into_iter().flatten().collect()
    }

    /// Whether the provider sends requests with this method.
    pub fn takes(&self, method: &str) -> bool {
        method == "POST" || (method == "GET" && self.scheme == Scheme::Twilio)
    }
}

/// The configuration of ingress.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ingress {
    /// The sources, by name.
    pub sources: Vec<Source>,
    /// The limits on request bodies.
    pub limits: BodyLimits,
}

/// The configuration of the admin API and the sweep.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Admin {
    /// How long to keep data.
    pub retention: Retention,
    /// By source, for each: the parts of its bodies to hide.
    pub redact: BTreeMap<String, Vec<Redaction>>,
    /// Cloudflare Access, if configured.
    pub access: Option<Access>,
    /// The loaded configuration, as JSON: [`overview()`].
    pub overview: String,
}

/// The configuration of the consumers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Consumers {
    /// The compiled rules.
    pub program: Program,
    /// When to retry, and when to give up.
    pub retry: Retry,
    /// The most that one event may write.
    pub limits: Limits,
    /// By source: its provider's API, to fetch objects.
    pub apis: BTreeMap<String, Api>,
    /// By source: the API versions that it expects, if they are configured.
    pub api_versions: BTreeMap<String, Vec<String>>,
    /// By source: the time between two sweeps of its provider's log of events, if they are configured.
    pub sweeps: BTreeMap<String, Duration>,
    /// By source: the time between two reconciliations with its provider's API, if they are configured.
    pub reconciliations: BTreeMap<String, Duration>,
    /// Whether Hookmill keeps messages of applied events.
    pub keep_messages: bool,
    /// How emails are sent, if configured.
    pub emails: Option<Emails>,
    /// How SMS are sent, if configured.
    pub sms: Option<Sms>,
    /// The tracking providers and their settings.
    pub tracking: Vec<(Provider, Sending)>,
    /// The texts of emails, by name.
    pub templates: BTreeMap<String, TemplateText>,
    /// The alerts, if configured.
    pub alerts: Option<Alerts>,
}

impl Consumers {
    /// The shortest `wait` of all channels.
    pub fn shortest_wait(&self) -> Duration {
        let emails = self.emails.iter().map(|emails| &emails.sending);
        let sms = self.sms.iter().map(|sms| &sms.sending);
        let sendings = emails.chain(sms).chain(self.tracking.iter().map(|(_, sending)| sending));
        sendings.map(|sending| sending.wait).min().unwrap_or_default()
    }
}
