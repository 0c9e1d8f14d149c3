//! The outbox: emails, SMS and tracking events, and suppressions.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use hookmill_core::email::address_key;
use hookmill_core::json::to_json;
use hookmill_core::params;
use hookmill_core::store::Statement;
use hookmill_core::time::Timestamp;
use hookmill_core::words::{self, AuditAction, Channel, OutboxState, Unsent};
use hookmill_dlq::kinds::{OUTBOX_KIND, UNSENT_KIND, kinds, of_kind};
use hookmill_dlq::replay::check_blank;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::actor::Actor;
use crate::audit::{Because, audit, reason};
use crate::page::{Page, Paging};
use crate::platform::{Admin, given};
use crate::problem::{Body, Path, Problem, Query};

const SUPPRESSIONS: &str = "\
-- suppressions
SELECT json_object('address', address, 'group', group_id, 'reason', reason, 'source', source, 'event_id', event_id,
    'created_at', created_at)
FROM (
    SELECT * FROM (
        SELECT address, NULL AS group_id, reason, source, event_id, created_at, json_array(address, NULL, reason) AS id
        FROM suppressions
        WHERE ?1 IS NULL OR created_at < ?1 OR (created_at = ?1 AND json_array(address, NULL, reason) < ?2)
        ORDER BY created_at DESC, id DESC LIMIT ?3
    )
    UNION ALL
    SELECT * FROM (
        SELECT address, group_id, reason, source, event_id, created_at, json_array(address, group_id, reason) AS id
        FROM group_suppressions
        WHERE ?1 IS NULL OR created_at < ?1 OR (created_at = ?1 AND json_array(address, group_id, reason) < ?2)
        ORDER BY created_at DESC, id DESC LIMIT ?3
    )
)
ORDER BY created_at DESC, id DESC LIMIT ?3";

/// Lifts the suppressions of an address. `row_guards` stores that they were lifted, as a rule's `lift` does. The clock of a
/// provider may be ahead, so a lift is newer than each suppression. `?1` address, `?2` now in microseconds.
const LIFT: [&str; 2] = [
    "\
-- lift the suppressions of an address
INSERT INTO row_guards (table_name, key, version, precedence, event_id)
SELECT 'suppressions', json_array(address, reason), max(?2, version + 1), 0, '' FROM suppressions WHERE address = ?1
ON CONFLICT (table_name, key) DO UPDATE SET version = excluded.version, event_id = excluded.event_id",
    "\
-- send to an address again
DELETE FROM suppressions WHERE address = ?1 RETURNING address",
];

/// The same for a group. `?1` address, `?2` group, `?3` now in microseconds.
const LIFT_IN_GROUP: [&str; 2] = [
    "\
-- lift the suppressions of an address in a group
INSERT INTO row_guards (table_name, key, version, precedence, event_id)
SELECT 'group_suppressions', json_array(address, group_id, reason), max(?3, version + 1), 0, '' FROM group_suppressions
WHERE address = ?1 AND group_id = ?2
ON CONFLICT (table_name, key) DO UPDATE SET version = excluded.version, event_id = excluded.event_id",
    "\
-- send to an address again in a group
DELETE FROM group_suppressions WHERE address = ?1 AND group_id = ?2 RETURNING address",
];

const RETRY: &str = "\
-- send again
UPDATE outbox SET state = 'pending', batch = NULL, attempts = 0, due_at = ?1, error = NULL,
    together = NULL, skipped_recipients = NULL, settled_at = NULL
WHERE state = ?2 AND (?3 IS NULL OR rule = ?3) AND (?4 IS NULL OR substr(id, 1, length(?4)) = ?4)
RETURNING id";

/// An email, SMS or tracking event that a rule sends. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Outgoing {
    id: String,
    source: String,
    event_id: String,
    rule: String,
    /// `email`, `sms`, or the provider of the tracking event.
    channel: String,
    /// The first address, or the phone number.
    recipient: Option<String>,
    state: OutboxState,
    /// The provider that delivers it, once chosen.
    provider: Option<String>,
    /// The provider's message id.
    provider_id: Option<String>,
    /// Why it failed, or is retried.
    error: Option<String>,
    /// When its batch is retried, if it is.
    #[schema(value_type = Option<i64>)]
    retry_at: Option<Timestamp>,
    /// The skipped recipients, each with a reason.
    skipped_recipients: Option<String>,
    /// The outcome that the provider reported.
    outcome: Option<String>,
    #[schema(value_type = i64)]
    created_at: Timestamp,
    /// The earliest time to send it.
    #[schema(value_type = i64)]
    due_at: Timestamp,
    #[schema(value_type = Option<i64>)]
    settled_at: Option<Timestamp>,
}

