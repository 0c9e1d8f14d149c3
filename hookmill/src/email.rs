//! `hookmill email`: what a template makes of data, what is in the outbox, and who is not written to.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hookmill_core::email::address_key;
use hookmill_core::template::Templates;
use hookmill_core::time::Timestamp;
use hookmill_native::{DataFolder, now};
use rusqlite::Row;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::list::print;
use crate::pipeline::load;

/// Emails: preview a template, list the outbox, send again, and who is not written to
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
    Suppressions(Suppressions),
    Unsuppress(Unsuppress),
    Usage(Usage),
}

/// Print what a template makes of data, or open it in a browser
#[derive(clap::Args)]
struct Preview {
    /// A template of hookmill.toml.
    template: String,
    /// A file with a JSON object: what the rule's `data` would be.
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

/// List the outbox: the latest emails, SMS and what was tracked, and what became of them
#[derive(clap::Args)]
struct List {
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
    /// Only those in this state.
    #[arg(long, value_parser = STATES)]
    state: Option<String>,
    /// At most this many, the latest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print a JSON array; times are milliseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
}

/// Send what was refused, suppressed or is in doubt once more; what is in doubt may arrive twice
#[derive(clap::Args)]
struct Retry {
    /// Which.
    #[arg(long, value_parser = ["refused", "in_doubt", "suppressed"])]
    state: String,
    /// Only those of this rule.
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Only the one whose id is this, or begins with it.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
}

/// List the addresses that are not written to, and why
#[derive(clap::Args)]
struct Suppressions {
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
    /// Print a JSON array; times are milliseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
}

/// Have an address written to again
#[derive(clap::Args)]
struct Unsuppress {
    /// The address.
    address: String,
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
}

/// Show how many emails each provider has taken, by day and by month (UTC)
#[derive(clap::Args)]
struct Usage {
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
    /// At most this many days and months, the latest first.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

/// How much of an id a list shows.
const SHOWN: usize = 12;

const STATES: [&str; 6] = ["pending", "sealed", "sent", "refused", "suppressed", "in_doubt"];

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
        bail!("there is no template `{name}` in {}; there: {names}", preview.config.display());
    }
    let Ok(templates) = Templates::new(&loaded.templates) else {
        bail!("the templates of a configuration that has been checked are whole");
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
        error.context(format!("the data lacks `{missing}`; --data names a file with a JSON object"))
    })?;
    if preview.json {
        let (subject, html, text) = (rendered.subject, rendered.html, rendered.text);
        println!("{}", json!({ "subject": subject, "html": html, "text": text }));
        return Ok(());
    }
    if preview.open {
        let file = std::env::temp_dir().join(format!("hookmill-{}.html", uuid::Uuid::new_v4()));
        // A new file: in a folder that all may write to, another's could lead elsewhere.
        let written =
            File::create_new(&file).and_then(|mut open| open.write_all(rendered.html.as_bytes()));
        written.with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("Subject: {}\n{}", rendered.subject, file.display());
        return open::that(&file).context("no browser can be opened");
    }
    println!("Subject: {}\n\n{}\n\n{}", rendered.subject, rendered.text.trim_end(), rendered.html);
    Ok(())
}

fn read_data(file: &Path) -> anyhow::Result<Map<String, Value>> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{shown} is not a JSON object, such as {{ \"name\": \"Inês\" }}"))
}

/// An email in the outbox.
#[derive(Serialize)]
struct Email {
    id: String,
    created_at: Timestamp,
    source: String,
    event_id: String,
    rule: String,
    channel: String,
    to: String,
    state: String,
    /// What the provider reported later.
    outcome: Option<String>,
    due_at: Timestamp,
    settled_at: Option<Timestamp>,
    provider: Option<String>,
    provider_id: Option<String>,
    error: Option<String>,
    /// When its batch is sent again, if it is to be.
    again_at: Option<Timestamp>,
    /// Recipients it was not sent to, and why.
    left_out: Option<String>,
}

