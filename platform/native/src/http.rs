//! HTTP on one machine: connections, bodies and headers for [`hookmill_ingress::serve`].
//!
//! Any client may open connections, send slowly, send much, and read nothing. So connections are counted, and headers,
//! bodies, requests and answers have a deadline.

mod connections;
mod guarded;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body as AxumBody, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::any;
use axum::{Extension, Router};
use hookmill_core::request::{Headers, Remote};
use hookmill_ingress::{
    Body, BodyError, Gate, Incoming, Platform, Reply, RequestOutcome, serve as ingress, timed_out,
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming as Received;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service as _;
use tracing::warn;

use self::connections::{Admitted, Connection, Connections, Full};
pub use self::connections::{CONNECTIONS, Limits};
use self::guarded::Guarded;
use crate::now;

/// The maximum size of all bodies in memory; a request that would exceed it gets 503.
pub const BODY_BYTES: usize = 256 * 1024 * 1024;
/// The number of bytes of a body that are read and dropped after a response that did not need them. Otherwise the client
/// would find the connection closed, and could neither read the response nor send the next request on it.
const UNREAD_BYTES: usize = 8 * 1024 * 1024;
/// The maximum size of the headers of a request in bytes, and their maximum number. Larger ones get 431.
const HEADER_BYTES: usize = 32 * 1024;
/// See [`HEADER_BYTES`].
const HEADERS: usize = 64;
/// The maximum time for the headers of a request, and for an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// The maximum time for the server's work on a request, in addition to the time for its body.
const WORK_TIMEOUT: Duration = Duration::from_secs(60);
/// The size of a socket's buffer for answers, which a client that does not read fills.
const SEND_BYTES: u32 = 64 * 1024;
/// The maximum number of new connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// The maximum time for requests in progress after the stop signal.
const GRACE: Duration = Duration::from_secs(10);
/// The minimum time between two lines of the log about closed connections.
const REPORT: Duration = Duration::from_secs(60);

/// The parts that every request needs.
pub struct Service<P> {
    /// The platform.
    pub platform: P,
    /// The sources and their keys.
    pub gate: Arc<Gate>,
    /// Called with every result, for logs and metrics.
    pub observe: Box<dyn Fn(&RequestOutcome) + Send + Sync>,
}

/// The router for every path: webhooks, health checks, and 404.
pub fn webhooks<P: Platform + Send + 'static>(service: Arc<Service<P>>) -> Router {
    Router::new().fallback(answer::<P>).with_state(service)
}

/// The router for health checks only.
pub fn health<P: Platform + Send + 'static>(service: Arc<Service<P>>) -> Router {
    let routes = Router::new().route("/healthz", any(answer::<P>));
    routes.route("/readyz", any(answer::<P>)).with_state(service)
}

/// Listens on an address. Port 0 becomes a free one.
///
/// # Errors
///
/// If the address is in use, or not one of this machine.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // As `TcpListener::bind` does: on Windows it would mean something else.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it.
    socket.set_send_buffer_size(SEND_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves requests until `stop` is ready, then finishes those in progress. `body_timeout` is the maximum time for a body.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    body_timeout: Duration,
    stop: impl Future<Output = ()>,
) {
    let connections = Arc::new(Connections::new(limits));
    let graceful = GracefulShutdown::new();
    let mut closed = Closed::default();
    let mut stop = std::pin::pin!(stop);
    'accepting: loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Most likely there are no file descriptors left; open connections will close.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let place = loop {
            match connections.admit(peer.ip()) {
                Ok(Admitted { place, closed: other }) => {
                    closed.idle += u64::from(other);
                    break Some(place);
                }
                Err(Full::Share) => {
                    closed.refused += 1;
                    break None;
                }
                Err(Full::All) => tokio::select! {
                    () = connections.changed() => {}
                    () = &mut stop => break 'accepting,
                },
            }
        };
        closed.report();
        let Some(place) = place else { continue };
        let _ = stream.set_nodelay(true);
        let stream = Guarded::new(stream, place.connection.clone());
        let connection = place.connection.clone();
        let served = connected(stream, peer.ip(), connection, router.clone(), body_timeout);
        let served = graceful.watch(served);
        place.run(async {
            // An error here is the client's: it disconnected, or did not speak HTTP, or was too slow.
            let _ = served.await;
        });
    }
    let _ = timeout(GRACE, graceful.shutdown()).await;
}

