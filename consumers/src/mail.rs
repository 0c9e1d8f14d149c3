//! Sends what is in the outbox. What decides is pure and elsewhere; this carries it out, step by step, so that whoever dies
//! between two steps leaves a state from which another goes on.

use std::collections::BTreeMap;

use hookmill_core::config::Retry;
use hookmill_core::email::{Answer, Delivered, Email, Mailbox};
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::hash::sha256_hex;
use hookmill_core::limits::EMAIL_BYTES;
use hookmill_core::secret::Secret;
use hookmill_core::store::{Rows, Statement, Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_providers::{resend, sendgrid};
use serde::{Deserialize, Serialize};

use crate::outbox::{self, EmailKey, Pending, Sealing, Taken};
use crate::retry::delay;
use crate::template::Templates;

/// Who delivers emails.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// <https://resend.com>, which knows idempotency keys.
    Resend,
    /// <https://sendgrid.com>, which knows none.
    SendGrid,
}

impl Provider {
    /// Its name in hookmill.toml and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resend => "resend",
            Self::SendGrid => "sendgrid",
        }
    }

    const fn batch_emails(self) -> usize {
        match self {
            Self::Resend => resend::BATCH_EMAILS,
            Self::SendGrid => sendgrid::BATCH_EMAILS,
        }
    }
}

/// A provider's API.
#[derive(Debug)]
pub struct Api {
    /// Whose.
    pub provider: Provider,
    /// Where it is.
    pub url: String,
    /// What opens it.
    pub key: Secret,
}

/// How emails are sent.
#[derive(Debug)]
pub struct Mail {
    /// Who is to deliver those that are sealed from now on.
    pub provider: Provider,
    /// The APIs there are keys for. Batches that were sealed for another provider than today's are sent by that.
    pub apis: Vec<Api>,
    /// Whose emails they are.
    pub from: Mailbox,
    /// Where answers go, if not to the sender, and a rule does not say.
    pub reply_to: Option<Mailbox>,
    /// When a batch is tried again, and when it is given up.
    pub retry: Retry,
    /// The texts.
    pub templates: Templates,
}

/// To whom an email goes, as the outbox has it: mailboxes as text.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Recipients {
    /// At least one.
    pub to: Vec<String>,
    /// Of a copy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cc: Vec<String>,
    /// Where answers go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Emails that the provider has accepted.
    pub accepted: usize,
    /// Emails that will not be sent, with the reason in the outbox.
    pub refused: usize,
    /// Batches that are left for later, each with what was the matter.
    pub later: Vec<String>,
    /// Emails of which nobody knows whether they were sent.
    pub in_doubt: usize,
}

