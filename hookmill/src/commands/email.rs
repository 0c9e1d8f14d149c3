//! `hookmill email`: template previews, the outbox, and suppressions.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hookmill_core::template::Templates;
use hookmill_core::words::{OutboxState, Unsent};
use serde_json::{Map, Value, json};

use crate::client::{Client, Listing, Operator, Target, encoded};
use crate::list::print_line;
use crate::list::{listed, note, text, time};
use crate::run::pipeline::load;
use crate::words::word;

/// Emails: preview a template, list the outbox, send again, list suppressed recipients
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Preview(Preview),
    List(List),
    Retry(Retry),
    /// List suppressed recipients
    Suppressions(Listing),
    Unsuppress(Unsuppress),
    /// Show messages sent through each provider, by day and by month (UTC)
    Usage(Listing),
}

/// Render a template with data, and print it or open it in a browser
#[derive(clap::Args)]
struct Preview {
    /// A template in hookmill.toml.
    template: String,
    /// A file with a JSON object, like the rule's `data`.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Open the HTML part in the browser instead.
    #[arg(long)]
    open: bool,
    /// Print {"subject":…,"html":…,"text":…}.
    #[arg(long, conflicts_with = "open")]
    json: bool,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    config: PathBuf,
}

/// List the outbox: the latest emails, SMS and tracking events, and their states
#[derive(clap::Args)]
struct List {
    /// The state.
    #[arg(long, value_parser = word::<OutboxState>())]
    state: Option<OutboxState>,
    #[command(flatten)]
    listing: Listing,
}

/// Send refused, suppressed or uncertain messages again; uncertain messages may arrive twice
#[derive(clap::Args)]
struct Retry {
    /// The state.
    #[arg(long, value_parser = word::<Unsent>())]
    state: Unsent,
    /// The rule.
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// The id, or its first digits.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The reason, for the audit.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    target: Target,
}

/// Remove the suppressions of an address
#[derive(clap::Args)]
struct Unsuppress {
    /// The address.
    address: String,
    /// The group of emails. Default: the suppressions for all emails are removed, and those for groups stay.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// The reason, for the audit.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    target: Target,
}

/// The length of an id in a list.
const SHOWN: usize = 12;

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Preview(preview) => run_preview(preview),
        Command::List(list) => run_list(list),
        Command::Retry(retry) => run_retry(retry),
        Command::Suppressions(suppressions) => run_suppressions(suppressions),
        Command::Unsuppress(unsuppress) => run_unsuppress(unsuppress),
        Command::Usage(usage) => run_usage(usage),
    }
}

fn run_preview(preview: &Preview) -> anyhow::Result<()> {
    let loaded = load(&preview.config)?;
    let name = &preview.template;
    if !loaded.templates.contains_key(name) {
        let names: Vec<_> = loaded.templates.keys().map(String::as_str).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        bail!("no template `{name}` in {}; templates: {names}", preview.config.display());
    }
    let Ok(templates) = Templates::new(&loaded.templates) else {
        bail!("a template has an error");
    };
    let data = match &preview.data {
        Some(file) => read_data(file)?,
        None => Map::new(),
    };
    let rendered = templates.render(name, &data).map_err(|error| {
        let used = templates.variables(name).into_iter();
        let missing = used.filter(|(name, needed)| *needed && !data.contains_key(name));
        let missing: Vec<_> = missing.map(|(name, _)| name).collect();
        let error = anyhow::Error::new(error);
        if missing.is_empty() {
            return error;
        }
        let missing = missing.join("`, `");
        error.context(format!("the data lacks `{missing}`; pass a JSON file with --data"))
    })?;
    if preview.json {
        let (subject, html, text) = (rendered.subject, rendered.html, rendered.text);
        print_line!("{}", json!({ "subject": subject, "html": html, "text": text }));
        return Ok(());
    }
    if preview.open {
        let file = std::env::temp_dir().join(format!("hookmill-{}.html", uuid::Uuid::new_v4()));
        // A new file: in a folder that all users may write to, another user's file could be a link.
        let written =
            File::create_new(&file).and_then(|mut open| open.write_all(rendered.html.as_bytes()));
        written.with_context(|| format!("cannot write {}", file.display()))?;
        note!("Subject: {}\n{}", rendered.subject, file.display());
        return open::that(&file).context("cannot open a browser");
    }
    print_line!(
        "Subject: {}\n\n{}\n\n{}",
        rendered.subject,
        rendered.text.trim_end(),
        rendered.html
    );
    Ok(())
}

