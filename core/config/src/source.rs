//! `[sources]`: how a source signs requests, and where they contain events. A missing key comes from the file of the source's scheme.

use std::time::Duration;

use hookmill_core::api_version;
use hookmill_core::limits::SECRETS;
use hookmill_core::outbound::Provider;
use hookmill_core::request::Coding;
use hookmill_core::secret::SecretName;
use hookmill_keys::kind::{
    all_members, boolean, choice, duration, either, list, members, one_or_many, parsed, scalar,
    secret, table, table_or, text, whole,
};
use hookmill_keys::{Document, Item, Kind, Located, Section, Table, days, flatten, keys, seconds};
use hookmill_rules::api::log;
use hookmill_rules::preset::{PRESETS, Preset};
use hookmill_rules::{Path, PlainPath, Reads, Step, Unmatched, api};
use serde_json::{Value, json};

use crate::channels::Api;
use crate::channels::keys::ApiKeys;
use crate::redact::Redaction;
use crate::scheme::{
    Algorithm, Answer, Challenge, Encoding, Events, Handshake, KeyForm, NamePart, Part, Place,
    Scheme, SignatureAt, Template, TimeAt, TimeUnit, Tolerance, unseparated,
};
use crate::{RateLimit, SecretRef, Source};

/// The schemes that the others are made of.
const GENERAL: [&str; 7] =
    ["ed25519", "ecdsa-p256", "hmac", "paddle-classic", "standard-webhooks", "token", "twilio"];

/// Those of them that are not one provider's.
const ANY_PROVIDER: [&str; 5] = ["ed25519", "ecdsa-p256", "hmac", "standard-webhooks", "token"];

const CODINGS: [(&str, Coding); 3] =
    [("gzip", Coding::Gzip), ("deflate", Coding::Deflate), ("br", Coding::Brotli)];

/// Named schemes: parameters of a general one, in the language of hookmill.toml.
const NAMED: [(&str, &str); 22] = [
    ("auth0", include_str!("../schemes/auth0.toml")),
    ("clerk", include_str!("../schemes/clerk.toml")),
    ("discord", include_str!("../schemes/discord.toml")),
    ("github", include_str!("../schemes/github.toml")),
    ("hubspot", include_str!("../schemes/hubspot.toml")),
    ("intercom", include_str!("../schemes/intercom.toml")),
    ("lemon-squeezy", include_str!("../schemes/lemon-squeezy.toml")),
    ("linear", include_str!("../schemes/linear.toml")),
    ("mailgun", include_str!("../schemes/mailgun.toml")),
    ("meta", include_str!("../schemes/meta.toml")),
    ("paddle", include_str!("../schemes/paddle.toml")),
    ("resend", include_str!("../schemes/resend.toml")),
    ("sendgrid", include_str!("../schemes/sendgrid.toml")),
    ("shopify", include_str!("../schemes/shopify.toml")),
    ("slack", include_str!("../schemes/slack.toml")),
    ("square", include_str!("../schemes/square.toml")),
    ("stripe", include_str!("../schemes/stripe.toml")),
    ("supabase", include_str!("../schemes/supabase.toml")),
    ("svix", include_str!("../schemes/svix.toml")),
    ("typeform", include_str!("../schemes/typeform.toml")),
    ("zendesk", include_str!("../schemes/zendesk.toml")),
    ("zoom", include_str!("../schemes/zoom.toml")),
];

const ALGORITHMS: [(&str, Algorithm); 3] = [
    ("sha1", Algorithm::HmacSha1),
    ("sha256", Algorithm::HmacSha256),
    ("sha512", Algorithm::HmacSha512),
];

const KEY_FORMS: [(&str, KeyForm); 3] =
    [("text", KeyForm::Text), ("hex", KeyForm::Hex), ("base64", KeyForm::Base64)];

const ENCODINGS: [(&str, Encoding); 2] = [("hex", Encoding::Hex), ("base64", Encoding::Base64)];

const TIME_UNITS: [(&str, TimeUnit); 3] =
    [("s", TimeUnit::Seconds), ("ms", TimeUnit::Milliseconds), ("rfc3339", TimeUnit::Rfc3339)];

/// The longest value of a header whose length a payload may state.
const MAX_HEADER_LENGTH: usize = 256;

/// The names of all schemes.
pub fn scheme_names() -> impl Iterator<Item = &'static str> {
    NAMED.iter().map(|(name, _)| *name).chain(GENERAL)
}

keys! {
    /// A source of webhooks.
    pub struct SourceKeys {
        /// The signature scheme: a provider's name, or a general scheme with parameters: `hmac`, `ed25519`, `ecdsa-p256`, `token`,
        /// `standard-webhooks`. A parameter overrides the provider's own.
        scheme: Located<String> =
            scheme_name().located().required("add the signature scheme: scheme = \"stripe\"").example("\"stripe\""),
        /// The names of one to eight secrets or public keys: environment variables, or a Worker's secrets. For `ed25519` and
        /// `ecdsa-p256`, the sender's public key, the latter as base64 of DER or PEM; for `standard-webhooks`, `whsec_…` or `whpk_…`. A signature by any secret
        /// that is set is valid. To rotate, list the new secret beside the old one. A secret with `not_after` expires at that time: `{ name = "env:NAME", not_after = 2036-01-31T00:00:00Z }`.
        secrets: Option<Vec<SecretRef>> =
            secrets().expected("add the names of its secrets: secrets = [\"env:STRIPE_WEBHOOK_SECRET\"]")
                .example("[\"env:STRIPE_WEBHOOK_SECRET\", \"env:STRIPE_WEBHOOK_SECRET_NEXT\"]"),
        signing: SigningKeys = flatten(),
        /// The name of the secret with the token that you gave the provider for its `challenge`, such as Meta's verify token. Without
        /// it, Hookmill answers the challenge of anyone; events are signed all the same.
        challenge_token: Option<Located<String>> =
            secret("env:META_VERIFY_TOKEN").located().optional().example("\"env:META_VERIFY_TOKEN\""),
        /// Rules that come with Hookmill for this provider.
        preset: Option<Located<Preset>> =
            choice(PRESETS.map(|preset| (preset.name, preset)).to_vec()).located().optional().example("\"stripe\""),
        /// What to do with an event that no rule matches: add it to the ledger (`record`), discard it without a trace (`ignore`), or
        /// make it a dead letter (`dead_letter`).
        unmatched: Unmatched = choice(Unmatched::ALL.to_vec()).default("\"record\""),
        /// The parts of a body to hide, in addition to the signature. Paths: names separated by `.`, `*` for any name, `**` for any
        /// number of names.
        redact: Vec<Redaction> =
            list(parsed(REDACTION, str::parse::<Redaction>).with(json!({ "minLength": 1 })), "a list of paths such as \"data.object.email\"")
                .default("[]").example("[\"data.first_name\", \"**.email_address\"]"),
        /// A rate limit: requests over the limit get 429. On Cloudflare it needs a binding in ingress/worker/wrangler.toml.
        rate_limit: Option<RateLimit> =
            table("a table: { requests = 1000, per = \"10s\" }").optional().defaults_to("no limit").example("{ requests = 1000, per = \"10s\" }"),
        /// The API of Stripe, Clerk or Paddle. Hookmill fetches an object from there if two of its events have the same version, or
        /// if an event has only a part of a list; and `hookmill import` loads all objects.
        api: Option<ObjectsApiKeys> =
            table("a table: { key = \"env:STRIPE_API_KEY\" }").optional().example("{ key = \"env:STRIPE_API_KEY\" }"),
        /// How often Hookmill reads the log of events in the API of Stripe or Paddle, and applies those that were never delivered.
        /// See docs/complete.md.
        sweep: Option<Located<Duration>> =
            duration(seconds(300)..=days(1)).located().optional().example("\"1h\""),
        /// How often Hookmill compares the tables with the first 1,000 objects of each list of the API of Stripe, Clerk or Paddle.
        /// The alert `drift` reports differences. See docs/complete.md.
        reconcile: Option<Located<Duration>> =
            duration(seconds(3600)..=days(30)).located().optional().example("\"1d\""),
        /// The versions of the provider's API that your rules are made for. Hookmill applies events of other versions as well, and
        /// warns about them in the log, in the metrics and in the dashboard. For Stripe, Shopify, Twilio and Zendesk, and for sources
        /// whose `event` has an `api_version`.
        api_version: Option<Located<Vec<String>>> =
            api_versions().located().optional().example("[\"2025-03-31.basil\"]"),
    }
}

