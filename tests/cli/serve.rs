//! `hookmill serve`, when it does not start.

use std::process::Command;

use hookmill_tests::native::binary;
use serde_json::Value;

use crate::{hookmill, shown, with_example};

#[test]
fn a_source_with_expired_secrets_accepts_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let config = |end: &str| {
        let text = format!(
            "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [{{ name = \"env:A\", not_after = {end} }}]\n"
        );
        std::fs::write(temporary.path().join("hookmill.toml"), text).unwrap();
    };
    config("2100-01-01T00:00:00Z");
    assert_eq!(hookmill(temporary.path(), &["check"]).status.code(), Some(0));
    config("2020-01-01T00:00:00Z");
    insta::assert_snapshot!(shown(temporary.path(), &["check"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: source `stripe`: all secrets have expired (`not_after`); add the current secret
    ");
    let run = |arguments: &[&str]| {
        let output = Command::new(binary())
            .args(arguments)
            .env("A", hookmill_tests::STRIPE_SECRET)
            .current_dir(temporary.path())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, text) = run(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(
        code == Some(1) && text.contains("all secrets that are set have expired (`not_after`)"),
        "{text}"
    );
    // `verify` finds the cause.
    let event = hookmill_tests::event::stripe("a", "evt_1", 1, Value::Null);
    std::fs::write(temporary.path().join("body"), &event.body).unwrap();
    let header = event.headers().remove(0);
    let header = format!("{}: {}", header.0, header.1);
    let (code, text) = run(&["verify", "stripe", "--body-file", "body", "--header", &header]);
    let cause = "it was signed with A, which expired at 2020-01-01T00:00:00.000Z";
    assert!(code == Some(1) && text.contains(cause), "{text}");
}

#[test]
fn serve_does_not_start_without_secrets() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["serve"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: source `clerk`: none of its secrets is set (CLERK_WEBHOOK_SECRET)
    source `stripe`: none of its secrets is set (STRIPE_WEBHOOK_SECRET, STRIPE_WEBHOOK_SECRET_NEXT)
    RESEND_API_KEY is not set; it must contain the key for resend
    ");
}
