//! HTTP on one machine: connections, bodies and headers for [`hookmill_ingress::serve`].
//!
//! Any client may open connections, send slowly and send much. So connections are counted, headers and bodies have a
//! deadline, and the bytes of all bodies in memory have a common limit.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body as AxumBody, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::{Extension, Router};
use hookmill_core::request::{Headers, Remote};
use hookmill_ingress::{
    Body, BodyError, Gate, Incoming, Platform, Reply, RequestOutcome, serve as ingress,
};
use http_body_util::BodyExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tower_layer::Layer as _;

use crate::now;

/// The maximum number of connections; further ones wait.
const CONNECTIONS: usize = 1024;
/// The maximum size of all bodies in memory; a request that would exceed it gets 503.
const BODY_BYTES: usize = 256 * 1024 * 1024;
/// The number of bytes of a body that are read and dropped after a response that did not need them. Otherwise the client
/// would find the connection closed, and could neither read the response nor send the next request on it.
const UNREAD_BYTES: usize = 8 * 1024 * 1024;
/// The maximum time for the headers of a request, and for an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// The maximum time for requests in progress after the stop signal.
const GRACE: Duration = Duration::from_secs(10);

/// The parts that every request needs.
pub struct Service<P> {
    /// The platform.
    pub platform: P,
    /// The sources and their keys.
    pub gate: Arc<Gate>,
    /// Called with every result, for logs and metrics.
    pub observe: Box<dyn Fn(&RequestOutcome) + Send + Sync>,
}

struct Shared<P> {
    service: Service<P>,
    memory: Arc<Semaphore>,
}

/// Serves requests until `stop` is ready, then finishes those in progress. `admin` handles the paths that it has routes
/// for.
pub async fn serve<P: Platform + Send + 'static>(
    listener: TcpListener,
    service: Service<P>,
    admin: Router,
    stop: impl Future<Output = ()>,
) {
    let shared = Arc::new(Shared { service, memory: Arc::new(Semaphore::new(BODY_BYTES)) });
    let ingress = Router::new().fallback(answer::<P>).with_state(shared);
    let router = admin.merge(ingress);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stop => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Most likely there are no file descriptors left; open connections will close.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let remote = Extension(Remote(peer.ip().to_string()));
        let service = Extension(peer.ip()).layer(remote.layer(router.clone()));
        let service = TowerToHyperService::new(service);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // An error here is the client's: it disconnected, or did not speak HTTP.
            let _ = connection.await;
            drop(permit);
        });
    }
    let _ = timeout(GRACE, graceful.shutdown()).await;
}

async fn answer<P: Platform + Send + 'static>(
    State(shared): State<Arc<Shared<P>>>,
    Extension(remote): Extension<IpAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let service = &shared.service;
    let mut body = NativeBody {
        body,
        deadline: Instant::now() + service.gate.config().limits.body_timeout,
        memory: shared.memory.clone(),
        reserved: Vec::new(),
        ended: false,
    };
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
    // A client that sent `Expect` waits before it sends the body.
    let expected = parts.headers.contains_key(header::EXPECT);
    if !body.ended && (expected || !body.drop_rest().await) {
        let close = header::HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
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
    memory: Arc<Semaphore>,
    /// Released when the request is over.
    reserved: Vec<OwnedSemaphorePermit>,
    /// Whether all of it has been read.
    ended: bool,
}

impl NativeBody {
    /// Reads the rest, up to a limit. Whether that was all.
    async fn drop_rest(&mut self) -> bool {
        let mut unread = 0;
        while unread <= UNREAD_BYTES {
            match timeout_at(self.deadline, self.body.frame()).await {
                Ok(Some(Ok(frame))) => unread += frame.data_ref().map_or(0, Bytes::len),
                Ok(None) => return true,
                Ok(Some(Err(_))) | Err(_) => return false,
            }
        }
        false
    }
}

impl Body for &mut NativeBody {
    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        loop {
            let frame = timeout_at(self.deadline, self.body.frame())
                .await
                .map_err(|_| BodyError::TimedOut)?;
            let frame = match frame {
                None => {
                    self.ended = true;
                    return Ok(None);
                }
                Some(frame) => frame.map_err(|_| BodyError::Incomplete)?,
            };
            // Trailers are not part of a webhook.
            let Ok(data) = frame.into_data() else { continue };
            let length = u32::try_from(data.len()).map_err(|_| BodyError::Overloaded)?;
            let permit = self.memory.clone().try_acquire_many_owned(length);
            self.reserved.push(permit.map_err(|_| BodyError::Overloaded)?);
            return Ok(Some(Bytes::into(data)));
        }
    }
}
