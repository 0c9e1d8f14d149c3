//! HTTP on Workers: bodies, headers and replies for [`hookmill_ingress::serve`].

use std::borrow::Cow;

use futures_util::future::{Either, select};
use hookmill_core::request::Headers;
use hookmill_core::time::Timestamp;
use hookmill_ingress::{
    Body, BodyError, Gate, Incoming, Platform, Reply, RequestOutcome, serve as ingress,
};
use worker::js_sys::futures::JsFuture;
use worker::js_sys::{Reflect, Uint8Array};
use worker::send::SendWrapper;
use worker::wasm_bindgen::{JsCast as _, JsValue};
use worker::web_sys::{ReadableStreamDefaultReader, Request as JsRequest};
use worker::{Delay, Request, Response, ResponseBuilder, Result};

use crate::now;

/// Serves a request.
///
/// # Errors
///
/// If the reply is not a valid response, which never happens.
pub async fn serve<P: Platform>(
    platform: &P,
    gate: &Gate,
    request: &Request,
) -> Result<(Response, RequestOutcome)> {
    let headers = WorkerHeaders(SendWrapper::new(request.headers().clone()));
    let content_length =
        request.headers().get("content-length")?.and_then(|length| length.parse().ok());
    let inner = <JsRequest as Clone>::clone(request.inner());
    let body = WorkerBody {
        from: SendWrapper::new(match content_length {
            Some(0) => From::Done,
            Some(..=WHOLE_BYTES) => From::Whole(inner),
            _ => From::Unread(inner),
        }),
        deadline: now() + gate.config().limits.body_timeout,
    };
    let method = request.method().to_string();
    // The URL as sent: parsing would change its escapes, and signatures cover them.
    let url = request.inner().url();
    let (path, query) = path_and_query(&url);
    let incoming = Incoming {
        method: &method,
        path,
        query,
        headers: &headers,
        // Cloudflare sets this header and overwrites the client's.
        remote: request.headers().get("cf-connecting-ip")?,
        content_length,
        body,
    };
    let (reply, outcome) = ingress(platform, gate, incoming, now()).await;
    Ok((response(reply)?, outcome))
}

/// The path and the query of an absolute URL without a fragment, which no request has.
fn path_and_query(url: &str) -> (&str, Option<&str>) {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let target = after_scheme.find(['/', '?']).map_or("", |start| &after_scheme[start..]);
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

fn response(reply: Reply) -> Result<Response> {
    let mut response = ResponseBuilder::new().with_status(reply.status);
    for (name, value) in reply.headers {
        response = response.with_header(name, &value)?;
    }
    Ok(response.fixed(reply.body.into_bytes()))
}

struct WorkerHeaders(SendWrapper<worker::Headers>);

impl Headers for WorkerHeaders {
    fn all(&self, name: &str) -> Vec<Cow<'_, [u8]>> {
        let value = self.0.get(name).ok().flatten();
        value.into_iter().map(|value| Cow::Owned(value.into_bytes())).collect()
    }
}

/// A body of at most this many bytes is read in one step, which takes less time than a stream.
const WHOLE_BYTES: u64 = 64 * 1024;

/// A longer body, or one without a `Content-Length`, is read as it arrives, so that it exceeds neither the limit nor the
/// memory for bodies.
enum From {
    Whole(JsRequest),
    /// Nothing was read, so that a rejected request costs no memory.
    Unread(JsRequest),
    Stream(ReadableStreamDefaultReader),
    Done,
}

struct WorkerBody {
    from: SendWrapper<From>,
    /// When all of it must have arrived.
    deadline: Timestamp,
}

fn reader(request: &JsRequest) -> Option<ReadableStreamDefaultReader> {
    request.body()?.get_reader().dyn_into().ok()
}

impl Body for WorkerBody {
    type Chunk = Vec<u8>;

    #[worker::send]
    async fn chunk(&mut self) -> std::result::Result<Option<Vec<u8>>, BodyError> {
        let incomplete = |_: JsValue| BodyError::Incomplete;
        if let From::Unread(request) = &*self.from {
            self.from = SendWrapper::new(reader(request).map_or(From::Done, From::Stream));
        }
        let promise = match &*self.from {
            From::Whole(request) => request.array_buffer().map_err(incomplete)?,
            From::Stream(reader) => reader.read(),
            From::Unread(_) | From::Done => return Ok(None),
        };
        let value = match select(JsFuture::from(promise), Delay::from(self.deadline - now())).await
        {
            Either::Left((value, _)) => value.map_err(incomplete)?,
            Either::Right(_) => return Err(BodyError::TimedOut),
        };
        if matches!(&*self.from, From::Whole(_)) {
            self.from = SendWrapper::new(From::Done);
            return Ok(Some(Uint8Array::new(&value).to_vec()));
        }
        let part = Reflect::get(&value, &"value".into()).map_err(incomplete)?;
        Ok(part.dyn_ref::<Uint8Array>().map(Uint8Array::to_vec))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_path_and_perhaps_a_query() {
        for (url, expected) in [
            ("https://a.test/webhooks/s", ("/webhooks/s", None)),
            ("https://a.test/a%2Fb?x=1?y", ("/a%2Fb", Some("x=1?y"))),
            ("https://a.test?x", ("", Some("x"))),
            ("https://a.test", ("", None)),
        ] {
            assert_eq!(path_and_query(url), expected, "{url}");
        }
    }
}
