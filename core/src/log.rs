//! Log lines from the stages. Each platform writes them in its own way.

use std::borrow::Cow;

/// The level of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Everything is fine.
    Debug,
    /// Hookmill recovers without help.
    Warn,
    /// An operator has to act.
    Error,
}

/// A line of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The level.
    pub level: Level,
    /// The sentence.
    pub message: Cow<'static, str>,
    /// Its details.
    pub fields: Fields,
}

impl Entry {
    /// A line without a problem.
    pub fn debug(message: impl Into<Cow<'static, str>>, fields: Fields) -> Self {
        Self { level: Level::Debug, message: message.into(), fields }
    }

    /// A line about a problem from which Hookmill recovers without help.
    pub fn warn(message: impl Into<Cow<'static, str>>, fields: Fields) -> Self {
        Self { level: Level::Warn, message: message.into(), fields }
    }

    /// A line for an operator.
    pub fn error(message: impl Into<Cow<'static, str>>, fields: Fields) -> Self {
        Self { level: Level::Error, message: message.into(), fields }
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident $label:literal,)*) => {
        /// The details of a log line. Their names are fixed, since the native log is structured.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct Fields {
            $($(#[$doc])* pub $name: Option<String>,)*
        }

        impl Fields {
            /// The details that are set, with their names.
            pub fn present(&self) -> impl Iterator<Item = (&'static str, &str)> {
                let all = [$(($label, self.$name.as_deref())),*];
                all.into_iter().filter_map(|(name, value)| Some((name, value?)))
            }
        }
    };
}

fields! {
    /// The name of a background job.
    job "job",
    /// The channel of a message.
    channel "channel",
    /// The new state.
    state "state",
    /// The id of a message in the outbox, or of a replay.
    id "id",
    /// The name of a rule.
    rule "rule",
    /// The name of a source.
    source "source",
    /// The id of an event.
    event "event",
    /// The type of an event.
    r#type "type",
    /// An API version.
    version "version",
    /// The number of attempts.
    attempts "attempts",
    /// The delay of the next attempt.
    delay "delay",
    /// The reason of a dead letter.
    reason "reason",
    /// The kind of rows.
    kind "kind",
    /// The number.
    count "count",
    /// Details of a request.
    detail "detail",
    /// The error.
    error "error",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_set_have_their_names() {
        let fields = Fields {
            r#type: Some("invoice.paid".into()),
            job: Some("send".into()),
            ..Fields::default()
        };
        let present: Vec<_> = fields.present().collect();
        assert_eq!(present, [("job", "send"), ("type", "invoice.paid")]);
    }
}
