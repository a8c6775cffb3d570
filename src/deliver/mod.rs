//! Making a message durable: it's streamed into a file of the first recipient's Maildir while it arrives, and becomes
//! visible in every recipient's `new/` at once, or nowhere. [`Store::begin`] opens a [`Spool`], [`Spool::write`] takes the
//! content, and [`Spool::commit`] answers with [`Delivered`], the receipt without which no 250 can be spelled.
//! No sockets here, and nothing of the dialogue but the replies that trouble with a disk turns into.
//!
//! The system calls of a message of up to 64 KiB for one recipient, on a file system with O_TMPFILE (`close` apart):
//! `openat` the Maildir, its `tmp` and `new`, `fstatat` its `cur`, `openat` the unnamed file; one `write` with trace
//! headers and message; `fsync` the file, `linkat` into `new`, `fsync` that directory. Each further 64 KiB is one `write`; a
//! quota adds reading `maildirsize` twice and one line to it. With several recipients each one costs the four opening
//! calls (three times for those past the first sixteen), a `linkat` into its `tmp`, a `renameat2` that moves
//! it to `new`, and an `fsync`: so every directory has taken an entry before the first message becomes visible.
//! Memory per message is the buffer of 64 KiB and the trace headers, whatever its size.

mod commit;
mod disk;
#[cfg(test)]
mod faults;
mod header;
mod maildir;
mod quota;
mod spool;
mod trace;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

use self::disk::Disk;
pub use self::quota::Quota;
pub use self::spool::Spool;
pub use self::trace::Trace;
use crate::smtp::reply::{self, Refusal, Reply};

/// One mailbox that a message goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The fixed part of the Maildir pattern. It must exist and is never made here, so that a volume which isn't mounted
    /// doesn't get a shadow tree.
    pub root: PathBuf,
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

/// Delivery for the whole server, shared by its threads. No lock is taken on the way of a message.
pub struct Store {
    shared: Arc<Shared>,
    /// When each Maildir was last swept. Only ever tried, never waited for.
    swept: Mutex<HashMap<PathBuf, Instant>>,
}

/// What spools have of the store.
struct Shared {
    disk: Box<dyn Disk>,
    /// The host part of file names, escaped.
    host: String,
    sync: Sync,
    /// Whether unnamed files can't be used: cleared for good at the first sign that /proc is missing.
    named_only: AtomicBool,
}

impl Store {
    /// A store whose file names carry `hostname`.
    pub fn new(hostname: &str, sync: Sync) -> Self {
        Self::with_disk(hostname, sync, Box::new(disk::Real))
    }

    /// The same over another disk, for fault tests.
    fn with_disk(hostname: &str, sync: Sync, disk: Box<dyn Disk>) -> Self {
        let host = maildir::escape_host(hostname);
        let shared = Shared {
            disk,
            host,
            sync,
            named_only: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
            swept: Mutex::default(),
        }
    }

    /// Opens a file for one message. A target named twice gets one copy. What goes wrong here comes out at commit.
    pub fn begin(&self, trace: Trace, targets: Vec<Target>, form: Form) -> Spool {
        Spool::begin(Arc::clone(&self.shared), &trace, targets, form)
    }

    /// Whether the file system of `path` (or of its nearest existing parent) has room for so many octets and one more file.
    ///
    /// # Errors
    /// 452 4.3.1 where it hasn't, else by [`refusal`].
    pub fn room(&self, path: &Path, octets: u64) -> Result<(), Refusal> {
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
        let (blocks, size, files, free) = (
            u64::from(found.blocks_available()),
            u64::from(found.fragment_size()),
            u64::from(found.files()),
            u64::from(found.files_available()),
        );
        // Some file systems don't count inodes and say zero of zero.
        if octets > blocks.saturating_mul(size) || (files > 0 && free == 0) {
            return Err(Refusal::local(reply::DISK_FULL));
        }
        Ok(())
    }

    /// Whether [`Self::sweep`] would look at a Maildir now.
    pub fn due(&self, maildir: &Path) -> bool {
        let swept = self.swept.try_lock();
        swept.is_ok_and(|swept| {
            let last = swept.get(maildir);
            last.is_none_or(|last| last.elapsed() >= SWEEP_EVERY)
        })
    }

    /// Removes files older than 36 hours from a Maildir's `tmp/`: at the first call for it, and then at most hourly.
    /// Meant for after the reply, so that no client waits for it.
    pub fn sweep(&self, maildir: &Path) {
        let Ok(mut swept) = self.swept.try_lock() else {
            return;
        };
        let now = Instant::now();
        if swept
            .get(maildir)
            .is_some_and(|&last| now.duration_since(last) < SWEEP_EVERY)
        {
            return;
        }
        if swept.len() >= SWEPT_MAX {
            swept.clear();
        }
        swept.insert(maildir.to_owned(), now);
        drop(swept);
        maildir::sweep(self.shared.disk.as_ref(), maildir, SystemTime::now());
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
        match maildir::open(disk, self.shared.sync, target) {
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
    /// Syncs, where that's wanted.
    fn sync(&self, file: &impl std::os::fd::AsFd) -> io::Result<()> {
        match self.sync {
            Sync::Full => self.disk.sync(file.as_fd()),
            Sync::None => Ok(()),
        }
    }

    /// A Maildir file name (cr.yp.to/proto/maildir.html) with the size that Maildir++ reads from it.
    fn name(&self, id: &str, size: u64) -> String {
        format!("{id}.{},S={size}", self.host)
    }

    /// Notes that an unnamed file couldn't be given a name.
    fn give_up_unnamed(&self) {
        if !self.named_only.swap(true, Ordering::Relaxed) {
            log::info!("unnamed files cannot be linked (no /proc here?): using named ones in tmp/");
        }
    }
}

/// The receipt for a message that is in `new/` and durable. Only a commit makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    id: String,
}

impl Delivered {
    /// The unique part of the file name, that client, log and file can be matched by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The acknowledgement (RFC 5321 §4.2.5): with it the server has taken responsibility.
    pub fn reply(&self) -> Reply {
        reply::reply(250, reply::X(0, 0), "")
            .with_text(format!("Message accepted for delivery as {}", self.id))
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

/// So many Maildirs are remembered as swept; past it all are forgotten, which costs a few early sweeps.
const SWEPT_MAX: usize = 10_000;

#[cfg(test)]
mod tests;
