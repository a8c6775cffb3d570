//! The trace headers that stand before a delivered message (RFC 5321 §4.4): Return-Path, Delivered-To, X-Original-To
//! and Received. What the network said is cleaned here: none of it can end a line or close a comment.

use super::{Form, Target};

/// What is known of a message's way here when its first octet arrives.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The reverse-path without angle brackets; empty for the null path.
    pub reverse_path: String,
    /// The client's EHLO, HELO or LHLO argument.
    pub helo: String,
    /// The client: `[192.0.2.1]`, `[IPv6:2001:db8::1]` or `unix`.
    pub peer: String,
    /// The server's own name.
    pub hostname: String,
    /// The with-keyword of RFC 3848 and RFC 6531: `ESMTPS`, `UTF8LMTP`, …
    pub protocol: &'static str,
    /// The forward-path, where the message has just one.
    pub recipient: Option<String>,
    /// The authenticated user, where the recipients may know it: a login name is not everybody's business.
    pub user: Option<String>,
    /// Whether a missing Date and Message-ID are to be added (RFC 6409 §8).
    pub submission: bool,
}

impl Trace {
    /// The header lines that go before the message. `only` is the target where there is just one.
    pub(super) fn header(
        &self,
        only: Option<&Target>,
        id: &str,
        date: &str,
        form: Form,
    ) -> Vec<u8> {
        let eol = form.eol();
        let mut header = format!("Return-Path: <{}>{eol}", clean(&self.reverse_path));
        if let Some(target) = only {
            header += &format!("Delivered-To: {}{eol}", clean(&target.address));
            if let Some(original) = &target.original {
                header += &format!("X-Original-To: {}{eol}", clean(original));
            }
        }
        let (helo, peer) = (word(&self.helo), word(&self.peer));
        let (host, protocol) = (word(&self.hostname), self.protocol);
        let user = match &self.user {
            Some(user) => format!("{eol}\t(authenticated as {})", word(user)),
            None => String::new(),
        };
        header += &format!(
            "Received: from {helo} ({peer}){user}{eol}\tby {host} (mailslot) with {protocol} id {id}{eol}"
        );
        match &self.recipient {
            Some(recipient) => header += &format!("\tfor <{}>; {date}{eol}", clean(recipient)),
            None => {
                // The semicolon belongs to the line before.
                header.truncate(header.len() - eol.len());
                header += &format!(";{eol}\t{date}{eol}");
            }
        }
        header.into_bytes()
    }
}

/// A path as it may stand in a header: control characters and line separators become `?`.
fn clean(text: &str) -> String {
    let plain = |c: char| !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
    text.chars()
        .take(PATH_MAX)
        .map(|c| if plain(c) { c } else { '?' })
        .collect()
}

/// A host name, address or literal as it may stand outside and inside a comment: besides control characters no
/// blanks, parentheses, quotes or delimiters of the Received grammar. Never empty.
fn word(text: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_graphic() && !matches!(c, '(' | ')' | '<' | '>' | '"' | '\\' | ';' | ',')
            || !c.is_ascii() && !c.is_control() && !c.is_whitespace()
    };
    let word: String = text
        .chars()
        .take(NAME_MAX)
        .map(|c| if plain(c) { c } else { '?' })
        .collect();
    if word.is_empty() {
        "unknown".to_owned()
    } else {
        word
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
    use std::path::PathBuf;

    fn trace() -> Trace {
        Trace {
            reverse_path: "a@example.org".into(),
            helo: "client.example".into(),
            peer: "[192.0.2.1]".into(),
            hostname: "mx.example.net".into(),
            protocol: "ESMTPS",
            recipient: Some("b@example.net".into()),
            user: None,
            submission: false,
        }
    }

    fn text(trace: &Trace, only: Option<&Target>, form: Form) -> String {
        String::from_utf8(trace.header(only, "1.M2P3Q4", "DATE", form)).unwrap()
    }

    #[test]
    fn one_recipient() {
        let target = Target {
            root: PathBuf::new(),
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
            user: Some("jo)e".into()),
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
            reverse_path: String::new(),
            ..trace()
        };
        let expected = "Return-Path: <>\nReceived: from client.example ([192.0.2.1])\n\
            \tby mx.example.net (mailslot) with ESMTPS id 1.M2P3Q4;\n\tDATE\n";
        assert_eq!(text(&several, None, Form::Text), expected);
    }

    #[test]
    fn nothing_from_the_network_makes_a_line() {
        let nasty = Trace {
            helo: "x)\r\nSubject: y (".into(),
            reverse_path: "a\r\nb\u{2028}@c".into(),
            recipient: Some("d\ne@f".into()),
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
