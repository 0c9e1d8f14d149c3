//! Values of rules: their sources, and their forms.

// Values come from payloads, tokens and databases.
#![warn(clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::fmt;
use std::ops::Add as _;
use std::str::FromStr;
use std::time::Duration;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::path::{Path, PathError};
use super::read::{NotJson, Read, Reads, Values};
use hookmill_core::time::Timestamp;

/// How far the version of an event may be after its receipt, if it is a time.
pub const VERSION_AHEAD: Duration = Duration::from_hours(24);

/// A path in a rule: into the body, or, with `@` in front, into the element of the list that `each` names.
///
/// `@` is the current node of JSONPath: <https://www.rfc-editor.org/rfc/rfc9535>.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValuePath {
    /// Whether it begins at the element.
    pub element: bool,
    /// The steps from there.
    pub path: Path,
}

impl FromStr for ValuePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let Some(rest) = text.strip_prefix('@') else {
            return Ok(Self { element: false, path: text.parse()? });
        };
        let path = match rest.strip_prefix('.') {
            Some(path) => path.parse(),
            None if rest.is_empty() => Ok(Path { steps: Vec::new(), select: None }),
            None if rest.starts_with('[') => rest.parse(),
            None => Err(PathError { problem: "expected `.`, `[` or the end", position: 1 }),
        };
        let before = text.len().saturating_sub(rest.len());
        let before = before.saturating_add(usize::from(rest.starts_with('.')));
        let further = |error: PathError| PathError {
            position: error.position.saturating_add(before),
            ..error
        };
        Ok(Self { element: true, path: path.map_err(further)? })
    }
}

/// The path as a rule would write it.
impl fmt::Display for ValuePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string();
        match (self.element, path.as_str()) {
            (false, path) => f.write_str(path),
            (true, path) if path.is_empty() || path.starts_with('[') => write!(f, "@{path}"),
            (true, path) => write!(f, "@.{path}"),
        }
    }
}

/// A path with its slots in a [`Reads`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PathRead {
    read: Read,
    element: bool,
    /// As in hookmill.toml, for messages.
    pub text: String,
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
        let reads = if path.element { &mut *self.element } else { &mut *self.body };
        PathRead { read: reads.add(&path.path), element: path.element, text: path.to_string() }
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
}

impl PathRead {
    /// Whether it begins at the element of `each`.
    pub const fn of_element(&self) -> bool {
        self.element
    }

    /// The JSON text at the path; `None` if there is no value, or `null`.
    ///
    /// # Errors
    ///
    /// [`NotJson`], as in [`Read::value`].
    pub fn json<'b>(&self, scope: Scope<'b>) -> Result<Option<&'b str>, NotJson> {
        match (self.element, scope.element) {
            (false, _) => self.read.value(scope.body),
            (true, Some(element)) => self.read.value(element),
            (true, None) => Ok(None),
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Stored as is: a text, a number, 1 and 0 for true and false, JSON for lists and objects.
    AsIs,
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
    /// Seconds since the Unix epoch, optionally with a fraction, stored as milliseconds.
    UnixSeconds,
    /// Milliseconds since the Unix epoch.
    UnixMilliseconds,
    /// <https://www.rfc-editor.org/rfc/rfc3339>, stored as milliseconds since the Unix epoch.
    Rfc3339,
}

/// A value does not have the form that the rule requires.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ValueError {
    /// The body is not JSON.
    #[error(transparent)]
    NotJson(#[from] NotJson),
    /// The value has another form. The error does not contain the value, since errors are stored and displayed.
    #[error("the value at `{path}` is not a valid {expected}")]
    Form {
        /// Its path.
        path: String,
        /// The required form.
        expected: &'static str,
    },
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
            Self::Paths { paths, .. } => {
                let paths: Vec<_> = paths.iter().map(|path| path.text.as_str()).collect();
                f.write_str(&paths.join("` or `"))
            }
        }
    }
}

