//! The list of promises. Each platform's test includes it, and it uses that platform as `super::platform`.
//!
//! Each promise has a file with its name. At the end of a test the queue is empty.

mod a_2xx_means_durable;
mod a_mirror_is_complete;
mod a_retrying_event_is_visible;
mod a_secret_never_leaves;
mod an_alert_reaches_its_recipient;
mod an_email_is_not_lost_and_not_sent_twice;
mod an_event_can_be_reprocessed;
mod an_event_takes_effect_once;
mod cloudflare_access_replaces_tokens;
mod every_scheme_is_verified;
mod exhausted_is_buried_not_lost;
mod invalid_requests_are_rejected;
mod large_bodies_come_out_whole;
mod nothing_is_marked_at_ingress;
mod old_rows_are_removed;
mod one_bad_message_spoils_no_other;
mod order_of_arrival_does_not_matter;
mod presets_write_rows;
mod rejections_are_counted;
mod replay_runs_the_whole_path;
mod rules_map_events_to_rows;
mod sms_and_tracking_are_sent_once;
mod the_admin_api_is_governed;
mod what_events_lack_is_counted;

use hookmill_tests::event::{Event, stripe};
use hookmill_tests::eventually;
use serde_json::{Value, json};

use super::platform::Pipeline;

/// An event for a rule that counts, which is not idempotent without the ledger.
fn counted(id: &str, of: &str, amount: i64) -> Event {
    stripe("test.counted", id, 1, json!({ "id": of, "amount": amount }))
}

/// An event for a rule whose table rejects negative numbers.
fn guarded(id: &str, of: &str, version: i64, number: &Value) -> Event {
    stripe("test.guarded", id, version, json!({ "id": of, "number": number, "text": id }))
}

/// Posts an event and expects 200.
fn accepted(pipeline: &Pipeline, event: &Event) {
    let response = pipeline.post(event);
    assert_eq!(response.status, 200, "{}", response.body);
}

/// Waits until the outbox is empty.
fn sent(pipeline: &Pipeline) {
    pipeline.settle();
    eventually("the outbox is empty", || {
        let open =
            pipeline.sql("SELECT 1 FROM outbox WHERE state IN ('pending', 'sealed') LIMIT 1");
        open.is_empty().then_some(())
    });
}

/// The single value of a query.
fn value(pipeline: &Pipeline, sql: &str) -> Value {
    let mut rows = pipeline.sql(sql);
    assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
    rows.remove(0).remove(0)
}

/// Runs the sweep a day later, when it checks bodies that have lost a row.
fn a_day_later(pipeline: Pipeline) -> Pipeline {
    pipeline.sql("UPDATE stale_bodies SET due_at = 0");
    pipeline.after_a_minute()
}

/// The value of a counter: (events, amount).
fn tally(pipeline: &Pipeline, of: &str) -> Vec<Vec<Value>> {
    pipeline.sql(&format!("SELECT events, amount FROM tallies WHERE id = '{of}'"))
}

/// Every dead letter: (event id, reason, attempts), in order of ids.
fn dead_letters(pipeline: &Pipeline) -> Vec<Vec<Value>> {
    pipeline.sql("SELECT event_id, reason, attempts FROM dead_letters ORDER BY event_id")
}
