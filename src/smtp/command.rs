//! The one table of commands, and the step from a line to a command of it. HELP is made from
//! the table; what a command does is the session's.

use std::borrow::Cow;

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
    Etrn,
    Atrn,
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
    /// Whether it wants a greeting of the client before it.
    pub greeted: bool,
    /// Its keyword in EHLO, where it has one: parameters of it are the session's.
    pub keyword: Option<&'static str>,
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
        greeted: false,
        keyword: None,
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
    const fn greeted(self) -> Self {
        Self {
            greeted: true,
            ..self
        }
    }
    const fn keyword(self, keyword: &'static str) -> Self {
        Self {
            keyword: Some(keyword),
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

use Argument::{None as Nothing, Optional, Required};

const MAIL: &str = "MAIL FROM:<path> [SIZE=n] [BODY=7BIT|8BITMIME|BINARYMIME] [SMTPUTF8] \
                    [REQUIRETLS] [AUTH=mailbox] [RET=FULL|HDRS] [ENVID=id]";
const RCPT: &str = "RCPT TO:<path> [NOTIFY=NEVER|SUCCESS,FAILURE,DELAY] [ORCPT=type;address]";
const XCLIENT: &str = "XCLIENT [NAME=|ADDR=|PORT=|PROTO=|HELO=|LOGIN=|DESTADDR=|DESTPORT=]...";

/// The table.
#[rustfmt::skip]
pub const COMMANDS: &[Row] = &[
    row("EHLO", Verb::Ehlo, Required, "EHLO name").noise().in_clear().only(Protocol::Smtp),
    row("HELO", Verb::Helo, Required, "HELO name").noise().in_clear().only(Protocol::Smtp),
    row("LHLO", Verb::Lhlo, Required, "LHLO name").noise().in_clear().only(Protocol::Lmtp),
    row("MAIL", Verb::Mail, Required, MAIL).greeted().login(),
    row("RCPT", Verb::Rcpt, Required, RCPT),
    row("DATA", Verb::Data, Nothing, "DATA"),
    row("BDAT", Verb::Bdat, Optional, "BDAT size [LAST]").keyword("CHUNKING"),
    row("RSET", Verb::Rset, Nothing, "RSET").noise().in_clear(),
    row("NOOP", Verb::Noop, Optional, "NOOP [text]").noise().in_clear(),
    row("QUIT", Verb::Quit, Nothing, "QUIT").in_clear(),
    row("HELP", Verb::Help, Optional, "HELP [command]").noise().in_clear().keyword("HELP"),
    row("VRFY", Verb::Vrfy, Required, "VRFY name [SMTPUTF8]").noise().login(),
    row("EXPN", Verb::Expn, Required, "EXPN name [SMTPUTF8]").noise().login(),
    row("STARTTLS", Verb::StartTls, Optional, "STARTTLS").in_clear().greeted().keyword("STARTTLS"),
    row("AUTH", Verb::Auth, Optional, "AUTH mechanism [initial-response]").greeted().keyword("AUTH"),
    row("ETRN", Verb::Etrn, Required, "ETRN [@]domain | ETRN #name").greeted().keyword("ETRN"),
    row("ATRN", Verb::Atrn, Optional, "ATRN [domain[,domain]...]").greeted().keyword("ATRN"),
    row("XCLIENT", Verb::Xclient, Required, XCLIENT).keyword("XCLIENT"),
    unimplemented("SEND"), unimplemented("SOML"), unimplemented("SAML"), unimplemented("TURN"),
    unimplemented("ONEX"), unimplemented("VERB"),
];

/// A line with a command of the table.
#[derive(Debug)]
pub struct Command<'a> {
    /// The row of its verb.
    pub row: &'static Row,
    /// What follows the verb, without the white space around it.
    pub argument: &'a [u8],
}

impl<'a> Command<'a> {
    /// Finds the row of a line.
    ///
    /// # Errors
    /// 500 where the verb is unknown.
    pub fn parse(line: &'a [u8]) -> Result<Self, Reply> {
        let line = line.trim_ascii_end();
        let end = line.iter().position(|o| matches!(o, b' ' | b'\t'));
        let (verb, argument) = line
            .split_at_checked(end.unwrap_or(line.len()))
            .unwrap_or((line, b""));
        let mut rows = COMMANDS.iter();
        let row = rows.find(|row| row.name.as_bytes().eq_ignore_ascii_case(verb));
        row.map(|row| Self {
            row,
            argument: argument.trim_ascii_start(),
        })
        .ok_or(reply::UNKNOWN_COMMAND)
    }

    /// The argument as text. U+FFFD stands for octets that are not UTF-8; no parser of an address
    /// takes it.
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.argument)
    }
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
                Command::parse(line.as_bytes()).ok().map(|c| c.row.verb),
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
