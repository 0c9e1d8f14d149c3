//! How a source's requests are signed: from hookmill.toml, and from the file of a named scheme behind it.

use std::time::Duration;

use super::parse::duration;
use super::toml_reader::{ConfigError, Document, Item, Located, Section};
use crate::redact::Redaction;
use crate::rules::{Path, Reads};
use crate::scheme::{
    Algorithm, Answer, Encoding, Events, Handshake, KeyForm, NamePart, Part, Place, Scheme,
    SignatureAt, Template, TimeAt, TimeUnit, Tolerance, unseparated,
};

/// The schemes that the others are made of.
const GENERAL: [&str; 7] =
    ["ed25519", "ecdsa-p256", "hmac", "paddle-classic", "standard-webhooks", "token", "twilio"];

/// Named schemes: parameters of a general one, in the language of hookmill.toml.
const NAMED: [(&str, &str); 20] = [
    ("auth0", include_str!("../../schemes/auth0.toml")),
    ("clerk", include_str!("../../schemes/clerk.toml")),
    ("discord", include_str!("../../schemes/discord.toml")),
    ("github", include_str!("../../schemes/github.toml")),
    ("hubspot", include_str!("../../schemes/hubspot.toml")),
    ("intercom", include_str!("../../schemes/intercom.toml")),
    ("lemon-squeezy", include_str!("../../schemes/lemon-squeezy.toml")),
    ("linear", include_str!("../../schemes/linear.toml")),
    ("mailgun", include_str!("../../schemes/mailgun.toml")),
    ("paddle", include_str!("../../schemes/paddle.toml")),
    ("resend", include_str!("../../schemes/resend.toml")),
    ("sendgrid", include_str!("../../schemes/sendgrid.toml")),
    ("shopify", include_str!("../../schemes/shopify.toml")),
    ("slack", include_str!("../../schemes/slack.toml")),
    ("square", include_str!("../../schemes/square.toml")),
    ("stripe", include_str!("../../schemes/stripe.toml")),
    ("supabase", include_str!("../../schemes/supabase.toml")),
    ("svix", include_str!("../../schemes/svix.toml")),
    ("typeform", include_str!("../../schemes/typeform.toml")),
    ("zendesk", include_str!("../../schemes/zendesk.toml")),
];

pub(super) const ALGORITHMS: [(&str, Algorithm); 3] = [
    ("sha1", Algorithm::HmacSha1),
    ("sha256", Algorithm::HmacSha256),
    ("sha512", Algorithm::HmacSha512),
];

pub(super) const KEY_FORMS: [(&str, KeyForm); 3] =
    [("text", KeyForm::Text), ("hex", KeyForm::Hex), ("base64", KeyForm::Base64)];

pub(super) const ENCODINGS: [(&str, Encoding); 2] =
    [("hex", Encoding::Hex), ("base64", Encoding::Base64)];

pub(super) const TIME_UNITS: [(&str, TimeUnit); 3] =
    [("s", TimeUnit::Seconds), ("ms", TimeUnit::Milliseconds), ("rfc3339", TimeUnit::Rfc3339)];

/// The longest value of a header whose length a payload may state.
const MAX_HEADER_LENGTH: usize = 256;

/// Every scheme that a source can name.
pub fn scheme_names() -> impl Iterator<Item = &'static str> {
    NAMED.iter().map(|(name, _)| *name).chain(GENERAL)
}

/// What a source says of its signatures and events.
pub(super) struct Signing {
    pub(super) scheme_name: String,
    pub(super) scheme: Scheme,
    pub(super) tolerance: Option<Tolerance>,
    pub(super) public_url: Option<String>,
    pub(super) events: Events,
    pub(super) answer: Option<Answer>,
}

