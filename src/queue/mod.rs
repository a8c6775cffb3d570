//! The queue: mail to be relayed, on disk until every recipient is settled. A message is a content file, as received
//! with trace headers, and a small envelope file. [`Envelope`] is the latter, [`Queue`] the folder. `relay` decides
//! when and where to send.

mod envelope;
mod folder;
mod store;

pub use envelope::{Envelope, QueuedRecipient};
pub use folder::CONTROL;
pub use store::{Draft, Queue, QueuedContent, ids, read, sizes};
