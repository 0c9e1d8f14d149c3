//! `[ingress]`, `[retry]`, `[limits]`, `[queue]`, `[retention]`, `[admin]` and `[database]`; and the parts of a source that a Worker
//! carries as they are.

use std::time::Duration;

use hookmill_core::limits::DELAY_SECONDS;
#[cfg(feature = "toml")]
use hookmill_core::limits::{
    BATCH_MESSAGES, BODY_BYTES, EVENT_BYTES, EVENT_ROWS, NATIVE_BATCH_MESSAGES, PLATFORM_DELIVERIES,
};
use hookmill_core::secret::SecretName;
use hookmill_core::time::Timestamp;
use hookmill_keys::keys;
#[cfg(feature = "toml")]
use hookmill_keys::{
    Item, Kind, Located, days,
    kind::{choice, duration, list, number, secret, size, table, text, whole},
    seconds,
};
use serde::{Deserialize, Serialize};
#[cfg(feature = "toml")]
use serde_json::json;

#[cfg(feature = "toml")]
use crate::channels::keys::is_private;

keys! {
    /// Limits on request bodies.
    #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
    pub struct BodyLimits {
        /// The maximum size of a body. A larger body gets 413.
        pub body_limit: usize = size(BODY_BYTES).default("\"1MiB\""),
        /// The maximum time for a body to arrive.
        pub body_timeout: Duration =
            duration(Duration::from_millis(100)..=seconds(300)).default("\"10s\""),
    }
}

keys! {
    /// When to retry an event that could not be applied.
    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    pub struct Retry {
        /// The number of attempts, including the first, before an event becomes a dead letter.
        pub max_attempts: u32 = whole(1..=PLATFORM_DELIVERIES - 1).default("8"),
        /// The delay before the second attempt.
        pub initial: Duration =
            duration(Duration::from_millis(1)..=seconds(DELAY_SECONDS)).default("\"10s\""),
        /// The factor by which the delay grows with each attempt.
        pub multiplier: f64 = number(1.0..=10.0).default("2.0"),
        /// The maximum delay.
        pub max: Duration =
            duration(Duration::from_millis(1)..=seconds(DELAY_SECONDS)).default("\"1h\""),
        /// The fraction of the delay that is random, so that events that failed together do not retry together.
        pub jitter: f64 = number(0.0..=1.0).default("0.5"),
    }
    check |retry, section| {
        if retry.max < retry.initial {
            let here = section.at("max").unwrap_or_else(|| section.here.clone());
            section.report(
                here.error("`max` is shorter than `initial`")
                    .hint("the delay grows from `initial` to `max`; raise `max` or lower `initial`"),
            );
        }
    };
}

impl Retry {
    /// The longest delay, jitter included.
    pub fn longest(&self) -> Duration {
        self.max.mul_f64(1.0 + self.jitter).min(Duration::from_secs(DELAY_SECONDS))
    }
}

keys! {
    /// The most that one event may write. An event over a limit becomes a dead letter; the other events of its batch are applied.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    pub struct Limits {
        /// The maximum rows that one event may write, in all tables, those of the outbox included. An event over this limit or the next becomes a
        /// dead letter with the reason `permanent`; the other events of its batch are applied.
        pub rows_per_event: usize = whole(1..=EVENT_ROWS).default("10000"),
        /// The maximum bytes of rows that one event may write.
        pub bytes_per_event: usize = size(EVENT_BYTES).default("\"16MiB\""),
    }
    implement Default;
}

#[cfg(feature = "toml")]
keys! {
    /// Batches of the native queue. On Cloudflare, consumers/worker/wrangler.toml has these settings.
    #[derive(Clone, PartialEq, Debug)]
    pub struct Queue {
        /// The maximum number of events in a batch. Without this key, the native queue delivers up to 1,000; the key can only lower it.
        pub batch_size: Option<Located<usize>> =
            whole(1..=BATCH_MESSAGES).located().optional()
                .defaults_to("`max_batch_size` in wrangler.toml"),
        /// How long the native queue waits for a full batch.
        pub batch_wait: Duration = duration(Duration::ZERO..=seconds(60)).default("\"0s\""),
    }
}

#[cfg(feature = "toml")]
impl Queue {
    /// How the native queue gathers deliveries into a batch.
    pub fn batch(&self) -> Batch {
        let size = self.batch_size.as_ref().map_or(NATIVE_BATCH_MESSAGES, |size| size.value);
        Batch { size, wait: self.batch_wait }
    }
}

/// How the native queue gathers deliveries into a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The maximum deliveries in one batch.
    pub size: usize,
    /// How long a batch waits to be full.
    pub wait: Duration,
}

