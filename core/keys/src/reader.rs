//! Reads a TOML document so that every error in it is reported at once, each with its place and a hint.
//!
//! serde stops at the first error. Here, a section hands out its values, remembers which keys it was asked for, and reports
//! the others as unknown.

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
}

impl<'d> Document<'d> {
    /// `file` is its name in messages.
    pub fn new(file: &str, text: &'d str) -> Self {
        let lines = text.match_indices('\n').map(|(i, _)| i + 1).collect();
        Self { file: file.into(), text, lines, errors: RefCell::default() }
    }

    /// Parses the text. Reports syntax errors, and returns what the parser could read.
    pub fn parse(&self) -> Spanned<DeTable<'d>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = self.place(&error.span().unwrap_or(0..0));
            let problem = error.message().to_owned();
            self.report(ConfigError { at, key: String::new(), problem, hint: None });
        }
        table
    }

    /// Adds an error.
    pub fn report(&self, error: ConfigError) {
        self.errors.borrow_mut().push(error);
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
        let (asked, lenient) = (RefCell::default(), Cell::new(false));
        Self { document, here, table, behind: None, asked, lenient }
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

    /// The value of `key`; reports its absence.
    pub fn require(&self, key: &'static str, hint: &str) -> Option<Item<'s>> {
        let item = self.get(key);
        if item.is_none() {
            self.report(self.here.error(format!("`{key}` is missing")).hint(hint));
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

    /// Reports every key that was not asked for.
    pub fn finish(self) {
        if self.lenient.get() {
            return;
        }
        let asked = self.asked.into_inner();
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !asked.contains(&name) {
                let at = self.document.place(&key.span());
                let problem = format!("unknown key `{name}`");
                let error = ConfigError { at, key: self.here.key.clone(), problem, hint: None };
                self.document.report(error.suggest(name, asked.iter().copied()));
            }
        }
    }

    fn item(&self, key: &str, value: &'s Spanned<DeValue<'_>>) -> Item<'s> {
        let separator = if self.here.key.is_empty() { "" } else { "." };
        let key = format!("{}{separator}{key}", self.here.key);
        Item::new(self.document, key, value)
    }

    /// Adds an error.
    pub fn report(&self, error: ConfigError) {
        self.document.report(error);
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
                    Item::new(self.document, format!("{}[{i}]", self.here.key), value)
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
