//! The shape of hookmill.toml as types, for its JSON Schema: what an editor completes, explains and checks while the file is
//! being written.
//!
//! The file is read by hand, elsewhere in this module, so that each fault has its place; nothing is ever read into these types.
//! What they say of the file and what the reader does with it are compared by the tests below. The schema takes everything that
//! the reader takes. Of what the reader refuses, it finds unknown keys, values of a wrong type and unknown words; what hangs
//! together across the file, such as a rule and its source, only `hookmill check` finds.
//!
//! The comments on the fields are what an editor shows. Defaults and examples are appended to them.

#![expect(
    dead_code,
    clippy::zero_sized_map_values,
    reason = "nothing is read into these types: only their schema is made"
)]

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::{expectations, outgoing, parse, source};
use crate::limits;
use crate::outbound::{Outcome, Provider, Purpose, Transport};
use crate::rules::EventField;

/// The JSON Schema of hookmill.toml, draft 2020-12.
pub fn json_schema() -> Value {
    let mut generator = generator();
    let value = generator.subschema_for::<ValueForms>();
    let mut schema = generator.into_root_schema_for::<Hookmill>();
    schema.insert("$defs".to_owned(), json!({ "value": value }));
    RecursiveTransform(without_null).transform(&mut schema);
    RecursiveTransform(beside_reference).transform(&mut schema);
    RecursiveTransform(merge).transform(&mut schema);
    RecursiveTransform(describe).transform(&mut schema);
    schema.to_value()
}

/// Nearly without references: Taplo, and with it most editors, shows nothing of what stands beside one.
fn generator() -> SchemaGenerator {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator()
}

/// An `Option` may be null, and TOML has none: a key is there or it is not.
fn without_null(schema: &mut Schema) {
    let Some(members) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            members.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(words)) = members.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
        choices.retain(|choice| *choice != json!({ "type": "null" }));
        if let [Value::Object(only)] = choices.as_mut_slice() {
            let only = std::mem::take(only);
            members.remove("anyOf");
            for (key, value) in only {
                // What is said of the field is more than what is said of its type.
                members.entry(key).or_insert(value);
            }
        }
    }
}

/// Has what stands beside a reference shown.
fn beside_reference(schema: &mut Schema) {
    let Some(members) = schema.as_object_mut().filter(|members| members.len() > 1) else { return };
    if let Some(reference) = members.remove("$ref") {
        members.insert("anyOf".to_owned(), json!([{ "$ref": reference }]));
    }
}

/// Makes one of choices that differ in their types: "a text, or a list of texts". Taplo offers each choice by itself.
fn merge(schema: &mut Schema) {
    const SIMPLE: [&str; 8] = [
        "type",
        "description",
        "pattern",
        "minLength",
        "maxLength",
        "items",
        "minItems",
        "maxItems",
    ];
    let Some(members) = schema.as_object_mut() else { return };
    let Some(Value::Array(choices)) = members.remove("anyOf") else { return };
    let (mut merged, mut types, mut others) = (Map::new(), Vec::new(), Vec::new());
    for choice in choices {
        match choice {
            Value::Object(mut choice)
                if choice.contains_key("type")
                    && choice.keys().all(|key| SIMPLE.contains(&key.as_str())) =>
            {
                match choice.remove("type") {
                    Some(Value::Array(several)) => types.extend(several),
                    one => types.extend(one),
                }
                merged.extend(choice);
            }
            other => others.push(other),
        }
    }
    match types.as_slice() {
        [] => {}
        [one] => drop(merged.insert("type".to_owned(), one.clone())),
        _ => drop(merged.insert("type".to_owned(), types.into())),
    }
    if others.is_empty() {
        for (key, value) in merged {
            members.entry(key).or_insert(value);
        }
        return;
    }
    others.extend((!merged.is_empty()).then_some(Value::Object(merged)));
    members.insert("anyOf".to_owned(), others.into());
    if members.contains_key("description") {
        // Of what has choices and no properties, Taplo shows no description.
        members.insert("properties".to_owned(), json!({}));
    }
}

/// Says the default and the examples in words as well: editors show little else.
fn describe(schema: &mut Schema) {
    let Some(members) = schema.as_object_mut() else { return };
    let Some(Value::String(description)) = members.get("description") else { return };
    let mut description = description.replace('\n', " ");
    if let Some(default) = members.get("default") {
        description += &format!(" Default: `{}`.", to_toml(default));
    }
    for example in members.get("examples").and_then(Value::as_array).into_iter().flatten() {
        description += &format!(" Example: `{}`.", to_toml(example));
    }
    members.insert("description".to_owned(), description.into());
}

/// A value as TOML has it in one line.
fn to_toml(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let name = |name: &str| {
                let bare = !name.is_empty() && name.chars().all(plain);
                if bare { name.to_owned() } else { json!(name).to_string() }
            };
            if members.is_empty() {
                return "{}".to_owned();
            }
            let members =
                members.iter().map(|(key, value)| format!("{} = {}", name(key), to_toml(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(to_toml).collect::<Vec<_>>().join(", "))
        }
        // A text in JSON is a text in TOML.
        value => value.to_string(),
    }
}

