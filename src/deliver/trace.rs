//! The trace headers on top of a delivered message (RFC 5321 §4.4): Return-Path, Delivered-To, X-Original-To and
//! Received. Values from the network are cleaned here, so that none can end a line or close a comment.

use super::target::{Form, Target};

/// Maximum octets of a path: a command line allows more, but a header line only has 998.
const PATH_MAX: usize = 900;

/// Maximum octets of a host name (RFC 5321 §4.5.3.1.2).
const NAME_MAX: usize = 255;

/// The facts about a message that are known when its first octet arrives.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// The reverse-path without angle brackets; empty for the null path.
    pub reverse_path: &'a str,
    /// The client's EHLO, HELO or LHLO argument.
    pub helo: &'a str,
    /// The client: `[192.0.2.1]`, `[IPv6:2001:db8::1]` or `unix`, possibly after a name.
    pub peer: &'a str,
    /// The server's own name.
    pub hostname: &'a str,
    /// The with-keyword of RFC 3848 and RFC 6531: `ESMTPS`, `UTF8LMTP`, …
    pub protocol: &'static str,
    /// The forward-path, if the message has just one.
    pub recipient: Option<&'a str>,
    /// The authenticated user, if recipients may know it: a login name may be private.
    pub user: Option<&'a str>,
    /// True if a missing Date and Message-ID are added (RFC 6409 §8).
    pub submission: bool,
}

impl Trace<'_> {
    /// Builds the header lines, in a buffer with room for `room` octets. `only` is the target if there is just one.
    pub(super) fn header(
        &self,
        only: Option<&Target>,
        id: &str,
        date: &str,
        form: Form,
        room: usize,
    ) -> Vec<u8> {
        let mut header = String::with_capacity(room);
        let eol = form.eol();
        header.push_str("Return-Path: <");
        push_path(&mut header, self.reverse_path);
        push_all(&mut header, &[">", eol]);
        let original = only.and_then(|target| target.original.as_deref());
        for (name, address) in [
            ("Delivered-To: ", only.map(|target| target.address.as_str())),
            ("X-Original-To: ", original),
        ] {
            if let Some(address) = address {
                header.push_str(name);
                push_address(&mut header, address);
                header.push_str(eol);
            }
        }
        header.push_str("Received: from ");
        push_word(&mut header, self.helo);
        for (at, word) in self.peer.split(' ').enumerate() {
            header.push_str(if at == 0 { " (" } else { " " });
            push_word(&mut header, word);
        }
        header.push(')');
        if let Some(user) = self.user {
            push_all(&mut header, &[eol, "\t(authenticated as "]);
            push_word(&mut header, user);
            header.push(')');
        }
        push_all(&mut header, &[eol, "\tby "]);
        push_word(&mut header, self.hostname);
        let protocol = [" (mailslot) with ", self.protocol, " id ", id];
        push_all(&mut header, &protocol);
        match self.recipient {
            Some(recipient) => {
                push_all(&mut header, &[eol, "\tfor <"]);
                push_path(&mut header, recipient);
                push_all(&mut header, &[">; ", date, eol]);
            }
            None => push_all(&mut header, &[";", eol, "\t", date, eol]),
        }
        header.into_bytes()
    }
}

fn push_all(header: &mut String, parts: &[&str]) {
    for part in parts {
        header.push_str(part);
    }
}

/// A path for a header, with `?` for control characters and line separators.
fn push_path(header: &mut String, path: &str) {
    let plain = |c: char| !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
    push_plain(header, path, PATH_MAX, plain);
}

/// A mailbox for a header field; the local part is quoted if necessary (RFC 5322 §3.4.1).
fn push_address(header: &mut String, address: &str) {
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let is_quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    if is_quoted || is_dot_atom(local) {
        return push_path(header, address);
    }
    let mut quoted = String::with_capacity(address.len() + 3);
    quoted.push('"');
    for c in local.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    if address.len() > local.len() {
        push_all(&mut quoted, &["@", domain]);
    }
    push_path(header, &quoted);
}

