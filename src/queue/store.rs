//! The folder of the queue. `new/` has the contents, where the store of all mail puts them, so that local mailboxes and
//! the queue have a message together or not at all; `envelope/` has the envelopes, by the same id. An envelope is there
//! before its content, and goes after it: without content it is half-made, and a start removes it. Nothing is rewritten in
//! place.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::envelope::Envelope;
use crate::failure::Failure;
use crate::lock::lock;

const ENVELOPES: &str = "envelope";
const CONTENTS: &str = "new";
/// The name of an envelope that is being written ends in this.
const HALF: &str = ".half";
/// Octets of an envelope that are read.
const MAX_ENVELOPE: u64 = 4 * 1024 * 1024;

/// The folder, and the lock that makes it this process's.
#[derive(Debug)]
pub struct Queue {
    dir: PathBuf,
    sync: bool,
    /// One change of an envelope at a time.
    writing: Mutex<()>,
    /// The names of the content files, by id.
    names: Mutex<HashMap<String, String>>,
    #[expect(dead_code, reason = "holds the lock")]
    lock: Flock<File>,
}

/// An envelope whose content is not there yet: dropped, it is removed.
#[derive(Debug)]
pub struct Draft<'a> {
    queue: &'a Queue,
    id: String,
    kept: bool,
}

impl Queue {
    /// Makes the folder where it is missing, locks it, and removes what a crash left half-made.
    ///
    /// # Errors
    /// The folder cannot be used, or another process has it (75).
    pub fn open(dir: &Path, sync: bool) -> Result<Self, Failure> {
        let fault = |path: &Path, e: &dyn std::fmt::Display| {
            Failure::System(format!("--queue: {}: {e}", path.display()))
        };
        for path in [
            dir.to_owned(),
            dir.join(ENVELOPES),
            dir.join(CONTENTS),
            dir.join("tmp"),
            dir.join("cur"),
        ] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|e| fault(&path, &e))?;
        }
        let path = dir.join("lock");
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
                    Failure::Busy(format!("--queue: {dir}: another process has this queue"))
                }
                e => fault(&path, &e.desc()),
            })?;
        let queue = Self {
            dir: dir.to_owned(),
            sync,
            writing: Mutex::new(()),
            names: Mutex::default(),
            lock,
        };
        queue.clean().map_err(|e| fault(dir, &e))?;
        Ok(queue)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Learns which contents there are, and removes envelopes that were being written and those without content.
    fn clean(&self) -> io::Result<()> {
        let mut names = lock(&self.names);
        for entry in std::fs::read_dir(self.dir.join(CONTENTS))? {
            if let Ok(name) = entry?.file_name().into_string()
                && let Some(id) = id_of(&name)
            {
                names.insert(id.to_owned(), name);
            }
        }
        for entry in std::fs::read_dir(self.dir.join(ENVELOPES))? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_str().is_some_and(|id| names.contains_key(id)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// The ids of all messages, sorted: oldest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        ids(&self.dir)
    }

    /// Writes an envelope, durably, before its content is committed.
    ///
    /// # Errors
    /// What the disk says.
    pub fn draft(&self, id: &str, envelope: &Envelope) -> io::Result<Draft<'_>> {
        self.write(id, envelope)?;
        Ok(Draft {
            queue: self,
            id: id.to_owned(),
            kept: false,
        })
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// What the disk says, or the line that cannot be read.
    pub fn read(&self, id: &str) -> io::Result<Envelope> {
        read(&self.dir, id)
    }

    /// Opens the content.
    ///
    /// # Errors
    /// What the disk says.
    pub fn content(&self, id: &str) -> io::Result<File> {
        File::open(self.content_path(id)?)
    }

    fn content_path(&self, id: &str) -> io::Result<PathBuf> {
        let names = lock(&self.names);
        let name = names.get(id).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.dir.join(CONTENTS).join(name))
    }

    /// Changes an envelope; one without recipients left is removed, with its content. Returns what is left.
    ///
    /// # Errors
    /// What the disk says.
    pub fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut Envelope),
    ) -> io::Result<Option<Envelope>> {
        let _one = lock(&self.writing);
        let mut envelope = self.read(id)?;
        change(&mut envelope);
        if envelope.recipients.is_empty() {
            self.remove(id)?;
            return Ok(None);
        }
        self.write(id, &envelope)?;
        Ok(Some(envelope))
    }

    /// The content first: what is left of a crash in between is an envelope without one.
    fn remove(&self, id: &str) -> io::Result<()> {
        std::fs::remove_file(self.content_path(id)?)?;
        lock(&self.names).remove(id);
        std::fs::remove_file(self.envelope_path(id))
    }

    fn envelope_path(&self, id: &str) -> PathBuf {
        self.dir.join(ENVELOPES).join(id)
    }

    fn write(&self, id: &str, envelope: &Envelope) -> io::Result<()> {
        let path = self.envelope_path(id);
        let half = self.envelope_path(&format!("{id}{HALF}"));
        let written = self
            .write_half(&half, envelope)
            .and_then(|()| std::fs::rename(&half, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&half);
        }
        written?;
        if self.sync {
            File::open(self.dir.join(ENVELOPES))?.sync_all()?;
        }
        Ok(())
    }

    fn write_half(&self, half: &Path, envelope: &Envelope) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(half)?;
        file.write_all(envelope.to_text().as_bytes())?;
        if self.sync { file.sync_all() } else { Ok(()) }
    }
}

