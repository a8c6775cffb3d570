//! Mail onward: which next hop takes a recipient, when it is tried, and what the sender hears of it. Without `--relay`
//! nothing of this exists.
//!
//! `config` reads the options, `logins` the passwords for hops; `route` has the table of hops, `schedule` the times.
//! `sender` has the threads, and `connect`, `content` and `attempt` what they do with a message. `settle` is what follows
//! from the outcomes. `hurry` is what ETRN and `--queue-run` ask for, `look_up` is what `--check` says of them, `control` how the
//! latter reaches the server, `turn` the mail that is fetched by ATRN.

mod attempt;
mod config;
mod connect;
mod content;
pub mod control;
mod hurry;
mod idle;
mod link;
mod logins;
mod look_up;
mod route;
mod schedule;
mod sender;
mod settle;
mod turn;

pub use config::Config;
pub use hurry::Wanted;
pub use logins::Logins;
pub use route::{Kind, Route, Routes, TlsMode};
pub use schedule::{Hop, Patience, Schedule};
pub use sender::{Relay, Reporter, Settings};
pub use turn::{NoTurn, Turned};
