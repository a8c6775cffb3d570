//! mailslot: a small blocking SMTP and LMTP server that drops mail into Maildirs.
//!
//! # The path of one message
//!
//! 1. [`net::listen`] takes the connection off its listener; [`server`] checks the limits and hands it to a thread of
//!    [`net::pool`], or answers 421 itself.
//! 2. [`conn::serve`] drives it: octets from [`net::stream`] become lines ([`smtp::line`]), and each line goes to
//!    [`smtp::session::Session::line`], which does no I/O and returns a reply and the next step.
//! 3. MAIL opens a [`smtp::session::Transaction`]; RCPT asks [`smtp::session::Backend`] to resolve the recipient:
//!    [`conn::backend`] lets [`directory::Directory::resolve`] follow aliases to mailboxes, checks their quotas, and
//!    accepts remote recipients for [`relay`].
//! 4. DATA opens a [`deliver::Spool`], a file in the first recipient's Maildir that begins with the trace headers.
//!    [`conn::message`] feeds it the content that [`smtp::body`] decodes.
//! 5. The lone dot commits it: the file is synced, put into every `new/`, and the directories are synced. Only that
//!    creates a [`deliver::Delivered`], and only a `Delivered` can produce `250 … accepted for delivery as ID`.
//!
//! # Where things are
//!
//! [`smtp`] and [`auth`] are pure: no socket, file, thread or clock. [`directory`] and [`deliver`] use files but no
//! sockets, [`net`] has sockets but no SMTP. [`conn`] joins them for the server, [`relay`] and [`client`] for outgoing
//! mail. [`options`] is the table of options, [`settings`] the values given for them, [`config`] their meaning;
//! [`maillog`] has the log lines. `tests/it/layers.rs` lists all allowed imports.
#![forbid(unsafe_code)]
// They panic where the output cannot be written.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod auth;
pub mod client;
pub mod clock;
pub mod cmd;
pub mod config;
pub mod conn;
pub mod deliver;
pub mod directory;
pub mod encoding;
pub mod failure;
pub mod greylist;
mod lock;
pub mod log_queue;
pub mod maillog;
pub mod metrics;
pub mod net;
pub mod oauth;
pub mod options;
mod punycode;
pub mod queue;
mod random;
pub mod rates;
mod read;
pub mod relay;
pub mod report;
pub mod server;
pub mod settings;
pub mod smtp;
pub mod state;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod throttle;
pub mod values;
mod warnings;
