//! Names become addresses without the C library: the hosts file, then the servers of resolv.conf(5) by UDP, and by TCP
//! where an answer is too long for it. [`Resolver`] asks and remembers; what goes over the wire, and which answer may be
//! believed, is in `message`; waiting for it is in `exchange`. A hostile server can withhold names and nothing else.

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
