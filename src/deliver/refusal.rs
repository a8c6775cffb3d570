//! From an I/O error to the reply that a client hears.

use std::io;

use nix::errno::Errno;

use super::disk;
use crate::smtp::reply::{self, Refusal};

/// What a client hears of trouble with the disk: the only place where an errno becomes a reply.
pub fn refusal(e: &io::Error) -> Refusal {
    let reply = match disk::errno(e) {
        Some(Errno::ENOSPC) => reply::DISK_FULL,
        Some(Errno::EDQUOT | Errno::EFBIG) => reply::MAILBOX_FULL,
        Some(Errno::EACCES | Errno::EPERM | Errno::ELOOP | Errno::ENOTDIR) => {
            reply::MAILBOX_UNUSABLE
        }
        _ => reply::LOCAL_ERROR,
    };
    log::warn!("delivery: {e}");
    Refusal::local(reply)
}
