//! A Maildir's directories and names (cr.yp.to/proto/maildir.html): opening them, and creating missing ones durably.
//! The path to a Maildir may have symbolic links, those of its owner being followed with the owner's rights (`owner`);
//! the Maildir itself and everything in it must be real directories.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;

use super::disk::{self, Disk, FileId, errno};
use super::group_sync::GroupSync;
use super::owner::{self, Walk};
use super::refusal::Trouble;
use super::syncs::Syncs;
use super::target::{Owner, Target};
use crate::smtp::reply;

/// The open directories for one recipient's message.
pub(super) struct OpenMaildir {
    /// The Maildir itself, even if the message goes to a folder: `maildirsize` is here.
    pub(super) base: OwnedFd,
    /// `tmp/` of the inbox or folder.
    pub(super) tmp: OwnedFd,
    /// `new/` of the inbox or folder.
    pub(super) new: OwnedFd,
    /// The identity of `new`.
    pub(super) identity: FileId,
    /// The path by which `new` was opened.
    pub(super) path: PathBuf,
    /// The owner of new files.
    pub(super) owner: Option<Owner>,
    /// False if this is the inbox because the folder is missing.
    pub(super) as_asked: bool,
    /// True if it is in the cache.
    pub(super) kept: AtomicBool,
    /// The shared syncs of `new`.
    pub(super) syncs: Arc<GroupSync>,
}

impl OpenMaildir {
    /// True if the path still leads to this directory: it was not moved, replaced or mounted over.
    pub(super) fn in_place(&self, disk: &dyn Disk) -> bool {
        disk.identity(&self.path)
            .is_ok_and(|found| found == self.identity)
    }

    /// Adds the call and the path of a file in `tmp/` to an error; the path is only built then.
    pub(super) fn in_tmp(
        &self,
        call: &'static str,
        name: &str,
    ) -> impl FnOnce(io::Error) -> Trouble {
        move |error| Trouble::at(call, self.path.with_file_name("tmp").join(name))(error)
    }
}

/// Opens a target's directories, creating missing ones if allowed. All are durable afterwards: parents are synced even
/// if nothing was created, because another process may have created them without syncing yet.
///
/// # Errors
/// 451 4.2.1 if the mail root or the Maildir is missing, 451 4.2.0 if it cannot be used, else by errno.
pub(super) fn open(disk: &dyn Disk, sync: &Syncs, target: &Target) -> Result<OpenMaildir, Trouble> {
    let maildir = &target.maildir;
    let owner = owner::receiver(target.owner);
    // The owner's rights last until all is open, so that new directories belong to the owner at once.
    let mut way = Walk::new(target.owner);
    let base = if target.may_create || target.owner.is_some() {
        walk(disk, sync, target, (owner, &mut way))?
    } else {
        match disk.open(maildir) {
            Err(e) if errno(&e) == Some(Errno::ENOENT) => return Err(Trouble::away(maildir)),
            other => other.map_err(Trouble::at("open", maildir))?,
        }
    };
    let folder = open_folder(disk, sync, target, &base)?;
    let (dir, path) = match (&folder, &target.folder) {
        (Some(open), Some(name)) => (open, maildir.join(name)),
        _ => (&base, maildir.clone()),
    };
    let part = |name: &str| {
        let (part, made) = ensure(disk, disk::fd(dir), name.as_ref(), false, &path)?;
        give(disk, &part, owner.filter(|_| made), &path)?;
        Ok(part)
    };
    let (tmp, new) = (part("tmp")?, part("new")?);
    // Delivery does not use cur/, but a Maildir needs it.
    part("cur")?;
    drop(way);
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
        owner,
        as_asked,
        kept: AtomicBool::new(false),
        syncs: sync.group(identity),
    })
}

/// Opens a target's folder in its Maildir, if it exists, and makes it durable, whoever created it.
fn open_folder(
    disk: &dyn Disk,
    sync: &Syncs,
    target: &Target,
    base: &OwnedFd,
) -> Result<Option<OwnedFd>, Trouble> {
    let Some(folder) = &target.folder else {
        return Ok(None);
    };
    let opened = match disk.open_in(disk::fd(base), OsStr::new(folder), false) {
        Err(e) if errno(&e) == Some(Errno::ENOENT) => return Ok(None),
        other => other.map_err(Trouble::at("open", target.maildir.join(folder)))?,
    };
    let synced = sync.parent(disk, disk::fd(base));
    synced.map_err(Trouble::at("fsync", &target.maildir))?;
    Ok(Some(opened))
}

