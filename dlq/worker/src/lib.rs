//! The dead-letter Worker: what the platform gave up on becomes a row.

use std::panic::AssertUnwindSafe;

use hookmill_cloudflare::{Batch, D1, now};
use hookmill_dlq::drain;
use worker::wasm_bindgen::JsValue;
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::{Env, console_error, console_warn, js_sys, worker_sys};

/// Buries a batch. Exported by hand, for the reasons given in the consumer Worker.
///
/// # Errors
///
/// If a binding is missing; everything comes again.
#[wasm_bindgen(wasm_bindgen = ::worker::wasm_bindgen, wasm_bindgen_futures = ::worker::wasm_bindgen_futures, js_sys = ::worker::js_sys)]
pub async fn queue(
    event: worker_sys::MessageBatch,
    env: Env,
    _context: worker_sys::Context,
) -> Result<JsValue, JsValue> {
    AssertUnwindSafe(async move {
        let batch = Batch::new(&event)?;
        let failed = |error: worker::Error| JsValue::from(js_sys::Error::new(&error.to_string()));
        let store = D1::new(&env, "DB").map_err(failed)?;
        let (verdicts, error) = drain(&store, batch.deliveries(), now()).await;
        match error {
            Some(error) => {
                console_error!("cannot write dead letters that the queue gave up on: {error}");
            }
            None => console_warn!("buried what the queue gave up on: {}", verdicts.len()),
        }
        batch.settle(&verdicts);
        Ok(JsValue::UNDEFINED)
    })
    .await
}
