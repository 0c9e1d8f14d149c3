//! Challenges: unsigned requests by which a provider checks a URL before it sends events. They are never events.

use hookmill_config::scheme::{Answer, Challenge};
use hookmill_core::rejection::{Reason, Rejection};
use hookmill_core::request::Head;
use subtle::ConstantTimeEq as _;

use crate::{form, rejected};

/// The maximum length of an echo, in bytes.
const ECHO_BYTES: usize = 1024;

/// The response to a challenge; `None` for any other request. `token` is the token that the source expects, if it has one.
pub(crate) fn answer(
    challenge: &Challenge,
    token: Option<&str>,
    head: Head<'_>,
) -> Option<Result<Answer, Rejection>> {
    if head.method != challenge.method {
        return None;
    }
    let fields = form::fields(head.query?.as_bytes()).ok()?;
    let value = |name: &str| {
        let field = fields.iter().find(|(found, _)| found == name);
        field.map(|(_, value)| value.as_str())
    };
    if challenge.when.iter().any(|(name, expected)| value(name) != Some(expected)) {
        return None;
    }
    let echo = value(&challenge.echo)?;
    let invalid = |detail: String| Some(Err(rejected(Reason::InvalidChallenge, detail)));
    if let (Some(name), Some(token)) = (&challenge.token, token) {
        let given = value(name).unwrap_or_default();
        if !bool::from(given.as_bytes().ct_eq(token.as_bytes())) {
            return invalid(format!("`{name}` is not the token of this source"));
        }
    }
    let printable = echo.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !printable || echo.is_empty() || echo.len() > ECHO_BYTES {
        return invalid(format!(
            "`{}` is not 1 to {ECHO_BYTES} printable ASCII characters",
            challenge.echo
        ));
    }
    let (content_type, body) = match &challenge.json[..] {
        [] => ("text/plain", echo.to_owned()),
        members => ("application/json", filled(members, echo, None)),
    };
    Some(Ok(Answer { status: 200, content_type: content_type.to_owned(), body }))
}

/// A JSON object of texts with the echo, and with its HMAC if there is one, in their places.
pub(crate) fn filled(members: &[(String, String)], echo: &str, hmac: Option<&str>) -> String {
    let text = |text: &str| {
        // The HMAC comes first: it contains no braces, and the echo may.
        let text = hmac.map_or_else(|| text.to_owned(), |hmac| text.replace("{hmac}", hmac));
        serde_json::Value::from(text.replace("{echo}", echo))
    };
    let members: serde_json::Map<_, _> =
        members.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    serde_json::Value::Object(members).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_not_a_template() {
        let members = [("a".to_owned(), "{echo}{hmac}".to_owned())];
        assert_eq!(filled(&members, "{hmac}\"<", Some("ab")), r#"{"a":"{hmac}\"<ab"}"#);
    }
}
