//! The binary. Each subcommand is a function in its own file, below `commands` or `run`; `main` turns its result into an
//! exit code.
//!
//! | Exit code | Means |
//! | --- | --- |
//! | 0 | success |
//! | 1 | failure; the reason is on stderr |
//! | 2 | invalid command line |
//! | 3 | `reconcile`: the tables differ from the provider |
//! | 4 | `reconcile`: the command could not compare every row |

mod client;
mod commands;
mod list;
mod run;
mod samples;
mod trial;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    backup, check, counts, dead_letters, email, events, explain, import, init, migrate, reconcile,
    rejections, replays, reprocess, schema, send, stats, tail, test, token, verify, verify_data,
};
use crate::list::note;
use crate::run::{dev, serve};

/// Receives webhooks and applies each event exactly once.
///
/// Exit codes: 0 success, 1 failure, 2 invalid command line; `reconcile` also returns 3 (different) and 4 (not everything could be compared).
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Arguments),
    Dev(dev::Arguments),
    Serve(serve::Arguments),
    Check(check::Arguments),
    Test(test::Arguments),
    Schema(schema::Arguments),
    Send(send::Arguments),
    Verify(verify::Arguments),
    Explain(explain::Arguments),
    Events(events::Arguments),
    Tail(tail::Arguments),
    Email(email::Arguments),
    Rejections(rejections::Arguments),
    DeadLetters(dead_letters::Arguments),
    Replays(replays::Arguments),
    Reprocess(reprocess::Arguments),
    Import(import::Arguments),
    Reconcile(reconcile::Arguments),
    Stats(stats::Arguments),
    Counts(counts::Arguments),
    Token(token::Arguments),
    Migrate(migrate::Arguments),
    Backup(backup::Backup),
    Restore(backup::Restore),
    VerifyData(verify_data::Arguments),
}

/// Makes new files private: they contain customers' data. Those of `init` belong to the user's project.
#[cfg(unix)]
fn restrict_new_files(command: &Command) {
    use rustix::fs::Mode;

    if !matches!(command, Command::Init(_)) {
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
    }
}

#[cfg(not(unix))]
fn restrict_new_files(_: &Command) {}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    restrict_new_files(&command);
    let result = match command {
        Command::Init(arguments) => init::run(&arguments),
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Send(arguments) => send::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Events(arguments) => events::run(&arguments),
        Command::Tail(arguments) => tail::run(&arguments),
        Command::Email(arguments) => email::run(&arguments),
        Command::Rejections(arguments) => rejections::run(&arguments),
        Command::DeadLetters(arguments) => dead_letters::run(&arguments),
        Command::Replays(arguments) => replays::run(&arguments),
        Command::Reprocess(arguments) => reprocess::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Reconcile(arguments) => return reconcile::run(&arguments),
        Command::Stats(arguments) => stats::run(&arguments),
        Command::Counts(arguments) => counts::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Migrate(arguments) => migrate::run(&arguments),
        Command::Backup(arguments) => backup::backup(&arguments),
        Command::Restore(arguments) => backup::restore(&arguments),
        Command::VerifyData(arguments) => verify_data::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
