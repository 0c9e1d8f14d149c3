//! The API version of an event: a provider may change the form of its events with it.

/// The maximum length of a version, in bytes. Stripe's have up to about 20.
pub const LENGTH: usize = 64;

/// Counts for versions that are not valid, and for those beyond the number that Hookmill tells apart. No version: the place
/// in hookmill.toml may be wrong, and then every event would have one of its own.
pub const OTHER: &str = "other";

/// Whether a text is a version. It becomes a label and a key, so it has few characters.
pub fn is_valid(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-+:/".contains(&b);
    (1..=LENGTH).contains(&text.len()) && text.bytes().all(is_plain) && text != OTHER
}

/// A version from a payload: the text, or [`OTHER`].
pub fn of(text: String) -> String {
    if is_valid(&text) { text } else { OTHER.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_version_counts_as_other() {
        for version in ["2024-06-20", "2025-03-31.basil", "2024-07", "unstable", "v2", "1"] {
            assert_eq!(of(version.to_owned()), version);
        }
        for text in ["", "a b", "\"", "a\nb", "é", "other", &"1".repeat(LENGTH + 1)] {
            assert_eq!(of(text.to_owned()), OTHER, "{text:?}");
        }
    }
}
