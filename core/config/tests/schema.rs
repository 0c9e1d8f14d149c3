//! The JSON Schema, the reader and the documentation agree.

#![cfg(feature = "toml")]
// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jsonschema::Validator;
use serde_json::{Value, json};

use hookmill_config::docs::{json_schema, reference_names, update};
use hookmill_config::{Config, ConfigError};
use hookmill_keys::file_to_json;

/// Configurations without faults that together reach every section. Names that anybody may choose begin with `x-`, but for
/// those of sources and templates.
const SAMPLES: [&str; 15] = [
    r#"
    [sources.stripe]
    scheme = "stripe"
    secrets = ["env:A", { name = "env:B", not_after = 2026-12-31T00:00:00Z }]
    preset = "stripe"
    rate_limit = { requests = 10, per = "10s" }
    unmatched = "ignore"
    redact = ["a.b"]
    api = { key = "env:B", rate = 10, url = "https://a.test" }
    sweep = "1h"
    reconcile = "1d"
    api_version = ["2024-06-20"]
    tolerance = "5m"
    future_tolerance = "5m"
    response = { status = 201, content_type = "text/xml", body = "a" }

    [[rules]]
    extend = "stripe-customers"
    set = { x-a = "a" }

    [[rules]]
    extend = ["stripe-charges", "stripe-refunds"]
    set = { x-a = "a" }
    "#,
    r#"
    [sources.list]
    scheme = "hmac"
    secrets = ["env:A"]
    algorithm = "sha1"
    key = "hex"
    signature = { header = "X-S", encoding = "hex", list = ",", key = "v1" }
    timestamp = { list = "t", unit = "ms" }
    payload = "{timestamp}.{body}"
    event = { id = "id", type = ["type", "action"], default = "a", many = true, hash = false }

    [[sources.list.handshake]]
    when = { x-type = "ping", x-n = 1 }
    unless = "a"
    status = 201
    content_type = "text/xml"
    body = "a"

    [[sources.list.handshake]]
    when = {}
    echo = "challenge"
    json = { x-token = "{echo}", x-hmac = "{hmac}" }

    [sources.names]
    scheme = "hmac"
    secrets = ["env:A"]
    keep_headers = ["X-A", "X-B"]
    compression = ["gzip", "br"]
    challenge_token = "env:B"
    challenge = { method = "POST", when = { x-mode = "a" }, echo = "b", token = "c", json = { x-a = "{echo}" } }
    signature = { header = ["X-S", "S"], encoding = "hex", list = ",", prefix = "v1=" }
    timestamp = { header = ["X-T", "T"] }
    payload = "{timestamp}.{body}"
    event = { id = [["header:X-Id", "id"], "hash:body"], type = [["type", "kind"], "action"], api_version = ["header:X-V", "v"] }
    "#,
    r#"
    [sources.url]
    scheme = "hmac"
    secrets = ["env:A"]
    public_url = "https://a.test/a"
    signature = { header = "X-S", encoding = "hex", prefix = "a=" }
    timestamp = { header = "X-T" }
    payload = "{url}{timestamp}{body}"
    event = { id = ["id"], type = "type", object = true }
    "#,
    r#"
    [sources.body]
    scheme = "hmac"
    secrets = ["env:A"]
    signature = { body = "s.s", encoding = "base64" }
    timestamp = { body = "s.t", number = true }
    payload = "{timestamp}{body:s.token}"
    event = { id = "hash:signed", type = "type" }
    "#,
    r#"
    [sources.webhooks]
    scheme = "standard-webhooks"
    secrets = ["env:A"]
    families = ["webhook"]
    asymmetric = true
    event = { type = "type", default = "a" }

    [sources.token]
    scheme = "token"
    secrets = ["env:A"]
    signature = { header = "Authorization", prefix = "Bearer " }
    event = { id = "hash:body", type = "type" }

    [sources.twilio]
    scheme = "twilio"
    secrets = ["env:A"]
    public_url = "https://a.test/a"
    preset = "twilio"
    "#,
    r#"
    [sources.s]
    scheme = "github"
    secrets = ["env:A"]

    [ingress]
    body_limit = "2MiB"
    body_timeout = "11s"

    [retry]
    max_attempts = 7
    initial = "11s"
    multiplier = 3.0
    max = "2h"
    jitter = 0.25

    [limits]
    rows_per_event = 100
    bytes_per_event = "1MiB"

    [queue]
    batch_size = 10
    batch_wait = "1s"

    [retention]
    events = "36d"
    messages = "2h"
    settled = "2d"
    dead_letters = "2d"
    activity = "2d"
    audit = "31d"

    [database]
    migrations = "a"

    [admin.access]
    issuer = "https://a.test"
    audience = "0123456789abcdef"
    operators = ["a@b.test"]
    "#,
    r#"
    [sources.s]
    scheme = "github"
    secrets = ["env:A"]

    [email]
    provider = "resend"
    fallback = "sendgrid"
    failover_after = 2
    from = "a@b.test"
    reply_to = "a@b.test"
    wait = "1s"
    per_hour = 7
    on_uncertain = "retry"
    quota = { day = 1, month = 2, warn_at = 0.5, notify = "a@b.test" }
    resend = { key = "env:B", rate = 3, url = "https://a.test" }
    sendgrid = { key = "env:B", rate = 3, url = "https://a.test" }
    postmark = { key = "env:B", rate = 3, url = "https://a.test" }

    [templates.welcome]
    subject = "a"
    html = "a"
    text = "a"

    [alerts]
    name = "a"
    email = "a@b.test"
    webhook = { url = "https://a.test", secret = "env:B" }
    oldest_dead_letter = "2h"
    dead_letters = 2
    lag = "2m"
    database = "2GB"
    repeat = "2h"
    "#,
    r#"
    [sources.s]
    scheme = "github"
    secrets = ["env:A"]

    [email]
    provider = "smtp"
    from = "a@b.test"
    smtp = { host = "a.test", port = 2, tls = "implicit", user = "a", password = "env:B", rate = 3 }
    "#,
    r#"
    [sources.s]
    scheme = "github"
    secrets = ["env:A"]

    [sms]
    from = "+15550100001"
    status_callback = "https://a.test"
    per_hour = 2
    on_uncertain = "retry"
    quota = { day = 1, month = 2, warn_at = 0.5, notify = "a@b.test" }
    account = "AC11111111111111111111111111111111"
    key = "env:B"
    rate = 3
    url = "https://a.test"

    [tracking.mixpanel]
    key = "env:B"
    rate = 3
    url = "https://a.test"
    wait = "1s"
    on_uncertain = "retry"
    quota = { day = 1, month = 2, warn_at = 0.5, notify = "a@b.test" }

    [tracking.posthog]
    key = "env:B"
    rate = 3
    url = "https://a.test"
    wait = "1s"
    on_uncertain = "retry"
    quota = { day = 1, month = 2, warn_at = 0.5, notify = "a@b.test" }
    "#,
    r#"
    [sources.stripe]
    scheme = "stripe"
    secrets = ["env:A"]

    [[rules]]
    name = "a"
    on = ["stripe:*"]
    handler = "a"
    each = "a.b"
    more = "a.c"
    when = { x-a = "a", x-b = [1, true], x-c = { not = "a" }, x-d = { not = ["a"] }, x-e = { exists = true }, x-f = { exists = true, not = "" } }
    table = "a"
    key = { x-id = { decimal = "a", scale = 3 }, x-n = ["@.n", "@.m"] }
    version = { unix_seconds = "a" }
    tie = { precedence = [{ type = ["a", "*"] }, { path = ["a", "b"], order = ["a"] }, { column = "x-a", order = ["b"] }] }
    set = { x-a = { value = 1 }, x-b = { event = "id" }, x-c = { text = "a" }, x-d = { json = ["a"] }, status = "a" }
    delete = ["a", { x-a = "a", x-b = { not = 1 }, x-c = { exists = false } }]
    final = true

    [[rules]]
    name = "b"
    on = "stripe:*"
    table = "b"
    key = { x-id = "id" }
    version = { decimal = "a", scale = 3 }
    tie = { precedence = { type = ["a", "b"] }, refetch = true }
    set = { x-a = { boolean = "a" }, x-b = { integer = "a" }, x-c = { decimal = "a", scale = 3 } }
    delete = ["a"]

    [[rules]]
    name = "c"
    on = "stripe:*"
    table = "c"
    key = { x-id = "id" }
    version = "a"
    tie = { precedence = { column = "x-a", order = ["a", "b"] } }
    set = { x-a = "a", status = "a", organization_id = "a" }
    parents = { organization_id = "organizations" }
    update = true

    [[rules]]
    name = "d"
    on = "stripe:*"
    table = "d"
    key = { x-id = "id" }
    version = "a"
    set = { x-a = "a" }
    tie = { precedence = { path = "a", order = ["a"] } }
    delete = { x-a = ["a", 1], x-b = { exists = false }, x-c = { not = ["a"] } }
    tombstone = false
    "#,
    r#"
    [sources.stripe]
    scheme = "stripe"
    secrets = ["env:A"]

    [[rules]]
    name = "a"
    on = "stripe:*"
    table = "a"
    when = [{ x-a = "a", x-d = { not = 1 } }, { "x-b | x-c" = { exists = true } }]
    key = { x-d = { unix_milliseconds = "a" }, x-e = { rfc3339 = "a", as = "date" }, x-f = { time = "a", format = ["%F", "%F %T"], zone = "Europe/Berlin" } }
    add = { x-a = 1, x-b = "a", x-c = { decimal = ["a", "b"], scale = 0 }, x-g = { decimal = "a", currency = ["b"] } }
    "#,
    r#"
    [sources.stripe]
    scheme = "stripe"
    secrets = ["env:A"]

    [[rules]]
    name = "a"
    on = "stripe:*"
    email = { template = "a", to = "a", cc = ["a@b.test"], reply_to = "a@b.test", recipients = 2, group = "1", data = { x-a = { decimal = "a", scale = 3 } }, delay = "1m" }

    [[rules]]
    name = "b"
    on = "stripe:*"
    sms = { to = { decimal = "a", scale = 3 }, body = "a", data = { x-a = { decimal = "a", scale = 3 } }, delay = "1m" }

    [[rules]]
    name = "e"
    on = "stripe:*"
    sms = { to = "+15550100001", body = "a" }

    [[rules]]
    name = "c"
    on = "stripe:*"
    track = { provider = "mixpanel", event = "a", user = { decimal = "a", scale = 3 }, properties = { x-a = { decimal = "a", scale = 3 } }, delay = "1m" }
    "#,
    r#"
    [sources.stripe]
    scheme = "stripe"
    secrets = ["env:A"]

    [[rules]]
    name = "a"
    on = "stripe:*"
    outcome = { email = { decimal = "a", scale = 3 }, is = "opened" }

    [[rules]]
    name = "b"
    on = "stripe:*"
    outcome = { provider_id = { decimal = "a", scale = 3 }, is = "opened" }

    [[rules]]
    name = "c"
    on = "stripe:*"
    suppress = { address = { decimal = ["a"], scale = 3 }, reason = "a", group = { decimal = "a", scale = 3 }, version = { decimal = "a", scale = 3 } }

    [[rules]]
    name = "d"
    on = "stripe:*"
    lift = { address = "a", reason = "a", group = { decimal = "a", scale = 3 }, version = { decimal = "a", scale = 3 } }

    [[rules]]
    name = "e"
    on = "stripe:*"
    lift = { address = "a", reason = ["a", "b"] }
    "#,
    r#"
    [sources.stripe]
    scheme = "stripe"
    secrets = ["env:A"]

    [[tests]]
    name = "a"
    before = { table = "a", row = { x-a = 1 } }
    given = { source = "stripe", file = "a", event = "a", id = "a", headers = { x-a = "a" } }
    expect = "nothing"

    [[tests]]
    before = [{ table = "a", row = { x-a = 1 } }]
    given = [{ source = "stripe", file = "a", event = "a", id = "a", headers = { x-a = "a" } }]
    expect = [{ table = "a", row = { x-a = 1.5 } }, { table = "a", rows = 2 }, { email = { rule = "a", template = "a", to = ["a"], cc = "a", reply_to = "a", data = { x-a = "a" } } }]

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = [{ sms = { rule = "a", to = "a", body = "a", data = {} } }, { track = { rule = "a", event = "a", to = "a", data = {} } }, { outcome = "recorded" }, { emails = 0 }, { texts = 0 }, { tracked = 0 }, { error = "a" }, "nothing"]

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = { email = { rule = "a", template = "a", to = "a", cc = "a", reply_to = "a", data = {} } }

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = { emails = 0 }

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = { texts = 0 }

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = { tracked = 0 }

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = { error = "a" }

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = { table = "a", row = {} }

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = { table = "a", rows = 2 }

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = { email = {} }

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = { sms = { rule = "a", to = "a", body = "a", data = {} } }

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = { track = { rule = "a", event = "a", to = "a", data = {} } }

    [[tests]]
    given = { source = "stripe", file = "a" }
    expect = { outcome = "recorded" }
    "#,
    "sources.s = { scheme = 'svix', secrets = ['env:A'], redact = [] }\nrules = []\ntests = []\ntemplates = {}",
];

