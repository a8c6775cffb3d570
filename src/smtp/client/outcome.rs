//! The outcome of a recipient, and why a connection ended.

use std::fmt;
use std::time::Duration;

use super::reply::RemoteReply;
use super::status::Status;

/// The next step for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server has taken responsibility.
    Accepted,
    /// Try again later.
    Later,
    /// One recipient too many for this transaction (RFC 5321 §4.5.3.1.10): try in another, at once.
    NextTransaction,
    /// Permanent failure: bounce.
    Failed,
}

/// The outcome of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The next step.
    pub verdict: Verdict,
    /// The reason, as an enhanced status code.
    pub status: Status,
    /// The reason as text: the server's reply, or this side's own.
    pub text: String,
    /// True if the text is the server's.
    pub remote: bool,
}

impl Outcome {
    /// The verdict for a reply's class (RFC 5321 §4.2.1).
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

/// The stage of the dialogue in which a reply is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking up the host's name.
    LookUp,
    /// Connecting.
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
    /// The timeout of this stage (RFC 5321 §4.5.3.2); for [`Stage::Content`] that of each block.
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
            Self::LookUp => "look-up",
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

/// The reason why a connection cannot be used any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// The server refused the greeting, EHLO and HELO or RSET, or said 421.
    Refused(Stage, RemoteReply),
    /// TLS is required but not available, or the certificate does not verify: 4.7.5.
    Tls(String),
    /// The login failed or is impossible, or the server did not prove that it knows the password: 4.7.0.
    Auth(String),
    /// The server violated the protocol.
    Protocol(Stage, &'static str),
    /// The connection was closed or could not be made, or the server timed out.
    Lost(Stage, String),
}

impl ConnectionError {
    /// True if the connection could have been used without TLS.
    pub const fn is_of_tls(&self) -> bool {
        matches!(
            self,
            Self::Tls(_) | Self::Lost(Stage::StartTls, _) | Self::Protocol(Stage::StartTls, _)
        )
    }

    /// The enhanced status code for recipients that this defers.
    pub fn status(&self) -> Status {
        match self {
            Self::Refused(_, reply) => Status {
                class: 4,
                ..reply.status()
            },
            Self::Tls(_) => Status::new(4, 7, 5),
            Self::Auth(_) => Status::new(4, 7, 0),
            Self::Protocol(..) => Status::new(4, 5, 0),
            Self::Lost(Stage::LookUp, _) => Status::new(4, 4, 3),
            Self::Lost(Stage::Connect, _) => Status::new(4, 4, 1),
            Self::Lost(..) => Status::new(4, 4, 2),
        }
    }

    /// The outcome of recipients that had none when this happened.
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

impl fmt::Display for ConnectionError {
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
