//! The native log.

use hookmill_core::log::{Entry, Level};
use tracing::{debug, error, warn};

/// Writes a line.
pub fn write(entry: &Entry) {
    let Entry { level, message, fields } = entry;
    macro_rules! line {
        ($write:ident) => {
            $write!(
                job = fields.job.as_deref(),
                channel = fields.channel.as_deref(),
                state = fields.state.as_deref(),
                id = fields.id.as_deref(),
                rule = fields.rule.as_deref(),
                source = fields.source.as_deref(),
                event = fields.event.as_deref(),
                r#type = fields.r#type.as_deref(),
                version = fields.version.as_deref(),
                attempts = number(fields.attempts.as_deref()),
                delay = fields.delay.as_deref(),
                reason = fields.reason.as_deref(),
                kind = fields.kind.as_deref(),
                count = number(fields.count.as_deref()),
                detail = fields.detail.as_deref(),
                error = fields.error.as_deref(),
                "{message}"
            )
        };
    }
    match level {
        Level::Debug => line!(debug),
        Level::Warn => line!(warn),
        Level::Error => line!(error),
    }
}

fn number(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}
