//! The ingress Worker: sends `POST /webhooks/{source}` to the queue of events.
//!
//! It contains verification and nothing else, since its size determines its cold start.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use hookmill_cloudflare::{CloudflareQueue, Metrics, R2, decode, http, limited, log, now, secret};
use hookmill_config::{Ingress, RateLimit, Source};
use hookmill_core::queue::Queue as _;
use hookmill_core::report::Report;
use hookmill_core::request::Coding;
use hookmill_ingress::{DecodeError, Gate, Platform, REPORT_WINDOW, RequestOutcome};
use worker::{Context, Delay, Env, Request, Response, Result, console_error, event};

/// The checked configuration, and random bytes for the hashes of addresses. `cargo xtask build` writes the file.
const BAKED: &[u8] = include_bytes!(env!("HOOKMILL_BAKED"));

/// The maximum size of all bodies in the memory of an isolate, which has 128 MB for all.
const BODY_BYTES: usize = 32 * 1024 * 1024;

thread_local! {
    /// Created by the first request: bindings change only with a deployment, and secrets are bindings.
    static STAGE: OnceCell<Rc<Stage>> = const { OnceCell::new() };
}

/// What requests share.
struct Stage {
    gate: Gate,
    platform: Cloudflare,
}

struct Cloudflare {
    queue: CloudflareQueue,
    objects: R2,
    env: Env,
}

impl Platform for Cloudflare {
    type Queue = CloudflareQueue;
    type Objects = R2;

    fn queue(&self) -> &CloudflareQueue {
        &self.queue
    }

    fn objects(&self) -> &R2 {
        &self.objects
    }

    /// The limiter does not return a delay: after its period, requests are allowed again.
    #[worker::send]
    async fn limited(&self, source: &Source) -> Option<Duration> {
        let RateLimit { per, .. } = source.rate_limit?;
        match limited(&self.env, &source.rate_limit_binding(), &source.name).await {
            Ok(limited) => limited.then_some(per),
            Err(error) => {
                console_error!("the rate limiter failed source={} error={error}", source.name);
                None
            }
        }
    }

    async fn decode(
        &self,
        coding: Coding,
        body: Vec<u8>,
        limit: usize,
    ) -> std::result::Result<Vec<u8>, DecodeError> {
        if !cfg!(feature = "compression") {
            return Err(DecodeError::Malformed);
        }
        decode(coding, &body, limit)
    }

    /// A missing binding would have failed earlier.
    async fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What requests share; the first one creates it.
///
/// # Errors
///
/// If a binding is missing.
fn stage(env: &Env) -> Result<Rc<Stage>> {
    STAGE.with(|stage| {
        if let Some(stage) = stage.get() {
            return Ok(stage.clone());
        }
        let (config, salt): (Ingress, [u8; 16]) =
            postcard::from_bytes(BAKED).expect("xtask wrote it from the same type");
        let platform = Cloudflare {
            queue: CloudflareQueue::new(env, "EVENTS")?,
            objects: R2::new(env, "BODIES")?,
            env: env.clone(),
        };
        let gate = Gate::new(config, salt, BODY_BYTES, |name| secret(env, name));
        Ok(stage.get_or_init(|| Rc::new(Stage { gate, platform })).clone())
    })
}

#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    let stage = stage(&env)?;
    let (response, outcome) = http::serve(&stage.platform, &stage.gate, &request).await?;
    if let Some(entry) = hookmill_ingress::log::entry(&outcome) {
        log(&entry);
    }
    match outcome {
        RequestOutcome::Probe
        | RequestOutcome::Handshake { .. }
        | RequestOutcome::Unavailable { .. } => {}
        RequestOutcome::Accepted { events } => {
            if let Some(first) = events.first() {
                let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
                Metrics::new(&env, "METRICS").count("received", [first.source.as_str()], count);
            }
        }
        RequestOutcome::Rejected { recorded, .. } => {
            if recorded.first {
                context.wait_until(report(stage, env));
            }
        }
    }
    Ok(response)
}

/// Sends the rejections of this isolate since the last report, at the end of the window.
async fn report(stage: Rc<Stage>, env: Env) {
    Delay::from(REPORT_WINDOW).await;
    let reports = stage.gate.rejections().take(now()).iter().map(Report::encode).collect();
    let sent = match CloudflareQueue::new(&env, "REPORTS") {
        Ok(queue) => queue.send(reports).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = sent {
        console_error!("cannot report rejections: {error}");
    }
}
