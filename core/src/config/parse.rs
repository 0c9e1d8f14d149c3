//! From the text of hookmill.toml to a [`Config`], or to every fault in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::expectations::{TestText, tests};
use super::toml_reader::{ConfigError, Document, Item, Located, Section};
use super::{
    Access, Alerts, Api, Batch, Emails, Ingress, Limits, RateLimit, Retention, Retry, SecretRef,
    Sending, Sms, Source, outgoing, source,
};
use crate::limits;
use crate::outbound::{Outcome, Provider};
use crate::redact::Redaction;
use crate::refetch;
use crate::rules::{EventField, Form, Pattern, Unmatched, ValuePath};
use crate::secret::SecretName;

/// What hookmill.toml says. Its rules have still to be checked against the schema: [`crate::rules::compile`].
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The `[sources]`, and `[ingress]`.
    pub ingress: Ingress,
    /// By source: its preset.
    pub presets: BTreeMap<String, &'static str>,
    /// By source: what becomes of an event that no rule names.
    pub unmatched: BTreeMap<String, Unmatched>,
    /// By source, for every one: what of its bodies is not shown.
    pub redact: BTreeMap<String, Vec<Redaction>>,
    /// By source: its provider's API, to ask for objects.
    pub apis: BTreeMap<String, Api>,
    /// The rules of the presets, and `[[rules]]`.
    pub rules: Vec<RuleDecl>,
    /// `[retry]`.
    pub retry: Retry,
    /// `[limits]`.
    pub limits: Limits,
    /// `[queue]`.
    pub batch: Batch,
    /// `queue.batch_size`, if it is written: then the queues of the Workers have to have it as well.
    pub batch_size: Option<Located<usize>>,
    /// `[retention]`.
    pub retention: Retention,
    /// `[email]`.
    pub emails: Option<Emails>,
    /// Where `[email]` names a provider that only the native binary can reach, if it does.
    pub native_only: Option<Located<Provider>>,
    /// `[sms]`.
    pub sms: Option<Sms>,
    /// `[tracking]`.
    pub tracking: Vec<(Provider, Sending)>,
    /// `[templates]`, by name.
    pub templates: BTreeMap<String, TemplateFiles>,
    /// `[[tests]]`.
    pub tests: Vec<TestText>,
    /// `admin.access`.
    pub access: Option<Access>,
    /// `[alerts]`.
    pub alerts: Option<Alerts>,
    /// `database.migrations`: the folder of the user's own migrations, relative to the file.
    pub migrations: Option<Located<String>>,
}

/// A rule as written.
#[derive(Clone, PartialEq, Debug)]
pub struct RuleDecl {
    /// `name`.
    pub name: Located<String>,
    /// Whether it is a preset's.
    pub preset: bool,
    /// `on`.
    pub on: Vec<Pattern>,
    /// `handler`: whose values its paths are about, if not the body's.
    pub handler: Option<Located<String>>,
    /// `each`: the list of whose elements it makes rows.
    pub each: Option<Located<ValuePath>>,
    /// `when`: all of these have to hold.
    pub when: Vec<ConditionDecl>,
    /// What it does.
    pub effect: EffectDecl,
}

/// What a rule does, as written.
#[derive(Clone, PartialEq, Debug)]
pub enum EffectDecl {
    /// It writes a table.
    Table(TableDecl),
    /// `email`, `sms` or `track`: it sends something.
    Send(SendDecl),
    /// `outcome`: what became of an email.
    Outcome {
        /// `email`: its id; or `provider_id`: what its provider knows it by.
        of: Located<ValueDecl>,
        /// Whether it is the provider's id.
        by_provider_id: bool,
        /// `is`.
        outcome: Outcome,
    },
    /// `suppress`: an address that is not to be written to.
    Suppress {
        /// `address`: one, or a list of them.
        address: Located<ValueDecl>,
        /// `reason`.
        reason: String,
    },
}

/// A rule that writes a table, as written.
#[derive(Clone, PartialEq, Debug)]
pub struct TableDecl {
    /// `table`.
    pub table: Located<String>,
    /// `key`: columns and where their values are from.
    pub key: NamedValues,
    /// What it does with the rows.
    pub write: TableWrite,
}

/// What a rule does with the rows of its table.
#[derive(Clone, PartialEq, Debug)]
pub enum TableWrite {
    /// `add`: columns grow. Without a version, since additions commute.
    Count {
        /// What each column grows by.
        add: NamedValues,
    },
    /// The row of the newest event. A deleted row stays, with `_deleted = 1`.
    Upsert {
        /// The columns, and what orders events.
        newest: Newest,
        /// `tie.precedence`.
        precedence: Option<PrecedenceDecl>,
        /// `tie.refetch`: whether the provider's API is asked.
        refetch: Option<Located<()>>,
    },
    /// Likewise; `tombstone = false`: a deleted row is removed.
    Remove {
        /// The columns, and what orders events.
        newest: Newest,
        /// `tie.precedence`.
        precedence: Option<PrecedenceDecl>,
    },
    /// `update`: only rows that are there.
    Update {
        /// The columns, and what orders events.
        newest: Newest,
        /// `tie.precedence`.
        precedence: Option<PrecedenceDecl>,
    },
    /// `each`: the rows of the newest event's list.
    List {
        /// The columns, and what orders events.
        newest: Newest,
        /// `tie.precedence`: patterns of event types, weakest first.
        precedence: Option<Vec<String>>,
        /// `tie.refetch`: whether the provider's API is asked.
        refetch: Option<Located<()>>,
    },
}

/// What the newest event writes, and which event that is.
#[derive(Clone, PartialEq, Debug)]
pub struct Newest {
    /// `set`: columns and where their values are from.
    pub set: NamedValues,
    /// `version`.
    pub version: Located<ValueDecl>,
    /// `delete`: patterns of the event types that delete.
    pub delete: Vec<Located<String>>,
}

impl TableDecl {
    /// What the newest event writes, unless the rule counts.
    pub const fn newest(&self) -> Option<&Newest> {
        match &self.write {
            TableWrite::Count { .. } => None,
            TableWrite::Upsert { newest, .. }
            | TableWrite::Remove { newest, .. }
            | TableWrite::Update { newest, .. }
            | TableWrite::List { newest, .. } => Some(newest),
        }
    }

    /// The columns that are not the key: those of `set`, or of `add`.
    pub fn columns(&self) -> &NamedValues {
        match &self.write {
            TableWrite::Count { add } => add,
            TableWrite::Upsert { newest, .. }
            | TableWrite::Remove { newest, .. }
            | TableWrite::Update { newest, .. }
            | TableWrite::List { newest, .. } => &newest.set,
        }
    }
}

/// What a rule sends, as written.
#[derive(Clone, PartialEq, Debug)]
pub enum SendDecl {
    /// `email`.
    Email(EmailDecl),
    /// `sms`.
    Sms(SmsDecl),
    /// `track`: what somebody did.
    Track(TrackDecl),
}

/// A rule's email as written.
#[derive(Clone, PartialEq, Debug)]
pub struct EmailDecl {
    /// `template`.
    pub template: Located<String>,
    /// `to`.
    pub to: Located<ValueDecl>,
    /// `cc`.
    pub cc: Option<Located<ValueDecl>>,
    /// `reply_to`.
    pub reply_to: Option<Located<ValueDecl>>,
    /// `data`.
    pub data: Located<NamedValues>,
    /// `delay`.
    pub delay: Duration,
}

/// Names, and where their values are from.
pub type NamedValues = Vec<(Located<String>, Located<ValueDecl>)>;

/// A rule's SMS as written.
#[derive(Clone, PartialEq, Debug)]
pub struct SmsDecl {
    /// `to`.
    pub to: Located<ValueDecl>,
    /// `body`: a template.
    pub body: Located<String>,
    /// `data`.
    pub data: Located<NamedValues>,
    /// `delay`.
    pub delay: Duration,
}

/// What a rule tracks, as written.
#[derive(Clone, PartialEq, Debug)]
pub struct TrackDecl {
    /// `provider`.
    pub provider: Located<Provider>,
    /// `event`: its name.
    pub event: String,
    /// `user`: who has done it.
    pub user: Located<ValueDecl>,
    /// `properties`.
    pub properties: NamedValues,
    /// `delay`.
    pub delay: Duration,
}

/// A condition as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConditionDecl {
    /// Where the value is.
    pub path: ValuePath,
    /// What it may be: JSON texts, of which one is enough.
    pub any_of: Vec<String>,
    /// If true, it has to be none of these.
    pub not: bool,
}

/// Where a template's texts are; what could not be read has been reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TemplateFiles {
    /// `subject`: the subject line itself.
    pub subject: Option<Located<String>>,
    /// `html`: a file, relative to hookmill.toml.
    pub html: Option<Located<String>>,
    /// `text`, likewise.
    pub text: Option<Located<String>>,
}

/// Where a value is from, as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ValueDecl {
    /// One path, or several of which the first that is there counts.
    Paths {
        /// Where.
        paths: Vec<ValuePath>,
        /// `{ rfc3339 = "…" }` and the like: the form that it has there.
        form: Form,
    },
    /// `{ value = … }`: always the same: a JSON text.
    Constant(String),
    /// `{ event = "id" }`: something that is known of every event.
    Event(EventField),
}

impl ValueDecl {
    /// Whether it is from the element of `each`.
    pub fn is_of_element(&self) -> bool {
        matches!(self, Self::Paths { paths, .. } if paths.iter().any(|path| path.element))
    }

    /// Whether it is a time.
    pub const fn is_time(&self) -> bool {
        matches!(self, Self::Paths { form, .. } if form.is_time())
    }
}

/// `tie.precedence`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PrecedenceDecl {
    /// `{ column = "status", order = ["trialing", "active"] }`.
    Column {
        /// The place of the column in `set`.
        column: usize,
        /// Its values, weakest first.
        order: Vec<String>,
    },
    /// `{ type = ["*.created", "*.updated"] }`: patterns of event types, weakest first.
    Type(Vec<String>),
}

/// The presets: rules in the language of hookmill.toml, without the sources in `on`, since a source names its preset.
/// Each with the schemes that sign its events.
pub(super) const PRESETS: [(&str, &[&str], &str); 6] = [
    ("clerk", &["clerk", "svix", "standard-webhooks"], include_str!("../../presets/clerk.toml")),
    ("paddle", &["paddle"], include_str!("../../presets/paddle.toml")),
    ("resend", &["resend", "svix", "standard-webhooks"], include_str!("../../presets/resend.toml")),
    ("sendgrid", &["sendgrid"], include_str!("../../presets/sendgrid.toml")),
    ("stripe", &["stripe"], include_str!("../../presets/stripe.toml")),
    ("twilio", &["twilio"], include_str!("../../presets/twilio.toml")),
];

/// Reads hookmill.toml. `file` is what messages call it.
///
/// Returns what could be read, and every fault; without faults the configuration is whole.
pub fn parse(file: &str, text: &str) -> (Config, Vec<ConfigError>) {
    let document = Document::new(file, text);
    let table = document.parse();
    let mut config = Config {
        ingress: Ingress {
            sources: Vec::new(),
            body_limit: 1024 * 1024,
            body_timeout: Duration::from_secs(10),
        },
        presets: BTreeMap::new(),
        unmatched: BTreeMap::new(),
        redact: BTreeMap::new(),
        apis: BTreeMap::new(),
        rules: Vec::new(),
        retry: Retry {
            max_attempts: 8,
            initial: Duration::from_secs(10),
            multiplier: 2.0,
            max: Duration::from_secs(3600),
            jitter: 0.5,
        },
        limits: Limits::default(),
        batch: Batch { size: limits::NATIVE_BATCH_MESSAGES, wait: Duration::ZERO },
        batch_size: None,
        retention: Retention::default(),
        emails: None,
        native_only: None,
        sms: None,
        tracking: Vec::new(),
        templates: BTreeMap::new(),
        tests: Vec::new(),
        access: None,
        alerts: None,
        migrations: None,
    };

    if document.faults() > 0 {
        // What a text with such faults means is a guess, and every guess would be one more error.
        let mut errors = document.into_errors();
        errors.sort();
        return (config, errors);
    }

    let root = document.root(&table);
    sources(&root, &mut config);
    ingress(&root, &mut config.ingress);
    retry(&root, &mut config.retry);
    config.limits = event_limits(&root);
    config.batch_size = batch(&root, &mut config.batch);
    retention(&root, &mut config.retention);
    config.emails = outgoing::emails(&root, &mut config.native_only);
    config.sms = outgoing::sms(&root);
    config.tracking = outgoing::tracking(&root);
    config.templates = outgoing::templates(&root);
    if let Some(section) = root.get("admin").and_then(|item| item.section("a table")) {
        config.access = section.get("access").and_then(|item| access(&item));
        section.finish();
    }
    config.alerts = outgoing::alerts(&root, config.emails.is_some());
    if let Some(section) = root.get("database").and_then(|item| item.section("a table")) {
        config.migrations = section.get("migrations").and_then(|item| item.string("a folder"));
        section.finish();
    }
    let errors_of_presets = rules(&root, &mut config);
    let sources = config.ingress.sources.iter().map(|source| source.name.clone()).collect();
    config.tests = tests(&root, &sources);
    root.finish();

    let mut errors = document.into_errors();
    errors.extend(errors_of_presets);
    errors.sort();
    (config, errors)
}

