//! `hookmill events`: events and their results.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::builder::PossibleValuesParser;
use hookmill_core::message::decode;
use hookmill_core::time::Timestamp;
use hookmill_core::words::{EventState, Word as _};
use hookmill_dlq::replay::glob as as_pattern;
use hookmill_native::{DataFolder, FolderError, Reader, now};
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::{Client, Listing, Target, encoded};
use crate::list::{json, note, plain, print, put, table, text, time, write};

/// Events: list the latest, or show the history of one
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(clap::Subcommand)]
enum Command {
    List(List),
    Show(Show),
}

/// List the latest events and their results; the default of `hookmill events`
#[derive(clap::Args)]
struct List {
    /// The source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The event type. `*` matches any text: 'customer.*'.
    #[arg(long, value_name = "GLOB")]
    r#type: Option<String>,
    /// The provider's event id.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The state; `queued` needs a data folder.
    #[arg(long, value_parser = PossibleValuesParser::new([QUEUED].into_iter().chain(EventState::words())))]
    state: Option<String>,
    #[command(flatten)]
    listing: Listing,
}

/// Show the history of an event: when it arrived, failed and was applied, and what it sent
#[derive(clap::Args)]
struct Show {
    /// The source.
    source: String,
    /// The provider's event id.
    id: String,
    /// Print the body instead, as the provider sent it, if its message is kept (`messages` in `[retention]`).
    #[arg(long)]
    body: bool,
    /// Print it as JSON; times are milliseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// An event and its state, from the admin API or from the queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    source: String,
    id: String,
    generation: u32,
    r#type: String,
    /// A state of the API, or [`QUEUED`].
    state: String,
    received_at: Option<Timestamp>,
    /// When it took effect, or last failed; absent if neither has happened.
    settled_at: Option<Timestamp>,
    attempts: u32,
    secret: Option<i64>,
    error: Option<String>,
    /// When its next attempt is due, if it is being retried.
    next_attempt_at: Option<Timestamp>,
}

/// The state of an event that no consumer has seen.
const QUEUED: &str = "queued";

impl Event {
    /// Whether it has left the queue.
    pub fn settled(&self) -> bool {
        self.settled_at.is_some() && !self.retrying()
    }

    /// Whether it waits for another attempt.
    fn retrying(&self) -> bool {
        self.state == EventState::Retrying.as_str()
    }

    /// Whether an attempt has failed, and it waits for the next.
    pub fn failed(&self) -> bool {
        self.retrying() && self.error.is_some()
    }

    /// Whether it is a dead letter.
    pub fn dead(&self) -> bool {
        self.error.is_some() && !self.retrying()
    }

    /// Its state in a few words.
    pub fn summary(&self) -> String {
        match (&self.error, self.received_at, self.settled_at) {
            (None, Some(received_at), Some(at)) => {
                let after = at.millis() - received_at.millis();
                format!("{} {at}, {after} ms after it arrived", self.state)
            }
            _ => self.status(),
        }
    }

