//! One session of SMTP, submission or LMTP. Lines go in, replies and the next step come out. A session uses no socket,
//! file or clock; it asks its questions through [`Backend`].
//!
//! `state` holds the session's state, `dispatch` handles a line, `offers` decides which commands are available, and the
//! other files implement the commands.

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
pub use transaction::{AcceptedRecipient, Mailboxes, Transaction};
