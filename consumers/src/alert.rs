//! Sends alerts by email and by webhook: when a condition begins, while it persists, and when it ends.
//!
//! The transaction that records a notification also writes its email into the outbox, and stores its webhook. The webhook
//! is sent until the receiver accepts it, each time under the same id, so the receiver can recognize repetitions.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookmill_config::{AlertUrl, Alerts, Consumers};
use hookmill_core::email::address_key;
use hookmill_core::fetch::Fetch;
use hookmill_core::json::to_json;
use hookmill_core::outbound::{ApiRequest, Authorization, Method};
use hookmill_core::params;
use hookmill_core::queue::Backlog;
use hookmill_core::secret::{ExposeSecret as _, Secret, SecretName};
use hookmill_core::store::{self, Statement, Store, StoreError, answer, read};
use hookmill_core::time::Timestamp;
use hookmill_dlq::{DriftStatus, PipelineStatus, SweepStatus, read_status, status};
use hookmill_rules::api::log;
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;

use crate::outbox::ChannelError;

/// The conditions of alerts and their recipients.
#[derive(Debug)]
pub struct Alarm {
    settings: Alerts,
    /// By source with `sweep`: the time between two sweeps, and the age of the oldest event in the provider's log.
    logs: BTreeMap<String, (Duration, Duration)>,
    /// The URL, and the key that signs.
    webhook: Option<(Secret, Secret)>,
}

impl Alarm {
    /// Reads the settings from a configuration; `None` without alerts.
    ///
    /// # Errors
    ///
    /// Every secret that is not set or not valid.
    pub fn new(
        config: &Consumers,
        lookup: impl Fn(&SecretName) -> Option<Secret>,
    ) -> Result<Option<Self>, Vec<ChannelError>> {
        let Some(settings) = config.alerts.clone() else { return Ok(None) };
        let window = |source| Some(log(config.apis.get(source)?.provider)?.window);
        let logs = config.sweeps.iter();
        let logs =
            logs.filter_map(|(source, every)| Some((source.clone(), (*every, window(source)?))));
        let logs = logs.collect();
        let Some(webhook) = &settings.webhook else {
            return Ok(Some(Self { settings, logs, webhook: None }));
        };
        let found = |name: &SecretName| {
            let found = lookup(name).map(|text| Secret::from(text.expose_secret().trim()));
            let found = found.filter(|text| !text.expose_secret().is_empty());
            found.ok_or_else(|| ChannelError::Alert(name.clone(), "is not set"))
        };
        let url = match &webhook.url {
            AlertUrl::Literal(url) => Ok(Secret::from(url.as_str())),
            AlertUrl::Named(name) => found(name).and_then(|url| {
                let is_url = url.expose_secret().starts_with("https://");
                is_url
                    .then_some(url)
                    .ok_or(ChannelError::Alert(name.clone(), "does not begin with https://"))
            }),
        };
        let secret = found(&webhook.secret).and_then(|secret| match key(&secret) {
            Some(_) => Ok(secret),
            None => Err(ChannelError::Alert(webhook.secret.clone(), "is not `whsec_` and base64")),
        });
        match (url, secret) {
            (Ok(url), Ok(secret)) => {
                Ok(Some(Self { settings, logs, webhook: Some((url, secret)) }))
            }
            (url, secret) => Err(url.err().into_iter().chain(secret.err()).collect()),
        }
    }
}

/// The signing key: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
fn key(secret: &Secret) -> Option<Vec<u8>> {
    let text = secret.expose_secret().strip_prefix("whsec_")?;
    STANDARD.decode(text).ok().filter(|key| !key.is_empty())
}

/// A condition of an alert.
struct AlertCondition {
    name: &'static str,
    is_so: bool,
    text: String,
    /// The text when the condition has ended.
    over: String,
}

