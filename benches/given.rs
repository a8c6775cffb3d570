//! The load of the variable LOAD: words like `sessions=10`, in any order. The defaults are 10 reused sessions, 10,000
//! messages of 4 KiB, one recipient, no pipelining, DATA, plaintext, SMTP.

use std::io;

use crate::load::{Load, plain};

/// What may be said.
const WORDS: &str = "it takes sessions=, messages=, size=, recipients= with a number from 1, and \
    reuse=, pipeline=, bdat=, tls=, lmtp= with yes or no";

/// Reads it.
pub(crate) fn parse(text: &str) -> io::Result<Load> {
    let mut load = plain(10, 10_000);
    for word in text.split_whitespace() {
        set(&mut load, word).ok_or_else(|| {
            let text = format!("LOAD: cannot read '{word}': {WORDS}");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
    }
    Ok(load)
}

fn set(load: &mut Load, word: &str) -> Option<()> {
    let (name, value) = word.split_once('=')?;
    let number = || value.parse().ok().filter(|&number: &usize| number > 0);
    let choice = || match value {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    match name {
        "sessions" => load.sessions = number()?,
        "messages" => load.messages = number()?,
        "size" => load.size = number()?,
        "recipients" => load.recipients = number()?,
        "reuse" => load.reuse = choice()?,
        "pipeline" => load.pipeline = choice()?,
        "bdat" => load.bdat = choice()?,
        "tls" => load.tls = choice()?,
        "lmtp" => load.lmtp = choice()?,
        _ => return None,
    }
    Some(())
}

/// The load as text.
pub(crate) fn show(load: &Load) -> String {
    let yes = |choice| if choice { "yes" } else { "no" };
    format!(
        "sessions={} messages={} size={} recipients={} reuse={} pipeline={} bdat={} tls={} lmtp={}",
        load.sessions,
        load.messages,
        load.size,
        load.recipients,
        yes(load.reuse),
        yes(load.pipeline),
        yes(load.bdat),
        yes(load.tls),
        yes(load.lmtp),
    )
}
