//! The rules of a listener: which protocol, what is offered, how much.

use super::body::BareNewline;
use crate::auth::Mechanism;

/// Which protocol a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// RFC 5321
    Smtp,
    /// RFC 6409
    Submission,
    /// RFC 2033
    Lmtp,
}

impl Service {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Submission => "submission",
            Self::Lmtp => "lmtp",
        }
    }
}

/// The rules of a listener.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Own name in greeting, EHLO and Received.
    pub hostname: String,
    /// The protocol.
    pub service: Service,
    /// Whether a certificate is there, so that STARTTLS can be had.
    pub starttls: bool,
    /// Mechanisms that every account's stored password allows; none where there is no account.
    pub mechanisms: Vec<Mechanism>,
    /// Whether little is answered in the clear (RFC 3207 §4).
    pub require_tls: bool,
    /// Whether AUTH can be used in the clear.
    pub insecure_auth: bool,
    /// Whether a user may send only as himself (RFC 6409 §6.1).
    pub auth_sender: bool,
    /// Whether VRFY is answered truthfully.
    pub vrfy: bool,
    /// Whether EXPN is answered truthfully.
    pub expn: bool,
    /// Whether paths without angle brackets are taken.
    pub bare_address: bool,
    /// Whether delivery status notifications are offered (RFC 3461).
    pub dsn: bool,
    /// Whether ETRN is offered (RFC 1985).
    pub etrn: bool,
    /// Whether ATRN is offered (RFC 2645).
    pub atrn: bool,
    /// Octets of a message (RFC 1870 §3).
    pub max_size: u64,
    /// Recipients of a message (RFC 5321 §4.5.3.1.8).
    pub max_recipients: usize,
    /// Errors of a connection.
    pub max_errors: u32,
    /// What a bare CR or LF in DATA means.
    pub bare_newline: BareNewline,
}