/// The conditions in this status. A condition without a limit is never met.
fn conditions(alarm: &Alarm, status: &PipelineStatus, now: Timestamp) -> [AlertCondition; 6] {
    let settings = &alarm.settings;
    let waited = Duration::from_secs_f64(status.oldest_dead_letter.max(0.0));
    let lag = Duration::from_secs_f64(status.lag.max(0.0));
    let dead = status.dead();
    let by_reason = status.dead_letters.iter().map(|(reason, count)| format!("{count} {reason}"));
    let by_reason = by_reason.collect::<Vec<_>>().join(", ");
    let look = "`hookmill dead-letters groups` lists the errors.";
    let error = status.retrying_error.as_ref().map(|error| format!(", the last error: {error}"));
    let retrying = match (status.retrying, error.unwrap_or_default()) {
        (0, _) => String::new(),
        (1, error) => format!("; one event is being retried{error}"),
        (count, error) => format!("; {count} events are being retried{error}"),
    };
    let limit = |limit: Option<Duration>| format_duration(limit.unwrap_or_default());
    [
        AlertCondition {
            name: "oldest_dead_letter",
            is_so: dead > 0 && waited >= settings.oldest_dead_letter,
            text: format!(
                "A dead letter has waited for {}; there are {by_reason}. {look}",
                format_duration(waited)
            ),
            over: format!(
                "Over: no dead letter has waited for {}.",
                format_duration(settings.oldest_dead_letter)
            ),
        },
        AlertCondition {
            name: "dead_letters",
            is_so: settings.dead_letters.is_some_and(|limit| dead >= i64::from(limit)),
            text: format!("{dead} dead letters are waiting: {by_reason}. {look}"),
            over: format!(
                "Over: {dead} dead letters are waiting, fewer than {}.",
                settings.dead_letters.unwrap_or_default()
            ),
        },
        AlertCondition {
            name: "lag",
            is_so: settings.lag.is_some_and(|limit| lag >= limit),
            text: format!(
                "An event has taken {} from ingress to its tables, or has waited for so long{retrying}.",
                format_duration(lag)
            ),
            over: format!("Over: events take less than {} again.", limit(settings.lag)),
        },
        AlertCondition {
            name: "database",
            is_so: status.database.is_some_and(|size| size >= settings.database),
            text: format!(
                "The database has {}. If it is full, the pipeline stops: on Cloudflare at 10 GB, or 500 MB on the free plan. \
                 `[retention]` in hookmill.toml says how long rows are kept.",
                format_size(status.database.unwrap_or_default())
            ),
            over: format!("Over: the database has less than {}.", format_size(settings.database)),
        },
        sweep(alarm, status, now),
        drift(status),
    ]
}

/// The delay of a sweep that raises an alert.
const LATE: Duration = Duration::from_secs(3600);

/// The condition that a sweep is late.
fn sweep(alarm: &Alarm, status: &PipelineStatus, now: Timestamp) -> AlertCondition {
    let late = status.sweeps.iter().filter_map(|sweep| {
        let (every, window) = alarm.logs.get(&sweep.source)?;
        let is_late = now - sweep.swept_to > *every + LATE;
        let error = sweep.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let SweepStatus { source, swept_to, .. } = sweep;
        is_late.then(|| {
            format!(
                "Hookmill has not read the events of {source} since {swept_to}{error}. The provider removes the first of them at {}.",
                *swept_to + *window
            )
        })
    });
    let texts: Vec<_> = late.collect();
    AlertCondition {
        name: "sweep",
        is_so: !texts.is_empty(),
        text: format!("{} Events that were not delivered may be missing.", texts.join(" ")),
        over: "Over: the sweeps are up to date again.".to_owned(),
    }
}

/// The condition that a reconciliation found differences, or is paused.
fn drift(status: &PipelineStatus) -> AlertCondition {
    let text = |drift: &DriftStatus| {
        let DriftStatus { source, id, rows, error } = drift;
        match error {
            Some(error) => format!("The reconciliation {id} of {source} is paused: {error}."),
            None => format!(
                "{rows} rows differ from the API of {source}: `hookmill replays show {id}` says which tables, \
                 and `hookmill reconcile {source} --repair` repairs them."
            ),
        }
    };
    let texts: Vec<_> = status.drifts.iter().map(text).collect();
    AlertCondition {
        name: "drift",
        is_so: !texts.is_empty(),
        text: texts.join(" "),
        over: "Over: the last reconciliations found no differences.".to_owned(),
    }
}

/// In decimal units, as Cloudflare's limits: `8.0 GB`.
fn format_size(bytes: u64) -> String {
    let megabytes = bytes / 1_000_000;
    if megabytes < 1000 {
        format!("{megabytes} MB")
    } else {
        format!("{}.{} GB", megabytes / 1000, megabytes % 1000 / 100)
    }
}

/// Days, hours, minutes and seconds; the first two units that are not zero: `1h 5m`.
fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let parts = parts.into_iter().skip_while(|(count, _)| *count == 0).take(2);
    let parts: Vec<_> = parts
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// The last notification of an alert.
#[derive(Deserialize)]
struct Notified {
    name: String,
    since: Timestamp,
    /// When it was sent.
    told_at: Timestamp,
    #[serde(deserialize_with = "store::flag")]
    ended: bool,
}

/// A webhook that its receiver has not accepted.
#[derive(Deserialize)]
struct PendingWebhook {
    name: String,
    /// JSON: its id and its body.
    pending: String,
}

