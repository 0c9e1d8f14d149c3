//! `hookmill counts`: what events have and lack.

use serde_json::Value;

use crate::client::{Client, Target};
use crate::list::{json, note, put, table, text, time};

/// Count rows by rule, values that events lacked, and events by API version
///
/// A running Hookmill writes its counts once a minute.
#[derive(clap::Args)]
pub struct Arguments {
    /// The number of days (UTC), with today as the last.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=90))]
    days: u32,
    /// Print it as JSON; times are milliseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let query = [("days", Some(arguments.days.to_string()))];
    let counts = Client::new(&arguments.target)?.get("/counts", &query)?;
    if arguments.json {
        return put(json(&counts)?);
    }
    let each = |key: &str| counts[key].as_array().cloned().unwrap_or_default();
    let (rules, versions) = (each("rules"), each("versions"));
    if rules.is_empty() && versions.is_empty() {
        note!("no events in {} days", arguments.days);
        return Ok(());
    }
    let rule = |rule: &Value| {
        let absent = rule["absent"].as_array().into_iter().flatten();
        let absent = absent.map(|one| format!("{} {}", text(&one["column"]), text(&one["rows"])));
        [text(&rule["rule"]), text(&rule["rows"]), absent.collect::<Vec<_>>().join(", ")]
    };
    put(table(["RULE", "ROWS", "WITHOUT"], rules.iter().map(rule)))?;
    if versions.is_empty() {
        return Ok(());
    }
    let version = |one: &Value| {
        let expected = if one["expected"] == false { "unexpected" } else { "" };
        let [first, last] = ["first_at", "last_at"].map(|key| time(&one[key]));
        let [source, name, events] = ["source", "version", "events"].map(|key| text(&one[key]));
        [source, name, events, first, last, expected.to_owned()]
    };
    let header = ["SOURCE", "API VERSION", "EVENTS", "FIRST", "LAST", ""];
    put(format!("\n{}", table(header, versions.iter().map(version))))
}
