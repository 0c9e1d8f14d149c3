//! Sends what is in the outbox. What decides is pure and elsewhere; this carries it out, step by step, so that whoever dies
//! between two steps leaves a state from which another goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_core::config::{Consumers, Emails, OnDoubt, Retry};
use hookmill_core::email::{Email, Mailbox, address_key};
use hookmill_core::fetch::{Fetch, FetchError};
use hookmill_core::hash::sha256_hex;
use hookmill_core::limits::EMAIL_BYTES;
use hookmill_core::outbound::{Answer, Delivered, Provider};
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::store::{Rows, Statement, Store, StoreError};
use hookmill_core::template::{Rendered, TemplateError, Templates};
use hookmill_core::time::Timestamp;
use hookmill_providers::{resend, sendgrid};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::outbox::{self, End, Pending, Sealing, Sender, Taken};
use crate::retry::delay;

/// What emails have in the column `channel`.
pub(crate) const CHANNEL: &str = "email";
/// How long another stands in for a provider that is away.
const AWAY: Duration = Duration::from_secs(5 * 60);
/// How long a batch is tried under the same key: as long as that counts at Resend, with an hour to spare.
const TRIED: Duration = resend::KEY_COUNTS.saturating_sub(Duration::from_secs(3600));
/// The least time between two rounds, so that one which could do nothing is not tried in a spin.
const PAUSE: Duration = Duration::from_millis(20);

/// How emails are sent, with what that takes.
#[derive(Debug)]
pub struct Mail {
    settings: Emails,
    /// In the order of the settings.
    keys: Vec<Secret>,
    retry: Retry,
    templates: Templates,
}

/// Why no email can be sent.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum NoMail {
    /// A key is not set.
    #[error("{} is not set: it is the key for {}", .0.0, .1.as_str())]
    Key(SecretName, Provider),
    /// A template has a fault.
    #[error("{0}")]
    Template(TemplateError),
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Emails that a provider has accepted.
    pub accepted: usize,
    /// Emails that will not be sent, with the reason in the outbox.
    pub refused: usize,
    /// Emails to addresses that are not to be written to.
    pub suppressed: usize,
    /// Emails of which nobody knows whether they were sent.
    pub in_doubt: usize,
    /// What was the matter with batches that are tried again or were given up, and quotas that are nearly used up.
    pub problems: Vec<String>,
}

impl Sent {
    /// Emails by state, as the outbox calls it; those of which there are any.
    pub fn states(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let states = [
            ("sent", self.accepted),
            ("refused", self.refused),
            ("suppressed", self.suppressed),
            ("in_doubt", self.in_doubt),
        ];
        states.into_iter().filter(|(_, emails)| *emails > 0)
    }
}

/// What a round came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Round {
    /// What was done.
    pub sent: Sent,
    /// When there is something to do; none if the outbox is empty.
    pub next: Option<Timestamp>,
}

/// What an email has in the column `content`.
#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    template: String,
    /// What it says, if no template does: a subject and a text.
    literal: Option<(String, String)>,
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    cc: Vec<String>,
    reply_to: Option<String>,
    #[serde(default)]
    data: Map<String, Value>,
    /// How many bytes it would have had, if these were too many to be kept.
    too_long: Option<usize>,
}

impl Mail {
    /// Takes what is needed out of a configuration; `None` if it sends no emails.
    ///
    /// # Errors
    ///
    /// If a key is not set; or a template has a fault, which a checked configuration has not.
    pub fn new(
        config: &Consumers,
        lookup: impl Fn(&SecretName) -> Option<Secret>,
    ) -> Result<Option<Self>, NoMail> {
        let Some(settings) = config.emails.clone() else { return Ok(None) };
        let keys = settings
            .apis
            .iter()
            .map(|api| lookup(&api.key).ok_or_else(|| NoMail::Key(api.key.clone(), api.provider)));
        let keys = keys.collect::<Result<_, _>>()?;
        let templates = Templates::new(&config.templates)
            .map_err(|mut errors| NoMail::Template(errors.swap_remove(0)))?;
        Ok(Some(Self { settings, keys, retry: config.retry.clone(), templates }))
    }

