//! `hookmill send`.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::{Dev, command, hookmill, shown, with_example};

#[test]
fn the_types_that_can_be_sent_are_listed() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["send", "clerk"]), @"
    exit code 0
    --- stdout
    user.created
    user.updated
    user.deleted
    email.created
    organization.created
    organization.deleted
    organization.updated
    organizationDomain.created
    organizationDomain.deleted
    organizationDomain.updated
    organizationInvitation.accepted
    organizationInvitation.created
    organizationInvitation.revoked
    organizationMembership.created
    organizationMembership.deleted
    organizationMembership.updated
    paymentAttempt.updated
    permission.created
    role.created
    role.deleted
    role.updated
    session.created
    session.ended
    session.removed
    session.revoked
    sms.created
    subscription.created
    subscriptionItem.active
    waitlistEntry.created
    --- stderr
    ");
    insta::assert_snapshot!(shown(example.path(), &["send", "clerk", "user.forgotten"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: no sample of `user.forgotten`; samples:
      user.created
      user.updated
      user.deleted
      email.created
      organization.created
      organization.deleted
      organization.updated
      organizationDomain.created
      organizationDomain.deleted
      organizationDomain.updated
      organizationInvitation.accepted
      organizationInvitation.created
      organizationInvitation.revoked
      organizationMembership.created
      organizationMembership.deleted
      organizationMembership.updated
      paymentAttempt.updated
      permission.created
      role.created
      role.deleted
      role.updated
      session.created
      session.ended
      session.removed
      session.revoked
      sms.created
      subscription.created
      subscriptionItem.active
      waitlistEntry.created
    To send another type, change one of them (--set type=user.forgotten), or send your own body (--body FILE)
    ");
    insta::assert_snapshot!(shown(example.path(), &["send", "paddle"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: no source `paddle` in the configuration; sources: clerk, stripe
    ");
}

#[test]
fn send_reports_an_unreachable_pipeline() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["send", "clerk", "user.created", "--to", "http://127.0.0.1:9"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: cannot reach http://127.0.0.1:9/webhooks/clerk; is the pipeline running? (`hookmill dev`): error sending request for url (http://127.0.0.1:9/webhooks/clerk): client error (Connect): tcp connect error: Connection refused (os error 111)
    ");
}

#[test]
fn an_event_is_sent_and_its_result_printed() {
    let example = with_example();
    let _dev = Dev::start(example.path());
    let send = |arguments: &[&str]| {
        let arguments = [&["send"], arguments, &["--json"]].concat();
        let output = hookmill(example.path(), &arguments);
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code(), lines)
    };

    let (code, sent) = send(&["stripe", "customer.subscription.updated", "--id", "evt_1"]);
    assert_eq!((code, &sent[0]["status"]), (Some(0), &200.into()));
    assert_eq!(sent[0]["answer"], serde_json::json!({ "accepted": 1 }));
    assert_eq!(
        (&sent[0]["event"]["state"], &sent[0]["duplicate"]),
        (&"applied".into(), &false.into())
    );
    let (_, again) = send(&["stripe", "customer.subscription.updated", "--id", "evt_1"]);
    assert_eq!((&again[0]["event"], &again[0]["duplicate"]), (&sent[0]["event"], &true.into()));
    let shown = hookmill(
        example.path(),
        &["send", "stripe", "customer.subscription.updated", "--id", "evt_1"],
    );
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.starts_with("200 evt_1 applied "), "{shown}");
    assert!(shown.ends_with("a duplicate, nothing changed\n"), "{shown}");

    let (_, many) = send(&[
        "clerk",
        "user.created",
        "--count",
        "3",
        "--set",
        "data.id=user_{number}",
        "--set",
        "data.first_name=null",
    ]);
    assert_eq!(many.len(), 3);
    // A row that the table rejects becomes a dead letter, and `send` prints that.
    let (code, refused) =
        send(&["stripe", "customer.created", "--id", "evt_2", "--set", "data.object.balance=many"]);
    assert_eq!((code, &refused[0]["event"]["state"]), (Some(1), &"dead".into()));
    let error = refused[0]["event"]["error"].as_str().unwrap();
    assert!(error.starts_with("rule `stripe-customers`: the store refused:"), "{error}");
    let arguments =
        ["send", "stripe", "customer.created", "--json", "--secret-env", "OTHER_SECRET"];
    let mut wrong = command(example.path(), &arguments);
    let wrong = wrong.env("OTHER_SECRET", "whsec_wrong").output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    let wrong: Value = serde_json::from_slice(&wrong.stdout).unwrap();
    assert_eq!(
        (&wrong["status"], &wrong["answer"]["reason"]),
        (&401.into(), &"no_matching_signature".into())
    );
    let unset = hookmill(example.path(), &arguments);
    assert_eq!(String::from_utf8(unset.stderr).unwrap(), "error: OTHER_SECRET is not set\n");

    let output = hookmill(example.path(), &["events", "--json"]);
    let events: Value = serde_json::from_slice(&output.stdout).unwrap();
    let states: Vec<_> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["type"].as_str(), event["state"].as_str()))
        .collect();
    let user = (Some("user.created"), Some("applied"));
    assert_eq!(
        states,
        [
            (Some("customer.created"), Some("dead")),
            user,
            user,
            user,
            (Some("customer.subscription.updated"), Some("applied")),
        ]
    );
    let table = String::from_utf8(hookmill(example.path(), &["events"]).stdout).unwrap();
    assert!(table.lines().next().unwrap().contains("RECEIVED"), "{table}");
    assert_eq!(table.lines().count(), 6, "{table}");

    let database = rusqlite::Connection::open(example.path().join(".hookmill/data.db")).unwrap();
    let row = database.query_row("SELECT id, status, quantity FROM subscriptions", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
    });
    assert_eq!(row.unwrap(), ("sub_HMsample0001".into(), "active".into(), 5));
}

