//! SMS: from rows of the outbox to messages for Twilio, one in a batch.

use std::collections::BTreeSet;

use hookmill_config::Sms as Settings;
use hookmill_core::email::number;
use hookmill_core::store::{Store, StoreError};
use hookmill_core::template::render_text;
use hookmill_core::time::Timestamp;
use hookmill_core::words::Channel;
use hookmill_providers::sms::{self, BODY_CHARACTERS, Sms};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Recipients;
use super::email::unless_panicked;
use crate::outbox::draft::{Composed, Draft, too_long};
use crate::outbox::state::PendingMessage;

/// An SMS in the column `content`.
#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    data: Map<String, Value>,
    too_long: Option<usize>,
}

/// Composes pending messages, each as a batch of one.
pub(super) async fn compose<S: Store>(
    settings: &Settings,
    store: &S,
    pending: &[PendingMessage],
    now: Timestamp,
) -> Result<Composed, StoreError> {
    let mut composed = Composed::default();
    for pending in pending {
        let composing = || {
            let message = message(settings, pending)?;
            Ok((message.to.clone(), sms::body(&message)))
        };
        let (number, body) = match unless_panicked(composing) {
            Ok(composed) => composed,
            Err(error) => {
                composed.refused.push((pending.id.clone(), error));
                continue;
            }
        };
        let (to, counted) =
            (BTreeSet::from([(number.clone(), None)]), BTreeSet::from([number.clone()]));
        let mut known = Recipients::read(store, Channel::Sms, &to, &counted, now).await?;
        if let Err(why) = known.count(&number, settings.per_hour) {
            composed.suppressed.push((pending.id.clone(), why));
            continue;
        }
        if let Some(reason) = known.suppressed(&number, None) {
            let why = format!("the recipient is suppressed: {reason}");
            composed.suppressed.push((pending.id.clone(), why));
            continue;
        }
        composed.drafts.push(Draft { members: vec![pending.id.clone()], body });
    }
    Ok(composed)
}

fn message(settings: &Settings, pending: &PendingMessage) -> Result<Sms, String> {
    let content: Content = serde_json::from_str(&pending.content)
        .map_err(|_| "the rule did not produce an SMS".to_owned())?;
    if let Some(bytes) = content.too_long {
        return Err(too_long(bytes));
    }
    let [to] = content.to.as_slice() else {
        return Err(format!("an SMS needs one recipient; found {}", content.to.len()));
    };
    let to = number(to).ok_or("the recipient is not a phone number such as +15550100002")?;
    let body = render_text(&content.body, &content.data).map_err(|error| error.to_string())?;
    let characters = body.chars().count();
    if body.trim().is_empty() || characters > BODY_CHARACTERS {
        return Err(format!("the text has {characters} characters; use 1 to {BODY_CHARACTERS}"));
    }
    Ok(Sms {
        to,
        from: settings.from.clone(),
        body,
        status_callback: settings.status_callback.clone(),
    })
}
