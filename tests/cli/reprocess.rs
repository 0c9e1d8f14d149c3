//! `hookmill reprocess`.

use crate::{Dev, hookmill, with_example};

#[test]
fn a_reprocessing_checks_its_rules_and_times() {
    let example = with_example();
    let _dev = Dev::start(example.path());
    let sent = hookmill(example.path(), &["send", "stripe", "customer.created"]);
    assert_eq!(sent.status.code(), Some(0));
    let planned = |more: &[&str]| {
        let arguments = [&["reprocess", "--source", "stripe"], more].concat();
        let output = hookmill(example.path(), &arguments);
        let line =
            |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().map(ToOwned::to_owned);
        line(&output.stderr).or_else(|| line(&output.stdout)).unwrap_or_default()
    };
    insta::assert_snapshot!(planned(&["--rule", "nosuch"]), @"error: no rule has the name `nosuch` in hookmill.toml");
    insta::assert_snapshot!(planned(&["--rule", "welcome"]), @"`welcome` will count or send again for these events; limit them with --before");
    insta::assert_snapshot!(planned(&["--before", "2026-01-01T00:00:00Z"]), @"no stored event matches");
    assert!(planned(&["--since", "2026-01-01T00:00:00Z"]).starts_with("1 events"));
    insta::assert_snapshot!(planned(&["--since", "yesterday"]), @"error: invalid value 'yesterday' for '--since <TIME>': expected a time such as 2026-01-31T00:00:00Z");
}
