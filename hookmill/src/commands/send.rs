//! `hookmill send`: signs and posts events as a provider would.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hookmill_config::{SecretRef, Source};
use hookmill_core::request::Request;
use hookmill_core::secret::Secret;
use hookmill_loader::Loaded;
use hookmill_native::{DataFolder, now};
use hookmill_providers::{Admitted, Signed, UnsignedEvent, Verifier, sign};
use hookmill_rules::{Path as BodyPath, Step};
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value, json};

use crate::commands::events;
use crate::commands::secret::GivenSecret;
use crate::list::{note, print_line, write};
use crate::run::pipeline::load;
use crate::run::secrets::{development_keys, from_environment};
use crate::samples;
use crate::trial::{contradiction, parse_header, with_headers};

/// Sign a realistic event and send it, like a provider
///
/// If `--data` is the pipeline's data folder, the command waits and prints the result. If a source verifies with a public
/// key, `--secret-env` or `--secret-stdin` gives the private key: 32 bytes in hexadecimal for Ed25519 and P-256, PEM for RSA.
#[derive(clap::Args)]
pub struct Arguments {
    /// The source in the configuration.
    source: String,
    /// The event type. Without it, the command lists the types.
    event: Option<String>,
    /// The event's id. Default: a new one for each event.
    #[arg(long)]
    id: Option<String>,
    /// The number of events to send, one after another.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// The URL of the pipeline, without the path of the source. Default: the one that uses the data folder, or
    /// http://127.0.0.1:8787.
    #[arg(long, value_name = "URL")]
    to: Option<Url>,
    /// Change the body: data.object.status=active. The value is JSON, or text; {number} in it becomes the number of the
    /// event. With type=charge.refunded, the sample becomes an event of another type.
    #[arg(long, value_name = "PATH=VALUE", value_parser = parse_set)]
    set: Vec<(BodyPath, String)>,
    /// A header to add: 'Name: value'. It is not signed.
    #[arg(long, value_name = "HEADER", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// Send this file as the body instead of a sample. If the provider puts its signature into the body, the command adds it.
    #[arg(long, value_name = "FILE", conflicts_with = "set")]
    body: Option<PathBuf>,
    /// Print the body, for a test of your rules or for `hookmill explain`, and send nothing.
    #[arg(long, conflicts_with_all = ["body", "header", "to", "secret_env", "secret_stdin", "count", "json"])]
    print: bool,
    // If the configured secret is a public key, this is the private key.
    #[command(flatten)]
    secret: GivenSecret,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    config: PathBuf,
    /// The data folder of the pipeline, to show the result of the event.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
    /// Print one JSON object for each request: the event's id, the number of other events, the status, the response, the event as in
    /// `hookmill events` (null if unknown here), and whether it had been applied before.
    #[arg(long)]
    json: bool,
}

