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
//! The elements of a list are separate arrays beside the row: source, event id, the owner's columns, and the columns of the
//! element; then version and precedence, if lists of the rule may be incomplete. So the database reads a list's text once,
//! however long the list is. The key of an element is an array of its first members: source, event id, the owner's columns, and
//! the other columns of the key.
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
use hookmill_core::time::Timestamp;

/// The name of the event's source, in a row and in an element.
pub const SOURCE: usize = 0;
/// The event's id, in a row and in an element.
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
/// The number of members after the columns, if the rule fetches the object on a tie.
pub const FETCH: usize = 3;
/// The first column of an element of a list.
pub const ELEMENT: usize = 2;

/// Room for the keys of most lists, in bytes.
const KEYS: usize = 512;

/// The maximum size of a row and of a list, in bytes: each has to fit into one bound value, in the brackets of an array.
pub const ROW_BYTES: usize = SQL_VALUE_BYTES - 2;

/// The parameters of a statement for one event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    text: String,
    elements: String,
    keys: String,
    /// That of the event, if the table compares events.
    extent: Option<Extent>,
}

impl Row {
    /// The row, as the text of a JSON array.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The elements of its list, if it has one: the texts of JSON arrays, joined with commas.
    pub fn elements(&self) -> &str {
        &self.elements
    }

    /// Its size in bytes. The keys of elements repeat the elements.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.elements.len()
    }

    /// Whether the row and its list each fit into one bound value.
    pub fn fits(&self) -> bool {
        self.text.len().max(self.elements.len()) <= ROW_BYTES
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

    /// The same row with a precedence above all events of its version, and without an object to fetch. None if the row has
    /// no version, or its rule fetches nothing. `ordered`: its elements have an order of their own.
    pub fn outranking(&self, at: Timestamp, ordered: bool) -> Option<Self> {
        let members: Vec<&RawValue> = serde_json::from_str(&self.text).ok()?;
        let fetch = members.len().checked_sub(FETCH).filter(|fetch| *fetch > GUARDED)?;
        let mut text = String::with_capacity(self.text.len());
        let mut elements = self.elements.clone();
        if ordered {
            let list = format!("[{elements}]");
            let list: Vec<Vec<&RawValue>> = serde_json::from_str(&list).ok()?;
            elements.clear();
            for mut element in list {
                element.pop();
                elements.push_str(if elements.is_empty() { "[" } else { ",[" });
                for member in element {
                    elements.push_str(member.get());
                    elements.push(',');
                }
                push_json(&mut elements, &at);
                elements.push(']');
            }
        }
        for (index, member) in members.into_iter().enumerate() {
            text.push(if index == 0 { '[' } else { ',' });
            match index {
                PRECEDENCE => push_json(&mut text, &at),
                index if index >= fetch => text.push_str("null"),
                _ => text.push_str(member.get()),
            }
        }
        text.push(']');
        Some(Self { text, elements, keys: self.keys.clone(), extent: self.extent })
    }

    /// The statements that write those of these rows that `sql` takes: `sql` once, or several times if the rows do not fit
    /// into one bound value.
    pub fn statements<'r>(sql: &Sql, rows: impl IntoIterator<Item = &'r Self>) -> Vec<Statement> {
        let rows = rows.into_iter().filter(|row| sql.takes.takes(row.extent));
        let text = &sql.text;
        match sql.elements {
            Elements::Unused => Statement::for_rows(text, rows.map(Self::text)),
            Elements::Keys => Statement::for_lists(text, rows.map(|row| (row.text(), &*row.keys))),
            Elements::Whole => {
                Statement::for_lists(text, rows.map(|row| (row.text(), row.elements())))
            }
        }
    }
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
        let row = Row { text, elements: String::new(), keys: String::new(), extent: None };
        RowWriter { row, element: String::new(), key_columns: 0 }
    }
}

/// Writes a row, member by member.
#[derive(Debug)]
pub struct RowWriter {
    row: Row,
    /// The first members of every element of its list: an open JSON array.
    element: String,
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
        (source, event_id): (&str, &str),
        owner: impl Iterator<Item = Option<&'c str>>,
        key_columns: usize,
    ) {
        self.key_columns = key_columns;
        self.row.keys.reserve(KEYS);
        push_json(&mut self.element, &(source, event_id));
        self.element.pop();
        for json in owner {
            self.element.push(',');
            self.element.push_str(json.unwrap_or("null"));
        }
    }

    /// The next element of the list. `order`: that of its event, if lists of the rule may be incomplete.
    pub fn element<'c>(
        &mut self,
        columns: impl Iterator<Item = Option<&'c str>>,
        order: Option<Order>,
    ) {
        let Row { elements, keys, .. } = &mut self.row;
        if !elements.is_empty() {
            elements.push(',');
            keys.push(',');
        }
        let start = elements.len();
        elements.push_str(&self.element);
        let mut end = elements.len();
        for (index, json) in columns.enumerate() {
            elements.push(',');
            elements.push_str(json.unwrap_or("null"));
            if index < self.key_columns {
                end = elements.len();
            }
        }
        keys.push_str(&elements[start..end]);
        keys.push(']');
        if let Some(Order { version, precedence, .. }) = order {
            let _ = write!(elements, ",{version},{precedence}");
        }
        elements.push(']');
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
        Row { text, elements: String::new(), keys: String::new(), extent: self.row.extent }
    }

    /// Ends the row.
    pub fn end(mut self) -> Row {
        self.row.text.push(']');
        self.row
    }
}