/// A notification that is due.
struct Notice {
    /// `alert.raised`, `alert.repeated` or `alert.ended`.
    kind: &'static str,
    name: &'static str,
    since: Timestamp,
    text: String,
    /// When the last notification of this alert was sent.
    before: Option<Timestamp>,
}

/// The notifications that are due: an alert was raised, persists after `repeat`, or ended.
fn notices(
    alarm: &Alarm,
    status: &PipelineStatus,
    notified: &[Notified],
    now: Timestamp,
) -> Vec<Notice> {
    let notice = |condition: AlertCondition| {
        let AlertCondition { name, is_so, text, over } = condition;
        let last = notified.iter().find(|earlier| earlier.name == name);
        let before = last.filter(|earlier| !earlier.ended);
        let (kind, since, text) = match (is_so, before) {
            (true, None) => ("alert.raised", now, text),
            // A time in the future comes from a clock that was ahead. That notification was sent before now.
            (true, Some(before))
                if now >= before.told_at + alarm.settings.repeat
                    || before.told_at > now.horizon(Duration::ZERO) =>
            {
                ("alert.repeated", before.since, text)
            }
            (false, Some(before)) => ("alert.ended", before.since, over),
            _ => return None,
        };
        Some(Notice { kind, name, since, text, before: last.map(|earlier| earlier.told_at) })
    };
    conditions(alarm, status, now).into_iter().filter_map(notice).collect()
}

const NOTIFIED: &str = "\
-- notifications
SELECT name, since, told_at, ended FROM alerts";

/// `?5` the body of the webhook, `?6` the time of the last notification, as it was read: of two processes, one sends the
/// notification. The id is random, since two Hookmills may send the same notification in the same minute.
const TRANSITION: &str = "\
-- record a notification
INSERT INTO alerts (name, since, told_at, ended, pending)
VALUES (?1, ?2, ?3, ?4,
    iif(?5 IS NULL, NULL, json_array(lower(hex(randomblob(16))), ?5)))
ON CONFLICT (name) DO UPDATE SET since = excluded.since, told_at = excluded.told_at, ended = excluded.ended,
    pending = excluded.pending
WHERE told_at = ?6";

/// Directly after [`TRANSITION`]. `?1` a name in place of an event's id, `?2` the recipient, `?3` the content, `?4` now.
const EMAIL: &str = "\
-- its email
INSERT INTO outbox (id, source, event_id, generation, rule, channel, recipient, content, due_at, created_at)
SELECT lower(hex(randomblob(32))), 'hookmill', ?1, 0, 'alert', 'email', ?2, ?3, ?4, ?4
WHERE changes() > 0";

const PENDING: &str = "\
-- pending webhooks
SELECT name, pending FROM alerts WHERE pending IS NOT NULL";

const ARRIVED: &str = "\
-- a webhook was accepted
UPDATE alerts SET pending = NULL WHERE name = ?1 AND pending = ?2";

const OVER: &str = "\
-- forget ended alerts
DELETE FROM alerts WHERE ended = 1 AND pending IS NULL";

/// The result of [`look()`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Looked {
    /// The texts of new notifications.
    pub notified: Vec<String>,
    /// Why a webhook was not accepted; the next call sends it again.
    pub problems: Vec<String>,
}

/// Checks the conditions and sends notifications. Call it every minute, with the backlog of the queue of events.
///
/// # Errors
///
/// If the store fails. The next call sends the notifications that were not recorded.
pub async fn look<S: Store, F: Fetch>(
    store: &S,
    fetch: &F,
    alarm: &Alarm,
    backlog: &Backlog,
    now: Timestamp,
) -> Result<Looked, StoreError> {
    let mut looked = Looked::default();
    let pending = || [OVER, PENDING].map(|sql| Statement::new(sql, Vec::new()));
    let mut statements = vec![status(now), Statement::new(NOTIFIED, Vec::new())];
    statements.extend(pending());
    let mut rows = store.execute(statements).await?;
    let Some(found) = read_status(answer(&rows, 0))? else { return Ok(looked) };
    let mut found = found.with_backlog(backlog, now);
    found.database = store.size().await;
    let notified: Vec<Notified> = read(answer(&rows, 1))?;
    let mut statements = Vec::new();
    for notice in notices(alarm, &found, &notified, now) {
        statements.extend(transition(alarm, &notice, now));
        looked.notified.push(notice.text);
    }
    if !statements.is_empty() {
        statements.extend(pending());
        rows = store.execute(statements).await?;
    }
    let Some((url, secret)) = &alarm.webhook else { return Ok(looked) };
    let mut arrived = Vec::new();
    for PendingWebhook { name, pending } in read(rows.last().map_or(&[], Vec::as_slice))? {
        let Some(request) = request(url, secret, &pending, now) else { continue };
        match fetch.ask(request, &Secret::from("")).await {
            Ok(answer) if (200..300).contains(&answer.status) => {
                arrived.push(Statement::new(ARRIVED, params![name, pending]));
            }
            Ok(answer) => {
                let status = answer.status;
                looked.problems.push(format!("the alert webhook responded with {status}"));
            }
            Err(error) => looked.problems.push(format!("the alert webhook: {error}")),
        }
    }
    if !arrived.is_empty() {
        arrived.push(Statement::new(OVER, Vec::new()));
        store.execute(arrived).await?;
    }
    Ok(looked)
}

