//! Making a message durable: it's streamed into a file of the first recipient's Maildir while it arrives, and becomes
//! visible in every recipient's `new/` at once, or nowhere. [`Store::begin`] opens a [`Spool`], [`Spool::write`] takes the
//! content, and [`Spool::commit`] answers with [`Delivered`], the receipt without which no 250 can be spelled.
//! No sockets here, and nothing of the dialogue but the replies that trouble with a disk turns into.
//!
//! The system calls of a message of up to 32 KiB for one recipient, on a file system with O_TMPFILE, and why there
//! are no fewer: `fstatat`, whether the directory that is kept open is still where its path leads; `openat`,
//! the unnamed file; `write`, trace headers and message; `fsync`, its octets must be there before its name; `linkat`,
//! the name; `fsync`, the name must be there before the 250; `close`. A Maildir that was not used
//! for ten seconds is opened first, by three `openat`, two `fstatat` and an `fstat`; each further 32 KiB is one `write`;
//! a quota adds reading `maildirsize` twice and one line to it. Of several recipients each one costs an `fstatat`, a
//! `linkat` and an `fsync`. Sessions that deliver to one mailbox at the same time share the last `fsync` (see `together`). Memory per message is a buffer of 96 KiB at the most, whatever its size.

mod commit;
mod disk;
#[cfg(test)]
mod faults;
mod handles;
mod header;
mod maildir;
mod quota;
mod spool;
mod together;
mod trace;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

use self::disk::Disk;
use self::handles::Handles;
use self::maildir::Dirs;
pub use self::quota::Quota;
pub use self::spool::Spool;
pub use self::together::Together;
pub use self::trace::Trace;
use crate::encoding::push_decimal;
use crate::smtp::reply::{self, Refusal, Reply};

/// One mailbox that a message goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The fixed part of the Maildir pattern. It must exist and is never made here, so that a volume which isn't mounted
    /// doesn't get a shadow tree.
    pub root: Arc<Path>,
    /// The whole path of the Maildir, below `root`.
    pub maildir: PathBuf,
    /// Whether a missing Maildir is made.
    pub may_create: bool,
    /// The name of a Maildir++ folder, with its leading dot; the inbox takes its place where it doesn't exist.
    pub folder: Option<String>,
    /// The address for Delivered-To.
    pub address: String,
    /// The address for X-Original-To, where an alias led here.
    pub original: Option<String>,
    /// The mailbox's quota.
    pub quota: Option<Quota>,
}

/// How a message lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines end in LF, as every Unix Maildir reader expects.
    Text,
    /// Octets as they came (BINARYMIME, RFC 3030), the trace headers with CRLF.
    Binary,
}

impl Form {
    /// The line end of added header lines.
    fn eol(self) -> &'static str {
        match self {
            Self::Text => "\n",
            Self::Binary => "\r\n",
        }
    }
}

/// Whether a message must be on the disk before it's acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Files and directories are synced.
    Full,
    /// Nothing is: for test sinks and memory file systems.
    None,
}

/// Delivery for the whole server, shared by its threads. No lock of all threads is taken on the way of a message.
pub struct Store {
    shared: Arc<Shared>,
    /// When each Maildir was last swept.
    swept: Mutex<HashMap<PathBuf, Instant>>,
    room: Room,
}

/// What spools have of the store.
struct Shared {
    disk: Box<dyn Disk>,
    /// The host part of file names, escaped.
    host: String,
    sync: Sync,
    /// Whether unnamed files can't be used: cleared for good at the first sign that /proc is missing.
    named_only: AtomicBool,
    handles: Handles,
    /// Maildirs that were opened anew: their `tmp/` may want a sweep.
    opened: Mutex<Vec<PathBuf>>,
    /// Whether there are any, so that most messages lock nothing to learn that there are none.
    any_opened: AtomicBool,
}

/// The room on the disk as last seen, which is good for a second where a message needs less than half of it.
struct Room {
    epoch: Instant,
    /// Octets.
    free: AtomicU64,
    /// Milliseconds after `epoch`; zero before the first look.
    until: AtomicU64,
}

