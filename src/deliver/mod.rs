//! Making a message durable. A [`Spool`] takes the content while it arrives and streams it
//! into `tmp/` of the first mailbox; [`Spool::commit`] gives it to every mailbox or to none.
//! [`Delivered`] can be made by `commit` alone, behind the last fsync: a 250 for a message
//! cannot be spelled without one. Which mailbox an address means is decided elsewhere.
//!
//! System calls of a message for one mailbox: open, write (one per 64 KiB), fsync, close,
//! rename, open of `new`, fsync, close.

mod maildir;
pub mod trace;

use crate::smtp::reply::{self, Refusal, Reply, X};
use maildir::Dirs;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use trace::{HeaderFilter, Trace};

/// Octets gathered before a write.
const BUFFER: usize = 64 * 1024;
/// Received fields above which a message is taken to run in circles (RFC 5321 §6.3).
const MAX_RECEIVED: u32 = 100;
/// Deliveries between two looks into tmp/ for what dead ones left.
const SWEEP_EVERY: u64 = 1_000;
/// Names tried before a collision is an error (R212).
const NAME_TRIES: u32 = 8;

/// Whether files and directories are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Always: a 250 survives a power cut.
    Full,
    /// Never: for tmpfs and test sinks.
    None,
}

/// A mailbox to deliver to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The fixed part of the pattern: it must exist and is never made here.
    pub root: PathBuf,
    /// The Maildir itself.
    pub maildir: PathBuf,
    /// For Delivered-To.
    pub address: String,
}

/// The steps of a delivery that can fail, in the order of their first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Making a file in tmp/.
    Create,
    /// Writing to it.
    Write,
    /// Syncing it.
    Fsync,
    /// Linking it into another mailbox.
    Link,
    /// Making it visible.
    Rename,
    /// Syncing new/.
    FsyncDir,
}

/// What a fault test puts before every call.
type Gate = Box<dyn Fn(Call) -> io::Result<()> + Send + std::marker::Sync>;

/// What all deliveries share.
pub struct Store {
    host: String,
    sync: Sync,
    count: AtomicU64,
    gate: Option<Gate>,
}

/// Proof that a message is durable in every mailbox it was for.
#[derive(Debug)]
pub struct Delivered {
    id: String,
}

impl Delivered {
    /// The unique part of the file name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The one reply that takes responsibility for a message (RFC 5321 §6.1).
    pub fn reply(&self) -> Reply {
        reply::reply(250, X(0, 0), "")
            .with_text(format!("Message accepted for delivery as {}", self.id))
    }
}

impl Store {
    /// A store for this host; `/` and `:` of the name are escaped as Maildir asks (R211).
    pub fn new(hostname: &str, sync: Sync) -> Self {
        let host = hostname.replace('/', "\\057").replace(':', "\\072");
        Self {
            host,
            sync,
            count: AtomicU64::new(0),
            gate: None,
        }
    }

    /// Starts a message. An error here comes out at the commit: the client still sends.
    pub fn begin(&self, trace: &Trace, targets: Vec<Target>) -> Spool<'_> {
        let id = self.unique();
        let mut spool = Spool {
            store: self,
            filter: HeaderFilter::default(),
            buffer: trace.render(&id, &targets).into_bytes(),
            written: 0,
            prepared: Vec::new(),
            file: None,
            failed: None,
            id,
            targets,
        };
        if let Err(refusal) = spool.open() {
            spool.failed = Some(refusal);
        }
        spool
    }

    /// `SECONDS.MusecPpidQcount`: unique also across restarts and clock steps, for two names
    /// with the same time differ in process or count, and a collision is retried.
    fn unique(&self) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!(
            "{}.M{}P{}Q{count}",
            now.as_secs(),
            now.subsec_micros(),
            std::process::id()
        )
    }

    /// Whether this delivery sweeps its tmp/: the first one does, then one in [`SWEEP_EVERY`].
    fn sweep_due(&self) -> bool {
        self.count
            .load(Ordering::Relaxed)
            .wrapping_sub(1)
            .is_multiple_of(SWEEP_EVERY)
    }

    fn gate(&self, call: Call) -> io::Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate(call))
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.gate(Call::Create)?;
        maildir::create(path)
    }

    fn fsync(&self, file: &File) -> io::Result<()> {
        self.gate(Call::Fsync)?;
        if self.sync == Sync::Full {
            file.sync_all()
        } else {
            Ok(())
        }
    }

    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        self.gate(Call::FsyncDir)?;
        if self.sync == Sync::Full {
            maildir::open_dir(path)?.sync_all()
        } else {
            Ok(())
        }
    }

    /// Links, or copies where the mailboxes lie on different file systems.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.gate(Call::Link)?;
        match std::fs::hard_link(from, to) {
            Err(e) if e.kind() == ErrorKind::CrossesDevices => {
                let mut copy = self.create(to)?;
                let copied =
                    io::copy(&mut File::open(from)?, &mut copy).and_then(|_| self.fsync(&copy));
                if copied.is_err() {
                    maildir::remove(to);
                }
                copied
            }
            done => done,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.gate(Call::Rename)?;
        std::fs::rename(from, to)
    }
}

