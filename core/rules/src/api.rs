//! The objects in providers' APIs: where one is, how all of them are listed, and the event that a rule sees in place of an
//! object.

use std::collections::BTreeMap;
use std::time::Duration;

use hookmill_core::outbound::{Provider, Purpose};
use hookmill_core::time::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::Program;

/// A kind of object.
///
/// Sources: <https://docs.stripe.com/api>, <https://clerk.com/docs/reference/backend-api>,
/// <https://developer.paddle.com/api-reference>.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Object {
    provider: Provider,
    /// The beginning of its event types. One word follows.
    types: &'static str,
    /// The path of the list, or of an object without its id.
    path: &'static str,
    /// Whether an object has a path of its own: its id follows the list's.
    has_path: bool,
    /// The parameters of the list that leave nothing out; none if no list has all objects of the kind.
    list: Option<&'static str>,
}

impl Object {
    const fn new(
        provider: Provider,
        types: &'static str,
        path: &'static str,
        list: &'static str,
    ) -> Self {
        Self { provider, types, path, has_path: true, list: Some(list) }
    }

    const fn without_list(self) -> Self {
        Self { list: None, ..self }
    }

    const fn without_path(self) -> Self {
        Self { has_path: false, ..self }
    }
}

/// Lists of Stripe: <https://docs.stripe.com/api/pagination>. Without `status`, a list of subscriptions has no canceled ones.
const OBJECTS: &[Object] = &[
    Object::new(Provider::Clerk, "organization.", "/v1/organizations", CLERK),
    Object::new(Provider::Clerk, "organizationMembership.", "/v1/organization_memberships", CLERK)
        .without_path(),
    Object::new(Provider::Clerk, "user.", "/v1/users", CLERK),
    Object::new(Provider::Paddle, "adjustment.", "/adjustments", PADDLE).without_path(),
    Object::new(Provider::Paddle, "customer.", "/customers", PADDLE_ARCHIVED),
    Object::new(Provider::Paddle, "price.", "/prices", PADDLE_ARCHIVED),
    Object::new(Provider::Paddle, "product.", "/products", PADDLE_ARCHIVED),
    Object::new(Provider::Paddle, "subscription.", "/subscriptions", PADDLE),
    Object::new(Provider::Paddle, "transaction.", "/transactions", PADDLE),
    Object::new(Provider::Stripe, "charge.", "/v1/charges", STRIPE),
    Object::new(Provider::Stripe, "charge.dispute.", "/v1/disputes", STRIPE),
    // The same objects as those of `refund.*`.
    Object::new(Provider::Stripe, "charge.refund.", "/v1/refunds", STRIPE).without_list(),
    Object::new(Provider::Stripe, "checkout.session.", "/v1/checkout/sessions", STRIPE),
    Object::new(Provider::Stripe, "credit_note.", "/v1/credit_notes", STRIPE),
    Object::new(Provider::Stripe, "customer.", "/v1/customers", STRIPE),
    Object::new(
        Provider::Stripe,
        "customer.subscription.",
        "/v1/subscriptions",
        "limit=100&status=all",
    ),
    Object::new(Provider::Stripe, "invoice.", "/v1/invoices", STRIPE),
    Object::new(Provider::Stripe, "invoice_payment.", "/v1/invoice_payments", STRIPE),
    Object::new(Provider::Stripe, "payment_intent.", "/v1/payment_intents", STRIPE),
    // Only the list of each customer has them.
    Object::new(Provider::Stripe, "payment_method.", "/v1/payment_methods", STRIPE).without_list(),
    Object::new(Provider::Stripe, "payout.", "/v1/payouts", STRIPE),
    Object::new(Provider::Stripe, "price.", "/v1/prices", STRIPE),
    Object::new(Provider::Stripe, "product.", "/v1/products", STRIPE),
    Object::new(
        Provider::Stripe,
        "radar.early_fraud_warning.",
        "/v1/radar/early_fraud_warnings",
        STRIPE,
    ),
    Object::new(Provider::Stripe, "refund.", "/v1/refunds", STRIPE),
    Object::new(Provider::Stripe, "subscription_schedule.", "/v1/subscription_schedules", STRIPE),
];

/// The longest page: <https://docs.stripe.com/api/pagination>.
const STRIPE: &str = "limit=100";
/// The oldest first, so that a new object does not move others to a later page.
const CLERK: &str = "limit=100&order_by=%2Bcreated_at";
/// The longest page; Paddle shortens it where less is allowed: <https://developer.paddle.com/api-reference/about/pagination>.
const PADDLE: &str = "per_page=200";
const PADDLE_ARCHIVED: &str = "per_page=200&status=active,archived";

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
    let object = with_path(provider).find(|object| {
        let rest = event_type.strip_prefix(object.types);
        rest.is_some_and(|rest| !rest.contains('.'))
    })?;
    Some(format!("{}/{id}", object.path))
}

fn with_path(provider: Provider) -> impl Iterator<Item = &'static Object> {
    OBJECTS.iter().filter(move |object| object.provider == provider && object.has_path)
}