/// Connections that were closed since the last line of the log.
#[derive(Default)]
struct Closed {
    idle: u64,
    refused: u64,
    reported: Option<Instant>,
}

impl Closed {
    fn report(&mut self) {
        let due = self.reported.is_none_or(|reported| reported.elapsed() >= REPORT);
        if self.idle + self.refused > 0 && due {
            let Self { idle, refused, .. } = *self;
            warn!(
                idle,
                refused,
                "there are too many connections: idle ones were closed for new ones, and new ones of an address with many were refused"
            );
            *self = Self { reported: Some(Instant::now()), ..Self::default() };
        }
    }
}

/// Serves a connection.
fn connected<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: Guarded<S>,
    remote: IpAddr,
    connection: Arc<Connection>,
    router: Router,
    body_timeout: Duration,
) -> impl GracefulConnection + Send {
    let service = service_fn(move |mut request: hyper::Request<Received>| {
        let (mut router, connection) = (router.clone(), connection.clone());
        connection.active();
        connection.set_working(true);
        let extensions = request.extensions_mut();
        extensions.insert(remote);
        extensions.insert(Remote(remote.to_string()));
        extensions.insert(connection.clone());
        async move {
            let answered = router.call(request.map(AxumBody::new));
            let response = match timeout(body_timeout + WORK_TIMEOUT, answered).await {
                Ok(response) => response,
                Err(_) => Ok(response(timed_out())),
            };
            connection.active();
            connection.set_working(false);
            response
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service)
}

async fn answer<P: Platform + Send + 'static>(
    State(service): State<Arc<Service<P>>>,
    Extension(remote): Extension<IpAddr>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let deadline = Instant::now() + service.gate.config().limits.body_timeout;
    let mut body = NativeBody { body, deadline, connection, ended: false };
    let content_length = parts.headers.get(header::CONTENT_LENGTH);
    let headers = NativeHeaders(&parts.headers);
    let incoming = Incoming {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &headers,
        remote: Some(remote.to_string()),
        content_length: content_length.and_then(|length| length.to_str().ok()?.parse().ok()),
        body: &mut body,
    };
    let (reply, outcome) = ingress(&service.platform, &service.gate, incoming, now()).await;
    (service.observe)(&outcome);
    let mut response = response(reply);
    if !body.ended && !body.body.is_end_stream() {
        if parts.headers.contains_key(header::EXPECT) {
            // The client waits before it sends the body.
            let close = header::HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        } else {
            // The client gets the response now, and can send its next request after the body.
            tokio::spawn(body.drop_rest());
        }
    }
    response
}

fn response(reply: Reply) -> Response {
    let mut response = Response::new(AxumBody::from(reply.body));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        // A configured type was checked to be a valid header; an invalid one is skipped.
        if let Ok(value) = header::HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

struct NativeHeaders<'a>(&'a HeaderMap);

impl Headers for NativeHeaders<'_> {
    fn all(&self, name: &str) -> Vec<Cow<'_, [u8]>> {
        self.0.get_all(name).iter().map(|value| Cow::Borrowed(value.as_bytes())).collect()
    }
}

struct NativeBody {
    body: AxumBody,
    deadline: Instant,
    connection: Arc<Connection>,
    /// Whether all of it has been read.
    ended: bool,
}

