//! The queue: mail for elsewhere, on disk until each recipient is settled. A message is a content file, as it was received
//! and with the trace on top, and a small envelope file. [`Envelope`] is what that says, [`Queue`] the folder. When and to
//! whom it goes is `relay`'s.

mod envelope;
mod folder;
mod store;

pub use envelope::{Envelope, Recipient};
pub use store::{Draft, Queue, ids, read, sizes};
