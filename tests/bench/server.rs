//! The measured programs: their processes, and their rows.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hookmill_tests::{STRIPE_SECRET, eventually};
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::events::{Batch, STUCK};

/// A process that is killed when dropped.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server that answers every request on a bare HTTP library, and prints its address.
pub fn start_bare(program: &Path) -> (Server, SocketAddr) {
    use std::io::BufRead as _;
    let mut child =
        Command::new(program).arg("bare").stdout(Stdio::piped()).spawn().expect("it can be run");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("its stdout is piped");
    let server = Server(child);
    std::io::BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
    (server, line.trim().parse().expect("an address"))
}

/// A data folder with filled tables, and its server.
pub struct Pipeline {
    program: PathBuf,
    config: PathBuf,
    data: TempDir,
    server: Option<(Server, SocketAddr)>,
}

/// Counts of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// In the ledger.
    pub events: usize,
    /// In the table of the rules.
    pub subscriptions: usize,
    /// In the table of the preset's rule for lists.
    pub items: usize,
    /// Dead letters, and messages that will become ones.
    pub dead: usize,
    /// Still on the queue.
    pub waiting: usize,
}

impl Pipeline {
    /// Creates a data folder for one of the benchmark's configurations, with this many rows in each table. No server runs
    /// yet.
    pub fn new(program: &Path, config: &str, held: u32) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        let config = hookmill_tests::folder().join("bench").join(config);
        let mut migrate = Command::new(program);
        migrate.arg("migrate").arg("--config").arg(&config).arg("--data").arg(data.path());
        let migrated = migrate.output().expect("hookmill can be run");
        let said = String::from_utf8_lossy(&migrated.stderr);
        assert!(migrated.status.success(), "hookmill migrate failed: {said}");
        let mut pipeline = Self { program: program.to_owned(), config, data, server: None };
        if held > 0 {
            // `serve` makes the queue, and refuses data without one.
            pipeline.start();
            pipeline.stop();
            let mut database = pipeline.database("data.db");
            let transaction = database.transaction().expect("nothing else writes");
            each_statement(include_str!("fill.sql"), |sql| transaction.execute(sql, [0, held]));
            transaction.commit().expect("the disk is not full");
            pipeline.checkpoint();
        }
        pipeline
    }

    /// Starts serving.
    pub fn start(&mut self) {
        let listening = self.data.path().join("listening");
        let child = Command::new(&self.program)
            .args(["serve", "--log", "error", "--listen", "127.0.0.1:0", "--config"])
            .arg(&self.config)
            .arg("--data")
            .arg(self.data.path())
            .env("STRIPE_WEBHOOK_SECRET", STRIPE_SECRET)
            .spawn()
            .expect("hookmill can be run");
        let mut server = Server(child);
        let address = eventually("hookmill listens", || {
            if let Ok(Some(status)) = server.0.try_wait() {
                panic!("hookmill ended with {status}; its log is above");
            }
            std::fs::read_to_string(&listening).ok()?.trim().parse().ok()
        });
        self.server = Some((server, address));
    }

    /// Kills the server, like a power failure.
    pub fn stop(&mut self) {
        self.server = None;
        let _ = std::fs::remove_file(self.data.path().join("listening"));
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.server.as_ref().expect("it was started").1
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// One of its databases.
    pub fn database(&self, name: &str) -> Connection {
        let database = Connection::open(self.data.path().join(name)).expect("the database opens");
        database.busy_timeout(Duration::from_secs(10)).expect("SQLite takes a timeout");
        database
    }

    /// Its memory in MiB; zero without /proc.
    pub fn memory(&self) -> f64 {
        let pid = self.server.as_ref().expect("it was started").0.0.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    }

    /// The processor time that it has used; zero without /proc.
    pub fn processor_time(&self) -> Duration {
        let pid = self.server.as_ref().expect("it was started").0.0.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The fields after the name, which may contain spaces: utime and stime are 14 and 15 of proc(5), in units of 10 ms.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: u64 =
            fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Waits until the queue is empty. Calls `look` with the approximate number of remaining events.
    ///
    /// # Panics
    ///
    /// If the process ends, or no event leaves the queue for a minute.
    pub fn drain(&mut self, mut look: impl FnMut(&Self, usize)) {
        // Reads two rows. A count would read every message and take processor time from the measurement.
        let sql = "SELECT coalesce((SELECT max(seq) FROM events_messages)
            - (SELECT min(seq) FROM events_messages) + 1, 0)";
        let queue = self.database("queue.db");
        let (mut least, mut since) = (usize::MAX, Instant::now());
        loop {
            let left = count(&queue, sql);
            look(self, left);
            if left == 0 {
                return;
            }
            let (server, _) = self.server.as_mut().expect("it was started");
            if let Ok(Some(status)) = server.0.try_wait() {
                panic!("hookmill ended with {status} and left {left} events; its log is above");
            }
            if since.elapsed() > STUCK {
                let waiting = self.counts().waiting;
                assert!(
                    waiting < least,
                    "{waiting} events are on the queue, and none has left it for {STUCK:?}; hookmill's log is above"
                );
                (least, since) = (waiting, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Counts the rows.
    pub fn counts(&self) -> Counts {
        let (database, queue) = (self.database("data.db"), self.database("queue.db"));
        let rows = |table: &str| count(&database, &format!("SELECT count(*) FROM {table}"));
        let messages = |queue_name: &str| {
            count(&queue, &format!("SELECT count(*) FROM {queue_name}_messages"))
        };
        Counts {
            events: rows("events"),
            subscriptions: rows("subscriptions"),
            items: rows("subscription_items"),
            dead: rows("dead_letters") + messages("dead_letters"),
            waiting: messages("events"),
        }
    }

    /// Removes the rows of a batch, so that the next one finds the same tables.
    pub fn clear(&self, batch: &Batch) {
        let mut database = self.database("data.db");
        let added = json!(batch.added).to_string();
        let transaction = database.transaction().expect("nothing else writes");
        each_statement(include_str!("clear.sql"), |sql| transaction.execute(sql, [&added]));
        transaction.commit().expect("the disk is not full");
        self.checkpoint();
    }

    /// Empties the write-ahead log, so that no checkpoint disturbs the measurement.
    fn checkpoint(&self) {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let done = self.database("data.db").query_row(sql, [], |_| Ok(()));
        done.expect("SQLite takes a checkpoint");
    }
}

/// Executes the statements of a file. None contains a semicolon.
fn each_statement(sql: &str, mut execute: impl FnMut(&str) -> rusqlite::Result<usize>) {
    let statements = sql.split(';').map(str::trim).filter(|statement| !statement.is_empty());
    for statement in statements {
        execute(statement).unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}

fn count(database: &Connection, sql: &str) -> usize {
    let count = database.query_row(sql, [], |row| row.get::<_, u32>(0));
    usize::try_from(count.unwrap_or_else(|error| panic!("{sql}: {error}"))).expect("it fits")
}