impl Value {
    /// Whether it is read from an element of a list.
    pub fn is_of_element(&self) -> bool {
        matches!(self, Self::Paths { paths, .. } if paths.iter().any(PathRead::of_element))
    }

    /// The value as JSON text in its stored form; `None` if there is no value.
    ///
    /// # Errors
    ///
    /// [`ValueError`].
    pub fn json<'b>(&'b self, scope: Scope<'b>) -> Result<Option<Cow<'b, str>>, ValueError> {
        self.read(scope, Form::stored)
    }

    /// The value as a version. A time is in microseconds, so that none of its precision is lost.
    ///
    /// # Errors
    ///
    /// [`ValueError`]: also for a time more than a day after the receipt of the event. The row would ignore
    /// every other event until then.
    pub fn version(&self, scope: Scope<'_>) -> Result<Option<i64>, ValueError> {
        let latest = scope.event.received_at.add(VERSION_AHEAD).micros();
        let found = self.read(scope, |form, json| match form.micros(json) {
            Some(Ok(micros)) if micros > latest => {
                Err("version: it is a time more than a day after the receipt of the event")
            }
            Some(time) => time.map(|micros| Cow::Owned(micros.to_string())),
            None if form == Form::AsIs => {
                json.parse::<i64>().map(|_| Cow::Borrowed(json)).map_err(|_| "whole number")
            }
            None => form.stored(json),
        })?;
        Ok(found.and_then(|number| number.parse().ok()))
    }

    /// The value of a key, as JSON text in its stored form. Equal keys have equal values in the body.
    ///
    /// # Errors
    ///
    /// [`ValueError`]: also for a value that is neither text nor an integer, and for a text with a NUL character.
    pub fn key<'b>(&'b self, scope: Scope<'b>) -> Result<Option<Cow<'b, str>>, ValueError> {
        self.read(scope, |form, json| {
            let stored = form.stored(json)?;
            is_key(&stored)?;
            Ok(stored)
        })
    }

    fn read<'b>(
        &'b self,
        scope: Scope<'b>,
        convert: impl Fn(Form, &'b str) -> Result<Cow<'b, str>, &'static str>,
    ) -> Result<Option<Cow<'b, str>>, ValueError> {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Constant(json) => Ok(Some(Cow::Borrowed(json))),
            Self::Event(field) => Ok(Some(Cow::Owned(match field {
                EventField::Id => text(scope.event.id),
                EventField::Type => text(scope.event.kind),
                EventField::Source => text(scope.event.source),
                EventField::ReceivedAt => scope.event.received_at.millis().to_string(),
            }))),
            Self::Paths { paths, form } => {
                for path in paths {
                    let Some(json) = path.json(scope)? else { continue };
                    let wrong_form =
                        |expected| ValueError::Form { path: path.text.clone(), expected };
                    return convert(*form, json).map(Some).map_err(wrong_form);
                }
                Ok(None)
            }
        }
    }
}

impl Form {
    /// Whether it is a time.
    pub const fn is_time(self) -> bool {
        matches!(self, Self::UnixSeconds | Self::UnixMilliseconds | Self::Rfc3339)
    }