fn sources(root: &Section<'_>, config: &mut Config) {
    let hint = "add at least one source, such as [sources.stripe]";
    let Some(section) =
        root.require("sources", hint).and_then(|item| item.section("a table of sources"))
    else {
        return;
    };
    let members = section.members();
    if members.is_empty() {
        section.report(section.here.error("no source is configured").hint(hint));
    }
    for (name, item) in members {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(plain) {
            let problem = name.error(format!("invalid source name {:?}", name.value));
            item.report(problem.hint(
                "the name is part of a URL: use a-z, 0-9, `-` and `_`, at most 64 characters",
            ));
        }
        if let Some(section) = item.section("a table") {
            source(&name.value, section, config);
        }
    }
}

fn source(name: &str, section: Section<'_>, config: &mut Config) {
    let secrets = section
        .require(
            "secrets",
            "add the names of its secrets: secrets = [\"env:STRIPE_WEBHOOK_SECRET\"]",
        )
        .map(|item| secret_names(&item))
        .unwrap_or_default();
    let signing = source::signing(&section);
    let presets = PRESETS.map(|(preset, schemes, _)| (preset, (preset, schemes)));
    let preset = section.get("preset").and_then(|item| item.choice(&presets));
    if let (Some(preset), Some(signing)) = (&preset, &signing)
        && !preset.value.1.contains(&signing.scheme_name.as_str())
    {
        let needed: Vec<_> = preset.value.1.iter().map(|name| format!("{name:?}")).collect();
        let problem = preset
            .error(format!("this preset does not support the scheme {:?}", signing.scheme_name));
        section.report(problem.hint(format!("scheme = {}", needed.join(" or "))));
    }
    let rate_limit = section.get("rate_limit").and_then(|item| rate_limit(&item));
    let unknown = section.get("unmatched").and_then(|item| item.choice(&UNMATCHED));
    if let (Some(unknown), Some(signing)) = (&unknown, &signing)
        && unknown.value == Unmatched::Ignore
        && signing.scheme.leaves_body_open()
    {
        let problem = unknown.error(
            "the signature does not cover the body and an ignored event is not recorded, so an attacker could reuse the signature for another event",
        );
        section.report(problem.hint("use \"record\" or \"dead_letter\""));
    }
    let mut redact = section.get("redact").map(|item| redactions(&item)).unwrap_or_default();
    redact.extend(signing.iter().flat_map(source::Signing::proofs));
    if let Some(item) = section.get("api") {
        let preset = preset.as_ref().map(|preset| preset.value.0);
        let scheme = signing.as_ref().map(|signing| signing.scheme_name.as_str());
        match preset.into_iter().chain(scheme).find_map(refetch::provider) {
            Some(provider) => {
                let api = outgoing::api(provider, item.section("a table"));
                config.apis.insert(name.to_owned(), api);
            }
            None => item.report(
                item.here
                    .error("Hookmill cannot fetch objects from this provider's API")
                    .hint("remove `api`; it is supported for Stripe, Clerk and Paddle"),
            ),
        }
    }
    section.finish();

    if let Some(preset) = preset {
        config.presets.insert(name.to_owned(), preset.value.0);
    }
    config
        .unmatched
        .insert(name.to_owned(), unknown.map(|unknown| unknown.value).unwrap_or_default());
    config.redact.insert(name.to_owned(), redact);
    config.ingress.sources.extend(signing.map(|signing| Source {
        name: name.to_owned(),
        scheme_name: signing.scheme_name,
        scheme: signing.scheme,
        secrets,
        tolerance: signing.tolerance,
        public_url: signing.public_url,
        events: signing.events,
        answer: signing.answer,
        rate_limit,
    }));
}

/// What becomes of an event that no rule names, as hookmill.toml calls it.
pub(super) const UNMATCHED: [(&str, Unmatched); 3] = [
    ("ignore", Unmatched::Ignore),
    ("record", Unmatched::Record),
    ("dead_letter", Unmatched::DeadLetter),
];

/// The periods of rate limits, in seconds.
pub(super) const PERIODS: [(&str, u64); 3] = [("10s", 10), ("1m", 60), ("60s", 60)];

fn rate_limit(item: &Item<'_>) -> Option<RateLimit> {
    let expected = "a table: { requests = 1000, per = \"10s\" }";
    let section = item.section(expected)?;
    let requests = section.require("requests", expected);
    let requests = requests.and_then(|item| integer(&item, 1..=i64::from(u32::MAX)));
    let per = section.require("per", expected).and_then(|item| item.choice(&PERIODS));
    section.finish();
    Some(RateLimit {
        requests: u32::try_from(requests?).ok()?,
        per: Duration::from_secs(per?.value),
    })
}

/// Secrets are named, not held. What is not a name may be a secret, so it is never quoted.
fn redactions(item: &Item<'_>) -> Vec<Redaction> {
    let expected = "a path with names separated by `.`, such as `data.object.email`, `lines.*.name` or `**.email`";
    let entries = item.list("a list of paths such as \"data.object.email\"", false).into_iter();
    entries
        .filter_map(|entry| Some(entry.parsed(expected, str::parse::<Redaction>)?.value))
        .collect()
}

fn secret_names(item: &Item<'_>) -> Vec<SecretRef> {
    let expected = "a list of names such as \"env:STRIPE_WEBHOOK_SECRET\"";
    let mut names: Vec<SecretRef> = Vec::new();
    for entry in item.list(expected, false) {
        let (mut not_after, mut text) = (None, None);
        if entry.is_table() {
            if let Some(section) = entry.section(expected) {
                let hint = "{ name = \"env:NAME\", not_after = 2026-12-31T00:00:00Z }";
                text = section.require("name", hint).and_then(|item| item.string(expected));
                not_after = section.get("not_after").and_then(|item| item.time());
                section.finish();
            }
        } else {
            text = entry.string(expected);
        }
        let Some(text) = text else {
            continue;
        };
        match named(&entry, &text, "env:STRIPE_WEBHOOK_SECRET") {
            None => {}
            Some(name) if names.iter().any(|secret| secret.name == name) => {
                entry.report(text.error(format!("env:{} is listed twice", name.0)));
            }
            Some(name) => names.push(SecretRef { name, not_after }),
        }
    }
    if item.list(expected, true).is_empty() {
        item.report(
            item.here.error("the list of secrets is empty").hint(format!("expected {expected}")),
        );
    }
    if names.len() > limits::SECRETS {
        let problem = item.here.error(format!("{} secrets are listed", names.len()));
        item.report(problem.hint(format!("use at most {}", limits::SECRETS)));
    }
    names
}

/// The name of a secret.
pub(super) fn secret_name(item: &Item<'_>, example: &str) -> Option<SecretName> {
    let text = item.string(&format!("the name of a secret, such as {example:?}"))?;
    named(item, &text, example)
}

fn named(item: &Item<'_>, text: &Located<String>, example: &str) -> Option<SecretName> {
    let name = text.value.strip_prefix("env:").filter(|name| {
        name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
            && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    });
    if name.is_none() {
        let problem = text.error("not the name of a secret; never write a secret into this file");
        item.report(problem.hint(format!(
            "put the secret into an environment variable and use its name: {example:?}"
        )));
    }
    name.map(|name| SecretName(name.to_owned()))
}

fn ingress(root: &Section<'_>, ingress: &mut Ingress) {
    let Some(section) = root.get("ingress").and_then(|item| item.section("a table")) else {
        return;
    };
    if let Some(limit) =
        section.get("body_limit").and_then(|item| byte_size(&item, limits::BODY_BYTES))
    {
        ingress.body_limit = limit;
    }
    let range = Duration::from_millis(100)..=Duration::from_secs(300);
    if let Some(timeout) = section.get("body_timeout").and_then(|item| duration(&item, range)) {
        ingress.body_timeout = timeout;
    }
    section.finish();
}

fn retry(root: &Section<'_>, retry: &mut Retry) {
    let Some(section) = root.get("retry").and_then(|item| item.section("a table")) else {
        return;
    };
    let longest = Duration::from_secs(limits::DELAY_SECONDS);
    let range = Duration::from_millis(1)..=longest;
    if let Some(count) = section
        .get("max_attempts")
        .and_then(|item| integer(&item, 1..=i64::from(limits::PLATFORM_DELIVERIES) - 1))
    {
        retry.max_attempts = u32::try_from(count).unwrap_or(limits::PLATFORM_DELIVERIES - 1);
    }
    if let Some(initial) = section.get("initial").and_then(|item| duration(&item, range.clone())) {
        retry.initial = initial;
    }
    let max = section.get("max");
    if let Some(max) = max.as_ref().and_then(|item| duration(item, range)) {
        retry.max = max;
    }
    if retry.max < retry.initial {
        let here = max.map_or(section.here.clone(), |item| item.here);
        section.report(
            here.error("`max` is shorter than `initial`")
                .hint("the delay grows from `initial` to `max`; raise `max` or lower `initial`"),
        );
    }
    let number = |key, range: std::ops::RangeInclusive<f64>| {
        let item = section.get(key)?;
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let value = item.float(&expected)?;
        if range.contains(&value.value) {
            return Some(value.value);
        }
        item.report(
            value.error(format!("found {}", value.value)).hint(format!("expected {expected}")),
        );
        None
    };
    if let Some(multiplier) = number("multiplier", 1.0..=10.0) {
        retry.multiplier = multiplier;
    }
    if let Some(jitter) = number("jitter", 0.0..=1.0) {
        retry.jitter = jitter;
    }
    section.finish();
}

fn event_limits(root: &Section<'_>) -> Limits {
    let mut found = Limits::default();
    let Some(section) = root.get("limits").and_then(|item| item.section("a table")) else {
        return found;
    };
    let most = i64::try_from(limits::EVENT_ROWS).unwrap_or(i64::MAX);
    let rows = section.get("rows_per_event").and_then(|item| integer(&item, 1..=most));
    if let Some(rows) = rows.and_then(|rows| usize::try_from(rows).ok()) {
        found.rows = rows;
    }
    let bytes = section.get("bytes_per_event");
    if let Some(bytes) = bytes.and_then(|item| byte_size(&item, limits::EVENT_BYTES)) {
        found.bytes = bytes;
    }
    section.finish();
    found
}

fn retention(root: &Section<'_>, retention: &mut Retention) {
    let Some(section) = root.get("retention").and_then(|item| item.section("a table")) else {
        return;
    };
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let longest = days(3650);
    let read = |key, least: Duration, kept: &mut Option<Duration>| {
        if let Some(found) = section.get(key).and_then(|item| duration(&item, least..=longest)) {
            *kept = Some(found);
        }
    };
    // Providers send again for days by themselves, and for a month if somebody asks them to: Stripe for 30 days.
    read("events", days(35), &mut retention.events);
    read("messages", Duration::from_secs(3600), &mut retention.messages);
    read("settled", days(1), &mut retention.settled);
    read("dead_letters", days(1), &mut retention.dead_letters);
    read("audit", days(30), &mut retention.audit);
    section.finish();
}

