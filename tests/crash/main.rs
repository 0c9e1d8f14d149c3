//! kill -9 at any moment under load: no acknowledged event is lost, and none takes effect twice.
//!
//! Senders behave like providers: they send again without a 2xx, and sometimes after one. Meanwhile the process is killed
//! at random moments and started again on its data. The same on a disk that loses power, fails or lies.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod power;

use std::collections::BTreeSet;
#[cfg(unix)]
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use hookmill_tests::api::{Api, Mood};
use hookmill_tests::event::{Event, now, stripe};
use hookmill_tests::http::{exchange, request};
use hookmill_tests::native::{Pipeline, binary};
use hookmill_tests::{Operator, eventually};
#[cfg(unix)]
use rustix::fs::{FlockOperation, fcntl_lock};
use serde_json::{Value, json};

const KILLS: usize = 25;
const SENDERS: usize = 8;
const ENTITIES: usize = 5;

/// A small pseudo-random generator, so that a run can be repeated from its seed.
struct Numbers(u64);

impl Numbers {
    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64: https://www.jstatsoft.org/article/view/v008i14
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn event(sender: usize, number: usize) -> Event {
    let entity = format!("entity_{}", number % ENTITIES);
    // Some are too large for the queue and go to the object store.
    let padding = if number % 20 == 7 { "x".repeat(150_000) } else { "x".repeat(2_000) };
    let object = json!({ "id": entity, "amount": 3, "padding": padding });
    stripe("test.counted", &format!("evt_{sender}_{number}"), 1, object)
}

/// The same for emails, with lost responses: each is accepted once, or recorded as uncertain if SendGrid replaced Resend.
#[test]
fn an_email_is_not_lost_and_not_sent_twice() {
    const EMAILS: usize = 1500;
    let seed = u64::try_from(now().millis()).unwrap();
    println!("seed {seed}");
    let mut numbers = Numbers(seed);
    let api = Api::start();
    let mut pipeline = Pipeline::with_api(&api);
    let moods = (0..40).map(|_| match numbers.below(4) {
        0 => Mood::Silent,
        1 => Mood::Broken { accepts: numbers.below(2) == 0 },
        _ => Mood::Accepts,
    });
    api.moods(moods.collect::<Vec<_>>());
    let mut posted = 0;
    for round in 1..=KILLS {
        while posted < EMAILS * round / KILLS {
            let to = format!("{posted}@example.com");
            let object = json!({ "to": to, "name": posted.to_string() });
            let event = stripe("test.mailed", &format!("evt_{posted}"), 1, object);
            assert_eq!(pipeline.post(&event).status, 200);
            posted += 1;
        }
        std::thread::sleep(Duration::from_millis(numbers.below(1500)));
        pipeline.kill_and_restart(|_| {});
    }
    pipeline.settle();
    eventually("the outbox is empty", || {
        let open =
            pipeline.sql("SELECT 1 FROM outbox WHERE state IN ('pending', 'sealed') LIMIT 1");
        open.is_empty().then_some(())
    });
    let (accepted, requests) = (api.accepted(), api.requests().len());
    let once: BTreeSet<_> = accepted.iter().map(String::as_str).collect();
    assert_eq!(once.len(), accepted.len(), "nothing is accepted twice");
    let ended = pipeline.sql(
        "SELECT event_id, outbox.state, provider FROM outbox JOIN outbox_batches ON outbox_batches.id = batch",
    );
    assert_eq!(ended.len(), EMAILS);
    let mut doubts = 0;
    for email in ended {
        let to = email[0].as_str().unwrap().replace("evt_", "") + "@example.com";
        match email[1].as_str() {
            Some("sent") => assert!(once.contains(to.as_str()), "{email:?}"),
            Some("uncertain") if email[2] == "sendgrid" => doubts += 1,
            _ => panic!("{email:?}"),
        }
    }
    println!("{EMAILS} emails, {doubts} uncertain, {requests} requests, {KILLS} kills");
    assert!(requests >= EMAILS / 100 && once.len() >= EMAILS - doubts);
}

/// Sends events as providers do, while `interrupt` ends the process and starts another, `times` times. Returns the ids of the
/// acknowledged events.
fn under_load(
    pipeline: &mut Pipeline,
    (seed, times): (u64, usize),
    mut interrupt: impl FnMut(&mut Pipeline),
) -> BTreeSet<String> {
    let address = RwLock::new(pipeline.address());
    let acknowledged = Mutex::new(BTreeSet::new());
    let finished = AtomicBool::new(false);
    let post = |address: SocketAddr, event: &Event| {
        let bytes = request("POST", "/webhooks/stripe", &event.headers(), &event.body);
        exchange(address, &bytes).is_ok_and(|response| response.status == 200)
    };
    let send = |sender: usize| {
        let mut numbers = Numbers(seed ^ (sender as u64 + 1));
        let mut number = 0;
        while !finished.load(Ordering::Relaxed) {
            let event = event(sender, number);
            let current = *address.read().unwrap();
            if post(current, &event) {
                acknowledged.lock().unwrap().insert(event.id.clone());
                // Sent again until it is accepted, like a provider's own retries.
                let mut again = numbers.below(10) == 0;
                while again {
                    again = !post(*address.read().unwrap(), &event)
                        && !finished.load(Ordering::Relaxed);
                }
                number += 1;
            } else {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    };
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let send = &send;
            scope.spawn(move || send(sender));
        }
        let mut numbers = Numbers(seed);
        for _ in 0..times {
            std::thread::sleep(Duration::from_millis(numbers.below(300)));
            // Senders hold no lock while they post, so they meet the dead process.
            interrupt(pipeline);
            *address.write().unwrap() = pipeline.address();
        }
        std::thread::sleep(Duration::from_millis(200));
        finished.store(true, Ordering::Relaxed);
    });
    acknowledged.into_inner().unwrap()
}

