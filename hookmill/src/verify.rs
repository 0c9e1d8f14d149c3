//! `hookmill verify`: would this request be taken, and if not, why?

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use hookmill_core::config::{SecretRef, Source};
use hookmill_core::hash::sha256_hex;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::{Headers as _, Request};
use hookmill_core::secret::{ExposeSecret as _, Secret, SecretName};
use hookmill_core::time::Timestamp;
use hookmill_native::now;
use hookmill_providers::{Admitted, Event, Verifier};
use reqwest::Url;
use serde_json::json;

use crate::pipeline::load;
use crate::secrets::{development_keys, from_environment};

/// Verify a captured request, and say what is wrong with it
///
/// The request is one that was captured, byte for byte: by --request, or by --header and --body-file. Exit code 0 if it is
/// valid, 1 if it is not.
#[derive(clap::Args)]
pub struct Arguments {
    /// The source, as in the configuration.
    source: String,
    /// A file with the request as it was sent: request line, headers, an empty line, body.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["header", "body_file", "method"])]
    request: Option<PathBuf>,
    /// The method.
    #[arg(long, default_value = "POST")]
    method: String,
    /// The URL that the provider called; by default the source's public_url.
    #[arg(long)]
    url: Option<Url>,
    /// A header: 'Name: value'.
    #[arg(long, value_name = "HEADER", value_parser = parse_header, required_unless_present_any = ["request", "body_file"])]
    header: Vec<(String, String)>,
    /// A file with the body.
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// The time of the request, in Unix seconds; by default the present.
    #[arg(long, value_name = "UNIX")]
    now: Option<i64>,
    /// Verify with this secret, not with those that the configuration names.
    #[arg(long, allow_hyphen_values = true)]
    secret: Option<String>,
    /// Where a secret is not set, use the development secret.
    #[arg(long)]
    dev: bool,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    config: PathBuf,
    /// Print {"valid":…,"reason":…,"event":{…}}, with all events of the request in "events".
    #[arg(long)]
    json: bool,
}

fn parse_header(line: &str) -> anyhow::Result<(String, String)> {
    // Not quoted: it may be a signature.
    let (name, value) =
        line.split_once(':').context("a header has no colon; expected 'Name: value'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// A request that was captured.
#[derive(Clone)]
struct Captured {
    method: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Captured {
    fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            query: self.query.as_deref(),
            headers: &self.headers,
            body: &self.body,
        }
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let loaded = load(&arguments.config)?;
    let sources = &loaded.config.ingress.sources;
    let source = sources.iter().find(|source| source.name == arguments.source);
    let source = source.with_context(|| {
        let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
        format!("there is no source `{}`; there are: {}", arguments.source, names.join(", "))
    })?;
    // The configured one is among what is tried if this does not fit.
    let configured = source.public_url.clone();
    let source = &match &arguments.url {
        Some(url) => Source { public_url: Some(without_query(url)), ..source.clone() },
        None => source.clone(),
    };
    let captured = captured(arguments)?;
    let now = arguments.now.map_or_else(now, Timestamp::from_seconds);
    let lookup = |source: &Source, name: &SecretName| match &arguments.secret {
        Some(secret) => Some(Secret::from(secret.clone())),
        None => from_environment(name).or_else(|| {
            arguments
                .dev
                .then(|| development_keys(source, name))
                .flatten()
                .map(|keys| keys.verifying)
        }),
    };
    let verifier = match Verifier::new(source, |name| lookup(source, name)) {
        Ok(verifier) => verifier,
        Err(error) if arguments.json => {
            let reason = "source_not_ready";
            println!(
                "{}",
                json!({ "valid": false, "reason": reason, "detail": error.to_string() })
            );
            bail!("not valid: {reason}");
        }
        Err(error) => return Err(error.into()),
    };
    let verdict = if source.takes(&captured.method) {
        verifier.verify(&captured.request(), now)
    } else {
        let detail = format!("the source takes no {}", captured.method);
        Err(Rejection::new(Reason::MethodNotAllowed, detail))
    };
    let causes = match &verdict {
        Ok(_) if source.scheme.signs_url() && configured != source.public_url => {
            let url = without_credentials(source.public_url.as_deref().unwrap_or_default());
            vec![format!("`public_url` is wrong: the provider calls {url}")]
        }
        Ok(_) => Vec::new(),
        Err(rejection) => {
            let trial = Trial { source, sources, captured: &captured, now, lookup: &lookup };
            trial.causes(&verifier, rejection.reason, configured)
        }
    };
    report(arguments, source, &captured, &verdict, &causes);
    if let Err(rejection) = verdict {
        bail!("not valid: {}", rejection.reason);
    }
    Ok(())
}

/// The request, from a file or from its parts.
fn captured(arguments: &Arguments) -> anyhow::Result<Captured> {
    let read = |path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let query = |url: &Url| url.query().map(ToOwned::to_owned);
    let Some(path) = &arguments.request else {
        return Ok(Captured {
            method: arguments.method.to_uppercase(),
            query: arguments.url.as_ref().and_then(query),
            headers: arguments.header.clone(),
            body: arguments.body_file.as_ref().map(read).transpose()?.unwrap_or_default(),
        });
    };
    let bytes = read(path)?;
    // Editors and tools end lines either way; the body is what follows the first empty line.
    let (head, body) = split(&bytes, b"\r\n\r\n")
        .or_else(|| split(&bytes, b"\n\n"))
        .context("there is no empty line between the headers and the body")?;
    let head = std::str::from_utf8(head).context("the headers are not text")?;
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split_whitespace();
    let (Some(method), Some(target)) = (first.next(), first.next()) else {
        bail!("the first line is no request line, such as POST /webhooks/stripe HTTP/1.1");
    };
    let headers = lines.map(parse_header).collect::<anyhow::Result<_>>()?;
    let target = target.split_once('?').map(|(_, query)| query.to_owned());
    Ok(Captured {
        method: method.to_uppercase(),
        query: match &arguments.url {
            Some(url) => query(url),
            None => target,
        },
        headers,
        body: body.to_vec(),
    })
}

fn split<'b>(bytes: &'b [u8], at: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let start = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..start], &bytes[start + at.len()..]))
}