impl Signing {
    /// The parts of a body that are enough to sign another body. The API never shows them, whatever `redact` says.
    pub(super) fn proofs(&self) -> Vec<Redaction> {
        let Scheme::Template(template) = &self.scheme else {
            // Paddle Classic's signature is not a part of the event that is kept.
            return Vec::new();
        };
        let Place::Body(_, signature) = &template.signature.place else {
            return Vec::new();
        };
        let time = template.timestamp.as_ref().and_then(|time| match &time.place {
            Place::Body(_, path) => Some(path),
            Place::Header(_) | Place::Member(_) => None,
        });
        let members = template.payload.iter().filter_map(|part| match part {
            Part::Member(_, path) => Some(path),
            _ => None,
        });
        let paths = [signature].into_iter().chain(time).chain(members);
        paths.filter_map(|path| Some(Redaction::from(&path.parse::<Path>().ok()?))).collect()
    }
}

/// A source's section, and behind it the file of its scheme.
struct Layers<'s> {
    source: &'s Section<'s>,
    named: Option<&'s Section<'s>>,
}

impl<'s> Layers<'s> {
    fn get(&self, key: &'static str) -> Option<Item<'s>> {
        let behind = self.named.and_then(|section| section.get(key));
        self.source.get(key).or(behind)
    }

    fn require(&self, key: &'static str, hint: &str) -> Option<Item<'s>> {
        match self.named.and_then(|section| section.get(key)) {
            Some(behind) => self.source.get(key).or(Some(behind)),
            None => self.source.require(key, hint),
        }
    }

    fn report(&self, error: ConfigError) {
        self.source.report(error);
    }
}

/// Reads how a source's requests are signed.
pub(super) fn signing(section: &Section<'_>) -> Option<Signing> {
    let hint = "add the signature scheme: scheme = \"stripe\"";
    let found =
        section.require("scheme", hint).and_then(|item| item.string("the name of a scheme"));
    let Some(name) = found else {
        return unclear(section);
    };
    if name.value == "paypal" {
        let problem = "PayPal signs with a certificate that the recipient must fetch; Hookmill does not support this";
        section.report(name.error(problem).hint(
            "verify PayPal's events in your own service (POST /v1/notifications/verify-webhook-signature)",
        ));
        return unclear(section);
    }
    let text = NAMED.iter().find(|(named, _)| *named == name.value).map(|(_, text)| *text);
    if text.is_none() && !GENERAL.contains(&name.value.as_str()) {
        let problem = name.error(format!("found {:?}", name.value));
        section.report(problem.suggest(&name.value, scheme_names()));
        return unclear(section);
    }
    let file = format!("schemes/{}.toml", name.value);
    let document = Document::new(&file, text.unwrap_or_default());
    let table = document.parse();
    let named = document.root(&table);
    let general = match named.get("scheme").and_then(|item| item.string("the name of a scheme")) {
        Some(general) => general.value,
        None => name.value.clone(),
    };
    let layers = Layers { source: section, named: text.is_some().then_some(&named) };
    let signing = read(&layers, &name, &general);
    named.finish();
    section.report_all(document.into_errors());
    signing
}

/// Of a source whose scheme is not clear: what can be said all the same, and which keys are none of any scheme.
fn unclear(section: &Section<'_>) -> Option<Signing> {
    for key in ["tolerance", "future_tolerance"] {
        section.get(key).and_then(|item| tolerance(&item));
    }
    section.get("public_url").and_then(|item| public_url(&item));
    for key in [
        "algorithm",
        "asymmetric",
        "event",
        "families",
        "handshake",
        "key",
        "payload",
        "response",
        "signature",
        "timestamp",
    ] {
        section.get(key);
    }
    None
}

fn tolerance(item: &Item<'_>) -> Option<Duration> {
    duration(item, Duration::from_secs(1)..=Duration::from_secs(86_400))
}

fn read(layers: &Layers<'_>, name: &Located<String>, general: &str) -> Option<Signing> {
    let url = layers.get("public_url");
    let public_url = url.as_ref().and_then(public_url);
    let answer = layers.get("response").and_then(|item| {
        let section =
            item.section("a table: { content_type = \"text/xml\", body = \"<Response/>\" }")?;
        let answer = answer(&section, true);
        section.finish();
        answer
    });
    let (scheme, events) = match general {
        "twilio" => (Some(Scheme::Twilio), twilio_events()),
        "paddle-classic" => (Some(Scheme::PaddleClassic), Events::none()),
        "standard-webhooks" => {
            let asymmetric = layers.get("asymmetric").and_then(|item| item.boolean());
            let asymmetric = asymmetric.unwrap_or_default();
            let scheme = Scheme::StandardWebhooks { families: families(layers), asymmetric };
            let mut events = Events::none();
            match layers.get("event") {
                Some(item) => {
                    event(&item, false, &mut events);
                }
                None => events.kind = vec![body_part(&mut events.reads, &path_of("type"))],
            }
            (Some(scheme), events)
        }
        _ => {
            let template = template(layers, general);
            let mut events = Events::none();
            let hint = "add the places of the event's id and type: event = { id = \"id\", type = \"type\" }";
            let item = layers.require("event", hint);
            let hashed = item.as_ref().is_none_or(|item| event(item, true, &mut events));
            let handshakes = layers.get("handshake");
            for item in handshakes.iter().flat_map(|item| item.list("a list", false)) {
                let handshake = handshake(&item, &mut events.reads);
                events.handshakes.extend(handshake);
            }
            if let (Some(template), Some(item)) = (&template, &item) {
                events.hash = hashed && hash(template, &events.id);
                one_event(template, &events, item);
            }
            (template.map(|template| Scheme::Template(Box::new(template))), events)
        }
    };

    let Some(scheme) = scheme else {
        // What it lacks has been reported; these are no unknown keys.
        for key in ["tolerance", "future_tolerance"] {
            layers.get(key).and_then(|item| tolerance(&item));
        }
        return None;
    };
    let signs_time = match &scheme {
        Scheme::Template(template) => template.timestamp.is_some(),
        Scheme::StandardWebhooks { .. } => true,
        Scheme::Twilio | Scheme::PaddleClassic => false,
    };
    let within = |key| {
        let item = layers.get(key)?;
        // What stands in the scheme's file means nothing if the source took the time away.
        if !signs_time && let Some(item) = layers.source.get(key) {
            layers.report(
                item.here.error(format!("the scheme {:?} does not sign a time", name.value)),
            );
        }
        tolerance(&item).filter(|_| signs_time)
    };
    let limit = |key| within(key).unwrap_or(Duration::from_secs(300));
    let (past, future) = (limit("tolerance"), limit("future_tolerance"));
    let tolerance = signs_time.then_some(Tolerance { past, future });
    if scheme.signs_url() && url.is_none() {
        let problem = name.error("this scheme signs the URL and needs `public_url`");
        layers.report(problem.hint(
            "add the URL exactly as registered with the provider: public_url = \"https://hooks.example.com/webhooks/…\"",
        ));
    }
    if let Some(item) = url
        && !scheme.signs_url()
    {
        layers
            .report(item.here.error(format!("the scheme {:?} does not sign the URL", name.value)));
    }
    Some(Signing { scheme_name: name.value.clone(), scheme, tolerance, public_url, events, answer })
}

fn public_url(item: &Item<'_>) -> Option<String> {
    let expected = "a URL such as \"https://hooks.example.com/webhooks/twilio\"";
    let text = item.string(expected)?;
    let host = text.value.strip_prefix("https://").or(text.value.strip_prefix("http://"));
    let fault = if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
        Some("is not a URL")
    } else if text.value.contains(['?', '#']) {
        Some("has a query or a fragment; remove it: Hookmill takes the query from each request")
    } else if text.value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        Some("contains whitespace")
    } else {
        None
    };
    if let Some(fault) = fault {
        let problem = text.error(format!("{:?} {fault}", text.value));
        item.report(problem.hint(format!("expected {expected}")));
        return None;
    }
    Some(text.value)
}

