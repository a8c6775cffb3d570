//! What is offered here and now: the one function that EHLO, HELP and the refusals of commands
//! that do not exist go by.

use crate::smtp::command::{COMMANDS, Protocol, Row, Verb};
use crate::smtp::reply::{self, Reply};

use super::state::{Channel, Session};

/// Whether a command can be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Here and now: EHLO names it.
    Now,
    /// At another time of this connection, as AUTH before TLS: HELP explains it, and its own
    /// function refuses it.
    NotNow,
    /// Never on this listener, or not to this client: it gets this reply.
    Never(Reply),
}

impl<R> Session<R> {
    /// Whether a command of the table is offered.
    pub(super) fn offers(&self, row: &Row) -> Offer {
        let elsewhere = match row.protocol {
            Protocol::Any => false,
            Protocol::Smtp => self.is_lmtp(),
            Protocol::Lmtp => !self.is_lmtp(),
        };
        if elsewhere {
            return Offer::Never(reply::UNKNOWN_COMMAND);
        }
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
            Verb::Expn => (self.policy.expn, reply::NO_EXPN, true),
            Verb::Etrn => (self.policy.etrn, reply::NOT_OFFERED, true),
            // Clients look for it before they log in.
            Verb::Atrn => (
                self.policy.atrn,
                reply::NOT_OFFERED,
                self.user().is_some() || !self.mechanisms().is_empty(),
            ),
            Verb::Xclient => (
                self.trusted,
                reply::NOT_TRUSTED,
                !self.policy.require_tls || self.channel != Channel::Clear,
            ),
            Verb::Unimplemented => (false, reply::NOT_OFFERED, false),
            _ => return Offer::Now,
        };
        match (ever, now) {
            (false, _) => Offer::Never(never),
            (true, false) => Offer::NotNow,
            (true, true) => Offer::Now,
        }
    }

    /// The keywords of EHLO and LHLO, a line each: what works now and nothing else
    /// (RFC 5321 §2.2.1).
    pub(super) fn keywords(&self) -> String {
        let policy = &self.policy;
        let mut lines = vec![
            "PIPELINING".to_owned(),
            "8BITMIME".to_owned(),
            "BINARYMIME".to_owned(),
            "SMTPUTF8".to_owned(),
            "ENHANCEDSTATUSCODES".to_owned(),
            format!("SIZE {}", policy.max_size),
            format!("LIMITS RCPTMAX={}", policy.max_recipients),
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
