//! Rules: which events change which rows. Written in hookmill.toml, compiled once to SQL, carried out by the consumers.
//!
//! A [`Program`] is the compiled form. It holds no name that was not checked against the schema and no text that came from
//! a payload; values travel as one bound JSON array for each statement.
//!
//! The law that makes the order of arrival irrelevant: **a row is a function of the greatest event for its key**, where
//! events compare by (version, precedence, event id). So every rule of a table sets the same columns; a deletion may set
//! fewer, and leaves the rest `NULL` on the tombstone. Counters are the other kind of table: additions commute, and the
//! ledger sees to it that each is made once.

mod path;
mod pattern;
mod read;

#[cfg(feature = "config")]
pub mod compile;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outbound::{Outcome, Provider};
pub use path::{Path, PathError, Select, Step};
pub use pattern::Pattern;

pub use read::{NotJson, Read, Reads, Values};

/// Columns that a table needs for rules with a version, besides those that the rules name.
pub const GUARD_COLUMNS: [&str; 4] = ["_version", "_precedence", "_event_id", "_deleted"];

/// All rules, ready to be carried out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Program {
    /// Everything any rule reads.
    pub reads: Reads,
    /// The rules, in the order of hookmill.toml.
    pub rules: Vec<Rule>,
    /// By source: what becomes of an event that no rule names.
    pub unknown: BTreeMap<String, Unknown>,
}

/// One compiled rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Its name in hookmill.toml.
    pub name: String,
    /// The events it applies to.
    pub on: Vec<Pattern>,
    /// One statement with one parameter: a JSON array with an array for each row, that begins with
    /// `source, event id, generation`; the rest is what [`Effect`] says.
    pub sql: Arc<str>,
    /// What has to hold for it to be carried out: all of these.
    pub when: Vec<Condition>,
    /// What it does.
    pub effect: Effect,
}

/// What a rule does with an event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It writes a row of a table. Its array goes on with `version, precedence, deleted`, which a counter has not, and the
    /// columns.
    Row {
        /// The table.
        table: String,
        /// How the rows of its table compare; `None` for a counter.
        guard: Option<Guard>,
        /// What goes into the row's columns, keys first.
        columns: Vec<Column>,
    },
    /// It writes something into the outbox. Its array goes on with `rule, id, channel, recipient, content, due at, now`.
    Send {
        /// What.
        send: Send,
        /// Its data, by name.
        data: Vec<(String, Value)>,
        /// How long after its event it is sent.
        delay: Duration,
    },
    /// It writes down what became of something that was sent. Its array goes on with `id, outcome, rank, now`.
    Outcome {
        /// Its id, as the provider was told it and tells it again; or what the provider knows it by.
        of: Value,
        /// What became of it.
        outcome: Outcome,
    },
    /// It puts addresses on the list of those that are not written to: an array for each, that goes on with
    /// `address, reason, now`.
    Suppress {
        /// The address, or a list of them.
        address: Value,
        /// Why.
        reason: String,
    },
}

/// What a rule sends because of an event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Send {
    /// An email.
    Email {
        /// The name of its template.
        template: String,
        /// To whom: a mailbox, or a list of them.
        to: Value,
        /// Who has a copy.
        cc: Option<Value>,
        /// Where answers go, if not where `[email]` says.
        reply_to: Option<Value>,
    },
    /// An SMS.
    Sms {
        /// To whom: a number.
        to: Value,
        /// What it says: a template.
        body: String,
    },
    /// What somebody did.
    Track {
        /// Who is told.
        provider: Provider,
        /// What it is called.
        event: String,
        /// Who has done it.
        user: Value,
    },
}

/// What a value in the payload has to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Condition {
    /// Where the value is.
    pub read: Read,
    /// What it may be: JSON texts, of which one is enough; `null` for nothing there.
    pub any_of: Vec<String>,
    /// If true, it has to be none of these.
    pub not: bool,
}