fn parse(file: &str, text: &str) -> (Option<Config>, Vec<ConfigError>) {
    hookmill_config::parse_recoverable(file, text)
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

fn validator() -> Validator {
    let schema = json_schema();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

fn read(toml: &str) -> Value {
    let json = file_to_json(toml);
    assert!(json.is_object(), "not TOML:\n{toml}");
    json
}

/// A configuration, from JSON.
fn written(config: &Value) -> String {
    let members = config.as_object().unwrap().iter();
    members.map(|(key, value)| format!("{key} = {}", to_toml(value))).collect::<Vec<_>>().join("\n")
}

fn faults(config: &Value) -> Vec<String> {
    let (_, errors) = parse("hookmill.toml", &written(config));
    errors.iter().map(ToString::to_string).collect()
}

/// Where in the schema something is: `sources.*.secrets[].name` of `/sources/stripe/secrets/0/name`.
fn place(pointer: &str) -> String {
    let mut place = String::new();
    for step in pointer.split('/').skip(1) {
        let named = step.starts_with("x-") || place == "sources" || place == "templates";
        match step.parse::<usize>() {
            Ok(_) => place += "[]",
            Err(_) if place.is_empty() => place += step,
            Err(_) => {
                place.push('.');
                place += if named { "*" } else { step };
            }
        }
    }
    place
}

/// The schemas that may be in force at each place, references followed.
fn places(schema: &Value) -> BTreeMap<String, Vec<&Value>> {
    fn collect<'s>(
        root: &'s Value,
        schema: &'s Value,
        place: &str,
        places: &mut BTreeMap<String, Vec<&'s Value>>,
    ) {
        let Some(members) = schema.as_object() else { return };
        if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
            let found = root.pointer(reference.trim_start_matches('#')).unwrap();
            return collect(root, found, place, places);
        }
        places.entry(place.to_owned()).or_default().push(schema);
        for choice in members.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
            collect(root, choice, place, places);
        }
        let below =
            |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
        for (key, value) in
            members.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            collect(root, value, &below(key), places);
        }
        if let Some(value) = members.get("additionalProperties") {
            collect(root, value, &below("*"), places);
        }
        if let Some(value) = members.get("items") {
            collect(root, value, &format!("{place}[]"), places);
        }
    }
    let mut places = BTreeMap::new();
    collect(schema, schema, "", &mut places);
    places
}

