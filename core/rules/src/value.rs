//! Values of rules: their sources, and their forms.

// Values come from payloads, tokens and databases.
#![warn(clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Add as _;
use std::str::FromStr;
use std::time::Duration;

use iso_currency::Currency;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::number::{Number, same};
use super::path::{Path, PathError};
use super::read::{Read, Reads, Values};
use super::time::TimeForm;
use hookmill_core::schema::Affinity;
use hookmill_core::time::Timestamp;

/// How far the version of an event may be after its receipt, if it is a time.
pub const VERSION_AHEAD: Duration = Duration::from_hours(24);

/// A path in a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ValuePath {
    /// `data.object.id`: into the body.
    Body(Path),
    /// `@.id`: into the element of the list that `each` names. `@` is the current node of JSONPath:
    /// <https://www.rfc-editor.org/rfc/rfc9535>.
    Element(Path),
    /// `header:X-Shopify-Topic`: a header that the source keeps. The name is in lower case.
    Header(String),
}

impl ValuePath {
    /// Whether it begins at the element.
    pub const fn is_of_element(&self) -> bool {
        matches!(self, Self::Element(_))
    }
}

impl FromStr for ValuePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if let Some(name) = text.strip_prefix(HEADER) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let end = name.find(|c| !is_name(c)).or_else(|| name.is_empty().then_some(0));
            return match end {
                None => Ok(Self::Header(name.to_ascii_lowercase())),
                Some(end) => {
                    let position = text.len().saturating_sub(name.len()).saturating_add(end);
                    let position = position.saturating_add(1);
                    Err(PathError { problem: "expected the name of a header", position })
                }
            };
        }
        let Some(rest) = text.strip_prefix('@') else { return Ok(Self::Body(text.parse()?)) };
        let path = match rest.strip_prefix('.') {
            Some(path) => path.parse(),
            None if rest.is_empty() => Ok(Path::WHOLE),
            None if rest.starts_with('[') => rest.parse(),
            None => Err(PathError { problem: "expected `.`, `[` or the end", position: 1 }),
        };
        let before = text.len().saturating_sub(rest.len());
        let before = before.saturating_add(usize::from(rest.starts_with('.')));
        let further = |error: PathError| PathError {
            position: error.position.saturating_add(before),
            ..error
        };
        Ok(Self::Element(path.map_err(further)?))
    }
}

/// What the path of a header begins with.
const HEADER: &str = "header:";

/// The path as a rule would write it.
impl fmt::Display for ValuePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "{HEADER}{name}"),
            Self::Body(path) => path.fmt(f),
            Self::Element(path) if *path == Path::WHOLE => f.write_str("@"),
            Self::Element(path) => {
                let path = path.to_string();
                let dot = if path.starts_with('[') { "" } else { "." };
                write!(f, "@{dot}{path}")
            }
        }
    }
}

/// A path with its slots in a [`Reads`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PathRead {
    origin: Origin,
    /// As in hookmill.toml, for messages.
    pub text: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Origin {
    Body(Read),
    Element(Read),
    Header(String),
}

/// The paths that rules read: in the body, and in elements.
#[derive(Debug)]
pub struct Places<'r> {
    /// Those in the body.
    pub body: &'r mut Reads,
    /// Those in each element.
    pub element: &'r mut Reads,
}

impl Places<'_> {
    /// Adds a path.
    pub fn add(&mut self, path: &ValuePath) -> PathRead {
        let origin = match path {
            ValuePath::Body(path) => Origin::Body(self.body.add(path)),
            ValuePath::Element(path) => Origin::Element(self.element.add(path)),
            ValuePath::Header(name) => Origin::Header(name.clone()),
        };
        PathRead { origin, text: path.to_string() }
    }
}

/// The input of a rule.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'b> {
    /// The values of the body.
    pub body: &'b Values<'b>,
    /// The values of the element of `each`.
    pub element: Option<&'b Values<'b>>,
    /// The event itself.
    pub event: EventFacts<'b>,
}

/// What is known of an event besides its body.
#[derive(Clone, Copy, Debug)]
pub struct EventFacts<'b> {
    /// Its source.
    pub source: &'b str,
    /// Its id.
    pub id: &'b str,
    /// Its type.
    pub kind: &'b str,
    /// When ingress received it.
    pub received_at: Timestamp,
    /// The headers that the source keeps, by their names in lower case.
    pub headers: &'b BTreeMap<String, String>,
}

