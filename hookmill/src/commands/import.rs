//! `hookmill import`: loads the objects that a provider's API has into the tables.

use std::path::{Path, PathBuf};

use anyhow::bail;
use hookmill_dlq::import::ImportFilter;
use hookmill_rules::api::lists_of;

use crate::client::{Operator, Target};
use crate::list::{json, print_line, put, text};
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

/// The lists of a source whose objects some rule keeps. The API of a data folder does not know the configuration.
pub(crate) fn lists(config: &Path, source: &str) -> anyhow::Result<Vec<String>> {
    let (loaded, file) = (load(config)?, config.display());
    let Some(api) = loaded.config.apis.get(source) else {
        bail!(
            "the source `{source}` has no API in {file}; add [sources.{source}.api] with its `key`"
        );
    };
    Ok(lists_of(&loaded.program, source, api.provider).map(|list| list.name).collect())
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { source, only, account, config, target, .. } = arguments;
    let filter =
        ImportFilter { source: source.clone(), only: only.clone(), account: account.clone() };
    let local =
        target.folder().map(|_| filter.select(lists(config, source)?).map_err(anyhow::Error::msg));
    let local = local.transpose()?;
    let mut planned = Operator::new(target)?.post("/imports", &serde_json::to_value(&filter)?)?;
    if let Some(lists) = local {
        planned["lists"] = lists.into();
    }
    if arguments.json {
        return put(json(&planned)?);
    }
    let lists: Vec<_> = planned["lists"].as_array().into_iter().flatten().map(text).collect();
    print_line!("all objects of {}: {}", text(&planned["filter"]["source"]), lists.join(", "));
    print_line!("hookmill replays run {} --rate 100 --reason '…' loads them", text(&planned["id"]));
    Ok(())
}
