//! Emails: from rows of the outbox to batches for an API.

use std::collections::{BTreeMap, BTreeSet};

use hookmill_config::Emails;
use hookmill_core::email::{Email, Mailbox, address_key};
use hookmill_core::limits::EMAIL_BYTES;
use hookmill_core::panics::{Panicked, caught};
use hookmill_core::store::{Store, StoreError};
use hookmill_core::template::{Rendered, Templates};
use hookmill_providers::email::EmailApi;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::outbox::draft::{Composed, Draft, too_long};
use crate::outbox::state::{self, PendingMessage};

/// Composes emails.
#[derive(Debug)]
pub(in crate::outbox) struct EmailComposer {
    pub(in crate::outbox) settings: Emails,
    pub(in crate::outbox) templates: Templates,
    /// In the order of the routes.
    pub(in crate::outbox) apis: Vec<&'static dyn EmailApi>,
}

/// An email in the column `content`.
#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    template: String,
    /// A subject and a text, in place of a template.
    literal: Option<(String, String)>,
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    cc: Vec<String>,
    reply_to: Option<String>,
    #[serde(default)]
    data: Map<String, Value>,
    /// The size in bytes of content that was too large to store.
    too_long: Option<usize>,
}

impl EmailComposer {
    /// Composes pending messages into batches for the API with this index.
    pub(super) async fn compose<S: Store>(
        &self,
        store: &S,
        place: usize,
        pending: &[PendingMessage],
    ) -> Result<Composed, StoreError> {
        let mut composed = Composed::default();
        let mut emails = Vec::new();
        for pending in pending {
            match unless_panicked(|| self.email(pending)) {
                Ok(email) => emails.push(email),
                Err(error) => composed.refused.push((pending.id.clone(), error)),
            }
        }
        let emails = without_suppressed(store, emails, &mut composed).await?;
        if let Some(api) = self.apis.get(place) {
            drafts(*api, &emails, &mut composed);
        }
        Ok(composed)
    }

    /// The email, or the reason why it cannot be sent.
    fn email(&self, pending: &PendingMessage) -> Result<Email, String> {
        let content: Content = serde_json::from_str(&pending.content)
            .map_err(|_| "the rule did not produce an email".to_owned())?;
        if let Some(bytes) = content.too_long {
            return Err(too_long(bytes));
        }
        let mailbox = |text: &String| {
            text.parse::<Mailbox>().map_err(|error| format!("invalid recipient: {error}"))
        };
        let mut to = content.to.iter().map(mailbox).collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err("the email has no recipient".to_owned());
        }
        let mut cc = content.cc.iter().map(mailbox).collect::<Result<Vec<_>, _>>()?;
        // Each address receives an email once.
        let mut seen = BTreeSet::new();
        to.retain(|to| seen.insert(address_key(&to.address)));
        cc.retain(|cc| seen.insert(address_key(&cc.address)));
        let reply_to = content.reply_to.as_ref().map(mailbox).transpose()?;
        let texts = match content.literal {
            Some((subject, text)) => Rendered { subject, html: format!("<p>{text}</p>"), text },
            None => self
                .templates
                .render(&content.template, &content.data)
                .map_err(|error| error.to_string())?,
        };
        let bytes = texts.subject.len() + texts.html.len() + texts.text.len();
        if bytes > EMAIL_BYTES {
            return Err(too_long(bytes));
        }
        Ok(Email {
            id: pending.id.clone(),
            from: self.settings.from.clone(),
            to,
            cc,
            reply_to: reply_to.or_else(|| self.settings.reply_to.clone()),
            subject: texts.subject,
            html: texts.html,
            text: texts.text,
        })
    }
}

/// Divides emails into batches. If a batch panics, each of its emails is alone in a batch, and the one that panics is
/// refused.
fn drafts(api: &dyn EmailApi, emails: &[Email], composed: &mut Composed) {
    let alone = |place| vec![place];
    let batches = caught(|| api.batches(emails));
    let mut batches = batches.unwrap_or_else(|_| (0..emails.len()).map(alone).collect());
    batches.reverse();
    while let Some(batch) = batches.pop() {
        let emails: Vec<_> = batch.iter().filter_map(|place| emails.get(*place)).collect();
        let members = emails.iter().map(|email| email.id.clone());
        match caught(|| api.body(&emails)) {
            Ok(body) => {
                let draft = |body| Draft { members: members.collect(), body };
                composed.drafts.extend(body.map(draft));
            }
            Err(panicked) if batch.len() <= 1 => {
                composed.refused.extend(members.map(|id| (id, panicked.to_string())));
            }
            Err(Panicked) => batches.extend(batch.into_iter().rev().map(alone)),
        }
    }
}

/// Composes one message; if that panics, it is refused.
pub(super) fn unless_panicked<T>(compose: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    caught(compose).unwrap_or_else(|panicked| Err(panicked.to_string()))
}

/// Removes suppressed recipients, and emails that have no other recipient. `composed` gets the reasons.
async fn without_suppressed<S: Store>(
    store: &S,
    mut emails: Vec<Email>,
    composed: &mut Composed,
) -> Result<Vec<Email>, StoreError> {
    let key = |mailbox: &Mailbox| address_key(&mailbox.address);
    let addresses = emails.iter().flat_map(|email| email.to.iter().chain(&email.cc)).map(key);
    let suppressed = suppressed(store, addresses.collect()).await?;
    emails.retain_mut(|email| {
        let mut reasons = Vec::new();
        let mut wanted = |mailbox: &Mailbox| {
            let reason = suppressed.get(&key(mailbox));
            reasons.extend(reason.map(|reason| format!("{}: {reason}", mailbox.address)));
            reason.is_none()
        };
        email.to.retain(&mut wanted);
        email.cc.retain(&mut wanted);
        let reasons = reasons.join(", ");
        if email.to.is_empty() {
            let reason = format!("the recipient is suppressed: {reasons}");
            composed.suppressed.push((email.id.clone(), reason));
            return false;
        }
        if !reasons.is_empty() {
            composed.left_out.push((email.id.clone(), reasons));
        }
        true
    });
    Ok(emails)
}

/// The suppressed addresses among these, with the reasons.
pub(super) async fn suppressed<S: Store>(
    store: &S,
    mut addresses: Vec<String>,
) -> Result<BTreeMap<String, String>, StoreError> {
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Ok(BTreeMap::new());
    }
    state::read_suppressed(&store.query(vec![state::suppressed(&addresses)]).await?)
}
