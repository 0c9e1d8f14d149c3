//! The native benchmark: ratios between servers that are measured in turn on the same machine, never an absolute rate.
//!
//! `cargo xtask bench` runs `hookmill-bench native HOOKMILL`; `hookmill-bench bare` is the reference.

// A benchmark prints.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::cast_precision_loss)]

mod events;
mod native;
mod server;

use std::path::PathBuf;

use clap::Parser;

/// Measures Hookmill's binary, as `cargo xtask bench native` does.
#[derive(Parser)]
enum Arguments {
    /// Measure a binary against references in the same run
    Native {
        /// The binary.
        hookmill: PathBuf,
        #[command(flatten)]
        sizes: native::Sizes,
    },
    /// Serve a handler that reads the same body and answers 200, on the same HTTP library
    Bare,
}

fn main() {
    match Arguments::parse() {
        Arguments::Native { hookmill, sizes } => {
            let this = std::env::current_exe().expect("this program has a path");
            native::run(&hookmill, &this, &sizes);
        }
        Arguments::Bare => bare(),
    }
}

fn bare() {
    native::runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        println!("{}", listener.local_addr().expect("it listens"));
        let router = axum::Router::new().fallback(|body: axum::body::Bytes| async move {
            std::hint::black_box(&body);
            "{\"accepted\":1}"
        });
        axum::serve(listener, router).await.expect("it serves");
    });
}
