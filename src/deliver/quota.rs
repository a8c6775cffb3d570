//! Maildir++ quotas, in the file `maildirsize`, which Courier and Dovecot use as well. Its first line is the quota
//! (`1000000S,100C`), each later one adds a size in octets and a number of messages, both negative for removals. It is
//! recalculated if it is missing, longer than 5,120 octets or made for another quota, and also if it is over quota but
//! has several lines or is 15 minutes old. Trash is not counted.
//!
//! Room is reserved before a message becomes visible. Within the process this is exact: each mailbox has a lock, and
//! reservations for messages that are not in `new/` yet are known, so that a recalculation includes them. Because of
//! other processes the file is read again after appending a line, and if it is over quota then, a negative line takes
//! it back. An error of the file itself never refuses a message (F05); it is logged. If the file cannot be written, the
//! mailbox is not counted again for a minute.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::disk::{self, Disk, errno};
use super::maildir::OpenMaildir;
use super::refusal::Trouble;
use super::target::{Quota, TRASH, Target};
use crate::clock;
use crate::lock::lock;
use crate::warnings::warn;

/// The file, in the Maildir itself.
const NAME: &str = "maildirsize";

/// A longer file is recalculated.
const LONGEST: u64 = 5120;

/// At this age a file that is over quota is recalculated.
const STALE: Duration = Duration::from_secs(15 * 60);

/// How long a mailbox is not counted again after a count could not be written: RCPT asks for it, so any stranger can.
const PAUSE: Duration = Duration::from_secs(60);

/// Maximum mailboxes with a lock; past it unused ones are dropped.
const LEDGER_MAX: usize = 1_000;

impl Quota {
    /// The definition line of `maildirsize`, without its end; empty without a limit.
    fn definition(&self) -> String {
        let part =
            |limit: Option<u64>, unit| limit.filter(|&n| n > 0).map(|n| format!("{n}{unit}"));
        let parts: Vec<String> = [part(self.bytes, 'S'), part(self.messages, 'C')]
            .into_iter()
            .flatten()
            .collect();
        parts.join(",")
    }

    /// Parses a definition line, ignoring unknown units.
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

    /// True if the usage is within the quota.
    fn holds(&self, used: Used) -> bool {
        let within = |used: i64, limit: Option<u64>| {
            limit
                .filter(|&n| n > 0)
                .is_none_or(|limit| u64::try_from(used).unwrap_or(0) <= limit)
        };
        within(used.bytes, self.bytes) && within(used.messages, self.messages)
    }
}

/// Reservations for messages that are not visible yet, by mailbox.
#[derive(Default)]
pub(super) struct Ledger {
    mailboxes: Mutex<HashMap<PathBuf, Arc<Mutex<LedgerEntry>>>>,
}

/// What the process knows of a mailbox.
#[derive(Default)]
struct LedgerEntry {
    /// Messages that are not visible yet.
    pending: Used,
    /// When it may be counted again, if a count could not be written.
    not_before: Option<Instant>,
}

/// The outcome of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reservation {
    /// [`Ledger::release`] returns the room if the message fails.
    Made,
    /// There is no quota, or its file had an error.
    Unrecorded,
    /// The mailbox is full.
    Full,
}

