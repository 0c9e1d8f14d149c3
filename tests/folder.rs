//! Commands that read a data folder do not change it, whether or not a process uses it, and for any user.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use hookmill_tests::event::stripe;
use hookmill_tests::http::{exchange, request};
use hookmill_tests::native::binary;
use hookmill_tests::{STRIPE_SECRET, eventually};
use serde_json::{Value, json};

/// What a command does with the data folder.
enum Use {
    /// It reads the folder, with any of these arguments.
    Looks(&'static [&'static [&'static str]]),
    /// It reads the address of the process that has locked the folder.
    Sends(&'static [&'static str]),
    /// It changes rows beside the process that has locked the folder.
    Changes(&'static [&'static str]),
    /// It locks the folder.
    Keeps,
    /// It creates a folder.
    Makes,
    /// It uses no folder.
    Elsewhere,
}
use Use::{Changes, Elsewhere, Keeps, Looks, Makes, Sends};

/// Every command. EVENT, LETTER and REPLAY are ids, and NEW is a folder that does not exist.
const COMMANDS: &[(&str, Use)] = &[
    ("init", Elsewhere),
    ("dev", Keeps),
    ("serve", Keeps),
    ("check", Elsewhere),
    ("test", Elsewhere),
    ("schema", Elsewhere),
    ("send", Sends(&["stripe", "customer.created"])),
    ("verify", Elsewhere),
    ("explain", Looks(&[&["stripe", "EVENT"]])),
    ("events list", Looks(&[&[], &["--state", "queued"], &["--type", "customer.*", "--json"]])),
    ("events show", Looks(&[&["stripe", "EVENT"], &["stripe", "EVENT", "--body"]])),
    ("tail", Looks(&[&[]])),
    ("email preview", Elsewhere),
    ("email list", Looks(&[&[]])),
    ("email retry", Changes(&["--state", "refused", "--reason", "mended"])),
    ("email suppressions", Looks(&[&[]])),
    ("email unsuppress", Changes(&["a@example.com", "--reason", "mended"])),
    ("email usage", Looks(&[&[]])),
    ("rejections", Looks(&[&[]])),
    ("dead-letters list", Looks(&[&[], &["--state", "any"]])),
    ("dead-letters groups", Looks(&[&[]])),
    ("dead-letters show", Looks(&[&["LETTER"]])),
    ("dead-letters replay", Changes(&["LETTER", "--reason", "mended"])),
    ("dead-letters discard", Changes(&["LETTER", "--reason", "no use"])),
    ("replays list", Looks(&[&[]])),
    ("replays plan", Changes(&["--all"])),
    ("replays run", Changes(&["REPLAY", "--rate", "1", "--reason", "mended", "--detach"])),
    ("replays show", Looks(&[&["REPLAY"]])),
    ("replays watch", Looks(&[&["REPLAY"]])),
    ("replays pause", Changes(&["REPLAY", "--reason", "wait"])),
    ("replays resume", Changes(&["REPLAY", "--reason", "go on"])),
    ("replays cancel", Changes(&["REPLAY", "--reason", "no use"])),
    ("reprocess", Changes(&["--all"])),
    ("import", Changes(&["stripe"])),
    ("reconcile", Changes(&["stripe", "--detach"])),
    ("stats", Looks(&[&[]])),
    ("counts", Looks(&[&[]])),
    ("token create", Changes(&["ines", "--role", "read"])),
    ("token list", Looks(&[&[]])),
    ("token revoke", Changes(&["ines"])),
    ("migrate", Keeps),
    ("backup", Looks(&[&["NEW"]])),
    ("restore", Makes),
    ("verify-data", Looks(&[&[], &["--json"]])),
];

/// The subcommands in the output of `--help`.
fn listed(above: &[&str]) -> Vec<String> {
    let output = Command::new(binary()).args(above).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = commands.take_while(|line| !line.is_empty());
    // The description of a command may continue on an indented line.
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(ToOwned::to_owned).collect()
}

#[test]
fn every_command_has_a_known_use_of_the_folder() {
    let mut found = Vec::new();
    for command in listed(&[]) {
        match listed(&[&command]) {
            below if below.is_empty() => found.push(command),
            below => found.extend(below.iter().map(|below| format!("{command} {below}"))),
        }
    }
    let known: Vec<_> = COMMANDS.iter().map(|(command, _)| (*command).to_owned()).collect();
    let (one, other): (BTreeSet<_>, BTreeSet<_>) = (found.iter().collect(), known.iter().collect());
    assert_eq!(one, other, "a new command must be in COMMANDS");
}

