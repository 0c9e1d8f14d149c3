//! `hookmill check`: whether a configuration would run, before it does.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hookmill_core::config::{ConfigError, check_rate_limits};
use hookmill_migrations::{Faults, LoadError, Loaded};
use hookmill_native::now;
use serde_json::{Value, json};

use crate::pipeline::load;
use crate::rule_tests;

/// Check a configuration: its text, its rules against the schema, its presets, the wrangler.toml beside it; and run its tests
#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    config: PathBuf,
    /// Print {"valid":…,"errors":[…]}.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let loaded = load(&arguments.config)
        .and_then(|loaded| check_wrangler(&arguments.config, &loaded).map(|()| loaded))
        .and_then(|loaded| check_secrets(&loaded).map(|()| loaded))
        .and_then(|loaded| carry_out_tests(&arguments.config, &loaded).map(|()| loaded));
    if !arguments.json {
        let Loaded { config, program, .. } = loaded?;
        let (sources, rules) = (config.ingress.sources.len(), program.rules.len());
        let s = |count| if count == 1 { "" } else { "s" };
        eprintln!(
            "{}: {sources} source{} and {rules} rule{}, no errors{}",
            arguments.config.display(),
            s(sources),
            s(rules),
            match config.tests.len() {
                0 => String::new(),
                tests => format!("; {tests} test{} passed", s(tests)),
            }
        );
        return Ok(());
    }
    let errors = match &loaded {
        Ok(_) => Vec::new(),
        Err(error) => match error.downcast_ref::<LoadError>() {
            Some(LoadError::Faults(Faults(faults))) => faults.iter().map(fault).collect(),
            _ => vec![json!({ "problem": format!("{error:#}") })],
        },
    };
    println!("{}", json!({ "valid": errors.is_empty(), "errors": errors }));
    if !errors.is_empty() {
        bail!("the configuration is not valid");
    }
    Ok(())
}

/// What events do is as `[[tests]]` say.
fn carry_out_tests(config: &Path, loaded: &Loaded) -> anyhow::Result<()> {
    let faults = rule_tests::run(config, loaded)?;
    if faults.is_empty() { Ok(()) } else { Err(LoadError::Faults(Faults(faults)).into()) }
}

/// What is deployed from the folder of the configuration has to agree with it; nothing is, if there is no Worker in it.
fn check_wrangler(config: &Path, loaded: &Loaded) -> anyhow::Result<()> {
    let path = config.with_file_name("ingress").join("worker/wrangler.toml");
    if !path.exists() {
        return Ok(());
    }
    let file = path.display().to_string();
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {file}"))?;
    let faults = check_rate_limits(&loaded.config.ingress, &file, &text);
    if faults.is_empty() { Ok(()) } else { Err(LoadError::Faults(Faults(faults)).into()) }
}

/// A source whose secrets have all been replaced takes nothing.
fn check_secrets(loaded: &Loaded) -> anyhow::Result<()> {
    let sources = loaded.config.ingress.sources.iter();
    let expired = sources.filter(|source| source.secrets.iter().all(|s| s.expired(now())));
    let names: Vec<_> = expired.map(|source| format!("`{}`", source.name)).collect();
    if !names.is_empty() {
        bail!(
            "source {}: `not_after` of every secret has passed; name the secret that is valid now",
            names.join(", ")
        );
    }
    Ok(())
}

fn fault(fault: &ConfigError) -> Value {
    json!({
        "file": *fault.at.file,
        "line": fault.at.line,
        "column": fault.at.column,
        "key": fault.key,
        "problem": fault.problem,
        "hint": fault.hint,
    })
}