impl Ledger {
    /// True if a message of `octets` fits, or if the file cannot be read.
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
        let mut entry = lock(&mailbox);
        enough(disk, dirs, quota, octets, &mut entry).unwrap_or_else(|fault| {
            fault.log("checked", &target.maildir);
            true
        })
    }

    /// Reserves room for a message of `octets`.
    pub(super) fn reserve(
        &self,
        disk: &dyn Disk,
        dirs: &OpenMaildir,
        target: &Target,
        octets: u64,
    ) -> Reservation {
        let Some(quota) = limiting(target) else {
            return Reservation::Unrecorded;
        };
        let mailbox = self.mailbox(&target.maildir);
        let mut entry = lock(&mailbox);
        let taken = match enough(disk, dirs, quota, octets, &mut entry) {
            Ok(false) => return Reservation::Full,
            Ok(true) => append(disk, dirs, signed(octets), 1),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = taken {
            fault.log("kept", &target.maildir);
            return Reservation::Unrecorded;
        }
        // Another process was quicker.
        if overrun(dirs, disk, quota) {
            give_back(disk, dirs, (target, quota), octets, entry.pending);
            return Reservation::Full;
        }
        entry.pending.add(signed(octets), 1);
        Reservation::Made
    }

    /// Makes a message of `octets` visible by `make`, which turns its reservation into usage.
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
        let mut entry = lock(&mailbox);
        make()?;
        entry.pending.add(-signed(octets), -1);
        Ok(())
    }

    /// Returns the room of a message if `gone` removes it; `was_pending` is true if it was not visible yet.
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
        let mut entry = lock(&mailbox);
        if was_pending {
            entry.pending.add(-signed(octets), -1);
        }
        if gone() {
            give_back(disk, dirs, (target, quota), octets, entry.pending);
        }
    }

    /// The lock of a mailbox, with its reservations.
    fn mailbox(&self, maildir: &Path) -> Arc<Mutex<LedgerEntry>> {
        let mut mailboxes = lock(&self.mailboxes);
        if let Some(mailbox) = mailboxes.get(maildir) {
            return Arc::clone(mailbox);
        }
        if mailboxes.len() >= LEDGER_MAX {
            let idle = |mailbox: &Arc<Mutex<LedgerEntry>>| {
                Arc::strong_count(mailbox) == 1 && lock(mailbox).pending == Used::default()
            };
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

/// Takes a line back. A damaged file is recalculated.
fn give_back(
    disk: &dyn Disk,
    dirs: &OpenMaildir,
    (target, quota): (&Target, &Quota),
    octets: u64,
    pending: Used,
) {
    let given = match load(disk, disk::fd(&dirs.base)) {
        Ok(Some(_)) => append(disk, dirs, -signed(octets), -1),
        Ok(None) => recount(disk, dirs, quota, pending).map(drop),
        Err(fault) => Err(fault),
    };
    if let Err(fault) = given {
        fault.log("given back", &target.maildir);
    }
}

/// An error with its call and its place in the Maildir.
struct Fault {
    call: &'static str,
    place: &'static str,
    /// `None` if it was reported shortly before.
    error: Option<io::Error>,
}

impl Fault {
    fn at(call: &'static str, place: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self {
            call,
            place,
            error: Some(error),
        }
    }

    /// Logs what was not done with the quota of a Maildir.
    fn log(self, done: &str, maildir: &Path) {
        if let Some(error) = self.error {
            let trouble = Trouble::at(self.call, maildir.join(self.place))(error);
            // Any client can cause it by asking for a recipient.
            warn(&format!("quota not {done} {trouble}"));
        }
    }
}

/// True if the file, with the line just appended, is over quota.
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

impl LedgerEntry {
    /// Counts the mailbox, but not again shortly after a count that could not be written.
    fn recount(
        &mut self,
        disk: &dyn Disk,
        dirs: &OpenMaildir,
        quota: &Quota,
    ) -> Result<Used, Fault> {
        let now = Instant::now();
        if self.not_before.is_some_and(|time| now < time) {
            return Err(Fault {
                call: "rename",
                place: NAME,
                error: None,
            });
        }
        let used = recount(disk, dirs, quota, self.pending);
        self.not_before = used.is_err().then(|| now + PAUSE);
        used
    }
}

/// Checks the quota, recalculating as the rules demand.
fn enough(
    disk: &dyn Disk,
    dirs: &OpenMaildir,
    quota: &Quota,
    octets: u64,
    entry: &mut LedgerEntry,
) -> Result<bool, Fault> {
    let fits = |mut used: Used| {
        used.add(signed(octets), 1);
        quota.holds(used)
    };
    // A message that does not even fit into an empty mailbox.
    if !fits(Used::default()) {
        return Ok(false);
    }
    let same = |file: &File| file.quota.definition() == quota.definition();
    match load(disk, disk::fd(&dirs.base))?.filter(same) {
        Some(file) if fits(file.used) => Ok(true),
        Some(file) if file.lines <= 1 && file.age < STALE => Ok(false),
        _ => Ok(fits(entry.recount(disk, dirs, quota)?)),
    }
}

/// Reads the file; `None` if it must be recalculated.
fn load(disk: &dyn Disk, base: BorrowedFd<'_>) -> Result<Option<File>, Fault> {
    let file = match disk.existing(base, NAME, false) {
        Err(e) if errno(&e) == Some(Errno::ENOENT) => return Ok(None),
        other => other.map_err(Fault::at("open", NAME))?,
    };
    let changed = file.metadata().and_then(|found| found.modified());
    let changed = changed.map_err(Fault::at("fstat", NAME))?;
    let age = changed.elapsed().unwrap_or_default();
    let mut text = String::new();
    if file.take(LONGEST + 1).read_to_string(&mut text).is_err() || text.len() as u64 > LONGEST {
        return Ok(None);
    }
    Ok(parse(&text, age))
}

/// Parses the text of the file; `None` if it is damaged: a truncated last line, a negative sum, a line that is not two
/// numbers.
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

/// Adds a line, in one write so that lines of several processes do not mix.
fn append(disk: &dyn Disk, dirs: &OpenMaildir, bytes: i64, messages: i64) -> Result<(), Fault> {
    let file = disk.existing(disk::fd(&dirs.base), NAME, true);
    let file = file.map_err(Fault::at("open", NAME))?;
    let line = format!("{bytes} {messages}\n");
    disk::write_all(disk, &file, line.as_bytes()).map_err(Fault::at("write", NAME))
}

/// Counts the messages of the whole Maildir and the pending ones, rewrites the file and returns the sums.
fn recount(
    disk: &dyn Disk,
    dirs: &OpenMaildir,
    quota: &Quota,
    pending: Used,
) -> Result<Used, Fault> {
    let base = disk::fd(&dirs.base);
    let mut used = pending;
    count(disk, base, &mut used)?;
    let mut folders = Vec::new();
    disk.list(base, &mut |name| {
        if name.as_bytes().first() == Some(&b'.') && name != TRASH {
            folders.push(name.to_owned());
        }
        true
    })
    .map_err(Fault::at("readdir", ""))?;
    for folder in folders {
        if let Ok(dir) = disk.open_in(base, &folder, false) {
            count(disk, disk::fd(&dir), &mut used)?;
        }
    }
    let temporary = format!("{}.{NAME}", clock::unique());
    // A folder may be another file system, from which the file could not be moved.
    let inbox = disk.open_in(base, "tmp".as_ref(), false);
    let tmp = disk::fd(inbox.as_ref().unwrap_or(&dirs.tmp));
    let file = disk.create(tmp, &temporary);
    let file = file.map_err(Fault::at("open", "tmp"))?;
    let text = format!("{}\n{} {}\n", quota.definition(), used.bytes, used.messages);
    let given = dirs
        .owner
        .map_or(Ok(()), |to| disk.give(disk::fd(&file), to))
        .map_err(Fault::at("fchown", NAME));
    let write = || disk::write_all(disk, &file, text.as_bytes());
    let rename = || disk.replace((tmp, &temporary), (base, NAME));
    let made = given
        .and_then(|()| write().map_err(Fault::at("write", NAME)))
        .and_then(|()| rename().map_err(Fault::at("rename", NAME)));
    if made.is_err() {
        let _ = disk.unlink(tmp, OsStr::new(&temporary));
    }
    made.map(|()| used)
}

/// Adds up `cur/` and `new/` of the inbox or a folder.
fn count(disk: &dyn Disk, dir: BorrowedFd<'_>, used: &mut Used) -> Result<(), Fault> {
    for name in ["cur", "new"] {
        let part = match disk.open_in(dir, name.as_ref(), false) {
            Err(e) if matches!(errno(&e), Some(Errno::ENOENT | Errno::ENOTDIR)) => continue,
            other => other.map_err(Fault::at("open", name))?,
        };
        let listed = disk.list(disk::fd(&part), &mut |name| {
            if name.as_bytes().first() == Some(&b'.') {
                return true;
            }
            // A file that a reader has just moved is missed now; the next count will include it.
            if let Some(octets) = named_size(name).or_else(|| stat_size(disk::fd(&part), name)) {
                used.add(octets, 1);
            }
            true
        });
        listed.map_err(Fault::at("readdir", name))?;
    }
    Ok(())
}

/// The size in a file's name: `,S=123`, before the flags.
fn named_size(name: &OsStr) -> Option<i64> {
    let (_, size) = name.to_str()?.split_once(",S=")?;
    let digits = size
        .find(|c: char| !c.is_ascii_digit())
        .map_or(Some(size), |end| size.get(..end))?;
    digits.parse().ok()
}

/// The size by fstatat(2).
#[allow(
    clippy::useless_conversion,
    reason = "the widths differ between systems"
)]
fn stat_size(dir: BorrowedFd<'_>, name: &OsStr) -> Option<i64> {
    let found =
        nix::sys::stat::fstatat(dir, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    Some(found.st_size.into())
}

/// Converts a size for the sums.
fn signed(octets: u64) -> i64 {
    i64::try_from(octets).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
