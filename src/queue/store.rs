//! The folder of the queue. `new/` has the contents, which are committed together with local mailboxes, so that both
//! get a message or neither does. Each content has its envelope beside it, whose name is the id alone, so that one sync
//! makes both names durable. An envelope is written before its content and removed after it: an envelope without
//! content was not finished, and content without an envelope was already sent. A start removes both. Nothing is
//! rewritten in place.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::envelope::Envelope;
use super::folder::{Folder, HALF, LOCK, MESSAGES, OLD_ENVELOPES};
use crate::deliver::{Disk, RealDisk, Syncs};
use crate::failure::{Failure, FileError};
use crate::lock::lock;

/// Maximum messages and recipients of envelopes that could not be written.
const MAX_UNSAVED: usize = 10_000;
/// Maximum messages that are kept in memory until the first try.
const FRESH: usize = 128;
/// Maximum recipients of such a message.
const FRESH_RECIPIENTS: usize = 10;
/// Maximum octets of a content that is kept with it.
const FRESH_OCTETS: usize = 16 * 1024;
/// Number of locks for changes.
const SLOTS: usize = 16;
/// Maximum octets of an envelope.
const MAX_ENVELOPE: u64 = 4 * 1024 * 1024;

/// The folder, locked by this process.
pub struct Queue {
    dir: PathBuf,
    folder: Folder,
    /// Locks for changes of envelopes, by [`slot`]: a change may wait for the disk, and those of other messages go on.
    writing: [Mutex<()>; SLOTS],
    /// The names of the content files, by id.
    names: Mutex<HashMap<String, String>>,
    /// The latest messages, as they are on disk: most are tried at once, without reading them.
    fresh: Mutex<VecDeque<Fresh>>,
    /// Changed envelopes that could not be written, so that a full disk does not make a message be sent twice.
    unsaved: Mutex<Vec<(String, Envelope)>>,
    #[expect(dead_code, reason = "holds the lock")]
    lock: Flock<File>,
}

/// A message that was not tried yet.
struct Fresh {
    id: String,
    envelope: Envelope,
    /// `None` if it is large.
    content: Option<Arc<[u8]>>,
}

/// The content of a message, as stored.
pub enum QueuedContent {
    /// All of it.
    Memory(Arc<[u8]>),
    /// The file, at its start.
    File(File),
}

/// An envelope whose content is not committed yet; it is removed when dropped.
pub struct Draft<'a> {
    queue: &'a Queue,
    id: String,
    envelope: Envelope,
    content: Option<Arc<[u8]>>,
    kept: bool,
}

impl Queue {
    /// Makes the folder if it is missing, locks it, and removes what a crash left unfinished.
    ///
    /// # Errors
    /// The folder cannot be used, or another process has it (75).
    pub fn open(dir: &Path, syncs: Arc<Syncs>) -> Result<Self, Failure> {
        Self::with_disk(dir, syncs, Box::new(RealDisk))
    }

    /// The same on another disk, for tests.
    pub(crate) fn with_disk(
        dir: &Path,
        syncs: Arc<Syncs>,
        disk: Box<dyn Disk>,
    ) -> Result<Self, Failure> {
        let fault = |path: &Path, e: &dyn std::fmt::Display| {
            Failure::System(format!("--queue: {}: {e}", path.display()))
        };
        let path = dir.join(LOCK);
        if is_mailbox(dir) {
            let why = "--queue: this is a mailbox with mail in it; name a directory of its own";
            return Err(FileError::new(dir, None, why).into());
        }
        let folder = Folder::open(dir, syncs, disk).map_err(|e| fault(dir, &e))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let lock = lock.map_err(|e| fault(&path, &e))?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| match e {
                Errno::EWOULDBLOCK => {
                    let dir = dir.display();
                    Failure::Busy(format!("--queue: {dir}: another process uses this queue"))
                }
                e => fault(&path, &e.desc()),
            })?;
        let queue = Self {
            dir: dir.to_owned(),
            folder,
            writing: Default::default(),
            names: Mutex::default(),
            fresh: Mutex::default(),
            unsaved: Mutex::default(),
            lock,
        };
        let cleaned = queue.adopt().and_then(|()| queue.clean());
        cleaned.map_err(|e| fault(dir, &e))?;
        Ok(queue)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// True if the folder's path still leads to it.
    pub fn is_in_place(&self) -> bool {
        self.folder.in_place().is_ok()
    }