/// `admin.access`.
fn access(item: &Item<'_>) -> Option<Access> {
    let section = item.section(
        "a table: { issuer = \"https://acme.cloudflareaccess.com\", audience = \"…\", operators = [] }",
    )?;
    let hint = "add the team's domain: issuer = \"https://acme.cloudflareaccess.com\"";
    let issuer = section.require("issuer", hint).and_then(|item| item.string("a URL"));
    if let Some(issuer) = &issuer
        && (!is_private(&issuer.value) || issuer.value.ends_with('/'))
    {
        let problem = issuer.error(format!("found {:?}", issuer.value));
        section.report(
            problem.hint("expected https:// and the team's domain, without a trailing slash"),
        );
    }
    let hint = "the application's audience tag (AUD), as Cloudflare shows it";
    let audience = section.require("audience", hint).and_then(|item| item.string("a tag"));
    if let Some(audience) = audience.as_ref().filter(|audience| audience.value.len() < 16) {
        let problem = audience.error(format!("found {:?}", audience.value));
        section.report(problem.hint(format!("expected {hint}: 64 hexadecimal digits")));
    }
    let operators = section.get("operators").into_iter().flat_map(|item| {
        let expected = "a list of email addresses and names of service tokens";
        let entries = item.list(expected, false).into_iter();
        let name = |entry: Item<'_>| {
            let name = entry.string(expected)?;
            if name.value.trim().is_empty() || name.value.contains('*') {
                let problem = name.error(format!("found {:?}", name.value));
                entry.report(problem.hint("expected one address or name, not a pattern"));
            }
            Some(name.value)
        };
        entries.filter_map(name).collect::<Vec<_>>()
    });
    let operators = operators.collect();
    section.finish();
    Some(Access { issuer: issuer?.value, audience: audience?.value, operators })
}

/// Whether nobody on the way can read what is sent there.
pub(super) fn is_private(url: &str) -> bool {
    let loopback = ["http://localhost", "http://127.0.0.1", "http://[::1]"];
    url.starts_with("https://") || loopback.iter().any(|l| url.starts_with(l))
}

/// Returns the size, if it is written.
fn batch(root: &Section<'_>, batch: &mut Batch) -> Option<Located<usize>> {
    let section = root.get("queue").and_then(|item| item.section("a table"))?;
    let most = i64::try_from(limits::BATCH_MESSAGES).unwrap_or(i64::MAX);
    let size = section.get("batch_size").and_then(|item| {
        let size = integer(&item, 1..=most)?;
        Some(item.here.map(|()| usize::try_from(size).unwrap_or(limits::BATCH_MESSAGES)))
    });
    if let Some(size) = &size {
        batch.size = size.value;
    }
    let range = Duration::ZERO..=Duration::from_secs(60);
    if let Some(wait) = section.get("batch_wait").and_then(|item| duration(&item, range)) {
        batch.wait = wait;
    }
    section.finish();
    size
}

/// Reads the rules of the presets and of the file. Returns the faults of the presets, which have a file of their own.
fn rules(root: &Section<'_>, config: &mut Config) -> Vec<ConfigError> {
    let sources: BTreeSet<String> =
        config.ingress.sources.iter().map(|source| source.name.clone()).collect();
    let mut own = Vec::new();
    if let Some(item) = root.get("rules") {
        for entry in item.list("a list of rules: [[rules]]", false) {
            own.extend(rule(&entry, &Sources::Named(&sources)));
        }
    }
    for (i, rule) in own.iter().enumerate() {
        if own[..i].iter().any(|other: &RuleDecl| other.name.value == rule.name.value) {
            root.report(rule.name.error(format!("two rules have the name {:?}", rule.name.value)));
        }
    }
    let mut errors = Vec::new();
    for (preset, _, text) in PRESETS {
        let users: Vec<_> = config
            .presets
            .iter()
            .filter(|(_, p)| **p == preset)
            .map(|(source, _)| source)
            .collect();
        if users.is_empty() {
            continue;
        }
        let document = Document::new(&format!("presets/{preset}.toml"), text);
        let table = document.parse();
        let root = document.root(&table);
        if let Some(item) = root.get("rules") {
            for entry in item.list("a list of rules", false) {
                let rule = rule(&entry, &Sources::Preset(&users));
                let mine = own.iter().filter(|own| {
                    rule.as_ref().is_some_and(|rule| rule.name.value == own.name.value)
                });
                errors.extend(mine.filter_map(|own| left_out(own, preset, &users)));
                // A rule of the file replaces the preset's rule of the same name.
                config.rules.extend(
                    rule.filter(|rule| {
                        !own.iter().any(|other| other.name.value == rule.name.value)
                    }),
                );
            }
        }
        root.finish();
        errors.extend(document.into_errors());
    }
    config.rules.extend(own);
    errors
}

/// The fault of a rule that takes the place of a preset's, and leaves a source out that has the preset as well.
fn left_out(own: &RuleDecl, preset: &str, users: &[&String]) -> Option<ConfigError> {
    let named = |source: &str| own.on.iter().any(|pattern| pattern.source == source);
    let source = users.iter().find(|source| !named(source))?;
    let name = &own.name.value;
    let problem = own.name.error(format!(
        "it replaces the preset's rule {name:?} but does not cover `{source}`, which has the preset {preset:?} as well"
    ));
    Some(problem.hint(format!("name the events of `{source}` in `on`, or choose another name")))
}

/// Which sources a pattern of `on` is about.
enum Sources<'a> {
    /// It names one of these: `stripe:invoice.*`.
    Named(&'a BTreeSet<String>),
    /// It is in a preset, and about the sources that have it: `invoice.*`.
    Preset(&'a [&'a String]),
}

fn rule(item: &Item<'_>, sources: &Sources<'_>) -> Option<RuleDecl> {
    let section = item.section("a rule: [[rules]]")?;
    let name = section.require("name", "add a unique name");
    let name = name.and_then(|item| item.string("a name"));
    let example = "add the events: on = [\"stripe:invoice.*\"]";
    let on = section.require("on", example).map(|item| {
        let list = item.list("a list of events", true);
        if list.is_empty() {
            item.report(item.here.error("the list of events is empty").hint(example));
        }
        list.iter().flat_map(|item| patterns(item, sources)).collect::<Vec<_>>()
    });
    let on = on.unwrap_or_default();
    let handler = section.get("handler").and_then(|item| item.string("the name of a handler"));
    let each = section.get("each").and_then(|item| {
        item.parsed("a path to a list, such as \"data.object.items.data\"", str::parse::<ValuePath>)
    });
    if let Some(list) = each.as_ref().filter(|list| list.value.element) {
        let problem = list.error(format!("found {:?}", list.value.to_string()));
        section.report(
            problem.hint("expected a path into the body; `@` refers to an element of this list"),
        );
    }
    let when = section.get("when").map(|item| outgoing::conditions(&item)).unwrap_or_default();
    let sends = ["email", "sms", "track", "outcome", "suppress"].map(|key| section.get(key));
    let effect = if sends.iter().any(Option::is_some) {
        let said: Vec<_> = sends.iter().flatten().collect();
        if said.len() > 1 {
            let problem = section.here.error("a rule can have only one effect");
            section.report(problem.hint("move the other effect to another rule"));
        }
        if let Some(list) = &each {
            let problem = list.error("`each` works only with `table`");
            section.report(problem.hint("remove `each`: a rule sends once for each event"));
        }
        let readers = [
            outgoing::email,
            outgoing::text,
            outgoing::track,
            outgoing::outcome,
            outgoing::suppress,
        ];
        section.finish();
        let read = sends.iter().zip(readers).filter_map(|(item, read)| read(item.as_ref()?));
        // Each is read, so that what is wrong with it is reported.
        read.collect::<Vec<_>>().pop()?
    } else {
        let rule = TableRule {
            on: &on,
            name: name.as_ref(),
            has_each: each.is_some(),
            has_handler: handler.is_some(),
        };
        EffectDecl::Table(table(section, &rule)?)
    };
    let preset = matches!(sources, Sources::Preset(_));
    let rule = RuleDecl { name: name?, preset, on, handler, each, when, effect };
    if rule.each.is_none() {
        rule.report_elements(item);
    }
    Some(rule)
}

impl RuleDecl {
    /// Reports every path that begins at an element, where there is no list.
    fn report_elements(&self, item: &Item<'_>) {
        let mut values: Vec<&Located<ValueDecl>> = Vec::new();
        match &self.effect {
            EffectDecl::Table(table) => {
                values.extend(table.key.iter().chain(table.columns()).map(|(_, value)| value));
                values.extend(table.newest().map(|newest| &newest.version));
            }
            EffectDecl::Send(SendDecl::Email(email)) => {
                values.extend(
                    [Some(&email.to), email.cc.as_ref(), email.reply_to.as_ref()]
                        .into_iter()
                        .flatten(),
                );
                values.extend(email.data.value.iter().map(|(_, value)| value));
            }
            EffectDecl::Send(SendDecl::Sms(sms)) => {
                values.extend(sms.data.value.iter().map(|(_, value)| value).chain([&sms.to]));
            }
            EffectDecl::Send(SendDecl::Track(track)) => {
                values.extend(track.properties.iter().map(|(_, value)| value).chain([&track.user]));
            }
            EffectDecl::Outcome { of: value, .. } | EffectDecl::Suppress { address: value, .. } => {
                values.push(value);
            }
        }
        let hint = "`@` refers to an element of the list that `each` selects: each = \"data.object.items.data\"";
        for value in values.into_iter().filter(|value| value.value.is_of_element()) {
            item.report(value.error("`each` is missing").hint(hint));
        }
        if let Some(when) = self.when.iter().find(|when| when.path.element) {
            let problem =
                format!("`when` asks for {:?}, but `each` is missing", when.path.to_string());
            item.report(self.name.error(problem).hint(hint));
        }
    }
}

/// What of a rule decides how it writes its table.
struct TableRule<'r> {
    on: &'r [Pattern],
    name: Option<&'r Located<String>>,
    has_each: bool,
    has_handler: bool,
}

/// The rest of a rule that writes a table.
fn table(section: Section<'_>, rule: &TableRule<'_>) -> Option<TableDecl> {
    let table = section
        .require("table", "add the table that the rule writes, or another effect such as `email`")
        .and_then(|item| item.string("the name of a table"));
    let key = section.require("key", "add the row's key: key = { id = \"data.object.id\" }");
    let key = key.map(|item| values(&item, false)).unwrap_or_default();
    let set = section.get("set").map(|item| values(&item, false)).unwrap_or_default();
    let add = section.get("add").map(|item| values(&item, true)).unwrap_or_default();
    for (name, _) in set.iter().chain(&add) {
        if key.iter().any(|(key, _)| key.value == name.value) {
            section.report(name.error(format!("`{}` is part of the key", name.value)));
        }
    }
    // A version that cannot be read is one all the same, for what else is said of the rule.
    let version = section.get("version").map(|item| item.here.clone().map(|()| version(&item)));
    let tie = section.get("tie").map(|item| tie(&item, rule.on)).unwrap_or_default();
    let delete: Vec<_> = section
        .get("delete")
        .map(|item| item.list("a list of event types", true))
        .unwrap_or_default()
        .iter()
        .filter_map(|item| {
            item.string("an event type such as \"customer.deleted\" or \"*.deleted\"")
        })
        .inspect(|text| section.report_all(not_of(rule.on, text)))
        .collect();
    let update = section.get("update").and_then(|item| item.boolean()).unwrap_or(false);
    let tombstone = section.get("tombstone").and_then(|item| item.boolean());
    if let (Some(item), true) = (section.get("tombstone"), delete.is_empty()) {
        let problem = item.here.error("`tombstone` needs `delete`");
        section.report(problem.hint("add the event types that delete: delete = \"*.deleted\""));
    }
    let tombstone = tombstone.unwrap_or(true);
    let write = match version {
        None => {
            if add.is_empty() {
                section.report(rule.error(&section, "the rule needs `version` or `add`").hint(
                    "add what orders the events (version = \"created\"), or what to count (add = { total = 1 })",
                ));
            } else if let Some((name, _)) = set.first() {
                let problem = name.error("`set` needs a `version`");
                section.report(
                    problem.hint("without it, the row would depend on the order of arrival"),
                );
            }
            if !delete.is_empty() || tie.is_said() || update || !tombstone {
                let problem = "`delete`, `tie`, `update` and `tombstone` need a `version`";
                section.report(rule.error(&section, problem));
            }
            // Reported already: the columns are written all the same, for what else is said of the rule.
            TableWrite::Count { add: if add.is_empty() { set } else { add } }
        }
        Some(version) => {
            if let Some((name, _)) = add.first() {
                let problem = name.error("a rule with a `version` cannot `add`");
                section
                    .report(problem.hint(
                        "count in a separate table, with a rule without `version` and `set`",
                    ));
            }
            if matches!(version.value, ValueDecl::Constant(_)) && tie.precedence.is_none() {
                let problem =
                    version.error("all events have the same version, but `tie` is missing");
                section
                    .report(problem.hint("add what orders the events: tie = { precedence = … }"));
            }
            newest(&section, rule, Newest { set, version, delete }, tie, update, tombstone)
        }
    };
    section.finish();
    Some(TableDecl { table: table?, key, write })
}

