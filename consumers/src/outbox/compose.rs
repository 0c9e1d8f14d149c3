//! Composes the messages of a channel: from rows of the outbox to bodies of requests.

mod email;
mod sms;
mod track;

use hookmill_config::Sms;
use hookmill_core::store::{Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_core::words::Channel;
use hookmill_providers::track::TrackApi;

pub(super) use self::email::EmailComposer;
use super::draft::Composed;
use super::state::PendingMessage;

/// Composes the messages of one channel.
#[derive(Debug)]
pub(super) enum Composer {
    Email(Box<EmailComposer>),
    Sms(Box<Sms>),
    /// By provider: each has its own channel.
    Track(&'static dyn TrackApi),
}

impl Composer {
    /// The name of the channel, as the column `channel` has it.
    pub(super) fn channel(&self) -> &'static str {
        match self {
            Self::Email(_) => Channel::Email.as_str(),
            Self::Sms(_) => Channel::Sms.as_str(),
            Self::Track(api) => api.name(),
        }
    }

    /// Composes pending messages for the route with this index.
    pub(super) async fn compose<S: Store>(
        &self,
        store: &S,
        route: usize,
        pending: &[PendingMessage],
        now: Timestamp,
    ) -> Result<Composed, StoreError> {
        match self {
            Self::Email(composer) => composer.compose(store, route, pending).await,
            Self::Sms(settings) => sms::compose(settings, store, pending, now).await,
            Self::Track(api) => Ok(track::compose(*api, pending)),
        }
    }
}
