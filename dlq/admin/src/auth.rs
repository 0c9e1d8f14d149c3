//! Authentication: tokens, stored as hashes, and a limit for addresses with failed attempts.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hookmill_config::Access;
use hookmill_core::hash::sha256_hex;
use hookmill_core::params;
use hookmill_core::request::Remote;
use hookmill_core::store::{Rows, Statement, answer, read};
use hookmill_core::time::Timestamp;
use hookmill_core::words::Role;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use crate::access;
use crate::actor::Actor;
use crate::platform::{Admin, problem};
use crate::problem::Problem;

const KEEP_TOKEN: &str = "\
-- store a token
INSERT INTO admin_tokens (name, hash, role, created_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, role = excluded.role, created_at = excluded.created_at";

/// The prefix of every token, for secret scanners.
pub const PREFIX: &str = "hookmill_";
/// The number of failed attempts in [`WINDOW_SECONDS`] after which an address is blocked.
const FAILURES: u32 = 10;
/// Five minutes.
const WINDOW_SECONDS: i64 = 300;
/// The maximum number of addresses that are counted.
const ADDRESSES: u32 = 10_000;

/// Get the name and role of this token.
#[utoipa::path(
    get, path = "/token", tag = "operation",
    responses((status = 200, body = Actor), (status = "4XX", body = Problem, content_type = "application/problem+json"))
)]
pub(crate) async fn token(Extension(actor): Extension<Actor>) -> Json<Actor> {
    Json(actor)
}

/// The stored hash of a token.
pub fn token_hash(token: &str) -> String {
    sha256_hex(&[token.as_bytes()])
}

/// Stores a token; it replaces one with the same name.
pub fn keep_token(name: &str, token: &str, role: Role, now: Timestamp) -> Statement {
    Statement::new(KEEP_TOKEN, params![name, token_hash(token), role.as_str(), now])
}

const TOKENS: &str = "\
-- tokens
SELECT name, hash, role FROM admin_tokens";

const FAILED: &str = "\
-- failed attempts of an address
SELECT failures, since FROM admin_failures WHERE address = ?1 AND since > ?2 AND since <= ?3";

const FAIL: &str = "\
-- count a failed attempt
INSERT INTO admin_failures (address, failures, since) VALUES (?1, 1, ?2)
ON CONFLICT (address) DO UPDATE SET
    failures = iif(since > ?3 AND since <= ?4, failures + 1, 1),
    since = iif(since > ?3 AND since <= ?4, since, excluded.since)";

const FORGET: &str = "\
-- forget failed attempts
DELETE FROM admin_failures WHERE since <= ?1 OR address IN (
    SELECT address FROM admin_failures ORDER BY since DESC LIMIT -1 OFFSET ?2
)";

/// Lets requests with a valid token pass, if its role allows them. After too many failures, an address has to wait. A valid
/// token always passes, since behind a proxy all clients share one address.
pub(crate) async fn guard(
    State(admin): State<Admin>,
    remote: Option<Extension<Remote>>,
    mut request: Request,
    next: Next,
) -> Response {
    let now = admin.now();
    let window = Timestamp::from_seconds(now.seconds().saturating_sub(WINDOW_SECONDS));
    let address = network(remote.map(|Extension(Remote(address))| address).unwrap_or_default());
    // A later time comes from a clock that was ahead.
    let latest = now.horizon(Duration::ZERO);
    let statements = vec![
        Statement::new(TOKENS, Vec::new()),
        Statement::new(FAILED, params![&address, window, latest]),
    ];
    let read = |rows: Vec<Rows>| Ok((read(answer(&rows, 0))?, read(answer(&rows, 1))?));
    let answered = admin.query(statements).await.and_then(|rows| read(rows).map_err(problem));
    let (tokens, failed): (Vec<Token>, Vec<Failed>) = match answered {
        Ok(answered) => answered,
        Err(problem) => return problem.into_response(),
    };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let actor = match given {
        Some((_, token)) => known(tokens, token.trim()),
        None => match assertion(&admin, &request) {
            None => None,
            Some((access, jwt)) => match access::actor(&admin, access, &jwt).await {
                Ok(actor) => actor,
                Err(problem) => return problem.into_response(),
            },
        },
    };
    let Some(actor) = actor else {
        if let Some(Failed { since, .. }) = failed.iter().find(|it| it.failures >= FAILURES) {
            let again = since.seconds() + WINDOW_SECONDS - now.seconds();
            return Problem::too_many(u64::try_from(again).unwrap_or_default() + 1).into_response();
        }
        let failures = vec![
            Statement::new(FAIL, params![address, now, window, latest]),
            Statement::new(FORGET, params![window, ADDRESSES]),
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

/// The JWT of Cloudflare Access, if hookmill.toml allows it. A browser sends its cookie with requests from any site, so the
/// request must come from Hookmill's own pages, or from no page.
fn assertion<'a>(admin: &'a Admin, request: &Request) -> Option<(&'a Access, String)> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let access = admin.0.config()?.access.as_ref()?;
    let ours = header("sec-fetch-site").is_none_or(|from| ["same-origin", "none"].contains(&from));
    header(access::HEADER).filter(|_| ours).map(|jwt| (access, jwt.to_owned()))
}

/// A stored token: the answer to [`TOKENS`].
#[derive(Deserialize)]
struct Token {
    name: String,
    hash: String,
    role: String,
}

/// The owner of a token. Every stored token is compared, in constant time.
fn known(tokens: Vec<Token>, token: &str) -> Option<Actor> {
    let given = token_hash(token);
    let mut found = None;
    for Token { name, hash, role } in tokens {
        if bool::from(hash.as_bytes().ct_eq(given.as_bytes())) {
            let Ok(role) = role.parse() else { continue };
            found = Some(Actor { name, role });
        }
    }
    found
}

/// The answer to [`FAILED`].
#[derive(Deserialize)]
struct Failed {
    failures: u32,
    since: Timestamp,
}

/// An IPv4 address, or the /64 of an IPv6 address, all of which belongs to one client.
fn network(address: String) -> String {
    match address.parse() {
        Ok(std::net::IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        _ => address,
    }
}