    /// All of it on one line, without control characters: text from providers is not trusted.
    pub fn line(&self) -> String {
        let at = self.settled_at.or(self.received_at).map(|at| at.to_string()).unwrap_or_default();
        let (source, id, kind) = (&self.source, &self.id, &self.r#type);
        plain(&format!("{at}  {source}  {id}  {kind}  {}", self.status()))
    }

    /// Its state with an explanation.
    fn status(&self) -> String {
        let again = match self.generation {
            0 => String::new(),
            generation => format!(", generation {generation}"),
        };
        let error = self.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let next =
            self.next_attempt_at.map(|at| format!(", next attempt {at}")).unwrap_or_default();
        format!("{}{again}{next}{error}", self.state)
    }

    /// Whether it is the result of this message, which is about to leave the queue.
    fn settles(&self, waiting: &Self) -> bool {
        let same = (&self.source, &self.id) == (&waiting.source, &waiting.id);
        same && self.settled_at >= waiting.received_at
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        None => run_list(&arguments.list),
        Some(Command::List(list)) => run_list(list),
        Some(Command::Show(show)) if show.body => run_body(show),
        Some(Command::Show(show)) => run_show(show),
    }
}

fn run_list(list: &List) -> anyhow::Result<()> {
    let List { source, r#type, id, state, listing } = list;
    let queued = state.as_ref().is_some_and(|state| state == QUEUED);
    let mut events = match listing.target.folder() {
        // The queue is read first: the API knows an event that leaves it meanwhile.
        Some(folder) => waiting(&DataFolder::read(folder)?, r#type.as_deref())?,
        None => {
            if queued {
                bail!(
                    "queued events are visible only with the data folder, which contains the queue; `hookmill stats` shows the \
                     length of the queue"
                );
            }
            Vec::new()
        }
    };
    let matches = |filter: &Option<String>, found: &String| {
        filter.as_ref().is_none_or(|filter| filter == found)
    };
    events.retain(|event| {
        matches(source, &event.source) && matches(id, &event.id) && matches(state, &event.state)
    });
    let query = [
        ("source", source.clone()),
        ("type", r#type.clone()),
        ("id", id.clone()),
        ("state", state.clone()),
        ("limit", Some(listing.limit.to_string())),
    ];
    let client = Client::new(&listing.target)?;
    // The API does not know the queue.
    let found = if queued { Vec::new() } else { search(&client, &query)? };
    events.retain(|waiting| !found.iter().any(|event| event.settles(waiting)));
    events.extend(found);
    events.truncate(usize::try_from(listing.limit).unwrap_or(usize::MAX));
    let row = |event: Event| {
        let at = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
        let (received_at, settled_at) = (at(event.received_at), at(event.settled_at));
        let (attempts, status) = (event.attempts.to_string(), event.status());
        [received_at, settled_at, event.source, event.r#type, event.id, attempts, status]
    };
    let header = ["RECEIVED", "SETTLED", "SOURCE", "TYPE", "ID", "ATTEMPTS", "STATE"];
    let any = source.is_none() && r#type.is_none() && id.is_none() && state.is_none();
    let nothing =
        if any { "no events yet; send one with `hookmill send`" } else { "no events match" };
    print(events, listing.json, nothing, header, row)
}

fn run_show(show: &Show) -> anyhow::Result<()> {
    let Show { source, id, .. } = show;
    let path = format!("/events/{}/{}", encoded(source), encoded(id));
    let story = Client::new(&show.target)?.get(&path, &[])?;
    if show.json {
        return put(json(&story)?);
    }
    let steps = story["steps"].as_array().into_iter().flatten();
    let row = |step: &Value| [time(&step["at"]), text(&step["what"]), detail(&step["detail"])];
    let next = match &story["next_attempt_at"] {
        Value::Null => None,
        at => Some([time(at), "next attempt".to_owned(), String::new()]),
    };
    put(table(["AT", "WHAT", "DETAIL"], steps.map(row).chain(next)))
}

/// Details of a step.
fn detail(detail: &Value) -> String {
    let details = detail.as_object().into_iter().flatten().filter(|(name, value)| {
        // Generation 0 is the original event, which is not mentioned.
        !text(value).is_empty() && (name.as_str(), value.as_u64()) != ("generation", Some(0))
    });
    let details = details.map(|(name, value)| match name.as_str() {
        "rows" => format!("rows {}", rows(value)),
        name if name.ends_with("_at") => format!("{} {}", name.replace('_', " "), time(value)),
        name => format!("{} {}", name.replace('_', " "), text(value)),
    });
    details.collect::<Vec<_>>().join(", ")
}

/// Rows, each as a table and its key.
fn rows(named: &Value) -> String {
    let rows = named.as_array().into_iter().flatten().map(|row| {
        let key = row[1].as_object().into_iter().flatten();
        let key = key.map(|(column, value)| format!("{column} {}", text(value)));
        format!("{} ({})", text(&row[0]), key.collect::<Vec<_>>().join(", "))
    });
    rows.collect::<Vec<_>>().join(", ")
}

fn run_body(show: &Show) -> anyhow::Result<()> {
    let path = format!("/events/{}/{}/body", encoded(&show.source), encoded(&show.id));
    let shown = Client::new(&show.target)?.get(&path, &[])?;
    if show.json {
        return put(json(&shown)?);
    }
    let body = shown["body"].as_str().unwrap_or_default();
    let terminal = io::stdout().is_terminal();
    match shown["body_form"].as_str() {
        Some("redacted") => {
            bail!("the body is not JSON, so `redact` in hookmill.toml hides all of it")
        }
        Some("base64") if !terminal => return write(&STANDARD.decode(body)?),
        Some("base64") => {
            note!("the body is not text: this is base64; a file or a pipe gets the bytes");
        }
        Some("unreadable") => note!("the message is unreadable; this is all of it"),
        _ => {}
    }
    if terminal {
        let plain = |c: char| c.is_control() && c != '\n' && c != '\t';
        return put(body.replace(plain, "\u{fffd}"));
    }
    write(body.as_bytes())
}

fn search(client: &Client, query: &[(&str, Option<String>)]) -> anyhow::Result<Vec<Event>> {
    Ok(serde_json::from_value(client.get("/events", query)?["items"].take())?)
}

/// The latest messages on the queue of events.
const LATEST: &str = "
    SELECT text, coalesce(attempts, 0), coalesce(due_at, 0)
    FROM events_messages LEFT JOIN events_deliveries USING (seq)
    ORDER BY seq DESC LIMIT 1000";

/// Events on the queue, the latest first, without their errors: those with a matching type among the latest thousand messages.
fn waiting(reader: &Reader, glob: Option<&str>) -> Result<Vec<Event>, FolderError> {
    reader.queue(|database| on_queue(database, glob))
}

fn on_queue(database: &Connection, glob: Option<&str>) -> rusqlite::Result<Vec<Event>> {
    let row = |row: &Row<'_>| {
        Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?, row.get::<_, i64>(2)?))
    };
    let mut query = database.prepare(LATEST)?;
    let mut matches =
        database.prepare("SELECT ?2 IS NULL OR iif(instr(?2, '*'), ?1 GLOB ?3, ?1 = ?2)")?;
    let pattern = glob.map(as_pattern);
    let mut events = Vec::new();
    for message in query.query_map([], row)? {
        let (text, attempts, due_at) = message?;
        let Ok(message) = decode(&text) else { continue };
        let envelope = message.envelope;
        if !matches.query_row((&envelope.kind, glob, &pattern), |row| row.get(0))? {
            continue;
        }
        let retrying = attempts > 0 && due_at > now().millis();
        events.push(Event {
            source: envelope.source,
            id: envelope.id,
            generation: 0,
            r#type: envelope.kind,
            state: if retrying { EventState::Retrying.as_str() } else { QUEUED }.to_owned(),
            received_at: Some(envelope.received_at),
            settled_at: None,
            attempts,
            secret: i64::try_from(envelope.verified.secret).ok(),
            error: None,
            next_attempt_at: retrying.then(|| Timestamp::from_millis(due_at)),
        });
    }
    Ok(events)
}

/// The data of a pipeline on this machine: the API, and the queue.
pub struct Here {
    client: Client,
    reader: Reader,
}

impl Here {
    /// Opens a data folder.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let reader = DataFolder::read(folder)?;
        Ok(Self { client: Client::local(&reader)?, reader })
    }

    /// One event; while it is on the queue, its state there.
    pub fn find(&self, source: &str, id: &str) -> anyhow::Result<Option<Event>> {
        let waiting = waiting(&self.reader, None)?;
        match waiting.into_iter().find(|event| event.source == source && event.id == id) {
            Some(event) => Ok(self.retrying(source, id)?.or(Some(event))),
            None => self.settled(source, id),
        }
    }

    /// One event, if an attempt has failed and it waits for the next.
    fn retrying(&self, source: &str, id: &str) -> anyhow::Result<Option<Event>> {
        Ok(self.search(source, id)?.into_iter().find(Event::retrying))
    }

    /// One event, if it has taken effect or is dead; if both, since it was sent again, the one that took effect.
    pub fn settled(&self, source: &str, id: &str) -> anyhow::Result<Option<Event>> {
        let found = self.search(source, id)?.into_iter();
        Ok(found.filter(|event| event.generation == 0 && event.settled()).min_by_key(Event::dead))
    }

    fn search(&self, source: &str, id: &str) -> anyhow::Result<Vec<Event>> {
        let query = [("source", Some(source.to_owned())), ("id", Some(id.to_owned()))];
        search(&self.client, &query)
    }
}