fn families(layers: &Layers<'_>) -> Vec<String> {
    let expected = "a list of header prefixes, such as [\"svix\", \"webhook\"]";
    let Some(item) = layers.get("families") else {
        return vec!["svix".to_owned(), "webhook".to_owned()];
    };
    let families: Vec<_> = item
        .list(expected, false)
        .iter()
        .filter_map(|item| item.string(expected))
        .map(|text| text.value)
        .collect();
    if families.is_empty() {
        item.report(item.here.error("the list is empty").hint(format!("expected {expected}")));
    }
    families
}

impl Events {
    fn none() -> Self {
        Self {
            reads: Reads::default(),
            id: Vec::new(),
            kind: Vec::new(),
            default_kind: None,
            many: false,
            hash: false,
            handshakes: Vec::new(),
        }
    }
}

/// Event Streams: <https://www.twilio.com/docs/events/event-types>, CloudEvents in a list.
fn twilio_events() -> Events {
    let mut events = Events::none();
    events.id = vec![body_part(&mut events.reads, &path_of("id"))];
    events.kind = vec![body_part(&mut events.reads, &path_of("type"))];
    events.many = true;
    events
}

fn path_of(name: &str) -> Path {
    Path { steps: vec![crate::rules::Step::Key(name.to_owned())], select: None }
}

