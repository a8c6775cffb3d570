//! The fault tests: a disk that fails its n-th call, for every n, and the check that a message is either
//! acknowledged and whole in every mailbox, or refused and in none.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use super::disk::{Disk, FileId, Real};
use super::junk::JunkField;
use super::store::Store;
use super::target::{Form, Group, Owner, Quota, Sync, Target};
use super::trace::Trace;
pub(super) use crate::testing::Scratch;

pub(super) fn target(scratch: &Scratch, user: &str) -> Target {
    Target {
        root: Arc::from(scratch.0.as_path()),
        maildir: scratch.0.join("example.org").join(user),
        may_create: true,
        folder: None,
        address: format!("{user}@example.org"),
        original: None,
        quota: None,
        owner: None,
    }
}

pub(super) fn trace() -> Trace<'static> {
    Trace {
        reverse_path: "from@example.com",
        helo: "client",
        peer: "[192.0.2.1]",
        hostname: "mx.example.org",
        protocol: "ESMTP",
        recipient: None,
        user: None,
        submission: false,
    }
}

/// Every target as a recipient of its own.
pub(super) fn each_alone(targets: &[Arc<Target>]) -> Vec<Group> {
    let group = |target: &Arc<Target>| Group::One(Arc::clone(target));
    targets.iter().map(group).collect()
}

/// The files in a Maildir's subdirectory.
pub(super) fn files(maildir: &Path, part: &str) -> Vec<PathBuf> {
    let Ok(dir) = fs::read_dir(maildir.join(part)) else {
        return Vec::new();
    };
    dir.map(|entry| entry.unwrap().path()).collect()
}

type Meanwhile = Arc<dyn Fn(&OsStr) + Send + std::marker::Sync>;

/// The faults of a disk.
#[derive(Clone, Default)]
pub(super) struct Script {
    pub(super) calls: Arc<AtomicUsize>,
    /// How many directories were read.
    pub(super) lists: Arc<AtomicUsize>,
    pub(super) fired: Arc<AtomicBool>,
    /// The call that fails, counted from 1.
    pub(super) fail_at: usize,
    pub(super) errno: Option<Errno>,
    /// The error of every link(2), if any.
    pub(super) no_links: Option<Errno>,
    /// A device on which a kind of call always fails.
    pub(super) bad_device: Option<(nix::libc::dev_t, &'static str, Errno)>,
    /// True if the message is junk, and the mailboxes have a folder for it.
    pub(super) junk: bool,
    /// Called when a directory was created, with its name: another process that interferes.
    pub(super) meanwhile: Option<Meanwhile>,
}

impl Script {
    fn call<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.fail_at {
            self.fired.store(true, Ordering::Relaxed);
            return Err(self.errno.unwrap().into());
        }
        call()
    }

    /// Fails if this kind of call is to fail on the device of a file or directory.
    fn on(&self, file: BorrowedFd<'_>, call: &str) -> io::Result<()> {
        match self.bad_device {
            Some((device, kind, errno))
                if kind == call && Real.identity_of(file)?.device == device =>
            {
                Err(errno.into())
            }
            _ => Ok(()),
        }
    }
}