    /// The stored form of a JSON text that is not `null`, or the required form.
    fn stored(self, json: &str) -> Result<Cow<'_, str>, &'static str> {
        if let Some(time) = self.micros(json) {
            return time.map(|micros| Cow::Owned(micros.div_euclid(1000).to_string()));
        }
        let is_text = json.starts_with('"');
        let quoted = |text: &str| Cow::Owned(serde_json::Value::from(text).to_string());
        match self {
            Self::Text if is_text => Ok(Cow::Borrowed(json)),
            Self::Text if json.starts_with(['{', '[']) => Err("text"),
            Self::Text | Self::Json => Ok(quoted(json)),
            Self::Boolean => match plain(json).as_ref() {
                "true" | "1" => Ok(Cow::Borrowed("1")),
                "false" | "0" => Ok(Cow::Borrowed("0")),
                _ => Err("boolean"),
            },
            Self::Decimal { scale } => {
                let expected = if scale == 0 {
                    "whole number"
                } else {
                    "number with at most `scale` decimal places"
                };
                let units = units(&plain(json), scale, false).ok_or(expected)?;
                Ok(Cow::Owned(units.to_string()))
            }
            Self::AsIs if json.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                exact(json).map(|()| Cow::Borrowed(json))
            }
            Self::AsIs | Self::UnixSeconds | Self::UnixMilliseconds | Self::Rfc3339 => {
                Ok(Cow::Borrowed(json))
            }
        }
    }

    /// A time in microseconds since the Unix epoch; `None` if the form is not a time.
    fn micros(self, json: &str) -> Option<Result<i64, &'static str>> {
        let text = plain(json);
        Some(match self {
            Self::UnixSeconds => units(&text, 6, true).ok_or("time in Unix seconds"),
            Self::UnixMilliseconds => units(&text, 3, true).ok_or("time in Unix milliseconds"),
            Self::Rfc3339 => {
                let time = DateTime::parse_from_rfc3339(&text);
                time.map(|time| time.timestamp_micros()).map_err(|_| "RFC 3339 time")
            }
            _ => return None,
        })
    }
}

/// Whether a database stores a number as it is. It would round larger integers, and two ids would become one.
fn exact(number: &str) -> Result<(), &'static str> {
    let is_integer = !number.contains(['.', 'e', 'E']);
    if is_integer && number.parse::<i64>().is_err() {
        return Err("64-bit integer; `{ text = … }` in the rule stores it exactly");
    }
    let is_finite = number.parse::<f64>().is_ok_and(f64::is_finite);
    if is_finite {
        Ok(())
    } else {
        Err("64-bit number; `{ text = … }` in the rule stores it exactly")
    }
}

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

/// Whether a JSON text is this string.
pub(super) fn is_text(json: &str, text: &str) -> bool {
    json.starts_with('"') && plain(json) == text
}

/// The content of a string, or the JSON text of another value.
fn plain(json: &str) -> Cow<'_, str> {
    match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Cow::Borrowed(text),
        Some(_) => Cow::Owned(serde_json::from_str(json).unwrap_or_default()),
        None => Cow::Borrowed(json),
    }
}

