//! One history: tasks of several machines in one thread, in an order that the choices decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use hookmill_core::message::decode;
use hookmill_core::time::Timestamp;
use hookmill_ingress::Gate;
use hookmill_providers::{UnsignedEvent, sign};
use serde_json::json;

use crate::choice::Choices;
use crate::history::{Event, REPORTS, TABLES, oracle};
use crate::operator::{Backup, opened};
use crate::pipeline::{Setup, Task, Webhook, received, tasks};
use crate::world::{Machine, START, Wait, World};

/// The number of steps in which things go wrong.
const TROUBLED: usize = 1_200;
/// The maximum number of steps after that until nothing is left to do.
const CALM: usize = 30_000;
/// The number of times that a provider sends an event.
const SENDS: u32 = 12;

/// What all histories share.
pub struct Common {
    pub setup: Setup,
    /// An empty database after all migrations.
    empty: Vec<u8>,
    secrets: Vec<String>,
}

impl Common {
    pub fn new() -> Self {
        let setup = Setup::new();
        let mut database = rusqlite::Connection::open_in_memory().expect("there is memory");
        let migrations = &setup.loaded.migrations;
        hookmill_migrations::apply(&mut database, migrations).expect("the migrations are right");
        let empty = database.serialize(rusqlite::MAIN_DB).expect("there is memory").to_vec();
        let secrets = setup.secrets();
        Self { setup, empty, secrets }
    }
}

/// The result of a history.
pub struct Outcome {
    pub violations: Vec<String>,
    pub choices: Vec<u32>,
    pub trace: Vec<String>,
}

/// A task that runs.
struct Running {
    machine: usize,
    task: Task,
    wait: Wait,
}

/// A process, and when it starts again after it has ended.
struct Process {
    machine: Machine,
    gate: Arc<Gate>,
    starts_at: Option<i64>,
}

/// What the provider knows of an event.
#[derive(Clone, Default)]
struct Sending {
    due_at: i64,
    sent: u32,
    /// The machine that got the last request and has not answered yet.
    asked: Option<usize>,
    is_done: bool,
}

type Answers = Arc<Mutex<Vec<(usize, u16, Vec<String>)>>>;

struct Simulation<'c> {
    common: &'c Common,
    world: Arc<Mutex<World>>,
    running: Vec<Running>,
    processes: Vec<Process>,
    events: Vec<Event>,
    sendings: Vec<Sending>,
    answers: Answers,
    /// Events that Hookmill has acknowledged, whether or not the provider got the answer.
    acknowledged: BTreeSet<String>,
    backup: Option<Backup>,
    /// How often the letters of the end were replayed.
    replays_at_end: usize,
}

/// Runs a history.
pub fn run(common: &Common, choices: Choices, traced: bool) -> Outcome {
    let world = World::new(choices, opened(&common.empty), common.secrets.clone());
    let world = Arc::new(Mutex::new(world));
    if traced {
        world.lock().expect("nothing runs yet").trace = Some(Vec::new());
    }
    let mut simulation = Simulation::new(common, world.clone());
    simulation.run();
    drop(simulation);
    let mut world = world.lock().expect("no task is left");
    Outcome {
        violations: std::mem::take(&mut world.violations),
        choices: world.choices.made().to_vec(),
        trace: world.trace.take().unwrap_or_default(),
    }
}

