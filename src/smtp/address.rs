//! Paths, mailboxes and domains (RFC 5321 §4.1.2, §4.1.3; RFC 6531 §3.3). Only a parser makes values of these types, so
//! they are always well formed.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::cursor::Cursor;

/// Maximum octets of a local part. RFC 5321 §4.5.3.1 encourages more than the 64 of §4.5.3.1.1, and forwarders send
/// them.
const MAX_LOCAL: usize = 255;
/// Maximum octets of a domain (RFC 5321 §4.5.3.1.2).
const MAX_DOMAIN: usize = 255;
/// Maximum characters of a label (RFC 1035 §2.3.4); a U-label may have more octets.
const MAX_LABEL: usize = 63;

/// The reverse-path: `<>` or a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`, the sender of notifications (RFC 5321 §4.5.5).
    Null,
    /// A mailbox; its domain may be missing (cron).
    Mailbox(Mailbox),
}

/// A forward-path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain (RFC 5321 §4.5.1).
    Postmaster,
    /// A mailbox; its domain may be missing.
    Mailbox(Mailbox),
}

/// A local part and usually a domain, kept as one string for headers, replies and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    spelled: String,
    /// Length of the local part in `spelled`, in octets.
    local: usize,
    /// The local part without its quotes, if it needs them.
    unquoted: Option<String>,
}

impl ReversePath {
    /// Parses a path; `None` if it is malformed.
    pub fn parse(cursor: &mut Cursor<'_>) -> Option<Self> {
        if cursor.tag("<>") {
            return Some(Self::Null);
        }
        path(cursor).map(Self::Mailbox)
    }

    /// Like [`Self::parse`], but also accepts an address without angle brackets.
    pub fn parse_bare(cursor: &mut Cursor<'_>) -> Option<Self> {
        if cursor.rest().starts_with('<') {
            return Self::parse(cursor);
        }
        mailbox(cursor).map(Self::Mailbox)
    }

    /// The path without angle brackets; empty for the null path.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Mailbox(mailbox) => mailbox.as_str(),
        }
    }

    /// True if the address does not need SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.as_str().is_ascii()
    }
}

impl ForwardPath {
    /// Parses a path; `None` if it is malformed.
    pub fn parse(cursor: &mut Cursor<'_>) -> Option<Self> {
        path(cursor).map(Self::new)
    }

    /// Like [`Self::parse`], but also accepts an address without angle brackets.
    pub fn parse_bare(cursor: &mut Cursor<'_>) -> Option<Self> {
        if cursor.rest().starts_with('<') {
            return Self::parse(cursor);
        }
        mailbox(cursor).map(Self::new)
    }

    /// Parses a whole text, with or without angle brackets.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut cursor = Cursor::new(text);
        Self::parse_bare(&mut cursor).filter(|_| cursor.rest().is_empty())
    }

    fn new(mailbox: Mailbox) -> Self {
        if mailbox.as_str().eq_ignore_ascii_case("postmaster") {
            Self::Postmaster
        } else {
            Self::Mailbox(mailbox)
        }
    }

    /// The path without angle brackets.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Postmaster => "Postmaster",
            Self::Mailbox(mailbox) => mailbox.as_str(),
        }
    }

    /// True if the address does not need SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.as_str().is_ascii()
    }
}

impl Mailbox {
    /// Builds a mailbox from parts that were validated earlier, when a file was read.
    pub(crate) fn new(local: &str, domain: &str) -> Self {
        Self::spell(local, Some(domain))
    }

