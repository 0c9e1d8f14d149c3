//! Rules: which events change which rows. Written in hookmill.toml, compiled once to SQL, executed by the consumers.
//!
//! A [`Program`] is the compiled form. It contains only names that were checked against the schema, and no text from a
//! payload; values travel as one bound JSON array for each statement.
//!
//! The law that makes the order of arrival irrelevant: **a row is a function of the greatest event for its key**, where
//! events compare by (version, precedence, event id). So every rule of a table sets the same columns; a deletion may set
//! fewer, and leaves the others `NULL` on the tombstone. For a rule with `each`, the law holds for the set of rows that one
//! list produces: it is a function of the greatest event for that list. Counters are the other kind of table: additions
//! commute, and the ledger ensures that each happens once.

#[cfg(feature = "toml")]
pub mod agree;
pub mod api;
#[cfg(feature = "toml")]
pub mod ast;
#[cfg(feature = "toml")]
pub mod compile;
#[cfg(feature = "toml")]
pub mod decl;
pub mod handler;
mod number;
mod path;
mod pattern;
#[cfg(feature = "toml")]
pub mod preset;
mod read;
pub mod row;
#[cfg(feature = "toml")]
mod sql;
mod time;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hookmill_core::outbound::{Outcome, Provider};
use hookmill_core::schema::{GROUP_SUPPRESSIONS, SUPPRESSIONS};
use hookmill_core::words::RuleEffect;
use serde::{Deserialize, Serialize};

pub use path::{Path, PathError, PlainPath, Select, Step};
pub use pattern::Pattern;
pub use read::{Body, NotJson, Read, Reads, Slot, Stopped, Values, each_element};
pub use time::{DatePart, Spelling, TimeForm, Zone};
pub use value::{
    EventFacts, EventField, Form, PathRead, Places, Scope, Value, ValueError, ValuePath,
};

/// Columns that a table needs for rules with a version, besides those that the rules name.
pub const GUARD_COLUMNS: [&str; 4] = ["_version", "_precedence", "_event_id", "_deleted"];

/// All rules, ready to run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Program {
    /// The paths that rules read.
    pub reads: Reads,
    /// The rules, in the order of hookmill.toml.
    pub rules: Vec<Rule>,
    /// By source: how to treat an event that no rule matches.
    pub unmatched: BTreeMap<String, Unmatched>,
}

/// One compiled rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Its name in hookmill.toml.
    pub name: String,
    /// The events it applies to.
    pub on: Vec<Pattern>,
    /// Statements, in order. Each gets the same rows, in the format of [`row`].
    pub sql: Vec<Sql>,
    /// The handler, if the rule has one.
    pub handler: Option<HandlerRef>,
    /// The list, if the rule writes a row for each of its elements.
    pub each: Option<Each>,
    /// The conditions.
    pub when: When,
    /// The effect.
    pub effect: Effect,
    /// The statements of a reconciliation, if a list of the provider's API contains the rule's objects.
    pub proof: Option<Proof>,
}

/// Statements that compare the rows of a rule with those in its table. They take rows as the rule's own statements do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// Returns a row for each difference:
    ///
    /// - `object`: the event's id;
    /// - `key`: the row's key, a JSON array of texts;
    /// - `verdict`: `missing`, `extra` or `different`; `deleted` if the row is deleted for good; or `newer` if a newer event has
    ///   changed the row or list;
    /// - `columns`: for `different`, a JSON array of `[name, held, other]`, with the values as texts.
    pub compare: Sql,
    /// Adds the rows to `listed_rows`. `None` if the key is not the object's id, or if another source writes the table.
    pub listed: Option<Sql>,
    /// Finds the rows that are not in `listed_rows`. `None` in the same cases.
    pub rest: Option<Rest>,
}

/// A statement that finds the rows that are not in `listed_rows`.
///
/// Parameters: `?1` the generation; `?2` the id to start at, `NULL` for the first; `?3` the connected account of Stripe; `?4` the
/// maximum number of rows to read. It returns one row: `last`, the last id that it read; `read`, the number of rows that it read;
/// and `rest`, a JSON array with the ids that it found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rest {
    /// SQL text.
    pub text: Arc<str>,
    /// Whether the table has a column with the account, so that the statement leaves out rows of other accounts.
    pub tells_accounts: bool,
}

impl Rule {
    /// The name of a value that its rows have, by its index: a column, or a member of `data`. After the last comes the list.
    pub fn value_name(&self, index: usize) -> &str {
        let name = match &self.effect {
            Effect::Row { columns, .. } | Effect::Rows { columns, .. } => {
                columns.get(index).map(|column| &column.name)
            }
            Effect::Send { data, .. } => data.get(index).map(|(name, _)| name),
            Effect::Outcome { .. } | Effect::Suppress(_) | Effect::Lift(_) => None,
        };
        name.map_or("each", String::as_str)
    }
}

