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

/// The webhooks that Hookmill accepts, and their effects. `hookmill check` reports errors that an editor cannot find.
#[derive(JsonSchema)]
#[schemars(title = "hookmill.toml", deny_unknown_fields)]
struct Hookmill {
    /// The sources of webhooks. The name of a source is the last part of its URL, `/webhooks/NAME`: `a-z`, `0-9`, `-` and `_`,
    /// at most 64 characters.
    #[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": "^[a-z0-9_-]{1,64}$" }))]
    sources: BTreeMap<String, Source>,
    /// Limits on request bodies.
    ingress: Option<Ingress>,
    /// When to retry an event that could not be applied.
    retry: Option<Retry>,
    /// The most that one event may write. An event over the limit becomes a dead letter.
    limits: Option<Limits>,
    /// Batches of the native queue. On Cloudflare, consumers/worker/wrangler.toml has these settings.
    queue: Option<Queue>,
    /// How long to keep data.
    retention: Option<Retention>,
    /// The email provider.
    email: Option<Emails>,
    /// SMS through Twilio.
    sms: Option<SmsChannel>,
    /// The providers of tracking events.
    tracking: Option<Tracking>,
    /// Email templates by name: `a-z`, `0-9`, `-` and `_`.
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z0-9_-]+$" }))]
    templates: Option<BTreeMap<String, Template>>,
    /// Access to the admin API.
    admin: Option<Admin>,
    /// Alerts about waiting dead letters and slow events.
    alerts: Option<Alerts>,
    /// The database.
    database: Option<Database>,
    /// The rules: the effects of events. A rule with the name of a preset's rule replaces it.
    rules: Option<Vec<Rule>>,
    /// Tests: events and their expected results. `hookmill check` runs them.
    tests: Option<Vec<Test>>,
}

/// A source of webhooks.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Source {
    /// The signature scheme: a provider's name, or a general scheme with parameters: `hmac`, `ed25519`, `ecdsa-p256`, `token`,
    /// `standard-webhooks`. A parameter overrides the provider's own.
    #[schemars(extend("examples" = ["stripe"]))]
    scheme: SchemeName,
    /// The names of secrets or public keys: environment variables, or a Worker's secrets. A signature by any secret that is set
    /// is valid. To rotate, list the new secret beside the old one.
    #[schemars(
        length(min = 1, max = limits::SECRETS),
        extend("examples" = [["env:STRIPE_WEBHOOK_SECRET", "env:STRIPE_WEBHOOK_SECRET_NEXT"]])
    )]
    secrets: Vec<Secret>,
    /// Rules that come with Hookmill for this provider.
    #[schemars(extend("examples" = ["stripe"]))]
    preset: Option<Preset>,
    /// A rate limit: requests over the limit get 429. Default: no limit. On Cloudflare it needs a binding in
    /// ingress/worker/wrangler.toml.
    #[schemars(extend("examples" = [{ "requests": 1000, "per": "10s" }]))]
    rate_limit: Option<RateLimit>,
    /// What to do with an event that no rule matches: record it in the ledger, ignore it, or make it a dead letter.
    #[schemars(extend("default" = "record"))]
    unmatched: Option<Unmatched>,
    /// Paths of values to redact in bodies: names separated by `.`, `*` for any name, `**` for any number of names.
    #[schemars(extend("examples" = [["data.first_name", "**.email_address"]]))]
    redact: Option<Vec<Path>>,
    /// The API of Stripe, Clerk or Paddle, from which Hookmill fetches an object if two of its events have the same version.
    #[schemars(extend("examples" = [{ "key": "env:STRIPE_API_KEY" }]))]
    api: Option<ObjectsApi>,
    /// The maximum age of a signature, if the scheme signs a time: 1 second to 1 day. The default depends on the scheme; mostly
    /// 5 minutes.
    #[schemars(extend("examples" = ["5m"]))]
    tolerance: Option<Span>,
    /// How far in the future a signed time may be: 1 second to 1 day. The default is 5 minutes; 1 minute for Linear.
    #[schemars(extend("examples" = ["5m"]))]
    future_tolerance: Option<Span>,
    /// The URL as registered with the provider, without a query. Required if the scheme signs it: `hubspot`, `square`,
    /// `twilio`, and `payload` with `{url}`.
    #[schemars(extend("examples" = ["https://hooks.example.com/webhooks/twilio"]))]
    public_url: Option<String>,
    /// The response once the events are queued. Default: their number.
    #[schemars(extend("examples" = [{ "content_type": "text/xml", "body": "<Response/>" }]))]
    response: Option<Response>,
    /// The hash function of an HMAC.
    #[schemars(extend("default" = "sha256"))]
    algorithm: Option<Algorithm>,
    /// The encoding of the key. Default: `text` for an HMAC, `hex` for Ed25519.
    #[schemars(extend("examples" = ["base64"]))]
    key: Option<KeyForm>,
    /// The place of the signature, or of the token for `token`.
    #[schemars(extend("examples" = [
        { "header": "X-Hub-Signature-256", "prefix": "sha256=", "encoding": "hex" }
    ]))]
    signature: Option<Signature>,
    /// The place of the signed time, if the scheme signs one.
    #[schemars(extend("examples" = [{ "header": "X-Slack-Request-Timestamp" }]))]
    timestamp: Option<SignedTime>,
    /// The signed text: `{body}`, `{timestamp}`, `{method}`, `{url}`, `{plain_url}`, `{header:NAME}`, `{header:NAME:LENGTH}`,
    /// `{body:PATH}`, and literal characters.
    #[schemars(extend("examples" = ["{timestamp}.{body}"]))]
    payload: Option<String>,
    /// The places of an event's id and type.
    #[schemars(extend("examples" = [{ "id": "header:X-GitHub-Delivery", "type": "action" }]))]
    event: Option<Event>,
    /// Signed requests that are not events, and the responses to them.
    #[schemars(extend("examples" = [
        [{ "when": { "type": "url_verification" }, "echo": "challenge" }]
    ]))]
    handshake: Option<Vec<Handshake>>,
    /// The header prefixes of Standard Webhooks. Hookmill uses the first one found.
    #[schemars(length(min = 1), extend("examples" = [["svix", "webhook"]]))]
    families: Option<Vec<String>>,
    /// Whether a Standard Webhooks secret may be a public key, `whpk_…`.
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

