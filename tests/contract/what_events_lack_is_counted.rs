//! What events have and lack is counted: values whose paths lead nowhere, and API versions.

use hookmill_tests::event::{Event, now, stripe};
use hookmill_tests::{Operator, eventually};
use serde_json::json;

use super::super::platform::Pipeline;
use super::{accepted, tally};

/// An event without a text, whose number is null, with an API version that the source does not expect.
fn lacking(id: &str) -> Event {
    let event = stripe("test.guarded", id, 1, json!({ "id": "a", "number": null }));
    let body = String::from_utf8_lossy(&event.body).replace("2026-10-28.endive", "2020-08-27");
    Event { body: body.into_bytes(), ..event }
}

#[test]
fn a_path_that_leads_nowhere_and_an_unexpected_api_version_are_counted() {
    let pipeline = Pipeline::start();
    let began = now().millis();
    accepted(&pipeline, &lacking("evt_1"));
    pipeline.settle();
    eventually("the counts are written", || {
        pipeline.sql("SELECT 1 FROM rule_counts").first().map(drop)
    });
    let rules = "SELECT rule, rows, json(absent) FROM rule_counts";
    assert_eq!(
        pipeline.sql(rules),
        [[json!("guarded"), json!(1), json!(r#"{"text":1}"#)]],
        "null is a value"
    );

    let operator = Operator::new(pipeline.admin(), "rui", "read", |sql| drop(pipeline.sql(sql)));
    let counts = operator.get("/counts?days=1").json();
    let absent = json!([{ "column": "text", "rows": 1 }]);
    assert_eq!(counts["rules"], json!([{ "rule": "guarded", "rows": 1, "absent": absent }]));
    // The event that marks the end of the queue may be counted too.
    let mut versions = counts["versions"].as_array().unwrap().iter();
    let version = versions.find(|version| version["version"] == "2020-08-27").unwrap();
    assert_eq!(
        (&version["source"], &version["expected"], &version["events"]),
        (&json!("stripe"), &json!(false), &json!(1)),
        "{counts}"
    );
    for at in ["first_at", "last_at"] {
        assert!((began..=now().millis()).contains(&version[at].as_i64().unwrap()), "{counts}");
    }
    assert_eq!(operator.get("/counts?days=91").status, 422);

    let absent = [("rule", "guarded"), ("column", "text")];
    eventually("the metrics say so", || {
        (pipeline.metric("absent_values", &absent) == 1).then_some(())
    });
    assert_eq!(pipeline.metric("absent_values", &[("rule", "guarded"), ("column", "number")]), 0);
    assert_eq!(pipeline.metric("rows", &absent[..1]), 1);
    let version = [("source", "stripe"), ("version", "2020-08-27"), ("expected", "false")];
    assert_eq!(pipeline.metric("api_versions", &version), 1);
    // A process tells once.
    accepted(&pipeline, &lacking("evt_2"));
    pipeline.settle();
    let logs = pipeline.logs();
    let lines = logs.lines().filter(|line| line.contains("an API version that the source"));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("2020-08-27") && lines[0].contains("stripe"), "{lines:?}");
}

#[test]
fn counts_that_cannot_be_written_keep_no_event_from_its_effect() {
    let pipeline = Pipeline::start();
    pipeline.sql("ALTER TABLE rule_counts RENAME TO elsewhere");
    accepted(&pipeline, &super::counted("evt_1", "a", 1));
    pipeline.settle();
    eventually("writing them failed", || {
        pipeline.logs().contains("cannot write the counts").then_some(())
    });
    assert_eq!(tally(&pipeline, "a"), [[1, 1]]);
    assert!(super::dead_letters(&pipeline).is_empty());
    pipeline.sql("ALTER TABLE elsewhere RENAME TO rule_counts");
}
