//! `hookmill stats`: the current state.

use serde_json::Value;

use crate::client::{Client, Target};
use crate::list::print_line;
use crate::list::{json, put, text, time};

/// Show the current state: events, lag, dead letters, the outbox, rejections
#[derive(clap::Args)]
pub struct Arguments {
    /// The window in minutes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: u32,
    /// Print it as JSON; times are milliseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let query = [("minutes", Some(arguments.minutes.to_string()))];
    let stats = Client::new(&arguments.target)?.get("/stats", &query)?;
    if arguments.json {
        return put(json(&stats)?);
    }
    let each = |key: &str| stats[key].as_array().cloned().unwrap_or_default();
    let activity = each("activity");
    let events: u64 = activity.iter().filter_map(|minute| minute["events"].as_u64()).sum();
    let lag = activity.iter().filter_map(|minute| minute["lag"].as_i64()).max().unwrap_or_default();
    print_line!(
        "events        {events} in {} minutes, the slowest took {lag} ms",
        arguments.minutes
    );
    for queue in each("queues") {
        let oldest = match &queue["oldest"] {
            Value::Null => String::new(),
            at => format!(", oldest sent {}", time(at)),
        };
        let name = text(&queue["queue"]).replace('_', " ");
        print_line!("queue         {} {name}{oldest}", text(&queue["messages"]));
    }
    // Counts of rows stop there.
    let counted = |count: &Value| {
        let stopped = count.as_u64() >= stats["counted_to"].as_u64() && count.is_u64();
        let or_more = if stopped { "+" } else { "" };
        format!("{}{or_more}", text(count))
    };
    let retrying = &stats["retrying"];
    let details = match (&retrying["next_attempt_at"], text(&retrying["error"])) {
        (Value::Null, _) => String::new(),
        (at, error) => format!(", next attempt {}: {error}", time(at)),
    };
    let events = counted(&retrying["events"]);
    print_line!("retrying      {events}{details}");
    let dead = &stats["dead_letters"];
    let oldest = match &dead["oldest"] {
        Value::Null => String::new(),
        at => format!(", oldest failed {}", time(at)),
    };
    print_line!(
        "dead letters  {}{oldest}; {} replaying",
        counted(&dead["dead"]),
        counted(&dead["replaying"])
    );
    for (title, key, [of, kind]) in [
        ("outbox", "outbox", ["channel", "state"]),
        ("rejected", "rejections", ["source", "reason"]),
    ] {
        let counts = each(key);
        let counts = counts.iter().map(|tally| {
            format!("{} {} {}", text(&tally[of]), text(&tally[kind]), text(&tally["count"]))
        });
        let counts = counts.collect::<Vec<_>>();
        print_line!(
            "{title:12}  {}",
            if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
        );
    }
    for sweep in each("sweeps") {
        let what = |key: &str| text(&sweep[key]);
        let state = match &sweep["error"] {
            Value::Null => format!("complete up to {}", time(&sweep["swept_to"])),
            error => text(error),
        };
        print_line!(
            "sweep         {}: {} events found that were never delivered, {} of them last; {state}",
            what("source"),
            what("found"),
            what("found_last")
        );
    }
    for usage in each("usage") {
        let what = |key: &str| text(&usage[key]);
        print_line!(
            "{:12}  {} in {} requests, {}",
            what("provider"),
            what("sent"),
            what("requests"),
            what("period")
        );
    }
    Ok(())
}
