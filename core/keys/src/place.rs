//! Errors of a configuration file and their places.

use std::fmt;
use std::sync::Arc;

/// A place in a configuration file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The file, as the user named it.
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

/// A value, its key and its place, for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// The full key, such as `sources.stripe.tolerance`.
    pub key: String,
    /// The place.
    pub at: Place,
}

impl<T> Located<T> {
    /// The same place, another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: f(self.value), key: self.key, at: self.at }
    }

    /// The place alone.
    pub fn place(&self) -> Located<()> {
        Located { value: (), key: self.key.clone(), at: self.at.clone() }
    }

    /// An error at this place.
    pub fn error(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::new(self.at.clone(), self.key.clone(), problem)
    }
}

/// An error in a configuration file, or a warning about it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConfigError {
    /// The place.
    pub at: Place,
    /// The full key; empty if the error is about none.
    pub key: String,
    /// What the reader found.
    pub problem: String,
    /// The line, with a caret below the place, if the error is about the text itself.
    pub excerpt: Option<Box<str>>,
    /// What to do.
    pub hint: Option<String>,
}

impl ConfigError {
    /// An error about a key; about none, if the key is empty.
    pub fn new(at: Place, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { at, key: key.into(), problem: problem.into(), excerpt: None, hint: None }
    }

    /// The same error, with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint: the candidate nearest to `found`, or all candidates.
    #[must_use]
    pub fn suggest<'c>(self, found: &str, candidates: impl IntoIterator<Item = &'c str>) -> Self {
        let candidates: Vec<_> = candidates.into_iter().collect();
        match nearest(found, candidates.iter().copied()) {
            Some(candidate) => self.hint(format!("did you mean `{candidate}`?")),
            None if candidates.is_empty() => self,
            None => {
                let list: Vec<_> = candidates.iter().map(|c| format!("`{c}`")).collect();
                self.hint(format!("possible here: {}", list.join(", ")))
            }
        }
    }
}

/// The candidate that is most like a text, if one is.
pub fn nearest<'c>(found: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let distances = candidates.into_iter().map(|candidate| (distance(found, candidate), candidate));
    let near = distances.filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4);
    near.min().map(|(_, candidate)| candidate)
}

/// The number of typing errors between two texts.
pub fn distance(one: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(one, other)
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}