keys! {
    /// The API of a source's provider.
    pub struct ObjectsApiKeys {
        /// The name of the secret with the API key.
        key: Option<String> =
            secret("env:STRIPE_API_KEY").optional()
                .defaults_to("`env:STRIPE_API_KEY`, `env:CLERK_API_KEY` or `env:PADDLE_API_KEY`")
                .example("\"env:STRIPE_API_KEY\""),
        /// The maximum requests per second.
        rate: Option<u32> =
            whole(1..=10_000).optional().defaults_to("20 for Stripe, 10 for Clerk, 4 for Paddle").example("10"),
        /// The base URL.
        url: Option<String> =
            crate::channels::keys::api_url().optional().defaults_to("the provider's own")
                .example("\"https://sandbox-api.paddle.com\""),
    }
}

keys! {
    /// How requests are signed, and where they contain events. The file of a named scheme has these keys too.
    pub struct SigningKeys {
        /// The maximum age of a signature, if the scheme signs a time.
        tolerance: Option<Duration> =
            tolerance().optional().defaults_to("the scheme's, mostly 5 minutes").example("\"5m\""),
        /// How far in the future a signed time may be.
        future_tolerance: Option<Duration> =
            tolerance().optional().defaults_to("5 minutes; 1 minute for Linear").example("\"5m\""),
        /// The URL as registered with the provider, without a query; Hookmill appends the query of the request. Required if the scheme signs
        /// it: `hubspot`, `square`, `twilio`, and `payload` with `{url}` or `{plain_url}`.
        public_url: Option<Located<String>> =
            public_url().located().optional().example("\"https://hooks.example.com/webhooks/twilio\""),
        /// The response once the events are queued.
        response: Option<ResponseKeys> =
            table("a table: { content_type = \"text/xml\", body = \"<Response/>\" }").optional()
                .defaults_to("the number of events, as JSON")
                .example("{ content_type = \"text/xml\", body = \"<Response/>\" }"),
        /// For `hmac`: the hash function.
        algorithm: Option<Algorithm> =
            choice(ALGORITHMS.to_vec()).optional().defaults_to_value("\"sha256\""),
        /// For `hmac` and `ed25519`: the encoding of the key. `text` means as it is.
        key: Option<KeyForm> =
            choice(KEY_FORMS.to_vec()).optional()
                .defaults_to("`text` for an HMAC, `hex` for Ed25519").example("\"base64\""),
        /// The place of the signature; for `token`, the place of the token. Required for `hmac`, `ed25519`, `ecdsa-p256` and `token`.
        signature: Option<Located<SignatureKeys>> =
            table("a table: { header = \"X-Signature\", encoding = \"hex\" }").located().optional()
                .example("{ header = \"X-Hub-Signature-256\", prefix = \"sha256=\", encoding = \"hex\" }"),
        /// For `hmac`, `ed25519` and `ecdsa-p256`: the place of the signed time, if the scheme signs one.
        timestamp: Option<Located<TimestampKeys>> =
            table("a table: { header = \"X-Timestamp\" }").located().optional()
                .example("{ header = \"X-Slack-Request-Timestamp\" }"),
        /// The signed text. Required for `hmac`, `ed25519` and `ecdsa-p256`. `{body}`, `{timestamp}`, `{method}`, `{url}`, `{plain_url}` (with
        /// the escapes of `:/?@!$'()*,;` undone, for HubSpot), `{header:NAME}`, `{header:NAME:LENGTH}` for a header with a fixed
        /// number of bytes, `{body:PATH}`, and literal characters.
        payload: Option<Located<String>> =
            text("a text such as \"{timestamp}.{body}\"").located().optional().example("\"{timestamp}.{body}\""),
        /// The places of an event's id and type. Required for `hmac`, `ed25519`, `ecdsa-p256` and `token`; optional for `standard-webhooks`,
        /// whose type is at `type`. Ids and types have at most 256 bytes; a hash takes 33 of an id.
        event: Option<Located<EventKeys>> =
            table("a table: { id = \"id\", type = \"type\" }").located().optional()
                .example("{ id = \"header:X-GitHub-Delivery\", type = \"action\" }"),
        /// Signed requests that are not events, and the responses to them. Not for `standard-webhooks`.
        handshake: Option<Vec<HandshakeKeys>> =
            list(table("a table: { when = { type = \"url_verification\" }, echo = \"challenge\" }"), "a list")
                .optional().example("[{ when = { type = \"url_verification\" }, echo = \"challenge\" }]"),
        /// The unsigned request by which the provider checks the URL before it sends events.
        challenge: Option<Located<ChallengeKeys>> =
            table("a table: { when = { \"hub.mode\" = \"subscribe\" }, echo = \"hub.challenge\" }").located().optional()
                .example("{ when = { \"hub.mode\" = \"subscribe\" }, echo = \"hub.challenge\" }"),
        /// Headers that events keep, for paths such as `header:X-Shopify-Triggered-At` in rules: at most 16, and 1,024 bytes of each,
        /// where U+FFFD stands for the rest and for bytes that are no text. The
        /// signature does not cover them, unless the provider signs them.
        keep_headers: Option<Vec<String>> =
            kept_headers().optional().defaults_to("the scheme's, mostly none").example("[\"X-Shopify-Triggered-At\"]"),
        /// The codings of bodies to accept (`Content-Encoding`). The signature must cover the body before its compression. A request
        /// with another coding gets 415.
        compression: Option<Vec<Coding>> =
            list(choice(CODINGS.to_vec()), "a list: [\"gzip\"]").optional()
                .defaults_to("`[\"gzip\", \"deflate\", \"br\"]` for general schemes, `[]` for providers").example("[\"gzip\"]"),
        /// For `standard-webhooks` and the schemes made of it: the header prefixes. Hookmill uses the first one found.
        families: Option<Vec<String>> =
            list(text(FAMILIES), FAMILIES).not_empty("the list is empty", format!("expected {FAMILIES}")).optional()
                .defaults_to_value("[\"svix\", \"webhook\"]"),
        /// For `standard-webhooks` and the schemes made of it, such as `svix`: whether a secret may be a public key, `whpk_…` (Ed25519).
        asymmetric: Option<bool> = boolean().optional().defaults_to_value("false"),
    }
}

