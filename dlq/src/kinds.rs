//! Searches by kind: the different values of the first columns of an index, such as the sources and types of events.
//!
//! SQLite reads an index in one order. To find the latest rows among several kinds, or the few rows of a rare one, a search
//! lists the kinds and takes a page of each. Its cost depends on the number of kinds, not on the number of rows.

use std::fmt::Write as _;

/// The columns of `event_kinds` that make a kind.
pub const EVENT_KIND: [&str; 3] = ["event_kinds.source", "event_kinds.type", "event_kinds.outcome"];

/// The columns of the index `dead_letters_kind` that make a kind.
pub const LETTER_KIND: [&str; 5] =
    ["state", "ifnull(source, '')", "ifnull(type, '')", "reason", "fingerprint"];

/// The columns of the index `outbox_kind` that make a kind, and those of `outbox_unsent`.
pub const OUTBOX_KIND: [&str; 2] = ["channel", "rule"];
/// See [`OUTBOX_KIND`].
pub const UNSENT_KIND: [&str; 3] = ["state", "channel", "rule"];

/// A common table expression for `WITH RECURSIVE`: the table `kinds` with the column `kind`, a JSON array of the values of
/// these columns. Its last row is NULL. The columns are the first of an index, and none is NULL.
pub fn kinds(table: &str, columns: &[&str]) -> String {
    let kind = format!("json_array({})", columns.join(", "));
    let mut sql = format!(
        "kinds(kind) AS (
    SELECT (SELECT {kind} FROM {table} ORDER BY {} LIMIT 1)
    UNION ALL SELECT coalesce(NULL",
        columns.join(", ")
    );
    // The next kind differs in the last column, else in the one before it, and so on. Each is one search of the index; a
    // comparison of all columns at once would read all rows of the kind.
    for (place, column) in columns.iter().enumerate().rev() {
        let same = of_kind(&columns[..place]);
        let following = columns[place..].join(", ");
        let _ = write!(
            sql,
            ",
        (SELECT {kind} FROM {table} WHERE {same} AND {column} > kind ->> {place} ORDER BY {following} LIMIT 1)"
        );
    }
    sql.push_str(") FROM kinds WHERE kind IS NOT NULL\n)");
    sql
}

/// The condition that a row is of the kind `kind`.
pub fn of_kind(columns: &[&str]) -> String {
    let mut sql = String::from("true");
    for (place, column) in columns.iter().enumerate() {
        let _ = write!(sql, " AND {column} = kind ->> {place}");
    }
    sql
}