fn names<T>(words: &[(&'static str, T)]) -> Vec<&'static str> {
    words.iter().map(|(name, _)| *name).collect()
}

/// For `oneOf` and `anyOf`: so many choices, of which each needs one of these keys. They stand in a `then` that always holds:
/// Taplo offers each choice that it sees, once more.
fn needs<'k>(keys: impl IntoIterator<Item = &'k str>) -> Value {
    keys.into_iter().map(|key| json!({ "required": [key] })).collect()
}

/// Makes types that stand for a schema.
macro_rules! types {
    ($($(#[$doc:meta])* $name:ident = $schema:tt)*) => {$(
        $(#[$doc])*
        struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

types! {
    Whole = { "type": "integer" }
    Number = { "type": "number" }
    /// A text, a whole number or a boolean.
    Scalar = { "type": ["string", "integer", "boolean"] }
    /// humantime's; it has to begin with a number.
    Span = { "type": "string", "pattern": "^\\s*[0-9]" }
    /// As RFC 3339 has it; a reader of TOML that is asked for JSON makes a text of it.
    Time = {
        "type": "string",
        "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}.*([Zz]|[+\u{2212}-][0-9]{2}:[0-9]{2})$"
    }
    /// What is not a name may be a secret, which does not belong into the file.
    SecretName = { "type": "string", "pattern": "^env:[A-Z_][A-Z0-9_]*$" }
    Path = { "type": "string", "minLength": 1 }
    /// `SOURCE:TYPE`.
    EventPattern = { "type": "string", "pattern": "^[a-z0-9_-]+:[^\\s]+$" }
    Free = { "type": "object" }
    /// [`ValueForms`], which is what most keys of rules take.
    ValueFrom = { "$ref": "#/$defs/value" }

    SchemeName = { "type": "string", "enum": source::scheme_names().collect::<Vec<_>>() }
    Preset = { "type": "string", "enum": parse::PRESETS.map(|(name, ..)| name) }
    Unmatched = { "type": "string", "enum": names(&parse::UNMATCHED) }
    Period = { "type": "string", "enum": names(&parse::PERIODS) }
    Algorithm = { "type": "string", "enum": names(&source::ALGORITHMS) }
    KeyForm = { "type": "string", "enum": names(&source::KEY_FORMS) }
    Encoding = { "type": "string", "enum": names(&source::ENCODINGS) }
    TimeUnit = { "type": "string", "enum": names(&source::TIME_UNITS) }
    Field = { "type": "string", "enum": names(&EventField::ALL) }
    EmailProvider = { "type": "string", "enum": names(&Provider::of(Purpose::Email)) }
    TrackerName = { "type": "string", "enum": names(&Provider::of(Purpose::Tracking)) }
    SmtpTls = { "type": "string", "enum": names(&super::SMTP_SCHEMES) }
    OnUncertain = { "type": "string", "enum": names(&outgoing::ON_UNCERTAIN) }
    OutcomeName = { "type": "string", "enum": names(&Outcome::ALL) }
    Became = { "type": "string", "enum": names(&expectations::OUTCOMES) }
    Nothing = { "const": "nothing" }
}

/// One, or a list of at least one.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMore<T> {
    One(T),
    More(#[schemars(length(min = 1))] Vec<T>),
}

/// One, or a list.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// What Hookmill takes in, and what it does with it. `hookmill check` finds what an editor does not.
#[derive(JsonSchema)]
#[schemars(title = "hookmill.toml", deny_unknown_fields)]
struct Hookmill {
    /// The places webhooks come from. A source's name is the last part of its address, `/webhooks/NAME`: `a-z`, `0-9`, `-` and
    /// `_`, at most 64 of them.
    #[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": "^[a-z0-9_-]{1,64}$" }))]
    sources: BTreeMap<String, Source>,
    /// What is taken in at all.
    ingress: Option<Ingress>,
    /// When what could not be applied is tried again.
    retry: Option<Retry>,
    /// What one event may write. An event that would write more becomes a dead letter.
    limits: Option<Limits>,
    /// How the native queue gathers batches. On Cloudflare, consumers/worker/wrangler.toml says so.
    queue: Option<Queue>,
    /// How long what is done with is kept.
    retention: Option<Retention>,
    /// How emails are sent.
    email: Option<Emails>,
    /// How SMS are sent, through Twilio.
    sms: Option<SmsChannel>,
    /// Who is told what somebody did.
    tracking: Option<Tracking>,
    /// The texts of emails, by name: `a-z`, `0-9`, `-` and `_`.
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z0-9_-]+$" }))]
    templates: Option<BTreeMap<String, Template>>,
    /// Who may use the admin API.
    admin: Option<Admin>,
    /// Who is told that something is the matter, and when.
    alerts: Option<Alerts>,
    /// The database.
    database: Option<Database>,
    /// Which events change which rows, and what is sent because of them. A rule with the name of a preset's takes its place.
    rules: Option<Vec<Rule>>,
    /// Events as they come, and what is to become of them. `hookmill check` carries them out.
    tests: Option<Vec<Test>>,
}

/// A place webhooks come from.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Source {
    /// How its requests are signed: a provider's name, or one of the schemes those are made of, whose parameters stand beside
    /// it: `hmac`, `ed25519`, `ecdsa-p256`, `token`, `standard-webhooks`. Any parameter takes the place of a provider's.
    #[schemars(extend("examples" = ["stripe"]))]
    scheme: SchemeName,
    /// The names of the secrets, or of public keys, each an environment variable or a Worker's secret. Any of them that is set
    /// may have signed: name the next one beside the old one to rotate.
    #[schemars(
        length(min = 1, max = limits::SECRETS),
        extend("examples" = [["env:STRIPE_WEBHOOK_SECRET", "env:STRIPE_WEBHOOK_SECRET_NEXT"]])
    )]
    secrets: Vec<Secret>,
    /// Rules that come with Hookmill, for the events of this provider.
    #[schemars(extend("examples" = ["stripe"]))]
    preset: Option<Preset>,
    /// How many requests are looked at; one too many is answered 429. Without it, every one is. On Cloudflare it needs a
    /// binding in ingress/worker/wrangler.toml.
    #[schemars(extend("examples" = [{ "requests": 1000, "per": "10s" }]))]
    rate_limit: Option<RateLimit>,
    /// What becomes of an event that no rule names: it is recorded in the ledger, or leaves no trace, or is a dead letter.
    #[schemars(extend("default" = "record"))]
    unmatched: Option<Unmatched>,
    /// What of its bodies is not shown: names with `.` between them, `*` for any one and `**` for any number of them.
    #[schemars(extend("examples" = [["data.first_name", "**.email_address"]]))]
    redact: Option<Vec<Path>>,
    /// The provider's API, of Stripe, Clerk or Paddle, to be asked for objects where two events have the same version.
    #[schemars(extend("examples" = [{ "key": "env:STRIPE_API_KEY" }]))]
    api: Option<ObjectsApi>,
    /// How old a signature may be, where the scheme signs a time: from a second to a day. The default is the scheme's, and
    /// mostly 5 minutes.
    #[schemars(extend("examples" = ["5m"]))]
    tolerance: Option<Span>,
    /// How far ahead of our clock a signature may be, where the scheme signs a time: from a second to a day. The default is 5
    /// minutes, and 1 minute for Linear.
    #[schemars(extend("examples" = ["5m"]))]
    future_tolerance: Option<Span>,
    /// The URL that the provider was told to call, without a query. Needed where the scheme signs it: `hubspot`, `square`,
    /// `twilio`, and `payload` with `{url}`.
    #[schemars(extend("examples" = ["https://hooks.example.com/webhooks/twilio"]))]
    public_url: Option<String>,
    /// What is answered once the events are on the queue, if not how many they are.
    #[schemars(extend("examples" = [{ "content_type": "text/xml", "body": "<Response/>" }]))]
    response: Option<Response>,
    /// The hash of an HMAC.
    #[schemars(extend("default" = "sha256"))]
    algorithm: Option<Algorithm>,
    /// How the key of an HMAC is written, `text` unless it is said; and that of Ed25519, `hex` unless it is said.
    #[schemars(extend("examples" = ["base64"]))]
    key: Option<KeyForm>,
    /// Where the signature is; for `token`, the token.
    #[schemars(extend("examples" = [
        { "header": "X-Hub-Signature-256", "prefix": "sha256=", "encoding": "hex" }
    ]))]
    signature: Option<Signature>,
    /// Where the signed time is, if one is signed.
    #[schemars(extend("examples" = [{ "header": "X-Slack-Request-Timestamp" }]))]
    timestamp: Option<SignedTime>,
    /// What is signed: `{body}`, `{timestamp}`, `{method}`, `{url}`, `{plain_url}`, `{header:NAME}`, `{header:NAME:LENGTH}`,
    /// `{body:PATH}`, and other characters as they are.
    #[schemars(extend("examples" = ["{timestamp}.{body}"]))]
    payload: Option<String>,
    /// Where an event's id and type are.
    #[schemars(extend("examples" = [{ "id": "header:X-GitHub-Delivery", "type": "action" }]))]
    event: Option<Event>,
    /// Signed requests that are no events, and what is answered to them.
    #[schemars(extend("examples" = [
        [{ "when": { "type": "url_verification" }, "echo": "challenge" }]
    ]))]
    handshake: Option<Vec<Handshake>>,
    /// What the headers of Standard Webhooks begin with; the first that was sent counts.
    #[schemars(length(min = 1), extend("examples" = [["svix", "webhook"]]))]
    families: Option<Vec<String>>,
    /// Whether a secret of Standard Webhooks may be a public key, `whpk_…`.
    #[schemars(extend("default" = false))]
    asymmetric: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Secret {
    /// The name of a secret.
    Name(SecretName),
    Ending(EndingSecret),
}

