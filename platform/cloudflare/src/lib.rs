//! Hookmill's ports on Cloudflare. The adapters convert and execute, and decide nothing.
//!
//! | Port | Here |
//! | --- | --- |
//! | store | [`D1`] |
//! | queue | [`CloudflareQueue`], and [`Batch`] on the receiving side |
//! | objects | [`R2`] |
//! | rate limits | [`limited`] |
//! | HTTP | [`http`], and [`HttpClient`] for providers' APIs |
//! | metrics | [`Metrics`] |
//! | background jobs | [`jobs`], their runner |
//!
//! Futures around JavaScript promises are not `Send`, and the ports are: `#[worker::send]` bridges that here, and only
//! here. It is sound because a Worker has one thread.

mod batch;
mod d1;
mod decode;
mod fetch;
pub mod http;
pub mod jobs;
mod log;
mod metrics;
mod queue;
mod r2;
mod rate_limiter;

pub use batch::Batch;
pub use d1::D1;
pub use decode::decode;
pub use fetch::HttpClient;
pub use log::log;
pub use metrics::Metrics;
pub use queue::CloudflareQueue;
pub use r2::R2;
pub use rate_limiter::limited;

use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::time::Timestamp;
use worker::{Date, Env};

/// The time. It does not advance while a Worker computes, only with its IO.
pub fn now() -> Timestamp {
    timestamp(&Date::now())
}

fn timestamp(date: &Date) -> Timestamp {
    Timestamp::from_millis(i64::try_from(date.as_millis()).unwrap_or(i64::MAX))
}

/// The secret binding of this name, if it is set.
pub fn secret(env: &Env, name: &SecretName) -> Option<Secret> {
    env.secret(&name.0).ok().map(|secret| Secret::from(secret.to_string()))
}

/// The message of a JavaScript error. The errors of `worker` differ by the failed call.
fn text(error: &worker::Error) -> String {
    match error {
        // Its `Display` would throw for an Error object; the object itself has the whole message.
        worker::Error::D1(error) => {
            let error: &worker::js_sys::Error = error.as_ref();
            String::from(error.message())
        }
        error => error.to_string(),
    }
}
