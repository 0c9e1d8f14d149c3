//! Declares the keys of a TOML file once.
//!
//! [`keys!`] declares a table: a struct whose fields are the keys, each with its documentation, its type, the values that it
//! takes, and its default. From the declaration follow
//!
//! - the reader, which reports every error of a file at once, each with its place, the full key, and a hint;
//! - the JSON Schema ([`root_schema()`]), with which an editor completes, explains and checks the file;
//! - the reference ([`reference()`]), the tables of the documentation.
//!
//! ```
//! use std::time::Duration;
//! use hookmill_keys::{keys, kind::{duration, whole}, parse, seconds};
//!
//! keys! {
//!     /// When to retry.
//!     #[derive(PartialEq, Debug)]
//!     struct Retry {
//!         /// The number of attempts.
//!         max_attempts: u32 = whole(1..=100).default("8"),
//!         /// The maximum delay.
//!         max: Duration = duration(seconds(1)..=seconds(3600)).default("\"1h\""),
//!     }
//! }
//!
//! let (retry, errors) = parse::<Retry>("retry.toml", "max_attempts = 5");
//! assert_eq!(retry, Some(Retry { max_attempts: 5, max: seconds(3600) }));
//! assert!(errors.is_empty());
//!
//! let (_, errors) = parse::<Retry>("retry.toml", "max_attempt = 5");
//! assert_eq!(
//!     errors[0].to_string(),
//!     "retry.toml:1:1: unknown key `max_attempt`\n  hint: did you mean `max_attempts`?"
//! );
//! ```

#[cfg(feature = "toml")]
mod declare;
#[cfg(feature = "toml")]
pub mod kind;
mod macros;
#[cfg(feature = "toml")]
mod place;
#[cfg(feature = "toml")]
mod reader;
#[cfg(feature = "toml")]
mod schema;

#[cfg(feature = "toml")]
pub use api::*;

#[cfg(feature = "toml")]
mod api {
    use std::time::Duration;

    pub use crate::declare::{
        DefaultDoc, Key, KeyDoc, Table, flatten, flatten_as, name, reference, several,
    };
    pub use crate::kind::Kind;
    pub use crate::place::{ConfigError, Located, Place, distance, nearest};
    pub use crate::reader::{Document, Item, Section};
    pub use crate::schema::root_schema;

    /// What the expansion of [`keys!`](crate::keys!) needs.
    #[doc(hidden)]
    pub mod expansion {
        pub use serde_json::{Value, json};
    }

    /// Reads a whole file as one table. `file` is its name in messages.
    ///
    /// Returns every error. Without errors, the table is complete.
    pub fn parse<T: Table>(file: &str, text: &str) -> (Option<T>, Vec<ConfigError>) {
        let document = Document::new(file, text);
        let table = document.parse();
        let mut read = None;
        // The meaning of a text with syntax errors is a guess, and every guess would be one more error.
        if document.faults() == 0 {
            let root = document.root(&table);
            read = T::read(&root);
            root.finish();
        }
        (read, document.into_errors())
    }

    /// A whole file as JSON, without its comments. A date becomes a string.
    pub fn file_to_json(text: &str) -> serde_json::Value {
        crate::reader::file_to_json(text)
    }

    /// A table whose keys all have their defaults.
    ///
    /// # Panics
    ///
    /// If a key has none.
    pub fn defaults<T: Table>() -> T {
        parse("", "").0.expect("all keys have defaults")
    }

    /// So many seconds.
    pub const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// So many days.
    pub const fn days(count: u64) -> Duration {
        Duration::from_secs(count * 86_400)
    }
}
