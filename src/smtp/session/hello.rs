//! The client's greetings, EHLO, HELO and LHLO. Any name is accepted: devices send their model with blanks, Windows
//! hosts their name in a local code page (RFC 5321 §4.1.1.1, §4.1.4; RFC 2033 §4.1).

use std::fmt::Write as _;

use super::state::{Phase, Session};
use super::step::{Step, say};
use crate::smtp::reply::{self, Reply};

/// Maximum characters kept of a client's name.
const MAX_NAME: usize = 255;

impl<R> Session<R> {
    pub(super) fn hello(&mut self, name: &[u8], extended: bool) -> Result<Step, Reply> {
        if name.iter().any(u8::is_ascii_control) {
            return Err(reply::BAD_NAME);
        }

        let name = printable(name);
        let mut text = format!("{} Hello {name}", self.policy.hostname);
        self.helo = Some(name);
        self.extended = extended;
        self.phase = Phase::Greeted;
        if extended {
            text.push('\n');
            text.push_str(&self.keywords());
        }
        Ok(say(reply::plain(250, "").with_text(text)))
    }

    /// Forgets the greeting and everything after it.
    pub(super) fn forget(&mut self) {
        self.phase = Phase::Fresh;
        self.helo = None;
        self.extended = false;
    }
}

/// The name as text, with invalid UTF-8 and C1 controls as `\\xHH`.
fn printable(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                let _ = write!(text, "\\x{:02X}", u32::from(c));
            } else {
                text.push(c);
            }
        }
        for octet in chunk.invalid() {
            let _ = write!(text, "\\x{octet:02X}");
        }
    }
    text.chars().take(MAX_NAME).collect()
}
