//! Delivery for the whole server: starts spools, and does housekeeping between messages.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::context::Context;
use super::dir_cache::{self, DirCache};
use super::disk::{self, Disk};
use super::groups::Groups;
use super::junk::JunkField;
use super::maildir;
use super::quota::Ledger;
use super::room::{self, Room};
use super::spool::Spool;
use super::sweep;
use super::syncs::Syncs;
use super::target::{Form, Sync, Target};
use super::trace::Trace;
use crate::lock::lock;
use crate::smtp::reply::{self, Reply};
use crate::warnings::warn;

/// How often a Maildir's `tmp/` is swept.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// Default number of Maildirs that messages hold open together.
const HELD: usize = 64;

/// Maximum Maildirs remembered as swept; past it all are forgotten, which costs a few early sweeps.
const SWEPT_MAX: usize = 10_000;

/// Delivery for the whole server, shared by its threads. No message takes a lock that all threads share.
pub struct Store {
    pub(super) context: Arc<Context>,
    /// When each Maildir was last swept.
    swept: Mutex<HashMap<PathBuf, Instant>>,
    room: Room,
    /// For looks at mailboxes.
    unsynced: Syncs,
}

impl Store {
    /// A store with `hostname` in its file names, which keeps up to about `open` descriptors of Maildirs.
    pub fn new(hostname: &str, sync: Sync, open: usize) -> Self {
        Self::with_disk(hostname, sync, open, Box::new(disk::Real))
    }

    /// The same with another disk, for fault tests.
    pub(super) fn with_disk(hostname: &str, sync: Sync, open: usize, disk: Box<dyn Disk>) -> Self {
        let host = maildir::escape_host(hostname);
        let context = Context {
            disk,
            host,
            syncs: Arc::new(Syncs::new(sync)),
            ledger: Ledger::default(),
            junk: Arc::default(),
            dirs: DirCache::new(open / dir_cache::DESCRIPTORS),
            spare: AtomicUsize::new(HELD),
            opened: Mutex::default(),
            any_opened: AtomicBool::new(false),
        };
        Self {
            context: Arc::new(context),
            swept: Mutex::default(),
            room: Room::default(),
            unsynced: Syncs::new(Sync::None),
        }
    }

    /// Lets messages together hold that many Maildirs open, besides the first one of each. Call it before the first
    /// message.
    pub fn with_held(mut self, maildirs: usize) -> Self {
        if let Some(context) = Arc::get_mut(&mut self.context) {
            context.spare = AtomicUsize::new(maildirs);
        }
        self
    }

    /// Delivers messages with one of these header fields to the folder `.Junk`. Call it before the first message.
    pub fn with_junk(mut self, fields: Vec<JunkField>) -> Self {
        if let Some(context) = Arc::get_mut(&mut self.context) {
            context.junk = fields.into();
        }
        self
    }

    /// The syncs of directories, for the queue.
    pub fn syncs(&self) -> Arc<Syncs> {
        Arc::clone(&self.context.syncs)
    }

    /// Opens a file for one message; `size` is what MAIL declared, in octets. `groups` holds the mailboxes of each
    /// recipient; a mailbox named twice gets one copy. Errors are reported at commit.
    pub fn begin(
        &self,
        trace: &Trace<'_>,
        groups: impl Into<Groups>,
        form: Form,
        size: Option<u64>,
    ) -> Box<Spool> {
        let context = Arc::clone(&self.context);
        Spool::begin(context, trace, groups.into(), form, size)
    }

    /// True if a mailbox is in the cache and still in place: one system call instead of a closer look.
    pub fn is_open(&self, target: &Target) -> bool {
        let context = &self.context;
        context.dirs.look(context.disk.as_ref(), target)
    }

    /// Closes unused directories. Returns true if any is still open.
    pub fn close_idle(&self) -> bool {
        self.context.dirs.close_idle(Instant::now())
    }

    /// Checks that the file system of `path`, or of its nearest existing parent, has room for `octets` and one more
    /// file. `path` must be the same in all calls.
    ///
    /// # Errors
    /// 452 4.3.1 if it has not; the reply for an error of the disk.
    pub fn room(&self, path: &Path, octets: u64) -> Result<(), Reply> {
        self.room.check(path, octets)
    }

    /// Checks a mailbox that is not open, for a message of `octets` or 0 if unknown: the room on its file system, and if
    /// it has an owner that delivery can open it with the owner's rights. A missing one is not created.
    ///
    /// # Errors
    /// 452 4.3.1 if there is no room; the reply for an error of the disk.
    pub fn check(&self, target: &Target, octets: u64) -> Result<(), Reply> {
        let folder = target.folder.as_deref().unwrap_or_default();
        room::at_mailbox(&target.maildir.join(folder), octets)?;
        if target.owner.is_none() || !target.maildir.is_dir() {
            return Ok(());
        }
        // A stranger may ask, so nothing is synced; the delivery does that.
        let opened = maildir::open(self.context.disk.as_ref(), &self.unsynced, target);
        opened.map(drop).map_err(|trouble| {
            warn(&format!("mailbox cannot be used {trouble}"));
            trouble.refusal()
        })
    }

    /// True if [`Self::sweep`] has work.
    pub fn sweep_due(&self) -> bool {
        self.context.any_opened.load(Ordering::Relaxed)
    }

    /// Removes files older than 36 hours from the `tmp/` of Maildirs that were opened since the last call, and from
    /// those of their folders, each at most hourly. Call it after the reply, so that no client waits for it.
    pub fn sweep(&self) {
        self.context.any_opened.store(false, Ordering::Relaxed);
        let opened = std::mem::take(&mut *lock(&self.context.opened));
        for target in opened {
            if self.claim(&target.maildir)
                && let Ok(dirs) = self.context.dirs(&target)
            {
                let disk = self.context.disk.as_ref();
                sweep::sweep(disk, &target.maildir, &dirs.base, SystemTime::now());
            }
        }
    }

    /// True if a Maildir was not swept within the hour; marks it as swept.
    fn claim(&self, maildir: &Path) -> bool {
        let now = Instant::now();
        let mut swept = lock(&self.swept);
        if swept
            .get(maildir)
            .is_some_and(|&last| now.duration_since(last) < SWEEP_EVERY)
        {
            return false;
        }
        if swept.len() >= SWEPT_MAX {
            swept.clear();
        }
        swept.insert(maildir.to_owned(), now);
        true
    }

    /// Checks that a message of `octets`, or 0 if unknown, fits into a target's quota.
    ///
    /// # Errors
    /// 552 5.2.2 if it does not. Errors are left to the delivery.
    pub fn quota_check(&self, target: &Target, octets: u64) -> Result<(), Reply> {
        let Some(quota) = target.counted_quota() else {
            return Ok(());
        };
        let disk = self.context.disk.as_ref();
        let full = || Err(reply::MAILBOX_FULL);
        if !target.maildir.is_dir() {
            return if quota.bytes.is_some_and(|limit| limit > 0 && octets > limit) {
                full()
            } else {
                Ok(())
            };
        }
        match self.context.dirs(target) {
            Ok(dirs) if !self.context.ledger.fits(disk, &dirs, target, octets) => full(),
            _ => Ok(()),
        }
    }
}
