//! Schemes that are parameters: the location of the signature, the signed parts, and the algorithm.
//!
//! The order is the same for all of them: parse the headers, check the signature over raw bytes, and only then use anything
//! else.

use std::borrow::Cow;
use std::cell::LazyCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookmill_config::scheme::{
    Algorithm, Encoding, Part, Place, SignatureAt, Template, TimeAt, TimeUnit, unseparated,
};
use hookmill_core::limits;
use hookmill_core::message::Verified;
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::{Head, Request};
use hookmill_core::time::Timestamp;
use hookmill_rules::{Body, Slot, Values};

use crate::key::{Key, matching};
use crate::{member_text, plain, rejected, unmarked, url};

/// The evidence of a verified request: the secret, the time, and the signed parts.
pub(crate) struct Proof<'r> {
    pub(crate) verified: Verified,
    pub(crate) signed: Vec<Cow<'r, [u8]>>,
}

/// Checks the headers alone, in the order of [`verify`]. Returns the signed time if it is in the headers.
pub(crate) fn check_head(
    template: &Template,
    public_url: Option<&str>,
    head: Head<'_>,
    keys: &[(usize, Key)],
) -> Result<Option<Timestamp>, Rejection> {
    if matches!(template.signature.place, Place::Body(..)) {
        return Ok(None);
    }
    let Parsed { signatures, timestamp, signed_at } = parse(template, head, None)?;
    if template.payload.iter().any(|part| matches!(part, Part::Body | Part::Member(..))) {
        for (part, separator) in separated_parts(template) {
            if let Part::Header(name, length) = part {
                header_part(head, name, *length, separator)?;
            }
        }
    } else {
        // The signature, or the token, covers nothing of the body.
        let request = head.with_body(b"");
        let signed = signed(template, public_url, &request, timestamp.as_deref(), None)?;
        matched(template, keys, &signed, &signatures)?;
    }
    Ok(signed_at)
}

pub(crate) fn verify<'r>(
    template: &Template,
    public_url: Option<&str>,
    request: &Request<'r>,
    keys: &[(usize, Key)],
) -> Result<Proof<'r>, Rejection> {
    // Some providers sign members of the body and put the signature beside them. All others are verified before the body is
    // parsed.
    let body = LazyCell::new(|| Body::new(unmarked(request.body)));
    let members = || {
        let body = LazyCell::force(&body).as_ref();
        let values = body.map_err(Clone::clone).and_then(|body| template.reads.read(body));
        values.map_err(|error| rejected(Reason::MalformedEvent, error.to_string()))
    };
    let values = if needs_body(template) { Some(members()?) } else { None };
    let Parsed { signatures, timestamp, mut signed_at } =
        parse(template, request.head(), values.as_ref())?;
    let signed = signed(template, public_url, request, timestamp.as_deref(), values.as_ref())?;
    let secret = matched(template, keys, &signed, &signatures)?;
    check_url_ends(template, request)?;

    // A time in a body that is signed as a whole is read after verification.
    if let (Some(time @ TimeAt { place: place @ Place::Body(slot, path), unit, .. }), None) =
        (&template.timestamp, &timestamp)
    {
        let text = time_member(time, *slot, path, &members()?)?;
        let time = parse_time(&text, *unit);
        signed_at = Some(time.ok_or_else(|| malformed_time(Some(place), path, *unit))?);
    }
    Ok(Proof { verified: Verified { secret, signed_at }, signed })
}

/// The signatures and the time of a request.
struct Parsed {
    signatures: Vec<Vec<u8>>,
    /// The time as written.
    timestamp: Option<String>,
    signed_at: Option<Timestamp>,
}

