//! `hookmill reprocess`: sends applied events through the whole path again after a rule has changed.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use hookmill_core::time::Timestamp;
use hookmill_core::words::RuleEffect;
use serde_json::{Map, Value};

use crate::client::{Operator, Target};
use crate::list::print_line;
use crate::list::{json, note, put, text, time};
use crate::run::pipeline::load;

/// Plan to run rules again on applied events, e.g. after changing a rule; start it with `hookmill replays run`
#[derive(clap::Args)]
pub struct Arguments {
    /// The source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The event type. `*` matches any text: 'customer.*'.
    #[arg(long, value_name = "GLOB")]
    r#type: Option<String>,
    /// The provider's event id.
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// First applied at or after this time: 2026-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// First applied before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    before: Option<Timestamp>,
    /// Select every event whose message is kept.
    #[arg(long)]
    all: bool,
    /// Run only this rule; repeatable. Default: the rules that write rows by `version`. Counters and rules that send run only
    /// if named; then they count or send again. A counter needs `--before`.
    #[arg(long = "rule", value_name = "NAME")]
    rules: Vec<String>,
    /// The configuration that contains the rules, for a data folder.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    config: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Checks that the named rules exist. The API of a data folder does not know the rules.
fn check_rules(arguments: &Arguments) -> anyhow::Result<()> {
    let program = load(&arguments.config)?.program;
    for name in &arguments.rules {
        let Some(rule) = program.rules.iter().find(|rule| rule.name == *name) else {
            bail!("no rule has the name `{name}` in {}", arguments.config.display());
        };
        if rule.effect.word() == RuleEffect::Count && arguments.before.is_none() {
            bail!(
                "`{name}` is a counter, and would count events twice that it has counted; give `--before` the time of the first event that it has \
                 counted, or the present time if its table is empty"
            );
        }
        if !rule.effect.word().is_repeatable() {
            note!("`{name}` will count or send again for these events; limit them with --before");
        }
    }
    Ok(())
}

fn parse_time(text: &str) -> anyhow::Result<Timestamp> {
    Timestamp::parse_rfc3339(text).context("expected a time such as 2026-01-31T00:00:00Z")
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let filters = [
        ("source", &arguments.source),
        ("type", &arguments.r#type),
        ("event_id", &arguments.event_id),
    ];
    let filters = filters.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    let mut body: Map<String, Value> =
        filters.map(|(name, value)| (name.to_owned(), value.into())).collect();
    for (name, at) in [("applied_from", arguments.since), ("applied_before", arguments.before)] {
        body.extend(at.map(|at| (name.to_owned(), at.millis().into())));
    }
    if arguments.all {
        body.insert("all".to_owned(), true.into());
    }
    if !arguments.rules.is_empty() {
        body.insert("rules".to_owned(), arguments.rules.clone().into());
    }
    if arguments.target.folder().is_some() && !arguments.rules.is_empty() {
        check_rules(arguments)?;
    }
    let planned = Operator::new(&arguments.target)?.post("/reprocess", &body.into())?;
    if arguments.json {
        return put(json(&planned)?);
    }
    let what = |key: &str| text(&planned[key]);
    if planned["total"] == 0 {
        print_line!("no stored event matches");
        return Ok(());
    }
    for rule in planned["repeats"].as_array().into_iter().flatten() {
        note!(
            "`{}` will count or send again for these events; limit them with --before",
            text(rule)
        );
    }
    print_line!(
        "{} events, applied from {} to {}",
        what("total"),
        time(&planned["first_applied_at"]),
        time(&planned["last_applied_at"])
    );
    for kind in planned["types"].as_array().into_iter().flatten() {
        print_line!("  {}:{} {}", text(&kind["source"]), text(&kind["type"]), text(&kind["count"]));
    }
    print_line!("hookmill replays run {} --rate 50 --reason '…' sends them", what("id"));
    Ok(())
}
