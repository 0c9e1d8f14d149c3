//! The tools of the contract: events, HTTP as bytes, and a pipeline on either platform.

// A test fails by panicking.
#![allow(clippy::missing_panics_doc)]

pub mod access;
pub mod api;
pub mod event;
pub mod http;
pub mod native;
mod operator;
pub mod stranger;
pub mod workers;

pub use operator::Operator;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use hookmill_core::secret::ExposeSecret as _;
use hookmill_providers::development;

/// Waits for a state, never for a duration.
pub fn eventually<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = state() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A fault that a test causes, until the returned value is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The queue accepts nothing.
    Queue,
    /// The store is unavailable.
    Store,
}

/// In the body of an event that ends its consumer, see `Pipeline::survived`.
pub const DEADLY: &str = "deadly";

/// The secrets of the contract's sources. The canary test searches for their text.
pub const STRIPE_SECRET: &str = "whsec_canaryStripe7d1f";
/// The second one, for rotation.
pub const STRIPE_SECRET_NEXT: &str = "whsec_canaryStripeNext9b2c";
/// `canary-of-the-clerk-source` in base64.
pub const CLERK_SECRET: &str = "whsec_Y2FuYXJ5LW9mLXRoZS1jbGVyay1zb3VyY2U=";

/// Resend's key.
pub const RESEND_KEY: &str = "re_canaryResend5e8a";
/// SendGrid's key.
pub const SENDGRID_KEY: &str = "SG.canarySendGrid3c7f";

/// The environment of the pipelines. Sources without a canary have development keys.
pub fn secrets() -> BTreeMap<String, String> {
    let mut secrets: BTreeMap<String, String> = event::sources()
        .flat_map(|source| source.secrets.iter().map(move |secret| (source, &secret.name)))
        .map(|(source, name)| {
            let keys = development(source, name);
            (name.0.clone(), keys.verifying.expose_secret().to_owned())
        })
        .collect();
    for (name, secret) in [
        ("TEST_RESEND_KEY", RESEND_KEY),
        ("TEST_SENDGRID_API_KEY", SENDGRID_KEY),
        ("TEST_MIXPANEL_API_KEY", "mixpanel-canary-2b6d"),
        ("TEST_POSTHOG_API_KEY", "phc_canaryPostHog8f1c"),
        ("TEST_STRIPE_API_KEY", "sk_canary_4e1f"),
        ("TEST_STRIPE_SECRET", STRIPE_SECRET),
        ("TEST_STRIPE_SECRET_NEXT", STRIPE_SECRET_NEXT),
        ("TEST_CLERK_SECRET", CLERK_SECRET),
        ("TEST_META_TOKEN", "meta-canary-6a1d"),
    ] {
        secrets.insert(name.to_owned(), secret.to_owned());
    }
    secrets
}

/// The folder of this package.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A configuration with a source for each preset, with the preset's name.
pub const PRESETS: &str = r#"
[sources.stripe]
scheme = "stripe"
secrets = ["env:SECRET"]
preset = "stripe"

[sources.clerk]
scheme = "clerk"
secrets = ["env:SECRET"]
preset = "clerk"

[sources.paddle]
scheme = "paddle"
secrets = ["env:SECRET"]
preset = "paddle"

[sources.twilio]
scheme = "twilio"
secrets = ["env:SECRET"]
public_url = "https://hooks.example.com/webhooks/twilio"
preset = "twilio"

[sources.resend]
scheme = "resend"
secrets = ["env:SECRET"]
preset = "resend"

[sources.sendgrid]
scheme = "sendgrid"
secrets = ["env:SECRET"]
preset = "sendgrid"

[sources.github]
scheme = "github"
secrets = ["env:SECRET"]
preset = "github"

[sources.shopify]
scheme = "shopify"
secrets = ["env:SECRET"]
preset = "shopify"
"#;

/// The fixtures of a provider, in the order of their names: the path in the provider's folder, and the body.
pub fn fixtures(provider: &str) -> Vec<(String, Vec<u8>)> {
    let mut fixtures = Vec::new();
    read_fixtures(&folder().join("fixtures").join(provider), "", &mut fixtures);
    fixtures.sort();
    fixtures
}

/// Adds the fixtures in a folder and its folders.
fn read_fixtures(folder: &Path, prefix: &str, fixtures: &mut Vec<(String, Vec<u8>)>) {
    for file in folder.read_dir().expect("there are fixtures of this provider") {
        let file = file.expect("the folder can be read");
        let (path, name) = (file.path(), format!("{prefix}{}", file.file_name().display()));
        if path.is_dir() {
            read_fixtures(&path, &format!("{name}/"), fixtures);
        } else {
            fixtures.push((name, std::fs::read(&path).expect("a fixture can be read")));
        }
    }
}
