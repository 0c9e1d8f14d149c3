//! Emails: from rows of the outbox to batches for an API.

use std::collections::BTreeSet;

use hookmill_config::Emails;
use hookmill_core::email::{Email, Mailbox, address_key};
use hookmill_core::limits::EMAIL_BYTES;
use hookmill_core::panics::{Panicked, caught};
use hookmill_core::store::{Store, StoreError};
use hookmill_core::template::{Rendered, Templates};
use hookmill_core::time::Timestamp;
use hookmill_core::words::Channel;
use hookmill_providers::email::EmailApi;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Recipients;
use crate::outbox::draft::{Composed, Draft, too_long};
use crate::outbox::state::PendingMessage;

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
    group: Option<String>,
    #[serde(default)]
    data: Map<String, Value>,
    /// The size in bytes of content that was too large to store.
    too_long: Option<usize>,
    /// The number of recipients, if the rule allows fewer.
    too_many: Option<usize>,
}

impl EmailComposer {
    /// Composes pending messages into batches for the API with this index.
    pub(super) async fn compose<S: Store>(
        &self,
        store: &S,
        place: usize,
        pending: &[PendingMessage],
        now: Timestamp,
    ) -> Result<Composed, StoreError> {
        let mut composed = Composed::default();
        let mut emails = Vec::new();
        for pending in pending {
            match unless_panicked(|| self.email(pending)) {
                Ok(email) => emails.push(email),
                Err(error) => composed.refused.push((pending.id.clone(), error)),
            }
        }
        let all = emails.iter().flat_map(|(email, _)| {
            let key = |mailbox: &Mailbox| (address_key(&mailbox.address), email.group.clone());
            email.to.iter().chain(&email.cc).map(key)
        });
        let counted = emails.iter().filter_map(|(_, to)| to.clone()).collect();
        let all = all.collect();
        let mut known = Recipients::read(store, Channel::Email, &all, &counted, now).await?;
        let mut ready = Vec::with_capacity(emails.len());
        for (email, counted) in emails {
            let id = email.id.clone();
            let Some(email) = without_suppressed(email, &known, &mut composed) else { continue };
            match counted.map_or(Ok(()), |to| known.count(&to, self.settings.per_hour)) {
                Ok(()) => ready.push(email),
                Err(why) => composed.suppressed.push((id, why)),
            }
        }
        let emails = ready;
        if let Some(api) = self.apis.get(place) {
            drafts(*api, &emails, &mut composed);
        }
        Ok(composed)
    }

    /// The email, and the recipient to count it for if a rule sends it; or the reason why it cannot be sent.
    fn email(&self, pending: &PendingMessage) -> Result<(Email, Option<String>), String> {
        let content: Content = serde_json::from_str(&pending.content)
            .map_err(|_| "the rule did not produce an email".to_owned())?;
        if let Some(bytes) = content.too_long {
            return Err(too_long(bytes));
        }
        if let Some(count) = content.too_many {
            return Err(format!(
                "found {count} recipients, and the rule allows fewer; `recipients` in its `email` allows up to 10"
            ));
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
        // Hookmill's own emails, which have no template, are few.
        let limited = content.literal.is_none().then(|| to.first()).flatten();
        let limited = limited.map(|to| address_key(&to.address));
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
        let email = Email {
            id: pending.id.clone(),
            from: self.settings.from.clone(),
            to,
            cc,
            reply_to: reply_to.or_else(|| self.settings.reply_to.clone()),
            subject: texts.subject,
            html: texts.html,
            text: texts.text,
            group: content.group,
        };
        Ok((email, limited))
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

/// The email without suppressed recipients; `None` if it has no other recipient. `composed` gets the reasons.
fn without_suppressed(
    mut email: Email,
    known: &Recipients,
    composed: &mut Composed,
) -> Option<Email> {
    let mut reasons = Vec::new();
    let mut wanted = |mailbox: &Mailbox| {
        let reason = known.suppressed(&address_key(&mailbox.address), email.group.as_deref());
        let is_wanted = reason.is_none();
        reasons.extend(reason.map(|reason| format!("{}: {reason}", mailbox.address)));
        is_wanted
    };
    email.to.retain(&mut wanted);
    email.cc.retain(&mut wanted);
    let reasons = reasons.join(", ");
    if email.to.is_empty() {
        composed.suppressed.push((email.id, format!("the recipient is suppressed: {reasons}")));
        return None;
    }
    if !reasons.is_empty() {
        composed.left_out.push((email.id.clone(), reasons));
    }
    Some(email)
}
