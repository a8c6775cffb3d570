//! SMTP AUTH (RFC 4954): which mechanisms there are and how their exchanges run.
//!
//! Everything here is pure. Challenges and responses are plain octets: base64, `*`, 334 and the replies belong to the session.
//! Accounts are asked for through [`Accounts`], the nonce and the channel binding come in with [`Context`]. Each
//! mechanism is a small state machine in a file of its own; [`Exchange`] runs it.
//!
//! A wrong password and an unknown user look alike, in the answer and in the time it takes: see [`Decoy`]. Names and
//! passwords are UTF-8 without control characters; SASLprep's mappings (RFC 4013) are not applied, so a password outside
//! ASCII must be typed in the form in which it was hashed.

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
pub use self::machine::{Context, Progress};
pub use self::mechanism::{MECHANISMS, Mechanism, TOKEN_MECHANISMS};
pub use self::password::Stored;
