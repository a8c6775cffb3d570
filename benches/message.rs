//! The test message, and the check that it arrived. Each message has a number in its header; everything else is the
//! same octets, so that a mailbox is checked octet by octet without a copy of what was sent.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::DirEntryExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Digits of a message's number.
const DIGITS: usize = 12;
const FIELD: &str = "Message-ID: <";

/// Files in `new/` that were there before the run.
pub(crate) const FILLER: &str = "filler";

/// So long after its last 250 a server has to deliver what is in its queue.
const ARRIVAL: Duration = Duration::from_secs(60);

/// One message in its three spellings: after DATA (dots doubled, the end included), after BDAT, and on disk.
#[derive(Clone)]
pub(crate) struct Template {
    pub(crate) dotted: Vec<u8>,
    pub(crate) plain: Vec<u8>,
    stored: Vec<u8>,
    /// The position of the number in `dotted` and `plain`, and in `stored`.
    number: usize,
    number_stored: usize,
}

impl Template {
    /// A message of exactly `size` octets as it travels, without doubled dots and the end.
    pub(crate) fn new(size: usize) -> Self {
        // With a date and an identifier, as some servers add what a message lacks.
        let head = format!(
            "Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nFrom: <bench@bench.test>\r\nSubject: benchmark\r\n\
             {FIELD}{:0DIGITS$}@bench.test>\r\n\r\n.dot\r\n",
            0
        );
        let mut plain = head.clone().into_bytes();
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut column = 0;
        while plain.len() + 2 < size.max(head.len() + 3) {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // Letters and digits by chance: what is lost or moved shows.
            let octet = b"abcdefghijklmnopqrstuvwxyz0123456789 -+/,:;ABCDEFGHIJKLMNOPQRSTU"
                [(seed >> 58) as usize];
            plain.push(octet);
            column += 1;
            if column == 70 && plain.len() + 6 < size {
                plain.extend_from_slice(b"\r\n");
                column = 0;
            }
        }
        plain.extend_from_slice(b"\r\n");
        let text = String::from_utf8_lossy(&plain).into_owned();
        let place = |text: &str| text.find(FIELD).map_or(0, |at| at + FIELD.len());
        let stored = text.replace("\r\n", "\n");
        Self {
            dotted: format!("{}.\r\n", text.replace("\n.", "\n..")).into_bytes(),
            number: place(&text),
            number_stored: place(&stored),
            stored: stored.into_bytes(),
            plain,
        }
    }

    /// Puts the number into `dotted` and `plain`.
    pub(crate) fn set(&mut self, number: usize) {
        put(&mut self.dotted, self.number, number);
        put(&mut self.plain, self.number, number);
    }

    /// What lies on the disk, with the number in it.
    pub(crate) fn stored(&mut self, number: usize) -> &[u8] {
        put(&mut self.stored, self.number_stored, number);
        &self.stored
    }

    /// The number of a message that ends as this one does; None where any octet is wrong.
    fn number(&self, file: &[u8]) -> Option<usize> {
        let message = file.get(file.len().checked_sub(self.stored.len())?..)?;
        let (before, rest) = message.split_at(self.number_stored);
        let (digits, after) = rest.split_at(DIGITS);
        let same = before == &self.stored[..self.number_stored]
            && after == &self.stored[self.number_stored + DIGITS..];
        same.then(|| std::str::from_utf8(digits).ok()?.parse().ok())
            .flatten()
    }
}

fn put(octets: &mut [u8], at: usize, number: usize) {
    let mut left = number;
    for digit in octets[at..at + DIGITS].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

/// Checks that `new/` of the mailboxes `u0` to `u(count-1)` in `root` holds each message from 0 to `messages` once and
/// whole, and that `tmp/` is empty. The octets of a file with several names are read once.
pub(crate) fn check(
    root: &Path,
    count: usize,
    messages: usize,
    template: &Template,
) -> io::Result<()> {
    let wrong = |text: String| Err(io::Error::other(text));
    let mut known: HashMap<u64, usize> = HashMap::new();
    let mut octets = Vec::new();
    for mailbox in 0..count {
        let dir = root.join(format!("u{mailbox}"));
        let mut seen = vec![false; messages];
        for entry in fs::read_dir(dir.join("new"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(FILLER) {
                continue;
            }
            let number = match known.get(&entry.ino()) {
                Some(&number) => number,
                None => {
                    octets.clear();
                    File::open(entry.path())?.read_to_end(&mut octets)?;
                    let Some(number) = template.number(&octets) else {
                        return wrong(format!("{} is not what was sent", entry.path().display()));
                    };
                    if count > 1 {
                        known.insert(entry.ino(), number);
                    }
                    number
                }
            };
            match seen.get_mut(number) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    return wrong(format!(
                        "message {number} is in {} twice, or was never sent",
                        dir.display()
                    ));
                }
            }
        }
        let missing = seen.iter().filter(|&&seen| !seen).count();
        if missing > 0 {
            return wrong(format!(
                "{missing} of {messages} acknowledged messages are not in {}",
                dir.display()
            ));
        }
        if fs::read_dir(dir.join("tmp"))?.next().is_some() {
            return wrong(format!("tmp of {} is not empty", dir.display()));
        }
    }
    Ok(())
}

/// Waits until `new/` of the mailboxes `u0` to `u(count-1)` in `root` holds so many messages and `tmp/` none, for
/// servers that deliver after they have answered.
pub(crate) fn arrive(root: &Path, count: usize, messages: usize) -> io::Result<()> {
    let deadline = Instant::now() + ARRIVAL;
    for mailbox in 0..count {
        let dir = root.join(format!("u{mailbox}"));
        loop {
            let there = fs::read_dir(dir.join("new"))?.count();
            if there >= messages && fs::read_dir(dir.join("tmp"))?.next().is_none() {
                break;
            }
            if Instant::now() >= deadline {
                return Err(io::Error::other(format!(
                    "{there} of {messages} acknowledged messages are in {} after {} s",
                    dir.display(),
                    ARRIVAL.as_secs()
                )));
            }
            // Seldom enough to cost the server nothing to speak of.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Checks the number of files only: for messages that another generator made up.
pub(crate) fn check_count(root: &Path, messages: usize, at_least: u64) -> io::Result<()> {
    let mut count = 0;
    for entry in fs::read_dir(root.join("u0/new"))? {
        let entry = entry?;
        if entry.metadata()?.len() < at_least {
            return Err(io::Error::other(format!(
                "{} is too short",
                entry.path().display()
            )));
        }
        count += 1;
    }
    match count == messages {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{count} files for {messages} messages"
        ))),
    }
}
