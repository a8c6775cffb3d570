//! PLAIN (RFC 4616) and LOGIN: the password itself is sent, so the session only offers them in TLS.

use super::accounts::{Account, Accounts};
use super::decoy::Cost;
use super::hashing;
use super::machine::{Machine, Progress, login};

/// PLAIN: one response, `authzid NUL authcid NUL passwd`.
pub(super) struct Plain;

impl Machine for Plain {
    fn step(&mut self, response: Option<&[u8]>, accounts: &mut dyn Accounts) -> Progress {
        let Some(response) = response else {
            return Progress::Challenge(Vec::new());
        };
        let mut parts = response.split(|octet| *octet == 0);
        let (Some(authzid), Some(authcid), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Progress::Malformed;
        };
        accounts.tried(authcid);
        // Nobody may act as another user.
        if !authzid.is_empty() && authzid != authcid {
            return Progress::Failed;
        }

        check_password(authcid, secret, accounts)
    }
}

/// LOGIN: a user name and then a password, each after a prompt; the name may be the initial response.
pub(super) struct LoginExchange {
    name: Option<Vec<u8>>,
}

impl LoginExchange {
    pub(super) fn new() -> Self {
        Self { name: None }
    }
}

impl Machine for LoginExchange {
    fn step(&mut self, response: Option<&[u8]>, accounts: &mut dyn Accounts) -> Progress {
        match (&self.name, response) {
            (None, None) => Progress::Challenge(b"Username:".to_vec()),
            (None, Some(name)) => {
                accounts.tried(name);
                self.name = Some(name.to_vec());
                Progress::Challenge(b"Password:".to_vec())
            }
            (Some(name), secret) => check_password(name, secret.unwrap_or_default(), accounts),
        }
    }
}

/// Checks a password sent in the clear. Every failure takes the same time, unless the input is malformed.
fn check_password(name: &[u8], secret: &[u8], accounts: &mut dyn Accounts) -> Progress {
    let is_usable = std::str::from_utf8(secret)
        .is_ok_and(|text| !text.is_empty() && !text.chars().any(char::is_control));
    let Some(name) = login(name).filter(|_| is_usable) else {
        return Progress::Failed;
    };

    let decoy = accounts.decoy();
    let _permit = hashing::permit();
    match accounts.account(name) {
        Account::Known { user, stored } => {
            let right = stored.verify(secret);
            decoy.burn(secret, stored.cost());
            if right {
                Progress::Done { user }
            } else {
                Progress::Failed
            }
        }
        Account::Unknown => {
            decoy.burn(secret, Cost::default());
            Progress::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mechanism::Mechanism;
    use super::super::testing::*;
    use super::*;

    fn plain(response: &[u8]) -> Progress {
        start(Mechanism::Plain).step(Some(response), &mut Book::new())
    }

    /// RFC 4616 §4, both examples; the second one asks for another identity.
    #[test]
    fn rfc_4616_examples() {
        assert_eq!(plain(b"\0tim\0tanstaaftanstaaf"), done("tim"));
        assert_eq!(plain(b"Ursel\0tim\0tanstaaftanstaaf"), Progress::Failed);
    }

    #[test]
    fn without_an_initial_response_an_empty_challenge() {
        let mut exchange = start(Mechanism::Plain);
        assert_eq!(exchange.step(None, &mut Book::new()), challenge(""));
        assert_eq!(
            exchange.step(Some(b"tim\0tim\0tanstaaftanstaaf"), &mut Book::new()),
            done("tim")
        );
    }

    /// R172: exactly two NULs.
    #[test]
    fn malformed() {
        for response in [
            &b""[..],
            b"tim",
            b"\0tim",
            b"\0tim\0tanstaaftanstaaf\0",
            b"\0\0\0",
        ] {
            assert_eq!(plain(response), Progress::Malformed);
        }
    }

    /// A9, R172, R173.
    #[test]
    fn failed() {
        let long = [b"\0", "u".repeat(256).as_bytes(), b"\0x"].concat();
        for response in [
            &b"\0tim\0wrong"[..],
            b"\0nobody\0tanstaaftanstaaf",
            b"\0tim\0",
            b"\0\0tanstaaftanstaaf",
            b"\0ti\xff\0tanstaaftanstaaf",
            b"\0tim\0\xff",
            b"\0tim\n\0tanstaaftanstaaf",
            b"TIM\0tim\0tanstaaftanstaaf",
            &long,
        ] {
            assert_eq!(plain(response), Progress::Failed);
        }
    }

    #[test]
    fn login_in_three_steps_or_two() {
        let mut exchange = start(Mechanism::Login);
        assert_eq!(
            exchange.step(None, &mut Book::new()),
            challenge("Username:")
        );
        assert_eq!(
            exchange.step(Some(b"user"), &mut Book::new()),
            challenge("Password:")
        );
        assert_eq!(
            exchange.step(Some(b"pencil"), &mut Book::new()),
            done("user")
        );

        let mut exchange = start(Mechanism::Login);
        assert_eq!(
            exchange.step(Some(b"user"), &mut Book::new()),
            challenge("Password:")
        );
        assert_eq!(
            exchange.step(Some(b"pencil"), &mut Book::new()),
            done("user")
        );
    }

    #[test]
    fn login_fails_on_empty_and_wrong() {
        for (name, secret) in [
            (&b"user"[..], &b""[..]),
            (b"", b"pencil"),
            (b"user", b"pen"),
            (b"us\0er", b"pencil"),
        ] {
            let mut exchange = start(Mechanism::Login);
            assert_eq!(
                exchange.step(Some(name), &mut Book::new()),
                challenge("Password:")
            );
            assert_eq!(
                exchange.step(Some(secret), &mut Book::new()),
                Progress::Failed
            );
        }
    }
}
