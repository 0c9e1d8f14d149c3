//! A pipeline on this machine: the binary, with its own port and data folder.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::Value;

use crate::api::Api;
use crate::event::Event;
use crate::http::{Response, exchange, request};
use crate::{DEADLY, Fault, eventually, folder, secrets};

/// The binary: from `HOOKMILL_TEST_BINARY`, or built once. It is the program as users run it, with the example of a
/// handler, so it is not linked into the tests.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(built) = std::env::var_os("HOOKMILL_TEST_BINARY") {
            return PathBuf::from(built);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--package",
                "hookmill",
                "--features",
                "example-handler",
                "--message-format=json-render-diagnostics",
            ])
            .current_dir(folder())
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo can be run");
        assert!(output.status.success(), "hookmill does not build");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the executable")
    })
}

/// Puts a message on the queue of events while the process is down. It need not be UTF-8.
pub fn put(queue: &Connection, message: &[u8], attempts: u32) {
    let sql = "INSERT INTO events_messages (sent_at, text) VALUES (0, CAST(?1 AS TEXT))";
    queue.execute(sql, [message]).expect("the table is there");
    if attempts > 0 {
        let sql = "INSERT INTO events_deliveries (seq, attempts, due_at, leased) VALUES (last_insert_rowid(), ?1, 0, 0)";
        queue.execute(sql, [attempts]).expect("the table is there");
    }
}

/// An address without a server.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// A running pipeline. It is killed when dropped.
pub struct Pipeline {
    child: Child,
    address: SocketAddr,
    config: PathBuf,
    data: Arc<tempfile::TempDir>,
    logs: Arc<Mutex<String>>,
    options: Options,
}

/// How a pipeline is started.
#[derive(Clone, Default)]
struct Options {
    /// The address of the providers' APIs.
    outbound: Option<SocketAddr>,
    /// More arguments of `serve`.
    arguments: &'static [&'static str],
    /// The limit of file descriptors.
    descriptors: Option<u32>,
    /// More of its environment.
    environment: Vec<(&'static str, String)>,
}

/// The contract's configuration without `messages`, in its own folder.
fn forgetful_config(to: &Path) -> PathBuf {
    let text = std::fs::read_to_string(folder().join("hookmill.toml")).expect("it is there");
    let here = |name: &str| format!("\"{}", folder().join(name).display());
    let text = text
        .replace("messages = \"30d\"\n", "")
        .replace("\"migrations", &here("migrations"))
        .replace("\"templates/", &format!("{}/", here("templates")));
    let config = to.join("hookmill.toml");
    std::fs::write(&config, text).expect("the folder can be written");
    config
}

impl Pipeline {
    /// Starts one on an empty folder, with the contract's configuration.
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts one with access to providers' APIs.
    pub fn with_api(api: &Api) -> Self {
        Self::start_with(Options { outbound: Some(api.address()), ..Options::default() })
    }

