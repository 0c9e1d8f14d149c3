//! Messages on a queue: a readable message is encoded to the same text.
#![no_main]

use hookmill_core::message::{BodyForm, decode, encode};
use hookmill_core::report::Report;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(message) = decode(text)
        && !matches!(message.envelope.body, BodyForm::Object(_))
    {
        let mut envelope = message.envelope.clone();
        let again = encode(&mut envelope, &message.body);
        let again = decode(&again).expect("what was written can be read");
        assert_eq!(again.body, message.body);
        assert_eq!(
            (again.envelope.id, again.envelope.kind),
            (message.envelope.id, message.envelope.kind)
        );
    }
    if let Some(report) = Report::decode(text) {
        assert_eq!(Report::decode(&report.encode()), Some(report));
    }
});
