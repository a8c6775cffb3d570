//! The queue's directories and envelope files, made durable: a file is written and synced under another name, renamed,
//! and its directory is synced before anything relies on it. The calls go through the `Disk` of `deliver`, so that the
//! crash model covers them.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, fchmod, fstat};

use crate::deliver::{Disk, FileId, GroupSync, Syncs, errno, fd, no_links, write_all};

/// The suffix of an envelope that is being written.
pub(super) const HALF: &str = ".half";

/// The directory of the messages.
pub(super) const MESSAGES: &str = "new";
/// The other directories of a Maildir, as deliveries expect them.
const OTHERS: [&str; 2] = ["tmp", "cur"];
/// The file that the process has locked.
pub(super) const LOCK: &str = "lock";
/// The socket of `--queue-run`.
pub const CONTROL: &str = "control";
/// The directory in which earlier versions kept envelopes.
pub(super) const OLD_ENVELOPES: &str = "envelope";
/// The queue's own names: a directory with any other file, such as `/tmp`, keeps its mode.
const OWN: [&str; 6] = [MESSAGES, OTHERS[0], OTHERS[1], LOCK, CONTROL, OLD_ENVELOPES];

/// The directory of the messages.
pub(super) struct Folder {
    disk: Box<dyn Disk>,
    syncs: Arc<Syncs>,
    messages: OwnedFd,
    path: PathBuf,
    identity: FileId,
    /// Shares syncs of the directory among all that change it, deliveries of contents included.
    group: Arc<GroupSync>,
}

impl Folder {
    /// Makes missing directories of the queue, durably.
    ///
    /// # Errors
    /// An error of the disk.
    pub(super) fn open(dir: &Path, syncs: Arc<Syncs>, disk: Box<dyn Disk>) -> io::Result<Self> {
        let queue = open_or_make(disk.as_ref(), &syncs, dir)?;
        populate(disk.as_ref(), &syncs, &queue)?;
        let is_own = |name: &OsStr| OWN.iter().any(|own| name == *own);
        let mut shared = false;
        disk.list(fd(&queue), &mut |name| {
            shared = !is_own(name);
            !shared
        })?;
        if !shared {
            make_private(&queue, dir);
        }
        // Another process may have made the queue without syncing its name yet.
        if let Ok(parent) = disk.open_in(AT_FDCWD, parent(dir).as_os_str(), true) {
            syncs.parent(disk.as_ref(), fd(&parent))?;
        }
        for name in OTHERS {
            let other = disk.open_in(fd(&queue), OsStr::new(name), true)?;
            make_private(&other, &dir.join(name));
        }
        let path = dir.join(MESSAGES);
        let messages = disk.open_in(fd(&queue), OsStr::new(MESSAGES), true)?;
        make_private(&messages, &path);
        let identity = disk.identity_of(fd(&messages))?;
        let group = syncs.group(identity);
        Ok(Self {
            disk,
            syncs,
            messages,
            path,
            identity,
            group,
        })
    }

    /// Checks that the path still leads to this directory. Contents are committed by their path, and one without an
    /// envelope beside it is lost.
    ///
    /// # Errors
    /// It was moved, replaced or mounted over, or cannot be found.
    pub(super) fn in_place(&self) -> io::Result<()> {
        let path = self.path.display();
        match self.disk.identity(&self.path) {
            Ok(found) if found == self.identity => Ok(()),
            Ok(_) => Err(io::Error::other(format!(
                "{path} was replaced; start again"
            ))),
            Err(e) => Err(io::Error::new(e.kind(), format!("{path}: {e}"))),
        }
    }

    /// Writes a new file. Its contents are durable; its name only after [`Self::durably`].
    ///
    /// # Errors
    /// An error of the disk; the file is removed.
    pub(super) fn create(&self, name: &str, text: &str) -> io::Result<()> {
        let (disk, dir) = (self.disk.as_ref(), fd(&self.messages));
        let file = disk.create(dir, name)?;
        let written = write_all(disk, &file, text.as_bytes());
        let synced = written.and_then(|()| self.syncs.file(disk, fd(&file)));
        if synced.is_err() {
            let _ = self.remove(name);
        }
        synced
    }

