//! Where secrets come from on one machine: the environment, and for development a text that everybody knows.

use hookmill_core::config::{Ingress, Source};
use hookmill_core::secret::{Secret, SecretName};
use hookmill_providers::{Development, development};

/// The secret from the environment, if it is set.
pub fn from_environment(name: &SecretName) -> Option<Secret> {
    std::env::var(&name.0).ok().map(Secret::from)
}

/// The secret from the environment, or else the development secret of the source that names it.
pub fn for_development(ingress: &Ingress, name: &SecretName) -> Option<Secret> {
    let source = || ingress.sources.iter().find(|s| s.secrets.iter().any(|s| s.name == *name));
    from_environment(name).or_else(|| Some(development_keys(source()?, name)?.verifying))
}

/// The development keys of a source, for this secret of it. One is enough; the others are for rotation.
pub fn development_keys(source: &Source, name: &SecretName) -> Option<Development> {
    let first = source.secrets.first().is_some_and(|secret| secret.name == *name);
    first.then(|| development(source, name))
}

/// What becomes of a secret on its way into a variable, undone.
pub fn unwrapped(secret: &str) -> Vec<(&'static str, Secret)> {
    let secret = secret.trim();
    let quoted = ['"', '\'']
        .iter()
        .find_map(|quote| secret.strip_prefix(*quote)?.strip_suffix(*quote))
        .map(|inner| ("is in quotes, which are not a part of it", inner));
    let ended = secret
        .strip_suffix("\\n")
        .map(|inner| ("ends with a backslash and an n, which are not a part of it", inner));
    let assigned = secret
        .split_once('=')
        .filter(|(name, inner)| {
            // Base64 may end in an equals sign, or two.
            !name.is_empty()
                && inner.len() > 1
                && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
        })
        .map(|(_, inner)| ("holds a name and an equals sign before the secret", inner));
    let found = [quoted, ended, assigned].into_iter().flatten();
    found.map(|(what, inner)| (what, Secret::from(inner))).collect()
}
