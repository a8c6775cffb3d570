//! The state of one connection: channel, login, phase and counters, with accessors. The phase owns the transaction.
//! Commands are handled elsewhere.

use std::sync::Arc;

use super::transaction::Transaction;
use crate::auth::{Exchange, Mechanism};
use crate::smtp::policy::{Policy, Service};
use crate::smtp::reply::{self, Reply};

/// Maximum octets of a command line, CRLF included (RFC 5321 §4.5.3.1.4 asks for 512 and the growth of each extension).
const MAX_LINE: usize = 2_048;
/// Maximum octets of AUTH and its responses, CRLF included (RFC 4954 §4).
pub(super) const MAX_AUTH_LINE: usize = 12_288;

/// The transport of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Plaintext.
    Clear,
    /// In TLS.
    Tls {
        /// The `tls-exporter` value (RFC 9266), if it is available.
        exporter: Option<Vec<u8>>,
    },
}

/// The progress of the dialogue. The phase owns its transaction, so leaving the phase drops the transaction and nothing
/// can be half reset.
#[derive(Debug)]
pub(super) enum Phase<R> {
    Fresh,
    Greeted,
    Exchange(Box<Exchange>),
    Mail(Transaction<R>),
    /// Within a BDAT sequence (RFC 3030 §2).
    Chunks {
        transaction: Transaction<R>,
        /// Octets announced so far.
        octets: u64,
        /// The reply to all further chunks after one was refused.
        refused: Option<Reply>,
    },
}

/// The state of a connection.
#[derive(Debug)]
pub struct Session<R> {
    pub(super) policy: Arc<Policy>,
    pub(super) channel: Channel,
    /// The user, after a successful login.
    pub(super) user: Option<String>,
    pub(super) phase: Phase<R>,
    pub(super) helo: Option<String>,
    pub(super) extended: bool,
    pub(super) errors: u32,
    pub(super) noise: u32,
    pub(super) wrong_logins: u32,
    /// The account that the last AUTH tried, as the client spelled it.
    pub(super) tried_account: Option<String>,
    /// The mechanism of the last AUTH, and its result once it has ended.
    pub(super) mechanism: Option<Mechanism>,
    pub(super) ended_login: Option<bool>,
    /// True if XCLIENT may name another client.
    pub(super) trusted: bool,
    /// True if the reply to the last command may wait for further ones.
    pub(super) grouped: bool,
    /// Maximum recipients of the transaction, besides the maximum of the rules.
    pub(super) max_recipients: usize,
    /// True if the client's address may relay, and so needs no login.
    pub(super) exempt: bool,
}

impl<R> Session<R> {
    /// A new session.
    pub const fn new(policy: Arc<Policy>, channel: Channel) -> Self {
        Self {
            policy,
            channel,
            user: None,
            phase: Phase::Fresh,
            helo: None,
            extended: false,
            errors: 0,
            noise: 0,
            wrong_logins: 0,
            tried_account: None,
            mechanism: None,
            ended_login: None,
            trusted: false,
            grouped: false,
            max_recipients: usize::MAX,
            exempt: false,
        }
    }

    /// Replaces the rules, after certificates or accounts were reloaded.
    pub fn renew(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }

    /// Sets the rights of the client's address: XCLIENT, and relaying without a login.
    pub const fn trust(&mut self, trusted: bool, exempt: bool) {
        (self.trusted, self.exempt) = (trusted, exempt);
    }

    /// Allows fewer recipients than the rules do, while memory is short.
    pub const fn limit_recipients(&mut self, max: usize) {
        self.max_recipients = max;
    }

    /// True if the reply to the last command may be sent with those to pipelined commands after it.
    pub const fn is_grouped(&self) -> bool {
        self.grouped
    }

    /// The rules.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) fn is_lmtp(&self) -> bool {
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

    /// Maximum octets of a line that begins with `start`, CRLF included.
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

    /// The client's name in its greeting.
    pub fn helo(&self) -> Option<&str> {
        self.helo.as_deref()
    }

    /// The user, after a login.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Takes the result of a login that ended since the last call: its mechanism, and true if it succeeded.
    pub fn take_login(&mut self) -> Option<(Mechanism, bool)> {
        let succeeded = self.ended_login.take()?;
        Some((self.mechanism?, succeeded))
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

    /// The current transaction.
    pub const fn transaction(&self) -> Option<&Transaction<R>> {
        match &self.phase {
            Phase::Mail(transaction) | Phase::Chunks { transaction, .. } => Some(transaction),
            Phase::Fresh | Phase::Greeted | Phase::Exchange(_) => None,
        }
    }
}