impl TableRule<'_> {
    fn error(&self, section: &Section<'_>, problem: &str) -> ConfigError {
        match self.name {
            Some(name) => name.error(problem),
            None => section.here.error(problem),
        }
    }
}

/// Which of the ways to keep the newest event's rows a rule has. What goes together with none of them is reported.
fn newest(
    section: &Section<'_>,
    rule: &TableRule<'_>,
    newest: Newest,
    Tie { precedence, refetch }: Tie,
    update: bool,
    tombstone: bool,
) -> TableWrite {
    let fits = !rule.has_handler && (rule.has_each || (!update && tombstone));
    if let Some(said) = refetch.as_ref().filter(|_| !fits) {
        let problem =
            said.error("`refetch` works only in a rule that keeps the newest state of rows");
        section.report(
            problem.hint("remove it, or remove `update`, `tombstone`, `add` and `handler`"),
        );
    }
    let refetch = refetch.filter(|_| fits);
    if rule.has_each {
        if update || !tombstone {
            let problem =
                rule.error(section, "`update` and `tombstone` cannot be combined with `each`");
            section.report(problem.hint("remove them: Hookmill removes rows that leave the list"));
        }
        let precedence = precedence.and_then(|precedence| match precedence.value {
            TieBreak::Type(types) => Some(types),
            TieBreak::Column { .. } => {
                let problem = precedence.error("a list has no column to compare");
                section
                    .report(problem.hint("precedence = { type = [\"*.created\", \"*.updated\"] }"));
                None
            }
        });
        return TableWrite::List { newest, precedence, refetch };
    }
    let precedence = precedence.and_then(|precedence| match &precedence.value {
        TieBreak::Type(types) => Some(PrecedenceDecl::Type(types.clone())),
        TieBreak::Column { column, order } => {
            let mut names = newest.set.iter().map(|(name, _)| name.value.as_str());
            match names.position(|name| name == column) {
                Some(column) => Some(PrecedenceDecl::Column { column, order: order.clone() }),
                None => {
                    let problem = precedence.error(format!("`{column}` is not set by this rule"));
                    let names = newest.set.iter().map(|(name, _)| name.value.as_str());
                    section.report(problem.suggest(column, names));
                    None
                }
            }
        }
    });
    match (update, tombstone) {
        (true, false) => {
            let problem = rule.error(section, "a rule with `update` cannot remove rows");
            section.report(problem.hint("remove `tombstone`: `_deleted` marks deleted rows"));
            TableWrite::Update { newest, precedence }
        }
        (true, true) => TableWrite::Update { newest, precedence },
        (false, true) => TableWrite::Upsert { newest, precedence, refetch },
        (false, false) => TableWrite::Remove { newest, precedence },
    }
}
/// Which of two events is newer: a whole number, or a time.
fn version(item: &Item<'_>) -> ValueDecl {
    let found = value(item);
    let fits = match &found {
        ValueDecl::Paths { form, .. } => {
            form.is_time() || matches!(form, Form::AsIs | Form::Decimal { .. })
        }
        ValueDecl::Event(field) => *field == EventField::ReceivedAt,
        // What cannot be read has been reported.
        ValueDecl::Constant(json) => json == "null" || json.parse::<i64>().is_ok(),
    };
    if let ValueDecl::Event(EventField::ReceivedAt) = found {
        let problem = item.here.error("the order of arrival is not the order of events");
        item.report(problem.hint("use a value of the provider: version = \"created\""));
    } else if !fits {
        let problem = item.here.error("not a usable version");
        item.report(problem.hint(
            "expected a path to a whole number, or to a time: { rfc3339 = \"occurred_at\" }",
        ));
    }
    found
}

fn patterns(item: &Item<'_>, sources: &Sources<'_>) -> Vec<Pattern> {
    let expected = "an event such as \"stripe:invoice.paid\" or \"stripe:invoice.*\"";
    let Some(text) = item.string(expected) else {
        return Vec::new();
    };
    match sources {
        Sources::Preset(users) => users
            .iter()
            .map(|source| Pattern { source: (*source).clone(), event_type: text.value.clone() })
            .collect(),
        Sources::Named(names) => {
            let error = text.error(format!("found {:?}", text.value));
            match text.value.split_once(':') {
                None => item.report(error.hint(format!("expected {expected}"))),
                Some((_, "")) => item
                    .report(error.hint("the type of the event is missing; `*` means every type")),
                Some((_, event_type))
                    if event_type.contains(|c: char| c.is_whitespace() || c.is_control()) =>
                {
                    item.report(error.hint("an event type cannot contain whitespace"));
                }
                Some((source, event_type)) if names.contains(source) => {
                    return vec![Pattern {
                        source: source.to_owned(),
                        event_type: event_type.to_owned(),
                    }];
                }
                Some((source, _)) => {
                    let error = text.error(format!("no source has the name `{source}`"));
                    item.report(error.suggest(source, names.iter().map(String::as_str)));
                }
            }
            Vec::new()
        }
    }
}

/// The fault of a pattern of event types that fits none of the events the rule is about.
fn not_of(on: &[Pattern], text: &Located<String>) -> Option<ConfigError> {
    // Without any, that is the fault, and it has been reported.
    if on.is_empty() || on.iter().any(|pattern| pattern.may_be(&text.value)) {
        return None;
    }
    let error = text.error(format!("`on` matches no event of type {:?}", text.value));
    let types = on.iter().map(|pattern| format!("{:?}", pattern.event_type));
    let types = types.collect::<Vec<_>>().join(", ");
    Some(error.hint(format!("expected a type without its source, from those in `on`: {types}")))
}

fn values(item: &Item<'_>, numbers: bool) -> Vec<(Located<String>, Located<ValueDecl>)> {
    let Some(section) =
        item.section("columns and paths of their values: { id = \"data.object.id\" }")
    else {
        return Vec::new();
    };
    let value = |item: &Item<'_>| {
        if numbers && !item.is_string() && !item.is_table() && !item.is_list() {
            let number = item.integer("a whole number, or a path");
            return ValueDecl::Constant(number.map_or(0, |number| number.value).to_string());
        }
        value(item)
    };
    let members = section.members();
    members
        .iter()
        .map(|(column, item)| (column.clone(), item.here.clone().map(|()| value(item))))
        .collect()
}

/// A value that cannot be read stands for its column all the same, for what else is said of the rule.
pub(super) fn value(item: &Item<'_>) -> ValueDecl {
    let expected =
        "a path, a list of paths (the first one found is used), or a table such as { value = … }";
    if !item.is_table() {
        return ValueDecl::Paths { paths: paths(item, expected), form: Form::AsIs };
    }
    formed(item).unwrap_or_else(|| ValueDecl::Constant("null".to_owned()))
}

fn paths(item: &Item<'_>, expected: &str) -> Vec<ValuePath> {
    let list = item.list(expected, item.is_string());
    if list.is_empty() && item.is_list() {
        item.report(item.here.error("no path is given").hint(format!("expected {expected}")));
    }
    let path =
        |item: &Item<'_>| item.parsed("a path such as \"data.object.id\"", str::parse::<ValuePath>);
    list.iter().filter_map(path).map(|path| path.value).collect()
}

/// Forms of values, as hookmill.toml calls them.
pub(super) const FORMS: [(&str, Form); 8] = [
    ("text", Form::Text),
    ("json", Form::Json),
    ("boolean", Form::Boolean),
    ("integer", Form::Decimal { scale: 0 }),
    ("decimal", Form::Decimal { scale: 0 }),
    ("unix_seconds", Form::UnixSeconds),
    ("unix_milliseconds", Form::UnixMilliseconds),
    ("rfc3339", Form::Rfc3339),
];

/// A value that is said by a table: `{ value = … }`, `{ event = "id" }` or `{ rfc3339 = "occurred_at" }`.
fn formed(item: &Item<'_>) -> Option<ValueDecl> {
    let section = item.section("a table")?;
    let constant = section.get("value").map(|item| item.json().map(ValueDecl::Constant));
    let event = section.get("event");
    let event = event.map(|item| Some(ValueDecl::Event(item.choice(&EventField::ALL)?.value)));
    let found = FORMS.iter().filter_map(|(name, form)| Some((*name, *form, section.get(name)?)));
    let found = found.map(|(name, form, item)| {
        let paths = paths(&item, "a path, or a list of paths (the first one found is used)");
        let form = match name {
            "decimal" => {
                let hint = "add the number of decimal places: { decimal = \"amount\", scale = 2 }";
                let scale = section.require("scale", hint).and_then(|item| integer(&item, 0..=18));
                Form::Decimal { scale: scale.and_then(|scale| u32::try_from(scale).ok())? }
            }
            _ => form,
        };
        Some(ValueDecl::Paths { paths, form })
    });
    let mut found: Vec<_> = found.chain(constant).chain(event).collect();
    if found.len() == 1 {
        section.finish();
        return found.pop()?;
    }
    let names = FORMS.map(|(name, _)| name).join(", ");
    let problem = section.here.error("unknown value form");
    section.report(problem.hint(format!("expected one of value, event, {names}")));
    None
}

/// What decides between events of equal version: `precedence`, and `refetch`.
/// What decides between events of one version.
#[derive(Default)]
struct Tie {
    precedence: Option<Located<TieBreak>>,
    refetch: Option<Located<()>>,
}

impl Tie {
    const fn is_said(&self) -> bool {
        self.precedence.is_some() || self.refetch.is_some()
    }
}

/// `tie.precedence` as written.
enum TieBreak {
    Column { column: String, order: Vec<String> },
    Type(Vec<String>),
}

fn tie(item: &Item<'_>, on: &[Pattern]) -> Tie {
    let example = "precedence = { column = \"status\", order = [\"trialing\", \"active\"] }, or { type = [\"*.created\", \"*.updated\"] }; or refetch = true";
    let Some(section) = item.section(example) else { return Tie::default() };
    let found = section.get("precedence");
    let refetch = section.get("refetch").and_then(|item| item.boolean()?.then_some(item.here));
    if found.is_none() && section.get("refetch").is_none() {
        let missing = section.here.error("`precedence` is missing");
        section.report(missing.hint(example));
    }
    section.finish();
    Tie { precedence: found.and_then(|item| precedence(&item, on, example)), refetch }
}

