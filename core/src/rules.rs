//! Rules: which events change which rows. Written in hookmill.toml, compiled once to SQL, carried out by the consumers.
//!
//! A [`Program`] is the compiled form. It holds no name that was not checked against the schema and no text that came from
//! a payload; values travel as one bound JSON array for each statement.
//!
//! The law that makes the order of arrival irrelevant: **a row is a function of the greatest event for its key**, where
//! events compare by (version, precedence, event id). So every rule of a table sets the same columns; a deletion may set
//! fewer, and leaves the rest `NULL` on the tombstone. Where a rule has `each`, what is said of the row is true of the set of
//! rows that one list makes: it is a function of the greatest event for that list. Counters are the other kind of table:
//! additions commute, and the ledger sees to it that each is made once.

mod path;
mod pattern;
mod read;
pub mod row;
#[cfg(feature = "config")]
mod sql;
mod value;

#[cfg(feature = "config")]
pub mod compile;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outbound::{Outcome, Provider};
use crate::words::RuleEffect;
pub use path::{Path, PathError, Select, Step};
pub use pattern::Pattern;

pub use read::{NotJson, Read, Reads, Stopped, Values, each_element};
pub use value::{
    EventFacts, EventField, Form, PathRead, Places, Scope, Value, ValueError, ValuePath,
};

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
    pub unmatched: BTreeMap<String, Unmatched>,
}

/// One compiled rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Its name in hookmill.toml.
    pub name: String,
    /// The events it applies to.
    pub on: Vec<Pattern>,
    /// Statements, in order. Each is given the same rows, in the format of [`row`].
    pub sql: Vec<Sql>,
    /// If code says what its values are: which.
    pub handler: Option<HandlerRef>,
    /// If it makes a row of each element of a list: of which.
    pub each: Option<Each>,
    /// What has to hold for it to be carried out: all of these. Of an element, for that to make a row.
    pub when: Vec<Condition>,
    /// What it does.
    pub effect: Effect,
}

/// A rule whose paths are not those of the body, but of what a handler makes of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HandlerRef {
    /// The handler's name.
    pub name: String,
    /// What is read of each value that it returns.
    pub reads: Reads,
}

/// The list that a rule goes through.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Each {
    /// Where it is.
    pub list: PathRead,
    /// What is read of each element.
    pub reads: Reads,
}

/// What a rule does with an event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It writes a row of a table.
    Row {
        /// The table.
        table: String,
        /// How the rows of its table compare; `None` for a counter.
        guard: Option<Guard>,
        /// What goes into the row's columns, keys first.
        columns: Vec<Column>,
    },
    /// It writes the rows that a list makes, and removes those that are no longer in it. The row is that of the list.
    Rows {
        /// The table.
        table: String,
        /// How two events about the same list compare.
        guard: Guard,
        /// The columns of the key that are the same for all rows of the list.
        owner: Vec<Column>,
        /// The other columns, those of the key first.
        columns: Vec<Column>,
    },
    /// It writes something into the outbox. The columns of its row are `rule, id, channel, recipient, content, due at, now`.
    Send {
        /// What.
        send: Send,
        /// Its data, by name.
        data: Vec<(String, Value)>,
        /// How long after its event it is sent.
        delay: Duration,
    },
    /// It writes down what became of something that was sent. The columns of its row are `id, outcome, rank, now`.
    Outcome {
        /// Its id, as the provider was told it and tells it again; or what the provider knows it by.
        of: Value,
        /// Whether that is what the provider knows it by.
        by_provider_id: bool,
        /// What became of it.
        outcome: Outcome,
    },
    /// It puts addresses on the list of those that are not written to: a row for each, with the columns
    /// `address, reason, now`.
    Suppress {
        /// The address, or a list of them.
        address: Value,
        /// Why.
        reason: String,
    },
}

/// A statement of a rule, made once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sql {
    /// SQL text.
    pub text: Arc<str>,
    /// Whether it takes the elements of lists as `?2`, beside the rows as `?1`.
    pub takes_elements: bool,
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
    pub path: PathRead,
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
    pub fn holds(&self, scope: Scope<'_>) -> Result<bool, NotJson> {
        let found = self.path.json(scope)?.unwrap_or("null");
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
    /// Where the version is: [`Value::version`].
    pub version: Value,
    /// What decides between equal versions, before the event's id does.
    pub precedence: Precedence,
    /// If that decides nothing: whose API is asked for the object.
    pub refetch: Option<Refetch>,
}

/// Whose API is asked for an object, and for which.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refetch {
    /// Whose.
    pub provider: Provider,
    /// Where the object's id is.
    pub id: PathRead,
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

/// Above any place in a configured order, and below any time in milliseconds, which is the precedence of an object that was
/// fetched then.
pub const FETCHED: i64 = 1_000_000;

/// Precedence of a deletion: above that of any object that was fetched.
pub const DELETION: i64 = 1 << 52;

impl Guard {
    /// Whether an event of this type deletes.
    pub fn deletes(&self, event_type: &str) -> bool {
        self.delete.iter().any(|glob| pattern::matches(glob, event_type))
    }

    /// The number that is compared between equal versions: [`DELETION`], a place in the order, or -1 for what is not in it.
    pub fn rank(&self, event_type: &str, columns: &[Option<Cow<'_, str>>]) -> i64 {
        let place =
            |position: Option<usize>| position.and_then(|p| i64::try_from(p).ok()).unwrap_or(-1);
        if self.deletes(event_type) {
            return DELETION;
        }
        match &self.precedence {
            Precedence::None => 0,
            Precedence::Value { column, order } => {
                let value = columns.get(*column).and_then(Option::as_deref);
                let value = value.and_then(|text| serde_json::from_str::<String>(text).ok());
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

/// What becomes of a verified event that no rule names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// It is acknowledged and leaves no trace.
    Ignore,
    /// It is recorded in the ledger.
    #[default]
    Record,
    /// It becomes a dead letter.
    DeadLetter,
}

impl Effect {
    /// How the rows that it writes compare, if they do.
    pub const fn guard(&self) -> Option<&Guard> {
        match self {
            Self::Row { guard, .. } => guard.as_ref(),
            Self::Rows { guard, .. } => Some(guard),
            Self::Send { .. } | Self::Outcome { .. } | Self::Suppress { .. } => None,
        }
    }

    /// The word for it.
    pub const fn word(&self) -> RuleEffect {
        match self {
            Self::Row { guard: Some(_), .. } => RuleEffect::Row,
            Self::Row { guard: None, .. } => RuleEffect::Count,
            Self::Rows { .. } => RuleEffect::Rows,
            Self::Send { send: Send::Email { .. }, .. } => RuleEffect::Email,
            Self::Send { send: Send::Sms { .. }, .. } => RuleEffect::Sms,
            Self::Send { send: Send::Track { .. }, .. } => RuleEffect::Track,
            Self::Outcome { .. } => RuleEffect::Outcome,
            Self::Suppress { .. } => RuleEffect::Suppress,
        }
    }

    /// The table that it writes, if that is one of the user's or a preset's.
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::Row { table, .. } | Self::Rows { table, .. } => Some(table),
            Self::Send { .. } | Self::Outcome { .. } | Self::Suppress { .. } => None,
        }
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
