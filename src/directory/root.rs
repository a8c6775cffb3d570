//! The roots of mailboxes: the mail root, which is the fixed part of the Maildir pattern, and those of accounts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::lookup::Directory;
use super::mailbox;
use crate::lock::lock;
use crate::smtp::reply::Reply;

impl Directory {
    /// True if the mail root exists.
    ///
    /// # Errors
    /// 451 for local errors.
    pub(super) fn root_exists(&self) -> Result<bool, Reply> {
        self.exists(&self.root)
    }

    /// True if a root exists. The empty directory that an unmounted volume leaves is not it: mailboxes would be unknown
    /// there, or made in it and hidden later.
    ///
    /// # Errors
    /// 451 for local errors.
    pub(super) fn exists(&self, root: &Arc<Path>) -> Result<bool, Reply> {
        // First, because the way through a directory makes an automounter mount it.
        let above = fs::metadata(root.join(".."));
        let Some(device) = mailbox::device(root)? else {
            return Ok(false);
        };
        let is_mount = above.is_ok_and(|above| above.dev() != device);
        let mut mounted = lock(&self.mounted);
        match mounted.binary_search_by(|known| known.as_os_str().cmp(root.as_os_str())) {
            Ok(_) => return Ok(is_mount),
            Err(place) if is_mount => mounted.insert(place, Arc::clone(root)),
            Err(_) => {}
        }
        Ok(true)
    }

    /// Forgets the root, which is another directory after a chroot, and looks again.
    pub fn renew_root(&self) {
        lock(&self.mounted).clear();
        self.has_root();
    }

    /// Knows of the roots what another directory did, before a reload.
    pub fn keep_roots(&self, before: &Self) {
        let known = lock(&before.mounted).clone();
        *lock(&self.mounted) = known;
        self.has_root();
    }

    /// True if the mail root is there, and still mounted if it was.
    pub fn has_root(&self) -> bool {
        matches!(self.root_exists(), Ok(true))
    }
}
