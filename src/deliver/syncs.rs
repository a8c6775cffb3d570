//! Syncs of files and directories, as far as they are wanted and supported.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::disk::{Disk, FileId, errno};
use super::group_sync::{GroupSync, Ticket};
use super::target::Sync;
use crate::lock::lock;

/// Maximum directories whose syncs are remembered; past it unused ones without a failure are forgotten.
const GROUPS: usize = 1_000;

/// The syncs of the server.
pub struct Syncs {
    wanted: Sync,
    /// True after the warning that a file system cannot sync directories.
    warned: AtomicBool,
    /// The syncs of each directory, shared by all that have it open.
    groups: Mutex<HashMap<FileId, Arc<GroupSync>>>,
}

impl Syncs {
    pub(crate) fn new(wanted: Sync) -> Self {
        Self {
            wanted,
            warned: AtomicBool::new(false),
            groups: Mutex::default(),
        }
    }

    /// Makes a file's contents durable.
    pub(crate) fn file(&self, disk: &dyn Disk, file: BorrowedFd<'_>) -> io::Result<()> {
        match self.wanted {
            Sync::Full => disk.sync(file),
            Sync::None => Ok(()),
        }
    }

    /// Asks the system to start making a file's contents durable.
    pub(super) fn start(&self, disk: &dyn Disk, file: BorrowedFd<'_>) {
        if self.wanted == Sync::Full {
            disk.start_sync(file);
        }
    }

    /// Makes a directory's entries durable; skipped, with one warning, if the file system cannot do it.
    pub(crate) fn directory(&self, disk: &dyn Disk, dir: BorrowedFd<'_>) -> io::Result<()> {
        match self.file(disk, dir) {
            Err(e) if errno(&e).is_some_and(has_no_sync) => {
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

    /// Asks the system to write a whole file system.
    pub(crate) fn all(&self, disk: &dyn Disk, file: BorrowedFd<'_>) {
        if self.wanted == Sync::Full {
            disk.sync_all(file);
        }
    }

    /// The syncs of a directory.
    pub(crate) fn group(&self, directory: FileId) -> Arc<GroupSync> {
        let mut groups = lock(&self.groups);
        if groups.len() >= GROUPS && !groups.contains_key(&directory) {
            groups.retain(|_, group| group.has_failed() || Arc::strong_count(group) > 1);
        }
        Arc::clone(groups.entry(directory).or_default())
    }

    /// Makes the directories in a directory durable, whoever created them. One sync serves all waiters.
    ///
    /// # Errors
    /// The error of this or any earlier sync of the directory: lost entries are still visible in memory, and another
    /// sync would succeed. Only a full disk can be retried.
    pub(crate) fn parent(&self, disk: &dyn Disk, dir: BorrowedFd<'_>) -> io::Result<()> {
        if self.wanted == Sync::None {
            return Ok(());
        }
        let identity = disk.identity_of(dir)?;
        let group = self.group(identity);
        let synced = group.sync(Ticket::default(), || self.directory(disk, dir));
        if let Err(e) = &synced
            && matches!(errno(e), Some(Errno::ENOSPC | Errno::EDQUOT))
        {
            lock(&self.groups).remove(&identity);
        }
        synced
    }
}

/// True if a failed sync of a directory means that its file system has none (fsync(2); EBADF: CIFS).
fn has_no_sync(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EINVAL | Errno::EBADF | Errno::ENOSYS | Errno::EOPNOTSUPP
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::disk::Real;
    use super::super::faults::{Scratch, Script, target};
    use super::super::maildir;
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    /// A later successful sync does not bring back what an earlier one lost; a full disk has lost nothing.
    #[test]
    fn a_failed_sync_of_a_parent_is_never_tried_again() {
        for (fault, again) in [(Errno::EIO, false), (Errno::ENOSPC, true)] {
            let (scratch, other) = (Scratch::new(), Scratch::new());
            let dir = File::open(&scratch.0).unwrap();
            let device = Real.identity_of(dir.as_fd()).unwrap().device;
            let bad = Script {
                bad_device: Some((device, "sync", fault)),
                ..Script::default()
            };
            let syncs = Syncs::new(Sync::Full);
            let failed = syncs.parent(&bad, dir.as_fd());
            assert_eq!(errno(&failed.unwrap_err()), Some(fault));
            let later = syncs.parent(&Script::default(), dir.as_fd());
            assert_eq!(later.is_ok(), again, "{fault}");
            let other = File::open(&other.0).unwrap();
            assert!(syncs.parent(&Script::default(), other.as_fd()).is_ok());
        }
    }

    /// Two sessions that open one mailbox at the same time share failed syncs.
    #[test]
    fn a_mailbox_opened_twice_has_one_group() {
        let scratch = Scratch::new();
        let target = target(&scratch, "alice");
        let syncs = Syncs::new(Sync::Full);
        let open = || maildir::open(&Real, &syncs, &target).ok().unwrap();
        let (one, two) = (open(), open());
        assert!(Arc::ptr_eq(&one.syncs, &two.syncs));
    }

    #[test]
    fn directories_that_are_not_open_are_forgotten() {
        let scratch = Scratch::new();
        let syncs = Syncs::new(Sync::Full);
        let held = syncs.group(Real.identity(&scratch.0).unwrap());
        for number in 0..GROUPS + 10 {
            let path = scratch.0.join(number.to_string());
            std::fs::create_dir(&path).unwrap();
            syncs.group(Real.identity(&path).unwrap());
        }
        let groups = lock(&syncs.groups);
        assert!(groups.len() <= GROUPS && groups.values().any(|group| Arc::ptr_eq(group, &held)));
    }
}
