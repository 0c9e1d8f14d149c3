//! `hookmill rejections`: what was refused, and why.

use std::path::PathBuf;

use hookmill_core::time::Timestamp;
use hookmill_native::{DataFolder, now};
use rusqlite::{Connection, Row};
use serde::Serialize;

use crate::list::table;

/// List the requests that were refused: how many in the last 24 hours, and the last few of each kind
#[derive(clap::Args)]
pub struct Arguments {
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
    /// Only those of this source; `-` for requests that named none that there is.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// At most this many requests, the latest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print {"counts":[…],"requests":[…]}; times are milliseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
}

/// What there is to see.
#[derive(Serialize)]
struct Rejections {
    counts: Vec<Count>,
    requests: Vec<Request>,
}

/// How many were refused for one reason in the last 24 hours.
#[derive(Serialize)]
struct Count {
    /// `None` if they named no source that there is.
    source: Option<String>,
    reason: String,
    requests: i64,
}

/// One of those that were refused.
#[derive(Serialize)]
struct Request {
    at: Timestamp,
    source: Option<String>,
    reason: String,
    detail: String,
    /// Hash of the address it came from.
    remote: Option<String>,
    content_length: Option<i64>,
    body_bytes: Option<i64>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let database = DataFolder::read(&arguments.data)?;
    let Rejections { counts, requests } = read(&database, arguments)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&Rejections { counts, requests })?);
        return Ok(());
    }
    if requests.is_empty() {
        match &arguments.source {
            Some(source) => eprintln!("no request of `{source}` has been refused"),
            None => eprintln!("no request has been refused"),
        }
        return Ok(());
    }
    let name = |source: Option<String>| source.unwrap_or_else(|| "-".to_owned());
    let count = |Count { source, reason, requests }| [name(source), reason, requests.to_string()];
    println!("{}\n", table(["SOURCE", "REASON", "LAST 24 HOURS"], counts.into_iter().map(count)));
    let request = |request: Request| {
        let bytes = request.body_bytes.or(request.content_length);
        let bytes = bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes} bytes"));
        let (at, source, remote) =
            (request.at.to_string(), name(request.source), name(request.remote));
        [at, source, request.reason, remote, bytes, request.detail]
    };
    let header = ["REFUSED", "SOURCE", "REASON", "FROM", "BODY", "DETAIL"];
    println!("{}", table(header, requests.into_iter().map(request)));
    Ok(())
}

fn read(database: &Connection, arguments: &Arguments) -> rusqlite::Result<Rejections> {
    /// Counts are kept by the hour they began in.
    const DAY_MS: i64 = 24 * 3_600_000;
    let source = arguments.source.as_deref().map(|source| if source == "-" { "" } else { source });
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let count = |row: &Row<'_>| {
        Ok(Count { source: some(row.get(0)?), reason: row.get(1)?, requests: row.get(2)? })
    };
    let counts = database
        .prepare(
            "SELECT source, reason, sum(count) FROM rejection_counts
             WHERE hour > ?1 AND (?2 IS NULL OR source = ?2)
             GROUP BY source, reason ORDER BY sum(count) DESC, source, reason",
        )?
        .query_map((now().millis() - DAY_MS, source), count)?
        .collect::<Result<_, _>>()?;
    let request = |row: &Row<'_>| {
        Ok(Request {
            at: Timestamp::from_millis(row.get(0)?),
            source: some(row.get(1)?),
            reason: row.get(2)?,
            detail: row.get(3)?,
            remote: some(row.get(4)?),
            content_length: row.get(5)?,
            body_bytes: row.get(6)?,
        })
    };
    let requests = database
        .prepare(
            "SELECT at, source, reason, detail, remote, content_length, body_bytes FROM rejections
             WHERE ?1 IS NULL OR source = ?1
             ORDER BY at DESC LIMIT ?2",
        )?
        .query_map((source, arguments.limit), request)?
        .collect::<Result<_, _>>()?;
    Ok(Rejections { counts, requests })
}
