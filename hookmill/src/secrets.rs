//! Where secrets come from on one machine: the environment, and for development a text that everybody knows.

use hookmill_core::config::Ingress;
use hookmill_core::secret::{Secret, SecretName};
use hookmill_providers::development_secret;

/// The secret from the environment, if it is set.
pub fn from_environment(name: &SecretName) -> Option<Secret> {
    std::env::var(&name.0).ok().map(Secret::from)
}

/// The secret from the environment, or else the development secret of the source that names it.
pub fn for_development(ingress: &Ingress, name: &SecretName) -> Option<Secret> {
    from_environment(name).or_else(|| {
        let source = ingress.sources.iter().find(|source| source.secrets.contains(name))?;
        // One is enough; the others are for rotation.
        (source.secrets.first() == Some(name)).then(|| development_secret(source.scheme, name))
    })
}
