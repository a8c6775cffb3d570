//! The binary over real sockets: each test starts its own server on port 0, in a temporary directory that is removed
//! afterwards.
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
#![allow(unreachable_pub, reason = "modules of a test binary")]

mod answers;
mod atrn;
mod cli;
mod client;
mod closes;
mod conformance;
mod contrib;
mod dialogues;
mod docs;
mod dsn;
mod ends;
mod etrn;
mod fuzz;
mod greylist;
mod healthcheck;
mod hops;
mod index;
mod json;
mod junk;
mod layers;
mod log;
mod memory;
mod metrics;
mod minima;
mod mounts;
mod oauth;
mod onward;
mod open_relay;
mod operation;
mod owners;
mod pair;
mod pressure;
mod privileges;
mod proxy;
mod queue;
mod readme;
mod relay;
mod room;
mod scripted;
mod sendmail;
mod server;
mod starts;
mod supervisor;
mod throttle;
mod tls;
mod wire;
