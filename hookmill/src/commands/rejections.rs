//! `hookmill rejections`: rejected requests, and the reasons.

use serde_json::{Value, json};

use crate::client::{Client, Target};
use crate::list::{json, name, note, put, table, text, time};

/// List rejected requests: counts of the last 24 hours, and the last few of each kind
#[derive(clap::Args)]
pub struct Arguments {
    /// The source; `-` for requests that named no configured source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The reason.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// The number of requests, latest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Print {"counts":[…],"requests":[…]}; times are milliseconds since the Unix epoch.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { source, reason, .. } = arguments;
    let client = Client::new(&arguments.target)?;
    let query = [
        ("source", source.clone()),
        ("reason", reason.clone()),
        ("limit", Some(arguments.limit.to_string())),
    ];
    let requests = client.get("/rejections", &query)?["items"].take();
    let stats = client.get("/stats", &[("minutes", Some((24 * 60).to_string()))])?;
    let matches =
        |filter: &Option<String>, found| filter.as_ref().is_none_or(|filter| *filter == found);
    let counts = stats["rejections"].as_array().into_iter().flatten().filter(|tally| {
        matches(source, name(&tally["source"])) && matches(reason, text(&tally["reason"]))
    });
    if arguments.json {
        let counts = counts.map(
            |tally| json!({ "source": tally["source"], "reason": tally["reason"], "requests": tally["count"] }),
        );
        let counts = counts.collect::<Vec<_>>();
        return put(json(&json!({ "counts": counts, "requests": requests }))?);
    }
    let requests = requests.as_array().cloned().unwrap_or_default();
    if requests.is_empty() {
        match (source, reason) {
            (None, None) => note!("no rejected requests"),
            _ => note!("no rejected requests match"),
        }
        return Ok(());
    }
    let count =
        |tally: &Value| [name(&tally["source"]), text(&tally["reason"]), text(&tally["count"])];
    put(format!("{}\n", table(["SOURCE", "REASON", "LAST 24 HOURS"], counts.map(count))))?;
    let request = |request: &Value| {
        let bytes = request["body_bytes"].as_u64().or(request["content_length"].as_u64());
        let bytes = bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes} bytes"));
        let (source, remote) = (name(&request["source"]), name(&request["remote"]));
        let (reason, detail) = (text(&request["reason"]), text(&request["detail"]));
        [time(&request["at"]), source, reason, remote, bytes, detail]
    };
    let header = ["REFUSED", "SOURCE", "REASON", "FROM", "BODY", "DETAIL"];
    put(table(header, requests.iter().map(request)))
}
