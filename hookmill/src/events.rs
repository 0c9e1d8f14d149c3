//! `hookmill events`: what came in, and what came of it.

use std::path::PathBuf;

use hookmill_core::message::decode;
use hookmill_core::time::Timestamp;
use hookmill_native::{DataFolder, now};
use rusqlite::types::ToSql;
use rusqlite::{Connection, Row};
use serde::Serialize;

use crate::list::print;

/// List the latest events: what came in, and what came of it
#[derive(clap::Args)]
pub struct Arguments {
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
    /// At most this many, the latest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print a JSON array; times are milliseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
}

/// An event and where it stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Event {
    source: String,
    id: String,
    r#type: String,
    received_at: Timestamp,
    /// `queued`, `retrying`, `applied`, `recorded`, or `dead`.
    state: String,
    attempts: u32,
    /// Which of the source's secrets had signed it, from 0; not known of some dead letters.
    secret: Option<u32>,
    /// When it took effect, or was buried.
    settled_at: Option<Timestamp>,
    /// Why it is dead.
    error: Option<String>,
}

impl Event {
    /// Whether it is off the queue.
    pub fn settled(&self) -> bool {
        self.settled_at.is_some()
    }

    /// Whether it is a dead letter.
    pub fn dead(&self) -> bool {
        self.error.is_some()
    }

    /// Where it stands, in a few words.
    pub fn summary(&self) -> String {
        match (&self.error, self.settled_at) {
            (Some(error), _) => format!("{}: {error}", self.state),
            (None, Some(at)) => {
                let after = at.millis() - self.received_at.millis();
                format!("{} {at}, {after} ms after it came in", self.state)
            }
            (None, None) => self.state.clone(),
        }
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let database = DataFolder::read(&arguments.data)?;
    let events = latest(&database, arguments.limit)?;
    let row = |event: Event| {
        let state = match &event.error {
            Some(error) => format!("{}: {error}", event.state),
            None => event.state,
        };
        let (received_at, attempts) = (event.received_at.to_string(), event.attempts.to_string());
        [received_at, event.source, event.r#type, event.id, attempts, state]
    };
    let header = ["RECEIVED", "SOURCE", "TYPE", "ID", "ATTEMPTS", "STATE"];
    let nothing = "no events yet; `hookmill send` sends one";
    print(events, arguments.json, nothing, header, row)
}

/// Events in the ledger and among the dead letters. A letter of an event that took effect after all is left out.
const SETTLED: &str = "
    SELECT source, id, type, received_at, outcome AS state, attempts, applied_at AS settled_at, NULL AS error,
        secret
    FROM events
    UNION ALL
    SELECT coalesce(source, '-'), coalesce(event_id, '-'), coalesce(type, '-'), coalesce(received_at, first_failed_at),
        'dead', attempts, last_failed_at, reason || ': ' || error, NULL
    FROM dead_letters
    WHERE NOT EXISTS (
        SELECT 1 FROM events
        WHERE events.source = dead_letters.source AND events.id = event_id AND events.generation = dead_letters.generation
    )";

/// The latest messages on the queue of events.
const QUEUED: &str = "
    SELECT text, coalesce(attempts, 0), coalesce(due_at, 0)
    FROM queue.events_messages LEFT JOIN queue.events_deliveries USING (seq)
    ORDER BY seq DESC LIMIT ?1";

fn settled(
    database: &Connection,
    rest: &str,
    params: &[&dyn ToSql],
) -> rusqlite::Result<Vec<Event>> {
    let row = |row: &Row<'_>| {
        Ok(Event {
            source: row.get(0)?,
            id: row.get(1)?,
            r#type: row.get(2)?,
            received_at: Timestamp::from_millis(row.get(3)?),
            state: row.get(4)?,
            attempts: row.get(5)?,
            settled_at: Some(Timestamp::from_millis(row.get(6)?)),
            error: row.get(7)?,
            secret: row.get(8)?,
        })
    };
    database
        .prepare(&format!("SELECT * FROM ({SETTLED}) {rest}"))?
        .query_map(params, row)?
        .collect()
}

fn queued(database: &Connection, limit: u32) -> rusqlite::Result<Vec<Event>> {
    let row = |row: &Row<'_>| {
        Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?, row.get::<_, i64>(2)?))
    };
    let mut query = database.prepare(QUEUED)?;
    let mut events = Vec::new();
    for message in query.query_map([limit], row)? {
        let (text, attempts, due_at) = message?;
        let Ok(message) = decode(&text) else { continue };
        let retrying = attempts > 0 && due_at > now().millis();
        events.push(Event {
            source: message.envelope.source,
            id: message.envelope.id,
            r#type: message.envelope.kind,
            received_at: message.envelope.received_at,
            state: if retrying { "retrying" } else { "queued" }.to_owned(),
            attempts,
            secret: u32::try_from(message.envelope.verified.secret).ok(),
            settled_at: None,
            error: None,
        });
    }
    Ok(events)
}

fn latest(database: &Connection, limit: u32) -> rusqlite::Result<Vec<Event>> {
    let mut events = queued(database, limit)?;
    events.extend(settled(database, "ORDER BY received_at DESC LIMIT ?1", &[&limit])?);
    events.sort_by_key(|event| std::cmp::Reverse(event.received_at));
    events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(events)
}

/// One event; as long as it is on the queue, as it stands there.
pub fn find(database: &Connection, source: &str, id: &str) -> rusqlite::Result<Option<Event>> {
    /// Messages looked at: an event that was just sent is among the latest.
    const LATEST: u32 = 1000;
    let mut events = queued(database, LATEST)?;
    events.extend(settled(database, "WHERE source = ?1 AND id = ?2", &[&source, &id])?);
    Ok(events.into_iter().find(|event| event.source == source && event.id == id))
}
