//! A pipeline of three Workers in workerd, started and controlled by `workers/harness.mjs`.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::{Value, json};

use crate::api::Api;
use crate::event::{Event, now, stripe};
use crate::http::{Response, exchange, request};
use crate::{DEADLY, Fault, eventually, folder, secrets};

/// The memory of an isolate is 128 MB. workerd has no such limit here, but V8 has one for WebAssembly, in pages of 64 KiB, and one
/// for JavaScript, in MB. It ends the process at the latter.
const MEMORY: &str = "--wasm-max-mem-pages=1024 --max-heap-size=64";

/// A running pipeline. It ends when dropped.
pub struct Pipeline {
    child: Child,
    /// The harness ends when this closes; killing it would leave workerd behind.
    stdin: Option<ChildStdin>,
    address: SocketAddr,
    control: SocketAddr,
    admin: SocketAddr,
}

impl Pipeline {
    /// Starts one, with the contract's configuration and empty stores.
    pub fn start() -> Self {
        Self::start_with(None, false)
    }

    /// Starts one with access to providers' APIs.
    pub fn with_api(api: &Api) -> Self {
        Self::start_with(Some(api.address()), true)
    }

    /// The same without its cron triggers.
    pub fn with_api_and_no_cron(api: &Api) -> Self {
        Self::start_with(Some(api.address()), false)
    }

    fn start_with(outbound: Option<SocketAddr>, cron: bool) -> Self {
        let node = std::env::var_os("HOOKMILL_TEST_NODE")
            .expect("these tests need Workers and Node: run them with `cargo xtask test workers`");
        let mut child = Command::new(node)
            .arg(folder().join("workers/harness.mjs"))
            .env("MINIFLARE_WORKERD_V8_FLAGS", MEMORY)
            .env("HOOKMILL_TEST_SECRETS", json!(secrets()).to_string())
            .env("HOOKMILL_TEST_OUTBOUND", outbound.map(|a| a.to_string()).unwrap_or_default())
            .env("HOOKMILL_TEST_CRON", if cron { "yes" } else { "" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node can be run");
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its stdout is piped"))
            .read_line(&mut line)
            .expect("the harness says where it listens");
        let listening: Value = serde_json::from_str(&line).expect("the harness starts");
        let address = |name: &str| {
            listening[name]
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("the harness names an address")
        };
        let (address, control, admin) = (address("workers"), address("control"), address("admin"));
        Self { child, stdin, address, control, admin }
    }

    /// The address of ingress.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the admin API.
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Posts an event.
    pub fn post(&self, event: &Event) -> Response {
        self.send(&event.headers(), event.source, &event.body)
    }

    /// Posts a body to a source.
    pub fn send(&self, headers: &[(String, String)], source: &str, body: &[u8]) -> Response {
        let bytes = request("POST", &format!("/webhooks/{source}"), headers, body);
        exchange(self.address, &bytes).expect("the Workers listen")
    }

    /// Puts messages on the queue of events together, past ingress. They need not be UTF-8.
    #[must_use]
    pub fn enqueued(self, messages: &[impl AsRef<[u8]>]) -> Self {
        let message = |message: &[u8]| match std::str::from_utf8(message) {
            Ok(text) => json!(text),
            Err(_) => json!({ "bytes": message }),
        };
        let messages: Vec<_> = messages.iter().map(|bytes| message(bytes.as_ref())).collect();
        self.control("enqueue", &json!({ "messages": messages }));
        self
    }

    /// Puts messages on the queue together. An invocation that applies one with [`DEADLY`] in it ends as if it had used up
    /// its memory. Returns when every message has a verdict.
    #[must_use]
    pub fn survived(self, messages: &[String]) -> Self {
        self.control("fault", &json!({ "fault": DEADLY, "broken": true }));
        let pipeline = self.enqueued(messages);
        eventually("every message has its verdict", || {
            let sql = "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM dead_letters)";
            (pipeline.sql(sql) == [[messages.len()]]).then_some(())
        });
        pipeline.settle();
        pipeline
    }

    /// Puts a value on the queue of events that is neither text nor bytes.
    pub fn enqueue_value(&self, value: &Value) {
        self.control("enqueue", &json!({ "messages": [{ "json": value }] }));
    }

    /// Delivers an event to two consumers at the same time.
    pub fn delivered_to_two_consumers(&self, event: &Event) {
        self.control("deliver", &json!({ "messages": [event.message()], "consumers": 2 }));
    }

    /// Delivers these messages to a consumer in one batch.
    pub fn deliver(&self, messages: &[String]) {
        self.control("deliver", &json!({ "messages": messages, "consumers": 1 }));
    }

    /// Runs the cron trigger of the consumers.
    pub fn consumer_minute(&self) {
        self.control("consumer_minute", &json!({}));
    }

    /// What the transactions in D1 have cost since the last call.
    pub fn cost(&self) -> Cost {
        let cost = self.control("cost", &json!({}));
        let count = |what: &str| cost[what].as_u64().expect("the harness counts");
        Cost { trips: count("trips"), read: count("read"), written: count("written") }
    }

    /// Lets this number of consumers in one isolate process these messages at the same time, each in one batch. Returns the size of
    /// its Wasm memory afterwards, in bytes.
    pub fn wasm_memory_after(&self, messages: &[String], consumers: usize) -> u64 {
        self.control("deliver", &json!({ "messages": messages, "consumers": consumers }));
        let logs = self.logs();
        let sizes = logs.lines().filter_map(|line| line.split_once("wasm memory ")?.1.parse().ok());
        sizes.max().expect("the shim tells")
    }

    /// Lets the platform give up an event before a consumer has a verdict.
    #[must_use]
    pub fn given_up_by_the_platform(self, event: &Event) -> Self {
        self.control("fault", &json!({ "fault": "consumer", "broken": true }));
        assert_eq!(self.post(event).status, 200);
        eventually("the platform has given the message up", || {
            self.sql("SELECT 1 FROM dead_letters").first().map(drop)
        });
        self.control("fault", &json!({ "fault": "consumer", "broken": false }));
        self
    }

    /// Causes a fault until the returned value is dropped.
    pub fn broken(&self, fault: Fault) -> Broken<'_> {
        let fault = match fault {
            Fault::Queue => "queue",
            Fault::Store => "store",
        };
        self.control("fault", &json!({ "fault": fault, "broken": true }));
        Broken { pipeline: self, fault }
    }

    /// Every minute is a quarter past an hour from now on.
    pub fn quarterly(&self) {
        self.control("fault", &json!({ "fault": "quarterly", "broken": true }));
    }

    /// Runs SQL on D1.
    pub fn sql(&self, sql: &str) -> Vec<Vec<Value>> {
        let rows = self.control("sql", &json!({ "sql": sql }));
        rows.as_array()
            .expect("rows")
            .iter()
            .map(|row| row.as_array().expect("a row").clone())
            .collect()
    }

    /// Waits until every earlier message is processed. The local queue delivers one batch at a time, in order.
    pub fn settle(&self) {
        let marker =
            stripe("test.marker", &format!("evt_marker_{}", now().millis()), 0, Value::Null);
        self.control("enqueue", &json!({ "messages": [marker.message()] }));
        let sql = format!("SELECT 1 FROM events WHERE id = '{}'", marker.id);
        eventually("the queue is empty", || self.sql(&sql).first().map(drop));
        for table in ["events", "event_messages"] {
            self.sql(&format!("DELETE FROM {table} WHERE id = '{}'", marker.id));
        }
    }

    /// The keys of the object store.
    pub fn objects(&self) -> Vec<String> {
        let keys = self.control("objects", &Value::Null);
        keys.as_array()
            .into_iter()
            .flatten()
            .filter_map(|key| key.as_str().map(ToOwned::to_owned))
            .collect()
    }

    /// Lists every object as forty days old.
    #[must_use]
    pub fn with_old_objects(self) -> Self {
        self.control("fault", &json!({ "fault": "old-objects", "broken": true }));
        self
    }

    /// Runs the work of every minute.
    #[must_use]
    pub fn after_a_minute(self) -> Self {
        self.control("minute", &Value::Null);
        self
    }

    /// The logs of the Workers.
    pub fn logs(&self) -> String {
        self.control("logs", &Value::Null).as_str().unwrap_or_default().to_owned()
    }

    /// The value of a counter with these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let points = self.points(labels[0].1, name, labels).into_iter();
        points.filter_map(|count| count.as_u64()).sum()
    }

