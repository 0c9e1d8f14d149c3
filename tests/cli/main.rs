//! The command line for people: output and exit code. A file for each command.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

mod backup;
mod check;
mod counts;
mod dev;
mod email;
mod events;
mod explain;
mod import;
mod init;
mod migrate;
mod reconcile;
mod rejections;
mod reprocess;
mod schema;
mod send;
mod serve;
mod smtp;
mod tail;
mod test;
mod token;
mod verify;

use std::io::{BufRead as _, BufReader, PipeWriter, Read, pipe};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use hookmill_tests::event::stripe;
use hookmill_tests::http::{exchange, request};
use hookmill_tests::native::binary;
use hookmill_tests::{eventually, folder};
use serde_json::Value;

/// `hookmill` in a folder, with none of its variables in the environment.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for name in
        ["CARGO", "STRIPE_WEBHOOK_SECRET", "CLERK_WEBHOOK_SECRET", "HOOKMILL_URL", "HOOKMILL_TOKEN"]
    {
        command.env_remove(name);
    }
    command
}

/// Runs `hookmill` in a folder, to its end.
fn hookmill(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

/// The same; it must succeed.
fn succeeds(folder: &Path, arguments: &[&str]) -> Output {
    let output = hookmill(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    output
}

/// A folder with a configuration, a migration in its folder `app`, and other files.
fn with_files(config: &str, migration: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::create_dir(temporary.path().join("app")).unwrap();
    let own = [("hookmill.toml", config), ("app/1000_own.sql", migration)];
    for (name, text) in own.iter().chain(files) {
        std::fs::write(temporary.path().join(name), text).unwrap();
    }
    temporary
}

/// Its output, parsed as JSON.
fn printed(folder: &Path, arguments: &[&str]) -> Value {
    let output = hookmill(folder, arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Exit code, standard output and standard error, without the folder's path.
fn shown(folder: &Path, arguments: &[&str]) -> String {
    let output = hookmill(folder, arguments);
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).replace(&folder.display().to_string(), "[folder]")
    };
    format!(
        "exit code {}\n--- stdout\n{}--- stderr\n{}",
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// A folder with the example configuration.
fn with_example() -> tempfile::TempDir {
    let root = folder().parent().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    std::fs::create_dir(temporary.path().join("templates")).unwrap();
    for file in ["hookmill.toml", "templates/welcome.html"] {
        std::fs::copy(root.join(file), temporary.path().join(file)).unwrap();
    }
    temporary
}

/// The address of the process that uses a data folder, once it listens.
fn listening(folder: &Path, data: &str) -> SocketAddr {
    let listening = folder.join(data).join("listening");
    eventually("it listens", || std::fs::read_to_string(&listening).ok()?.parse().ok())
}

/// `hookmill dev`, until it is dropped.
struct Dev {
    child: Child,
    address: SocketAddr,
}

impl Dev {
    fn start(folder: &Path) -> Self {
        Self::start_at(folder, "127.0.0.1:0")
    }

    fn start_at(folder: &Path, listen: &str) -> Self {
        Self::started(folder, listen, &[])
    }

    /// With more of an environment.
    fn start_with(folder: &Path, environment: &[(&str, &str)]) -> Self {
        Self::started(folder, "127.0.0.1:0", environment)
    }

    fn started(folder: &Path, listen: &str, environment: &[(&str, &str)]) -> Self {
        // The file of an earlier process must not be taken for this one's.
        let _ = std::fs::remove_file(folder.join(".hookmill/listening"));
        let child = Command::new(binary())
            .args(["dev", "--listen", listen])
            .envs(environment.iter().copied())
            .current_dir(folder)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address: listening(folder, ".hookmill") }
    }

    /// The URL of its admin API and a token, as environment variables.
    fn remote(&self, folder: &Path, role: &str) -> [(&'static str, String); 2] {
        let token = hookmill(folder, &["token", "create", role, "--role", role]).stdout;
        let token = String::from_utf8(token).unwrap().trim().to_owned();
        [("HOOKMILL_URL", format!("http://{}", self.address)), ("HOOKMILL_TOKEN", token)]
    }

    /// Sends the stop signal, and waits for the end.
    fn stop(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_lists_the_commands() {
    insta::assert_snapshot!(shown(folder(), &["--help"]), @"
    exit code 0
    --- stdout
    Receives webhooks and applies each event exactly once.

    Exit codes: 0 success, 1 failure, 2 invalid command line; `reconcile` also returns 3 (different) and 4 (not everything could be compared).

    Usage: hookmill <COMMAND>

    Commands:
      init          Write hookmill.toml, .env.example and the Workers' wrangler.toml for these providers, ready for `check`
      dev           Run the whole pipeline for development, with development secrets where none are set
      serve         Run the whole pipeline on this machine, with secrets from the environment
      check         Check a configuration, its rules against the schema and the Workers' wrangler.toml, and run its tests
      test          Run the tests in a configuration, `[[tests]]`, and list them
      schema        Print the JSON Schema of hookmill.toml, for completion and checks in an editor
      send          Sign a realistic event and send it, like a provider
      verify        Verify a captured request, and explain why it is invalid
      explain       Explain the effects of an event: which rules run and why others do not, their SQL, and the changes to rows
      events        Events: list the latest, or show the history of one
      tail          Print applied, failed and rejected events until Ctrl-C
      email         Emails: preview a template, list the outbox, send again, list suppressed recipients
      rejections    List rejected requests: counts of the last 24 hours, and the last few of each kind
      dead-letters  Dead letters: list, show, replay or discard
      replays       Replays: plan, run, watch, pause, resume, cancel
      reprocess     Plan to run rules again on applied events, e.g. after changing a rule; start it with `hookmill replays run`
      import        Plan to load the objects that a provider's API has, e.g. those from before its webhooks; start it with `hookmill replays run`
      reconcile     Compare the tables with the objects that a provider's API has; exit code 0: equal; 3: different; 4: not everything could be compared
      stats         Show the current state: events, lag, dead letters, the outbox, rejections
      counts        Count rows by rule, values that events lacked, and events by API version
      token         Tokens for the admin API: create, list, revoke
      migrate       Apply pending migrations to the database
      backup        Copy the data folder into a new folder; Hookmill may be running
      restore       Create a data folder from a backup
      verify-data   Check the files of a data folder for damage; Hookmill may be running
      help          Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version
    --- stderr
    ");
    assert_eq!(hookmill(folder(), &["nonsense"]).status.code(), Some(2));
}

/// The code block of README.md that begins with this line.
fn readme_block(first: &str) -> String {
    let readme = std::fs::read_to_string(folder().parent().unwrap().join("README.md")).unwrap();
    let start = readme.find(&format!("\n{first}\n")).unwrap() + 1;
    readme[start..].split("```").next().unwrap().to_owned()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Lines as they arrive.
fn collected(from: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines: Arc<Mutex<Vec<_>>> = Arc::default();
    let kept = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            kept.lock().unwrap().push(line);
        }
    });
    lines
}

/// The writing end of a pipe whose reader has closed it.
fn closed() -> PipeWriter {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn a_closed_pipe_ends_a_command_without_an_error() {
    let folder = with_example();
    for arguments in [
        &["schema"][..],
        &["check", "--json"],
        &["send", "stripe"],
        &["send", "stripe", "customer.updated", "--print"],
        &["migrate", "--json", "--data", "data"],
        &["token", "create", "ines", "--role", "operate", "--data", "data"],
        &["stats", "--data", "data"],
        &["replays", "plan", "--all", "--data", "data"],
    ] {
        let output = command(folder.path(), arguments).stdout(closed()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    // Neither does a closed standard error, as after `hookmill … 2>&1 | head -1`.
    let _dev = Dev::start(folder.path());
    assert_eq!(hookmill(folder.path(), &["send", "clerk", "user.created"]).status.code(), Some(0));
    for (arguments, code) in [
        (&["events"][..], 0),
        (&["events", "--json"], 0),
        (&["dead-letters", "list"], 0),
        (&["email", "list"], 0),
        (&["rejections"], 0),
        (&["counts"], 0),
        (&["token", "list"], 0),
        (&["token", "create", "eve", "--role", "read"], 0),
        (&["token", "revoke", "eve"], 0),
        (&["backup", "copy"], 0),
        (&["send", "clerk", "user.updated"], 0),
        (&["check", "--secrets"], 1),
        (&["events", "--data", "missing"], 1),
        (&["verify", "stripe", "--header", "A: b", "--dev"], 1),
        (&["init", "stripe", "--into", "new"], 0),
        (&["--help"], 0),
    ] {
        let mut command = command(folder.path(), arguments);
        let status = command.stdout(closed()).stderr(closed()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_does_not_affect_the_pipeline() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let config = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\n";
    std::fs::write(folder.join("hookmill.toml"), config).unwrap();
    for what in ["dev", "serve"] {
        let mut start =
            command(folder, &[what, "--listen", "127.0.0.1:0", "--log", "trace", "--data", what]);
        start.env("A", hookmill_tests::STRIPE_SECRET).stdout(closed()).stderr(closed());
        let mut running = Dev { child: start.spawn().unwrap(), address: listening(folder, what) };
        let ask = |method: &str, path: &str, headers: &[(String, String)], body: &[u8]| {
            let answer = exchange(running.address, &request(method, path, headers, body));
            answer.unwrap().status
        };
        let event = stripe("a", "evt_1", 1, Value::Null);
        assert_eq!(ask("POST", "/webhooks/stripe", &event.headers(), &event.body), 200, "{what}");
        assert_eq!(ask("POST", "/webhooks/stripe", &[], &event.body), 401, "{what}");
        eventually("the event is in the ledger", || {
            let events = printed(folder, &["events", "--json", "--data", what]);
            (events[0]["state"] == "recorded").then_some(())
        });
        assert_eq!(ask("GET", "/readyz", &[], b""), 200, "{what}");
        running.stop();
    }
}
