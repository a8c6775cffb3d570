//! A message on its way in: the file it's streamed to, and the targets it will go to. Errors are remembered until the
//! commit (see the sibling `commit`), because the client can hear of them only then; from the first one on the input is swallowed.
//! Dropping a spool leaves nothing behind.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::context::Context;
use super::disk::{self, Identity, errno};
use super::header::Filter;
use super::maildir::OpenMaildir;
use super::quota;
use super::refusal::refusal;
use super::target::{Form, Target};
use super::trace::Trace;
use crate::clock;
use crate::smtp::reply::{self, Refusal};

/// Octets gathered before a write. One read of the driver may come on top of them.
const BUFFER: usize = 32 * 1024;

/// Octets of the buffer where the client did not say how large the message is: most are smaller.
const SMALL: usize = 8 * 1024;

/// Octets that the trace headers may take of it.
const HEADERS: usize = 1024;

/// More Received fields than this are a loop: RFC 5321 §6.3.
const RECEIVED_MAX: usize = 100;

/// So many targets of a message hold their directories (two descriptors each) from their first use to the end of it.
const KEPT_OPEN: usize = 64;

/// One message between the first octet and the verdict.
pub struct Spool {
    pub(super) context: Arc<Context>,
    pub(super) id: String,
    /// The file name that goes with the id, once the size is known.
    pub(super) name: String,
    pub(super) deliveries: Vec<Delivery>,
    /// The message's file, from the first target whose directories could be opened.
    pub(super) source: Option<Source>,
    /// The first thing that went wrong with the file or the message itself.
    pub(super) error: Option<Refusal>,
    /// Octets on disk and in the buffer.
    pub(super) size: u64,
    filter: Filter,
    buffer: Vec<u8>,
}

/// One target and how far its delivery is. What is not `done` is undone when the spool is dropped.
pub(super) struct Delivery {
    pub(super) target: Arc<Target>,
    /// An earlier target that is the same mailbox, and whose copy and outcome this one shares.
    pub(super) twin: Option<usize>,
    pub(super) dirs: Option<Arc<OpenMaildir>>,
    pub(super) refusal: Option<Refusal>,
    /// Id and file name here, where the message's own were taken.
    pub(super) renamed: Option<(String, String)>,
    pub(super) reserved: bool,
    pub(super) staged: bool,
    pub(super) published: bool,
    pub(super) done: bool,
}

/// The file that is written.
pub(super) struct Source {
    pub(super) file: File,
    /// The device it is on.
    pub(super) home: Identity,
    /// `tmp/` and the name there, where the file has one.
    pub(super) named: Option<(OwnedFd, String)>,
}

impl Spool {
    /// Opens the file and prepares the trace headers.
    pub(super) fn begin(
        context: Arc<Context>,
        trace: &Trace<'_>,
        targets: Vec<Arc<Target>>,
        form: Form,
        size: Option<u64>,
    ) -> Self {
        let id = clock::unique();
        let date = clock::rfc5322_now();
        let deliveries = deliveries(targets);
        let mut firsts = deliveries
            .iter()
            .filter(|p| p.twin.is_none())
            .map(|p| p.target.as_ref());
        let only = firsts.next().filter(|_| firsts.next().is_none());
        let expected = size.and_then(|size| usize::try_from(size).ok());
        let room = expected.map_or(SMALL, |size| size.saturating_add(HEADERS).min(BUFFER));
        let buffer = trace.header(only, &id, &date, form, room);
        let submission = trace
            .submission
            .then(|| (date, format!("<{id}@{}>", trace.hostname)));
        let mut spool = Self {
            context,
            id,
            name: String::new(),
            deliveries,
            source: None,
            error: None,
            size: buffer.len() as u64,
            filter: Filter::new(form, submission),
            buffer,
        };
        spool.open();
        spool
    }

