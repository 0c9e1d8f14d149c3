//! The row format: the values that a rule writes for one event, as text from the plan to the rule's statements.
//!
//! A row is a JSON array with these members, in this order:
//!
//! | Members | When |
//! | --- | --- |
//! | source, event id, generation | always |
//! | version, precedence, extent ([`Extent`]: 0, 1 or 2) | the table compares events ([`Guard`](super::Guard)) |
//! | the columns | always; for a list, those of its owner |
//! | path of the object, event type, the body without the object | the rule fetches the object on a tie; `null` if there is nothing to fetch |
//!
//! A list is a separate array beside the row: event id, the owner's columns, and an array for each element. That has the columns
//! of the element; then version and precedence, if lists of the rule may be incomplete. So the database reads a list's text
//! once, however long the list is. The keys of a list are the same array, with the columns of each element that belong to its
//! key. Rows and lists have the same places in their parameters.
//!
//! The columns of a [suppression](super::Suppression) are the address, the group if it is about one, the reason, the version
//! and the time of writing.
//!
//! Only this module knows the indexes of members: the statements (`sql.rs`), the plan, the refetch and `explain` use it.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Effect, Elements, Extent, Order, Sql};
use hookmill_core::json::push_json;
use hookmill_core::limits::SQL_VALUE_BYTES;
use hookmill_core::store::Statement;

/// The name of the event's source.
pub const SOURCE: usize = 0;
/// The event's id.
pub const EVENT_ID: usize = 1;
/// The number of the reprocessing; 0 for the original event.
pub const GENERATION: usize = 2;
/// The version, in a row with a guard.
pub const VERSION: usize = 3;
/// The precedence among rows of one version, in a row with a guard.
pub const PRECEDENCE: usize = 4;
/// How much of the object the event shows, in a row with a guard: [`Extent`].
pub const EXTENT: usize = 5;
/// The first column of a row without a guard.
pub const PLAIN: usize = 3;
/// The first column of a row with a guard.
pub const GUARDED: usize = 6;
/// The event's id, in a list. The owner's columns follow.
pub const LIST_EVENT_ID: usize = 0;

/// Room for the keys of most lists, in bytes.
const KEYS: usize = 512;

/// The maximum size of a row and of a list, in bytes: each has to fit into one bound value, in the brackets of an array.
pub const ROW_BYTES: usize = SQL_VALUE_BYTES - 2;

/// The parameters of a statement for one event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    text: String,
    /// Empty if it has no list.
    list: String,
    keys: String,
    /// That of the event, if the table compares events.
    extent: Option<Extent>,
}

impl Row {
    /// The row, as the text of a JSON array.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its size in bytes. The keys of a list repeat the list.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.list.len()
    }

    /// Whether the row and its list each fit into one bound value.
    pub fn fits(&self) -> bool {
        self.text.len().max(self.list.len()) <= ROW_BYTES
    }

    /// The values of its columns, in the order of its rule's effect. None if the row does not fit the effect.
    pub fn columns(&self, effect: &Effect) -> Option<Vec<Value>> {
        let mut members: Vec<Value> = serde_json::from_str(&self.text).ok()?;
        let first = if effect.guard().is_some() { GUARDED } else { PLAIN };
        (members.len() >= first).then(|| members.split_off(first))
    }

    /// Its version and its precedence, if the table compares events.
    pub fn order(&self) -> Option<(i64, i64)> {
        self.extent?;
        let members: Vec<&RawValue> = serde_json::from_str(&self.text).ok()?;
        let member = |index: usize| members.get(index)?.get().parse().ok();
        Some((member(VERSION)?, member(PRECEDENCE)?))
    }

    /// The statements that write those of these rows that `sql` takes: `sql` once, or several times if the rows do not fit
    /// into one bound value.
    pub fn statements<'r>(sql: &Sql, rows: impl IntoIterator<Item = &'r Self>) -> Vec<Statement> {
        let rows = rows.into_iter().filter(|row| sql.takes.takes(row.extent));
        let text = &sql.text;
        match sql.elements {
            Elements::Unused => Statement::for_rows(text, rows.map(Self::text)),
            Elements::Keys => {
                Statement::for_lists(text, rows.map(|row| (row.text(), or_none(&row.keys))))
            }
            Elements::Whole => {
                Statement::for_lists(text, rows.map(|row| (row.text(), or_none(&row.list))))
            }
        }
    }
}

