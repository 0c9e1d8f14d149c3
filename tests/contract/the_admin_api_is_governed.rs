//! Without a token, a request learns and changes nothing; every change is recorded with its actor and reason.

use hookmill_tests::api::{Api, Mood};
use hookmill_tests::event::{mailgun, now, stripe};
use hookmill_tests::http::{exchange, request};
use hookmill_tests::{Operator, eventually};
use serde_json::{Value, json};

use super::{accepted, counted, guarded, value};
use crate::platform::Pipeline;

fn operator(pipeline: &Pipeline, role: &str) -> Operator {
    Operator::new(pipeline.admin(), role, role, |sql| {
        pipeline.sql(sql);
    })
}

#[test]
fn requests_without_a_token_learn_and_change_nothing() {
    let pipeline = Pipeline::start();
    let reader = operator(&pipeline, "read");
    let stranger = Operator::stranger(pipeline.admin());
    for path in ["/events", "/stats", "/dead-letters", "/nothing", "/replays/x"] {
        let answer = stranger.get(path);
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(reader.get("/stats").status, 200);
    // No cache keeps an answer, whatever its status.
    for answer in [reader.get("/stats"), reader.get("/nothing"), stranger.get("/stats")] {
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{}", answer.status);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let wrong = operator(&pipeline, "operate").post("/stats", &json!({}));
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET,HEAD")));
    assert_eq!(wrong.header("content-type"), Some("application/problem+json"));
    // A token with the role `read` changes nothing.
    for (path, body) in [
        ("/replays", json!({ "all": true })),
        ("/dead-letters/x/discard", json!({ "reason": "x" })),
        ("/outbox/retry", json!({ "state": "refused", "reason": "x" })),
    ] {
        assert_eq!(reader.post(path, &body).status, 403, "{path}");
    }
    // None of these requests reached the database.
    assert_eq!(pipeline.sql("SELECT count(*) FROM admin_failures"), [[0]]);
    let guesser = Operator::guesser(pipeline.admin());
    assert_eq!(guesser.get("/stats").status, 401);
    assert_eq!(pipeline.sql("SELECT failures FROM admin_failures"), [[1]]);
    // A block does not last until tomorrow because the clock was ahead.
    pipeline.sql("UPDATE admin_failures SET failures = 10, since = since + 86400000");
    assert_eq!(guesser.get("/stats").status, 401);
    // After more failures the address must wait; a valid token still passes.
    let told = (0..20).map(|_| guesser.get("/stats")).find(|answer| answer.status == 429).unwrap();
    assert!(told.header("retry-after").is_some());
    assert_eq!(guesser.get("/stats").status, 429, "from memory");
    let failed = "SELECT detail FROM audit WHERE action = 'login.fail' ORDER BY id";
    let failures = [1, 1, 10].map(|failures| [format!("{{\"failures\":{failures}}}")]);
    assert_eq!(json!(pipeline.sql(failed)), json!(failures));
    assert_eq!(reader.get("/stats").status, 200);
    assert_eq!(stranger.get("/stats").status, 401);
    let changes = "SELECT count(*) FROM audit WHERE action <> 'login.fail'";
    assert_eq!(pipeline.sql(changes), [[0]]);
    // The document contains no data.
    let document =
        exchange(pipeline.admin(), &request("GET", "/admin/api/v1/openapi.json", &[], b""))
            .unwrap();
    assert_eq!((document.status, &document.json()["openapi"]), (200, &"3.1.0".into()));
}

#[test]
fn a_dead_letter_is_shown_with_its_body_and_discarded_with_a_reason() {
    let pipeline = Pipeline::start();
    let operator = operator(&pipeline, "operate");
    let event = guarded("evt_1", "a", 1, &json!(-1));
    accepted(&pipeline, &event);
    accepted(&pipeline, &guarded("evt_2", "b", 1, &json!(-2)));
    let letters = eventually("both are dead", || {
        let letters =
            operator.get("/dead-letters?source=stripe&type=test.*").json()["items"].clone();
        (letters.as_array()?.len() == 2).then_some(letters)
    });
    let groups = operator.get("/dead-letters/groups").json();
    assert_eq!(groups.as_array().map(Vec::len), Some(1), "{groups}");
    assert_eq!((&groups[0]["count"], &groups[0]["sources"]), (&2.into(), &json!(["stripe"])));
    let letter =
        letters.as_array().unwrap().iter().find(|letter| letter["event_id"] == "evt_1").unwrap();
    let path = format!("/dead-letters/{}", letter["id"].as_str().unwrap());
    let whole = operator.get(&path).json();
    assert_eq!(whole["body"], std::str::from_utf8(&event.body).unwrap());
    assert_eq!(whole["body_form"], "text");
    // A page at a time.
    let page = operator.get("/dead-letters?limit=1").json();
    let next = operator
        .get(&format!("/dead-letters?limit=1&cursor={}", page["next"].as_str().unwrap()))
        .json();
    assert_ne!(page["items"][0]["id"], next["items"][0]["id"]);
    assert_eq!(next.get("next"), None);
    // A reason is required.
    for body in
        [json!({}), json!({ "reason": " " }), json!({ "reason": "x", "other": 1 }), json!([])]
    {
        let refused = operator.post(&format!("{path}/discard"), &body);
        assert_eq!(refused.status, 422, "{body}: {}", refused.body);
    }
    let because = json!({ "reason": "a test of theirs" });
    assert_eq!(operator.post(&format!("{path}/discard"), &because).status, 204);
    assert_eq!(operator.post(&format!("{path}/discard"), &because).status, 409);
    assert_eq!(operator.post(&format!("{path}/replay"), &because).status, 409);
    assert_eq!(operator.get("/dead-letters/nothing").status, 404);
    assert_eq!(operator.get("/dead-letters").json()["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(operator.get("/stats").json()["dead_letters"]["dead"], 1);
    let acts = operator.get("/audit").json()["items"].clone();
    let expected = json!([
        { "action": "letter.discard", "actor": "operate", "reason": "a test of theirs" },
        { "action": "body.view", "actor": "operate", "reason": "" },
    ]);
    let shown = |act: &Value| json!({ "action": act["action"], "actor": act["actor"], "reason": act["reason"] });
    assert_eq!(acts.as_array().unwrap().iter().map(shown).collect::<Value>(), expected);
    let timeline = operator.get("/events/stripe/evt_1").json();
    let steps = timeline["steps"].as_array().unwrap().iter().map(|step| step["what"].clone());
    assert_eq!(steps.collect::<Vec<_>>(), ["received", "failed", "letter.discard"]);
}

#[test]
fn an_event_is_found_with_its_timeline() {
    let pipeline = Pipeline::start();
    let reader = operator(&pipeline, "read");
    // One after the other: two consumers may apply them in any order.
    for id in ["evt_1", "evt_2"] {
        accepted(&pipeline, &counted(id, "a", 1));
        pipeline.settle();
    }
    let found = eventually("both are found", || {
        let found = reader.get("/events?type=test.counted&state=applied").json()["items"].clone();
        (found.as_array()?.len() == 2).then_some(found)
    });
    assert_eq!(found[0]["source"], "stripe");
    assert_eq!(reader.get("/events?source=stripe&id=evt_1").json()["items"], json!([found[1]]));
    // With `since`, the earliest come first, a page at a time, without gaps or repetitions.
    let since = |at: i64| format!("/events?since={at}&limit=1");
    let (first, last) =
        (found[1]["settled_at"].as_i64().unwrap(), found[0]["settled_at"].as_i64().unwrap());
    let page = reader.get(&since(first)).json();
    let cursor = page["next"].as_str().unwrap();
    let next = reader.get(&format!("{}&cursor={cursor}", since(first))).json();
    assert_eq!((&page["items"], &next["items"]), (&json!([found[1]]), &json!([found[0]])));
    assert_eq!(next.get("next"), None);
    assert_eq!(reader.get(&since(last + 1)).json()["items"], json!([]));
    let timeline = reader.get("/events/stripe/evt_1").json();
    let steps = timeline["steps"].as_array().unwrap().iter().map(|step| step["what"].clone());
    assert_eq!(steps.collect::<Vec<_>>(), ["received", "applied"]);
    assert_eq!(timeline["steps"][0]["detail"]["secret"], 0);
    assert_eq!(reader.get("/events/stripe/evt_0").status, 404);
    // Only `*` is special in a pattern.
    for (pattern, count) in [("test.*", 2), ("*count*", 2), ("[t]est.*", 0), ("t?st.*", 0)] {
        let pattern = pattern.replace('[', "%5B").replace(']', "%5D").replace('?', "%3F");
        let found = reader.get(&format!("/events?type={pattern}&id=evt_1")).json();
        let others = reader.get(&format!("/events?type={pattern}&id=evt_2")).json();
        let found = [found, others].map(|page| page["items"].as_array().map_or(0, Vec::len));
        assert_eq!(found.iter().sum::<usize>(), count, "{pattern}");
    }
    let long = format!("/events?type={}*", "x".repeat(50));
    let exact = format!("/events?type={}", "x".repeat(60));
    assert_eq!(reader.get(&exact).status, 200, "only patterns have to be short");
    for wrong in [&long, &long.replace("events", "dead-letters")] {
        assert_eq!(reader.get(wrong).status, 422, "{wrong}");
    }
    for wrong in [
        "/events?state=bogus",
        "/dead-letters?state=bogus",
        "/dead-letters/groups?reason=bogus",
        "/outbox?channel=bogus",
    ] {
        let answer = reader.get(wrong);
        assert_eq!(answer.status, 422, "{wrong}");
        assert!(answer.body.contains("use one of"), "{}", answer.body);
    }
    for wrong in ["/events?limit=0", "/events?limit=x", "/events?cursor=%00", "/stats?minutes=0"] {
        assert_eq!(reader.get(wrong).status, 422, "{wrong}");
    }
    for state in ["applied", "recorded", "dead", "replaying", "replayed", "discarded"] {
        let found = reader.get(&format!("/events?state={state}"));
        assert_eq!(found.status, 200, "{state}: {}", found.body);
        let items = found.json()["items"].clone();
        assert!(items.as_array().unwrap().iter().all(|event| event["state"] == state), "{items}");
    }
    // A blank filter counts as absent.
    for blank in ["/events?state=&source=&id=", "/events?source=&id=&type=", "/dead-letters?state="]
    {
        let path = blank.split('?').next().unwrap();
        assert_eq!(reader.get(blank).json()["items"], reader.get(path).json()["items"], "{blank}");
    }
    let activity = reader.get("/stats").json()["activity"].clone();
    let events: u64 =
        activity.as_array().unwrap().iter().filter_map(|minute| minute["events"].as_u64()).sum();
    assert!(events >= 2, "{activity}");
}

#[test]
fn an_operator_can_lift_a_suppression() {
    let pipeline = Pipeline::start();
    let operator = operator(&pipeline, "operate");
    pipeline.sql("INSERT INTO suppressions (address, reason, source, event_id, version, created_at) VALUES ('a@example.com', 'bounced', 'resend', 'msg_1', 1, 1)");
    pipeline.sql("INSERT INTO group_suppressions (address, group_id, reason, source, event_id, version, created_at) VALUES ('a@example.com', 'news', 'unsubscribed', 'sendgrid', 'sg_1', 1, 2), ('b@example.com', 'news', 'unsubscribed', 'sendgrid', 'sg_2', 1, 2)");
    let listed = || {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = operator.get(&format!("/suppressions?limit=1&cursor={cursor}")).json();
            let one = |one: &Value| (one["address"].clone(), one["group"].clone());
            found.extend(page["items"].as_array().unwrap().iter().map(one));
            let Some(next) = page["next"].as_str() else { return json!(found) };
            cursor = next.to_owned();
        }
    };
    let all =
        json!([["b@example.com", "news"], ["a@example.com", "news"], ["a@example.com", null]]);
    assert_eq!(listed(), all);
    let because = json!({ "reason": "they have a new mailbox" });
    assert_eq!(operator.delete("/suppressions/A%40example.com", &because).status, 204);
    assert_eq!(operator.delete("/suppressions/a@example.com", &because).status, 404);
    assert_eq!(listed(), json!([["b@example.com", "news"], ["a@example.com", "news"]]));
    assert_eq!(operator.delete("/suppressions/a@example.com?group=other", &because).status, 404);
    assert_eq!(operator.delete("/suppressions/a@example.com?group=news", &because).status, 204);
    assert_eq!(listed(), json!([["b@example.com", "news"]]));
    let acts = operator.get("/audit").json()["items"].clone();
    assert_eq!(
        (&acts[0]["action"], &acts[0]["target"], &acts[0]["detail"]["group"]),
        (&"suppression.remove".into(), &"a@example.com".into(), &"news".into())
    );
    assert_eq!(acts.as_array().map(Vec::len), Some(2));
}

#[test]
fn redacted_values_are_hidden_and_replayed() {
    let pipeline = Pipeline::start();
    let operator = operator(&pipeline, "operate");
    let person = json!({ "id": "a", "name": "Ada", "to": [{ "email": "ada@example.com" }] });
    let event = stripe("test.unheard.of", "evt_1", 1, person).to("strict");
    accepted(&pipeline, &event);
    let id = eventually("it is dead", || {
        let letters = operator.get("/dead-letters?source=strict").json()["items"].clone();
        Some(letters[0]["id"].as_str()?.to_owned())
    });
    let whole = operator.get(&format!("/dead-letters/{id}")).json();
    let body: Value = serde_json::from_str(whole["body"].as_str().unwrap()).unwrap();
    let hidden = "[redacted]";
    assert_eq!(
        body["data"]["object"],
        json!({ "id": "a", "name": hidden, "to": [{ "email": hidden }] })
    );
    // An event of a source that hookmill.toml no longer names may contain anything.
    let gone = event.clone().to("gone").message();
    pipeline.sql(&format!("UPDATE dead_letters SET message = '{gone}'"));
    let found = operator.get("/events/strict/evt_1/body").json();
    assert_eq!(found, json!({ "body": "", "body_form": "redacted", "headers": {} }));
    // An unreadable message may, too.
    pipeline.sql("UPDATE dead_letters SET message = 'ada@example.com'");
    let hidden = operator.get(&format!("/dead-letters/{id}")).json();
    assert_eq!((&hidden["body"], &hidden["body_form"]), (&"".into(), &"redacted".into()));
    let found = operator.get("/events/strict/evt_1/body").json();
    assert_eq!(found, json!({ "body": "", "body_form": "redacted", "headers": {} }));
    // The queue has the original.
    pipeline.sql(&format!("UPDATE dead_letters SET message = '{}'", event.message()));
    let because = json!({ "reason": "to see it whole" });
    assert_eq!(operator.post(&format!("/dead-letters/{id}/replay"), &because).status, 202);
    eventually("it has failed again", || {
        let again = "SELECT count(*) FROM dead_letters WHERE state = 'dead' AND replays = 1";
        (value(&pipeline, again) == 1).then_some(())
    });
    let kept = value(&pipeline, "SELECT message FROM dead_letters");
    assert!(kept.as_str().unwrap().contains("ada@example.com"));
}

#[test]
fn signatures_in_bodies_are_hidden() {
    let pipeline = Pipeline::start();
    let reader = operator(&pipeline, "read");
    let event = mailgun(now(), "6e0b", "ev_1", "delivered");
    for source in ["mailgun", "mailgun-strict"] {
        let response = pipeline.send(&[], source, event.to_string().as_bytes());
        assert_eq!(response.status, 200, "{}", response.body);
    }
    pipeline.settle();
    let (applied, dead) = eventually("one is applied and one is dead", || {
        let id = |path: &str| Some(reader.get(path).json()["items"][0]["id"].as_str()?.to_owned());
        Some((id("/events?source=mailgun")?, id("/dead-letters?source=mailgun-strict")?))
    });
    for path in [
        format!("/events/mailgun/{applied}/body"),
        format!("/events/mailgun-strict/{applied}/body"),
        format!("/dead-letters/{dead}"),
    ] {
        let shown = reader.get(&path).json();
        let body: Value = serde_json::from_str(shown["body"].as_str().unwrap()).unwrap();
        let hidden = "[redacted]";
        let signature = json!({ "timestamp": hidden, "token": hidden, "signature": hidden });
        assert_eq!(body["signature"], signature, "{path}");
        assert_eq!(body["event-data"], event["event-data"], "{path}");
        // No other response contains it either, so it cannot be used.
        for secret in ["signature", "token"] {
            let secret = event["signature"][secret].as_str().unwrap();
            assert!(!shown.to_string().contains(secret), "{path}");
        }
        let response = pipeline.send(&[], "mailgun", body.to_string().as_bytes());
        assert_eq!((response.status, response.reason().as_str()), (400, "malformed_event"));
    }
    // The stored message is complete, so a replay is too.
    let kept = value(&pipeline, "SELECT message FROM dead_letters");
    assert!(kept.as_str().unwrap().contains(event["signature"]["signature"].as_str().unwrap()));
}

#[test]
fn the_api_reports_the_caller_and_the_configuration() {
    let pipeline = Pipeline::start();
    let reader = operator(&pipeline, "read");
    assert_eq!(reader.get("/token").json(), json!({ "name": "read", "role": "read" }));
    let configuration = reader.get("/configuration").json();
    assert_eq!(
        configuration["file"]["sources"]["quiet"]["secrets"],
        json!(["env:TEST_STRIPE_SECRET"])
    );
    let tallies = json!({ "name": "tallies", "on": ["stripe:test.counted", "swept:test.counted"], "effect": "count", "target": "tallies" });
    assert!(configuration["rules"].as_array().unwrap().contains(&tallies), "{configuration}");
    let presets = configuration["rules"].as_array().unwrap().iter();
    assert!(presets.filter(|rule| rule["target"] == "subscriptions").count() > 0);

    let event = counted("evt_1", "a", 1);
    accepted(&pipeline, &event);
    pipeline.settle();
    let shown = reader.get("/events/stripe/evt_1/body").json();
    assert_eq!(shown["body"], std::str::from_utf8(&event.body).unwrap());
    assert_eq!(reader.get("/events/stripe/evt_0/body").status, 404);
}

#[test]
fn unsent_messages_are_listed_and_can_be_retried() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    let operator = operator(&pipeline, "operate");
    api.lasting("resend", Mood::RefusesAllWith("a@example.com"));
    let person = json!({ "to": "a@example.com", "name": "A" });
    accepted(&pipeline, &stripe("test.mailed", "evt_1", 1, person));
    let refused = eventually("it is refused", || {
        let found = operator.get("/outbox?state=refused&channel=email").json()["items"].clone();
        found.as_array()?.first().cloned()
    });
    assert_eq!(
        (&refused["recipient"], &refused["rule"]),
        (&"a@example.com".into(), &"mail".into())
    );
    assert!(refused["error"].as_str().unwrap().contains("Invalid `to` field"), "{refused}");
    api.lasting("resend", Mood::Accepts);
    // Most likely a variable that is not set: it must not select everything.
    for blank in ["id", "rule"] {
        let mut blank = json!({ "state": "refused", "reason": "x", blank: "" });
        assert_eq!(operator.post("/outbox/retry", &blank).status, 422, "{blank}");
        blank["reason"] = "".into();
        assert_eq!(operator.post("/outbox/retry", &blank).status, 422, "{blank}");
    }
    let again = json!({ "state": "refused", "reason": "their mailbox is mended" });
    let sent = operator.post("/outbox/retry", &again);
    assert_eq!((sent.status, sent.json()), (202, json!({ "count": 1 })));
    eventually("it is sent", || {
        let found = operator.get("/outbox?recipient=A%40example.com").json()["items"].clone();
        (found[0]["state"] == "sent").then_some(())
    });
    assert_eq!(api.accepted(), ["a@example.com"]);
    let usage = operator.get("/usage").json();
    assert_eq!((&usage[0]["provider"], &usage[0]["sent"]), (&"resend".into(), &1.into()));
    let acts = operator.get("/audit").json()["items"].clone();
    assert_eq!(
        (&acts[0]["action"], &acts[0]["reason"]),
        (&"outbox.retry".into(), &again["reason"])
    );
    // Plans are listed, the latest first.
    let plan =
        |source: &str| operator.post("/replays", &json!({ "source": source })).json()["id"].clone();
    let planned = [plan("stripe"), plan("clerk")];
    let listed = operator.get("/replays").json()["items"].clone();
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(listed.len(), 2);
    assert!(planned.iter().all(|id| listed.contains(id)));
}