    fn providers(&self) -> impl Iterator<Item = Provider> {
        self.settings.apis.iter().map(|api| api.provider)
    }

    /// Who is to deliver what is sealed now: the first that is not away; the first, if all are.
    fn chosen(&self, senders: &[Sender], now: Timestamp) -> Option<Provider> {
        let away = |provider: &Provider| {
            senders.iter().any(|s| s.provider == provider.as_str() && s.away_until > now)
        };
        self.providers().find(|provider| !away(provider)).or_else(|| self.providers().next())
    }
}

const fn batch_emails(provider: Provider) -> usize {
    match provider {
        Provider::Resend | Provider::Local => resend::BATCH_EMAILS,
        Provider::SendGrid => sendgrid::BATCH_EMAILS,
    }
}

/// Takes up at once what others were sending; for whoever knows that they are gone.
///
/// # Errors
///
/// If the store does not do it; then it is taken up when the leases end.
pub async fn resume<S: Store>(store: &S, now: Timestamp) -> Result<(), StoreError> {
    store.execute(vec![outbox::free(now)]).await.map(drop)
}

/// Does what there is to do: seals what is due, and sends a batch through each provider.
///
/// What it does to the world, and why doing it again, or twice at a time, is harmless:
///
/// 1. batches that nobody can bring to an end any more are settled;
/// 2. what is due is sealed into batches: of two that would seal the same email, the transaction lets one;
/// 3. a batch is taken, so that nobody else does for [`outbox::LEASE`]; sent; and what the provider says is written down.
///
/// # Errors
///
/// If the store does not do its part. What was being sent is taken up again when its lease has ended.
pub async fn round<S: Store, F: Fetch>(
    store: &S,
    fetch: &F,
    mail: &Mail,
    now: impl Fn() -> Timestamp,
) -> Result<Round, StoreError> {
    let mut sent = Sent::default();
    for provider in mail.providers() {
        doubt(store, mail, provider, now(), &mut sent).await?;
    }
    while seal(store, mail, now(), &mut sent).await? {}
    for place in 0..mail.keys.len() {
        let before = sent.accepted;
        send(store, fetch, mail, place, &now, &mut sent).await?;
        if sent.accepted > before {
            warn(store, mail, place, now(), &mut sent).await?;
        }
    }
    let providers: Vec<_> = mail.providers().map(Provider::as_str).collect();
    let rows = store.execute(vec![outbox::next(CHANNEL, &providers)]).await?;
    let (pending, batch) = outbox::read_next(&rows);
    let next = pending.map(|due_at| due_at + mail.settings.wait).into_iter().chain(batch).min();
    Ok(Round { sent, next: next.map(|next| next.max(now() + PAUSE)) })
}

/// Settles batches of which nobody knows whether they were sent, since whoever sent them is gone; and those that were tried for
/// too long.
async fn doubt<S: Store>(
    store: &S,
    mail: &Mail,
    provider: Provider,
    now: Timestamp,
    sent: &mut Sent,
) -> Result<(), StoreError> {
    let rows = store.execute(vec![outbox::doubtful(provider, now, now - TRIED)]).await?;
    for batch in outbox::read_doubtful(&rows) {
        let statements = if batch.arrived {
            let error =
                "whoever sent it ended before the answer was written down, or its key is too old";
            in_doubt(mail, &batch, error, now, sent)
        } else {
            let error = format!("given up after {} attempts in {TRIED:?}", batch.attempts);
            refused(&batch, &error, now, sent)
        };
        store.execute(statements).await?;
    }
    Ok(())
}

