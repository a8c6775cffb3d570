//! What a session answers to one line: the reply, and what the driver does next.

use crate::smtp::reply::Reply;

/// What to say and do.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// What the client hears now.
    pub reply: Option<Reply>,
    /// What comes next.
    pub next: Next,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Another command line, or a response of AUTH.
    Command,
    /// A TLS handshake.
    StartTls,
    /// A message, to the lone dot.
    Data,
    /// `size` octets of content.
    Chunk {
        /// Octets.
        size: u64,
        /// Whether the message ends with them.
        last: bool,
    },
    /// `size` octets to read and drop, and then the reply.
    Skip {
        /// Octets.
        size: u64,
        /// The answer behind them.
        reply: Reply,
    },
    /// Hang up.
    Close,
}

pub(super) const fn say(reply: Reply) -> Step {
    Step {
        reply: Some(reply),
        next: Next::Command,
    }
}

pub(super) const fn hang_up(reply: Reply) -> Step {
    Step {
        reply: Some(reply),
        next: Next::Close,
    }
}

pub(super) const fn skip(size: u64, reply: Reply) -> Step {
    Step {
        reply: None,
        next: Next::Skip { size, reply },
    }
}
