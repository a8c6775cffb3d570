//! SMTP AUTH (RFC 4954): which mechanisms there are and how their exchanges run.
//!
//! Everything here is pure. Challenges and responses are plain octets: base64, `*`, 334 and the replies belong to the session.
//! Accounts are asked for through [`Accounts`], the nonce and the channel binding come in with [`Context`]. Each
//! mechanism is a small state machine in a file of its own; [`Mechanism`] holds the table of them.
//!
//! A wrong password and an unknown user look alike, in the answer and in the time it takes: see [`Decoy`]. Names and
//! passwords are UTF-8 without control characters; SASLprep's mappings (RFC 4013) are not applied, so a password outside
//! ASCII must be typed in the form in which it was hashed.

pub mod client;
mod cram;
pub mod crypt;
pub mod decoy;
mod json;
pub mod jwt;
mod md5;
pub mod password;
mod plain;
mod scram;

use std::fmt;
use std::sync::Arc;

pub use decoy::Decoy;
pub use password::Stored;

/// The mechanisms, in the order in which EHLO offers them: the strongest first.
pub const MECHANISMS: &[Mechanism] = &[
    Mechanism::ScramSha256Plus,
    Mechanism::ScramSha256,
    Mechanism::CramMd5,
    Mechanism::Plain,
    Mechanism::Login,
];

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
    /// LOGIN, never standardized, still used.
    Login,
}

impl Mechanism {
    /// The table of mechanisms: name, whether the server speaks first, how an exchange begins.
    fn row(self) -> Row {
        let (name, server_first, start): (_, _, Start) = match self {
            Self::ScramSha256Plus => ("SCRAM-SHA-256-PLUS", false, |c| {
                Box::new(scram::Scram::plus(c))
            }),
            Self::ScramSha256 => ("SCRAM-SHA-256", false, |c| Box::new(scram::Scram::new(c))),
            Self::CramMd5 => ("CRAM-MD5", true, |c| Box::new(cram::Cram::new(c))),
            Self::Plain => ("PLAIN", false, |_| Box::new(plain::Plain)),
            Self::Login => ("LOGIN", false, |_| Box::new(plain::Login::new())),
        };
        Row {
            name,
            server_first,
            start,
        }
    }

    /// The name, as EHLO spells it.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The mechanism of that name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        let mut all = MECHANISMS.iter().copied();
        all.find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// Whether the server speaks first, so that an initial response is an error (RFC 4954 §4). LOGIN is not counted:
    /// clients do send the user name with the command.
    pub fn server_first(self) -> bool {
        self.row().server_first
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What [`Mechanism::row`] tells of a mechanism.
struct Row {
    name: &'static str,
    server_first: bool,
    start: Start,
}

type Start = fn(&Context<'_>) -> Box<dyn Machine>;

/// Where accounts are looked up.
pub trait Accounts {
    /// The account a client means by `login`, which is UTF-8 as sent, not empty, without control characters.
    fn account(&mut self, login: &str) -> Account;

    /// What unknown users are given in place of an account. The default costs and looks as a password hashed by
    /// [`password::hash_password`] does.
    fn decoy(&self) -> Decoy {
        Decoy::default()
    }
}

/// The answer to a look-up.
#[derive(Clone, Debug)]
pub enum Account {
    /// There is one.
    Known {
        /// The name to log and to return, whatever the client's spelling was.
        user: String,
        /// What its password is checked with.
        stored: Arc<Stored>,
    },
    /// There is none.
    Unknown,
    /// It can't be told now.
    Unavailable,
}

/// What an exchange may know of the connection it runs in.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The server's name, for CRAM-MD5's challenge.
    pub hostname: &'a str,
    /// The `tls-exporter` value of this connection (RFC 9266).
    pub exporter: Option<&'a [u8]>,
    /// Whether EHLO offered SCRAM-SHA-256-PLUS: a client that saw no such offer then had it stripped (RFC 5802 §6).
    pub plus_offered: bool,
    /// Fresh and unpredictable text, printable without comma and space, 18 octets of randomness or more.
    pub nonce: String,
}

/// One run of a mechanism, from the AUTH command to its outcome.
pub struct Exchange {
    mechanism: Mechanism,
    /// Gone once there was an outcome.
    machine: Option<Box<dyn Machine>>,
}

impl Exchange {
    /// Begins; nothing of an earlier exchange is in it.
    pub fn start(mechanism: Mechanism, context: &Context<'_>) -> Self {
        Self {
            mechanism,
            machine: Some((mechanism.row().start)(context)),
        }
    }

    /// Takes the client's next response, decoded; `None` at the first step means that the command brought none, `Some` of
    /// nothing that it brought `=`. After an outcome every further step fails.
    pub fn step(&mut self, response: Option<&[u8]>, accounts: &mut dyn Accounts) -> Progress {
        let Some(machine) = &mut self.machine else {
            return Progress::Failed;
        };
        let progress = machine.step(response, accounts);
        if !matches!(progress, Progress::Challenge(_)) {
            self.machine = None;
        }
        progress
    }

    /// The mechanism that runs.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({})", self.mechanism)
    }
}

/// Where an exchange stands after a step.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Progress {
    /// To be sent in a 334, in base64.
    Challenge(Vec<u8>),
    /// The client is this user: 235 2.7.0.
    Done {
        /// The name the account gave.
        user: String,
    },
    /// Wrong, for whatever reason: 535 5.7.8.
    Failed,
    /// Not what the mechanism's grammar allows: 501 5.5.2.
    Malformed,
    /// The accounts can't be asked now: 454 4.7.0.
    Unavailable,
}

