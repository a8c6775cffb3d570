//! `--queue-list` and `--queue-run`: lists the queue from its files, also while a server runs, and asks that server to
//! retry. To remove a message, `rm` both files of its id.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output::print;
use crate::clock;
use crate::encoding::visible;
use crate::failure::Failure;
use crate::options::Key;
use crate::queue::{self, Envelope};
use crate::relay::control;
use crate::settings::{Settings, Value};

/// Prints the messages of the queue.
///
/// # Errors
/// The queue cannot be read.
pub fn run(settings: &Settings) -> Result<ExitCode, Failure> {
    let dir = dir(settings);
    let page = list(&dir).map_err(|e| Failure::System(format!("{}: {e}", dir.display())))?;
    print(&page).map(|()| ExitCode::SUCCESS)
}

/// Retries mail now.
///
/// # Errors
/// No server is running.
pub fn retry(settings: &Settings, what: &Value) -> Result<ExitCode, Failure> {
    let dir = dir(settings);
    let count = control::ask(&dir, &what.text).map_err(|e| {
        let reason = match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "no server: ",
            _ => "",
        };
        Failure::Busy(format!("{}: {reason}{e}", dir.display()))
    })?;
    let answer = match count {
        0 => "no mail is waiting\n".to_owned(),
        1 => "retrying 1 message\n".to_owned(),
        count => format!("retrying {count} messages\n"),
    };
    print(&answer).map(|()| ExitCode::SUCCESS)
}

fn dir(settings: &Settings) -> PathBuf {
    let named = settings.one(Key::Queue);
    named.map_or_else(|| PathBuf::from("queue"), |value| PathBuf::from(value.text))
}

/// The output of `--queue-list` and `mailq`.
///
/// # Errors
/// The folder cannot be read.
pub fn list(dir: &Path) -> io::Result<String> {
    let ids = match queue::ids(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !dir.exists() => {
            return Ok(format!(
                "no queue at {}; name it with --queue\n",
                dir.display()
            ));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let sizes = queue::sizes(dir).unwrap_or_default();
    let now = clock::seconds();
    let mut page = String::new();
    let mut count = 0_usize;
    for id in ids {
        match queue::read(dir, &id) {
            Ok(envelope) => message(&mut page, &id, &envelope, sizes.get(&id).copied(), now),
            // It has left the queue in the meantime, or is not in it yet.
            Err(e) if e.kind() == io::ErrorKind::NotFound || !sizes.contains_key(&id) => continue,
            Err(e) => {
                let _ = writeln!(page, "{id}: {e}");
            }
        }
        count += 1;
    }
    match count {
        0 => page.push_str("the queue is empty\n"),
        count => {
            let _ = writeln!(page, "{count} in the queue");
        }
    }
    Ok(visible(&page))
}

fn message(page: &mut String, id: &str, envelope: &Envelope, size: Option<u64>, now: u64) {
    let size = size.map_or_else(|| "?".to_owned(), |size| size.to_string());
    let age = span(now.saturating_sub(envelope.created));
    let _ = writeln!(page, "{id} {age} {size} <{}>", envelope.from);
    for to in &envelope.recipients {
        let next = match to.next.saturating_sub(now) {
            0 => "now".to_owned(),
            wait => format!("in {}", span(wait)),
        };
        let last = to.last.as_deref().unwrap_or("not tried yet");
        let _ = writeln!(page, "    <{}> next try {next}: {last}", to.address);
    }
}

/// A duration for people.
fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn waiting_mail_is_listed() {
        let scratch = Scratch::new();
        let dir = scratch.0.join("queue");
        assert!(list(&dir).unwrap().starts_with("no queue at /"));
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(list(&dir).unwrap(), "the queue is empty\n");
        std::fs::create_dir_all(dir.join("new")).unwrap();
        let text =
            "mailslot-envelope 1\nfrom a@b\ncreated 7\nto 9 1 c@d\nlast 450 4.2.0 no\u{202e}[2J\n";
        std::fs::write(dir.join("new/7.M1P1Q1"), text).unwrap();
        std::fs::write(dir.join("new/7.M1P1Q1.h,S=3"), "abc").unwrap();
        for name in ["8.M1P1Q1", "8.M1P1Q1.h,S=4", "9.M1P1Q1"] {
            std::fs::write(dir.join("new").join(name), "junk").unwrap();
        }
        let page = list(&dir).unwrap();
        assert!(
            page.contains("7.M1P1Q1 ") && page.contains(" 3 <a@b>\n"),
            "{page}"
        );
        assert!(
            page.contains("<c@d> next try now: 450 4.2.0 no\\u{202e}[2J\n"),
            "{page}"
        );
        assert!(
            page.contains("8.M1P1Q1: ") && page.ends_with("2 in the queue\n"),
            "{page}"
        );
        for (seconds, text) in [(7, "7s"), (600, "10m"), (7_200, "2h"), (200_000, "2d")] {
            assert_eq!(span(seconds), text);
        }
    }
}
