//! `hookmill verify`: checks whether a captured request is valid, and explains why not.

mod captured;
mod diagnosis;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use hookmill_config::Source;
use hookmill_core::hash::sha256_hex;
use hookmill_core::message::Envelope;
use hookmill_core::rejection::Reason;
use hookmill_core::request::Headers as _;
use hookmill_core::secret::SecretName;
use hookmill_core::time::Timestamp;
use hookmill_native::now;
use hookmill_providers::{Verifier, development_token};
use serde_json::json;

use self::captured::{Captured, CapturedHeaders, Judgment};
use self::diagnosis::Diagnosis;
use crate::commands::secret::GivenSecret;
use crate::list::{plain, print_line};
use crate::run::pipeline::load;
use crate::run::secrets::{development_keys, from_environment};
use crate::trial::parse_header;

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
    /// The URL that the provider called. Ingress takes the query from it; the rest of a signed URL is the source's public_url.
    #[arg(long)]
    url: Option<String>,
    /// A header: 'Name: value'.
    #[arg(long, value_name = "HEADER", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// A file with the body.
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// The time of the request, in Unix seconds. Default: now.
    #[arg(long, value_name = "UNIX", value_parser = clap::value_parser!(i64).range(0..100_000_000_000))]
    now: Option<i64>,
    #[command(flatten)]
    secret: GivenSecret,
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

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let loaded = load(&arguments.config)?;
    let sources = &loaded.config.ingress.sources;
    let source = sources.iter().find(|source| source.name == arguments.source);
    let source = source.with_context(|| {
        let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
        format!("no source `{}`; sources: {}", arguments.source, names.join(", "))
    })?;
    let captured = captured(arguments)?;
    let now = arguments.now.map_or_else(now, Timestamp::from_seconds);
    let given = arguments.secret.read()?;
    let lookup = |source: &Source, name: &SecretName| match &given {
        _ if source.challenge_token.as_ref() == Some(name) => from_environment(name)
            .or_else(|| arguments.dev.then(|| development_token(name)))
            .or_else(|| given.clone()),
        Some(secret) => Some(secret.clone()),
        None => from_environment(name).or_else(|| {
            let keys = arguments.dev.then(|| development_keys(source, name)).flatten();
            keys.map(|keys| keys.verifying)
        }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let keys = |name: &SecretName| lookup(source, name);
    let judged = captured.judge(&loaded.config.ingress, source, keys, now);
    let judgment = runtime.block_on(judged);
    let decoded = runtime.block_on(captured.decoded(loaded.config.ingress.limits.body_limit));
    let diagnosis = Diagnosis {
        source,
        sources,
        captured: decoded.as_ref().unwrap_or(&captured),
        sent: &captured,
        now,
        given: given.is_some(),
        lookup: &lookup,
        called: arguments.url.as_deref().map(without_query),
    };
    let causes = match (&judgment, Verifier::new(source, keys)) {
        (Judgment::Rejected(rejection), Ok(verifier)) => {
            diagnosis.causes(&verifier, rejection.reason)
        }
        // All secrets have expired.
        (Judgment::NotReady(_), Ok(verifier)) => {
            diagnosis.causes(&verifier, Reason::NoMatchingSignature)
        }
        _ => Vec::new(),
    };
    report(arguments, source, &captured, &judgment, given.is_some(), &causes)?;
    match judgment.reason() {
        Some(reason) => bail!("not valid: {reason}"),
        None => Ok(()),
    }
}

/// The request, from a file or from its parts.
fn captured(arguments: &Arguments) -> anyhow::Result<Captured> {
    // As written: a parser of URLs would change escapes, which providers sign.
    let query = |url: &String| {
        let url = url.split('#').next().unwrap_or_default();
        url.split_once('?').map(|(_, query)| query.to_owned())
    };
    let Some(path) = &arguments.request else {
        let body = arguments.body_file.as_ref().map(|path| {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        });
        let headers = arguments.header.iter();
        let headers = headers.map(|(name, value)| (name.clone(), value.clone().into_bytes()));
        return Ok(Captured {
            method: arguments.method.to_uppercase(),
            query: arguments.url.as_ref().and_then(query),
            headers: CapturedHeaders(headers.collect()),
            body: body.transpose()?.unwrap_or_default(),
        });
    };
    let captured = Captured::read(path)?;
    Ok(match &arguments.url {
        Some(url) => Captured { query: query(url), ..captured },
        None => captured,
    })
}

fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// The URL without credentials, for display.
fn without_credentials(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://{rest}"),
        None => url.to_owned(),
    }
}

