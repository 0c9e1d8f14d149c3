//! SendGrid: <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send>.
//!
//! It has no idempotency keys: after a lost response, delivery is uncertain.
//!
//! One request sends one text to many recipients, so different emails share a request by substitution: the text is a tag,
//! and each recipient has its own text for that tag. A text that is too long for a substitution has its own request.

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_core::email::{Email, Mailbox};
use hookmill_core::limits::EMAIL_BATCH_BYTES;
use hookmill_core::outbound::{
    ApiRequest, ApiResponse, Authorization, MessageResult, Method, Provider, SendResult,
};
use serde::{Deserialize, Serialize};

use super::{EmailApi, length};
use crate::api::{Api, EMAIL_ID, Recipients, Sealed, first_line, kept, not_taken};

/// The maximum number of emails in one batch: personalizations of a request.
const BATCH_EMAILS: usize = 1000;
/// The maximum number of recipients of one request, including copies. Source:
/// <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors>.
const RECIPIENTS: usize = 1000;
/// The maximum size of the substitutions of one recipient, in bytes; SendGrid's limit is 10,000.
const SUBSTITUTION_BYTES: usize = 9_500;

/// SendGrid's API.
#[derive(Clone, Copy, Debug)]
pub struct SendGrid;

impl Api for SendGrid {
    fn name(&self) -> &'static str {
        Provider::SendGrid.as_str()
    }

    fn recognizes_for(&self) -> Option<Duration> {
        None
    }

    fn max_batch(&self) -> usize {
        BATCH_EMAILS
    }

    fn request(&self, batch: &Sealed<'_>) -> ApiRequest {
        ApiRequest {
            method: Method::Post,
            url: batch.url("/v3/mail/send"),
            headers: vec![("content-type", "application/json".to_owned())],
            authorization: Authorization::Bearer,
            body: batch.body.to_owned(),
        }
    }

    fn answer(&self, emails: usize, response: &ApiResponse) -> SendResult {
        answer(emails, response)
    }

    fn recipients(&self, _emails: usize, body: &str) -> Vec<usize> {
        #[derive(Deserialize, Default)]
        struct Request {
            personalizations: Vec<Recipients>,
        }
        let Request { personalizations } = serde_json::from_str(body).unwrap_or_default();
        personalizations.iter().map(Recipients::count).collect()
    }
}

impl EmailApi for SendGrid {
    fn batches(&self, emails: &[Email]) -> Vec<Vec<usize>> {
        batches(emails)
    }

    fn body(&self, emails: &[&Email]) -> Option<String> {
        body(emails)
    }

    /// The custom argument of each email:
    /// <https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event#unique-arguments>.
    fn reported_id(&self) -> Option<&'static str> {
        Some("hookmill")
    }
}

/// A batch with room for more emails.
struct Open {
    batch: usize,
    bytes: usize,
    recipients: usize,
}

/// Divides emails into requests, by index, in the order of each one's first email.
fn batches(emails: &[Email]) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    // Sender, reply address and group belong to the request; everything else belongs to a recipient.
    let mut open: BTreeMap<_, Open> = BTreeMap::new();
    for (place, email) in emails.iter().enumerate() {
        if email.html.len() + email.text.len() > SUBSTITUTION_BYTES {
            batches.push(vec![place]);
            continue;
        }
        let request = (&email.from, email.reply_to.as_ref(), email.group.as_ref());
        let length = length(email);
        let recipients = email.to.len() + email.cc.len();
        match open.get_mut(&request) {
            Some(open)
                if batches[open.batch].len() < BATCH_EMAILS
                    && open.recipients + recipients <= RECIPIENTS
                    && open.bytes + length <= EMAIL_BATCH_BYTES =>
            {
                open.bytes += length;
                open.recipients += recipients;
                batches[open.batch].push(place);
            }
            _ => {
                open.insert(request, Open { batch: batches.len(), bytes: length, recipients });
                batches.push(vec![place]);
            }
        }
    }
    batches
}

