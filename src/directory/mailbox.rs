//! Looks at mailboxes on disk: their existence, whether they can take mail now, and the folder of a subaddress.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::names;
use crate::smtp::reply::{self, Reply};

/// Maximum entries of a Maildir that are searched for a folder with another case.
const MAX_FOLDERS: usize = 4_096;

/// True if a directory exists. The result is not cached: a change takes effect at the next RCPT.
///
/// # Errors
/// 451 for local errors.
pub(super) fn exists(dir: &Path) -> Result<bool, Reply> {
    match fs::metadata(dir) {
        Ok(meta) => Ok(meta.is_dir()),
        Err(e) if is_missing(&e) => Ok(false),
        Err(e) => {
            log::warn!("mailbox unknown call=\"stat\" path={dir:?} error={e}");
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

/// Checks that a Maildir or a folder can take a message. A missing one may be created, but not in place of a file or a
/// dangling link.
pub(super) fn is_usable(dir: &Path) -> bool {
    // Look at the name before its target: otherwise a Maildir that another session creates between the two looks would
    // seem to be a dangling link.
    match fs::symlink_metadata(dir) {
        Err(e) => is_missing(&e),
        Ok(_) => {
            let is_dir = fs::metadata(dir).is_ok_and(|meta| meta.is_dir());
            is_dir && ["tmp", "new"].iter().all(|sub| is_open(&dir.join(sub)))
        }
    }
}

/// Checks that files can be created in a directory. Symbolic links inside a Maildir are not followed.
fn is_open(dir: &Path) -> bool {
    match fs::symlink_metadata(dir) {
        Ok(meta) => meta.is_dir() && access(dir, AccessFlags::W_OK | AccessFlags::X_OK).is_ok(),
        Err(e) => is_missing(&e),
    }
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
    fn a_maildir_that_is_just_being_made_is_usable() {
        let root = Scratch::new();
        let maildirs: Vec<_> = (0..2_000).map(|n| root.0.join(n.to_string())).collect();
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| maildirs.iter().try_for_each(fs::create_dir));
            for maildir in &maildirs {
                while !maildir.exists() {
                    assert!(is_usable(maildir));
                }
                assert!(is_usable(maildir));
            }
            maker.join().unwrap().unwrap();
        });
    }
}