impl Judgment {
    /// Why it is not valid.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Events(_) | Self::Handshake | Self::Probe => None,
            Self::Rejected(rejection) => Some(rejection.reason.as_str()),
            Self::NotReady(_) => Some("source_not_ready"),
        }
    }

    fn detail(&self) -> Option<&str> {
        match self {
            Self::Events(_) | Self::Handshake | Self::Probe => None,
            Self::Rejected(rejection) => Some(&rejection.detail),
            Self::NotReady(error) => Some(error),
        }
    }
}

fn report(
    arguments: &Arguments,
    source: &Source,
    captured: &Captured,
    judgment: &Judgment,
    given: bool,
    causes: &[String],
) -> anyhow::Result<()> {
    let events = match judgment {
        Judgment::Events(events) => Some(events),
        _ => None,
    };
    let (reason, detail) = (judgment.reason(), judgment.detail());
    if arguments.json {
        let named = |event: &Envelope| json!({ "id": event.id, "type": event.kind });
        let event = events.and_then(|events| {
            let event = events.first()?;
            Some(json!({ "id": event.id, "type": event.kind, "secret": event.verified.secret }))
        });
        print_line!(
            "{}",
            json!({
                "valid": reason.is_none(),
                "reason": reason,
                "detail": detail,
                "event": event,
                "events": events.map(|events| events.iter().map(named).collect::<Vec<_>>()),
                "handshake": *judgment == Judgment::Handshake,
                "causes": causes,
            })
        );
        return Ok(());
    }
    match judgment {
        Judgment::Events(events) => {
            let secret = events.first().map(|event| &source.secrets[event.verified.secret].name);
            match (given, secret) {
                (true, _) => print_line!("valid, by the given secret"),
                (false, None) => print_line!("valid; it has no events"),
                (false, Some(name)) if from_environment(name).is_some() => {
                    print_line!("valid, by {}", name.0);
                }
                (false, Some(name)) => {
                    print_line!("valid, by the development secret of {}", name.0);
                }
            }
            for event in events {
                print_line!("  event {} of type {}", plain(&event.id), plain(&event.kind));
            }
        }
        Judgment::Handshake => print_line!("valid; a handshake, not an event"),
        Judgment::Probe => print_line!("valid; a test of the URL, not an event"),
        Judgment::Rejected(_) | Judgment::NotReady(_) => {
            let (reason, detail) = (reason.unwrap_or_default(), detail.unwrap_or_default());
            print_line!("not valid: {reason}: {detail}");
        }
    }
    print_line!("  signature: {}", source.scheme);
    print_line!("  body: {} bytes, SHA-256 {}", captured.body.len(), sha256_hex(&[&captured.body]));
    for coding in captured.headers.all("content-encoding") {
        print_line!("  Content-Encoding: {}", plain(&String::from_utf8_lossy(&coding)));
    }
    if source.scheme.signs_url() {
        let query = captured.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let url = source.public_url.as_deref().unwrap_or_default();
        print_line!("  URL: {}{}", without_credentials(url), plain(&query));
    }
    let names = captured.headers.0.iter().map(|(name, _)| name.to_lowercase());
    let repeated: BTreeSet<_> = names.filter(|name| captured.headers.all(name).len() > 1).collect();
    for name in repeated {
        print_line!("  sent more than once: {name}");
    }
    for cause in causes {
        print_line!("  likely: {cause}");
    }
    Ok(())
}
