//! Counts of what events have and lack, by day.

use axum::Json;
use axum::extract::State;
use hookmill_core::params;
use hookmill_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::platform::Admin;
use crate::problem::{Problem, Query};

/// `?1` the day before the first.
const RULES: &str = "\
-- rows by rule
WITH recent AS MATERIALIZED (SELECT rule, rows, absent FROM rule_counts WHERE day > ?1),
columns AS (
    SELECT rule, key, sum(value) AS n FROM recent, json_each(absent) GROUP BY rule, key ORDER BY rule, n DESC, key
),
lists AS (SELECT rule, json_group_array(json_object('column', key, 'rows', n)) AS list FROM columns GROUP BY rule)
SELECT json_object('rule', rule, 'rows', sum(rows), 'absent', json(coalesce(list, '[]')))
FROM recent LEFT JOIN lists USING (rule) GROUP BY rule ORDER BY rule";

/// `?1` the day before the first. Whether a version is expected is that of the last day.
const VERSIONS: &str = "\
-- events by API version
SELECT json_object('source', source, 'version', version, 'expected', json(iif(max(day * 2 + expected) % 2, 'true', 'false')),
    'events', sum(events), 'first_at', min(first_at), 'last_at', max(last_at))
FROM api_version_counts WHERE day > ?1 GROUP BY source, version ORDER BY source, max(last_at) DESC, version";

/// The maximum number of days.
const DAYS: i64 = 90;

/// What events had and lacked on the last days (UTC).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Counts {
    rules: Vec<RuleCount>,
    versions: Vec<VersionCount>,
}

/// The rows that a rule has written, without deletions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RuleCount {
    rule: String,
    rows: u64,
    /// Columns whose paths led nowhere, most frequent first.
    absent: Vec<AbsentColumn>,
}

/// A column, or a value of `data`, whose paths led nowhere. `null` is a value.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct AbsentColumn {
    /// Its name; `each` for the list of the rule.
    column: String,
    /// The number of rows without it; for `each`, of events.
    rows: u64,
}

/// The events with a version of the provider's API.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct VersionCount {
    source: String,
    /// The version; `other` for invalid ones and for those beyond the number that Hookmill tells apart.
    version: String,
    /// Whether the source's `api_version` lists it, or there is no list.
    expected: bool,
    events: u64,
    /// When the first of these events was received.
    #[schema(value_type = i64)]
    first_at: Timestamp,
    /// When the last of these events was received.
    #[schema(value_type = i64)]
    last_at: Timestamp,
}

/// A number of days.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Days {
    /// The number of days, at most 90, with today as the last. Default: 7.
    #[param(minimum = 1, maximum = 90)]
    days: Option<i64>,
}

/// Count rows by rule, the values that events lacked, and events by API version.
#[utoipa::path(
    get, path = "/counts", tag = "operation", params(Days),
    responses((status = 200, body = Counts), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn counts(
    State(admin): State<Admin>,
    Query(days): Query<Days>,
) -> Result<Json<Counts>, Problem> {
    let days = days.days.unwrap_or(7);
    if !(1..=DAYS).contains(&days) {
        return Err(Problem::invalid(format!("days is {days}; use 1 to {DAYS}")));
    }
    let before = admin.now().millis().div_euclid(86_400_000) - days;
    Ok(Json(Counts {
        rules: admin.ask(RULES, params![before]).await?,
        versions: admin.ask(VERSIONS, params![before]).await?,
    }))
}
