//! An unsigned request to a source of any scheme: it is rejected with a short detail.
#![no_main]

use hookmill_core::rejection::Rejection;
use hookmill_core::request::Request;
use hookmill_fuzz::{NOW, Text};
use hookmill_providers::Admitted;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(Text { to, query, headers, body }) = Text::parse(data) else { return };
    for method in ["POST", "GET"] {
        let request = Request { method, query, headers: &headers, body };
        let short = |rejection: Rejection| {
            assert!(rejection.detail.len() < 300, "{}", rejection.detail);
            assert!(!rejection.detail.contains(|c: char| c.is_control()));
        };
        let head = request.head();
        if let Err(rejection) = head.coding(&to.source.compression) {
            short(rejection);
        }
        match to.verifier.challenge(head) {
            Some(Ok(answer)) => {
                assert!(answer.body.len() < 10_000 && !answer.body.contains(char::is_control));
            }
            Some(Err(rejection)) => short(rejection),
            None => {}
        }
        match to.verifier.verify(&request, NOW) {
            Err(rejection) => short(rejection),
            // A token can be guessed; a signature cannot.
            Ok(Admitted::Events(..)) => {
                assert!(["auth0", "token"].contains(&to.source.name.as_str()));
            }
            Ok(Admitted::Handshake(_)) => {}
        }
    }
});