/// A secret that ceases to count.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EndingSecret {
    /// The name of the secret.
    #[schemars(extend("examples" = ["env:STRIPE_WEBHOOK_SECRET_OLD"]))]
    name: SecretName,
    /// When it ceases to count: a date and time with an offset, in quotes or without.
    #[schemars(extend("examples" = ["2026-12-31T00:00:00Z"]))]
    not_after: Option<Time>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ObjectsApi {
    /// The name of the secret that opens it; by default `env:STRIPE_API_KEY`, `env:CLERK_API_KEY` or `env:PADDLE_API_KEY`.
    #[schemars(extend("examples" = ["env:STRIPE_API_KEY"]))]
    key: Option<SecretName>,
    /// The most requests in a second; by default 20 to Stripe, 10 to Clerk, and 4 to Paddle.
    #[schemars(range(min = 1, max = 10_000), extend("examples" = [10]))]
    rate: Option<Whole>,
    /// Where it is, if not where the provider has it.
    #[schemars(extend("examples" = ["https://sandbox-api.paddle.com"]))]
    url: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RateLimit {
    /// The most requests in each period.
    #[schemars(range(min = 1, max = u32::MAX), extend("examples" = [1000]))]
    requests: Whole,
    /// The period.
    #[schemars(extend("examples" = ["10s"]))]
    per: Period,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Response {
    /// A status that tells the provider not to send again.
    #[schemars(range(min = 200, max = 299), extend("default" = 200))]
    status: Option<Whole>,
    /// The header `Content-Type`.
    #[schemars(extend("default" = "text/plain", "examples" = ["text/xml"]))]
    content_type: Option<String>,
    /// The body.
    #[schemars(extend("default" = ""))]
    body: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend(
    "if" = true, "then" = { "oneOf": needs(["header", "body"]) },
    "dependentRequired" = { "list": ["key"], "key": ["list"] },
))]
struct Signature {
    /// The header that it is in.
    #[schemars(extend("examples" = ["X-Hub-Signature-256"]))]
    header: Option<String>,
    /// Where in the body it is, as a path.
    #[schemars(extend("examples" = ["signature.signature"]))]
    body: Option<Path>,
    /// What stands before it; not with a list.
    #[schemars(extend("default" = "", "examples" = ["sha256="]))]
    prefix: Option<String>,
    /// How it is written: `hex` in lower case, or `base64` with padding. Needed by all but `token`, which has none.
    #[schemars(extend("examples" = ["hex"]))]
    encoding: Option<Encoding>,
    /// Of a header that is a list, such as `t=1,v1=ab`: the character between its members.
    #[schemars(length(min = 1, max = 1), extend("examples" = [","]))]
    list: Option<String>,
    /// The key of the signatures in that list.
    #[schemars(extend("examples" = ["v1"]))]
    key: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("if" = true, "then" = { "oneOf": needs(["header", "body", "list"]) }))]
