//! `hookmill replays`: replays and reprocessings.

use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::client::{Client, Listing, Operator, Target};
use crate::commands::dead_letters::Which;
use crate::list::print_line;
use crate::list::{json, listed, note, put, text, time};

/// The time between two queries of a replay.
const GLANCE: Duration = Duration::from_millis(500);

/// Replays: plan, run, watch, pause, resume, cancel
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List replays, latest first
    List(Listing),
    Plan(Plan),
    Run(Run),
    Show(One),
    /// Show the progress of a replay until it ends
    Watch(One),
    /// Pause a replay; queued events are still applied
    Pause(Turn),
    /// Resume a paused replay
    Resume(Turn),
    /// Cancel a replay; unsent dead letters stay dead
    Cancel(Turn),
}

/// Plan a replay: select dead letters and see how many; nothing is sent until you run it
#[derive(clap::Args)]
struct Plan {
    #[command(flatten)]
    which: Which,
    /// Select every letter.
    #[arg(long)]
    all: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Run a planned replay
#[derive(clap::Args)]
struct Run {
    /// The id.
    id: String,
    /// Messages per second, 1 to 10000.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// The reason, for the audit.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Do not wait for the end.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    target: Target,
}

/// Show a replay and its progress, as JSON
#[derive(clap::Args)]
struct One {
    /// The id.
    id: String,
    #[command(flatten)]
    target: Target,
}

#[derive(clap::Args)]
struct Turn {
    /// The id.
    id: String,
    /// The reason, for the audit.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    target: Target,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::List(list) => run_list(list),
        Command::Plan(plan) => run_plan(plan),
        Command::Run(run) => {
            let client = Operator::new(&run.target)?;
            let body = json!({ "rate": run.rate, "reason": run.reason });
            client.post(&format!("/replays/{}/run", run.id), &body)?;
            if run.detach { Ok(()) } else { ended(&client, &run.id) }
        }
        Command::Show(one) => put(json(&show(&Client::new(&one.target)?, &one.id)?)?),
        Command::Watch(one) => ended(&Client::new(&one.target)?, &one.id),
        Command::Pause(turn) => run_turn(turn, "pause"),
        Command::Resume(turn) => run_turn(turn, "resume"),
        Command::Cancel(turn) => run_turn(turn, "cancel"),
    }
}

/// A replay and its progress.
pub(crate) fn show(client: &Client, id: &str) -> anyhow::Result<Value> {
    client.get(&format!("/replays/{id}"), &[])
}

fn run_list(list: &Listing) -> anyhow::Result<()> {
    let query = [("limit", Some(list.limit.to_string()))];
    let mut page = Client::new(&list.target)?.get("/replays", &query)?;
    let row = |replay: &Value| {
        let what = |key: &str| text(&replay[key]);
        let became = format!("{} applied, {} failed", what("applied"), what("failed"));
        let of = match replay["kind"].as_str() {
            Some("import") => "objects",
            Some("reconcile") => "differences",
            Some("reprocess") => "events",
            _ => "dead letters",
        };
        [
            time(&replay["planned_at"]),
            what("id"),
            of.to_owned(),
            what("state"),
            sent(replay),
            became,
            what("planned_by"),
            what("reason"),
        ]
    };
    let header = ["PLANNED", "ID", "OF", "STATE", "SENT", "CAME TO", "BY", "REASON"];
    listed(page["items"].take(), list.json, "no replays", header, row)
}

fn run_plan(plan: &Plan) -> anyhow::Result<()> {
    let pairs = plan.which.pairs().into_iter();
    let filters = pairs.filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))));
    let mut body: Map<String, Value> = filters.collect();
    if plan.all {
        body.insert("all".to_owned(), true.into());
    }
    let planned = Operator::new(&plan.target)?.post("/replays", &body.into())?;
    if plan.json {
        return put(json(&planned)?);
    }
    let what = |key: &str| text(&planned[key]);
    if planned["total"] == 0 {
        print_line!("no dead letters match");
        return Ok(());
    }
    print_line!(
        "{} letters, first failed {}, last failed {}",
        what("total"),
        time(&planned["first_failed_at"]),
        time(&planned["last_failed_at"])
    );
    for letter in planned["sample"].as_array().into_iter().flatten() {
        let what = |key: &str| text(&letter[key]);
        print_line!("  {}:{} {} {}", what("source"), what("event_id"), what("type"), what("error"));
    }
    print_line!("hookmill replays run {} --rate 50 --reason '…' sends them", what("id"));
    Ok(())
}

fn run_turn(turn: &Turn, what: &str) -> anyhow::Result<()> {
    let body = json!({ "reason": turn.reason });
    let replay =
        Operator::new(&turn.target)?.post(&format!("/replays/{}/{what}", turn.id), &body)?;
    note!("{} is {}, {} sent", turn.id, text(&replay["state"]), sent(&replay));
    Ok(())
}

/// The number of messages that a replay has sent, and the total if it is known.
fn sent(replay: &Value) -> String {
    match &replay["total"] {
        Value::Null => text(&replay["sent"]),
        total => format!("{} of {}", text(&replay["sent"]), text(total)),
    }
}

/// Prints the progress of a replay until its messages are applied or have failed.
pub(crate) fn ended(client: &Client, id: &str) -> anyhow::Result<()> {
    let number = |replay: &Value, key: &str| replay[key].as_u64().unwrap_or_default();
    let first = show(client, id)?;
    let (bar, style) = match first["total"].as_u64() {
        Some(total) => (ProgressBar::new(total), "{bar:40} {pos}/{len} sent, {msg} ({elapsed})"),
        None => (ProgressBar::new_spinner(), "{spinner} {pos} sent, {msg} ({elapsed})"),
    };
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut told = String::new();
    loop {
        let replay = show(client, id)?;
        let (sent, applied, failed) =
            (number(&replay, "sent"), number(&replay, "applied"), number(&replay, "failed"));
        bar.set_position(sent);
        let error = replay["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default();
        let is_waiting = replay["state"] == "running" && !error.is_empty();
        if bar.is_hidden() && is_waiting && error != told {
            note!("{}", error.trim_start_matches(": "));
            told.clone_from(&error);
        }
        let state = text(&replay["state"]);
        bar.set_message(format!("{applied} applied, {failed} failed, {state}{error}"));
        let ended =
            matches!(replay["state"].as_str(), Some("done" | "cancelled" | "paused" | "planned"));
        if ended && (applied + failed >= sent || replay["state"] != "done") {
            bar.abandon();
            // Most reconciliations send nothing.
            if sent > 0 || replay["kind"] != "reconcile" {
                note!("{state}: {sent} sent, {applied} applied, {failed} failed");
            }
            if let Some(error) = replay["error"].as_str().filter(|_| replay["state"] == "paused") {
                bail!("{error}");
            }
            let total = number(&replay, "total");
            if replay["state"] == "done" && sent < total {
                let others = total - sent;
                note!(
                    "the other {others} were selected by another replay, applied or discarded meanwhile, or failed again; a new plan selects those that are dead"
                );
            }
            return Ok(());
        }
        std::thread::sleep(GLANCE);
    }
}