/// A handler of a rule. The rule's paths refer to the values that the handler returns.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HandlerRef {
    /// The handler's name.
    pub name: String,
    /// The paths that the rule reads in each returned value.
    pub reads: Reads,
}

/// The list of a rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Each {
    /// The path of the list.
    pub list: PathRead,
    /// The paths that the rule reads in each element.
    pub reads: Reads,
    /// The path that says whether the list goes on elsewhere, if lists may be incomplete.
    pub more: Option<PathRead>,
}

impl Each {
    /// Whether an event shows only a part of its list: there is a value, and it is neither `false` nor 0 nor blank. Some
    /// providers send the URL of the next page.
    pub fn is_partial(&self, scope: Scope<'_>) -> bool {
        let more = self.more.as_ref().and_then(|more| more.json(scope));
        more.is_some_and(|more| !["false", "\"\""].contains(&&*more) && !number::same(&more, "0"))
    }
}

/// The effect of a rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It writes a row of a table.
    Row {
        /// The table.
        table: String,
        /// How the rows of its table compare; `None` for a counter.
        guard: Option<Guard>,
        /// The columns and their values, keys first.
        columns: Vec<Column>,
    },
    /// It writes the rows of a list, and removes rows that are no longer in it; an incomplete list removes none. The row in
    /// [`row`] format belongs to the list.
    Rows {
        /// The table.
        table: String,
        /// How two events about the same list compare.
        guard: Guard,
        /// The columns of the key that are equal for all rows of the list.
        owner: Vec<Column>,
        /// The other columns, those of the key first.
        columns: Vec<Column>,
        /// The number of these that belong to the key.
        keys: usize,
    },
    /// It writes a message into the outbox. The columns of its row are `rule, id, channel, recipient, content, due at,
    /// now`.
    Send {
        /// The message.
        send: Send,
        /// Its data, by name.
        data: Vec<(String, Value)>,
        /// The delay after its event.
        delay: Duration,
    },
    /// It records the outcome of a message. The columns of its row are `id, outcome, rank, now`.
    Outcome {
        /// The id of the message, as Hookmill gave it to the provider; or the provider's own id.
        of: Value,
        /// Whether it is the provider's id.
        by_provider_id: bool,
        /// The outcome.
        outcome: Outcome,
    },
    /// It suppresses addresses: a row for each, see [`row`].
    Suppress(Suppression),
    /// It lifts suppressions: the same rows.
    Lift(Suppression),
}

/// The suppressions that a rule writes or lifts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Suppression {
    /// The address, or a list of them.
    pub address: Value,
    /// The reasons: each is a suppression of its own.
    pub reasons: Vec<String>,
    /// The group of emails that they are about; all emails without one.
    pub group: Option<Value>,
    /// The time that orders them: [`Value::version`]; that of the receipt without one.
    pub version: Option<Value>,
}

impl Suppression {
    /// The table of its rows.
    pub const fn table(&self) -> &'static str {
        if self.group.is_some() { GROUP_SUPPRESSIONS } else { SUPPRESSIONS }
    }

    /// The columns of its primary key.
    pub const fn key(&self) -> &'static [&'static str] {
        if self.group.is_some() {
            &["address", "group_id", "reason"]
        } else {
            &["address", "reason"]
        }
    }
}

/// A compiled statement of a rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sql {
    /// SQL text.
    pub text: Arc<str>,
    /// What it takes of the elements of lists, as `?2`, beside the rows as `?1`.
    pub elements: Elements,
    /// The rows that it takes. Without one, it is not run.
    pub takes: Takes,
}

/// What a statement takes of the elements of lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Elements {
    /// Nothing: it has no second parameter.
    Unused,
    /// Their keys.
    Keys,
    /// All their columns.
    Whole,
}

/// The rows of a rule that a statement takes, by the [`Extent`] of their events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Takes {
    /// All rows.
    All,
    /// Those of events that show the whole object.
    Whole,
    /// Those of events that delete it.
    Deletions,
    /// Both of these.
    Complete,
    /// Those of events that show a part of its list.
    Parts,
}

impl Takes {
    /// Whether it takes a row with this extent. A row without one is of a rule that compares no events.
    pub(crate) fn takes(self, extent: Option<Extent>) -> bool {
        match self {
            Self::All => true,
            Self::Whole => extent == Some(Extent::Whole),
            Self::Deletions => extent == Some(Extent::Deleted),
            Self::Complete => extent != Some(Extent::Part),
            Self::Parts => extent == Some(Extent::Part),
        }
    }
}

