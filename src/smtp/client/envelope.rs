//! The envelope of a message to send, and what must be known about its content beforehand. This file builds MAIL and
//! RCPT and decides whether a server can take the message at all.

use super::extensions::Extensions;
use super::outcome::{Outcome, Verdict};
use super::status::Status;
use crate::smtp::body::plain_run;

const NO_UTF8: &str = "The next hop does not accept internationalized addresses or headers";

/// One recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rcpt {
    /// The forward-path without angle brackets.
    pub path: String,
    /// The value of NOTIFY (RFC 3461 §4.1).
    pub notify: Option<String>,
    /// The value of ORCPT, xtext as it goes over the wire (RFC 3461 §4.2).
    pub orcpt: Option<String>,
}

/// A message's envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientEnvelope {
    /// The reverse-path without angle brackets, empty for `<>`.
    pub reverse_path: String,
    /// The recipients of this transaction.
    pub recipients: Vec<Rcpt>,
    /// Properties of the content.
    pub content: Content,
    /// True if the header needs SMTPUTF8 (RFC 6531); addresses are checked separately.
    pub smtputf8: bool,
    /// True if it may only be sent over verified TLS (RFC 8689).
    pub requiretls: bool,
    /// The value of RET (RFC 3461 §4.3).
    pub ret: Option<String>,
    /// The value of ENVID, xtext as it goes over the wire (RFC 3461 §4.4).
    pub envid: Option<String>,
}

/// Properties of the content that must be known before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Octets over the wire, without stuffed dots (RFC 1870 §5).
    pub wire: u64,
    /// True if it has octets above 127.
    pub eight_bit: bool,
    /// True if it has a CR or LF that is not part of a line end.
    pub bare: bool,
    /// True if the header section has octets above 127.
    pub utf8_header: bool,
    /// The octet from which it is stored unchanged; before it each line end is an LF.
    pub exact_from: Option<u64>,
}

/// Computes a [`Content`] in one pass.
#[derive(Debug)]
pub struct Scan {
    content: Content,
    /// Octets so far, as stored.
    at: u64,
    /// The previous octet.
    last: u8,
    /// True if the current line has nothing but CRs so far.
    line_empty: bool,
    body: bool,
}

impl Scan {
    /// A scan of content that is stored with LF line ends, or unchanged from the given octet on.
    pub fn new(exact_from: Option<u64>) -> Self {
        let content = Content {
            exact_from,
            ..Content::default()
        };
        Self {
            content,
            at: 0,
            last: 0,
            line_empty: true,
            body: false,
        }
    }

    /// Scans the next octets.
    pub fn feed(&mut self, octets: &[u8]) {
        self.content.wire += octets.len() as u64;
        let mut rest = octets;
        while !rest.is_empty() {
            let (text, after) = rest.split_at(plain_run(rest));
            self.text(text);
            let Some((&newline, after)) = after.split_first() else {
                return;
            };
            match newline {
                b'\n' => self.line_feed(),
                _ => self.content.bare |= self.last == b'\r',
            }
            self.last = newline;
            self.at += 1;
            rest = after;
        }
    }

    /// Octets without CR and LF.
    fn text(&mut self, text: &[u8]) {
        let Some(&last) = text.last() else { return };
        let eight_bit = !text.is_ascii();
        self.content.bare |= self.last == b'\r';
        self.content.eight_bit |= eight_bit;
        self.content.utf8_header |= eight_bit && !self.body;
        self.line_empty = false;
        self.last = last;
        self.at += text.len() as u64;
    }

    fn line_feed(&mut self) {
        let after_cr = self.last == b'\r';
        if self.content.exact_from.is_some_and(|from| self.at >= from) {
            self.content.bare |= !after_cr;
        } else {
            // The line end on the wire is CRLF; a CR before it is bare.
            self.content.wire += 1;
            self.content.bare |= after_cr;
        }
        self.body |= self.line_empty;
        self.line_empty = true;
    }

    /// The result.
    pub fn finish(mut self) -> Content {
        self.content.bare |= self.last == b'\r';
        self.content
    }
}

impl ClientEnvelope {
    /// True if the sender's address or the header needs SMTPUTF8.
    fn needs_utf8(&self) -> bool {
        self.smtputf8 || !self.reverse_path.is_ascii()
    }

    /// True if MAIL has SMTPUTF8.
    fn has_utf8(&self, offered: &Extensions) -> bool {
        let mut recipients = self.recipients.iter();
        let needed = self.needs_utf8() || recipients.any(|rcpt| !rcpt.path.is_ascii());
        offered.smtputf8 && needed
    }