struct SignedTime {
    /// The header that it is in.
    #[schemars(extend("examples" = ["X-Slack-Request-Timestamp"]))]
    header: Option<String>,
    /// Where in the body it is, as a path.
    #[schemars(extend("examples" = ["signature.timestamp"]))]
    body: Option<Path>,
    /// Its key in the signature's list.
    #[schemars(extend("examples" = ["t"]))]
    list: Option<String>,
    /// Seconds or milliseconds since 1970, or RFC 3339.
    #[schemars(extend("default" = "s"))]
    unit: Option<TimeUnit>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Event {
    /// Where the id is: a path in the body, `header:X-Name`, `hash:body`, or `hash:signed`, the hash of what is signed; of a
    /// list, all are joined. Needed by all but Standard Webhooks, which have it in a header.
    #[schemars(extend("examples" = ["header:X-GitHub-Delivery"]))]
    id: Option<OneOrMore<Path>>,
    /// Where the type is: a path in the body, or `header:X-Name`; of a list, those that are there are joined.
    #[schemars(extend("examples" = ["type"]))]
    r#type: OneOrMore<Path>,
    /// The type of what has none. Without it, that is rejected.
    #[schemars(length(min = 1), extend("examples" = ["unknown"]))]
    default: Option<String>,
    /// Whether a body is a list of events, or one after the other, as lines.
    #[schemars(extend("default" = false))]
    many: Option<bool>,
    /// Whether an id that is not signed is combined with a hash of the body.
    #[schemars(extend("default" = true))]
    hash: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("not" = { "required": ["echo", "body"] }))]