impl PathRead {
    /// Whether it begins at the element of `each`.
    pub const fn is_of_element(&self) -> bool {
        matches!(self.origin, Origin::Element(_))
    }

    /// The JSON text at the path; `None` if there is no value, or `null`.
    pub fn json<'b>(&self, scope: Scope<'b>) -> Option<Cow<'b, str>> {
        match &self.origin {
            Origin::Body(read) => read.value(scope.body).map(Cow::Borrowed),
            Origin::Element(read) => read.value(scope.element?).map(Cow::Borrowed),
            Origin::Header(name) => scope.event.headers.get(name).map(|value| quoted(value)),
        }
    }

    /// Whether it leads nowhere: [`Read::is_absent`].
    pub fn is_absent(&self, scope: Scope<'_>) -> bool {
        match &self.origin {
            Origin::Body(read) => read.is_absent(scope.body),
            Origin::Element(read) => scope.element.is_none_or(|element| read.is_absent(element)),
            Origin::Header(name) => !scope.event.headers.contains_key(name),
        }
    }
}

/// The source of a value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// The first of these that exists and is not `null`.
    Paths {
        /// The paths.
        paths: Vec<PathRead>,
        /// The form of the value in the body.
        form: Form,
    },
    /// An amount, stored as an integer of the currency's smallest unit: ISO 4217.
    Money {
        /// The paths of the amount: a number, optionally in quotes.
        amount: Vec<PathRead>,
        /// The paths of the currency's code, in any case.
        currency: Vec<PathRead>,
    },
    /// A constant: a JSON text.
    Constant(String),
    /// A field of the event.
    Event(EventField),
}

/// A field of every event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventField {
    /// Its id.
    Id,
    /// Its type.
    Type,
    /// Its source.
    Source,
    /// When ingress received it: Unix milliseconds.
    ReceivedAt,
}

impl EventField {
    /// Their names in hookmill.toml.
    pub const ALL: [(&'static str, Self); 4] = [
        ("id", Self::Id),
        ("type", Self::Type),
        ("source", Self::Source),
        ("received_at", Self::ReceivedAt),
    ];
}

/// The form of a value in the body, which determines the stored form.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Stored as is: a text, a number in one spelling, 1 and 0 for true and false, JSON for lists and objects.
    AsIs,
    /// The same, in a column of this affinity, and no whole number is rounded. Where a text can be stored, it is the text of a
    /// number that a database would round; elsewhere, such a number is an error. The compiler chooses it.
    Column(Affinity),
    /// A text, a number or a boolean, stored as text.
    Text,
    /// Any value, stored as its JSON text, a string in quotes.
    Json,
    /// `true`, `"true"`, `1`, `"1"`, and their opposites, stored as 1 or 0.
    Boolean,
    /// A number, optionally in quotes, stored as an integer of its smallest units: `"12.50"` with a scale of 2 is 1250.
    Decimal {
        /// The number of decimal places.
        scale: u32,
    },
    /// A time.
    Time(Box<TimeForm>),
}

/// A value does not have the form that the rule requires. The error does not contain the value, since errors are stored and
/// displayed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the value at `{path}` is not a valid {expected}")]
pub struct ValueError {
    /// Its path.
    pub path: String,
    /// The required form.
    pub expected: &'static str,
}

/// As in hookmill.toml, for messages.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(json) => json.fmt(f),
            Self::Event(field) => {
                let names = EventField::ALL.iter();
                names
                    .filter(|(_, known)| known == field)
                    .try_for_each(|(name, _)| f.write_str(name))
            }
            Self::Paths { paths, .. } | Self::Money { amount: paths, .. } => {
                let paths: Vec<_> = paths.iter().map(|path| path.text.as_str()).collect();
                f.write_str(&paths.join("` or `"))
            }
        }
    }
}

impl Value {
    /// Whether it is read from an element of a list.
    pub fn is_of_element(&self) -> bool {
        self.paths().any(PathRead::is_of_element)
    }

    /// Whether it is a time of the body.
    pub const fn is_time(&self) -> bool {
        matches!(self, Self::Paths { form: Form::Time(_), .. })
    }

    /// The paths that it reads.
    pub fn paths(&self) -> impl Iterator<Item = &PathRead> {
        let (paths, more) = match self {
            Self::Paths { paths, .. } => (&paths[..], &[][..]),
            Self::Money { amount, currency } => (&amount[..], &currency[..]),
            Self::Constant(_) | Self::Event(_) => (&[][..], &[][..]),
        };
        paths.iter().chain(more)
    }

