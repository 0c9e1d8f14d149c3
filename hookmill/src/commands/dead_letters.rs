//! `hookmill dead-letters`: list, replay and discard dead letters.

use clap::builder::PossibleValuesParser;
use hookmill_core::words::{LetterReason, LetterState, WordFilter};
use serde_json::{Value, json};

use crate::client::{Client, Listing, Operator, Target};
use crate::list::{json, listed, note, put, text, time};
use crate::words::word;

/// Dead letters: list, show, replay or discard
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    List(List),
    Groups(Groups),
    Show(Show),
    /// Replay a dead letter
    Replay(Act),
    /// Mark a dead letter as discarded: it stays, and can no longer be replayed
    Discard(Act),
}

/// A filter of letters.
#[derive(clap::Args)]
pub struct Which {
    /// The source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The event type. `*` matches any text: 'customer.*'.
    #[arg(long, value_name = "GLOB")]
    r#type: Option<String>,
    /// The reason.
    #[arg(long, value_parser = word::<LetterReason>())]
    reason: Option<LetterReason>,
    /// The fingerprint of the error; `hookmill dead-letters groups` lists fingerprints.
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
    /// The provider's event id.
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
}

impl Which {
    /// As a query, or the members of a body.
    pub fn pairs(&self) -> [(&'static str, Option<String>); 5] {
        [
            ("source", self.source.clone()),
            ("type", self.r#type.clone()),
            ("reason", self.reason.map(|reason| reason.to_string())),
            ("fingerprint", self.fingerprint.clone()),
            ("event_id", self.event_id.clone()),
        ]
    }
}

/// List dead letters, latest first
#[derive(clap::Args)]
struct List {
    #[command(flatten)]
    which: Which,
    /// The state.
    #[arg(long, default_value = "dead", value_parser = PossibleValuesParser::new(WordFilter::<LetterState>::words()))]
    state: String,
    #[command(flatten)]
    listing: Listing,
}

/// Group dead letters by kind of error, most frequent first
#[derive(clap::Args)]
struct Groups {
    #[command(flatten)]
    which: Which,
    /// Print a JSON array; times are milliseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Print a dead letter with its body, as JSON
#[derive(clap::Args)]
struct Show {
    /// The id, or its first digits, at least six.
    id: String,
    #[command(flatten)]
    target: Target,
}

/// One letter
#[derive(clap::Args)]
struct Act {
    /// The id, or its first digits, at least six.
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
        Command::Groups(groups) => run_groups(groups),
        Command::Show(show) => {
            let letter =
                Client::new(&show.target)?.get(&format!("/dead-letters/{}", show.id), &[])?;
            put(json(&letter)?)
        }
        Command::Replay(act) => {
            let replay = run_act(act, "replay")?;
            note!("replay {}: `hookmill replays show {0}` shows its progress", text(&replay["id"]));
            Ok(())
        }
        Command::Discard(act) => {
            run_act(act, "discard")?;
            note!("discarded; it stays, and can no longer be replayed");
            Ok(())
        }
    }
}

fn run_list(list: &List) -> anyhow::Result<()> {
    let mut query = list.which.pairs().to_vec();
    query.extend([
        ("state", Some(list.state.clone())),
        ("limit", Some(list.listing.limit.to_string())),
    ]);
    let mut page = Client::new(&list.listing.target)?.get("/dead-letters", &query)?;
    let row = |letter: &Value| {
        let id = text(&letter["id"]).chars().take(12).collect();
        let what = |key: &str| text(&letter[key]);
        let reason = format!("{}: {}", what("reason"), what("error"));
        [
            time(&letter["last_failed_at"]),
            id,
            what("source"),
            what("type"),
            what("event_id"),
            what("state"),
            reason,
        ]
    };
    let header = ["FAILED", "ID", "SOURCE", "TYPE", "EVENT", "STATE", "REASON"];
    listed(page["items"].take(), list.listing.json, "no dead letters match", header, row)
}

fn run_groups(groups: &Groups) -> anyhow::Result<()> {
    let found = Client::new(&groups.target)?.get("/dead-letters/groups", &groups.which.pairs())?;
    let row = |group: &Value| {
        let what = |key: &str| text(&group[key]);
        let reason = format!("{}: {}", what("reason"), what("error"));
        let (first, last) = (time(&group["first_failed_at"]), time(&group["last_failed_at"]));
        [what("count"), what("fingerprint"), first, last, what("sources"), reason]
    };
    let header = ["COUNT", "FINGERPRINT", "FIRST FAILED", "LAST FAILED", "SOURCES", "REASON"];
    listed(found, groups.json, "no dead letters", header, row)
}

fn run_act(act: &Act, what: &str) -> anyhow::Result<Value> {
    let body = json!({ "reason": act.reason });
    Operator::new(&act.target)?.post(&format!("/dead-letters/{}/{what}", act.id), &body)
}
