//! Enums whose variants are words: in the database, in JSON, on the command line and in the dashboard.
//!
//! Each list of words stands in one place, its `words!`. Serde, the OpenAPI document, the command line's parsers and the dashboard's
//! menus take their lists from there, and a test compares the `CHECK` constraints of the database with it.

use serde::Deserialize as _;

/// A variant of an enum that [`words!`](crate::words!) makes.
pub trait Word: Copy + Eq + Send + Sync + 'static {
    /// Every variant, in order.
    const ALL: &'static [Self];

    /// The word.
    fn as_str(self) -> &'static str;

    /// Every word, in order.
    fn words() -> impl ExactSizeIterator<Item = &'static str> {
        Self::ALL.iter().map(|variant| variant.as_str())
    }

    /// The variant of a word.
    ///
    /// # Errors
    ///
    /// A message that lists the words there are.
    fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|variant| variant.as_str() == text).ok_or_else(|| {
            let words = Self::words().collect::<Vec<_>>().join(", ");
            format!("unknown value {text:?}; use one of {words}")
        })
    }
}

/// Makes an enum of words.
#[macro_export]
macro_rules! words {
    (
        $(#[$attribute:meta])*
        pub enum $Name:ident {
            $($(#[$of_variant:meta])* $Variant:ident = $word:literal),+ $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $Name {
            $($(#[$of_variant])* $Variant),+
        }

        impl $Name {
            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$Variant => $word),+
                }
            }
        }

        impl $crate::words::Word for $Name {
            const ALL: &'static [Self] = &[$(Self::$Variant),+];

            fn as_str(self) -> &'static str {
                Self::as_str(self)
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(Self::as_str(*self))
            }
        }

        impl std::str::FromStr for $Name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                $crate::words::Word::parse(text)
            }
        }

        impl serde::Serialize for $Name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(Self::as_str(*self))
            }
        }

        impl<'de> serde::Deserialize<'de> for $Name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                $crate::words::Word::parse(&text).map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $Name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                $crate::words::schema(<Self as $crate::words::Word>::words())
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $Name {}
    };
}

/// The schema of a text that is one of these words.
#[cfg(feature = "openapi")]
pub fn schema(
    words: impl Iterator<Item = &'static str>,
) -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    one_of(words).into()
}

#[cfg(feature = "openapi")]
fn one_of(words: impl Iterator<Item = &'static str>) -> utoipa::openapi::ObjectBuilder {
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .enum_values(Some(words))
}

/// The schema of a word that is looked for; a blank one counts as left out.
#[cfg(feature = "openapi")]
pub fn looked_for<W: Word>() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    one_of(W::words().chain([""])).description(Some("Only these. Blank: all of them.")).into()
}

/// Likewise, where all of them are `any`, and a blank one counts as `default`.
#[cfg(feature = "openapi")]
pub fn searched<W: Word>(default: W) -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    let description = format!("Only these. Default: `{}`.", default.as_str());
    one_of(Search::<W>::words().chain([""])).description(Some(description)).into()
}

/// Reads a word that is looked for. Blank is the same as left out.
///
/// # Errors
///
/// If it is no such word.
pub fn unless_blank<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: std::str::FromStr<Err = String>,
    D: serde::Deserializer<'de>,
{
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    let word = (!text.is_empty()).then(|| text.parse());
    word.transpose().map_err(serde::de::Error::custom)
}

words! {
    /// Why a delivery was given up: `dead_letters.reason`.
    pub enum LetterReason {
        /// The message, its body, or what a rule needs of it cannot be read.
        Unreadable = "unreadable",
        /// The store refused it: a constraint, or a value of the wrong type.
        Refused = "refused",
        /// It was tried as often as `retry.max_attempts` says.
        Exhausted = "exhausted",
        /// Another attempt is of no use: hookmill.toml says so of events that no rule names.
        Permanent = "permanent",
        /// The platform gave it up before Hookmill could.
        Dropped = "dropped",
    }
}

words! {
    /// What became of a dead letter: `dead_letters.state`.
    pub enum LetterState {
        /// It waits for an operator.
        Dead = "dead",
        /// A replay has it and sends it now.
        Replaying = "replaying",
        /// It is back on the queue.
        Replayed = "replayed",
        /// Its event has taken effect.
        Applied = "applied",
        /// An operator has resolved it without a replay.
        Discarded = "discarded",
    }
}

/// What a list is searched for: a word, or `any` for all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search<W> {
    /// All of them.
    Any,
    /// Those with this word.
    Only(W),
}

impl<W: Word> Search<W> {
    const ANY: &'static str = "any";

    /// Every word, in order, and `any`.
    pub fn words() -> impl Iterator<Item = &'static str> {
        W::words().chain([Self::ANY])
    }
}

