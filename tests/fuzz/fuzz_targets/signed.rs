//! A signed request: its signature is valid for any body, and an accepted event is usable.
#![no_main]

use hookmill_config::scheme::{Part, Scheme};
use hookmill_core::limits::{NAME_BYTES, REQUEST_EVENTS};
use hookmill_core::rejection::Reason;
use hookmill_core::request::Request;
use hookmill_fuzz::{NOW, Text};
use hookmill_providers::{Admitted, UnsignedEvent, sign};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fuzz_target!(|data: &[u8]| {
    let Some(Text { to, query, body, .. }) = Text::parse(data) else { return };
    let event = UnsignedEvent { id: "msg_1", kind: "kind", at: NOW, query, body };
    // A body that is neither a form nor JSON cannot be signed if it contains the signature.
    let Ok(signed) = sign(&to.source, &to.signing, event) else { return };
    let verify = |body: &[u8]| {
        let request = Request { method: "POST", query, headers: &signed.headers, body };
        to.verifier.verify(&request, NOW).map(|admitted| match admitted {
            Admitted::Events(_, events) => {
                assert!(events.len() <= REQUEST_EVENTS);
                for event in &events {
                    assert!((1..=NAME_BYTES).contains(&event.id.len()), "{:?}", event.id);
                    assert!((1..=NAME_BYTES).contains(&event.kind.len()), "{:?}", event.kind);
                    // A part of a body, or a converted form, is JSON; a whole body is unchanged.
                    if *event.body != *body {
                        serde_json::from_slice::<&RawValue>(&event.body).expect("it is JSON");
                    }
                }
            }
            Admitted::Handshake(_) => {}
        })
    };
    if let Err(rejection) = verify(&signed.body) {
        assert_eq!(rejection.reason, Reason::MalformedEvent, "{}", rejection.detail);
    }

    let whole = match &to.source.scheme {
        Scheme::Template(template) => template.payload.contains(&Part::Body),
        Scheme::StandardWebhooks { .. } => true,
        // For forms, the fields are signed, which have several spellings.
        Scheme::Twilio | Scheme::PaddleClassic => false,
    };
    if whole && !signed.body.is_empty() {
        let mut changed = signed.body.clone();
        let place = data.iter().map(|byte| usize::from(*byte)).sum::<usize>();
        let length = changed.len();
        changed[place % length] ^= 1 << (place % 8);
        let rejection = verify(&changed).expect_err("one bit is another");
        assert!(
            [Reason::NoMatchingSignature, Reason::MalformedEvent].contains(&rejection.reason),
            "{rejection:?}"
        );
    }
});
