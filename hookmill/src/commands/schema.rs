//! `hookmill schema`: the JSON Schema of hookmill.toml, for editors.

use hookmill_config::docs::json_schema;

use crate::list::put;

/// Print the JSON Schema of hookmill.toml, for completion and checks in an editor
#[derive(clap::Args)]
pub struct Arguments {}

pub fn run(_: &Arguments) -> anyhow::Result<()> {
    put(&serde_json::to_string_pretty(&json_schema())?)
}
