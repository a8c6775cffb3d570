//! Copies of a message, for mailboxes that its file cannot be linked or moved to.

use std::ffi::OsStr;
use std::fs::File;
use std::sync::Arc;

use nix::errno::Errno;

use super::commit::{ATTEMPTS, softened};
use super::disk::{self, errno};
use super::maildir::OpenMaildir;
use super::refusal::Trouble;
use super::spool::Spool;
use crate::smtp::reply;

impl Spool {
    /// Copies the message into a mailbox's `tmp/`, durably: another file system or owner, a file system without hard
    /// links, or one link too many.
    pub(super) fn stage_copy(&mut self, index: usize) -> Result<(), Trouble> {
        if self.delivery(index)?.staged {
            return Ok(());
        }
        let context = Arc::clone(&self.context);
        let dirs = self.dirs(index)?;
        let text_from = self.exact_from.filter(|_| self.is_rewritten(index));
        for attempt in 0..ATTEMPTS {
            self.choose_name(index, attempt)?;
            let common = self.name.clone();
            let name = self.delivery(index)?.name(&common).to_owned();
            let to = match context.disk.create(disk::fd(&dirs.tmp), &name) {
                Err(e) if errno(&e) == Some(Errno::EEXIST) => continue,
                other => other.map_err(dirs.in_tmp("open", &name))?,
            };
            let filled = self.fill_copy(&to, (&dirs, &name), text_from);
            match &filled {
                Ok(()) => self.delivery(index)?.staged = true,
                // Nothing may take it for the whole message.
                Err(_) => drop(context.disk.unlink(disk::fd(&dirs.tmp), OsStr::new(&name))),
            }
            return filled;
        }
        Err(Trouble::at("open", &dirs.path)(Errno::EEXIST.into()))
    }

    /// Copies the message into a new file, durably.
    fn fill_copy(
        &self,
        to: &File,
        (dirs, name): (&OpenMaildir, &str),
        text_from: Option<u64>,
    ) -> Result<(), Trouble> {
        let context = &self.context;
        if let Some(to_whom) = dirs.owner {
            let given = context.disk.give(disk::fd(to), to_whom);
            given.map_err(dirs.in_tmp("fchown", name))?;
        }
        let copied = disk::copy(context.disk.as_ref(), self.any_source()?, to, text_from);
        copied.map_err(dirs.in_tmp("copy", name))?;
        let synced = context.syncs.file(context.disk.as_ref(), disk::fd(to));
        synced.map_err(dirs.in_tmp("fsync", name))
    }

    /// A file that holds the whole message.
    fn any_source(&self) -> Result<&File, Trouble> {
        let found = self.sources.iter().find_map(|s| s.file.as_ref().ok());
        found.ok_or_else(|| {
            let failed = self.sources.iter().find_map(|s| s.file.as_ref().err());
            let opened = self.deliveries.iter().find_map(|d| d.refusal.as_ref());
            let refusal = failed.or(opened).cloned();
            Trouble::Rule {
                path: Default::default(),
                // That of another mailbox.
                refusal: softened(refusal.unwrap_or(reply::LOCAL_ERROR), 2),
            }
        })
    }
}
