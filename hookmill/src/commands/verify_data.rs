//! `hookmill verify-data`: whether the files of a data folder are whole.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::bail;
use hookmill_native::{DataFolder, FolderError, QueueName};
use rusqlite::Connection;
use serde_json::json;

use crate::list::{note, print_line};

/// Check the files of a data folder for damage; Hookmill may be running
#[derive(clap::Args)]
pub struct Arguments {
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The files that messages name, and their lengths in bytes.
type Bodies = BTreeMap<String, i64>;

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let reader = DataFolder::read(&arguments.data)?;
    let mut problems = Vec::new();
    let mut bodies = Bodies::new();
    let queues = QueueName::ALL.map(|queue| format!("{}_messages", queue.prefix()));
    let queues = queues.each_ref().map(|table| (table.as_str(), "text"));
    let tables = [("event_messages", "message"), ("dead_letters", "message")];
    for (name, found) in [
        ("queue.db", reader.queue(|database| look(database, &queues))),
        ("data.db", reader.data(|database| look(database, &tables))),
    ] {
        match found {
            Ok((damage, named)) => {
                problems.extend(damage.into_iter().map(|found| format!("{name}: {found}")));
                bodies.extend(named);
            }
            // The queue is created by the first `serve` or `dev`.
            Err(FolderError::Empty(_)) => {}
            Err(error) => problems.push(format!("{name}: {:#}", anyhow::Error::from(error))),
        }
    }
    for (key, bytes) in &bodies {
        let path = arguments.data.join("bodies").join(key);
        match std::fs::metadata(&path) {
            Ok(found) if i64::try_from(found.len()) == Ok(*bytes) => {}
            Ok(found) => {
                problems.push(format!("bodies/{key}: it has {} bytes, not {bytes}", found.len()));
            }
            Err(error) => problems.push(format!("bodies/{key}: {error}")),
        }
    }
    if arguments.json {
        print_line!("{}", json!({ "whole": problems.is_empty(), "problems": problems }));
    } else {
        for problem in &problems {
            note!("{problem}");
        }
    }
    if !problems.is_empty() {
        bail!(
            "{} is damaged; restore a backup (`hookmill restore`), and have the providers send the events since then again",
            arguments.data.display()
        );
    }
    if !arguments.json {
        note!("{}: no damage found", arguments.data.display());
    }
    Ok(())
}

/// What SQLite finds wrong with a database, at most a hundred things; and the files that the messages in these tables and
/// columns name.
fn look(
    database: &mut Connection,
    tables: &[(&str, &str)],
) -> rusqlite::Result<(Vec<String>, Bodies)> {
    let mut check = database.prepare("PRAGMA integrity_check(100)")?;
    let found = check.query_map([], |row| row.get::<_, String>(0))?;
    let mut damage: Vec<_> = found.collect::<Result<_, _>>()?;
    damage.retain(|found| found != "ok");
    let mut bodies = Bodies::new();
    for (table, column) in tables {
        // The message of a large event is one line, and names the file with its body.
        let sql = format!(
            "SELECT {column} ->> '$.body.object.key', {column} ->> '$.body.object.bytes' FROM {table}
             WHERE instr(substr({column}, 1, 2000), '\"body\":{{\"object\"') > 0 AND json_valid({column})"
        );
        let mut messages = database.prepare(&sql)?;
        let named = messages.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        // A row that cannot be read is part of the damage.
        bodies.extend(named.flatten());
    }
    Ok((damage, bodies))
}
