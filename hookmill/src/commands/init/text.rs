//! The texts that `init` writes: hookmill.toml, and .env.example.

use hookmill_config::Config;
use hookmill_core::time::Timestamp;
use hookmill_rules::api;
use hookmill_rules::ast::EffectDecl;
use serde_json::Value;

use super::provider::Provider;
use crate::samples;

/// Commented examples; the names in braces are replaced by those of the first provider.
const EXAMPLES: &str = include_str!("examples.toml");

/// The schema for editors: docs/configuration.md, "In an editor".
const SCHEMA: &str =
    "#:schema https://raw.githubusercontent.com/hookmill/hookmill/main/docs/hookmill.schema.json\n";

/// Explanations of keys that a section may have.
const KEYS: [(&str, &str); 3] = [
    (
        "public_url",
        "Replace this with the URL exactly as registered with the provider, because the signature covers it.",
    ),
    ("response", "The response, which the provider reads."),
    ("event", "The path of the event's type, and the type of an event without one."),
];

/// The maximum length of a comment line.
const WIDTH: usize = 120;

/// hookmill.toml.
pub fn configuration(providers: &[Provider]) -> String {
    let schemes: Vec<_> = providers.iter().map(|provider| provider.scheme).collect();
    let mut text = SCHEMA.to_owned();
    text += &comment(&format!(
        "The webhooks that Hookmill accepts, and their effects; written by `hookmill init {}`. `hookmill check` reports every \
         error in this file at once. The documents named here are in Hookmill's repository: {}",
        schemes.join(" "),
        env!("CARGO_PKG_REPOSITORY"),
    ));
    for (i, provider) in providers.iter().enumerate() {
        text += &source(provider, i == 0);
    }
    let first = providers.first().map(example).unwrap_or_default();
    let examples = first.iter().fold(EXAMPLES.to_owned(), |examples, (name, value)| {
        examples.replace(&format!("{{{name}}}"), value)
    });
    text + "\n" + &examples
}

/// The section of a provider. The first one explains the common keys.
fn source(provider: &Provider, first: bool) -> String {
    let config = provider.config();
    let name = name(&config);
    let mut text = format!(
        "\n{}",
        comment(&format!(
            "{}, at https://hooks.example.com/webhooks/{name}{}. See {}.",
            provider.title,
            if first { "; the last part is the name of the section, which you choose" } else { "" },
            provider.more()
        ))
    );
    for point in ["Create", "Settings", "Events", "Id and type"] {
        if let Some(value) = provider.point(point) {
            text += &comment(&format!("{point}: {value}"));
        }
    }
    for line in provider.toml.lines() {
        let key = line.split(" = ").next().unwrap_or_default();
        match key {
            "secrets" if first => {
                text += &comment(
                    "The names of the secrets. Their values are in the environment, or in a Worker's secrets. Several names let \
                     you rotate: a signature by any secret that is set is valid.",
                );
            }
            "preset" => text += &comment(&preset(&config)),
            _ => {
                let meaning = KEYS.iter().find(|(known, _)| *known == key);
                text += &meaning.map(|(_, meaning)| comment(meaning)).unwrap_or_default();
            }
        }
        text += &format!("{line}\n");
    }
    if let Some(key) = api_key(provider) {
        text += &comment(&format!(
            "The API of {}: `hookmill import` loads the objects that it has. If nothing else decides between two events, Hookmill fetches the object.",
            provider.title
        ));
        text += &format!("# api = {{ key = \"env:{key}\" }}\n");
    }
    if first {
        text += &comment(
            "What to do with an event that no rule names: \"record\" it in the ledger (the default), \"ignore\" it, or make it a \
             \"dead_letter\". docs/configuration.md#sources lists the other keys of a source.",
        );
        text += "# unmatched = \"record\"\n";
    }
    text
}

