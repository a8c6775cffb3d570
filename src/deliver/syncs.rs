//! Syncs of files and directories, as far as they are wanted and a file system has them.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use super::disk::{Disk, errno};
use super::target::Sync;

/// How this server syncs.
pub(super) struct Syncs {
    wanted: Sync,
    /// Whether it was said that a file system has no sync of directories.
    warned: AtomicBool,
}

impl Syncs {
    pub(super) fn new(wanted: Sync) -> Self {
        Self {
            wanted,
            warned: AtomicBool::new(false),
        }
    }

    /// Makes a file's contents durable.
    pub(super) fn file(&self, disk: &dyn Disk, file: BorrowedFd<'_>) -> io::Result<()> {
        match self.wanted {
            Sync::Full => disk.sync(file),
            Sync::None => Ok(()),
        }
    }

    /// Makes a directory's entries durable; left out, with a warning the first time, where the file system cannot.
    pub(super) fn directory(&self, disk: &dyn Disk, dir: BorrowedFd<'_>) -> io::Result<()> {
        match self.file(disk, dir) {
            Err(e) if errno(&e) == Some(Errno::EINVAL) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    log::warn!(
                        "a file system cannot sync directories: mail there may be lost in a power cut"
                    );
                }
                Ok(())
            }
            other => other,
        }
    }
}
