//! An import loads what the provider had before its first webhook, and changes nothing else. A sweep finds the events that never
//! arrived.

use hookmill_tests::api::{Api, Mood};
use hookmill_tests::event::stripe;
use hookmill_tests::{Operator, eventually};
use serde_json::{Value, json};

use super::{accepted, value};
use crate::platform::Pipeline;

fn operator(pipeline: &Pipeline) -> Operator {
    Operator::new(pipeline.admin(), "ines", "operate", |sql| {
        pipeline.sql(sql);
    })
}

/// Plans an import of the customers of `billing` and runs it; returns its id.
fn run(operator: &Operator, only: &[&str]) -> String {
    let plan = operator.post("/imports", &json!({ "source": "billing", "only": only }));
    assert_eq!(plan.status, 201, "{}", plan.body);
    let plan = plan.json();
    assert_eq!((&plan["kind"], &plan["lists"]), (&"import".into(), &json!(["customers"])));
    let id = plan["id"].as_str().unwrap_or_default().to_owned();
    let body = json!({ "rate": 1000, "reason": "a new mirror" });
    let ran = operator.post(&format!("/replays/{id}/run"), &body);
    assert_eq!(ran.status, 202, "{}", ran.body);
    id
}

fn import(operator: &Operator, id: &str) -> Value {
    operator.get(&format!("/replays/{id}")).json()
}

#[test]
fn an_import_loads_what_is_there_and_hides_no_event() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    let customer = |n: u32| json!({ "id": format!("cus_{n}"), "object": "customer", "name": format!("number {n}"), "livemode": false });
    api.lists("/v1/customers", (0..120).map(customer).collect());
    // The provider is busy at first.
    api.moods([Mood::Busy]);
    // An object with a newer event keeps it, and one with an older event does not.
    let event = |n: u32, created: i64| {
        let object = json!({ "id": format!("cus_{n}"), "name": "by event" });
        stripe("customer.updated", &format!("evt_{n}"), created, object).to("billing")
    };
    let in_an_hour = hookmill_tests::event::now().seconds() + 3_600;
    accepted(&pipeline, &event(1, in_an_hour));
    accepted(&pipeline, &event(2, 1_700_000_000));
    pipeline.settle();
    let operator = operator(&pipeline);
    let id = run(&operator, &[]);
    let done = eventually("every object is applied", || {
        let import = import(&operator, &id);
        (import["state"] == "done" && import["applied"] == 120).then_some(import)
    });
    assert_eq!(
        (&done["total"], &done["sent"], &done["failed"]),
        (&Value::Null, &120.into(), &0.into())
    );
    assert_eq!(value(&pipeline, "SELECT count(*) FROM asked"), 120);
    let names = "SELECT name FROM asked WHERE id IN ('cus_0', 'cus_1', 'cus_2') ORDER BY id";
    assert_eq!(pipeline.sql(names), [["number 0"], ["by event"], ["number 2"]]);
    // Rules that count or send do not see the objects.
    assert_eq!(value(&pipeline, "SELECT count(*) FROM outbox"), 0);
    let lists: Vec<_> = api.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(lists, ["/stripe/v1/customers"; 3]);
    let acts = operator.get("/audit").json()["items"].clone();
    let acts: Vec<_> = acts.as_array().unwrap().iter().map(|act| act["action"].clone()).collect();
    assert_eq!(acts, ["replay.run", "import.plan"]);
    // The object has a history.
    let steps = operator.get("/events/billing/cus_0");
    assert_eq!(steps.status, 200, "{}", steps.body);
}

#[test]
fn an_import_without_the_right_to_read_pauses_and_resumes() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    api.lists("/v1/customers", vec![json!({ "id": "cus_1", "name": "one", "livemode": false })]);
    api.moods([Mood::Forbidden]);
    let operator = operator(&pipeline);
    let id = run(&operator, &["customers"]);
    let paused = eventually("it is paused", || {
        let import = import(&operator, &id);
        (import["state"] == "paused").then_some(import)
    });
    let error = paused["error"].as_str().unwrap();
    assert!(error.contains("answered 401") && error.contains("TEST_STRIPE_API_KEY"), "{error}");
    assert!(!error.contains("sk_"), "the key is hidden: {error}");
    let because = json!({ "reason": "the key has the right now" });
    let resumed = operator.post(&format!("/replays/{id}/resume"), &because);
    assert_eq!(resumed.status, 202, "{}", resumed.body);
    eventually("it is applied", || (import(&operator, &id)["applied"] == 1).then_some(()));
    for (body, status) in [
        (json!({ "source": "strict" }), 422),
        (json!({ "source": "billing", "only": ["customer"] }), 422),
        (json!({ "source": " " }), 422),
    ] {
        assert_eq!(operator.post("/imports", &body).status, status, "{body}");
    }
}

