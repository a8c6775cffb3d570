//! The mail root: the fixed part of the Maildir pattern.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;

use super::lookup::Directory;
use super::mailbox;
use crate::smtp::reply::Reply;

impl Directory {
    /// True if the mail root exists. The empty directory that an unmounted volume leaves is not it: mailboxes would be
    /// unknown there, or made in it and hidden later.
    ///
    /// # Errors
    /// 451 for local errors.
    pub(super) fn root_exists(&self) -> Result<bool, Reply> {
        // First, because the way through a directory makes an automounter mount it.
        let above = fs::metadata(self.root.join(".."));
        let Some(device) = mailbox::device(&self.root)? else {
            return Ok(false);
        };
        let is_mount = above.is_ok_and(|above| above.dev() != device);
        let was_mount = self.mounted.fetch_or(is_mount, Ordering::Relaxed);
        Ok(is_mount || !was_mount)
    }

    /// Forgets the root, which is another directory after a chroot, and looks again.
    pub fn renew_root(&self) {
        self.mounted.store(false, Ordering::Relaxed);
        self.has_root();
    }

    /// Knows of the root what another directory did, before a reload.
    pub fn keep_root(&self, before: &Self) {
        let was_mount = before.mounted.load(Ordering::Relaxed);
        self.mounted.fetch_or(was_mount, Ordering::Relaxed);
    }

    /// True if the mail root is there, and still mounted if it was.
    pub fn has_root(&self) -> bool {
        matches!(self.root_exists(), Ok(true))
    }
}