impl Condition {
    /// Whether it holds.
    ///
    /// # Errors
    ///
    /// If the body is not JSON.
    pub fn holds(&self, values: &Values<'_>) -> Result<bool, NotJson> {
        let found = self.read.value(values)?.unwrap_or("null");
        // Numbers and texts have several spellings.
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        let found = parse(found);
        Ok(self.any_of.iter().any(|value| parse(value) == found) != self.not)
    }
}

/// How two events for the same row compare, besides by their ids, and which of them delete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Guard {
    /// Patterns of the event types that delete; a deletion wins among equal versions.
    pub delete: Vec<String>,
    /// Where the version is; a whole number.
    pub version: Read,
    /// Its path, for messages.
    pub path: String,
    /// What decides between equal versions, before the event's id does.
    pub precedence: Precedence,
}

/// What decides between events of equal version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precedence {
    /// Nothing but the event's id.
    None,
    /// The value of a column: the later in `order`, the stronger.
    Value {
        /// Index into the row's columns.
        column: usize,
        /// Values, weakest first.
        order: Vec<String>,
    },
    /// The event's type: the later in `order`, the stronger.
    Type {
        /// Patterns of event types, weakest first.
        order: Vec<String>,
    },
}

/// Precedence of a deletion: above any place in a configured order.
pub const DELETION: i64 = 1_000_000;

impl Guard {
    /// Whether an event of this type deletes.
    pub fn deletes(&self, event_type: &str) -> bool {
        self.delete.iter().any(|glob| pattern::matches(glob, event_type))
    }

    /// The number that is compared between equal versions: [`DELETION`], a place in the order, or -1 for what is not in it.
    pub fn rank(&self, event_type: &str, columns: &[Option<&str>]) -> i64 {
        let place =
            |position: Option<usize>| position.and_then(|p| i64::try_from(p).ok()).unwrap_or(-1);
        if self.deletes(event_type) {
            return DELETION;
        }
        match &self.precedence {
            Precedence::None => 0,
            Precedence::Value { column, order } => {
                let value =
                    columns[*column].and_then(|text| serde_json::from_str::<String>(text).ok());
                place(value.and_then(|value| order.iter().position(|o| *o == value)))
            }
            Precedence::Type { order } => {
                place(order.iter().position(|glob| pattern::matches(glob, event_type)))
            }
        }
    }
}

/// What goes into a column.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// Where its value is from.
    pub value: Value,
    /// Whether the row cannot be without it: part of the key.
    pub required: bool,
}

/// Where a value is from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// The first of these that is there and not `null`, with the paths for messages.
    Paths(Vec<(Read, String)>),
    /// Always the same: a JSON text.
    Constant(String),
}

/// As in hookmill.toml, for messages.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(json) => json.fmt(f),
            Self::Paths(paths) => {
                let paths: Vec<_> = paths.iter().map(|(_, path)| path.as_str()).collect();
                f.write_str(&paths.join("` or `"))
            }
        }
    }
}

/// What becomes of a verified event that no rule names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// It is acknowledged and leaves no trace.
    Ignore,
    /// It is recorded in the ledger.
    #[default]
    Record,
    /// It becomes a dead letter.
    DeadLetter,
}

impl Rule {
    /// Whether carrying it out again for an event that it was carried out for does no harm: it writes the row that is there,
    /// or leaves it to a later event. A counter would count again, and whoever was written to would be written to again.
    pub const fn is_repeatable(&self) -> bool {
        matches!(self.effect, Effect::Row { guard: Some(_), .. })
    }
}

impl Program {
    /// The rules for an event, in order.
    pub fn matching<'p>(
        &'p self,
        source: &'p str,
        event_type: &'p str,
    ) -> impl Iterator<Item = (usize, &'p Rule)> {
        self.rules.iter().enumerate().filter(move |(_, rule)| {
            rule.on.iter().any(|pattern| pattern.matches(source, event_type))
        })
    }
}
