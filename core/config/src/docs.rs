//! The JSON Schema of hookmill.toml, and the tables of its reference in docs/.

use hookmill_core::outbound::Provider;
use hookmill_keys::{DefaultDoc, KeyDoc, Table as _, reference, root_schema};
use hookmill_rules::decl::{
    ConditionKeys, EmailDecl, ExtendKeys, LiftKeys, OutcomeKeys, PrecedenceKeys, RuleKeys, SmsDecl,
    SuppressKeys, TieKeys, TrackDecl, ValueKeys, value_forms,
};
use serde_json::Value;

use crate::channels::keys::{
    ApiKeys, EmailKeys, SmsKeys, SmtpKeys, TemplateFiles, TrackerKeys, with_defaults,
};
use crate::channels::{AlertWebhook, Alerts, Quota};
use crate::file::FileKeys;
use crate::rule_tests::{Before, ExpectKeys, Given, RuleTest};
use crate::settings::{
    Access, BodyLimits, Database, Limits, Queue, RateLimit, Retention, Retry, SecretRef,
};
use crate::source::{
    ChallengeKeys, EventKeys, HandshakeKeys, ObjectsApiKeys, PARAMETERS, ResponseKeys,
    SignatureKeys, SourceKeys, TimestampKeys,
};

/// The JSON Schema of hookmill.toml, draft 2020-12.
pub fn json_schema() -> Value {
    root_schema::<FileKeys>("hookmill.toml", vec![("value", value_forms().map(drop))])
}

/// A table of the reference: its name in markers, the place of its keys, and the keys.
type Reference = (&'static str, &'static str, Vec<KeyDoc>);

/// The tables of the reference.
fn tables() -> Vec<Reference> {
    let of_scheme = |key: &KeyDoc| PARAMETERS.iter().any(|(name, _)| *name == key.name);
    let (schemes, sources) = SourceKeys::keys().into_iter().partition(of_scheme);
    vec![
        ("sources", "`[sources.NAME]`", sources),
        ("sources.scheme", "`[sources.NAME]`, for a general scheme", schemes),
        ("sources.secrets", "A secret of `secrets`", SecretRef::keys()),
        ("sources.rate_limit", "`rate_limit = { … }` of a source", RateLimit::keys()),
        ("sources.api", "`[sources.NAME.api]`", ObjectsApiKeys::keys()),
        ("sources.response", "`response = { … }` of a source", ResponseKeys::keys()),
        ("sources.signature", "`signature = { … }` of a source", SignatureKeys::keys()),
        ("sources.timestamp", "`timestamp = { … }` of a source", TimestampKeys::keys()),
        ("sources.event", "`event = { … }` of a source", EventKeys::keys()),
        ("sources.handshake", "`[[sources.NAME.handshake]]`", HandshakeKeys::keys()),
        ("sources.challenge", "`challenge = { … }` of a source", ChallengeKeys::keys()),
        ("rules", "`[[rules]]`", RuleKeys::keys()),
        (
            "rules.when",
            "A condition of `when`, instead of a value or a list of values",
            ConditionKeys::keys(),
        ),
        (
            "rules.value",
            "A value, instead of a path or a list of paths. It has one of these forms",
            ValueKeys::keys(),
        ),
        ("rules.extend", "`[[rules]]` that extends a preset", ExtendKeys::keys()),
        ("rules.tie", "`tie = { … }` of a rule", TieKeys::keys()),
        ("rules.tie.precedence", "`precedence = { … }` of a tie", PrecedenceKeys::keys()),
        ("rules.email", "`email = { … }` of a rule", EmailDecl::keys()),
        ("rules.sms", "`sms = { … }` of a rule", SmsDecl::keys()),
        ("rules.track", "`track = { … }` of a rule", TrackDecl::keys()),
        ("rules.outcome", "`outcome = { … }` of a rule", OutcomeKeys::keys()),
        ("rules.suppress", "`suppress = { … }` of a rule", SuppressKeys::keys()),
        ("rules.lift", "`lift = { … }` of a rule", LiftKeys::keys()),
        ("templates", "`[templates.NAME]`", TemplateFiles::keys()),
        ("email", "`[email]`", EmailKeys::keys()),
        (
            "email.api",
            "`[email.resend]`, `[email.sendgrid]` and `[email.postmark]`",
            shared(&[Provider::Resend, Provider::SendGrid, Provider::Postmark], ApiKeys::keys),
        ),
        ("email.smtp", "`[email.smtp]`", with_defaults(Provider::Smtp, SmtpKeys::keys())),
        ("email.quota", "`quota = { … }` of a channel", Quota::keys()),
        ("sms", "`[sms]`", SmsKeys::keys()),
        (
            "tracking",
            "`[tracking.mixpanel]` and `[tracking.posthog]`",
            shared(&[Provider::Mixpanel, Provider::PostHog], TrackerKeys::keys),
        ),
        ("ingress", "`[ingress]`", BodyLimits::keys()),
        ("queue", "`[queue]`", Queue::keys()),
        ("retry", "`[retry]`", Retry::keys()),
        ("limits", "`[limits]`", Limits::keys()),
        ("retention", "`[retention]`", Retention::keys()),
        ("alerts", "`[alerts]`", Alerts::keys()),
        ("alerts.webhook", "`webhook = { … }` of `[alerts]`", AlertWebhook::keys()),
        ("admin.access", "`[admin.access]`", Access::keys()),
        ("database", "`[database]`", Database::keys()),
        ("tests", "`[[tests]]`", RuleTest::keys()),
        ("tests.before", "`before = { … }` of a test", Before::keys()),
        ("tests.given", "`given = { … }` of a test", Given::keys()),
        ("tests.expect", "`expect = { … }` of a test", ExpectKeys::keys()),
    ]
}