/// The body of a batch of emails that [`batches`] put together; `None` without emails.
fn body(emails: &[&Email]) -> Option<String> {
    #[derive(Serialize)]
    struct Request<'e> {
        personalizations: Vec<Personalization<'e>>,
        from: Address<'e>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<Address<'e>>,
        /// Required, although each email has its own.
        subject: &'e str,
        content: [Content<'e>; 2],
        #[serde(skip_serializing_if = "Option::is_none")]
        asm: Option<Asm>,
    }
    /// <https://www.twilio.com/docs/sendgrid/ui/sending-email/unsubscribe-groups>
    #[derive(Serialize)]
    struct Asm {
        group_id: u64,
    }
    #[derive(Serialize)]
    struct Personalization<'e> {
        to: Vec<Address<'e>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        cc: Vec<Address<'e>>,
        subject: &'e str,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        substitutions: BTreeMap<&'e str, &'e str>,
        /// SendGrid returns it in its reports about the email.
        custom_args: BTreeMap<&'static str, &'e str>,
    }
    #[derive(Serialize)]
    struct Address<'e> {
        email: &'e str,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'e str>,
    }
    #[derive(Serialize)]
    struct Content<'e> {
        r#type: &'static str,
        value: &'e str,
    }
    fn address(mailbox: &Mailbox) -> Address<'_> {
        Address { email: &mailbox.address, name: mailbox.name.as_deref() }
    }

    let first = emails.first()?;
    let alone = emails.len() == 1;
    // No text contains the id of an email, so no text contains a tag.
    let tag = |part| format!("-{}.{part}-", first.id.get(..16).unwrap_or(&first.id));
    let (text_tag, html_tag) = (tag("text"), tag("html"));
    let personalizations = emails.iter().map(|email| {
        let to = email.to.iter().map(address).collect();
        let cc = email.cc.iter().map(address).collect();
        let own = [(html_tag.as_str(), email.html.as_str()), (&text_tag, &email.text)];
        let substitutions = own.into_iter().filter(|_| !alone).collect();
        let custom_args = BTreeMap::from([(EMAIL_ID, email.id.as_str())]);
        Personalization { to, cc, subject: &email.subject, substitutions, custom_args }
    });
    let (text, html) = if alone { (&*first.text, &*first.html) } else { (&*text_tag, &*html_tag) };
    let request = Request {
        personalizations: personalizations.collect(),
        from: address(&first.from),
        reply_to: first.reply_to.as_ref().map(address),
        subject: &first.subject,
        // The required order: plain text first.
        content: [
            Content { r#type: "text/plain", value: text },
            Content { r#type: "text/html", value: html },
        ],
        // hookmill.toml with another group is rejected.
        asm: first.group.as_ref().and_then(|group| Some(Asm { group_id: group.parse().ok()? })),
    };
    serde_json::to_string(&request).ok()
}

/// The result of sending a batch of this size. SendGrid answers for the whole request, with one id for all emails.
fn answer(emails: usize, response: &ApiResponse) -> SendResult {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Problems {
        errors: Vec<Problem>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Problem {
        message: String,
        field: Option<String>,
    }
    if (200..300).contains(&response.status) {
        return SendResult::Accepted(vec![
            MessageResult::Accepted(response.message_id.clone());
            emails
        ]);
    }
    let Problems { errors } = serde_json::from_str(&response.body).unwrap_or_default();
    let words = errors.iter().map(|Problem { message, field }| match field {
        Some(field) => format!(": {field}: {message}"),
        None => format!(": {message}"),
    });
    let words = words.collect::<String>();
    let words = if words.is_empty() { first_line(&response.body) } else { words };
    let error = kept(&format!("SendGrid answered {}{words}", response.status));
    // The sender is the same for all emails.
    let of_sender =
        |problem: &Problem| problem.field.as_deref().is_some_and(|f| f.starts_with("from"));
    if response.status == 400 && errors.iter().any(of_sender) {
        return SendResult::Refused(error);
    }
    not_taken(response, error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn email(to: &str, text: &str) -> Email {
        Email {
            id: format!("id-of-{to}"),
            from: "Acme <hello@example.com>".parse().unwrap(),
            to: vec![to.parse().unwrap()],
            cc: Vec::new(),
            reply_to: None,
            subject: format!("For {to}"),
            html: format!("<p>{text}</p>"),
            text: text.to_owned(),
            group: None,
        }
    }

    #[test]
    fn different_emails_share_a_request_by_substitution() {
        let mut second = email("Bea <b@example.com>", "Olá \"B\"");
        second.cc = vec!["c@example.com".parse().unwrap()];
        let emails = [email("a@example.com", "Hello A"), second];
        let body: serde_json::Value =
            serde_json::from_str(&body(&emails.each_ref()).unwrap()).unwrap();
        insta::assert_json_snapshot!(body);
    }

    #[test]
    fn a_single_email_is_written_without_substitution() {
        let mut email = email("a@example.com", "Hello");
        email.group = Some("4711".into());
        let body: serde_json::Value = serde_json::from_str(&body(&[&email]).unwrap()).unwrap();
        insta::assert_json_snapshot!(body);
        assert_eq!(super::body(&[]), None);
    }

    #[test]
    fn long_emails_and_those_of_other_senders_have_their_own_requests() {
        let long = email("a@example.com", &"x".repeat(SUBSTITUTION_BYTES));
        let mut other = email("b@example.com", "x");
        other.from = "other@example.com".parse().unwrap();
        let mut newsletter = email("b@example.com", "x");
        newsletter.group = Some("4711".into());
        let short = || email("c@example.com", "x");
        assert_eq!(
            batches(&[
                short(),
                long,
                other.clone(),
                short(),
                other,
                newsletter.clone(),
                newsletter
            ]),
            [vec![0, 3], vec![1], vec![2, 4], vec![5, 6]]
        );
        let many = vec![short(); 2 * BATCH_EMAILS + 1];
        let sizes: Vec<_> = batches(&many).iter().map(Vec::len).collect();
        assert_eq!(sizes, [BATCH_EMAILS, BATCH_EMAILS, 1]);
        let mut copied = short();
        copied.cc = vec!["d@example.com".parse().unwrap()];
        let sizes: Vec<_> = batches(&vec![copied; 600]).iter().map(Vec::len).collect();
        assert_eq!(sizes, [500, 100]);
    }

    #[test]
    fn a_status_decides_between_retry_and_refusal() {
        let answer = |status, body: &str| {
            let (retry_after, message_id) = (Some("3".into()), Some("id-1".into()));
            answer(
                2,
                &ApiResponse { status, retry_after, message_id, date: None, body: body.into() },
            )
        };
        assert_eq!(
            answer(202, ""),
            SendResult::Accepted(vec![MessageResult::Accepted(Some("id-1".into())); 2])
        );
        let problem = r#"{"errors":[{"message":"Does not contain a valid address.","field":"from.email","help":null}]}"#;
        assert_eq!(
            answer(400, problem),
            SendResult::Refused(
                "SendGrid answered 400: from.email: Does not contain a valid address.".into()
            )
        );
        assert_eq!(
            answer(429, r#"{"errors":[{"message":"too many requests","field":null}]}"#),
            SendResult::Busy {
                after: Some(Duration::from_secs(3)),
                error: "SendGrid answered 429: too many requests".into()
            }
        );
        let problem = r#"{"errors":[{"message":"Does not contain a valid address.","field":"personalizations.3.to.0.email"}]}"#;
        assert!(matches!(answer(400, problem), SendResult::Malformed(_)));
        assert!(matches!(answer(413, ""), SendResult::Malformed(_)));
        for status in [500, 502, 504] {
            assert_eq!(
                answer(status, "<html>"),
                SendResult::Uncertain(format!("SendGrid answered {status}"))
            );
        }
        for status in [408, 503] {
            assert_eq!(
                answer(status, ""),
                SendResult::Unavailable(format!("SendGrid answered {status}"))
            );
        }
        for status in [401, 403, 404] {
            assert_eq!(
                answer(status, ""),
                SendResult::Refused(format!("SendGrid answered {status}"))
            );
        }
    }

    proptest! {
        #[test]
        fn every_email_is_in_one_batch(lengths in prop::collection::vec(0_usize..12_000, 0..50)) {
            let emails: Vec<_> = lengths.iter().map(|n| email("a@b.c", &"x".repeat(*n))).collect();
            let batches = batches(&emails);
            let mut places: Vec<_> = batches.concat();
            places.sort_unstable();
            prop_assert_eq!(places, (0..emails.len()).collect::<Vec<_>>());
            for batch in batches.iter().filter(|batch| batch.len() > 1) {
                for place in batch {
                    prop_assert!(emails[*place].html.len() + emails[*place].text.len() <= SUBSTITUTION_BYTES);
                }
            }
        }
    }
}
