//! Twilio: <https://www.twilio.com/docs/usage/webhooks/webhooks-security>.
//!
//! `X-Twilio-Signature` is the base64 of an HMAC-SHA1 with the account's auth token over the configured URL and, for a
//! form, every field sorted by name: name and value, decoded, without separators. Of a repeated field, the distinct values
//! count, sorted. The query parameter `bodySHA256` covers a JSON body.
//!
//! With shared keys, `X-Twilio-Webhooks-Signature-Settings` names the algorithm:
//! <https://www.twilio.com/docs/usage/webhooks/webhook-shared-keys>.
//!
//! Twilio is not consistent about the URL: a signature may include the port or not, and escape characters of the query that
//! the request does not escape, or the other way round. `spellings` has the forms that Twilio's own libraries try, and more:
//! <https://github.com/twilio/twilio-node/blob/main/src/webhooks/webhooks.ts>. Behind a proxy the URL is unknown, so it is
//! configured; forwarded headers are not trusted.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookmill_core::api_version;
use hookmill_core::hash::sha256_hex;
use hookmill_core::message::Verified;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::{Head, Request};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};

use crate::form;
use crate::key::{Key, matching};
use crate::{Event, plain, rejected};

const SIGNATURE: &str = "X-Twilio-Signature";
const SETTINGS: &str = "X-Twilio-Webhooks-Signature-Settings";

/// What a URL's parser escapes in a query, without what is escaped already:
/// <https://url.spec.whatwg.org/#special-query-percent-encode-set>.
const URL_ESCAPES: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'\'');
/// What Node's `querystring.stringify` escapes, which is what JavaScript's `encodeURIComponent` does.
const COMPONENT_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');
/// What a form escapes, besides blanks: <https://url.spec.whatwg.org/#application-x-www-form-urlencoded-percent-encode-set>.
const FORM_ESCAPES: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_').remove(b' ');

/// One secret is a key for both algorithms.
pub(crate) fn keys(secret: &str) -> Result<[Key; 2], &'static str> {
    if !cfg!(feature = "twilio") {
        return Err("is for Twilio, which this build does not support; build it again");
    }
    Ok([Key::hmac_sha1(secret.as_bytes()), Key::hmac_sha256(secret.as_bytes())])
}

/// The content of a request.
pub(crate) enum Content {
    /// The fields of a form, or of the query of a GET.
    Form(Vec<(String, String)>),
    /// JSON.
    Json,
}

/// Checks the headers alone.
pub(crate) fn check_head(head: Head<'_>) -> Result<(), Rejection> {
    parse(head).map(drop)
}

/// The headers of a request.
struct Parsed {
    signature: Vec<u8>,
    /// Whether it is an HMAC-SHA256.
    sha256: bool,
    content_type: String,
}

fn parse(head: Head<'_>) -> Result<Parsed, Rejection> {
    let signature = head.required_header(SIGNATURE)?;
    let sha256 = match head.header(SETTINGS)?.as_deref().map(algorithm) {
        None | Some(Some("HMAC_SHA1")) => false,
        Some(Some("HMAC_SHA256")) => true,
        Some(_) => {
            let detail = format!("{SETTINGS} does not name an algorithm that Twilio documents");
            return Err(rejected(Reason::MalformedHeader, detail));
        }
    };
    let content_type = head.header("Content-Type")?.unwrap_or_default().to_ascii_lowercase();
    let signature = STANDARD.decode(&*signature).map_err(|_| unmatched())?;
    Ok(Parsed { signature, sha256, content_type })
}

