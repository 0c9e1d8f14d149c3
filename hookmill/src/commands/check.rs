//! `hookmill check`: validates a configuration before it runs.

mod capacity;
mod dead;
mod lint;
pub mod rule_tests;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::bail;
use hookmill_config::ConfigError;
use hookmill_loader::wrangler::{self, Findings};
use hookmill_loader::{Faults, LoadError, Loaded};
use hookmill_native::now;
use serde_json::{Value, json};

use crate::list::{note, print_line};
use crate::run::pipeline::load;
use crate::run::secrets;

/// Check a configuration, its rules against the schema and the Workers' wrangler.toml, and run its tests
#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    config: PathBuf,
    /// Also check that the environment contains usable secrets for `serve`.
    #[arg(long)]
    secrets: bool,
    /// Exit with 1 if there are warnings, for CI.
    #[arg(long)]
    deny_warnings: bool,
    /// Print {"valid":…,"errors":[…],"warnings":[…],"notes":[…]}.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (mut warnings, mut notes) = (Vec::new(), Vec::new());
    let loaded = load(&arguments.config).and_then(|loaded| {
        warnings = lint::warnings(&arguments.config, &loaded)?;
        notes = lint::notes(&loaded);
        let found = Found::new(arguments, &loaded)?;
        if found.is_empty() { Ok(loaded) } else { Err(found.into()) }
    });
    let denied = arguments.deny_warnings && !warnings.is_empty();
    if arguments.json {
        let errors = loaded.map_or_else(|error| listed(&error), |_| Vec::new());
        let valid = errors.is_empty() && !denied;
        let faults = |found: &[ConfigError]| found.iter().map(fault).collect::<Value>();
        let (warnings, notes) = (faults(&warnings), faults(&notes));
        print_line!(
            "{}",
            json!({ "valid": valid, "errors": errors, "warnings": warnings, "notes": notes })
        );
        if !valid {
            bail!("the configuration is not valid");
        }
        return Ok(());
    }
    for warning in &warnings {
        note!("warning: {warning}");
    }
    for text in &notes {
        note!("note: {text}");
    }
    let Loaded { config, program, .. } = loaded?;
    if arguments.config.with_file_name("consumers/worker/wrangler.toml").exists() {
        note!("note: {}", capacity::sentence(&config));
    }
    let (sources, rules) = (config.ingress.sources.len(), program.rules.len());
    note!(
        "{}: {sources} source{} and {rules} rule{}, no errors{}{}",
        arguments.config.display(),
        s(sources),
        s(rules),
        match warnings.len() {
            0 => String::new(),
            count => format!(", {count} warning{}", s(count)),
        },
        match config.tests.len() {
            0 => String::new(),
            tests => format!("; {tests} test{} passed", s(tests)),
        }
    );
    if denied {
        bail!("--deny-warnings allows no warnings");
    }
    Ok(())
}

pub const fn s(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The errors, for programs.
fn listed(error: &anyhow::Error) -> Vec<Value> {
    let problem = |problem: &str| json!({ "problem": problem });
    if let Some(LoadError::Faults(Faults(faults))) = error.downcast_ref() {
        faults.iter().map(fault).collect()
    } else if let Some(Found { faults, problems }) = error.downcast_ref() {
        faults.iter().map(fault).chain(problems.iter().map(|text| problem(text))).collect()
    } else {
        vec![problem(&format!("{error:#}"))]
    }
}

/// The errors of a configuration that could be loaded.
#[derive(Debug)]
struct Found {
    faults: Vec<ConfigError>,
    /// Problems without a location in a file.
    problems: Vec<String>,
}

impl Found {
    fn new(arguments: &Arguments, loaded: &Loaded) -> anyhow::Result<Self> {
        let mut faults = check_workers(&arguments.config, loaded);
        // The results of events are those of `[[tests]]`.
        faults.extend(rule_tests::run(&arguments.config, loaded)?);
        let expired = expired(loaded);
        let mut problems: Vec<_> = expired
            .iter()
            .map(|source| {
                format!("{source}: all secrets have expired (`not_after`); add the current secret")
            })
            .collect();
        if arguments.secrets {
            let found = secrets::check(loaded);
            // If a secret of the source has expired, it does not matter whether it is set.
            let new = |problem: &String| !expired.iter().any(|source| problem.starts_with(source));
            problems.extend(found.problems.into_iter().filter(new));
            for note in found.notes {
                note!("note: {note}");
            }
        }
        Ok(Self { faults, problems })
    }

    fn is_empty(&self) -> bool {
        self.faults.is_empty() && self.problems.is_empty()
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, problems } = self;
        if problems.is_empty() {
            return Faults(faults.clone()).fmt(f);
        }
        let lines = faults.iter().map(ToString::to_string).chain(problems.iter().cloned());
        let lines: Vec<_> = lines.collect();
        f.write_str(&lines.join("\nerror: "))?;
        match lines.len() {
            1 => Ok(()),
            count => write!(f, "\n{count} errors"),
        }
    }
}

impl std::error::Error for Found {}

/// The Workers in the configuration's folder must agree with it; without Workers there is nothing to check.
fn check_workers(config: &Path, loaded: &Loaded) -> Vec<ConfigError> {
    let read = |path: &Path| std::fs::read_to_string(path);
    let Findings { faults, unchecked } =
        wrangler::check(&loaded.config, &config.with_file_name(""), read);
    for file in unchecked {
        note!("note: {file} is not checked; Hookmill reads only wrangler.toml");
    }
    faults
}

/// Sources whose secrets have all expired, which reject every request; as messages name them.
fn expired(loaded: &Loaded) -> Vec<String> {
    let sources = loaded.config.ingress.sources.iter();
    let expired = sources.filter(|source| source.secrets.iter().all(|s| s.expired(now())));
    expired.map(|source| format!("source `{}`", source.name)).collect()
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