    /// The value of a gauge; `None` if it is absent.
    pub fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.points(name, name, labels).pop()?.as_f64()
    }

    fn points(&self, index: &str, name: &str, labels: &[(&str, &str)]) -> Vec<Value> {
        let logs = self.logs();
        let points = logs.lines().filter_map(|line| line.split_once("data point ")?.1.parse().ok());
        let values = labels.iter().map(|(_, value)| *value);
        let blobs: Vec<_> = std::iter::once(name).chain(values).collect();
        let same =
            |point: &Value| point["blobs"] == json!(blobs) && point["indexes"] == json!([index]);
        points.filter(same).map(|mut point: Value| point["doubles"][0].take()).collect()
    }

    fn control(&self, path: &str, body: &Value) -> Value {
        let bytes = request("POST", &format!("/{path}"), &[], body.to_string().as_bytes());
        let response = exchange(self.control, &bytes).expect("the harness listens");
        assert_eq!(response.status, 200, "{path}: {}", response.body);
        response.json()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// What transactions in D1 have cost: round trips, and rows as D1 bills them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Transactions; each is a request to D1.
    pub trips: u64,
    /// Rows read.
    pub read: u64,
    /// Rows written, those of indexes included.
    pub written: u64,
}

/// A fault that lasts while this lives.
pub struct Broken<'p> {
    pipeline: &'p Pipeline,
    fault: &'static str,
}

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        self.pipeline.control("fault", &json!({ "fault": self.fault, "broken": false }));
    }
}