    /// Starts one with more arguments of `serve`.
    pub fn with_arguments(arguments: &'static [&'static str]) -> Self {
        Self::start_with(Options { arguments, ..Options::default() })
    }

    /// Starts one that may have this many open files.
    pub fn with_descriptors(descriptors: u32) -> Self {
        Self::start_with(Options { descriptors: Some(descriptors), ..Options::default() })
    }

    fn start_with(options: Options) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        Self::start_on(Arc::new(data), folder().join("hookmill.toml"), Arc::default(), options)
    }

    /// Starts one that keeps neither messages of applied events nor their bodies.
    pub fn forgetful() -> Self {
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        let config = forgetful_config(data.path());
        Self::start_on(Arc::new(data), config, Arc::default(), Options::default())
    }

    /// The same with more of an environment, in which `HOOKMILL_DISK_FOLDER` is its data folder.
    pub fn forgetful_in(environment: Vec<(&'static str, String)>) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        let config = forgetful_config(data.path());
        let options = Options { environment, ..Options::default() };
        Self::start_on(Arc::new(data), config, Arc::default(), options)
    }

    /// Starts one on a backup, without `messages`.
    pub fn restored(backup: &Path) -> Self {
        Self::restored_with(backup, forgetful_config)
    }

    /// Starts one on a backup, with `messages`.
    pub fn restored_remembering(backup: &Path) -> Self {
        Self::restored_with(backup, |_| folder().join("hookmill.toml"))
    }

    fn restored_with(backup: &Path, config: impl FnOnce(&Path) -> PathBuf) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        // It creates the folder itself.
        std::fs::remove_dir(data.path()).expect("it is empty");
        let mut restore = Command::new(binary());
        restore.arg("restore").arg(backup).arg("--data").arg(data.path());
        let restored = restore.output().expect("hookmill can be run");
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        let config = config(data.path());
        Self::start_on(Arc::new(data), config, Arc::default(), Options::default())
    }

    /// Backs up its data folder while it runs.
    pub fn back_up(&self, to: &Path) {
        let mut backup = Command::new(binary());
        let backup = backup.arg("backup").arg(to).arg("--data").arg(self.data.path()).output();
        let backup = backup.expect("hookmill can be run");
        assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    }

    fn start_on(
        data: Arc<tempfile::TempDir>,
        config: PathBuf,
        logs: Arc<Mutex<String>>,
        options: Options,
    ) -> Self {
        Self::try_to_start_on(data, config, logs, options)
            .unwrap_or_else(|logs| panic!("hookmill ended: {logs}"))
    }

    /// Returns the log of a process that ends instead.
    fn try_to_start_on(
        data: Arc<tempfile::TempDir>,
        config: PathBuf,
        logs: Arc<Mutex<String>>,
        options: Options,
    ) -> Result<Self, String> {
        // The file of an earlier process must not be taken for this one's.
        let _ = std::fs::remove_file(data.path().join("listening"));
        let mut command = match options.descriptors {
            None => Command::new(binary()),
            Some(descriptors) => {
                let mut shell = Command::new("sh");
                let limited = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
                shell.arg("-c").arg(limited).arg(binary());
                shell
            }
        };
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(options.arguments)
            .args(["--log", "trace", "--json", "--config"])
            .arg(&config)
            .arg("--data")
            .arg(data.path())
            .envs(secrets())
            .env("HOOKMILL_DISK_FOLDER", data.path())
            .envs(options.environment.iter().map(|(name, value)| (name, value)))
            // The configuration names http://localhost; the test's server for the providers is the proxy.
            .env("HTTP_PROXY", format!("http://{}", options.outbound.unwrap_or(NOBODY)))
            .env("NO_PROXY", "")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("hookmill can be run");
        let stderr = BufReader::new(child.stderr.take().expect("its stderr is piped"));
        let log = logs.clone();
        let reading = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = log.lock().expect("no reader panics");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let listening = data.path().join("listening");
        let address = eventually("the pipeline listens", || {
            if let Ok(Some(_)) = child.try_wait() {
                return Some(None);
            }
            let address: SocketAddr = std::fs::read_to_string(&listening).ok()?.parse().ok()?;
            std::net::TcpStream::connect(address).ok().map(|_| Some(address))
        });
        match address {
            Some(address) => Ok(Self { child, address, config, data, logs, options }),
            None => {
                reading.join().expect("it only reads");
                let log = logs.lock().expect("no reader panics").clone();
                Err(log)
            }
        }
    }

    /// Kills the process, changes its files, and starts another on them, in this environment. Returns the log if that one ends.
    ///
    /// # Errors
    ///
    /// If it ends before it listens.
    pub fn stop_and_restart(
        &mut self,
        environment: Vec<(&'static str, String)>,
        change: impl FnOnce(&Path),
    ) -> Result<(), String> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        change(self.data.path());
        let options = Options { environment, ..self.options.clone() };
        let (data, config) = (self.data.clone(), self.config.clone());
        *self = Self::try_to_start_on(data, config, Arc::default(), options)?;
        Ok(())
    }

    /// Kills the process, changes its data, and starts another on them.
    pub fn kill_and_restart(&mut self, change: impl FnOnce(&Connection)) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        change(&self.database("queue.db"));
        let (data, config, logs) = (self.data.clone(), self.config.clone(), self.logs.clone());
        *self = Self::start_on(data, config, logs, self.options.clone());
    }

    /// Its address.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the admin API.
    pub const fn admin(&self) -> SocketAddr {
        self.address
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Posts an event.
    pub fn post(&self, event: &Event) -> Response {
        self.send(&event.headers(), event.source, &event.body)
    }

    /// Posts a body to a source.
    pub fn send(&self, headers: &[(String, String)], source: &str, body: &[u8]) -> Response {
        let bytes = request("POST", &format!("/webhooks/{source}"), headers, body);
        exchange(self.address, &bytes).expect("the pipeline listens")
    }

    /// Puts messages on the queue of events together, past ingress. They need not be UTF-8.
    #[must_use]
    pub fn enqueued(mut self, messages: &[impl AsRef<[u8]>]) -> Self {
        self.kill_and_restart(|queue| {
            queue.execute_batch("BEGIN IMMEDIATE").expect("the process is down");
            for message in messages {
                put(queue, message.as_ref(), 0);
            }
            queue.execute_batch("COMMIT").expect("the disk is not full");
        });
        self
    }

    /// Puts messages on the queue together. A process that applies one with [`DEADLY`] in it hangs, and is killed; then
    /// another starts, until the queue is empty.
    #[must_use]
    pub fn survived(mut self, messages: &[String]) -> Self {
        // Counts for some hours.
        self.sql_batch(&format!(
            "CREATE TRIGGER hangs BEFORE INSERT ON guarded WHEN NEW.text LIKE '%{DEADLY}%' BEGIN
                SELECT (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000000) SELECT count(*) FROM n);
            END"
        ));
        self = self.enqueued(messages);
        eventually("nothing is left", || {
            if self.is_empty() {
                return Some(());
            }
            let database = self.database("data.db");
            let waits = database.busy_timeout(std::time::Duration::from_secs(2));
            waits.expect("SQLite takes a timeout");
            if database.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err() {
                self.kill_and_restart(|_| ());
            }
            None
        });
        self.sql_batch("DROP TRIGGER hangs");
        self
    }

    fn sql_batch(&self, sql: &str) {
        self.database("data.db").execute_batch(sql).expect("the test's SQL is right");
    }

    /// Delivers an event to two consumers at the same time.
    pub fn delivered_to_two_consumers(&self, event: &Event) {
        // One batch waits for the store while the other is received.
        let store_away = self.broken(Fault::Store);
        assert_eq!(self.post(event).status, 200);
        let in_hand = |count| {
            eventually("the consumers have the messages", || {
                let sql = "SELECT count(*) FROM events_deliveries WHERE leased = 1";
                let leased: i64 =
                    self.database("queue.db").query_row(sql, [], |row| row.get(0)).ok()?;
                (leased >= count).then_some(())
            });
        };
        in_hand(1);
        assert_eq!(self.post(event).status, 200);
        in_hand(2);
        drop(store_away);
    }

    /// Lets the platform give up an event before a consumer has a verdict.
    #[must_use]
    pub fn given_up_by_the_platform(mut self, event: &Event) -> Self {
        self.kill_and_restart(|queue| {
            put(queue, event.message().as_bytes(), 101);
        });
        self
    }

    /// Causes a fault until the returned value is dropped.
    pub fn broken(&self, fault: Fault) -> Broken {
        let database = self.database(match fault {
            Fault::Queue => "queue.db",
            Fault::Store => "data.db",
        });
        // The situation when a backup, or a person with a shell, keeps the database locked.
        database.execute_batch("BEGIN IMMEDIATE").expect("the database can be locked");
        Broken(database)
    }

    /// Runs SQL on the application's database.
    pub fn sql(&self, sql: &str) -> Vec<Vec<Value>> {
        let database = self.database("data.db");
        let mut statement = database.prepare(sql).expect("the test's SQL is right");
        let columns = statement.column_count();
        let rows = statement
            .query_map([], |row| {
                (0..columns)
                    .map(|i| {
                        Ok(match row.get_ref(i)? {
                            ValueRef::Null => Value::Null,
                            ValueRef::Integer(number) => number.into(),
                            ValueRef::Real(number) => number.into(),
                            ValueRef::Text(text) | ValueRef::Blob(text) => {
                                String::from_utf8_lossy(text).into()
                            }
                        })
                    })
                    .collect()
            })
            .expect("the test's SQL is right");
        rows.collect::<Result<_, _>>().expect("the test's SQL is right")
    }

    /// Waits until the queue is empty.
    pub fn settle(&self) {
        eventually("the queue is empty", || self.is_empty().then_some(()));
    }

    /// Whether the queue is empty.
    fn is_empty(&self) -> bool {
        let sql = "SELECT (SELECT count(*) FROM events_messages) + (SELECT count(*) FROM dead_letters_messages)
            + (SELECT count(*) FROM replays_messages)";
        let count = self.database("queue.db").query_row(sql, [], |row| row.get::<_, i64>(0));
        count.is_ok_and(|count| count == 0)
    }

    /// The keys of the object store.
    pub fn objects(&self) -> Vec<String> {
        let name = |path: &PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
        self.object_files().iter().filter_map(name).collect()
    }

    fn object_files(&self) -> Vec<PathBuf> {
        let bodies = self.data.path().join("bodies");
        let sources = std::fs::read_dir(bodies).into_iter().flatten().flatten();
        let files = sources
            .flat_map(|source| std::fs::read_dir(source.path()).into_iter().flatten().flatten());
        files.map(|file| file.path()).collect()
    }

    /// Makes every object forty days old.
    #[must_use]
    pub fn with_old_objects(self) -> Self {
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(40 * 86_400);
        for path in self.object_files() {
            let file = std::fs::File::options().write(true).open(path).expect("it can be opened");
            file.set_modified(old).expect("the time of a file can be set");
        }
        self
    }

    /// Runs the work of every minute, which also runs at the start.
    #[must_use]
    pub fn after_a_minute(mut self) -> Self {
        self.kill_and_restart(|_| ());
        self
    }

    /// Its log.
    pub fn logs(&self) -> String {
        self.logs.lock().expect("no reader panics").clone()
    }

    /// The value of a counter with these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let count = self.measured(&format!("{name}_total"), labels);
        count.map_or(0, |count| count.parse().expect("a count"))
    }

    /// The value of a gauge; `None` if it is absent.
    pub fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.measured(name, labels).map(|number| number.parse().expect("a number"))
    }

    fn measured(&self, name: &str, labels: &[(&str, &str)]) -> Option<String> {
        let address = self.logged_address("serving metrics", "address");
        let response = exchange(address, &request("GET", "/metrics", &[], b""));
        let text = response.expect("metrics are served").body;
        let labels: Vec<_> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let name = format!("hookmill_{name}{labels} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map(ToOwned::to_owned)
    }

    /// The address in this field of the last line of the log with this message.
    pub fn logged_address(&self, message: &str, field: &str) -> SocketAddr {
        eventually("it logs where it listens", || {
            let logs = self.logs();
            let line = logs.lines().rfind(|line| line.contains(message))?;
            let line: Value = serde_json::from_str(line).expect("a line of the log is JSON");
            line[field].as_str()?.parse().ok()
        })
    }

    /// A connection to one of its databases, as a person with a shell would have it.
    pub fn database(&self, name: &str) -> Connection {
        let database = Connection::open(self.data.path().join(name)).expect("the database opens");
        database.busy_timeout(std::time::Duration::from_secs(10)).expect("SQLite takes a timeout");
        database
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A fault that lasts while this lives.
pub struct Broken(Connection);

impl Drop for Broken {
    fn drop(&mut self) {
        let _ = self.0.execute_batch("ROLLBACK");
    }
}
