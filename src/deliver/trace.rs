//! The trace headers that stand before a delivered message (RFC 5321 §4.4): Return-Path, Delivered-To, X-Original-To
//! and Received. What the network said is cleaned here: none of it can end a line or close a comment.

use std::fmt::{self, Display, Write};

use super::{Form, Target};

/// What is known of a message's way here when its first octet arrives.
#[derive(Clone, Copy)]
pub struct Trace<'a> {
    /// The reverse-path without angle brackets; empty for the null path.
    pub reverse_path: &'a dyn Display,
    /// The client's EHLO, HELO or LHLO argument.
    pub helo: &'a str,
    /// The client: `[192.0.2.1]`, `[IPv6:2001:db8::1]` or `unix`.
    pub peer: &'a str,
    /// The server's own name.
    pub hostname: &'a str,
    /// The with-keyword of RFC 3848 and RFC 6531: `ESMTPS`, `UTF8LMTP`, …
    pub protocol: &'static str,
    /// The forward-path, where the message has just one.
    pub recipient: Option<&'a dyn Display>,
    /// The authenticated user, where the recipients may know it: a login name is not everybody's business.
    pub user: Option<&'a str>,
    /// Whether a missing Date and Message-ID are to be added (RFC 6409 §8).
    pub submission: bool,
}

impl Trace<'_> {
    /// The header lines that go before the message, in a buffer with room for `room` octets. `only` is the target
    /// where there is just one.
    pub(super) fn header(
        &self,
        only: Option<&Target>,
        id: &str,
        date: &str,
        form: Form,
        room: usize,
    ) -> Vec<u8> {
        let mut header = String::with_capacity(room);
        // Nothing is reported by a write into a String.
        let _ = self.write_to(&mut header, only, id, date, form.eol());
        header.into_bytes()
    }

    fn write_to(
        &self,
        header: &mut String,
        only: Option<&Target>,
        id: &str,
        date: &str,
        eol: &str,
    ) -> fmt::Result {
        write!(header, "Return-Path: <{}>{eol}", Clean(self.reverse_path))?;
        if let Some(target) = only {
            write!(header, "Delivered-To: {}{eol}", Clean(&target.address))?;
            if let Some(original) = &target.original {
                write!(header, "X-Original-To: {}{eol}", Clean(original))?;
            }
        }
        write!(
            header,
            "Received: from {} ({})",
            Word(self.helo),
            Word(self.peer)
        )?;
        if let Some(user) = self.user {
            write!(header, "{eol}\t(authenticated as {})", Word(user))?;
        }
        let (host, protocol) = (Word(self.hostname), self.protocol);
        write!(
            header,
            "{eol}\tby {host} (mailslot) with {protocol} id {id}"
        )?;
        match self.recipient {
            Some(recipient) => write!(header, "{eol}\tfor <{}>; {date}{eol}", Clean(recipient)),
            None => write!(header, ";{eol}\t{date}{eol}"),
        }
    }
}

/// A path as it may stand in a header: control characters and line separators become `?`.
struct Clean<'a>(&'a dyn Display);

impl Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
        write!(
            Sieve {
                to: f,
                left: PATH_MAX,
                plain
            },
            "{}",
            self.0
        )
    }
}

/// A host name, address or literal as it may stand outside and inside a comment: besides control characters no
/// blanks, parentheses, quotes or delimiters of the Received grammar. Never empty.
struct Word<'a>(&'a str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| {
            c.is_ascii_graphic() && !matches!(c, '(' | ')' | '<' | '>' | '"' | '\\' | ';' | ',')
                || !c.is_ascii() && !c.is_control() && !c.is_whitespace()
        };
        match self.0 {
            "" => f.write_str("unknown"),
            text => Sieve {
                to: f,
                left: NAME_MAX,
                plain,
            }
            .write_str(text),
        }
    }
}

/// Passes text on with `?` for each character that is not plain, up to so many characters.
struct Sieve<W, P> {
    to: W,
    left: usize,
    plain: P,
}

impl<W: Write, P: Fn(char) -> bool> Write for Sieve<W, P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() <= self.left && text.chars().all(&self.plain) {
            self.left -= text.len();
            return self.to.write_str(text);
        }
        for c in text.chars().take(self.left) {
            self.left -= 1;
            self.to.write_char(if (self.plain)(c) { c } else { '?' })?;
        }
        Ok(())
    }
}

/// The longest path shown, in characters; a command line allows more, a header line of 998 octets doesn't.
const PATH_MAX: usize = 900;

/// The longest host name shown, in characters: RFC 5321 §4.5.3.1.2.
const NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    fn trace() -> Trace<'static> {
        Trace {
            reverse_path: &"a@example.org",
            helo: "client.example",
            peer: "[192.0.2.1]",
            hostname: "mx.example.net",
            protocol: "ESMTPS",
            recipient: Some(&"b@example.net"),
            user: None,
            submission: false,
        }
    }

    fn text(trace: &Trace<'_>, only: Option<&Target>, form: Form) -> String {
        String::from_utf8(trace.header(only, "1.M2P3Q4", "DATE", form, 0)).unwrap()
    }

    #[test]
    fn one_recipient() {
        let target = Target {
            root: Arc::from(Path::new("")),
            maildir: PathBuf::new(),
            may_create: false,
            folder: None,
            address: "carol@example.net".into(),
            original: Some("b@example.net".into()),
            quota: None,
        };
        let expected = "Return-Path: <a@example.org>\nDelivered-To: carol@example.net\nX-Original-To: b@example.net\n\
            Received: from client.example ([192.0.2.1])\n\tby mx.example.net (mailslot) with ESMTPS id 1.M2P3Q4\n\
            \tfor <b@example.net>; DATE\n";
        assert_eq!(text(&trace(), Some(&target), Form::Text), expected);
        assert_eq!(
            text(&trace(), Some(&target), Form::Binary),
            expected.replace('\n', "\r\n")
        );
    }

    #[test]
    fn the_user_is_named_where_that_is_wanted() {
        let known = Trace {
            user: Some("jo)e"),
            ..trace()
        };
        let text = text(&known, None, Form::Text);
        assert!(
            text.contains("([192.0.2.1])\n\t(authenticated as jo?e)\n\tby"),
            "{text}"
        );
    }

    #[test]
    fn several_recipients_are_not_named() {
        let several = Trace {
            recipient: None,
            reverse_path: &"",
            ..trace()
        };
        let expected = "Return-Path: <>\nReceived: from client.example ([192.0.2.1])\n\
            \tby mx.example.net (mailslot) with ESMTPS id 1.M2P3Q4;\n\tDATE\n";
        assert_eq!(text(&several, None, Form::Text), expected);
    }

    #[test]
    fn nothing_from_the_network_makes_a_line() {
        let nasty = Trace {
            helo: "x)\r\nSubject: y (",
            reverse_path: &"a\r\nb\u{2028}@c",
            recipient: Some(&"d\ne@f"),
            ..trace()
        };
        let text = text(&nasty, None, Form::Text);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            text.starts_with("Return-Path: <a??b?@c>\nReceived: from x???Subject:?y?? ([192"),
            "{text}"
        );
    }
}
