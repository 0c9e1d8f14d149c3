//! SMS by Twilio: <https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource>.
//!
//! A request has one message and no idempotency key: after a lost response, delivery is uncertain.

use std::time::Duration;

use hookmill_core::outbound::{
    ApiRequest, ApiResponse, Authorization, MessageResult, Method, Provider, SendResult,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::api::{Api, Sealed, first_line, kept, not_taken};

/// The maximum length of a message, in characters.
pub const BODY_CHARACTERS: usize = 1600;
/// Characters that a form escapes: <https://url.spec.whatwg.org/#application-x-www-form-urlencoded-percent-encode-set>.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// An SMS to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sms {
    /// The recipient's number: `+15550100002`.
    pub to: String,
    /// The sender: a number, or a messaging service, `MG…`.
    pub from: String,
    /// The text.
    pub body: String,
    /// The URL for Twilio's reports.
    pub status_callback: Option<String>,
}

/// The body of the request that sends a message: a form.
pub fn body(sms: &Sms) -> String {
    let from = if sms.from.starts_with("MG") { "MessagingServiceSid" } else { "From" };
    let mut fields = vec![("To", sms.to.as_str()), (from, &sms.from), ("Body", &sms.body)];
    fields.extend(sms.status_callback.as_deref().map(|url| ("StatusCallback", url)));
    let fields = fields
        .into_iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ENCODED)));
    fields.collect::<Vec<_>>().join("&")
}

/// Twilio's API for one account.
#[derive(Clone, Debug)]
pub struct Twilio {
    /// The account: `AC…`.
    pub account: String,
}

impl Api for Twilio {
    fn name(&self) -> &'static str {
        Provider::Twilio.as_str()
    }

    fn recognizes_for(&self) -> Option<Duration> {
        None
    }

    fn max_batch(&self) -> usize {
        1
    }

    fn request(&self, batch: &Sealed<'_>) -> ApiRequest {
        ApiRequest {
            method: Method::Post,
            url: batch.url(&format!("/2010-04-01/Accounts/{}/Messages.json", self.account)),
            headers: vec![("content-type", "application/x-www-form-urlencoded".to_owned())],
            authorization: Authorization::Password(self.account.clone()),
            body: batch.body.to_owned(),
        }
    }

    fn answer(&self, _members: usize, response: &ApiResponse) -> SendResult {
        answer(response)
    }
}

/// The result of sending.
///
/// Errors: <https://www.twilio.com/docs/api/errors>.
fn answer(response: &ApiResponse) -> SendResult {
    /// The recipient has replied STOP: <https://www.twilio.com/docs/api/errors/21610>.
    const OPTED_OUT: u32 = 21610;
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Reply {
        sid: Option<String>,
        code: Option<u32>,
        message: String,
    }
    let reply: Reply = serde_json::from_str(&response.body).unwrap_or_default();
    if (200..300).contains(&response.status) {
        return SendResult::Accepted(vec![MessageResult::Accepted(reply.sid)]);
    }
    let code = reply.code.map(|code| format!(": {code}")).unwrap_or_default();
    let words = match reply.message.as_str() {
        "" => first_line(&response.body),
        message => format!(": {message}"),
    };
    let error = kept(&format!("Twilio answered {}{code}{words}", response.status));
    match reply.code {
        Some(OPTED_OUT) => SendResult::Accepted(vec![MessageResult::Unwanted(error)]),
        // A 429 has code 20429, and was not processed: <https://www.twilio.com/docs/api/errors/20429>.
        _ => not_taken(response, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::request;

    #[test]
    fn a_message_is_a_form() {
        let mut sms = Sms {
            to: "+15550100002".into(),
            from: "+15550100001".into(),
            body: "Olá & welcome: 50 % off+1".into(),
            status_callback: Some("https://a.test/webhooks/twilio".into()),
        };
        let account = "AC11111111111111111111111111111111".to_owned();
        let request = request(&Twilio { account }, Provider::Twilio, &body(&sms));
        insta::assert_debug_snapshot!(request);
        sms.from = "MG1".into();
        sms.status_callback = None;
        assert_eq!(
            body(&sms),
            "To=%2B15550100002&MessagingServiceSid=MG1&Body=Ol%C3%A1%20%26%20welcome%3A%2050%20%25%20off%2B1"
        );
    }

    #[test]
    fn a_status_decides_between_retry_and_refusal() {
        let reply = |status, body: &str| {
            answer(&ApiResponse {
                status,
                retry_after: None,
                message_id: None,
                date: None,
                body: body.into(),
            })
        };
        assert_eq!(
            reply(201, r#"{"sid":"SM1","status":"queued","error_code":null}"#),
            SendResult::Accepted(vec![MessageResult::Accepted(Some("SM1".into()))])
        );
        assert_eq!(reply(201, "<html>"), SendResult::Accepted(vec![MessageResult::Accepted(None)]));
        let problem = |code: u32| format!(r#"{{"code":{code},"message":"words","status":400}}"#);
        assert_eq!(
            reply(400, &problem(21610)),
            SendResult::Accepted(vec![MessageResult::Unwanted(
                "Twilio answered 400: 21610: words".into()
            )])
        );
        assert_eq!(
            reply(400, &problem(21211)),
            SendResult::Malformed("Twilio answered 400: 21211: words".into())
        );
        assert!(matches!(reply(429, &problem(20429)), SendResult::Busy { .. }));
        assert!(matches!(reply(401, &problem(20003)), SendResult::Refused(_)));
        assert!(matches!(reply(503, ""), SendResult::Unavailable(_)));
    }
}
