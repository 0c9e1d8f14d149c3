//! hookmill.toml is read as it should be, and every error is reported with its place and a hint.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hookmill_core::outbound::Provider;
use hookmill_core::secret::SecretName;
use hookmill_core::time::Timestamp;
use hookmill_keys::ConfigError;
use hookmill_rules::ast::EffectDecl;

use super::Config;
use crate::scheme::{Events, NamePart, Scheme, Tolerance};
use crate::{SecretRef, scheme_names};

/// The configuration, or an empty one; and the errors.
fn parse(file: &str, text: &str) -> (Config, Vec<ConfigError>) {
    let (config, errors) = super::parse_recoverable(file, text);
    let empty = || super::parse("", GOOD).unwrap();
    (config.unwrap_or_else(empty), errors)
}

fn errors(text: &str) -> String {
    let (_, errors) = parse("hookmill.toml", text);
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

const GOOD: &str = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\n";

#[test]
fn defaults_are_filled_in() {
    let (config, errors) = parse("hookmill.toml", GOOD);
    assert!(errors.is_empty());
    insta::assert_debug_snapshot!(
        (&config.ingress.limits, &config.unmatched, &config.retry, &config.limits, &config.queue.batch(), &config.retention, &config.access),
        @r#"
    (
        BodyLimits {
            body_limit: 1048576,
            body_timeout: 10s,
        },
        {
            "stripe": Record,
        },
        Retry {
            max_attempts: 8,
            initial: 10s,
            multiplier: 2.0,
            max: 3600s,
            jitter: 0.5,
        },
        Limits {
            rows_per_event: 10000,
            bytes_per_event: 16777216,
        },
        Batch {
            size: 1000,
            wait: 0ns,
        },
        Retention {
            messages: None,
            settled: 7776000s,
            dead_letters: None,
            events: None,
            activity: 7776000s,
            audit: None,
        },
        None,
    )
    "#
    );
    let source = &config.ingress.sources[0];
    let minutes = Duration::from_secs(300);
    assert_eq!(source.tolerance, Some(Tolerance { past: minutes, future: minutes }));
    assert_eq!(source.secrets, [SecretRef { name: SecretName("A".into()), not_after: None }]);
}

#[test]
fn every_scheme_is_complete() {
    for scheme in scheme_names() {
        let mut text = format!("[sources.s]\nscheme = \"{scheme}\"\nsecrets = [\"env:A\"]\n");
        if ["hubspot", "square", "twilio"].contains(&scheme) {
            text += "public_url = \"https://a.test/s\"\n";
        }
        let (config, errors) = parse("hookmill.toml", &text);
        let general = ["ed25519", "ecdsa-p256", "hmac", "token"].contains(&scheme);
        assert_eq!(errors.is_empty(), !general, "{scheme}: {errors:?}");
        assert_eq!(config.ingress.sources.len(), usize::from(!general), "{scheme}");
    }
}

#[test]
fn errors_of_tests_are_reported_with_hints() {
    let source = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\n";
    let tests = |lines: &str| errors(&format!("{source}[[tests]]\n{lines}"));
    let given = "given = { source = \"stripe\", file = \"a.json\" }\n";
    let expect = |text: &str| tests(&format!("{given}expect = {text}"));
    insta::assert_snapshot!([
            tests(""),
            tests("given = { source = \"strip\", path = \"a.json\" }\nexpect = \"nothing\""),
            expect("\"something\""),
            expect("{ table = \"a\" }"),
            expect("[{ table = \"a\", rows = \"1\" }, { outcome = \"buried\" }]"),
            expect("[{ table = \"a\", rows = -1 }, { table = \"a\", row = 1 }, { email = \"a\" }]"),
            expect("{ email = { template = \"a\" }, to = \"b\" }"),
            expect("{ row = { id = 1 } }"),
        ]
        .join("\n"), @r#"
    hookmill.toml:4:1: tests[0]: `expect` is missing
      hint: add the expected results: expect = { table = "invoices", row = { id = "in_1" } }
    hookmill.toml:4:1: tests[0]: `given` is missing
      hint: add the events: given = { source = "stripe", file = "tests/paid.json" }
    hookmill.toml:5:29: tests[0].given: unknown key `path`
      hint: possible here: `source`, `file`, `event`, `id`, `headers`
    hookmill.toml:6:10: tests[0].expect: found "something"
      hint: expected "nothing", or a table with one of `table`, `email`, `emails`, `sms`, `texts`, `track`, `tracked`, `outcome` and `error`
    hookmill.toml:6:10: tests[0].expect: `row` is missing
      hint: add the expected row, row = { id = "in_1" }, or the number of rows, rows = 0
    hookmill.toml:6:33: tests[0].expect[0].rows: found a string
      hint: expected a whole number from 0 to 4294967295
    hookmill.toml:6:52: tests[0].expect[1].outcome: found "buried"
      hint: possible here: `applied`, `recorded`, `ignored`, `dead_letter`
    hookmill.toml:6:33: tests[0].expect[0].rows: found -1
      hint: expected a whole number from 0 to 4294967295
    hookmill.toml:6:60: tests[0].expect[1].row: found a whole number
      hint: expected columns and their values: row = { id = "in_1" }
    hookmill.toml:6:75: tests[0].expect[2].email: found a string
      hint: expected a table of expected values
    hookmill.toml:6:40: tests[0].expect: unknown key `to`
      hint: possible here: `table`, `row`, `rows`, `email`, `emails`, `sms`, `texts`, `track`, `tracked`, `outcome`, `error`
    hookmill.toml:6:10: tests[0].expect: the expectation is empty
      hint: expected "nothing", or a table with one of `table`, `email`, `emails`, `sms`, `texts`, `track`, `tracked`, `outcome` and `error`
    "#);
}

#[test]
fn errors_of_access_are_reported_with_hints() {
    let source = "[sources.s]\nscheme = \"github\"\nsecrets = [\"env:A\"]\n";
    let access = |lines: &str| errors(&format!("{source}[admin.access]\n{lines}"));
    insta::assert_snapshot!([
            access(""),
            access("issuer = \"acme.cloudflareaccess.com\"\naudience = \"short\""),
            access("issuer = \"https://a.cloudflareaccess.com/\"\naudience = \"0123456789abcdef\"\noperators = [\"\", \"*@a.test\", 1]"),
        ]
        .join("\n"), @r#"
        hookmill.toml:4:1: admin.access: `audience` is missing
          hint: the application's audience tag (AUD), as Cloudflare shows it
        hookmill.toml:4:1: admin.access: `issuer` is missing
          hint: add the team's domain: issuer = "https://acme.cloudflareaccess.com"
        hookmill.toml:5:10: admin.access.issuer: found "acme.cloudflareaccess.com"
          hint: expected https:// and the team's domain, without a trailing slash
        hookmill.toml:6:12: admin.access.audience: found "short"
          hint: expected the application's audience tag (AUD), as Cloudflare shows it: 64 hexadecimal digits
        hookmill.toml:5:10: admin.access.issuer: found "https://a.cloudflareaccess.com/"
          hint: expected https:// and the team's domain, without a trailing slash
        hookmill.toml:7:14: admin.access.operators[0]: found ""
          hint: expected one address or name, not a pattern
        hookmill.toml:7:18: admin.access.operators[1]: found "*@a.test"
          hint: expected one address or name, not a pattern
        hookmill.toml:7:30: admin.access.operators[2]: found a whole number
          hint: expected a list of email addresses and names of service tokens
        "#);
}

#[test]
fn a_server_for_emails_is_a_url_and_a_user() {
    let api = |lines: &str| {
        let email = "[email]\nprovider = \"smtp\"\nfrom = \"a@b.test\"\n[email.smtp]\n";
        let (config, errors) = parse("hookmill.toml", &format!("{GOOD}{email}{lines}"));
        assert_eq!(errors, []);
        assert_eq!(config.native_only.unwrap().value, Provider::Smtp);
        let [api] = config.emails.unwrap().sending.apis.try_into().unwrap();
        (api.url, api.user, api.key.0, api.rate)
    };
    let password = || "SMTP_PASSWORD".to_owned();
    assert_eq!(
        api("host = \"a.test\""),
        ("smtp+starttls://a.test:587".to_owned(), None, password(), 10)
    );
    assert_eq!(
        api("host = \"a.test\"\ntls = \"implicit\"\nuser = \"u\"\npassword = \"env:P\"\nrate = 1"),
        ("smtps://a.test:465".to_owned(), Some("u".to_owned()), "P".to_owned(), 1)
    );
    assert_eq!(api("host = \"localhost\"\ntls = \"none\"\nport = 1025").0, "smtp://localhost:1025");
}

#[test]
fn errors_of_an_smtp_server_are_reported_with_hints() {
    let smtp = |lines: &str| {
        errors(&format!("{GOOD}[email]\nprovider = \"smtp\"\nfrom = \"a@b.test\"\n{lines}"))
    };
    insta::assert_snapshot!([
            smtp(""),
            smtp("[email.smtp]"),
            smtp("smtp = 1"),
            smtp("[email.smtp]\nhost = \"https://a.test\"\npassword = \"hunter2\"\nport = 0\ntls = \"required\"\nkey = \"env:A\""),
            smtp("[email.smtp]\nhost = \"a.test\"\ntls = \"none\"\npassword = \"env:A\""),
        ]
        .join("\n"), @r#"
    hookmill.toml:5:12: email.provider: `[email.smtp]` is missing
      hint: add the server: smtp = { host = "email-smtp.us-east-1.amazonaws.com", user = "AKIA…" }
    hookmill.toml:7:1: email.smtp: `host` is missing
      hint: add the server: host = "email-smtp.us-east-1.amazonaws.com"
    hookmill.toml:7:8: email.smtp: found a whole number
      hint: expected a table
    hookmill.toml:8:8: email.smtp.host: found "https://a.test"
      hint: expected a host name such as "mail.example.com"; `port` and `tls` are separate keys
    hookmill.toml:9:12: email.smtp.password: `password` needs a `user`
      hint: add the user: user = "AKIA…"
    hookmill.toml:9:12: email.smtp.password: not the name of a secret; never write a secret into this file
      hint: put the secret into an environment variable and use its name: "env:SMTP_PASSWORD"
    hookmill.toml:10:8: email.smtp.port: found 0
      hint: expected a whole number from 1 to 65535
    hookmill.toml:11:7: email.smtp.tls: found "required"
      hint: possible here: `starttls`, `implicit`, `none`
    hookmill.toml:12:1: email.smtp: unknown key `key`
      hint: possible here: `host`, `tls`, `port`, `user`, `password`, `rate`
    hookmill.toml:9:7: email.smtp.tls: tls = "none" would send emails and the password unencrypted
      hint: use tls = "starttls" or "implicit"; "none" is only for a local server, host = "localhost"
    hookmill.toml:10:12: email.smtp.password: `password` needs a `user`
      hint: add the user: user = "AKIA…"
    "#);
}

#[test]
fn errors_of_alerts_are_reported_with_hints() {
    let source = "[sources.s]\nscheme = \"github\"\nsecrets = [\"env:A\"]\n";
    let alerts = |lines: &str| errors(&format!("{source}[alerts]\n{lines}"));
    insta::assert_snapshot!([
            alerts(""),
            alerts("email = \"ops@example.com\"\nrepeat = \"1m\"\ndead_letters = 0"),
            alerts("webhook = { url = \"http://a.test\" }"),
            alerts("webhook = { url = \"https://a.test/?token=hunter2\", secret = \"hunter2\" }"),
            alerts("webhook = { url = \"env:url\", secret = \"env:S\" }\noldest = \"1h\""),
            errors(&format!("{source}redact = [\"a..b\", 3]")),
        ]
        .join("\n"), @r#"
    hookmill.toml:4:1: alerts: `[alerts]` has no recipient
      hint: add email = "Ops <ops@example.com>", or webhook = { url = "https://…", secret = "env:ALERTS_SECRET" }
    hookmill.toml:5:9: alerts.email: `[email]` is not configured
      hint: add [email] with `provider` and `from`
    hookmill.toml:6:10: alerts.repeat: found 1m
      hint: expected a duration from 10m to 30d
    hookmill.toml:7:16: alerts.dead_letters: found 0
      hint: expected a whole number from 1 to 10000
    hookmill.toml:5:19: alerts.webhook.url: found "http://a.test"
      hint: expected https://
    hookmill.toml:5:19: alerts.webhook.url: the URL contains a secret
      hint: put the URL into an environment variable: url = "env:ALERTS_URL"
    hookmill.toml:5:61: alerts.webhook.secret: not the name of a secret; never write a secret into this file
      hint: put the secret into an environment variable and use its name: "env:ALERTS_SECRET"
    hookmill.toml:5:19: alerts.webhook.url: not the name of a secret; never write a secret into this file
      hint: put the secret into an environment variable and use its name: "env:ALERTS_URL"
    hookmill.toml:6:1: alerts: unknown key `oldest`
      hint: possible here: `name`, `email`, `webhook`, `oldest_dead_letter`, `dead_letters`, `lag`, `database`, `repeat`
    hookmill.toml:4:11: sources.s.redact[0]: found "a..b": not a valid path
      hint: expected a path with names separated by `.`, such as `data.object.email`, `lines.*.name` or `**.email`
    hookmill.toml:4:19: sources.s.redact[1]: found a whole number
      hint: expected a path with names separated by `.`, such as `data.object.email`, `lines.*.name` or `**.email`
    "#);
}

#[test]
fn errors_of_a_scheme_are_reported_with_hints() {
    let source = |lines: &str| errors(&format!("[sources.s]\nsecrets = [\"env:A\"]\n{lines}"));
    insta::assert_snapshot!([
            source("scheme = \"paypal\""),
            source("scheme = \"githab\""),
            source("scheme = \"twilio\"\ntolerance = \"5m\""),
            source("scheme = \"square\"\npublic_url = \"https://a.test/?x=1\""),
            source("scheme = \"hmac\"\ntolerance = \"2d\""),
            source("scheme = \"hmac\"\nalgorithm = \"md5\"\nkey = \"raw\"\nsignature = { header = \"X\", body = \"a\", encoding = \"hex\", list = \",,\" }\npayload = \"{time}.{body}\"\nevent = { id = [], type = 1, many = 1, kind = \"x\" }"),
            source("scheme = \"hmac\"\nsignature = { header = \"X\", encoding = \"hex\" }\ntimestamp = { list = \"t\" }\npayload = \"{header:T}{body\"\nevent = { id = \"id\", type = \"type\" }"),
            source("scheme = \"hmac\"\nsignature = { header = \"X\", encoding = \"hex\" }\npayload = \"{timestamp}\"\nevent = { id = \"id\", type = \"type\" }"),
            source("scheme = \"hmac\"\nsignature = { header = \"X\", encoding = \"hex\" }\ntimestamp = { header = \"T\", unit = \"h\" }\npayload = \"{body}\"\nevent = { id = \"id\", type = \"type\" }\nresponse = { status = 404, content_type = \"ä\" }\n[[sources.s.handshake]]\nwhen = { \"a..b\" = 1.5 }\nechoes = \"x\""),
            source("scheme = \"github\"\nfamilies = [\"svix\"]"),
            source("scheme = \"standard-webhooks\"\nfamilies = []\nevent = { id = \"id\", type = \"type\" }"),
        ].join("\n"), @r#"
    hookmill.toml:3:10: sources.s.scheme: PayPal signs with a certificate that the recipient must fetch; Hookmill does not support this
      hint: verify PayPal's events in your own service (POST /v1/notifications/verify-webhook-signature)
    hookmill.toml:3:10: sources.s.scheme: found "githab"
      hint: did you mean `github`?
    hookmill.toml:3:10: sources.s.scheme: this scheme signs the URL and needs `public_url`
      hint: add the URL exactly as registered with the provider: public_url = "https://hooks.example.com/webhooks/…"
    hookmill.toml:4:13: sources.s.tolerance: the scheme "twilio" does not sign a time
    hookmill.toml:4:14: sources.s.public_url: "https://a.test/?x=1" has a query or a fragment; remove it: Hookmill takes the query from each request
      hint: expected a URL such as "https://hooks.example.com/webhooks/twilio"
    hookmill.toml:4:13: sources.s.tolerance: found 2d
      hint: expected a duration from 1s to 1d
    hookmill.toml:4:13: sources.s.algorithm: found "md5"
      hint: possible here: `sha1`, `sha256`, `sha512`
    hookmill.toml:5:7: sources.s.key: found "raw"
      hint: possible here: `text`, `hex`, `base64`
    hookmill.toml:6:13: sources.s.signature: expected exactly one place
      hint: add one of header = "X-Name", body = "a.path"
    hookmill.toml:6:66: sources.s.signature.list: found ",,": not a single character
      hint: expected one character, such as ","
    hookmill.toml:7:11: sources.s.payload: found {time}
      hint: possible here: {timestamp}, {method}, {url}, {plain_url}, {body}, {header:NAME}, {header:NAME:LENGTH}, {body:PATH}, and literal characters
    hookmill.toml:8:16: sources.s.event.id: no path is given
      hint: expected a path such as "data.id", "header:X-Name", "hash:body", "hash:signed", or a list of these
    hookmill.toml:8:27: sources.s.event.type: found a whole number
      hint: expected a path such as "data.id", "header:X-Name", "hash:body", "hash:signed", or a list of these
    hookmill.toml:8:37: sources.s.event.many: found a whole number
      hint: expected true or false
    hookmill.toml:8:40: sources.s.event: unknown key `kind`
      hint: possible here: `id`, `type`, `default`, `many`, `hash`, `object`, `api_version`
    hookmill.toml:6:11: sources.s.payload: missing a closing brace
      hint: possible here: {timestamp}, {method}, {url}, {plain_url}, {body}, {header:NAME}, {header:NAME:LENGTH}, {body:PATH}, and literal characters
    hookmill.toml:5:11: sources.s.payload: `payload` contains `{timestamp}` but `timestamp` is missing
      hint: add the place of the time: timestamp = { header = "X-Timestamp" }
    hookmill.toml:5:11: sources.s.payload: `payload` does not sign the body
      hint: possible here: {timestamp}, {method}, {url}, {plain_url}, {body}, {header:NAME}, {header:NAME:LENGTH}, {body:PATH}, and literal characters
    hookmill.toml:6:9: sources.s.event: the signature covers neither the body nor this id, so an attacker could reuse one signature for many events
      hint: use the hash of the signed bytes: id = "hash:signed"
    hookmill.toml:5:36: sources.s.timestamp.unit: found "h"
      hint: did you mean `s`?
    hookmill.toml:6:11: sources.s.payload: `payload` does not sign `{timestamp}`, so the timestamp can be forged (sources.s.timestamp)
      hint: add `{timestamp}` if the provider signs it; otherwise remove `timestamp`
    hookmill.toml:8:23: sources.s.response.status: found 404
      hint: expected a whole number from 200 to 299
    hookmill.toml:8:43: sources.s.response.content_type: a header can contain only ASCII characters
    hookmill.toml:10:10: sources.s.handshake[0].when.a..b: expected a name at character 3
    hookmill.toml:10:19: sources.s.handshake[0].when.a..b: found a number
      hint: expected a string, a whole number or a boolean
    hookmill.toml:11:1: sources.s.handshake[0]: unknown key `echoes`
      hint: did you mean `echo`?
    hookmill.toml:4:12: sources.s.families: `families` does not apply to the scheme "github"
      hint: remove `families`
    hookmill.toml:4:12: sources.s.families: the list is empty
      hint: expected a list of header prefixes, such as ["svix", "webhook"]
    hookmill.toml:5:9: sources.s.event: Standard Webhooks sends the id of an event in a header
      hint: remove `id`, `many` and `hash`
    "#);
}

#[test]
fn contradictions_in_a_scheme_are_reported() {
    let source =
        |name: &str, more: &str| format!("[sources.{name}]\nsecrets = [\"env:A\"]\n{more}\n");
    let hmac = "scheme = \"hmac\"\npayload = \"{timestamp}{body}\"\nevent = { id = \"id\", type = \"type\" }\n";
    let text = [
        source("a", "scheme = \"github\"\npublic_url = \"https://hooks.example.com/a\""),
        source(
            "b",
            "scheme = \"token\"\nsignature = { header = \"X-T\" }\ntimestamp = { header = \"X-At\" }\nevent = { id = \"X-Acme-Id\", type = \"type\" }",
        ),
        source(
            "c",
            &format!(
                "{hmac}signature = {{ header = \"X-S\", list = \",\", key = \"t\", encoding = \"hex\", prefix = \"v1=\" }}\ntimestamp = {{ list = \"t\" }}"
            ),
        ),
        source(
            "d",
            &format!(
                "{hmac}signature = {{ header = \"X-S\", encoding = \"hex\" }}\ntimestamp = {{ header = \"x-s\" }}"
            ),
        ),
        source(
            "e",
            &format!(
                "{hmac}signature = {{ body = \"s\", encoding = \"hex\" }}\ntimestamp = {{ body = \"s\" }}"
            ),
        ),
    ];
    let more = [
        source(
            "f",
            "scheme = \"hmac\"\npayload = \"{body}\"\nsignature = { body = \"sig\", encoding = \"hex\" }\nevent = { id = \"id\", type = \"hash:body\", default = \"\" }",
        ),
        source(
            "g",
            "scheme = \"hmac\"\npayload = \"{header:x-s}{body}\"\nsignature = { header = \"X-S\", list = \"=\", key = \"a\", encoding = \"hex\" }\nevent = { id = \"id\", type = \"type\" }\nresponse = { status = 204, body = \"x\" }",
        ),
        source("h", "scheme = \"stripe\"\npayload = \"{body}\""),
        source(
            "i",
            "scheme = \"token\"\nsignature = { header = \"Authorization\", prefix = \" bearer \" }\nevent = { id = \"id\", type = \"type\" }",
        ),
    ];
    insta::assert_snapshot!(errors(&more.concat()), @r#"
        hookmill.toml:4:11: sources.f.payload: `payload` contains the signature itself; remove it
        hookmill.toml:6:29: sources.f.event.type: a hash cannot be the type, since no rule could match it
        hookmill.toml:6:52: sources.f.event.default: the type is blank; set it or remove it
        hookmill.toml:10:11: sources.g.payload: `payload` contains the signature itself; remove it
        hookmill.toml:10:11: sources.g.payload: no fixed characters separate `{header:x-s}` from `{body}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them, or add the length of the first if it is fixed: {header:x-s:36}; without either, Hookmill cannot verify this provider safely
        hookmill.toml:11:38: sources.g.signature.list: found "=": `=` separates keys from values
          hint: expected one character, such as ","
        hookmill.toml:13:35: sources.g.response.body: a response with status 204 cannot have a body; remove `body`
        hookmill.toml:17:11: sources.h.payload: `payload` does not sign `{timestamp}`, so the timestamp can be forged (timestamp)
          hint: add `{timestamp}` if the provider signs it; otherwise remove `timestamp`
        hookmill.toml:21:50: sources.i.signature.prefix: a header value cannot begin with whitespace; remove it from `prefix`
        "#);
    insta::assert_snapshot!(errors(&text.concat()), @r#"
        hookmill.toml:4:14: sources.a.public_url: the scheme "github" does not sign the URL
        hookmill.toml:9:13: sources.b.timestamp: the scheme `token` does not sign the time, so it can be forged; remove `timestamp`
        hookmill.toml:10:16: sources.b.event.id: found "X-Acme-Id", a path in the body
          hint: for a header: "header:X-Acme-Id"; for a path in the body: '["X-Acme-Id"]'
        hookmill.toml:16:81: sources.c.signature.prefix: a list with `key` cannot have a `prefix`; remove it
        hookmill.toml:17:13: sources.c.timestamp: the time has the same place as the signature; give it another place
        hookmill.toml:24:13: sources.d.timestamp: the time has the same place as the signature; give it another place
        hookmill.toml:28:11: sources.e.payload: `payload` contains the signature itself; remove it
        hookmill.toml:31:13: sources.e.timestamp: the time has the same place as the signature; give it another place
        "#);
}

#[test]
fn alternatives_are_read_and_their_errors_reported() {
    let source = |signature: &str, event: &str| {
        format!(
            "[sources.s]\nscheme = \"hmac\"\nsecrets = [\"env:A\"]\nsignature = {signature}\ntimestamp = {{ header = [\"X-T\", \"T\"] }}\npayload = \"{{timestamp}}.{{body}}\"\nevent = {event}\n"
        )
    };
    let list = "{ header = [\"X-S\", \"S\"], list = \",\", prefix = \"v1=\", encoding = \"hex\" }";
    let event =
        "{ id = [[\"header:X-Id\", \"id\"], [\"hash:body\"]], type = [[\"a\", \"b\"], \"c\"] }";
    let (config, _) = parse("hookmill.toml", &source(list, event));
    let Events { id, kind, hash, .. } = &config.ingress.sources[0].events;
    assert!(matches!(&id[..], [NamePart::Either(ids), NamePart::BodyHash] if ids.len() == 2));
    assert!(matches!(&kind[..], [NamePart::Either(_), NamePart::Body(..)]));
    // One of the alternatives is not signed.
    assert!(hash);
    insta::assert_snapshot!([
            errors(&source("{ header = [], encoding = \"hex\" }", "{ id = [[]], type = [[\"type\", \"hash:body\"]] }")),
            errors(&source("{ header = [\"X-S\", \"t\"], encoding = \"hex\" }", "{ id = [[\"X-Id\", [\"a\"]]], type = \"type\" }")),
            errors(&source(list, event).replace("header = [\"X-T\", \"T\"]", "list = \"t\"")),
        ].join("\n"), @r#"
    hookmill.toml:4:24: sources.s.signature.header: no header is given
      hint: expected the name of a header, or a list of names
    hookmill.toml:7:17: sources.s.event.id[0]: no path is given
      hint: expected a path such as "data.id", "header:X-Name", "hash:body", "hash:signed", or a list of these
    hookmill.toml:7:29: sources.s.event.type: a hash cannot be the type, since no rule could match it
    hookmill.toml:5:13: sources.s.timestamp: the time has the same place as the signature; give it another place
    hookmill.toml:7:18: sources.s.event.id[0][0]: found "X-Id", a path in the body
      hint: for a header: "header:X-Id"; for a path in the body: '["X-Id"]'
    hookmill.toml:7:26: sources.s.event.id[0][1]: found a list
      hint: expected a path such as "data.id", "header:X-Name", "hash:body", "hash:signed", or a list of these
    hookmill.toml:5:13: sources.s.timestamp: the signature's header is not declared as a list with a `key`
      hint: declare it: signature = { header = "…", list = ",", key = "v1", encoding = "hex" }
    "#);
}

#[test]
fn an_expected_api_version_needs_its_place() {
    let source = |name: &str, scheme: &str, lines: &str| {
        format!("[sources.{name}]\nscheme = \"{scheme}\"\nsecrets = [\"env:A\"]\n{lines}\n")
    };
    let custom = |event: &str| {
        let lines = "signature = { header = \"X-T\" }\napi_version = \"v1\"\n";
        format!("{lines}event = {{ id = \"id\", type = \"type\"{event} }}")
    };
    let texts = [
        source("github", "github", "api_version = [\"2022-11-28\"]"),
        source("clerk", "clerk", "api_version = [\"2025-04-10\"]"),
        source("bare", "token", &custom("")),
        source("hashed", "token", &custom(", api_version = \"hash:body\"")),
        source("stripe", "stripe", "api_version = []"),
        source("shopify", "shopify", "api_version = [\"2024 07\", \"other\"]"),
    ];
    insta::assert_snapshot!(errors(&texts.concat()), @r#"
    hookmill.toml:4:15: sources.github.api_version: Hookmill does not know where events of this source state their API version
      hint: add the place to `event`: event = { …, api_version = "header:X-Api-Version" }; or remove `api_version`
    hookmill.toml:8:15: sources.clerk.api_version: Hookmill does not know where events of this source state their API version
      hint: add the place to `event`: event = { …, api_version = "header:X-Api-Version" }; or remove `api_version`
    hookmill.toml:13:15: sources.bare.api_version: Hookmill does not know where events of this source state their API version
      hint: add the place to `event`: event = { …, api_version = "header:X-Api-Version" }; or remove `api_version`
    hookmill.toml:20:51: sources.hashed.event.api_version: a hash is not a version; remove it, or add its place
    hookmill.toml:24:15: sources.stripe.api_version: no version is given
      hint: expected a version, or a list of versions
    hookmill.toml:28:16: sources.shopify.api_version[0]: "2024 07" is not an API version
      hint: a version has letters, digits and `.`, `_`, `-`, `+`, `:`, `/`, at most 64; `other` counts invalid versions
    hookmill.toml:28:27: sources.shopify.api_version[1]: "other" is not an API version
      hint: a version has letters, digits and `.`, `_`, `-`, `+`, `:`, `/`, at most 64; `other` counts invalid versions
    "#);
    let twilio = "public_url = \"https://a.test/b\"\napi_version = \"2010-04-01\"";
    let texts = [
        source("stripe", "stripe", "api_version = [\"2024-06-20\", \"2025-03-31.basil\"]"),
        source("shopify", "shopify", "api_version = \"2024-07\""),
        source("twilio", "twilio", twilio),
        source("zendesk", "zendesk", "api_version = \"2022-06-20\""),
        source("own", "token", &custom(", api_version = [\"header:X-V\", \"v\"]")),
        source(
            "svix",
            "svix",
            "event = { type = \"type\", api_version = \"v\" }\napi_version = \"v1\"",
        ),
        source("any", "stripe", ""),
    ];
    let (config, errors) = parse("hookmill.toml", &texts.concat());
    assert_eq!(errors, []);
    let sources: Vec<_> = config.api_versions.keys().map(String::as_str).collect();
    assert_eq!(sources, ["own", "shopify", "stripe", "svix", "twilio", "zendesk"]);
    assert_eq!(config.api_versions["stripe"], ["2024-06-20", "2025-03-31.basil"]);
}

#[test]
fn errors_of_challenges_are_reported() {
    let source = |scheme: &str, lines: &str| {
        format!("[sources.{scheme}]\nscheme = \"{scheme}\"\nsecrets = [\"env:A\"]\n{lines}\n")
    };
    let texts = [
        source("github", "challenge_token = \"env:B\"\ncompression = [\"zstd\"]"),
        source(
            "slack",
            "challenge_token = \"env:B\"\nchallenge = { when = { a = 1 }, echo = \"\" }",
        ),
        source(
            "linear",
            "challenge = { method = \"PUT\", token = \"t\", echo = \"e\", json = { a = \"{hmac}\", b = \"{echo} }\" } }",
        ),
        source(
            "discord",
            "[[sources.discord.handshake]]\nwhen = { type = 1 }\necho = \"a\"\njson = { a = \"{hmac}\" }",
        ),
        source(
            "zoom",
            "[[sources.zoom.handshake]]\nwhen = { type = 1 }\ncontent_type = \"a/b\"\njson = { a = \"{token}\" }",
        ),
    ];
    insta::assert_snapshot!(errors(&texts.concat()), @r#"
    hookmill.toml:4:19: sources.github.challenge_token: the source has no `challenge` with a token
      hint: remove it, or add `token` to `challenge`, the parameter with the token
    hookmill.toml:5:16: sources.github.compression[0]: found "zstd"
      hint: possible here: `gzip`, `deflate`, `br`
    hookmill.toml:9:19: sources.slack.challenge_token: the source has no `challenge` with a token
      hint: remove it, or add `token` to `challenge`, the parameter with the token
    hookmill.toml:10:28: sources.slack.challenge.when.a: found a whole number
      hint: expected the value of the parameter
    hookmill.toml:10:40: sources.slack.challenge.echo: the name is blank
    hookmill.toml:14:24: sources.linear.challenge.method: found "PUT"
      hint: did you mean `POST`?
    hookmill.toml:14:69: sources.linear.challenge.json.a: unknown placeholder
      hint: possible here: {echo}
    hookmill.toml:14:83: sources.linear.challenge.json.b: unknown placeholder
      hint: possible here: {echo}
    hookmill.toml:21:14: sources.discord.handshake[0].json.a: only the scheme `hmac` has a key for `{hmac}`; remove it
    hookmill.toml:27:16: sources.zoom.handshake[0].content_type: `json` is `application/json`; remove `content_type`
    hookmill.toml:28:8: sources.zoom.handshake[0].json: `json` needs `echo`, the path of the text to answer with
    hookmill.toml:28:14: sources.zoom.handshake[0].json.a: unknown placeholder
      hint: possible here: {echo}, {hmac}
    "#);
    let config = parse("hookmill.toml", &[source("meta", ""), source("stripe", "")].concat()).0;
    let [meta, stripe] = &config.ingress.sources[..] else { panic!("there are two sources") };
    assert!(meta.challenge.as_ref().is_some_and(|challenge| challenge.token.is_some()));
    assert_eq!((&meta.challenge_token, &stripe.challenge), (&None, &None));
    // A named scheme accepts no coding; a general one accepts all.
    assert!(stripe.compression.is_empty());
    let general = source("standard-webhooks", "");
    let config = parse("hookmill.toml", &general).0;
    assert_eq!(config.ingress.sources[0].compression.len(), 3);
}

#[test]
fn a_signature_that_could_be_several_events_is_reported() {
    let hmac = |name: &str, payload: &str, event: &str| {
        format!(
            "[sources.{name}]\nscheme = \"hmac\"\nsecrets = [\"env:A\"]\npublic_url = \"https://a.test/\"\nsignature = {{ header = \"X-S\", encoding = \"hex\" }}\ntimestamp = {{ header = \"X-T\" }}\npayload = \"{payload}\"\nevent = {event}\n"
        )
    };
    let event = "{ id = \"hash:signed\", type = \"type\" }";
    // Bytes can be moved between two parts of varying length.
    let apart = [
        ("a", "{url}{timestamp}{header:X-Id}{body}"),
        ("b", "{timestamp}{url}.{header:X-Id}{timestamp}{body}"),
        ("c", "{timestamp}{url}.{body:a}{body:b}"),
        ("d", "{timestamp}{body}{url}"),
        ("e", "{timestamp}{url}.{header:X-Id:0}.{body}"),
    ];
    insta::assert_snapshot!(errors(&apart.map(|(name, payload)| hmac(name, payload, event)).concat()), @r#"
        hookmill.toml:7:11: sources.a.payload: no fixed characters separate `{header:X-Id}` from `{body}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them, or add the length of the first if it is fixed: {header:X-Id:36}; without either, Hookmill cannot verify this provider safely
        hookmill.toml:7:11: sources.a.payload: no fixed characters separate `{url}` from `{header:X-Id}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them; without either, Hookmill cannot verify this provider safely
        hookmill.toml:15:11: sources.b.payload: no fixed characters separate `{header:X-Id}` from `{body}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them, or add the length of the first if it is fixed: {header:X-Id:36}; without either, Hookmill cannot verify this provider safely
        hookmill.toml:23:11: sources.c.payload: no fixed characters separate `{body:a}` from `{body:b}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them; without either, Hookmill cannot verify this provider safely
        hookmill.toml:31:11: sources.d.payload: no fixed characters separate `{body}` from `{url}`, so an attacker could move bytes from one to the other without changing the signature
          hint: add the characters that the provider signs between them; without either, Hookmill cannot verify this provider safely
        hookmill.toml:39:11: sources.e.payload: found {header:X-Id:0}: a length is a number from 1 to 256
          hint: possible here: {timestamp}, {method}, {url}, {plain_url}, {body}, {header:NAME}, {header:NAME:LENGTH}, {body:PATH}, and literal characters
        "#);
    // A part of known length has a known end: a time, a method, a header with a length. JSON has a known beginning.
    let together = [
        ("a", "{timestamp}{url}.{body}"),
        ("b", "{method}{url}{body}{timestamp}"),
        ("c", "{timestamp}{plain_url}{body}"),
        ("d", "{header:X-Id:36}{timestamp}{url}{body}"),
        ("e", "{header:X-Id}|{url}{timestamp}{header:X-Other:3}{body}"),
    ];
    assert_eq!(errors(&together.map(|(name, payload)| hmac(name, payload, event)).concat()), "");

    let open = "{timestamp}{url}.{body:token}";
    let more = [
            hmac("a", open, "{ id = \"id\", type = \"type\" }"),
            hmac("b", open, "{ id = [\"hash:signed\", \"header:X-Id\"], type = \"type\", hash = false }"),
            hmac("c", open, "{ id = \"hash:body\", type = \"type\" }"),
            hmac("d", open, "{ id = \"token\", type = \"type\", many = true }"),
            hmac("e", "{timestamp}{url}.{body}", "{ id = [\"id\", \"hash:signed\"], type = \"type\", many = true }"),
            hmac("f", open, "{ id = \"token\", type = \"hash:signed\" }"),
            hmac("g", open, event) + "unmatched = \"ignore\"\n",
            "[sources.h]\nscheme = \"token\"\nsecrets = [\"env:A\"]\nsignature = { header = \"X-T\" }\nevent = { id = \"hash:signed\", type = \"type\" }\n".to_owned(),
            "[sources.i]\nscheme = \"mailgun\"\nsecrets = [\"env:A\"]\nevent = { id = \"event-data.id\", type = \"event-data.event\" }\nunmatched = \"ignore\"\n".to_owned(),
            "[sources.j]\nscheme = \"token\"\nsecrets = [\"env:A\"]\nsignature = { body = \"[0].token\" }\nevent = { id = \"id\", type = \"type\", many = true }\n".to_owned(),
        ];
    insta::assert_snapshot!(errors(&more.concat()), @r#"
        hookmill.toml:8:9: sources.a.event: the signature covers neither the body nor this id, so an attacker could reuse one signature for many events
          hint: use the hash of the signed bytes: id = "hash:signed"
        hookmill.toml:16:9: sources.b.event: the signature covers neither the body nor this id, so an attacker could reuse one signature for many events
          hint: use the hash of the signed bytes: id = "hash:signed"
        hookmill.toml:24:9: sources.c.event: the signature covers neither the body nor this id, so an attacker could reuse one signature for many events
          hint: use the hash of the signed bytes: id = "hash:signed"
        hookmill.toml:32:9: sources.d.event: the signature does not cover the body, so an attacker could put many events into one request
          hint: remove `many`, so that each request is one event
        hookmill.toml:40:9: sources.e.event: all events of a request would get the same id
          hint: remove "hash:signed" from `id`
        hookmill.toml:48:32: sources.f.event.type: a hash cannot be the type, since no rule could match it
        hookmill.toml:57:13: sources.g.unmatched: the signature does not cover the body and an ignored event is not recorded, so an attacker could reuse the signature for another event
          hint: use "record" or "dead_letter"
        hookmill.toml:62:9: sources.h.event: the scheme `token` signs nothing to hash; use "hash:body" or a path
        hookmill.toml:66:9: sources.i.event: the signature covers neither the body nor this id, so an attacker could reuse one signature for many events
          hint: use the hash of the signed bytes: id = "hash:signed"
        hookmill.toml:67:13: sources.i.unmatched: the signature does not cover the body and an ignored event is not recorded, so an attacker could reuse the signature for another event
          hint: use "record" or "dead_letter"
        hookmill.toml:72:9: sources.j.event: the token is in the body, so the body must be one event
          hint: remove `many`, so that each request is one event
        "#);
}

#[test]
fn signatures_in_bodies_are_redacted() {
    let text = "[sources.mailgun]\nscheme = \"mailgun\"\nsecrets = [\"env:A\"]\nredact = [\"event-data.recipient\"]\n[sources.token]\nscheme = \"token\"\nsecrets = [\"env:A\"]\nsignature = { body = \"auth.secret\" }\nevent = { id = \"id\", type = \"type\" }\n[sources.linear]\nscheme = \"linear\"\nsecrets = [\"env:A\"]\n";
    let (config, faults) = parse("hookmill.toml", text);
    assert!(faults.is_empty(), "{faults:?}");
    let redactions = |places: &[&str]| places.iter().map(|place| place.parse().unwrap()).collect();
    assert_eq!(
        config.redact,
        BTreeMap::from([
            (
                "mailgun".to_owned(),
                redactions(&[
                    "event-data.recipient",
                    "signature.signature",
                    "signature.timestamp",
                    "signature.token",
                ]),
            ),
            ("token".to_owned(), redactions(&["auth.secret"])),
            ("linear".to_owned(), Vec::new()),
        ])
    );
}

#[test]
fn a_time_has_limits_on_both_sides() {
    let minutes = Duration::from_secs(300);
    for (scheme, more, past, future) in [
        ("stripe", "", 300, 300),
        ("stripe", "tolerance = \"1h\"\n", 3_600, 300),
        ("paddle", "", 30, 300),
        ("linear", "", 60, 60),
        ("mailgun", "", 43_200, 300),
        ("discord", "", 3_600, 300),
        ("sendgrid", "future_tolerance = \"1s\"\n", 86_400, 1),
    ] {
        let text = format!("[sources.s]\nscheme = \"{scheme}\"\nsecrets = [\"env:A\"]\n{more}");
        let source = parse("hookmill.toml", &text).0.ingress.sources.remove(0);
        let [past, future] = [past, future].map(Duration::from_secs);
        assert_eq!(source.tolerance, Some(Tolerance { past, future }), "{scheme} {more}");
    }
    // No scheme that signs a time does without.
    for scheme in scheme_names() {
        let text = format!(
            "[sources.s]\nscheme = \"{scheme}\"\nsecrets = [\"env:A\"]\npublic_url = \"https://a.test/\"\n"
        );
        let (config, _) = parse("hookmill.toml", &text);
        let Some(source) = config.ingress.sources.first() else { continue };
        let signs_time = match &source.scheme {
            Scheme::Template(template) => template.timestamp.is_some(),
            scheme => matches!(scheme, Scheme::StandardWebhooks { .. }),
        };
        assert_eq!(source.tolerance.is_some(), signs_time, "{scheme}");
        assert!(source.tolerance.is_none_or(|tolerance| tolerance.future <= minutes), "{scheme}");
    }
    // It cannot be switched off.
    insta::assert_snapshot!(errors("[sources.s]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\ntolerance = \"0s\"\nfuture_tolerance = \"0s\"\n"), @r#"
        hookmill.toml:4:13: sources.s.tolerance: found 0s
          hint: expected a duration from 1s to 1d
        hookmill.toml:5:20: sources.s.future_tolerance: found 0s
          hint: expected a duration from 1s to 1d
        "#);
}

#[test]
fn a_secret_may_have_an_end() {
    let text = "[sources.s]\nscheme = \"github\"\nsecrets = [\"env:A\", { name = \"env:B\", not_after = 2026-12-31T00:00:00Z }]\n";
    let (config, faults) = parse("hookmill.toml", text);
    assert!(faults.is_empty(), "{faults:?}");
    let secret = &config.ingress.sources[0].secrets[1];
    let end = Timestamp::parse_rfc3339("2026-12-31T00:00:00Z").unwrap();
    assert_eq!(secret.not_after, Some(end));
    assert!(!secret.expired(end) && secret.expired(Timestamp::from_millis(end.millis() + 1)));
    insta::assert_snapshot!(errors(&text.replace("2026-12-31T00:00:00Z", "\"tomorrow\"")), @"
        hookmill.toml:3:51: sources.s.secrets[1].not_after: found a string
          hint: expected a date and time with an offset, such as 2026-12-31T00:00:00Z
        ");
}

#[test]
fn every_error_is_reported_at_once_with_its_place_and_a_hint() {
    insta::assert_snapshot!(errors(r#"
surces = 1
[sources.Stripe]
scheme = "strip"
secrets = ["whsec_literal", "env:lower", "env:A", "env:A"]
tolerance = "5 minuts"
future_tolerance = "2d"
preset = "strype"
unmatched = "drop"
rate_limit = { requests = 0, per = "5s" }
tolerence = "5m"

[sources.clerk]
scheme = 5
secrets = []

[ingress]
body_limit = "1GB"
body_timeout = 10

[retry]
max_attempts = 0
initial = "1h"
max = "1m"
multiplier = 0.5
jitter = "some"

[queue]
batch_size = 101
batch_wait = "2m"
"#), @r#"
    hookmill.toml:2:1: unknown key `surces`
      hint: did you mean `sources`?
    hookmill.toml:3:10: sources.Stripe: invalid source name "Stripe"
      hint: the name is part of a URL: use a-z, 0-9, `-` and `_`, at most 64 characters
    hookmill.toml:4:10: sources.Stripe.scheme: found "strip"
      hint: did you mean `stripe`?
    hookmill.toml:5:12: sources.Stripe.secrets[0]: not the name of a secret; never write a secret into this file
      hint: put the secret into an environment variable and use its name: "env:STRIPE_WEBHOOK_SECRET"
    hookmill.toml:5:29: sources.Stripe.secrets[1]: not the name of a secret; never write a secret into this file
      hint: put the secret into an environment variable and use its name: "env:STRIPE_WEBHOOK_SECRET"
    hookmill.toml:5:51: sources.Stripe.secrets[3]: env:A is listed twice
    hookmill.toml:6:13: sources.Stripe.tolerance: found "5 minuts": unknown time unit "minuts", supported units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations)
      hint: expected a duration such as "5m"
    hookmill.toml:7:20: sources.Stripe.future_tolerance: found 2d
      hint: expected a duration from 1s to 1d
    hookmill.toml:8:10: sources.Stripe.preset: found "strype"
      hint: did you mean `stripe`?
    hookmill.toml:9:13: sources.Stripe.unmatched: found "drop"
      hint: possible here: `ignore`, `record`, `dead_letter`
    hookmill.toml:10:27: sources.Stripe.rate_limit.requests: found 0
      hint: expected a whole number from 1 to 4294967295
    hookmill.toml:10:36: sources.Stripe.rate_limit.per: found "5s"
      hint: possible here: `10s`, `1m`, `60s`
    hookmill.toml:11:1: sources.Stripe: unknown key `tolerence`
      hint: did you mean `tolerance`?
    hookmill.toml:14:10: sources.clerk.scheme: found a whole number
      hint: expected the name of a scheme
    hookmill.toml:15:11: sources.clerk.secrets: the list of secrets is empty
      hint: expected a list of names such as "env:STRIPE_WEBHOOK_SECRET"
    hookmill.toml:18:14: ingress.body_limit: found 953.7 MiB
      hint: expected a size from 1 B to 25.0 MiB
    hookmill.toml:19:16: ingress.body_timeout: found a whole number
      hint: expected a duration such as "5m"
    hookmill.toml:22:16: retry.max_attempts: found 0
      hint: expected a whole number from 1 to 100
    hookmill.toml:24:7: retry.max: `max` is shorter than `initial`
      hint: the delay grows from `initial` to `max`; raise `max` or lower `initial`
    hookmill.toml:25:14: retry.multiplier: found 0.5
      hint: expected a number from 1 to 10
    hookmill.toml:26:10: retry.jitter: found a string
      hint: expected a number from 0 to 1
    hookmill.toml:29:14: queue.batch_size: found 101
      hint: expected a whole number from 1 to 100
    hookmill.toml:30:14: queue.batch_wait: found 2m
      hint: expected a duration from 0s to 1m
    "#);
}

#[test]
fn a_contradictory_rule_is_rejected() {
    let rule = "[[rules]]\nname = \"a\"\ntable = \"t\"\nkey = { id = \"id\" }\nversion = \"v\"\n";
    let with = |lines: &str| errors(&format!("{GOOD}{rule}{lines}"));
    insta::assert_snapshot!([
            with("on = []\nset = { id = \"type\", x = [] }"),
            with("on = \"stripe:a b\""),
            with("on = \"stripe:a.*\"\ndelete = [\"stripe:a.gone\", \"b.gone\", \"*.gone\"]"),
            with("on = \"stripe:a.*\"\ntie = { precedence = { type = [\"a.b\", \"c\", \"a.b\"] } }"),
            with("on = \"stripe:a.*\"\ntie = { precedence = { column = \"x\", order = [] } }"),
            with("on = \"stripe:a.*\"\ntie = { precedence = [] }"),
            with("on = \"stripe:a.*\"\ntie = { precedence = [{ type = [\"a.b\", \"*\"] }, { type = [\"c\"] }, { path = \"x\" }] }"),
            with(&format!("on = \"stripe:a.*\"\ntie = {{ precedence = [{}] }}", "{ path = \"x\", order = [\"a\", \"b\", \"c\"] }, ".repeat(19))),
            with("on = \"stripe:a.*\"\neach = \"list\"\ntie = { precedence = { path = \"@.x\", order = [\"a\"] } }\ndelete = { \"@.x\" = 1 }"),
            with("on = \"stripe:a.*\"\nfinal = true"),
            with("on = \"stripe:a.*\"\ndelete = [{ x = { is = 1 } }, 5, \"c\"]"),
            errors(&format!("{GOOD}preset = \"clerk\"\n")),
        ].join("\n"), @r#"
    hookmill.toml:9:6: rule "a".on: the list of events is empty
      hint: add the events: on = ["stripe:invoice.*"]
    hookmill.toml:10:9: rule "a".set.id: `id` is part of the key
    hookmill.toml:10:26: rule "a".set.x: no path is given
      hint: expected a path, a list of paths (the first one found is used), or a table such as { value = … }
    hookmill.toml:9:6: rule "a".on: found "stripe:a b"
      hint: an event type cannot contain whitespace
    hookmill.toml:10:11: rule "a".delete[0]: `on` matches no event of type "stripe:a.gone"
      hint: add it to `on`, or name a type from there, without its source: "a.*"
    hookmill.toml:10:28: rule "a".delete[1]: `on` matches no event of type "b.gone"
      hint: add it to `on`, or name a type from there, without its source: "a.*"
    hookmill.toml:10:39: rule "a".tie.precedence.type[1]: `on` matches no event of type "c"
      hint: add it to `on`, or name a type from there, without its source: "a.*"
    hookmill.toml:10:44: rule "a".tie.precedence.type[2]: "a.b" is listed twice
    hookmill.toml:10:22: rule "a".tie.precedence: `x` is not set by this rule
    hookmill.toml:10:46: rule "a".tie.precedence.order: the list is empty
      hint: expected a list, weakest first
    hookmill.toml:10:22: rule "a".tie.precedence: the list is empty
      hint: expected precedence = { column = "status", order = ["trialing", "active"] }, or { type = ["*.created", "*"] }, or a list of such tables; or refetch = true
    hookmill.toml:10:58: rule "a".tie.precedence[1].type[0]: `on` matches no event of type "c"
      hint: add it to `on`, or name a type from there, without its source: "a.*"
    hookmill.toml:10:66: rule "a".tie.precedence[2]: `precedence` needs `column` and `order`, `path` and `order`, or `type`
      hint: expected precedence = { column = "status", order = ["trialing", "active"] }, or { type = ["*.created", "*"] }, or a list of such tables; or refetch = true
    hookmill.toml:10:22: rule "a".tie.precedence: its lists have too many combinations
      hint: shorten the lists: the product of their lengths, each plus 1, is at most 68719476736
    hookmill.toml:5:8: rule "a".name: `delete` asks for "@.x"
      hint: a deletion is about the whole list; to leave out an element, use `when`
    hookmill.toml:11:22: rule "a".tie.precedence: events about a list do not compare by its elements
      hint: precedence = { type = ["*.created", "*"] }, or the path of a value outside the list
    hookmill.toml:10:9: rule "a".final: `final` needs `delete`
      hint: add the event types that delete: delete = "*.deleted"
    hookmill.toml:10:17: rule "a".delete[0].x: invalid condition
      hint: expected a value, a list of values, { not = … }, { exists = true } or { exists = false }; quote a path with dots
    hookmill.toml:10:31: rule "a".delete[1]: found a whole number
      hint: expected an event type such as "customer.deleted" or "*.deleted"
    hookmill.toml:10:34: rule "a".delete[2]: `on` matches no event of type "c"
      hint: add it to `on`, or name a type from there, without its source: "a.*"
    hookmill.toml:4:10: sources.stripe.preset: this preset does not support the scheme "stripe"
      hint: scheme = "clerk" or "svix" or "standard-webhooks"
    "#);
}

#[test]
fn all_errors_of_a_rule_are_reported() {
    let text = format!(
        "{GOOD}{}",
        r#"
[[rules]]
name = "a"
on = ["stripe", "strip:invoice.paid", "stripe:"]
table = 3
key = { id = "data..id", other = [] }
version = ""
tie = { precedence = { column = "status" }, order = 1 }
set = { a = 5, b = ["x", 1] }
add = { n = 1.5 }
delete = true

[[rules]]
name = "b"
on = "stripe:*"
table = "t"
key = { id = "id" }
add = { n = 1 }

[[rules]]
name = "b"
on = "stripe:*"
table = "t"
"#
    );
    insta::assert_snapshot!(errors(&text), @r#"
    hookmill.toml:7:7: rule "a".on[0]: found "stripe"
      hint: expected an event such as "stripe:invoice.paid" or "stripe:invoice.*"
    hookmill.toml:7:17: rule "a".on[1]: no source has the name `strip`
      hint: did you mean `stripe`?
    hookmill.toml:7:39: rule "a".on[2]: found "stripe:"
      hint: the type of the event is missing; `*` means every type
    hookmill.toml:8:9: rule "a".table: found a whole number
      hint: expected the name of a table
    hookmill.toml:9:14: rule "a".key.id: found "data..id": expected a name at character 6
      hint: expected a path such as "data.object.id"
    hookmill.toml:9:34: rule "a".key.other: no path is given
      hint: expected a path, a list of paths (the first one found is used), or a table such as { value = … }
    hookmill.toml:10:11: rule "a".version: found "": expected a name at character 1
      hint: expected a path such as "data.object.id"
    hookmill.toml:11:22: rule "a".tie.precedence: `precedence` needs `column` and `order`, `path` and `order`, or `type`
      hint: expected precedence = { column = "status", order = ["trialing", "active"] }, or { type = ["*.created", "*"] }, or a list of such tables; or refetch = true
    hookmill.toml:11:45: rule "a".tie: unknown key `order`
      hint: possible here: `precedence`, `refetch`
    hookmill.toml:12:13: rule "a".set.a: found a whole number
      hint: expected a path, a list of paths (the first one found is used), or a table such as { value = … }
    hookmill.toml:12:26: rule "a".set.b[1]: found a whole number
      hint: expected a path such as "data.object.id"
    hookmill.toml:13:9: rule "a".add.n: a rule with a `version` cannot `add`
      hint: count in a separate table, with a rule without `version` and `set`
    hookmill.toml:13:13: rule "a".add.n: found a number
      hint: expected a whole number, or a path
    hookmill.toml:14:10: rule "a".delete: found a boolean
      hint: expected an event type such as "customer.deleted" or "*.deleted"
    hookmill.toml:23:1: rule "b": `key` is missing
      hint: add the row's key: key = { id = "data.object.id" }
    hookmill.toml:24:8: rule "b".name: the rule needs `version` or `add`
      hint: add what orders the events (version = "created"), or what to count (add = { total = 1 })
    hookmill.toml:24:8: rule "b".name: two rules have the name "b"
    "#);
}

#[test]
fn syntax_errors_are_reported_with_their_places() {
    insta::assert_snapshot!(errors("[sources.stripe\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\nx = \n"), @"
    hookmill.toml:1:16: unclosed table, expected `]`
      1 | [sources.stripe
        |                ^
    ");
}

#[test]
fn a_literal_secret_is_never_quoted() {
    let text = errors("[sources.s]\nscheme = \"stripe\"\nsecrets = [\"whsec_hunter2\"]\n");
    assert!(text.contains("sources.s.secrets[0]") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_rule_takes_the_place_of_the_presets_rule_of_its_name() {
    let text = format!(
        "{GOOD}preset = \"stripe\"\n[[rules]]\nname = \"stripe-customers\"\non = \"stripe:customer.created\"\ntable = \"mine\"\nkey = {{ id = \"data.object.id\" }}\nversion = \"created\"\n"
    );
    let (config, errors) = parse("hookmill.toml", &text);
    assert_eq!(errors, []);
    let named: Vec<_> =
        config.rules.iter().filter(|rule| rule.name.value == "stripe-customers").collect();
    assert!(
        matches!(&named[..], [rule] if matches!(&rule.effect, EffectDecl::Table(table) if table.table.value == "mine"))
    );
}

/// Two accounts of a provider with one preset.
fn two_accounts(preset: &str) -> String {
    format!(
        "[sources.eu]\nscheme = \"{preset}\"\nsecrets = [\"env:A\"]\npreset = \"{preset}\"\n\
         [sources.us]\nscheme = \"{preset}\"\nsecrets = [\"env:B\"]\npreset = \"{preset}\"\n"
    )
}

#[test]
fn events_of_two_sources_do_not_write_the_same_rows_of_a_preset() {
    insta::assert_snapshot!(errors(&two_accounts("paddle")), @r#"
    hookmill.toml:8:10: sources.us.preset: `eu` has the preset "paddle" too, so events of `eu` and `us` would write the same rows of `paddle_customers` and 6 other tables
      hint: use a hookmill.toml and a data folder for each account, such as test and live; list several secrets of one account in one source; or replace the preset's rules with rules of the same names that have { event = "source" } in `key`
    "#);
    let rule = |name: &str, key: &str| {
        format!(
            "[[rules]]\nname = \"{name}\"\non = [\"eu:a\", \"us:a\"]\ntable = \"t\"\nkey = {{ {key} }}\nversion = \"v\"\n"
        )
    };
    let replaced = |key: &str| {
        let items = rule("paddle-subscription-items", &format!("{key}, item = \"@.id\""));
        let names =
            ["customers", "subscriptions", "transactions", "adjustments", "products", "prices"];
        names.map(|name| rule(&format!("paddle-{name}"), key)).concat()
            + &items
            + "each = \"items\"\n"
    };
    let separate = replaced("source = { event = \"source\" }, id = \"id\"");
    assert_eq!(errors(&format!("{}{separate}", two_accounts("paddle"))), "");
    // A rule that replaces the preset's keeps the sources apart as well, or it is an error.
    let mixed = replaced("id = \"id\"");
    insta::assert_snapshot!(errors(&format!("{}{mixed}", two_accounts("paddle"))), @r#"
    hookmill.toml:8:10: sources.us.preset: `eu` has the preset "paddle" too, so events of `eu` and `us` would write the same rows of `t`
      hint: use a hookmill.toml and a data folder for each account, such as test and live; list several secrets of one account in one source; or replace the preset's rules with rules of the same names that have { event = "source" } in `key`
    "#);
}

#[test]
fn a_preset_is_about_every_source_that_has_it() {
    // It writes no tables of its own.
    let (config, errors) = parse("hookmill.toml", &two_accounts("resend"));
    assert_eq!(errors, []);
    let sources: BTreeSet<_> =
        config.rules[0].on.iter().map(|pattern| pattern.source.as_str()).collect();
    assert_eq!(sources, BTreeSet::from(["eu", "us"]));
}

/// An API's URL gets a key with each request, and the issuer's keys decide who is let in.
#[test]
fn only_urls_of_this_machine_may_be_without_tls() {
    for (url, is_private) in [
        ("https://api.example.com/v1", true),
        ("http://localhost", true),
        ("http://LOCALHOST:8080/a", true),
        ("http://127.0.0.1:1", true),
        ("http://127.9.8.7", true),
        ("http://[::1]:8080", true),
        ("http://localhost.evil.example", false),
        ("http://127.0.0.1.evil.example", false),
        ("http://[::1].evil.example", false),
        ("http://localhost:80.evil.example", false),
        ("http://[::2]", false),
        ("http://128.0.0.1", false),
        ("http://api.example.com", false),
        ("https://", false),
        ("https:///path", true),
        ("ftp://localhost", false),
        ("localhost", false),
    ] {
        let api = format!("{GOOD}api = {{ url = \"{url}\" }}\n");
        let access = format!(
            "{GOOD}[admin.access]\nissuer = \"{url}\"\naudience = \"0123456789abcdef\"\noperators = []\n"
        );
        for text in [api, access] {
            assert_eq!(errors(&text).is_empty(), is_private, "{url}: {}", errors(&text));
        }
    }
}

/// One error must hide no other.
#[test]
fn an_error_hides_no_other() {
    insta::assert_snapshot!([
        // Without sources.
        errors("[source.stripe]\n[[rules]]\nname = \"a\"\non = \"stripe:*\"\ntable = \"t\"\nversin = \"v\"\n[alerts]\nemail = \"a@b.test\"\n"),
        // A rule without a name.
        errors(&format!("{GOOD}[[rules]]\non = \"strpe:*\"\ntable = \"t\"\ntombstone = false\n")),
        // A source without secrets.
        errors("[sources.s]\nscheme = \"twilio\"\ntolerance = \"5m\"\n"),
        // Emails without a sender.
        errors(&format!("{GOOD}[email]\nprovider = \"resend\"\nfallback = \"resend\"\n[templates.a]\nsubjet = \"a\"\n")),
        // A condition with a wrong path and a wrong value.
        errors(&format!("{GOOD}[[rules]]\nname = \"a\"\non = \"stripe:*\"\nsuppress = {{ address = \"a\", reason = \"b\" }}\nwhen = {{ \"a..b\" = {{ exist = true }}, c = {{ exists = 1 }} }}\n")),
        // A token has no encoding, and Standard Webhooks no `many`.
        errors("[sources.s]\nscheme = \"token\"\nsecrets = [\"env:A\"]\nkey = \"hex\"\nsignature = { header = \"X\", encoding = \"hex\" }\nevent = { id = \"id\", type = \"t\" }\n"),
        errors("[sources.s]\nscheme = \"svix\"\nsecrets = [\"env:A\"]\nevent = { type = \"type\", many = false }\n"),
    ].join("\n"), @r#"
    hookmill.toml:1:2: unknown key `source`
      hint: did you mean `sources`?
    hookmill.toml:4:6: rule "a".on: no source has the name `stripe`
    hookmill.toml:6:1: rule "a": unknown key `versin`
      hint: did you mean `version`?
    hookmill.toml:8:9: alerts.email: `[email]` is not configured
      hint: add [email] with `provider` and `from`
    hookmill.toml:5:6: rules[0].on: no source has the name `strpe`
      hint: did you mean `stripe`?
    hookmill.toml:7:13: rules[0].tombstone: `tombstone` needs `delete`
      hint: add the event types that delete: delete = "*.deleted"
    hookmill.toml:2:10: sources.s.scheme: this scheme signs the URL and needs `public_url`
      hint: add the URL exactly as registered with the provider: public_url = "https://hooks.example.com/webhooks/…"
    hookmill.toml:3:13: sources.s.tolerance: the scheme "twilio" does not sign a time
    hookmill.toml:6:12: email.fallback: `fallback` is the same as `provider`
      hint: use another provider, or remove `fallback`
    hookmill.toml:8:1: templates.a: unknown key `subjet`
      hint: did you mean `subject`?
    hookmill.toml:8:10: rule "a".when.a..b: found "a..b": expected a name at character 3
      hint: expected a path such as "data.object.status"
    hookmill.toml:8:19: rule "a".when.a..b: invalid condition
      hint: expected a value, a list of values, { not = … }, { exists = true } or { exists = false }; quote a path with dots
    hookmill.toml:8:52: rule "a".when.c.exists: found a whole number
      hint: expected true or false
    hookmill.toml:4:7: sources.s.key: `key` does not apply to the scheme "token"
      hint: remove `key`
    hookmill.toml:5:13: sources.s.signature: a token has no encoding; remove `encoding`
    hookmill.toml:4:9: sources.s.event: Standard Webhooks sends the id of an event in a header
      hint: remove `id`, `many` and `hash`
    "#);
}