impl Store {
    /// A store whose file names carry `hostname`, and which keeps up to about `open` descriptors of Maildirs.
    pub fn new(hostname: &str, sync: Sync, open: usize) -> Self {
        Self::with_disk(hostname, sync, open, Box::new(disk::Real))
    }

    /// The same over another disk, for fault tests.
    fn with_disk(hostname: &str, sync: Sync, open: usize, disk: Box<dyn Disk>) -> Self {
        let host = maildir::escape_host(hostname);
        let shared = Shared {
            disk,
            host,
            sync,
            named_only: AtomicBool::new(false),
            handles: Handles::new(open / handles::DESCRIPTORS),
            opened: Mutex::default(),
            any_opened: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
            swept: Mutex::default(),
            room: Room {
                epoch: Instant::now(),
                free: AtomicU64::new(0),
                until: AtomicU64::new(0),
            },
        }
    }

    /// Opens a file for one message; `size` is what MAIL declared, in octets. A target named twice gets one copy.
    /// What goes wrong here comes out at commit.
    pub fn begin(
        &self,
        trace: &Trace<'_>,
        targets: Vec<Arc<Target>>,
        form: Form,
        size: Option<u64>,
    ) -> Spool {
        Spool::begin(Arc::clone(&self.shared), trace, targets, form, size)
    }

    /// Closes directories that were not used for a while. Whether any is still open.
    pub fn close_idle(&self) -> bool {
        self.shared.handles.close_idle(Instant::now())
    }

    /// Whether the file system of `path` (or of its nearest existing parent) has room for so many octets and one more
    /// file. `path` must be the same at all calls.
    ///
    /// # Errors
    /// 452 4.3.1 where it hasn't, else by [`refusal`].
    pub fn room(&self, path: &Path, octets: u64) -> Result<(), Refusal> {
        let now = u64::try_from(self.room.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now < self.room.until.load(Ordering::Acquire)
            && octets < self.room.free.load(Ordering::Relaxed) / 2
        {
            return Ok(());
        }
        let free = free(path)?;
        self.room.free.store(free, Ordering::Relaxed);
        let until = now.saturating_add(ROOM_KNOWN);
        self.room.until.store(until, Ordering::Release);
        if octets > free || free == 0 {
            return Err(Refusal::local(reply::DISK_FULL));
        }
        Ok(())
    }

    /// Whether [`Self::sweep`] has something to look at.
    pub fn sweep_due(&self) -> bool {
        self.shared.any_opened.load(Ordering::Relaxed)
    }

    /// Removes files older than 36 hours from the `tmp/` of Maildirs that were opened since the last call, each at most
    /// hourly. Meant for after the reply, so that no client waits for it.
    pub fn sweep(&self) {
        self.shared.any_opened.store(false, Ordering::Relaxed);
        let opened = std::mem::take(&mut *lock(&self.shared.opened));
        for maildir in opened {
            if self.claim(&maildir) {
                maildir::sweep(self.shared.disk.as_ref(), &maildir, SystemTime::now());
            }
        }
    }

    /// Whether a Maildir was not swept within the hour; now it counts as swept.
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

    /// Whether a message of `octets` (zero where the client didn't say) fits into a target's quota now.
    ///
    /// # Errors
    /// 552 5.2.2 where it doesn't. A Maildir that can't be looked at is left for the delivery to judge.
    pub fn quota_check(&self, target: &Target, octets: u64) -> Result<(), Refusal> {
        let Some(quota) = target.counted_quota() else {
            return Ok(());
        };
        let disk = self.shared.disk.as_ref();
        let full = || Err(Refusal::policy(reply::MAILBOX_FULL));
        if !target.maildir.is_dir() {
            return if quota.bytes.is_some_and(|limit| limit > 0 && octets > limit) {
                full()
            } else {
                Ok(())
            };
        }
        match self.shared.dirs(target) {
            Ok(dirs) if !quota::fits(disk, &dirs, quota, octets) => full(),
            _ => Ok(()),
        }
    }
}

impl Target {
    /// The quota that a message to this target counts against: none for Trash.
    fn counted_quota(&self) -> Option<&Quota> {
        self.quota
            .as_ref()
            .filter(|_| self.folder.as_deref() != Some(quota::TRASH))
    }
}

impl Shared {
    /// The open directories of a target: kept ones, or else they are opened.
    fn dirs(&self, target: &Target) -> Result<Arc<Dirs>, Refusal> {
        let disk = self.disk.as_ref();
        match self.handles.get(disk, target) {
            Some(kept) => Ok(kept),
            None => maildir::open(disk, self.sync, target).map(Arc::new),
        }
    }

