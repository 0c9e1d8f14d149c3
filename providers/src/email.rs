//! The email APIs: a file for each, and a line in [`EMAIL_APIS`].
//!
//! The facts that hookmill.toml needs, name, URL and rate, are an entry among core's [`Provider`]s. The API's file has
//! everything else: batches, idempotency, requests, responses, and the email's id in the provider's reports.

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

/// An email API.
pub trait EmailApi: Api {
    /// Divides emails into requests, by index. Each email is in one batch.
    fn batches(&self, emails: &[Email]) -> Vec<Vec<usize>> {
        in_order(emails, self.max_batch())
    }

    /// The body of a batch of these emails, as divided by [`batches`](Self::batches). It is sealed with the batch, and
    /// equal in every request. `None` without emails.
    fn body(&self, emails: &[&Email]) -> Option<String>;

    /// The path of the email's id in the provider's webhooks, as in a rule. `None`: the provider's webhooks do not contain
    /// it.
    fn reported_id(&self) -> Option<&'static str>;
}

/// The email APIs.
pub static EMAIL_APIS: &[&dyn EmailApi] = &[&Resend, &SendGrid, &Postmark, &Smtp];

/// The email API of a provider. `None`: the provider has none.
pub fn email_api(provider: Provider) -> Option<&'static dyn EmailApi> {
    EMAIL_APIS.iter().copied().find(|api| api.name() == provider.as_str())
}

/// Batches of at most this many emails and bytes, in order.
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

/// The approximate size that an email adds to a request, in bytes.
fn length(email: &Email) -> usize {
    let recipients: usize = email.to.iter().chain(&email.cc).map(|to| to.address.len() + 100).sum();
    email.subject.len() + email.html.len() + email.text.len() + recipients + 500
}

#[cfg(test)]
mod tests {
    use hookmill_config::parse;
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
            group: None,
        }
    }

    #[test]
    fn every_email_provider_has_one_api() {
        let names: Vec<_> = EMAIL_APIS.iter().map(Api::name).collect();
        let configured: Vec<_> =
            Provider::of(Purpose::Email).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, configured);
        assert!(email_api(Provider::Twilio).is_none());
    }

    #[test]
    fn a_preset_finds_the_id_of_an_email_at_its_apis_path() {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for api in EMAIL_APIS {
            let name = api.name();
            let text = format!(
                "[sources.s]\nscheme = \"{name}\"\nsecrets = [\"env:A\"]\npreset = \"{name}\"\n"
            );
            let Ok(config) = parse("hookmill.toml", &text) else {
                missing.push(name);
                continue;
            };
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
        fn every_email_has_a_result_for_any_response(
            api in prop::sample::select(EMAIL_APIS),
            emails in 0_usize..120,
            status in 100_u16..600,
            body in ".{0,200}|\\{\"data\":\\[(\\{\"id\":\"[a-z]\"\\},?){0,5}\\],\"errors\":\\[\\{\"index\":[0-9]{1,4},\"message\":\"x\"\\}\\]\\}",
        ) {
            let response = ApiResponse { status, retry_after: None, message_id: None, date: None, body };
            if let SendResult::Accepted(delivered) = api.answer(emails, &response) {
                prop_assert!((200..300).contains(&status));
                prop_assert_eq!(delivered.len(), emails);
            }
        }
    }
}