    /// The unique part of the file name to be.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Takes decoded content: lines ending in LF in text form, octets as they came in binary form.
    pub fn write(&mut self, octets: &[u8]) {
        if self.error.is_some() {
            return;
        }
        let before = self.buffer.len();
        let used = self.filter.feed(octets, &mut self.buffer);
        let rest = octets.get(used..).unwrap_or_default();
        self.size += (self.buffer.len() - before + rest.len()) as u64;
        if self.filter.received() > RECEIVED_MAX {
            return self.fail(Refusal::client(reply::LOOP));
        }
        if self.buffer.len() + rest.len() >= BUFFER {
            self.flush();
        }
        if rest.len() >= BUFFER {
            self.write_out(rest);
        } else if self.error.is_none() {
            self.buffer.extend_from_slice(rest);
        }
    }

    /// Has content decoded to where it is gathered: the same as [`Self::write`] without a copy, once the header block is over.
    pub fn decode<T>(&mut self, decode: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.error.is_some() || !self.filter.is_over() {
            let mut decoded = Vec::new();
            let outcome = decode(&mut decoded);
            self.write(&decoded);
            return outcome;
        }
        let before = self.buffer.len();
        let outcome = decode(&mut self.buffer);
        self.size += (self.buffer.len() - before) as u64;
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
        outcome
    }

    /// The message is whole: everything goes to the file, and the file to the disk.
    ///
    /// # Errors
    /// Whatever went wrong since the start.
    pub(super) fn seal(&mut self) -> Result<(), Refusal> {
        let before = self.buffer.len();
        self.filter.finish(&mut self.buffer);
        self.size += (self.buffer.len() - before) as u64;
        self.flush();
        if let Some(error) = self.error.clone() {
            return Err(error);
        }
        self.name = self.context.name(&self.id, self.size);
        let source = self.source.as_ref().ok_or_else(|| self.unopened())?;
        // Not tried again where it fails: the second call would say that all is well (F03).
        self.context.sync(&source.file).map_err(|e| refusal(&e))
    }

    /// Opens a file in the first target whose directories can be opened.
    fn open(&mut self) {
        for index in 0..self.deliveries.len() {
            match self.dirs(index).and_then(|dirs| self.create(&dirs)) {
                Ok(source) => {
                    self.source = Some(source);
                    return;
                }
                Err(e) => {
                    if let Some(delivery) = self.deliveries.get_mut(index) {
                        delivery.refusal = Some(e);
                    }
                }
            }
        }
    }

