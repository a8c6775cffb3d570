//! The greetings of the client, EHLO, HELO and LHLO, and what the server offers in its answer.

use crate::smtp::cursor::Cursor;
use crate::smtp::reply::{self, Reply};

use super::state::{Channel, Phase, Session};
use super::step::{Step, say};

impl<R> Session<R> {
    /// RFC 5321 §4.1.1.1, §4.1.4; RFC 2033 §4.1.
    pub(super) fn hello(&mut self, cursor: &Cursor<'_>, extended: bool) -> Result<Step, Reply> {
        let name = cursor.rest();
        if name.chars().any(char::is_control) || name.contains([' ', '\t']) || !name.is_ascii() {
            return Err(reply::BAD_ARGUMENT);
        }

        self.helo = Some(name.chars().take(255).collect());
        self.extended = extended;
        self.phase = Phase::Greeted;
        let mut text = format!("{} Hello {name}", self.policy.hostname);
        if extended {
            self.keywords(&mut text);
        }
        Ok(say(reply::plain(250, "").with_text(text)))
    }

    /// What EHLO and LHLO offer: all that works now and nothing else (RFC 5321 §2.2.1).
    fn keywords(&self, text: &mut String) {
        text.push_str(
            "\nPIPELINING\n8BITMIME\nBINARYMIME\nCHUNKING\nSMTPUTF8\nENHANCEDSTATUSCODES",
        );
        if self.offers_starttls() {
            text.push_str("\nSTARTTLS");
        }
        if matches!(self.channel, Channel::Tls { .. }) {
            text.push_str("\nREQUIRETLS");
        }
        let mechanisms = self.mechanisms();
        if !mechanisms.is_empty() {
            text.push_str("\nAUTH");
            for mechanism in mechanisms {
                text.push(' ');
                text.push_str(mechanism.name());
            }
        }
        text.push_str(&format!(
            "\nSIZE {}\nLIMITS RCPTMAX={}\nHELP",
            self.policy.max_size, self.policy.max_recipients
        ));
    }
}
