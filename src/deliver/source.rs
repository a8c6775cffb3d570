//! The files that a message is streamed to: a named one in `tmp/`, on each file system that a recipient's Maildir is on.
//! A disk that fails costs the mailboxes on it the message, and no other.

use std::ffi::OsStr;
use std::fs::File;
use std::sync::Arc;

use nix::errno::Errno;

use super::context::Context;
use super::disk;
use super::maildir::OpenMaildir;
use super::refusal::Trouble;
use crate::smtp::reply::Refusal;

/// A file that is written.
pub(super) struct Source {
    /// The mailbox it is made in.
    pub(super) home: usize,
    pub(super) dirs: Arc<OpenMaildir>,
    /// Its name in `tmp/`.
    pub(super) name: String,
    /// The file, or what went wrong with it.
    pub(super) file: Result<File, Refusal>,
    /// Whether the name in `tmp/` is still there.
    pub(super) named: bool,
}

impl Source {
    /// Makes the file; it must not exist yet.
    ///
    /// # Errors
    /// Those of the call.
    pub(super) fn create(
        context: &Context,
        dirs: Arc<OpenMaildir>,
        home: usize,
        name: String,
    ) -> Result<Self, Trouble> {
        let file = context.disk.create(disk::fd(&dirs.tmp), &name);
        let file = file.map_err(dirs.in_tmp("open", &name))?;
        let given = dirs.owner;
        let given = given.map_or(Ok(()), |to| context.disk.give(disk::fd(&file), to));
        let mut source = Self {
            home,
            dirs,
            name,
            file: Ok(file),
            named: true,
        };
        if let Err(e) = given {
            source.remove(context);
            return Err(source.dirs.in_tmp("fchown", &source.name)(e));
        }
        Ok(source)
    }

    /// Adds octets at the end; nothing where it failed before.
    ///
    /// # Errors
    /// Those of the call.
    pub(super) fn write(&self, context: &Context, octets: &[u8]) -> Result<(), Trouble> {
        let Ok(file) = &self.file else { return Ok(()) };
        disk::write_all(context.disk.as_ref(), file, octets)
            .map_err(self.dirs.in_tmp("write", &self.name))
    }

    /// Makes the contents durable. Not tried again where it fails: the second call would say that all is well (F03).
    ///
    /// # Errors
    /// Those of the call.
    pub(super) fn sync(&self, context: &Context) -> Result<(), Trouble> {
        let Ok(file) = &self.file else { return Ok(()) };
        let synced = context.syncs.file(context.disk.as_ref(), disk::fd(file));
        synced.map_err(self.dirs.in_tmp("fsync", &self.name))
    }

    /// Gives the file up.
    pub(super) fn fail(&mut self, context: &Context, refusal: Refusal) {
        if self.file.is_ok() {
            self.file = Err(refusal);
        }
        self.remove(context);
    }

    /// Removes its name in `tmp/`.
    pub(super) fn remove(&mut self, context: &Context) {
        if std::mem::take(&mut self.named) {
            let _ = context
                .disk
                .unlink(disk::fd(&self.dirs.tmp), OsStr::new(&self.name));
        }
    }
}

/// Whether directories that were kept open are gone, and are to be opened again.
pub(super) fn is_stale(trouble: &Trouble) -> bool {
    matches!(trouble.errno(), Some(Errno::ENOENT | Errno::ESTALE))
}
