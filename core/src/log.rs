//! Lines of the log, as the stages make them. Each platform writes them in its own way.

use std::borrow::Cow;

/// How much attention a line of the log needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// None: all is well.
    Debug,
    /// Some: Hookmill goes on by itself.
    Warn,
    /// An operator's.
    Error,
}

/// A line of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// How much attention it needs.
    pub level: Level,
    /// The sentence.
    pub message: Cow<'static, str>,
    /// Its details.
    pub fields: Fields,
}

impl Entry {
    /// A line that needs no attention.
    pub fn debug(message: impl Into<Cow<'static, str>>, fields: Fields) -> Self {
        Self { level: Level::Debug, message: message.into(), fields }
    }

    /// A line about trouble from which Hookmill recovers by itself.
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
        /// The details of a line of the log. Their names are fixed, since the native log is structured.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct Fields {
            $($(#[$doc])* pub $name: Option<String>,)*
        }

        impl Fields {
            /// Those that are there, with their names.
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
    /// The state that something came to.
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
    /// How often something was tried.
    attempts "attempts",
    /// How long the next try waits.
    delay "delay",
    /// The reason of a dead letter.
    reason "reason",
    /// What kind of rows.
    kind "kind",
    /// How many.
    count "count",
    /// What was found in a request.
    detail "detail",
    /// What went wrong.
    error "error",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_there_have_their_names() {
        let fields = Fields {
            r#type: Some("invoice.paid".into()),
            job: Some("send".into()),
            ..Fields::default()
        };
        let present: Vec<_> = fields.present().collect();
        assert_eq!(present, [("job", "send"), ("type", "invoice.paid")]);
    }
}