keys! {
    /// How long to keep data.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    pub struct Retention {
        /// How long to keep messages of applied events, for viewing and reprocessing. They cost one more row for each event.
        pub messages: Option<Duration> =
            duration(seconds(3600)..=days(3650)).optional().defaults_to("not kept")
                .example("\"30d\""),
        /// How long to keep applied or discarded dead letters, failed attempts, settled emails, SMS and tracking events, and ended replays.
        pub settled: Duration = duration(days(1)..=days(3650)).default("\"90d\""),
        /// How long to keep open dead letters after their last failure.
        pub dead_letters: Option<Duration> =
            duration(days(1)..=days(3650)).optional().defaults_to("forever")
                .example("\"365d\""),
        /// How long to keep the ledger. A duplicate that arrives later is applied again, and Stripe can resend an event for 30 days. The ledger
        /// keeps events with a replayable dead letter.
        // Providers retry for days by themselves, and for a month on request: Stripe for 30 days.
        pub events: Option<Duration> =
            duration(days(35)..=days(3650)).optional().defaults_to("forever")
                .example("\"400d\""),
        /// How long to keep the activity of each minute, for charts, and the counts of each day.
        pub activity: Duration = duration(days(1)..=days(3650)).default("\"90d\""),
        /// How long to keep the audit of changes.
        pub audit: Option<Duration> =
            duration(days(30)..=days(3650)).optional().defaults_to("forever")
                .example("\"400d\""),
    }
    implement Default;
}

#[cfg(feature = "toml")]
keys! {
    /// Access to the admin API.
    #[derive(Clone, PartialEq, Debug)]
    pub struct AdminKeys {
        /// Users who come through Cloudflare Access need no token.
        pub access: Option<Access> =
            table("a table: { issuer = \"https://acme.cloudflareaccess.com\", audience = \"…\", operators = [] }")
                .optional(),
    }
}

keys! {
    /// Access through Cloudflare Access.
    #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
    pub struct Access {
        /// The team's domain.
        pub issuer: String =
            text("a URL").and_then(|item, text| {
                if !is_private(&text) || text.ends_with('/') {
                    item.unexpected(format!("{text:?}"), "https:// and the team's domain, without a trailing slash");
                }
                Some(text)
            })
            .required("add the team's domain: issuer = \"https://acme.cloudflareaccess.com\"")
            .example("\"https://acme.cloudflareaccess.com\""),
        /// The application's audience tag (AUD), as Cloudflare shows it.
        pub audience: String =
            text("a tag").and_then(|item, text| {
                if text.len() < 16 {
                    item.unexpected(format!("{text:?}"), "the application's audience tag (AUD), as Cloudflare shows it: 64 hexadecimal digits");
                }
                Some(text)
            })
            .required("the application's audience tag (AUD), as Cloudflare shows it")
            .example("\"32eafc7626e974616deaf0dc3ce63d7bcbed58a2731e84d06bc3cdf1b53c4228\""),
        /// Email addresses, and names of service tokens, that may change things. All others can only view.
        pub operators: Vec<String> =
            list(text(OPERATORS).and_then(|item, name| {
                if name.trim().is_empty() || name.contains('*') {
                    item.unexpected(format!("{name:?}"), "one address or name, not a pattern");
                }
                Some(name)
            }), OPERATORS)
            .default("[]").example("[\"ines@example.com\"]"),
    }
}

#[cfg(feature = "toml")]
const OPERATORS: &str = "a list of email addresses and names of service tokens";

#[cfg(feature = "toml")]
keys! {
    /// The database.
    #[derive(Clone, PartialEq, Debug)]
    pub struct Database {
        /// The folder of your own migrations, relative to hookmill.toml. Their numbers start at 1000. For Cloudflare, put it below
        /// `migrations`, where wrangler also finds it.
        pub migrations: Option<Located<String>> =
            text("a folder").located().optional().example("\"migrations/app\""),
    }
}

keys! {
    /// A secret of a source.
    #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
    pub struct SecretRef {
        /// The name of the secret.
        pub name: SecretName =
            secret("env:STRIPE_WEBHOOK_SECRET").map(SecretName)
                .required("{ name = \"env:NAME\", not_after = 2026-12-31T00:00:00Z }")
                .example("\"env:STRIPE_WEBHOOK_SECRET_OLD\""),
        /// When it expires: a date and time with an offset, with or without quotes.
        pub not_after: Option<Timestamp> = time().optional().example("2026-12-31T00:00:00Z"),
    }
}

keys! {
    /// A rate limit.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    pub struct RateLimit {
        /// The maximum requests per period.
        pub requests: u32 =
            whole(1..=u32::MAX).required("a table: { requests = 1000, per = \"10s\" }").example("1000"),
        /// The period.
        // Cloudflare's rate limiter knows no other: https://developers.cloudflare.com/workers/runtime-apis/bindings/rate-limit/
        pub per: Duration =
            choice(vec![("10s", seconds(10)), ("1m", seconds(60)), ("60s", seconds(60))])
                .required("a table: { requests = 1000, per = \"10s\" }").example("\"10s\""),
    }
}

#[cfg(feature = "toml")]
fn time() -> Kind<Timestamp> {
    let schema = || {
        // RFC 3339; a reader of TOML that is asked for JSON makes a string of a date.
        json!({
            "type": "string",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}.*([Zz]|[+\u{2212}-][0-9]{2}:[0-9]{2})$"
        })
    };
    Kind::new(schema, |item: &Item<'_>| {
        let expected = "a date and time with an offset, such as 2026-12-31T00:00:00Z";
        item.date(expected, Timestamp::parse_rfc3339)
    })
}
