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
        ConfigError {
            at: self.at.clone(),
            key: self.key.clone(),
            problem: problem.into(),
            hint: None,
        }
    }
}

/// An error in a configuration file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConfigError {
    /// The place.
    pub at: Place,
    /// The full key; empty if the error is about none.
    pub key: String,
    /// What the reader found.
    pub problem: String,
    /// What to do.
    pub hint: Option<String>,
}

impl ConfigError {
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
