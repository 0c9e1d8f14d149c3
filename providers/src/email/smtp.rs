//! SMTP: <https://www.rfc-editor.org/rfc/rfc5321>. Amazon SES has an SMTP server, as most providers do.
//!
//! Only the transport differs from that of the other APIs, and only the native binary has it. A request names the server by
//! a URL, and its body is a [`Message`]; the response has the server's code as its status, and a [`Reply`] as its body.
//!
//! SMTP has no idempotency keys: if the connection breaks after the message and before the reply, the server may have
//! accepted the email. An email has the same Message-ID in every attempt, so that a recipient can recognize a repetition. A
//! request has one email, so that a broken connection leaves only one uncertain.

use std::time::Duration;

use hookmill_core::email::{Email, Mailbox};
use hookmill_core::outbound::{
    ApiRequest, ApiResponse, Authorization, MessageResult, Method, Provider, SendResult,
};
use serde::{Deserialize, Serialize};

use super::EmailApi;
use crate::api::{Api, Sealed, kept, shortened};

/// Any SMTP server.
#[derive(Clone, Copy, Debug)]
pub struct Smtp;

/// An email for the transport: the body of a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// The Message-ID with its angle brackets: the same in every attempt.
    pub id: String,
    /// The boundary between its parts, which no part contains.
    pub boundary: String,
    /// The sender.
    pub from: Mailbox,
    /// The recipients; at least one.
    pub to: Vec<Mailbox>,
    /// Recipients of a copy.
    pub cc: Vec<Mailbox>,
    /// The mailbox for replies, if not the sender.
    pub reply_to: Option<Mailbox>,
    /// The subject line.
    pub subject: String,
    /// The HTML part.
    pub html: String,
    /// The text part.
    pub text: String,
}

/// The transport's report: the body of a response, whose status is the server's last code.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The step that the server replied to.
    pub step: Step,
    /// The server's words.
    pub text: String,
    /// The recipients that it has refused permanently, with its words, if it has accepted the email for others.
    pub left_out: Vec<String>,
}

/// The steps of a dialogue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The greeting, EHLO, STARTTLS and AUTH.
    Login,
    /// MAIL: the sender.
    Sender,
    /// RCPT: a recipient.
    Recipient,
    /// DATA, and the message.
    Message,
}

impl Api for Smtp {
    fn name(&self) -> &'static str {
        Provider::Smtp.as_str()
    }

    fn recognizes_for(&self) -> Option<Duration> {
        None
    }

    fn max_batch(&self) -> usize {
        1
    }

    fn request(&self, batch: &Sealed<'_>) -> ApiRequest {
        let user = batch.settings.user.clone();
        ApiRequest {
            method: Method::Post,
            url: batch.settings.url.clone(),
            headers: Vec::new(),
            authorization: user.map_or(Authorization::None, Authorization::Password),
            body: batch.body.to_owned(),
        }
    }

    fn answer(&self, emails: usize, response: &ApiResponse) -> SendResult {
        answer(emails, response)
    }

    fn recipients(&self, emails: usize, body: &str) -> Vec<usize> {
        let message = serde_json::from_str::<Message>(body);
        vec![message.map_or(1, |message| message.to.len() + message.cc.len()); emails]
    }
}

impl EmailApi for Smtp {
    fn body(&self, emails: &[&Email]) -> Option<String> {
        let email = emails.first()?;
        let (_, domain) = email.from.address.rsplit_once('@').unwrap_or(("", "localhost"));
        let message = Message {
            id: format!("<{}@{domain}>", email.id),
            // At most 70 characters: <https://www.rfc-editor.org/rfc/rfc2046#section-5.1.1>.
            boundary: format!("hookmill-{}", email.id.chars().take(32).collect::<String>()),
            from: email.from.clone(),
            to: email.to.clone(),
            cc: email.cc.clone(),
            reply_to: email.reply_to.clone(),
            subject: email.subject.clone(),
            html: email.html.clone(),
            text: email.text.clone(),
        };
        serde_json::to_string(&message).ok()
    }

    /// A server reports by email, to the sender.
    fn reported_id(&self) -> Option<&'static str> {
        None
    }
}

/// The server's result for an email. Codes: <https://www.rfc-editor.org/rfc/rfc5321#section-4.2>; those of Amazon SES:
/// <https://docs.aws.amazon.com/ses/latest/dg/troubleshoot-smtp.html>.
fn answer(emails: usize, response: &ApiResponse) -> SendResult {
    let Ok(Reply { step, text, left_out }) = serde_json::from_str(&response.body) else {
        return SendResult::Uncertain(format!("SMTP answered {} without a reply", response.status));
    };
    let status = response.status;
    let error = kept(&format!("SMTP answered {status}: {text}"));
    match (status, step) {
        (200..300, Step::Message) => {
            let id = queued_as(&text);
            let delivered = match left_out.join(", ") {
                left_out if left_out.is_empty() => MessageResult::Accepted(id),
                left_out => MessageResult::Partly { id, left_out: shortened(&left_out) },
            };
            SendResult::Accepted(vec![delivered; emails])
        }
        // The server shuts down, or has too many connections.
        (421, _) => SendResult::Unavailable(error),
        // SES: too many emails in a second or a day. Elsewhere: logins are temporarily impossible.
        (454, _) | (400..500, Step::Login | Step::Sender) => {
            SendResult::Busy { after: None, error }
        }
        // A full mailbox or a greylisted sender affects this email only.
        (400..500, Step::Recipient | Step::Message) => SendResult::Deferred(error),
        (500..600, _) => SendResult::Refused(error),
        _ => SendResult::Uncertain(error),
    }
}