    /// Takes over the envelopes of an earlier version, which had a directory of their own.
    fn adopt(&self) -> io::Result<()> {
        let old = self.dir.join(OLD_ENVELOPES);
        let entries = match std::fs::read_dir(&old) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let dir = File::open(&old)?.into();
        let mut left = Vec::new();
        self.folder.durably(|| {
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
                if let Some(name) = name.to_str().filter(|_| is_file)
                    && self.folder.adopt(&dir, name)?
                {
                    left.push(entry.path());
                }
            }
            Ok(())
        })?;
        left.iter().for_each(|path| discard(path));
        // It stays if there is anything else in it.
        let _ = std::fs::remove_dir(&old);
        Ok(())
    }

    /// Lists the contents. Removes unfinished envelopes, envelopes without content, and contents without an envelope.
    fn clean(&self) -> io::Result<()> {
        let mut names = lock(&self.names);
        let mut envelopes = Vec::new();
        let dir = self.dir.join(MESSAGES);
        for entry in std::fs::read_dir(&dir)? {
            let Ok(name) = entry?.file_name().into_string() else {
                continue;
            };
            match FileKind::of(&name) {
                Some(FileKind::Content(id)) => drop(names.insert(id.to_owned(), name)),
                Some(FileKind::Envelope) => envelopes.push(name),
                Some(FileKind::Half) => discard(&dir.join(name)),
                None => {}
            }
        }
        envelopes.sort_unstable();
        for id in &envelopes {
            if !names.contains_key(id) {
                discard(&dir.join(id));
            }
        }
        names.retain(|id, name| {
            let wanted = envelopes.binary_search(id).is_ok();
            if !wanted {
                log::info!("queue removed content without envelope file={name:?}");
                discard(&dir.join(name));
            }
            wanted
        });
        Ok(())
    }

    /// The ids of all messages, sorted: oldest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        ids(&self.dir)
    }

    /// Writes an envelope before its content is committed. The commit makes its name durable after
    /// [`Spool::expect_envelope`](crate::deliver::Spool::expect_envelope), which may return the `content`.
    ///
    /// # Errors
    /// An error of the disk; `FileTooLarge` if there are so many recipients that the file may become too long to read.
    pub fn draft(
        &self,
        id: &str,
        envelope: Envelope,
        content: Option<Arc<[u8]>>,
    ) -> io::Result<Draft<'_>> {
        let text = text(&envelope, MAX_ENVELOPE / 2)?;
        self.folder.in_place()?;
        self.folder.create(id, &text)?;
        Ok(Draft {
            queue: self,
            id: id.to_owned(),
            envelope,
            content: content.filter(|content| content.len() <= FRESH_OCTETS),
            kept: false,
        })
    }

    /// Reads an envelope, with changes that could not be written.
    ///
    /// # Errors
    /// An error of the disk, or the line that cannot be parsed.
    pub fn read(&self, id: &str) -> io::Result<Envelope> {
        let unsaved = lock(&self.unsaved);
        if let Some((_, envelope)) = unsaved.iter().find(|(known, _)| known == id) {
            return Ok(envelope.clone());
        }
        drop(unsaved);
        let fresh = self.fresh(id, |fresh| Some(fresh.envelope.clone()));
        fresh.map_or_else(|| read(&self.dir, id), Ok)
    }

    /// The content: in memory, or its file opened.
    ///
    /// # Errors
    /// An error of the disk.
    pub fn content(&self, id: &str) -> io::Result<QueuedContent> {
        let path = self.content_path(id)?;
        match self.fresh(id, |fresh| fresh.content.clone()) {
            // Mail that was removed by hand is not sent.
            Some(octets) if path.symlink_metadata()?.is_file() => Ok(QueuedContent::Memory(octets)),
            _ => existing(&path).map(QueuedContent::File),
        }
    }

    /// Looks for a message among the latest.
    fn fresh<T>(&self, id: &str, found: impl Fn(&Fresh) -> Option<T>) -> Option<T> {
        let fresh = lock(&self.fresh);
        fresh.iter().find(|fresh| fresh.id == id).and_then(found)
    }

    fn content_path(&self, id: &str) -> io::Result<PathBuf> {
        let names = lock(&self.names);
        let name = names.get(id).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.dir.join(MESSAGES).join(name))
    }

    /// Changes an envelope, or `known` if it cannot be read now; without recipients the message is removed. Returns the
    /// envelope, if it still exists.
    ///
    /// # Errors
    /// An error of the disk. A restart loses the change, unless a later one of the message is written.
    pub fn change(
        &self,
        id: &str,
        known: &Envelope,
        change: &mut dyn FnMut(&mut Envelope),
    ) -> io::Result<Option<Envelope>> {
        let _one = self.writing.get(slot(id)).map(lock);
        let mut envelope = match self.read(id) {
            // Removed by hand.
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.is_in_place() => return Err(e),
            // As without descriptors: a change that is lost would make the message be sent twice.
            read => read.unwrap_or_else(|_| known.clone()),
        };
        lock(&self.fresh).retain(|fresh| fresh.id != id);
        change(&mut envelope);
        let saved = self.save(id, &envelope);
        let mut unsaved = lock(&self.unsaved);
        unsaved.retain(|(known, _)| known != id);
        if saved.is_err() {
            let kept = unsaved.iter().map(|(_, kept)| 1 + kept.recipients.len());
            if kept.sum::<usize>() + envelope.recipients.len() < MAX_UNSAVED {
                unsaved.push((id.to_owned(), envelope.clone()));
            }
        }
        saved.map(|()| Some(envelope).filter(|envelope| !envelope.recipients.is_empty()))
    }

    fn save(&self, id: &str, envelope: &Envelope) -> io::Result<()> {
        if envelope.recipients.is_empty() {
            return self.remove(id);
        }
        let text = text(envelope, MAX_ENVELOPE)?;
        self.folder.replace(id, &text)
    }

    /// Removes the content first: a crash in between leaves an envelope without content.
    fn remove(&self, id: &str) -> io::Result<()> {
        let name = lock(&self.names).get(id).cloned();
        let name = name.ok_or(io::ErrorKind::NotFound)?;
        match self.folder.remove(&name) {
            // Removed by hand.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        lock(&self.names).remove(id);
        // A start removes what is left.
        let _ = self.folder.remove(id);
        Ok(())
    }
}