/// A secret that expires.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EndingSecret {
    /// The name of the secret.
    #[schemars(extend("examples" = ["env:STRIPE_WEBHOOK_SECRET_OLD"]))]
    name: SecretName,
    /// When it expires: a date and time with an offset, with or without quotes.
    #[schemars(extend("examples" = ["2026-12-31T00:00:00Z"]))]
    not_after: Option<Time>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ObjectsApi {
    /// The name of the API key's secret. Default: `env:STRIPE_API_KEY`, `env:CLERK_API_KEY` or `env:PADDLE_API_KEY`.
    #[schemars(extend("examples" = ["env:STRIPE_API_KEY"]))]
    key: Option<SecretName>,
    /// The maximum requests per second. Default: 20 for Stripe, 10 for Clerk, 4 for Paddle.
    #[schemars(range(min = 1, max = 10_000), extend("examples" = [10]))]
    rate: Option<Whole>,
    /// The base URL, if not the provider's own.
    #[schemars(extend("examples" = ["https://sandbox-api.paddle.com"]))]
    url: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RateLimit {
    /// The maximum requests per period.
    #[schemars(range(min = 1, max = u32::MAX), extend("examples" = [1000]))]
    requests: Whole,
    /// The period.
    #[schemars(extend("examples" = ["10s"]))]
    per: Period,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Response {
    /// The status, 200 to 299.
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
    /// The header.
    #[schemars(extend("examples" = ["X-Hub-Signature-256"]))]
    header: Option<String>,
    /// The path in the body.
    #[schemars(extend("examples" = ["signature.signature"]))]
    body: Option<Path>,
    /// A prefix. Not allowed with a list.
    #[schemars(extend("default" = "", "examples" = ["sha256="]))]
    prefix: Option<String>,
    /// The encoding: `hex` in lower case, or `base64` with padding. Required except for `token`, which has none.
    #[schemars(extend("examples" = ["hex"]))]
    encoding: Option<Encoding>,
    /// The separator of a header that is a list, such as `t=1,v1=ab`.
    #[schemars(length(min = 1, max = 1), extend("examples" = [","]))]
    list: Option<String>,
    /// The key of the signatures in that list.
    #[schemars(extend("examples" = ["v1"]))]
    key: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("if" = true, "then" = { "oneOf": needs(["header", "body", "list"]) }))]
struct SignedTime {
    /// The header.
    #[schemars(extend("examples" = ["X-Slack-Request-Timestamp"]))]
    header: Option<String>,
    /// The path in the body.
    #[schemars(extend("examples" = ["signature.timestamp"]))]
    body: Option<Path>,
    /// The key in the signature's list.
    #[schemars(extend("examples" = ["t"]))]
    list: Option<String>,
    /// Seconds or milliseconds since 1970, or RFC 3339.
    #[schemars(extend("default" = "s"))]
    unit: Option<TimeUnit>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Event {
    /// The id: a path in the body, `header:X-Name`, `hash:body`, or `hash:signed`, the hash of the signed bytes. A list joins
    /// all values. Required except for Standard Webhooks, which sends it in a header.
    #[schemars(extend("examples" = ["header:X-GitHub-Delivery"]))]
    id: Option<OneOrMore<Path>>,
    /// The type: a path in the body, or `header:X-Name`. A list joins the values that exist.
    #[schemars(extend("examples" = ["type"]))]
    r#type: OneOrMore<Path>,
    /// The type of an event without one. Without a default, Hookmill rejects such an event.
    #[schemars(length(min = 1), extend("examples" = ["unknown"]))]
    default: Option<String>,
    /// Whether a body contains many events, as a list or as lines.
    #[schemars(extend("default" = false))]
    many: Option<bool>,
    /// Whether to combine an unsigned id with a hash of the body.
    #[schemars(extend("default" = true))]
    hash: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("not" = { "required": ["echo", "body"] }))]
struct Handshake {
    /// Paths in the body of such a request, and their values.
    #[schemars(extend("examples" = [{ "type": "url_verification" }]))]
    when: BTreeMap<String, Scalar>,
    /// A path that must not exist.
    #[schemars(extend("examples" = ["event"]))]
    unless: Option<Path>,
    /// A path whose text is the response.
    #[schemars(extend("examples" = ["challenge"]))]
    echo: Option<Path>,
    /// The status of the response.
    #[schemars(range(min = 200, max = 299), extend("default" = 200))]
    status: Option<Whole>,
    /// The `Content-Type` of the response.
    #[schemars(extend("default" = "text/plain", "examples" = ["application/json"]))]
    content_type: Option<String>,
    /// The body of the response, unless `echo` is set.
    #[schemars(extend("default" = "", "examples" = ["{\"type\":1}"]))]
    body: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Ingress {
    /// The maximum size of a body, at most 25 MiB. A larger body gets 413.
    #[schemars(extend("default" = "1MiB"))]
    body_limit: Option<String>,
    /// The maximum time for a body to arrive: 100 milliseconds to 5 minutes.
    #[schemars(extend("default" = "10s"))]
    body_timeout: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Limits {
    /// The maximum rows that one event may write, in all tables.
    #[schemars(range(min = 1, max = limits::EVENT_ROWS), extend("default" = 10_000))]
    rows_per_event: Option<Whole>,
    /// The maximum bytes of rows that one event may write, at most 256 MiB.
    #[schemars(extend("default" = "16MiB"))]
    bytes_per_event: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Retry {
    /// The number of attempts, including the first, before an event becomes a dead letter.
    #[schemars(range(min = 1, max = limits::PLATFORM_DELIVERIES - 1), extend("default" = 8))]
    max_attempts: Option<Whole>,
    /// The delay before the second attempt, at most 1 day.
    #[schemars(extend("default" = "10s"))]
    initial: Option<Span>,
    /// The factor by which the delay grows with each attempt.
    #[schemars(range(min = 1, max = 10), extend("default" = 2.0))]
    multiplier: Option<Number>,
    /// The maximum delay, at most 1 day.
    #[schemars(extend("default" = "1h"))]
    max: Option<Span>,
    /// The fraction of the delay that is random, so that events that failed together do not retry together.
    #[schemars(range(min = 0, max = 1), extend("default" = 0.5))]
    jitter: Option<Number>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Queue {
    /// The maximum deliveries in a batch. Default: 1,000 natively; on Cloudflare, the value in wrangler.toml.
    #[schemars(range(min = 1, max = limits::BATCH_MESSAGES))]
    batch_size: Option<Whole>,
    /// How long to wait for a full batch, at most 1 minute.
    #[schemars(extend("default" = "0s"))]
    batch_wait: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Retention {
    /// The ledger: at least 35 days, because a duplicate that arrives later is applied again. Default: forever.
    #[schemars(extend("examples" = ["400d"]))]
    events: Option<Span>,
    /// The messages of applied events, to view them and to reprocess them after a rule has changed: at least 1 hour. Default:
    /// not kept.
    #[schemars(extend("examples" = ["30d"]))]
    messages: Option<Span>,
    /// Applied or discarded dead letters, settled emails, SMS and tracking events, and ended replays: at least 1 day.
    #[schemars(extend("default" = "90d"))]
    settled: Option<Span>,
    /// Dead letters that were neither replayed nor discarded: at least 1 day. Default: forever.
    #[schemars(extend("examples" = ["365d"]))]
    dead_letters: Option<Span>,
    /// The audit of changes: at least 30 days. Default: forever.
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
    /// The provider.
    #[schemars(extend("examples" = ["resend"]))]
    provider: EmailProvider,
    /// The provider to use while the first is unavailable.
    #[schemars(extend("examples" = ["sendgrid"]))]
    fallback: Option<EmailProvider>,
    /// The number of consecutive requests without a response, or with 5xx, after which Hookmill uses the fallback.
    #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
    failover_after: Option<Whole>,
    /// The sender.
    #[schemars(extend("examples" = ["Acme <hello@example.com>"]))]
    from: String,
    /// The address for replies, unless a rule sets one. Default: the sender.
    #[schemars(extend("examples" = ["Support <support@example.com>"]))]
    reply_to: Option<String>,
    /// How long to wait for a full batch, at most 1 hour.
    #[schemars(extend("default" = "5s"))]
    wait: Option<Span>,
    /// What to do with emails whose delivery is uncertain: `hold` them for an operator, or `retry`.
    #[schemars(extend("default" = "hold"))]
    on_uncertain: Option<OnUncertain>,
    /// The provider's quota, and the recipient of a warning before it is used up. It limits nothing.
    #[schemars(extend("examples" = [{ "month": 3000 }]))]
    quota: Option<Quota>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("if" = true, "then" = { "anyOf": needs(["day", "month"]) }))]
struct Quota {
    /// The quota per day (UTC).
    #[schemars(range(min = 1, max = 1_000_000_000), extend("examples" = [100]))]
    day: Option<Whole>,
    /// The quota per month (UTC).
    #[schemars(range(min = 1, max = 1_000_000_000), extend("examples" = [3000]))]
    month: Option<Whole>,
    /// The fraction of a quota at which to warn: above 0, at most 1.
    #[schemars(range(max = 1), extend("default" = 0.8, "exclusiveMinimum" = 0))]
    warn_at: Option<Number>,
    /// The recipient of the warning.
    #[schemars(extend("examples" = ["Ops <ops@example.com>"]))]
    notify: Option<String>,
}

/// The table of an email API; [`provider_tables`] adds its defaults.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EmailApi {
    /// The name of the API key's secret.
    key: Option<SecretName>,
    /// The maximum requests per second.
    #[schemars(range(min = 1, max = 10_000))]
    rate: Option<Whole>,
    /// The base URL.
    url: Option<String>,
}

/// An SMTP server, such as that of Amazon SES. Only the native binary can use it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SmtpServer {
    /// The host name of the server.
    #[schemars(extend("examples" = ["email-smtp.us-east-1.amazonaws.com"]))]
    host: String,
    /// The port. Default: 587 with `starttls`, 465 with `implicit`, 25 with `none`.
    #[schemars(range(min = 1, max = 65_535), extend("examples" = [2587]))]
    port: Option<Whole>,
    /// The encryption of the connection: after `STARTTLS`, from the start, or none, for a local server only.
    #[schemars(extend("default" = "starttls"))]
    tls: Option<SmtpTls>,
    /// The user name. Without it, Hookmill does not log in.
    #[schemars(extend("examples" = ["AKIAIOSFODNN7EXAMPLE"]))]
    user: Option<String>,
    /// The name of the secret that contains the password.
    password: Option<SecretName>,
    /// The maximum emails per second.
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
    /// The sender: a phone number with country code, a messaging service (`MG…`), a short code, or a name.
    #[schemars(extend("examples" = ["+15550100001"]))]
    from: String,
    /// The URL for Twilio's delivery reports: a source with the scheme and the preset `twilio`.
    #[schemars(extend("examples" = ["https://hooks.example.com/webhooks/twilio"]))]
    status_callback: Option<String>,
    /// The maximum messages to one number per hour.
    #[schemars(range(min = 1, max = 100_000), extend("default" = 5))]
    per_hour: Option<Whole>,
    /// How long messages wait before they are sent, at most 1 hour.
    #[schemars(extend("default" = "0s"))]
    wait: Option<Span>,
    /// What to do with messages whose delivery is uncertain: `hold` them for an operator, or `retry`.
    #[schemars(extend("default" = "hold"))]
    on_uncertain: Option<OnUncertain>,
    /// The provider's quota, and the recipient of a warning before it is used up. It limits nothing.
    #[schemars(extend("examples" = [{ "month": 3000 }]))]
    quota: Option<Quota>,
    /// The name of the secret for Twilio's API.
    #[schemars(extend("default" = "env:TWILIO_AUTH_TOKEN"))]
    key: Option<SecretName>,
    /// The maximum requests per second.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 10))]
    rate: Option<Whole>,
    /// The base URL of Twilio's API.
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
    /// The name of the secret that contains the project's key or token.
    key: Option<SecretName>,
    /// The maximum requests per second.
    #[schemars(range(min = 1, max = 10_000))]
    rate: Option<Whole>,
    /// The base URL of its API; the EU has another.
    url: Option<String>,
    /// How long to wait for a full batch, at most 1 hour.
    #[schemars(extend("default" = "5s"))]
    wait: Option<Span>,
    /// What to do with a batch whose delivery is uncertain: `hold` it for an operator, or `retry`.
    #[schemars(extend("default" = "hold"))]
    on_uncertain: Option<OnUncertain>,
    /// The provider's quota, and the recipient of a warning before it is used up. It limits nothing.
    #[schemars(extend("examples" = [{ "month": 1_000_000 }]))]
    quota: Option<Quota>,
}

/// An email template, in Jinja.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Template {
    /// The subject line, a template.
    #[schemars(extend("examples" = ["Welcome, {{ name }}"]))]
    subject: String,
    /// The file with the HTML part, relative to hookmill.toml.
    #[schemars(extend("examples" = ["templates/welcome.html"]))]
    html: String,
    /// The file with the text part, relative to hookmill.toml. Default: derived from the HTML.
    #[schemars(extend("examples" = ["templates/welcome.txt"]))]
    text: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Admin {
    /// Users who come through Cloudflare Access need no token.
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
    /// Email addresses, and names of service tokens, that may change things. All others can only view.
    #[schemars(extend("examples" = [["ines@example.com"]]))]
    operators: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("if" = true, "then" = { "anyOf": needs(["email", "webhook"]) }))]
struct Alerts {
    /// A name for this Hookmill, if you run several.
    #[schemars(extend("examples" = ["production"]))]
    name: Option<String>,
    /// The recipient of alerts by email, through `[email]`.
    #[schemars(extend("examples" = ["Ops <ops@example.com>"]))]
    email: Option<String>,
    /// The webhook to call.
    #[schemars(extend("examples" = [
        { "url": "https://alerts.example.com/hookmill", "secret": "env:ALERTS_SECRET" }
    ]))]
    webhook: Option<AlertWebhook>,
    /// The age of a waiting dead letter that raises an alert: 1 minute to 30 days.
    #[schemars(extend("default" = "1h"))]
    oldest_dead_letter: Option<Span>,
    /// The number of waiting dead letters that raises an alert.
    #[schemars(range(min = 1, max = limits::COUNTED), extend("examples" = [100]))]
    dead_letters: Option<Whole>,
    /// The time from receipt of an event to its tables that raises an alert: 1 second to 30 days.
    #[schemars(extend("examples" = ["5m"]))]
    lag: Option<Span>,
    /// When to repeat an alert whose cause persists: 10 minutes to 30 days.
    #[schemars(extend("default" = "24h"))]
    repeat: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AlertWebhook {
    /// The URL, or the name of a secret that contains it.
    #[schemars(extend("examples" = ["env:ALERTS_URL"]))]
    url: String,
    /// The name of the signing secret in the form of Standard Webhooks: `whsec_` and base64.
    #[schemars(extend("examples" = ["env:ALERTS_SECRET"]))]
    secret: SecretName,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Database {
    /// The folder of your own migrations, relative to hookmill.toml. Their numbers start at 1000.
    #[schemars(extend("examples" = ["migrations/app"]))]
    migrations: Option<String>,
}

/// A rule: the events, and one effect.
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
    /// A unique name. A rule with the name of a preset's rule replaces it.
    #[schemars(extend("examples" = ["refunds"]))]
    name: String,
    /// The events, by source and type. `*` matches any text.
    #[schemars(extend("examples" = ["stripe:invoice.*"]))]
    on: OneOrMore<EventPattern>,
    /// The handler, which is code, whose values the paths select from. Default: the body.
    handler: Option<String>,
    /// The list whose elements become rows. A path that begins with `@` selects from an element.
    #[schemars(extend("examples" = ["data.object.items.data"]))]
    each: Option<Path>,
    /// Conditions: paths and their allowed values. The rule runs if every condition holds. Quote a path that contains dots.
    #[schemars(extend("examples" = [{ "data.object.status": ["active", "trialing"] }]))]
    when: Option<BTreeMap<String, Condition>>,
    /// The table to write.
    #[schemars(extend("examples" = ["refunds"]))]
    table: Option<String>,
    /// The row: the columns of the table's key, and paths of their values.
    #[schemars(extend("examples" = [{ "id": "data.object.id" }]))]
    key: Option<BTreeMap<String, ValueFrom>>,
    /// The other columns to write, and paths of their values. A missing value becomes NULL.
    #[schemars(extend("examples" = [{ "amount": "data.object.amount" }]))]
    set: Option<BTreeMap<String, ValueFrom>>,
    /// For a counter: columns, and the amounts to add. A missing value counts as 0.
    #[schemars(extend("examples" = [{ "total": 1 }]))]
    add: Option<BTreeMap<String, Growth>>,
    /// The path of the event's version: a whole number, or a time. Of two events with the same key, the newer one wins.
    #[schemars(extend("examples" = ["created"]))]
    version: Option<ValueFrom>,
    /// Which of two events with the same version wins.
    #[schemars(extend("examples" = [{ "precedence": { "type": ["*.created", "*.updated"] } }]))]
    tie: Option<Tie>,
    /// The event types, from those in `on`, that delete the row.
    #[schemars(extend("examples" = ["*.deleted"]))]
    delete: Option<OneOrMany<String>>,
    /// Whether the rule changes existing rows only.
    #[schemars(extend("default" = false))]
    update: Option<bool>,
    /// Whether a deleted row stays, with `_deleted = 1`, so that a late update cannot restore it.
    #[schemars(extend("default" = true))]
    tombstone: Option<bool>,
    /// An email to send.
    #[schemars(extend("examples" = [{ "template": "welcome", "to": "data.email" }]))]
    email: Option<Email>,
    /// An SMS to send.
    #[schemars(extend("examples" = [{ "to": "data.phone", "body": "Welcome." }]))]
    sms: Option<Sms>,
    /// A tracking event to send.
    #[schemars(extend("examples" = [
        { "provider": "posthog", "event": "Subscribed", "user": "data.user_id" }
    ]))]
    track: Option<Track>,
    /// The outcome of a sent message, as its provider reports it.
    #[schemars(extend("examples" = [{ "email": "data.tags.hookmill", "is": "bounced" }]))]
    outcome: Option<OutcomeOf>,
    /// An address to suppress.
    #[schemars(extend("examples" = [{ "address": "data.to", "reason": "bounced" }]))]
    suppress: Option<Suppress>,
}

