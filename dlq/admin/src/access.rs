//! Authentication by Cloudflare Access: Access adds a JWT to each request, signed with the team's key.
//!
//! Source:
//! <https://developers.cloudflare.com/cloudflare-one/access-controls/applications/http-apps/authorization-cookie/validating-json/>.

// Values come from payloads, tokens and databases.
#![warn(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookmill_config::Access;
use hookmill_core::time::Timestamp;
use hookmill_core::words::Role;
use rsa::{BigUint, Pkcs1v15Sign, RsaPublicKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::actor::Actor;
use crate::platform::Admin;
use crate::problem::Problem;

/// The header with the JWT.
pub(crate) const HEADER: &str = "cf-access-jwt-assertion";
/// The time after which keys are fetched again; Cloudflare replaces them every six weeks.
const KEYS_COUNT_SECONDS: i64 = 3600;
/// The minimum time between two fetches, whatever keys a request names.
const BETWEEN_SECONDS: i64 = 60;
/// The time that a fetch may take before another request starts one.
const FETCH_SECONDS: i64 = 5;
/// The tolerance for clocks.
const LEEWAY_SECONDS: i64 = 60;
/// The maximum size of a JWT in bytes. The headers of a request may have 16 KB in total, here and at Cloudflare.
const JWT_BYTES: usize = 16_384;

/// The fetched keys of a team; `None` if they could never be fetched.
#[derive(Clone)]
struct Keys {
    at: i64,
    by_id: Option<BTreeMap<String, RsaPublicKey>>,
}

/// By issuer. A Worker creates its router again for each request, so the keys are stored here.
static KEYS: Mutex<BTreeMap<String, Keys>> = Mutex::new(BTreeMap::new());

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: i64,
    #[serde(default)]
    nbf: i64,
    /// For people.
    email: Option<String>,
    /// For service tokens.
    common_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// The actor; `None` if the JWT is not valid.
///
/// # Errors
///
/// If the team's keys cannot be fetched.
pub(crate) async fn actor(
    admin: &Admin,
    access: &Access,
    Jwt { signed, header, signature }: Jwt,
) -> Result<Option<Actor>, Problem> {
    let Some(key) = key(admin, access, &header.kid).await? else { return Ok(None) };
    let hash = Sha256::digest(signed.as_bytes());
    if key.verify(pkcs1v15_sha256(), &hash, &signature).is_err() {
        return Ok(None);
    }
    let claims = signed.split_once('.').and_then(|(_, claims)| json::<Claims>(claims));
    Ok(claims.and_then(|claims| named(access, claims, admin.now())))
}

/// A JWT that has the form of one and is not verified.
pub(crate) struct Jwt {
    signed: String,
    header: Header,
    signature: Vec<u8>,
}

/// The parts of a JWT. Only RS256 is accepted, whatever the JWT says.
pub(crate) fn parts(jwt: &str) -> Option<Jwt> {
    let (signed, signature) = jwt.rsplit_once('.').filter(|_| jwt.len() <= JWT_BYTES)?;
    let header: Header = json(signed.split('.').next()?)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    (header.alg == "RS256").then(|| Jwt { signed: signed.to_owned(), header, signature })
}

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The actor of verified claims, if they are for this application and valid now.
fn named(access: &Access, claims: Claims, now: Timestamp) -> Option<Actor> {
    let now = now.seconds();
    let for_us = match &claims.aud {
        Audience::One(audience) => *audience == access.audience,
        Audience::Several(audiences) => audiences.contains(&access.audience),
    };
    let begins = claims.nbf.saturating_sub(LEEWAY_SECONDS);
    let counts = begins <= now && now <= claims.exp.saturating_add(LEEWAY_SECONDS);
    if !for_us || !counts || claims.iss != access.issuer {
        return None;
    }
    let name = claims.email.or(claims.common_name).filter(|name| !name.is_empty())?;
    let operates = access.operators.iter().any(|operator| operator.eq_ignore_ascii_case(&name));
    Some(Actor::of(name, if operates { Role::Operate } else { Role::Read }))
}

/// The team's key with this id. An unknown key causes a fetch at most once a minute, since Cloudflare replaces keys.
async fn key(admin: &Admin, access: &Access, id: &str) -> Result<Option<RsaPublicKey>, Problem> {
    let now = admin.now().seconds();
    let known = |keys: &BTreeMap<String, Keys>| keys.get(&access.issuer).cloned();
    let kept = known(&KEYS.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(kept) = &kept {
        let (age, key) =
            (now.saturating_sub(kept.at), kept.by_id.as_ref().and_then(|keys| keys.get(id)));
        // A time in the future comes from a clock that was ahead.
        let counts = if key.is_some() { KEYS_COUNT_SECONDS } else { BETWEEN_SECONDS };
        if (0..counts).contains(&age) {
            return found(kept.by_id.as_ref(), id);
        }
    }
    let keep = |at, by_id| {
        let keys = Keys { at, by_id };
        KEYS.lock().unwrap_or_else(PoisonError::into_inner).insert(access.issuer.clone(), keys);
    };
    // Requests meanwhile cause no other fetch for a few seconds. Not for longer: this one may be canceled with its request.
    let meanwhile = now.saturating_sub(BETWEEN_SECONDS - FETCH_SECONDS);
    keep(meanwhile, kept.as_ref().and_then(|kept| kept.by_id.clone()));
    let fetched = admin.0.fetch(&format!("{}/cdn-cgi/access/certs", access.issuer)).await;
    let by_id = fetched.ok().and_then(|text| read_keys(&text));
    // Old keys are better than none: Cloudflare accepts them for a week after their replacement.
    let by_id = by_id.or_else(|| kept.and_then(|kept| kept.by_id));
    let key = found(by_id.as_ref(), id);
    keep(now, by_id);
    key
}

fn found(
    keys: Option<&BTreeMap<String, RsaPublicKey>>,
    id: &str,
) -> Result<Option<RsaPublicKey>, Problem> {
    let unknown = || Problem::unavailable("Hookmill cannot fetch the keys of Cloudflare Access");
    keys.map(|keys| keys.get(id).cloned()).ok_or_else(unknown)
}

/// The RSA keys of a set: <https://www.rfc-editor.org/rfc/rfc7517>.
fn read_keys(text: &str) -> Option<BTreeMap<String, RsaPublicKey>> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Key>,
    }
    #[derive(Deserialize)]
    struct Key {
        kid: String,
        n: Option<String>,
        e: Option<String>,
    }
    let set: Set = serde_json::from_str(text).ok()?;
    let number = |text: &Option<String>| {
        Some(BigUint::from_bytes_be(&URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()?))
    };
    let key = |key: Key| {
        let public = RsaPublicKey::new(number(&key.n)?, number(&key.e)?).ok()?;
        Some((key.kid, public))
    };
    Some(set.keys.into_iter().filter_map(key).collect())
}

