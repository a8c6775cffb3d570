//! The client's side of SMTP and LMTP, the mirror of the session: what a server says goes in, commands and content come
//! out, and nothing here reads a socket or a clock. [`Client`] is the dialogue; [`Replies`] takes replies apart within
//! bounds, whatever a hostile server sends; [`Extensions`] is what EHLO offered; [`Envelope`] is what is to be sent and
//! [`Outcome`] what became of each recipient. Who connects, waits and tries again lives elsewhere.

mod dialogue;
mod encode;
mod envelope;
mod extensions;
mod outcome;
mod reply;
mod status;
#[cfg(test)]
mod tests;
mod transaction;

pub use dialogue::{Channel, Client, Credentials, Settings, TlsUse, Want};
pub use envelope::{Content, Envelope, Rcpt, Scan};
pub use extensions::Extensions;
pub use outcome::{Failure, Outcome, Stage, Verdict};
pub use reply::{RemoteReply, Replies};
pub use status::Status;
