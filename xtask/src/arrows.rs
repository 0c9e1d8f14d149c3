//! The dependencies between crates, as in ARCHITECTURE.md.

use serde_json::Value;

use crate::shell::{cargo, output};

/// The crates by layer, the lowest first. A crate depends only on crates of lower layers.
const LAYERS: [&[&str]; 7] = [
    &["hookmill-core", "hookmill-keys"],
    &["hookmill-rules", "hookmill-migrations"],
    &["hookmill-config", "hookmill-handlers"],
    &["hookmill-dlq", "hookmill-providers"],
    &["hookmill-consumers", "hookmill-admin", "hookmill-ingress"],
    &["hookmill-native", "hookmill-cloudflare", "hookmill-loader"],
    &["hookmill", "hookmill-ingress-worker", "hookmill-consumers-worker", "hookmill-dlq-worker"],
];

/// Crates that test and build the others.
const OUTSIDE: [&str; 3] = ["hookmill-tests", "hookmill-fuzz", "xtask"];

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|crates| crates.contains(&name))
}

#[test]
fn crates_depend_only_on_lower_layers() {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]));
    let metadata: Value = serde_json::from_str(&metadata.expect("cargo runs")).expect("JSON");
    let mut arrows = 0;
    for package in metadata["packages"].as_array().expect("a list") {
        let name = package["name"].as_str().expect("a name");
        if OUTSIDE.contains(&name) {
            continue;
        }
        let own = layer(name).unwrap_or_else(|| panic!("{name} has no layer: add it to LAYERS"));
        for dependency in package["dependencies"].as_array().expect("a list") {
            let on = dependency["name"].as_str().expect("a name");
            let of_tests = dependency["kind"] == "dev";
            if let Some(lower) = layer(on).filter(|_| !of_tests) {
                assert!(lower < own, "{name} depends on {on}, which is not of a lower layer");
                arrows += 1;
            }
        }
    }
    assert!(arrows > LAYERS.len(), "cargo lists dependencies");
}
