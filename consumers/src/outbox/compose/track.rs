//! Tracking events: from rows of the outbox to batches for an API.

use hookmill_core::limits::EMAIL_BATCH_BYTES;
use hookmill_core::time::Timestamp;
use hookmill_providers::track::{TrackApi, Tracked};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::email::unless_panicked;
use crate::outbox::draft::{Composed, Draft, too_long};
use crate::outbox::state::PendingMessage;

/// A tracking event in the column `content`.
#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    event: String,
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    data: Map<String, Value>,
    at: Option<Timestamp>,
    too_long: Option<usize>,
}

/// Composes pending messages into batches.
pub(super) fn compose(api: &dyn TrackApi, pending: &[PendingMessage]) -> Composed {
    let mut composed = Composed::default();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut drafts = Vec::new();
    for pending in pending {
        let event = match unless_panicked(|| tracked(pending)) {
            Ok(event) => event,
            Err(error) => {
                composed.refused.push((pending.id.clone(), error));
                continue;
            }
        };
        // The API's own members take far less than the content's length.
        let length = 2 * pending.content.len() + 500;
        if bytes + length > EMAIL_BATCH_BYTES && !batch.is_empty() {
            drafts.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += length;
        batch.push(event);
    }
    drafts.push(batch);
    let draft = |batch: Vec<Tracked>| Draft {
        members: batch.iter().map(|event| event.id.clone()).collect(),
        body: api.body(&batch),
    };
    composed.drafts = drafts.into_iter().filter(|batch| !batch.is_empty()).map(draft).collect();
    composed
}

fn tracked(pending: &PendingMessage) -> Result<Tracked, String> {
    let content: Content = serde_json::from_str(&pending.content)
        .map_err(|_| "the rule did not produce a tracking event".to_owned())?;
    if let Some(bytes) = content.too_long {
        return Err(too_long(bytes));
    }
    let Some(user) = content.to.into_iter().next() else {
        return Err("the tracking event has no user".to_owned());
    };
    Ok(Tracked {
        id: pending.id.clone(),
        event: content.event,
        user,
        time: content.at.unwrap_or(pending.due_at),
        properties: content.data,
    })
}
