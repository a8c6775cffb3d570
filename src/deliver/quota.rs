//! Quotas as Maildir++ keeps them, in the file `maildirsize` that Courier and Dovecot read and write too. Its first line
//! says for which quota it was made (`1000000S,100C`), each later one adds a size in octets and a count of messages, both
//! negative where mail went. It's made anew by counting when it is missing, longer than 5,120 octets or made for
//! another quota; also when it says "full" but has several lines or is 15 minutes old. Trash isn't counted.
//!
//! Room is taken before a message becomes visible. Within the process it is exact: each mailbox has a lock, and what was
//! taken for messages that are not in `new/` yet is known, so that counting anew forgets none of them. Beside other
//! processes the file is read again after the line was appended, and where the sum is over the quota now the line is
//! taken back by its negative. Trouble with the file itself never costs a message (F05): it's logged.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::errno::Errno;

use super::disk::{self, Disk, errno};
use super::maildir::OpenMaildir;
use super::target::{Quota, TRASH, Target};
use crate::clock;
use crate::lock::lock;

/// The file, in the Maildir itself.
const NAME: &str = "maildirsize";

/// A longer file is made anew.
const LONGEST: u64 = 5120;

/// At this age a file that says "full" is doubted.
const STALE: Duration = Duration::from_secs(15 * 60);

/// Mailboxes whose locks are remembered; past it those that nobody holds are forgotten.
const LEDGER_MAX: usize = 1_000;

impl Quota {
    /// The definition line of `maildirsize`, without its end; empty where nothing is limited.
    fn definition(&self) -> String {
        let part =
            |limit: Option<u64>, unit| limit.filter(|&n| n > 0).map(|n| format!("{n}{unit}"));
        let parts: Vec<String> = [part(self.bytes, 'S'), part(self.messages, 'C')]
            .into_iter()
            .flatten()
            .collect();
        parts.join(",")
    }

    /// Reads a definition line; units that aren't known are passed over.
    fn parse(line: &str) -> Self {
        let mut quota = Self {
            bytes: None,
            messages: None,
        };
        for part in line.trim().split(',') {
            if let Some(octets) = part.strip_suffix('S') {
                quota.bytes = octets.parse().ok();
            } else if let Some(count) = part.strip_suffix('C') {
                quota.messages = count.parse().ok();
            }
        }
        quota
    }

    /// Whether so much is within the quota.
    fn holds(&self, used: Used) -> bool {
        let within = |used: i64, limit: Option<u64>| {
            limit
                .filter(|&n| n > 0)
                .is_none_or(|limit| u64::try_from(used).unwrap_or(0) <= limit)
        };
        within(used.bytes, self.bytes) && within(used.messages, self.messages)
    }
}

/// What was taken for messages on their way, by mailbox.
#[derive(Default)]
pub(super) struct Ledger {
    mailboxes: Mutex<HashMap<PathBuf, Arc<Mutex<Used>>>>,
}

impl Ledger {
    /// Whether a message of `octets` fits. What is read wrong counts as room.
    pub(super) fn fits(
        &self,
        disk: &dyn Disk,
        dirs: &OpenMaildir,
        target: &Target,
        octets: u64,
    ) -> bool {
        let Some(quota) = limiting(target) else {
            return true;
        };
        let mailbox = self.mailbox(&target.maildir);
        let pending = lock(&mailbox);
        enough(disk, dirs, quota, octets, *pending).unwrap_or_else(|e| {
            log::warn!(
                "quota not checked maildir={:?}: maildirsize: {e}",
                target.maildir
            );
            true
        })
    }

    /// Takes room for a message of `octets`. `Some(true)`: taken, to be given back by [`Self::release`] if the message
    /// fails. `Some(false)`: not written down, for trouble with the file or for want of a quota. `None`: full.
    pub(super) fn reserve(
        &self,
        disk: &dyn Disk,
        dirs: &OpenMaildir,
        target: &Target,
        octets: u64,
    ) -> Option<bool> {
        let Some(quota) = limiting(target) else {
            return Some(false);
        };
        let mailbox = self.mailbox(&target.maildir);
        let mut pending = lock(&mailbox);
        let taken = match enough(disk, dirs, quota, octets, *pending) {
            Ok(false) => return None,
            Ok(true) => append(disk, dirs, signed(octets), 1),
            Err(e) => Err(e),
        };
        if let Err(e) = taken {
            log::warn!(
                "quota not kept maildir={:?}: maildirsize: {e}",
                target.maildir
            );
            return Some(false);
        }
        // Another process was quicker.
        if overrun(dirs, disk, quota) {
            give_back(disk, dirs, quota, octets, *pending);
            return None;
        }
        pending.add(signed(octets), 1);
        Some(true)
    }