fn read_data(file: &Path) -> anyhow::Result<Map<String, Value>> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{shown} is not a JSON object, such as {{ \"name\": \"Inês\" }}"))
}

fn run_list(list: &List) -> anyhow::Result<()> {
    let query = [
        ("state", list.state.map(|state| state.to_string())),
        ("limit", Some(list.listing.limit.to_string())),
    ];
    let mut page = Client::new(&list.listing.target)?.get("/outbox", &query)?;
    let row = |email: &Value| {
        let what = |key: &str| text(&email[key]);
        let more = |before: &str, what: String| match what.as_str() {
            "" => String::new(),
            what => format!("{before}{what}"),
        };
        let state = [
            what("state"),
            more(", ", what("outcome")),
            more(": ", what("error")),
            more("; again at ", time(&email["retry_at"])),
            more("; skipped: ", what("skipped_recipients")),
        ];
        let through = if email["provider"].is_null() { what("channel") } else { what("provider") };
        let event = format!("{}:{}", what("source"), what("event_id"));
        let id = what("id").chars().take(SHOWN).collect();
        [
            time(&email["created_at"]),
            id,
            through,
            what("rule"),
            what("recipient"),
            event,
            state.concat(),
        ]
    };
    let header = ["CREATED", "ID", "THROUGH", "RULE", "TO", "EVENT", "STATE"];
    let nothing = "no messages match";
    listed(page["items"].take(), list.listing.json, nothing, header, row)
}

fn run_retry(retry: &Retry) -> anyhow::Result<()> {
    let Retry { state, rule, id, reason, target } = retry;
    let body = json!({ "state": state, "rule": rule, "id": id, "reason": reason });
    let retried = Operator::new(target)?.post("/outbox/retry", &body)?;
    if retried["count"] == 0 {
        bail!("no {state} messages match; `hookmill email list --state {state}` lists them");
    }
    note!("messages to send again: {}", text(&retried["count"]));
    Ok(())
}

fn run_suppressions(listing: &Listing) -> anyhow::Result<()> {
    let query = [("limit", Some(listing.limit.to_string()))];
    let mut page = Client::new(&listing.target)?.get("/suppressions", &query)?;
    let row = |one: &Value| {
        let what = |key: &str| text(&one[key]);
        let event = format!("{}:{}", what("source"), what("event_id"));
        [time(&one["created_at"]), what("address"), what("group"), what("reason"), event]
    };
    let header = ["SINCE", "ADDRESS", "GROUP", "REASON", "EVENT"];
    listed(page["items"].take(), listing.json, "no suppressed recipients", header, row)
}

fn run_unsuppress(arguments: &Unsuppress) -> anyhow::Result<()> {
    let Unsuppress { address, group, reason, target } = arguments;
    let query = group.iter().map(|group| format!("?group={}", encoded(group)));
    let path = format!("/suppressions/{}{}", encoded(address), query.collect::<String>());
    Operator::new(target)?.delete(&path, &json!({ "reason": reason }))?;
    note!(
        "{address} is no longer suppressed; to send its suppressed messages, use `hookmill email retry`"
    );
    Ok(())
}

fn run_usage(listing: &Listing) -> anyhow::Result<()> {
    let query = [("limit", Some(listing.limit.to_string()))];
    let found = Client::new(&listing.target)?.get("/usage", &query)?;
    let row = |used: &Value| ["period", "provider", "sent", "requests"].map(|key| text(&used[key]));
    let header = ["PERIOD", "PROVIDER", "SENT", "REQUESTS"];
    listed(found, listing.json, "no messages sent yet", header, row)
}
