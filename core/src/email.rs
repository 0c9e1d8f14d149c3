//! Emails: senders, recipients and content.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A mailbox: an address and an optional name. In text `Acme <hello@example.com>`, or the bare address. Source:
/// <https://www.rfc-editor.org/rfc/rfc5322#section-3.4>, without comments and groups.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mailbox {
    /// The display name.
    pub name: Option<String>,
    /// The address.
    pub address: String,
}

/// A text is not a mailbox. Does not contain the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("expected an address such as hello@example.com, or Acme <hello@example.com>")]
pub struct NoMailbox;

impl FromStr for Mailbox {
    type Err = NoMailbox;

    fn from_str(text: &str) -> Result<Self, NoMailbox> {
        let text = text.trim();
        let (name, address) = match text.strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
            Some((name, address)) => (unquoted(name.trim())?, address),
            None => (String::new(), text),
        };
        // The provider checks the rest of the address.
        let (local, domain) = address.rsplit_once('@').ok_or(NoMailbox)?;
        let odd = |c: char| c.is_whitespace() || c.is_control() || "<>()[]\\,;:\"@".contains(c);
        let whole = !local.is_empty() && !domain.is_empty() && address.len() <= ADDRESS_BYTES;
        if !whole || local.contains(odd) || domain.contains(odd) {
            return Err(NoMailbox);
        }
        let name = Some(name).filter(|name| !name.is_empty());
        Ok(Self { name, address: address.to_owned() })
    }
}

/// The key of an address: the bare address in lower case.
pub fn address_key(text: &str) -> String {
    let address = text.parse().map(|mailbox: Mailbox| mailbox.address);
    address.unwrap_or_else(|_| text.trim().to_owned()).to_lowercase()
}

/// A phone number in international form: `+15550100002` for `+1 (555) 010-0002`. `None` if the text is not a number, or a
/// number without a country code. Source: ITU-T E.164, <https://www.itu.int/rec/T-REC-E.164/en>.
pub fn number(text: &str) -> Option<String> {
    let digits = text.trim().strip_prefix('+')?;
    let digits = digits.replace([' ', '(', ')', '-', '.', '\u{a0}'], "");
    let whole = (5..=15).contains(&digits.len()) && !digits.starts_with('0');
    (whole && digits.bytes().all(|b| b.is_ascii_digit())).then(|| format!("+{digits}"))
}

/// The maximum length of an address: <https://www.rfc-editor.org/errata/eid1690>.
const ADDRESS_BYTES: usize = 254;

/// Characters that a name may contain only in quotes.
const SPECIAL: &str = "()<>[]:;@\\,.\"";

/// A name without its quotes.
fn unquoted(name: &str) -> Result<String, NoMailbox> {
    if name.contains(char::is_control) {
        return Err(NoMailbox);
    }
    let Some(inner) = name.strip_prefix('"') else {
        return Ok(name.to_owned());
    };
    let mut characters = inner.strip_suffix('"').ok_or(NoMailbox)?.chars();
    let mut unquoted = String::new();
    while let Some(c) = characters.next() {
        match c {
            '\\' => unquoted.push(characters.next().ok_or(NoMailbox)?),
            '"' => return Err(NoMailbox),
            c => unquoted.push(c),
        }
    }
    Ok(unquoted)
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            None => f.write_str(&self.address),
            Some(name) if name.contains(|c| SPECIAL.contains(c)) => {
                let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                write!(f, "\"{name}\" <{}>", self.address)
            }
            Some(name) => write!(f, "{name} <{}>", self.address),
        }
    }
}

impl From<Mailbox> for String {
    fn from(mailbox: Mailbox) -> Self {
        mailbox.to_string()
    }
}

impl TryFrom<String> for Mailbox {
    type Error = NoMailbox;

    fn try_from(text: String) -> Result<Self, NoMailbox> {
        text.parse()
    }
}

/// The source of a template.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TemplateText {
    /// The subject line.
    pub subject: String,
    /// The HTML part.
    pub html: String,
    /// The text part; derived from the HTML part if absent.
    pub text: Option<String>,
}

/// A rendered email, for one mailbox or for a few that may see each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Email {
    /// Its id. The provider gets it and returns it in reports.
    pub id: String,
    /// The sender.
    pub from: Mailbox,
    /// The recipients; at least one.
    pub to: Vec<Mailbox>,
    /// Recipients of a copy.
    pub cc: Vec<Mailbox>,
    /// The mailbox for replies, if not the sender.
    pub reply_to: Option<Mailbox>,
    /// The subject line.
    pub subject: String,
    /// The HTML part.
    pub html: String,
    /// The text part.
    pub text: String,
    /// The group of emails that it belongs to, such as a newsletter.
    pub group: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mailbox_is_an_address_with_an_optional_name() {
        for (text, name, address) in [
            ("hello@example.com", None, "hello@example.com"),
            (" <a+b@c.test> ", None, "a+b@c.test"),
            ("Acme <hello@example.com>", Some("Acme"), "hello@example.com"),
            ("\"Acme, Inc. \\\"the\\\" one\" <a@b.c>", Some("Acme, Inc. \"the\" one"), "a@b.c"),
            ("Inês Almeida <inês@exämple.com>", Some("Inês Almeida"), "inês@exämple.com"),
        ] {
            let mailbox = Mailbox { name: name.map(Into::into), address: address.into() };
            assert_eq!(text.parse(), Ok(mailbox), "{text}");
        }
        let long = format!("{}@example.com", "a".repeat(250));
        for text in [
            "",
            "a",
            "@",
            "a@",
            "@b",
            "a b@c",
            "a@b, c@d",
            "a@b\r\nBcc: c@d",
            "A\r\nB <a@b>",
            "\"A <a@b>",
            "A <a@b",
            "a@b@c",
            &long,
        ] {
            assert_eq!(text.parse::<Mailbox>(), Err(NoMailbox), "{text}");
        }
    }

    #[test]
    fn a_number_has_one_form_for_all_spellings() {
        for text in ["+15550100002", " +1 (555) 010-0002", "+1.555.010.0002"] {
            assert_eq!(number(text).as_deref(), Some("+15550100002"), "{text}");
        }
        for text in [
            "",
            "+",
            "15550100002",
            "0555 0100",
            "+abc",
            "+0155501",
            "+1555010000212345",
            "+1555x0100",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_mailbox_is_read_as_it_was_written(name in "[^\\p{C}]{1,20}") {
            let name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
            let mailbox = Mailbox { name, address: "a@b.c".into() };
            let text = mailbox.to_string();
            prop_assert_eq!(text.parse(), Ok(mailbox), "{}", text);
        }
    }
}