impl<W: Word> std::str::FromStr for Search<W> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == Self::ANY {
            return Ok(Self::Any);
        }
        W::parse(text).map(Self::Only).map_err(|error| format!("{error}, {}", Self::ANY))
    }
}

impl<'de, W: Word> serde::Deserialize<'de> for Search<W> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

words! {
    /// What became of an event that left the queue.
    pub enum EventState {
        /// Some rule applied it.
        Applied = "applied",
        /// It is in the ledger, and no rule names it.
        Recorded = "recorded",
        /// It is a dead letter.
        Dead = "dead",
        /// Its dead letter is being replayed.
        Replaying = "replaying",
        /// Its dead letter is back on the queue.
        Replayed = "replayed",
        /// Its dead letter was discarded.
        Discarded = "discarded",
    }
}

impl EventState {
    /// Whether it is the ledger that has events in this state, and not the dead letters.
    pub const fn is_in_ledger(self) -> bool {
        matches!(self, Self::Applied | Self::Recorded)
    }
}

words! {
    /// An event on the queue.
    pub enum QueueState {
        /// It has not been delivered to a consumer yet.
        Queued = "queued",
        /// It was delivered and will be delivered again.
        Retrying = "retrying",
    }
}

words! {
    /// What became of something that is sent: `outbox.state`.
    pub enum OutboxState {
        /// It waits for its batch.
        Pending = "pending",
        /// It is in a batch that is sent.
        Sealed = "sealed",
        /// The provider has accepted it.
        Sent = "sent",
        /// The provider has refused it, or it cannot be made.
        Refused = "refused",
        /// Its recipient is suppressed.
        Suppressed = "suppressed",
        /// Its delivery is uncertain.
        Uncertain = "uncertain",
    }
}

words! {
    /// What something is sent through: `outbox.channel`. Each tracking provider is a channel of its own.
    pub enum Channel {
        /// Email.
        Email = "email",
        /// SMS.
        Sms = "sms",
        /// Events to Mixpanel.
        Mixpanel = "mixpanel",
        /// Events to PostHog.
        PostHog = "posthog",
    }
}

words! {
    /// A state from which an operator may have something sent again.
    pub enum Unsent {
        /// [`OutboxState::Refused`].
        Refused = "refused",
        /// [`OutboxState::Suppressed`].
        Suppressed = "suppressed",
        /// [`OutboxState::Uncertain`]: it may arrive twice.
        Uncertain = "uncertain",
    }
}

words! {
    /// How far a replay or a reprocessing is: `replays.state`.
    pub enum ReplayState {
        /// It does not run until an operator runs it.
        Planned = "planned",
        /// It runs.
        Running = "running",
        /// It goes on when an operator resumes it.
        Paused = "paused",
        /// It will not run again.
        Cancelled = "cancelled",
        /// Everything was sent.
        Done = "done",
    }
}

words! {
    /// What a token of the admin API permits: `admin_tokens.role`.
    pub enum Role {
        /// Reading.
        Read = "read",
        /// Reading, and every change.
        Operate = "operate",
    }
}

words! {
    /// What a rule does with an event.
    pub enum RuleEffect {
        /// It writes a row of a table.
        Row = "row",
        /// It writes the rows of a list.
        Rows = "rows",
        /// It counts.
        Count = "count",
        /// It sends an email.
        Email = "email",
        /// It sends an SMS.
        Sms = "sms",
        /// It sends an event to an analytics provider.
        Track = "track",
        /// It records the outcome of an email or an SMS.
        Outcome = "outcome",
        /// It suppresses an address.
        Suppress = "suppress",
    }
}

impl RuleEffect {
    /// Whether the rule may be carried out again for an event: it writes the rows that are there, or leaves them to a later event.
    /// A counter would count again, and a recipient would be written to again.
    pub const fn is_repeatable(self) -> bool {
        matches!(self, Self::Row | Self::Rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_is_written() {
        for state in LetterState::ALL {
            let json = serde_json::to_string(state).unwrap();
            assert_eq!(serde_json::from_str::<LetterState>(&json).unwrap(), *state);
        }
        assert_eq!("any".parse(), Ok(Search::<LetterState>::Any));
        assert_eq!("dead".parse(), Ok(Search::Only(LetterState::Dead)));
        let error = serde_json::from_str::<Role>("\"admin\"").unwrap_err().to_string();
        assert!(error.contains("unknown value \"admin\"; use one of read, operate"), "{error}");
    }

    #[test]
    fn words_of_one_list_are_the_same_in_another() {
        assert!(Unsent::words().all(|word| OutboxState::words().any(|state| state == word)));
        let of_events: Vec<_> = EventState::words().collect();
        assert!(LetterState::words().all(|word| of_events.contains(&word)));
    }
}
