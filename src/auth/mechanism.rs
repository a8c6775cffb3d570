//! The mechanisms by name (RFC 4954). Each has a file of its own, and `exchange` runs it.

use std::fmt;

/// The mechanisms, in the order in which EHLO offers them: the strongest first.
pub const MECHANISMS: &[Mechanism] = &[
    Mechanism::ScramSha256Plus,
    Mechanism::ScramSha256,
    Mechanism::CramMd5,
    Mechanism::Plain,
    Mechanism::Login,
    Mechanism::OAuthBearer,
    Mechanism::XOAuth2,
];

/// What a login by a mechanism needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A password, however it is stored.
    Password,
    /// A password stored as it is, or as the state of HMAC-MD5.
    Cram,
    /// A password stored as it is, or as SCRAM's keys.
    Scram,
    /// A token, and no password.
    Token,
}

/// The facts about a mechanism.
struct Row {
    name: &'static str,
    secret: Secret,
    server_first: bool,
}

const fn row(name: &'static str, secret: Secret) -> Row {
    Row {
        name,
        secret,
        server_first: false,
    }
}

/// A SASL mechanism.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// SCRAM-SHA-256-PLUS with the `tls-exporter` binding (RFC 7677, RFC 9266).
    ScramSha256Plus,
    /// SCRAM-SHA-256 (RFC 5802, RFC 7677).
    ScramSha256,
    /// CRAM-MD5 (RFC 2195).
    CramMd5,
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN: never standardized, but still used.
    Login,
    /// OAUTHBEARER (RFC 7628).
    OAuthBearer,
    /// XOAUTH2, its predecessor.
    XOAuth2,
}

impl Mechanism {
    /// The table: one row a mechanism.
    const fn row(self) -> Row {
        match self {
            Self::ScramSha256Plus => row("SCRAM-SHA-256-PLUS", Secret::Scram),
            Self::ScramSha256 => row("SCRAM-SHA-256", Secret::Scram),
            Self::CramMd5 => Row {
                server_first: true,
                ..row("CRAM-MD5", Secret::Cram)
            },
            Self::Plain => row("PLAIN", Secret::Password),
            Self::Login => row("LOGIN", Secret::Password),
            Self::OAuthBearer => row("OAUTHBEARER", Secret::Token),
            Self::XOAuth2 => row("XOAUTH2", Secret::Token),
        }
    }

    /// The name, as EHLO spells it.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// What a login needs.
    pub const fn secret(self) -> Secret {
        self.row().secret
    }

    /// The mechanism of that name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        let mut all = MECHANISMS.iter().copied();
        all.find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// True if the server speaks first, so that an initial response is an error (RFC 4954 §4). False for LOGIN: clients
    /// do send the user name with the command.
    pub const fn server_first(self) -> bool {
        self.row().server_first
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_in_any_case() {
        for mechanism in MECHANISMS {
            assert_eq!(
                Mechanism::parse(&mechanism.name().to_ascii_lowercase()),
                Some(*mechanism)
            );
        }
        for name in ["", "PLAI", "PLAINX", "EXTERNAL", "SCRAM-SHA-1"] {
            assert_eq!(Mechanism::parse(name), None, "{name}");
        }
    }

    /// R167: only CRAM-MD5 allows no initial response.
    #[test]
    fn only_cram_md5_begins_with_the_server() {
        let first: Vec<_> = MECHANISMS
            .iter()
            .filter(|mechanism| mechanism.server_first())
            .collect();
        assert_eq!(first, [&Mechanism::CramMd5]);
    }
}
