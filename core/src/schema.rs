//! The tables of the database, as far as rules need them. Read from a migrated database.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The tables of a migrated database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Schema {
    /// By name.
    pub tables: BTreeMap<String, Table>,
    /// The views that can be read, by name.
    pub views: BTreeMap<String, Table>,
    /// The other views, and SQLite's errors.
    pub broken_views: BTreeMap<String, String>,
}

impl Schema {
    /// The table or view of this name.
    pub fn relation(&self, name: &str) -> Option<&Table> {
        self.tables.get(name).or_else(|| self.views.get(name))
    }

    /// The names of all tables and views.
    pub fn relations(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().chain(self.views.keys()).map(String::as_str)
    }
}

/// One table or view. A view has only columns.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// The columns that can be written, in order.
    pub columns: Vec<TableColumn>,
    /// The names of the columns that SQLite computes, `GENERATED ALWAYS AS`.
    pub generated: Vec<String>,
    /// Columns that are unique together, besides the primary key.
    pub unique: Vec<Vec<String>>,
    /// The columns of each index, the primary key's included, in its order.
    pub indexes: Vec<Vec<String>>,
    /// The columns in which different texts may be equal, as with `COLLATE NOCASE`.
    pub folding: Vec<String>,
    /// Whether a conflict silently drops or replaces a row: `ON CONFLICT IGNORE` or `ON CONFLICT REPLACE`.
    pub drops_rows: bool,
}

/// One column of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its declared type, upper case: `TEXT`, `INTEGER`.
    pub kind: String,
    /// What it makes of the values that it stores.
    pub affinity: Affinity,
    /// Whether it is `NOT NULL`.
    pub not_null: bool,
    /// Whether it has a default.
    pub default: bool,
    /// Whether it is part of the primary key.
    pub key: bool,
}

/// What a column makes of the values that it stores.
/// Source: <https://www.sqlite.org/datatype3.html#determination_of_column_affinity>.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// Texts of numbers become numbers.
    Integer,
    /// Numbers become texts.
    Text,
    /// Nothing.
    AsIs,
    /// Numbers, also in texts, become floating-point numbers of 64 bits.
    Real,
    /// Texts of numbers become numbers, of 64 bits if they have a fraction.
    Numeric,
}

impl Affinity {
    /// That of a declared type, in upper case.
    pub fn of(kind: &str, is_strict: bool) -> Self {
        let has = |names: &[&str]| names.iter().any(|name| kind.contains(name));
        if has(&["INT"]) {
            Self::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Self::Text
        } else if kind.is_empty() || has(&["BLOB"]) || (is_strict && kind == "ANY") {
            Self::AsIs
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Self::Real
        } else {
            Self::Numeric
        }
    }
}

/// The table with the versions of removed rows, and of lists.
pub const ROW_GUARDS: &str = "row_guards";

/// The table of suppressed addresses.
pub const SUPPRESSIONS: &str = "suppressions";

/// The table of addresses that are suppressed for a group of emails.
pub const GROUP_SUPPRESSIONS: &str = "group_suppressions";

/// Hookmill's own tables, which rules cannot write.
pub const OWN_TABLES: [&str; 28] = [
    "activity",
    "admin_failures",
    "admin_tokens",
    "alerts",
    "api_version_counts",
    "audit",
    "body_search",
    "dead_letters",
    "drifts",
    "event_kinds",
    "event_messages",
    "events",
    GROUP_SUPPRESSIONS,
    "listed_rows",
    "outbox",
    "outbox_batches",
    "outbox_senders",
    "outbox_usage",
    "refetches",
    "rejection_counts",
    "rejections",
    "replays",
    "retries",
    ROW_GUARDS,
    "rule_counts",
    "stale_bodies",
    SUPPRESSIONS,
    "sweeps",
];

impl Table {
    /// The names of all columns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| &column.name).chain(&self.generated).map(String::as_str)
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_the_affinity_that_sqlite_derives_from_its_type() {
        for (kind, expected) in [
            ("BIGINT", Affinity::Integer),
            ("FLOATING POINT", Affinity::Integer),
            ("CHARINT", Affinity::Integer),
            ("VARCHAR(20)", Affinity::Text),
            ("", Affinity::AsIs),
            ("BLOB", Affinity::AsIs),
            ("DOUBLE PRECISION", Affinity::Real),
            ("ANY", Affinity::Numeric),
            ("STRING", Affinity::Numeric),
            ("DECIMAL(10,5)", Affinity::Numeric),
            ("BOOLEAN", Affinity::Numeric),
        ] {
            assert_eq!(Affinity::of(kind, false), expected, "{kind}");
        }
        assert_eq!(Affinity::of("ANY", true), Affinity::AsIs);
    }
}