#[test]
fn no_acknowledged_event_is_lost_and_none_takes_effect_twice() {
    let seed = u64::try_from(now().millis()).unwrap();
    println!("seed {seed}");
    let mut pipeline = Pipeline::forgetful();
    let acknowledged =
        under_load(&mut pipeline, (seed, KILLS), |pipeline| pipeline.kill_and_restart(|_| {}));
    pipeline.settle();
    assert!(acknowledged.len() > 200, "there was load");
    println!("{} acknowledged, {KILLS} kills", acknowledged.len());
    assert_whole(&pipeline, &acknowledged);
    assert_eq!(pipeline.objects(), Vec::<String>::new(), "no body is left over");
}

/// Every acknowledged event has taken effect, and each event at most once.
fn assert_whole(pipeline: &Pipeline, acknowledged: &BTreeSet<String>) {
    let ledger: Vec<_> =
        pipeline.sql("SELECT id FROM events").into_iter().map(|mut row| row.remove(0)).collect();
    let applied: BTreeSet<_> =
        ledger.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
    let lost: Vec<_> = acknowledged.difference(&applied).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");

    // An event that was sent and not acknowledged may have been applied too. Every event in the ledger counted exactly
    // once.
    let mut expected = [0_i64; ENTITIES];
    for id in &applied {
        let number = id.rsplit('_').next().and_then(|number| number.parse::<usize>().ok());
        let number = number.expect("ids end in a number");
        expected[number % ENTITIES] += 1;
    }
    for (entity, events) in expected.into_iter().enumerate() {
        let tally = pipeline
            .sql(&format!("SELECT events, amount FROM tallies WHERE id = 'entity_{entity}'"));
        assert_eq!(tally, [[json!(events), json!(events * 3)]], "entity_{entity}");
    }
    let letters =
        pipeline.sql("SELECT event_id, reason, attempts, error, first_failed_at FROM dead_letters");
    assert!(letters.is_empty(), "{letters:?}");
}

/// Uses a database as a process with an older SQLite does. When it closes the database and can lock all of it, it is the last
/// to use it, so it copies the log into the database and removes the log. The SQLite of this test also looks for processes
/// that have the shared memory open.
#[cfg(unix)]
fn use_as_older_sqlite(path: &Path) {
    let database = rusqlite::Connection::open(path).unwrap();
    database.execute_batch("CREATE TABLE made_by_another_process (n INTEGER) STRICT").unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    if fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        database.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        for name in ["data.db-wal", "data.db-shm"] {
            std::fs::remove_file(path.with_file_name(name)).unwrap();
        }
    }
}