/// Finds what would have made a request valid, by trying it.
struct Trial<'a> {
    source: &'a Source,
    sources: &'a [Source],
    captured: &'a Captured,
    now: Timestamp,
    lookup: &'a dyn Fn(&Source, &SecretName) -> Option<Secret>,
}

impl Trial<'_> {
    fn causes(
        &self,
        verifier: &Verifier,
        reason: Reason,
        configured: Option<String>,
    ) -> Vec<String> {
        let mut causes: Vec<_> = self.cut().into_iter().collect();
        let clock = "the clock of this machine or of the sender is off; --now tries another time";
        match reason {
            Reason::TimestampInFuture => causes.push(clock.to_owned()),
            Reason::TimestampTooOld => causes.extend([
                clock.to_owned(),
                "it was held up on its way, or sent a second time; `tolerance` says how old it may be".to_owned(),
            ]),
            Reason::NoMatchingSignature => self.signature(verifier, configured, &mut causes),
            _ => {}
        }
        causes
    }

    /// Whether a part of the body is missing, or of another.
    fn cut(&self) -> Option<String> {
        let said = self.captured.headers.all("content-length").first()?.to_vec();
        let said: usize = std::str::from_utf8(&said).ok()?.trim().parse().ok()?;
        let found = self.captured.body.len();
        (said != found).then(|| {
            format!("the body has {found} bytes, and Content-Length says {said}: it was cut, changed or decoded")
        })
    }

    /// Why no signature holds.
    fn signature(&self, verifier: &Verifier, configured: Option<String>, causes: &mut Vec<String>) {
        let captured = self.captured;
        for (changed, body) in variants(&captured.body) {
            if body != captured.body && self.holds(verifier, &Captured { body, ..captured.clone() })
            {
                causes.push(format!("the body was changed on its way: {changed}"));
            }
        }
        for SecretRef { name, .. } in &self.source.secrets {
            let Some(secret) = (self.lookup)(self.source, name) else { continue };
            for (what, secret) in unwrapped(secret.expose_secret()) {
                if self.holds_with(self.source, &secret) {
                    causes.push(format!("{} {what}", name.0));
                }
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
            for url in urls(public_url).into_iter().chain(configured) {
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
                "the secret is that of another endpoint, or of another mode (test, live)"
                    .to_owned(),
            );
            causes.push(
                "the body is not byte for byte what was sent: parsed and written again, or decoded"
                    .to_owned(),
            );
            if signs_url {
                causes.push(
                    "`public_url` is not the URL that the provider was told to call".to_owned(),
                );
            }
        }
    }

    /// Whether the signature holds for this source with this secret.
    fn holds_with(&self, source: &Source, secret: &Secret) -> bool {
        let verifier = Verifier::new(source, |_| Some(secret.clone()));
        verifier.is_ok_and(|verifier| self.holds(&verifier, self.captured))
    }

    /// Whether the signature holds, whatever the body means and however old it is.
    fn holds(&self, verifier: &Verifier, captured: &Captured) -> bool {
        match verifier.verify(&captured.request(), self.now) {
            Ok(_) => true,
            Err(rejection) => matches!(
                rejection.reason,
                Reason::MalformedEvent | Reason::TimestampTooOld | Reason::TimestampInFuture
            ),
        }
    }
}

