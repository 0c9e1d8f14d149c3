//! Secrets are named in hookmill.toml (`env:NAME`), held only here, and never printed.

pub use secrecy::ExposeSecret;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// A secret's text. `Debug` is redacted, and the memory is wiped when it is dropped.
pub type Secret = SecretString;

/// Where a secret comes from: the name of an environment variable, or of a Worker's secret binding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretName(pub String);
