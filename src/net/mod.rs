//! Sockets. Nothing here knows a word of SMTP.

pub mod pool;
pub mod stream;
