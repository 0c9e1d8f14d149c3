//! Replays on a real SQLite, with processes that end after any transaction: every matching letter is sent, two replays do
//! not send the same one, and letters that fail again are left to the next replay.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;

use hookmill_core::delivery::Delivery;
use hookmill_core::message::{BodyForm, Envelope, VERSION, Verified, decode, encode};
use hookmill_core::queue::{Backlog, Queue, QueueError};
use hookmill_core::store::{Param, Row, Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_core::words::LetterReason;
use hookmill_dlq::replay::{
    FilterError, LetterFilter, Stepped, Turn, plan_replay, replay_id, run_replay, step, turn_replay,
};
use hookmill_dlq::reprocess::{EventFilter, LOOK, plan_reprocess, reprocess_id};
use hookmill_dlq::{Letter, bury, recover};
use hookmill_native::{DataFolder, Sqlite};
use proptest::prelude::*;

struct World {
    store: Sqlite,
    /// After how many transactions the process ends, and whether before or after the last.
    death: Mutex<Option<(usize, bool)>>,
    /// The messages that the queue has accepted.
    sent: Mutex<Vec<String>>,
    /// How many more requests the queue rejects.
    refusing: Mutex<usize>,
    /// Whether a fast consumer fails each message before the replay records that it was sent.
    failing: Mutex<bool>,
    _folder: tempfile::TempDir,
    _data: DataFolder,
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn all() -> LetterFilter {
    LetterFilter { all: true, ..LetterFilter::default() }
}

fn envelope(n: usize) -> Envelope {
    Envelope {
        v: VERSION,
        source: if n.is_multiple_of(2) { "stripe" } else { "clerk" }.into(),
        id: format!("evt_{n}"),
        kind: format!("type.{n}"),
        received_at: at(0),
        verified: Verified { secret: 0, signed_at: None },
        generation: 0,
        rules: Vec::new(),
        headers: BTreeMap::new(),
        api_version: None,
        from_api: None,
        body: BodyForm::Text,
    }
}

impl World {
    /// A world with this number of dead letters, of two sources in turn, that failed at 1,000 ms.
    fn new(letters: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::lock(folder.path()).unwrap();
        let store = data.store(&hookmill_migrations::own()).unwrap().store;
        let world = Self {
            store,
            death: Mutex::default(),
            sent: Mutex::default(),
            refusing: Mutex::default(),
            failing: Mutex::default(),
            _folder: folder,
            _data: data,
        };
        for n in 0..letters {
            world.bury(n, 1_000);
        }
        world
    }

    /// A world with this number of applied events, of two sources in turn, ten in each millisecond from 1,000.
    fn with_applied(events: usize) -> Self {
        let world = Self::new(0);
        let rows: Vec<_> = (0..events)
            .map(|n| {
                let mut envelope = envelope(n);
                let text = encode(&mut envelope, b"{}");
                (envelope.source, envelope.id, envelope.kind, 1_000 + n / 10, text)
            })
            .collect();
        let rows = serde_json::to_string(&rows).unwrap();
        let write = |sql: &str| Statement::new(sql, vec![Param::Text(rows.clone())]);
        let ledger = "INSERT INTO events (source, id, type, outcome, received_at, applied_at, attempts, secret)
            SELECT value ->> 0, value ->> 1, value ->> 2, 'applied', 0, value ->> 3, 1, 0 FROM json_each(?1)";
        let messages = "INSERT INTO event_messages (applied_at, source, id, message)
            SELECT value ->> 3, value ->> 0, value ->> 1, value ->> 4 FROM json_each(?1)";
        block(world.store.execute(vec![write(ledger), write(messages)])).unwrap();
        world
    }

    fn reprocessing(&self, filter: &EventFilter, rate: u32, now: i64) -> String {
        let id = reprocess_id(filter, "ines", at(now));
        block(self.store.execute(vec![plan_reprocess(&id, filter, "ines", at(now))])).unwrap();
        assert!(self.does(run_replay(&id, rate, "a rule has changed", "ines", at(now))));
        id
    }

    /// The events that were sent: id and generation, and how often.
    fn reprocessed(&self) -> BTreeMap<(String, u32), usize> {
        let mut sent = BTreeMap::new();
        for message in self.sent() {
            let envelope = decode(&message).unwrap().envelope;
            *sent.entry((envelope.id, envelope.generation)).or_default() += 1;
        }
        sent
    }

    fn bury(&self, n: usize, now: i64) {
        block(self.bury_now(n, now));
    }

    async fn bury_now(&self, n: usize, now: i64) {
        let envelope = envelope(n);
        let letter = Letter {
            delivery: &Delivery { attempts: 3, text: format!("message {n}") },
            envelope: Some(&envelope),
            reason: LetterReason::Exhausted,
            error: "away".into(),
        };
        self.store.execute(bury(&[letter], at(now))).await.unwrap();
    }

    fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let statement = Statement::new(sql, Vec::new());
        let rows = block(self.store.execute(vec![statement])).unwrap().remove(0);
        rows.iter().map(Row::texts).collect()
    }

    /// Applies events under a generation.
    fn apply(&self, events: impl Iterator<Item = usize>, generation: u32) {
        for n in events {
            let Envelope { source, id, kind, .. } = envelope(n);
            self.sql(&format!(
                "INSERT INTO events (source, id, generation, type, outcome, received_at, applied_at, attempts, secret)
                 VALUES ('{source}', '{id}', {generation}, '{kind}', 'applied', 0, 3000, 1, 0)"
            ));
            // In the same transaction.
            self.sql(&format!(
                "UPDATE dead_letters SET state = 'applied' WHERE source = '{source}' AND event_id = '{id}'
                    AND generation = {generation} AND state IN ('dead', 'replaying', 'replayed')"
            ));
        }
    }

    /// As after a restore: the queue is empty.
    fn restored(&self, now: i64) -> usize {
        self.sent.lock().unwrap().clear();
        let rows = block(self.store.execute(recover(at(now)))).unwrap();
        rows[1].len() + rows[2].len()
    }

    fn states(&self) -> BTreeMap<String, u64> {
        let rows = self.sql("SELECT state, count(*) FROM dead_letters GROUP BY state");
        let pair = |row: &Vec<Option<String>>| {
            (row[0].clone().unwrap(), row[1].as_ref().unwrap().parse().unwrap())
        };
        rows.iter().map(pair).collect()
    }

    fn planned(&self, filter: &LetterFilter, actor: &str, now: i64) -> String {
        let id = replay_id(filter, actor, at(now));
        block(self.store.execute(vec![plan_replay(&id, filter, actor, at(now))])).unwrap();
        id
    }

    fn does(&self, statement: Statement) -> bool {
        !block(self.store.execute(vec![statement])).unwrap().remove(0).is_empty()
    }

    fn running(&self, filter: &LetterFilter, rate: u32, now: i64) -> String {
        let id = self.planned(filter, "ines", now);
        assert!(self.does(run_replay(&id, rate, "mended", "ines", at(now))));
        id
    }

    fn step(&self, now: i64) -> Result<Stepped, StoreError> {
        block(step(self, self, || at(now)))
    }

    /// Runs steps, each when the previous one is due, until no work is left.
    fn until_done(&self, mut now: i64) -> i64 {
        for _ in 0..1000 {
            match self.step(now).unwrap().next {
                Some(next) => now = now.max(next.millis()),
                None => return now,
            }
        }
        panic!("it does not end")
    }

    fn sent(&self) -> Vec<String> {
        let mut sent = self.sent.lock().unwrap().clone();
        sent.sort_unstable();
        sent
    }
}

/// The store of a process that may end.
impl Store for World {
    async fn execute(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        let death = {
            let mut death = self.death.lock().unwrap();
            match &mut *death {
                Some((0, before)) => {
                    let before = *before;
                    *death = None;
                    Some(before)
                }
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        let dead = StoreError::Unavailable("the process has died".into());
        if death == Some(true) {
            return Err(dead);
        }
        let rows = self.store.execute(statements).await?;
        if death.is_some() { Err(dead) } else { Ok(rows) }
    }
}

impl Queue for World {
    async fn send(&self, messages: Vec<String>) -> Result<(), QueueError> {
        let refusing = std::mem::take(&mut *self.refusing.lock().unwrap());
        if refusing > 0 {
            *self.refusing.lock().unwrap() = refusing - 1;
            return Err(QueueError("away".into()));
        }
        let failing = *self.failing.lock().unwrap();
        if failing {
            for message in &messages {
                self.bury_now(message.trim_start_matches("message ").parse().unwrap(), 2_100).await;
            }
        }
        self.sent.lock().unwrap().extend(messages);
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        Ok(Backlog::default())
    }
}

#[test]
fn every_letter_is_sent_once_and_within_the_rate() {
    let world = World::new(250);
    let id = world.running(&all(), 50, 2_000);
    let first = world.step(2_000).unwrap();
    assert_eq!(first.sent, Some((id, 50)));
    assert_eq!(first.next, Some(at(3_000)));
    assert_eq!(world.step(2_999).unwrap().sent, None);
    let end = world.until_done(3_000);
    assert_eq!(end, 7_000);
    let mut expected: Vec<_> = (0..250).map(|n| format!("message {n}")).collect();
    expected.sort_unstable();
    assert_eq!(world.sent(), expected);
    assert_eq!(world.states(), BTreeMap::from([("replayed".into(), 250)]));
    let replay = world.sql("SELECT state, total, sent, error FROM replays");
    assert_eq!(replay, [[Some("done".into()), Some("250".into()), Some("250".into()), None]]);
}

#[test]
fn a_filter_must_select_something() {
    assert_eq!(LetterFilter::default().check(), Err(FilterError::Empty));
    assert_eq!(all().check(), Ok(()));
    let both = LetterFilter { source: Some("stripe".into()), ..all() };
    assert_eq!(both.check(), Err(FilterError::Both));
    let world = World::new(20);
    for (filter, expected) in [
        (LetterFilter { source: Some("stripe".into()), ..LetterFilter::default() }, 10),
        (LetterFilter { kind: Some("type.1*".into()), ..LetterFilter::default() }, 11),
        (LetterFilter { kind: Some("type".into()), ..LetterFilter::default() }, 0),
        (LetterFilter { reason: Some(LetterReason::Exhausted), ..LetterFilter::default() }, 20),
        (LetterFilter { reason: Some(LetterReason::Refused), ..LetterFilter::default() }, 0),
        (LetterFilter { event_id: Some("evt_3".into()), ..LetterFilter::default() }, 1),
        (LetterFilter { failed_from: Some(at(1_000)), ..LetterFilter::default() }, 20),
        (LetterFilter { failed_before: Some(at(1_000)), ..LetterFilter::default() }, 0),
        (LetterFilter { source: Some("' OR 1=1 --".into()), ..LetterFilter::default() }, 0),
    ] {
        let id = world.planned(&filter, "ines", 2_000);
        let total = world.sql(&format!("SELECT total FROM replays WHERE id = '{id}'"));
        assert_eq!(total, [[Some(expected.to_string())]], "{filter:?}");
    }
}

#[test]
fn two_replays_over_the_same_letters_do_not_double_them() {
    let world = World::new(30);
    let stripe = LetterFilter { source: Some("stripe".into()), ..LetterFilter::default() };
    world.running(&all(), 10, 2_000);
    world.running(&stripe, 10, 2_001);
    world.until_done(3_000);
    assert_eq!(world.sent().len(), 30);
    // Sent letters are not dead, so a plan does not find them.
    let later = world.planned(&all(), "ines", 9_000);
    let total = world.sql(&format!("SELECT total FROM replays WHERE id = '{later}'"));
    assert_eq!(total, [[Some("0".into())]]);
}

#[test]
fn a_letter_that_fails_again_is_dead_again_and_left_to_the_next_replay() {
    let world = World::new(3);
    world.running(&all(), 1, 2_000);
    world.step(2_000).unwrap();
    for n in 0..3 {
        world.bury(n, 2_500);
    }
    world.until_done(3_000);
    // Each of the others failed again before it was sent.
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.states(), BTreeMap::from([("dead".into(), 3)]));
    let rows = world
        .sql("SELECT sum(replays), max(first_failed_at), min(last_failed_at) FROM dead_letters");
    assert_eq!(rows, [["1", "1000", "2500"].map(|text| Some(text.to_owned()))]);
    world.running(&all(), 10, 4_000);
    world.until_done(4_000);
    assert_eq!(world.sent().len(), 4);
}

#[test]
fn a_letter_that_fails_before_its_replay_is_recorded_is_dead() {
    let world = World::new(3);
    world.running(&all(), 10, 2_000);
    *world.failing.lock().unwrap() = true;
    world.until_done(2_000);
    assert_eq!(world.states(), BTreeMap::from([("dead".into(), 3)]));
    let replays = world.sql("SELECT DISTINCT replays, last_failed_at FROM dead_letters");
    assert_eq!(replays, [["1", "2100"].map(|text| Some(text.to_owned()))]);
}

#[test]
fn a_replay_can_be_paused_resumed_and_cancelled() {
    let world = World::new(40);
    let id = world.running(&all(), 10, 2_000);
    world.step(2_000).unwrap();
    assert!(world.does(turn_replay(&id, Turn::Pause, at(2_100))));
    assert_eq!(world.step(60_000).unwrap(), Stepped::default());
    assert!(!world.does(turn_replay(&id, Turn::Pause, at(2_100))), "it is paused already");
    assert!(world.does(turn_replay(&id, Turn::Resume, at(60_000))));
    world.step(60_000).unwrap();
    // A process is still sending: its letters are given back later.
    world.sql("UPDATE dead_letters SET state = 'replaying' WHERE id IN (SELECT id FROM dead_letters WHERE state = 'dead' LIMIT 5)");
    world.sql(&format!("UPDATE dead_letters SET replay = '{id}' WHERE state = 'replaying'"));
    assert!(world.does(turn_replay(&id, Turn::Cancel, at(60_100))));
    assert_eq!(world.states()["replaying"], 5);
    assert_eq!(world.step(200_000).unwrap(), Stepped::default());
    assert_eq!(world.states(), BTreeMap::from([("dead".into(), 20), ("replayed".into(), 20)]));
    for turn in [Turn::Pause, Turn::Resume, Turn::Cancel] {
        assert!(!world.does(turn_replay(&id, turn, at(200_000))), "{turn:?}");
    }
    assert!(!world.does(run_replay(&id, 10, "", "ines", at(200_000))));
}

#[test]
fn a_clock_that_was_ahead_delays_no_replay() {
    const DAY: i64 = 86_400_000;
    // The process survives, or ends in one of its transactions.
    for death in [None, Some((0, false)), Some((1, false)), Some((2, true))] {
        let world = World::new(25);
        world.running(&all(), 10, 2_000);
        *world.death.lock().unwrap() = death;
        let _ = world.step(DAY);
        let end = world.until_done(3_000);
        assert!(end < 10_000, "{death:?}: {end}");
        assert_eq!(world.states(), BTreeMap::from([("replayed".into(), 25)]));
    }
}

/// Two replays that were planned while the clock was ahead would otherwise send the same letter in turn, for as long as it was.
#[test]
fn a_letter_that_fails_again_is_not_sent_again_though_the_clock_was_ahead_at_the_plan() {
    for replays in [1, 2] {
        let world = World::new(1);
        for number in 0..replays {
            world.running(&all(), 10, 86_400_000 + number);
        }
        *world.failing.lock().unwrap() = true;
        world.until_done(2_000);
        assert_eq!(world.sent(), ["message 0"], "{replays}");
    }
}

#[test]
fn letters_that_failed_by_a_clock_that_was_ahead_are_replayed() {
    let world = World::new(1);
    world.bury(1, 86_400_000);
    world.step(2_000).unwrap();
    world.running(&all(), 10, 2_000);
    world.until_done(2_000);
    assert_eq!(world.sent(), ["message 0", "message 1"]);
}

#[test]
fn a_cancelled_replay_gives_its_letters_back_though_the_clock_was_ahead() {
    let world = World::new(5);
    let id = world.running(&all(), 10, 2_000);
    *world.death.lock().unwrap() = Some((1, false));
    assert!(world.step(86_400_000).is_err());
    assert!(world.does(turn_replay(&id, Turn::Cancel, at(2_100))));
    world.step(2_200).unwrap();
    assert_eq!(world.states(), BTreeMap::from([("dead".into(), 5)]));
}

#[test]
fn an_unavailable_queue_is_retried() {
    let world = World::new(5);
    world.running(&all(), 10, 2_000);
    *world.refusing.lock().unwrap() = 2;
    let stepped = world.step(2_000).unwrap();
    assert_eq!(stepped.error.as_deref(), Some("the queue failed: away"));
    assert_eq!(stepped.next, Some(at(7_000)));
    world.until_done(7_000);
    assert_eq!(world.sent().len(), 5);
    assert_eq!(world.sql("SELECT state, error FROM replays"), [[Some("done".into()), None]]);
}

#[test]
fn an_applied_event_gets_no_letter() {
    let world = World::new(2);
    world.sql(
        "INSERT INTO events (source, id, generation, type, outcome, received_at, applied_at, attempts, secret) \
         VALUES ('stripe', 'evt_2', 0, 't', 'applied', 0, 3000, 1, 0), ('stripe', 'evt_4', 1, 't', 'applied', 0, 3000, 1, 0)",
    );
    for n in [2, 3, 4] {
        world.bury(n, 4_000);
    }
    // A letter of another generation belongs to another event.
    let letters = world.sql("SELECT event_id FROM dead_letters ORDER BY event_id");
    let expected = ["evt_0", "evt_1", "evt_3", "evt_4"];
    assert_eq!(letters, expected.map(|id| vec![Some(id.to_owned())]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_crash_leaves_no_letter_out(
        letters in 1_usize..30,
        rate in 1_u32..20,
        deaths in prop::collection::vec((0_usize..4, any::<bool>()), 0..8),
        refusing in 0_usize..3,
    ) {
        let world = World::new(letters);
        let id = world.running(&all(), rate, 2_000);
        *world.refusing.lock().unwrap() = refusing;
        let mut now = 2_000;
        for death in deaths.iter().copied() {
            *world.death.lock().unwrap() = Some(death);
            let _ = world.step(now);
            now += 61_000;
        }
        *world.death.lock().unwrap() = None;
        let died = deaths.len();
        world.until_done(now);
        let states = world.states();
        prop_assert_eq!(states, BTreeMap::from([("replayed".to_owned(), letters as u64)]));
        let mut sent = world.sent();
        let all = sent.len();
        sent.dedup();
        prop_assert_eq!(sent.len(), letters, "each is sent");
        // A process that ended between sending and recording had claimed at most one step.
        prop_assert!(all <= letters + died * rate as usize);
        let replay = world.sql(&format!("SELECT state, total FROM replays WHERE id = '{id}'"));
        prop_assert_eq!(replay, [[Some("done".to_owned()), Some(letters.to_string())]]);
    }
}

#[test]
fn every_matching_event_is_reprocessed_in_its_own_generation() {
    let world = World::with_applied(300);
    let stripe = EventFilter { source: Some("stripe".into()), ..EventFilter::default() };
    let id = world.reprocessing(&stripe, 60, 2_000);
    let first = world.step(2_000).unwrap();
    assert_eq!((first.sent, first.next), (Some((id, 60)), Some(at(3_000))));
    // Events that take effect now are not in the plan.
    world.sql(
        "INSERT INTO events SELECT source, 'late', 0, type, outcome, 0, 2001, 1, 0, NULL FROM events WHERE source = 'stripe' LIMIT 1",
    );
    world.sql("INSERT INTO event_messages VALUES (2001, 'stripe', 'late', 'x')");
    let end = world.until_done(3_000);
    assert_eq!(end, 4_500);
    let expected =
        |generation| (0..300).step_by(2).map(move |n| ((format!("evt_{n}"), generation), 1));
    assert_eq!(world.reprocessed(), expected(1).collect());
    // A second reprocessing counts again.
    world.reprocessing(&stripe, 1000, 2_000_000);
    world.sql("DELETE FROM events WHERE id = 'late'");
    world.until_done(2_000_000);
    assert_eq!(world.reprocessed(), expected(1).chain(expected(2)).collect());
    let replays =
        world.sql("SELECT generation, state, total, sent FROM replays ORDER BY generation");
    let row = |texts: [&str; 4]| texts.map(|text| Some(text.to_owned())).to_vec();
    assert_eq!(replays, [row(["1", "done", "150", "150"]), row(["2", "done", "151", "150"])]);
}

#[test]
fn a_reprocessing_says_which_events_and_which_rules() {
    let rules = |rules: Vec<String>| EventFilter { rules, ..EventFilter::default() };
    assert_eq!(rules(vec!["welcome".into()]).check(), Err(FilterError::Empty));
    let all = EventFilter { all: true, ..rules(vec!["welcome".into()]) };
    assert_eq!(all.check(), Ok(()));
    assert_eq!(
        EventFilter { source: Some("s".into()), ..all.clone() }.check(),
        Err(FilterError::Both)
    );
    let long = EventFilter { rules: vec!["x".repeat(100); 6], ..all.clone() };
    assert_eq!(long.check(), Err(FilterError::Rules));
    let world = World::with_applied(1);
    world.reprocessing(&all, 1, 2_000);
    world.until_done(2_000);
    let [message] = world.sent().try_into().unwrap();
    assert_eq!(decode(&message).unwrap().envelope.rules, ["welcome"]);
}

#[test]
fn matches_are_found_behind_many_other_events() {
    let last = LOOK as usize * 2 + 7;
    let world = World::with_applied(last + 1);
    let filter = EventFilter { event_id: Some(format!("evt_{last}")), ..EventFilter::default() };
    world.reprocessing(&filter, 100, 2_000);
    let step = world.step(2_000).unwrap();
    assert_eq!((step.sent, step.next), (None, Some(at(2_000))));
    world.until_done(2_000);
    assert_eq!(world.reprocessed(), BTreeMap::from([((format!("evt_{last}"), 1), 1)]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_leaves_no_event_out_of_a_reprocessing(
        deaths in prop::collection::vec((0_usize..6, any::<bool>()), 0..6),
        refusals in 0_usize..3,
        rate in 1_u32..40,
    ) {
        let world = World::with_applied(60);
        world.reprocessing(&EventFilter { all: true, ..EventFilter::default() }, rate, 2_000);
        *world.refusing.lock().unwrap() = refusals;
        let mut now = 2_000;
        for death in deaths {
            *world.death.lock().unwrap() = Some(death);
            for _ in 0..4 {
                match world.step(now) {
                    Ok(Stepped { next: Some(next), .. }) => now = now.max(next.millis()),
                    Ok(_) => break,
                    // The next process resumes when the lease has ended.
                    Err(_) => now += 60_000,
                }
            }
        }
        *world.death.lock().unwrap() = None;
        world.until_done(now + 60_000);
        let sent: Vec<_> = world.reprocessed().into_keys().collect();
        let mut expected: Vec<_> = (0..60).map(|n| (format!("evt_{n}"), 1)).collect();
        expected.sort_unstable();
        prop_assert_eq!(sent, expected);
        let state = world.sql("SELECT state FROM replays");
        prop_assert_eq!(state, [[Some("done".to_owned())]]);
    }
}

#[test]
fn letters_that_a_restored_queue_lacks_are_sent_again() {
    let world = World::new(30);
    let id = world.running(&all(), 10, 2_000);
    for now in [2_000, 3_000] {
        world.step(now).unwrap();
    }
    world.apply(0..5, 0);
    // During the replay.
    assert_eq!(world.restored(60_000), 15);
    let sent = |world: &World| world.sql("SELECT state, total, sent FROM replays");
    let row = |texts: [&str; 3]| vec![texts.map(|text| Some(text.to_owned())).to_vec()];
    assert_eq!(sent(&world), row(["running", "30", "5"]));
    world.until_done(60_000);
    let mut expected: Vec<_> = (5..30).map(|n| format!("message {n}")).collect();
    expected.sort_unstable();
    assert_eq!(world.sent(), expected);
    assert_eq!(sent(&world), row(["done", "30", "30"]));
    assert_eq!(world.sql("SELECT max(replays) FROM dead_letters"), [[Some("1".into())]]);
    // After its end.
    world.apply(5..20, 0);
    assert_eq!(world.restored(90_000), 10);
    world.until_done(90_000);
    assert_eq!(world.sent().len(), 10);
    assert_eq!(sent(&world), row(["done", "30", "30"]));
    // The ledger proves everything: nothing is resumed.
    world.apply(20..30, 0);
    assert_eq!(world.restored(120_000), 0);
    assert_eq!(sent(&world), row(["done", "30", "30"]));
    world.step(120_000).unwrap();
    assert_eq!(world.states(), BTreeMap::from([("applied".into(), 30)]));
    assert_eq!(
        world.sql(&format!("SELECT 1 FROM replays WHERE id <> '{id}'")),
        Vec::<Vec<_>>::new()
    );
}

#[test]
fn letters_of_a_replay_that_is_not_resumed_are_dead_again() {
    let world = World::new(20);
    let stripe = LetterFilter { source: Some("stripe".into()), ..LetterFilter::default() };
    let cancelled = world.running(&stripe, 5, 2_000);
    world.step(2_000).unwrap();
    assert!(world.does(turn_replay(&cancelled, Turn::Cancel, at(2_500))));
    let forgotten = world.running(
        &LetterFilter { source: Some("clerk".into()), ..LetterFilter::default() },
        10,
        3_000,
    );
    world.until_done(3_000);
    world.sql(&format!("DELETE FROM replays WHERE id = '{forgotten}'"));
    world.bury(1, 3_500);
    assert_eq!(world.restored(60_000), 14);
    assert_eq!(world.states(), BTreeMap::from([("dead".into(), 20)]));
    assert_eq!(world.step(60_000).unwrap(), Stepped::default());
    assert_eq!(world.sql("SELECT state FROM replays"), [[Some("cancelled".into())]]);
}

#[test]
fn a_reprocessing_moves_back_to_the_proven_events_after_a_restore() {
    let row = |texts: [&str; 4]| texts.map(|text| Some(text.to_owned())).to_vec();
    for filter in [
        EventFilter { source: Some("stripe".into()), ..EventFilter::default() },
        EventFilter { all: true, ..EventFilter::default() },
        EventFilter { kind: Some("type.*".into()), ..EventFilter::default() },
        EventFilter { applied_before: Some(at(1_006)), ..EventFilter::default() },
    ] {
        let world = World::with_applied(100);
        world.reprocessing(&filter, 20, 2_000);
        world.until_done(2_000);
        let all: Vec<_> = world.reprocessed().into_keys().map(|(id, _)| id).collect();
        let numbers = all.iter().map(|id| id["evt_".len()..].parse::<usize>().unwrap());
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        // Of the first 40 one has failed, and of the others one took effect.
        let failed = numbers.iter().copied().find(|n| *n > 5).unwrap();
        world.apply(numbers.iter().copied().filter(|n| (*n < 40 && *n != failed) || *n == 44), 1);
        let envelope = Envelope { generation: 1, ..envelope(failed) };
        let delivery = Delivery { attempts: 3, text: "x".into() };
        let letter = Letter {
            delivery: &delivery,
            envelope: Some(&envelope),
            reason: LetterReason::Refused,
            error: "no".into(),
        };
        block(world.store.execute(bury(&[letter], at(2_500)))).unwrap();
        assert_eq!(world.restored(60_000), 1, "{filter:?}");
        let proven = numbers.iter().filter(|n| **n < 40).count().to_string();
        let total = numbers.len().to_string();
        let found = || world.sql("SELECT state, total, sent, reached FROM replays");
        assert_eq!(found(), [row(["running", &total, &proven, r#"[1004,"",""]"#])]);
        world.until_done(60_000);
        let again: Vec<_> = numbers.iter().filter(|n| **n >= 40).collect();
        assert_eq!(world.reprocessed().len(), again.len());
        assert!(again.iter().all(|n| world.reprocessed().contains_key(&(format!("evt_{n}"), 1))));
        assert_eq!(found()[0][..3], row(["done", &total, &total, ""])[..3]);
        // The ledger proves everything now.
        world.apply(numbers.iter().copied().filter(|n| *n >= 40 && *n != 44), 1);
        assert_eq!(world.restored(90_000), 0);
        assert_eq!(found()[0][0].as_deref(), Some("done"));
    }
}

#[test]
fn a_paused_or_cancelled_reprocessing_keeps_its_state() {
    for (turn, state, back) in [(Turn::Pause, "paused", 1), (Turn::Cancel, "cancelled", 0)] {
        let world = World::with_applied(100);
        let id =
            world.reprocessing(&EventFilter { all: true, ..EventFilter::default() }, 20, 2_000);
        world.step(2_000).unwrap();
        assert!(world.does(turn_replay(&id, turn, at(2_500))));
        assert_eq!(world.restored(60_000), back);
        assert_eq!(world.sql("SELECT state FROM replays"), [[Some(state.to_owned())]]);
        assert_eq!(world.step(60_000).unwrap(), Stepped::default());
    }
}
