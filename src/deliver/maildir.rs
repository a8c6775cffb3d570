//! The directories of a Maildir: made where they are missing and durable once made. Symbolic
//! links inside a Maildir are not followed. Names and the order of a commit live above.

use super::Target;
use crate::smtp::reply::{self, Refusal};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The two directories that a delivery touches.
#[derive(Clone, Debug)]
pub(super) struct Dirs {
    pub(super) tmp: PathBuf,
    pub(super) new: PathBuf,
}

/// Looks the Maildir over and makes what it lacks.
pub(super) fn prepare(target: &Target) -> Result<Dirs, Refusal> {
    if !target.root.is_dir() {
        // A volume that is not mounted: no shadow tree is made in its place (F24).
        return Err(Refusal::local(reply::MAILBOX_AWAY));
    }
    let dirs = Dirs {
        tmp: target.maildir.join("tmp"),
        new: target.maildir.join("new"),
    };
    for dir in [&target.maildir.join("cur"), &dirs.new, &dirs.tmp] {
        ensure(dir, &target.root).map_err(|e| super::refusal(&e))?;
    }
    Ok(dirs)
}

/// One directory below `root`, and those above it. The parent of what was made is synced.
fn ensure(dir: &Path, root: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => return Err(ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let parent = dir.parent().unwrap_or(root);
    if parent != root && parent.starts_with(root) {
        ensure(parent, root)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => open_dir(if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        })?
        .sync_all(),
    }
}

/// A new file that only its owner reads; never through a symbolic link, never an old file.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// A directory, to sync it.
pub(super) fn open_dir(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_DIRECTORY.bits() | nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(path)
}

/// Age of a file in tmp/ above which no delivery can be behind it (maildir(5): 36 hours).
const STALE: Duration = Duration::from_secs(36 * 3_600);

/// Removes what dead deliveries left in tmp/. A reader or another sweep may be faster.
pub(super) fn sweep(tmp: &Path) {
    let Ok(entries) = std::fs::read_dir(tmp) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let age = meta.modified().ok().and_then(|m| m.elapsed().ok());
        if meta.is_file() && age.is_some_and(|age| age > STALE) {
            remove(&entry.path());
        }
    }
}

/// Takes a file away; one that is gone already is no news.
pub(super) fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        log::warn!("{}: cannot be removed: {error}", path.display());
    }
}
