//! Mailboxes on disk: their existence, whether they can take mail now, and the folder of a subaddress.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, geteuid};

use super::names;
use crate::deliver::Owner;
use crate::smtp::reply::{self, Reply};
use crate::warnings::warn;

/// Maximum entries of a Maildir that are searched for a folder with another case.
const MAX_FOLDERS: usize = 4_096;

/// True if a directory exists. The result is not cached: a change takes effect at the next RCPT.
///
/// # Errors
/// 451 for local errors.
pub(super) fn exists(dir: &Path) -> Result<bool, Reply> {
    device(dir).map(|device| device.is_some())
}

/// The device of a directory, if it exists.
///
/// # Errors
/// 451 for local errors.
pub(super) fn device(dir: &Path) -> Result<Option<u64>, Reply> {
    match fs::metadata(dir) {
        Ok(meta) => Ok(meta.is_dir().then(|| meta.dev())),
        Err(e) if is_missing(&e) => Ok(None),
        Err(e) => {
            warn(&format!(
                "mailbox unknown call=\"stat\" path={dir:?} error={e}"
            ));
            Err(reply::MAILBOX_UNUSABLE)
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
    )
}

/// Checks that a Maildir or a folder can take a message, by what delivery will open. A missing one is fine, unless it is
/// to be created and cannot be.
///
/// # Errors
/// 550 for a name that is too long for its file system, else 451.
pub(super) fn check(dir: &Path, owner: Option<Owner>, creates: bool) -> Result<(), Reply> {
    let checked = match fs::symlink_metadata(dir) {
        Err(e) if e.kind() == ErrorKind::InvalidFilename => return Err(reply::NO_SUCH_USER),
        Err(e) if is_missing(&e) && creates => check_parent(dir, owner),
        Err(e) if is_missing(&e) => return Ok(()),
        Err(e) => Err(("stat", dir.to_path_buf(), e)),
        Ok(meta) => check_parts(dir, &meta, owner),
    };
    checked.map_err(|(call, path, error)| {
        warn(&format!(
            "mailbox cannot be used call=\"{call}\" path={path:?} error={error}"
        ));
        reply::MAILBOX_UNUSABLE
    })
}

/// A call that failed, on a path.
type FailedCall = (&'static str, PathBuf, io::Error);

/// Checks that a directory can be created: in the nearest one above it that exists.
fn check_parent(dir: &Path, owner: Option<Owner>) -> Result<(), FailedCall> {
    let mut above = dir.ancestors().skip(1);
    let Some(dir) = above.find(|dir| fs::symlink_metadata(dir).is_ok()) else {
        return Ok(());
    };
    let meta = fs::metadata(dir).map_err(|e| ("stat", dir.to_path_buf(), e))?;
    check_access(dir, &meta, owner, AccessFlags::W_OK | AccessFlags::X_OK)
}

/// Checks the directories of a Maildir. Symbolic links inside it are not followed.
fn check_parts(dir: &Path, meta: &Metadata, owner: Option<Owner>) -> Result<(), FailedCall> {
    let read = AccessFlags::R_OK | AccessFlags::X_OK;
    check_access(dir, meta, owner, read)?;
    let write = read | AccessFlags::W_OK;
    let mut apart = false;
    let mut device = None;
    for (name, flags) in [("tmp", write), ("new", write), ("cur", read)] {
        let part = dir.join(name);
        match fs::symlink_metadata(&part) {
            Ok(meta) => {
                check_access(&part, &meta, owner, flags)?;
                apart |= flags == write && *device.get_or_insert_with(|| meta.dev()) != meta.dev();
            }
            Err(e) if is_missing(&e) => check_access(dir, meta, owner, write)?,
            Err(e) => return Err(("stat", part, e)),
        }
    }
    // Messages cannot be moved between file systems, nor between mounts of one. Nothing moves here: `.` has no name to
    // change, but different mounts are an error that comes first.
    let tried = fs::rename(dir.join("tmp/."), dir.join("new/."));
    if apart || tried.is_err_and(|e| e.kind() == ErrorKind::CrossesDevices) {
        return Err(("rename", dir.join("new"), Errno::EXDEV.into()));
    }
    Ok(())
}

/// Checks that a path is a directory that delivery may use. In a directory of the mailbox's owner, delivery has only
/// the owner's rights.
fn check_access(
    path: &Path,
    meta: &Metadata,
    owner: Option<Owner>,
    flags: AccessFlags,
) -> Result<(), FailedCall> {
    let fault = |call, errno: Errno| Err((call, path.to_path_buf(), errno.into()));
    if !meta.is_dir() {
        return fault("open", Errno::ENOTDIR);
    }
    let is_owners = |owner: Owner| owner.uid != 0 && owner.uid == meta.uid();
    let bits = u32::try_from(flags.bits()).unwrap_or(0) << 6;
    if owner.is_some_and(is_owners) && geteuid().is_root() && meta.mode() & bits != bits {
        return fault("open", Errno::EACCES);
    }
    access(path, flags).or_else(|errno| fault("access", errno))
}

/// The folder of a subaddress: the one of that name, else the first that differs by case only.
pub(super) fn folder(maildir: &Path, detail: &str) -> Option<String> {
    let folder = names::folder(detail)?;
    let is_folder =
        |name: &str| fs::symlink_metadata(maildir.join(name)).is_ok_and(|meta| meta.is_dir());
    if is_folder(&folder) {
        return Some(folder);
    }
    // Modified UTF-7 is base64: letters of different case are different characters there.
    if folder.contains('&') {
        return None;
    }
    let same = |name: &OsStr| {
        let name = name.to_str()?;
        (name.eq_ignore_ascii_case(&folder) && is_folder(name)).then(|| name.to_owned())
    };
    let entries = fs::read_dir(maildir).ok()?.take(MAX_FOLDERS);
    entries
        .filter_map(|entry| same(&entry.ok()?.file_name()))
        .min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::Scratch;

    /// A Maildir is usable at every moment while another session creates it.
    #[test]
    fn a_maildir_is_usable_while_it_is_created() {
        let root = Scratch::new();
        let maildirs: Vec<_> = (0..2_000).map(|n| root.0.join(n.to_string())).collect();
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| maildirs.iter().try_for_each(fs::create_dir));
            for maildir in &maildirs {
                while !maildir.exists() {
                    assert!(check(maildir, None, true).is_ok());
                }
                assert!(check(maildir, None, true).is_ok());
            }
            maker.join().unwrap().unwrap();
        });
    }
}
