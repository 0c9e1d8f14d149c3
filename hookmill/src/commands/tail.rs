//! `hookmill tail`: events and rejections as they happen.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};

use crate::client::{Away, Client, Target};
use crate::commands::events::Event;
use crate::list::{escaped, name, note, text, time};

/// The time between two queries.
const PAUSE: Duration = Duration::from_secs(1);
/// The page size: the API's maximum.
const MOST: &str = "500";
/// How far a query goes back before the latest event, in milliseconds: events that took effect earlier may be visible
/// later, since batches are applied in parallel.
const BACK: i64 = 2_000;
/// How far it goes back every [`FURTHER_EVERY`] queries: splitting a batch takes time.
const FURTHER: i64 = 60_000;
const FURTHER_EVERY: u32 = 10;
/// Rejections are recorded every few seconds, and on Cloudflare pass through a queue.
const REFUSED_EVERY: u32 = 5;
const REFUSED_BACK: i64 = 600_000;

/// Print applied, failed and rejected events until Ctrl-C
///
/// Of rejected requests, it prints those that `hookmill rejections` samples. They have no type.
#[derive(clap::Args)]
pub struct Arguments {
    /// The source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The event type; excludes rejected requests. `*` matches any text: 'customer.*'.
    #[arg(long, value_name = "GLOB")]
    r#type: Option<String>,
    /// Print one JSON object per line, as in the admin API; a rejected request has the state `rejected`. Times are milliseconds
    /// since the Unix epoch.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let client = Client::new(&arguments.target)?;
    let tail =
        Tail { client: &client, arguments, events: Seen::default(), refused: Seen::default() };
    match client.until_interrupted(tail.follow()) {
        Err(error) if closed(&error) => Ok(()),
        ended => ended,
    }
}

/// Whether the reader has closed the pipe, as `head` does.
fn closed(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Fails if the reader has closed the pipe: without a line to print, the command would not notice.
fn check_reader() -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        let stdout = io::stdout();
        let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
        let gone = PollFlags::ERR | PollFlags::HUP;
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut polled, Some(&at_once)).is_ok() && polled[0].revents().intersects(gone) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
    Ok(())
}

/// The events that were printed, as far back as queries go.
#[derive(Default)]
struct Seen {
    /// The latest time.
    newest: i64,
    keys: BTreeSet<(i64, String)>,
}

impl Seen {
    /// Records an event. Returns whether it is new.
    fn note(&mut self, at: i64, key: String) -> bool {
        self.newest = self.newest.max(at);
        self.keys.insert((at, key))
    }

    /// Forgets events before the range of queries.
    fn forget(&mut self, back: i64) {
        self.keys = self.keys.split_off(&(self.newest - back, String::new()));
    }
}

struct Tail<'a> {
    client: &'a Client,
    arguments: &'a Arguments,
    events: Seen,
    refused: Seen,
}

impl Tail<'_> {
    /// Queries until interrupted. Waits for an unavailable Hookmill, except at the beginning, when the address may be
    /// wrong.
    async fn follow(mut self) -> anyhow::Result<()> {
        let stats = self.client.look("/stats", &[("minutes", Some("1".to_owned()))]).await?;
        let Some(begun) = stats["at"].as_i64() else { bail!("the API response has no time") };
        (self.events.newest, self.refused.newest) = (begun, begun);
        self.look_for_events(FURTHER, begun).await?;
        self.look_for_rejections(begun).await?;
        note!("waiting for events; press Ctrl-C to stop");
        let mut away = false;
        for round in 1_u32.. {
            tokio::time::sleep(PAUSE).await;
            check_reader()?;
            match self.look(round, away).await {
                Ok(()) if away => {
                    note!("Hookmill is back");
                    away = false;
                }
                Ok(()) => {}
                Err(error) if error.is::<Away>() => {
                    if !away {
                        note!("{error:#}; retrying");
                    }
                    away = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn look(&mut self, round: u32, was_away: bool) -> anyhow::Result<()> {
        let further = was_away || round.is_multiple_of(FURTHER_EVERY);
        self.look_for_events(if further { FURTHER } else { BACK }, i64::MIN).await?;
        if was_away || round.is_multiple_of(REFUSED_EVERY) {
            self.look_for_rejections(i64::MIN).await?;
        }
        Ok(())
    }

    /// Prints events that took effect or failed from a time on, the earliest first; records earlier ones without printing.
    async fn look_for_events(&mut self, back: i64, from: i64) -> anyhow::Result<()> {
        let Arguments { source, r#type, .. } = self.arguments;
        let since = (self.events.newest - back).to_string();
        let mut cursor = None;
        loop {
            let query = [
                ("since", Some(since.clone())),
                ("source", source.clone()),
                ("type", r#type.clone()),
            ];
            let (items, next) = self.page("/events", &query, cursor).await?;
            for item in items {
                let key = json!([item["source"], item["id"], item["generation"]]).to_string();
                let at = item["settled_at"].as_i64().unwrap_or_default();
                if self.events.note(at, key) && at >= from {
                    let event: Event = serde_json::from_value(item.clone())?;
                    self.tell(&item, &event.line())?;
                }
            }
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        self.events.forget(FURTHER);
        Ok(())
    }

    /// The same for rejected requests. The API returns the latest first.
    async fn look_for_rejections(&mut self, from: i64) -> anyhow::Result<()> {
        if self.arguments.r#type.is_some() {
            return Ok(());
        }
        let oldest = self.refused.newest - REFUSED_BACK;
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let query = [("source", self.arguments.source.clone())];
            let (items, next) = self.page("/rejections", &query, cursor).await?;
            let before = found.len() + items.len();
            found.extend(items.into_iter().filter(|item| item["at"].as_i64() >= Some(oldest)));
            cursor = next.filter(|_| found.len() == before);
            if cursor.is_none() {
                break;
            }
        }
        for mut item in found.into_iter().rev() {
            let key = json!([item["source"], item["reason"], item["remote"]]).to_string();
            let at = item["at"].as_i64().unwrap_or_default();
            if self.refused.note(at, key) && at >= from {
                item["state"] = json!("rejected");
                let why = format!("{}: {}", text(&item["reason"]), text(&item["detail"]));
                let line = format!(
                    "{}  {}  -  -  rejected: {why}",
                    time(&item["at"]),
                    name(&item["source"])
                );
                self.tell(&item, &line)?;
            }
        }
        self.refused.forget(REFUSED_BACK);
        Ok(())
    }

    /// A page of a list, and the cursor of the next.
    async fn page(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
        cursor: Option<String>,
    ) -> anyhow::Result<(Vec<Value>, Option<String>)> {
        let paging = [("limit", Some(MOST.to_owned())), ("cursor", cursor)];
        let mut page = self.client.look(path, &[query, &paging].concat()).await?;
        let Value::Array(items) = page["items"].take() else {
            bail!("the API response is not a list")
        };
        Ok((items, page["next"].as_str().map(ToOwned::to_owned)))
    }

    fn tell(&self, item: &Value, line: &str) -> io::Result<()> {
        if self.arguments.json {
            writeln!(io::stdout(), "{}", escaped(item.to_string()))
        } else {
            writeln!(io::stdout(), "{line}")
        }
    }
}