    /// Whether all of its paths lead nowhere: [`Read::is_absent`]. Constants and fields of the event have no paths.
    pub fn is_absent(&self, scope: Scope<'_>) -> bool {
        match self {
            Self::Paths { paths, .. } | Self::Money { amount: paths, .. } => {
                paths.iter().all(|path| path.is_absent(scope))
            }
            Self::Constant(_) | Self::Event(_) => false,
        }
    }

    /// The value as JSON text in its stored form; `None` if there is no value.
    ///
    /// # Errors
    ///
    /// [`ValueError`].
    pub fn json<'b>(&'b self, scope: Scope<'b>) -> Result<Option<Cow<'b, str>>, ValueError> {
        self.read(scope, false, Form::stored)
    }

    /// The value as a version. A time is in microseconds, so that none of its precision is lost.
    ///
    /// # Errors
    ///
    /// [`ValueError`]: also for a time more than a day after the receipt of the event. The row would ignore
    /// every other event until then.
    pub fn version(&self, scope: Scope<'_>) -> Result<Option<i64>, ValueError> {
        let latest = scope.event.received_at.add(VERSION_AHEAD).micros();
        let found = self.read(scope, true, |form, json| match form {
            Form::Time(time) => match time.micros(&plain(json))? {
                micros if micros > latest => {
                    Err("version: it is a time more than a day after the receipt of the event")
                }
                micros => Ok(Cow::Owned(micros.to_string())),
            },
            Form::AsIs => {
                let units = Number::parse(json).and_then(|number| number.units(0, false));
                units.map(|units| Cow::Owned(units.to_string())).ok_or("whole number")
            }
            form => form.stored(json),
        })?;
        Ok(found.and_then(|number| number.parse().ok()))
    }

    /// The value of a key, as JSON text in its stored form. Equal keys have equal values in the body.
    ///
    /// # Errors
    ///
    /// [`ValueError`]: also for a value that is neither text nor an integer, and for a text with a NUL character.
    pub fn key<'b>(&'b self, scope: Scope<'b>) -> Result<Option<Cow<'b, str>>, ValueError> {
        self.read(scope, false, |form, json| {
            let stored = form.stored(json)?;
            is_key(&stored)?;
            Ok(stored)
        })
    }

    /// `has_blanks`: an empty text is no value, whatever the form.
    fn read<'b>(
        &'b self,
        scope: Scope<'b>,
        has_blanks: bool,
        convert: impl for<'j> Fn(&Form, &'j str) -> Result<Cow<'j, str>, &'static str>,
    ) -> Result<Option<Cow<'b, str>>, ValueError> {
        match self {
            Self::Constant(json) => Ok(Some(Cow::Borrowed(json))),
            Self::Event(field) => Ok(Some(match field {
                EventField::Id => quoted(scope.event.id),
                EventField::Type => quoted(scope.event.kind),
                EventField::Source => quoted(scope.event.source),
                EventField::ReceivedAt => scope.event.received_at.millis().to_string().into(),
            })),
            Self::Paths { paths, form } => {
                let found = first(paths, scope, has_blanks || form.has_blanks());
                converted(found, |json| owned(json, |json| convert(form, json)))
            }
            Self::Money { amount, currency } => {
                let amount_at = first(amount, scope, true);
                if amount_at.is_none() {
                    return Ok(None);
                }
                let places = converted(first(currency, scope, true), |json| {
                    let code = plain(&json).to_ascii_uppercase();
                    let currency = Currency::from_code(&code).ok_or("currency of ISO 4217")?;
                    Ok(u32::from(currency.exponent().unwrap_or_default()))
                })?;
                let expected = "amount, since its currency is missing";
                let path = || amount.first().map(|path| path.text.clone()).unwrap_or_default();
                let scale = places.ok_or_else(|| ValueError { path: path(), expected })?;
                converted(amount_at, |json| {
                    let is_number = Number::parse(&plain(&json)).is_some();
                    let units = owned(json, |json| convert(&Form::Decimal { scale }, json));
                    units.map_err(|problem| match problem {
                        BEYOND => "amount: it has more than 64 bits",
                        _ if is_number => "amount: it has more decimal places than its currency",
                        _ => "amount: it is not a number",
                    })
                })
            }
        }
    }
}

