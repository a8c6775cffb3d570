//! mailslot: a small blocking SMTP and LMTP server that drops mail into Maildirs.
//!
//! # The path of one message
//!
//! 1. [`net::listen`] takes the connection off its listener; [`server`] sees that there is room and hands it to a thread
//!    of [`net::pool`], or answers 421 itself.
//! 2. [`conn::serve`] drives it: octets from [`net::stream`] become lines ([`smtp::line`]), and each line goes to
//!    [`smtp::session::Session::line`], which does no I/O and returns a reply and what comes next.
//! 3. MAIL opens a [`smtp::session::Transaction`]; RCPT asks, through [`smtp::session::Backend`], who that is:
//!    [`conn::backend`] has [`directory::Directory::resolve`] follow aliases to mailboxes, asks whether their quotas have
//!    room, and takes what goes elsewhere for [`relay`].
//! 4. DATA opens a [`deliver::Spool`], a file in the first recipient's Maildir, trace headers first. [`conn::message`] feeds
//!    it what [`smtp::body`] decodes.
//! 5. The lone dot commits it: file synced, in every `new/`, directories synced. Only that makes a
//!    [`deliver::Delivered`], and only from one can `250 … accepted for delivery as ID` be spelled.
//!
//! # Where things are
//!
//! [`smtp`] and [`auth`] are pure: no socket, file, thread or clock. [`directory`] and [`deliver`] know files and no
//! sockets, [`net`] knows sockets and no SMTP. [`conn`] sees all three from the server's side, [`relay`] and [`client`]
//! from the other. [`options`] is the one table of options, [`settings`] what was given for them, [`config`] what that
//! means; [`maillog`] has the log lines. `tests/it/layers.rs` lists every import that is allowed.
#![forbid(unsafe_code)]

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
pub mod queue;
pub mod rates;
mod read;
pub mod relay;
pub mod report;
pub mod server;
pub mod settings;
pub mod smtp;
pub mod state;
pub mod sys;
pub mod throttle;
pub mod values;