struct Handshake {
    /// What such a request holds: paths in its body, and their values.
    #[schemars(extend("examples" = [{ "type": "url_verification" }]))]
    when: BTreeMap<String, Scalar>,
    /// A path that must not be there.
    #[schemars(extend("examples" = ["event"]))]
    unless: Option<Path>,
    /// A path whose text is answered.
    #[schemars(extend("examples" = ["challenge"]))]
    echo: Option<Path>,
    /// The status of the answer.
    #[schemars(range(min = 200, max = 299), extend("default" = 200))]
    status: Option<Whole>,
    /// The answer's header `Content-Type`.
    #[schemars(extend("default" = "text/plain", "examples" = ["application/json"]))]
    content_type: Option<String>,
    /// The body of the answer, if it is not `echo`.
    #[schemars(extend("default" = "", "examples" = ["{\"type\":1}"]))]
    body: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Ingress {
    /// The longest body that is taken: at most 25 MiB. A longer one is answered 413.
    #[schemars(extend("default" = "1MiB"))]
    body_limit: Option<String>,
    /// How long a body may take to arrive: from 100 milliseconds to 5 minutes.
    #[schemars(extend("default" = "10s"))]
    body_timeout: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Limits {
    /// How many rows one event may write, in all tables together.
    #[schemars(range(min = 1, max = limits::EVENT_ROWS), extend("default" = 10_000))]
    rows_per_event: Option<Whole>,
    /// How many bytes of rows one event may write: at most 256 MiB.
    #[schemars(extend("default" = "16MiB"))]
    bytes_per_event: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Retry {
    /// How often something is tried, the first time included, before it is a dead letter.
    #[schemars(range(min = 1, max = limits::PLATFORM_DELIVERIES - 1), extend("default" = 8))]
    max_attempts: Option<Whole>,
    /// How long after the first time the second comes: at most a day.
    #[schemars(extend("default" = "10s"))]
    initial: Option<Span>,
    /// What that grows by each time.
    #[schemars(range(min = 1, max = 10), extend("default" = 2.0))]
    multiplier: Option<Number>,
    /// What it grows to: at most a day.
    #[schemars(extend("default" = "1h"))]
    max: Option<Span>,
    /// The share of the delay by which it is varied at random, so that what failed together does not come back together.
    #[schemars(range(min = 0, max = 1), extend("default" = 0.5))]
    jitter: Option<Number>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Queue {
    /// The most deliveries in a batch. Left out, wrangler.toml says that on Cloudflare, and it is 1,000 natively.
    #[schemars(range(min = 1, max = limits::BATCH_MESSAGES))]
    batch_size: Option<Whole>,
    /// How long a batch waits to be full: at most a minute.
    #[schemars(extend("default" = "0s"))]
    batch_wait: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Retention {
    /// The ledger: at least 35 days, since an event that comes again after that takes effect again. Without it, for ever.
    #[schemars(extend("examples" = ["400d"]))]
    events: Option<Span>,
    /// The messages of events that took effect, to look at and to reprocess after a rule has changed: at least an hour. Without
    /// it, they are not kept.
    #[schemars(extend("examples" = ["30d"]))]
    messages: Option<Span>,
    /// Letters that were applied or discarded, emails and the like that are settled, replays that have ended: at least a day.
    #[schemars(extend("default" = "90d"))]
    settled: Option<Span>,
    /// Dead letters that nobody has replayed or discarded: at least a day. Without it, for ever.
    #[schemars(extend("examples" = ["365d"]))]
    dead_letters: Option<Span>,
    /// Who did what: at least 30 days. Without it, for ever.
    #[schemars(extend("examples" = ["1000d"]))]
    audit: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(
    deny_unknown_fields,
    extend("dependentRequired" = { "failover_after": ["fallback"] }),
    transform = email_apis
)]
struct Emails {
    /// Who delivers.
    #[schemars(extend("examples" = ["resend"]))]
    provider: EmailProvider,
    /// Who stands in while that one is away.
    #[schemars(extend("examples" = ["sendgrid"]))]
    fallback: Option<EmailProvider>,
    /// After how many requests in a row that were not answered, or answered with 5xx, the other stands in.
    #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
    failover_after: Option<Whole>,
    /// Whose emails they are.
    #[schemars(extend("examples" = ["Acme <hello@example.com>"]))]
    from: String,
    /// Where answers go, if not to the sender, and a rule does not say.
    #[schemars(extend("examples" = ["Support <support@example.com>"]))]
    reply_to: Option<String>,
    /// How long a batch waits to be full: at most an hour.
    #[schemars(extend("default" = "5s"))]
    wait: Option<Span>,
    /// What becomes of emails of which nobody knows whether they were sent: `bury` them, or send them again, `resend`.
    #[schemars(extend("default" = "hold"))]
    on_uncertain: Option<OnUncertain>,
    /// How many emails there may be, and who is told when they are nearly used up. It warns, and caps nothing.
    #[schemars(extend("examples" = [{ "month": 3000 }]))]
    quota: Option<Quota>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("if" = true, "then" = { "anyOf": needs(["day", "month"]) }))]
struct Quota {
    /// How many there may be in a day, UTC.
    #[schemars(range(min = 1, max = 1_000_000_000), extend("examples" = [100]))]
    day: Option<Whole>,
    /// How many there may be in a month, UTC.
    #[schemars(range(min = 1, max = 1_000_000_000), extend("examples" = [3000]))]
    month: Option<Whole>,
    /// The share of either that is warned at: above 0, at most 1.
    #[schemars(range(max = 1), extend("default" = 0.8, "exclusiveMinimum" = 0))]
    warn_at: Option<Number>,
    /// Who gets an email then.
    #[schemars(extend("examples" = ["Ops <ops@example.com>"]))]
    notify: Option<String>,
}

/// The table of an API that takes emails; [`provider_tables`] adds its defaults.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EmailApi {
    /// The name of the secret that opens it.
    key: Option<SecretName>,
    /// The most requests in a second.
    #[schemars(range(min = 1, max = 10_000))]
    rate: Option<Whole>,
    /// Where it is.
    url: Option<String>,
}

/// An SMTP server that takes emails, such as that of Amazon SES. Only the native binary can reach it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SmtpServer {
    /// The name of the server.
    #[schemars(extend("examples" = ["email-smtp.us-east-1.amazonaws.com"]))]
    host: String,
    /// The port; by default 587 with `starttls`, 465 with `implicit`, and 25 with `none`.
    #[schemars(range(min = 1, max = 65_535), extend("examples" = [2587]))]
    port: Option<Whole>,
    /// How the connection is encrypted: after `STARTTLS`, from the start, or, on this machine, not at all.
    #[schemars(extend("default" = "starttls"))]
    tls: Option<SmtpTls>,
    /// Who logs in. Without it, nobody does.
    #[schemars(extend("examples" = ["AKIAIOSFODNN7EXAMPLE"]))]
    user: Option<String>,
    /// The name of the secret that is the user's password.
    password: Option<SecretName>,
    /// The most emails in a second.
    #[schemars(range(min = 1, max = 10_000))]
    rate: Option<Whole>,
}

fn email_apis(schema: &mut Schema) {
    provider_tables::<EmailApi>(schema, Purpose::Email, |title| format!("The API of {title}."));
}

fn trackers(schema: &mut Schema) {
    provider_tables::<Tracker>(schema, Purpose::Tracking, |title| format!("{title}."));
}

/// Adds a table for each provider that serves a purpose, with the provider's own defaults.
fn provider_tables<T: JsonSchema>(
    schema: &mut Schema,
    purpose: Purpose,
    describe: impl Fn(&str) -> String,
) {
    let table = generator().subschema_for::<T>().to_value();
    for (name, provider) in Provider::of(purpose) {
        let facts = provider.facts();
        let key = format!("env:{}", outgoing::default_key(provider));
        let table = match facts.transport {
            Transport::Https { url } => {
                let mut table = table.clone();
                table["description"] = describe(facts.title).into();
                table["properties"]["key"]["default"] = key.into();
                table["properties"]["rate"]["default"] = facts.rate.into();
                table["properties"]["url"]["default"] = url.into();
                table
            }
            Transport::Smtp => {
                let mut table = generator().subschema_for::<SmtpServer>().to_value();
                table["properties"]["password"]["default"] = key.into();
                table["properties"]["rate"]["default"] = facts.rate.into();
                table
            }
        };
        if let Some(members) = schema.as_object_mut() {
            let properties = members.entry("properties").or_insert_with(|| json!({}));
            properties[name] = table;
        }
    }
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SmsChannel {
    /// Twilio's Account SID: `AC` and 32 hexadecimal digits.
    #[schemars(extend("examples" = ["AC00000000000000000000000000000000"]))]
    account: String,
    /// Whose messages they are: a number with its country, a messaging service (`MG…`), a short code, or a name.
    #[schemars(extend("examples" = ["+15550100001"]))]
    from: String,
    /// Where Twilio reports what became of a message: a source with the scheme and the preset `twilio`.
    #[schemars(extend("examples" = ["https://hooks.example.com/webhooks/twilio"]))]
    status_callback: Option<String>,
    /// The most messages to one number in an hour.
    #[schemars(range(min = 1, max = 100_000), extend("default" = 5))]
    per_hour: Option<Whole>,
    /// How long messages wait before they are sent: at most an hour.
    #[schemars(extend("default" = "0s"))]
    wait: Option<Span>,
    /// What becomes of messages of which nobody knows whether they were sent: `bury` them, or send them again, `resend`.
    #[schemars(extend("default" = "hold"))]
    on_uncertain: Option<OnUncertain>,
    /// How many messages there may be, and who is told when they are nearly used up. It warns, and caps nothing.
    #[schemars(extend("examples" = [{ "month": 3000 }]))]
    quota: Option<Quota>,
    /// The name of the secret that opens Twilio's API.
    #[schemars(extend("default" = "env:TWILIO_AUTH_TOKEN"))]
    key: Option<SecretName>,
    /// The most requests in a second.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 10))]
    rate: Option<Whole>,
    /// Where Twilio's API is.
    #[schemars(extend("default" = "https://api.twilio.com"))]
    url: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, transform = trackers)]
struct Tracking {}

/// The table of an API that records what users did; [`provider_tables`] adds its defaults.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Tracker {
    /// The name of the secret that opens its API: the project's key or token.
    key: Option<SecretName>,
    /// The most requests in a second.
    #[schemars(range(min = 1, max = 10_000))]
    rate: Option<Whole>,
    /// Where its API is; for the EU another.
    url: Option<String>,
    /// How long a batch waits to be full: at most an hour.
    #[schemars(extend("default" = "5s"))]
    wait: Option<Span>,
    /// What becomes of a batch of which nobody knows whether it was taken: `bury` it, or send it again, `resend`.
    #[schemars(extend("default" = "hold"))]
    on_uncertain: Option<OnUncertain>,
    /// How much there may be, and who is told when it is nearly used up. It warns, and caps nothing.
    #[schemars(extend("examples" = [{ "month": 1_000_000 }]))]
    quota: Option<Quota>,
}

/// A template of emails, in the language of Jinja.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Template {
    /// The subject line itself.
    #[schemars(extend("examples" = ["Welcome, {{ name }}"]))]
    subject: String,
    /// The file with the HTML part, relative to hookmill.toml.
    #[schemars(extend("examples" = ["templates/welcome.html"]))]
    html: String,
    /// The file with the text part, likewise. Without it, that is derived from the HTML.
    #[schemars(extend("examples" = ["templates/welcome.txt"]))]
    text: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Admin {
    /// Whoever comes through Cloudflare Access needs no token.
    access: Option<Access>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Access {
    /// The team's domain.
    #[schemars(extend("examples" = ["https://acme.cloudflareaccess.com"]))]
    issuer: String,
    /// The application's audience tag (AUD), as Cloudflare shows it.
    #[schemars(extend("examples" = [
        "32eafc7626e974616deaf0dc3ce63d7bcbed58a2731e84d06bc3cdf1b53c4228"
    ]))]
    audience: String,
    /// Who may change things: addresses, and names of service tokens. Everybody else may look.
    #[schemars(extend("examples" = [["ines@example.com"]]))]
    operators: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("if" = true, "then" = { "anyOf": needs(["email", "webhook"]) }))]
