//! A disk that does everything for real in a scratch directory and writes down what was done. It can fail
//! chosen calls, and it can do wrong what the checker must find.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::super::disk::{Disk, FileId, Real};
use super::super::target::Owner;
use super::history::{Event, History, Node, ROOT, holds_whole_files};
use super::turns;

/// A deliberate mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mutation {
    #[default]
    None,
    /// Syncs of this node are left out.
    Unsynced(Node),
    /// Syncs of this node are done after the next promise: of a file, after its name in `new/`; of a directory, after
    /// the 250.
    Late(Node),
    /// The first sync of this node fails, and is tried again with success.
    Retried(Node),
    /// A file that is made has no name until it is moved, as with O_TMPFILE.
    Unnamed,
}

/// The calls of all threads of a run, in one order.
#[derive(Default)]
struct Log {
    history: History,
    /// The number of each inode. A number of the file system may come back after a file was removed.
    nodes: HashMap<FileId, Node>,
    made: usize,
    names: HashMap<Node, String>,
    links: HashMap<Node, usize>,
    late: Vec<Node>,
    retried: bool,
    /// The calls that fail from here on.
    fails: Fails,
    /// Calls so far that change the disk, and how many of them are syncs.
    calls: usize,
    syncs: usize,
    /// Calls that sync the whole file system.
    of_all: usize,
}

/// The calls that fail, counted from 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Fails {
    /// Among all that change the disk.
    pub(super) calls: Vec<usize>,
    /// Among the syncs.
    pub(super) syncs: Vec<usize>,
}

/// The disk.
#[derive(Clone, Default)]
pub(super) struct Recorder {
    log: Arc<Mutex<Log>>,
    mutation: Mutation,
    /// The error of link(2), if it is to fail.
    no_links: Option<Errno>,
    /// A directory of this name and all in it lie on another device.
    elsewhere: Option<&'static str>,
    elsewhere_nodes: Arc<Mutex<HashSet<FileId>>>,
}

impl Log {
    /// Numbers a new inode.
    fn make(&mut self, identity: FileId, name: &str, is_dir: bool) -> Node {
        let node = Node(self.made);
        self.made += 1;
        self.nodes.insert(identity, node);
        self.names.insert(node, name.to_owned());
        if is_dir {
            self.history.dirs.insert(node);
        }
        node
    }

    fn adopt(&mut self, root: &Path) {
        let identity = |path: &Path| Real.identity(path).unwrap();
        self.make(identity(root), "", true);
        let mut paths = vec![(root.to_owned(), ROOT)];
        while let Some((path, dir)) = paths.pop() {
            for entry in fs::read_dir(&path).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let node = self.make(identity(&path), &name, path.is_dir());
                self.history.before.push((dir, name, node));
                if path.is_dir() {
                    paths.push((path, node));
                } else {
                    self.links.insert(node, 1);
                }
            }
        }
    }

    fn node(&self, identity: FileId) -> Node {
        self.nodes[&identity]
    }

    fn push(&mut self, event: Event) {
        let is_named = |late: &Node| match &event {
            Event::Entry { dir, name, node } => {
                *node == Some(*late) && holds_whole_files(&self.names[dir], name)
            }
            _ => false,
        };
        let (now, late) = self.late.drain(..).partition(is_named);
        self.late = late;
        self.history.events.push(event);
        for node in now {
            self.synced(node, self.history.events.len(), true);
        }
    }

    fn synced(&mut self, node: Node, begun: usize, ok: bool) {
        let event = Event::Synced { node, begun, ok };
        self.history.events.push(event);
    }

    fn entry(&mut self, dir: Node, name: &str, node: Option<Node>) {
        let name = name.to_owned();
        self.push(Event::Entry { dir, name, node });
    }

    fn linked(&mut self, node: Node, more: isize) {
        let count = self.links.entry(node).or_default();
        *count = count.checked_add_signed(more).unwrap();
        let count = *count;
        self.push(Event::Links { node, count });
    }
}

impl Recorder {
    /// A disk that is a directory. What is in it already is taken for durable.
    pub(super) fn new(
        root: &Path,
        mutation: Mutation,
        no_links: Option<Errno>,
        elsewhere: Option<&'static str>,
    ) -> Self {
        let recorder = Self {
            mutation,
            no_links,
            elsewhere,
            ..Self::default()
        };
        recorder.log.lock().unwrap().adopt(root);
        recorder
    }