keys! {
    /// A response.
    pub struct ResponseKeys {
        /// The status. Providers retry on any other.
        status: u16 = whole(200..=299).default("200"),
        /// The header `Content-Type`.
        content_type: String = content_type().default("\"text/plain\"").example("\"text/xml\""),
        /// The body.
        body: String = text("a text").default("\"\""),
    }
    check |keys, section| {
        if let Some(body) = section.at("body").filter(|_| keys.status == 204) {
            section.report(body.error("a response with status 204 cannot have a body; remove `body`"));
        }
    };
}

keys! {
    /// The place of the signature.
    pub struct SignatureKeys {
        /// The name of the header, or a list of alternative names. A request must have one of them. Set either `header` or `body`.
        header: Option<Located<Vec<String>>> = headers().located().optional().example("\"X-Hub-Signature-256\""),
        /// The path in the body.
        body: Option<PlainPath> = body_path().optional().example("\"signature.signature\""),
        /// A prefix; in a list without `key`, the prefix of each signature. Not allowed with `key`.
        prefix: Option<Located<String>> = text("a prefix").located().optional().example("\"sha256=\""),
        /// The encoding: `hex` in lower case, or `base64` with padding. Required except for `token`, which has none.
        encoding: Option<Encoding> = choice(ENCODINGS.to_vec()).or(Encoding::Hex).optional().example("\"hex\""),
        /// The separator of a header that is a list, such as `t=1,v1=ab`. Hookmill tries up to eight signatures. Blanks after the
        /// separator are only supported without `key`.
        list: Option<char> = separator().optional().example("\",\""),
        /// The key of the signatures in that list. Without it, each member is a signature.
        key: Option<String> = text("a key in the signature's list").optional().example("\"v1\""),
    }
    present |section| {
        one_place(section, &["header", "body"]);
        if let (None, Some(key)) = (section.at("list"), section.at("key")) {
            section.report(
                key.error("`key` needs `list`; the key of the HMAC is the source's `key`"),
            );
        }
    };
    check |keys, section| {
        if let (Some(prefix), Some(_)) = (&keys.prefix, section.at("key")) {
            section.report(prefix.error("a list with `key` cannot have a `prefix`; remove it"));
        }
        if let (Some(prefix), Some(_)) = (&keys.prefix, &keys.header)
            && prefix.value.starts_with(char::is_whitespace)
        {
            section.report(
                prefix.error("a header value cannot begin with whitespace; remove it from `prefix`"),
            );
        }
    };
    schema {
        "if": true, "then": { "oneOf": [{ "required": ["header"] }, { "required": ["body"] }] },
        "dependentRequired": { "key": ["list"] },
    };
}

keys! {
    /// The place of the signed time.
    pub struct TimestampKeys {
        /// The name of the header, or a list of alternative names. A request must have one of them. Set one of `header`, `body` and `list`.
        header: Option<Vec<String>> = headers().optional().example("\"X-Slack-Request-Timestamp\""),
        /// The path in the body.
        body: Option<PlainPath> = body_path().optional().example("\"signature.timestamp\""),
        /// The key in the signature's list.
        list: Option<String> = text("a key in the signature's list").optional().example("\"t\""),
        /// `s`: seconds since 1970, in 10 digits; `ms`: milliseconds, in 13; `rfc3339`: a date and time.
        unit: TimeUnit = choice(TIME_UNITS.to_vec()).default("\"s\""),
        /// With `body`: whether the time must be a JSON number, and not a text.
        number: Option<bool> = boolean().optional().defaults_to_value("false"),
    }
    present |section| {
        one_place(section, &["header", "body", "list"]);
        if let (Some(number), None) = (section.at("number"), section.at("body")) {
            section.report(number.error("`number` needs `body`; remove it"));
        }
    };
    schema {
        "if": true,
        "then": { "oneOf": [{ "required": ["header"] }, { "required": ["body"] }, { "required": ["list"] }] },
    };
}

keys! {
    /// The places of an event's id and type.
    pub struct EventKeys {
        /// The id: a path in the body, `header:X-Name`, `hash:body`, or `hash:signed`, the hash of the signed bytes. A list joins
        /// all values with periods, and a period in a value becomes `%2E`; all must exist. A list inside the list has alternatives: the first that exists. Required except for
        /// `standard-webhooks`, which sends it in a header.
        id: Option<Vec<Name>> = names().optional().example("\"header:X-GitHub-Delivery\""),
        /// The type: a path in the body, or `header:X-Name`. A list joins the values that exist; the first must exist. A list inside the
        /// list has alternatives: the first that exists.
        r#type: Located<Vec<Name>> =
            names().located().required("add the place of the type: type = \"type\", or \"header:X-Type\"").example("\"type\""),
        /// The type of an event without one. Without a default, Hookmill rejects such an event.
        default: Option<String> =
            text("a type").with(json!({ "minLength": 1 })).and_then(|item, text| {
                if text.is_empty() {
                    item.report(item.here.error("the type is blank; set it or remove it"));
                }
                Some(text)
            })
            .optional().example("\"unknown\""),
        /// Whether a body contains many events, as a list or as lines: at most 10,000. Not allowed if the body contains the
        /// signature or the token, or for `standard-webhooks`. The id of an event without one is the hash of its text.
        many: Option<bool> = boolean().optional().defaults_to_value("false"),
        /// Whether to combine an unsigned id with a hash of the body. Use `false` only for a provider whose attempts differ in their
        /// bodies. Not for `standard-webhooks`.
        hash: Option<bool> = boolean().optional().defaults_to_value("true"),
        /// Whether the body must be a JSON object. Use `true` if id and type are in headers and the provider signs other requests with
        /// the same secret, as Shopify does. Not with `many`.
        object: Option<bool> = boolean().optional().defaults_to_value("false"),
        /// The API version, if the provider states it: a path in the body, or `header:X-Name`. A list has alternatives: the first that
        /// exists. Hookmill counts events by version.
        api_version: Option<Located<Name>> =
            first_of().located().optional().example("\"header:X-Shopify-API-Version\""),
    }
    check |keys, section| {
        if let Some(version) = keys.api_version.as_ref().filter(|version| version.value.is_hash()) {
            section.report(version.error("a hash is not a version; remove it, or add its place"));
        }
        if let (Some(true), Some(true), Some(here)) = (keys.many, keys.object, section.at("object")) {
            section.report(here.error("a body with many events is not an object; remove `object`"));
        }
        if keys.r#type.value.iter().any(Name::is_hash) {
            section.report(keys.r#type.error("a hash cannot be the type, since no rule could match it"));
        }
    };
}

/// A part of an event's id or type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Name {
    /// `header:X-Name`.
    Header(String),
    /// `hash:body`.
    BodyHash,
    /// `hash:signed`.
    SignedHash,
    /// A path in the body.
    Body(PlainPath),
    /// The first of these that exists.
    Either(Vec<Name>),
}

impl Name {
    /// Whether it is a hash, or may be one.
    fn is_hash(&self) -> bool {
        match self {
            Self::BodyHash | Self::SignedHash => true,
            Self::Header(_) | Self::Body(_) => false,
            Self::Either(names) => names.iter().any(Self::is_hash),
        }
    }
}