    /// Joins an unquoted local part and a domain, adding quotes where they are needed.
    fn spell(local: &str, domain: Option<&str>) -> Self {
        let bare = local
            .split('.')
            .all(|atom| !atom.is_empty() && atom.chars().all(is_atext));
        let mut spelled = if bare {
            local.to_owned()
        } else {
            let escaped = local.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{escaped}\"")
        };
        let length = spelled.len();
        if let Some(domain) = domain {
            spelled.push('@');
            spelled.push_str(domain);
        }
        Self {
            spelled,
            local: length,
            unquoted: (!bare).then(|| local.to_owned()),
        }
    }

    /// The whole address as it is spelled.
    pub fn as_str(&self) -> &str {
        &self.spelled
    }

    /// The local part, unquoted, in the sender's spelling.
    pub fn local(&self) -> &str {
        match (&self.unquoted, self.spelled.split_at_checked(self.local)) {
            (Some(local), _) => local,
            (None, Some((local, _))) => local,
            (None, None) => &self.spelled,
        }
    }

    /// The domain or address literal in the sender's spelling.
    pub fn domain(&self) -> Option<&str> {
        self.spelled.get(self.local..)?.strip_prefix('@')
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `"<" [source-route ":"] mailbox ">"`; the route is read and dropped (RFC 5321 §3.6.1).
fn path(cursor: &mut Cursor<'_>) -> Option<Mailbox> {
    if !cursor.tag("<") {
        return None;
    }
    if cursor.rest().starts_with('@') {
        source_route(cursor)?;
    }
    let mailbox = mailbox(cursor)?;
    cursor.tag(">").then_some(mailbox)
}

fn source_route(cursor: &mut Cursor<'_>) -> Option<()> {
    loop {
        if !cursor.tag("@") {
            return None;
        }
        domain(cursor)?;
        cursor.tag(".");
        if cursor.tag(":") {
            return Some(());
        }
        if !cursor.tag(",") {
            return None;
        }
    }
}

fn mailbox(cursor: &mut Cursor<'_>) -> Option<Mailbox> {
    let start = *cursor;
    let quoted = if cursor.rest().starts_with('"') {
        Some(quoted_string(cursor)?)
    } else {
        dots_and_atoms(cursor)?;
        None
    };
    let local = match &quoted {
        Some(local) => local,
        None => start.until(cursor)?,
    };
    if local.len() > MAX_LOCAL {
        return None;
    }
    let mut end = *cursor;
    let domain = if cursor.tag("@") {
        let domain = domain(cursor)?;
        end = *cursor;
        // The trailing dot of the root is not part of the name (RFC 5321 §2.3.5).
        cursor.tag(".");
        Some(domain)
    } else {
        None
    };
    Some(match &quoted {
        Some(local) => Mailbox::spell(local, domain),
        // Unquoted: keep the client's spelling.
        None => Mailbox {
            spelled: start.until(&end)?.to_owned(),
            local: local.len(),
            unquoted: None,
        },
    })
}

/// A Dot-string, but with dots anywhere: real senders have such addresses.
fn dots_and_atoms(cursor: &mut Cursor<'_>) -> Option<()> {
    let text = cursor.run(|c| is_atext(c) || c == '.');
    (!text.is_empty()).then_some(())
}

/// `DQUOTE *QcontentSMTP DQUOTE`: printable characters, each with or without a backslash.
fn quoted_string(cursor: &mut Cursor<'_>) -> Option<String> {
    cursor.tag("\"");
    let mut text = String::new();
    loop {
        match cursor.character()? {
            '"' => return Some(text),
            '\\' => text.push(cursor.character().filter(|c| (' '..='~').contains(c))?),
            c if (' '..='~').contains(&c) || is_utf8(c) => text.push(c),
            _ => return None,
        }
    }
}

/// Parses a whole text as a domain and drops one trailing dot.
pub(crate) fn whole_domain(text: &str) -> Option<&str> {
    let mut cursor = Cursor::new(text.strip_suffix('.').unwrap_or(text));
    domain(&mut cursor).filter(|_| cursor.rest().is_empty())
}

fn domain<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    if cursor.rest().starts_with('[') {
        return literal(cursor);
    }
    let mut ahead = *cursor;
    let text =
        ahead.run(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') || is_utf8(c));
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &[u8]| {
        let begins_character = |octet: &&u8| **octet & 0xc0 != 0x80;
        let length = || label.iter().filter(begins_character).count();
        let fits = label.len() <= MAX_LABEL || length() <= MAX_LABEL;
        fits && !label.is_empty() && !label.starts_with(b"-") && !label.ends_with(b"-")
    };
    let mut labels = text.as_bytes().split(|&octet| octet == b'.');
    if text.len() > MAX_DOMAIN || !labels.all(label) {
        return None;
    }
    cursor.octets(text.len())
}

/// An address literal (RFC 5321 §4.1.3), brackets included; IPv4, IPv6, or a tag with printable content.
fn literal<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    let start = *cursor;
    cursor.tag("[");
    let text = cursor.run(|c| ('!'..='~').contains(&c) && !matches!(c, '[' | '\\' | ']'));
    if !cursor.tag("]") {
        return None;
    }
    let good = match text.split_once(':') {
        None => text.parse::<Ipv4Addr>().is_ok(),
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6") => {
            address.parse::<Ipv6Addr>().is_ok()
        }
        Some((tag, content)) => {
            !content.is_empty()
                && tag.ends_with(|c: char| c.is_ascii_alphanumeric())
                && tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        }
    };
    good.then(|| start.until(cursor))?
}

