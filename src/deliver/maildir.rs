//! A Maildir's directories and names (cr.yp.to/proto/maildir.html): opening them, making the missing ones durably,
//! and sweeping what an interrupted delivery left in `tmp/`. The way to a Maildir may go through the operator's
//! symbolic links; the Maildir itself and everything in it must be real directories.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use super::disk::{self, Disk, Identity, errno};
use super::group_sync::GroupSync;
use super::refusal::refusal;
use super::target::{Sync, Target};
use crate::smtp::reply::{self, Refusal};

/// The age at which the Maildir page allows a file in `tmp/` to be removed.
const TMP_AGE: Duration = Duration::from_secs(36 * 60 * 60);

/// So many old files are removed in one go, that memory stays bounded and the caller's delay short.
const SWEPT_AT_ONCE: usize = 1000;

/// The open directories of the place where one recipient's message goes.
pub(super) struct OpenMaildir {
    /// The Maildir itself, also where the message goes to one of its folders: `maildirsize` lives here.
    pub(super) base: OwnedFd,
    /// `new/` of the inbox or folder. The unnamed file of a message is made here too: it is the same file system.
    pub(super) new: OwnedFd,
    /// Which directory `new` is.
    pub(super) identity: Identity,
    /// The path it was opened by.
    path: PathBuf,
    /// Whether it is the place that was asked for, and not the inbox for want of the folder.
    pub(super) as_asked: bool,
    /// Whether it is among those that are kept open.
    pub(super) kept: AtomicBool,
    /// The syncs of `new`, one for all sessions that want one.
    pub(super) syncs: GroupSync,
}

impl OpenMaildir {
    /// `tmp/`, made where it is missing. Only messages with a named file or a copy need it.
    pub(super) fn tmp(&self, disk: &dyn Disk, sync: Sync) -> Result<OwnedFd, Refusal> {
        let inbox = disk.open_in(disk::fd(&self.new), "..".as_ref(), false);
        let inbox = inbox.map_err(|e| refusal(&e))?;
        ensure(disk, sync, disk::fd(&inbox), "tmp".as_ref(), false)
    }

    /// Whether a reader who goes by the path comes to this directory: it was not moved, replaced or covered by a mount.
    pub(super) fn in_place(&self, disk: &dyn Disk) -> bool {
        disk.identity(&self.path)
            .is_ok_and(|found| found == self.identity)
    }
}

/// Opens a target's directories; those that are missing and may be made are made, their parents synced.
///
/// # Errors
/// 451 4.2.1 where the mail root is missing, 451 4.2.0 where the Maildir is or can't be used, else by [`refusal`].
pub(super) fn open(disk: &dyn Disk, sync: Sync, target: &Target) -> Result<OpenMaildir, Refusal> {
    let base = match disk.open(&target.maildir) {
        Err(e) if errno(&e) == Some(Errno::ENOENT) => make(disk, sync, target)?,
        other => other.map_err(|e| refusal(&e))?,
    };
    let folder = match &target.folder {
        Some(folder) => match disk.open_in(disk::fd(&base), OsStr::new(folder), false) {
            Err(e) if errno(&e) == Some(Errno::ENOENT) => None,
            other => Some(other.map_err(|e| refusal(&e))?),
        },
        None => None,
    };
    let (dir, path) = match (&folder, &target.folder) {
        (Some(open), Some(name)) => (open, target.maildir.join(name).join("new")),
        _ => (&base, target.maildir.join("new")),
    };
    let new = ensure(disk, sync, disk::fd(dir), "new".as_ref(), false)?;
    // Delivery seldom goes to tmp/ and never to cur/, but without them it isn't a Maildir.
    for part in ["tmp", "cur"] {
        if !disk
            .is_dir(disk::fd(dir), part.as_ref())
            .map_err(|e| refusal(&e))?
        {
            ensure(disk, sync, disk::fd(dir), part.as_ref(), false)?;
        }
    }
    let identity = disk.identity_of(disk::fd(&new)).map_err(|e| refusal(&e))?;
    let as_asked = folder.is_some() == target.folder.is_some();
    Ok(OpenMaildir {
        base,
        new,
        identity,
        path,
        as_asked,
        kept: AtomicBool::new(false),
        syncs: GroupSync::default(),
    })
}

