//! The system calls of deliveries, behind a trait: tests use a double that fails the n-th call. All work is relative to
//! open directories, and no call below follows a symbolic link in its last component except where it says so.
//! Interrupted calls are repeated here; other errors are returned as they are.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, linkat, unlinkat, write};

use super::target::Owner;

/// Flags to open a directory, and a file.
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);
const FILE: OFlag = OFlag::O_CLOEXEC.union(OFlag::O_NOFOLLOW);
/// The mode of a new file: read and write for its owner only.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// The file system operations of deliveries.
pub(crate) trait Disk: Send + Sync {
    /// Opens a directory by its whole path; only the last component must not be a link.
    fn open(&self, path: &Path) -> io::Result<OwnedFd>;
    /// Opens a directory in `dir`; with `follow` it may be a symbolic link.
    fn open_in(&self, dir: BorrowedFd<'_>, name: &OsStr, follow: bool) -> io::Result<OwnedFd>;
    /// Device and inode number of a path; a link in its last component is not followed.
    fn identity(&self, path: &Path) -> io::Result<FileId>;
    /// Device and inode number of an open directory.
    fn identity_of(&self, dir: BorrowedFd<'_>) -> io::Result<FileId>;
    /// Makes a directory of mode 0700.
    fn make_dir(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()>;
    /// The uid of a directory's owner, and its mode.
    fn owner_and_mode(&self, dir: BorrowedFd<'_>) -> io::Result<(u32, Mode)>;
    /// Gives a file or directory to a user and group.
    fn give(&self, file: BorrowedFd<'_>, to: Owner) -> io::Result<()>;
    /// Lets everybody traverse a directory that only its owner can list.
    fn make_traversable(&self, dir: BorrowedFd<'_>) -> io::Result<()>;
    /// Creates a file of mode 0600 that must not exist yet.
    fn create(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<File>;
    /// Opens a file to read, or with `append` to add at its end; never blocks on a FIFO.
    fn existing(&self, dir: BorrowedFd<'_>, name: &str, append: bool) -> io::Result<File>;
    /// Writes some of the octets.
    fn write(&self, file: &File, octets: &[u8]) -> io::Result<usize>;
    /// Makes a file's contents, or a directory's entries, durable.
    fn sync(&self, file: BorrowedFd<'_>) -> io::Result<()>;
    /// Asks the system to start writing a file's contents, so that syncs of several files overlap.
    fn start_sync(&self, _: BorrowedFd<'_>) {}
    /// Asks the system to write a whole file system, if it can.
    fn sync_all(&self, _: BorrowedFd<'_>) {}
    /// Gives a file another name.
    fn link(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()>;
    /// Moves a file to a name that must not exist yet.
    fn rename(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()>;
    /// Moves a file, replacing one of that name.
    fn replace(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()>;
    /// Calls `each` with the names in a directory except `.` and `..`, until it stops the listing.
    fn list(&self, dir: BorrowedFd<'_>, each: &mut dyn FnMut(&OsStr) -> bool) -> io::Result<()>;
}

/// The identity of a file or directory, unique on the machine while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    /// The device, as a number whose width differs between systems.
    pub(crate) device: nix::libc::dev_t,
    inode: nix::libc::ino_t,
}

impl From<FileStat> for FileId {
    fn from(found: FileStat) -> Self {
        Self {
            device: found.st_dev,
            inode: found.st_ino,
        }
    }
}

/// The file system itself.
pub(crate) struct Real;

impl Disk for Real {
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        again(|| openat(AT_FDCWD, path, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()))
    }

    fn open_in(&self, dir: BorrowedFd<'_>, name: &OsStr, follow: bool) -> io::Result<OwnedFd> {
        let links = if follow {
            OFlag::empty()
        } else {
            OFlag::O_NOFOLLOW
        };
        again(|| openat(dir, name, DIRECTORY | links, Mode::empty()))
    }

    fn identity(&self, path: &Path) -> io::Result<FileId> {
        Ok(fstatat(AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW)?.into())
    }

    fn identity_of(&self, dir: BorrowedFd<'_>) -> io::Result<FileId> {
        Ok(fstat(dir)?.into())
    }

    fn make_dir(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        again(|| mkdirat(dir, name, Mode::S_IRWXU))
    }

    fn owner_and_mode(&self, dir: BorrowedFd<'_>) -> io::Result<(u32, Mode)> {
        let found = fstat(dir)?;
        Ok((found.st_uid, Mode::from_bits_truncate(found.st_mode)))
    }

    fn give(&self, file: BorrowedFd<'_>, to: Owner) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
        again(|| fchown(file, Some(uid), Some(gid)))
    }

    fn make_traversable(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let mode = Mode::S_IRWXU | Mode::S_IXGRP | Mode::S_IXOTH;
        again(|| fchmod(dir, mode))
    }

    fn create(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<File> {
        let flags = FILE | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR;
        again(|| openat(dir, name, flags, PRIVATE)).map(File::from)
    }

    fn existing(&self, dir: BorrowedFd<'_>, name: &str, append: bool) -> io::Result<File> {
        let access = if append {
            OFlag::O_WRONLY | OFlag::O_APPEND
        } else {
            OFlag::O_RDONLY
        };
        let flags = FILE | OFlag::O_NONBLOCK | access;
        let file = File::from(again(|| openat(dir, name, flags, Mode::empty()))?);
        // With a second name it may be someone else's file.
        let found = file.metadata()?;
        if found.is_file() && found.nlink() == 1 {
            Ok(file)
        } else {
            Err(Errno::EINVAL.into())
        }
    }

    fn write(&self, file: &File, octets: &[u8]) -> io::Result<usize> {
        again(|| write(file, octets))
    }

    fn sync(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        again(|| fsync(file))
    }

    #[cfg(target_os = "linux")]
    fn start_sync(&self, file: BorrowedFd<'_>) {
        // Pages that are being written stay in memory: nothing is read again because of this.
        let _ = nix::fcntl::posix_fadvise(
            file,
            0,
            0,
            nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        );
    }

    #[cfg(target_os = "linux")]
    fn sync_all(&self, file: BorrowedFd<'_>) {
        // An error may be that of another program's file; promised data is synced separately.
        let _ = nix::unistd::syncfs(file);
    }

    fn link(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()> {
        again(|| linkat(from.0, from.1, to.0, to.1, AtFlags::empty()))
    }

    fn rename(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()> {
        // One call, if file system and C library support it.
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        match again(|| {
            let flags = nix::fcntl::RenameFlags::RENAME_NOREPLACE;
            nix::fcntl::renameat2(from.0, from.1, to.0, to.1, flags)
        }) {
            // A filter of system calls answers EPERM to those it does not know.
            Err(e) if errno(&e).is_some_and(|e| e == Errno::EINVAL || no_links(e)) => {}
            other => return other,
        }
        // link(2) never replaces a file.
        match self.link(from, to) {
            Ok(()) => {}
            // Without hard links: names are unique, and the check before the rename is for clocks that were set back.
            Err(e) if errno(&e).is_some_and(no_links) => {
                return match fstatat(to.0, to.1, AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Ok(_) => Err(Errno::EEXIST.into()),
                    Err(_) => self.replace(from, to),
                };
            }
            Err(e) => return Err(e),
        }
        // The message is in place: a second name left in tmp/ is swept later.
        let _ = self.unlink(from.0, OsStr::new(from.1));
        Ok(())
    }

    fn replace(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()> {
        again(|| renameat(from.0, from.1, to.0, to.1))
    }

    fn unlink(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        again(|| unlinkat(dir, name, UnlinkatFlags::NoRemoveDir))
    }

    fn list(&self, dir: BorrowedFd<'_>, each: &mut dyn FnMut(&OsStr) -> bool) -> io::Result<()> {
        // A new descriptor, because reading would move the position of the given one.
        let mut names = Dir::from_fd(openat(dir, ".", DIRECTORY, Mode::empty())?)?;
        for entry in names.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && !each(OsStr::from_bytes(name)) {
                break;
            }
        }
        Ok(())
    }
}

/// True if link(2) is not supported here.
pub(crate) fn no_links(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EPERM
            | Errno::EACCES
            | Errno::ENOSYS
            | Errno::EOPNOTSUPP
            | Errno::EMLINK
            | Errno::EIO
    )
}

/// Writes all octets, in as many calls as needed (F06).
pub(crate) fn write_all(disk: &dyn Disk, file: &File, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        match disk.write(file, octets)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                octets = octets.get(written..).ok_or(io::ErrorKind::InvalidData)?;
            }
        }
    }
    Ok(())
}

/// Copies a whole file from its start, in constant memory; with `text_from` the CRLFs from that octet on become LF.
pub(super) fn copy(
    disk: &dyn Disk,
    from: &File,
    to: &File,
    text_from: Option<u64>,
) -> io::Result<()> {
    each_piece(from, text_from, &mut |octets| write_all(disk, to, octets))
}

/// The size of such a copy.
pub(super) fn copied(from: &File, text_from: u64) -> io::Result<u64> {
    let mut size = 0;
    each_piece(from, Some(text_from), &mut |octets| {
        size += octets.len() as u64;
        Ok(())
    })?;
    Ok(size)
}

fn each_piece(
    from: &File,
    text_from: Option<u64>,
    each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 65_536];
    let mut text = Vec::new();
    let (mut offset, mut after_cr) = (0, false);
    loop {
        let read = match from.read_at(&mut buffer, offset) {
            Ok(0) if after_cr => return each(b"\r"),
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let read_octets = buffer.get(..read).ok_or(io::ErrorKind::InvalidData)?;
        let exact = text_from.map_or(u64::MAX, |from| from.saturating_sub(offset));
        let exact = usize::try_from(exact).unwrap_or(usize::MAX).min(read);
        let (head, tail) = read_octets.split_at(exact);
        each(head)?;
        text.clear();
        for &octet in tail {
            if after_cr && octet != b'\n' {
                text.push(b'\r');
            }
            after_cr = octet == b'\r';
            if !after_cr {
                text.push(octet);
            }
        }
        each(&text)?;
        offset += read as u64;
    }
}

/// The errno of an error, if it has one.
pub(crate) fn errno(e: &io::Error) -> Option<Errno> {
    e.raw_os_error().map(Errno::from_raw)
}

/// Repeats a call as long as a signal interrupts it.
fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result.map_err(Into::into),
        }
    }
}

/// The descriptor of a file or directory, borrowed.
pub(crate) fn fd(of: &impl AsFd) -> BorrowedFd<'_> {
    of.as_fd()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::faults::Scratch;
    use super::*;

    /// The doubles of other tests do not show this: errors of the system are passed on.
    #[test]
    fn errors_of_the_system_are_passed_on() {
        let scratch = Scratch::new();
        let dir = File::open(&scratch.0).unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let fails = |outcome: io::Result<()>, wanted| {
            assert_eq!(errno(&outcome.unwrap_err()), Some(wanted));
        };
        // A pipe cannot be synced, and its reading end cannot be written to.
        fails(Real.sync(fd(&writer)), Errno::EINVAL);
        let reader = File::from(reader);
        fails(Real.write(&reader, b"x").map(drop), Errno::EBADF);
        let (from, to) = ((fd(&dir), "a"), (fd(&dir), "b"));
        fails(Real.rename(from, to), Errno::ENOENT);
        fails(Real.replace(from, to), Errno::ENOENT);
        fails(Real.link(from, to), Errno::ENOENT);
        Real.create(fd(&dir), "a").unwrap();
        fails(Real.create(fd(&dir), "a").map(drop), Errno::EEXIST);
        Real.create(fd(&dir), "b").unwrap();
        fails(Real.rename(from, to), Errno::EEXIST);
        fails(Real.link(from, to), Errno::EEXIST);
    }
}
