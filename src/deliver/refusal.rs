//! Converts disk errors to replies. Nothing is logged here: the spool, which knows the message's id, logs each error
//! once.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::disk;
use crate::smtp::reply::{self, Reply};

/// An error in a Maildir.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A system call failed.
    Call {
        /// The name of the call or operation.
        call: &'static str,
        /// The path.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// A rule of delivery was violated.
    Rule {
        /// The path.
        path: PathBuf,
        /// The reply.
        refusal: Reply,
    },
}

impl Trouble {
    /// Adds call and path to an error.
    pub(super) fn at(call: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Call {
            call,
            path: path.as_ref().to_owned(),
            error,
        }
    }

    /// The error for a Maildir that is gone, moved or replaced.
    pub(super) fn away(path: &Path) -> Self {
        Self::Rule {
            path: path.to_owned(),
            refusal: reply::MAILBOX_AWAY,
        }
    }

    /// The reply to the client.
    pub(super) fn refusal(&self) -> Reply {
        match self {
            Self::Call { error, .. } => refusal(error),
            Self::Rule { refusal, .. } => refusal.clone(),
        }
    }

    /// The errno, if a call failed.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { error, .. } => disk::errno(error),
            Self::Rule { .. } => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { call, path, error } => {
                write!(f, "call={call:?} path={path:?} error={error}")
            }
            Self::Rule { path, refusal } => {
                write!(f, "path={path:?} error={:?}", refusal.text())
            }
        }
    }
}

/// The reply for an I/O error: the only place that maps an errno to a reply.
pub(super) fn refusal(e: &io::Error) -> Reply {
    match disk::errno(e) {
        Some(Errno::ENOSPC) => reply::DISK_FULL,
        Some(Errno::EDQUOT | Errno::EFBIG) => reply::MAILBOX_FULL,
        Some(Errno::EACCES | Errno::EPERM | Errno::ELOOP | Errno::ENOTDIR) => {
            reply::MAILBOX_UNUSABLE
        }
        _ => reply::LOCAL_ERROR,
    }
}

/// The reply if the queue cannot take a message: nobody's mailbox is full, and there may be room later.
pub fn queue_refusal(e: &io::Error) -> Reply {
    for_queue(refusal(e))
}

pub(super) fn for_queue(refusal: Reply) -> Reply {
    match refusal == reply::MAILBOX_FULL {
        true => reply::DISK_FULL,
        false => refusal,
    }
}