struct Alerts {
    /// Which Hookmill this is, for whoever has several.
    #[schemars(extend("examples" = ["production"]))]
    name: Option<String>,
    /// Who gets an email, through `[email]`.
    #[schemars(extend("examples" = ["Ops <ops@example.com>"]))]
    email: Option<String>,
    /// What is called.
    #[schemars(extend("examples" = [
        { "url": "https://alerts.example.com/hookmill", "secret": "env:ALERTS_SECRET" }
    ]))]
    webhook: Option<AlertWebhook>,
    /// They are told if a dead letter has waited for so long: from a minute to 30 days.
    #[schemars(extend("default" = "1h"))]
    oldest_dead_letter: Option<Span>,
    /// They are told if so many dead letters wait.
    #[schemars(range(min = 1, max = limits::COUNTED), extend("examples" = [100]))]
    dead_letters: Option<Whole>,
    /// They are told if an event took so long from ingress to its tables: from a second to 30 days.
    #[schemars(extend("examples" = ["5m"]))]
    lag: Option<Span>,
    /// When they are told again, if it is still so: from 10 minutes to 30 days.
    #[schemars(extend("default" = "24h"))]
    repeat: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AlertWebhook {
    /// Where it goes; or, if that is secret, the name of the secret that says so.
    #[schemars(extend("examples" = ["env:ALERTS_URL"]))]
    url: String,
    /// The name of the secret that signs it, as Standard Webhooks says: `whsec_`, and base64.
    #[schemars(extend("examples" = ["env:ALERTS_SECRET"]))]
    secret: SecretName,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Database {
    /// The folder of your own migrations, relative to hookmill.toml. They are numbered from 1000.
    #[schemars(extend("examples" = ["migrations/app"]))]
    migrations: Option<String>,
}

/// Which events change which rows, or what is sent because of them. A rule does one thing.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend(
    "if" = true, "then" = { "oneOf": needs(["table", "email", "sms", "track", "outcome", "suppress"]) },
    "dependentRequired" = {
        "table": ["key"],
        "key": ["table"],
        "set": ["table"],
        "add": ["table"],
        "each": ["table"],
        "version": ["table"],
        "tie": ["table"],
        "delete": ["table"],
        "update": ["table"],
        "tombstone": ["delete"],
    },
))]
struct Rule {
    /// A name of its own, for messages. That of a preset's rule takes its place.
    #[schemars(extend("examples" = ["refunds"]))]
    name: String,
    /// The events that it is about, by source and type; `*` stands for any number of characters.
    #[schemars(extend("examples" = ["stripe:invoice.*"]))]
    on: OneOrMore<EventPattern>,
    /// The handler that says what its values are, if not the body. A handler is code.
    handler: Option<String>,
    /// The list of whose elements it makes rows. A path that begins with `@` is then about an element.
    #[schemars(extend("examples" = ["data.object.items.data"]))]
    each: Option<Path>,
    /// What has to hold, all of it: paths, in quotes if they have dots, and what their values may be.
    #[schemars(extend("examples" = [{ "data.object.status": ["active", "trialing"] }]))]
    when: Option<BTreeMap<String, Condition>>,
    /// The table that it writes.
    #[schemars(extend("examples" = ["refunds"]))]
    table: Option<String>,
    /// Which row: the columns of the table's key, and where their values are from.
    #[schemars(extend("examples" = [{ "id": "data.object.id" }]))]
    key: Option<BTreeMap<String, ValueFrom>>,
    /// What is written into it: other columns, and where their values are from. Where there is nothing, the column becomes NULL.
    #[schemars(extend("examples" = [{ "amount": "data.object.amount" }]))]
    set: Option<BTreeMap<String, ValueFrom>>,
    /// Of a rule that counts: columns, and what they grow by. What is missing counts as 0.
    #[schemars(extend("examples" = [{ "total": 1 }]))]
    add: Option<BTreeMap<String, Growth>>,
    /// Where the event says how new it is: a whole number, or a time. Of two events with the same key, the newer one counts.
    #[schemars(extend("examples" = ["created"]))]
    version: Option<ValueFrom>,
    /// Which of two events with the same version counts.
    #[schemars(extend("examples" = [{ "precedence": { "type": ["*.created", "*.updated"] } }]))]
    tie: Option<Tie>,
    /// The types of events, of those in `on`, that delete the row.
    #[schemars(extend("examples" = ["*.deleted"]))]
    delete: Option<OneOrMany<String>>,
    /// Whether it changes only rows that are there.
    #[schemars(extend("default" = false))]
    update: Option<bool>,
    /// Whether a row that is deleted stays, with `_deleted = 1`, so that a late update cannot bring it back.
    #[schemars(extend("default" = true))]
    tombstone: Option<bool>,
    /// An email that is sent.
    #[schemars(extend("examples" = [{ "template": "welcome", "to": "data.email" }]))]
    email: Option<Email>,
    /// An SMS that is sent.
    #[schemars(extend("examples" = [{ "to": "data.phone", "body": "Welcome." }]))]
    sms: Option<Sms>,
    /// What somebody did.
    #[schemars(extend("examples" = [
        { "provider": "posthog", "event": "Subscribed", "user": "data.user_id" }
    ]))]
    track: Option<Track>,
    /// What became of something that was sent, as its provider reports it.
    #[schemars(extend("examples" = [{ "email": "data.tags.hookmill", "is": "bounced" }]))]
    outcome: Option<OutcomeOf>,
    /// An address that is not to be written to again.
    #[schemars(extend("examples" = [{ "address": "data.to", "reason": "bounced" }]))]
    suppress: Option<Suppress>,
}

