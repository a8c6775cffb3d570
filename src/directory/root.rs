//! The mail root: the fixed part of the Maildir pattern.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::mailbox;
use crate::smtp::reply::Reply;

/// The directory of all mailboxes.
pub(super) struct Root {
    pub(super) path: Arc<Path>,
    /// True once it was seen to be a mount.
    mounted: AtomicBool,
}

impl Root {
    pub(super) fn new(path: Arc<Path>) -> Self {
        let mounted = AtomicBool::new(false);
        let root = Self { path, mounted };
        let _ = root.exists();
        root
    }

    /// True if it exists. The empty directory that an unmounted volume leaves is not it: mailboxes would be unknown
    /// there, or made in it and hidden later.
    ///
    /// # Errors
    /// 451 for local errors.
    pub(super) fn exists(&self) -> Result<bool, Reply> {
        // First, because the way through a directory makes an automounter mount it.
        let above = fs::metadata(self.path.join(".."));
        let Some(device) = mailbox::device(&self.path)? else {
            return Ok(false);
        };
        let is_mount = above.is_ok_and(|above| above.dev() != device);
        let was_mount = self.mounted.fetch_or(is_mount, Ordering::Relaxed);
        Ok(is_mount || !was_mount)
    }
}
