//! The server process. `process` reads the files, binds, accepts, reloads and shuts down gracefully; `describe` says
//! what is served. `admission` decides which connections are served, within the resources of `budget`; `linger` reads
//! the others to their end. `scrape` answers the metrics listeners. `conn` serves connections.

mod admission;
mod budget;
mod describe;
mod linger;
mod process;
mod scrape;

pub use self::process::{Server, block_reload, block_signals};
