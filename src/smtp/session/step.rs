//! The session's answer to one line: the reply, and what the driver does next.

use crate::smtp::reply::Reply;
use crate::smtp::xclient::Attributes;

/// A reply and the next action.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// The reply to send now.
    pub reply: Option<Reply>,
    /// The driver's next action.
    pub next: Next,
}

impl Step {
    /// A reply, after which the connection is closed.
    pub const fn last(reply: Reply) -> Self {
        Self {
            reply: Some(reply),
            next: Next::Close,
        }
    }

    /// The 4xx or 5xx reply to the command, whether it is sent now or after skipping a chunk.
    pub fn refusal(&self) -> Option<&Reply> {
        match (&self.reply, &self.next) {
            (_, Next::Skip { reply, .. }) => Some(reply),
            (reply, _) => reply.as_ref().filter(|reply| reply.is_error()),
        }
    }
}

/// The driver's next action.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Read another command line or AUTH response.
    Command,
    /// Do a TLS handshake.
    StartTls,
    /// Read a message up to the lone dot.
    Data,
    /// Read `size` octets of content.
    Chunk {
        /// Octets.
        size: u64,
        /// True if the message ends with them.
        last: bool,
    },
    /// Read and drop `size` octets, then send the reply.
    Skip {
        /// Octets.
        size: u64,
        /// The reply after them.
        reply: Reply,
        /// How often: LMTP has one reply for each recipient (RFC 2033 §4.3).
        times: usize,
    },
    /// Continue as the client that XCLIENT names; [`super::Session::xclient_done`] returns the reply.
    Xclient(Box<Attributes>),
    /// Reverse the roles (RFC 2645): send the queued mail of these domains over this connection, or of all of the
    /// user's domains if none is named.
    Turn(Vec<String>),
    /// Close the connection.
    Close,
}

pub(super) const fn say(reply: Reply) -> Step {
    Step {
        reply: Some(reply),
        next: Next::Command,
    }
}

pub(super) const fn close(reply: Reply) -> Step {
    Step::last(reply)
}

pub(super) const fn skip(size: u64, reply: Reply, times: usize) -> Step {
    Step {
        reply: None,
        next: Next::Skip { size, reply, times },
    }
}
