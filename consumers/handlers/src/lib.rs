//! Handlers: your own code, for what rules cannot express. The binary and the consumer Worker contain the handlers in
//! [`HANDLERS`], and `hookmill check` knows their names. To add one, write a file beside `revenue.rs` and list it below.

#[cfg(feature = "example-handler")]
mod revenue;

use hookmill_rules::handler::Handler;

/// The name of the example.
pub const EXAMPLE: &str = "stripe-revenue";

/// Every handler, by its name in rules. The list is empty, except in builds with the example, such as those of the tests.
pub const HANDLERS: &[(&str, &dyn Handler)] = &[
    #[cfg(feature = "example-handler")]
    (EXAMPLE, &revenue::Revenue),
];

/// The names that rules can call handlers by.
pub fn names() -> Vec<&'static str> {
    HANDLERS.iter().map(|(name, _)| *name).collect()
}

/// The handler of this name.
pub fn find(name: &str) -> Option<&'static dyn Handler> {
    HANDLERS.iter().find(|(known, _)| *known == name).map(|(_, handler)| *handler)
}