    /// Writes a file atomically, replacing one of that name. After a failure either the old or the new file is there.
    /// The contents are durable, the name only after [`Self::durably`].
    ///
    /// # Errors
    /// An error of the disk.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let half = [name, HALF].concat();
        let (disk, dir) = (self.disk.as_ref(), fd(&self.messages));
        let created = match self.create(&half, text) {
            // A failure left one.
            Err(e) if is(&e, |errno| errno == Errno::EEXIST) => {
                self.remove(&half)?;
                self.create(&half, text)
            }
            other => other,
        };
        let replaced = created.and_then(|()| disk.replace((dir, &half), (dir, name)));
        if replaced.is_err() {
            let _ = self.remove(&half);
        }
        replaced
    }

    /// Replaces a file durably. Without a journal a disk may free the old file while the name still leads to it, so the
    /// old file keeps another name until the new one is durable. A start removes leftovers.
    ///
    /// # Errors
    /// An error of the disk.
    pub(super) fn replace(&self, name: &str, text: &str) -> io::Result<()> {
        let old = [name, ".old", HALF].concat();
        let dir = fd(&self.messages);
        let link = || self.disk.link((dir, name), (dir, &old));
        // A file system without links fails each time, even with EIO; an error of the disk may be temporary.
        match link().or_else(|_| link()) {
            // A failure left one.
            Err(e) if !is(&e, |errno| errno == Errno::EEXIST || no_links(errno)) => return Err(e),
            _ => {}
        }
        self.durably(|| self.write(name, text))?;
        let _ = self.remove(&old);
        Ok(())
    }

    /// Gives a file of another directory a name here; to be called within [`Self::durably`]. True if the file keeps its
    /// old name, which must stay until the new one is durable.
    ///
    /// # Errors
    /// An error of the disk.
    pub(super) fn adopt(&self, from: &OwnedFd, name: &str) -> io::Result<bool> {
        let (from, to) = ((fd(from), name), (fd(&self.messages), name));
        match self.disk.link(from, to) {
            Err(e) if is(&e, no_links) => self.disk.replace(from, to).map(|()| false),
            Err(e) if !is(&e, |errno| errno == Errno::EEXIST) => Err(e),
            _ => Ok(true),
        }
    }

    /// Makes changed names durable.
    ///
    /// # Errors
    /// An error of the change, or of a sync since it began.
    pub(super) fn durably(&self, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let ticket = self.group.ticket();
        change()?;
        let (disk, dir) = (self.disk.as_ref(), fd(&self.messages));
        self.group.sync(ticket, || self.syncs.directory(disk, dir))
    }

    /// Removes a file. This is not synced: a start recognises leftovers.
    ///
    /// # Errors
    /// An error of the disk.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.unlink(fd(&self.messages), OsStr::new(name))
    }
}

fn is(e: &io::Error, kind: impl Fn(Errno) -> bool) -> bool {
    errno(e).is_some_and(kind)
}

/// Removes the rights of others from an existing directory.
fn make_private(dir: &OwnedFd, path: &Path) {
    let others = Mode::S_IRWXG | Mode::S_IRWXO;
    let mode = fstat(dir).map(|found| Mode::from_bits_truncate(found.st_mode));
    if mode.is_ok_and(|mode| mode.intersects(others))
        && let Err(e) = fchmod(dir, Mode::S_IRWXU)
    {
        log::warn!("--queue: others may access {}: {e}", path.display());
    }
}

/// Creates what is missing in the directory of a queue, and syncs it.
fn populate(disk: &dyn Disk, syncs: &Syncs, queue: &OwnedFd) -> io::Result<()> {
    let mut is_new = false;
    for name in OTHERS.iter().chain([&MESSAGES]) {
        match disk.make_dir(fd(queue), OsStr::new(name)) {
            Err(e) if errno(&e) != Some(Errno::EEXIST) => return Err(e),
            made => is_new |= made.is_ok(),
        }
    }
    // It must be durable before any mail, because without it a start does not take the directory for a queue.
    match disk.create(fd(queue), LOCK) {
        Err(e) if errno(&e) != Some(Errno::EEXIST) => return Err(e),
        Err(_) => {}
        Ok(file) => syncs.file(disk, fd(&file))?,
    }
    syncs.parent(disk, fd(queue))?;
    if is_new {
        // Without a journal, fsync(2) on ext4 does not write that a group of inodes is in use, and e2fsck may move a
        // directory in it to lost+found.
        syncs.all(disk, fd(queue));
    }
    Ok(())
}

/// Opens a directory. Makes it and its parents if they are missing, and syncs each new name.
fn open_or_make(disk: &dyn Disk, syncs: &Syncs, path: &Path) -> io::Result<OwnedFd> {
    let open = || disk.open_in(AT_FDCWD, path.as_os_str(), true);
    match open() {
        Err(e) if errno(&e) == Some(Errno::ENOENT) => {}
        other => return other,
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let above = open_or_make(disk, syncs, parent(path))?;
    match disk.make_dir(fd(&above), name) {
        Err(e) if errno(&e) != Some(Errno::EEXIST) => return Err(e),
        _ => {}
    }
    syncs.parent(disk, fd(&above))?;
    open()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}
