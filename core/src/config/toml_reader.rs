//! Reads a TOML document so that every fault in it is reported at once, each with its place and what would do.
//!
//! serde stops at the first fault, so sections are read by hand: a section hands out its values, remembers which were
//! asked for, and reports the rest as unknown.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::time::Timestamp;

/// A place in a configuration file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A value with its key and its place, for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// The full key, such as `sources.stripe.tolerance`.
    pub key: String,
    /// Where it stands.
    pub at: Place,
}

impl<T> Located<T> {
    /// The same place, another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: f(self.value), key: self.key, at: self.at }
    }

    /// A fault at this place.
    pub fn error(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError {
            at: self.at.clone(),
            key: self.key.clone(),
            problem: problem.into(),
            hint: None,
        }
    }
}

/// A fault in a configuration file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConfigError {
    /// Where.
    pub at: Place,
    /// The full key; empty if the fault has none.
    pub key: String,
    /// What was found.
    pub problem: String,
    /// What would do.
    pub hint: Option<String>,
}

impl ConfigError {
    /// The same fault, with what would do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same fault; suggests the candidate nearest to what was found, or lists them all.
    #[must_use]
    pub fn suggest<'c>(self, found: &str, candidates: impl IntoIterator<Item = &'c str>) -> Self {
        let candidates: Vec<_> = candidates.into_iter().collect();
        let nearest = candidates
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(found, candidate), candidate))
            .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
            .min();
        match nearest {
            Some((_, candidate)) => self.hint(format!("did you mean `{candidate}`?")),
            None if candidates.is_empty() => self,
            None => {
                let list: Vec<_> = candidates.iter().map(|c| format!("`{c}`")).collect();
                self.hint(format!("possible here: {}", list.join(", ")))
            }
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// One file being read, and the faults found so far.
pub(super) struct Document<'d> {
    file: Arc<str>,
    text: &'d str,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'d> Document<'d> {
    pub(super) fn new(file: &str, text: &'d str) -> Self {
        Self { file: file.into(), text, errors: RefCell::default() }
    }

    /// Parses the text; its syntax errors are reported, and what could be read is returned all the same.
    pub(super) fn parse(&self) -> Spanned<DeTable<'d>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = self.place(&error.span().unwrap_or(0..0));
            self.report(ConfigError {
                at,
                key: String::new(),
                problem: error.message().to_owned(),
                hint: None,
            });
        }
        table
    }

    pub(super) fn report(&self, error: ConfigError) {
        self.errors.borrow_mut().push(error);
    }

    /// How many faults were found so far.
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

    /// The whole file as a section.
    pub(super) fn root<'s>(&'s self, table: &'s Spanned<DeTable<'d>>) -> Section<'s> {
        Section::new(self, String::new(), table.get_ref(), &(0..0))
    }
}

/// A table being read.
pub(super) struct Section<'s> {
    document: &'s Document<'s>,
    /// The key of this section and where it stands.
    pub(super) here: Located<()>,
    table: &'s DeTable<'s>,
    asked: RefCell<Vec<&'static str>>,
}

/// A value being read.
pub(super) struct Item<'s> {
    document: &'s Document<'s>,
    pub(super) here: Located<()>,
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
        let at = document.place(span);
        Self { document, here: Located { value: (), key, at }, table, asked: RefCell::default() }
    }

    /// The value of `key`, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<Item<'s>> {
        self.asked.borrow_mut().push(key);
        #[cfg(all(test, feature = "schema"))]
        asked::note(&self.document.file, &self.here.key, key);
        let (_, value) = self.table.iter().find(|(k, _)| k.get_ref().as_ref() == key)?;
        Some(self.item(key, value))
    }

    /// The value of `key`; reports it if it is not there.
    pub(super) fn require(&self, key: &'static str, hint: &str) -> Option<Item<'s>> {
        let item = self.get(key);
        if item.is_none() {
            let missing = self.here.error(format!("`{key}` is missing"));
            self.document.report(missing.hint(hint));
        }
        item
    }

    /// Every member, for tables whose keys are names.
    pub(super) fn members(&self) -> Vec<(Located<String>, Item<'s>)> {
        #[cfg(all(test, feature = "schema"))]
        asked::note(&self.document.file, &self.here.key, "*");
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

    /// Reports every key that was not asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.into_inner();
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !asked.contains(&name) {
                let at = self.document.place(&key.span());
                let error = ConfigError {
                    at,
                    key: self.here.key.clone(),
                    problem: format!("unknown key `{name}`"),
                    hint: None,
                };
                self.document.report(error.suggest(name, asked.iter().copied()));
            }
        }
    }

    fn item(&self, key: &str, value: &'s Spanned<DeValue<'_>>) -> Item<'s> {
        let separator = if self.here.key.is_empty() { "" } else { "." };
        let key = format!("{}{separator}{key}", self.here.key);
        Item::new(self.document, key, value)
    }

    pub(super) fn report(&self, error: ConfigError) {
        self.document.report(error);
    }

    pub(super) fn report_all(&self, errors: impl IntoIterator<Item = ConfigError>) {
        errors.into_iter().for_each(|error| self.report(error));
    }
}