/// Parses the signatures and the time. Without `values`, a time in the body is left out.
fn parse(
    template: &Template,
    head: Head<'_>,
    values: Option<&Values<'_>>,
) -> Result<Parsed, Rejection> {
    let SignatureAt { place, prefix, encoding, list } = &template.signature;
    let (name, header) = match place {
        Place::Header(names) => match list {
            Some((',', None)) => (names[0].as_str(), repeated(head, names)?),
            _ => (names[0].as_str(), required(head, names)?.into_owned()),
        },
        Place::Body(slot, path) => (path.as_str(), member(*slot, path, values)?),
        Place::Member(name) => (name.as_str(), String::new()),
    };
    let malformed = |detail: String| rejected(Reason::MalformedHeader, format!("{name} {detail}"));

    let (mut timestamp, texts) = match list {
        Some((separator, None)) => {
            let members = header.split(*separator).map(str::trim);
            (None, members.filter_map(|member| member.strip_prefix(prefix.as_str())).collect())
        }
        Some((separator, Some(key))) => {
            let time_key = match template.timestamp.as_ref().map(|timestamp| &timestamp.place) {
                Some(Place::Member(key)) => Some(key.as_str()),
                _ => None,
            };
            listed(&header, *separator, key, time_key).map_err(malformed)?
        }
        None => match header.strip_prefix(prefix.as_str()) {
            Some(text) => (None, vec![text]),
            None => return Err(malformed(format!("does not begin with `{prefix}`"))),
        },
    };
    if texts.len() > limits::SIGNATURES {
        return Err(malformed("has too many signatures".into()));
    }

    let time = template.timestamp.as_ref();
    if let Some(time) = time {
        timestamp = match &time.place {
            Place::Member(_) => timestamp,
            Place::Header(names) => Some(required(head, names)?),
            Place::Body(slot, path) => match values {
                Some(values) => Some(Cow::Owned(time_member(time, *slot, path, values)?)),
                None => None,
            },
        };
    }
    let signed_at = match (time, &timestamp) {
        (Some(TimeAt { place, unit, .. }), Some(text)) => {
            let time = parse_time(text, *unit);
            Some(time.ok_or_else(|| malformed_time(Some(place), name, *unit))?)
        }
        _ => None,
    };

    let signatures: Vec<_> = texts.into_iter().filter_map(|text| decode(*encoding, text)).collect();
    if signatures.is_empty() {
        let form = match encoding {
            Encoding::Hex => "in hex, lower case",
            Encoding::Base64 => "in base64",
            Encoding::Text => "in it",
        };
        let detail = match list {
            Some((_, Some(key))) => format!("{name} has no `{key}=` with a signature {form}"),
            Some((_, None)) | None => format!("{name} has no signature {form}"),
        };
        return Err(rejected(Reason::NoMatchingSignature, detail));
    }
    let timestamp = timestamp.map(Cow::into_owned);
    Ok(Parsed { signatures, timestamp, signed_at })
}

/// The value of a header with one of these names.
fn required<'h>(head: Head<'h>, names: &[String]) -> Result<Cow<'h, str>, Rejection> {
    let value = head.either_header(names)?;
    value.ok_or_else(|| {
        rejected(Reason::MissingHeader, format!("{} is missing", names.join(" or ")))
    })
}

/// The value of a header that is a list. A header that is sent twice is a list too, and a Worker cannot tell one from the
/// other: <https://www.rfc-editor.org/rfc/rfc9110#section-5.3>.
fn repeated(head: Head<'_>, names: &[String]) -> Result<String, Rejection> {
    let lists = names.iter().map(|name| {
        let values = head.headers.all(name);
        let text = std::str::from_utf8;
        let values: Result<Vec<_>, _> = values.iter().map(|value| text(value)).collect();
        let values = values.map(|values| values.join(","));
        values.map_err(|_| rejected(Reason::MalformedHeader, format!("{name} is not text")))
    });
    let mut lists = lists.collect::<Result<Vec<_>, _>>()?;
    lists.retain(|list| !list.trim().is_empty());
    let missing = format!("{} is missing", names.join(" or "));
    match &lists[..] {
        [] => Err(rejected(Reason::MissingHeader, missing)),
        [one] => Ok(one.clone()),
        lists => Ok(lists.join(",")),
    }
}

/// The time and the signatures of a list `key=value`, or the problem with it.
fn listed<'h>(
    header: &'h str,
    separator: char,
    key: &str,
    time_key: Option<&str>,
) -> Result<(Option<Cow<'h, str>>, Vec<&'h str>), String> {
    let mut timestamp = None;
    let mut texts = Vec::new();
    for (member, value) in header.split(separator).filter_map(|member| member.split_once('=')) {
        if Some(member) == time_key {
            if timestamp.is_some() {
                return Err("has two timestamps".to_owned());
            }
            timestamp = Some(Cow::Borrowed(value));
        } else if member == key {
            texts.push(value);
        }
    }
    match (time_key, &timestamp) {
        (Some(key), None) => Err(format!("has no timestamp ({key}=)")),
        _ => Ok((timestamp, texts)),
    }
}

/// A signature as text.
pub(crate) fn encode(encoding: Encoding, signature: &[u8]) -> String {
    match encoding {
        Encoding::Hex => base16ct::lower::encode_string(signature),
        Encoding::Base64 => STANDARD.encode(signature),
        Encoding::Text => String::from_utf8_lossy(signature).into_owned(),
    }
}

