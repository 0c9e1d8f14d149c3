//! Enums whose variants have names in the database, in JSON, on the command line and in the dashboard.
//!
//! Each list of names is in one place, its `words!`. Serde, the OpenAPI document, the command line's parsers and the
//! dashboard's menus use it, and a test compares the `CHECK` constraints of the database with it.

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

    /// The variant with this name.
    ///
    /// # Errors
    ///
    /// A message that lists the names.
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

/// The schema of a recorded word. Another version of Hookmill may have recorded one that this version does not know.
#[cfg(feature = "openapi")]
pub fn recorded<W: Word>() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    let words = W::words().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let description = format!("{words}. Another version of Hookmill may have recorded others.");
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .description(Some(description))
        .into()
}

/// The schema of an optional filter; blank means none.
#[cfg(feature = "openapi")]
pub fn looked_for<W: Word>() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    one_of(W::words().chain([""])).description(Some("Only these. Blank: all of them.")).into()
}

/// The same with `any` for all words; blank means `default`.
#[cfg(feature = "openapi")]
pub fn searched<W: Word>(default: W) -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    let description = format!("Only these. Default: `{}`.", default.as_str());
    one_of(WordFilter::<W>::words().chain([""])).description(Some(description)).into()
}

/// Reads an optional filter. Blank means none.
///
/// # Errors
///
/// If it is not one of the words.
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
    /// Why Hookmill gave up a delivery: `dead_letters.reason`.
    pub enum LetterReason {
        /// The message, its body, or a value that a rule needs is unreadable.
        Unreadable = "unreadable",
        /// The store rejected it: a constraint, or a value of the wrong type.
        Refused = "refused",
        /// It reached `retry.max_attempts`.
        Exhausted = "exhausted",
        /// A retry is of no use: the event exceeds a limit, or hookmill.toml makes unmatched events dead letters.
        Permanent = "permanent",
        /// The platform gave it up before Hookmill could.
        Dropped = "dropped",
    }
}

words! {
    /// The state of a dead letter: `dead_letters.state`.
    pub enum LetterState {
        /// It waits for an operator.
        Dead = "dead",
        /// A replay has claimed it and is sending it.
        Replaying = "replaying",
        /// It is back on the queue.
        Replayed = "replayed",
        /// Its event has taken effect.
        Applied = "applied",
        /// An operator has resolved it without a replay.
        Discarded = "discarded",
    }
}

/// A search by state: one word, or `any`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WordFilter<W> {
    /// All of them.
    Any,
    /// Those with this word.
    Only(W),
}

impl<W: Word> WordFilter<W> {
    const ANY: &'static str = "any";

    /// Every word, in order, and `any`.
    pub fn words() -> impl Iterator<Item = &'static str> {
        W::words().chain([Self::ANY])
    }
}

impl<W: Word> std::str::FromStr for WordFilter<W> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == Self::ANY {
            return Ok(Self::Any);
        }
        W::parse(text).map(Self::Only).map_err(|error| format!("{error}, {}", Self::ANY))
    }
}

impl<'de, W: Word> serde::Deserialize<'de> for WordFilter<W> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

words! {
    /// A change that an operator made: `audit.action`.
    pub enum AuditAction {
        /// A dead letter is replayed.
        LetterReplay = "letter.replay",
        /// A dead letter is resolved without a replay.
        LetterDiscard = "letter.discard",
        /// A replay is planned.
        ReplayPlan = "replay.plan",
        /// A replay starts.
        ReplayRun = "replay.run",
        /// A replay pauses.
        ReplayPause = "replay.pause",
        /// A replay resumes.
        ReplayResume = "replay.resume",
        /// A replay ends early.
        ReplayCancel = "replay.cancel",
        /// A reprocessing is planned.
        ReprocessPlan = "reprocess.plan",
        /// An import is planned.
        ImportPlan = "import.plan",
        /// A reconciliation is planned.
        ReconcilePlan = "reconcile.plan",
        /// Messages of the outbox are sent again.
        OutboxRetry = "outbox.retry",
        /// An address is no longer suppressed.
        SuppressionRemove = "suppression.remove",
        /// A body is shown.
        BodyView = "body.view",
        /// A token is created.
        TokenCreate = "token.create",
        /// A token is revoked.
        TokenRevoke = "token.revoke",
        /// A request has no valid token.
        LoginFail = "login.fail",
    }
}

