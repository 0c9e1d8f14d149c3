//! The JSON Schema of hookmill.toml, and the tables of its reference in docs/.

use hookmill_core::outbound::Provider;
use hookmill_keys::{KeyDoc, Table as _, reference, root_schema};
use hookmill_rules::decl::{
    EmailDecl, OutcomeKeys, PrecedenceKeys, RuleKeys, SmsDecl, SuppressKeys, TieKeys, TrackDecl,
    ValueKeys, value_forms,
};
use serde_json::Value;

use crate::channels::keys::{
    ApiKeys, EmailKeys, SmsKeys, SmtpKeys, TemplateFiles, TrackerKeys, with_defaults,
};
use crate::channels::{AlertWebhook, Alerts, Quota};
use crate::file::FileKeys;
use crate::rule_tests::{ExpectKeys, Given, RuleTest};
use crate::settings::{Access, BodyLimits, Database, Limits, Queue, Retention, Retry};
use crate::source::{
    EventKeys, HandshakeKeys, ObjectsApiKeys, PARAMETERS, RateLimitKeys, ResponseKeys, SecretKeys,
    SignatureKeys, SourceKeys, TimestampKeys,
};

/// The JSON Schema of hookmill.toml, draft 2020-12.
pub fn json_schema() -> Value {
    root_schema::<FileKeys>("hookmill.toml", vec![("value", value_forms().map(drop))])
}

/// The tables of the reference: the marker of each in the documentation, what stands before its keys, and the keys.
fn tables() -> Vec<(&'static str, &'static str, Vec<KeyDoc>)> {
    let api = |provider| with_defaults(provider, ApiKeys::keys());
    let of_scheme = |key: &KeyDoc| PARAMETERS.iter().any(|(name, _)| *name == key.name);
    let (schemes, sources) = SourceKeys::keys().into_iter().partition(of_scheme);
    vec![
        ("sources", "", sources),
        ("sources.scheme", "", schemes),
        ("sources.secrets", "secrets[].", SecretKeys::keys()),
        ("sources.rate_limit", "rate_limit.", RateLimitKeys::keys()),
        ("sources.api", "api.", ObjectsApiKeys::keys()),
        ("sources.response", "response.", ResponseKeys::keys()),
        ("sources.signature", "signature.", SignatureKeys::keys()),
        ("sources.timestamp", "timestamp.", TimestampKeys::keys()),
        ("sources.event", "event.", EventKeys::keys()),
        ("sources.handshake", "handshake.", HandshakeKeys::keys()),
        ("rules", "", RuleKeys::keys()),
        ("rules.value", "", ValueKeys::keys()),
        ("rules.tie", "tie.", TieKeys::keys()),
        ("rules.tie.precedence", "tie.precedence.", PrecedenceKeys::keys()),
        ("rules.email", "email.", EmailDecl::keys()),
        ("rules.sms", "sms.", SmsDecl::keys()),
        ("rules.track", "track.", TrackDecl::keys()),
        ("rules.outcome", "outcome.", OutcomeKeys::keys()),
        ("rules.suppress", "suppress.", SuppressKeys::keys()),
        ("templates", "", TemplateFiles::keys()),
        ("email", "", EmailKeys::keys()),
        ("email.resend", "resend.", api(Provider::Resend)),
        ("email.sendgrid", "sendgrid.", api(Provider::SendGrid)),
        ("email.postmark", "postmark.", api(Provider::Postmark)),
        ("email.smtp", "smtp.", with_defaults(Provider::Smtp, SmtpKeys::keys())),
        ("email.quota", "quota.", Quota::keys()),
        ("sms", "", SmsKeys::keys()),
        ("tracking.mixpanel", "mixpanel.", with_defaults(Provider::Mixpanel, TrackerKeys::keys())),
        ("tracking.posthog", "posthog.", with_defaults(Provider::PostHog, TrackerKeys::keys())),
        ("ingress", "ingress.", BodyLimits::keys()),
        ("queue", "queue.", Queue::keys()),
        ("retry", "retry.", Retry::keys()),
        ("limits", "limits.", Limits::keys()),
        ("retention", "retention.", Retention::keys()),
        ("alerts", "alerts.", Alerts::keys()),
        ("alerts.webhook", "alerts.webhook.", AlertWebhook::keys()),
        ("admin.access", "admin.access.", Access::keys()),
        ("database", "database.", Database::keys()),
        ("tests", "", RuleTest::keys()),
        ("tests.given", "given.", Given::keys()),
        ("tests.expect", "expect.", ExpectKeys::keys()),
    ]
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
        let mut rows = String::new();
        for name in names.split_whitespace() {
            let (_, prefix, keys) = tables
                .iter()
                .find(|(known, ..)| *known == name)
                .ok_or_else(|| format!("there is no table {name:?}"))?;
            let table = reference(prefix, keys);
            // Several tables share one head.
            let skip = if rows.is_empty() { 0 } else { 2 };
            table.lines().skip(skip).for_each(|line| rows += &format!("{line}\n"));
        }
        updated += &format!("{rows}\n{END}");
        rest = &marker[end + END.len()..];
    }
    Ok(updated + rest)
}
