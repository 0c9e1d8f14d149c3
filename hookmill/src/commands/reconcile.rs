//! `hookmill reconcile`: compares the tables with a provider's API.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use hookmill_native::DataFolder;
use serde_json::{Value, json};

use crate::client::{Operator, Target};
use crate::commands::import::lists;
use crate::commands::replays::{ended, show};
use crate::list::{json as as_json, note, print_line, put, text};

/// The maximum number of differences in the output.
const NAMED: u32 = 20;

/// Compare the tables with the objects that a provider's API has; exit code 0: equal; 3: different; 4: not everything could be compared
#[derive(clap::Args)]
pub struct Arguments {
    /// The source. It needs an API in hookmill.toml.
    source: String,
    /// Only this table. Default: every table whose rows come from the objects of a list.
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Compare only the first N objects of each list.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Send the objects that differ through the rules.
    #[arg(long)]
    repair: bool,
    /// The connected account of Stripe that has the objects: acct_1. Default: that of the key.
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Objects per second, 1 to 10000.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// The reason, for the audit.
    #[arg(long, value_name = "TEXT", default_value = "compare the tables with the provider")]
    reason: String,
    /// The configuration of the source, for a data folder.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    config: PathBuf,
    /// Do not wait for the end; print the id for `hookmill replays watch` and `show`.
    #[arg(long, conflicts_with = "json")]
    detach: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Exit code: the tables match the provider.
const EQUAL: u8 = 0;
/// Exit code: the tables differ from the provider.
const DRIFT: u8 = 3;
/// Exit code: the command did not compare every row, or it failed.
const UNCLEAR: u8 = 4;

pub fn run(arguments: &Arguments) -> ExitCode {
    let code = compare(arguments).unwrap_or_else(|error| {
        note!("error: {error:#}");
        UNCLEAR
    });
    ExitCode::from(code)
}

fn compare(arguments: &Arguments) -> anyhow::Result<u8> {
    let Arguments { source, table, account, sample, repair, rate, reason, target, .. } = arguments;
    if let Some(folder) = target.folder() {
        lists(&arguments.config, source)?;
        if DataFolder::listening(folder).is_none() {
            bail!(
                "no `hookmill serve` or `hookmill dev` process uses {}; start one, since that process compares the tables",
                folder.display()
            );
        }
    }
    let client = Operator::new(target)?;
    let filter = json!({
        "source": source, "table": table, "account": account, "sample": sample, "repair": repair,
    });
    let id = text(&client.post("/reconciliations", &filter)?["id"]);
    client.post(&format!("/replays/{id}/run"), &json!({ "rate": rate, "reason": reason }))?;
    if arguments.detach {
        print_line!("{id}");
        return Ok(EQUAL);
    }
    ended(&client, &id)?;
    let done = show(&client, &id)?;
    let report = &done["report"];
    if done["state"] != "done" {
        bail!(
            "the reconciliation is {} and did not compare every row; run `hookmill replays show {id}` for details",
            text(&done["state"])
        );
    }
    let drifts =
        client.get(&format!("/replays/{id}/drifts"), &[("limit", Some(NAMED.to_string()))])?;
    if arguments.json {
        let all = json!({ "id": id, "report": report, "drifts": drifts["items"] });
        put(as_json(&all)?)?;
    } else {
        print_report(report, &drifts["items"], arguments)?;
    }
    Ok(verdict(report))
}

/// The exit code for a report.
fn verdict(report: &Value) -> u8 {
    let tables = report["tables"].as_object().into_iter().flatten();
    let mut code = EQUAL;
    for (_, found) in tables {
        let any = |kinds: &[&str]| kinds.iter().any(|kind| found[kind].as_u64() > Some(0));
        if any(&["missing", "extra", "different", "deleted"]) {
            return DRIFT;
        }
        if any(&["unclear"]) {
            code = UNCLEAR;
        }
    }
    code
}

fn print_report(report: &Value, drifts: &Value, arguments: &Arguments) -> anyhow::Result<()> {
    let entries = |value: &Value| -> Vec<(String, u64)> {
        let entries = value.as_object().into_iter().flatten();
        entries.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or_default())).collect()
    };
    let counted = |(name, count): &(String, u64)| format!("{count} {name}");
    let objects = entries(&report["objects"]);
    let compared: Vec<_> = objects.iter().filter(|(_, count)| *count > 0).map(counted).collect();
    let compared = if compared.is_empty() { "no objects".to_owned() } else { compared.join(", ") };
    print_line!("compared: {compared}");
    let tables = report["tables"].as_object().cloned().unwrap_or_default();
    for (table, found) in &tables {
        let of = |kind: &str| (kind.to_owned(), found[kind].as_u64().unwrap_or_default());
        let kinds = ["missing", "extra", "different", "deleted", "unclear"].map(of);
        let counts: Vec<_> = kinds.iter().filter(|(_, count)| *count > 0).map(counted).collect();
        let repaired = match found["repaired"].as_u64() {
            Some(count) if count > 0 => format!("; {count} of them repaired"),
            _ => String::new(),
        };
        print_line!("{table}: {}{repaired}", counts.join(", "));
        let columns = entries(&found["columns"]);
        if !columns.is_empty() {
            let columns: Vec<_> =
                columns.iter().map(|(name, count)| format!("{name} ({count})")).collect();
            print_line!("  columns: {}", columns.join(", "));
        }
    }
    let words = |value: &Value| {
        value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ")
    };
    for drift in drifts.as_array().into_iter().flatten() {
        let what = |key: &str| text(&drift[key]);
        let columns = words(&drift["columns"]);
        let columns = if columns.is_empty() { columns } else { format!(": {columns}") };
        print_line!(
            "  {} {} {}, {}{columns}",
            what("table"),
            words(&drift["key"]),
            what("kind"),
            what("state")
        );
    }
    let unlisted = words(&report["unlisted"]);
    if !unlisted.is_empty() {
        print_line!("not compared, because no list contains their objects: {unlisted}");
    }
    if report["complete"] == false {
        print_line!("the reconciliation stopped after 10,000 differences");
    }
    if report["withheld"] == true {
        print_line!(
            "the repair deleted no rows: more rows lack an object than the provider lists; check that the key belongs to this account and mode"
        );
    }
    let sample = if arguments.sample.is_some() { " in this sample" } else { "" };
    match verdict(report) {
        EQUAL => print_line!("equal{sample}"),
        UNCLEAR => print_line!("some rows could not be compared"),
        _ if arguments.repair => {
            print_line!("the tables differed{sample}; run the command again to confirm the repair");
        }
        _ => print_line!("the tables differ{sample}; --repair sends the objects through the rules"),
    }
    Ok(())
}
