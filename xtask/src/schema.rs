//! `cargo xtask schema`: the files under docs/ that are generated from the code. Tests compare them with it.

use std::fs;

use anyhow::{Context as _, anyhow, bail};
use hookmill_config::docs::{json_schema, update};

use crate::shell::{cargo, output, root};

/// The JSON Schema of hookmill.toml, from which editors read it.
const CONFIGURATION: &str = "docs/hookmill.schema.json";

/// The pages with tables of the keys of hookmill.toml.
const REFERENCE: [&str; 5] = [
    "docs/admin.md",
    "docs/configuration.md",
    "docs/email.md",
    "docs/operations.md",
    "docs/providers.md",
];

/// The OpenAPI document of the admin API, as the router serves it.
const ADMIN: &str = "docs/openapi.json";

/// The reference of the presets' tables.
const TABLES: &str = "docs/tables.md";

/// Writes them.
///
/// # Errors
///
/// If a table of a preset is not documented, the admin API does not build, or a file cannot be written.
pub fn run() -> anyhow::Result<()> {
    let write = |file: &str, text: String| {
        fs::write(root().join(file), text + "\n").with_context(|| format!("cannot write {file}"))
    };
    write(CONFIGURATION, serde_json::to_string_pretty(&json_schema())?)?;
    for page in REFERENCE {
        let text = fs::read_to_string(root().join(page))?;
        let updated = update(&text).map_err(|error| anyhow!("{page}: {error}"))?;
        fs::write(root().join(page), updated).with_context(|| format!("cannot write {page}"))?;
    }
    let tables = hookmill_migrations::docs::page();
    let tables = tables.map_err(|faults| anyhow!("{}", faults.join("\n")))?;
    fs::write(root().join(TABLES), tables).with_context(|| format!("cannot write {TABLES}"))?;
    // A program of its own, so that the other commands need not build the admin API.
    let mut openapi = cargo();
    openapi.args(["run", "--quiet", "--package", "hookmill-admin", "--example", "openapi"]);
    let Some(document) = output(&mut openapi) else {
        bail!("the admin API does not build: cargo run --package hookmill-admin --example openapi");
    };
    write(ADMIN, document)
}
