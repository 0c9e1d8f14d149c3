//! With Cloudflare Access enabled in hookmill.toml, authenticated users need no token; all other requests are rejected.

use hookmill_tests::access::{AUDIENCE, ISSUER, KEY, jwt};
use hookmill_tests::api::Api;
use hookmill_tests::event::now;
use hookmill_tests::http::{Response, exchange, request};
use serde_json::{Value, json};

use crate::platform::Pipeline;

/// The claims of a user whom Access authenticated a minute ago, for an hour.
fn claims(email: &str) -> Value {
    let at = now().seconds() - 60;
    json!({ "aud": [AUDIENCE], "email": email, "iss": ISSUER, "iat": at, "nbf": at, "exp": at + 3600, "type": "app", "sub": "1" })
}

fn header() -> Value {
    json!({ "alg": "RS256", "kid": KEY, "typ": "JWT" })
}

/// The API's response to a user.
fn asked(pipeline: &Pipeline, method: &str, path: &str, jwt: &str, site: &str) -> Response {
    let headers = [
        ("Cf-Access-Jwt-Assertion", jwt),
        ("Sec-Fetch-Site", site),
        ("Content-Type", "application/json"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let body: &[u8] = if method == "POST" { br#"{"all":true}"# } else { b"" };
    let bytes = request(method, &format!("/admin/api/v1{path}"), &headers, body);
    exchange(pipeline.admin(), &bytes).expect("the admin API listens")
}

#[test]
fn cloudflare_access_replaces_tokens() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    let look = |jwt: &str| asked(&pipeline, "GET", "/token", jwt, "same-origin");
    let change = |jwt: &str, site: &str| asked(&pipeline, "POST", "/replays", jwt, site).status;

    let reader = jwt(&header(), &claims("bob@acme.test"));
    assert_eq!(look(&reader).json(), json!({ "name": "bob@acme.test", "role": "read" }));
    assert_eq!(change(&reader, "same-origin"), 403);
    let operator = jwt(&header(), &claims("Ines@acme.test"));
    assert_eq!(look(&operator).json()["role"], "operate");
    assert_eq!(change(&operator, "same-origin"), 201);
    assert_eq!(change(&operator, "none"), 201);
    let acts = pipeline.sql("SELECT DISTINCT actor FROM audit");
    assert_eq!(acts, [["Ines@acme.test"]]);
    // A service token has a name, and the audience may be a single text.
    let service = jwt(
        &header(),
        &json!({ "aud": AUDIENCE, "common_name": "ci.access", "iss": ISSUER, "exp": now().seconds() + 60 }),
    );
    assert_eq!(look(&service).json(), json!({ "name": "ci.access", "role": "operate" }));
    // All of these needed one fetch of the team's keys.
    let looks = api.requests().iter().filter(|r| r.path.ends_with("/cdn-cgi/access/certs")).count();
    assert_eq!(looks, 1);
}

#[test]
fn invalid_access_tokens_are_rejected() {
    let api = Api::start();
    let pipeline = Pipeline::with_api(&api);
    let valid = jwt(&header(), &claims("ines@acme.test"));
    let with = |name: &str, value: Value| {
        let mut claims = claims("ines@acme.test");
        claims[name] = value;
        jwt(&header(), &claims)
    };
    let (head, rest) = valid.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let other = jwt(&header(), &claims("mallory@acme.test"));
    let others_body = other.split('.').nth(1).unwrap();
    let day = now().seconds() + 86_400;
    let wrong = [
        with("aud", json!(["another"])),
        with("iss", "http://localhost/another".into()),
        with("exp", json!(now().seconds() - 120)),
        with("nbf", json!(day)),
        with("email", json!("")),
        jwt(&json!({ "alg": "none", "kid": KEY }), &claims("ines@acme.test")),
        jwt(&json!({ "alg": "RS256", "kid": "unknown" }), &claims("ines@acme.test")),
        format!("{head}.{others_body}.{signature}"),
    ];
    for wrong in &wrong {
        let answer = asked(&pipeline, "GET", "/token", wrong, "none");
        assert_eq!(answer.status, 401, "{wrong}: {}", answer.body);
    }
    // Another site cannot make a user's browser do it.
    assert_eq!(asked(&pipeline, "POST", "/replays", &valid, "cross-site").status, 401);
    let changes = "SELECT count(*) FROM audit WHERE action <> 'login.fail'";
    assert_eq!(pipeline.sql(changes), [[0]]);
    // A signature is required, whatever the header says.
    assert_eq!(asked(&pipeline, "GET", "/token", &format!("{head}.{body}."), "none").status, 401);
    assert_eq!(asked(&pipeline, "GET", "/token", &valid, "none").status, 200);
}
