//! The client's side of SMTP and LMTP, the mirror image of the session: replies go in, commands and content come out,
//! and nothing here uses a socket or the clock. [`ClientSession`] is the dialogue; [`Replies`] parses replies within
//! fixed bounds, whatever a hostile server sends; [`Extensions`] is what EHLO offered; [`ClientEnvelope`] is what to
//! send and [`Outcome`] the result for each recipient. Connecting, waiting and retrying happen elsewhere.

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

pub use dialogue::{Channel, ClientConfig, ClientSession, Credentials, TlsUse, Want};
pub use envelope::{ClientEnvelope, Content, Rcpt, Scan};
pub use extensions::Extensions;
pub use outcome::{ConnectionError, Outcome, Stage, Verdict};
pub use reply::{RemoteReply, Replies};
pub use status::Status;
