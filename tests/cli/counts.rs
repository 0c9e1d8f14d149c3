//! `hookmill counts`.

use serde_json::{Value, json};

use crate::{Dev, hookmill, printed, shown, with_example};

#[test]
fn rows_absent_values_and_versions_are_counted() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    assert_eq!(
        shown(example.path(), &["counts"]),
        "exit code 0\n--- stdout\n--- stderr\nno events in 7 days\n"
    );
    for _ in 0..2 {
        let sent = hookmill(example.path(), &["send", "stripe", "customer.created"]);
        assert!(sent.status.success(), "{sent:?}");
    }
    // The second one is written at the end of the process.
    dev.stop();
    let counts = printed(example.path(), &["counts", "--days", "1", "--json"]);
    let rules = counts["rules"].as_array().unwrap();
    let customers = rules.iter().find(|rule| rule["rule"] == "stripe-customers").unwrap();
    assert_eq!(customers["rows"], 2, "{counts}");
    let version = &counts["versions"][0];
    assert_eq!(
        (&version["source"], &version["events"], &version["expected"]),
        (&json!("stripe"), &json!(2), &json!(true)),
        "{counts}"
    );
    let output = hookmill(example.path(), &["counts"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let Value::String(version) = &version["version"] else { panic!("{counts}") };
    assert!(text.contains("stripe-customers") && text.contains(version.as_str()), "{text}");
    assert!(!text.contains("unexpected"), "{text}");
}
