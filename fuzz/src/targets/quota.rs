//! Any `maildirsize`, and a message that may or may not fit: the file is read, or recalculated if it is damaged, and
//! correct afterwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailslot::deliver::{Form, Group, Quota, Store, Sync, Target, Trace};

use super::first;

const BYTES: i64 = 1000;
const MESSAGES: i64 = 5;
const DEFINITION: &str = "1000S,5C";
/// A message that was there before.
const STORED: i64 = 100;

/// The sums of a file that makes sense.
fn sums(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = text
        .strip_suffix('\n')
        .filter(|_| text.len() <= 5120)?
        .split('\n');
    lines.next()?;
    let mut sums = (0_i64, 0_i64);
    for line in lines {
        let words: Result<Vec<i64>, _> = line.split_ascii_whitespace().map(str::parse).collect();
        let [bytes, messages] = words.ok()?[..] else {
            return None;
        };
        sums = (
            sums.0.saturating_add(bytes),
            sums.1.saturating_add(messages),
        );
    }
    (sums.0 >= 0 && sums.1 >= 0).then_some(sums)
}

fn fits((bytes, messages): (i64, i64)) -> bool {
    bytes <= BYTES && messages <= MESSAGES
}

/// A Maildir with a number of messages, one for each process and thread.
fn mailbox(stored: usize) -> PathBuf {
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    let name = format!("mailslot-fuzz-{}-{thread}-quota", std::process::id());
    let maildir = std::env::temp_dir().join(name).join("m");
    for part in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(maildir.join(part)).unwrap();
    }
    for number in 0..stored {
        std::fs::write(maildir.join(format!("cur/{number}.h,S={STORED}:2,S")), "").unwrap();
    }
    maildir
}

fn target(maildir: &Path) -> Group {
    let target = Target {
        root: Arc::from(maildir.parent().unwrap()),
        maildir: maildir.to_owned(),
        may_create: false,
        folder: None,
        address: "m@h".to_owned(),
        original: None,
        quota: Some(Quota {
            bytes: u64::try_from(BYTES).ok(),
            messages: u64::try_from(MESSAGES).ok(),
        }),
        owner: None,
    };
    Group::One(Arc::new(target))
}

/// Delivers a message with a body of this size; returns the reply code, and the size on disk if it was accepted.
fn deliver(maildir: &Path, body: usize) -> (u16, i64) {
    let store = Store::new("h", Sync::None, 0);
    let trace = Trace {
        reverse_path: "",
        helo: "c",
        peer: "unix",
        hostname: "h",
        protocol: "SMTP",
        recipient: None,
        user: None,
        submission: false,
    };
    let mut spool = store.begin(&trace, vec![target(maildir)], Form::Text, None);
    spool.write(&[b"A: b\n\n", &*vec![b'x'; body]].concat());
    let code = spool
        .commit()
        .map_or_else(|refused| refused.code(), |_| 250);
    let new = std::fs::read_dir(maildir.join("new")).unwrap();
    let size = new
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum::<u64>();
    (code, size.try_into().unwrap())
}

/// The reader and the count.
pub fn maildirsize(octets: &[u8]) {
    let (stored, rest) = first(octets);
    let (body, text) = first(rest);
    let stored = stored % 6;
    let maildir = mailbox(stored);
    std::fs::write(maildir.join("maildirsize"), text).unwrap();
    let there = i64::try_from(stored).unwrap();
    let there = (there * STORED, there);
    let (code, size) = deliver(&maildir, body * 4);
    let after = std::fs::read(maildir.join("maildirsize")).unwrap();
    let ours = text.split(|&octet| octet == b'\n').next() == Some(DEFINITION.as_bytes());
    let shown = (
        String::from_utf8_lossy(text),
        String::from_utf8_lossy(&after),
        size,
    );
    match code {
        250 => {
            let now = sums(&after).unwrap_or_else(|| panic!("{shown:?}"));
            assert!(fits(now), "{shown:?}");
            assert!(
                after.ends_with(format!("\n{size} 1\n").as_bytes()),
                "{shown:?}"
            );
            if sums(text).is_none() {
                assert_eq!(now, (there.0 + size, there.1 + 1), "{shown:?}");
            }
        }
        552 => {
            // One that makes sense was believed, or the count was.
            let counted = format!("{DEFINITION}\n{} {}\n", there.0, there.1);
            let believed = ours && sums(text).is_some();
            assert!(
                believed || after == counted.as_bytes() || after == text,
                "{shown:?}"
            );
        }
        other => panic!("{other} {shown:?}"),
    }
    std::fs::remove_dir_all(maildir.parent().unwrap()).unwrap();
}