fn body_part(reads: &mut Reads, path: &Path) -> NamePart {
    NamePart::Body(reads.add(path), path.to_string())
}

fn template(layers: &Layers<'_>, general: &str) -> Option<Template> {
    let algorithm = match general {
        "ed25519" => Algorithm::Ed25519,
        "ecdsa-p256" => Algorithm::EcdsaP256,
        "token" => Algorithm::Token,
        _ => {
            let found = layers.get("algorithm").and_then(|item| item.choice(&ALGORITHMS));
            found.map_or(Algorithm::HmacSha256, |found| found.value)
        }
    };
    let key = layers.get("key").and_then(|item| item.choice(&KEY_FORMS));
    let mut reads = Reads::default();
    let hint = "add the place of the signature: signature = { header = \"X-Signature\", encoding = \"hex\" }";
    let signature =
        layers.require("signature", hint).and_then(|item| signature(&item, algorithm, &mut reads));
    let timestamp_item = layers.get("timestamp");
    let timestamp = timestamp_item.as_ref().and_then(|item| timestamp(item, &mut reads));
    let payload = if algorithm == Algorithm::Token {
        if let Some(item) = &timestamp_item {
            item.report(item.here.error("the scheme `token` does not sign the time, so it can be forged; remove `timestamp`"));
        }
        Vec::new()
    } else {
        let hint = "add the signed text: payload = \"{timestamp}.{body}\"";
        let item = layers.require("payload", hint)?;
        let payload = payload(&item, &mut reads)?;
        let has_time = payload.contains(&Part::Timestamp);
        if has_time && timestamp_item.is_none() {
            let problem =
                item.here.error("`payload` contains `{timestamp}` but `timestamp` is missing");
            item.report(
                problem.hint("add the place of the time: timestamp = { header = \"X-Timestamp\" }"),
            );
        }
        if let (Some(time), Some(time_item)) = (&timestamp, &timestamp_item)
            && !has_time
            && !(matches!(time.place, Place::Body(..)) && payload.contains(&Part::Body))
        {
            let key = &time_item.here.key;
            let problem = item.here.error(format!(
                "`payload` does not sign `{{timestamp}}`, so the timestamp can be forged ({key})"
            ));
            item.report(
                problem.hint(
                    "add `{timestamp}` if the provider signs it; otherwise remove `timestamp`",
                ),
            );
        }
        if signature
            .as_ref()
            .is_some_and(|signature| payload.iter().any(|part| signs(part, &signature.place)))
        {
            item.report(item.here.error("`payload` contains the signature itself; remove it"));
        }
        // The verifier tells a URL from the body behind it.
        let separable = |first: &Part, second: &Part| {
            matches!(first, Part::Url | Part::PlainUrl) && *second == Part::Body
        };
        for (first, second) in unseparated(&payload) {
            if !separable(first, second) {
                let problem = item.here.error(format!(
                    "no fixed characters separate `{first}` from `{second}`, so an attacker could move bytes from one to the other without changing the signature"
                ));
                let length = match first {
                    Part::Header(name, _) => format!(
                        ", or add the length of the first if it is fixed: {{header:{name}:36}}"
                    ),
                    _ => String::new(),
                };
                item.report(problem.hint(format!(
                    "add the characters that the provider signs between them{length}; without either, Hookmill cannot verify this provider safely"
                )));
            }
        }
        payload
    };
    let signature = signature?;
    if let (Some(TimeAt { place: Place::Member(_), .. }), None, Some(item)) =
        (&timestamp, &signature.list, &timestamp_item)
    {
        item.report(item.here.error("the signature's header is not declared as a list").hint(
            "declare it: signature = { header = \"…\", list = \",\", key = \"v1\", encoding = \"hex\" }",
        ));
    }
    if let (Some(time), Some(item)) = (&timestamp, &timestamp_item)
        && is_at(&time.place, &signature)
    {
        item.report(
            item.here.error("the time has the same place as the signature; give it another place"),
        );
    }
    Some(Template {
        algorithm,
        key: key.map(|key| key.value).unwrap_or_default(),
        signature,
        timestamp,
        payload,
        reads,
    })
}

