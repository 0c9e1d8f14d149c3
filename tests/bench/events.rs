//! Events, their requests, and a client that sends these.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hookmill_tests::event::{Event, stripe};
use hookmill_tests::http::request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The time without progress after which the benchmark gives up. A request, or a batch, takes milliseconds.
pub const STUCK: Duration = Duration::from_secs(60);
/// New subscriptions have numbers from here on.
const NEW: u32 = 1_000_000;
/// The time of the first event. Rows of fill.sql are older.
const CREATED: i64 = 1_767_225_600;

/// The id of fill.sql with this number: spread over the whole table, as a provider's ids are.
fn spread(number: u32) -> String {
    format!("{:08x}", number.wrapping_mul(2_654_435_761))
}

/// Full-size `customer.subscription.updated` events, about 4.5 KB each. All ids differ, and each event is newer than those
/// before it.
pub struct Events {
    subscription: Value,
    next: u32,
}

/// Events that are sent together.
pub struct Batch {
    /// The events.
    pub events: Vec<Event>,
    /// The numbers of the events and of the subscriptions in the ids that they add to the tables.
    pub added: Vec<String>,
    /// How many of the subscriptions are new.
    pub new: usize,
}

impl Events {
    /// From the sample of `hookmill send`.
    pub fn new() -> Self {
        let samples: Value =
            serde_json::from_str(include_str!("../../hookmill/samples/stripe.json"))
                .expect("the samples are JSON");
        Self { subscription: samples["subscription"].clone(), next: NEW }
    }

    /// Each event is about its own subscription if the tables have none. If they have `held`, every other event is about
    /// one of those.
    pub fn batch(&mut self, count: usize, held: u32) -> Batch {
        let (mut events, mut added, mut new) = (Vec::with_capacity(count), Vec::new(), 0);
        for _ in 0..count {
            let number = self.next;
            self.next += 1;
            let subscription = if held > 0 && number.is_multiple_of(2) {
                number / 2 % held
            } else {
                new += 1;
                number
            };
            let (event, id) = (spread(number), spread(subscription));
            let mut object = self.subscription.clone();
            object["id"] = json!(format!("sub_{id}"));
            object["items"]["data"][0]["id"] = json!(format!("si_{id}"));
            object["items"]["data"][0]["subscription"] = json!(format!("sub_{id}"));
            let created = CREATED + i64::from(number - NEW);
            let kind = "customer.subscription.updated";
            events.push(indented(stripe(kind, &format!("evt_{event}"), created, object)));
            added.push(event);
        }
        Batch { events, added, new }
    }
}

/// As Stripe sends it.
fn indented(mut event: Event) -> Event {
    let body: Value = serde_json::from_slice(&event.body).expect("a body is JSON");
    event.body = format!("{body:#}").into_bytes();
    event
}

/// Signed requests as bytes, with keep-alive.
pub fn requests(events: &[Event]) -> Arc<Vec<Vec<u8>>> {
    let write = |event: &Event| {
        let bytes = request("POST", "/webhooks/stripe", &event.headers(), &event.body);
        let close = b"Connection: close\r\n";
        let at = bytes
            .windows(close.len())
            .position(|window| window == close)
            .expect("it is written there");
        [&bytes[..at], &bytes[at + close.len()..]].concat()
    };
    Arc::new(events.iter().map(write).collect())
}

/// How a server answered.
pub struct Answers {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// The time of each answer, in ascending order.
    pub times: Vec<Duration>,
}

/// Sends every request over all connections: as fast as they are answered, or at a rate per second.
///
/// At a rate, a request that waits for a connection counts from the moment at which it was due.
pub async fn load(
    address: SocketAddr,
    connections: usize,
    requests: Arc<Vec<Vec<u8>>>,
    rate: Option<f64>,
) -> Answers {
    let next = Arc::new(AtomicUsize::new(0));
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket takes options");
        streams.push(stream);
    }
    let start = Instant::now();
    let senders = streams.into_iter().map(|mut stream| {
        let (requests, next) = (requests.clone(), next.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(number) else { return times };
                let mut from = Instant::now();
                if let Some(rate) = rate {
                    let due = start + Duration::from_secs_f64(number as f64 / rate);
                    if due > from {
                        tokio::time::sleep_until(due.into()).await;
                        // Timers have a resolution of a millisecond, which is not the server's.
                        from = Instant::now();
                    } else {
                        from = due;
                    }
                }
                send(&mut stream, request).await;
                times.push(from.elapsed());
            }
        })
    });
    let mut times = Vec::with_capacity(requests.len());
    for sender in senders.collect::<Vec<_>>() {
        times.extend(sender.await.expect("no connection fails"));
    }
    let elapsed = start.elapsed();
    times.sort();
    Answers { elapsed, times }
}

/// Sends one request and waits for its answer.
async fn send(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).await.expect("the server reads");
    let (mut buffer, mut length) = ([0; 4096], 0);
    // Both servers end their responses with this body.
    while !buffer[..length].ends_with(b"{\"accepted\":1}") {
        let read = timeout(STUCK, stream.read(&mut buffer[length..])).await;
        let read = read
            .unwrap_or_else(|_| panic!("no answer to a request in {STUCK:?}"))
            .expect("the server answers");
        length += read;
        assert!(
            read > 0 && buffer.starts_with(b"HTTP/1.1 200"),
            "an answer that is not 200: {}",
            String::from_utf8_lossy(&buffer[..length])
        );
    }
}