    /// Keeps the directories of a target that mail went to, and has its `tmp/` looked at.
    fn keep(&self, target: &Target, dirs: &Arc<Dirs>) {
        // The folder that was missing may be there next time.
        if !dirs.as_asked || dirs.kept.swap(true, Ordering::Relaxed) {
            return;
        }
        self.handles.keep(target, dirs);
        let mut opened = lock(&self.opened);
        if opened.len() < SWEPT_AT_ONCE {
            opened.push(target.maildir.clone());
            self.any_opened.store(true, Ordering::Relaxed);
        }
    }

    /// Syncs, where that's wanted.
    fn sync(&self, file: &impl std::os::fd::AsFd) -> io::Result<()> {
        match self.sync {
            Sync::Full => self.disk.sync(file.as_fd()),
            Sync::None => Ok(()),
        }
    }

    /// A Maildir file name (cr.yp.to/proto/maildir.html) with the size that Maildir++ reads from it.
    fn name(&self, id: &str, size: u64) -> String {
        let mut name = String::with_capacity(id.len() + self.host.len() + 24);
        for part in [id, ".", &self.host, ",S="] {
            name.push_str(part);
        }
        push_decimal(&mut name, size);
        name
    }

    /// Notes that an unnamed file couldn't be given a name.
    fn give_up_unnamed(&self) {
        if !self.named_only.swap(true, Ordering::Relaxed) {
            log::info!("unnamed files cannot be linked (no /proc here?): using named ones in tmp/");
        }
    }
}

/// The octets that are free on the file system of `path` or of its nearest existing parent; none where not one more
/// file can be made.
fn free(path: &Path) -> Result<u64, Refusal> {
    let mut path = path;
    let found = loop {
        match statvfs(if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        }) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => match path.parent() {
                Some(parent) => path = parent,
                None => return Err(refusal(&Errno::ENOENT.into())),
            },
            other => break other.map_err(|e| refusal(&e.into()))?,
        }
    };
    #[allow(
        clippy::useless_conversion,
        reason = "the widths differ between systems"
    )]
    let (blocks, size, files, left) = (
        u64::from(found.blocks_available()),
        u64::from(found.fragment_size()),
        u64::from(found.files()),
        u64::from(found.files_available()),
    );
    // Some file systems don't count inodes and say zero of zero.
    if files > 0 && left == 0 {
        return Ok(0);
    }
    Ok(blocks.saturating_mul(size))
}

/// Nothing panics under the locks here, so that a poisoned one is still sound.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The receipt for a message that is in `new/` and durable. Only a commit makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    id: String,
    name: String,
}

impl Delivered {
    /// The unique part of the file name, that client, log and file can be matched by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The file name in `new/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The acknowledgement (RFC 5321 §4.2.5): with it the server has taken responsibility.
    pub fn reply(&self) -> Reply {
        let text = ["Message accepted for delivery as ", &self.id].concat();
        reply::reply(250, reply::Enhanced(0, 0), "").with_text(text)
    }
}

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

/// A Maildir's `tmp/` is looked through this often.
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// So many Maildirs wait for a sweep at the most; others are swept when they are opened again.
const SWEPT_AT_ONCE: usize = 1_000;

/// Milliseconds for which the room on the disk counts as known.
const ROOM_KNOWN: u64 = 1_000;

/// So many Maildirs are remembered as swept; past it all are forgotten, which costs a few early sweeps.
const SWEPT_MAX: usize = 10_000;

#[cfg(test)]
mod tests;
