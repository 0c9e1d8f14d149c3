//! Reads a TOML document so that every error in it is reported at once, each with its place and a hint.
//!
//! serde stops at the first error. Here, a section hands out its values, remembers which keys it was asked for, and reports
//! the others as unknown. A key may be missing only because it is misspelled, so a section with unknown or unusable keys does
//! not report missing ones.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::place::{ConfigError, Located, Place};

/// A file that is being read, and the errors found so far.
pub struct Document<'d> {
    file: Arc<str>,
    text: &'d str,
    /// Where each line begins, but for the first.
    lines: Vec<usize>,
    errors: RefCell<Vec<ConfigError>>,
    warnings: RefCell<Vec<ConfigError>>,
}

impl<'d> Document<'d> {
    /// `file` is its name in messages.
    pub fn new(file: &str, text: &'d str) -> Self {
        let lines = text.match_indices('\n').map(|(i, _)| i + 1).collect();
        let (errors, warnings) = Default::default();
        Self { file: file.into(), text, lines, errors, warnings }
    }

    /// Parses the text. Reports the first syntax error, since the others may only follow from it, and returns what the parser
    /// could read.
    pub fn parse(&self) -> Spanned<DeTable<'d>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let place = |error: &toml::de::Error| self.place(&error.span().unwrap_or(0..0));
        let first = errors.iter().map(|error| (place(error), error)).min_by(|a, b| a.0.cmp(&b.0));
        if let Some((at, error)) = first {
            let excerpt = Some(self.excerpt(&at).into());
            let error = ConfigError::new(at, "", error.message());
            self.report(ConfigError { excerpt, ..error });
        }
        table
    }

    /// A line of the file, with a caret below the place. If that is where the line begins, the cause may be the line before.
    fn excerpt(&self, at: &Place) -> String {
        let line =
            |number: usize| self.text.lines().nth(number - 1).map(hidden).unwrap_or_default();
        let shown = line(at.line);
        let margin = at.line.to_string().len();
        let before: String = shown.chars().take(at.column - 1).collect();
        let mut excerpt = String::new();
        let previous = (1..at.line).rev().find(|number| !line(*number).trim().is_empty());
        if let Some(number) = previous.filter(|_| before.trim().is_empty()) {
            excerpt += &format!("  {number:margin$} | {}\n", line(number));
        }
        let indent: String = before.chars().map(|c| if c == '\t' { c } else { ' ' }).collect();
        excerpt + &format!("  {} | {shown}\n  {:margin$} | {indent}^", at.line, "")
    }

    /// Adds an error.
    pub fn report(&self, error: ConfigError) {
        self.errors.borrow_mut().push(error);
    }

    /// Adds a warning: a text that is valid, but probably not as it was meant.
    pub fn warn(&self, warning: ConfigError) {
        self.warnings.borrow_mut().push(warning);
    }

    /// The warnings so far.
    pub fn warnings(&self) -> Vec<ConfigError> {
        self.warnings.borrow().clone()
    }

    /// The number of errors so far.
    pub fn faults(&self) -> usize {
        self.errors.borrow().len()
    }

    /// The errors, by place.
    pub fn into_errors(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        errors.sort();
        errors
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let start = span.start.min(self.text.len());
        let line = self.lines.partition_point(|begin| *begin <= start);
        let begin = line.checked_sub(1).map_or(0, |before| self.lines[before]);
        let column = self.text.get(begin..start).map_or(0, |text| text.chars().count()) + 1;
        Place { file: self.file.clone(), line: line + 1, column }
    }

    /// The whole file as a section.
    pub fn root<'s>(&'s self, table: &'s Spanned<DeTable<'d>>) -> Section<'s> {
        Section::new(self, String::new(), table.get_ref(), &(0..0))
    }
}

/// A line without its long words that have digits: a secret may be among them.
fn hidden(line: &str) -> String {
    let of_word = |c: char| c.is_ascii_alphanumeric() || "_-+/=".contains(c);
    let may_be_secret = |word: &str| {
        word.len() >= 16
            && word.contains(|c: char| c.is_ascii_digit())
            && word.contains(|c: char| c.is_ascii_alphabetic())
    };
    let words = line.split_inclusive(|c| !of_word(c)).map(|piece| {
        let word = piece.trim_end_matches(|c| !of_word(c));
        let shown = if may_be_secret(word) { "*".repeat(word.len()) } else { word.to_owned() };
        shown + &piece[word.len()..]
    });
    words.collect()
}

/// A table that is being read.
pub struct Section<'s> {
    document: &'s Document<'s>,
    /// The key of this section and its place.
    pub here: Located<()>,
    table: &'s DeTable<'s>,
    behind: Option<&'s Section<'s>>,
    asked: RefCell<Vec<&'static str>>,
    /// Whether unknown keys are not reported.
    lenient: Cell<bool>,
    /// Errors that may only follow from an unknown or unusable key.
    consequences: RefCell<Vec<ConfigError>>,
    /// The number of errors before this section was read.
    before: usize,
}

