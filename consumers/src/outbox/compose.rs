//! Composes the messages of a channel: from rows of the outbox to bodies of requests.

mod email;
mod sms;
mod track;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hookmill_config::Sms;
use hookmill_core::store::{Store, StoreError};
use hookmill_core::time::Timestamp;
use hookmill_core::words::Channel;
use hookmill_providers::track::TrackApi;

pub(super) use self::email::EmailComposer;
use super::draft::Composed;
use super::state::{self, PendingMessage};

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
            Self::Email(composer) => composer.compose(store, route, pending, now).await,
            Self::Sms(settings) => sms::compose(settings, store, pending, now).await,
            Self::Track(api) => Ok(track::compose(*api, pending)),
        }
    }
}

/// The period of `per_hour`.
const HOUR: Duration = Duration::from_secs(3600);

/// What is known of recipients before they get a message.
#[derive(Default)]
struct Recipients {
    /// The reasons of suppressed ones, by address and group.
    suppressed: BTreeMap<(String, Option<String>), String>,
    /// The number of messages within the last hour.
    recent: BTreeMap<String, u32>,
}

impl Recipients {
    /// Asks about these addresses or numbers, as in the column `recipient`, with the groups of their emails; `counted` are
    /// those with an hourly limit.
    async fn read<S: Store>(
        store: &S,
        channel: Channel,
        all: &BTreeSet<(String, Option<String>)>,
        counted: &BTreeSet<String>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        if all.is_empty() {
            return Ok(Self::default());
        }
        let recent = state::recent(channel.as_str(), counted, now, HOUR);
        let rows = store.query(vec![state::suppressed(all), recent]).await?;
        Ok(Self { suppressed: state::read_suppressed(&rows)?, recent: state::read_recent(&rows)? })
    }

    /// Why a recipient gets no emails, or none of this group.
    fn suppressed(&self, recipient: &str, group: Option<&str>) -> Option<String> {
        let about = |group: Option<&str>| {
            self.suppressed.get(&(recipient.to_owned(), group.map(ToOwned::to_owned)))
        };
        let of_group = |group| Some(format!("{} (group {group})", about(Some(group))?));
        about(None).cloned().or_else(|| group.and_then(of_group))
    }

    /// Counts a message to a recipient, or returns why it is not sent.
    fn count(&mut self, recipient: &str, per_hour: u32) -> Result<(), String> {
        let sent = self.recent.entry(recipient.to_owned()).or_default();
        if *sent >= per_hour {
            return Err(format!(
                "{sent} messages were sent to this recipient within an hour, and `per_hour` allows {per_hour}"
            ));
        }
        *sent += 1;
        Ok(())
    }
}
