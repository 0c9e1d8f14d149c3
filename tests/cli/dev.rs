//! `hookmill dev`: its output, its access, and its end.

use std::process::Stdio;

use hookmill_tests::eventually;
use serde_json::Value;

use crate::{Dev, collected, command, hookmill, printed, shown, with_example};

#[test]
fn every_channel_is_displayed_in_development() {
    let example = with_example();
    let path = example.path().join("hookmill.toml");
    let more = r#"
[[rules]]
name = "text"
on = "clerk:user.created"
sms = { to = "+15550100002", body = "Hello" }

[[rules]]
name = "track"
on = "clerk:user.created"
track = { provider = "posthog", event = "Signed up", user = "data.id" }

[sms]
account = "AC11111111111111111111111111111111"
from = "+15550100001"

[tracking.posthog]
wait = "0s"
"#;
    let text = std::fs::read_to_string(&path).unwrap() + more;
    std::fs::write(&path, text.replace("[email]\n", "[email]\nwait = \"0s\"\n")).unwrap();
    let mut dev = Dev::start(example.path());
    for _ in 0..5 {
        let sent = hookmill(example.path(), &["send", "clerk", "user.created"]);
        assert_eq!(sent.status.code(), Some(0));
    }
    eventually("all are displayed", || {
        let output = hookmill(example.path(), &["email", "list", "--state", "sent", "--json"]);
        let sent: Value = serde_json::from_slice(&output.stdout).unwrap();
        (sent.as_array()?.len() == 15).then_some(())
    });
    dev.stop();
    let shown = std::fs::read_dir(example.path().join(".hookmill/emails")).unwrap().count();
    assert_eq!(shown, 5);
}

#[test]
fn a_folder_of_serve_is_not_displayed_by_dev() {
    let example = with_example();
    std::fs::create_dir(example.path().join(".hookmill")).unwrap();
    std::fs::write(example.path().join(".hookmill/kept-by"), "serve").unwrap();
    insta::assert_snapshot!(shown(example.path(), &["dev", "--listen", "127.0.0.1:0", "--log", "error"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: .hookmill belongs to `hookmill serve`: `dev` displays messages that `serve` sends, and each would take the other's; choose another folder with --data
    ");
}

#[test]
fn dev_prints_how_to_open_the_dashboard_and_serve_does_not() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let config = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\n";
    std::fs::write(folder.join("hookmill.toml"), config).unwrap();
    let ran = |what: &str, data: &str| {
        let arguments = [what, "--listen", "127.0.0.1:0", "--data", data];
        let mut child = command(folder, &arguments)
            .env("A", hookmill_tests::STRIPE_SECRET)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = collected(child.stderr.take().unwrap());
        let last = if what == "dev" { "hookmill events" } else { "accepting webhooks" };
        let output = eventually("it is ready", || {
            let output = output.lock().unwrap().join("\n");
            output.contains(last).then_some(output)
        });
        let tokens = printed(folder, &["token", "list", "--json", "--data", data]);
        (child, output, tokens)
    };
    // Whether an address accepts a token.
    let counts = |address: &str, token: &str| {
        let environment = [("HOOKMILL_URL", address), ("HOOKMILL_TOKEN", token)];
        command(folder, &["stats"]).envs(environment).output().unwrap().status.success()
    };
    let mut before = None;
    for _ in 0..2 {
        let (mut child, output, tokens) = ran("dev", "one");
        assert_eq!(tokens.as_array().map(Vec::len), Some(1), "{tokens}");
        assert_eq!((&tokens[0]["name"], &tokens[0]["role"]), (&"dev".into(), &"operate".into()));
        let line = output.lines().find(|line| line.ends_with("/admin")).unwrap();
        let address = line.trim().strip_suffix("/admin").unwrap();
        let token = output.split_whitespace().find(|word| word.starts_with("hookmill_")).unwrap();
        assert!(counts(address, token));
        // The token of the previous start is no longer valid.
        assert!(before.is_none_or(|before: String| !counts(address, &before)));
        before = Some(token.to_owned());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (mut child, output, tokens) = ran("serve", "other");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(tokens, serde_json::json!([]));
    assert!(!output.contains("hookmill_") && !output.contains("/admin"), "{output}");
}

#[test]
fn dev_listens_on_loopback_only() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["dev", "--listen", "0.0.0.0:8787"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: dev listens on loopback only, because its secrets are public; use `hookmill serve` for 0.0.0.0:8787
    ");
    let admin = shown(example.path(), &["dev", "--admin", "0.0.0.0:8788"]);
    assert!(admin.contains("use `hookmill serve` for 0.0.0.0:8788"), "{admin}");
}

#[test]
fn a_second_process_on_the_same_folder_is_rejected() {
    let example = with_example();
    let _dev = Dev::start(example.path());
    insta::assert_snapshot!(shown(example.path(), &["dev", "--log", "error"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: .hookmill is in use by another hookmill; stop that one, or choose another folder with --data
    ");
    insta::assert_snapshot!(shown(example.path(), &["migrate"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: .hookmill is in use by another hookmill; stop that one, or choose another folder with --data
    ");
}

#[cfg(unix)]
#[test]
fn a_stop_signal_lets_work_in_progress_finish() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    let sent = hookmill(example.path(), &["send", "clerk", "user.created", "--count", "20"]);
    assert_eq!(sent.status.code(), Some(0));
    dev.stop();
    let output = hookmill(example.path(), &["events", "--json"]);
    let events: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(events.as_array().unwrap().iter().all(|event| event["state"] == "applied"), "{events}");
}
