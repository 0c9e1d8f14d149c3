//! Resend: <https://resend.com/docs/api-reference/emails/send-batch-emails>.
//!
//! A batch has an idempotency key. For 24 hours, Resend answers the same body under the same key with its first response,
//! and sends nothing again. So a batch whose response was lost is sent once more.

use std::time::Duration;

use hookmill_core::email::Email;
use hookmill_core::json::to_json;
use hookmill_core::outbound::{
    ApiRequest, ApiResponse, Authorization, MessageResult, Method, Provider, SendResult,
};
use serde::{Deserialize, Serialize};

use super::EmailApi;
use crate::api::{Api, EMAIL_ID, Recipients, Sealed, first_line, kept, not_taken};

/// Resend's API.
#[derive(Clone, Copy, Debug)]
pub struct Resend;

impl Api for Resend {
    fn name(&self) -> &'static str {
        Provider::Resend.as_str()
    }

    /// Source: <https://resend.com/docs/dashboard/emails/idempotency-keys>.
    fn recognizes_for(&self) -> Option<Duration> {
        Some(Duration::from_secs(24 * 3600))
    }

    fn max_batch(&self) -> usize {
        100
    }

    fn request(&self, batch: &Sealed<'_>) -> ApiRequest {
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("idempotency-key", batch.id.to_owned()),
            // One invalid address does not reject the other emails.
            ("x-batch-validation", "permissive".to_owned()),
        ];
        ApiRequest {
            method: Method::Post,
            url: batch.url("/emails/batch"),
            headers,
            authorization: Authorization::Bearer,
            body: batch.body.to_owned(),
        }
    }

    fn answer(&self, emails: usize, response: &ApiResponse) -> SendResult {
        answer(emails, response)
    }

    fn recipients(&self, _emails: usize, body: &str) -> Vec<usize> {
        let emails: Vec<Recipients> = serde_json::from_str(body).unwrap_or_default();
        emails.iter().map(Recipients::count).collect()
    }
}

impl EmailApi for Resend {
    fn body(&self, emails: &[&Email]) -> Option<String> {
        (!emails.is_empty()).then(|| body(emails))
    }

    /// The tag of each email: <https://resend.com/docs/dashboard/webhooks/event-types>.
    fn reported_id(&self) -> Option<&'static str> {
        Some("data.tags.hookmill")
    }
}

fn body(emails: &[&Email]) -> String {
    #[derive(Serialize)]
    struct Item<'e> {
        from: String,
        to: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        cc: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<String>,
        subject: &'e str,
        html: &'e str,
        text: &'e str,
        /// Resend returns it in its reports about the email.
        tags: [Tag<'e>; 1],
    }
    #[derive(Serialize)]
    struct Tag<'e> {
        name: &'static str,
        value: &'e str,
    }
    let items = emails.iter().map(|email| Item {
        from: email.from.to_string(),
        to: email.to.iter().map(ToString::to_string).collect(),
        cc: email.cc.iter().map(ToString::to_string).collect(),
        reply_to: email.reply_to.as_ref().map(ToString::to_string),
        subject: &email.subject,
        html: &email.html,
        text: &email.text,
        tags: [Tag { name: EMAIL_ID, value: &email.id }],
    });
    to_json(&items.collect::<Vec<_>>())
}

/// The result of sending a batch of this size.
///
/// Errors: <https://resend.com/docs/api-reference/errors>.
fn answer(emails: usize, response: &ApiResponse) -> SendResult {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Problem {
        name: String,
        message: String,
    }
    if (200..300).contains(&response.status) {
        // Resend has accepted the batch, and repeats its results under the same key.
        return delivered(emails, &response.body).map_or_else(
            || {
                SendResult::Uncertain(format!(
                    "Resend answered {} without results for the emails",
                    response.status
                ))
            },
            SendResult::Accepted,
        );
    }
    let problem: Problem = serde_json::from_str(&response.body).unwrap_or_default();
    let Problem { name, message } = &problem;
    let words = match (name.as_str(), message.as_str()) {
        ("", "") => first_line(&response.body),
        ("", message) => format!(": {message}"),
        (name, message) => format!(": {name}: {message}"),
    };
    let error = kept(&format!("Resend answered {}{words}", response.status));
    match (response.status, name.as_str()) {
        // A quota is not available again within the time of retries, and the sender is the same for all emails.
        (429, "daily_quota_exceeded" | "monthly_quota_exceeded") | (_, "invalid_from_address") => {
            SendResult::Refused(error)
        }
        (409, "concurrent_idempotent_requests") => SendResult::Busy { after: None, error },
        _ => not_taken(response, error),
    }
}

