//! How a command lists what it has found.

use std::io::{self, Write as _};

use comfy_table::Table;
use hookmill_core::time::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// Prints a list: as a JSON array; or as a table, a row for each, and if there is nothing what is to be said of that.
pub fn print<T: Serialize, const N: usize>(
    items: Vec<T>,
    json: bool,
    nothing: &str,
    header: [&str; N],
    row: impl Fn(T) -> [String; N],
) -> anyhow::Result<()> {
    let printed = if json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&items)?)
    } else if items.is_empty() {
        writeln!(io::stderr(), "{nothing}")
    } else {
        writeln!(io::stdout(), "{}", table(header, items.into_iter().map(row)))
    };
    match printed {
        // Whoever reads has read enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

/// Prints what the admin API has found, likewise.
pub fn listed<const N: usize>(
    found: Value,
    json: bool,
    nothing: &str,
    header: [&str; N],
    row: impl Fn(&Value) -> [String; N],
) -> anyhow::Result<()> {
    let Value::Array(items) = found else { anyhow::bail!("the API answered with no list") };
    print(items, json, nothing, header, |item| row(&item))
}

/// A value of the API's as a text; blank if there is none.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}

/// A time of the API's, for people; blank if there is none.
pub fn time(value: &Value) -> String {
    value.as_i64().map(|at| Timestamp::from_millis(at).to_string()).unwrap_or_default()
}

/// A table in columns and without lines. Whatever would move the cursor is replaced: payloads are others' text.
pub fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    let plain = |text: String| text.replace(char::is_control, "\u{fffd}");
    table.add_rows(rows.map(|row| row.map(plain)));
    table
}
