//! `cargo xtask schema`: the JSON Schema of hookmill.toml, written from the types in core/src/config/shape.rs.

use anyhow::Context as _;
use hookmill_core::config::json_schema;

use crate::shell::root;

/// Where it is: editors read it from there, and the binary has it compiled in.
const FILE: &str = "docs/hookmill.schema.json";

/// Writes it.
///
/// # Errors
///
/// If the file cannot be written.
pub fn run() -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&json_schema())? + "\n";
    std::fs::write(root().join(FILE), text).with_context(|| format!("cannot write {FILE}"))
}