    /// Counts calls from here on, and lets some of them fail.
    pub(super) fn start(&self, fails: Fails) {
        let log = &mut *self.log.lock().unwrap();
        (log.fails, log.calls, log.syncs) = (fails, 0, 0);
    }

    /// The calls since the start, and how many of them were syncs.
    pub(super) fn counts(&self) -> (usize, usize) {
        let log = self.log.lock().unwrap();
        (log.calls, log.syncs)
    }

    /// Calls that sync the whole file system.
    pub(super) fn syncs_of_all(&self) -> usize {
        self.log.lock().unwrap().of_all
    }

    /// Notes what is promised now: files at these paths, below the root, that have these texts in them.
    pub(super) fn promise(&self, files: Vec<(Vec<String>, &str)>) {
        let log = &mut *self.log.lock().unwrap();
        for (path, holds) in files {
            let holds = holds.to_owned();
            log.history.events.push(Event::Promised { path, holds });
        }
        let late: Vec<Node> = log.late.drain(..).collect();
        for node in late {
            log.synced(node, log.history.events.len(), true);
        }
    }

    /// Notes promises that are fulfilled.
    pub(super) fn release(&self, path: Vec<String>, holds: &str) {
        let holds = holds.to_owned();
        let event = Event::Released { path, holds };
        self.log.lock().unwrap().history.events.push(event);
    }

    /// The calls so far.
    pub(super) fn history(&self) -> History {
        self.log.lock().unwrap().history.clone()
    }

    /// A call that changes the disk: others may come before it, and it may fail.
    fn change<T>(&self, call: impl FnOnce(&mut Log) -> io::Result<T>) -> io::Result<T> {
        turns::pause();
        let log = &mut *self.log.lock().unwrap();
        log.calls += 1;
        if log.fails.calls.contains(&log.calls) {
            return Err(Errno::EIO.into());
        }
        call(log)
    }

