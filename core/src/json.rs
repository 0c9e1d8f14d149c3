//! JSON texts of Hookmill's own values, which are always serializable.

use std::io;

use serde::Serialize;

/// A value as a JSON text.
///
/// # Panics
///
/// If the value is not serializable, such as a map whose keys are not texts.
pub fn to_json(value: &(impl Serialize + ?Sized)) -> String {
    let mut text = String::new();
    push_json(&mut text, value);
    text
}

/// Appends a value to a text as JSON.
///
/// # Panics
///
/// If the value is not serializable.
pub fn push_json(text: &mut String, value: &(impl Serialize + ?Sized)) {
    struct End<'t>(&'t mut String);

    impl io::Write for End<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push_str(std::str::from_utf8(bytes).map_err(io::Error::other)?);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    serde_json::to_writer(End(text), value).expect("texts and numbers serialize");
}
