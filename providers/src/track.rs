//! How Mixpanel and PostHog are told what somebody did.
//!
//! Both know an event again by an id of it, so a batch whose answer was lost is simply sent once more.

use hookmill_core::outbound::{
    Answer, ApiRequest, ApiResponse, Authorization, Delivered, Method, Provider,
};
use hookmill_core::secret::{ExposeSecret as _, Secret};
use hookmill_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::api::{first_line, kept, not_taken};

/// The most events in one request to Mixpanel: <https://docs.mixpanel.com/reference/import-events>.
pub const MIXPANEL_EVENTS: usize = 2000;
/// The most events in one request to PostHog, which says nothing of a number.
pub const POSTHOG_EVENTS: usize = 500;

/// What somebody did.
#[derive(Clone, PartialEq, Debug)]
pub struct Tracked {
    /// What tells it from every other: 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub event: String,
    /// Who.
    pub user: String,
    /// When.
    pub time: Timestamp,
    /// What else there is to say.
    pub properties: Map<String, Value>,
}

/// The body of a batch.
pub fn body(provider: Provider, events: &[Tracked]) -> String {
    let events: Vec<_> = events.iter().map(|event| written(provider, event)).collect();
    match provider {
        Provider::PostHog => json(&json!({ "batch": events })),
        _ => json(&events),
    }
}

fn written(provider: Provider, event: &Tracked) -> Value {
    let mut properties = event.properties.clone();
    if provider == Provider::PostHog {
        return json!({
            "event": event.event,
            "distinct_id": event.user,
            "timestamp": event.time.to_string(),
            "uuid": uuid(&event.id),
            "properties": properties,
        });
    }
    properties.insert("time".into(), event.time.millis().into());
    properties.insert("distinct_id".into(), event.user.as_str().into());
    // At most 36 characters: letters, digits and `-`.
    properties.insert("$insert_id".into(), event.id.get(..32).unwrap_or_default().into());
    json!({ "event": event.event, "properties": properties })
}

/// The first 16 bytes in the form of a UUID of a kind of one's own: <https://www.rfc-editor.org/rfc/rfc9562#section-5.8>.
fn uuid(id: &str) -> String {
    let part = |places| id.get(places).unwrap_or_default();
    let (low, mid, high) = (part(0..8), part(8..12), part(13..16));
    format!("{low}-{mid}-8{high}-8{}-{}", part(17..20), part(20..32))
}

/// The request that sends a batch. `url`: where the API is.
pub fn request(provider: Provider, url: &str, key: &Secret, body: String) -> ApiRequest {
    let url = url.trim_end_matches('/');
    let headers = vec![("content-type", "application/json".to_owned())];
    if provider == Provider::PostHog {
        let key = json(&key.expose_secret().trim());
        // What is sealed is without the key.
        let body = body.replacen('{', &format!("{{\"api_key\":{key},"), 1);
        let authorization = Authorization::None;
        return ApiRequest {
            method: Method::Post,
            url: format!("{url}/batch/"),
            headers,
            authorization,
            body,
        };
    }
    let url = format!("{url}/import?strict=1");
    ApiRequest { method: Method::Post, url, headers, authorization: Authorization::User, body }
}

/// What the provider has said to a batch of so many events.
pub fn answer(provider: Provider, events: usize, response: &ApiResponse) -> Answer {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Said {
        error: Value,
        /// PostHog's words.
        detail: String,
        /// Mixpanel's: some have been taken, and these have not.
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
    let said: Said = serde_json::from_str(&response.body).unwrap_or_default();
    let partly = response.status == 400 && said.num_records_imported.is_some();
    if (200..300).contains(&response.status) || partly {
        let outcome = |place| {
            let failed = said.failed_records.iter().find(|failed| failed.index == place);
            match failed {
                Some(Failed { field, message, .. }) => {
                    Delivered::Refused(kept(&format!("{field}: {message}")))
                }
                None => Delivered::Accepted(None),
            }
        };
        return Answer::Taken((0..events).map(outcome).collect());
    }
    let name = if provider == Provider::PostHog { "PostHog" } else { "Mixpanel" };
    let words = match &said.error {
        Value::String(error) => format!(": {error}"),
        _ if said.detail.is_empty() => first_line(&response.body),
        _ => format!(": {}", said.detail),
    };
    not_taken(response, kept(&format!("{name} answered {}{words}", response.status)))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<Tracked> {
        let event = |n: u8, event: &str| Tracked {
            id: format!("{n:x}").repeat(64),
            event: event.into(),
            user: format!("user-{n}"),
            time: Timestamp::from_seconds(1_767_225_600),
            properties: Map::from_iter([("plan".to_owned(), json!("pro"))]),
        };
        vec![event(1, "Subscribed"), event(10, "Cancelled")]
    }

    #[test]
    fn a_batch_is_written_as_each_documents_it() {
        let key = Secret::from("phc_\"key");
        for provider in [Provider::Mixpanel, Provider::PostHog] {
            let request = request(provider, provider.url(), &key, body(provider, &events()));
            let body: Value = serde_json::from_str(&request.body).unwrap();
            insta::assert_json_snapshot!(provider.as_str(), body);
            insta::assert_debug_snapshot!(
                format!("{}-request", provider.as_str()),
                (request.url, request.headers, request.authorization)
            );
        }
    }

    #[test]
    fn each_event_of_a_batch_has_its_own_outcome() {
        let response = |status, body: &str| ApiResponse {
            status,
            retry_after: None,
            message_id: None,
            body: body.into(),
        };
        let partly = r#"{"code":400,"error":"some data points in the request failed validation","num_records_imported":1,"status":"Bad Request","failed_records":[{"index":1,"insert_id":"x","field":"properties.time","message":"is too old"}]}"#;
        assert_eq!(
            answer(Provider::Mixpanel, 2, &response(400, partly)),
            Answer::Taken(vec![
                Delivered::Accepted(None),
                Delivered::Refused("properties.time: is too old".into())
            ])
        );
        assert_eq!(
            answer(Provider::PostHog, 2, &response(200, r#"{"status":1}"#)),
            Answer::Taken(vec![Delivered::Accepted(None); 2])
        );
        assert_eq!(
            answer(Provider::Mixpanel, 1, &response(401, r#"{"error":"Unauthorized"}"#)),
            Answer::Refused("Mixpanel answered 401: Unauthorized".into())
        );
        assert!(matches!(answer(Provider::PostHog, 1, &response(429, "")), Answer::Busy { .. }));
        assert!(matches!(answer(Provider::PostHog, 1, &response(503, "")), Answer::Away(_)));
    }
}
