//! PostHog: <https://posthog.com/docs/api/capture>.
//!
//! It recognizes an event by its `uuid`, so a batch whose response was lost is sent again.

use std::time::Duration;

use hookmill_core::json::to_json;
use hookmill_core::outbound::{
    ApiRequest, ApiResponse, Authorization, MessageResult, Method, Provider, SendResult,
};
use hookmill_core::secret::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{TrackApi, Tracked};
use crate::api::{Api, Sealed, first_line, kept, not_taken};

/// PostHog's API.
#[derive(Clone, Copy, Debug)]
pub struct PostHog;

impl Api for PostHog {
    fn name(&self) -> &'static str {
        Provider::PostHog.as_str()
    }

    fn recognizes_for(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }

    /// PostHog documents no limit.
    fn max_batch(&self) -> usize {
        500
    }

    fn request(&self, batch: &Sealed<'_>) -> ApiRequest {
        let key = to_json(&batch.key.expose_secret().trim());
        ApiRequest {
            method: Method::Post,
            url: batch.url("/batch/"),
            headers: vec![("content-type", "application/json".to_owned())],
            authorization: Authorization::None,
            // The sealed body does not contain the key.
            body: batch.body.replacen('{', &format!("{{\"api_key\":{key},"), 1),
        }
    }

    fn answer(&self, events: usize, response: &ApiResponse) -> SendResult {
        answer(events, response)
    }
}

impl TrackApi for PostHog {
    fn body(&self, events: &[Tracked]) -> String {
        to_json(&json!({ "batch": events.iter().map(written).collect::<Vec<_>>() }))
    }
}

fn written(event: &Tracked) -> Value {
    json!({
        "event": event.event,
        "distinct_id": event.user,
        "timestamp": event.time.to_string(),
        "uuid": uuid(&event.id),
        "properties": event.properties,
    })
}

/// The first 16 bytes as a custom UUID: <https://www.rfc-editor.org/rfc/rfc9562#section-5.8>.
fn uuid(id: &str) -> String {
    let part = |places| id.get(places).unwrap_or_default();
    let (low, mid, high) = (part(0..8), part(8..12), part(13..16));
    format!("{low}-{mid}-8{high}-8{}-{}", part(17..20), part(20..32))
}

/// The result of sending a batch of this size.
fn answer(events: usize, response: &ApiResponse) -> SendResult {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Reply {
        error: Value,
        detail: String,
    }
    if (200..300).contains(&response.status) {
        return SendResult::Accepted(vec![MessageResult::Accepted(None); events]);
    }
    let reply: Reply = serde_json::from_str(&response.body).unwrap_or_default();
    let words = match &reply.error {
        Value::String(error) => format!(": {error}"),
        _ if reply.detail.is_empty() => first_line(&response.body),
        _ => format!(": {}", reply.detail),
    };
    not_taken(response, kept(&format!("PostHog answered {}{words}", response.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_accepted_as_a_whole_or_not_at_all() {
        let answer = |status, body: &str| {
            let body = body.into();
            answer(
                2,
                &ApiResponse { status, retry_after: None, message_id: None, date: None, body },
            )
        };
        assert_eq!(
            answer(200, r#"{"status":1}"#),
            SendResult::Accepted(vec![MessageResult::Accepted(None); 2])
        );
        assert_eq!(
            answer(401, r#"{"detail":"Project API key invalid."}"#),
            SendResult::Refused("PostHog answered 401: Project API key invalid.".into())
        );
        assert!(matches!(answer(429, ""), SendResult::Busy { .. }));
        assert!(matches!(answer(503, ""), SendResult::Unavailable(_)));
    }
}
