//! Authentication: tokens, stored as hashes, and a limit for addresses with failed attempts.

// Times come from the database.
#![warn(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
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
use hookmill_core::store::{Statement, answer, read};
use hookmill_core::time::Timestamp;
use hookmill_core::words::Role;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use crate::access::{self, Jwt};
use crate::actor::Actor;
use crate::audit::login_failed;
use crate::platform::{Admin, problem};
use crate::problem::Problem;

const KEEP_TOKEN: &str = "\
-- store a token
INSERT INTO admin_tokens (name, hash, role, created_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, role = excluded.role, created_at = excluded.created_at";

/// The prefix of every token, for secret scanners.
pub const PREFIX: &str = "hookmill_";
/// The length of a token after its prefix: 32 random bytes in base64.
const TOKEN_LENGTH: usize = 43;
/// The number of failed attempts in [`WINDOW_SECONDS`] after which an address is blocked.
const FAILURES: u32 = 10;
/// The same for all addresses together; counted in memory, so by each process and isolate.
const ALL_FAILURES: u32 = 500;
/// The number of addresses in [`WINDOW_SECONDS`] whose first failed attempt is in the audit, so that strangers cannot fill it.
const AUDITED: u32 = 20;
/// Five minutes.
const WINDOW_SECONDS: i64 = 300;
/// The time for which blocked requests are compared with the same list of tokens.
const TOKENS_SECONDS: i64 = 10;
/// The maximum number of blocked addresses in memory.
const ADDRESSES: usize = 10_000;
/// The number of old addresses that one failed attempt removes: more than it adds.
const FORGOTTEN: u32 = 10;

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
DELETE FROM admin_failures WHERE address IN (
    SELECT address FROM admin_failures WHERE since <= ?1 ORDER BY since LIMIT ?2
)";

/// What the guard remembers, so that requests without a valid token cost no database, wherever they come from. A platform
/// has one for all requests of a process or isolate.
#[derive(Debug, Default)]
pub struct GuardMemory(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    /// Blocked addresses, and until when, in seconds.
    blocked: BTreeMap<String, i64>,
    /// Failed attempts since this second.
    failures: (i64, u32),
    /// The hashes of tokens at this second, for requests of blocked addresses.
    tokens: Option<(i64, Vec<String>)>,
}

impl GuardMemory {
    /// A memory without content.
    pub const fn new() -> Self {
        Self(Mutex::new(Remembered { blocked: BTreeMap::new(), failures: (0, 0), tokens: None }))
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Remembered) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Remembered {
    /// The seconds for which an address is blocked, if it is.
    fn blocked_for(&self, address: &str, now: i64) -> Option<i64> {
        let (since, failures) = self.failures;
        let all = (failures >= ALL_FAILURES).then(|| since.saturating_add(WINDOW_SECONDS));
        let until = self.blocked.get(address).copied().into_iter().chain(all);
        let until = until.filter(|until| counts(*until, now)).max()?;
        Some(until.saturating_sub(now).saturating_add(1))
    }

    fn block(&mut self, address: String, until: i64, now: i64) {
        if self.blocked.len() >= ADDRESSES {
            self.blocked.retain(|_, until| counts(*until, now));
        }
        if self.blocked.len() >= ADDRESSES {
            self.blocked.pop_first();
        }
        self.blocked.insert(address, until);
    }

    /// Counts a failed attempt. Returns the number of them in this window.
    fn failed(&mut self, now: i64) -> u32 {
        let (since, failures) = self.failures;
        let is_current = (0..WINDOW_SECONDS).contains(&now.saturating_sub(since));
        self.failures = if is_current { (since, failures.saturating_add(1)) } else { (now, 1) };
        self.failures.1
    }

    /// The hashes of tokens, unless they are too old.
    fn tokens(&self, now: i64) -> Option<&[String]> {
        let (at, tokens) = self.tokens.as_ref()?;
        (0..TOKENS_SECONDS).contains(&now.saturating_sub(*at)).then_some(tokens)
    }
}

/// Whether a block until this second still counts. A later time than any comes from a clock that was ahead.
fn counts(until: i64, now: i64) -> bool {
    (0..=WINDOW_SECONDS).contains(&until.saturating_sub(now))
}

/// What a request shows of its caller: something that has the form of a token or a JWT.
enum Credential<'a> {
    /// The hash of a token.
    Token(String),
    Jwt(&'a Access, Jwt),
}

/// Lets requests with a valid token pass, if its role allows them. After too many failures, an address has to wait. A valid
/// token always passes, since behind a proxy all clients share one address.
///
/// A request without a token, or with one that does not have the form of a token, does not reach the database; nor do the
/// requests of a blocked address, except for a look at the tokens every ten seconds.
pub(crate) async fn guard(
    State(admin): State<Admin>,
    remote: Option<Extension<Remote>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(credential) = credential(&admin, &request) else {
        return Problem::unauthorized().into_response();
    };
    let address = network(remote.map(|Extension(Remote(address))| address).unwrap_or_default());
    let actor = match actor(&admin, credential, address).await {
        Ok(actor) => actor,
        Err(problem) => return problem.into_response(),
    };
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if !reads && actor.role != Role::Operate {
        return Problem::forbidden().into_response();
    }
    request.extensions_mut().insert(actor);
    next.run(request).await
}

fn credential<'a>(admin: &'a Admin, request: &Request) -> Option<Credential<'a>> {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    let Some((_, token)) = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        let (access, jwt) = assertion(admin, request)?;
        return Some(Credential::Jwt(access, access::parts(&jwt)?));
    };
    let token = token.trim();
    let rest = token.strip_prefix(PREFIX)?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_token = rest.len() == TOKEN_LENGTH && rest.bytes().all(is_plain);
    is_token.then(|| Credential::Token(token_hash(token)))
}