/// The signed parts.
fn signed<'r>(
    template: &Template,
    public_url: Option<&str>,
    request: &Request<'r>,
    timestamp: Option<&str>,
    values: Option<&Values<'_>>,
) -> Result<Vec<Cow<'r, [u8]>>, Rejection> {
    let parts = separated_parts(template).map(|(part, separator)| {
        let check = |what: &str, value: &str| separated(what, value, separator);
        Ok(match part {
            Part::Literal(text) => Cow::Owned(text.as_bytes().to_vec()),
            Part::Timestamp => Cow::Owned(timestamp.unwrap_or_default().as_bytes().to_vec()),
            Part::Method => Cow::Borrowed(request.method.as_bytes()),
            Part::Url => {
                check("the query", request.query.unwrap_or_default())?;
                Cow::Owned(url(public_url, request.query).into_bytes())
            }
            Part::PlainUrl => {
                check("the query", &plain(request.query.unwrap_or_default()))?;
                Cow::Owned(plain(&url(public_url, request.query)).into_bytes())
            }
            Part::Body => Cow::Borrowed(request.body),
            Part::Header(name, length) => {
                let value = header_part(request.head(), name, *length, separator)?;
                Cow::Owned(value.as_bytes().to_vec())
            }
            Part::Member(slot, path) => {
                let value = member(*slot, path, values)?;
                check(path, &value)?;
                Cow::Owned(value.into_bytes())
            }
        })
    });
    parts.collect()
}

/// Each signed part, with the literal text after it.
fn separated_parts(template: &Template) -> impl Iterator<Item = (&Part, Option<&str>)> {
    template.payload.iter().enumerate().map(|(index, part)| match template.payload.get(index + 1) {
        Some(Part::Literal(text)) => (part, Some(text.as_str())),
        _ => (part, None),
    })
}

/// The value of a signed header.
fn header_part<'h>(
    head: Head<'h>,
    name: &str,
    length: Option<usize>,
    separator: Option<&str>,
) -> Result<Cow<'h, str>, Rejection> {
    let value = head.required_header(name)?;
    match length {
        Some(length) if length != value.len() => {
            let found = value.len();
            let detail = format!("{name} has {found} bytes, and `payload` says {length}");
            Err(rejected(Reason::MalformedHeader, detail))
        }
        Some(_) => Ok(value),
        None => separated(name, &value, separator).map(|()| value),
    }
}