    /// Makes a message of `octets` visible that room was taken for: from then on it is counted where it lies.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn publish(
        &self,
        maildir: &Path,
        octets: u64,
        make: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mailbox = self.mailbox(maildir);
        let mut pending = lock(&mailbox);
        make()?;
        pending.add(-signed(octets), -1);
        Ok(())
    }

    /// Gives room back for a message that `gone` takes away, where it does; `pending` says that it was not visible yet.
    pub(super) fn release(
        &self,
        disk: &dyn Disk,
        dirs: &OpenMaildir,
        target: &Target,
        octets: u64,
        was_pending: bool,
        gone: impl FnOnce() -> bool,
    ) {
        let Some(quota) = limiting(target) else {
            return;
        };
        let mailbox = self.mailbox(&target.maildir);
        let mut pending = lock(&mailbox);
        if was_pending {
            pending.add(-signed(octets), -1);
        }
        if gone() {
            give_back(disk, dirs, quota, octets, *pending);
        }
    }

    /// The lock of a mailbox, and what is taken in it.
    fn mailbox(&self, maildir: &Path) -> Arc<Mutex<Used>> {
        let mut mailboxes = lock(&self.mailboxes);
        if let Some(mailbox) = mailboxes.get(maildir) {
            return Arc::clone(mailbox);
        }
        if mailboxes.len() >= LEDGER_MAX {
            let idle =
                |m: &Arc<Mutex<Used>>| Arc::strong_count(m) == 1 && *lock(m) == Used::default();
            mailboxes.retain(|_, mailbox| !idle(mailbox));
        }
        Arc::clone(mailboxes.entry(maildir.to_owned()).or_default())
    }
}

/// The quota that limits a target.
fn limiting(target: &Target) -> Option<&Quota> {
    let quota = target.counted_quota()?;
    (!quota.definition().is_empty()).then_some(quota)
}

/// Takes a line back. A file that makes no sense is counted anew.
fn give_back(disk: &dyn Disk, dirs: &OpenMaildir, quota: &Quota, octets: u64, pending: Used) {
    let given = match load(disk, disk::fd(&dirs.base)) {
        Ok(Some(_)) => append(disk, dirs, -signed(octets), -1),
        Ok(None) => recount(disk, dirs, quota, pending).map(drop),
        Err(e) => Err(e),
    };
    if let Err(e) = given {
        log::warn!(
            "quota not given back path={:?}: maildirsize: {e}",
            dirs.path
        );
    }
}

/// Whether the file, with the line just appended, is over the quota.
fn overrun(dirs: &OpenMaildir, disk: &dyn Disk, quota: &Quota) -> bool {
    load(disk, disk::fd(&dirs.base))
        .is_ok_and(|file| file.is_some_and(|file| !quota.holds(file.used)))
}

/// Sums of sizes and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    bytes: i64,
    messages: i64,
}

impl Used {
    fn add(&mut self, bytes: i64, messages: i64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.messages = self.messages.saturating_add(messages);
    }
}

/// A `maildirsize` file as read.
struct File {
    quota: Quota,
    used: Used,
    lines: usize,
    age: Duration,
}

/// The check with its rules of when to count anew.
fn enough(
    disk: &dyn Disk,
    dirs: &OpenMaildir,
    quota: &Quota,
    octets: u64,
    pending: Used,
) -> io::Result<bool> {
    let fits = |mut used: Used| {
        used.add(signed(octets), 1);
        quota.holds(used)
    };
    // Not even into an empty mailbox.
    if !fits(Used::default()) {
        return Ok(false);
    }
    let same = |file: &File| file.quota.definition() == quota.definition();
    match load(disk, disk::fd(&dirs.base))?.filter(same) {
        Some(file) if fits(file.used) => Ok(true),
        Some(file) if file.lines <= 1 && file.age < STALE => Ok(false),
        _ => Ok(fits(recount(disk, dirs, quota, pending)?)),
    }
}