impl<'c> Simulation<'c> {
    fn new(common: &'c Common, world: Arc<Mutex<World>>) -> Self {
        let locked = || world.lock().expect("nothing runs yet");
        let machines = 1 + locked().choices.below(3);
        let count = 3 + locked().choices.below(30);
        let events: Vec<_> =
            (0..count).map(|number| Event::any(&mut locked().choices, number)).collect();
        let sendings = events.iter().map(|_| {
            let late = locked().choices.below(60_000);
            Sending {
                due_at: START + i64::try_from(late).unwrap_or_default(),
                ..Sending::default()
            }
        });
        let sendings = sendings.collect();
        let processes = (0..machines).map(|number| Process {
            machine: Machine::new(number, world.clone()),
            gate: Arc::new(common.setup.gate()),
            starts_at: Some(START),
        });
        let processes = processes.collect();
        // The API has what no event says, so that it shows whether it was asked.
        let customers = events.iter().filter(|event| event.kind == "customer.updated");
        let objects = customers.map(|event| {
            let id = event.text("id");
            let object = json!({ "id": id, "name": format!("private-note of {id}") });
            (id, object)
        });
        locked().outside.objects = objects.collect();
        Self {
            common,
            world,
            running: Vec::new(),
            processes,
            events,
            sendings,
            answers: Answers::default(),
            acknowledged: BTreeSet::new(),
            backup: None,
            replays_at_end: 0,
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no task panics while it holds the world")
    }

    fn has_failed(&self) -> bool {
        !self.world().violations.is_empty()
    }

    fn run(&mut self) {
        for _ in 0..TROUBLED {
            self.start_due();
            self.troubled_step();
            self.hear();
            self.report();
            self.check_now();
            if self.has_failed() {
                return;
            }
        }
        self.calm_down();
        for _ in 0..CALM {
            self.start_due();
            if !self.poll_one() {
                if self.is_quiet() {
                    if self.replay_the_rest() {
                        continue;
                    }
                    self.check();
                    self.sweep_up();
                    return;
                }
                self.idle();
            }
            self.hear();
            if self.report() {
                self.finish_requests();
            }
            self.check_now();
            if self.has_failed() {
                return;
            }
        }
        let left = self.left();
        self.world().violated(format!("the pipeline does not come to rest: {left}"));
    }

    fn troubled_step(&mut self) {
        let roll = self.world().choices.below(100);
        match roll {
            0..70 => {
                if !self.poll_one() {
                    self.idle();
                }
            }
            70..83 => self.send_one(),
            83..87 => self.world().operate(),
            87 => self.end_one(),
            88 => {
                let mut world = self.world();
                // Up to two hours, or right again.
                let skew = 60_000 * i64::try_from(world.choices.below(120)).unwrap_or_default();
                let skew = if world.choices.once_in(2) { skew } else { 0 };
                world.jump(skew);
            }
            89..92 if self.processes.len() == 1 => self.back_up_or_restore(),
            _ => {
                let mut world = self.world();
                let millis = world.choices.below(20_000);
                world.pass(i64::try_from(millis).unwrap_or_default());
            }
        }
    }

    /// Starts the processes that have ended for long enough.
    fn start_due(&mut self) {
        let time = self.world().time();
        let alone = self.processes.len() == 1;
        for process in &mut self.processes {
            if process.starts_at.is_none_or(|at| at > time) {
                continue;
            }
            process.starts_at = None;
            // Rejections that were not recorded are lost with their process.
            process.gate = Arc::new(self.common.setup.gate());
            let Process { machine, gate, .. } = process;
            machine.world().note(|| format!("machine {} starts", machine.number));
            let started = tasks(&self.common.setup, machine, gate, alone);
            let machine = machine.number;
            let running = |task| Running { machine, task, wait: Wait::Ready };
            self.running.extend(started.into_iter().map(running));
        }
    }

    fn end(&mut self, number: usize, pause: i64) {
        self.running.retain(|running| running.machine != number);
        let mut world = self.world();
        world.note(|| format!("machine {number} ends"));
        world.free(number);
        let starts_at = world.time() + pause;
        drop(world);
        self.processes[number].starts_at = Some(starts_at);
        for sending in self.sendings.iter_mut().filter(|sending| sending.asked == Some(number)) {
            sending.asked = None;
        }
        self.answers.lock().expect("no task is left").clear();
    }

    fn end_one(&mut self) {
        let number = self.world().choices.below(self.processes.len());
        let pause = 100 * i64::try_from(self.world().choices.below(600)).unwrap_or_default();
        self.end(number, pause);
    }

    /// When a task can go on.
    fn ready_at(&self, running: &Running) -> Option<i64> {
        match running.wait {
            Wait::Ready => Some(0),
            Wait::Until(time) => Some(time),
            Wait::Messages(queue) => self.world().next_message(queue),
        }
    }

    /// Lets one task go on that can. Returns whether there was one.
    fn poll_one(&mut self) -> bool {
        let time = self.world().time();
        let ready: Vec<_> = (0..self.running.len())
            .filter(|index| self.ready_at(&self.running[*index]).is_some_and(|at| at <= time))
            .collect();
        if ready.is_empty() {
            return false;
        }
        let index = ready[self.world().choices.below(ready.len())];
        let running = &mut self.running[index];
        let poll = running.task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let wait = self.world().wait.take();
        self.world().pass(1);
        match poll {
            Poll::Ready(()) => drop(self.running.remove(index)),
            Poll::Pending => self.running[index].wait = wait.unwrap_or(Wait::Ready),
        }
        true
    }

    /// Lets time pass until something can go on.
    fn idle(&mut self) {
        let tasks = self.running.iter().filter_map(|running| self.ready_at(running));
        let starts = self.processes.iter().filter_map(|process| process.starts_at);
        let time = self.world().time();
        match tasks.chain(starts).min() {
            Some(next) => self.world().pass((next - time).max(1)),
            None => self.world().pass(1000),
        }
    }

    /// The provider sends an event that is due, or none.
    fn send_one(&mut self) {
        let time = self.world().time();
        let due: Vec<_> = (0..self.sendings.len())
            .filter(|index| {
                let sending = &self.sendings[*index];
                !sending.is_done && sending.asked.is_none() && sending.due_at <= time
            })
            .collect();
        let up: Vec<_> =
            (0..self.processes.len()).filter(|n| self.processes[*n].starts_at.is_none()).collect();
        if due.is_empty() || up.is_empty() {
            return self.world().pass(500);
        }
        let index = due[self.world().choices.below(due.len())];
        let number = up[self.world().choices.below(up.len())];
        self.send(index, number);
    }

    fn send(&mut self, index: usize, number: usize) {
        let event = &self.events[index];
        let sending = &mut self.sendings[index];
        sending.asked = Some(number);
        sending.sent += 1;
        let time = self.world().time();
        self.world().note(|| format!("{} {} is sent to machine {number}", event.kind, event.id));
        let source = self.common.setup.source(event.source);
        let secret = self.common.setup.signing_secret(event.source);
        let body = event.body();
        let at = Timestamp::from_millis(time);
        let unsigned =
            UnsignedEvent { id: &event.id, kind: event.kind, at, query: None, body: &body };
        let signed = sign(source, &secret, unsigned).expect("the secret is right");
        let source = event.source.to_owned();
        let webhook = Webhook { source, headers: signed.headers, body: signed.body };
        let Process { machine, gate, .. } = &self.processes[number];
        let answer = received(machine.clone(), gate.clone(), webhook);
        let answers = self.answers.clone();
        let task = Box::pin(async move {
            let (status, accepted) = answer.await;
            answers.lock().expect("nothing holds it").push((index, status, accepted));
        });
        self.running.push(Running { machine: number, task, wait: Wait::Ready });
    }

    /// The provider gets the answers, or some of them.
    fn hear(&mut self) {
        let answers = std::mem::take(&mut *self.answers.lock().expect("nothing holds it"));
        for (index, status, accepted) in answers {
            self.acknowledged.extend(accepted);
            let mut world = self.world();
            let time = world.time();
            let is_lost = world.is_troubled && world.choices.once_in(15);
            let is_repeated = world.is_troubled && world.choices.once_in(10);
            world.note(|| format!("answer about {index}: {status}, lost: {is_lost}"));
            drop(world);
            let sending = &mut self.sendings[index];
            sending.asked = None;
            sending.is_done = (status < 300 && !is_lost && !is_repeated) || sending.sent >= SENDS;
            sending.due_at = time + (1000 << sending.sent.min(12));
        }
    }

    /// The provider has one report or two about each email that it has delivered. Returns whether there are new ones.
    fn report(&mut self) -> bool {
        let delivered = std::mem::take(&mut self.world().outside.reports);
        for email in &delivered {
            let count = 1 + self.world().choices.below(2);
            for _ in 0..count {
                let number = self.events.len();
                let mut world = self.world.lock().expect("no task panics while it holds the world");
                self.events.push(Event::report(&mut world.choices, number, email));
                self.sendings.push(Sending { due_at: world.time(), ..Sending::default() });
            }
        }
        !delivered.is_empty()
    }

    /// Goes on with a backup, or restores the last one.
    fn back_up_or_restore(&mut self) {
        let begin = || Backup::of(self.acknowledged.clone());
        let mut backup = self.backup.take().unwrap_or_else(begin);
        if !backup.is_complete() {
            self.world().back_up(&mut backup);
            self.backup = Some(backup);
        } else if self.world().choices.once_in(2) {
            self.end(0, 1000);
            self.world().restore(&backup);
            self.acknowledged = backup.acknowledged;
        }
    }

    /// From here on, nothing goes wrong, and operators put right what they can.
    fn calm_down(&mut self) {
        let mut world = self.world();
        world.note(|| "from here on, nothing goes wrong".to_owned());
        world.is_troubled = false;
        world.jump(0);
        world.turn_gate(Some(false));
        world.move_table(Some(false));
        world.resume_all();
        drop(world);
        self.finish_requests();
        self.world().replay_all();
    }

    /// Replays dead letters that can take effect now. Returns whether there are any.
    fn replay_the_rest(&mut self) -> bool {
        let broken =
            "SELECT id FROM dead_letters WHERE state = 'dead' AND type IS NOT 'broken.made'";
        // A replay that has ended gives its letters back after a while.
        let any = self.replays_at_end < 3 && !self.world().rows(broken).is_empty();
        if any {
            self.replays_at_end += 1;
            self.world().replay_all();
        }
        any
    }

    fn finish_requests(&mut self) {
        let time = self.world().time();
        for process in &mut self.processes {
            process.starts_at = process.starts_at.map(|at| at.min(time));
        }
        self.start_due();
        for index in 0..self.sendings.len() {
            if !self.sendings[index].is_done && self.sendings[index].asked.is_none() {
                self.send(index, 0);
            }
        }
    }

    /// What is left to do.
    fn left(&self) -> String {
        let world = self.world();
        let queued: usize = world.queues.values().map(Vec::len).sum();
        let rows = world.rows(
            "SELECT 'outbox ' || state || ' ' || channel FROM outbox WHERE state IN ('pending', 'sealed')
             UNION ALL SELECT 'replay ' || state FROM replays WHERE state = 'running'
             UNION ALL SELECT 'refetch ' || path FROM refetches
             UNION ALL SELECT 'letter ' || id FROM dead_letters WHERE state = 'replaying' OR state = 'replayed'
                AND NOT EXISTS (SELECT 1 FROM replays WHERE replays.id = dead_letters.replay AND replays.state = 'cancelled')",
        );
        let requests = self.sendings.iter().filter(|sending| sending.asked.is_some()).count();
        let mut left = Vec::new();
        if queued > 0 {
            left.push(format!("{queued} messages on queues"));
        }
        if requests > 0 {
            left.push(format!("{requests} requests"));
        }
        left.extend(rows.into_iter().map(|mut row| row.remove(0)));
        left.join(", ")
    }

    fn is_quiet(&self) -> bool {
        let up = self.processes.iter().all(|process| process.starts_at.is_none());
        up && self.left().is_empty()
    }

    /// Everything that must hold at any time: an acknowledged event is applied, waits, or is a dead letter, and the tables are
    /// those of the applied events.
    fn check_now(&self) {
        let mut world = self.world();
        let Some(has_grown) = world.look() else { return };
        let letters = world.rows("SELECT event_id FROM dead_letters");
        let letters: BTreeSet<_> = letters.iter().map(|row| row[0].as_str()).collect();
        let is_lost = |id: &&String| {
            let is_known = world.applied.contains_key(*id) || letters.contains(id.as_str());
            !is_known && !world.is_queued(id)
        };
        if let Some(id) = self.acknowledged.iter().find(is_lost) {
            world.violated(format!("the acknowledged event {id} is lost"));
        }
        if has_grown {
            self.check_tables(&mut world);
        }
    }

    fn applied(&self, world: &World) -> Vec<&Event> {
        self.events.iter().filter(|event| world.applied.contains_key(&event.id)).collect()
    }

    fn check_tables(&self, world: &mut World) {
        // An object that is being fetched is not up to date yet.
        let is_fetching = !world.rows("SELECT path FROM refetches").is_empty();
        let is_away = world.is_table_away();
        let is_shown = |(table, _): &&(&str, &str)| match *table {
            "asked" => !is_fetching,
            "gated" => !is_away,
            _ => true,
        };
        let expected = oracle(&self.applied(world), &world.outside.objects, &world.imported);
        for (table, sql) in TABLES.iter().filter(is_shown) {
            let is_known =
                |row: &Vec<String>| *table != "asked" || !world.unfetched.contains(&row[0]);
            let found: Vec<_> = world.rows(sql).into_iter().filter(is_known).collect();
            let mut expected: Vec<_> = expected[table].iter().filter(|row| is_known(row)).collect();
            expected.sort();
            if !found.iter().eq(expected.iter().copied()) {
                let (found, expected) = (json!(found), json!(expected));
                world.violated(format!("the table {table} is {found}, and not {expected}"));
            }
        }
    }

    /// Everything that must hold when nothing is left to do.
    fn check(&self) {
        let mut world = self.world();
        let letters = world.rows(
            "SELECT event_id, iif(state = 'dead' AND type = 'broken.made', 'broken', state)
             FROM dead_letters WHERE generation = 0",
        );
        let letters: BTreeMap<_, _> =
            letters.into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect();
        for id in &self.acknowledged {
            let letter = letters.get(id).map(String::as_str);
            match (world.applied.contains_key(id), letter) {
                // A discarded letter stays, also if the provider sends the event again.
                (true, None | Some("applied" | "discarded"))
                | (false, Some("broken" | "discarded")) => {}
                (applied, letter) => world.violated(format!(
                    "the acknowledged event {id} is in the ledger: {applied}; its dead letter: {letter:?}"
                )),
            }
        }
        let applied = self.applied(&world);
        for event in applied.iter().filter(|event| event.kind == "broken.made") {
            world.violated(format!("{} cannot have taken effect", event.id));
        }
        self.check_tables(&mut world);
        let imports = world.rows("SELECT id FROM replays WHERE kind = 'import' AND state = 'done'");
        let is_imported = |id: &&String| world.imported.contains(*id);
        if !imports.is_empty() && !world.outside.objects.keys().all(|id| is_imported(&id)) {
            let imported = world.imported.clone();
            world.violated(format!("an import is done, and has applied only {imported:?}"));
        }
        let sql = "SELECT id FROM replays WHERE kind = 'reconcile' AND state = 'done' AND filter ->> 'repair'";
        if !world.rows(sql).is_empty() {
            let asked = world.rows("SELECT id, name FROM asked ORDER BY id");
            let name =
                |object: &serde_json::Value| object["name"].as_str().unwrap_or_default().to_owned();
            let objects = world.outside.objects.iter();
            let current: Vec<_> =
                objects.map(|(id, object)| vec![id.clone(), name(object)]).collect();
            if asked != current {
                world.violated(format!("a repair is done, and the table asked is {asked:?}"));
            }
        }
        // A restored backup may have a report without its email.
        if world.outside.forgotten.is_empty() {
            check_outcomes(&mut world, &applied);
        }
        drop(world);
        self.check_messages(&applied);
    }

    /// Each applied event that sends has its message, which was delivered once, or may have been.
    fn check_messages(&self, applied: &[&Event]) {
        let mut world = self.world();
        let sql = "SELECT event_id, rule, id, state, coalesce(error, '') FROM outbox WHERE generation = 0 AND rule <> 'alerts'";
        let rows = world.rows(sql);
        let took_effect = world.applied.clone();
        // When events of a type took effect that are about the recipient of this one.
        let about = |event: &Event, kind: &str| {
            let address = event.text("to");
            let others = applied.iter().filter(|other| other.kind == kind);
            let others = others.filter(|other| other.text("email") == address);
            others.map(|other| took_effect[&other.id]).min()
        };
        let has_bounced = |event: &Event| about(event, "address.bounced").is_some();
        // The address had bounced before, and never was back.
        let must_be_suppressed = |event: &Event| {
            about(event, "address.returned").is_none()
                && about(event, "address.bounced").is_some_and(|at| at < took_effect[&event.id])
        };
        for event in applied {
            let rules: &[&str] = match event.kind {
                "mail.requested" => &["mail"],
                "text.requested" => &["text"],
                "track.requested" => &["tracked-by-mixpanel", "tracked-by-posthog"],
                _ => &[],
            };
            let of_event: Vec<_> = rows.iter().filter(|row| row[0] == event.id).collect();
            let mut found: Vec<_> = of_event.iter().map(|row| row[1].as_str()).collect();
            found.sort_unstable();
            if found != rules {
                world.violated(format!("{} has the messages {found:?}, not {rules:?}", event.id));
            }
            for row in of_event {
                let (rule, id, state) = (row[1].as_str(), row[2].as_str(), row[3].as_str());
                let key = if rule == "text" { format!("sms {}", event.id) } else { id.to_owned() };
                let times = world.outside.delivered.get(&key).copied().unwrap_or_default();
                // A restored backup may not know that the message was sent.
                let is_forgotten = world.outside.forgotten.contains(&key);
                let never = times == 0 || is_forgotten;
                let is_right = match state {
                    _ if rule.starts_with("tracked") => state == "sent" || state == "uncertain",
                    _ if rule == "mail" && must_be_suppressed(event) => {
                        state == "suppressed" && never
                    }
                    "suppressed" => never && rule == "mail" && has_bounced(event),
                    "sent" => times == 1 || is_forgotten,
                    "uncertain" => true,
                    "refused" => never,
                    _ => false,
                };
                if !is_right {
                    let error = &row[4];
                    world.violated(format!(
                        "the message of {} by {rule} is {state} ({error}), and was delivered {times} times",
                        event.id
                    ));
                }
            }
        }
    }

    /// A long time later, the sweep has removed what is old: no body is left, and the tables are as they were.
    fn sweep_up(&mut self) {
        if self.has_failed() {
            return;
        }
        let before: Vec<_> = TABLES.iter().map(|(_, sql)| self.world().rows(sql)).collect();
        // A body is looked at a day after its row was removed.
        for days in [100, 2] {
            self.world().note(|| format!("{days} days pass"));
            self.world().pass(days * 24 * 3600 * 1000);
            let end = self.world().time() + 2 * 3600 * 1000;
            while self.world().time() < end {
                if !self.poll_one() {
                    self.idle();
                }
            }
        }
        let mut world = self.world();
        for (place, (table, sql)) in TABLES.iter().enumerate() {
            if world.rows(sql) != before[place] {
                world.violated(format!("retention has changed the table {table}"));
            }
        }
        let letters = world.rows("SELECT message FROM dead_letters");
        let kept: BTreeSet<_> = letters
            .iter()
            .filter_map(|row| match decode(&row[0]).ok()?.envelope.body {
                hookmill_core::message::BodyForm::Object(check) => Some(check.key),
                _ => None,
            })
            .collect();
        let left: Vec<_> =
            world.objects.keys().filter(|key| !kept.contains(*key)).cloned().collect();
        if !left.is_empty() {
            world.violated(format!("bodies that belong to nothing are left: {left:?}"));
        }
        // Alerts about letters that still wait are emails of these days.
        let recent = world.time() - 7 * 24 * 3600 * 1000;
        let batches = format!("outbox_batches WHERE settled_at < {recent}");
        for rows in ["events", "event_messages", "retries", "stale_bodies", &batches] {
            let count = world.rows(&format!("SELECT CAST(count(*) AS TEXT) FROM {rows}"));
            if count[0][0] != "0" {
                let count = &count[0][0];
                world.violated(format!("{count} old rows are left: {rows}"));
            }
        }
    }
}

/// The outcome of each email is the greatest of those that its provider reported.
fn check_outcomes(world: &mut World, applied: &[&Event]) {
    for row in world.rows("SELECT id, coalesce(outcome, '') FROM outbox WHERE channel = 'email'") {
        let reported = |kind: &str| {
            applied.iter().any(|event| event.kind == kind && event.text("id") == row[0])
        };
        let greatest = REPORTS.iter().rev().find(|(kind, _)| reported(kind));
        let outcome = greatest.map_or("", |(_, outcome)| outcome);
        if row[1] != outcome {
            world.violated(format!(
                "the outcome of {} is {:?}, and not {outcome:?}",
                row[0], row[1]
            ));
        }
    }
}
