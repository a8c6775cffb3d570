//! A connection to a hop, which may be used for several messages.

use crate::client::Connection;

/// An open connection and its state.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) host: String,
    pub(super) used: usize,
}
