//! hookmill.toml. [`parse()`] reads it (feature `config`); what a Worker carries of it is these types, checked and baked in.

#[cfg(feature = "config")]
mod expectations;
#[cfg(feature = "config")]
mod outgoing;
#[cfg(feature = "config")]
mod overview;
#[cfg(feature = "config")]
mod parse;
#[cfg(feature = "schema")]
mod shape;
#[cfg(feature = "config")]
mod source;
#[cfg(feature = "config")]
mod toml_reader;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
pub use shape::json_schema;
#[cfg(feature = "config")]
pub use source::scheme_names;

#[cfg(feature = "config")]
pub use expectations::{Expectation, Given, TestText};
#[cfg(feature = "config")]
pub use overview::overview;
#[cfg(feature = "config")]
pub use parse::{
    ConditionDecl, Config, EffectDecl, EmailDecl, NamedValues, Newest, PrecedenceDecl, RuleDecl,
    SendDecl, SmsDecl, TableDecl, TableWrite, TemplateFiles, TrackDecl, ValueDecl, parse,
};
#[cfg(feature = "config")]
pub use toml_reader::{ConfigError, Located, Place};

use crate::email::{Mailbox, TemplateText};
use crate::limits::DELAY_SECONDS;
use crate::outbound::Provider;
use crate::redact::Redaction;
use crate::rules::Program;
use crate::scheme::{Answer, Events, Scheme, Tolerance};
use crate::secret::SecretName;
use crate::time::Timestamp;

/// A secret of a source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SecretRef {
    /// Where it comes from.
    pub name: SecretName,
    /// When it ceases to count, if it is being replaced.
    pub not_after: Option<Timestamp>,
}

impl SecretRef {
    /// Whether it has ceased to count.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.not_after.is_some_and(|end| now > end)
    }
}

/// How many requests a source may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RateLimit {
    /// The most requests in [`RateLimit::per`].
    pub requests: u32,
    /// 10 seconds or 60: Cloudflare's rate limiter knows no other period.
    /// Source: <https://developers.cloudflare.com/workers/runtime-apis/bindings/rate-limit/>.
    pub per: Duration,
}

/// A place webhooks come from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Source {
    /// Its name: the last part of its path, `/webhooks/{name}`.
    pub name: String,
    /// The scheme as hookmill.toml calls it, such as `github`.
    pub scheme_name: String,
    /// How its requests are signed.
    pub scheme: Scheme,
    /// The secrets, any of which may have signed; at least one of them has to be set.
    pub secrets: Vec<SecretRef>,
    /// How old a signature may be, and how far in the future; `None` if the scheme signs no time.
    pub tolerance: Option<Tolerance>,
    /// The URL that the provider was told to call, without a query: some sign it.
    pub public_url: Option<String>,
    /// What events are in a request.
    pub events: Events,
    /// What is answered once the events are on the queue, if not how many they are.
    pub answer: Option<Answer>,
    /// How many requests are looked at, if not every one.
    pub rate_limit: Option<RateLimit>,
}

impl Source {
    /// The Worker's binding for its rate limiter: `RATE_LIMIT_` and its name in capitals, `_` for `-`.
    pub fn rate_limit_binding(&self) -> String {
        format!("RATE_LIMIT_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether its provider sends requests with this method.
    pub fn takes(&self, method: &str) -> bool {
        method == "POST" || (method == "GET" && self.scheme == Scheme::Twilio)
    }
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

impl Retry {
    /// The longest delay, jitter included.
    pub fn longest(&self) -> Duration {
        self.max.mul_f64(1.0 + self.jitter).min(Duration::from_secs(DELAY_SECONDS))
    }
}

/// How the native queue gathers deliveries into a batch. On Cloudflare, wrangler.toml says that.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// The most deliveries in one batch.
    pub size: usize,
    /// How long a batch waits to be full.
    pub wait: Duration,
}

/// How long rows are kept. `None`: for ever, unless a field says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retention {
    /// Rows of the ledger, since their events took effect. An event that comes again after that takes effect again.
    pub events: Option<Duration>,
    /// Messages of events that took effect, to look at and to reprocess; `None`: not at all.
    pub messages: Option<Duration>,
    /// Emails and the like that are settled, letters that were applied or discarded, replays that have ended.
    pub settled: Option<Duration>,
    /// Dead letters that nobody has replayed or discarded, since they failed last.
    pub dead_letters: Option<Duration>,
    /// Who did what.
    pub audit: Option<Duration>,
}

/// By default, only what is settled is removed: after 90 days.
impl Default for Retention {
    fn default() -> Self {
        let settled = Some(Duration::from_secs(90 * 86_400));
        Self { events: None, messages: None, settled, dead_letters: None, audit: None }
    }
}

/// What the admin API carries, and whoever removes what is old.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Admin {
    /// How long things are kept.
    pub retention: Retention,
    /// By source, for every one: what of its bodies is not shown.
    pub redact: BTreeMap<String, Vec<Redaction>>,
    /// Who may come through Cloudflare Access, if anybody.
    pub access: Option<Access>,
    /// What is in force, as JSON: [`overview()`].
    pub overview: String,
}

/// Who may come through Cloudflare Access.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Access {
    /// The team: `https://acme.cloudflareaccess.com`.
    pub issuer: String,
    /// The application's audience tag.
    pub audience: String,
    /// Who may change things: addresses, and names of service tokens. Everybody else whom Access lets through may look.
    pub operators: Vec<String>,
}