/// Makes a missing Maildir and its parents below the root.
fn make(disk: &dyn Disk, sync: Sync, target: &Target) -> Result<OwnedFd, Refusal> {
    let away = || Refusal::local(reply::MAILBOX_AWAY);
    let mut dir = match disk.open_in(nix::fcntl::AT_FDCWD, target.root.as_os_str(), true) {
        Err(e) if errno(&e) == Some(Errno::ENOENT) => return Err(away()),
        other => other.map_err(|e| refusal(&e))?,
    };
    let inner = target
        .maildir
        .strip_prefix(&target.root)
        .map_err(|_| away())?;
    if !target.may_create {
        return Err(Refusal::local(reply::MAILBOX_UNUSABLE));
    }
    let mut components = inner.components().peekable();
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else {
            return Err(Refusal::local(reply::MAILBOX_UNUSABLE));
        };
        dir = ensure(
            disk,
            sync,
            disk::fd(&dir),
            name,
            components.peek().is_some(),
        )?;
    }
    Ok(dir)
}

/// Opens a directory in another one; makes it where it is missing.
fn ensure(
    disk: &dyn Disk,
    sync: Sync,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    follow: bool,
) -> Result<OwnedFd, Refusal> {
    match disk.open_in(dir, name, follow) {
        Err(e) if errno(&e) == Some(Errno::ENOENT) => {}
        other => return other.map_err(|e| refusal(&e)),
    }
    match disk.make_dir(dir, name) {
        Err(e) if errno(&e) != Some(Errno::EEXIST) => return Err(refusal(&e)),
        // Also where another thread was quicker: its sync may still be to come, and the 250 must not precede it.
        _ => {}
    }
    if sync == Sync::Full {
        disk.sync(dir).map_err(|e| refusal(&e))?;
    }
    disk.open_in(dir, name, follow).map_err(|e| refusal(&e))
}

/// Spells a host name for a Maildir file name: `/` and `:` as octal escapes, as the Maildir page asks, and with them
/// `,` (which starts the size), blanks and control characters. Cut to 128 octets: a file name has 255.
pub(super) fn escape_host(host: &str) -> String {
    let mut name = String::with_capacity(host.len());
    for octet in host.bytes().take(128) {
        match octet {
            b'/' | b':' | b',' | b'\\' | 0..=b' ' | 127.. => {
                name.push_str(&format!("\\{octet:03o}"))
            }
            _ => name.push(char::from(octet)),
        }
        if name.len() >= 128 {
            break;
        }
    }
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

/// Removes the files in a Maildir's `tmp/` that were last written more than 36 hours ago. Errors end it quietly:
/// it's housekeeping, and the next one comes within the hour.
pub(super) fn sweep(disk: &dyn Disk, maildir: &Path, now: SystemTime) {
    let Ok(base) = disk.open(maildir) else { return };
    let Ok(tmp) = disk.open_in(disk::fd(&base), "tmp".as_ref(), false) else {
        return;
    };
    let mut old = Vec::new();
    let _ = disk.list(disk::fd(&tmp), &mut |name| {
        if old.len() < SWEPT_AT_ONCE && is_old(&tmp, name, now) {
            old.push(name.to_owned());
        }
    });
    for name in old {
        log::info!("sweep path={maildir:?} file={name:?}");
        let _ = disk.unlink(disk::fd(&tmp), &name);
    }
}

/// Whether a file in `tmp/` is older than a delivery can take.
fn is_old(tmp: &OwnedFd, name: &OsStr, now: SystemTime) -> bool {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    let Ok(found) = nix::sys::stat::fstatat(tmp, name, flags) else {
        return false;
    };
    let changed = Duration::from_secs(u64::try_from(found.st_mtime).unwrap_or(0));
    now.duration_since(SystemTime::UNIX_EPOCH)
        .is_ok_and(|now| now.saturating_sub(changed) > TMP_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F29
    #[test]
    fn host_names_are_escaped() {
        assert_eq!(escape_host("mx.example.org"), "mx.example.org");
        assert_eq!(escape_host("a/b:c,d e"), "a\\057b\\072c\\054d\\040e");
        assert_eq!(escape_host(""), "localhost");
        assert!(escape_host(&"x".repeat(300)).len() <= 132);
        assert!(escape_host(&"/".repeat(300)).len() <= 132);
    }
}
