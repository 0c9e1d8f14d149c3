//! Messages that are ready to be sealed into batches.

use hookmill_core::limits::EMAIL_BYTES;

/// Pending messages, composed for a provider: batches, and the messages that cannot be sent, by id and with the reason.
#[derive(Default)]
pub(super) struct Composed {
    pub(super) drafts: Vec<Draft>,
    pub(super) refused: Vec<(String, String)>,
    pub(super) suppressed: Vec<(String, String)>,
    /// Ids of messages that are sent without some of their recipients, and these recipients.
    pub(super) left_out: Vec<(String, String)>,
}

/// A batch before it is sealed.
pub(super) struct Draft {
    /// The ids of its messages.
    pub(super) members: Vec<String>,
    /// The body of the request.
    pub(super) body: String,
}

pub(super) fn too_long(bytes: usize) -> String {
    format!("the email has {bytes} bytes; the maximum is {EMAIL_BYTES}")
}
