//! The files to which a message is written: one in `tmp/` on each file system with a recipient's Maildir. A failing
//! disk only affects the mailboxes on it.

use std::ffi::OsStr;
use std::fs::File;
use std::sync::Arc;

use nix::errno::Errno;

use super::context::Context;
use super::disk;
use super::maildir::OpenMaildir;
use super::refusal::Trouble;
use crate::smtp::reply::Reply;

/// A file of a message.
pub(super) struct Source {
    /// The mailbox of its `tmp/`.
    pub(super) home: usize,
    pub(super) dirs: Arc<OpenMaildir>,
    /// Its name in `tmp/`.
    pub(super) name: String,
    /// The file, or its error.
    pub(super) file: Result<File, Reply>,
    /// True while the name in `tmp/` exists.
    pub(super) named: bool,
}

impl Source {
    /// Creates the file, which must not exist yet.
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

    /// Appends octets, unless it failed before.
    ///
    /// # Errors
    /// Those of the call.
    pub(super) fn write(&self, context: &Context, octets: &[u8]) -> Result<(), Trouble> {
        let Ok(file) = &self.file else { return Ok(()) };
        disk::write_all(context.disk.as_ref(), file, octets)
            .map_err(self.dirs.in_tmp("write", &self.name))
    }

    /// Makes the contents durable. Never retried: after a failure a second call would succeed although data is lost
    /// (F03).
    ///
    /// # Errors
    /// Those of the call.
    pub(super) fn sync(&self, context: &Context) -> Result<(), Trouble> {
        let Ok(file) = &self.file else { return Ok(()) };
        let synced = context.syncs.file(context.disk.as_ref(), disk::fd(file));
        synced.map_err(self.dirs.in_tmp("fsync", &self.name))
    }

    /// Asks the system to start making the contents durable.
    pub(super) fn start_sync(&self, context: &Context) {
        if let Ok(file) = &self.file {
            context.syncs.start(context.disk.as_ref(), disk::fd(file));
        }
    }

    /// Replaces the file by its error, and removes its name.
    pub(super) fn fail(&mut self, context: &Context, refusal: Reply) {
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

/// True if cached directories are gone and must be opened again.
pub(super) fn is_stale(trouble: &Trouble) -> bool {
    matches!(trouble.errno(), Some(Errno::ENOENT | Errno::ESTALE))
}
