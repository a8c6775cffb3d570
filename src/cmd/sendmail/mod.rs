//! `sendmail`, `mailq` and `newaliases`: the traditional way for programs of a Unix host to send mail. The message on
//! standard input goes to the local server. Nothing is stored here: the exit status tells whether the server has
//! accepted it (sysexits.h). `options` reads the command line, `message` and `addresses` the message,
//! `person` the calling user's name; `run` sends.

mod addresses;
mod message;
mod options;
mod person;
mod run;

pub use run::{called_as, run};