/// A mechanism's state machine.
trait Machine: Send + Sync {
    fn step(&mut self, response: Option<&[u8]>, accounts: &mut dyn Accounts) -> Progress;
}

/// The most octets a user name may have.
const MAX_LOGIN: usize = 255;

/// A user name that may be looked up: UTF-8, 1 to 255 octets, no control characters.
fn login(octets: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(octets).ok()?;
    let fits = !name.is_empty() && name.len() <= MAX_LOGIN && !name.chars().any(char::is_control);
    fits.then_some(name)
}

/// Checks a password sent in the clear. Each refusal costs the same, whatever was wrong with an otherwise sensible pair.
fn check_password(name: &[u8], secret: &[u8], accounts: &mut dyn Accounts) -> Progress {
    let text = std::str::from_utf8(secret)
        .is_ok_and(|text| !text.is_empty() && !text.chars().any(char::is_control));
    let Some(name) = login(name).filter(|_| text) else {
        return Progress::Failed;
    };

    let decoy = accounts.decoy();
    match accounts.account(name) {
        Account::Known { user, stored } => {
            let right = stored.verify(secret);
            decoy.burn(secret, stored.iterations());
            if right {
                Progress::Done { user }
            } else {
                Progress::Failed
            }
        }
        Account::Unknown => {
            decoy.burn(secret, 0);
            Progress::Failed
        }
        Account::Unavailable => Progress::Unavailable,
    }
}

/// Accounts for the tests of all mechanisms: `tim` with the password `tanstaaftanstaaf`, `user` with `pencil`.
#[cfg(test)]
mod testing {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    pub(super) struct Book(pub(super) Vec<(&'static str, Arc<Stored>)>);

    impl Book {
        pub(super) fn new() -> Self {
            Self::of(&[
                ("tim", "{PLAIN}tanstaaftanstaaf"),
                ("user", "{PLAIN}pencil"),
            ])
        }

        pub(super) fn of(entries: &[(&'static str, &str)]) -> Self {
            let entries = entries.iter();
            Self(
                entries
                    .map(|(name, form)| (*name, Arc::new(Stored::parse(form).unwrap())))
                    .collect(),
            )
        }
    }

    impl Accounts for Book {
        fn account(&mut self, login: &str) -> Account {
            if login == "down" {
                return Account::Unavailable;
            }
            match self.0.iter().find(|(name, _)| *name == login) {
                Some((name, stored)) => Account::Known {
                    user: format!("{name}@example.org"),
                    stored: Arc::clone(stored),
                },
                None => Account::Unknown,
            }
        }
    }

    pub(super) fn context(nonce: &str) -> Context<'_> {
        Context {
            hostname: "postoffice.reston.mci.net",
            exporter: None,
            plus_offered: false,
            nonce: nonce.to_owned(),
        }
    }

    pub(super) fn start(mechanism: Mechanism) -> Exchange {
        Exchange::start(mechanism, &context("1896.697170952"))
    }

    pub(super) fn done(name: &str) -> Progress {
        let user = format!("{name}@example.org");
        Progress::Done { user }
    }

    pub(super) fn challenge(text: &str) -> Progress {
        Progress::Challenge(text.as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
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

    /// R167: only CRAM-MD5 has nothing to do with an initial response.
    #[test]
    fn who_speaks_first() {
        let first: Vec<_> = MECHANISMS
            .iter()
            .filter(|mechanism| mechanism.server_first())
            .collect();
        assert_eq!(first, [&Mechanism::CramMd5]);
    }

    /// A9: nothing of a finished exchange can be used again.
    #[test]
    fn an_outcome_is_final() {
        let mut exchange = start(Mechanism::Plain);
        assert_eq!(
            exchange.step(Some(b"\0user\0wrong"), &mut Book::new()),
            Progress::Failed
        );
        assert_eq!(
            exchange.step(Some(b"\0user\0pencil"), &mut Book::new()),
            Progress::Failed
        );
    }
}
