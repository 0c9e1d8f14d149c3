//! The reference of the presets' tables, made from the comments in their migration.

use std::fmt::Write as _;

/// The comments and the tables of a migration.
#[derive(Default)]
struct Document<'s> {
    /// Its first comment.
    intro: Vec<&'s str>,
    presets: Vec<Preset<'s>>,
}

/// A preset, as its comment describes it.
struct Preset<'s> {
    name: &'s str,
    text: Vec<&'s str>,
    tables: Vec<Table<'s>>,
}

/// A table, as its comment describes it.
struct Table<'s> {
    name: &'s str,
    text: Vec<&'s str>,
    columns: Vec<Column<'s>>,
}

/// A column, as the comment after it describes it.
struct Column<'s> {
    name: &'s str,
    kind: &'s str,
    is_key: bool,
    text: String,
}

/// The page with the tables of the presets, as Markdown.
///
/// # Errors
///
/// Every table and column without its comment, and every table without an example.
pub fn page() -> Result<String, Vec<String>> {
    let document = parse(super::PRESETS)?;
    let mut page = "<!-- `cargo xtask schema` writes this page from the comments in migrations/0002_presets.sql. -->\n".to_owned();
    if let [title, text @ ..] = document.intro.as_slice() {
        let _ = write!(page, "\n# {title}\n{}", markdown(text));
    }
    for preset in &document.presets {
        let _ = write!(page, "\n## {}\n{}", preset.name, markdown(&preset.text));
        for table in &preset.tables {
            let _ = write!(page, "\n### {}\n{}\n", table.name, markdown(&table.text));
            page += "| Column | Type | Meaning |\n| --- | --- | --- |\n";
            for Column { name, kind, is_key, text } in &table.columns {
                let key = if *is_key { ", key" } else { "" };
                let _ = writeln!(page, "| `{name}` | `{kind}`{key} | {text} |");
            }
        }
    }
    Ok(page)
}

/// The documented tables: their names, and the names of their columns. Without the columns that say which event wrote the row.
pub fn columns() -> Vec<(&'static str, Vec<&'static str>)> {
    let tables = tables().into_iter();
    tables.map(|table| (table.name, table.columns.iter().map(|c| c.name).collect())).collect()
}

/// The examples of the page: their tables, and their SQL.
pub fn examples() -> Vec<(&'static str, String)> {
    tables().into_iter().map(|table| (table.name, code(&table.text))).collect()
}

fn tables() -> Vec<Table<'static>> {
    let presets = parse(super::PRESETS).map(|document| document.presets).unwrap_or_default();
    presets.into_iter().flat_map(|preset| preset.tables).collect()
}

fn parse(sql: &str) -> Result<Document<'_>, Vec<String>> {
    let mut document = Document::default();
    let mut faults = Vec::new();
    let mut comment = Vec::new();
    let mut lines = sql.lines();
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("--") {
            comment.push(text.strip_prefix(' ').unwrap_or(text));
            continue;
        }
        let comment = std::mem::take(&mut comment);
        if let Some(name) = line.strip_prefix("CREATE TABLE ").and_then(|l| l.strip_suffix(" (")) {
            let columns = columns_of(name, &mut lines, &mut faults);
            if comment.first().is_none_or(|text| text.is_empty()) {
                faults
                    .push(format!("{name}: a comment before CREATE TABLE must describe the table"));
            }
            if code(&comment).is_empty() {
                faults.push(format!(
                    "{name}: its comment needs an example in SQL, indented by four blanks"
                ));
            }
            if let Some(preset) = document.presets.last_mut() {
                preset.tables.push(Table { name, text: comment, columns });
            } else {
                faults.push(format!("{name}: no comment \"Preset `name`\" is above the table"));
            }
        } else if line.is_empty() {
            // A comment on its own.
            let preset = comment.first().and_then(|first| first.strip_prefix("Preset `"));
            if let Some(name) = preset.and_then(|name| name.strip_suffix('`')) {
                let text = comment[1..].to_vec();
                document.presets.push(Preset { name, text, tables: Vec::new() });
            } else if document.intro.is_empty() {
                document.intro = comment;
            }
        }
    }
    if faults.is_empty() { Ok(document) } else { Err(faults) }
}