/// Seals what is due into batches: as many emails as go into one request. Whether there may be more.
async fn seal<S: Store>(
    store: &S,
    mail: &Mail,
    now: Timestamp,
    sent: &mut Sent,
) -> Result<bool, StoreError> {
    let most = mail.providers().map(batch_emails).max().unwrap_or_default();
    let (mut pending, senders) =
        outbox::read_pending(&store.execute(outbox::pending(CHANNEL, now, most)).await?);
    let Some(provider) = mail.chosen(&senders, now) else { return Ok(false) };
    let most = batch_emails(provider);
    pending.truncate(most);
    let full = pending.len() == most;
    let waits = |oldest: &Pending| !full && oldest.due_at + mail.settings.wait > now;
    if pending.first().is_none_or(waits) {
        return Ok(false);
    }
    let (mut emails, mut refused) = (Vec::new(), Vec::new());
    for pending in &pending {
        match compose(mail, pending) {
            Ok(email) => emails.push(email),
            Err(error) => refused.push((pending.id.as_str(), "refused", error)),
        }
    }
    let (emails, suppressed) = without_suppressed(store, emails).await?;
    sent.refused += refused.len();
    sent.suppressed += suppressed.len();
    refused.extend(suppressed.iter().map(|(id, why)| (id.as_str(), "suppressed", why.clone())));
    let mut statements = outbox::seal(&batches(provider, &emails, now), now);
    let sealing = statements.len();
    statements.extend(outbox::refuse(&refused, now));
    if statements.is_empty() {
        return Ok(false);
    }
    let rows = store.execute(statements).await?;
    let sealed = rows.iter().take(sealing).flatten().count();
    // If another seals at the same time, the rest is left to that.
    Ok(full && (sealed > 0 || !refused.is_empty()))
}

/// Batches of emails, each with its body and its key.
fn batches(provider: Provider, emails: &[Email], now: Timestamp) -> Vec<Sealing> {
    let batches = match provider {
        Provider::Resend | Provider::Local => resend::batches(emails),
        Provider::SendGrid => sendgrid::batches(emails),
    };
    let sealing = |batch: Vec<usize>| {
        let members = || batch.iter().filter_map(|place| emails.get(*place));
        let body = match provider {
            Provider::Resend | Provider::Local => resend::body(members()),
            Provider::SendGrid => sendgrid::body(members())?,
        };
        let members: Vec<_> = members().map(|email| email.id.clone()).collect();
        // No other batch has these at this time, so the key is its own.
        let key = format!("{}\0{}\0{}", provider.as_str(), now.millis(), members.join("\0"));
        Some(Sealing { id: sha256_hex(&[key.as_bytes()]), provider, members, body })
    };
    batches.into_iter().filter_map(sealing).collect()
}

/// The email, or why there can be none.
fn compose(mail: &Mail, pending: &Pending) -> Result<Email, String> {
    let content: Content = serde_json::from_str(&pending.content)
        .map_err(|_| "what the rule has made of its event is no email".to_owned())?;
    if let Some(bytes) = content.too_long {
        return Err(too_long(bytes));
    }
    let mailbox = |text: &String| {
        text.parse::<Mailbox>().map_err(|error| format!("one of its recipients is none: {error}"))
    };
    let to = content.to.iter().map(mailbox).collect::<Result<Vec<_>, _>>()?;
    if to.is_empty() {
        return Err("it has no recipient".to_owned());
    }
    let cc = content.cc.iter().map(mailbox).collect::<Result<Vec<_>, _>>()?;
    let reply_to = content.reply_to.as_ref().map(mailbox).transpose()?;
    let texts = match content.literal {
        Some((subject, text)) => Rendered { subject, html: format!("<p>{text}</p>"), text },
        None => mail
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
        from: mail.settings.from.clone(),
        to,
        cc,
        reply_to: reply_to.or_else(|| mail.settings.reply_to.clone()),
        subject: texts.subject,
        html: texts.html,
        text: texts.text,
    })
}

fn too_long(bytes: usize) -> String {
    format!("it has {bytes} bytes, and at most {EMAIL_BYTES} are sent")
}

