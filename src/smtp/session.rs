//! One SMTP session: lines in, replies and what is to be done next out. It reads no socket
//! and writes no file; questions about the world go through [`Host`].

use super::address::{ForwardPath, ReversePath};
use super::body::BareNewline;
use super::command::{self, Argument, COMMANDS, Row, Verb};
use super::cursor::Cursor;
use super::line::Line;
use super::params::{BodyType, MailParams, no_parameters};
use super::reply::{self, Refusal, Reply};
use std::sync::Arc;

/// Noise commands since the last accepted message, above which the client is hung up on.
const MAX_NOISE: u32 = 100;

/// The rules of a listener.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Own name in greeting, EHLO and Received.
    pub hostname: String,
    /// Octets of a message (RFC 1870 §3).
    pub max_size: u64,
    /// Recipients of a message (RFC 5321 §4.5.3.1.8).
    pub max_recipients: usize,
    /// Errors of a connection.
    pub max_errors: u32,
    /// What a bare CR or LF in DATA means.
    pub bare_newline: BareNewline,
}

/// What the session must ask.
pub trait Host {
    /// What stands for an accepted recipient.
    type Recipient;
    /// Where mail for `to` goes.
    ///
    /// # Errors
    /// The refusal to answer RCPT with.
    fn recipient(&mut self, to: &ForwardPath) -> Result<Self::Recipient, Refusal>;
    /// Whether the disk has room for `octets`.
    ///
    /// # Errors
    /// The refusal to answer MAIL with.
    fn room(&mut self, octets: u64) -> Result<(), Refusal>;
}

/// A mail transaction: it is owned by the phase it belongs to, so that to leave the phase is
/// to drop it, and nothing can be reset by half.
#[derive(Debug)]
pub struct Transaction<R> {
    /// Where the message comes from.
    pub reverse_path: ReversePath,
    /// What MAIL said of it.
    pub params: MailParams,
    /// Accepted recipients in the order of RCPT.
    pub recipients: Vec<(ForwardPath, R)>,
    tried: bool,
}

#[derive(Debug)]
enum Phase<R> {
    Fresh,
    Greeted,
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
    /// Another command line.
    Command,
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
    phase: Phase<R>,
    helo: Option<String>,
    extended: bool,
    errors: u32,
    noise: u32,
}

