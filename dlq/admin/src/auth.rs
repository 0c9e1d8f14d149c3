//! Who may ask: tokens of which only hashes are kept, and a limit for addresses that come without one.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hookmill_core::config::Access;
use hookmill_core::hash::sha256_hex;
use hookmill_core::store::{Rows, Statement};
use hookmill_core::time::Timestamp;
use hookmill_core::words::Role;
use serde::Serialize;
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::{Admin, Remote, access, json, statement};

/// What every token begins with, so that scanners for secrets know it.
pub const PREFIX: &str = "hookmill_";
/// How many failures an address has in [`WINDOW_SECONDS`] before it is not listened to.
const FAILURES: u32 = 10;
/// Five minutes.
const WINDOW_SECONDS: i64 = 300;
/// The most addresses that are kept count of.
const ADDRESSES: u32 = 10_000;

/// Who asks.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Actor {
    /// The name of the token, or what Cloudflare Access says: an address, or the name of a service token.
    pub(crate) name: String,
    role: Role,
}

/// Whose token this is, and what it allows.
#[utoipa::path(
    get, path = "/token", tag = "operation",
    responses((status = 200, body = Actor), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn token(Extension(actor): Extension<Actor>) -> Json<Actor> {
    Json(actor)
}

impl Actor {
    pub(crate) const fn of(name: String, role: Role) -> Self {
        Self { name, role }
    }

    /// Somebody who has the data anyway.
    pub(crate) fn local(name: &str) -> Self {
        Self::of(name.to_owned(), Role::Operate)
    }
}

/// What is kept of a token.
pub fn token_hash(token: &str) -> String {
    sha256_hex(&[token.as_bytes()])
}

/// Keeps a token, in the place of one of the same name.
pub fn keep_token(name: &str, token: &str, role: Role, now: Timestamp) -> Statement {
    const KEEP: &str = "\
-- keep a token
INSERT INTO admin_tokens (name, hash, role, created_at) VALUES (?1, ?2, ?3, CAST(?4 AS INTEGER))
ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, role = excluded.role, created_at = excluded.created_at";
    let (role, now) = (role.as_str().to_owned(), now.millis().to_string());
    statement(KEEP, vec![name.to_owned(), token_hash(token), role, now])
}

const TOKENS: &str = "\
-- tokens
SELECT name, hash, role FROM admin_tokens";

const FAILED: &str = "\
-- failures of an address
SELECT failures, since FROM admin_failures WHERE address = ?1 AND since > CAST(?2 AS INTEGER) AND since <= CAST(?3 AS INTEGER)";

const FAIL: &str = "\
-- an address has failed
INSERT INTO admin_failures (address, failures, since) VALUES (?1, 1, CAST(?2 AS INTEGER))
ON CONFLICT (address) DO UPDATE SET
    failures = iif(since > CAST(?3 AS INTEGER) AND since <= CAST(?4 AS INTEGER), failures + 1, 1),
    since = iif(since > CAST(?3 AS INTEGER) AND since <= CAST(?4 AS INTEGER), since, excluded.since)";

const FORGET: &str = "\
-- forget failures
DELETE FROM admin_failures WHERE since <= CAST(?1 AS INTEGER) OR address IN (
    SELECT address FROM admin_failures ORDER BY since DESC LIMIT -1 OFFSET CAST(?2 AS INTEGER)
)";

/// Lets through who shows a token, for what its role allows. Whoever fails too often is told to wait; a token that counts is
/// let through all the same, since behind a proxy everybody has the same address.
pub(crate) async fn guard(
    State(admin): State<Admin>,
    remote: Option<Extension<Remote>>,
    mut request: Request,
    next: Next,
) -> Response {
    let now = admin.now();
    let window = Timestamp::from_seconds(now.seconds().saturating_sub(WINDOW_SECONDS));
    let address = network(remote.map(|Extension(Remote(address))| address).unwrap_or_default());
    let window_text = window.millis().to_string();
    // What failed later than that failed while the clock was ahead.
    let latest = now.horizon(Duration::ZERO).millis().to_string();
    let asked = vec![
        statement(TOKENS, Vec::new()),
        statement(FAILED, vec![address.clone(), window_text.clone(), latest.clone()]),
    ];
    let rows = match admin.execute(asked).await {
        Ok(rows) => rows,
        Err(problem) => return problem.into_response(),
    };
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.split_once(' '));
    let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let actor = match shown {
        Some((_, token)) => known(rows.first(), token.trim()),
        None => match assertion(&admin, &request) {
            None => None,
            Some((access, jwt)) => match access::actor(&admin, access, &jwt).await {
                Ok(actor) => actor,
                Err(problem) => return problem.into_response(),
            },
        },
    };
    let Some(actor) = actor else {
        if let Some((failures, since)) = failed(rows.get(1))
            && failures >= FAILURES
        {
            let again = since.seconds() + WINDOW_SECONDS - now.seconds();
            return Problem::too_many(u64::try_from(again).unwrap_or_default() + 1).into_response();
        }
        let millis = now.millis().to_string();
        let failures = vec![
            statement(FAIL, vec![address, millis, window_text.clone(), latest]),
            statement(FORGET, vec![window_text, ADDRESSES.to_string()]),
        ];
        return match admin.execute(failures).await {
            Ok(_) => Problem::unauthorized().into_response(),
            Err(problem) => problem.into_response(),
        };
    };
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if !reads && actor.role != Role::Operate {
        return Problem::forbidden().into_response();
    }
    request.extensions_mut().insert(actor);
    next.run(request).await
}