/// Leaves out recipients who are not to be written to; and emails, with the reason, to whom nobody else is left.
async fn without_suppressed<S: Store>(
    store: &S,
    mut emails: Vec<Email>,
) -> Result<(Vec<Email>, Vec<(String, String)>), StoreError> {
    let key = |mailbox: &Mailbox| address_key(&mailbox.address);
    let addresses = emails.iter().flat_map(|email| email.to.iter().chain(&email.cc)).map(key);
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    let mut left_out = Vec::new();
    if addresses.is_empty() {
        return Ok((emails, left_out));
    }
    let rows = store.execute(vec![outbox::suppressed(&addresses)]).await?;
    let pair = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(address), Some(reason)] => Some((address.clone(), reason.clone())),
        _ => None,
    };
    let suppressed: BTreeMap<_, _> = rows.iter().flatten().filter_map(pair).collect();
    if suppressed.is_empty() {
        return Ok((emails, left_out));
    }
    emails.retain_mut(|email| {
        let reason = email.to.first().and_then(|to| suppressed.get(&key(to)));
        let reason = reason.map(|reason| format!("its recipient is suppressed: {reason}"));
        email.to.retain(|to| !suppressed.contains_key(&key(to)));
        email.cc.retain(|cc| !suppressed.contains_key(&key(cc)));
        let left = !email.to.is_empty();
        if !left {
            left_out.push((email.id.clone(), reason.unwrap_or_default()));
        }
        left
    });
    Ok((emails, left_out))
}

/// Sends one batch through an API, if one is due and the provider is to be asked now; and writes down what it has said.
async fn send<S: Store, F: Fetch>(
    store: &S,
    fetch: &F,
    mail: &Mail,
    place: usize,
    now: impl Fn() -> Timestamp,
    sent: &mut Sent,
) -> Result<(), StoreError> {
    let (Some(api), Some(key)) = (mail.settings.apis.get(place), mail.keys.get(place)) else {
        return Ok(());
    };
    let start = now();
    let interval = Duration::from_secs(1) / api.rate.max(1);
    let rows = store.execute(outbox::take(api.provider, start, interval, start - TRIED)).await?;
    let Some(batch) = outbox::read_taken(&rows) else { return Ok(()) };
    let request = match api.provider {
        Provider::Resend | Provider::Local => {
            resend::request(&api.url, &batch.id, batch.body.clone())
        }
        Provider::SendGrid => sendgrid::request(&api.url, batch.body.clone()),
    };
    let emails = batch.members.len();
    let (answer, arrived) = match fetch.post(request, key).await {
        Ok(response) => {
            let answer = match api.provider {
                Provider::Resend | Provider::Local => resend::answer(emails, &response),
                Provider::SendGrid => sendgrid::answer(emails, &response),
            };
            (answer, true)
        }
        Err(error @ FetchError::NotSent(_)) => (Answer::Unavailable(error.to_string()), false),
        Err(error @ FetchError::NoAnswer(_)) => (Answer::Unavailable(error.to_string()), true),
    };
    let statements = judge(mail, api.provider, &batch, answer, arrived, now(), sent);
    store.execute(statements).await.map(drop)
}