#[test]
fn send_prints_only_results_that_it_knows() {
    let temporary = tempfile::tempdir().unwrap();
    let config = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\nunmatched = \"ignore\"\n[sources.discord]\nscheme = \"discord\"\nsecrets = [\"env:B\"]\n";
    std::fs::write(temporary.path().join("hookmill.toml"), config).unwrap();
    let _dev = Dev::start(temporary.path());
    let last = |arguments: &[&str], secret: &str| {
        let mut child = command(temporary.path(), arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().splitn(3, ' ').last().unwrap().to_owned()
    };
    let ignored = last(&["send", "stripe", "invoice.paid"], "");
    assert_eq!(ignored, "accepted, and ignored: no rule matches it");
    // With a private key alone, the event's id at the pipeline is unknown.
    let config = hookmill_config::parse("hookmill.toml", config).unwrap();
    let source = config.ingress.sources.iter().find(|source| source.name == "discord").unwrap();
    let keys = hookmill_providers::development(source, &source.secrets[0].name);
    let secret = hookmill_core::secret::ExposeSecret::expose_secret(&keys.signing);
    let unknown = last(&["send", "discord", "APPLICATION_AUTHORIZED", "--secret-stdin"], secret);
    assert_eq!(unknown, "accepted");
}

#[test]
fn every_sample_of_every_scheme_is_accepted_and_recorded() {
    let temporary = tempfile::tempdir().unwrap();
    let general = ["ecdsa-p256", "ed25519", "hmac", "token"];
    let schemes: Vec<_> =
        hookmill_config::scheme_names().filter(|scheme| !general.contains(scheme)).collect();
    let mut config = String::new();
    for scheme in &schemes {
        let name = scheme.to_uppercase().replace('-', "_");
        config +=
            &format!("[sources.{scheme}]\nscheme = \"{scheme}\"\nsecrets = [\"env:{name}\"]\n");
        if ["hubspot", "square", "twilio"].contains(scheme) {
            config += &format!("public_url = \"https://hooks.test/webhooks/{scheme}\"\n");
        }
    }
    std::fs::write(temporary.path().join("hookmill.toml"), config).unwrap();
    let _dev = Dev::start(temporary.path());
    let mut sent = 0;
    for scheme in schemes {
        let types = hookmill(temporary.path(), &["send", scheme]).stdout;
        for kind in String::from_utf8(types).unwrap().lines() {
            let output = hookmill(temporary.path(), &["send", scheme, kind, "--json"]);
            let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
            let status = if scheme == "discord" { 204 } else { 200 };
            assert_eq!(shown["status"], status, "{scheme} {kind}: {shown}");
            assert_eq!(shown["event"]["state"], "recorded", "{scheme} {kind}: {shown}");
            assert_eq!(shown["event"]["type"], kind, "{scheme}");
            sent += 1;
        }
    }
    assert!(sent > 60, "{sent}");
}