/// Reads the file; `None` where it must be made anew.
fn load(disk: &dyn Disk, base: BorrowedFd<'_>) -> io::Result<Option<File>> {
    let file = match disk.existing(base, NAME, false) {
        Err(e) if errno(&e) == Some(Errno::ENOENT) => return Ok(None),
        other => other?,
    };
    let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
    let mut text = String::new();
    if file.take(LONGEST + 1).read_to_string(&mut text).is_err() || text.len() as u64 > LONGEST {
        return Ok(None);
    }
    Ok(parse(&text, age))
}

/// Reads the text of the file; `None` where it makes no sense: a last line cut short, a sum below zero, anything that
/// is not two numbers.
fn parse(text: &str, age: Duration) -> Option<File> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let mut file = File {
        quota: Quota::parse(lines.next()?),
        used: Used::default(),
        lines: 0,
        age,
    };
    for line in lines {
        let mut words = line.split_ascii_whitespace().map(str::parse::<i64>);
        match (words.next(), words.next(), words.next()) {
            (Some(Ok(bytes)), Some(Ok(messages)), None) => file.used.add(bytes, messages),
            _ => return None,
        }
        file.lines += 1;
    }
    (file.used.bytes >= 0 && file.used.messages >= 0).then_some(file)
}

/// Adds a line, in one write so that lines of several processes don't mix.
fn append(disk: &dyn Disk, dirs: &OpenMaildir, bytes: i64, messages: i64) -> io::Result<()> {
    let file = disk.existing(disk::fd(&dirs.base), NAME, true)?;
    disk::write_all(disk, &file, format!("{bytes} {messages}\n").as_bytes())
}

/// Counts the whole Maildir and what is pending, writes the file anew and returns the sums.
fn recount(disk: &dyn Disk, dirs: &OpenMaildir, quota: &Quota, pending: Used) -> io::Result<Used> {
    let base = disk::fd(&dirs.base);
    let mut used = pending;
    count(disk, base, &mut used)?;
    let mut folders = Vec::new();
    disk.list(base, &mut |name| {
        if name.as_bytes().first() == Some(&b'.') && name != TRASH {
            folders.push(name.to_owned());
        }
        true
    })?;
    for folder in folders {
        if let Ok(dir) = disk.open_in(base, &folder, false) {
            count(disk, disk::fd(&dir), &mut used)?;
        }
    }
    let temporary = format!("{}.{NAME}", clock::unique());
    let tmp = disk::fd(&dirs.tmp);
    let file = disk.create(tmp, &temporary)?;
    let text = format!("{}\n{} {}\n", quota.definition(), used.bytes, used.messages);
    let given = dirs
        .owner
        .map_or(Ok(()), |to| disk.give(disk::fd(&file), to));
    let written = given.and_then(|()| disk::write_all(disk, &file, text.as_bytes()));
    if let Err(e) = written.and_then(|()| disk.replace((tmp, &temporary), (base, NAME))) {
        let _ = disk.unlink(tmp, OsStr::new(&temporary));
        return Err(e);
    }
    Ok(used)
}

/// Adds up `cur/` and `new/` of the inbox or a folder.
fn count(disk: &dyn Disk, dir: BorrowedFd<'_>, used: &mut Used) -> io::Result<()> {
    for part in ["cur", "new"] {
        let part = match disk.open_in(dir, part.as_ref(), false) {
            Err(e) if matches!(errno(&e), Some(Errno::ENOENT | Errno::ENOTDIR)) => continue,
            other => other?,
        };
        disk.list(disk::fd(&part), &mut |name| {
            if name.as_bytes().first() == Some(&b'.') {
                return true;
            }
            // A file that a reader just moved counts nothing now; the next count will see it.
            if let Some(octets) = named_size(name).or_else(|| stat_size(disk::fd(&part), name)) {
                used.add(octets, 1);
            }
            true
        })?;
    }
    Ok(())
}

/// The size that a file's name tells: `,S=123`, before the flags.
fn named_size(name: &OsStr) -> Option<i64> {
    let (_, size) = name.to_str()?.split_once(",S=")?;
    let digits = size
        .find(|c: char| !c.is_ascii_digit())
        .map_or(Some(size), |end| size.get(..end))?;
    digits.parse().ok()
}

/// The size that the system tells.
fn stat_size(dir: BorrowedFd<'_>, name: &OsStr) -> Option<i64> {
    let found =
        nix::sys::stat::fstatat(dir, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    Some(found.st_size)
}

/// A size as the file's sums have it.
fn signed(octets: u64) -> i64 {
    i64::try_from(octets).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
