//! The locations of objects in providers' APIs.

use hookmill_core::outbound::{Provider, Purpose};

/// Provider, beginning of an event type, beginning of a path. One word follows in the type, and the object's id in the
/// path.
///
/// Sources: <https://docs.stripe.com/api>, <https://clerk.com/docs/reference/backend-api>,
/// <https://developer.paddle.com/api-reference>.
const OBJECTS: &[(Provider, &str, &str)] = &[
    (Provider::Clerk, "organization.", "/v1/organizations/"),
    (Provider::Clerk, "user.", "/v1/users/"),
    (Provider::Paddle, "customer.", "/customers/"),
    (Provider::Paddle, "subscription.", "/subscriptions/"),
    (Provider::Paddle, "transaction.", "/transactions/"),
    (Provider::Stripe, "charge.", "/v1/charges/"),
    (Provider::Stripe, "charge.dispute.", "/v1/disputes/"),
    (Provider::Stripe, "charge.refund.", "/v1/refunds/"),
    (Provider::Stripe, "checkout.session.", "/v1/checkout/sessions/"),
    (Provider::Stripe, "credit_note.", "/v1/credit_notes/"),
    (Provider::Stripe, "customer.", "/v1/customers/"),
    (Provider::Stripe, "customer.subscription.", "/v1/subscriptions/"),
    (Provider::Stripe, "invoice.", "/v1/invoices/"),
    (Provider::Stripe, "invoice_payment.", "/v1/invoice_payments/"),
    (Provider::Stripe, "payment_intent.", "/v1/payment_intents/"),
    (Provider::Stripe, "payment_method.", "/v1/payment_methods/"),
    (Provider::Stripe, "payout.", "/v1/payouts/"),
    (Provider::Stripe, "price.", "/v1/prices/"),
    (Provider::Stripe, "product.", "/v1/products/"),
    (Provider::Stripe, "radar.early_fraud_warning.", "/v1/radar/early_fraud_warnings/"),
    (Provider::Stripe, "refund.", "/v1/refunds/"),
    (Provider::Stripe, "subscription_schedule.", "/v1/subscription_schedules/"),
];

/// The provider whose API has the objects of a source, by the name of its scheme or preset.
pub fn provider(name: &str) -> Option<Provider> {
    let mut providers = Provider::of(Purpose::Objects).into_iter();
    providers.find(|(provider, _)| *provider == name).map(|(_, provider)| provider)
}

/// The path of an object, if the API has one. Ids consist of letters, digits, `_` and `-`.
pub fn path(provider: Provider, event_type: &str, id: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if id.is_empty() || !id.chars().all(plain) {
        return None;
    }
    let (_, _, path) = OBJECTS.iter().find(|(whose, prefix, _)| {
        let rest = event_type.strip_prefix(prefix);
        *whose == provider && rest.is_some_and(|rest| !rest.contains('.'))
    })?;
    Some(format!("{path}{id}"))
}

/// Whether the API has objects for every event type that a pattern matches.
#[cfg(feature = "toml")]
pub(crate) fn knows(provider: Provider, pattern: &str) -> bool {
    let head = pattern.split('*').next().unwrap_or_default();
    OBJECTS.iter().any(|(whose, prefix, _)| *whose == provider && head.starts_with(prefix))
}

/// The objects of the API, for messages.
#[cfg(feature = "toml")]
pub(crate) fn objects(provider: Provider) -> String {
    let types = OBJECTS.iter().filter(|(whose, ..)| *whose == provider);
    types.map(|(_, prefix, _)| format!("{prefix}*")).collect::<Vec<_>>().join(", ")
}

/// The path of the object in a body.
pub const fn object(provider: Provider) -> &'static str {
    match provider {
        Provider::Stripe => "data.object",
        _ => "data",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_its_object_and_not_to_one_with_a_similar_name() {
        for (provider, event_type, id, expected) in [
            (Provider::Stripe, "customer.updated", "cus_1", Some("/v1/customers/cus_1")),
            (
                Provider::Stripe,
                "customer.subscription.paused",
                "sub_1",
                Some("/v1/subscriptions/sub_1"),
            ),
            (Provider::Stripe, "customer.tax_id.created", "txi_1", None),
            (Provider::Stripe, "charge.dispute.closed", "du_1", Some("/v1/disputes/du_1")),
            (Provider::Stripe, "charge.refund.updated", "re_1", Some("/v1/refunds/re_1")),
            (Provider::Stripe, "invoiceitem.created", "ii_1", None),
            (Provider::Stripe, "customer.updated", "../balance", None),
            (Provider::Stripe, "customer.updated", "", None),
            (Provider::Clerk, "user.updated", "user_1", Some("/v1/users/user_1")),
            (Provider::Clerk, "organizationMembership.updated", "orgmem_1", None),
            (Provider::Paddle, "transaction.paid", "txn_1", Some("/transactions/txn_1")),
            (Provider::Resend, "email.sent", "1", None),
        ] {
            assert_eq!(path(provider, event_type, id).as_deref(), expected, "{event_type} {id}");
        }
    }
}