/// Opens a Maildir by its path below the root, creating it and its parents if allowed. A new Maildir is given to
/// `owner`, and everybody may traverse its new parents.
fn walk(
    disk: &dyn Disk,
    sync: &Syncs,
    target: &Target,
    (owner, way): (Option<Owner>, &mut Walk),
) -> Result<OwnedFd, Trouble> {
    let mut dir = root(disk, target, way)?;
    let inner = target.maildir.strip_prefix(&target.root);
    let inner = inner.map_err(|_| Trouble::away(&target.maildir))?;
    let mut components = inner.components().peekable();
    let mut path = target.root.to_path_buf();
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else {
            return Err(Trouble::Rule {
                path: target.maildir.clone(),
                refusal: reply::MAILBOX_UNUSABLE,
            });
        };
        let is_last = components.peek().is_none();
        let follow = !is_last && way.follow;
        let inner = if target.may_create {
            let (inner, made) = ensure(disk, disk::fd(&dir), name, follow, &path)?;
            match owner.filter(|_| made) {
                Some(owner) if is_last => give(disk, &inner, Some(owner), &path)?,
                Some(_) if !way.is_owners() => {
                    let opened = disk.make_traversable(disk::fd(&inner));
                    opened.map_err(Trouble::at("fchmod", path.join(name)))?;
                }
                _ => {}
            }
            let synced = sync.parent(disk, disk::fd(&dir));
            synced.map_err(Trouble::at("fsync", &path))?;
            inner
        } else {
            enter(disk, target, (&dir, name, follow), &path)?
        };
        dir = inner;
        path.push(name);
        let passed = way.through(disk, &dir);
        passed.map_err(Trouble::at("fstat", &path))?;
    }
    Ok(dir)
}

/// Opens the root of a Maildir: for an account with an owner step by step, because a home may be in a directory of its
/// user.
fn root(disk: &dyn Disk, target: &Target, way: &mut Walk) -> Result<OwnedFd, Trouble> {
    let root = &target.root;
    let at = |path: &Path| disk.open_in(nix::fcntl::AT_FDCWD, path.as_os_str(), true);
    if target.owner.is_none() {
        return match at(root) {
            Err(e) if errno(&e) == Some(Errno::ENOENT) => Err(Trouble::away(&target.maildir)),
            other => other.map_err(Trouble::at("open", root)),
        };
    }
    let mut path = PathBuf::from(if root.is_absolute() { "/" } else { "." });
    let mut dir = at(&path).map_err(Trouble::at("open", &path))?;
    for component in root.components() {
        if matches!(component, Component::RootDir | Component::CurDir) {
            continue;
        }
        way.through(disk, &dir)
            .map_err(Trouble::at("fstat", &path))?;
        let name = component.as_os_str();
        dir = enter(disk, target, (&dir, name, way.follow), &path)?;
        path.push(name);
    }
    let passed = way.through(disk, &dir);
    passed.map_err(Trouble::at("fstat", &path))?;
    Ok(dir)
}

/// Opens an existing directory on the path.
fn enter(
    disk: &dyn Disk,
    target: &Target,
    (dir, name, follow): (&OwnedFd, &OsStr, bool),
    path: &Path,
) -> Result<OwnedFd, Trouble> {
    match disk.open_in(disk::fd(dir), name, follow) {
        Err(e) if errno(&e) == Some(Errno::ENOENT) => Err(Trouble::away(&target.maildir)),
        other => other.map_err(Trouble::at("open", path.join(name))),
    }
}

/// Gives a directory that was just created to its owner. If it belongs to someone else it was replaced.
fn give(disk: &dyn Disk, dir: &OwnedFd, owner: Option<Owner>, path: &Path) -> Result<(), Trouble> {
    let Some(owner) = owner else { return Ok(()) };
    let found = disk.owner_and_mode(disk::fd(dir));
    let (uid, _) = found.map_err(Trouble::at("fstat", path))?;
    if !owner::is_own(uid) {
        return Ok(());
    }
    let given = disk.give(disk::fd(dir), owner);
    given.map_err(Trouble::at("fchown", path))
}

/// Opens a directory in another one, creating it if it is missing, and returns true if it did. The parent must be
/// synced afterwards.
fn ensure(
    disk: &dyn Disk,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    follow: bool,
    parent: &Path,
) -> Result<(OwnedFd, bool), Trouble> {
    let open = || disk.open_in(dir, name, follow);
    match open() {
        Err(e) if errno(&e) == Some(Errno::ENOENT) => {}
        other => {
            let opened = other.map_err(Trouble::at("open", parent.join(name)))?;
            return Ok((opened, false));
        }
    }
    let made = disk.make_dir(dir, name);
    match made {
        Err(e) if errno(&e) != Some(Errno::EEXIST) => {
            Err(Trouble::at("mkdir", parent.join(name))(e))
        }
        _ => {
            // A link that the owner has put here meanwhile is not followed.
            let opened = disk.open_in(dir, name, follow && made.is_err());
            let opened = opened.map_err(Trouble::at("open", parent.join(name)))?;
            Ok((opened, made.is_ok()))
        }
    }
}

/// Escapes a host name for a Maildir file name: `/` and `:` as octal escapes, as the Maildir page asks, and with them
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
