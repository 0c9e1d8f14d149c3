//! `hookmill schema`: what hookmill.toml can say, for editors.

use crate::list::put;

/// As `cargo xtask schema` writes it, of the types that the reader is compared with.
const SCHEMA: &str = include_str!("../../../docs/hookmill.schema.json");

/// Print the JSON Schema of hookmill.toml, for completion and checks in an editor
#[derive(clap::Args)]
pub struct Arguments {}

pub fn run(_: &Arguments) -> anyhow::Result<()> {
    put(SCHEMA.trim_end())
}