/// A message on its way to the disk. Dropped without a commit it leaves nothing behind.
pub struct Spool<'s> {
    store: &'s Store,
    id: String,
    targets: Vec<Target>,
    filter: HeaderFilter,
    buffer: Vec<u8>,
    written: u64,
    file: Option<File>,
    prepared: Vec<(PathBuf, Dirs)>,
    failed: Option<Refusal>,
}

impl Spool<'_> {
    /// Takes decoded content, lines ending in LF. After an error the rest is swallowed.
    pub fn write(&mut self, octets: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        self.filter.feed(octets, &mut self.buffer);
        if self.buffer.len() >= BUFFER
            && let Err(error) = self.write_out()
        {
            self.failed = Some(refusal(&error));
        }
    }

    /// The unique part of the name, for the log.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// All or nothing: every mailbox has the message durably, or none has it.
    ///
    /// # Errors
    /// The reply to give; nothing is left behind then.
    pub fn commit(mut self) -> Result<Delivered, Refusal> {
        if let Some(refusal) = self.failed.take() {
            return Err(refusal);
        }
        self.filter.finish(&mut self.buffer);
        if self.filter.received() > MAX_RECEIVED {
            return Err(Refusal::client(reply::LOOP));
        }
        self.publish().map_err(|error| refusal(&error))?;
        Ok(Delivered {
            id: std::mem::take(&mut self.id),
        })
    }

    fn open(&mut self) -> Result<(), Refusal> {
        let Some(first) = self.targets.first().cloned() else {
            return Err(Refusal::local(reply::LOCAL_ERROR));
        };
        let dirs = maildir::prepare(&first)?;
        if self.store.sweep_due() {
            maildir::sweep(&dirs.tmp);
        }
        for _ in 0..NAME_TRIES {
            let path = dirs.tmp.join(format!("{}.{}", self.id, self.store.host));
            match self.store.create(&path) {
                Ok(file) => {
                    self.file = Some(file);
                    self.prepared.push((path, dirs));
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    self.id = self.store.unique()
                }
                Err(error) => return Err(refusal(&error)),
            }
        }
        Err(Refusal::local(reply::LOCAL_ERROR))
    }

    fn write_out(&mut self) -> io::Result<()> {
        let file = self.file.as_mut().ok_or(ErrorKind::NotFound)?;
        self.store.gate(Call::Write)?;
        file.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn publish(&mut self) -> io::Result<()> {
        self.write_out()?;
        if let Some(file) = self.file.take() {
            self.store.fsync(&file)?;
        }
        self.spread()?;
        let name = format!("{}.{},S={}", self.id, self.store.host, self.written);
        let mut visible: Vec<PathBuf> = Vec::new();
        let outcome = self.show(&name, &mut visible);
        if outcome.is_err() {
            for path in &visible {
                maildir::remove(path);
            }
        }
        outcome
    }

    /// Links the message into tmp/ of each further mailbox, before any shows it.
    fn spread(&mut self) -> io::Result<()> {
        let Some((source, _)) = self.prepared.first().cloned() else {
            return Err(ErrorKind::NotFound.into());
        };
        for target in self.targets.iter().skip(1) {
            let dirs = maildir::prepare(target).map_err(|r| io::Error::other(Carried(r)))?;
            let path = dirs.tmp.join(format!("{}.{}", self.id, self.store.host));
            self.store.link(&source, &path)?;
            self.prepared.push((path, dirs));
        }
        Ok(())
    }

    fn show(&self, name: &str, visible: &mut Vec<PathBuf>) -> io::Result<()> {
        for (tmp, dirs) in &self.prepared {
            let path = dirs.new.join(name);
            self.store.rename(tmp, &path)?;
            visible.push(path);
        }
        self.prepared
            .iter()
            .try_for_each(|(_, dirs)| self.store.fsync_dir(&dirs.new))
    }
}

impl Drop for Spool<'_> {
    fn drop(&mut self) {
        for (path, _) in &self.prepared {
            maildir::remove(path);
        }
    }
}

/// A refusal that travels as the source of an I/O error.
#[derive(Debug)]
struct Carried(Refusal);

impl std::fmt::Display for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.reply.text())
    }
}

impl std::error::Error for Carried {}

/// The one map from an I/O error to a reply (F01, F07, F09, F12, F25, F26, F71).
pub fn refusal(error: &io::Error) -> Refusal {
    if let Some(carried) = error.get_ref().and_then(|e| e.downcast_ref::<Carried>()) {
        return carried.0.clone();
    }
    Refusal::local(match error.kind() {
        ErrorKind::StorageFull => reply::DISK_FULL,
        ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => reply::MAILBOX_FULL,
        ErrorKind::PermissionDenied | ErrorKind::NotADirectory => reply::MAILBOX_UNUSABLE,
        _ => reply::LOCAL_ERROR,
    })
}

#[cfg(test)]
mod tests;