/// Whether the API has objects for every event type that a pattern matches.
#[cfg(feature = "toml")]
pub(crate) fn knows(provider: Provider, pattern: &str) -> bool {
    let head = pattern.split('*').next().unwrap_or_default();
    with_path(provider).any(|object| head.starts_with(object.types))
}

/// The objects of the API, for messages.
#[cfg(feature = "toml")]
pub(crate) fn objects(provider: Provider) -> String {
    with_path(provider).map(|object| format!("{}*", object.types)).collect::<Vec<_>>().join(", ")
}

/// The path of the object in a body.
pub const fn object(provider: Provider) -> &'static str {
    match provider {
        Provider::Stripe => "data.object",
        _ => "data",
    }
}

/// A list of a provider's API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List {
    /// Its name: its path without version, such as `checkout_sessions`.
    pub name: String,
    /// Its path with parameters, from the first page on.
    pub path: String,
    /// The event type under which rules see its objects.
    pub event_type: String,
}

impl List {
    /// The event type under which rules see that an object was deleted.
    pub fn deletion(&self) -> String {
        let types = self.event_type.strip_suffix("updated").unwrap_or(&self.event_type);
        format!("{types}deleted")
    }
}

/// The lists of an API, in an order that does not change.
pub fn lists(provider: Provider) -> impl Iterator<Item = List> {
    OBJECTS.iter().filter(move |object| object.provider == provider).filter_map(|object| {
        let path = object.path.trim_start_matches("/v1").trim_start_matches('/');
        Some(List {
            name: path.replace('/', "_"),
            path: format!("{}?{}", object.path, object.list?),
            event_type: format!("{}updated", object.types),
        })
    })
}

/// The lists whose objects some rule of the source keeps as rows.
pub fn lists_of(program: &Program, source: &str, provider: Provider) -> impl Iterator<Item = List> {
    lists(provider).filter(move |list| {
        let mut rules = program.matching(source, &list.event_type);
        rules.any(|(_, rule)| rule.effect.word().is_repeatable())
    })
}

/// A provider's log of events, the newest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log {
    /// How far it goes back.
    pub window: Duration,
    provider: Provider,
}

/// The log of a provider's events, if its API has one: <https://docs.stripe.com/api/events/list>,
/// <https://developer.paddle.com/api-reference/events/list-events>.
pub const fn log(provider: Provider) -> Option<Log> {
    const DAY: u64 = 24 * 60 * 60;
    match provider {
        Provider::Stripe => Some(Log { window: Duration::from_secs(30 * DAY), provider }),
        Provider::Paddle => Some(Log { window: Duration::from_secs(90 * DAY), provider }),
        _ => None,
    }
}

impl Log {
    /// The path of the first page with events from `from` on, and before `until`. Paddle has no filter by time, so its pages
    /// go on beyond.
    pub fn path(self, from: Timestamp, until: Timestamp) -> String {
        match self.provider {
            Provider::Paddle => "/events?per_page=200&order_by=id%5BDESC%5D".to_owned(),
            _ => format!(
                "/v1/events?limit=100&created%5Bgte%5D={}&created%5Blt%5D={}",
                from.seconds(),
                until.seconds()
            ),
        }
    }
}

/// An event of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Logged {
    /// Its id.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// When it happened.
    pub at: Timestamp,
}

