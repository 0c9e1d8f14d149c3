//! The numbers that bound the pipeline, each with its source.
//!
//! Where the platforms differ, the stricter one holds on both, so that a native test finds the fault.

/// The longest message text put on a queue, in bytes of UTF-8.
///
/// Cloudflare Queues takes 128 KB (128,000 bytes) with about 100 bytes of its own metadata; the rest is headroom.
/// A message above it travels by claim check.
/// Source: <https://developers.cloudflare.com/queues/platform/limits/>.
pub const MESSAGE_BYTES: usize = 127_000;

/// The most messages in one `sendBatch`, and in one batch delivered to a consumer.
/// Source: <https://developers.cloudflare.com/queues/platform/limits/>.
pub const BATCH_MESSAGES: usize = 100;

/// The most deliveries in a batch of the native queue, unless hookmill.toml says less. Each transaction writes every page that it
/// touches once, so a backlog is applied faster in large batches; [`NATIVE_BATCH_BYTES`] bounds their memory.
pub const NATIVE_BATCH_MESSAGES: usize = 1000;

/// The length at which a batch of the native queue takes no further message, in bytes.
pub const NATIVE_BATCH_BYTES: usize = 4_000_000;

/// The most bytes in one `sendBatch`; Cloudflare says 256 KB, of which some are metadata.
/// Source: <https://developers.cloudflare.com/queues/platform/limits/>.
pub const SEND_BATCH_BYTES: usize = 240_000;

/// The longest delay of a message, in seconds (24 hours).
/// Source: <https://developers.cloudflare.com/queues/platform/limits/>.
pub const DELAY_SECONDS: u64 = 86_400;

/// How often the platform delivers a message before it gives up on it (`max_retries` = 100, and the first delivery).
///
/// This is the outer fence, for when not even a dead letter can be written; `retry.max_attempts` decides long before.
/// Source: <https://developers.cloudflare.com/queues/platform/limits/>.
pub const PLATFORM_DELIVERIES: u32 = 101;

/// The longest value bound to a statement, in bytes; D1 takes 2 MB.
/// Source: <https://developers.cloudflare.com/d1/platform/limits/>.
pub const SQL_VALUE_BYTES: usize = 1_900_000;

/// The longest pattern in SQL (`GLOB`), in bytes.
/// Source: <https://developers.cloudflare.com/d1/platform/limits/>.
pub const PATTERN_BYTES: usize = 50;

/// The longest request body that can be configured, in bytes.
/// GitHub caps its payloads at 25 MB, the largest of the providers.
pub const BODY_BYTES: usize = 25 * 1024 * 1024;

/// The longest event id or event type, in bytes. SendGrid's ids reach 100, Stripe's and Svix's stay below 50.
pub const NAME_BYTES: usize = 256;

/// The longest email, in bytes: subject, HTML and text together. Mail programs cut at a fifth of it.
pub const EMAIL_BYTES: usize = 500_000;

/// The most bytes of emails in one batch. Its body is kept as one value, escaped once more, and has to fit into
/// [`SQL_VALUE_BYTES`].
pub const EMAIL_BATCH_BYTES: usize = 800_000;

/// The most events in one request. SendGrid posts at most 768 KB at a time, some thousands of events.
/// Source: <https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event>.
pub const REQUEST_EVENTS: usize = 10_000;

/// The most rows that `rows_per_event` of `[limits]` may allow.
pub const EVENT_ROWS: usize = 1_000_000;

/// The most bytes that `bytes_per_event` of `[limits]` may allow.
pub const EVENT_BYTES: usize = 256 * 1024 * 1024;

/// How many rows are counted at most where a count is asked for every minute or every few seconds: a count costs what it counts.
pub const COUNTED: u32 = 10_000;

/// Secrets of one source, and signatures of one request, that are tried against each other: at most 8 × 8.
pub const SECRETS: usize = 8;
/// See [`SECRETS`].
pub const SIGNATURES: usize = 8;