    fn moved(
        &self,
        from: (BorrowedFd<'_>, &str),
        to: (BorrowedFd<'_>, &str),
        call: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.change(|log| {
            self.same_device(from.0, to.0)?;
            let node = log.node(inner(from.0, from.1)?);
            let replaced = inner(to.0, to.1).ok().map(|replaced| log.node(replaced));
            call()?;
            let (from_dir, to_dir) = (log.node(real(from.0)?), log.node(real(to.0)?));
            log.entry(to_dir, to.1, Some(node));
            if self.mutation == Mutation::Unnamed && log.links.get(&node) == Some(&0) {
                log.linked(node, 1);
            } else {
                log.entry(from_dir, from.1, None);
            }
            // A disk may free the file before it forgets that the name leads there.
            if let Some(replaced) = replaced {
                log.linked(replaced, -1);
            }
            Ok(())
        })
    }

    fn same_device(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        if self.identity_of(from)?.device == self.identity_of(to)?.device {
            Ok(())
        } else {
            Err(Errno::EXDEV.into())
        }
    }

    /// Notes that a directory lies on the other device, where its name or that of its parent says so.
    fn place(&self, dir: BorrowedFd<'_>, name: &OsStr, opened: &OwnedFd) -> io::Result<()> {
        let mut nodes = self.elsewhere_nodes.lock().unwrap();
        if self.elsewhere.is_some_and(|other| name == other) || nodes.contains(&real(dir)?) {
            nodes.insert(real(opened.as_fd())?);
        }
        Ok(())
    }

    fn seen(&self, mut identity: FileId) -> FileId {
        if self.elsewhere_nodes.lock().unwrap().contains(&identity) {
            identity.device ^= 1 << 20;
        }
        identity
    }
}

/// The inode of a descriptor.
fn real(file: BorrowedFd<'_>) -> io::Result<FileId> {
    Real.identity_of(file)
}

/// The inode of a name in a directory.
fn inner(dir: BorrowedFd<'_>, name: &str) -> io::Result<FileId> {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    Ok(nix::sys::stat::fstatat(dir, name, flags)?.into())
}

impl Disk for Recorder {
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        Real.open(path)
    }
    fn open_in(&self, dir: BorrowedFd<'_>, name: &OsStr, follow: bool) -> io::Result<OwnedFd> {
        turns::pause();
        let opened = Real.open_in(dir, name, follow)?;
        if self.elsewhere.is_some() && !Path::new(name).is_absolute() {
            self.place(dir, name, &opened)?;
        }
        Ok(opened)
    }
    fn identity(&self, path: &Path) -> io::Result<FileId> {
        Ok(self.seen(Real.identity(path)?))
    }
    fn identity_of(&self, dir: BorrowedFd<'_>) -> io::Result<FileId> {
        Ok(self.seen(real(dir)?))
    }
    fn make_dir(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.change(|log| {
            Real.make_dir(dir, name)?;
            let name = name.to_str().unwrap();
            let node = log.make(inner(dir, name)?, name, true);
            let dir = log.node(real(dir)?);
            log.entry(dir, name, Some(node));
            Ok(())
        })
    }
    fn owner_and_mode(&self, dir: BorrowedFd<'_>) -> io::Result<(u32, nix::sys::stat::Mode)> {
        Real.owner_and_mode(dir)
    }
    fn give(&self, file: BorrowedFd<'_>, to: Owner) -> io::Result<()> {
        Real.give(file, to)
    }
    fn make_traversable(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        Real.make_traversable(dir)
    }
    fn create(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<File> {
        self.change(|log| {
            let created = Real.create(dir, name)?;
            let file = log.make(real(created.as_fd())?, name, false);
            let dir = log.node(real(dir)?);
            if self.mutation == Mutation::Unnamed {
                log.linked(file, 0);
            } else {
                log.entry(dir, name, Some(file));
                log.linked(file, 1);
            }
            Ok(created)
        })
    }
    fn existing(&self, dir: BorrowedFd<'_>, name: &str, append: bool) -> io::Result<File> {
        Real.existing(dir, name, append)
    }
    fn write(&self, to: &File, octets: &[u8]) -> io::Result<usize> {
        self.change(|log| {
            let written = Real.write(to, octets)?;
            // The end of a long write is enough to identify it.
            let begin = if written > 4096 { written - 64 } else { 0 };
            let octets = octets[begin..written].into();
            let file = log.node(real(to.as_fd())?);
            log.push(Event::Data { file, octets });
            Ok(written)
        })
    }
    fn sync(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        turns::pause();
        let begun = self.log.lock().unwrap().history.events.len();
        let outcome = self.change(|log| {
            let node = log.node(real(file)?);
            log.syncs += 1;
            if log.fails.syncs.contains(&log.syncs) {
                return Err(Errno::EIO.into());
            }
            match self.mutation {
                Mutation::Unsynced(unsynced) if unsynced == node => {}
                Mutation::Late(late) if late == node => log.late.push(node),
                Mutation::Retried(retried) if retried == node && !log.retried => {
                    log.retried = true;
                    log.synced(node, begun, false);
                    log.synced(node, log.history.events.len(), true);
                }
                _ => log.synced(node, begun, true),
            }
            Ok(())
        });
        if outcome.is_err() {
            let log = &mut *self.log.lock().unwrap();
            let node = log.node(real(file)?);
            log.synced(node, begun, false);
        }
        outcome
    }
    fn sync_all(&self, _: BorrowedFd<'_>) {
        self.log.lock().unwrap().of_all += 1;
    }
    fn link(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()> {
        if let Some(errno) = self.no_links {
            return Err(errno.into());
        }
        self.change(|log| {
            self.same_device(from.0, to.0)?;
            let file = log.node(inner(from.0, from.1)?);
            Real.link(from, to)?;
            let dir = log.node(real(to.0)?);
            log.entry(dir, to.1, Some(file));
            log.linked(file, 1);
            Ok(())
        })
    }
    fn rename(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()> {
        self.moved(from, to, || Real.rename(from, to))
    }
    fn replace(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()> {
        self.moved(from, to, || Real.replace(from, to))
    }
    fn unlink(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.change(|log| {
            let name = name.to_str().unwrap();
            let file = log.node(inner(dir, name)?);
            Real.unlink(dir, OsStr::new(name))?;
            let dir = log.node(real(dir)?);
            // A file that has no name yet has none to lose.
            if log.links.get(&file) != Some(&0) {
                log.entry(dir, name, None);
                log.linked(file, -1);
            }
            Ok(())
        })
    }
    fn list(&self, dir: BorrowedFd<'_>, each: &mut dyn FnMut(&OsStr) -> bool) -> io::Result<()> {
        Real.list(dir, each)
    }
}
