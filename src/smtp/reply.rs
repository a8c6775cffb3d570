//! The server's replies: their type, their form on the wire, and the table of all replies in numerical order. A reply
//! is plain data; counting, logging and sending happen elsewhere.

use std::borrow::Cow;

/// Maximum octets of a reply line, CRLF included (RFC 5321 §4.5.3.1.5).
const MAX_LINE: usize = 512;
/// Maximum octets of the line of a challenge (RFC 4954 §4).
const MAX_CHALLENGE: usize = 12_288;

/// Subject and detail of an enhanced status code (RFC 3463 §2); the class is the first digit of the reply code, so the
/// two cannot disagree (RFC 2034 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced(pub u16, pub u16);

/// One reply, of one line or of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    text: Cow<'static, str>,
    /// True if the client asked for UTF-8 in it (RFC 6531 §3.7.4.2).
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

    /// True for 4xx and 5xx.
    pub const fn is_error(&self) -> bool {
        self.code >= 400
    }

    /// The enhanced status code: class, subject, detail (RFC 3463 §2).
    #[cfg(test)]
    pub(crate) fn enhanced(&self) -> Option<(u16, u16, u16)> {
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

    /// The same reply with UTF-8 allowed in its text, as the client asked (RFC 6531 §3.7.4.2).
    pub fn in_utf8(self) -> Self {
        Self { utf8: true, ..self }
    }

    /// Appends the reply as it goes over the wire: the codes on each line (RFC 5321 §4.2.1,
    /// RFC 2034 §4), unprintable octets replaced, long lines cut to 512 octets.
    pub fn render(&self, out: &mut Vec<u8>) {
        // The texts of the table need no check: each is one short printable line.
        let fixed = matches!(self.text, Cow::Borrowed(_));
        let mut rest = Some(self.text.as_ref());
        while let Some(text) = rest {
            let split = if fixed { None } else { text.split_once('\n') };
            let (line, more) = split.map_or((text, None), |(line, more)| (line, Some(more)));
            rest = more;
            let most = match self.code {
                334 => MAX_CHALLENGE,
                _ => MAX_LINE,
            };
            let end = out.len() + most - 2;
            self.push_codes(out, if more.is_some() { b'-' } else { b' ' });
            // The fast path for nearly every line.
            let plain = || line.bytes().all(|o| (b' '..=b'~').contains(&o));
            if fixed || out.len() + line.len() <= end && plain() {
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

    /// Appends the code and the status. Subjects have one digit, and details at most two (RFC 3463 §3).
    fn push_codes(&self, out: &mut Vec<u8>, separator: u8) {
        let [class, tens, ones] = [self.code / 100, self.code / 10, self.code].map(digit);
        out.extend_from_slice(&[class, tens, ones, separator]);
        if let Some(Enhanced(subject, detail)) = self.enhanced {
            out.extend_from_slice(&[class, b'.', digit(subject), b'.']);
            if detail >= 10 {
                out.push(digit(detail / 10));
            }
            out.extend_from_slice(&[digit(detail), b' ']);
        }
    }
}

/// The last digit of a number.
const fn digit(number: u16) -> u8 {
    b'0' + (number % 10) as u8
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
    /// BDAT without LAST (RFC 3030 §2).
    CHUNK_RECEIVED = reply(250, Enhanced(0, 0), "Chunk received");
    /// ETRN (RFC 1985 §5.3).
    QUEUE_STARTED = reply(250, Enhanced(0, 0), "Queue processing started");
    /// ATRN: the client becomes the server (RFC 2645 §5.2).
    ATRN_STARTED = reply(250, Enhanced(0, 0), "OK, now reversing the connection");
    /// MAIL (RFC 5321 §3.3).
    SENDER_OK = reply(250, Enhanced(1, 0), "Sender OK");
    /// VRFY and EXPN, answered truthfully (RFC 5321 §3.5); one name a line.
    NAMES = reply(250, Enhanced(1, 5), "");
    /// RCPT (RFC 5321 §3.3).
    RECIPIENT_OK = reply(250, Enhanced(1, 5), "Recipient OK");
    /// ETRN with an empty queue (RFC 1985 §5.3).
    NOTHING_QUEUED = reply(251, Enhanced(0, 0), "No messages waiting");
    /// RCPT of a recipient whose mail is relayed (RFC 5321 §3.4).
    FORWARDED = reply(251, Enhanced(1, 5), "User not local; will forward");
    /// VRFY while it is off (RFC 5321 §3.5.3, §7.3).
    CANNOT_VRFY = reply(252, Enhanced(5, 0), "Cannot VRFY user, but will accept message and attempt delivery");
    /// A challenge of AUTH, in base64 (RFC 4954 §4).
    CHALLENGE = plain(334, "");
    /// DATA (RFC 5321 §4.1.1.4).
    START_DATA = plain(354, "End data with <CR><LF>.<CR><LF>");
    /// A panic (RFC 5321 §3.8).
    INTERNAL_ERROR = reply(421, Enhanced(3, 0), "Internal error, closing the connection");
    /// A shutdown (RFC 5321 §3.8).
    UNAVAILABLE = reply(421, Enhanced(3, 2), "Server is shutting down");
    /// No connection or thread is free (RFC 5321 §3.8).
    SERVER_FULL = reply(421, Enhanced(3, 2), "Too many connections, try again later");
    /// A silent or slow client (RFC 5321 §4.5.3.2.7).
    TIMED_OUT = reply(421, Enhanced(4, 2), "Timed out waiting for the client");
    /// `--max-per-client` (RFC 5321 §7.8).
    TOO_MANY_FROM_CLIENT = reply(421, Enhanced(7, 0), "Too many connections from your address");
    /// `--max-errors` (RFC 5321 §7.8).
    TOO_MANY_ERRORS = reply(421, Enhanced(7, 0), "Too many errors");
    /// Too many NOOP and the like (RFC 5321 §7.8).
    TOO_MUCH_NOISE = reply(421, Enhanced(7, 0), "Too many commands without a message");
    /// A command line past 1 MiB (RFC 5321 §4.5.3.1.4, §7.8).
    ENDLESS_LINE = reply(421, Enhanced(7, 0), "Line far too long");
    /// DATA past twice `--max-size` (RFC 5321 §4.5.3.1.7).
    FAR_TOO_LARGE = reply(421, Enhanced(7, 0), "Message far too large");
    /// BDAT past twice `--max-size` (RFC 3030 §2).
    CHUNK_FAR_TOO_LARGE = reply(421, Enhanced(7, 0), "Chunks far too large");
    /// The third wrong AUTH (RFC 4954 §4).
    TOO_MANY_WRONG_LOGINS = reply(421, Enhanced(7, 0), "Too many failed logins");
    /// GET, POST, CONNECT and other HTTP methods (RFC 5321 §7.8).
    HTTP = reply(421, Enhanced(7, 0), "This is not an HTTP server");
    /// A TLS hello on a listener in the clear (RFC 8314 §3.3).
    UNEXPECTED_TLS = reply(421, Enhanced(7, 0), "TLS not expected here, use STARTTLS");
    /// ATRN of a domain that is not the user's (RFC 2645 §5.2.1).
    ATRN_REFUSED = reply(450, Enhanced(7, 0), "ATRN request refused");
    /// `--max-rate` (RFC 5321 §7.8).
    RATE_LIMITED = reply(450, Enhanced(7, 1), "Too many messages, try again later");
    /// The Maildir cannot be used (RFC 5321 §4.2.2).
    MAILBOX_UNUSABLE = reply(451, Enhanced(2, 0), "Mailbox not usable now, try again later");
    /// The mail root is missing, as when a volume is not mounted (RFC 5321 §4.2.2).
    MAILBOX_AWAY = reply(451, Enhanced(2, 1), "Mailbox not available now, try again later");
    /// Other local errors (RFC 5321 §4.2.2).
    LOCAL_ERROR = reply(451, Enhanced(3, 0), "Local error, try again later");
    /// `--greylist` (RFC 6647 §2.1).
    GREYLISTED = reply(451, Enhanced(7, 1), "Greylisted, try again later");
    /// Some mailboxes of several are full (RFC 5321 §4.2.2).
    SOME_FULL = reply(452, Enhanced(2, 2), "Some mailboxes are full, try again later");
    /// The disk is full (RFC 1870 §6.1).
    DISK_FULL = reply(452, Enhanced(3, 1), "Insufficient storage, try again later");
    /// `--max-recipients` (RFC 5321 §4.5.3.1.10).
    TOO_MANY_RECIPIENTS = reply(452, Enhanced(5, 3), "Too many recipients");
    /// ATRN with nothing queued (RFC 2645 §5.2).
    NOTHING_WAITING = reply(453, Enhanced(0, 0), "You have no mail");
    /// AUTH after wrong logins over several connections (RFC 4954 §6).
    TOO_MUCH_GUESSING = reply(454, Enhanced(7, 0), "Too many failed logins from your address, try again later");
    /// ETRN during a shutdown (RFC 1985 §5.3).
    CANNOT_START_QUEUE = reply(458, Enhanced(3, 0), "Unable to process the queue now");
    /// ETRN of a client that may not use it (RFC 1985 §5.3).
    ETRN_REFUSED = reply(459, Enhanced(7, 0), "Not allowed to process the queue");
    /// A verb that is unknown, or of the other protocol (RFC 5321 §4.2.2, RFC 2033 §4.1).
    UNKNOWN_COMMAND = reply(500, Enhanced(5, 1), "Command not recognized");
    /// A command line over 2,048 octets (RFC 5321 §4.5.3.1.4).
    LINE_TOO_LONG = reply(500, Enhanced(5, 2), "Line too long");
    /// A command line (RFC 5321 §2.3.8).
    MALFORMED_LINE = reply(500, Enhanced(5, 2), "Bare CR, bare LF or NUL in the line");
    /// A line of AUTH over 12,288 octets (RFC 4954 §4).
    AUTH_LINE_TOO_LONG = reply(500, Enhanced(5, 6), "Authentication exchange line too long");
    /// RCPT (RFC 5321 §4.1.2).
    BAD_RECIPIENT_SYNTAX = reply(501, Enhanced(1, 3), "Bad recipient address syntax");
    /// MAIL (RFC 5321 §4.1.2).
    BAD_SENDER_SYNTAX = reply(501, Enhanced(1, 7), "Bad sender address syntax");
    /// A response of AUTH that is not base64, or not what the mechanism asks for (RFC 4954 §4).
    BAD_RESPONSE = reply(501, Enhanced(5, 2), "Cannot decode response");
    /// A control character in the name of EHLO, HELO or LHLO (RFC 5321 §4.1.1.1).
    BAD_NAME = reply(501, Enhanced(5, 4), "Control character in the name");
    /// A parameter of MAIL or RCPT (RFC 5321 §4.1.2, §4.1.1.11).
    BAD_PARAMETER = reply(501, Enhanced(5, 4), "Parameter malformed or given twice");
    /// ETRN of something else than a domain, `@domain` or `#id`, ATRN of something else than domains (RFC 1985 §5.3,
    /// RFC 2645 §5.2.1).
    BAD_QUEUE_NAME = reply(501, Enhanced(5, 4), "Not a valid domain or queue name");
    /// XCLIENT (RFC 5321 §4.2.2).
    BAD_ATTRIBUTES = reply(501, Enhanced(5, 4), "Attributes unknown or malformed");
    /// BDAT with an unreadable size (RFC 3030 §2).
    BAD_CHUNK_SIZE = reply(501, Enhanced(5, 4), "Cannot read the chunk size");
    /// A command that needs one (RFC 5321 §4.1.1).
    MISSING_ARGUMENT = reply(501, Enhanced(5, 4), "Argument required");
    /// DATA, RSET, QUIT, STARTTLS (RFC 5321 §4.1.1).
    UNEXPECTED_ARGUMENT = reply(501, Enhanced(5, 4), "No argument allowed");
    /// `*` in AUTH (RFC 4954 §4).
    AUTH_CANCELLED = reply(501, Enhanced(7, 0), "Authentication cancelled");
    /// An initial response where none can be (RFC 4954 §4).
    NO_INITIAL_RESPONSE = reply(501, Enhanced(7, 0), "The server speaks first in this mechanism");
    /// SEND, SOML, SAML, TURN; ETRN and ATRN without a relay (RFC 5321 §4.2.4).
    NOT_OFFERED = reply(502, Enhanced(5, 1), "Command not implemented");
    /// STARTTLS without a certificate (RFC 5321 §4.2.4).
    NO_CERTIFICATE = reply(502, Enhanced(5, 1), "TLS not available");
    /// AUTH without accounts (RFC 5321 §4.2.4).
    NO_ACCOUNTS = reply(502, Enhanced(5, 1), "Authentication not available");
    /// EXPN while it is off (RFC 5321 §7.3).
    NO_EXPN = reply(502, Enhanced(5, 1), "EXPN is disabled");
    /// A transaction, AUTH or STARTTLS before EHLO (RFC 5321 §4.1.4).
    GREET_FIRST = reply(503, Enhanced(5, 1), "Send EHLO or HELO first");
    /// The same on LMTP (RFC 2033 §4.1).
    LHLO_FIRST = reply(503, Enhanced(5, 1), "Send LHLO first");
    /// MAIL in a transaction (RFC 5321 §4.1.4).
    NESTED_MAIL = reply(503, Enhanced(5, 1), "Sender already specified");
    /// RCPT, DATA or BDAT without MAIL (RFC 5321 §4.1.4).
    MAIL_FIRST = reply(503, Enhanced(5, 1), "Send MAIL first");
    /// DATA or BDAT without a recipient (RFC 5321 §4.1.4, RFC 2033 §4.2).
    RCPT_FIRST = reply(503, Enhanced(5, 1), "Send RCPT first");
    /// RCPT or DATA after a BDAT (RFC 3030 §2).
    IN_CHUNKS = reply(503, Enhanced(5, 1), "Only BDAT, RSET or QUIT between chunks");
    /// DATA after BODY=BINARYMIME (RFC 3030 §3).
    BDAT_REQUIRED = reply(503, Enhanced(5, 1), "A BINARYMIME message needs BDAT");
    /// STARTTLS in TLS (RFC 3207 §4.2).
    TLS_ACTIVE = reply(503, Enhanced(5, 1), "TLS already active");
    /// AUTH, STARTTLS and the like after MAIL (RFC 4954 §4).
    IN_TRANSACTION = reply(503, Enhanced(5, 1), "Not allowed during a mail transaction");
    /// A second AUTH (RFC 4954 §4).
    ALREADY_LOGGED_IN = reply(503, Enhanced(5, 1), "Already authenticated");
    /// HELP on something unknown (RFC 5321 §4.1.1.8).
    NO_SUCH_TOPIC = reply(504, Enhanced(5, 4), "No help on that");
    /// AUTH (RFC 4954 §4).
    NO_SUCH_MECHANISM = reply(504, Enhanced(5, 4), "Authentication mechanism not offered");
    /// Without TLS where TLS is required (RFC 3207 §4).
    NEEDS_TLS = reply(530, Enhanced(7, 0), "Must issue a STARTTLS command first");
    /// On submission, and for ATRN, before a login (RFC 6409 §4.3, RFC 4954 §6).
    NEEDS_LOGIN = reply(530, Enhanced(7, 0), "Authentication required");
    /// Failed authentication, for any reason (RFC 4954 §6).
    WRONG_CREDENTIALS = reply(535, Enhanced(7, 8), "Authentication credentials invalid");
    /// AUTH in the clear (RFC 4954 §6).
    AUTH_NEEDS_TLS = reply(538, Enhanced(7, 11), "Encryption required for authentication");
    /// An unknown mailbox (RFC 5321 §3.3, §3.5).
    NO_SUCH_USER = reply(550, Enhanced(1, 1), "No such user here");
    /// The end of DATA under `--bare-newline reject` (RFC 5321 §2.3.8).
    BARE_NEWLINE = reply(550, Enhanced(6, 0), "Bare CR or LF in message");
    /// XCLIENT from a client that is not trusted (RFC 5321 §7.9).
    NOT_TRUSTED = reply(550, Enhanced(7, 0), "XCLIENT not permitted");
    /// A domain that is not delivered here (RFC 5321 §3.6.2, §7.9).
    NO_RELAY = reply(550, Enhanced(7, 1), "Relay access denied");
    /// A reverse-path that is not the user's (RFC 6409 §6.1).
    NOT_YOURS = reply(550, Enhanced(7, 1), "Sender address not owned by user");
    /// An alias leads to another host (RFC 5321 §3.4); the text names the path.
    NOT_LOCAL = reply(551, Enhanced(1, 6), "User not local");
    /// A quota is full (RFC 3463 §3.3).
    MAILBOX_FULL = reply(552, Enhanced(2, 2), "Mailbox full");
    /// `--max-size`: SIZE of MAIL, or the content (RFC 1870 §6.1, §6.3).
    TOO_LARGE = reply(552, Enhanced(3, 4), "Message too large");
    /// VRFY or EXPN of an ambiguous name (RFC 5321 §3.5.3).
    AMBIGUOUS = reply(553, Enhanced(1, 4), "User ambiguous");
    /// MAIL, RCPT, VRFY or EXPN (RFC 6531 §3.5).
    NEEDS_SMTPUTF8 = reply(553, Enhanced(6, 7), "Non-ASCII address needs SMTPUTF8");
    /// VRFY or EXPN whose answer is not ASCII, without SMTPUTF8 (RFC 6531 §3.7.4.2).
    NEEDS_SMTPUTF8_REPLY = reply(553, Enhanced(6, 8), "Non-ASCII reply needs SMTPUTF8");
    /// More than 100 Received fields (RFC 5321 §6.3).
    MAIL_LOOP = reply(554, Enhanced(4, 6), "Too many Received fields, mail loop");
    /// DATA or BDAT where no RCPT was accepted (RFC 5321 §3.3).
    NO_RECIPIENTS = reply(554, Enhanced(5, 1), "No valid recipients");
    /// Input after STARTTLS, sent in the clear and never executed (RFC 3207 §4.2).
    INPUT_AFTER_STARTTLS = reply(554, Enhanced(7, 0), "Unexpected input after STARTTLS");
    /// A parameter of MAIL or RCPT that is unknown or not offered now (RFC 5321 §4.1.1.11).
    UNKNOWN_PARAMETER = reply(555, Enhanced(5, 4), "Parameter not recognized");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R041, R100, R101: every row on the wire.
    #[test]
    fn every_reply_is_well_formed() {
        for row in ALL {
            let mut out = Vec::new();
            row.render(&mut out);
            let text = String::from_utf8_lossy(&out).into_owned();
            let printable = row.text().bytes().all(|o| (b' '..=b'~').contains(&o));
            assert!(out.len() <= MAX_LINE && printable, "{text}");
            let class = format!(" {}.", row.code() / 100);
            assert_eq!(text.contains(&class), row.code() / 100 != 3, "{text}");
        }
        assert!(ALL.is_sorted_by_key(|row| (row.code(), row.enhanced())));
    }

    /// R103: subject and detail are registered (RFC 3463, RFC 4954, RFC 5248, RFC 6531, RFC 7372 and the registry of
    /// IANA): X.0.0 to X.7.30.
    #[test]
    fn every_status_is_registered() {
        let last_details = [0, 10, 4, 5, 7, 6, 10, 30];
        for row in ALL {
            let Some((_, subject, detail)) = row.enhanced() else {
                continue;
            };
            let last = last_details.get(usize::from(subject));
            assert!(last.is_some_and(|&last| detail <= last), "{row:?}");
        }
    }

    /// Every cause has its own text, so that a log shows which one it was.
    #[test]
    fn every_cause_has_its_own_text() {
        for (at, row) in ALL.iter().enumerate() {
            let mut others = ALL.iter().skip(at + 1);
            let twin = others.find(|other| other.text() == row.text());
            assert!(twin.is_none() || row.text().is_empty(), "{row:?}");
        }
    }

    #[test]
    fn escapes_and_cuts() {
        let mut out = Vec::new();
        OK.with_text(format!("a\u{1b}b\n{}", "x".repeat(2_000)))
            .render(&mut out);
        assert!(out.starts_with(b"250-2.0.0 a?b\r\n250 2.0.0 xxx"));
        assert_eq!(out.len(), 15 + MAX_LINE);
        out.clear();
        // A client decodes the whole challenge.
        CHALLENGE.with_text("x".repeat(4_000)).render(&mut out);
        assert_eq!(out.len(), 4_006);
        out.clear();
        let long = OK.with_text("\u{e9}".repeat(400));
        long.clone().in_utf8().render(&mut out);
        assert!(out.len() <= MAX_LINE && std::str::from_utf8(&out).is_ok());
        out.clear();
        long.render(&mut out);
        assert!(out.is_ascii());
    }
}
