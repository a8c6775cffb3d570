//! Programs in the program: what is done once and then ends, beside a server or without one.

pub mod hash_password;
pub mod healthcheck;
mod hop;
pub mod queue_list;
pub mod sendmail;
