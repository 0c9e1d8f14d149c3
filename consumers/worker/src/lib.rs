//! The consumer Worker: applies the queue of events to D1, and sends the outbox to providers.

mod background;

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use hookmill_cloudflare::{Batch, D1, Metrics, R2, log, now};
use hookmill_config::Consumers;
use hookmill_consumers::counters::{Counters, VersionCount};
use hookmill_consumers::log::entry;
use hookmill_consumers::{BatchResult, Count, Fate, Settled, counts, process_batch};
use hookmill_core::delivery::{Delivery, wakes};
use hookmill_core::log::{Entry, Fields};
use worker::wasm_bindgen::JsValue;
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::{Env, ScheduleContext, ScheduledEvent, console_log, event, js_sys, worker_sys};

/// The checked and compiled configuration. `cargo xtask build` writes the file.
const BAKED: &[u8] = include_bytes!(env!("HOOKMILL_BAKED"));

/// The counts of this isolate that are not written yet.
static COUNTERS: Counters = Counters::new();

thread_local! {
    static CONSUMERS: OnceCell<Rc<Consumers>> = const { OnceCell::new() };
}

fn config() -> Rc<Consumers> {
    CONSUMERS.with(|config| {
        let parse = || postcard::from_bytes(BAKED).expect("xtask wrote it from the same type");
        config.get_or_init(|| Rc::new(parse())).clone()
    })
}

/// Applies a batch, or sends the messages of the outbox. Exported by hand: `#[event(queue)]` hides the number of attempts,
/// and turns an error into a panic.
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
            background::ask_apis(&env, &config()).await;
            background::send(&env, &config()).await;
            batch.acknowledge();
            return Ok(JsValue::UNDEFINED);
        }
        let failed = |error: worker::Error| JsValue::from(js_sys::Error::new(&error.to_string()));
        let store = D1::new(&env, "DB").map_err(failed)?;
        let objects = R2::new(&env, "BODIES").map_err(failed)?;
        let config = config();
        let on_settled = |index: usize, settled: &Settled| batch.settle(index, settled.verdict);
        let result =
            process_batch(&store, &objects, &config, batch.deliveries(), now(), on_settled).await;
        COUNTERS.add(&config, &result).iter().for_each(log);
        let BatchResult { settled, due_at, .. } = result;
        log_batch(batch.deliveries(), &settled);
        let mut metrics = Metrics::new(&env, "METRICS");
        for Count { source, secret, fate, deliveries } in counts(&settled) {
            let secret = secret.map(|secret| secret.to_string()).unwrap_or_default();
            metrics.count("deliveries", [source, &secret, fate], deliveries);
        }
        if let Some(due_at) = due_at {
            background::wake(&env, due_at + config.shortest_wait()).await;
        }
        write_counts(&store, &config, &mut metrics).await;
        Ok(JsValue::UNDEFINED)
    })
    .await
}

/// Writes the counts of this isolate, once a minute. An invocation has few data points, so the metrics have what fits, the
/// most notable first; the database has all.
async fn write_counts(store: &D1, config: &Consumers, metrics: &mut Metrics) {
    if !COUNTERS.due(now()) {
        return;
    }
    let counts = match COUNTERS.write(store, config, now()).await {
        Ok(counts) => counts,
        Err(error) => {
            let fields = Fields { error: Some(error.to_string()), ..Fields::default() };
            let message =
                "cannot write the counts of rows and API versions; will retry in a minute";
            return log(&Entry::error(message, fields));
        }
    };
    let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    for VersionCount { source, version, expected, events } in counts.versions(config) {
        let expected = if expected { "true" } else { "false" };
        metrics.count("api_versions", [source, version, expected], number(events));
    }
    let mut rows: Vec<_> = counts.rows.by_name(&config.program).collect();
    rows.sort_by_key(|(_, value, count)| (value.is_none(), Reverse(*count)));
    for (rule, value, count) in rows {
        match value {
            Some(value) => metrics.count("absent_values", [rule, value], number(count)),
            None => metrics.count("rows", [rule], number(count)),
        }
    }
}

/// Sends alerts, and does work that no message woke this Worker for: messages that are due later, and work of processes
/// that ended.
#[event(scheduled)]
async fn scheduled(_event: ScheduledEvent, env: Env, _context: ScheduleContext) {
    let config = config();
    AssertUnwindSafe(background::watch_over(&env, &config)).await;
    AssertUnwindSafe(background::ask_apis(&env, &config)).await;
    AssertUnwindSafe(background::send(&env, &config)).await;
}

/// One line for the batch, and one for each delivery that was not simply applied.
fn log_batch(deliveries: &[Delivery], settled: &[Settled]) {
    let mut applied = 0;
    for (delivery, settled) in deliveries.iter().zip(settled) {
        if matches!(settled.fate, Fate::Applied | Fate::Recorded | Fate::Ignored) {
            applied += 1;
            continue;
        }
        log(&entry(delivery.attempts, settled));
    }
    console_log!("batch deliveries={} applied={applied}", deliveries.len());
}