/// Whether this part of what is signed holds the signature.
fn signs(part: &Part, signature: &Place) -> bool {
    match (part, signature) {
        (Part::Body, Place::Body(..)) => true,
        (Part::Header(signed, _), Place::Header(name)) => signed.eq_ignore_ascii_case(name),
        (Part::Member(_, signed), Place::Body(_, path)) => signed == path,
        _ => false,
    }
}

/// Whether the signature would be read as the time.
fn is_at(time: &Place, signature: &SignatureAt) -> bool {
    match (time, &signature.place, &signature.list) {
        (Place::Member(time), _, Some((_, key))) => time == key,
        (Place::Header(time), Place::Header(signature), _) => time.eq_ignore_ascii_case(signature),
        (Place::Body(_, time), Place::Body(_, signature), _) => time == signature,
        _ => false,
    }
}

/// Reports a name that no header can have: <https://www.rfc-editor.org/rfc/rfc9110#name-tokens>.
fn check_header(item: &Item<'_>, text: &Located<String>, name: &str) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        item.report(text.error(format!("{name:?} is not a valid header name")));
    }
}

/// One of `header = "…"`, `body = "…"`, and `list = "…"` where that is possible.
fn place(section: &Section<'_>, reads: &mut Reads, list: bool) -> Option<Place> {
    let header = section.get("header").and_then(|item| {
        let text = item.string("the name of a header")?;
        check_header(&item, &text, &text.value);
        Some(text)
    });
    let body = section.get("body").and_then(|item| {
        item.parsed("a path in the body, such as \"signature.timestamp\"", str::parse::<Path>)
    });
    let member = if list {
        section.get("list").and_then(|item| item.string("a key in the signature's list"))
    } else {
        None
    };
    match (header, body, member) {
        (Some(header), None, None) => Some(Place::Header(header.value)),
        (None, Some(path), None) => {
            Some(Place::Body(reads.add(&path.value), path.value.to_string()))
        }
        (None, None, Some(member)) => Some(Place::Member(member.value)),
        _ => {
            let problem = section.here.error("expected exactly one place");
            let hint = "add one of header = \"X-Name\", body = \"a.path\"";
            let more = if list { ", list = \"t\"" } else { "" };
            section.report(problem.hint(format!("{hint}{more}")));
            None
        }
    }
}