/// A message that a rule sends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Send {
    /// An email.
    Email {
        /// The name of its template.
        template: String,
        /// The recipients: a mailbox, or a list of them.
        to: Value,
        /// The recipients of a copy.
        cc: Option<Value>,
        /// The mailbox for replies, if not that of `[email]`.
        reply_to: Option<Value>,
        /// The maximum number of recipients, and of recipients of a copy.
        recipients: u32,
        /// The group of emails that it belongs to.
        group: Option<String>,
    },
    /// An SMS.
    Sms {
        /// The recipient: a phone number.
        to: Value,
        /// The text: a template.
        body: String,
    },
    /// A tracking event.
    Track {
        /// The analytics provider.
        provider: Provider,
        /// The name of the event.
        event: String,
        /// The user.
        user: Value,
    },
}

/// A condition on a value of the payload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Condition {
    /// The paths of the value; the first that exists counts.
    pub paths: Vec<PathRead>,
    /// JSON texts. The value must equal one of them; a missing value is `null`.
    pub any_of: Vec<String>,
    /// If true, none of them may match.
    pub not: bool,
}

impl Condition {
    /// Whether it is about an element of the list.
    pub fn is_of_element(&self) -> bool {
        self.paths.iter().any(PathRead::is_of_element)
    }

    /// The JSON text of the value.
    pub fn found<'b>(&self, scope: Scope<'b>) -> Cow<'b, str> {
        let found = self.paths.iter().find_map(|path| path.json(scope));
        found.unwrap_or(Cow::Borrowed("null"))
    }

    /// Whether it is met.
    pub fn holds(&self, scope: Scope<'_>) -> bool {
        let found = self.found(scope);
        self.any_of.iter().any(|value| number::same(value, &found)) != self.not
    }
}

/// How two events for the same row compare, besides by their ids, and which events delete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Guard {
    /// The events that delete; a deletion wins among equal versions.
    pub delete: Delete,
    /// The version: [`Value::version`].
    pub version: Value,
    /// Decides between equal versions, before the event's id. Each step decides between events that are equal in the steps
    /// before it.
    pub tie: Vec<TieStep>,
    /// If no step decides: the API that has the object.
    pub refetch: Option<Refetch>,
}

/// The events that delete.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Delete {
    /// Patterns of event types.
    pub types: Vec<String>,
    /// Or conditions. Without alternatives, they do not hold.
    pub when: When,
    /// Whether a deletion outranks every event that does not delete, whatever its version.
    pub is_final: bool,
}

/// An API and the object to fetch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refetch {
    /// The provider.
    pub provider: Provider,
    /// The path of the object's id.
    pub id: PathRead,
}

/// A step that decides between events with equal versions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TieStep {
    /// A value; a later one in `order` wins.
    Value {
        /// The value.
        value: Value,
        /// Texts, weakest first. Of a value that is not a text, its JSON.
        order: Vec<String>,
    },
    /// The event's type; a later one in `order` wins.
    Type {
        /// Patterns of event types, weakest first. `"*"` means every type that no other pattern of the list matches.
        order: Vec<String>,
    },
}

/// Above the rank of any event, and below any time in milliseconds, which is the precedence of a fetched object.
pub const FETCHED: i64 = 1 << 36;

/// The precedence of a deletion: above that of any fetched object.
pub const DELETION: i64 = 1 << 52;

/// Added to the version of a final deletion: above the version of any other event.
pub const FINAL: i64 = 1 << 62;

/// How an event compares with the other events for its row, before their ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    /// The version.
    pub version: i64,
    /// The number that is compared between equal versions: [`DELETION`], or the rank in the steps of the tie.
    pub precedence: i64,
    /// How much of the object the event shows.
    pub extent: Extent,
}

/// How much of its object an event shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// All of it.
    Whole = 0,
    /// Nothing: it deletes it.
    Deleted = 1,
    /// A part of its list.
    Part = 2,
}

impl Guard {
    /// Whether an event deletes.
    pub fn deletes(&self, scope: Scope<'_>) -> bool {
        self.delete.types.iter().any(|glob| pattern::matches(glob, scope.event.kind))
            || self.delete.when.holds(scope)
    }

    /// How an event compares. `None` if it has no version. A deletion without one is final: nothing can say that an event
    /// is newer.
    ///
    /// # Errors
    ///
    /// [`ValueError`], as in [`Value::version`]; also for a version that is not below that of every final deletion.
    pub fn order(&self, scope: Scope<'_>, deletes: bool) -> Result<Option<Order>, ValueError> {
        let version = match self.version.version(scope)? {
            Some(version) if version >= FINAL => {
                let path = self.version.to_string();
                return Err(ValueError { path, expected: "version: it must be below 2^62" });
            }
            version => version,
        };
        let is_final = deletes && (self.delete.is_final || version.is_none());
        let version = match version {
            version if is_final => Some(FINAL + version.unwrap_or(0).max(0)),
            version => version,
        };
        let precedence = if deletes { DELETION } else { self.rank(scope)? };
        let extent = if deletes { Extent::Deleted } else { Extent::Whole };
        Ok(version.map(|version| Order { version, precedence, extent }))
    }

