//! The client's side of AUTH: choosing a mechanism and running its exchange. Like the server's side it is pure:
//! challenges and responses are plain octets, and the caller provides the nonce.

use std::num::NonZeroU32;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::keys::{hmac_sha256, sha256, stretch};
use super::md5::Hmac;
use super::mechanism::Mechanism;
use crate::encoding::{base64_decode, base64_encode, hex_encode};

/// PBKDF2 rounds that a server may ask for: fewer would make the password easy to guess (RFC 7677 §4), more would be a
/// denial of service.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=1_000_000;
/// Octets of an initial response, whose command must fit into 512 octets in base64 (RFC 4954 §4).
const MAX_INITIAL: usize = 372;
const UNEXPECTED: &str = "an unexpected challenge";

/// The mechanisms that a client uses, strongest first, and what each needs besides the password.
const STRONGEST: &[(Mechanism, Needs)] = &[
    (Mechanism::ScramSha256Plus, Needs::Binding),
    (Mechanism::ScramSha256, Needs::Nothing),
    (Mechanism::CramMd5, Needs::Nothing),
    (Mechanism::Plain, Needs::Tls),
    (Mechanism::Login, Needs::Tls),
];

enum Needs {
    Nothing,
    Tls,
    Binding,
}

/// The strongest offered mechanism that is usable: PLAIN and LOGIN only in TLS, PLUS only with a channel binding.
pub fn choose(offered: &[Mechanism], tls: bool, binding: bool) -> Option<Mechanism> {
    let usable = |needs: &Needs| match needs {
        Needs::Nothing => true,
        Needs::Tls => tls,
        Needs::Binding => binding,
    };
    let mut rows = STRONGEST.iter();
    let row = rows.find(|(mechanism, needs)| offered.contains(mechanism) && usable(needs));
    row.map(|(mechanism, _)| *mechanism)
}

/// One run of a mechanism.
#[derive(Debug)]
pub struct ClientExchange {
    state: State,
}

enum State {
    Plain(Zeroizing<Vec<u8>>),
    /// Responses to the next challenges, last one first.
    Login(Vec<Zeroizing<Vec<u8>>>),
    Cram {
        user: String,
        password: Zeroizing<Vec<u8>>,
    },
    ScramFirst(ScramClient),
    ScramFinal {
        /// The signature by which the server must prove that it knows the password.
        signature: [u8; 32],
    },
    /// All responses are sent, and the server's proof was right.
    Done,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State")
    }
}

/// Before the server's first message (RFC 5802 §5).
struct ScramClient {
    /// gs2-header (RFC 5802 §7).
    header: &'static str,
    binding: Vec<u8>,
    bare: String,
    nonce: String,
    password: Zeroizing<Vec<u8>>,
}

