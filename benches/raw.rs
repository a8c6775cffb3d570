//! The raw limit: threads that only do what durability needs, for the same messages on the same disk. Servers are
//! compared with the simplest way, [`Way::Std`]: create in tmp, write, sync the file, rename into new, sync new. WAYS=1
//! compares it with the other ways.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use mailslot::deliver::GroupSync;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::linkat;

use crate::load::{Load, Sample, measure};
use crate::message::Template;

/// A way to make a message durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Std,
    /// An unnamed file (O_TMPFILE), linked into new.
    Unnamed,
    /// The plain way, but one sync of new serves all threads that wait for one: mailslot's.
    Shared,
    /// An unnamed file, and shared syncs of new.
    UnnamedShared,
    /// The same with shared syncs of the whole file system in the place of one sync a file. It waits for what other
    /// programs have written, too.
    Syncfs,
}

impl Way {
    pub(crate) const ALL: [Self; 5] = [
        Self::Std,
        Self::Unnamed,
        Self::Shared,
        Self::UnnamedShared,
        Self::Syncfs,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Std => "std: fsync, rename, fsync of new",
            Self::Unnamed => "O_TMPFILE, fsync, linkat, fsync of new",
            Self::Shared => "fsync, rename, shared fsync of new (mailslot)",
            Self::UnnamedShared => "O_TMPFILE, fsync, linkat, shared fsync of new",
            Self::Syncfs => "O_TMPFILE, shared syncfs, linkat, shared fsync of new",
        }
    }

    fn unnamed(self) -> bool {
        !matches!(self, Self::Std | Self::Shared)
    }
}

/// Writes the messages of a load into the mailbox `u0` of `dir`, as many threads as it has sessions.
pub(crate) fn run(dir: &Path, load: &Load, template: &Template, way: Way) -> io::Result<Sample> {
    let (tmp, new) = (dir.join("u0/tmp"), dir.join("u0/new"));
    let (files, names) = (&GroupSync::default(), &GroupSync::default());
    let mut workers = Vec::new();
    for _ in 0..load.sessions {
        let (tmp, new, mut template) = (tmp.clone(), new.clone(), template.clone());
        let directory = File::open(&new)?;
        workers.push(move |number: usize| {
            let name = format!("1700000000.M{number}P1Q{number}.bench.test,S={}", load.size);
            let path = tmp.join(&name);
            let mut file = match way.unnamed() {
                true => unnamed(&directory)?,
                false => File::create_new(&path)?,
            };
            file.write_all(template.stored(number))?;
            match way {
                Way::Syncfs => files.sync(files.ticket(), || Ok(syncfs(&file)?))?,
                _ => file.sync_all()?,
            }
            let ticket = names.ticket();
            match way.unnamed() {
                true => link(&file, &directory, &name)?,
                false => fs::rename(&path, new.join(&name))?,
            }
            match way {
                Way::Std | Way::Unnamed => directory.sync_all(),
                _ => names.sync(ticket, || directory.sync_all()),
            }
        });
    }
    measure(
        std::process::id(),
        load.messages,
        template.plain.len(),
        workers,
        || Ok(()),
    )
}

fn unnamed(directory: &File) -> io::Result<File> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    match openat(directory, ".", OFlag::O_TMPFILE | OFlag::O_RDWR, mode) {
        Ok(file) => Ok(file.into()),
        Err(Errno::EOPNOTSUPP | Errno::EISDIR) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "no O_TMPFILE on this file system",
        )),
        Err(e) => Err(e.into()),
    }
}

fn link(file: &File, directory: &File, name: &str) -> io::Result<()> {
    match linkat(file, "", directory, name, AtFlags::AT_EMPTY_PATH) {
        // Older kernels want a capability for that.
        Err(Errno::ENOENT) => {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            Ok(linkat(AT_FDCWD, path.as_str(), directory, name, follow)?)
        }
        other => Ok(other?),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn syncfs(file: &File) -> nix::Result<()> {
    nix::unistd::syncfs(file)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn syncfs(_: &File) -> nix::Result<()> {
    Err(Errno::ENOSYS)
}
