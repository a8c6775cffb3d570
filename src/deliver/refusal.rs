//! From trouble with a disk to the reply that a client hears. Nothing is logged here: whoever knows the message's id does
//! that, once.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::disk;
use crate::smtp::reply::{self, Refusal};

/// Why something could not be done in a Maildir.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A system call failed.
    Call {
        /// What it does, in a word or two.
        call: &'static str,
        /// What it was called for.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A rule of delivery.
    Rule {
        /// What it was applied to.
        path: PathBuf,
        /// The reply.
        refusal: Refusal,
    },
}

impl Trouble {
    /// Makes the error of a call one that knows its call and path.
    pub(super) fn at(call: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Call {
            call,
            path: path.as_ref().to_owned(),
            error,
        }
    }

    /// A Maildir that is gone, moved or replaced.
    pub(super) fn away(path: &Path) -> Self {
        Self::Rule {
            path: path.to_owned(),
            refusal: Refusal::local(reply::MAILBOX_AWAY),
        }
    }

    /// What the client hears.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Call { error, .. } => refusal(error),
            Self::Rule { refusal, .. } => refusal.clone(),
        }
    }

    /// The errno, where a call failed.
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
                write!(f, "path={path:?} error={:?}", refusal.reply.text())
            }
        }
    }
}

/// What a client hears of an I/O error: the only place where an errno becomes a reply.
pub fn refusal(e: &io::Error) -> Refusal {
    Refusal::local(match disk::errno(e) {
        Some(Errno::ENOSPC) => reply::DISK_FULL,
        Some(Errno::EDQUOT | Errno::EFBIG) => reply::MAILBOX_FULL,
        Some(Errno::EACCES | Errno::EPERM | Errno::ELOOP | Errno::ENOTDIR) => {
            reply::MAILBOX_UNUSABLE
        }
        _ => reply::LOCAL_ERROR,
    })
}