#[test]
fn an_event_that_was_never_delivered_is_found() {
    let api = Api::start();
    let now = hookmill_tests::event::now().seconds();
    let logged = |id: &str, kind: &str, ago: i64| {
        let object =
            json!({ "id": id, "amount": 1, "to": format!("{id}@example.com"), "name": id });
        json!({ "id": id, "object": "event", "type": kind, "created": now - ago, "data": { "object": object } })
    };
    let log = [
        logged("evt_unknown", "test.counted", 1_000),
        logged("evt_delivered", "test.counted", 1_100),
        logged("evt_mailed", "test.mailed", 1_200),
    ];
    let pipeline = Pipeline::with_api(&api);
    let delivered = json!({ "id": "evt_delivered", "amount": 1 });
    accepted(
        &pipeline,
        &stripe("test.counted", "evt_delivered", now - 1_100, delivered).to("swept"),
    );
    pipeline.settle();
    api.lists("/v1/events", log.to_vec());
    pipeline.sql("UPDATE sweeps SET due_at = 0");
    let pipeline = pipeline.after_a_minute();
    let tallies = "SELECT id FROM tallies WHERE events = 1 ORDER BY id";
    eventually("all are applied", || {
        let found = pipeline.sql(tallies);
        (found == [["evt_delivered"], ["evt_unknown"]]).then_some(())
    });
    eventually("the email is sent", || {
        (api.accepted() == ["evt_mailed@example.com"]).then_some(())
    });
    let sweep = operator(&pipeline).get("/stats").json()["sweeps"][0].clone();
    assert_eq!((&sweep["source"], &sweep["found"]), (&"swept".into(), &2.into()), "{sweep}");
    // After days without us, what is found changes rows and sends nothing.
    let mut log = log.to_vec();
    log.push(logged("evt_late", "test.counted", 200_000));
    log.push(logged("evt_late_mail", "test.mailed", 200_000));
    api.lists("/v1/events", log);
    pipeline.sql(&format!("UPDATE sweeps SET due_at = 0, swept_to = {}", (now - 250_000) * 1_000));
    let pipeline = pipeline.after_a_minute();
    eventually("it is applied", || {
        (value(&pipeline, "SELECT count(*) FROM events WHERE id LIKE 'evt_late%'") == 2)
            .then_some(())
    });
    assert_eq!(value(&pipeline, "SELECT count(*) FROM tallies WHERE events = 1"), 3);
    // Its transaction would have written the email.
    assert_eq!(value(&pipeline, "SELECT count(*) FROM outbox WHERE event_id LIKE 'evt_late%'"), 0);
}

#[test]
fn a_reconciliation_finds_what_differs_and_repairs_it() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    let customer = |n: u32| json!({ "id": format!("cus_{n}"), "object": "customer", "name": format!("number {n}"), "livemode": false });
    api.lists("/v1/customers", (0..120).map(customer).collect());
    let operator = operator(&pipeline);
    let imported = run(&operator, &[]);
    eventually("every object is applied", || {
        (import(&operator, &imported)["applied"] == 120).then_some(())
    });
    pipeline.sql("UPDATE asked SET name = 'wrong' WHERE id IN ('cus_7', 'cus_110')");
    pipeline.sql("DELETE FROM asked WHERE id = 'cus_9'");
    // The configuration has no column with the account, so the key may be one for another account.
    api.lists("/v1/customers", (0..119).map(customer).collect());
    let reconcile = |body: Value| {
        let plan = operator.post("/reconciliations", &body);
        assert_eq!(plan.status, 201, "{}", plan.body);
        let id = plan.json()["id"].as_str().unwrap_or_default().to_owned();
        let body = json!({ "rate": 10_000, "reason": "is it right" });
        let ran = operator.post(&format!("/replays/{id}/run"), &body);
        assert_eq!(ran.status, 202, "{}", ran.body);
        let done = eventually("it ends", || {
            let job = import(&operator, &id);
            assert_ne!(job["state"], "paused", "{job}");
            (job["state"] == "done" && job["applied"] == job["sent"]).then_some(job)
        });
        (id, done["report"].clone())
    };
    let (id, report) = reconcile(json!({ "source": "billing" }));
    let found = json!({ "missing": 1, "different": 2, "unclear": 1, "columns": { "name": 2 } });
    assert_eq!(report["tables"], json!({ "asked": found }));
    assert_eq!(
        (&report["objects"], &report["complete"]),
        (&json!({ "customers": 119 }), &true.into())
    );
    let drifts = operator.get(&format!("/replays/{id}/drifts?limit=2")).json();
    assert_eq!(drifts["items"][0]["key"], json!(["cus_110"]));
    let next = drifts["next"].as_str().unwrap();
    let rest = operator.get(&format!("/replays/{id}/drifts?cursor={next}")).json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 2, "{rest}");
    assert_eq!(pipeline.sql("SELECT count(*) FROM asked WHERE name = 'wrong'"), [[2]]);

    let (_, report) = reconcile(json!({ "source": "billing", "repair": true }));
    assert_eq!(report["tables"]["asked"]["repaired"], 3, "{report}");
    assert_eq!(pipeline.sql("SELECT count(*) FROM asked WHERE name = 'wrong'"), [[0]]);
    let (_, report) = reconcile(json!({ "source": "billing" }));
    assert_eq!(report["tables"], json!({ "asked": { "unclear": 1 } }));
    for (body, status) in
        [(json!({ "source": "strict" }), 422), (json!({ "source": "billing", "table": "" }), 422)]
    {
        assert_eq!(operator.post("/reconciliations", &body).status, status, "{body}");
    }
}