/// A value that is being read.
pub struct Item<'s> {
    document: &'s Document<'s>,
    /// Its key and its place.
    pub here: Located<()>,
    value: &'s DeValue<'s>,
    span: Range<usize>,
}

impl<'s> Section<'s> {
    fn new(
        document: &'s Document<'_>,
        key: String,
        table: &'s DeTable<'_>,
        span: &Range<usize>,
    ) -> Self {
        let here = Located { value: (), key, at: document.place(span) };
        let (asked, lenient, consequences) = Default::default();
        let before = document.faults();
        Self { document, here, table, behind: None, asked, lenient, consequences, before }
    }

    /// The section with a fallback for missing keys.
    #[must_use]
    pub fn over(self, behind: Option<&'s Section<'s>>) -> Self {
        Self { behind, ..self }
    }

    /// The value of `key`, if there is one.
    pub fn get(&self, key: &'static str) -> Option<Item<'s>> {
        self.note(key);
        let found = self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key);
        let own = found.map(|(_, value)| self.item(key, value));
        let behind = self.behind.and_then(|section| section.get(key));
        own.or(behind)
    }

    fn note(&self, key: &'static str) {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
    }

    /// The value of `key`; reports its absence, unless an unknown or unusable key may explain it.
    pub fn require(&self, key: &'static str, hint: &str) -> Option<Item<'s>> {
        let item = self.get(key);
        if item.is_none() {
            self.report_consequence(self.here.error(format!("`{key}` is missing")).hint(hint));
        }
        item
    }

    /// The place of a key's value, if the section itself has the key.
    pub fn at(&self, key: &str) -> Option<Located<()>> {
        let (_, value) = self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key)?;
        Some(self.item(key, value).here)
    }

    /// Reports a key that is there and must not be.
    pub fn refuse(&self, key: &'static str, problem: &str, hint: &str) {
        if let Some(here) = self.at(key) {
            self.note(key);
            self.report(here.error(problem).hint(hint));
        }
    }

    /// Every member, for tables whose keys are names.
    pub fn members(&self) -> Vec<(Located<String>, Item<'s>)> {
        self.table
            .iter()
            .map(|(key, value)| {
                let name = key.get_ref().as_ref();
                let item = self.item(name, value);
                let at = self.document.place(&key.span());
                (Located { value: name.to_owned(), key: item.here.key.clone(), at }, item)
            })
            .collect()
    }

    /// Leaves unknown keys unreported: another error covers them.
    pub fn ignore_unknown(&self) {
        self.lenient.set(true);
    }

    /// Reports every key that was not asked for; if all keys are known and usable, also what is missing. Returns whether they are.
    pub fn finish(self) -> bool {
        let asked = self.asked.borrow();
        let names = self.table.keys().map(|key| (key, key.get_ref().as_ref()));
        let unknown: Vec<_> = names.filter(|(_, name)| !asked.contains(name)).collect();
        let unusable = |error: &ConfigError| {
            self.table.keys().any(|key| error.key == self.key_of(key.get_ref().as_ref()))
        };
        let sound = unknown.is_empty()
            && !self.document.errors.borrow()[self.before..].iter().any(unusable);
        if !self.lenient.get() {
            for (key, name) in unknown {
                let at = self.document.place(&key.span());
                let problem = format!("unknown key `{name}`");
                let error = ConfigError::new(at, self.here.key.clone(), problem);
                self.report(error.suggest(name, asked.iter().copied()));
            }
        }
        if sound {
            self.document.errors.borrow_mut().append(&mut self.consequences.borrow_mut());
        }
        sound
    }

    /// The full key of a member.
    fn key_of(&self, name: &str) -> String {
        let separator = if self.here.key.is_empty() { "" } else { "." };
        format!("{}{separator}{name}", self.here.key)
    }

    fn item(&self, key: &str, value: &'s Spanned<DeValue<'_>>) -> Item<'s> {
        Item::new(self.document, self.key_of(key), value)
    }

    /// Adds an error.
    pub fn report(&self, error: ConfigError) {
        self.document.report(error);
    }

    /// Adds an error that may only follow from a key that is unknown or unusable. If there is such a key, it is not reported.
    pub fn report_consequence(&self, error: ConfigError) {
        self.consequences.borrow_mut().push(error);
    }

    /// Adds a warning.
    pub fn warn(&self, warning: ConfigError) {
        self.document.warn(warning);
    }
}

/// A file as JSON; `null` if it is not TOML.
pub(crate) fn file_to_json(text: &str) -> serde_json::Value {
    let table = DeTable::parse(text);
    table.map(|table| to_json(&DeValue::Table(table.into_inner()))).unwrap_or_default()
}

/// Any TOML as JSON. A date becomes a string.
pub(crate) fn to_json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => {
            let text = number.as_str().replace('_', "");
            i64::from_str_radix(&text, number.radix()).map_or(text.into(), Into::into)
        }
        DeValue::Float(number) => {
            let text = number.as_str().replace('_', "");
            text.parse::<f64>().map_or(text.into(), Into::into)
        }
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| to_json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let members = table.iter();
            members
                .map(|(key, value)| (key.get_ref().to_string(), to_json(value.get_ref())))
                .collect()
        }
    }
}