    /// Makes the file, without a name where that's possible.
    fn create(&self, dirs: &OpenMaildir) -> Result<Source, Refusal> {
        let disk = self.context.disk.as_ref();
        let home = dirs.identity;
        if !self.context.named_only.load(Ordering::Relaxed) {
            match disk.unnamed(disk::fd(&dirs.new)) {
                Ok(file) => {
                    return Ok(Source {
                        file,
                        home,
                        named: None,
                    });
                }
                // A file system or kernel without O_TMPFILE.
                Err(e)
                    if matches!(
                        errno(&e),
                        Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT)
                    ) => {}
                Err(e) => return Err(refusal(&e)),
            }
        }
        let tmp = dirs.tmp(disk, self.context.sync)?;
        // The size isn't known yet, so this is not the name it will have in new/.
        let name = format!("{}.{}", self.id, self.context.host);
        let file = disk
            .create(disk::fd(&tmp), &name)
            .map_err(|e| refusal(&e))?;
        Ok(Source {
            file,
            home,
            named: Some((tmp, name)),
        })
    }

    /// A place's open directories. The first targets hold theirs; more would eat the descriptors of all sessions, and
    /// have theirs looked up again, most often among those that are kept open.
    pub(super) fn dirs(&mut self, index: usize) -> Result<Arc<OpenMaildir>, Refusal> {
        let delivery = self
            .deliveries
            .get_mut(index)
            .ok_or_else(|| Refusal::local(reply::LOCAL_ERROR))?;
        if let Some(dirs) = &delivery.dirs {
            return Ok(Arc::clone(dirs));
        }
        let dirs = self.context.dirs(&delivery.target)?;
        if index < KEPT_OPEN {
            delivery.dirs = Some(Arc::clone(&dirs));
        } else {
            self.context.keep(&delivery.target, &dirs);
        }
        Ok(dirs)
    }

    /// A place by its index.
    pub(super) fn delivery(&mut self, index: usize) -> Result<&mut Delivery, Refusal> {
        self.deliveries
            .get_mut(index)
            .ok_or_else(|| Refusal::local(reply::LOCAL_ERROR))
    }

    /// Why there is no file.
    fn unopened(&self) -> Refusal {
        let first = self
            .deliveries
            .iter()
            .find_map(|delivery| delivery.refusal.clone());
        first.unwrap_or_else(|| Refusal::local(reply::LOCAL_ERROR))
    }

    /// Empties the buffer into the file.
    fn flush(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.write_out(&buffer);
        buffer.clear();
        self.buffer = buffer;
    }

    /// Writes octets, unless something went wrong before.
    fn write_out(&mut self, octets: &[u8]) {
        let Some(source) = &self.source else { return };
        if self.error.is_none()
            && let Err(e) = disk::write_all(self.context.disk.as_ref(), &source.file, octets)
        {
            self.fail(refusal(&e));
        }
    }

    /// Remembers an error and frees what the message held on the disk.
    fn fail(&mut self, error: Refusal) {
        self.error.get_or_insert(error);
        self.buffer = Vec::new();
        self.drop_source();
    }

    /// Closes the file and removes its name.
    fn drop_source(&mut self) {
        if let Some(Source {
            named: Some((tmp, name)),
            ..
        }) = self.source.take()
        {
            let _ = self.context.disk.unlink(disk::fd(&tmp), OsStr::new(&name));
        }
    }

    /// Takes back everything that was begun for a place: names in `new/` and `tmp/`, room in the quota.
    pub(super) fn undo(&mut self, index: usize) {
        let Some(delivery) = self
            .deliveries
            .get(index)
            .filter(|p| !p.done && (p.published || p.staged || p.reserved))
        else {
            return;
        };
        let (published, staged, reserved) =
            (delivery.published, delivery.staged, delivery.reserved);
        let name = delivery.name(&self.name).to_owned();
        if let Ok(dirs) = self.dirs(index) {
            let disk = self.context.disk.as_ref();
            if staged && let Ok(tmp) = dirs.tmp(disk, self.context.sync) {
                let _ = disk.unlink(disk::fd(&tmp), OsStr::new(&name));
            }
            if published {
                // A reader may have it in cur/ by now: then it stays there, and the client's next try is a duplicate.
                let _ = disk.unlink(disk::fd(&dirs.new), OsStr::new(&name));
                let _ = self.context.sync(&dirs.new);
            }
            if reserved {
                quota::release(disk, &dirs, self.size);
            }
        } else {
            log::error!(
                "undo failed id={} maildir={:?}",
                self.id,
                self.deliveries.get(index).map(|p| &p.target.maildir)
            );
        }
        if let Some(delivery) = self.deliveries.get_mut(index) {
            (delivery.published, delivery.staged, delivery.reserved) = (false, false, false);
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        for index in 0..self.deliveries.len() {
            self.undo(index);
        }
        self.drop_source();
    }
}

impl Delivery {
    /// A target for which nothing was done yet.
    fn new(target: Arc<Target>, twin: Option<usize>) -> Self {
        Self {
            target,
            twin,
            dirs: None,
            refusal: None,
            renamed: None,
            reserved: false,
            staged: false,
            published: false,
            done: false,
        }
    }

    /// The file name here, where the message's own is `common`.
    pub(super) fn name<'a>(&'a self, common: &'a str) -> &'a str {
        self.renamed.as_ref().map_or(common, |(_, name)| name)
    }
}

/// The targets, of which those that are the same mailbox know of each other.
fn deliveries(targets: Vec<Arc<Target>>) -> Vec<Delivery> {
    let twins = twins(&targets);
    let delivery = |(target, twin)| Delivery::new(target, twin);
    targets.into_iter().zip(twins).map(delivery).collect()
}

/// For each target the first one that is the same mailbox, where that is another one.
fn twins(targets: &[Arc<Target>]) -> Vec<Option<usize>> {
    if targets.len() == 1 {
        return vec![None];
    }
    let mut known = HashMap::with_capacity(targets.len());
    let mut all = Vec::with_capacity(targets.len());
    for (index, target) in targets.iter().enumerate() {
        let mailbox = (target.maildir.as_os_str(), &target.folder);
        let first = *known.entry(mailbox).or_insert(index);
        all.push(Some(first).filter(|&first| first != index));
    }
    all
}