/// The first of these values that exists, as JSON text, and its path. `has_blanks`: an empty text is no value.
fn first<'p, 'b>(
    paths: &'p [PathRead],
    scope: Scope<'b>,
    has_blanks: bool,
) -> Option<(&'p PathRead, Cow<'b, str>)> {
    let mut values = paths.iter().filter_map(|path| Some((path, path.json(scope)?)));
    values.find(|(_, json)| !has_blanks || json != "\"\"")
}

fn converted<'b, T>(
    found: Option<(&PathRead, Cow<'b, str>)>,
    convert: impl Fn(Cow<'b, str>) -> Result<T, &'static str>,
) -> Result<Option<T>, ValueError> {
    let Some((path, json)) = found else { return Ok(None) };
    let wrong_form = |expected| ValueError { path: path.text.clone(), expected };
    convert(json).map(Some).map_err(wrong_form)
}

/// Converts a text, borrowed or not.
fn owned<'b, E>(
    json: Cow<'b, str>,
    convert: impl for<'j> Fn(&'j str) -> Result<Cow<'j, str>, E>,
) -> Result<Cow<'b, str>, E> {
    match json {
        Cow::Borrowed(json) => convert(json),
        Cow::Owned(json) => convert(&json).map(|json| Cow::Owned(json.into_owned())),
    }
}

/// A text as JSON.
fn quoted(text: &str) -> Cow<'static, str> {
    Cow::Owned(serde_json::Value::from(text).to_string())
}

impl Form {
    /// The text of the stored form of a text, or the required form.
    #[cfg(feature = "toml")]
    pub(crate) fn stored_text(&self, text: &str) -> Result<String, &'static str> {
        let json = quoted(text);
        let stored = self.stored(&json)?;
        Ok(plain(&stored).into_owned())
    }

    /// Whether a column of this form cannot store a constant as it is.
    #[cfg(feature = "toml")]
    pub(crate) fn is_lossy(&self, json: &str) -> bool {
        self.stored(json).is_err()
    }

    /// Whether an empty text is no value: it is no number, no boolean and no time.
    const fn has_blanks(&self) -> bool {
        match self {
            Self::Boolean | Self::Decimal { .. } | Self::Time(_) => true,
            Self::Column(affinity) => matches!(affinity, Affinity::Integer | Affinity::Real),
            Self::AsIs | Self::Text | Self::Json => false,
        }
    }

    /// The stored form of a JSON text that is not `null`, or the required form.
    fn stored<'j>(&self, json: &'j str) -> Result<Cow<'j, str>, &'static str> {
        let is_text = json.starts_with('"');
        match self {
            Self::Text if is_text => Ok(Cow::Borrowed(json)),
            Self::Text if json.starts_with(['{', '[']) => Err("text"),
            Self::Text => Ok(match Number::parse(json) {
                Some(number) => quoted(&number.to_string()),
                None => quoted(json),
            }),
            Self::Json => Ok(quoted(json)),
            Self::Boolean => {
                let text = plain(json);
                let is = |word: &str, number: &str| text == word || same(&text, number);
                match (is("true", "1"), is("false", "0")) {
                    (true, _) => Ok(Cow::Borrowed("1")),
                    (_, true) => Ok(Cow::Borrowed("0")),
                    _ => Err("boolean"),
                }
            }
            Self::Decimal { scale } => {
                let expected = if *scale == 0 {
                    "whole number"
                } else {
                    "number with at most `scale` decimal places"
                };
                let text = plain(json);
                let number = Number::parse(&text).ok_or(expected)?;
                let is_beyond = number.units(*scale, true).is_none();
                let units = number.units(*scale, false);
                Ok(Cow::Owned(units.ok_or(if is_beyond { BEYOND } else { expected })?.to_string()))
            }
            Self::Time(time) => time.stored(&plain(json)).map(Cow::Owned),
            // Most numbers.
            Self::AsIs | Self::Column(_)
                if *self != REAL && json.parse::<i64>().is_ok() && json != "-0" =>
            {
                Ok(Cow::Borrowed(json))
            }
            Self::AsIs | Self::Column(_) => {
                let text = plain(json);
                let takes_texts = matches!(
                    self,
                    Self::Column(Affinity::Integer | Affinity::Real | Affinity::Numeric)
                );
                let number = Number::parse(&text).filter(|_| !is_text || takes_texts);
                number.map_or(Ok(Cow::Borrowed(json)), |number| self.number(json, &number))
            }
        }
    }

    /// A number as this form stores it: in one spelling, and as it is.
    fn number<'j>(&self, json: &'j str, number: &Number<'_>) -> Result<Cow<'j, str>, &'static str> {
        let text = number.to_string();
        let float = text.parse().ok().filter(|float: &f64| float.is_finite());
        let is_same = float
            .is_some_and(|float| Number::parse(&format!("{float:e}")).as_ref() == Some(number));
        if let Some(whole) = number.units(0, false) {
            return if is_same || *self != REAL {
                Ok(Cow::Owned(whole.to_string()))
            } else {
                Err("number that the column can store; a TEXT column stores all digits")
            };
        }
        let is_exact = number.digits() <= EXACT_DIGITS && is_same;
        match self {
            // SQLite would print a fraction with up to 17 digits.
            Self::Column(Affinity::Text) => Ok(quoted(&text)),
            _ if is_exact => Ok(Cow::Owned(text)),
            Self::Column(Affinity::AsIs) => Ok(quoted(&text)),
            _ if float.is_none() => Err("64-bit number; a TEXT column stores all digits"),
            _ if number.is_whole() => Err("64-bit integer; a TEXT column stores all digits"),
            Self::Column(Affinity::Integer) => Err("whole number"),
            // Other columns store what is next to it.
            _ => Ok(Cow::Borrowed(json)),
        }
    }
}

