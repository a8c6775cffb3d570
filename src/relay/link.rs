//! A connection to a hop, which may be used for several messages.

use crate::client::Connection;

/// Maximum messages on one connection.
const MAX_MESSAGES: usize = 100;

/// An open connection and its state.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) host: String,
    pub(super) used: usize,
    /// True if it is in the clear because TLS failed.
    pub(super) exposed: bool,
}

impl Link {
    /// True if no other message may go over it, of those that this side sends at most on one connection.
    pub(super) fn is_used_up(&self) -> bool {
        self.used >= MAX_MESSAGES || self.is_full()
    }

    /// True if the other side takes no other message (RFC 9422 §4.1).
    pub(super) fn is_full(&self) -> bool {
        let most = self.connection.extensions().mail_max;
        most.is_some_and(|most| self.used >= most)
    }
}