/// What proxies, frameworks and editors do to a body, undone.
fn variants(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let text = String::from_utf8_lossy(body);
    let trimmed = text.trim_end_matches(['\r', '\n']);
    let mut variants = Vec::new();
    let mut end = |text: String| {
        let what = if text.len() > body.len() {
            "the line end at its end was lost"
        } else {
            "a line end was added at its end"
        };
        variants.push((what, text.into_bytes()));
    };
    for line_end in ["", "\n", "\r\n"] {
        end(format!("{trimmed}{line_end}"));
    }
    variants.push((
        "its line ends were changed from CR LF to LF",
        text.replace('\n', "\r\n").into_bytes(),
    ));
    variants.push((
        "its line ends were changed from LF to CR LF",
        text.replace("\r\n", "\n").into_bytes(),
    ));
    let minified = minified(trimmed);
    if minified != trimmed {
        for line_end in ["", "\n"] {
            variants.push((
                "blanks were put into the JSON",
                format!("{minified}{line_end}").into_bytes(),
            ));
        }
    }
    if let Some(rest) = body.strip_prefix(b"\xef\xbb\xbf") {
        variants.push(("a byte order mark was added", rest.to_vec()));
    }
    variants
}

/// JSON without the blanks between its parts.
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

/// What becomes of a secret on its way into a variable, undone.
fn unwrapped(secret: &str) -> Vec<(&'static str, Secret)> {
    let secret = secret.trim();
    let quoted = ['"', '\'']
        .iter()
        .find_map(|quote| secret.strip_prefix(*quote)?.strip_suffix(*quote))
        .map(|inner| ("is in quotes, which are not a part of it", inner));
    let ended = secret
        .strip_suffix("\\n")
        .map(|inner| ("ends with a backslash and an n, which are not a part of it", inner));
    let assigned = secret
        .split_once('=')
        .filter(|(name, _)| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
        })
        .map(|(_, inner)| ("holds a name and an equals sign before the secret", inner));
    let found = [quoted, ended, assigned].into_iter().flatten();
    found.map(|(what, inner)| (what, Secret::from(inner))).collect()
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

fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// As it may be shown.
fn without_credentials(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://{rest}"),
        None => url.to_owned(),
    }
}

fn report(
    arguments: &Arguments,
    source: &Source,
    captured: &Captured,
    verdict: &Result<Admitted<'_>, Rejection>,
    causes: &[String],
) {
    let events = match verdict {
        Ok(Admitted::Events(verified, events)) => Some((verified, events)),
        _ => None,
    };
    if arguments.json {
        let named = |event: &Event<'_>| json!({ "id": event.id, "type": event.kind });
        let reason = verdict.as_ref().err().map(|rejection| rejection.reason.as_str());
        let event = events.and_then(|(verified, events)| {
            let event = events.first()?;
            Some(json!({ "id": event.id, "type": event.kind, "secret": verified.secret }))
        });
        println!(
            "{}",
            json!({
                "valid": verdict.is_ok(),
                "reason": reason,
                "detail": verdict.as_ref().err().map(|rejection| &rejection.detail),
                "event": event,
                "events": events.map(|(_, events)| events.iter().map(named).collect::<Vec<_>>()),
                "handshake": matches!(verdict, Ok(Admitted::Handshake(_))),
                "causes": causes,
            })
        );
        return;
    }
    match (verdict, events) {
        (Err(rejection), _) => println!("not valid: {}: {}", rejection.reason, rejection.detail),
        (Ok(_), Some((verified, events))) => {
            let name = &source.secrets[verified.secret].name;
            let whose = match (&arguments.secret, from_environment(name)) {
                (Some(_), _) => "the secret given".to_owned(),
                (None, Some(_)) => name.0.clone(),
                (None, None) => format!("the development secret of {}", name.0),
            };
            println!("valid, by {whose}");
            for event in events {
                println!("  event {} of type {}", event.id, event.kind);
            }
        }
        (Ok(_), None) => println!("valid, and no event: a handshake"),
    }
    println!("  signed is {}", source.scheme);
    println!("  body: {} bytes, SHA-256 {}", captured.body.len(), sha256_hex(&[&captured.body]));
    if source.scheme.signs_url() {
        let query = captured.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let url = source.public_url.as_deref().unwrap_or_default();
        println!("  URL: {}{query}", without_credentials(url));
    }
    let names = captured.headers.iter().map(|(name, _)| name.to_lowercase());
    let repeated: BTreeSet<_> = names.filter(|name| captured.headers.all(name).len() > 1).collect();
    for name in repeated {
        println!("  sent more than once: {name}");
    }
    for cause in causes {
        println!("  likely: {cause}");
    }
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