    /// The positions in all steps as one number with a digit for each, so that comparing the numbers compares the steps in
    /// turn.
    fn rank(&self, scope: Scope<'_>) -> Result<i64, ValueError> {
        let mut rank = 0;
        for step in &self.tie {
            rank = rank * step.positions() + step.position(scope)?;
        }
        Ok(rank)
    }
}

impl TieStep {
    fn order(&self) -> &[String] {
        let (Self::Value { order, .. } | Self::Type { order }) = self;
        order
    }

    /// The number of positions: those in the list, and 0 below them.
    pub fn positions(&self) -> i64 {
        i64::try_from(self.order().len()).unwrap_or(FETCHED).saturating_add(1)
    }

    /// The position of an event, from 1; 0 if it is not in the list.
    fn position(&self, scope: Scope<'_>) -> Result<i64, ValueError> {
        let found = match self {
            Self::Value { value, order } => {
                let value = value.json(scope)?;
                value.and_then(|json| {
                    let text = value::plain(&json);
                    let is_number = !json.starts_with('"');
                    let is_it = |known: &String| {
                        *known == text || (is_number && number::same(known, &json))
                    };
                    order.iter().position(is_it)
                })
            }
            Self::Type { order } => pattern::position(order, scope.event.kind),
        };
        Ok(found
            .and_then(|position| i64::try_from(position).ok())
            .map_or(0, |position| position + 1))
    }
}

/// Conditions with alternatives: one of them must hold, with all of its conditions.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct When(pub Vec<Vec<Condition>>);

impl When {
    /// Whether they hold. Without an element, conditions about one are left out.
    pub fn holds(&self, scope: Scope<'_>) -> bool {
        let holds = |condition: &Condition| {
            (scope.element.is_none() && condition.is_of_element()) || condition.holds(scope)
        };
        self.0.iter().any(|conditions| conditions.iter().all(holds))
    }

    /// All conditions.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter().flatten()
    }
}

/// The value of a column.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// The value.
    pub value: Value,
    /// Whether the value is required: the column is part of the key.
    pub required: bool,
}

/// How to treat a verified event that no rule matches.
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

impl Unmatched {
    /// All, by their names in hookmill.toml.
    pub const ALL: [(&str, Self); 3] =
        [("ignore", Self::Ignore), ("record", Self::Record), ("dead_letter", Self::DeadLetter)];
}

impl Column {
    /// The value as JSON text in its stored form; `None` if there is no value.
    ///
    /// # Errors
    ///
    /// [`ValueError`], as in [`Value::json`], or in [`Value::key`] if the column is part of the key.
    pub fn json<'b>(&'b self, scope: Scope<'b>) -> Result<Option<Cow<'b, str>>, ValueError> {
        if self.required { self.value.key(scope) } else { self.value.json(scope) }
    }
}

impl Effect {
    /// How the rows that it writes compare; `None` if they do not.
    pub const fn guard(&self) -> Option<&Guard> {
        match self {
            Self::Row { guard, .. } => guard.as_ref(),
            Self::Rows { guard, .. } => Some(guard),
            Self::Send { .. } | Self::Outcome { .. } | Self::Suppress(_) | Self::Lift(_) => None,
        }
    }

    /// The name of the effect.
    pub const fn word(&self) -> RuleEffect {
        match self {
            Self::Row { guard: Some(_), .. } => RuleEffect::Row,
            Self::Row { guard: None, .. } => RuleEffect::Count,
            Self::Rows { .. } => RuleEffect::Rows,
            Self::Send { send: Send::Email { .. }, .. } => RuleEffect::Email,
            Self::Send { send: Send::Sms { .. }, .. } => RuleEffect::Sms,
            Self::Send { send: Send::Track { .. }, .. } => RuleEffect::Track,
            Self::Outcome { .. } => RuleEffect::Outcome,
            Self::Suppress(_) => RuleEffect::Suppress,
            Self::Lift(_) => RuleEffect::Lift,
        }
    }

    /// The table that it writes, if it is one of the user's or a preset's.
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::Row { table, .. } | Self::Rows { table, .. } => Some(table),
            Self::Send { .. } | Self::Outcome { .. } | Self::Suppress(_) | Self::Lift(_) => None,
        }
    }
}

impl Program {
    /// The rules that match an event, in order.
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
