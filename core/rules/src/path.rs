//! Paths into an event's body, as rules write them: `data.object.items.data[0].price.id`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One step of a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A member of an object: `name`, or `["any name"]`.
    Key(String),
    /// An element of an array: `[0]`.
    Index(usize),
}

/// A path into the body: plain steps, and at most one selection on the way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Path {
    /// The steps up to the value, or up to the array of the selector.
    pub steps: Vec<Step>,
    /// Selects one element of the array at `steps` and continues inside it.
    pub select: Option<Select>,
}

/// A path without a selection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlainPath(pub Vec<Step>);

/// `[field = other.path].rest`: the first element whose `field` equals the value at another path of the body.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Select {
    /// The member of each element to compare.
    pub field: String,
    /// The path of the value that it must equal, from the top of the body.
    pub equals: Vec<Step>,
    /// The steps inside the selected element.
    pub rest: Vec<Step>,
}

/// A text is not a path.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{problem} at character {position}")]
pub struct PathError {
    /// The problem.
    pub problem: &'static str,
    /// The position in the path, from 1.
    pub position: usize,
}

impl Path {
    /// No step: the whole value.
    pub const WHOLE: Self = Self { steps: Vec::new(), select: None };
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text == "$" {
            return Ok(Self::WHOLE);
        }
        let mut parser = Parser { text, position: 0 };
        let steps = parser.steps()?;
        let select = if parser.eat('[') { Some(parser.select()?) } else { None };
        if parser.position < text.len() {
            return Err(parser.error("expected `.`, `[` or the end"));
        }
        Ok(Self { steps, select })
    }
}

impl FromStr for PlainPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let Path { steps, select } = text.parse()?;
        match select {
            None => Ok(Self(steps)),
            Some(_) => {
                let position = text.chars().take_while(|c| *c != '=').count() + 1;
                Err(PathError {
                    problem: "expected no selection, which only rules can have,",
                    position,
                })
            }
        }
    }
}

impl fmt::Display for PlainPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("$"),
            steps => write_steps(f, steps),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn eat(&mut self, expected: char) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.position += expected.len_utf8();
        }
        found
    }

    fn blanks(&mut self) {
        self.position += self.rest().len() - self.rest().trim_start().len();
    }

    fn error(&self, problem: &'static str) -> PathError {
        PathError { problem, position: self.text[..self.position].chars().count() + 1 }
    }

    fn name(&mut self) -> Result<String, PathError> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-' || c == '$'))
            .unwrap_or(rest.len());
        if end == 0 {
            return Err(self.error("expected a name"));
        }
        if &rest[..end] == "$" {
            return Err(self.error(
                "expected a name; `$` alone is the whole body, so not `$.data` but `data`",
            ));
        }
        self.position += end;
        Ok(rest[..end].to_owned())
    }

    /// Plain steps, up to the end or to the `[` of a selector, which is not consumed.
    fn steps(&mut self) -> Result<Vec<Step>, PathError> {
        let mut steps = Vec::new();
        if !self.rest().starts_with('[') {
            steps.push(Step::Key(self.name()?));
        }
        loop {
            if self.eat('.') {
                steps.push(Step::Key(self.name()?));
                continue;
            }
            let Some(inner) = self.rest().strip_prefix('[') else { return Ok(steps) };
            // The member of a selector may begin with a digit: `[3ds = status]`.
            let after = inner.trim_start_matches(|c: char| c.is_ascii_digit());
            let digits = inner.len() - after.len();
            let index = digits > 0 && (after.is_empty() || after.starts_with(']'));
            if inner.starts_with('"') {
                self.position += 2;
                let end =
                    self.rest().find('"').ok_or_else(|| self.error("expected a closing `\"`"))?;
                steps.push(Step::Key(self.rest()[..end].to_owned()));
                self.position += end + 1;
            } else if index {
                self.position += 1;
                let index =
                    inner[..digits].parse().map_err(|_| self.error("expected a smaller index"))?;
                steps.push(Step::Index(index));
                self.position += digits;
            } else if steps.is_empty() {
                return Err(self.error("expected a name"));
            } else {
                return Ok(steps);
            }
            if !self.eat(']') {
                return Err(self.error("expected `]`"));
            }
        }
    }

    fn select(&mut self) -> Result<Select, PathError> {
        self.blanks();
        let field = self.name()?;
        self.blanks();
        if !self.eat('=') {
            return Err(self.error("expected an index, a name in quotes, or `field = path`"));
        }
        self.blanks();
        let equals = self.steps()?;
        self.blanks();
        if !self.eat(']') {
            return Err(self.error("expected `]`"));
        }
        let mut rest = Vec::new();
        if self.eat('.') {
            rest = self.steps()?;
        }
        if self.rest().starts_with('[') {
            return Err(self.error("a path selects at most once"));
        }
        Ok(Select { field, equals, rest })
    }
}

