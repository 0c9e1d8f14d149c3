//! The presets: rules in the language of hookmill.toml, without sources in `on`, since a source names its preset.

use hookmill_keys::{ConfigError, Document};

use crate::ast::RuleDecl;
use crate::decl::{Sources, rule};

/// A preset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preset {
    /// Its name in hookmill.toml.
    pub name: &'static str,
    /// The schemes that sign its events.
    pub schemes: &'static [&'static str],
    text: &'static str,
}

macro_rules! presets {
    ($($name:literal: [$($scheme:literal),*];)*) => {
        [$(Preset {
            name: $name,
            schemes: &[$($scheme),*],
            text: include_str!(concat!("../presets/", $name, ".toml")),
        }),*]
    };
}

/// All presets.
pub const PRESETS: [Preset; 8] = presets! {
    "clerk": ["clerk", "svix", "standard-webhooks"];
    "github": ["github"];
    "paddle": ["paddle"];
    "resend": ["resend", "svix", "standard-webhooks"];
    "sendgrid": ["sendgrid"];
    "shopify": ["shopify"];
    "stripe": ["stripe"];
    "twilio": ["twilio"];
};

impl Preset {
    /// The preset's rules, for the sources that use it.
    pub fn rules(&self, users: &[&String]) -> (Vec<RuleDecl>, Vec<ConfigError>) {
        let document = Document::new(&format!("presets/{}.toml", self.name), self.text);
        let table = document.parse();
        let root = document.root(&table);
        let entries = root.get("rules").map(|item| item.list("a list of rules", false));
        let entries = entries.into_iter().flatten();
        let rules = entries.filter_map(|entry| rule(&entry, &Sources::Preset(users))).collect();
        root.finish();
        (rules, document.into_errors())
    }
}