/// The server's id for the email. Each server has its own words, with the id at the end: `Ok 0100018c-…` (SES), `2.0.0 Ok:
/// queued as 4SkQ6h` (Postfix), `OK id=1rAbCd-00` (Exim).
fn queued_as(text: &str) -> Option<String> {
    let last = text.split_whitespace().last()?;
    let id = last.rsplit_once('=').map_or(last, |(_, id)| id).trim_matches(['<', '>']);
    let is_id = id.len() >= 6 && id.chars().any(|c| c.is_ascii_digit());
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::email;
    use super::*;
    use crate::api::tests::request;

    #[test]
    fn an_email_has_the_same_bytes_and_message_id_in_every_attempt() {
        let mut email = email("Bea <b@example.com>", "Olá");
        email.id = "ab".repeat(32);
        email.cc = vec!["c@example.com".parse().unwrap()];
        let body = Smtp.body(&[&email]).unwrap();
        assert_eq!(Smtp.body(&[&email]).unwrap(), body);
        assert_eq!(Smtp.recipients(1, &body), [2]);
        let message: Message = serde_json::from_str(&body).unwrap();
        assert_eq!(message.id, format!("<{}@example.com>", email.id));
        assert!(message.boundary.len() <= 70 && !body.contains(&format!("--{}", message.boundary)));
        let request = request(&Smtp, Provider::Smtp, &body);
        assert_eq!(
            (request.url.as_str(), request.authorization),
            ("smtps://mail.example.com:465", Authorization::None)
        );
        assert_eq!(Smtp.body(&[]), None);
    }

    #[test]
    fn a_code_decides_between_retry_and_refusal() {
        let result = |status, step, text: &str, left_out: &[&str]| {
            let left_out = left_out.iter().map(ToString::to_string).collect();
            let reply = Reply { step, text: text.into(), left_out };
            let body = serde_json::to_string(&reply).unwrap();
            answer(
                1,
                &ApiResponse { status, retry_after: None, message_id: None, date: None, body },
            )
        };
        for (text, id) in [
            ("Ok 0100018c5a7b-1234-000000", Some("0100018c5a7b-1234-000000")),
            ("2.0.0 Ok: queued as 4SkQ6h1Wz", Some("4SkQ6h1Wz")),
            ("OK id=1rAbCd-00", Some("1rAbCd-00")),
            ("Message accepted", None),
            ("", None),
        ] {
            let id = id.map(ToOwned::to_owned);
            assert_eq!(
                result(250, Step::Message, text, &[]),
                SendResult::Accepted(vec![MessageResult::Accepted(id)]),
                "{text}"
            );
        }
        assert_eq!(
            result(250, Step::Message, "Ok", &["c@example.com: 550 no such user"]),
            SendResult::Accepted(vec![MessageResult::Partly {
                id: None,
                left_out: "c@example.com: 550 no such user".into()
            }])
        );
        for (status, step, expected) in [
            (421, Step::Login, "away"),
            (421, Step::Message, "away"),
            (454, Step::Login, "busy"),
            (454, Step::Message, "busy"),
            (451, Step::Sender, "busy"),
            (450, Step::Recipient, "later"),
            (452, Step::Message, "later"),
            (535, Step::Login, "refused"),
            (553, Step::Sender, "refused"),
            (550, Step::Recipient, "refused"),
            (554, Step::Message, "refused"),
            // Not a reply to a message.
            (250, Step::Recipient, "unavailable"),
            (354, Step::Message, "unavailable"),
        ] {
            let found = match result(status, step, "words", &[]) {
                SendResult::Busy { .. } => "busy",
                SendResult::Deferred(_) => "later",
                SendResult::Unavailable(_) => "away",
                SendResult::Uncertain(_) => "unavailable",
                SendResult::Malformed(_) => "malformed",
                SendResult::Refused(_) => "refused",
                SendResult::Accepted(_) => "taken",
            };
            assert_eq!(found, expected, "{status} {step:?}");
        }
        assert_eq!(
            result(550, Step::Recipient, "b@example.com: no such user", &[]),
            SendResult::Refused("SMTP answered 550: [recipient]: no such user".into())
        );
    }
}
