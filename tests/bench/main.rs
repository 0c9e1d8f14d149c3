//! The native benchmark: ratios between servers measured in turn on the same machine, never a rate by itself.
//!
//! `hookmill-bench native HOOKMILL CONFIG` is what `cargo xtask bench` runs; `hookmill-bench bare` is the other side.

// A benchmark prints.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::cast_precision_loss)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hookmill_tests::event::{Event, stripe};
use hookmill_tests::http::request;
use hookmill_tests::native::put;
use hookmill_tests::{STRIPE_SECRET, eventually};
use rusqlite::Connection;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 256;
/// Requests in one measurement.
const REQUESTS: usize = 15_000;
/// Measurements of each server, in turn.
const ROUNDS: usize = 5;
/// Events on the queue when the drain begins.
const BACKLOG: usize = 100_000;

fn main() {
    // The first is the program's name.
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare"] => bare(),
        ["native", hookmill, config] => native(hookmill, config),
        _ => {
            eprintln!("usage: hookmill-bench native HOOKMILL CONFIG | bare");
            std::process::exit(2);
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made")
}

/// A handler that reads the same body and answers 200, on the same HTTP library.
fn bare() {
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        println!("{}", listener.local_addr().expect("it listens"));
        let router = axum::Router::new().fallback(|body: axum::body::Bytes| async move {
            std::hint::black_box(&body);
            "{\"accepted\":1}"
        });
        axum::serve(listener, router).await.expect("it serves");
    });
}

/// A full-size subscription event: about 4.5 KB.
fn event(number: usize) -> Event {
    let text = include_str!("../../hookmill/samples/stripe.json");
    let objects: serde_json::Value = serde_json::from_str(text).expect("the samples are JSON");
    let mut object = objects["subscription"].clone();
    object["id"] = json!(format!("sub_{number}"));
    stripe("customer.subscription.updated", &format!("evt_{number}"), 1_767_225_600, object)
}

/// Requests, signed and written out, that keep their connection.
fn requests(first: usize) -> Vec<Vec<u8>> {
    (first..first + REQUESTS)
        .map(|number| {
            let event = event(number);
            let bytes = request("POST", "/webhooks/stripe", &event.headers(), &event.body);
            let close = b"Connection: close\r\n";
            let at = bytes
                .windows(close.len())
                .position(|window| window == close)
                .expect("it is written there");
            [&bytes[..at], &bytes[at + close.len()..]].concat()
        })
        .collect()
}

/// Sends every request, over all connections at once. Returns how many were answered in a second.
async fn load(address: SocketAddr, requests: Arc<Vec<Vec<u8>>>) -> f64 {
    let next = Arc::new(AtomicUsize::new(0));
    let mut streams = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket takes options");
        streams.push(stream);
    }
    let start = Instant::now();
    let connections = streams.into_iter().map(|mut stream| {
        let (requests, next) = (requests.clone(), next.clone());
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                stream.write_all(request).await.expect("the server reads");
                let mut length = 0;
                loop {
                    length += stream.read(&mut buffer[length..]).await.expect("the server answers");
                    // Both answer with this body, last.
                    if buffer[..length].ends_with(b"{\"accepted\":1}") {
                        break;
                    }
                    assert!(
                        length > 0 && buffer.starts_with(b"HTTP/1.1 200"),
                        "an answer that is not 200"
                    );
                }
            }
        })
    });
    for connection in connections.collect::<Vec<_>>() {
        connection.await.expect("no connection fails");
    }
    requests.len() as f64 / start.elapsed().as_secs_f64()
}

/// A server that ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_hookmill(binary: &str, config: &str, data: &Path) -> (Server, SocketAddr) {
    let _ = std::fs::remove_file(data.join("listening"));
    let child = Command::new(binary)
        .args(["serve", "--log", "error", "--listen", "127.0.0.1:0", "--config", config, "--data"])
        .arg(data)
        .env("STRIPE_WEBHOOK_SECRET", STRIPE_SECRET)
        .env("CLERK_WEBHOOK_SECRET", hookmill_tests::CLERK_SECRET)
        .spawn()
        .expect("hookmill can be run");
    let listening = data.join("listening");
    let address = eventually("hookmill listens", || {
        std::fs::read_to_string(&listening).ok()?.trim().parse().ok()
    });
    (Server(child), address)
}