pub(crate) fn verify(
    public_url: &str,
    request: &Request<'_>,
    keys: &[(usize, Key)],
) -> Result<(Verified, Content), Rejection> {
    if !cfg!(feature = "twilio") {
        // Without keys, nothing is verified anyway. This keeps the rest out of a Worker that does not need it.
        return Err(rejected(Reason::NoMatchingSignature, "this build does not support Twilio"));
    }
    let Parsed { signature, sha256, content_type } = parse(request.head())?;
    let query = request.query.unwrap_or_default();
    // Decoded, since the signature is valid for every spelling of it.
    let body_hash = form::pairs(query.as_bytes()).find(|(name, _)| name == b"bodySHA256");
    // Not secret: the URL contains it. It binds the signature to this body, whatever the content type.
    if body_hash.as_ref().is_some_and(|(_, hash)| hash != sha256_hex(&[request.body]).as_bytes()) {
        let detail = "the body does not match its hash in the URL (bodySHA256)";
        return Err(rejected(Reason::NoMatchingSignature, detail));
    }
    let (content, params) = if request.method == "GET" {
        (Content::Form(form::fields(query.as_bytes())?), String::new())
    } else if request.body.is_empty()
        || content_type.starts_with("application/x-www-form-urlencoded")
    {
        let fields = form::fields(request.body)?;
        let params = sorted(&fields);
        (Content::Form(fields), params)
    } else if body_hash.is_some() {
        (Content::Json, String::new())
    } else {
        let detail = "the body is not a form, and the URL has no hash of it (bodySHA256), so the signature does not cover it";
        return Err(rejected(Reason::NoMatchingSignature, detail));
    };

    let signatures = [signature];
    let keys: Vec<_> =
        keys.iter().filter(|(_, key)| matches!(key, Key::HmacSha256(_)) == sha256).collect();
    let mut result = Err(unmatched());
    for url in spellings(public_url, request.query) {
        result = matching(keys.iter().copied(), &[url.as_bytes(), params.as_bytes()], &signatures);
        if result.is_ok() {
            break;
        }
    }
    let secret = result.map_err(|_| unmatched())?;
    Ok((Verified { secret, signed_at: None }, content))
}

fn unmatched() -> Rejection {
    rejected(
        Reason::NoMatchingSignature,
        "the request was signed with another auth token or for another URL than `public_url`, or changed in transit",
    )
}

/// `key=<id>,algorithm=<name>`.
fn algorithm(settings: &str) -> Option<&str> {
    settings.split(',').find_map(|member| member.trim().strip_prefix("algorithm="))
}

/// Every field by name, each with its distinct values, sorted.
fn sorted(fields: &[(String, String)]) -> String {
    let mut by_name: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in fields {
        by_name.entry(name).or_default().insert(value);
    }
    let mut text = String::new();
    for (name, values) in by_name {
        for value in values {
            text.push_str(name);
            text.push_str(value);
        }
    }
    text
}

/// The URLs that the signature may cover. The query decodes to the same fields in all of them.
fn spellings(public_url: &str, query: Option<&str>) -> Vec<String> {
    let queries = query.map_or_else(|| vec![String::new()], queries);
    let urls = ports(public_url);
    urls.iter().flat_map(|url| queries.iter().map(move |query| format!("{url}{query}"))).collect()
}

/// The URL as configured; and without its port, or with the default one.
fn ports(url: &str) -> Vec<String> {
    let mut spellings = vec![url.to_owned()];
    if let Some((scheme, rest)) = url.split_once("://") {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // A colon before an `@` or inside brackets does not begin a port.
        let host_start = authority.rfind('@').map_or(0, |at| at + 1);
        let port = authority[host_start..].rfind(':').map(|at| host_start + at);
        let port = port.filter(|at| authority[at + 1..].bytes().all(|b| b.is_ascii_digit()));
        spellings.push(match port {
            Some(at) => format!("{scheme}://{}{path}", &authority[..at]),
            None => {
                let port = if scheme == "http" { 80 } else { 443 };
                format!("{scheme}://{authority}:{port}{path}")
            }
        });
    }
    spellings
}

/// The query as sent, with the escapes of a URL's parser, of `encodeURIComponent` and of a form, and with few escapes. Each
/// begins with the question mark.
fn queries(query: &str) -> Vec<String> {
    let written = |escapes: &'static AsciiSet| {
        let encode = |text: &[u8]| percent_encode(text, escapes).to_string();
        let pairs = form::pairs(query.as_bytes());
        let fields = pairs.map(|(name, value)| format!("{}={}", encode(&name), encode(&value)));
        fields.collect::<Vec<_>>().join("&")
    };
    let mut spellings = Vec::new();
    for spelling in [
        query.to_owned(),
        percent_encode(query.as_bytes(), URL_ESCAPES).to_string(),
        written(COMPONENT_ESCAPES),
        written(FORM_ESCAPES).replace(' ', "+"),
        plain(query),
    ] {
        let spelling = format!("?{spelling}");
        if !spellings.contains(&spelling) {
            spellings.push(spelling);
        }
    }
    spellings
}

