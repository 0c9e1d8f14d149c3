//! The rows of presets for each event of their providers: the output of `hookmill explain` for the bodies in
//! tests/fixtures.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use hookmill_tests::native::binary;
use hookmill_tests::{PRESETS, fixtures};
use serde_json::Value;

/// The result of an event, and its rows.
fn explained(folder: &Path, provider: &str, file: &Path) -> Value {
    // The type, for providers that send it in a header.
    let kind = file.strip_prefix(hookmill_tests::folder().join("fixtures").join(provider));
    let kind = kind.unwrap().with_extension("");
    let arguments = ["explain", provider, "--json", "--event"];
    let mut command = Command::new(binary());
    let output = command.args(arguments).arg(kind).arg("--file").arg(file).current_dir(folder);
    let output = output.output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", file.display());
    let mut events: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(events.as_array().unwrap().len(), 1, "{}", file.display());
    events[0].take()
}

/// Every fixture of a provider, and its rows.
fn rows_of(provider: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hookmill.toml"), PRESETS).unwrap();
    let mut text = String::new();
    for (name, body) in fixtures(provider) {
        // Without a time of its own, a body of Shopify gets that of a header.
        let has_time = String::from_utf8_lossy(&body).contains("_at\"");
        let file = hookmill_tests::folder().join("fixtures").join(provider).join(&name);
        let event = explained(folder.path(), provider, &file);
        let (kind, outcome) = (event["type"].as_str().unwrap(), event["outcome"].as_str().unwrap());
        let _ = writeln!(text, "{name}: {kind}: {outcome}");
        assert_eq!(event["error"], Value::Null, "{name}");
        for change in event["rows"].as_array().unwrap() {
            let _ = writeln!(text, "  {}", change["table"].as_str().unwrap());
            for (column, value) in change["after"].as_object().unwrap() {
                // Values from the event are compared; times of receipt are not.
                let by_clock = match column.as_str() {
                    "received_at" => true,
                    "created_at" => ["resend", "sendgrid"].contains(&provider),
                    "_version" => provider == "shopify" && !has_time,
                    _ => false,
                };
                let value = if by_clock { "[when it came]".to_owned() } else { value.to_string() };
                let _ = writeln!(text, "    {column} = {value}");
            }
        }
    }
    text
}

#[test]
fn stripe() {
    insta::assert_snapshot!(rows_of("stripe"));
}

#[test]
fn clerk() {
    insta::assert_snapshot!(rows_of("clerk"));
}

#[test]
fn paddle() {
    insta::assert_snapshot!(rows_of("paddle"));
}

#[test]
fn twilio() {
    insta::assert_snapshot!(rows_of("twilio"));
}

#[test]
fn resend() {
    insta::assert_snapshot!(rows_of("resend"));
}

#[test]
fn sendgrid() {
    insta::assert_snapshot!(rows_of("sendgrid"));
}

#[test]
fn github() {
    insta::assert_snapshot!(rows_of("github"));
}

#[test]
fn shopify() {
    insta::assert_snapshot!(rows_of("shopify"));
}