/// The caller, if the credential is valid.
async fn actor(
    admin: &Admin,
    credential: Credential<'_>,
    address: String,
) -> Result<Actor, Problem> {
    let (now, memory) = (admin.now(), admin.0.memory());
    let wait = memory.with(|memory| memory.blocked_for(&address, now.seconds()));
    let given = match credential {
        Credential::Jwt(access, jwt) => {
            if let Some(actor) = access::actor(admin, access, jwt).await? {
                return Ok(actor);
            }
            None
        }
        Credential::Token(hash) => Some(hash),
    };
    if let Some(wait) = wait {
        let may_be_valid = match &given {
            Some(hash) => is_known(admin, hash).await?,
            None => false,
        };
        if !may_be_valid {
            return Err(Problem::too_many(u64::try_from(wait).unwrap_or_default()));
        }
    }
    let window = Timestamp::from_seconds(now.seconds().saturating_sub(WINDOW_SECONDS));
    // A later time comes from a clock that was ahead.
    let latest = now.horizon(Duration::ZERO);
    let statements = vec![
        Statement::new(TOKENS, Vec::new()),
        Statement::new(FAILED, params![&address, window, latest]),
    ];
    let rows = admin.query(statements).await?;
    let tokens = read(answer(&rows, 0)).map_err(problem)?;
    if let Some(actor) = given.and_then(|hash| known(tokens, &hash)) {
        return Ok(actor);
    }
    let failed: Vec<Failed> = read(answer(&rows, 1)).map_err(problem)?;
    if let Some(Failed { since, .. }) = failed.iter().find(|it| it.failures >= FAILURES) {
        let until = since.seconds().saturating_add(WINDOW_SECONDS);
        memory.with(|memory| memory.block(address, until, now.seconds()));
        let wait = until.saturating_sub(now.seconds()).saturating_add(1);
        return Err(Problem::too_many(u64::try_from(wait).unwrap_or_default()));
    }
    let first = memory.with(|memory| memory.failed(now.seconds())) <= AUDITED;
    let failures = vec![
        Statement::new(FAIL, params![&address, now, window, latest]),
        login_failed(&address, first, FAILURES, now),
        Statement::new(FORGET, params![window, FORGOTTEN]),
    ];
    admin.execute(failures).await?;
    Err(Problem::unauthorized())
}

