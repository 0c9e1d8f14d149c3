//! The time to plan a batch of 100 full-size Stripe events, relative to parsing the same bodies into `serde_json::Value`.
//! Run by `cargo xtask bench`. `allocations.rs` counts the allocations of both, since counting takes time.

// A benchmark stops at the first unexpected result.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/stripe.rs"]
mod stripe;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hookmill_core::time::Timestamp;
use serde_json::Value;

fn planning(criterion: &mut Criterion) {
    let (config, bodies) = (stripe::config(""), stripe::bodies(100));
    let batch: Vec<_> = bodies.iter().map(|body| stripe::delivery(body)).collect();
    let now = Timestamp::from_millis(1_767_225_601_000);
    criterion.bench_function("plan", |bencher| {
        bencher.iter(|| hookmill_consumers::plan(&config, black_box(&batch), now));
    });
    criterion.bench_function("value", |bencher| {
        bencher.iter(|| -> Vec<Value> {
            black_box(&bodies).iter().map(|body| serde_json::from_str(body).unwrap()).collect()
        });
    });
}

criterion_group!(benches, planning);
criterion_main!(benches);
