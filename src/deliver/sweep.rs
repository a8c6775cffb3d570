//! Removes old files of interrupted deliveries from the `tmp/` of the inbox and of each Maildir++ folder. It uses open
//! directories and follows no links, so that nobody can lead it elsewhere. The work of one call is bounded; the next
//! one does the rest.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::fcntl::AtFlags;
use nix::sys::stat::{SFlag, fstatat};

use super::disk::{self, Disk};

/// The age at which the Maildir page allows a file in `tmp/` to be removed.
const AGE: Duration = Duration::from_secs(36 * 60 * 60);

/// Maximum files removed by one call.
const REMOVED: usize = 1_000;

/// Maximum names examined in all directories.
const LOOKED_AT: usize = 20_000;

/// Maximum folders.
const FOLDERS: usize = 1_000;

/// Removes the files in each `tmp/` of a Maildir that were last written more than 36 hours ago. Errors end it silently:
/// it is housekeeping, and runs again within the hour.
pub(super) fn sweep(disk: &dyn Disk, maildir: &Path, base: &OwnedFd, now: SystemTime) {
    let mut left = Remaining {
        looked_at: LOOKED_AT,
        removed: REMOVED,
    };
    left.sweep_tmp(disk, maildir, base, now);
    let mut folders = Vec::new();
    let _ = disk.list(disk::fd(base), &mut |name| {
        left.looked_at = left.looked_at.saturating_sub(1);
        if name.as_bytes().first() == Some(&b'.') {
            folders.push(name.to_owned());
        }
        folders.len() < FOLDERS && left.looked_at > 0
    });
    for name in folders {
        if let Ok(folder) = disk.open_in(disk::fd(base), &name, false) {
            left.sweep_tmp(disk, &maildir.join(&name), &folder, now);
        }
    }
}

/// The remaining work.
struct Remaining {
    looked_at: usize,
    removed: usize,
}

impl Remaining {
    fn sweep_tmp(&mut self, disk: &dyn Disk, path: &Path, dir: &OwnedFd, now: SystemTime) {
        let Ok(tmp) = disk.open_in(disk::fd(dir), "tmp".as_ref(), false) else {
            return;
        };
        let mut old: Vec<OsString> = Vec::new();
        let _ = disk.list(disk::fd(&tmp), &mut |name| {
            self.looked_at = self.looked_at.saturating_sub(1);
            if self.removed > 0 && is_old(&tmp, name, now) {
                self.removed -= 1;
                old.push(name.to_owned());
            }
            self.removed > 0 && self.looked_at > 0
        });
        for name in old {
            log::info!("sweep path={path:?} file={name:?}");
            let _ = disk.unlink(disk::fd(&tmp), &name);
        }
    }
}

/// True if a file in `tmp/` is older than any delivery.
fn is_old(tmp: &OwnedFd, name: &OsStr, now: SystemTime) -> bool {
    let Ok(found) = fstatat(tmp, name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
        return false;
    };
    let is_dir = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    let changed = Duration::from_secs(u64::try_from(found.st_mtime).unwrap_or(0));
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    !is_dir && since.is_ok_and(|now| now.saturating_sub(changed) > AGE)
}
