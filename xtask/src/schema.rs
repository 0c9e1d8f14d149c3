//! `cargo xtask schema`: the files under docs/ that are generated from the code. Tests compare them with it.

use std::fs;

use anyhow::{Context as _, bail};
use hookmill_core::config::json_schema;

use crate::shell::{cargo, output, root};

/// The JSON Schema of hookmill.toml: editors read it from there, and the binary contains it.
const CONFIGURATION: &str = "docs/hookmill.schema.json";

/// The OpenAPI document of the admin API, as the router serves it.
const ADMIN: &str = "docs/openapi.json";

/// Writes both.
///
/// # Errors
///
/// If the admin API does not build, or a file cannot be written.
pub fn run() -> anyhow::Result<()> {
    let write = |file: &str, text: String| {
        fs::write(root().join(file), text + "\n").with_context(|| format!("cannot write {file}"))
    };
    write(CONFIGURATION, serde_json::to_string_pretty(&json_schema())?)?;
    // A separate program, so that the other commands need not build the admin API.
    let mut openapi = cargo();
    openapi.args(["run", "--quiet", "--package", "hookmill-admin", "--example", "openapi"]);
    let Some(document) = output(&mut openapi) else {
        bail!("the admin API does not build: cargo run --package hookmill-admin --example openapi");
    };
    write(ADMIN, document)
}
