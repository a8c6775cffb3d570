//! A Maildir's directories and names (cr.yp.to/proto/maildir.html): opening them, making the missing ones durably,
//! and sweeping what an interrupted delivery left in `tmp/`. The way to a Maildir may go through the operator's
//! symbolic links; the Maildir itself and everything in it must be real directories.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use super::disk::{self, Disk, Identity, errno};
use super::group_sync::GroupSync;
use super::refusal::Trouble;
use super::syncs::Syncs;
use super::target::Target;
use crate::smtp::reply::{self, Refusal};

/// The age at which the Maildir page allows a file in `tmp/` to be removed.
const TMP_AGE: Duration = Duration::from_secs(36 * 60 * 60);

/// Maximum old files removed at once: memory stays bounded and the caller's delay short.
const SWEPT_AT_ONCE: usize = 1000;

/// The open directories of the place where one recipient's message goes.
pub(super) struct OpenMaildir {
    /// The Maildir itself, also where the message goes to one of its folders: `maildirsize` lives here.
    pub(super) base: OwnedFd,
    /// `tmp/` of the inbox or folder.
    pub(super) tmp: OwnedFd,
    /// `new/` of the inbox or folder.
    pub(super) new: OwnedFd,
    /// Which directory `new` is.
    pub(super) identity: Identity,
    /// The path of `new` that it was opened by.
    pub(super) path: PathBuf,
    /// Whether it is the place that was asked for, and not the inbox for want of the folder.
    pub(super) as_asked: bool,
    /// Whether it is among those that are kept open.
    pub(super) kept: AtomicBool,
    /// The syncs of `new`, one for all sessions that want one.
    pub(super) syncs: Arc<GroupSync>,
}

impl OpenMaildir {
    /// Whether a reader who goes by the path comes to this directory: it was not moved, replaced or covered by a mount.
    pub(super) fn in_place(&self, disk: &dyn Disk) -> bool {
        disk.identity(&self.path)
            .is_ok_and(|found| found == self.identity)
    }

    /// The path of a file in `tmp/`.
    pub(super) fn tmp_path(&self, name: &str) -> PathBuf {
        let mut path = self.path.with_file_name("tmp");
        path.push(name);
        path
    }
}

/// Opens a target's directories; those that are missing and may be made are made. All of them are durable then: their
/// parents are synced also where they were found, because whoever made them may not have come to that yet.
///
/// # Errors
/// 451 4.2.1 where the mail root or the Maildir is missing, 451 4.2.0 where it cannot be used, else by its errno.
pub(super) fn open(disk: &dyn Disk, sync: &Syncs, target: &Target) -> Result<OpenMaildir, Trouble> {
    let maildir = &target.maildir;
    let base = if target.may_create {
        walk(disk, sync, target)?
    } else {
        match disk.open(maildir) {
            Err(e) if errno(&e) == Some(Errno::ENOENT) => return Err(Trouble::away(maildir)),
            other => other.map_err(Trouble::at("open", maildir))?,
        }
    };
    let folder = match &target.folder {
        Some(folder) => match disk.open_in(disk::fd(&base), OsStr::new(folder), false) {
            Err(e) if errno(&e) == Some(Errno::ENOENT) => None,
            other => Some(other.map_err(Trouble::at("open", maildir.join(folder)))?),
        },
        None => None,
    };
    let (dir, path) = match (&folder, &target.folder) {
        (Some(open), Some(name)) => (open, maildir.join(name)),
        _ => (&base, maildir.clone()),
    };
    let part = |name: &str| ensure(disk, disk::fd(dir), name.as_ref(), false, &path);
    let (tmp, new) = (part("tmp")?, part("new")?);
    // Delivery never goes to cur/, but without it it isn't a Maildir.
    part("cur")?;
    let synced = sync.parent(disk, disk::fd(dir));
    synced.map_err(Trouble::at("fsync", &path))?;
    let path = path.join("new");
    let identity = disk.identity_of(disk::fd(&new));
    let identity = identity.map_err(Trouble::at("fstat", &path))?;
    let as_asked = folder.is_some() == target.folder.is_some();
    Ok(OpenMaildir {
        base,
        tmp,
        new,
        identity,
        path,
        as_asked,
        kept: AtomicBool::new(false),
        syncs: sync.group(identity),
    })
}

/// Opens a Maildir by its path below the root; it and its parents are made where they are missing.
fn walk(disk: &dyn Disk, sync: &Syncs, target: &Target) -> Result<OwnedFd, Trouble> {
    let away = || Trouble::away(&target.maildir);
    let root = disk.open_in(nix::fcntl::AT_FDCWD, target.root.as_os_str(), true);
    let mut dir = match root {
        Err(e) if errno(&e) == Some(Errno::ENOENT) => return Err(away()),
        other => other.map_err(Trouble::at("open", &target.root))?,
    };
    let inner = target.maildir.strip_prefix(&target.root);
    let mut components = inner.map_err(|_| away())?.components().peekable();
    let mut path = target.root.to_path_buf();
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else {
            return Err(Trouble::Rule {
                path: target.maildir.clone(),
                refusal: Refusal::local(reply::MAILBOX_UNUSABLE),
            });
        };
        let inner = ensure(
            disk,
            disk::fd(&dir),
            name,
            components.peek().is_some(),
            &path,
        )?;
        let synced = sync.parent(disk, disk::fd(&dir));
        synced.map_err(Trouble::at("fsync", &path))?;
        dir = inner;
        path.push(name);
    }
    Ok(dir)
}

/// Opens a directory in another one; makes it where it is missing. The other one must be synced afterwards.
fn ensure(
    disk: &dyn Disk,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    follow: bool,
    parent: &Path,
) -> Result<OwnedFd, Trouble> {
    let open = || disk.open_in(dir, name, follow);
    match open() {
        Err(e) if errno(&e) == Some(Errno::ENOENT) => {}
        other => return other.map_err(Trouble::at("open", parent.join(name))),
    }
    match disk.make_dir(dir, name) {
        Err(e) if errno(&e) != Some(Errno::EEXIST) => {
            Err(Trouble::at("mkdir", parent.join(name))(e))
        }
        _ => open().map_err(Trouble::at("open", parent.join(name))),
    }
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