impl Draft<'_> {
    /// Called when the content is committed, as a file of this name: the message is in the queue. Returns its envelope.
    pub fn keep(mut self, name: &str) -> Envelope {
        lock(&self.queue.names).insert(self.id.clone(), name.to_owned());
        self.kept = true;
        if self.envelope.recipients.len() <= FRESH_RECIPIENTS {
            let mut fresh = lock(&self.queue.fresh);
            if fresh.len() >= FRESH {
                fresh.pop_front();
            }
            fresh.push_back(Fresh {
                id: self.id.clone(),
                envelope: self.envelope.clone(),
                content: self.content.take(),
            });
        }
        std::mem::take(&mut self.envelope)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = self.queue.folder.remove(&self.id);
        }
    }
}

/// True if a directory is not a queue but has messages: without envelopes, a start would remove them as already sent.
fn is_mailbox(dir: &Path) -> bool {
    let is_queue = |name: &&str| dir.join(name).exists();
    if [LOCK, OLD_ENVELOPES].iter().any(is_queue) {
        return false;
    }
    let envelopes = ids(dir).unwrap_or_default();
    let contents = sizes(dir).unwrap_or_default();
    let is_lone = |id: &String| envelopes.binary_search(id).is_err();
    contents.keys().any(is_lone)
}

