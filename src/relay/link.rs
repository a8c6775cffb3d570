//! A connection to a hop, which may be used for several messages.

use crate::client::Connection;

/// Maximum messages on one connection.
const MAX_MESSAGES: usize = 100;

/// An open connection and its state.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) host: String,
    pub(super) used: usize,
}

impl Link {
    /// True if no other message may go over it.
    pub(super) fn is_used_up(&self) -> bool {
        let most = self.connection.extensions().mail_max;
        self.used >= most.map_or(MAX_MESSAGES, |most| most.min(MAX_MESSAGES))
    }
}
