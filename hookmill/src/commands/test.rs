//! `hookmill test`: runs `[[tests]]`.

use std::path::PathBuf;

use anyhow::bail;
use hookmill_config::RuleTest;

use crate::commands::check::{rule_tests, s};
use crate::list::{note, plain, print_line};
use crate::run::pipeline::load;

/// Run the tests in a configuration, `[[tests]]`, and list them
#[derive(clap::Args)]
pub struct Arguments {
    /// Run only the tests whose names contain this text, in upper or lower case. With several, those with any of them.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    config: PathBuf,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let loaded = load(&arguments.config)?;
    let named = |(number, test): (usize, &RuleTest)| match &test.name {
        Some(name) => plain(&name.value),
        None => format!("tests[{number}]"),
    };
    let tests: Vec<_> = loaded.config.tests.iter().enumerate().collect();
    let names = || tests.iter().map(|test| named(*test)).collect::<Vec<_>>();
    let has = |test: (usize, &RuleTest), only: &String| {
        named(test).to_lowercase().contains(&only.to_lowercase())
    };
    let unknown = arguments.only.iter().find(|only| !tests.iter().any(|test| has(*test, only)));
    if let Some(only) = unknown {
        bail!("no test has {only:?} in its name; tests:\n  {}", names().join("\n  "));
    }
    let is_selected = |test: &(usize, &RuleTest)| {
        arguments.only.is_empty() || arguments.only.iter().any(|only| has(*test, only))
    };
    let selected: Vec<_> = tests.iter().copied().filter(is_selected).collect();
    let (count, mut failed) = (selected.len(), 0);
    for (number, test) in selected {
        let faults = rule_tests::run_one(&arguments.config, &loaded, test)?;
        let result = if faults.is_empty() { "passed" } else { "failed" };
        print_line!("{result}: {}", named((number, test)));
        for fault in &faults {
            note!("error: {fault}");
        }
        failed += usize::from(!faults.is_empty());
    }
    if failed > 0 {
        bail!("{failed} of {count} test{} failed", s(count));
    }
    note!("{}: {count} test{} passed", arguments.config.display(), s(count));
    Ok(())
}