words! {
    /// The state of an event that a consumer has seen.
    pub enum EventState {
        /// An attempt failed, and it waits for the next one.
        Retrying = "retrying",
        /// A rule was applied.
        Applied = "applied",
        /// It is in the ledger, and no rule matches it.
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
    /// Whether events in this state are in the ledger.
    pub const fn is_in_ledger(self) -> bool {
        matches!(self, Self::Applied | Self::Recorded)
    }

    /// Whether events in this state are dead letters.
    pub const fn is_dead_letter(self) -> bool {
        !self.is_in_ledger() && !matches!(self, Self::Retrying)
    }
}

words! {
    /// The state of a message in the outbox: `outbox.state`.
    pub enum OutboxState {
        /// It waits for a batch.
        Pending = "pending",
        /// It is in a batch that is being sent.
        Sealed = "sealed",
        /// The provider has accepted it.
        Sent = "sent",
        /// The provider has rejected it, or it cannot be composed.
        Refused = "refused",
        /// Its recipient is suppressed.
        Suppressed = "suppressed",
        /// Its delivery is uncertain.
        Uncertain = "uncertain",
    }
}

words! {
    /// The channel of a message: `outbox.channel`. Each tracking provider is its own channel.
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
    /// A state from which an operator may send a message again.
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
    /// The kind of a job that puts messages on the queue: `replays.kind`.
    pub enum JobKind {
        /// It sends dead letters through the whole path again.
        Replay = "replay",
        /// It sends applied events through the whole path again.
        Reprocess = "reprocess",
        /// It sends the objects of a provider's API.
        Import = "import",
        /// It compares the objects of a provider's API with the tables, and sends those that differ.
        Reconcile = "reconcile",
    }
}

words! {
    /// The kind of a difference between a table and a provider's API: `drifts.kind`.
    pub enum DriftKind {
        /// The table has no row for an object.
        Missing = "missing",
        /// The provider has no object for a row.
        Extra = "extra",
        /// Some columns of a row differ.
        Different = "different",
        /// A final deletion deleted the row, but the provider has the object. A repair cannot change the row.
        Deleted = "deleted",
        /// A newer event has changed the row.
        Newer = "newer",
        /// The rules cannot read the object.
        Unreadable = "unreadable",
    }
}

words! {
    /// The state of a difference: `drifts.state`.
    pub enum DriftState {
        /// A second request has not confirmed it yet.
        Found = "found",
        /// A second request confirmed it.
        Confirmed = "confirmed",
        /// Hookmill sent the object through the rules.
        Repaired = "repaired",
        /// No request can confirm it.
        Unclear = "unclear",
    }
}

words! {
    /// The state of a job: `replays.state`.
    pub enum ReplayState {
        /// It waits for an operator to run it.
        Planned = "planned",
        /// It runs.
        Running = "running",
        /// It continues when an operator resumes it.
        Paused = "paused",
        /// It will not run again.
        Cancelled = "cancelled",
        /// Everything was sent.
        Done = "done",
    }
}

words! {
    /// The role of a token for the admin API: `admin_tokens.role`.
    pub enum Role {
        /// Reading.
        Read = "read",
        /// Reading, and every change.
        Operate = "operate",
    }
}

words! {
    /// The effect of a rule.
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
        /// It lifts a suppression.
        Lift = "lift",
    }
}

impl RuleEffect {
    /// Whether the rule may run again for an event: rows are written with the same values, or belong to a later event. A
    /// counter would count again, and a recipient would get another message.
    pub const fn is_repeatable(self) -> bool {
        matches!(self, Self::Row | Self::Rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_parses_to_its_variant() {
        for state in LetterState::ALL {
            let json = serde_json::to_string(state).unwrap();
            assert_eq!(serde_json::from_str::<LetterState>(&json).unwrap(), *state);
        }
        assert_eq!("any".parse(), Ok(WordFilter::<LetterState>::Any));
        assert_eq!("dead".parse(), Ok(WordFilter::Only(LetterState::Dead)));
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