/// The server holds a lock on its database, so another process never is the last to use it.
#[cfg(unix)]
#[test]
fn a_process_that_uses_the_database_meanwhile_takes_no_event_with_it() {
    let mut pipeline = Pipeline::start();
    let reader = |pipeline: &Pipeline, sql: &dyn Fn(&str)| {
        Operator::new(pipeline.admin(), "reader", "read", sql)
    };
    reader(&pipeline, &|sql| drop(pipeline.sql(sql)));
    // The server finds the database in its folder.
    pipeline.kill_and_restart(|_| ());
    let reader = reader(&pipeline, &|_| ());
    // Nothing but the server uses the databases here.
    let apply = |n: usize| {
        let object = json!({ "id": "a", "amount": 1 });
        let event = stripe("test.counted", &format!("evt_{n}"), 1, object);
        assert_eq!(pipeline.post(&event).status, 200);
        eventually("the event is applied and settled", || {
            let applied = reader.get("/events?state=applied").json();
            let left = pipeline.gauge("queue_messages", &[("queue", "events")]);
            (applied["items"].as_array()?.len() == n && left == Some(0.0)).then_some(())
        });
    };
    apply(1);
    use_as_older_sqlite(&pipeline.data().join("data.db"));
    apply(2);
    // An orderly stop would copy the log into the database, even a removed one.
    pipeline.kill_and_restart(|_| ());
    pipeline.settle();
    assert_eq!(pipeline.sql("SELECT events, amount FROM tallies"), [[2, 2]]);
}

/// A backup under load contains every event that was acknowledged before it began, and its events take effect once.
#[test]
fn a_backup_under_load_loses_no_acknowledged_event() {
    const BACKUPS: usize = 6;
    let pipeline = Pipeline::forgetful();
    let acknowledged = Mutex::new(BTreeSet::new());
    let finished = AtomicBool::new(false);
    let folder = tempfile::tempdir().unwrap();
    let send = |sender: usize| {
        for number in 0.. {
            if finished.load(Ordering::Relaxed) {
                return;
            }
            let event = event(sender, number);
            assert_eq!(pipeline.post(&event).status, 200);
            acknowledged.lock().unwrap().insert(event.id);
        }
    };
    let mut backups = Vec::new();
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let send = &send;
            scope.spawn(move || send(sender));
        }
        for backup in 0..BACKUPS {
            // Each under new load: some hundreds of events more.
            eventually("there is load", || {
                (acknowledged.lock().unwrap().len() > 200 * (backup + 1)).then_some(())
            });
            let before = acknowledged.lock().unwrap().clone();
            let to = folder.path().join(backup.to_string());
            pipeline.back_up(&to);
            backups.push((to, before));
        }
        finished.store(true, Ordering::Relaxed);
    });
    for (backup, before) in backups {
        let restored = Pipeline::restored(&backup);
        restored.settle();
        assert_whole(&restored, &before);
    }
    pipeline.settle();
    assert_whole(&pipeline, &acknowledged.into_inner().unwrap());
}