fn parse_set(text: &str) -> anyhow::Result<(BodyPath, String)> {
    let (path, value) = text.split_once('=').context("expected PATH=VALUE")?;
    let path: BodyPath = path.parse()?;
    if path.select.is_some() {
        bail!("`--set` needs a path of names, without a selection");
    }
    Ok((path, value.to_owned()))
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let loaded = load(&arguments.config)?;
    let source = source(&loaded, &arguments.source)?;
    let Some(bodies) = Bodies::new(arguments, &source.scheme_name)? else {
        for kind in samples::types(&source.scheme_name) {
            print_line!("{kind}");
        }
        return Ok(());
    };
    if arguments.print {
        let id = arguments.id.clone().unwrap_or_else(|| new_id(&source.scheme_name));
        write(bodies.printed(&id)?.as_bytes())?;
        return Ok(());
    }
    let to = match (&arguments.to, DataFolder::listening(&arguments.data)) {
        (Some(url), _) => url.clone(),
        (None, Some(address)) => Url::parse(&format!("http://{address}"))?,
        (None, None) => Url::parse("http://127.0.0.1:8787")?,
    };
    let url = to.join(&format!("/webhooks/{}", source.name))?;
    let keys = keys(source, &url, arguments)?;

    // The TLS provider; a second call would only report that one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(30)).build()?;
    let follow = Follower::open(&arguments.data, &url);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut refused, mut dead, mut unverified) = (0, 0, false);
    for number in 1..=arguments.count {
        let id = arguments.id.clone().unwrap_or_else(|| new_id(&source.scheme_name));
        let body = bodies.body(&id, number)?;
        let outgoing = UnsignedEvent {
            id: &id,
            kind: bodies.kind,
            at: now(),
            query: url.query(),
            body: &body,
        };
        let signed = sign(source, &keys.signing, outgoing)
            .map_err(|problem| anyhow!("the secret {problem}"))?;
        let named = identities(source, &keys, &url, &signed);
        // If the ids are unknown, the result is too.
        let follow = follow.as_ref().filter(|_| !named.is_empty());
        let others = named.len().saturating_sub(1);
        let id = match named.into_iter().next() {
            Some((id, kind)) => {
                let given = (arguments.id.as_deref(), arguments.event.as_deref());
                if let Some(text) = contradiction(given, (&id, &kind)).filter(|_| number == 1) {
                    note!("{text}");
                }
                id
            }
            None => id,
        };
        let duplicate = follow.is_some_and(|follow| follow.took_effect(&source.name, &id));
        let (status, answer) = {
            let extra = samples::unsigned_headers(&source.scheme_name, now());
            let extra = with_headers(extra, &arguments.header);
            runtime.block_on(post(&client, &url, signed, extra))?
        };
        let outcome = match follow {
            Some(follow) if status.is_success() => follow.outcome(&source.name, &id),
            _ => None,
        };
        let (event, gone) = match outcome {
            Some(EventOutcome::Settled(event)) => (Some(event), false),
            Some(EventOutcome::Gone) => (None, true),
            None => (None, false),
        };
        refused += u32::from(!status.is_success());
        unverified |= status == StatusCode::UNAUTHORIZED;
        dead += u32::from(event.as_ref().is_some_and(events::Event::dead));
        let sent = Sent { id, others, status, answer, event, gone, duplicate };
        print_line!("{}", if arguments.json { sent.json() } else { sent.line(follow.is_some()) });
    }
    if refused > 0 {
        let signed =
            if unverified { format!("; signed with {}", keys.whose) } else { String::new() };
        bail!("{refused} of {} not accepted{signed}", arguments.count);
    }
    if dead > 0 {
        bail!("{dead} of {} became dead letters", arguments.count);
    }
    Ok(())
}

/// The source of bodies: a file, or a sample.
struct Bodies<'a> {
    arguments: &'a Arguments,
    scheme: &'a str,
    kind: &'a str,
    file: Option<Vec<u8>>,
}

impl<'a> Bodies<'a> {
    /// `None` if no type was given, so that the types are listed.
    fn new(arguments: &'a Arguments, scheme: &'a str) -> anyhow::Result<Option<Self>> {
        let kind = arguments.event.as_deref();
        if let Some(path) = &arguments.body {
            let file = std::fs::read(path);
            let file = file.with_context(|| format!("cannot read {}", path.display()))?;
            let kind = kind.unwrap_or("event");
            return Ok(Some(Self { arguments, scheme, kind, file: Some(file) }));
        }
        let known = samples::types(scheme);
        if known.is_empty() {
            bail!("no samples for the scheme `{scheme}`; send your own body with --body FILE");
        }
        match kind {
            None => Ok(None),
            Some(kind) if known.iter().any(|known| known == kind) => {
                Ok(Some(Self { arguments, scheme, kind, file: None }))
            }
            Some(kind) => bail!(
                "no sample of `{kind}`; samples:\n  {}\nTo send another type, change one of them (--set type={kind}), \
                 or send your own body (--body FILE)",
                known.join("\n  ")
            ),
        }
    }

    fn body(&self, id: &str, number: u32) -> anyhow::Result<Vec<u8>> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        Ok(match self.changed(id, number)? {
            Value::String(form) => form.into_bytes(),
            body => body.to_string().into_bytes(),
        })
    }

    /// The body as it would be sent, with readable whitespace in JSON.
    fn printed(&self, id: &str) -> anyhow::Result<String> {
        Ok(match self.changed(id, 1)? {
            // A newline would be part of the last field.
            Value::String(form) => form,
            body => format!("{body:#}\n"),
        })
    }

    /// The sample with the requested changes. A form is a text.
    fn changed(&self, id: &str, number: u32) -> anyhow::Result<Value> {
        let sample = samples::event(self.scheme, self.kind, id, now());
        let mut body = sample.context("the sample is gone")?;
        for (path, value) in &self.arguments.set {
            let value = value.replace("{number}", &number.to_string());
            let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
            match (&mut body, path.steps.as_slice()) {
                (Value::String(form), [Step::Key(field)]) => set_field(form, field, &value),
                (body, steps) => set(body, steps, value)
                    .with_context(|| format!("cannot set `{path}` in this event"))?,
            }
        }
        Ok(body)
    }
}