/// The index of the secret that a signature matches.
fn matched(
    template: &Template,
    keys: &[(usize, Key)],
    signed: &[Cow<'_, [u8]>],
    signatures: &[Vec<u8>],
) -> Result<usize, Rejection> {
    let parts: Vec<&[u8]> = signed.iter().map(|part| &**part).collect();
    matching(keys, &parts, signatures).map_err(|rejection| match template.algorithm {
        Algorithm::Token => rejected(rejection.reason, "the token matches no secret of the source"),
        _ => rejection,
    })
}

/// A part that contains the separator after it could be divided in another place under the same signature.
fn separated(what: &str, value: &str, separator: Option<&str>) -> Result<(), Rejection> {
    match separator {
        Some(separator) if value.contains(separator) => {
            let detail = format!(
                "{what} contains {separator:?}, which separates it from the next part of `payload`, so the signature is ambiguous"
            );
            Err(rejected(Reason::MalformedHeader, detail))
        }
        _ => Ok(()),
    }
}

/// Some providers sign the URL, directly followed by the body. The end of the URL is certain only if the body is a JSON
/// object or list, and the query contains no character that begins one. Otherwise one signature would be valid for several
/// requests.
fn check_url_ends(template: &Template, request: &Request<'_>) -> Result<(), Rejection> {
    let met = unseparated(&template.payload).any(|(first, second)| {
        matches!(first, Part::Url | Part::PlainUrl) && *second == Part::Body
    });
    if !met {
        return Ok(());
    }
    let detail = if !request.body.starts_with(b"{") && !request.body.starts_with(b"[") {
        "the body does not begin with `{` or `[`, so the end of the signed URL is ambiguous"
    } else if request.query.is_some_and(|query| query.contains(['{', '['])) {
        "the URL's query contains `{` or `[`, so the start of the signed body is ambiguous; escape it"
    } else {
        return Ok(());
    };
    Err(rejected(Reason::MalformedEvent, detail))
}

/// Whether the signature or a signed part is in the body.
fn needs_body(template: &Template) -> bool {
    matches!(template.signature.place, Place::Body(..))
        || template.payload.iter().any(|part| matches!(part, Part::Member(..)))
}

fn member(slot: Slot, path: &str, values: Option<&Values<'_>>) -> Result<String, Rejection> {
    let text = values.and_then(|values| member_text(slot, values));
    // It stands for halves of surrogate pairs too, so several bodies would have one signature.
    let text = text.filter(|text| !text.contains(char::REPLACEMENT_CHARACTER));
    text.ok_or_else(|| {
        rejected(Reason::MalformedEvent, format!("there is no string or number at `{path}`"))
    })
}

/// The text of a time in the body.
fn time_member(
    time: &TimeAt,
    slot: Slot,
    path: &str,
    values: &Values<'_>,
) -> Result<String, Rejection> {
    let is_text = slot.value(values).is_some_and(|json| json.starts_with('"'));
    if time.number && is_text {
        let detail = format!("the value at `{path}` is not a number");
        return Err(rejected(Reason::MalformedEvent, detail));
    }
    member(slot, path, Some(values))
}

fn malformed_time(place: Option<&Place>, list: &str, unit: TimeUnit) -> Rejection {
    let unit = match unit {
        TimeUnit::Seconds => "Unix seconds, in 10 digits",
        TimeUnit::Milliseconds => "Unix milliseconds, in 13 digits",
        TimeUnit::Rfc3339 => "an RFC 3339 time",
    };
    match place {
        Some(Place::Body(_, path)) => {
            rejected(Reason::MalformedEvent, format!("the value at `{path}` is not {unit}"))
        }
        Some(Place::Header(names)) => {
            rejected(Reason::MalformedHeader, format!("{} is not {unit}", names.join(" or ")))
        }
        _ => {
            rejected(Reason::MalformedHeader, format!("{list} has a timestamp that is not {unit}"))
        }
    }
}

/// A signed time. Digits only, since a lenient parser would accept text that was not signed. A fixed number of digits,
/// since otherwise digits could move between the time and the next signed part.
pub(crate) fn parse_time(text: &str, unit: TimeUnit) -> Option<Timestamp> {
    let digits = |count| {
        let exact = text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
        if exact && !text.starts_with('0') { text.parse::<i64>().ok() } else { None }
    };
    match unit {
        TimeUnit::Seconds => digits(10).map(Timestamp::from_seconds),
        TimeUnit::Milliseconds => digits(13).map(Timestamp::from_millis),
        TimeUnit::Rfc3339 => Timestamp::parse_rfc3339(text),
    }
}

/// Each signature has one spelling: lower case, padded.
fn decode(encoding: Encoding, text: &str) -> Option<Vec<u8>> {
    let bytes = match encoding {
        Encoding::Hex => base16ct::lower::decode_vec(text).ok(),
        Encoding::Base64 => STANDARD.decode(text).ok(),
        Encoding::Text => Some(text.as_bytes().to_vec()),
    };
    bytes.filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_has_one_length() {
        let (seconds, milliseconds) = (TimeUnit::Seconds, TimeUnit::Milliseconds);
        for (text, unit, expected) in [
            ("1767225600", seconds, Some(1_767_225_600_000)),
            ("9999999999", seconds, Some(9_999_999_999_000)),
            ("1767225600000", milliseconds, Some(1_767_225_600_000)),
            ("1767225600000", seconds, None),
            ("1767225600", milliseconds, None),
            ("176722560", seconds, None),
            ("17672256001", seconds, None),
            ("0176722560", seconds, None),
            ("0176722560000", milliseconds, None),
            ("+176722560", seconds, None),
            ("-176722560", seconds, None),
            (" 176722560", seconds, None),
            ("176722560 ", seconds, None),
            ("176722560\u{661}", seconds, None),
            ("1.76722560", seconds, None),
            ("", seconds, None),
        ] {
            let found = parse_time(text, unit).map(Timestamp::millis);
            assert_eq!(found, expected, "{text:?} {unit:?}");
        }
    }

    proptest! {
        /// `unseparated` relies on this: only one prefix of the signed text is a time.
        #[test]
        fn no_time_begins_with_another(
            time in "[0-9]{10,14}|20[0-9]{2}-0[1-9]-[0-2][1-9][Tt ]1[0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?([Zz]|[+-]0[0-9]:[0-5][0-9])",
            behind in "[0-9Zz:.+-]{0,8}",
        ) {
            let text = time + &behind;
            for unit in [TimeUnit::Seconds, TimeUnit::Milliseconds, TimeUnit::Rfc3339] {
                let times = (0..=text.len()).filter(|end| parse_time(&text[..*end], unit).is_some());
                prop_assert!(times.count() <= 1, "{text}");
            }
        }
    }
}
