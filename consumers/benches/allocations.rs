//! Allocations while planning a batch of 100 full-size Stripe events, relative to parsing the same bodies into
//! `serde_json::Value`. Run by `cargo xtask bench`.

// A benchmark stops at the first unexpected result, and prints it.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/support/stripe.rs"]
mod stripe;

use allocation_counter::measure;
use hookmill_core::time::Timestamp;
use serde_json::Value;

fn main() {
    let (config, bodies) = (stripe::config(""), stripe::bodies(100));
    let batch: Vec<_> = bodies.iter().map(|body| stripe::delivery(body)).collect();
    let now = Timestamp::from_millis(1_767_225_601_000);
    let planned = measure(|| drop(hookmill_consumers::plan(&config, &batch, now)));
    let parsed = measure(|| {
        let values: Vec<Value> =
            bodies.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        drop(values);
    });
    for (what, planned, parsed) in [
        ("allocations", planned.count_total, parsed.count_total),
        ("bytes allocated", planned.bytes_total, parsed.bytes_total),
    ] {
        println!(
            "{what} for an event: {} to plan it, {} to parse its body into serde_json::Value: {:.2}",
            planned / 100,
            parsed / 100,
            as_f64(planned) / as_f64(parsed)
        );
    }
}

fn as_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}
