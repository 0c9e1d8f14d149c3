//! The text of docs/providers.md about a provider. `init` takes its texts from that document, so that nothing is written
//! twice.
//!
//! A section about a provider has a point **Create**, and its first block of TOML is the provider's section of
//! hookmill.toml.

use hookmill_config::{Config, parse};

const DOCUMENT: &str = include_str!("../../../../docs/providers.md");

/// A provider of webhooks.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name of its scheme.
    pub scheme: &'static str,
    /// Its name for people, the heading of its section.
    pub title: &'static str,
    /// Its section of hookmill.toml.
    pub toml: &'static str,
    /// The points of its section: names, and texts in Markdown.
    points: Vec<(&'static str, &'static str)>,
}

/// Every provider, by the name of its scheme.
pub fn all() -> Vec<Provider> {
    let sections = DOCUMENT.split("\n## ").skip(1);
    let mut providers: Vec<_> = sections.filter_map(Provider::new).collect();
    providers.sort_by_key(|provider| provider.scheme);
    providers
}

impl Provider {
    fn new(section: &'static str) -> Option<Self> {
        let (title, text) = section.split_once('\n')?;
        let point = |line: &'static str| line.strip_prefix("- **")?.split_once(":** ");
        let points: Vec<_> = text.lines().filter_map(point).collect();
        points.iter().find(|(name, _)| *name == "Create")?;
        let (_, block) = text.split_once("\n```toml\n")?;
        let (toml, _) = block.split_once("```")?;
        let scheme = |line: &'static str| line.strip_prefix("scheme = \"")?.strip_suffix('"');
        let scheme = toml.lines().find_map(scheme)?;
        Some(Self { scheme, title, toml, points })
    }

    /// A configuration with only this section.
    pub fn config(&self) -> Config {
        parse("docs/providers.md", self.toml).expect("the examples are valid")
    }

    /// The text of a point, without Markdown.
    pub fn point(&self, name: &str) -> Option<String> {
        let (_, text) = self.points.iter().find(|(found, _)| *found == name)?;
        Some(plain(text))
    }

    /// Where to read more.
    pub fn more(&self) -> String {
        format!("docs/providers.md{}", self.anchor())
    }

    /// The link to its section in docs/providers.md.
    pub fn anchor(&self) -> String {
        format!("#{}", self.title.to_lowercase().replace(' ', "-"))
    }
}

/// Markdown as plain text. The target of a link follows its text in parentheses, relative to the root of the repository.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((words, (url, after))) =
        rest.split_once("](").and_then(|(words, link)| Some((words, link.split_once(')')?)))
    {
        let (before, words) = words.rsplit_once('[').unwrap_or_default();
        let document = match url.split_once(':') {
            Some(_) => "",
            None if url.starts_with('#') => "docs/providers.md",
            None => "docs/",
        };
        text += &format!("{before}{words} ({document}{url})");
        rest = after;
    }
    (text + rest).replace("**", "")
}

#[cfg(test)]
mod tests {
    use hookmill_config::scheme_names;

    use super::*;

    #[test]
    fn every_scheme_belongs_to_a_provider_or_must_be_described() {
        let providers = all();
        let mut others: Vec<_> = scheme_names()
            .filter(|name| !providers.iter().any(|provider| provider.scheme == *name))
            .collect();
        others.sort_unstable();
        assert_eq!(others, ["ecdsa-p256", "ed25519", "hmac", "standard-webhooks", "token"]);
    }

    #[test]
    fn every_provider_has_the_points_that_are_written() {
        for provider in all() {
            for name in ["Create", "Secret", "Id and type"] {
                assert!(provider.point(name).is_some(), "{}: {name}", provider.title);
            }
            let config = provider.config();
            assert_eq!(config.ingress.sources.len(), 1, "{}", provider.title);
            let heading = format!("\n## {}\n", provider.title);
            assert_eq!(DOCUMENT.matches(&heading).count(), 1, "{}", provider.title);
        }
    }

    #[test]
    fn markdown_becomes_text() {
        assert_eq!(
            plain(
                "`on = [\"a:*\"]`, **not** [here](https://a.example/b), [there](email.md#sms), [below](#x)."
            ),
            "`on = [\"a:*\"]`, not here (https://a.example/b), there (docs/email.md#sms), below (docs/providers.md#x)."
        );
    }
}
