//! One session of SMTP, submission or LMTP: lines in, replies and what is to be done next out.
//! It reads no socket, writes no file and knows no clock; questions go through [`Backend`].
//!
//! `state` is what a session knows, `dispatch` the way of a line through it, and `hello`, `mail`,
//! `bdat`, `auth`, `starttls`, `vrfy`, `help`, `xclient` and `turn` are the commands. `offers`
//! says which of them can be had.

mod auth;
mod backend;
mod bdat;
mod dispatch;
mod hello;
mod help;
mod mail;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod offer_tests;
mod offers;
mod queue_node;
mod starttls;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod transaction;
mod turn;
mod vrfy;
mod xclient;

pub use backend::Backend;
pub use queue_node::QueueNode;
pub use state::{Channel, Session};
pub use step::{Next, Step};
pub use transaction::{Mailboxes, Transaction};
