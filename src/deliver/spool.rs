//! An incoming message: the files to which it is written, and its mailboxes. Errors are kept until the commit (see
//! `commit`), because only then can the client be told.

use std::cell::Cell;
use std::sync::Arc;

use super::context::Context;
use super::disk::{self, FileId};
use super::group_sync::{GroupSync, Ticket};
use super::groups::Groups;
use super::header::Filter;
use super::junk::Watch;
use super::maildir::OpenMaildir;
use super::refusal::Trouble;
use super::source::{Source, is_stale};
use super::target::{Form, Target};
use super::trace::Trace;
use crate::clock;
use crate::smtp::reply::{self, Reply};

/// Octets buffered before a write, plus at most one read of the driver.
const BUFFER: usize = 32 * 1024;

/// Initial octets of the buffer without a declared size: most messages are smaller.
const SMALL: usize = 8 * 1024;

/// Octets of the buffer for the trace headers.
const HEADERS: usize = 1024;

/// More Received fields than this are a loop: RFC 5321 §6.3.
const RECEIVED_MAX: usize = 100;

/// Maximum file systems on which a message is written as it arrives; for others it is copied at the end.
const SOURCES: usize = 4;

/// Maximum Maildirs that a message holds open besides the first.
const HELD: usize = 63;

/// Maximum log lines about errors of one message.
const LOGGED: u8 = 4;

/// A message from its first octet to the commit.
pub struct Spool {
    pub(super) context: Arc<Context>,
    pub(super) id: String,
    /// The file name, once the size is known.
    pub(super) name: String,
    pub(super) deliveries: Vec<Delivery>,
    /// The mailboxes of each recipient.
    pub(super) groups: Groups,
    /// The message's files.
    pub(super) sources: Vec<Source>,
    /// The refusal of the message itself, if any.
    pub(super) error: Option<Reply>,
    /// Octets on disk and in the buffer.
    pub(super) size: u64,
    /// The octet from which line ends are stored unchanged, for the queue; mailboxes get a copy in text form.
    pub(super) exact_from: Option<u64>,
    /// Octets of that copy.
    pub(super) text_size: u64,
    filter: Filter,
    buffer: Vec<u8>,
    logged: Cell<u8>,
    /// Maildirs that are held open besides the first.
    pub(super) held: usize,
}

/// The delivery to one mailbox. Unless `done` it is undone when the spool is dropped.
pub(super) struct Delivery {
    pub(super) target: Arc<Target>,
    /// The inbox, if the target is its junk folder.
    pub(super) inbox: Option<Arc<Target>>,
    pub(super) dirs: Option<Arc<OpenMaildir>>,
    /// The identity of `new/` at the first look-up.
    pub(super) identity: Option<FileId>,
    pub(super) refusal: Option<Reply>,
    /// Id and file name here, if the message's own were taken.
    pub(super) renamed: Option<(String, String)>,
    /// The syncs of its `new/`, and the ticket of its change.
    pub(super) syncs: Option<(Arc<GroupSync>, Ticket)>,
    pub(super) reserved: bool,
    pub(super) staged: bool,
    pub(super) published: bool,
    pub(super) done: bool,
}

impl Spool {
    /// Opens the files and prepares the trace headers. On the heap, because it is handed on from the first octet to the
    /// commit, and each move would be another copy on the stack of the thread.
    pub(super) fn begin(
        context: Arc<Context>,
        trace: &Trace<'_>,
        groups: Groups,
        form: Form,
        size: Option<u64>,
    ) -> Box<Self> {
        let id = clock::unique();
        let date = clock::rfc5322_now();
        let expected = size.and_then(|size| usize::try_from(size).ok());
        let room = expected.map_or(SMALL, |size| size.saturating_add(HEADERS).min(BUFFER));
        let buffer = trace.header(groups.only(), &id, &date, form, room);
        let submission = trace
            .submission
            .then(|| (date, format!("<{id}@{}>", trace.hostname)));
        let junk = Watch::new(&context.junk);
        let mut spool = Box::new(Self {
            context,
            id,
            name: String::new(),
            deliveries: groups.mailboxes().into_iter().map(Delivery::new).collect(),
            groups,
            sources: Vec::new(),
            error: None,
            size: buffer.len() as u64,
            exact_from: None,
            text_size: 0,
            filter: Filter::new(form, submission, junk),
            buffer,
            logged: Cell::new(0),
            held: 0,
        });
        spool.open();
        spool
    }

    /// The unique part of the future file name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Adds decoded content: with LF line ends in text form, unchanged in binary form.
    pub fn write(&mut self, octets: &[u8]) {
        if self.is_lost() {
            return;
        }
        let before = self.buffer.len();
        let used = self.filter.feed(octets, &mut self.buffer);
        let Some(rest) = octets.get(used..) else {
            self.error = Some(reply::LOCAL_ERROR);
            return;
        };
        self.size += (self.buffer.len() - before + rest.len()) as u64;
        if self.filter.received() > RECEIVED_MAX {
            self.error = Some(reply::MAIL_LOOP);
            return self.give_up();
        }
        if self.buffer.len() + rest.len() >= BUFFER {
            self.flush();
        }
        if rest.len() >= BUFFER {
            self.write_out(rest);
        } else if !self.is_lost() {
            self.buffer.extend_from_slice(rest);
        }
    }

