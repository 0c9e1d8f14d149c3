//! The vocabulary of Hookmill, shared by every stage and both platforms.
//!
//! | Word | Means | Where |
//! | --- | --- | --- |
//! | source | a configured place webhooks come from | [`config`] |
//! | event | a verified webhook, with the provider's id | [`message::Envelope`] |
//! | message | an event as it lies on the queue | [`message`] |
//! | delivery, verdict | a message as the queue hands it to us, and what we tell the queue | [`delivery`] |
//! | rule, program | what an event changes, as written and as compiled | [`rules`] |
//! | handler | code that says what rules cannot | [`handler`] |
//! | email, template | what is to be sent, and its texts | [`email`], `template` |
//! | batch, answer | what goes to a provider in one request, and what it says of that | [`outbound`] |
//! | scheme | how a source's requests are signed, and what events are in them | [`scheme`] |
//! | rejection, report | why a request was refused, and how many were | [`rejection`], [`report`] |
//! | port | what a stage asks of its platform: [`store`], [`queue`], [`objects`] | |
//!
//! Nothing here reads a clock, does IO, or names a platform. The ports are the only `async` signatures, declared
//! `-> impl Future + Send` on every target.

pub mod config;
pub mod delivery;
pub mod email;
pub mod fetch;
pub mod handler;
pub mod hash;
pub mod job;
pub mod json;
pub mod limits;
pub mod log;
pub mod message;
pub mod objects;
pub mod outbound;
pub mod queue;
pub mod redact;
pub mod refetch;
pub mod rejection;
pub mod report;
pub mod request;
pub mod rules;
pub mod schema;
pub mod scheme;
pub mod secret;
pub mod store;
#[cfg(feature = "templates")]
pub mod template;
pub mod time;
pub mod words;
