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
    Foreign,
    Absent,
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
}

const fn row(
    name: &'static str,
    verb: Verb,
    argument: Argument,
    syntax: &'static str,
    noise: bool,
) -> Row {
    Row {
        name,
        verb,
        argument,
        syntax,
        noise,
    }
}

/// The table.
pub const COMMANDS: &[Row] = &[
    row("EHLO", Verb::Ehlo, Argument::Required, "EHLO name", true),
    row("HELO", Verb::Helo, Argument::Required, "HELO name", true),
    row("LHLO", Verb::Lhlo, Argument::Required, "", true),
    row(
        "MAIL",
        Verb::Mail,
        Argument::Required,
        "MAIL FROM:<path> [SIZE=n] [BODY=7BIT|8BITMIME|BINARYMIME] [SMTPUTF8]",
        false,
    ),
    row(
        "RCPT",
        Verb::Rcpt,
        Argument::Required,
        "RCPT TO:<path>",
        false,
    ),
    row("DATA", Verb::Data, Argument::None, "DATA", false),
    row(
        "BDAT",
        Verb::Bdat,
        Argument::Optional,
        "BDAT size [LAST]",
        false,
    ),
    row("RSET", Verb::Rset, Argument::None, "RSET", true),
    row("NOOP", Verb::Noop, Argument::Optional, "NOOP [text]", true),
    row("QUIT", Verb::Quit, Argument::None, "QUIT", false),
    row(
        "HELP",
        Verb::Help,
        Argument::Optional,
        "HELP [command]",
        true,
    ),
    row("VRFY", Verb::Vrfy, Argument::Required, "VRFY name", true),
    row("EXPN", Verb::Expn, Argument::Required, "EXPN name", true),
    row("STARTTLS", Verb::StartTls, Argument::None, "", false),
    row("AUTH", Verb::Auth, Argument::Required, "", false),
    row("XCLIENT", Verb::Xclient, Argument::Optional, "", false),
    row("SEND", Verb::Absent, Argument::Optional, "", false),
    row("SOML", Verb::Absent, Argument::Optional, "", false),
    row("SAML", Verb::Absent, Argument::Optional, "", false),
    row("TURN", Verb::Absent, Argument::Optional, "", false),
    row("ATRN", Verb::Absent, Argument::Optional, "", false),
    row("ETRN", Verb::Absent, Argument::Optional, "", false),
    row("ONEX", Verb::Absent, Argument::Optional, "", false),
    row("VERB", Verb::Absent, Argument::Optional, "", false),
    row("GET", Verb::Foreign, Argument::Optional, "", false),
    row("POST", Verb::Foreign, Argument::Optional, "", false),
    row("CONNECT", Verb::Foreign, Argument::Optional, "", false),
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
