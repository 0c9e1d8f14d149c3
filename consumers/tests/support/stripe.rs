//! A batch of events as Stripe sends them, and the preset for them.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hookmill_config::Consumers;
use hookmill_core::delivery::Delivery;
use hookmill_core::message::{BodyForm, Envelope, VERSION, Verified, encode};
use hookmill_core::time::Timestamp;
use serde_json::Value;

/// The preset and a test's own rules, compiled.
pub fn config(rules: &str) -> Consumers {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hookmill.toml");
    let source = "[sources.stripe]\nscheme = 'stripe'\nsecrets = ['env:A']\npreset = 'stripe'\n";
    fs::write(&path, format!("{source}{rules}")).unwrap();
    hookmill_loader::load(&path, &[]).unwrap_or_else(|error| panic!("{error}")).consumers()
}

/// This number of bodies: those of the fixtures in turn, each with its own id.
#[expect(clippy::disallowed_methods, reason = "the fixtures are files")]
pub fn bodies(count: usize) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/stripe");
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let texts: Vec<_> = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let texts = texts.iter().cycle().take(count).enumerate();
    texts.map(|(number, text)| text.replacen("evt_", &format!("evt_{number:04}"), 1)).collect()
}

/// An event as the queue delivers it.
pub fn delivery(body: &str) -> Delivery {
    let event: Value = serde_json::from_str(body).unwrap();
    let text = |key: &str| event[key].as_str().unwrap().to_owned();
    let mut envelope = Envelope {
        v: VERSION,
        source: "stripe".into(),
        id: text("id"),
        kind: text("type"),
        received_at: Timestamp::from_seconds(event["created"].as_i64().unwrap()),
        verified: Verified { secret: 0, signed_at: None },
        generation: 0,
        rules: Vec::new(),
        headers: BTreeMap::new(),
        api_version: None,
        from_api: None,
        body: BodyForm::Text,
    };
    Delivery { attempts: 1, text: encode(&mut envelope, body.as_bytes()) }
}
