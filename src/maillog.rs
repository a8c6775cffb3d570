//! The log lines: one for each connection, one for each message, one for each wrong login. They
//! are `key=value`; what came from the network is quoted, escaped and cut, so that no client can
//! forge a line or a field (A15). Passwords never come near. A line is one `write`; where a pipe takes it, the reader
//! that it wakes costs more than the line.

use crate::smtp::reply::Reply;
use crate::smtp::session::Session;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// Characters shown of a value from the network.
const SHOWN: usize = 256;

/// A value from the network as one word of a log line.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars().take(SHOWN) {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\u{2028}' | '\u{2029}' => write!(f, "{}", c.escape_unicode())?,
                // Only what has no shape of its own: a name in any script stays readable.
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// What all lines of a connection say: client, helo, TLS, user.
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

/// A connection is over.
pub fn connection(who: &str, messages: usize, end: &str, took: Duration) {
    log::info!(
        "connection {who} messages={messages} end={} seconds={:.3}",
        Quoted(end),
        took.as_secs_f64()
    );
}

/// A newcomer was answered 421 at once.
pub fn turned_away(client: &str, reply: &Reply) {
    log::info!(
        "connection client=\"{client}\" messages=0 end={} seconds=0.000",
        Quoted(&one_line(reply))
    );
}

/// A reply with its codes, on one line.
pub fn one_line(reply: &Reply) -> String {
    let mut octets = Vec::new();
    reply.render(&mut octets);
    let text = String::from_utf8_lossy(&octets);
    text.trim_end().replace("\r\n", " / ")
}

/// A message was answered: each recipient with its status.
pub fn message<R>(
    id: &str,
    who: &str,
    session: &Session<R>,
    statuses: &[u16],
    size: u64,
    took: Duration,
) {
    let Some(transaction) = session.transaction() else {
        return;
    };
    let mut to = String::new();
    let last = statuses.last().copied().unwrap_or_default();
    for (at, (path, _)) in transaction.recipients.iter().enumerate() {
        let status = statuses.get(at).copied().unwrap_or(last);
        let _ = write!(to, " to={} status={status}", Quoted(path.as_str()));
    }
    log::info!(
        "message id={id} {who} from={} size={size} seconds={:.3}{to}",
        Quoted(transaction.reverse_path.as_str()),
        took.as_secs_f64()
    );
}

/// A login was wrong. `contrib/fail2ban` matches this line.
pub fn wrong_login(client: &str) {
    log::warn!("login failed client=\"{client}\"");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A15: one word, one line, whatever came.
    #[test]
    fn nothing_breaks_out_of_a_value() {
        for (raw, shown) in [
            ("plain", r#""plain""#),
            ("a\" to=\"b", r#""a\" to=\"b""#),
            ("a\\", r#""a\\""#),
            ("a\r\nb\u{1b}[0m", r#""a\r\nb\u{1b}[0m""#),
            ("\u{85}\u{2028}%s%n", r#""\u{85}\u{2028}%s%n""#),
            ("jos\u{e9}", "\"jos\u{e9}\""),
        ] {
            assert_eq!(Quoted(raw).to_string(), shown);
        }
        assert_eq!(Quoted(&"x".repeat(70_000)).to_string().len(), SHOWN + 2);
    }
}