keys! {
    /// A signed request that is not an event, and the response to it.
    pub struct HandshakeKeys {
        /// Paths in the body of such a request, and their values.
        when: Vec<(Located<String>, Option<Value>)> =
            all_members(scalar(), HANDSHAKE).required(HANDSHAKE).example("{ type = \"url_verification\" }"),
        /// A path that must not exist.
        unless: Option<PlainPath> = body_path().optional().example("\"event\""),
        /// A path whose text is the response, instead of `body`.
        echo: Option<PlainPath> = body_path().optional().example("\"challenge\""),
        /// The members of a JSON object that is the response: texts in which `{echo}` stands for the text of `echo`, and `{hmac}` for its
        /// HMAC with the source's key, in the encoding of the signature.
        json: Option<Vec<(Located<String>, Located<String>)>> =
            answer_members().optional().example("{ plainToken = \"{echo}\", encryptedToken = \"{hmac}\" }"),
        response: ResponseKeys = flatten(),
    }
    check |keys, section| {
        if let Some(json) = section.at("json") {
            if keys.echo.is_none() {
                section.report(json.error("`json` needs `echo`, the path of the text to answer with"));
            }
            if let Some(here) = section.at("content_type") {
                section.report(here.error("`json` is `application/json`; remove `content_type`"));
            }
        }
        check_placeholders(keys.json.as_deref(), &["{echo}", "{hmac}"], section);
        if let Some(body) = section.at("body").filter(|_| keys.echo.is_some()) {
            section.report(body.error("`body` and `echo` exclude each other; remove one of them"));
        }
        for (name, _) in &keys.when {
            if let Err(error) = name.value.parse::<PlainPath>() {
                section.report(name.error(error.to_string()));
            }
        }
    };
    schema {
        "not": { "anyOf": [{ "required": ["echo", "body"] }, { "required": ["json", "content_type"] }] },
        "dependentRequired": { "json": ["echo"] },
    };
}

keys! {
    /// An unsigned request by which a provider checks the URL, and the response to it.
    pub struct ChallengeKeys {
        /// Parameters of the query of such a request, and their values.
        when: Vec<(Located<String>, Located<String>)> =
            members(text("the value of the parameter").located(), "a table: { \"hub.mode\" = \"subscribe\" }")
                .default("{}").example("{ \"hub.mode\" = \"subscribe\" }"),
        /// The parameter whose value is the response: at most 1,024 printable ASCII characters.
        echo: String = parameter().required("add the parameter: echo = \"hub.challenge\"").example("\"hub.challenge\""),
        /// The parameter with the token that `challenge_token` names.
        token: Option<String> = parameter().optional().example("\"hub.verify_token\""),
        /// The method of the request.
        method: &'static str = choice(vec![("GET", "GET"), ("POST", "POST")]).default("\"GET\""),
        /// The members of a JSON object that is the response, instead of the text: texts in which `{echo}` stands for the value.
        json: Option<Vec<(Located<String>, Located<String>)>> =
            answer_members().optional().example("{ \"hub.challenge\" = \"{echo}\" }"),
    }
    check |keys, section| {
        // Anyone may send a challenge, so its answer must prove nothing: with `{hmac}` it would sign any text.
        check_placeholders(keys.json.as_deref(), &["{echo}"], section);
    };
}

fn parameter() -> Kind<String> {
    text("the name of a parameter").with(json!({ "minLength": 1 })).and_then(|item, text| {
        if text.is_empty() {
            item.report(item.here.error("the name is blank"));
        }
        Some(text)
    })
}

fn answer_members() -> Kind<Vec<(Located<String>, Located<String>)>> {
    members(text("a text with `{echo}`").located(), "a table: { challenge = \"{echo}\" }")
}

/// Reports placeholders that a response does not have.
fn check_placeholders(
    members: Option<&[(Located<String>, Located<String>)]>,
    known: &[&str],
    section: &Section<'_>,
) {
    for (_, text) in members.unwrap_or_default() {
        let rest = known.iter().fold(text.value.clone(), |rest, name| rest.replace(name, ""));
        if rest.contains(['{', '}']) {
            let problem = text.error("unknown placeholder");
            section.report(problem.hint(format!("possible here: {}", known.join(", "))));
        }
    }
}

const REDACTION: &str =
    "a path with names separated by `.`, such as `data.object.email`, `lines.*.name` or `**.email`";
const SECRET_NAMES: &str = "a list of names such as \"env:STRIPE_WEBHOOK_SECRET\"";
const FAMILIES: &str = "a list of header prefixes, such as [\"svix\", \"webhook\"]";
const HANDSHAKE: &str = "a table of members of such a request: { type = \"url_verification\" }";

fn scheme_name() -> Kind<String> {
    text("the name of a scheme").with(json!({ "enum": scheme_names().collect::<Vec<_>>() })).and_then(|item, name| {
        if name == "paypal" {
            let problem = "PayPal signs with a certificate that the recipient must fetch; Hookmill does not support this";
            item.report(item.here.error(problem).hint(
                "verify PayPal's events in your own service (POST /v1/notifications/verify-webhook-signature)",
            ));
            return None;
        }
        let known = scheme_names().any(|known| known == name);
        if !known {
            let problem = item.here.error(format!("found {name:?}"));
            item.report(problem.suggest(&name, scheme_names()));
        }
        known.then_some(name)
    })
}

fn secrets() -> Kind<Vec<SecretRef>> {
    let plain = secret("env:STRIPE_WEBHOOK_SECRET")
        .with(json!({ "description": "The name of a secret." }))
        .map(|name| SecretRef { name: SecretName(name), not_after: None });
    list(table_or(table(SECRET_NAMES), plain).located(), SECRET_NAMES)
        .not_empty("the list of secrets is empty", format!("expected {SECRET_NAMES}"))
        .with(json!({ "maxItems": SECRETS }))
        .and_then(|item, secrets| {
            let mut names: Vec<SecretRef> = Vec::new();
            for secret in secrets {
                if names.iter().any(|other| other.name == secret.value.name) {
                    let name = &secret.value.name.0;
                    item.report(secret.error(format!("env:{name} is listed twice")));
                } else {
                    names.push(secret.value);
                }
            }
            if names.len() > SECRETS {
                let problem = item.here.error(format!("{} secrets are listed", names.len()));
                item.report(problem.hint(format!("use at most {SECRETS}")));
            }
            Some(names)
        })
}

fn tolerance() -> Kind<Duration> {
    duration(seconds(1)..=days(1))
}

fn public_url() -> Kind<String> {
    let expected = "a URL such as \"https://hooks.example.com/webhooks/twilio\"";
    text(expected).and_then(move |item, text| {
        let host = text.strip_prefix("https://").or(text.strip_prefix("http://"));
        let fault = if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            Some("is not a URL")
        } else if text.contains(['?', '#']) {
            Some("has a query or a fragment; remove it: Hookmill takes the query from each request")
        } else if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            Some("contains whitespace")
        } else {
            None
        };
        if let Some(fault) = fault {
            let problem = item.here.error(format!("{text:?} {fault}"));
            item.report(problem.hint(format!("expected {expected}")));
        }
        fault.is_none().then_some(text)
    })
}

/// The error of a name that no header can have: <https://www.rfc-editor.org/rfc/rfc9110#name-tokens>.
fn header_fault(name: &str) -> Option<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let fits = !name.is_empty() && name.bytes().all(token);
    (!fits).then(|| format!("{name:?} is not a valid header name"))
}

fn header() -> Kind<String> {
    text("the name of a header").and_then(|item, name| {
        if let Some(fault) = header_fault(&name) {
            item.report(item.here.error(fault));
        }
        Some(name)
    })
}

