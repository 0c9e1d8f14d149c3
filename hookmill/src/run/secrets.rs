//! The sources of secrets on one machine: the environment, and for development public texts.

use std::collections::BTreeSet;

use hookmill_config::{Ingress, Source};
use hookmill_core::secret::{ExposeSecret, Secret, SecretName};
use hookmill_loader::Loaded;
use hookmill_native::now;
use hookmill_providers::{Development, KeyError, Verifier, development, development_token};

use crate::run::pipeline::lacking;

/// The secret from the environment, if it is set.
pub fn from_environment(name: &SecretName) -> Option<Secret> {
    std::env::var(&name.0).ok().map(Secret::from)
}

/// The secret from the environment, or else the development secret of the source that names it.
pub fn for_development(ingress: &Ingress, name: &SecretName) -> Option<Secret> {
    let source = || ingress.sources.iter().find(|s| s.secrets.iter().any(|s| s.name == *name));
    let token = || ingress.sources.iter().any(|s| s.challenge_token.as_ref() == Some(name));
    from_environment(name)
        .or_else(|| Some(development_keys(source()?, name)?.verifying))
        .or_else(|| token().then(|| development_token(name)))
}

/// The development keys of a source, for this secret. Only its first has one; the others are for rotation.
pub fn development_keys(source: &Source, name: &SecretName) -> Option<Development> {
    let first = source.secrets.first().is_some_and(|secret| secret.name == *name);
    first.then(|| development(source, name))
}

/// The result of checking the secrets in the environment. It names them, and contains none.
pub struct Checked {
    /// Why `serve` would not start.
    pub problems: Vec<String>,
    /// Notes that do not prevent the start.
    pub notes: Vec<String>,
}

/// Checks whether all secrets of a configuration are set and valid.
pub fn check(loaded: &Loaded) -> Checked {
    let (mut problems, mut notes) = (lacking(loaded), Vec::new());
    let sources = &loaded.config.ingress.sources;
    for source in sources {
        let (mut set, mut unset) = (0, Vec::new());
        // Checked separately, since a source reports only its first problem.
        for secret in &source.secrets {
            let alone = Source { secrets: vec![secret.clone()], ..source.clone() };
            match Verifier::new(&alone, from_environment) {
                Err(KeyError::NoneSet { .. }) if secret.expired(now()) => {}
                Err(KeyError::NoneSet { names, .. }) => unset.push(names),
                Err(error) => problems.push(error.to_string()),
                Ok(_) => set += 1,
            }
        }
        // One is enough; the others are for rotation.
        if set > 0 {
            let name = &source.name;
            let note = |secret| {
                format!("source `{name}`: {secret} is not set; another secret of the source is")
            };
            notes.extend(unset.into_iter().map(note));
        }
    }
    notes.extend(wrapped(sources));
    let mut known = BTreeSet::new();
    for list in [&mut problems, &mut notes] {
        list.retain(|what| known.insert(what.clone()));
    }
    Checked { problems, notes }
}

/// Reports secrets with surrounding characters that do not belong to them.
pub fn wrapped(sources: &[Source]) -> Vec<String> {
    let names = sources.iter().flat_map(|source| &source.secrets).map(|secret| &secret.name);
    let wrapped = |name: &SecretName| {
        let secret = from_environment(name);
        let secret = secret.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        let found = unwrapped(secret).into_iter();
        found.map(|(what, _)| format!("{} probably {what}", name.0)).collect::<Vec<_>>()
    };
    names.flat_map(wrapped).collect()
}

/// The secret without changes that happen on its way into a variable.
pub fn unwrapped(secret: &str) -> Vec<(&'static str, Secret)> {
    let secret = secret.trim();
    let quoted = ['"', '\'']
        .iter()
        .find_map(|quote| secret.strip_prefix(*quote)?.strip_suffix(*quote))
        .map(|inner| ("is in quotes, which are not part of it", inner));
    let ended = secret
        .strip_suffix("\\n")
        .map(|inner| ("ends with a backslash and an n, which are not part of it", inner));
    let assigned = secret
        .split_once('=')
        .filter(|(name, inner)| {
            // Base64 may end in an equals sign, or two.
            !name.is_empty()
                && inner.len() > 1
                && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
        })
        .map(|(_, inner)| ("contains a name and an equals sign before the secret", inner));
    let found = [quoted, ended, assigned].into_iter().flatten();
    found.map(|(what, inner)| (what, Secret::from(inner))).collect()
}