/// Removes a useless file. Anything that cannot be removed, such as a directory, stays.
fn discard(path: &Path) {
    if let Err(e) = std::fs::remove_file(path) {
        log::error!("queue: {}: {e}", path.display());
    }
}

/// Opens a file of the queue for reading. Anything else, such as a FIFO, does not block.
fn existing(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let options = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    options.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

/// The ids of a queue's messages, sorted, also if another process uses the queue.
///
/// # Errors
/// The folder cannot be read.
pub fn ids(dir: &Path) -> io::Result<Vec<String>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(dir.join(MESSAGES))? {
        let name = entry?.file_name().into_string();
        ids.extend(
            name.ok()
                .filter(|name| FileKind::of(name) == Some(FileKind::Envelope)),
        );
    }
    ids.sort_unstable();
    Ok(ids)
}

/// The sizes of the contents on disk, by id.
///
/// # Errors
/// The folder cannot be read.
pub fn sizes(dir: &Path) -> io::Result<HashMap<String, u64>> {
    let mut sizes = HashMap::new();
    for entry in std::fs::read_dir(dir.join(MESSAGES))? {
        let entry = entry?;
        if let Some(FileKind::Content(id)) = entry.file_name().to_str().and_then(FileKind::of)
            && let Ok(meta) = entry.metadata()
        {
            sizes.insert(id.to_owned(), meta.len());
        }
    }
    Ok(sizes)
}

/// Reads an envelope, also if another process uses the queue.
///
/// # Errors
/// An error of the disk, or the line that cannot be parsed.
pub fn read(dir: &Path, id: &str) -> io::Result<Envelope> {
    use io::Read as _;

    let path = dir.join(MESSAGES).join(id);
    let mut text = String::new();
    existing(&path)?
        .take(MAX_ENVELOPE)
        .read_to_string(&mut text)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    Envelope::parse(&text).map_err(|line| {
        let why = format!("{}:{line}: not an envelope", path.display());
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// The text of an envelope. If it has more than `most` octets, the last results are left out.
///
/// # Errors
/// `FileTooLarge` if it is still too long.
fn text(envelope: &Envelope, most: u64) -> io::Result<String> {
    let fits = |text: &String| u64::try_from(text.len()).is_ok_and(|octets| octets <= most);
    let text = envelope.to_text();
    if fits(&text) {
        return Ok(text);
    }
    let mut short = envelope.clone();
    short.recipients.iter_mut().for_each(|to| to.last = None);
    let too_long = io::Error::new(io::ErrorKind::FileTooLarge, "too many recipients");
    Some(short.to_text()).filter(fits).ok_or(too_long)
}

/// The number of the lock for changes of a message.
fn slot(id: &str) -> usize {
    id.bytes().fold(0, |sum, octet| sum ^ usize::from(octet)) % SLOTS
}

/// The kind of a file, by its name.
#[derive(Debug, PartialEq, Eq)]
enum FileKind<'a> {
    /// An envelope that is being written, or was.
    Half,
    /// Its name is an id: `SECONDS.MusecPpidQcount`.
    Envelope,
    /// Its name begins with this id.
    Content(&'a str),
}

impl<'a> FileKind<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (seconds, unique) = name.split_once('.')?;
        let digits = !seconds.is_empty() && seconds.bytes().all(|octet| octet.is_ascii_digit());
        if !digits || !unique.starts_with('M') {
            return None;
        }
        Some(match unique.find('.') {
            None => Self::Envelope,
            Some(_) if name.ends_with(HALF) => Self::Half,
            Some(length) => Self::Content(name.get(..=seconds.len() + length)?),
        })
    }
}

#[cfg(test)]
mod tests;