impl Draft<'_> {
    /// The content is committed, as a file of this name: the message is in the queue.
    pub fn keep(mut self, name: &str) {
        lock(&self.queue.names).insert(self.id.clone(), name.to_owned());
        self.kept = true;
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(self.queue.envelope_path(&self.id));
        }
    }
}

/// The ids of a queue's messages, sorted, also where another process has it.
///
/// # Errors
/// The folder cannot be read.
pub fn ids(dir: &Path) -> io::Result<Vec<String>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(dir.join(ENVELOPES))? {
        let name = entry?.file_name();
        ids.extend(name.into_string().ok().filter(|id| !id.ends_with(HALF)));
    }
    ids.sort();
    Ok(ids)
}

/// The sizes of the contents on disk, by id.
///
/// # Errors
/// The folder cannot be read.
pub fn sizes(dir: &Path) -> io::Result<HashMap<String, u64>> {
    let mut sizes = HashMap::new();
    for entry in std::fs::read_dir(dir.join(CONTENTS))? {
        let entry = entry?;
        let name = entry.file_name();
        if let (Some(id), Ok(meta)) = (name.to_str().and_then(id_of), entry.metadata()) {
            sizes.insert(id.to_owned(), meta.len());
        }
    }
    Ok(sizes)
}

/// Reads an envelope, also where another process has the queue.
///
/// # Errors
/// What the disk says, or the line that cannot be read.
pub fn read(dir: &Path, id: &str) -> io::Result<Envelope> {
    use io::Read as _;

    let path = dir.join(ENVELOPES).join(id);
    let mut text = String::new();
    File::open(&path)?
        .take(MAX_ENVELOPE)
        .read_to_string(&mut text)?;
    Envelope::parse(&text).map_err(|line| {
        let why = format!("{}:{line}: not an envelope", path.display());
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// The id that a content's file name begins with: `SECONDS.MusecPpidQcount`.
fn id_of(name: &str) -> Option<&str> {
    let (first, _) = name.match_indices('.').nth(1)?;
    name.get(..first)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::envelope::Recipient;
    use super::*;

    const ID: &str = "7.M1P2Q3";

    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("mailslot-queue-{}-{count}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn content(&self, id: &str) -> String {
            let name = format!("{id}.host,S=1");
            std::fs::write(self.0.join("new").join(&name), "x").unwrap();
            name
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn envelope() -> Envelope {
        let to = |address: &str| Recipient {
            address: address.into(),
            ..Recipient::default()
        };
        Envelope {
            created: 7,
            recipients: vec![to("a@b"), to("c@d")],
            ..Envelope::default()
        }
    }

    #[test]
    fn a_message_from_draft_to_end() {
        let dir = Dir::new();
        let queue = Queue::open(&dir.0, true).unwrap();
        drop(queue.draft(ID, &envelope()).unwrap());
        assert!(queue.ids().unwrap().is_empty());
        queue.draft(ID, &envelope()).unwrap().keep(&dir.content(ID));
        assert_eq!(queue.ids().unwrap(), [ID]);
        assert!(queue.content(ID).is_ok());
        let left = queue
            .change(ID, |envelope| drop(envelope.recipients.remove(0)))
            .unwrap();
        assert_eq!(left.unwrap().recipients[0].address, "c@d");
        assert_eq!(
            queue
                .change(ID, |envelope| envelope.recipients.clear())
                .unwrap(),
            None
        );
        assert!(queue.ids().unwrap().is_empty() && queue.content(ID).is_err());
        assert!(queue.change(ID, |_| {}).is_err());
    }

    #[test]
    fn a_queue_has_one_process() {
        let dir = Dir::new();
        let queue = Queue::open(&dir.0, false).unwrap();
        assert_eq!(Queue::open(&dir.0, false).unwrap_err().status(), 75);
        drop(queue);
        assert!(Queue::open(&dir.0, false).is_ok());
    }

    #[test]
    fn what_a_crash_left_is_removed() {
        let dir = Dir::new();
        let queue = Queue::open(&dir.0, false).unwrap();
        queue.draft("1.M1P1Q1", &envelope()).unwrap().keep("gone");
        queue.draft(ID, &envelope()).unwrap().keep(&dir.content(ID));
        std::fs::write(dir.0.join("envelope/8.M1P1Q1.half"), "mailsl").unwrap();
        std::fs::write(dir.0.join("envelope/9.M1P1Q1"), "damaged").unwrap();
        dir.content("9.M1P1Q1");
        drop(queue);
        let queue = Queue::open(&dir.0, false).unwrap();
        assert_eq!(queue.ids().unwrap(), [ID, "9.M1P1Q1"]);
        // A damaged envelope stays, and says where.
        let wrong = queue.read("9.M1P1Q1").unwrap_err().to_string();
        assert!(
            wrong.ends_with("envelope/9.M1P1Q1:1: not an envelope"),
            "{wrong}"
        );
    }
}
