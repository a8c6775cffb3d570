//! The protocol without a socket: octets in, replies out. Nothing in this folder uses a file, a socket or the clock.

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
