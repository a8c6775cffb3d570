//! One session of SMTP, submission or LMTP: lines in, replies and what is to be done next out.
//! It reads no socket, writes no file and knows no clock; questions about the world go through
//! [`Backend`]. Here are the greeting, the gate that every command passes, and the commands without
//! a transaction; `mail` has the rules of a transaction, `auth` those of AUTH, `help` answers questions.

mod auth;
mod help;
mod mail;
#[cfg(test)]
mod tests;

use super::address::{ForwardPath, ReversePath};
use super::command::{self, Argument, Protocol, Row, Verb};
use super::cursor::Cursor;
use super::line::Line;
use super::policy::{Policy, Service};
use super::reply::{self, Refusal, Reply};
use crate::auth::{Accounts, Exchange};
use std::sync::Arc;

use help::names;
pub use mail::Transaction;

/// Noise commands since the last accepted message, above which the client is hung up on.
const MAX_NOISE: u32 = 100;
/// Octets of a command line, CRLF included (RFC 5321 §4.5.3.1.4 asks for 512 and the growth of
/// each extension).
const MAX_LINE: usize = 2_048;
/// Octets of AUTH and its responses, CRLF included (RFC 4954 §4).
const MAX_AUTH_LINE: usize = 12_288;

/// What the session must ask.
pub trait Backend: Accounts {
    /// What stands for an accepted recipient.
    type Recipient;
    /// Where mail for `to` goes; `size` is what MAIL declared, in octets.
    ///
    /// # Errors
    /// The refusal to answer RCPT with.
    fn recipient(
        &mut self,
        to: &ForwardPath,
        size: Option<u64>,
    ) -> Result<Self::Recipient, Refusal>;
    /// Whether the disk has room for `octets`.
    ///
    /// # Errors
    /// The refusal to answer MAIL with.
    fn room(&mut self, octets: u64) -> Result<(), Refusal>;
    /// Who `name` is, a line each.
    ///
    /// # Errors
    /// Unknown, or ambiguous.
    fn vrfy(&mut self, name: &str) -> Result<Vec<String>, Refusal>;
    /// The members of the list `name`, a line each.
    ///
    /// # Errors
    /// Unknown, or ambiguous.
    fn expn(&mut self, name: &str) -> Result<Vec<String>, Refusal>;
    /// Whether `user` may send as `from`.
    fn may_send_as(&mut self, user: &str, from: &ReversePath) -> bool;
    /// Fresh, unpredictable, printable text for challenges.
    fn nonce(&mut self) -> String;
}

/// How the octets go over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// As they are.
    Clear,
    /// In TLS.
    Tls {
        /// The `tls-exporter` value (RFC 9266), where it could be had.
        exporter: Option<Vec<u8>>,
    },
}

/// Whether the client has said who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Login {
    Nobody,
    User(String),
}

/// How far the dialogue is. A transaction is owned by the phase it belongs to, so that to leave
/// the phase is to drop it, and nothing can be reset by half.
#[derive(Debug)]
enum Phase<R> {
    Fresh,
    Greeted,
    Exchange(Box<Exchange>),
    Mail(Transaction<R>),
    /// Within a BDAT sequence: octets so far, and the reply that all further chunks get.
    Chunks(Transaction<R>, u64, Option<Reply>),
}

/// What to say and do.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// What the client hears now.
    pub reply: Option<Reply>,
    /// What comes next.
    pub next: Next,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Another command line, or a response of AUTH.
    Command,
    /// A TLS handshake.
    StartTls,
    /// A message, to the lone dot.
    Data,
    /// `size` octets of content.
    Chunk {
        /// Octets.
        size: u64,
        /// Whether the message ends with them.
        last: bool,
    },
    /// `size` octets to read and drop, and then the reply.
    Skip {
        /// Octets.
        size: u64,
        /// The answer behind them.
        reply: Reply,
    },
    /// Hang up.
    Close,
}

/// The state of a connection.
#[derive(Debug)]
pub struct Session<R> {
    policy: Arc<Policy>,
    channel: Channel,
    login: Login,
    phase: Phase<R>,
    helo: Option<String>,
    extended: bool,
    errors: u32,
    noise: u32,
    wrong_logins: u32,
}

