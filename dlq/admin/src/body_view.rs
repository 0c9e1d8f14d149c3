//! A message's body with redactions.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookmill_config::Admin as Config;
use hookmill_config::redact::redact;
use hookmill_core::message::{BodyForm, decode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::platform::Admin;
use crate::problem::Problem;

/// A body as the provider sent it, with the values redacted that `redact` in hookmill.toml names.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct BodyView {
    /// Blank if the body is no longer stored or is fully redacted.
    body: String,
    /// `text`; `base64` if the body is not UTF-8; `unreadable` if the message cannot be read, and `text` is the whole message;
    /// `redacted` if the body needs redaction and is not JSON, or if hookmill.toml no longer names its source.
    body_form: &'static str,
    /// The headers that the source keeps (`keep_headers`), by their names in lower case.
    headers: BTreeMap<String, String>,
}

impl BodyView {
    /// The view of a message's body, which may be in the object store.
    pub(crate) async fn of(admin: &Admin, message: &str) -> Result<Self, Problem> {
        let config = admin.0.config();
        let redacts = |config: &Config| !config.redact.values().all(Vec::is_empty);
        let Ok(read) = decode(message) else {
            // The source is unknown, and so are its redactions.
            return Ok(match config.filter(|config| redacts(config)) {
                Some(_) => Self::hidden(),
                None => Self::new(message.to_owned(), "unreadable"),
            });
        };
        let nothing = Vec::new();
        let redactions = match config {
            None => &nothing,
            Some(config) => match config.redact.get(&read.envelope.source) {
                Some(redactions) => redactions,
                // The source was removed or renamed, so its redactions are unknown.
                None if redacts(config) => return Ok(Self::hidden()),
                None => &nothing,
            },
        };
        let bytes = match &read.envelope.body {
            BodyForm::Object(check) => {
                let object = admin.0.object(&check.key).await;
                object.map_err(|error| Problem::unavailable(&error))?.unwrap_or_default()
            }
            _ => read.body.into_owned(),
        };
        let view = match String::from_utf8(bytes) {
            Ok(body) if body.is_empty() || redactions.is_empty() => Self::new(body, "text"),
            Ok(body) => match redact(&body, redactions) {
                Some(body) => Self::new(body, "text"),
                None => Self::hidden(),
            },
            Err(error) if redactions.is_empty() => {
                Self::new(STANDARD.encode(error.as_bytes()), "base64")
            }
            Err(_) => Self::hidden(),
        };
        Ok(Self { headers: read.envelope.headers, ..view })
    }

    const fn hidden() -> Self {
        Self::new(String::new(), "redacted")
    }

    const fn new(body: String, body_form: &'static str) -> Self {
        Self { body, body_form, headers: BTreeMap::new() }
    }
}
