//! What the state machines of all mechanisms share: what they may know of a connection, and where a step leads.

use super::accounts::Accounts;

/// The most octets a user name may have.
const MAX_LOGIN: usize = 255;

/// What an exchange may know of the connection it runs in.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The server's name, for CRAM-MD5's challenge.
    pub hostname: &'a str,
    /// The `tls-exporter` value of this connection (RFC 9266).
    pub exporter: Option<&'a [u8]>,
    /// Whether EHLO offered SCRAM-SHA-256-PLUS: a client that saw no such offer then had it stripped (RFC 5802 §6).
    pub plus_offered: bool,
    /// Fresh and unpredictable text, printable without comma and space, 18 octets of randomness or more.
    pub nonce: String,
}

/// Where an exchange stands after a step.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Progress {
    /// To be sent in a 334, in base64.
    Challenge(Vec<u8>),
    /// The client is this user: 235 2.7.0.
    Done {
        /// The name the account gave.
        user: String,
    },
    /// Wrong, for whatever reason: 535 5.7.8.
    Failed,
    /// The same, after one more challenge that tells why. Whatever the client answers to it changes nothing.
    Rejected(Vec<u8>),
    /// Not what the mechanism's grammar allows: 501 5.5.2.
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
