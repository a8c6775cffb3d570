//! What the server answers: the type of a reply, how it is spelled on the wire, and the one
//! table of all replies in numerical order. A reply is data; who counts, logs and sends it
//! lives elsewhere.

use std::borrow::Cow;

/// Longest reply line, CRLF included (RFC 5321 §4.5.3.1.5).
const MAX_LINE: usize = 512;

/// Subject and detail of an enhanced status code (RFC 3463 §2); the class is the first digit
/// of the reply code, so that the two cannot disagree (RFC 2034 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced(pub u16, pub u16);

/// One reply, of one line or of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    text: Cow<'static, str>,
    /// Whether the client asked for UTF-8 in it (RFC 6531 §3.7.4.2).
    utf8: bool,
}

/// A reply with an enhanced status code.
pub const fn reply(code: u16, enhanced: Enhanced, text: &'static str) -> Reply {
    Reply {
        code,
        enhanced: Some(enhanced),
        text: Cow::Borrowed(text),
        utf8: false,
    }
}

/// A reply without one: greeting, EHLO, and the 3xx (RFC 2034 §4).
pub const fn plain(code: u16, text: &'static str) -> Reply {
    Reply {
        code,
        enhanced: None,
        text: Cow::Borrowed(text),
        utf8: false,
    }
}

impl Reply {
    /// The three digits.
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// Whether it is a 4xx or 5xx.
    pub const fn is_error(&self) -> bool {
        self.code >= 400
    }

    /// The enhanced status code: class, subject, detail (RFC 3463 §2).
    pub fn enhanced(&self) -> Option<(u16, u16, u16)> {
        self.enhanced
            .map(|Enhanced(subject, detail)| (self.code / 100, subject, detail))
    }

    /// The text; lines of a multi-line reply are separated by LF.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same codes with another text.
    pub fn with_text(&self, text: impl Into<String>) -> Self {
        Self {
            text: Cow::Owned(text.into()),
            ..self.clone()
        }
    }

    /// The same reply, its UTF-8 left as it is: the client asked for that (RFC 6531 §3.7.4.2).
    pub fn in_utf8(self) -> Self {
        Self { utf8: true, ..self }
    }

    /// Appends the reply as it goes over the wire: the codes on each line (RFC 5321 §4.2.1,
    /// RFC 2034 §4), unprintable octets replaced, long lines cut to 512 octets.
    pub fn render(&self, out: &mut Vec<u8>) {
        let mut rest = Some(self.text.as_ref());
        while let Some(text) = rest {
            let (line, more) = match text.split_once('\n') {
                Some((line, more)) => (line, Some(more)),
                None => (text, None),
            };
            rest = more;
            let end = out.len() + MAX_LINE - 2;
            decimal(out, self.code);
            out.push(if more.is_some() { b'-' } else { b' ' });
            if let Some(Enhanced(subject, detail)) = self.enhanced {
                decimal(out, self.code / 100);
                out.push(b'.');
                decimal(out, subject);
                out.push(b'.');
                decimal(out, detail);
                out.push(b' ');
            }
            // Nearly every line passes as it is.
            if out.len() + line.len() <= end && line.bytes().all(|o| (b' '..=b'~').contains(&o)) {
                out.extend_from_slice(line.as_bytes());
                out.extend_from_slice(b"\r\n");
                continue;
            }
            for c in line.chars() {
                let shown = match c {
                    ' '..='~' => c,
                    c if self.utf8 && !c.is_ascii() && !c.is_control() => c,
                    _ => '?',
                };
                if out.len() + shown.len_utf8() > end {
                    break;
                }
                out.extend_from_slice(shown.encode_utf8(&mut [0; 4]).as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends the digits of a code.
fn decimal(out: &mut Vec<u8>, number: u16) {
    for power in [1_000, 100, 10] {
        if number >= power {
            out.push(b'0' + (number / power % 10) as u8);
        }
    }
    out.push(b'0' + (number % 10) as u8);
}

/// Whose doing a refusal is: it decides how loudly it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client broke the protocol or asked for what does not exist.
    Client,
    /// A rule of this server.
    Policy,
    /// Trouble of this host: disk, descriptors, files.
    Local,
}

/// A refusal: the reply and whose doing it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whose doing it is.
    pub blame: Blame,
    /// What the client hears.
    pub reply: Reply,
}

impl Refusal {
    /// The client's doing.
    pub const fn client(reply: Reply) -> Self {
        Self {
            blame: Blame::Client,
            reply,
        }
    }

    /// A rule of this server.
    pub const fn policy(reply: Reply) -> Self {
        Self {
            blame: Blame::Policy,
            reply,
        }
    }

    /// This host's trouble.
    pub const fn local(reply: Reply) -> Self {
        Self {
            blame: Blame::Local,
            reply,
        }
    }
}

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: Reply = $value;)*
        /// Every row of the table, for tests.
        #[cfg(test)]
        const ALL: &[Reply] = &[$($name),*];
    };
}