/// The key of an entry of a list: `rule "orders"` for one of `rules` that has a name, `rules[0]` for others. Lists inside
/// sections keep the number, since a name in them may be that of a secret.
fn entry(list: &str, number: usize, value: &DeValue<'_>) -> String {
    let one = list.strip_suffix('s').filter(|one| !one.contains('.'));
    let DeValue::Table(table) = value else { return format!("{list}[{number}]") };
    let name = table.iter().find(|(key, _)| key.get_ref().as_ref() == "name");
    match (one, name.map(|(_, name)| name.get_ref())) {
        (Some(one), Some(DeValue::String(name))) => format!("{one} {name:?}"),
        _ => format!("{list}[{number}]"),
    }
}

impl<'s> Item<'s> {
    fn new(document: &'s Document<'_>, key: String, value: &'s Spanned<DeValue<'_>>) -> Self {
        let span = value.span();
        let here = Located { value: (), key, at: document.place(&span) };
        Self { document, here, value: value.get_ref(), span }
    }

    /// Adds an error.
    pub fn report(&self, error: ConfigError) {
        self.document.report(error);
    }

    /// Reports a value of the right type that does not fit.
    pub fn unexpected(&self, found: impl Display, expected: &str) {
        let problem = self.here.error(format!("found {found}"));
        self.report(problem.hint(format!("expected {expected}")));
    }

    fn mismatch(&self, expected: &str) {
        self.unexpected(
            match self.value {
                DeValue::String(_) => "a string",
                DeValue::Integer(_) => "a whole number",
                DeValue::Float(_) => "a number",
                DeValue::Boolean(_) => "a boolean",
                DeValue::Datetime(_) => "a date",
                DeValue::Array(_) => "a list",
                DeValue::Table(_) => "a table",
            },
            expected,
        );
    }

    /// The value, or a report of its type.
    fn or_mismatch<T>(&self, value: Option<T>, expected: &str) -> Option<T> {
        if value.is_none() {
            self.mismatch(expected);
        }
        value
    }

    /// Whether the value is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    /// Whether the value is a string.
    pub fn is_string(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    /// Whether the value is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    /// A string.
    pub fn string(&self, expected: &str) -> Option<String> {
        let found = match self.value {
            DeValue::String(text) => Some(text.as_ref().to_owned()),
            _ => None,
        };
        self.or_mismatch(found, expected)
    }

    /// A string, a whole number or a boolean, as JSON.
    pub fn scalar(&self) -> Option<serde_json::Value> {
        match self.value {
            DeValue::String(_) | DeValue::Boolean(_) => Some(self.json()),
            DeValue::Integer(_) => self.integer("").map(Into::into),
            _ => self.or_mismatch(None, "a string, a whole number or a boolean"),
        }
    }

    /// Any value, as JSON.
    pub fn json(&self) -> serde_json::Value {
        to_json(self.value)
    }

    /// True or false.
    pub fn boolean(&self) -> Option<bool> {
        let found = match self.value {
            DeValue::Boolean(truth) => Some(*truth),
            _ => None,
        };
        self.or_mismatch(found, "true or false")
    }

    /// A date, as TOML writes it or in quotes, that `parse` understands.
    pub fn date<T>(&self, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let found = match self.value {
            DeValue::Datetime(time) => parse(&time.to_string()),
            DeValue::String(text) => parse(text.as_ref()),
            _ => None,
        };
        self.or_mismatch(found, expected)
    }

    /// A whole number, in any notation of TOML.
    pub fn integer(&self, expected: &str) -> Option<i64> {
        let found = match self.value {
            DeValue::Integer(number) => {
                i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
            }
            _ => None,
        };
        self.or_mismatch(found, expected)
    }

    /// A number, whole or not.
    pub fn float(&self, expected: &str) -> Option<f64> {
        let text = match self.value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) => number.as_str(),
            _ => "",
        };
        let found = text.replace('_', "").parse::<f64>().ok().filter(|value| value.is_finite());
        self.or_mismatch(found, expected)
    }

    /// The elements of a list. With `lone`, any other value counts as a list of one.
    pub fn list(&self, expected: &str, lone: bool) -> Vec<Item<'s>> {
        match self.value {
            DeValue::Array(array) => array
                .iter()
                .enumerate()
                .map(|(i, value)| {
                    Item::new(self.document, entry(&self.here.key, i, value.get_ref()), value)
                })
                .collect(),
            _ if lone => vec![Item {
                document: self.document,
                here: self.here.clone(),
                value: self.value,
                span: self.span.clone(),
            }],
            _ => {
                self.mismatch(expected);
                Vec::new()
            }
        }
    }

    /// A table.
    pub fn section(&self, expected: &str) -> Option<Section<'s>> {
        match self.value {
            DeValue::Table(table) => {
                Some(Section::new(self.document, self.here.key.clone(), table, &self.span))
            }
            _ => self.or_mismatch(None, expected),
        }
    }
}
