//! `hookmill email`.

use hookmill_tests::eventually;
use serde_json::Value;

use crate::{Dev, hookmill, shown, with_example};

#[test]
fn an_email_is_displayed_in_development_and_listed() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    let sent = hookmill(example.path(), &["send", "clerk", "user.created"]);
    assert_eq!(sent.status.code(), Some(0));
    let listed = || -> Value {
        let output = hookmill(example.path(), &["email", "list", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let email = eventually("the email is displayed", || {
        let email = listed()[0].clone();
        (email["state"] == "sent").then_some(email)
    });
    dev.stop();
    assert_eq!((&email["rule"], &email["provider"]), (&"welcome".into(), &"local".into()));
    let file = format!(".hookmill/emails/{}.html", email["id"].as_str().unwrap());
    let html = std::fs::read_to_string(example.path().join(file)).unwrap();
    assert!(html.contains("Hello Inês,"), "{html}");
    let usage = hookmill(example.path(), &["email", "usage", "--json"]);
    let usage: Value = serde_json::from_slice(&usage.stdout).unwrap();
    assert_eq!((&usage[0]["sent"], &usage[0]["provider"]), (&1.into(), &"local".into()));

    // By hand: a suppression is removed, and the suppressed email is sent again.
    let database = rusqlite::Connection::open(example.path().join(".hookmill/data.db")).unwrap();
    database
        .execute_batch(
            "UPDATE outbox SET state = 'suppressed', error = 'bounced' || char(27) || '[2J', skipped_recipients = 'b@example.com: bounced';
             INSERT INTO suppressions VALUES ('a@example.com', 'bounced', 'resend', 'msg_1', 0, 0);
             INSERT INTO group_suppressions VALUES ('a@example.com', '4711', 'unsubscribed', 'sendgrid', 'sg_1', 0, 1);",
        )
        .unwrap();
    let list = shown(example.path(), &["email", "list"]);
    assert!(list.contains(": bounced\u{fffd}[2J; skipped: b@example.com: bounced"), "{list}");
    assert!(list.contains(&email["id"].as_str().unwrap()[..12]), "{list}");
    insta::assert_snapshot!(
        [
            shown(example.path(), &["email", "suppressions"]),
            shown(example.path(), &["email", "unsuppress", "A <A@example.com>", "--reason", "mended"]),
            shown(example.path(), &["email", "unsuppress", "a@example.com", "--reason", "mended"]),
            shown(example.path(), &["email", "suppressions"]),
            shown(example.path(), &["email", "unsuppress", "a@example.com", "--group", "4712", "--reason", "mended"]),
            shown(example.path(), &["email", "unsuppress", "a@example.com", "--group", "4711", "--reason", "mended"]),
            shown(example.path(), &["email", "suppressions"]),
            shown(example.path(), &["email", "retry", "--state", "suppressed", "--reason", "mended", "--rule", "other"]),
            shown(example.path(), &["email", "retry", "--state", "suppressed", "--reason", "mended"]),
        ]
        .concat(),
        @"
    exit code 0
    --- stdout
     SINCE                     ADDRESS        GROUP  REASON        EVENT         
     1970-01-01T00:00:00.001Z  a@example.com  4711   unsubscribed  sendgrid:sg_1 
     1970-01-01T00:00:00.000Z  a@example.com         bounced       resend:msg_1  
    --- stderr
    exit code 0
    --- stdout
    --- stderr
    A <A@example.com> is no longer suppressed; to send its suppressed messages, use `hookmill email retry`
    exit code 1
    --- stdout
    --- stderr
    error: Not found: a@example.com is not suppressed
    exit code 0
    --- stdout
     SINCE                     ADDRESS        GROUP  REASON        EVENT         
     1970-01-01T00:00:00.001Z  a@example.com  4711   unsubscribed  sendgrid:sg_1 
    --- stderr
    exit code 1
    --- stdout
    --- stderr
    error: Not found: a@example.com is not suppressed
    exit code 0
    --- stdout
    --- stderr
    a@example.com is no longer suppressed; to send its suppressed messages, use `hookmill email retry`
    exit code 0
    --- stdout
    --- stderr
    no suppressed recipients
    exit code 1
    --- stdout
    --- stderr
    error: no suppressed messages match; `hookmill email list --state suppressed` lists them
    exit code 0
    --- stdout
    --- stderr
    messages to send again: 1
    "
    );
    assert_eq!(listed()[0]["state"], "pending");
}

#[test]
fn a_template_is_previewed() {
    let example = with_example();
    std::fs::write(example.path().join("data.json"), "{\"name\": \"<Inês>\"}").unwrap();
    std::fs::write(example.path().join("list.json"), "[]").unwrap();
    insta::assert_snapshot!(
        [
            shown(example.path(), &["email", "preview", "welcome", "--data", "data.json"]),
            shown(example.path(), &["email", "preview", "welcome", "--json"]),
            shown(example.path(), &["email", "preview", "welcom"]),
            shown(example.path(), &["email", "preview", "welcome", "--data", "list.json"]),
        ]
        .concat(),
        @r#"
    exit code 0
    --- stdout
    Subject: Welcome, <Inês>

    Hello <Inês>,

    your account is ready.

    <!doctype html>
    <html lang="en">
      <body>
        <p>Hello &lt;Inês&gt;,</p>
        <p>your account is ready.</p>
      </body>
    </html>
    --- stderr
    exit code 0
    --- stdout
    {"html":"<!doctype html>\n<html lang=\"en\">\n  <body>\n    <p>Hello,</p>\n    <p>your account is ready.</p>\n  </body>\n</html>","subject":"Welcome","text":"Hello,\r\n\r\nyour account is ready."}
    --- stderr
    exit code 1
    --- stdout
    --- stderr
    error: no template `welcom` in hookmill.toml; templates: welcome
    exit code 1
    --- stdout
    --- stderr
    error: list.json is not a JSON object, such as { "name": "Inês" }: invalid type: sequence, expected a map at line 1 column 0
    "#
    );
}
