//! `cargo xtask dev`: the three Workers on this machine, under wrangler, with Queues, the dead-letter queue, D1 and R2.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use hookmill_config::parse;
use hookmill_core::secret::ExposeSecret as _;
use hookmill_providers::{development, development_token};

use crate::build::Worker;
use crate::shell::{become_program, root};
use crate::tools::Tools;

#[derive(clap::Args)]
pub struct Arguments {
    /// The port to listen on, on loopback.
    #[arg(long, default_value_t = 8787)]
    port: u16,
    /// Where wrangler keeps the data of D1 and R2. Its queues are in memory.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill/workers")]
    data: PathBuf,
}

/// Runs until it is interrupted.
///
/// # Errors
///
/// If something cannot be installed, built or started.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tools = Tools::install()?;
    let sources = development_secrets()?;
    let data = root().join(&arguments.data);
    fs::create_dir_all(&data)?;
    let wrangler_toml = |worker: Worker| worker.folder().join("wrangler.toml");
    crate::shell::run(
        tools
            .wrangler()
            .args(["d1", "migrations", "apply", "DB", "--local", "--persist-to"])
            .arg(&data)
            .arg("--config")
            .arg(wrangler_toml(Worker::Consumers))
            .env("CI", "1"),
    )?;
    let at = format!("--to http://127.0.0.1:{}", arguments.port);
    eprintln!(
        "\nOnce wrangler has built the Workers and says that they are ready, in another terminal:\n"
    );
    for source in sources {
        eprintln!("  cargo run -- send {source} {at}    # lists the types of events to send");
    }
    eprintln!(
        "  cargo xtask wrangler d1 execute DB --local --persist-to {} --config consumers/worker/wrangler.toml --command 'SELECT * FROM events'\n",
        arguments.data.display()
    );
    let mut wrangler = tools.wrangler();
    wrangler
        .arg("dev")
        .args(["--ip", "127.0.0.1", "--port", &arguments.port.to_string()])
        .arg("--persist-to")
        .arg(&data);
    for worker in Worker::ALL {
        wrangler.arg("--config").arg(wrangler_toml(worker));
    }
    become_program(&mut wrangler)
}

/// Writes the secrets that hookmill.toml names and that are not set into `.dev.vars`, where wrangler looks for them.
/// `hookmill send` signs with the same. Returns the names of the sources.
fn development_secrets() -> anyhow::Result<Vec<String>> {
    let path = root().join("hookmill.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config = match parse("hookmill.toml", &text) {
        Ok(config) => config,
        Err(errors) => {
            for error in &errors {
                eprintln!("{error}");
            }
            bail!("the configuration has errors");
        }
    };
    let path = Worker::Ingress.folder().join(".dev.vars");
    let mut vars = fs::read_to_string(&path).unwrap_or_else(|_| {
        "# DEVELOPMENT SECRETS, which everybody knows. Not for production.\n".to_owned()
    });
    for source in &config.ingress.sources {
        let Some(name) = source.secrets.first().map(|secret| &secret.name) else { continue };
        if vars.lines().any(|line| line.starts_with(&format!("{}=", name.0))) {
            continue;
        }
        let secret = development(source, name).verifying;
        vars.push_str(&format!("{}={}\n", name.0, secret.expose_secret()));
    }
    for name in config.ingress.sources.iter().filter_map(|source| source.challenge_token.as_ref()) {
        if !vars.lines().any(|line| line.starts_with(&format!("{}=", name.0))) {
            let token = development_token(name);
            vars.push_str(&format!("{}={}\n", name.0, token.expose_secret()));
        }
    }
    fs::write(&path, vars).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(config.ingress.sources.into_iter().map(|source| source.name).collect())
}
