//! A configuration: every error has a location, and an accepted source can sign and verify.
#![no_main]

use hookmill_config::parse;
use hookmill_core::rejection::Reason;
use hookmill_core::request::Request;
use hookmill_fuzz::{NOW, Prepared};
use hookmill_providers::{UnsignedEvent, sign};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let parsed = parse("hookmill.toml", text);
    let lines = text.lines().count().max(1);
    for fault in parsed.as_ref().err().into_iter().flatten() {
        // What is overridden may disagree with the file of its scheme, and has its place there.
        let own = &*fault.at.file == "hookmill.toml";
        assert!(!own || (1..=lines + 1).contains(&fault.at.line), "{fault}");
        assert!(!fault.problem.is_empty());
    }
    let Ok(config) = parsed else { return };
    for source in config.ingress.sources {
        let prepared = Prepared::new(source);
        let body = br#"{"id":"evt_1","type":"kind"}"#;
        let event = UnsignedEvent { id: "msg_1", kind: "kind", at: NOW, query: None, body };
        let Ok(signed) = sign(&prepared.source, &prepared.signing, event) else { continue };
        let request =
            Request { method: "POST", query: None, headers: &signed.headers, body: &signed.body };
        if let Err(rejection) = prepared.verifier.verify(&request, NOW) {
            assert_eq!(rejection.reason, Reason::MalformedEvent, "{}", rejection.detail);
        }
    }
});
