//! CRAM-MD5 (RFC 2195): the client shows that it knows the password by the HMAC-MD5 of a challenge.

use subtle::ConstantTimeEq as _;

use super::accounts::{Account, Accounts};
use super::machine::{ExchangeContext, Machine, Progress, login};
use super::md5::Hmac;
use crate::encoding::hex_decode;

/// The server's side.
pub(super) struct Cram {
    challenge: Vec<u8>,
    /// True once the challenge was sent.
    sent: bool,
}

impl Cram {
    pub(super) fn new(context: &ExchangeContext<'_>) -> Self {
        Self {
            challenge: format!("<{}@{}>", context.nonce, context.hostname).into_bytes(),
            sent: false,
        }
    }

    /// Checks `user SP digest`; the user name may have spaces of its own.
    fn check(&self, response: &[u8], accounts: &mut dyn Accounts) -> Progress {
        // Split from the end: digest, then name.
        let mut parts = response.rsplitn(2, |octet| *octet == b' ');
        let (Some(hex), Some(name)) = (parts.next(), parts.next()) else {
            return Progress::Malformed;
        };
        let Some(digest) = hex_decode(hex).filter(|digest| digest.len() == 16) else {
            return Progress::Malformed;
        };
        accounts.tried(name);
        let Some(name) = login(name) else {
            return Progress::Failed;
        };

        // The decoy is made in any case, so that every login takes as long.
        let decoy = accounts.decoy().cram(name);
        let (user, stored) = match accounts.account(name) {
            Account::Known { user, stored } => (Some(user), Some(stored)),
            Account::Unknown => (None, None),
        };
        let real: Option<&Hmac> = stored.as_ref().and_then(|stored| stored.cram());
        let expected = real.unwrap_or(&decoy).sign(&self.challenge);
        let right: bool = expected.ct_eq(digest.as_slice()).into();
        match user {
            Some(user) if right && real.is_some() => Progress::Done { user },
            _ => Progress::Failed,
        }
    }
}

impl Machine for Cram {
    fn step(&mut self, response: Option<&[u8]>, accounts: &mut dyn Accounts) -> Progress {
        match (self.sent, response) {
            (false, None) => {
                self.sent = true;
                Progress::Challenge(self.challenge.clone())
            }
            (true, Some(response)) => self.check(response, accounts),
            _ => Progress::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mechanism::Mechanism;
    use super::super::testing::*;
    use super::*;
    use crate::encoding::hex_encode;

    fn cram(response: &[u8], book: &mut Book) -> Progress {
        let mut exchange = start(Mechanism::CramMd5);
        let want = challenge("<1896.697170952@postoffice.reston.mci.net>");
        assert_eq!(exchange.step(None, book), want);
        exchange.step(Some(response), book)
    }

    /// RFC 2195 §2.
    #[test]
    fn rfc_2195_example() {
        let response = b"tim b913a602c7eda7a495b4e6e7334d3890";
        assert_eq!(cram(response, &mut Book::new()), done("tim"));
    }

    /// The stored states work like the password, a hash of another kind never does.
    #[test]
    fn stored_states() {
        let states = hex_encode(&Hmac::new(b"tanstaaftanstaaf").to_states());
        let response = b"tim b913a602c7eda7a495b4e6e7334d3890";
        let mut book = Book::of(&[("tim", &format!("{{CRAM-MD5}}{states}"))]);
        assert_eq!(cram(response, &mut book), done("tim"));
        let hash = super::super::password::hash_password(b"tanstaaftanstaaf", [1; 16]);
        assert_eq!(
            cram(response, &mut Book::of(&[("tim", &hash)])),
            Progress::Failed
        );
    }

    #[test]
    fn refused() {
        for response in [
            &b"user b913a602c7eda7a495b4e6e7334d3890"[..],
            b"nobody b913a602c7eda7a495b4e6e7334d3890",
            b" b913a602c7eda7a495b4e6e7334d3890",
            b"tim b913a602c7eda7a495b4e6e7334d3891",
        ] {
            assert_eq!(cram(response, &mut Book::new()), Progress::Failed);
        }
        for response in [
            &b""[..],
            b"tim",
            b"tim ",
            b"tim b913a602",
            b"tim zz13a602c7eda7a495b4e6e7334d3890",
        ] {
            assert_eq!(cram(response, &mut Book::new()), Progress::Malformed);
        }
    }

    /// R167.
    #[test]
    fn no_initial_response() {
        let mut exchange = start(Mechanism::CramMd5);
        assert_eq!(
            exchange.step(Some(b"tim x"), &mut Book::new()),
            Progress::Malformed
        );
    }
}