/// A filter of the outbox.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Search {
    /// The state.
    #[serde(default, deserialize_with = "words::unless_blank")]
    #[param(schema_with = words::looked_for::<OutboxState>)]
    state: Option<OutboxState>,
    /// The channel.
    #[serde(default, deserialize_with = "words::unless_blank")]
    #[param(schema_with = words::looked_for::<Channel>)]
    channel: Option<Channel>,
    /// The rule.
    rule: Option<String>,
    /// The recipient's address or phone number.
    recipient: Option<String>,
}

const OBJECT: &str = "\
SELECT json_object('id', outbox.id, 'source', source, 'event_id', event_id, 'rule', rule, 'channel', outbox.channel,
    'recipient', recipient, 'state', outbox.state, 'provider', provider, 'provider_id', provider_id,
    'error', iif(outbox.state = 'sealed', outbox_batches.error, outbox.error), 'skipped_recipients', skipped_recipients,
    'retry_at', iif(outbox_batches.state = 'sealed' AND outbox_batches.attempts > 0, outbox_batches.due_at, NULL),
    'outcome', outcome, 'created_at', created_at, 'due_at', outbox.due_at, 'settled_at', outbox.settled_at)";

/// The filter of a list, and a page of it.
const PAGE: &str = "(?1 IS NULL OR outbox.state = ?1) AND (?2 IS NULL OR outbox.channel = ?2) AND (?3 IS NULL OR rule = ?3)
    AND (?4 IS NULL OR recipient = ?4)
    AND (?5 IS NULL OR created_at < ?5 OR (created_at = ?5 AND outbox.id < ?6))
ORDER BY created_at DESC, outbox.id DESC LIMIT ?7";

impl Search {
    /// The query for a page: an index finds the messages.
    fn sql(&self) -> String {
        const UNSENT: &str = "(SELECT * FROM outbox WHERE state IN ('refused', 'suppressed', 'uncertain')) AS outbox";
        let kind = |place| {
            format!(
                "(?2 IS NULL OR kind ->> {place} = ?2) AND (?3 IS NULL OR kind ->> {} = ?3)",
                place + 1
            )
        };
        let from = match self.state {
            _ if given(self.recipient.as_ref()).is_some() => {
                "(SELECT * FROM outbox INDEXED BY outbox_recipient WHERE recipient = ?4) AS outbox"
                    .to_owned()
            }
            Some(OutboxState::Pending) => {
                "(SELECT * FROM outbox INDEXED BY outbox_written WHERE state = 'pending') AS outbox"
                    .to_owned()
            }
            Some(OutboxState::Sealed) => "(
                SELECT member.value AS id FROM outbox_batches, json_each(members) AS member
                WHERE outbox_batches.state IN ('sealed', 'sending')
            ) AS sealed CROSS JOIN outbox ON outbox.id = sealed.id"
                .to_owned(),
            Some(OutboxState::Refused | OutboxState::Suppressed | OutboxState::Uncertain) => {
                let is = format!("kind ->> 0 = ?1 AND {}", kind(1));
                of_kinds(UNSENT, &UNSENT_KIND, &is)
            }
            Some(OutboxState::Sent) | None => of_kinds("outbox", &OUTBOX_KIND, &kind(0)),
        };
        format!(
            "-- outbox
{OBJECT} FROM {from} LEFT JOIN outbox_batches ON outbox_batches.id = batch WHERE {PAGE}"
        )
    }
}

/// The messages of the kinds that meet a condition: a page of each kind.
fn of_kinds(table: &str, columns: &[&str], is: &str) -> String {
    format!(
        "(
            WITH RECURSIVE {} SELECT one.value AS message FROM kinds, json_each((
                SELECT json_group_array(id) FROM (SELECT id FROM {table} WHERE {} AND {PAGE})
            )) AS one WHERE kind IS NOT NULL AND {is}
        ) AS found CROSS JOIN outbox ON outbox.id = message",
        kinds(table, columns),
        of_kind(columns)
    )
}