/// Reads what a log says of an event besides its body.
///
/// # Errors
///
/// A sentence, if it is no event.
pub fn logged(provider: Provider, event: &RawValue) -> Result<Logged, String> {
    #[derive(Deserialize)]
    struct Stripe {
        id: String,
        r#type: String,
        created: i64,
    }
    #[derive(Deserialize)]
    struct Paddle {
        event_id: String,
        event_type: String,
        occurred_at: String,
    }
    let unreadable = |_| "the response has something that is no event".to_owned();
    match provider {
        Provider::Paddle => {
            let Paddle { event_id, event_type, occurred_at } =
                serde_json::from_str(event.get()).map_err(unreadable)?;
            let at = Timestamp::parse_rfc3339(&occurred_at);
            let at = at.ok_or("an event has a time that is not RFC 3339")?;
            Ok(Logged { id: event_id, event_type, at })
        }
        _ => {
            let Stripe { id, r#type: event_type, created } =
                serde_json::from_str(event.get()).map_err(unreadable)?;
            Ok(Logged { id, event_type, at: Timestamp::from_seconds(created) })
        }
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// The objects as their texts, so that no number is rounded.
    pub objects: Vec<&'a RawValue>,
    /// The path of the next page; none at the end.
    pub next: Option<String>,
}

/// Reads a page of a list. `list` is the path of the first page, `page` that of this one.
///
/// # Errors
///
/// A sentence, if the answer is no page.
pub fn page<'a>(
    provider: Provider,
    list: &str,
    page: &str,
    body: &'a str,
) -> Result<Page<'a>, String> {
    let unreadable = |error: serde_json::Error| {
        format!("the response is not a list (line {}, column {})", error.line(), error.column())
    };
    // To go on would lose what comes after it.
    let without_objects = || "the response says that there is more, and has no objects".to_owned();
    match provider {
        // https://developer.paddle.com/api-reference/about/pagination
        Provider::Paddle => {
            let Paddle { data, meta: PaddleMeta { pagination } } =
                serde_json::from_str(body).map_err(unreadable)?;
            // The key is for the configured API, whatever host the URL names.
            if !pagination.has_more {
                return Ok(Page { objects: data, next: None });
            }
            let next = pagination.next.as_deref().and_then(path_of).filter(|_| !data.is_empty());
            Ok(Page { objects: data, next: Some(next.ok_or_else(without_objects)?) })
        }
        // https://clerk.com/docs/reference/backend-api: some lists are arrays, others have a member with one. Offsets count
        // objects.
        Provider::Clerk => {
            let objects = if body.trim_start().starts_with('[') {
                serde_json::from_str(body).map_err(unreadable)?
            } else {
                serde_json::from_str::<Counted<'_>>(body).map_err(unreadable)?.data
            };
            let offset = page.rsplit_once("&offset=").and_then(|(_, offset)| offset.parse().ok());
            let offset = offset.unwrap_or(0_usize) + objects.len();
            let next = (!objects.is_empty()).then(|| format!("{list}&offset={offset}"));
            Ok(Page { objects, next })
        }
        // https://docs.stripe.com/api/pagination
        _ => {
            let Stripe { data, has_more } = serde_json::from_str(body).map_err(unreadable)?;
            if !has_more {
                return Ok(Page { objects: data, next: None });
            }
            let last = id(data.last().ok_or_else(without_objects)?);
            let last = last.ok_or("the last object of the page has no `id`")?;
            let next = format!("{list}&starting_after={}", in_url(&last));
            Ok(Page { objects: data, next: Some(next) })
        }
    }
}

#[derive(Deserialize)]
struct Stripe<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Counted<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Paddle<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    meta: PaddleMeta,
}

#[derive(Deserialize)]
struct PaddleMeta {
    pagination: PaddlePages,
}

#[derive(Deserialize)]
struct PaddlePages {
    next: Option<String>,
    has_more: bool,
}

/// The path and the parameters of a URL.
fn path_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    rest.find('/').and_then(|slash| rest.get(slash..)).map(str::to_owned)
}

/// The id of an object.
pub fn id(object: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Identified {
        id: String,
    }
    let found = serde_json::from_str::<Identified>(object.get());
    found.ok().map(|Identified { id }| id).filter(|id| !id.is_empty())
}

/// A text as a part of a URL. Users choose some ids, such as those of Stripe's products.
pub fn in_url(text: &str) -> String {
    const OTHERS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, OTHERS).to_string()
}

/// The body of an event with this object; the other members are `rest`.
///
/// # Errors
///
/// If `rest` is not an object.
pub fn with_object(provider: Provider, rest: &str, is: &RawValue) -> serde_json::Result<String> {
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(rest)?;
    let (first, others) = object(provider).split_once('.').unwrap_or((object(provider), ""));
    let steps = others.split('.').filter(|step| !step.is_empty()).rev();
    let nested = steps.fold(is.get().to_owned(), |text, step| format!("{{\"{step}\":{text}}}"));
    let nested: Box<RawValue> = serde_json::from_str(&nested)?;
    members.insert(first.to_owned(), &nested);
    serde_json::to_string(&members)
}

/// When and where an object was listed.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// A time at which the list had everything that the provider had changed by then.
    pub version: Timestamp,
    /// The connected account of Stripe, if it is not that of the key.
    pub account: Option<&'a str>,
}

/// The members of an event about a listed object, without the object.
///
/// The time of the event is `version`, except where the object itself says how new it is: `updated_at` of Paddle. Clerk's
/// rules read the object's.
pub fn snapshot(
    provider: Provider,
    event_type: &str,
    Listed { version, account }: Listed<'_>,
    object: &RawValue,
) -> String {
    #[derive(Default, Deserialize)]
    struct Facts {
        id: Option<String>,
        livemode: Option<bool>,
        updated_at: Option<serde_json::Value>,
    }
    let Facts { id, livemode, updated_at } = serde_json::from_str(object.get()).unwrap_or_default();
    let members = match provider {
        Provider::Paddle => {
            let at = updated_at.filter(serde_json::Value::is_string);
            let at = at.unwrap_or_else(|| version.to_string().into());
            json!({ "event_id": id, "event_type": event_type, "occurred_at": at })
        }
        Provider::Clerk => {
            json!({ "object": "event", "type": event_type, "timestamp": version })
        }
        _ => {
            let mut members = json!({
                "id": id, "object": "event", "type": event_type, "created": version.seconds(),
                "livemode": livemode.unwrap_or_default(),
            });
            if let Some(account) = account {
                members["account"] = account.into();
            }
            members
        }
    };
    members.to_string()
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
