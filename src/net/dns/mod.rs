//! Resolves names without the C library: from the hosts file, then by the servers of resolv.conf(5), over UDP or, for
//! long answers, TCP. [`Resolver`] asks and caches; `message` builds questions and checks answers; `exchange` sends and
//! waits. A hostile server can do no more than give wrong answers.

mod alabel;
mod cache;
mod exchange;
mod message;
mod resolver;
mod servers;
#[cfg(test)]
mod tests;

pub use alabel::to_alabel;
pub use message::Mx;
pub use resolver::{Error, Resolver};
pub use servers::Servers;
