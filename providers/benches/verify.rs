//! The cost of verifying a full-size Stripe event, relative to the bare HMAC over the same bytes. Run by `cargo xtask
//! bench`.

// A benchmark stops at the first unexpected result.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookmill_config::parse;
use hookmill_core::request::Request;
use hookmill_core::secret::Secret;
use hookmill_core::time::Timestamp;
use hookmill_providers::{UnsignedEvent, Verifier, sign};
use sha2::Sha256;

const SECRET: &str = "whsec_for-the-benchmark";

fn verify(criterion: &mut Criterion) {
    let source = |more: &str| {
        let text = format!("[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:S\"]\n{more}");
        parse("hookmill.toml", &text).unwrap().ingress.sources.remove(0)
    };
    let samples = include_str!("../../hookmill/samples/stripe.json");
    let object = &serde_json::from_str::<serde_json::Value>(samples).unwrap()["subscription"];
    let event = serde_json::json!({ "id": "evt_1", "type": "customer.subscription.updated", "data": { "object": object } });
    // Four kilobytes, like an event with several items.
    let body = format!("{:4096}", event.to_string());
    let at = Timestamp::from_seconds(1_767_225_600);
    let outgoing = UnsignedEvent { id: "", kind: "", at, query: None, body: body.as_bytes() };
    let mut headers = sign(&source(""), &SECRET.into(), outgoing).unwrap().headers;
    headers.push(("X-Event".to_owned(), "evt_1".to_owned()));
    let request = Request { method: "POST", query: None, headers: &headers, body: body.as_bytes() };
    let verifier = |more| Verifier::new(&source(more), |_| Some(Secret::from(SECRET))).unwrap();

    criterion.bench_function("hmac", |bencher| {
        bencher.iter(|| {
            let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
            mac.update(b"1767225600.");
            mac.update(black_box(body.as_bytes()));
            mac.finalize()
        });
    });
    // Only the signature: the body is not read.
    let signature =
        verifier("event = { id = \"header:X-Event\", type = \"header:X-Event\", hash = false }\n");
    criterion.bench_function("signature", |bencher| {
        bencher.iter(|| signature.verify(black_box(&request), at).unwrap());
    });
    let event = verifier("");
    criterion.bench_function("verify", |bencher| {
        bencher.iter(|| event.verify(black_box(&request), at).unwrap());
    });
}

criterion_group!(benches, verify);
criterion_main!(benches);
