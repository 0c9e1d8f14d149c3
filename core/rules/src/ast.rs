//! A rule as written: what [`crate::decl`] reads, and [`crate::compile`] checks against the schema.

use hookmill_core::outbound::Outcome;
use hookmill_keys::{ConfigError, Located};
use serde_json::Value as Json;

use crate::decl::{EmailDecl, SmsDecl, TrackDecl};
use crate::{EventField, Form, Pattern, ValuePath, Zone};

/// A rule as written.
#[derive(Clone, PartialEq, Debug)]
pub struct RuleDecl {
    /// `name`.
    pub name: Located<String>,
    /// Whether the rule is a preset's.
    pub preset: bool,
    /// Whether all its keys are known and usable. Errors about what else the rule says would only follow from those keys.
    pub is_sound: bool,
    /// `on`.
    pub on: Vec<Pattern>,
    /// `handler`: the code whose values the paths select from, if not the body.
    pub handler: Option<Located<String>>,
    /// `each`: the list whose elements become rows.
    pub each: Option<Located<ValuePath>>,
    /// `more`: whether that list goes on elsewhere.
    pub more: Option<ValuePath>,
    /// `when`: alternatives. All conditions of one of them must hold; without alternatives, the rule always runs.
    pub when: Vec<Vec<ConditionDecl>>,
    /// The effect.
    pub effect: EffectDecl,
}

impl RuleDecl {
    /// Whether it names a time zone, so that the consumer Worker needs the feature `zones`.
    pub fn names_zone(&self) -> bool {
        self.values().iter().any(|value| value.value.names_zone())
    }

    /// Every value of its effect.
    pub fn values(&self) -> Vec<&Located<ValueDecl>> {
        fn of(named: &NamedValues) -> impl Iterator<Item = &Located<ValueDecl>> {
            named.iter().map(|(_, value)| value)
        }
        let mut values = Vec::new();
        match &self.effect {
            EffectDecl::Table(table) => {
                values.extend(of(&table.key).chain(of(table.columns())));
                values.extend(table.newest().map(|newest| &newest.version));
            }
            EffectDecl::Send(SendDecl::Email(email)) => {
                values.extend(
                    [Some(&email.to), email.cc.as_ref(), email.reply_to.as_ref()]
                        .into_iter()
                        .flatten(),
                );
                values.extend(email.data.iter().flat_map(|data| of(&data.value)));
            }
            EffectDecl::Send(SendDecl::Sms(sms)) => {
                values.push(&sms.to);
                values.extend(sms.data.iter().flat_map(|data| of(&data.value)));
            }
            EffectDecl::Send(SendDecl::Track(track)) => {
                values.push(&track.user);
                values.extend(track.properties.iter().flat_map(of));
            }
            EffectDecl::Outcome { of: value, .. } => values.push(value),
            EffectDecl::Suppress(whom) | EffectDecl::Lift(whom) => {
                values.push(&whom.address);
                values.extend(whom.group.iter().chain(&whom.version));
            }
        }
        values
    }

    /// Every condition: those of `when`, and those of `delete`.
    pub fn conditions(&self) -> impl Iterator<Item = &ConditionDecl> {
        let delete = match &self.effect {
            EffectDecl::Table(table) => table.newest().map_or(&[][..], |newest| &newest.delete),
            _ => &[],
        };
        let delete = delete.iter().flat_map(|delete| match delete {
            DeleteDecl::When(conditions) => &conditions[..],
            DeleteDecl::Type(_) => &[],
        });
        self.when.iter().flatten().chain(delete)
    }

    /// The table whose rows the rule writes for several sources without telling them apart: no column of the key is the
    /// source.
    pub fn table_of_several_sources(&self) -> Option<&str> {
        let EffectDecl::Table(table) = &self.effect else { return None };
        let several = self.on.windows(2).any(|on| on[0].source != on[1].source);
        let is_source = |(_, value): &(_, Located<ValueDecl>)| {
            value.value == ValueDecl::Event(EventField::Source)
        };
        (several && !table.key.iter().any(is_source)).then_some(table.table.value.as_str())
    }
}

/// The effect of a rule, as written.
#[derive(Clone, PartialEq, Debug)]
pub enum EffectDecl {
    /// `table`: the rule writes a table.
    Table(TableDecl),
    /// `email`, `sms` or `track`: the rule sends something.
    Send(SendDecl),
    /// `outcome`: the outcome of an email.
    Outcome {
        /// `email`: its id; or `provider_id`: the provider's id for it.
        of: Located<ValueDecl>,
        /// Whether it is the provider's id.
        by_provider_id: bool,
        /// `is`.
        outcome: Outcome,
    },
    /// `suppress`: Hookmill no longer sends to an address.
    Suppress(SuppressionDecl),
    /// `lift`: Hookmill sends to an address again.
    Lift(SuppressionDecl),
}

