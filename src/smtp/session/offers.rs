//! Which commands are available: one function decides it for EHLO, HELP and the refusals of unavailable commands.

use super::state::{Channel, Session};
use crate::smtp::command::{COMMANDS, CommandRow, Protocol, Verb};
use crate::smtp::reply::{self, Reply};

/// The greatest RCPTMAX that can be stated: six digits (RFC 9422 §4.2).
const MAX_RCPTMAX: usize = 999_999;

/// The availability of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Available now: EHLO lists it.
    Now,
    /// Available at another time in this connection, as AUTH after TLS: HELP explains it, and its handler refuses it.
    NotNow,
    /// Not available on this listener or to this client; the reply to it.
    Never(Reply),
}

impl<R> Session<R> {
    /// Decides whether a command is available.
    pub(super) fn offers(&self, row: &CommandRow) -> Offer {
        let elsewhere = match row.protocol {
            Protocol::Any => false,
            Protocol::Smtp => self.is_lmtp(),
            Protocol::Lmtp => !self.is_lmtp(),
        };
        if elsewhere {
            return Offer::Never(reply::UNKNOWN_COMMAND);
        }
        let protected = !self.policy.require_tls || self.channel != Channel::Clear;
        // Clients that fetch mail look for its command before they log in.
        let user = || self.user().is_some() || !self.mechanisms().is_empty();
        let (ever, never, now) = match row.verb {
            Verb::StartTls => (
                self.policy.starttls,
                reply::NO_CERTIFICATE,
                self.channel == Channel::Clear,
            ),
            Verb::Auth => (
                !self.policy.mechanisms.is_empty(),
                reply::NO_ACCOUNTS,
                !self.mechanisms().is_empty(),
            ),
            // RFC 5321 §3.5.2: unlike VRFY it must be listed.
            Verb::Expn => (self.policy.expn, reply::NO_EXPN, protected),
            Verb::Etrn => (
                self.policy.etrn,
                reply::NOT_OFFERED,
                protected && (self.exempt || user()),
            ),
            Verb::Atrn => (self.policy.atrn, reply::NOT_OFFERED, protected && user()),
            Verb::Xclient => (self.trusted, reply::NOT_TRUSTED, protected),
            Verb::Unimplemented => (false, reply::NOT_OFFERED, false),
            _ => return Offer::Now,
        };
        match (ever, now) {
            (false, _) => Offer::Never(never),
            (true, false) => Offer::NotNow,
            (true, true) => Offer::Now,
        }
    }

    /// The keywords of EHLO and LHLO, one a line: exactly what works now (RFC 5321 §2.2.1).
    pub(super) fn keywords(&self) -> String {
        let policy = &self.policy;
        let mut lines = vec![
            "PIPELINING".to_owned(),
            "8BITMIME".to_owned(),
            "BINARYMIME".to_owned(),
            "SMTPUTF8".to_owned(),
            "ENHANCEDSTATUSCODES".to_owned(),
            format!("SIZE {}", policy.max_size),
            format!("LIMITS RCPTMAX={}", policy.max_recipients.min(MAX_RCPTMAX)),
        ];
        if matches!(self.channel, Channel::Tls { .. }) {
            lines.push("REQUIRETLS".to_owned());
        }
        if policy.dsn {
            lines.push("DSN".to_owned());
        }
        let offered = COMMANDS.iter().filter(|row| self.offers(row) == Offer::Now);
        lines.extend(offered.filter_map(|row| Some(self.keyword(row.verb, row.keyword?))));
        lines.join("\n")
    }

    fn keyword(&self, verb: Verb, keyword: &str) -> String {
        let mut line = keyword.to_owned();
        if verb == Verb::Auth {
            for mechanism in self.mechanisms() {
                line.push(' ');
                line.push_str(mechanism.name());
            }
        }
        if verb == Verb::Xclient {
            line.push_str(" NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT");
        }
        line
    }
}
