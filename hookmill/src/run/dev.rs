//! `hookmill dev`: the whole pipeline without setup, ready for a signed webhook.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::bail;
use hookmill_config::Source;
use hookmill_core::secret::ExposeSecret as _;

use crate::commands::token;
use crate::list::note;
use crate::run::pipeline::{Outbox, RunOptions, load, run as run_pipeline, start_log};
use crate::run::secrets::{for_development, from_environment};

/// Run the whole pipeline for development, with development secrets where none are set
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    options: RunOptions,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = &arguments.options;
    for address in [Some(options.listen), options.admin].into_iter().flatten() {
        if !address.ip().is_loopback() {
            bail!(
                "dev listens on loopback only, because its secrets are public; use `hookmill serve` for {address}"
            );
        }
    }
    start_log(options, "debug");
    let loaded = load(&options.config)?;
    let ingress = loaded.config.ingress.clone();
    let ready = |address: SocketAddr, admin: SocketAddr| {
        note!(
            "\nHookmill accepts webhooks at http://{address} and stores its data in {}.\n",
            options.data.display()
        );
        for source in &ingress.sources {
            note!(
                "  http://{address}/webhooks/{}\n      {}",
                source.name,
                secret_line(source, &|name| { for_development(&ingress, name) })
            );
        }
        note!(
            "\n  http://{admin}/admin\n      TOKEN for the dashboard, valid until the next start of dev: {}",
            token::for_development(&options.data)?
        );
        let (config, data) = command_options(options);
        let program = program();
        note!("\nIn another terminal:\n");
        for source in &ingress.sources {
            if let Some(event) = crate::samples::suggested(&source.scheme_name) {
                note!("  {program} send {} {event}{config}", source.name);
            }
        }
        note!("  {program} tail{data}");
        note!("  {program} events{data}\n");
        Ok(())
    };
    run_pipeline(options, loaded, |name| for_development(&ingress, name), Outbox::Displayed, ready)
}

/// How a source's events are signed: the name of a secret from the environment, or the development secret itself.
fn secret_line(
    source: &Source,
    lookup: &dyn Fn(&hookmill_core::secret::SecretName) -> Option<hookmill_core::secret::Secret>,
) -> String {
    let lines: Vec<_> = source
        .secrets
        .iter()
        .map(|secret| &secret.name)
        .filter_map(|name| match from_environment(name) {
            Some(_) => Some(format!("signed with {} from the environment", name.0)),
            None => lookup(name).map(|secret| {
                let what = if source.scheme.has_public_keys() { "PUBLIC KEY" } else { "SECRET" };
                format!("DEVELOPMENT {what}, not for production: {}", secret.expose_secret())
            }),
        })
        .collect();
    lines.join("\n      ")
}

/// Options that the suggested commands need if they differ from the defaults. `send` finds the address in the data folder.
fn command_options(options: &RunOptions) -> (String, String) {
    let option = |name: &str, path: &Path, usual: &str| {
        if path == Path::new(usual) {
            String::new()
        } else {
            format!(" --{name} {}", path.display())
        }
    };
    let data = option("data", &options.data, ".hookmill");
    (option("config", &options.config, "hookmill.toml") + &data, data)
}

/// How this program was started, for suggestions that can be pasted.
pub fn program() -> &'static str {
    if std::env::var_os("CARGO").is_some() { "cargo run --" } else { "hookmill" }
}
