//! Postmark: <https://postmarkapp.com/developer/user-guide/send-email-with-api/batch-emails>.
//!
//! It has no idempotency keys: after a lost response, delivery is uncertain. Its response to a batch has a code for each
//! email; a code may say that Postmark did not process that email.

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_core::email::{Email, Mailbox};
use hookmill_core::json::to_json;
use hookmill_core::outbound::{
    ApiRequest, ApiResponse, Authorization, MessageResult, Method, Provider, SendResult,
};
use serde::{Deserialize, Serialize};

use super::EmailApi;
use crate::api::{Api, EMAIL_ID, Sealed, first_line, kept, not_taken, shortened};

/// The header with the server's API token: <https://postmarkapp.com/developer/api/overview#authentication>.
const TOKEN: &str = "x-postmark-server-token";
/// The stream for transactional emails: <https://postmarkapp.com/developer/api/message-streams-api>. Every server has it.
const STREAM: &str = "outbound";

/// Postmark's API.
#[derive(Clone, Copy, Debug)]
pub struct Postmark;

impl Api for Postmark {
    fn name(&self) -> &'static str {
        Provider::Postmark.as_str()
    }

    fn recognizes_for(&self) -> Option<Duration> {
        None
    }

    fn max_batch(&self) -> usize {
        500
    }

    fn request(&self, batch: &Sealed<'_>) -> ApiRequest {
        let headers = vec![
            ("accept", "application/json".to_owned()),
            ("content-type", "application/json".to_owned()),
        ];
        ApiRequest {
            method: Method::Post,
            url: batch.url("/email/batch"),
            headers,
            authorization: Authorization::Header(TOKEN),
            body: batch.body.to_owned(),
        }
    }

    fn answer(&self, emails: usize, response: &ApiResponse) -> SendResult {
        answer(emails, response)
    }

    fn recipients(&self, _emails: usize, body: &str) -> Vec<usize> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Item {
            to: String,
            #[serde(default)]
            cc: String,
        }
        let emails: Vec<Item> = serde_json::from_str(body).unwrap_or_default();
        emails.iter().map(|email| mailboxes(&email.to) + mailboxes(&email.cc)).collect()
    }
}

impl EmailApi for Postmark {
    fn body(&self, emails: &[&Email]) -> Option<String> {
        (!emails.is_empty()).then(|| body(emails))
    }

    /// The metadata of each email: <https://postmarkapp.com/developer/webhooks/delivery-webhook>.
    fn reported_id(&self) -> Option<&'static str> {
        Some("Metadata.hookmill")
    }
}

/// The body of a batch. Fields: <https://postmarkapp.com/developer/api/email-api#send-a-single-email>.
fn body(emails: &[&Email]) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Item<'e> {
        from: String,
        to: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        cc: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<String>,
        subject: &'e str,
        html_body: &'e str,
        text_body: &'e str,
        message_stream: &'static str,
        /// Postmark returns it in its reports about the email.
        metadata: BTreeMap<&'static str, &'e str>,
    }
    let items = emails.iter().map(|email| Item {
        from: email.from.to_string(),
        to: list(&email.to),
        cc: list(&email.cc),
        reply_to: email.reply_to.as_ref().map(ToString::to_string),
        subject: &email.subject,
        html_body: &email.html,
        text_body: &email.text,
        message_stream: STREAM,
        metadata: BTreeMap::from([(EMAIL_ID, email.id.as_str())]),
    });
    to_json(&items.collect::<Vec<_>>())
}