/// The columns of a table, to the end of its statement.
fn columns_of<'s>(
    table: &str,
    lines: &mut impl Iterator<Item = &'s str>,
    faults: &mut Vec<String>,
) -> Vec<Column<'s>> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    for line in lines.by_ref().map(str::trim_start).take_while(|line| !line.starts_with(')')) {
        if let (Some(more), Some(column)) = (line.strip_prefix("--"), columns.last_mut()) {
            column.text += more;
            continue;
        }
        if let Some(key) = line.strip_prefix("PRIMARY KEY (") {
            let names: Vec<_> = key.trim_end_matches([')', ',']).split(", ").collect();
            for column in &mut columns {
                column.is_key |= names.contains(&column.name);
            }
            continue;
        }
        let (code, text) = line.split_once(" -- ").unwrap_or((line, ""));
        let mut words = code.trim_end_matches(',').split(' ');
        let (name, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if name.starts_with('_') {
            continue;
        }
        let is_key = code.contains("PRIMARY KEY");
        columns.push(Column { name, kind, is_key, text: text.to_owned() });
    }
    let silent = columns.iter().filter(|column| column.text.is_empty());
    faults.extend(silent.map(|c| format!("{table}.{}: a comment must follow the column", c.name)));
    columns
}

/// The lines of a comment that are SQL.
fn code(comment: &[&str]) -> String {
    let lines = comment.iter().filter_map(|line| line.strip_prefix("    "));
    lines.collect::<Vec<_>>().join("\n")
}

/// A comment as Markdown: its lines make paragraphs, and indented ones blocks of SQL.
fn markdown(comment: &[&str]) -> String {
    let mut text = String::new();
    for paragraph in comment.split(|line| line.is_empty()).filter(|lines| !lines.is_empty()) {
        let sql = code(paragraph);
        let _ = match sql.as_str() {
            "" => writeln!(text, "\n{}", paragraph.join(" ")),
            sql => writeln!(text, "\n```sql\n{sql}\n```"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_up_to_date() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tables.md");
        let written = std::fs::read_to_string(file).unwrap_or_default();
        let page = page().unwrap_or_else(|faults| panic!("{}", faults.join("\n")));
        assert!(page == written, "docs/tables.md is out of date: run cargo xtask schema");
    }

    #[test]
    fn a_table_and_its_columns_need_comments_and_an_example() {
        let sql = "\
-- Tables

-- Preset `shop`
--
-- It sells.

-- The orders
-- of customers.
--
-- All of them:
--
--     SELECT *
--     FROM live_orders
CREATE TABLE orders (
    shop TEXT NOT NULL, -- The shop.
    id TEXT NOT NULL, -- Its id,
        -- in the shop.
    total INTEGER,
    _version INTEGER NOT NULL,
    PRIMARY KEY (shop, id)
) STRICT;

CREATE TABLE lines (
    id TEXT PRIMARY KEY -- Its id.
);
";
        let faults = |sql: &str| parse(sql).err().unwrap_or_default();
        assert_eq!(
            faults(sql),
            [
                "orders.total: a comment must follow the column",
                "lines: a comment before CREATE TABLE must describe the table",
                "lines: its comment needs an example in SQL, indented by four blanks",
            ]
        );
        let (orders, _) = sql.split_once("\nCREATE TABLE lines").unwrap();
        let orders =
            orders.replace("INTEGER,\n    _version", "INTEGER, -- In cents.\n    _version");
        let document = parse(&orders).unwrap_or_else(|faults| panic!("{faults:?}"));
        let [shop] = document.presets.as_slice() else { panic!("one preset") };
        assert_eq!((shop.name, markdown(&shop.text).as_str()), ("shop", "\nIt sells.\n"));
        let [table] = shop.tables.as_slice() else { panic!("one table") };
        assert_eq!(
            markdown(&table.text),
            "\nThe orders of customers.\n\nAll of them:\n\n```sql\nSELECT *\nFROM live_orders\n```\n"
        );
        let columns: Vec<_> =
            table.columns.iter().map(|c| (c.name, c.kind, c.is_key, c.text.as_str())).collect();
        assert_eq!(
            columns,
            [
                ("shop", "TEXT", true, "The shop."),
                ("id", "TEXT", true, "Its id, in the shop."),
                ("total", "INTEGER", false, "In cents."),
            ]
        );
        let (_, alone) = orders.split_once("It sells.\n\n").unwrap();
        assert_eq!(faults(alone), ["orders: no comment \"Preset `name`\" is above the table"]);
    }
}
