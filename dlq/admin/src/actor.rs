//! The authenticated caller.

use hookmill_core::words::Role;
use serde::Serialize;
use utoipa::ToSchema;

/// The caller.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Actor {
    /// The name of the token; with Cloudflare Access, an email address or the name of a service token.
    pub(crate) name: String,
    pub(crate) role: Role,
}

impl Actor {
    pub(crate) const fn of(name: String, role: Role) -> Self {
        Self { name, role }
    }

    /// An operator with access to the data folder.
    pub(crate) fn local(name: &str) -> Self {
        Self::of(name.to_owned(), Role::Operate)
    }
}
