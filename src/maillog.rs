//! The log lines: one for each connection, message, refusal and failed login, and the dialogue under `-v`. They are
//! `key=value`; values from the network are quoted, escaped and shortened, so that no client can forge a line or a
//! field (A15). Passwords are never logged. `log_queue` writes the lines.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::encoding::is_hidden;
use crate::smtp::command::{self, CommandRow, Verb};
use crate::smtp::line::Line;
use crate::smtp::reply::Reply;
use crate::smtp::session::Session;

/// Maximum characters of a value from the network.
const SHOWN: usize = 256;

/// Octets that the line of a message to one recipient rarely exceeds.
const MESSAGE_LINE: usize = 256;

/// Octets of a line after which no recipient is added: the log's queue has room for several such lines.
const MAX_MESSAGE_LINE: usize = 64 * 1024;

/// A value from the network as one word of a log line.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let plain = |octet| matches!(octet, b' '..=b'~') && !matches!(octet, b'"' | b'\\');
        // The fast path for nearly every value.
        if self.0.len() <= SHOWN && self.0.bytes().all(plain) {
            f.write_str(self.0)?;
            return f.write_char('"');
        }
        for c in self.0.chars().take(SHOWN) {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if is_hidden(c) => write!(f, "{}", c.escape_unicode())?,
                // Only invisible characters are escaped: names in any script stay readable.
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// A time in seconds, with milliseconds.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

/// A line from the client, for the log: a response of AUTH is never shown, and a line that is not a command may be
/// one.
#[derive(Clone, Copy)]
pub struct LoggedCommand<'a> {
    line: &'a [u8],
    response: bool,
    /// The other protocol, if the client does not speak SMTP.
    protocol: Option<&'static str>,
}

impl<'a> LoggedCommand<'a> {
    /// Wraps a line; `response` is true after an AUTH challenge.
    pub fn new(line: Line<'a>, response: bool) -> Self {
        let (line, protocol): (&[u8], _) = match line {
            Line::Ok(line) => (line, None),
            Line::Http => (b"", Some("HTTP")),
            Line::Tls => (b"", Some("TLS")),
            Line::TooLong(_) | Line::Malformed => (b"", None),
        };
        Self {
            line,
            response,
            protocol,
        }
    }

    /// The command's row, looked up only when it is logged.
    fn row(&self) -> Option<&'static CommandRow> {
        if self.response {
            return None;
        }
        let command = command::Command::parse(self.line).ok()?;
        Some(command.row)
    }

    /// The verb, or `?`.
    fn verb(&self) -> &'static str {
        match self.row() {
            _ if self.response => "AUTH",
            Some(row) => row.name,
            None => self.protocol.unwrap_or("?"),
        }
    }

    /// The path of MAIL or RCPT as received.
    fn address(&self) -> Option<Cow<'a, str>> {
        let row = self.row()?;
        if !matches!(row.verb, Verb::Mail | Verb::Rcpt) {
            return None;
        }
        let colon = self.line.iter().position(|&o| o == b':')?;
        let path = self.line.get(colon + 1..)?.trim_ascii_start();
        let end = match path.strip_prefix(b"<") {
            Some(rest) => return Some(String::from_utf8_lossy(within(rest))),
            None => path.iter().position(|&o| o == b' '),
        };
        Some(String::from_utf8_lossy(
            path.get(..end.unwrap_or(path.len()))?,
        ))
    }

    /// The whole line, without a possible password.
    fn shown(&self) -> String {
        match self.row() {
            Some(row) if row.verb == Verb::Auth => {
                let argument = self.line.iter().skip(row.name.len());
                let argument: Vec<u8> = argument.copied().collect();
                format!("AUTH <{} octets>", argument.trim_ascii().len())
            }
            Some(_) => String::from_utf8_lossy(self.line).into_owned(),
            None => format!("<{} octets>", self.line.len()),
        }
    }
}

/// The text before the `>` that ends a path; one in quotes does not end it.
fn within(path: &[u8]) -> &[u8] {
    let (mut quoted, mut escaped) = (false, false);
    let end = path.iter().position(|&o| match (o, quoted, escaped) {
        (_, _, true) => {
            escaped = false;
            false
        }
        (b'\\', true, _) => {
            escaped = true;
            false
        }
        (b'"', ..) => {
            quoted = !quoted;
            false
        }
        (b'>', false, _) => true,
        _ => false,
    });
    end.and_then(|end| path.get(..end)).unwrap_or(path)
}

/// Logs a command that got 4xx or 5xx.
pub fn refused(who: &str, command: &LoggedCommand<'_>, reply: &Reply) {
    let mut text = format!("refused {who} verb={}", command.verb());
    if let Some(address) = command.address() {
        let _ = write!(text, " address={}", Quoted(&address));
    }
    log::info!("{text} reply={}", Quoted(&one_line(reply)));
}

/// Logs a line of the dialogue from the client.
pub fn command(client: &str, command: &LoggedCommand<'_>) {
    log::debug!(
        "dialogue client=\"{client}\" C: {}",
        Quoted(&command.shown())
    );
}

/// Logs a reply of the dialogue.
pub fn reply(client: &str, reply: &Reply) {
    log::debug!(
        "dialogue client=\"{client}\" S: {}",
        Quoted(&one_line(reply))
    );
}