/// A condition on a value.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Condition {
    Is(Scalar),
    /// The value, or one of a list.
    IsOneOf(#[schemars(length(min = 1))] Vec<Scalar>),
    IsNot(IsNot),
    Exists(Exists),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct IsNot {
    /// None of these values; also true for a missing value.
    not: OneOrMore<Scalar>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Exists {
    /// Whether the value must exist.
    exists: bool,
}

/// A value.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum ValueForms {
    Path(Path),
    /// A path in the body, or a list of paths. The rule uses the first path that exists.
    Paths(#[schemars(length(min = 1))] Vec<Path>),
    Table(ValueTable),
}

/// A constant, a field of the event, or a value whose form in the body differs from the stored form.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend(
    "if" = true,
    "then" = { "oneOf": needs(["value", "event"].into_iter().chain(parse::FORMS.map(|(name, _)| name))) },
    "dependentRequired" = { "decimal": ["scale"], "scale": ["decimal"] },
))]
struct ValueTable {
    /// A constant.
    value: Option<Scalar>,
    /// A field that every event has.
    event: Option<Field>,
    /// A path to a text, a number or a boolean, stored as text.
    text: Option<OneOrMore<Path>>,
    /// A path to anything, stored as the text of its JSON.
    json: Option<OneOrMore<Path>>,
    /// A path to true or false, or to 1 or 0, with or without quotes, stored as 1 or 0.
    boolean: Option<OneOrMore<Path>>,
    /// A path to a whole number, with or without quotes.
    integer: Option<OneOrMore<Path>>,
    /// A path to a number, with or without quotes, stored as a whole number of its smallest units.
    decimal: Option<OneOrMore<Path>>,
    /// The decimal places of a `decimal` to keep: "12.50" with 2 is stored as 1250.
    #[schemars(range(min = 0, max = 18), extend("examples" = [2]))]
    scale: Option<Whole>,
    /// A path to a time in seconds since 1970, stored in milliseconds.
    unix_seconds: Option<OneOrMore<Path>>,
    /// A path to a time in milliseconds since 1970.
    unix_milliseconds: Option<OneOrMore<Path>>,
    /// A path to an RFC 3339 time, stored in milliseconds since 1970.
    rfc3339: Option<OneOrMore<Path>>,
}