/// Twilio sends no event id. The id of a status or an incoming message comes from its fields; any other event is identified
/// by its content.
pub(crate) fn identify<'r>(fields: &[(String, String)]) -> Event<'r> {
    let body = form::to_json(fields);
    let field = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| fields.iter().rev().find(|(n, _)| n == name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let hash = || sha256_hex(&[&body])[..32].to_owned();
    let (id, kind) = if let Some(sid) = field(["MessageSid", "SmsSid"]) {
        match field(["MessageStatus", "MessageStatus"]) {
            Some(status) => (format!("{sid}.{status}"), format!("message.{status}")),
            None => (sid.to_owned(), "message.received".to_owned()),
        }
    } else if let Some(sid) = field(["CallSid", "CallSid"]) {
        let status = field(["CallStatus", "CallStatus"]).unwrap_or("event");
        (format!("{sid}.{}", hash()), format!("call.{status}"))
    } else {
        (hash(), "event".to_owned())
    };
    let version = field(["ApiVersion", "ApiVersion"]);
    let api_version = version.map(|version| api_version::of(version.to_owned()));
    Event { id, kind, api_version, body: body.into() }
}

/// Signs a URL and a form, as Twilio does.
#[cfg(feature = "sign")]
pub(crate) fn sign(key: &Key, url: &str, body: &[u8]) -> Result<Vec<(String, String)>, Rejection> {
    let params = sorted(&form::fields(body)?);
    let tag = key.tag(&[url.as_bytes(), params.as_bytes()]).unwrap_or_default();
    Ok(vec![
        ("Content-Type".into(), "application/x-www-form-urlencoded".into()),
        (SIGNATURE.into(), STANDARD.encode(tag)),
    ])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_is_tried_with_and_without_its_port() {
        for (url, other) in [
            ("https://a.test/x", "https://a.test:443/x"),
            ("http://a.test/x", "http://a.test:80/x"),
            ("https://a.test:8443/x", "https://a.test/x"),
            ("https://u:p@a.test/x:1", "https://u:p@a.test:443/x:1"),
            ("https://u:p@a.test:1", "https://u:p@a.test"),
            ("https://[::1]/x", "https://[::1]:443/x"),
        ] {
            assert_eq!(spellings(url, None), [url, other]);
        }
        let urls = ["https://a.test/x?y=1", "https://a.test:443/x?y=1"];
        assert_eq!(spellings("https://a.test/x", Some("y=1")), urls);
    }

    #[test]
    fn a_query_is_tried_in_every_spelling_of_its_fields() {
        for (sent, signed) in [
            ("name=O'Brien", "?name=O%27Brien"),
            ("name=O%27Brien", "?name=O'Brien"),
            ("a=x%40y.test%3A1", "?a=x@y.test:1"),
            ("a=x@y.test:1", "?a=x%40y.test%3A1"),
            ("a=b+c", "?a=b%20c"),
            ("a=b%20c", "?a=b+c"),
            ("a=%c3%bc%2f", "?a=%C3%BC%2F"),
            ("a=\u{fc}", "?a=%C3%BC"),
            ("a=(b)", "?a=%28b%29"),
            ("a", "?a="),
        ] {
            assert!(queries(sent).contains(&signed.to_owned()), "{sent}: {:?}", queries(sent));
        }
        assert_eq!(queries("a=1"), ["?a=1"]);
    }

    proptest! {
        // So that a signature is valid for no other fields.
        #[test]
        fn every_spelling_has_the_same_fields(
            query in "([a-c&=+%'@:/?! ;~*()\"<>#{|}é]|%2[0-9a-fA-F]|%3[0-9a-fA-F]|%4[01]|%[fF][fF]|%5[bB]){0,12}",
        ) {
            let fields = |query: &str| form::pairs(query.as_bytes()).collect::<Vec<_>>();
            for spelling in queries(&query) {
                prop_assert_eq!(fields(&spelling[1..]), fields(&query), "{}", spelling);
            }
        }
    }
}