fn headers() -> Kind<Vec<String>> {
    const EXPECTED: &str = "the name of a header, or a list of names";
    one_or_many(header(), EXPECTED).not_empty("no header is given", format!("expected {EXPECTED}"))
}

/// Names of headers, in lower case. A message must not contain a secret.
fn kept_headers() -> Kind<Vec<String>> {
    const SECRET: [&str; 5] = ["authorization", "cookie", "signature", "token", "secret"];
    headers().and_then(|item, names| {
        let names: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        if let Some(name) = names.iter().find(|name| SECRET.iter().any(|word| name.contains(word)))
        {
            let error = item.here.error(format!("{name:?} may contain a secret"));
            item.report(error.hint("remove it; messages and the admin API would show it"));
        }
        if names.len() > MAX_KEPT_HEADERS {
            let error = item.here.error(format!("found {} headers", names.len()));
            item.report(error.hint(format!("expected at most {MAX_KEPT_HEADERS}")));
        }
        Some(names)
    })
}

/// A message has little room.
const MAX_KEPT_HEADERS: usize = 16;

fn api_versions() -> Kind<Vec<String>> {
    const EXPECTED: &str = "a version, or a list of versions";
    let version = text("a version such as \"2025-03-31.basil\"").and_then(|item, text| {
        if !api_version::is_valid(&text) {
            let problem = item.here.error(format!("{text:?} is not an API version"));
            item.report(problem.hint(format!(
                "a version has letters, digits and `.`, `_`, `-`, `+`, `:`, `/`, at most {}; `{}` counts invalid versions",
                api_version::LENGTH,
                api_version::OTHER
            )));
        }
        Some(text)
    });
    one_or_many(version, EXPECTED).not_empty("no version is given", format!("expected {EXPECTED}"))
}

fn body_path() -> Kind<PlainPath> {
    parsed("a path in the body, such as \"signature.timestamp\"", str::parse::<PlainPath>)
        .with(json!({ "minLength": 1 }))
}

fn content_type() -> Kind<String> {
    text("such as \"text/xml\"").and_then(|item, text| {
        if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            item.report(item.here.error("a header can contain only ASCII characters"));
        }
        Some(text)
    })
}

fn separator() -> Kind<char> {
    parsed("one character, such as \",\"", |text| {
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some('='), None) => Err("`=` separates keys from values"),
            (Some(separator), None) => Ok(separator),
            _ => Err("not a single character"),
        }
    })
    .with(json!({ "minLength": 1, "maxLength": 1 }))
}

/// Reports a table that does not have exactly one of these keys.
fn one_place(section: &Section<'_>, keys: &[&str]) {
    if keys.iter().filter(|key| section.at(key).is_some()).count() != 1 {
        let examples = ["header = \"X-Name\"", "body = \"a.path\"", "list = \"t\""];
        let hint = format!("add one of {}", examples[..keys.len()].join(", "));
        section.report(section.here.error("expected exactly one place").hint(hint));
    }
}

const NAMES: &str = "a path such as \"data.id\", \"header:X-Name\", \"hash:body\", \"hash:signed\", or a list of these";

