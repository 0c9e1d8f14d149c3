//! The log of a Worker: a sentence, followed by its fields.

use hookmill_core::log::{Entry, Level};
use worker::{console_error, console_log, console_warn};

/// Writes a line to the log.
pub fn log(entry: &Entry) {
    let mut line = entry.message.to_string();
    for (name, value) in entry.fields.present() {
        // A value with spaces is quoted.
        if value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
            line.push_str(&format!(" {name}={value:?}"));
        } else {
            line.push_str(&format!(" {name}={value}"));
        }
    }
    match entry.level {
        Level::Debug => console_log!("{line}"),
        Level::Warn => console_warn!("{line}"),
        Level::Error => console_error!("{line}"),
    }
}
