//! The vocabulary of Hookmill, shared by every stage and both platforms.
//!
//! | Word | Means | Where |
//! | --- | --- | --- |
//! | source | a configured sender of webhooks | `hookmill_config` |
//! | event | a verified webhook, with the provider's id | [`message::Envelope`] |
//! | message | an event on the queue | [`message`] |
//! | delivery, verdict | a message from the queue, and the consumer's answer | [`delivery`] |
//! | rule, program | the changes for an event, as written and as compiled | `hookmill_rules` |
//! | handler | code for events that rules cannot describe | `hookmill_rules::handler` |
//! | email, template | an email, and the source of its texts | [`email`], `template` |
//! | batch, send result | a request with several messages, and the provider's answer | [`outbound`] |
//! | scheme | how a source signs requests, and where they contain events | `hookmill_config::scheme` |
//! | rejection, report | why a request was rejected, and how many were | [`rejection`], [`report`] |
//! | port | an interface to the platform: [`store`], [`queue`], [`objects`] | |
//!
//! Nothing here reads a clock, does IO, or names a platform. The ports are the only `async` signatures, declared
//! `-> impl Future + Send` on every target.

pub mod api_version;
pub mod delivery;
pub mod email;
pub mod fetch;
pub mod hash;
pub mod job;
pub mod json;
pub mod limits;
pub mod log;
pub mod message;
pub mod objects;
pub mod outbound;
pub mod panics;
pub mod queue;
pub mod rejection;
pub mod report;
pub mod request;
pub mod schema;
pub mod secret;
pub mod store;
#[cfg(feature = "templates")]
pub mod template;
pub mod time;
pub mod words;