impl ClientExchange {
    /// Begins an exchange. `offered` are all mechanisms of the server: a client that supports channel binding but was
    /// not offered it says so, which reveals a downgrade attack (RFC 5802 §6).
    pub fn start(
        mechanism: Mechanism,
        (user, password): (&str, &str),
        offered: &[Mechanism],
        exporter: Option<&[u8]>,
        nonce: String,
    ) -> Self {
        let secret = Zeroizing::new(password.as_bytes().to_vec());
        let state = match mechanism {
            Mechanism::Login => {
                State::Login(vec![secret, Zeroizing::new(user.as_bytes().to_vec())])
            }
            Mechanism::CramMd5 => State::Cram {
                user: user.to_owned(),
                password: secret,
            },
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                let plus = mechanism == Mechanism::ScramSha256Plus;
                let header = match exporter {
                    Some(_) if plus => "p=tls-exporter,,",
                    Some(_) if !offered.contains(&Mechanism::ScramSha256Plus) => "y,,",
                    _ => "n,,",
                };
                let binding = exporter.filter(|_| plus).unwrap_or_default().to_vec();
                let name = user.replace('=', "=3D").replace(',', "=2C");
                State::ScramFirst(ScramClient {
                    header,
                    binding,
                    bare: format!("n={name},r={nonce}"),
                    nonce,
                    password: secret,
                })
            }
            _ => {
                let octets = [b"\0", user.as_bytes(), b"\0", password.as_bytes()].concat();
                State::Plain(Zeroizing::new(octets))
            }
        };
        Self { state }
    }

    /// The initial response, if the client speaks first. A long one waits for the server's empty challenge.
    pub fn initial(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        match &self.state {
            State::Plain(octets) => {
                let octets = octets.clone();
                if octets.len() > MAX_INITIAL {
                    self.state = State::Login(vec![octets]);
                    return None;
                }
                self.state = State::Done;
                Some(octets)
            }
            State::ScramFirst(scram) => {
                let first = format!("{}{}", scram.header, scram.bare);
                Some(Zeroizing::new(first.into_bytes()))
            }
            _ => None,
        }
    }

    /// The response to a challenge.
    ///
    /// # Errors
    /// The fault in the challenge; the caller must cancel the exchange.
    pub fn step(&mut self, challenge: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        match &mut self.state {
            State::Login(answers) => {
                let answer = answers.pop().ok_or(UNEXPECTED)?;
                if answers.is_empty() {
                    self.state = State::Done;
                }
                Ok(answer)
            }
            State::Cram { user, password } => {
                let hex = hex_encode(&Hmac::new(password).sign(challenge));
                let response = format!("{user} {hex}").into_bytes();
                self.state = State::Done;
                Ok(Zeroizing::new(response))
            }
            State::ScramFirst(scram) => {
                let (response, signature) = scram.answer(challenge)?;
                self.state = State::ScramFinal { signature };
                Ok(response)
            }
            State::ScramFinal { signature } => {
                verify(signature, challenge)?;
                self.state = State::Done;
                Ok(Zeroizing::default())
            }
            State::Plain(_) | State::Done => Err(UNEXPECTED),
        }
    }

    /// Called when the server reports success: checks that the exchange is over.
    ///
    /// # Errors
    /// It is not: with SCRAM the server has not proven that it knows the password.
    pub fn proven(&self) -> Result<(), &'static str> {
        match self.state {
            State::Done => Ok(()),
            State::ScramFirst(_) | State::ScramFinal { .. } => {
                Err("the server did not prove that it knows the password")
            }
            _ => Err("a success before the exchange was over"),
        }
    }
}

impl ScramClient {
    /// Computes client-final and the expected server signature from server-first (RFC 5802 §3).
    fn answer(&self, challenge: &[u8]) -> Result<(Zeroizing<Vec<u8>>, [u8; 32]), &'static str> {
        let wrong = "not a SCRAM message";
        let first = std::str::from_utf8(challenge).map_err(|_| wrong)?;
        let mut parts = first.split(',');
        let mut part = |name: &str| parts.next().and_then(|p| p.strip_prefix(name)).ok_or(wrong);
        let (nonce, salt, rounds) = (part("r=")?, part("s=")?, part("i=")?);
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err("the server's nonce does not begin with the client's");
        }
        let salt = base64_decode(salt.as_bytes()).ok_or(wrong)?;
        let rounds = rounds.parse::<NonZeroU32>().map_err(|_| wrong)?;
        if !ITERATIONS.contains(&rounds.get()) {
            return Err("the server asks for too few or too many iterations");
        }

        let salted = stretch(&self.password, &salt, rounds);
        let client_key = Zeroizing::new(hmac_sha256(salted.as_slice(), b"Client Key"));
        let server_key = Zeroizing::new(hmac_sha256(salted.as_slice(), b"Server Key"));
        let bound = base64_encode(&[self.header.as_bytes(), &self.binding].concat());
        let without_proof = format!("c={bound},r={nonce}");
        let message = format!("{},{first},{without_proof}", self.bare);
        let mut proof = hmac_sha256(&sha256(client_key.as_slice()), message.as_bytes());
        for (octet, key) in proof.iter_mut().zip(client_key.iter()) {
            *octet ^= key;
        }
        let last = format!("{without_proof},p={}", base64_encode(&proof));
        let signature = hmac_sha256(server_key.as_slice(), message.as_bytes());
        Ok((Zeroizing::new(last.into_bytes()), signature))
    }
}

