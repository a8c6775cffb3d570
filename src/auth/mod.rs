//! SMTP AUTH (RFC 4954): the mechanisms and their exchanges.
//!
//! Everything here is pure. Challenges and responses are plain octets; the session handles base64, `*`, 334 and the
//! replies. [`Accounts`] looks accounts up, and [`ExchangeContext`] provides the nonce and the channel binding. Each
//! mechanism is a small state machine in a file of its own; [`Exchange`] runs it.
//!
//! A wrong password and an unknown user get the same reply in the same time: see [`Decoy`]. Names and passwords are
//! UTF-8 without control characters; SASLprep's mappings (RFC 4013) are not applied, so a non-ASCII password must be
//! typed in the form in which it was hashed.

mod accounts;
mod bearer;
pub mod client;
mod cram;
pub mod crypt;
pub mod decoy;
mod exchange;
pub mod hashing;
mod json;
pub mod jwt;
mod keys;
mod machine;
mod md5;
mod mechanism;
pub mod password;
mod plain;
mod scram;
#[cfg(test)]
mod testing;

pub use self::accounts::{Account, Accounts};
pub use self::decoy::{Decoy, DecoyMaker};
pub use self::exchange::Exchange;
pub use self::machine::{ExchangeContext, Progress};
pub use self::mechanism::{MECHANISMS, Mechanism, Secret};
pub use self::password::Stored;
