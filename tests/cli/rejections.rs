//! `hookmill rejections`.

use hookmill_tests::http::{exchange, request};
use serde_json::Value;

use crate::{Dev, hookmill, shown, with_example};

#[test]
fn rejected_requests_are_listed() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    let address = dev.address;
    let refused =
        |path: &str| exchange(address, &request("POST", path, &[], b"{}")).unwrap().status;
    assert_eq!(
        shown(example.path(), &["rejections"]),
        "exit code 0\n--- stdout\n--- stderr\nno rejected requests\n"
    );
    assert_eq!((refused("/webhooks/stripe"), refused("/webhooks/nobody")), (401, 404));
    // At its end, the process records the counts.
    dev.stop();
    let output = hookmill(example.path(), &["rejections", "--json"]);
    let mut found: Value = serde_json::from_slice(&output.stdout).unwrap();
    for request in found["requests"].as_array_mut().unwrap() {
        assert!(request["at"].is_i64() && request["remote"].as_str().unwrap().len() == 16);
        request["at"] = Value::Null;
        request["remote"] = Value::Null;
    }
    found["requests"].as_array_mut().unwrap().sort_by_key(|request| request["reason"].to_string());
    insta::assert_json_snapshot!(found, @r#"
    {
      "counts": [
        {
          "reason": "unknown_source",
          "requests": 1,
          "source": ""
        },
        {
          "reason": "missing_header",
          "requests": 1,
          "source": "stripe"
        }
      ],
      "requests": [
        {
          "at": null,
          "body_bytes": null,
          "content_length": 2,
          "detail": "Stripe-Signature is missing",
          "reason": "missing_header",
          "remote": null,
          "source": "stripe"
        },
        {
          "at": null,
          "body_bytes": null,
          "content_length": 2,
          "detail": "no source of this name is configured",
          "reason": "unknown_source",
          "remote": null,
          "source": ""
        }
      ]
    }
    "#);
    let output = hookmill(example.path(), &["rejections", "--source", "stripe"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("missing_header") && !text.contains("unknown_source"), "{text}");
    let output = hookmill(example.path(), &["rejections", "--source", "-"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("missing_header") && text.contains("unknown_source"), "{text}");
}
