//! Handles a line: the checks that all commands share, then the command's own function, then the error count.

use super::backend::Backend;
use super::offers::Offer;
use super::state::{Channel, MAX_AUTH_LINE, Phase, Session};
use super::step::{Next, Step, close, say};
use super::vrfy::look_up;
use crate::smtp::command::{Argument, Command, CommandRow, Verb};
use crate::smtp::cursor::Cursor;
use crate::smtp::line::Line;
use crate::smtp::policy::Service;
use crate::smtp::reply::{self, Reply};

/// Noise commands since the last accepted message; one more closes the connection.
const MAX_NOISE: u32 = 100;

impl<R> Session<R> {
    /// Handles one line. `more_input` is true if more input is already buffered.
    pub fn line(
        &mut self,
        line: Line<'_>,
        more_input: bool,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Step {
        self.grouped = false;
        let exchange = matches!(self.phase, Phase::Exchange(_));
        let step = match line {
            Line::TooLong(MAX_AUTH_LINE) => self.long_auth_line(),
            Line::Malformed if exchange => self.response(b"\0", backend),
            Line::TooLong(_) => say(reply::LINE_TOO_LONG),
            Line::Malformed => say(reply::MALFORMED_LINE),
            Line::Http => close(reply::HTTP),
            Line::Tls => close(reply::UNEXPECTED_TLS),
            Line::Ok(line) if exchange => self.response(line, backend),
            Line::Ok(line) => match Command::parse(line) {
                // An MTA in front asks for recipients often: it has no other way to verify them.
                Ok(command) if command.row.verb == Verb::Rcpt && self.is_lmtp() => {
                    return self.execute(&command, more_input, backend);
                }
                Ok(command) => self.execute(&command, more_input, backend),
                Err(refused) => say(refused),
            },
        };
        self.counted(step)
    }

    /// Ends DATA or BDAT LAST, with a reply for each recipient on LMTP and one reply otherwise. The transaction is over
    /// in any case (A8).
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

    /// Counts errors, in this place only; the error past the limit becomes 421.
    fn counted(&mut self, step: Step) -> Step {
        let error = match (&step.reply, &step.next) {
            (_, Next::Skip { .. }) => true,
            (Some(reply), _) => reply.is_error(),
            (None, _) => false,
        };
        self.errors += u32::from(error);
        if error && self.errors > self.policy.max_errors {
            return close(reply::TOO_MANY_ERRORS);
        }
        step
    }

    /// Counts a command that moves no mail; returns the reply to close with if there were too many.
    pub(super) fn noise(&mut self) -> Option<Step> {
        self.noise += 1;
        (self.noise > MAX_NOISE).then(|| close(reply::TOO_MUCH_NOISE))
    }

    /// Runs a command after the checks that all commands share.
    fn execute(
        &mut self,
        command: &Command<'_>,
        more_input: bool,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Step {
        let row = command.row;
        self.grouped = row.grouped;
        if row.noise
            && let Some(last) = self.noise()
        {
            return last;
        }
        let text = command.text();
        if let Some(refused) = self.refusal(row, text.is_empty()) {
            // The announced octets of BDAT arrive all the same.
            return match row.verb {
                Verb::Bdat => self.bdat(&text, Some(refused)),
                _ => say(refused),
            };
        }
        match row.verb {
            Verb::Ehlo | Verb::Lhlo => self.hello(command.argument, true),
            Verb::Helo => self.hello(command.argument, false),
            Verb::StartTls => self.starttls(&text, more_input),
            verb => self.dispatch(verb, &text, backend),
        }
        .unwrap_or_else(say)
    }

    /// The refusals that follow from the table, in this order: protocol, TLS, login, argument, greeting, availability.
    fn refusal(&self, row: &CommandRow, empty: bool) -> Option<Reply> {
        let offer = self.offers(row);
        if offer == Offer::Never(reply::UNKNOWN_COMMAND) {
            return Some(reply::UNKNOWN_COMMAND);
        }
        if self.policy.require_tls && self.channel == Channel::Clear && !row.in_clear {
            return Some(reply::NEEDS_TLS);
        }
        let submission = self.policy.service == Service::Submission && !self.exempt;
        if submission && row.login && self.user().is_none() {
            return Some(reply::NEEDS_LOGIN);
        }
        if row.argument == Argument::None && !empty {
            return Some(reply::UNEXPECTED_ARGUMENT);
        }
        let greet = row.greeted && matches!(self.phase, Phase::Fresh);
        if row.argument == Argument::Required && empty && !greet {
            return Some(self.missing_argument(row.verb));
        }
        if greet {
            return Some(self.greet_first());
        }
        match offer {
            Offer::Never(refused) => Some(refused),
            Offer::Now | Offer::NotNow => None,
        }
    }

    fn missing_argument(&self, verb: Verb) -> Reply {
        match (verb, &self.phase) {
            (Verb::Mail, Phase::Mail(_) | Phase::Chunks { .. }) => reply::NESTED_MAIL,
            (Verb::Mail, _) => reply::BAD_SENDER_SYNTAX,
            (Verb::Rcpt, Phase::Mail(_)) => reply::BAD_RECIPIENT_SYNTAX,
            (Verb::Rcpt, Phase::Chunks { .. }) => reply::IN_CHUNKS,
            (Verb::Rcpt, _) => reply::MAIL_FIRST,
            _ => reply::MISSING_ARGUMENT,
        }
    }

    /// The 503 before a greeting (RFC 5321 §4.1.4).
    fn greet_first(&self) -> Reply {
        if self.is_lmtp() {
            reply::LHLO_FIRST
        } else {
            reply::GREET_FIRST
        }
    }

    fn dispatch(
        &mut self,
        verb: Verb,
        text: &str,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Result<Step, Reply> {
        match verb {
            Verb::Mail => self.mail(Cursor::new(text), backend),
            Verb::Rcpt => self.rcpt(Cursor::new(text), backend),
            Verb::Data => self.data(),
            Verb::Bdat => Ok(self.bdat(text, None)),
            Verb::Rset => Ok(self.reset()),
            Verb::Noop => Ok(say(reply::OK)),
            Verb::Quit => Ok(close(reply::BYE)),
            Verb::Help => self.help(text).map(say),
            Verb::Vrfy if !self.policy.vrfy => Ok(say(reply::CANNOT_VRFY)),
            Verb::Vrfy => look_up(text, |name| backend.vrfy(name)),
            Verb::Expn => look_up(text, |name| backend.expn(name)),
            Verb::Auth => self.auth(Cursor::new(text), backend),
            Verb::Xclient => self.xclient(text),
            Verb::Etrn => self.etrn(text, backend),
            Verb::Atrn => self.atrn(text, backend),
            // The gate has refused these already.
            Verb::Ehlo | Verb::Helo | Verb::Lhlo | Verb::StartTls | Verb::Unimplemented => {
                Err(reply::NOT_OFFERED)
            }
        }
    }

    fn reset(&mut self) -> Step {
        if self.transaction().is_some() {
            self.phase = Phase::Greeted;
        }
        say(reply::OK)
    }
}
