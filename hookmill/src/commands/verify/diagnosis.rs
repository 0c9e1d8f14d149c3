//! Finds why a request is invalid, by trying changes that would make it valid.

use std::collections::BTreeSet;

use hookmill_config::{SecretRef, Source};
use hookmill_core::rejection::Reason;
use hookmill_core::request::Headers as _;
use hookmill_core::secret::{ExposeSecret as _, Secret, SecretName};
use hookmill_core::time::Timestamp;
use hookmill_providers::Verifier;

use super::captured::Captured;
use super::without_credentials;
use crate::run::secrets::unwrapped;

/// An invalid request and the material for trials.
pub(super) struct Diagnosis<'a> {
    pub(super) source: &'a Source,
    pub(super) sources: &'a [Source],
    /// With the decoded body, if it has a coding.
    pub(super) captured: &'a Captured,
    /// As it was sent.
    pub(super) sent: &'a Captured,
    pub(super) now: Timestamp,
    /// Whether the secret was given on the command line.
    pub(super) given: bool,
    pub(super) lookup: &'a dyn Fn(&Source, &SecretName) -> Option<Secret>,
    /// The URL that the provider called, without its query, if it is given.
    pub(super) called: Option<String>,
}

impl Diagnosis<'_> {
    /// The likely causes.
    pub(super) fn causes(&self, verifier: &Verifier, reason: Reason) -> Vec<String> {
        let mut causes: Vec<_> = self.cut().into_iter().collect();
        causes.extend(self.coded(verifier, reason).map(ToOwned::to_owned));
        let signed_at = verifier.verify_signature(&self.captured.request(), self.now);
        let signed_at = signed_at.ok().and_then(|verified| verified.signed_at);
        let clock = signed_at.map(|signed_at| {
            let off = self.now.seconds().abs_diff(signed_at.seconds());
            format!(
                "the clock of this machine or of the sender is off by {off} s; use --now {} for the time of signing",
                signed_at.seconds()
            )
        });
        match reason {
            Reason::TimestampInFuture => causes.extend(clock),
            Reason::TimestampTooOld => {
                causes.extend(clock);
                causes.push(
                    "the request was delayed, or sent a second time; `tolerance` sets the maximum age"
                        .to_owned(),
                );
            }
            Reason::NoMatchingSignature => self.signature(verifier, &mut causes),
            _ => {}
        }
        let mut seen = BTreeSet::new();
        causes.retain(|cause| seen.insert(cause.clone()));
        causes
    }

    /// Whether the body is truncated or does not belong to the request.
    fn cut(&self) -> Option<String> {
        let length = self.sent.headers.all("content-length").first()?.to_vec();
        let length: usize = std::str::from_utf8(&length).ok()?.trim().parse().ok()?;
        let found = self.sent.body.len();
        (length != found).then(|| {
            format!("the body has {found} bytes but Content-Length is {length}: it was cut, changed or decoded")
        })
    }

    /// Whether the coding of the body is the problem.
    fn coded(&self, verifier: &Verifier, reason: Reason) -> Option<&'static str> {
        self.sent.headers.all("content-encoding").first()?;
        let as_sent = self.holds(verifier, self.sent);
        Some(match reason {
            Reason::UnsupportedEncoding if as_sent && self.sent.body == self.captured.body => {
                "the signature fits the body as it is: a proxy decompressed it and left the header Content-Encoding"
            }
            Reason::UnsupportedEncoding | Reason::NoMatchingSignature if as_sent => {
                "the signature covers the compressed body, which Hookmill does not support; have the provider send bodies without Content-Encoding"
            }
            Reason::UnsupportedEncoding if self.holds(verifier, self.captured) => {
                "the signature fits the decompressed body; add its Content-Encoding to `compression` of the source"
            }
            Reason::MalformedBody if as_sent => {
                "the signature fits the body as it is: a proxy decompressed it and left the header Content-Encoding"
            }
            _ => return None,
        })
    }

    /// Why no signature matches.
    fn signature(&self, verifier: &Verifier, causes: &mut Vec<String>) {
        let captured = self.captured;
        for (changed, body) in variants(&captured.body) {
            if body != captured.body && self.holds(verifier, &Captured { body, ..captured.clone() })
            {
                causes.push(format!("the body was changed in transit: {changed}"));
            }
        }
        for SecretRef { name, not_after } in &self.source.secrets {
            let Some(secret) = (self.lookup)(self.source, name) else { continue };
            let name = if self.given { "the given secret" } else { &name.0 };
            for (what, secret) in unwrapped(secret.expose_secret()) {
                if self.holds_with(self.source, &secret) {
                    causes.push(format!("{name} {what}"));
                }
            }
            if let Some(end) = not_after
                && *end < self.now
                && self.holds_with(self.source, &secret)
            {
                causes.push(format!("it was signed with {name}, which expired at {end}"));
            }
        }
        for other in self.sources.iter().filter(|other| other.name != self.source.name) {
            let theirs =
                other.secrets.iter().filter_map(|secret| (self.lookup)(other, &secret.name));
            for secret in theirs {
                if self.holds_with(self.source, &secret) {
                    let name = &other.name;
                    causes.push(format!("it was signed with a secret of the source `{name}`"));
                } else if self.holds_with(other, &secret) {
                    causes.push(format!("it is signed as the source `{}` expects it", other.name));
                }
            }
        }
        let signs_url = self.source.scheme.signs_url();
        if signs_url {
            let public_url = self.source.public_url.as_deref().unwrap_or_default();
            for url in urls(public_url).into_iter().chain(self.called.clone()) {
                let other = Source { public_url: Some(url.clone()), ..self.source.clone() };
                let verifier = Verifier::new(&other, |name| (self.lookup)(self.source, name));
                if verifier.is_ok_and(|verifier| self.holds(&verifier, captured)) {
                    let url = without_credentials(&url);
                    causes.push(format!("`public_url` is wrong: the provider calls {url}"));
                }
            }
        }
        if causes.is_empty() {
            causes.push(
                "the secret belongs to another endpoint, or to another mode (test, live)"
                    .to_owned(),
            );
            causes.push(
                "the body differs from the sent bytes: it was parsed and written again, or decoded"
                    .to_owned(),
            );
            if signs_url {
                causes.push("`public_url` is not the URL registered with the provider".to_owned());
            }
        }
    }

    /// Whether the signature is valid for this source with this secret.
    fn holds_with(&self, source: &Source, secret: &Secret) -> bool {
        let secrets = source.secrets.iter().cloned();
        let valid = secrets.map(|name| SecretRef { not_after: None, ..name }).collect();
        let source = Source { secrets: valid, ..source.clone() };
        let verifier = Verifier::new(&source, |_| Some(secret.clone()));
        verifier.is_ok_and(|verifier| self.holds(&verifier, self.captured))
    }

    /// Whether the signature is valid, regardless of the body's content and the age.
    fn holds(&self, verifier: &Verifier, captured: &Captured) -> bool {
        verifier.verify_signature(&captured.request(), self.now).is_ok()
    }
}

