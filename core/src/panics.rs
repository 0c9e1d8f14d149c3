//! Panics. A panic is a defect, of Hookmill or of a handler; it ends one unit of work and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

/// A unit of work panicked. The message of a panic may quote data, so this error does not contain it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("Hookmill panicked; the log says where. This is a defect, please report it")]
pub struct Panicked;

/// Runs one unit of work that only computes: the plan of an event, the text of an email.
///
/// A Worker aborts on a panic, so there the runtime ends the invocation instead.
///
/// # Errors
///
/// If the work panics.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    // The caller drops everything that the work was changing.
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_its_unit_of_work_and_its_message_is_not_in_the_error() {
        assert_eq!(caught(|| 7), Ok(7));
        let body = "a body".to_owned();
        let panicked = caught(|| panic!("{body}")).unwrap_err();
        assert!(!panicked.to_string().contains("a body"));
    }
}
