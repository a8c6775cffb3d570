//! Sockets, TLS and names. Nothing here knows SMTP.

pub mod client_tls;
pub mod dial;
pub mod dns;
pub mod listen;
pub mod names;
pub mod pool;
pub mod proxy;
pub mod socket;
pub mod stream;
pub mod tls;
pub mod url;