/// A command on a pipeline's data folder, and its output.
fn hookmill(pipeline: &Pipeline, arguments: &[&str]) -> Value {
    let output = Command::new(binary()).args(arguments).arg("--data").arg(pipeline.data()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// A backup that is blocked between the queue and the data, while other changes happen.
#[cfg(unix)]
fn back_up_slowly(pipeline: &Pipeline, to: &Path, meanwhile: impl FnOnce()) {
    const BODIES: usize = 1_000;
    let bodies = pipeline.data().join("bodies/stripe");
    std::fs::create_dir_all(&bodies).unwrap();
    // Bodies are copied in between. No event has these.
    for number in 0..BODIES {
        std::fs::write(bodies.join(number.to_string()), "x").unwrap();
    }
    let signal = |child: &Child, name: &str| {
        let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    // The number of bodies in the new folder.
    let copied = || {
        let incoming = std::fs::read_dir(to.parent().unwrap()).unwrap().next()?.unwrap().path();
        std::fs::read_dir(incoming.join("bodies/stripe")).ok().map(Iterator::count)
    };
    let mut backup = eventually("a backup is stopped between the queue and the data", || {
        let mut backup = Command::new(binary());
        backup.arg("backup").arg(to).arg("--data").arg(pipeline.data());
        let mut backup = backup.spawn().unwrap();
        while copied().is_none() {
            assert_eq!(backup.try_wait().unwrap(), None);
        }
        signal(&backup, "-STOP");
        if copied().is_some_and(|copied| copied < BODIES) {
            return Some(backup);
        }
        signal(&backup, "-CONT");
        assert!(backup.wait().unwrap().success());
        std::fs::remove_dir_all(to).unwrap();
        None
    });
    meanwhile();
    signal(&backup, "-CONT");
    assert!(backup.wait().unwrap().success());
}

/// Plans and runs a replay or a reprocessing with commands, and waits until all is sent.
#[cfg(unix)]
fn send_again(pipeline: &Pipeline, plan: &[&str], count: usize) {
    let plan = hookmill(pipeline, plan);
    assert_eq!(plan["total"], count);
    let id = plan["id"].as_str().unwrap();
    let run = ["replays", "run", id, "--rate", "100", "--reason", "mended", "--detach"];
    hookmill(pipeline, &run);
    eventually("all is sent", || {
        let replays = pipeline.sql("SELECT state, sent FROM replays");
        (replays == [[json!("done"), json!(count)]]).then_some(())
    });
}

/// The copy, changed while no process uses it; and the content of its queues.
#[cfg(unix)]
fn changed(backup: &Path, sql: &str) -> i64 {
    let open = |name| rusqlite::Connection::open(backup.join(name)).unwrap();
    open("data.db").execute_batch(sql).unwrap();
    let waiting =
        "SELECT (SELECT count(*) FROM events_messages) + (SELECT count(*) FROM replays_messages)";
    open("queue.db").query_row(waiting, [], |row| row.get(0)).unwrap()
}

#[cfg(unix)]
#[test]
fn letters_that_are_replayed_during_a_backup_take_effect_in_the_copy() {
    const LETTERS: usize = 20;
    let pipeline = Pipeline::start();
    pipeline.sql(
        "CREATE TRIGGER refused BEFORE INSERT ON fleeting BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    for number in 0..LETTERS {
        let id = format!("evt_{number}");
        assert_eq!(
            pipeline.post(&stripe("test.fleeting", &id, 1, json!({ "id": id }))).status,
            200
        );
    }
    let dead = |pipeline: &Pipeline| {
        pipeline.sql("SELECT count(*) FROM dead_letters WHERE state = 'dead'")[0][0].clone()
    };
    eventually("all are dead", || (dead(&pipeline) == LETTERS).then_some(()));
    // Replayed events wait on the queue for their table.
    pipeline.sql("ALTER TABLE fleeting RENAME TO elsewhere");
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    back_up_slowly(&pipeline, &backup, || {
        send_again(&pipeline, &["replays", "plan", "--all", "--json"], LETTERS);
    });
    let mended = "DROP TRIGGER refused; ALTER TABLE elsewhere RENAME TO fleeting";
    assert_eq!(changed(&backup, mended), 0, "they were sent after the queue was copied");
    let restored = Pipeline::restored(&backup);
    let count = |sql: &str| restored.sql(sql)[0][0].clone();
    eventually("they have taken effect", || {
        (count("SELECT count(*) FROM fleeting") == LETTERS).then_some(())
    });
    eventually("they are settled", || {
        (count("SELECT count(*) FROM dead_letters WHERE state = 'applied'") == LETTERS)
            .then_some(())
    });
    eventually("the replay has ended", || {
        let replays = restored.sql("SELECT state, sent FROM replays");
        (replays == [[json!("done"), json!(LETTERS)]]).then_some(())
    });
}

#[cfg(unix)]
#[test]
fn events_that_are_reprocessed_during_a_backup_take_effect_in_the_copy() {
    const EVENTS: usize = 20;
    let pipeline = Pipeline::start();
    for number in 0..EVENTS {
        let id = format!("evt_{number}");
        assert_eq!(
            pipeline.post(&stripe("test.fleeting", &id, 1, json!({ "id": id }))).status,
            200
        );
    }
    pipeline.settle();
    pipeline.sql("ALTER TABLE fleeting RENAME TO elsewhere");
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    back_up_slowly(&pipeline, &backup, || {
        send_again(&pipeline, &["reprocess", "--type", "test.fleeting", "--json"], EVENTS);
    });
    let emptied = "DELETE FROM elsewhere; ALTER TABLE elsewhere RENAME TO fleeting";
    assert_eq!(changed(&backup, emptied), 0, "they were sent after the queue was copied");
    let restored = Pipeline::restored_remembering(&backup);
    eventually("they have taken effect again", || {
        (restored.sql("SELECT count(*) FROM fleeting")[0][0] == EVENTS).then_some(())
    });
    eventually("the reprocessing has ended", || {
        let replays = restored.sql("SELECT state, sent, applied FROM replays");
        (replays == [[json!("done"), json!(EVENTS), json!(EVENTS)]]).then_some(())
    });
}