/// Checks server-final: `v=` and the signature.
fn verify(signature: &[u8; 32], message: &[u8]) -> Result<(), &'static str> {
    let wrong = "the server's signature is wrong";
    let coded = message.strip_prefix(b"v=").ok_or(wrong)?;
    let coded = coded.split(|&octet| octet == b',').next().ok_or(wrong)?;
    let given = base64_decode(coded).ok_or(wrong)?;
    if given.ct_eq(signature).into() {
        Ok(())
    } else {
        Err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_that_can_be_used() {
        use Mechanism::{CramMd5, Login as LoginMechanism, Plain, ScramSha256, ScramSha256Plus};

        let all = [LoginMechanism, Plain, CramMd5, ScramSha256, ScramSha256Plus];
        assert_eq!(choose(&all, true, true), Some(ScramSha256Plus));
        assert_eq!(choose(&all, true, false), Some(ScramSha256));
        assert_eq!(choose(&[CramMd5, Plain], false, false), Some(CramMd5));
        assert_eq!(choose(&[LoginMechanism, Plain], true, false), Some(Plain));
        assert_eq!(choose(&[LoginMechanism, Plain], false, false), None);
        assert_eq!(choose(&[ScramSha256Plus], true, false), None);
    }

    /// RFC 7677 §3.
    #[test]
    fn scram_by_the_example_of_its_rfc() {
        let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        let mechanism = Mechanism::ScramSha256;
        let mut login = ClientExchange::start(mechanism, ("user", "pencil"), &[], None, nonce);
        let first = login.initial().map(|octets| octets.to_vec());
        assert_eq!(
            first.as_deref(),
            Some(&b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"[..])
        );
        let challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let last = login.step(challenge).map(|octets| octets.to_vec());
        let expected = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(last.as_deref(), Ok(&expected[..]));
        assert!(login.proven().is_err());
        let proof = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert!(login.step(proof).is_ok_and(|octets| octets.is_empty()));
        assert_eq!(login.proven(), Ok(()));
    }

    /// RFC 4954 §4: the command with an initial response has at most 512 octets.
    #[test]
    fn long_passwords_wait_for_the_challenge() {
        for length in [300, 366, 367, 1_000] {
            let password = "x".repeat(length);
            let pair = ("user", password.as_str());
            let mut login = ClientExchange::start(Mechanism::Plain, pair, &[], None, String::new());
            let message = format!("\0user\0{password}").into_bytes();
            let fits = "AUTH PLAIN \r\n".len() + base64_encode(&message).len() <= 512;
            let sent = match login.initial() {
                Some(sent) => sent,
                None => login.step(b"").unwrap_or_default(),
            };
            assert_eq!((sent.as_slice() == message, login.proven()), (true, Ok(())));
            let mut login = ClientExchange::start(Mechanism::Plain, pair, &[], None, String::new());
            assert_eq!(login.initial().is_some(), fits, "{length}");
        }
    }

    #[test]
    fn a_hostile_server_learns_nothing() {
        let start = || {
            let mechanism = Mechanism::ScramSha256;
            ClientExchange::start(
                mechanism,
                ("us=er,", "pencil"),
                &[],
                Some(b"x"),
                "abc".to_owned(),
            )
        };
        let first = start().initial().map(|octets| octets.to_vec());
        assert_eq!(first.as_deref(), Some(&b"y,,n=us=3Der=2C,r=abc"[..]));
        for challenge in [
            "",
            "r=abc,s=AAAA,i=4096",
            "r=xyzdef,s=AAAA,i=4096",
            "r=abcdef,s=!,i=4096",
            "r=abcdef,s=AAAA,i=0",
            "r=abcdef,s=AAAA,i=4095",
            "r=abcdef,s=AAAA,i=4000000000",
            "r=abcdef,s=AAAA",
            "m=x,r=abcdef,s=AAAA,i=4096",
            "e=unknown-user",
        ] {
            assert!(start().step(challenge.as_bytes()).is_err(), "{challenge}");
        }
        let mut login = start();
        assert!(login.step(b"r=abcdef,s=AAAA,i=4096").is_ok());
        assert!(login.step(b"v=AAAA").is_err() && login.step(b"e=x").is_err());
        assert!(login.proven().is_err());
    }
}
