//! Relaying: which next hop takes a recipient, when it is tried, and which reports the sender gets. Without `--relay`
//! none of this is used.
//!
//! `config` reads the options, `logins` the passwords for hops; `route` has the table of hops, `schedule` the times.
//! `sender` has the threads, which send a message by `connect`, `content` and `attempt`; `hops` is their state of hops.
//! `settle` handles the outcomes. `retry` serves ETRN and `--queue-run`, `control` is the latter's socket,
//! `look_up` serves `--check`, and `turn` is ATRN.

mod attempt;
mod config;
mod connect;
mod content;
pub mod control;
mod hops;
mod idle;
mod link;
mod logins;
mod look_up;
mod retry;
mod route;
mod schedule;
mod sender;
mod settle;
#[cfg(test)]
mod testing;
mod turn;

pub use config::RelayConfig;
pub use logins::Logins;
pub use retry::Wanted;
pub use route::{Route, RouteKind, Routes, TlsMode};
pub use schedule::{Hop, RetryPolicy, Schedule};
pub use sender::{MAX_THREADS, Relay, RelayRules, Reporter};
pub use turn::{NoTurn, Turned};