impl<R> Session<R> {
    /// A session before its greeting.
    pub const fn new(policy: Arc<Policy>, channel: Channel) -> Self {
        Self {
            policy,
            channel,
            login: Login::Nobody,
            phase: Phase::Fresh,
            helo: None,
            extended: false,
            errors: 0,
            noise: 0,
            wrong_logins: 0,
        }
    }

    /// The rules as they are now: they change where certificates or accounts were read again.
    pub fn renew(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }

    /// The rules.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    fn is_lmtp(&self) -> bool {
        self.policy.service == Service::Lmtp
    }

    /// The 220 (RFC 5321 §3.1, RFC 2033 §4).
    pub fn greeting(&self) -> Reply {
        let protocol = match self.policy.service {
            Service::Lmtp => "LMTP",
            Service::Smtp | Service::Submission => "ESMTP",
        };
        reply::plain(220, "").with_text(format!("{} {protocol} mailslot", self.policy.hostname))
    }

    /// Longest line in octets, CRLF included, for one that begins with `start`.
    pub fn line_limit(&self, start: &[u8]) -> usize {
        let auth = || {
            start
                .get(..5)
                .is_some_and(|s| s.eq_ignore_ascii_case(b"AUTH "))
        };
        if matches!(self.phase, Phase::Exchange(_)) || auth() {
            MAX_AUTH_LINE
        } else {
            MAX_LINE
        }
    }

    /// What the client called itself.
    pub fn helo(&self) -> Option<&str> {
        self.helo.as_deref()
    }

    /// Who the client is, once it has logged in.
    pub fn user(&self) -> Option<&str> {
        match &self.login {
            Login::Nobody => None,
            Login::User(user) => Some(user),
        }
    }

    /// The `with` keyword of Received (RFC 3848, RFC 6531 §4.3).
    pub fn protocol(&self) -> &'static str {
        let tls = matches!(self.channel, Channel::Tls { .. });
        let user = self.user().is_some();
        let utf8 = self.transaction().is_some_and(|t| t.params.smtputf8);
        let lmtp = self.is_lmtp();
        match (lmtp, utf8, tls, user) {
            (false, ..) if !self.extended => "SMTP",
            (false, false, false, false) => "ESMTP",
            (false, false, false, true) => "ESMTPA",
            (false, false, true, false) => "ESMTPS",
            (false, false, true, true) => "ESMTPSA",
            (false, true, false, false) => "UTF8SMTP",
            (false, true, false, true) => "UTF8SMTPA",
            (false, true, true, false) => "UTF8SMTPS",
            (false, true, true, true) => "UTF8SMTPSA",
            (true, false, false, false) => "LMTP",
            (true, false, false, true) => "LMTPA",
            (true, false, true, false) => "LMTPS",
            (true, false, true, true) => "LMTPSA",
            (true, true, false, false) => "UTF8LMTP",
            (true, true, false, true) => "UTF8LMTPA",
            (true, true, true, false) => "UTF8LMTPS",
            (true, true, true, true) => "UTF8LMTPSA",
        }
    }

    /// The transaction under way.
    pub const fn transaction(&self) -> Option<&Transaction<R>> {
        match &self.phase {
            Phase::Mail(transaction) | Phase::Chunks(transaction, ..) => Some(transaction),
            Phase::Fresh | Phase::Greeted | Phase::Exchange(_) => None,
        }
    }

    /// Takes one line. `behind` says whether more input is there already.
    pub fn line(
        &mut self,
        line: Line<'_>,
        behind: bool,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Step {
        let exchange = matches!(self.phase, Phase::Exchange(_));
        let step = match line {
            Line::TooLong(MAX_AUTH_LINE) => self.long_auth_line(),
            Line::Malformed if exchange => self.response(b"\0", backend),
            Line::TooLong(_) | Line::Malformed => say(reply::BAD_LINE),
            Line::Ok(line) if exchange => self.response(line, backend),
            Line::Ok([0x16, 0x03, ..]) => hang_up(reply::TOO_MUCH),
            Line::Ok(line) => match command::parse(line) {
                // An MTA in front has no better way to learn of a recipient than to ask.
                Ok((row, cursor)) if row.verb == Verb::Rcpt && self.is_lmtp() => {
                    return self.gate(row, cursor, behind, backend);
                }
                Ok((row, cursor)) => self.gate(row, cursor, behind, backend),
                Err(refused) => say(refused),
            },
        };
        self.counted(step)
    }

    /// The TLS handshake is done: everything said before is forgotten (RFC 3207 §4.2), but not
    /// how often the client was wrong.
    pub fn tls_started(&mut self, exporter: Option<Vec<u8>>) {
        self.channel = Channel::Tls { exporter };
        self.login = Login::Nobody;
        self.phase = Phase::Fresh;
        self.helo = None;
        self.extended = false;
    }

    /// The end of DATA or of BDAT LAST, with the reply of each recipient on LMTP and with one
    /// reply else: the transaction is over, whatever became of it (A8).
    pub fn finish(&mut self, outcomes: Vec<Reply>) -> (Vec<Reply>, Next) {
        self.phase = Phase::Greeted;
        if outcomes.iter().any(|outcome| !outcome.is_error()) {
            self.noise = 0;
        }
        if self.is_lmtp() {
            return (outcomes, Next::Command);
        }
        let mut next = Next::Command;
        let counted = outcomes.into_iter().filter_map(|outcome| {
            let step = self.counted(say(outcome));
            next = step.next;
            step.reply
        });
        (counted.collect(), next)
    }

    /// The one place that counts errors: the one over the limit is 421 instead.
    fn counted(&mut self, step: Step) -> Step {
        let error = match (&step.reply, &step.next) {
            (_, Next::Skip { .. }) => true,
            (Some(reply), _) => reply.is_error(),
            (None, _) => false,
        };
        self.errors += u32::from(error);
        if error && self.errors > self.policy.max_errors {
            return hang_up(reply::TOO_MUCH);
        }
        step
    }

    /// What holds for all commands, before any of them, in this order: noise, the protocol,
    /// TLS, login, argument.
    fn gate(
        &mut self,
        row: &Row,
        cursor: Cursor<'_>,
        behind: bool,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Step {
        if row.noise {
            self.noise += 1;
            if self.noise > MAX_NOISE {
                return hang_up(reply::TOO_MUCH);
            }
        }
        if let Some(refused) = self
            .not_permitted(row)
            .or_else(|| self.argument(row, &cursor))
        {
            // What BDAT announced comes all the same.
            return match row.verb {
                Verb::Bdat => self.bdat(cursor, Some(refused)),
                _ => say(refused),
            };
        }
        match row.verb {
            Verb::StartTls => self.starttls(&cursor, behind),
            verb => self.dispatch(verb, cursor, backend),
        }
        .unwrap_or_else(say)
    }

    fn not_permitted(&self, row: &Row) -> Option<Reply> {
        let lmtp = self.is_lmtp();
        let elsewhere = match row.protocol {
            Protocol::Any => false,
            Protocol::Smtp => lmtp,
            Protocol::Lmtp => !lmtp,
        };
        if elsewhere {
            return Some(reply::UNKNOWN_COMMAND);
        }
        if self.policy.require_tls && self.channel == Channel::Clear && !row.in_clear {
            return Some(reply::NEEDS_TLS);
        }
        let submission = self.policy.service == Service::Submission;
        (submission && row.login && self.user().is_none()).then_some(reply::NEEDS_LOGIN)
    }

    fn argument(&self, row: &Row, cursor: &Cursor<'_>) -> Option<Reply> {
        let empty = cursor.rest().is_empty();
        match (row.argument, row.verb) {
            (Argument::None, _) if !empty => Some(reply::BAD_ARGUMENT),
            (Argument::Required, verb) if empty => Some(match verb {
                Verb::Mail if matches!(self.phase, Phase::Greeted) => reply::BAD_SENDER_SYNTAX,
                Verb::Rcpt if matches!(self.phase, Phase::Mail(_)) => reply::BAD_RECIPIENT_SYNTAX,
                Verb::Mail | Verb::Rcpt => reply::BAD_SEQUENCE,
                _ => reply::BAD_ARGUMENT,
            }),
            _ => None,
        }
    }

    fn dispatch(
        &mut self,
        verb: Verb,
        cursor: Cursor<'_>,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Result<Step, Reply> {
        match verb {
            Verb::Ehlo | Verb::Lhlo => self.hello(&cursor, true),
            Verb::Helo => self.hello(&cursor, false),
            Verb::Mail => self.mail(cursor, backend),
            Verb::Rcpt => self.rcpt(cursor, backend),
            Verb::Data => self.data(),
            Verb::Bdat => Ok(self.bdat(cursor, None)),
            Verb::Rset => {
                if self.transaction().is_some() {
                    self.phase = Phase::Greeted;
                }
                Ok(say(reply::OK))
            }
            Verb::Noop => Ok(say(reply::OK)),
            Verb::Quit => Ok(hang_up(reply::BYE)),
            Verb::Help => self.help(cursor.rest()).map(say),
            Verb::Vrfy if !self.policy.vrfy => Ok(say(reply::CANNOT_VRFY)),
            Verb::Vrfy => names(cursor.rest(), |name| backend.vrfy(name)),
            Verb::Expn if self.policy.expn => names(cursor.rest(), |name| backend.expn(name)),
            Verb::Auth => self.auth(cursor, backend),
            Verb::Expn | Verb::StartTls | Verb::Unimplemented => Err(reply::NOT_OFFERED),
            Verb::Xclient => Err(reply::NOT_TRUSTED),
            Verb::WrongProtocol => Ok(hang_up(reply::TOO_MUCH)),
        }
    }

    /// RFC 5321 §4.1.1.1, §4.1.4; RFC 2033 §4.1.
    fn hello(&mut self, cursor: &Cursor<'_>, extended: bool) -> Result<Step, Reply> {
        let name = cursor.rest();
        if name.chars().any(char::is_control) || name.contains([' ', '\t']) || !name.is_ascii() {
            return Err(reply::BAD_ARGUMENT);
        }

        self.helo = Some(name.chars().take(255).collect());
        self.extended = extended;
        self.phase = Phase::Greeted;
        let mut text = format!("{} Hello {name}", self.policy.hostname);
        if extended {
            self.keywords(&mut text);
        }
        Ok(say(reply::plain(250, "").with_text(text)))
    }

    /// What EHLO and LHLO offer: all that works now and nothing else (RFC 5321 §2.2.1).
    fn keywords(&self, text: &mut String) {
        text.push_str(
            "\nPIPELINING\n8BITMIME\nBINARYMIME\nCHUNKING\nSMTPUTF8\nENHANCEDSTATUSCODES",
        );
        if self.offers_starttls() {
            text.push_str("\nSTARTTLS");
        }
        if matches!(self.channel, Channel::Tls { .. }) {
            text.push_str("\nREQUIRETLS");
        }
        let mechanisms = self.mechanisms();
        if !mechanisms.is_empty() {
            text.push_str("\nAUTH");
            for mechanism in mechanisms {
                text.push(' ');
                text.push_str(mechanism.name());
            }
        }
        text.push_str(&format!(
            "\nSIZE {}\nLIMITS RCPTMAX={}\nHELP",
            self.policy.max_size, self.policy.max_recipients
        ));
    }

    fn offers_starttls(&self) -> bool {
        self.policy.starttls && self.channel == Channel::Clear
    }

    /// RFC 3207 §4. Input that is there already was not protected: it is never executed.
    fn starttls(&self, cursor: &Cursor<'_>, behind: bool) -> Result<Step, Reply> {
        if matches!(self.phase, Phase::Fresh) {
            return Err(reply::BAD_SEQUENCE);
        }
        if !self.policy.starttls {
            return Err(reply::NOT_OFFERED);
        }
        if !cursor.rest().is_empty() {
            return Err(reply::BAD_ARGUMENT);
        }
        if !self.offers_starttls() || self.transaction().is_some() {
            return Err(reply::BAD_SEQUENCE);
        }
        if behind {
            return Ok(hang_up(reply::PLAINTEXT_BEHIND));
        }

        Ok(Step {
            reply: Some(reply::START_TLS),
            next: Next::StartTls,
        })
    }
}

const fn say(reply: Reply) -> Step {
    Step {
        reply: Some(reply),
        next: Next::Command,
    }
}

const fn hang_up(reply: Reply) -> Step {
    Step {
        reply: Some(reply),
        next: Next::Close,
    }
}

const fn skip(size: u64, reply: Reply) -> Step {
    Step {
        reply: None,
        next: Next::Skip { size, reply },
    }
}