fn precedence(item: &Item<'_>, on: &[Pattern], example: &str) -> Option<Located<TieBreak>> {
    let section = item.section(example)?;
    let words = |item: &Item<'_>| -> Vec<Located<String>> {
        let list = item.list("a list, weakest first", false);
        if list.is_empty() && item.is_list() {
            item.report(
                item.here.error("the list is empty").hint("expected a list, weakest first"),
            );
        }
        let words: Vec<_> = list.iter().filter_map(|item| item.string("a text")).collect();
        for (i, word) in words.iter().enumerate() {
            if words[..i].iter().any(|other| other.value == word.value) {
                item.report(word.error(format!("{:?} is listed twice", word.value)));
            }
        }
        words
    };
    let texts = |words: Vec<Located<String>>| words.into_iter().map(|word| word.value).collect();
    let column = section.get("column").and_then(|item| item.string("a column of `set`"));
    let order = section.get("order").map(|item| texts(words(&item)));
    let types = section.get("type").map(|item| {
        let types = words(&item);
        section.report_all(types.iter().filter_map(|text| not_of(on, text)));
        texts(types)
    });
    let here = section.here.clone();
    let found = match (column, order, types) {
        (Some(column), Some(order), None) => Some(TieBreak::Column { column: column.value, order }),
        (None, None, Some(types)) => Some(TieBreak::Type(types)),
        _ => {
            section.report(
                here.error("`precedence` needs either `column` and `order`, or `type`")
                    .hint(format!("expected {example}")),
            );
            None
        }
    };
    section.finish();
    found.map(|found| here.map(|()| found))
}

pub(super) fn duration(
    item: &Item<'_>,
    range: std::ops::RangeInclusive<Duration>,
) -> Option<Duration> {
    let found = item.parsed("a duration such as \"5m\"", humantime::parse_duration)?;
    if range.contains(&found.value) {
        return Some(found.value);
    }
    let (least, most) = range.into_inner();
    let hint = format!("expected a duration from {} to {}", said(least), said(most));
    item.report(found.error(format!("found {}", said(found.value))).hint(hint));
    None
}

/// A duration as people write it: in days, where there are whole ones, since months are of no certain length.
fn said(duration: Duration) -> String {
    const DAY: u64 = 86_400;
    match duration.as_secs() {
        seconds if seconds >= DAY && seconds.is_multiple_of(DAY) => format!("{}d", seconds / DAY),
        _ => humantime::format_duration(duration).to_string(),
    }
}

pub(super) fn integer(item: &Item<'_>, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    let found = item.integer(&expected)?;
    if range.contains(&found.value) {
        return Some(found.value);
    }
    item.report(found.error(format!("found {}", found.value)).hint(format!("expected {expected}")));
    None
}

