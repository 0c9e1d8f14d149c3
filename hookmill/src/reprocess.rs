//! `hookmill reprocess`: events that took effect, sent through the whole path again after a rule has changed.

use serde_json::{Map, Value};

use crate::client::{Client, Place};
use crate::list::{json, put, text, time};

/// Plan to carry out rules again for events that took effect; `hookmill replays run` carries it out
#[derive(clap::Args)]
pub struct Arguments {
    /// Of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Of this type; `*` stands for anything: 'customer.*'.
    #[arg(long, value_name = "GLOB")]
    r#type: Option<String>,
    /// With this id.
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// Every event whose message is kept.
    #[arg(long)]
    all: bool,
    /// This rule and no other; may be said several times. Without it, the rules that keep rows by version: counters count again,
    /// and emails are sent again, only if they are named.
    #[arg(long = "rule", value_name = "NAME")]
    rules: Vec<String>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let said = [
        ("source", &arguments.source),
        ("type", &arguments.r#type),
        ("event_id", &arguments.event_id),
    ];
    let said = said.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    let mut body: Map<String, Value> =
        said.map(|(name, value)| (name.to_owned(), value.into())).collect();
    if arguments.all {
        body.insert("all".to_owned(), true.into());
    }
    if !arguments.rules.is_empty() {
        body.insert("rules".to_owned(), arguments.rules.clone().into());
    }
    let planned = Client::new(&arguments.place)?.post("/reprocess", &body.into())?;
    if arguments.json {
        return put(json(&planned)?);
    }
    let what = |key: &str| text(&planned[key]);
    println!(
        "{} events, which took effect from {} to {}",
        what("total"),
        time(&planned["first_applied_at"]),
        time(&planned["last_applied_at"])
    );
    for kind in planned["types"].as_array().into_iter().flatten() {
        println!("  {}:{} {}", text(&kind["of"]), text(&kind["kind"]), text(&kind["count"]));
    }
    println!("hookmill replays run {} --rate 50 --reason '…' sends them", what("id"));
    Ok(())
}
