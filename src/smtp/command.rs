//! The one table of commands, and the step from a line to a command of it. HELP is made from
//! the table; what a command does is the session's.

use super::cursor::Cursor;
use super::reply::{self, Reply};

/// A verb of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the verbs speak for themselves")]
pub enum Verb {
    Ehlo,
    Helo,
    Lhlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Quit,
    Help,
    Vrfy,
    Expn,
    StartTls,
    Auth,
    Xclient,
    WrongProtocol,
    Unimplemented,
}

/// What follows a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing: an argument is 501.
    None,
    /// Anything, or nothing.
    Optional,
    /// Something: none is 501.
    Required,
}

/// Where a command exists; elsewhere it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// In all protocols.
    Any,
    /// In SMTP and submission.
    Smtp,
    /// In LMTP (RFC 2033 §4.1).
    Lmtp,
}

/// A row.
#[derive(Debug)]
pub struct Row {
    /// As it is spelled.
    pub name: &'static str,
    /// What it is.
    pub verb: Verb,
    /// What follows it.
    pub argument: Argument,
    /// For HELP.
    pub syntax: &'static str,
    /// Whether it counts against the noise limit.
    pub noise: bool,
    /// Where it exists.
    pub protocol: Protocol,
    /// Whether it is answered in the clear where TLS is required.
    pub in_clear: bool,
    /// Whether submission wants a login before it.
    pub login: bool,
}

/// The plainest row: a command everywhere that counts as no noise and wants TLS where that is
/// required. The table says what is different.
const fn row(name: &'static str, verb: Verb, argument: Argument, syntax: &'static str) -> Row {
    Row {
        name,
        verb,
        argument,
        syntax,
        noise: false,
        protocol: Protocol::Any,
        in_clear: false,
        login: false,
    }
}

impl Row {
    const fn noise(self) -> Self {
        Self {
            noise: true,
            ..self
        }
    }
    const fn only(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }
    const fn in_clear(self) -> Self {
        Self {
            in_clear: true,
            ..self
        }
    }
    const fn login(self) -> Self {
        Self {
            login: true,
            ..self
        }
    }
}

const fn unimplemented(name: &'static str) -> Row {
    row(name, Verb::Unimplemented, Argument::Optional, "")
}

const fn wrong_protocol(name: &'static str) -> Row {
    row(name, Verb::WrongProtocol, Argument::Optional, "").in_clear()
}

use Argument::{None as Nothing, Optional, Required};

const MAIL: &str = "MAIL FROM:<path> [SIZE=n] [BODY=7BIT|8BITMIME|BINARYMIME] [SMTPUTF8] [REQUIRETLS] [AUTH=mailbox]";

/// The table.
#[rustfmt::skip]
pub const COMMANDS: &[Row] = &[
    row("EHLO", Verb::Ehlo, Required, "EHLO name").noise().in_clear().only(Protocol::Smtp),
    row("HELO", Verb::Helo, Required, "HELO name").noise().in_clear().only(Protocol::Smtp),
    row("LHLO", Verb::Lhlo, Required, "LHLO name").noise().in_clear().only(Protocol::Lmtp),
    row("MAIL", Verb::Mail, Required, MAIL).login(),
    row("RCPT", Verb::Rcpt, Required, "RCPT TO:<path>"),
    row("DATA", Verb::Data, Nothing, "DATA"),
    row("BDAT", Verb::Bdat, Optional, "BDAT size [LAST]"),
    row("RSET", Verb::Rset, Nothing, "RSET").noise().in_clear(),
    row("NOOP", Verb::Noop, Optional, "NOOP [text]").noise().in_clear(),
    row("QUIT", Verb::Quit, Nothing, "QUIT").in_clear(),
    row("HELP", Verb::Help, Optional, "HELP [command]").noise().in_clear(),
    row("VRFY", Verb::Vrfy, Required, "VRFY name [SMTPUTF8]").noise().login(),
    row("EXPN", Verb::Expn, Required, "EXPN name [SMTPUTF8]").noise().login(),
    row("STARTTLS", Verb::StartTls, Optional, "STARTTLS").in_clear(),
    row("AUTH", Verb::Auth, Optional, "AUTH mechanism [initial-response]"),
    row("XCLIENT", Verb::Xclient, Optional, ""),
    unimplemented("SEND"), unimplemented("SOML"), unimplemented("SAML"), unimplemented("TURN"),
    unimplemented("ATRN"), unimplemented("ETRN"), unimplemented("ONEX"), unimplemented("VERB"),
    wrong_protocol("GET"), wrong_protocol("POST"), wrong_protocol("CONNECT"),
];

/// Finds the row of a line and the cursor behind its verb, trailing white space taken off.
///
/// # Errors
/// 500 where the verb is unknown or the line is no text.
pub fn parse(line: &[u8]) -> Result<(&'static Row, Cursor<'_>), Reply> {
    let text = std::str::from_utf8(line).map_err(|_| reply::BAD_LINE)?;
    let mut cursor = Cursor::new(text.trim_end_matches([' ', '\t']));
    let verb = cursor.word();
    cursor.spaces();
    let row = COMMANDS
        .iter()
        .find(|row| row.name.eq_ignore_ascii_case(verb));
    row.map(|row| (row, cursor)).ok_or(reply::UNKNOWN_COMMAND)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R002, R017, R018.
    #[test]
    fn verbs() {
        for (line, verb) in [
            ("noop", Some(Verb::Noop)),
            ("QuIt  \t", Some(Verb::Quit)),
            ("STARTTLSX", None),
            ("", None),
        ] {
            assert_eq!(
                parse(line.as_bytes()).ok().map(|(row, _)| row.verb),
                verb,
                "{line}"
            );
        }
        assert!(
            COMMANDS
                .iter()
                .enumerate()
                .all(|(at, row)| COMMANDS.iter().skip(at + 1).all(|r| r.name != row.name))
        );
    }
}
