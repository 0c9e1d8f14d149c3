//! The kinds of values that a key can have: how to read one, and its JSON Schema.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::declare::{Table, table_schema};
use crate::place::Located;
use crate::reader::{Item, Section};

type Read<T> = Box<dyn Fn(&Item<'_>) -> Option<T>>;
type MakeSchema = Box<dyn Fn() -> Value>;

/// A kind of value.
pub struct Kind<T> {
    read: Read<T>,
    schema: MakeSchema,
    note: Option<String>,
}

impl<T: 'static> Kind<T> {
    /// A new kind. `read` reports an unusable value and returns `None`.
    pub fn new(
        schema: impl Fn() -> Value + 'static,
        read: impl Fn(&Item<'_>) -> Option<T> + 'static,
    ) -> Self {
        Self { read: Box::new(read), schema: Box::new(schema), note: None }
    }

    pub(crate) fn into_parts(self) -> (Read<T>, MakeSchema) {
        (self.read, self.schema)
    }

    /// The same values. The documentation of a key ends with the note, a sentence such as "1 to 99."
    #[must_use]
    pub fn noted(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// The note, if there is one.
    pub(crate) fn note(&self) -> Option<String> {
        self.note.clone()
    }

    /// Reads a value.
    pub fn read(&self, item: &Item<'_>) -> Option<T> {
        (self.read)(item)
    }

    /// The same values, as another type. `change` reports unusable values.
    pub fn and_then<U: 'static>(
        self,
        change: impl Fn(&Item<'_>, T) -> Option<U> + 'static,
    ) -> Kind<U> {
        let Self { read, schema, note } = self;
        Kind { read: Box::new(move |item| change(item, read(item)?)), schema, note }
    }

    /// The same values, as another type.
    pub fn map<U: 'static>(self, change: impl Fn(T) -> U + 'static) -> Kind<U> {
        self.and_then(move |_, value| Some(change(value)))
    }

    /// The same values. After an error, this one stands in, so that the rest can be checked.
    #[must_use]
    pub fn or(self, value: T) -> Self
    where
        T: Clone,
    {
        let Self { read, schema, note } = self;
        let read = move |item: &Item<'_>| Some(read(item).unwrap_or_else(|| value.clone()));
        Self { read: Box::new(read), schema, note }
    }

    /// The same values, with their places.
    pub fn located(self) -> Kind<Located<T>> {
        self.and_then(|item, value| Some(item.here.clone().map(|()| value)))
    }

    /// Values with the same JSON Schema, read in another way.
    pub fn reading<U: 'static>(self, read: impl Fn(&Item<'_>) -> Option<U> + 'static) -> Kind<U> {
        Kind { read: Box::new(read), schema: self.schema, note: self.note }
    }

    /// The same values, with more members in their JSON Schema.
    #[must_use]
    pub fn with(self, members: Value) -> Self {
        let Self { read, schema, note } = self;
        let schema = move || {
            let mut schema = schema();
            if let (Some(schema), Value::Object(members)) = (schema.as_object_mut(), &members) {
                schema.extend(members.clone());
            }
            schema
        };
        Self { read, schema: Box::new(schema), note }
    }
}

/// A string. `expected` describes it, as in "a name".
pub fn text(expected: &'static str) -> Kind<String> {
    Kind::new(|| json!({ "type": "string" }), move |item| item.string(expected))
}

/// A string that `parse` understands.
pub fn parsed<T: 'static, E: Display>(
    expected: &'static str,
    parse: impl Fn(&str) -> Result<T, E> + 'static,
) -> Kind<T> {
    text(expected).and_then(move |item, text| match parse(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            item.unexpected(format!("{text:?}: {error}"), expected);
            None
        }
    })
}

