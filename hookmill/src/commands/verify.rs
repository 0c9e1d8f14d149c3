//! `hookmill verify`: checks whether a captured request is valid, and explains why not.

mod diagnosis;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use hookmill_config::Source;
use hookmill_core::hash::sha256_hex;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::{Headers as _, Request};
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::time::Timestamp;
use hookmill_native::now;
use hookmill_providers::{Admitted, Event, Verifier};
use reqwest::Url;
use serde_json::json;

use self::diagnosis::Diagnosis;
use crate::list::print_line;
use crate::run::pipeline::load;
use crate::run::secrets::{development_keys, from_environment};

/// Verify a captured request, and explain why it is invalid
///
/// Pass the request byte for byte with --request, or with --header and --body-file. The exit code is 0 if it is valid, and 1
/// if it is not.
#[derive(clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("captured").args(["request", "header", "body_file"]).multiple(true).required(true))]
pub struct Arguments {
    /// The source in the configuration.
    source: String,
    /// A file with the request as it was sent: request line, headers, an empty line, body.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["header", "body_file", "method"])]
    request: Option<PathBuf>,
    /// The method.
    #[arg(long, default_value = "POST")]
    method: String,
    /// The URL that the provider called. Default: the source's public_url.
    #[arg(long)]
    url: Option<Url>,
    /// A header: 'Name: value'.
    #[arg(long, value_name = "HEADER", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// A file with the body.
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// The time of the request, in Unix seconds. Default: now.
    #[arg(long, value_name = "UNIX", value_parser = clap::value_parser!(i64).range(0..100_000_000_000))]
    now: Option<i64>,
    /// Verify with this secret instead of the configured ones.
    #[arg(long, allow_hyphen_values = true)]
    secret: Option<String>,
    /// Use the development secret for secrets that are not set.
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
    // Not quoted, since it may be a signature.
    let (name, value) =
        line.split_once(':').context("a header has no colon; expected 'Name: value'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// A captured request.
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
        format!("no source `{}`; sources: {}", arguments.source, names.join(", "))
    })?;
    // If this URL does not match, the configured one is tried.
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
            print_line!(
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
        let detail = format!("the source does not accept {}", captured.method);
        Err(Rejection::new(Reason::MethodNotAllowed, detail))
    };
    let causes = match &verdict {
        Ok(_) if source.scheme.signs_url() && configured != source.public_url => {
            let url = without_credentials(source.public_url.as_deref().unwrap_or_default());
            vec![format!("`public_url` is wrong: the provider calls {url}")]
        }
        Ok(_) => Vec::new(),
        Err(rejection) => {
            let given = arguments.secret.is_some();
            let diagnosis =
                Diagnosis { source, sources, captured: &captured, now, given, lookup: &lookup };
            diagnosis.causes(&verifier, rejection.reason, configured)
        }
    };
    report(arguments, source, &captured, &verdict, &causes)?;
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
    // Both kinds of line breaks occur; the body follows the first empty line.
    let (head, body) = split(&bytes, b"\r\n\r\n")
        .or_else(|| split(&bytes, b"\n\n"))
        .context("an empty line between the headers and the body is missing")?;
    let head = std::str::from_utf8(head).context("the headers are not text")?;
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split_whitespace();
    let (Some(method), Some(target), Some("HTTP/1.0" | "HTTP/1.1" | "HTTP/2" | "HTTP/3") | None) =
        (first.next(), first.next(), first.next())
    else {
        bail!("the first line is not a request line, such as POST /webhooks/stripe HTTP/1.1");
    };
    let headers: Vec<(String, String)> = lines.map(parse_header).collect::<anyhow::Result<_>>()?;
    let chunked = headers.iter().any(|(name, value)| {
        name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked")
    });
    let body = match dechunked(body) {
        Some(whole) if chunked => whole,
        _ => body.to_vec(),
    };
    let target = target.split_once('?').map(|(_, query)| query.to_owned());
    Ok(Captured {
        method: method.to_uppercase(),
        query: match &arguments.url {
            Some(url) => query(url),
            None => target,
        },
        headers,
        body,
    })
}

/// A body without its chunked encoding: <https://www.rfc-editor.org/rfc/rfc9112#section-7.1>. `None` if it is not chunked:
/// most tools save it decoded.
fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let (line, below) = split(rest, b"\r\n")?;
        let size = std::str::from_utf8(line).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(below.get(..size)?);
        rest = below.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fn split<'b>(bytes: &'b [u8], at: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let start = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..start], &bytes[start + at.len()..]))
}

fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// The URL without credentials, for display.
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
) -> anyhow::Result<()> {
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
        print_line!(
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
        return Ok(());
    }
    match (verdict, events) {
        (Err(rejection), _) => print_line!("not valid: {}: {}", rejection.reason, rejection.detail),
        (Ok(_), Some((verified, events))) => {
            let name = &source.secrets[verified.secret].name;
            let whose = match (&arguments.secret, from_environment(name)) {
                (Some(_), _) => "the given secret".to_owned(),
                (None, Some(_)) => name.0.clone(),
                (None, None) => format!("the development secret of {}", name.0),
            };
            print_line!("valid, by {whose}");
            for event in events {
                print_line!("  event {} of type {}", event.id, event.kind);
            }
        }
        (Ok(_), None) => print_line!("valid; a handshake, not an event"),
    }
    print_line!("  signature: {}", source.scheme);
    print_line!("  body: {} bytes, SHA-256 {}", captured.body.len(), sha256_hex(&[&captured.body]));
    if source.scheme.signs_url() {
        let query = captured.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let url = source.public_url.as_deref().unwrap_or_default();
        print_line!("  URL: {}{query}", without_credentials(url));
    }
    let names = captured.headers.iter().map(|(name, _)| name.to_lowercase());
    let repeated: BTreeSet<_> = names.filter(|name| captured.headers.all(name).len() > 1).collect();
    for name in repeated {
        print_line!("  sent more than once: {name}");
    }
    for cause in causes {
        print_line!("  likely: {cause}");
    }
    Ok(())
}
