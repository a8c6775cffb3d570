//! The way of a line through the session: the checks that hold for all commands, the command's
//! own function, and the count of errors.

use crate::smtp::command::{self, Argument, Protocol, Row, Verb};
use crate::smtp::cursor::Cursor;
use crate::smtp::line::Line;
use crate::smtp::policy::Service;
use crate::smtp::reply::{self, Reply};

use super::backend::Backend;
use super::state::{Channel, MAX_AUTH_LINE, Phase, Session};
use super::step::{Next, Step, hang_up, say};
use super::vrfy::look_up;

/// Noise commands since the last accepted message, above which the client is hung up on.
const MAX_NOISE: u32 = 100;

impl<R> Session<R> {
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
            Verb::Vrfy => look_up(cursor.rest(), |name| backend.vrfy(name)),
            Verb::Expn if self.policy.expn => look_up(cursor.rest(), |name| backend.expn(name)),
            Verb::Auth => self.auth(cursor, backend),
            Verb::Expn | Verb::StartTls | Verb::Unimplemented => Err(reply::NOT_OFFERED),
            Verb::Xclient => Err(reply::NOT_TRUSTED),
            Verb::WrongProtocol => Ok(hang_up(reply::TOO_MUCH)),
        }
    }
}