impl<R> Session<R> {
    /// A session before its greeting.
    pub const fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            phase: Phase::Fresh,
            helo: None,
            extended: false,
            errors: 0,
            noise: 0,
        }
    }

    /// The 220 (RFC 5321 §3.1).
    pub fn greeting(&self) -> Reply {
        reply::plain(220, "").with_text(format!("{} ESMTP mailslot", self.policy.hostname))
    }

    /// Longest command line in octets, CRLF included.
    pub const fn line_limit(&self) -> usize {
        2_048
    }

    /// What the client called itself.
    pub fn helo(&self) -> Option<&str> {
        self.helo.as_deref()
    }

    /// The `with` keyword of Received (RFC 3848, RFC 6531 §4.3).
    pub fn protocol(&self) -> &'static str {
        match self.transaction() {
            Some(transaction) if transaction.params.smtputf8 => "UTF8SMTP",
            _ if self.extended => "ESMTP",
            _ => "SMTP",
        }
    }

    /// The transaction under way.
    pub const fn transaction(&self) -> Option<&Transaction<R>> {
        match &self.phase {
            Phase::Mail(transaction) | Phase::Chunks(transaction, ..) => Some(transaction),
            Phase::Fresh | Phase::Greeted => None,
        }
    }

    /// Takes one command line.
    pub fn line(&mut self, line: Line<'_>, host: &mut impl Host<Recipient = R>) -> Step {
        let step = match line {
            Line::TooLong | Line::Malformed => say(reply::BAD_LINE),
            Line::Ok([0x16, 0x03, ..]) => hang_up(reply::TOO_MUCH),
            Line::Ok(line) => match command::parse(line) {
                Ok((row, cursor)) => self.gate(row, cursor, host),
                Err(refused) => say(refused),
            },
        };
        self.counted(step)
    }

    /// The end of DATA or of BDAT LAST: the transaction is over, whatever became of it (A8).
    pub fn finish(&mut self, outcome: Reply) -> Step {
        self.phase = Phase::Greeted;
        if !outcome.is_error() {
            self.noise = 0;
        }
        self.counted(say(outcome))
    }

    /// A chunk that was not the last is in.
    pub fn chunk_received(&mut self) -> Step {
        say(reply::OK.with_text("Chunk received"))
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

    /// What holds for all commands, before any of them.
    fn gate(&mut self, row: &Row, cursor: Cursor<'_>, host: &mut impl Host<Recipient = R>) -> Step {
        if row.noise {
            self.noise += 1;
            if self.noise > MAX_NOISE {
                return hang_up(reply::TOO_MUCH);
            }
        }
        let empty = cursor.rest().is_empty();
        match row.argument {
            Argument::None if !empty => return say(reply::BAD_ARGUMENT),
            Argument::Required
                if empty && !matches!(row.verb, Verb::Lhlo | Verb::StartTls | Verb::Auth) =>
            {
                return say(self.missing_argument(row.verb));
            }
            _ => {}
        }
        self.dispatch(row.verb, cursor, host).unwrap_or_else(say)
    }

    fn missing_argument(&self, verb: Verb) -> Reply {
        match verb {
            Verb::Mail if matches!(self.phase, Phase::Greeted) => reply::BAD_SENDER_SYNTAX,
            Verb::Rcpt if matches!(self.phase, Phase::Mail(_)) => reply::BAD_RECIPIENT_SYNTAX,
            Verb::Mail | Verb::Rcpt => reply::BAD_SEQUENCE,
            _ => reply::BAD_ARGUMENT,
        }
    }

    fn dispatch(
        &mut self,
        verb: Verb,
        cursor: Cursor<'_>,
        host: &mut impl Host<Recipient = R>,
    ) -> Result<Step, Reply> {
        match verb {
            Verb::Ehlo => self.hello(cursor, true),
            Verb::Helo => self.hello(cursor, false),
            Verb::Mail => self.mail(cursor, host),
            Verb::Rcpt => self.rcpt(cursor, host),
            Verb::Data => self.data(),
            Verb::Bdat => Ok(self.bdat(cursor)),
            Verb::Rset => {
                if self.transaction().is_some() {
                    self.phase = Phase::Greeted;
                }
                Ok(say(reply::OK))
            }
            Verb::Noop => Ok(say(reply::OK)),
            Verb::Quit => Ok(hang_up(reply::BYE)),
            Verb::Help => help(cursor.rest()).map(say),
            Verb::Vrfy => Ok(say(reply::CANNOT_VRFY)),
            Verb::Lhlo => Err(reply::UNKNOWN_COMMAND),
            Verb::Expn | Verb::StartTls | Verb::Auth | Verb::Absent => Err(reply::NOT_OFFERED),
            Verb::Xclient => Err(reply::NOT_TRUSTED),
            Verb::Foreign => Ok(hang_up(reply::TOO_MUCH)),
        }
    }

    /// RFC 5321 §4.1.1.1, §4.1.4.
    fn hello(&mut self, cursor: Cursor<'_>, extended: bool) -> Result<Step, Reply> {
        let name = cursor.rest();
        if name.chars().any(char::is_control) || name.contains([' ', '\t']) || !name.is_ascii() {
            return Err(reply::BAD_ARGUMENT);
        }

        self.helo = Some(name.chars().take(255).collect());
        self.extended = extended;
        self.phase = Phase::Greeted;
        let mut text = format!("{} Hello {name}", self.policy.hostname);
        if extended {
            text.push_str(
                "\nPIPELINING\n8BITMIME\nBINARYMIME\nCHUNKING\nSMTPUTF8\nENHANCEDSTATUSCODES\nHELP",
            );
            text.push_str(&format!(
                "\nSIZE {}\nLIMITS RCPTMAX={}",
                self.policy.max_size, self.policy.max_recipients
            ));
        }
        Ok(say(reply::plain(250, "").with_text(text)))
    }

    /// RFC 5321 §4.1.1.2.
    fn mail(
        &mut self,
        mut cursor: Cursor<'_>,
        host: &mut impl Host<Recipient = R>,
    ) -> Result<Step, Reply> {
        if !matches!(self.phase, Phase::Greeted) {
            return Err(reply::BAD_SEQUENCE);
        }
        if !cursor.tag("FROM:") {
            return Err(reply::BAD_SENDER_SYNTAX);
        }
        cursor.spaces();
        let reverse_path = ReversePath::parse(&mut cursor).ok_or(reply::BAD_SENDER_SYNTAX)?;
        let params = MailParams::parse(&mut cursor)?;
        if params.size.is_some_and(|size| size > self.policy.max_size) {
            return Err(reply::TOO_LARGE);
        }
        if !params.smtputf8 && !reverse_path.is_ascii() {
            return Err(reply::NEEDS_SMTPUTF8);
        }
        host.room(params.size.unwrap_or(0))
            .map_err(|refusal| refusal.reply)?;

        self.phase = Phase::Mail(Transaction {
            reverse_path,
            params,
            recipients: Vec::new(),
            tried: false,
        });
        Ok(say(reply::SENDER_OK))
    }

    /// RFC 5321 §4.1.1.3.
    fn rcpt(
        &mut self,
        mut cursor: Cursor<'_>,
        host: &mut impl Host<Recipient = R>,
    ) -> Result<Step, Reply> {
        let Phase::Mail(transaction) = &mut self.phase else {
            return Err(reply::BAD_SEQUENCE);
        };
        transaction.tried = true;
        if !cursor.tag("TO:") {
            return Err(reply::BAD_RECIPIENT_SYNTAX);
        }
        cursor.spaces();
        let to = ForwardPath::parse(&mut cursor).ok_or(reply::BAD_RECIPIENT_SYNTAX)?;
        no_parameters(&mut cursor)?;
        if !transaction.params.smtputf8 && !to.is_ascii() {
            return Err(reply::NEEDS_SMTPUTF8);
        }
        if transaction.recipients.len() >= self.policy.max_recipients {
            return Err(reply::TOO_MANY_RECIPIENTS);
        }
        let recipient = host.recipient(&to).map_err(|refusal| refusal.reply)?;

        transaction.recipients.push((to, recipient));
        Ok(say(reply::RECIPIENT_OK))
    }

    /// RFC 5321 §4.1.1.4.
    fn data(&self) -> Result<Step, Reply> {
        let Phase::Mail(transaction) = &self.phase else {
            return Err(reply::BAD_SEQUENCE);
        };
        ready(transaction)?;
        if transaction.params.body == Some(BodyType::Binary) {
            return Err(reply::BAD_SEQUENCE);
        }
        Ok(Step {
            reply: Some(reply::START_DATA),
            next: Next::Data,
        })
    }

    /// RFC 3030 §2: the octets announced are consumed whatever the answer. Without a readable
    /// size the stream is lost, and the connection with it.
    fn bdat(&mut self, mut cursor: Cursor<'_>) -> Step {
        let digits = cursor.word();
        cursor.spaces();
        let size = digits
            .bytes()
            .all(|o| o.is_ascii_digit())
            .then(|| digits.parse::<u64>().ok())
            .flatten();
        let last = cursor.tag("LAST");
        let (Some(size), true) = (size, cursor.rest().is_empty()) else {
            return hang_up(reply::BAD_ARGUMENT);
        };
        let limit = self.policy.max_size;
        let so_far = if let Phase::Chunks(_, octets, _) = &self.phase {
            *octets
        } else {
            0
        };
        let total = so_far.saturating_add(size);
        if total > limit.saturating_mul(2) {
            return hang_up(reply::TOO_MUCH);
        }
        let refused = match &self.phase {
            Phase::Fresh | Phase::Greeted => return skip(size, reply::BAD_SEQUENCE),
            Phase::Mail(transaction) => match ready(transaction) {
                Err(refused) => return skip(size, refused),
                Ok(()) => None,
            },
            Phase::Chunks(_, _, refused) => refused.clone(),
        };
        let refused = refused.or_else(|| (total > limit).then_some(reply::TOO_LARGE));
        self.phase = match std::mem::replace(&mut self.phase, Phase::Greeted) {
            Phase::Mail(t) | Phase::Chunks(t, ..) if !(last && refused.is_some()) => {
                Phase::Chunks(t, total, refused.clone())
            }
            _ => Phase::Greeted,
        };
        match refused {
            Some(refused) => skip(size, refused),
            None => Step {
                reply: None,
                next: Next::Chunk { size, last },
            },
        }
    }
}

/// Whether a transaction may take a message (RFC 5321 §3.3).
const fn ready<R>(transaction: &Transaction<R>) -> Result<(), Reply> {
    match (transaction.recipients.is_empty(), transaction.tried) {
        (false, _) => Ok(()),
        (true, true) => Err(reply::NO_RECIPIENTS),
        (true, false) => Err(reply::BAD_SEQUENCE),
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

/// HELP out of the command table (RFC 5321 §4.1.1.8).
fn help(topic: &str) -> Result<Reply, Reply> {
    let mut offered = COMMANDS.iter().filter(|row| !row.syntax.is_empty());
    if topic.is_empty() {
        let names: Vec<&str> = offered.map(|row| row.name).collect();
        return Ok(reply::HELP.with_text(format!("Commands:\n{}", names.join(" "))));
    }
    let row = offered.find(|row| row.name.eq_ignore_ascii_case(topic));
    row.map(|row| reply::HELP.with_text(row.syntax))
        .ok_or(reply::NO_SUCH_TOPIC)
}

#[cfg(test)]
mod tests;
