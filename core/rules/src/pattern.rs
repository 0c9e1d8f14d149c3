//! Patterns of events: `stripe:customer.subscription.*`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Matches events by source and type.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pattern {
    /// The source's name, exactly.
    pub source: String,
    /// The event's type; `*` matches any number of characters, including dots.
    pub event_type: String,
}

/// As in hookmill.toml.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.event_type)
    }
}

impl Pattern {
    /// Whether it matches an event with this type from this source.
    pub fn matches(&self, source: &str, event_type: &str) -> bool {
        self.source == source && matches(&self.event_type, event_type)
    }

    /// Whether some event that it matches has a type of the form `glob`.
    #[cfg(feature = "toml")]
    pub(crate) fn may_be(&self, glob: &str) -> bool {
        overlap(self.event_type.as_bytes(), glob.as_bytes())
    }
}

/// Whether `text` matches `glob`, in which `*` matches any number of characters.
pub(super) fn matches(glob: &str, text: &str) -> bool {
    // Every rule checks every event, so this avoids a search for a character, which is slower than the comparison.
    let Some(star) = glob.bytes().position(|byte| byte == b'*') else {
        return glob == text;
    };
    let (head, tail) = (&glob[..star], &glob[star + 1..]);
    let Some(mut rest) = text.strip_prefix(head) else {
        return false;
    };
    let (pieces, last) = tail.rsplit_once('*').unwrap_or(("", tail));
    for piece in pieces.split('*') {
        // The leftmost match is sufficient: it leaves the most text for the rest.
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// The position of the first glob that matches. `"*"` matches what no other glob does, wherever it is in the list.
pub(super) fn position(globs: &[String], text: &str) -> Option<usize> {
    let named = globs.iter().position(|glob| glob != "*" && matches(glob, text));
    named.or_else(|| globs.iter().position(|glob| glob == "*"))
}

/// Whether some text matches both globs.
#[cfg(feature = "toml")]
fn overlap(one: &[u8], other: &[u8]) -> bool {
    match (one, other) {
        ([], []) => true,
        ([b'*', rest @ ..], text) | (text, [b'*', rest @ ..]) => {
            let longer = |text: &[u8]| matches!(text, [_, after @ ..] if overlap(&[b"*", rest].concat(), after));
            overlap(rest, text) || longer(text)
        }
        ([a, one @ ..], [b, other @ ..]) => a == b && overlap(one, other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_number_of_characters() {
        for (glob, text, expected) in [
            ("invoice.paid", "invoice.paid", true),
            ("invoice.paid", "invoice.paid2", false),
            ("customer.*", "customer.subscription.created", true),
            ("customer.*", "customer", false),
            ("*", "", true),
            ("*.deleted", "user.deleted", true),
            ("*.deleted", "user.deleted.x", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }

    #[test]
    #[cfg(feature = "toml")]
    fn two_globs_overlap_if_a_text_matches_both() {
        for (one, other, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "*.deleted", true),
            ("a.*", "b.*", false),
            ("*", "", true),
            ("a*", "", false),
            ("a*b", "*c", false),
            ("customer.*", "customer.subscription.deleted", true),
            ("customer.created", "stripe:customer.created", false),
        ] {
            assert_eq!(overlap(one.as_bytes(), other.as_bytes()), expected, "{one} {other}");
            assert_eq!(overlap(other.as_bytes(), one.as_bytes()), expected, "{other} {one}");
        }
    }

    #[test]
    fn the_source_is_compared_whole() {
        let pattern = Pattern { source: "stripe".into(), event_type: "*".into() };
        assert!(pattern.matches("stripe", "invoice.paid"));
        assert!(!pattern.matches("stripe-test", "invoice.paid"));
    }
}
