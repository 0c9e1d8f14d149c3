//! `hookmill schema`: the JSON Schema of hookmill.toml, for editors.

use crate::list::put;

/// Written by `cargo xtask schema` from the types that tests compare with the reader.
const SCHEMA: &str = include_str!("../../../docs/hookmill.schema.json");

/// Print the JSON Schema of hookmill.toml, for completion and checks in an editor
#[derive(clap::Args)]
pub struct Arguments {}

pub fn run(_: &Arguments) -> anyhow::Result<()> {
    put(SCHEMA.trim_end())
}
