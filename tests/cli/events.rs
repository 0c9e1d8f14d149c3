//! `hookmill events`.

use serde_json::Value;

use crate::{Dev, command, hookmill, printed, shown, text_of, with_example};

#[test]
fn there_are_no_events_before_there_is_data() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["events"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: no Hookmill data in .hookmill; `hookmill dev` or `hookmill serve` creates it; --data chooses another folder
    ");
}

#[test]
fn an_event_is_found_with_its_history_on_the_queue_and_off_it() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    let remote = dev.remote(example.path(), "read");
    for (source, kind, id) in
        [("stripe", "customer.created", "evt_1"), ("clerk", "user.created", "msg_1")]
    {
        let sent = hookmill(example.path(), &["send", source, kind, "--id", id]);
        assert_eq!(sent.status.code(), Some(0));
    }
    for environment in [&[][..], &remote] {
        let run = |arguments: &[&str]| {
            let environment = environment.iter().map(|(name, value)| (name, value));
            let output = command(example.path(), arguments).envs(environment).output().unwrap();
            (
                output.status.code(),
                String::from_utf8([output.stdout, output.stderr].concat()).unwrap(),
            )
        };
        let found = |arguments: &[&str]| {
            let (_, text) = run(&[&["events"], arguments, &["--json"]].concat());
            let found: Value = serde_json::from_str(&text).unwrap();
            found.as_array().unwrap().iter().map(|event| text_of(&event["id"])).collect::<Vec<_>>()
        };
        assert_eq!(found(&[]), ["msg_1", "evt_1"]);
        assert_eq!(found(&["--limit", "1"]), ["msg_1"]);
        for one in [["--source", "stripe"], ["--type", "customer.*"], ["--id", "evt_1"]] {
            assert_eq!(found(&one), ["evt_1"], "{one:?}");
        }
        assert_eq!(found(&["list", "--state", "recorded"]), Vec::<String>::new());

        let (code, story) = run(&["events", "show", "stripe", "evt_1"]);
        assert_eq!(code, Some(0));
        let lines: Vec<_> = story.lines().map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(lines, [Some("WHAT"), Some("received"), Some("applied")], "{story}");
        assert!(story.contains("secret 0, type customer.created"), "{story}");
        assert!(story.contains("rows customers (id cus_HMsample0001)"), "{story}");
        let (_, story) = run(&["events", "show", "stripe", "evt_1", "--json"]);
        assert_eq!(serde_json::from_str::<Value>(&story).unwrap()["steps"][0]["what"], "received");
        let (_, body) = run(&["events", "show", "stripe", "evt_1", "--body"]);
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["id"], "evt_1");
        insta::allow_duplicates! {
            insta::assert_snapshot!(run(&["events", "show", "stripe", "evt_0"]).1, @"error: Not found: no history of this event; it may still be on the queue");
        }
    }
    let environment = remote.iter().map(|(name, value)| (name, value));
    let queued = command(example.path(), &["events", "--state", "queued"])
        .envs(environment)
        .output()
        .unwrap();
    insta::assert_snapshot!(String::from_utf8(queued.stderr).unwrap(), @"error: queued events are visible only with the data folder, which contains the queue; `hookmill stats` shows the length of the queue");

    // Queued events come first.
    dev.stop();
    let queue = rusqlite::Connection::open(example.path().join(".hookmill/queue.db")).unwrap();
    let event = hookmill_tests::event::stripe("customer.created", "evt_2", 1, Value::Null);
    hookmill_tests::native::put(&queue, event.message().as_bytes(), 0);
    let events = printed(example.path(), &["events", "--type", "cust*", "--json"]);
    let states = events
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (text_of(&event["id"]), text_of(&event["state"])));
    let states: Vec<_> = states.collect();
    assert_eq!(states, [("evt_2".into(), "queued".into()), ("evt_1".into(), "applied".into())]);
    let queued = printed(example.path(), &["events", "--state", "queued", "--json"]);
    assert_eq!((queued.as_array().unwrap().len(), &queued[0]["settled_at"]), (1, &Value::Null));
}
