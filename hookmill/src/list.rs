//! How a command lists what it has found.

use std::io::{self, Write as _};

use comfy_table::Table;
use serde::Serialize;

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

/// A table in columns and without lines. Whatever would move the cursor is replaced: payloads are others' text.
pub fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    let plain = |text: String| text.replace(char::is_control, "\u{fffd}");
    table.add_rows(rows.map(|row| row.map(plain)));
    table
}
