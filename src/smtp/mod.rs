//! The protocol without a socket: decoders over octets handed in, replies handed back.
//! Nothing below this folder opens a file, a socket or a clock.

pub mod address;
pub mod body;
pub mod client;
pub mod command;
pub mod cursor;
pub mod line;
pub mod params;
pub mod policy;
pub mod reply;
pub mod session;
pub mod xclient;

/// The name in the EHLO of `--healthcheck`.
pub const HEALTHCHECK: &str = "mailslot-healthcheck";
