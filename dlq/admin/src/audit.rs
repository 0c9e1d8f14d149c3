//! The audit: who changed what, and why; who saw a body; and who tried to log in.

use hookmill_core::params;
use hookmill_core::store::{Param, Statement};
use hookmill_core::time::Timestamp;
use hookmill_core::words::AuditAction;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::platform::Admin;
use crate::problem::Problem;

const AUDIT: &str = "\
-- audit
INSERT INTO audit (at, actor, action, target, reason, detail)
SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE changes() > 0";

const VIEWED: &str = "\
-- a body is shown
INSERT INTO audit (at, actor, action, target, reason, detail) VALUES (?1, ?2, ?3, ?4, '', '{}')";

/// The first failed attempt of an address, if `?4`, and the last one before it is blocked. `?5` the number of the latter.
const LOGIN_FAILED: &str = "\
-- a login failed
INSERT INTO audit (at, actor, action, target, reason, detail)
SELECT ?1, '', ?2, address, '', json_object('failures', failures) FROM admin_failures
WHERE address = ?3 AND (failures = ?5 OR (?4 AND failures = 1))";

/// The reason for a change.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Because {
    /// The reason, for the audit.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

impl Because {
    pub(crate) fn reason(self) -> Result<String, Problem> {
        reason(self.reason)
    }
}

/// A reason is neither blank nor too long.
pub(crate) fn reason(text: String) -> Result<String, Problem> {
    let length = text.trim().chars().count();
    if (1..=500).contains(&length) {
        return Ok(text.trim().to_owned());
    }
    Err(Problem::invalid(format!("the reason has {length} characters; use 1 to 500")))
}

/// The statement that records an action. It follows the statement that carries out the action, in the same transaction, and
/// records nothing if that statement has changed nothing.
pub(crate) fn audit(
    actor: &Actor,
    action: AuditAction,
    target: &str,
    reason: &str,
    detail: &impl Serialize,
    now: Timestamp,
) -> Statement {
    let params = params![now, &actor.name, action.as_str(), target, reason, Param::json(detail)];
    Statement::new(AUDIT, params)
}

/// Records that the caller gets to see a body, before it does. An operator with access to the data folder can read the files,
/// and reading changes nothing in them.
pub(crate) async fn viewed(admin: &Admin, actor: &Actor, target: &str) -> Result<(), Problem> {
    if admin.0.config().is_none() {
        return Ok(());
    }
    let params = params![admin.now(), &actor.name, AuditAction::BodyView.as_str(), target];
    admin.execute(vec![Statement::new(VIEWED, params)]).await.map(drop)
}

/// The statement that records a failed login of an address, after it was counted. `first`: whether to record the first one
/// too, and not only that the address is blocked after `most` of them.
pub(crate) fn login_failed(address: &str, first: bool, most: u32, now: Timestamp) -> Statement {
    let action = AuditAction::LoginFail.as_str();
    Statement::new(LOGIN_FAILED, params![now, action, address, first, most])
}

/// The statement that records that a token was created or revoked. It follows the statement that does so, in the same
/// transaction.
pub fn token_changed(actor: &str, action: AuditAction, token: &str, now: Timestamp) -> Statement {
    let nothing = Param::Text("{}".to_owned());
    let params = params![now, actor, action.as_str(), token, "", nothing];
    Statement::new(AUDIT, params)
}