fn signature(item: &Item<'_>, algorithm: Algorithm, reads: &mut Reads) -> Option<SignatureAt> {
    let section = item.section("a table")?;
    let place = place(&section, reads, false);
    let prefix = section.get("prefix").and_then(|item| item.string("a prefix"));
    let encoding = if algorithm == Algorithm::Token {
        Encoding::Text
    } else {
        let hint = "\"hex\" or \"base64\"";
        section
            .require("encoding", hint)
            .and_then(|item| item.choice(&ENCODINGS))
            .map_or(Encoding::Hex, |encoding| encoding.value)
    };
    let expected = "one character, such as \",\"";
    let listed = section.get("list");
    let separator = listed.as_ref().and_then(|item| {
        item.parsed(expected, |text| {
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some('='), None) => Err("`=` separates keys from values"),
                (Some(separator), None) => Ok(separator),
                _ => Err("not a single character"),
            }
        })
    });
    if listed.is_some() && separator.is_none() {
        section.get("key");
    }
    if let (Some(prefix), Some(_)) = (&prefix, &separator) {
        section.report(prefix.error("a list cannot have a `prefix`; remove it"));
    }
    if let (Some(prefix), Some(Place::Header(_))) = (&prefix, &place)
        && prefix.value.starts_with(char::is_whitespace)
    {
        section.report(
            prefix.error("a header value cannot begin with whitespace; remove it from `prefix`"),
        );
    }
    let list = separator.and_then(|separator| {
        let hint = "the key of the signatures in the list, such as \"v1\"";
        let key = section.require("key", hint)?.string(hint)?;
        Some((separator.value, key.value))
    });
    section.finish();
    Some(SignatureAt {
        place: place?,
        prefix: prefix.map(|prefix| prefix.value).unwrap_or_default(),
        encoding,
        list,
    })
}

fn timestamp(item: &Item<'_>, reads: &mut Reads) -> Option<TimeAt> {
    let section = item.section("a table")?;
    let place = place(&section, reads, true);
    let unit = section.get("unit").and_then(|item| item.choice(&TIME_UNITS));
    section.finish();
    Some(TimeAt { place: place?, unit: unit.map(|unit| unit.value).unwrap_or_default() })
}

