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
    let arguments = ["explain", provider, "--json", "--file"];
    let output = Command::new(binary()).args(arguments).arg(file).current_dir(folder).output();
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
    for (name, _) in fixtures(provider) {
        let file = hookmill_tests::folder().join("fixtures").join(provider).join(&name);
        let event = explained(folder.path(), provider, &file);
        let (kind, outcome) = (event["type"].as_str().unwrap(), event["outcome"].as_str().unwrap());
        let _ = writeln!(text, "{name}: {kind}: {outcome}");
        assert_eq!(event["error"], Value::Null, "{name}");
        for change in event["rows"].as_array().unwrap() {
            let _ = writeln!(text, "  {}", change["table"].as_str().unwrap());
            for (column, value) in change["after"].as_object().unwrap() {
                // Values from the event are compared; Hookmill's times of receipt are not.
                let came = ["received_at", "created_at"].contains(&column.as_str());
                let by_clock = provider != "clerk" && provider != "paddle" && came;
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
