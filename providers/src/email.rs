//! The APIs that take emails: a file for each, and a line in [`EMAIL_APIS`].
//!
//! What hookmill.toml has to know of an API, its name, its URL and its rate, is an entry among core's
//! [`Provider`]s. What there is to know beyond that is in its file: batches, idempotency, requests, answers, and how the
//! provider names an email in its reports.

mod postmark;
mod resend;
mod sendgrid;
pub mod smtp;

use hookmill_core::email::Email;
use hookmill_core::limits::EMAIL_BATCH_BYTES;
use hookmill_core::outbound::Provider;

use crate::api::Api;
pub use crate::email::postmark::Postmark;
pub use crate::email::resend::Resend;
pub use crate::email::sendgrid::SendGrid;
pub use crate::email::smtp::Smtp;

/// An API that takes emails.
pub trait EmailApi: Api {
    /// Which of these emails go out in one request, by their places. Each is in one batch.
    fn batches(&self, emails: &[Email]) -> Vec<Vec<usize>> {
        in_order(emails, self.max_batch())
    }

    /// The body of a batch of these emails, which [`batches`](Self::batches) put together: sealed with the batch, and the same
    /// whenever it is sent. `None` for no email.
    fn body(&self, emails: &[&Email]) -> Option<String>;

    /// Where in the provider's webhooks the email's id is, as a path in a rule. `None`: it sends no webhook that has it.
    fn reported_id(&self) -> Option<&'static str>;
}

/// The APIs that take emails.
pub static EMAIL_APIS: &[&dyn EmailApi] = &[&Resend, &SendGrid, &Postmark, &Smtp];

/// The API of a provider. `None`: that provider takes no emails.
pub fn email_api(provider: Provider) -> Option<&'static dyn EmailApi> {
    EMAIL_APIS.iter().copied().find(|api| api.name() == provider.as_str())
}

/// Batches of at most so many emails, and at most so many bytes, in order.
fn in_order(emails: &[Email], max_batch: usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut bytes = 0;
    for (place, email) in emails.iter().enumerate() {
        let length = length(email);
        match batches.last_mut() {
            Some(batch) if batch.len() < max_batch && bytes + length <= EMAIL_BATCH_BYTES => {
                bytes += length;
                batch.push(place);
            }
            _ => {
                bytes = length;
                batches.push(vec![place]);
            }
        }
    }
    batches
}

/// About how many bytes an email adds to a request.
fn length(email: &Email) -> usize {
    let recipients: usize = email.to.iter().chain(&email.cc).map(|to| to.address.len() + 100).sum();
    email.subject.len() + email.html.len() + email.text.len() + recipients + 500
}

#[cfg(test)]
mod tests {
    use hookmill_core::config::parse;
    use hookmill_core::outbound::{ApiResponse, Purpose, SendResult};
    use proptest::prelude::*;

    use super::*;

    /// An email to an address, for the tests of each API.
    pub(super) fn email(to: &str, text: &str) -> Email {
        Email {
            id: format!("id-of-{to}"),
            from: "\"Acme, Inc.\" <hello@example.com>".parse().unwrap(),
            to: vec![to.parse().unwrap()],
            cc: Vec::new(),
            reply_to: Some("help@example.com".parse().unwrap()),
            subject: "Welcome, \"Ines\" 🎉".into(),
            html: format!("<p>{text}</p>"),
            text: text.to_owned(),
        }
    }

    #[test]
    fn every_provider_of_emails_has_one_api() {
        let names: Vec<_> = EMAIL_APIS.iter().map(Api::name).collect();
        let configured: Vec<_> =
            Provider::of(Purpose::Email).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, configured);
        assert!(email_api(Provider::Twilio).is_none());
    }

    #[test]
    fn a_preset_finds_the_id_of_an_email_where_its_api_says() {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for api in EMAIL_APIS {
            let name = api.name();
            let text = format!(
                "[sources.s]\nscheme = \"{name}\"\nsecrets = [\"env:A\"]\npreset = \"{name}\"\n"
            );
            let (config, errors) = parse("hookmill.toml", &text);
            if !errors.is_empty() {
                missing.push(name);
                continue;
            }
            let rules = format!("{:?}", config.rules);
            for member in api.reported_id().unwrap().split('.') {
                assert!(rules.contains(&format!("{member:?}")), "{name}: {member}");
            }
            found.push(name);
        }
        // There is no preset for the others.
        assert_eq!((found, missing), (vec!["resend", "sendgrid"], vec!["postmark", "smtp"]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_email_is_in_one_batch(
            api in prop::sample::select(EMAIL_APIS),
            lengths in prop::collection::vec(0_usize..20_000, 0..30),
        ) {
            let emails: Vec<_> =
                lengths.iter().map(|n| email("a@b.c", &"x".repeat(*n))).collect();
            let batches = api.batches(&emails);
            let mut places: Vec<_> = batches.concat();
            places.sort_unstable();
            prop_assert_eq!(places, (0..emails.len()).collect::<Vec<_>>());
            for batch in batches {
                prop_assert!(!batch.is_empty() && batch.len() <= api.max_batch());
                let emails: Vec<_> = batch.iter().map(|place| &emails[*place]).collect();
                let body = api.body(&emails).unwrap();
                prop_assert_eq!(api.recipients(emails.len(), &body), vec![1; emails.len()]);
            }
        }

        #[test]
        fn there_is_an_outcome_for_each_email_whatever_is_answered(
            api in prop::sample::select(EMAIL_APIS),
            emails in 0_usize..120,
            status in 100_u16..600,
            body in ".{0,200}|\\{\"data\":\\[(\\{\"id\":\"[a-z]\"\\},?){0,5}\\],\"errors\":\\[\\{\"index\":[0-9]{1,4},\"message\":\"x\"\\}\\]\\}",
        ) {
            let response = ApiResponse { status, retry_after: None, message_id: None, body };
            if let SendResult::Accepted(delivered) = api.answer(emails, &response) {
                prop_assert!((200..300).contains(&status));
                prop_assert_eq!(delivered.len(), emails);
            }
        }
    }
}