/// When somebody is told that something is the matter, and how.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alerts {
    /// Which Hookmill this is, for whoever has several.
    pub name: Option<String>,
    /// Who gets an email, through `[email]`.
    pub email: Option<Mailbox>,
    /// What is called.
    pub webhook: Option<AlertWebhook>,
    /// If the oldest dead letter has waited for so long.
    pub oldest_dead_letter: Option<Duration>,
    /// If so many dead letters wait.
    pub dead_letters: Option<u32>,
    /// If an event took so long from ingress to its tables.
    pub lag: Option<Duration>,
    /// When they are told again, if it is still so.
    pub repeat: Duration,
}

/// A webhook of ours, signed as <https://www.standardwebhooks.com> says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AlertWebhook {
    /// Where it goes.
    pub url: AlertUrl,
    /// What signs it: `whsec_`, and base64.
    pub secret: SecretName,
}

/// Where a webhook goes. The URL of some services is a secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertUrl {
    /// There.
    Literal(String),
    /// Where this says.
    Named(SecretName),
}

/// A provider's API.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Api {
    /// Whose.
    pub provider: Provider,
    /// What opens it.
    pub key: SecretName,
    /// Where it is. Of an SMTP server the scheme says how the connection is encrypted, see [`SMTP_SCHEMES`].
    pub url: String,
    /// The most requests in a second.
    pub rate: u32,
    /// Who logs in with the key, at an SMTP server. `None`: nobody logs in there, and there is no key.
    pub user: Option<String>,
}

/// By their names in hookmill.toml, the ways to encrypt a connection to an SMTP server: the scheme of its URL, and its usual port.
///
/// Sources: <https://www.rfc-editor.org/rfc/rfc3207> and <https://www.rfc-editor.org/rfc/rfc8314#section-3>.
pub const SMTP_SCHEMES: [(&str, (&str, u16)); 3] =
    [("starttls", ("smtp+starttls", 587)), ("implicit", ("smtps", 465)), ("none", ("smtp", 25))];

/// What becomes of a batch whose delivery is uncertain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUncertain {
    /// It is sent again: a recipient may get it twice.
    Retry,
    /// It is not sent again: a recipient may go without. Its emails are `uncertain` in the outbox until an operator decides.
    #[default]
    Hold,
}

/// How many emails the provider takes, and when somebody is told that they are nearly used up.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Quota {
    /// In a day, UTC.
    pub day: Option<u64>,
    /// In a month, UTC.
    pub month: Option<u64>,
    /// The share of either that is warned at.
    pub warn_at: f64,
    /// Who gets an email then.
    pub notify: Option<Mailbox>,
}

impl Quota {
    /// How many emails of a quota are warned at; never, if there is none.
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

/// How a channel is sent through.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sending {
    /// The API that batches are sealed for; behind it the one that stands in while that is away.
    pub apis: Vec<Api>,
    /// Requests in a row that a provider does not take before the other stands in.
    pub failover_after: u32,
    /// How long a batch waits to be full.
    pub wait: Duration,
    /// What becomes of a batch whose delivery is uncertain.
    pub on_uncertain: OnUncertain,
    /// How many there may be.
    pub quota: Option<Quota>,
}

/// How emails are sent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Emails {
    /// Through whom.
    pub sending: Sending,
    /// Whose emails they are.
    pub from: Mailbox,
    /// Where answers go, if not to the sender, and a rule does not say.
    pub reply_to: Option<Mailbox>,
}

/// How SMS are sent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sms {
    /// Through whom.
    pub sending: Sending,
    /// Twilio's account, `AC…`.
    pub account: String,
    /// Whose messages they are: a number, or a messaging service, `MG…`.
    pub from: String,
    /// Where Twilio reports what became of a message.
    pub status_callback: Option<String>,
    /// The most messages to one number in an hour.
    pub per_hour: u32,
}

/// What one event may write at most. What would write more becomes a dead letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Rows of all tables together, those of the outbox included.
    pub rows: usize,
    /// Bytes of JSON that carry these rows.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 10_000, bytes: 16 * 1024 * 1024 }
    }
}

/// What the consumers carry.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Consumers {
    /// The compiled rules.
    pub program: Program,
    /// When to try again, and when to give up.
    pub retry: Retry,
    /// What one event may write.
    pub limits: Limits,
    /// By source: its provider's API, to ask for objects.
    pub apis: BTreeMap<String, Api>,
    /// Whether messages are kept when they have taken effect.
    pub keep_messages: bool,
    /// How emails are sent, if they are.
    pub emails: Option<Emails>,
    /// How SMS are sent, if they are.
    pub sms: Option<Sms>,
    /// Who is told what somebody did, and how.
    pub tracking: Vec<(Provider, Sending)>,
    /// The texts of emails, by name.
    pub templates: BTreeMap<String, TemplateText>,
    /// When somebody is told that something is the matter, if anybody is.
    pub alerts: Option<Alerts>,
}

impl Consumers {
    /// How long after it is due something may have to wait for its batch to be full, at least.
    pub fn shortest_wait(&self) -> Duration {
        let emails = self.emails.iter().map(|emails| &emails.sending);
        let sms = self.sms.iter().map(|sms| &sms.sending);
        let sendings = emails.chain(sms).chain(self.tracking.iter().map(|(_, sending)| sending));
        sendings.map(|sending| sending.wait).min().unwrap_or_default()
    }
}