async fn post(
    client: &Client,
    url: &Url,
    signed: Signed,
    extra: Vec<(String, String)>,
) -> anyhow::Result<(StatusCode, String)> {
    let mut request = client.post(url.clone()).body(signed.body);
    if !signed.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in signed.headers.iter().chain(&extra) {
        request = request.header(name, value);
    }
    let response = request.send().await.with_context(|| unreachable(url))?;
    let status = response.status();
    Ok((status, response.text().await?))
}

/// The result of a request.
struct Sent {
    id: String,
    /// The number of other events in the request.
    others: usize,
    status: StatusCode,
    answer: String,
    event: Option<events::Event>,
    /// Whether it was ignored and left no trace.
    gone: bool,
    duplicate: bool,
}

impl Sent {
    fn json(self) -> String {
        let answer = serde_json::from_str(&self.answer).unwrap_or(Value::String(self.answer));
        let sent = json!({
            "id": self.id,
            "others": self.others,
            "status": self.status.as_u16(),
            "answer": answer,
            "event": self.event,
            "duplicate": self.duplicate,
        });
        sent.to_string()
    }

    /// `followed`: whether the pipeline's data are on this machine.
    fn line(self, followed: bool) -> String {
        let accepted = self.status.is_success();
        let outcome = match self.event {
            Some(event) if self.duplicate => {
                format!("{}; a duplicate, nothing changed", event.summary())
            }
            Some(event) => event.summary(),
            None if self.gone => "accepted, and ignored: no rule matches it".to_owned(),
            None if accepted && followed => "accepted, and still on the queue".to_owned(),
            None if accepted => "accepted".to_owned(),
            None => self.answer,
        };
        let others = match self.others {
            0 => String::new(),
            others => format!("; and {others} more in the same request"),
        };
        format!("{} {} {outcome}{others}", self.status.as_u16(), self.id)
    }
}

fn source<'l>(loaded: &'l Loaded, name: &str) -> anyhow::Result<&'l Source> {
    let sources = &loaded.config.ingress.sources;
    sources.iter().find(|source| source.name == name).with_context(|| {
        let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
        format!("no source `{name}` in the configuration; sources: {}", names.join(", "))
    })
}

/// The secret to sign with, the key that verifies it if known, and the source of the secret.
struct Keys {
    signing: Secret,
    verifying: Option<Secret>,
    whose: String,
}

/// Development secrets are for this machine only: no other pipeline accepts them.
fn keys(source: &Source, url: &Url, arguments: &Arguments) -> anyhow::Result<Keys> {
    let same = |secret: Secret, whose: String| Keys {
        verifying: (!source.scheme.has_public_keys()).then(|| secret.clone()),
        signing: secret,
        whose,
    };
    if let Some(secret) = arguments.secret.read()? {
        return Ok(same(secret, "the given secret".to_owned()));
    }
    let local =
        url.host_str().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]"));
    let lookup = |SecretRef { name, .. }: &SecretRef| match from_environment(name) {
        Some(secret) => Some(same(secret, format!("{} from the environment", name.0))),
        None if local => development_keys(source, name).map(|keys| Keys {
            signing: keys.signing,
            verifying: Some(keys.verifying),
            whose: format!("the development secret, since {} is not set here", name.0),
        }),
        None => None,
    };
    source.secrets.iter().find_map(lookup).with_context(|| {
        let names: Vec<_> = source.secrets.iter().map(|secret| secret.name.0.as_str()).collect();
        format!(
            "no secret to sign with; set {}, or name another variable with --secret-env",
            names.join(" or ")
        )
    })
}

/// The ids and types of the events, from reading the request like the pipeline. None if they cannot be determined here.
fn identities(source: &Source, keys: &Keys, url: &Url, signed: &Signed) -> Vec<(String, String)> {
    let verifying = keys.verifying.as_ref();
    let Some(Ok(verifier)) =
        verifying.map(|verifying| Verifier::new(source, |_| Some(verifying.clone())))
    else {
        return Vec::new();
    };
    let request = Request {
        method: "POST",
        query: url.query(),
        headers: &signed.headers,
        body: &signed.body,
    };
    match verifier.verify(&request, now()) {
        Ok(Admitted::Events(_, events)) => {
            events.into_iter().map(|event| (event.id, event.kind)).collect()
        }
        _ => Vec::new(),
    }
}