/// What a value may be.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Condition {
    Is(Scalar),
    /// This value, or one of these.
    IsOneOf(#[schemars(length(min = 1))] Vec<Scalar>),
    IsNot(IsNot),
    Exists(Exists),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct IsNot {
    /// None of these; also if there is nothing.
    not: OneOrMore<Scalar>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Exists {
    /// Whether there has to be a value, or must not be.
    exists: bool,
}

/// Where a value is from.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum ValueForms {
    Path(Path),
    /// A path into the body, or paths of which the first that leads somewhere counts.
    Paths(#[schemars(length(min = 1))] Vec<Path>),
    Table(ValueTable),
}

/// A value that is always the same, something that is known of every event, or a value that has another form in the body than
/// it is stored in.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend(
    "if" = true,
    "then" = { "oneOf": needs(["value", "event"].into_iter().chain(parse::FORMS.map(|(name, _)| name))) },
    "dependentRequired" = { "decimal": ["scale"], "scale": ["decimal"] },
))]
struct ValueTable {
    /// Always this.
    value: Option<Scalar>,
    /// Something that is known of every event.
    event: Option<Field>,
    /// A path to a text, a number or a boolean, stored as text.
    text: Option<OneOrMore<Path>>,
    /// A path to anything, stored as the text of its JSON.
    json: Option<OneOrMore<Path>>,
    /// A path to true or false, also as 1 or 0, or in quotes, stored as 1 or 0.
    boolean: Option<OneOrMore<Path>>,
    /// A path to a whole number, also in quotes.
    integer: Option<OneOrMore<Path>>,
    /// A path to a number, also in quotes, stored as the whole number of its smallest units.
    decimal: Option<OneOrMore<Path>>,
    /// How many digits behind the point of a `decimal` are kept: of "12.50" and 2, 1250 is stored.
    #[schemars(range(min = 0, max = 18), extend("examples" = [2]))]
    scale: Option<Whole>,
    /// A path to a time in seconds since 1970, stored in milliseconds.
    unix_seconds: Option<OneOrMore<Path>>,
    /// A path to a time in milliseconds since 1970.
    unix_milliseconds: Option<OneOrMore<Path>>,
    /// A path to a time as RFC 3339 has it, stored in milliseconds since 1970.
    rfc3339: Option<OneOrMore<Path>>,
}

/// What a counter grows by.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Growth {
    /// This much.
    By(Whole),
    From(ValueFrom),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1))]
