//! The parts that the state machines of all mechanisms share: their context, and the result of a step.

use super::accounts::Accounts;

/// Maximum octets of a user name.
const MAX_LOGIN: usize = 255;

/// Facts about the connection that an exchange needs.
#[derive(Clone, Debug)]
pub struct ExchangeContext<'a> {
    /// The server's name, for CRAM-MD5's challenge.
    pub hostname: &'a str,
    /// The `tls-exporter` value of this connection (RFC 9266).
    pub exporter: Option<&'a [u8]>,
    /// True if EHLO offered SCRAM-SHA-256-PLUS: a client that did not see it is under attack (RFC 5802 §6).
    pub plus_offered: bool,
    /// Fresh, unpredictable, printable text without comma and space, made of at least 18 random octets.
    pub nonce: String,
}

/// The result of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Progress {
    /// Send this challenge in a 334, in base64.
    Challenge(Vec<u8>),
    /// Success: 235 2.7.0.
    Done {
        /// The name the account gave.
        user: String,
    },
    /// Failure, for any reason: 535 5.7.8.
    Failed,
    /// Failure after one more challenge that gives the reason; the response to it is ignored.
    Rejected(Vec<u8>),
    /// A syntax error: 501 5.5.2.
    Malformed,
}

/// A mechanism's state machine.
pub(super) trait Machine: Send + Sync {
    fn step(&mut self, response: Option<&[u8]>, accounts: &mut dyn Accounts) -> Progress;
}

/// A user name that may be looked up: UTF-8, 1 to 255 octets, no control characters.
pub(super) fn login(octets: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(octets).ok()?;
    let fits = !name.is_empty() && name.len() <= MAX_LOGIN && !name.chars().any(char::is_control);
    fits.then_some(name)
}
