//! An event that failed and will be tried again is visible: its error with the rule that failed, and its next attempt. After
//! it is applied, the failed attempts are in its history.

use hookmill_tests::event::{Event, stripe};
use hookmill_tests::{Operator, eventually};
use serde_json::{Value, json};

use super::super::platform::Pipeline;
use super::{accepted, dead_letters};

/// An event for a rule whose table a test takes away.
fn fleeting(id: &str) -> Event {
    stripe("test.fleeting", id, 1, json!({ "id": id }))
}

#[test]
fn an_event_that_is_being_retried_is_visible() {
    let pipeline = Pipeline::start();
    let reader = Operator::new(pipeline.admin(), "reader", "read", |sql| {
        pipeline.sql(sql);
    });
    let get = |path: &str| -> Value {
        let answer = reader.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    };
    pipeline.sql("ALTER TABLE fleeting RENAME TO elsewhere");
    let mut sent = 0;
    // On a slow machine, the event may be a dead letter before the API has answered. Then another one follows.
    let (listed, page, stats) = eventually("an event is being retried", || {
        if dead_letters(&pipeline).len() == sent {
            sent += 1;
            accepted(&pipeline, &fleeting(&format!("evt_{sent}")));
        }
        let page = reader.get(&format!("/events/stripe/evt_{sent}"));
        let page: Value = serde_json::from_str(&page.body).unwrap();
        let listed = get("/events?state=retrying")["items"].get(0)?.clone();
        let stats = get("/stats");
        let still = get("/events?state=retrying")["items"].get(0)?.clone();
        (still == listed && page["next_attempt_at"].is_i64()).then_some((listed, page, stats))
    });
    // D1 adds its own words.
    let tells = |error: &Value| {
        let error = error.as_str().unwrap_or_default();
        error.starts_with("rule `fleeting`: ") && error.contains("no such table: fleeting")
    };
    assert!(tells(&listed["error"]), "{listed}");
    assert_eq!(
        (&listed["id"], &listed["state"]),
        (&json!(format!("evt_{sent}")), &json!("retrying"))
    );
    assert!(listed["attempts"].as_u64() >= Some(1), "{listed}");
    assert!(listed["next_attempt_at"].as_i64() > listed["settled_at"].as_i64(), "{listed}");
    let steps = |page: &Value| -> Vec<String> {
        let steps = page["steps"].as_array().unwrap();
        steps.iter().map(|step| step["what"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(steps(&page)[..2], ["received", "attempt failed"]);
    assert!(tells(&page["steps"][1]["detail"]["error"]), "{page}");
    assert_eq!(stats["retrying"]["events"], 1);
    assert!(tells(&stats["retrying"]["error"]), "{stats}");
    let events = &stats["queues"][0];
    // Cloudflare's local queue does not count messages that wait for a delay.
    assert_eq!(events["queue"], "events", "{stats}");
    assert!(events["messages"].as_u64() <= Some(1), "{stats}");

    let none_waits = || {
        eventually("no event waits", || {
            (get("/events?state=retrying")["items"] == json!([])).then_some(())
        });
        pipeline.settle();
    };
    pipeline.sql("ALTER TABLE elsewhere RENAME TO fleeting");
    none_waits();
    // Another one is applied at its second attempt, unless the machine is so slow that it has become a dead letter.
    let mut tries = 0;
    let page = eventually("an event is applied after a failed attempt", || {
        tries += 1;
        let id = format!("evt_applied_{tries}");
        pipeline.sql("ALTER TABLE fleeting RENAME TO elsewhere");
        accepted(&pipeline, &fleeting(&id));
        eventually("the attempt has failed", || {
            let failed = format!("SELECT 1 FROM retries WHERE id = '{id}' AND attempts > 0");
            (!pipeline.sql(&failed).is_empty()).then_some(())
        });
        pipeline.sql("ALTER TABLE elsewhere RENAME TO fleeting");
        none_waits();
        let page = get(&format!("/events/stripe/{id}"));
        (steps(&page).last()? == "applied").then_some(page)
    });
    assert_eq!(steps(&page)[..2], ["received", "attempt failed"], "{page}");
    assert_eq!(page["next_attempt_at"], Value::Null);
    let stats = get("/stats");
    assert_eq!(stats["retrying"]["events"], 0);
    assert_eq!(stats["queues"][0], json!({ "queue": "events", "messages": 0, "oldest": null }));
}