const NOBODY: u32 = 65_534;

/// The folder of a pipeline and its configuration.
struct World {
    folder: tempfile::TempDir,
    /// The users of the server and of the commands; none for the user who runs the tests.
    server: Option<u32>,
    looker: Option<u32>,
    letter: String,
    replay: String,
    made: AtomicUsize,
    /// The umask of commands; none for that of the tests.
    umask: Option<&'static str>,
}

struct Serve {
    child: Child,
    address: SocketAddr,
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Serve {
    fn post(&self, id: &str, kind: &str, object: Value) -> u16 {
        let event = stripe(kind, id, 1, object);
        let bytes = request("POST", "/webhooks/stripe", &event.headers(), &event.body);
        exchange(self.address, &bytes).unwrap().status
    }

    /// An event whose body goes to the object store.
    fn post_large(&self, id: &str) -> u16 {
        self.post(id, "large", json!({ "id": id, "padding": "x".repeat(150_000) }))
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

fn as_user(command: &mut Command, user: Option<u32>) {
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
}

impl World {
    fn new(server: Option<u32>, looker: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Any user may execute it, wherever the tests are built.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        // A copy by another process: if this process wrote the file, a test that starts a process meanwhile would keep it
        // open, and it could not be executed.
        let copied = Command::new("cp").arg(binary()).arg(folder.path().join("hookmill")).status();
        assert!(copied.unwrap().success());
        let config = "[sources.stripe]\nscheme = 'stripe'\nsecrets = ['env:STRIPE_WEBHOOK_SECRET']\n\
            preset = 'stripe'\n\
            api = { key = 'env:STRIPE_API_KEY' }\n[retention]\nmessages = '30d'\n";
        fs::write(folder.path().join("hookmill.toml"), config).unwrap();
        for name in ["data", "copies"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        chown(folder.path().join("data"), server, server).unwrap();
        chown(folder.path().join("copies"), looker, looker).unwrap();
        let made = AtomicUsize::new(0);
        let (letter, replay) = (String::new(), String::new());
        let umask = None;
        let mut world = Self { folder, server, looker, letter, replay, made, umask };
        let serve = world.serve();
        assert_eq!(serve.post("evt_small", "customer.created", json!({ "id": "cus_1" })), 200);
        // A rule needs an id.
        assert_eq!(serve.post("evt_dead", "customer.created", json!({})), 200);
        assert_eq!(serve.post_large("evt_large"), 200);
        world.letter = eventually("there is a dead letter", || {
            let letters = world.json(server, &["dead-letters", "list", "--json"]);
            letters[0]["id"].as_str().map(ToOwned::to_owned)
        });
        eventually("the others have taken effect", || {
            let events = world.json(server, &["events", "--state", "applied", "--json"]);
            let recorded = world.json(server, &["events", "--state", "recorded", "--json"]);
            (events.as_array()?.len() + recorded.as_array()?.len() == 2).then_some(())
        });
        let plan = world.json(server, &["replays", "plan", "--all", "--json"]);
        plan["id"].as_str().unwrap().clone_into(&mut world.replay);
        serve.stop();
        world
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, user: Option<u32>, arguments: &[&str]) -> Command {
        let hookmill = self.folder.path().join("hookmill");
        let mut command = match self.umask {
            None => Command::new(hookmill),
            Some(umask) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(hookmill);
                shell
            }
        };
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["CARGO", "HOOKMILL_URL", "HOOKMILL_TOKEN"] {
            command.env_remove(name);
        }
        command.env("STRIPE_WEBHOOK_SECRET", STRIPE_SECRET).env("STRIPE_API_KEY", "sk_test");
        as_user(&mut command, user);
        command
    }

    fn json(&self, user: Option<u32>, arguments: &[&str]) -> Value {
        let output = self.command(user, &[arguments, &["--data", "data"]].concat()).output();
        let output = output.unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    fn serve(&self) -> Serve {
        let listening = self.data().join("listening");
        let _ = fs::remove_file(&listening);
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--log", "error", "--data", "data"];
        let child = self.command(self.server, &arguments).spawn().unwrap();
        let address =
            eventually("it listens", || fs::read_to_string(&listening).ok()?.parse().ok());
        Serve { child, address }
    }

    /// A command of [`COMMANDS`] on the data folder.
    fn process(&self, command: &str, arguments: &[&str]) -> Command {
        let copy = format!("copies/{}", self.made.fetch_add(1, Ordering::Relaxed));
        let arguments = arguments.iter().map(|argument| match *argument {
            "EVENT" => "evt_small",
            "LETTER" => self.letter.as_str(),
            "REPLAY" => self.replay.as_str(),
            "NEW" => copy.as_str(),
            argument => argument,
        });
        let arguments: Vec<_> =
            command.split(' ').chain(arguments).chain(["--data", "data"]).collect();
        self.command(self.looker, &arguments)
    }

    /// Runs a command and expects success.
    fn run(&self, command: &str, arguments: &[&str]) {
        let mut process = self.process(command, arguments);
        if command == "tail" {
            return tail(process);
        }
        let output = process.output().unwrap();
        assert!(output.status.success(), "{command} {arguments:?}: {output:?}");
    }

    fn look(&self) {
        for (command, what) in COMMANDS {
            if let Looks(ways) = what {
                for arguments in *ways {
                    self.run(command, arguments);
                }
            }
        }
    }

    /// The owner and the permissions of each file in the folder.
    fn owned(&self) -> BTreeMap<PathBuf, (u32, u32, u32)> {
        let mut owned = BTreeMap::new();
        walk(&self.data(), &mut |path, file| {
            owned.insert(path, (file.uid(), file.gid(), file.mode()));
        });
        owned
    }

    /// The attributes of the files, without their content.
    fn files(&self) -> BTreeMap<PathBuf, (u64, u64, SystemTime)> {
        let mut files = BTreeMap::new();
        walk(&self.data(), &mut |path, file| {
            files.insert(path, (file.ino(), file.len(), file.modified().unwrap()));
        });
        files
    }

    fn looks_and_changes_nothing(&self) {
        let before = (self.owned(), self.files());
        self.look();
        assert_eq!((self.owned(), self.files()), before);
    }

    /// Makes the folder and all files readable for every user.
    fn readable(&self) {
        walk(&self.data(), &mut |path, file| {
            let mode = if file.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        });
    }
}

/// Runs until it is stopped.
fn tail(mut tail: Command) {
    let mut child = tail.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let waiting = lines.map_while(Result::ok).any(|line| line.contains("waiting for events"));
    let _ = child.kill();
    let _ = child.wait();
    assert!(waiting);
}

fn walk(path: &Path, found: &mut impl FnMut(PathBuf, fs::Metadata)) {
    // A body may disappear at any moment.
    let Ok(file) = fs::symlink_metadata(path) else { return };
    if file.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), found);
        }
    }
    found(path.to_owned(), file);
}