/// A decimal number in units of its `scale`th decimal place. Further digits must be zero, unless `cut` allows to drop them.
fn units(text: &str, scale: u32, cut: bool) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if digits.is_empty() || !all_digits(digits) || !all_digits(fraction) || text.ends_with('.') {
        return None;
    }
    let kept = fraction.get(..scale as usize).unwrap_or(fraction);
    if !cut && fraction[kept.len()..].bytes().any(|b| b != b'0') {
        return None;
    }
    let zeros = std::iter::repeat_n(b'0', (scale as usize).saturating_sub(kept.len()));
    let mut all =
        digits.bytes().chain(kept.bytes()).chain(zeros).map(|b| i64::from(b.saturating_sub(b'0')));
    all.try_fold(0_i64, |units, digit| {
        let units = units.checked_mul(10)?;
        if whole.starts_with('-') { units.checked_sub(digit) } else { units.checked_add(digit) }
    })
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_into_an_element_prints_as_it_was_written() {
        for text in ["@", "@.id", "@[0]", "@.a[0].b", "@.a[b = c].d", "a.b"] {
            assert_eq!(text.parse::<ValuePath>().unwrap().to_string(), text);
        }
        for (text, expected) in [
            ("@x", "expected `.`, `[` or the end at character 2"),
            ("@.", "expected a name at character 3"),
            ("@.a..b", "expected a name at character 5"),
            ("a.@", "expected a name at character 3"),
        ] {
            assert_eq!(text.parse::<ValuePath>().unwrap_err().to_string(), expected, "{text}");
        }
    }

    const NOT_AN_INTEGER: &str = "64-bit integer; `{ text = … }` in the rule stores it exactly";

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
        let cents = Form::Decimal { scale: 2 };
        let whole = Form::Decimal { scale: 0 };
        for (form, json, expected) in [
            (Form::AsIs, "[1]", Ok("[1]")),
            (Form::AsIs, "[9223372036854775808]", Ok("[9223372036854775808]")),
            (Form::AsIs, "-9223372036854775808", Ok("-9223372036854775808")),
            (Form::AsIs, "9223372036854775808", Err(NOT_AN_INTEGER)),
            (Form::AsIs, "-9223372036854775809", Err(NOT_AN_INTEGER)),
            (Form::Text, "9223372036854775808", Ok("\"9223372036854775808\"")),
            (Form::AsIs, "1.5e300", Ok("1.5e300")),
            (
                Form::AsIs,
                "-1e999",
                Err("64-bit number; `{ text = … }` in the rule stores it exactly"),
            ),
            (Form::Text, "12.50", Ok("\"12.50\"")),
            (Form::Text, "true", Ok("\"true\"")),
            (Form::Text, r#""a\"b""#, Ok(r#""a\"b""#)),
            (Form::Text, "{}", Err("text")),
            (Form::Json, "\"a\"", Ok(r#""\"a\"""#)),
            (Form::Json, "{\"a\": 1}", Ok(r#""{\"a\": 1}""#)),
            (Form::Boolean, "true", Ok("1")),
            (Form::Boolean, "\"false\"", Ok("0")),
            (Form::Boolean, "1", Ok("1")),
            (Form::Boolean, "\"yes\"", Err("boolean")),
            (whole, "\"12\"", Ok("12")),
            (whole, "12.0", Ok("12")),
            (whole, "\"-0012\"", Ok("-12")),
            (whole, "\"12.5\"", Err("whole number")),
            (whole, "\"\"", Err("whole number")),
            (whole, "\"1e3\"", Err("whole number")),
            (whole, "\"9223372036854775807\"", Ok("9223372036854775807")),
            (whole, "\"9223372036854775808\"", Err("whole number")),
            (cents, "\"12.5\"", Ok("1250")),
            (cents, "12", Ok("1200")),
            (cents, "\"-0.05\"", Ok("-5")),
            (cents, "\"12.500\"", Ok("1250")),
            (cents, "\"12.505\"", Err("number with at most `scale` decimal places")),
            (cents, "\"12.\"", Err("number with at most `scale` decimal places")),
            (cents, "\".5\"", Err("number with at most `scale` decimal places")),
            (cents, "\"1,5\"", Err("number with at most `scale` decimal places")),
            (Form::UnixSeconds, "1767225600", Ok("1767225600000")),
            (Form::UnixSeconds, "\"1767225600.000215\"", Ok("1767225600000")),
            (Form::UnixSeconds, "\"2026-01-01\"", Err("time in Unix seconds")),
            (Form::UnixMilliseconds, "1767225600123", Ok("1767225600123")),
            (Form::Rfc3339, "\"2026-01-01T00:00:00.621022Z\"", Ok("1767225600621")),
            (Form::Rfc3339, "\"2026-01-01T02:00:00+02:00\"", Ok("1767225600000")),
            (Form::Rfc3339, "1767225600", Err("RFC 3339 time")),
        ] {
            assert_eq!(form.stored(json).as_deref().map_err(|e| *e), expected, "{form:?} {json}");
        }
    }

    #[test]
    fn a_version_keeps_microseconds() {
        assert_eq!(
            Form::Rfc3339.micros("\"2026-01-01T00:00:00.621022Z\""),
            Some(Ok(1_767_225_600_621_022))
        );
        assert_eq!(Form::UnixSeconds.micros("1767225600"), Some(Ok(1_767_225_600_000_000)));
        assert_eq!(Form::UnixMilliseconds.micros("1767225600123"), Some(Ok(1_767_225_600_123_000)));
        assert_eq!(Form::AsIs.micros("1"), None);
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
            for form in [Form::Text, Form::Json, Form::Boolean, Form::Decimal { scale }, Form::UnixSeconds, Form::UnixMilliseconds, Form::Rfc3339] {
                let text = serde_json::Value::from(json.as_str()).to_string();
                let _ = form.stored(&text);
            }
        }
    }
}