table! {
    /// HELP (RFC 5321 §4.1.1.8); the text is made from the command table.
    HELP = reply(214, Enhanced(0, 0), "");
    /// STARTTLS (RFC 3207 §4).
    START_TLS = reply(220, Enhanced(0, 0), "Ready to start TLS");
    /// QUIT (RFC 5321 §4.1.1.10).
    BYE = reply(221, Enhanced(0, 0), "Bye");
    /// AUTH succeeded (RFC 4954 §6).
    LOGGED_IN = reply(235, Enhanced(7, 0), "Authentication succeeded");
    /// RSET, NOOP (RFC 5321 §4.1.1.5, §4.1.1.9).
    OK = reply(250, Enhanced(0, 0), "OK");
    /// VRFY and EXPN that tell (RFC 5321 §3.5); the text is a name a line.
    LISTED = reply(250, Enhanced(1, 5), "");
    /// MAIL (RFC 5321 §3.3).
    SENDER_OK = reply(250, Enhanced(1, 0), "Sender OK");
    /// RCPT (RFC 5321 §3.3).
    RECIPIENT_OK = reply(250, Enhanced(1, 5), "Recipient OK");
    /// VRFY that tells nothing (RFC 5321 §3.5.3, §7.3).
    CANNOT_VRFY = reply(252, Enhanced(5, 0), "Cannot VRFY, but will take a message and try");
    /// A challenge of AUTH, in base64 (RFC 4954 §4).
    CHALLENGE = plain(334, "");
    /// DATA (RFC 5321 §4.1.1.4).
    START_DATA = plain(354, "End data with <CR><LF>.<CR><LF>");
    /// Shutdown, or the server is full (RFC 5321 §3.8).
    UNAVAILABLE = reply(421, Enhanced(3, 2), "Service not available, try later");
    /// A silent client (RFC 5321 §4.5.3.2.7).
    TIMED_OUT = reply(421, Enhanced(4, 2), "Timed out");
    /// Too many errors, too much noise, too many connections of one client.
    TOO_MUCH = reply(421, Enhanced(7, 0), "Too much of this, closing");
    /// The Maildir cannot be used as it is.
    MAILBOX_UNUSABLE = reply(451, Enhanced(2, 0), "Mailbox cannot be used now");
    /// The mail root is not there: a volume that is not mounted.
    MAILBOX_AWAY = reply(451, Enhanced(2, 1), "Mailbox is not there now");
    /// Other local trouble (RFC 5321 §4.2.2).
    LOCAL_ERROR = reply(451, Enhanced(3, 0), "Local error, try later");
    /// Some mailboxes of several are full (RFC 5321 §4.2.2).
    SOME_FULL = reply(452, Enhanced(2, 2), "Some mailboxes are full, try later");
    /// The disk is full (RFC 1870 §6.1).
    DISK_FULL = reply(452, Enhanced(3, 1), "Insufficient storage, try later");
    /// RFC 5321 §4.5.3.1.10.
    TOO_MANY_RECIPIENTS = reply(452, Enhanced(5, 3), "Too many recipients");
    /// The accounts cannot be asked now (RFC 4954 §6).
    AUTH_AWAY = reply(454, Enhanced(7, 0), "Temporary authentication failure");
    /// RFC 5321 §4.2.2.
    UNKNOWN_COMMAND = reply(500, Enhanced(5, 1), "Command not recognized");
    /// A line too long, or with a bare CR, LF or NUL (RFC 5321 §2.3.8, §4.5.3.1.4).
    BAD_LINE = reply(500, Enhanced(5, 2), "Line too long or malformed");
    /// A line of AUTH over 12,288 octets (RFC 4954 §4).
    AUTH_LINE_TOO_LONG = reply(500, Enhanced(5, 6), "Authentication exchange line too long");
    /// RFC 5321 §4.3.2.
    BAD_RECIPIENT_SYNTAX = reply(501, Enhanced(1, 3), "Bad recipient address syntax");
    /// RFC 5321 §4.3.2.
    BAD_SENDER_SYNTAX = reply(501, Enhanced(1, 7), "Bad sender address syntax");
    /// A response of AUTH that is no base64, or not what the mechanism asks for (RFC 4954 §4).
    BAD_RESPONSE = reply(501, Enhanced(5, 2), "Cannot decode response");
    /// RFC 5321 §4.3.2.
    BAD_ARGUMENT = reply(501, Enhanced(5, 4), "Bad or missing argument");
    /// `*` in AUTH, or an initial response where the server speaks first (RFC 4954 §4).
    AUTH_CANCELLED = reply(501, Enhanced(7, 0), "Authentication cancelled");
    /// A command known, but not offered (RFC 5321 §4.2.4).
    NOT_OFFERED = reply(502, Enhanced(5, 1), "Command not offered");
    /// RFC 5321 §4.1.4.
    BAD_SEQUENCE = reply(503, Enhanced(5, 1), "Bad sequence of commands");
    /// HELP on something unknown.
    NO_SUCH_TOPIC = reply(504, Enhanced(5, 4), "No help on that");
    /// RFC 4954 §4.
    NO_SUCH_MECHANISM = reply(504, Enhanced(5, 4), "Authentication mechanism not offered");
    /// In the clear where TLS is wanted (RFC 3207 §4).
    NEEDS_TLS = reply(530, Enhanced(7, 0), "Must issue a STARTTLS command first");
    /// On submission, before a login (RFC 6409 §4.3, RFC 4954 §6).
    NEEDS_LOGIN = reply(530, Enhanced(7, 0), "Authentication required");
    /// Wrong, for whatever reason (RFC 4954 §6).
    WRONG_CREDENTIALS = reply(535, Enhanced(7, 8), "Authentication credentials invalid");
    /// AUTH in the clear (RFC 4954 §6).
    AUTH_NEEDS_TLS = reply(538, Enhanced(7, 11), "Encryption required for authentication");
    /// RFC 5321 §3.6.1: unknown mailbox.
    NO_SUCH_USER = reply(550, Enhanced(1, 1), "No such user here");
    /// A bare CR or LF in a message.
    BARE_NEWLINE = reply(550, Enhanced(6, 0), "Bare CR or LF in message");
    /// No relay; XCLIENT of a client that is not trusted.
    NO_RELAY = reply(550, Enhanced(7, 1), "Not delivered here, relaying denied");
    /// A reverse-path that is not the user's (RFC 6409 §6.1).
    NOT_YOURS = reply(550, Enhanced(7, 1), "Not your address");
    /// XCLIENT of a client that is not trusted.
    NOT_TRUSTED = reply(550, Enhanced(7, 0), "Not authorized");
    /// An alias leads to another host (RFC 5321 §3.4); the text names the path.
    NOT_LOCAL = reply(551, Enhanced(1, 6), "User not local");
    /// A quota is full (RFC 3463 §3.3).
    MAILBOX_FULL = reply(552, Enhanced(2, 2), "Mailbox full");
    /// RFC 1870 §6.1, §6.3.
    TOO_LARGE = reply(552, Enhanced(3, 4), "Message too large");
    /// VRFY or EXPN of a name that several have (RFC 5321 §3.5.3).
    AMBIGUOUS = reply(553, Enhanced(1, 4), "Several users have that name");
    /// RFC 6531 §3.5.
    NEEDS_SMTPUTF8 = reply(553, Enhanced(6, 7), "Non-ASCII address needs SMTPUTF8");
    /// VRFY or EXPN whose answer is not ASCII, without SMTPUTF8 (RFC 6531 §3.7.4.2).
    NEEDS_SMTPUTF8_REPLY = reply(553, Enhanced(6, 8), "Non-ASCII reply needs SMTPUTF8");
    /// A mail loop (RFC 5321 §6.3).
    LOOP = reply(554, Enhanced(4, 6), "Too many Received fields, mail loop");
    /// DATA with no accepted recipient (RFC 5321 §3.3).
    NO_RECIPIENTS = reply(554, Enhanced(5, 1), "No valid recipients");
    /// Plaintext behind STARTTLS: it is never executed (RFC 3207 §4.2).
    PLAINTEXT_BEHIND = reply(554, Enhanced(7, 0), "Input behind STARTTLS, closing");
    /// RFC 5321 §4.1.1.11.
    UNKNOWN_PARAMETER = reply(555, Enhanced(5, 4), "Parameter not recognized");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R041, R100, R101: what every row looks like on the wire.
    #[test]
    fn every_reply_is_well_formed() {
        for row in ALL {
            let mut out = Vec::new();
            row.render(&mut out);
            let text = String::from_utf8_lossy(&out).into_owned();
            assert!(out.len() <= MAX_LINE && text.ends_with("\r\n"), "{text}");
            let class = format!(" {}.", row.code() / 100);
            assert_eq!(text.contains(&class), row.code() / 100 != 3, "{text}");
        }
        assert!(ALL.is_sorted_by_key(Reply::code));
    }

    #[test]
    fn escapes_and_cuts() {
        let mut out = Vec::new();
        OK.with_text(format!("a\u{1b}b\n{}", "x".repeat(2_000)))
            .render(&mut out);
        assert!(out.starts_with(b"250-2.0.0 a?b\r\n250 2.0.0 xxx"));
        assert_eq!(out.len(), 15 + MAX_LINE);
        out.clear();
        let long = OK.with_text("\u{e9}".repeat(400));
        long.clone().in_utf8().render(&mut out);
        assert!(out.len() <= MAX_LINE && std::str::from_utf8(&out).is_ok());
        out.clear();
        long.render(&mut out);
        assert!(out.is_ascii());
    }
}