/// Seals the emails that are due into batches: as many as go into one request. Whether there were any.
///
/// # Errors
///
/// If the store does not do it; nothing has been sealed then.
pub async fn seal<S: Store>(store: &S, mail: &Mail, now: Timestamp) -> Result<bool, StoreError> {
    let most = mail.provider.batch_emails();
    let rows = execute(store, vec![outbox::pending(now, most)]).await?;
    let pending = outbox::read_pending(rows.first().unwrap_or(&Vec::new()));
    if pending.is_empty() {
        return Ok(false);
    }
    let (mut keys, mut emails, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for email in &pending {
        match compose(mail, email) {
            Ok(composed) => {
                keys.push(email.key.clone());
                emails.push(composed);
            }
            Err(error) => refused.push((&email.key, error)),
        }
    }
    let mut statements = outbox::refuse(&refused, now);
    let batches: Vec<Vec<usize>> = match mail.provider {
        Provider::Resend => resend::batches(&emails),
        Provider::SendGrid => sendgrid::batches(&emails),
    };
    let sealing = batches.iter().filter_map(|batch| {
        let members = || batch.iter().filter_map(|place| emails.get(*place));
        let body = match mail.provider {
            Provider::Resend => resend::body(members()),
            Provider::SendGrid => sendgrid::body(members())?,
        };
        let emails: Vec<_> = batch.iter().filter_map(|place| keys.get(*place).cloned()).collect();
        let id = batch_id(&emails, now);
        Some(Sealing { id, provider: mail.provider.as_str().to_owned(), emails, body })
    });
    let sealing: Vec<_> = sealing.collect();
    statements.extend(outbox::seal(&sealing, now));
    execute(store, statements).await?;
    Ok(true)
}

/// The idempotency key of a batch. An email is sealed once, so no other batch has these.
fn batch_id(emails: &[EmailKey], now: Timestamp) -> String {
    let emails = serde_json::to_string(emails).unwrap_or_default();
    sha256_hex(&[emails.as_bytes(), b"\0", now.millis().to_string().as_bytes()])
}

/// The email, or why there can be none.
fn compose(mail: &Mail, pending: &Pending) -> Result<Email, String> {
    let recipients: Recipients = serde_json::from_str(&pending.recipients)
        .map_err(|_| "its recipients cannot be read".to_owned())?;
    let mailbox = |text: &String| {
        text.parse::<Mailbox>().map_err(|error| format!("one of its recipients is none: {error}"))
    };
    let to = recipients.to.iter().map(mailbox).collect::<Result<Vec<_>, _>>()?;
    if to.is_empty() {
        return Err("it has no recipient".to_owned());
    }
    let cc = recipients.cc.iter().map(mailbox).collect::<Result<Vec<_>, _>>()?;
    let reply_to = recipients.reply_to.as_ref().map(mailbox).transpose()?;
    let data =
        serde_json::from_str(&pending.data).map_err(|_| "its data cannot be read".to_owned())?;
    let texts =
        mail.templates.render(&pending.template, &data).map_err(|error| error.to_string())?;
    let bytes = texts.subject.len() + texts.html.len() + texts.text.len();
    if bytes > EMAIL_BYTES {
        return Err(format!("it has {bytes} bytes, and at most {EMAIL_BYTES} are sent"));
    }
    Ok(Email {
        from: mail.from.clone(),
        to,
        cc,
        reply_to: reply_to.or_else(|| mail.reply_to.clone()),
        subject: texts.subject,
        html: texts.html,
        text: texts.text,
    })
}

/// Providers that know a batch again by its key.
const REPEATABLE: [&str; 1] = [Provider::Resend.as_str()];

/// When a key must have been made to count still, with an hour to spare.
fn keys_count_since(now: Timestamp) -> Timestamp {
    let counts = resend::KEY_COUNTS.saturating_sub(std::time::Duration::from_secs(3600));
    let counts = i64::try_from(counts.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.millis().saturating_sub(counts))
}

/// Finds batches of which nobody knows whether they were sent: who sent them is gone, or their keys count no longer. Returns
/// how many emails are in them.
///
/// # Errors
///
/// If the store does not do it; they are found again.
pub async fn doubt<S: Store>(store: &S, now: Timestamp) -> Result<usize, StoreError> {
    let statement = outbox::doubtful(now, &REPEATABLE, keys_count_since(now));
    let rows = execute(store, vec![statement]).await?;
    let batches = outbox::read_taken(rows.first().unwrap_or(&Vec::new()));
    let error = "whoever sent it ended before the answer was written down, or its key is too old";
    let statements = batches.iter().flat_map(|batch| outbox::given_up(batch, error, true, now));
    execute(store, statements.collect()).await?;
    Ok(batches.iter().map(|batch| batch.emails.len()).sum())
}

/// Sends one batch that is due, if there is one, and writes down what the provider has said.
///
/// # Errors
///
/// If the store does not do it. A batch whose answer could not be written down is taken again when its lease has ended.
pub async fn send<S: Store, F: Fetch>(
    store: &S,
    fetch: &F,
    mail: &Mail,
    now: Timestamp,
) -> Result<Option<Sent>, StoreError> {
    let take = outbox::take(now, 1, &REPEATABLE, keys_count_since(now));
    let rows = execute(store, vec![take]).await?;
    let Some(batch) = outbox::read_taken(rows.first().unwrap_or(&Vec::new())).pop() else {
        return Ok(None);
    };
    let Some(api) = mail.apis.iter().find(|api| api.provider.as_str() == batch.provider) else {
        let error = format!("there is no key for {}", batch.provider);
        let (statements, sent) = later(&batch, mail.retry.max, error, now);
        execute(store, statements).await?;
        return Ok(Some(sent));
    };
    let request = match api.provider {
        Provider::Resend => resend::request(&api.url, &batch.id, batch.body.clone()),
        Provider::SendGrid => sendgrid::request(&api.url, batch.body.clone()),
    };
    let (answer, arrived) = match fetch.post(request, &api.key).await {
        Ok(response) => {
            let answer = match api.provider {
                Provider::Resend => resend::answer(batch.emails.len(), &response),
                Provider::SendGrid => sendgrid::answer(batch.emails.len(), &response),
            };
            (answer, true)
        }
        Err(FetchError::NotSent(error)) => (Answer::Unavailable(error), false),
        Err(FetchError::NoAnswer(error)) => (Answer::Unavailable(error), true),
    };
    let doubt = arrived && api.provider != Provider::Resend;
    let (statements, sent) = judge(mail, &batch, answer, doubt, now);
    execute(store, statements).await?;
    Ok(Some(sent))
}

/// What is written down of an answer. `doubt`: if the provider was away, it may have sent the batch all the same.
fn judge(
    mail: &Mail,
    batch: &Taken,
    answer: Answer,
    doubt: bool,
    now: Timestamp,
) -> (Vec<Statement>, Sent) {
    let emails = batch.emails.len();
    let later = |after, error| later(batch, after, error, now);
    let schedule = delay(&mail.retry, batch.attempts);
    match answer {
        Answer::Taken(said) => {
            let refused = said.iter().filter(|said| matches!(said, Delivered::Refused(_))).count();
            let sent = Sent { accepted: emails - refused, refused, ..Sent::default() };
            (outbox::delivered(batch, &said, now), sent)
        }
        // It has taken nothing, so waiting costs nothing but time.
        Answer::Busy { after, error } => {
            later(after.unwrap_or(schedule).min(mail.retry.max), error)
        }
        Answer::Unavailable(error) if !doubt && batch.attempts < mail.retry.max_attempts => {
            later(schedule, error)
        }
        // Some attempt may have arrived, so that it is not known to have been refused either.
        Answer::Unavailable(error) => {
            let error = format!("given up after attempt {}: {error}", batch.attempts);
            let in_doubt = Sent { in_doubt: emails, ..Sent::default() };
            (outbox::given_up(batch, &error, true, now), in_doubt)
        }
        Answer::Refused(error) => (
            outbox::given_up(batch, &error, false, now),
            Sent { refused: emails, ..Sent::default() },
        ),
    }
}

fn later(
    batch: &Taken,
    after: std::time::Duration,
    error: String,
    now: Timestamp,
) -> (Vec<Statement>, Sent) {
    let after = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
    let due_at = Timestamp::from_millis(now.millis().saturating_add(after));
    let statements = outbox::release(batch, due_at, &error);
    (statements, Sent { later: vec![error], ..Sent::default() })
}

/// The answers of a transaction, of which there may be none to do.
async fn execute<S: Store>(store: &S, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
    if statements.is_empty() { Ok(Vec::new()) } else { store.execute(statements).await }
}

/// How many emails there are in each state: for whoever watches.
///
/// # Errors
///
/// If the store does not answer.
pub async fn states<S: Store>(store: &S) -> Result<BTreeMap<String, u64>, StoreError> {
    let rows = store.execute(vec![outbox::states()]).await?;
    let count = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(state), Some(count)] => Some((state.clone(), count.parse().ok()?)),
        _ => None,
    };
    Ok(rows.iter().flatten().filter_map(count).collect())
}
