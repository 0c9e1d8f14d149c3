//! The identity of the events of a verified request.

use std::borrow::Cow;
use std::cell::LazyCell;

use hookmill_config::scheme::{Answer, Events, NamePart};
use hookmill_core::api_version;
use hookmill_core::hash::sha256_hex;
use hookmill_core::limits;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::Request;
use hookmill_rules::{Body, Slot, Values};
use serde_json::value::RawValue;

use crate::{Event, challenge, member_text, rejected, unmarked};

/// The number of a hash's characters in an id: 128 bits, so that two bodies with the same hash cannot be found.
const HASH_CHARACTERS: usize = 32;

/// The events of a request. `id` is the id if the scheme signs one, `signed` the signed parts.
pub(crate) fn events<'r>(
    how: &Events,
    request: &Request<'r>,
    id: Option<String>,
    signed: &[&[u8]],
) -> Result<Vec<Event<'r>>, Rejection> {
    let hash = how.hash.then(|| sha256_hex(&[request.body]));
    let body = unmarked(request.body);
    if !how.many {
        let event = event(how, request, body, id, hash.as_deref(), signed);
        return event.map(|event| vec![event]);
    }
    let elements = elements(body)?;
    if elements.len() > limits::REQUEST_EVENTS {
        let detail = format!(
            "the request has {} events; the maximum is {}",
            elements.len(),
            limits::REQUEST_EVENTS
        );
        return Err(rejected(Reason::MalformedEvent, detail));
    }
    elements
        .into_iter()
        .map(|element| {
            let body = element.get().as_bytes();
            // An element of an unexpected form is an event too. If it were rejected, the others would be lost with it.
            let named = |id| event(how, request, body, id, hash.as_deref(), signed);
            named(None).or_else(|_| named(Some(sha256_hex(&[body])))).or_else(|_| {
                let id = sha256_hex(&[body]);
                let kind = default_kind(how);
                Ok(Event { id, kind, api_version: None, body: body.into() })
            })
        })
        .collect()
}

fn default_kind(how: &Events) -> String {
    how.default_kind.clone().unwrap_or_else(|| "unknown".to_owned())
}

/// The elements of a list; or one value, or several, one after the other, such as lines.
fn elements(body: &[u8]) -> Result<Vec<&RawValue>, Rejection> {
    let text = text(body)?;
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|error| not_json(&error));
    }
    let values = serde_json::Deserializer::from_str(text).into_iter();
    values.collect::<Result<_, _>>().map_err(|error| not_json(&error))
}

fn text(body: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(body).map_err(|_| rejected(Reason::MalformedEvent, "the body is not UTF-8"))
}

fn not_json(error: &serde_json::Error) -> Rejection {
    let detail =
        format!("the body is not valid JSON (line {}, column {})", error.line(), error.column());
    rejected(Reason::MalformedEvent, detail)
}

/// Whether a part comes from the body.
fn reads<'p>(parts: impl IntoIterator<Item = &'p NamePart>) -> bool {
    parts.into_iter().any(|part| match part {
        NamePart::Body(..) => true,
        NamePart::Either(parts) => reads(parts),
        NamePart::Header(_) | NamePart::BodyHash | NamePart::SignedHash => false,
    })
}

