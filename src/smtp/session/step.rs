//! What a session answers to one line: the reply, and what the driver does next.

use crate::smtp::reply::Reply;
use crate::smtp::xclient::Attributes;

/// What to say and do.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// What the client hears now.
    pub reply: Option<Reply>,
    /// What comes next.
    pub next: Next,
}

impl Step {
    /// The 4xx or 5xx that the command is answered with, at once or after the octets to skip.
    pub fn refusal(&self) -> Option<&Reply> {
        match (&self.reply, &self.next) {
            (_, Next::Skip { reply, .. }) => Some(reply),
            (reply, _) => reply.as_ref().filter(|reply| reply.is_error()),
        }
    }
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
    /// A handover to the client that XCLIENT names: the connection becomes that client's, and
    /// [`super::Session::xclient_done`] gives the reply.
    Xclient(Box<Attributes>),
    /// The roles turn (RFC 2645): the mail that waits for these domains is sent over this very
    /// connection; none named is all of the user's.
    Turn(Vec<String>),
    /// The end of the connection.
    Close,
}

pub(super) const fn say(reply: Reply) -> Step {
    Step {
        reply: Some(reply),
        next: Next::Command,
    }
}

pub(super) const fn close(reply: Reply) -> Step {
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
