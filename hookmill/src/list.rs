//! How a command lists what it has found.

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
    if json {
        println!("{}", serde_json::to_string_pretty(&items)?);
    } else if items.is_empty() {
        eprintln!("{nothing}");
    } else {
        println!("{}", table(header, items.into_iter().map(row)));
    }
    Ok(())
}

/// A table in columns and without lines.
pub fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    table
}