/// Words of letters, digits and some signs with single dots between them (RFC 5322 §3.2.3, RFC 6532 §3.2).
fn is_dot_atom(local: &str) -> bool {
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii();
    let word = |word: &str| !word.is_empty() && word.chars().all(atom);
    local.split('.').all(word)
}

/// A host name, address or literal that is safe outside and inside a comment: without control characters, blanks,
/// parentheses, quotes and delimiters of the Received grammar. In ASCII, so that the message needs no more of a next hop
/// than its own content does. Never empty.
fn push_word(header: &mut String, word: &str) {
    let plain = |c: char| {
        c.is_ascii_graphic() && !matches!(c, '(' | ')' | '<' | '>' | '"' | '\\' | ';' | ',')
    };
    let word = if word.is_empty() { "unknown" } else { word };
    push_plain(header, word, NAME_MAX, plain);
}

/// The first `most` octets of a text at most, with `?` for each character that is not plain.
fn push_plain(header: &mut String, text: &str, most: usize, plain: impl Fn(char) -> bool) {
    let is_plain = |octet: u8| octet.is_ascii() && plain(char::from(octet));
    // The fast path for nearly every text; each octet is a character then.
    if text.len() <= most && text.bytes().all(is_plain) {
        return header.push_str(text);
    }
    let shown = text.chars().map(|c| if plain(c) { c } else { '?' });
    let end = header.len() + most;
    for c in shown {
        if header.len() + c.len_utf8() > end {
            break;
        }
        header.push(c);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    fn trace() -> Trace<'static> {
        Trace {
            reverse_path: "a@example.org",
            helo: "client.example",
            peer: "[192.0.2.1]",
            hostname: "mx.example.net",
            protocol: "ESMTPS",
            recipient: Some("b@example.net"),
            user: None,
            submission: false,
        }
    }

    fn text(trace: &Trace<'_>, only: Option<&Target>, form: Form) -> String {
        String::from_utf8(trace.header(only, "1.M2P3Q4", "DATE", form, 0)).unwrap()
    }

    /// R046
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
            owner: None,
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
    fn addresses_are_quoted_where_they_need_it() {
        for (address, shown) in [
            ("al ice@a.test", r#""al ice"@a.test"#),
            (r#"a"b\c@a.test"#, r#""a\"b\\c"@a.test"#),
            ("a..b@a.test", r#""a..b"@a.test"#),
            ("a.b+c@a.test", "a.b+c@a.test"),
            ("ж@a.test", "ж@a.test"),
            (r#""al ice"@a.test"#, r#""al ice"@a.test"#),
            ("alice", "alice"),
        ] {
            let mut header = String::new();
            push_address(&mut header, address);
            assert_eq!(header, shown);
        }
    }

    #[test]
    fn the_user_is_named_if_enabled() {
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

    /// R047, R071
    #[test]
    fn several_recipients_are_not_named() {
        let several = Trace {
            recipient: None,
            reverse_path: "",
            ..trace()
        };
        let expected = "Return-Path: <>\nReceived: from client.example ([192.0.2.1])\n\
            \tby mx.example.net (mailslot) with ESMTPS id 1.M2P3Q4;\n\tDATE\n";
        assert_eq!(text(&several, None, Form::Text), expected);
    }

    /// RFC 5322 §2.1.1 counts octets.
    #[test]
    fn lines_stay_short() {
        let long = "\u{1f600}".repeat(500);
        let peer = format!("{long} [192.0.2.1]");
        let wide = Trace {
            helo: &long,
            peer: &peer,
            user: Some(&long),
            ..trace()
        };
        let text = text(&wide, None, Form::Binary);
        assert!(text.lines().all(|line| line.len() <= 998), "{text}");
        // RFC 6531 §3.7.3: names that a client sent without SMTPUTF8 may not make the header need it.
        assert!(text.contains(&"?".repeat(255)) && text.is_ascii(), "{text}");
    }

    #[test]
    fn nothing_from_the_network_makes_a_line() {
        let nasty = Trace {
            helo: "x)\r\nSubject: y (",
            reverse_path: "a\r\nb\u{2028}@c",
            recipient: Some("d\ne@f"),
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