/// Postmark accepts several addresses as one comma-separated text.
fn list(mailboxes: &[Mailbox]) -> String {
    mailboxes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The number of mailboxes in a [`list`]. Each address has one `@`; a name with one is in quotes.
fn mailboxes(list: &str) -> usize {
    let (mut quoted, mut escaped, mut count) = (false, false, 0);
    for character in list.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '@' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

/// Postmark's result for an email or a request: <https://postmarkapp.com/developer/api/overview#error-codes>.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct EmailResult {
    error_code: u32,
    #[serde(default)]
    message: String,
    #[serde(rename = "MessageID")]
    message_id: Option<String>,
}

impl EmailResult {
    /// The recipients have hard-bounced, complained, or been suppressed by hand.
    const INACTIVE: u32 = 406;

    /// Whether the error is about the sender, and so about every email: an unknown or unconfirmed sender signature, no
    /// credits, an account that is pending or may not send.
    fn concerns_sender(&self) -> bool {
        matches!(self.error_code, 400 | 401 | 405 | 412 | 413)
    }

    fn words(&self) -> String {
        kept(&format!("Postmark error {}: {}", self.error_code, self.message))
    }
}

/// The result of sending a batch of this size.
///
/// Statuses: <https://postmarkapp.com/developer/api/overview#http-response-codes>.
fn answer(emails: usize, response: &ApiResponse) -> SendResult {
    if (200..300).contains(&response.status) {
        // Postmark has accepted the batch, and does not repeat its results.
        return match serde_json::from_str::<Vec<EmailResult>>(&response.body) {
            Ok(result) if result.len() == emails => {
                SendResult::Accepted(result.into_iter().map(outcome).collect())
            }
            _ => SendResult::Uncertain(format!(
                "Postmark answered {} without results for {emails} emails",
                response.status
            )),
        };
    }
    let result = serde_json::from_str::<EmailResult>(&response.body).ok();
    let words = match &result {
        Some(EmailResult { error_code, message, .. }) => format!(": {error_code}: {message}"),
        None => first_line(&response.body),
    };
    let error = kept(&format!("Postmark answered {}{words}", response.status));
    match result {
        Some(result) if result.concerns_sender() => SendResult::Refused(error),
        Some(EmailResult { error_code: EmailResult::INACTIVE, .. }) if emails == 1 => {
            SendResult::Accepted(vec![MessageResult::Unwanted(error)])
        }
        _ => not_taken(response, error),
    }
}

/// The result for one email. Code 0 may have a message about inactive recipients, if there are others.
fn outcome(result: EmailResult) -> MessageResult {
    match result.error_code {
        0 if result.message.contains("inactive") => {
            MessageResult::Partly { id: result.message_id, left_out: shortened(&result.message) }
        }
        0 => MessageResult::Accepted(result.message_id),
        EmailResult::INACTIVE => MessageResult::Unwanted(result.words()),
        _ => MessageResult::Refused(result.words()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::email;
    use super::*;
    use crate::api::tests::request;

    fn response(status: u16, body: &str) -> ApiResponse {
        ApiResponse { status, retry_after: None, message_id: None, date: None, body: body.into() }
    }

    #[test]
    fn a_batch_has_postmarks_documented_format() {
        let mut second = email("\"Bea @ home, or not\" <b@example.com>", "Olá B");
        second.to.push("c@example.com".parse().unwrap());
        second.cc = vec!["Dee <d@example.com>".parse().unwrap()];
        second.reply_to = None;
        let first = email("a@example.com", "Hello A");
        let body = Postmark.body(&[&first, &second]).unwrap();
        assert_eq!(Postmark.recipients(2, &body), [1, 3]);
        let request = request(&Postmark, Provider::Postmark, &body);
        let key = hookmill_core::secret::Secret::from("the-token\n");
        assert_eq!(
            request.authorize(&key),
            Some(("x-postmark-server-token", "the-token".to_owned()))
        );
        insta::assert_debug_snapshot!((&request.url, &request.headers), @r#"
        (
            "https://api.postmarkapp.com/email/batch",
            [
                (
                    "accept",
                    "application/json",
                ),
                (
                    "content-type",
                    "application/json",
                ),
            ],
        )
        "#);
        let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        insta::assert_json_snapshot!(body, @r#"
        [
          {
            "From": "\"Acme, Inc.\" <hello@example.com>",
            "HtmlBody": "<p>Hello A</p>",
            "MessageStream": "outbound",
            "Metadata": {
              "hookmill": "id-of-a@example.com"
            },
            "ReplyTo": "help@example.com",
            "Subject": "Welcome, \"Ines\" 🎉",
            "TextBody": "Hello A",
            "To": "a@example.com"
          },
          {
            "Cc": "Dee <d@example.com>",
            "From": "\"Acme, Inc.\" <hello@example.com>",
            "HtmlBody": "<p>Olá B</p>",
            "MessageStream": "outbound",
            "Metadata": {
              "hookmill": "id-of-\"Bea @ home, or not\" <b@example.com>"
            },
            "Subject": "Welcome, \"Ines\" 🎉",
            "TextBody": "Olá B",
            "To": "\"Bea @ home, or not\" <b@example.com>, c@example.com"
          }
        ]
        "#);
        assert_eq!(Postmark.body(&[]), None);
    }

    #[test]
    fn each_email_of_a_batch_has_its_own_code() {
        let body = r#"[
            {"ErrorCode":0,"Message":"OK","MessageID":"id-a","SubmittedAt":"2026-01-01T00:00:00Z","To":"a@example.com"},
            {"ErrorCode":406,"Message":"You tried to send to recipient(s) that have been marked as inactive."},
            {"ErrorCode":300,"Message":"Invalid 'To' address: 'c'."},
            {"ErrorCode":0,"Message":"Message OK, but will not deliver to these inactive addresses: d@example.com","MessageID":"id-d"}
        ]"#;
        assert_eq!(
            answer(4, &response(200, body)),
            SendResult::Accepted(vec![
                MessageResult::Accepted(Some("id-a".into())),
                MessageResult::Unwanted(
                    "Postmark error 406: You tried to send to recipient(s) that have been marked as inactive.".into()
                ),
                MessageResult::Refused("Postmark error 300: Invalid 'To' address: 'c'.".into()),
                MessageResult::Partly {
                    id: Some("id-d".into()),
                    left_out: "Message OK, but will not deliver to these inactive addresses: d@example.com".into(),
                },
            ])
        );
        // Without a code for each email, delivery is uncertain.
        for body in ["", "{}", "[]", "<html>", r#"[{"ErrorCode":0}]"#, r#"[{"Message":"OK"},{}]"#] {
            assert!(matches!(answer(2, &response(200, body)), SendResult::Uncertain(_)), "{body}");
        }
    }

    #[test]
    fn a_status_decides_between_retry_and_refusal() {
        let problem = |code: u32| format!(r#"{{"ErrorCode":{code},"Message":"words"}}"#);
        for (status, code, expected) in [
            (401, 10, "refused"),
            (403, 0, "refused"),
            (404, 0, "refused"),
            (413, 0, "malformed"),
            (415, 0, "refused"),
            (422, 300, "malformed"),
            (422, 400, "refused"),
            (422, 401, "refused"),
            (422, 402, "malformed"),
            (422, 405, "refused"),
            (422, 406, "malformed"),
            (422, 410, "malformed"),
            (422, 412, "refused"),
            (422, 413, "refused"),
            (429, 429, "busy"),
            (500, 0, "unavailable"),
            (502, 0, "unavailable"),
            (503, 100, "away"),
        ] {
            let found = match answer(2, &response(status, &problem(code))) {
                SendResult::Busy { .. } => "busy",
                SendResult::Deferred(_) => "later",
                SendResult::Unavailable(_) => "away",
                SendResult::Uncertain(_) => "unavailable",
                SendResult::Malformed(_) => "malformed",
                SendResult::Refused(_) => "refused",
                SendResult::Accepted(_) => "taken",
            };
            assert_eq!(found, expected, "{status} {code}");
        }
        assert_eq!(
            answer(2, &response(401, &problem(10))),
            SendResult::Refused("Postmark answered 401: 10: words".into())
        );
        assert_eq!(
            answer(1, &response(422, &problem(406))),
            SendResult::Accepted(vec![MessageResult::Unwanted(
                "Postmark answered 422: 406: words".into()
            )])
        );
        assert_eq!(
            answer(1, &response(503, "Service Unavailable")),
            SendResult::Unavailable("Postmark answered 503: Service Unavailable".into())
        );
    }
}
