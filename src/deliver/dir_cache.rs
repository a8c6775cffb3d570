//! A cache of open directories of recent deliveries: opening them costs more than everything else in a delivery except
//! its two syncs. An entry is only used while its path still leads to it, which an `fstatat` checks at RCPT and again
//! before the message gets its name, so that no mail is lost in a Maildir that was moved, replaced or mounted over.
//! Unused entries are closed after a while, so that a file system can be unmounted and descriptors are free for others.
//!
//! Entries are spread over [`SHARDS`] by path. Each shard has its own lock, held for a search and never while a path is
//! looked at, so that no lock is shared by all connections.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::maildir::OpenMaildir;
use super::owner;
use super::target::Target;
use crate::lock::lock;

/// Number of shards.
const SHARDS: usize = 16;

/// Descriptors of a cached mailbox.
pub(super) const DESCRIPTORS: usize = 3;

/// Unused directories are closed after this time.
const IDLE: Duration = Duration::from_secs(10);

/// Within this time after RCPT a message does not check its directory again until it gets its name.
const FRESH: Duration = Duration::from_secs(1);

/// Maximum time that directories stay open, so that their `tmp/` is swept again.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Open directories.
pub(super) struct DirCache {
    shards: [Mutex<Shard>; SHARDS],
    /// Maximum entries of a shard.
    most: usize,
}

/// Entries sorted by path. They are searched far more often than changed.
#[derive(Default)]
struct Shard(Vec<Kept>);

struct Kept {
    /// The path of the inbox or folder.
    path: OsString,
    dirs: Arc<OpenMaildir>,
    opened: Instant,
    used: Instant,
    /// The time when RCPT last found them in place.
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

    /// The directories of a target, if they are open and in place, or were less than [`FRESH`] ago.
    pub(super) fn get(&self, disk: &dyn Disk, target: &Target) -> Option<Arc<OpenMaildir>> {
        self.find(disk, target, false)
    }

    /// Checks a target for a message that may follow: true if it is open and still in place.
    pub(super) fn look(&self, disk: &dyn Disk, target: &Target) -> bool {
        self.find(disk, target, true).is_some()
    }

    /// Finds open directories; those that are no longer in place are dropped. With `look` their place is always
    /// checked, which then holds for the message that follows.
    fn find(&self, disk: &dyn Disk, target: &Target, look: bool) -> Option<Arc<OpenMaildir>> {
        let key = key(target);
        let now = Instant::now();
        let (dirs, looked) = {
            let mut shard = self.shard(&key);
            let place = shard.place(&key).ok()?;
            let kept = shard.0.get_mut(place)?;
            kept.used = now;
            if look {
                kept.looked = Some(now);
            }
            (Arc::clone(&kept.dirs), kept.looked)
        };
        let fresh = |at| !look && now.saturating_duration_since(at) < FRESH;
        // A reload of the users file may have changed the owner.
        let same_owner = dirs.owner == owner::receiver(target.owner);
        if same_owner && (looked.is_some_and(fresh) || dirs.in_place(disk)) {
            return Some(dirs);
        }
        self.shard(&key).remove(&key);
        None
    }

    /// Drops the directories of a target.
    pub(super) fn forget(&self, target: &Target) {
        let key = key(target);
        self.shard(&key).remove(&key);
    }

    /// Adds directories that were just opened, evicting the least recently used ones.
    pub(super) fn keep(&self, target: &Target, dirs: &Arc<OpenMaildir>) {
        if self.most == 0 {
            return;
        }
        let key = key(target);
        let now = Instant::now();
        let mut shard = self.shard(&key);
        shard.remove(&key);
        if shard.0.len() >= self.most {
            shard.evict();
        }
        let place = shard.place(&key).unwrap_or_else(|place| place);
        let kept = Kept {
            path: key.into_owned(),
            dirs: Arc::clone(dirs),
            opened: now,
            used: now,
            looked: None,
        };
        shard.0.insert(place, kept);
    }

    /// Closes what was unused for [`IDLE`] or open for [`LONGEST`]. Returns true if anything is left.
    pub(super) fn close_idle(&self, now: Instant) -> bool {
        let fresh = |kept: &Kept| {
            now.saturating_duration_since(kept.used) < IDLE
                && now.saturating_duration_since(kept.opened) < LONGEST
        };
        let mut left = false;
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.0.retain(fresh);
            left |= !shard.0.is_empty();
        }
        left
    }

    /// The shard of a path.
    fn shard(&self, key: &OsStr) -> MutexGuard<'_, Shard> {
        let sum = key
            .as_bytes()
            .iter()
            .fold(0, |sum: u8, &octet| sum.wrapping_add(octet));
        // The remainder is always a valid index.
        let [first, ..] = &self.shards;
        lock(self.shards.get(usize::from(sum) % SHARDS).unwrap_or(first))
    }
}

impl Shard {
    /// The place of a path; an error is where it belongs.
    fn place(&self, path: &OsStr) -> Result<usize, usize> {
        let by_path = |kept: &Kept| kept.path.as_os_str().cmp(path);
        self.0.binary_search_by(by_path)
    }

    fn remove(&mut self, path: &OsStr) {
        if let Ok(place) = self.place(path) {
            self.0.remove(place);
        }
    }

    /// Removes the least recently used entry.
    fn evict(&mut self) {
        let entries = self.0.iter().enumerate();
        let oldest = entries.min_by_key(|(_, kept)| kept.used);
        if let Some(place) = oldest.map(|(place, _)| place) {
            self.0.remove(place);
        }
    }
}

/// The directory that contains `new/`.
fn key(target: &Target) -> Cow<'_, OsStr> {
    match &target.folder {
        None => Cow::Borrowed(target.maildir.as_os_str()),
        Some(folder) => Cow::Owned(target.maildir.join(folder).into_os_string()),
    }
}