fn run_list(list: &List) -> anyhow::Result<()> {
    let database = DataFolder::read(&list.data)?;
    let sql = "
        SELECT outbox.id, created_at, source, event_id, rule, coalesce(content ->> '$.to[0]', ''), outbox.state, outcome,
            outbox.due_at, outbox.settled_at, provider, provider_id,
            iif(outbox.state = 'sealed', outbox_batches.error, outbox.error), outbox.channel,
            iif(outbox_batches.state = 'sealed' AND outbox_batches.attempts > 0, outbox_batches.due_at, NULL), left_out
        FROM outbox LEFT JOIN outbox_batches ON outbox_batches.id = batch
        WHERE ?1 IS NULL OR outbox.state = ?1
        ORDER BY created_at DESC, outbox.id LIMIT ?2";
    let email = |row: &Row<'_>| {
        Ok(Email {
            id: row.get(0)?,
            created_at: Timestamp::from_millis(row.get(1)?),
            source: row.get(2)?,
            event_id: row.get(3)?,
            rule: row.get(4)?,
            to: row.get(5)?,
            state: row.get(6)?,
            outcome: row.get(7)?,
            due_at: Timestamp::from_millis(row.get(8)?),
            settled_at: row.get::<_, Option<i64>>(9)?.map(Timestamp::from_millis),
            provider: row.get(10)?,
            provider_id: row.get(11)?,
            error: row.get(12)?,
            channel: row.get(13)?,
            again_at: row.get::<_, Option<i64>>(14)?.map(Timestamp::from_millis),
            left_out: row.get(15)?,
        })
    };
    let mut query = database.prepare(sql)?;
    let emails = query.query_map((&list.state, list.limit), email)?;
    let emails = emails.collect::<Result<Vec<_>, _>>()?;
    let row = |email: Email| {
        let mut state = email.state;
        state += &email.outcome.map(|outcome| format!(", {outcome}")).unwrap_or_default();
        state += &email.error.map(|error| format!(": {error}")).unwrap_or_default();
        state += &email.again_at.map(|at| format!("; again at {at}")).unwrap_or_default();
        state += &email.left_out.map(|who| format!("; left out: {who}")).unwrap_or_default();
        let event = format!("{}:{}", email.source, email.event_id);
        let id = email.id.chars().take(SHOWN).collect();
        let through = email.provider.unwrap_or(email.channel);
        [email.created_at.to_string(), id, through, email.rule, email.to, event, state]
    };
    let header = ["CREATED", "ID", "THROUGH", "RULE", "TO", "EVENT", "STATE"];
    print(emails, list.json, "there is nothing like that in the outbox", header, row)
}

fn run_retry(retry: &Retry) -> anyhow::Result<()> {
    let database = DataFolder::write(&retry.data)?;
    // Whoever sends looks into the outbox every few seconds, whoever wrote to it.
    let sql = "
        UPDATE outbox SET state = 'pending', batch = NULL, attempts = 0, due_at = ?1, error = NULL, together = NULL, left_out = NULL,
            settled_at = NULL
        WHERE state = ?2 AND (?3 IS NULL OR rule = ?3) AND (?4 IS NULL OR substr(id, 1, length(?4)) = ?4)";
    let now = now().millis();
    let emails = database.execute(sql, (now, &retry.state, &retry.rule, &retry.id))?;
    if emails == 0 {
        bail!(
            "nothing like that is {}; `hookmill email list --state {0}` shows what is",
            retry.state
        );
    }
    eprintln!("to be sent once more: {emails}");
    Ok(())
}

/// An address that is not written to.
#[derive(Serialize)]
struct Suppression {
    address: String,
    reason: String,
    source: String,
    event_id: String,
    created_at: Timestamp,
}

fn run_suppressions(arguments: &Suppressions) -> anyhow::Result<()> {
    let database = DataFolder::read(&arguments.data)?;
    let sql = "SELECT address, reason, source, event_id, created_at FROM suppressions ORDER BY created_at DESC";
    let suppression = |row: &Row<'_>| {
        Ok(Suppression {
            address: row.get(0)?,
            reason: row.get(1)?,
            source: row.get(2)?,
            event_id: row.get(3)?,
            created_at: Timestamp::from_millis(row.get(4)?),
        })
    };
    let mut query = database.prepare(sql)?;
    let all = query.query_map([], suppression)?.collect::<Result<Vec<_>, _>>()?;
    let row = |one: Suppression| {
        let event = format!("{}:{}", one.source, one.event_id);
        [one.created_at.to_string(), one.address, one.reason, event]
    };
    let header = ["SINCE", "ADDRESS", "REASON", "EVENT"];
    print(all, arguments.json, "every address is written to", header, row)
}

fn run_unsuppress(arguments: &Unsuppress) -> anyhow::Result<()> {
    let database = DataFolder::write(&arguments.data)?;
    let address = address_key(&arguments.address);
    if database.execute("DELETE FROM suppressions WHERE address = ?1", [&address])? == 0 {
        bail!("{address} is not suppressed");
    }
    eprintln!(
        "{address} is written to again; what was suppressed stays so: `hookmill email retry`"
    );
    Ok(())
}

/// What a provider has taken in a day or a month.
#[derive(Serialize)]
struct Used {
    provider: String,
    /// `2026-01-01`, or `2026-01`.
    period: String,
    sent: i64,
    requests: i64,
}

fn run_usage(usage: &Usage) -> anyhow::Result<()> {
    let database = DataFolder::read(&usage.data)?;
    let sql = "SELECT provider, period, sent, requests FROM outbox_usage ORDER BY length(period), period DESC LIMIT ?1";
    let used = |row: &Row<'_>| {
        Ok(Used {
            provider: row.get(0)?,
            period: row.get(1)?,
            sent: row.get(2)?,
            requests: row.get(3)?,
        })
    };
    let mut query = database.prepare(sql)?;
    let all = query.query_map([usage.limit], used)?.collect::<Result<Vec<_>, _>>()?;
    let row =
        |used: Used| [used.period, used.provider, used.sent.to_string(), used.requests.to_string()];
    let header = ["PERIOD", "PROVIDER", "SENT", "REQUESTS"];
    print(all, usage.json, "no email has been sent yet", header, row)
}
