//! The ingress Worker: `POST /webhooks/{source}` to the queue of events.
//!
//! It carries verification and nothing else: its size is its cold start.

use std::cell::OnceCell;
use std::rc::Rc;

use hookmill_cloudflare::{CloudflareQueue, R2, http, secret};
use hookmill_core::config::Ingress;
use hookmill_ingress::{Gate, Outcome, Platform};
use worker::{Context, Env, Request, Response, Result, console_error, console_warn, event};

/// Checked and written by the build script.
const CONFIG: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/config"));

thread_local! {
    /// Made by the first request: secrets are bindings, and change only with a new deployment.
    static GATE: OnceCell<Rc<Gate>> = const { OnceCell::new() };
}

struct Cloudflare {
    queue: CloudflareQueue,
    objects: R2,
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

    /// A binding that were missing would have failed before this.
    async fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}

fn gate(env: &Env) -> Rc<Gate> {
    GATE.with(|gate| {
        let made = gate.get_or_init(|| {
            let config: Ingress =
                postcard::from_bytes(CONFIG).expect("the build script wrote it from the same type");
            Rc::new(Gate::new(config, |name| secret(env, name)))
        });
        made.clone()
    })
}

#[event(fetch)]
async fn fetch(request: Request, env: Env, _: Context) -> Result<Response> {
    let gate = gate(&env);
    let platform = Cloudflare {
        queue: CloudflareQueue::new(&env, "EVENTS")?,
        objects: R2::new(&env, "BODIES")?,
    };
    let (response, outcome) = http::serve(&platform, &gate, &request).await?;
    match outcome {
        Outcome::Probe | Outcome::Handshake { .. } | Outcome::Accepted { .. } => {}
        Outcome::Rejected { source, rejection } => {
            let source = source.as_deref().unwrap_or("-");
            console_warn!(
                "rejected source={source} reason={} detail={:?}",
                rejection.reason,
                rejection.detail
            );
        }
        Outcome::Unavailable { source, error } => {
            console_error!("not taken source={source} error={error:?}");
        }
    }
    Ok(response)
}
