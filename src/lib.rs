//! mailslot: a small blocking SMTP and LMTP server that drops mail into Maildirs.
//!
//! The protocol lives in [`smtp`], which does no I/O: it is given lines and octets and
//! returns replies and effects.
#![forbid(unsafe_code)]

pub mod auth;
pub mod clock;
pub mod config;
pub mod conn;
pub mod deliver;
pub mod directory;
pub mod encoding;
pub mod event;
pub mod net;
pub mod options;
pub mod password;
pub mod server;
pub mod site;
pub mod smtp;
