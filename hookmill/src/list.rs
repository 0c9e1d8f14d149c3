//! The output of lists.

use std::fmt::Display;
use std::io::{self, Write as _};

use comfy_table::Table;
use hookmill_core::time::Timestamp;
use serde::Serialize;
use serde_json::Value;
use unicode_general_category::{GeneralCategory, get_general_category};

/// Prints a list as a JSON array or as a table; `nothing` is the text for an empty list.
pub fn print<T: Serialize, const N: usize>(
    items: Vec<T>,
    as_json: bool,
    nothing: &str,
    header: [&str; N],
    row: impl Fn(T) -> [String; N],
) -> anyhow::Result<()> {
    if as_json {
        put(json(&items)?)
    } else if items.is_empty() {
        note!("{nothing}");
        Ok(())
    } else {
        put(table(header, items.into_iter().map(row)))
    }
}

/// Prints a line, or several.
pub fn put(text: impl Display) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        // The reader has closed the pipe, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

/// Prints a line as `println!` does, but without a panic if the reader has closed the pipe.
macro_rules! print_line {
    ($($text:tt)*) => {
        $crate::list::put(format_args!($($text)*))?
    };
}
pub(crate) use print_line;

/// Prints a note to standard error as `eprintln!` does, but without a panic if the reader has closed the pipe.
macro_rules! note {
    ($($text:tt)*) => {
        $crate::list::put_note(format_args!($($text)*))
    };
}
pub(crate) use note;

/// Prints a note. If standard error is closed, the command goes on.
pub fn put_note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes bytes as they are.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// As JSON on several lines.
pub fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(escaped(serde_json::to_string_pretty(value)?))
}

/// JSON without characters that change the terminal: beyond ASCII there are some that JSON does not escape.
pub fn escaped(json: String) -> String {
    let moves = |c: char| changes_terminal(c) && c != '\n';
    if !json.contains(moves) {
        return json;
    }
    json.chars().fold(String::with_capacity(json.len()), |mut text, c| {
        if moves(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(c);
        }
        text
    })
}

/// Prints a list from the admin API in the same way.
pub fn listed<const N: usize>(
    found: Value,
    json: bool,
    nothing: &str,
    header: [&str; N],
    row: impl Fn(&Value) -> [String; N],
) -> anyhow::Result<()> {
    let Value::Array(items) = found else { anyhow::bail!("the API response is not a list") };
    print(items, json, nothing, header, |item| row(&item))
}

/// A value from the API as a text without control characters. A missing value is blank.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}

/// A name from the API. A missing name is `-`.
pub fn name(value: &Value) -> String {
    Some(text(value)).filter(|name| !name.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// A time from the API, for people. A missing time is blank.
pub fn time(value: &Value) -> String {
    value.as_i64().map(|at| Timestamp::from_millis(at).to_string()).unwrap_or_default()
}

/// A table with aligned columns. Control characters are replaced, since payloads are not trusted.
pub fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows.map(|row| row.map(|text| plain(&text))));
    table
}

/// A text without characters that change the terminal.
pub fn plain(text: &str) -> String {
    text.replace(changes_terminal, "\u{fffd}")
}

/// Whether a character moves the cursor, reorders the text, or is invisible: control and format characters, and the
/// separators of lines and paragraphs.
fn changes_terminal(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    // Most texts are ASCII.
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    matches!(get_general_category(c), Control | Format | LineSeparator | ParagraphSeparator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        let value = serde_json::json!({ "id": "a\u{1b}[2J\u{9b}2J\u{7f}\nb" });
        assert_eq!(text(&value["id"]), "a\u{fffd}[2J\u{fffd}2J\u{fffd}\u{fffd}b");
        let shown = json(&value).unwrap();
        assert_eq!(shown, "{\n  \"id\": \"a\\u001b[2J\\u009b2J\\u007f\\nb\"\n}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);

        let value = serde_json::json!("evt\u{202e}1\u{2028}2\u{200b}\u{feff}\u{e0001}\u{e9}");
        assert_eq!(text(&value), "evt\u{fffd}1\u{fffd}2\u{fffd}\u{fffd}\u{fffd}\u{e9}");
        let shown = json(&value).unwrap();
        assert_eq!(shown, "\"evt\\u202e1\\u20282\\u200b\\ufeff\\udb40\\udc01\u{e9}\"");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }
}
