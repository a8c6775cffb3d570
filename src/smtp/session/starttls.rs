//! STARTTLS (RFC 3207): when it can be had, and what is forgotten after it.

use crate::smtp::cursor::Cursor;
use crate::smtp::reply::{self, Reply};

use super::state::{Channel, Login, Phase, Session};
use super::step::{Next, Step, hang_up};

impl<R> Session<R> {
    /// The TLS handshake is done: everything said before is forgotten (RFC 3207 §4.2), but not
    /// how often the client was wrong.
    pub fn tls_started(&mut self, exporter: Option<Vec<u8>>) {
        self.channel = Channel::Tls { exporter };
        self.login = Login::Nobody;
        self.phase = Phase::Fresh;
        self.helo = None;
        self.extended = false;
    }

    pub(super) fn offers_starttls(&self) -> bool {
        self.policy.starttls && self.channel == Channel::Clear
    }

    /// RFC 3207 §4. Input that is there already was not protected: it is never executed.
    pub(super) fn starttls(&self, cursor: &Cursor<'_>, behind: bool) -> Result<Step, Reply> {
        if matches!(self.phase, Phase::Fresh) {
            return Err(reply::BAD_SEQUENCE);
        }
        if !self.policy.starttls {
            return Err(reply::NOT_OFFERED);
        }
        if !cursor.rest().is_empty() {
            return Err(reply::BAD_ARGUMENT);
        }
        if !self.offers_starttls() || self.transaction().is_some() {
            return Err(reply::BAD_SEQUENCE);
        }
        if behind {
            return Ok(hang_up(reply::PLAINTEXT_BEHIND));
        }

        Ok(Step {
            reply: Some(reply::START_TLS),
            next: Next::StartTls,
        })
    }
}