struct Tie {
    /// What decides: the value of a column, or the event's type, each with its order, weakest first.
    #[schemars(extend("examples" = [{ "column": "status", "order": ["trialing", "active"] }]))]
    precedence: Option<Precedence>,
    /// Whether the provider's API is asked what the object is now, if there is no precedence or it decides nothing.
    #[schemars(extend("default" = false))]
    refetch: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Precedence {
    Column(ColumnPrecedence),
    Type(TypePrecedence),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ColumnPrecedence {
    /// A column of `set`.
    #[schemars(extend("examples" = ["status"]))]
    column: String,
    /// Its values, weakest first.
    #[schemars(
        length(min = 1),
        extend("uniqueItems" = true, "examples" = [["trialing", "active", "canceled"]])
    )]
    order: Vec<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TypePrecedence {
    /// Types of events, without their sources, weakest first; `*` stands for any number of characters.
    #[schemars(length(min = 1), extend("uniqueItems" = true, "examples" = [["*.created", "*.updated"]]))]
    r#type: Vec<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Email {
    /// A template of `[templates]`.
    #[schemars(extend("examples" = ["welcome"]))]
    template: String,
    /// To whom: a path to an address or to a list of them; or an address as it is, which has an `@`, or a list of these.
    #[schemars(extend("examples" = ["data.email"]))]
    to: OneOrMore<Path>,
    /// Who has a copy, likewise.
    #[schemars(extend("examples" = ["Ops <ops@example.com>"]))]
    cc: Option<OneOrMore<Path>>,
    /// Where answers go, likewise, if not where `[email]` says.
    #[schemars(extend("examples" = ["data.owner.email"]))]
    reply_to: Option<OneOrMore<Path>>,
    /// What the template is filled in with: names, and where their values are from.
    #[schemars(extend("examples" = [{ "name": "data.first_name" }]))]
    data: Option<BTreeMap<String, ValueFrom>>,
    /// How long after the event it is sent: at most 30 days.
    #[schemars(extend("default" = "0s", "examples" = ["1h"]))]
    delay: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sms {
    /// To whom: a path to a number with its country, or such a number.
    #[schemars(extend("examples" = ["data.phone"]))]
    to: ValueFrom,
    /// What it says: a template.
    #[schemars(extend("examples" = ["Your code is {{ code }}"]))]
    body: String,
    /// What that is filled in with: names, and where their values are from.
    #[schemars(extend("examples" = [{ "code": "data.code" }]))]
    data: Option<BTreeMap<String, ValueFrom>>,
    /// How long after the event it is sent: at most 30 days.
    #[schemars(extend("default" = "0s", "examples" = ["1h"]))]
    delay: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Track {
    /// Who is told.
    #[schemars(extend("examples" = ["posthog"]))]
    provider: TrackerName,
    /// What it is called.
    #[schemars(extend("examples" = ["Subscribed"]))]
    event: String,
    /// Who has done it.
    #[schemars(extend("examples" = ["data.user_id"]))]
    user: ValueFrom,
    /// What else is told: names, and where their values are from.
    #[schemars(extend("examples" = [{ "plan": "data.plan" }]))]
    properties: Option<BTreeMap<String, ValueFrom>>,
    /// How long after the event it is sent: at most 30 days.
    #[schemars(extend("default" = "0s", "examples" = ["1h"]))]
    delay: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("if" = true, "then" = { "oneOf": needs(["email", "provider_id"]) }))]
struct OutcomeOf {
    /// Where the id is that went along with it.
    #[schemars(extend("examples" = ["data.tags.hookmill"]))]
    email: Option<ValueFrom>,
    /// Where the id is that its provider knows it by.
    #[schemars(extend("examples" = ["MessageSid"]))]
    provider_id: Option<ValueFrom>,
    /// What became of it. A later one of these takes the place of an earlier one.
    #[schemars(extend("examples" = ["bounced"]))]
    is: OutcomeName,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Suppress {
    /// Where the address is, or a list of them.
    #[schemars(extend("examples" = ["data.to"]))]
    address: ValueFrom,
    /// A word or two for the record.
    #[schemars(extend("examples" = ["bounced"]))]
    reason: String,
}

/// Events as they come, and what is to become of them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Test {
    /// What it is called where it fails.
    #[schemars(extend("examples" = ["who signs up is a user"]))]
    name: Option<String>,
    /// The events that come, in this order.
    #[schemars(extend("examples" = [{ "source": "stripe", "file": "tests/paid.json" }]))]
    given: OneOrMany<Given>,
    /// What has become of them: all of it.
    #[schemars(extend("examples" = [{ "table": "invoices", "row": { "id": "in_1" } }]))]
    expect: OneOrMany<Expectation>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Given {
    /// Whose event it is.
    #[schemars(extend("examples" = ["stripe"]))]
    source: String,
    /// Its body, relative to hookmill.toml.
    #[schemars(extend("examples" = ["tests/paid.json"]))]
    file: String,
    /// Its type, where the body does not say it.
    #[schemars(extend("examples" = ["issues"]))]
    event: Option<String>,
    /// Its id, where the body does not say it.
    #[schemars(extend("examples" = ["1"]))]
    id: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Expectation {
    /// No rule has written or sent anything, and nothing is a dead letter.
    Nothing(Nothing),
    Something(Something),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("if" = true, "then" = { "oneOf": [
    { "required": ["table", "row"] },
    { "required": ["table", "rows"] },
    { "required": ["email"] },
    { "required": ["sms"] },
    { "required": ["track"] },
    { "required": ["outcome"] },
] }))]
struct Something {
    /// The table that is looked at.
    #[schemars(extend("examples" = ["invoices"]))]
    table: Option<String>,
    /// A row that it has: columns and their values. Others do not matter; `{ exists = false }` is NULL.
    #[schemars(extend("examples" = [{ "id": "in_1" }]))]
    row: Option<Free>,
    /// How many rows it has.
    #[schemars(range(min = 0), extend("examples" = [0]))]
    rows: Option<Whole>,
    /// An email that is sent: `rule`, `template`, `to`, `cc`, `data`.
    #[schemars(extend("examples" = [{ "template": "welcome" }]))]
    email: Option<Free>,
    /// An SMS that is sent: `rule`, `to`, `data`.
    #[schemars(extend("examples" = [{ "to": "+15550100002" }]))]
    sms: Option<Free>,
    /// What is tracked: `rule`, `event`, `to`, `data`.
    #[schemars(extend("examples" = [{ "event": "Subscribed" }]))]
    track: Option<Free>,
    /// What became of the last event.
    #[schemars(extend("examples" = ["applied"]))]
    outcome: Option<Became>,
}

#[cfg(test)]
mod tests;