fn start_bare() -> (Server, SocketAddr) {
    use std::io::BufRead as _;
    let program = std::env::current_exe().expect("this program has a path");
    let mut child =
        Command::new(program).arg("bare").stdout(Stdio::piped()).spawn().expect("it can be run");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("its stdout is piped");
    std::io::BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
    let address = line.trim().parse().expect("an address");
    (Server(child), address)
}

/// A line of /proc/PID/status, in KiB.
fn memory(pid: u32, what: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(what))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(values: &[f64]) -> String {
    let (least, most) =
        values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    format!("{least:.2} to {most:.2}")
}

fn native(hookmill: &str, config: &str) {
    let runtime = runtime();
    let mut first = 0;
    let mut fresh = || {
        first += REQUESTS;
        Arc::new(requests(first))
    };
    let (_bare, bare_address) = start_bare();
    let data = tempfile::tempdir().expect("a temporary folder can be made");
    let (server, address) = start_hookmill(hookmill, config, data.path());
    println!(
        "{REQUESTS} requests of {} bytes over {CONNECTIONS} connections, {ROUNDS} rounds",
        event(1).body.len()
    );

    // Warm-up.
    runtime.block_on(load(bare_address, fresh()));
    runtime.block_on(load(address, fresh()));
    let (mut alone, mut together, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let requests = fresh();
        let bare = runtime.block_on(load(bare_address, requests.clone()));
        drained(data.path(), 0);
        // With the application's database locked, consumers wait, and ingress is measured by itself.
        let lock = Connection::open(data.path().join("data.db")).expect("the database opens");
        lock.execute_batch("BEGIN IMMEDIATE").expect("the database can be locked");
        let rate = runtime.block_on(load(address, requests));
        lock.execute_batch("ROLLBACK").expect("the database can be unlocked");
        alone.push(rate / bare);
        rates.push(rate);
        drained(data.path(), 0);
        let rate = runtime.block_on(load(address, fresh()));
        together.push(rate / bare);
    }
    println!(
        "ingress, durable, to bare axum: {:.2} (rounds {}); the bar is 0.5",
        median(alone.clone()),
        spread(&alone)
    );
    println!(
        "  with the consumers applying at the same time: {:.2} (rounds {})",
        median(together.clone()),
        spread(&together)
    );
    drop(server);

    let ingress = median(rates);
    let data = tempfile::tempdir().expect("a temporary folder can be made");
    drop(start_hookmill(hookmill, config, data.path()));
    fill(data.path());
    let (server, _) = start_hookmill(hookmill, config, data.path());
    let start = Instant::now();
    let (idle, mut most) = (memory(server.0.id(), "VmRSS"), 0.0_f64);
    let mut at_half = None;
    loop {
        let left = waiting(data.path());
        most = most.max(memory(server.0.id(), "VmRSS").unwrap_or(0.0));
        if left <= BACKLOG / 2 && at_half.is_none() {
            at_half = memory(server.0.id(), "VmRSS");
        }
        if left == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let drain = BACKLOG as f64 / start.elapsed().as_secs_f64();
    println!("drain of {BACKLOG} events, to ingress: {:.2}; the bar is 1", drain / ingress);
    let mib = |kib: f64| kib / 1024.0;
    println!(
        "  memory: {:.0} MiB at the start, {:.0} MiB at half, {:.0} MiB at most",
        mib(idle.unwrap_or(0.0)),
        mib(at_half.unwrap_or(0.0)),
        mib(most)
    );
}

fn waiting(data: &Path) -> usize {
    let database = Connection::open(data.join("queue.db")).expect("the queue opens");
    let count =
        database.query_row("SELECT count(*) FROM events_messages", [], |row| row.get::<_, u32>(0));
    usize::try_from(count.unwrap_or(u32::MAX)).unwrap_or(usize::MAX)
}

fn drained(data: &Path, to: usize) {
    eventually("the queue is drained", || (waiting(data) <= to).then_some(()));
}

/// Puts a backlog on the queue of a process that is not running.
fn fill(data: &Path) {
    let mut queue = Connection::open(data.join("queue.db")).expect("the queue opens");
    let transaction = queue.transaction().expect("nobody has it");
    for number in 0..BACKLOG {
        put(&transaction, event(number).message().as_bytes(), 0);
    }
    transaction.commit().expect("the disk is not full");
}
