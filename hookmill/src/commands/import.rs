//! `hookmill import`: loads the objects that a provider's API has into the tables.

use std::path::PathBuf;

use anyhow::bail;
use hookmill_rules::api::lists_of;
use serde_json::json;

use crate::client::{Operator, Target};
use crate::list::{json as pretty, print_line, put, text};
use crate::run::pipeline::load;

/// Plan to load the objects that a provider's API has, e.g. those from before its webhooks; start it with `hookmill replays run`
#[derive(clap::Args)]
pub struct Arguments {
    /// The source. It needs an API in hookmill.toml.
    source: String,
    /// Only these lists: customers,subscriptions. Default: all lists whose objects some rule keeps.
    #[arg(long, value_name = "LISTS", value_delimiter = ',')]
    only: Vec<String>,
    /// The connected account of Stripe that has the objects: acct_1. Default: that of the key.
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// The configuration of the source, for a data folder.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    config: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// The lists that the import reads. The API of a data folder does not know the configuration.
fn lists(arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    let (loaded, Arguments { source, only, .. }) = (load(&arguments.config)?, arguments);
    let file = arguments.config.display();
    let Some(api) = loaded.config.apis.get(source) else {
        bail!(
            "the source `{source}` has no API in {file}; add [sources.{source}.api] with its `key`"
        );
    };
    let known: Vec<_> =
        lists_of(&loaded.program, source, api.provider).map(|list| list.name).collect();
    if let Some(name) = only.iter().find(|name| !known.contains(name)) {
        bail!(
            "no rule in {file} keeps the objects of a list `{name}`; the lists are {}",
            known.join(", ")
        );
    }
    if known.is_empty() {
        bail!(
            "no rule in {file} keeps objects of the API of `{source}`: an import shows rules each object as an event of the type `….updated`"
        );
    }
    Ok(known.into_iter().filter(|name| only.is_empty() || only.contains(name)).collect())
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { source, only, account, target, .. } = arguments;
    let local = target.folder().map(|_| lists(arguments)).transpose()?;
    let body = json!({ "source": source, "only": only, "account": account });
    let mut planned = Operator::new(target)?.post("/imports", &body)?;
    if let Some(lists) = local {
        planned["lists"] = lists.into();
    }
    if arguments.json {
        return put(pretty(&planned)?);
    }
    let lists: Vec<_> = planned["lists"].as_array().into_iter().flatten().map(text).collect();
    print_line!("all objects of {}: {}", text(&planned["filter"]["source"]), lists.join(", "));
    print_line!("hookmill replays run {} --rate 100 --reason '…' loads them", text(&planned["id"]));
    Ok(())
}