/// The keys of several providers, with the default of each.
fn shared(providers: &[Provider], keys: fn() -> Vec<KeyDoc>) -> Vec<KeyDoc> {
    let each: Vec<_> = providers.iter().map(|provider| with_defaults(*provider, keys())).collect();
    let mut keys = keys();
    for (i, key) in keys.iter_mut().enumerate() {
        let defaults: Vec<_> = each.iter().map(|keys| keys[i].default.as_ref()).collect();
        if defaults.iter().all(|default| *default == defaults[0]) {
            key.default = defaults[0].cloned();
        } else {
            let words = defaults.into_iter().flatten().map(|default| match default {
                DefaultDoc::Value(toml) => format!("`{toml}`"),
                DefaultDoc::Text(text) => text.clone(),
            });
            key.default = Some(DefaultDoc::Text(words.collect::<Vec<_>>().join(", ")));
        }
    }
    keys
}

/// The names of all tables of the reference.
pub fn reference_names() -> Vec<&'static str> {
    tables().into_iter().map(|(name, ..)| name).collect()
}

/// A page of the documentation with its reference tables made anew. A table stands between `<!-- keys: NAME … -->`, which may name
/// several, and `<!-- end of keys -->`.
///
/// # Errors
///
/// A marker that names no table, or has no end.
pub fn update(page: &str) -> Result<String, String> {
    const START: &str = "<!-- keys: ";
    const END: &str = "<!-- end of keys -->";
    let tables = tables();
    let mut updated = String::new();
    let mut rest = page;
    while let Some(start) = rest.find(START) {
        let (before, marker) = rest.split_at(start);
        let names = marker[START.len()..].split(" -->").next().unwrap_or_default();
        let end = marker.find(END).ok_or_else(|| format!("the table {names:?} has no end"))?;
        updated += before;
        updated += &format!("{START}{names} -->\n\n");
        for name in names.split_whitespace() {
            let (_, place, keys) = tables
                .iter()
                .find(|(known, ..)| *known == name)
                .ok_or_else(|| format!("there is no table {name:?}"))?;
            updated += &format!("{place}:\n\n{}\n", reference(keys));
        }
        updated += END;
        rest = &marker[end + END.len()..];
    }
    Ok(updated + rest)
}
