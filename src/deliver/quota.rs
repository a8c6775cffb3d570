//! Quotas as Maildir++ keeps them, in the file `maildirsize` that Courier and Dovecot read and write too. Its first line
//! says for which quota it was made (`1000000S,100C`), each later one adds a size in octets and a count of messages, both
//! negative where mail went. It's made anew by counting when it is missing, longer than 5,120 octets or made for
//! another quota; also when it says "full" but has several lines or is 15 minutes old. Trash isn't counted.
//!
//! Room is taken before a message becomes visible: a line is appended and the file read again, and where the sum is now
//! over the quota (another delivery was quicker) the line is taken back by its negative. Two racing messages may
//! both be refused, but not both go in. Trouble with the file itself never costs a message (F05): it's logged.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;

use super::disk::{self, Disk, errno};
use super::maildir::OpenMaildir;
use crate::clock;

/// The file, in the Maildir itself.
const NAME: &str = "maildirsize";

/// The folder that isn't counted.
pub(super) const TRASH: &str = ".Trash";

/// A longer file is made anew.
const LONGEST: u64 = 5120;

/// At this age a file that says "full" is doubted.
const STALE: Duration = Duration::from_secs(15 * 60);

/// How much a mailbox may hold. Zero and `None` both mean: any amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Octets of all messages.
    pub bytes: Option<u64>,
    /// Number of messages.
    pub messages: Option<u64>,
}

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

/// Whether a message of `octets` fits. What is read wrong counts as room.
pub(super) fn fits(disk: &dyn Disk, dirs: &OpenMaildir, quota: &Quota, octets: u64) -> bool {
    if quota.definition().is_empty() {
        return true;
    }
    enough(disk, dirs, quota, octets).unwrap_or_else(|e| {
        log::warn!("quota not checked: maildirsize: {e}");
        true
    })
}

/// Takes room for a message of `octets`. `Some(true)`: taken, to be given back by [`release`] if the message fails.
/// `Some(false)`: not written down, for trouble with the file or for want of a quota. `None`: full.
pub(super) fn reserve(
    disk: &dyn Disk,
    dirs: &OpenMaildir,
    quota: &Quota,
    octets: u64,
) -> Option<bool> {
    if quota.definition().is_empty() {
        return Some(false);
    }
    match enough(disk, dirs, quota, octets).and_then(|fits| {
        if !fits {
            return Ok(None);
        }
        append(disk, dirs, signed(octets), 1)?;
        Ok(Some(true))
    }) {
        Ok(Some(_)) if overrun(dirs, disk, quota) => {
            release(disk, dirs, octets);
            None
        }
        Ok(taken) => taken,
        Err(e) => {
            log::warn!("quota not kept: maildirsize: {e}");
            Some(false)
        }
    }
}

