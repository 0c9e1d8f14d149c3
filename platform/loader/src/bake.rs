//! The functions of the Workers' build scripts. Each checks hookmill.toml and writes the part that its Worker contains, so
//! that a Worker parses no TOML and compiles no rules. The format is postcard, which takes less code to read than JSON: an
//! ingress Worker's size determines its cold start. A configuration with errors fails the build.
//!
//! The file is `hookmill.toml` beside the workspace's `Cargo.lock`, or the one that `HOOKMILL_CONFIG` names.

// A build script talks to cargo by printing.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::exit;

use serde::Serialize;

use crate::{Loaded, load, wrangler};

/// For the ingress Worker: `OUT_DIR/config`, a [`hookmill_config::Ingress`], and `OUT_DIR/salt`, 16 random bytes for
/// the hashes of addresses.
///
/// The features of the Worker's package have to be those that the configuration needs.
pub fn ingress() {
    let config = checked().config;
    require(config.features_of_ingress(), "ingress");
    write("config", &serialised(&config.ingress));
    let mut salt = [0; 16];
    if let Err(error) = getrandom::fill(&mut salt) {
        eprintln!("the system gives no random numbers: {error}");
        exit(1);
    }
    write("salt", &salt);
}

/// Fails the build if the Worker's package lacks a feature that the configuration needs.
fn require(features: BTreeSet<&str>, worker: &str) {
    let is_missing =
        |name: &&str| env::var_os(format!("CARGO_FEATURE_{}", name.to_uppercase())).is_none();
    if let Some(missing) = features.into_iter().find(is_missing) {
        eprintln!(
            "hookmill.toml needs the feature `{missing}` of this package: `cargo xtask build {worker}` sets it"
        );
        exit(1);
    }
}

/// For the consumer Worker: `OUT_DIR/config`, a [`hookmill_config::Consumers`].
pub fn consumers() {
    let loaded = checked();
    if let Some(fault) = wrangler::check_provider(&loaded.config) {
        eprintln!("{fault}");
        exit(1);
    }
    require(loaded.config.features_of_consumers(), "consumers");
    write("config", &serialised(&loaded.consumers()));
}

/// For the dead-letter Worker: `OUT_DIR/config`, a [`hookmill_config::Admin`].
pub fn dlq() {
    write("config", &serialised(&checked().admin()));
}

fn checked() -> Loaded {
    let path = env::var_os("HOOKMILL_CONFIG")
        .map_or_else(|| workspace().join("hookmill.toml"), PathBuf::from);
    println!("cargo::rerun-if-env-changed=HOOKMILL_CONFIG");
    println!("cargo::rerun-if-changed={}", path.display());
    match load(&path, &hookmill_handlers::names()) {
        Ok(loaded) => {
            if let Some(folder) = &loaded.config.migrations {
                let folder = path.parent().unwrap_or(Path::new("")).join(&folder.value);
                println!("cargo::rerun-if-changed={}", folder.display());
            }
            for files in loaded.config.templates.values() {
                for file in [&files.html, &files.text].into_iter().flatten() {
                    let file = path.parent().unwrap_or(Path::new("")).join(&file.value);
                    println!("cargo::rerun-if-changed={}", file.display());
                }
            }
            loaded
        }
        Err(error) => {
            eprintln!("error: {error}");
            exit(1);
        }
    }
}

/// The folder of the workspace: the nearest one above that has a Cargo.lock.
fn workspace() -> PathBuf {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = package.ancestors().find(|folder| folder.join("Cargo.lock").exists());
    root.map_or(package.clone(), Path::to_owned)
}

fn serialised(config: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(config).expect("a checked configuration serialises")
}

fn write(name: &str, bytes: &[u8]) {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join(name);
    if let Err(error) = fs::write(&out, bytes) {
        eprintln!("cannot write {}: {error}", out.display());
        exit(1);
    }
}