impl Disk for Script {
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        self.call(|| Real.open(path))
    }
    fn open_in(&self, dir: BorrowedFd<'_>, name: &OsStr, follow: bool) -> io::Result<OwnedFd> {
        self.call(|| Real.open_in(dir, name, follow))
    }
    fn identity(&self, path: &Path) -> io::Result<FileId> {
        self.call(|| Real.identity(path))
    }
    fn identity_of(&self, dir: BorrowedFd<'_>) -> io::Result<FileId> {
        self.call(|| Real.identity_of(dir))
    }
    fn make_dir(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.call(|| Real.make_dir(dir, name))?;
        if let Some(act) = &self.meanwhile {
            act(name);
        }
        Ok(())
    }
    fn owner_and_mode(&self, dir: BorrowedFd<'_>) -> io::Result<(u32, nix::sys::stat::Mode)> {
        self.call(|| Real.owner_and_mode(dir))
    }
    fn give(&self, file: BorrowedFd<'_>, to: Owner) -> io::Result<()> {
        self.call(|| Real.give(file, to))
    }
    fn make_traversable(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        self.call(|| Real.make_traversable(dir))
    }
    fn create(&self, dir: BorrowedFd<'_>, name: &str) -> io::Result<File> {
        self.on(dir, "create")?;
        self.call(|| Real.create(dir, name))
    }
    fn existing(&self, dir: BorrowedFd<'_>, name: &str, append: bool) -> io::Result<File> {
        self.call(|| Real.existing(dir, name, append))
    }
    fn write(&self, file: &File, octets: &[u8]) -> io::Result<usize> {
        self.on(file.as_fd(), "write")?;
        // Short writes, always (F06).
        let half = octets.get(..octets.len().div_ceil(2)).unwrap();
        self.call(|| Real.write(file, if octets.len() > 100 { half } else { octets }))
    }
    fn sync(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.on(file, "sync")?;
        if fstat(file).is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode) == SFlag::S_IFDIR)
        {
            self.on(file, "sync of a directory")?;
        }
        // These tests cut no power, so it is enough that a sync was requested.
        self.call(|| Ok(()))
    }
    fn link(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()> {
        self.call(|| {
            self.no_links
                .map_or_else(|| Real.link(from, to), |e| Err(e.into()))
        })
    }
    fn rename(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()> {
        self.call(|| Real.rename(from, to))
    }
    fn replace(&self, from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> io::Result<()> {
        self.call(|| Real.replace(from, to))
    }
    fn unlink(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.call(|| Real.unlink(dir, name))
    }
    fn list(&self, dir: BorrowedFd<'_>, each: &mut dyn FnMut(&OsStr) -> bool) -> io::Result<()> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.call(|| Real.list(dir, each))
    }
}

const BODY: &str = "Subject: x\n\nThe end of it.\n";

/// One delivery on a disk with the faults of `script`, with directories that are open already if `warm`. True if the
/// fault occurred.
fn attempt(script: &Script, users: &[&str], quota: Option<Quota>, each: bool, warm: bool) -> bool {
    let scratch = Scratch::new();
    let targets: Vec<Target> = users
        .iter()
        .map(|user| Target {
            quota: quota.clone(),
            ..target(&scratch, user)
        })
        .collect();
    let store = Store::with_disk("mx", Sync::Full, 100, Box::new(script.clone()));
    let store = store.with_junk(JunkField::parse("Subject:x").into_iter().collect());
    let shared: Vec<Arc<Target>> = targets.iter().cloned().map(Arc::new).collect();
    let place = |target: &Target| match script.junk {
        true => target.maildir.join(".Junk"),
        false => target.maildir.clone(),
    };
    for target in targets.iter().filter(|_| script.junk) {
        fs::create_dir_all(place(target)).unwrap();
    }
    if warm {
        let before = script.calls.swap(usize::MAX / 2, Ordering::Relaxed);
        for target in &shared {
            let dirs = store.context.dirs(target).unwrap();
            store.context.keep(target, &dirs);
        }
        script.calls.store(before, Ordering::Relaxed);
    }
    let mut spool = store.begin(&trace(), each_alone(&shared), Form::Text, None);
    spool.write(BODY.as_bytes());
    let outcomes: Vec<bool> = if each {
        spool
            .commit_each()
            .into_iter()
            .map(|outcome| outcome.is_ok())
            .collect()
    } else {
        vec![spool.commit().is_ok(); users.len()]
    };
    let context = format!("{:?} at {}, {users:?}", script.errno, script.fail_at);
    for (target, delivered) in targets.iter().zip(outcomes) {
        let mut new = files(&place(target), "new");
        if script.junk {
            // After an error in the folder.
            new.extend(files(&target.maildir, "new"));
        }
        assert_eq!(new.len(), usize::from(delivered), "{context}: new");
        for file in new {
            let text = fs::read_to_string(&file).unwrap();
            assert!(
                text.starts_with("Return-Path") && text.ends_with(BODY),
                "{context}: whole"
            );
            assert!(
                file.to_str()
                    .unwrap()
                    .ends_with(&format!(",S={}", text.len())),
                "{context}: size"
            );
        }
        let tmp = [&target.maildir, &place(target)].map(|place| files(place, "tmp"));
        let tmp = tmp.concat();
        assert!(delivered || tmp.is_empty(), "{context}: tmp {tmp:?}");
    }
    script.fired.load(Ordering::Relaxed)
}

/// Every call in turn, until a run needs fewer calls than that.
fn every_call(script: &Script, users: &[&str], quota: Option<&Quota>) {
    for errno in [
        Errno::EIO,
        Errno::ENOSPC,
        Errno::EDQUOT,
        Errno::EMFILE,
        Errno::EROFS,
    ] {
        for (each, warm) in [(false, false), (true, false), (false, true), (true, true)] {
            let fail = |fail_at| Script {
                fail_at,
                errno: Some(errno),
                calls: Arc::default(),
                fired: Arc::default(),
                ..script.clone()
            };
            let mut n = 1;
            while attempt(&fail(n), users, quota.cloned(), each, warm) {
                n += 1;
            }
            assert!(n > 6, "{n} calls");
        }
    }
}

/// F01–F04, F07–F09, F12, F21, F23
#[test]
fn one_target() {
    every_call(&Script::default(), &["a"], None);
}

/// R067, R214
#[test]
fn three_targets() {
    every_call(&Script::default(), &["a", "b", "c"], None);
}

/// Other file systems, and those without links.
#[test]
fn copies() {
    for errno in [Errno::EXDEV, Errno::EACCES, Errno::ENOSYS, Errno::EIO] {
        let script = Script {
            no_links: Some(errno),
            ..Script::default()
        };
        every_call(&script, &["a"], None);
        every_call(&script, &["a", "b", "c"], None);
    }
}

/// Into another folder than that of the temporary file.
#[test]
fn junk() {
    let quota = Quota {
        bytes: Some(100_000),
        messages: None,
    };
    let script = Script {
        junk: true,
        ..Script::default()
    };
    every_call(&script, &["a"], None);
    every_call(&script, &["a", "b", "c"], Some(&quota));
    let script = Script {
        no_links: Some(Errno::EXDEV),
        ..script
    };
    every_call(&script, &["a", "b"], None);
}

/// F05
#[test]
fn with_quotas() {
    let quota = Quota {
        bytes: Some(100_000),
        messages: None,
    };
    every_call(&Script::default(), &["a"], Some(&quota));
    every_call(&Script::default(), &["a", "b", "c"], Some(&quota));
}

/// A file system that cannot sync directories accepts mail; one on which that fails does not.
#[test]
fn directories_that_cannot_be_synced() {
    let scratch = Scratch::new();
    let device = Real.identity(&scratch.0).unwrap().device;
    for (errno, taken) in [
        (Errno::EINVAL, true),
        (Errno::EBADF, true),
        (Errno::ENOSYS, true),
        (Errno::EOPNOTSUPP, true),
        (Errno::EIO, false),
        (Errno::ENOSPC, false),
    ] {
        let unsynced = Script {
            bad_device: Some((device, "sync of a directory", errno)),
            ..Script::default()
        };
        for (number, users) in [&["a"][..], &["a", "b"]].into_iter().enumerate() {
            let names: Vec<String> = users
                .iter()
                .map(|u| format!("{u}{number}{errno}"))
                .collect();
            let group = |name: &String| Group::One(Arc::new(target(&scratch, name)));
            let groups: Vec<Group> = names.iter().map(group).collect();
            let store = Store::with_disk("mx", Sync::Full, 100, Box::new(unsynced.clone()));
            let mut spool = store.begin(&trace(), groups, Form::Text, None);
            spool.write(BODY.as_bytes());
            assert_eq!(spool.commit().is_ok(), taken, "{errno}");
        }
    }
    // A file that cannot be synced is always an error.
    let unsynced = Script {
        bad_device: Some((device, "sync", Errno::EINVAL)),
        ..Script::default()
    };
    let store = Store::with_disk("mx", Sync::Full, 100, Box::new(unsynced));
    let group = Group::One(Arc::new(target(&scratch, "a")));
    let mut spool = store.begin(&trace(), vec![group], Form::Text, None);
    spool.write(BODY.as_bytes());
    assert!(spool.commit().is_err());
}
