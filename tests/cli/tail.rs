//! `hookmill tail`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use hookmill_tests::eventually;
use serde_json::Value;

use crate::{Dev, collected, command, hookmill, text_of, with_example};

/// `hookmill tail`, until it is dropped.
struct Tail {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
}

impl Tail {
    fn start(folder: &Path, environment: &[(&str, String)], arguments: &[&str]) -> Self {
        let environment = environment.iter().map(|(name, value)| (name, value));
        let mut child = command(folder, &[&["tail"], arguments].concat())
            .envs(environment)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = collected(child.stdout.take().unwrap());
        let stderr = collected(child.stderr.take().unwrap());
        let tail = Self { child, lines, stderr };
        eventually("tail waits for events", || tail.has_said(1));
        tail
    }

    fn has_said(&self, lines: usize) -> Option<()> {
        (self.stderr.lock().unwrap().len() == lines).then_some(())
    }

    /// Its output, once it has this many lines.
    fn lines(&self, count: usize) -> Vec<String> {
        eventually("tail prints what has happened", || {
            let lines = self.lines.lock().unwrap();
            (lines.len() >= count).then(|| lines.clone())
        })
    }

    /// Its output as JSON: the states by event id.
    fn states(&self, count: usize) -> BTreeMap<String, String> {
        let lines = self.lines(count);
        let states = lines.iter().map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            (text_of(&event["id"]), text_of(&event["state"]))
        });
        let states = states.collect::<BTreeMap<_, _>>();
        assert_eq!(states.len(), lines.len(), "no event is printed twice");
        states
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Events that took effect this many milliseconds ago, all at the same time.
fn took_effect(folder: &Path, ids: &str, count: u32, ago: i64) {
    let database = rusqlite::Connection::open(folder.join(".hookmill/data.db")).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    let sql = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2)
        INSERT INTO events (source, id, type, outcome, received_at, applied_at, attempts, secret)
        SELECT 'stripe', ?1 || n, 'made.up' || char(27, 155) || '[2J', 'recorded', ?3, ?3, 1, 0 FROM n";
    let at = hookmill_tests::event::now().millis() - ago;
    database.execute(sql, (ids, count, at)).unwrap();
    let sql = "INSERT INTO event_kinds SELECT source, type, outcome, applied_at, count(*), json_group_array(json_array(id, 0))
        FROM events WHERE applied_at = ?1 GROUP BY 1, 2, 3";
    database.execute(sql, [at]).unwrap();
}

#[cfg(unix)]
#[test]
fn every_event_is_printed_once_as_it_happens() {
    let example = with_example();
    let folder = example.path();
    let mut dev = Dev::start(folder);
    let remote = dev.remote(folder, "read");
    assert_eq!(hookmill(folder, &["send", "clerk", "user.created"]).status.code(), Some(0));
    let here = Tail::start(folder, &[], &["--source", "stripe"]);
    let mut there = Tail::start(folder, &remote, &["--json"]);
    let users = Tail::start(folder, &remote, &["--type", "user.*", "--json"]);

    hookmill(folder, &["send", "stripe", "customer.created", "--id", "evt_1"]);
    let bad = ["--id", "evt_2", "--set", "data.object.balance=many"];
    hookmill(folder, &[&["send", "stripe", "customer.created"], &bad[..]].concat());
    let other = ["send", "stripe", "customer.created", "--secret-env", "OTHER_SECRET"];
    command(folder, &other).env("OTHER_SECRET", "whsec_wrong").output().unwrap();
    hookmill(folder, &["send", "clerk", "user.created", "--id", "msg_1"]);
    // More events than a page has, all in the same millisecond; and some that took effect earlier and become visible only
    // now.
    took_effect(folder, "evt_many_", 1200, 0);
    there.lines(1204);
    took_effect(folder, "evt_late_", 2, 1_000);
    let states = there.states(1206);
    let state = |id: &str| states.get(id).map(String::as_str);
    assert_eq!((state("evt_1"), state("evt_2")), (Some("applied"), Some("dead")));
    assert_eq!((state("msg_1"), state("")), (Some("applied"), Some("rejected")));
    assert_eq!((state("evt_many_1200"), state("evt_late_2")), (Some("recorded"), Some("recorded")));
    let control = |line: &String| line.contains(char::is_control);
    assert!(!there.lines(1206).iter().any(control) && !here.lines(1205).iter().any(control));
    assert_eq!(users.states(1).len(), 1);

    let lines = here.lines(1205);
    let line = |what: &str| lines.iter().find(|line| line.contains(what)).unwrap().clone();
    assert!(line("evt_1").ends_with("Z  stripe  evt_1  customer.created  applied"));
    assert!(line("evt_2").contains("  customer.created  dead: rule `stripe-customers`: "));
    assert!(line("rejected").contains("Z  stripe  -  -  rejected: no_matching_signature: "));
    assert!(line("evt_many_7 ").ends_with("made.up\u{fffd}\u{fffd}[2J  recorded"));

    // It waits for an unavailable pipeline, and prints that once.
    let address = dev.address.to_string();
    dev.stop();
    eventually("tail reports that it is away", || there.has_said(2));
    took_effect(folder, "evt_meanwhile_", 1, 0);
    let mut dev = Dev::start_at(folder, &address);
    eventually("tail reports that it is back", || there.has_said(3));
    assert_eq!(there.states(1207).len(), 1207);
    let stderr = there.stderr.lock().unwrap().join("\n");
    assert!(
        stderr.contains("does not respond") && stderr.ends_with("Hookmill is back"),
        "{stderr}"
    );

    // Ctrl-C ends it without an error.
    let pid = there.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(there.child.wait().unwrap().code(), Some(0));
    dev.stop();
}

#[cfg(unix)]
#[test]
fn tail_ends_when_its_reader_closes_the_pipe() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    let mut child = command(example.path(), &["tail"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = collected(child.stderr.take().unwrap());
    eventually("tail waits for events", || (stderr.lock().unwrap().len() == 1).then_some(()));
    // Without output, too.
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(stderr.lock().unwrap().len(), 1);
    dev.stop();
    // At the beginning, an unreachable address may be a wrong one, and an invalid token stays invalid.
    let away = [("HOOKMILL_URL", "http://127.0.0.1:9"), ("HOOKMILL_TOKEN", "hookmill_none")];
    let output = command(example.path(), &["tail"]).envs(away).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("error: http://127.0.0.1:9 does not respond: "), "{error}");
}