/// The fields of all lines of a connection: client, helo, TLS, user.
pub fn who<R>(client: &str, session: &Session<R>, cipher: Option<&str>) -> String {
    let mut text = format!("client=\"{client}\"");
    if let Some(helo) = session.helo() {
        let _ = write!(text, " helo={}", Quoted(helo));
    }
    if let Some(cipher) = cipher {
        let _ = write!(text, " tls={cipher}");
    }
    if let Some(user) = session.user() {
        let _ = write!(text, " auth={}", Quoted(user));
    }
    text
}

/// Logs the end of a connection; `more` refusals have no line of their own.
pub fn connection(
    level: log::Level,
    who: &str,
    messages: usize,
    more: usize,
    end: &str,
    took: Duration,
) {
    let more = match more {
        0 => String::new(),
        more => format!(" refused_more={more}"),
    };
    log::log!(
        level,
        "connection {who} messages={messages}{more} end={} seconds={}",
        Quoted(end),
        Seconds(took)
    );
}

/// Logs a new connection that got 421 at once, or no reply at all.
pub fn not_served(client: &str, end: &str) {
    let who = format!("client=\"{client}\"");
    connection(log::Level::Info, &who, 0, 0, end, Duration::ZERO);
}

/// A reply with its codes, on one line.
pub fn one_line(reply: &Reply) -> String {
    let mut octets = Vec::new();
    reply.render(&mut octets);
    let text = String::from_utf8_lossy(&octets);
    text.trim_end().replace("\r\n", " / ")
}

/// Logs the reply to a message: each recipient with its status. More than fit into a line are in further ones with the
/// same id.
pub fn message<R>(
    id: &str,
    who: &str,
    session: &Session<R>,
    replies: &[Reply],
    size: u64,
    took: Duration,
) {
    let Some(transaction) = session.transaction() else {
        return;
    };
    // Formatted here, because the logger's own buffer costs more for each part of a line.
    let mut line = String::with_capacity(MESSAGE_LINE);
    let _ = write!(
        line,
        "message id={id} {who} from={} size={size} seconds={}",
        Quoted(transaction.reverse_path.as_str()),
        Seconds(took)
    );
    for (at, to) in transaction.recipients.iter().enumerate() {
        if line.len() > MAX_MESSAGE_LINE {
            log::info!("{line}");
            line.clear();
            let _ = write!(line, "message id={id}");
        }
        let _ = write!(line, " to={}", Quoted(to.path.as_str()));
        let Some(reply) = replies.get(at).or_else(|| replies.last()) else {
            continue;
        };
        let _ = write!(line, " status={}", reply.code());
        if reply.is_error() {
            let _ = write!(line, " reply={}", Quoted(&one_line(reply)));
        }
    }
    log::info!("{line}");
}

/// Logs a failed login with the account as the client spelled it. `contrib/fail2ban` matches this line.
pub fn wrong_login(client: &str, account: Option<&str>) {
    let account = Quoted(account.unwrap_or_default());
    log::warn!("login failed client=\"{client}\" account={account}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A15: any value is one word on one line.
    #[test]
    fn nothing_breaks_out_of_a_value() {
        for (raw, shown) in [
            ("plain", r#""plain""#),
            ("a\" to=\"b", r#""a\" to=\"b""#),
            ("a\\", r#""a\\""#),
            ("a\r\nb\u{1b}[0m", r#""a\r\nb\u{1b}[0m""#),
            ("\u{85}\u{2028}%s%n", r#""\u{85}\u{2028}%s%n""#),
            ("jos\u{e9}", "\"jos\u{e9}\""),
            (
                "a\u{202e}b\u{200b}\u{feff}c\u{e0041}",
                r#""a\u{202e}b\u{200b}\u{feff}c\u{e0041}""#,
            ),
        ] {
            assert_eq!(Quoted(raw).to_string(), shown);
        }
        assert_eq!(Quoted(&"x".repeat(70_000)).to_string().len(), SHOWN + 2);
    }

    #[test]
    fn times_have_milliseconds() {
        for (micros, shown) in [
            (999, "0.000"),
            (12_345_999, "12.345"),
            (60_050_000, "60.050"),
        ] {
            assert_eq!(Seconds(Duration::from_micros(micros)).to_string(), shown);
        }
    }

    #[test]
    fn commands_are_named_without_what_may_be_a_password() {
        for (line, response, verb, address, shown) in [
            (
                "RCPT TO:<a@b> X=1",
                false,
                "RCPT",
                Some("a@b"),
                "RCPT TO:<a@b> X=1",
            ),
            (
                "mail from: <\"a>b\"@c>",
                false,
                "MAIL",
                Some("\"a>b\"@c"),
                "mail from: <\"a>b\"@c>",
            ),
            (
                "RCPT TO:a@b X=1",
                false,
                "RCPT",
                Some("a@b"),
                "RCPT TO:a@b X=1",
            ),
            ("VRFY <a>", false, "VRFY", None, "VRFY <a>"),
            (
                "auth PLAIN AGEAYg==",
                false,
                "AUTH",
                None,
                "AUTH <14 octets>",
            ),
            ("NOOP", true, "AUTH", None, "<4 octets>"),
            ("c2VjcmV0", false, "?", None, "<8 octets>"),
        ] {
            let command = LoggedCommand::new(Line::Ok(line.as_bytes()), response);
            assert_eq!(command.verb(), verb, "{line}");
            assert_eq!(command.address().as_deref(), address, "{line}");
            assert_eq!(command.shown(), shown, "{line}");
        }
        assert_eq!(LoggedCommand::new(Line::Malformed, false).verb(), "?");
    }
}
