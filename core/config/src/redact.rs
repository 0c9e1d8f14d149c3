//! Redaction: hides parts of bodies where they are displayed. Stored, queued and replayed bodies stay complete.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use hookmill_rules::{self as rules, Path};

/// Replaces a redacted value.
pub const REDACTED: &str = "[redacted]";

/// The path of a redacted value: `data.object.email`, with `*` for any member or element, and `**` for any number of steps,
/// including none: `**.email`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Redaction(Vec<Step>);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Step {
    /// The member with this name, or the element with this index.
    Name(String),
    /// Any member or element.
    Any,
    /// Any number of steps.
    Deep,
}

/// A text is not a [`Redaction`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("not a valid path")]
pub struct RedactionError;

impl FromStr for Redaction {
    type Err = RedactionError;

    fn from_str(text: &str) -> Result<Self, RedactionError> {
        let step = |name: &str| match name {
            "" => None,
            "*" => Some(Step::Any),
            "**" => Some(Step::Deep),
            // Wildcards inside a name and rules' selectors are not supported.
            name if name.contains(['*', '[', ']', ' ']) || name == "$" => None,
            name => Some(Step::Name(name.to_owned())),
        };
        let steps: Option<Vec<_>> = text.split('.').map(step).collect();
        // A trailing `**` would match everything.
        let steps = steps.filter(|steps| steps.last() != Some(&Step::Deep));
        steps.map(Self).ok_or(RedactionError)
    }
}

/// The redaction for a path. A selector of the path becomes any element.
impl From<&Path> for Redaction {
    fn from(path: &Path) -> Self {
        let step = |step: &rules::Step| match step {
            rules::Step::Key(name) => Step::Name(name.clone()),
            rules::Step::Index(index) => Step::Name(index.to_string()),
        };
        let mut steps: Vec<_> = path.steps.iter().map(step).collect();
        if let Some(select) = &path.select {
            steps.push(Step::Any);
            steps.extend(select.rest.iter().map(step));
        }
        Self(steps)
    }
}

/// A body with redactions; `None` if it is not JSON.
pub fn redact(body: &str, redactions: &[Redaction]) -> Option<String> {
    let mut value: Value = serde_json::from_str(body).ok()?;
    let steps: Vec<&[Step]> = redactions.iter().map(|redaction| redaction.0.as_slice()).collect();
    hide(&mut value, &steps);
    serde_json::to_string_pretty(&value).ok()
}

/// `open`: the remaining steps of the redactions that lead here.
fn hide(value: &mut Value, open: &[&[Step]]) {
    if open.is_empty() {
        return;
    }
    let inner = |name: &str, child: &mut Value| {
        let mut left = Vec::new();
        for steps in open {
            follow(steps, name, &mut left);
        }
        if left.iter().any(|steps| steps.is_empty()) {
            *child = REDACTED.into();
        } else {
            hide(child, &left);
        }
    };
    match value {
        Value::Object(members) => {
            members.iter_mut().for_each(|(name, child)| inner(name, child));
        }
        Value::Array(elements) => {
            elements
                .iter_mut()
                .enumerate()
                .for_each(|(index, child)| inner(&index.to_string(), child));
        }
        _ => {}
    }
}

/// Adds the steps that remain inside the member `name`.
fn follow<'s>(steps: &'s [Step], name: &str, left: &mut Vec<&'s [Step]>) {
    match steps.split_first() {
        Some((Step::Any, rest)) => left.push(rest),
        Some((Step::Name(expected), rest)) if expected == name => left.push(rest),
        Some((Step::Deep, rest)) => {
            left.push(steps);
            follow(rest, name, left);
        }
        Some((Step::Name(_), _)) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str, redactions: &[&str]) -> Option<Value> {
        let redactions: Vec<_> = redactions.iter().map(|text| text.parse().unwrap()).collect();
        redact(body, &redactions).map(|text| serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_named_value_is_redacted() {
        let body = r#"{"a":{"email":"x","b":{"email":["y","z"],"n":1}},"l":[{"name":"u"},{"name":"v"},3],"email":{"deep":1}}"#;
        for (redactions, expected) in [
            (vec![], body.to_owned()),
            (vec!["a.email"], body.replace(r#""x""#, r#""[redacted]""#)),
            (vec!["l.*.name"], body.replace(r#""u""#, r#""[redacted]""#).replace(r#""v""#, r#""[redacted]""#)),
            (vec!["l.1"], body.replace(r#"{"name":"v"}"#, r#""[redacted]""#)),
            (vec!["l.name", "a.none", "n"], body.to_owned()),
            (
                vec!["**.email", "a.b"],
                r#"{"a":{"email":"[redacted]","b":"[redacted]"},"l":[{"name":"u"},{"name":"v"},3],"email":"[redacted]"}"#.to_owned(),
            ),
            (vec!["a.**.email"], body.replace(r#""x""#, r#""[redacted]""#).replace(r#"["y","z"]"#, r#""[redacted]""#)),
        ] {
            let expected: Value = serde_json::from_str(&expected).unwrap();
            assert_eq!(shown(body, &redactions), Some(expected), "{redactions:?}");
        }
        assert_eq!(shown("a=b&email=c", &["email"]), None);
        // A repeated member is displayed once.
        assert_eq!(shown(r#"{"email":"x","email":"y"}"#, &["email"]).unwrap()["email"], REDACTED);
    }

    #[test]
    fn a_value_that_a_path_reads_is_redacted() {
        let body = r#"{"s":{"a.b":"x","l":[{"k":"u","v":"y"},{"k":"w","v":"z"}]},"t":"kept"}"#;
        for (path, expected) in [
            (r#"s["a.b"]"#, body.replace(r#""x""#, r#""[redacted]""#)),
            ("s.l[1].v", body.replace(r#""z""#, r#""[redacted]""#)),
            (
                "s.l[k = t].v",
                body.replace(r#""y""#, r#""[redacted]""#).replace(r#""z""#, r#""[redacted]""#),
            ),
        ] {
            let shown = redact(body, &[Redaction::from(&path.parse::<Path>().unwrap())]).unwrap();
            let [shown, expected] =
                [shown, expected].map(|text| serde_json::from_str::<Value>(&text).unwrap());
            assert_eq!(shown, expected, "{path}");
        }
    }

    #[test]
    fn an_invalid_path_is_rejected() {
        for text in ["", "a..b", "a[0].b", "**", "a.**", "data.e*", "a b", ".", "$.data.email"] {
            assert_eq!(text.parse::<Redaction>(), Err(RedactionError), "{text}");
        }
    }
}
