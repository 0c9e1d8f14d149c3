//! hookmill.toml as it was loaded, for people to look at.

use std::collections::BTreeMap;

use hookmill_core::hash::sha256_hex;
use hookmill_keys::file_to_json;
use hookmill_rules::api::lists_of;
use hookmill_rules::{Effect, Program, Send};
use serde_json::{Value, json};

use crate::Api;

/// What is in force, as a JSON object: the file without its comments, its SHA-256, every rule, those of presets included, and
/// by source, the lists of its API that an import reads. Secrets are names in there; it omits queries and user names of URLs.
pub fn overview(text: &str, program: &Program, apis: &BTreeMap<String, Api>) -> String {
    // A loaded file parses.
    let file = file_to_json(text);
    let rules = program.rules.iter().map(|rule| {
        let target = match &rule.effect {
            Effect::Row { table, .. } | Effect::Rows { table, .. } => table.as_str(),
            Effect::Send { send: Send::Email { template, .. }, .. } => template,
            Effect::Send { send: Send::Sms { .. }, .. } => "",
            Effect::Send { send: Send::Track { provider, .. }, .. } => provider.as_str(),
            Effect::Outcome { outcome, .. } => outcome.as_str(),
            Effect::Suppress(whom) | Effect::Lift(whom) => &whom.reasons.join(", "),
        };
        let on: Vec<_> = rule.on.iter().map(ToString::to_string).collect();
        json!({ "name": rule.name, "on": on, "effect": rule.effect.word(), "target": target })
    });
    let imports = apis.iter().map(|(source, api)| {
        let lists = lists_of(program, source, api.provider).map(|list| list.name);
        (source, lists.collect::<Vec<_>>())
    });
    let overview = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "sha256": sha256_hex(&[text.as_bytes()]),
        "file": bared(file),
        "rules": rules.collect::<Vec<_>>(),
        "imports": imports.collect::<BTreeMap<_, _>>(),
    });
    overview.to_string()
}

/// The same with URLs bare.
fn bared(value: Value) -> Value {
    match value {
        Value::String(text) => bare(&text).into(),
        Value::Array(items) => items.into_iter().map(bared).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, member)| (name, bared(member))).collect()
        }
        value => value,
    }
}

/// A URL without what may be secret in it; any other text as it is.
fn bare(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    if !["http", "https"].contains(&scheme) {
        return text.to_owned();
    }
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_in_it() {
        let text = r#"
# A comment with whsec_hunter2.
[sources.a]
scheme = "stripe"
secrets = [{ name = "env:A", not_after = 2030-01-01T00:00:00Z }]
public_url = "https://user:hunter2@hooks.example.com/webhooks/a?token=hunter2"
"#;
        insta::assert_snapshot!(overview(text, &Program::default(), &BTreeMap::new()), @r#"{"file":{"sources":{"a":{"public_url":"https://hooks.example.com/webhooks/a","scheme":"stripe","secrets":[{"name":"env:A","not_after":"2030-01-01T00:00:00Z"}]}}},"imports":{},"rules":[],"sha256":"bdc4a236730832f55673e022a52f966c98186de1c33f87a50886b5f12aa4a356","version":"0.1.0"}"#);
    }
}