impl NativeBody {
    /// Reads the rest, up to a limit. If there is more, the connection ends.
    async fn drop_rest(mut self) {
        let mut unread = 0;
        while unread <= UNREAD_BYTES
            && let Ok(Some(Ok(frame))) = timeout_at(self.deadline, self.body.frame()).await
        {
            unread += frame.data_ref().map_or(0, Bytes::len);
        }
    }
}

impl Body for &mut NativeBody {
    type Chunk = Bytes;

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            self.connection.set_working(false);
            let frame = timeout_at(self.deadline, self.body.frame()).await;
            self.connection.set_working(true);
            let Some(frame) = frame.map_err(|_| BodyError::TimedOut)? else {
                self.ended = true;
                return Ok(None);
            };
            // Trailers are not part of a webhook.
            if let Ok(data) = frame.map_err(|_| BodyError::Incomplete)?.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    /// A connection to a server with a short and a long answer, and one that never comes.
    fn opened() -> (DuplexStream, JoinHandle<()>) {
        let long = "x".repeat(1_000_000);
        let router = Router::new()
            .route("/short", get("short"))
            .route("/long", get(async move || long.clone()))
            .route("/never", get(pending::<Response>));
        let limits = Limits { connections: 1, proxies: Vec::new() };
        let local = IpAddr::from([127, 0, 0, 1]);
        let place = Arc::new(Connections::new(limits)).admit(local).unwrap().place;
        let connection = place.connection.clone();
        let (client, server) = duplex(16 * 1024);
        let server = Guarded::new(server, connection.clone());
        let served = connected(server, local, connection, router, Duration::from_secs(10));
        let served = tokio::spawn(async {
            let _ = served.await;
            drop(place);
        });
        (client, served)
    }

    fn request(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
    }

    /// All that the server answers until it closes the connection.
    async fn answer_to(request: &str) -> String {
        let (mut client, served) = opened();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        served.await.unwrap();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_disconnected() {
        let (mut client, served) = opened();
        client.write_all(request("/long").as_bytes()).await.unwrap();
        served.await.unwrap();
        // It got no more than the buffer.
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.len(), 16 * 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_a_little_at_a_time_is_disconnected() {
        let (mut client, served) = opened();
        client.write_all(request("/long").as_bytes()).await.unwrap();
        let mut read = 0;
        while client.read_u8().await.is_ok() {
            read += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(read < 100_000, "{read}");
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_and_unfinished_headers_are_disconnected() {
        assert_eq!(answer_to("").await, "");
        let answer = answer_to("GET /short HTTP/1.1\r\nHost: a.test\r\nX").await;
        assert!(!answer.contains("200"), "{answer}");
        let answer = answer_to(&request("/short")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_a_deadline() {
        let answer = answer_to(&request("/never")).await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        assert!(answer.contains("retry-after") && answer.contains("timed_out"), "{answer}");
    }

    #[tokio::test]
    async fn a_server_that_waits_for_a_place_can_be_stopped() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { connections: 1, proxies: Vec::new() };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let router = Router::new().route("/short", get("short"));
        let served = tokio::spawn(serve(listener, router, limits, Duration::ZERO, stopped));
        let mut first = tokio::net::TcpStream::connect(address).await.unwrap();
        first.write_all(request("/short").as_bytes()).await.unwrap();
        first.read_u8().await.unwrap();
        let second = tokio::net::TcpStream::connect(address).await.unwrap();
        // Time for the server to accept it; nothing shows that it has.
        tokio::time::sleep(Duration::from_millis(20)).await;
        stop.send(()).unwrap();
        drop((first, second));
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn headers_have_a_size_and_a_number() {
        for (count, length, expected) in
            [(63, 400, "200 OK"), (64, 1, "431 "), (1, 31_000, "200 OK"), (1, 33_000, "431 ")]
        {
            let headers: Vec<_> =
                (0..count).map(|n| format!("X-{n}: {}\r\n", "x".repeat(length))).collect();
            let headers = headers.concat();
            let request = format!("GET /short HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n");
            let answer = answer_to(&request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{count}: {answer}");
        }
    }
}