/// Whether a token was valid a few seconds ago.
async fn is_known(admin: &Admin, hash: &str) -> Result<bool, Problem> {
    let (now, memory) = (admin.now().seconds(), admin.0.memory());
    let same = |known: &String| bool::from(known.as_bytes().ct_eq(hash.as_bytes()));
    let found = memory.with(|memory| memory.tokens(now).map(|known| known.iter().any(same)));
    if let Some(found) = found {
        return Ok(found);
    }
    // Before the query, so that requests that arrive meanwhile do not ask too.
    memory.with(|memory| {
        let before = memory.tokens.take().map(|(_, tokens)| tokens).unwrap_or_default();
        memory.tokens = Some((now, before));
    });
    let rows = admin.query(vec![Statement::new(TOKENS, Vec::new())]).await?;
    let tokens: Vec<Token> = read(answer(&rows, 0)).map_err(problem)?;
    let hashes: Vec<_> = tokens.into_iter().map(|token| token.hash).collect();
    let found = hashes.iter().any(same);
    memory.with(|memory| memory.tokens = Some((now, hashes)));
    Ok(found)
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

/// The owner of the token with this hash. Every stored token is compared, in constant time.
fn known(tokens: Vec<Token>, given: &str) -> Option<Actor> {
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

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use std::future::ready;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use axum::body::Body;
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use hookmill_config::Admin as Config;
    use hookmill_core::store::{Row, Rows, StoreError};
    use tower_service::Service as _;

    use super::*;
    use crate::stats::QueueBacklog;
    use crate::{BASE, Platform, router};

    /// A database with one token. It counts its calls.
    struct Counting {
        now: AtomicI64,
        calls: AtomicUsize,
        failures: Mutex<BTreeMap<String, (u32, i64)>>,
        memory: GuardMemory,
    }

    fn token(letter: char) -> String {
        format!("{PREFIX}{}", String::from(letter).repeat(TOKEN_LENGTH))
    }

    impl Platform for Counting {
        fn execute(
            &self,
            statements: Vec<Statement>,
        ) -> BoxFuture<'_, Result<Vec<Rows>, StoreError>> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let [fail, _, _] = &statements[..] else { panic!("{statements:?}") };
            let address = format!("{:?}", fail.params[0]);
            let mut failures = self.failures.lock().unwrap();
            let now = self.now.load(Ordering::Relaxed) * 1000;
            failures.entry(address).or_insert((0, now)).0 += 1;
            Box::pin(ready(Ok(vec![Vec::new(); 3])))
        }

        fn query(
            &self,
            statements: Vec<Statement>,
        ) -> BoxFuture<'_, Result<Vec<Rows>, StoreError>> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let answer = |statement: &Statement| match &*statement.sql {
                TOKENS => {
                    let columns = ["name", "hash", "role"].map(ToOwned::to_owned).into();
                    let values = ["ada".to_owned(), token_hash(&token('a')), "read".to_owned()];
                    vec![Row::new(columns, values.map(Into::into).into())]
                }
                FAILED => {
                    let address = format!("{:?}", statement.params[0]);
                    let failures = self.failures.lock().unwrap();
                    let columns: Arc<[String]> =
                        ["failures", "since"].map(ToOwned::to_owned).into();
                    let row = |(count, since): &(u32, i64)| {
                        Row::new(columns.clone(), vec![(*count).into(), (*since).into()])
                    };
                    failures.get(&address).map(row).into_iter().collect()
                }
                _ => Vec::new(),
            };
            Box::pin(ready(Ok(statements.iter().map(answer).collect())))
        }

        fn object<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, String>> {
            Box::pin(ready(Ok(None)))
        }

        fn wake(&self) -> BoxFuture<'_, ()> {
            Box::pin(ready(()))
        }

        fn backlogs(&self) -> BoxFuture<'_, Vec<QueueBacklog>> {
            Box::pin(ready(Vec::new()))
        }

        fn fetch<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<String, String>> {
            panic!("keys are fetched for {:?}", self.calls)
        }

        fn config(&self) -> Option<&Config> {
            None
        }

        fn memory(&self) -> &GuardMemory {
            &self.memory
        }

        fn now(&self) -> Timestamp {
            Timestamp::from_seconds(self.now.load(Ordering::Relaxed))
        }
    }

    impl Counting {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                now: AtomicI64::new(1_000_000),
                calls: AtomicUsize::new(0),
                failures: Mutex::default(),
                memory: GuardMemory::new(),
            })
        }

        /// The status of a response, and the calls of the database.
        fn ask(self: &Arc<Self>, address: &str, authorization: Option<&str>) -> (u16, usize) {
            let before = self.calls.load(Ordering::Relaxed);
            let mut request = Request::get(format!("{BASE}/token"));
            if let Some(authorization) = authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let mut request = request.body(Body::empty()).unwrap();
            request.extensions_mut().insert(Remote(address.to_owned()));
            let answered = router(self.clone()).call(request).now_or_never().unwrap();
            let status = answered.unwrap().status().as_u16();
            (status, self.calls.load(Ordering::Relaxed) - before)
        }

        fn bearer(self: &Arc<Self>, address: &str, letter: char) -> (u16, usize) {
            self.ask(address, Some(&format!("Bearer {}", token(letter))))
        }
    }

    #[test]
    fn a_request_without_a_token_does_not_reach_the_database() {
        let platform = Counting::new();
        let malformed = [
            String::new(),
            "Bearer".to_owned(),
            "Bearer x".to_owned(),
            token('a'),
            format!("Basic {}", token('a')),
            format!("Bearer {}a", token('a')),
            format!("Bearer {}", &token('a')[1..]),
            format!("Bearer {}.", &token('a')[..51]),
        ];
        for number in 0..300 {
            let address = format!("10.0.{}.{}", number / 256, number % 256);
            assert_eq!(platform.ask(&address, None), (401, 0));
            let given = &malformed[number % malformed.len()];
            assert_eq!(platform.ask(&address, Some(given)), (401, 0), "{given}");
        }
        assert_eq!(platform.bearer("10.0.0.1", 'a'), (200, 1));
    }

    #[test]
    fn a_blocked_address_costs_no_database_and_a_valid_token_passes() {
        let platform = Counting::new();
        for _ in 0..FAILURES {
            assert_eq!(platform.bearer("10.0.0.1", 'b'), (401, 2));
        }
        assert_eq!(platform.bearer("10.0.0.1", 'b'), (429, 1), "the database says so once");
        assert_eq!(platform.bearer("10.0.0.1", 'b'), (429, 1), "the tokens are read once");
        for letter in ['b', 'c', 'd'] {
            assert_eq!(platform.bearer("10.0.0.1", letter), (429, 0));
        }
        assert_eq!(platform.bearer("10.0.0.1", 'a'), (200, 1));
        assert_eq!(platform.bearer("10.0.0.2", 'b'), (401, 2), "another address is not blocked");
        // The tokens are read again after a while, and the block ends.
        platform.now.fetch_add(TOKENS_SECONDS, Ordering::Relaxed);
        assert_eq!(platform.bearer("10.0.0.1", 'b'), (429, 1));
        platform.now.fetch_add(WINDOW_SECONDS, Ordering::Relaxed);
        platform.failures.lock().unwrap().clear();
        assert_eq!(platform.bearer("10.0.0.1", 'b'), (401, 2));
    }

    #[test]
    fn guesses_from_many_addresses_reach_the_database_only_up_to_a_limit() {
        let platform = Counting::new();
        let mut calls = 0;
        for number in 0..2 * ALL_FAILURES {
            calls += platform.bearer(&format!("10.{}.{}.1", number / 256, number % 256), 'b').1;
        }
        assert_eq!(calls, 2 * ALL_FAILURES as usize + 1);
        assert_eq!(platform.bearer("10.9.9.9", 'a'), (200, 1));
        // A clock that was ahead blocks no address later.
        platform.now.fetch_sub(86_400, Ordering::Relaxed);
        assert_eq!(platform.bearer("10.9.9.8", 'b'), (401, 2));
    }
}