/// Bodies without the changes that proxies, frameworks and editors make.
fn variants(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let text = String::from_utf8_lossy(body);
    let trimmed = text.trim_end_matches(['\r', '\n']);
    let mut variants = Vec::new();
    let mut end = |text: String| {
        let what = if text.len() > body.len() {
            "its final line ending was removed"
        } else {
            "a final line ending was added"
        };
        variants.push((what, text.into_bytes()));
    };
    for line_end in ["", "\n", "\r\n"] {
        end(format!("{trimmed}{line_end}"));
    }
    variants.push((
        "its line endings were changed from CR LF to LF",
        text.replace('\n', "\r\n").into_bytes(),
    ));
    variants.push((
        "its line endings were changed from LF to CR LF",
        text.replace("\r\n", "\n").into_bytes(),
    ));
    let minified = minified(trimmed);
    if minified != trimmed {
        for line_end in ["", "\n"] {
            variants.push((
                "whitespace was added to the JSON",
                format!("{minified}{line_end}").into_bytes(),
            ));
        }
    }
    if let Some(rest) = body.strip_prefix(b"\xef\xbb\xbf") {
        variants.push(("a byte order mark was added", rest.to_vec()));
    }
    variants
}

/// JSON without whitespace between its parts.
fn minified(text: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let keep = |c: &char| {
        let blank = !quoted && c.is_ascii_whitespace();
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        !blank
    };
    text.chars().filter(keep).collect()
}

/// Other spellings of a URL.
fn urls(public_url: &str) -> Vec<String> {
    let swapped = match public_url.split_once("://") {
        Some(("https", rest)) => format!("http://{rest}"),
        Some((_, rest)) => format!("https://{rest}"),
        None => public_url.to_owned(),
    };
    let slash = match public_url.strip_suffix('/') {
        Some(without) => without.to_owned(),
        None => format!("{public_url}/"),
    };
    vec![swapped, slash]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_minified_outside_of_strings() {
        assert_eq!(
            minified("{ \"a b\" : \"c \\\" d\",\n\t\"e\": [1, 2] }"),
            "{\"a b\":\"c \\\" d\",\"e\":[1,2]}"
        );
    }
}