/// True or false.
pub fn boolean() -> Kind<bool> {
    Kind::new(|| json!({ "type": "boolean" }), |item: &Item<'_>| Item::boolean(item))
}

/// A whole number within a range.
pub fn whole<T>(range: RangeInclusive<T>) -> Kind<T>
where
    T: TryFrom<i64> + Copy + Display + PartialOrd + Into<Value> + 'static,
{
    let (least, most) = range.clone().into_inner();
    let schema =
        move || json!({ "type": "integer", "minimum": least.into(), "maximum": most.into() });
    Kind::new(schema, move |item| {
        let expected = format!("a whole number from {least} to {most}");
        let found = item.integer(&expected)?;
        let fits = T::try_from(found).ok().filter(|value| range.contains(value));
        if fits.is_none() {
            item.unexpected(found, &expected);
        }
        fits
    })
    .noted(format!("{} to {}.", grouped(least), grouped(most)))
}

/// A number with separators, as people write it.
fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number within a range.
pub fn number(range: RangeInclusive<f64>) -> Kind<f64> {
    let (least, most) = range.clone().into_inner();
    let schema = move || json!({ "type": "number", "minimum": least, "maximum": most });
    Kind::new(schema, move |item| {
        let expected = format!("a number from {least} to {most}");
        let found = item.float(&expected)?;
        if !range.contains(&found) {
            item.unexpected(found, &expected);
        }
        Some(found).filter(|found| range.contains(found))
    })
    .noted(format!("{least} to {most}."))
}

/// A duration such as `"5m"`, in humantime's syntax.
pub fn duration(range: RangeInclusive<Duration>) -> Kind<Duration> {
    let (least, most) = (format_duration(*range.start()), format_duration(*range.end()));
    let note = if range.start().is_zero() {
        format!("At most {most}.")
    } else {
        format!("{least} to {most}.")
    };
    parsed("a duration such as \"5m\"", humantime::parse_duration)
        .with(json!({ "pattern": "^\\s*[0-9]" }))
        .noted(note)
        .and_then(move |item, found| {
            if range.contains(&found) {
                return Some(found);
            }
            let expected = format!("a duration from {least} to {most}");
            item.unexpected(format_duration(found), &expected);
            None
        })
}

/// A duration as people write it. Whole days stay days: humantime would make months of them, which have no fixed length.
fn format_duration(duration: Duration) -> String {
    const DAY: u64 = 86_400;
    match duration.as_secs() {
        seconds if seconds >= DAY && seconds.is_multiple_of(DAY) => format!("{}d", seconds / DAY),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// A number of bytes such as `"1MiB"`: at least 1.
pub fn size<T: TryFrom<u64> + TryInto<u64> + 'static>(most: T) -> Kind<T> {
    let most = most.try_into().unwrap_or(u64::MAX);
    let limit = bytesize::ByteSize(most);
    parsed("a size such as \"1MiB\"", str::parse::<bytesize::ByteSize>)
        .noted(format!("At most {limit}."))
        .and_then(move |item, found| {
            let bytes = found.as_u64();
            let size = (1..=most).contains(&bytes).then(|| T::try_from(bytes).ok()).flatten();
            if size.is_none() {
                item.unexpected(found, &format!("a size from 1 B to {limit}"));
            }
            size
        })
}

/// One of a few words.
pub fn choice<T: Copy + 'static>(choices: Vec<(&'static str, T)>) -> Kind<T> {
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    let (words, words_for_note) = (names.clone(), names.clone());
    let schema = move || json!({ "type": "string", "enum": words });
    Kind::new(schema, move |item| {
        let text = item.string(&format!("one of {}", names.join(", ")))?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let error = item.here.error(format!("found {text:?}"));
            item.report(error.suggest(&text, names.iter().copied()));
        }
        found
    })
    .noted(format!("One of {}.", one_of(&words_for_note)))
}

fn one_of(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The name of an environment variable with a secret, `"env:NAME"`. A text that is not a name may be a secret, so no message
/// quotes it.
pub fn secret(example: impl Into<String>) -> Kind<String> {
    let example = example.into();
    let schema = || json!({ "type": "string", "pattern": "^env:[A-Z_][A-Z0-9_]*$" });
    Kind::new(schema, move |item| {
        let text = item.string(&format!("the name of a secret, such as {example:?}"))?;
        let name = text.strip_prefix("env:").filter(|name| {
            name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
                && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        });
        if name.is_none() {
            let problem =
                item.here.error("not the name of a secret; never write a secret into this file");
            item.report(problem.hint(format!(
                "put the secret into an environment variable and use its name: {example:?}"
            )));
        }
        name.map(str::to_owned)
    })
}

/// A list. `expected` describes it.
pub fn list<T: 'static>(kind: Kind<T>, expected: &'static str) -> Kind<Vec<T>> {
    let (read, schema) = kind.into_parts();
    let schema = move || json!({ "type": "array", "items": schema() });
    Kind::new(schema, move |item| {
        Some(item.list(expected, false).iter().filter_map(&read).collect())
    })
}

