//! The commands that run once and end, with or without a running server.

mod destination;
pub mod hash_password;
pub mod healthcheck;
pub mod output;
pub mod queue_list;
pub mod sendmail;