fn event<'r>(
    how: &Events,
    request: &Request<'r>,
    body: &'r [u8],
    id: Option<String>,
    hash: Option<&str>,
    signed: &[&[u8]],
) -> Result<Event<'r>, Rejection> {
    // If no part comes from the body, it need not be JSON, unless the scheme says so.
    let text = LazyCell::new(|| Body::new(body));
    let values = if reads(&how.id) || reads(&how.kind) || how.object {
        match LazyCell::force(&text)
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|text| how.reads.read(text))
        {
            Ok(values) => Some(values),
            Err(_) if how.default_kind.is_some() && !reads(&how.id) && !how.object => None,
            Err(error) => return Err(rejected(Reason::MalformedEvent, error.to_string())),
        }
    } else if reads(&how.api_version) {
        LazyCell::force(&text).as_ref().ok().and_then(|text| how.reads.read(text).ok())
    } else {
        None
    };
    if how.object && !body.trim_ascii_start().starts_with(b"{") {
        return Err(rejected(Reason::MalformedEvent, "the body is not a JSON object"));
    }
    let id = match id {
        Some(id) => id,
        None => {
            let parts = how.id.iter().map(|part| {
                name(part, request, body, values.as_ref(), signed)?
                    .ok_or_else(|| missing("id", part))
            });
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            let mut id = match parts.as_slice() {
                [one] => one.clone(),
                // Otherwise `a.b` and `c`, and `a` and `b.c`, would be one event.
                several => {
                    let escaped =
                        several.iter().map(|part| part.replace('%', "%25").replace('.', "%2E"));
                    escaped.collect::<Vec<_>>().join(".")
                }
            };
            if let Some(hash) = hash {
                id.push('.');
                id.push_str(&hash[..HASH_CHARACTERS]);
            }
            id
        }
    };
    let mut kind = Vec::new();
    for part in &how.kind {
        kind.push(name(part, request, body, values.as_ref(), signed)?);
    }
    // The first part qualifies the others.
    let kind = match (kind.first(), &how.default_kind, how.kind.first()) {
        (Some(Some(_)), _, _) => kind.into_iter().flatten().collect::<Vec<_>>().join("."),
        (_, None, Some(part)) => return Err(missing("type", part)),
        _ => default_kind(how),
    };
    // An event is an event without a version, and with several.
    let found = how.api_version.as_ref();
    let found = found.map(|part| name(part, request, body, values.as_ref(), signed));
    let api_version = found.and_then(Result::ok).flatten().map(api_version::of);
    Ok(Event { id, kind, api_version, body: Cow::Borrowed(body) })
}

fn name(
    part: &NamePart,
    request: &Request<'_>,
    body: &[u8],
    values: Option<&Values<'_>>,
    signed: &[&[u8]],
) -> Result<Option<String>, Rejection> {
    Ok(match part {
        NamePart::Header(name) => {
            request.head().header(name)?.map(Cow::into_owned).filter(|value| !value.is_empty())
        }
        NamePart::Body(slot, _) => values.and_then(|values| member_text(*slot, values)),
        NamePart::BodyHash => Some(sha256_hex(&[body])),
        NamePart::SignedHash => Some(sha256_hex(signed)),
        NamePart::Either(parts) => {
            for part in parts {
                let found = name(part, request, body, values, signed)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            None
        }
    })
}

fn missing(what: &str, part: &NamePart) -> Rejection {
    let detail = format!("the event's {what} is missing in {}", place(part));
    rejected(Reason::MalformedEvent, detail)
}

fn place(part: &NamePart) -> String {
    match part {
        NamePart::Header(name) => format!("the header {name}"),
        NamePart::Body(_, path) => format!("`{path}` of the body"),
        NamePart::BodyHash | NamePart::SignedHash => "the body".to_owned(),
        NamePart::Either(parts) => parts.iter().map(place).collect::<Vec<_>>().join(" or "),
    }
}

/// The response to a request that is not an event. `hmac` signs a text with the key that the request was signed with.
pub(crate) fn handshake(
    how: &Events,
    request: &Request<'_>,
    hmac: impl Fn(&str) -> Option<String>,
) -> Option<Answer> {
    if how.handshakes.is_empty() {
        return None;
    }
    let body = Body::new(unmarked(request.body)).ok()?;
    let values = how.reads.read(&body).ok()?;
    let handshake = how.handshakes.iter().find(|handshake| {
        let at = |slot: Slot| slot.value(&values);
        handshake.when.iter().all(|(slot, expected)| at(*slot) == Some(expected.as_str()))
            && handshake.unless.is_none_or(|slot| at(slot).is_none())
    })?;
    let mut answer = handshake.answer.clone();
    if let Some(echo) = handshake.echo {
        let echo = member_text(echo, &values)?;
        answer.body = match &handshake.json[..] {
            [] => echo,
            members if cfg!(feature = "challenges") => {
                challenge::filled(members, &echo, hmac(&echo).as_deref())
            }
            _ => return None,
        };
    }
    Some(answer)
}
