//! A connection to a hop that may serve for more than one message.

use crate::client::Connection;

/// An open connection, and what must be known of it.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) host: String,
    pub(super) used: usize,
}