/// The ids are in the order of the emails, without refused ones, whose indexes the errors contain. `None` if an email has
/// no result.
fn delivered(emails: usize, body: &str) -> Option<Vec<MessageResult>> {
    #[derive(Deserialize)]
    struct Accepted {
        data: Vec<Id>,
        #[serde(default)]
        errors: Vec<Refused>,
    }
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    #[derive(Deserialize)]
    struct Refused {
        index: usize,
        message: String,
    }
    let Accepted { data, mut errors } = serde_json::from_str(body).ok()?;
    let mut ids = data.into_iter().map(|accepted| accepted.id);
    let email = |index| match errors.iter().position(|error| error.index == index) {
        Some(place) => Some(MessageResult::Refused(kept(&errors.swap_remove(place).message))),
        None => ids.next().map(|id| MessageResult::Accepted(Some(id))),
    };
    (0..emails).map(email).collect()
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
    fn a_batch_has_resends_documented_format() {
        let mut emails = ["a@example.com", "b@example.com"].map(|to| email(to, "Olá, Ines & co"));
        for email in &mut emails {
            email.html = "<p>Olá, Ines &amp; co</p>".into();
        }
        let body = Resend.body(&emails.each_ref()).unwrap();
        insta::assert_debug_snapshot!(request(&Resend, Provider::Resend, &body));
        assert_eq!(Resend.body(&[]), None);
    }

    #[test]
    fn each_email_of_a_batch_has_its_own_result() {
        let body = r#"{"data":[{"id":"id-a"},{"id":"id-c"}],"errors":[{"index":1,"message":"Invalid `to` field."}]}"#;
        assert_eq!(
            answer(3, &response(200, body)),
            SendResult::Accepted(vec![
                MessageResult::Accepted(Some("id-a".into())),
                MessageResult::Refused("Invalid `to` field.".into()),
                MessageResult::Accepted(Some("id-c".into())),
            ])
        );
        // An unreadable or incomplete response causes a retry.
        for body in [
            "",
            "{}",
            "<html>",
            r#"{"data":null}"#,
            r#"{"data":[{"id":"a"}]}"#,
            r#"{"data":[{"id":"a"}],"errors":[{"ind"#,
        ] {
            assert!(matches!(answer(2, &response(200, body)), SendResult::Uncertain(_)), "{body}");
        }
    }

    #[test]
    fn a_status_decides_between_retry_and_refusal() {
        let problem =
            |name: &str| format!(r#"{{"statusCode":0,"name":"{name}","message":"words"}}"#);
        for (status, name, expected) in [
            (429, "rate_limit_exceeded", "busy"),
            (409, "concurrent_idempotent_requests", "busy"),
            (409, "invalid_idempotent_request", "refused"),
            (429, "daily_quota_exceeded", "refused"),
            (429, "monthly_quota_exceeded", "refused"),
            (400, "validation_error", "malformed"),
            (422, "missing_required_field", "malformed"),
            (413, "", "malformed"),
            (401, "missing_api_key", "refused"),
            (403, "invalid_api_key", "refused"),
            (422, "invalid_from_address", "refused"),
            (451, "security_error", "refused"),
            (408, "", "away"),
            (500, "application_error", "unavailable"),
            (502, "", "unavailable"),
            (503, "", "away"),
        ] {
            let found = match answer(1, &response(status, &problem(name))) {
                SendResult::Busy { .. } => "busy",
                SendResult::Deferred(_) => "later",
                SendResult::Unavailable(_) => "away",
                SendResult::Uncertain(_) => "unavailable",
                SendResult::Malformed(_) => "malformed",
                SendResult::Refused(_) => "refused",
                SendResult::Accepted(_) => "taken",
            };
            assert_eq!(found, expected, "{status} {name}");
        }
        let limited = ApiResponse {
            retry_after: Some("7".into()),
            ..response(429, &problem("rate_limit_exceeded"))
        };
        assert_eq!(
            answer(1, &limited),
            SendResult::Busy {
                after: Some(Duration::from_secs(7)),
                error: "Resend answered 429: rate_limit_exceeded: words".into()
            }
        );
    }
}
