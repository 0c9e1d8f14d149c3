//! A webhook request for the verifiers: method, headers, raw body.

use std::borrow::Cow;

use crate::rejection::{Reason, Rejection};
use crate::words;

/// The headers of a request, by name. Names are case-insensitive.
///
/// Platforms differ: a Worker gets repeated headers joined with `", "`, a native server gets each. [`Head::header`]
/// treats both alike.
pub trait Headers: Sync {
    /// Every value of `name`, in order; a Worker returns at most one, joined.
    fn all(&self, name: &str) -> Vec<Cow<'_, [u8]>>;
}

impl Headers for Vec<(String, String)> {
    fn all(&self, name: &str) -> Vec<Cow<'_, [u8]>> {
        self.iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| Cow::Borrowed(value.as_bytes()))
            .collect()
    }
}

words! {
    /// A coding of a body: <https://www.iana.org/assignments/http-parameters/http-parameters.xhtml#content-coding>.
    pub enum Coding {
        /// RFC 1952.
        Gzip = "gzip",
        /// RFC 1950, which is zlib.
        Deflate = "deflate",
        /// RFC 7932.
        Brotli = "br",
    }
}

/// A request before its body is read.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The query of its URL as sent, without the question mark.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a dyn Headers,
}

/// A request with its complete body.
pub struct Request<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The query of its URL as sent, without the question mark.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a dyn Headers,
    /// The body, byte for byte as received. Signatures cover bytes, so nothing is decoded before verification.
    pub body: &'a [u8],
}

impl<'a> Head<'a> {
    /// The request with its body.
    pub const fn with_body(self, body: &'a [u8]) -> Request<'a> {
        let Self { method, query, headers } = self;
        Request { method, query, headers, body }
    }

    /// The value of a header that a signature depends on, trimmed; `None` if it was not sent.
    ///
    /// # Errors
    ///
    /// `malformed_header` if it was sent more than once, or is not text. Libraries that join repeated headers accept a
    /// forged value beside a valid one. A value that contains `", "` counts as repeated, because that is what a Worker gets
    /// for repeated headers.
    pub fn header(&self, name: &str) -> Result<Option<Cow<'a, str>>, Rejection> {
        let mut values = self.headers.all(name).into_iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let malformed =
            |detail| Rejection::new(Reason::MalformedHeader, format!("{name} {detail}"));
        if values.next().is_some() {
            return Err(malformed("was sent more than once"));
        }
        let text = match value {
            Cow::Borrowed(bytes) => {
                std::str::from_utf8(bytes).ok().map(|text| Cow::Borrowed(text.trim()))
            }
            Cow::Owned(bytes) => {
                String::from_utf8(bytes).ok().map(|text| Cow::Owned(text.trim().to_owned()))
            }
        };
        let text = text.ok_or_else(|| malformed("is not text"))?;
        if text.contains(", ") {
            return Err(malformed("was sent more than once, or has several values"));
        }
        Ok(Some(text))
    }