/// The path as a rule would write it.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::WHOLE {
            return f.write_str("$");
        }
        write_steps(f, &self.steps)?;
        if let Some(Select { field, equals, rest }) = &self.select {
            write!(f, "[{field} = ")?;
            write_steps(f, equals)?;
            f.write_str("]")?;
            if !rest.is_empty() {
                f.write_str(".")?;
                write_steps(f, rest)?;
            }
        }
        Ok(())
    }
}

fn write_steps(f: &mut fmt::Formatter<'_>, steps: &[Step]) -> fmt::Result {
    for (i, step) in steps.iter().enumerate() {
        match step {
            Step::Index(index) => write!(f, "[{index}]")?,
            Step::Key(key)
                if key.chars().all(|c| c.is_alphanumeric() || "_-$".contains(c))
                    && !key.is_empty()
                    && key != "$" =>
            {
                write!(f, "{}{key}", if i == 0 { "" } else { "." })?;
            }
            Step::Key(key) => write!(f, "[\"{key}\"]")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_prints_as_it_was_written() {
        for text in [
            "created",
            "data.object.items.data[0].price.id",
            "data[\"a b\"][2].c",
            "data.email_addresses[id = data.primary_email_address_id].email_address",
            "a[b = c]",
            "a[3ds = c].[0]",
            "a[1 = 1]",
            "$",
        ] {
            assert_eq!(text.parse::<Path>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_invalid_path_is_rejected_with_the_position() {
        for (text, expected) in [
            ("", "expected a name at character 1"),
            ("a.", "expected a name at character 3"),
            ("a..b", "expected a name at character 3"),
            ("a[0", "expected `]` at character 4"),
            ("a[0x]", "expected an index, a name in quotes, or `field = path` at character 5"),
            ("a[-1]", "expected an index, a name in quotes, or `field = path` at character 5"),
            ("a[\"b]", "expected a closing `\"` at character 4"),
            ("a[b]", "expected an index, a name in quotes, or `field = path` at character 4"),
            ("a[b = c].d[e = f]", "a path selects at most once at character 11"),
            ("a b", "expected `.`, `[` or the end at character 2"),
            ("a[99999999999999999999]", "expected a smaller index at character 3"),
            ("[b = c]", "expected a name at character 1"),
            (
                "$.a",
                "expected a name; `$` alone is the whole body, so not `$.data` but `data` at character 1",
            ),
        ] {
            assert_eq!(text.parse::<Path>().unwrap_err().to_string(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_path_parses_to_the_same_path(text in "[a-b0-1.\\[\\]\"= ]{0,12}|([a1.]{0,2}\\[ ?[a1] ?= ?[a1]\\][.a\\[\\]1]{0,4})") {
            if let Ok(path) = text.parse::<Path>() {
                prop_assert_eq!(path.to_string().parse(), Ok(path));
            }
        }
    }
}
