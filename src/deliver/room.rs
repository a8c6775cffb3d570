//! Free space by `statvfs`, cached for a moment so that MAIL needs no system call.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::refusal::Trouble;
use crate::lock::lock;
use crate::smtp::reply::{self, Reply};

/// How long the free space is cached.
const KNOWN: Duration = Duration::from_secs(1);

/// The free space as last seen, valid for a second if a message needs less than half of it.
#[derive(Default)]
pub struct Room {
    last: Mutex<Option<Seen>>,
    /// True once an error was logged.
    warned: AtomicBool,
}

struct Seen {
    at: Instant,
    /// Octets.
    free: u64,
}

impl Room {
    /// Checks that the file system of `path`, or of its nearest existing parent, has room for `octets` and one more
    /// file. `path` must be the same in all calls. Where the system does not tell, there is room: a mailbox need not be
    /// below `path`, and the delivery finds out.
    ///
    /// # Errors
    /// 452 4.3.1 if it has not.
    pub fn check(&self, path: &Path, octets: u64) -> Result<(), Reply> {
        let known = |seen: &Seen| seen.at.elapsed() < KNOWN && octets < seen.free / 2;
        if lock(&self.last).as_ref().is_some_and(known) {
            return Ok(());
        }
        let free = free(path).unwrap_or_else(|trouble| {
            if !self.warned.swap(true, Ordering::Relaxed) {
                log::warn!("free space unknown {trouble}");
            }
            u64::MAX
        });
        let at = Instant::now();
        *lock(&self.last) = Some(Seen { at, free });
        enough(free, octets)
    }
}

/// Checks the room for `octets` at a mailbox, which may be on a file system of its own.
///
/// # Errors
/// 452 4.3.1 if there is none.
pub(super) fn at_mailbox(maildir: &Path, octets: u64) -> Result<(), Reply> {
    enough(free(maildir).unwrap_or(u64::MAX), octets)
}

fn enough(free: u64, octets: u64) -> Result<(), Reply> {
    match octets > free || free == 0 {
        true => Err(reply::DISK_FULL),
        false => Ok(()),
    }
}

/// The octets that are free on the file system of `path` or of its nearest existing parent; 0 if no more files can be
/// created.
fn free(path: &Path) -> Result<u64, Trouble> {
    let mut path = path;
    let found = loop {
        match statvfs(if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        }) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => match path.parent() {
                Some(parent) => path = parent,
                None => return Err(unknown(path, Errno::ENOENT)),
            },
            other => break other.map_err(|errno| unknown(path, errno))?,
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
    // ramfs and some others state 0 of 0 blocks, which means nothing. On a read-only one, which may have no free block
    // at all, mailboxes can only be mounts.
    if found.blocks() == 0 || found.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(u64::MAX);
    }
    // Some file systems don't count inodes and state 0 of 0.
    if files > 0 && left == 0 {
        return Ok(0);
    }
    Ok(blocks.saturating_mul(size))
}

fn unknown(path: &Path, errno: Errno) -> Trouble {
    Trouble::at("statvfs", path)(errno.into())
}
