//! The table of commands, and parsing a line into one of them. HELP is generated from the table; the session implements
//! the commands.

use std::borrow::Cow;

use super::reply::{self, Reply};

/// The verbs of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table documents the verbs")]
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

/// The protocols that have a command; in others it is unknown.
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
pub struct CommandRow {
    /// The verb as it is written.
    pub name: &'static str,
    /// The verb.
    pub verb: Verb,
    /// The argument it takes.
    pub argument: Argument,
    /// Its syntax, for HELP.
    pub syntax: &'static str,
    /// True if it counts as noise: it moves no mail.
    pub noise: bool,
    /// The protocols that have it.
    pub protocol: Protocol,
    /// True if it works without TLS even under `--require-tls`.
    pub in_clear: bool,
    /// True if submission requires a login first.
    pub login: bool,
    /// True if the client must greet first.
    pub greeted: bool,
    /// True if its reply may wait for those to further pipelined commands (RFC 2920 §3.2).
    pub grouped: bool,
    /// Its EHLO keyword, if any; the session adds the parameters.
    pub keyword: Option<&'static str>,
}

/// A row with the defaults: a command of all protocols that moves mail and needs TLS where TLS is required.
const fn row(
    name: &'static str,
    verb: Verb,
    argument: Argument,
    syntax: &'static str,
) -> CommandRow {
    CommandRow {
        name,
        verb,
        argument,
        syntax,
        noise: false,
        protocol: Protocol::Any,
        in_clear: false,
        login: false,
        greeted: false,
        grouped: false,
        keyword: None,
    }
}

impl CommandRow {
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
    const fn grouped(self) -> Self {
        Self {
            grouped: true,
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

const fn unimplemented(name: &'static str) -> CommandRow {
    row(name, Verb::Unimplemented, Argument::Optional, "")
}

use Argument::{None as Nothing, Optional, Required};

const MAIL: &str = "MAIL FROM:<path> [SIZE=n] [BODY=7BIT|8BITMIME|BINARYMIME] [SMTPUTF8] \
                    [REQUIRETLS] [AUTH=mailbox] [RET=FULL|HDRS] [ENVID=id]";
const RCPT: &str = "RCPT TO:<path> [NOTIFY=NEVER|SUCCESS,FAILURE,DELAY] [ORCPT=type;address]";
const XCLIENT: &str = "XCLIENT [NAME=|ADDR=|PORT=|PROTO=|HELO=|LOGIN=|DESTADDR=|DESTPORT=]...";

/// The table.
#[rustfmt::skip]
pub const COMMANDS: &[CommandRow] = &[
    row("EHLO", Verb::Ehlo, Required, "EHLO name").noise().in_clear().only(Protocol::Smtp),
    row("HELO", Verb::Helo, Required, "HELO name").noise().in_clear().only(Protocol::Smtp),
    row("LHLO", Verb::Lhlo, Required, "LHLO name").noise().in_clear().only(Protocol::Lmtp),
    row("MAIL", Verb::Mail, Required, MAIL).greeted().login().grouped(),
    row("RCPT", Verb::Rcpt, Required, RCPT).grouped(),
    row("DATA", Verb::Data, Nothing, "DATA"),
    row("BDAT", Verb::Bdat, Optional, "BDAT size [LAST]").grouped().keyword("CHUNKING"),
    row("RSET", Verb::Rset, Nothing, "RSET").noise().in_clear().grouped(),
    row("NOOP", Verb::Noop, Optional, "NOOP [text]").noise().in_clear(),
    row("QUIT", Verb::Quit, Nothing, "QUIT").in_clear(),
    row("HELP", Verb::Help, Optional, "HELP [command]").noise().in_clear().keyword("HELP"),
    row("VRFY", Verb::Vrfy, Required, "VRFY name [SMTPUTF8]").noise().login(),
    row("EXPN", Verb::Expn, Required, "EXPN name [SMTPUTF8]").noise().login().keyword("EXPN"),
    row("STARTTLS", Verb::StartTls, Optional, "STARTTLS").in_clear().greeted().keyword("STARTTLS"),
    row("AUTH", Verb::Auth, Optional, "AUTH mechanism [initial-response]").greeted().keyword("AUTH"),
    row("ETRN", Verb::Etrn, Required, "ETRN [@]domain | ETRN #name").noise().greeted().keyword("ETRN"),
    row("ATRN", Verb::Atrn, Optional, "ATRN [domain[,domain]...]").greeted().keyword("ATRN"),
    row("XCLIENT", Verb::Xclient, Required, XCLIENT).keyword("XCLIENT"),
    unimplemented("SEND"), unimplemented("SOML"), unimplemented("SAML"), unimplemented("TURN"),
    unimplemented("ONEX"), unimplemented("VERB"),
];

/// A parsed command line.
#[derive(Debug)]
pub struct Command<'a> {
    /// The table row of its verb.
    pub row: &'static CommandRow,
    /// The text after the verb, without surrounding white space.
    pub argument: &'a [u8],
}

impl<'a> Command<'a> {
    /// Looks up the verb of a line.
    ///
    /// # Errors
    /// 500 if the verb is unknown.
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

    /// The argument as text. Invalid UTF-8 becomes U+FFFD, which no address parser accepts.
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
