//! The client's greetings, EHLO, HELO and LHLO. Any name is accepted: devices send their model with blanks, Windows
//! hosts their name in a local code page (RFC 5321 §4.1.1.1, §4.1.4; RFC 2033 §4.1).

use super::state::{Phase, Session};
use super::step::{Step, say};
use crate::smtp::reply::{self, Reply};
use crate::smtp::xclient::client_name;

impl<R> Session<R> {
    pub(super) fn hello(&mut self, name: &[u8], extended: bool) -> Result<Step, Reply> {
        let name = client_name(name).ok_or(reply::BAD_NAME)?;
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