/// JSON pointers to everything in a value, the value itself included.
fn pointers(value: &Value) -> Vec<String> {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    let below = below.into_iter().flat_map(|(step, value)| {
        pointers(value).into_iter().map(move |rest| format!("/{step}{rest}"))
    });
    std::iter::once(String::new()).chain(below).collect()
}

fn with(config: &Value, pointer: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut config = config.clone();
    change(config.pointer_mut(pointer).unwrap());
    config
}

#[test]
fn the_committed_schema_is_up_to_date() {
    let committed = include_str!("../../../docs/hookmill.schema.json");
    let committed: Value = serde_json::from_str(committed).unwrap();
    assert!(committed == json_schema(), "write it again: cargo xtask schema");
}

/// The pages whose tables `cargo xtask schema` writes.
const PAGES: [&str; 5] =
    ["admin.md", "configuration.md", "email.md", "operations.md", "providers.md"];

#[test]
#[expect(clippy::disallowed_methods, reason = "reads the documentation")]
fn the_reference_is_up_to_date_and_complete() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut pages = String::new();
    for page in PAGES {
        let text = std::fs::read_to_string(docs.join(page)).unwrap();
        assert!(update(&text).unwrap() == text, "{page} is out of date: cargo xtask schema");
        pages += &text;
    }
    let markers: Vec<_> = pages.split("<!-- keys: ").skip(1).collect();
    let shown = markers.iter().flat_map(|marker| marker.split(" -->").next().unwrap().split(' '));
    let shown: Vec<_> = shown.collect();
    let missing: Vec<_> =
        reference_names().into_iter().filter(|name| !shown.contains(name)).collect();
    assert!(missing.is_empty(), "no page has the tables of {missing:?}");
}

