//! The dead-letter Worker: writes dead letters that the platform gave up, and rejections that ingress reports; runs the
//! admin API and replays.

mod admin;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use hookmill_cloudflare::{Batch, D1, Metrics, log, now};
use hookmill_core::delivery::{Verdict, wakes};
use hookmill_core::report::Report;
use hookmill_core::store::Store as _;
use hookmill_dlq::{drain, drained, record_rejections};
use worker::wasm_bindgen::JsValue;
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::{Env, console_error, js_sys, worker_sys};

/// The delay of reports while the store is unavailable; with `max_retries` of wrangler.toml, ten minutes in total.
const RETRY_REPORTS: Duration = Duration::from_secs(60);

/// Buries a batch, records reports, or runs replays. Exported by hand, for the reasons in the consumer Worker.
///
/// # Errors
///
/// If a binding is missing; the queue delivers the batch again.
#[wasm_bindgen(wasm_bindgen = ::worker::wasm_bindgen, wasm_bindgen_futures = ::worker::wasm_bindgen_futures, js_sys = ::worker::js_sys)]
pub async fn queue(
    event: worker_sys::MessageBatch,
    env: Env,
    _context: worker_sys::Context,
) -> Result<JsValue, JsValue> {
    AssertUnwindSafe(async move {
        let batch = Batch::new(&event)?;
        if wakes(batch.deliveries()) {
            admin::replay(&env).await;
            batch.acknowledge();
            return Ok(JsValue::UNDEFINED);
        }
        let failed = |error: worker::Error| JsValue::from(js_sys::Error::new(&error.to_string()));
        let store = D1::new(&env, "DB").map_err(failed)?;
        // A batch comes from one queue. Every message that is not a report is a dead letter, whatever the queue's name.
        let texts = batch.deliveries().iter().map(|delivery| &delivery.text);
        if let Some(reports) =
            texts.map(|text| Report::decode(text)).collect::<Option<Vec<Report>>>()
        {
            let verdict = match store.execute(record_rejections(&reports, now())).await {
                Ok(_) => {
                    count(&env, &reports);
                    Verdict::Ack
                }
                Err(error) => {
                    console_error!("cannot record rejections: {error}");
                    Verdict::Retry { delay: RETRY_REPORTS }
                }
            };
            for index in 0..reports.len() {
                batch.settle(index, verdict);
            }
            return Ok(JsValue::UNDEFINED);
        }
        let (verdicts, error) = drain(&store, batch.deliveries(), now()).await;
        log(&drained(verdicts.len(), error.as_ref()));
        for (index, verdict) in verdicts.into_iter().enumerate() {
            batch.settle(index, verdict);
        }
        Ok(JsValue::UNDEFINED)
    })
    .await
}

fn count(env: &Env, reports: &[Report]) {
    let mut metrics = Metrics::new(env, "METRICS");
    for tally in reports.iter().flat_map(|report| &report.rejections) {
        let source = tally.source.as_deref().unwrap_or_default();
        let count = u32::try_from(tally.count).unwrap_or(u32::MAX);
        metrics.count("rejections", [source, tally.reason.as_str()], count);
    }
}
