//! Secrets. hookmill.toml names them (`env:NAME`); only this type holds them, and it is never printed.

pub use secrecy::ExposeSecret;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// A secret. `Debug` is redacted, and the memory is wiped on drop.
pub type Secret = SecretString;

/// The name of an environment variable, or of a Worker's secret binding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretName(pub String);