/// What the reader says if the schema has to refuse it as well.
fn is_about_the_shape(fault: &str) -> bool {
    let problem = fault.lines().next().unwrap_or_default();
    let types = ["string", "whole number", "number", "boolean", "date", "list", "table"];
    let words = ["hint: possible here: `", "hint: did you mean `"];
    problem.contains("unknown key `")
        || types.iter().any(|name| problem.ends_with(&format!(": found a {name}")))
        || (problem.contains(": found \"") && words.iter().any(|hint| fault.contains(hint)))
}

/// Every sample, and what becomes of it if any one value in it is something else, is left out, or gets company.
#[test]
fn the_schema_accepts_what_the_reader_accepts_and_rejects_other_shapes() {
    let validator = validator();
    let others = [
        json!(true),
        json!(7),
        json!(-7),
        json!(1.5),
        json!(""),
        json!("nonsense"),
        json!("nothing"),
        json!("5m"),
        json!("env:C"),
        json!("https://a.test"),
        json!([]),
        json!(["nonsense"]),
        json!([7]),
        json!({}),
        json!({ "nonsense": "a" }),
        json!({ "nonsense": 7 }),
    ];
    let mut wrong = Vec::new();
    let mut compare = |config: &Value| {
        let faults = faults(config);
        let taken = validator.is_valid(config);
        if faults.is_empty() && !taken {
            wrong.push(format!("the schema refuses what the reader takes:\n{}", written(config)));
        }
        if taken && let Some(fault) = faults.iter().find(|fault| is_about_the_shape(fault)) {
            wrong.push(format!("{fault}: the schema takes it all the same:\n{}", written(config)));
        }
    };
    for sample in SAMPLES.map(read) {
        compare(&sample);
        for pointer in pointers(&sample).iter().skip(1) {
            for other in &others {
                compare(&with(&sample, pointer, |value| *value = other.clone()));
            }
        }
        for pointer in pointers(&sample) {
            let Some(members) = sample.pointer(&pointer).and_then(Value::as_object) else {
                continue;
            };
            for key in members.keys() {
                compare(&with(&sample, &pointer, |value| {
                    value.as_object_mut().unwrap().remove(key);
                }));
            }
            compare(&with(&sample, &pointer, |value| value["nonsense"] = "a".into()));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Without columns in the text, which change with every value before them.
fn meaning(config: &Value) -> Option<String> {
    let (mut config, errors) = parse("hookmill.toml", &written(config));
    if let Some(config) = &mut config {
        // Whether the file has this key matters only for the Workers.
        config.queue.batch_size = None;
    }
    let text = format!("{config:?}");
    let parts = text.split("column: ");
    let parts = parts.map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
    errors.is_empty().then(|| parts.collect())
}

/// A step beyond a bound.
fn beyond(bound: &Value, by: i32) -> Value {
    match bound.as_i64() {
        Some(bound) => (bound + i64::from(by)).into(),
        None => (bound.as_f64().unwrap() + f64::from(by)).into(),
    }
}

/// What the schema says of a key is so: what stands for its default changes nothing, its examples can be written, its bounds
/// are those of the reader.
#[test]
fn defaults_examples_and_bounds_are_those_of_the_reader() {
    let (schema, validator) = (json_schema(), validator());
    let places = places(&schema);
    // By what is to be seen in some sample: whether it was.
    let mut seen: BTreeMap<String, bool> = BTreeMap::new();
    for sample in SAMPLES.map(read) {
        for pointer in pointers(&sample).iter().filter(|p| sample.pointer(p).unwrap().is_object()) {
            let place = place(pointer);
            for schema in places.get(&place).into_iter().flatten() {
                for (key, about) in schema["properties"].as_object().into_iter().flatten() {
                    let set = |value: &Value| with(&sample, pointer, |at| at[key] = value.clone());
                    let unset = with(&sample, pointer, |at| {
                        at.as_object_mut().unwrap().remove(key);
                    });
                    let at = format!("{place}.{key}");
                    if let Some(default) = about.get("default") {
                        let is_so = meaning(&set(default)).zip(meaning(&unset));
                        assert!(is_so.as_ref().is_none_or(|(set, unset)| set == unset), "{at}");
                        *seen.entry(format!("default of {at}")).or_default() |= is_so.is_some();
                    }
                    for example in about["examples"].as_array().into_iter().flatten() {
                        let config = set(example);
                        let is_so = faults(&config).is_empty() && validator.is_valid(&config);
                        *seen.entry(format!("example of {at}: {example}")).or_default() |= is_so;
                    }
                    for (bound, by) in [("minimum", -1), ("maximum", 1), ("exclusiveMinimum", 0)] {
                        let Some(bound) = about.get(bound) else { continue };
                        let takes = |value: &Value| faults(&set(value)).is_empty();
                        let is_so = by == 0 || takes(bound);
                        assert!(!takes(&beyond(bound, by)), "{at} is taken beyond {bound}");
                        *seen.entry(format!("bound of {at}: {bound}")).or_default() |= is_so;
                    }
                }
            }
        }
    }
    let not_seen: Vec<_> = seen.iter().filter(|(_, seen)| !**seen).map(|(what, _)| what).collect();
    assert!(not_seen.is_empty(), "{not_seen:#?}");
}

/// Makes a whole configuration of what a document shows of one.
fn completed(mut part: Value) -> Value {
    if part.get("sources").is_none() {
        part["sources"] = json!({ "any": {} });
    }
    for source in part["sources"].as_object_mut().unwrap().values_mut() {
        for (key, value) in [("scheme", json!("stripe")), ("secrets", json!(["env:A"]))] {
            if source.get(key).is_none() {
                source[key] = value;
            }
        }
    }
    part
}

/// The blocks of TOML in a document, but for those of wrangler.toml.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match (line.trim(), &mut block) {
            ("```toml", None) => block = Some(String::new()),
            ("```", Some(_)) => blocks.extend(block.take()),
            (_, Some(block)) => {
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks.retain(|block| !block.contains("[[ratelimits]]"));
    blocks
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a document that is added later is looked at, too")]
fn every_example_in_the_repository_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap();
    let in_folder = |folder: &str, ending: &str| -> Vec<_> {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.to_str().unwrap().ends_with(ending)).collect()
    };
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    let mut configs = Vec::new();
    for file in ["hookmill.toml", "tests/hookmill.toml"] {
        configs.push((root.join(file), read(&text(&root.join(file)))));
    }
    for path in [in_folder("docs", ".md"), in_folder("", ".md")].concat() {
        let blocks = blocks(&text(&path));
        configs.extend(blocks.iter().map(|block| (path.clone(), completed(read(block)))));
    }
    assert!(configs.len() > 30, "the documents have no blocks any more");
    for path in in_folder("core/rules/presets", ".toml") {
        let mut config = read(&text(&path));
        // A preset is about every source that has it.
        for rule in config["rules"].as_array_mut().unwrap() {
            for on in rule["on"].as_array_mut().unwrap() {
                *on = format!("any:{}", on.as_str().unwrap()).into();
            }
        }
        configs.push((path, completed(config)));
    }
    for path in in_folder("core/config/schemes", ".toml") {
        // What is behind the name of a scheme can stand in a source.
        configs.push((path.clone(), completed(json!({ "sources": { "s": read(&text(&path)) } }))));
    }
    let validator = validator();
    for (path, config) in configs {
        let wrong: Vec<_> = validator
            .iter_errors(&config)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}\n{}", path.display(), written(&config));
    }
}

/// So that the other tests read each key.
#[test]
fn every_key_is_in_a_sample() {
    let mut given = BTreeSet::new();
    for sample in SAMPLES.map(read) {
        for pointer in pointers(&sample) {
            let members = sample.pointer(&pointer).and_then(Value::as_object);
            for key in members.into_iter().flat_map(serde_json::Map::keys) {
                given.insert((place(&pointer), key.clone()));
                given.insert((String::new(), key.clone()));
            }
        }
    }
    let schema = json_schema();
    let mut missing = Vec::new();
    for (place, schemas) in places(&schema) {
        let keys = schemas.iter().filter_map(|schema| schema["properties"].as_object());
        for key in keys.flat_map(serde_json::Map::keys) {
            // The forms of a value are the same at each place.
            let form = schema["$defs"]["value"]["anyOf"][0]["properties"].get(key).is_some();
            let at = if form { String::new() } else { place.clone() };
            if !given.contains(&(at, key.clone())) {
                missing.push(format!("{place}.{key}"));
            }
        }
    }
    assert!(missing.is_empty(), "add these to SAMPLES: {missing:#?}");
}

/// The most common mistakes, one by one.
#[test]
fn common_mistakes_are_rejected_by_both() {
    let validator = validator();
    let source = "[sources.stripe]\nscheme = 'stripe'\nsecrets = ['env:A']\n";
    let rule = "[[rules]]\nname = 'a'\non = 'stripe:*'\n";
    let table = "table = 'a'\nkey = { id = 'id' }\n";
    for (lines, key) in [
        ("", ""),
        ("tolerence = '5m'", "an unknown key"),
        ("preset = 'strype'", "an unknown preset"),
        ("unmatched = 'drop'", "an unknown word"),
        ("tolerance = 300", "a number for a duration"),
        ("tolerance = 'five minutes'", "no duration"),
        ("rate_limit = { requests = 10, per = '5s' }", "an unknown period"),
        ("rate_limit = 10", "a number for a table"),
        ("redact = 'a'", "a text for a list"),
        ("[retry]\nmax_attempts = '8'", "a text for a number"),
        ("[retry]\nmax_attempt = 8", "an unknown key of a section"),
        ("[email]\nprovider = 'sendmail'\nfrom = 'a@b.test'", "an unknown provider"),
        ("[email]\nprovider = 'resend'", "a key that is missing"),
        ("[queues]", "an unknown section"),
        ("[tracking.segment]", "an unknown tracker"),
        ("[templates.Welcome]\nsubject = 'a'\nhtml = 'a'", "a name that cannot be one"),
        ("RULE", "a rule that does nothing"),
        ("RULE TABLE email = { template = 'a', to = 'a' }", "a rule that does two things"),
        ("RULE table = 'a'", "a rule without a key"),
        ("RULE TABLE set = { a = { unix = 'a' } }", "an unknown form"),
        ("RULE TABLE set = { a = { event = 'kind' } }", "an unknown field of events"),
        ("RULE TABLE set = { a = { decimal = 'a' } }", "a decimal without a scale"),
        ("RULE TABLE set = { a = 1 }", "a number for a path"),
        ("RULE TABLE when = { a = { is = 1 } }", "an unknown condition"),
        ("RULE TABLE tie = { column = 'a', order = ['a'] }", "a precedence that is none"),
        (
            "RULE TABLE version = 'v'\ntie = { precedence = { column = 'a', path = 'a', order = ['a'] } }",
            "two values",
        ),
        (
            "RULE TABLE version = 'v'\ntie = { precedence = { path = 'a' } }",
            "a path without an order",
        ),
        ("RULE TABLE version = 'v'\ntie = { precedence = [] }", "no step"),
        ("RULE TABLE version = 'v'\nfinal = true", "a final deletion without a deletion"),
        (
            "RULE TABLE version = 'v'\ndelete = { a = { is = 1 } }",
            "an unknown condition of a deletion",
        ),
        ("RULE email = { template = 'a', to = 'a', bcc = 'a' }", "a blind copy"),
        ("RULE outcome = { email = 'a', is = 'eaten' }", "an unknown outcome"),
        ("RULE track = { provider = 'segment', event = 'a', user = 'a' }", "an unknown tracker"),
        ("[[tests]]\ngiven = { source = 'stripe', path = 'a' }\nexpect = 'nothing'", "no file"),
        ("[[tests]]\ngiven = []\nexpect = 'nothing'", "no event"),
        ("[[tests]]\ngiven = { source = 'stripe', file = 'a' }\nexpect = []", "no expectation"),
        (
            "[[tests]]\ngiven = { source = 'stripe', file = 'a' }\nexpect = 'something'",
            "an unknown expectation",
        ),
        (
            "[[tests]]\ngiven = { source = 'stripe', file = 'a' }\nexpect = { table = 'a' }",
            "nothing of a table",
        ),
        (
            "[[tests]]\ngiven = { source = 'stripe', file = 'a' }\nexpect = { email = { tempalte = 'a' } }",
            "an unknown member of an email",
        ),
        (
            "[[tests]]\ngiven = { source = 'stripe', file = 'a' }\nexpect = { sms = { rows = 0 } }",
            "an unknown member of an SMS",
        ),
        (
            "[[tests]]\nbefore = { table = 'a' }\ngiven = { source = 'stripe', file = 'a' }\nexpect = 'nothing'",
            "nothing in a table",
        ),
        (
            "[[rules]]\nextend = 'stripe-customers'\nset = { a = 'b' }\nname = 'a'",
            "a rule that extends",
        ),
        ("[[rules]]\nextend = 'stripe-customers'", "an extension without columns"),
    ] {
        let lines = lines.replace("RULE ", rule).replace("RULE", rule).replace("TABLE ", table);
        let toml = format!("{source}{lines}\n");
        let (_, errors) = parse("hookmill.toml", &toml);
        assert_eq!(errors.is_empty(), key.is_empty(), "{key}: {toml}");
        assert_eq!(validator.is_valid(&read(&toml)), key.is_empty(), "{key}: {toml}");
    }
}
