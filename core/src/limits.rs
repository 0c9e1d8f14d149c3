//! The limits of the pipeline, each with its source.
//!
//! Where the platforms differ, the stricter limit applies to both, so that a native test finds violations.

/// The maximum size of a message on a queue, in bytes of UTF-8.
///
/// Cloudflare Queues accepts 128 KB (128,000 bytes) with about 100 bytes of its own metadata; the rest is headroom. The
/// body of a larger message goes to the object store. Source: <https://developers.cloudflare.com/queues/platform/limits/>.
pub const MESSAGE_BYTES: usize = 127_000;

/// The maximum number of messages in one `sendBatch`, and in one batch delivered to a consumer. Source:
/// <https://developers.cloudflare.com/queues/platform/limits/>.
pub const BATCH_MESSAGES: usize = 100;

/// The default maximum number of deliveries in a batch of the native queue. Each transaction writes every page that it
/// changes once, so large batches apply a backlog faster; [`NATIVE_BATCH_BYTES`] limits their memory.
pub const NATIVE_BATCH_MESSAGES: usize = 1000;

/// The size in bytes at which a batch of the native queue is full.
pub const NATIVE_BATCH_BYTES: usize = 4_000_000;

/// The maximum size of one `sendBatch` in bytes; Cloudflare's limit is 256 KB, including metadata. Source:
/// <https://developers.cloudflare.com/queues/platform/limits/>.
pub const SEND_BATCH_BYTES: usize = 240_000;

/// The maximum delay of a message, in seconds (24 hours). Source:
/// <https://developers.cloudflare.com/queues/platform/limits/>.
pub const DELAY_SECONDS: u64 = 86_400;

/// The number of deliveries after which the platform gives up a message (`max_retries` = 100, and the first delivery).
///
/// This is a fallback for messages that cannot even become dead letters; `retry.max_attempts` is reached long before.
/// Source: <https://developers.cloudflare.com/queues/platform/limits/>.
pub const PLATFORM_DELIVERIES: u32 = 101;

/// The maximum size of a value bound to a statement, in bytes; D1's limit is 2 MB. Source:
/// <https://developers.cloudflare.com/d1/platform/limits/>.
pub const SQL_VALUE_BYTES: usize = 1_900_000;

/// The maximum number of values bound to a statement. Source: <https://developers.cloudflare.com/d1/platform/limits/>.
pub const SQL_PARAMS: usize = 100;

/// The maximum length of a pattern in SQL (`GLOB`), in bytes. Source:
/// <https://developers.cloudflare.com/d1/platform/limits/>.
pub const PATTERN_BYTES: usize = 50;

/// The highest value for `body_limit`, in bytes. GitHub limits its payloads to 25 MB, the largest of the providers.
pub const BODY_BYTES: usize = 25 * 1024 * 1024;

/// The maximum length of an event id or event type, in bytes. SendGrid's ids have up to 100, Stripe's and Svix's below 50.
pub const NAME_BYTES: usize = 256;

/// The maximum size of an email in bytes: subject, HTML and text together. Mail programs truncate at a fifth of it.
pub const EMAIL_BYTES: usize = 500_000;

/// The maximum size of the emails in one batch, in bytes. The batch's body is stored as one value, escaped once more, and
/// has to fit into [`SQL_VALUE_BYTES`].
pub const EMAIL_BATCH_BYTES: usize = 800_000;

/// The maximum number of events in one request. SendGrid posts at most 768 KB at a time, some thousands of events. Source:
/// <https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event>.
pub const REQUEST_EVENTS: usize = 10_000;

/// The highest value for `rows_per_event` in `[limits]`.
pub const EVENT_ROWS: usize = 1_000_000;

/// The highest value for `bytes_per_event` in `[limits]`.
pub const EVENT_BYTES: usize = 256 * 1024 * 1024;

/// The maximum of the size of the database that raises an alert.
pub const DATABASE_BYTES: u64 = 1 << 40;

/// The limit of counts that run every minute or more often: a count takes time in proportion to its result.
pub const COUNTED: u32 = 10_000;

/// The maximum number of secrets of one source, and of signatures of one request: each is tried with each, at most 8 × 8.
pub const SECRETS: usize = 8;
/// See [`SECRETS`].
pub const SIGNATURES: usize = 8;
