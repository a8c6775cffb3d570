//! What became of a recipient, and why a connection ended.

use std::fmt;
use std::time::Duration;

use super::reply::RemoteReply;
use super::status::Status;

/// What to do about a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server has taken responsibility.
    Accepted,
    /// Try again later.
    Later,
    /// One recipient too many for this transaction (RFC 5321 §4.5.3.1.10): try in another, at once.
    NextTransaction,
    /// Never: bounce.
    Failed,
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What to do about it.
    pub verdict: Verdict,
    /// Why, as a code.
    pub status: Status,
    /// Why, in words: the server's reply, or this side's reason.
    pub text: String,
    /// Whether the text is the server's.
    pub remote: bool,
}

impl Outcome {
    /// The verdict that a reply's class means (RFC 5321 §4.2.1).
    pub fn of_reply(reply: &RemoteReply) -> Self {
        let verdict = match reply.code() {
            200..=299 => Verdict::Accepted,
            500.. => Verdict::Failed,
            _ => Verdict::Later,
        };
        Self {
            verdict,
            status: reply.status(),
            text: reply.text(),
            remote: true,
        }
    }

    /// This side's own verdict.
    pub fn local(verdict: Verdict, status: Status, text: impl Into<String>) -> Self {
        Self {
            verdict,
            status,
            text: text.into(),
            remote: false,
        }
    }
}

/// Where in the dialogue a reply is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before there is a connection.
    Connect,
    /// The 220 of the connection.
    Greeting,
    /// EHLO, HELO or LHLO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// AUTH and its responses.
    Auth,
    /// RSET.
    Reset,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The content, before its end.
    Content,
    /// The reply to the lone dot, or to BDAT LAST.
    End,
    /// Between transactions.
    Idle,
    /// QUIT.
    Quit,
}

impl Stage {
    /// How long to wait for the server here (RFC 5321 §4.5.3.2); for [`Stage::Content`] it is for each block.
    pub const fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Data => 2 * 60,
            Self::Content => 3 * 60,
            Self::End => 10 * 60,
            Self::Quit => 5,
            _ => 5 * 60,
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Reset => "RSET",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Content => "message content",
            Self::End => "end of message",
            Self::Idle => "idle connection",
            Self::Quit => "QUIT",
        })
    }
}

/// Why a connection cannot be used, or not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server refused the greeting, EHLO and HELO or RSET, or said 421.
    Refused(Stage, RemoteReply),
    /// TLS is wanted and cannot be had, or its certificate does not verify: 4.7.5.
    Tls(String),
    /// The login is refused, impossible, or the server did not prove that it knows the password: 4.7.0.
    Auth(String),
    /// What came is not the protocol.
    Protocol(Stage, &'static str),
    /// The connection was closed, could not be made, or the server was silent too long.
    Lost(Stage, String),
}

impl Failure {
    /// The enhanced status code for recipients that this puts off.
    pub fn status(&self) -> Status {
        match self {
            Self::Refused(_, reply) => Status {
                class: 4,
                ..reply.status()
            },
            Self::Tls(_) => Status::new(4, 7, 5),
            Self::Auth(_) => Status::new(4, 7, 0),
            Self::Protocol(..) => Status::new(4, 5, 0),
            Self::Lost(Stage::Connect, _) => Status::new(4, 4, 1),
            Self::Lost(..) => Status::new(4, 4, 2),
        }
    }

    /// The outcome of a recipient that was not settled when this happened.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(_, reply) => Outcome {
                verdict: Verdict::Later,
                status: self.status(),
                text: reply.text(),
                remote: true,
            },
            _ => Outcome::local(Verdict::Later, self.status(), self.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(stage, reply) => write!(f, "{stage} answered by: {}", reply.text()),
            Self::Tls(why) => write!(f, "TLS: {why}"),
            Self::Auth(why) => write!(f, "AUTH: {why}"),
            Self::Protocol(stage, why) => write!(f, "{stage}: {why}"),
            Self::Lost(Stage::Connect, why) => write!(f, "connect to {why}"),
            Self::Lost(stage, why) => write!(f, "{stage}: {why}"),
        }
    }
}