/// A list, or one without members.
fn or_none(list: &str) -> &str {
    if list.is_empty() { "[]" } else { list }
}

/// The first members of all rows of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity(
    /// An open JSON array.
    String,
);

impl Identity {
    /// The identity of an event in a generation: 0, or the number of its reprocessing.
    pub fn new(source: &str, event_id: &str, generation: u32) -> Self {
        let mut open = String::with_capacity(source.len() + event_id.len() + 24);
        push_json(&mut open, &(source, event_id, generation));
        open.pop();
        Self(open)
    }

    /// A new row, with room for this many bytes.
    pub fn row(&self, room: usize) -> RowWriter {
        let mut text = String::with_capacity(self.0.len() + room);
        text.push_str(&self.0);
        let row = Row { text, list: String::new(), keys: String::new(), extent: None };
        RowWriter { row, key_columns: 0 }
    }
}

/// Writes a row, member by member.
#[derive(Debug)]
pub struct RowWriter {
    /// Its arrays are open.
    row: Row,
    /// The number of columns that each element adds to its key.
    key_columns: usize,
}

impl RowWriter {
    /// Version, precedence and extent.
    pub fn order(&mut self, order: Order) {
        let Order { version, precedence, extent } = order;
        self.row.extent = Some(extent);
        let _ = write!(self.row.text, ",{version},{precedence},{}", extent as u8);
    }

    /// The next member as JSON text; `null` for none.
    pub fn column(&mut self, json: Option<&str>) {
        self.row.text.push(',');
        self.row.text.push_str(json.unwrap_or("null"));
    }

    /// The next members: those of a tuple.
    pub fn values(&mut self, values: &impl Serialize) {
        let bracket = self.row.text.len();
        push_json(&mut self.row.text, values);
        self.row.text.replace_range(bracket..=bracket, ",");
        self.row.text.pop();
    }

    /// The object that is fetched on a tie: its path, the event's type, and the body without the object.
    pub fn fetched(&mut self, path: &str, kind: &str, rest: &impl Serialize) {
        self.values(&(path, kind, rest));
    }

    /// No object is fetched on a tie.
    pub fn not_fetched(&mut self) {
        self.row.text.push_str(",null,null,null");
    }

    /// Begins the list of an event, with the owner's columns. The first `key_columns` of each element belong to its key.
    pub fn list<'c>(
        &mut self,
        event_id: &str,
        owner: impl Iterator<Item = Option<&'c str>>,
        key_columns: usize,
    ) {
        self.key_columns = key_columns;
        let Row { list, keys, .. } = &mut self.row;
        list.push('[');
        push_json(list, event_id);
        for json in owner {
            list.push(',');
            list.push_str(json.unwrap_or("null"));
        }
        keys.reserve(KEYS);
        keys.push_str(list);
    }

    /// The next element of the list. `order`: that of its event, if lists of the rule may be incomplete.
    pub fn element<'c>(
        &mut self,
        columns: impl Iterator<Item = Option<&'c str>>,
        order: Option<Order>,
    ) {
        let Row { list, keys, .. } = &mut self.row;
        let start = list.len();
        list.push_str(",[");
        let mut end = list.len();
        for (index, json) in columns.enumerate() {
            if index > 0 {
                list.push(',');
            }
            list.push_str(json.unwrap_or("null"));
            if index < self.key_columns {
                end = list.len();
            }
        }
        keys.push_str(&list[start..end]);
        keys.push(']');
        if let Some(Order { version, precedence, .. }) = order {
            let _ = write!(list, ",{version},{precedence}");
        }
        list.push(']');
    }

    /// The size of the row so far, in bytes.
    pub fn bytes(&self) -> usize {
        self.row.bytes()
    }

    /// Whether the row fits so far.
    pub fn fits(&self) -> bool {
        self.row.fits()
    }

    /// A row with the members so far, and no list.
    pub fn so_far(&self) -> Row {
        let text = format!("{}]", self.row.text);
        Row { text, list: String::new(), keys: String::new(), extent: self.row.extent }
    }

    /// Ends the row.
    pub fn end(mut self) -> Row {
        let Row { text, list, keys, .. } = &mut self.row;
        text.push(']');
        if !list.is_empty() {
            list.push(']');
            keys.push(']');
        }
        self.row
    }
}