    /// The reason why this message cannot be sent to a server with these extensions, if any; it is never converted.
    /// `private` is true if the server keeps REQUIRETLS, which must not stop a report (RFC 8689 §5).
    pub fn unfit(&self, offered: &Extensions, private: bool) -> Option<Outcome> {
        let content = &self.content;
        let stays = self.requiretls && !self.reverse_path.is_empty();
        let (status, text) = if stays && !private {
            let text = "REQUIRETLS is requested, but the next hop does not offer it, or is not proven to be the right one";
            (Status::new(5, 7, 30), text)
        } else if self.needs_utf8() && !offered.smtputf8 {
            (Status::new(5, 6, 7), NO_UTF8)
        } else if content.bare && !offered.chunking {
            let text = "The message has a bare CR or LF, but the next hop does not offer CHUNKING";
            (Status::new(5, 6, 3), text)
        } else if content.eight_bit && !offered.eight_bit && !(content.bare && offered.binary) {
            let text = "The message has 8-bit content, but the next hop does not offer 8BITMIME";
            (Status::new(5, 6, 3), text)
        } else if offered.max_size.is_some_and(|limit| content.wire > limit) {
            let text = "The message is larger than the next hop accepts";
            (Status::new(5, 3, 4), text)
        } else if !is_path(&self.reverse_path) || !self.values_are_safe() {
            let text = "The envelope sender or its parameters cannot be sent";
            (Status::new(5, 1, 7), text)
        } else {
            return None;
        };
        Some(Outcome::local(Verdict::Failed, status, text))
    }

    fn values_are_safe(&self) -> bool {
        [&self.ret, &self.envid]
            .into_iter()
            .flatten()
            .all(|v| is_value(v))
    }

    /// The MAIL command, without its CRLF.
    pub fn mail(&self, offered: &Extensions) -> String {
        let mut line = format!("MAIL FROM:<{}>", self.reverse_path);
        if offered.size {
            line.push_str(&format!(" SIZE={}", self.content.wire));
        }
        if self.content.bare && offered.binary {
            line.push_str(" BODY=BINARYMIME");
        } else if self.content.eight_bit && offered.eight_bit {
            line.push_str(" BODY=8BITMIME");
        }
        if self.has_utf8(offered) {
            line.push_str(" SMTPUTF8");
        }
        if self.requiretls {
            line.push_str(" REQUIRETLS");
        }
        if offered.dsn {
            parameter(&mut line, "RET", self.ret.as_deref());
            parameter(&mut line, "ENVID", self.envid.as_deref());
        }
        line
    }

    /// The RCPT command of a recipient, without its CRLF.
    pub fn rcpt(&self, place: usize, offered: &Extensions) -> Option<String> {
        let rcpt = self.recipients.get(place)?;
        let mut line = format!("RCPT TO:<{}>", rcpt.path);
        if offered.dsn {
            parameter(&mut line, "NOTIFY", rcpt.notify.as_deref());
            let orcpt = rcpt.orcpt.as_deref();
            let ascii = orcpt.filter(|value| !value.is_ascii() && !self.has_utf8(offered));
            let ascii = ascii.map(to_xtext);
            parameter(&mut line, "ORCPT", ascii.as_deref().or(orcpt));
        }
        Some(line)
    }
}

impl Rcpt {
    /// The reason why this recipient cannot be sent to a server with these extensions, if any.
    pub fn unfit(&self, offered: &Extensions) -> Option<Outcome> {
        let values = [&self.notify, &self.orcpt];
        let safe = !self.path.is_empty()
            && is_path(&self.path)
            && values.into_iter().flatten().all(|v| is_value(v));
        let (status, text) = if !safe {
            let text = "The recipient's address cannot be sent";
            (Status::new(5, 1, 3), text)
        } else if !self.path.is_ascii() && !offered.smtputf8 {
            (Status::new(5, 6, 7), NO_UTF8)
        } else {
            return None;
        };
        Some(Outcome::local(Verdict::Failed, status, text))
    }
}

fn parameter(line: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        line.push_str(&format!(" {name}={value}"));
    }
}

/// The form of an internationalized ORCPT in a transaction without SMTPUTF8 (RFC 6533 §3, utf-8-addr-xtext).
fn to_xtext(value: &str) -> String {
    let mut coded = String::with_capacity(value.len());
    for c in value.chars() {
        match c.is_ascii() {
            true => coded.push(c),
            false => coded.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
        }
    }
    coded
}

/// True if it has nothing that could end the path or the command line.
fn is_path(path: &str) -> bool {
    let quoted = path.starts_with('"');
    path.len() <= 1_000
        && !path.contains(|c: char| c.is_control() || !quoted && matches!(c, '<' | '>' | ' '))
}

/// The value of a parameter (RFC 5321 §4.1.2, RFC 6533 §3 for UTF-8 in ORCPT).
fn is_value(value: &str) -> bool {
    let fits = (1..=500).contains(&value.len());
    fits && !value.contains(|c: char| c.is_control() || matches!(c, ' ' | '='))
}