/// `v0:{timestamp}:{body}`.
fn payload(item: &Item<'_>, reads: &mut Reads) -> Option<Vec<Part>> {
    let expected = "a text such as \"{timestamp}.{body}\"";
    let text = item.string(expected)?;
    let mut parts = Vec::new();
    let mut rest = text.value.as_str();
    let fault = |problem: String| {
        item.report(text.error(problem).hint(
            "possible here: {timestamp}, {method}, {url}, {plain_url}, {body}, {header:NAME}, {header:NAME:LENGTH}, {body:PATH}, and literal characters",
        ));
    };
    while let Some(open) = rest.find('{') {
        if open > 0 {
            parts.push(Part::Literal(rest[..open].to_owned()));
        }
        let Some(length) = rest[open..].find('}') else {
            fault("missing a closing brace".to_owned());
            return None;
        };
        let name = &rest[open + 1..open + length];
        parts.push(match name.split_once(':') {
            None if name == "timestamp" => Part::Timestamp,
            None if name == "method" => Part::Method,
            None if name == "url" => Part::Url,
            None if name == "plain_url" => Part::PlainUrl,
            None if name == "body" => Part::Body,
            Some(("header", header)) => {
                let (header, length) = match header.split_once(':') {
                    Some((header, length)) => match length.parse() {
                        Ok(length @ 1..=MAX_HEADER_LENGTH) => (header, Some(length)),
                        _ => {
                            fault(format!("found {{{name}}}: a length is a number from 1 to {MAX_HEADER_LENGTH}"));
                            return None;
                        }
                    },
                    None => (header, None),
                };
                check_header(item, &text, header);
                Part::Header(header.to_owned(), length)
            }
            Some(("body", path)) => match path.parse::<Path>() {
                Ok(path) => Part::Member(reads.add(&path), path.to_string()),
                Err(error) => {
                    fault(format!("found {{{name}}}: {error}"));
                    return None;
                }
            },
            _ => {
                fault(format!("found {{{name}}}"));
                return None;
            }
        });
        rest = &rest[open + length + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    if !parts.iter().any(|part| matches!(part, Part::Body | Part::Member(..))) {
        fault("`payload` does not sign the body".to_owned());
    }
    Some(parts)
}

/// Reads `event`; where the scheme signs the id, it is not to be named. Returns whether an id that is not signed is combined
/// with a hash of what is.
fn event(item: &Item<'_>, with_id: bool, events: &mut Events) -> bool {
    let Some(section) = item.section("a table: { id = \"id\", type = \"type\" }") else {
        return true;
    };
    if with_id
        && let Some(item) =
            section.require("id", "add the place of the id: id = \"id\", or \"header:X-Id\"")
    {
        events.id = name_parts(&item, &mut events.reads);
    }
    if let Some(item) =
        section.require("type", "add the place of the type: type = \"type\", or \"header:X-Type\"")
    {
        events.kind = name_parts(&item, &mut events.reads);
        let hash = |part: &NamePart| matches!(part, NamePart::BodyHash | NamePart::SignedHash);
        if events.kind.iter().any(hash) {
            item.report(item.here.error("a hash cannot be the type, since no rule could match it"));
        }
    }
    let default = section.get("default").and_then(|item| {
        let text = item.string("a type")?;
        if text.value.is_empty() {
            item.report(text.error("the type is blank; set it or remove it"));
        }
        Some(text)
    });
    events.default_kind = default.map(|default| default.value);
    let mut hashed = true;
    if with_id {
        events.many = section.get("many").and_then(|item| item.boolean()).unwrap_or_default();
        hashed = section.get("hash").and_then(|item| item.boolean()).unwrap_or(true);
    }
    section.finish();
    hashed
}

fn name_parts(item: &Item<'_>, reads: &mut Reads) -> Vec<NamePart> {
    let expected = "a path such as \"data.id\", \"header:X-Name\", \"hash:body\", \"hash:signed\", or a list of these";
    let list = item.list(expected, item.is_string());
    if list.is_empty() && item.is_list() {
        item.report(item.here.error("no path is given").hint(format!("expected {expected}")));
    }
    let mut part = |item: &Item<'_>| {
        let text = item.string(expected)?;
        if let Some(header) = text.value.strip_prefix("header:") {
            check_header(item, &text, header);
            return Some(NamePart::Header(header.to_owned()));
        }
        match text.value.as_str() {
            "hash:body" => return Some(NamePart::BodyHash),
            "hash:signed" => return Some(NamePart::SignedHash),
            _ => {}
        }
        if text.value.starts_with(|c: char| c.is_ascii_uppercase()) && text.value.contains('-') {
            let problem = text.error(format!("found {:?}, a path in the body", text.value));
            let hint = format!(
                "for a header: \"header:{0}\"; for a path in the body: '[\"{0}\"]'",
                text.value
            );
            item.report(problem.hint(hint));
            return None;
        }
        item.parsed(expected, str::parse::<Path>).map(|path| body_part(reads, &path.value))
    };
    list.iter().filter_map(&mut part).collect()
}

/// Whether the signature covers this part of an id.
fn covers(template: &Template, part: &NamePart) -> bool {
    let payload = &template.payload;
    let whole = payload.contains(&Part::Body);
    match part {
        NamePart::Header(name) => payload.iter().any(
            |part| matches!(part, Part::Header(signed, _) if signed.eq_ignore_ascii_case(name)),
        ),
        NamePart::Body(_, path) => {
            whole
                || payload
                    .iter()
                    .any(|part| matches!(part, Part::Member(_, signed) if signed == path))
        }
        NamePart::BodyHash => whole,
        NamePart::SignedHash => true,
    }
}

/// Whether an id has to be combined with a hash of the body: that is signed, and the id is not.
fn hash(template: &Template, id: &[NamePart]) -> bool {
    template.payload.contains(&Part::Body) && !id.iter().all(|part| covers(template, part))
}

/// Reports what would let one signature be several events.
fn one_event(template: &Template, events: &Events, item: &Item<'_>) {
    let token = template.algorithm == Algorithm::Token;
    let whole = template.payload.contains(&Part::Body);
    let by_signature = events.id.contains(&NamePart::SignedHash);
    if token && by_signature {
        item.report(
            item.here
                .error("the scheme `token` signs nothing to hash; use \"hash:body\" or a path"),
        );
    }
    if !token && !events.id.iter().all(|part| whole || covers(template, part)) {
        let problem = item.here.error(
            "the signature covers neither the body nor this id, so an attacker could reuse one signature for many events",
        );
        item.report(problem.hint("use the hash of the signed bytes: id = \"hash:signed\""));
    }
    let one = "remove `many`, so that each request is one event";
    if events.many && by_signature && whole {
        let problem = item.here.error("all events of a request would get the same id");
        item.report(problem.hint("remove \"hash:signed\" from `id`"));
    } else if events.many && !token && !whole {
        let problem = item.here.error(
            "the signature does not cover the body, so an attacker could put many events into one request",
        );
        item.report(problem.hint(one));
    } else if events.many && matches!(template.signature.place, Place::Body(..)) {
        // The token would be stored inside one of the events, where redaction does not find it.
        let problem = item.here.error("the token is in the body, so the body must be one event");
        item.report(problem.hint(one));
    }
}

fn handshake(item: &Item<'_>, reads: &mut Reads) -> Option<Handshake> {
    let section = item.section("a table")?;
    let mut when = Vec::new();
    let hint = "a table of members of such a request: { type = \"url_verification\" }";
    let conditions = section.require("when", hint).and_then(|item| item.section(hint))?;
    for (name, item) in conditions.members() {
        match (name.value.parse::<Path>(), item.json()) {
            (Ok(path), Some(json)) => when.push((reads.add(&path), json)),
            (Err(error), _) => item.report(name.error(error.to_string())),
            _ => {}
        }
    }
    let path = |key| {
        let item = section.get(key)?;
        item.parsed("a path in the body", str::parse::<Path>)
    };
    let unless = path("unless").map(|path| reads.add(&path.value));
    let echo = path("echo").map(|path| reads.add(&path.value));
    let answer = answer(&section, echo.is_none())?;
    section.finish();
    Some(Handshake { when, unless, answer, echo })
}

/// `status`, `content_type` and `body` of a section.
fn answer(section: &Section<'_>, with_body: bool) -> Option<Answer> {
    let status = section.get("status").map(|item| {
        let expected = "a status from 200 to 299; providers retry on any other status";
        let status = item.integer(expected)?;
        let found = u16::try_from(status.value).ok().filter(|status| (200..=299).contains(status));
        if found.is_none() {
            let problem = status.error(format!("found {}", status.value));
            section.report(problem.hint(format!("expected {expected}")));
        }
        found
    });
    let content_type = section.get("content_type").and_then(|item| {
        let text = item.string("such as \"text/xml\"")?;
        if !text.value.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            item.report(text.error("a header can contain only ASCII characters"));
        }
        Some(text)
    });
    let body =
        if with_body { section.get("body").and_then(|item| item.string("a text")) } else { None };
    if let (Some(Some(204)), Some(body)) = (status, &body) {
        section.report(body.error("a response with status 204 cannot have a body; remove `body`"));
    }
    Some(Answer {
        status: status.unwrap_or(Some(200))?,
        content_type: content_type.map_or_else(|| "text/plain".to_owned(), |found| found.value),
        body: body.map(|body| body.value).unwrap_or_default(),
    })
}
