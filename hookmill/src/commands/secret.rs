//! A secret for one command. Other users of the machine can read the arguments of a process, so no argument is a secret.

use std::io::Read as _;

use anyhow::Context as _;
use hookmill_core::secret::Secret;

/// A secret in place of the configured ones.
#[derive(clap::Args)]
#[group(multiple = false)]
pub struct GivenSecret {
    /// Use the secret in this environment variable instead of the configured ones.
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
    /// Read the secret from standard input instead of using the configured ones.
    #[arg(long)]
    secret_stdin: bool,
}

impl GivenSecret {
    /// The secret, if one is given.
    ///
    /// # Errors
    ///
    /// If the variable is not set, or the input cannot be read.
    pub fn read(&self) -> anyhow::Result<Option<Secret>> {
        if self.secret_stdin {
            let mut secret = String::new();
            std::io::stdin().read_to_string(&mut secret).context("cannot read the secret")?;
            return Ok(Some(Secret::from(secret)));
        }
        let Some(name) = &self.secret_env else { return Ok(None) };
        let secret = std::env::var(name).ok().with_context(|| format!("{name} is not set"))?;
        Ok(Some(Secret::from(secret)))
    }
}
