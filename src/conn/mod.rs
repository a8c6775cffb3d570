//! Connections: [`serve`] drives one, octets from the stream to the session, recipients from the directory, content to
//! the spool. Only this folder uses all of them; the session has the rules of the protocol, the spool makes mail
//! durable.

pub mod backend;
pub mod client;
mod content;
mod driver;
mod floor;
mod handshake;
pub mod live;
pub mod message;
mod notice;
mod proxied;
mod recipients;
mod reports;
#[cfg(test)]
mod tests;
mod waits;

pub use self::driver::serve;
pub use self::notice::Notice;
pub use self::proxied::ClaimSlot;
pub use self::reports::reporter;
