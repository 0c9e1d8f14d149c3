//! How messages are sent, and when Hookmill raises an alert: `[email]`, `[sms]`, `[tracking]`, `[templates]` and `[alerts]`.

#[cfg(feature = "toml")]
pub mod keys;

use std::time::Duration;

use hookmill_core::email::Mailbox;
#[cfg(feature = "toml")]
use hookmill_core::limits::{COUNTED, DATABASE_BYTES};
use hookmill_core::outbound::Provider;
use hookmill_core::secret::SecretName;
#[cfg(feature = "toml")]
use hookmill_keys::{
    Item, Kind, days,
    kind::{duration, secret, size, table, text, whole},
    seconds,
};
#[cfg(feature = "toml")]
use hookmill_rules::decl::mailbox;
use serde::{Deserialize, Serialize};

#[cfg(feature = "toml")]
use keys::is_private;

/// A provider's API.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Api {
    /// The provider.
    pub provider: Provider,
    /// The name of the secret with the API key, or the password.
    pub key: SecretName,
    /// The base URL. For an SMTP server, the scheme says how the connection is encrypted, see [`SMTP_SCHEMES`].
    pub url: String,
    /// The maximum requests per second.
    pub rate: u32,
    /// The user name at an SMTP server. `None`: Hookmill does not log in, and there is no key.
    pub user: Option<String>,
}

/// By their names in hookmill.toml, the ways to encrypt a connection to an SMTP server: the scheme of its URL, and its usual port.
///
/// Sources: <https://www.rfc-editor.org/rfc/rfc3207> and <https://www.rfc-editor.org/rfc/rfc8314#section-3>.
pub const SMTP_SCHEMES: [(&str, (&str, u16)); 3] =
    [("starttls", ("smtp+starttls", 587)), ("implicit", ("smtps", 465)), ("none", ("smtp", 25))];

/// What happens to a batch whose delivery is uncertain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUncertain {
    /// Hookmill sends it again: a recipient may get it twice.
    Retry,
    /// Hookmill does not send it again: a recipient may go without. Its emails are `uncertain` in the outbox until an operator
    /// decides.
    #[default]
    Hold,
}

impl OnUncertain {
    /// Both, by their names in hookmill.toml.
    pub const ALL: [(&str, Self); 2] = [("hold", Self::Hold), ("retry", Self::Retry)];
}

hookmill_keys::keys! {
    /// The provider's quota, and the recipient of a warning before it is used up. It limits nothing.
    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    pub struct Quota {
        /// The quota per day (UTC). An email to two recipients counts as two. A quota needs `day` or `month`.
        pub day: Option<u64> = whole(1..=1_000_000_000_u64).optional().example("100"),
        /// The quota per month (UTC).
        pub month: Option<u64> = whole(1..=1_000_000_000_u64).optional().example("3000"),
        /// The fraction of a quota at which the log warns: above 0, at most 1.
        pub warn_at: f64 = fraction().default("0.8"),
        /// The recipient of the warning by email.
        pub notify: Option<Mailbox> = mailbox().optional().example("\"Ops <ops@example.com>\""),
    }
    present |section| {
        if section.at("day").is_none() && section.at("month").is_none() {
            let problem = section.here.error("the quota has neither `day` nor `month`");
            section.report(problem.hint("add at least one, such as month = 3000"));
        }
    };
    schema { "if": true, "then": { "anyOf": [{ "required": ["day"] }, { "required": ["month"] }] } };
}

impl Quota {
    /// The number of emails at which Hookmill warns about a quota. Without a quota, Hookmill never warns.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    pub fn threshold(&self, quota: Option<u64>) -> u64 {
        quota.map_or(u64::MAX >> 1, |quota| (quota as f64 * self.warn_at).ceil() as u64)
    }
}

/// How a channel sends.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sending {
    /// The API that batches are sealed for, and after it the fallback.
    pub apis: Vec<Api>,
    /// The number of consecutive requests without success after which Hookmill uses the fallback.
    pub failover_after: u32,
    /// How long a batch waits to be full.
    pub wait: Duration,
    /// What happens to a batch whose delivery is uncertain.
    pub on_uncertain: OnUncertain,
    /// The provider's quota.
    pub quota: Option<Quota>,
}

/// How emails are sent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Emails {
    /// The APIs, and how to use them.
    pub sending: Sending,
    /// The sender.
    pub from: Mailbox,
    /// The address for replies, unless a rule has one.
    pub reply_to: Option<Mailbox>,
    /// The maximum emails of rules to one address per hour.
    pub per_hour: u32,
}