/// RFC 5322 §3.2.3, and non-ASCII by RFC 6531 §3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, '!' | '#'..='\'' | '*' | '+' | '-' | '/' | '=' | '?' | '^'..='`' | '{'..='~')
        || is_utf8(c)
}

/// True for non-ASCII text without C1 controls and invisible characters, which only deceive, except the two joiners
/// that some scripts need (RFC 5892 §A.1). U+FFFD marks invalid UTF-8.
fn is_utf8(c: char) -> bool {
    !c.is_ascii()
        && !c.is_control()
        && !matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(text: &str) -> Option<String> {
        let mut cursor = Cursor::new(text);
        let path = ForwardPath::parse(&mut cursor)?;
        cursor.rest().is_empty().then(|| path.to_string())
    }

    /// R013, R037, R038, R039: what the grammar accepts, and how it is written back.
    #[test]
    fn well_formed() {
        for (wire, spelled) in [
            ("<a@b>", "a@b"),
            ("<@x,@y.z:a.b@c>", "a.b@c"),
            ("<postMASTER>", "Postmaster"),
            (r#"<"a b"@c>"#, r#""a b"@c"#),
            (r#"<"a\"b\\"@c>"#, r#""a\"b\\"@c"#),
            (r#"<"plain"@c>"#, "plain@c"),
            (r#"<""@c>"#, r#"""@c"#),
            ("<a@[127.0.0.1]>", "a@[127.0.0.1]"),
            ("<a@[IPv6:::1]>", "a@[IPv6:::1]"),
            ("<a/b%c!d@e_f>", "a/b%c!d@e_f"),
            ("<user..name@b>", "user..name@b"),
            ("<.user.@b.>", ".user.@b"),
            (r#"<"user..name"@b.>"#, r#""user..name"@b"#),
            (r#"<"\a\ b"@c>"#, r#""a b"@c"#),
            ("<@x.:a@b.>", "a@b"),
            // A zero width joiner, as in Sinhala.
            (
                "<\u{dc1}\u{dca}\u{200d}\u{dbb}\u{dd3}@b>",
                "\u{dc1}\u{dca}\u{200d}\u{dbb}\u{dd3}@b",
            ),
            ("<jos\u{e9}@ex\u{e4}mple.org>", "jos\u{e9}@ex\u{e4}mple.org"),
        ] {
            assert_eq!(forward(wire).as_deref(), Some(spelled), "{wire}");
        }
    }

    /// R040, A11: what the grammar rejects.
    #[test]
    fn malformed() {
        for wire in [
            "",
            "<",
            "<>",
            "a@b",
            "<a@b",
            "<<a@b>",
            "<a@b>>",
            "<a@>",
            "<@b>",
            "<a b@c>",
            "<a@b@c>",
            "<@,@:a@b>",
            "<a@[>",
            "<a@[1.2.3]>",
            "<a@[IPv6:zz]>",
            "<a@-b>",
            "<a@b..c>",
            "<\"a@b>",
            "<\"a\"b@c>",
            "<a@b\u{1}>",
            "<a\u{200b}@b>",
            "<\"a\u{202e}\"@b>",
            "<a\u{fffd}@b>",
            "<a@b..>",
            "<a@.>",
            "<a@.b>",
            "<>@b>",
        ] {
            assert_eq!(forward(wire), None, "{wire}");
        }
        assert!(forward(&format!("<{}@b>", "x".repeat(255))).is_some());
        assert!(forward(&format!("<{}@b>", "x".repeat(256))).is_none());
        let label = "\u{4e2d}".repeat(30);
        assert!(forward(&format!("<a@{label}.example>")).is_some());
        assert!(forward(&format!("<a@{}>", "x".repeat(64))).is_none());
    }

    /// Printers omit the angle brackets.
    #[test]
    fn bare_addresses() {
        for (text, rest) in [("a@b", ""), ("a@b. SIZE=1", " SIZE=1"), ("\"a b\"@c", "")] {
            let mut cursor = Cursor::new(text);
            assert!(ReversePath::parse_bare(&mut cursor).is_some(), "{text}");
            assert_eq!(cursor.rest(), rest);
            assert!(ReversePath::parse(&mut Cursor::new(text)).is_none());
        }
        assert!(ReversePath::parse_bare(&mut Cursor::new("")).is_none());
    }
}
