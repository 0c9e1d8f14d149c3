//! `hookmill serve`: the whole pipeline on one server.

use std::net::SocketAddr;

use tracing::info;

use crate::run::pipeline::{Outbox, RunOptions, load, run as run_pipeline, start_log};
use crate::run::secrets::from_environment;

/// Run the whole pipeline on this machine, with secrets from the environment
///
/// Hookmill speaks plain HTTP: put a proxy that terminates TLS in front of it. The command applies pending migrations
/// first.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    options: RunOptions,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = &arguments.options;
    start_log(options, "info");
    let loaded = load(&options.config)?;
    let data = options.data.display().to_string();
    let ready = |address: SocketAddr, admin: SocketAddr| {
        info!(%address, %admin, data, "accepting webhooks");
        Ok(())
    };
    run_pipeline(options, loaded, from_environment, Outbox::Sent, ready)
}
