//! The commands that run once and end, with or without a running server.

pub mod hash_password;
pub mod healthcheck;
mod hop;
pub mod queue_list;
pub mod sendmail;