    /// Lets `decode` append content to the buffer: like [`Self::write`] without a copy, once the header block is over.
    pub fn decode<T>(&mut self, decode: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.is_lost() || !self.filter.is_over() {
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

    /// Stores line ends unchanged from now on. Returns the octet of the file where that begins.
    pub fn keep_line_ends(&mut self) -> u64 {
        self.filter.set_form(Form::Binary);
        self.exact_from = Some(self.size);
        self.size
    }

    /// Prepares the commit of a message whose envelope the caller writes next into `new/` of the queue: the commit then
    /// fails if a sync of that directory fails from now on, and syncing the envelope may serve for the content too. No
    /// more content may be added. Returns all of it if it was small enough to be written at once.
    pub fn expect_envelope(&mut self) -> Option<Arc<[u8]>> {
        self.end_content();
        let is_whole = self.size == self.buffer.len() as u64;
        let whole = is_whole.then(|| Arc::from(self.buffer.as_slice()));
        self.flush();
        self.each_source(|source, context| {
            source.start_sync(context);
            Ok(())
        });
        for index in 0..self.deliveries.len() {
            let queue = self
                .deliveries
                .get(index)
                .is_some_and(|d| !d.target.is_mailbox());
            if queue && let Err(trouble) = self.take_ticket(index) {
                let refusal = self.log(&trouble);
                if let Some(delivery) = self.deliveries.get_mut(index) {
                    delivery.refusal = Some(refusal);
                }
            }
        }
        whole
    }

    /// Refuses the message for the queue, whose envelope could not be written.
    pub fn refuse_queue(&mut self, refusal: &Reply) {
        let all = self.deliveries.iter_mut();
        all.filter(|delivery| !delivery.target.is_mailbox())
            .for_each(|delivery| delivery.refusal = Some(refusal.clone()));
    }

    /// Opens a mailbox's directories; from now on a failed sync of its `new/` fails this message.
    pub(super) fn take_ticket(&mut self, index: usize) -> Result<Arc<OpenMaildir>, Trouble> {
        let dirs = self.dirs(index)?;
        let begun = || (Arc::clone(&dirs.syncs), dirs.syncs.ticket());
        self.delivery(index)?.syncs.get_or_insert_with(begun);
        Ok(dirs)
    }

    /// Ends the message: writes and syncs the files. A failing disk only affects its own mailboxes.
    ///
    /// # Errors
    /// The refusal of the message itself, if any.
    pub(super) fn seal(&mut self) -> Result<(), Reply> {
        self.end_content();
        self.flush();
        if let Some(error) = self.error.clone() {
            return Err(error);
        }
        self.name = self.context.name(&self.id, self.size);
        if self.filter.is_junk() {
            self.send_to_junk();
        }
        self.each_source(Source::sync);
        self.measure_text()
    }

    /// Adds what the filter still holds back.
    fn end_content(&mut self) {
        let before = self.buffer.len();
        self.filter.finish(&mut self.buffer);
        self.size += (self.buffer.len() - before) as u64;
    }

    /// Computes the size of the copy in text form, if one is needed.
    fn measure_text(&mut self) -> Result<(), Reply> {
        let Some(from) = self.exact_from else {
            return Ok(());
        };
        let Some(file) = self.sources.iter().find_map(|s| s.file.as_ref().ok()) else {
            return Ok(());
        };
        let size = disk::copied(file, from).map_err(Trouble::at("read", ""));
        self.text_size = size.map_err(|trouble| self.log(&trouble))?;
        Ok(())
    }

    /// True if a mailbox gets a copy in text form, because the file has line ends as the next hop must have them.
    pub(super) fn is_rewritten(&self, index: usize) -> bool {
        let target = self.deliveries.get(index).map(|d| &d.target);
        self.exact_from.is_some() && target.is_some_and(|target| target.is_mailbox())
    }

    /// Octets of the message in a mailbox.
    pub(super) fn size_at(&self, index: usize) -> u64 {
        if self.is_rewritten(index) {
            self.text_size
        } else {
            self.size
        }
    }

    /// Makes a file in the first mailbox that can be opened, and one on each other file system.
    fn open(&mut self) {
        for index in 0..self.deliveries.len() {
            if self.sources.len() >= SOURCES {
                return;
            }
            if !self.sources.is_empty() {
                let device = self.device(index);
                let has = |s: &Source| Some(s.dirs.identity.device) == device;
                if device.is_none() || self.sources.iter().any(has) {
                    continue;
                }
            }
            match self.create(index) {
                Ok(source) => self.sources.push(source),
                Err(trouble) => {
                    let refusal = self.log(&trouble);
                    if let Some(delivery) = self.deliveries.get_mut(index) {
                        delivery.refusal = Some(refusal);
                    }
                }
            }
        }
    }

    /// The device of a mailbox, or that of its future place. Directories in the cache are held from here on.
    fn device(&mut self, index: usize) -> Option<nix::libc::dev_t> {
        let disk = self.context.disk.as_ref();
        let delivery = self.deliveries.get_mut(index)?;
        if let Some(kept) = self.context.dirs.get(disk, &delivery.target) {
            let identity = kept.identity;
            delivery.identity = Some(identity);
            if self.hold(index) {
                self.delivery(index).ok()?.dirs = Some(kept);
            }
            return Some(identity.device);
        }
        let found = disk.identity(&delivery.target.maildir);
        let found = found.or_else(|_| disk.identity(&delivery.target.root));
        Some(found.ok()?.device)
    }

    /// Creates a file. Its size, and so its name in `new/`, is not known yet.
    fn create(&mut self, index: usize) -> Result<Source, Trouble> {
        let dirs = self.dirs(index)?;
        match Source::create(&self.context, dirs, index, self.tmp_name()) {
            Err(trouble) if is_stale(&trouble) => {
                let delivery = self.delivery(index)?;
                (delivery.dirs, delivery.identity) = (None, None);
                let target = Arc::clone(&delivery.target);
                self.context.dirs.forget(&target);
                let dirs = self.dirs(index)?;
                Source::create(&self.context, dirs, index, self.tmp_name())
            }
            other => other,
        }
    }

    /// The name of a file in `tmp/`.
    fn tmp_name(&self) -> String {
        [&self.id, ".", &self.context.host].concat()
    }

    /// A mailbox's open directories. They stay open where they may; others are looked up again, mostly in the cache.
    ///
    /// # Errors
    /// They cannot be opened, or 451 4.2.1 if they are no longer the same.
    pub(super) fn dirs(&mut self, index: usize) -> Result<Arc<OpenMaildir>, Trouble> {
        if let Some(dirs) = &self.delivery(index)?.dirs {
            return Ok(Arc::clone(dirs));
        }
        let context = Arc::clone(&self.context);
        let delivery = self.delivery(index)?;
        let dirs = context.dirs(&delivery.target)?;
        if *delivery.identity.get_or_insert(dirs.identity) != dirs.identity {
            return Err(Trouble::away(&delivery.target.maildir));
        }
        if self.hold(index) {
            self.delivery(index)?.dirs = Some(Arc::clone(&dirs));
        } else {
            context.keep(&self.delivery(index)?.target, &dirs);
        }
        Ok(dirs)
    }

    /// True if a mailbox's directories may stay open to the end of the message: those of the first one, and of others
    /// as long as there are descriptors to spare.
    fn hold(&mut self, index: usize) -> bool {
        let more = index > 0 && self.held < HELD && self.context.take_spare();
        self.held += usize::from(more);
        index == 0 || more
    }

    /// A delivery by index.
    pub(super) fn delivery(&mut self, index: usize) -> Result<&mut Delivery, Trouble> {
        self.deliveries.get_mut(index).ok_or_else(|| Trouble::Rule {
            path: Default::default(),
            refusal: reply::LOCAL_ERROR,
        })
    }

    /// Logs an error of this message, and returns its refusal.
    pub(super) fn log(&self, trouble: &Trouble) -> Reply {
        if self.logged.get() < LOGGED {
            self.logged.set(self.logged.get() + 1);
            log::warn!("delivery id={} {trouble}", self.id);
        }
        trouble.refusal()
    }

    /// True if no mailbox can get the message any more, so that its content can be dropped.
    fn is_lost(&self) -> bool {
        self.error.is_some() || self.sources.iter().all(|source| source.file.is_err())
    }

    /// Writes the buffer to the files.
    fn flush(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.write_out(&buffer);
        buffer.clear();
        self.buffer = buffer;
    }

    fn write_out(&mut self, octets: &[u8]) {
        if self.error.is_none() && !octets.is_empty() {
            self.each_source(|source, context| source.write(context, octets));
        }
        if self.is_lost() {
            self.give_up();
        }
    }

    /// Applies a function to every file, and gives up those that fail.
    fn each_source(&mut self, act: impl Fn(&Source, &Context) -> Result<(), Trouble>) {
        let mut sources = std::mem::take(&mut self.sources);
        for source in &mut sources {
            if let Err(trouble) = act(source, &self.context) {
                source.fail(&self.context, self.log(&trouble));
            }
        }
        self.sources = sources;
    }

    /// Frees the message's memory and files.
    fn give_up(&mut self) {
        self.buffer = Vec::new();
        self.remove_sources();
    }

    /// Removes the names of the files in `tmp/`.
    pub(super) fn remove_sources(&mut self) {
        for source in &mut self.sources {
            source.remove(&self.context);
        }
    }
}

impl Delivery {
    /// A delivery that has not begun.
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            inbox: None,
            dirs: None,
            identity: None,
            refusal: None,
            renamed: None,
            syncs: None,
            reserved: false,
            staged: false,
            published: false,
            done: false,
        }
    }

    /// The file name here; `common` is the message's own.
    pub(super) fn name<'a>(&'a self, common: &'a str) -> &'a str {
        self.renamed.as_ref().map_or(common, |(_, name)| name)
    }
}
