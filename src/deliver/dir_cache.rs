//! The directories that mail went to lately, kept open for the next message: opening them costs more than all else that a
//! delivery does besides the two syncs. A kept directory is used only as long as its path still leads to it, which one
//! `fstatat` tells at RCPT, and another one before the message gets its name; so a Maildir that is moved, replaced or
//! mounted over takes no mail that nobody finds. What was not used for a while is closed, so that a file system can be
//! unmounted and the descriptors are there for others.
//!
//! The directories are spread over [`SHARDS`] by their paths, each part with a lock of its own that is held
//! for a look at a map and never during a system call: no lock is shared by all connections.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::maildir::OpenMaildir;
use super::target::Target;
use crate::lock::lock;

/// Number of parts.
const SHARDS: usize = 16;

/// Descriptors of a kept mailbox.
pub(super) const DESCRIPTORS: usize = 3;

/// Directories that were not used for so long are closed.
const IDLE: Duration = Duration::from_secs(10);

/// A message that begins so soon after its RCPT does not look again; before it gets its name it does.
const FRESH: Duration = Duration::from_secs(1);

/// Longest time that directories stay open, so that their `tmp/` is swept again.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Open directories by the path of the inbox or folder.
pub(super) struct DirCache {
    shards: [Mutex<HashMap<OsString, Kept>>; SHARDS],
    /// So many are kept in each part.
    most: usize,
}

struct Kept {
    dirs: Arc<OpenMaildir>,
    opened: Instant,
    used: Instant,
    /// When RCPT found them in their place.
    looked: Option<Instant>,
}

impl DirCache {
    /// Keeps up to about `most` mailboxes open, each of which is [`DESCRIPTORS`] descriptors.
    pub(super) fn new(most: usize) -> Self {
        Self {
            shards: Default::default(),
            most: most / SHARDS,
        }
    }

    /// The directories of a target, where they are open and their path still led to them less than [`FRESH`] ago.
    pub(super) fn get(&self, disk: &dyn Disk, target: &Target) -> Option<Arc<OpenMaildir>> {
        let key = key(target);
        let now = Instant::now();
        let (dirs, looked) = {
            let mut shard = self.shard(&key);
            let kept = shard.get_mut(&*key)?;
            kept.used = now;
            (Arc::clone(&kept.dirs), kept.looked)
        };
        if looked.is_some_and(|at| now.saturating_duration_since(at) < FRESH) || dirs.in_place(disk)
        {
            return Some(dirs);
        }
        self.shard(&key).remove(&*key);
        None
    }

    /// Looks at a target for a message that may follow: true where it is open and still what its path leads to.
    pub(super) fn look(&self, disk: &dyn Disk, target: &Target) -> bool {
        let key = key(target);
        let now = Instant::now();
        let dirs = {
            let mut shard = self.shard(&key);
            let Some(kept) = shard.get_mut(&*key) else {
                return false;
            };
            (kept.used, kept.looked) = (now, Some(now));
            Arc::clone(&kept.dirs)
        };
        let in_place = dirs.in_place(disk);
        if !in_place {
            self.shard(&key).remove(&*key);
        }
        in_place
    }

    /// Keeps the directories of a target no longer.
    pub(super) fn forget(&self, target: &Target) {
        let key = key(target);
        self.shard(&key).remove(&*key);
    }

    /// Keeps directories that were just opened, in the place of those that were not used for longest.
    pub(super) fn keep(&self, target: &Target, dirs: &Arc<OpenMaildir>) {
        if self.most == 0 {
            return;
        }
        let key = key(target);
        let now = Instant::now();
        let mut shard = self.shard(&key);
        if shard.len() >= self.most && !shard.contains_key(&*key) {
            let oldest = shard.iter().min_by_key(|(_, kept)| kept.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                shard.remove(&oldest);
            }
        }
        let kept = Kept {
            dirs: Arc::clone(dirs),
            opened: now,
            used: now,
            looked: None,
        };
        shard.insert(key.into_owned(), kept);
    }

    /// Closes what was not used for [`IDLE`] or is open for [`LONGEST`]. Whether anything is left.
    pub(super) fn close_idle(&self, now: Instant) -> bool {
        let fresh = |kept: &Kept| {
            now.saturating_duration_since(kept.used) < IDLE
                && now.saturating_duration_since(kept.opened) < LONGEST
        };
        let mut left = false;
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.retain(|_, kept| fresh(kept));
            left |= !shard.is_empty();
        }
        left
    }

    /// The part where a path belongs.
    fn shard(&self, key: &OsStr) -> MutexGuard<'_, HashMap<OsString, Kept>> {
        // What tells mailboxes apart stands near the end of their paths.
        let sum = |sum: usize, &octet: &u8| sum.wrapping_mul(31).wrapping_add(octet.into());
        let number = key.as_bytes().iter().rev().take(16).fold(0, sum) % SHARDS;
        // The remainder is always one of them.
        let [first, ..] = &self.shards;
        lock(self.shards.get(number).unwrap_or(first))
    }
}

/// The directory that `new/` lies in.
fn key(target: &Target) -> Cow<'_, OsStr> {
    match &target.folder {
        None => Cow::Borrowed(target.maildir.as_os_str()),
        Some(folder) => Cow::Owned(target.maildir.join(folder).into_os_string()),
    }
}