/// The description of a preset.
fn preset(config: &Config) -> String {
    let (mut tables, mut outcomes, mut suppressions) = (Vec::new(), false, false);
    for rule in &config.rules {
        match &rule.effect {
            EffectDecl::Table(table) if tables.contains(&&table.table.value) => {}
            EffectDecl::Table(table) => tables.push(&table.table.value),
            EffectDecl::Outcome { .. } => outcomes = true,
            EffectDecl::Suppress(_) => suppressions = true,
            EffectDecl::Lift(_) | EffectDecl::Send(_) => {}
        }
    }
    let mut kept: Vec<_> = tables.into_iter().map(|table| format!("`{table}`")).collect();
    if outcomes {
        kept.push("the outcomes of emails and SMS that Hookmill sent".to_owned());
    }
    if suppressions {
        kept.push("suppressed recipients".to_owned());
    }
    let last = kept.pop().unwrap_or_default();
    let kept = if kept.is_empty() { last } else { format!("{} and {last}", kept.join(", ")) };
    format!("Rules that come with Hookmill. They write {kept}.")
}

/// .env.example: the secrets that hookmill.toml names.
pub fn environment(providers: &[Provider]) -> String {
    let mut text = "# The secrets that hookmill.toml names. Copy this file to .env, fill it in, and keep it private.\n\
         # Hookmill reads its environment, not the file:\n\
         #\n\
         #     set -a; . ./.env; set +a\n\
         #\n\
         # Quote a value with spaces in single quotes. Remove what you do not use: a blank secret is an error.\n"
        .to_owned();
    for provider in providers {
        let secret = provider.point("Secret").unwrap_or_default();
        text += &format!("\n{}", comment(&format!("{}: {secret}", provider.title)));
        for source in &provider.config().ingress.sources {
            let secrets = source.secrets.iter().map(|secret| &secret.name);
            for name in secrets.chain(&source.challenge_token) {
                text += &format!("{}=\n", name.0);
            }
        }
    }
    text += "\n# For the sections that are commented out in hookmill.toml:\n";
    for provider in providers {
        if let (Some(key), Some(value)) = (api_key(provider), provider.point("API key")) {
            text += &format!("\n{}# {key}=\n", comment(&format!("{}: {value}", provider.title)));
        }
    }
    text += "\n# [email]: https://resend.com/api-keys\n# RESEND_API_KEY=\n";
    text +=
        "\n# [alerts]: generate it: `whsec_` and 32 random bytes in base64.\n# ALERTS_SECRET=\n";
    text
}

/// An event for the first test, with a sample: its source and its type. If possible, one that a rule matches.
pub fn sample(provider: &Provider) -> Option<(String, String)> {
    let config = provider.config();
    let source = name(&config);
    let suggested = samples::suggested(provider.scheme)?;
    let named = |kind: &String| {
        config.rules.iter().flat_map(|rule| &rule.on).any(|on| on.matches(&source, kind))
    };
    let mut types =
        [suggested.clone()].into_iter().chain(samples::types(provider.scheme)).filter(named);
    let kind = types.next().unwrap_or(suggested);
    Some((source, kind))
}

/// The names in the examples.
fn example(provider: &Provider) -> Vec<(&'static str, String)> {
    let (source, kind) = sample(provider).unwrap_or_default();
    let body = samples::event(provider.scheme, &kind, "", Timestamp::from_seconds(0));
    // The sample of a form is a text.
    let extension = if matches!(body, Some(Value::String(_))) { "form" } else { "json" };
    vec![("file", format!("tests/{source}.{extension}")), ("source", source), ("type", kind)]
}

fn name(config: &Config) -> String {
    config.ingress.sources.first().map(|source| source.name.clone()).unwrap_or_default()
}

/// The variable with the key of the provider's API, if it has one for `refetch`.
fn api_key(provider: &Provider) -> Option<String> {
    let api = api::provider(provider.scheme)?;
    Some(format!("{}_API_KEY", api.as_str().to_uppercase()))
}

/// Comment lines. Text between backticks is not broken.
fn comment(text: &str) -> String {
    let mut lines = "#".to_owned();
    let (mut length, mut inside) = (1, false);
    let words = text.split(|c| {
        inside ^= c == '`';
        c == ' ' && !inside
    });
    for word in words {
        let width = word.chars().count();
        if length > 1 && length + 1 + width > WIDTH {
            lines += "\n#";
            length = 1;
        }
        lines += " ";
        lines += word;
        length += 1 + width;
    }
    lines + "\n"
}
