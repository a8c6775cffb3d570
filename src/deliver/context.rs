//! The state that all deliveries share: the disk, the host part of file names, the open directories.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::dir_cache::DirCache;
use super::disk::Disk;
use super::junk::JunkField;
use super::maildir::{self, OpenMaildir};
use super::quota::Ledger;
use super::refusal::Trouble;
use super::syncs::Syncs;
use super::target::Target;
use crate::lock::lock;

/// Maximum Maildirs that wait for a sweep; others are swept when they are opened again.
const SWEPT_AT_ONCE: usize = 1_000;

/// The part of the store that spools use.
pub(super) struct Context {
    pub(super) disk: Box<dyn Disk>,
    /// The host part of file names, escaped.
    pub(super) host: String,
    /// Shared with the queue, whose envelopes are in the directory of a target.
    pub(super) syncs: Arc<Syncs>,
    pub(super) dirs: DirCache,
    /// Maildirs that messages may still hold open, three descriptors each, besides the first one of each message.
    pub(super) spare: AtomicUsize,
    pub(super) ledger: Ledger,
    /// The header fields that mark junk.
    pub(super) junk: Arc<[JunkField]>,
    /// Maildirs opened since the last sweep, whose `tmp/` may need one.
    pub(super) opened: Mutex<Vec<Target>>,
    /// True if there are any; most messages need not lock them to see that.
    pub(super) any_opened: AtomicBool,
}

impl Context {
    /// The open directories of a target, from the cache or newly opened.
    pub(super) fn dirs(&self, target: &Target) -> Result<Arc<OpenMaildir>, Trouble> {
        let disk = self.disk.as_ref();
        match self.dirs.get(disk, target) {
            Some(kept) => Ok(kept),
            None => maildir::open(disk, &self.syncs, target).map(Arc::new),
        }
    }

    /// Takes one of the spare Maildirs; false if there is none.
    pub(super) fn take_spare(&self) -> bool {
        let less = |spare: usize| spare.checked_sub(1);
        let taken = self
            .spare
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }

    /// Caches the directories of a target after a delivery, and schedules a sweep of its `tmp/`.
    pub(super) fn keep(&self, target: &Target, dirs: &Arc<OpenMaildir>) {
        // The missing folder may exist next time.
        if !dirs.as_asked || dirs.kept.swap(true, Ordering::Relaxed) {
            return;
        }
        self.dirs.keep(target, dirs);
        let mut opened = lock(&self.opened);
        if opened.len() < SWEPT_AT_ONCE {
            // A Maildir that is gone by then must not be created by a sweep.
            opened.push(Target {
                may_create: false,
                ..target.clone()
            });
            self.any_opened.store(true, Ordering::Relaxed);
        }
    }

    /// A Maildir file name (cr.yp.to/proto/maildir.html) with the size that Maildir++ reads from it.
    pub(super) fn name(&self, id: &str, size: u64) -> String {
        let mut name = String::with_capacity(id.len() + self.host.len() + 24);
        let _ = write!(name, "{id}.{},S={size}", self.host);
        name
    }
}