/// Which keys were asked for: so that the JSON Schema knows the same.
#[cfg(all(test, feature = "schema"))]
pub(super) mod asked {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static ASKED: RefCell<BTreeSet<[String; 3]>> = RefCell::default();
    }

    pub(super) fn note(file: &str, section: &str, key: &str) {
        ASKED.with_borrow_mut(|asked| asked.insert([file, section, key].map(str::to_owned)));
    }

    /// File, section and key, `*` for every key, of all that was asked for on this thread since the last call.
    pub fn take() -> BTreeSet<[String; 3]> {
        ASKED.take()
    }
}

/// Any TOML as JSON; a date is a text.
pub(super) fn to_json(value: &DeValue<'_>) -> serde_json::Value {
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
        let at = document.place(&span);
        Self { document, here: Located { value: (), key, at }, value: value.get_ref(), span }
    }

    pub(super) fn report(&self, error: ConfigError) {
        self.document.report(error);
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
        self.report(self.here.error(format!("found {found}")).hint(format!("expected {expected}")));
    }

    fn located<T>(&self, value: T) -> Located<T> {
        self.here.clone().map(|()| value)
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    pub(super) fn is_string(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
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

    /// A text, a whole number or a boolean, as JSON.
    pub(super) fn json(&self) -> Option<String> {
        match self.value {
            DeValue::String(text) => serde_json::to_string(text.as_ref()).ok(),
            DeValue::Boolean(truth) => Some(truth.to_string()),
            DeValue::Integer(_) => self.integer("").map(|number| number.value.to_string()),
            _ => {
                self.mismatch("a string, a whole number or a boolean");
                None
            }
        }
    }

    /// Whatever it is, as JSON.
    pub(super) fn value(&self) -> serde_json::Value {
        to_json(self.value)
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(truth) => Some(*truth),
            _ => {
                self.mismatch("true or false");
                None
            }
        }
    }

    /// A date and time with an offset, as TOML writes it or in quotes.
    pub(super) fn time(&self) -> Option<Timestamp> {
        let text = match self.value {
            DeValue::Datetime(time) => time.to_string(),
            DeValue::String(text) => text.as_ref().to_owned(),
            _ => String::new(),
        };
        let time = Timestamp::parse_rfc3339(&text);
        if time.is_none() {
            self.mismatch("a date and time with an offset, such as 2026-12-31T00:00:00Z");
        }
        time
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

    /// A number, whole or not.
    pub(super) fn float(&self, expected: &str) -> Option<Located<f64>> {
        let text = match self.value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) => number.as_str(),
            _ => "",
        };
        let value = text.replace('_', "").parse::<f64>().ok().filter(|value| value.is_finite());
        if value.is_none() {
            self.mismatch(expected);
        }
        value.map(|value| self.located(value))
    }

    /// The elements of a list; a value that is no list counts as a list of one where `lone` allows it.
    pub(super) fn list(&self, expected: &str, lone: bool) -> Vec<Item<'s>> {
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

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<Located<T>> {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let text = self.string(&format!("one of {}", names.join(", ")))?;
        match choices.iter().find(|(name, _)| *name == text.value) {
            Some((_, value)) => Some(text.map(|_| *value)),
            None => {
                let error = text.error(format!("found {:?}", text.value));
                self.report(error.suggest(&text.value, names));
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
                let problem = text.error(format!("found {:?}: {error}", text.value));
                self.report(problem.hint(format!("expected {expected}")));
                None
            }
        }
    }
}