/// List the outbox, latest first.
#[utoipa::path(
    get, path = "/outbox", tag = "outbox", params(Search, Paging),
    responses((status = 200, body = Page<Outgoing>), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn list(
    State(admin): State<Admin>,
    Query(search): Query<Search>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Outgoing>>, Problem> {
    let (at, id) = paging.after()?;
    let params = params![
        search.state.map(OutboxState::as_str),
        search.channel.map(Channel::as_str),
        given(search.rule.as_ref()),
        given(search.recipient.as_ref()).map(address_key),
        at,
        id,
        paging.limit()?,
    ];
    let found = admin.ask::<Outgoing>(&search.sql(), params).await?;
    Ok(Json(paging.page(found, |one| (one.created_at.millis(), one.id.clone()))?))
}

/// A selection of the outbox to send again.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Again {
    /// The state.
    state: Unsent,
    /// The rule.
    #[serde(default)]
    rule: Option<String>,
    /// The id, or its first digits.
    #[serde(default)]
    id: Option<String>,
    /// The reason, for the audit.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// The number of messages that are sent again.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Retried {
    count: usize,
}

/// Send messages again that were not sent, or whose delivery is uncertain.
#[utoipa::path(
    post, path = "/outbox/retry", tag = "outbox", request_body = Again,
    responses((status = 202, body = Retried), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn retry(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Body(again): Body<Again>,
) -> Result<(StatusCode, Json<Retried>), Problem> {
    let (now, why) = (admin.now(), reason(again.reason)?);
    check_blank(&[("rule", again.rule.as_deref()), ("id", again.id.as_deref())])?;
    let detail = json!({ "state": again.state, "rule": again.rule.as_deref().unwrap_or_default() });
    let target = again.id.as_deref().unwrap_or_default();
    let statements = vec![
        Statement::new(
            RETRY,
            params![now, again.state.as_str(), again.rule.as_ref(), again.id.as_ref()],
        ),
        audit(&actor, AuditAction::OutboxRetry, target, &why, &detail, now),
    ];
    let rows = admin.execute(statements).await?;
    let count = rows.first().map_or(0, Vec::len);
    admin.0.wake().await;
    Ok((StatusCode::ACCEPTED, Json(Retried { count })))
}

/// A suppressed recipient.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Suppression {
    /// An email address in lower case, or a phone number.
    address: String,
    /// The group of emails that the address does not get; `null` if it gets none at all.
    group: Option<String>,
    reason: String,
    /// The event that caused the suppression.
    source: String,
    event_id: String,
    #[schema(value_type = i64)]
    created_at: Timestamp,
}

/// List suppressed recipients, latest first.
#[utoipa::path(
    get, path = "/suppressions", tag = "outbox", params(Paging),
    responses((status = 200, body = Page<Suppression>), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn suppressions(
    State(admin): State<Admin>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Suppression>>, Problem> {
    let (at, id) = paging.after()?;
    let params = params![at, id, paging.limit()?];
    let found = admin.ask::<Suppression>(SUPPRESSIONS, params).await?;
    // As SQLite's `json_array` writes it.
    let id = |one: &Suppression| to_json(&(&one.address, &one.group, &one.reason));
    Ok(Json(paging.page(found, |one| (one.created_at.millis(), id(one)))?))
}

/// A group of emails.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfGroup {
    /// The group. Without it, the suppressions for all emails are removed, and those for groups stay.
    group: Option<String>,
}

/// Remove the suppressions of an address. Messages that were suppressed stay so until you send them again.
#[utoipa::path(
    delete, path = "/suppressions/{address}", tag = "outbox", request_body = Because,
    params(("address" = String, Path, description = "The address or phone number"), OfGroup),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn unsuppress(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Path(address): Path<String>,
    Query(of): Query<OfGroup>,
    Body(because): Body<Because>,
) -> Result<StatusCode, Problem> {
    let (now, reason) = (admin.now(), because.reason()?);
    let address = address_key(&address);
    let group = given(of.group.as_ref());
    let ([keep, remove], key, detail) = match group {
        None => (LIFT, params![&address], json!({})),
        Some(group) => (LIFT_IN_GROUP, params![&address, group], json!({ "group": group })),
    };
    let lifted = [key.clone(), params![now.micros()]].concat();
    let statements = vec![
        Statement::new(keep, lifted),
        Statement::new(remove, key),
        audit(&actor, AuditAction::SuppressionRemove, &address, &reason, &detail, now),
    ];
    let rows = admin.execute(statements).await?;
    match rows.iter().flatten().next() {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Problem::not_found(format!("{address} is not suppressed"))),
    }
}