/// One value, or a list of them.
pub fn one_or_many<T: 'static>(kind: Kind<T>, expected: &'static str) -> Kind<Vec<T>> {
    let (read, schema) = kind.into_parts();
    let schema = move || {
        let one = schema();
        json!({ "anyOf": [one, { "type": "array", "items": one }] })
    };
    Kind::new(schema, move |item| {
        Some(item.list(expected, true).iter().filter_map(&read).collect())
    })
}

impl<T: 'static> Kind<Vec<T>> {
    /// The same lists, but not an empty one. `problem` describes it, as in "the list of recipients is empty".
    #[must_use]
    pub fn not_empty(self, problem: &'static str, hint: impl Into<String>) -> Self {
        let Self { read, schema, note } = self;
        let hint = hint.into();
        let schema = move || {
            let mut schema = schema();
            let list = match schema.get_mut("anyOf").and_then(|choices| choices.get_mut(1)) {
                Some(list) => list,
                None => &mut schema,
            };
            list["minItems"] = 1.into();
            schema
        };
        Self {
            read: Box::new(move |item| {
                if item.is_list() && item.list("", false).is_empty() {
                    item.report(item.here.error(problem).hint(hint.as_str()));
                }
                read(item)
            }),
            schema: Box::new(schema),
            note,
        }
    }
}

/// A table whose keys are names that users choose, in the order of the names.
pub fn members<T: 'static>(
    kind: Kind<T>,
    expected: &'static str,
) -> Kind<Vec<(Located<String>, T)>> {
    all_members(kind, expected).map(|members| {
        members.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    })
}

/// The same, with the names of values that cannot be read.
pub fn all_members<T: 'static>(
    kind: Kind<T>,
    expected: &'static str,
) -> Kind<Vec<(Located<String>, Option<T>)>> {
    let (read, schema) = kind.into_parts();
    let schema = move || json!({ "type": "object", "additionalProperties": schema() });
    Kind::new(schema, move |item| {
        let members = item.section(expected)?.members().into_iter();
        Some(members.map(|(name, item)| (name, read(&item))).collect())
    })
}

/// A declared table. `expected` describes it, with an example.
pub fn table<T: Table + 'static>(expected: &'static str) -> Kind<T> {
    table_then(expected, |_, table| Some(table))
}

/// A declared table that becomes another type. `change` reports errors to the section.
pub fn table_then<T: Table + 'static, U: 'static>(
    expected: &'static str,
    change: impl Fn(&Section<'_>, T) -> Option<U> + 'static,
) -> Kind<U> {
    Kind::new(table_schema::<T>, move |item| {
        let section = item.section(expected)?;
        let read = T::read(&section).and_then(|read| change(&section, read));
        section.finish();
        read
    })
}

/// A table that is not looked into, as JSON.
pub fn object(expected: &'static str) -> Kind<Map<String, Value>> {
    Kind::new(
        || json!({ "type": "object" }),
        move |item| {
            item.section(expected)?;
            match item.json() {
                Value::Object(members) => Some(members),
                _ => None,
            }
        },
    )
}

/// A string, a whole number or a boolean, as JSON.
pub fn scalar() -> Kind<Value> {
    Kind::new(
        || json!({ "type": ["string", "integer", "boolean"] }),
        |item: &Item<'_>| Item::scalar(item),
    )
}

/// One of two kinds: the first, if `is_first` says so.
pub fn either<T: 'static>(
    is_first: fn(&Item<'_>) -> bool,
    first: Kind<T>,
    second: Kind<T>,
) -> Kind<T> {
    let ((first, first_schema), (second, second_schema)) =
        (first.into_parts(), second.into_parts());
    Kind::new(
        move || json!({ "anyOf": [first_schema(), second_schema()] }),
        move |item| if is_first(item) { first(item) } else { second(item) },
    )
}

/// A table of one kind, or any other value of another.
pub fn table_or<T: 'static>(table: Kind<T>, other: Kind<T>) -> Kind<T> {
    let is_table: fn(&Item<'_>) -> bool = |item| Item::is_table(item);
    either(is_table, table, other)
}