/// All files except bodies, which come and go under load.
fn own(files: BTreeMap<PathBuf, (u32, u32, u32)>) -> BTreeMap<PathBuf, (u32, u32, u32)> {
    let body = |path: &Path| path.components().any(|part| part.as_os_str() == "bodies");
    files.into_iter().filter(|(path, _)| !body(path)).collect()
}

/// Reads the folder while large events arrive: each of them is accepted.
fn look_under_load(world: &World, serve: &Serve) {
    let (done, posted) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for sender in 0..2 {
            let (done, posted) = (&done, &posted);
            scope.spawn(move || {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    let id = format!("evt_{sender}_{number}_{}", serve.child.id());
                    assert_eq!(serve.post_large(&id), 200);
                    number += 1;
                    posted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("there is load", || (posted.load(Ordering::Relaxed) > 0).then_some(()));
        world.look();
        for (command, what) in COMMANDS {
            if let Sends(arguments) = what {
                world.run(command, arguments);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// The files and folders below this one that other users can read or write.
fn open_to_others(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut open = Vec::new();
    walk(folder, &mut |path, file| {
        if file.mode() & 0o077 != 0 {
            open.push((path, format!("{:o}", file.mode())));
        }
    });
    open
}

/// An operator's umask of zero, and a folder that was open, as packages and volumes create it.
#[test]
fn files_are_private_whatever_the_umask() {
    let mut world = World::new(None, None);
    world.umask = Some("000");
    assert_eq!(open_to_others(&world.data()), []);
    world.readable();
    let mut serve = world.command(None, &["serve", "--listen", "127.0.0.1:0", "--data", "data"]);
    let _ = fs::remove_file(world.data().join("listening"));
    let mut child = serve.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("other users could read the data folder")));
    std::thread::spawn(move || log.for_each(drop));
    let listening = || fs::read_to_string(world.data().join("listening")).ok()?.parse().ok();
    let serve = Serve { child, address: eventually("it listens", listening) };
    assert_eq!(serve.post_large("evt_private"), 200);
    let letters = || world.json(None, &["events", "show", "stripe", "evt_private", "--json"]);
    eventually("it is applied", || letters()["steps"].as_array().map(drop));
    assert!(world.data().join("data.db-wal").exists());
    assert!(fs::read_dir(world.data().join("bodies/stripe")).unwrap().count() > 0);
    world.run("token create", &["ada", "--role", "read"]);
    assert_eq!(open_to_others(&world.data()), []);
    let backup = world.command(None, &["backup", "copy", "--data", "data"]).status().unwrap();
    assert!(backup.success());
    assert_eq!(open_to_others(&world.folder.path().join("copy")), []);
    let restored = world.command(None, &["restore", "copy", "--data", "deep/restored"]).status();
    assert!(restored.unwrap().success());
    assert_eq!(open_to_others(&world.folder.path().join("deep")), []);
    serve.stop();
    let dev = ["dev", "--listen", "127.0.0.1:0", "--data", "dev"];
    let child = world.command(None, &dev).stderr(Stdio::null()).spawn().unwrap();
    let listening =
        || fs::read_to_string(world.folder.path().join("dev/listening")).ok()?.parse().ok();
    let dev = Serve { child, address: eventually("it listens", listening) };
    assert_eq!(dev.post_large("evt_dev"), 200);
    assert_eq!(open_to_others(&world.folder.path().join("dev")), []);
}

#[test]
fn reading_disturbs_no_process_and_changes_no_file() {
    let world = World::new(None, None);
    // The process was stopped.
    world.looks_and_changes_nothing();
    let serve = world.serve();
    let before = own(world.owned());
    look_under_load(&world, &serve);
    assert_eq!(own(world.owned()), before);
    // It was killed.
    drop(serve);
    assert!(fs::metadata(world.data().join("data.db-wal")).unwrap().len() > 0);
    world.looks_and_changes_nothing();
}

/// Root reads the folder of another user's process; if the tests do not run as root, a user reads a folder that is
/// read-only.
#[test]
fn reading_as_another_user_leaves_everything_to_its_owner() {
    if fs::metadata(tempfile::tempdir().unwrap().path()).unwrap().uid() != 0 {
        let world = World::new(None, None);
        let read_only = |world: &World, write: u32| {
            walk(&world.data(), &mut |path, file| {
                let mode = if file.is_dir() { 0o555 } else { 0o444 } | write;
                fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            });
        };
        read_only(&world, 0);
        world.looks_and_changes_nothing();
        read_only(&world, 0o200);
        drop(world.serve());
        read_only(&world, 0);
        world.looks_and_changes_nothing();
        read_only(&world, 0o200);
        return;
    }
    let world = World::new(Some(NOBODY), None);
    world.looks_and_changes_nothing();
    let all_owned_by_server = || {
        let owned = world.owned();
        let others: Vec<_> = owned.iter().filter(|(_, file)| file.0 != NOBODY).collect();
        assert!(others.is_empty(), "{others:?}");
    };
    let change = || {
        for (command, what) in COMMANDS {
            if let Changes(arguments) = what {
                // The command may have nothing to change.
                let _ = world.process(command, arguments).output().unwrap();
                all_owned_by_server();
            }
        }
    };
    let names = || world.files().into_keys().collect::<Vec<_>>();
    let before = names();
    change();
    assert_eq!(names(), before);
    let serve = world.serve();
    look_under_load(&world, &serve);
    change();
    all_owned_by_server();
    assert_eq!(serve.post_large("evt_after"), 200);
    drop(serve);
    world.looks_and_changes_nothing();
    world.serve().stop();

    // Another user may not read the folder of root's process.
    let world = World::new(None, Some(NOBODY));
    fs::set_permissions(world.data(), Permissions::from_mode(0o700)).unwrap();
    let refused = world.command(Some(NOBODY), &["stats", "--data", "data"]).output().unwrap();
    let output = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(
        output,
        "error: this user may not read data/data.db; run the command as the user of the Hookmill process\n"
    );
    world.readable();
    world.looks_and_changes_nothing();
    // The next start closes the folder.
    let serve = world.serve();
    let refused = world.command(Some(NOBODY), &["stats", "--data", "data"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    drop(serve);
    world.readable();
    world.looks_and_changes_nothing();
}