fn names() -> Kind<Vec<Name>> {
    let is_one: fn(&Item<'_>) -> bool = |item| !item.is_list();
    let parts = list(first_of(), NAMES);
    // An error has been reported.
    let one = name().map(|name| vec![name]).or(Vec::new());
    either(is_one, one, parts).not_empty("no path is given", format!("expected {NAMES}"))
}

/// A path, or a list of them: the first that exists.
fn first_of() -> Kind<Name> {
    let alternatives =
        list(name(), NAMES).not_empty("no path is given", format!("expected {NAMES}"));
    let alternatives = alternatives.and_then(|_, mut names| match names.len() {
        0 | 1 => names.pop(),
        _ => Some(Name::Either(names)),
    });
    let is_list: fn(&Item<'_>) -> bool = |item| item.is_list();
    either(is_list, alternatives, name())
}

fn name() -> Kind<Name> {
    let path = parsed(NAMES, str::parse::<PlainPath>);
    text(NAMES).with(json!({ "minLength": 1 })).and_then(move |item, text| {
        if let Some(header) = text.strip_prefix("header:") {
            if let Some(fault) = header_fault(header) {
                item.report(item.here.error(fault));
            }
            return Some(Name::Header(header.to_owned()));
        }
        match text.as_str() {
            "hash:body" => return Some(Name::BodyHash),
            "hash:signed" => return Some(Name::SignedHash),
            _ => {}
        }
        if text.starts_with(|c: char| c.is_ascii_uppercase()) && text.contains('-') {
            let problem = item.here.error(format!("found {text:?}, a path in the body"));
            item.report(problem.hint(format!(
                "for a header: \"header:{text}\"; for a path in the body: '[\"{text}\"]'"
            )));
            return None;
        }
        path.read(item).map(Name::Body)
    })
}

/// A source as read.
pub(crate) struct SourceDecl {
    /// What ingress needs of it, unless its scheme has errors.
    pub(crate) source: Option<Source>,
    pub(crate) preset: Option<Located<&'static str>>,
    pub(crate) unmatched: Unmatched,
    pub(crate) redact: Vec<Redaction>,
    pub(crate) api: Option<Api>,
    /// The time between two sweeps.
    pub(crate) sweep: Option<Duration>,
    /// The time between two reconciliations.
    pub(crate) reconcile: Option<Duration>,
    /// The expected API versions, if they are configured.
    pub(crate) api_versions: Option<Vec<String>>,
}

/// Reads a source.
pub(crate) fn source(name: &str, item: &Item<'_>) -> Option<SourceDecl> {
    let section = item.section("a table")?;
    let scheme = section.get("scheme").filter(Item::is_string).and_then(|item| item.string(""));
    let named = NAMED.iter().find(|(named, _)| Some(*named) == scheme.as_deref());
    let file = format!("schemes/{}.toml", scheme.as_deref().unwrap_or_default());
    let document = Document::new(&file, named.map_or("", |(_, text)| text));
    let table = document.parse();
    let behind = document.root(&table);
    let general = behind.get("scheme").and_then(|item| item.string("the name of a scheme"));
    let general = general.or(scheme).unwrap_or_default();
    let section = section.over(named.map(|_| &behind));
    let keys = SourceKeys::read(&section);
    let source = keys.map(|keys| keys.source(name, &general, &section));
    section.finish();
    behind.finish();
    document.into_errors().into_iter().for_each(|error| item.report(error));
    source
}

/// A source's signatures and events.
struct Signing {
    scheme: Scheme,
    tolerance: Option<Tolerance>,
    events: Events,
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

impl SourceKeys {
    fn source(self, name: &str, general: &str, section: &Section<'_>) -> SourceDecl {
        let Self {
            scheme,
            secrets,
            preset,
            rate_limit,
            unmatched,
            mut redact,
            api,
            sweep,
            reconcile,
            api_version,
            signing,
            challenge_token,
        } = self;
        if let Some(preset) = &preset
            && !preset.value.schemes.contains(&scheme.value.as_str())
        {
            let needed: Vec<_> =
                preset.value.schemes.iter().map(|name| format!("{name:?}")).collect();
            let problem =
                preset.error(format!("this preset does not support the scheme {:?}", scheme.value));
            section.report(problem.hint(format!("scheme = {}", needed.join(" or "))));
        }
        let preset = preset.map(|preset| preset.map(|preset| preset.name));
        let named = preset.iter().map(|preset| preset.value).chain([scheme.value.as_str()]);
        let provider = named.into_iter().find_map(api::provider);
        if let (Some(here), None) = (section.at("api"), provider) {
            let problem = here.error("Hookmill cannot fetch objects from this provider's API");
            section
                .report(problem.hint("remove `api`; it is supported for Stripe, Clerk and Paddle"));
        }
        let api = api.zip(provider).map(|(keys, provider)| {
            ApiKeys { key: keys.key, rate: keys.rate, url: keys.url }.api(provider)
        });
        check_reading(section, provider, sweep.as_ref(), reconcile.as_ref());
        let public_url = signing.public_url.as_ref().map(|url| url.value.clone());
        let answer = signing.response.as_ref().map(ResponseKeys::answer);
        let challenge = signing.challenge.as_ref().map(|keys| keys.value.challenge());
        let takes_token = challenge.as_ref().is_some_and(|challenge| challenge.token.is_some());
        if let Some(token) = challenge_token.as_ref().filter(|_| !takes_token) {
            let problem = token.error("the source has no `challenge` with a token");
            section
                .report(problem.hint(
                    "remove it, or add `token` to `challenge`, the parameter with the token",
                ));
        }
        let any_provider = ANY_PROVIDER.contains(&scheme.value.as_str());
        let keep_headers = signing.keep_headers.clone().unwrap_or_default();
        let compression = signing.compression.clone();
        let all = if any_provider { &CODINGS[..] } else { &[] };
        let compression =
            compression.unwrap_or_else(|| all.iter().map(|(_, coding)| *coding).collect());
        let signing = signing.signing(&scheme, general, section);
        if let (Some(here), Some(signing)) = (section.at("unmatched"), &signing)
            && unmatched == Unmatched::Ignore
            && signing.scheme.leaves_body_open()
        {
            let problem = here.error(
                "the signature does not cover the body and an ignored event is not recorded, so an attacker could reuse the signature for another event",
            );
            section.report(problem.hint("use \"record\" or \"dead_letter\""));
        }
        if let (Some(versions), Some(signing)) = (&api_version, &signing)
            && signing.events.api_version.is_none()
        {
            let problem = versions.error(
                "Hookmill does not know where events of this source state their API version",
            );
            section.report(problem.hint(
                "add the place to `event`: event = { …, api_version = \"header:X-Api-Version\" }; or remove `api_version`",
            ));
        }
        redact.extend(signing.iter().flat_map(Signing::proofs));
        let source = signing.map(|signing| Source {
            name: name.to_owned(),
            scheme_name: scheme.value,
            scheme: signing.scheme,
            secrets: secrets.unwrap_or_default(),
            tolerance: signing.tolerance,
            public_url,
            events: signing.events,
            answer,
            challenge,
            challenge_token: challenge_token.map(|name| SecretName(name.value)),
            compression,
            keep_headers,
            rate_limit,
        });
        let api_versions = api_version.map(|versions| versions.value);
        let sweep = sweep.map(|sweep| sweep.value);
        let reconcile = reconcile.map(|reconcile| reconcile.value);
        SourceDecl { source, preset, unmatched, redact, api, sweep, reconcile, api_versions }
    }
}

/// The keys that describe a signature, and the general schemes that have them.
pub(crate) const PARAMETERS: [(&str, &[&str]); 9] = [
    ("algorithm", &["hmac"]),
    ("key", &["hmac", "ed25519"]),
    ("signature", &["hmac", "ed25519", "ecdsa-p256", "token"]),
    ("timestamp", &["hmac", "ed25519", "ecdsa-p256", "token"]),
    ("payload", &["hmac", "ed25519", "ecdsa-p256"]),
    ("event", &["hmac", "ed25519", "ecdsa-p256", "token", "standard-webhooks"]),
    ("handshake", &["hmac", "ed25519", "ecdsa-p256", "token"]),
    ("families", &["standard-webhooks"]),
    ("asymmetric", &["standard-webhooks"]),
];

impl SigningKeys {
    fn signing(
        self,
        name: &Located<String>,
        general: &str,
        section: &Section<'_>,
    ) -> Option<Signing> {
        for (key, schemes) in PARAMETERS {
            if let Some(here) = section.at(key).filter(|_| !schemes.contains(&general)) {
                let problem =
                    here.error(format!("`{key}` does not apply to the scheme {:?}", name.value));
                section.report(problem.hint(format!("remove `{key}`")));
            }
        }
        let url = self.public_url.clone();
        let within = (self.tolerance, self.future_tolerance);
        let (scheme, events) = match general {
            "twilio" => (Scheme::Twilio, twilio_events()),
            "paddle-classic" => (Scheme::PaddleClassic, Events::none()),
            "standard-webhooks" => self.standard_webhooks(section),
            _ => self.template(general, section)?,
        };
        let signs_time = match &scheme {
            Scheme::Template(template) => template.timestamp.is_some(),
            Scheme::StandardWebhooks { .. } => true,
            Scheme::Twilio | Scheme::PaddleClassic => false,
        };
        for key in ["tolerance", "future_tolerance"] {
            // The scheme's own tolerance means nothing if the source took the time away.
            if let Some(here) = section.at(key).filter(|_| !signs_time) {
                let problem = format!("the scheme {:?} does not sign a time", name.value);
                section.report(here.error(problem));
            }
        }
        let (past, future) = within;
        let usual = seconds(300);
        let tolerance = signs_time
            .then_some(Tolerance { past: past.unwrap_or(usual), future: future.unwrap_or(usual) });
        if scheme.signs_url() && section.get("public_url").is_none() {
            let problem = name.error("this scheme signs the URL and needs `public_url`");
            section.report(problem.hint(
                "add the URL exactly as registered with the provider: public_url = \"https://hooks.example.com/webhooks/…\"",
            ));
        }
        if let Some(url) = url.filter(|_| !scheme.signs_url()) {
            let problem = format!("the scheme {:?} does not sign the URL", name.value);
            section.report(url.error(problem));
        }
        Some(Signing { scheme, tolerance, events })
    }

    fn standard_webhooks(self, section: &Section<'_>) -> (Scheme, Events) {
        let usual = || vec!["svix".to_owned(), "webhook".to_owned()];
        let scheme = Scheme::StandardWebhooks {
            families: self.families.unwrap_or_else(usual),
            asymmetric: self.asymmetric.unwrap_or_default(),
        };
        let mut events = Events::none();
        match self.event {
            Some(event) => {
                // The scheme signs the id, and its hash makes the id of one event.
                let of_id = event.value.id.is_some()
                    || event.value.many.is_some()
                    || event.value.hash.is_some();
                if of_id {
                    let problem =
                        event.error("Standard Webhooks sends the id of an event in a header");
                    section.report(problem.hint("remove `id`, `many` and `hash`"));
                }
                event.value.describe(&mut events);
            }
            None => events.kind = vec![body_part(&mut events.reads, &path_of("type"))],
        }
        (scheme, events)
    }

    fn template(self, general: &str, section: &Section<'_>) -> Option<(Scheme, Events)> {
        let missing = |key: &'static str, hint: &str| {
            if section.get(key).is_none() {
                let missing = section.here.error(format!("`{key}` is missing"));
                section.report_consequence(missing.hint(hint));
            }
        };
        missing(
            "event",
            "add the places of the event's id and type: event = { id = \"id\", type = \"type\" }",
        );
        missing(
            "signature",
            "add the place of the signature: signature = { header = \"X-Signature\", encoding = \"hex\" }",
        );
        if general != "token" {
            missing("payload", "add the signed text: payload = \"{timestamp}.{body}\"");
        }
        let mut events = Events::none();
        let mut hashed = true;
        if let Some(event) = &self.event {
            match &event.value.id {
                Some(id) => events.id = name_parts(&mut events.reads, id),
                None => {
                    let hint = "add the place of the id: id = \"id\", or \"header:X-Id\"";
                    section.report(event.error("`id` is missing").hint(hint));
                }
            }
            event.value.describe(&mut events);
            events.many = event.value.many.unwrap_or(false);
            hashed = event.value.hash.unwrap_or(true);
        }
        for handshake in self.handshake.iter().flatten() {
            let members = handshake.json.iter().flatten();
            let computed = members.map(|(_, text)| text).find(|text| text.value.contains("{hmac}"));
            if let Some(text) = computed.filter(|_| general != "hmac") {
                section
                    .report(text.error("only the scheme `hmac` has a key for `{hmac}`; remove it"));
            }
            events.handshakes.push(handshake.handshake(&mut events.reads));
        }
        let (id_at, event) = (self.event.as_ref().map(Located::place), self.event.is_some());
        let template = self.signed(general, section)?;
        if let Some(here) = id_at.filter(|_| event) {
            events.hash = hashed && hash(&template, &events.id);
            one_event(&template, &events, &here, section);
        }
        Some((Scheme::Template(Box::new(template)), events))
    }

    fn signed(self, general: &str, section: &Section<'_>) -> Option<Template> {
        let report = |error| section.report(error);
        let algorithm = match general {
            "ed25519" => Algorithm::Ed25519,
            "ecdsa-p256" => Algorithm::EcdsaP256,
            "token" => Algorithm::Token,
            _ => self.algorithm.unwrap_or(Algorithm::HmacSha256),
        };
        let mut reads = Reads::default();
        let signature = self.signature.as_ref();
        if let Some(signature) = signature {
            match (algorithm == Algorithm::Token, signature.value.encoding.is_some()) {
                (true, true) => {
                    report(signature.error("a token has no encoding; remove `encoding`"));
                }
                (false, false) => {
                    report(signature.error("`encoding` is missing").hint("\"hex\" or \"base64\""));
                }
                _ => {}
            }
        }
        let signature = signature.and_then(|keys| keys.value.at(algorithm, &mut reads));
        let time_at = self.timestamp.as_ref().map(Located::place);
        let timestamp = self.timestamp.as_ref().and_then(|keys| keys.value.at(&mut reads));
        let payload = if algorithm == Algorithm::Token {
            if let Some(here) = &time_at {
                report(here.error("the scheme `token` does not sign the time, so it can be forged; remove `timestamp`"));
            }
            Vec::new()
        } else {
            let text = self.payload.as_ref()?;
            let payload = payload(text, &mut reads, section)?;
            let has_time = payload.contains(&Part::Timestamp);
            if has_time && section.get("timestamp").is_none() {
                let problem =
                    text.error("`payload` contains `{timestamp}` but `timestamp` is missing");
                report(
                    problem.hint(
                        "add the place of the time: timestamp = { header = \"X-Timestamp\" }",
                    ),
                );
            }
            if let (Some(time), Some(here)) = (&timestamp, &time_at)
                && !has_time
                && !(matches!(time.place, Place::Body(..)) && payload.contains(&Part::Body))
            {
                let problem = text.error(format!(
                    "`payload` does not sign `{{timestamp}}`, so the timestamp can be forged ({})",
                    here.key
                ));
                report(problem.hint(
                    "add `{timestamp}` if the provider signs it; otherwise remove `timestamp`",
                ));
            }
            if signature
                .as_ref()
                .is_some_and(|signature| payload.iter().any(|part| signs(part, &signature.place)))
            {
                report(text.error("`payload` contains the signature itself; remove it"));
            }
            // The verifier tells a URL from the body behind it.
            let separable = |first: &Part, second: &Part| {
                matches!(first, Part::Url | Part::PlainUrl) && *second == Part::Body
            };
            for (first, second) in unseparated(&payload) {
                if !separable(first, second) {
                    let problem = text.error(format!(
                        "no fixed characters separate `{first}` from `{second}`, so an attacker could move bytes from one to the other without changing the signature"
                    ));
                    let length = match first {
                        Part::Header(name, _) => format!(
                            ", or add the length of the first if it is fixed: {{header:{name}:36}}"
                        ),
                        _ => String::new(),
                    };
                    report(problem.hint(format!(
                        "add the characters that the provider signs between them{length}; without either, Hookmill cannot verify this provider safely"
                    )));
                }
            }
            payload
        };
        let signature = signature?;
        if let (Some(TimeAt { place: Place::Member(_), .. }), None | Some((_, None)), Some(here)) =
            (&timestamp, &signature.list, &time_at)
        {
            report(here.error("the signature's header is not declared as a list with a `key`").hint(
                "declare it: signature = { header = \"…\", list = \",\", key = \"v1\", encoding = \"hex\" }",
            ));
        }
        if let (Some(time), Some(here)) = (&timestamp, &time_at)
            && is_at(&time.place, &signature)
        {
            report(
                here.error("the time has the same place as the signature; give it another place"),
            );
        }
        let key = self.key.unwrap_or_default();
        Some(Template { algorithm, key, signature, timestamp, payload, reads })
    }
}

/// Checks that the API can be read regularly, as these keys say.
fn check_reading(
    section: &Section<'_>,
    provider: Option<Provider>,
    sweep: Option<&Located<Duration>>,
    reconcile: Option<&Located<Duration>>,
) {
    let without_api = || section.at("api").is_none();
    for (every, name) in [(sweep, "sweep"), (reconcile, "reconciliation")] {
        if let Some(every) = every.filter(|_| without_api()) {
            let problem = every.error(format!("a {name} needs the API of the source"));
            section.report(problem.hint("add `api`: api = { key = \"env:STRIPE_API_KEY\" }"));
        }
    }
    if let Some((sweep, provider)) = sweep.zip(provider.filter(|provider| log(*provider).is_none()))
    {
        let name = provider.facts().title;
        let problem = sweep.error(format!("the API of {name} has no log of events"));
        section.report(problem.hint("remove `sweep`; it is supported for Stripe and Paddle"));
    }
}

impl ResponseKeys {
    fn answer(&self) -> Answer {
        Answer {
            status: self.status,
            content_type: self.content_type.clone(),
            body: self.body.clone(),
        }
    }
}

impl EventKeys {
    /// Adds everything but the id.
    fn describe(&self, events: &mut Events) {
        events.kind = name_parts(&mut events.reads, &self.r#type.value);
        events.default_kind.clone_from(&self.default);
        events.object = self.object.unwrap_or_default();
        let version = self.api_version.as_ref();
        events.api_version = version.map(|name| name_part(&mut events.reads, &name.value));
    }
}

impl HandshakeKeys {
    fn handshake(&self, reads: &mut Reads) -> Handshake {
        // A path with an error has been reported.
        let when = self.when.iter().filter_map(|(name, value)| {
            Some((reads.add_plain(&name.value.parse().ok()?), value.as_ref()?.to_string()))
        });
        let when = when.collect();
        let unless = self.unless.as_ref().map(|path| reads.add_plain(path));
        let echo = self.echo.as_ref().map(|path| reads.add_plain(path));
        let mut answer = self.response.answer();
        let json = texts(self.json.as_deref());
        if !json.is_empty() {
            "application/json".clone_into(&mut answer.content_type);
        }
        Handshake { when, unless, answer, echo, json }
    }
}

impl ChallengeKeys {
    fn challenge(&self) -> Challenge {
        Challenge {
            method: self.method.to_owned(),
            when: texts(Some(&self.when)),
            echo: self.echo.clone(),
            token: self.token.clone(),
            json: texts(self.json.as_deref()),
        }
    }
}

fn texts(members: Option<&[(Located<String>, Located<String>)]>) -> Vec<(String, String)> {
    let members = members.unwrap_or_default().iter();
    members.map(|(name, text)| (name.value.clone(), text.value.clone())).collect()
}

impl SignatureKeys {
    fn at(&self, algorithm: Algorithm, reads: &mut Reads) -> Option<SignatureAt> {
        let place = match (&self.header, &self.body) {
            (Some(header), None) => Place::Header(header.value.clone()),
            (None, Some(path)) => Place::Body(reads.add_plain(path), path.to_string()),
            _ => return None,
        };
        let encoding = match algorithm {
            Algorithm::Token => Encoding::Text,
            _ => self.encoding.unwrap_or(Encoding::Hex),
        };
        let prefix = self.prefix.as_ref().map(|prefix| prefix.value.clone()).unwrap_or_default();
        Some(SignatureAt {
            place,
            prefix,
            encoding,
            list: self.list.map(|list| (list, self.key.clone())),
        })
    }
}

impl TimestampKeys {
    fn at(&self, reads: &mut Reads) -> Option<TimeAt> {
        let place = match (&self.header, &self.body, &self.list) {
            (Some(header), None, None) => Place::Header(header.clone()),
            (None, Some(path), None) => Place::Body(reads.add_plain(path), path.to_string()),
            (None, None, Some(member)) => Place::Member(member.clone()),
            _ => return None,
        };
        Some(TimeAt { place, unit: self.unit, number: self.number.unwrap_or_default() })
    }
}

impl Events {
    fn none() -> Self {
        Self {
            reads: Reads::default(),
            id: Vec::new(),
            kind: Vec::new(),
            default_kind: None,
            api_version: None,
            many: false,
            hash: false,
            object: false,
            handshakes: Vec::new(),
        }
    }
}

/// Event Streams: <https://www.twilio.com/docs/events/event-types>, CloudEvents in a list. They state no version; a form does:
/// <https://www.twilio.com/docs/messaging/guides/webhook-request>.
fn twilio_events() -> Events {
    let mut events = Events::none();
    events.id = vec![body_part(&mut events.reads, &path_of("id"))];
    events.kind = vec![body_part(&mut events.reads, &path_of("type"))];
    events.api_version = Some(body_part(&mut events.reads, &path_of("ApiVersion")));
    events.many = true;
    events
}

fn path_of(name: &str) -> PlainPath {
    PlainPath(vec![Step::Key(name.to_owned())])
}

fn body_part(reads: &mut Reads, path: &PlainPath) -> NamePart {
    NamePart::Body(reads.add_plain(path), path.to_string())
}

fn name_parts(reads: &mut Reads, names: &[Name]) -> Vec<NamePart> {
    names.iter().map(|name| name_part(reads, name)).collect()
}

fn name_part(reads: &mut Reads, name: &Name) -> NamePart {
    match name {
        Name::Header(header) => NamePart::Header(header.clone()),
        Name::BodyHash => NamePart::BodyHash,
        Name::SignedHash => NamePart::SignedHash,
        Name::Body(path) => body_part(reads, path),
        Name::Either(names) => NamePart::Either(name_parts(reads, names)),
    }
}

/// Whether this signed part contains the signature.
fn signs(part: &Part, signature: &Place) -> bool {
    match (part, signature) {
        (Part::Body, Place::Body(..)) => true,
        (Part::Header(signed, _), Place::Header(names)) => {
            names.iter().any(|name| signed.eq_ignore_ascii_case(name))
        }
        (Part::Member(_, signed), Place::Body(_, path)) => signed == path,
        _ => false,
    }
}

/// Whether the signature would be read as the time.
fn is_at(time: &Place, signature: &SignatureAt) -> bool {
    match (time, &signature.place, &signature.list) {
        (Place::Member(time), _, Some((_, Some(key)))) => time == key,
        (Place::Header(times), Place::Header(signatures), _) => times
            .iter()
            .any(|time| signatures.iter().any(|signature| time.eq_ignore_ascii_case(signature))),
        (Place::Body(_, time), Place::Body(_, signature), _) => time == signature,
        _ => false,
    }
}

/// `v0:{timestamp}:{body}`.
fn payload(text: &Located<String>, reads: &mut Reads, section: &Section<'_>) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text.value.as_str();
    let fault = |problem: String| {
        section.report(text.error(problem).hint(
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
                if let Some(fault) = header_fault(header) {
                    section.report(text.error(fault));
                }
                Part::Header(header.to_owned(), length)
            }
            Some(("body", path)) => match path.parse::<PlainPath>() {
                Ok(path) => Part::Member(reads.add_plain(&path), path.to_string()),
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
        NamePart::Either(parts) => parts.iter().all(|part| covers(template, part)),
    }
}

/// Whether a part is the hash of the signed bytes, or may be.
fn is_signed_hash(part: &NamePart) -> bool {
    match part {
        NamePart::SignedHash => true,
        NamePart::Either(parts) => parts.iter().any(is_signed_hash),
        NamePart::Header(_) | NamePart::Body(..) | NamePart::BodyHash => false,
    }
}

/// Whether Hookmill combines an id with a hash of the body: the signature covers the body but not the id.
fn hash(template: &Template, id: &[NamePart]) -> bool {
    template.payload.contains(&Part::Body) && !id.iter().all(|part| covers(template, part))
}

/// Reports settings with which one signature could be several events.
fn one_event(template: &Template, events: &Events, at: &Located<()>, section: &Section<'_>) {
    let token = template.algorithm == Algorithm::Token;
    let whole = template.payload.contains(&Part::Body);
    let by_signature = events.id.iter().any(is_signed_hash);
    if token && by_signature {
        section.report(
            at.error("the scheme `token` signs nothing to hash; use \"hash:body\" or a path"),
        );
    }
    if !token && !events.id.iter().all(|part| whole || covers(template, part)) {
        let problem = at.error(
            "the signature covers neither the body nor this id, so an attacker could reuse one signature for many events",
        );
        section.report(problem.hint("use the hash of the signed bytes: id = \"hash:signed\""));
    }
    let one = "remove `many`, so that each request is one event";
    if events.many && by_signature && whole {
        let problem = at.error("all events of a request would get the same id");
        section.report(problem.hint("remove \"hash:signed\" from `id`"));
    } else if events.many && !token && !whole {
        let problem = at.error(
            "the signature does not cover the body, so an attacker could put many events into one request",
        );
        section.report(problem.hint(one));
    } else if events.many && matches!(template.signature.place, Place::Body(..)) {
        // The token would be stored inside one of the events, where redaction does not find it.
        let problem = at.error("the token is in the body, so the body must be one event");
        section.report(problem.hint(one));
    }
}
