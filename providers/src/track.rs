//! The tracking APIs: a file for each, and a line in [`TRACK_APIS`].

mod mixpanel;
mod posthog;

use hookmill_core::outbound::Provider;
use hookmill_core::time::Timestamp;
use serde_json::{Map, Value};

use crate::api::Api;
pub use crate::track::mixpanel::Mixpanel;
pub use crate::track::posthog::PostHog;

/// A tracking API.
pub trait TrackApi: Api {
    /// The body of a batch.
    fn body(&self, events: &[Tracked]) -> String;
}

/// The tracking APIs.
pub static TRACK_APIS: &[&dyn TrackApi] = &[&Mixpanel, &PostHog];

/// The tracking API of a provider. `None`: the provider has none.
pub fn track_api(provider: Provider) -> Option<&'static dyn TrackApi> {
    TRACK_APIS.iter().copied().find(|api| api.name() == provider.as_str())
}

/// A tracking event.
#[derive(Clone, PartialEq, Debug)]
pub struct Tracked {
    /// Its id: 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub event: String,
    /// The user.
    pub user: String,
    /// The time.
    pub time: Timestamp,
    /// Other properties.
    pub properties: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use hookmill_core::outbound::Purpose;
    use serde_json::json;

    use super::*;
    use crate::api::tests::request;

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
    fn every_tracking_provider_has_one_api() {
        let names: Vec<_> = TRACK_APIS.iter().map(Api::name).collect();
        let configured: Vec<_> =
            Provider::of(Purpose::Tracking).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, configured);
        assert!(track_api(Provider::Resend).is_none());
    }

    #[test]
    fn a_batch_has_the_documented_format() {
        for (_, provider) in Provider::of(Purpose::Tracking) {
            let api = track_api(provider).unwrap();
            let request = request(&api, provider, &api.body(&events()));
            let body: Value = serde_json::from_str(&request.body).unwrap();
            insta::assert_json_snapshot!(provider.as_str(), body);
            insta::assert_debug_snapshot!(
                format!("{}-request", provider.as_str()),
                (request.url, request.headers, request.authorization)
            );
        }
    }
}