/// The form of values for columns of floating-point numbers.
const REAL: Form = Form::Column(Affinity::Real);

/// What an amount that is too large should have been.
const BEYOND: &str = "number of at most 64 bits";

/// The number of significant digits that every number of 64 bits keeps.
const EXACT_DIGITS: usize = f64::DIGITS as usize;

/// Whether a value in its stored form may be a key. Values of other kinds have several spellings that the database does not
/// distinguish, such as `true` and 1, and C programs do not see what follows a NUL character.
fn is_key(json: &str) -> Result<(), &'static str> {
    if !json.starts_with('"') {
        let is_integer = json.parse::<i64>().is_ok();
        return if is_integer {
            Ok(())
        } else {
            Err(
                "key: a key is text or an integer; convert it with `{ text = … }` or `{ boolean = … }` in the rule",
            )
        };
    }
    if json.contains("\\u0000") && plain(json).contains('\0') {
        return Err("key: it contains a NUL character");
    }
    Ok(())
}

/// The content of a string, or the JSON text of another value.
pub(super) fn plain(json: &str) -> Cow<'_, str> {
    match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Cow::Borrowed(text),
        Some(_) => Cow::Owned(serde_json::from_str(json).unwrap_or_default()),
        None => Cow::Borrowed(json),
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Body;
    use crate::time::Spelling;

    #[test]
    fn a_path_into_an_element_prints_as_it_was_written() {
        for text in ["@", "@.id", "@[0]", "@.a[0].b", "@.a[b = c].d", "a.b", "$", "header:x-at"] {
            assert_eq!(text.parse::<ValuePath>().unwrap().to_string(), text);
        }
        for (text, expected) in [
            ("@x", "expected `.`, `[` or the end at character 2"),
            ("@.", "expected a name at character 3"),
            ("@.a..b", "expected a name at character 5"),
            ("a.@", "expected a name at character 3"),
            ("header:", "expected the name of a header at character 8"),
            ("header:X At", "expected the name of a header at character 9"),
        ] {
            assert_eq!(text.parse::<ValuePath>().unwrap_err().to_string(), expected, "{text}");
        }
    }

    const NOT_REAL: &str = "number that the column can store; a TEXT column stores all digits";
    const NOT_AN_INTEGER: &str = "64-bit integer; a TEXT column stores all digits";

    #[test]
    fn a_key_is_text_or_an_integer() {
        for json in ["0", "-9223372036854775808", "\"\"", r#""a\"b""#, r#""\\u0000""#] {
            assert_eq!(is_key(json), Ok(()), "{json}");
        }
        for json in ["true", "1.0", "1e3", "9223372036854775808", "[1]", "{}"] {
            let error = is_key(json).unwrap_err();
            assert!(error.starts_with("key: a key is text or an integer"), "{json}: {error}");
        }
        let nul = is_key(r#""a\u0000b""#).unwrap_err();
        assert_eq!(nul, "key: it contains a NUL character");
    }

    #[test]
    fn a_form_is_stored_in_one_way() {
        let exact = || Form::Column(Affinity::Text);
        let integral = || Form::Column(Affinity::Integer);
        let numeric = || Form::Column(Affinity::Numeric);
        let cents = || Form::Decimal { scale: 2 };
        let whole = || Form::Decimal { scale: 0 };
        for (form, json, expected) in [
            (Form::AsIs, "[1]", Ok("[1]")),
            (Form::AsIs, "[9223372036854775808]", Ok("[9223372036854775808]")),
            (Form::AsIs, "-9223372036854775808", Ok("-9223372036854775808")),
            (Form::AsIs, "9223372036854775808", Err(NOT_AN_INTEGER)),
            (Form::AsIs, "-9223372036854775809", Err(NOT_AN_INTEGER)),
            (exact(), "9223372036854775807", Ok("9223372036854775807")),
            (exact(), "9223372036854775808", Ok("\"9223372036854775808\"")),
            (exact(), "-1e999", Ok("\"-1e999\"")),
            (exact(), "1e30", Ok("\"1000000000000000000000000000000\"")),
            (exact(), "1e2", Ok("100")),
            (exact(), "-0.0", Ok("0")),
            (exact(), "3.0000000000000004e-1", Ok("\"0.30000000000000004\"")),
            (exact(), "2.5e-324", Ok("\"25e-325\"")),
            (Form::AsIs, "10000000000000000000", Ok("10000000000000000000")),
            (Form::AsIs, "1e19", Ok("10000000000000000000")),
            (Form::AsIs, "18446744073709551616.0", Err(NOT_AN_INTEGER)),
            (integral(), "9007199254740993.5", Err("whole number")),
            (integral(), "1e-400", Err("whole number")),
            (integral(), "\"9007199254740993.0\"", Ok("9007199254740993")),
            (integral(), "\"007\"", Ok("7")),
            (integral(), "\"a\"", Ok("\"a\"")),
            (integral(), "1.5", Ok("1.5")),
            (REAL, "9007199254740992", Ok("9007199254740992")),
            (REAL, "9007199254740993", Err(NOT_REAL)),
            (REAL, "\"9007199254740993\"", Err(NOT_REAL)),
            (REAL, "1e19", Ok("10000000000000000000")),
            (REAL, "\"12.50\"", Ok("12.5")),
            (REAL, "\"a\"", Ok("\"a\"")),
            (numeric(), "9007199254740993", Ok("9007199254740993")),
            (numeric(), "\"9223372036854775808\"", Err(NOT_AN_INTEGER)),
            (numeric(), "\"12.50\"", Ok("12.5")),
            (Form::Column(Affinity::AsIs), "12.50", Ok("12.5")),
            (Form::Column(Affinity::AsIs), "3.0000000000000004e-1", Ok("\"0.30000000000000004\"")),
            (Form::Column(Affinity::AsIs), "\"12.50\"", Ok("\"12.50\"")),
            (exact(), "[1]", Ok("[1]")),
            (exact(), "12.50", Ok("\"12.5\"")),
            (exact(), "0.1234567890123456789", Ok("\"0.1234567890123456789\"")),
            (Form::AsIs, "0.1234567890123456789", Ok("0.1234567890123456789")),
            (exact(), "9007199254740993.0", Ok("9007199254740993")),
            (Form::AsIs, "-9007199254740993.0", Ok("-9007199254740993")),
            (Form::AsIs, "9.007199254740993e15", Ok("9007199254740993")),
            (Form::Text, "9223372036854775808", Ok("\"9223372036854775808\"")),
            (Form::AsIs, "1.5e300", Ok("15e299")),
            (Form::AsIs, "-1e999", Err("64-bit number; a TEXT column stores all digits")),
            (Form::Text, "12.50", Ok("\"12.5\"")),
            (Form::Text, "7.0", Ok("\"7\"")),
            (Form::Text, "true", Ok("\"true\"")),
            (Form::Text, r#""a\"b""#, Ok(r#""a\"b""#)),
            (Form::Text, "{}", Err("text")),
            (Form::Json, "\"a\"", Ok(r#""\"a\"""#)),
            (Form::Json, "{\"a\": 1}", Ok(r#""{\"a\": 1}""#)),
            (Form::Boolean, "true", Ok("1")),
            (Form::Boolean, "\"false\"", Ok("0")),
            (Form::Boolean, "1", Ok("1")),
            (Form::Boolean, "1.0", Ok("1")),
            (Form::Boolean, "\"-0\"", Ok("0")),
            (Form::Boolean, "2", Err("boolean")),
            (Form::Boolean, "\"yes\"", Err("boolean")),
            (whole(), "\"12\"", Ok("12")),
            (whole(), "12.0", Ok("12")),
            (whole(), "\"-0012\"", Ok("-12")),
            (whole(), "\"12.5\"", Err("whole number")),
            (whole(), "\"\"", Err("whole number")),
            (whole(), "\"1e3\"", Ok("1000")),
            (whole(), "8.13548e+8", Ok("813548000")),
            (whole(), "1700000000.0", Ok("1700000000")),
            (whole(), "0.5", Err("whole number")),
            (whole(), "\"9223372036854775807\"", Ok("9223372036854775807")),
            (whole(), "\"9223372036854775808\"", Err(BEYOND)),
            (cents(), "\"12.5\"", Ok("1250")),
            (cents(), "12", Ok("1200")),
            (cents(), "\"-0.05\"", Ok("-5")),
            (cents(), "\"12.500\"", Ok("1250")),
            (cents(), "\"12.505\"", Err("number with at most `scale` decimal places")),
            (cents(), "\"12.\"", Err("number with at most `scale` decimal places")),
            (cents(), "\".5\"", Err("number with at most `scale` decimal places")),
            (cents(), "\"1,5\"", Err("number with at most `scale` decimal places")),
            (time(Spelling::UnixSeconds), "1767225600", Ok("1767225600000")),
            (time(Spelling::UnixSeconds), "\"1767225600.000215\"", Ok("1767225600000")),
            (time(Spelling::UnixSeconds), "\"2026-01-01\"", Err("time in Unix seconds")),
            (time(Spelling::UnixMilliseconds), "1767225600123", Ok("1767225600123")),
            (time(Spelling::Rfc3339), "\"2026-01-01T00:00:00.621022Z\"", Ok("1767225600621")),
            (time(Spelling::Rfc3339), "\"2026-01-01T02:00:00+02:00\"", Ok("1767225600000")),
            (time(Spelling::Rfc3339), "1767225600", Err("RFC 3339 time")),
        ] {
            assert_eq!(form.stored(json).as_deref().map_err(|e| *e), expected, "{form:?} {json}");
        }
    }

    fn time(spelling: Spelling) -> Form {
        Form::Time(Box::new(TimeForm::of(spelling)))
    }

    /// Reads a value from a body.
    fn read<T>(
        value: &Value,
        reads: &Reads,
        body: &str,
        read: impl Fn(&Value, Scope<'_>) -> T,
    ) -> T {
        let body = Body::new(body.as_bytes()).unwrap();
        let received_at = Timestamp::from_millis(1_767_225_600_000);
        let event =
            EventFacts { source: "s", id: "e", kind: "k", received_at, headers: &BTreeMap::new() };
        read(value, Scope { body: &reads.read(&body).unwrap(), element: None, event })
    }

    fn at(paths: &[&str], reads: &mut Reads) -> Vec<PathRead> {
        let mut element = Reads::default();
        let mut places = Places { body: reads, element: &mut element };
        paths.iter().map(|path| places.add(&path.parse().unwrap())).collect()
    }

    #[test]
    fn a_version_is_a_whole_number_or_a_time_in_microseconds() {
        for (form, json, expected) in [
            (
                time(Spelling::Rfc3339),
                "\"2026-01-01T00:00:00.621022Z\"",
                Some(1_767_225_600_621_022),
            ),
            (time(Spelling::UnixSeconds), "1767225600", Some(1_767_225_600_000_000)),
            (time(Spelling::UnixMilliseconds), "1767225600123", Some(1_767_225_600_123_000)),
            (Form::AsIs, "1", Some(1)),
            (Form::AsIs, "1.700e9", Some(1_700_000_000)),
            (Form::AsIs, "1.5", None),
            (Form::AsIs, "\"1\"", None),
        ] {
            let mut reads = Reads::default();
            let value = Value::Paths { paths: at(&["at"], &mut reads), form };
            let body = format!("{{\"at\":{json}}}");
            let version =
                read(&value, &reads, &body, |value, scope| value.version(scope).ok().flatten());
            assert_eq!(version, expected, "{json}");
        }
        let mut reads = Reads::default();
        let value = Value::Paths { paths: at(&["v", "w"], &mut reads), form: Form::AsIs };
        let body = r#"{"v":"","w":5}"#;
        let version = read(&value, &reads, body, |value, scope| value.version(scope).unwrap());
        assert_eq!(version, Some(5), "an empty text is no number");
    }

    #[test]
    fn an_empty_text_is_no_number_no_boolean_and_no_time() {
        let rfc3339 = || time(Spelling::Rfc3339);
        for (form, expected) in [
            (Form::Boolean, None),
            (Form::Decimal { scale: 2 }, None),
            (rfc3339(), None),
            (Form::Column(Affinity::Integer), None),
            (Form::Column(Affinity::Real), None),
            (Form::Column(Affinity::Numeric), Some("\"\"")),
            (Form::Column(Affinity::Text), Some("\"\"")),
            (Form::Text, Some("\"\"")),
        ] {
            let mut reads = Reads::default();
            let value = Value::Paths { paths: at(&["a"], &mut reads), form: form.clone() };
            let stored = read(&value, &reads, r#"{"a":""}"#, |value, scope| {
                value.json(scope).unwrap().map(Cow::into_owned)
            });
            assert_eq!(stored.as_deref(), expected, "{form:?}");
        }
        let mut reads = Reads::default();
        let value = Value::Paths { paths: at(&["a", "b"], &mut reads), form: Form::Boolean };
        let body = r#"{"a":"","b":true}"#;
        let stored = read(&value, &reads, body, |value, scope| {
            value.json(scope).unwrap().unwrap().into_owned()
        });
        assert_eq!(stored, "1");
    }

    #[test]
    fn an_amount_has_the_decimal_places_of_its_currency() {
        for (body, expected) in [
            (r#"{"total":"12.34","currency":"USD"}"#, Ok(Some("1234"))),
            (r#"{"total":1234,"currency":"jpy"}"#, Ok(Some("1234"))),
            (r#"{"total":"","currency":""}"#, Ok(None)),
            (r#"{"total":"1.234","currency":"KWD"}"#, Ok(Some("1234"))),
            (
                r#"{"total":"12.345","currency":"USD"}"#,
                Err("amount: it has more decimal places than its currency"),
            ),
            (
                r#"{"total":"92233720368547758.08","currency":"USD"}"#,
                Err("amount: it has more than 64 bits"),
            ),
            (r#"{"total":"12 USD","currency":"USD"}"#, Err("amount: it is not a number")),
            (r#"{"total":"12","currency":"XYZ"}"#, Err("currency of ISO 4217")),
            (r#"{"total":"12"}"#, Err("amount, since its currency is missing")),
            (r#"{"currency":"USD"}"#, Ok(None)),
        ] {
            let mut reads = Reads::default();
            let value = Value::Money {
                amount: at(&["total"], &mut reads),
                currency: at(&["nothing", "currency"], &mut reads),
            };
            let found = read(&value, &reads, body, |value, scope| {
                value
                    .json(scope)
                    .map(|json| json.map(Cow::into_owned))
                    .map_err(|error| error.expected)
            });
            assert_eq!(found, expected.map(|json| json.map(ToOwned::to_owned)), "{body}");
        }
    }

    proptest! {
        #[test]
        fn decimals_are_exact(units in any::<i64>(), scale in 0_u32..9) {
            let power = 10_i128.pow(scale);
            let (whole, rest) = (i128::from(units) / power, (i128::from(units) % power).abs());
            let sign = if units < 0 && whole == 0 { "-" } else { "" };
            let text = if scale == 0 {
                format!("\"{whole}\"")
            } else {
                format!("\"{sign}{whole}.{rest:0width$}\"", width = scale as usize)
            };
            let form = Form::Decimal { scale };
            prop_assert_eq!(form.stored(&text).unwrap(), units.to_string());
        }

        #[test]
        fn no_form_panics(json in any::<String>(), scale in 0_u32..19) {
            let formats = Spelling::Formats(vec!["%F %T".to_owned(), "%c".to_owned()]);
            let of_columns = [Affinity::Text, Affinity::Integer, Affinity::Real, Affinity::Numeric].map(Form::Column);
            for form in of_columns.into_iter().chain([Form::AsIs, time(formats), Form::Text, Form::Json, Form::Boolean, Form::Decimal { scale }, time(Spelling::UnixSeconds), time(Spelling::UnixMilliseconds), time(Spelling::Rfc3339)]) {
                let text = serde_json::Value::from(json.as_str()).to_string();
                let _ = form.stored(&text);
            }
        }
    }
}
