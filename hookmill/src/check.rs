//! `hookmill check`: whether a configuration would run, before it does.

use std::path::PathBuf;

use anyhow::bail;
use hookmill_core::config::ConfigError;
use hookmill_migrations::{Faults, LoadError, Loaded};
use serde_json::{Value, json};

use crate::pipeline::load;

/// Check a configuration: its text, its rules against the schema, its presets
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
    let loaded = load(&arguments.config);
    if !arguments.json {
        let Loaded { config, program, .. } = loaded?;
        let (sources, rules) = (config.ingress.sources.len(), program.rules.len());
        let s = |count| if count == 1 { "" } else { "s" };
        eprintln!(
            "{}: {sources} source{} and {rules} rule{}, no errors",
            arguments.config.display(),
            s(sources),
            s(rules)
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