fn byte_size(item: &Item<'_>, most: usize) -> Option<usize> {
    let found = item.parsed("a size such as \"1MiB\"", str::parse::<bytesize::ByteSize>)?;
    let bytes = usize::try_from(found.value.as_u64()).unwrap_or(usize::MAX);
    if (1..=most).contains(&bytes) {
        return Some(bytes);
    }
    let most = bytesize::ByteSize(most as u64);
    item.report(
        found.error(format!("found {}", found.value)).hint(format!("expected at most {most}")),
    );
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::Tolerance;
    use crate::time::Timestamp;

    fn errors(text: &str) -> String {
        let (_, errors) = parse("hookmill.toml", text);
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    const GOOD: &str = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\n";

    #[test]
    fn defaults_are_filled_in() {
        let (config, errors) = parse("hookmill.toml", GOOD);
        assert!(errors.is_empty());
        insta::assert_debug_snapshot!(
            (&config.ingress.body_limit, &config.ingress.body_timeout, &config.unmatched, &config.retry, &config.limits, &config.batch, &config.retention),
            @r#"
        (
            1048576,
            10s,
            {
                "stripe": Record,
            },
            Retry {
                max_attempts: 8,
                initial: 10s,
                multiplier: 2.0,
                max: 3600s,
                jitter: 0.5,
            },
            Limits {
                rows: 10000,
                bytes: 16777216,
            },
            Batch {
                size: 1000,
                wait: 0ns,
            },
            Retention {
                events: None,
                messages: None,
                settled: Some(
                    7776000s,
                ),
                dead_letters: None,
                audit: None,
            },
        )
        "#
        );
        let source = &config.ingress.sources[0];
        let minutes = Duration::from_secs(300);
        assert_eq!(source.tolerance, Some(Tolerance { past: minutes, future: minutes }));
        assert_eq!(source.secrets, [SecretRef { name: SecretName("A".into()), not_after: None }]);
    }

    #[test]
    fn every_scheme_is_whole() {
        for scheme in source::scheme_names() {
            let mut text = format!("[sources.s]\nscheme = \"{scheme}\"\nsecrets = [\"env:A\"]\n");
            if ["hubspot", "square", "twilio"].contains(&scheme) {
                text += "public_url = \"https://a.test/s\"\n";
            }
            let (config, errors) = parse("hookmill.toml", &text);
            let general = ["ed25519", "ecdsa-p256", "hmac", "token"].contains(&scheme);
            assert_eq!(errors.is_empty(), !general, "{scheme}: {errors:?}");
            assert_eq!(config.ingress.sources.len(), usize::from(!general), "{scheme}");
        }
    }

    #[test]
    fn faults_of_tests_are_reported_with_what_would_do() {
        let source = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\n";
        let tests = |lines: &str| errors(&format!("{source}[[tests]]\n{lines}"));
        let given = "given = { source = \"stripe\", file = \"a.json\" }\n";
        let expect = |text: &str| tests(&format!("{given}expect = {text}"));
        insta::assert_snapshot!([
            tests(""),
            tests("given = { source = \"strip\", path = \"a.json\" }\nexpect = \"nothing\""),
            expect("\"something\""),
            expect("{ table = \"a\" }"),
            expect("[{ table = \"a\", rows = \"1\" }, { outcome = \"buried\" }]"),
            expect("[{ table = \"a\", rows = -1 }, { table = \"a\", row = 1 }, { email = \"a\" }]"),
            expect("{ email = { template = \"a\" }, to = \"b\" }"),
            expect("{ row = { id = 1 } }"),
        ]
        .join("\n"), @r#"
        hookmill.toml:4:1: tests[0]: `expect` is missing
          hint: add the expected results: expect = { table = "invoices", row = { id = "in_1" } }
        hookmill.toml:4:1: tests[0]: `given` is missing
          hint: add the events: given = { source = "stripe", file = "tests/paid.json" }
        hookmill.toml:5:9: tests[0].given: `file` is missing
          hint: add the file with its body: file = "tests/paid.json"
        hookmill.toml:5:20: tests[0].given.source: no source has the name `strip`
          hint: did you mean `stripe`?
        hookmill.toml:5:29: tests[0].given: unknown key `path`
          hint: possible here: `source`, `file`, `event`, `id`
        hookmill.toml:6:10: tests[0].expect: found "something"
          hint: expected "nothing", or a table with `table`, `email`, `sms`, `track` or `outcome`
        hookmill.toml:6:10: tests[0].expect: `row` is missing
          hint: add the expected row, row = { id = "in_1" }, or the number of rows, rows = 0
        hookmill.toml:6:33: tests[0].expect[0].rows: found a string
          hint: expected a number of rows
        hookmill.toml:6:52: tests[0].expect[1].outcome: found "buried"
          hint: possible here: `applied`, `recorded`, `ignored`, `dead_letter`
        hookmill.toml:6:33: tests[0].expect[0].rows: found -1
          hint: expected a number of rows
        hookmill.toml:6:60: tests[0].expect[1].row: found a whole number
          hint: expected columns and their values: row = { id = "in_1" }
        hookmill.toml:6:75: tests[0].expect[2].email: found a string
          hint: expected a table of expected values
        hookmill.toml:6:40: tests[0].expect: unknown key `to`
          hint: possible here: `table`, `email`
        hookmill.toml:6:10: tests[0].expect: `outcome` is missing
          hint: "nothing", or a table with `table`, `email`, `sms`, `track` or `outcome`
        hookmill.toml:6:12: tests[0].expect: unknown key `row`
          hint: possible here: `table`, `email`, `sms`, `track`, `outcome`
        "#);
    }

    #[test]
    fn faults_of_access_are_reported_with_what_would_do() {
        let source = "[sources.s]\nscheme = \"github\"\nsecrets = [\"env:A\"]\n";
        let access = |lines: &str| errors(&format!("{source}[admin.access]\n{lines}"));
        insta::assert_snapshot!([
            access(""),
            access("issuer = \"acme.cloudflareaccess.com\"\naudience = \"short\""),
            access("issuer = \"https://a.cloudflareaccess.com/\"\naudience = \"0123456789abcdef\"\noperators = [\"\", \"*@a.test\", 1]"),
        ]
        .join("\n"), @r#"
        hookmill.toml:4:1: admin.access: `audience` is missing
          hint: the application's audience tag (AUD), as Cloudflare shows it
        hookmill.toml:4:1: admin.access: `issuer` is missing
          hint: add the team's domain: issuer = "https://acme.cloudflareaccess.com"
        hookmill.toml:5:10: admin.access.issuer: found "acme.cloudflareaccess.com"
          hint: expected https:// and the team's domain, without a trailing slash
        hookmill.toml:6:12: admin.access.audience: found "short"
          hint: expected the application's audience tag (AUD), as Cloudflare shows it: 64 hexadecimal digits
        hookmill.toml:5:10: admin.access.issuer: found "https://a.cloudflareaccess.com/"
          hint: expected https:// and the team's domain, without a trailing slash
        hookmill.toml:7:14: admin.access.operators[0]: found ""
          hint: expected one address or name, not a pattern
        hookmill.toml:7:18: admin.access.operators[1]: found "*@a.test"
          hint: expected one address or name, not a pattern
        hookmill.toml:7:30: admin.access.operators[2]: found a whole number
          hint: expected a list of email addresses and names of service tokens
        "#);
    }

    #[test]
    fn a_server_for_emails_is_a_url_and_a_user() {
        let api = |lines: &str| {
            let email = "[email]\nprovider = \"smtp\"\nfrom = \"a@b.test\"\n[email.smtp]\n";
            let (config, errors) = parse("hookmill.toml", &format!("{GOOD}{email}{lines}"));
            assert_eq!(errors, []);
            assert_eq!(config.native_only.unwrap().value, Provider::Smtp);
            let [api] = config.emails.unwrap().sending.apis.try_into().unwrap();
            (api.url, api.user, api.key.0, api.rate)
        };
        let password = || "SMTP_PASSWORD".to_owned();
        assert_eq!(
            api("host = \"a.test\""),
            ("smtp+starttls://a.test:587".to_owned(), None, password(), 10)
        );
        assert_eq!(
            api(
                "host = \"a.test\"\ntls = \"implicit\"\nuser = \"u\"\npassword = \"env:P\"\nrate = 1"
            ),
            ("smtps://a.test:465".to_owned(), Some("u".to_owned()), "P".to_owned(), 1)
        );
        assert_eq!(
            api("host = \"localhost\"\ntls = \"none\"\nport = 1025").0,
            "smtp://localhost:1025"
        );
    }

    #[test]
    fn faults_of_a_server_for_emails_are_reported_with_what_would_do() {
        let smtp = |lines: &str| {
            errors(&format!("{GOOD}[email]\nprovider = \"smtp\"\nfrom = \"a@b.test\"\n{lines}"))
        };
        insta::assert_snapshot!([
            smtp(""),
            smtp("[email.smtp]"),
            smtp("smtp = 1"),
            smtp("[email.smtp]\nhost = \"https://a.test\"\npassword = \"hunter2\"\nport = 0\ntls = \"required\"\nkey = \"env:A\""),
            smtp("[email.smtp]\nhost = \"a.test\"\ntls = \"none\"\npassword = \"env:A\""),
        ]
        .join("\n"), @r#"
        hookmill.toml:5:12: email.provider: `[email.smtp]` is missing
          hint: add the server: smtp = { host = "email-smtp.us-east-1.amazonaws.com", user = "AKIA…" }
        hookmill.toml:7:1: email.smtp: `host` is missing
          hint: add the server: host = "email-smtp.us-east-1.amazonaws.com"
        hookmill.toml:7:8: email.smtp: found a whole number
          hint: expected a table
        hookmill.toml:8:8: email.smtp.host: found "https://a.test"
          hint: expected a host name such as "mail.example.com"; `port` and `tls` are separate keys
        hookmill.toml:9:12: email.smtp.password: `password` needs a `user`
          hint: add the user: user = "AKIA…"
        hookmill.toml:9:12: email.smtp.password: not the name of a secret; never write a secret into this file
          hint: put the secret into an environment variable and use its name: "env:SMTP_PASSWORD"
        hookmill.toml:10:8: email.smtp.port: found 0
          hint: expected a whole number from 1 to 65535
        hookmill.toml:11:7: email.smtp.tls: found "required"
          hint: possible here: `starttls`, `implicit`, `none`
        hookmill.toml:12:1: email.smtp: unknown key `key`
          hint: possible here: `host`, `tls`, `port`, `user`, `password`, `rate`
        hookmill.toml:9:7: email.smtp.tls: tls = "none" would send emails and the password unencrypted
          hint: use tls = "starttls" or "implicit"; "none" is only for a local server, host = "localhost"
        hookmill.toml:10:12: email.smtp.password: `password` needs a `user`
          hint: add the user: user = "AKIA…"
        "#);
    }

    #[test]
    fn faults_of_alerts_are_reported_with_what_would_do() {
        let source = "[sources.s]\nscheme = \"github\"\nsecrets = [\"env:A\"]\n";
        let alerts = |lines: &str| errors(&format!("{source}[alerts]\n{lines}"));
        insta::assert_snapshot!([
            alerts(""),
            alerts("email = \"ops@example.com\"\nrepeat = \"1m\"\ndead_letters = 0"),
            alerts("webhook = { url = \"http://a.test\" }"),
            alerts("webhook = { url = \"https://a.test/?token=hunter2\", secret = \"hunter2\" }"),
            alerts("webhook = { url = \"env:url\", secret = \"env:S\" }\noldest = \"1h\""),
            errors(&format!("{source}redact = [\"a..b\", 3]")),
        ]
        .join("\n"), @r#"
        hookmill.toml:4:1: alerts: `[alerts]` has no recipient
          hint: add email = "Ops <ops@example.com>", or webhook = { url = "https://…", secret = "env:ALERTS_SECRET" }
        hookmill.toml:5:9: alerts.email: `[email]` is not configured
          hint: add [email] with `provider` and `from`
        hookmill.toml:6:10: alerts.repeat: found 1m
          hint: expected a duration from 10m to 30d
        hookmill.toml:7:16: alerts.dead_letters: found 0
          hint: expected a whole number from 1 to 10000
        hookmill.toml:5:11: alerts.webhook: `secret` is missing
          hint: add the signing secret: secret = "env:ALERTS_SECRET"
        hookmill.toml:5:19: alerts.webhook.url: found "http://a.test"
          hint: expected https://
        hookmill.toml:5:19: alerts.webhook.url: the URL contains a secret
          hint: put the URL into an environment variable: url = "env:ALERTS_URL"
        hookmill.toml:5:61: alerts.webhook.secret: not the name of a secret; never write a secret into this file
          hint: put the secret into an environment variable and use its name: "env:ALERTS_SECRET"
        hookmill.toml:5:19: alerts.webhook.url: not the name of a secret; never write a secret into this file
          hint: put the secret into an environment variable and use its name: "env:ALERTS_URL"
        hookmill.toml:6:1: alerts: unknown key `oldest`
          hint: possible here: `email`, `webhook`, `oldest_dead_letter`, `lag`, `name`, `repeat`, `dead_letters`
        hookmill.toml:4:11: sources.s.redact[0]: found "a..b": not a valid path
          hint: expected a path with names separated by `.`, such as `data.object.email`, `lines.*.name` or `**.email`
        hookmill.toml:4:19: sources.s.redact[1]: found a whole number
          hint: expected a path with names separated by `.`, such as `data.object.email`, `lines.*.name` or `**.email`
        "#);
    }

    #[test]
    fn faults_of_a_scheme_are_reported_with_what_would_do() {
        let source = |lines: &str| errors(&format!("[sources.s]\nsecrets = [\"env:A\"]\n{lines}"));
        insta::assert_snapshot!([
            source("scheme = \"paypal\""),
            source("scheme = \"githab\""),
            source("scheme = \"twilio\"\ntolerance = \"5m\""),
            source("scheme = \"square\"\npublic_url = \"https://a.test/?x=1\""),
            source("scheme = \"hmac\"\ntolerance = \"2d\""),
            source("scheme = \"hmac\"\nalgorithm = \"md5\"\nkey = \"raw\"\nsignature = { header = \"X\", body = \"a\", encoding = \"hex\", list = \",,\" }\npayload = \"{time}.{body}\"\nevent = { id = [], type = 1, many = 1, kind = \"x\" }"),
            source("scheme = \"hmac\"\nsignature = { header = \"X\", encoding = \"hex\" }\ntimestamp = { list = \"t\" }\npayload = \"{header:T}{body\"\nevent = { id = \"id\", type = \"type\" }"),
            source("scheme = \"hmac\"\nsignature = { header = \"X\", encoding = \"hex\" }\npayload = \"{timestamp}\"\nevent = { id = \"id\", type = \"type\" }"),
            source("scheme = \"hmac\"\nsignature = { header = \"X\", encoding = \"hex\" }\ntimestamp = { header = \"T\", unit = \"h\" }\npayload = \"{body}\"\nevent = { id = \"id\", type = \"type\" }\nresponse = { status = 404, content_type = \"ä\" }\n[[sources.s.handshake]]\nwhen = { \"a..b\" = 1.5 }\nechoes = \"x\""),
            source("scheme = \"github\"\nfamilies = [\"svix\"]"),
            source("scheme = \"standard-webhooks\"\nfamilies = []\nevent = { id = \"id\", type = \"type\" }"),
        ].join("\n"), @r#"
        hookmill.toml:3:10: sources.s.scheme: PayPal signs with a certificate that the recipient must fetch; Hookmill does not support this
          hint: verify PayPal's events in your own service (POST /v1/notifications/verify-webhook-signature)
        hookmill.toml:3:10: sources.s.scheme: found "githab"
          hint: did you mean `github`?
        hookmill.toml:3:10: sources.s.scheme: this scheme signs the URL and needs `public_url`
          hint: add the URL exactly as registered with the provider: public_url = "https://hooks.example.com/webhooks/…"
        hookmill.toml:4:13: sources.s.tolerance: the scheme "twilio" does not sign a time
        hookmill.toml:4:14: sources.s.public_url: "https://a.test/?x=1" has a query or a fragment; remove it: Hookmill takes the query from each request
          hint: expected a URL such as "https://hooks.example.com/webhooks/twilio"
        hookmill.toml:1:1: sources.s: `event` is missing
          hint: add the places of the event's id and type: event = { id = "id", type = "type" }
        hookmill.toml:1:1: sources.s: `payload` is missing
          hint: add the signed text: payload = "{timestamp}.{body}"
        hookmill.toml:1:1: sources.s: `signature` is missing
          hint: add the place of the signature: signature = { header = "X-Signature", encoding = "hex" }
        hookmill.toml:4:13: sources.s.tolerance: found 2d
          hint: expected a duration from 1s to 1d
        hookmill.toml:4:13: sources.s.algorithm: found "md5"
          hint: possible here: `sha1`, `sha256`, `sha512`
        hookmill.toml:5:7: sources.s.key: found "raw"
          hint: possible here: `text`, `hex`, `base64`
        hookmill.toml:6:13: sources.s.signature: expected exactly one place
          hint: add one of header = "X-Name", body = "a.path"
        hookmill.toml:6:66: sources.s.signature.list: found ",,": not a single character
          hint: expected one character, such as ","
        hookmill.toml:7:11: sources.s.payload: found {time}
          hint: possible here: {timestamp}, {method}, {url}, {plain_url}, {body}, {header:NAME}, {header:NAME:LENGTH}, {body:PATH}, and literal characters
        hookmill.toml:8:16: sources.s.event.id: no path is given
          hint: expected a path such as "data.id", "header:X-Name", "hash:body", "hash:signed", or a list of these
        hookmill.toml:8:27: sources.s.event.type: found a whole number
          hint: expected a path such as "data.id", "header:X-Name", "hash:body", "hash:signed", or a list of these
        hookmill.toml:8:37: sources.s.event.many: found a whole number
          hint: expected true or false
        hookmill.toml:8:40: sources.s.event: unknown key `kind`
          hint: possible here: `id`, `type`, `default`, `many`, `hash`
        hookmill.toml:6:11: sources.s.payload: missing a closing brace
          hint: possible here: {timestamp}, {method}, {url}, {plain_url}, {body}, {header:NAME}, {header:NAME:LENGTH}, {body:PATH}, and literal characters
        hookmill.toml:5:11: sources.s.payload: `payload` contains `{timestamp}` but `timestamp` is missing
          hint: add the place of the time: timestamp = { header = "X-Timestamp" }
        hookmill.toml:5:11: sources.s.payload: `payload` does not sign the body
          hint: possible here: {timestamp}, {method}, {url}, {plain_url}, {body}, {header:NAME}, {header:NAME:LENGTH}, {body:PATH}, and literal characters
        hookmill.toml:6:9: sources.s.event: the signature covers neither the body nor this id, so an attacker could reuse one signature for many events
          hint: use the hash of the signed bytes: id = "hash:signed"
        hookmill.toml:5:36: sources.s.timestamp.unit: found "h"
          hint: did you mean `s`?
        hookmill.toml:6:11: sources.s.payload: `payload` does not sign `{timestamp}`, so the timestamp can be forged (sources.s.timestamp)
          hint: add `{timestamp}` if the provider signs it; otherwise remove `timestamp`
        hookmill.toml:8:23: sources.s.response.status: found 404
          hint: expected a status from 200 to 299; providers retry on any other status
        hookmill.toml:8:43: sources.s.response.content_type: a header can contain only ASCII characters
        hookmill.toml:10:10: sources.s.handshake[0].when.a..b: expected a name at character 3
        hookmill.toml:10:19: sources.s.handshake[0].when.a..b: found a number
          hint: expected a string, a whole number or a boolean
        hookmill.toml:11:1: sources.s.handshake[0]: unknown key `echoes`
          hint: did you mean `echo`?
        hookmill.toml:4:1: sources.s: unknown key `families`
          hint: possible here: `secrets`, `scheme`, `public_url`, `response`, `algorithm`, `key`, `signature`, `timestamp`, `payload`, `event`, `handshake`, `tolerance`, `future_tolerance`, `preset`, `rate_limit`, `unmatched`, `redact`, `api`
        hookmill.toml:4:12: sources.s.families: the list is empty
          hint: expected a list of header prefixes, such as ["svix", "webhook"]
        hookmill.toml:5:11: sources.s.event: unknown key `id`
          hint: possible here: `type`, `default`
        "#);
    }

    #[test]
    fn what_a_scheme_cannot_mean_is_reported() {
        let source =
            |name: &str, more: &str| format!("[sources.{name}]\nsecrets = [\"env:A\"]\n{more}\n");
        let hmac = "scheme = \"hmac\"\npayload = \"{timestamp}{body}\"\nevent = { id = \"id\", type = \"type\" }\n";
        let text = [
            source("a", "scheme = \"github\"\npublic_url = \"https://hooks.example.com/a\""),
            source(
                "b",
                "scheme = \"token\"\nsignature = { header = \"X-T\" }\ntimestamp = { header = \"X-At\" }\nevent = { id = \"X-Acme-Id\", type = \"type\" }",
            ),
            source(
                "c",
                &format!(
                    "{hmac}signature = {{ header = \"X-S\", list = \",\", key = \"t\", encoding = \"hex\", prefix = \"v1=\" }}\ntimestamp = {{ list = \"t\" }}"
                ),
            ),
            source(
                "d",
                &format!(
                    "{hmac}signature = {{ header = \"X-S\", encoding = \"hex\" }}\ntimestamp = {{ header = \"x-s\" }}"
                ),
            ),
            source(
                "e",
                &format!(
                    "{hmac}signature = {{ body = \"s\", encoding = \"hex\" }}\ntimestamp = {{ body = \"s\" }}"
                ),
            ),
        ];
        let more = [
            source(
                "f",
                "scheme = \"hmac\"\npayload = \"{body}\"\nsignature = { body = \"sig\", encoding = \"hex\" }\nevent = { id = \"id\", type = \"hash:body\", default = \"\" }",
            ),
            source(
                "g",
                "scheme = \"hmac\"\npayload = \"{header:x-s}{body}\"\nsignature = { header = \"X-S\", list = \"=\", key = \"a\", encoding = \"hex\" }\nevent = { id = \"id\", type = \"type\" }\nresponse = { status = 204, body = \"x\" }",
            ),
            source("h", "scheme = \"stripe\"\npayload = \"{body}\""),
            source(
                "i",
                "scheme = \"token\"\nsignature = { header = \"Authorization\", prefix = \" bearer \" }\nevent = { id = \"id\", type = \"type\" }",
            ),
        ];
        insta::assert_snapshot!(errors(&more.concat()), @r#"
        hookmill.toml:4:11: sources.f.payload: `payload` contains the signature itself; remove it
        hookmill.toml:6:29: sources.f.event.type: a hash cannot be the type, since no rule could match it
        hookmill.toml:6:52: sources.f.event.default: the type is blank; set it or remove it
        hookmill.toml:10:11: sources.g.payload: `payload` contains the signature itself; remove it
        hookmill.toml:10:11: sources.g.payload: no fixed characters separate `{header:x-s}` from `{body}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them, or add the length of the first if it is fixed: {header:x-s:36}; without either, Hookmill cannot verify this provider safely
        hookmill.toml:11:38: sources.g.signature.list: found "=": `=` separates keys from values
          hint: expected one character, such as ","
        hookmill.toml:13:35: sources.g.response.body: a response with status 204 cannot have a body; remove `body`
        hookmill.toml:17:11: sources.h.payload: `payload` does not sign `{timestamp}`, so the timestamp can be forged (timestamp)
          hint: add `{timestamp}` if the provider signs it; otherwise remove `timestamp`
        hookmill.toml:21:50: sources.i.signature.prefix: a header value cannot begin with whitespace; remove it from `prefix`
        "#);
        insta::assert_snapshot!(errors(&text.concat()), @r#"
        hookmill.toml:4:14: sources.a.public_url: the scheme "github" does not sign the URL
        hookmill.toml:9:13: sources.b.timestamp: the scheme `token` does not sign the time, so it can be forged; remove `timestamp`
        hookmill.toml:10:16: sources.b.event.id: found "X-Acme-Id", a path in the body
          hint: for a header: "header:X-Acme-Id"; for a path in the body: '["X-Acme-Id"]'
        hookmill.toml:16:81: sources.c.signature.prefix: a list cannot have a `prefix`; remove it
        hookmill.toml:17:13: sources.c.timestamp: the time has the same place as the signature; give it another place
        hookmill.toml:24:13: sources.d.timestamp: the time has the same place as the signature; give it another place
        hookmill.toml:28:11: sources.e.payload: `payload` contains the signature itself; remove it
        hookmill.toml:31:13: sources.e.timestamp: the time has the same place as the signature; give it another place
        "#);
    }

    #[test]
    fn what_lets_one_signature_be_several_events_is_reported() {
        let hmac = |name: &str, payload: &str, event: &str| {
            format!(
                "[sources.{name}]\nscheme = \"hmac\"\nsecrets = [\"env:A\"]\npublic_url = \"https://a.test/\"\nsignature = {{ header = \"X-S\", encoding = \"hex\" }}\ntimestamp = {{ header = \"X-T\" }}\npayload = \"{payload}\"\nevent = {event}\n"
            )
        };
        let event = "{ id = \"hash:signed\", type = \"type\" }";
        // Bytes can be moved between two parts of varying length.
        let apart = [
            ("a", "{url}{timestamp}{header:X-Id}{body}"),
            ("b", "{timestamp}{url}.{header:X-Id}{timestamp}{body}"),
            ("c", "{timestamp}{url}.{body:a}{body:b}"),
            ("d", "{timestamp}{body}{url}"),
            ("e", "{timestamp}{url}.{header:X-Id:0}.{body}"),
        ];
        insta::assert_snapshot!(errors(&apart.map(|(name, payload)| hmac(name, payload, event)).concat()), @r#"
        hookmill.toml:7:11: sources.a.payload: no fixed characters separate `{header:X-Id}` from `{body}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them, or add the length of the first if it is fixed: {header:X-Id:36}; without either, Hookmill cannot verify this provider safely
        hookmill.toml:7:11: sources.a.payload: no fixed characters separate `{url}` from `{header:X-Id}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them; without either, Hookmill cannot verify this provider safely
        hookmill.toml:15:11: sources.b.payload: no fixed characters separate `{header:X-Id}` from `{body}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them, or add the length of the first if it is fixed: {header:X-Id:36}; without either, Hookmill cannot verify this provider safely
        hookmill.toml:23:11: sources.c.payload: no fixed characters separate `{body:a}` from `{body:b}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them; without either, Hookmill cannot verify this provider safely
        hookmill.toml:31:11: sources.d.payload: no fixed characters separate `{body}` from `{url}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them; without either, Hookmill cannot verify this provider safely
        hookmill.toml:39:11: sources.e.payload: found {header:X-Id:0}: a length is a number from 1 to 256
          hint: possible here: {timestamp}, {method}, {url}, {plain_url}, {body}, {header:NAME}, {header:NAME:LENGTH}, {body:PATH}, and literal characters
        "#);
        // An end can be told where the length is known: of a time, of a method, and where it is stated; and where JSON begins.
        let together = [
            ("a", "{timestamp}{url}.{body}"),
            ("b", "{method}{url}{body}{timestamp}"),
            ("c", "{timestamp}{plain_url}{body}"),
            ("d", "{header:X-Id:36}{timestamp}{url}{body}"),
            ("e", "{header:X-Id}|{url}{timestamp}{header:X-Other:3}{body}"),
        ];
        assert_eq!(
            errors(&together.map(|(name, payload)| hmac(name, payload, event)).concat()),
            ""
        );

        let open = "{timestamp}{url}.{body:token}";
        let more = [
            hmac("a", open, "{ id = \"id\", type = \"type\" }"),
            hmac("b", open, "{ id = [\"hash:signed\", \"header:X-Id\"], type = \"type\", hash = false }"),
            hmac("c", open, "{ id = \"hash:body\", type = \"type\" }"),
            hmac("d", open, "{ id = \"token\", type = \"type\", many = true }"),
            hmac("e", "{timestamp}{url}.{body}", "{ id = [\"id\", \"hash:signed\"], type = \"type\", many = true }"),
            hmac("f", open, "{ id = \"token\", type = \"hash:signed\" }"),
            hmac("g", open, event) + "unmatched = \"ignore\"\n",
            "[sources.h]\nscheme = \"token\"\nsecrets = [\"env:A\"]\nsignature = { header = \"X-T\" }\nevent = { id = \"hash:signed\", type = \"type\" }\n".to_owned(),
            "[sources.i]\nscheme = \"mailgun\"\nsecrets = [\"env:A\"]\nevent = { id = \"event-data.id\", type = \"event-data.event\" }\nunmatched = \"ignore\"\n".to_owned(),
            "[sources.j]\nscheme = \"token\"\nsecrets = [\"env:A\"]\nsignature = { body = \"[0].token\" }\nevent = { id = \"id\", type = \"type\", many = true }\n".to_owned(),
        ];
        insta::assert_snapshot!(errors(&more.concat()), @r#"
        hookmill.toml:8:9: sources.a.event: the signature covers neither the body nor this id, so an attacker could reuse one signature for many events
          hint: use the hash of the signed bytes: id = "hash:signed"
        hookmill.toml:16:9: sources.b.event: the signature covers neither the body nor this id, so an attacker could reuse one signature for many events
          hint: use the hash of the signed bytes: id = "hash:signed"
        hookmill.toml:24:9: sources.c.event: the signature covers neither the body nor this id, so an attacker could reuse one signature for many events
          hint: use the hash of the signed bytes: id = "hash:signed"
        hookmill.toml:32:9: sources.d.event: the signature does not cover the body, so an attacker could put many events into one request
          hint: remove `many`, so that each request is one event
        hookmill.toml:40:9: sources.e.event: all events of a request would get the same id
          hint: remove "hash:signed" from `id`
        hookmill.toml:48:32: sources.f.event.type: a hash cannot be the type, since no rule could match it
        hookmill.toml:57:13: sources.g.unmatched: the signature does not cover the body and an ignored event is not recorded, so an attacker could reuse the signature for another event
          hint: use "record" or "dead_letter"
        hookmill.toml:62:9: sources.h.event: the scheme `token` signs nothing to hash; use "hash:body" or a path
        hookmill.toml:66:9: sources.i.event: the signature covers neither the body nor this id, so an attacker could reuse one signature for many events
          hint: use the hash of the signed bytes: id = "hash:signed"
        hookmill.toml:67:13: sources.i.unmatched: the signature does not cover the body and an ignored event is not recorded, so an attacker could reuse the signature for another event
          hint: use "record" or "dead_letter"
        hookmill.toml:72:9: sources.j.event: the token is in the body, so the body must be one event
          hint: remove `many`, so that each request is one event
        "#);
    }

    #[test]
    fn what_signs_is_never_shown() {
        let text = "[sources.mailgun]\nscheme = \"mailgun\"\nsecrets = [\"env:A\"]\nredact = [\"event-data.recipient\"]\n[sources.token]\nscheme = \"token\"\nsecrets = [\"env:A\"]\nsignature = { body = \"auth.secret\" }\nevent = { id = \"id\", type = \"type\" }\n[sources.linear]\nscheme = \"linear\"\nsecrets = [\"env:A\"]\n";
        let (config, faults) = parse("hookmill.toml", text);
        assert!(faults.is_empty(), "{faults:?}");
        let redactions =
            |places: &[&str]| places.iter().map(|place| place.parse().unwrap()).collect();
        assert_eq!(
            config.redact,
            BTreeMap::from([
                (
                    "mailgun".to_owned(),
                    redactions(&[
                        "event-data.recipient",
                        "signature.signature",
                        "signature.timestamp",
                        "signature.token",
                    ]),
                ),
                ("token".to_owned(), redactions(&["auth.secret"])),
                ("linear".to_owned(), Vec::new()),
            ])
        );
    }

    #[test]
    fn a_time_has_limits_on_both_sides() {
        let minutes = Duration::from_secs(300);
        for (scheme, more, past, future) in [
            ("stripe", "", 300, 300),
            ("stripe", "tolerance = \"1h\"\n", 3_600, 300),
            ("paddle", "", 30, 300),
            ("linear", "", 60, 60),
            ("mailgun", "", 43_200, 300),
            ("discord", "", 3_600, 300),
            ("sendgrid", "future_tolerance = \"1s\"\n", 86_400, 1),
        ] {
            let text = format!("[sources.s]\nscheme = \"{scheme}\"\nsecrets = [\"env:A\"]\n{more}");
            let source = parse("hookmill.toml", &text).0.ingress.sources.remove(0);
            let [past, future] = [past, future].map(Duration::from_secs);
            assert_eq!(source.tolerance, Some(Tolerance { past, future }), "{scheme} {more}");
        }
        // No scheme that signs a time does without.
        for scheme in source::scheme_names() {
            let text = format!(
                "[sources.s]\nscheme = \"{scheme}\"\nsecrets = [\"env:A\"]\npublic_url = \"https://a.test/\"\n"
            );
            let (config, _) = parse("hookmill.toml", &text);
            let Some(source) = config.ingress.sources.first() else { continue };
            let signs_time = match &source.scheme {
                crate::scheme::Scheme::Template(template) => template.timestamp.is_some(),
                scheme => matches!(scheme, crate::scheme::Scheme::StandardWebhooks { .. }),
            };
            assert_eq!(source.tolerance.is_some(), signs_time, "{scheme}");
            assert!(
                source.tolerance.is_none_or(|tolerance| tolerance.future <= minutes),
                "{scheme}"
            );
        }
        // It cannot be switched off.
        insta::assert_snapshot!(errors("[sources.s]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\ntolerance = \"0s\"\nfuture_tolerance = \"0s\"\n"), @r#"
        hookmill.toml:4:13: sources.s.tolerance: found 0s
          hint: expected a duration from 1s to 1d
        hookmill.toml:5:20: sources.s.future_tolerance: found 0s
          hint: expected a duration from 1s to 1d
        "#);
    }

    #[test]
    fn a_secret_may_have_an_end() {
        let text = "[sources.s]\nscheme = \"github\"\nsecrets = [\"env:A\", { name = \"env:B\", not_after = 2026-12-31T00:00:00Z }]\n";
        let (config, faults) = parse("hookmill.toml", text);
        assert!(faults.is_empty(), "{faults:?}");
        let secret = &config.ingress.sources[0].secrets[1];
        let end = Timestamp::parse_rfc3339("2026-12-31T00:00:00Z").unwrap();
        assert_eq!(secret.not_after, Some(end));
        assert!(!secret.expired(end) && secret.expired(Timestamp::from_millis(end.millis() + 1)));
        insta::assert_snapshot!(errors(&text.replace("2026-12-31T00:00:00Z", "\"tomorrow\"")), @"
        hookmill.toml:3:51: sources.s.secrets[1].not_after: found a string
          hint: expected a date and time with an offset, such as 2026-12-31T00:00:00Z
        ");
    }

    #[test]
    fn every_error_is_reported_at_once_with_its_place_and_what_would_do() {
        insta::assert_snapshot!(errors(r#"
surces = 1
[sources.Stripe]
scheme = "strip"
secrets = ["whsec_literal", "env:lower", "env:A", "env:A"]
tolerance = "5 minuts"
future_tolerance = "2d"
preset = "strype"
unmatched = "drop"
rate_limit = { requests = 0, per = "5s" }
tolerence = "5m"

[sources.clerk]
scheme = 5
secrets = []

[ingress]
body_limit = "1GB"
body_timeout = 10

[retry]
max_attempts = 0
initial = "1h"
max = "1m"
multiplier = 0.5
jitter = "some"

[queue]
batch_size = 101
batch_wait = "2m"
"#), @r#"
        hookmill.toml:2:1: unknown key `surces`
          hint: did you mean `sources`?
        hookmill.toml:3:10: sources.Stripe: invalid source name "Stripe"
          hint: the name is part of a URL: use a-z, 0-9, `-` and `_`, at most 64 characters
        hookmill.toml:4:10: sources.Stripe.scheme: found "strip"
          hint: did you mean `stripe`?
        hookmill.toml:5:12: sources.Stripe.secrets[0]: not the name of a secret; never write a secret into this file
          hint: put the secret into an environment variable and use its name: "env:STRIPE_WEBHOOK_SECRET"
        hookmill.toml:5:29: sources.Stripe.secrets[1]: not the name of a secret; never write a secret into this file
          hint: put the secret into an environment variable and use its name: "env:STRIPE_WEBHOOK_SECRET"
        hookmill.toml:5:51: sources.Stripe.secrets[3]: env:A is listed twice
        hookmill.toml:6:13: sources.Stripe.tolerance: found "5 minuts": unknown time unit "minuts", supported units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations)
          hint: expected a duration such as "5m"
        hookmill.toml:7:20: sources.Stripe.future_tolerance: found 2d
          hint: expected a duration from 1s to 1d
        hookmill.toml:8:10: sources.Stripe.preset: found "strype"
          hint: did you mean `stripe`?
        hookmill.toml:9:13: sources.Stripe.unmatched: found "drop"
          hint: possible here: `ignore`, `record`, `dead_letter`
        hookmill.toml:10:27: sources.Stripe.rate_limit.requests: found 0
          hint: expected a whole number from 1 to 4294967295
        hookmill.toml:10:36: sources.Stripe.rate_limit.per: found "5s"
          hint: possible here: `10s`, `1m`, `60s`
        hookmill.toml:11:1: sources.Stripe: unknown key `tolerence`
          hint: did you mean `tolerance`?
        hookmill.toml:14:10: sources.clerk.scheme: found a whole number
          hint: expected the name of a scheme
        hookmill.toml:15:11: sources.clerk.secrets: the list of secrets is empty
          hint: expected a list of names such as "env:STRIPE_WEBHOOK_SECRET"
        hookmill.toml:18:14: ingress.body_limit: found 953.7 MiB
          hint: expected at most 25.0 MiB
        hookmill.toml:19:16: ingress.body_timeout: found a whole number
          hint: expected a duration such as "5m"
        hookmill.toml:22:16: retry.max_attempts: found 0
          hint: expected a whole number from 1 to 100
        hookmill.toml:24:7: retry.max: `max` is shorter than `initial`
          hint: the delay grows from `initial` to `max`; raise `max` or lower `initial`
        hookmill.toml:25:14: retry.multiplier: found 0.5
          hint: expected a number from 1 to 10
        hookmill.toml:26:10: retry.jitter: found a string
          hint: expected a number from 0 to 1
        hookmill.toml:29:14: queue.batch_size: found 101
          hint: expected a whole number from 1 to 100
        hookmill.toml:30:14: queue.batch_wait: found 2m
          hint: expected a duration from 0s to 1m
        "#);
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_refused() {
        let rule =
            "[[rules]]\nname = \"a\"\ntable = \"t\"\nkey = { id = \"id\" }\nversion = \"v\"\n";
        let with = |lines: &str| errors(&format!("{GOOD}{rule}{lines}"));
        insta::assert_snapshot!([
            with("on = []\nset = { id = \"type\", x = [] }"),
            with("on = \"stripe:a b\""),
            with("on = \"stripe:a.*\"\ndelete = [\"stripe:a.gone\", \"b.gone\", \"*.gone\"]"),
            with("on = \"stripe:a.*\"\ntie = { precedence = { type = [\"a.b\", \"c\", \"a.b\"] } }"),
            with("on = \"stripe:a.*\"\ntie = { precedence = { column = \"x\", order = [] } }"),
            errors(&format!("{GOOD}preset = \"clerk\"\n")),
        ].join("\n"), @r#"
        hookmill.toml:9:6: rules[0].on: the list of events is empty
          hint: add the events: on = ["stripe:invoice.*"]
        hookmill.toml:10:9: rules[0].set.id: `id` is part of the key
        hookmill.toml:10:26: rules[0].set.x: no path is given
          hint: expected a path, a list of paths (the first one found is used), or a table such as { value = … }
        hookmill.toml:9:6: rules[0].on: found "stripe:a b"
          hint: an event type cannot contain whitespace
        hookmill.toml:10:11: rules[0].delete[0]: `on` matches no event of type "stripe:a.gone"
          hint: expected a type without its source, from those in `on`: "a.*"
        hookmill.toml:10:28: rules[0].delete[1]: `on` matches no event of type "b.gone"
          hint: expected a type without its source, from those in `on`: "a.*"
        hookmill.toml:10:39: rules[0].tie.precedence.type[1]: `on` matches no event of type "c"
          hint: expected a type without its source, from those in `on`: "a.*"
        hookmill.toml:10:44: rules[0].tie.precedence.type[2]: "a.b" is listed twice
        hookmill.toml:10:22: rules[0].tie.precedence: `x` is not set by this rule
        hookmill.toml:10:46: rules[0].tie.precedence.order: the list is empty
          hint: expected a list, weakest first
        hookmill.toml:4:10: sources.stripe.preset: this preset does not support the scheme "stripe"
          hint: scheme = "clerk" or "svix" or "standard-webhooks"
        "#);
    }

    #[test]
    fn a_rule_with_faults_is_reported_whole() {
        let text = format!(
            "{GOOD}{}",
            r#"
[[rules]]
name = "a"
on = ["stripe", "strip:invoice.paid", "stripe:"]
table = 3
key = { id = "data..id", other = [] }
version = ""
tie = { precedence = { column = "status" }, order = 1 }
set = { a = 5, b = ["x", 1] }
add = { n = 1.5 }
delete = true

[[rules]]
name = "b"
on = "stripe:*"
table = "t"
key = { id = "id" }
add = { n = 1 }

[[rules]]
name = "b"
on = "stripe:*"
table = "t"
"#
        );
        insta::assert_snapshot!(errors(&text), @r#"
        hookmill.toml:7:7: rules[0].on[0]: found "stripe"
          hint: expected an event such as "stripe:invoice.paid" or "stripe:invoice.*"
        hookmill.toml:7:17: rules[0].on[1]: no source has the name `strip`
          hint: did you mean `stripe`?
        hookmill.toml:7:39: rules[0].on[2]: found "stripe:"
          hint: the type of the event is missing; `*` means every type
        hookmill.toml:8:9: rules[0].table: found a whole number
          hint: expected the name of a table
        hookmill.toml:9:14: rules[0].key.id: found "data..id": expected a name at character 6
          hint: expected a path such as "data.object.id"
        hookmill.toml:9:34: rules[0].key.other: no path is given
          hint: expected a path, a list of paths (the first one found is used), or a table such as { value = … }
        hookmill.toml:10:11: rules[0].version: found "": expected a name at character 1
          hint: expected a path such as "data.object.id"
        hookmill.toml:11:22: rules[0].tie.precedence: `precedence` needs either `column` and `order`, or `type`
          hint: expected precedence = { column = "status", order = ["trialing", "active"] }, or { type = ["*.created", "*.updated"] }; or refetch = true
        hookmill.toml:11:45: rules[0].tie: unknown key `order`
          hint: possible here: `precedence`, `refetch`
        hookmill.toml:12:13: rules[0].set.a: found a whole number
          hint: expected a path, a list of paths (the first one found is used), or a table such as { value = … }
        hookmill.toml:12:26: rules[0].set.b[1]: found a whole number
          hint: expected a path such as "data.object.id"
        hookmill.toml:13:9: rules[0].add.n: a rule with a `version` cannot `add`
          hint: count in a separate table, with a rule without `version` and `set`
        hookmill.toml:13:13: rules[0].add.n: found a number
          hint: expected a whole number, or a path
        hookmill.toml:14:10: rules[0].delete: found a boolean
          hint: expected an event type such as "customer.deleted" or "*.deleted"
        hookmill.toml:23:1: rules[2]: `key` is missing
          hint: add the row's key: key = { id = "data.object.id" }
        hookmill.toml:24:8: rules[2].name: the rule needs `version` or `add`
          hint: add what orders the events (version = "created"), or what to count (add = { total = 1 })
        hookmill.toml:24:8: rules[2].name: two rules have the name "b"
        "#);
    }

    #[test]
    fn what_is_not_toml_is_reported_with_its_place() {
        insta::assert_snapshot!(errors("[sources.stripe\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\nx = \n"), @"hookmill.toml:1:16: unclosed table, expected `]`");
    }

    #[test]
    fn a_literal_secret_is_never_quoted() {
        let text = errors("[sources.s]\nscheme = \"stripe\"\nsecrets = [\"whsec_hunter2\"]\n");
        assert!(text.contains("sources.s.secrets[0]") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_rule_takes_the_place_of_the_presets_rule_of_its_name() {
        let text = format!(
            "{GOOD}preset = \"stripe\"\n[[rules]]\nname = \"stripe-customers\"\non = \"stripe:customer.created\"\ntable = \"mine\"\nkey = {{ id = \"data.object.id\" }}\nversion = \"created\"\n"
        );
        let (config, errors) = parse("hookmill.toml", &text);
        assert_eq!(errors, []);
        let named: Vec<_> =
            config.rules.iter().filter(|rule| rule.name.value == "stripe-customers").collect();
        assert!(
            matches!(&named[..], [rule] if matches!(&rule.effect, EffectDecl::Table(table) if table.table.value == "mine"))
        );
    }

    #[test]
    fn a_preset_is_about_every_source_that_has_it() {
        let text = "[sources.eu]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\npreset = \"stripe\"\n\
                    [sources.us]\nscheme = \"stripe\"\nsecrets = [\"env:B\"]\npreset = \"stripe\"\n";
        let (config, errors) = parse("hookmill.toml", text);
        assert_eq!(errors, []);
        let sources: BTreeSet<_> =
            config.rules[0].on.iter().map(|pattern| pattern.source.as_str()).collect();
        assert_eq!(sources, BTreeSet::from(["eu", "us"]));
    }
}