    /// The value of a header that nothing depends on for authenticity: repeated ones joined, as a Worker gets them. `None` if it
    /// was not sent. Bytes that are no text become U+FFFD.
    pub fn joined_header(&self, name: &str) -> Option<String> {
        let values = self.headers.all(name);
        let bytes = values.join(&b", "[..]);
        (!values.is_empty()).then(|| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The value of a header that has several names. Skips names that the request does not have, or has with a blank value.
    ///
    /// # Errors
    ///
    /// `malformed_header` if two of them have different values; otherwise as [`Head::header`].
    pub fn either_header(&self, names: &[String]) -> Result<Option<Cow<'a, str>>, Rejection> {
        let mut found: Option<(&str, Cow<'a, str>)> = None;
        for name in names {
            let Some(value) = self.header(name)?.filter(|value| !value.is_empty()) else {
                continue;
            };
            match &found {
                None => found = Some((name, value)),
                Some((first, other)) if *other != value => {
                    let detail = format!("{first} and {name} have different values");
                    return Err(Rejection::new(Reason::MalformedHeader, detail));
                }
                Some(_) => {}
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    /// The coding of the body, if it has one.
    ///
    /// # Errors
    ///
    /// `unsupported_encoding` if the request names a coding that `accepted` does not contain, or names several.
    pub fn coding(&self, accepted: &[Coding]) -> Result<Option<Coding>, Rejection> {
        let values = self.headers.all("Content-Encoding");
        let values = values.iter().map(|value| String::from_utf8_lossy(value).to_ascii_lowercase());
        let values = values.collect::<Vec<_>>().join(",");
        let mut codings =
            values.split(',').map(str::trim).filter(|coding| !matches!(*coding, "" | "identity"));
        let Some(name) = codings.next() else { return Ok(None) };
        let known = if name == "x-gzip" { "gzip" } else { name };
        let coding = accepted.iter().find(|coding| coding.as_str() == known);
        match (coding, codings.next()) {
            (Some(coding), None) => Ok(Some(*coding)),
            _ => {
                let detail = match accepted {
                    [] => "this source accepts no Content-Encoding; have the provider send bodies without one".to_owned(),
                    accepted => {
                        let names: Vec<_> = accepted.iter().map(|coding| coding.as_str()).collect();
                        format!("this source accepts one Content-Encoding of {}", names.join(", "))
                    }
                };
                Err(Rejection::new(Reason::UnsupportedEncoding, detail))
            }
        }
    }

    /// Like [`Head::header`], for a required header.
    ///
    /// # Errors
    ///
    /// `missing_header` if it was not sent or is blank; otherwise as [`Head::header`].
    pub fn required_header(&self, name: &str) -> Result<Cow<'a, str>, Rejection> {
        match self.header(name)? {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(Rejection::new(Reason::MissingHeader, format!("{name} is missing"))),
        }
    }
}

impl<'a> Request<'a> {
    /// The request without its body.
    pub const fn head(&self) -> Head<'a> {
        let Self { method, query, headers, body: _ } = *self;
        Head { method, query, headers }
    }
}

/// The client's address. The platform adds it to the extensions of a request to the admin API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remote(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sent: &[(&str, &str)]) -> Result<Option<String>, Rejection> {
        let sent: Vec<_> = sent.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let head = Head { method: "POST", query: None, headers: &sent };
        Ok(head.header("Signature")?.map(Cow::into_owned))
    }

    #[test]
    fn names_are_case_insensitive_and_blanks_are_trimmed() {
        assert_eq!(header(&[("SIGNATURE", " a b ")]).unwrap(), Some("a b".to_owned()));
        assert_eq!(header(&[("Other", "a")]).unwrap(), None);
    }

    #[test]
    fn names_of_one_header_are_alternatives() {
        let header = |sent: &[(&str, &str)]| {
            let sent: Vec<_> =
                sent.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let head = Head { method: "POST", query: None, headers: &sent };
            let found = head.either_header(&["X-Signature".to_owned(), "Signature".to_owned()]);
            found.map(|value| value.map(Cow::into_owned)).map_err(|rejection| rejection.reason)
        };
        let a = Ok(Some("a".to_owned()));
        assert_eq!(header(&[("signature", "a")]), a);
        assert_eq!(header(&[("X-Signature", "a")]), a);
        assert_eq!(header(&[("X-Signature", ""), ("Signature", "a")]), a);
        assert_eq!(header(&[("X-Signature", "a"), ("Signature", "a")]), a);
        assert_eq!(header(&[("Other", "a")]), Ok(None));
        for other in ["b", "a, a"] {
            let sent = [("X-Signature", "a"), ("Signature", other)];
            assert_eq!(header(&sent), Err(Reason::MalformedHeader));
        }
    }

    #[test]
    fn a_body_has_at_most_one_known_coding() {
        let coding = |values: &[&str], accepted: &[Coding]| {
            let name = || "content-encoding".to_owned();
            let sent: Vec<_> = values.iter().map(|value| (name(), (*value).to_owned())).collect();
            let head = Head { method: "POST", query: None, headers: &sent };
            head.coding(accepted).map_err(|rejection| rejection.reason)
        };
        let all = [Coding::Gzip, Coding::Deflate, Coding::Brotli];
        for (values, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["identity"], None),
            (&["gzip"], Some(Coding::Gzip)),
            (&[" X-GZIP "], Some(Coding::Gzip)),
            (&["identity, br"], Some(Coding::Brotli)),
            (&["Deflate"], Some(Coding::Deflate)),
        ] {
            assert_eq!(coding(values, &all), Ok(expected), "{values:?}");
        }
        for values in [&["zstd"][..], &["gzip, gzip"], &["gzip", "br"], &["gzip;q=1"]] {
            assert_eq!(coding(values, &all), Err(Reason::UnsupportedEncoding), "{values:?}");
        }
        assert_eq!(coding(&["gzip"], &[]), Err(Reason::UnsupportedEncoding));
        assert_eq!(coding(&["br"], &all[..2]), Err(Reason::UnsupportedEncoding));
    }

    #[test]
    fn a_repeated_header_is_rejected_on_both_platforms() {
        for sent in [&[("Signature", "a"), ("signature", "b")][..], &[("Signature", "a, b")]] {
            assert_eq!(header(sent).unwrap_err().reason, Reason::MalformedHeader);
        }
    }
}