/// How SMS are sent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sms {
    /// The API, and how to use it.
    pub sending: Sending,
    /// Twilio's account, `AC…`.
    pub account: String,
    /// The sender: a number, or a messaging service, `MG…`.
    pub from: String,
    /// The URL for Twilio's delivery reports.
    pub status_callback: Option<String>,
    /// The maximum messages to one number per hour.
    pub per_hour: u32,
}

hookmill_keys::keys! {
    /// Alerts about waiting dead letters and slow events.
    #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
    pub struct Alerts {
        /// A name for this Hookmill, if you run several.
        pub name: Option<String> = text("a name").optional().example("\"production\""),
        /// The recipient of alerts by email, through `[email]`. `[alerts]` needs `email` or `webhook`.
        pub email: Option<Mailbox> = mailbox().optional().example("\"Ops <ops@example.com>\""),
        /// The webhook to call.
        pub webhook: Option<AlertWebhook> =
            table("a table: { url = \"https://…\", secret = \"env:ALERTS_SECRET\" }").optional()
                .example("{ url = \"https://alerts.example.com/hookmill\", secret = \"env:ALERTS_SECRET\" }"),
        /// The age of a waiting dead letter that raises an alert.
        // Dead letters wait for an operator who may not know of them, so this alert is always on.
        pub oldest_dead_letter: Duration = duration(seconds(60)..=days(30)).default("\"1h\""),
        /// The number of waiting dead letters that raises an alert.
        pub dead_letters: Option<u32> =
            whole(1..=COUNTED).optional().defaults_to("never").example("100"),
        /// The time from receipt of an event to its tables that raises an alert.
        pub lag: Option<Duration> =
            duration(seconds(1)..=days(30)).optional().defaults_to("never").example("\"5m\""),
        /// The size of the database that raises an alert. D1 is full at 10 GB, and on the free plan at 500 MB.
        // A full database stops the pipeline, so this alert is always on.
        pub database: u64 = size(DATABASE_BYTES).default("\"8GB\""),
        /// When to repeat an alert whose cause persists.
        pub repeat: Duration = duration(seconds(600)..=days(30)).default("\"24h\""),
    }
    present |section| {
        if section.at("email").is_none() && section.at("webhook").is_none() {
            let problem = section.here.error("`[alerts]` has no recipient");
            section.report(problem.hint("add email = \"Ops <ops@example.com>\", or webhook = { url = \"https://…\", secret = \"env:ALERTS_SECRET\" }"));
        }
    };
    schema { "if": true, "then": { "anyOf": [{ "required": ["email"] }, { "required": ["webhook"] }] } };
}

hookmill_keys::keys! {
    /// A webhook for alerts, signed as <https://www.standardwebhooks.com> says.
    #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
    pub struct AlertWebhook {
        /// The URL, or the name of a secret that contains it.
        pub url: AlertUrl =
            alert_url().required("add the URL: url = \"https://…\", or \"env:ALERTS_URL\"").example("\"env:ALERTS_URL\""),
        /// The name of the signing secret in the form of Standard Webhooks: `whsec_` and base64.
        pub secret: SecretName =
            secret("env:ALERTS_SECRET").map(SecretName)
                .required("add the signing secret: secret = \"env:ALERTS_SECRET\"")
                .example("\"env:ALERTS_SECRET\""),
    }
}

/// The URL of a webhook. The URL of some services is a secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertUrl {
    /// The URL itself.
    Literal(String),
    /// The name of the secret that contains the URL.
    Named(SecretName),
}

/// A fraction above 0 and at most 1.
#[cfg(feature = "toml")]
fn fraction() -> Kind<f64> {
    let expected = "a fraction above 0 and at most 1";
    let schema = || serde_json::json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 });
    Kind::new(schema, move |item: &Item<'_>| {
        let found = item.float(expected)?;
        let within = found > 0.0 && found <= 1.0;
        if !within {
            item.unexpected(found, expected);
        }
        within.then_some(found)
    })
}

#[cfg(feature = "toml")]
fn alert_url() -> Kind<AlertUrl> {
    let expected = "a URL, or the name of a secret that contains it, such as \"env:ALERTS_URL\"";
    let named = secret("env:ALERTS_URL");
    text(expected).and_then(move |item, text| {
        if text.starts_with("env:") {
            return named.read(item).map(|name| AlertUrl::Named(SecretName(name)));
        }
        if text.contains(['@', '?']) {
            // It may contain a secret, so no message quotes it.
            let problem = item.here.error("the URL contains a secret");
            item.report(
                problem.hint("put the URL into an environment variable: url = \"env:ALERTS_URL\""),
            );
            return None;
        }
        if !is_private(&text) {
            item.unexpected(format!("{text:?}"), "https://");
            return None;
        }
        Some(AlertUrl::Literal(text))
    })
}