/// The amount that a counter adds.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Growth {
    /// A constant amount.
    By(Whole),
    From(ValueFrom),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1))]
struct Tie {
    /// The order that decides, weakest first: of a column's values, or of event types.
    #[schemars(extend("examples" = [{ "column": "status", "order": ["trialing", "active"] }]))]
    precedence: Option<Precedence>,
    /// Whether to fetch the object from the provider's API if no precedence decides.
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
    /// Event types without their sources, weakest first. `*` matches any text.
    #[schemars(length(min = 1), extend("uniqueItems" = true, "examples" = [["*.created", "*.updated"]]))]
    r#type: Vec<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Email {
    /// A template of `[templates]`.
    #[schemars(extend("examples" = ["welcome"]))]
    template: String,
    /// The recipients: a path to an address or to a list of addresses, or an address with an `@`, or a list of these.
    #[schemars(extend("examples" = ["data.email"]))]
    to: OneOrMore<Path>,
    /// The recipients of a copy, like `to`.
    #[schemars(extend("examples" = ["Ops <ops@example.com>"]))]
    cc: Option<OneOrMore<Path>>,
    /// The address for replies, like `to`. Default: that of `[email]`.
    #[schemars(extend("examples" = ["data.owner.email"]))]
    reply_to: Option<OneOrMore<Path>>,
    /// The template's variables: names, and paths of their values.
    #[schemars(extend("examples" = [{ "name": "data.first_name" }]))]
    data: Option<BTreeMap<String, ValueFrom>>,
    /// The delay after the event, at most 30 days.
    #[schemars(extend("default" = "0s", "examples" = ["1h"]))]
    delay: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sms {
    /// The recipient: a path to a phone number with country code, or such a number.
    #[schemars(extend("examples" = ["data.phone"]))]
    to: ValueFrom,
    /// The text, a template.
    #[schemars(extend("examples" = ["Your code is {{ code }}"]))]
    body: String,
    /// The template's variables: names, and paths of their values.
    #[schemars(extend("examples" = [{ "code": "data.code" }]))]
    data: Option<BTreeMap<String, ValueFrom>>,
    /// The delay after the event, at most 30 days.
    #[schemars(extend("default" = "0s", "examples" = ["1h"]))]
    delay: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Track {
    /// The provider.
    #[schemars(extend("examples" = ["posthog"]))]
    provider: TrackerName,
    /// The name of the tracking event.
    #[schemars(extend("examples" = ["Subscribed"]))]
    event: String,
    /// The user.
    #[schemars(extend("examples" = ["data.user_id"]))]
    user: ValueFrom,
    /// The properties: names, and paths of their values.
    #[schemars(extend("examples" = [{ "plan": "data.plan" }]))]
    properties: Option<BTreeMap<String, ValueFrom>>,
    /// The delay after the event, at most 30 days.
    #[schemars(extend("default" = "0s", "examples" = ["1h"]))]
    delay: Option<Span>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("if" = true, "then" = { "oneOf": needs(["email", "provider_id"]) }))]
struct OutcomeOf {
    /// The path of the email's id.
    #[schemars(extend("examples" = ["data.tags.hookmill"]))]
    email: Option<ValueFrom>,
    /// The path of the provider's message id.
    #[schemars(extend("examples" = ["MessageSid"]))]
    provider_id: Option<ValueFrom>,
    /// The outcome. A later value in this list replaces an earlier one.
    #[schemars(extend("examples" = ["bounced"]))]
    is: OutcomeName,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Suppress {
    /// The path of an address, or of a list of addresses.
    #[schemars(extend("examples" = ["data.to"]))]
    address: ValueFrom,
    /// A short reason.
    #[schemars(extend("examples" = ["bounced"]))]
    reason: String,
}

/// A test: events, and their expected results.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Test {
    /// The name of the test in messages.
    #[schemars(extend("examples" = ["who signs up is a user"]))]
    name: Option<String>,
    /// The events, in order of arrival.
    #[schemars(extend("examples" = [{ "source": "stripe", "file": "tests/paid.json" }]))]
    given: OneOrMany<Given>,
    /// The expected results.
    #[schemars(extend("examples" = [{ "table": "invoices", "row": { "id": "in_1" } }]))]
    expect: OneOrMany<Expectation>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Given {
    /// The event's source.
    #[schemars(extend("examples" = ["stripe"]))]
    source: String,
    /// The file with the body, relative to hookmill.toml.
    #[schemars(extend("examples" = ["tests/paid.json"]))]
    file: String,
    /// The event's type, if the body does not contain it.
    #[schemars(extend("examples" = ["issues"]))]
    event: Option<String>,
    /// The event's id, if the body does not contain it.
    #[schemars(extend("examples" = ["1"]))]
    id: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Expectation {
    /// No rule writes or sends anything, and there is no dead letter.
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
    /// The table.
    #[schemars(extend("examples" = ["invoices"]))]
    table: Option<String>,
    /// An expected row: columns and their values. Other columns do not matter; `{ exists = false }` is NULL.
    #[schemars(extend("examples" = [{ "id": "in_1" }]))]
    row: Option<Free>,
    /// The expected number of rows.
    #[schemars(range(min = 0), extend("examples" = [0]))]
    rows: Option<Whole>,
    /// An expected email: `rule`, `template`, `to`, `cc`, `data`.
    #[schemars(extend("examples" = [{ "template": "welcome" }]))]
    email: Option<Free>,
    /// An expected SMS: `rule`, `to`, `data`.
    #[schemars(extend("examples" = [{ "to": "+15550100002" }]))]
    sms: Option<Free>,
    /// An expected tracking event: `rule`, `event`, `to`, `data`.
    #[schemars(extend("examples" = [{ "event": "Subscribed" }]))]
    track: Option<Free>,
    /// The result of the last event.
    #[schemars(extend("examples" = ["applied"]))]
    outcome: Option<Became>,
}

#[cfg(test)]
mod tests;