/// What Cloudflare Access says of who asks, if hookmill.toml says that people come through it. A browser shows what Access knows
/// it by to whatever site sends it here, so a request has to come from our own pages, or from no page at all.
fn assertion<'a>(admin: &'a Admin, request: &Request) -> Option<(&'a Access, String)> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let access = admin.0.config()?.access.as_ref()?;
    let ours = header("sec-fetch-site").is_none_or(|from| ["same-origin", "none"].contains(&from));
    header(access::HEADER).filter(|_| ours).map(|jwt| (access, jwt.to_owned()))
}

/// Whose token it is. Every token is compared, and each in constant time.
fn known(rows: Option<&Rows>, token: &str) -> Option<Actor> {
    let hash = token_hash(token);
    let mut found = None;
    for row in rows.into_iter().flatten() {
        let [Some(name), Some(kept), Some(role)] = row.as_slice() else { continue };
        if bool::from(kept.as_bytes().ct_eq(hash.as_bytes())) {
            let Ok(role) = role.parse() else { continue };
            found = Some(Actor { name: name.clone(), role });
        }
    }
    found
}

fn failed(rows: Option<&Rows>) -> Option<(u32, Timestamp)> {
    match rows?.first()?.as_slice() {
        [Some(failures), Some(since)] => {
            Some((failures.parse().ok()?, Timestamp::from_millis(since.parse().ok()?)))
        }
        _ => None,
    }
}

/// An IPv4 address, or the /64 of an IPv6 one: whoever has one of these has all of them.
fn network(address: String) -> String {
    match address.parse() {
        Ok(std::net::IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        _ => address,
    }
}

/// Writes down that somebody has done something: to be carried out right behind the statement that does it, and only if that
/// has changed something.
pub(crate) fn audit(
    actor: &Actor,
    action: &str,
    target: &str,
    reason: &str,
    detail: &impl Serialize,
    now: Timestamp,
) -> Statement {
    const AUDIT: &str = "\
-- who did what
INSERT INTO audit (at, actor, action, target, reason, detail)
SELECT CAST(?1 AS INTEGER), ?2, ?3, ?4, ?5, ?6 WHERE changes() > 0";
    let texts = [actor.name.as_str(), action, target, reason].map(ToOwned::to_owned);
    let mut params = vec![now.millis().to_string()];
    params.extend(texts);
    params.push(json(detail));
    statement(AUDIT, params)
}