fn unreachable(url: &Url) -> String {
    format!("cannot reach {url}; is the pipeline running? (`hookmill dev`)")
}

fn new_id(scheme: &str) -> String {
    let id = uuid::Uuid::new_v4();
    match scheme {
        "stripe" | "paddle" => format!("evt_{}", id.simple()),
        "clerk" | "resend" | "standard-webhooks" | "supabase" | "svix" => {
            format!("msg_{}", id.simple())
        }
        _ => id.to_string(),
    }
}

/// Writes a field of a form.
fn set_field(form: &mut String, field: &str, value: &Value) {
    let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    // A URL's query has the same syntax as a form.
    let Ok(mut url) = Url::parse("http://form/") else { return };
    url.set_query(Some(form));
    let mut fields: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    match fields.iter_mut().find(|(name, _)| name == field) {
        Some((_, old)) => *old = value,
        None => fields.push((field.to_owned(), value)),
    }
    url.query_pairs_mut().clear().extend_pairs(fields);
    *form = url.query().unwrap_or_default().to_owned();
}

/// Writes a value into a body; creates missing objects, and appends elements to arrays.
fn set(body: &mut Value, steps: &[Step], value: Value) -> anyhow::Result<()> {
    let mut target = body;
    for step in steps {
        target = match (step, target) {
            (Step::Key(key), target @ Value::Null) => {
                *target = json!({});
                &mut target[key]
            }
            (Step::Key(key), Value::Object(object)) => object.entry(key).or_insert(Value::Null),
            (Step::Index(index), Value::Array(array)) if *index <= array.len() => {
                if *index == array.len() {
                    array.push(Value::Null);
                }
                &mut array[*index]
            }
            _ => bail!("the body has a value of another kind there"),
        };
    }
    *target = value;
    Ok(())
}

/// The result of an event.
enum EventOutcome {
    /// It is in the ledger, or a dead letter, or an attempt has failed.
    Settled(events::Event),
    /// It is in neither.
    Gone,
}

/// Reads the data of the pipeline that receives the events, if it is on this machine.
struct Follower(events::Here);

impl Follower {
    /// `None` if the data in the folder does not belong to the pipeline at this address.
    fn open(folder: &Path, url: &Url) -> Option<Self> {
        let listening = DataFolder::listening(folder)?;
        let same = url.socket_addrs(|| None).ok()?.contains(&listening);
        same.then(|| events::Here::open(folder).ok().map(Self)).flatten()
    }

    /// Whether the event has taken effect.
    fn took_effect(&self, source: &str, id: &str) -> bool {
        self.0.settled(source, id).ok().flatten().is_some_and(|event| !event.dead())
    }

    /// The result of an accepted event; waits a few seconds for it to leave the queue.
    fn outcome(&self, source: &str, id: &str) -> Option<EventOutcome> {
        for _ in 0..250 {
            match self.0.find(source, id).ok()? {
                // An accepted event is on the queue, then in the ledger or a dead letter. If it is in none of these, it was
                // ignored.
                None => return Some(EventOutcome::Gone),
                Some(event) if event.settled() || event.failed() => {
                    return Some(EventOutcome::Settled(event));
                }
                Some(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> Result<Value, String> {
        let (path, value) = parse_set(text).map_err(|error| error.to_string())?;
        let mut body = json!({ "a": { "b": [1] }, "n": null });
        let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
        set(&mut body, &path.steps, value).map_err(|error| error.to_string())?;
        Ok(body)
    }

    #[test]
    fn a_field_of_a_form_is_replaced_or_added() {
        let mut form = "a=1&Body=x+y&b=%2B".to_owned();
        set_field(&mut form, "Body", &json!("z &"));
        set_field(&mut form, "c", &json!(5));
        assert_eq!(form, "a=1&Body=z+%26&b=%2B&c=5");
    }

    #[test]
    fn a_value_is_written_at_its_path() {
        assert_eq!(changed("a.b[0]=2").unwrap()["a"]["b"], json!([2]));
        assert_eq!(changed("a.b[1]=x").unwrap()["a"]["b"], json!([1, "x"]));
        assert_eq!(changed("n.x.y=true").unwrap()["n"], json!({ "x": { "y": true } }));
        assert_eq!(changed("z==").unwrap()["z"], json!("="));
        for text in ["a", "a.b.c=1", "a.b[9]=1", "a[b = c]=1", "=1"] {
            assert!(changed(text).is_err(), "{text}");
        }
    }
}