/// Suppressions, as written.
#[derive(Clone, PartialEq, Debug)]
pub struct SuppressionDecl {
    /// `address`: one, or a list of them.
    pub address: Located<ValueDecl>,
    /// `reason`: each is a suppression of its own.
    pub reasons: Vec<String>,
    /// `group`: the group of emails that they are about; all emails without one.
    pub group: Option<Located<ValueDecl>>,
    /// `version`: a time; that of the receipt without one.
    pub version: Option<Located<ValueDecl>>,
}

/// A rule that writes a table, as written.
#[derive(Clone, PartialEq, Debug)]
pub struct TableDecl {
    /// `table`.
    pub table: Located<String>,
    /// `key`: columns and their values.
    pub key: NamedValues,
    /// What the rule does with the rows.
    pub write: TableWrite,
}

/// Columns that extend rules of a preset, as written.
#[derive(Clone, PartialEq, Debug)]
pub struct Extension {
    /// `extend`: the names of the rules.
    pub rules: Vec<Located<String>>,
    /// `set`: columns and their values.
    pub set: NamedValues,
}

impl Extension {
    /// Adds the columns to a rule.
    ///
    /// # Errors
    ///
    /// The columns that the rule cannot set.
    pub fn extend(&self, rule: &mut RuleDecl) -> Result<(), Vec<ConfigError>> {
        let Some(named) = self.rules.iter().find(|name| name.value == rule.name.value) else {
            return Ok(());
        };
        let name = &rule.name.value;
        let EffectDecl::Table(table) = &mut rule.effect else {
            return Err(vec![named.error(format!("rule `{name}` writes no table"))]);
        };
        let mut errors = Vec::new();
        for (column, value) in &self.set {
            let sets = |(set, _): &(Located<String>, _)| set.value == column.value;
            if table.key.iter().chain(table.columns()).any(sets) {
                let problem =
                    column.error(format!("rule `{name}` sets `{}` already", column.value));
                errors.push(problem.hint(
                    "choose another column; to change this one, write a rule with that name, which replaces it",
                ));
            } else if value.value.is_of_element() && rule.each.is_none() {
                let problem = value.error(format!("rule `{name}` is about no list"));
                errors.push(problem.hint("a path without `@` selects from the body"));
            } else {
                table.columns_mut().push((column.clone(), value.clone()));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// What a rule does with the rows of its table.
#[derive(Clone, PartialEq, Debug)]
pub enum TableWrite {
    /// `add`: columns grow. Without a version, since additions commute.
    Count {
        /// The amount that each column grows by.
        add: NamedValues,
    },
    /// The row of the newest event. A deleted row stays, with `_deleted = 1`.
    Upsert {
        /// The columns, and the order of events.
        newest: Newest,
        /// `tie.refetch`: whether Hookmill fetches the object from the provider's API.
        refetch: Option<Located<()>>,
    },
    /// The same with `tombstone = false`: a deleted row is removed.
    Remove {
        /// The columns, and the order of events.
        newest: Newest,
    },
    /// `update`: only existing rows.
    Update {
        /// The columns, and the order of events.
        newest: Newest,
    },
    /// `each`: the rows of the newest event's list.
    List {
        /// The columns, and the order of events.
        newest: Newest,
        /// `tie.refetch`: whether Hookmill fetches the object from the provider's API.
        refetch: Option<Located<()>>,
    },
}

/// What the newest event writes, and which event that is.
#[derive(Clone, PartialEq, Debug)]
pub struct Newest {
    /// `set`: columns and their values.
    pub set: NamedValues,
    /// `version`.
    pub version: Located<ValueDecl>,
    /// `tie.precedence`. Each step decides between events that are equal in the steps before it.
    pub tie: Option<Located<Vec<StepDecl>>>,
    /// `delete`: the events that delete.
    pub delete: Vec<DeleteDecl>,
    /// `final`, if it is given: whether a deletion outranks every other event.
    pub is_final: Option<bool>,
    /// `parents`: columns, and the tables whose keys they have.
    pub parents: Vec<(Located<String>, Located<String>)>,
}

impl Newest {
    /// Whether every event of the rule deletes.
    pub fn only_deletes(&self) -> bool {
        self.delete
            .iter()
            .any(|delete| matches!(delete, DeleteDecl::Type(glob) if glob.value == "*"))
    }
}

/// The events that delete, as written.
#[derive(Clone, PartialEq, Debug)]
pub enum DeleteDecl {
    /// A pattern of event types.
    Type(Located<String>),
    /// Conditions. An event that meets all of them deletes.
    When(Vec<ConditionDecl>),
}

impl TableDecl {
    /// What the newest event writes, unless the rule counts.
    pub const fn newest(&self) -> Option<&Newest> {
        match &self.write {
            TableWrite::Count { .. } => None,
            TableWrite::Upsert { newest, .. }
            | TableWrite::Remove { newest }
            | TableWrite::Update { newest }
            | TableWrite::List { newest, .. } => Some(newest),
        }
    }

    const fn columns_mut(&mut self) -> &mut NamedValues {
        match &mut self.write {
            TableWrite::Count { add } => add,
            TableWrite::Upsert { newest, .. }
            | TableWrite::Remove { newest }
            | TableWrite::Update { newest }
            | TableWrite::List { newest, .. } => &mut newest.set,
        }
    }

    /// The columns outside the key: those of `set`, or of `add`.
    pub const fn columns(&self) -> &NamedValues {
        match &self.write {
            TableWrite::Count { add } => add,
            TableWrite::Upsert { newest, .. }
            | TableWrite::Remove { newest }
            | TableWrite::Update { newest }
            | TableWrite::List { newest, .. } => &newest.set,
        }
    }
}

/// What a rule sends, as written.
#[derive(Clone, PartialEq, Debug)]
pub enum SendDecl {
    /// `email`.
    Email(Box<EmailDecl>),
    /// `sms`.
    Sms(SmsDecl),
    /// `track`.
    Track(TrackDecl),
}

/// Names and their values.
pub type NamedValues = Vec<(Located<String>, Located<ValueDecl>)>;

/// A condition as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConditionDecl {
    /// The paths of the value; the first that exists counts.
    pub paths: Vec<ValuePath>,
    /// JSON texts. The value must equal one of them.
    pub any_of: Vec<String>,
    /// Inverts the condition: the value must differ from all of them.
    pub not: bool,
}

/// A value as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ValueDecl {
    /// One path, or several; the first that leads to a value counts.
    Paths {
        /// The paths.
        paths: Vec<ValuePath>,
        /// `{ rfc3339 = "…" }` and the like: the form of the value in the body.
        form: Form,
    },
    /// `{ decimal = "total", currency = "currency" }`: an amount in the smallest unit of its currency.
    Money {
        /// The paths of the amount.
        amount: Vec<ValuePath>,
        /// The paths of the currency's code.
        currency: Vec<ValuePath>,
    },
    /// `{ value = … }`: a constant, as JSON.
    Constant(String),
    /// `{ event = "id" }`: a field of every event.
    Event(EventField),
}

impl ValueDecl {
    /// A constant text.
    pub(crate) fn text(text: &str) -> Self {
        Self::Constant(Json::from(text).to_string())
    }

    /// The paths that it reads.
    pub fn paths(&self) -> impl Iterator<Item = &ValuePath> {
        let (paths, more) = match self {
            Self::Paths { paths, .. } => (&paths[..], &[][..]),
            Self::Money { amount, currency } => (&amount[..], &currency[..]),
            Self::Constant(_) | Self::Event(_) => (&[][..], &[][..]),
        };
        paths.iter().chain(more)
    }

    /// Whether a path selects from the element of `each`.
    pub fn is_of_element(&self) -> bool {
        self.paths().any(ValuePath::is_of_element)
    }

    /// Whether the value is a time in a named zone.
    pub fn names_zone(&self) -> bool {
        match self {
            Self::Paths { form: Form::Time(form), .. } => matches!(form.zone, Zone::Named(_)),
            _ => false,
        }
    }

    /// Whether the value is a time.
    pub const fn is_time(&self) -> bool {
        matches!(self, Self::Paths { form: Form::Time(_), .. })
    }
}

impl ConditionDecl {
    /// Whether it is about an element of the list.
    pub fn is_of_element(&self) -> bool {
        self.paths.iter().any(ValuePath::is_of_element)
    }
}

/// A step of `tie.precedence`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StepDecl {
    /// `{ column = "status", order = ["trialing", "active"] }`, or `path` instead of `column`.
    Value {
        /// The value: that of the column, or the one at the path.
        value: ValueDecl,
        /// Its texts, weakest first.
        order: Vec<String>,
    },
    /// `{ type = ["*.created", "*"] }`: patterns of event types, weakest first.
    Type(Vec<String>),
}
