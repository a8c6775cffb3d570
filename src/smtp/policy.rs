//! The rules of a listener: its protocol, what it offers, its limits.

use super::body::BareNewline;
use crate::auth::Mechanism;

/// The EHLO name that `--healthcheck` uses.
pub const HEALTHCHECK: &str = "mailslot-healthcheck";

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// SMTP (RFC 5321).
    Smtp,
    /// Submission (RFC 6409).
    Submission,
    /// LMTP (RFC 2033).
    Lmtp,
}

impl Service {
    /// The name in metrics.
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
    /// The server's name in greeting, EHLO and Received.
    pub hostname: String,
    /// The protocol.
    pub service: Service,
    /// True if there is a certificate, so that STARTTLS is possible.
    pub starttls: bool,
    /// Mechanisms that every account's stored password supports; empty without accounts.
    pub mechanisms: Vec<Mechanism>,
    /// True if most commands need TLS (RFC 3207 §4).
    pub require_tls: bool,
    /// True if AUTH works without TLS.
    pub insecure_auth: bool,
    /// True if a user may send only from an own address (RFC 6409 §6.1).
    pub auth_sender: bool,
    /// True if VRFY is answered truthfully.
    pub vrfy: bool,
    /// True if EXPN is answered truthfully.
    pub expn: bool,
    /// True if paths without angle brackets are accepted.
    pub bare_address: bool,
    /// True if DSN is offered (RFC 3461).
    pub dsn: bool,
    /// True if ETRN is offered (RFC 1985).
    pub etrn: bool,
    /// True if ATRN is offered (RFC 2645).
    pub atrn: bool,
    /// Maximum octets of a message (RFC 1870 §3).
    pub max_size: u64,
    /// Maximum recipients of a message (RFC 5321 §4.5.3.1.8).
    pub max_recipients: usize,
    /// Maximum errors of a connection.
    pub max_errors: u32,
    /// How a bare CR or LF in DATA is handled.
    pub bare_newline: BareNewline,
}
