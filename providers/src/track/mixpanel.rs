//! Mixpanel: <https://docs.mixpanel.com/reference/import-events>.
//!
//! It recognizes an event by its `$insert_id`, so a batch whose response was lost is sent again.

use std::time::Duration;

use hookmill_core::json::to_json;
use hookmill_core::outbound::{
    ApiRequest, ApiResponse, Authorization, MessageResult, Method, Provider, SendResult,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{TrackApi, Tracked};
use crate::api::{Api, Sealed, first_line, kept, not_taken};

/// Mixpanel's API.
#[derive(Clone, Copy, Debug)]
pub struct Mixpanel;

impl Api for Mixpanel {
    fn name(&self) -> &'static str {
        Provider::Mixpanel.as_str()
    }

    fn recognizes_for(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }

    fn max_batch(&self) -> usize {
        2000
    }

    fn request(&self, batch: &Sealed<'_>) -> ApiRequest {
        ApiRequest {
            method: Method::Post,
            url: batch.url("/import?strict=1"),
            headers: vec![("content-type", "application/json".to_owned())],
            authorization: Authorization::User,
            body: batch.body.to_owned(),
        }
    }

    fn answer(&self, events: usize, response: &ApiResponse) -> SendResult {
        answer(events, response)
    }
}

impl TrackApi for Mixpanel {
    fn body(&self, events: &[Tracked]) -> String {
        to_json(&events.iter().map(written).collect::<Vec<_>>())
    }
}

fn written(event: &Tracked) -> Value {
    let mut properties = event.properties.clone();
    properties.insert("time".into(), event.time.millis().into());
    properties.insert("distinct_id".into(), event.user.as_str().into());
    // At most 36 characters: letters, digits and `-`.
    properties.insert("$insert_id".into(), event.id.get(..32).unwrap_or_default().into());
    json!({ "event": event.event, "properties": properties })
}

/// The result of sending a batch of this size.
fn answer(events: usize, response: &ApiResponse) -> SendResult {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Reply {
        error: Value,
        /// Some events were accepted, but not these.
        failed_records: Vec<Failed>,
        num_records_imported: Option<usize>,
    }
    #[derive(Deserialize)]
    struct Failed {
        index: usize,
        #[serde(default)]
        field: String,
        #[serde(default)]
        message: String,
    }
    let reply: Reply = serde_json::from_str(&response.body).unwrap_or_default();
    let partly = response.status == 400 && reply.num_records_imported.is_some();
    if (200..300).contains(&response.status) || partly {
        let outcome = |place| {
            let failed = reply.failed_records.iter().find(|failed| failed.index == place);
            match failed {
                Some(Failed { field, message, .. }) => {
                    MessageResult::Refused(kept(&format!("{field}: {message}")))
                }
                None => MessageResult::Accepted(None),
            }
        };
        return SendResult::Accepted((0..events).map(outcome).collect());
    }
    let words = match &reply.error {
        Value::String(error) => format!(": {error}"),
        _ => first_line(&response.body),
    };
    not_taken(response, kept(&format!("Mixpanel answered {}{words}", response.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_of_a_batch_has_its_own_result() {
        let response = |status, body: &str| ApiResponse {
            status,
            retry_after: None,
            message_id: None,
            date: None,
            body: body.into(),
        };
        let partly = r#"{"code":400,"error":"some data points in the request failed validation","num_records_imported":1,"status":"Bad Request","failed_records":[{"index":1,"insert_id":"x","field":"properties.time","message":"is too old"}]}"#;
        assert_eq!(
            answer(2, &response(400, partly)),
            SendResult::Accepted(vec![
                MessageResult::Accepted(None),
                MessageResult::Refused("properties.time: is too old".into())
            ])
        );
        assert_eq!(
            answer(1, &response(401, r#"{"error":"Unauthorized"}"#)),
            SendResult::Refused("Mixpanel answered 401: Unauthorized".into())
        );
    }
}