/// RSASSA-PKCS1-v1_5 with SHA-256; the prefix is the `DigestInfo` of RFC 8017, section 9.2.
fn pkcs1v15_sha256() -> Pkcs1v15Sign {
    const PREFIX: [u8; 19] = [
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        0x05, 0x00, 0x04, 0x20,
    ];
    Pkcs1v15Sign { hash_len: Some(32), prefix: PREFIX.into() }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use hookmill_config::Admin as Config;
    use hookmill_core::store::{Rows, Statement, StoreError};

    use super::*;
    use crate::Platform;
    use crate::auth::GuardMemory;
    use crate::stats::QueueBacklog;

    /// A team whose keys cannot be fetched.
    #[derive(Default)]
    struct Away {
        now: AtomicI64,
        fetches: AtomicUsize,
        /// Whether a fetch does not end.
        slow: Mutex<bool>,
    }

    impl Platform for Away {
        fn execute(&self, _: Vec<Statement>) -> BoxFuture<'_, Result<Vec<Rows>, StoreError>> {
            Box::pin(ready(Ok(Vec::new())))
        }

        fn query(&self, _: Vec<Statement>) -> BoxFuture<'_, Result<Vec<Rows>, StoreError>> {
            Box::pin(ready(Ok(Vec::new())))
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
            self.fetches.fetch_add(1, Ordering::Relaxed);
            if *self.slow.lock().unwrap() {
                return Box::pin(pending());
            }
            Box::pin(ready(Err("away".to_owned())))
        }

        fn config(&self) -> Option<&Config> {
            None
        }

        fn memory(&self) -> &GuardMemory {
            unreachable!()
        }

        fn now(&self) -> Timestamp {
            Timestamp::from_seconds(self.now.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn unknown_keys_cause_one_fetch_a_minute() {
        let team = Arc::new(Away::default());
        let admin = Admin(team.clone());
        let access = Access {
            issuer: "https://nobody.cloudflareaccess.com".into(),
            audience: "audience".into(),
            operators: Vec::new(),
        };
        for (second, fetches) in [(0, 1), (1, 1), (59, 1), (60, 2), (100, 2), (120, 3)] {
            team.now.store(second, Ordering::Relaxed);
            let answer = key(&admin, &access, &format!("key-{second}")).now_or_never();
            assert!(matches!(answer, Some(Err(_))), "{second}");
            assert_eq!(team.fetches.load(Ordering::Relaxed), fetches, "{second}");
        }
    }

    #[test]
    fn requests_meanwhile_cause_no_other_fetch() {
        let team = Arc::new(Away::default());
        let admin = Admin(team.clone());
        let access = Access {
            issuer: "https://slow.cloudflareaccess.com".into(),
            audience: "audience".into(),
            operators: Vec::new(),
        };
        *team.slow.lock().unwrap() = true;
        let waiting: Vec<_> = (0..200)
            .map(|number| {
                let mut asking = Box::pin(key(&admin, &access, "a-key"));
                let answered = asking.as_mut().now_or_never().is_some();
                assert_eq!(answered, number > 0, "{number}");
                asking
            })
            .collect();
        drop(waiting);
        assert_eq!(team.fetches.load(Ordering::Relaxed), 1);
    }
}
