//! A small run of the native benchmark: it completes, and every event takes effect once. Times are ignored.

// A benchmark prints.
#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

mod events;
mod native;
mod server;

use std::path::Path;

#[test]
fn the_native_benchmark_completes_and_applies_every_event_once() {
    let sizes = native::Sizes {
        events: 300,
        rounds: 1,
        connections: 16,
        small: 1_000,
        large: 20_000,
        backlog: 1_000,
    };
    let bare = Path::new(env!("CARGO_BIN_EXE_hookmill-bench"));
    native::run(hookmill_tests::native::binary(), bare, &sizes);
}
