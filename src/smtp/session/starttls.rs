//! STARTTLS (RFC 3207): when it is possible, and what is forgotten after it.

use super::state::{Channel, Session};
use super::step::{Next, Step, close};
use crate::smtp::reply::{self, Reply};

impl<R> Session<R> {
    /// Called after the TLS handshake: forgets everything (RFC 3207 §4.2) except the counts of errors and failed
    /// logins.
    pub fn tls_started(&mut self, exporter: Option<Vec<u8>>) {
        self.channel = Channel::Tls { exporter };
        self.user = None;
        self.forget();
    }

    /// RFC 3207 §4. Input that is already buffered was not protected, so it is never executed.
    pub(super) fn starttls(&self, argument: &str, more_input: bool) -> Result<Step, Reply> {
        if !argument.is_empty() {
            return Err(reply::UNEXPECTED_ARGUMENT);
        }
        if self.channel != Channel::Clear {
            return Err(reply::TLS_ACTIVE);
        }
        if self.transaction().is_some() {
            return Err(reply::IN_TRANSACTION);
        }
        if more_input {
            return Ok(close(reply::INPUT_AFTER_STARTTLS));
        }

        Ok(Step {
            reply: Some(reply::START_TLS),
            next: Next::StartTls,
        })
    }
}
