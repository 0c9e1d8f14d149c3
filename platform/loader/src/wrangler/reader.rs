//! Reads a wrangler.toml, and reports all of its faults at once. A section returns its values, notes which keys were read,
//! and reports the others as unknown.
//!
//! Core reads hookmill.toml in the same way. This reader has only the types that wrangler.toml uses.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use hookmill_core::config::{ConfigError, Located, Place};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file, and its faults so far.
pub(super) struct Document<'d> {
    file: Arc<str>,
    text: &'d str,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'d> Document<'d> {
    pub(super) fn new(file: &str, text: &'d str) -> Self {
        Self { file: file.into(), text, errors: RefCell::default() }
    }

    /// Parses the text, and reports its syntax errors.
    pub(super) fn parse(&self) -> Spanned<DeTable<'d>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = self.place(&error.span().unwrap_or(0..0));
            let problem = error.message().to_owned();
            self.report(ConfigError { at, key: String::new(), problem, hint: None });
        }
        table
    }

    fn report(&self, error: ConfigError) {
        self.errors.borrow_mut().push(error);
    }

    /// The number of faults so far.
    pub(super) fn faults(&self) -> usize {
        self.errors.borrow().len()
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Place {
            file: self.file.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// The top level of the file.
    pub(super) fn root<'s>(&'s self, table: &'s Spanned<DeTable<'d>>) -> Section<'s> {
        Section::new(self, String::new(), table.get_ref(), &(0..0))
    }
}

/// A table.
pub(super) struct Section<'s> {
    document: &'s Document<'s>,
    /// Its key and its place.
    pub(super) here: Located<()>,
    table: &'s DeTable<'s>,
    /// The keys that were read.
    read: RefCell<Vec<&'static str>>,
}

impl<'s> Section<'s> {
    fn new(
        document: &'s Document<'_>,
        key: String,
        table: &'s DeTable<'_>,
        span: &Range<usize>,
    ) -> Self {
        let at = document.place(span);
        Self { document, here: Located { value: (), key, at }, table, read: RefCell::default() }
    }

    /// The value of `key`, if the section has it.
    pub(super) fn get(&self, key: &'static str) -> Option<Item<'s>> {
        self.read.borrow_mut().push(key);
        let (_, value) = self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key)?;
        Some(self.item(key, value))
    }

    /// The value of `key`; reports a missing one.
    pub(super) fn require(&self, key: &'static str, hint: &str) -> Option<Item<'s>> {
        let item = self.get(key);
        if item.is_none() {
            let missing = self.here.error(format!("`{key}` is missing"));
            self.report(missing.hint(hint));
        }
        item
    }

    /// All members, of a table whose keys are names.
    pub(super) fn members(&self) -> Vec<(Located<String>, Item<'s>)> {
        let members = self.table.iter();
        members
            .map(|(key, value)| {
                let name = key.get_ref().as_ref();
                let item = self.item(name, value);
                let at = self.document.place(&key.span());
                (Located { value: name.to_owned(), key: item.here.key.clone(), at }, item)
            })
            .collect()
    }

    /// Reports each key that was not read.
    pub(super) fn finish(self) {
        let read = self.read.into_inner();
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !read.contains(&name) {
                let error = ConfigError {
                    at: self.document.place(&key.span()),
                    key: self.here.key.clone(),
                    problem: format!("unknown key `{name}`"),
                    hint: None,
                };
                self.document.report(error.suggest(name, read.iter().copied()));
            }
        }
    }

    fn item(&self, key: &str, value: &'s Spanned<DeValue<'_>>) -> Item<'s> {
        let separator = if self.here.key.is_empty() { "" } else { "." };
        Item::new(self.document, format!("{}{separator}{key}", self.here.key), value)
    }

    pub(super) fn report(&self, error: ConfigError) {
        self.document.report(error);
    }
}

/// A value. `expected` describes the right type, for the hint of a wrong one.
pub(super) struct Item<'s> {
    document: &'s Document<'s>,
    /// Its key and its place.
    pub(super) here: Located<()>,
    value: &'s DeValue<'s>,
    span: Range<usize>,
}

impl<'s> Item<'s> {
    fn new(document: &'s Document<'_>, key: String, value: &'s Spanned<DeValue<'_>>) -> Self {
        let span = value.span();
        let at = document.place(&span);
        Self { document, here: Located { value: (), key, at }, value: value.get_ref(), span }
    }

    fn mismatch(&self, expected: &str) {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.report(self.here.error(format!("found {found}")), expected);
    }

    fn report(&self, error: ConfigError, expected: &str) {
        self.document.report(error.hint(format!("expected {expected}")));
    }

    fn located<T>(&self, value: T) -> Located<T> {
        self.here.clone().map(|()| value)
    }

    pub(super) fn string(&self, expected: &str) -> Option<Located<String>> {
        match self.value {
            DeValue::String(text) => Some(self.located(text.as_ref().to_owned())),
            _ => {
                self.mismatch(expected);
                None
            }
        }
    }

    /// A text that `parse` understands.
    pub(super) fn parsed<T, E: fmt::Display>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Located<T>> {
        let text = self.string(expected)?;
        match parse(&text.value) {
            Ok(value) => Some(text.map(|_| value)),
            Err(error) => {
                self.report(text.error(format!("found {:?}: {error}", text.value)), expected);
                None
            }
        }
    }

    /// A whole number, in any notation of TOML.
    pub(super) fn integer(&self, expected: &str) -> Option<Located<i64>> {
        if let DeValue::Integer(number) = self.value
            && let Ok(value) =
                i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
        {
            return Some(self.located(value));
        }
        self.mismatch(expected);
        None
    }

    /// A whole number in a range.
    pub(super) fn integer_in(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let found = self.integer(&expected)?;
        if range.contains(&found.value) {
            return Some(found.value);
        }
        self.report(found.error(format!("found {}", found.value)), &expected);
        None
    }

    /// The elements of a list.
    pub(super) fn list(&self, expected: &str) -> Vec<Item<'s>> {
        let DeValue::Array(array) = self.value else {
            self.mismatch(expected);
            return Vec::new();
        };
        let elements = array.iter().enumerate();
        elements
            .map(|(i, value)| Item::new(self.document, format!("{}[{i}]", self.here.key), value))
            .collect()
    }

    pub(super) fn section(&self, expected: &str) -> Option<Section<'s>> {
        match self.value {
            DeValue::Table(table) => {
                Some(Section::new(self.document, self.here.key.clone(), table, &self.span))
            }
            _ => {
                self.mismatch(expected);
                None
            }
        }
    }
}
