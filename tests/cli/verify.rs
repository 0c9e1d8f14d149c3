//! `hookmill verify`.

use std::io::Write as _;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use hookmill_tests::folder;
use hookmill_tests::native::binary;
use serde_json::Value;

use crate::{hookmill, shown};

/// `hookmill verify` for a request to a source of the contract, captured in a file.
fn verified(source: &str, query: &str, request: &[u8], more: &[&str]) -> String {
    let temporary = tempfile::tempdir().unwrap();
    let config = folder().join("hookmill.toml");
    let mut raw = format!("POST /webhooks/{source}{query} HTTP/1.1\r\n").into_bytes();
    raw.extend_from_slice(request);
    std::fs::write(temporary.path().join("request"), raw).unwrap();
    let config = config.to_str().unwrap();
    let arguments = ["verify", source, "--dev", "--config", config, "--request", "request"];
    shown(temporary.path(), &[&arguments, more].concat())
}

/// The headers and the body of a signed request, as files.
fn captured(source: &str, kind: &str, query: Option<&str>, body: &[u8]) -> (String, Vec<u8>) {
    let signed = hookmill_tests::event::signed(source, kind, "id-1", query, body);
    let headers: Vec<_> =
        signed.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    (headers.concat(), signed.body)
}

#[test]
fn a_captured_request_is_verified_and_its_errors_are_explained() {
    let body = b"{\"action\":\"opened\"}\n";
    let (headers, _) = captured("github", "issues.opened", None, body);
    let with = |body: &[u8]| [headers.as_bytes(), b"\r\n", body].concat();
    insta::assert_snapshot!(verified("github", "", &with(body), &[]), @"
    exit code 0
    --- stdout
    valid, by the development secret of TEST_GITHUB_SECRET
      event id-1.7f5afcaadb74a4379117e850aaa23aeb of type issues.opened
      signature: HMAC-SHA256 over `{body}`
      body: 20 bytes, SHA-256 7f5afcaadb74a4379117e850aaa23aeb60296d0fda92e38718e18969ae598078
    --- stderr
    ");
    insta::assert_snapshot!(verified("github", "", &with(body), &["--json"]), @r#"
    exit code 0
    --- stdout
    {"causes":[],"detail":null,"event":{"id":"id-1.7f5afcaadb74a4379117e850aaa23aeb","secret":0,"type":"issues.opened"},"events":[{"id":"id-1.7f5afcaadb74a4379117e850aaa23aeb","type":"issues.opened"}],"handshake":false,"reason":null,"valid":true}
    --- stderr
    "#);
    insta::assert_snapshot!(verified("github", "", &with(&body[..19]), &[]), @"
    exit code 1
    --- stdout
    not valid: no_matching_signature: the request was signed with another secret, or changed in transit
      signature: HMAC-SHA256 over `{body}`
      body: 19 bytes, SHA-256 d592421cfe150deec6c49b8989cc99478e39c7f8cdd4c36f5b1c4cfeff394e24
      likely: the body was changed in transit: its final line ending was removed
    --- stderr
    error: not valid: no_matching_signature
    ");
    insta::assert_snapshot!(verified("github", "", &with(b"{ \"action\": \"opened\" }\n"), &["--json"]), @r#"
    exit code 1
    --- stdout
    {"causes":["the body was changed in transit: whitespace was added to the JSON"],"detail":"the request was signed with another secret, or changed in transit","event":null,"events":null,"handshake":false,"reason":"no_matching_signature","valid":false}
    --- stderr
    error: not valid: no_matching_signature
    "#);
    let twice = [headers.as_bytes(), headers.as_bytes(), b"\r\n", body].concat();
    insta::assert_snapshot!(verified("github", "", &twice, &[]), @"
    exit code 1
    --- stdout
    not valid: malformed_header: X-Hub-Signature-256 was sent more than once
      signature: HMAC-SHA256 over `{body}`
      body: 20 bytes, SHA-256 7f5afcaadb74a4379117e850aaa23aeb60296d0fda92e38718e18969ae598078
      sent more than once: x-github-delivery
      sent more than once: x-github-event
      sent more than once: x-hub-signature-256
    --- stderr
    error: not valid: malformed_header
    ");
}

#[test]
fn the_coding_of_a_body_is_explained() {
    let body = b"{\"type\":\"a\"}";
    let gzip = |body: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    // The lines about what is wrong.
    let verified = |source: &str, headers: &str, coding: &str, body: &[u8]| {
        let head = format!("{headers}Content-Encoding: {coding}\r\n\r\n");
        let shown = verified(source, "", &[head.as_bytes(), body].concat(), &[]);
        let lines = shown.lines().filter(|line| {
            ["valid", "not valid", "  Content", "  likely"]
                .iter()
                .any(|start| line.starts_with(start))
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let (bare, _) = captured("bare", "", None, body);
    let (github, _) = captured("github", "issues.opened", None, body);
    let (compressed, _) = captured("bare", "", None, &gzip(body));
    insta::assert_snapshot!([
        verified("bare", &bare, "gzip", &gzip(body)),
        verified("bare", &bare, "gzip", body),
        verified("bare", &compressed, "gzip", &gzip(body)),
        verified("github", &github, "gzip", &gzip(body)),
        verified("github", &github, "br", body),
        verified("bare", &bare, "zstd", body),
    ].join("\n"), @"
    valid, by the development secret of TEST_BARE_SECRET
      Content-Encoding: gzip
    not valid: malformed_body: the body is not valid gzip, as its Content-Encoding says
      Content-Encoding: gzip
      likely: the signature fits the body as it is: a proxy decompressed it and left the header Content-Encoding
    not valid: no_matching_signature: the request was signed with another secret, or changed in transit
      Content-Encoding: gzip
      likely: the signature covers the compressed body, which Hookmill does not support; have the provider send bodies without Content-Encoding
    not valid: unsupported_encoding: this source accepts no Content-Encoding; have the provider send bodies without one
      Content-Encoding: gzip
      likely: the signature fits the decompressed body; add its Content-Encoding to `compression` of the source
    not valid: unsupported_encoding: this source accepts no Content-Encoding; have the provider send bodies without one
      Content-Encoding: br
      likely: the signature fits the body as it is: a proxy decompressed it and left the header Content-Encoding
    not valid: unsupported_encoding: this source accepts one Content-Encoding of gzip, deflate, br
      Content-Encoding: zstd
      likely: the signature fits the body as it is: a proxy decompressed it and left the header Content-Encoding
    ");
}

#[test]
fn a_wrong_public_url_is_found() {
    let (headers, body) = captured("twilio", "", Some("a=1"), b"MessageSid=SM1");
    let request = [headers.as_bytes(), b"\r\n", &body].concat();
    insta::assert_snapshot!(verified("twilio", "?a=1", &request, &[]), @"
    exit code 0
    --- stdout
    valid, by the development secret of TEST_TWILIO_TOKEN
      event SM1 of type message.received
      signature: HMAC-SHA1 over the URL and the sorted fields of the form
      body: 14 bytes, SHA-256 08aa5633689ea1f6d7404c0fd841aa872282c9d830645e8fa85420661b20692c
      URL: https://hooks.test/webhooks/twilio?a=1
    --- stderr
    ");
    let config = std::fs::read_to_string(folder().join("hookmill.toml")).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let config = config
        .replace("https://hooks.test", "http://hooks.test")
        .replace("[database]\nmigrations = \"migrations\"\n", "");
    let sources = config.split("[[rules]]").next().unwrap();
    let config_text = sources.to_owned();
    std::fs::write(temporary.path().join("hookmill.toml"), sources).unwrap();
    std::fs::write(temporary.path().join("body"), &body).unwrap();
    let arguments: Vec<_> = headers.lines().flat_map(|line| ["--header", line]).collect();
    let parts = ["verify", "twilio", "--body-file", "body", "--dev", "--url"];
    let url = |url| shown(temporary.path(), &[&parts, &[url][..], &arguments].concat());
    insta::assert_snapshot!(url("https://hooks.test/webhooks/twilio?a=1"), @"
    exit code 1
    --- stdout
    not valid: no_matching_signature: the request was signed with another auth token or for another URL than `public_url`, or changed in transit
      signature: HMAC-SHA1 over the URL and the sorted fields of the form
      body: 14 bytes, SHA-256 08aa5633689ea1f6d7404c0fd841aa872282c9d830645e8fa85420661b20692c
      URL: http://hooks.test/webhooks/twilio?a=1
      likely: `public_url` is wrong: the provider calls https://hooks.test/webhooks/twilio
    --- stderr
    error: not valid: no_matching_signature
    ");
    // Another path that the provider may have called: ingress does not know it.
    let moved =
        config_text.replace("http://hooks.test/webhooks/twilio", "https://gone.test/twilio");
    std::fs::write(temporary.path().join("hookmill.toml"), moved).unwrap();
    insta::assert_snapshot!(url("https://hooks.test/webhooks/twilio?a=1"), @"
    exit code 1
    --- stdout
    not valid: no_matching_signature: the request was signed with another auth token or for another URL than `public_url`, or changed in transit
      signature: HMAC-SHA1 over the URL and the sorted fields of the form
      body: 14 bytes, SHA-256 08aa5633689ea1f6d7404c0fd841aa872282c9d830645e8fa85420661b20692c
      URL: https://gone.test/twilio?a=1
      likely: `public_url` is wrong: the provider calls https://hooks.test/webhooks/twilio
    --- stderr
    error: not valid: no_matching_signature
    ");
    insta::assert_snapshot!(url("https://other.test/?a=1"), @"
    exit code 1
    --- stdout
    not valid: no_matching_signature: the request was signed with another auth token or for another URL than `public_url`, or changed in transit
      signature: HMAC-SHA1 over the URL and the sorted fields of the form
      body: 14 bytes, SHA-256 08aa5633689ea1f6d7404c0fd841aa872282c9d830645e8fa85420661b20692c
      URL: https://gone.test/twilio?a=1
      likely: the secret belongs to another endpoint, or to another mode (test, live)
      likely: the body differs from the sent bytes: it was parsed and written again, or decoded
      likely: `public_url` is not the URL registered with the provider
    --- stderr
    error: not valid: no_matching_signature
    ");
    std::fs::write(temporary.path().join("hookmill.toml"), &config_text).unwrap();
    let raw = [b"POST /webhooks/twilio?a=1 HTTP/1.1\r\n", &request[..]].concat();
    std::fs::write(temporary.path().join("request"), raw).unwrap();
    insta::assert_snapshot!(shown(temporary.path(), &["verify", "twilio", "--dev", "--request", "request"]), @"
    exit code 1
    --- stdout
    not valid: no_matching_signature: the request was signed with another auth token or for another URL than `public_url`, or changed in transit
      signature: HMAC-SHA1 over the URL and the sorted fields of the form
      body: 14 bytes, SHA-256 08aa5633689ea1f6d7404c0fd841aa872282c9d830645e8fa85420661b20692c
      URL: http://hooks.test/webhooks/twilio?a=1
      likely: `public_url` is wrong: the provider calls https://hooks.test/webhooks/twilio
    --- stderr
    error: not valid: no_matching_signature
    ");
}

#[test]
fn an_error_in_a_secret_or_a_body_is_explained() {
    let event = hookmill_tests::event::stripe("a", "evt_1", 1, Value::Null);
    let (headers, body) = (event.headers(), event.body);
    let temporary = tempfile::tempdir().unwrap();
    let config = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\n[sources.github]\nscheme = \"github\"\nsecrets = [\"env:B\"]\n[sources.mailgun]\nscheme = \"mailgun\"\nsecrets = [\"env:C\"]\n";
    std::fs::write(temporary.path().join("hookmill.toml"), config).unwrap();
    std::fs::write(temporary.path().join("body"), &body).unwrap();
    let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let arguments: Vec<_> = lines.iter().flat_map(|line| ["--header", line]).collect();
    let verify = |a: &str, b: &str, more: &[&str]| {
        let output = Command::new(binary())
            .args(["verify", "stripe", "--body-file", "body"])
            .args(&arguments)
            .args(more)
            .envs([("A", a), ("B", b), ("C", "the-key-of-mailgun")])
            .current_dir(temporary.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines =
            text.lines().filter(|line| line.starts_with("not valid") || line.contains("likely"));
        format!("{}\n{}", output.status.code().unwrap(), lines.collect::<Vec<_>>().join("\n"))
    };
    let secret = hookmill_tests::STRIPE_SECRET;
    assert_eq!(verify(secret, "x", &[]), "0\n");
    // This scheme reads its signature from the body, so the headers do not matter.
    let other = verify("whsec_of-somebody-else", "x", &[]);
    assert!(other.contains("another endpoint") && !other.contains("mailgun"), "{other}");
    for (a, b, cause) in [
        (format!("\"{secret}\""), "x", "A is in quotes"),
        (format!("{secret}\\n"), "x", "A ends with a backslash and an n"),
        (format!("STRIPE_WEBHOOK_SECRET={secret}"), "x", "A contains a name and an equals sign"),
        ("whsec_of-somebody-else".to_owned(), secret, "a secret of the source `github`"),
    ] {
        let found = verify(&a, b, &[]);
        assert!(found.starts_with("1\n") && found.contains(cause), "{cause}: {found}");
        assert!(!found.contains("another endpoint") && !found.contains(secret), "{found}");
    }
    let cut = verify(secret, "x", &["--header", "Content-Length: 99"]);
    assert_eq!(cut, "0\n", "a signature that holds is no reason to look further");
    let cut = verify("whsec_of-somebody-else", "x", &["--header", "Content-Length: 99"]);
    assert!(cut.contains("bytes but Content-Length is 99"), "{cut}");
    let old = verify(secret, "x", &["--now", "4000000000"]);
    assert!(old.contains("not valid: timestamp_too_old") && old.contains("is off by "), "{old}");
    // An invalid command line gives no verdict.
    for arguments in [&["verify", "stripe"][..], &["verify", "stripe", "--header", "nocolon"]] {
        assert_eq!(hookmill(temporary.path(), arguments).status.code(), Some(2));
    }
    let output = hookmill(temporary.path(), &["verify", "stripe", "--body-file", "body", "--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (shown["valid"].as_bool(), shown["reason"].as_str()),
        (Some(false), Some("source_not_ready"))
    );
}