/// What is written down of an answer. `arrived`: if the provider was away, it may have taken the batch all the same.
fn judge(
    mail: &Mail,
    provider: Provider,
    batch: &Taken,
    answer: Answer,
    arrived: bool,
    now: Timestamp,
    sent: &mut Sent,
) -> Vec<Statement> {
    let schedule = delay(&mail.retry, batch.attempts);
    match answer {
        Answer::Taken(said) => {
            let refused = said.iter().filter(|said| matches!(said, Delivered::Refused(_))).count();
            sent.refused += refused;
            sent.accepted += said.len() - refused;
            outbox::delivered(provider, batch, &said, now)
        }
        // It has taken nothing, so waiting costs nothing but time; and it wants to be left alone altogether.
        Answer::Busy { after, error } => {
            let due_at = now + after.unwrap_or(schedule).min(mail.retry.max);
            sent.problems.push(error.clone());
            vec![
                outbox::release(batch, due_at, &error, false),
                outbox::note(provider, due_at, false, None),
            ]
        }
        Answer::Unavailable(error) => {
            let may_have_it = arrived || batch.arrived;
            let away = batch.failures + 1 >= mail.settings.failover_after && mail.keys.len() > 1;
            let mut statements =
                vec![outbox::note(provider, now, true, away.then_some(now + AWAY))];
            if may_have_it && !provider.knows_keys() {
                statements.extend(in_doubt(mail, batch, &error, now, sent));
                return statements;
            }
            if away && !may_have_it {
                statements.extend(outbox::dissolve(batch, &error, now));
            } else {
                statements.push(outbox::release(batch, now + schedule, &error, arrived));
            }
            sent.problems.push(error);
            statements
        }
        Answer::Refused(error) => {
            let mut statements = if batch.arrived {
                in_doubt(mail, batch, &error, now, sent)
            } else {
                refused(batch, &error, now, sent)
            };
            // Whatever it thinks of the batch, it answers.
            statements.push(outbox::note(provider, now, false, None));
            statements
        }
    }
}

/// Says once for each day or month that its quota is nearly used up.
async fn warn<S: Store>(
    store: &S,
    mail: &Mail,
    place: usize,
    now: Timestamp,
    sent: &mut Sent,
) -> Result<(), StoreError> {
    // The quota is that of the first provider; another only stands in.
    let (Some(quota), Some(provider), 0) =
        (&mail.settings.quota, mail.providers().nth(place), place)
    else {
        return Ok(());
    };
    let (day, month) = (quota.threshold(quota.day), quota.threshold(quota.month));
    let rows = store.execute(vec![outbox::used(provider, now, day, month)]).await?;
    for (period, emails) in outbox::read_used(&rows) {
        let daily = period == now.day();
        let most = if daily { quota.day } else { quota.month }.unwrap_or_default();
        let name = provider.as_str();
        let warning = format!("{emails} of {most} emails of {period} have been sent by {name}");
        let mut statements = vec![outbox::warned(provider, &period, now)];
        if let Some(to) = &quota.notify {
            let about = format!("quota-{name}-{period}");
            let id = sha256_hex(&[about.as_bytes()]);
            let subject = format!("Hookmill: the quota of {name} is nearly used up");
            let content = json!({ "to": [to.to_string()], "literal": [subject, warning] });
            statements.push(outbox::write(&id, &about, "quota", &content.to_string(), now));
        }
        store.execute(statements).await?;
        sent.problems.push(warning);
    }
    Ok(())
}

fn refused(batch: &Taken, error: &str, now: Timestamp, sent: &mut Sent) -> Vec<Statement> {
    sent.refused += batch.members.len();
    sent.problems.push(error.to_owned());
    outbox::end(batch, End::Refused, error, now)
}

/// Ends a batch of which nobody knows whether it was sent: its emails are left in doubt, or sent again in another.
fn in_doubt(
    mail: &Mail,
    batch: &Taken,
    error: &str,
    now: Timestamp,
    sent: &mut Sent,
) -> Vec<Statement> {
    let error = format!("it may have been sent: {error}");
    let mut statements = Vec::new();
    if mail.settings.on_doubt == OnDoubt::Resend {
        let due_at = now + mail.retry.initial;
        statements.push(outbox::put_back(batch, due_at, &error, mail.retry.max_attempts));
    }
    statements.extend(outbox::end(batch, End::InDoubt, &error, now));
    sent.in_doubt += batch.members.len();
    sent.problems.push(error);
    statements
}

/// How many emails there are in each state: for whoever watches.
///
/// # Errors
///
/// If the store does not answer.
pub async fn states<S: Store>(store: &S) -> Result<BTreeMap<String, u64>, StoreError> {
    let rows: Vec<Rows> = store.execute(vec![outbox::states()]).await?;
    let count = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(state), Some(count)] => Some((state.clone(), count.parse().ok()?)),
        _ => None,
    };
    Ok(rows.iter().flatten().filter_map(count).collect())
}