/// The time between two notifications of an outage.
const OUTAGE: i64 = 15;

/// Tells the webhook that the store is unavailable, which no other alert can: they are recorded in the store. Returns the
/// text of the notification, or why it was not accepted. Call it every minute of an outage; it sends every quarter of an
/// hour, so that it needs no memory.
pub async fn tell_outage<F: Fetch>(
    fetch: &F,
    alarm: &Alarm,
    error: &StoreError,
    now: Timestamp,
) -> Option<Result<String, String>> {
    let (url, secret) = alarm.webhook.as_ref()?;
    let minute = now.seconds().div_euclid(60);
    if minute % OUTAGE != 0 {
        return None;
    }
    let text = format!("{error}. Events wait on the queue, and are applied when it works again.");
    let data = json!({
        "alert": "outage", "hookmill": alarm.settings.name, "since": now.to_string(), "message": text
    });
    let body = json!({ "type": "alert.raised", "timestamp": now.to_string(), "data": data });
    // The receiver recognizes the same outage, told by two processes.
    let pending = to_json(&(format!("outage-{minute}"), body.to_string()));
    let request = request(url, secret, &pending, now)?;
    Some(match fetch.ask(request, &Secret::from("")).await {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(text),
        Ok(answer) => Err(format!("the alert webhook responded with {}", answer.status)),
        Err(error) => Err(format!("the alert webhook: {error}")),
    })
}

/// Records a notification, and writes its email.
fn transition(alarm: &Alarm, notice: &Notice, now: Timestamp) -> Vec<Statement> {
    let Notice { kind, name, since, text, before } = notice;
    let ended = *kind == "alert.ended";
    let whose = &alarm.settings.name;
    let data =
        json!({ "alert": name, "hookmill": whose, "since": since.to_string(), "message": text });
    let body = json!({ "type": kind, "timestamp": now.to_string(), "data": data }).to_string();
    let body = alarm.webhook.is_some().then_some(body);
    let params = params![*name, *since, now, ended, body, *before];
    let mut statements = vec![Statement::new(TRANSITION, params)];
    if let Some(to) = &alarm.settings.email {
        let whose = alarm.settings.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        let what = name.replace('_', " ");
        let subject = match *kind {
            "alert.ended" => format!("Hookmill{whose}, over: {what}"),
            "alert.repeated" => format!("Hookmill{whose}, still: {what}"),
            _ => format!("Hookmill{whose}: {what}"),
        };
        let content = json!({ "to": [to.to_string()], "literal": [subject, text] }).to_string();
        let about = format!("{kind}-{name}");
        let params = params![about, address_key(&to.to_string()), content, now];
        statements.push(Statement::new(EMAIL, params));
    }
    statements
}

/// The webhook, signed with the time `now`.
fn request(url: &Secret, secret: &Secret, pending: &str, now: Timestamp) -> Option<ApiRequest> {
    let (id, body): (String, String) = serde_json::from_str(pending).ok()?;
    let at = now.seconds().to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key(secret)?).ok()?;
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    Some(ApiRequest {
        method: Method::Post,
        url: url.expose_secret().to_owned(),
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("webhook-id", id),
            ("webhook-timestamp", at),
            ("webhook-signature", signature),
        ],
        authorization: Authorization::None,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_decimal_units() {
        for (bytes, expected) in [
            (0, "0 MB"),
            (999_999_999, "999 MB"),
            (1_000_000_000, "1.0 GB"),
            (8_590_000_000, "8.5 GB"),
        ] {
            assert_eq!(format_size(bytes), expected);
        }
    }

    #[test]
    fn a_duration_has_at_most_two_units() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3600, "1h"),
            (3_905, "1h 5m"),
            (90_000, "1d 1h"),
            (86_401, "1d"),
        ] {
            assert_eq!(format_duration(Duration::from_secs(seconds)), expected);
        }
    }
}
