//! The project's own commands. CI runs `cargo xtask test`, and contributors can run the same.

// Commands print to stdout and stderr.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[cfg(test)]
mod arrows;
mod bench;
mod build;
mod dev;
mod faults;
mod schema;
mod shell;
mod test;
mod tools;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::build::Worker;
use crate::tools::Tools;

#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the other commands need, under target/ and tests/node_modules
    Setup,
    /// Build a Worker into target/workers, with the checked hookmill.toml (or $HOOKMILL_CONFIG) baked in
    Build {
        /// The Worker.
        worker: Worker,
        /// The folder to build into.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Run the three Workers on this machine under wrangler
    Dev(dev::Arguments),
    /// Run Cloudflare's wrangler, in the version that the tests use
    Wrangler {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Install what the tests need and run all of them
    Test(test::Arguments),
    /// Run simulated histories of the pipeline
    Sim {
        /// The number of seeds.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// Put faults into a copy of the code, one at a time, and show which history finds each. `--faults NAME` tries those with
        /// this text in their names.
        #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
        faults: Option<String>,
    },
    /// Measure both platforms, as ratios to references in the same run
    Bench(bench::Arguments),
    /// Write the JSON Schema of hookmill.toml and the OpenAPI document of the admin API into docs/, from the code
    Schema,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => Tools::install().map(drop),
        Command::Build { worker, out } => {
            Tools::install().and_then(|tools| build::build(&tools, worker, out.as_deref(), None))
        }
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Wrangler { arguments } => Tools::install()
            .and_then(|tools| shell::become_program(tools.wrangler().args(arguments))),
        Command::Test(arguments) => test::run(&arguments),
        Command::Sim { seeds, faults: None } => test::sim(seeds),
        Command::Sim { seeds, faults: Some(named) } => faults::find(&named, seeds),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Schema => schema::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