/// Gives room back.
pub(super) fn release(disk: &dyn Disk, dirs: &OpenMaildir, octets: u64) {
    if let Err(e) = append(disk, dirs, -signed(octets), -1) {
        log::warn!("quota not given back: maildirsize: {e}");
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

/// A `maildirsize` file as read.
struct File {
    quota: Quota,
    used: Used,
    lines: usize,
    age: Duration,
}

/// The check with its rules of when to count anew.
fn enough(disk: &dyn Disk, dirs: &OpenMaildir, quota: &Quota, octets: u64) -> io::Result<bool> {
    let fits = |used: Used| {
        let bytes = used.bytes.saturating_add(signed(octets));
        quota.holds(Used {
            bytes,
            messages: used.messages.saturating_add(1),
        })
    };
    // Not even into an empty mailbox.
    if !fits(Used::default()) {
        return Ok(false);
    }
    let same = |file: &File| file.quota.definition() == quota.definition();
    match load(disk, disk::fd(&dirs.base))?.filter(same) {
        Some(file) if fits(file.used) => Ok(true),
        Some(file) if file.lines <= 1 && file.age < STALE => Ok(false),
        _ => Ok(fits(recount(disk, dirs, quota)?)),
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

/// Reads the text of the file; `None` where it makes no sense.
fn parse(text: &str, age: Duration) -> Option<File> {
    let mut lines = text.lines();
    let mut file = File {
        quota: Quota::parse(lines.next()?),
        used: Used::default(),
        lines: 0,
        age,
    };
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        let (bytes, messages) = (
            words.next()?.parse::<i64>().ok()?,
            words.next()?.parse::<i64>().ok()?,
        );
        file.used.bytes = file.used.bytes.saturating_add(bytes);
        file.used.messages = file.used.messages.saturating_add(messages);
        file.lines += 1;
    }
    Some(file)
}

/// Adds a line, in one write so that lines of several processes don't mix.
fn append(disk: &dyn Disk, dirs: &OpenMaildir, bytes: i64, messages: i64) -> io::Result<()> {
    let file = disk.existing(disk::fd(&dirs.base), NAME, true)?;
    disk::write_all(disk, &file, format!("{bytes} {messages}\n").as_bytes())
}

/// Counts the whole Maildir, writes the file anew and returns the sums.
fn recount(disk: &dyn Disk, dirs: &OpenMaildir, quota: &Quota) -> io::Result<Used> {
    let base = disk::fd(&dirs.base);
    let mut used = Used::default();
    count(disk, base, &mut used)?;
    let mut folders = Vec::new();
    disk.list(base, &mut |name| {
        if name.as_bytes().first() == Some(&b'.') && name != TRASH {
            folders.push(name.to_owned());
        }
    })?;
    for folder in folders {
        if let Ok(dir) = disk.open_in(base, &folder, false) {
            count(disk, disk::fd(&dir), &mut used)?;
        }
    }
    let temporary = format!("{}.{NAME}", clock::unique());
    let tmp = disk.open_in(disk::fd(&dirs.new), "../tmp".as_ref(), false)?;
    let tmp = disk::fd(&tmp);
    let file = disk.create(tmp, &temporary)?;
    let text = format!("{}\n{} {}\n", quota.definition(), used.bytes, used.messages);
    let written = disk::write_all(disk, &file, text.as_bytes());
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
                return;
            }
            // A file that a reader just moved counts nothing now; the next count will see it.
            if let Some(octets) = named_size(name).or_else(|| stat_size(disk::fd(&part), name)) {
                used.bytes = used.bytes.saturating_add(octets);
                used.messages = used.messages.saturating_add(1);
            }
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
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::disk::Real;
    use super::super::faults::{Scratch, target};
    use super::super::maildir;
    use super::super::target::Sync;
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use std::time::SystemTime;

    const LIMIT: Quota = Quota {
        bytes: Some(1000),
        messages: Some(3),
    };

    fn mailbox(scratch: &Scratch) -> (OpenMaildir, PathBuf) {
        let target = target(scratch, "q");
        let dirs = maildir::open(&Real, Sync::None, &target).unwrap();
        (dirs, target.maildir.join(NAME))
    }

    #[test]
    fn file_is_made_by_counting_without_trash() {
        let scratch = Scratch::new();
        let (dirs, file) = mailbox(&scratch);
        let maildir = file.parent().unwrap();
        for folder in [".Trash/cur", ".Sent/cur"] {
            fs::create_dir_all(maildir.join(folder)).unwrap();
        }
        fs::write(maildir.join("cur/1.h,S=100:2,S"), "x").unwrap();
        fs::write(maildir.join("new/2.h"), "0123456789").unwrap();
        fs::write(maildir.join(".Sent/cur/3.h,S=5,W=6:2,"), "x").unwrap();
        fs::write(maildir.join(".Trash/cur/4.h,S=900"), "x").unwrap();
        assert!(
            !fits(&Real, &dirs, &LIMIT, 10),
            "three messages are there already"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), "1000S,3C\n115 3\n");
        // Another quota: counted anew.
        let wider = Quota {
            bytes: Some(1000),
            messages: None,
        };
        assert_eq!(reserve(&Real, &dirs, &wider, 885), Some(true));
        assert_eq!(fs::read_to_string(&file).unwrap(), "1000S\n115 3\n885 1\n");
        release(&Real, &dirs, 885);
        assert!(
            fs::read_to_string(&file)
                .unwrap()
                .ends_with("885 1\n-885 -1\n")
        );
    }

    #[test]
    fn full_is_doubted_by_the_rules() {
        let scratch = Scratch::new();
        let (dirs, file) = mailbox(&scratch);
        fs::write(&file, "1000S,3C\n1000 1\n").unwrap();
        assert!(!fits(&Real, &dirs, &LIMIT, 1), "one line, fresh: believed");
        let old = SystemTime::now() - Duration::from_secs(901);
        fs::File::options()
            .append(true)
            .open(&file)
            .unwrap()
            .set_modified(old)
            .unwrap();
        assert!(fits(&Real, &dirs, &LIMIT, 1), "15 minutes old: counted");
        fs::write(&file, "1000S,3C\n900 1\n100 1\n").unwrap();
        assert!(fits(&Real, &dirs, &LIMIT, 1), "two lines: counted");
        fs::write(&file, format!("1000S,3C\n{}", "1 0\n".repeat(1300))).unwrap();
        assert!(fits(&Real, &dirs, &LIMIT, 1), "too long: counted");
        fs::write(&file, "1000S,3C\nnonsense\n").unwrap();
        assert!(fits(&Real, &dirs, &LIMIT, 1), "nonsense: counted");
        assert_eq!(fs::read_to_string(&file).unwrap(), "1000S,3C\n0 0\n");
    }

    /// F22
    #[test]
    fn racing_messages_never_exceed() {
        let scratch = Scratch::new();
        let (dirs, file) = mailbox(&scratch);
        let taken: usize = std::thread::scope(|scope| {
            let reserve = || {
                (0..5)
                    .filter(|_| reserve(&Real, &dirs, &LIMIT, 300) == Some(true))
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(reserve)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        // A count from the (empty) Maildir may forget reservations whose messages aren't linked yet; lines never lie.
        assert!(taken >= 1, "{taken}");
        assert!(parse(&fs::read_to_string(&file).unwrap(), Duration::ZERO).is_some());
    }
}
